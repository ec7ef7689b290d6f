//! The history is complete by its rule: the first write of a UTC hour keeps what it replaces; so do
//! session ends, operators' writes, and values that are no profiles.

use std::collections::{BTreeMap, BTreeSet};

use super::{Broken, Kind, Seen, broken};

const HOUR_MS: i64 = 60 * 60 * 1000;

#[derive(Default, Clone)]
pub struct History {
    kept: BTreeMap<String, BTreeSet<u64>>,
    /// Versions that must be kept once they are replaced.
    sealed: BTreeMap<String, u64>,
}

impl History {
    pub fn committed(&mut self, seen: &Seen<'_>) {
        let step = seen.step;
        if step.after.version != step.before.version
            && let Some(replaced) = &step.before.info
        {
            let hour = |ms: i64| ms.div_euclid(HOUR_MS);
            let sealed = self.sealed.remove(step.key) == Some(replaced.number);
            let rewritten = seen.kind.rewrites() || seen.kind == Kind::Edit || step.before.foreign;
            if sealed
                || replaced.removed
                || rewritten
                || hour(replaced.stored_ms) < hour(step.store_ms)
            {
                self.kept.entry(step.key.to_owned()).or_default().insert(replaced.number);
            }
        }
        let ended = step.before.holder().is_some()
            && step.after.holder().is_none()
            && seen.kind != Kind::Removal
            && !step.buried;
        if ended || seen.kind == Kind::Operator {
            self.sealed.insert(step.key.to_owned(), step.after.version);
        }
        if step.erased {
            self.kept.remove(step.key);
            self.sealed.remove(step.key);
        }
    }

    /// What must be in the history of each key.
    pub fn kept(&self) -> impl Iterator<Item = (&String, &BTreeSet<u64>)> {
        self.kept.iter()
    }

    /// Compares with what is there.
    pub fn check(&self, key: &str, found: &BTreeSet<u64>) -> Result<(), Broken> {
        let missing = self.kept.get(key).and_then(|kept| kept.difference(found).next());
        match missing {
            Some(version) => {
                broken("history", key, format!("version {version} should have been kept"))
            }
            None => Ok(()),
        }
    }
}
