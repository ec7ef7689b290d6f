//! Writing: the queue, the transactions that it is drained into, and the checkpoints.
//!
//! A transaction first gets the file's write lock and only then takes commits out of the queue. So
//! while another process holds the lock, commits are still waiting: each is refused when its own
//! time is up, for certain and however many wait before it.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use std::time::Instant as RealTime;

use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, ErrorCode, wal::CheckpointMode};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::Instant,
};

use super::{
    Inner, Trouble, holder,
    schema::{self, Role},
    state::Tx,
};
use crate::data_store::{Commit, CommitReply, StoreError, rules};

/// How many bytes of commits may wait; beyond that callers wait for room. Renewals do not.
const QUEUE_BYTES: usize = 64 << 20;

/// How many bytes of values may share a transaction, besides one commit that has more by itself.
const BATCH_BYTES: usize = 8 << 20;

/// At how many pages in the log that are not in the file yet the checkpoint beside the writer
/// starts.
const CHECKPOINT_PAGES: i32 = 4000;

/// A log begins anew only after a moment in which all of it is in the file. Under a load without
/// pauses the checkpoint beside the writer never gets there: from this many pages in the log on the
/// writer copies the rest itself, when it is a short one.
const GROWN_PAGES: i32 = 8000;
const SHORT_REST: i32 = 1500;

/// From this many pages on it copies whatever there is.
const HARD_PAGES: i32 = 16_000;

/// By how many pages the log has grown before the writer tries again: an old read may have been in
/// the way.
const RETRY_PAGES: i32 = 1000;

/// After how many jobs in a transaction the writer leaves their callers a moment, and how often it
/// lets others run meanwhile.
const GATHER_FROM: usize = 8;
const GATHER_TURNS: u32 = 200;

type Reply = Result<CommitReply, StoreError>;

struct Job {
    commits: Vec<Commit>,
    bytes: usize,
    since: Instant,
    /// The same moment on a clock that goes on while a test's stands still.
    queued: RealTime,
    /// Set by whichever comes first: the transaction that takes it, or its caller when the caller's
    /// time is up.
    turn: Arc<AtomicBool>,
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
        Self { waiting: Mutex::default(), room: Arc::new(Semaphore::new(QUEUE_BYTES)) }
    }
}

impl Queue {
    /// After a transaction of many jobs, leaves their callers a moment to come back, so that the
    /// next one is not of a few only: a transaction costs a sync, whatever its size. Takes
    /// microseconds when the callers do not come.
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
    fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.others.is_empty()
    }

    /// Takes out what has waited for the file's lock for so long, and what no caller waits for any
    /// more. `busy_since`: since when the lock has not been free.
    fn overdue(&mut self, busy_since: RealTime, limit: Duration) -> Vec<Job> {
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
    /// `PRAGMA data_version`, and for how many transactions to come it counts as recently changed
    /// by another process.
    data_version: i64,
    contended: u32,
    /// How many pages were in the log when the writer last checkpointed in its own turn; 0 when the
    /// log began anew.
    checkpointed_at: i32,
}

