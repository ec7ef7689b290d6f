//! This server's lease: one row in the store, renewed every few seconds, on which all its sessions stand.
//!
//! Here is the state and its pure rules; `engine::renew` is the task.

use std::time::Duration;

use tokio::time::Instant;

use crate::data_store::{Incarnation, ServerId};

/// How far the store's clock may be out of step with ours between two answers before contact counts as interrupted. The time that
/// the answers took is allowed for apart from that.
const STEP_TOLERANCE: Duration = Duration::from_millis(100);

/// What this server knows about its lease.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    /// The current incarnation of this server.
    pub(crate) server: ServerId,
    /// The contents of the store it registered in.
    pub(crate) incarnation: Incarnation,
    /// The row's revision.
    pub(crate) revision: u64,
    /// After how long without a renewal the row may be declared dead, as it says itself.
    pub(crate) lease_time: Duration,
    /// Just before the request was sent that confirmed the lease last.
    pub(crate) confirmed_at: Instant,
    /// Contact with the store, reads included: they tell of its clock.
    pub(crate) contact: Contact,
    /// Contact through renewals alone. While the store can be read and not written, nobody renews, so nobody may be judged by that.
    pub(crate) renewals: Contact,
}

impl Lease {
    /// For how long both the store has answered and this server has renewed without a break: what others can be judged by.
    pub(crate) fn contact_time(&self, now: Instant, max_gap: Duration) -> Option<Duration> {
        let (answered, renewed) = (self.contact.time(now, max_gap)?, self.renewals.time(now, max_gap)?);
        Some(answered.min(renewed))
    }

    /// True while nobody can have declared this server dead: within the lease time of this confirmation.
    pub(crate) fn is_confirmed(&self, confirmed_at: Instant, now: Instant) -> bool {
        now.saturating_duration_since(confirmed_at) < self.lease_time || defect!(SelfDemotionRemoved)
    }
}

/// Watches for how long the store has answered without a break, its clock in step with ours.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Contact {
    since: Option<Instant>,
    last: Option<Observation>,
}

#[derive(Debug, Clone, Copy)]
struct Observation {
    sent: Instant,
    received: Instant,
    store_ms: i64,
}

impl Contact {
    /// Notes an answer of the store. `max_gap` is how far apart two answers may lie.
    pub(crate) fn observe(&mut self, sent: Instant, received: Instant, store_ms: i64, max_gap: Duration) {
        let in_step = self.last.is_some_and(|last| {
            // The store read its clock somewhere between sending and receiving, both times. Answers may overtake each other.
            let tolerance = millis(STEP_TOLERANCE);
            let least =
                millis(sent.saturating_duration_since(last.received)) - millis(last.received.saturating_duration_since(sent));
            let most = millis(received.saturating_duration_since(last.sent));
            let store = store_ms.saturating_sub(last.store_ms);
            received.saturating_duration_since(last.received) <= max_gap
                && (least.saturating_sub(tolerance)..=most.saturating_add(tolerance)).contains(&store)
        });
        if !in_step {
            // Not when it was sent: the store may have read its clock at any moment since then, after a step for example.
            self.since = Some(received);
        }
        self.last = Some(Observation { sent, received, store_ms });
    }

    /// What the store's clock says now, as far as is known.
    pub(crate) fn store_ms(&self, now: Instant) -> Option<i64> {
        let last = self.last?;
        let since = now.saturating_duration_since(last.received).as_millis();
        Some(last.store_ms.saturating_add(i64::try_from(since).unwrap_or(i64::MAX)))
    }

    /// For how long there has been contact; None when there is none at the moment.
    pub(crate) fn time(&self, now: Instant, max_gap: Duration) -> Option<Duration> {
        let last = self.last?;
        if now.saturating_duration_since(last.received) > max_gap {
            return None;
        }
        Some(now.saturating_duration_since(self.since?))
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GAP: Duration = Duration::from_secs(10);

    fn at(base: Instant, ms: u64) -> Instant {
        base + Duration::from_millis(ms)
    }

    #[test]
    fn contact_grows_while_the_clocks_go_in_step() {
        let base = Instant::now();
        let mut contact = Contact::default();
        for i in 0..5u64 {
            contact.observe(at(base, i * 5000), at(base, i * 5000 + 20), 1_000_000 + i as i64 * 5000, GAP);
        }
        assert_eq!(contact.time(at(base, 20_020), GAP), Some(Duration::from_millis(20_000)));
    }

    #[test]
    fn a_step_of_the_stores_clock_starts_the_count_anew() {
        for step in [30_000, -30_000] {
            let base = Instant::now();
            let mut contact = Contact::default();
            contact.observe(base, at(base, 10), 1_000_000, GAP);
            contact.observe(at(base, 5000), at(base, 5010), 1_005_000 + step, GAP);
            assert_eq!(contact.time(at(base, 6000), GAP), Some(Duration::from_millis(990)));
        }
    }

    #[test]
    fn an_answer_that_took_long_says_nothing_of_the_time_before_it_came() {
        // The store's clock stepped while the request was under way.
        let base = Instant::now();
        let mut contact = Contact::default();
        contact.observe(base, at(base, 10), 1_000_000, GAP);
        contact.observe(at(base, 100), at(base, 9000), 1_600_000, GAP);
        contact.observe(at(base, 9500), at(base, 9510), 1_600_510, GAP);
        assert_eq!(contact.time(at(base, 10_000), GAP), Some(Duration::from_millis(1000)));
    }

    #[test]
    fn answers_that_overtake_each_other_are_in_step() {
        let base = Instant::now();
        let mut contact = Contact::default();
        contact.observe(base, at(base, 10), 1_000_000, GAP);
        contact.observe(at(base, 4000), at(base, 4010), 1_004_000, GAP);
        contact.observe(at(base, 2000), at(base, 5000), 1_002_500, GAP);
        assert_eq!(contact.time(at(base, 5000), GAP), Some(Duration::from_millis(4990)));
    }

    #[test]
    fn an_outage_starts_the_count_anew() {
        let base = Instant::now();
        let mut contact = Contact::default();
        contact.observe(base, at(base, 10), 1_000_000, GAP);
        assert_eq!(contact.time(at(base, 10_011), GAP), None);
        contact.observe(at(base, 30_000), at(base, 30_010), 1_030_000, GAP);
        assert_eq!(contact.time(at(base, 30_010), GAP), Some(Duration::ZERO));
    }
}
