//! What a commit needs to send a message, and the error of one that could not be sent.

use bytes::Bytes;

use super::Link;
use crate::{
    data_store::{Change, ConflictKind, MessageId, NewMessage, StoreError},
    error::{Error, Result},
    key::ProfileKey,
    storable,
};

impl Link {
    /// The change that sends a message.
    pub(crate) fn append(&self, key: &ProfileKey, id: MessageId, payload: Bytes) -> Result<Change> {
        check_message(key, &payload)?;
        let cap = self.settings().max_message_queue;
        Ok(Change::AppendMessage { key: key.clone(), message: NewMessage { id, payload }, cap })
    }

    /// The error of a message that could not be sent. A full inbox is told to the listeners of
    /// errors too.
    pub(crate) fn not_sent(&self, error: StoreError, key: &ProfileKey) -> Error {
        let full = error.conflict() == Some(&ConflictKind::InboxFull);
        let error = Error::from(error).about(key);
        if full {
            metrics::counter!("profilestore_inbox_full_total").increment(1);
            self.health.error(&error.to_string(), Some(key), self.env.now(), &self.settings());
        }
        error
    }
}

pub(crate) fn check_message(key: &ProfileKey, payload: &[u8]) -> Result<()> {
    storable::MESSAGE.check_bytes(payload).map_err(|wrong| Error::from(wrong).about(key))
}
