//! Commits that wait for the writer, and those of them that share its next transaction.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
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
const BATCH_BYTES: usize = 8 << 20;

/// After how many jobs in a transaction the writer leaves their callers a moment, and how often it
/// lets others run meanwhile.
const GATHER_FROM: usize = 8;
const GATHER_TURNS: u32 = 200;

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
    pub(super) reply: oneshot::Sender<Vec<Reply>>,
    pub(super) _room: Option<OwnedSemaphorePermit>,
}

impl Job {
    /// Answers that nothing was applied. The caller may have gone.
    pub(super) fn refuse(self, err: &StoreError) {
        let replies = self.commits.iter().map(|_| Err(err.clone())).collect();
        drop(self.reply.send(replies));
    }
}

pub(super) struct Queue {
    pub(super) waiting: Mutex<Waiting>,
    pub(super) room: Arc<Semaphore>,
}

impl Default for Queue {
    fn default() -> Self {
        Self { waiting: Mutex::default(), room: Arc::new(Semaphore::new(QUEUE_BYTES)) }
    }
}

impl Queue {
    /// After a transaction of many jobs, leaves their callers a moment to come back, so that the
    /// next one is not of a few only: a transaction costs a sync, whatever its size. Takes
    /// microseconds when the callers do not come.
    pub(super) fn gather(&self, last: usize) {
        if last < GATHER_FROM {
            return;
        }
        for _ in 0..GATHER_TURNS {
            let waiting = self.waiting.lock();
            if waiting.urgent.len() + waiting.others.len() >= last / 4 * 3 {
                return;
            }
            drop(waiting);
            std::thread::yield_now();
        }
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
    pub(super) fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.others.is_empty()
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
    pub(super) fn take(&mut self, commits: usize) -> Vec<Job> {
        let (mut jobs, mut count, mut bytes) = (Vec::new(), 0, 0);
        loop {
            let queue = if self.urgent.is_empty() { &mut self.others } else { &mut self.urgent };
            let fits = |job: &Job| {
                count == 0
                    || (count + job.commits.len() <= commits && bytes + job.bytes <= BATCH_BYTES)
            };
            if !queue.front().is_some_and(fits) {
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
