//! `history`, `diff`, `rollback` and `pin`: a profile's earlier versions.

use std::{io::Write, str::FromStr};

use clap::Args;
use profilestore::{
    ProfileKey,
    data_store::{
        Cause, DataStore, DataStoreExt, KeyState, Links, Order, Returning, StoredVersion,
        VersionInfo, VersionQuery, VersionRef,
    },
    history::{
        Difference, NotUndone, comparable, diff, find_version, not_undone, version_at,
        version_label,
    },
    operator::Restored,
    record::Stored,
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    args::{App, ByArgs, KeyArg},
    operate::{Visit, failure, held_by},
    output::{
        Failure, Status, Table, ask, count, json_document, json_line, moment, note, out, say, size,
        time,
    },
};

const PAGE: usize = 256;

/// How much of a value `diff` shows to people, in characters.
const SHOWN_CHARS: usize = 160;

/// What is before a version string that could be a number or a time.
const LABEL: &str = "label:";

/// Which version is meant.
#[derive(Debug, Clone)]
pub(crate) struct VersionArg {
    text: String,
    name: Name,
}

#[derive(Debug, Clone, PartialEq)]
enum Name {
    Version(VersionRef),
    At(i64),
}

impl FromStr for VersionArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(label) = text.strip_prefix(LABEL) {
            return Ok(Self {
                text: text.to_owned(),
                name: Name::Version(VersionRef::Label(label.to_owned())),
            });
        }
        let number = text.parse().ok().map(|number| Name::Version(VersionRef::Number(number)));
        let name = number.or_else(|| moment(text).ok().map(Name::At));
        Ok(Self {
            text: text.to_owned(),
            name: name.unwrap_or_else(|| Name::Version(VersionRef::Label(text.to_owned()))),
        })
    }
}

/// A version string as it can be typed in: one that would be taken for something else says that it
/// is none.
pub(crate) fn typed(label: &str) -> String {
    let is_plain = label
        .parse::<VersionArg>()
        .is_ok_and(|read| read.name == Name::Version(VersionRef::Label(label.to_owned())));
    if is_plain { label.to_owned() } else { format!("{LABEL}{label}") }
}

impl VersionArg {
    pub(crate) async fn find(
        &self,
        store: &dyn DataStore,
        state: &KeyState,
    ) -> Result<StoredVersion, Failure> {
        let found = match &self.name {
            Name::Version(version) => find_version(store, state, version).await?,
            Name::At(unix_ms) => version_at(store, state, *unix_ms).await?,
        };
        found.ok_or_else(|| {
            let (key, text) = (&state.key, &self.text);
            Failure::NotFound(format!(
                "there is no such version, see history: key=`{key}` version=`{text}`"
            ))
        })
    }
}

/// What a key holds, or exit code 4.
async fn existing(
    store: &dyn DataStore,
    key: &ProfileKey,
    returning: Returning,
) -> Result<KeyState, Failure> {
    let (_, state) = store.read_one(key, returning).await?;
    match state.version {
        0 => Err(Failure::NotFound(format!("there is no such profile: key=`{key}`"))),
        _ => Ok(state),
    }
}

/// List the kept versions of a profile
///
/// The newest first. A version is kept when it is the first to be replaced in an hour, or for its
/// own sake (the end of a session, a rollback, an operator's change), for 30 days after it was
/// replaced; a pinned one until it is unpinned.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore history PlayerData/7
  profilestore history PlayerData/7 --since 2026-11-20 --until 2026-11-21T18:30:00Z --oldest-first
  profilestore history PlayerData/7 --limit 1 --json")]
