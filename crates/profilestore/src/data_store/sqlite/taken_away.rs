//! Noticing that a store's files were deleted, replaced or overwritten while it is open.
//!
//! SQLite goes on with what it has open: commits go to a log that no name leads to, another process
//! that opens the path finds the store as it was before that log, and all of it is gone with the
//! last process that has it open. So the writer compares the files that the names lead to with
//! those that it has open, and looks whether another program wrote to the file (`contents.rs`),
//! before each transaction and before it answers for one. When something differs, nothing is
//! acknowledged any more. What had been is copied to a file beside the store, and no program opens
//! the store until an operator has decided what counts.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::{Duration, Instant as RealTime},
};

use parking_lot::Mutex;
use rusqlite::Connection;

use super::{
    Inner, backup,
    busy::real_time,
    check::CheckReport,
    checkpoints::{checkpoint, keep_log},
    contents::{Contents, Found, Written, id_of},
    holder,
    kept::{How, Kept, decide},
    log_frames::{self, Lost, write_again},
    schema::{self, Role, beside},
};
use crate::data_store::StoreError;

/// How often the log says that a copy fails, which is tried at every renewal.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// Device and inode of the file, its log, and the index of the log; and when the file was written.
#[derive(Debug)]
struct Files {
    ids: [(u64, u64); 3],
    written: Written,
}

impl Files {
    /// To which files the names lead now. None: to none, for one of them.
    fn of(path: &Path) -> io::Result<Option<Self>> {
        let look = |more: &str| match fs::metadata(beside(path, more)) {
            Ok(found) => Ok(Some(found)),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(err) => Err(err),
        };
        let (Some(file), Some(log), Some(index)) = (look("")?, look("-wal")?, look("-shm")?) else {
            return Ok(None);
        };
        let ids = [&file, &log, &index].map(id_of);
        Ok(Some(Self { ids, written: Written::of(&file) }))
    }
}

/// The files of an open store.
#[derive(Debug)]
pub(super) struct Guard {
    path: PathBuf,
    ids: [(u64, u64); 3],
    contents: Contents,
    /// What every call is told once they are gone.
    told: Mutex<Option<StoreError>>,
    /// Something was found, so that nothing is read or written any more.
    known: AtomicBool,
    /// When the log said last that a copy fails.
    said: Mutex<Option<RealTime>>,
    /// The store was closed: the last one to close a file removes its log.
    closed: AtomicBool,
    /// It was closed with a log that may not be on the disk.
    unsynced: AtomicBool,
}

/// What a look at the files found.
enum Look {
    Fine,
    /// Until a checkpoint is done, nothing can be told about the file's contents.
    Unsure,
    Gone(How),
}

impl Guard {
    /// For files that a connection has just opened for writing.
    pub(super) fn new(path: &Path, conn: &Connection) -> Result<Self, StoreError> {
        let not_looked_at = |err: io::Error| not_looked_at(path, &err);
        let Some(files) = Files::of(path).map_err(not_looked_at)? else {
            return Err(StoreError::Unavailable {
                reason: format!(
                    "the file's log was deleted while the file was opened; try again: path=`{}`",
                    path.display()
                ),
            });
        };
        let guard = Self {
            path: path.to_owned(),
            ids: files.ids,
            contents: Contents::new(path).map_err(not_looked_at)?,
            told: Mutex::default(),
            known: AtomicBool::new(false),
            said: Mutex::default(),
            closed: AtomicBool::new(false),
            unsynced: AtomicBool::new(false),
        };
        // A log that a crash left.
        if let Look::Unsure = guard.look()? {
            guard.write_log_again(conn, write_again)?;
            checkpoint(conn);
            guard.look()?;
        }
        Ok(guard)
    }

