//! `history` and `pin`: a profile's earlier versions.

use clap::Args;
use profilestore::{
    ProfileKey,
    data_store::{Order, Returning, StoreError, VersionInfo, VersionQuery, VersionRef},
    filter::{JsonPath, value_at},
    record::Stored,
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    app::App,
    given::{ByArgs, KeyArg, at_least_one},
    operate::{Visit, failure},
    output::{Failure, Status, Table, cut, json_document, json_line, out, say, text},
    place::Store,
    times::{Span, span, time},
    versions::{VersionArg, VersionRow, cause, cells, described, existing, numbered},
};

const PAGE: usize = 256;

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
  profilestore history PlayerData/7 --path /coins --since yesterday
  profilestore history PlayerData/7 --limit 1 --json")]
pub(crate) struct History {
    #[command(flatten)]
    key: KeyArg,
    /// Only versions written at or after this time: 2026-11-21, 2026-11-21 14:00, 2h, yesterday
    #[arg(long, value_name = "TIME", value_parser = span)]
    since: Option<Span>,
    /// Only versions written at or before this time, to the end of what is given of it
    #[arg(long, value_name = "TIME", value_parser = span)]
    until: Option<Span>,
    /// The oldest first
    #[arg(long)]
    oldest_first: bool,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    limit: Option<usize>,
    /// Also what each version has at this place of the data, a JSON pointer such as /coins
    #[arg(long, value_name = "/PATH")]
    path: Option<JsonPath>,
}

impl History {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let key = self.key.parse()?;
        let store = app.place.open().await?;
        let created_ms = existing(&*store, &key, Returning::HEAD).await?.created_ms;
        if let Some(path) = &self.path {
            return self.values(app, &store, key, path).await;
        }
        let mut table =
            Table::new(["VERSION", "WRITTEN", "CAUSE", "AUTHOR", "SIZE", "VERSION STRING"])
                .soft([4, 2, 3])
                .spare(5);
        let mut out = out();
        let mut left = self.limit.unwrap_or(usize::MAX);
        let mut query = self.query(key);
        while left > 0 {
            query.limit = left.min(PAGE);
            let page = store.versions(&query).await?;
            let rows = page.iter().map(|info| VersionRow::new(info, created_ms));
            match app.json {
                true => rows.into_iter().try_for_each(|row| json_line(&mut out, &row))?,
                false => table.page(&mut out, &rows.map(|row| cells(&row)).collect::<Vec<_>>())?,
            }
            if page.is_empty() && query.after.is_none() && !app.json {
                text(&mut out, format_args!("no version was written in that time"))?;
            }
            left -= page.len().min(left);
            query.after = page.last().map(|info| info.number);
            if page.len() < query.limit {
                break;
            }
        }
        table.end(&mut out)?;
        Ok(Status::Fine)
    }

    fn query(&self, key: ProfileKey) -> VersionQuery {
        VersionQuery {
            key,
            order: if self.oldest_first { Order::Ascending } else { Order::Descending },
            from_ms: self.since.map(|span| span.first_ms),
            to_ms: self.until.map(|span| span.last_ms),
            after: None,
            limit: PAGE,
        }
    }

    /// The versions with what each has at a place of its data.
    async fn values(
        &self,
        app: &App,
        store: &Store,
        key: ProfileKey,
        path: &JsonPath,
    ) -> Result<Status, Failure> {
        let mut table = Table::new(["VERSION", "WRITTEN", "CAUSE", "AUTHOR", "VALUE"]).soft([4, 3]);
        let (mut out, mut left) = (out(), self.limit.unwrap_or(usize::MAX));
        let mut query = self.query(key);
        query.limit = VALUES_AT_ONCE;
        while left > 0 {
            query.limit = left.min(VALUES_AT_ONCE);
            let page = store.versions(&query).await?;
            for info in &page {
                let value = value_of(store, &query.key, info, path).await?;
                if app.json {
                    json_line(&mut out, &ValueRow::new(info, &value))?;
                    continue;
                }
                let value = match &value {
                    Found::Value(value) => cut(value.get(), VALUE_CHARS),
                    Found::Nothing => "nothing".to_owned(),
                    Found::Damaged => "damaged".to_owned(),
                };
                let row = [
                    numbered(info.number, info.superseded_ms, info.pinned),
                    time(info.written_ms),
                    cause(info.cause).to_owned(),
                    info.author.clone(),
                    value,
                ];
                table.page(&mut out, &[row])?;
            }
            left -= page.len().min(left);
            query.after = page.last().map(|info| info.number);
            if page.len() < query.limit {
                break;
            }
        }
        table.end(&mut out)?;
        Ok(Status::Fine)
    }
}

const VALUES_AT_ONCE: usize = 32;
const VALUE_CHARS: usize = 200;

/// What a version has at a place.
enum Found {
    Value(Box<RawValue>),
    Nothing,
    /// The version cannot be read.
    Damaged,
}

#[derive(Serialize)]
struct ValueRow<'a> {
    version: u64,
    written_ms: i64,
    cause: &'static str,
    author: &'a str,
    /// False: nothing is there. None: the version is damaged.
    found: Option<bool>,
    value: Option<&'a RawValue>,
}

impl<'a> ValueRow<'a> {
    fn new(info: &'a VersionInfo, value: &'a Found) -> Self {
        let (found, value) = match value {
            Found::Value(value) => (Some(true), Some(&**value)),
            Found::Nothing => (Some(false), None),
            Found::Damaged => (None, None),
        };
        let (cause, author) = (info.cause.as_str(), &*info.author);
        Self { version: info.number, written_ms: info.written_ms, cause, author, found, value }
    }
}

async fn value_of(
    store: &Store,
    key: &ProfileKey,
    info: &VersionInfo,
    path: &JsonPath,
) -> Result<Found, Failure> {
    let bytes = match store.version(key, &VersionRef::Number(info.number)).await {
        Ok(version) => version.and_then(|version| version.value),
        Err(StoreError::Damaged { .. }) => return Ok(Found::Damaged),
        Err(error) => return Err(error.into()),
    };
    let found = match bytes.as_deref().map(Stored::decode).transpose() {
        Ok(Some(Stored::Profile(record))) => value_at(&record.data, path)?.map(ToOwned::to_owned),
        Ok(Some(Stored::Foreign(foreign))) => {
            value_at(&foreign.value, path)?.map(ToOwned::to_owned)
        }
        Ok(_) => None,
        Err(_) => return Ok(Found::Damaged),
    };
    Ok(found.map_or(Found::Nothing, Found::Value))
}

/// Keep a version of a profile for good
///
/// A pinned version stays in the history whatever its age, until it is unpinned with --remove.
/// Booked in the audit log.
#[derive(Debug, Args)]
#[command(after_help = "\
VERSION is a number, a version string (see history), or a time: the version that was current at its
end. 14:31 includes all of its minute, 14:31:24 all of its second, a date all of its day.

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
                "{} of {key} is {}",
                described(&info),
                if info.pinned { "pinned" } else { "no longer pinned" }
            ))?;
        }
        Ok(Status::Fine)
    }
}
