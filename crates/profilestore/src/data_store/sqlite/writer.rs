//! Writing: the queue, the transactions that it is drained into, and the checkpoints.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, ErrorCode, wal::CheckpointMode};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::Instant,
};

use super::{
    Inner, Trouble,
    schema::{self, Role},
    state::Tx,
};
use crate::data_store::{Change, Commit, CommitReply, NewValue, StoreError, rules};

/// How many commits may wait; beyond that callers wait for room. Renewals do not.
const QUEUE: usize = 8192;

/// How many bytes of values may share a transaction, besides one commit that has more by itself.
const BATCH_BYTES: usize = 8 << 20;

/// At how many pages in the log that are not in the file yet the checkpoint beside the writer starts.
const CHECKPOINT_PAGES: i32 = 4000;

/// A log begins anew only after a moment in which all of it is in the file. Under a load without pauses the checkpoint beside the
/// writer never gets there: from this many pages in the log on the writer copies the rest itself, when it is a short one.
const GROWN_PAGES: i32 = 8000;
const SHORT_REST: i32 = 1500;

/// From this many pages on it copies whatever there is.
const HARD_PAGES: i32 = 16_000;

/// By how many pages the log has grown before the writer tries again: an old read may have been in the way.
const RETRY_PAGES: i32 = 1000;

/// After how many jobs in a transaction the writer leaves their callers a moment, and how often it lets others run meanwhile.
const GATHER_FROM: usize = 8;
const GATHER_TURNS: u32 = 200;

type Reply = Result<CommitReply, StoreError>;

struct Job {
    commits: Vec<Commit>,
    bytes: usize,
    since: Instant,
    reply: oneshot::Sender<Vec<Reply>>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Job {
    /// Answers that nothing was applied. The caller may have gone.
    fn refuse(self, err: &StoreError) {
        let replies = self.commits.iter().map(|_| Err(err.clone())).collect();
        drop(self.reply.send(replies));
    }
}

pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    room: Arc<Semaphore>,
}

impl Default for Queue {
    fn default() -> Self {
        Self { waiting: Mutex::default(), room: Arc::new(Semaphore::new(QUEUE)) }
    }
}

impl Queue {
    /// After a transaction of many jobs, leaves their callers a moment to come back, so that the next one is not of a few only:
    /// a transaction costs a sync, whatever its size. Takes microseconds when the callers do not come.
    fn gather(&self, last: usize) {
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
struct Waiting {
    /// Jobs with a renewal.
    urgent: VecDeque<Job>,
    others: VecDeque<Job>,
    /// A writer drains the queue, or was started to.
    draining: bool,
}

impl Waiting {
    /// The next jobs that share a transaction, renewals first; a job is never split.
    fn take(&mut self, commits: usize) -> Vec<Job> {
        let (mut jobs, mut count, mut bytes) = (Vec::new(), 0, 0);
        loop {
            let queue = if self.urgent.is_empty() { &mut self.others } else { &mut self.urgent };
            let fits = |job: &Job| count == 0 || (count + job.commits.len() <= commits && bytes + job.bytes <= BATCH_BYTES);
            if !queue.front().is_some_and(fits) {
                return jobs;
            }
            let Some(job) = queue.pop_front() else { return jobs };
            count += job.commits.len();
            bytes += job.bytes;
            jobs.push(job);
        }
    }
}

/// The state of the checkpoints beside the writer.
#[derive(Default)]
pub(super) struct Checkpoints {
    conn: Mutex<Option<Connection>>,
    /// One is under way.
    running: AtomicBool,
    closed: AtomicBool,
}

pub(super) struct Writer {
    conn: Connection,
    /// The connection failed in a way after which it is replaced.
    broken: bool,
    /// `PRAGMA data_version`, and for how many transactions to come it counts as recently changed by another process.
    data_version: i64,
    contended: u32,
    /// How many pages were in the log when the writer last checkpointed in its own turn; 0 when the log began anew.
    checkpointed_at: i32,
}

/// How a transaction failed.
enum Failed {
    /// Nothing was applied, and the same would happen to each of its commits alone.
    All(StoreError),
    /// Nothing was applied because of one of its commits.
    One(StoreError),
    /// It may have been applied.
    Unknown(String),
}

impl Inner {
    /// Hands commits to the writer and waits for the outcome.
    pub(super) async fn submit(self: &Arc<Self>, commits: Vec<Commit>) -> Vec<Reply> {
        let urgent = commits.iter().any(|commit| rules::renewed(commit).is_some());
        let ids: Vec<_> = commits.iter().map(|commit| commit.id).collect();
        let room = if urgent {
            None
        } else {
            let permits = u32::try_from(commits.len().min(QUEUE)).unwrap_or(1);
            self.queue.room.clone().acquire_many_owned(permits).await.ok()
        };
        let (reply, answer) = oneshot::channel();
        let bytes = commits.iter().map(bytes_of).sum();
        let job = Job { commits, bytes, since: self.options.env.now(), reply, _room: room };
        let start = {
            let mut waiting = self.queue.waiting.lock();
            let queue = if urgent { &mut waiting.urgent } else { &mut waiting.others };
            queue.push_back(job);
            !std::mem::replace(&mut waiting.draining, true)
        };
        if start {
            let draining = Draining { inner: self.clone(), done: false };
            tokio::task::spawn_blocking(move || draining.run());
        }
        answer.await.unwrap_or_else(|_| {
            let unknown = |commit| StoreError::Indeterminate { commit, reason: "the writer stopped in the middle".into() };
            ids.into_iter().map(|id| Err(unknown(id))).collect()
        })
    }

    /// Runs a write of our own in a transaction, behind whatever is being written.
    pub(super) async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        write: impl FnOnce(&mut Tx<'_>) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            let mut writer = inner.writer.lock();
            let Some(writer) = writer.as_mut() else { return Err(closed()) };
            let mut wrote = None;
            let done = writer.transaction(&inner, |tx| {
                wrote = Some(write(tx)?);
                Ok(true)
            });
            match (done, wrote) {
                (Ok(()), Some(wrote)) => Ok(wrote),
                (Err(Failed::All(err) | Failed::One(err)), _) => Err(err),
                (Err(Failed::Unknown(reason)), _) => Err(StoreError::Unavailable { reason }),
                (Ok(()), None) => Err(StoreError::Unavailable { reason: "the write did not run".into() }),
            }
        });
        task.await.unwrap_or_else(|_| Err(StoreError::Unavailable { reason: "the runtime is shutting down".into() }))
    }