    /// Writes again what a process left in the log that ended without closing the store. A sync of
    /// it may have failed, which no later one tells. A log that another process is using is left
    /// alone: it may be long, and no process could commit meanwhile. One that a loss of power cut
    /// short passes: its index, which was made when it was opened, counts only what is before that.
    fn write_log_again(
        &self,
        conn: &Connection,
        write: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        if holder::is_checkpointing(&self.path) || conn.execute_batch("BEGIN IMMEDIATE").is_err() {
            return Ok(());
        }
        let opened = OpenOptions::new().read(true).write(true).open(beside(&self.path, "-wal"));
        let written = opened.and_then(|log| {
            if !self.is_log(&log.metadata()?) {
                return Ok(None);
            }
            write(&log)?;
            self.lost_frames(&log)
        });
        if let Err(err) = conn.execute_batch("ROLLBACK") {
            tracing::warn!(%err, "a transaction could not be rolled back");
        }
        let why = match written {
            Ok(None) => return Ok(()),
            Ok(Some(lost)) => lost.to_string(),
            Err(err) => err.to_string(),
        };
        Err(StoreError::Unavailable {
            reason: format!(
                "the file's log was left behind by a program that ended, and cannot be written \
                 again, as it has to be before it is used: {why}: path=`{}`",
                self.path.display()
            ),
        })
    }

    /// What is lost of the log. No process may write to it meanwhile.
    fn lost_frames(&self, log: &File) -> io::Result<Option<Lost>> {
        log_frames::lost(log, &self.contents.committed()?)
    }

    /// Whether this is the store's file, by its device and inode.
    pub(super) fn is_file(&self, id: (u64, u64)) -> bool {
        self.ids[0] == id
    }

    /// Whether this is the log.
    pub(super) fn is_log(&self, file: &fs::Metadata) -> bool {
        id_of(file) == self.ids[1]
    }

    fn look(&self) -> Result<Look, StoreError> {
        let look = || -> io::Result<Look> {
            let log = self.contents.log()?;
            let Some(files) = Files::of(&self.path)?.filter(|files| files.ids == self.ids) else {
                return Ok(Look::Gone(How::Taken));
            };
            Ok(match self.contents.judge(log, files.written)? {
                Found::Own => Look::Fine,
                Found::Unsure => Look::Unsure,
                Found::Overwritten => Look::Gone(How::Overwritten),
            })
        };
        look().map_err(|err| not_looked_at(&self.path, &err))
    }

    /// Fails once the files that the store has open are no longer those that its names lead to, or
    /// another program wrote to them.
    pub(super) fn still_there(&self) -> Result<(), StoreError> {
        if let Some(told) = self.told.lock().clone() {
            return Err(told);
        }
        if self.closed.load(SeqCst) {
            return Ok(());
        }
        match self.look()? {
            Look::Fine | Look::Unsure => Ok(()),
            Look::Gone(how) => Err(self.gone(how, "the writer is about to keep what it can")),
        }
    }

    /// Fails once that was found. Looks at no file.
    pub(super) fn not_known_to_be_gone(&self) -> Result<(), StoreError> {
        if self.known.load(SeqCst) { self.still_there() } else { Ok(()) }
    }

    fn gone(&self, how: How, more: &str) -> StoreError {
        self.known.store(true, SeqCst);
        StoreError::TakenAway {
            reason: format!(
                "{} while this program had it open, and nothing is saved any more; {more}: \
                 path=`{}`",
                how.what_happened(),
                self.path.display()
            ),
        }
    }

    /// The store's own connections are about to be closed, and its files may go.
    pub(super) fn close(&self) {
        self.closed.store(true, SeqCst);
    }

    /// The log may not be on the disk. The last connection to be closed, a messenger's perhaps, is
    /// not to copy it into the file.
    pub(super) fn keep_log(&self) {
        self.unsynced.store(true, SeqCst);
    }

    /// Lets a connection that may write be closed without touching what its names lead to by now:
    /// closing the last connection to a file copies its log into it.
    pub(super) fn let_go(&self, conn: &Connection) {
        if self.unsynced.load(SeqCst) || self.still_there().is_err() {
            keep_log(conn);
        }
    }

    /// Logs an error, at first and then once a minute.
    fn say(&self, err: &StoreError) {
        let mut said = self.said.lock();
        if said.is_none_or(|at| at.elapsed() >= SAID_EVERY) {
            *said = Some(real_time());
            tracing::error!(%err, "the store's files were taken away");
        }
    }
}

impl Inner {
    /// Fails once the files that the store has open are no longer those that its names lead to, or
    /// another program wrote to them.
    pub(super) fn still_there(&self) -> Result<(), StoreError> {
        self.guard.as_ref().map_or(Ok(()), |guard| guard.still_there())
    }

