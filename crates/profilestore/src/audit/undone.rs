//! Which operation undoes which, so that none is undone twice: what was added would be subtracted
//! once more.
//!
//! An undo is booked in one commit with a note of it, at a place that is named by the undone
//! operation. The note takes the place of the one that was looked at. So of two undos that begin at
//! the same moment the store refuses one, which looks again, whichever program each of them is.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::to_raw_value};
use uuid::Uuid;

use super::{
    entry::{Attribution, AuditEntry, AuditOutcome},
    keys::entry_key,
    query::{AuditQuery, UnreadableEntry, audit_entries},
};
use crate::{
    data_store::{
        Cause, Change, Commit, CommitId, DataStore, DataStoreExt as _, Incarnation, NewValue,
        Returning, StoreError,
    },
    env::Env,
    error::{Error, ErrorKind, Result},
    key::{ProfileKey, RESERVED_STORE, began_ms},
    record::{Foreign, Stored},
};

/// By how much the clocks of two machines may differ, for the search in the log.
const CLOCKS_DIFFER_MS: i64 = 60 * 60 * 1000;

/// The scope of the reserved store in which the notes are.
const SCOPE: &str = "undone";

/// The form of a note. One with a higher number was made by a newer version.
const FORM: u32 = 1;

/// The action of an undo's own entry, and its detail that names the undone operation.
const UNDO: &str = "undo";
const UNDOES: &str = "undoes";

const VALUE: Returning = Returning { value: true, inbox_unless: None };

/// Which operation was the last to undo the one that the note is about.
#[derive(Serialize, Deserialize)]
struct Note {
    v: u32,
    by: Uuid,
}

/// An operation that undoes another one.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Undo {
    /// Its identity.
    pub operation: Uuid,
    /// Its own entry in the audit log. None: it cannot be read, so that it is not known whether the
    /// undo is complete.
    pub entry: Option<AuditEntry>,
}

/// What is known of an operation's undoing. See [`undoing`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Undoing {
    /// The operation that is undone, or is to be.
    pub of: Uuid,
    /// The newest operation that undoes it, as far as is known.
    pub newest: Option<Undo>,
    /// What is damaged of that: the note about it, or the undo's own entry. When there is
    /// something, an undo was begun, whatever else is known of it.
    pub damaged: Vec<UnreadableEntry>,
    incarnation: Incarnation,
    /// The version of the note.
    version: u64,
}

/// Looks whether an operation is undone. What is damaged is told, and is no failure: an operator
/// may decide to undo all the same. Fails as the store does, and for a note of a newer version.
pub async fn undoing(store: &dyn DataStore, of: Uuid) -> Result<Undoing> {
    // Before the rest, so that what follows is noticed: a restored backup, another undo.
    let incarnation = store.identity().await?.incarnation;
    let mut damaged = Vec::new();
    let (noted, version) = note_about(store, of, &mut damaged).await?;
    let newest = match noted {
        Some(operation) => {
            let entry = own_entry(store, operation, &mut damaged).await?;
            Some(Undo { operation, entry })
        }
        None => in_the_log(store, of).await?,
    };
    Ok(Undoing { of, newest, damaged, incarnation, version })
}

impl Undoing {
    /// The changes that book a new operation as the one that undoes it, for
    /// [`BulkEdit::resume`](crate::operator::BulkEdit::resume) to go on with. They are refused with
    /// a conflict when another one began since the look.
    pub fn changes(&self, operation: Uuid, by: Attribution) -> Result<[Change; 2]> {
        // As a bulk edit books it.
        let entry = AuditEntry::new(operation, UNDO, Vec::new(), by)
            .outcome(AuditOutcome::Pending)
            .detail(UNDOES, self.of.to_string());
        Ok([note(self.of, operation, self.version)?, entry.change()?])
    }

