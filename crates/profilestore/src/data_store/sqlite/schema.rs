//! The file: its tables, how a connection to it is set up, and how a file that is not ours is told
//! apart.
//!
//! A `head` row a key holds the counters, the lease and what a save needs to know about the current
//! version, so that a save reads one row. Values live in `version` rows, which are reached through
//! their row number only: `head.current` points to the current one and each points to the kept one
//! before it, so the history costs no index. A version that is not kept is overwritten in place; a
//! kept one stays as it is and a new row points back to it, so a value is written once. The row
//! that points to a version says when that version was superseded. Values come last in their rows:
//! all else is read without touching their pages.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _};
use uuid::Uuid;

use super::{SqliteOptions, Trouble};
use crate::data_store::{FORMAT_VERSION, Incarnation, StoreError};

/// `PROF`, in the file's header.
pub(super) const APPLICATION_ID: i32 = 0x5052_4f46;

/// Bits of `head.flags` and `version.flags`. The seal stands in `head` only: it matters for the
/// current version alone.
pub(super) const REMOVED: i64 = 1;
pub(super) const IMPORTED: i64 = 2;
pub(super) const PINNED: i64 = 4;
pub(super) const SEALED: i64 = 8;

const PAGE_BYTES: u64 = 4096;

/// The newest step of this format, as [`TABLES`] has it: each addition to the format of an
/// unreleased version is one. `meta` says which one a file has reached. The steps are listed in
/// `docs/decisions/format-2.md`, and `migrate.rs` makes them.
pub(super) const STEPS: i64 = 8;

/// The table that says what the file is.
pub(super) const META: &str =
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;";

const TABLES: &str = "
CREATE TABLE head (
    id INTEGER PRIMARY KEY,
    store TEXT NOT NULL,
    scope TEXT NOT NULL,
    key TEXT NOT NULL,
    epoch INTEGER NOT NULL DEFAULT 0,
    version INTEGER NOT NULL DEFAULT 0,
    created_ms INTEGER NOT NULL DEFAULT 0,
    current INTEGER NOT NULL DEFAULT 0,
    stored_ms INTEGER NOT NULL DEFAULT 0,
    flags INTEGER NOT NULL DEFAULT 0,
    users BLOB NOT NULL DEFAULT x'',
    lease_revision INTEGER NOT NULL DEFAULT 0,
    inbox_revision INTEGER NOT NULL DEFAULT 0,
    last_message INTEGER NOT NULL DEFAULT 0,
    waiting INTEGER NOT NULL DEFAULT 0,
    held INTEGER NOT NULL DEFAULT 0,
    lease TEXT NOT NULL DEFAULT '{}',
    -- The id of the last commit that was a save by the holder and nothing else, in this epoch.
    last_save BLOB
) STRICT;
CREATE UNIQUE INDEX head_key ON head (store, scope, key);
CREATE INDEX head_held ON head (store, scope, key) WHERE held = 1;

CREATE TABLE version (
    id INTEGER PRIMARY KEY,
    head INTEGER NOT NULL,
    number INTEGER NOT NULL,
    previous INTEGER NOT NULL,
    previous_superseded_ms INTEGER NOT NULL,
    written_ms INTEGER NOT NULL,
    stored_ms INTEGER NOT NULL,
    load_count INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    cause TEXT NOT NULL,
    author TEXT NOT NULL,
    label TEXT,
    checksum INTEGER,
    value BLOB
) STRICT;

