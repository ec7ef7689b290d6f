//! Backups: a copy of one moment while the store is in use.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{
    Connection,
    backup::{Backup, StepResult},
};

use super::{
    SqliteStore, Trouble,
    check::CheckReport,
    log_frames::sync_log,
    schema::{self, beside},
    state::Tx,
};
use crate::data_store::StoreError;

/// How many pages are copied between two reports of progress.
const STEP: i32 = 1024;

impl SqliteStore {
    /// Copies the store as it is at this moment into a new file, while it is in use. `progress` is
    /// told how many pages of how many are done. Waits for the disk, so call it outside async code
    /// or on the blocking pool. While it runs, the log of the store grows.
    ///
    /// The copy is checked as a whole, every value in it too. The report says what it holds, and
    /// names what is damaged in the store, and so in the backup; all else is whole.
    ///
    /// The file appears under its name only when it is complete, verified and on the disk. What a
    /// run that was killed left behind (`NAME.partial`, or an empty file) is replaced. Fails with
    /// [`StoreError::Invalid`] when there is a file of that name.
    pub fn backup(
        &self,
        to: &Path,
        progress: impl FnMut(u64, u64),
    ) -> Result<CheckReport, StoreError> {
        let (inner, from) = (&self.inner, self.inner.reader()?);
        // A backup holds nothing that the store may lose, of other processes' commits neither.
        let sync = || inner.syncs.sync_seen().and_then(|()| sync_log(&inner.path));
        copy_to(&from, to, inner.options.env.unix_ms(), sync, progress)
    }
}

/// Copies a store as it is at this moment into a new file and checks the copy. `sync` is called
/// before the file gets its name.
pub(super) fn copy_to(
    from: &Connection,
    to: &Path,
    now_ms: i64,
    sync: impl FnOnce() -> Result<(), StoreError>,
    progress: impl FnMut(u64, u64),
) -> Result<CheckReport, StoreError> {
    let file = NewFile::named(to)?;
    let mut copy = open_plain(&file.partial)?;
    copy_pages(from, &mut copy, progress).map_err(Trouble::not_applied)?;
    let checked = Tx::new(&copy, now_ms).check_all(&mut |_| {}, |_, _| {});
    let report = checked.map_err(Trouble::not_applied)?;
    close(copy, &file.partial)?;
    sync()?;
    file.publish()?;
    Ok(report)
}

/// Copies every page in steps, as the source is when the copy begins.
pub(super) fn copy_pages(
    from: &Connection,
    to: &mut Connection,
    mut progress: impl FnMut(u64, u64),
) -> Result<(), Trouble> {
    // An open read keeps the source at one moment; otherwise each commit would make the copy begin
    // anew.
    from.execute_batch("BEGIN")?;
    schema::incarnation(from)?;
    {
        let backup = Backup::new(from, to)?;
        let mut more = true;
        while more {
            match backup.step(STEP)? {
                StepResult::Done => more = false,
                StepResult::More => {}
                _ => std::thread::park_timeout(Duration::from_millis(1)),
            }
            let found = backup.progress();
            let count = |pages: i32| u64::try_from(pages).unwrap_or(0);
            progress(count(found.pagecount - found.remaining), count(found.pagecount));
        }
    }
    from.execute_batch("ROLLBACK")?;
    Ok(())
}

/// A file that is written under another name, `NAME.partial`, and gets its own when it is complete.
pub(super) struct NewFile {
    name: PathBuf,
    pub(super) partial: PathBuf,
    /// Locked, so that no other process takes it for what an interrupted run left.
    _lock: File,
}

impl NewFile {
    /// One whose name is free.
    pub(super) fn named(name: &Path) -> Result<Self, StoreError> {
        if is_there(name)? { Err(taken(name)) } else { Self::beside(name) }
    }

    /// Only the file beside, for as long as it is needed.
    pub(super) fn beside(name: &Path) -> Result<Self, StoreError> {
        let partial = beside(name, ".partial");
        let open = OpenOptions::new().write(true).create(true).truncate(false).open(&partial);
        let lock = open.map_err(|err| io_failed("make", &partial, &err))?;
        lock.try_lock().map_err(|err| match err {
            TryLockError::WouldBlock => StoreError::Unavailable {
                reason: format!(
                    "another process is writing this file: path=`{}`",
                    partial.display()
                ),
            },
            TryLockError::Error(err) => io_failed("lock", &partial, &err),
        })?;
        // What an interrupted run left.
        lock.set_len(0).map_err(|err| io_failed("empty", &partial, &err))?;
        for more in ["-journal", "-wal", "-shm"] {
            remove(&beside(&partial, more))?;
        }
        Ok(Self { name: name.to_owned(), partial, _lock: lock })
    }

