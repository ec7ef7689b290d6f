//! Syncing the log beside the writer, so that the next transaction is written meanwhile.
//!
//! The writer's connection syncs none of its commits (`synchronous=NORMAL`): what it commits is in
//! the log, where other connections see it, and not surely on the disk yet. A job is answered when
//! the log has been synced behind its transaction, through a file of this module's own. A few jobs
//! with none behind them are synced by the writer itself. Of more, the writer hands over what it
//! has written, and takes the next ones.
//!
//! * **A sync covers all that was committed before it began.** Transactions lie in the log in their
//!   order, and what recovers a log ends at the first one that is not whole. So what another
//!   process or a later commit builds on is on the disk when that one is.
//! * **A read waits** for the sync of what it may have seen, so that nothing is shown which a crash
//!   of the machine takes back. Reads of other processes cannot know of it, and do not wait; an
//!   open, a backup and the answer for a commit that was applied before sync the log themselves.
//! * **A sync that failed** leaves transactions in the log of which the disk may have kept nothing,
//!   even if the next sync succeeds: systems forget a write that failed. So their outcome is
//!   unknown, and nothing is written, read or copied into the file until all of the log has been
//!   written again and synced. To copy it into the file is not enough: a crash of the machine
//!   leaves a log that ends in the middle, and its pages would then hide newer ones in the file. A
//!   log that a process has left behind is written again by the next one that opens it. What the
//!   system has given up by then is lost (`log_frames.rs`), and the store has to be opened anew.

use std::{
    fs::{File, Metadata, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::SeqCst},
    time::Duration,
};

use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;
use tokio::sync::watch;

use super::{
    busy::wait_while_busy,
    log_frames::{Lost, write_again},
    queue::{BATCH_BYTES, Job, Reply},
    schema::beside,
};
use crate::data_store::StoreError;

/// For what share of the last sync's time the next one waits for the callers that were answered.
const GATHER_SHARE: u32 = 4;

/// A shorter wait is of no use: callers have to be woken, come back, and be written.
const GATHER_LEAST: Duration = Duration::from_millis(1);

/// A disk that stalls once must not make callers wait long afterwards.
const GATHER_MOST: Duration = Duration::from_millis(5);

/// Jobs of one transaction, and what becomes of them once it is on the disk.
pub(super) type Written = Vec<(Job, Vec<Reply>)>;

/// What is written and not synced.
pub(super) struct Syncs {
    /// None: commits are not synced.
    log: Option<File>,
    /// The file's, for errors.
    path: PathBuf,
    /// Held during a sync.
    turn: Mutex<()>,
    waiting: Mutex<Waiting>,
    /// Wakes the thread that waits for expected jobs.
    enough: Condvar,
    /// How many transactions have come to their `COMMIT`, and how many of them are behind it.
    begun: AtomicU64,
    committed: AtomicU64,
    settled: watch::Sender<Settled>,
}

#[derive(Default)]
struct Waiting {
    written: Vec<Written>,
    jobs: usize,
    /// Those and the ones that are being synced.
    unsynced: usize,
    /// A thread syncs, or was asked for.
    syncing: bool,
    expected: Expected,
    /// It waits until there are so many jobs.
    wanted: Option<usize>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Settled {
    /// So many transactions are on the disk.
    through: u64,
    /// A sync failed, and the log has not been written again since.
    failed: bool,
    /// It never will be, because of what is lost of it.
    lost: Option<Lost>,
}

/// Which jobs a sync waits for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Expected {
    jobs: usize,
    within: Duration,
}

impl Expected {
    /// After a sync of some jobs with so many bytes that took so long, while `waiting` others came.
    fn after((jobs, bytes): (usize, usize), waiting: usize, took: Duration) -> Self {
        let within = (took / GATHER_SHARE).min(GATHER_MOST);
        // With so much data the way to the disk is more than the sync.
        if jobs + waiting < 2 || bytes > BATCH_BYTES / 2 || within < GATHER_LEAST {
            return Self::default();
        }
        Self { jobs: jobs + waiting, within }
    }
}

