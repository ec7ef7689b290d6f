//! What the closure of a transaction works on: copies of the participants' data.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use crate::{
    data::Data,
    data_store::Change,
    error::Error,
    link::Link,
    session::{Session, handed::Handed, snapshot::Snapshot},
};

/// What the closure of a transaction works on.
pub(crate) struct Drafts {
    pub(crate) link: Arc<Link>,
    pub(crate) drafts: Vec<Draft>,
    /// One [`Change::AppendMessage`] each.
    pub(crate) gifts: Vec<Change>,
    /// The first thing that went wrong: the transaction is not committed, even if the closure says
    /// so.
    pub(crate) fault: Option<Error>,
}

/// One participant's data in the making.
pub(crate) struct Draft {
    pub(crate) session: Arc<Session>,
    pub(super) before: Snapshot,
    /// Made by the first edit.
    pub(super) copy: Option<Box<dyn Data>>,
    /// What a game server that runs elsewhere has made of it.
    pub(super) handed: Option<Snapshot>,
}

impl Draft {
    pub(super) fn stored_bytes(&self) -> usize {
        self.session.stored_bytes.load(Relaxed)
    }

    /// The data as the transaction has made it so far.
    pub(crate) fn look(&self) -> &dyn Data {
        self.copy.as_deref().unwrap_or(&*self.before.data)
    }

    pub(crate) fn data(&mut self) -> &mut dyn Data {
        &mut **self.copy.get_or_insert_with(|| self.before.data.duplicate())
    }

    /// Puts other data in its place.
    pub(crate) fn put(&mut self, data: Box<dyn Data>) {
        self.copy = Some(data);
    }

    /// Puts what a game server that runs elsewhere has handed over in its place.
    pub(crate) fn hand(&mut self, handed: &Handed) {
        self.handed = Some(self.session.snapshot_of(handed));
    }

    pub(super) fn finish(self) -> (Arc<Session>, Snapshot) {
        if let Some(handed) = self.handed {
            return (self.session, handed);
        }
        let snapshot = match self.copy {
            Some(copy) => Snapshot {
                data: Arc::from(copy),
                generation: self.before.generation + 1,
                ..self.before
            },
            None => self.before,
        };
        (self.session, snapshot)
    }
}
