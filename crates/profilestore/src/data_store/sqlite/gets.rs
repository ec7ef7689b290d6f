//! Reads of what keys hold. Those that wait share a thread and a read transaction, as commits share
//! theirs: handing each to a thread of its own costs more than the read.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Inner, Trouble, reader::panicked, state::Tx};
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
    fn needs_thread(&mut self) -> bool {
        let few = self.threads < PROMPT || self.gets.len() > EACH * self.threads;
        let needs = few && self.threads < THREADS;
        self.threads += usize::from(needs);
        needs
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
        let (reply, answer) = oneshot::channel();
        let needs_thread = {
            let mut waiting = self.readers.gets.0.lock();
            waiting.push(Get { keys: keys.to_vec(), returning, reply });
            waiting.needs_thread()
        };
        if needs_thread {
            let reading = Reading { inner: self.clone(), done: false };
            tokio::task::spawn_blocking(move || reading.run());
        }
        answer.await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable { reason: "the runtime is shutting down".into() })
        })
    }
}

/// A thread's part in reading. Dropped early (a runtime that shuts down before the thread began) it
/// leaves what waits to the other threads; the last one refuses it, so that no caller waits for
/// ever.
struct Reading {
    inner: Arc<Inner>,
    done: bool,
}

impl Reading {
    fn run(mut self) {
        loop {
            let mut gets: VecDeque<Get> = {
                let mut waiting = self.inner.readers.gets.0.lock();
                let count = waiting.gets.len().min(TOGETHER);
                if count == 0 {
                    waiting.threads -= 1;
                    self.done = true;
                    return;
                }
                waiting.gets.drain(..count).collect()
            };
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
        let mut waiting = self.inner.readers.gets.0.lock();
        waiting.threads -= 1;
        if waiting.threads == 0 {
            waiting.gets.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

    use bytes::Bytes;
    use futures_util::future::join_all;
    use rusqlite::Connection;

    use super::*;
    use crate::{
        data_store::{
            Cause, Change, Commit, CommitId, DataStore as _, DataStoreExt as _, NewValue,
            SqliteOptions, SqliteStore,
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
            let change = Change::Write {
                key: key(n),
                epoch: 0,
                version: 0,
                value: NewValue::Bytes(value(n)),
                user_ids: Vec::new(),
                cause: Cause::Save,
                author: String::new(),
                keep_previous: false,
                seal: false,
                imported: None,
            };
            let id = CommitId(Env::system().uuid());
            let (changes, returning) = (vec![change], Returning::HEAD);
            let commit =
                Commit { id, incarnation, from: None, changes, returning, fingerprint: None };
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
            assert!(waiting.needs_thread());
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

    #[tokio::test]
    async fn a_read_whose_thread_never_came_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = filled(&dir.path().join("players.db"), 0).await;
        let (reply, answer) = oneshot::channel();
        let waiting = || store.inner.readers.gets.0.lock();
        waiting().gets.push_back(Get { keys: vec![key(1)], returning: WHOLE, reply });
        // Two threads are enough for one read.
        assert_eq!([(); 3].map(|()| waiting().needs_thread()), [true, true, false]);
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
}
