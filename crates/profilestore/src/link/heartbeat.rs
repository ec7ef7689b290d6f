//! Whether this process has run all the time: its loop, and the machine that it is on.
//!
//! A host tells game servers how old the confirmation of their lease is. It counts that by its own
//! monotonic clock, which may stand still while the machine sleeps. So a gap in its loop, by the
//! monotonic clock or by the wall clock, makes every confirmation from before it worthless.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::env::Env;

/// How often the loop is watched.
const PERIOD: Duration = Duration::from_millis(250);

/// How far apart common moments are.
const COMMON: Duration = Duration::from_millis(500);

/// How long it may be silent.
const MOST: Duration = Duration::from_secs(1);

/// The watch over this process's loop.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    began: Instant,
    beats: Mutex<Beats>,
}

/// The pure part.
#[derive(Debug)]
struct Beats {
    last: Instant,
    last_ms: i64,
    /// When the last gap was over.
    whole_since: Instant,
}

impl Beats {
    /// The loop runs at this moment, which the wall clock shows as `now_ms`.
    fn beat(&mut self, now: Instant, now_ms: i64) {
        let passed = now.saturating_duration_since(self.last);
        let by_the_wall =
            Duration::from_millis(now_ms.saturating_sub(self.last_ms).max(0).unsigned_abs());
        if passed > MOST || by_the_wall > passed + MOST {
            self.whole_since = now;
        }
        (self.last, self.last_ms) = (now, now_ms);
    }
}

impl Heartbeat {
    pub(crate) fn new(env: &Env) -> Self {
        let now = env.now();
        let beats = Beats { last: now, last_ms: env.unix_ms(), whole_since: now };
        Self { began: now, beats: Mutex::new(beats) }
    }

    /// Since when the loop has run without a gap. To be asked, not remembered: it is judged now.
    pub(crate) fn whole_since(&self, env: &Env) -> Instant {
        let mut beats = self.beats.lock();
        beats.beat(env.now(), env.unix_ms());
        beats.whole_since
    }

    /// The last of the common moments that is not after this one. What is done for many game
    /// servers is done at those, so that the store has it in one transaction.
    pub(crate) fn common(&self, at: Instant) -> Instant {
        let since = at.saturating_duration_since(self.began).as_millis();
        let steps = u64::try_from(since / COMMON.as_millis()).unwrap_or(u64::MAX);
        self.began + COMMON * u32::try_from(steps).unwrap_or(u32::MAX)
    }

    /// Watches for as long as the watch is wanted.
    pub(crate) async fn run(watch: std::sync::Weak<Self>, env: Env) {
        while let Some(heartbeat) = watch.upgrade() {
            heartbeat.whole_since(&env);
            drop::<Arc<Self>>(heartbeat);
            tokio::time::sleep(PERIOD).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_moments_lie_half_a_second_apart() {
        let heartbeat = Heartbeat::new(&Env::system());
        let at = |ms: u64| heartbeat.began + Duration::from_millis(ms);
        for (given, common) in [(0, 0), (499, 0), (500, 500), (5320, 5000)] {
            assert_eq!(heartbeat.common(at(given)), at(common));
        }
    }

    #[test]
    fn a_gap_by_either_clock_makes_what_was_before_it_worthless() {
        let base = Instant::now();
        let at = |ms: u64| base + Duration::from_millis(ms);
        let mut beats = Beats { last: base, last_ms: 0, whole_since: base };
        beats.beat(at(900), 900);
        beats.beat(at(1800), 1500);
        assert_eq!(beats.whole_since, base, "it was never silent for more than a second");
        beats.beat(at(2900), 2600);
        assert_eq!(beats.whole_since, at(2900), "the loop stood still");
        beats.beat(at(3000), 60_000);
        assert_eq!(beats.whole_since, at(3000), "the machine slept, and its monotonic clock too");
        beats.beat(at(3100), 10_000);
        assert_eq!(beats.whole_since, at(3000), "a wall clock that is put back says nothing");
    }
}
