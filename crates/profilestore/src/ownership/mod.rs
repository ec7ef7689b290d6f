//! The rules of sessions: who may take a profile, when to ask for it, when to let it go. The one place for them.
//!
//! Pure: what the store holds, who asks and how long it has waited go in, a decision comes out. No I/O, no clock, no chance.
//! None of these decisions protects the data: the store checks epoch and lease revision of whatever is then committed.

use std::time::Duration;

mod asking;
mod death;
mod lease;
#[cfg(test)]
mod tests;

pub(crate) use asking::{Held, Standing, Start, held, patience, standing, start};
pub(crate) use lease::{Asker, Take, asked, cleared, released, taken, withdrawn};

/// Periods that the rules use. See `Settings`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Periods {
    pub(crate) session_steal: Duration,
    pub(crate) assume_dead: Duration,
    pub(crate) offer_time: Duration,
}
