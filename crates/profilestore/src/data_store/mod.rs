//! The storage contract: one trait that every backend implements, and the conformance suite that holds them to it.
//!
//! Reads come in a few shapes; there is **one** way to write: a [`Commit`], a handful of [`Change`]s that carry their own
//! preconditions and take effect together or not at all. Why not a bare compare-and-swap of one value: a hand-over request or
//! a gift must not rewrite a 100 KB profile, and a save must not read before it writes. Why not a method per use case: the
//! rules of sessions live once, in `session::protocol`, and a backend stays small.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::key::ProfileKey;

mod memory;
mod rules;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
#[cfg(any(test, feature = "test-util"))]
pub mod fault;

pub use memory::MemoryStore;
#[cfg(feature = "sqlite")]
pub use sqlite::{CheckReport, Existing, SqliteMessenger, SqliteOptions, SqliteStore};

/// The format of what a store holds. A store that carries a higher number was written by a newer version and is refused.
pub const FORMAT_VERSION: u32 = 1;

/// The largest encoded value a store accepts, in bytes: 4 MiB of data and 256 KiB for what surrounds it.
pub const MAX_VALUE_BYTES: usize = (4 << 20) + (256 << 10);

/// The largest message payload a store accepts, in bytes of JSON.
pub const MAX_MESSAGE_BYTES: usize = 256 << 10;

/// How old a message id may be when its message is appended: 30 days. Older ids are refused, because their receipt may be gone.
pub const MESSAGE_ID_MAX_AGE_MS: i64 = 30 * DAY_MS;

/// How far in the future a message id may lie: a day.
pub const MESSAGE_ID_MAX_AHEAD_MS: i64 = DAY_MS;

/// One day, in milliseconds.
pub const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// One incarnation of a game server: the holder that leases name. A server that was declared dead takes a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServerId(pub Uuid);

/// The identity of a commit, by which it is applied at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CommitId(pub Uuid);

/// The identity of a hand-over request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub Uuid);

/// The identity of the store's contents. A restored backup gets a new one, and commits that name the old one are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub Uuid);

macro_rules! shown_as_uuid {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
shown_as_uuid!(ServerId, CommitId, RequestId, Incarnation);

/// 128 bits of a SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// The digest of some bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::{Digest as _, Sha256};
        let full = Sha256::digest(bytes);
        let mut out = [0; 16];
        out.copy_from_slice(&full[..16]);
        Self(out)
    }
}

/// Storage of profiles, leases, inboxes and game servers.
///
/// # Contract
///
/// To be correct, an implementation must keep all of this; [`conformance`] tests it.
///
/// * **Atomic.** A commit takes effect as a whole or not at all, also when the process or the store dies in the middle.
///   All its preconditions are judged against the state *before* the commit, in the same transaction that applies it. No
///   other commit comes in between (serializable).
/// * **Durable.** When a commit returns Ok it survives a crash of the store's host, unless the backend was opened with a
///   setting that says otherwise.
/// * **Once.** A commit's id is kept in its own transaction, for at least 7 days. The same id again does nothing and answers
///   Ok with [`CommitReply::already_applied`]. An id that was aborted first ([`Change::Abort`]) fails with
///   [`ConflictKind::Aborted`] for as long. A commit of nothing but [`Change::Check`]s writes nothing and is not kept.
/// * **Honest errors.** [`StoreError::Conflict`], [`StoreError::Unavailable`], [`StoreError::Invalid`] and
///   [`StoreError::Replaced`] mean that nothing was applied, now or later. Whoever cannot be sure answers
///   [`StoreError::Indeterminate`].
/// * **Reads** see every commit that was acknowledged before they began, anywhere.
/// * **Counters only grow**: epoch, version, lease revision, inbox revision and message index of a key survive removal and are
///   never reused.
/// * **Notices.** Each commit that changes a key's lease, data or inbox leaves a notice about that key for the server that held
///   the lease before the commit, for the server that its new offer names, and for the server whose request it takes away, except
///   for [`Commit::from`] itself. Notices for servers without a live row may be left out. They are delivered by [`Change::RenewServer`] and kept until acknowledged.
/// * **The store's clock** stamps everything. It may step; users of the store watch it against their own monotonic clock.
/// * **Cancellation.** Dropping a returned future does not undo a commit that was already handed over.
#[async_trait]
pub trait DataStore: fmt::Debug + Send + Sync + 'static {
    /// Who this store is, and what its clock says. The cheapest possible round trip.
    async fn identity(&self) -> Result<Identity, StoreError>;

    /// The state of many keys at once, in the order asked for. A key that does not exist gives a state with version 0 and epoch 0.
    async fn read(&self, keys: &[ProfileKey], returning: Returning) -> Result<Snapshot, StoreError>;

    /// One kept version of a key with its value, the current one included. None when there is no such version.
    async fn version(&self, key: &ProfileKey, version: &VersionRef) -> Result<Option<StoredVersion>, StoreError>;

    /// A page of a key's kept versions, the current one included, without values.
    async fn versions(&self, query: &VersionQuery) -> Result<Vec<VersionInfo>, StoreError>;

    /// A page of keys, ordered by store, scope and key, without values and inboxes. Keys that were only ever asked for are not
    /// listed; removed ones are, with `head.removed`.
    async fn keys(&self, query: &KeyQuery) -> Result<Vec<KeyState>, StoreError>;

    /// Every server row, dead ones included, and the store's time.
    async fn servers(&self) -> Result<(i64, Vec<ServerRow>), StoreError>;

    /// Applies commits in the order given, each on its own: one that fails does not stop those behind it, and a later one sees
    /// what an earlier one did. They may share one physical transaction; if that one's outcome is unknown, each member's is.
    /// Gives one result a commit, in order.
    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<CommitReply, StoreError>>;

    /// Deletes what is past its time, a bounded piece at a time: versions superseded longer than
    /// [`Retention::history_ms`] ago (never the current one, never pinned ones), receipts older than 31 days, outcomes older
    /// than 7 days, rows of servers dead for longer than 7 days with their notices. Start with `cursor` None and go on with
    /// what was returned until it is None.
    async fn sweep(&self, retention: Retention, cursor: Option<SweepCursor>) -> Result<SweepReport, StoreError>;
}