impl Syncs {
    /// For a store that is only read, and one that does not sync.
    pub(super) fn none() -> Self {
        Self {
            log: None,
            path: PathBuf::new(),
            turn: Mutex::default(),
            waiting: Mutex::default(),
            enough: Condvar::new(),
            begun: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            settled: watch::Sender::default(),
        }
    }

    /// For the log of an open file, which `is_log` knows. SQLite has its locks on the file and on
    /// the log's index, so that the log may be opened and closed beside it.
    pub(super) fn of(
        path: &Path,
        is_log: impl FnOnce(&Metadata) -> bool,
    ) -> Result<Self, StoreError> {
        let opened = OpenOptions::new().read(true).write(true).open(beside(path, "-wal"));
        let looked = opened.and_then(|file| {
            let is_log = is_log(&file.metadata()?);
            // What a program wrote that was killed before it synced will be shown by this one.
            file.sync_data()?;
            Ok((is_log, file))
        });
        let why = match looked {
            Ok((true, file)) => {
                return Ok(Self { log: Some(file), path: path.to_owned(), ..Self::none() });
            }
            Ok((false, _)) => "it was replaced while the file was opened; try again".into(),
            Err(err) => err.to_string(),
        };
        Err(StoreError::Unavailable {
            reason: format!("the file's log cannot be synced: {why}: path=`{}`", path.display()),
        })
    }

    /// A transaction comes to its `COMMIT`.
    pub(super) fn begin(&self) {
        if self.log.is_some() {
            self.begun.fetch_add(1, SeqCst);
        }
    }

    /// It is behind it, whatever came of it.
    pub(super) fn end(&self) {
        self.committed.store(self.begun.load(SeqCst), SeqCst);
    }

    /// Of how many jobs the writer is to leave some to its next transaction, so that this one can
    /// be synced meanwhile: those that are written. None: commits are not synced.
    pub(super) fn unsynced(&self) -> Option<usize> {
        self.log.is_some().then(|| self.waiting.lock().unsynced)
    }

    pub(super) fn is_settled(&self) -> bool {
        let settled = *self.settled.borrow();
        !settled.failed && settled.through >= self.committed.load(SeqCst)
    }

    /// Syncs what was committed until now, on this thread.
    pub(super) fn sync(&self) -> Result<(), String> {
        self.sync_counted(&self.committed)
    }

    /// The same with what a read may have seen, which is not behind its `COMMIT` perhaps.
    pub(super) fn sync_seen(&self) -> Result<(), StoreError> {
        self.sync_counted(&self.begun).map_err(|reason| StoreError::Unavailable { reason })
    }

    fn sync_counted(&self, transactions: &AtomicU64) -> Result<(), String> {
        let Some(log) = &self.log else { return Ok(()) };
        let _turn = self.turn.lock();
        let (wanted, committed) = (transactions.load(SeqCst), self.committed.load(SeqCst));
        let settled = *self.settled.borrow();
        if settled.failed {
            return Err(self.named("an earlier sync of the log failed"));
        }
        if settled.through >= wanted {
            return Ok(());
        }
        let synced = log.sync_data();
        self.settled.send_modify(|settled| match &synced {
            Ok(()) => settled.through = committed,
            Err(_) => settled.failed = true,
        });
        synced.map_err(|err| {
            metrics::counter!("profilestore_sqlite_sync_failures_total").increment(1);
            tracing::warn!(path = %self.path.display(), %err, "the log could not be synced");
            self.named(&format!("the disk failed to sync the log: {err}"))
        })
    }

    /// An error, with the file that it is about.
    fn named(&self, what: &str) -> String {
        format!("{what}: path=`{}`", self.path.display())
    }