    /// The same, as far as it was found already.
    pub(super) fn not_known_to_be_gone(&self) -> Result<(), StoreError> {
        self.guard.as_ref().map_or(Ok(()), |guard| guard.not_known_to_be_gone())
    }

    /// The same for the writer, which copies what was acknowledged from its connection when it is
    /// the first to notice. A copy that fails is tried again the next time.
    pub(super) fn still_there_or_rescue(&self, conn: &Connection) -> Result<(), StoreError> {
        let Some(guard) = &self.guard else { return Ok(()) };
        let mut told = guard.told.lock();
        if let Some(told) = &*told {
            return Err(told.clone());
        }
        let how = match guard.look()? {
            Look::Fine => return Ok(()),
            Look::Unsure => {
                // One of this store's own is waited for.
                if conn.is_autocommit() && !self.syncs.has_failed() {
                    checkpoint(conn);
                }
                return Ok(());
            }
            Look::Gone(how) => how,
        };
        guard.known.store(true, SeqCst);
        let (kept, said) = self.keep(conn, how);
        let err = guard.gone(how, &said);
        guard.say(&err);
        if kept {
            *told = Some(err.clone());
        }
        Err(err)
    }

    /// Copies what the connection reads to a file beside the store. Answers whether that is
    /// settled, and with what is to be said of it.
    fn keep(&self, conn: &Connection, how: How) -> (bool, String) {
        if !conn.is_autocommit()
            && let Err(err) = conn.execute_batch("ROLLBACK")
        {
            tracing::warn!(%err, "a transaction could not be rolled back");
        }
        let now_ms = self.options.env.unix_ms();
        let kept = Kept { how, file: how.file(&self.path, now_ms) };
        let what_to_do = decide(&self.path, &kept);
        let copied = backup::copy_to(conn, &kept.file, now_ms, || Ok(()), |_, _| {});
        let shown = kept.file.display();
        let is_whole =
            |report: &CheckReport| report.problems.is_empty() && report.damaged.is_empty();
        match (how, copied) {
            (How::Taken, Ok(report)) if is_whole(&report) => {
                (true, format!("all that this program acknowledged is in `{shown}`; {what_to_do}"))
            }
            (How::Taken, Ok(_)) => (
                true,
                format!(
                    "what this program acknowledged is in `{shown}`, of which some is damaged: \
                     another program may have written to the store meanwhile; {what_to_do}"
                ),
            ),
            (How::Taken, Err(err)) => (
                false,
                format!(
                    "what this program acknowledged cannot be copied to `{shown}` yet, which is \
                     tried again: {err}"
                ),
            ),
            (How::Overwritten, Ok(_)) => {
                (true, format!("what could still be read is in `{shown}`; {what_to_do}"))
            }
            // So that no program opens what is left, and an operator finds why.
            (How::Overwritten, Err(err)) => {
                let said = format!("nothing could be read any more ({err}); {what_to_do}");
                match fs::write(&kept.file, said.clone() + "\n") {
                    Ok(()) => (true, said),
                    Err(err) => (false, format!("{said}; `{shown}` cannot be written: {err}")),
                }
            }
        }
    }

    /// The same before the writer's connection is closed.
    pub(super) fn let_go(&self, writer: &Connection) {
        if self.still_there_or_rescue(writer).is_err()
            && let Some(guard) = &self.guard
        {
            guard.let_go(writer);
        }
    }

    /// What is lost of the log. No process may write to it meanwhile.
    pub(super) fn lost_frames(&self, log: &File) -> io::Result<Option<Lost>> {
        self.guard.as_ref().map_or(Ok(None), |guard| guard.lost_frames(log))
    }

    /// A connection that reads.
    pub(super) fn reader(&self) -> Result<Connection, StoreError> {
        self.still_there()?;
        schema::connect(&self.path, self.reading, &self.options)
    }

    /// A connection that may write.
    pub(super) fn another_writer(&self) -> Result<Connection, StoreError> {
        self.still_there()?;
        schema::connect(&self.path, Role::Writer, &self.options)
    }
}

