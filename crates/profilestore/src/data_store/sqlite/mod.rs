//! The embedded store: one SQLite file, shared by the processes of one machine.
//!
//! * **One writer at a time.** Commits wait in a bounded queue. A commit that finds no writer
//!   running starts one on the blocking pool, which takes up to [`SqliteOptions::batch`] commits
//!   into one transaction (`BEGIN IMMEDIATE`, judge, apply, `COMMIT`). Renewals of servers go
//!   first. A writer that runs on the blocking pool, and only while there is something to write,
//!   keeps tokio's paused time still as long as a commit is under way, and leaves no thread behind.
//! * **Reads** run beside it on a small pool of connections, each in one read transaction. A read
//!   is answered when all that it may have seen of this store's commits is on the disk.
//! * **Write-ahead log**, synced beside the writer (`sync.rs`): a commit is answered when a sync
//!   has covered its transaction (`answers.rs`). Checkpoints run beside the writer, or in its turn
//!   (`checkpoints.rs`). While the store is open the log is not truncated: a commit overwrites
//!   blocks that are given out already. The last process that closes the store removes it.
//! * **Several processes** share the file through SQLite's locks, waited for in short steps.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use rusqlite::{ErrorCode, Row};
use tokio::time::Instant;

use super::{
    Backlog, Commit, CommitReply, DataStore, Identity, KeyQuery, KeyState, Retention, Returning,
    ServerRow, Snapshot, StoreError, StoreFiles, StoredVersion, SweepCursor, SweepReport,
    TableUpkeep, VersionInfo, VersionLinks, VersionQuery, VersionRef, rules,
};
use crate::{env::Env, key::ProfileKey};

mod alarm;
mod answers;
mod apply;
mod backlog;
mod backup;
mod busy;
mod check;
mod checkpoints;
mod contents;
mod drain;
mod gets;
mod head;
mod heads;
mod hints;
mod holder;
mod inbox;
mod kept;
mod known;
mod links;
mod log_frames;
mod mend;
mod migrate;
mod nameless;
mod queue;
mod reader;
mod restore;
mod scan;
mod schema;
mod scrub;
mod servers;
mod state;
mod statements;
mod sweep;
mod sync;
mod taken_away;
mod writer;

pub use check::{CheckReport, Checked, DamagedValue};
pub use hints::SqliteMessenger;
pub use restore::Existing;

/// How a [`SqliteStore`] is opened.
#[derive(Debug, Clone)]
pub struct SqliteOptions {
    /// Sync every commit to the disk before it is answered, or shown by a read of this store. Other
    /// stores that are opened on the file, those of other processes among them, may show it some
    /// milliseconds before. Without it a crash of the machine may lose the last commits, though no
    /// part of one; a crash of the process loses none. Default: true.
    pub durable: bool,
    /// How many commits may share one transaction. Default: 256.
    pub batch: usize,
    /// How long a call waits while another process holds the file's lock, from when it was made,
    /// before it fails as unavailable. Default: 5 s. At most 20 days: a longer one counts as that.
    pub busy_wait: Duration,
    /// How large the file may grow, in bytes; commits beyond that fail as unavailable, as on a full
    /// disk. The log beside it comes on top. Default: as large as the disk allows.
    pub max_file_bytes: Option<u64>,
    /// Clock and identifiers. Default: the operating system's.
    pub env: Env,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self {
            durable: true,
            batch: 256,
            busy_wait: Duration::from_secs(5),
            max_file_bytes: None,
            env: Env::system(),
        }
    }
}

/// A store in one SQLite file. Cheap to clone; the file is closed when the last clone is dropped.
#[derive(Clone)]
pub struct SqliteStore {
    inner: Arc<Inner>,
    _closer: Arc<Closer>,
}

/// Closes the file when the last clone of the store is dropped, even if a task that served it has
/// not quite ended.
struct Closer(Arc<Inner>);

impl Drop for Closer {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SqliteStore").field(&self.inner.path).finish()
    }
}

struct Inner {
    path: PathBuf,
    options: SqliteOptions,
    queue: queue::Queue,
    checkpoints: checkpoints::Checkpoints,
    readers: reader::Readers,
    syncs: sync::Syncs,
    /// None once the store is closed, and for one that is only read.
    writer: Mutex<Option<writer::Writer>>,
    /// As what readers open the file.
    reading: schema::Role,
    /// None for a store that is only read.
    guard: Option<Arc<taken_away::Guard>>,
}

