//! The tie of a game server that runs in another process: which process hosts it, whether it is
//! heard of, and why its hosting stopped.
//!
//! A host does nothing on its own. It renews the game server's row for as long as that is heard of,
//! makes its commits, and stops at once when another host has taken its place. Then nothing is
//! released or written any more: the game server goes on elsewhere.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::heartbeat::Heartbeat;
use crate::{
    data_store::{Commit, CommitId, HostId},
    env::Env,
    key::ProfileKey,
};

/// After how long without a call of its game server a row is not renewed any more: two of the
/// periods in which it calls.
const QUIET: Duration = Duration::from_secs(4);

/// Why nothing is done any more for a game server that was hosted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stop {
    /// Another process hosts it now.
    Hosted,
    /// Its row is dead. When it resumes, it gets a new incarnation.
    Dead,
    /// The store's contents were replaced by a backup: its sessions are lost.
    Replaced,
    /// It was not heard of for a lease time.
    Quiet,
    /// This process gave it up: [`HostedServer::leave`](crate::hosting::HostedServer::leave).
    Left,
}

/// A request of a game server: under its identity it takes effect once, through however many hosts
/// it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The identity of its commit: 128 bits that no other request has.
    pub id: CommitId,
    /// Follows from all that it asks for. The same identity with another fingerprint is refused
    /// with an error.
    pub fingerprint: u64,
}

impl Request {
    /// A commit in its name.
    pub(crate) fn stamp(self, commit: Commit) -> Commit {
        Commit { id: self.id, fingerprint: Some(self.fingerprint), ..commit }
    }
}

/// What a link has besides, when its game server runs in another process.
pub(crate) struct Hosting {
    /// The identity of this hosting. Each has its own, also of one game server in one process: a
    /// commit of an earlier one may still be on its way.
    pub(crate) host: HostId,
    /// What the game server's row says of its owner.
    pub(crate) owner: String,
    /// The author of its writes. None: its name.
    pub(crate) author: Mutex<Option<String>>,
    heartbeat: Arc<Heartbeat>,
    heard: Mutex<Heard>,
    stopped: OnceLock<Stop>,
    stopping: Notify,
    /// The owner as whose game server it had sessions before it was hosted here. None: it had none.
    pub(crate) owner_before: Option<String>,
    /// Those of them that are being looked at.
    named: Mutex<BTreeSet<ProfileKey>>,
    all_named: AtomicBool,
    /// Profiles of which something has changed before it was known whether there is a session of
    /// them. The notice of that comes once.
    to_look_at: Mutex<BTreeSet<ProfileKey>>,
}

/// When the game server was heard of, and when it was told of a confirmation.
#[derive(Clone, Copy)]
struct Heard {
    of: Instant,
    told: Instant,
}

impl Hosting {
    pub(crate) fn new(
        host: HostId,
        owner: String,
        heartbeat: Arc<Heartbeat>,
        now: Instant,
        owner_before: Option<String>,
    ) -> Self {
        Self {
            host,
            owner,
            author: Mutex::default(),
            heartbeat,
            heard: Mutex::new(Heard { of: now, told: now }),
            stopped: OnceLock::new(),
            stopping: Notify::new(),
            all_named: AtomicBool::new(owner_before.is_none()),
            owner_before,
            named: Mutex::default(),
            to_look_at: Mutex::default(),
        }
    }

    pub(crate) fn stopped(&self) -> Option<Stop> {
        self.stopped.get().copied()
    }

    /// When the game server was told of a confirmation last.
    pub(crate) fn told(&self) -> Instant {
        self.heard.lock().told
    }

    /// For how long the game server has not been heard of, if that is so long that its row is not
    /// to be renewed.
    pub(crate) fn quiet_for(&self, now: Instant) -> Option<Duration> {
        let silence = now.saturating_duration_since(self.heard.lock().of);
        (silence > QUIET && !defect!(SilentServerRenewed)).then_some(silence)
    }

    /// Stops it. The first reason counts: true for that one.
    pub(super) fn stop(&self, why: Stop) -> bool {
        let first = self.stopped.set(why).is_ok();
        if first {
            self.stopping.notify_waiters();
        }
        first
    }

    pub(super) async fn until_stopped(&self) {
        loop {
            let stopping = self.stopping.notified();
            if self.stopped().is_some() {
                return;
            }
            stopping.await;
        }
    }

    /// The game server has called. True: its row was not renewed meanwhile.
    pub(super) fn note_call(&self, now: Instant) -> bool {
        let before = std::mem::replace(&mut self.heard.lock().of, now);
        now.saturating_duration_since(before) > QUIET
    }

    /// The game server is about to be told of a confirmation, or may have been until now.
    pub(crate) fn note_told(&self, now: Instant) {
        self.heard.lock().told = now;
    }

    /// Whether a confirmation counts: this process did not stand still since it was asked for.
    pub(super) fn counts(&self, confirmed_at: Instant, env: &Env) -> bool {
        confirmed_at >= self.heartbeat.whole_since(env)
    }

    /// When the row is to be renewed next, which is wanted at this moment.
    pub(crate) fn renewal_at(&self, wanted: Instant, now: Instant) -> Instant {
        let common = self.heartbeat.common(wanted);
        if common > now { common } else { wanted }
    }

    /// A session from before is going to be adopted, or was looked at.
    pub(crate) fn note_named(&self, key: &ProfileKey, awaited: bool) {
        let mut named = self.named.lock();
        if awaited {
            named.insert(key.clone());
        } else {
            named.remove(key);
        }
    }

    /// The game server has named all its sessions.
    pub(crate) fn note_all_named(&self) {
        self.all_named.store(true, Ordering::Release);
    }

    /// Notes a profile to look at once it is known whether there is a session of it.
    pub(crate) fn note_to_look_at(&self, key: &ProfileKey) {
        self.to_look_at.lock().insert(key.clone());
    }

    /// The profiles that were noted since this was asked for last.
    pub(crate) fn take_to_look_at(&self) -> BTreeSet<ProfileKey> {
        std::mem::take(&mut *self.to_look_at.lock())
    }

    /// Whether the game server may have a session of this key that this host does not know.
    pub(crate) fn may_have_more(&self, key: &ProfileKey) -> bool {
        !self.all_named.load(Ordering::Acquire) || self.named.lock().contains(key)
    }
}
