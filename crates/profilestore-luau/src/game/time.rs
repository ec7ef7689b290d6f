//! Real and virtual time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use profilestore::env::{Clock, Env, Rng, SystemRng};
use tokio::{runtime::Runtime, time::Instant};

use super::Server;
use crate::{services::World, vm::Failed};

/// How time passes in a game.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Time {
    /// As it does.
    Real,
    /// At once whenever nothing else is to be done: 300 s take an instant, and the same seed gives
    /// the same run. Begins on 1 January 2026, 10:20 UTC.
    Virtual,
}

/// Where virtual time begins, Unix milliseconds.
const VIRTUAL_BEGIN: i64 = 1_767_262_800_000;

impl Time {
    pub(crate) fn runtime(self) -> Result<Runtime, Failed> {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().start_paused(self == Self::Virtual);
        builder.build().map_err(|error| mlua::Error::external(error).into())
    }

    /// The clock and the identifiers; called within the runtime. Those of a run on a store that
    /// stays are never those of another: a store takes a commit whose identifier it knows for one
    /// that was made before.
    pub(crate) fn env(self, seed: u64, store_stays: bool) -> Env {
        let ids: Arc<dyn Rng> =
            if store_stays { Arc::new(SystemRng) } else { Arc::new(Seeded::new(seed)) };
        match self {
            Self::Real => Env::system(),
            Self::Virtual => Env::new(Arc::new(VirtualClock(Instant::now())), ids),
        }
    }

    /// What decides everything else that is random.
    pub(crate) fn chance(self, seed: u64) -> Arc<dyn Rng> {
        match self {
            Self::Real => Arc::new(SystemRng),
            // Apart from the identifiers, so that how many of those are drawn does not matter.
            Self::Virtual => Arc::new(Seeded::new(!seed)),
        }
    }

    /// Waits until the game is to end. True when that is because there is nothing left to be done.
    pub(crate) async fn wait(
        self,
        until: Option<Duration>,
        world: &World,
        servers: &[Server],
    ) -> bool {
        let end = async {
            match until {
                Some(until) => {
                    tokio::time::sleep(until).await;
                    false
                }
                None => {
                    let nothing_left = async {
                        while !(world.is_idle() && servers.iter().all(Server::is_idle)) {
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                        true
                    };
                    tokio::select! {
                        nothing_left = nothing_left => nothing_left,
                        // A game that goes on by itself would do so for ever.
                        () = world.gave_up(), if self == Self::Virtual => false,
                    }
                }
            }
        };
        tokio::select! {
            biased;
            nothing_left = end => nothing_left,
            () = stop_signal() => false,
        }
    }

    /// Waits until something has ended, or the game is told to end. There is something left to be
    /// done then.
    pub(crate) async fn wait_for(end: impl Future<Output = ()>) -> bool {
        tokio::select! {
            biased;
            () = end => false,
            () = stop_signal() => false,
        }
    }
}

/// Waits for SIGTERM or Ctrl-C.
async fn stop_signal() {
    if profilestore::stop_signal().await.is_err() {
        std::future::pending().await
    }
}

struct VirtualClock(Instant);

impl Clock for VirtualClock {
    fn unix_ms(&self) -> i64 {
        VIRTUAL_BEGIN
            .saturating_add(i64::try_from(self.0.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}

/// The same numbers for the same seed (splitmix64).
#[derive(Debug)]
pub(super) struct Seeded(AtomicU64);

impl Seeded {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.into())
    }

    fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Rng for Seeded {
    fn bits(&self) -> u128 {
        (u128::from(self.next()) << 64) | u128::from(self.next())
    }
}
