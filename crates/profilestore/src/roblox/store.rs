//! One data store: its calls.

use std::{collections::BTreeMap, fmt, sync::Arc};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::{sync::mpsc, time::Instant};

use super::{
    Code, DataStoreError, Entry, EntryVersion, NewEntry, Pages, RobloxDataStores,
    budget::Call,
    entry::{self, key_info, label},
    operations::{Source, Turn, remove_now, write_now},
};
use crate::{
    data_store::{
        DataStoreExt as _, KeyFilter, KeyQuery, KeyState, Order, VersionInfo, VersionQuery,
        VersionRef,
    },
    engine::{Engine, history::Which},
    key::ProfileKey,
    record::Stored,
};

/// How many items are fetched at most at once, and hence the largest page.
const MAX_PAGE: usize = 1024;

/// A data store. Specification: `DataStore`. Cheap to clone; clones share their cache, as they are
/// the same object to a game.
#[derive(Clone)]
pub struct RobloxDataStore {
    all: RobloxDataStores,
    name: Arc<str>,
    scope: Arc<str>,
    cache: Arc<Mutex<BTreeMap<String, Cached>>>,
}

/// What [`RobloxDataStore::get`] answers with for a while.
struct Cached {
    entry: Option<Entry>,
    until: Instant,
}

impl fmt::Debug for RobloxDataStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RobloxDataStore")
            .field("name", &self.name)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

/// Which versions of a key are listed, in which order. See [`RobloxDataStore::list_versions`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionsQuery {
    /// Oldest first, unless it says otherwise.
    pub order: Order,
    /// Only versions written at or after this time, Unix milliseconds.
    pub min_ms: Option<i64>,
    /// Only versions written at or before this time, Unix milliseconds.
    pub max_ms: Option<i64>,
    /// How many make a page, 1 to 1,024; 1,024.
    pub page_size: usize,
}

impl Default for VersionsQuery {
    fn default() -> Self {
        Self { order: Order::Ascending, min_ms: None, max_ms: None, page_size: MAX_PAGE }
    }
}

/// Which keys are listed. See [`RobloxDataStore::list_keys`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysQuery {
    /// Only keys that begin with this.
    pub prefix: String,
    /// How many make a page, 1 to 1,024; 50.
    pub page_size: usize,
    /// Leave removed keys out. Otherwise they are listed as long as they have versions.
    pub exclude_removed: bool,
}

impl Default for KeysQuery {
    fn default() -> Self {
        Self { prefix: String::new(), page_size: 50, exclude_removed: false }
    }
}

/// A version in a listing. Specification: `DataStoreObjectVersionInfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListedVersion {
    /// Its name. Specification: `Version`.
    pub version: String,
    /// When it was written, Unix milliseconds. Specification: `CreatedTime`.
    pub created_ms: i64,
    /// True when it is a removal. Specification: `IsDeleted`.
    pub is_deleted: bool,
    number: u64,
}

type Answer<T> = BoxFuture<'static, Result<T, DataStoreError>>;

impl RobloxDataStore {
    pub(super) fn new(all: RobloxDataStores, name: &str, scope: &str) -> Self {
        Self { all, name: name.into(), scope: scope.into(), cache: Arc::default() }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its scope.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// Reads a key; None when there is nothing, or no longer. Answers from the cache when the key
    /// was read or written through this object within
    /// [`Options::get_cache`](super::Options::get_cache). Specification: `GetAsync`.
    pub fn get(
        &self,
        key: &str,
    ) -> impl Future<Output = Result<Option<Entry>, DataStoreError>> + Send + 'static + use<> {
        let cached = self.cached(key);
        let read = cached.is_none().then(|| self.get_uncached(key));
        async move {
            match (cached, read) {
                (Some(cached), _) => Ok(cached),
                (None, Some(read)) => read.await,
                (None, None) => Ok(None),
            }
        }
    }

