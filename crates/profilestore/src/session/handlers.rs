//! Handlers of messages, and a message as a handler sees it.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;
use serde::de::DeserializeOwned;

use crate::{
    data::Data,
    data_store::{Change, MessageId, NewMessage, StoredMessage},
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    link::Link,
};

/// How many gifts a transaction may send, and the handling of one message.
pub const MAX_GIFTS: usize = 64;

/// A message that a handler is offered. Specification: the arguments of a `MessageHandler`.
#[derive(Debug)]
pub struct Message<'a> {
    stored: &'a StoredMessage,
    /// None: of a profile that was only read.
    link: Option<&'a Arc<Link>>,
    processed: Cell<bool>,
    outbox: RefCell<Outbox>,
}

/// What the handling of a message sends.
#[derive(Debug, Default)]
struct Outbox {
    gifts: Vec<Gift>,
    /// The first thing that went wrong.
    fault: Option<Error>,
}

/// A message to another profile, sent in the commit that removes the one that it is an answer to.
#[derive(Debug, Clone)]
pub(crate) struct Gift {
    pub(crate) to: ProfileKey,
    pub(crate) name: String,
    pub(crate) payload: Bytes,
}

impl Gift {
    /// The change that sends it, in a commit that is built now. It gets through however many
    /// messages wait: what it pays for is done, and a full inbox must not keep the sender from
    /// being saved.
    pub(super) fn change(&self, now_ms: i64) -> Change {
        let id = MessageId { created_ms: now_ms, name: self.name.clone() };
        let message = NewMessage { id, payload: self.payload.clone() };
        Change::AppendMessage { key: self.to.clone(), message, cap: u32::MAX }
    }
}

/// What a handler made of a message.
#[derive(Debug)]
pub(crate) enum Handled {
    /// Not its own, or not now.
    Left,
    Processed(Vec<Gift>),
    /// Something it wanted to send cannot be sent: nothing that it did counts.
    Spoiled(Error),
}

impl<'a> Message<'a> {
    /// Of a profile that was only read.
    pub(crate) fn new(stored: &'a StoredMessage) -> Self {
        Self { stored, link: None, processed: Cell::new(false), outbox: RefCell::default() }
    }

    /// Of a live profile.
    pub(super) fn live(stored: &'a StoredMessage, link: &'a Arc<Link>) -> Self {
        Self { link: Some(link), ..Self::new(stored) }
    }

    pub(crate) fn link(&self) -> Result<&Arc<Link>> {
        self.link.ok_or_else(|| {
            let message = "a profile that was only read cannot send gifts: handle the message in a \
                session";
            Error::new(ErrorKind::Invalid, message)
        })
    }

    /// Notes what is to be sent, or that it cannot be.
    pub(crate) fn give(&self, gift: Result<Gift>) -> Result<()> {
        let mut outbox = self.outbox.borrow_mut();
        let gift = match gift {
            Ok(_) if outbox.gifts.len() == MAX_GIFTS => Err(Error::new(
                ErrorKind::Invalid,
                format!("too many gifts for one message: limit=`{MAX_GIFTS}`"),
            )),
            gift => gift,
        };
        match gift {
            Ok(gift) => {
                outbox.gifts.push(gift);
                Ok(())
            }
            Err(error) => {
                outbox.fault.get_or_insert_with(|| error.again());
                Err(error)
            }
        }
    }

    /// What became of it. To be asked once, behind its handler.
    pub(crate) fn handled(&self) -> Handled {
        let Outbox { gifts, fault } = self.outbox.take();
        match fault {
            Some(fault) => Handled::Spoiled(fault),
            None if self.processed.get() => Handled::Processed(gifts),
            None if gifts.is_empty() => Handled::Left,
            None => Handled::Spoiled(Error::new(
                ErrorKind::Invalid,
                "a handler sent a gift for a message that it did not call processed",
            )),
        }
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
