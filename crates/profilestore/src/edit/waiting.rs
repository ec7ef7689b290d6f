//! Edits that wait in a profile's inbox for its holder, as an operator sees them.

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{audit::Attribution, data_store::StoredMessage};

/// An edit that the game server which holds the profile has yet to make.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WaitingEdit {
    /// The operation: that of its entry in the audit log.
    pub operation: Uuid,
    /// In whose name, and why.
    pub by: Attribution,
    /// When it was handed to the holder, by the store's clock, Unix milliseconds.
    pub sent_ms: i64,
    /// What it does: an [`super::Edit`] as JSON. None: what waits cannot be read.
    pub edit: Option<Box<RawValue>>,
}

impl WaitingEdit {
    /// The edit that a message of an inbox carries. None: the message carries none.
    pub fn of(message: &StoredMessage) -> Option<Self> {
        #[derive(Deserialize)]
        struct Carried {
            edit: Box<RawValue>,
        }
        let operation = message.id.operation()?;
        let by = serde_json::from_slice(&message.payload);
        let carried = serde_json::from_slice::<Carried>(&message.payload);
        Some(Self {
            operation,
            by: by.unwrap_or_else(|_| Attribution::new("unknown")),
            sent_ms: message.sent_ms,
            edit: carried.ok().map(|carried| carried.edit),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data_store::MessageId,
        edit::{Edit, request::EditRequest},
    };

    fn message(payload: Vec<u8>) -> StoredMessage {
        let id = MessageId::edit(Uuid::from_u128(7));
        let payload = payload.into();
        StoredMessage { index: 3, id, payload, locked: false, revision: 1, sent_ms: 11 }
    }

    #[test]
    fn what_waits_says_who_asked_for_it_and_why() {
        let edit = Edit::new().set("/motd", "hello".into()).unwrap();
        let by = Attribution::new("ann").because("ticket 7");
        let request = EditRequest::new(Uuid::from_u128(7), edit, by.clone(), false).unwrap();
        let waiting = WaitingEdit::of(&message(serde_json::to_vec(&request).unwrap())).unwrap();
        assert_eq!((waiting.operation, waiting.sent_ms), (Uuid::from_u128(7), 11));
        assert_eq!(waiting.by, by);
        let edit = waiting.edit.unwrap();
        assert!(edit.get().contains("/motd"), "{edit}");
    }

    #[test]
    fn an_edit_that_cannot_be_read_is_shown_without_its_steps() {
        let waiting = WaitingEdit::of(&message(b"{\"form\":9}".to_vec())).unwrap();
        assert_eq!(waiting.by.author, "unknown");
        assert!(waiting.edit.is_none());
    }
}
