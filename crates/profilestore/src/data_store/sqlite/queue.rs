//! Commits that wait for the writer, and those of them that share its next transaction.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant as RealTime},
};

use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::Instant,
};

use crate::data_store::{Commit, CommitReply, StoreError};

/// How many bytes of commits may wait; beyond that callers wait for room. Renewals do not.
pub(super) const QUEUE_BYTES: usize = 64 << 20;

/// How many bytes of values may share a transaction, besides one commit that has more by itself.
pub(super) const BATCH_BYTES: usize = 8 << 20;

/// The least share of what waits or is being synced that a transaction leaves to the next ones.
const LEAST_JOBS: usize = 8;

pub(super) type Reply = Result<CommitReply, StoreError>;

pub(super) struct Job {
    pub(super) commits: Vec<Commit>,
    pub(super) bytes: usize,
    pub(super) since: Instant,
    /// The same moment on a clock that goes on while a test's stands still.
    pub(super) queued: RealTime,
    /// Set by whichever comes first: the transaction that takes it, or its caller when the caller's
    /// time is up.
    pub(super) turn: Arc<AtomicBool>,
    pub(super) reply: oneshot::Sender<Answer>,
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// What came of a job's commits, and the commits.
pub(super) struct Answer {
    pub(super) replies: Vec<Reply>,
    pub(super) _commits: Vec<Commit>,
}

impl Job {
    /// Answers that nothing was applied. The caller may have gone.
    pub(super) fn refuse(self, err: &StoreError) {
        let replies = self.commits.iter().map(|_| Err(err.clone())).collect();
        drop(self.reply.send(Answer { replies, _commits: self.commits }));
    }
}

pub(super) struct Queue {
    pub(super) waiting: Mutex<Waiting>,
    /// How many jobs wait, for a look without the lock.
    pub(super) jobs: AtomicUsize,
    pub(super) room: Arc<Semaphore>,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            jobs: AtomicUsize::new(0),
            room: Arc::new(Semaphore::new(QUEUE_BYTES)),
        }
    }
}

impl Queue {
    /// True when no writer drains the queue, and one is to be started.
    pub(super) fn push(&self, job: Job, urgent: bool) -> bool {
        let mut waiting = self.waiting.lock();
        let queue = if urgent { &mut waiting.urgent } else { &mut waiting.others };
        queue.push_back(job);
        self.jobs.store(waiting.len(), SeqCst);
        !std::mem::replace(&mut waiting.draining, true)
    }

    /// The jobs of the next transaction: of so many commits at most. Where transactions are synced
    /// beside the writer, of no more than half of the jobs that wait or are `unsynced`: the other
    /// half is synced while this one is written, and the other way round.
    pub(super) fn take(&self, commits: usize, unsynced: Option<usize>) -> Vec<Job> {
        let mut waiting = self.waiting.lock();
        let half = |unsynced: usize| (waiting.len() + unsynced).div_ceil(2).max(LEAST_JOBS);
        let jobs = unsynced.map_or(usize::MAX, half);
        let jobs = waiting.take(jobs, commits);
        self.jobs.store(waiting.len(), SeqCst);
        jobs
    }
}

#[derive(Default)]
pub(super) struct Waiting {
    /// Jobs with a renewal.
    pub(super) urgent: VecDeque<Job>,
    pub(super) others: VecDeque<Job>,
    /// A writer drains the queue, or was started to.
    pub(super) draining: bool,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.urgent.len() + self.others.len()
    }

    /// Takes out what has waited for the file's lock for so long, and what no caller waits for any
    /// more. `busy_since`: since when the lock has not been free.
    pub(super) fn overdue(&mut self, busy_since: RealTime, limit: Duration) -> Vec<Job> {
        let is_overdue =
            |job: &Job| job.turn.load(SeqCst) || job.queued.max(busy_since).elapsed() >= limit;
        let mut found = Vec::new();
        for queue in [&mut self.urgent, &mut self.others] {
            if !queue.iter().any(is_overdue) {
                continue;
            }
            for job in std::mem::take(queue) {
                if is_overdue(&job) { found.push(job) } else { queue.push_back(job) }
            }
        }
        found
    }

    /// The next jobs that share a transaction, renewals first; a job is never split. Those whose
    /// callers have given up are dropped.
    fn take(&mut self, most: usize, commits: usize) -> Vec<Job> {
        let capacity = self.len().min(commits).min(most);
        let (mut jobs, mut count, mut bytes) = (Vec::with_capacity(capacity), 0, 0);
        loop {
            let queue = if self.urgent.is_empty() { &mut self.others } else { &mut self.urgent };
            let fits = |job: &Job| {
                count == 0
                    || (count + job.commits.len() <= commits && bytes + job.bytes <= BATCH_BYTES)
            };
            if jobs.len() >= most || !queue.front().is_some_and(fits) {
                return jobs;
            }
            let Some(job) = queue.pop_front() else { return jobs };
            if job.turn.swap(true, SeqCst) {
                continue;
            }
            count += job.commits.len();
            bytes += job.bytes;
            jobs.push(job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_store::sqlite::busy::real_time;

    fn job() -> Job {
        let (reply, _) = oneshot::channel();
        let (since, queued) = (Instant::now(), real_time());
        let (commits, turn, room) = (Vec::new(), Arc::default(), None);
        Job { commits, bytes: 1, since, queued, turn, reply, room }
    }

    #[test]
    fn a_transaction_leaves_half_of_what_is_under_way_to_the_next_one() {
        let queue = Queue::default();
        let push = |jobs| {
            for _ in 0..jobs {
                queue.push(job(), false);
            }
        };
        push(32);
        let take = |unsynced| queue.take(256, unsynced).len();
        assert_eq!([take(Some(0)), take(Some(16))], [16, 16]);
        // Few are not worth a second sync.
        push(12);
        assert_eq!([take(Some(0)), take(Some(8)), take(Some(12))], [LEAST_JOBS, 4, 0]);
        push(32);
        assert_eq!(take(None), 32);
    }
}
