//! The owner of one live profile: its data, what the store holds of it, and the operations between the two.
//!
//! * [`live`]: the data and how it is edited.
//! * [`operations`]: saving, ending, looking; each runs in the key's queue.
//! * [`messages`]: offering messages to handlers.
//! * [`transaction`]: one commit over several of them.
//! * [`collect`]: data that is kept elsewhere.
//! * [`edits`]: applying what operators want changed.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, oneshot},
    time::Instant,
};

use crate::{
    data::{Codec, Data},
    data_store::{Digest, Incarnation, KeyState, LeaseState, ServerId, StoredMessage, VersionInfo},
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    link::{
        Link,
        queue::{Answer, runtime_gone},
    },
    record::Record,
    session::collect::{AnyKeeper, Collect},
    signal::Signal,
};

pub(crate) mod collect;
pub(crate) mod edits;
pub(crate) mod handlers;
pub(crate) mod info;
pub(crate) mod live;
mod messages;
pub(crate) mod operations;
pub(crate) mod transaction;
mod unseen;

use handlers::Handlers;
use info::{LastSave, SessionEnd, SessionInfo};
use live::{EndBegun, Live, Snapshot};
use unseen::Unseen;

pub(crate) type OnSave = dyn Fn(&mut dyn Data) + Send + Sync;
pub(crate) type VetoSave = dyn Fn(&dyn Data) -> Result<(), String> + Send + Sync;
pub(crate) type OnLastSave = dyn Fn(LastSave, &mut dyn Data) + Send + Sync;
pub(crate) type OnSessionEnd = dyn Fn(SessionEnd) + Send + Sync;
pub(crate) type OnAfterSave = dyn Fn(&dyn Data) + Send + Sync;

#[derive(Default)]
pub(crate) struct Signals {
    pub(crate) on_save: Signal<OnSave>,
    pub(crate) veto_save: Signal<VetoSave>,
    pub(crate) on_last_save: Signal<OnLastSave>,
    pub(crate) on_session_end: Signal<OnSessionEnd>,
    pub(crate) on_after_save: Signal<OnAfterSave>,
}

/// Whom a session tells about itself: the table of its game server's sessions, which knows it.
pub(crate) trait SessionEvents: Send + Sync {
    /// The session's data is closed, and what becomes of its last save is not known yet.
    fn closing(&self, session: &Session);

    /// What became of the last save is known, or the end was refused.
    fn settled(&self, session: &Session);

    /// The session has nothing more to do with its profile: the next one may have its place.
    fn freed(&self, session: &Session);

    /// Something was changed, and is to be saved by then.
    fn changed(&self, session: &Arc<Session>, save_by: Instant);
}

/// One session on one profile.
pub(crate) struct Session {
    pub(crate) link: Arc<Link>,
    /// Whom it tells about itself. Weak: that one knows its sessions, and they keep nothing alive.
    table: Weak<dyn SessionEvents>,
    pub(crate) key: ProfileKey,
    /// Its own identity.
    pub(crate) id: String,
    /// The store's contents that it began in.
    pub(crate) incarnation: Incarnation,
    /// Sessions started on the profile so far, this one included.
    pub(crate) load_count: u64,
    pub(crate) codec: Arc<dyn Codec>,
    pub(crate) live: Live,
    pub(crate) signals: Signals,
    pub(crate) handlers: Handlers,
    /// Who keeps the data, if it is not the library.
    keeper: Mutex<Option<Arc<dyn AnyKeeper>>>,
    /// What the store holds, as far as this session knows. Changed only by operations in the key's queue.
    pub(crate) known: Mutex<Known>,
    /// What became of the last save, once that is known: Ok when everything that was ever changed is durable.
    ended: OnceLock<Result<()>>,
    ended_wake: Notify,
    refusals: Mutex<Refusals>,
    pub(crate) unseen: Unseen,
    look_queued: AtomicBool,
    save_queued: AtomicBool,
    /// Something that goes first waits behind whatever this session does.
    pub(super) hurry: Notify,
    /// How large the profile was when it was stored last.
    pub(super) stored_bytes: AtomicUsize,
    /// It is in the line of those that are to be saved soon.
    pub(crate) change_noted: AtomicBool,
    /// The data was almost too large at the last save.
    nearly_full: AtomicBool,
    /// Its own period of autosaves, if not the server's.
    pub(crate) autosave_period: Option<Duration>,
    /// Who held the profile when the session was found to be lost.
    pub(crate) taken_by: OnceLock<SessionInfo>,
}

