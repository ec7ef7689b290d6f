//! Noticing that another program wrote over an open store's file, `cp` for example.
//!
//! While the store is open, nothing but a checkpoint writes to its file: commits go to the log. And
//! every checkpoint leaves a trace in the log's index: before it writes it notes how far it will
//! copy, and when it is done how far it has. So a file that was written (its time or its size says
//! so) although no checkpoint was at work since the last look was written by another program.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::{self, File, Metadata},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
    sync::Arc,
};

use parking_lot::Mutex;

use super::{log_frames::Committed, schema::beside};

/// How much of the index is read: its header, and how far the log is copied. SQLite documents it in
/// `walformat.html`; numbers are in the machine's own order, but for the salts.
const INDEX_BYTES: usize = 136;
const FRAMES_AT: usize = 16;
const SUM_AT: usize = 24;
const SALTS_AT: usize = 32;
const COPIED_AT: usize = 96;
const ATTEMPTED_AT: usize = 128;

/// Which log there is, and how far it is copied into the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Log {
    /// They change when the log begins anew.
    salts: u64,
    copied: u32,
    /// More than `copied` while a checkpoint is at work, and after one that was killed.
    attempted: u32,
}

/// When the file was written, and how large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    time: (i64, i64),
    bytes: u64,
}

impl Written {
    pub(super) fn of(file: &Metadata) -> Self {
        Self { time: (file.mtime(), file.mtime_nsec()), bytes: file.len() }
    }
}

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Only checkpoints wrote to the file, as far as can be told.
    Own,
    /// A checkpoint is at work, or was killed: until the next one is done, nothing can be told.
    Unsure,
    /// Another program wrote to it.
    Overwritten,
}

/// What an open file looked like.
#[derive(Debug)]
pub(super) struct Contents {
    index: Index,
    seen: Mutex<Option<(Log, Written)>>,
}

impl Contents {
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let index = Index(KeptOpen::open(&beside(path, "-shm"))?);
        Ok(Self { index, seen: Mutex::default() })
    }

    pub(super) fn log(&self) -> io::Result<Log> {
        self.index.read()
    }

    /// What SQLite takes the log to hold. Holds still only as long as no process may write to it.
    pub(super) fn committed(&self) -> io::Result<Committed> {
        let bytes = self.index.bytes()?;
        let number = |at| number_at(&bytes, at);
        Ok(Committed {
            frames: number(FRAMES_AT),
            sum: [number(SUM_AT), number(SUM_AT + 4)],
            // As they lie there: SQLite copies their bytes.
            salts: [number(SALTS_AT), number(SALTS_AT + 4)].map(u32::to_ne_bytes),
        })
    }

    /// Judges a file that was looked at after `before` had been read.
    pub(super) fn judge(&self, before: Log, written: Written) -> io::Result<Found> {
        // Otherwise a checkpoint may have begun, or ended, in between: the next look tells.
        if self.index.read()? != before {
            return Ok(Found::Own);
        }
        Ok(judge(&mut self.seen.lock(), before, written))
    }
}

fn judge(seen: &mut Option<(Log, Written)>, log: Log, written: Written) -> Found {
    let at_rest = log.copied == log.attempted;
    match seen {
        Some((last, earlier)) if *last == log && *earlier != written && at_rest => {
            Found::Overwritten
        }
        Some((last, earlier)) => {
            let stays = *last == log;
            (*last, *earlier) = (log, written);
            if stays && !at_rest { Found::Unsure } else { Found::Own }
        }
        None => {
            *seen = Some((log, written));
            if at_rest { Found::Own } else { Found::Unsure }
        }
    }
}

/// The index of a log.
#[derive(Debug)]
struct Index(KeptOpen);

