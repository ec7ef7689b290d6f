//! Restoring a backup, also into a store that is in use.
//!
//! A restored store gets a new incarnation, and its servers are marked dead: commits that earlier
//! servers still send are refused, because their counters belong to contents that are gone. All of
//! that is prepared in a separate file. So it reaches an existing store in one transaction, and
//! every process that has the store open sees it.

use std::{path::Path, time::Duration};

use rusqlite::{
    Connection,
    backup::{Backup, StepResult},
};

use super::{
    SqliteOptions, SqliteStore, Trouble,
    backup::{NewFile, close, copy_pages, is_there, open_plain, taken},
    check, head, migrate, nameless,
    schema::{self, Role},
    taken_away::Guard,
};
use crate::data_store::{Incarnation, StoreError};

/// What a restore does when there is a store already where it is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Fail, and leave it alone.
    Keep,
    /// Replace its contents, also while it is in use.
    Replace,
}

impl SqliteStore {
    /// Makes a store out of a backup, under a new incarnation, which is returned. `progress` is
    /// told how many pages of how many are done. Waits for the disk, so call it outside async code
    /// or on the blocking pool.
    ///
    /// All servers are declared dead, and commits of those that were made for the contents of
    /// before fail with [`StoreError::Replaced`]. Nothing is changed when the backup turns out to
    /// be damaged, or when the store that is to be replaced has a log that a program left behind
    /// and the disk refuses to write again ([`StoreError::Unavailable`]).
    pub fn restore(
        from: &Path,
        to: &Path,
        existing: Existing,
        options: &SqliteOptions,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Incarnation, StoreError> {
        let to = schema::real(to);
        let to = to.as_path();
        nameless::refuse_nameless_log(to)?;
        let there = is_there(to)?;
        if there && existing == Existing::Keep {
            return Err(taken(to));
        }
        let file = if there { NewFile::beside(to)? } else { NewFile::named(to)? };
        let incarnation = Incarnation(options.env.uuid());
        prepare(from, &file.partial, incarnation, options, &mut progress)?;
        if !there {
            file.publish()?;
            return Ok(incarnation);
        }
        let source = schema::connect(&file.partial, Role::Reader, options)?;
        // As it is: whatever its format, all of it is replaced.
        let (mut target, _, guard) =
            migrate::open_as_it_is(to, options, |conn| Guard::new(to, conn))?;
        target.busy_timeout(options.lock_wait()).map_err(|err| schema::cannot_open(to, &err))?;
        let replaced = replace(&source, &mut target, options.lock_wait());
        // The guard closes the log's index only if that has no name any more.
        drop(target);
        drop(guard);
        replaced.map_err(Trouble::not_applied)?;
        Ok(incarnation)
    }
}

/// Copies a backup, checks the copy, and makes it a store of its own.
fn prepare(
    from: &Path,
    partial: &Path,
    incarnation: Incarnation,
    options: &SqliteOptions,
    progress: impl FnMut(u64, u64),
) -> Result<(), StoreError> {
    if !from.is_file() {
        return Err(StoreError::Invalid {
            reason: format!("there is no such backup: path=`{}`", from.display()),
        });
    }
    let (role, found) = schema::look(from)?;
    let source = schema::connect(from, role, options)?;
    if found == schema::Found::Nothing {
        return Err(StoreError::Invalid {
            reason: format!("the backup is empty: path=`{}`", from.display()),
        });
    }
    let mut copy = open_plain(partial)?;
    let damaged = |trouble: Trouble| match trouble.not_applied() {
        StoreError::Corrupt { reason } => StoreError::Corrupt {
            reason: format!("the backup cannot be used: {reason}: path=`{}`", from.display()),
        },
        other => other,
    };
    copy_pages(&source, &mut copy, progress).map_err(damaged)?;
    let problems = check::pages(&copy).map_err(damaged)?;
    if let Some(problem) = problems.first() {
        let (reason, more) = (problem.replace('\n', "; "), problems.len() - 1);
        return Err(damaged(head::corrupt(format!("{reason}: more=`{more}`"))));
    }
    let renew = |conn: &Connection| -> rusqlite::Result<()> {
        conn.execute_batch("BEGIN IMMEDIATE")?;
        schema::set_incarnation(conn, incarnation)?;
        conn.execute(
            "UPDATE server SET dead_ms = ?1 WHERE dead_ms IS NULL",
            [options.env.unix_ms()],
        )?;
        conn.execute("DELETE FROM notice", [])?;
        conn.execute_batch("COMMIT")
    };
    renew(&copy).map_err(|err| damaged(err.into()))?;
    // No server is alive in it any more, so a backup of an earlier format becomes one of this.
    migrate::migrate(&copy, partial, options.env.unix_ms())?;
    close(copy, partial)
}

/// Copies every page in one step, which is one transaction of the target.
fn replace(from: &Connection, to: &mut Connection, wait: Duration) -> Result<(), Trouble> {
    let busy = || StoreError::Unavailable {
        reason: "the store to be replaced is in use by a writer that does not end".into(),
    };
    let backup = Backup::new(from, to)?;
    let mut waited = Duration::ZERO;
    loop {
        match backup.step(-1)? {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            _ if waited >= wait => return Err(busy().into()),
            _ => {
                let step = Duration::from_millis(1);
                std::thread::park_timeout(step);
                waited += step;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, OpenOptions},
        os::unix::fs::FileExt as _,
    };

    use super::*;
    use crate::data_store::sqlite::{schema::beside, taken_away::tests::leave};

    /// The backup came behind what a failed sync had left in it. A loss of power took the restore
    /// back, or left older pages among those of the backup.
    #[test]
    fn a_backup_is_not_restored_behind_a_log_that_was_left_behind_and_cannot_be_written_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let [path, backup, left] =
            ["players.db", "backup.db", "left.db"].map(|name| dir.path().join(name));
        let options = SqliteOptions::default();
        let open = || SqliteStore::open(&path, options.clone()).expect("the store opens");
        // Only what is written next is in the log.
        drop(open());
        let store = open();
        store.backup(&backup, |_, _| {}).expect("a backup");
        let conn = store.inner.another_writer().expect("a connection");
        conn.execute_batch("INSERT INTO meta (name, value) VALUES ('a', x'00')").expect("written");
        leave(&path, &left);
        let restore =
            || SqliteStore::restore(&backup, &left, Existing::Replace, &options, |_, _| {});
        // It has made the index of the whole log, before the system gives up a page.
        let reader = Connection::open(&left).expect("a connection");
        let names = || -> String {
            let sql = "SELECT group_concat(name) FROM (SELECT name FROM meta ORDER BY name)";
            reader.query_row(sql, [], |row| row.get(0)).expect("names")
        };
        assert_eq!(names(), "a,incarnation,step");
        let open_log = OpenOptions::new().read(true).write(true).open(beside(&left, "-wal"));
        let log = open_log.expect("the log");
        let (at, mut byte) = (log.metadata().expect("the log").len() - 4000, [0]);
        log.read_exact_at(&mut byte, at).expect("read");
        log.write_all_at(&[!byte[0]], at).expect("written");
        let file = fs::read(&left).expect("the file");
        match restore() {
            Err(StoreError::Unavailable { reason }) => {
                assert!(reason.contains("cannot be written again"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
        assert!(fs::read(&left).expect("the file") == file, "it is as it was");
        log.write_all_at(&byte, at).expect("written");
        let incarnation = restore().expect("it is whole again");
        assert_eq!(schema::incarnation(&reader).expect("a store"), incarnation);
        assert_eq!(names(), "incarnation,step");
    }
}
