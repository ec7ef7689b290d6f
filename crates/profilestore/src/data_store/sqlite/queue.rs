//! Commits that wait for the writer, and those of them that share its next transaction.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant as RealTime},
};

use parking_lot::{Condvar, Mutex};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::Instant,
};

use crate::data_store::{Commit, CommitReply, StoreError};

/// How many bytes of commits may wait; beyond that callers wait for room. Renewals do not.
pub(super) const QUEUE_BYTES: usize = 64 << 20;

/// How many bytes of values may share a transaction, besides one commit that has more by itself.
const BATCH_BYTES: usize = 8 << 20;

/// After how many jobs in a transaction the writer waits for their callers to come back, and for
/// what share of the time that its `COMMIT` took.
const GATHER_FROM: usize = 8;
const GATHER_SHARE: u32 = 8;

/// A shorter wait is of no use: to wake a thread takes as long.
const GATHER_LEAST: Duration = Duration::from_micros(100);

/// A disk that stalls once must not make the writer wait long afterwards.
const GATHER_MOST: Duration = Duration::from_millis(5);

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

/// Which jobs the writer waits for before its next transaction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Expected {
    jobs: usize,
    within: Duration,
}

impl Expected {
    /// After a transaction of these jobs, whose `COMMIT` took so long, while `waiting` others came.
    /// At most `commits` share a transaction.
    pub(super) fn after(
        jobs: &[Job],
        waiting: usize,
        committing: Duration,
        commits: usize,
    ) -> Self {
        let within = (committing / GATHER_SHARE).min(GATHER_MOST);
        let bytes: usize = jobs.iter().map(|job| job.bytes).sum();
        // With so much data a sync is a small part of a transaction.
        if jobs.len() < GATHER_FROM || bytes > BATCH_BYTES / 2 || within < GATHER_LEAST {
            return Self::default();
        }
        Self { jobs: (jobs.len() + waiting).min(commits), within }
    }
}

pub(super) struct Queue {
    pub(super) waiting: Mutex<Waiting>,
    /// Wakes the writer that waits for expected jobs.
    enough: Condvar,
    /// How many jobs wait, for a look without the lock.
    pub(super) jobs: AtomicUsize,
    pub(super) room: Arc<Semaphore>,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            enough: Condvar::new(),
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
        if waiting.wanted.is_some_and(|wanted| urgent || waiting.len() >= wanted) {
            waiting.wanted = None;
            self.enough.notify_one();
        }
        !std::mem::replace(&mut waiting.draining, true)
    }

    /// The jobs of the next transaction.
    pub(super) fn take(&self, commits: usize) -> Vec<Job> {
        let mut waiting = self.waiting.lock();
        let jobs = waiting.take(commits);
        self.jobs.store(waiting.len(), SeqCst);
        jobs
    }

    /// Leaves the callers of the last transaction time to come back, so that the next one is not of
    /// a few only: a transaction costs a sync, whatever its size. Sleeps meanwhile, because the
    /// scheduler may put a thread that yields far behind the others. Ends once so many jobs wait
    /// as are expected, or a renewal, which waits for none.
    pub(super) fn gather(&self, expected: Expected) {
        if self.jobs.load(SeqCst) >= expected.jobs {
            return;
        }
        let mut waiting = self.waiting.lock();
        if !waiting.urgent.is_empty() || waiting.len() >= expected.jobs {
            return;
        }
        waiting.wanted = Some(expected.jobs);
        self.enough.wait_for(&mut waiting, expected.within);
        waiting.wanted = None;
    }
}

#[derive(Default)]
pub(super) struct Waiting {
    /// Jobs with a renewal.
    pub(super) urgent: VecDeque<Job>,
    pub(super) others: VecDeque<Job>,
    /// A writer drains the queue, or was started to.
    pub(super) draining: bool,
    /// It waits until there are so many jobs.
    wanted: Option<usize>,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_store::sqlite::busy::real_time;

    fn job(bytes: usize) -> Job {
        let (reply, _) = oneshot::channel();
        let (since, queued) = (Instant::now(), real_time());
        let (commits, turn, room) = (Vec::new(), Arc::default(), None);
        Job { commits, bytes, since, queued, turn, reply, room }
    }

    #[test]
    fn the_writer_goes_on_as_soon_as_the_expected_jobs_wait() {
        let queue = Queue::default();
        // None are expected.
        queue.gather(Expected::default());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..10 {
                    queue.push(job(1), false);
                }
            });
            let expected = Expected { jobs: 10, within: Duration::from_secs(600) };
            queue.gather(expected);
            assert_eq!(queue.take(256).len(), 10);
        });
    }

    #[test]
    fn a_renewal_does_not_wait_for_callers_that_are_expected_back() {
        let queue = Queue::default();
        let expected = Expected { jobs: 10, within: Duration::from_secs(600) };
        std::thread::scope(|scope| {
            scope.spawn(|| queue.push(job(1), true));
            // It comes meanwhile.
            queue.gather(expected);
            assert_eq!(queue.waiting.lock().len(), 1);
        });
        // It waits already.
        queue.gather(expected);
        assert_eq!(queue.take(256).len(), 1);
    }

    #[test]
    fn a_disk_that_stalled_once_does_not_make_the_writer_wait_long() {
        let jobs: Vec<_> = (0..9).map(|_| job(1)).collect();
        let stalled = Expected::after(&jobs, 0, Duration::from_secs(14), 256);
        assert_eq!(stalled.within, GATHER_MOST);
    }

    #[test]
    fn the_writer_goes_on_without_jobs_that_do_not_come() {
        let queue = Queue::default();
        queue.push(job(1), false);
        let expected = Expected { jobs: 2, within: Duration::from_millis(1) };
        queue.gather(expected);
        assert_eq!(queue.take(256).len(), 1);
    }

    #[test]
    fn callers_are_expected_back_after_a_slow_sync_of_many_small_jobs() {
        let slow = Duration::from_millis(8);
        let jobs = |count: usize, bytes: usize| (0..count).map(|_| job(bytes)).collect::<Vec<_>>();
        let within = slow / GATHER_SHARE;
        assert_eq!(Expected::after(&jobs(9, 1), 3, slow, 256), Expected { jobs: 12, within });
        assert_eq!(Expected::after(&jobs(9, 1), 3, slow, 10), Expected { jobs: 10, within });
        let quick = GATHER_LEAST * (GATHER_SHARE / 2);
        for none in [
            Expected::after(&jobs(9, 1), 3, quick, 256),
            Expected::after(&jobs(GATHER_FROM - 1, 1), 3, slow, 256),
            Expected::after(&jobs(9, BATCH_BYTES / 9), 3, slow, 256),
        ] {
            assert_eq!(none, Expected::default());
        }
    }
}
