//! What an import makes live: the session, the request and the messages of a key's last version.

use serde::{Deserialize, Serialize};

use crate::data_store::{LeaseState, MessageId, StoredMessage};

/// What is live after the last version of a key.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Live {
    pub(super) lease: LeaseState,
    messages: Vec<Message>,
    pub(super) last_message: u64,
}

/// A waiting message in the spool.
#[derive(Serialize, Deserialize)]
struct Message {
    index: u64,
    created_ms: i64,
    name: String,
    payload: String,
    locked: bool,
    revision: u64,
    sent_ms: i64,
}

impl Message {
    fn of(message: StoredMessage) -> Self {
        Self {
            index: message.index,
            created_ms: message.id.created_ms,
            name: message.id.name,
            payload: String::from_utf8_lossy(&message.payload).into_owned(),
            locked: message.locked,
            revision: message.revision,
            sent_ms: message.sent_ms,
        }
    }
}

impl Live {
    pub(super) fn new(lease: LeaseState, messages: Vec<StoredMessage>, last_message: u64) -> Self {
        Self { lease, messages: messages.into_iter().map(Message::of).collect(), last_message }
    }

    /// Takes messages in that were given beside the document. They are in order after
    /// [`Live::sort`].
    pub(super) fn join(&mut self, further: Self) {
        self.messages.extend(further.messages);
        self.last_message = self.last_message.max(further.last_message);
    }

    pub(super) fn sort(&mut self) {
        self.messages.sort_by_key(|message| message.index);
    }

    /// The first message whose index another one has too. For messages in order.
    pub(super) fn given_twice(&self) -> Option<u64> {
        let mut pairs = self.messages.windows(2);
        pairs.find(|pair| pair[0].index == pair[1].index).map(|pair| pair[0].index)
    }

    /// How many bytes the messages take.
    pub(super) fn bytes(&self) -> usize {
        self.messages.iter().map(|message| message.payload.len()).sum()
    }

    pub(super) fn written(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(self).map_err(|error| error.to_string())
    }

    pub(super) fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }

    pub(super) fn take_messages(&mut self) -> Vec<StoredMessage> {
        let stored = |message: Message| StoredMessage {
            index: message.index,
            id: MessageId { created_ms: message.created_ms, name: message.name },
            payload: message.payload.into(),
            locked: message.locked,
            revision: message.revision,
            sent_ms: message.sent_ms,
        };
        std::mem::take(&mut self.messages).into_iter().map(stored).collect()
    }

    /// How many messages wait, and how many of them are locked.
    pub(super) fn waiting(&self) -> (u64, u64) {
        let locked = self.messages.iter().filter(|message| message.locked).count();
        (self.messages.len() as u64, locked as u64)
    }
}
