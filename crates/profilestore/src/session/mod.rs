//! The owner of one live profile: its data, what the store holds of it, and the operations between
//! the two.
//!
//! Here is what is asked of a session: each request takes its place in the key's queue, in call
//! order.
//!
//! * [`live`]: the data and how it is edited. [`known`], [`lease`]: what the store holds of it.
//! * [`save`], [`look`], [`end`]: what runs in the key's queue. [`in_line`]: how a save waits for
//!   room. [`outcome`], [`ending`]: what becomes of the end.
//! * [`messages`]: offering messages to handlers.
//! * [`transaction`]: one commit over several of them.
//! * [`collect`]: data that is kept elsewhere in this process.
//! * [`hosted`], [`handed`], [`document`], [`remote`], [`telling`]: data that is kept by a game
//!   server in another process.
//! * [`edits`]: applying what operators want changed. [`orders`]: who had the session ended.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit},
    time::Instant,
};

use crate::{
    audit::AuditEntry,
    data::{Codec, Data},
    data_store::{Digest, Incarnation, KeyState, ServerId},
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    link::{Link, commit::Backoff},
    migration::READABLE_FROM,
    record::Record,
    session::collect::{AnyKeeper, Collect},
    signal::Signal,
};

pub(crate) mod collect;
pub(crate) mod document;
pub(crate) mod editing;
pub(crate) mod edits;
mod end;
mod ending;
pub(crate) mod handed;
pub(crate) mod handlers;
mod hosted;
mod in_line;
pub(crate) mod info;
pub(crate) mod known;
mod lease;
pub(crate) mod live;
mod look;
mod messages;
mod orders;
mod outcome;
pub(crate) mod remote;
mod save;
mod snapshot;
mod telling;
pub(crate) mod transaction;
pub(crate) mod unseen;

use handlers::Handlers;
use info::{LastSave, SessionEnd, SessionInfo};
use known::{Known, Saved};
use lease::Own;
use live::Live;
use outcome::Outcome;
use remote::Remote;
use snapshot::Snapshot;
use unseen::Unseen;

pub(crate) type OnSave = dyn Fn(&mut dyn Data) + Send + Sync;
pub(crate) type VetoSave = dyn Fn(&dyn Data) -> Result<(), String> + Send + Sync;
pub(crate) type OnLastSave = dyn Fn(LastSave, &mut dyn Data) + Send + Sync;
pub(crate) type OnSessionEnd = dyn Fn(SessionEnd) + Send + Sync;
pub(crate) type OnAfterSave = dyn Fn(&dyn Data) + Send + Sync;
pub(crate) type OnEdited = dyn Fn(&AuditEntry, &dyn Data) + Send + Sync;

#[derive(Default)]
pub(crate) struct Signals {
    pub(crate) on_save: Signal<OnSave>,
    pub(crate) veto_save: Signal<VetoSave>,
    pub(crate) on_last_save: Signal<OnLastSave>,
    pub(crate) on_session_end: Signal<OnSessionEnd>,
    pub(crate) on_after_save: Signal<OnAfterSave>,
    pub(crate) on_edited: Signal<OnEdited>,
}

/// Whom a session tells about itself: the table of its game server's sessions, which knows it.
pub(crate) trait SessionEvents: Send + Sync {
    /// The session's data is closed, and what becomes of its last save is not known yet.
    fn closing(&self, session: &Session);

    /// What became of the last save is known, or the end was refused.
    fn settled(&self, session: &Session);

    /// The session has nothing more to do with its profile: the next one may have its place.
    fn freed(&self, session: &Session);

    /// The session has sent a message to this profile.
    fn sent(&self, key: &ProfileKey);

