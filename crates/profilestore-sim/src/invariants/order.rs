//! G9: what one server does to one profile takes effect in call order. The model is the calls
//! themselves, in the order in which they were made, with what their callers heard.

use std::collections::{BTreeMap, BTreeSet};

use profilestore::ErrorKind;

use super::{Broken, Seen, broken};
use crate::{
    data::Label,
    oracle::{Told, TradeTold},
};

/// Looks at transactions, wherever they come from.
#[derive(Default, Clone)]
pub struct CallOrder {
    /// Transactions that were ever committed.
    ever: BTreeSet<u64>,
}

impl CallOrder {
    pub fn committed(&mut self, seen: &Seen<'_>, told: &Told) -> Result<(), Broken> {
        let step = seen.step;
        let Some(after) = &step.after.data else { return Ok(()) };
        if let Some(two) = after.marks.windows(2).find(|two| two[0] >= two[1]) {
            let what = format!(
                "transaction {} was called after {}, and took effect before it",
                two[0], two[1]
            );
            return broken("G9", step.key, what);
        }
        if seen.kind.rewrites() {
            return Ok(());
        }
        let before =
            step.before.data.as_ref().map(|data| data.marks.as_slice()).unwrap_or_default();
        for mark in after.marks.iter().filter(|mark| !before.contains(mark)) {
            if told.transactions.get(mark) == Some(&TradeTold::Failed) {
                let what = format!(
                    "transaction {mark} takes effect, and its caller was told that nothing was done"
                );
                return broken("G4", step.key, what);
            }
            self.ever.insert(*mark);
        }
        Ok(())
    }

    /// Whether a transaction has ever taken effect.
    pub fn is_done(&self, mark: u64) -> bool {
        self.ever.contains(&mark)
    }

    /// A caller was told what became of a transaction.
    pub fn told(
        &self,
        mark: u64,
        heard: Result<(), ErrorKind>,
        takers: &[Label],
        told: &Told,
    ) -> Result<(), Broken> {
        let sessions = || takers.iter().filter_map(|label| told.sessions.get(label));
        let Some(key) = sessions().next().map(|session| session.key.clone()) else { return Ok(()) };
        match heard {
            Ok(()) if !self.is_done(mark) => broken(
                "G4",
                &key,
                format!("transaction {mark} was acknowledged and never committed"),
            ),
            Ok(()) if sessions().any(|session| session.was_ended_before(mark)) => broken(
                "G9",
                &key,
                format!("transaction {mark} was done, and was called after an end"),
            ),
            Err(kind @ (ErrorKind::SessionEnded | ErrorKind::Closing))
                if !sessions().any(|session| session.may_be_over_before(mark)) =>
            {
                broken(
                    "G9",
                    &key,
                    format!(
                        "transaction {mark} was refused with {kind:?}, and no \
                    end was called before it"
                    ),
                )
            }
            _ => Ok(()),
        }
    }

    pub fn restored(&mut self, before: &Self) {
        self.ever.clone_from(&before.ever);
    }
}

/// A call on one profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// With how many edits had been made before it.
    Save {
        edits: u64,
    },
    /// With its number.
    Transaction {
        mark: u64,
    },
    /// With the message's number.
    Send {
        letter: u64,
    },
    Read,
    /// With how many edits had been made before it.
    End {
        edits: u64,
    },
    Start,
}

/// What the caller heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    Done,
    Refused(ErrorKind),
    /// The data as it was read.
    Saw {
        edits: u64,
        marks: BTreeSet<u64>,
    },
    /// Its caller did not wait for the answer, or its server is gone.
    Nothing,
}

/// Calls on one profile by one server, in call order.
#[derive(Debug, Default)]
pub struct Calls(pub Vec<(Call, Heard)>);

/// What else is known when calls are judged.
#[derive(Default)]
pub struct Known {
    /// Nothing went wrong between the server and the store: each call was carried out.
    pub calm: bool,
    /// Transactions that took effect.
    pub done: BTreeSet<u64>,
    /// When each message was stored, counted in messages.
    pub stored: BTreeMap<u64, u64>,
}

