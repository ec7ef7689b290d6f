//! The writer: a connection that puts commits into transactions.

use std::{
    fs::File,
    sync::Arc,
    time::{Duration, Instant as RealTime},
};

use rusqlite::{Connection, ErrorCode, wal::CheckpointMode};

use super::{
    Inner, Trouble,
    busy::{Busy, real_time, wait_while_busy},
    checkpoints::{Due, Logged, checkpoint},
    known::KnownHeads,
    queue::{Job, Reply},
    schema,
    state::Tx,
    statements::Leases,
};
use crate::data_store::{Commit, StoreError, rules};

pub(super) struct Writer {
    pub(super) conn: Connection,
    leases: Leases,
    known: KnownHeads,
    /// The last transaction ended well, so that the known heads are those of the file.
    trusted: bool,
    /// The connection failed in a way after which it is replaced.
    broken: bool,
    /// `PRAGMA data_version`, and for how many transactions to come it counts as recently changed
    /// by another process.
    data_version: i64,
    contended: u32,
    /// Since when the writer does not have the file's lock.
    unlocked_since: RealTime,
    /// How many pages were in the log when the writer last checkpointed in its own turn; 0 when the
    /// log began anew.
    checkpointed_at: i32,
    /// The log has grown since it was last looked at.
    grew: bool,
}

/// What came of an attempt to begin a transaction.
pub(super) enum Begun {
    Yes,
    /// Another process holds the file's write lock.
    Busy(rusqlite::Error),
}

/// How a transaction failed.
pub(super) enum Failed {
    /// Nothing was applied, and the same would happen to each of its commits alone.
    All(StoreError),
    /// Nothing was applied because of one of its commits.
    One(StoreError),
    /// Nothing was applied for lack of room. What needs less may go through.
    Full(StoreError),
    /// It may have been applied.
    Unknown(String),
}

impl Writer {
    pub(super) fn new(conn: Connection) -> Result<Self, StoreError> {
        Ok(Self {
            conn: unsynced(conn)?,
            leases: Leases::default(),
            known: KnownHeads::default(),
            trusted: false,
            broken: false,
            data_version: 0,
            contended: 0,
            unlocked_since: real_time(),
            checkpointed_at: 0,
            grew: false,
        })
    }

    /// Writes jobs in the transaction that has begun. They are answered when it has been synced.
    pub(super) fn run(&mut self, inner: &Arc<Inner>, jobs: Vec<Job>) {
        let count: usize = jobs.iter().map(|job| job.commits.len()).sum();
        let span = tracing::debug_span!("sqlite batch", commits = count);
        let _entered = span.enter();
        let lists: Vec<&[Commit]> = jobs.iter().map(|job| &*job.commits).collect();
        let replies = match self.commit_begun(inner, &lists) {
            // One of them spoils the transaction: each gets its own.
            Err(Failed::One(err)) if count > 1 => {
                tracing::warn!(%err, commits = count, "a commit spoiled its transaction");
                let until = real_time() + inner.options.lock_wait();
                for_each(&lists, |commit| self.alone(inner, commit, until))
            }
            // A renewal needs next to no room, and game servers end without it.
            Err(Failed::Full(err)) if count > 1 => {
                let until = real_time() + inner.options.lock_wait();
                for_each(&lists, |commit| match rules::renewed(commit) {
                    Some(_) => self.alone(inner, commit, until),
                    None => Err(err.clone()),
                })
            }
            Ok(replies) => replies,
            Err(failed) => for_each(&lists, |commit| Err(failed.of(commit))),
        };
        metrics::histogram!("profilestore_sqlite_batch_commits").record(count as f64);
        let written = jobs.into_iter().zip(replies).collect();
        inner.answer_when_synced(written, || self.sync(inner));
        self.look_at_log(inner);
    }

