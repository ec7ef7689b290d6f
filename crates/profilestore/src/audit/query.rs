//! Finding entries.

use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use super::{
    entry::AuditEntry,
    keys::{
        AUDIT_SCOPE, entry_key, operation_prefix, prefix_of, profile_tag, reserved_key,
        turned_round, unredacted_tag,
    },
};
use crate::{
    data_store::{
        DataStore, DataStoreExt as _, KeyFilter, KeyQuery, KeyState, Returning, StoreError,
    },
    env::Env,
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
    /// Only entries about this profile. They are found without going through the others.
    pub key: Option<ProfileKey>,
    /// Only this author's.
    pub author: Option<String>,
    /// Only entries of this operation. They are found without going through the others.
    pub operation: Option<Uuid>,
    /// Of a bulk edit only its own entry, which says what it did to how many profiles, and not
    /// those of each profile. These are stepped over, and not read. Of no effect with a key or an
    /// operation.
    pub grouped: bool,
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

/// Where the log is read, and how long each call of the store may take, if that is bounded.
#[derive(Clone, Copy)]
struct Log<'a> {
    store: &'a dyn DataStore,
    each: Option<(&'a Env, Duration)>,
}

impl Log<'_> {
    async fn call<T>(
        self,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let Some((env, time)) = self.each else { return call.await };
        env.timeout_at(env.after(time), call).await.unwrap_or_else(|_| {
            let reason = "the store did not answer in time when the audit log was read".into();
            Err(StoreError::Unavailable { reason })
        })
    }
}

/// Reads entries of the audit log, newest operation first: those among the next 256 that the query
/// means, which may be none although there are more. An entry that cannot be read is listed apart,
/// and keeps no other from being shown. Fails as reading the store does.
pub async fn audit_entries(store: &dyn DataStore, query: &AuditQuery) -> Result<AuditPage> {
    page_of(Log { store, each: None }, query).await
}

/// The same, with so much time for each call of the store: a page takes many where an entry is
/// damaged.
pub(crate) async fn audit_entries_within(
    store: &dyn DataStore,
    query: &AuditQuery,
    env: &Env,
    each: Duration,
) -> Result<AuditPage> {
    page_of(Log { store, each: Some((env, each)) }, query).await
}

async fn page_of(log: Log<'_>, query: &AuditQuery) -> Result<AuditPage> {
    let after = query.after.clone();
    let after = after.or_else(|| query.until_ms.map(|until| reserved_key(&turned_round(until))));
    let filter = match (&query.key, query.operation) {
        (Some(key), _) => KeyFilter::User(profile_tag(key)),
        (None, Some(operation)) => KeyFilter::Prefix(operation_prefix(operation)),
        (None, None) => KeyFilter::All,
    };
    let mut found = page_of_keys(log, filter, after).await?;
    if let Some(since) = query.since_ms {
        // Every key of that very millisecond is behind the bare time and before this.
        let end = format!("{}~", turned_round(since));
        let before = found.keys.len();
        found.keys.retain(|key| key.key() < end.as_str());
        if found.keys.len() < before {
            found.next = None;
        }
    }
    if query.grouped && query.key.is_none() && query.operation.is_none() {
        step_over_bulk_edits(log, &mut found).await?;
    }
    let (mut entries, unreadable) = entries_of(log, &found.keys).await?;
    entries.retain(|entry| {
        query.key.as_ref().is_none_or(|key| entry.keys.contains(key))
            && query.author.as_ref().is_none_or(|author| *author == entry.by.author)
            && query.operation.is_none_or(|operation| operation == entry.operation)
    });
    Ok(AuditPage { entries, unreadable, next: found.next })
}

/// The entries of erasures after which the log still holds what was erased, on one page, with so
/// much time for each call of the store.
pub(crate) async fn unredacted_erasures_within(
    store: &dyn DataStore,
    after: Option<ProfileKey>,
    env: &Env,
    each: Duration,
) -> Result<AuditPage> {
    let log = Log { store, each: Some((env, each)) };
    let found = page_of_keys(log, KeyFilter::User(unredacted_tag()), after).await?;
    let (entries, unreadable) = entries_of(log, &found.keys).await?;
    Ok(AuditPage { entries, unreadable, next: found.next })
}