CREATE TABLE link (
    head INTEGER NOT NULL,
    number INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    links TEXT NOT NULL,
    PRIMARY KEY (head, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE profile_user (user INTEGER NOT NULL, head INTEGER NOT NULL, PRIMARY KEY (user, head)) STRICT, WITHOUT ROWID;

CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    head INTEGER NOT NULL,
    number INTEGER NOT NULL,
    digest BLOB NOT NULL,
    content BLOB NOT NULL,
    created_ms INTEGER NOT NULL,
    name TEXT NOT NULL,
    locked INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    sent_ms INTEGER NOT NULL,
    payload BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX message_number ON message (head, number);
CREATE UNIQUE INDEX message_digest ON message (head, digest);

CREATE TABLE receipt (
    head INTEGER NOT NULL,
    digest BLOB NOT NULL,
    content BLOB NOT NULL,
    made_ms INTEGER NOT NULL,
    PRIMARY KEY (head, digest)
) STRICT, WITHOUT ROWID;

CREATE TABLE server (
    id BLOB PRIMARY KEY,
    place_id INTEGER NOT NULL,
    job_id TEXT NOT NULL,
    revision INTEGER NOT NULL,
    lease_ms INTEGER NOT NULL,
    started_ms INTEGER NOT NULL,
    renewed_ms INTEGER NOT NULL,
    dead_ms INTEGER,
    host BLOB,
    generation INTEGER NOT NULL DEFAULT 0,
    owner TEXT
) STRICT;

-- A server that watches for notices reads those beyond the last id that it has seen, so no id comes again.
CREATE TABLE notice (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    server BLOB NOT NULL,
    head INTEGER NOT NULL,
    commit_id BLOB NOT NULL,
    UNIQUE (server, head)
) STRICT;

CREATE TABLE settled (id BLOB PRIMARY KEY, at_ms INTEGER NOT NULL, aborted INTEGER NOT NULL, fingerprint INTEGER)
    STRICT, WITHOUT ROWID;
-- Those whose ids may tell no time, for the sweep.
CREATE INDEX settled_untimed ON settled (at_ms) WHERE fingerprint IS NOT NULL OR aborted = 1;
";

/// What a file turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// It is empty and may become a store.
    Nothing,
    /// A store of this format.
    Store,
    /// A store that is to be migrated.
    Earlier { format: i64, step: i64 },
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Writer,
    /// Copies no log into the file, when it is closed neither.
    Reader,
    /// Reads a file without a log, in a place where this process may write nothing: no lock is
    /// taken, and nothing is made beside it.
    Frozen,
}

/// A connection that may write, to a file that is made when it is missing. Reads nothing yet.
pub(super) fn open_to_write(path: &Path) -> Result<Connection, StoreError> {
    let flags = flags(Role::Writer) | OpenFlags::SQLITE_OPEN_CREATE;
    Connection::open_with_flags(path, flags).map_err(|err| cannot_open(path, &err))
}

/// Makes the tables when the file is new, and sets up the connection that is to write to it. The
/// file may be of an earlier format.
pub(super) fn set_up(
    conn: &Connection,
    path: &Path,
    options: &SqliteOptions,
) -> Result<Found, StoreError> {
    let wait = |limit| conn.busy_timeout(limit).map_err(|err| cannot_open(path, &err));
    wait(options.lock_wait())?;
    let found = identify(conn, path)?;
    match conn.is_readonly(rusqlite::MAIN_DB) {
        Ok(false) => {}
        Ok(true) => {
            let shown = path.display();
            return invalid(format!(
                "the file cannot be written; check the rights to it and its folder: path=`{shown}`"
            ));
        }
        Err(err) => return Err(cannot_open(path, &err)),
    }
    if found == Found::Nothing {
        create(conn, path, options)?;
    }
    configure(conn, Role::Writer, options).map_err(|err| cannot_open(path, &err))?;
    wait(options.lock_wait())?;
    // From this read on the log's files are there.
    let found = identify(conn, path)?;
    // The writer waits for locks in its own way.
    wait(Duration::ZERO)?;
    Ok(found)
}

/// The format of a file that is to be migrated.
pub(super) fn earlier_format(path: &Path) -> Result<Option<i64>, StoreError> {
    if std::fs::metadata(path).map_or(0, |data| data.len()) == 0 {
        return Ok(None);
    }
    Ok(match look(path)?.1 {
        Found::Earlier { format, .. } => Some(format),
        Found::Nothing | Found::Store => None,
    })
}

/// What a file is, and as what it can be read. Changes nothing.
pub(super) fn look(path: &Path) -> Result<(Role, Found), StoreError> {
    let found = |role: Role| {
        let conn = open(path, role).map_err(|err| cannot_open(path, &err))?;
        conn.busy_timeout(Duration::from_secs(5)).map_err(|err| cannot_open(path, &err))?;
        Ok((role, identify(&conn, path)?))
    };
    // Where the log's files cannot be made. With a log beside it, not all of the store is in the
    // file.
    found(Role::Reader).or_else(|err| match &err {
        StoreError::Invalid { .. } if !beside(path, "-wal").exists() => {
            found(Role::Frozen).map_err(|_| err)
        }
        _ => Err(err),
    })
}

/// Another connection to a file that [`set_up`] or a check of its own found to be a store.
pub(super) fn connect(
    path: &Path,
    role: Role,
    options: &SqliteOptions,
) -> Result<Connection, StoreError> {
    let conn = open(path, role).map_err(|err| cannot_open(path, &err))?;
    configure(&conn, role, options).map_err(|err| cannot_open(path, &err))?;
    Ok(conn)
}

/// Whether the file is a store of a format that this version knows.
pub(super) fn identify(conn: &Connection, path: &Path) -> Result<Found, StoreError> {
    let shown = path.display();
    let facts = conn.query_row(
        "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),
            (SELECT count(*) FROM sqlite_schema)",
        [],
        |row| Ok((row.get::<_, i32>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?)),
    );
    let (application, format, tables) = facts.map_err(|err| cannot_open(path, &err))?;
    if application == 0 && format == 0 && tables == 0 {
        return Ok(Found::Nothing);
    }
    if application != APPLICATION_ID {
        return invalid(format!(
            "the file is a database of another application, and is left alone; name another file: path=`{shown}` \
             application_id=`{application}`"
        ));
    }
    let newest = i64::from(FORMAT_VERSION);
    let step =
        if format == newest { step(conn).map_err(|err| cannot_open(path, &err))? } else { 0 };
    match (format, step) {
        (1, _) => Ok(Found::Earlier { format, step: 0 }),
        (_, STEPS) if format == newest => Ok(Found::Store),
        _ if format == newest && (1..STEPS).contains(&step) => Ok(Found::Earlier { format, step }),
        _ => invalid(format!(
            "the file was written in another format; open it with the version that wrote it, or a newer one: path=`{shown}` \
             expected=`{newest}` step=`{STEPS}` found=`{format}` step=`{step}`"
        )),
    }
}

/// Which step of its format a file has reached.
pub(super) fn step(conn: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'step'";
    Ok(conn.query_row(sql, [], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Says that a file is a store of this format and step.
pub(super) fn mark(conn: &Connection) -> rusqlite::Result<()> {
    let sql = "INSERT INTO meta (name, value) VALUES ('step', ?1) ON CONFLICT DO UPDATE \
        SET value = excluded.value";
    conn.execute(sql, [STEPS.to_string().as_bytes()])?;
    conn.execute_batch(&format!(
        "PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT_VERSION}"
    ))
}

fn create(conn: &Connection, path: &Path, options: &SqliteOptions) -> Result<(), StoreError> {
    let failed = |err: rusqlite::Error| cannot_open(path, &err);
    conn.execute_batch(&format!("PRAGMA page_size = {PAGE_BYTES}; PRAGMA encoding = 'UTF-8'"))
        .map_err(failed)?;
    use_wal(conn).map_err(failed)?;
    conn.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
    // Another process may have made the tables meanwhile.
    let made = identify(conn, path).and_then(|found| {
        if found == Found::Nothing {
            let incarnation = options.env.uuid();
            conn.execute_batch(META).map_err(failed)?;
            conn.execute_batch(TABLES).map_err(failed)?;
            set_incarnation(conn, Incarnation(incarnation)).map_err(failed)?;
            mark(conn).map_err(failed)?;
        }
        conn.execute_batch("COMMIT").map_err(failed)
    });
    if made.is_err() && !conn.is_autocommit() {
        conn.execute_batch("ROLLBACK").map_err(failed)?;
    }
    made
}

fn configure(conn: &Connection, role: Role, options: &SqliteOptions) -> rusqlite::Result<()> {
    conn.set_prepared_statement_cache_capacity(64);
    conn.busy_timeout(options.lock_wait())?;
    match role {
        Role::Writer => {
            use_wal(conn)?;
            let synchronous = if options.durable { "FULL" } else { "NORMAL" };
            conn.pragma_update(None, "synchronous", synchronous)?;
            conn.pragma_update(None, "wal_autocheckpoint", 0)?;
            conn.pragma_update(None, "journal_size_limit", -1)?;
            conn.pragma_update(None, "cache_size", -65_536)?;
            // What is deleted or overwritten leaves no bytes behind, but for crumbs: see
            // `SqliteStore::empty_log`.
            conn.pragma_update(None, "secure_delete", true)?;
            if let Some(bytes) = options.max_file_bytes {
                let pages = i64::try_from(bytes / PAGE_BYTES).unwrap_or(i64::MAX).max(1);
                let limit: rusqlite::Result<i64> =
                    conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| {
                        row.get(0)
                    });
                limit?;
            }
        }
        Role::Reader | Role::Frozen => conn.pragma_update(None, "cache_size", -8192)?,
    }
    // Not mapped into memory, which is SQLite's default: a file that another program makes shorter
    // would end this process by a signal.
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "trusted_schema", false)?;
    // The writer waits for locks in its own way.
    conn.busy_timeout(if role == Role::Writer { Duration::ZERO } else { options.lock_wait() })
}

/// Turns write-ahead logging on. Switching needs the file for itself for a moment, and does not
/// wait by itself.
fn use_wal(conn: &Connection) -> rusqlite::Result<()> {
    let mut tries = 0;
    loop {
        let mode: rusqlite::Result<String> =
            conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0));
        match mode {
            Ok(_) => return Ok(()),
            Err(err) if is_busy(&err) && tries < 1000 => {
                tries += 1;
                std::thread::park_timeout(Duration::from_millis(5));
            }
            Err(err) => return Err(err),
        }
    }
}

