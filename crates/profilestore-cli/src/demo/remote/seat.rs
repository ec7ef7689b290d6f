//! One session as its game server plays it: the document, what is stored of it, and what waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use profilestore::Edit;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::demo::{
    data::{PlayerData, Transfer},
    trades::{Delivery, Deposit, Escrow},
};

/// Whose session it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// The order that started it names the session.
    Player { player: u32, order: u64 },
    /// A trade's escrow, to settle it; for an order, or for a player who has found it open.
    Escrow { trade: u64, order: Option<u64> },
}

/// The data of a profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Document {
    Player(Box<PlayerData>),
    Escrow(Box<Escrow>),
}

/// What a message did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Credited,
    Other,
    /// It cannot be read and stays in the inbox, where the audit finds it.
    Unread,
}

impl Document {
    pub(super) fn read(who: Who, data: Value) -> Option<Self> {
        match who {
            Who::Player { .. } => serde_json::from_value(data).ok().map(Self::Player),
            Who::Escrow { .. } => serde_json::from_value(data).ok().map(Self::Escrow),
        }
    }

    pub(super) fn value(&self) -> Value {
        serde_json::to_value(self).expect("plain data is JSON")
    }

    pub(super) fn player(&mut self) -> Option<&mut PlayerData> {
        match self {
            Self::Player(data) => Some(data),
            Self::Escrow(_) => None,
        }
    }

    fn take(&mut self, message: &Value) -> Effect {
        match self {
            Self::Player(data) => {
                if let Ok(transfer) = Transfer::deserialize(message) {
                    data.credit(&transfer);
                    return Effect::Credited;
                }
                let Ok(delivery) = Delivery::deserialize(message) else { return Effect::Unread };
                data.deliver(delivery);
            }
            Self::Escrow(escrow) => {
                let Ok(deposit) = Deposit::deserialize(message) else { return Effect::Unread };
                escrow.accept(deposit);
            }
        }
        Effect::Other
    }

    /// With an operator's edit; why not, otherwise.
    pub(super) fn edited(&self, who: Who, edit: &Edit) -> Result<Self, String> {
        let data = edit.apply(&self.value()).map_err(|error| error.to_string())?;
        Self::read(who, data).ok_or_else(|| "the data does not fit the program".to_owned())
    }
}

/// Who waits until a change is stored.
#[derive(Debug)]
pub(super) enum Waiter {
    Saved { order: u64, steps: Vec<u32>, began: tokio::time::Instant },
    Debited { order: u64, transfer: Transfer },
}

/// Why a session ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Left { order: u64 },
    Released,
    Settled,
    Shutdown,
}

#[derive(Debug)]
pub(super) struct Seat {
    pub(super) who: Who,
    pub(super) key: String,
    pub(super) epoch: u64,
    /// Numbers the saves.
    pub(super) n: u64,
    pub(super) document: Document,
    pub(super) stored: Document,
    pub(super) revision: u64,
    pub(super) stored_revision: u64,
    /// Messages that came while a transaction had the session.
    inbox: BTreeMap<u64, Value>,
    handled: BTreeSet<u64>,
    /// Messages whose effect is in the document and not stored.
    pub(super) processed: BTreeSet<u64>,
    pub(super) edits: VecDeque<(String, Edit)>,
    edits_seen: BTreeSet<String>,
    /// Earnings in the data and in no save that was answered.
    pub(super) unsaved: Vec<u32>,
    pub(super) waiters: Vec<(u64, Waiter)>,
    /// A save, an end or a transaction is unanswered.
    pub(super) is_sending: bool,
    /// A transaction has it.
    pub(super) is_frozen: bool,
    /// A save is wanted now.
    pub(super) is_due: bool,
    pub(super) ending: Option<Ending>,
}

impl Seat {
    pub(super) fn new(who: Who, key: String, epoch: u64, document: Document) -> Self {
        Self {
            who,
            key,
            epoch,
            n: 0,
            stored: document.clone(),
            document,
            revision: 0,
            stored_revision: 0,
            inbox: BTreeMap::new(),
            handled: BTreeSet::new(),
            processed: BTreeSet::new(),
            edits: VecDeque::new(),
            edits_seen: BTreeSet::new(),
            unsaved: Vec::new(),
            waiters: Vec::new(),
            is_sending: false,
            is_frozen: false,
            is_due: false,
            ending: None,
        }
    }

    pub(super) fn store(&self) -> &'static str {
        match self.who {
            Who::Player { .. } => "Demo",
            Who::Escrow { .. } => "DemoTrades",
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.ending.is_none() && !self.is_frozen
    }

    pub(super) fn is_changed(&self) -> bool {
        self.revision > self.stored_revision || !self.processed.is_empty()
    }

    /// Changes a player's data, unless it may not be changed now.
    pub(super) fn update<R>(&mut self, change: impl FnOnce(&mut PlayerData) -> R) -> Option<R> {
        if !self.is_open() {
            return None;
        }
        let result = change(self.document.player()?);
        self.revision += 1;
        Some(result)
    }

    /// Takes a message, or keeps it for later. One that was handled is dropped.
    pub(super) fn received(&mut self, index: u64, body: Value) -> Vec<Effect> {
        if !self.handled.contains(&index) && self.ending.is_none() {
            self.inbox.insert(index, body);
        }
        self.take_messages()
    }

    pub(super) fn take_messages(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        if !self.is_open() {
            return effects;
        }
        for (index, body) in std::mem::take(&mut self.inbox) {
            let effect = self.document.take(&body);
            self.handled.insert(index);
            if effect != Effect::Unread {
                self.revision += 1;
                self.processed.insert(index);
                self.is_due = true;
            }
            effects.push(effect);
        }
        effects
    }

    /// An operator's edit. One that comes again waits, or is answered.
    pub(super) fn edit(&mut self, op: String, edit: Edit) {
        if self.edits_seen.insert(op.clone()) {
            self.edits.push_back((op, edit));
        }
    }

    /// A state of the document is stored; the waiters that waited for it.
    pub(super) fn is_stored(
        &mut self,
        document: Document,
        revision: u64,
        processed: &[u64],
    ) -> Vec<Waiter> {
        self.stored = document;
        self.stored_revision = self.stored_revision.max(revision);
        self.processed.retain(|index| !processed.contains(index));
        let (stored, waiting) = std::mem::take(&mut self.waiters)
            .into_iter()
            .partition(|(at, _)| *at <= self.stored_revision);
        self.waiters = waiting;
        stored.into_iter().map(|(_, waiter): (u64, Waiter)| waiter).collect()
    }
}
