//! What calls suffer on the way when an emulation asks for it: latency, and failures of which half
//! take effect all the same. The same seed gives the same weather.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::error::{Code, DataStoreError};
use crate::data_store::Digest;

#[derive(Debug)]
pub(super) struct Weather {
    /// Of a whole call: half of it passes on the way there, half on the way back.
    latency: Duration,
    /// How many of a million calls fail.
    failing: u64,
    seed: u64,
    calls: AtomicU64,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Answered,
    NeverArrives,
    AnswerLost,
}

impl Weather {
    /// `percent` of the calls fail.
    pub(super) fn new(latency: Duration, percent: f64, seed: u64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to the range"
        )]
        let failing = (percent.clamp(0.0, 100.0) * 10_000.0).round() as u64;
        Self { latency, failing, seed, calls: AtomicU64::new(0) }
    }

    /// True when calls suffer nothing.
    pub(super) fn is_fair(&self) -> bool {
        self.latency.is_zero() && self.failing == 0
    }

    /// Carries a call there and its answer back.
    pub(super) async fn carry<T>(
        &self,
        call: impl Future<Output = Result<T, DataStoreError>>,
    ) -> Result<T, DataStoreError> {
        let fate = self.next();
        self.half_way().await;
        if fate == Fate::NeverArrives {
            self.half_way().await;
            return Err(no_answer());
        }
        let answer = call.await;
        self.half_way().await;
        if fate == Fate::AnswerLost { answer.and(Err(no_answer())) } else { answer }
    }

    async fn half_way(&self) {
        if !self.latency.is_zero() {
            tokio::time::sleep(self.latency / 2).await;
        }
    }

    fn next(&self) -> Fate {
        if self.failing == 0 {
            return Fate::Answered;
        }
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let [dice, coin] = [0, 1].map(|draw: u64| {
            let Digest(bits) = Digest::of(format!("{} {call} {draw}", self.seed).as_bytes());
            bits.iter().fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte))
        });
        match (dice % 1_000_000 < self.failing, coin % 2 == 0) {
            (false, _) => Fate::Answered,
            (true, true) => Fate::NeverArrives,
            (true, false) => Fate::AnswerLost,
        }
    }
}

fn no_answer() -> DataStoreError {
    DataStoreError::new(
        Code::BadResponse,
        "the store gave no answer; the request may have been applied",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_failing_calls_are_applied_and_a_seed_repeats_itself() {
        let fates = |seed| {
            let weather = Weather::new(Duration::ZERO, 5.0, seed);
            (0..10_000).map(|_| weather.next()).collect::<Vec<_>>()
        };
        let count = |fate| fates(1).into_iter().filter(|other| *other == fate).count();
        assert!((200..300).contains(&count(Fate::NeverArrives)), "{}", count(Fate::NeverArrives));
        assert!((200..300).contains(&count(Fate::AnswerLost)), "{}", count(Fate::AnswerLost));
        assert_eq!(fates(1), fates(1));
        assert_ne!(fates(1), fates(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_takes_as_long_as_it_is_said_to_and_runs_half_way() {
        let weather = Weather::new(Duration::from_millis(50), 0.0, 0);
        let began = tokio::time::Instant::now();
        let ran = weather.carry(async { Ok(began.elapsed()) }).await.unwrap();
        assert_eq!((ran, began.elapsed()), (Duration::from_millis(25), Duration::from_millis(50)));
        let dark = Weather::new(Duration::ZERO, 100.0, 0);
        assert_eq!(dark.carry(async { Ok(()) }).await, Err(no_answer()));
    }
}