    /// Writes a commit in a transaction of its own.
    fn alone(&mut self, inner: &Arc<Inner>, commit: &Commit, until: RealTime) -> Reply {
        let written = self
            .begin_by(inner, until)
            .and_then(|()| self.commit_begun(inner, &[std::slice::from_ref(commit)]))
            .and_then(|replies| self.sync(inner).map(|()| replies).map_err(Failed::Unknown));
        match written {
            Ok(replies) => replies.into_iter().flatten().next().unwrap_or_else(|| Err(no_reply())),
            Err(failed) => Err(failed.of(commit)),
        }
    }

    fn commit_begun(
        &mut self,
        inner: &Arc<Inner>,
        lists: &[&[Commit]],
    ) -> Result<Vec<Vec<Reply>>, Failed> {
        let (mut replies, mut repeated) = (Vec::with_capacity(lists.len()), false);
        self.finish(inner, |tx| {
            let incarnation = schema::incarnation(tx.conn)?;
            let mut wrote = false;
            for commits in lists {
                let mut answers = Vec::with_capacity(commits.len());
                for commit in *commits {
                    let reply = tx.commit(commit, incarnation)?;
                    match &reply {
                        Ok(reply) if reply.already_applied => repeated = true,
                        Ok(_) => wrote = true,
                        Err(_) => {}
                    }
                    answers.push(reply);
                }
                replies.push(answers);
            }
            Ok(wrote)
        })?;
        if repeated {
            // Another process may have applied it, and is about to sync it.
            inner.syncs.begin();
            inner.syncs.end();
        }
        Ok(replies)
    }

    /// Gets the file's write lock, if no other process has it.
    pub(super) fn begin(&mut self, inner: &Arc<Inner>) -> Result<Begun, Failed> {
        inner.still_there_or_rescue(&self.conn).map_err(Failed::All)?;
        self.recover(inner)?;
        if self.contended > 0 {
            self.contended -= 1;
            let turn = turn_of_others(self.unlocked_since.elapsed());
            if !turn.is_zero() {
                std::thread::park_timeout(turn);
            }
        }
        match self.conn.prepare_cached("BEGIN IMMEDIATE").and_then(|mut begin| begin.execute([])) {
            Ok(_) => {
                self.look_for_others();
                Ok(Begun::Yes)
            }
            Err(err) if schema::is_busy(&err) => Ok(Begun::Busy(err)),
            Err(err) => Err(Failed::All(Trouble::from(err).not_applied())),
        }
    }

