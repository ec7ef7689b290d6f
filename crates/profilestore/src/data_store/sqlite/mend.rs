//! Making a damaged copy readable again as far as its tables are: its indices are made anew, and so
//! is the table that says what the file is.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _};

use super::{
    schema::{self, cannot_open, is_damage},
    state::{self, VERSION_COLUMNS, value_of_column},
};
use crate::{
    data_store::{
        FORMAT_VERSION, Incarnation, StoreError,
        checksum::{self, is_whole_before_step_6},
    },
    env::Env,
};

/// How many versions are looked at to learn by which rule their checksums were made.
const SAMPLE: u32 = 256;

/// Mends a copy that no program uses. What cannot be mended stays as it is.
pub(super) fn mend(path: &Path) -> Result<(), StoreError> {
    let failed = |err: rusqlite::Error| cannot_open(path, &err);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags).map_err(failed)?;
    if schema::step(&conn).is_err_and(|err| is_damage(&err)) {
        remake_meta(&conn).map_err(failed)?;
    }
    let indices = "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL";
    let indices: Vec<(String, String)> = conn
        .prepare(indices)
        .and_then(|mut found| found.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
        .map_err(failed)?;
    for (name, sql) in indices {
        let is_whole = conn.execute_batch(&format!("REINDEX \"{name}\""));
        // Its own pages are damaged. Where the table's are too, it is left out: reads go through
        // the table then.
        if is_whole.is_err() {
            forget(&conn, "name", &name).map_err(failed)?;
            if let Err(err) = conn.execute_batch(&sql) {
                tracing::debug!(%err, index = name, "an index could not be made anew");
            }
        }
    }
    Ok(())
}

/// Takes a table or an index out of the schema without touching its pages.
fn forget(conn: &Connection, column: &str, name: &str) -> rusqlite::Result<()> {
    conn.execute_batch("PRAGMA writable_schema = ON")?;
    conn.execute(&format!("DELETE FROM sqlite_schema WHERE {column} = ?1"), [name])?;
    conn.execute_batch("PRAGMA writable_schema = RESET")
}

/// The table `meta` anew, with the step that the other tables show.
fn remake_meta(conn: &Connection) -> rusqlite::Result<()> {
    let step = step_of_tables(conn)?;
    forget(conn, "tbl_name", "meta")?;
    conn.execute_batch(schema::META)?;
    schema::set_incarnation(conn, Incarnation(Env::system().uuid()))?;
    conn.execute(
        "INSERT INTO meta (name, value) VALUES ('step', ?1)",
        [step.to_string().as_bytes()],
    )
    .map(drop)
}

/// The step of its format that a file has reached, as far as its tables tell: the migration from
/// there may do again what was done.
fn step_of_tables(conn: &Connection) -> rusqlite::Result<i64> {
    let format: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if format != i64::from(FORMAT_VERSION) {
        return Ok(0);
    }
    let has = |table: &str, column: &str| {
        let sql = "SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2";
        conn.query_row(sql, [table, column], |_| Ok(())).optional().map(|found| found.is_some())
    };
    if !has("link", "links")? {
        Ok(1)
    } else if !has("server", "host")? {
        Ok(2)
    } else if !has("settled", "fingerprint")? {
        Ok(3)
    } else if is_before_step_6(conn) {
        Ok(4)
    } else if !has("head", "last_save")? {
        // What step 7 makes may be there.
        Ok(6)
    } else {
        Ok(schema::STEPS)
    }
}

/// Whether the checksums are of values alone.
fn is_before_step_6(conn: &Connection) -> bool {
    let sql = format!(
        "SELECT h.store, h.scope, h.key, v.checksum, v.value, {VERSION_COLUMNS} \
         FROM version v JOIN head h ON h.id = v.head WHERE v.value IS NOT NULL LIMIT {SAMPLE}"
    );
    let (mut earlier, mut newer) = (0, 0);
    let mut look = || -> rusqlite::Result<()> {
        let mut found = conn.prepare(&sql)?;
        let mut rows = found.query([])?;
        while let Some(row) = rows.next()? {
            let (Ok(key), Ok(value)) = (super::key_of_row(row, 0), value_of_column(row, 4)) else {
                continue;
            };
            let stored = row.get(3).unwrap_or_default();
            let Ok(info) = state::info_of_row(&key, row, 5) else { continue };
            earlier += u32::from(is_whole_before_step_6(info.removed, value, stored));
            newer += u32::from(checksum::verify(&key, &info, value, stored).is_ok());
        }
        Ok(())
    };
    // Damage ends the look: what was seen until then tells.
    let _ = look();
    earlier > newer
}
