//! Reads of what keys hold. Those that wait share a thread and a read transaction, as commits share
//! theirs: handing each to a thread of its own costs more than the read.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant as RealTime},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Inner, Trouble, busy::real_time, state::Tx};
use crate::{
    data_store::{Returning, Snapshot, StoreError},
    key::ProfileKey,
};

/// How many threads read at most.
const THREADS: usize = 8;

/// So many threads read as soon as there is something to read: one may wait for the disk.
const PROMPT: usize = 2;

/// Another one begins when more reads than this wait for each that reads already.
const EACH: usize = 4;

/// Another one begins too when a read comes and no thread has taken any for so long: each that
/// reads has been at its share for longer than that, waiting for the disk perhaps. Many times what
/// a share of small values takes, so that shares stay large while the disk answers. A read that
/// came sooner, with none behind it, waits for the first thread that is done: a timer for each read
/// would cost all of them something.
const SLOW: Duration = Duration::from_millis(10);

/// How many reads share a transaction.
const TOGETHER: usize = 16;

/// Where so many wait, those whose callers have given up are dropped.
const MANY: usize = 1024;

type Reply = Result<Snapshot, StoreError>;

/// The reads that wait for a thread.
#[derive(Default)]
pub(super) struct Gets(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    gets: VecDeque<Get>,
    /// How many threads read, or were asked for.
    threads: usize,
    /// When a thread last took reads, or was asked for.
    moved: Option<RealTime>,
    /// At so many, those whose callers have given up are dropped the next time.
    drop_at: usize,
}

struct Get {
    keys: Vec<ProfileKey>,
    returning: Returning,
    reply: oneshot::Sender<Reply>,
}

impl Waiting {
    /// Adds one. While the disk does not answer, callers give up and ask again.
    fn push(&mut self, get: Get) {
        if self.gets.len() >= self.drop_at.max(MANY) {
            self.gets.retain(|get| !get.reply.is_closed());
            self.drop_at = 2 * self.gets.len();
        }
        self.gets.push_back(get);
    }

    /// Whether another thread is to read; it is counted from now on.
    fn needs_thread(&mut self, now: RealTime) -> bool {
        let slow = |moved| now.saturating_duration_since(moved) >= SLOW;
        let few = self.threads < PROMPT
            || self.gets.len() > EACH * self.threads
            || self.moved.is_some_and(slow);
        let needs = few && self.threads < THREADS;
        if needs {
            self.threads += 1;
            self.moved = Some(now);
        }
        needs
    }

    /// A thread's next share. When it is empty, the thread ends, and is counted no more.
    fn take(&mut self, now: RealTime) -> VecDeque<Get> {
        let count = self.gets.len().min(TOGETHER);
        if count == 0 {
            self.threads -= 1;
        } else {
            self.moved = Some(now);
        }
        self.gets.drain(..count).collect()
    }
}

impl Inner {
    /// What some keys hold, all at one moment after this was called.
    pub(super) async fn get(self: &Arc<Self>, keys: &[ProfileKey], returning: Returning) -> Reply {
        if keys.len() > TOGETHER {
            // No other read is to wait for it.
            let keys = keys.to_vec();
            return self.read(move |tx| snapshot(tx, &keys, returning)).await;
        }
        loop {
            let (reply, answer) = oneshot::channel();
            let now = real_time();
            let asked = {
                let mut waiting = self.readers.gets.0.lock();
                waiting.push(Get { keys: keys.to_vec(), returning, reply });
                waiting.needs_thread(now)
            };
            if asked {
                let reading = Reading { inner: self.clone(), done: false };
                tokio::task::spawn_blocking(move || reading.run());
            }
            match answer.await {
                Ok(answer) => {
                    self.syncs.seen().await?;
                    return answer;
                }
                // As long as its own thread is to come, it is not given back.
                Err(_) if asked => {
                    let reason = "the runtime is shutting down".into();
                    return Err(StoreError::Unavailable { reason });
                }
                // The threads were of other runtimes, which have shut down.
                Err(_) => {}
            }
        }
    }
}

/// A thread's part in reading, on the runtime of the caller that asked for it. Dropped early (a
/// runtime that shuts down before the thread began) it leaves what waits to the other threads. The
/// last one gives it back, so that no caller waits for ever: a caller of another runtime tries
/// again, and asks for a thread of its own.
struct Reading {
    inner: Arc<Inner>,
    done: bool,
}

