//! One seed's world: game servers on one store, players, and everything that goes wrong with them;
//! then peace, in which everybody must be served.
//!
//! It runs on one thread in paused time, so nothing but the seed decides what happens.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use profilestore::{
    GameServer, Settings,
    data_store::{
        DataStore, MemoryStore,
        fault::{Chances, Drawn, FaultyStore, LineState},
    },
    env::{Clock, Env},
    messenger::{
        LocalMessenger,
        fault::{FaultyMessenger, HintChances},
    },
};
use tokio::time::Instant;

use crate::{
    books::{Books, Clerk, Counts, Line as TraceLine, Violation},
    dice::Dice,
    heard::Heard,
    hosted,
    invariants::Broken,
    meanwhile,
    seat::Doors,
    slow::{Bytes, Pace, SlowStore},
    watch::Watched,
};

mod burst;
mod calls;
mod chaos;
mod dealings;
mod errands;
mod haste;
pub mod life;
mod operators;
mod peace;
mod players;
mod sessions;

use life::{Life, Plan};

/// How large a world is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub servers: usize,
    pub players: usize,
    /// Virtual minutes of chaos.
    pub minutes: u64,
    /// Clients are in haste: they call without waiting, call starts off, and open one profile in
    /// several ways.
    pub hasty: bool,
    /// The other world: game servers that run in other processes ([`crate::hosted`]).
    pub hosted: bool,
}

impl Size {
    pub const SMALL: Self =
        Self { servers: 3, players: 24, minutes: 30, hasty: true, hosted: false };
    pub const LARGE: Self =
        Self { servers: 12, players: 300, minutes: 60, hasty: true, hosted: false };
}

/// What came of a world.
#[derive(Debug)]
pub struct Outcome {
    pub violation: Option<Violation>,
    pub counts: Counts,
    pub trace: Vec<TraceLine>,
}

/// How bad things are in this world, drawn once.
#[derive(Debug, Clone, Copy)]
struct Weather {
    store: Chances,
    hints: HintChances,
    /// Mean seconds between mishaps.
    mishaps: f64,
    /// How long the store takes for each commit, one after the other.
    pace: Duration,
}

impl Weather {
    fn draw(dice: &Dice) -> Self {
        let rate = *dice.pick(&[0.0, 0.0, 0.003, 0.01, 0.03]);
        let store = Chances {
            refused: rate,
            request_lost: rate,
            answer_lost: rate,
            late: rate,
            late_by: Duration::from_secs(30),
            latency: Duration::from_millis(*dice.pick(&[0, 2, 20, 100])),
            stall: rate / 2.0,
            stall_time: Duration::from_secs(15),
        };
        let hints = match dice.below(4) {
            0 => HintChances::default(),
            1 => HintChances { lost: 1.0, ..HintChances::default() },
            _ => HintChances {
                lost: 0.2,
                repeated: 0.2,
                delayed: 0.3,
                delay: Duration::from_secs(3),
                dies: 0.2,
                death: Duration::from_secs(600),
            },
        };
        Self { store, hints, mishaps: *dice.pick(&[20.0, 45.0, 120.0]), pace: Duration::ZERO }
    }

    /// In some worlds the store is too slow for what is asked of it.
    fn overloaded(self, dice: &Dice) -> Self {
        let pace = *dice.pick(&[0, 0, 0, 0, 0, 50, 150, 400]);
        Self { pace: Duration::from_millis(pace), ..self }
    }

    /// For how long a request may wait at the store.
    fn backlog(&self) -> Duration {
        self.pace * 1500
    }

    /// Servers' settings in it: in a world with a slow store they save more than it takes.
    fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        if !self.pace.is_zero() {
            settings.autosave_period = Duration::from_secs(10);
            settings.save_changes_within = Some(Duration::from_secs(1));
        }
        settings
    }

    /// The same without faults of the store. Hints stay as they are: nothing may depend on them.
    fn calm(&self) -> Chances {
        Chances { latency: self.store.latency, ..Chances::default() }
    }
}