    /// Makes good a sync that failed: writes all of the log again, and syncs it. While that fails,
    /// nothing is to be written. `conn` is the writer's and in no transaction; it waits for so long
    /// for the lock under which no process writes to the log. `look` tells what is lost of it.
    pub(super) fn secure(
        &self,
        conn: &Connection,
        wait: Duration,
        look: impl FnOnce(&File) -> io::Result<Option<Lost>>,
    ) -> Result<(), StoreError> {
        let Settled { failed, lost, .. } = *self.settled.borrow();
        let Some(log) = self.log.as_ref().filter(|_| failed) else { return Ok(()) };
        // Not looked at again: another process may have copied what was lost into the file.
        let done = if lost.is_some() { Ok(lost) } else { self.rewrite(log, conn, wait, look) };
        let why = match done {
            Ok(None) => return Ok(()),
            Ok(Some(lost)) => lost.to_string(),
            Err(err) => format!(
                "the disk failed to sync the log, and the log cannot be written again yet: {err}"
            ),
        };
        Err(StoreError::Unavailable { reason: self.named(&why) })
    }

    /// The log cannot be made good: from now on the store refuses everything.
    pub(super) fn lose(&self, lost: Lost) {
        tracing::error!(path = %self.path.display(), %lost, "the log cannot be made good");
        self.settled.send_modify(|settled| {
            settled.failed = true;
            settled.lost.get_or_insert(lost);
        });
    }

    /// Answers with what is lost of the log. Otherwise it is made good.
    fn rewrite(
        &self,
        log: &File,
        conn: &Connection,
        wait: Duration,
        look: impl FnOnce(&File) -> io::Result<Option<Lost>>,
    ) -> Result<Option<Lost>, String> {
        let text = |err: rusqlite::Error| err.to_string();
        wait_while_busy(wait, || conn.execute_batch("BEGIN IMMEDIATE")).map_err(text)?;
        let _turn = self.turn.lock();
        let through = self.committed.load(SeqCst);
        // Looked at after the sync: before it, the system may still drop pages.
        let found = write_again(log).and_then(|()| look(log));
        let path = self.path.display();
        match &found {
            Ok(None) => {
                self.settled.send_modify(|settled| {
                    // A checkpoint may have failed meanwhile.
                    (settled.through, settled.failed) = (through, settled.lost.is_some());
                });
                tracing::warn!(%path, "all of the log was written again, after a failed sync");
            }
            Ok(Some(lost)) => self.lose(*lost),
            Err(_) => {}
        }
        let ended = conn.execute_batch("ROLLBACK").map_err(text);
        found.map_err(|err| err.to_string()).and(ended).map(|()| self.settled.borrow().lost)
    }

    /// Whether a thread syncs, or was asked for.
    pub(super) fn are_under_way(&self) -> bool {
        self.waiting.lock().syncing
    }

    /// Whether a sync failed, and was not made good.
    pub(super) fn has_failed(&self) -> bool {
        self.settled.borrow().failed
    }

    /// The thread that syncs has panicked; the jobs that it had taken are no more.
    pub(super) fn panicked(&self) {
        let mut waiting = self.waiting.lock();
        waiting.unsynced = waiting.jobs;
    }

    /// As after a sync that failed.
    #[cfg(test)]
    pub(super) fn fail(&self) {
        self.settled.send_modify(|settled| settled.failed = true);
    }

    /// Waits until all that a read may have seen is on the disk.
    pub(super) async fn seen(&self) -> Result<(), StoreError> {
        let begun = self.begun.load(SeqCst);
        let is_settled = |settled: &Settled| settled.failed || settled.through >= begun;
        let mut found = *self.settled.borrow();
        if !is_settled(&found) {
            let mut settled = self.settled.subscribe();
            // The sender is this store's own.
            found = settled.wait_for(is_settled).await.map_or(found, |settled| *settled);
        }
        if found.failed {
            let reason = self.named("the disk failed to sync what the read may have seen");
            return Err(StoreError::Unavailable { reason });
        }
        Ok(())
    }

