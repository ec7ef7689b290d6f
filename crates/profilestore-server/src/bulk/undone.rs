//! Which operation undoes which, so that none is undone twice: what was added would be subtracted
//! once more.
//!
//! An undo is booked in the audit log in one commit with a note of it, at a place that is named by
//! the undone operation. The note takes the place of the one that was looked at. So of two undos
//! that begin at the same moment the store refuses one, which looks again. The program does the
//! same at the same place, without this server (its `edit/undo.rs`).

use std::sync::Arc;

use profilestore::{
    Attribution, Error,
    audit::{AuditEntry, AuditOutcome, AuditQuery, audit_entries},
    data_store::{Change, DataStore},
    env::Env,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::shelf::{Kept, Shelf};

/// By how much the clocks of two machines may differ, for the search in the log.
const CLOCKS_DIFFER_MS: i64 = 60 * 60 * 1000;

/// The scope of the reserved store in which the notes are.
const SCOPE: &str = "undone";

/// Which operation was the last to undo the one that the note is about.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    by: Uuid,
}

/// What is known of an operation's undoing.
pub(super) struct Seen {
    /// The newest operation that undoes it.
    pub(super) by: Option<Uuid>,
    /// The version of the note.
    version: u64,
}

/// The notes of a store.
pub(super) struct Undone {
    shelf: Shelf,
    store: Arc<dyn DataStore>,
}

impl Undone {
    pub(super) fn new(store: Arc<dyn DataStore>, env: Env) -> Self {
        Self { shelf: Shelf::new(store.clone(), env, SCOPE), store }
    }

    /// Looks whether an operation is undone.
    pub(super) async fn look(&self, of: Uuid) -> Result<Seen, Error> {
        let Kept { value, version } = self.shelf.read::<Note>(&of.to_string()).await?;
        let by = match value {
            Some(note) => Some(note.by),
            None => in_the_log(&*self.store, of).await?,
        };
        Ok(Seen { by, version })
    }

    /// The changes that book a new operation that undoes `of`. They are refused when another one
    /// began since the look.
    pub(super) fn begin(
        &self,
        of: Uuid,
        seen: &Seen,
        operation: Uuid,
        by: Attribution,
    ) -> Result<[Change; 2], Error> {
        let note = self.shelf.write(&of.to_string(), seen.version, &Note { by: operation })?;
        // As the library books it.
        let entry = AuditEntry::new(operation, "undo", Vec::new(), by)
            .outcome(AuditOutcome::Pending)
            .detail("undoes", of.to_string());
        Ok([note, entry.change()?])
    }
}

/// The newest operation of the audit log that undoes this one, also without a note: those of
/// programs that keep none.
async fn in_the_log(store: &dyn DataStore, of: Uuid) -> Result<Option<Uuid>, Error> {
    let began_ms = i64::try_from(of.as_u128() >> 80).unwrap_or_default();
    let mut query = AuditQuery {
        since_ms: Some((began_ms - CLOCKS_DIFFER_MS).max(0)),
        grouped: true,
        ..AuditQuery::default()
    };
    loop {
        let page = audit_entries(store, &query).await?;
        let found = page.entries.into_iter().find(|entry| undoes(entry, of));
        query.after = page.next;
        if found.is_some() || query.after.is_none() {
            return Ok(found.map(|entry| entry.operation));
        }
    }
}

fn undoes(entry: &AuditEntry, of: Uuid) -> bool {
    let named = entry.details.get("undoes").and_then(Value::as_str);
    entry.action == "undo" && entry.keys.is_empty() && named == Some(of.to_string().as_str())
}
