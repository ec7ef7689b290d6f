//! Starts that wait behind the end of a session, in the order of their calls.
//!
//! Such a start claims its load when that end is over, and which of several is woken first is
//! chance. The one that was called last gets the profile, so one that was called earlier gives way.

use std::{
    collections::{BTreeMap, btree_map::Entry},
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
    waiting: usize,
    /// How many starts were called, from the first one that waits on.
    called: u64,
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
        line.waiting += 1;
        line.called += 1;
        Place { behind: self.clone(), key: key.clone(), number: line.called }
    }

    /// A start did not have to wait. Those that do were called before it.
    pub(super) fn pass(&self, key: &ProfileKey) {
        if let Some(line) = self.0.lock().get_mut(key) {
            line.called += 1;
        }
    }
}

impl Place {
    /// True when a start was called later that has the profile, or waits for it too.
    pub(super) fn is_overtaken(&self) -> bool {
        let lines = self.behind.0.lock();
        lines.get(&self.key).is_some_and(|line| line.called != self.number)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut lines = self.behind.0.lock();
        if let Entry::Occupied(mut line) = lines.entry(self.key.clone()) {
            line.get_mut().waiting -= 1;
            if line.get().waiting == 0 {
                line.remove();
            }
        }
    }
}