    /// The session has something to tell its game server, which runs in another process.
    fn news(&self, session: &Arc<Session>);

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
    /// The store's incarnation that it began in.
    pub(crate) incarnation: Incarnation,
    /// Sessions started on the profile so far, this one included.
    pub(crate) load_count: u64,
    pub(crate) codec: Arc<dyn Codec>,
    pub(crate) live: Live,
    pub(crate) signals: Signals,
    pub(crate) handlers: Handlers,
    /// Who keeps the data, if it is not the library.
    keeper: Mutex<Option<Arc<dyn AnyKeeper>>>,
    /// What its game server is told, if that runs in another process.
    pub(crate) remote: Option<Box<Remote>>,
    /// What the store holds, as far as this session knows. Changed only by operations in the key's
    /// queue.
    pub(crate) known: Mutex<Known>,
    /// What becomes of its end.
    outcome: Outcome,
    pub(crate) unseen: Unseen,
    look_wanted: AtomicBool,
    look_queued: AtomicBool,
    save_queued: AtomicBool,
    /// Something that goes first, or a look, waits behind what this session does.
    pub(super) hurry: Notify,
    /// How large the profile was when it was stored last.
    pub(super) stored_bytes: AtomicUsize,
    /// It is in the line of those that are to be saved soon.
    pub(crate) change_noted: AtomicBool,
    /// How long after a failed save of a change the next one comes at the earliest.
    unsaved_again: Mutex<Backoff>,
    /// Servers that may open what is stored may not open what this session is going to save.
    shuts_out: AtomicBool,
    /// The data was almost too large at the last save.
    nearly_full: AtomicBool,
    /// Its own period of autosaves, if not the server's.
    pub(crate) autosave_period: Option<Duration>,
    /// Who held the profile when the session was found to be lost.
    taken_by: OnceLock<Box<SessionInfo>>,
    /// No caller has it.
    unclaimed: AtomicBool,
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

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("key", &self.key)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(link: Arc<Link>, table: Weak<dyn SessionEvents>, taken: Taken) -> Arc<Self> {
        let Taken {
            key,
            id,
            held_by,
            incarnation,
            state,
            mut record,
            stored,
            data,
            codec,
            autosave_period,
        } = taken;
        let readable_from = record.meta_tags.get(READABLE_FROM).cloned();
        codec.stamp(&mut record);
        let shuts_out = record.meta_tags.get(READABLE_FROM) != readable_from.as_ref();
        let stored_bytes = AtomicUsize::new(stored.len());
        let live = Live::new(data, record);
        let saved =
            Saved { data: live.data(), meta: live.meta(), digest: Some(Digest::of(&stored)) };
        let own = Own { place_id: link.place_id, job_id: &link.job_id, session: &id };
        let known = Known::new(held_by, state, saved, own);
        Arc::new(Self {
            key,
            id,
            incarnation,
            load_count: known.lease.load_count(),
            codec,
            live,
            signals: Signals::default(),
            handlers: Handlers::default(),
            keeper: Mutex::new(None),
            remote: link.hosting.as_ref().map(|_| Box::default()),
            known: Mutex::new(known),
            outcome: Outcome::default(),
            unseen: Unseen::default(),
            look_wanted: AtomicBool::new(false),
            look_queued: AtomicBool::new(false),
            save_queued: AtomicBool::new(false),
            hurry: Notify::new(),
            stored_bytes,
            change_noted: AtomicBool::new(false),
            unsaved_again: Mutex::default(),
            shuts_out: AtomicBool::new(shuts_out),
            nearly_full: AtomicBool::new(false),
            autosave_period,
            taken_by: OnceLock::new(),
            unclaimed: AtomicBool::new(false),
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

    /// Notes that something was changed, and has it saved in time if the settings say so; at once
    /// if older programs are to be kept out from then on, so that none asks for the profile and
    /// finds only then that it cannot open it.
    pub(crate) fn note_change(self: &Arc<Self>) {
        if self.shuts_out.load(Ordering::Relaxed) && self.shuts_out.swap(false, Ordering::Relaxed) {
            self.queue_save();
        }
        self.have_changes_saved(Duration::ZERO);
    }

    /// Has what was changed saved in time if the settings say so, and not before `at_least` is
    /// over.
    fn have_changes_saved(self: &Arc<Self>, at_least: Duration) {
        let Some(within) = self.link.settings().save_changes_within else { return };
        if !self.change_noted.swap(true, Ordering::AcqRel) {
            let save_by = self.link.env.after(within.max(at_least));
            self.tell(|table| table.changed(self, save_by));
        }
    }

    /// How the session names itself in a lease.
    fn in_lease(&self) -> Own<'_> {
        Own { place_id: self.link.place_id, job_id: &self.link.job_id, session: &self.id }
    }

    /// Who held the profile when the session was found to be lost.
    pub(crate) fn taken_by(&self) -> Option<SessionInfo> {
        self.taken_by.get().map(|taker| SessionInfo::clone(taker))
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
        let held_by = {
            let known = self.known.lock();
            if known.taken {
                return false;
            }
            known.held_by
        };
        self.link.confirms(held_by, self.unseen.since())
    }

    /// True once the session was lost, or its last save is known.
    pub(crate) fn is_known_to_be_over(&self) -> bool {
        self.outcome.is_known()
    }

    // --- requests, queued in call order ---------------------------------------------------------

    fn limit(&self) -> usize {
        self.link.settings().max_key_queue
    }

    /// Saves; the answer comes when it is durable. When the session ends before the save's turn
    /// comes, the last save is the answer: it holds all that was changed before. When that end is
    /// refused, so is the save.
    pub(crate) fn save(
        self: &Arc<Self>,
    ) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let session = self.clone();
        let queued = if self.is_over() {
            Err(Error::new(ErrorKind::SessionEnded, "the session is over").about(&self.key))
        } else {
            self.link.queues.run(&self.key, self.limit(), self.clone().save_in_turn())
        };
        async move {
            match queued?.wait().await? {
                (Err(error), Some(refused_before)) => {
                    let ended = session.outcome.wait(refused_before).await;
                    // An end that was refused did not save either, and the session goes on.
                    ended.map_err(|why| if session.outcome.is_known() { error } else { why })
                }
                (answer, _) => answer,
            }
        }
    }

    /// The turn of a save that the program asked for. What it needs is made in its turn, and not
    /// before: as many of them may wait as the queue takes. With an error of a session that is
    /// over: how many of its ends had been refused.
    async fn save_in_turn(self: Arc<Self>) -> (Result<()>, Option<u64>) {
        let answer = Box::pin(self.save_asked_for()).await;
        // In the save's turn: an end that comes behind it can be refused only later.
        let ends = answer.is_err() && self.is_over();
        (answer, ends.then(|| self.outcome.refused()))
    }

    /// Saves when processed messages or the program ask for it; no caller waits for the answer.
    pub(crate) fn queue_save(self: &Arc<Self>) {
        self.queue_scheduled_save(None);
    }

    /// Saves when the schedule asks for it, and gives its place among those under way back
    /// afterwards.
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

    /// Saves what was changed, without hooks, and gives the room back afterwards; no caller waits
    /// for the answer.
    pub(crate) fn queue_change_save(self: &Arc<Self>, room: OwnedSemaphorePermit) {
        // Before the snapshot is taken: what changes after that is noted anew.
        self.change_noted.store(false, Ordering::Release);
        let session = self.clone();
        let queued = self.link.queues.run(&self.key, self.limit(), async move {
            let _room = room;
            if let Err(error) = session.save_change_now().await {
                tracing::debug!(key = %session.key, %error, "a change could not be saved soon");
                session.note_unsaved_change(&error);
            }
        });
        if queued.is_err() {
            // What fills the queue need not be saves.
            self.note_change();
        }
    }

    /// A change is still to be saved: tries again. Where that will not help, it is tried with the
    /// next change and with the autosaves.
    fn note_unsaved_change(self: &Arc<Self>, error: &Error) {
        let stays = matches!(
            error.kind(),
            ErrorKind::Invalid | ErrorKind::TooLarge | ErrorKind::Refused | ErrorKind::TakenAway
        );
        if !self.is_over() && !stays {
            let pause = self.unsaved_again.lock().next(self.link.longest_pause(false));
            self.have_changes_saved(pause);
        }
    }

    /// Looks at lease and inbox, because something about them may have changed.
    pub(crate) fn queue_look(self: &Arc<Self>) {
        if self.is_over() {
            return;
        }
        self.look_wanted.store(true, Ordering::Release);
        // For a save that waits for room with the session's turn.
        self.hurry.notify_one();
        if self.look_queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let session = self.clone();
        // At most one of them waits, which finds room in any queue: the hint and the notice that it
        // follows do not come again.
        let queued = self.link.queues.run(&self.key, usize::MAX, async move {
            // Not a store: whatever found this in the queue has its look seen here.
            session.look_queued.swap(false, Ordering::AcqRel);
            session.look_if_wanted().await;
        });
        debug_assert!(queued.is_ok(), "an unbounded queue takes everything");
    }

    /// Ends the session without a save.
    pub(crate) fn queue_lose(self: &Arc<Self>, why: &'static str) {
        let session = self.clone();
        let queued =
            self.link.queues.run(&self.key, usize::MAX, async move { session.lose(why).await });
        debug_assert!(queued.is_ok(), "an unbounded queue takes everything");
    }

    /// Ends a session that no caller has. None could mend what cannot be stored, so no end of it is
    /// refused: the profile is released as it was stored last. Calls nothing of the program if the
    /// session was never delivered.
    pub(crate) fn finish_unclaimed(self: &Arc<Self>) {
        self.unclaimed.store(true, Ordering::Relaxed);
        drop(self.finish(SessionEnd::Manual));
    }

    /// Writes this server's new incarnation into the lease.
    pub(crate) fn queue_adopt(self: &Arc<Self>) {
        let session = self.clone();
        let queued =
            self.link.queues.run(&self.key, usize::MAX, async move { session.adopt_now().await });
        debug_assert!(queued.is_ok(), "an unbounded queue takes everything");
    }

    /// Asks the keeper for the data. None: the library itself keeps it.
    pub(crate) fn collect(&self, why: Collect) -> Result<Option<Snapshot>> {
        let Some(keeper) = self.keeper() else { return Ok(None) };
        let collected = catch_unwind(AssertUnwindSafe(|| keeper.collect(why)))
            .unwrap_or_else(|_| Err("what keeps the data panicked".into()));
        match collected {
            Ok(handed) => Ok(Some(self.live.accept(handed))),
            Err(problem) => {
                Err(Error::new(ErrorKind::Invalid, format!("the data cannot be stored: {problem}"))
                    .about(&self.key))
            }
        }
    }

    pub(crate) fn keeper(&self) -> Option<Arc<dyn AnyKeeper>> {
        self.keeper.lock().clone()
    }

    /// Leaves the data to a keeper, unless it has one already.
    #[cfg(feature = "roblox")]
    pub(crate) fn keep(&self, keeper: Arc<dyn AnyKeeper>) {
        self.keeper.lock().get_or_insert(keeper);
    }

    pub(crate) fn run_save_hooks(&self) {
        self.signals.on_save.each(|hook| self.live.edit_anyhow(|data| hook(data)));
    }
}
