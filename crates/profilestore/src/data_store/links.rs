//! What the commit of a version did beyond the profile itself: the messages that it took and sent,
//! and the trade that it was part of. A rollback of the profile undoes none of it.

use serde::{Deserialize, Serialize};

use super::{CommitId, MessageId};
use crate::key::ProfileKey;

/// How many messages taken, and how many sent, are named for one version; the rest is counted.
pub const MAX_LINKS: usize = 100;

/// What the commit of a version did beyond the profile itself. See [`super::DataStore::links`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VersionLinks {
    /// The version's number. It need not be kept any more.
    pub version: u64,
    /// When it was stored, by the store's clock, Unix milliseconds.
    pub at_ms: i64,
    /// The rest.
    #[serde(flatten)]
    pub links: Links,
}

impl VersionLinks {
    /// What a version's commit did, for a backend that builds one from its rows.
    pub fn new(version: u64, at_ms: i64, links: Links) -> Self {
        Self { version, at_ms, links }
    }
}

/// Messages and a trade of one commit. Stored as JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Links {
    /// Messages to the profile that it took out of the inbox, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taken: Vec<MessageId>,
    /// Messages that it sent. Those of a trade stand with each of its profiles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sent: Vec<SentMessage>,
    /// The transaction with other profiles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trade: Option<Trade>,
    /// How many more messages it took or sent than are named.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

/// A message that was sent, and to which profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentMessage {
    /// The profile.
    pub to: ProfileKey,
    /// The message.
    pub id: MessageId,
}

/// A transaction that wrote several profiles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trade {
    /// Its identity, the same with each of its profiles.
    pub id: CommitId,
    /// The other profiles.
    pub with: Vec<ProfileKey>,
}

impl Links {
    /// True when there is nothing.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty() && self.sent.is_empty() && self.trade.is_none() && self.left_out == 0
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}
