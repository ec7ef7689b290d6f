//! What a store's program keeps beside it when its files were taken away, and what an operator does
//! with that.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::schema::beside;
use crate::data_store::StoreError;

/// What became of an open store's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// A name leads to another file, or to none. The connection still reads all that it wrote.
    Taken,
    /// Another program wrote to the file. What is in neither the log nor the connection's memory is
    /// gone.
    Overwritten,
}

impl How {
    const BOTH: [Self; 2] = [Self::Taken, Self::Overwritten];

    /// What a file that is kept is called: the store's name, this, and the time.
    fn infix(self) -> &'static str {
        match self {
            Self::Taken => ".rescued-",
            Self::Overwritten => ".remains-",
        }
    }

    pub(super) fn what_happened(self) -> &'static str {
        match self {
            Self::Taken => {
                "a file of the store (the file, its `-wal` or its `-shm`) was deleted, \
                moved or replaced"
            }
            Self::Overwritten => "another program wrote over the store's file",
        }
    }

    /// Under which name something is kept.
    pub(super) fn file(self, path: &Path, now_ms: i64) -> PathBuf {
        beside(path, &format!("{}{now_ms}", self.infix()))
    }
}

/// A file that is kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) how: How,
    pub(super) file: PathBuf,
}

/// Fails when something was kept beside a file: an operator has to decide what counts.
pub(super) fn refuse_beside_kept(path: &Path) -> Result<(), StoreError> {
    let Some(kept) = newest_beside(path) else { return Ok(()) };
    let shown = kept.file.display();
    let copied = match kept.how {
        How::Taken => "copied what it had acknowledged",
        How::Overwritten => "copied what it could still read",
    };
    Err(StoreError::Invalid {
        reason: format!(
            "{} while a program had it open, which {copied} to `{shown}`; {}: path=`{}`",
            kept.how.what_happened(),
            decide(path, &kept),
            path.display()
        ),
    })
}

/// The newest one holds the most.
fn newest_beside(path: &Path) -> Option<Kept> {
    let name = path.file_name()?;
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // A folder that cannot be listed hides no store from those who can open files in it.
    let entries = fs::read_dir(folder).ok()?;
    let kept = |entry: fs::DirEntry| {
        let found = entry.file_name();
        How::BOTH.into_iter().find_map(|how| {
            let begin = beside(Path::new(name), how.infix());
            let begin = begin.as_os_str().as_encoded_bytes();
            let time = found.as_encoded_bytes().strip_prefix(begin)?;
            let is_time = !time.is_empty() && time.iter().all(u8::is_ascii_digit);
            is_time.then(|| Kept { how, file: entry.path() })
        })
    };
    entries.flatten().filter_map(kept).max_by(|a, b| a.file.cmp(&b.file))
}

/// What an operator has to do.
pub(super) fn decide(path: &Path, kept: &Kept) -> String {
    let (path, file) = (path.display(), kept.file.display());
    let begin = format!(
        "end all programs that have the store open; move `{path}`, `{path}-wal` and `{path}-shm` \
         away together, as far as they are there, and keep them"
    );
    match kept.how {
        How::Taken => format!(
            "{begin}: what another command wrote in between is only there (`profilestore audit \
             --since 1h` on the moved file lists it, to be done again); then: profilestore restore \
             {file} --store sqlite:{path}, and move the rescued file away"
        ),
        How::Overwritten => format!(
            "{begin}; then restore the last backup: profilestore restore BACKUP --store \
             sqlite:{path}. Every save that was in the file, and not in its log or this program's \
             memory, is not kept; `{file}` mixes what is left with the other contents, so compare \
             what comes out of it (profilestore export --salvage FILE --store sqlite:{file}) with \
             the backup, and trust no profile unseen; move it away at the end"
        ),
    }
}
