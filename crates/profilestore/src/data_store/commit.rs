//! The one way to write: a commit of changes with their preconditions, what it answers, and what
//! can go wrong.

use bytes::Bytes;

use super::{
    Cause, CommitId, HostId, Incarnation, KeyState, LeaseState, NewMessage, Returning, ServerId,
    ServerRow, StoredMessage,
};
use crate::key::ProfileKey;

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
    /// A value, at most [`MAX_VALUE_BYTES`](super::MAX_VALUE_BYTES).
    Bytes(Bytes),
    /// Nothing: a tombstone.
    Tombstone,
}

/// One change with its precondition. A commit holds at most one [`Change::Write`] and one
/// [`Change::Lease`] a key.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[expect(
    clippy::large_enum_variant,
    reason = "a commit holds a handful of them, and most are the large one"
)]
pub enum Change {
    /// Changes nothing. Fails with [`ConflictKind::Epoch`] unless the key's epoch is this one.
    Check {
        /// The key.
        key: ProfileKey,
        /// Its epoch.
        epoch: u64,
    },
    /// Writes version `version + 1`. Fails with [`ConflictKind::Epoch`] or
    /// [`ConflictKind::Version`] unless the key is at exactly this epoch and version.
    Write {
        /// The key.
        key: ProfileKey,
        /// Its epoch; 0 when it was never used.
        epoch: u64,
        /// Its current version; 0 when nothing was ever written.
        version: u64,
        /// What becomes current.
        value: NewValue,
        /// The users associated with the profile from now on, for
        /// [`KeyFilter::User`](super::KeyFilter::User). Negative numbers are tags of the library's
        /// own books, by which these are found in the same way.
        user_ids: Vec<i64>,
        /// Why it is written.
        cause: Cause,
        /// Who writes it, at most 200 bytes.
        author: String,
        /// Keep the version that this one replaces, whatever the hour. Otherwise it is kept when it
        /// is sealed, pinned, a tombstone, imported, or was written in an earlier UTC hour.
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
    /// Appends a message with the next index. Fails with [`ConflictKind::MessageSeen`] when a
    /// message or a receipt of this id is there, [`ConflictKind::MessageIdReused`] when its content
    /// is another one, [`ConflictKind::MessageIdExpired`] when the id is more than
    /// [`MESSAGE_ID_MAX_AGE_MS`](super::MESSAGE_ID_MAX_AGE_MS) old or
    /// [`MESSAGE_ID_MAX_AHEAD_MS`](super::MESSAGE_ID_MAX_AHEAD_MS) ahead,
    /// [`ConflictKind::InboxFull`] when `cap` messages are waiting already. Works on keys that do
    /// not exist yet.
    AppendMessage {
        /// The key.
        key: ProfileKey,
        /// The message.
        message: NewMessage,
        /// How many messages may wait.
        cap: u32,
    },
    /// Replaces a waiting message's payload and counts its revision up. Fails with
    /// [`ConflictKind::MessageGone`] or [`ConflictKind::MessageLocked`], and with
    /// [`ConflictKind::MessageRevision`] unless the message is at this revision.
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
    /// Locks a waiting message. Fails with [`ConflictKind::MessageGone`], and unless the message is
    /// at this revision with [`ConflictKind::MessageRevision`]. Locking a locked message does
    /// nothing.
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
    /// Gives a key another inbox: the one that an import brought along, or that a document states.
    /// Fails with [`ConflictKind::InboxRevision`] unless the inbox is at this revision. A message
    /// that stays, told by its index and its id, keeps the content that its id stands for, whatever
    /// its payload is now; one that does not stay leaves a receipt. The same commit changes none of
    /// them otherwise: such a commit is [`StoreError::Invalid`].
    ReplaceInbox {
        /// The key.
        key: ProfileKey,
        /// The inbox's revision; 0 when it was never used.
        revision: u64,
        /// The newest index ever given out. Where a greater one is known, that one stays.
        last_message: u64,
        /// The waiting messages by ascending index. The ids of new ones must never have been used.
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
    /// Forgets what a key held: every version but the one that is current after this commit, pinned
    /// ones included, the links of all of them, and every waiting message, each of which leaves a
    /// receipt. Counters, lease and receipts stay, so that no earlier session can write and no
    /// sender's retry takes effect. Fails with [`ConflictKind::Epoch`] unless the key is at this
    /// epoch. Must be the last change of its key; a [`Change::Write`] of a tombstone before it
    /// leaves nothing. A backend in files offers a way to be rid of the bytes too, such as
    /// [`SqliteStore::scrub`](super::SqliteStore::scrub).
    Erase {
        /// The key.
        key: ProfileKey,
        /// Its epoch.
        epoch: u64,
    },
    /// Makes a server row with revision 1 and generation 0. Fails with [`ConflictKind::Server`]
    /// when there is one.
    RegisterServer {
        /// The server.
        id: ServerId,
        /// Its place.
        place_id: i64,
        /// Its job.
        job_id: String,
        /// After how long without a renewal it may be declared dead, in milliseconds.
        lease_ms: i64,
        /// The process that hosts its engine. None: the game server does so itself.
        host: Option<HostId>,
        /// What [`ServerRow::owner`] says from now on, at most
        /// [`MAX_OWNER_BYTES`](super::rules::MAX_OWNER_BYTES).
        owner: Option<String>,
    },
    /// Renews a server row and counts its revision up. Fails with [`ConflictKind::Hosted`] when the
    /// row has another host, dead or not, and with [`ConflictKind::Server`] unless it is alive and
    /// at this revision. The reply brings the server's notices.
    ///
    /// A commit of renewals alone need be known, when it is sent again, only until the row's next
    /// renewal, and is not to be aborted: so it needs no room in the store, and a full disk makes
    /// no server look dead.
    RenewServer {
        /// The server.
        id: ServerId,
        /// The row's revision.
        revision: u64,
        /// The process that renews it, if it hosts the engine of another one's game server.
        host: Option<HostId>,
        /// Notices of earlier replies that need not be brought again.
        acknowledged: Vec<Notice>,
    },
    /// Gives a server row to another host, or to the same one anew, and renews it: its revision
    /// counts up. Fails with [`ConflictKind::Server`] unless it is alive, and with
    /// [`ConflictKind::Hosted`] unless this generation is greater than the row's. The reply brings
    /// the server's notices, all of which are kept.
    RehostServer {
        /// The server.
        id: ServerId,
        /// What the row's generation becomes.
        generation: u64,
        /// What its host becomes.
        host: HostId,
    },
    /// Changes nothing. Fails with [`ConflictKind::Hosted`] unless the server's row is there and
    /// has this host. It belongs in each commit with which a host changes a lease for its game
    /// server: a late save of an old host is refused by epoch and version, and a late release
    /// would be accepted.
    CheckHost {
        /// The server.
        id: ServerId,
        /// Its host.
        host: HostId,
    },
    /// Declares a server dead. Fails with [`ConflictKind::Server`] unless its row is at this
    /// revision. Its row's revision stays; declaring a dead one dead again does nothing.
    MarkDead {
        /// The server.
        id: ServerId,
        /// The row's revision.
        revision: u64,
    },
    /// Makes sure that a commit is never applied: leaves a marker under its id. Fails with
    /// [`ConflictKind::AlreadyApplied`] when it was. Must be the only change of its commit. Not for
    /// a save by the holder and nothing else
    /// ([`rules::is_own_save`](super::rules::is_own_save)): its id is found in its key alone.
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
            | Self::ReplaceInbox { key, .. }
            | Self::Pin { key, .. }
            | Self::Erase { key, .. } => Some(key),
            Self::RegisterServer { .. }
            | Self::RenewServer { .. }
            | Self::RehostServer { .. }
            | Self::CheckHost { .. }
            | Self::MarkDead { .. }
            | Self::Abort { .. } => None,
        }
    }
}