pub(super) fn incarnation(conn: &Connection) -> Result<Incarnation, Trouble> {
    let mut statement = conn.prepare_cached("SELECT value FROM meta WHERE name = 'incarnation'")?;
    let bytes: Option<[u8; 16]> = statement.query_row([], |row| row.get(0)).optional()?;
    let missing = || StoreError::Corrupt {
        reason: "the store does not say which contents it holds: table=`meta`".into(),
    };
    Ok(Incarnation(Uuid::from_bytes(bytes.ok_or_else(missing)?)))
}

pub(super) fn set_incarnation(conn: &Connection, incarnation: Incarnation) -> rusqlite::Result<()> {
    let sql = "INSERT INTO meta (name, value) VALUES ('incarnation', ?1) ON CONFLICT DO UPDATE \
        SET value = excluded.value";
    conn.execute(sql, [incarnation.0.as_bytes().as_slice()]).map(drop)
}

pub(super) fn is_busy(err: &rusqlite::Error) -> bool {
    matches!(err.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Whether an error of SQLite says that the file is damaged.
pub(super) fn is_damage(err: &rusqlite::Error) -> bool {
    matches!(err.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt))
}

/// What a failed opening is to the caller.
pub(super) fn cannot_open(path: &Path, err: &rusqlite::Error) -> StoreError {
    let shown = path.display();
    match err.sqlite_error_code() {
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => StoreError::Invalid {
            reason: format!(
                "the file cannot be opened; check that its folder exists and the rights to it: \
                    {err}: path=`{shown}`"
            ),
        },
        Some(ErrorCode::ReadOnly) => StoreError::Invalid {
            reason: format!(
                "the file cannot be written; check the rights to it and its folder: \
                {err}: path=`{shown}`"
            ),
        },
        Some(ErrorCode::NotADatabase) => StoreError::Invalid {
            reason: format!(
                "the file is not a SQLite database; name another file, or move this one away to \
                    begin anew: path=`{shown}`"
            ),
        },
        Some(ErrorCode::DatabaseCorrupt) => StoreError::Corrupt {
            reason: format!(
                "the file is damaged; restore a backup, or take out what is whole (`profilestore \
                 restore --salvage`, for a file that no program uses): {err}: path=`{shown}`"
            ),
        },
        _ => StoreError::Unavailable {
            reason: format!("the file could not be opened: {err}: path=`{shown}`"),
        },
    }
}

fn open(path: &Path, role: Role) -> rusqlite::Result<Connection> {
    if role != Role::Frozen {
        return Connection::open_with_flags(path, flags(role));
    }
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    Connection::open_with_flags(uri, flags(role) | OpenFlags::SQLITE_OPEN_URI)
}

/// The file that a path leads to, also when that is not there yet: SQLite follows links, and has
/// its log beside the file itself.
pub(super) fn real(path: &Path) -> PathBuf {
    let mut real = path.to_owned();
    // As many as a system follows. Of a circle one is left, which cannot be opened.
    for _ in 0..40 {
        let Ok(to) = std::fs::read_link(&real) else { break };
        real = real.parent().unwrap_or(Path::new("")).join(to);
    }
    real
}

/// A name with something behind it.
pub(super) fn beside(name: &Path, more: &str) -> PathBuf {
    let mut beside = OsString::from(name);
    beside.push(more);
    PathBuf::from(beside)
}

fn flags(role: Role) -> OpenFlags {
    let access = match role {
        Role::Writer => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Role::Reader | Role::Frozen => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    access | OpenFlags::SQLITE_OPEN_NO_MUTEX
}

fn invalid<T>(reason: String) -> Result<T, StoreError> {
    Err(StoreError::Invalid { reason })
}
