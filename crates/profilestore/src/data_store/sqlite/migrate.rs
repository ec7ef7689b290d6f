//! Bringing a file of an earlier format to this one: step by step, in one transaction.
//!
//! The file is of the format before or of this one, and never between the two, whatever dies in the
//! middle. A file in which a server is alive is left alone: a program of the earlier format would
//! go on writing to it. One that was stopped in the middle and goes on later finds no table
//! `outcome`, to which every commit of format 1 writes first.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use rusqlite::{Connection, Row, params};

use super::{
    SqliteOptions,
    checkpoints::keep_log,
    schema::{self, Found, REMOVED, STEPS, beside, cannot_open},
};
use crate::{
    audit::{AUDIT_SCOPE, tags_of_value},
    data_store::{
        FORMAT_VERSION, StoreError,
        checksum::{Covered, checksum, is_whole_before_step_6},
    },
    key::RESERVED_STORE,
};

/// How many values are read at once.
const PIECE: u32 = 64;

/// Opens the file, makes its tables when it is new, migrates it when it is of an earlier format,
/// and gives a connection that may write. `guard` is that of [`open_as_it_is`].
pub(super) fn open_or_create<G>(
    path: &Path,
    options: &SqliteOptions,
    guard: impl FnOnce(&Connection) -> Result<G, StoreError>,
) -> Result<(Connection, G), StoreError> {
    let (conn, found, guard) = open_as_it_is(path, options, guard)?;
    if let Found::Earlier { .. } = found {
        let wait = |limit| conn.busy_timeout(limit).map_err(|err| cannot_open(path, &err));
        wait(options.lock_wait())?;
        migrate(&conn, path, options.env.unix_ms())?;
        wait(Duration::ZERO)?;
    }
    Ok((conn, guard))
}

/// The same without the migration. `guard` sees to a log that was left behind, before anything
/// copies it into the file.
pub(super) fn open_as_it_is<G>(
    path: &Path,
    options: &SqliteOptions,
    guard: impl FnOnce(&Connection) -> Result<G, StoreError>,
) -> Result<(Connection, Found, G), StoreError> {
    let conn = schema::open_to_write(path)?;
    let opened = schema::set_up(&conn, path, options).and_then(|found| Ok((found, guard(&conn)?)));
    match opened {
        Ok((found, guard)) => Ok((conn, found, guard)),
        Err(err) => {
            // To close the last connection would copy the log, which was not written again.
            if fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0) {
                keep_log(&conn);
            }
            Err(err)
        }
    }
}

/// Brings an opened file to the newest step, if it is not there.
pub(super) fn migrate(conn: &Connection, path: &Path, now_ms: i64) -> Result<(), StoreError> {
    let failed = |err: rusqlite::Error| cannot_open(path, &err);
    let before = match schema::identify(conn, path)? {
        Found::Earlier { format, step } => (format, step),
        Found::Nothing | Found::Store => return Ok(()),
    };
    tracing::info!(
        path = %path.display(), format = before.0, step = before.1,
        "the store is of an earlier format and is being migrated"
    );
    conn.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
    let done = work(conn, path, now_ms).and_then(|()| conn.execute_batch("COMMIT").map_err(failed));
    if done.is_err() && !conn.is_autocommit() {
        conn.execute_batch("ROLLBACK").map_err(failed)?;
    }
    done?;
    // All values went through the log. A reader that is in the way leaves it for later.
    let emptied = conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    if let Err(err) = emptied {
        tracing::debug!(%err, "the log was not emptied after the migration");
    }
    tracing::info!(
        path = %path.display(), format = FORMAT_VERSION, step = STEPS,
        "the store was migrated; programs of earlier versions cannot open it any more"
    );
    Ok(())
}

