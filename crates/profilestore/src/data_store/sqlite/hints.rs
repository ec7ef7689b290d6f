//! Hints between the processes that share a file, without a server between them.
//!
//! SQLite tells each connection cheaply whether any other one has committed (`PRAGMA
//! data_version`). A thread asks every three milliseconds while a game server listens, and looks at
//! the notices of its listeners when the answer changes. So a notice, which the commit left anyway,
//! doubles as the hint. On Linux the sender wakes that thread at once ([`super::alarm`]).

use std::{
    collections::BTreeMap,
    fmt, io,
    path::PathBuf,
    sync::{Arc, Weak},
    thread::ThreadId,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;
use tokio::sync::mpsc;

use super::{
    SqliteOptions, SqliteStore, Trouble,
    alarm::{self, Alarm},
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

/// How long the last drop of a messenger waits for its thread to close its connection.
const CLOSING: Duration = Duration::from_millis(200);

/// Hints between the processes that share a store's file. Cheap to clone; its thread ends with the
/// last clone, whose drop waits for that for 200 ms at most.
#[derive(Clone)]
pub struct SqliteMessenger {
    shared: Arc<Shared>,
    _closer: Arc<Closer>,
}

/// Waits when the last clone of the messenger is dropped: the connection that is closed last
/// removes the log, and a process that ends sooner leaves it there.
struct Closer(Arc<Bell>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.wait_for_the_end(CLOSING);
    }
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

/// Wakes the thread: for its first listener, and to end. Tells when it has ended.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    condvar: Condvar,
    /// The thread, while it runs.
    thread: Mutex<Option<ThreadId>>,
    ended: Condvar,
}

/// The thread has let go of everything.
struct Ended<'a>(&'a Bell);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        *self.0.thread.lock() = None;
        self.0.ended.notify_all();
    }
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

    /// Waits until the thread has ended, if there is one. The thread does not wait for itself.
    fn wait_for_the_end(&self, most: Duration) {
        let mut thread = self.thread.lock();
        if *thread != Some(std::thread::current().id()) {
            self.ended.wait_while_for(&mut thread, |thread| thread.is_some(), most);
        }
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
        let (here, bell) = (LocalMessenger::new(), Arc::<Bell>::default());
        let guard = store.inner.guard.clone();
        let (started, closer) = (Mutex::new(false), Closer(Arc::clone(&bell)));
        let shared = Arc::new(Shared { path, options, guard, here, bell, started });
        Self { shared, _closer: Arc::new(closer) }
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
        let mut running = self.shared.bell.thread.lock();
        let run = move || {
            let _ended = Ended(&bell);
            watch.run(&shared, &bell);
        };
        match thread.spawn(run) {
            Ok(thread) => (*started, *running) = (true, Some(thread.thread().id())),
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

    /// Delivers to a listener in this process at once; those in others find the commit's notice,
    /// and are woken to look for it.
    async fn hint(&self, to: ServerId, key: &ProfileKey) {
        if !self.shared.here.deliver(to, Hint::Look(key.clone())) {
            // In place: it is one system call of a few microseconds, which changes an inode that is
            // in memory. To hand it to the blocking pool costs more.
            alarm::ring(&self.shared.path);
        }
    }
}

/// What the thread knows.
struct Watch {
    guard: Option<Arc<Guard>>,
    conn: Option<Connection>,
    /// Once a look with the connection went well.
    alarm: Option<io::Result<Alarm>>,
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
        Self { guard, conn: None, alarm: None, data_version: None, told: BTreeMap::new() }
    }

    fn let_go(&mut self) {
        self.alarm = None;
        if let (Some(conn), Some(guard)) = (self.conn.take(), &self.guard) {
            guard.let_go(&conn);
        }
    }

    fn run(mut self, shared: &Weak<Shared>, bell: &Arc<Bell>) {
        loop {
            let pause = {
                let Some(shared) = shared.upgrade() else { return };
                let listeners = shared.here.subscribed();
                self.told.retain(|server, _| listeners.contains(server));
                if listeners.is_empty() {
                    self.let_go();
                    None
                } else if let Err(err) = self.look(&shared, bell, &listeners) {
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

    fn look(
        &mut self,
        shared: &Shared,
        bell: &Arc<Bell>,
        listeners: &[ServerId],
    ) -> Result<(), Trouble> {
        if self.conn.is_none() {
            if let Some(guard) = &self.guard {
                guard.still_there()?;
            }
            self.data_version = None;
            // It never writes, but when it is the last one to close, only one that may write can
            // tidy up.
            let conn = schema::connect(&shared.path, Role::Writer, &shared.options)?;
            conn.busy_timeout(shared.options.lock_wait())?;
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
        // Reading has opened the log, which is watched. Not before the look went well: a ring would
        // end the pause after a failure. What comes in between is found by the next look.
        self.alarm.get_or_insert_with(|| {
            let rung = Arc::clone(bell);
            Alarm::new(&shared.path, move || rung.ring())
                .inspect_err(|err| tracing::debug!(%err, "no process can wake this one"))
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    use super::*;

    /// Rings of other processes ended the pause after a failure, so that one failure came right
    /// behind the other.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_watch_that_fails_is_not_woken_by_other_processes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("players.db");
        let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
        let shared = SqliteMessenger::new(&store).shared;
        let another = Connection::open(&path).unwrap();
        let mut watch = Watch::new(shared.guard.clone());
        let server = ServerId(uuid::Uuid::from_u128(1));
        let mut look = || {
            let looked = watch.look(&shared, &shared.bell, &[server]).is_ok();
            (looked, watch.alarm.as_ref().is_some_and(Result::is_ok))
        };
        another.execute_batch("ALTER TABLE notice RENAME TO gone").unwrap();
        assert_eq!(look(), (false, false));
        another.execute_batch("ALTER TABLE gone RENAME TO notice").unwrap();
        assert_eq!(look(), (true, true));
    }

    /// The log stayed behind when the process ended sooner than the thread.
    #[test]
    fn a_drop_waits_for_the_thread_and_the_thread_not_for_itself() {
        const LONG: Duration = Duration::from_secs(600);
        let (bell, let_go) = (Bell::default(), AtomicBool::new(false));
        bell.wait_for_the_end(LONG);
        *bell.thread.lock() = Some(std::thread::current().id());
        bell.wait_for_the_end(LONG);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let _ended = Ended(&bell);
                bell.wait(None);
                let_go.store(true, SeqCst);
            });
            *bell.thread.lock() = Some(thread.thread().id());
            bell.ring();
            bell.wait_for_the_end(LONG);
            assert!(let_go.load(SeqCst));
        });
    }
}
