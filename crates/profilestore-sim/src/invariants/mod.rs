//! The invariants, one file each, told from outside the mechanism: from the values that were
//! committed, their leases as any reader of the store sees them, and what clients were told. None
//! of them asks the engine what it thinks, except for `is_active`, whose word is itself a
//! guarantee.

use std::fmt;

use tokio::time::Instant;

use profilestore::data_store::Cause;

use crate::{data::Label, oracle::Told, watch::Step};

mod active;
mod conserved;
mod durable;
mod edits;
mod erased;
mod history;
mod lost;
mod messages;
mod one_writer;
pub mod order;
mod release;
pub mod starts;
mod trades;
mod unknown;

/// A guarantee that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Its number, as in docs/guarantees.md.
    pub guarantee: &'static str,
    pub key: Option<String>,
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.guarantee)?;
        if let Some(key) = &self.key {
            write!(f, " {key}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// Fails with what is broken.
pub fn broken(guarantee: &'static str, key: &str, what: impl Into<String>) -> Result<(), Broken> {
    Err(Broken { guarantee, key: Some(key.to_owned()), what: what.into() })
}

/// Who changed a key's data in a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nobody.
    Untouched,
    /// A session.
    Session,
    /// An operator, with an edit of a profile that nobody holds.
    Edit,
    /// An operator, from outside any session.
    Operator,
    /// A caller that removed it.
    Removal,
}

impl Kind {
    pub fn of(step: &Step<'_>, told: &Told) -> Self {
        let cause = step.after.info.as_ref().map(|info| info.cause);
        // Where a server holds the profile, that server saves the edit.
        let unheld = step.before.holder().is_none() || step.buried;
        match (&step.before.data, &step.after.data) {
            _ if step.before.version == step.after.version => Self::Untouched,
            (_, Some(_)) if cause == Some(Cause::Restore) => Self::Operator,
            (_, Some(_)) if cause == Some(Cause::Edit) && unheld => Self::Edit,
            // A take-over writes what it found once more.
            (Some(before), Some(after)) if before == after => Self::Untouched,
            (_, Some(after))
                if told.is_operator(after.writer)
                    && step.before.data.as_ref().is_none_or(|b| b.writer != after.writer) =>
            {
                Self::Operator
            }
            (_, None) => Self::Removal,
            _ => Self::Session,
        }
    }

    /// True when earlier changes may be gone afterwards.
    pub fn rewrites(self) -> bool {
        matches!(self, Self::Operator | Self::Removal)
    }
}

/// One commit's effect on one key.
pub struct Seen<'a> {
    pub now: Instant,
    pub step: &'a Step<'a>,
    pub kind: Kind,
}

/// All of them. A clone is what they would say of a backup made now.
#[derive(Default, Clone)]
pub struct Invariants {
    pub one_writer: one_writer::OneWriter,
    pub durable: durable::Durable,
    pub edits: edits::Edits,
    pub erased: erased::Erased,
    pub messages: messages::Messages,
    pub conserved: conserved::Conserved,
    pub active: active::Active,
    pub history: history::History,
    pub lost: lost::Lost,
    pub order: order::CallOrder,
    pub trades: trades::Trades,
    pub unknown: unknown::Unknown,
}

impl Invariants {
    pub fn committed(&mut self, seen: &Seen<'_>, told: &Told) -> Result<(), Broken> {
        self.one_writer.committed(seen, told)?;
        self.durable.committed(seen, told)?;
        release::committed(seen, told)?;
        self.edits.committed(seen, told)?;
        self.erased.committed(seen)?;
        self.messages.committed(seen, told)?;
        self.conserved.committed(seen)?;
        self.active.committed(seen, told)?;
        self.history.committed(seen);
        self.lost.committed(seen);
        self.order.committed(seen, told)?;
        self.trades.committed(seen, told)?;
        Ok(())
    }

    /// After the last key of a commit.
    pub fn balance(&mut self, key: &str) -> Result<(), Broken> {
        self.conserved.balance(key)?;
        self.trades.balance(key)
    }

    /// A backup was put in the store's place: its contents count from now on, and the sessions of
    /// before are over.
    pub fn restored(&mut self, backup: Self, now: Instant, told: &Told) {
        let before = std::mem::replace(self, backup);
        let labels: Vec<Label> = told.sessions.keys().copied().collect();
        self.one_writer.restored(&before.one_writer, &labels);
        self.durable.restored(&before.durable);
        self.edits.restored(&before.edits);
        self.messages.restored(&before.messages, told);
        self.active.restored(now);
        self.lost.restored(told);
        self.order.restored(&before.order);
        self.trades.restored(&before.trades);
    }
}
