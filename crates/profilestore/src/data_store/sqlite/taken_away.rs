//! Noticing that a store's files were deleted or replaced while it is open.
//!
//! SQLite goes on with what it has open: commits go to a log that no name leads to, another process
//! that opens the path finds the store as it was before that log, and all of it is gone with the
//! last process that has it open. So the writer compares the files that the names lead to with those
//! that it has open, before each transaction and before it answers for one. When they differ,
//! nothing is acknowledged any more. What had been is copied from the open files to a file beside
//! the store, and no program opens the store until an operator has decided which of the two counts.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};

use parking_lot::Mutex;
use rusqlite::{Connection, config::DbConfig};

use super::{
    Inner, backup,
    check::CheckReport,
    schema::{self, Role, beside},
};
use crate::data_store::StoreError;

/// What a rescued store is called: the store's name, this, and the time.
const RESCUED: &str = ".rescued-";

/// Device and inode of the file, its log, and the index of the log.
#[derive(Debug, PartialEq, Eq)]
struct Files([(u64, u64); 3]);

impl Files {
    /// To which files the names lead now. None: to none, for one of them.
    fn of(path: &Path) -> io::Result<Option<Self>> {
        let mut files = [(0, 0); 3];
        for (file, more) in files.iter_mut().zip(["", "-wal", "-shm"]) {
            match fs::metadata(beside(path, more)) {
                Ok(found) => *file = (found.dev(), found.ino()),
                Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(err) => return Err(err),
            }
        }
        Ok(Some(Self(files)))
    }
}

/// The files of an open store.
#[derive(Debug)]
pub(super) struct Guard {
    path: PathBuf,
    files: Files,
    /// What every call is told once they are gone.
    told: Mutex<Option<StoreError>>,
    /// The store was closed: the last one to close a file removes its log.
    closed: AtomicBool,
}

impl Guard {
    /// For files that a connection has just opened for writing.
    pub(super) fn new(path: &Path) -> Result<Self, StoreError> {
        match Files::of(path) {
            Ok(Some(files)) => Ok(Self {
                path: path.to_owned(),
                files,
                told: Mutex::default(),
                closed: AtomicBool::new(false),
            }),
            Ok(None) => Err(StoreError::Unavailable {
                reason: format!(
                    "the file's log was deleted while the file was opened; try again: path=`{}`",
                    path.display()
                ),
            }),
            Err(err) => Err(not_looked_at(path, &err)),
        }
    }

    /// True once a name leads to another file, or to none.
    fn are_gone(&self) -> Result<bool, StoreError> {
        match Files::of(&self.path) {
            Ok(found) => Ok(found.as_ref() != Some(&self.files)),
            Err(err) => Err(not_looked_at(&self.path, &err)),
        }
    }

    /// Fails once the files that the store has open are no longer those that its names lead to.
    pub(super) fn still_there(&self) -> Result<(), StoreError> {
        if let Some(told) = self.told.lock().clone() {
            return Err(told);
        }
        match !self.closed.load(SeqCst) && self.are_gone()? {
            false => Ok(()),
            true => Err(gone(&self.path, "the writer is about to rescue what was acknowledged")),
        }
    }

    /// The store's own connections are about to be closed, and its files may go.
    pub(super) fn close(&self) {
        self.closed.store(true, SeqCst);
    }

    /// Lets a connection that may write be closed without touching what its names lead to by now:
    /// closing the last connection to a file copies its log into it.
    pub(super) fn let_go(&self, conn: &Connection) {
        if self.still_there().is_err()
            && let Err(err) = conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        {
            tracing::warn!(%err, "a connection may write when it is closed");
        }
    }
}

impl Inner {
    /// Fails once the files that the store has open are no longer those that its names lead to.
    fn still_there(&self) -> Result<(), StoreError> {
        self.guard.as_ref().map_or(Ok(()), |guard| guard.still_there())
    }

    /// The same for the writer, which copies what was acknowledged from its connection when it is
    /// the first to notice. A copy that fails is tried again the next time.
    pub(super) fn still_there_or_rescue(&self, conn: &Connection) -> Result<(), StoreError> {
        let Some(guard) = &self.guard else { return Ok(()) };
        let mut told = guard.told.lock();
        if let Some(told) = &*told {
            return Err(told.clone());
        }
        if !guard.are_gone()? {
            return Ok(());
        }
        let (rescued, said) = self.rescue(conn);
        let err = gone(&self.path, &said);
        tracing::error!(%err, "the store's files were taken away");
        if rescued {
            *told = Some(err.clone());
        }
        Err(err)
    }

    /// Copies what the connection reads to a file beside the store. Answers whether there is such a
    /// file now, and with what is to be said of it.
    fn rescue(&self, conn: &Connection) -> (bool, String) {
        if !conn.is_autocommit()
            && let Err(err) = conn.execute_batch("ROLLBACK")
        {
            tracing::warn!(%err, "a transaction could not be rolled back");
        }
        let now_ms = self.options.env.unix_ms();
        let to = beside(&self.path, &format!("{RESCUED}{now_ms}"));
        let (shown, what_to_do) = (to.display(), decide(&self.path, &to));
        match backup::copy_to(conn, &to, now_ms, |_, _| {}) {
            Ok(CheckReport { problems, damaged, .. })
                if problems.is_empty() && damaged.is_empty() =>
            {
                (true, format!("all that was acknowledged is in `{shown}`; {what_to_do}"))
            }
            Ok(_) => (
                true,
                format!(
                    "what was acknowledged is in `{shown}`, of which some is damaged: another \
                     program may have written to the store meanwhile; {what_to_do}"
                ),
            ),
            Err(err) => (
                false,
                format!(
                    "what was acknowledged cannot be copied to `{shown}` yet, which is tried \
                     again: {err}"
                ),
            ),
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

/// Fails when a rescued store lies beside a file: an operator has to decide which of the two counts.
pub(super) fn refuse_beside_rescued(path: &Path) -> Result<(), StoreError> {
    let Some(name) = path.file_name() else { return Ok(()) };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let begin = beside(Path::new(name), RESCUED);
    let begin = begin.as_os_str().as_encoded_bytes();
    // A folder that cannot be listed hides no store from those who can open files in it.
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    let rescued = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        let time = name.as_encoded_bytes().strip_prefix(begin);
        time.is_some_and(|time| !time.is_empty() && time.iter().all(u8::is_ascii_digit))
    };
    // The newest one holds the most.
    let Some(rescued) = entries.flatten().filter(rescued).map(|entry| entry.path()).max() else {
        return Ok(());
    };
    Err(StoreError::Invalid {
        reason: format!(
            "the store's files were deleted or replaced while a program had them open, which copied \
             what it had acknowledged to `{}`; {}: path=`{}`",
            rescued.display(),
            decide(path, &rescued),
            path.display()
        ),
    })
}

/// What an operator has to do.
fn decide(path: &Path, rescued: &Path) -> String {
    format!(
        "end all programs that have the store open, then: profilestore restore --force {} --store \
         sqlite:{}, and delete or move away the rescued file",
        rescued.display(),
        path.display()
    )
}

fn gone(path: &Path, more: &str) -> StoreError {
    StoreError::Unavailable {
        reason: format!(
            "the store's files were deleted or replaced while this program had them open, and \
             nothing is saved any more; {more}: path=`{}`",
            path.display()
        ),
    }
}

fn not_looked_at(path: &Path, err: &io::Error) -> StoreError {
    StoreError::Unavailable {
        reason: format!("the store's files cannot be looked at: {err}: path=`{}`", path.display()),
    }
}
