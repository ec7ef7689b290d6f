//! `list`: which profiles a store holds.

use std::io::Write;

use clap::Args;
use profilestore::{
    ProfileKey, UserId,
    data_store::{DataStore, DataStoreExt, Holder, KeyFilter, KeyQuery, KeyState},
};
use serde::Serialize;

use crate::{
    app::App,
    given::{at_least_one, plain_name, profile_key},
    output::{Failure, Status, Table, count, json_document, json_line, note, out, say, size},
    search::{Search, Where},
    times::time,
    versions::cause,
};

const PAGE: usize = 256;

/// How many of the newest are shown, and so held in memory, when it is not said.
const NEWEST: usize = 1000;

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
  profilestore list --newest --limit 20
  profilestore list --store-name PlayerData --where '/coins > 1e9 and not /banned = true'")]
pub(crate) struct List {
    /// Only this store's profiles
    #[arg(long, value_parser = plain_name, value_name = "NAME")]
    store_name: Option<String>,
    /// Only this scope's profiles
    #[arg(long, value_parser = plain_name)]
    scope: Option<String>,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    by_value: Where,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    limit: Option<usize>,
    /// Go on behind this one: STORE/KEY, or STORE/SCOPE/KEY
    #[arg(long, value_name = "KEY")]
    after: Option<String>,
    /// Those written last first; without --limit the last 1,000
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
    #[arg(long, value_parser = plain_name)]
    prefix: Option<String>,
    /// Only profiles associated with this user
    #[arg(long, value_name = "ID")]
    user: Option<UserId>,
    /// Only profiles that a session holds, or that are kept free for one
    #[arg(long)]
    held: bool,
}

impl Which {
    fn filter(self) -> KeyFilter {
        match self {
            Self { prefix: Some(prefix), .. } => KeyFilter::Prefix(prefix),
            Self { user: Some(user), .. } => user.keys(),
            Self { held: true, .. } => KeyFilter::Held,
            _ => KeyFilter::All,
        }
    }
}

impl List {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let store = app.place.open().await?;
        let query = KeyQuery {
            store: self.store_name,
            scope: self.scope,
            filter: self.which.filter(),
            after: self.after.as_deref().map(|key| profile_key(key, None)).transpose()?,
            limit: PAGE,
        };
        let search = self.by_value.filter.map(|filter| Search::begin(filter, &query, app.json));
        let mut pages = Pages { store: &*store, query, last: false, search };
        let most = self.limit.unwrap_or(usize::MAX);
        match (self.count, self.newest) {
            (true, _) => count_all(app, &mut pages).await?,
            (_, true) => {
                let most = self.limit.unwrap_or(NEWEST);
                let (newest, more) = newest(&mut pages, most).await?;
                let mut rows = Rows::new(app);
                rows.show(&newest)?;
                rows.end()?;
                say_if_none(app, newest.len());
                if more && self.limit.is_none() {
                    note(format_args!("these are the newest {NEWEST}; for more say --limit"));
                }
            }
            _ => list_all(app, &mut pages, most).await?,
        }
        Ok(pages.search.map_or(Status::Fine, Search::finish))
    }
}

/// The profiles that are meant, page by page.
struct Pages<'a> {
    store: &'a dyn DataStore,
    query: KeyQuery,
    last: bool,
    search: Option<Search>,
}

impl Pages<'_> {
    /// The next ones, at most so many; there may be none among them. None: that was all.
    async fn next(&mut self, most: usize) -> Result<Option<Vec<KeyState>>, Failure> {
        if self.last {
            return Ok(None);
        }
        let (page, next) = match &mut self.search {
            Some(search) => search.page(self.store, &self.query, most).await?,
            None => {
                self.query.limit = most.min(PAGE);
                self.store.profiles(&self.query).await?
            }
        };
        self.last = next.is_none();
        self.query.after = next;
        Ok(Some(page))
    }

    /// Writes while no bar is in the way.
    fn write<R>(&self, write: impl FnOnce() -> R) -> R {
        match &self.search {
            Some(search) => search.bar.suspend(write),
            None => write(),
        }
    }
}

/// Writes profiles, as text or as JSON.
struct Rows {
    json: bool,
    table: Table<7>,
}

impl Rows {
    fn new(app: &App) -> Self {
        let head = ["KEY", "VERSION", "UPDATED", "SIZE", "CAUSE", "AUTHOR", "SESSION"];
        Self { json: app.json, table: Table::new(head).soft([4, 5, 6, 3]) }
    }

    fn show(&mut self, page: &[KeyState]) -> Result<(), Failure> {
        let mut out = out();
        match self.json {
            true => page.iter().try_for_each(|state| json_line(&mut out, &KeyRow::new(state)))?,
            false => {
                self.table.page(&mut out, &page.iter().map(key_cells).collect::<Vec<_>>())?;
            }
        }
        Ok(out.flush()?)
    }

    fn end(&self) -> Result<(), Failure> {
        self.table.end(&mut out())
    }
}

async fn list_all(app: &App, pages: &mut Pages<'_>, most: usize) -> Result<(), Failure> {
    let (mut rows, mut left) = (Rows::new(app), most);
    while left > 0 {
        let Some(page) = pages.next(left).await? else { break };
        pages.write(|| rows.show(&page))?;
        left -= page.len().min(left);
    }
    pages.write(|| {
        say_if_none(app, most - left);
        rows.end()
    })
}

/// An empty list is no mistake of the terminal.
fn say_if_none(app: &App, shown: usize) {
    if shown == 0 && !app.json {
        note(format_args!("no profile matches"));
    }
}

#[derive(Serialize)]
struct CountRow {
    count: u64,
}

async fn count_all(app: &App, pages: &mut Pages<'_>) -> Result<(), Failure> {
    let mut found = 0;
    while let Some(page) = pages.next(usize::MAX).await? {
        found += page.len() as u64;
    }
    pages.write(|| match app.json {
        true => json_document(&CountRow { count: found }),
        false => say(format_args!("{}", count(found, "profile", "profiles"))),
    })
}

/// The profiles that were written last, and whether there are others. No more than are wanted are
/// held in memory.
async fn newest(pages: &mut Pages<'_>, most: usize) -> Result<(Vec<KeyState>, bool), Failure> {
    let (mut newest, mut more): (Vec<KeyState>, _) = (Vec::new(), false);
    while let Some(page) = pages.next(usize::MAX).await? {
        newest.extend(page);
        newest.sort_by_key(|state| {
            std::cmp::Reverse(state.head.as_ref().map(|head| head.written_ms))
        });
        more |= newest.len() > most;
        newest.truncate(most);
    }
    Ok((newest, more))
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
