//! Sessions whose game server runs in another process: what it hands over, and what it asks for.
//!
//! The document comes whole with every save, and nothing of it stays here. A save, an end and a
//! transaction are done under an identity that the game server chose, so that each takes effect
//! once, however often and through however many hosts it is asked for. When the store answers that
//! it was done before, only what the store says counts: this host may not know what was stored
//! then.
//!
//! Such a session does not let go by itself. Its game server is told who asks for the profile, and
//! has time to end the session. Only when it does not is the profile released as it is stored.

use std::sync::{Arc, Weak, atomic::Ordering::Relaxed};

use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{
    Session,
    document::Document,
    ending::Ending,
    handed::{EditDone, Handed},
    info::{SessionEnd, SessionInfo},
    known::Saved,
    remote::{By, Remote},
    save::Prepared,
    snapshot::{Mark, Processed, Snapshot},
};
use crate::{
    audit::AuditEntry,
    data_store::{Digest, KeyState, Request as Asked, Returning, StoredMessage},
    edit::request::EditRequest,
    error::{Error, ErrorKind, Result},
    link::{deadline::Unless, hosting::Request, room::Rank},
    ownership::Held,
    record::{Record, Stored},
};

/// An end that the game server has asked for, from the call on until it is decided. A start of the
/// profile comes behind it.
struct EndAsked(Arc<Session>);

impl EndAsked {
    fn new(session: &Arc<Session>) -> Self {
        if let Some(remote) = &session.remote {
            remote.begin_end();
        }
        Self(session.clone())
    }
}

impl Drop for EndAsked {
    fn drop(&mut self) {
        if let Some(remote) = &self.0.remote {
            remote.leave_end();
        }
    }
}

impl Session {
    // --- what its game server asks for ----------------------------------------------------------