/// A few changes that take effect together or not at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    /// Its identity: it is applied at most once. One that does not begin with its time, as those of
    /// version 7 do, comes with a fingerprint: a sweep finds the others by their time.
    pub id: CommitId,
    /// The contents that it is meant for. See [`Identity`](super::Identity).
    pub incarnation: Incarnation,
    /// The server that makes it; it needs no notice of its own doings.
    pub from: Option<ServerId>,
    /// The changes, at least one. All preconditions are judged before the first change is made.
    pub changes: Vec<Change>,
    /// What the reply shows of each key touched.
    pub returning: Returning,
    /// Tells the request that the commit is for, for a caller that takes the id from it: some bits
    /// of a hash of the request, never of the commit, since another server makes another commit of
    /// the same request. It is kept beside the id. The same id with another fingerprint fails with
    /// [`ConflictKind::CommitIdReused`]. A commit without one is compared with nothing, and so is
    /// one of nothing but renewals.
    pub fingerprint: Option<u64>,
}

impl Commit {
    /// About how much memory it takes while it waits: its values and payloads, and something for
    /// the rest.
    #[cfg(any(feature = "sqlite", feature = "postgres"))]
    pub(super) fn bytes(&self) -> usize {
        const REST: usize = 512;
        let size = |change: &Change| match change {
            Change::Write { value: NewValue::Bytes(bytes), .. } => bytes.len(),
            Change::AppendMessage { message, .. } => message.payload.len(),
            Change::ChangeMessage { payload, .. } => payload.len(),
            Change::ReplaceInbox { messages, .. } => {
                messages.iter().map(|message| message.payload.len()).sum()
            }
            _ => 0,
        };
        self.changes.iter().map(|change| REST + size(change)).sum()
    }
}