/// How often the session's end was refused, and why the last time.
#[derive(Default)]
struct Refusals {
    count: u64,
    last: Option<Error>,
}

/// What the last save finds when its turn comes.
enum Closed {
    Last(Snapshot),
    Behind,
    Refused(Error),
}

/// Whether a session whose last save cannot be stored goes on until that is mended.
fn goes_on(end: SessionEnd) -> bool {
    matches!(end, SessionEnd::Manual | SessionEnd::External)
}

/// What the store holds of a live profile.
pub(crate) struct Known {
    /// The incarnation of this server that the lease names.
    pub(crate) held_by: ServerId,
    pub(crate) epoch: u64,
    pub(crate) version: u64,
    pub(crate) created_ms: i64,
    pub(crate) head: Option<VersionInfo>,
    pub(crate) lease: LeaseState,
    pub(crate) lease_revision: u64,
    pub(crate) inbox: Vec<StoredMessage>,
    pub(crate) inbox_revision: u64,
    /// Somebody wrote a document over the profile that left it to this session: the next save writes what the session has.
    pub(crate) overwritten: bool,
    /// The edit up to which everything is stored.
    pub(crate) saved_generation: u64,
    pub(crate) saved: Saved,
    /// Entries of the audit log that were found to be settled by somebody else.
    pub(crate) unbookable: BTreeSet<ProfileKey>,
}

/// What is stored, as far as it is needed here. While nothing is edited it shares the live data.
#[derive(Clone)]
pub(crate) struct Saved {
    pub(crate) data: Arc<dyn Data>,
    /// Everything of the record but its data.
    pub(crate) meta: Arc<Record>,
    /// Of the stored bytes.
    pub(crate) digest: Digest,
}

impl Known {
    pub(crate) fn has_message(&self, index: u64) -> bool {
        self.inbox.binary_search_by_key(&index, |message| message.index).is_ok()
    }
}

/// What a start found and took.
pub(crate) struct Taken {
    pub(crate) key: ProfileKey,
    pub(crate) id: String,
    pub(crate) held_by: ServerId,
    pub(crate) incarnation: Incarnation,
    pub(crate) state: KeyState,
    pub(crate) record: Record,
    pub(crate) stored: Bytes,
    pub(crate) data: Arc<dyn Data>,
    pub(crate) codec: Arc<dyn Codec>,
    pub(crate) autosave_period: Option<Duration>,
}

/// Records an outcome of the end even if that is broken off.
struct Ending {
    session: Arc<Session>,
    begun: bool,
    complete: bool,
}

impl Ending {
    /// Of an end that waits for its turn.
    fn queued(session: &Arc<Session>) -> Self {
        Self { session: session.clone(), begun: false, complete: false }
    }

    fn begin(&mut self) {
        self.begun = true;
    }

