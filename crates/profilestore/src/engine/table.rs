//! The keys that this server has to do with: which are being opened, which are open, which are
//! ending.
//!
//! Sessions tell the table about themselves ([`SessionEvents`]); it knows them, and they do not
//! know it.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::{bounded_loss::Changed, claims::Load, news::News};
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

/// What may have yet to look at a notice, at a hosted game server.
enum HeldBack {
    Session(Weak<Session>),
    /// What it takes is to begin with the notice.
    Load(Weak<Load>),
}

impl HeldBack {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Session(one), Self::Session(other)) => one.ptr_eq(other),
            (Self::Load(one), Self::Load(other)) => one.ptr_eq(other),
            _ => false,
        }
    }

    /// The confirmation that counts for it. None: it has looked, or is gone.
    fn since(&self) -> Option<Instant> {
        match self {
            Self::Session(session) => {
                session.upgrade().filter(|session| !session.is_over())?.unseen.since()
            }
            Self::Load(load) => load.upgrade()?.unseen.since(),
        }
    }
}

pub(super) type Slots = BTreeMap<ProfileKey, Slot>;

/// How many keys all tables of this process have: what the metric says. It is set, and not counted
/// up and down, so that a recorder that is installed late hears of all of them.
static OPEN: Mutex<usize> = Mutex::new(0);

#[derive(Default)]
pub(crate) struct Table {
    pub(super) slots: Mutex<Slots>,
    /// Sessions that are closed and whose last save is not known yet, by their identity.
    ending: Mutex<BTreeMap<String, ProfileKey>>,
    /// Starts that wait for a change of their key.
    pub(super) waiters: Mutex<BTreeMap<ProfileKey, Arc<Notify>>>,
    /// Sessions with changes that are to be saved soon.
    pub(super) changed: Arc<Changed>,
    /// Sessions that have something to tell their game server, which runs in another process.
    pub(crate) news: News,
    /// What had yet to look at a notice, the last time that it mattered; at a hosted game server.
    unseen: Mutex<Vec<HeldBack>>,
    /// How many keys the metric has of this table. A process may have many, and they add up.
    reported: AtomicUsize,
}

impl Drop for Table {
    fn drop(&mut self) {
        self.report_count(0);
    }
}

impl Table {
    /// Brings the metric up to date.
    pub(super) fn report(&self, slots: &Slots) {
        self.report_count(slots.len());
    }

    fn report_count(&self, count: usize) {
        let mut open = OPEN.lock();
        let before = self.reported.swap(count, Relaxed);
        *open = (*open + count).saturating_sub(before);
        metrics::gauge!("profilestore_sessions").set(*open as f64);
    }

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

    /// Whether there is a session of the key, or a start under way.
    pub(super) fn has(&self, key: &ProfileKey) -> bool {
        self.slots.lock().contains_key(key)
    }

    /// Enters a session that was not started here. False: the key has another one, or a start.
    pub(super) fn enter(&self, session: &Arc<Session>) -> bool {
        let mut slots = self.slots.lock();
        let Entry::Vacant(slot) = slots.entry(session.key.clone()) else { return false };
        slot.insert(Slot::Live(session.clone()));
        self.report(&slots);
        true
    }

    /// Forgets a session that does not hold its profile yet.
    pub(super) fn forget(&self, session: &Session) {
        self.freed(session);
    }

    /// Forgets everything: the game server goes on at another host.
    pub(super) fn drop_all(&self) {
        let slots = {
            let mut slots = self.slots.lock();
            let all = std::mem::take(&mut *slots);
            self.report(&slots);
            all
        };
        drop(slots);
        self.news.stop();
    }

    /// A notice about a key has come. Its session is held back until it has looked, and so is one
    /// that is being started, or whose place the start has while its end may yet be refused.
    /// `confirmed_before`: when the lease was confirmed last, without the answer that brought the
    /// notice. `is_hosted`: the game server runs in another process, and goes by one confirmation
    /// for all sessions, also for one that begins before the next.
    pub(super) fn hold_back(&self, key: &ProfileKey, confirmed_before: Instant, is_hosted: bool) {
        // Until it is noted: a start gives its session the place under the same lock.
        let slots = self.slots.lock();
        match slots.get(key) {
            Some(Slot::Live(session)) => self.hold_session_back(session, confirmed_before),
            Some(Slot::Loading(load)) => {
                load.unseen.note(confirmed_before);
                if is_hosted {
                    self.note_unseen(HeldBack::Load(Arc::downgrade(load)));
                }
                if let Some(session) = load.goes_on() {
                    self.hold_session_back(session, confirmed_before);
                }
            }
            None => {}
        }
    }

    /// Until a session has looked, only what was confirmed before counts for it.
    pub(super) fn hold_session_back(&self, session: &Arc<Session>, confirmed_before: Instant) {
        session.unseen.note(confirmed_before);
        if session.remote.is_some() {
            self.note_unseen(HeldBack::Session(Arc::downgrade(session)));
        }
    }

    fn note_unseen(&self, held_back: HeldBack) {
        let mut unseen = self.unseen.lock();
        if !unseen.iter().any(|other| other.is(&held_back)) {
            unseen.push(held_back);
        }
    }

    /// The confirmation that counts for all sessions: the last one, unless one of them, or a start,
    /// has yet to look at a notice that came with it.
    pub(crate) fn confirmed_for_all(&self, confirmed_at: Instant) -> Instant {
        let mut earliest = confirmed_at;
        self.unseen.lock().retain(|held_back| {
            let since = held_back.since();
            earliest = earliest.min(since.unwrap_or(earliest));
            since.is_some()
        });
        earliest
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
        self.report(&slots);
    }

    fn sent(&self, key: &ProfileKey) {
        self.look(key);
    }

    fn news(&self, session: &Arc<Session>) {
        self.news.push(session);
    }

    fn changed(&self, session: &Arc<Session>, save_by: Instant) {
        self.changed.push(save_by, session);
    }
}

#[cfg(test)]
mod tests {
    use metrics::{
        Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
        atomics::AtomicU64, with_local_recorder,
    };

    use super::*;
    use crate::{data_store::RequestId, env::Env};

    /// Keeps what the gauges were last told.
    #[derive(Default)]
    struct Told(Arc<AtomicU64>);

    impl Recorder for Told {
        fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            Counter::noop()
        }
        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.0.clone())
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    /// It was told of changes only, and was wrong by what had been open before for ever.
    #[test]
    fn a_recorder_that_is_installed_late_hears_how_many_sessions_are_open() {
        let (table, env) = (Table::default(), Env::system());
        let key = ProfileKey::new("store", "scope", "key").unwrap();
        let load = Load::new(&key, RequestId(env.uuid()), "session".into(), None);
        let slots = Slots::from([(key, Slot::Loading(load))]);
        table.report(&slots);
        let told = Told::default();
        with_local_recorder(&told, || table.report(&slots));
        // Other tests of the same process may have sessions too.
        assert!(f64::from_bits(told.0.load(Relaxed)) >= 1.0);
    }
}
