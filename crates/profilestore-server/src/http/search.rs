//! Lists of profiles, and search by value: profiles whose saved data matches.
//!
//! There is no index on values, nor on when they were stored. So each answer looks at some keys
//! only, and for a bounded time, and says where to go on.

use std::{collections::BTreeMap, time::Duration};

use profilestore::{
    ProfileKey,
    data_store::{DataStoreExt as _, KeyQuery, KeyState, Returning},
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

/// How many inboxes are read at once.
const INBOXES: usize = 32;

/// How long one answer looks. A piece that is under way then is finished.
const TIME: Duration = Duration::from_secs(1);

/// After how many keys a search by value gives way to play, and for how many times as long as it
/// took to look at them: it works a quarter of the time at most while game servers are connected.
const SLICE: usize = 512;
const REST: u32 = 3;

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
    /// By looking at one after the other: with `where`, with `messages_waiting`, and with
    /// `updated_since` unless `user` or `held` is beside it.
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
    /// How many messages wait for them, where that was asked for.
    pub(super) waiting: BTreeMap<ProfileKey, u64>,
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
    mut query: KeyQuery,
    filter: &Filter,
) -> Result<Scanned, Problem> {
    let (most, until) = (query.limit, app.env().now() + TIME);
    let (mut found, mut left) = (Scanned::default(), MAX_KEYS);
    loop {
        let began = app.env().now();
        query.limit = SLICE.min(left);
        left -= query.limit;
        let limits = ScanLimits { matches: most - found.matches.len(), until: Some(until) };
        let page = scan(app.store(), &query, filter, limits).await?;
        found.scanned += page.looked_at;
        found.matches.extend(page.matches);
        found.unreadable.extend(page.unreadable);
        found.next = page.next;
        let (now, is_enough) = (app.env().now(), found.matches.len() >= most);
        if found.next.is_none() || is_enough || left == 0 || now >= until {
            return Ok(found);
        }
        if app.hub().connected() > 0 {
            let rest = now.saturating_duration_since(began) * REST;
            tokio::time::sleep_until(until.min(now + rest)).await;
        }
        query.after.clone_from(&found.next);
    }
}

/// How many messages wait, for those of some keys for which there are any. Operators' edits that
/// wait for a game server are no messages.
pub(super) async fn waiting(
    app: &App,
    states: &[KeyState],
) -> Result<BTreeMap<ProfileKey, u64>, Problem> {
    let had = states.iter().filter(|state| state.last_message > 0);
    let keys: Vec<ProfileKey> = had.map(|state| state.key.clone()).collect();
    let mut waiting = BTreeMap::new();
    for some in keys.chunks(INBOXES) {
        for state in app.store().read(some, Returning::INBOX).await?.states {
            let inbox = state.inbox.as_deref().unwrap_or_default();
            let many = inbox.iter().filter(|message| !message.id.is_edit()).count();
            if many > 0 {
                waiting.insert(state.key, many as u64);
            }
        }
    }
    Ok(waiting)
}

/// The keys of a query that are wanted, as many as it wants, among as many as one answer looks at.
/// With `with_messages` only those for which messages wait.
pub(super) async fn list(
    app: &App,
    mut query: KeyQuery,
    with_messages: bool,
    wanted: impl Fn(&KeyState) -> bool,
) -> Result<Scanned, Problem> {
    let (most, until) = (query.limit, app.env().now() + TIME);
    let mut found = Scanned::default();
    loop {
        let (states, next) = app.store().profiles(&query).await?;
        if with_messages {
            found.waiting.append(&mut waiting(app, &states).await?);
        }
        for state in states {
            found.scanned += 1;
            let waits = !with_messages || found.waiting.contains_key(&state.key);
            if waits && wanted(&state) {
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
