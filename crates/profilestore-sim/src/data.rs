//! What the simulated players' profiles hold: enough to tell from a committed value alone who wrote
//! it and what is in it.

use std::collections::BTreeMap;

use profilestore::record::Stored;
use serde::{Deserialize, Serialize};

/// The oracle's number for a session, or for an operator's write: given out when the client gets
/// the session, never twice.
pub type Label = u64;

/// The data of a profile.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Player {
    /// Who edited it last.
    pub writer: Label,
    /// How many edits of each writer are in it.
    pub edits: BTreeMap<Label, u64>,
    pub coins: i64,
    /// Coins that came from nowhere: earned and bought. The rest was given by other profiles.
    pub minted: i64,
    /// The messages whose effect is in it, one entry each time.
    pub received: Vec<u64>,
    /// The purchases that were granted, one entry each time.
    pub bought: Vec<u64>,
    /// The trades whose effect is in it.
    pub trades: Vec<u64>,
    /// The transactions whose effect is in it, by the numbers of their calls.
    pub marks: Vec<u64>,
    /// Things that exist once in the world.
    pub items: Vec<u64>,
    /// The operators' edits whose effect is in it, with what each granted.
    pub edited: BTreeMap<u64, i64>,
    /// What the edits granted, added up by themselves.
    pub granted: i64,
}

impl Player {
    /// Notes an edit and answers how many this writer has made.
    pub fn sign(&mut self, writer: Label) -> u64 {
        self.writer = writer;
        let count = self.edits.entry(writer).or_default();
        *count += 1;
        *count
    }

    pub fn mint(&mut self, coins: i64) {
        self.coins += coins;
        self.minted += coins;
    }

    /// The data in a stored value; None when it is no profile.
    pub fn decode(value: &[u8]) -> Option<Self> {
        match Stored::decode(value) {
            Ok(Stored::Profile(record)) => serde_json::from_str(record.data.get()).ok(),
            _ => None,
        }
    }
}

/// A message between players.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    pub number: u64,
    pub coins: i64,
    /// The coins were the sender's; otherwise they come from nowhere.
    pub gift: bool,
}
