//! Searching by value: which profiles, and how far the search has come.

use std::{io::IsTerminal, time::Duration};

use clap::Args;
use indicatif::ProgressBar;
use profilestore::{
    ProfileKey,
    data_store::{DataStore, KeyFilter, KeyQuery, KeyState},
    filter::{Filter, ScanLimits, UnreadableProfile, scan},
};
use tokio::time::Instant;

use crate::output::{Failure, Status, bar_style, count, note};

/// How many keys are looked at before the search says how far it is, and how long at most.
const PAGE: usize = 4096;
const SAY_AFTER: Duration = Duration::from_millis(200);

/// How often a line says how far the search is where no bar can be drawn.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Which profiles are meant, by their data.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Where {
    /// Only profiles whose saved data matches, such as '/coins > 1e9 and has /items/sword'. There
    /// is no index on values: every profile is read. The page docs/search.md has the language
    #[arg(long = "where", value_name = "SEARCH")]
    pub(crate) filter: Option<Filter>,
}

/// A search that is under way.
pub(crate) struct Search {
    filter: Filter,
    pub(crate) bar: ProgressBar,
    quiet: bool,
    began: Instant,
    said: Instant,
    looked_at: u64,
    matches: u64,
    unreadable: Vec<UnreadableProfile>,
}

impl Search {
    /// Says at once that everything will be looked at.
    pub(crate) fn begin(filter: Filter, query: &KeyQuery, quiet: bool) -> Self {
        if !quiet {
            note(format_args!("{}", says_scan(query)));
        }
        let now = Instant::now();
        Self {
            filter,
            bar: scan_bar(),
            quiet,
            began: now,
            said: now,
            looked_at: 0,
            matches: 0,
            unreadable: Vec::new(),
        }
    }

    /// The matches among the next keys, at most so many, and where to go on.
    pub(crate) async fn page(
        &mut self,
        store: &dyn DataStore,
        query: &KeyQuery,
        matches: usize,
    ) -> Result<(Vec<KeyState>, Option<ProfileKey>), Failure> {
        let query = KeyQuery { limit: PAGE, ..query.clone() };
        let limits = ScanLimits { matches, until: Some(Instant::now() + SAY_AFTER) };
        let page = scan(store, &query, &self.filter, limits).await?;
        self.looked_at += page.looked_at;
        self.matches += page.matches.len() as u64;
        self.unreadable.extend(page.unreadable);
        self.bar.set_position(self.looked_at);
        self.bar.set_message(count(self.matches, "match", "matches"));
        if self.bar.is_hidden() && !self.quiet && self.said.elapsed() >= LINE_EVERY {
            self.said = Instant::now();
            note(format_args!("{}", self.so_far()));
        }
        Ok((page.matches, page.next))
    }

    /// Ends the search, and says what it saw.
    pub(crate) fn finish(self) -> Status {
        self.bar.finish_and_clear();
        if !self.quiet {
            note(format_args!("{}", self.so_far()));
        }
        for UnreadableProfile { key, why } in &self.unreadable {
            note(format_args!("left out, it cannot be read: {key}: {why}"));
        }
        if self.unreadable.is_empty() { Status::Fine } else { Status::Problems }
    }

    fn so_far(&self) -> String {
        format!(
            "looked at {} in {:.1} s: {}",
            count(self.looked_at, "key", "keys"),
            self.began.elapsed().as_secs_f64(),
            count(self.matches, "match", "matches")
        )
    }
}

/// What a search by value does, before it begins.
pub(crate) fn says_scan(query: &KeyQuery) -> String {
    let narrowed = match &query.filter {
        KeyFilter::Prefix(prefix) => format!(" whose key begins with `{prefix}`"),
        KeyFilter::User(user) => format!(" of user {user}"),
        KeyFilter::Held => " that is held".to_owned(),
        _ => String::new(),
    };
    let of = query.store.as_ref().map(|store| format!(" in {store}")).unwrap_or_default();
    format!("scan: there is no index on values, so every profile{of}{narrowed} is read")
}

/// On stderr, from the first moment, when that is a terminal.
pub(crate) fn scan_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = bar_style("{spinner} scan: {human_pos} keys  {rate}  {msg}");
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
