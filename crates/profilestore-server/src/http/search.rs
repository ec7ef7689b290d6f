//! Lists of profiles, and search by value: profiles whose saved data matches.
//!
//! There is no index on values, nor on when they were stored. So each answer looks at some keys
//! only, and for a bounded time, and says where to go on.

use std::time::Duration;

use profilestore::{
    ProfileKey,
    data_store::{DataStoreExt as _, KeyQuery, KeyState},
    filter::{Filter, ScanLimits, UnreadableProfile, scan},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::views::ProfileRow;
use crate::{app::App, problem::Problem};

/// How many keys one answer looks at.
const MAX_KEYS: usize = 5000;

/// How many keys are read at once when most of them are not wanted.
const PIECE: usize = 500;

/// How long one answer looks. A piece that is under way then is finished.
const TIME: Duration = Duration::from_secs(1);

/// A page of profiles.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Found {
    /// What was found; perhaps nothing although there is more.
    pub(super) items: Vec<ProfileRow>,
    /// How it was found.
    pub(super) found_by: FoundBy,
    /// How many keys were looked at for this answer, those that do not match included.
    pub(super) scanned: u64,
    /// Profiles of which the search cannot tell, because their data cannot be read.
    pub(super) unreadable: Vec<Unreadable>,
    /// For the next page. None: this was the last one.
    pub(super) next_page_token: Option<String>,
}

/// How profiles were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum FoundBy {
    /// In an index, by their keys, users or holders.
    Index,
    /// By looking at one after the other: with `where`, and with `updated_since` unless `user` or
    /// `held` is beside it.
    Scan,
}

/// A profile whose data cannot be read.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Unreadable {
    /// Its full name.
    profile: String,
    /// What is wrong with it.
    why: String,
}

/// What a scan found.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub(super) matches: Vec<KeyState>,
    pub(super) scanned: u64,
    pub(super) unreadable: Vec<UnreadableProfile>,
    pub(super) next: Option<ProfileKey>,
}

impl From<UnreadableProfile> for Unreadable {
    fn from(profile: UnreadableProfile) -> Self {
        Self { profile: profile.key.to_string(), why: profile.why }
    }
}

/// The search that a text says.
pub(super) fn filter(text: &str) -> Result<Filter, Problem> {
    Ok(text.parse()?)
}

/// The profiles among the next keys whose data matches, as many as the query wants.
pub(super) async fn search(
    app: &App,
    query: KeyQuery,
    filter: &Filter,
) -> Result<Scanned, Problem> {
    let limits = ScanLimits { matches: query.limit, until: Some(app.env().now() + TIME) };
    let query = KeyQuery { limit: MAX_KEYS, ..query };
    let page = scan(app.store(), &query, filter, limits).await?;
    Ok(Scanned {
        matches: page.matches,
        scanned: page.looked_at,
        unreadable: page.unreadable,
        next: page.next,
    })
}

/// The keys of a query that are wanted, as many as it wants, among as many as one answer looks at.
pub(super) async fn list(
    app: &App,
    mut query: KeyQuery,
    wanted: impl Fn(&KeyState) -> bool,
) -> Result<Scanned, Problem> {
    let (most, until) = (query.limit, app.env().now() + TIME);
    let mut found = Scanned::default();
    loop {
        let (states, next) = app.store().profiles(&query).await?;
        for state in states {
            found.scanned += 1;
            if wanted(&state) {
                found.next = Some(state.key.clone());
                found.matches.push(state);
            }
            if found.matches.len() >= most {
                return Ok(found);
            }
        }
        found.next.clone_from(&next);
        if next.is_none() || found.scanned >= MAX_KEYS as u64 || app.env().now() >= until {
            return Ok(found);
        }
        query = KeyQuery { after: next, limit: PIECE, ..query };
    }
}
