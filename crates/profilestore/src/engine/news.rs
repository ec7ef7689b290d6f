//! Which sessions have something to tell their game server, which runs in another process, and in
//! which order it is told.
//!
//! Only the sessions are noted here. What they tell follows from their own state when it is asked
//! for, so nothing piles up while nobody listens.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};

use crate::{
    key::ProfileKey,
    session::{
        Session,
        remote::{Next, Told},
    },
};

/// The sessions that have something to tell.
#[derive(Default)]
pub(crate) struct News {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    /// With what cannot wait: a closing, a request to let go.
    urgent: Line,
    /// With messages and edits.
    others: Line,
}

/// Sessions in a line, each at most once.
#[derive(Default)]
struct Line {
    order: VecDeque<Arc<Session>>,
    inside: BTreeSet<usize>,
}

impl Line {
    fn push(&mut self, session: &Arc<Session>) {
        if self.inside.insert(Arc::as_ptr(session).addr()) {
            self.order.push_back(session.clone());
        }
    }

    fn pop(&mut self) -> Option<Arc<Session>> {
        let session = self.order.pop_front()?;
        self.inside.remove(&Arc::as_ptr(&session).addr());
        Some(session)
    }
}

impl News {
    /// A session has something to tell.
    pub(super) fn push(&self, session: &Arc<Session>) {
        {
            let mut state = self.state.lock();
            if session.remote.as_deref().is_some_and(|remote| remote.is_urgent()) {
                state.urgent.push(session);
            }
            state.others.push(session);
        }
        self.wake.notify_waiters();
    }

    /// There is nothing to tell any more, but that the hosting has stopped.
    pub(super) fn stop(&self) {
        let left = {
            let mut state = self.state.lock();
            (std::mem::take(&mut state.urgent), std::mem::take(&mut state.others))
        };
        drop(left);
        self.wake.notify_waiters();
    }

    /// Woken when there is news; to be asked for before looking.
    pub(crate) fn woken(&self) -> Notified<'_> {
        self.wake.notified()
    }

    /// The next thing to tell. `confirmed`: when the game server was told of a confirmation last;
    /// `room`: how large a message of a profile may be.
    pub(crate) fn next(
        &self,
        confirmed: Instant,
        room: &dyn Fn(&ProfileKey) -> usize,
    ) -> Option<(Arc<Session>, Told)> {
        loop {
            let session = self.state.lock().urgent.pop();
            let Some(session) = session else { break };
            if let Some(told) = session.tell_urgent(confirmed) {
                self.push(&session);
                return Some((session, told));
            }
        }
        let most = self.state.lock().others.order.len();
        for _ in 0..most {
            let session = self.state.lock().others.pop()?;
            let next = session.tell_next(room(&session.key));
            if !matches!(next, Next::Nothing) {
                // There may be more. Others come first.
                self.state.lock().others.push(&session);
            }
            if let Next::Told(told) = next {
                return Some((session, *told));
            }
        }
        None
    }
}