pub(crate) struct History {
    #[command(flatten)]
    key: KeyArg,
    /// Only versions written at or after this time: 2026-11-21, 2026-11-21T14:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<i64>,
    /// Only versions written at or before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<i64>,
    /// The oldest first
    #[arg(long)]
    oldest_first: bool,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

impl History {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let key = self.key.parse()?;
        let store = app.place.open().await?;
        let created_ms = existing(&*store, &key, Returning::HEAD).await?.created_ms;
        let mut table = Table::new([
            "VERSION",
            "WRITTEN",
            "CAUSE",
            "AUTHOR",
            "SIZE",
            "VERSION \
            STRING",
        ]);
        let mut out = out();
        let mut left = self.limit.unwrap_or(usize::MAX);
        let mut query = VersionQuery {
            key,
            order: if self.oldest_first { Order::Ascending } else { Order::Descending },
            from_ms: self.since,
            to_ms: self.until,
            after: None,
            limit: PAGE,
        };
        while left > 0 {
            query.limit = left.min(PAGE);
            let page = store.versions(&query).await?;
            let rows = page.iter().map(|info| VersionRow::new(info, created_ms));
            match app.json {
                true => rows.into_iter().try_for_each(|row| json_line(&mut out, &row))?,
                false => table.page(&mut out, &rows.map(|row| cells(&row)).collect::<Vec<_>>())?,
            }
            if page.is_empty() && query.after.is_none() && !app.json {
                writeln!(out, "no version was written in that time")?;
            }
            left -= page.len().min(left);
            query.after = page.last().map(|info| info.number);
            if page.len() < query.limit {
                break;
            }
        }
        out.flush()?;
        Ok(Status::Fine)
    }
}

#[derive(Serialize)]
pub(crate) struct VersionRow<'a> {
    version: u64,
    label: String,
    written_ms: i64,
    stored_ms: i64,
    superseded_ms: Option<i64>,
    removed: bool,
    cause: Cause,
    author: &'a str,
    load_count: u64,
    pinned: bool,
    bytes: u64,
}

impl<'a> VersionRow<'a> {
    pub(crate) fn new(info: &'a VersionInfo, created_ms: i64) -> Self {
        Self {
            version: info.number,
            label: info
                .label
                .clone()
                .unwrap_or_else(|| version_label(info.written_ms, info.number, created_ms)),
            written_ms: info.written_ms,
            stored_ms: info.stored_ms,
            superseded_ms: info.superseded_ms,
            removed: info.removed,
            cause: info.cause,
            author: &info.author,
            load_count: info.load_count,
            pinned: info.pinned,
            bytes: info.bytes,
        }
    }
}

fn cells(row: &VersionRow<'_>) -> [String; 6] {
    let size = if row.removed { "removed".to_owned() } else { size(row.bytes) };
    let current = if row.superseded_ms.is_none() { " current" } else { "" };
    let number = format!("{}{current}{}", row.version, if row.pinned { " pinned" } else { "" });
    [
        number,
        time(row.written_ms),
        row.cause.as_str().to_owned(),
        row.author.to_owned(),
        size,
        typed(&row.label),
    ]
}

/// Show what differs between two versions of a profile
///
/// Compares the data, user ids and metadata. Without versions, the current one with the kept one
/// before it; with one, that one with the current one. `~` is changed, `-` gone and `+` added;
/// places are JSON pointers. What a live session has not saved yet is not seen. The exit code is 0
/// whether or not something differs.
#[derive(Debug, Args)]
#[command(after_help = "\
VERSION is a number, a version string (see history), or a time: the version that was current then.

Examples:
  profilestore diff PlayerData/7
  profilestore diff PlayerData/7 12
  profilestore diff PlayerData/7 2026-11-20T18:30:00Z 2026-11-21T18:30:00Z --json | jq '.differences[].path'")]
pub(crate) struct Diff {
    #[command(flatten)]
    key: KeyArg,
    /// The version before
    #[arg(value_name = "VERSION")]
    before: Option<VersionArg>,
    /// The version after; the current one by default
    #[arg(value_name = "VERSION")]
    after: Option<VersionArg>,
}

#[derive(Serialize)]
struct DiffRow<'a> {
    #[serde(flatten)]
    key: &'a ProfileKey,
    before: VersionRow<'a>,
    after: VersionRow<'a>,
    differences: &'a [Difference],
}

