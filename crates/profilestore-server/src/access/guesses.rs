//! How often a password may be guessed.
//!
//! A try is counted before the password is looked at, so that many at the same time are no way
//! round, and one that succeeds is taken back. What is counted are names, addresses, and names from
//! one address: so a stranger who guesses at a name hinders its member elsewhere only when the
//! guesses come from many addresses. Names that do not exist count like others.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use parking_lot::Mutex;
use profilestore::env::Env;
use tokio::time::Instant;

use super::members::MAX_NAME_BYTES;

/// The time after which a try counts no more.
const WINDOW: Duration = Duration::from_secs(60);

/// How many tries a minute for a name from one address.
pub(crate) const OF_BOTH: usize = 5;

/// How many tries a minute from an address, whatever the names.
const OF_ADDRESS: usize = 20;

/// How many tries a minute for a name, whatever the addresses.
const OF_NAME: usize = 30;

/// How many failed tries a minute get an entry in the audit log.
const BOOKED: usize = 30;

/// What a name counts as that no member can have.
const TOO_LONG: &str = "(too long)";

/// How many counts there are before those that are over are dropped.
const TIDY: usize = 1000;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Of {
    Both(String, IpAddr),
    Address(IpAddr),
    Name(String),
    Booked,
}

impl Of {
    fn limit(&self) -> usize {
        match self {
            Self::Both(..) => OF_BOTH,
            Self::Address(_) => OF_ADDRESS,
            Self::Name(_) => OF_NAME,
            Self::Booked => BOOKED,
        }
    }
}

/// The tries of the last minute at this process.
#[derive(Debug)]
pub(crate) struct Guesses {
    env: Env,
    tries: Mutex<HashMap<Of, Vec<Instant>>>,
}

/// A try that was counted.
#[derive(Debug)]
pub(crate) struct Try {
    counted: [Of; 3],
    at: Instant,
}

impl Guesses {
    pub(crate) fn new(env: Env) -> Self {
        Self { env, tries: Mutex::default() }
    }

    /// Counts a try. Fails with the seconds after which there is room for one.
    pub(crate) fn begin(&self, name: &str, address: IpAddr) -> Result<Try, u64> {
        // No member has a longer name, and what strangers send must not fill the memory.
        let name = if name.len() > MAX_NAME_BYTES { TOO_LONG } else { name };
        let counted =
            [Of::Both(name.to_owned(), address), Of::Address(address), Of::Name(name.to_owned())];
        let at = self.count(&counted)?;
        Ok(Try { counted, at })
    }

    /// Takes a try back: it succeeded, or the password was never looked at.
    pub(crate) fn take_back(&self, done: Try) {
        let mut tries = self.tries.lock();
        for of in done.counted {
            if let Some(times) = tries.get_mut(&of)
                && let Some(index) = times.iter().position(|time| *time == done.at)
            {
                times.remove(index);
            }
        }
    }

    /// Whether there is room for one more entry about a failure in the audit log.
    pub(crate) fn may_book(&self) -> bool {
        self.count(&[Of::Booked]).is_ok()
    }

    fn count(&self, counted: &[Of]) -> Result<Instant, u64> {
        let now = self.env.now();
        let is_over = |time: &Instant| now.saturating_duration_since(*time) >= WINDOW;
        let mut tries = self.tries.lock();
        if tries.len() >= TIDY {
            tries.retain(|_, times| times.last().is_some_and(|time| !is_over(time)));
        }
        let mut wait = Duration::ZERO;
        for of in counted {
            // A try that is refused leaves nothing behind.
            let Some(times) = tries.get_mut(of) else { continue };
            times.retain(|time| !is_over(time));
            if times.len() >= of.limit()
                && let Some(first) = times.first()
            {
                wait = wait.max(WINDOW.saturating_sub(now.saturating_duration_since(*first)));
            }
        }
        if !wait.is_zero() {
            return Err(wait.as_secs() + 1);
        }
        for of in counted {
            tries.entry(of.clone()).or_default().push(now);
        }
        Ok(now)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_is_guessed_at_five_times_a_minute_from_one_address() {
        let guesses = Guesses::new(Env::system());
        for _ in 0..OF_BOTH {
            guesses.begin("ann", address(1)).unwrap();
        }
        let wait = guesses.begin("ann", address(1)).unwrap_err();
        assert!((1..=61).contains(&wait), "{wait}");
        guesses.begin("ann", address(2)).unwrap();
        guesses.begin("bob", address(1)).unwrap();
        tokio::time::advance(WINDOW).await;
        guesses.begin("ann", address(1)).unwrap();
    }

    /// Tries of strangers with names of megabytes, refused and not, filled the memory.
    #[tokio::test(start_paused = true)]
    async fn names_that_no_member_can_have_are_one_name_and_refused_tries_leave_nothing() {
        let guesses = Guesses::new(Env::system());
        for n in 0..100 {
            let name = format!("{n:0>200}");
            let _ = guesses.begin(&name, address(1));
            let _ = guesses.begin(&n.to_string(), address(1));
        }
        let tries = guesses.tries.lock();
        assert!(tries.len() <= 2 * OF_ADDRESS + 1, "{}", tries.len());
        let bytes = |of: &Of| match of {
            Of::Both(name, _) | Of::Name(name) => name.len(),
            Of::Address(_) | Of::Booked => 0,
        };
        assert!(tries.keys().all(|of| bytes(of) <= MAX_NAME_BYTES));
    }

    #[tokio::test(start_paused = true)]
    async fn many_names_and_many_addresses_have_limits_too() {
        let guesses = Guesses::new(Env::system());
        let from_one = (0..100).filter(|n| guesses.begin(&n.to_string(), address(1)).is_ok());
        assert_eq!(from_one.count(), OF_ADDRESS);
        let at_one = (2..102).filter(|n| guesses.begin("ann", address(*n)).is_ok());
        assert_eq!(at_one.count(), OF_NAME);
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_succeeds_does_not_count() {
        let guesses = Guesses::new(Env::system());
        for _ in 0..100 {
            let done = guesses.begin("ann", address(1)).unwrap();
            guesses.take_back(done);
        }
    }
}
