//! What a start's caller may hear: each start is answered for itself, whatever becomes of others on
//! the same profile.

use std::sync::Arc;

use profilestore::ErrorKind;
use tokio::time::Instant;

use super::{Broken, broken};
use crate::oracle::{StartTold, Told};

/// Servers' monotonic clocks go wrong by up to one percent.
const DRIFT: f64 = 0.98;

/// A start was refused.
pub fn refused(number: u64, kind: ErrorKind, told: &Told) -> Result<(), Broken> {
    let Some(start) = told.starts.iter().find(|start| start.number == number) else {
        return Ok(());
    };
    let took = Instant::now() - start.since;
    let what = match kind {
        ErrorKind::Cancelled if !start.may_be_cancelled => "its caller did not call it off",
        ErrorKind::TimedOut if start.limit.is_none_or(|limit| took < limit.mul_f64(DRIFT)) => {
            "its time was not up"
        }
        ErrorKind::Superseded if !told.starts.iter().any(|other| supersedes(other, start)) => {
            "no later start came"
        }
        _ => return Ok(()),
    };
    broken(
        "starts",
        &start.key,
        format!("start {number} hears {kind:?} after {took:?}, and {what}"),
    )
}

fn supersedes(later: &StartTold, start: &StartTold) -> bool {
    later.number > start.number && later.key == start.key && Arc::ptr_eq(&later.life, &start.life)
}
