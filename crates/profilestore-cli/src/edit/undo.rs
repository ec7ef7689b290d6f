//! Whether an operation has been undone already: what was added would be subtracted once more.

use profilestore::audit::{AuditEntry, AuditOutcome, AuditQuery, audit_entries};
use serde_json::Value;
use uuid::Uuid;

use crate::{audit, operate::failure, output::Failure, place::Store, times::time};

/// By how much the clocks of two machines may differ, for the search in the log.
const CLOCKS_DIFFER_MS: i64 = 60 * 60 * 1000;

/// The newest operation that undoes this one.
pub(super) async fn newest(store: &Store, of: Uuid) -> Result<Option<AuditEntry>, Failure> {
    let mut query = AuditQuery {
        since_ms: Some((audit::began_ms(of) - CLOCKS_DIFFER_MS).max(0)),
        grouped: true,
        ..AuditQuery::default()
    };
    loop {
        let page = audit_entries(&**store, &query).await.map_err(failure)?;
        let found = page.entries.into_iter().find(|entry| undoes(entry, of));
        query.after = page.next;
        if found.is_some() || query.after.is_none() {
            return Ok(found);
        }
    }
}

fn undoes(entry: &AuditEntry, of: Uuid) -> bool {
    let named = entry.details.get("undoes").and_then(Value::as_str);
    entry.action == "undo" && entry.keys.is_empty() && named == Some(of.to_string().as_str())
}

/// Why it is not undone once more.
pub(super) fn refused(of: Uuid, undone: &AuditEntry) -> Failure {
    let AuditEntry { operation, by, began_ms, outcome, .. } = undone;
    let how = match outcome {
        AuditOutcome::Done => "undone already",
        _ => "undone in part, which was given up",
    };
    Failure::Work(format!(
        "it was {how}, at {} by {}: nothing was changed. To take that back: profilestore edit \
            --undo {operation}. To undo once more what is undone, add --again, and what was added \
            is subtracted a second time: operation=`{of}`",
        time(*began_ms),
        by.author
    ))
}