    /// Stores what is handed over. Under way at once; answers with the version that it made. None:
    /// it was done before, and which version it made then is not known any more.
    pub(crate) fn save_handed(
        self: &Arc<Self>,
        request: Request,
        handed: Handed,
    ) -> impl Future<Output = Result<Option<u64>>> + Send + 'static + use<> {
        let session = self.clone();
        let queued =
            self.link.queues.run(&self.key, self.link.settings().max_key_queue, async move {
                session.save_handed_now(request, handed).await
            });
        async move { queued?.wait().await? }
    }

    async fn save_handed_now(
        self: &Arc<Self>,
        request: Request,
        handed: Handed,
    ) -> Result<Option<u64>> {
        self.check_open()?;
        let pass = self.room_to_save().await;
        let snapshot = self.take_in(handed).await?;
        self.check_open()?;
        let stored_now = self.save_snapshot(snapshot, pass, Some(request)).await?;
        Ok(stored_now.then(|| self.known.lock().version))
    }

    /// Stores what is handed over, if anything is, and releases the profile in the same commit.
    /// Under way at once. When it cannot be stored the session goes on.
    pub(crate) fn end_handed(
        self: &Arc<Self>,
        request: Request,
        last: Option<Handed>,
    ) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let turn = EndAsked::new(self);
        let queued = self
            .link
            .queues
            .run(&self.key, usize::MAX, async move { turn.0.end_handed_now(request, last).await });
        self.hurry.notify_one();
        async move { queued?.wait().await? }
    }

    async fn end_handed_now(
        self: &Arc<Self>,
        request: Request,
        last: Option<Handed>,
    ) -> Result<()> {
        if self.is_over() {
            return self.end_after_the_end(last);
        }
        let mut pass = self.link.room.enter(Rank::First, self.stored_bytes.load(Relaxed)).await;
        let prepared = match last {
            Some(handed) => {
                let snapshot = self.take_in(handed).await?;
                self.prepare(snapshot)?
            }
            None => Prepared { snapshot: self.live.snapshot(), write: None },
        };
        pass.resize(prepared.bytes());
        let is_asked_for = self.remote.as_deref().is_some_and(Remote::is_releasing);
        if self.begin_and_close(&SessionEnd::Manual)?.is_none() {
            return Err(self.over());
        }
        let mut ending = Ending::queued(self);
        ending.begin();
        let ended = self.commit_release(prepared, Some(request)).await.map(drop);
        if is_asked_for && ended.is_ok() {
            metrics::counter!("profilestore_hand_overs_total").increment(1);
        }
        self.note_outcome(&ended);
        ending.complete();
        self.let_go();
        ended
    }

    /// An end that comes when the session is over. Its game server may not have known that: all is
    /// well if what it brings is what is stored.
    fn end_after_the_end(&self, last: Option<Handed>) -> Result<()> {
        let Some(handed) = last else { return Ok(()) };
        let is_new = |index: &u64| self.known.lock().has_message(*index);
        let snapshot =
            self.live.with(handed.data(), |meta| handed.beside.apply(meta), Processed::new());
        let same = self.prepare(snapshot).is_ok_and(|prepared| prepared.write.is_none());
        if same && handed.edits_done.is_empty() && !handed.processed.iter().any(is_new) {
            return Ok(());
        }
        Err(self.over())
    }

    fn check_open(&self) -> Result<()> {
        if self.is_over() { Err(self.over()) } else { Ok(()) }
    }

    fn over(&self) -> Error {
        let message = "the session is over; what was not stored before is lost";
        Error::new(ErrorKind::SessionEnded, message).about(&self.key)
    }

    // --- what it hands over ---------------------------------------------------------------------

    /// Makes a snapshot of what is handed over. In the key's queue.
    async fn take_in(self: &Arc<Self>, handed: Handed) -> Result<Snapshot> {
        let before = self.read_before(handed.has_edits()).await?;
        let mut snapshot = self.snapshot_of(&handed);
        for (index, entry) in self.settled_edits(&handed, before.as_ref()) {
            let mark = Mark { entry: Some(Arc::new(entry)), gifts: Vec::new() };
            snapshot.processed.insert(index, mark);
        }
        Ok(snapshot)
    }

    /// The same for what brings no edits, when what is stored is known ([`Session::read_before`]).
    pub(crate) fn snapshot_of(&self, handed: &Handed) -> Snapshot {
        let processed = handed.processed.iter().map(|index| (*index, Mark::default())).collect();
        self.live.with(handed.data(), |meta| handed.beside.clone().apply(meta), processed)
    }

    /// Reads what is stored, unless what a save is built on is known. `anyway`: it is wanted for
    /// something else. In the key's queue.
    pub(super) async fn read_before(self: &Arc<Self>, anyway: bool) -> Result<Option<Record>> {
        let known = self.remote.is_none() || self.known.lock().saved.digest.is_some();
        if known && !anyway {
            return Ok(None);
        }
        let returning = Returning { value: true, inbox_unless: None };
        let state = loop {
            match self.link.read_settled(&self.key, returning).await {
                Ok((_, state)) => break state,
                Err(error) if error.is_transient() && !self.link.is_closing() => {}
                Err(error) => return Err(Error::from(error).about(&self.key)),
            }
        };
        if self.held(&state) == Held::Lost {
            self.lost(&state).await;
            return Err(self.over());
        }
        let bytes = state.value.clone().unwrap_or_default();
        let Ok(Stored::Profile(record)) = Stored::decode(&bytes) else {
            let message = "what is stored is not a profile any more; it is left alone";
            return Err(Error::new(ErrorKind::Foreign, message).about(&self.key));
        };
        if !known {
            if self.known.lock().is_overwritten_in(&state) {
                // Another host may have stored a later save of this session, which must stay.
                Box::pin(self.link.check_host(Unless(|| self.is_over()))).await?;
            }
            self.note_read(state, &record, Digest::of(&bytes));
        }
        Ok(Some(record))
    }

    /// What is stored was read: saves build on it from now on.
    fn note_read(self: &Arc<Self>, state: KeyState, record: &Record, digest: Digest) {
        let mut meta = Record { data: RawValue::NULL.to_owned(), ..record.clone() };
        meta.origin = None;
        let data = Arc::new(Document::Away);
        let snapshot = self.live.with(data.clone(), |known| *known = meta, Processed::new());
        self.live.replace_with_stored(&snapshot);
        {
            let mut known = self.known.lock();
            known.saved = Saved { data, meta: snapshot.meta, digest: Some(digest) };
            known.saved_generation = snapshot.generation;
            known.version = state.version;
            known.overwritten = false;
        }
        self.absorb(state);
    }

    /// The messages that carry edits which are settled with a save, and what is booked of each.
    fn settled_edits(&self, handed: &Handed, before: Option<&Record>) -> Vec<(u64, AuditEntry)> {
        let waiting: Vec<StoredMessage> =
            self.known.lock().inbox.iter().filter(|m| m.id.is_edit()).cloned().collect();
        let settle = |message: &StoredMessage| {
            let request = match EditRequest::read(&self.key, message) {
                Ok(request) => request,
                Err(entry) => return Some(*entry),
            };
            let named = |done: &&EditDone| done.operation == request.operation;
            let done = handed.edits_done.iter().find(named)?;
            let entry = match (&done.refused, before, handed.data.json()) {
                (Some(why), ..) => request.refused(&self.key, why.clone()),
                (None, Some(before), Some(after)) => {
                    request.done_by_holder(&self.key, &before.data, after)
                }
                (None, ..) => request.entry(&self.key),
            };
            Some(entry.detail("held_by", self.link.job_id.as_str()))
        };
        let settled = waiting.iter().filter_map(|m| settle(m).map(|entry| (m.index, entry)));
        let settled: Vec<_> = settled.collect();
        if !settled.is_empty() {
            metrics::counter!("profilestore_edits_applied_total").increment(settled.len() as u64);
        }
        settled
    }

    // --- what the store says --------------------------------------------------------------------

    /// The store has done a request before. In the key's queue.
    pub(super) async fn note_done_before(self: &Arc<Self>, state: KeyState) {
        let is_anothers = self.known.lock().is_overwritten_in(&state);
        // Saves would build on what another host stores.
        if is_anothers && self.link.check_host(Unless(|| self.is_over())).await.is_err() {
            return;
        }
        self.known.lock().note_done_before(&state);
        self.respond(state, None).await;
    }

    /// Another server, or an operator, asks for the profile. In the key's queue.
    pub(super) async fn ask_for_release(self: &Arc<Self>, asked: Asked) {
        let is_new = |remote: &&Remote| !remote.is_releasing_for(asked.id);
        let Some(remote) = self.remote.as_deref().filter(is_new) else { return };
        let asked_at = self.link.env.now();
        let by = match self.order_of(asked.id.0).await {
            Some(entry) => By::Operator(entry),
            None => By::Server(SessionInfo {
                place_id: asked.place_id,
                job_id: asked.job_id,
                written: asked.document,
            }),
        };
        if remote.begin_release(by, asked.id, asked_at) {
            self.tell(|table| table.news(self));
            self.link.runtime.spawn(wait_for_its_end(Arc::downgrade(self)));
        }
    }

    /// When the time of the game server's answer is over, if it is to let go.
    fn release_deadline(&self) -> Option<Instant> {
        let hosting = self.link.hosting.as_ref().filter(|h| h.stopped().is_none())?;
        self.remote.as_deref()?.deadline(hosting.told())
    }

    /// The time of the game server's answer is over.
    fn queue_release(self: &Arc<Self>) {
        let session = self.clone();
        let turn = async move { session.release_as_stored().await };
        let queued = self.link.queues.run(&self.key, usize::MAX, turn);
        debug_assert!(queued.is_ok(), "an unbounded queue takes everything");
    }

    /// Releases the profile as it is stored, if it is still asked for. The game server is told
    /// before the store is: a pong that overtook the release would make it believe longer. In the
    /// key's queue.
    async fn release_as_stored(self: &Arc<Self>) {
        self.look_now().await;
        let Some(remote) = self.remote.as_deref().filter(|_| !self.is_over()) else { return };
        let Some(end) = remote.end_of_release() else { return };
        if self.known.lock().lease.request().is_none() {
            return remote.forget_release();
        }
        if self.release_deadline().is_some_and(|deadline| self.link.env.now() < deadline) {
            // It has come back meanwhile, and was told anew.
            self.link.runtime.spawn(wait_for_its_end(Arc::downgrade(self)));
            return;
        }
        match self.begin_and_close(&end) {
            Ok(Some(last)) => match self.release_and_be_over(last).await {
                Ok(()) => metrics::counter!("profilestore_hand_overs_total").increment(1),
                Err(error) => {
                    tracing::warn!(key = %self.key, %error, "a profile could not be handed over")
                }
            },
            Ok(None) => {}
            Err(error) => {
                tracing::error!(key = %self.key, %error, "a profile could not be handed over")
            }
        }
    }

    /// The session ends, and its game server is to be told if it did not end it itself.
    pub(super) fn note_closed(self: &Arc<Self>, end: &SessionEnd) {
        if let Some(remote) = self.remote.as_deref().filter(|_| *end != SessionEnd::Manual) {
            remote.note_closed(end);
            self.tell(|table| table.news(self));
        }
    }

    /// Takes the document out of a session that has just begun; it is not kept here.
    pub(crate) fn take_document(&self) -> Option<(Box<RawValue>, Arc<Record>)> {
        let snapshot = self.live.snapshot();
        let json = Document::of(&*snapshot.data)?.json()?.to_owned();
        let data = Arc::new(Document::Away);
        self.live.replace_with_stored(&Snapshot { data: data.clone(), ..snapshot.clone() });
        self.known.lock().saved.data = data;
        Some((json, snapshot.meta))
    }
}

/// Waits until the game server has ended a session that is to be let go, or its time is over.
async fn wait_for_its_end(session: Weak<Session>) {
    loop {
        let Some(session) = session.upgrade().filter(|session| !session.is_over()) else { return };
        let Some(deadline) = session.release_deadline() else { return };
        let link = session.link.clone();
        if link.env.now() >= deadline {
            return session.queue_release();
        }
        drop(session);
        link.env.sleep_until(deadline).await;
    }
}
