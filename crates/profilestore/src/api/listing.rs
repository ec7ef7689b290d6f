//! Going through the profiles of a store, page by page.

use std::fmt;

use futures_util::{
    future::ready,
    stream::{self, BoxStream, StreamExt},
};

use crate::{
    api::{read_profile::ReadProfile, store::ProfileStore},
    data::ProfileData,
    data_store::{DataStoreExt, KeyFilter, KeyQuery},
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
};

/// How many keys are asked for at once.
const PAGE: usize = 256;

/// How many profiles are read at once. Each may be 4 MiB.
const READ_AT_ONCE: usize = 8;

/// The profiles of a store that are there, ordered by key (bytewise). Made by
/// [`ProfileStore::keys`].
///
/// Keys are asked for a page at a time, as they are needed. What is created or removed while one
/// goes through them may or may not be among them; what is there all the time comes once. Each
/// page waits for one round trip, during an outage for at most [`crate::Settings::call_timeout`].
///
/// ```
/// # use profilestore::{ProfileStore, Result};
/// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)] struct Guild { gold: u64 }
/// use futures_util::TryStreamExt;
///
/// async fn richest(guilds: &ProfileStore<Guild>) -> Result<Option<(String, u64)>> {
///     let mut richest: Option<(String, u64)> = None;
///     let mut all = guilds.keys().prefix("guild/").scan();
///     while let Some(guild) = all.try_next().await? {
///         if richest.as_ref().is_none_or(|(_, gold)| guild.data.gold > *gold) {
///             richest = Some((guild.key().key().to_owned(), guild.data.gold));
///         }
///     }
///     Ok(richest)
/// }
/// ```
pub struct Keys<T> {
    store: ProfileStore<T>,
    prefix: String,
    user: Option<i64>,
    held: bool,
    after: Option<ProfileKey>,
    page: std::vec::IntoIter<ProfileKey>,
    last_page: bool,
}

impl<T: ProfileData> ProfileStore<T> {
    /// Lists the profiles of this store and scope, or reads them one after the other. For support
    /// and for jobs that run now and then: what a game needs at once, such as a leaderboard, is to
    /// be kept where it can be asked for. Asks the store when the first is asked for.
    pub fn keys(&self) -> Keys<T> {
        Keys {
            store: self.clone(),
            prefix: String::new(),
            user: None,
            held: false,
            after: None,
            page: Vec::new().into_iter(),
            last_page: false,
        }
    }
}

impl<T> fmt::Debug for Keys<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("store", &self.store)
            .field("prefix", &self.prefix)
            .field("user", &self.user)
            .field("held", &self.held)
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

impl<T: ProfileData> Keys<T> {
    /// Only profiles whose key begins so.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.prefix);
        self
    }

    /// Only profiles that are associated with this user ([`crate::Profile::add_user_id`]).
    #[must_use]
    pub fn user(mut self, user_id: i64) -> Self {
        self.user = Some(user_id);
        self
    }

    /// Only profiles that a session holds, on whichever server.
    #[must_use]
    pub fn held(mut self) -> Self {
        self.held = true;
        self
    }

    /// The next profile's name; None at the end. After an error it may be called again.
    pub async fn next(&mut self) -> Result<Option<ProfileKey>> {
        loop {
            if let Some(key) = self.page.next() {
                return Ok(Some(key));
            }
            if self.last_page {
                return Ok(None);
            }
            self.ask().await?;
        }
    }

    /// Asks the store for the next page. The store itself applies the narrowest of what is wanted.
    async fn ask(&mut self) -> Result<()> {
        let engine = self.store.engine().await?;
        if engine.link.is_closing() {
            return Err(Error::new(ErrorKind::Closing, "this game server is shutting down"));
        }
        let filter = match self.user {
            Some(user) => KeyFilter::User(user),
            None if self.held => KeyFilter::Held,
            None if self.prefix.is_empty() => KeyFilter::All,
            None => KeyFilter::Prefix(self.prefix.clone()),
        };
        let query = KeyQuery {
            store: Some(self.store.name().to_owned()),
            scope: Some(self.store.scope().to_owned()),
            filter,
            after: self.after.clone(),
            limit: PAGE,
        };
        let link = &engine.link;
        let (page, next) = link.reading(None, || link.store.profiles(&query)).await?;
        let wanted: Vec<ProfileKey> = page
            .into_iter()
            .filter(|state| state.exists())
            .filter(|state| !self.held || state.lease.is_held())
            .map(|state| state.key)
            .filter(|key| key.key().starts_with(&self.prefix))
            .collect();
        self.page = wanted.into_iter();
        self.last_page = next.is_none();
        self.after = next;
        Ok(())
    }

    /// The names, as a stream. It ends after an error. It holds one page of 256 names.
    pub fn stream(self) -> BoxStream<'static, Result<ProfileKey>> {
        stream::try_unfold(
            self,
            |mut keys| async move { Ok(keys.next().await?.map(|key| (key, keys))) },
        )
        .boxed()
    }

    /// The profiles themselves, as a stream: each as [`ProfileStore::get`] gives it, so as it was
    /// saved last. A profile that cannot be read ([`ErrorKind::Foreign`], [`ErrorKind::NewerData`],
    /// [`ErrorKind::Undecodable`], [`ErrorKind::Refused`], [`ErrorKind::Corrupt`],
    /// [`ErrorKind::Damaged`]) is an error that names it, and the stream goes on behind it; any
    /// other error ends it. It holds one page of names and at most 8 profiles.
    pub fn scan(self) -> BoxStream<'static, Result<ReadProfile<T>>> {
        let store = self.store.clone();
        let read = move |key: Result<ProfileKey>| {
            let store = store.clone();
            async move { store.get(key?.key()).await }
        };
        self.stream()
            .map(read)
            .buffered(READ_AT_ONCE)
            // None: removed since it was listed.
            .filter_map(|read| ready(read.transpose()))
            .scan(false, |ended, read| {
                if *ended {
                    return ready(None);
                }
                *ended = read.as_ref().is_err_and(|error| !is_about_one(error.kind()));
                ready(Some(read))
            })
            .boxed()
    }
}

/// Whether an error says something about one profile, and nothing about those behind it.
fn is_about_one(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Foreign
            | ErrorKind::NewerData
            | ErrorKind::Undecodable
            | ErrorKind::Refused
            | ErrorKind::Corrupt
            | ErrorKind::Damaged
    )
}
