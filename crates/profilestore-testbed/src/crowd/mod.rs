//! Game servers over the WebSocket with very many sessions each, which they hold as an SDK does.
//! Each session changes once in a while, and a change is saved within a time. What was not answered
//! is sent again after a resume. They believe in their sessions by the protocol's formula, change
//! nothing in which they do not believe, and count what becomes of all that.

mod connection;
mod game;
mod report;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use game::Game;
pub use report::{CrowdReport, Gap, Over};

/// How often it is looked whether all game servers have come so far.
const LOOK: Duration = Duration::from_millis(20);

/// What the game servers of a crowd are like.
#[derive(Debug, Clone)]
pub struct CrowdPlan {
    /// The server processes. A game server goes on to the next one when its connection ends.
    pub servers: Vec<SocketAddr>,
    /// The key for them.
    pub key: String,
    /// Names the game servers, and their profiles in `PlayerData`: see [`CrowdPlan::profile`].
    pub name: String,
    /// How many game servers there are.
    pub game_servers: u64,
    /// How many sessions each of them has.
    pub sessions: u64,
    /// Their lease time. None: what the server process takes.
    pub lease: Option<Duration>,
    /// The data of a new profile, as JSON that has `"coins":0` in it. The coins of a profile are
    /// the time of its last change, in Unix milliseconds.
    pub data: Arc<str>,
    /// The wall clock when the crowd begins, in Unix milliseconds.
    pub now_ms: u64,
    /// How often each session changes.
    pub change_every: Duration,
    /// Within which time a change is to be saved.
    pub save_within: Duration,
}

impl CrowdPlan {
    /// The key of a profile. Game servers count from 0, their sessions from 1.
    pub fn profile(&self, game_server: u64, session: u64) -> String {
        format!("{}-{game_server}-{session}", self.name)
    }
}

/// What the game servers are to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Steer {
    /// They open their sessions, and hold them.
    Hold,
    /// Every session changes.
    Play,
    /// Nothing changes any more, and what has changed is saved.
    Rest,
    /// The sessions end.
    End,
}

/// What all game servers of a crowd count together.
#[derive(Debug, Default)]
struct Counts {
    open: AtomicU64,
    resting: AtomicU64,
    saves: AtomicU64,
    /// The longest time of a save since this was asked for, in microseconds.
    longest: AtomicU64,
}

/// Game servers at play. They end silently when this is dropped.
#[derive(Debug)]
pub struct Crowd {
    steer: watch::Sender<Steer>,
    counts: Arc<Counts>,
    game_servers: JoinSet<CrowdReport>,
    sessions: u64,
}

impl Crowd {
    /// Starts the game servers, which open their sessions.
    pub fn start(plan: CrowdPlan) -> Self {
        let (steer, steered) = watch::channel(Steer::Hold);
        let counts = Arc::<Counts>::default();
        let sessions = plan.game_servers * plan.sessions;
        let plan = Arc::new(plan);
        let mut game_servers = JoinSet::new();
        for number in 0..plan.game_servers {
            let game = Game::new(plan.clone(), number, counts.clone());
            game_servers.spawn(game.run(steered.clone()));
        }
        Self { steer, counts, game_servers, sessions }
    }

    /// Waits until every session is open. False: it takes longer than that.
    pub async fn is_open_within(&self, limit: Duration) -> bool {
        until(limit, || self.counts.open.load(Ordering::Relaxed) >= self.sessions).await
    }

    /// From now on every session changes.
    pub fn play(&self) {
        self.steer.send_replace(Steer::Play);
    }

    /// Lets nothing change any more, and waits until all changes are stored. False: it takes longer
    /// than that.
    pub async fn is_saved_within(&self, limit: Duration) -> bool {
        self.steer.send_replace(Steer::Rest);
        let all = self.game_servers.len() as u64;
        until(limit, || self.counts.resting.load(Ordering::Relaxed) >= all).await
    }

    /// How many saves were answered so far.
    pub fn saves(&self) -> u64 {
        self.counts.saves.load(Ordering::Relaxed)
    }

    /// The longest time from a save to its answer, since this was asked last.
    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.counts.longest.swap(0, Ordering::Relaxed))
    }

    /// Ends every session, and answers what became of the crowd. None: a game server does not end
    /// in that time, or has panicked.
    pub async fn end_within(mut self, limit: Duration) -> Option<CrowdReport> {
        self.steer.send_replace(Steer::End);
        let ends = async {
            let mut report = CrowdReport::default();
            while let Some(ended) = self.game_servers.join_next().await {
                report.add(ended.ok()?);
            }
            Some(report)
        };
        timeout(limit, ends).await.ok()?
    }
}

/// Waits until something is so. False: it takes longer than that.
async fn until(limit: Duration, is_so: impl Fn() -> bool) -> bool {
    let until = Instant::now() + limit;
    while !is_so() {
        if Instant::now() >= until {
            return false;
        }
        sleep(LOOK).await;
    }
    true
}
