//! A log that was written again: whether it holds all that SQLite takes it to hold.
//!
//! After a write that failed, the system may give up its copy of a page, and what is read of the
//! log then is what the disk had there before. SQLite does not notice: it goes by the log's index,
//! and looks at checksums only when it makes the index anew. So they are followed here, as after a
//! loss of power, up to the last frame that the index counts. SQLite documents the log in
//! `fileformat2.html`.

use std::{
    fmt,
    fs::File,
    io::{self, BufReader, ErrorKind, Read, Seek as _},
    os::unix::fs::FileExt as _,
    path::Path,
};

use super::schema::beside;
use crate::data_store::StoreError;

/// How much of the log is written again at once.
const PIECE: u64 = 16 << 20;

/// How much of it is read at once to follow its checksums.
const READ_PIECE: usize = 1 << 20;

/// What a log begins with. The last bit says whether its checksums take numbers as big-endian.
const MAGIC: u32 = 0x377f_0682;
const VERSION: u32 = 3_007_000;

/// Four bytes, as they lie in the log.
type Word = [u8; 4];

/// What SQLite takes a log to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Committed {
    /// Up to the end of the last transaction.
    pub(super) frames: u32,
    /// Their checksum.
    pub(super) sum: [u32; 2],
    /// They change when the log begins anew.
    pub(super) salts: [Word; 2],
}

/// Why a log cannot be made good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// So many of its frames are not what SQLite takes them for, or not there.
    Frames { lost: u32, of: u32 },
    /// What was copied from it into the file may not be on the disk. SQLite does not copy it again
    /// as long as a program has the file open.
    CopyNotSynced,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frames { lost, of } => write!(
                f,
                "the log lost {lost} of its {of} frames; end all programs that use the store, copy \
                 its files, and open it again, which goes by what is left of the log"
            ),
            Self::CopyNotSynced => f.write_str(
                "the disk failed to sync the file into which the log is copied; end all programs \
                 that use the store, and open it again, which copies all of the log once more",
            ),
        }
    }
}

/// Syncs the log of a file, which another process may have written to. One without a log is whole.
pub(super) fn sync_log(path: &Path) -> Result<(), StoreError> {
    match File::open(beside(path, "-wal")).and_then(|log| log.sync_data()) {
        Err(err) if err.kind() != ErrorKind::NotFound => Err(StoreError::Unavailable {
            reason: format!("the file's log cannot be synced: {err}: path=`{}`", path.display()),
        }),
        _ => Ok(()),
    }
}

/// Writes what a log holds in its place, so that the system takes none of it for written, and syncs
/// it.
pub(super) fn write_again(log: &File) -> io::Result<()> {
    let (bytes, mut at) = (log.metadata()?.len(), 0);
    let mut piece = Vec::new();
    while at < bytes {
        piece.resize(usize::try_from(PIECE.min(bytes - at)).unwrap_or_default(), 0);
        log.read_exact_at(&mut piece, at)?;
        log.write_all_at(&piece, at)?;
        at += piece.len() as u64;
    }
    log.sync_data()
}

/// What is lost of a log. No process may write to it meanwhile.
pub(super) fn lost(mut log: &File, known: &Committed) -> io::Result<Option<Lost>> {
    log.rewind()?;
    let whole = whole_frames(BufReader::with_capacity(READ_PIECE, log), known)?;
    let lost = known.frames.saturating_sub(whole);
    Ok((lost > 0).then_some(Lost::Frames { lost, of: known.frames }))
}

/// How many of the frames that SQLite takes a log to hold would be found after a loss of power: up
/// to the end of a transaction, and from the beginning on without a gap.
fn whole_frames(log: impl Read, known: &Committed) -> io::Result<u32> {
    let walk = Walk::begin(log)?.filter(|walk| walk.salts == known.salts);
    let Some(mut walk) = walk else { return Ok(0) };
    let (mut frames, mut whole) = (0, 0);
    while frames < known.frames
        && let Some(ends) = walk.step()?
    {
        frames += 1;
        // An earlier transaction that was rolled back may lie at the last frame: it fits, but has
        // another checksum.
        let is_known = frames < known.frames || walk.sum == known.sum;
        if ends && is_known {
            whole = frames;
        }
    }
    Ok(whole)
}

/// Goes through a log, as long as each frame fits what is before it.
struct Walk<R> {
    log: R,
    big_endian: bool,
    salts: [Word; 2],
    /// Of all frames until here.
    sum: [u32; 2],
    page: Vec<u8>,
}