    /// Takes over what is written. True when no thread syncs, and one is to be started.
    pub(super) fn push(&self, written: Written) -> bool {
        let mut waiting = self.waiting.lock();
        waiting.jobs += written.len();
        waiting.unsynced += written.len();
        waiting.written.push(written);
        if waiting.wanted.is_some_and(|wanted| waiting.jobs >= wanted) {
            waiting.wanted = None;
            self.enough.notify_one();
        }
        !std::mem::replace(&mut waiting.syncing, true)
    }

    /// What the next sync is for. Leaves the callers of the last one time to come back, so that
    /// this one is not for a few only: a sync costs the same, whatever its size. Sleeps meanwhile,
    /// because the scheduler may put a thread that yields far behind the others. None: nothing was
    /// written, and the thread ends.
    pub(super) fn take(&self) -> Option<Vec<Written>> {
        let mut waiting = self.waiting.lock();
        let expected = std::mem::take(&mut waiting.expected);
        if waiting.jobs < expected.jobs {
            waiting.wanted = Some(expected.jobs);
            self.enough.wait_for(&mut waiting, expected.within);
            waiting.wanted = None;
        }
        waiting.jobs = 0;
        waiting.syncing = !waiting.written.is_empty();
        waiting.syncing.then(|| std::mem::take(&mut waiting.written))
    }

    /// Some jobs were synced, which took so long.
    pub(super) fn took(&self, written: &[Written], time: Duration) {
        let jobs = written.iter().flatten().map(|(job, _)| job.bytes);
        let (count, bytes) = (jobs.clone().count(), jobs.sum());
        let mut waiting = self.waiting.lock();
        waiting.unsynced -= count;
        waiting.expected = Expected::after((count, bytes), waiting.jobs, time);
    }
}

#[cfg(test)]
mod tests {
    use std::{os::fd::OwnedFd, time::SystemTime};

    use futures_util::FutureExt as _;
    use metrics::with_local_recorder;

    use super::*;
    use crate::data_store::{
        SqliteOptions, SqliteStore,
        sqlite::answers::tests::{Counting, written},
    };

    /// How many jobs the next sync is for.
    fn taken(syncs: &Syncs) -> usize {
        syncs.take().expect("something is written").iter().map(Vec::len).sum()
    }

    fn expect(syncs: &Syncs, jobs: usize, within: Duration) {
        syncs.waiting.lock().expected = Expected { jobs, within };
    }