impl Inner {
    /// Why there is no writer.
    fn no_writer(&self) -> StoreError {
        match &self.guard {
            Some(_) => StoreError::Unavailable { reason: "the store is closed".into() },
            None => StoreError::Invalid {
                reason: format!(
                    "the store was opened for reading only; check the rights to the file and its \
                     folder: path=`{}`",
                    self.path.display()
                ),
            },
        }
    }
}

/// What goes wrong within a transaction.
#[derive(Debug)]
enum Trouble {
    Sqlite(rusqlite::Error),
    Store(StoreError),
}

impl From<rusqlite::Error> for Trouble {
    fn from(err: rusqlite::Error) -> Self {
        Self::Sqlite(err)
    }
}

impl From<StoreError> for Trouble {
    fn from(err: StoreError) -> Self {
        Self::Store(err)
    }
}

impl Trouble {
    /// What it means to the caller, given that nothing was applied.
    fn not_applied(self) -> StoreError {
        let err = match self {
            Self::Store(err) => return err,
            Self::Sqlite(err) => err,
        };
        let reason = match err.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                metrics::counter!("profilestore_sqlite_busy_total").increment(1);
                format!("another process holds the file's lock: {err}")
            }
            Some(ErrorCode::DiskFull) => format!("the disk is full: {err}"),
            Some(ErrorCode::TooBig) => {
                return StoreError::Invalid {
                    reason: format!("a value is too large for SQLite: {err}"),
                };
            }
            Some(
                ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch,
            ) => return StoreError::Corrupt { reason: format!("the file is damaged: {err}") },
            Some(_) => format!("SQLite failed: {err}"),
            // Not from SQLite: a column of another type than ours.
            None => {
                return StoreError::Corrupt {
                    reason: format!("a row cannot be understood: {err}"),
                };
            }
        };
        StoreError::Unavailable { reason }
    }
}

impl SqliteStore {
    /// Opens a store, and makes it when the file is missing or empty. Waits for the disk, so call
    /// it outside async code or on the blocking pool. The calls of the opened store need a tokio
    /// runtime. A link to a file, also to one that is not there yet, stands for that file.
    ///
    /// A file of an earlier format is migrated, which reads and writes every value once and needs
    /// as much room again meanwhile; programs of earlier versions cannot open it any more.
    ///
    /// Fails with [`StoreError::Invalid`] when the file is not a store of ours, was written in a
    /// newer format, or cannot be opened or written; with [`StoreError::Corrupt`] when it is
    /// damaged; with [`StoreError::Unavailable`] when it is locked or the disk fails, or is to be
    /// migrated and a server may be alive in it.
    ///
    /// Once the file or its log was deleted, replaced or overwritten under an open store, calls
    /// fail with [`StoreError::TakenAway`], which says what to do. All that this program
    /// acknowledged is copied to `PATH.rescued-TIME`; where another program wrote over the file,
    /// what can still be read is copied to `PATH.remains-TIME`. As long as such a file lies beside
    /// it, the store cannot be opened ([`StoreError::Invalid`]). A store whose log was deleted
    /// under another program is refused until that has happened ([`StoreError::Unavailable`]).
    pub fn open(path: impl AsRef<Path>, options: SqliteOptions) -> Result<Self, StoreError> {
        let path = schema::real(path.as_ref());
        kept::refuse_beside_kept(&path)?;
        nameless::refuse_nameless_log(&path)?;
        let (conn, guard) =
            migrate::open_or_create(&path, &options, |conn| taken_away::Guard::new(&path, conn))?;
        let syncs = match options.durable {
            true => sync::Syncs::of(&path, |log| guard.is_log(log))?,
            false => sync::Syncs::none(),
        };
        let parts = (Some(writer::Writer::new(conn)?), Some(Arc::new(guard)), syncs);
        Ok(Self::opened(path, options, schema::Role::Reader, parts))
    }

    /// Opens a store for reading, which writes to neither file nor folder when no log lies beside
    /// the file and the folder cannot be written. Commits are refused with
    /// [`StoreError::Invalid`]. Fails as [`SqliteStore::open`] does, and for a file that is
    /// missing, empty or of an earlier format.
    pub fn open_to_read(
        path: impl AsRef<Path>,
        options: SqliteOptions,
    ) -> Result<Self, StoreError> {
        let path = schema::real(path.as_ref());
        kept::refuse_beside_kept(&path)?;
        nameless::refuse_nameless_log(&path)?;
        let why = match schema::look(&path)? {
            (reading, schema::Found::Store) => {
                return Ok(Self::opened(path, options, reading, (None, None, sync::Syncs::none())));
            }
            (_, schema::Found::Nothing) => "the file is empty",
            (_, schema::Found::Earlier { .. }) => "the file is of an earlier format",
        };
        Err(StoreError::Invalid { reason: format!("{why}: path=`{}`", path.display()) })
    }

