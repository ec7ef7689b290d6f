//! Listeners: several functions that are called when something happens.
//!
//! They run one after the other in the order they were connected, on the task that made the thing
//! happen, so they must not block. One that panics does not stop the others.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock, Weak},
};

use parking_lot::Mutex;

type Entries<F> = Mutex<Listeners<F>>;

struct Listeners<F: ?Sized> {
    next: u64,
    list: Vec<(u64, Arc<F>)>,
}

/// A list of listeners of one type. It is made for the first of them: each session has several
/// signals, and most never get a listener.
pub(crate) struct Signal<F: ?Sized> {
    entries: OnceLock<Arc<Entries<F>>>,
}

impl<F: ?Sized> Default for Signal<F> {
    fn default() -> Self {
        Self { entries: OnceLock::new() }
    }
}

impl<F: ?Sized + Send + Sync + 'static> Signal<F> {
    pub(crate) fn connect(&self, listener: Arc<F>) -> Connection {
        let none = || Arc::new(Mutex::new(Listeners { next: 0, list: Vec::new() }));
        let entries = self.entries.get_or_init(none);
        let id = {
            let mut listeners = entries.lock();
            let id = listeners.next;
            listeners.next += 1;
            listeners.list.push((id, listener));
            id
        };
        Connection { id, list: Arc::downgrade(entries) as Weak<dyn Disconnect> }
    }

    /// Calls `call` with each listener connected now. A panic is reported to the log and ends only
    /// that listener's turn.
    pub(crate) fn each(&self, mut call: impl FnMut(&F)) {
        let Some(entries) = self.entries.get() else { return };
        let list = entries.lock().list.clone();
        for (_, listener) in list {
            if catch_unwind(AssertUnwindSafe(|| call(&listener))).is_err() {
                tracing::error!("a listener panicked");
            }
        }
    }

    /// Takes all listeners off.
    pub(crate) fn clear(&self) {
        let Some(entries) = self.entries.get() else { return };
        // What they hold is dropped outside of the lock.
        let list = std::mem::take(&mut entries.lock().list);
        drop(list);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.get().is_none_or(|entries| entries.lock().list.is_empty())
    }
}

trait Disconnect: Send + Sync {
    fn disconnect(&self, id: u64);
}

impl<F: ?Sized + Send + Sync> Disconnect for Entries<F> {
    fn disconnect(&self, id: u64) {
        // What it holds is dropped outside of the lock: it may disconnect another one.
        let gone = {
            let list = &mut self.lock().list;
            list.iter().position(|(other, _)| *other == id).map(|at| list.remove(at))
        };
        drop(gone);
    }
}

/// A listener's connection. Dropping it leaves the listener connected.
#[derive(Clone)]
pub struct Connection {
    id: u64,
    list: Weak<dyn Disconnect>,
}

impl Connection {
    /// Takes the listener off; it is not called again, except when it is being called at this
    /// moment. Twice is fine.
    pub fn disconnect(&self) {
        if let Some(list) = self.list.upgrade() {
            list.disconnect(self.id);
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_run_in_order_until_disconnected_and_a_panic_stops_none() {
        let signal: Signal<dyn Fn(u32) + Send + Sync> = Signal::default();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let listen = |tag: u32| {
            let seen = seen.clone();
            signal.connect(Arc::new(move |value| seen.lock().push((tag, value))))
        };
        let first = listen(1);
        signal.connect(Arc::new(|_| panic!("on purpose")));
        listen(2);
        signal.each(|listener| listener(7));
        first.disconnect();
        first.disconnect();
        signal.each(|listener| listener(8));
        assert_eq!(*seen.lock(), [(1, 7), (2, 7), (2, 8)]);
    }
}