/// Tells a server that something about a key changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Notice {
    /// The key.
    pub key: ProfileKey,
    /// The newest commit that left it. Acknowledging names it, so that a newer notice is not lost.
    pub commit: CommitId,
}

/// What a commit did.
#[derive(Debug, Clone, PartialEq)]
pub struct CommitReply {
    /// The store's clock, in Unix milliseconds.
    pub now_ms: i64,
    /// True when this id had been applied before, and nothing was done now.
    pub already_applied: bool,
    /// What each key touched holds now, in order of first mention.
    pub states: Vec<KeyState>,
    /// The server row that was registered, renewed, rehosted or declared dead, as it is now.
    pub server: Option<ServerRow>,
    /// The notices of a server that was renewed or rehosted.
    pub notices: Vec<Notice>,
    /// The servers for which notices were left, with the key. Each should get a hint.
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
    /// The server row has another host, or another generation.
    Hosted,
    /// A commit of this id was applied, for another request: see [`Commit::fingerprint`].
    CommitIdReused,
    /// The commit's id was aborted.
    Aborted,
    /// The commit that was to be aborted had been applied.
    AlreadyApplied,
}

/// A precondition that failed, and what is there instead.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    /// Which precondition.
    pub kind: ConflictKind,
    /// The store's clock, in Unix milliseconds.
    pub now_ms: i64,
    /// What the key at fault holds now, as [`Commit::returning`] asks. None when the fault is not
    /// about a key.
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
    /// The commit may or may not have been applied, or may yet be. Only the same commit again, or
    /// an abort of it, tells.
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
    /// A stored value is not the one that was written: a disk, a copy or a program has changed it.
    /// Nothing was applied. Other versions of the key can be read, and one of them made current
    /// again.
    #[error(
        "a stored value is damaged; another version can be read (`profilestore history`) and made \
         current again (`profilestore rollback`): key=`{key}` version=`{version}`"
    )]
    Damaged {
        /// The key.
        key: ProfileKey,
        /// The version's number.
        version: u64,
    },
    /// The store that is open here is no longer the one that its name leads to: its files were
    /// deleted, moved or overwritten. Nothing was applied, and nothing ever will be: an operator
    /// has to decide what counts.
    #[error("the store was taken away: {reason}")]
    TakenAway {
        /// What happened, what was kept of it and where, and what to do.
        reason: String,
    },
    /// The call is wrong; nothing was applied. Fix the call.
    #[error("invalid store call: {reason}")]
    Invalid {
        /// What is wrong.
        reason: String,
    },
    /// The contents were replaced, for example by a restored backup; nothing was applied. Sessions
    /// of before are over.
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

    /// True when the same call may succeed later: [`StoreError::Unavailable`] and
    /// [`StoreError::Indeterminate`].
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Indeterminate { .. })
    }
}