fn not_looked_at(path: &Path, err: &io::Error) -> StoreError {
    StoreError::Unavailable {
        reason: format!("the store's files cannot be looked at: {err}: path=`{}`", path.display()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{os::unix::fs::FileExt as _, time::SystemTime};

    use super::*;
    use crate::data_store::{SqliteOptions, SqliteStore};

    /// Copies an open file with its log, as a process leaves them that is killed.
    pub(in super::super) fn leave(path: &Path, left: &Path) {
        for more in ["", "-wal"] {
            fs::copy(beside(path, more), beside(left, more)).expect("a copy");
        }
    }

    /// The process may have ended because a sync of it had failed. What came behind it was synced
    /// and acknowledged, and a loss of power took it back.
    #[test]
    fn a_log_that_was_left_behind_is_written_again_when_the_store_is_opened() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("players.db");
        let store = SqliteStore::open(&path, SqliteOptions::default()).expect("the store opens");
        let conn = store.inner.another_writer().expect("a connection");
        conn.execute_batch("INSERT INTO meta (name, value) VALUES ('a', x'00')").expect("written");
        let left = dir.path().join("left.db");
        leave(&path, &left);
        let log = OpenOptions::new().write(true).open(beside(&left, "-wal")).expect("the log");
        log.set_modified(SystemTime::UNIX_EPOCH).expect("a time");
        let opened = SqliteStore::open(&left, SqliteOptions::default()).expect("the store opens");
        let modified = || log.metadata().and_then(|log| log.modified()).expect("a time");
        assert_ne!(modified(), SystemTime::UNIX_EPOCH);
        // One that is in use is its owner's.
        log.set_modified(SystemTime::UNIX_EPOCH).expect("a time");
        let another = SqliteStore::open(&left, SqliteOptions::default()).expect("the store opens");
        assert_eq!(modified(), SystemTime::UNIX_EPOCH);
        drop((opened, another));
    }

    /// What a loss of power leaves is no log that has lost something while it was in use.
    #[test]
    fn a_log_that_was_left_behind_and_ends_in_the_middle_is_used_up_to_there() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("players.db");
        let store = SqliteStore::open(&path, SqliteOptions::default()).expect("the store opens");
        let conn = store.inner.another_writer().expect("a connection");
        for name in ["a", "b"] {
            let sql = "INSERT INTO meta (name, value) VALUES (?1, x'00')";
            conn.execute(sql, [name]).expect("written");
        }
        let left = dir.path().join("left.db");
        leave(&path, &left);
        let log = OpenOptions::new().write(true).open(beside(&left, "-wal")).expect("the log");
        log.set_len(log.metadata().expect("a log").len() - 1).expect("cut");
        let opened = SqliteStore::open(&left, SqliteOptions::default()).expect("the store opens");
        let found: String = opened
            .inner
            .another_writer()
            .expect("a connection")
            .query_row("SELECT group_concat(name) FROM meta WHERE name < 'c'", [], |row| row.get(0))
            .expect("names");
        assert_eq!(found, "a");
    }

    /// It was copied into the file all the same. So was what the system took for the log after it
    /// had given up a page.
    #[test]
    fn a_log_that_was_left_behind_and_cannot_be_written_again_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("players.db");
        let store = SqliteStore::open(&path, SqliteOptions::default()).expect("the store opens");
        let guard = store.inner.guard.clone().expect("a store that writes");
        let conn = store.inner.another_writer().expect("a connection");
        conn.execute_batch("INSERT INTO meta (name, value) VALUES ('a', x'00')").expect("written");
        let full = |_: &File| Err(io::Error::from(io::ErrorKind::StorageFull));
        let loses = |log: &File| log.write_all_at(b"~", log.metadata()?.len() - 4000);
        for (refused, why) in [
            (guard.write_log_again(&conn, full), io::ErrorKind::StorageFull.to_string()),
            (guard.write_log_again(&conn, loses), "the log lost ".to_owned()),
        ] {
            match refused {
                Err(StoreError::Unavailable { reason }) => {
                    assert!(reason.contains("cannot be written again"), "{reason}");
                    assert!(reason.contains(&why), "{reason}");
                }
                other => panic!("{other:?}"),
            }
            assert!(conn.is_autocommit());
        }
    }
}
