//! The messages between parent and servers: one JSON document a line. Orders come on a server's
//! standard input, reports go to its standard output.
//!
//! A server reports an Ok after the library returned it, never before. What a killed server had
//! written into its pipe is still read, and counts as acknowledged. For the ledger, everything else
//! has an unknown outcome.

use serde::{Deserialize, Serialize};

use super::{
    edits::Task,
    trades::{Item, Terms},
};

/// Something a server is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) id: u64,
    #[serde(flatten)]
    pub(crate) what: What,
}

/// What it is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub(crate) enum What {
    /// Start a session for a player. The order's id names the session from then on.
    Join { player: u32 },
    /// End the player's session.
    Leave { player: u32 },
    /// Give the player coins; save and wait for it, or leave that to whatever saves next.
    Earn { player: u32, step: u32, amount: u32, save: bool },
    /// Send coins to another player by message.
    Send { from: u32, to: u32, number: u32, amount: u32 },
    /// Two players of this server each give the other an item.
    Trade { one: u32, other: u32 },
    /// Give an item away.
    Give { from: u32, to: u32 },
    /// Put an item into an escrow.
    Deposit { player: u32, terms: Terms },
    /// Settle a trade through an escrow.
    Settle { trade: u64 },
    /// Make an operator's edit.
    Edit { task: Task },
    /// Shut down.
    Stop,
}

impl What {
    /// Whose order it is, if it is a player's own.
    pub(crate) fn player(&self) -> Option<u32> {
        match *self {
            Self::Join { player }
            | Self::Leave { player }
            | Self::Earn { player, .. }
            | Self::Deposit { player, .. } => Some(player),
            Self::Send { from, .. } | Self::Give { from, .. } => Some(from),
            Self::Trade { one, .. } => Some(one),
            Self::Settle { .. } | Self::Edit { .. } | Self::Stop => None,
        }
    }
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "snake_case")]
pub(crate) enum Report {
    /// Orders are taken.
    Ready,
    /// What became of an order.
    Done { id: u64, answer: Answer },
    /// A transfer's debit is saved, its message not yet stored.
    Debited { from: u32, to: u32, number: u32 },
    /// A trade that an earlier session had left open is settled: these items moved.
    Settled { items: Vec<Item> },
    /// A transfer that an earlier session had left behind is stored as a message.
    Resent { from: u32, to: u32, number: u32 },
    /// A message's coins were added; that is not saved yet.
    Credited { player: u32 },
    /// A session ended without an order.
    Ended { player: u32, session: u64, how: String },
    /// The library reported an error of the store.
    Trouble { message: String },
    /// The machine kept the server from running for this long.
    StoodStill { millis: u64 },
    /// The game server is shut down. Earnings of sessions that it ended, profiles that had been
    /// taken from it before it could save them, and profiles that it could not save.
    Stopped { saved: Vec<(u32, Vec<u32>)>, taken: Vec<String>, not_saved: Vec<String> },
    /// Nothing follows. Not written to the pipe: its end says so.
    Bye,
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(crate) enum Answer {
    /// The session is there; how many sessions the profile has had, and how long the start took.
    Joined { load_count: u64, micros: u64 },
    /// These earnings are saved.
    Saved { steps: Vec<u32>, micros: u64 },
    /// The earning is in the data and not saved yet.
    Noted,
    /// The session is over and these earnings are saved.
    Left { steps: Vec<u32> },
    /// The debit is saved and the message stored.
    Sent { micros: u64 },
    /// These items moved, and that is durable.
    Moved { items: Vec<Item>, micros: u64 },
    /// The edit was made, by now or before, and is durable. `online`: a session's holder made it.
    Edited { online: bool },
    /// The data was not changed.
    Refused { why: String },
    /// The library gave an error; the change may be there or not.
    Failed { kind: String, message: String },
}

impl Answer {
    /// Something was done that is there to stay.
    pub(crate) fn is_durable(&self) -> bool {
        match self {
            Self::Joined { .. }
            | Self::Saved { .. }
            | Self::Left { .. }
            | Self::Sent { .. }
            | Self::Moved { .. } => true,
            Self::Noted | Self::Edited { .. } | Self::Refused { .. } | Self::Failed { .. } => false,
        }
    }
}

/// One line.
pub(crate) fn line(message: &impl Serialize) -> String {
    let mut line = serde_json::to_string(message).expect("plain data is JSON");
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_and_comes_back_the_same() {
        let order = Order { id: 7, what: What::Send { from: 1, to: 2, number: 3, amount: 4 } };
        let text = line(&order);
        assert_eq!(text.matches('\n').count(), 1);
        assert_eq!(serde_json::from_str::<Order>(&text).unwrap(), order);
        for answer in [
            Answer::Noted,
            Answer::Left { steps: vec![1, 2] },
            Answer::Refused { why: "a\nb".into() },
        ] {
            let report = Report::Done { id: 9, answer };
            let text = line(&report);
            assert_eq!(text.trim_end().matches('\n').count(), 0);
            assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
        }
    }
}
