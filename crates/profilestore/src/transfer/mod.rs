//! Moving profiles in and out: every kept version of every key as lines of JSON.
//!
//! ```text
//! {"store":S,"scope":S,"key":K,"n":1,"version":V,"created_ms":T,"updated_ms":T,
//!  "user_ids":[…],"metadata":{…},"value":DOCUMENT}
//! {"store":S,"scope":S,"key":K,"n":1,"updated_ms":T,"messages":[LAST,[[INDEX,DATA],…]]}
//! ```
//!
//! The first of these is one line too. A line with a `value` is one version. `n` counts the
//! versions of a key from 1 without gaps and gives their order; the order of the lines means
//! nothing. `value` is what the data store of a Roblox game holds under the key (see
//! [`crate::document`]); null, or a line with `"deleted":true`, is a tombstone. An [`import`] makes
//! history of all of them, with their original times and version strings, and what the last one
//! says about session, request and messages becomes live.
//!
//! A line with `messages` brings some more that wait for the key with its version `n`, which has a
//! line of its own. They are written as in the document's `GlobalUpdates`; their indices must all
//! differ. Only those of the last version count. An export writes such lines when the messages are
//! too many for a document: a key's messages may be 250 MiB, and a line is at most
//! [`MAX_LINE_BYTES`]. A program that does not know them refuses them, and the key with them.
//!
//! An import leaves out a key with more than 512 MiB of messages, counted in a form in which a
//! quotation mark takes two bytes. So many can only wait where
//! [`max_message_queue`](crate::Settings::max_message_queue) was raised; an export writes them all
//! the same.
//!
//! An [`export`] gives the same lines back. Both work on any store, a running one included, and
//! read or write blockingly: they are meant for tools.

use std::{io, path::PathBuf};

use serde::Serialize;

use crate::{
    ProfileKey,
    data_store::{KeyFilter, StoreError},
    filter::Filter,
    storable::Unstorable,
};

mod export;
mod import;
mod line;
mod read;
mod salvage;
mod walk;

pub use export::export;
pub use import::import;
pub use read::{Content, Verification, VersionDocument, document, verify};
pub use salvage::salvage;

/// The longest line that is read, in bytes: 16 MiB.
pub const MAX_LINE_BYTES: usize = 16 << 20;

/// How many lines an import reports as malformed before it gives up. It has written nothing by
/// then.
pub const MAX_MALFORMED_LINES: usize = 10_000;

/// How many foreign values and skipped keys an import lists. The others are counted.
pub const MAX_LISTED: usize = 10_000;

/// How an import is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportOptions {
    /// Who imports, for the history.
    pub author: String,
    /// Where its temporary files are, which have no names. They take about as much room as the
    /// values take in the store. Default: the system's folder for such files.
    pub folder: Option<PathBuf>,
}

impl Default for ImportOptions {
    fn default() -> Self {
        Self { author: "import".into(), folder: None }
    }
}

/// What is to be exported or verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportFilter {
    /// Only this store.
    pub store: Option<String>,
    /// Only this scope.
    pub scope: Option<String>,
    /// Which keys.
    pub keys: KeyFilter,
    /// Of those, only profiles whose saved data matches. For an export.
    pub filter: Option<Filter>,
    /// Without earlier versions. For an export.
    pub current: bool,
}

impl Default for ExportFilter {
    fn default() -> Self {
        Self { store: None, scope: None, keys: KeyFilter::All, filter: None, current: false }
    }
}

/// How far a transfer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// An import has read so many bytes of its input.
    Read {
        /// Bytes so far.
        bytes: u64,
    },
    /// An import has stored, or found stored, so many of the versions that it read.
    Stored {
        /// Versions so far.
        versions: u64,
        /// All of them.
        of: u64,
    },
    /// The search of an export ([`ExportFilter::filter`]) has looked at so many keys more.
    LookedAt {
        /// Keys since it said so last.
        keys: u64,
    },
    /// An export or a verification has passed so much. How much there is, is not known.
    Passed {
        /// Keys so far.
        keys: u64,
        /// Versions so far.
        versions: u64,
    },
}

/// What an import did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ImportReport {
    /// Lines read, blank ones included.
    pub lines: u64,
    /// Versions stored now, tombstones included.
    pub versions: u64,
    /// Keys that are complete now and were not before.
    pub keys: u64,
    /// Tombstones among the versions stored now.
    pub tombstones: u64,
    /// Keys that were there already with all these versions; nothing was done about them.
    pub already_there: AlreadyThere,
    /// Of the keys imported now, those that a session holds.
    pub held_sessions: u64,
    /// Of those, the ones that another server has asked for.
    pub handover_requests: u64,
    /// The messages that came with the keys imported now.
    pub pending: Pending,
    /// Values of the keys imported now that are no profiles. They are kept as they came. At most
    /// [`MAX_LISTED`] are listed.
    pub foreign: Vec<ForeignValue>,
    /// How many there are.
    pub foreign_values: u64,
    /// Keys that were not imported, and why. At most [`MAX_LISTED`] are listed.
    pub skipped: Vec<SkippedKey>,
    /// How many there are.
    pub skipped_keys: u64,
    /// How many versions of theirs are in the input.
    pub skipped_versions: u64,
    /// Lines that could not be understood. Their keys, as far as they can be told, are among the
    /// skipped ones.
    pub malformed: Vec<MalformedLine>,
}

