//! Request budgets: how many requests a game server may make a minute, by its number of players.
//!
//! A budget fills up evenly and holds a minute's worth. A request beyond it waits its turn;
//! [`MAX_WAITING`] of a kind may wait, the next one fails.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::error::{Code, DataStoreError};

/// How many requests of a kind may wait for their turn.
pub const MAX_WAITING: u32 = 30;

/// The services' rules for how many requests a game server may make a minute; n is its number of
/// players.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum BudgetRules {
    /// Those until April 2026, which most code still assumes: 60 + 10n reads, as many writes
    /// (removals among them), 5 + 2n listings.
    Older,
    /// Those since then: 60 + 40n reads, writes and removals each, 5 + 2n listings.
    Newer,
}

/// A kind of request. An update is a read and a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RequestType {
    /// Reading a key or one of its versions.
    Read,
    /// Writing a key.
    Write,
    /// Listing keys or versions.
    List,
    /// Removing a key. With the older rules, a write.
    Remove,
}

/// What a call is, to the budgets and in its errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Get,
    Set,
    Increment,
    Update,
    List,
    Remove,
}

impl Call {
    fn charges(self) -> &'static [RequestType] {
        match self {
            Self::Get => &[RequestType::Read],
            Self::Set | Self::Increment => &[RequestType::Write],
            Self::Update => &[RequestType::Read, RequestType::Write],
            Self::List => &[RequestType::List],
            Self::Remove => &[RequestType::Remove],
        }
    }

    pub(super) fn throttled(self) -> DataStoreError {
        let code = match self {
            Self::Get => Code::GetAsyncThrottle,
            Self::Set => Code::SetAsyncThrottle,
            Self::Increment => Code::IncrementAsyncThrottle,
            Self::Update => Code::UpdateAsyncThrottle,
            Self::List => Code::GetSortedThrottle,
            Self::Remove => Code::RemoveAsyncThrottle,
        };
        DataStoreError::new(code, "the request was dropped: too many wait for their turn already")
    }
}

impl BudgetRules {
    /// How many requests of this kind may be made a minute.
    pub fn a_minute(self, request: RequestType, players: u32) -> u32 {
        let (base, each) = match (self, request) {
            (_, RequestType::List) => (5, 2),
            (Self::Older, _) => (60, 10),
            (Self::Newer, _) => (60, 40),
        };
        players.saturating_mul(each).saturating_add(base)
    }
}

/// The budgets of one game server.
#[derive(Debug)]
pub(super) struct Budgets {
    rules: BudgetRules,
    buckets: Mutex<[Option<Bucket>; 4]>,
}

/// What is left of a budget; below zero, so many requests wait.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Budgets {
    pub(super) fn new(rules: BudgetRules) -> Self {
        Self { rules, buckets: Mutex::default() }
    }

    /// Charges a call. Answers how long it has to wait for its turn, or that too many wait already.
    pub(super) fn charge(
        &self,
        call: Call,
        players: u32,
        now: Instant,
    ) -> Result<Duration, DataStoreError> {
        let mut buckets = self.buckets.lock();
        let mut after = *buckets;
        let mut wait = Duration::ZERO;
        for request in call.charges() {
            let rate = f64::from(self.rules.a_minute(*request, players)) / 60.0;
            let bucket = self.filled(&mut after, *request, players, now);
            bucket.left -= 1.0;
            if bucket.left < -f64::from(MAX_WAITING) {
                return Err(call.throttled());
            }
            wait = wait.max(Duration::from_secs_f64((-bucket.left / rate).max(0.0)));
        }
        *buckets = after;
        Ok(wait)
    }

    /// How many requests of this kind may be made at once.
    pub(super) fn left(&self, request: RequestType, players: u32, now: Instant) -> u32 {
        let left = self.filled(&mut self.buckets.lock(), request, players, now).left;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a cast from a float saturates"
        )]
        let whole = left.max(0.0) as u32;
        whole
    }

    fn filled<'a>(
        &self,
        buckets: &'a mut [Option<Bucket>; 4],
        request: RequestType,
        players: u32,
        now: Instant,
    ) -> &'a mut Bucket {
        let place = match (self.rules, request) {
            (_, RequestType::Read) => 0,
            (_, RequestType::Write) | (BudgetRules::Older, RequestType::Remove) => 1,
            (_, RequestType::List) => 2,
            (BudgetRules::Newer, RequestType::Remove) => 3,
        };
        let a_minute = f64::from(self.rules.a_minute(request, players));
        let bucket = buckets[place].get_or_insert(Bucket { left: a_minute, at: now });
        let passed = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.left = (bucket.left + passed * a_minute / 60.0).min(a_minute);
        bucket.at = now;
        bucket
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_budget_is_a_minutes_worth_then_requests_wait_then_they_fail() {
        let budgets = Budgets::new(BudgetRules::Older);
        let now = Instant::now();
        for _ in 0..70 {
            assert_eq!(budgets.charge(Call::Set, 1, now), Ok(Duration::ZERO));
        }
        assert_eq!(
            (budgets.left(RequestType::Write, 1, now), budgets.left(RequestType::Read, 1, now)),
            (0, 70)
        );
        let waits: Vec<_> =
            (0..30).map(|_| budgets.charge(Call::Remove, 1, now).unwrap()).collect();
        assert_eq!(waits[29], Duration::from_secs_f64(30.0 / (70.0 / 60.0)));
        assert!(waits.is_sorted() && waits[0] > Duration::ZERO);
        for (call, code) in [
            (Call::Set, Code::SetAsyncThrottle),
            (Call::Increment, Code::IncrementAsyncThrottle),
            (Call::Update, Code::UpdateAsyncThrottle),
            (Call::Remove, Code::RemoveAsyncThrottle),
        ] {
            assert_eq!(budgets.charge(call, 1, now).unwrap_err().code, code);
        }
        assert_eq!(
            budgets.left(RequestType::Read, 1, now),
            70,
            "an update that fails is charged for nothing"
        );
        let later = now + Duration::from_secs(60);
        assert_eq!(budgets.left(RequestType::Write, 1, later), 40);
    }

    #[test]
    fn the_rules_are_the_published_ones() {
        use BudgetRules::{Newer, Older};
        use RequestType::{List, Read, Remove, Write};
        for (rules, request, figures) in [
            (Older, Read, (60, 160)),
            (Older, Write, (60, 160)),
            (Newer, Read, (60, 460)),
            (Newer, Remove, (60, 460)),
            (Newer, List, (5, 25)),
        ] {
            assert_eq!(
                (rules.a_minute(request, 0), rules.a_minute(request, 10)),
                figures,
                "{rules:?} {request:?}"
            );
        }
    }
}
