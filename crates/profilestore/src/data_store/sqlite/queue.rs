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

    /// The jobs of the next transaction.
    pub(super) fn take(&self, commits: usize) -> Vec<Job> {
        let mut waiting = self.waiting.lock();
        let jobs = waiting.take(commits);
        self.jobs.store(waiting.len(), SeqCst);
        jobs
    }

    /// After a transaction of many jobs, leaves their callers a moment to come back, so that the
    /// next one is not of a few only: a transaction costs a sync, whatever its size. Takes
    /// microseconds when the callers do not come.
    pub(super) fn gather(&self, last: usize) {
        if last < GATHER_FROM {
            return;
        }
        for _ in 0..GATHER_TURNS {
            if self.jobs.load(SeqCst) >= last / 4 * 3 {
                return;
            }
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
    fn take(&mut self, commits: usize) -> Vec<Job> {
        let (mut jobs, mut count, mut bytes) = (Vec::with_capacity(self.len().min(commits)), 0, 0);
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
