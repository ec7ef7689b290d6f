//! An entry, what it says, and how it is stored.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::keys::{entry_key, profile_tag, unredacted_tag};
use crate::{
    data_store::{
        Cause, Change, Commit, CommitId, DataStore, DataStoreExt as _, KeyState, NewValue,
        Returning, StoreError, rules::MAX_AUTHOR_BYTES,
    },
    env::Env,
    error::{Error, ErrorKind, Result},
    key::{ProfileKey, began_ms},
    record::{Foreign, Stored},
};

/// The longest reason, in bytes.
pub const MAX_REASON_BYTES: usize = 2000;

/// The form of an entry. One with a higher number was written by a newer version.
const FORM: u32 = 1;

/// The action of an erasure's entries.
pub(crate) const ERASE: &str = "erase";

/// The detail of an erasure's entry that says when the profile was erased. It is added when the log
/// holds nothing more of that profile's content.
pub(crate) const ERASED_MS: &str = "erased_ms";

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
#[derive(Deserialize)]
struct StoredEntry {
    v: u32,
    operation: Uuid,
    action: String,
    keys: Vec<ProfileKey>,
    #[serde(flatten)]
    by: Attribution,
    #[serde(flatten)]
    outcome: AuditOutcome,
    #[serde(default)]
    details: Map<String, Value>,
}

/// An entry as it is written, without copies: an edit of many profiles writes one for each.
#[derive(Serialize)]
struct EntryToStore<'a> {
    v: u32,
    operation: Uuid,
    action: &'a str,
    keys: &'a [ProfileKey],
    #[serde(flatten)]
    by: &'a Attribution,
    #[serde(flatten)]
    outcome: &'a AuditOutcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a Map<String, Value>>,
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
        let tags = tags(&self.action, &self.keys, &self.details);
        let Self { operation, action, keys, by, outcome, details, .. } = self;
        let details = Some(details).filter(|details| !details.is_empty());
        let (v, operation) = (FORM, *operation);
        let stored = EntryToStore { v, operation, action, keys, by, outcome, details };
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
            user_ids: tags,
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

/// By what an entry is found: the profiles that it is about, and whether the log is still to be
/// redacted after it.
fn tags(action: &str, keys: &[ProfileKey], details: &Map<String, Value>) -> Vec<i64> {
    let mut tags: Vec<i64> = keys.iter().map(profile_tag).collect();
    if action == ERASE && !details.contains_key(ERASED_MS) {
        tags.push(unredacted_tag());
    }
    tags.sort_unstable();
    tags.dedup();
    tags
}

/// The tags of an entry, from its value as it is stored. None for one that cannot be read.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(crate) fn tags_of_value(bytes: &[u8]) -> Option<Vec<i64>> {
    let Ok(Stored::Foreign(foreign)) = Stored::decode(bytes) else { return None };
    let entry: StoredEntry = serde_json::from_str(foreign.value.get()).ok()?;
    Some(tags(&entry.action, &entry.keys, &entry.details))
}