    pub(super) fn publish(self) -> Result<(), StoreError> {
        let synced = File::open(&self.partial).and_then(|file| file.sync_all());
        synced.map_err(|err| io_failed("sync", &self.partial, &err))?;
        // A link takes no place of another file that came meanwhile. Not every system has links. A
        // log that a file of before left behind would be read as this one's.
        if !is_there(&self.name)? {
            for more in ["", "-journal", "-wal", "-shm"] {
                remove(&beside(&self.name, more))?;
            }
        }
        match std::fs::hard_link(&self.partial, &self.name) {
            Ok(()) => {}
            Err(err) if err.kind() == io::ErrorKind::AlreadyExists => {
                return Err(taken(&self.name));
            }
            Err(_) => std::fs::rename(&self.partial, &self.name)
                .map_err(|err| io_failed("name", &self.name, &err))?,
        }
        let folder = match self.name.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        // Not every system lets a folder be synced.
        #[cfg(unix)]
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|err| io_failed("sync", folder, &err))?;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // The connection to it is closed by now. Where that failed, its journal is still there. The
        // file itself goes last: as long as it is there, no other process writes one of this name.
        for more in ["-journal", "-wal", "-shm", ""] {
            if let Err(err) = remove(&beside(&self.partial, more)) {
                tracing::warn!(%err, "an unfinished file stays behind");
            }
        }
    }
}

/// Whether a name is taken. An empty file is what an interrupted run of an earlier version left.
pub(super) fn is_there(name: &Path) -> Result<bool, StoreError> {
    match std::fs::metadata(name) {
        Ok(found) => Ok(found.len() > 0 || !found.is_file()),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(err) => Err(io_failed("look for", name, &err)),
    }
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(io_failed("remove", path, &err)),
        _ => Ok(()),
    }
}

pub(super) fn open_plain(path: &Path) -> Result<Connection, StoreError> {
    Connection::open(path).map_err(|err| schema::cannot_open(path, &err))
}

/// Closes a copy as a single file: without a log beside it.
pub(super) fn close(conn: Connection, path: &Path) -> Result<(), StoreError> {
    let mode: rusqlite::Result<String> =
        conn.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0));
    mode.map_err(|err| schema::cannot_open(path, &err))?;
    conn.close().map_err(|(_, err)| schema::cannot_open(path, &err))
}

pub(super) fn taken(path: &Path) -> StoreError {
    StoreError::Invalid {
        reason: format!(
            "there is a file of that name already, which is left alone: path=`{}`",
            path.display()
        ),
    }
}

fn io_failed(what: &str, path: &Path, err: &io::Error) -> StoreError {
    StoreError::Unavailable {
        reason: format!("cannot {what} a file: {err}: path=`{}`", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_store::SqliteOptions;

    /// On a full disk the journal stayed.
    #[test]
    fn a_file_that_is_not_finished_leaves_nothing_beside_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let name = folder.path().join("copy.db");
        let file = NewFile::named(&name).expect("a file");
        for more in ["-journal", "-wal", "-shm"] {
            std::fs::write(beside(&file.partial, more), "x").expect("written");
        }
        drop(file);
        assert_eq!(std::fs::read_dir(folder.path()).expect("a list").count(), 0);
    }

    /// They told of commits that a crash of the machine could take back.
    #[test]
    fn a_backup_and_a_check_are_of_what_is_on_the_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("players.db");
        let store = SqliteStore::open(&path, SqliteOptions::default()).expect("the store opens");
        let (syncs, backup) = (&store.inner.syncs, folder.path().join("backup.db"));
        let calls: [&dyn Fn() -> Result<(), StoreError>; 3] = [
            &|| store.backup(&backup, |_, _| {}).map(drop),
            &|| store.check(|_, _| {}).map(drop),
            &|| store.every_key().map(drop),
        ];
        for call in calls {
            syncs.begin();
            syncs.end();
            call().expect("done");
            assert!(syncs.is_settled());
        }
        std::fs::remove_file(&backup).expect("removed");
        syncs.fail();
        for call in calls {
            assert!(matches!(call(), Err(StoreError::Unavailable { .. })));
        }
        assert!(!backup.exists());
    }
}
