//! Lists of profiles, and search by value: profiles whose saved data matches.
//!
//! There is no index on values, nor on when they were stored. So each answer looks at some keys
//! only, and for a bounded time, and says where to go on.

use std::{collections::BTreeMap, time::Duration};

use profilestore::{
    ProfileKey,
    data_store::{DataStoreExt as _, KeyQuery, KeyState, Returning, StoreError},
    env::Env,
    filter::{Filter, ScanLimits, ScanPage, UnreadableProfile, scan},
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

/// How long one answer takes, about. A piece that is under way then is finished, and its rest too.
/// Longer: fewer requests of the console, which are told to the operator less often.
const TIME: Duration = Duration::from_secs(1);

/// While game servers are connected, a search by value looks at so many keys and then rests. With
/// values of 32 KiB on average they are one piece of a scan at most: one thread at a time reads and
/// judges them, and play has the other cores. More keys, or larger values, are several pieces, of
/// which a scan reads three at once. Fewer would make more calls of the store for each key.
const SLICE: usize = 128;

/// For how many times as long as it looked a search rests then: with 3 it works a quarter of the
/// time. More: play beside the search keeps more of its pace, and the search takes longer, by
/// `1 + REST`. Each slice has its rest, the last one of an answer too, because the console asks
/// for the next answer at once.
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
    query: KeyQuery,
    filter: &Filter,
) -> Result<Scanned, Problem> {
    let store = app.store();
    let look =
        move |query: KeyQuery, limits| async move { scan(store, &query, filter, limits).await };
    Ok(in_slices(app.env(), query, || app.hub().connected() > 0, look).await?)
}

/// Looks at the keys of a query. It rests after each slice while game servers are connected.
async fn in_slices<Looked>(
    env: &Env,
    mut query: KeyQuery,
    is_played: impl Fn() -> bool,
    look: impl Fn(KeyQuery, ScanLimits) -> Looked,
) -> Result<Scanned, StoreError>
where
    Looked: Future<Output = Result<ScanPage, StoreError>>,
{
    let (most, until) = (query.limit, env.now() + TIME);
    let (mut found, mut left) = (Scanned::default(), MAX_KEYS);
    loop {
        let began = env.now();
        let (many, end) = match is_played() {
            // Large values take long: a slice and its rest fit into an answer's time.
            true => (SLICE.min(left), until.min(began + TIME / (1 + REST))),
            false => (left, until),
        };
        query.limit = many;
        let limits = ScanLimits { matches: most - found.matches.len(), until: Some(end) };
        let page = look(query.clone(), limits).await?;
        left = left.saturating_sub(page.looked_at as usize);
        found.scanned += page.looked_at;
        found.matches.extend(page.matches);
        found.unreadable.extend(page.unreadable);
        found.next = page.next;
        if found.next.is_none() {
            return Ok(found);
        }
        if is_played() {
            // A store that is slow for a moment does not make the request take too long.
            let worked = env.now().saturating_duration_since(began).min(TIME);
            tokio::time::sleep(worked * REST).await;
        }
        if found.matches.len() >= most || left == 0 || env.now() >= until {
            return Ok(found);
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

#[cfg(test)]
mod tests {
    use profilestore::data_store::KeyFilter;
    use tokio::time::Instant;

    use super::*;

    /// How long a slice takes here, however many keys it has.
    const TOOK: Duration = Duration::from_millis(100);

    /// An answer to a search that finds nothing: how long it took, and how many keys it looked at.
    async fn answer(is_played: bool, is_over: bool) -> (Duration, u64) {
        let key = ProfileKey::new("PlayerData", "global", "p1").unwrap();
        let query =
            KeyQuery { store: None, scope: None, filter: KeyFilter::All, after: None, limit: 100 };
        let began = Instant::now();
        let next = if is_over { None } else { Some(key) };
        let look = |query: KeyQuery, _: ScanLimits| {
            let next = next.clone();
            async move {
                tokio::time::sleep(TOOK).await;
                let mut page = ScanPage::default();
                page.looked_at = query.limit as u64;
                page.next = next;
                Ok(page)
            }
        };
        let found = in_slices(&Env::system(), query, || is_played, look).await.unwrap();
        (began.elapsed(), found.scanned)
    }

    #[tokio::test(start_paused = true)]
    async fn a_search_rests_after_the_last_slice_of_an_answer_too() {
        let (took, scanned) = answer(true, false).await;
        let slices = (scanned / SLICE as u64) as u32;
        assert!(slices > 1 && slices * SLICE as u32 == scanned as u32, "{scanned}");
        assert!(took >= TOOK * slices * (1 + REST), "{slices} slices in {took:?}");
        assert!(took < TIME + TOOK * (2 + REST), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_search_that_is_over_or_beside_which_no_server_plays_does_not_rest() {
        let (took, scanned) = answer(true, true).await;
        assert!(took < TOOK * 2 && scanned == SLICE as u64, "{scanned} in {took:?}");
        let (took, scanned) = answer(false, false).await;
        assert!(took < TOOK * 2 && scanned == MAX_KEYS as u64, "{scanned} in {took:?}");
    }
}
