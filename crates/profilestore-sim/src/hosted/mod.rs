//! A world of game servers that run in other processes: hosts that die, are stopped and go on, and
//! game servers that die, are stopped, stall, move from host to host, and repeat what they asked.
//!
//! It is a world of its own beside the one of [`crate::world`], with the same store underneath. The
//! game servers are what an SDK is: they keep their documents, number their requests, believe in
//! their sessions by the published formula, and repeat what was not answered. The wire between a
//! game server and its host is a call that takes time and may stall.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use profilestore::{
    ErrorKind, Settings,
    data_store::{
        DataStore, MemoryStore,
        fault::{Chances, Drawn, FaultyStore, LineState},
    },
    env::{Clock, Env},
    hosting::{Host, HostParts, Registration, Resume, Resumed},
    messenger::{
        LocalMessenger,
        fault::{FaultyMessenger, HintChances},
    },
};
use tokio::time::Instant;

use crate::{
    dice::Dice,
    meanwhile,
    watch::Watched,
    world::{
        Outcome, Size,
        life::{Life, Plan},
    },
};

mod guest;
mod ledger;
mod wire;

use guest::Guest;
use ledger::Ledger;

/// How many processes host game servers.
const HOSTS: usize = 3;

/// For so many players there is one profile.
const PLAYERS_A_PROFILE: usize = 4;

/// The wall clock of everybody. What wrong clocks do is played in the other world.
struct WallClock {
    began: Instant,
    start_ms: i64,
}

impl Clock for WallClock {
    fn unix_ms(&self) -> i64 {
        self.start_ms + self.began.elapsed().as_millis() as i64
    }
}

/// A process that hosts game servers, while it runs.
#[derive(Clone)]
struct Process {
    host: Host,
    life: Arc<Life>,
}

/// A place where such processes run, one at a time.
#[derive(Default)]
struct Node {
    running: Mutex<Option<Process>>,
}

struct World {
    ledger: Arc<Mutex<Ledger>>,
    store: Arc<Watched>,
    clock: Arc<WallClock>,
    messenger: Arc<LocalMessenger>,
    nodes: Vec<Node>,
    chances: Chances,
    hints: HintChances,
    keys: Vec<String>,
    is_calm: AtomicBool,
    seed: u64,
}

/// Runs a seed's world to its end.
pub fn run(seed: u64, size: Size, traced: bool) -> Outcome {
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
    for node in 0..HOSTS {
        world.start_host(node, 0);
    }
    let guests: Vec<Arc<Guest>> =
        (0..size.servers + 1).map(|number| Guest::start(&world, number)).collect();
    world.chaos(&guests, Duration::from_secs(60 * size.minutes)).await;
    if !world.is_broken() {
        world.peace(&guests).await;
    }
    for guest in &guests {
        guest.kill();
    }
    let mut ledger = world.ledger.lock();
    Outcome {
        violation: ledger.violation.take(),
        counts: std::mem::take(&mut ledger.counts),
        trace: ledger.trace.take().unwrap_or_default(),
    }
}

impl World {
    fn new(seed: u64, size: Size, traced: bool) -> Arc<Self> {
        let dice = Dice::new(seed, 70_000);
        let start_ms = 1_795_000_000_000 + dice.below(3_600_000) as i64;
        let clock = Arc::new(WallClock { began: Instant::now(), start_ms });
        let env = Env::new(Arc::new(SharedClock(clock.clone())), Arc::new(dice.rng()));
        let ledger = Arc::new(Mutex::new(Ledger::new(traced)));
        let witness = Arc::new(ledger::Clerk(ledger.clone()));
        let rate = *dice.pick(&[0.0, 0.003, 0.01, 0.03]);
        let chances = Chances {
            refused: rate,
            request_lost: rate,
            answer_lost: rate,
            late: rate,
            late_by: Duration::from_secs(30),
            latency: Duration::from_millis(*dice.pick(&[0, 2, 20, 100])),
            stall: rate / 2.0,
            stall_time: Duration::from_secs(15),
        };
        let lost = *dice.pick(&[0.0, 0.2, 1.0]);
        let profiles = (size.players / PLAYERS_A_PROFILE).max(2);
        Arc::new(Self {
            ledger,
            store: Arc::new(Watched::new(MemoryStore::new(env), witness)),
            clock,
            messenger: Arc::new(LocalMessenger::new()),
            nodes: (0..HOSTS).map(|_| Node::default()).collect(),
            chances,
            hints: HintChances { lost, ..HintChances::default() },
            keys: (0..profiles).map(|number| format!("p{number}")).collect(),
            is_calm: false.into(),
            seed,
        })
    }

    fn note(&self, key: Option<&str>, text: impl FnOnce() -> String) {
        self.ledger.lock().note(key, text);
    }

    fn count(&self, what: &'static str) {
        self.ledger.lock().counts.add(what);
    }

    fn is_broken(&self) -> bool {
        self.ledger.lock().violation.is_some()
    }

    fn is_calm(&self) -> bool {
        self.is_calm.load(Ordering::Relaxed)
    }

    fn running(&self, node: usize) -> Option<Process> {
        self.nodes[node].running.lock().clone()
    }