impl Diff {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let key = self.key.parse()?;
        let store = app.place.open().await?;
        let state = existing(&*store, &key, Returning { value: true, inbox_unless: None }).await?;
        let after = match &self.after {
            Some(which) => which.find(&*store, &state).await?,
            None => current(&*store, &state).await?,
        };
        let before = match &self.before {
            Some(which) => which.find(&*store, &state).await?,
            None => previous(&*store, &state, after.info.number).await?,
        };
        let differences = differences(&key, &before, &after)?;
        if app.json {
            let row = |version| VersionRow::new(version, state.created_ms);
            let (before, after) = (row(&before.info), row(&after.info));
            json_document(&DiffRow { key: &key, before, after, differences: &differences })?;
            return Ok(Status::Fine);
        }
        let mut out = out();
        writeln!(out, "{key}: {} -> {}", described(&before.info), described(&after.info))?;
        let mut rows = Vec::new();
        for Difference { path, before, after, .. } in &differences {
            let path = if path.is_empty() { "(all of it)" } else { path }.to_owned();
            let [sign, values] = match (before, after) {
                (Some(before), Some(after)) => {
                    ["~".to_owned(), format!("{} -> {}", shown(before), shown(after))]
                }
                (Some(before), None) => ["-".to_owned(), shown(before)],
                (None, after) => ["+".to_owned(), after.as_ref().map(shown).unwrap_or_default()],
            };
            rows.push([sign, path, values]);
        }
        Table::new(["", "WHERE", "WHAT"]).page(&mut out, &rows)?;
        writeln!(out, "{}", count(differences.len() as u64, "difference", "differences"))?;
        out.flush()?;
        Ok(Status::Fine)
    }
}

async fn current(store: &dyn DataStore, state: &KeyState) -> Result<StoredVersion, Failure> {
    let found = store.version(&state.key, &VersionRef::Number(state.version)).await?;
    found.ok_or_else(|| {
        Failure::Work(format!("the profile was changed meanwhile, try again: key=`{}`", state.key))
    })
}

/// The kept version before another one.
async fn previous(
    store: &dyn DataStore,
    state: &KeyState,
    number: u64,
) -> Result<StoredVersion, Failure> {
    let key = &state.key;
    let query = VersionQuery {
        key: key.clone(),
        order: Order::Descending,
        from_ms: None,
        to_ms: None,
        after: Some(number),
        limit: 1,
    };
    let none =
        || Failure::NotFound(format!("no earlier version is kept: key=`{key}` version=`{number}`"));
    let info = store.versions(&query).await?.pop().ok_or_else(none)?;
    store.version(key, &VersionRef::Number(info.number)).await?.ok_or_else(none)
}

fn differences(
    key: &ProfileKey,
    before: &StoredVersion,
    after: &StoredVersion,
) -> Result<Vec<Difference>, Failure> {
    let content = |version: &StoredVersion| {
        let unreadable = |error: &dyn std::fmt::Display| {
            let number = version.info.number;
            Failure::Work(format!(
                "the version cannot be compared: {error}: key=`{key}` version=`{number}`"
            ))
        };
        let stored = version
            .value
            .as_deref()
            .map(Stored::decode)
            .transpose()
            .map_err(|error| unreadable(&error))?;
        comparable(stored.as_ref()).map_err(|error| unreadable(&error))
    };
    Ok(diff(&content(before)?, &content(after)?))
}

