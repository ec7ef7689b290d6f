//! One game server's tie to its store: its lease, the order of its calls, and how it commits and
//! reads.
//!
//! A link knows no session. Sessions, starts and calls each hold the link and go through it:
//!
//! * [`call`]: a call without a session takes its turn in its key's queue, by a deadline.
//! * [`commit`]: commits whose outcome gets known, and reads, both tried again while the store
//!   fails.
//! * [`renew`]: registers the server's row and renews it; [`lease`] is what is known of that row.
//! * [`queue`]: the operations of a key, one after the other.
//! * [`room`]: how much may be on its way to the store at once.
//! * [`deadline`]: for how long all of these try.
//! * [`hosting`], [`hosted`], [`rehost`], [`heartbeat`]: what is different for a game server that
//!   runs in another process.
//! * [`health`]: errors, the critical state, and whom to tell of them.

use std::{
    cell::Cell,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, ReentrantMutex, RwLock};
use tokio::{runtime::Handle, sync::Notify, time::Instant};

use self::{
    deadline::Deadline,
    health::Health,
    hosting::Hosting,
    lease::{Lease, UnderWay},
    queue::KeyQueues,
    room::Room,
};
use crate::{
    data_store::{DataStore, Incarnation, ServerId},
    env::Env,
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    messenger::Messenger,
    ownership,
    settings::Settings,
};

mod call;
pub(crate) mod commit;
pub(crate) mod deadline;
pub(crate) mod health;
pub(crate) mod heartbeat;
mod hosted;
pub(crate) mod hosting;
pub(crate) mod lease;
pub(crate) mod messages;
pub(crate) mod queue;
pub(crate) mod rehost;
pub(crate) mod renew;
pub(crate) mod room;

/// What a game server is made of.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn DataStore>,
    pub(crate) messenger: Arc<dyn Messenger>,
    pub(crate) env: Env,
    pub(crate) settings: Settings,
    pub(crate) place_id: i64,
    pub(crate) job_id: String,
    /// A mock's errors are told to the listeners of its server.
    pub(crate) health: Arc<Health>,
}

/// One game server's tie to its store.
pub(crate) struct Link {
    pub(crate) store: Arc<dyn DataStore>,
    messenger: Arc<dyn Messenger>,
    pub(crate) env: Env,
    settings: RwLock<Arc<Settings>>,
    /// Held while the settings are changed; true then.
    changing_settings: ReentrantMutex<Cell<bool>>,
    pub(crate) place_id: i64,
    pub(crate) job_id: String,
    pub(crate) runtime: Handle,
    pub(crate) lease: Mutex<Lease>,
    /// A commit met another incarnation of the store: the lease is to be renewed at once.
    pub(crate) renew_now: Notify,
    /// A new incarnation of this server has begun.
    begun_anew: Notify,
    /// A renewal got through.
    renewed: Notify,
    pub(crate) renewals: UnderWay,
    pub(crate) queues: Arc<KeyQueues>,
    /// For what is on its way to the store.
    pub(crate) room: Arc<Room>,
    /// Held while a transaction takes its place in several queues, so that two of them meet in the
    /// same order in all of them.
    pub(crate) lining_up: Mutex<()>,
    pub(crate) health: Arc<Health>,
    closing: AtomicBool,
    /// Set while `shutdown` runs: retries come faster.
    hurry: AtomicBool,
    /// For a game server that runs in another process.
    pub(crate) hosting: Option<Hosting>,
}

/// Ends a change of the settings, also when the program's part of it panics.
struct ChangeOver<'a>(&'a Cell<bool>);

impl Drop for ChangeOver<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("store", &self.store)
            .field("job_id", &self.job_id)
            .finish_non_exhaustive()
    }
}

impl Link {
    /// Of a server that has registered in the store, with this lease.
    pub(crate) fn new(
        parts: Parts,
        lease: Lease,
        runtime: Handle,
        hosting: Option<Hosting>,
    ) -> Arc<Self> {
        let Parts { store, messenger, env, settings, place_id, job_id, health } = parts;
        Arc::new(Self {
            store,
            messenger,
            settings: RwLock::new(Arc::new(settings)),
            changing_settings: ReentrantMutex::default(),
            place_id,
            job_id,
            queues: KeyQueues::new(runtime.clone()),
            room: Room::new(env.clone()),
            env,
            runtime,
            lease: Mutex::new(lease),
            renew_now: Notify::new(),
            begun_anew: Notify::new(),
            renewed: Notify::new(),
            renewals: UnderWay::default(),
            lining_up: Mutex::default(),
            health,
            closing: AtomicBool::new(false),
            hurry: AtomicBool::new(false),
            hosting,
        })
    }

