//! What runs in the key's queue for a live session: saving, looking, handing over, ending, adopting.
//!
//! Each builds a commit on what it knows, and lets the store judge. A commit whose outcome is unknown is repeated under its own
//! identity until it is known, so the next one always builds on facts.

use std::sync::{
    Arc,
    atomic::Ordering::{self, Relaxed},
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    Ending, Known, Saved, Session,
    info::{SessionEnd, SessionInfo},
    live::{Processed, Snapshot},
};
use crate::{
    audit::AuditOutcome,
    data::encode_for_save,
    data_store::{
        Cause, Change, Commit, Conflict, ConflictKind, Digest, KeyState, NewValue, Returning, StoreError, StoredMessage,
    },
    error::{Error, ErrorKind, Result},
    link::{
        deadline::{ForEver, Once, Unless},
        room::{Pass, Rank},
    },
    ownership::{self, Held, Seen},
    record::{Record, Stored},
    session::collect::Collect,
    storable::MAX_DATA_BYTES,
};

/// Data of this size is worth a warning: 80 % of the limit.
const NEARLY_FULL_BYTES: usize = MAX_DATA_BYTES / 5 * 4;

/// A snapshot made ready for the store.
pub(super) struct Prepared {
    pub(super) snapshot: Snapshot,
    /// What to write; None when the store holds it already.
    write: Option<Encoded>,
}

impl Prepared {
    /// How large the serialised copy is.
    pub(super) fn bytes(&self) -> usize {
        self.write.as_ref().map_or(0, |encoded| encoded.bytes.len())
    }
}

