//! All versions of one key, in order.

use std::cmp::Ordering;

use super::{
    super::TransferError,
    live::Live,
    spool::{Row, Values},
};
use crate::ProfileKey;

/// A key whose lines are in order, with what is live.
pub(super) struct CheckedKey {
    pub(super) key: ProfileKey,
    pub(super) rows: Vec<Row>,
    pub(super) live: Live,
}

impl CheckedKey {
    /// The versions and the further lines with messages of a key, each by ascending `n`; or what is
    /// wrong with them. Messages of its last version count, as those in its document do.
    pub(super) fn of(
        key: ProfileKey,
        rows: Vec<Row>,
        messages: &[Row],
        values: &Values,
    ) -> Result<Result<Self, String>, TransferError> {
        let last = rows.last().map_or(0, |row| row.n);
        let wrong = out_of_order(&rows).or_else(|| {
            let row = messages.iter().find(|row| row.n > last)?;
            Some(format!("messages are given of a version that is missing: n=`{}`", row.n))
        });
        if let Some(why) = wrong {
            return Ok(Err(why));
        }
        let mut live = live_of(&rows, values)?;
        for row in messages.iter().filter(|row| row.n == last) {
            live.join(values.live(row)?);
        }
        Ok(match live.given_twice() {
            Some(index) => Err(format!("a message is given twice: index=`{index}`")),
            None => Ok(Self { key, rows, live }),
        })
    }
}

/// What is wrong with the numbers of a key's versions.
fn out_of_order(rows: &[Row]) -> Option<String> {
    let (n, row) = (1..).zip(rows).find(|(n, row)| *n != row.n)?;
    Some(match n.cmp(&row.n) {
        Ordering::Less => format!("a version is missing: n=`{n}`"),
        _ => format!("a version is given twice: n=`{}`", row.n),
    })
}

/// What is live after the last version: its session has been there since the first version of all
/// those before it that name the same one.
fn live_of(rows: &[Row], values: &Values) -> Result<Live, TransferError> {
    let Some(last) = rows.last() else { return Ok(Live::default()) };
    let mut live = values.live(last)?;
    if let Some(holder) = &mut live.lease.holder {
        let run = rows.iter().rev().take_while(|row| row.session == last.session);
        holder.since_ms = run.last().map_or(holder.since_ms, |row| row.written_ms);
    }
    Ok(live)
}
