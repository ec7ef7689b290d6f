//! The heads that the writer knows, so that a save of a session reads nothing.
//!
//! A head is known from the first commit on that is one write and nothing else, as most saves of a
//! session are. Whatever else is committed keeps it known, but does not make it so: a session that
//! is started and saves nothing costs nothing here.
//!
//! A writer has read or written before most of the heads that it needs, and has the file's write
//! lock while it judges. What it knows stays true until another connection writes. SQLite counts
//! that for each connection, by the same look at the log that tells it whether the pages in its own
//! memory are still true (`PRAGMA data_version`). The writer reads this number in each transaction,
//! once it has the lock, and forgets all heads when it has changed. It also forgets them after
//! a transaction that did not end well, and in one that is not of commits, a sweep say.
//!
//! A head in the file is written only while it has the epoch, version and lease revision that it
//! is known to have. So a head that was damaged meanwhile is an error, and no save that is lost.

use std::{cell::RefCell, collections::HashMap};

use super::head::Head;
use crate::key::ProfileKey;

/// How many heads are kept, of about a kilobyte each.
const HEADS: usize = 1 << 17;

/// None: the head is in use.
#[derive(Default)]
pub(super) struct KnownHeads(RefCell<HashMap<ProfileKey, Option<Box<Head>>>>);

impl KnownHeads {
    /// Takes a head out. It is known again once it is put back.
    pub(super) fn take(&self, key: &ProfileKey) -> Option<Box<Head>> {
        self.0.borrow_mut().get_mut(key)?.take()
    }

    /// Keeps a head that has a row and is as that row is now.
    pub(super) fn put(&self, head: Box<Head>) {
        let Some(head) = self.put_back(head) else { return };
        let mut known = self.0.borrow_mut();
        if known.len() >= HEADS {
            known.clear();
        }
        known.insert(head.key.clone(), Some(head));
    }

    /// The same for a head that was known before. Any other one is given back.
    pub(super) fn put_back(&self, head: Box<Head>) -> Option<Box<Head>> {
        match self.0.borrow_mut().get_mut(&head.key) {
            Some(place) => {
                *place = Some(head);
                None
            }
            None => Some(head),
        }
    }

    pub(super) fn forget(&self) {
        let mut known = self.0.borrow_mut();
        if !known.is_empty() {
            known.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_head_is_lent_once_and_forgotten_with_the_others() {
        let known = KnownHeads::default();
        let key = |n: usize| ProfileKey::new("S", "global", &format!("k{n}")).unwrap();
        let head = |n: usize| Box::new(Head { version: n as u64, ..Head::absent(key(n)) });
        assert!(known.take(&key(1)).is_none());
        (1..=2).for_each(|n| known.put(head(n)));
        let taken = known.take(&key(1)).unwrap();
        assert_eq!((taken.version, taken.key == key(1)), (1, true));
        assert!(known.take(&key(1)).is_none(), "it is in use");
        known.put(taken);
        assert!(known.take(&key(1)).is_some());
        assert!(known.put_back(head(1)).is_none());
        assert!(known.take(&key(1)).is_some(), "it has its place again");
        assert!(known.put_back(head(3)).is_some());
        assert!(known.take(&key(3)).is_none(), "it had no place");
        known.forget();
        assert!(known.take(&key(2)).is_none());
        (0..HEADS + 10).for_each(|n| known.put(head(n)));
        assert_eq!(known.0.borrow().len(), 10, "their number is bounded");
    }
}