    #[test]
    fn a_sync_begins_as_soon_as_the_expected_jobs_are_written() {
        let syncs = Syncs::none();
        expect(&syncs, 10, Duration::from_secs(600));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for turn in 0..5 {
                    // One thread syncs.
                    assert_eq!(syncs.push(written(2, 1)), turn == 0);
                }
            });
            assert_eq!(taken(&syncs), 10);
        });
        assert!(syncs.take().is_none());
        assert!(syncs.push(written(1, 1)), "the thread has ended");
    }

    #[test]
    fn a_sync_begins_without_jobs_that_do_not_come() {
        let syncs = Syncs::none();
        syncs.push(written(1, 1));
        expect(&syncs, 2, Duration::from_millis(1));
        assert_eq!(taken(&syncs), 1);
        expect(&syncs, 2, Duration::from_millis(1));
        assert!(syncs.take().is_none(), "nor does it wait twice");
    }

    #[test]
    fn callers_are_expected_back_after_a_slow_sync_of_small_jobs() {
        let slow = Duration::from_millis(8);
        let within = slow / GATHER_SHARE;
        assert_eq!(Expected::after((9, 9), 3, slow), Expected { jobs: 12, within });
        let stalled = Expected::after((9, 9), 3, Duration::from_secs(14));
        assert_eq!(stalled.within, GATHER_MOST);
        let quick = GATHER_LEAST * (GATHER_SHARE - 1);
        for none in [
            Expected::after((9, 9), 3, quick),
            Expected::after((1, 1), 0, slow),
            Expected::after((9, BATCH_BYTES), 3, slow),
        ] {
            assert_eq!(none, Expected::default());
        }
    }

    #[tokio::test]
    async fn a_read_waits_for_the_sync_of_what_it_may_have_seen() {
        let dir = tempfile::tempdir().expect("a folder");
        let log = File::create(dir.path().join("log")).expect("a file");
        let syncs = Syncs { log: Some(log), ..Syncs::none() };
        syncs.seen().await.expect("nothing was written");
        syncs.begin();
        let mut read = Box::pin(syncs.seen());
        assert!(read.as_mut().now_or_never().is_none());
        // It may have begun before the other one, and is not behind its `COMMIT` yet.
        syncs.sync().expect("synced");
        assert!(read.as_mut().now_or_never().is_none());
        syncs.end();
        assert!(!syncs.is_settled());
        syncs.sync().expect("synced");
        assert!(syncs.is_settled());
        read.await.expect("it is on the disk");
    }

    /// A later sync that succeeds says nothing of what the earlier one was for. The log was copied
    /// into the file, beside what the disk had of it: a loss of power then mixed old pages and new
    /// ones, or took back what was acknowledged later.
    #[tokio::test]
    async fn after_a_failed_sync_nothing_is_answered_until_the_log_was_written_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("players.db");
        let store = SqliteStore::open(&path, SqliteOptions::default()).expect("the store opens");
        let connect = || store.inner.another_writer().expect("a connection");
        // A pipe cannot be synced.
        let (pipe, _) = std::io::pipe().expect("a pipe");
        let log = Some(File::from(OwnedFd::from(pipe)));
        let mut syncs = Syncs { log, path: path.clone(), ..Syncs::none() };
        syncs.begin();
        syncs.end();
        let mut read = Box::pin(syncs.seen());
        assert!(read.as_mut().now_or_never().is_none());
        let (counting, failures) = Counting::of("profilestore_sqlite_sync_failures_total");
        let named = format!("path=`{}`", path.display());
        for text in ["the disk failed to sync the log", "an earlier sync of the log failed"] {
            let err = with_local_recorder(&counting, || syncs.sync()).expect_err("no sync");
            assert!(err.contains(text) && err.contains(&named), "{err}");
        }
        assert_eq!(failures.load(SeqCst), 1);
        assert!(read.await.is_err());
        assert!(!syncs.is_settled());
        let name = beside(&path, "-wal");
        let log = OpenOptions::new().read(true).write(true).open(&name).expect("the log");
        syncs.log = Some(log.try_clone().expect("the log"));
        let (writer, another, reader) = (connect(), connect(), connect());
        writer
            .execute_batch("INSERT INTO meta (name, value) VALUES ('a', x'00')")
            .expect("written");
        let bytes = std::fs::read(&name).expect("the log");
        log.set_modified(SystemTime::UNIX_EPOCH).expect("a time");
        let is_written = || {
            let found = log.metadata().and_then(|log| log.modified()).expect("a time");
            found != SystemTime::UNIX_EPOCH
        };
        // Another process is writing to it.
        another.execute_batch("BEGIN IMMEDIATE").expect("the lock");
        let look = |log: &File| store.inner.lost_frames(log);
        match syncs.secure(&writer, Duration::ZERO, look) {
            Err(StoreError::Unavailable { reason }) => {
                assert!(reason.contains("cannot be written again yet"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
        assert!(syncs.seen().await.is_err());
        assert!(!is_written());
        another.execute_batch("ROLLBACK").expect("the lock is free");
        // A read is not in the way.
        reader.execute_batch("BEGIN; SELECT count(*) FROM head").expect("a read");
        syncs.secure(&writer, Duration::ZERO, look).expect("written again");
        assert!(is_written() && writer.is_autocommit());
        assert_eq!(std::fs::read(&name).expect("the log"), bytes);
        assert!(syncs.is_settled());
        syncs.seen().await.expect("it is on the disk");
    }
}
