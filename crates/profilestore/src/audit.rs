//! The audit log: what operators did to which profiles, when, in whose name and why.
//!
//! An entry is a value under a key of its own in a reserved store ([`RESERVED_STORE`]). It is
//! written in the same commit as the change that it books, so what is booked was done, and what was
//! done is booked. The key follows from the operation's identity and the profiles it is about, and
//! an entry is written under the condition that there is none yet: so it is also what makes an
//! operation happen once. Keys begin with the time turned round, hence the newest entry is the
//! first of a listing.
//!
//! Entries stay for good: retention concerns superseded versions, and the current version of a key
//! is never one. A change that another server has to carry out (the holder of a live profile) is
//! booked as [`AuditOutcome::Pending`] when it is asked for, and that version is superseded by the
//! outcome.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    data_store::{
        Cause, Change, Commit, CommitId, DataStore, DataStoreExt as _, Digest, KeyFilter, KeyQuery,
        KeyState, NewValue, Returning, StoreError,
    },
    env::Env,
    error::{Error, ErrorKind, Result},
    key::{ProfileKey, RESERVED_STORE, began_ms},
    record::{Foreign, Stored},
};

/// The scope of [`RESERVED_STORE`] in which the entries are.
pub const AUDIT_SCOPE: &str = "audit";

/// The longest author, in bytes.
pub const MAX_AUTHOR_BYTES: usize = 200;

/// The longest reason, in bytes.
pub const MAX_REASON_BYTES: usize = 2000;

/// How many entries are read at once.
const ENTRIES_AT_ONCE: usize = 256;

/// The form of an entry. One with a higher number was written by a newer version.
const FORM: u32 = 1;

const LAST_MS: u64 = 0xffff_ffff_ffff;

/// In whose name something is done, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribution {
    /// Who does it: an operator, a tool. 1 to [`MAX_AUTHOR_BYTES`] bytes. Also the author of the
    /// versions that it writes.
    pub author: String,
    /// Why, for people: at most [`MAX_REASON_BYTES`] bytes. May be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

impl Attribution {
    /// An author without a reason.
    pub fn new(author: impl Into<String>) -> Self {
        Self { author: author.into(), reason: String::new() }
    }

    /// The same with a reason.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// Whether author and reason keep their limits.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |what, bytes, limit| {
            Err(Error::new(
                ErrorKind::Invalid,
                format!("{what} is empty or too long: bytes=`{bytes}` limit=`{limit}`"),
            ))
        };
        match (self.author.len(), self.reason.len()) {
            (author, _) if author == 0 || author > MAX_AUTHOR_BYTES => {
                wrong("the author", author, MAX_AUTHOR_BYTES)
            }
            (_, reason) if reason > MAX_REASON_BYTES => {
                wrong("the reason", reason, MAX_REASON_BYTES)
            }
            _ => Ok(()),
        }
    }
}

/// What became of an operation on the profiles of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
#[non_exhaustive]
pub enum AuditOutcome {
    /// It is on its way to the holder of the profile, or to its next holder.
    Pending,
    /// It was done in the commit that wrote this.
    Done,
    /// It could not be done, and nothing was changed.
    Refused {
        /// Why not.
        why: String,
    },
}

/// One entry of the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AuditEntry {
    /// The identity of the operation, a version 7 UUID. One operation on many profiles has one
    /// entry for each.
    pub operation: Uuid,
    /// When the operation began, by the clock of the server that began it, Unix milliseconds.
    /// Entries are ordered by it.
    pub began_ms: i64,
    /// When this was stored, by the store's clock, Unix milliseconds. 0 for an entry that is yet to
    /// be stored.
    pub stored_ms: i64,
    /// What was done: `edit`, `rollback`, `pin`, …
    pub action: String,
    /// The profiles it was done to.
    pub keys: Vec<ProfileKey>,
    /// In whose name, and why.
    #[serde(flatten)]
    pub by: Attribution,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: AuditOutcome,
    /// What else belongs to it, by the action: the edit, version numbers, what would undo it.
    pub details: Map<String, Value>,
}

/// An entry as it is stored.
#[derive(Serialize, Deserialize)]
struct StoredEntry {
    v: u32,
    operation: Uuid,
    action: String,
    keys: Vec<ProfileKey>,
    #[serde(flatten)]
    by: Attribution,
    #[serde(flatten)]
    outcome: AuditOutcome,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    details: Map<String, Value>,
}

impl AuditEntry {
    /// An entry to be stored. `operation` is a fresh version 7 UUID (`Env::uuid`), or the one that
    /// a repeated or resumed operation had before.
    pub fn new(operation: Uuid, action: &str, keys: Vec<ProfileKey>, by: Attribution) -> Self {
        Self {
            operation,
            began_ms: began_ms(operation),
            stored_ms: 0,
            action: action.to_owned(),
            keys,
            by,
            outcome: AuditOutcome::Done,
            details: Map::new(),
        }
    }

    /// The same with another outcome than [`AuditOutcome::Done`].
    #[must_use]
    pub fn outcome(mut self, outcome: AuditOutcome) -> Self {
        self.outcome = outcome;
        self
    }

