//! The stored form of a value: what a version's bytes mean.
//!
//! A value is stored as an envelope (a form byte, a codec byte) around JSON. Three kinds of content
//! share it: a profile, a value that is no profile and is kept as it came ([`Foreign`]), and what
//! is left of a document that held nothing but messages ([`MessagesOnly`]). Sessions, requests and
//! messages are not part of a value: they live beside it, so that handing over or sending a gift
//! rewrites no data. What an imported document said about them is kept in [`Origin`], because an
//! earlier version has to be exported as it came long after they have changed.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value, value::RawValue};

mod codec;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod user;
pub(crate) mod version;

pub use user::{InvalidUser, MAX_USER_BYTES, UserId};

use crate::storable::{DATA, DOCUMENT, MAX_MESSAGE_BYTES, Unstorable};
pub use crate::storable::{
    MAX_DATA_BYTES, MAX_METADATA_CHARS, MAX_METADATA_KEY_CHARS, MAX_METADATA_VALUE_CHARS,
    check_metadata, check_users,
};

/// A profile as it is stored.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// When the profile was created, Unix seconds, as the number was written. Specification:
    /// `FirstSessionTime`.
    #[serde(rename = "created")]
    pub created_s: Number,
    /// The users associated with the profile, none negative. Specification: `UserIds`.
    #[serde(rename = "users", default, skip_serializing_if = "Vec::is_empty")]
    pub user_ids: Vec<i64>,
    /// The users associated with the profile that have names and no numbers. A document has no
    /// place for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub named_users: Vec<UserId>,
    /// Specification: `RobloxMetaData`; see [`check_metadata`] for its limits.
    #[serde(rename = "metadata", default, skip_serializing_if = "Map::is_empty")]
    pub roblox_metadata: Map<String, Value>,
    /// Specification: `MetaTags`.
    #[serde(rename = "tags", default, skip_serializing_if = "Map::is_empty")]
    pub meta_tags: Map<String, Value>,
    /// Members of the document that we know nothing about.
    #[serde(rename = "more", default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
    /// Members of the document's `MetaData` that we know nothing about.
    #[serde(rename = "more_meta", default, skip_serializing_if = "Map::is_empty")]
    pub extra_meta: Map<String, Value>,
    /// What else a document said that was imported, or written through [`crate::roblox`]. Only in
    /// such versions: a session's save leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Box<Origin>>,
    /// The data, JSON. Specification: `Data`.
    pub data: Box<RawValue>,
}

/// What an imported document said that our own form derives, or keeps beside the value.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Members of the document as they stood there: `GlobalUpdates`, the transient marks, and those
    /// that our own form cannot express.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub document: Map<String, Value>,
    /// Members of its `MetaData` as they stood there: session, request, load count, time of the
    /// last update.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub meta: Map<String, Value>,
    /// Members that documents usually have and this one lacked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub absent: Vec<String>,
}

/// A value that is no profile, kept as it came.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Foreign {
    /// The users associated with the key.
    #[serde(rename = "users", default, skip_serializing_if = "Vec::is_empty")]
    pub user_ids: Vec<i64>,
    /// The key's metadata.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// The value, JSON.
    pub value: Box<RawValue>,
}

impl Foreign {
    /// Whether it is a Roblox document of a profile, or of messages for one, and no profile here
    /// because its data or a message is too large.
    pub(crate) fn is_large_profile(&self) -> bool {
        #[derive(Deserialize)]
        struct Members<'a> {
            #[serde(rename = "Data", borrow, default)]
            data: Option<&'a RawValue>,
            #[serde(rename = "MetaData", borrow, default)]
            meta: Option<&'a RawValue>,
            #[serde(rename = "GlobalUpdates", borrow, default)]
            messages: Option<&'a RawValue>,
        }
        let text = self.value.get();
        // A list would be taken for the members in their order.
        if text.len() <= MAX_MESSAGE_BYTES || !text.starts_with('{') {
            return false;
        }
        let Ok(Members { data, meta, messages }) = serde_json::from_str(text) else { return false };
        let is_table = |value: &RawValue| value.get().starts_with(['{', '[']);
        let is_profile = match (data, meta) {
            (Some(data), Some(meta)) => is_table(data) && is_table(meta),
            (None, None) => true,
            _ => false,
        };
        let exceeds = |value: Option<&RawValue>, limit: usize| {
            value.is_some_and(|value| is_table(value) && value.get().len() > limit)
        };
        is_profile && (exceeds(data, MAX_DATA_BYTES) || exceeds(messages, MAX_MESSAGE_BYTES))
    }
}