/// One commit, for when there is just one. Not to be implemented.
#[async_trait]
pub trait DataStoreExt {
    /// Applies one commit. See [`DataStore::commit`].
    async fn commit_one(&self, commit: Commit) -> Result<CommitReply, StoreError>;

    /// The state of one key. See [`DataStore::read`].
    async fn read_one(&self, key: &ProfileKey, returning: Returning) -> Result<(i64, KeyState), StoreError>;

    /// A page of keys and where to go on (None: it was the last page), without those of [`crate::RESERVED_STORE`] unless that is the store
    /// asked for. It may be shorter than the limit although more follow. See [`DataStore::keys`].
    async fn profiles(&self, query: &KeyQuery) -> Result<(Vec<KeyState>, Option<ProfileKey>), StoreError>;
}

#[async_trait]
impl<S: DataStore + ?Sized> DataStoreExt for S {
    async fn commit_one(&self, commit: Commit) -> Result<CommitReply, StoreError> {
        let id = commit.id;
        let missing = || StoreError::Indeterminate { commit: id, reason: "the store gave no answer for the commit".into() };
        self.commit(vec![commit]).await.pop().unwrap_or_else(|| Err(missing()))
    }

    async fn read_one(&self, key: &ProfileKey, returning: Returning) -> Result<(i64, KeyState), StoreError> {
        let mut snapshot = self.read(std::slice::from_ref(key), returning).await?;
        match snapshot.states.pop() {
            Some(state) => Ok((snapshot.now_ms, state)),
            None => Err(StoreError::Unavailable { reason: "the store gave no answer for the key".into() }),
        }
    }

    async fn profiles(&self, query: &KeyQuery) -> Result<(Vec<KeyState>, Option<ProfileKey>), StoreError> {
        let mut page = self.keys(query).await?;
        let mut next = page.last().map(|state| state.key.clone()).filter(|_| page.len() >= query.limit);
        if query.store.is_none() {
            page.retain(|state| !state.key.is_reserved());
            if next.as_ref().is_some_and(ProfileKey::is_reserved) {
                next = Some(ProfileKey::last_reserved());
            }
        }
        Ok((page, next))
    }
}

/// Who a store is. See [`DataStore::identity`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// The identity of the contents, to be named in every commit.
    pub incarnation: Incarnation,
    /// The store's clock, in Unix milliseconds.
    pub now_ms: i64,
}

/// What a read or a commit is to say about each key besides its lease and head.
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
#[non_exhaustive]
pub struct Snapshot {
    /// The store's clock, in Unix milliseconds.
    pub now_ms: i64,
    /// One state a key, in the order asked for.
    pub states: Vec<KeyState>,
}

