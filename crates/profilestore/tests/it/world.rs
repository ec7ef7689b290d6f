//! What the tests of sessions stand on: game servers on one store in memory, in paused time, and a
//! store that fails on command.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
pub use profilestore::data_store::fault::Fault;
use profilestore::{
    GameServer, Profile, ProfileStore, Settings,
    data_store::{
        DataStore, MemoryStore,
        fault::{self, Call, Fate, StorePlan},
    },
    env::{Clock, Env, Rng},
    messenger::{LocalMessenger, NoMessenger},
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// The data of the tests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Player {
    pub coins: i64,
    #[serde(default)]
    pub items: Vec<String>,
}

/// A wall clock that follows tokio's time, so that pausing that pauses this.
pub struct TokioClock(Instant);

impl Clock for TokioClock {
    fn unix_ms(&self) -> i64 {
        1_795_000_000_000 + i64::try_from(self.0.elapsed().as_millis()).unwrap()
    }
}

/// Counts, so that a test is the same each time.
pub struct Counting(AtomicU64);

impl Rng for Counting {
    fn bits(&self) -> u128 {
        u128::from(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

pub fn env() -> Env {
    Env::new(Arc::new(TokioClock(Instant::now())), Arc::new(Counting(AtomicU64::new(1))))
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
        self.store.another_way(OnCommand::default())
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
pub type FaultyStore = fault::FaultyStore<OnCommand>;

/// A store in memory that fails on command.
pub fn on_command(inner: MemoryStore) -> FaultyStore {
    FaultyStore::new(Arc::new(inner), OnCommand::default())
}

/// What becomes of the next calls, as told.
#[derive(Debug)]
pub struct OnCommand {
    /// The next calls' fault, how many of them, and whether renewals are spared.
    faults: Mutex<Option<(Fault, u64)>>,
    spare_renewals: AtomicBool,
    /// How many calls that commit are spared first.
    spared: AtomicU64,
    /// How long answers to reads are under way, in milliseconds.
    read_delay: AtomicU64,
    pub commits: Arc<AtomicU64>,
    pub reads: AtomicU64,
}

impl Default for OnCommand {
    fn default() -> Self {
        Self {
            faults: Mutex::default(),
            spare_renewals: true.into(),
            spared: AtomicU64::default(),
            read_delay: AtomicU64::default(),
            commits: Arc::default(),
            reads: AtomicU64::default(),
        }
    }
}

impl OnCommand {
    /// The next `count` calls fail so; renewals of servers are spared. Reads fail only where
    /// nothing arrives at all.
    pub fn fail(&self, fault: Fault, count: u64) {
        self.spare_renewals.store(true, Ordering::SeqCst);
        *self.faults.lock() = Some((fault, count));
    }

    /// The faults begin after so many calls that commit.
    pub fn spare(&self, calls: u64) {
        self.spared.store(calls, Ordering::SeqCst);
    }

    /// From now on what was read is this old when it arrives.
    pub fn delay_reads(&self, ms: u64) {
        self.read_delay.store(ms, Ordering::SeqCst);
    }

    /// Everything fails until [`OnCommand::heal`].
    pub fn cut_off(&self) {
        self.spare_renewals.store(false, Ordering::SeqCst);
        *self.faults.lock() = Some((Fault::Refused, u64::MAX));
    }

    /// Nothing is written until [`OnCommand::heal`]; reads are answered. A full disk, or a primary
    /// that has become a standby.
    pub fn refuse_writes(&self) {
        self.spare_renewals.store(false, Ordering::SeqCst);
        *self.faults.lock() = Some((Fault::RequestLost, u64::MAX));
    }

    pub fn heal(&self) {
        *self.faults.lock() = None;
    }

    fn next_fault(&self, renewal: bool) -> Option<Fault> {
        if renewal && self.spare_renewals.load(Ordering::SeqCst) {
            return None;
        }
        let mut faults = self.faults.lock();
        let (fault, left) = faults.as_mut()?;
        let spared = self.spared.load(Ordering::SeqCst);
        if spared > 0 && !renewal {
            self.spared.store(spared - 1, Ordering::SeqCst);
            return None;
        }
        let fault = *fault;
        *left -= 1;
        if *left == 0 {
            *faults = None;
        }
        Some(fault)
    }
}

impl StorePlan for OnCommand {
    fn fate(&self, call: Call<'_>) -> Fate {
        let fault = match call {
            Call::Read => {
                self.reads.fetch_add(1, Ordering::SeqCst);
                let back = Duration::from_millis(self.read_delay.load(Ordering::SeqCst));
                let fault = self
                    .faults
                    .lock()
                    .map(|(fault, _)| fault)
                    .filter(|fault| *fault == Fault::Refused);
                return Fate { back, fault, ..Fate::default() };
            }
            Call::Renewal => self.next_fault(true),
            Call::Commit(commits) => {
                self.commits.fetch_add(commits.len() as u64, Ordering::SeqCst);
                self.next_fault(false)
            }
            _ => None,
        };
        Fate { fault, ..Fate::default() }
    }
}