    /// Copies the whole log into the file and truncates it, after writing the file anew if so asked. Waits for readers of old pages
    /// and for other processes; this process's commits wait meanwhile.
    pub(super) async fn empty_log(self: &Arc<Self>, rewrite: bool) -> Result<(), StoreError> {
        let inner = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            if rewrite {
                let writer = inner.writer.lock();
                if writer.is_none() {
                    return Err(closed());
                }
                // Of its own, because the copy that is made on the way must not be held in memory.
                let conn = schema::connect(&inner.path, Role::Writer, &inner.options)?;
                let sqlite = |err: rusqlite::Error| Trouble::from(err).not_applied();
                conn.pragma_update(None, "temp_store", "FILE").map_err(sqlite)?;
                wait_while_busy(inner.options.busy_wait, || conn.execute_batch("VACUUM")).map_err(sqlite)?;
            }
            let emptied = wait_while_busy(inner.options.busy_wait, || match inner.writer.lock().as_mut() {
                Some(writer) => writer.conn.wal_checkpoint_v2(Some(rusqlite::MAIN_DB), CheckpointMode::TRUNCATE).map(|_| true),
                None => Ok(false),
            });
            match emptied {
                Ok(true) => Ok(()),
                Ok(false) => Err(closed()),
                Err(err) => Err(Trouble::from(err).not_applied()),
            }
        });
        task.await.unwrap_or_else(|_| Err(StoreError::Unavailable { reason: "the runtime is shutting down".into() }))
    }

    /// Ends the connections, the writer's last: closing the last one to the file empties and removes the log. Waits for what is
    /// being written.
    pub(super) fn close(&self) {
        let writer = self.writer.lock().take();
        self.readers.close();
        self.checkpoints.closed.store(true, SeqCst);
        drop(self.checkpoints.conn.lock().take());
        drop(writer);
    }

    /// Starts a checkpoint beside the writer when the log has grown enough. `logged` and `done` count pages.
    fn checkpoint_beside(self: &Arc<Self>, logged: i32, done: i32) {
        if logged - done < CHECKPOINT_PAGES || self.checkpoints.running.swap(true, SeqCst) {
            return;
        }
        let guard = Checkpointing(self.clone());
        tokio::task::spawn_blocking(move || {
            let inner = &guard.0;
            let mut conn = inner.checkpoints.conn.lock();
            if inner.checkpoints.closed.load(SeqCst) {
                return;
            }
            if conn.is_none() {
                match schema::connect(&inner.path, Role::Writer, &inner.options) {
                    Ok(made) => *conn = Some(made),
                    Err(err) => return tracing::warn!(%err, "no connection for checkpoints"),
                }
            }
            if let Some(conn) = conn.as_ref() {
                checkpoint(conn);
            }
        });
    }
}

/// Says that no checkpoint runs any more, also when its task is dropped before it began.
struct Checkpointing(Arc<Inner>);

