//! `rollback`: making an earlier version of a profile current again.

use clap::Args;
use profilestore::{
    ProfileKey,
    data_store::{DataStore, KeyState, Links, Returning, StoredVersion, VersionRef},
    env::Env,
    history::{NotUndone, not_undone},
    key::escaped,
    operator::{Expected, Restored},
};
use serde::Serialize;

use crate::{
    app::App,
    diff::{current, differences},
    given::{ByArgs, KeyArg},
    operate::{Visit, failure, held_by},
    output::{Failure, Status, ask, count, json_document, note, say, word},
    times::time,
    versions::{VersionArg, described, existing},
};

/// Make an earlier version of a profile current again
///
/// It becomes a new version, byte for byte; what it replaces stays in the history, so a rollback
/// can itself be rolled back. Whatever session there is ends, and what it has not saved is lost.
/// Waiting messages stay. Booked in the audit log. What the profile did to others since is not
/// undone: messages that it sent and took, and trades are listed, by id and profile. When the
/// profile changes while you are asked, nothing is done. (To make a store out of a backup, see
/// restore.)
#[derive(Debug, Args)]
#[command(after_help = "\
VERSION is a number, a version string (see history), or a time: the version that was current at its
end. 14:31 includes all of its minute, 14:31:24 all of its second, a date all of its day.

Examples:
  profilestore rollback PlayerData/7 12 --reason 'lost items, ticket 4711'
  profilestore rollback PlayerData/7 2026-11-20T18:30:00Z --yes")]
pub(crate) struct Rollback {
    #[command(flatten)]
    key: KeyArg,
    /// The version to go back to
    #[arg(value_name = "VERSION")]
    version: VersionArg,
    /// Only show which version it would be, what would differ, and what would not be undone
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    by: ByArgs,
}

/// What a rollback does not undo, for people.
fn not_undone_lines(since: &NotUndone) -> Vec<String> {
    let mut lines = Vec::new();
    for commit in &since.commits {
        let at = format!("version {}, {}", commit.version, time(commit.at_ms));
        let Links { taken, sent, trade, left_out, .. } = &commit.links;
        lines.extend(
            taken.iter().map(|id| format!("  {at}: took the message {}", escaped(&id.to_string()))),
        );
        lines.extend(sent.iter().map(|sent| {
            let id = escaped(&sent.id.to_string());
            format!("  {at}: sent the message {id} to {}", sent.to)
        }));
        lines.extend(trade.iter().map(|trade| {
            let with: Vec<_> = trade.with.iter().map(ToString::to_string).collect();
            format!("  {at}: traded with {} in the transaction {}", with.join(", "), trade.id)
        }));
        if *left_out > 0 {
            lines.push(format!("  {at}: {}", count(*left_out, "more message", "more messages")));
        }
    }
    if since.more {
        lines.push("  and more than is listed here".to_owned());
    }
    if !lines.is_empty() {
        let first = "A rollback does not undo what the profile did to others since. What it sent or \
            traded away is then there twice, and what it took is gone:";
        lines.insert(0, first.to_owned());
    }
    lines
}

#[derive(Serialize)]
struct RollbackRow<'a> {
    #[serde(flatten)]
    key: &'a ProfileKey,
    #[serde(flatten)]
    done: Restored,
    restored_written_ms: i64,
}

impl Rollback {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let key = self.key.parse()?;
        let by = self.by.attribution()?;
        let file = app.place.open().await?;
        // Before the look, so that what follows it is noticed.
        let incarnation = file.identity().await?.incarnation;
        let state = existing(&*file, &key, Returning::HEAD).await?;
        let version = self.version.find(&*file, &state).await?;
        if self.dry_run {
            return preview(app, &*file, &key, &state, &version).await;
        }
        if !self.yes {
            let since = not_undone(&*file, &key, version.info.number).await?;
            not_undone_lines(&since).into_iter().for_each(|line| note(format_args!("{line}")));
            let changes = changes(&*file, &key, &state, &version).await;
            let session = held_by(&state)
                .map(|holder| format!(", ending the session on {holder}"))
                .unwrap_or_default();
            let from = state.head.as_ref().map(described).unwrap_or_default();
            let to = described(&version.info);
            if !ask(&format!("roll {key} back from {from} to {to}, {changes}{session}?"))? {
                return Err(Failure::Work(format!("not rolled back: key=`{key}`")));
            }
        }
        let visit = Visit::on(app, file, by).await?;
        let which = VersionRef::Number(version.info.number);
        let done = match self.yes {
            true => visit.operator.restore(&key, which).await,
            // What was shown, and nothing else.
            false => {
                let (operation, shown) = (Env::system().uuid(), Expected::of(incarnation, &state));
                visit.operator.restore_if(operation, &key, shown, which).await
            }
        };
        visit.end().await;
        let done = done.map_err(failure)?;
        if app.json {
            let restored_written_ms = version.info.written_ms;
            json_document(&RollbackRow { key: &key, done, restored_written_ms })?;
        } else {
            let session = done
                .held_by
                .map(|job| format!("; the session on {job} is over"))
                .unwrap_or_default();
            say(format_args!(
                "{key} is at version {}, which is {} again{session}",
                done.version,
                described(&version.info)
            ))?;
            for line in not_undone_lines(&done.not_undone) {
                say(format_args!("{line}"))?;
            }
        }
        Ok(Status::Fine)
    }
}

/// How much differs. The current value may be what is wrong.
async fn changes(
    store: &dyn DataStore,
    key: &ProfileKey,
    state: &KeyState,
    version: &StoredVersion,
) -> String {
    let current = current(store, state).await;
    match current.and_then(|current| differences(key, &current, version)) {
        Ok(differences) => count(differences.len() as u64, "difference", "differences"),
        Err(_) => "differences that cannot be shown".to_owned(),
    }
}

#[derive(Serialize)]
struct PreviewRow<'a> {
    #[serde(flatten)]
    key: &'a ProfileKey,
    restores: u64,
    restored_written_ms: i64,
    replaces: u64,
    not_undone: NotUndone,
}

/// What a rollback would do, and what it would not undo.
async fn preview(
    app: &App,
    store: &dyn DataStore,
    key: &ProfileKey,
    state: &KeyState,
    version: &StoredVersion,
) -> Result<Status, Failure> {
    let not_undone = not_undone(store, key, version.info.number).await?;
    if app.json {
        let (restores, restored_written_ms) = (version.info.number, version.info.written_ms);
        let replaces = state.version;
        json_document(&PreviewRow { key, restores, restored_written_ms, replaces, not_undone })?;
        return Ok(Status::Fine);
    }
    let from = state.head.as_ref().map(described).unwrap_or_default();
    let changes = changes(store, key, state, version).await;
    say(format_args!(
        "{key} would go back from {from} to {}, {changes}; see: profilestore diff {} {}",
        described(&version.info),
        word(&key.to_string()),
        version.info.number
    ))?;
    for line in not_undone_lines(&not_undone) {
        say(format_args!("{line}"))?;
    }
    Ok(Status::Fine)
}