/// What a key holds now.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct KeyState {
    /// The key.
    pub key: ProfileKey,
    /// The fencing token: data may only be written by a commit that names it. Grows with each change of owner. 0: never used.
    pub epoch: u64,
    /// The number of the current version, dense from 1. 0: nothing was ever written.
    pub version: u64,
    /// When version 1 was written, Unix milliseconds. 0 with version 0.
    pub created_ms: i64,
    /// About the current version. None with version 0.
    pub head: Option<VersionInfo>,
    /// Who may write, who asks for it, and to whom it is offered.
    pub lease: LeaseState,
    /// Counts the lease's changes; the precondition for the next one. 0: never changed.
    pub lease_revision: u64,
    /// The row of the server that the lease's holder names, if there is such a row.
    pub holder_server: Option<ServerRow>,
    /// Counts the inbox's changes.
    pub inbox_revision: u64,
    /// The index of the newest message ever appended; the next one gets this plus one.
    pub last_message: u64,
    /// The inbox by ascending index. None when it was not asked for or is unchanged. See [`Returning::inbox_unless`].
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

/// Who may write a profile, who asks for it, and to whom it is offered. Stored as JSON; unknown members are refused.
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
    /// Set when a holder let go for the sake of a request: until it expires, only that request may take the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offer>,
}

/// The session that may write a profile.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// The server. None for a session that came with an imported or foreign record, which no server row vouches for.
    pub server: Option<ServerId>,
    /// Specification: `PlaceId`.
    pub place_id: i64,
    /// Specification: `JobId`.
    pub job_id: String,
    /// The session's own identity.
    pub session: String,
    /// When the session started, by the store's clock, Unix milliseconds.
    pub since_ms: i64,
    /// For a session without a server row: its record's last update, Unix milliseconds; None when the record had none.
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

/// A profile kept free for the one who asked for it.
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

/// A game server's lease: one row a server, renewed every few seconds; all its sessions refer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerRow {
    /// The server.
    pub id: ServerId,
    /// Specification: `PlaceId`.
    pub place_id: i64,
    /// Specification: `JobId`.
    pub job_id: String,
    /// Counts the renewals; the precondition for the next one and for a declaration of death. Starts at 1.
    pub revision: u64,
    /// After how long without a renewal the server may be declared dead, in milliseconds.
    pub lease_ms: i64,
    /// When it registered, by the store's clock, Unix milliseconds.
    pub started_ms: i64,
    /// When it was last renewed, by the store's clock, Unix milliseconds.
    pub renewed_ms: i64,
    /// True once it was declared dead or has ended; such a row is never renewed again.
    pub dead: bool,
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
    pub const ALL: [Self; 9] =
        [Self::Start, Self::Save, Self::End, Self::Set, Self::Restore, Self::Remove, Self::Import, Self::Edit, Self::Transaction];

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
#[non_exhaustive]
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
#[non_exhaustive]
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

/// The direction of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Order {
    /// Oldest first.
    #[default]
    Ascending,
    /// Newest first.
    Descending,
}

/// A page of a key's versions. See [`DataStore::versions`].
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
    /// Only versions beyond this number in the direction of the listing: the last one of the page before.
    pub after: Option<u64>,
    /// At most so many.
    pub limit: usize,
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
}

/// A page of keys. See [`DataStore::keys`].
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

/// The identity of a message, chosen by its sender: a name and the time at which the sender first made it.
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
    /// An identity from the time when the cause of the message arose (Unix milliseconds) and a name that is unique among the
    /// messages of the receiving profile, such as a purchase id. None when the name is empty, longer than
    /// [`MAX_MESSAGE_NAME_BYTES`], or begins with `~edit/`, as the ids of operators' edits do.
    pub fn new(created_ms: i64, name: &str) -> Option<Self> {
        Self::stored(created_ms, name).filter(|id| !id.is_edit())
    }

    /// An identity that a store gave out, which may be that of an edit.
    pub(crate) fn stored(created_ms: i64, name: &str) -> Option<Self> {
        (!name.is_empty() && name.len() <= MAX_MESSAGE_NAME_BYTES).then(|| Self { created_ms, name: name.to_owned() })
    }

    /// The identity of the message that carries an operator's edit to a profile's holder.
    pub(crate) fn edit(operation: Uuid) -> Self {
        Self { created_ms: crate::audit::began_ms(operation), name: format!("{EDIT_NAMES}{operation}") }
    }

    /// True for the identity of a message that carries an operator's edit. Such messages are the library's own: nobody can make one, no
    /// handler is offered one.
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