    /// Starts a process on a node. It never fails: a host asks nothing of the store.
    fn start_host(&self, node: usize, life: u64) {
        let dice = Dice::new(self.seed, 71_000 + 100 * node as u64 + life);
        let env = Env::new(Arc::new(SharedClock(self.clock.clone())), Arc::new(dice.rng()));
        // Monotonic clocks go wrong by up to half a percent.
        let env = env.drifting(1.0 + (dice.part() - 0.5) * *dice.pick(&[0.0, 0.001, 0.01]));
        let chances = if self.is_calm() { self.calm() } else { self.chances };
        let plan = Plan::new(Drawn::new(dice.rng(), chances));
        let store = FaultyStore::new(self.store.clone() as Arc<dyn DataStore>, plan.clone());
        let messenger = FaultyMessenger::new(
            self.messenger.clone(),
            store.line().clone(),
            dice.rng(),
            self.hints,
        );
        let job = format!("h{node}-{life}");
        let life = Life::new(job.clone(), store.line().clone(), plan, Default::default());
        let host = Host::new(HostParts {
            store: Arc::new(store),
            messenger: Arc::new(messenger),
            settings: Settings::default(),
            env,
        })
        .expect("the settings are right");
        self.note(None, || format!("{job} starts"));
        *self.nodes[node].running.lock() = Some(Process { host, life });
    }

    fn calm(&self) -> Chances {
        Chances { latency: self.chances.latency, ..Chances::default() }
    }

    /// What happens to processes, for so long.
    async fn chaos(self: &Arc<Self>, guests: &[Arc<Guest>], time: Duration) {
        let dice = Dice::new(self.seed, 72_000);
        let mean = *dice.pick(&[10.0, 25.0, 60.0]);
        let (until, mut lives) = (Instant::now() + time, 0);
        while Instant::now() < until && !self.is_broken() {
            tokio::time::sleep(dice.around(mean)).await;
            lives += 1;
            let node = dice.below(HOSTS);
            let guest = &guests[dice.below(guests.len())];
            match dice.below(10) {
                0 | 1 => self.kill_host(node, lives, dice.seconds(0.0, 8.0)),
                2 => self.stop_host(node, dice.seconds(0.5, 40.0)),
                3 => guest.stall(dice.seconds(1.0, 30.0)),
                4 => guest.moves(),
                5 => guest.pause(dice.seconds(1.0, 50.0)),
                6 => self.cut_host(node, dice.seconds(1.0, 45.0)),
                7 => self.intrude(node, guest),
                8 => guest.moves_and_stalls(dice.seconds(1.0, 30.0)),
                _ => guest.die(dice.seconds(0.0, 40.0)),
            }
        }
    }

    fn kill_host(self: &Arc<Self>, node: usize, life: u64, away: Duration) {
        let Some(process) = self.nodes[node].running.lock().take() else { return };
        self.note(None, || format!("{} is killed", process.life.job));
        self.count("hosts killed");
        process.life.set_line(LineState::Severed);
        process.life.end();
        let world = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(away).await;
            world.start_host(node, life);
        });
    }

    /// Stops a process where it is, and lets it go on.
    fn stop_host(self: &Arc<Self>, node: usize, time: Duration) {
        self.count("hosts stopped");
        self.set_line(node, LineState::Held, time);
    }

    /// Cuts a process off from the store. Its game servers hear it all the same.
    fn cut_host(self: &Arc<Self>, node: usize, time: Duration) {
        self.count("hosts cut off from the store");
        self.set_line(node, LineState::Cut, time);
    }

    fn set_line(self: &Arc<Self>, node: usize, line: LineState, time: Duration) {
        let Some(Process { life, .. }) = self.running(node) else { return };
        self.note(None, || format!("the line of {} is {line:?} for {time:?}", life.job));
        life.set_line(line);
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            if !life.is_over() {
                life.set_line(LineState::Open);
            }
        });
    }

    /// A stranger, who knows everything but the secret, tries to resume a game server.
    fn intrude(self: &Arc<Self>, node: usize, guest: &Guest) {
        let (Some(process), Some(known)) = (self.running(node), guest.identity()) else { return };
        let world = self.clone();
        tokio::spawn(async move {
            let (incarnation, store) = known;
            let (job, owner) = ("stranger".to_owned(), "a stranger".to_owned());
            let again = Registration { job, place: 1, owner: owner.clone(), lease_time: None };
            match process.host.resume(Resume { incarnation, store, owner, again }).await {
                Ok(Resumed::Same(_) | Resumed::Anew(_)) => {
                    let what = format!("a stranger has resumed {incarnation}");
                    world.ledger.lock().broken("hosting", None, what);
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    world.count("strangers refused");
                }
                _ => {}
            }
        });
    }

    /// Everything works from now on: everybody is served, and everything comes to rest.
    async fn peace(self: &Arc<Self>, guests: &[Arc<Guest>]) {
        self.note(None, || "peace".to_owned());
        self.is_calm.store(true, Ordering::Relaxed);
        // Late requests arrive, and what was stopped goes on.
        tokio::time::sleep(Duration::from_secs(120)).await;
        for node in 0..HOSTS {
            if let Some(Process { life, .. }) = self.running(node) {
                life.plan.set(self.calm());
                life.set_line(LineState::Open);
            }
        }
        for guest in guests {
            if !guest.comes_to_rest().await {
                let what = format!("{} cannot end its sessions in peace", guest.job());
                self.ledger.lock().broken("G8", None, what);
                return;
            }
        }
        // The last of them takes what waits in the inboxes.
        for key in &self.keys {
            if !guests[0].visits(key).await {
                let what = "the profile cannot be opened in peace".to_owned();
                self.ledger.lock().broken("G2", Some(key), what);
                return;
            }
        }
        let mut ends = BTreeMap::new();
        for key in &self.keys {
            ends.insert(key.clone(), self.store.side(&wire::profile_key(key)).await);
        }
        self.ledger.lock().finally(&ends);
    }
}

struct SharedClock(Arc<WallClock>);

impl Clock for SharedClock {
    fn unix_ms(&self) -> i64 {
        self.0.unix_ms()
    }
}
