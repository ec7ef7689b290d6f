//! `diff`: what differs between two versions of a profile.

use std::io::Write;

use clap::Args;
use profilestore::{
    ProfileKey,
    data_store::{DataStore, KeyState, Order, Returning, StoredVersion, VersionQuery, VersionRef},
    filter::JsonPath,
    history::{Difference, comparable, diff},
    record::Stored,
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    app::App,
    given::KeyArg,
    output::{Failure, Status, Table, count, json_document, out, text},
    versions::{VersionArg, VersionRow, described, existing},
};

/// How much of a value is shown to people, in characters.
const SHOWN_CHARS: usize = 160;

/// Show what differs between two versions of a profile
///
/// Compares the data, user ids and metadata. Without versions, the current one with the kept one
/// before it; with one, that one with the current one. `~` is changed, `-` gone and `+` added;
/// places are JSON pointers. What a live session has not saved yet is not seen. The exit code is 0
/// whether or not something differs.
#[derive(Debug, Args)]
#[command(after_help = "\
VERSION is a number, a version string (see history), or a time: the version that was current at its
end. 14:31 includes all of its minute, 14:31:24 all of its second, a date all of its day.

Examples:
  profilestore diff PlayerData/7
  profilestore diff PlayerData/7 12
  profilestore diff PlayerData/7 12 --path /inventory
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
    /// Only what differs at this place of the data, a JSON pointer such as /inventory
    #[arg(long, value_name = "/PATH")]
    path: Option<JsonPath>,
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
        let state = existing(&*store, &key, Returning::HEAD).await?;
        let after = match &self.after {
            Some(which) => which.find(&*store, &state).await?,
            None => current(&*store, &state).await?,
        };
        let before = match &self.before {
            Some(which) => which.find(&*store, &state).await?,
            None => previous(&*store, &state, after.info.number).await?,
        };
        let mut differences = differences(&key, &before, &after)?;
        if let Some(path) = self.path.map(|path| path.below("Data")) {
            differences.retain(|found| {
                found.path.parse::<JsonPath>().is_ok_and(|there| there.touches(&path))
            });
        }
        if app.json {
            let row = |version| VersionRow::new(version, state.created_ms);
            let (before, after) = (row(&before.info), row(&after.info));
            json_document(&DiffRow { key: &key, before, after, differences: &differences })?;
            return Ok(Status::Fine);
        }
        let mut out = out();
        text(
            &mut out,
            format_args!("{key}: {} -> {}", described(&before.info), described(&after.info)),
        )?;
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
        text(
            &mut out,
            format_args!("{}", count(differences.len() as u64, "difference", "differences")),
        )?;
        out.flush()?;
        Ok(Status::Fine)
    }
}

pub(crate) async fn current(
    store: &dyn DataStore,
    state: &KeyState,
) -> Result<StoredVersion, Failure> {
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

pub(crate) fn differences(
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

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