/// The store's wall clock, which may step.
#[derive(Debug)]
struct StoreClock {
    began: Instant,
    start_ms: i64,
    stepped_ms: AtomicI64,
    last_step: Mutex<Option<Instant>>,
}

impl Clock for StoreClock {
    fn unix_ms(&self) -> i64 {
        self.start_ms
            + self.began.elapsed().as_millis() as i64
            + self.stepped_ms.load(Ordering::Relaxed)
    }
}

/// A server's wall clock: wrong by a constant, and too fast or too slow.
struct ServerClock {
    began: Instant,
    start_ms: i64,
    rate: f64,
}

impl Clock for ServerClock {
    fn unix_ms(&self) -> i64 {
        self.start_ms + (self.began.elapsed().as_millis() as f64 * self.rate) as i64
    }
}

/// A place where game servers run, one at a time.
struct Node {
    running: Mutex<Option<Running>>,
}

#[derive(Clone)]
struct Running {
    server: GameServer,
    doors: Doors,
    life: Arc<Life>,
}

struct World {
    size: Size,
    clerk: Arc<Clerk>,
    store: Arc<Watched>,
    clock: Arc<StoreClock>,
    messenger: Arc<LocalMessenger>,
    nodes: Vec<Node>,
    weather: Weather,
    pace: Pace,
    calm: std::sync::atomic::AtomicBool,
    seed: u64,
    lives: std::sync::atomic::AtomicU64,
    /// Operators between reading and writing. No backup is restored meanwhile: what they write is
    /// theirs to answer for.
    operating: std::sync::atomic::AtomicUsize,
}

