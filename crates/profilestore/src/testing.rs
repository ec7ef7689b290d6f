//! A kit for the tests of a game: game servers on one store in memory, a clock that moves as the
//! test waits, and faults on command.
//!
//! ```
//! use profilestore::{GameServer, ProfileStore, testing::World};
//!
//! #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
//! struct Player {
//!     coins: u64,
//! }
//!
//! fn players(server: &GameServer) -> ProfileStore<Player> {
//!     server.store_builder("PlayerData").template(Player::default()).build().unwrap()
//! }
//!
//! // In a test: #[tokio::test(start_paused = true)]
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let world = World::new();
//! let (one, two) = (world.server("one").await, world.server("two").await);
//! let alice = players(&one).start_session("alice").await.unwrap();
//! alice.update(|data| data.coins = 10).unwrap();
//! alice.save().await.unwrap();
//! alice.update(|data| data.coins = 20).unwrap();
//! one.crash();
//! // Twenty seconds later, in an instant:
//! let alice = players(&two).start_session("alice").await.unwrap();
//! assert_eq!(alice.read(|data| data.coins), 10);
//! # }
//! ```
//!
//! Begin each test with `#[tokio::test(start_paused = true)]`: tokio's time then jumps whenever all
//! tasks wait, so that a minute costs nothing. That needs tokio's feature `test-util`, which the
//! game names in its own dev-dependencies; the library's feature of the same name does not turn it
//! on. Without `start_paused` a world works too, and an hour takes an hour.

use std::{ops::Deref, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::{
    api::game_server::GameServer,
    data_store::{
        MemoryStore,
        fault::{Fault, FaultyStore, LineState, OnCommand},
    },
    env::{Env, SeededRng, TokioClock},
    messenger::{LocalMessenger, NoMessenger},
    settings::Settings,
};

/// How long [`World::until`] waits.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Game servers that share a store in memory.
///
/// Its clock shows noon on 2026-11-18 when it is made, and follows tokio's. Its identifiers come
/// from a seed, so a test that is run again is the same again.
#[derive(Debug)]
pub struct World {
    env: Env,
    store: Arc<MemoryStore>,
    hints: Option<LocalMessenger>,
    settings: Settings,
    /// Each server's way to the store.
    ways: Mutex<Vec<FaultyStore<OnCommand>>>,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// An empty store, and no server yet. Must be called within a Tokio runtime.
    pub fn new() -> Self {
        let env = Env::new(Arc::new(TokioClock::default()), Arc::new(SeededRng::new(1)));
        Self {
            store: Arc::new(MemoryStore::new(env.clone())),
            env,
            hints: Some(LocalMessenger::new()),
            settings: Settings::default(),
            ways: Mutex::default(),
        }
    }

    /// The settings of the servers to come.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// No hints between the servers to come, as when NATS is down: hand-overs and messages wait for
    /// a renewal of the lease, up to 5 s.
    #[must_use]
    pub fn without_hints(mut self) -> Self {
        self.hints = None;
        self
    }

    /// Starts a game server of this name (its job id).
    ///
    /// # Panics
    ///
    /// When it cannot start, because its settings cannot work.
    pub async fn server(&self, name: &str) -> TestServer {
        let way = FaultyStore::new(self.store.clone(), OnCommand::default());
        let builder = GameServer::builder(way.clone())
            .job_id(name)
            .env(self.env.clone())
            .settings(self.settings.clone());
        let started = match &self.hints {
            Some(hints) => builder.messenger(hints.clone()).start().await,
            None => builder.messenger(NoMessenger).start().await,
        };
        let server = started.unwrap_or_else(|error| panic!("{name} cannot start: {error}"));
        self.ways.lock().push(way.clone());
        TestServer { server, way }
    }

    /// The world's clock and source of identifiers, for what the game itself asks.
    pub fn env(&self) -> Env {
        self.env.clone()
    }

    /// Takes the store away from every server that is there; see [`TestServer::outage`].
    pub fn outage(&self) {
        for way in &*self.ways.lock() {
            change(way, LineState::Cut);
        }
    }

    /// Ends all faults of all servers, but not a crash.
    pub fn heal(&self) {
        for way in &*self.ways.lock() {
            heal(way);
        }
    }

    /// Lets so much time go by. In paused time it takes none.
    pub async fn pass(&self, time: Duration) {
        sleep(time).await;
    }

    /// Waits until something is true, and looks every 10 ms.
    ///
    /// # Panics
    ///
    /// When it is not true after ten minutes of the world's time. `what` says what it was.
    pub async fn until(&self, what: &str, mut is_true: impl FnMut() -> bool) {
        let began = Instant::now();
        while !is_true() {
            assert!(began.elapsed() < PATIENCE, "not true after ten minutes: {what}");
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A game server of a [`World`], with faults of its own. Use it where a [`GameServer`] is wanted.
#[derive(Debug)]
pub struct TestServer {
    server: GameServer,
    way: FaultyStore<OnCommand>,
}

impl Deref for TestServer {
    type Target = GameServer;

    fn deref(&self) -> &GameServer {
        &self.server
    }
}

impl TestServer {
    /// The game server, for a game to keep.
    pub fn game_server(&self) -> GameServer {
        self.server.clone()
    }

    /// The store is away: every call fails at once, until [`TestServer::heal`].
    pub fn outage(&self) {
        change(&self.way, LineState::Cut);
    }

    /// The store does not answer: calls wait until [`TestServer::heal`], as on a network that
    /// drops everything.
    pub fn silence(&self) {
        change(&self.way, LineState::Held);
    }

    /// Each call of the store takes so long, until [`TestServer::heal`].
    pub fn slow(&self, time: Duration) {
        self.way.plan().slow(time);
    }

    /// The next `count` writes take effect, and this server is not told: unknown outcomes. Renewals
    /// of its lease are spared.
    pub fn lose_answers(&self, count: u64) {
        self.way.plan().fail(Fault::AnswerLost, count);
    }

    /// The next `count` writes are lost on the way, and this server is not told: unknown outcomes
    /// too. Renewals of its lease are spared.
    pub fn lose_requests(&self, count: u64) {
        self.way.plan().fail(Fault::RequestLost, count);
    }

    /// The store can be read and takes no write, until [`TestServer::heal`]: a full disk.
    pub fn refuse_writes(&self) {
        self.way.plan().refuse_writes();
    }

    /// Ends all faults of this server, but not a crash.
    pub fn heal(&self) {
        heal(&self.way);
    }

    /// Stops like a SIGKILL: nothing more is saved or released, and nothing under way arrives. Its
    /// lease runs out after [`Settings::lease_time`].
    pub fn crash(&self) {
        self.way.line().set(LineState::Severed);
        self.server.crash();
    }

    /// How many commits this server has asked the store for, renewals of its lease not counted.
    pub fn commits(&self) -> u64 {
        self.way.plan().commits()
    }
}

/// Changes a line, if its server has not crashed.
fn change(way: &FaultyStore<OnCommand>, state: LineState) {
    if way.line().state() != LineState::Severed {
        way.line().set(state);
    }
}

fn heal(way: &FaultyStore<OnCommand>) {
    change(way, LineState::Open);
    way.plan().heal();
    way.plan().slow(Duration::ZERO);
}