struct Encoded {
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
        if snapshot.generation == saved_generation && !overwritten {
            return Ok(Prepared { snapshot, write: None });
        }
        let verify = self.link.settings().verify_saves;
        let (bytes, size) =
            encode_for_save(&*snapshot.data, &snapshot.meta, &*self.codec, verify).map_err(|error| error.about(&self.key))?;
        self.note_size(size);
        let digest = Digest::of(&bytes);
        let write = (overwritten || digest != saved).then(|| Encoded { bytes, digest, user_ids: snapshot.meta.user_ids.clone() });
        Ok(Prepared { snapshot, write })
    }

    /// Prepares anew if a document was written over the profile meanwhile: what the session has wins, and members of the document that
    /// nobody here knows stay. None: there was none.
    pub(super) async fn prepare_over_document(&self, prepared: &Prepared) -> Result<Option<Prepared>> {
        let epoch = {
            let known = self.known.lock();
            if !known.overwritten {
                return Ok(None);
            }
            known.epoch
        };
        let mut snapshot = prepared.snapshot.clone();
        let (_, state) = self.link.read_settled(&self.key, Returning { value: true, inbox_unless: None }).await?;
        // Otherwise the profile is another one's by now, which the commit finds out.
        if state.epoch == epoch
            && let Some(Ok(Stored::Profile(said))) = state.value.as_deref().map(Stored::decode)
        {
            self.live.keep_unknown(&said);
            snapshot.meta = Arc::new(Record { extra: said.extra, extra_meta: said.extra_meta, ..Record::clone(&snapshot.meta) });
        }
        self.prepare(snapshot).map(Some)
    }

    /// Whether a snapshot can be saved, without saving it.
    pub(super) fn check_saveable(&self, snapshot: &Snapshot) -> Result<()> {
        if snapshot.generation == self.known.lock().saved_generation {
            return Ok(());
        }
        let verify = self.link.settings().verify_saves;
        encode_for_save(&*snapshot.data, &snapshot.meta, &*self.codec, verify).map(drop).map_err(|error| error.about(&self.key))
    }

    /// Tells the listeners once when the data has become almost too large.
    fn note_size(&self, size: usize) {
        let is_nearly_full = size > NEARLY_FULL_BYTES;
        if self.nearly_full.swap(is_nearly_full, Ordering::Relaxed) != is_nearly_full && is_nearly_full {
            self.link.health.nearly_full(&self.key, size);
        }
    }

    /// The changes that store a snapshot: the data if it differs, and the messages whose effect it holds.
    pub(super) fn changes(&self, prepared: &Prepared, cause: Cause) -> Vec<Change> {
        let settings = self.link.settings();
        let known = self.known.lock();
        // Those that are gone from the inbox were removed by somebody else.
        let there = |index: &u64| known.has_message(*index) && !defect!(MessageRemovedLater);
        let processed: Vec<_> = prepared.snapshot.processed.iter().filter(|(index, _)| there(index)).collect();
        let booked = processed.iter().filter_map(|(_, entry)| entry.as_deref());
        let mut changes = Vec::with_capacity(3);
        if let Some(encoded) = &prepared.write {
            // What an operator changed is his, and what was there before stays.
            let operator = booked.clone().rfind(|entry| entry.outcome == AuditOutcome::Done);
            let (cause, author) = match operator {
                Some(entry) if cause == Cause::Save => (Cause::Edit, entry.by.author.clone()),
                _ => (cause, self.link.job_id.clone()),
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
        changes.extend(booked.filter(|entry| !known.unbookable.contains(&entry.key())).filter_map(|entry| {
            let version = prepared.write.as_ref().map(|_| known.version + 1);
            self.outcome(entry, version)
        }));
        changes.extend(processed.iter().map(|(index, _)| Change::RemoveMessage {
            key: self.key.clone(),
            index: **index,
            receipt: true,
        }));
        let to_lock = |message: &&StoredMessage| prepared.snapshot.locked.contains(&message.index) && !message.locked;
        changes.extend(known.inbox.iter().filter(to_lock).map(|message| Change::LockMessage {
            key: self.key.clone(),
            index: message.index,
            revision: message.revision,
        }));
        changes
    }

    /// What a commit's reply says about this session's profile.
    fn own(&self, states: &mut Vec<KeyState>) -> Option<KeyState> {
        states.drain(..).find(|state| state.key == self.key)
    }

    fn returning(&self) -> Returning {
        Returning { value: false, inbox_unless: Some(self.known.lock().inbox_revision) }
    }

    /// Takes over what the store says. Messages that are new are offered by the caller.
    fn absorb(&self, state: KeyState) {
        let changed = {
            let mut known = self.known.lock();
            known.overwritten |= state.version != known.version;
            known.version = state.version;
            known.created_ms = state.created_ms;
            known.head = state.head;
            known.lease = state.lease;
            known.lease_revision = state.lease_revision;
            match state.inbox {
                Some(inbox) => {
                    known.inbox = inbox;
                    std::mem::replace(&mut known.inbox_revision, state.inbox_revision) != state.inbox_revision
                }
                None => false,
            }
        };
        if changed && let Some(keeper) = self.keeper() {
            keeper.inbox_changed();
        }
    }

    /// The snapshot is stored. The messages leave the known inbox before the marks that keep them from being offered again.
    pub(super) fn stored(&self, prepared: &Prepared) {
        {
            let mut known = self.known.lock();
            known.inbox.retain(|message| !prepared.snapshot.processed.contains_key(&message.index));
            if let Some(encoded) = &prepared.write {
                self.stored_bytes.store(encoded.bytes.len(), Relaxed);
                known.version += 1;
                known.overwritten = false;
            }
            let Snapshot { data, meta, generation, .. } = &prepared.snapshot;
            // Also when nothing was written: what is equal need not be held twice.
            if *generation != known.saved_generation {
                let digest = prepared.write.as_ref().map_or(known.saved.digest, |encoded| encoded.digest);
                known.saved = Saved { data: data.clone(), meta: meta.clone(), digest };
                known.saved_generation = *generation;
            }
        }
        self.live.forget_processed(&prepared.snapshot.processed);
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
                Some(why) => Err(Error::new(ErrorKind::Refused, format!("the save was vetoed: {why}")).about(&self.key)),
                None => Ok(()),
            }
        })
        .await
    }

    /// One save: hooks, then a commit or, if nothing changed, one fenced read; then listeners, and whatever the reply brings.
    pub(super) async fn save_now(self: &Arc<Self>) -> Result<()> {
        self.save_if(|| Ok(())).await
    }

    async fn save_if(self: &Arc<Self>, agree: impl FnOnce() -> Result<()>) -> Result<()> {
        let over = || Error::new(ErrorKind::SessionEnded, "the session is over").about(&self.key);
        if self.is_over() {
            return Err(over());
        }
        self.collect(Collect::Save).inspect_err(|error| self.not_saved(error, self.link.env.now()))?;
        self.run_save_hooks();
        let pass = self.room_to_save().await;
        if self.is_over() {
            return Err(over());
        }
        agree()?;
        self.save_snapshot(self.live.snapshot(), pass).await
    }

    /// Waits for room for a copy of the data, at most until something that goes first waits behind this save.
    async fn room_to_save(&self) -> Pass {
        let (room, bytes) = (&self.link.room, self.stored_bytes.load(Relaxed));
        tokio::select! {
            biased;
            pass = room.enter(Rank::Save, bytes) => pass,
            () = self.hurry.notified() => room.enter(Rank::First, bytes).await,
        }
    }

    /// The same without hooks, and only if there is something to save.
    pub(super) async fn save_change_now(self: &Arc<Self>) -> Result<()> {
        let nothing = || self.is_over() || self.live.snapshot().generation == self.known.lock().saved_generation;
        if nothing() {
            return Ok(());
        }
        let pass = self.room_to_save().await;
        if nothing() {
            return Ok(());
        }
        self.save_snapshot(self.live.snapshot(), pass).await
    }

    async fn save_snapshot(self: &Arc<Self>, snapshot: Snapshot, mut pass: Pass) -> Result<()> {
        let began = self.link.env.now();
        // The session stays; the program can still mend its data.
        let mut prepared = self.prepare(snapshot).inspect_err(|error| self.not_saved(error, began))?;
        pass.resize(prepared.bytes());
        loop {
            if let Some(again) = self.prepare_over_document(&prepared).await? {
                prepared = again;
            }
            let commit = self.commit(self.changes(&prepared, Cause::Save));
            let mut settled = self.link.settle(&commit, Unless(|| self.is_over())).await;
            if matches!(settled, Err(StoreError::Indeterminate { .. })) {
                // The last save must not be built on a guess: it waits until this one is known.
                settled = self.link.settle(&commit, ForEver).await;
            }
            match settled {
                Ok(mut reply) => {
                    let state = self.own(&mut reply.states);
                    if prepared.write.is_none()
                        && let Some(state) = state.as_ref().filter(|state| self.is_overwritten_in(state))
                    {
                        // There was nothing to write until now.
                        self.absorb(state.clone());
                        continue;
                    }
                    let kind = if prepared.write.is_some() { "written" } else { "unchanged" };
                    metrics::counter!("profilestore_saves_total", "kind" => kind).increment(1);
                    let took = self.link.env.now().saturating_duration_since(began);
                    metrics::histogram!("profilestore_save_seconds").record(took.as_secs_f64());
                    if defect!(MessageRemovedLater) && !prepared.snapshot.processed.is_empty() {
                        let remove = |index: &u64| Change::RemoveMessage { key: self.key.clone(), index: *index, receipt: true };
                        let second = self.commit(prepared.snapshot.processed.keys().map(remove).collect());
                        let _ = self.link.settle(&second, Once).await;
                    }
                    self.stored(&prepared);
                    drop(pass);
                    if let Some(state) = state {
                        self.respond(state, Some(&prepared.snapshot)).await;
                    }
                    return Ok(());
                }
                Err(StoreError::Conflict(conflict)) => {
                    self.yield_to(*conflict).await?;
                }
                Err(error) => {
                    if matches!(error, StoreError::Replaced { .. }) {
                        self.lose("the store's contents were replaced by a backup").await;
                    }
                    return Err(Error::from(error).about(&self.key));
                }
            }
        }
    }

    fn not_saved(&self, error: &Error, now: Instant) {
        let message = format!("a profile could not be saved: {error}");
        self.link.health.error(&message, Some(&self.key), now, &self.link.settings());
    }

    /// True when the store holds a version that this session, whose it still is, did not write.
    fn is_overwritten_in(&self, state: &KeyState) -> bool {
        let known = self.known.lock();
        state.epoch == known.epoch && state.version != known.version
    }

    /// A precondition failed: takes over what is there, or gives the session up. Ok means: build the commit anew.
    pub(super) async fn yield_to(self: &Arc<Self>, conflict: Conflict) -> Result<()> {
        let kind = conflict.kind;
        let Some(state) = conflict.state else {
            return Err(Error::from(StoreError::Conflict(Box::new(Conflict { kind, ..conflict }))).about(&self.key));
        };
        if state.key != self.key {
            // Nobody settles an edit that waits for us. Whatever did must not keep the profile from being saved.
            tracing::error!(key = %self.key, entry = %state.key, "the outcome of an edit cannot be booked: another one is there");
            self.known.lock().unbookable.insert(state.key);
            return Ok(());
        }
        if ownership::held(&state, self.known.lock().epoch) == Held::Lost {
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
            _ => Err(Error::new(ErrorKind::Unknown, format!("the store refused a save for an unexpected reason: {kind:?}"))
                .about(&self.key)),
        }
    }

    /// Reads lease and inbox under the fence, without saving.
    pub(super) async fn look_now(self: &Arc<Self>) {
        if self.is_over() {
            return;
        }
        let noted = self.unseen.noted();
        let check = Change::Check { key: self.key.clone(), epoch: self.known.lock().epoch };
        let commit = self.commit(vec![check]);
        match self.link.settle(&commit, Unless(|| self.is_over())).await {
            Ok(mut reply) => {
                if let Some(state) = reply.states.pop() {
                    self.respond(state, None).await;
                }
                self.unseen.seen(noted);
            }
            Err(StoreError::Conflict(conflict)) => {
                // Only the epoch can be at fault.
                let _ = self.yield_to(*conflict).await;
            }
            Err(error) => tracing::debug!(key = %self.key, %error, "a live profile could not be looked at"),
        }
    }

    /// Acts on what the store says about a session that still holds its profile.
    pub(super) async fn respond(self: &Arc<Self>, state: KeyState, saved: Option<&Snapshot>) {
        let held = ownership::held(&state, self.known.lock().epoch);
        self.absorb(state);
        if held == Held::Lost {
            // Only possible after a commit that had been applied before, with a thief in between.
            self.lose("another server took the profile").await;
            return;
        }
        self.apply_edits();
        self.offer_messages();
        if let Some(saved) = saved {
            self.signals.on_after_save.each(|listener| listener(&*saved.data));
        }
        if let Held::Asked(request) = held {
            tracing::debug!(key = %self.key, to = %request.job_id, "another server asks for the profile");
            match self.close(SessionEnd::External) {
                Ok(Some(last)) => {
                    if let Err(error) = self.end_now(last).await {
                        tracing::warn!(key = %self.key, %error, "a profile could not be handed over");
                    } else {
                        metrics::counter!("profilestore_hand_overs_total").increment(1);
                    }
                }
                // The program is ending it already.
                Ok(None) => {}
                Err(error) => tracing::error!(key = %self.key, %error, "a profile could not be handed over"),
            }
        }
    }

    /// The last save and the release, in one commit; whoever asked gets an offer with it.
    pub(super) async fn end_now(self: &Arc<Self>, last: Snapshot) -> Result<()> {
        let mut ending = Ending::queued(self);
        ending.begin();
        let result = self.save_last(last).await;
        self.note_end(&result);
        ending.complete();
        self.let_go();
        result
    }

    async fn save_last(self: &Arc<Self>, last: Snapshot) -> Result<()> {
        let mut pass = self.link.room.enter(Rank::First, self.stored_bytes.load(Relaxed)).await;
        let prepared = match self.prepare(last.clone()) {
            Ok(prepared) => {
                pass.resize(prepared.bytes());
                prepared
            }
            Err(error) => {
                // The lock must not stay behind: the profile is released as it was saved last.
                self.link.health.error(
                    &format!("a profile's last changes cannot be stored and are lost: {error}"),
                    Some(&self.key),
                    self.link.env.now(),
                    &self.link.settings(),
                );
                let stored = { self.known.lock().saved_generation };
                let kept =
                    Prepared { snapshot: Snapshot { generation: stored, processed: Processed::new(), ..last }, write: None };
                self.release(kept).await?;
                return Err(error);
            }
        };
        let prepared = self.release(prepared).await?;
        drop(pass);
        self.signals.on_after_save.each(|listener| listener(&*prepared.snapshot.data));
        Ok(())
    }

    /// Answers with what was stored.
    async fn release(self: &Arc<Self>, mut prepared: Prepared) -> Result<Prepared> {
        loop {
            match self.prepare_over_document(&prepared).await {
                Ok(Some(again)) => prepared = again,
                Ok(None) => {}
                // The last save must get through.
                Err(error) => tracing::warn!(key = %self.key, %error, "what a document says beside the data is not kept"),
            }
            let mut changes = self.changes(&prepared, Cause::End);
            let after = if defect!(ReleaseBeforeSave) { std::mem::take(&mut changes) } else { Vec::new() };
            let asker = {
                let known = self.known.lock();
                let now_ms = self.link.store_ms();
                changes.push(ownership::released(self.seen(&known), now_ms));
                known.lease.request.as_ref().and_then(|request| request.server)
            };
            let commit = self.commit(changes);
            match self.link.settle_for(asker, &self.key, &commit, ForEver).await {
                Ok(mut reply) => {
                    if defect!(ReleaseBeforeSave) && !after.is_empty() {
                        let _ = self.link.settle(&self.commit(after), Once).await;
                    }
                    self.stored(&prepared);
                    if let Some(state) = self.own(&mut reply.states) {
                        // Somebody may have taken the profile since, when the commit had been applied before.
                        self.known.lock().head = state.head;
                    }
                    self.tell(|table| table.freed(self));
                    metrics::counter!("profilestore_sessions_ended_total").increment(1);
                    return Ok(prepared);
                }
                Err(StoreError::Conflict(conflict)) => {
                    if let Err(error) = self.yield_to(*conflict).await {
                        self.tell(|table| table.freed(self));
                        return Err(error);
                    }
                }
                Err(error) => {
                    self.tell(|table| table.freed(self));
                    return Err(Error::from(error).about(&self.key));
                }
            }
        }
    }

    /// The lease as far as it is known.
    fn seen<'a>(&'a self, known: &'a Known) -> Seen<'a> {
        Seen { key: &self.key, revision: known.lease_revision, lease: &known.lease }
    }

    /// A commit of this session, meant for the contents in which it began.
    fn commit(&self, changes: Vec<Change>) -> Commit {
        Commit { incarnation: self.incarnation, ..self.link.new_commit(changes, self.returning()) }
    }

    /// Writes this server's new incarnation into the lease, if nobody took the profile meanwhile.
    pub(super) async fn adopt_now(self: &Arc<Self>) {
        loop {
            let server = self.link.server();
            let changes = {
                let known = self.known.lock();
                if self.is_over() || known.held_by == server {
                    return;
                }
                vec![Change::Check { key: self.key.clone(), epoch: known.epoch }, ownership::adopted(self.seen(&known), server)]
            };
            let commit = self.commit(changes);
            match self.link.settle(&commit, Unless(|| self.is_over())).await {
                Ok(mut reply) => {
                    self.known.lock().held_by = server;
                    if let Some(state) = reply.states.pop() {
                        self.respond(state, None).await;
                    }
                    return;
                }
                Err(StoreError::Conflict(conflict)) => {
                    if self.yield_to(*conflict).await.is_err() {
                        return;
                    }
                }
                Err(StoreError::Replaced { .. }) => {
                    self.lose("the store's contents were replaced by a backup").await;
                    return;
                }
                Err(error) => {
                    tracing::warn!(key = %self.key, %error, "a profile could not be adopted");
                    return;
                }
            }
        }
    }

    /// The epoch is another one: somebody else's data counts now. Listeners get it as the last saved data.
    async fn lost(self: &Arc<Self>, state: &KeyState) {
        if let Some(holder) = &state.lease.holder {
            let _ = self.taken_by.set(SessionInfo::from(holder));
        }
        let taker = self.taken_by.get().map_or("nobody", |holder| holder.job_id.as_str());
        self.lose(&format!("the profile is held by {taker} now")).await;
    }

    /// Ends the session without a save.
    pub(crate) async fn lose(self: &Arc<Self>, why: &str) {
        // Whoever closed it before is waiting in the queue behind us, or is us.
        let closed = matches!(self.close(SessionEnd::Lost), Ok(Some(_)));
        self.tell(|table| table.freed(self));
        let error = Error::new(ErrorKind::SessionEnded, format!("the session was lost: {why}; what it had not saved is lost"));
        self.note_end(&Err(error.about(&self.key)));
        if closed {
            metrics::counter!("profilestore_lost_sessions_total").increment(1);
            tracing::warn!(key = %self.key, why, "a session was lost");
        }
        self.fire_foreign_save().await;
        if closed {
            self.let_go();
        }
    }

    /// Tells the listeners what is stored now that it is no longer ours.
    async fn fire_foreign_save(&self) {
        if self.signals.on_after_save.is_empty() {
            return;
        }
        let Ok((_, state)) = self.link.read_settled(&self.key, Returning { value: true, inbox_unless: None }).await else {
            return;
        };
        let Some(bytes) = state.value else { return };
        if let Ok(Stored::Profile(record)) = Stored::decode(&bytes)
            && let Ok(data) = self.codec.open(&record)
        {
            {
                let mut known = self.known.lock();
                known.saved = Saved { data: data.clone(), meta: Arc::new(record), digest: Digest::of(&bytes) };
                (known.head, known.created_ms) = (state.head, state.created_ms);
            }
            self.signals.on_after_save.each(|listener| listener(&*data));
        }
    }

    /// The waiting messages that no handler has processed.
    pub(crate) fn waiting_messages(&self) -> Vec<StoredMessage> {
        let inbox = self.known.lock().inbox.clone();
        inbox.into_iter().filter(|message| !message.id.is_edit() && !self.live.is_processed(message.index)).collect()
    }
}
