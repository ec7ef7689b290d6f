//! `audit`: what operators did.

use std::io::Write;

use clap::Args;
use profilestore::audit::{AuditEntry, AuditOutcome, AuditQuery, UnreadableEntry, audit_entries};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    args::{App, profile_key},
    operate::failure,
    output::{Failure, Status, Table, cut, json_line, note, out},
    times::{Span, span, time},
};

/// Show what operators did
///
/// Edits, rollbacks, pins, erasures: when, to which profile, in whose name and why, the newest
/// first. Each was written together with the change that it books. An edit of a profile that is
/// online is `pending` until its holder has applied and saved it. A bulk edit is one line, with its
/// operation below; what it did to each profile is shown with --operation, --key or --json.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore audit --limit 20
  profilestore audit --since 2026-11-01 --author ann
  profilestore audit --action rollback --since yesterday
  profilestore audit --key PlayerData/7 --json | jq .details")]
pub(crate) struct Audit {
    /// Only what began at or after this time: 2026-11-21, 2026-11-21 14:00, 2h, yesterday
    #[arg(long, value_name = "TIME", value_parser = span)]
    since: Option<Span>,
    /// Only what began at or before this time, to the end of what is given of it
    #[arg(long, value_name = "TIME", value_parser = span)]
    until: Option<Span>,
    /// Only about this profile: STORE/KEY, or STORE/SCOPE/KEY
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Only in this name
    #[arg(long)]
    author: Option<String>,
    /// Only this action: edit, edit all, undo, rollback, pin, unpin, send, end-session, remove,
    /// erase, vacuum, import, backup, cancel message
    #[arg(long)]
    action: Option<String>,
    /// Only this operation
    #[arg(long, value_name = "ID")]
    operation: Option<Uuid>,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

impl Audit {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let key = self.key.as_deref().map(|key| profile_key(key, None)).transpose()?;
        let store = app.place.open().await?;
        let mut table =
            Table::new(["TIME", "ACTION", "PROFILE", "AUTHOR", "OUTCOME", "WHAT", "REASON"])
                .soft([5, 6, 3, 4]);
        let (mut out, mut status) = (out(), Status::Fine);
        let mut left = self.limit.unwrap_or(usize::MAX);
        let mut query = AuditQuery {
            since_ms: self.since.map(|span| span.first_ms),
            until_ms: self.until.map(|span| span.last_ms),
            key,
            author: self.author,
            operation: self.operation,
            grouped: !app.json,
            after: None,
        };
        while left > 0 {
            let mut page = audit_entries(&*store, &query).await.map_err(failure)?;
            if let Some(action) = &self.action {
                page.entries.retain(|entry| entry.action == *action);
            }
            page.entries.truncate(left);
            match app.json {
                true => page.entries.iter().try_for_each(|entry| json_line(&mut out, entry))?,
                false => {
                    let rows: Vec<_> = page.entries.iter().map(cells).collect();
                    let below: Vec<_> = page.entries.iter().map(operation).collect();
                    table.page_with(&mut out, &rows, &below)?;
                }
            }
            for UnreadableEntry { key, why, .. } in &page.unreadable {
                note(format_args!("problem: an entry of the log cannot be read: {key}: {why}"));
                status = Status::Problems;
            }
            left -= page.entries.len();
            if page.next.is_none() {
                break;
            }
            query.after = page.next;
        }
        out.flush()?;
        Ok(status)
    }
}

fn cells(entry: &AuditEntry) -> [String; 7] {
    let about = match &*entry.keys {
        [] => String::new(),
        [key] => key.to_string(),
        [key, more @ ..] => format!("{key} and {} more", more.len()),
    };
    let outcome = match &entry.outcome {
        AuditOutcome::Pending => "pending".to_owned(),
        AuditOutcome::Done => "done".to_owned(),
        AuditOutcome::Refused { why } => format!("refused: {why}"),
        _ => "?".to_owned(),
    };
    let what = entry
        .details
        .get("edit")
        .and_then(|edit| edit.get("ops"))
        .map(Value::to_string)
        .unwrap_or_default();
    [
        time(entry.began_ms),
        entry.action.clone(),
        about,
        entry.by.author.clone(),
        cut(&outcome, 60),
        cut(&what, 60),
        cut(&entry.by.reason, 40),
    ]
}

/// What an edit of many profiles is undone and gone on with by.
fn operation(entry: &AuditEntry) -> Option<String> {
    let is_bulk = ["edit all", "undo"].contains(&&*entry.action) && entry.keys.is_empty();
    is_bulk.then(|| format!("operation {}", entry.operation))
}
