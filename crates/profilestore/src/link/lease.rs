//! What this server knows about its own lease: one row in the store, renewed every few seconds, on
//! which all its sessions stand. [`super::renew`] writes the row.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    data_store::{Incarnation, ServerId},
    ownership::{self, Contact},
};

/// What this server knows about its lease.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    /// The current incarnation of this server.
    pub(crate) server: ServerId,
    /// The incarnation of the store that it registered in.
    pub(crate) incarnation: Incarnation,
    /// The row's revision.
    pub(crate) revision: u64,
    /// After how long without a renewal the row may be declared dead, as it says itself.
    pub(crate) lease_time: Duration,
    /// Just before the request was sent that confirmed the lease last.
    pub(crate) confirmed_at: Instant,
    /// Contact with the store, reads included: they tell of its clock.
    pub(crate) contact: Contact,
    /// Contact through renewals alone. While the store can be read and not written, no server
    /// renews, so none may be judged by that.
    pub(crate) renewals: Contact,
}

impl Lease {
    /// For how long both the store has answered and this server has renewed without a break: what
    /// others can be judged by.
    pub(crate) fn contact_time(&self, now: Instant, max_gap: Duration) -> Option<Duration> {
        let (answered, renewed) =
            (self.contact.time(now, max_gap)?, self.renewals.time(now, max_gap)?);
        Some(answered.min(renewed))
    }

    /// True while no other server can have called this one dead: within the lease time of this
    /// confirmation.
    pub(crate) fn is_confirmed(&self, confirmed_at: Instant, now: Instant) -> bool {
        ownership::is_confirmed(self.lease_time, confirmed_at, now)
    }
}

/// How many renewals were sent, and how many of them have an outcome.
#[derive(Debug, Default)]
pub(crate) struct UnderWay(Mutex<(u64, u64)>);

impl UnderWay {
    pub(super) fn begin(&self) {
        self.0.lock().0 += 1;
    }

    pub(super) fn end(&self) {
        let mut counts = self.0.lock();
        counts.1 = counts.0;
    }

    /// How many were sent so far. None while one of them has no outcome: its answer may bring news.
    pub(crate) fn all_answered(&self) -> Option<u64> {
        let counts = self.0.lock();
        (counts.0 == counts.1).then_some(counts.0)
    }
}
