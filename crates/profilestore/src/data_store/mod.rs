//! The storage contract: one trait that every backend implements, and the conformance suite that
//! tests it.
//!
//! Reads come in a few shapes. There is **one** way to write: a [`Commit`] of a few [`Change`]s.
//! Each change carries its own precondition. They take effect together or not at all.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use crate::key::ProfileKey;

#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod checksum;
mod commit;
pub(crate) mod content;
mod held;
mod key_contents;
mod links;
mod memory;
mod message;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod pages;
#[cfg(feature = "postgres")]
pub(crate) mod postgres;
pub mod rules;
#[cfg(feature = "sqlite")]
mod sqlite;
mod upkeep;

#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
#[cfg(any(test, feature = "fault"))]
pub mod fault;

pub use commit::{
    Change, Commit, CommitReply, Conflict, ConflictKind, Imported, NewValue, Notice, StoreError,
};
pub use held::{
    Backlog, Cause, Holder, Identity, KeyFilter, KeyQuery, KeyState, LeaseState, Offer,
    OldestMessage, Order, Request, Returning, ServerRow, Snapshot, StoredVersion, VersionInfo,
    VersionQuery, VersionRef,
};
pub use key_contents::KeyContents;
pub use links::{Links, MAX_LINKS, SentMessage, Trade, VersionLinks};
pub use memory::MemoryStore;
pub use message::{MAX_MESSAGE_NAME_BYTES, MessageId, NewMessage, StoredMessage};
#[cfg(feature = "postgres")]
pub use postgres::{DEFAULT_SCHEMA, PostgresClock, PostgresOptions, PostgresStore};
#[cfg(feature = "sqlite")]
pub use sqlite::{
    CheckReport, Checked, DamagedValue, Existing, SqliteMessenger, SqliteOptions, SqliteStore,
};
pub use upkeep::TableUpkeep;

/// The format of what a store holds. A store that carries a higher number was written by a newer
/// version and is refused. One that carries a lower number is migrated: a SQLite file when it is
/// opened, a PostgreSQL schema by `profilestore migrate`. See `docs/decisions/format-2.md`.
pub const FORMAT_VERSION: u32 = 2;

/// The largest encoded value a store accepts, in bytes: 4 MiB of data and 256 KiB for what
/// surrounds it.
pub const MAX_VALUE_BYTES: usize = (4 << 20) + (256 << 10);

pub use crate::storable::MAX_MESSAGE_BYTES;

/// How old a message id may be when its message is appended: 30 days. Older ids are refused,
/// because their receipt may be gone.
pub const MESSAGE_ID_MAX_AGE_MS: i64 = 30 * DAY_MS;

/// How far in the future a message id may lie: a day.
pub const MESSAGE_ID_MAX_AHEAD_MS: i64 = DAY_MS;

/// One day, in milliseconds.
pub const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// One incarnation of a game server: the holder that leases name. A server that was declared dead
/// takes a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServerId(pub Uuid);

/// One hosting of a game server's engine by a process. A process that takes the engine over again
/// is another host; so is one that is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HostId(pub Uuid);

impl HostId {
    /// The hosting with this number of a process, which is known by 64 random bits.
    pub fn of_process(process: u64, number: u64) -> Self {
        Self(Uuid::from_u64_pair(process, number))
    }

    /// The process, the same for all that it hosts.
    pub fn process(self) -> u64 {
        self.0.as_u64_pair().0
    }
}

/// The identity of a commit, by which it is applied at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CommitId(pub Uuid);

/// The identity of a hand-over request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId(pub Uuid);

