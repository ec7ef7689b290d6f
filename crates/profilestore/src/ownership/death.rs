//! When a server is dead, when this server is surely not, and for how long it has been in contact
//! with the store, without which it judges nobody.

use std::time::Duration;

use tokio::time::Instant;

use super::Periods;
use crate::data_store::{Holder, KeyState, ServerRow};

/// How long a server has been in uninterrupted contact with the store, during which the store's
/// clock went in step with its own.
pub(crate) type ContactTime = Duration;

/// Whether a server is dead, and if not, when to judge again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    Dead,
    NotKnown { again_in: Duration },
}

/// How far the store's clock may run ahead of ours within a lease time without being noticed: a few
/// small steps, each below what counts as a step.
const CLOCK_MARGIN: Duration = Duration::from_millis(500);

/// Judges a server's row. A row is only too old when the observer itself was in contact all that
/// time: otherwise it may be the store, its clock, or the observer that stood still.
pub(crate) fn judge(
    row: &ServerRow,
    now_ms: i64,
    contact: Option<ContactTime>,
    periods: &Periods,
) -> Death {
    if row.dead {
        return Death::Dead;
    }
    let lease = millis(row.lease_ms);
    let lease = lease + CLOCK_MARGIN + unnoticed(periods, lease / 2);
    let age = apart(now_ms, row.renewed_ms);
    let contact = contact.unwrap_or_default();
    if age > lease && contact >= lease {
        return Death::Dead;
    }
    let missing =
        (lease + Duration::from_millis(1)).saturating_sub(age).max(lease.saturating_sub(contact));
    Death::NotKnown { again_in: missing.max(Duration::from_millis(1)) }
}

/// For how much longer than `allowed` the store may have been silent without a break of contact.
/// The observer's own lease time says what it takes for a break; another server's may be shorter.
pub(super) fn unnoticed(periods: &Periods, allowed: Duration) -> Duration {
    periods.max_gap.saturating_sub(allowed)
}

/// Whether a holder's server is dead. A session that no row vouches for follows its record's last
/// update; when there is none, only the steps of asking and waiting lead to it. A row that is gone
/// was swept long after its death.
pub(super) fn liveness(
    state: &KeyState,
    holder: &Holder,
    now_ms: i64,
    contact: Option<ContactTime>,
    periods: &Periods,
) -> Death {
    match (holder.server, &state.holder_server, holder.last_update_ms) {
        (Some(_), Some(row), _) => judge(row, now_ms, contact, periods),
        (Some(_), None, _) => Death::Dead,
        (None, _, Some(last)) => {
            let left = periods.assume_dead.saturating_sub(millis(now_ms.saturating_sub(last)));
            if left.is_zero() { Death::Dead } else { Death::NotKnown { again_in: left } }
        }
        (None, _, None) => Death::NotKnown { again_in: periods.session_steal },
    }
}

/// True while no other server can have called this one dead: within its own lease time of this
/// confirmation.
pub(crate) fn is_confirmed(lease_time: Duration, confirmed_at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(confirmed_at) < lease_time || defect!(SelfDemotionRemoved)
}

/// How far apart two readings of the store's clock are. A time in the future was read before the
/// clock stepped back.
pub(super) fn apart(a_ms: i64, b_ms: i64) -> Duration {
    Duration::from_millis(a_ms.abs_diff(b_ms))
}

pub(super) fn millis(ms: i64) -> Duration {
    Duration::from_millis(ms.max(0).cast_unsigned())
}

/// How far the store's clock may be out of step with ours between two answers before contact counts
/// as interrupted. The time that the answers took is allowed for apart from that.
const STEP_TOLERANCE: Duration = Duration::from_millis(100);

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
    pub(crate) fn observe(
        &mut self,
        sent: Instant,
        received: Instant,
        store_ms: i64,
        max_gap: Duration,
    ) {
        let in_step = self.last.is_some_and(|last| {
            // The store read its clock somewhere between sending and receiving, both times. Answers
            // may overtake each other.
            let tolerance = whole_ms(STEP_TOLERANCE);
            let least = whole_ms(sent.saturating_duration_since(last.received))
                - whole_ms(last.received.saturating_duration_since(sent));
            let most = whole_ms(received.saturating_duration_since(last.sent));
            let store = store_ms.saturating_sub(last.store_ms);
            received.saturating_duration_since(last.received) <= max_gap
                && (least.saturating_sub(tolerance)..=most.saturating_add(tolerance))
                    .contains(&store)
        });
        if !in_step {
            // Not when it was sent: the store may have read its clock at any moment since then,
            // after a step for example.
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

fn whole_ms(time: Duration) -> i64 {
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
            contact.observe(
                at(base, i * 5000),
                at(base, i * 5000 + 20),
                1_000_000 + i as i64 * 5000,
                GAP,
            );
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