fn work(conn: &Connection, path: &Path, now_ms: i64) -> Result<(), StoreError> {
    // Another process may have done it meanwhile.
    let Found::Earlier { step, .. } = schema::identify(conn, path)? else { return Ok(()) };
    let failed = |err: rusqlite::Error| cannot_open(path, &err);
    refuse_while_in_use(conn, path, now_ms)?;
    // A file of format 1 has reached none.
    let spoiled = if step < 1 { Some(add_checksums(conn).map_err(failed)?) } else { None };
    if step < 2 {
        add_links(conn).map_err(failed)?;
    }
    if step < 3 {
        add_hosts(conn).map_err(failed)?;
    }
    if step < 4 {
        add_fingerprints(conn).map_err(failed)?;
    }
    if step < 5 {
        add_tags(conn).map_err(failed)?;
    }
    if step < 6 {
        cover_all(conn, spoiled.as_ref()).map_err(failed)?;
    }
    if step < 7 {
        index_untimed(conn).map_err(failed)?;
    }
    if step < 8 {
        add_last_saves(conn).map_err(failed)?;
    }
    schema::mark(conn).map_err(failed)
}

/// Fails when a server may be alive in the file.
fn refuse_while_in_use(conn: &Connection, path: &Path, now_ms: i64) -> Result<(), StoreError> {
    let sql = "SELECT job_id, renewed_ms, lease_ms FROM server WHERE dead_ms IS NULL \
        AND renewed_ms + lease_ms > ?1 ORDER BY renewed_ms + lease_ms DESC LIMIT 1";
    let failed = |err: rusqlite::Error| cannot_open(path, &err);
    let mut statement = conn.prepare(sql).map_err(failed)?;
    let mut rows = statement.query([now_ms]).map_err(failed)?;
    let Some(row) = rows.next().map_err(failed)? else { return Ok(()) };
    let job: String = row.get(0).map_err(failed)?;
    let [renewed_ms, lease_ms]: [i64; 2] =
        [row.get(1).map_err(failed)?, row.get(2).map_err(failed)?];
    Err(StoreError::Unavailable {
        reason: format!(
            "the store is of an earlier format, and a server is alive in it; end all programs that \
             use it, or wait, and open it again, which migrates it: path=`{}` job=`{job}` \
             alive_for_ms=`{}`",
            path.display(),
            renewed_ms.saturating_add(lease_ms).saturating_sub(now_ms)
        ),
    })
}

/// Step 5: by what an entry of the audit log is found, among the users of its key. An entry that
/// cannot be read gets none.
fn add_tags(conn: &Connection) -> rusqlite::Result<()> {
    let mut read = conn.prepare(
        "SELECT h.id, v.value FROM head h JOIN version v ON v.id = h.current \
         WHERE h.store = ?1 AND h.scope = ?2 AND h.id > ?3 ORDER BY h.id LIMIT ?4",
    )?;
    let mut list = conn.prepare("UPDATE head SET users = ?2 WHERE id = ?1")?;
    let mut index =
        conn.prepare("INSERT OR IGNORE INTO profile_user (user, head) VALUES (?1, ?2)")?;
    let mut last = i64::MIN;
    loop {
        let mut found: Vec<(i64, Vec<i64>)> = Vec::new();
        let mut rows = read.query(params![RESERVED_STORE, AUDIT_SCOPE, last, PIECE])?;
        while let Some(row) = rows.next()? {
            let value = row.get_ref(1)?.as_blob_or_null().ok().flatten();
            found.push((row.get(0)?, value.and_then(tags_of_value).unwrap_or_default()));
        }
        let Some((id, _)) = found.last() else { return Ok(()) };
        last = *id;
        for (id, tags) in found {
            let packed: Vec<u8> = tags.iter().flat_map(|tag| tag.to_be_bytes()).collect();
            list.execute(params![id, packed])?;
            for tag in tags {
                index.execute(params![tag, id])?;
            }
        }
    }
}

/// Step 8: the id of a holder's last save, in the head.
fn add_last_saves(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch("ALTER TABLE head ADD COLUMN last_save BLOB")
}

