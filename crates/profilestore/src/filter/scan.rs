//! Looking at profiles one after the other: there is no index on values.

use futures_util::{
    FutureExt,
    stream::{self, StreamExt, TryStreamExt},
};
use serde::Serialize;
use tokio::time::Instant;

use super::Filter;
use crate::{
    data_store::{DataStore, DataStoreExt, KeyQuery, KeyState, Returning, StoreError},
    key::ProfileKey,
    record::Stored,
};

/// How many profiles are read in one piece, and how many bytes of stored values at most.
const PIECE: usize = 128;
const PIECE_BYTES: u64 = 4 << 20;

/// How many pieces are read or looked at at once.
const PIECES: usize = 3;

const VALUE: Returning = Returning { value: true, inbox_unless: None };

/// When a page of a scan ends, besides [`KeyQuery::limit`], which says how many keys are looked at
/// at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanLimits {
    /// At most so many matches.
    pub matches: usize,
    /// Not much longer than until then: the piece that is under way is finished, and one piece is
    /// always looked at. None: however long it takes.
    pub until: Option<Instant>,
}

/// What a page of a scan found.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ScanPage {
    /// The profiles that match, in the order of their keys, without their values.
    pub matches: Vec<KeyState>,
    /// How many keys were looked at. Those without a profile are among them.
    pub looked_at: u64,
    /// Profiles of which the search cannot tell.
    pub unreadable: Vec<UnreadableProfile>,
    /// Go on after this key ([`KeyQuery::after`]). None: that was all. What follows may be empty.
    pub next: Option<ProfileKey>,
}

/// A profile whose data cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnreadableProfile {
    /// Its key.
    #[serde(flatten)]
    pub key: ProfileKey,
    /// What is wrong with it.
    pub why: String,
}

/// What was found at one key.
enum Looked {
    Match(Box<KeyState>),
    /// Another profile, no profile, or nothing any more.
    Other(ProfileKey),
    Unreadable(UnreadableProfile),
}

/// Looks at the keys of a query, as they are saved, and answers with those profiles whose data
/// matches. Values that are no profiles never match. Each profile is seen as it is when it is
/// read; what is written meanwhile may or may not be among them.
pub async fn scan(
    store: &dyn DataStore,
    query: &KeyQuery,
    filter: &Filter,
    limits: ScanLimits,
) -> Result<ScanPage, StoreError> {
    let mut found = ScanPage::default();
    if query.limit == 0 || limits.matches == 0 {
        found.next = query.after.clone();
        return Ok(found);
    }
    // Boxed, so that a caller's future is small and can be sent.
    let mut pieces =
        stream::try_unfold(Some(query.clone()), |query| next_pieces(store, query).boxed())
            .map_ok(|pieces| stream::iter(pieces.into_iter().map(Ok)))
            .try_flatten()
            .map(|piece| async move { look(store, filter, piece?).await }.boxed())
            .buffered(PIECES)
            .boxed();
    while let Some(looked) = pieces.try_next().await? {
        let Some(looked) = looked else {
            found.next = None;
            break;
        };
        for looked in looked {
            found.next = Some(looked.key().clone());
            found.looked_at += 1;
            match looked {
                Looked::Match(state) => found.matches.push(*state),
                Looked::Unreadable(profile) => found.unreadable.push(profile),
                Looked::Other(_) => {}
            }
            if found.matches.len() >= limits.matches {
                return Ok(found);
            }
        }
        if limits.until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
    }
    Ok(found)
}

/// Keys that are read together. None: there are no more.
type Piece = Option<Vec<KeyState>>;

/// The next page of keys, in pieces of not too many bytes, and the query for what follows.
async fn next_pieces(
    store: &dyn DataStore,
    query: Option<KeyQuery>,
) -> Result<Option<(Vec<Piece>, Option<KeyQuery>)>, StoreError> {
    let Some(mut query) = query else { return Ok(None) };
    let left = query.limit;
    query.limit = left.min(PIECE);
    let (states, next) = store.profiles(&query).await?;
    let (mut pieces, mut bytes): (Vec<Piece>, u64) = (Vec::new(), 0);
    query.limit = left.saturating_sub(states.len());
    for state in states {
        let size = state.head.as_ref().map_or(0, |head| head.bytes);
        match pieces.last_mut().filter(|_| bytes + size <= PIECE_BYTES) {
            Some(Some(piece)) => piece.push(state),
            _ => {
                bytes = 0;
                pieces.push(Some(vec![state]));
            }
        }
        bytes += size;
    }
    if next.is_none() {
        pieces.push(None);
    }
    query.after = next;
    let more = query.after.is_some() && query.limit > 0;
    Ok(Some((pieces, more.then_some(query))))
}

/// Reads a piece and looks at it, beside the threads that do what waits for nothing.
async fn look(
    store: &dyn DataStore,
    filter: &Filter,
    piece: Piece,
) -> Result<Option<Vec<Looked>>, StoreError> {
    let Some(states) = piece else { return Ok(None) };
    let there: Vec<ProfileKey> =
        states.iter().filter(|state| state.exists()).map(|state| state.key.clone()).collect();
    let read = match store.read(&there, VALUE).await {
        Ok(snapshot) => snapshot.states.into_iter().map(Ok).collect(),
        Err(StoreError::Damaged { .. }) => one_by_one(store, &there).await?,
        Err(error) => return Err(error),
    };
    let filter = filter.clone();
    let judged = tokio::task::spawn_blocking(move || {
        read.into_iter()
            .map(|read| read.map_or_else(Looked::Unreadable, |state| judge(&filter, state)))
            .collect::<Vec<_>>()
    });
    let judged = judged.await.map_err(|error| StoreError::Unavailable {
        reason: format!("the search broke off: {error}"),
    })?;
    if judged.len() != there.len() {
        let reason = "the store gave no answer for some keys".into();
        return Err(StoreError::Unavailable { reason });
    }
    let mut judged = judged.into_iter();
    let looked = states
        .into_iter()
        .filter_map(|state| match state.exists() {
            true => judged.next(),
            false => Some(Looked::Other(state.key)),
        })
        .collect();
    Ok(Some(looked))
}

/// Reads keys of which one at least has a damaged value.
async fn one_by_one(
    store: &dyn DataStore,
    keys: &[ProfileKey],
) -> Result<Vec<Result<KeyState, UnreadableProfile>>, StoreError> {
    let mut all = Vec::with_capacity(keys.len());
    for key in keys {
        all.push(match store.read_one(key, VALUE).await {
            Ok((_, state)) => Ok(state),
            Err(error @ StoreError::Damaged { .. }) => {
                Err(UnreadableProfile { key: key.clone(), why: error.to_string() })
            }
            Err(error) => return Err(error),
        });
    }
    Ok(all)
}

fn judge(filter: &Filter, mut state: KeyState) -> Looked {
    // None: it was removed since it was listed.
    let Some(value) = state.value.take() else { return Looked::Other(state.key) };
    let matches = match Stored::decode(&value) {
        Ok(Stored::Profile(record)) => {
            filter.matches(&record.data).map_err(|error| error.to_string())
        }
        Ok(_) => Ok(false),
        Err(error) => Err(error.to_string()),
    };
    match matches {
        Ok(true) => Looked::Match(Box::new(state)),
        Ok(false) => Looked::Other(state.key),
        Err(why) => Looked::Unreadable(UnreadableProfile { key: state.key, why }),
    }
}

impl Looked {
    fn key(&self) -> &ProfileKey {
        match self {
            Self::Match(state) => &state.key,
            Self::Other(key) => key,
            Self::Unreadable(profile) => &profile.key,
        }
    }
}