    fn opened(
        path: PathBuf,
        options: SqliteOptions,
        reading: schema::Role,
        (writer, guard, syncs): (
            Option<writer::Writer>,
            Option<Arc<taken_away::Guard>>,
            sync::Syncs,
        ),
    ) -> Self {
        let inner = Inner {
            queue: queue::Queue::default(),
            checkpoints: checkpoints::Checkpoints::default(),
            readers: reader::Readers::default(),
            syncs,
            writer: Mutex::new(writer),
            reading,
            guard,
            path,
            options,
        };
        let inner = Arc::new(inner);
        Self { _closer: Arc::new(Closer(inner.clone())), inner }
    }

    /// The format of a store that [`SqliteStore::open`] would migrate; None when it would not, and
    /// for a file that is missing or empty. Changes nothing. Fails as opening it does.
    pub fn earlier_format(path: impl AsRef<Path>) -> Result<Option<i64>, StoreError> {
        let path = schema::real(path.as_ref());
        kept::refuse_beside_kept(&path)?;
        // A look at a file with a log makes the log's files where they are missing.
        nameless::refuse_nameless_log(&path)?;
        schema::earlier_format(&path)
    }

    /// Makes a damaged file readable again as far as its tables are: makes its indices anew from
    /// them, so that all that a damaged index hid is found again, and the table that says what the
    /// file is, if that is damaged. For a copy that no program uses.
    pub fn mend_copy(path: impl AsRef<Path>) -> Result<(), StoreError> {
        mend::mend(path.as_ref())
    }

    /// Copies everything from the write-ahead log into the file and truncates the log. What was
    /// deleted or overwritten is then in neither, but for crumbs of rows that SQLite leaves in
    /// unused parts of pages when it moves rows between them. Waits for reads that are under way
    /// and for other processes, up to [`SqliteOptions::busy_wait`]; then fails with
    /// [`StoreError::Unavailable`], and may be called again.
    pub async fn empty_log(&self) -> Result<(), StoreError> {
        self.inner.empty_log(false).await
    }

    /// Zeroes also those crumbs, and empties the log: then no byte of what was deleted or
    /// overwritten is left in either. Goes through the file in slices of 256 pages, so that commits
    /// wait for one of these, and writes only the pages that have crumbs. After one that was broken
    /// off, call it again. `progress` is told how many pages of how many are done.
    ///
    /// That takes a SQLite that was built with `SQLITE_ENABLE_DBPAGE_VTAB`, as the one of this
    /// repository's programs is; for a program of your own set
    /// `LIBSQLITE3_FLAGS=SQLITE_ENABLE_DBPAGE_VTAB` while it is built. Without it, for a file
    /// with `auto_vacuum`, and for one of 2^25 pages (128 GiB) and more, this is
    /// [`SqliteStore::vacuum`]. Fails as [`SqliteStore::empty_log`] does.
    pub async fn scrub(&self, progress: impl FnMut(u64, u64)) -> Result<(), StoreError> {
        match self.inner.scrub(progress).await? {
            true => self.empty_log().await,
            false => self.vacuum().await,
        }
    }

    /// Writes the file anew and empties the log: then no byte of what was deleted or overwritten is
    /// left in either, and the file is as small as it can be. Commits wait meanwhile, those of
    /// other processes as during an outage, which ends no session. Takes about as long as reading
    /// and writing the file three times, and that much room for temporary files. Fails as
    /// [`SqliteStore::empty_log`] does.
    pub async fn vacuum(&self) -> Result<(), StoreError> {
        self.inner.empty_log(true).await
    }

    /// Fails with [`StoreError::TakenAway`] once the store's files were deleted, replaced or
    /// overwritten. Each commit looks by itself; this is for a program's end. Takes microseconds.
    pub fn check_files(&self) -> Result<(), StoreError> {
        self.inner.still_there()
    }

    /// The file's path: as it was given, or what a link of that name leads to.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }
}

#[async_trait]
impl DataStore for SqliteStore {
    async fn identity(&self) -> Result<Identity, StoreError> {
        let now_ms = self.inner.options.env.unix_ms();
        let incarnation = self.inner.read(|tx| schema::incarnation(tx.conn)).await?;
        Ok(Identity { incarnation, now_ms })
    }

