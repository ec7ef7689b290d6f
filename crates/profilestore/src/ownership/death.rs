//! When a server is dead.

use std::time::Duration;

use super::Periods;
use crate::data_store::{Holder, KeyState, ServerRow};

/// How long a server has been in uninterrupted contact with the store, during which the store's clock went in step with its own.
pub(crate) type ContactTime = Duration;

/// Whether a server is dead, and if not, when to judge again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    Dead,
    NotKnown { again_in: Duration },
}

/// How far the store's clock may run ahead of ours within a lease time without being noticed: a few small steps, each below what
/// counts as a step.
const CLOCK_MARGIN: Duration = Duration::from_millis(500);

/// Judges a server's row. A row is only too old when the observer itself was in contact all that time: otherwise it may be the
/// store, its clock, or the observer that stood still.
pub(crate) fn judge(row: &ServerRow, now_ms: i64, contact: Option<ContactTime>) -> Death {
    if row.dead {
        return Death::Dead;
    }
    let lease = millis(row.lease_ms);
    let lease = lease + CLOCK_MARGIN;
    let age = apart(now_ms, row.renewed_ms);
    let contact = contact.unwrap_or_default();
    if age > lease && contact >= lease {
        return Death::Dead;
    }
    let missing = (lease + Duration::from_millis(1)).saturating_sub(age).max(lease.saturating_sub(contact));
    Death::NotKnown { again_in: missing.max(Duration::from_millis(1)) }
}

/// Whether a holder's server is dead. A session that no row vouches for follows its record's last update; when there is none,
/// only the steps of asking and waiting lead to it. A row that is gone was swept long after its death.
pub(super) fn liveness(state: &KeyState, holder: &Holder, now_ms: i64, contact: Option<ContactTime>, periods: &Periods) -> Death {
    match (holder.server, &state.holder_server, holder.last_update_ms) {
        (Some(_), Some(row), _) => judge(row, now_ms, contact),
        (Some(_), None, _) => Death::Dead,
        (None, _, Some(last)) => {
            let left = periods.assume_dead.saturating_sub(millis(now_ms.saturating_sub(last)));
            if left.is_zero() { Death::Dead } else { Death::NotKnown { again_in: left } }
        }
        (None, _, None) => Death::NotKnown { again_in: periods.session_steal },
    }
}

/// How far apart two readings of the store's clock are. A time in the future was read before the clock stepped back.
pub(super) fn apart(a_ms: i64, b_ms: i64) -> Duration {
    Duration::from_millis(a_ms.abs_diff(b_ms))
}

pub(super) fn millis(ms: i64) -> Duration {
    Duration::from_millis(ms.max(0).cast_unsigned())
}
