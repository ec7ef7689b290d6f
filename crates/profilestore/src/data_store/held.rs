//! What a store holds, and how reads name it: keys with their leases, versions, game servers.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{HostId, Incarnation, RequestId, ServerId, StoredMessage};
use crate::key::ProfileKey;

/// A store's incarnation and clock. See [`DataStore::identity`](super::DataStore::identity).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The identity of the contents, to be named in every commit.
    pub incarnation: Incarnation,
    /// The store's clock, in Unix milliseconds.
    pub now_ms: i64,
}

/// What a read or a commit shows of each key besides its lease and head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Returning {
    /// The value of the current version.
    pub value: bool,
    /// The inbox, unless its revision is this one. `Some(u64::MAX)` always brings it; `None` never.
    pub inbox_unless: Option<u64>,
}

impl Returning {
    /// Lease and head only.
    pub const HEAD: Self = Self { value: false, inbox_unless: None };
    /// Lease, head and inbox.
    pub const INBOX: Self = Self { value: false, inbox_unless: Some(u64::MAX) };
    /// Everything.
    pub const ALL: Self = Self { value: true, inbox_unless: Some(u64::MAX) };
}

/// What a read found.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The store's clock, in Unix milliseconds.
    pub now_ms: i64,
    /// One state a key, in the order asked for.
    pub states: Vec<KeyState>,
}

/// What a key holds now.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyState {
    /// The key.
    pub key: ProfileKey,
    /// The fencing token: data may only be written by a commit that names it. Grows with each
    /// change of owner. 0: never used.
    pub epoch: u64,
    /// The number of the current version, dense from 1. 0: nothing was ever written.
    pub version: u64,
    /// When version 1 was written, Unix milliseconds. 0 with version 0.
    pub created_ms: i64,
    /// About the current version. None with version 0.
    pub head: Option<VersionInfo>,
    /// Which session may write, which start asks for the profile, and to which start it is offered.
    pub lease: LeaseState,
    /// Counts the lease's changes; the precondition for the next one. 0: never changed.
    pub lease_revision: u64,
    /// The row of the server that the lease's holder names, if there is such a row.
    pub holder_server: Option<ServerRow>,
    /// Counts the inbox's changes.
    pub inbox_revision: u64,
    /// The index of the newest message ever appended; the next one gets this plus one.
    pub last_message: u64,
    /// The inbox by ascending index. None when it was not asked for or is unchanged. See
    /// [`Returning::inbox_unless`].
    pub inbox: Option<Vec<StoredMessage>>,
    /// The current version's value, when asked for. None with version 0 and for a tombstone.
    pub value: Option<Bytes>,
}

impl KeyState {
    /// The state of a key that does not exist.
    pub fn absent(key: ProfileKey) -> Self {
        Self {
            key,
            epoch: 0,
            version: 0,
            created_ms: 0,
            head: None,
            lease: LeaseState::default(),
            lease_revision: 0,
            holder_server: None,
            inbox_revision: 0,
            last_message: 0,
            inbox: None,
            value: None,
        }
    }

    /// Leaves the messages out that carry operators' edits: they are no messages of the game.
    pub(crate) fn hide_edits(&mut self) {
        if let Some(inbox) = &mut self.inbox {
            inbox.retain(|message| !message.id.is_edit());
        }
    }

    /// True when there is a current value: something was written and not removed since.
    pub fn exists(&self) -> bool {
        self.head.as_ref().is_some_and(|head| !head.removed)
    }
}

/// Which session may write a profile, which start asks for it, and to which start it is offered.
/// Stored as JSON; unknown members are refused.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseState {
    /// Sessions started on the profile so far. Specification: `SessionLoadCount`.
    #[serde(default)]
    pub load_count: u64,
    /// The session that may write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// The newest request to hand the profile over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
    /// Set when a holder let go for the sake of a request: until it expires, only that request may
    /// take the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offer>,
}

impl LeaseState {
    /// True when the key counts as held for [`KeyFilter::Held`]: a session holds it, or it is
    /// offered to one.
    pub fn is_held(&self) -> bool {
        self.holder.is_some() || self.offer.is_some()
    }
}

/// The session that may write a profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// The server. None for a session that came with an imported or foreign record, which no server
    /// row vouches for.
    pub server: Option<ServerId>,
    /// Specification: `PlaceId`.
    pub place_id: i64,
    /// Specification: `JobId`.
    pub job_id: String,
    /// The session's own identity.
    pub session: String,
    /// When the session started, by the store's clock, Unix milliseconds.
    pub since_ms: i64,
    /// For a session without a server row: its record's last update, Unix milliseconds; None when
    /// the record had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_update_ms: Option<i64>,
    /// For a session that came with a document: its `ActiveSession` as it stood there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<serde_json::Value>,
}