impl Index {
    fn bytes(&self) -> io::Result<[u8; INDEX_BYTES]> {
        let mut bytes = [0; INDEX_BYTES];
        self.0.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    fn read(&self) -> io::Result<Log> {
        let bytes = self.bytes()?;
        let number = |at| number_at(&bytes, at);
        let salts = (u64::from(number(SALTS_AT)) << 32) | u64::from(number(SALTS_AT + 4));
        Ok(Log { salts, copied: number(COPIED_AT), attempted: number(ATTEMPTED_AT) })
    }
}

/// A file on which SQLite has locks, open for reading.
///
/// A process that closes a file loses all its locks on it, those of SQLite's own connections too.
/// So a file is open once in a process. It is closed only when no name leads to it any more, since
/// then no other program can come to it: with its last user, or when another file is opened.
#[derive(Debug)]
pub(super) struct KeptOpen {
    file: Arc<File>,
    id: (u64, u64),
}

static OPEN: Mutex<BTreeMap<(u64, u64), Arc<File>>> = Mutex::new(BTreeMap::new());

impl KeptOpen {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut open = OPEN.lock();
        open.retain(|_, file| Arc::strong_count(file) > 1 || has_a_name(file));
        let id = id_of(&fs::metadata(path)?);
        if let Some(file) = open.get(&id) {
            return Ok(Self { file: file.clone(), id });
        }
        let file = File::open(path)?;
        // Another one may have come under the name.
        let id = id_of(&file.metadata()?);
        let file = match open.entry(id) {
            Entry::Occupied(there) => {
                std::mem::forget(file);
                there.get().clone()
            }
            Entry::Vacant(free) => free.insert(Arc::new(file)).clone(),
        };
        Ok(Self { file, id })
    }

    pub(super) fn id(&self) -> (u64, u64) {
        self.id
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// One that cannot be synced.
    #[cfg(test)]
    pub(super) fn pipe() -> io::Result<Self> {
        let file = Arc::new(File::from(std::os::fd::OwnedFd::from(io::pipe()?.0)));
        Ok(Self { file, id: (0, 0) })
    }
}

impl Drop for KeptOpen {
    fn drop(&mut self) {
        let mut open = OPEN.lock();
        let is_last = Arc::strong_count(&self.file) == 2;
        if is_last && !has_a_name(&self.file) {
            open.remove(&self.id);
        }
    }
}

fn has_a_name(file: &File) -> bool {
    file.metadata().map_or(true, |found| found.nlink() > 0)
}

fn number_at(bytes: &[u8; INDEX_BYTES], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_ne_bytes(number)
}

pub(super) fn id_of(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It was kept for as long as the process lived, and the room of a file that was deleted with
    /// it.
    #[test]
    fn a_file_is_kept_open_until_no_name_leads_to_it() {
        let dir = tempfile::tempdir().expect("a folder");
        let [one, other] = ["one", "other"].map(|name| dir.path().join(name));
        for path in [&one, &other] {
            fs::write(path, "").expect("a file");
        }
        let open = |path| KeptOpen::open(path).expect("it is there");
        let kept = |id| OPEN.lock().contains_key(&id);
        let id = open(&one).id();
        assert!(kept(id), "SQLite's connections may have locks on it");
        fs::remove_file(&one).expect("removed");
        let (first, second) = (open(&other), open(&other));
        assert!(!kept(id), "another one was opened");
        let id = first.id();
        fs::remove_file(&other).expect("removed");
        drop(first);
        assert!(kept(id));
        drop(second);
        assert!(!kept(id), "that was its last user");
    }

    #[test]
    fn a_file_is_overwritten_when_it_was_written_and_no_checkpoint_was_at_work() {
        let log = |salts, copied, attempted| Log { salts, copied, attempted };
        let written = |time, bytes| Written { time: (time, 0), bytes };
        let mut seen = None;
        for (log, written, expected) in [
            (log(1, 0, 0), written(1, 10), Found::Own),
            (log(1, 0, 0), written(1, 10), Found::Own),
            // A checkpoint begins, writes, and is done.
            (log(1, 0, 5), written(1, 10), Found::Own),
            (log(1, 0, 5), written(2, 12), Found::Unsure),
            (log(1, 5, 5), written(3, 12), Found::Own),
            (log(1, 5, 5), written(3, 12), Found::Own),
            // The log begins anew, and a checkpoint is killed after it wrote.
            (log(2, 0, 0), written(3, 12), Found::Own),
            (log(2, 0, 7), written(4, 12), Found::Own),
            (log(2, 0, 7), written(4, 12), Found::Unsure),
            (log(2, 7, 7), written(5, 12), Found::Own),
            // Another program writes: the size stays, or the time does. It is told again.
            (log(2, 7, 7), written(6, 12), Found::Overwritten),
            (log(2, 7, 7), written(5, 11), Found::Overwritten),
        ] {
            assert_eq!(judge(&mut seen, log, written), expected, "{log:?} {written:?}");
        }
    }
}