impl Calls {
    pub fn judge(&self, key: &str, known: &Known) -> Result<(), Broken> {
        for (at, (call, heard)) in self.0.iter().enumerate() {
            let (before, after) = (&self.0[..at], &self.0[at + 1..]);
            match (call, heard) {
                (Call::Read, Heard::Saw { edits, marks }) => {
                    self.judge_read(key, at, *edits, marks)?
                }
                (Call::Save { .. }, Heard::Refused(ErrorKind::SessionEnded)) if !ends(before) => {
                    return broken(
                        "G9",
                        key,
                        format!("a save was refused, and no end was called before it: {self:?}"),
                    );
                }
                (Call::Start, Heard::Refused(ErrorKind::AlreadyLoaded)) if ends(before) => {
                    return broken(
                        "G9",
                        key,
                        format!(
                            "an end was called, and a start after it found the session: {self:?}"
                        ),
                    );
                }
                // Whatever was called before something that was done has been carried out by then.
                (Call::Transaction { mark }, Heard::Nothing)
                    if known.calm
                        && shows_its_turn(before, after)
                        && !ends(before)
                        && !known.done.contains(mark) =>
                {
                    return broken(
                        "G9",
                        key,
                        format!("transaction {mark}, whose caller did not wait, is lost: {self:?}"),
                    );
                }
                (Call::Send { letter }, Heard::Nothing)
                    if known.calm
                        && shows_its_turn(before, after)
                        && !known.stored.contains_key(letter) =>
                {
                    return broken(
                        "G9",
                        key,
                        format!("message {letter}, whose sender did not wait, is lost: {self:?}"),
                    );
                }
                _ => {}
            }
        }
        let sent = self.0.iter().filter_map(|(call, heard)| match (call, heard) {
            (Call::Send { letter }, Heard::Done) => known.stored.get(letter),
            _ => None,
        });
        if !sent.is_sorted() {
            return broken(
                "G9",
                key,
                format!("messages were stored in another order than they were sent: {self:?}"),
            );
        }
        Ok(())
    }

    fn judge_read(
        &self,
        key: &str,
        at: usize,
        seen: u64,
        marks: &BTreeSet<u64>,
    ) -> Result<(), Broken> {
        // The one exception to G9: a later end may do the work of a save.
        let is_ended_later = ends(&self.0[at..]);
        for (call, heard) in &self.0[..at] {
            let missed = match call {
                Call::Save { .. } if is_ended_later => false,
                Call::Save { edits } | Call::End { edits } => {
                    *heard == Heard::Done && seen < *edits
                }
                Call::Transaction { mark } => *heard == Heard::Done && !marks.contains(mark),
                Call::Send { .. } | Call::Read | Call::Start => false,
            };
            if missed {
                return broken(
                    "G9",
                    key,
                    format!("a read did not see what was done before it ({call:?}): {self:?}"),
                );
            }
        }
        let early = self.0[at..]
            .iter()
            .find(|(call, _)| matches!(call, Call::Transaction { mark } if marks.contains(mark)));
        if let Some((call, _)) = early {
            return broken(
                "G9",
                key,
                format!("a read saw what was called after it ({call:?}): {self:?}"),
            );
        }
        Ok(())
    }
}

fn ends(calls: &[(Call, Heard)]) -> bool {
    calls.iter().any(|(call, _)| matches!(call, Call::End { .. }))
}