/// What came of an attempt to begin a transaction.
enum Begun {
    Yes,
    /// Another process holds the file's write lock.
    Busy(rusqlite::Error),
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
    /// Hands commits to the writer and waits for the outcome, until the deadline if there is one.
    pub(super) async fn submit(
        self: &Arc<Self>,
        commits: Vec<Commit>,
        deadline: Option<Instant>,
    ) -> Vec<Reply> {
        let urgent = commits.iter().any(|commit| rules::renewed(commit).is_some());
        let ids: Vec<_> = commits.iter().map(|commit| commit.id).collect();
        let refused = |reason: &str| {
            ids.iter().map(|_| Err(StoreError::Unavailable { reason: reason.into() })).collect()
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
        let job = Job { commits, bytes, since, queued, turn: turn.clone(), reply, _room: room };
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
        let unknown = |reason: &str| {
            let unknown =
                |commit: &_| StoreError::Indeterminate { commit: *commit, reason: reason.into() };
            ids.iter().map(|id| Err(unknown(id))).collect()
        };
        match by(deadline, &mut answer).await {
            Some(Ok(replies)) => replies,
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
                (Ok(()), None) => {
                    Err(StoreError::Unavailable { reason: "the write did not run".into() })
                }
            }
        });
        task.await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable { reason: "the runtime is shutting down".into() })
        })
    }

    /// Copies the whole log into the file and truncates it, after writing the file anew if so
    /// asked. Waits for readers of old pages and for other processes; this process's commits wait
    /// meanwhile.
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
                wait_while_busy(inner.options.busy_wait, || conn.execute_batch("VACUUM"))
                    .map_err(sqlite)?;
            }
            let emptied =
                wait_while_busy(inner.options.busy_wait, || match inner.writer.lock().as_mut() {
                    Some(writer) => writer
                        .conn
                        .wal_checkpoint_v2(Some(rusqlite::MAIN_DB), CheckpointMode::TRUNCATE)
                        .map(|_| true),
                    None => Ok(false),
                });
            match emptied {
                Ok(true) => Ok(()),
                Ok(false) => Err(closed()),
                Err(err) => Err(Trouble::from(err).not_applied()),
            }
        });
        task.await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable { reason: "the runtime is shutting down".into() })
        })
    }

    /// Ends the connections, the writer's last: closing the last one to the file empties and
    /// removes the log. Waits for what is being written.
    pub(super) fn close(&self) {
        let writer = self.writer.lock().take();
        self.readers.close();
        self.checkpoints.closed.store(true, SeqCst);
        drop(self.checkpoints.conn.lock().take());
        drop(writer);
    }

    /// Starts a checkpoint beside the writer when the log has grown enough. `logged` and `done`
    /// count pages.
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
        let (mut last, mut busy): (usize, Option<Busy>) = (0, None);
        loop {
            // A caller that waits for the writer, a sweep say, comes in between two transactions.
            MutexGuard::bump(&mut writer);
            inner.queue.gather(last);
            last = 0;
            {
                let mut waiting = inner.queue.waiting.lock();
                metrics::gauge!("profilestore_sqlite_queue_jobs")
                    .set((waiting.urgent.len() + waiting.others.len()) as f64);
                waiting.draining = !waiting.is_empty();
                if !waiting.draining {
                    drop(waiting);
                    self.done = true;
                    return;
                }
            }
            let begun = match writer.as_mut() {
                Some(writer) => writer.begin(&inner),
                None => Err(Failed::All(closed())),
            };
            if let Ok(Begun::Busy(err)) = begun {
                let busy = busy.get_or_insert_with(Busy::default);
                let overdue =
                    inner.queue.waiting.lock().overdue(busy.since, inner.options.busy_wait);
                if !overdue.is_empty() {
                    let err = busy.trouble(&inner, err);
                    overdue.into_iter().for_each(|job| job.refuse(&err));
                }
                busy.wait();
                continue;
            }
            busy = None;
            let jobs = inner.queue.waiting.lock().take(inner.options.batch);
            last = jobs.len();
            match (writer.as_mut(), begun) {
                (Some(writer), Ok(_)) if jobs.is_empty() => writer.roll_back(),
                (Some(writer), Ok(_)) => writer.run(&inner, jobs),
                (_, Err(Failed::All(err) | Failed::One(err))) => {
                    jobs.into_iter().for_each(|job| job.refuse(&err))
                }
                _ => jobs.into_iter().for_each(|job| job.refuse(&closed())),
            }
        }
    }
}

/// A time during which another process holds the file's write lock.
struct Busy {
    since: RealTime,
}

impl Default for Busy {
    fn default() -> Self {
        Self { since: real_time() }
    }
}

impl Busy {
    /// In short steps, so that another process's next pause is not missed.
    fn wait(&self) {
        metrics::counter!("profilestore_sqlite_lock_waits_total").increment(1);
        let new = self.since.elapsed() < Duration::from_millis(5);
        std::thread::park_timeout(if new {
            Duration::from_micros(100)
        } else {
            Duration::from_millis(1)
        });
    }

