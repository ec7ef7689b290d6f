//! All versions of one key, in order.

use std::cmp::Ordering;

use super::{
    super::TransferError,
    live::Live,
    spool::{Row, Values},
};
use crate::ProfileKey;

/// How many bytes of the temporary files may say what is live of one key. All of it is stored in
/// one commit, and what one statement brings to PostgreSQL is at most 1 GiB. 1,000 messages of 256
/// KiB fit, though they are up to twice as long there.
const MAX_LIVE_BYTES: usize = 512 << 20;

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
        let of_last = || messages.iter().filter(move |row| row.n == last);
        let wrong = out_of_order(&rows).or_else(|| {
            let row = messages.iter().find(|row| row.n > last)?;
            Some(format!("messages are given of a version that is missing: n=`{}`", row.n))
        });
        let wrong = wrong.or_else(|| too_much(rows.last().into_iter().chain(of_last())));
        if let Some(why) = wrong {
            return Ok(Err(why));
        }
        let mut live = live_of(&rows, values)?;
        for row in of_last() {
            live.join(values.live(row)?);
        }
        live.sort();
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

/// That so much is live after a last version that one commit could not take it.
fn too_much<'a>(rows: impl Iterator<Item = &'a Row>) -> Option<String> {
    let bytes = rows.map(Row::live_bytes).sum::<usize>();
    (bytes > MAX_LIVE_BYTES).then(|| {
        format!(
            "its messages are too much for one commit: bytes=`{bytes}` limit=`{MAX_LIVE_BYTES}`"
        )
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

#[cfg(test)]
mod tests {
    use super::{
        super::spool::{Place, Spool},
        *,
    };

    fn row(is_messages: bool, bytes: usize) -> Row {
        Row {
            key: ProfileKey::new("S", "global", "k").unwrap(),
            n: 1,
            line: 1,
            written_ms: 1,
            created_ms: 1,
            label: None,
            removed: true,
            user_ids: Vec::new(),
            load_count: 0,
            foreign: None,
            session: None,
            value: Place::default(),
            live: Place { at: 0, bytes },
            is_messages,
        }
    }

    /// All of it came into memory and into one commit, however much it was.
    #[test]
    fn messages_that_one_commit_could_not_take_are_refused_before_they_are_read() {
        // Nothing can be read of these files.
        let (values, _) = Spool::new(&std::env::temp_dir()).unwrap().sorted().unwrap();
        let half = MAX_LIVE_BYTES / 2;
        let checked = |bytes: usize| {
            let (version, messages) = (row(false, 0), [row(true, half), row(true, bytes)]);
            CheckedKey::of(version.key.clone(), vec![version], &messages, &values)
        };
        let why = checked(half + 1).unwrap().err().unwrap();
        assert!(why.starts_with("its messages are too much for one commit"), "{why}");
        assert!(checked(half).is_err(), "it reads what it may take");
    }
}
