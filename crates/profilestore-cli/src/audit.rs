//! `audit`: what operators did.

use clap::{Args, builder::PossibleValuesParser};
use profilestore::{
    Attribution,
    audit::{AuditEntry, AuditOutcome, AuditQuery, UnreadableEntry, audit_entries},
    env::Env,
};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    app::App,
    given::{at_least_one, attribution, profile_key},
    operate::failure,
    output::{Failure, Status, Table, cut, json_document, json_line, note, out, say},
    place::Store,
    times::{Span, span, time},
};

/// What is booked, by the library, this program and the server over HTTP.
const ACTIONS: [&str; 25] = [
    "edit",
    "edit all",
    "undo",
    "stand",
    "end standing",
    "put",
    "rollback",
    "pin",
    "unpin",
    "send",
    "cancel message",
    "end-session",
    "remove",
    "erase",
    "vacuum",
    "import",
    "backup",
    "key-add",
    "key-revoke",
    "member-add",
    "member-change",
    "member-password",
    "member-remove",
    "log-in",
    "log-in-failed",
];

/// How the reason begins of an operation that an operator gave up.
pub(crate) const GIVEN_UP: &str = "given up by";

/// Show what operators did
///
/// Edits, rollbacks, pins, erasures: when, to which profile, in whose name and why, the newest
/// first. Each was written together with the change that it books. An edit of a profile that is
/// online is `pending` until its holder has applied and saved it. A bulk edit is one line, with its
/// operation below; what it did to each profile is shown with --operation, --key or --json. Entries
/// are found at once by --key, --operation and time. For --author and --action the log is read, the
/// newest first; --since bounds that.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore audit --limit 20
  profilestore audit --since 2026-11-01 --author ann
  profilestore audit --action rollback --since yesterday
  profilestore audit --key PlayerData/7 --json | jq .details
  profilestore audit --give-up 01999d5c-2f1e-7a52-9df4-1c6f8a3b2d10 --reason 'not needed'")]
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
    /// Only in this name; with --give-up in whose name that is booked
    #[arg(long)]
    author: Option<String>,
    /// Only this action
    #[arg(long, value_parser = PossibleValuesParser::new(ACTIONS))]
    action: Option<String>,
    /// Only this operation
    #[arg(long, value_name = "ID")]
    operation: Option<Uuid>,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    limit: Option<usize>,
    /// Say of an operation that was begun and not ended that it will not be ended: `status` lists
    /// it no longer, and --resume does not go on with it. What it did stays, and can be undone
    #[arg(long, value_name = "ID")]
    #[arg(conflicts_with_all = ["since", "until", "key", "action", "operation", "limit"])]
    give_up: Option<Uuid>,
    /// With --give-up: why
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    #[arg(requires = "give_up")]
    reason: String,
}

impl Audit {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        if let Some(operation) = self.give_up {
            return give_up(app, operation, &attribution(self.author, &self.reason)?).await;
        }
        let key = self.key.as_deref().map(|key| profile_key(key, None)).transpose()?;
        let store = app.place.open().await?;
        let mut table =
            Table::new(["TIME", "ACTION", "PROFILE", "AUTHOR", "OUTCOME", "WHAT", "REASON"])
                .soft([5, 6, 3, 4]);
        let (mut out, mut status) = (out(), Status::Fine);
        let (mut left, mut shown) = (self.limit.unwrap_or(usize::MAX), 0);
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
            shown += page.entries.len();
            if page.next.is_none() {
                break;
            }
            query.after = page.next;
        }
        table.end(&mut out)?;
        if status == Status::Problems {
            note(format_args!(
                "what to do: \"An entry of the audit log is damaged\" in docs/trouble.md"
            ));
        }
        if shown == 0 && !app.json {
            note(format_args!("no entry matches"));
        }
        Ok(status)
    }
}

/// Ends the entry of an operation that nobody will end.
async fn give_up(app: &App, operation: Uuid, by: &Attribution) -> Result<Status, Failure> {
    let store = app.place.open().await?;
    store.for_writing()?;
    let Some(entry) = own_entry(&store, operation).await? else {
        return Err(Failure::NotFound(format!(
            "the audit log has no such operation: operation=`{operation}`"
        )));
    };
    if entry.outcome != AuditOutcome::Pending {
        return Err(Failure::Work(format!(
            "the operation has ended, nothing was changed: operation=`{operation}`"
        )));
    }
    // Its holder, or the next one, will answer; so it cannot be given up.
    if entry.action == "edit" {
        return Err(Failure::Work(format!(
            "the edit waits for the game server that holds the profile, and takes effect yet; undo \
             it with: profilestore edit --undo {operation}"
        )));
    }
    let reason = if by.reason.is_empty() { String::new() } else { format!(": {}", by.reason) };
    let why = format!("{GIVEN_UP} {}{reason}", by.author);
    let action = entry.action.clone();
    let ended = entry.outcome(AuditOutcome::Refused { why });
    // Over the entry of its beginning, the first one, and no other: it may end at this moment.
    ended.book(&*store, &Env::system(), 1).await.map_err(failure)?;
    match app.json {
        true => json_document(&ended)?,
        false => say(format_args!("{action} {operation} is given up"))?,
    }
    Ok(Status::Fine)
}

/// The entry of an operation itself, and not one of those about each of its profiles; of an
/// operation without such an entry, the first one.
async fn own_entry(store: &Store, operation: Uuid) -> Result<Option<AuditEntry>, Failure> {
    // All that began in the same millisecond. Edits of many profiles are stepped over there.
    let began_ms = began_ms(operation);
    let mut query = AuditQuery {
        since_ms: Some(began_ms),
        until_ms: Some(began_ms),
        grouped: true,
        ..AuditQuery::default()
    };
    let mut first = None;
    loop {
        let page = audit_entries(&**store, &query).await.map_err(failure)?;
        for entry in page.entries.into_iter().filter(|entry| entry.operation == operation) {
            if entry.keys.is_empty() {
                return Ok(Some(entry));
            }
            first = first.or(Some(entry));
        }
        query.after = page.next;
        if query.after.is_none() {
            return Ok(first);
        }
    }
}

/// When an operation began, as its identity says, Unix milliseconds.
fn began_ms(operation: Uuid) -> i64 {
    i64::try_from(operation.as_u128() >> 80).unwrap_or_default()
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