impl std::str::FromStr for MessageId {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (time, name) = text.split_once(':').ok_or("a message id is TIME:NAME, with the time in Unix milliseconds")?;
        let time = time.parse().map_err(|_| "the time of a message id is a whole number of Unix milliseconds")?;
        Self::new(time, name).ok_or("the name of a message id is 1 to 200 bytes and does not begin with ~edit/")
    }
}

/// A message to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMessage {
    /// Its identity.
    pub id: MessageId,
    /// Its payload, JSON, at most [`MAX_MESSAGE_BYTES`].
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
    /// True once a holder locked it: it can no longer be changed from outside. Specification: a `Locked` global update.
    pub locked: bool,
    /// Counts changes of the payload from 1. Specification: a global update's version.
    pub revision: u64,
    /// When it was appended, by the store's clock, Unix milliseconds.
    pub sent_ms: i64,
}

/// Times and names that an import brings along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// When the version was written, Unix milliseconds.
    pub written_ms: i64,
    /// When the profile was created, Unix milliseconds. Taken over with version 1.
    pub created_ms: i64,
    /// The version string.
    pub label: Option<String>,
}

/// What becomes current.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewValue {
    /// A value, at most [`MAX_VALUE_BYTES`].
    Bytes(Bytes),
    /// Nothing: a tombstone.
    Tombstone,
}

