//! Messages and their identities.

use std::fmt;

use bytes::Bytes;
use uuid::Uuid;

use super::Digest;

/// The identity of a message, chosen by its sender: a name and the time at which the sender first
/// made it.
///
/// A sender that retries must use the same name *and* time. Shown and parsed as `TIME:NAME`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    pub(crate) created_ms: i64,
    pub(crate) name: String,
}

/// The longest name of a message id, in bytes.
pub const MAX_MESSAGE_NAME_BYTES: usize = 200;

/// How the names of messages begin that carry operators' edits.
const EDIT_NAMES: &str = "~edit/";

impl MessageId {
    /// An identity from the time when the cause of the message arose (Unix milliseconds) and a name
    /// that is unique among the messages of the receiving profile, such as a purchase id. None when
    /// the name is empty, longer than [`MAX_MESSAGE_NAME_BYTES`], or begins with `~edit/`, as the
    /// ids of operators' edits do.
    pub fn new(created_ms: i64, name: &str) -> Option<Self> {
        Self::stored(created_ms, name).filter(|id| !id.is_edit())
    }

    /// An identity that a store gave out, which may be that of an edit.
    pub(crate) fn stored(created_ms: i64, name: &str) -> Option<Self> {
        (!name.is_empty() && name.len() <= MAX_MESSAGE_NAME_BYTES)
            .then(|| Self { created_ms, name: name.to_owned() })
    }

    /// The identity of the message that carries an operator's edit to a profile's holder.
    pub(crate) fn edit(operation: Uuid) -> Self {
        Self {
            created_ms: crate::key::began_ms(operation),
            name: format!("{EDIT_NAMES}{operation}"),
        }
    }

    /// True for the identity of a message that carries an operator's edit. Such messages are the
    /// library's own: a program cannot make one, no handler is offered one.
    pub fn is_edit(&self) -> bool {
        self.name.starts_with(EDIT_NAMES)
    }

    /// The operation whose edit the message carries.
    pub(crate) fn operation(&self) -> Option<Uuid> {
        self.name.strip_prefix(EDIT_NAMES)?.parse().ok()
    }

    /// When it was made, Unix milliseconds.
    pub fn created_ms(&self) -> i64 {
        self.created_ms
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Under which a receipt is kept.
    pub fn digest(&self) -> Digest {
        Digest::of(self.to_string().as_bytes())
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.created_ms, self.name)
    }
}

impl serde::Serialize for MessageId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for MessageId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl std::str::FromStr for MessageId {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (time, name) = text
            .split_once(':')
            .ok_or("a message id is TIME:NAME, with the time in Unix milliseconds")?;
        let time = time
            .parse()
            .map_err(|_| "the time of a message id is a whole number of Unix milliseconds")?;
        Self::new(time, name)
            .ok_or("the name of a message id is 1 to 200 bytes and does not begin with ~edit/")
    }
}

/// A message to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Its identity.
    pub id: MessageId,
    /// Its payload, JSON, at most [`MAX_MESSAGE_BYTES`](super::MAX_MESSAGE_BYTES).
    pub payload: Bytes,
}

/// A message in an inbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its number within the key, never reused.
    pub index: u64,
    /// Its identity.
    pub id: MessageId,
    /// Its payload, JSON.
    pub payload: Bytes,
    /// True once a holder locked it: it can no longer be changed from outside. Specification: a
    /// `Locked` global update.
    pub locked: bool,
    /// Counts changes of the payload from 1. Specification: a global update's version.
    pub revision: u64,
    /// When it was appended, by the store's clock, Unix milliseconds.
    pub sent_ms: i64,
}
