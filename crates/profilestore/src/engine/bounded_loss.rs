//! Saving what changed soon after it changed, so that a crash costs seconds of play and not an
//! autosave period.
//!
//! The first unsaved change of a session puts it at the end of a line; the driver saves from the
//! front what has waited for long enough. What changes until the save begins is part of it. Only so
//! many of these saves are under way at once: when the store cannot keep up, sessions wait in the
//! line, where they cost nothing, and each is saved once, with what it is by then.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};

use crate::{link::Link, session::Session};

/// How many of these saves are under way at once: enough to fill two of a store's batches.
const UNDER_WAY: usize = 512;

/// The sessions with unsaved changes, by the time at which they are to be saved.
pub(crate) struct Changed {
    line: Mutex<VecDeque<(Instant, Weak<Session>)>>,
    /// There is another first one.
    begun: Notify,
    room: Arc<Semaphore>,
}

impl Default for Changed {
    fn default() -> Self {
        Self {
            line: Mutex::default(),
            begun: Notify::new(),
            room: Arc::new(Semaphore::new(UNDER_WAY)),
        }
    }
}

impl Changed {
    /// Has a session saved at this time, with what it is by then.
    pub(super) fn push(&self, at: Instant, session: &Arc<Session>) {
        let mut line = self.line.lock();
        // Nearly always the end: the wait is the same for all, until the settings change.
        let place = line.partition_point(|(other, _)| *other <= at);
        line.insert(place, (at, Arc::downgrade(session)));
        if place == 0 {
            self.begun.notify_one();
        }
    }

    /// Has all sessions saved by then: the settings say so from now on.
    pub(super) fn at_latest(&self, by: Instant) {
        for (at, _) in self.line.lock().iter_mut().rev().take_while(|(at, _)| *at > by) {
            *at = by;
        }
        self.begun.notify_one();
    }

    fn first(&self) -> Option<Instant> {
        self.line.lock().front().map(|(at, _)| *at)
    }

    /// The first one, if it is due by then.
    fn pop(&self, by: Instant) -> Option<(Instant, Weak<Session>)> {
        self.line.lock().pop_front_if(|(at, _)| *at <= by)
    }
}

/// Saves what is due, for ever.
pub(super) async fn run(link: Arc<Link>, changed: Arc<Changed>) {
    loop {
        let Some(at) = changed.first() else {
            changed.begun.notified().await;
            continue;
        };
        tokio::select! {
            () = link.env.sleep_until(at) => {}
            // One that is due sooner.
            () = changed.begun.notified() => continue,
        }
        // Those that are due within a moment go together: for a store, a batch of many costs little
        // more than a batch of one.
        let together =
            link.env.now() + link.settings().save_changes_within.unwrap_or_default() / 20;
        while let Some((due, session)) = changed.pop(together) {
            let Ok(room) = changed.room.clone().acquire_owned().await else { return };
            link.room.note_lateness(link.env.now().saturating_duration_since(due));
            if let Some(session) = session.upgrade() {
                session.queue_change_save(room);
            }
        }
    }
}
