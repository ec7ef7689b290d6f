//! Time and chance, injected.
//!
//! Nothing else in the library reads a clock or draws a random number (clippy forbids it), so a
//! test or a simulation that supplies these replays a whole world from one seed. Waiting is always
//! `tokio::time`; moments that are waited for go through [`Env`], whose monotonic clock a
//! simulation lets drift.

use std::{cell::RefCell, fmt, sync::Arc, time::Duration};

use tokio::time::{Instant, Sleep, Timeout};
use uuid::Uuid;

/// Where the library takes the wall-clock time from. Monotonic time is `tokio::time::Instant`,
/// which tests can pause.
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
    /// Since when the monotonic clock goes how much faster than tokio's.
    drift: Option<(Instant, f64)>,
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
        Self { clock, rng, drift: None }
    }

    /// The same with a monotonic clock that goes `rate` times as fast as tokio's from now on. Waits
    /// for a moment follow it; waits of a length, which decide nothing, do not.
    #[cfg(any(test, feature = "test-util"))]
    #[must_use]
    pub fn drifting(self, rate: f64) -> Self {
        assert!(rate > 0.0, "time goes forwards: rate=`{rate}`");
        Self { drift: Some((Instant::now(), rate)), ..self }
    }

    /// Milliseconds since the Unix epoch, by the wall clock.
    pub fn unix_ms(&self) -> i64 {
        self.clock.unix_ms()
    }

    /// The monotonic time.
    pub fn now(&self) -> Instant {
        match self.drift {
            None => Instant::now(),
            Some((base, rate)) => base + base.elapsed().mul_f64(rate),
        }
    }

    /// The moment on tokio's clock at which the monotonic time is `at` or a little later.
    pub(crate) fn on_tokios_clock(&self, at: Instant) -> Instant {
        match self.drift {
            None => at,
            Some((base, rate)) => {
                base + at.saturating_duration_since(base).div_f64(rate) + Duration::from_micros(1)
            }
        }
    }

    /// Waits for a moment of the monotonic time.
    pub(crate) fn sleep_until(&self, at: Instant) -> Sleep {
        tokio::time::sleep_until(self.on_tokios_clock(at))
    }

    /// Waits for something until a moment of the monotonic time.
    pub(crate) fn timeout_at<F: IntoFuture>(&self, at: Instant, what: F) -> Timeout<F::IntoFuture> {
        tokio::time::timeout_at(self.on_tokios_clock(at), what)
    }

    /// The moment so long from now; in the far future when that cannot be told.
    pub(crate) fn after(&self, wait: Duration) -> Instant {
        const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
        self.now() + wait.min(FAR)
    }

    /// A version 7 UUID: its first 48 bits are the time, so that identifiers made one after the
    /// other sort that way.
    pub fn uuid(&self) -> Uuid {
        let ms = u128::from(self.unix_ms().max(0).cast_unsigned()) & 0xffff_ffff_ffff;
        let random = self.rng.bits();
        let bits = (ms << 80)
            | (0x7 << 76)
            | (((random >> 64) & 0xfff) << 64)
            | (0b10 << 62)
            | (random & 0x3fff_ffff_ffff_ffff);
        Uuid::from_u128(bits)
    }
}

/// The operating system's wall clock.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the wall clock"
    )]
    fn unix_ms(&self) -> i64 {
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

/// The operating system's randomness, of which each thread draws some ahead. A process that was
/// copied while it ran (by `fork`, or as a machine's snapshot) may draw what the other one draws.
#[derive(Debug, Clone, Copy)]
pub struct SystemRng;

impl Rng for SystemRng {
    fn bits(&self) -> u128 {
        DRAWN.with_borrow_mut(Drawn::take)
    }
}

/// How many bytes a thread asks the operating system for at once: a call costs more than these.
const DRAW_BYTES: usize = 1024;

thread_local! {
    static DRAWN: RefCell<Drawn> = const { RefCell::new(Drawn { bytes: [0; DRAW_BYTES], left: 0 }) };
}

/// Random bytes that a thread has not used yet: the first so many.
struct Drawn {
    bytes: [u8; DRAW_BYTES],
    left: usize,
}

impl Drawn {
    fn take(&mut self) -> u128 {
        const TAKEN: usize = size_of::<u128>();
        if self.left < TAKEN {
            #[expect(clippy::disallowed_methods, reason = "this is the one place")]
            let drawn = getrandom::fill(&mut self.bytes);
            drawn.expect("the operating system has random bytes");
            self.left = DRAW_BYTES;
        }
        self.left -= TAKEN;
        let used = &mut self.bytes[self.left..self.left + TAKEN];
        let mut bits = [0; TAKEN];
        bits.copy_from_slice(used);
        // No bits are given out twice, nor found in memory later.
        used.fill(0);
        u128::from_ne_bytes(bits)
    }
}

/// A clock that stands still until it is told otherwise. Clones share their time.
#[cfg(any(test, feature = "test-util"))]
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<std::sync::atomic::AtomicI64>);

