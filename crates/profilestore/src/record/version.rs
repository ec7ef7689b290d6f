//! What a version is called, what is known about it, and finding one by its name or by a time.

use serde::Serialize;
use serde_json::{Map, Value};

use super::Record;
use crate::{
    data_store::{
        DataStore, KeyState, Order, StoreError, StoredVersion, VersionInfo, VersionLinks,
        VersionQuery, VersionRef,
    },
    key::ProfileKey,
};

/// About what the store holds under a key. Specification: `KeyInfo`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct KeyInfo {
    /// The version string.
    pub version: String,
    /// The version's number, dense from 1.
    pub number: u64,
    /// When the key's first version was written, Unix milliseconds. Specification: `CreatedTime`.
    pub created_ms: i64,
    /// When this version was written, Unix milliseconds. Specification: `UpdatedTime`.
    pub updated_ms: i64,
    /// The users associated with the profile then. Specification: `GetUserIds`.
    pub user_ids: Vec<i64>,
    /// The metadata then. Specification: `GetMetadata`.
    pub metadata: Map<String, Value>,
}

impl KeyInfo {
    pub(crate) fn of(head: &VersionInfo, created_ms: i64, stored: Option<&Record>) -> Self {
        Self {
            version: head
                .label
                .clone()
                .unwrap_or_else(|| version_label(head.written_ms, head.number, created_ms)),
            number: head.number,
            created_ms,
            updated_ms: head.written_ms,
            user_ids: stored.map(|record| record.user_ids.clone()).unwrap_or_default(),
            metadata: stored.map(|record| record.roblox_metadata.clone()).unwrap_or_default(),
        }
    }
}

/// A version string in the services' form, for a version that came with none.
pub fn version_label(written_ms: i64, number: u64, created_ms: i64) -> String {
    format!("{written_ms:016X}.{number:010}.{created_ms:016X}.01")
}

/// A kept version of the key that `state` is about, with its value. A version string may be a
/// made-up one, as listings show them for versions that were not imported. None when there is no
/// such version, or no longer.
pub async fn find_version(
    store: &dyn DataStore,
    state: &KeyState,
    version: &VersionRef,
) -> Result<Option<StoredVersion>, StoreError> {
    let found = store.version(&state.key, version).await?;
    let VersionRef::Label(label) = version else { return Ok(found) };
    let number = label.split('.').nth(1).and_then(|number| number.parse().ok());
    let (None, Some(number)) = (&found, number) else { return Ok(found) };
    let named = store.version(&state.key, &VersionRef::Number(number)).await?;
    let made_up =
        |info: &VersionInfo| version_label(info.written_ms, info.number, state.created_ms);
    Ok(named.filter(|named| named.info.label.is_none() && made_up(&named.info) == *label))
}

/// At most so many commits are listed in a [`NotUndone`].
pub const MAX_NOT_UNDONE: usize = 1000;

/// What going back to an earlier version of a profile does not undo: messages that were taken and
/// sent since, and trades. Which items of a game are unique the library does not know: what was
/// sent or traded away since is there twice afterwards, unless it is taken from the receiver.
///
/// Nothing is known, and nothing listed, of what was done before the store was migrated to format
/// 2, and of what an import brought.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct NotUndone {
    /// The commits that did something beyond the profile, oldest first.
    pub commits: Vec<VersionLinks>,
    /// True when there are more than are listed: more than [`MAX_NOT_UNDONE`] commits, or more than
    /// [`MAX_LINKS`](crate::data_store::MAX_LINKS) messages of one.
    pub more: bool,
}

/// What going back to a version of a key would not undo. It reaches back as far as the history: for
/// a pinned version that was replaced earlier than that, only what was done since.
pub async fn not_undone(
    store: &dyn DataStore,
    key: &ProfileKey,
    version: u64,
) -> Result<NotUndone, StoreError> {
    let mut commits = store.links(key, version, MAX_NOT_UNDONE + 1).await?;
    let more =
        commits.len() > MAX_NOT_UNDONE || commits.iter().any(|commit| commit.links.left_out > 0);
    commits.truncate(MAX_NOT_UNDONE);
    Ok(NotUndone { commits, more })
}

/// The version that was current at a time (Unix milliseconds), as far as the history goes: the
/// newest kept one that was written until then, which may be a tombstone. None when all that is
/// kept is younger.
pub async fn version_at(
    store: &dyn DataStore,
    state: &KeyState,
    unix_ms: i64,
) -> Result<Option<StoredVersion>, StoreError> {
    let query = VersionQuery {
        key: state.key.clone(),
        order: Order::Descending,
        from_ms: None,
        to_ms: Some(unix_ms),
        after: None,
        limit: 1,
    };
    match store.versions(&query).await?.pop() {
        Some(info) => store.version(&state.key, &VersionRef::Number(info.number)).await,
        None => Ok(None),
    }
}