/// Where the next entries are.
struct Found {
    keys: Vec<ProfileKey>,
    next: Option<ProfileKey>,
}

async fn page_of_keys(log: Log<'_>, filter: KeyFilter, after: Option<ProfileKey>) -> Result<Found> {
    let query = KeyQuery {
        store: Some(RESERVED_STORE.to_owned()),
        scope: Some(AUDIT_SCOPE.to_owned()),
        filter,
        after,
        limit: ENTRIES_AT_ONCE,
    };
    let states = log.call(log.store.keys(&query)).await?;
    let keys: Vec<ProfileKey> = states.into_iter().map(|state| state.key).collect();
    let next = keys.last().filter(|_| keys.len() == ENTRIES_AT_ONCE).cloned();
    Ok(Found { keys, next })
}

/// Puts the entry of each bulk edit in the place of those about its profiles. When the page ends
/// among these, the next one begins behind them.
async fn step_over_bulk_edits(log: Log<'_>, found: &mut Found) -> Result<()> {
    let mut operations: Vec<Vec<ProfileKey>> = Vec::new();
    for key in found.keys.drain(..) {
        let prefix = prefix_of(&key);
        match operations.last_mut().filter(|keys| prefix_of(&keys[0]) == prefix) {
            Some(keys) => keys.push(key),
            None => operations.push(vec![key]),
        }
    }
    let firsts: Vec<ProfileKey> = operations.iter().map(|keys| keys[0].clone()).collect();
    let (entries, _) = entries_of(log, &firsts).await?;
    let own = |entry: &AuditEntry| entry_key(entry.operation, &[]);
    let owns: Vec<ProfileKey> = entries.iter().map(own).collect();
    let (owns, _) = entries_of(log, &owns).await?;
    let last = operations.len().saturating_sub(1);
    for (at, keys) in operations.into_iter().enumerate() {
        let prefix = prefix_of(&keys[0]);
        let own = owns.iter().map(AuditEntry::key).find(|own| prefix_of(own) == prefix);
        match own {
            Some(own) => {
                found.keys.push(own);
                if at == last && found.next.is_some() {
                    found.next = Some(reserved_key(&format!("{prefix}~")));
                }
            }
            None => found.keys.extend(keys),
        }
    }
    Ok(())
}

/// The entries that keys hold, and those that cannot be read.
async fn entries_of(
    log: Log<'_>,
    keys: &[ProfileKey],
) -> Result<(Vec<AuditEntry>, Vec<UnreadableEntry>)> {
    let (states, mut unreadable) = values_of(log, keys).await?;
    let mut entries = Vec::new();
    for state in &states {
        match AuditEntry::of(state) {
            Ok(entry) => entries.extend(entry),
            Err(error) => {
                let (key, why) = (state.key.clone(), error.to_string());
                unreadable.push(UnreadableEntry { key, why });
            }
        }
    }
    Ok((entries, unreadable))
}

/// What is stored under keys, and those whose values are damaged.
async fn values_of(
    log: Log<'_>,
    keys: &[ProfileKey],
) -> Result<(Vec<KeyState>, Vec<UnreadableEntry>)> {
    let returning = Returning { value: true, inbox_unless: None };
    match log.call(log.store.read(keys, returning)).await {
        Err(StoreError::Damaged { .. }) => {}
        read => return Ok((read?.states, Vec::new())),
    }
    let (mut states, mut unreadable) = (Vec::new(), Vec::new());
    for key in keys {
        match log.call(log.store.read_one(key, returning)).await {
            Ok((_, state)) => states.push(state),
            Err(error @ StoreError::Damaged { .. }) => {
                unreadable.push(UnreadableEntry { key: key.clone(), why: error.to_string() });
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok((states, unreadable))
}