    /// The same with one more detail.
    #[must_use]
    pub fn detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// Where it is stored.
    pub fn key(&self) -> ProfileKey {
        entry_key(self.operation, &self.keys)
    }

    /// The change that stores it, for the commit that does what it books. Fails with
    /// [`crate::data_store::ConflictKind::Version`] about [`AuditEntry::key`] when the operation
    /// has been booked on these profiles before.
    pub fn change(&self) -> Result<Change> {
        self.change_at(0)
    }

    /// The change that takes the place of version `version` of the entry; 0: of none.
    pub(crate) fn change_at(&self, version: u64) -> Result<Change> {
        self.by.check()?;
        let Self { operation, action, keys, by, outcome, details, .. } = self.clone();
        let stored = StoredEntry { v: FORM, operation, action, keys, by, outcome, details };
        let value = serde_json::value::to_raw_value(&stored).map_err(|error| {
            Error::new(
                ErrorKind::Invalid,
                "the audit entry cannot be stored as \
                JSON",
            )
            .caused_by(error)
        })?;
        let value = Stored::Foreign(Foreign { user_ids: Vec::new(), metadata: Map::new(), value })
            .encode()?;
        Ok(Change::Write {
            key: self.key(),
            epoch: 0,
            version,
            value: NewValue::Bytes(value),
            user_ids: Vec::new(),
            cause: Cause::Set,
            author: self.by.author.clone(),
            keep_previous: false,
            seal: false,
            imported: None,
        })
    }

    /// Stores it by itself, for an operation that is more than one commit: as
    /// [`AuditOutcome::Pending`] with `over` 0 before it, with its outcome and `over` 1 after it.
    /// Fails as the store does.
    pub async fn book(&self, store: &dyn DataStore, env: &Env, over: u64) -> Result<()> {
        let incarnation = store.identity().await?.incarnation;
        let changes = vec![self.change_at(over)?];
        let commit = Commit {
            id: CommitId(env.uuid()),
            incarnation,
            from: None,
            changes,
            returning: Returning::HEAD,
            fingerprint: None,
        };
        match store.commit_one(commit.clone()).await {
            // The same commit again tells, and does it if it was not done.
            Err(StoreError::Indeterminate { .. }) => store.commit_one(commit).await?,
            other => other?,
        };
        Ok(())
    }

    /// The entry that a key holds. None when it holds nothing.
    pub(crate) fn of(state: &KeyState) -> Result<Option<Self>> {
        let (Some(head), Some(bytes)) = (&state.head, &state.value) else { return Ok(None) };
        let damaged = |why: String| {
            Error::new(
                ErrorKind::Corrupt,
                format!("an audit entry cannot be read, or is of a newer version: {why}"),
            )
            .about(&state.key)
        };
        let value = match Stored::decode(bytes) {
            Ok(Stored::Foreign(foreign)) => foreign.value,
            Ok(_) => return Err(damaged("it is something else".into())),
            Err(error) => return Err(damaged(error.to_string())),
        };
        let stored: StoredEntry =
            serde_json::from_str(value.get()).map_err(|error| damaged(error.to_string()))?;
        if stored.v > FORM {
            return Err(damaged(format!("its form is {}", stored.v)));
        }
        let StoredEntry { operation, action, keys, by, outcome, details, .. } = stored;
        let began_ms = began_ms(operation);
        Ok(Some(Self {
            operation,
            began_ms,
            stored_ms: head.stored_ms,
            action,
            keys,
            by,
            outcome,
            details,
        }))
    }
}

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

/// Where the entry of an operation on these profiles is: the time turned round, 48 bits of the
/// operation, 100 bits of a digest over all of it.
pub(crate) fn entry_key(operation: Uuid, keys: &[ProfileKey]) -> ProfileKey {
    let mut named = operation.to_string();
    for key in keys {
        for name in [key.store(), key.scope(), key.key()] {
            named.push('\0');
            named.push_str(name);
        }
    }
    let digest: String =
        Digest::of(named.as_bytes()).0.iter().map(|byte| format!("{byte:02x}")).collect();
    reserved_key(&format!("{}-{}", operation_prefix(operation), &digest[..25]))
}

/// The identity that an operation's request to a holder has: it names the operation, and is of
/// another version (8) than the identities of all other requests (7).
pub(crate) fn order_id(operation: Uuid) -> Uuid {
    with_version(operation, 8)
}

/// The operation that such an identity names. None: it is another one.
pub(crate) fn operation_of_order(id: Uuid) -> Option<Uuid> {
    (id.get_version_num() == 8).then(|| with_version(id, 7))
}

fn with_version(id: Uuid, version: u8) -> Uuid {
    let mut bytes = id.into_bytes();
    bytes[6] = (bytes[6] & 0x0f) | (version << 4);
    Uuid::from_bytes(bytes)
}

fn operation_prefix(operation: Uuid) -> String {
    format!(
        "{}{:012x}",
        turned_round(began_ms(operation)),
        operation.as_u128() & u128::from(LAST_MS)
    )
}