fn described(info: &VersionInfo) -> String {
    format!(
        "version {} ({}, {} by {})",
        info.number,
        time(info.written_ms),
        info.cause.as_str(),
        info.author
    )
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Make an earlier version of a profile current again
///
/// It becomes a new version, byte for byte; what it replaces stays in the history, so a rollback
/// can itself be rolled back. Whatever session there is ends, and what it has not saved is lost.
/// Waiting messages stay. Booked in the audit log. What the profile did to others since is not
/// undone: messages that it sent and took, and trades are listed, by id and profile. (To make a store out of a backup, see restore.)
#[derive(Debug, Args)]
#[command(after_help = "\
VERSION is a number, a version string (see history), or a time: the version that was current then.

Examples:
  profilestore rollback PlayerData/7 12 --reason 'lost items, ticket 4711'
  profilestore rollback PlayerData/7 2026-11-20T18:30:00Z --yes")]
pub(crate) struct Rollback {
    #[command(flatten)]
    key: KeyArg,
    /// The version to go back to
    #[arg(value_name = "VERSION")]
    version: VersionArg,
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
        lines.extend(taken.iter().map(|id| format!("  {at}: took the message {id}")));
        lines.extend(
            sent.iter().map(|sent| format!("  {at}: sent the message {} to {}", sent.id, sent.to)),
        );
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
}

impl Rollback {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let key = self.key.parse()?;
        let by = self.by.attribution()?;
        let file = app.place.open().await?;
        let state = existing(&*file, &key, Returning::HEAD).await?;
        let version = self.version.find(&*file, &state).await?;
        if !self.yes {
            let since = not_undone(&*file, &key, version.info.number).await?;
            not_undone_lines(&since).into_iter().for_each(|line| note(format_args!("{line}")));
            // The current value may be what is wrong.
            let differences = current(&*file, &state)
                .await
                .and_then(|current| differences(&key, &current, &version));
            let changes = match differences {
                Ok(differences) => count(differences.len() as u64, "difference", "differences"),
                Err(_) => "differences that cannot be shown".to_owned(),
            };
            let session = held_by(&state)
                .map(|holder| format!(", ending the session on {holder}"))
                .unwrap_or_default();
            let (from, to) = (state.version, described(&version.info));
            if !ask(&format!("roll {key} back from version {from} to {to}, {changes}{session}?"))? {
                return Err(Failure::Work(format!("not rolled back: key=`{key}`")));
            }
        }
        let visit = Visit::on(app, file, by).await?;
        let done = visit.operator.restore(&key, VersionRef::Number(version.info.number)).await;
        visit.end().await;
        let done = done.map_err(failure)?;
        if app.json {
            json_document(&RollbackRow { key: &key, done })?;
        } else {
            let session = done
                .held_by
                .map(|job| format!("; the session on {job} is over"))
                .unwrap_or_default();
            say(format_args!(
                "{key} is at version {}, which is version {} again{session}",
                done.version, done.restored
            ))?;
            for line in not_undone_lines(&done.not_undone) {
                say(format_args!("{line}"))?;
            }
        }
        Ok(Status::Fine)
    }
}

/// Keep a version of a profile for good
///
/// A pinned version stays in the history whatever its age, until it is unpinned with --remove.
/// Booked in the audit log.
#[derive(Debug, Args)]
#[command(after_help = "\
VERSION is a number, a version string (see history), or a time: the version that was current then.

Examples:
  profilestore pin PlayerData/7 12 --reason 'evidence, ticket 4711'
  profilestore pin PlayerData/7 12 --remove")]
pub(crate) struct Pin {
    #[command(flatten)]
    key: KeyArg,
    /// The version to keep
    #[arg(value_name = "VERSION")]
    version: VersionArg,
    /// Give it free again
    #[arg(long)]
    remove: bool,
    #[command(flatten)]
    by: ByArgs,
}

#[derive(Serialize)]
struct PinRow<'a> {
    #[serde(flatten)]
    key: &'a ProfileKey,
    version: u64,
    pinned: bool,
}

impl Pin {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let key = self.key.parse()?;
        let by = self.by.attribution()?;
        let file = app.place.open().await?;
        let state = existing(&*file, &key, Returning::HEAD).await?;
        let number = self.version.find(&*file, &state).await?.info.number;
        let visit = Visit::on(app, file, by).await?;
        let done = visit.operator.pin(&key, VersionRef::Number(number), !self.remove).await;
        visit.end().await;
        let info = done.map_err(failure)?;
        if app.json {
            json_document(&PinRow { key: &key, version: info.number, pinned: info.pinned })?;
        } else {
            say(format_args!(
                "version {} of {key} is {}",
                info.number,
                if info.pinned { "pinned" } else { "no longer pinned" }
            ))?;
        }
        Ok(Status::Fine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_named_by_number_string_or_time() {
        let name = |text: &str| text.parse::<VersionArg>().unwrap().name;
        assert_eq!(name("12"), Name::Version(VersionRef::Number(12)));
        let label = "000001A0C4506C2A.0000000001.000001A0C4506C2A.01";
        assert_eq!(name(label), Name::Version(VersionRef::Label(label.into())));
        assert_eq!(name("1970-01-02"), Name::At(86_400_000));
        assert_eq!(name("1970-01-01T00:00:01Z"), Name::At(1000));
        for label in ["12", "1970-01-02", "label:12", "a b", label] {
            assert_eq!(
                name(&typed(label)),
                Name::Version(VersionRef::Label(label.into())),
                "{label}"
            );
        }
        assert_eq!(typed(label), label);
    }
}