    async fn read(
        &self,
        keys: &[ProfileKey],
        returning: Returning,
    ) -> Result<Snapshot, StoreError> {
        self.inner.get(keys, returning).await
    }

    async fn version(
        &self,
        key: &ProfileKey,
        version: &VersionRef,
    ) -> Result<Option<StoredVersion>, StoreError> {
        let (key, version) = (key.clone(), version.clone());
        self.inner.read(move |tx| tx.version(&key, &version)).await
    }

    async fn versions(&self, query: &VersionQuery) -> Result<Vec<VersionInfo>, StoreError> {
        let query = query.clone();
        self.inner.read(move |tx| tx.versions(&query)).await
    }

    async fn links(
        &self,
        key: &ProfileKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<VersionLinks>, StoreError> {
        let key = key.clone();
        self.inner.read(move |tx| tx.links(&key, after, limit)).await
    }

    async fn keys(&self, query: &KeyQuery) -> Result<Vec<KeyState>, StoreError> {
        let query = query.clone();
        self.inner.read(move |tx| tx.keys(&query)).await
    }

    async fn servers(&self) -> Result<(i64, Vec<ServerRow>), StoreError> {
        self.inner.read(|tx| Ok((tx.now_ms, tx.all_servers()?))).await
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<CommitReply, StoreError>> {
        self.commit_until(commits, None).await
    }

    async fn commit_by(
        &self,
        commits: Vec<Commit>,
        deadline: Instant,
    ) -> Vec<Result<CommitReply, StoreError>> {
        self.commit_until(commits, Some(deadline)).await
    }

    async fn sweep(
        &self,
        retention: Retention,
        cursor: Option<SweepCursor>,
    ) -> Result<SweepReport, StoreError> {
        self.inner.sweep(retention, cursor).await
    }

    async fn backlog(&self) -> Result<Option<Backlog>, StoreError> {
        Self::backlog(self).await.map(Some)
    }

    async fn upkeep(&self) -> Result<Vec<TableUpkeep>, StoreError> {
        self.tables().await
    }

    fn files(&self) -> Option<&dyn StoreFiles> {
        Some(self)
    }
}

impl SqliteStore {
    async fn commit_until(
        &self,
        commits: Vec<Commit>,
        deadline: Option<Instant>,
    ) -> Vec<Result<CommitReply, StoreError>> {
        if commits.iter().all(|commit| rules::check_commit(commit).is_ok()) {
            return self.commit_well_formed(commits, deadline).await;
        }
        let verdicts: Vec<_> =
            commits.iter().map(|commit| rules::check_commit(commit).err()).collect();
        let good: Vec<_> = commits
            .into_iter()
            .zip(&verdicts)
            .filter(|(_, verdict)| verdict.is_none())
            .map(|(commit, _)| commit)
            .collect();
        let mut replies = self.commit_well_formed(good, deadline).await.into_iter();
        let lost = || {
            Err(StoreError::Unavailable {
                reason: "the store gave no answer for the commit".into(),
            })
        };
        verdicts
            .into_iter()
            .map(|verdict| verdict.map_or_else(|| replies.next().unwrap_or_else(lost), Err))
            .collect()
    }

    async fn commit_well_formed(
        &self,
        commits: Vec<Commit>,
        deadline: Option<Instant>,
    ) -> Vec<Result<CommitReply, StoreError>> {
        if commits.is_empty() {
            Vec::new()
        } else if commits.iter().all(rules::only_checks) {
            // Nothing is written, so nothing can be unknown.
            let late =
                || StoreError::Unavailable { reason: "the disk did not answer in time".into() };
            let count = commits.len();
            let checked = busy::by(deadline, self.inner.check(commits)).await;
            checked.unwrap_or_else(|| vec![Err(late()); count])
        } else {
            self.inner.submit(commits, deadline).await
        }
    }
}

/// Reads a key from three columns.
fn key_of_row(row: &Row<'_>, first: usize) -> Result<ProfileKey, Trouble> {
    let text = |at: usize| row.get_ref(first + at)?.as_str().map_err(rusqlite::Error::from);
    let (store, scope, key) = (text(0)?, text(1)?, text(2)?);
    ProfileKey::new(store, scope, key).map_err(|err| {
        head::corrupt(format!(
            "a stored key is no valid name: {err}: store=`{store}` scope=`{scope}` key=`{key}`"
        ))
    })
}
