//! Until when a call tries: one bound over waiting for its turn, over what it does, and over the
//! store.
//!
//! A call sets its deadline when it is made. What it does in its turn, and every call that this
//! makes, goes by the same one, so a call that waited long for its turn has less time left at the
//! store.

use std::time::Duration;

use tokio::time::Instant;

tokio::task_local! {
    /// The deadline of the call that is being done. None: the program runs within it.
    static CALL: Option<Deadline>;
}

/// How long before the end the last attempt is made, so that its answer is there in time.
const LAST_TRY: Duration = Duration::from_millis(500);

/// When a call ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    at: Instant,
    last_try: Instant,
    /// The caller chose it, and calls may take longer.
    own: bool,
}

impl Deadline {
    /// The deadline of a call that is made now.
    pub(crate) fn new(now: Instant, at: Instant) -> Self {
        let time = at.saturating_duration_since(now);
        Self { at, last_try: at - LAST_TRY.min(time / 10), own: false }
    }

    /// The same for one that the caller chose, and that is earlier than the usual one.
    pub(crate) fn own(now: Instant, at: Instant) -> Self {
        Self { own: true, ..Self::new(now, at) }
    }

    /// The deadline of the call that is being done. None outside of calls.
    pub(crate) fn of_call() -> Option<Self> {
        CALL.try_with(|deadline| *deadline).ok().flatten()
    }

    /// The earlier one.
    pub(crate) fn min(self, other: Self) -> Self {
        if other.at < self.at { other } else { self }
    }

    pub(crate) fn at(self) -> Instant {
        self.at
    }

    /// True once there is no time for another attempt.
    pub(crate) fn is_over(self, now: Instant) -> bool {
        now >= self.last_try
    }

    /// True once a deadline is over that the caller chose: it is then no fault of the store that it
    /// has not answered.
    pub(crate) fn is_over_by_choice(self, now: Instant) -> bool {
        self.own && now >= self.at
    }

    /// Does something that goes by this deadline.
    pub(crate) async fn scope<F: Future>(self, work: F) -> F::Output {
        CALL.scope(Some(self), work).await
    }

    /// Makes a call that goes by this deadline.
    pub(crate) fn sync_scope<R>(self, work: impl FnOnce() -> R) -> R {
        CALL.sync_scope(Some(self), work)
    }
}

/// Runs a function of the program. Calls that it makes have their own time, and not what is left of
/// the call that is being done.
pub(crate) fn outside_of_calls<R>(work: impl FnOnce() -> R) -> R {
    CALL.sync_scope(None, work)
}

/// How long something is tried again and again.
pub(crate) trait Patience {
    /// How long to pause before the next attempt, if there is one. `wanted`: how long it would
    /// pause by itself.
    fn pause(&self, now: Instant, wanted: Duration) -> Option<Duration>;

    /// When each attempt is to be answered, if a moment is set for it.
    fn ends(&self) -> Option<Deadline> {
        None
    }

    /// Whether a pause ends when this server's renewals get through again.
    fn is_eager(&self) -> bool {
        false
    }
}

/// Pauses as is wanted, and makes its last attempt shortly before it ends.
impl Patience for Deadline {
    fn pause(&self, now: Instant, wanted: Duration) -> Option<Duration> {
        let left = self.last_try.saturating_duration_since(now);
        (!left.is_zero()).then(|| wanted.min(left))
    }

    fn ends(&self) -> Option<Deadline> {
        Some(*self)
    }
}

/// Tries until this says true.
pub(crate) struct Unless<F>(pub(crate) F);

impl<F: Fn() -> bool> Patience for Unless<F> {
    fn pause(&self, _: Instant, wanted: Duration) -> Option<Duration> {
        (!(self.0)()).then_some(wanted)
    }
}

/// Tries for ever.
pub(crate) struct ForEver;

impl Patience for ForEver {
    fn pause(&self, _: Instant, wanted: Duration) -> Option<Duration> {
        Some(wanted)
    }
}

/// As patient as `P`, and tries at once when the store answers again.
pub(crate) struct Eager<P>(pub(crate) P);

impl<P: Patience> Patience for Eager<P> {
    fn pause(&self, now: Instant, wanted: Duration) -> Option<Duration> {
        self.0.pause(now, wanted)
    }

    fn ends(&self) -> Option<Deadline> {
        self.0.ends()
    }

    fn is_eager(&self) -> bool {
        true
    }
}

/// Tries once.
pub(crate) struct Once;

impl Patience for Once {
    fn pause(&self, _: Instant, _: Duration) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_attempt_is_made_at_the_end_whatever_pause_would_come_next() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let deadline = Deadline::new(now, now + 30 * second);
        let mut at = now;
        let mut attempts = vec![0.0];
        let mut wanted = second;
        while let Some(pause) = deadline.pause(at, wanted) {
            at += pause;
            attempts.push((at - now).as_secs_f64());
            wanted *= 2;
        }
        assert_eq!(attempts, [0.0, 1.0, 3.0, 7.0, 15.0, 29.5]);
        assert!(deadline.is_over(at));
    }

    #[test]
    fn only_a_deadline_of_the_callers_own_is_over_by_choice() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let (usual, own) = (Deadline::new(now, now + second), Deadline::own(now, now + second));
        assert!(!own.is_over_by_choice(now) && own.is_over_by_choice(now + second));
        assert!(!usual.is_over_by_choice(now + second));
        // The usual one counts where it comes first.
        let later = Deadline::own(now, now + 2 * second);
        assert!(!usual.min(later).is_over_by_choice(now + 2 * second));
    }
}