/// The identity of the store's contents. A restored backup gets a new one, and commits that name
/// the old one are refused.
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
shown_as_uuid!(ServerId, HostId, CommitId, RequestId, Incarnation);

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
/// * **Atomic.** A commit takes effect as a whole or not at all, also when the process or the store
///   dies in the middle. All its preconditions are judged against the state *before* the commit, in
///   the same transaction that applies it. No other commit comes in between (serializable).
/// * **Durable.** When a commit returns Ok it survives a crash of the store's host, unless the
///   backend was opened with a setting that says otherwise.
/// * **Once.** A commit's id is kept in its own transaction, for at least 7 days. The same id again
///   does nothing and answers Ok with [`CommitReply::already_applied`], unless it comes with
///   another [`Commit::fingerprint`]: that is [`ConflictKind::CommitIdReused`]. An id that was
///   aborted first ([`Change::Abort`]) fails with [`ConflictKind::Aborted`] for as long. A commit
///   of nothing but [`Change::Check`]s and [`Change::CheckHost`]s that has no fingerprint writes
///   nothing and is not kept; one of nothing but renewals is known until the next one of the same
///   row and cannot be aborted ([`Change::RenewServer`]). In the same way, a save by the server
///   that holds the profile, alone in its commit ([`rules::is_own_save`]), is known until that
///   server's next one in the same epoch, and cannot be aborted. The last one of an epoch is known
///   for at least 7 days from the end of the epoch on.
/// * **Honest errors.** [`StoreError::Conflict`], [`StoreError::Unavailable`],
///   [`StoreError::Invalid`] and [`StoreError::Replaced`] mean that nothing was applied, now or
///   later. A backend that cannot be sure answers [`StoreError::Indeterminate`].
/// * **Reads** see every commit that was acknowledged before they began, anywhere. What a read has
///   shown survives a crash of the store's host as well: where a commit can be seen before it is
///   durable, the read is answered when it is. Exempt are a SQLite store with `durable: false`, and
///   what was committed through another opening of the same SQLite file, by another process for
///   example (`docs/guarantees.md`, G2).
/// * **Whole values.** A value that is not, byte for byte, the one that was written is never handed
///   out: what would show it fails with [`StoreError::Damaged`], before anything is applied. It
///   stands in the way of nothing else: it can be replaced, and the other versions of its key can
///   be read. (A store that keeps nothing outside of its process's memory has nothing to compare.)
/// * **Counters only grow**: epoch, version, lease revision, inbox revision and message index of a
///   key survive removal and are never reused.
/// * **Notices.** Each commit that changes a key's lease, data or inbox leaves a notice about that
///   key for the server that held the lease before the commit, for the server that its new offer
///   names, and for the server whose request it takes away, except for [`Commit::from`] itself.
///   Notices for servers without a live row may be left out. They are delivered by
///   [`Change::RenewServer`] and [`Change::RehostServer`], and kept until acknowledged.
/// * **One host.** A server's row names the process that hosts the server's engine, if another one
///   does than the game server's own. Once [`Change::RehostServer`] has given it to another host,
///   no commit of the old one is applied that renews the row or holds a [`Change::CheckHost`].
/// * **The store's clock** stamps everything. It may step; users of the store watch it against
///   their own monotonic clock.
/// * **Cancellation.** Dropping a returned future does not undo a commit that was already handed
///   over.
/// * **In time.** A call that the store cannot serve at the moment, because another process holds a
///   lock for example, fails within a limit that the backend names. [`DataStore::commit_by`]
///   answers at its deadline whatever happens.
#[async_trait]
pub trait DataStore: fmt::Debug + Send + Sync + 'static {
    /// The store's incarnation and current time. The cheapest possible round trip.
    async fn identity(&self) -> Result<Identity, StoreError>;

    /// The state of many keys at once, in the order asked for. A key that does not exist gives a
    /// state with version 0 and epoch 0.
    async fn read(&self, keys: &[ProfileKey], returning: Returning)
    -> Result<Snapshot, StoreError>;

    /// One kept version of a key with its value, the current one included. None when there is no
    /// such version.
    async fn version(
        &self,
        key: &ProfileKey,
        version: &VersionRef,
    ) -> Result<Option<StoredVersion>, StoreError>;

    /// A page of a key's kept versions, the current one included, without values.
    async fn versions(&self, query: &VersionQuery) -> Result<Vec<VersionInfo>, StoreError>;

    /// What the commits of a key's versions did to others, for the versions after this one, oldest
    /// first, at most so many: messages taken and sent, and trades. Only those that did something
    /// have an entry, also when the version itself is not kept. See [`rules::links`].
    async fn links(
        &self,
        key: &ProfileKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<VersionLinks>, StoreError>;

    /// A page of keys, ordered by store, scope and key, without values and inboxes. Keys that were
    /// only ever asked for are not listed; removed ones are, with `head.removed`.
    async fn keys(&self, query: &KeyQuery) -> Result<Vec<KeyState>, StoreError>;

    /// Every server row, dead ones included, and the store's time.
    async fn servers(&self) -> Result<(i64, Vec<ServerRow>), StoreError>;

    /// Applies commits in the order given, each on its own: one that fails does not stop those
    /// behind it, and a later one sees what an earlier one did. They may share one physical
    /// transaction; if that one's outcome is unknown, each member's is. Gives one result a commit,
    /// in order.
    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<CommitReply, StoreError>>;

    /// The same, with an answer at the deadline at the latest. Then a commit that the store has not
    /// begun is refused as [`StoreError::Unavailable`] and is never applied, and one that is under
    /// way is [`StoreError::Indeterminate`].
    async fn commit_by(
        &self,
        commits: Vec<Commit>,
        deadline: Instant,
    ) -> Vec<Result<CommitReply, StoreError>>;

    /// Deletes what is past its time, a bounded piece at a time: versions superseded longer than
    /// [`Retention::history_ms`] ago (never the current one, never pinned ones), links older than
    /// that, receipts older than 31 days, outcomes older than 7 days, rows of servers dead for
    /// longer than 7 days with their notices. What cannot be read stays, and keeps nothing else
    /// from going. Start with `cursor` None and go on with what was returned until it is None.
    async fn sweep(
        &self,
        retention: Retention,
        cursor: Option<SweepCursor>,
    ) -> Result<SweepReport, StoreError>;

    /// What waits in all inboxes, for operators. None: the backend does not count it.
    async fn backlog(&self) -> Result<Option<Backlog>, StoreError> {
        Ok(None)
    }

    /// How large the store's tables are and whether they are tidied up, the largest first, for
    /// operators. Empty: the backend does not know.
    async fn upkeep(&self) -> Result<Vec<TableUpkeep>, StoreError> {
        Ok(Vec::new())
    }

    /// The store's own files, to be cleaned after an erasure. None: the backend does not reach the
    /// place of its bytes, as with a database.
    fn files(&self) -> Option<&dyn StoreFiles> {
        None
    }
}

