//! What the server keeps for itself: small JSON values by name, each kind in a scope of the
//! reserved store, beside the audit log. So every process on the store sees the same, a backup has
//! it too, and a change and its entry in the audit log are one commit.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use profilestore::{
    Error, ProfileKey,
    data_store::{
        Cause, Change, Commit, CommitId, DataStore, DataStoreExt as _, KeyFilter, KeyQuery,
        KeyState, NewValue, Returning, StoreError,
    },
    env::Env,
    key::RESERVED_STORE,
    record::{Foreign, Stored},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, value::to_raw_value};
use tokio::time::Instant;

/// The form of a value. One with a higher number was made by a newer version.
const FORM: u32 = 1;

/// How many values are read at once.
const PAGE: usize = 256;

/// How long what the store said counts.
const FRESH: Duration = Duration::from_secs(2);

/// How many names are remembered at once, those that do not exist included.
const REMEMBERED: usize = 10_000;

const VALUE: Returning = Returning { value: true, inbox_unless: None };

/// The values of one kind.
pub(crate) struct Shelf {
    store: Arc<dyn DataStore>,
    env: Env,
    scope: &'static str,
}

/// What is kept under a name.
#[derive(Debug, Clone)]
pub(crate) struct Kept<T> {
    /// The value. None: there is none, or none any more.
    pub(crate) value: Option<T>,
    /// The version of the name, for the next write.
    pub(crate) version: u64,
}

#[derive(Serialize, Deserialize)]
struct Form<T> {
    v: u32,
    #[serde(flatten)]
    value: T,
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl Shelf {
    pub(crate) fn new(store: Arc<dyn DataStore>, env: Env, scope: &'static str) -> Self {
        Self { store, env, scope }
    }

    /// Where a name is kept. Fails when it can be no name.
    pub(crate) fn place(&self, name: &str) -> Result<ProfileKey, Error> {
        ProfileKey::new(RESERVED_STORE, self.scope, name)
            .map_err(|error| Error::from(StoreError::Invalid { reason: error.to_string() }))
    }

    pub(crate) async fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Kept<T>, Error> {
        let (_, state) = self.store.read_one(&self.place(name)?, VALUE).await?;
        kept(&state)
    }

    /// All values, by their names.
    pub(crate) async fn list<T: DeserializeOwned>(&self) -> Result<Vec<(T, u64)>, Error> {
        let mut query = KeyQuery {
            store: Some(RESERVED_STORE.to_owned()),
            scope: Some(self.scope.to_owned()),
            filter: KeyFilter::All,
            after: None,
            limit: PAGE,
        };
        let mut values = Vec::new();
        loop {
            let page = self.store.keys(&query).await?;
            let names: Vec<_> = page.iter().map(|state| state.key.clone()).collect();
            for state in &self.store.read(&names, VALUE).await?.states {
                let Kept { value, version } = kept(state)?;
                values.extend(value.map(|value| (value, version)));
            }
            match names.into_iter().next_back().filter(|_| page.len() >= PAGE) {
                Some(last) => query.after = Some(last),
                None => return Ok(values),
            }
        }
    }

    /// The change that writes a value over this version of its name; 0: over none.
    pub(crate) fn write<T: Serialize>(
        &self,
        name: &str,
        version: u64,
        value: &T,
    ) -> Result<Change, Error> {
        let value = to_raw_value(&Form { v: FORM, value })
            .map_err(|error| Error::from(StoreError::Invalid { reason: error.to_string() }))?;
        let foreign = Foreign { user_ids: Vec::new(), metadata: Map::new(), value };
        self.change(name, version, NewValue::Bytes(Stored::Foreign(foreign).encode()?))
    }

    /// The changes that remove a value, with its earlier versions.
    pub(crate) fn remove(&self, name: &str, version: u64) -> Result<[Change; 2], Error> {
        let removal = self.change(name, version, NewValue::Tombstone)?;
        Ok([removal, Change::Erase { key: self.place(name)?, epoch: 0 }])
    }

    fn change(&self, name: &str, version: u64, value: NewValue) -> Result<Change, Error> {
        Ok(Change::Write {
            key: self.place(name)?,
            epoch: 0,
            version,
            value,
            user_ids: Vec::new(),
            cause: Cause::Set,
            author: self.scope.to_owned(),
            keep_previous: false,
            seal: false,
            imported: None,
        })
    }

    /// Makes changes, all or none. False: another change came first, and none was made.
    pub(crate) async fn commit(&self, changes: Vec<Change>) -> Result<bool, Error> {
        let commit = Commit {
            id: CommitId(self.env.uuid()),
            incarnation: self.store.identity().await?.incarnation,
            from: None,
            changes,
            returning: Returning::HEAD,
            fingerprint: None,
        };
        let done = match self.store.commit_one(commit.clone()).await {
            // The same commit again tells, and does it if it was not done.
            Err(StoreError::Indeterminate { .. }) => self.store.commit_one(commit).await,
            done => done,
        };
        match done {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

fn kept<T: DeserializeOwned>(state: &KeyState) -> Result<Kept<T>, Error> {
    let Some(bytes) = state.value.as_ref().filter(|_| state.exists()) else {
        return Ok(Kept { value: None, version: state.version });
    };
    let damaged = |reason: String| {
        let reason =
            format!("a value cannot be read, or is of a newer version: {reason}: {}", state.key);
        Error::from(StoreError::Corrupt { reason })
    };
    let Stored::Foreign(foreign) = Stored::decode(bytes)? else {
        return Err(damaged("it is something else".into()));
    };
    let form: Form<T> =
        serde_json::from_str(foreign.value.get()).map_err(|error| damaged(error.to_string()))?;
    if form.v > FORM {
        return Err(damaged(format!("its form is {}", form.v)));
    }
    Ok(Kept { value: Some(form.value), version: state.version })
}

/// What the store said lately about names, for two seconds each.
pub(crate) struct Recent<T> {
    env: Env,
    said: Mutex<HashMap<String, Said<T>>>,
}

struct Said<T> {
    since: Instant,
    value: Option<Arc<T>>,
}

impl<T> Recent<T> {
    pub(crate) fn new(env: Env) -> Self {
        Self { env, said: Mutex::default() }
    }

    /// None: the store is to be asked. Some(None): there is no such name.
    pub(crate) fn get(&self, name: &str) -> Option<Option<Arc<T>>> {
        let now = self.env.now();
        let said = self.said.lock();
        said.get(name).filter(|said| said.is_fresh(now)).map(|said| said.value.clone())
    }

    pub(crate) fn put(&self, name: &str, value: Option<Arc<T>>) {
        let since = self.env.now();
        let mut said = self.said.lock();
        if said.len() >= REMEMBERED {
            said.retain(|_, said| said.is_fresh(since));
            if said.len() >= REMEMBERED {
                said.clear();
            }
        }
        said.insert(name.to_owned(), Said { since, value });
    }

    pub(crate) fn forget(&self, name: &str) {
        self.said.lock().remove(name);
    }
}

impl<T> Said<T> {
    fn is_fresh(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < FRESH
    }
}