impl ImportReport {
    fn skip(&mut self, key: SkippedKey) {
        self.skipped_keys += 1;
        self.skipped_versions += key.versions;
        if self.skipped.len() < MAX_LISTED {
            self.skipped.push(key);
        }
    }

    fn note_foreign(&mut self, value: ForeignValue) {
        self.foreign_values += 1;
        if self.foreign.len() < MAX_LISTED {
            self.foreign.push(value);
        }
    }
}

/// What an import found to be there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct AlreadyThere {
    /// Keys.
    pub keys: u64,
    /// Their versions.
    pub versions: u64,
}

/// Messages that are waiting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pending {
    /// Keys with messages.
    pub keys: u64,
    /// Messages.
    pub entries: u64,
    /// Of those, locked ones.
    pub locked: u64,
}

/// A value that is no profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ForeignValue {
    /// Its key.
    #[serde(flatten)]
    pub key: ProfileKey,
    /// Which of the key's versions.
    pub n: u64,
    /// Why it is no profile.
    pub why: String,
}

/// A key that was not imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SkippedKey {
    /// The key.
    #[serde(flatten)]
    pub key: ProfileKey,
    /// How many of its versions are in the input.
    pub versions: u64,
    /// Why it was not imported.
    pub why: String,
}

/// A line that could not be understood.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MalformedLine {
    /// Its number, from 1.
    pub line: u64,
    /// The key that it is about, as far as that can be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<ProfileKey>,
    /// What is wrong with it.
    pub why: String,
}

impl UnreadableValue {
    /// One that is not what was written.
    fn damaged(key: &ProfileKey, number: u64) -> Self {
        Self { key: key.clone(), number, why: "the stored value is damaged".into() }
    }
}

/// What an export wrote, or a verification found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ExportReport {
    /// Keys.
    pub keys: u64,
    /// Versions, tombstones and made-up ones included.
    pub versions: u64,
    /// Tombstones among them.
    pub tombstones: u64,
    /// Keys that a session holds.
    pub held_sessions: u64,
    /// Of those, the ones that another server has asked for.
    pub handover_requests: u64,
    /// Messages that are waiting.
    pub pending: Pending,
    /// Values that are no profiles.
    pub foreign: u64,
    /// Keys of the library's own books ([`crate::key::RESERVED_STORE`]) that a verification read;
    /// they are not among the other numbers.
    pub books: u64,
    /// Values that cannot be read. They are left out.
    pub unreadable: Vec<UnreadableValue>,
    /// Values and messages that a verification can read, but that could not be stored today: see
    /// [`crate::storable`]. A session may not be able to open them, and an import of them is
    /// refused.
    pub unstorable: Vec<UnstorableValue>,
}

/// A value that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnreadableValue {
    /// Its key.
    #[serde(flatten)]
    pub key: ProfileKey,
    /// The version's number; 0 when nothing of the key can be read.
    pub number: u64,
    /// What is wrong with it.
    pub why: String,
}

/// A value or a message that breaks the rule of what can be stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnstorableValue {
    /// Its key.
    #[serde(flatten)]
    pub key: ProfileKey,
    /// The version's number. None for a message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// The message's index. None for a version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<u64>,
    /// Where in it, a JSON pointer; for a profile in its document.
    pub path: String,
    /// What is wrong there.
    pub why: String,
}

impl UnstorableValue {
    fn of(key: &ProfileKey, number: Option<u64>, message: Option<u64>, wrong: Unstorable) -> Self {
        Self { key: key.clone(), number, message, path: wrong.path, why: wrong.problem.to_string() }
    }
}

/// Why a transfer stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// The store failed. What an import stored until then is complete key by key, except for the
    /// last few; run it again.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The input cannot be read. Nothing was stored.
    #[error("the input cannot be read: line=`{line}`")]
    Read {
        /// After this line.
        line: u64,
        /// Why.
        source: io::Error,
    },
    /// The output cannot be written.
    #[error("the output cannot be written")]
    Write(#[source] io::Error),
    /// Too many lines are malformed. Nothing was stored.
    #[error("the input is not a list of versions: malformed_lines=`{MAX_MALFORMED_LINES}` \
        first_line=`{}` because: {}", .0.line, .0.why)]
    NotAnExport(MalformedLine),
    /// The temporary files cannot be written or read, because the disk is full for example. Run it
    /// again: what is stored by then is found to be there.
    #[error("the import's temporary files cannot be used: folder=`{}`", .folder.display())]
    Temporary {
        /// Where they are.
        folder: PathBuf,
        /// Why.
        source: io::Error,
    },
}
