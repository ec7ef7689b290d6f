//! The owner of one live profile: its data, what the store holds of it, and the operations between the two.
//!
//! * [`protocol`]: the rules, pure.
//! * [`live`]: the data and how it is edited.
//! * [`operations`]: saving, ending, looking; each runs in the key's queue.
//! * [`messages`]: offering messages to handlers.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    data::{Codec, Data},
    data_store::{KeyState, LeaseState, ServerId, StoredMessage, VersionInfo},
    engine::Engine,
    error::Result,
    key::ProfileKey,
    record::Record,
    signal::Signal,
};

pub(crate) mod live;
pub(crate) mod messages;
pub(crate) mod operations;
pub(crate) mod protocol;

use live::{Live, Snapshot};
use messages::Handlers;

/// Why a session's last save comes. Specification: the argument of `OnLastSave`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LastSave {
    /// The program ended the session.
    Manual,
    /// Another server asked for the profile.
    External,
    /// This game server is shutting down.
    Shutdown,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SessionEnd {
    /// The program ended it.
    Manual,
    /// Another server asked for the profile and gets it.
    External,
    /// This game server is shutting down.
    Shutdown,
    /// The profile was stolen, removed, overwritten, or taken while this server could not reach the store. There was no last
    /// save.
    Lost,
}

pub(crate) type OnSave = dyn Fn(&mut dyn Data) + Send + Sync;
pub(crate) type OnLastSave = dyn Fn(LastSave, &mut dyn Data) + Send + Sync;
pub(crate) type OnSessionEnd = dyn Fn(SessionEnd) + Send + Sync;
pub(crate) type OnAfterSave = dyn Fn(&dyn Data) + Send + Sync;

#[derive(Default)]
pub(crate) struct Signals {
    pub(crate) on_save: Signal<OnSave>,
    pub(crate) on_last_save: Signal<OnLastSave>,
    pub(crate) on_session_end: Signal<OnSessionEnd>,
    pub(crate) on_after_save: Signal<OnAfterSave>,
}

/// One session on one profile.
pub(crate) struct Session {
    pub(crate) engine: Arc<Engine>,
    pub(crate) key: ProfileKey,
    /// Its own identity.
    pub(crate) id: String,
    /// Sessions started on the profile so far, this one included.
    pub(crate) load_count: u64,
    pub(crate) codec: Arc<dyn Codec>,
    pub(crate) live: Live,
    pub(crate) signals: Signals,
    pub(crate) handlers: Handlers,
    /// What the store holds, as far as this session knows. Changed only by operations in the key's queue.
    pub(crate) known: Mutex<Known>,
    look_queued: AtomicBool,
    save_queued: AtomicBool,
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
    /// The edit up to which everything is stored.
    pub(crate) saved_generation: u64,
    /// The stored value.
    pub(crate) saved: Bytes,
}

/// What a start found and took.
pub(crate) struct Taken {
    pub(crate) key: ProfileKey,
    pub(crate) id: String,
    pub(crate) held_by: ServerId,
    pub(crate) state: KeyState,
    pub(crate) record: Record,
    pub(crate) stored: Bytes,
    pub(crate) data: Arc<dyn Data>,
    pub(crate) codec: Arc<dyn Codec>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("key", &self.key).field("id", &self.id).finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(engine: Arc<Engine>, taken: Taken) -> Arc<Self> {
        let Taken { key, id, held_by, state, record, stored, data, codec } = taken;
        let known = Known {
            held_by,
            epoch: state.epoch,
            version: state.version,
            created_ms: state.created_ms,
            head: state.head,
            lease_revision: state.lease_revision,
            inbox: state.inbox.unwrap_or_default(),
            inbox_revision: state.inbox_revision,
            saved_generation: 0,
            saved: stored,
            lease: state.lease,
        };
        Arc::new(Self {
            key,
            id,
            load_count: known.lease.load_count,
            codec,
            live: Live::new(data, record),
            signals: Signals::default(),
            handlers: Handlers::default(),
            known: Mutex::new(known),
            look_queued: AtomicBool::new(false),
            save_queued: AtomicBool::new(false),
            engine,
        })
    }

