//! Checkpoints: copying the log into the file, beside the writer and in its own turn.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use parking_lot::Mutex;
use rusqlite::{Connection, config::DbConfig, ffi, wal::CheckpointMode};

use super::{Inner, Trouble, busy::wait_while_busy, contents::KeptOpen, log_frames::Lost, schema};
use crate::data_store::StoreError;

/// At how many pages in the log that are not in the file yet the checkpoint beside the writer
/// starts.
const CHECKPOINT_PAGES: i32 = 8000;

/// A log begins anew only after a moment in which all of it is in the file. Under a load without
/// pauses the checkpoint beside the writer never gets there: from this many pages in the log on it
/// starts again at once, until so few are left that the writer copies them itself.
const GROWN_PAGES: i32 = 16_000;
const SHORT_REST: i32 = 1500;

/// From this many pages on the writer copies what there is, up to as many.
const HARD_PAGES: i32 = 32_000;

/// By how many pages the log has grown before the writer tries again: an old read may have been in
/// the way.
const RETRY_PAGES: i32 = 1000;

/// A log, in pages.
#[derive(Debug, Clone, Copy)]
pub(super) struct Logged {
    pub(super) pages: i32,
    /// So many of them are in the file.
    pub(super) copied: i32,
    /// How many there were when the writer last copied them in its own turn; 0 when the log began
    /// anew since.
    pub(super) at_last_turn: i32,
}

/// How a log is to be copied into the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    Not,
    Beside,
    InTurn,
}

impl Logged {
    /// `running`: a checkpoint beside the writer is at work.
    fn due(self, running: bool) -> Due {
        let Self { pages, copied, at_last_turn } = self;
        let (rest, grown) = (pages - copied, pages >= GROWN_PAGES);
        // More is left behind an old read, and is copied beside the writer first: commits could not
        // wait for all of it.
        let hard = pages >= HARD_PAGES && rest <= HARD_PAGES;
        let in_turn = hard || (grown && rest <= SHORT_REST && !running);
        let least = if grown { SHORT_REST } else { CHECKPOINT_PAGES };
        match () {
            () if rest > 0 && in_turn && pages >= at_last_turn + RETRY_PAGES => Due::InTurn,
            // One beside would be in the way of the writer's turn.
            () if rest >= least && !running && !hard => Due::Beside,
            () => Due::Not,
        }
    }
}

/// The state of the checkpoints beside the writer.
#[derive(Default)]
pub(super) struct Checkpoints {
    beside: Mutex<Option<Beside>>,
    /// One is under way.
    running: AtomicBool,
    closed: AtomicBool,
}