    /// Its outcome is recorded, or it was refused and the session goes on.
    fn complete(&mut self) {
        self.complete = true;
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if self.complete {
            return;
        }
        let broken_off = || Error::new(ErrorKind::Unknown, "the last save was broken off; see the log");
        let error = if self.begun { broken_off() } else { runtime_gone() };
        self.session.note_end(&Err(error.about(&self.session.key)));
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("key", &self.key).field("id", &self.id).finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(link: Arc<Link>, table: Weak<dyn SessionEvents>, taken: Taken) -> Arc<Self> {
        let Taken { key, id, held_by, incarnation, state, mut record, stored, data, codec, autosave_period } = taken;
        codec.stamp(&mut record);
        let stored_bytes = AtomicUsize::new(stored.len());
        let live = Live::new(data, record);
        let saved = Saved { data: live.data(), meta: live.meta(), digest: Digest::of(&stored) };
        let known = Known {
            held_by,
            epoch: state.epoch,
            version: state.version,
            created_ms: state.created_ms,
            head: state.head,
            lease_revision: state.lease_revision,
            inbox: state.inbox.unwrap_or_default(),
            inbox_revision: state.inbox_revision,
            overwritten: false,
            saved_generation: 0,
            saved,
            unbookable: BTreeSet::new(),
            lease: state.lease,
        };
        Arc::new(Self {
            key,
            id,
            incarnation,
            load_count: known.lease.load_count,
            codec,
            live,
            signals: Signals::default(),
            handlers: Handlers::default(),
            keeper: Mutex::new(None),
            known: Mutex::new(known),
            ended: OnceLock::new(),
            ended_wake: Notify::new(),
            refusals: Mutex::default(),
            unseen: Unseen::default(),
            look_queued: AtomicBool::new(false),
            save_queued: AtomicBool::new(false),
            hurry: Notify::new(),
            stored_bytes,
            change_noted: AtomicBool::new(false),
            nearly_full: AtomicBool::new(false),
            autosave_period,
            taken_by: OnceLock::new(),
            link,
            table,
        })
    }

    /// Tells the table of sessions, unless that has gone with its game server.
    fn tell(&self, event: impl FnOnce(&dyn SessionEvents)) {
        if let Some(table) = self.table.upgrade() {
            event(&*table);
        }
    }

    /// Notes that something was changed, and has it saved in time if the settings say so.
    pub(crate) fn note_change(self: &Arc<Self>) {
        let Some(within) = self.link.settings().save_changes_within else { return };
        if !self.change_noted.swap(true, Ordering::AcqRel) {
            self.tell(|table| table.changed(self, self.link.env.after(within)));
        }
    }

    /// True once the data can no longer be edited, though the last save may still be under way.
    pub(crate) fn is_over(&self) -> bool {
        self.live.is_over()
    }

    /// Specification: `IsActive`. See `Profile::is_active`.
    pub(crate) fn is_active(&self) -> bool {
        !self.is_over() && self.is_confirmed()
    }

    /// True while this server confirms the lease on which the session stands.
    pub(crate) fn is_confirmed(&self) -> bool {
        let held_by = self.known.lock().held_by;
        self.link.confirms(held_by, self.unseen.since())
    }

    /// True once the session was lost, or its last save is known.
    pub(crate) fn is_known_to_be_over(&self) -> bool {
        self.ended.get().is_some()
    }

    // --- requests, queued in call order ---------------------------------------------------------------------------

    fn limit(&self) -> usize {
        self.link.settings().max_key_queue
    }

    /// Saves; the answer comes when it is durable. When the session ends before the save's turn comes, the last save is the answer:
    /// it holds all that was changed before.
    pub(crate) fn save(self: &Arc<Self>) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let session = self.clone();
        let queued = if self.is_over() {
            Err(Error::new(ErrorKind::SessionEnded, "the session is over").about(&self.key))
        } else {
            self.link.queues.run(&self.key, self.limit(), {
                let session = self.clone();
                async move { session.save_asked_for().await }
            })
        };
        async move {
            match queued?.wait().await? {
                Err(error) if session.is_over() => session.ended().await.map_err(|_| error),
                answer => answer,
            }
        }
    }

    /// Saves when processed messages or the program ask for it; nobody waits for the answer.
    pub(crate) fn queue_save(self: &Arc<Self>) {
        self.queue_scheduled_save(None);
    }

    /// Saves when the schedule asks for it, and gives its place among those under way back afterwards.
    pub(crate) fn queue_scheduled_save(self: &Arc<Self>, place: Option<OwnedSemaphorePermit>) {
        if self.save_queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let session = self.clone();
        // At most one of them waits, which finds room in any queue.
        let queued = self.link.queues.run(&self.key, usize::MAX, async move {
            let _place = place;
            session.save_queued.store(false, Ordering::Release);
            if let Err(error) = session.save_now().await {
                tracing::debug!(key = %session.key, %error, "a save found the session over");
            }
        });
        debug_assert!(queued.is_ok(), "an unbounded queue takes everything");
    }

    /// Saves what was changed, without hooks, and gives the room back afterwards; nobody waits for the answer.
    pub(crate) fn queue_change_save(self: &Arc<Self>, room: OwnedSemaphorePermit) {
        // Before the snapshot is taken: what changes after that is noted anew.
        self.change_noted.store(false, Ordering::Release);
        let session = self.clone();
        let queued = self.link.queues.run(&self.key, self.limit(), async move {
            let _room = room;
            if let Err(error) = session.save_change_now().await {
                tracing::debug!(key = %session.key, %error, "a change could not be saved soon");
            }
        });
        if queued.is_err() {
            // What fills the queue need not be saves.
            self.note_change();
        }
    }

    /// Looks at lease and inbox, because something about them may have changed.
    pub(crate) fn queue_look(self: &Arc<Self>) {
        if self.is_over() || self.look_queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let session = self.clone();
        // At most one of them waits, which finds room in any queue: the hint and the notice that it follows do not come again.
        let queued = self.link.queues.run(&self.key, usize::MAX, async move {
            session.look_queued.store(false, Ordering::Release);
            session.look_now().await;
        });
        debug_assert!(queued.is_ok(), "an unbounded queue takes everything");
    }