impl Reading {
    fn run(mut self) {
        loop {
            let now = real_time();
            let mut gets = self.inner.readers.gets.0.lock().take(now);
            if gets.is_empty() {
                self.done = true;
                return;
            }
            gets.retain(|get| !get.reply.is_closed());
            // Neither an error after which the connection is not used again, nor a panic, spoils
            // any other read.
            while !gets.is_empty() {
                let mut answers = Vec::with_capacity(gets.len());
                let read = catch_unwind(AssertUnwindSafe(|| {
                    self.inner.read_now(|tx| read_all(tx, &mut gets, &mut answers))
                }));
                let read = read.unwrap_or_else(|_| Err(panicked()));
                // The connection is back: a caller that reads again finds it.
                for (reply, snapshot) in answers {
                    drop(reply.send(Ok(snapshot)));
                }
                if let (Err(err), Some(get)) = (read, gets.pop_front()) {
                    drop(get.reply.send(Err(err)));
                }
            }
        }
    }
}

/// Reads until one of them fails, which is the first one then.
fn read_all(
    tx: &mut Tx<'_>,
    gets: &mut VecDeque<Get>,
    answers: &mut Vec<(oneshot::Sender<Reply>, Snapshot)>,
) -> Result<(), Trouble> {
    while let Some(get) = gets.front() {
        let snapshot = snapshot(tx, &get.keys, get.returning)?;
        answers.extend(gets.pop_front().map(|get| (get.reply, snapshot)));
    }
    Ok(())
}

fn snapshot(
    tx: &mut Tx<'_>,
    keys: &[ProfileKey],
    returning: Returning,
) -> Result<Snapshot, Trouble> {
    let states = keys.iter().map(|key| {
        tx.heads.clear();
        tx.key_state(key, returning)
    });
    Ok(Snapshot { states: states.collect::<Result<_, _>>()?, now_ms: tx.now_ms })
}

impl Drop for Reading {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let given_back = {
            let mut waiting = self.inner.readers.gets.0.lock();
            waiting.threads -= 1;
            if waiting.threads > 0 {
                return;
            }
            std::mem::take(&mut waiting.gets)
        };
        // Its callers are woken, and need the lock.
        drop(given_back);
    }
}

