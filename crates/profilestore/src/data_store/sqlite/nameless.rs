//! Refusing a file whose log was deleted under a program that has it open.
//!
//! That program notices within a renewal, and copies what it acknowledged to a file beside the
//! store. Until then another program would find the store as it was before that log: it would show
//! held profiles as free, and what it writes would not be in the copy.

use std::{
    path::Path,
    time::{Duration, Instant as RealTime},
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use super::{
    busy::real_time,
    schema::{beside, cannot_open, is_busy},
};
use crate::data_store::StoreError;

/// How long a program that is just opening or closing the file is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// Fails when the file has no log, or the log no index, and another program has it open all the
/// same.
pub(super) fn refuse_nameless_log(path: &Path) -> Result<(), StoreError> {
    if std::fs::metadata(path).map_or(0, |found| found.len()) == 0 {
        return Ok(());
    }
    let mut since: Option<RealTime> = None;
    while !(beside(path, "-wal").exists() && beside(path, "-shm").exists()) {
        if !is_open_elsewhere(path)? {
            return Ok(());
        }
        if since.get_or_insert_with(real_time).elapsed() > PATIENCE {
            return Err(StoreError::Unavailable { reason: nameless(path) });
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
    Ok(())
}

/// A program that has opened a file with a log keeps a lock on it. Asks for the lock that does not
/// go with that.
fn is_open_elsewhere(path: &Path) -> Result<bool, StoreError> {
    let failed = |err: rusqlite::Error| cannot_open(path, &err);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    // What cannot be opened, or not for writing, is told by the opening that follows.
    let Ok(conn) = Connection::open_with_flags(path, flags) else { return Ok(false) };
    if conn.is_readonly(rusqlite::MAIN_DB).unwrap_or(true) {
        return Ok(false);
    }
    // A log that was there is left as it is.
    let keep = beside(path, "-wal").exists();
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep).map_err(failed)?;
    conn.busy_timeout(Duration::ZERO).map_err(failed)?;
    let asked = conn
        .query_row("PRAGMA locking_mode = EXCLUSIVE", [], |_| Ok(()))
        .and_then(|()| conn.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())));
    Ok(asked.is_err_and(|err| is_busy(&err)))
}

fn nameless(path: &Path) -> String {
    let path = path.display();
    format!(
        "another program has the store open, and its log was deleted under it, so that what it \
         writes is not in the file; if it is of profilestore, it notices within 5 s, and copies \
         what it acknowledged to `{path}.rescued-TIME`: wait for that file, or end that program: \
         path=`{path}`"
    )
}
