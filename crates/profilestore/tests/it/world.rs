//! What the tests of sessions stand on: game servers on one store in memory, in paused time, and a
//! store that fails on command.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

pub use profilestore::data_store::fault::Fault;
use profilestore::{
    GameServer, Profile, ProfileStore, Settings,
    data_store::{
        DataStore, MemoryStore,
        fault::{self, Call, Fate, OnCommand, StorePlan},
    },
    env::{Env, Rng, TokioClock},
    messenger::{LocalMessenger, NoMessenger},
};
use serde::{Deserialize, Serialize};

/// The data of the tests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Player {
    pub coins: i64,
    #[serde(default)]
    pub items: Vec<String>,
}

/// Counts, so that a test is the same each time.
pub struct Counting(AtomicU64);

impl Counting {
    pub fn new() -> Self {
        Self(AtomicU64::new(1))
    }
}

impl Rng for Counting {
    fn bits(&self) -> u128 {
        u128::from(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

pub fn env() -> Env {
    Env::new(Arc::new(TokioClock::new(1_795_000_000_000)), Arc::new(Counting::new()))
}

/// Game servers that share a store.
pub struct World {
    pub env: Env,
    pub store: FaultyStore,
    pub messenger: Option<LocalMessenger>,
    pub settings: Settings,
}

impl World {
    pub fn new() -> Self {
        let env = env();
        let store = on_command(MemoryStore::new(env.clone()));
        Self { env, store, messenger: Some(LocalMessenger::new()), settings: Settings::default() }
    }

    pub fn without_messenger() -> Self {
        Self { messenger: None, ..Self::new() }
    }

    /// Another way to the same profiles, with faults of its own.
    pub fn another_way(&self) -> FaultyStore {
        self.store.another_way(Watched::default())
    }

    pub async fn server(&self, job: &str) -> GameServer {
        self.server_on(job, self.store.clone()).await
    }

    /// A server that reaches the same profiles through a store of its own.
    pub async fn server_on(&self, job: &str, store: impl DataStore) -> GameServer {
        let builder = GameServer::builder(store)
            .job_id(job)
            .env(self.env.clone())
            .settings(self.settings.clone());
        match &self.messenger {
            Some(messenger) => builder.messenger(messenger.clone()),
            None => builder.messenger(NoMessenger),
        }
        .start()
        .await
        .unwrap()
    }
}

pub fn players(server: &GameServer) -> ProfileStore<Player> {
    server.store_builder("PlayerData").template(Player::default()).build().unwrap()
}

pub async fn open(server: &GameServer, key: &str) -> Profile<Player> {
    players(server).start_session(key).await.unwrap()
}

pub fn earn(profile: &Profile<Player>, coins: i64) {
    profile.update(|data| data.coins += coins).unwrap();
}

pub async fn coins(server: &GameServer, key: &str) -> i64 {
    players(server).get(key).await.unwrap().unwrap().data.coins
}

/// Lets everything that is under way settle, in paused time.
pub async fn settle() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// A store that fails on command.
pub type FaultyStore = fault::FaultyStore<Watched>;

/// A store in memory that fails on command.
pub fn on_command(inner: MemoryStore) -> FaultyStore {
    FaultyStore::new(Arc::new(inner), Watched::default())
}

/// A plan on command, of which a test can tell whether it is still there.
#[derive(Debug, Default)]
pub struct Watched {
    plan: OnCommand,
    pub alive: Arc<()>,
}

impl Deref for Watched {
    type Target = OnCommand;

    fn deref(&self) -> &OnCommand {
        &self.plan
    }
}

impl StorePlan for Watched {
    fn fate(&self, call: Call<'_>) -> Fate {
        self.plan.fate(call)
    }
}
