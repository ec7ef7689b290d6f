//! Handlers of messages, and a message as a handler sees it.

use std::{cell::Cell, sync::Arc};

use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use crate::{
    data::Data,
    data_store::{MessageId, StoredMessage},
    error::{Error, ErrorKind, Result},
};

/// A message that a handler is offered. Specification: the arguments of a `MessageHandler`.
#[derive(Debug)]
pub struct Message<'a> {
    stored: &'a StoredMessage,
    processed: Cell<bool>,
}

impl<'a> Message<'a> {
    pub(crate) fn new(stored: &'a StoredMessage) -> Self {
        Self { stored, processed: Cell::new(false) }
    }

    /// The payload as a type. Fails with [`ErrorKind::Undecodable`] when it is something else.
    pub fn parse<M: DeserializeOwned>(&self) -> Result<M> {
        serde_json::from_slice(&self.stored.payload).map_err(|error| {
            Error::new(ErrorKind::Undecodable, "the message does not fit the program's type")
                .caused_by(error)
        })
    }

    /// The payload, JSON.
    pub fn payload(&self) -> &[u8] {
        &self.stored.payload
    }

    /// Its sender's identity for it.
    pub fn id(&self) -> &MessageId {
        &self.stored.id
    }

    /// Its number within the profile, never reused.
    pub fn index(&self) -> u64 {
        self.stored.index
    }

    /// When it was sent, by the store's clock, Unix milliseconds.
    pub fn sent_ms(&self) -> i64 {
        self.stored.sent_ms
    }

    /// Says that the message is dealt with: it leaves the inbox with the save that stores the
    /// handler's edit, and is offered to nobody else. Without this it is offered to the next
    /// handler, and again in the next session. Specification: `processed()`.
    pub fn processed(&self) {
        self.processed.set(true);
    }

    pub(crate) fn is_processed(&self) -> bool {
        self.processed.get()
    }
}

pub(crate) type OnMessage = dyn Fn(&mut dyn Data, &Message<'_>) + Send + Sync;

/// The handlers of a session.
#[derive(Default)]
pub(crate) struct Handlers {
    pub(super) list: Mutex<Vec<Handler>>,
    pub(super) turn: Mutex<Turn>,
}

#[derive(Clone)]
pub(super) struct Handler {
    pub(super) call: Arc<OnMessage>,
    /// The newest message it was offered.
    pub(super) offered: u64,
}

impl Handlers {
    pub(crate) fn clear(&self) {
        // What they hold is dropped outside of the lock.
        let list = std::mem::take(&mut *self.list.lock());
        drop(list);
    }
}

/// Whether messages are being offered, and whether there was reason to begin again meanwhile.
#[derive(Default)]
pub(super) struct Turn {
    pub(super) taken: bool,
    pub(super) again: bool,
}