/// Step 7: outcomes whose ids may tell no time, by their age.
fn index_untimed(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(
        "CREATE INDEX IF NOT EXISTS settled_untimed ON settled (at_ms) \
         WHERE fingerprint IS NOT NULL OR aborted = 1",
    )
}

/// Step 4: which request a commit was for.
fn add_fingerprints(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch("ALTER TABLE settled ADD COLUMN fingerprint INTEGER")
}

/// Step 3: who hosts a game server's engine.
fn add_hosts(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(
        "ALTER TABLE server ADD COLUMN host BLOB; \
         ALTER TABLE server ADD COLUMN generation INTEGER NOT NULL DEFAULT 0; \
         ALTER TABLE server ADD COLUMN owner TEXT",
    )
}

/// Step 2: what the commit of a version did beyond the profile.
fn add_links(conn: &Connection) -> rusqlite::Result<()> {
    conn.execute_batch(
        "CREATE TABLE link (head INTEGER NOT NULL, number INTEGER NOT NULL, at_ms INTEGER NOT NULL, \
            links TEXT NOT NULL, PRIMARY KEY (head, number)) STRICT, WITHOUT ROWID",
    )
}

/// Step 6: the checksum of a version covers what the version says of itself too, and a tombstone
/// has one. A version that was damaged before gets none, and so stays damaged. `spoiled`: those
/// that are in a file of format 1; otherwise the checksums of before tell.
fn cover_all(conn: &Connection, spoiled: Option<&BTreeSet<i64>>) -> rusqlite::Result<()> {
    let mut read = conn.prepare(
        "SELECT v.id, v.number, v.written_ms, v.stored_ms, v.load_count, v.flags, v.cause, \
         v.author, v.label, v.checksum, v.value, h.store, h.scope, h.key \
         FROM version v CROSS JOIN head h ON h.id = v.head WHERE v.id > ?1 ORDER BY v.id LIMIT ?2",
    )?;
    let mut write = conn.prepare("UPDATE version SET checksum = ?2 WHERE id = ?1")?;
    let mut last = i64::MIN;
    loop {
        let mut found: Vec<(i64, Option<u32>)> = Vec::new();
        let mut rows = read.query(params![last, PIECE])?;
        while let Some(row) = rows.next()? {
            let id = row.get(0)?;
            let damaged = spoiled.is_some_and(|spoiled| spoiled.contains(&id));
            found.push((id, if damaged { None } else { sum_of_row(row, spoiled.is_none()) }));
        }
        let Some((id, _)) = found.last() else { return Ok(()) };
        last = *id;
        for (id, sum) in found {
            write.execute(params![id, sum])?;
        }
    }
}

/// The checksum of a version, if it can be read and is not damaged.
fn sum_of_row(row: &Row<'_>, has_checksum: bool) -> Option<u32> {
    let number = |at: usize| row.get::<_, i64>(at).ok();
    let text = |at: usize| row.get_ref(at).ok()?.as_str().ok();
    let value = row.get_ref(10).ok()?.as_blob_or_null().ok()?;
    let removed = number(5)? & REMOVED != 0;
    if has_checksum && !is_whole_before_step_6(removed, value, row.get(9).ok()?) {
        return None;
    }
    let covered = Covered {
        key: [text(11)?, text(12)?, text(13)?],
        number: number(1)?.cast_unsigned(),
        written_ms: number(2)?,
        stored_ms: number(3)?,
        load_count: number(4)?.cast_unsigned(),
        removed,
        cause: text(6)?,
        author: text(7)?,
        label: row.get_ref(8).ok()?.as_str_or_null().ok()?,
    };
    (value.is_none() == removed).then(|| checksum(&covered, value))
}

