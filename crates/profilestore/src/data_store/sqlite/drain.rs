//! Handing commits to the writer, and draining its queue into transactions.
//!
//! A transaction first gets the file's write lock and only then takes commits out of the queue. So
//! while another process holds the lock, commits are still waiting: each is refused when its own
//! time is up, for certain and however many wait before it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use parking_lot::MutexGuard;
use tokio::{sync::oneshot, time::Instant};

use super::{
    Inner, Trouble,
    busy::{Busy, by, real_time},
    queue::{Job, QUEUE_BYTES, Reply},
    state::Tx,
    writer::{Begun, Failed},
};
use crate::data_store::{Commit, StoreError, rules};

impl Inner {
    /// Hands commits to the writer and waits for the outcome, until the deadline if there is one.
    pub(super) async fn submit(
        self: &Arc<Self>,
        commits: Vec<Commit>,
        deadline: Option<Instant>,
    ) -> Vec<Reply> {
        let urgent = commits.iter().any(|commit| rules::renewed(commit).is_some());
        // Most often it is one.
        let first = commits.first().map(|commit| commit.id);
        let others: Vec<_> = commits.iter().skip(1).map(|commit| commit.id).collect();
        let ids = || first.iter().chain(&others);
        let refused = |reason: &str| {
            ids().map(|_| Err(StoreError::Unavailable { reason: reason.into() })).collect()
        };
        let bytes: usize = commits.iter().map(Commit::bytes).sum();
        let room = if urgent {
            None
        } else {
            let permits = u32::try_from(bytes.min(QUEUE_BYTES)).unwrap_or(1);
            match by(deadline, self.queue.room.clone().acquire_many_owned(permits)).await {
                Some(room) => room.ok(),
                None => return refused("too many commits waited before this one"),
            }
        };
        let (reply, mut answer) = oneshot::channel();
        let turn = Arc::new(AtomicBool::new(false));
        let (since, queued) = (self.options.env.now(), real_time());
        let job = Job { commits, bytes, since, queued, turn: turn.clone(), reply, room };
        if self.queue.push(job, urgent) {
            let draining = Draining { inner: self.clone(), done: false };
            tokio::task::spawn_blocking(move || draining.run());
        }
        let unknown = |reason: &str| {
            let unknown =
                |commit: &_| StoreError::Indeterminate { commit: *commit, reason: reason.into() };
            ids().map(|id| Err(unknown(id))).collect()
        };
        match by(deadline, &mut answer).await {
            Some(Ok(answer)) => answer.replies,
            Some(Err(_)) => unknown("the writer stopped in the middle"),
            None if turn.swap(true, SeqCst) => unknown("the disk did not answer in time"),
            None => refused("the file was locked, or others were written, until it was too late"),
        }
    }

    /// Runs a write of our own in a transaction, behind whatever is being written.
    pub(super) async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        write: impl FnOnce(&mut Tx<'_>) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            let mut writer = inner.writer.lock();
            let Some(writer) = writer.as_mut() else { return Err(inner.no_writer()) };
            let mut wrote = None;
            let done = writer.transaction(&inner, |tx| {
                wrote = Some(write(tx)?);
                Ok(true)
            });
            match (done, wrote) {
                (Ok(()), Some(wrote)) => Ok(wrote),
                (Err(Failed::All(err) | Failed::One(err) | Failed::Full(err)), _) => Err(err),
                (Err(Failed::Unknown(reason)), _) => Err(StoreError::Unavailable { reason }),
                (Ok(()), None) => {
                    Err(StoreError::Unavailable { reason: "the write did not run".into() })
                }
            }
        });
        task.await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable { reason: "the runtime is shutting down".into() })
        })
    }
}

/// The right to drain the queue. Dropped early (a panic, a runtime that shuts down before the task
/// began) it refuses what waits, so that no caller waits for ever.
struct Draining {
    inner: Arc<Inner>,
    done: bool,
}

