//! Chance from a seed.

use std::time::Duration;

use profilestore::env::{Rng, SeededRng};

/// Dice of one seed. Each actor has its own, so that what one does leaves the others' throws alone.
pub struct Dice(SeededRng);

impl Dice {
    /// Dice of a world's seed for one purpose.
    pub fn new(seed: u64, purpose: u64) -> Self {
        let mixed = SeededRng::new(
            seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ purpose.wrapping_mul(0xd1b5_4a32_d192_ed03),
        );
        mixed.bits();
        Self(mixed)
    }

    /// The generator itself, seeded by a throw.
    pub fn rng(&self) -> SeededRng {
        SeededRng::new(self.bits())
    }

    fn bits(&self) -> u64 {
        (self.0.bits() >> 64) as u64
    }

    /// From 0 up to but not including 1.
    pub fn part(&self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn chance(&self, chance: f64) -> bool {
        self.part() < chance
    }

    /// From 0 up to but not including `below`.
    pub fn below(&self, below: usize) -> usize {
        (self.part() * below as f64) as usize
    }

    pub fn pick<'a, T>(&self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// Evenly between two times, seconds.
    pub fn seconds(&self, from: f64, to: f64) -> Duration {
        Duration::from_secs_f64(from + (to - from) * self.part())
    }

    /// Exponentially spread around a mean, seconds.
    pub fn around(&self, mean: f64) -> Duration {
        Duration::from_secs_f64((-(1.0 - self.part()).ln() * mean).min(mean * 8.0))
    }
}