    /// The same, always from the store. Specification: `GetAsync` with `UseCache = false`.
    pub fn get_uncached(
        &self,
        key: &str,
    ) -> impl Future<Output = Result<Option<Entry>, DataStoreError>> + Send + 'static + use<> {
        let state = self.run(Call::Get, key, |engine, key| {
            let state = engine.get(&key);
            Box::pin(async move { entry::current(state.await?) })
        });
        self.remembering(key, state, |read| Some(read.clone()))
    }

    /// Writes a key, whatever it holds. Answers with what is stored then. Specification:
    /// `SetAsync`.
    pub fn set(
        &self,
        key: &str,
        new: NewEntry,
    ) -> impl Future<Output = Result<Entry, DataStoreError>> + Send + 'static + use<> {
        let written = self.write(Call::Set, key, Source::Fixed(new));
        let written = async move { written.await?.ok_or_else(unanswered) };
        self.remembering(key, Box::pin(written), |entry| Some(Some(entry.clone())))
    }

    /// Writes what `transform` makes of what the key holds; None from it calls the update off,
    /// which is answered with None. Whenever another caller writes the key in between, it is called
    /// again with what is there then. Answers with what is stored. Specification: `UpdateAsync`.
    ///
    /// `transform` runs in the returned future, which must be polled: other calls of this server
    /// for the key wait until it has answered, for at most half of
    /// [`crate::Settings::call_timeout`]. Dropping the future before that calls the update off.
    pub fn update<F>(
        &self,
        key: &str,
        mut transform: F,
    ) -> impl Future<Output = Result<Option<Entry>, DataStoreError>> + 'static + use<F>
    where
        F: FnMut(Option<&Entry>) -> Option<NewEntry> + 'static,
    {
        let (ask, mut asked) = mpsc::channel::<Turn>(1);
        let written = self.write(Call::Update, key, Source::Ask(ask));
        let mut written = self.remembering(key, written, |written| written.clone().map(Some));
        async move {
            loop {
                tokio::select! {
                    biased;
                    Some(turn) = asked.recv() => {
                        let new = transform(turn.current.as_ref());
                        // Nobody waits for it when it came too late.
                        let _ = turn.answer.send(new);
                    }
                    answer = &mut written => return answer,
                }
            }
        }
    }

    /// Adds to the whole number that a key holds, 0 if it holds nothing; users and metadata are
    /// cleared. Answers with what is stored. Fails with [`Code::RequestRejected`] when the key
    /// holds something else, or the sum is beyond 64 bits. Specification: `IncrementAsync`.
    pub fn increment(
        &self,
        key: &str,
        delta: i64,
    ) -> impl Future<Output = Result<Entry, DataStoreError>> + Send + 'static + use<> {
        self.increment_with(key, delta, Vec::new(), serde_json::Map::new())
    }

    /// The same with the users and the metadata that the key has from then on.
    pub fn increment_with(
        &self,
        key: &str,
        delta: i64,
        user_ids: Vec<i64>,
        metadata: serde_json::Map<String, serde_json::Value>,
    ) -> impl Future<Output = Result<Entry, DataStoreError>> + Send + 'static + use<> {
        let written = self.write(Call::Increment, key, Source::Add { delta, user_ids, metadata });
        let written = async move { written.await?.ok_or_else(unanswered) };
        self.remembering(key, Box::pin(written), |entry| Some(Some(entry.clone())))
    }

    /// Removes a key: its versions stay readable, what was sent to the profile is consumed, and a
    /// session is ended. Answers with what was there; None when there was nothing. Specification:
    /// `RemoveAsync`.
    pub fn remove(
        &self,
        key: &str,
    ) -> impl Future<Output = Result<Option<Entry>, DataStoreError>> + Send + 'static + use<> {
        let removed = self.run(Call::Remove, key, |engine, key| {
            let (engine_, key_) = (engine.clone(), key.clone());
            let removed =
                engine.link.call(&key, async move { Ok(remove_now(&engine_, &key_).await) });
            Box::pin(async move { removed.await? })
        });
        self.remembering(key, removed, |_| Some(None))
    }

    /// Reads a version by its name. Fails with a message that has `not valid` in it when there is
    /// none. Specification: `GetVersionAsync`.
    pub fn get_version(
        &self,
        key: &str,
        version: &str,
    ) -> impl Future<Output = Result<EntryVersion, DataStoreError>> + Send + 'static + use<> {
        let which = Which::Named(VersionRef::Label(version.to_owned()));
        self.run(Call::Get, key, |engine, key| {
            let current = engine.get(&key);
            let found = engine.get_version(&key, which);
            Box::pin(async move {
                let (current, (state, found)) = (current.await?, found.await?);
                let found = found.ok_or_else(|| {
                    DataStoreError::new(
                        Code::RequestRejected,
                        "the version is not valid: the key has none of this name, or no longer",
                    )
                })?;
                if found.info.number == current.version
                    && let Some(Entry { value, info }) = entry::current(current)?
                {
                    return Ok(EntryVersion { value: Some(value), info });
                }
                let stored = found.value.as_deref().map(Stored::decode).transpose()?;
                let info = key_info(&found.info, state.created_ms, stored.as_ref());
                let value = stored
                    .map(|stored| crate::document::compose(&stored, &found.info, None).into());
                Ok(EntryVersion { value, info })
            })
        })
    }

    /// Lists a key's versions. Specification: `ListVersionsAsync`.
    pub fn list_versions(
        &self,
        key: &str,
        query: VersionsQuery,
    ) -> impl Future<Output = Result<Pages<ListedVersion>, DataStoreError>> + Send + 'static + use<>
    {
        let store = self.clone();
        let key = key.to_owned();
        async move {
            check_page(query.page_size)?;
            if query.min_ms.is_some_and(|min| min < 0) || query.max_ms.is_some_and(|max| max < 0) {
                return Err(DataStoreError::new(
                    Code::PageSizeInvalid,
                    "a bound of time is before 1970",
                ));
            }
            if query.min_ms.zip(query.max_ms).is_some_and(|(min, max)| min > max) {
                return Err(DataStoreError::new(
                    Code::MinMaxOrder,
                    "the lower bound of time is above the upper one",
                ));
            }
            let page_size = query.page_size;
            let fetch = move |after: Option<ListedVersion>,
                              limit|
                  -> Answer<(Vec<ListedVersion>, bool)> {
                let query = query.clone();
                Box::pin(store.run(Call::List, &key, move |engine, key| {
                    let VersionsQuery { order, min_ms: from_ms, max_ms: to_ms, .. } = query;
                    let after = after.map(|version| version.number);
                    let listed =
                        engine.versions(VersionQuery { key, order, from_ms, to_ms, after, limit });
                    Box::pin(async move {
                        let (created_ms, page) = listed.await?;
                        let follows = page.len() >= limit;
                        Ok((
                            page.iter().map(|info| ListedVersion::of(info, created_ms)).collect(),
                            follows,
                        ))
                    })
                }))
            };
            Pages::first(page_size, Arc::new(fetch)).await
        }
    }

    /// Lists the store's keys, in order. Specification: `ListKeysAsync`.
    pub fn list_keys(
        &self,
        query: KeysQuery,
    ) -> impl Future<Output = Result<Pages<String>, DataStoreError>> + Send + 'static + use<> {
        let store = self.clone();
        async move {
            check_page(query.page_size)?;
            let page_size = query.page_size;
            let fetch = move |after: Option<String>, limit| -> Answer<(Vec<String>, bool)> {
                let (store_, query) = (store.clone(), query.clone());
                Box::pin(store.run_unnamed(Call::List, move |engine| {
                    let engine = engine.clone();
                    Box::pin(async move { store_.keys_behind(&engine, &query, after, limit).await })
                }))
            };
            Pages::first(page_size, Arc::new(fetch)).await
        }
    }

    async fn keys_behind(
        &self,
        engine: &Engine,
        query: &KeysQuery,
        after: Option<String>,
        limit: usize,
    ) -> Result<(Vec<String>, bool), DataStoreError> {
        let filter = if query.prefix.is_empty() {
            KeyFilter::All
        } else {
            KeyFilter::Prefix(query.prefix.clone())
        };
        let mut keys = KeyQuery {
            store: Some(self.name.to_string()),
            scope: Some(self.scope.to_string()),
            filter,
            after: after.map(|key| self.key(&key)).transpose()?,
            limit,
        };
        let removed = |state: &KeyState| state.head.as_ref().is_some_and(|head| head.removed);
        loop {
            let (page, next) =
                engine.link.reading(None, || engine.link.store.profiles(&keys)).await?;
            let names: Vec<_> = page
                .iter()
                .filter(|state| !(query.exclude_removed && removed(state)))
                .map(|state| state.key.key().to_owned())
                .collect();
            if next.is_none() || !names.is_empty() {
                return Ok((names, next.is_some()));
            }
            keys.after = next;
        }
    }

    // --- how calls are carried ------------------------------------------------------------------

    fn key(&self, key: &str) -> Result<ProfileKey, DataStoreError> {
        ProfileKey::in_store(&self.name, &self.scope, key)
            .map_err(|invalid| DataStoreError::name(invalid.what, &invalid.given))
    }

    fn write(&self, call: Call, key: &str, source: Source) -> Answer<Option<Entry>> {
        if let Err(refused) = source.check() {
            return Box::pin(std::future::ready(Err(refused)));
        }
        self.run(call, key, |engine, key| {
            let (engine_, key_, bytes) = (engine.clone(), key.clone(), source.bytes());
            let written = engine.link.call_with(&key, bytes, async move {
                Ok(write_now(&engine_, &key_, source).await)
            });
            Box::pin(async move { written.await? })
        })
    }

    /// Makes a call about a key. It is under way when this returns.
    fn run<T: Send + 'static>(
        &self,
        kind: Call,
        key: &str,
        call: impl FnOnce(&Arc<Engine>, ProfileKey) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        match self.key(key) {
            Ok(key) => self.run_unnamed(kind, move |engine| call(engine, key)),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    fn run_unnamed<T: Send + 'static>(
        &self,
        kind: Call,
        call: impl FnOnce(&Arc<Engine>) -> Answer<T> + Send + 'static,
    ) -> Answer<T> {
        let all = &self.all;
        let engine = all.engine();
        if engine.link.is_closing() {
            let closing =
                DataStoreError::new(Code::DataModelNoAccess, "the game server is shutting down");
            return Box::pin(std::future::ready(Err(closing)));
        }
        if all.weather.is_fair() && all.budgets.is_none() {
            return call(engine);
        }
        let players = all.players.load(std::sync::atomic::Ordering::Relaxed);
        let charged = all.budgets.as_ref().map_or(Ok(None), |budgets| {
            let wait = budgets.charge(kind, players, engine.link.env.now())?;
            Ok(Some(wait).filter(|wait| !wait.is_zero()))
        });
        let (engine, weather) = (engine.clone(), all.weather.clone());
        let task = match charged {
            Err(throttled) => return Box::pin(std::future::ready(Err(throttled))),
            Ok(wait) => all.engine().link.runtime.spawn(async move {
                if let Some(wait) = wait {
                    tokio::time::sleep(wait).await;
                }
                weather.carry(async { call(&engine).await }).await
            }),
        };
        Box::pin(async move { task.await.unwrap_or_else(|_| Err(unanswered())) })
    }

    // --- the cache ------------------------------------------------------------------------------

    fn cached(&self, key: &str) -> Option<Option<Entry>> {
        self.all.options.get_cache?;
        let now = self.all.engine().link.env.now();
        let cache = self.cache.lock();
        cache.get(key).filter(|cached| cached.until > now).map(|cached| cached.entry.clone())
    }

    /// The answer, of which the cache remembers what the key holds, if it says so.
    fn remembering<T: Send + 'static>(
        &self,
        key: &str,
        answer: Answer<T>,
        what: fn(&T) -> Option<Option<Entry>>,
    ) -> Answer<T> {
        let (cache, keep) = (self.cache.clone(), self.all.options.get_cache);
        let (key, env) = (key.to_owned(), self.all.engine().link.env.clone());
        Box::pin(async move {
            let answer = answer.await?;
            if let Some((keep, entry)) = keep.zip(what(&answer)) {
                let now = env.now();
                let cached = Cached { entry, until: env.after(keep) };
                let mut cache = cache.lock();
                cache.retain(|_, cached| cached.until > now);
                cache.insert(key, cached);
            }
            Ok(answer)
        })
    }
}

impl ListedVersion {
    fn of(info: &VersionInfo, created_ms: i64) -> Self {
        Self {
            version: label(info, created_ms),
            created_ms: info.written_ms,
            is_deleted: info.removed,
            number: info.number,
        }
    }
}

fn check_page(page_size: usize) -> Result<(), DataStoreError> {
    match page_size {
        1..=MAX_PAGE => Ok(()),
        _ => Err(DataStoreError::new(
            Code::PageSizeInvalid,
            format!("a page has 1 to {MAX_PAGE} items"),
        )),
    }
}

fn unanswered() -> DataStoreError {
    DataStoreError::new(Code::BadResponse, "the call was broken off; see the log")
}
