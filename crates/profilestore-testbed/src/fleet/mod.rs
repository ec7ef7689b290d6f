//! Game servers over the WebSocket that play while a test breaks what is beneath them, and that
//! know afterwards what must be in the store.
//!
//! Each has two profiles. It saves a count that grows, moves items between its two profiles in
//! transactions, and gives presents to the others. It resumes whenever its connection ends, sends
//! again what was not answered, and repeats a frame now and then.

mod player;
mod report;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use player::Player;
pub use report::Report;

/// How many items there are for each game server.
const ITEMS: u64 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Phase {
    Play,
    /// Nothing new is asked for.
    Settle,
    /// The sessions end.
    End,
}

/// Game servers at play.
#[derive(Debug)]
pub struct Fleet {
    phase: watch::Sender<Phase>,
    settled: Arc<AtomicUsize>,
    players: Vec<JoinHandle<Player>>,
}

impl Fleet {
    /// Starts `count` game servers that connect to these ports of this machine, and play. `now_ms`
    /// is the wall clock, for the ids of messages.
    pub fn start(count: u64, ports: &[u16], key: &str, seed: u64, now_ms: i64) -> Self {
        let (phase, phases) = watch::channel(Phase::Play);
        let settled = Arc::<AtomicUsize>::default();
        let players = (0..count).map(|number| {
            let player = Player::new(number, count, ports, key, seed, now_ms);
            tokio::spawn(player.play(phases.clone(), settled.clone()))
        });
        Self { phase, players: players.collect(), settled }
    }

    /// Lets every game server come to rest and end its sessions; nothing is broken any more.
    ///
    /// # Panics
    ///
    /// When a game server does not come to rest within two minutes.
    pub async fn rest(self) -> Report {
        self.phase.send_replace(Phase::Settle);
        let all = self.players.len();
        let until = Instant::now() + Duration::from_secs(120);
        while self.settled.load(Ordering::Relaxed) < all {
            assert!(Instant::now() < until, "a game server does not come to rest");
            sleep(Duration::from_millis(50)).await;
        }
        self.phase.send_replace(Phase::End);
        let mut report = Report::default();
        for player in self.players {
            let ended = timeout(Duration::from_secs(120), player).await;
            let player = ended.expect("a game server ends").expect("no game server panics");
            report.add(player.into_report());
        }
        report
    }
}
