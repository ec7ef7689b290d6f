//! G6, the other way round: a session that is told it was lost has been. Its name is no longer in
//! the lease.

use std::collections::{BTreeMap, BTreeSet};

use super::{Broken, Seen, broken};
use crate::{
    data::Label,
    oracle::{SessionTold, Told},
};

#[derive(Default, Clone)]
pub struct Lost {
    holders: BTreeMap<String, String>,
    /// Sessions of before a backup: they are lost, whatever it holds.
    excused: BTreeSet<Label>,
    /// The names in the leases that a backup holds; a client may not have been told yet that it had
    /// such a session.
    restored: BTreeSet<String>,
}

impl Lost {
    pub fn committed(&mut self, seen: &Seen<'_>) {
        match seen.step.after.holder() {
            Some(holder) => self.holders.insert(seen.step.key.to_owned(), holder.to_owned()),
            None => self.holders.remove(seen.step.key),
        };
    }

    /// A client was told that its session was lost.
    pub fn told(&self, label: Label, session: &SessionTold) -> Result<(), Broken> {
        let holder =
            self.holders.get(&session.key).filter(|holder| !self.restored.contains(*holder));
        if holder.is_some()
            && holder == session.store_name.as_ref()
            && !self.excused.contains(&label)
        {
            return broken(
                "G6",
                &session.key,
                format!("session {label} was told that it is lost, and nobody took it"),
            );
        }
        Ok(())
    }

    pub fn restored(&mut self, told: &Told) {
        self.excused.extend(told.sessions.keys());
        self.restored.extend(self.holders.values().cloned());
    }
}