/// Twelve digits that are the smaller the later the time.
fn turned_round(ms: i64) -> String {
    format!("{:012x}", LAST_MS - ms.max(0).cast_unsigned().min(LAST_MS))
}

fn reserved_key(key: &str) -> ProfileKey {
    ProfileKey::new(RESERVED_STORE, AUDIT_SCOPE, key)
        .expect("at most 50 characters of hexadecimal digits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data_store::{ConflictKind, MemoryStore},
        env::ManualClock,
    };

    fn profile(name: &str) -> ProfileKey {
        ProfileKey::new("S", "global", name).unwrap()
    }

    async fn book(
        store: &MemoryStore,
        env: &Env,
        entry: &AuditEntry,
        version: u64,
    ) -> Result<(), crate::data_store::StoreError> {
        let incarnation = store.identity().await.unwrap().incarnation;
        let changes = vec![entry.change_at(version).unwrap()];
        let commit = Commit {
            id: CommitId(env.uuid()),
            incarnation,
            from: None,
            changes,
            returning: Returning::HEAD,
            fingerprint: None,
        };
        store.commit_one(commit).await.map(drop)
    }

    #[tokio::test]
    async fn entries_come_newest_first_and_are_found_by_time_profile_author_and_operation() {
        let clock = ManualClock::default();
        let env = clock.env(1);
        let store = MemoryStore::new(env.clone());
        let mut operations = Vec::new();
        for n in 0..5 {
            clock.advance(1000);
            let operation = env.uuid();
            operations.push(operation);
            for name in ["a", "b"] {
                let by = Attribution::new(if n == 3 { "eve" } else { "ann" }).because("a test");
                let entry =
                    AuditEntry::new(operation, "edit", vec![profile(name)], by).detail("n", n);
                book(&store, &env, &entry, 0).await.unwrap();
            }
        }
        let all = audit_entries(&store, &AuditQuery::default()).await.unwrap();
        assert_eq!(all.next, None);
        let order: Vec<Uuid> = all.entries.iter().map(|entry| entry.operation).collect();
        let newest_first: Vec<Uuid> =
            operations.iter().rev().flat_map(|operation| [*operation, *operation]).collect();
        assert_eq!(order, newest_first);
        assert_eq!(all.entries[0].details["n"], 4);
        assert_eq!(all.entries[0].stored_ms, env.unix_ms());
        assert_eq!(all.entries[0].by, Attribution::new("ann").because("a test"));

        let count =
            async |query: AuditQuery| audit_entries(&store, &query).await.unwrap().entries.len();
        let at = |n: usize| Some(all.entries[(4 - n) * 2].began_ms);
        assert_eq!(
            count(AuditQuery { since_ms: at(1), until_ms: at(3), ..Default::default() }).await,
            6
        );
        assert_eq!(
            count(AuditQuery { since_ms: at(4).map(|ms| ms + 1), ..Default::default() }).await,
            0
        );
        assert_eq!(count(AuditQuery { key: Some(profile("b")), ..Default::default() }).await, 5);
        assert_eq!(count(AuditQuery { author: Some("eve".into()), ..Default::default() }).await, 2);
        assert_eq!(
            count(AuditQuery { operation: Some(operations[2]), ..Default::default() }).await,
            2
        );
    }

    #[tokio::test]
    async fn an_operation_is_booked_once_a_profile_and_a_pending_one_gets_its_outcome() {
        let env = ManualClock::default().env(1);
        let store = MemoryStore::new(env.clone());
        let asked =
            AuditEntry::new(env.uuid(), "edit", vec![profile("a")], Attribution::new("ann"))
                .outcome(AuditOutcome::Pending);
        book(&store, &env, &asked, 0).await.unwrap();
        let again = book(&store, &env, &asked, 0).await.unwrap_err();
        assert_eq!(again.conflict(), Some(&ConflictKind::Version));
        let refused =
            asked.clone().outcome(AuditOutcome::Refused { why: "there is no such path".into() });
        book(&store, &env, &refused, 1).await.unwrap();
        let page = audit_entries(&store, &AuditQuery::default()).await.unwrap();
        assert_eq!(
            page.entries.iter().map(|entry| &entry.outcome).collect::<Vec<_>>(),
            [&refused.outcome]
        );
    }

    #[test]
    fn an_order_names_its_operation_and_other_identities_name_none() {
        let operation = ManualClock::default().env(1).uuid();
        assert_eq!(operation_of_order(order_id(operation)), Some(operation));
        assert_eq!(operation_of_order(operation), None);
    }

    #[test]
    fn an_entry_without_author_or_with_too_long_a_reason_is_refused() {
        let entry = |by| {
            AuditEntry::new(Uuid::nil(), "pin", vec![profile("a")], by)
                .change()
                .map(drop)
                .map_err(|e| e.kind())
        };
        assert_eq!(entry(Attribution::new("")), Err(ErrorKind::Invalid));
        assert_eq!(
            entry(Attribution::new("ann").because("x".repeat(MAX_REASON_BYTES + 1))),
            Err(ErrorKind::Invalid)
        );
        assert_eq!(entry(Attribution::new("ann").because("x".repeat(MAX_REASON_BYTES))), Ok(()));
    }
}
