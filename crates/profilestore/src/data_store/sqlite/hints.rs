//! Hints between the processes that share a file, without a server between them.
//!
//! SQLite tells each connection cheaply whether any other one has committed (`PRAGMA
//! data_version`). A thread asks every three milliseconds while a game server listens, and looks at
//! the notices of its listeners when the answer changes. So a notice, which the commit left anyway,
//! doubles as the hint, and the sender does nothing.

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;
use tokio::sync::mpsc;

use super::{
    SqliteOptions, SqliteStore, Trouble,
    schema::{self, Role},
    state::Tx,
    taken_away::Guard,
};
use crate::{
    data_store::{ServerId, StoreError},
    key::ProfileKey,
    messenger::{Hint, LocalMessenger, Messenger},
};

/// How often the thread asks whether anything was committed.
const PERIOD: Duration = Duration::from_millis(3);

/// How long it waits after a failure, and after one that stays.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
const AFTER_THE_END: Duration = Duration::from_secs(60);

/// Hints between the processes that share a store's file. Cheap to clone; its thread ends with the
/// last clone.
#[derive(Clone)]
pub struct SqliteMessenger {
    shared: Arc<Shared>,
}

impl fmt::Debug for SqliteMessenger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SqliteMessenger").field(&self.shared.path).finish()
    }
}

struct Shared {
    path: PathBuf,
    options: SqliteOptions,
    guard: Option<Arc<Guard>>,
    here: LocalMessenger,
    bell: Arc<Bell>,
    started: Mutex<bool>,
}

/// Wakes the thread: for its first listener, and to end.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    condvar: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock() = true;
        self.condvar.notify_one();
    }

    fn wait(&self, time: Option<Duration>) {
        let mut rung = self.rung.lock();
        if !*rung {
            match time {
                Some(time) => drop(self.condvar.wait_for(&mut rung, time)),
                None => self.condvar.wait(&mut rung),
            }
        }
        *rung = false;
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.bell.ring();
    }
}

impl SqliteMessenger {
    /// Hints among the users of this store's file.
    pub fn new(store: &SqliteStore) -> Self {
        let (path, options) = (store.inner.path.clone(), store.inner.options.clone());
        let (here, bell) = (LocalMessenger::new(), Arc::default());
        let guard = store.inner.guard.clone();
        let started = Mutex::new(false);
        Self { shared: Arc::new(Shared { path, options, guard, here, bell, started }) }
    }

    /// Starts the thread, if it does not run yet. Without one, hints within this process still go
    /// through: no server lives in a store that is only read.
    fn start(&self) {
        let mut started = self.shared.started.lock();
        if *started || self.shared.guard.is_none() {
            return;
        }
        let (shared, bell) = (Arc::downgrade(&self.shared), self.shared.bell.clone());
        let thread = std::thread::Builder::new().name("profilestore-hints".into());
        let watch = Watch::new(self.shared.guard.clone());
        match thread.spawn(move || watch.run(&shared, &bell)) {
            Ok(_) => *started = true,
            Err(err) => tracing::warn!(%err, "no thread for hints between processes"),
        }
    }
}

#[async_trait]
impl Messenger for SqliteMessenger {
    async fn subscribe(&self, server: ServerId) -> mpsc::Receiver<Hint> {
        let receiver = self.shared.here.subscribe(server).await;
        self.start();
        self.shared.bell.ring();
        receiver
    }

    /// Delivers to a listener in this process at once; those in others find the commit's notice.
    async fn hint(&self, to: ServerId, key: &ProfileKey) {
        self.shared.here.deliver(to, Hint::Look(key.clone()));
    }
}

/// What the thread knows.
struct Watch {
    guard: Option<Arc<Guard>>,
    conn: Option<Connection>,
    data_version: Option<i64>,
    /// The newest notice that each listener was told of.
    told: BTreeMap<ServerId, i64>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl Watch {
    fn new(guard: Option<Arc<Guard>>) -> Self {
        Self { guard, conn: None, data_version: None, told: BTreeMap::new() }
    }

    fn let_go(&mut self) {
        if let (Some(conn), Some(guard)) = (self.conn.take(), &self.guard) {
            guard.let_go(&conn);
        }
    }

    fn run(mut self, shared: &Weak<Shared>, bell: &Bell) {
        loop {
            let pause = {
                let Some(shared) = shared.upgrade() else { return };
                let listeners = shared.here.subscribed();
                self.told.retain(|server, _| listeners.contains(server));
                if listeners.is_empty() {
                    self.let_go();
                    None
                } else if let Err(err) = self.look(&shared, &listeners) {
                    let err = err.not_applied();
                    tracing::warn!(%err, "the store cannot be watched for hints");
                    self.let_go();
                    // Whatever was committed meanwhile is found then, but listeners are told that
                    // they may have missed something.
                    for listener in listeners {
                        shared.here.deliver(listener, Hint::Gap);
                    }
                    match err {
                        StoreError::TakenAway { .. } => Some(AFTER_THE_END),
                        _ => Some(AFTER_FAILURE),
                    }
                } else {
                    Some(PERIOD)
                }
            };
            bell.wait(pause);
        }
    }

    fn look(&mut self, shared: &Shared, listeners: &[ServerId]) -> Result<(), Trouble> {
        if self.conn.is_none() {
            if let Some(guard) = &self.guard {
                guard.still_there()?;
            }
            self.data_version = None;
            // It never writes, but when it is the last one to close, only one that may write can
            // tidy up.
            let conn = schema::connect(&shared.path, Role::Writer, &shared.options)?;
            conn.busy_timeout(shared.options.busy_wait)?;
            self.conn = Some(conn);
        }
        let Some(conn) = &self.conn else { return Ok(()) };
        let version =
            conn.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        let changed = self.data_version.replace(version) != Some(version);
        for listener in listeners {
            if changed || !self.told.contains_key(listener) {
                let told = self.told.entry(*listener).or_default();
                let (keys, newest) = Tx::new(conn, 0).notices_since(*listener, *told)?;
                for key in keys {
                    shared.here.deliver(*listener, Hint::Look(key));
                }
                *told = newest;
            }
        }
        Ok(())
    }
}
