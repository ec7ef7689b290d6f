//! Notices about a profile that its session, or the start of one, has yet to look at.

use parking_lot::Mutex;
use tokio::time::Instant;

/// While there are any, a confirmation of the lease that came with or after the first of them does
/// not count for the session: the notice may be about a thief.
#[derive(Default)]
pub(crate) struct Unseen(Mutex<State>);

#[derive(Default)]
struct State {
    /// Counts the notices.
    noted: u64,
    /// When the lease had been confirmed last before the first notice that was not looked at.
    confirmed_before: Option<Instant>,
}

impl Unseen {
    /// A notice has come. `confirmed_before`: when the lease was confirmed last, without the answer
    /// that brought it.
    pub(crate) fn note(&self, confirmed_before: Instant) {
        let mut state = self.0.lock();
        state.noted += 1;
        state.confirmed_before.get_or_insert(confirmed_before);
    }

    /// The confirmation that counts while there is something to look at.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.0.lock().confirmed_before
    }

    /// How many notices have come so far: for [`Unseen::seen`], taken before the look.
    pub(crate) fn noted(&self) -> u64 {
        self.0.lock().noted
    }

    /// A look, or a save, that began after so many notices has seen what they were about.
    pub(crate) fn seen(&self, noted: u64) {
        let mut state = self.0.lock();
        if state.noted == noted {
            state.confirmed_before = None;
        }
    }
}
