//! Starts that wait behind the end of a session, in the order of their calls.
//!
//! Such a start claims its load when that end is over, and which of several is woken first is
//! chance. The one that was called last gets the profile, so one that was called earlier gives way.
//! One that is called off while it waits counts no more.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::key::ProfileKey;

/// The keys on which starts wait.
#[derive(Default)]
pub(super) struct Behind(Mutex<BTreeMap<ProfileKey, Line>>);

/// A key is here while a start waits on it.
#[derive(Default)]
struct Line {
    /// The numbers of those that wait.
    waiting: BTreeSet<u64>,
    /// How many starts were called, from the first one that waits on.
    called: u64,
    /// The number of the last one that has claimed the profile; 0 before that.
    claimed: u64,
}

/// The place of a start that waits.
pub(super) struct Place {
    behind: Arc<Behind>,
    key: ProfileKey,
    number: u64,
}

impl Behind {
    /// A place behind those that were called before.
    pub(super) fn wait(self: &Arc<Self>, key: &ProfileKey) -> Place {
        let mut lines = self.0.lock();
        let line = lines.entry(key.clone()).or_default();
        line.called += 1;
        line.waiting.insert(line.called);
        Place { behind: self.clone(), key: key.clone(), number: line.called }
    }

    /// A start that did not have to wait has claimed the profile. Those that wait were called
    /// before it.
    pub(super) fn pass(&self, key: &ProfileKey) {
        if let Some(line) = self.0.lock().get_mut(key) {
            line.called += 1;
            line.claimed = line.called;
        }
    }
}

impl Place {
    /// True when a start was called later that has claimed the profile, or waits for it too.
    pub(super) fn is_overtaken(&self) -> bool {
        let lines = self.behind.0.lock();
        lines.get(&self.key).is_some_and(|line| {
            line.claimed > self.number || line.waiting.last() > Some(&self.number)
        })
    }

    /// This start has claimed the profile.
    pub(super) fn note_claimed(&self) {
        if let Some(line) = self.behind.0.lock().get_mut(&self.key) {
            line.claimed = line.claimed.max(self.number);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.behind.0.lock();
        if let Entry::Occupied(mut line) = lines.entry(self.key.clone()) {
            line.get_mut().waiting.remove(&self.number);
            if line.get().waiting.is_empty() {
                line.remove();
            }
        }
    }
}