    /// Ends the session without a save.
    pub(crate) fn queue_lose(self: &Arc<Self>, why: &'static str) {
        let session = self.clone();
        let queued = self.link.queues.run(&self.key, usize::MAX, async move { session.lose(why).await });
        debug_assert!(queued.is_ok(), "an unbounded queue takes everything");
    }

    /// Writes this server's new incarnation into the lease.
    pub(crate) fn queue_adopt(self: &Arc<Self>) {
        let session = self.clone();
        let queued = self.link.queues.run(&self.key, usize::MAX, async move { session.adopt_now().await });
        debug_assert!(queued.is_ok(), "an unbounded queue takes everything");
    }

    /// Ends the session. The data takes no more changes when this returns; the answer comes when
    /// the last save is durable, whichever call ended it. Behind transactions that were called
    /// before, and behind the edit from inside which it is called, come the last hooks and the last
    /// save. When what the last save would store cannot be stored, the answer is that error and the
    /// session goes on, unless the server is shutting down.
    pub(crate) fn finish(self: &Arc<Self>, end: SessionEnd) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let refused_before = self.refusals.lock().count;
        let begun: Option<Result<Answer<Result<()>>>> = self.live.begin_end().map(|begun| {
            if begun == EndBegun::Now {
                self.run_last_hooks(end)?;
            }
            // The last save has its place in the queue before the data closes: whoever finds it closed and starts the next
            // session comes behind it.
            let (closed, last) = oneshot::channel();
            let session = self.clone();
            let mut ending = Ending::queued(self);
            let answer = self.link.queues.run(&self.key, usize::MAX, async move {
                ending.begin();
                let ended = match last.await {
                    Ok(Closed::Last(last)) => session.end_now(last).await,
                    Ok(Closed::Refused(error)) => Err(error),
                    Ok(Closed::Behind) => session.end_behind(end).await,
                    Err(_) => session.ended().await,
                };
                ending.complete();
                ended
            })?;
            let closing = match begun {
                EndBegun::Now => match self.close_data(end) {
                    Ok(Some(last)) => Some(Closed::Last(last)),
                    Ok(None) => None,
                    Err(error) => Some(Closed::Refused(error)),
                },
                EndBegun::Behind => {
                    self.tell(|table| table.closing(self));
                    self.live.refuse_edits();
                    Some(Closed::Behind)
                }
            };
            if let Some(closing) = closing {
                let _ = closed.send(closing);
            }
            self.hurry.notify_one();
            Ok(answer)
        });
        let session = self.clone();
        async move {
            match begun {
                Some(answer) => answer?.wait().await?,
                None => session.ended_or_refused(refused_before).await,
            }
        }
    }

    /// What an end has left for later. In the key's queue, hence behind the transactions that were called before it.
    async fn end_behind(self: &Arc<Self>, end: SessionEnd) -> Result<()> {
        if self.ended.get().is_some() {
            // The session was found lost meanwhile; there is nothing left to hook into.
            let _ = self.close_data(SessionEnd::Lost);
            self.tell(|table| table.settled(self));
            self.let_go();
            return self.ended().await;
        }
        let closed = self.run_last_hooks(end).and_then(|()| self.close_data(end));
        match closed {
            Ok(Some(last)) => self.end_now(last).await,
            Ok(None) => self.ended().await,
            Err(error) => {
                self.tell(|table| table.settled(self));
                Err(error)
            }
        }
    }

    /// Runs the last hooks, closes the data and tells the listeners. None when it was closed
    /// before. For operations in the key's queue, where no transaction is open. Fails as
    /// [`Session::finish`] does.
    pub(crate) fn close(&self, end: SessionEnd) -> Result<Option<Snapshot>> {
        if !self.live.begin_end_in_turn() {
            return Ok(None);
        }
        self.run_last_hooks(end)?;
        self.close_data(end)
    }

    fn run_last_hooks(&self, end: SessionEnd) -> Result<()> {
        let reason = match end {
            SessionEnd::Manual => LastSave::Manual,
            SessionEnd::External => LastSave::External,
            SessionEnd::Shutdown => LastSave::Shutdown,
            SessionEnd::Lost => return Ok(()),
        };
        if let Err(error) = self.collect(Collect::LastSave(reason)) {
            if goes_on(end) {
                return Err(self.end_refused(&error));
            }
            self.changes_lost(&error);
        }
        self.run_save_hooks();
        self.signals.on_last_save.each(|hook| self.live.edit_anyhow(|data| hook(reason, data)));
        Ok(())
    }

    fn close_data(&self, end: SessionEnd) -> Result<Option<Snapshot>> {
        let check = |last: &Snapshot| if goes_on(end) { self.check_saveable(last) } else { Ok(()) };
        let last = self.live.close_if(check).map_err(|error| self.end_refused(&error))?;
        if last.is_some() {
            self.tell(|table| table.closing(self));
            self.signals.on_session_end.each(|listener| listener(end));
        }
        if last.is_none() || end == SessionEnd::Lost {
            return Ok(last);
        }
        let handed = self
            .collect(Collect::Ended(end))
            .and_then(|handed| handed.as_ref().map_or(Ok(()), |handed| self.check_saveable(handed)).map(|()| handed));
        Ok(match handed {
            Ok(Some(handed)) => Some(handed),
            Ok(None) => last,
            Err(error) => {
                self.changes_lost(&error);
                last
            }
        })
    }

    /// The session goes on, since what it has cannot be stored. Callers that wait for its end are told.
    fn end_refused(&self, error: &Error) -> Error {
        self.live.reopen();
        let message = format!("the session goes on, because its last save was refused: {error}");
        self.link.health.error(&message, Some(&self.key), self.link.env.now(), &self.link.settings());
        metrics::counter!("profilestore_ends_refused_total").increment(1);
        let refused = Error::new(error.kind(), message).about(&self.key);
        {
            let mut refusals = self.refusals.lock();
            refusals.count += 1;
            refusals.last = Some(refused.again());
        }
        self.ended_wake.notify_waiters();
        refused
    }

    /// Asks whoever keeps the data for it. None: the library itself does.
    pub(crate) fn collect(&self, why: Collect) -> Result<Option<Snapshot>> {
        let Some(keeper) = self.keeper() else { return Ok(None) };
        match keeper.collect(why) {
            Ok(handed) => Ok(Some(self.live.accept(handed))),
            Err(problem) => Err(Error::new(ErrorKind::Invalid, format!("the data cannot be stored: {problem}")).about(&self.key)),
        }
    }

    pub(crate) fn keeper(&self) -> Option<Arc<dyn AnyKeeper>> {
        self.keeper.lock().clone()
    }

    /// Leaves the data to a keeper, unless somebody keeps it already.
    pub(crate) fn keep(&self, keeper: Arc<dyn AnyKeeper>) {
        self.keeper.lock().get_or_insert(keeper);
    }

    fn changes_lost(&self, error: &Error) {
        let message = format!("a profile's last changes cannot be stored and are lost: {error}");
        self.link.health.error(&message, Some(&self.key), self.link.env.now(), &self.link.settings());
    }

    /// Notes what became of the last save. The first word counts.
    pub(crate) fn note_end(&self, result: &Result<()>) {
        let _ = self.ended.set(result.as_ref().copied().map_err(Error::again));
        self.tell(|table| table.settled(self));
        self.ended_wake.notify_waiters();
    }

    /// Drops the listeners, handlers and the keeper, once all of them have been told of the end: they may hold the profile that they are for.
    pub(crate) fn let_go(&self) {
        let Signals { on_save, veto_save, on_last_save, on_session_end, on_after_save } = &self.signals;
        on_save.clear();
        veto_save.clear();
        on_last_save.clear();
        on_session_end.clear();
        on_after_save.clear();
        self.handlers.clear();
        let keeper = self.keeper.lock().take();
        drop(keeper);
    }

    /// What became of the last save, once that is known; or that the end under way was refused.
    pub(crate) async fn ended(&self) -> Result<()> {
        let refused_before = self.refusals.lock().count;
        self.ended_or_refused(refused_before).await
    }

    /// The same, for an end that was under way when so many had been refused.
    async fn ended_or_refused(&self, refused_before: u64) -> Result<()> {
        loop {
            let wake = self.ended_wake.notified();
            if let Some(ended) = self.ended.get() {
                return ended.as_ref().copied().map_err(Error::again);
            }
            {
                let refusals = self.refusals.lock();
                if let Some(last) = refusals.last.as_ref().filter(|_| refusals.count != refused_before) {
                    return Err(last.again());
                }
            }
            wake.await;
        }
    }

    pub(crate) fn run_save_hooks(&self) {
        self.signals.on_save.each(|hook| self.live.edit_anyhow(|data| hook(data)));
    }
}
