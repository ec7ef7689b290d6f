//! Finding a version by what it is called, or by a time.

use crate::{
    data_store::{DataStore, KeyState, Order, StoreError, StoredVersion, VersionInfo, VersionQuery, VersionRef},
    document::version_label,
};

/// A kept version of the key that `state` is about, with its value. A version string may be a made-up one, as listings show them
/// for versions that were not imported. None when there is no such version, or no longer.
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
    let made_up = |info: &VersionInfo| version_label(info.written_ms, info.number, state.created_ms);
    Ok(named.filter(|named| named.info.label.is_none() && made_up(&named.info) == *label))
}

/// The version that was current at a time (Unix milliseconds), as far as the history goes: the newest kept one that was written
/// until then, which may be a tombstone. None when all that is kept is younger.
pub async fn version_at(store: &dyn DataStore, state: &KeyState, unix_ms: i64) -> Result<Option<StoredVersion>, StoreError> {
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