    /// What to tell those who waited for too long.
    fn trouble(&self, inner: &Inner, err: rusqlite::Error) -> StoreError {
        match (Trouble::from(err).not_applied(), holder::of(&inner.path)) {
            (StoreError::Unavailable { reason }, Some(holder)) => {
                StoreError::Unavailable { reason: format!("{reason}: holder=`{holder}`") }
            }
            (err, _) => err,
        }
    }
}

/// A moment in real time, for waits for other processes: their locks last as long as they last,
/// whatever a test's clock says.
#[expect(
    clippy::disallowed_methods,
    reason = "another process's lock is not part of a world that a seed replays"
)]
fn real_time() -> RealTime {
    RealTime::now()
}

/// Waits for something until a deadline; None: it came too late.
async fn by<T>(deadline: Option<Instant>, wait: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, wait).await.ok(),
        None => Some(wait.await),
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
        let err = StoreError::Unavailable {
            reason: "the writer stopped before the commit's turn".into(),
        };
        refused.into_iter().for_each(|job| job.refuse(&err));
    }
}

impl Writer {
    pub(super) fn new(conn: Connection) -> Self {
        Self { conn, broken: false, data_version: 0, contended: 0, checkpointed_at: 0 }
    }

    /// Writes jobs in the transaction that has begun.
    fn run(&mut self, inner: &Arc<Inner>, jobs: Vec<Job>) {
        let commits: Vec<&Commit> = jobs.iter().flat_map(|job| &job.commits).collect();
        let span = tracing::debug_span!("sqlite batch", commits = commits.len());
        let _entered = span.enter();
        let mut replies = match self.commit_begun(inner, &commits) {
            // One of them spoils the transaction: each gets its own.
            Err(Failed::One(err)) if commits.len() > 1 => {
                tracing::warn!(%err, commits = commits.len(), "a commit spoiled its transaction");
                let until = real_time() + inner.options.busy_wait;
                let mut alone = |commit: &&Commit| {
                    self.begin_by(inner, until)?;
                    self.commit_begun(inner, std::slice::from_ref(commit))
                };
                let alone = |commit: &&Commit| match alone(commit) {
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
            metrics::histogram!("profilestore_sqlite_commit_seconds")
                .record(job.since.elapsed().as_secs_f64());
            // The caller may have gone.
            drop(job.reply.send(answers));
        }
    }

    fn commit_begun(
        &mut self,
        inner: &Arc<Inner>,
        commits: &[&Commit],
    ) -> Result<Vec<Reply>, Failed> {
        let mut replies = Vec::with_capacity(commits.len());
        self.finish(inner, |tx| {
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

    /// Gets the file's write lock, if no other process has it.
    fn begin(&mut self, inner: &Arc<Inner>) -> Result<Begun, Failed> {
        self.recover(inner)?;
        if self.contended > 0 {
            // Another process writes too. It waits in steps of a tenth of a millisecond at first:
            // leave it one.
            self.contended -= 1;
            std::thread::park_timeout(Duration::from_micros(200));
        }
        match self.conn.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([])) {
            Ok(_) => Ok(Begun::Yes),
            Err(err) if schema::is_busy(&err) => Ok(Begun::Busy(err)),
            Err(err) => Err(Failed::All(Trouble::from(err).not_applied())),
        }
    }

    /// Waits for the file's write lock for so long.
    fn begin_by(&mut self, inner: &Arc<Inner>, until: RealTime) -> Result<(), Failed> {
        let busy = Busy::default();
        loop {
            match self.begin(inner)? {
                Begun::Yes => return Ok(()),
                Begun::Busy(err) if real_time() >= until => {
                    return Err(Failed::All(busy.trouble(inner, err)));
                }
                Begun::Busy(_) => busy.wait(),
            }
        }
    }

    /// Runs `work` in a transaction and commits it when `work` says that it wrote something.
    fn transaction(
        &mut self,
        inner: &Arc<Inner>,
        work: impl FnOnce(&mut Tx<'_>) -> Result<bool, Trouble>,
    ) -> Result<(), Failed> {
        self.begin_by(inner, real_time() + inner.options.busy_wait)?;
        self.finish(inner, work)
    }

    /// Runs `work` in the transaction that has begun.
    fn finish(
        &mut self,
        inner: &Arc<Inner>,
        work: impl FnOnce(&mut Tx<'_>) -> Result<bool, Trouble>,
    ) -> Result<(), Failed> {
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
        let all = |err: rusqlite::Error| Failed::All(Trouble::from(err).not_applied());
        let committed = wait_while_busy(inner.options.busy_wait, || {
            self.conn.prepare_cached("COMMIT")?.execute([])
        });
        if let Err(err) = committed {
            self.broken = true;
            self.roll_back();
            // A log that could not be written to its last page holds no valid commit, whatever
            // happens next. Any other failure may have come after that page: nobody knows what a
            // crash would make of it.
            let surely_not =
                schema::is_busy(&err) || err.sqlite_error_code() == Some(ErrorCode::DiskFull);
            tracing::warn!(%err, surely_not, "a transaction could not be committed");
            return Err(if surely_not {
                all(err)
            } else {
                Failed::Unknown(format!("SQLite failed to commit: {err}"))
            });
        }
        self.after_commit(inner);
        Ok(())
    }

    fn after_commit(&mut self, inner: &Arc<Inner>) {
        let version = self
            .conn
            .prepare_cached(
                "PRAGMA \
            data_version",
            )
            .and_then(|mut s| s.query_row([], |row| row.get(0)));
        if let Ok(version) = version
            && version != self.data_version
        {
            self.contended = if self.data_version == 0 { 0 } else { 16 };
            self.data_version = version;
        }
        let Ok((logged, done)) =
            self.conn.wal_checkpoint_v2(Some(rusqlite::MAIN_DB), CheckpointMode::NOOP)
        else {
            return;
        };
        if logged < self.checkpointed_at {
            self.checkpointed_at = 0;
        }
        let grown =
            logged >= GROWN_PAGES && logged >= self.checkpointed_at + RETRY_PAGES && done < logged;
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
            self.conn =
                schema::connect(&inner.path, Role::Writer, &inner.options).map_err(Failed::All)?;
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
            Self::Unknown(reason) => {
                StoreError::Indeterminate { commit: commit.id, reason: reason.clone() }
            }
        }
    }
}

/// Copies the log into the file, as far as no reader needs the old pages. Another process may be at
/// it: then there is no need.
fn checkpoint(conn: &Connection) {
    let span = tracing::debug_span!("sqlite checkpoint");
    let _entered = span.enter();
    match conn.wal_checkpoint_v2(Some(rusqlite::MAIN_DB), CheckpointMode::PASSIVE) {
        Ok((logged, done)) => tracing::debug!(logged, done, "checkpointed"),
        Err(err) if schema::is_busy(&err) => {}
        Err(err) => tracing::warn!(%err, "a checkpoint failed"),
    }
}

/// Tries until the lock is free or the time is up.
fn wait_while_busy<T>(
    limit: Duration,
    mut attempt: impl FnMut() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let busy = Busy::default();
    loop {
        match attempt() {
            Err(err) if schema::is_busy(&err) && busy.since.elapsed() < limit => busy.wait(),
            result => return result,
        }
    }
}

/// Whether an error has nothing to do with the one commit that met it.
fn concerns_all(err: &rusqlite::Error) -> bool {
    !matches!(
        err.sqlite_error_code(),
        None | Some(
            ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                | ErrorCode::TooBig
                | ErrorCode::DatabaseCorrupt
        )
    )
}

fn closed() -> StoreError {
    StoreError::Unavailable { reason: "the store is closed".into() }
}

fn no_reply() -> StoreError {
    StoreError::Unavailable { reason: "the store gave no answer for the commit".into() }
}