/// A request to hand a profile over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The request's identity.
    pub id: RequestId,
    /// The server that asks. None for a request that came with an imported or foreign record.
    pub server: Option<ServerId>,
    /// The asking server's place.
    pub place_id: i64,
    /// The asking server's job.
    pub job_id: String,
    /// When it was made, by the store's clock, Unix milliseconds.
    pub at_ms: i64,
    /// For a request that came with a document: its `ForceLoadSession` as it stood there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<serde_json::Value>,
}

/// A profile that was let go, and is kept free for the start that asked for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offer {
    /// The request that it answers.
    pub to: RequestId,
    /// The server that made the request.
    pub server: ServerId,
    /// When it was made, by the store's clock, Unix milliseconds.
    pub at_ms: i64,
}

/// A game server's lease: one row a server, renewed every few seconds; all its sessions refer to
/// it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRow {
    /// The server.
    pub id: ServerId,
    /// Specification: `PlaceId`.
    pub place_id: i64,
    /// Specification: `JobId`.
    pub job_id: String,
    /// Counts the renewals; the precondition for the next one and for a declaration of death.
    /// Starts at 1.
    pub revision: u64,
    /// After how long without a renewal the server may be declared dead, in milliseconds.
    pub lease_ms: i64,
    /// When it registered, by the store's clock, Unix milliseconds.
    pub started_ms: i64,
    /// When it was last renewed, by the store's clock, Unix milliseconds.
    pub renewed_ms: i64,
    /// True once it was declared dead or has ended; such a row is never renewed again.
    pub dead: bool,
    /// The process that hosts the game server's engine. None: the game server hosts itself.
    #[serde(default)]
    pub host: Option<HostId>,
    /// Which of its hosts this is: 0 at first, and greater each time that another one takes over.
    #[serde(default)]
    pub generation: u64,
    /// Who may have the game server hosted: what its host wrote when it registered the row. The
    /// store does not read it.
    #[serde(default)]
    pub owner: Option<String>,
}

/// Why a version was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Cause {
    /// The first session of a new profile.
    Start,
    /// An autosave or a save that was asked for.
    Save,
    /// The last save of a session.
    End,
    /// A write without a session.
    Set,
    /// An earlier version made current again.
    Restore,
    /// A removal.
    Remove,
    /// Brought in from outside.
    Import,
    /// An operator's change.
    Edit,
    /// A transaction over several profiles.
    Transaction,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 9] = [
        Self::Start,
        Self::Save,
        Self::End,
        Self::Set,
        Self::Restore,
        Self::Remove,
        Self::Import,
        Self::Edit,
        Self::Transaction,
    ];

    /// The word that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Save => "save",
            Self::End => "end",
            Self::Set => "set",
            Self::Restore => "restore",
            Self::Remove => "remove",
            Self::Import => "import",
            Self::Edit => "edit",
            Self::Transaction => "transaction",
        }
    }

    /// The cause of that word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.as_str() == word)
    }
}

/// About one version of a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VersionInfo {
    /// Its number, dense from 1.
    pub number: u64,
    /// The version string it came with, when it was imported.
    pub label: Option<String>,
    /// When it was written, Unix milliseconds: the store's clock, or what the import said.
    pub written_ms: i64,
    /// When it was stored, by the store's clock, Unix milliseconds.
    pub stored_ms: i64,
    /// When its successor was stored. None for the current version.
    pub superseded_ms: Option<i64>,
    /// True for a tombstone.
    pub removed: bool,
    /// Why it was written.
    pub cause: Cause,
    /// Who wrote it: a server's job id, an operator, a tool.
    pub author: String,
    /// The load count when it was written.
    pub load_count: u64,
    /// True when retention leaves it alone.
    pub pinned: bool,
    /// The stored size of its value, in bytes.
    pub bytes: u64,
}

/// One version with its value.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredVersion {
    /// About the version.
    pub info: VersionInfo,
    /// The value; None for a tombstone.
    pub value: Option<Bytes>,
}

/// Which version is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionRef {
    /// By number.
    Number(u64),
    /// By the version string of [`VersionInfo::label`].
    Label(String),
}

impl VersionRef {
    /// True when this is the version that is meant.
    pub fn names(&self, info: &VersionInfo) -> bool {
        match self {
            Self::Number(number) => info.number == *number,
            Self::Label(label) => info.label.as_ref() == Some(label),
        }
    }
}