/// Files in which a store may leave bytes of what was deleted or overwritten.
#[async_trait]
pub trait StoreFiles: fmt::Debug + Send + Sync {
    /// Makes sure that no byte of what was deleted or overwritten before is left in the files. Play
    /// goes on beside it: commits wait for a small piece of the work. `progress` is told how much
    /// of how much is done. False, and nothing is done, where the files can only be rewritten.
    async fn clean(&self, progress: &mut (dyn FnMut(u64, u64) + Send)) -> Result<bool, StoreError>;

    /// The same by writing the files anew, as small as they can be. Commits wait meanwhile, as
    /// during an outage.
    async fn rewrite(&self) -> Result<(), StoreError>;
}

/// A store that was chosen at run time.
#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl DataStore for Arc<dyn DataStore> {
    async fn identity(&self) -> Result<Identity, StoreError> {
        (**self).identity().await
    }

    async fn read(
        &self,
        keys: &[ProfileKey],
        returning: Returning,
    ) -> Result<Snapshot, StoreError> {
        (**self).read(keys, returning).await
    }

    async fn version(
        &self,
        key: &ProfileKey,
        version: &VersionRef,
    ) -> Result<Option<StoredVersion>, StoreError> {
        (**self).version(key, version).await
    }

    async fn versions(&self, query: &VersionQuery) -> Result<Vec<VersionInfo>, StoreError> {
        (**self).versions(query).await
    }

    async fn links(
        &self,
        key: &ProfileKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<VersionLinks>, StoreError> {
        (**self).links(key, after, limit).await
    }

    async fn keys(&self, query: &KeyQuery) -> Result<Vec<KeyState>, StoreError> {
        (**self).keys(query).await
    }

    async fn servers(&self) -> Result<(i64, Vec<ServerRow>), StoreError> {
        (**self).servers().await
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<CommitReply, StoreError>> {
        (**self).commit(commits).await
    }

    async fn commit_by(
        &self,
        commits: Vec<Commit>,
        deadline: Instant,
    ) -> Vec<Result<CommitReply, StoreError>> {
        (**self).commit_by(commits, deadline).await
    }

    async fn sweep(
        &self,
        retention: Retention,
        cursor: Option<SweepCursor>,
    ) -> Result<SweepReport, StoreError> {
        (**self).sweep(retention, cursor).await
    }

    async fn backlog(&self) -> Result<Option<Backlog>, StoreError> {
        (**self).backlog().await
    }

    async fn upkeep(&self) -> Result<Vec<TableUpkeep>, StoreError> {
        (**self).upkeep().await
    }

    fn files(&self) -> Option<&dyn StoreFiles> {
        (**self).files()
    }
}

/// One commit, for when there is just one. Not to be implemented.
#[async_trait]
pub trait DataStoreExt {
    /// Applies one commit. See [`DataStore::commit`].
    async fn commit_one(&self, commit: Commit) -> Result<CommitReply, StoreError>;

    /// Applies one commit, with an answer at the deadline. See [`DataStore::commit_by`].
    async fn commit_one_by(
        &self,
        commit: Commit,
        deadline: Instant,
    ) -> Result<CommitReply, StoreError>;

    /// The state of one key. See [`DataStore::read`].
    async fn read_one(
        &self,
        key: &ProfileKey,
        returning: Returning,
    ) -> Result<(i64, KeyState), StoreError>;

    /// A page of keys and where to go on (None: it was the last page), without those of
    /// [`crate::key::RESERVED_STORE`] unless that is the store asked for. It may be shorter than
    /// the limit although more follow. See [`DataStore::keys`].
    async fn profiles(
        &self,
        query: &KeyQuery,
    ) -> Result<(Vec<KeyState>, Option<ProfileKey>), StoreError>;
}

#[async_trait]
impl<S: DataStore + ?Sized> DataStoreExt for S {
    async fn commit_one(&self, commit: Commit) -> Result<CommitReply, StoreError> {
        let id = commit.id;
        self.commit(vec![commit]).await.pop().unwrap_or_else(|| Err(no_answer(id)))
    }

    async fn commit_one_by(
        &self,
        commit: Commit,
        deadline: Instant,
    ) -> Result<CommitReply, StoreError> {
        let id = commit.id;
        self.commit_by(vec![commit], deadline).await.pop().unwrap_or_else(|| Err(no_answer(id)))
    }

    async fn read_one(
        &self,
        key: &ProfileKey,
        returning: Returning,
    ) -> Result<(i64, KeyState), StoreError> {
        let mut snapshot = self.read(std::slice::from_ref(key), returning).await?;
        match snapshot.states.pop() {
            Some(state) => Ok((snapshot.now_ms, state)),
            None => Err(StoreError::Unavailable {
                reason: "the store gave no answer for the key".into(),
            }),
        }
    }

    async fn profiles(
        &self,
        query: &KeyQuery,
    ) -> Result<(Vec<KeyState>, Option<ProfileKey>), StoreError> {
        let mut page = self.keys(query).await?;
        let mut next =
            page.last().map(|state| state.key.clone()).filter(|_| page.len() >= query.limit);
        if query.store.is_none() {
            page.retain(|state| !state.key.is_reserved());
            if next.as_ref().is_some_and(ProfileKey::is_reserved) {
                next = Some(ProfileKey::last_reserved());
            }
        }
        Ok((page, next))
    }
}

fn no_answer(commit: CommitId) -> StoreError {
    StoreError::Indeterminate { commit, reason: "the store gave no answer for the commit".into() }
}

/// How long what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// How long a version stays after it was superseded, in milliseconds. Specification: 30 days.
    pub history_ms: i64,
}

/// Where a sweep goes on. Only the backend that made it knows what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepCursor(pub String);

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