/// What the caller of a read that panicked is told.
pub(super) fn panicked() -> StoreError {
    StoreError::Unavailable { reason: "the read panicked".into() }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    use bytes::Bytes;
    use futures_util::{FutureExt as _, future::join_all};
    use rusqlite::Connection;
    use tokio::runtime::{Builder, Runtime};

    use super::*;
    use crate::{
        data_store::{
            DataStore as _, DataStoreExt as _, SqliteOptions, SqliteStore,
            sqlite::answers::tests::first_save,
        },
        env::{Clock, Env, SystemClock, SystemRng},
    };

    const WHOLE: Returning = Returning { value: true, inbox_unless: None };

    fn key(n: usize) -> ProfileKey {
        ProfileKey::new("S", "global", &format!("k{n}")).expect("a valid name")
    }

    fn value(n: usize) -> Bytes {
        Bytes::from(format!("value {n}"))
    }

    /// A store in which each of so many keys has its value.
    async fn filled(path: &std::path::Path, count: usize) -> SqliteStore {
        let store = SqliteStore::open(path, SqliteOptions::default()).expect("the store opens");
        let incarnation = store.identity().await.expect("an identity").incarnation;
        for n in 0..count {
            let commit = first_save(incarnation, &key(n), value(n));
            store.commit_one(commit).await.expect("written");
        }
        store
    }

    #[tokio::test]
    async fn reads_that_share_a_transaction_are_answered_each_for_itself() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("players.db");
        let store = filled(&path, 40).await;
        let damaged = [3, 4, 17, 39];
        let conn = Connection::open(&path).expect("the file");
        for n in damaged {
            let sql = "UPDATE version SET checksum = checksum + 1 WHERE id = \
                (SELECT current FROM head WHERE key = ?1)";
            assert_eq!(conn.execute(sql, [format!("k{n}")]).expect("a row"), 1);
        }
        let read = (0..200).map(|n| {
            let store = store.clone();
            async move { store.read(&[key(n % 40), key(100)], WHOLE).await }
        });
        for (n, read) in join_all(read).await.into_iter().enumerate() {
            match read {
                Err(StoreError::Damaged { key: of, .. }) if damaged.contains(&(n % 40)) => {
                    assert_eq!(of, key(n % 40));
                }
                Ok(read) => {
                    assert!(!damaged.contains(&(n % 40)), "{n}");
                    let values: Vec<_> = read.states.iter().map(|state| &state.value).collect();
                    assert_eq!(values, [&Some(value(n % 40)), &None]);
                }
                other => panic!("{n}: {other:?}"),
            }
        }
        let many: Vec<_> = (40..100).map(key).collect();
        assert_eq!(store.read(&many, WHOLE).await.expect("a read").states.len(), 60);
    }

    /// The system's clock, which panics once when it is told to.
    #[derive(Clone, Default)]
    struct PanickingClock(Arc<AtomicBool>);

    impl Clock for PanickingClock {
        fn unix_ms(&self) -> i64 {
            assert!(!self.0.swap(false, SeqCst), "a panic on purpose");
            SystemClock.unix_ms()
        }
    }

    /// The callers of all reads that shared its transaction were told that the runtime was shutting
    /// down.
    #[tokio::test]
    async fn a_read_that_panics_is_told_so_and_spoils_no_other() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("players.db");
        drop(filled(&path, 3).await);
        let clock = PanickingClock::default();
        let env = Env::new(Arc::new(clock.clone()), Arc::new(SystemRng));
        let options = SqliteOptions { env, ..SqliteOptions::default() };
        let store = SqliteStore::open(&path, options).expect("the store opens");
        let mut answers = Vec::new();
        {
            let mut waiting = store.inner.readers.gets.0.lock();
            for n in 0..3 {
                let (reply, answer) = oneshot::channel();
                waiting.push(Get { keys: vec![key(n)], returning: WHOLE, reply });
                answers.push(answer);
            }
            assert!(waiting.needs_thread(real_time()));
        }
        clock.0.store(true, SeqCst);
        Reading { inner: store.inner.clone(), done: false }.run();
        for (n, answer) in answers.into_iter().enumerate() {
            match answer.await.expect("an answer") {
                Err(StoreError::Unavailable { reason }) => {
                    assert_eq!((n, reason.as_str()), (0, "the read panicked"));
                }
                Ok(read) => {
                    assert_ne!(n, 0);
                    assert_eq!(read.states[0].value, Some(value(n)));
                }
                other => panic!("{n}: {other:?}"),
            }
        }
        assert_eq!(store.inner.readers.gets.0.lock().threads, 0);
        // Of many keys, in a transaction of its own.
        let many: Vec<_> = (0..=TOGETHER).map(key).collect();
        clock.0.store(true, SeqCst);
        match store.read(&many, WHOLE).await {
            Err(StoreError::Unavailable { reason }) => assert_eq!(reason, "the read panicked"),
            other => panic!("{other:?}"),
        }
        assert_eq!(store.read(&many, WHOLE).await.expect("a read").states.len(), many.len());
    }

    #[test]
    fn reads_that_no_caller_waits_for_do_not_pile_up() {
        let mut waiting = Waiting::default();
        let get = |reply| Get { keys: Vec::new(), returning: WHOLE, reply };
        let mut kept = Vec::new();
        for n in 0..100 * MANY {
            let (reply, answer) = oneshot::channel();
            waiting.push(get(reply));
            if n % 100 == 0 {
                kept.push(answer);
            }
        }
        let wanted = waiting.gets.iter().filter(|get| !get.reply.is_closed()).count();
        assert_eq!(wanted, kept.len());
        assert!(waiting.gets.len() <= 3 * MANY, "{} wait", waiting.gets.len());
    }

    /// It waited until more than eight waited.
    #[test]
    fn a_read_that_comes_behind_slow_ones_does_not_wait_for_them() {
        let mut waiting = Waiting::default();
        let ask = |waiting: &mut Waiting, now| {
            let (reply, _) = oneshot::channel();
            waiting.push(Get { keys: Vec::new(), returning: WHOLE, reply });
            waiting.needs_thread(now)
        };
        let began = real_time();
        for _ in 0..PROMPT {
            assert!(ask(&mut waiting, began));
            assert_eq!(waiting.take(began).len(), 1);
        }
        assert!(!ask(&mut waiting, began + SLOW - Duration::from_millis(1)));
        assert!(ask(&mut waiting, began + SLOW));
        // That thread is on its way.
        assert!(!ask(&mut waiting, began + SLOW));
        assert_eq!(waiting.take(began + SLOW).len(), 3);
        // As long as one of them takes reads, no other is needed.
        assert!(!ask(&mut waiting, began + SLOW));
        assert_eq!(waiting.take(began + 2 * SLOW).len(), 1);
        assert!(!ask(&mut waiting, began + 2 * SLOW));
        // At most eight read.
        let more = (3..100_u32).filter(|n| ask(&mut waiting, began + *n * SLOW)).count();
        assert_eq!(more, THREADS - 3);
    }

    #[tokio::test]
    async fn a_read_whose_threads_never_came_is_given_back() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = filled(&dir.path().join("players.db"), 0).await;
        let (reply, answer) = oneshot::channel();
        let waiting = || store.inner.readers.gets.0.lock();
        waiting().gets.push_back(Get { keys: vec![key(1)], returning: WHOLE, reply });
        // Two threads are enough for one read.
        let now = real_time();
        assert_eq!([(); 3].map(|()| waiting().needs_thread(now)), [true, true, false]);
        let reading = || Reading { inner: store.inner.clone(), done: false };
        let counts = || {
            let waiting = waiting();
            (waiting.threads, waiting.gets.len())
        };
        drop(reading());
        assert_eq!(counts(), (1, 1));
        drop(reading());
        assert!(answer.await.is_err());
        assert_eq!(counts(), (0, 0));
        // Nothing of that stays.
        assert_eq!(store.read(&[key(1)], WHOLE).await.expect("a read").states.len(), 1);
    }

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_time().build().expect("a runtime")
    }

    /// It was refused, as if its own runtime were shutting down.
    #[test]
    fn a_read_does_not_end_with_the_runtime_of_another_caller() {
        let (ending, lasting) = (runtime(), runtime());
        let dir = tempfile::tempdir().expect("a folder");
        let store = lasting.block_on(filled(&dir.path().join("players.db"), 2));
        let waiting = || store.inner.readers.gets.0.lock();
        let readings: Vec<_> = (0..PROMPT)
            .map(|_| {
                assert!(waiting().needs_thread(real_time()));
                Reading { inner: store.inner.clone(), done: false }
            })
            .collect();
        // They are still to begin when their runtime ends. A blocking task might begin sooner.
        ending.spawn(async move { readings.into_iter().for_each(Reading::run) });
        // In the future, so that they are not held to be slow, however long this test takes.
        waiting().moved = Some(real_time() + Duration::from_secs(600));
        let keys = [key(0), key(1)];
        let mut reads: Vec<_> = (0..4).map(|_| store.read(&keys, WHOLE)).collect();
        for read in &mut reads {
            assert!(lasting.block_on(async { read.as_mut().now_or_never() }).is_none());
        }
        assert_eq!(waiting().threads, PROMPT);
        drop(ending);
        assert_eq!(waiting().threads, 0);
        for read in lasting.block_on(join_all(reads)) {
            let states = read.expect("a read").states;
            let values: Vec<_> = states.into_iter().map(|state| state.value).collect();
            assert_eq!(values, [Some(value(0)), Some(value(1))]);
        }
    }

    #[test]
    fn a_read_on_a_runtime_that_has_ended_is_refused() {
        let (ended, lasting) = (runtime(), runtime());
        let dir = tempfile::tempdir().expect("a folder");
        let store = lasting.block_on(filled(&dir.path().join("players.db"), 1));
        let (handle, keys) = (ended.handle().clone(), [key(0)]);
        drop(ended);
        {
            let _entered = handle.enter();
            match store.read(&keys, WHOLE).now_or_never() {
                Some(Err(StoreError::Unavailable { reason })) => {
                    assert_eq!(reason, "the runtime is shutting down");
                }
                other => panic!("{other:?}"),
            }
        }
        assert!(lasting.block_on(store.read(&keys, WHOLE)).is_ok());
    }
}