    /// True once the data can no longer be edited, though the last save may still be under way.
    pub(crate) fn is_over(&self) -> bool {
        self.live.is_over()
    }

    /// Specification: `IsActive`. See `Profile::is_active`.
    pub(crate) fn is_active(&self) -> bool {
        let held_by = self.known.lock().held_by;
        !self.is_over() && self.engine.confirms(held_by)
    }

    // --- requests, queued in call order ---------------------------------------------------------------------------

    fn limit(&self) -> usize {
        self.engine.settings().max_key_queue
    }

    /// Saves; the answer comes when it is durable.
    pub(crate) fn save(self: &Arc<Self>) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let session = self.clone();
        let queued = self.engine.queues.run(&self.key, self.limit(), async move { session.save_now().await });
        async move { queued?.wait().await? }
    }

    /// Saves when the schedule or processed messages ask for it; nobody waits for the answer.
    pub(crate) fn queue_save(self: &Arc<Self>) {
        if self.save_queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let session = self.clone();
        let queued = self.engine.queues.run(&self.key, self.limit(), async move {
            session.save_queued.store(false, Ordering::Release);
            if let Err(error) = session.save_now().await {
                tracing::debug!(key = %session.key, %error, "a save found the session over");
            }
        });
        if queued.is_err() {
            // The queue is full of operations each of which saves or reads anyway.
            self.save_queued.store(false, Ordering::Release);
        }
    }

    /// Looks at lease and inbox, because something about them may have changed.
    pub(crate) fn queue_look(self: &Arc<Self>) {
        if self.is_over() || self.look_queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let session = self.clone();
        let queued = self.engine.queues.run(&self.key, self.limit(), async move {
            session.look_queued.store(false, Ordering::Release);
            session.look_now().await;
        });
        if queued.is_err() {
            self.look_queued.store(false, Ordering::Release);
        }
    }

    /// Writes this server's new incarnation into the lease.
    pub(crate) fn queue_adopt(self: &Arc<Self>) {
        let session = self.clone();
        let queued = self.engine.queues.run(&self.key, usize::MAX, async move { session.adopt_now().await });
        debug_assert!(queued.is_ok(), "an unbounded queue takes everything");
    }

    /// Ends the session. The data closes before this returns; the answer comes when the last save is durable. A session that
    /// is over already answers at once.
    pub(crate) fn finish(self: &Arc<Self>, end: SessionEnd) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let queued = self.close(end).and_then(|last| match last {
            Some(last) => {
                let session = self.clone();
                self.engine.queues.run(&self.key, usize::MAX, async move { session.end_now(last).await }).map(Some)
            }
            None => Ok(None),
        });
        async move {
            match queued? {
                Some(answer) => answer.wait().await?,
                None => Ok(()),
            }
        }
    }

    /// Runs the last hooks, closes the data and tells the listeners. None when it was closed before.
    pub(crate) fn close(&self, end: SessionEnd) -> Result<Option<Snapshot>> {
        let reason = match end {
            SessionEnd::Manual => Some(LastSave::Manual),
            SessionEnd::External => Some(LastSave::External),
            SessionEnd::Shutdown => Some(LastSave::Shutdown),
            SessionEnd::Lost => None,
        };
        live::check_not_editing(&self.key)?;
        if !self.live.begin_end() {
            return Ok(None);
        }
        if let Some(reason) = reason {
            self.run_save_hooks();
            self.signals.on_last_save.each(|hook| self.live.edit_anyhow(|data| hook(reason, data)));
        }
        let last = self.live.close();
        if last.is_some() {
            self.signals.on_session_end.each(|listener| listener(end));
        }
        Ok(last)
    }

    pub(crate) fn run_save_hooks(&self) {
        self.signals.on_save.each(|hook| self.live.edit_anyhow(|data| hook(data)));
    }
}
