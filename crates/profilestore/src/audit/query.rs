//! Finding entries.

use serde::Serialize;
use uuid::Uuid;

use super::{
    entry::AuditEntry,
    keys::{AUDIT_SCOPE, operation_prefix, reserved_key, turned_round},
};
use crate::{
    data_store::{
        DataStore, DataStoreExt as _, KeyFilter, KeyQuery, KeyState, Returning, StoreError,
    },
    error::Result,
    key::{ProfileKey, RESERVED_STORE},
};

/// How many entries are read at once.
const ENTRIES_AT_ONCE: usize = 256;

/// Which entries are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Only operations that began at or after this time, Unix milliseconds.
    pub since_ms: Option<i64>,
    /// Only operations that began at or before this time, Unix milliseconds.
    pub until_ms: Option<i64>,
    /// Only entries about this profile.
    pub key: Option<ProfileKey>,
    /// Only this author's.
    pub author: Option<String>,
    /// Only entries of this operation. They are found without going through the others.
    pub operation: Option<Uuid>,
    /// Go on where the page before ended: its [`AuditPage::next`].
    pub after: Option<ProfileKey>,
}

/// Some entries, newest operation first.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AuditPage {
    /// The entries.
    pub entries: Vec<AuditEntry>,
    /// Entries that cannot be read, whatever the query says of profile and author.
    pub unreadable: Vec<UnreadableEntry>,
    /// Where to go on; None when there are no more.
    pub next: Option<ProfileKey>,
}

/// An entry that cannot be read: it is damaged, or of a newer version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct UnreadableEntry {
    /// Where it is stored.
    pub key: ProfileKey,
    /// What is wrong with it.
    pub why: String,
}

/// Reads entries of the audit log, newest operation first: those among the next 256 that the query
/// means, which may be none although there are more. An entry that cannot be read is listed apart, and
/// keeps no other from being shown. Fails as reading the store does.
pub async fn audit_entries(store: &dyn DataStore, query: &AuditQuery) -> Result<AuditPage> {
    let mut after = query.after.clone();
    if after.is_none() {
        after = query.until_ms.map(|until| reserved_key(&turned_round(until)));
    }
    let keys = KeyQuery {
        store: Some(RESERVED_STORE.to_owned()),
        scope: Some(AUDIT_SCOPE.to_owned()),
        filter: query
            .operation
            .map_or(KeyFilter::All, |operation| KeyFilter::Prefix(operation_prefix(operation))),
        after,
        limit: ENTRIES_AT_ONCE,
    };
    let mut found = store.keys(&keys).await?;
    let mut next = if found.len() < ENTRIES_AT_ONCE {
        None
    } else {
        found.last().map(|state| state.key.clone())
    };
    if let Some(since) = query.since_ms {
        // Every key of that very millisecond is behind the bare time and before this.
        let end = format!("{}~", turned_round(since));
        let before = found.len();
        found.retain(|state| state.key.key() < end.as_str());
        if found.len() < before {
            next = None;
        }
    }
    let keys: Vec<ProfileKey> = found.into_iter().map(|state| state.key).collect();
    let (states, mut unreadable) = values_of(store, &keys).await?;
    let mut entries = Vec::new();
    for state in &states {
        let entry = match AuditEntry::of(state) {
            Ok(Some(entry)) => entry,
            Ok(None) => continue,
            Err(error) => {
                let (key, why) = (state.key.clone(), error.to_string());
                unreadable.push(UnreadableEntry { key, why });
                continue;
            }
        };
        let meant = query.key.as_ref().is_none_or(|key| entry.keys.contains(key))
            && query.author.as_ref().is_none_or(|author| *author == entry.by.author)
            && query.operation.is_none_or(|operation| operation == entry.operation);
        if meant {
            entries.push(entry);
        }
    }
    Ok(AuditPage { entries, unreadable, next })
}

/// What is stored under keys, and those whose values are damaged.
async fn values_of(
    store: &dyn DataStore,
    keys: &[ProfileKey],
) -> Result<(Vec<KeyState>, Vec<UnreadableEntry>)> {
    let returning = Returning { value: true, inbox_unless: None };
    match store.read(keys, returning).await {
        Err(StoreError::Damaged { .. }) => {}
        read => return Ok((read?.states, Vec::new())),
    }
    let (mut states, mut unreadable) = (Vec::new(), Vec::new());
    for key in keys {
        match store.read_one(key, returning).await {
            Ok((_, state)) => states.push(state),
            Err(error @ StoreError::Damaged { .. }) => {
                unreadable.push(UnreadableEntry { key: key.clone(), why: error.to_string() });
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok((states, unreadable))
}