impl Draining {
    fn run(mut self) {
        let inner = self.inner.clone();
        let mut writer = inner.writer.lock();
        let mut busy = None::<Busy>;
        loop {
            // A caller that waits for the writer, a sweep say, comes in between two transactions.
            MutexGuard::bump(&mut writer);
            {
                let mut waiting = inner.queue.waiting.lock();
                metrics::gauge!("profilestore_sqlite_queue_jobs").set(waiting.len() as f64);
                waiting.draining = waiting.len() > 0;
                if !waiting.draining {
                    drop(waiting);
                    self.done = true;
                    return;
                }
            }
            let begun = match writer.as_mut() {
                Some(writer) => writer.begin(&inner),
                None => Err(Failed::All(inner.no_writer())),
            };
            if let Ok(Begun::Busy(err)) = begun {
                let busy = busy.get_or_insert_with(Busy::default);
                let overdue =
                    inner.queue.waiting.lock().overdue(busy.since, inner.options.lock_wait());
                if !overdue.is_empty() {
                    let err = busy.trouble(&inner, err);
                    overdue.into_iter().for_each(|job| job.refuse(&err));
                }
                busy.wait();
                continue;
            }
            busy = None;
            let jobs = inner.queue.take(inner.options.batch, inner.syncs.unsynced());
            match (writer.as_mut(), begun) {
                (Some(writer), Ok(_)) if jobs.is_empty() => writer.roll_back(),
                (Some(writer), Ok(_)) => writer.run(&inner, jobs),
                (_, Err(Failed::All(err) | Failed::One(err) | Failed::Full(err))) => {
                    jobs.into_iter().for_each(|job| job.refuse(&err))
                }
                _ => jobs.into_iter().for_each(|job| job.refuse(&inner.no_writer())),
            }
        }
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        // After a panic behind a `COMMIT`: reads wait for that transaction, and no other may come.
        drop(self.inner.syncs.sync());
        let refused = {
            let mut waiting = self.inner.queue.waiting.lock();
            waiting.draining = false;
            let urgent: Vec<_> = waiting.urgent.drain(..).collect();
            urgent.into_iter().chain(waiting.others.drain(..)).collect::<Vec<_>>()
        };
        let err = StoreError::Unavailable {
            reason: "the writer stopped before the commit's turn".into(),
        };
        refused.into_iter().for_each(|job| job.refuse(&err));
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use metrics::with_local_recorder;
    use uuid::Uuid;

    use super::*;
    use crate::{
        data_store::{
            Change, DataStore as _, Returning, ServerId, SqliteOptions, SqliteStore,
            sqlite::answers::tests::{Panicking, first_save},
        },
        key::ProfileKey,
    };

    #[tokio::test]
    async fn what_waits_for_the_writer_is_bounded_by_its_bytes_and_a_renewal_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("players.db");
        let store = SqliteStore::open(path, SqliteOptions::default()).expect("the store opens");
        let incarnation = store.identity().await.expect("an identity").incarnation;
        let value = Bytes::from(vec![0u8; QUEUE_BYTES * 5 / 8]);
        let save = |name: &str| {
            let key = ProfileKey::new("S", "global", name).expect("a valid name");
            first_save(incarnation, &key, value.clone())
        };
        let id = ServerId(Uuid::from_u128(7));
        let renew = Change::RenewServer { id, revision: 1, host: None, acknowledged: Vec::new() };
        let renewal = Commit { changes: vec![renew], ..save("a") };
        let inner = &store.inner;
        // None of them is written.
        let writing = inner.writer.lock();
        let submit = |commit| Box::pin(inner.submit(vec![commit], None));
        let waiting = || inner.queue.jobs.load(SeqCst);
        let (mut one, mut two, mut renewing) =
            (submit(save("a")), submit(save("b")), submit(renewal));
        assert!(one.as_mut().now_or_never().is_none());
        assert_eq!(waiting(), 1);
        assert!(two.as_mut().now_or_never().is_none());
        assert_eq!(waiting(), 1, "the second one waits for room, and not in the queue");
        assert!(renewing.as_mut().now_or_never().is_none());
        assert_eq!(waiting(), 2);
        // The renewal goes first, alone, then the first save; so there is room again.
        drop(inner.queue.take(256, None));
        drop(inner.queue.take(256, None));
        assert_eq!(waiting(), 0);
        assert!(two.as_mut().now_or_never().is_none());
        assert_eq!(waiting(), 1);
        drop(inner.queue.take(256, None));
        drop(writing);
    }

    /// A read would have waited until the next commit, which may never come.
    #[tokio::test]
    async fn what_was_committed_before_a_panic_of_the_writer_is_synced() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("players.db");
        let store = SqliteStore::open(path, SqliteOptions::default()).expect("the store opens");
        let incarnation = store.identity().await.expect("an identity").incarnation;
        let key = ProfileKey::new("S", "global", "k").expect("a valid name");
        let (reply, answer) = oneshot::channel();
        let (commits, turn, room) =
            (vec![first_save(incarnation, &key, "1".into())], Arc::default(), None);
        let (since, queued) = (Instant::now(), real_time());
        let inner = &store.inner;
        assert!(
            inner.queue.push(Job { commits, bytes: 1, since, queued, turn, reply, room }, false)
        );
        let draining = Draining { inner: inner.clone(), done: false };
        let run = || with_local_recorder(&Panicking, || draining.run());
        assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        assert!(answer.await.is_err());
        assert!(inner.syncs.is_settled());
        let read = store.read(&[key], Returning::HEAD).await.expect("a read");
        assert_eq!(read.states[0].version, 1, "it was committed");
    }
}
