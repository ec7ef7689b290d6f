//! `list`: which profiles a store holds.

use std::io::Write;

use clap::Args;
use profilestore::{
    ProfileKey,
    data_store::{DataStore, DataStoreExt, Holder, KeyFilter, KeyQuery, KeyState},
};
use serde::Serialize;

use crate::{
    args::{App, profile_key},
    output::{Failure, Status, Table, count, json_document, json_line, out, say, size},
    times::time,
    versions::cause,
};

const PAGE: usize = 256;

/// List profiles
///
/// Ordered by store, scope and key. Removed profiles are among them, and keys that so far have only
/// messages waiting.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore list --store-name PlayerData --prefix 12
  profilestore list --user 261 --json
  profilestore list --held --count
  profilestore list --newest --limit 20")]
pub(crate) struct List {
    /// Only this store's profiles
    #[arg(long, value_name = "NAME")]
    store_name: Option<String>,
    /// Only this scope's profiles
    #[arg(long)]
    scope: Option<String>,
    #[command(flatten)]
    which: Which,
    /// At most so many
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Go on behind this one: STORE/KEY, or STORE/SCOPE/KEY
    #[arg(long, value_name = "KEY")]
    after: Option<String>,
    /// Those written last first
    #[arg(long, conflicts_with = "after")]
    newest: bool,
    /// Only how many there are
    #[arg(long, conflicts_with_all = ["limit", "newest"])]
    count: bool,
}

/// Which keys are meant.
#[derive(Debug, Default, Args)]
#[group(multiple = false)]
struct Which {
    /// Only keys that begin with this
    #[arg(long)]
    prefix: Option<String>,
    /// Only profiles associated with this user
    #[arg(long, value_name = "ID")]
    user: Option<i64>,
    /// Only profiles that a session holds, or that are kept free for one
    #[arg(long)]
    held: bool,
}

impl Which {
    fn filter(self) -> KeyFilter {
        match self {
            Self { prefix: Some(prefix), .. } => KeyFilter::Prefix(prefix),
            Self { user: Some(user), .. } => KeyFilter::User(user),
            Self { held: true, .. } => KeyFilter::Held,
            _ => KeyFilter::All,
        }
    }
}

impl List {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let store = app.place.open().await?;
        let mut table =
            Table::new(["KEY", "VERSION", "UPDATED", "SIZE", "CAUSE", "AUTHOR", "SESSION"]);
        let mut out = out();
        let mut left = self.limit.unwrap_or(usize::MAX);
        let mut query = KeyQuery {
            store: self.store_name,
            scope: self.scope,
            filter: self.which.filter(),
            after: self.after.as_deref().map(|key| profile_key(key, None)).transpose()?,
            limit: PAGE,
        };
        if self.count {
            return count_all(app, &*store, query).await;
        }
        if self.newest {
            let newest = newest(&*store, query, left).await?;
            match app.json {
                true => {
                    newest.iter().try_for_each(|state| json_line(&mut out, &KeyRow::new(state)))?
                }
                false => table.page(&mut out, &newest.iter().map(key_cells).collect::<Vec<_>>())?,
            }
            return Ok(out.flush().map(|()| Status::Fine)?);
        }
        while left > 0 {
            query.limit = left.min(PAGE);
            let (page, next) = store.profiles(&query).await?;
            match app.json {
                true => {
                    page.iter().try_for_each(|state| json_line(&mut out, &KeyRow::new(state)))?
                }
                false => table.page(&mut out, &page.iter().map(key_cells).collect::<Vec<_>>())?,
            }
            left -= page.len().min(left);
            if next.is_none() {
                break;
            }
            query.after = next;
        }
        out.flush()?;
        Ok(Status::Fine)
    }
}

#[derive(Serialize)]
struct CountRow {
    count: u64,
}

async fn count_all(
    app: &App,
    store: &dyn DataStore,
    mut query: KeyQuery,
) -> Result<Status, Failure> {
    let mut found = 0;
    loop {
        let (page, next) = store.profiles(&query).await?;
        found += page.len() as u64;
        query.after = next;
        if query.after.is_none() {
            break;
        }
    }
    match app.json {
        true => json_document(&CountRow { count: found })?,
        false => say(format_args!("{}", count(found, "profile", "profiles")))?,
    }
    Ok(Status::Fine)
}

/// The profiles that were written last. No more than are wanted are held in memory.
async fn newest(
    store: &dyn DataStore,
    mut query: KeyQuery,
    limit: usize,
) -> Result<Vec<KeyState>, Failure> {
    let mut newest: Vec<KeyState> = Vec::new();
    loop {
        let (page, next) = store.profiles(&query).await?;
        newest.extend(page);
        newest.sort_by_key(|state| {
            std::cmp::Reverse(state.head.as_ref().map(|head| head.written_ms))
        });
        newest.truncate(limit);
        query.after = next;
        if query.after.is_none() {
            return Ok(newest);
        }
    }
}

#[derive(Serialize)]
struct KeyRow<'a> {
    #[serde(flatten)]
    key: &'a ProfileKey,
    /// 0: nothing was written yet, but messages may be waiting.
    version: u64,
    removed: bool,
    created_ms: i64,
    updated_ms: Option<i64>,
    bytes: Option<u64>,
    cause: Option<&'static str>,
    author: Option<&'a str>,
    load_count: u64,
    last_message: u64,
    holder: Option<&'a Holder>,
}

impl<'a> KeyRow<'a> {
    fn new(state: &'a KeyState) -> Self {
        let head = state.head.as_ref();
        Self {
            key: &state.key,
            version: state.version,
            removed: head.is_some_and(|head| head.removed),
            created_ms: state.created_ms,
            updated_ms: head.map(|head| head.written_ms),
            bytes: head.map(|head| head.bytes),
            cause: head.map(|head| head.cause.as_str()),
            author: head.map(|head| head.author.as_str()),
            load_count: state.lease.load_count,
            last_message: state.last_message,
            holder: state.lease.holder.as_ref(),
        }
    }
}

fn key_cells(state: &KeyState) -> [String; 7] {
    let holder = state.lease.holder.as_ref().map_or("-", |holder| &holder.job_id).to_owned();
    match &state.head {
        None => {
            let [none, updated, size, cause, author] = ["-"; 5].map(str::to_owned);
            [state.key.to_string(), none, updated, size, cause, author, holder]
        }
        Some(head) => [
            state.key.to_string(),
            head.number.to_string(),
            time(head.written_ms),
            if head.removed { "removed".to_owned() } else { size(head.bytes) },
            cause(head.cause).to_owned(),
            head.author.clone(),
            holder,
        ],
    }
}