/// The direction of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Order {
    /// Oldest first.
    #[default]
    Ascending,
    /// Newest first.
    Descending,
}

/// A page of a key's versions. See [`DataStore::versions`](super::DataStore::versions).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionQuery {
    /// The key.
    pub key: ProfileKey,
    /// By number: which first.
    pub order: Order,
    /// Only versions written at or after this time, Unix milliseconds.
    pub from_ms: Option<i64>,
    /// Only versions written at or before this time, Unix milliseconds.
    pub to_ms: Option<i64>,
    /// Only versions beyond this number in the direction of the listing: the last one of the page
    /// before.
    pub after: Option<u64>,
    /// At most so many.
    pub limit: usize,
}

impl VersionQuery {
    /// True when the version belongs into the listing, the limit apart.
    pub fn wants(&self, info: &VersionInfo) -> bool {
        let beyond = self.after.is_none_or(|after| match self.order {
            Order::Ascending => info.number > after,
            Order::Descending => info.number < after,
        });
        beyond
            && self.from_ms.is_none_or(|from| info.written_ms >= from)
            && self.to_ms.is_none_or(|to| info.written_ms <= to)
    }
}

/// Which keys are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyFilter {
    /// All of them.
    All,
    /// Keys that begin with this.
    Prefix(String),
    /// Profiles associated with this user.
    User(i64),
    /// Profiles whose current version was stored at or after this time, Unix milliseconds.
    UpdatedSince(i64),
    /// Profiles that a session holds or that are offered to one.
    Held,
    /// Keys that begin with this and are meant by another filter too. See [`KeyFilter::within`].
    Within(String, Box<KeyFilter>),
}

impl KeyFilter {
    /// The same, but only keys that begin with this: nothing else is looked at.
    #[must_use]
    pub fn within(self, prefix: &str) -> Self {
        match self {
            filter if prefix.is_empty() => filter,
            Self::All => Self::Prefix(prefix.to_owned()),
            filter => Self::Within(prefix.to_owned(), Box::new(filter)),
        }
    }

    /// What keys are to begin with, as often as it is said, and what else is wanted of them.
    pub fn parts(&self) -> (Vec<&str>, &Self) {
        match self {
            Self::Prefix(prefix) => (vec![prefix], &Self::All),
            Self::Within(prefix, filter) => {
                let (mut prefixes, rest) = filter.parts();
                prefixes.push(prefix);
                (prefixes, rest)
            }
            filter => (Vec::new(), filter),
        }
    }

    fn wants(&self, state: &KeyState, user_ids: &[i64]) -> bool {
        match self {
            Self::All => true,
            Self::Prefix(prefix) => state.key.key().starts_with(prefix.as_str()),
            Self::User(user) => user_ids.contains(user),
            Self::UpdatedSince(since) => {
                state.head.as_ref().is_some_and(|head| head.stored_ms >= *since)
            }
            Self::Held => state.lease.is_held(),
            Self::Within(prefix, filter) => {
                state.key.key().starts_with(prefix.as_str()) && filter.wants(state, user_ids)
            }
        }
    }
}

/// A page of keys. See [`DataStore::keys`](super::DataStore::keys).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyQuery {
    /// Only this store.
    pub store: Option<String>,
    /// Only this scope.
    pub scope: Option<String>,
    /// Which keys.
    pub filter: KeyFilter,
    /// Only keys after this one: the last one of the page before.
    pub after: Option<ProfileKey>,
    /// At most so many.
    pub limit: usize,
}

impl KeyQuery {
    /// True when a key with this state and these users belongs into the listing, the limit apart.
    pub fn wants(&self, state: &KeyState, user_ids: &[i64]) -> bool {
        self.store.as_ref().is_none_or(|store| state.key.store() == store)
            && self.scope.as_ref().is_none_or(|scope| state.key.scope() == scope)
            && self.after.as_ref().is_none_or(|after| state.key > *after)
            && self.filter.wants(state, user_ids)
    }
}

/// The messages that wait in all inboxes of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Backlog {
    /// Messages, without operators' edits.
    pub messages: u64,
    /// Operators' edits that wait for the servers that hold their profiles.
    pub edits: u64,
    /// In how many inboxes they all are.
    pub keys: u64,
    /// The message that was sent first.
    pub oldest: Option<OldestMessage>,
}

/// The message that has waited longest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OldestMessage {
    /// For which profile.
    #[serde(flatten)]
    pub key: ProfileKey,
    /// When it was sent, Unix milliseconds.
    pub sent_ms: i64,
}
