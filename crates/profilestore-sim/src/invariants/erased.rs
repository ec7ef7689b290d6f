//! Erased stays erased: what was ever written into a profile before it was erased is in no later
//! version of it, and its history begins with the erasure.

use std::collections::{BTreeMap, BTreeSet};

use super::{Broken, Seen, broken};
use crate::data::Label;

#[derive(Default, Clone)]
pub struct Erased {
    /// Whose edits were ever in each profile.
    writers: BTreeMap<String, BTreeSet<Label>>,
    gone: BTreeMap<String, Gone>,
}

#[derive(Default, Clone)]
struct Gone {
    writers: BTreeSet<Label>,
    /// The version that took the place of what was erased.
    version: u64,
}

impl Erased {
    pub fn committed(&mut self, seen: &Seen<'_>) -> Result<(), Broken> {
        let step = seen.step;
        if step.erased {
            let gone = self.gone.entry(step.key.to_owned()).or_default();
            gone.writers.extend(self.writers.remove(step.key).unwrap_or_default());
            gone.version = step.after.version;
        }
        let Some(data) = &step.after.data else { return Ok(()) };
        let back = self
            .gone
            .get(step.key)
            .and_then(|gone| data.edits.keys().find(|writer| gone.writers.contains(writer)));
        if let Some(writer) = back {
            return broken(
                "erasure",
                step.key,
                format!("edits of {writer}, which were erased, are back"),
            );
        }
        if step.before.version != step.after.version {
            self.writers.entry(step.key.to_owned()).or_default().extend(data.edits.keys());
        }
        Ok(())
    }

    /// Whether the profile was ever erased.
    pub fn has(&self, key: &str) -> bool {
        self.gone.contains_key(key)
    }

    /// Keys that were erased, and the version that their histories begin with.
    pub fn all(&self) -> impl Iterator<Item = (&String, u64)> {
        self.gone.iter().map(|(key, gone)| (key, gone.version))
    }
}
