//! Saving a live profile. Every save runs in the key's queue.
//!
//! A save builds its commit on what the session knows, and lets the store judge. When the outcome
//! of a commit is unknown, the same commit is sent again until it is known: so the next one builds
//! on facts.

use std::sync::{
    Arc,
    atomic::Ordering::{self, Relaxed},
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{Session, collect::Collect, document::Document, snapshot::Snapshot};
use crate::{
    audit::AuditOutcome,
    data::{check_for_save, encode_for_save},
    data_store::{
        Cause, Change, Commit, CommitReply, Conflict, ConflictKind, Digest, KeyState, NewValue,
        Returning, StoreError, StoredMessage,
    },
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    link::{
        commit::Backoff,
        deadline::{ForEver, Once, Unless},
        hosting::Request,
        room::Pass,
    },
    ownership::Held,
    record::{Record, Stored},
    storable::NEARLY_FULL_BYTES,
};

/// A snapshot made ready for the store.
pub(super) struct Prepared {
    pub(super) snapshot: Snapshot,
    /// What to write; None when the store holds it already.
    pub(super) write: Option<Encoded>,
}

impl Prepared {
    /// How large the serialised copy is, with what the handlers' gifts hold.
    pub(super) fn bytes(&self) -> usize {
        let gifts = self.snapshot.processed.values().flat_map(|mark| &mark.gifts);
        self.write.as_ref().map_or(0, |encoded| encoded.bytes.len())
            + gifts.map(|gift| gift.payload.len()).sum::<usize>()
    }
}

pub(super) struct Encoded {
    bytes: Bytes,
    digest: Digest,
    user_ids: Vec<i64>,
}

impl Session {
    /// Compares a snapshot with what is stored, and encodes it if it differs.
    pub(super) fn prepare(&self, snapshot: Snapshot) -> Result<Prepared> {
        let (saved_generation, saved, overwritten) = {
            let known = self.known.lock();
            (known.saved_generation, known.saved.digest, known.overwritten)
        };
        let away = matches!(Document::of(&*snapshot.data), Some(Document::Away));
        if (snapshot.generation == saved_generation && !overwritten) || away {
            return Ok(Prepared { snapshot, write: None });
        }
        let verify = self.link.settings().verify_saves;
        let (bytes, size) = encode_for_save(&*snapshot.data, &snapshot.meta, &*self.codec, verify)
            .map_err(|error| error.about(&self.key))?;
        self.note_size(size);
        let digest = Digest::of(&bytes);
        let write = (overwritten || Some(digest) != saved).then(|| Encoded {
            bytes,
            digest,
            user_ids: snapshot.meta.indexed_users(),
        });
        Ok(Prepared { snapshot, write })
    }

    /// Prepares anew if a document was written over the profile meanwhile: what the session has
    /// wins, and members of the document that this program does not know stay. None: there was
    /// none. Tries for as long as it is wanted, as the save itself is; that is asked between reads,
    /// which take a call's time each at most. Fails where another host may have stored a later save
    /// of this session, which must stay.
    pub(super) async fn prepare_over_document(
        &self,
        prepared: &Prepared,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Option<Prepared>> {
        let epoch = {
            let known = self.known.lock();
            if !known.overwritten {
                return Ok(None);
            }
            known.epoch
        };
        Box::pin(self.link.check_host(Unless(|| !is_wanted()))).await?;
        let mut snapshot = prepared.snapshot.clone();
        let returning = Returning { value: true, inbox_unless: None };
        let state = loop {
            match self.link.read_settled(&self.key, returning).await {
                Ok((_, state)) => break state,
                Err(error)
                    if error.is_transient() && is_wanted() && self.link.stopped().is_none() =>
                {
                    self.link.renewed_or_tried().await;
                }
                Err(error) => return Err(error.into()),
            }
        };
        // Otherwise the profile is another one's by now, which the commit finds out.
        if state.epoch == epoch
            && let Some(Ok(Stored::Profile(said))) = state.value.as_deref().map(Stored::decode)
        {
            self.live.keep_unknown(&said);
            snapshot.meta = Arc::new(Record {
                extra: said.extra,
                extra_meta: said.extra_meta,
                ..Record::clone(&snapshot.meta)
            });
        }
        self.prepare(snapshot).map(Some)
    }

    /// Whether a snapshot can be saved, without saving it.
    pub(super) fn check_saveable(&self, snapshot: &Snapshot) -> Result<()> {
        if snapshot.generation == self.known.lock().saved_generation {
            return Ok(());
        }
        let verify = self.link.settings().verify_saves;
        check_for_save(&*snapshot.data, &snapshot.meta, &*self.codec, verify)
            .map_err(|error| error.about(&self.key))
    }

    /// Tells the listeners once when the data has become almost too large.
    fn note_size(&self, size: usize) {
        let is_nearly_full = size > NEARLY_FULL_BYTES;
        if self.nearly_full.swap(is_nearly_full, Ordering::Relaxed) != is_nearly_full
            && is_nearly_full
        {
            self.link.health.nearly_full(&self.key, size);
        }
    }

    /// The changes that store a snapshot: the data if it differs, and the messages whose effect it
    /// holds.
    pub(super) fn changes(&self, prepared: &Prepared, cause: Cause) -> Vec<Change> {
        let settings = self.link.settings();
        let known = self.known.lock();
        // Those that are gone from the inbox were removed by another writer.
        let there = |index: &u64| known.has_message(*index) && !defect!(MessageRemovedLater);
        let processed: Vec<_> =
            prepared.snapshot.processed.iter().filter(|(index, _)| there(index)).collect();
        let booked = processed.iter().filter_map(|(_, mark)| mark.entry.as_deref());
        let mut changes = Vec::with_capacity(3);
        if let Some(encoded) = &prepared.write {
            // An operator's change names the operator, and the version before it is kept.
            let operator = booked.clone().rfind(|entry| entry.outcome == AuditOutcome::Done);
            let (cause, author) = match operator {
                Some(entry) if cause == Cause::Save => (Cause::Edit, entry.by.author.clone()),
                _ => (cause, self.link.author()),
            };
            changes.push(Change::Write {
                key: self.key.clone(),
                epoch: known.epoch,
                version: known.version,
                value: NewValue::Bytes(encoded.bytes.clone()),
                user_ids: encoded.user_ids.clone(),
                cause,
                author,
                keep_previous: settings.keep_every_save || operator.is_some(),
                seal: false,
                imported: None,
            });
        } else {
            changes.push(Change::Check { key: self.key.clone(), epoch: known.epoch });
        }
        changes.extend(booked.filter(|entry| !known.unbookable.contains(&entry.key())).filter_map(
            |entry| {
                let version = prepared.write.as_ref().map(|_| known.version + 1);
                self.outcome(entry, version)
            },
        ));
        changes.extend(processed.iter().map(|(index, _)| Change::RemoveMessage {
            key: self.key.clone(),
            index: **index,
            receipt: true,
        }));
        // Also of a message that another writer has removed since: its effect is in the data.
        let gifts: Vec<_> = known.gifts_to_send(&prepared.snapshot).collect();
        if !gifts.is_empty() {
            let now_ms = self.link.store_ms();
            changes.extend(gifts.into_iter().map(|gift| gift.change(now_ms)));
        }
        let to_lock = |message: &&StoredMessage| {
            let snapshot = &prepared.snapshot;
            snapshot.locked.contains(&message.index)
                && !snapshot.processed.contains_key(&message.index)
                && !message.locked
        };
        changes.extend(known.inbox.iter().filter(to_lock).map(|message| Change::LockMessage {
            key: self.key.clone(),
            index: message.index,
            revision: message.revision,
        }));
        changes
    }

    /// A save that the program asked for, if no listener vetoes it.
    pub(super) async fn save_asked_for(self: &Arc<Self>) -> Result<()> {
        self.save_if(|| {
            let mut vetoed = None;
            self.signals.veto_save.each(|judge| {
                if vetoed.is_none() {
                    vetoed = judge(&*self.live.data()).err();
                }
            });
            match vetoed {
                Some(why) => {
                    Err(Error::new(ErrorKind::Refused, format!("the save was vetoed: {why}"))
                        .about(&self.key))
                }
                None => Ok(()),
            }
        })
        .await
    }

    /// One save: hooks, then a commit or, if nothing changed, one fenced read; then listeners, and
    /// what the reply brings.
    pub(super) async fn save_now(self: &Arc<Self>) -> Result<()> {
        self.save_if(|| Ok(())).await
    }

    async fn save_if(self: &Arc<Self>, agree: impl FnOnce() -> Result<()>) -> Result<()> {
        let over = || Error::new(ErrorKind::SessionEnded, "the session is over").about(&self.key);
        if self.is_over() {
            return Err(over());
        }
        self.collect(Collect::Save)
            .inspect_err(|error| self.not_saved(error, self.link.env.now()))?;
        self.run_save_hooks();
        let pass = self.room_to_save().await;
        if self.is_over() {
            return Err(over());
        }
        agree()?;
        self.save_snapshot(self.live.snapshot(), pass, None).await.map(drop)
    }

    /// Saves as [`Session::save_now`] does, without hooks, and only if there is something to save.
    pub(super) async fn save_change_now(self: &Arc<Self>) -> Result<()> {
        let nothing = || {
            self.is_over() || self.live.snapshot().generation == self.known.lock().saved_generation
        };
        if nothing() {
            return Ok(());
        }
        let pass = self.room_to_save().await;
        if nothing() {
            return Ok(());
        }
        self.save_snapshot(self.live.snapshot(), pass, None).await.map(drop)
    }

    /// Commits a snapshot until it is stored, and acts on what the store says then. `request`: in
    /// whose name, if it is a request of a game server that runs elsewhere. False: that request was
    /// done before, and nothing was stored now.
    pub(super) async fn save_snapshot(
        self: &Arc<Self>,
        snapshot: Snapshot,
        mut pass: Pass,
        mut request: Option<Request>,
    ) -> Result<bool> {
        let began = self.link.env.now();
        // The session stays; the program can still mend its data.
        let mut prepared =
            self.prepare(snapshot).inspect_err(|error| self.not_saved(error, began))?;
        pass.resize(prepared.bytes());
        loop {
            // What seldom happens is boxed: each save moves and keeps a future as large as all that
            // it may come to.
            if self.known.lock().overwritten {
                let is_wanted = || !self.is_over();
                let again = Box::pin(self.prepare_over_document(&prepared, is_wanted)).await?;
                prepared = again.unwrap_or(prepared);
            }
            let noted = self.unseen.noted();
            match self.commit_save(&prepared, request).await {
                Ok(mut reply) => {
                    let state = self.own(&mut reply.states);
                    if was_done_before(request, &reply) {
                        drop(pass);
                        if defect!(DoneBeforeMarkedStored) {
                            self.stored(&prepared);
                        }
                        if let Some(state) = state {
                            Box::pin(self.note_done_before(state)).await;
                        }
                        return Ok(false);
                    }
                    if prepared.write.is_none()
                        && let Some(state) = state.as_ref().filter(|state| {
                            self.held(state) != Held::Lost
                                && self.known.lock().is_overwritten_in(state)
                        })
                    {
                        // There was nothing to write until now. The request is done with this, so
                        // what follows is a commit by itself.
                        self.absorb(state.clone());
                        request = None;
                        continue;
                    }
                    self.saved(&prepared, began).await;
                    drop(pass);
                    if let Some(state) = state {
                        self.respond(state, Some(&prepared.snapshot)).await;
                        // A look may have failed.
                        self.unseen.seen(noted);
                    }
                    return Ok(true);
                }
                Err(StoreError::Conflict(conflict)) => Box::pin(self.yield_to(*conflict)).await?,
                Err(error) => {
                    if matches!(error, StoreError::Replaced { .. }) {
                        let why = "the store's contents were replaced by a backup";
                        Box::pin(self.lose(why)).await;
                    }
                    return Err(Error::from(error).about(&self.key));
                }
            }
        }
    }

    async fn commit_save(
        &self,
        prepared: &Prepared,
        request: Option<Request>,
    ) -> Result<CommitReply, StoreError> {
        let commit = self.commit_as(request, self.changes(prepared, Cause::Save));
        match self.link.settle(&commit, Unless(|| self.is_over())).await {
            // The last save must not be built on a guess: it waits until this one is known.
            Err(StoreError::Indeterminate { .. }) => {
                Box::pin(self.link.settle(&commit, ForEver)).await
            }
            settled => settled,
        }
    }

    async fn saved(&self, prepared: &Prepared, began: Instant) {
        let kind = if prepared.write.is_some() { "written" } else { "unchanged" };
        metrics::counter!("profilestore_saves_total", "kind" => kind).increment(1);
        let took = self.link.env.now().saturating_duration_since(began);
        metrics::histogram!("profilestore_save_seconds").record(took.as_secs_f64());
        if defect!(MessageRemovedLater) && !prepared.snapshot.processed.is_empty() {
            let remove = |index: &u64| Change::RemoveMessage {
                key: self.key.clone(),
                index: *index,
                receipt: true,
            };
            let second = self.commit(prepared.snapshot.processed.keys().map(remove).collect());
            let _ = Box::pin(self.link.settle(&second, Once)).await;
        }
        self.stored(prepared);
    }

    fn not_saved(&self, error: &Error, now: Instant) {
        let message = format!("a profile could not be saved: {error}");
        self.link.health.error(&message, Some(&self.key), now, &self.link.settings());
    }

    /// The snapshot is stored. The messages leave the known inbox before the marks that keep them
    /// from being offered again.
    pub(super) fn stored(&self, prepared: &Prepared) {
        *self.unsaved_again.lock() = Backoff::default();
        let mut snapshot = prepared.snapshot.clone();
        if self.remote.is_some() {
            // What is stored need not be here too.
            snapshot.data = Arc::new(Document::Away);
            self.live.replace_with_stored(&snapshot);
        }
        if let Some(encoded) = &prepared.write {
            self.stored_bytes.store(encoded.bytes.len(), Relaxed);
        }
        let written = prepared.write.as_ref().map(|encoded| encoded.digest);
        let gifted: Vec<ProfileKey> = {
            let mut known = self.known.lock();
            let gifted = known.gifts_to_send(&snapshot);
            let gifted = gifted.map(|gift| gift.to.clone()).collect();
            known.stored(&snapshot, written);
            gifted
        };
        self.live.forget_processed(&snapshot.processed);
        if !gifted.is_empty() {
            metrics::counter!("profilestore_messages_sent_total").increment(gifted.len() as u64);
            // The store leaves no notice for the sender itself.
            gifted.iter().for_each(|key| self.tell(|table| table.sent(key)));
        }
    }

    /// A precondition failed: takes over what is there, or gives the session up. Ok means: build
    /// the commit anew.
    pub(super) async fn yield_to(self: &Arc<Self>, conflict: Conflict) -> Result<()> {
        let kind = conflict.kind;
        let Some(state) = conflict.state else {
            return Err(Error::from(StoreError::Conflict(Box::new(Conflict { kind, ..conflict })))
                .about(&self.key));
        };
        if kind == ConflictKind::MessageIdExpired {
            // A gift's, by a clock of the store that has been put forward or back: this look tells.
            self.link.read_all(std::slice::from_ref(&self.key), Returning::HEAD).await?;
            return Ok(());
        }
        if state.key != self.key {
            // No other writer may settle an edit that waits for this session. One that did must not
            // keep the profile from being saved.
            tracing::error!(key = %self.key, entry = %state.key, "the outcome of an edit cannot be booked: another one is there");
            self.known.lock().unbookable.insert(state.key);
            return Ok(());
        }
        if self.held(&state) == Held::Lost {
            self.lost(&state).await;
            return Err(Error::new(
                ErrorKind::SessionEnded,
                "the session is over: the profile was taken, removed or overwritten",
            )
            .about(&self.key));
        }
        match kind {
            ConflictKind::Version
            | ConflictKind::Lease
            | ConflictKind::MessageGone
            | ConflictKind::MessageRevision
            | ConflictKind::InboxRevision => {
                self.absorb(state);
                Ok(())
            }
            _ => Err(Error::new(
                ErrorKind::Unknown,
                format!("the store refused a save for an unexpected reason: {kind:?}"),
            )
            .about(&self.key)),
        }
    }

    /// What a commit's reply says about this session's profile.
    pub(super) fn own(&self, states: &mut Vec<KeyState>) -> Option<KeyState> {
        states.drain(..).find(|state| state.key == self.key)
    }

    fn returning(&self) -> Returning {
        Returning { value: false, inbox_unless: Some(self.known.lock().inbox_revision) }
    }

    /// A commit of this session, for the store's incarnation in which it began.
    pub(super) fn commit(&self, changes: Vec<Change>) -> Commit {
        Commit { incarnation: self.incarnation, ..self.link.new_commit(changes, self.returning()) }
    }

    /// The same under the identity of a request, if there is one.
    pub(super) fn commit_as(&self, request: Option<Request>, changes: Vec<Change>) -> Commit {
        let commit = self.commit(changes);
        match request {
            Some(request) => request.stamp(commit),
            None => commit,
        }
    }
}

/// True when a reply says of a request that it was done before, perhaps by another host. Then it
/// tells what the store holds now, and nothing of what this host knows is marked as stored.
pub(super) fn was_done_before(request: Option<Request>, reply: &CommitReply) -> bool {
    request.is_some() && reply.already_applied
}