/// One change with its precondition. A commit holds at most one [`Change::Write`] and one [`Change::Lease`] a key.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "a commit holds a handful of them, and most are the large one")]
pub enum Change {
    /// Changes nothing. Fails with [`ConflictKind::Epoch`] unless the key's epoch is this one.
    Check {
        /// The key.
        key: ProfileKey,
        /// Its epoch.
        epoch: u64,
    },
    /// Writes version `version + 1`. Fails with [`ConflictKind::Epoch`] or [`ConflictKind::Version`] unless the key is at
    /// exactly this epoch and version.
    Write {
        /// The key.
        key: ProfileKey,
        /// Its epoch; 0 when it was never used.
        epoch: u64,
        /// Its current version; 0 when nothing was ever written.
        version: u64,
        /// What becomes current.
        value: NewValue,
        /// The users associated with the profile from now on, for [`KeyFilter::User`].
        user_ids: Vec<i64>,
        /// Why it is written.
        cause: Cause,
        /// Who writes it, at most 200 bytes.
        author: String,
        /// Keep the version that this one replaces, whatever the hour. Otherwise it is kept when it is sealed, pinned, a
        /// tombstone, imported, or was written in an earlier UTC hour.
        keep_previous: bool,
        /// Seal this version: it is kept when it is replaced.
        seal: bool,
        /// Set by an import.
        imported: Option<Imported>,
    },
    /// Replaces the lease. Fails with [`ConflictKind::Lease`] unless its revision is this one.
    Lease {
        /// The key.
        key: ProfileKey,
        /// The lease's current revision; 0 when it was never changed.
        revision: u64,
        /// What it becomes.
        lease: LeaseState,
        /// Raise the epoch by one, so that no earlier session can write any more.
        raise_epoch: bool,
        /// Seal the version that is current after this commit.
        seal: bool,
    },
    /// Appends a message with the next index. Fails with [`ConflictKind::MessageSeen`] when a message or a receipt of this id is
    /// there, [`ConflictKind::MessageIdReused`] when its content is another one, [`ConflictKind::MessageIdExpired`] when the id
    /// is more than [`MESSAGE_ID_MAX_AGE_MS`] old or [`MESSAGE_ID_MAX_AHEAD_MS`] ahead, [`ConflictKind::InboxFull`] when `cap`
    /// messages are waiting already. Works on keys that do not exist yet.
    AppendMessage {
        /// The key.
        key: ProfileKey,
        /// The message.
        message: NewMessage,
        /// How many messages may wait.
        cap: u32,
    },
    /// Replaces a waiting message's payload and counts its revision up. Fails with [`ConflictKind::MessageGone`] or
    /// [`ConflictKind::MessageLocked`], and with [`ConflictKind::MessageRevision`] unless the message is at this revision.
    ChangeMessage {
        /// The key.
        key: ProfileKey,
        /// The message's index.
        index: u64,
        /// The message's revision.
        revision: u64,
        /// Its new payload.
        payload: Bytes,
    },
    /// Locks a waiting message. Fails with [`ConflictKind::MessageGone`], and unless the message is at this revision with
    /// [`ConflictKind::MessageRevision`]. Locking a locked message does nothing.
    LockMessage {
        /// The key.
        key: ProfileKey,
        /// The message's index.
        index: u64,
        /// The message's revision.
        revision: u64,
    },
    /// Removes a message. Fails with [`ConflictKind::MessageGone`].
    RemoveMessage {
        /// The key.
        key: ProfileKey,
        /// The message's index.
        index: u64,
        /// Leave a receipt, which makes its id fail with [`ConflictKind::MessageSeen`] from now on.
        receipt: bool,
    },
    /// Gives a key the inbox that an import brought along. Fails with [`ConflictKind::InboxRevision`] unless the inbox was never
    /// used.
    ImportInbox {
        /// The key.
        key: ProfileKey,
        /// The newest index ever given out.
        last_message: u64,
        /// The waiting messages by ascending index.
        messages: Vec<StoredMessage>,
    },
    /// Pins or unpins a kept version. Fails with [`ConflictKind::VersionGone`].
    Pin {
        /// The key.
        key: ProfileKey,
        /// The version's number.
        version: u64,
        /// Whether it is to be pinned.
        pinned: bool,
    },
    /// Forgets what a key held: every version but the one that is current after this commit, pinned ones included, and every
    /// waiting message, each of which leaves a receipt. Counters, lease and receipts stay, so that no earlier session can write
    /// and no sender's retry takes effect. Fails with [`ConflictKind::Epoch`] unless the key is at this epoch. Must be the last
    /// change of its key; a [`Change::Write`] of a tombstone before it leaves nothing. A backend in files offers a way to be rid of
    /// the bytes too, such as [`SqliteStore::vacuum`].
    Erase {
        /// The key.
        key: ProfileKey,
        /// Its epoch.
        epoch: u64,
    },
    /// Makes a server row with revision 1. Fails with [`ConflictKind::Server`] when there is one.
    RegisterServer {
        /// The server.
        id: ServerId,
        /// Its place.
        place_id: i64,
        /// Its job.
        job_id: String,
        /// After how long without a renewal it may be declared dead, in milliseconds.
        lease_ms: i64,
    },
    /// Renews a server row and counts its revision up. Fails with [`ConflictKind::Server`] unless it is alive and at this
    /// revision. The reply brings the server's notices.
    RenewServer {
        /// The server.
        id: ServerId,
        /// The row's revision.
        revision: u64,
        /// Notices of earlier replies that need not be brought again.
        acknowledged: Vec<Notice>,
    },
    /// Declares a server dead. Fails with [`ConflictKind::Server`] unless its row is at this revision. Its row's revision stays; declaring a
    /// dead one dead again does nothing.
    MarkDead {
        /// The server.
        id: ServerId,
        /// The row's revision.
        revision: u64,
    },
    /// Makes sure that a commit is never applied: leaves a marker under its id. Fails with [`ConflictKind::AlreadyApplied`]
    /// when it was. Must be the only change of its commit.
    Abort {
        /// The commit that is to fail from now on.
        commit: CommitId,
    },
}

impl Change {
    /// The key that it is about, if any.
    pub fn key(&self) -> Option<&ProfileKey> {
        match self {
            Self::Check { key, .. }
            | Self::Write { key, .. }
            | Self::Lease { key, .. }
            | Self::AppendMessage { key, .. }
            | Self::ChangeMessage { key, .. }
            | Self::LockMessage { key, .. }
            | Self::RemoveMessage { key, .. }
            | Self::ImportInbox { key, .. }
            | Self::Pin { key, .. }
            | Self::Erase { key, .. } => Some(key),
            Self::RegisterServer { .. } | Self::RenewServer { .. } | Self::MarkDead { .. } | Self::Abort { .. } => None,
        }
    }
}

/// A few changes that take effect together or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    /// Its identity: it is applied at most once.
    pub id: CommitId,
    /// The contents that it is meant for. See [`Identity`].
    pub incarnation: Incarnation,
    /// The server that makes it; it needs no notice of its own doings.
    pub from: Option<ServerId>,
    /// The changes, at least one. All preconditions are judged before the first change is made.
    pub changes: Vec<Change>,
    /// What the reply is to say about each key touched.
    pub returning: Returning,
}

