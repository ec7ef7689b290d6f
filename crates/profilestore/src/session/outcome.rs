//! What becomes of a session's end, for all who wait for it.

use std::sync::OnceLock;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::error::{Error, Result};

/// What becomes of a session's end. An end may be refused, any number of times; then the session
/// goes on. Once its outcome is known, that stays. Every session has one, so errors are boxed.
#[derive(Default)]
pub(super) struct Outcome {
    /// Ok when everything that was ever changed is durable.
    known: OnceLock<Result<(), Box<Error>>>,
    refusals: Mutex<Refusals>,
    wake: Notify,
}

/// How often the session's end was refused, and why the last time.
#[derive(Default)]
struct Refusals {
    count: u64,
    last: Option<Box<Error>>,
}

impl Outcome {
    pub(super) fn is_known(&self) -> bool {
        self.known.get().is_some()
    }

    /// Notes the outcome; the first one counts. [`Outcome::tell`] tells those who wait.
    pub(super) fn set(&self, result: &Result<()>) {
        let _ = self.known.set(result.as_ref().copied().map_err(|error| Box::new(error.again())));
    }

    /// Notes that the end under way was refused.
    pub(super) fn refuse(&self, why: &Error) {
        let mut refusals = self.refusals.lock();
        refusals.count += 1;
        refusals.last = Some(Box::new(why.again()));
    }

    /// Wakes all who wait.
    pub(super) fn tell(&self) {
        self.wake.notify_waiters();
    }

    /// How many ends have been refused: for [`Outcome::wait`].
    pub(super) fn refused(&self) -> u64 {
        self.refusals.lock().count
    }

    /// Waits for the outcome, or for the refusal of an end that was under way when so many had been
    /// refused.
    pub(super) async fn wait(&self, refused_before: u64) -> Result<()> {
        loop {
            let wake = self.wake.notified();
            if let Some(known) = self.known.get() {
                return known.as_ref().copied().map_err(|error| error.again());
            }
            {
                let refusals = self.refusals.lock();
                if let Some(last) =
                    refusals.last.as_ref().filter(|_| refusals.count != refused_before)
                {
                    return Err(last.again());
                }
            }
            wake.await;
        }
    }
}