/// Whether an answer shows that the turn of a call has been: one to a later call that has a turn of
/// its own. A start has none, nor has an end behind another end: it is answered with the first one.
fn shows_its_turn(before: &[(Call, Heard)], after: &[(Call, Heard)]) -> bool {
    let mut is_ended = ends(before);
    after.iter().any(|(call, heard)| {
        let joins = matches!(call, Call::End { .. }) && std::mem::replace(&mut is_ended, true);
        *call != Call::Start && !joins && matches!(heard, Heard::Done | Heard::Saw { .. })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(calls: &[(Call, Heard)], done: &[u64], stored: &[(u64, u64)]) -> bool {
        let known = Known {
            calm: true,
            done: done.iter().copied().collect(),
            stored: stored.iter().copied().collect(),
        };
        Calls(calls.to_vec()).judge("p", &known).is_ok()
    }

    fn saw(edits: u64, marks: &[u64]) -> Heard {
        Heard::Saw { edits, marks: marks.iter().copied().collect() }
    }

    #[test]
    fn a_read_sees_all_that_was_done_before_it_and_nothing_that_was_called_after_it() {
        let calls = |heard| {
            [
                (Call::Save { edits: 3 }, Heard::Done),
                (Call::Transaction { mark: 1 }, Heard::Done),
                (Call::Read, heard),
                (Call::Transaction { mark: 2 }, Heard::Nothing),
            ]
        };
        assert!(judged(&calls(saw(4, &[1])), &[1, 2], &[]));
        assert!(!judged(&calls(saw(2, &[1])), &[1, 2], &[]), "the save is missing");
        assert!(!judged(&calls(saw(3, &[])), &[1, 2], &[]), "the transaction is missing");
        assert!(!judged(&calls(saw(3, &[1, 2])), &[1, 2], &[]), "the later transaction is there");
    }

    #[test]
    fn what_nobody_waited_for_is_carried_out_before_what_was_called_after_it() {
        let calls = [
            (Call::Transaction { mark: 1 }, Heard::Nothing),
            (Call::Send { letter: 7 }, Heard::Nothing),
            (Call::End { edits: 0 }, Heard::Done),
        ];
        assert!(judged(&calls, &[1], &[(7, 0)]));
        assert!(!judged(&calls, &[], &[(7, 0)]), "the transaction is lost");
        assert!(!judged(&calls, &[1], &[]), "the message is lost");
    }

    #[test]
    fn an_end_that_joins_an_earlier_one_shows_no_turn() {
        let calls = [
            (Call::End { edits: 0 }, Heard::Done),
            (Call::Send { letter: 7 }, Heard::Nothing),
            (Call::End { edits: 0 }, Heard::Done),
        ];
        assert!(judged(&calls, &[], &[]));
        let read = [(Call::Read, saw(0, &[]))];
        assert!(
            !judged(&[&calls[..], &read].concat(), &[], &[]),
            "the read came behind the message"
        );
    }

    #[test]
    fn a_read_may_miss_a_save_only_when_an_end_came_behind_the_read() {
        let calls = [
            (Call::Save { edits: 3 }, Heard::Done),
            (Call::Read, saw(2, &[])),
            (Call::End { edits: 3 }, Heard::Done),
        ];
        assert!(judged(&calls, &[], &[]));
        assert!(!judged(&calls[..2], &[], &[]));
    }

    #[test]
    fn messages_are_stored_in_the_order_in_which_they_were_sent() {
        let calls =
            [(Call::Send { letter: 7 }, Heard::Done), (Call::Send { letter: 8 }, Heard::Done)];
        assert!(judged(&calls, &[], &[(7, 4), (8, 5)]));
        assert!(!judged(&calls, &[], &[(7, 5), (8, 4)]));
    }

    #[test]
    fn an_end_refuses_only_what_is_called_after_it() {
        let refused = || Heard::Refused(ErrorKind::SessionEnded);
        let (save, end) =
            (|heard| (Call::Save { edits: 0 }, heard), || (Call::End { edits: 0 }, Heard::Done));
        assert!(judged(&[end(), save(refused())], &[], &[]));
        assert!(!judged(&[save(refused()), end()], &[], &[]));
        assert!(!judged(
            &[end(), (Call::Start, Heard::Refused(ErrorKind::AlreadyLoaded))],
            &[],
            &[]
        ));
    }
}
