//! Answering jobs once their transaction has been synced: by the writer, or on a thread that syncs
//! beside it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use tokio::sync::OwnedSemaphorePermit;

use super::{
    Inner,
    busy::real_time,
    queue::{Answer, Reply},
    sync::Written,
};
use crate::data_store::{CommitId, StoreError};

/// Up to how many bytes of commits are freed by the thread that waits for them.
const FREED_BY_CALLERS: usize = 16 << 10;

/// From so many jobs on a transaction is synced beside the writer, even if no other job waits.
const FEW: usize = 8;

/// How long a failed sync waits for the writer's connection, to be made good.
const SECURE_WAIT: Duration = Duration::from_secs(1);

impl Inner {
    /// Answers jobs of a transaction that is behind its `COMMIT`, now or when it has been synced.
    /// `sync` does that on this thread, and looks whether the log is still there.
    pub(super) fn answer_when_synced(
        self: &Arc<Self>,
        written: Written,
        sync: impl FnOnce() -> Result<(), String>,
    ) {
        let syncs = &self.syncs;
        let alone = written.len() < FEW && self.queue.jobs.load(SeqCst) == 0;
        if syncs.is_settled() || (alone && !syncs.are_under_way()) {
            // Also what another thread has synced by now: the log may have been taken away before.
            self.answer(written, sync().as_ref().copied());
        } else if syncs.push(written) {
            let syncing = Syncing(self.clone());
            tokio::task::spawn_blocking(move || drop(syncing));
        }
    }

    /// Answers the jobs of one transaction.
    fn answer(&self, written: Written, synced: Result<(), &String>) {
        let seconds = metrics::histogram!("profilestore_sqlite_commit_seconds");
        let now = self.options.env.now();
        // Given back in one piece.
        let mut room: Option<OwnedSemaphorePermit> = None;
        for (mut job, mut replies) in written {
            seconds.record(now.saturating_duration_since(job.since).as_secs_f64());
            match (&mut room, job.room.take()) {
                (Some(room), Some(more)) => room.merge(more),
                (none, more) => *none = none.take().or(more),
            }
            if let Err(reason) = synced {
                for (reply, commit) in replies.iter_mut().zip(&job.commits) {
                    not_synced(reply, commit.id, reason);
                }
            }
            // The caller, who may have gone, frees what it made; not much, since its room is free.
            let small = job.bytes <= FREED_BY_CALLERS;
            let _commits = if small { std::mem::take(&mut job.commits) } else { Vec::new() };
            drop(job.reply.send(Answer { replies, _commits }));
        }
    }
}

/// What is told about a commit whose transaction may not be on the disk. A conflict shows what an
/// earlier commit of the same transaction wrote: also that a message was sent, which its sender
/// takes for done.
fn not_synced(reply: &mut Reply, commit: CommitId, reason: &str) {
    let reason = reason.to_owned();
    match reply {
        Ok(_) => *reply = Err(StoreError::Indeterminate { commit, reason }),
        Err(StoreError::Conflict(_)) => *reply = Err(StoreError::Unavailable { reason }),
        Err(_) => {}
    }
}

/// A thread's work of syncing what is written. Done when it is dropped, so that a runtime which
/// shuts down before the thread began leaves no caller without an answer.
struct Syncing(Arc<Inner>);

impl Syncing {
    fn run(&self) {
        let inner = &self.0;
        while let Some(written) = inner.syncs.take() {
            let begun = real_time();
            let synced = inner.syncs.sync();
            // The log may have been taken away before it was synced.
            let synced = synced.and_then(|()| inner.still_there().map_err(|err| err.to_string()));
            inner.syncs.took(&written, begun.elapsed());
            for written in written {
                inner.answer(written, synced.as_ref().copied());
            }
            // Not to wait for the next commit: reads are refused until then. The writer sees to it
            // by itself, and may be this very thread.
            if inner.syncs.has_failed()
                && let Some(mut writer) = inner.writer.try_lock_for(SECURE_WAIT)
                && let Some(writer) = writer.as_mut()
                && let Err(err) = writer.secure(inner)
            {
                tracing::warn!(%err, "a failed sync could not be made good yet");
            }
        }
    }
}

