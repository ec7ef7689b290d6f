//! The keys that this server has to do with: which are being opened, which are open, which are
//! ending.
//!
//! Sessions tell the table about themselves ([`SessionEvents`]); it knows them, and they do not
//! know it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::{bounded_loss::Changed, claims::Load};
use crate::{
    key::ProfileKey,
    session::{Session, SessionEvents},
};

/// What this server does with a key.
pub(super) enum Slot {
    Loading(Arc<Load>),
    Live(Arc<Session>),
}

impl Slot {
    /// True for a session of which is known what became of its last save.
    fn is_over(&self) -> bool {
        matches!(self, Self::Live(session) if session.is_known_to_be_over())
    }
}

pub(super) type Slots = BTreeMap<ProfileKey, Slot>;

#[derive(Default)]
pub(crate) struct Table {
    pub(super) slots: Mutex<Slots>,
    /// Sessions that are closed and whose last save is not known yet, by their identity.
    ending: Mutex<BTreeMap<String, ProfileKey>>,
    /// Starts that wait for a change of their key.
    pub(super) waiters: Mutex<BTreeMap<ProfileKey, Arc<Notify>>>,
    /// Sessions with changes that are to be saved soon.
    pub(super) changed: Arc<Changed>,
}

impl Table {
    /// As sessions know the table.
    pub(super) fn events(self: &Arc<Self>) -> Weak<dyn SessionEvents> {
        let table: Arc<dyn SessionEvents> = self.clone();
        Arc::downgrade(&table)
    }

    /// Something about a key changed: wakes the start that waits for it, and makes a live session
    /// look.
    pub(crate) fn look(&self, key: &ProfileKey) {
        if let Some(waiter) = self.waiters.lock().get(key) {
            waiter.notify_one();
        }
        if let Some(session) = self.live(key) {
            session.queue_look();
        }
    }

    /// Hints may have been lost: looks at everything that could be waiting for one.
    pub(crate) fn wake_all_starts(&self) {
        for waiter in self.waiters.lock().values() {
            waiter.notify_one();
        }
    }

    pub(crate) fn live(&self, key: &ProfileKey) -> Option<Arc<Session>> {
        match self.slots.lock().get(key) {
            Some(Slot::Live(session)) => Some(session.clone()),
            _ => None,
        }
    }

    pub(crate) fn sessions(&self) -> Vec<Arc<Session>> {
        let slots = self.slots.lock();
        slots
            .values()
            .filter_map(
                |slot| if let Slot::Live(session) = slot { Some(session.clone()) } else { None },
            )
            .collect()
    }

    /// How many profiles are open or being opened.
    pub(crate) fn open_count(&self) -> usize {
        self.slots.lock().len()
    }

    /// True when nothing is being opened, and of every session is known what became of its last
    /// save.
    pub(super) fn is_over(&self) -> bool {
        self.slots.lock().values().all(Slot::is_over)
    }

    /// The keys of the sessions whose last save is not known yet.
    pub(super) fn ending(&self) -> Vec<ProfileKey> {
        self.ending.lock().values().cloned().collect()
    }
}

impl SessionEvents for Table {
    fn closing(&self, session: &Session) {
        self.ending.lock().insert(session.id.clone(), session.key.clone());
    }

    fn settled(&self, session: &Session) {
        self.ending.lock().remove(&session.id);
    }

    /// Forgets a session, unless a newer one has its place.
    fn freed(&self, session: &Session) {
        let mut slots = self.slots.lock();
        if let Some(Slot::Live(other)) = slots.get(&session.key)
            && std::ptr::eq(&raw const **other, session)
        {
            slots.remove(&session.key);
        }
        metrics::gauge!("profilestore_sessions").set(slots.len() as f64);
    }

    fn sent(&self, key: &ProfileKey) {
        self.look(key);
    }

    fn changed(&self, session: &Arc<Session>, save_by: Instant) {
        self.changed.push(save_by, session);
    }
}
