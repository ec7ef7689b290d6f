//! What the tests of sessions stand on: game servers on one store in memory, in paused time, and a store that fails on command.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use profilestore::{
    GameServer, Profile, ProfileKey, ProfileStore, Settings,
    data_store::{
        Commit, CommitReply, DataStore, Identity, KeyQuery, KeyState, MemoryStore, Retention, Returning, ServerRow, Snapshot,
        StoreError, StoredVersion, SweepCursor, SweepReport, VersionInfo, VersionQuery, VersionRef,
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
        let store = FaultyStore::new(MemoryStore::new(env.clone()));
        Self { env, store, messenger: Some(LocalMessenger::new()), settings: Settings::default() }
    }

    pub fn without_messenger() -> Self {
        Self { messenger: None, ..Self::new() }
    }

    pub async fn server(&self, job: &str) -> GameServer {
        self.server_on(job, self.store.clone()).await
    }

    /// A server that reaches the same profiles through a store of its own.
    pub async fn server_on(&self, job: &str, store: impl DataStore) -> GameServer {
        let builder = GameServer::builder(store).job_id(job).env(self.env.clone()).settings(self.settings.clone());
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
    players(server).get(key).await.unwrap().data.coins
}

/// Lets everything that is under way settle, in paused time.
pub async fn settle() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// What becomes of the next calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// They do not arrive.
    Unavailable,
    /// Commits are applied, and the answer is lost.
    AnswerLost,
    /// Commits do not arrive, and nobody can tell.
    RequestLost,
}

/// A store that fails on command.
#[derive(Debug, Clone)]
pub struct FaultyStore {
    inner: MemoryStore,
    /// The next calls' fault, how many of them, and whether renewals are spared.
    plan: Arc<Mutex<Option<(Fault, u64)>>>,
    spare_renewals: Arc<AtomicBool>,
    /// How many commits the plan spares first.
    spared: Arc<AtomicU64>,
    /// How long answers to reads are under way, in milliseconds.
    read_delay: Arc<AtomicU64>,
    pub commits: Arc<AtomicU64>,
    pub reads: Arc<AtomicU64>,
}

impl FaultyStore {
    pub fn new(inner: MemoryStore) -> Self {
        Self {
            inner,
            plan: Arc::default(),
            spare_renewals: Arc::new(AtomicBool::new(true)),
            spared: Arc::default(),
            read_delay: Arc::default(),
            commits: Arc::default(),
            reads: Arc::default(),
        }
    }

    /// Another way to the same profiles, with faults of its own.
    pub fn another_way(&self) -> Self {
        Self::new(self.inner.clone())
    }

    /// The next `count` calls fail so; renewals of servers are spared.
    pub fn fail(&self, fault: Fault, count: u64) {
        self.spare_renewals.store(true, Ordering::SeqCst);
        *self.plan.lock() = Some((fault, count));
    }

    /// The plan begins after so many commits.
    pub fn spare(&self, commits: u64) {
        self.spared.store(commits, Ordering::SeqCst);
    }

    /// From now on what was read is this old when it arrives.
    pub fn delay_reads(&self, ms: u64) {
        self.read_delay.store(ms, Ordering::SeqCst);
    }

    /// Everything fails until [`FaultyStore::heal`].
    pub fn cut_off(&self) {
        self.spare_renewals.store(false, Ordering::SeqCst);
        *self.plan.lock() = Some((Fault::Unavailable, u64::MAX));
    }

    /// Nothing is written until [`FaultyStore::heal`]; reads are answered. A full disk, or a primary that has become a standby.
    pub fn refuse_writes(&self) {
        self.spare_renewals.store(false, Ordering::SeqCst);
        *self.plan.lock() = Some((Fault::RequestLost, u64::MAX));
    }

    pub fn heal(&self) {
        *self.plan.lock() = None;
    }

    fn next_fault(&self, renewal: bool) -> Option<Fault> {
        if renewal && self.spare_renewals.load(Ordering::SeqCst) {
            return None;
        }
        let mut plan = self.plan.lock();
        let (fault, left) = plan.as_mut()?;
        let spared = self.spared.load(Ordering::SeqCst);
        if spared > 0 && !renewal {
            self.spared.store(spared - 1, Ordering::SeqCst);
            return None;
        }
        let fault = *fault;
        *left -= 1;
        if *left == 0 {
            *plan = None;
        }
        Some(fault)
    }

    fn read_fault(&self) -> Result<(), StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let outage = || StoreError::Unavailable { reason: "on command".into() };
        // A plan about commits does not concern reads.
        let plan = self.plan.lock();
        match *plan {
            Some((Fault::Unavailable, _)) => Err(outage()),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl DataStore for FaultyStore {
    async fn identity(&self) -> Result<Identity, StoreError> {
        self.inner.identity().await
    }

    async fn read(&self, keys: &[ProfileKey], returning: Returning) -> Result<Snapshot, StoreError> {
        self.read_fault()?;
        let found = self.inner.read(keys, returning).await;
        match self.read_delay.load(Ordering::SeqCst) {
            0 => {}
            ms => tokio::time::sleep(Duration::from_millis(ms)).await,
        }
        found
    }

    async fn version(&self, key: &ProfileKey, version: &VersionRef) -> Result<Option<StoredVersion>, StoreError> {
        self.inner.version(key, version).await
    }

    async fn versions(&self, query: &VersionQuery) -> Result<Vec<VersionInfo>, StoreError> {
        self.inner.versions(query).await
    }

    async fn keys(&self, query: &KeyQuery) -> Result<Vec<KeyState>, StoreError> {
        self.inner.keys(query).await
    }

    async fn servers(&self) -> Result<(i64, Vec<ServerRow>), StoreError> {
        self.inner.servers().await
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<CommitReply, StoreError>> {
        use profilestore::data_store::Change;
        let mut results = Vec::new();
        for commit in commits {
            let renewal = commit.changes.iter().all(|change| matches!(change, Change::RenewServer { .. }));
            if !renewal {
                self.commits.fetch_add(1, Ordering::SeqCst);
            }
            let id = commit.id;
            let unknown = || StoreError::Indeterminate { commit: id, reason: "on command".into() };
            results.push(match self.next_fault(renewal) {
                None => self.inner.commit(vec![commit]).await.remove(0),
                Some(Fault::Unavailable) => Err(StoreError::Unavailable { reason: "on command".into() }),
                Some(Fault::RequestLost) => Err(unknown()),
                Some(Fault::AnswerLost) => match self.inner.commit(vec![commit]).await.remove(0) {
                    Ok(_) => Err(unknown()),
                    refused => refused,
                },
            });
        }
        results
    }

    async fn sweep(&self, retention: Retention, cursor: Option<SweepCursor>) -> Result<SweepReport, StoreError> {
        self.inner.sweep(retention, cursor).await
    }
}