    /// The same parts again, for another registration.
    fn parts(&self) -> Parts {
        Parts {
            store: self.store.clone(),
            messenger: self.messenger.clone(),
            env: self.env.clone(),
            settings: (*self.settings()).clone(),
            place_id: self.place_id,
            job_id: self.job_id.clone(),
            health: self.health.clone(),
        }
    }

    /// The author of what is written in the game server's name.
    pub(crate) fn author(&self) -> String {
        let told = self.hosting.as_ref().and_then(|hosting| hosting.author.lock().clone());
        told.unwrap_or_else(|| self.job_id.clone())
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.read().clone()
    }

    pub(crate) fn change_settings<R>(&self, change: impl FnOnce(&mut Settings) -> R) -> Result<R> {
        let noted = self.lease_time();
        // Changes come one after the other; the program may read the settings within one.
        let changing = self.changing_settings.lock();
        if changing.replace(true) {
            let message = "settings cannot be changed from inside a change of them";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let _over = ChangeOver(&changing);
        let mut settings = Settings::clone(&self.settings());
        let answer = change(&mut settings);
        if let Some(problem) = settings.problem() {
            return Err(Error::new(ErrorKind::Invalid, problem));
        }
        if settings.renew_period.saturating_mul(2) > noted {
            let message = "the renewal period must be at most half the lease time that is noted in \
                the store, which stays as it was when this game server started";
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        *self.settings.write() = Arc::new(settings);
        Ok(answer)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// No call begins any more.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    /// Makes what is under way try again sooner.
    pub(crate) fn hurry(&self) {
        self.hurry.store(true, Ordering::SeqCst);
    }

    /// Fails once the server is closing.
    pub(crate) fn check_open(&self, key: &ProfileKey) -> Result<()> {
        if self.is_closing() {
            return Err(Error::new(
                ErrorKind::Closing,
                "this game server is shutting \
                down",
            )
            .about(key));
        }
        Ok(())
    }

    /// The deadline of the call that is being done, or that of one that is made now.
    pub(crate) fn deadline(&self) -> Deadline {
        let begins = || Deadline::new(self.env.now(), self.env.after(self.settings().call_timeout));
        Deadline::of_call().unwrap_or_else(begins)
    }

    // --- the lease ------------------------------------------------------------------------------

    pub(crate) fn server(&self) -> ServerId {
        self.lease.lock().server
    }

    /// The store's incarnation in which this server is registered: for [`Link::commit_in`], taken
    /// before the look that a commit is built on.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.lease.lock().incarnation
    }

    /// True when a session held by this incarnation of the server may believe in itself. `unseen`:
    /// the session has yet to look at a notice, so only what was confirmed before that came counts.
    pub(crate) fn confirms(&self, held_by: ServerId, unseen: Option<Instant>) -> bool {
        let lease = self.lease.lock();
        lease.server == held_by
            && lease.is_confirmed(unseen.unwrap_or(lease.confirmed_at), self.env.now())
    }

    /// The longest silence of the store that still counts as uninterrupted contact.
    pub(crate) fn max_gap(settings: &Settings) -> Duration {
        ownership::Periods::of(settings).max_gap
    }

    /// Notes what the store's clock said in the answer to a call sent then.
    pub(crate) fn observe(&self, sent: Instant, store_ms: i64) {
        let max_gap = Self::max_gap(&self.settings());
        self.lease.lock().contact.observe(sent, self.env.now(), store_ms, max_gap);
    }

    /// After how long without a renewal this server's row may be declared dead.
    pub(crate) fn lease_time(&self) -> Duration {
        self.lease.lock().lease_time
    }

    pub(crate) fn contact(&self) -> Option<Duration> {
        let max_gap = Self::max_gap(&self.settings());
        self.lease.lock().contact_time(self.env.now(), max_gap)
    }

    /// The store's time, Unix milliseconds, as far as is known.
    pub(crate) fn store_ms(&self) -> i64 {
        self.lease.lock().contact.store_ms(self.env.now()).unwrap_or_else(|| self.env.unix_ms())
    }

    pub(crate) fn periods(&self) -> ownership::Periods {
        ownership::Periods::of(&self.settings())
    }
}