impl<R: Read> Walk<R> {
    /// None: it does not begin as a log does.
    fn begin(mut log: R) -> io::Result<Option<Self>> {
        let mut header: [Word; 8] = [[0; 4]; 8];
        if !fill(&mut log, header.as_flattened_mut())? {
            return Ok(None);
        }
        let [magic, version, page, anew, salt_1, salt_2, sum_1, sum_2] = header;
        let [kind, number, bytes] = [magic, version, page].map(u32::from_be_bytes);
        let is_log = kind & !1 == MAGIC && number == VERSION;
        if !is_log || !bytes.is_power_of_two() || !(512..=65_536).contains(&bytes) {
            return Ok(None);
        }
        let big_endian = kind & 1 == 1;
        let sum = add([0; 2], &[magic, version, page, anew, salt_1, salt_2], big_endian);
        let page = vec![0; bytes as usize];
        let walk = Self { log, big_endian, salts: [salt_1, salt_2], sum, page };
        Ok((sum == [sum_1, sum_2].map(u32::from_be_bytes)).then_some(walk))
    }

    /// Whether the next frame ends a transaction. None: no frame that fits comes next.
    fn step(&mut self) -> io::Result<Option<bool>> {
        let mut header: [Word; 6] = [[0; 4]; 6];
        let is_there =
            fill(&mut self.log, header.as_flattened_mut())? && fill(&mut self.log, &mut self.page)?;
        let [number, pages, salt_1, salt_2, sum_1, sum_2] = header;
        if !is_there || number == [0; 4] || [salt_1, salt_2] != self.salts {
            return Ok(None);
        }
        let sum = add(self.sum, &[number, pages], self.big_endian);
        self.sum = add(sum, self.page.as_chunks::<4>().0, self.big_endian);
        let fits = self.sum == [sum_1, sum_2].map(u32::from_be_bytes);
        Ok(fits.then_some(pages != [0; 4]))
    }
}

/// Adds words to a checksum. What is summed has an even number of them.
fn add([mut first, mut second]: [u32; 2], words: &[Word], big_endian: bool) -> [u32; 2] {
    let number: fn(Word) -> u32 = if big_endian { u32::from_be_bytes } else { u32::from_le_bytes };
    for [one, other] in words.as_chunks::<2>().0 {
        first = first.wrapping_add(number(*one)).wrapping_add(second);
        second = second.wrapping_add(number(*other)).wrapping_add(first);
    }
    [first, second]
}