impl Drop for Syncing {
    /// Goes on after a panic, which a program's recorder of metrics may cause: what is handed over
    /// meanwhile and later is to be answered too.
    fn drop(&mut self) {
        while catch_unwind(AssertUnwindSafe(|| self.run())).is_err() {
            self.0.syncs.panicked();
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::AtomicBool;

    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use metrics::{
        Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
        atomics::AtomicU64, with_local_recorder,
    };
    use tokio::{sync::oneshot, time::Instant};
    use uuid::Uuid;

    use super::*;
    use crate::{
        data_store::{
            Cause, Change, Commit, CommitReply, Conflict, ConflictKind, Incarnation, NewValue,
            Returning, SqliteOptions, SqliteStore, sqlite::queue::Job,
        },
        env::Env,
        key::ProfileKey,
    };

    /// Jobs without commits, which no caller waits for.
    pub(in super::super) fn written(jobs: usize, bytes: usize) -> Written {
        let job = |_| -> (Job, Vec<Reply>) {
            let (reply, _) = oneshot::channel();
            let (since, queued) = (Instant::now(), real_time());
            let (commits, turn, room) = (Vec::new(), Arc::new(AtomicBool::new(true)), None);
            (Job { commits, bytes, since, queued, turn, reply, room }, Vec::new())
        };
        (0..jobs).map(job).collect()
    }

    /// The first version of a key.
    pub(in super::super) fn first_save(
        incarnation: Incarnation,
        key: &ProfileKey,
        value: Bytes,
    ) -> Commit {
        let write = Change::Write {
            key: key.clone(),
            epoch: 0,
            version: 0,
            value: NewValue::Bytes(value),
            user_ids: Vec::new(),
            cause: Cause::Save,
            author: String::new(),
            keep_previous: false,
            seal: false,
            imported: None,
        };
        let (id, changes) = (CommitId(Env::system().uuid()), vec![write]);
        let returning = Returning::HEAD;
        Commit { id, incarnation, from: None, changes, returning, fingerprint: None }
    }

    /// Hands over many jobs on a runtime that has ended, where no thread begins. The first one is
    /// answered.
    fn is_answered_on_an_ended_runtime(inner: &Arc<Inner>) -> bool {
        let (mut jobs, (reply, answer)) = (written(FEW, 1), oneshot::channel());
        jobs[0].0.reply = reply;
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let handle = runtime.handle().clone();
        drop(runtime);
        let _entered = handle.enter();
        inner.answer_when_synced(jobs, || panic!("they are many"));
        answer.now_or_never().is_some_and(|answer| answer.is_ok())
    }

    /// Its callers would have waited for ever.
    #[test]
    fn a_sync_is_made_though_the_runtime_ends_before_its_thread_begins() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("players.db");
        let store = SqliteStore::open(&path, SqliteOptions::default()).expect("the store opens");
        let inner = &store.inner;
        inner.syncs.begin();
        inner.syncs.end();
        assert!(is_answered_on_an_ended_runtime(inner));
        assert!(inner.syncs.is_settled());
    }

    /// It was answered for without another look at the files.
    #[test]
    fn a_transaction_that_is_synced_by_now_is_answered_after_a_look_at_the_files() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("players.db");
        let store = SqliteStore::open(&path, SqliteOptions::default()).expect("the store opens");
        let mut jobs = written(FEW, 1);
        let (reply, answer) = oneshot::channel();
        let key = ProfileKey::new("S", "global", "k").expect("a valid name");
        let commit = first_save(Incarnation(Uuid::from_u128(1)), &key, Bytes::new());
        (jobs[0].0.reply, jobs[0].0.commits) = (reply, vec![commit]);
        jobs[0].1.push(Ok(CommitReply {
            now_ms: 1,
            already_applied: false,
            states: Vec::new(),
            server: None,
            notices: Vec::new(),
            notified: Vec::new(),
        }));
        assert!(store.inner.syncs.is_settled());
        store.inner.answer_when_synced(jobs, || Err("the log is gone".into()));
        let replies = answer.now_or_never().expect("answered").expect("an answer").replies;
        assert!(matches!(replies[..], [Err(StoreError::Indeterminate { .. })]), "{replies:?}");
    }

    /// A sender took it for done that its message had been sent before, by a commit that the disk
    /// may not have.
    #[test]
    fn a_conflict_with_what_is_not_synced_is_not_told() {
        let (kind, state, server) = (ConflictKind::MessageSeen, None, None);
        let conflict = Conflict { kind, now_ms: 1, state, server };
        let mut reply = Err(StoreError::Conflict(Box::new(conflict)));
        not_synced(&mut reply, CommitId(Uuid::nil()), "the log is gone");
        assert!(matches!(reply, Err(StoreError::Unavailable { .. })), "{reply:?}");
    }

    /// Panics where the jobs that were synced are counted.
    pub(in super::super) struct Panicking;

    impl Recorder for Panicking {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            Counter::noop()
        }
        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            panic!("a panic on purpose")
        }
    }

    /// Counts one counter.
    pub(in super::super) struct Counting {
        name: &'static str,
        count: Arc<AtomicU64>,
    }

    impl Counting {
        /// And what it has counted.
        pub(in super::super) fn of(name: &'static str) -> (Self, Arc<AtomicU64>) {
            let count = Arc::<AtomicU64>::default();
            (Self { name, count: count.clone() }, count)
        }
    }

    impl Recorder for Counting {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            let is_it = key.name() == self.name;
            if is_it { Counter::from_arc(self.count.clone()) } else { Counter::noop() }
        }
        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::noop()
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    /// All later callers would have waited for ever.
    #[test]
    fn syncs_go_on_after_a_panic_in_one() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("players.db");
        let store = SqliteStore::open(&path, SqliteOptions::default()).expect("the store opens");
        let inner = &store.inner;
        let push = || {
            let (mut jobs, (reply, answer)) = (written(1, 1), oneshot::channel());
            jobs[0].0.reply = reply;
            (inner.syncs.push(jobs), answer)
        };
        let (is_first, answer) = push();
        assert!(is_first);
        with_local_recorder(&Panicking, || drop(Syncing(inner.clone())));
        assert!(answer.now_or_never().expect("its sender is gone").is_err());
        assert_eq!(inner.syncs.unsynced(), Some(0));
        let (is_first, answer) = push();
        assert!(is_first, "the thread has ended");
        // A thread that unwinds anyway, since it could not begin.
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _syncing = Syncing(inner.clone());
            assert!(!inner.syncs.is_settled(), "a panic on purpose");
        }));
        assert!(unwound.is_err());
        assert!(answer.now_or_never().expect("answered").is_ok());
    }

    /// The thread waited for a lock that it held itself.
    #[test]
    fn a_failed_sync_in_the_writers_place_does_not_wait_for_the_writer() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("players.db");
        let store = SqliteStore::open(&path, SqliteOptions::default()).expect("the store opens");
        let inner = &store.inner;
        let mut writing = inner.writer.lock();
        inner.syncs.begin();
        inner.syncs.end();
        inner.syncs.fail();
        assert!(is_answered_on_an_ended_runtime(inner));
        assert!(inner.syncs.has_failed());
        writing.as_mut().expect("a writer").secure(inner).expect("made good");
        assert!(inner.syncs.is_settled());
    }
}