impl Inner {
    /// Copies the whole log into the file and truncates it, after writing the file anew if so
    /// asked. Waits for readers of old pages and for other processes; this process's commits wait
    /// meanwhile.
    pub(super) async fn empty_log(self: &Arc<Self>, rewrite: bool) -> Result<(), StoreError> {
        let inner = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            inner.still_there()?;
            // A store that is only read gets no connection that writes.
            match inner.writer.lock().as_mut() {
                Some(writer) => writer.settle(&inner)?,
                None => return Err(inner.no_writer()),
            }
            if rewrite {
                let _writer = inner.writer.lock();
                // Of its own, because the copy that is made on the way must not be held in memory.
                let conn = inner.another_writer()?;
                let sqlite = |err: rusqlite::Error| Trouble::from(err).not_applied();
                conn.pragma_update(None, "temp_store", "FILE").map_err(sqlite)?;
                wait_while_busy(inner.options.lock_wait(), || conn.execute_batch("VACUUM"))
                    .map_err(sqlite)?;
            }
            // Most of it beside the writer: commits wait for the rest only.
            checkpoint(&inner.another_writer()?);
            let emptied = wait_while_busy(inner.options.lock_wait(), || {
                let mut writer = inner.writer.lock();
                let Some(writer) = writer.as_mut() else { return Ok(Err(inner.no_writer())) };
                // A sync of what was committed meanwhile may have failed.
                if let Err(err) = writer.settle(&inner) {
                    return Ok(Err(err));
                }
                writer
                    .conn
                    .wal_checkpoint_v2(Some(rusqlite::MAIN_DB), CheckpointMode::TRUNCATE)
                    .map(|_| Ok(()))
            });
            emptied.unwrap_or_else(|err| {
                note_if_not_synced(&err);
                Err(Trouble::from(err).not_applied())
            })
        });
        task.await.unwrap_or_else(|_| {
            Err(StoreError::Unavailable { reason: "the runtime is shutting down".into() })
        })
    }

    /// Ends the connections, the writer's last: closing the last one to the file empties and
    /// removes the log. Waits for what is being written.
    pub(super) fn close(&self) {
        let mut writer = self.writer.lock().take();
        self.checkpoints.closed.store(true, SeqCst);
        // What runs beside the writer may fail to sync the file.
        let beside = self.checkpoints.beside.lock().take();
        if let Some(writer) = &mut writer {
            self.let_go(&writer.conn);
            // The log is copied into the file only if all of it is on the disk.
            if let Err(err) = writer.settle(self) {
                tracing::warn!(%err, "the log stays beside the file");
                if let Some(guard) = &self.guard {
                    guard.keep_log();
                    guard.let_go(&writer.conn);
                }
            }
        }
        self.readers.close();
        if let Some(guard) = &self.guard {
            if let Some(beside) = &beside {
                guard.let_go(&beside.conn);
            }
            guard.close();
        }
        drop(beside);
        drop(writer);
    }

    /// How the log is to be copied into the file now. A checkpoint beside the writer is started.
    pub(super) fn checkpoint_due(self: &Arc<Self>, log: Logged) -> Due {
        let due = log.due(self.checkpoints.running.load(SeqCst));
        if due == Due::Beside && !self.checkpoints.running.swap(true, SeqCst) {
            let guard = Checkpointing(self.clone());
            tokio::task::spawn_blocking(move || guard.0.checkpoint_beside(log.copied));
        }
        due
    }

    fn checkpoint_beside(self: &Arc<Self>, copied: i32) {
        let mut beside = self.checkpoints.beside.lock();
        if self.checkpoints.closed.load(SeqCst) {
            return;
        }
        if beside.is_none() {
            match Beside::new(self) {
                Ok(made) => *beside = Some(made),
                Err(err) => return tracing::warn!(%err, "no connection for checkpoints"),
            }
        }
        // The writer tells; what another program wrote is left as it is.
        if let Some(beside) = beside.as_ref()
            && self.still_there().is_ok()
            && !self.syncs.has_failed()
        {
            beside.checkpoint(self, copied);
        }
    }
}

/// What checkpoints beside the writer are made with.
struct Beside {
    conn: Connection,
    /// The file that they copy to, if it is synced.
    file: Option<KeptOpen>,
}

impl Beside {
    fn new(inner: &Arc<Inner>) -> Result<Self, StoreError> {
        let conn = inner.another_writer()?;
        let is_it = |file: &KeptOpen| inner.guard.as_ref().is_some_and(|g| g.is_file(file.id()));
        let opened = inner.options.durable.then(|| KeptOpen::open(&inner.path));
        let late = |err: &_| {
            tracing::warn!(%err, "the file cannot be opened to be synced beside the writer");
        };
        let file = opened.and_then(|opened| opened.inspect_err(late).ok()).filter(is_it);
        Ok(Self { conn, file: file.filter(can_be_synced) })
    }

    /// `before`: how many pages had been copied. SQLite syncs the file only when all of the log is
    /// in it, and that is mostly in the writer's turn. Without the sync here, no commit would be
    /// written until all that was copied since the log began is on the disk.
    fn checkpoint(&self, inner: &Inner, before: i32) {
        let Some(copied) = checkpoint(&self.conn) else { return };
        if copied != before
            && let Some(Err(err)) = self.file.as_ref().map(KeptOpen::sync)
        {
            // The next sync of the file may succeed, and the log would begin anew: SQLite takes
            // what it has copied before for done. What it cannot sync itself it copies again.
            tracing::warn!(path = %inner.path.display(), %err, "the file could not be synced");
            count_failure();
            inner.syncs.lose(Lost::CopyNotSynced);
        }
    }
}

/// Whether a file system syncs what is open for reading. Also takes in what the file was told
/// before this store opened it: SQLite's own files are told that by themselves.
fn can_be_synced(file: &KeptOpen) -> bool {
    use std::io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    let synced = file.sync();
    !synced.is_err_and(|err| matches!(err.kind(), InvalidInput | PermissionDenied | Unsupported))
}

/// Says that no checkpoint runs any more, also when its task is dropped before it began.
struct Checkpointing(Arc<Inner>);

impl Drop for Checkpointing {
    fn drop(&mut self) {
        self.0.checkpoints.running.store(false, SeqCst);
    }
}