/// A document without data: it held the messages that were sent before the profile's first session.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessagesOnly {
    /// The users associated with the key.
    #[serde(rename = "users", default, skip_serializing_if = "Vec::is_empty")]
    pub user_ids: Vec<i64>,
    /// The key's metadata.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// Members of the document that we know nothing about.
    #[serde(rename = "more", default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
    /// What the imported document said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Box<Origin>>,
}

/// What a stored value turned out to be.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Stored {
    /// A profile.
    Profile(Record),
    /// Something else, kept as it came.
    Foreign(Foreign),
    /// Nothing but messages, which are in the inbox.
    MessagesOnly(MessagesOnly),
}

/// Why a value cannot be stored, or stored bytes cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A part of it cannot be stored.
    #[error(transparent)]
    Unstorable(#[from] Unstorable),
    /// The data and what surrounds it are larger together than a store accepts.
    #[error("the record is too large: size=`{size}` limit=`{limit}`")]
    RecordTooLarge {
        /// Its size, in bytes.
        size: u64,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The stored bytes are of a form or compression that this version does not know.
    #[error("the stored value was written by a newer version, or is damaged: {what}=`{found}`")]
    Unknown {
        /// `form` or `codec`.
        what: &'static str,
        /// The byte.
        found: u8,
    },
    /// The stored bytes cannot be read.
    #[error("the stored value is damaged: {reason}")]
    Damaged {
        /// What is wrong.
        reason: String,
    },
}

impl Record {
    /// A new profile.
    pub fn new(created_s: i64, data: Box<RawValue>) -> Self {
        Self {
            created_s: created_s.into(),
            user_ids: Vec::new(),
            named_users: Vec::new(),
            roblox_metadata: Map::new(),
            meta_tags: Map::new(),
            extra: Map::new(),
            extra_meta: Map::new(),
            origin: None,
            data,
        }
    }

    /// The bytes to be stored. Fails when something of it cannot be stored, see
    /// [`crate::storable`], or it is too large as a whole.
    pub fn encode(&self) -> Result<Bytes, RecordError> {
        self.check()?;
        codec::encode(codec::Form::Profile, self)
    }

    /// The same when the data was checked before, as [`crate::storable::Limits::encode`] does. What
    /// came with a document and nobody can change is let through.
    pub(crate) fn encode_checked(&self) -> Result<Bytes, RecordError> {
        self.check_beside()?;
        codec::encode(codec::Form::Profile, self)
    }

    /// Fails where [`Record::encode_checked`] does, and compresses nothing.
    pub(crate) fn check_encodes(&self) -> Result<(), RecordError> {
        self.check_beside()?;
        codec::check(self)
    }

    /// All users associated with the profile, those with numbers first.
    pub fn users(&self) -> Vec<UserId> {
        let numbers = self.user_ids.iter().map(|number| UserId::from(*number));
        numbers.chain(self.named_users.iter().cloned()).collect()
    }

    /// Makes these the users associated with the profile.
    pub fn set_users(&mut self, users: impl IntoIterator<Item = UserId>) {
        self.user_ids.clear();
        self.named_users.clear();
        for user in users {
            self.add_user(user);
        }
    }

    /// Associates a user. One that is associated already is left alone.
    pub fn add_user(&mut self, user: UserId) {
        match user.number() {
            Some(number) if self.user_ids.contains(&number) => {}
            Some(number) => self.user_ids.push(number),
            None if self.named_users.contains(&user) => {}
            None => self.named_users.push(user),
        }
    }

    /// Takes an association away.
    pub fn remove_user(&mut self, user: &UserId) {
        match user.number() {
            Some(number) => self.user_ids.retain(|id| *id != number),
            None => self.named_users.retain(|named| named != user),
        }
    }

    /// The numbers by which a store finds the profile's users. See
    /// [`crate::data_store::Change::Write`].
    pub fn indexed_users(&self) -> Vec<i64> {
        let named = self.named_users.iter().map(UserId::indexed);
        self.user_ids.iter().copied().chain(named).collect()
    }

    fn check(&self) -> Result<(), Unstorable> {
        DATA.check(&self.data).map_err(|wrong| wrong.inside("Data"))?;
        self.check_beside()?;
        DOCUMENT.check_map(&self.extra_meta).map_err(|wrong| wrong.inside("MetaData"))?;
        check_kept(&self.extra, self.origin.as_deref())
    }

    /// Checks what a program sets beside the data.
    fn check_beside(&self) -> Result<(), Unstorable> {
        check_users(&self.user_ids).map_err(|wrong| wrong.inside("UserIds"))?;
        check_metadata(&self.roblox_metadata).map_err(|wrong| wrong.inside("RobloxMetaData"))?;
        DATA.check_map(&self.meta_tags).map_err(|wrong| wrong.inside("MetaTags").inside("MetaData"))
    }
}

/// Checks what is kept of a document as it came.
fn check_kept(extra: &Map<String, Value>, origin: Option<&Origin>) -> Result<(), Unstorable> {
    DOCUMENT.check_map(extra)?;
    let Some(origin) = origin else { return Ok(()) };
    DOCUMENT.check_map(&origin.document)?;
    DOCUMENT.check_map(&origin.meta).map_err(|wrong| wrong.inside("MetaData"))
}

impl Stored {
    /// The bytes to be stored. Fails as [`Record::encode`] does.
    pub fn encode(&self) -> Result<Bytes, RecordError> {
        self.check()?;
        match self {
            Self::Profile(record) => codec::encode(codec::Form::Profile, record),
            Self::Foreign(foreign) => codec::encode(codec::Form::Foreign, foreign),
            Self::MessagesOnly(messages) => codec::encode(codec::Form::MessagesOnly, messages),
        }
    }

    /// Whether all of it can be stored, but for its size as a whole. What was stored by earlier
    /// versions may not.
    pub fn check(&self) -> Result<(), Unstorable> {
        match self {
            Self::Profile(record) => record.check(),
            Self::Foreign(foreign) => {
                check_users(&foreign.user_ids).map_err(|wrong| wrong.inside("UserIds"))?;
                DATA.check_map(&foreign.metadata)
                    .map_err(|wrong| wrong.inside("RobloxMetaData"))?;
                DOCUMENT.check(&foreign.value)
            }
            Self::MessagesOnly(messages) => {
                check_users(&messages.user_ids).map_err(|wrong| wrong.inside("UserIds"))?;
                DATA.check_map(&messages.metadata)
                    .map_err(|wrong| wrong.inside("RobloxMetaData"))?;
                check_kept(&messages.extra, messages.origin.as_deref())
            }
        }
    }

    /// Reads stored bytes. Allocates no more than the largest value needs, whatever the bytes
    /// claim.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        codec::decode(bytes)
    }

    /// The users associated with the key that have numbers.
    pub fn user_ids(&self) -> &[i64] {
        match self {
            Self::Profile(record) => &record.user_ids,
            Self::Foreign(foreign) => &foreign.user_ids,
            Self::MessagesOnly(messages) => &messages.user_ids,
        }
    }

    /// All users associated with the key, those with numbers first.
    pub fn users(&self) -> Vec<UserId> {
        match self {
            Self::Profile(record) => record.users(),
            other => other.user_ids().iter().map(|number| UserId::from(*number)).collect(),
        }
    }

    /// The numbers by which a store finds them.
    pub fn indexed_users(&self) -> Vec<i64> {
        match self {
            Self::Profile(record) => record.indexed_users(),
            other => other.user_ids().to_vec(),
        }
    }

    /// The key's metadata. Specification: `RobloxMetaData`.
    pub fn metadata(&self) -> &Map<String, Value> {
        match self {
            Self::Profile(record) => &record.roblox_metadata,
            Self::Foreign(foreign) => &foreign.metadata,
            Self::MessagesOnly(messages) => &messages.metadata,
        }
    }
}

/// Two records are equal when they are stored alike: the data is compared as text.
impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            created_s,
            user_ids,
            named_users,
            roblox_metadata,
            meta_tags,
            extra,
            extra_meta,
            origin,
            data,
        } = self;
        *created_s == other.created_s
            && *user_ids == other.user_ids
            && *named_users == other.named_users
            && *roblox_metadata == other.roblox_metadata
            && *meta_tags == other.meta_tags
            && *extra == other.extra
            && *extra_meta == other.extra_meta
            && *origin == other.origin
            && data.get() == other.data.get()
    }
}

impl PartialEq for Foreign {
    fn eq(&self, other: &Self) -> bool {
        self.user_ids == other.user_ids
            && self.metadata == other.metadata
            && self.value.get() == other.value.get()
    }
}

/// Without the data, which is the player's.
impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("created_s", &self.created_s)
            .field("user_ids", &self.user_ids)
            .field("named_users", &self.named_users)
            .field("origin", &self.origin)
            .field("data_bytes", &self.data.get().len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Foreign")
            .field("value_bytes", &self.value.get().len())
            .finish_non_exhaustive()
    }
}
