//! Whether an operation was undone by the program, without this server: what was added would be
//! subtracted once more.

use profilestore::{
    Error,
    audit::{AuditEntry, AuditQuery, audit_entries},
    data_store::DataStore,
};
use serde_json::Value;
use uuid::Uuid;

/// By how much the clocks of two machines may differ, for the search in the log.
const CLOCKS_DIFFER_MS: i64 = 60 * 60 * 1000;

/// The newest operation of the audit log that undoes this one.
pub(super) async fn in_the_log(store: &dyn DataStore, of: Uuid) -> Result<Option<Uuid>, Error> {
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