/// Copies the log into the file, as far as no reader needs the old pages, and answers how many of
/// its pages are there now. Another process may be at it: then there is no need.
pub(super) fn checkpoint(conn: &Connection) -> Option<i32> {
    let span = tracing::debug_span!("sqlite checkpoint");
    let _entered = span.enter();
    match conn.wal_checkpoint_v2(Some(rusqlite::MAIN_DB), CheckpointMode::PASSIVE) {
        Ok((logged, done)) => {
            tracing::debug!(logged, done, "checkpointed");
            return Some(done);
        }
        Err(err) if schema::is_busy(&err) => {}
        Err(err) => {
            note_if_not_synced(&err);
            tracing::warn!(%err, "a checkpoint failed");
        }
    }
    None
}

/// Counts a failed sync of SQLite's own. After one of the log, its next sync by this store fails as
/// well, and is made good.
fn note_if_not_synced(err: &rusqlite::Error) {
    if err.sqlite_error().is_some_and(|err| err.extended_code == ffi::SQLITE_IOERR_FSYNC) {
        count_failure();
    }
}

fn count_failure() {
    metrics::counter!("profilestore_sqlite_sync_failures_total").increment(1);
}

/// Lets a connection be closed without copying its log into the file and removing it.
pub(super) fn keep_log(conn: &Connection) {
    if let Err(err) = conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true) {
        tracing::warn!(%err, "a connection may write when it is closed");
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, OpenOptions},
        time::{Duration, SystemTime},
    };

    use super::{Beside, Due, Logged, Lost, can_be_synced, keep_log, schema};
    use crate::{
        data_store::{
            DataStore as _, DataStoreExt as _, Returning, SqliteOptions, SqliteStore,
            sqlite::{
                answers::tests::first_save, contents::KeptOpen, schema::beside, writer::Begun,
            },
        },
        key::ProfileKey,
    };

    #[test]
    fn the_writer_copies_a_long_log_itself_only_when_little_is_left_or_it_is_very_long() {
        let due = |pages, copied, at_last_turn, running| {
            Logged { pages, copied, at_last_turn }.due(running)
        };
        assert_eq!(due(7999, 0, 0, false), Due::Not);
        assert_eq!([due(8000, 0, 0, false), due(8000, 0, 0, true)], [Due::Beside, Due::Not]);
        assert_eq!(due(15_999, 15_000, 0, false), Due::Not);
        // Until little is left, one comes right behind the other.
        assert_eq!(
            [due(16_000, 14_499, 0, false), due(18_000, 16_000, 0, true)],
            [Due::Beside, Due::Not]
        );
        // What the one beside copies is being synced.
        assert_eq!(
            [due(16_000, 14_500, 0, true), due(16_000, 14_500, 0, false)],
            [Due::Not, Due::InTurn]
        );
        // An old read is in the way.
        assert_eq!(
            [due(33_000, 1100, 32_001, true), due(33_001, 1100, 32_001, true)],
            [Due::Not, Due::InTurn]
        );
        // It has left more than commits could wait for.
        assert_eq!(
            [due(40_000, 7999, 32_001, false), due(40_000, 7999, 32_001, true)],
            [Due::Beside, Due::Not]
        );
        assert_eq!(due(40_000, 8000, 32_001, false), Due::InTurn);
        assert_eq!(due(16_000, 16_000, 0, false), Due::Not);
        // One beside was in the way of the last try; none is to be in the way of the next.
        assert_eq!(due(32_500, 20_000, 32_000, false), Due::Not);
    }

    /// SQLite took the file for synced, and let the log begin anew.
    #[tokio::test]
    async fn after_a_failed_sync_of_the_file_all_of_the_log_is_copied_again_when_it_is_opened() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("players.db");
        let open = || SqliteStore::open(&path, SqliteOptions::default()).expect("the store opens");
        let store = open();
        let incarnation = store.identity().await.expect("an identity").incarnation;
        let keys = ["a", "b"].map(|name| ProfileKey::new("S", "global", name).expect("a name"));
        let commit = |at: usize| first_save(incarnation, &keys[at], "1".into());
        store.commit_one(commit(0)).await.expect("saved");
        let conn = store.inner.another_writer().expect("a connection");
        let pipe = KeptOpen::pipe().expect("a pipe");
        // The file of a store on such a file system is not synced beside the writer.
        assert!(!can_be_synced(&pipe));
        let beside = Beside { conn, file: Some(pipe) };
        beside.checkpoint(&store.inner, 0);
        let refused = [
            store.commit_one(commit(1)).await.expect_err("refused").to_string(),
            store.read_one(&keys[0], Returning::HEAD).await.expect_err("refused").to_string(),
        ];
        assert!(refused[0].contains("open it again, which copies all of the log"), "{refused:?}");
        drop((beside, store));
        assert!(fs::metadata(schema::beside(&path, "-wal")).expect("the log").len() > 0);
        let (_, found) = open().read_one(&keys[0], Returning::HEAD).await.expect("read");
        assert_eq!(found.version, 1);
    }

    /// It looked for a failure before it waited for that, and the log was removed.
    #[test]
    fn a_close_learns_of_a_failure_of_the_checkpoint_beside_the_writer() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("players.db");
        let store = SqliteStore::open(&path, SqliteOptions::default()).expect("the store opens");
        let inner = &store.inner;
        let conn = inner.another_writer().expect("a connection");
        conn.execute_batch("INSERT INTO meta (name, value) VALUES ('a', x'00')").expect("written");
        drop(conn);
        let at_work = inner.checkpoints.beside.lock();
        std::thread::scope(|scope| {
            scope.spawn(|| inner.close());
            while inner.writer.lock().is_some() {
                std::thread::yield_now();
            }
            std::thread::park_timeout(Duration::from_millis(50));
            inner.syncs.lose(Lost::CopyNotSynced);
            drop(at_work);
        });
        drop(store);
        assert!(fs::metadata(beside(&path, "-wal")).expect("the log").len() > 0);
    }

    /// Closes a store that has something in its log, and answers whether all of the log was written
    /// again.
    fn is_written_again(spoil: impl FnOnce(&SqliteStore)) -> bool {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("players.db");
        let store = SqliteStore::open(&path, SqliteOptions::default()).expect("the store opens");
        let conn = store.inner.another_writer().expect("a connection");
        conn.execute_batch("INSERT INTO meta (name, value) VALUES ('a', x'00')").expect("written");
        drop(conn);
        let log = OpenOptions::new().write(true).open(beside(&path, "-wal")).expect("the log");
        log.set_modified(SystemTime::UNIX_EPOCH).expect("a time");
        spoil(&store);
        drop(store);
        let modified = log.metadata().and_then(|log| log.modified()).expect("a time");
        modified != SystemTime::UNIX_EPOCH
    }

    /// It was copied into the file and removed. After a loss of power what the disk had of it could
    /// be there again, with older pages than the file's.
    #[test]
    fn a_log_that_could_not_be_synced_is_made_good_before_the_store_is_closed() {
        assert!(is_written_again(|store| store.inner.syncs.fail()));
        assert!(!is_written_again(|_| {}), "there is no need");
    }

    /// It was taken for made good.
    #[test]
    fn a_log_that_could_not_be_synced_is_made_good_though_a_panic_left_a_transaction_open() {
        assert!(is_written_again(|store| {
            let inner = &store.inner;
            let mut writer = inner.writer.lock();
            let begun = writer.as_mut().expect("a writer").begin(inner);
            assert!(matches!(begun, Ok(Begun::Yes)));
            inner.syncs.fail();
        }));
    }

    /// The messenger's connection, which is closed behind the store's, copied it into the file and
    /// removed it.
    #[test]
    fn a_log_that_cannot_be_made_good_outlasts_the_connections_that_are_closed_later() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("players.db");
        let options = SqliteOptions { busy_wait: Duration::ZERO, ..SqliteOptions::default() };
        let store = SqliteStore::open(&path, options).expect("the store opens");
        let guard = store.inner.guard.clone().expect("a store that writes");
        let connect = || store.inner.another_writer().expect("a connection");
        let (later, another) = (connect(), connect());
        later.execute_batch("SELECT count(*) FROM head").expect("a read");
        // As by another process, which is writing.
        another.execute_batch("BEGIN IMMEDIATE").expect("the lock");
        store.inner.syncs.fail();
        drop(store);
        another.execute_batch("ROLLBACK").expect("the lock is free");
        keep_log(&another);
        drop(another);
        guard.let_go(&later);
        drop(later);
        assert!(beside(&path, "-wal").exists());
    }

    /// When that sync failed, the log was gone.
    #[test]
    fn what_another_thread_is_about_to_sync_is_on_the_disk_before_the_store_is_closed() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("players.db");
        let store = SqliteStore::open(&path, SqliteOptions::default()).expect("the store opens");
        let inner = store.inner.clone();
        inner.syncs.begin();
        inner.syncs.end();
        drop(store);
        assert!(inner.syncs.is_settled());
    }
}