impl Drop for Checkpointing {
    fn drop(&mut self) {
        self.0.checkpoints.running.store(false, SeqCst);
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
        let mut last = 0;
        loop {
            // Whoever waits for the writer, a sweep say, comes in between two transactions.
            MutexGuard::bump(&mut writer);
            inner.queue.gather(last);
            let jobs = {
                let mut waiting = inner.queue.waiting.lock();
                metrics::gauge!("profilestore_sqlite_queue_jobs").set((waiting.urgent.len() + waiting.others.len()) as f64);
                let jobs = waiting.take(inner.options.batch);
                waiting.draining = !jobs.is_empty();
                jobs
            };
            if jobs.is_empty() {
                self.done = true;
                return;
            }
            last = jobs.len();
            match writer.as_mut() {
                Some(writer) => writer.run(&inner, jobs),
                None => jobs.into_iter().for_each(|job| job.refuse(&closed())),
            }
        }
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let refused = {
            let mut waiting = self.inner.queue.waiting.lock();
            waiting.draining = false;
            let urgent: Vec<_> = waiting.urgent.drain(..).collect();
            urgent.into_iter().chain(waiting.others.drain(..)).collect::<Vec<_>>()
        };
        let err = StoreError::Unavailable { reason: "the writer stopped before the commit's turn".into() };
        refused.into_iter().for_each(|job| job.refuse(&err));
    }
}

impl Writer {
    pub(super) fn new(conn: Connection) -> Self {
        Self { conn, broken: false, data_version: 0, contended: 0, checkpointed_at: 0 }
    }

    fn run(&mut self, inner: &Arc<Inner>, jobs: Vec<Job>) {
        let commits: Vec<&Commit> = jobs.iter().flat_map(|job| &job.commits).collect();
        let span = tracing::debug_span!("sqlite batch", commits = commits.len());
        let _entered = span.enter();
        let mut replies = match self.commit(inner, &commits) {
            // One of them spoils the transaction: each gets its own.
            Err(Failed::One(err)) if commits.len() > 1 => {
                tracing::warn!(%err, commits = commits.len(), "a commit spoiled its transaction");
                let alone = |commit: &&Commit| match self.commit(inner, std::slice::from_ref(commit)) {
                    Ok(mut replies) => replies.pop().unwrap_or_else(|| Err(no_reply())),
                    Err(failed) => Err(failed.of(commit)),
                };
                commits.iter().map(alone).collect()
            }
            Ok(replies) => replies,
            Err(failed) => commits.iter().map(|commit| Err(failed.of(commit))).collect(),
        }
        .into_iter();
        metrics::histogram!("profilestore_sqlite_batch_commits").record(commits.len() as f64);
        for job in jobs {
            let answers: Vec<Reply> = replies.by_ref().take(job.commits.len()).collect();
            metrics::histogram!("profilestore_sqlite_commit_seconds").record(job.since.elapsed().as_secs_f64());
            // The caller may have gone.
            drop(job.reply.send(answers));
        }
    }

    fn commit(&mut self, inner: &Arc<Inner>, commits: &[&Commit]) -> Result<Vec<Reply>, Failed> {
        let mut replies = Vec::with_capacity(commits.len());
        self.transaction(inner, |tx| {
            let incarnation = schema::incarnation(tx.conn)?;
            let mut wrote = false;
            for commit in commits {
                let reply = tx.commit(commit, incarnation)?;
                wrote |= reply.as_ref().is_ok_and(|reply| !reply.already_applied);
                replies.push(reply);
            }
            Ok(wrote)
        })?;
        Ok(replies)
    }