/// Step 1: a checksum with each value, and another table for outcomes, so that no program of format
/// 1 that has the file open can commit. Answers with the versions whose values are of another type:
/// these are damaged.
fn add_checksums(conn: &Connection) -> rusqlite::Result<BTreeSet<i64>> {
    // They would keep SQLite from adding a column.
    let spoiled = conn
        .prepare("SELECT id FROM version WHERE typeof(value) NOT IN ('blob', 'null')")?
        .query_map([], |row| row.get::<_, i64>(0))?
        .collect::<rusqlite::Result<BTreeSet<_>>>()?;
    for id in &spoiled {
        conn.execute("UPDATE version SET value = CAST(value AS BLOB) WHERE id = ?1", [id])?;
    }
    conn.execute_batch(
        "ALTER TABLE version ADD COLUMN checksum INTEGER; ALTER TABLE outcome RENAME TO settled",
    )?;
    Ok(spoiled)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::data_store::{
        SqliteStore,
        sqlite::taken_away::{Guard, tests::leave},
    };

    /// A file and its log, as a process leaves them that is killed right after this change.
    fn left_behind(dir: &Path, name: &str, change: &str) -> PathBuf {
        let (path, left) = (dir.join(format!("{name} before")), dir.join(name));
        let open = || SqliteStore::open(&path, SqliteOptions::default()).expect("the store opens");
        // Only the change is in the log.
        drop(open());
        let store = open();
        let conn = store.inner.another_writer().expect("a connection");
        conn.execute_batch(change).expect("written");
        leave(&path, &left);
        left
    }

    fn file_and_log(path: &Path) -> [Vec<u8>; 2] {
        ["", "-wal"].map(|more| fs::read(beside(path, more)).expect("it is there"))
    }

    /// The migration copied it into the file first, and what a failed sync had left in it was
    /// written again too late.
    #[test]
    fn a_log_that_was_left_behind_is_seen_to_before_a_migration() {
        let dir = tempfile::tempdir().expect("a folder");
        // As before step 8.
        let earlier = "ALTER TABLE head DROP COLUMN last_save; \
            UPDATE meta SET value = CAST('7' AS BLOB) WHERE name = 'step'";
        let left = left_behind(dir.path(), "left.db", earlier);
        let before = file_and_log(&left);
        let (conn, _) = open_or_create(&left, &SqliteOptions::default(), |conn| {
            assert_eq!(schema::step(conn).expect("a step"), 7);
            assert!(file_and_log(&left) == before, "both are as they were");
            Guard::new(&left, conn)
        })
        .expect("the store opens");
        assert_eq!(schema::step(&conn).expect("a step"), STEPS);
        assert!(file_and_log(&left)[0] != before[0], "it was migrated");
    }

    /// Closing the connection that had refused the file copied the log into it, before what a
    /// failed sync had left in it was written again.
    #[test]
    fn a_log_that_was_left_behind_stays_as_it_is_when_the_file_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let insert = "INSERT INTO meta (name, value) VALUES ('a', x'00')";
        for (name, change, why) in [
            ("newer.db", "PRAGMA user_version = 99", "written in another format"),
            ("foreign.db", "PRAGMA application_id = 1", "another application"),
            ("damaged.db", insert, "the file is damaged"),
            ("whole.db", insert, "the disk is full"),
        ] {
            let left = left_behind(dir.path(), name, change);
            if name == "damaged.db" {
                let mut bytes = fs::read(&left).expect("the file");
                bytes[100..4096].fill(0xff);
                fs::write(&left, bytes).expect("written");
            }
            let before = file_and_log(&left);
            // Only the whole one gets there.
            let full = |_: &Connection| -> Result<Guard, StoreError> {
                Err(StoreError::Unavailable { reason: "the disk is full".into() })
            };
            match open_or_create(&left, &SqliteOptions::default(), full) {
                Ok(_) => panic!("{name} opens"),
                Err(err) => assert!(err.to_string().contains(why), "{name}: {err}"),
            }
            assert!(file_and_log(&left) == before, "{name} and its log are as they were");
        }
        let whole = dir.path().join("whole.db");
        drop(SqliteStore::open(&whole, SqliteOptions::default()).expect("the store opens"));
        assert!(!beside(&whole, "-wal").exists(), "closed as always");
    }
}
