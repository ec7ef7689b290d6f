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

/// So many are not worth looking through.
const FEW: usize = 1024;

/// What is to be saved, by the time at which it is to be.
struct Line<T> {
    waiting: VecDeque<(Instant, Weak<T>)>,
    /// How many there may be until those that are gone are looked for.
    prune_at: usize,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), prune_at: FEW }
    }
}

impl<T> Line<T> {
    /// True when it is the first one now.
    fn push(&mut self, at: Instant, what: Weak<T>) -> bool {
        self.prune();
        // Nearly always the end: the wait is the same for all, until the settings change.
        let place = self.waiting.partition_point(|(other, _)| *other <= at);
        self.waiting.insert(place, (at, what));
        place == 0
    }

    /// Drops what is gone, at a cost that each addition has a share of. With a long wait, that
    /// would stay until it is due.
    fn prune(&mut self) {
        if self.waiting.len() >= self.prune_at {
            self.waiting.retain(|(_, what)| what.strong_count() > 0);
            self.prune_at = (2 * self.waiting.len()).max(FEW);
        }
    }
}

/// The sessions with unsaved changes, by the time at which they are to be saved.
pub(crate) struct Changed {
    line: Mutex<Line<Session>>,
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
        let is_first = self.line.lock().push(at, Arc::downgrade(session));
        if is_first {
            self.begun.notify_one();
        }
    }

    /// Has all sessions saved by then: the settings say so from now on.
    pub(super) fn at_latest(&self, by: Instant) {
        let mut line = self.line.lock();
        for (at, _) in line.waiting.iter_mut().rev().take_while(|(at, _)| *at > by) {
            *at = by;
        }
        drop(line);
        self.begun.notify_one();
    }

    fn first(&self) -> Option<Instant> {
        self.line.lock().waiting.front().map(|(at, _)| *at)
    }

    /// The first one, if it is due by then.
    fn pop(&self, by: Instant) -> Option<(Instant, Weak<Session>)> {
        self.line.lock().waiting.pop_front_if(|(at, _)| *at <= by)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;

    /// With a bound of hours they stayed for hours.
    #[test]
    fn sessions_that_are_gone_leave_the_line_before_they_are_due() {
        let (mut line, due) = (Line::default(), Env::system().now());
        let there = Arc::new(());
        line.push(due, Arc::downgrade(&there));
        for _ in 0..10 * FEW {
            line.push(due, Arc::downgrade(&Arc::new(())));
        }
        assert!(line.waiting.len() <= FEW, "{}", line.waiting.len());
        let still_there = line.waiting.iter().filter(|(_, what)| what.strong_count() > 0);
        assert_eq!(still_there.count(), 1);
    }
}