/// A word to a server that something about a key changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Notice {
    /// The key.
    pub key: ProfileKey,
    /// The newest commit that left it. Acknowledging names it, so that a newer notice is not lost.
    pub commit: CommitId,
}

/// What a commit did.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct CommitReply {
    /// The store's clock, in Unix milliseconds.
    pub now_ms: i64,
    /// True when this id had been applied before, and nothing was done now.
    pub already_applied: bool,
    /// What each key touched holds now, in order of first mention.
    pub states: Vec<KeyState>,
    /// The server row that was registered, renewed or declared dead, as it is now.
    pub server: Option<ServerRow>,
    /// The notices of a server that was renewed.
    pub notices: Vec<Notice>,
    /// The servers for which notices were left, with the key: whom to send a hint.
    pub notified: Vec<(ServerId, ProfileKey)>,
}

/// Why a precondition failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConflictKind {
    /// The key is at another epoch: the session is over.
    Epoch,
    /// The key is at another version.
    Version,
    /// The lease is at another revision.
    Lease,
    /// This message was appended before, with the same content.
    MessageSeen,
    /// The message id was used before, with another content.
    MessageIdReused,
    /// The message id is too old or too far ahead.
    MessageIdExpired,
    /// As many messages are waiting as the cap allows.
    InboxFull,
    /// There is no such message.
    MessageGone,
    /// The message is at another revision.
    MessageRevision,
    /// The message is locked.
    MessageLocked,
    /// The inbox is at another revision.
    InboxRevision,
    /// There is no such version.
    VersionGone,
    /// The server row is at another revision, dead, missing, or there already.
    Server,
    /// The commit's id was aborted.
    Aborted,
    /// The commit that was to be aborted had been applied.
    AlreadyApplied,
}

/// A precondition that failed, and what is there instead.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Conflict {
    /// Which precondition.
    pub kind: ConflictKind,
    /// The store's clock, in Unix milliseconds.
    pub now_ms: i64,
    /// What the key at fault holds now, as [`Commit::returning`] asks. None when the fault is not about a key.
    pub state: Option<KeyState>,
    /// The server row at fault, if that is the fault and there is one.
    pub server: Option<ServerRow>,
}

/// What can go wrong with a store.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A precondition failed; nothing was applied.
    #[error("the store holds something else than expected: conflict=`{:?}`", .0.kind)]
    Conflict(Box<Conflict>),
    /// The store cannot be reached or used at the moment; nothing was applied. Try again later.
    #[error("the store is unavailable: {reason}")]
    Unavailable {
        /// Why.
        reason: String,
    },
    /// The commit may or may not have been applied, or may yet be. Only the same commit again, or an abort of it, tells.
    #[error("the outcome of a commit is unknown: {reason}: commit=`{commit}`")]
    Indeterminate {
        /// The commit.
        commit: CommitId,
        /// Why.
        reason: String,
    },
    /// The store's contents cannot be understood; nothing was applied.
    #[error("the store is damaged: {reason}")]
    Corrupt {
        /// What is wrong and where.
        reason: String,
    },
    /// The call is wrong; nothing was applied. Fix the call.
    #[error("invalid store call: {reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
    /// The contents were replaced, by a restored backup say; nothing was applied. Sessions of before are over.
    #[error("the store's contents were replaced: expected=`{expected}` found=`{found}`")]
    Replaced {
        /// What the commit named.
        expected: Incarnation,
        /// What is there.
        found: Incarnation,
    },
}

impl StoreError {
    /// The conflict's kind, if it is one.
    pub fn conflict(&self) -> Option<&ConflictKind> {
        match self {
            Self::Conflict(conflict) => Some(&conflict.kind),
            _ => None,
        }
    }

    /// True when the same call may succeed later: [`StoreError::Unavailable`] and [`StoreError::Indeterminate`].
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Indeterminate { .. })
    }
}

/// How long what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How long a version stays after it was superseded, in milliseconds. Specification: 30 days.
    pub history_ms: i64,
}

/// Where a sweep goes on. Opaque.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepCursor(pub(crate) String);

/// What a piece of a sweep did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Versions deleted.
    pub versions: u64,
    /// Receipts deleted.
    pub receipts: u64,
    /// Outcomes deleted.
    pub outcomes: u64,
    /// Server rows deleted.
    pub servers: u64,
    /// Where to go on; None when the sweep is complete.
    pub next: Option<SweepCursor>,
}