#[cfg(any(test, feature = "test-util"))]
impl ManualClock {
    /// A clock that shows this time, Unix milliseconds.
    pub fn new(unix_ms: i64) -> Self {
        Self(Arc::new(unix_ms.into()))
    }

    /// Moves the clock, backwards too.
    pub fn advance(&self, ms: i64) {
        self.0.fetch_add(ms, std::sync::atomic::Ordering::SeqCst);
    }

    /// An environment with this clock and the identifiers of a seed.
    pub fn env(&self, seed: u64) -> Env {
        Env::new(Arc::new(self.clone()), Arc::new(SeededRng::new(seed)))
    }
}

/// Twenty past ten on a day in January 2026.
#[cfg(any(test, feature = "test-util"))]
impl Default for ManualClock {
    fn default() -> Self {
        Self::new(1_768_472_400_000)
    }
}

#[cfg(any(test, feature = "test-util"))]
impl Clock for ManualClock {
    fn unix_ms(&self) -> i64 {
        self.0.load(std::sync::atomic::Ordering::SeqCst)
    }
}

/// A wall clock that follows tokio's time: in a test that pauses that, the clock moves as the test
/// waits.
#[cfg(any(test, feature = "test-util"))]
#[derive(Debug, Clone, Copy)]
pub struct TokioClock {
    began: Instant,
    began_ms: i64,
}

#[cfg(any(test, feature = "test-util"))]
impl TokioClock {
    /// A clock that shows this time now, Unix milliseconds.
    pub fn new(unix_ms: i64) -> Self {
        Self { began: Instant::now(), began_ms: unix_ms }
    }
}

/// Noon on a day in November 2026.
#[cfg(any(test, feature = "test-util"))]
impl Default for TokioClock {
    fn default() -> Self {
        Self::new(1_795_003_200_000)
    }
}

#[cfg(any(test, feature = "test-util"))]
impl Clock for TokioClock {
    fn unix_ms(&self) -> i64 {
        self.began_ms + i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX / 2)
    }
}

/// Random numbers that follow from a seed: the same seed gives the same ones (splitmix64).
#[cfg(any(test, feature = "test-util"))]
#[derive(Debug)]
pub struct SeededRng(std::sync::atomic::AtomicU64);

#[cfg(any(test, feature = "test-util"))]
impl SeededRng {
    /// Begins at a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.into())
    }

    fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, std::sync::atomic::Ordering::SeqCst).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(any(test, feature = "test-util"))]
impl Rng for SeededRng {
    fn bits(&self) -> u128 {
        (u128::from(self.next()) << 64) | u128::from(self.next())
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

    #[test]
    fn bits_that_are_drawn_many_at_once_come_once_in_all_threads() {
        let draw = || (0..1000).map(|_| SystemRng.bits()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(draw)).collect();
        let mut all: Vec<_> = threads.into_iter().flat_map(|drawn| drawn.join().unwrap()).collect();
        assert_eq!(all.iter().fold(0, |any, bits| any | bits), u128::MAX);
        assert_eq!(all.iter().fold(u128::MAX, |all, bits| all & bits), 0);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 4000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drifting_clock_is_waited_for_by_its_own_time() {
        for rate in [0.99, 1.01, 2.0] {
            let env = Env::system().drifting(rate);
            let (began, truly) = (env.now(), Instant::now());
            for second in 1..=100 {
                env.sleep_until(began + Duration::from_secs(second)).await;
                assert!(env.now() >= began + Duration::from_secs(second));
            }
            assert!(
                env.timeout_at(began + Duration::from_secs(200), std::future::pending::<()>())
                    .await
                    .is_err()
            );
            let off = (truly.elapsed().as_secs_f64() - 200.0 / rate).abs();
            assert!(off < 0.01, "rate={rate} off={off}");
        }
    }
}
