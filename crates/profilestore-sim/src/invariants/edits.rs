//! Operators' edits: the effect comes once if it was acknowledged and at most once otherwise, never
//! where it was refused, not in a part, and not again after it was undone. One that stands is in
//! every profile from its first commit on.

use std::collections::{BTreeMap, BTreeSet};

use super::{Broken, Kind, Seen, broken};
use crate::{oracle::Told, watch::Side};

#[derive(Default, Clone)]
pub struct Edits {
    /// Whose profile each edit was applied to.
    here: BTreeSet<(String, u64)>,
    /// The same, also before a backup.
    ever: BTreeSet<(String, u64)>,
    /// When each profile began, counted in commits.
    born: BTreeMap<String, u64>,
    commits: u64,
}

fn edited(side: &Side) -> BTreeSet<u64> {
    side.data.iter().flat_map(|data| data.edited.keys()).copied().collect()
}

impl Edits {
    pub fn committed(&mut self, seen: &Seen<'_>, told: &Told) -> Result<(), Broken> {
        let step = seen.step;
        self.commits += 1;
        if seen.kind == Kind::Untouched {
            return Ok(());
        }
        if let Some(data) = &step.after.data {
            let sum: i64 = data.edited.values().sum();
            if sum != data.granted {
                return broken(
                    "edits",
                    step.key,
                    format!("edits granted {sum} and left {} in the profile", data.granted),
                );
            }
        }
        if seen.kind == Kind::Removal {
            self.born.remove(step.key);
            // What stands comes to the next profile under this name as well.
            let stands = |edit: u64| told.edits.get(edit as usize).is_some_and(|edit| edit.stands);
            self.here.retain(|(key, edit)| key != step.key || !stands(*edit));
            return Ok(());
        }
        let (had, has) = (edited(step.before), edited(step.after));
        for edit in has.difference(&had) {
            self.took_effect(seen, *edit, told)?;
        }
        for edit in had.difference(&has) {
            let undoing = told.edits.get(*edit as usize).is_some_and(|edit| edit.undoing);
            if !seen.kind.rewrites() && !undoing {
                return broken("edits", step.key, format!("the effect of edit {edit} is gone"));
            }
        }
        if step.before.data.is_none() {
            self.born.insert(step.key.to_owned(), self.commits);
            let missing = told.edits.iter().enumerate().find(|(number, edit)| {
                edit.standing
                    && !edit.undoing
                    && !has.contains(&(*number as u64))
                    && step.after.edits_waiting == 0
            });
            if let (Kind::Session, Some((edit, _))) = (seen.kind, missing) {
                return broken(
                    "edits",
                    step.key,
                    format!("the profile begins without edit {edit}, which stands"),
                );
            }
        }
        Ok(())
    }

    fn took_effect(&mut self, seen: &Seen<'_>, edit: u64, told: &Told) -> Result<(), Broken> {
        let key = seen.step.key;
        if seen.kind != Kind::Operator {
            let Some(known) = told.edits.get(edit as usize) else {
                return broken("edits", key, format!("nobody ordered edit {edit}"));
            };
            let why = match known {
                known if known.to.as_ref().is_some_and(|to| to != key) => "was for another profile",
                known if known.refused => "was refused",
                known if known.failed() => "was reported as not done",
                known if known.undone => "was undone",
                _ if self.here.contains(&(key.to_owned(), edit)) => "had taken effect before",
                _ => "",
            };
            if !why.is_empty() {
                return broken("edits", key, format!("edit {edit} takes effect, which {why}"));
            }
        }
        self.here.insert((key.to_owned(), edit));
        self.ever.insert((key.to_owned(), edit));
        Ok(())
    }

    /// An operator was told that an edit is done.
    pub fn acknowledged(&self, key: &str, edit: u64) -> Result<(), Broken> {
        if self.ever.contains(&(key.to_owned(), edit)) {
            return Ok(());
        }
        broken("edits", key, format!("edit {edit} was acknowledged and never took effect"))
    }

    /// How many commits there have been.
    pub fn now(&self) -> u64 {
        self.commits
    }

    /// An operator was told that an edit which began then is done everywhere but for some profiles.
    pub fn acknowledged_everywhere(
        &self,
        edit: u64,
        began: u64,
        but_for: &BTreeSet<String>,
    ) -> Result<(), Broken> {
        let mut old =
            self.born.iter().filter(|(key, born)| **born < began && !but_for.contains(*key));
        old.try_for_each(|(key, _)| self.acknowledged(key, edit))
    }

    pub fn restored(&mut self, before: &Self) {
        self.ever.clone_from(&before.ever);
        self.commits = before.commits;
    }
}