/// Fills all of `bytes`. False: what is read ends before.
fn fill(log: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match log.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(err) if err.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(err) => Err(err),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};

    use rusqlite::Connection;

    use super::*;
    use crate::data_store::{SqliteOptions, SqliteStore, sqlite::contents::Contents};

    const FRAME: usize = 24 + 4096;

    /// Where the page of a frame begins.
    fn page(frame: u32) -> usize {
        32 + (frame as usize - 1) * FRAME + 24
    }

    /// A log, and what SQLite takes it to hold.
    fn look(path: &Path) -> (Vec<u8>, Committed) {
        let contents = Contents::new(path).expect("an index");
        (fs::read(beside(path, "-wal")).expect("a log"), contents.committed().expect("an index"))
    }

    fn whole(log: &[u8], known: &Committed) -> u32 {
        whole_frames(log, known).expect("bytes can be read")
    }

    #[test]
    fn the_frames_of_a_log_are_whole_until_a_byte_has_changed() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("some.db");
        let conn = Connection::open(&path).expect("a file");
        let begin = "PRAGMA page_size = 4096; PRAGMA journal_mode = WAL; \
            PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (x)";
        conn.execute_batch(begin).expect("a table");
        let mut ends = Vec::new();
        for _ in 0..3 {
            // Some pages in each transaction.
            conn.execute_batch("INSERT INTO t VALUES (randomblob(20000))").expect("written");
            ends.push(look(&path).1.frames);
        }
        let (log, known) = look(&path);
        let [first, second, third] = ends[..] else { panic!("{ends:?}") };
        assert!(first + 3 < second && second + 3 < third, "{ends:?}");
        assert_eq!((whole(&log, &known), log.len()), (third, page(third) + 4096));
        // In a page, in the header of a frame, and in that of the log.
        for (at, expected) in [
            (page(second - 1) + 7, first),
            (page(second - 1) - 1, first),
            (page(second + 1) - 24, second),
            (page(third) - 20, second),
            (page(1), 0),
            (13, 0),
        ] {
            let mut changed = log.clone();
            changed[at] ^= 1;
            assert_eq!(whole(&changed, &known), expected, "{at}");
        }
        for (bytes, expected) in [
            (page(third), second),
            (page(third - 1) - 24, second),
            (page(second) + 4096, second),
            (page(second) + 4095, first),
            (20, 0),
            (0, 0),
        ] {
            assert_eq!(whole(&log[..bytes], &known), expected, "{bytes}");
        }
        // What lies there fits, and is another transaction.
        assert_eq!(whole(&log, &Committed { sum: [0; 2], ..known }), second);
        assert_eq!(whole(&log, &Committed { salts: [[0; 4]; 2], ..known }), 0);
    }

    #[test]
    fn frames_of_an_earlier_log_behind_the_last_one_are_not_counted() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("some.db");
        let conn = Connection::open(&path).expect("a file");
        let begin = "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; \
            CREATE TABLE t (x); INSERT INTO t VALUES (randomblob(50000))";
        conn.execute_batch(begin).expect("a table");
        let (earlier, before) = look(&path);
        conn.execute_batch("PRAGMA wal_checkpoint(RESTART); INSERT INTO t VALUES (1)")
            .expect("written");
        let (log, known) = look(&path);
        assert!(log.len() == earlier.len() && known.frames + 3 < before.frames, "{known:?}");
        assert_eq!(whole(&log, &known), known.frames);
        assert_eq!(whole(&log, &Committed { frames: u32::MAX, ..known }), known.frames);
        // The beginning of the new one was lost: what lies there is the earlier one.
        assert_eq!(whole(&earlier, &known), 0);
        assert_eq!(whole(&earlier, &before), before.frames);
    }

    #[test]
    fn the_order_of_the_bytes_of_a_number_changes_the_checksum() {
        let words = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [250, 251, 252, 253]];
        let reversed = words.map(|[a, b, c, d]| [d, c, b, a]);
        assert_eq!(add([7, 9], &words, true), add([7, 9], &reversed, false));
        assert_ne!(add([7, 9], &words, true), add([7, 9], &words, false));
        assert_eq!(add([0; 2], &[[1, 0, 0, 0], [2, 0, 0, 0]], false), [1, 3]);
    }

    /// It was forgotten when the log had been written again, and the log began anew over pages that
    /// the disk had not got.
    #[test]
    fn what_a_checkpoint_loses_while_the_log_is_made_good_stays_lost() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("players.db");
        let store = SqliteStore::open(&path, SqliteOptions::default()).expect("the store opens");
        let conn = store.inner.another_writer().expect("a connection");
        let syncs = &store.inner.syncs;
        syncs.fail();
        let meanwhile = |_: &File| {
            syncs.lose(Lost::CopyNotSynced);
            Ok(None)
        };
        let wait = store.inner.options.lock_wait();
        let first = syncs.secure(&conn, wait, meanwhile).expect_err("lost").to_string();
        assert!(first.contains("copies all of the log once more"), "{first}");
        // What was found first says what is to be done.
        syncs.lose(Lost::Frames { lost: 1, of: 2 });
        let later = syncs.secure(&conn, wait, |_| Ok(None)).expect_err("lost").to_string();
        assert_eq!(later, first);
    }

    /// The system had given up a page that it could not write, and the disk's older one was written
    /// again and taken for the log: a loss of power then cut the log there.
    #[tokio::test]
    async fn a_log_that_lost_a_page_is_not_taken_for_made_good() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("players.db");
        let store = SqliteStore::open(&path, SqliteOptions::default()).expect("the store opens");
        let name = beside(&path, "-wal");
        let log = OpenOptions::new().read(true).write(true).open(&name).expect("the log");
        let conn = store.inner.another_writer().expect("a connection");
        let mut ends = Vec::new();
        for name in ["a", "b", "c"] {
            let sql = "INSERT INTO meta (name, value) VALUES (?1, x'00')";
            conn.execute(sql, [name]).expect("written");
            ends.push(log.metadata().expect("the log").len());
        }
        drop(conn);
        let change = || {
            let mut byte = [0];
            log.read_exact_at(&mut byte, ends[0] + 100).expect("the log");
            log.write_all_at(&[!byte[0]], ends[0] + 100).expect("the log");
        };
        let refused = || {
            let mut writer = store.inner.writer.lock();
            match writer.as_mut().expect("a writer").secure(&store.inner) {
                Err(StoreError::Unavailable { reason }) => reason,
                other => panic!("{other:?}"),
            }
        };
        store.inner.syncs.fail();
        change();
        let reason = refused();
        for part in ["the log lost ", "end all programs", &format!("path=`{}`", path.display())] {
            assert!(reason.contains(part), "{part}: {reason}");
        }
        // It stays so, whatever the log holds later.
        change();
        assert_eq!(refused(), reason);
        assert!(store.inner.syncs.seen().await.is_err());
        change();
        let file = fs::read(&path).expect("the file");
        drop(store);
        assert_eq!(fs::read(&path).expect("the file"), file, "nothing is copied into it");
        // Opened anew, the store is what is left.
        let store = SqliteStore::open(&path, SqliteOptions::default()).expect("the store opens");
        let conn = store.inner.another_writer().expect("a connection");
        let found: String = conn
            .query_row("SELECT group_concat(name) FROM meta WHERE name < 'd'", [], |row| row.get(0))
            .expect("names");
        assert_eq!(found, "a");
    }
}
