//! Time and chance, injected.
//!
//! Nothing else in the library reads a clock or draws a random number (clippy forbids it), so a test or a simulation that
//! supplies these replays a whole world from one seed. Waiting is always `tokio::time`.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;
use uuid::Uuid;

/// Where the library takes the wall-clock time from. Monotonic time is `tokio::time::Instant`, which tests can pause.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch. May step; the library never decides who may write by it.
    fn unix_ms(&self) -> i64;
}

/// Where the library takes identifiers from.
pub trait Rng: Send + Sync + 'static {
    /// 128 random bits.
    fn bits(&self) -> u128;
}

/// A clock and a source of randomness. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    clock: Arc<dyn Clock>,
    rng: Arc<dyn Rng>,
}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Env")
    }
}

impl Default for Env {
    fn default() -> Self {
        Self::system()
    }
}

impl Env {
    /// The operating system's clock and randomness.
    pub fn system() -> Self {
        Self::new(Arc::new(SystemClock), Arc::new(SystemRng))
    }

    /// A clock and randomness of the caller's.
    pub fn new(clock: Arc<dyn Clock>, rng: Arc<dyn Rng>) -> Self {
        Self { clock, rng }
    }

    /// Milliseconds since the Unix epoch, by the wall clock.
    pub fn unix_ms(&self) -> i64 {
        self.clock.unix_ms()
    }

    /// The monotonic time.
    pub fn now(&self) -> Instant {
        Instant::now()
    }

    /// A version 7 UUID: its first 48 bits are the time, so that identifiers made one after the other sort that way.
    pub fn uuid(&self) -> Uuid {
        let ms = u128::from(self.unix_ms().max(0).cast_unsigned()) & 0xffff_ffff_ffff;
        let random = self.rng.bits();
        let bits = (ms << 80) | (0x7 << 76) | (((random >> 64) & 0xfff) << 64) | (0b10 << 62) | (random & 0x3fff_ffff_ffff_ffff);
        Uuid::from_u128(bits)
    }
}

/// The operating system's wall clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
    fn unix_ms(&self) -> i64 {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

/// The operating system's randomness.
#[derive(Debug, Clone, Copy)]
pub struct SystemRng;

impl Rng for SystemRng {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that draws randomness")]
    fn bits(&self) -> u128 {
        // Two draws: six bits of a version 4 UUID are fixed.
        let (a, b) = (Uuid::new_v4().as_u128(), Uuid::new_v4().as_u128());
        a ^ b.rotate_left(64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_version_7_and_carry_the_time() {
        let env = Env::system();
        let before = env.unix_ms();
        let id = env.uuid();
        assert_eq!(id.get_version_num(), 7);
        let ms = i64::try_from(id.as_u128() >> 80).unwrap();
        assert!((before..before + 60_000).contains(&ms));
        assert_ne!(id, env.uuid());
    }
}