    /// Books a new operation as the one that undoes it, and answers its identity. None: another one
    /// began since the look. Fails as the store does.
    pub async fn begin(
        &self,
        store: &dyn DataStore,
        env: &Env,
        by: Attribution,
    ) -> Result<Option<Uuid>> {
        let operation = env.uuid();
        let commit = Commit {
            id: CommitId(env.uuid()),
            incarnation: self.incarnation,
            from: None,
            changes: self.changes(operation, by)?.into(),
            returning: Returning::HEAD,
            fingerprint: None,
        };
        let done = match store.commit_one(commit.clone()).await {
            // The same commit again tells, and does it if it was not done.
            Err(StoreError::Indeterminate { .. }) => store.commit_one(commit).await,
            done => done,
        };
        match done {
            Ok(_) => Ok(Some(operation)),
            Err(StoreError::Conflict(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// The operation that the note names, if there is one that can be read, and the note's version.
async fn note_about(
    store: &dyn DataStore,
    of: Uuid,
    damaged: &mut Vec<UnreadableEntry>,
) -> Result<(Option<Uuid>, u64)> {
    let key = place(of)?;
    let (_, state) = match store.read_one(&key, VALUE).await {
        Err(error @ StoreError::Damaged { .. }) => {
            damaged.push(UnreadableEntry { key: key.clone(), why: error.to_string() });
            store.read_one(&key, Returning::HEAD).await?
        }
        read => read?,
    };
    let Some(bytes) = &state.value else { return Ok((None, state.version)) };
    let note = match Stored::decode(bytes) {
        Ok(Stored::Foreign(foreign)) => {
            serde_json::from_str::<Note>(foreign.value.get()).map_err(|error| error.to_string())
        }
        Ok(_) => Err("it is something else".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    match note {
        Ok(note) if note.v > FORM => {
            let why = format!("the note about an undo is of a newer version: form=`{}`", note.v);
            Err(Error::new(ErrorKind::Corrupt, why).about(&key))
        }
        Ok(note) => Ok((Some(note.by), state.version)),
        Err(why) => {
            damaged.push(UnreadableEntry { key, why });
            Ok((None, state.version))
        }
    }
}

/// The entry of an undo itself, if it can be read.
async fn own_entry(
    store: &dyn DataStore,
    operation: Uuid,
    damaged: &mut Vec<UnreadableEntry>,
) -> Result<Option<AuditEntry>> {
    let key = entry_key(operation, &[]);
    let read = match store.read_one(&key, VALUE).await {
        Err(error @ StoreError::Damaged { .. }) => Err(error.to_string()),
        read => AuditEntry::of(&read?.1).map_err(|error| error.to_string()),
    };
    match read {
        Ok(Some(entry)) => return Ok(Some(entry)),
        Ok(None) => damaged.push(UnreadableEntry { key, why: "it is not there".to_owned() }),
        Err(why) => damaged.push(UnreadableEntry { key, why }),
    }
    Ok(None)
}

/// The newest operation of the log that undoes this one, also without a note: those of programs
/// that keep none.
async fn in_the_log(store: &dyn DataStore, of: Uuid) -> Result<Option<Undo>> {
    let mut query = AuditQuery {
        since_ms: Some((began_ms(of) - CLOCKS_DIFFER_MS).max(0)),
        grouped: true,
        ..AuditQuery::default()
    };
    loop {
        let page = audit_entries(store, &query).await?;
        let found = page.entries.into_iter().find(|entry| undoes(entry, of));
        query.after = page.next;
        if found.is_some() || query.after.is_none() {
            let undo = |entry: AuditEntry| Undo { operation: entry.operation, entry: Some(entry) };
            return Ok(found.map(undo));
        }
    }
}

fn undoes(entry: &AuditEntry, of: Uuid) -> bool {
    let named = entry.details.get(UNDOES).and_then(Value::as_str);
    entry.action == UNDO && entry.keys.is_empty() && named == Some(of.to_string().as_str())
}

/// Where the note about an operation is.
fn place(of: Uuid) -> Result<ProfileKey> {
    Ok(ProfileKey::new(RESERVED_STORE, SCOPE, &of.to_string())?)
}

/// The change that writes a note over this version of it; 0: over none.
fn note(of: Uuid, by: Uuid, version: u64) -> Result<Change> {
    let value = to_raw_value(&Note { v: FORM, by })
        .map_err(|error| StoreError::Invalid { reason: error.to_string() })?;
    let foreign = Foreign { user_ids: Vec::new(), metadata: Map::new(), value };
    Ok(Change::Write {
        key: place(of)?,
        epoch: 0,
        version,
        value: NewValue::Bytes(Stored::Foreign(foreign).encode()?),
        user_ids: Vec::new(),
        cause: Cause::Set,
        author: SCOPE.to_owned(),
        keep_previous: false,
        seal: false,
        imported: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{data_store::MemoryStore, env::ManualClock};

    fn by() -> Attribution {
        Attribution::new("ann")
    }

    /// Puts other bytes in the place of a value.
    async fn overwrite(store: &MemoryStore, env: &Env, key: &ProfileKey, bytes: &'static [u8]) {
        let version = store.read_one(key, Returning::HEAD).await.unwrap().1.version;
        let mut change = note(Uuid::nil(), Uuid::nil(), version).unwrap();
        if let Change::Write { key: place, value, .. } = &mut change {
            *place = key.clone();
            *value = NewValue::Bytes(bytes.into());
        }
        let commit = Commit {
            id: CommitId(env.uuid()),
            incarnation: store.identity().await.unwrap().incarnation,
            from: None,
            changes: vec![change],
            returning: Returning::HEAD,
            fingerprint: None,
        };
        store.commit_one(commit).await.unwrap();
    }

    fn newest(seen: &Undoing) -> Option<Uuid> {
        seen.newest.as_ref().map(|undo| undo.operation)
    }

    /// Both had looked, both began, and what was added was subtracted twice.
    #[tokio::test]
    async fn of_two_undos_that_begin_at_the_same_moment_one_looks_again() {
        let env = ManualClock::default().env(1);
        let store = MemoryStore::new(env.clone());
        let of = env.uuid();
        let [one, other] = [undoing(&store, of).await.unwrap(), undoing(&store, of).await.unwrap()];
        assert!(one.newest.is_none() && one.damaged.is_empty());
        let begun = one.begin(&store, &env, by()).await.unwrap().unwrap();
        assert_eq!(other.begin(&store, &env, by()).await.unwrap(), None);
        let seen = undoing(&store, of).await.unwrap();
        assert_eq!(newest(&seen), Some(begun));
        let entry = seen.newest.as_ref().unwrap().entry.as_ref().unwrap();
        assert_eq!(entry.outcome, AuditOutcome::Pending);
        // The same for two that undo it once more, and for a note that is no longer the last one.
        let other = undoing(&store, of).await.unwrap();
        let again = seen.begin(&store, &env, by()).await.unwrap().unwrap();
        for late in [&one, &other] {
            assert_eq!(late.begin(&store, &env, by()).await.unwrap(), None);
        }
        assert_eq!(newest(&undoing(&store, of).await.unwrap()), Some(again));
        assert!(in_the_log(&store, of).await.unwrap().is_some(), "it is an undo like any other");
    }

    /// An undo whose entry was damaged kept the operation from being undone again for ever.
    #[tokio::test]
    async fn a_damaged_entry_or_note_about_an_undo_is_told_and_another_undo_can_begin() {
        let clock = ManualClock::default();
        let env = clock.env(1);
        let store = MemoryStore::new(env.clone());
        let of = env.uuid();
        let first = undoing(&store, of).await.unwrap();
        let begun = first.begin(&store, &env, by()).await.unwrap().unwrap();
        overwrite(&store, &env, &entry_key(begun, &[]), b"\x02\x00{").await;
        let seen = undoing(&store, of).await.unwrap();
        assert_eq!(seen.newest, Some(Undo { operation: begun, entry: None }));
        assert_eq!(seen.damaged[0].key, entry_key(begun, &[]));
        clock.advance(1000);
        let again = seen.begin(&store, &env, by()).await.unwrap().unwrap();
        let seen = undoing(&store, of).await.unwrap();
        assert_eq!((newest(&seen), seen.damaged.len()), (Some(again), 0));

        // The log tells what a damaged note does not.
        overwrite(&store, &env, &place(of).unwrap(), b"\x02\x00{\"value\":5}").await;
        let seen = undoing(&store, of).await.unwrap();
        assert_eq!((newest(&seen), seen.damaged.len()), (Some(again), 1));
        assert_eq!(seen.damaged[0].key, place(of).unwrap());
        clock.advance(1000);
        let last = seen.begin(&store, &env, by()).await.unwrap().unwrap();
        assert_eq!(newest(&undoing(&store, of).await.unwrap()), Some(last));

        // A newer version may know more.
        let newer =
            b"\x02\x00{\"value\":{\"v\":2,\"by\":\"00000000-0000-0000-0000-000000000000\"}}";
        overwrite(&store, &env, &place(of).unwrap(), newer).await;
        assert_eq!(undoing(&store, of).await.unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
