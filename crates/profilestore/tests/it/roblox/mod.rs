//! The Roblox data store: its semantics, documents that come out as they went in, and sessions of
//! ours beside foreign ones.

use std::{sync::Arc, time::Duration};

use profilestore::{
    GameServer, GameServerBuilder, Settings,
    data_store::{DataStore, MemoryStore, SqliteOptions, SqliteStore},
    env::Env,
    messenger::LocalMessenger,
    roblox::{Code, DataStoreError, Entry, NewEntry, Options, RobloxDataStore, RobloxDataStores},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{transfer::same, world};

mod data_store;
mod documents;
mod faults;
mod module;
mod sessions;

/// Game servers on one store, in paused time.
pub struct Place {
    env: Env,
    raw: Arc<dyn DataStore>,
    on_store: Arc<dyn Fn() -> GameServerBuilder>,
    messenger: LocalMessenger,
    pub settings: Settings,
    _folder: Option<TempDir>,
}

impl Place {
    pub fn in_memory() -> Self {
        let env = world::env();
        let store = MemoryStore::new(env.clone());
        Self::on(env, store, None)
    }

    pub fn in_file() -> Self {
        let env = world::env();
        let folder = tempfile::tempdir().unwrap();
        let options =
            SqliteOptions { env: env.clone(), durable: false, ..SqliteOptions::default() };
        let store = SqliteStore::open(folder.path().join("profiles.db"), options).unwrap();
        Self::on(env, store, Some(folder))
    }

    fn on<S: DataStore + Clone>(env: Env, store: S, folder: Option<TempDir>) -> Self {
        Self {
            env,
            raw: Arc::new(store.clone()),
            on_store: Arc::new(move || GameServer::builder(store.clone())),
            messenger: LocalMessenger::new(),
            settings: Settings::default(),
            _folder: folder,
        }
    }

    pub fn both() -> [Self; 2] {
        [Self::in_memory(), Self::in_file()]
    }

    pub async fn server(&self, job: &str) -> GameServer {
        let builder = (self.on_store)().job_id(job).place_id(7).env(self.env.clone());
        builder
            .messenger(self.messenger.clone())
            .settings(self.settings.clone())
            .start()
            .await
            .unwrap()
    }
}

/// The data store in which the other tests have their profiles.
pub fn players_in(server: &GameServer) -> RobloxDataStore {
    data_store(server, "PlayerData")
}

pub fn data_store(server: &GameServer, name: &str) -> RobloxDataStore {
    RobloxDataStores::new(server, Options::default()).data_store(name, None).unwrap()
}

pub fn entry(value: &Value) -> NewEntry {
    NewEntry::json(value).unwrap()
}

pub async fn set(store: &RobloxDataStore, key: &str, value: Value) -> Entry {
    store.set(key, entry(&value)).await.unwrap()
}

/// What the key holds.
pub async fn read(store: &RobloxDataStore, key: &str) -> Option<Value> {
    store.get_uncached(key).await.unwrap().map(|entry| parsed(&entry))
}

pub fn parsed(entry: &Entry) -> Value {
    serde_json::from_str(entry.value.get()).unwrap()
}

pub fn code<T: std::fmt::Debug>(result: Result<T, DataStoreError>) -> Code {
    result.unwrap_err().code
}

#[track_caller]
pub fn assert_same(found: &Value, expected: &Value) {
    assert!(same(found, expected), "{:#?}", profilestore::history::diff(expected, found));
}

/// A document as the published modules write it.
pub fn document(coins: i64, session: Value, load_count: u64) -> Value {
    json!({
        "Data": { "coins": coins, "items": [] },
        "MetaData": { "ProfileCreateTime": 1_795_000_000, "SessionLoadCount": load_count, "LastUpdate": 1_795_000_000,
            "MetaTags": {}, "ActiveSession": session },
        "GlobalUpdates": [0, []], "RobloxMetaData": {}, "UserIds": [],
    })
}

pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