    /// Runs `work` in a transaction and commits it when `work` says that it wrote something.
    fn transaction(&mut self, inner: &Arc<Inner>, work: impl FnOnce(&mut Tx<'_>) -> Result<bool, Trouble>) -> Result<(), Failed> {
        self.recover(inner)?;
        if self.contended > 0 {
            // Another process writes too. It waits in steps of a tenth of a millisecond at first: leave it one.
            self.contended -= 1;
            std::thread::park_timeout(Duration::from_micros(200));
        }
        let all = |err: rusqlite::Error| Failed::All(Trouble::from(err).not_applied());
        let wait = inner.options.busy_wait;
        wait_while_busy(wait, || self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])).map_err(all)?;
        let worked = {
            let mut tx = Tx::new(&self.conn, inner.options.env.unix_ms());
            work(&mut tx)
        };
        let wrote = match worked {
            Ok(wrote) => wrote,
            Err(trouble) => {
                self.roll_back();
                let shared = match &trouble {
                    Trouble::Store(_) => false,
                    Trouble::Sqlite(err) => concerns_all(err),
                };
                self.broken |= shared;
                let err = trouble.not_applied();
                return Err(if shared { Failed::All(err) } else { Failed::One(err) });
            }
        };
        if !wrote {
            self.roll_back();
            return Ok(());
        }
        let committed = wait_while_busy(wait, || self.conn.prepare_cached("COMMIT")?.execute([]));
        if let Err(err) = committed {
            self.broken = true;
            self.roll_back();
            // A log that could not be written to its last page holds no valid commit, whatever happens next. Any other failure
            // may have come after that page: nobody knows what a crash would make of it.
            let surely_not = schema::is_busy(&err) || err.sqlite_error_code() == Some(ErrorCode::DiskFull);
            tracing::warn!(%err, surely_not, "a transaction could not be committed");
            return Err(if surely_not { all(err) } else { Failed::Unknown(format!("SQLite failed to commit: {err}")) });
        }
        self.after_commit(inner);
        Ok(())
    }

    fn after_commit(&mut self, inner: &Arc<Inner>) {
        let version = self.conn.prepare_cached("PRAGMA data_version").and_then(|mut s| s.query_row([], |row| row.get(0)));
        if let Ok(version) = version
            && version != self.data_version
        {
            self.contended = if self.data_version == 0 { 0 } else { 16 };
            self.data_version = version;
        }
        let Ok((logged, done)) = self.conn.wal_checkpoint_v2(Some(rusqlite::MAIN_DB), CheckpointMode::NOOP) else { return };
        if logged < self.checkpointed_at {
            self.checkpointed_at = 0;
        }
        let grown = logged >= GROWN_PAGES && logged >= self.checkpointed_at + RETRY_PAGES && done < logged;
        if grown && (logged - done <= SHORT_REST || logged >= HARD_PAGES) {
            self.checkpointed_at = logged;
            checkpoint(&self.conn);
        } else {
            inner.checkpoint_beside(logged, done);
        }
    }

    /// Makes the connection fit for a new transaction.
    fn recover(&mut self, inner: &Arc<Inner>) -> Result<(), Failed> {
        if !self.conn.is_autocommit() {
            self.roll_back();
        }
        if self.broken || !self.conn.is_autocommit() {
            self.conn = schema::connect(&inner.path, Role::Writer, &inner.options).map_err(Failed::All)?;
            (self.broken, self.data_version) = (false, 0);
        }
        Ok(())
    }

    fn roll_back(&mut self) {
        // SQLite rolls back by itself after some errors; then there is nothing to do.
        if !self.conn.is_autocommit()
            && let Err(err) = self.conn.execute_batch("ROLLBACK")
        {
            tracing::warn!(%err, "a transaction could not be rolled back");
            self.broken = true;
        }
    }
}

impl Failed {
    fn of(&self, commit: &Commit) -> StoreError {
        match self {
            Self::All(err) | Self::One(err) => err.clone(),
            Self::Unknown(reason) => StoreError::Indeterminate { commit: commit.id, reason: reason.clone() },
        }
    }
}

/// Copies the log into the file, as far as no reader needs the old pages. Another process may be at it: then there is no need.
fn checkpoint(conn: &Connection) {
    let span = tracing::debug_span!("sqlite checkpoint");
    let _entered = span.enter();
    match conn.wal_checkpoint_v2(Some(rusqlite::MAIN_DB), CheckpointMode::PASSIVE) {
        Ok((logged, done)) => tracing::debug!(logged, done, "checkpointed"),
        Err(err) if schema::is_busy(&err) => {}
        Err(err) => tracing::warn!(%err, "a checkpoint failed"),
    }
}

/// Tries until the lock is free or the time is up: in short steps, so that another process's next pause is not missed.
fn wait_while_busy<T>(limit: Duration, mut attempt: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let mut waited = Duration::ZERO;
    loop {
        match attempt() {
            Err(err) if schema::is_busy(&err) && waited < limit => {
                metrics::counter!("profilestore_sqlite_lock_waits_total").increment(1);
                let step = if waited < Duration::from_millis(5) { Duration::from_micros(100) } else { Duration::from_millis(1) };
                std::thread::park_timeout(step);
                waited += step;
            }
            result => return result,
        }
    }
}

/// Whether an error has nothing to do with the one commit that met it.
fn concerns_all(err: &rusqlite::Error) -> bool {
    !matches!(
        err.sqlite_error_code(),
        None | Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig | ErrorCode::DatabaseCorrupt)
    )
}

fn bytes_of(commit: &Commit) -> usize {
    let size = |change: &Change| match change {
        Change::Write { value: NewValue::Bytes(bytes), .. } => bytes.len(),
        Change::AppendMessage { message, .. } => message.payload.len(),
        _ => 0,
    };
    commit.changes.iter().map(size).sum()
}

fn closed() -> StoreError {
    StoreError::Unavailable { reason: "the store is closed".into() }
}

fn no_reply() -> StoreError {
    StoreError::Unavailable { reason: "the store gave no answer for the commit".into() }
}