/// Runs a seed's world to its end.
pub fn run(seed: u64, size: Size, traced: bool) -> Outcome {
    if size.hosted {
        return hosted::run(seed, size, traced);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O can be built");
    let outcome = runtime.block_on(live(seed, size, traced));
    drop(runtime);
    meanwhile::cancel();
    outcome
}

async fn live(seed: u64, size: Size, traced: bool) -> Outcome {
    let world = World::new(seed, size, traced);
    world.chaos().await;
    if world.clerk.0.lock().violation.is_none() {
        world.peace().await;
    }
    let mut books = world.clerk.0.lock();
    // Sessions hold their engine, that its store, and that these books.
    let sessions = std::mem::take(&mut books.told.sessions);
    let starts = std::mem::take(&mut books.told.starts);
    let outcome = Outcome {
        violation: books.violation.take(),
        counts: std::mem::take(&mut books.counts),
        trace: books.trace.take().unwrap_or_default(),
    };
    drop(books);
    drop((sessions, starts));
    outcome
}

impl World {
    fn new(seed: u64, size: Size, traced: bool) -> Arc<Self> {
        let dice = Dice::new(seed, 0);
        let start_ms = 1_795_000_000_000 + dice.below(3_600_000) as i64;
        let clock = Arc::new(StoreClock {
            began: Instant::now(),
            start_ms,
            stepped_ms: AtomicI64::new(0),
            last_step: Mutex::default(),
        });
        let env = Env::new(Arc::new(SharedClock(clock.clone())), Arc::new(dice.rng()));
        let clerk = Arc::new(Clerk(Mutex::new(Books::new(traced))));
        let store = Arc::new(Watched::new(MemoryStore::new(env), clerk.clone()));
        let weather = Weather::draw(&dice);
        let weather =
            if size.hasty { weather.overloaded(&Dice::new(seed, 60_000)) } else { weather };
        clerk.0.lock().told.backlog = weather.backlog();
        let nodes = (0..size.servers).map(|_| Node { running: Mutex::new(None) }).collect();
        let world = Arc::new(Self {
            size,
            clerk,
            store,
            clock,
            messenger: Arc::new(LocalMessenger::new()),
            nodes,
            weather,
            pace: Pace::new(weather.pace),
            calm: false.into(),
            seed,
            lives: 0.into(),
            operating: 0.into(),
        });
        world.note(None, || format!("{weather:?}"));
        world
    }

    fn note(&self, key: Option<&str>, text: impl FnOnce() -> String) {
        self.clerk.0.lock().note(key, text);
    }

    fn count(&self, what: &'static str) {
        self.clerk.0.lock().counts.add(what);
    }

    fn check(&self, outcome: Result<(), Broken>) {
        self.clerk.0.lock().check(outcome);
    }

    fn is_broken(&self) -> bool {
        self.clerk.0.lock().violation.is_some()
    }

    fn running(&self, node: usize) -> Option<Running> {
        self.nodes[node].running.lock().clone()
    }

    /// The server of this life, while it runs.
    fn running_of(&self, life: &Arc<Life>) -> Option<Running> {
        let nodes = 0..self.size.servers;
        nodes.filter_map(|node| self.running(node)).find(|running| Arc::ptr_eq(&running.life, life))
    }

    /// Starts a server on a node, trying until it works.
    async fn start_server(self: &Arc<Self>, node: usize, same_job: Option<String>) {
        let life_number = self.lives.fetch_add(1, Ordering::Relaxed) + 1;
        let dice = Dice::new(self.seed, 1000 + life_number);
        let job = same_job.unwrap_or_else(|| format!("n{node}-{life_number}"));
        let rate = 1.0 + (dice.part() - 0.5) * 0.001;
        let skew = (dice.part() - 0.5) * *dice.pick(&[0.0, 100.0, 120_000.0, 7_200_000.0]);
        let clock = ServerClock {
            began: self.clock.began,
            start_ms: self.clock.start_ms + skew as i64,
            rate,
        };
        let env = Env::new(Arc::new(clock), Arc::new(dice.rng()));
        // Monotonic clocks go wrong by up to a percent.
        let pace = 1.0 + (dice.part() - 0.5) * *dice.pick(&[0.0, 0.001, 0.02]);
        let env = env.drifting(pace);
        let calm = self.calm.load(Ordering::Relaxed);
        let chances = if calm { self.weather.calm() } else { self.weather.store };
        let plan = Plan::new(Drawn::new(dice.rng(), chances));
        let under_way = Bytes::default();
        let inner =
            SlowStore::new(self.store.clone(), self.pace.clone(), plan.clone(), under_way.clone());
        let store = FaultyStore::new(Arc::new(inner) as Arc<dyn DataStore>, plan.clone());
        let hints = FaultyMessenger::new(
            self.messenger.clone(),
            store.line().clone(),
            dice.rng(),
            self.weather.hints,
        );
        let life = Life::new(job.clone(), store.line().clone(), plan, under_way);
        let way = Heard::new(Arc::new(store.clone()), self.clerk.clone());
        loop {
            let start =
                GameServer::builder(way.clone()).messenger(hints.clone()).job_id(job.clone());
            match start.env(env.clone()).settings(self.weather.settings()).start().await {
                Ok(server) => {
                    let doors = Doors::new(&server, "PlayerData");
                    self.note(None, || format!("{job} starts as {}", server.server_id()));
                    self.count("servers started");
                    *self.nodes[node].running.lock() = Some(Running { server, doors, life });
                    return;
                }
                Err(error) => self.note(None, || format!("{job} cannot start: {error}")),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Kills what runs on a node.
    fn crash(&self, node: usize) -> Option<String> {
        let running = self.nodes[node].running.lock().take()?;
        self.note(None, || format!("{} crashes", running.life.job));
        self.count("crashes");
        running.life.set_line(LineState::Severed);
        running.life.end();
        running.server.crash();
        Some(running.life.job.clone())
    }
}

struct SharedClock(Arc<StoreClock>);

impl Clock for SharedClock {
    fn unix_ms(&self) -> i64 {
        self.0.unix_ms()
    }
}