    /// Looks whether another connection wrote to the file since the last transaction. Has the lock.
    fn look_for_others(&mut self) {
        let version: i64 = self
            .conn
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut version| version.query_row([], |row| row.get(0)))
            .unwrap_or(0);
        let others = version != self.data_version;
        if others || version == 0 || !self.trusted {
            self.known.forget();
        }
        if others {
            self.contended = if self.data_version == 0 { 0 } else { 16 };
            self.data_version = version;
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

    /// Syncs what was committed, on this thread.
    fn sync(&self, inner: &Inner) -> Result<(), String> {
        inner.syncs.sync()?;
        // The log may have been taken away before it was synced.
        inner.still_there_or_rescue(&self.conn).map_err(|err| err.to_string())
    }

    /// Runs `work` in a transaction, commits it when `work` says that it wrote something, and syncs
    /// it.
    pub(super) fn transaction(
        &mut self,
        inner: &Arc<Inner>,
        work: impl FnOnce(&mut Tx<'_>) -> Result<bool, Trouble>,
    ) -> Result<(), Failed> {
        self.begin_by(inner, real_time() + inner.options.lock_wait())?;
        // It may write to heads in its own way.
        self.known.forget();
        self.finish(inner, |tx| {
            tx.know_nothing();
            work(tx)
        })?;
        let synced = self.sync(inner).map_err(Failed::Unknown);
        self.look_at_log(inner);
        synced
    }

    /// Runs `work` in the transaction that has begun.
    fn finish(
        &mut self,
        inner: &Arc<Inner>,
        work: impl FnOnce(&mut Tx<'_>) -> Result<bool, Trouble>,
    ) -> Result<(), Failed> {
        self.trusted = false;
        let worked = {
            let now_ms = inner.options.env.unix_ms();
            let mut tx = Tx::of_writer(&self.conn, now_ms, &self.leases, &self.known);
            work(&mut tx)
        };
        let wrote = match worked {
            Ok(wrote) => wrote,
            Err(trouble) => {
                self.roll_back();
                let (shared, full) = match &trouble {
                    Trouble::Store(_) => (false, false),
                    Trouble::Sqlite(err) => (concerns_all(err), is_full(err)),
                };
                self.broken |= shared && !full;
                let err = trouble.not_applied();
                return Err(match () {
                    () if full => Failed::Full(err),
                    () if shared => Failed::All(err),
                    () => Failed::One(err),
                });
            }
        };
        if !wrote {
            self.roll_back();
            self.trusted = !self.broken;
            return Ok(());
        }
        inner.syncs.begin();
        let committed = wait_while_busy(inner.options.lock_wait(), || {
            self.conn.prepare_cached("COMMIT")?.execute([])
        });
        inner.syncs.end();
        self.unlocked_since = real_time();
        if let Err(err) = committed {
            let full = is_full(&err);
            self.broken |= !full;
            self.roll_back();
            // A log that could not be written to its last page holds no valid commit, whatever
            // happens next. Any other failure may have come after that page. Then it is not known
            // what a crash would make of it.
            let surely_not = full || schema::is_busy(&err);
            tracing::warn!(%err, surely_not, "a transaction could not be committed");
            // There is nothing of it to be synced, but what reads have seen is counted together.
            drop(inner.syncs.sync());
            return Err(match () {
                () if full => Failed::Full(Trouble::from(err).not_applied()),
                () if surely_not => Failed::All(Trouble::from(err).not_applied()),
                () => Failed::Unknown(format!("SQLite failed to commit: {err}")),
            });
        }
        (self.trusted, self.grew) = (true, true);
        Ok(())
    }

    /// Makes good a sync that failed.
    pub(super) fn secure(&mut self, inner: &Inner) -> Result<(), StoreError> {
        if !inner.syncs.has_failed() {
            return Ok(());
        }
        // A panic may have left its transaction open.
        self.roll_back();
        let look = |log: &File| inner.lost_frames(log);
        inner.syncs.secure(&self.conn, inner.options.lock_wait(), look)
    }

    /// Sees to it that all of the log is on the disk, before it is copied into the file and
    /// removed.
    pub(super) fn settle(&mut self, inner: &Inner) -> Result<(), StoreError> {
        // Also what another thread is about to sync. When it fails, it is made good.
        drop(inner.syncs.sync());
        self.secure(inner)
    }

    /// Sees to it that a log which has grown is copied into the file.
    fn look_at_log(&mut self, inner: &Arc<Inner>) {
        // Not to wait for the next commit: reads are refused until then. The sync may have been for
        // one that was applied before, so that the log has not grown.
        if let Err(err) = self.secure(inner) {
            return tracing::warn!(%err, "a failed sync could not be made good yet");
        }
        if !std::mem::take(&mut self.grew) {
            return;
        }
        let Ok((logged, done)) =
            self.conn.wal_checkpoint_v2(Some(rusqlite::MAIN_DB), CheckpointMode::NOOP)
        else {
            return;
        };
        if logged < self.checkpointed_at {
            self.checkpointed_at = 0;
        }
        let at_last_turn = self.checkpointed_at;
        let log = Logged { pages: logged, copied: done, at_last_turn };
        if inner.checkpoint_due(log) == Due::InTurn {
            self.checkpointed_at = logged;
            checkpoint(&self.conn);
        }
    }

    /// Makes the connection fit for a new transaction.
    fn recover(&mut self, inner: &Arc<Inner>) -> Result<(), Failed> {
        if !self.conn.is_autocommit() {
            self.trusted = false;
            self.roll_back();
        }
        if self.broken || !self.conn.is_autocommit() {
            let conn = inner.another_writer().map_err(Failed::All)?;
            self.conn = unsynced(conn).map_err(Failed::All)?;
            (self.broken, self.trusted, self.data_version) = (false, false, 0);
        }
        self.secure(inner).map_err(Failed::All)
    }

    pub(super) fn roll_back(&mut self) {
        // SQLite rolls back by itself after some errors; then there is nothing to do.
        if !self.conn.is_autocommit()
            && let Err(err) = self.conn.execute_batch("ROLLBACK")
        {
            tracing::warn!(%err, "a transaction could not be rolled back");
            self.broken = true;
        }
        self.unlocked_since = real_time();
    }
}

/// How long a writer leaves the file's lock to another process that writes too, so long after it
/// let go of it. One that waits looks every tenth of a millisecond at first.
fn turn_of_others(unlocked_for: Duration) -> Duration {
    Duration::from_micros(200).saturating_sub(unlocked_for)
}

/// Leaves the syncs of commits to [`super::sync`]. Checkpoints sync as before.
fn unsynced(conn: Connection) -> Result<Connection, StoreError> {
    let set = conn.pragma_update(None, "synchronous", "NORMAL");
    set.map(|()| conn).map_err(|err| Trouble::from(err).not_applied())
}

impl Failed {
    fn of(&self, commit: &Commit) -> StoreError {
        match self {
            Self::All(err) | Self::One(err) | Self::Full(err) => err.clone(),
            Self::Unknown(reason) => {
                StoreError::Indeterminate { commit: commit.id, reason: reason.clone() }
            }
        }
    }
}

/// An answer for each commit of some lists of them.
fn for_each(lists: &[&[Commit]], mut answer: impl FnMut(&Commit) -> Reply) -> Vec<Vec<Reply>> {
    lists.iter().map(|commits| commits.iter().map(&mut answer).collect()).collect()
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

fn is_full(err: &rusqlite::Error) -> bool {
    err.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

fn no_reply() -> StoreError {
    StoreError::Unavailable { reason: "the store gave no answer for the commit".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data_store::{
            DataStore as _, SqliteOptions, SqliteStore, sqlite::answers::tests::first_save,
        },
        key::ProfileKey,
    };

    /// Each commit of two processes that wrote in turn waited 0.2 ms, as in a hand-over.
    #[test]
    fn a_lock_that_was_free_for_long_is_taken_at_once() {
        let turn = |micros| turn_of_others(Duration::from_micros(micros)).as_micros();
        assert_eq!([turn(0), turn(150), turn(200), turn(10_000)], [200, 50, 0, 0]);
    }

    /// Reads were refused until the next commit, when the sync was for one that was applied before.
    #[test]
    fn a_failed_sync_is_made_good_though_nothing_was_written() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("players.db");
        let store = SqliteStore::open(path, SqliteOptions::default()).expect("the store opens");
        let inner = &store.inner;
        inner.syncs.fail();
        inner.writer.lock().as_mut().expect("a writer").look_at_log(inner);
        assert!(inner.syncs.is_settled());
    }

    /// The same request may reach two servers. The second one acknowledged what the first one had
    /// not synced.
    #[tokio::test]
    async fn a_commit_that_another_process_may_have_applied_is_synced_before_its_answer() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("players.db");
        let store = SqliteStore::open(path, SqliteOptions::default()).expect("the store opens");
        let incarnation = store.identity().await.expect("an identity").incarnation;
        let key = ProfileKey::new("S", "global", "k").expect("a valid name");
        let commit = first_save(incarnation, &key, "1".into());
        let inner = &store.inner;
        let mut writing = inner.writer.lock();
        let writer = writing.as_mut().expect("a writer");
        for applied_before in [false, true] {
            assert!(matches!(writer.begin(inner), Ok(Begun::Yes)));
            let Ok(replies) = writer.commit_begun(inner, &[std::slice::from_ref(&commit)]) else {
                panic!("it was refused");
            };
            let reply = replies.into_iter().flatten().next().expect("an answer");
            assert_eq!(reply.expect("applied").already_applied, applied_before);
            assert!(!inner.syncs.is_settled());
            assert_eq!(writer.sync(inner), Ok(()));
            assert!(inner.syncs.is_settled());
        }
    }
}
