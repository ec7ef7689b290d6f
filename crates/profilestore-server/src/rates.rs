//! How many requests a second a key or a log-in may send.
//!
//! Each has a bucket that holds as many as for one second, and fills again evenly. What a game
//! server sends over its WebSocket is not counted: nothing may keep its sessions from being saved.
//! Each process counts for itself.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use governor::{
    Quota, RateLimiter, clock::Clock, middleware::NoOpMiddleware, state::keyed::HashMapStateStore,
};
use profilestore::env::Env;

use crate::problem::Problem;

/// After how many requests those that have not come for long are forgotten.
const TIDY: u64 = 10_000;

/// The environment's clock, which tests can move.
struct EnvClock(Env);

impl Clock for EnvClock {
    type Instant = Instant;

    fn now(&self) -> Instant {
        self.0.now().into_std()
    }
}

type Buckets = RateLimiter<String, HashMapStateStore<String>, EnvClock, NoOpMiddleware<Instant>>;

/// What was sent lately, by key and by log-in.
pub(crate) struct Rates {
    a_second: NonZeroU32,
    buckets: Buckets,
    clock: EnvClock,
    counted: AtomicU64,
}

impl Rates {
    /// So many requests a second for each.
    pub(crate) fn new(env: Env, a_second: NonZeroU32) -> Self {
        let quota = Quota::per_second(a_second);
        Self {
            a_second,
            buckets: RateLimiter::hashmap_with_clock(quota, EnvClock(env.clone())),
            clock: EnvClock(env),
            counted: AtomicU64::new(0),
        }
    }

    /// Counts a request of a key or a log-in. Fails with 429 when it is one too many.
    pub(crate) fn count(&self, id: &str) -> Result<(), Problem> {
        if self.counted.fetch_add(1, Ordering::Relaxed) % TIDY == TIDY - 1 {
            self.buckets.retain_recent();
        }
        let Err(until) = self.buckets.check_key(&id.to_owned()) else { return Ok(()) };
        metrics::counter!("profilestore_requests_limited_total").increment(1);
        let wait = until.wait_time_from(self.clock.now());
        let detail = format!(
            "a key or a log-in may send {} requests a second, which `requests_per_second` sets",
            self.a_second
        );
        Err(Problem::new("too-many-requests", detail).retry_after(whole_seconds(wait)))
    }
}

/// Rounded up, at least one: the header takes no fractions.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_nanos().div_ceil(1_000_000_000).max(1).try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(a_second: u32) -> Rates {
        Rates::new(Env::system(), NonZeroU32::new(a_second).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn each_key_has_a_bucket_of_its_own_that_fills_again() {
        let rates = rates(3);
        for _ in 0..3 {
            rates.count("shop").unwrap();
        }
        assert_eq!(rates.count("shop").unwrap_err().row().name, "too-many-requests");
        rates.count("bot").unwrap();
        tokio::time::advance(Duration::from_millis(334)).await;
        rates.count("shop").unwrap();
        assert!(rates.count("shop").is_err());
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..3 {
            rates.count("shop").unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_are_not_used_any_more_are_forgotten() {
        let rates = rates(1);
        for n in 0..TIDY / 2 {
            rates.count(&n.to_string()).unwrap();
        }
        tokio::time::advance(Duration::from_secs(10)).await;
        for n in 0..TIDY {
            let _ = rates.count(&format!("later {}", n % 7));
        }
        assert!(rates.buckets.len() <= 7, "{}", rates.buckets.len());
    }

    #[test]
    fn the_wait_is_rounded_up() {
        let told = |ms| whole_seconds(Duration::from_millis(ms));
        assert_eq!([told(0), told(1), told(1000), told(1001)], [1, 1, 1, 2]);
    }
}
