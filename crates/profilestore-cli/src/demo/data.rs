//! What a player of the demonstration owns, and what can happen to the player's coins. Items are in
//! `trades`.
//!
//! The data notes every step, so the audit need not guess from a sum. Nothing here prevents that a
//! step is applied twice: then it is noted twice. Only the library prevents that.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::trades::Terms;

/// How many doubled steps a player's data names.
const MAX_DOUBLED: usize = 20;

/// One player's profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlayerData {
    pub(crate) coins: i64,
    /// The numbers of the earnings that were applied.
    pub(crate) earned: Numbers,
    /// By receiver, the numbers of the transfers that were debited here.
    pub(crate) debited: BTreeMap<u32, Numbers>,
    /// By sender, the numbers of the transfers that were credited here.
    pub(crate) credited: BTreeMap<u32, Numbers>,
    /// Transfers that were debited and whose message is not known to be stored. The next server
    /// that opens the profile sends it again.
    pub(crate) outbox: Vec<Transfer>,
    /// The numbers of the operators' edits, as they left them.
    pub(crate) edited: Vec<u32>,
    /// Steps that were applied a second time.
    pub(crate) doubled: Vec<String>,
    /// The player has been given the first items.
    pub(crate) minted: bool,
    /// Each with the number of times it has moved.
    pub(crate) items: BTreeMap<u32, u32>,
    /// Trades with other servers into which the player has put an item, until one comes back.
    pub(crate) open_trades: BTreeMap<u64, Terms>,
}

/// Coins on their way from one player to another. Also the message that carries them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Transfer {
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// Counts the transfers from this sender to this receiver.
    pub(crate) number: u32,
    pub(crate) amount: u32,
    pub(crate) created_ms: i64,
}

impl Transfer {
    /// The message's name, unique with its receiver.
    pub(crate) fn name(&self) -> String {
        format!("coins-{}-{}-{}", self.from, self.to, self.number)
    }
}

impl PlayerData {
    pub(crate) fn earn(&mut self, step: u32, amount: u32) {
        self.coins += i64::from(amount);
        if !self.earned.insert(step) {
            self.note_doubled(format!("earning {step}"));
        }
    }

    /// Takes the coins and notes what is to be sent. False when there are not enough of them:
    /// nothing was changed.
    pub(crate) fn debit(&mut self, transfer: &Transfer) -> bool {
        if self.coins < i64::from(transfer.amount) {
            return false;
        }
        self.coins -= i64::from(transfer.amount);
        if !self.debited.entry(transfer.to).or_default().insert(transfer.number) {
            self.note_doubled(format!("debit {}", transfer.name()));
        }
        self.outbox.push(transfer.clone());
        true
    }

    pub(crate) fn credit(&mut self, transfer: &Transfer) {
        self.coins += i64::from(transfer.amount);
        if !self.credited.entry(transfer.from).or_default().insert(transfer.number) {
            self.note_doubled(format!("credit {}", transfer.name()));
        }
    }

    /// The transfer's message is stored.
    pub(crate) fn sent(&mut self, transfer: &Transfer) {
        self.outbox.retain(|other| (other.to, other.number) != (transfer.to, transfer.number));
    }

    pub(crate) fn note_doubled(&mut self, step: String) {
        if self.doubled.len() < MAX_DOUBLED {
            self.doubled.push(step);
        }
    }
}

/// A set of numbers, kept as ranges, so that it stays small however long the player plays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Numbers(Vec<(u32, u32)>);

impl Numbers {
    /// False when it was in there before.
    pub(crate) fn insert(&mut self, number: u32) -> bool {
        let at = self.0.partition_point(|(first, _)| *first <= number);
        if at > 0 && self.0[at - 1].1 >= number {
            return false;
        }
        let follows = at > 0 && self.0[at - 1].1 + 1 == number;
        let precedes =
            self.0.get(at).is_some_and(|(first, _)| number.checked_add(1) == Some(*first));
        match (follows, precedes) {
            (true, true) => self.0[at - 1].1 = self.0.remove(at).1,
            (true, false) => self.0[at - 1].1 = number,
            (false, true) => self.0[at].0 = number,
            (false, false) => self.0.insert(at, (number, number)),
        }
        true
    }

    pub(crate) fn contains(&self, number: u32) -> bool {
        let at = self.0.partition_point(|(first, _)| *first <= number);
        at > 0 && self.0[at - 1].1 >= number
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().flat_map(|(first, last)| *first..=*last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_a_set_in_few_ranges() {
        let mut numbers = Numbers::default();
        for n in [5, 3, 4, 9, 7, 8, 0] {
            assert!(numbers.insert(n), "{n}");
        }
        for n in [0, 3, 5, 8] {
            assert!(!numbers.insert(n), "{n}");
        }
        assert_eq!(numbers.0, [(0, 0), (3, 5), (7, 9)]);
        assert_eq!(numbers.iter().collect::<Vec<_>>(), [0, 3, 4, 5, 7, 8, 9]);
        assert!(numbers.contains(4) && !numbers.contains(6) && !numbers.contains(1));
        assert!(numbers.insert(u32::MAX));
        assert!(!numbers.insert(u32::MAX));
    }

    #[test]
    fn a_step_applied_twice_counts_twice_and_is_noted() {
        let transfer = Transfer { from: 1, to: 2, number: 0, amount: 4, created_ms: 0 };
        let mut data = PlayerData::default();
        assert!(!data.debit(&transfer));
        data.earn(0, 10);
        data.earn(0, 10);
        assert!(data.debit(&transfer));
        data.sent(&transfer);
        data.credit(&transfer);
        data.credit(&transfer);
        assert_eq!(data.coins, 24);
        assert!(data.outbox.is_empty());
        assert_eq!(data.doubled, ["earning 0", "credit coins-1-2-0"]);
    }

    #[test]
    fn the_data_survives_json() {
        let mut data = PlayerData::default();
        data.earn(3, 7);
        assert!(data.debit(&Transfer { from: 1, to: 12, number: 0, amount: 4, created_ms: 5 }));
        let json = serde_json::to_string(&data).unwrap();
        assert_eq!(serde_json::from_str::<PlayerData>(&json).unwrap(), data);
    }
}
