//! G2: what was acknowledged was committed, and what was committed stays: only an operator, a
//! removal or a backup takes an edit back. With it G5: data is never replaced by an empty profile.

use std::collections::BTreeMap;

use super::{Broken, Kind, Seen, broken};
use crate::{
    data::{Label, Player},
    oracle::Told,
};

#[derive(Default, Clone)]
pub struct Durable {
    /// The most edits of each writer that were ever committed.
    ever: BTreeMap<Label, u64>,
    /// The data that is committed now.
    now: BTreeMap<String, Player>,
}

impl Durable {
    pub fn committed(&mut self, seen: &Seen<'_>, told: &Told) -> Result<(), Broken> {
        let step = seen.step;
        if seen.kind == Kind::Untouched {
            return Ok(());
        }
        if seen.kind == Kind::Removal && !told.removals.contains_key(step.key) {
            return broken("G5", step.key, "the profile is gone, and nobody removed it");
        }
        let over_foreign =
            step.before.foreign && step.after.data.is_some() && seen.kind != Kind::Operator;
        if over_foreign && !told.starts_on(step.key, seen.now).any(|start| start.overwrite) {
            return broken(
                "G5",
                step.key,
                "a value that is no profile was overwritten, and nobody asked for that",
            );
        }
        if let (Kind::Session | Kind::Edit, Some(before)) = (seen.kind, self.now.get(step.key)) {
            let empty = Player::default();
            let after = step.after.data.as_ref().unwrap_or(&empty);
            for (writer, count) in &before.edits {
                let left = after.edits.get(writer).copied().unwrap_or_default();
                if left < *count {
                    let guarantee = if after.edits.is_empty() { "G5" } else { "G2" };
                    return broken(
                        guarantee,
                        step.key,
                        format!(
                            "{count} edits of session {writer} were committed, {left} are left"
                        ),
                    );
                }
            }
        }
        match &step.after.data {
            Some(data) => {
                for (writer, count) in &data.edits {
                    let most = self.ever.entry(*writer).or_default();
                    *most = (*most).max(*count);
                }
                self.now.insert(step.key.to_owned(), data.clone());
            }
            None => {
                self.now.remove(step.key);
            }
        }
        Ok(())
    }

    /// A client was told that so many edits of a writer are durable.
    pub fn acknowledged(&self, key: &str, writer: Label, edits: u64) -> Result<(), Broken> {
        let most = self.ever.get(&writer).copied().unwrap_or_default();
        if most < edits {
            return broken(
                "G2",
                key,
                format!(
                    "{edits} edits of session {writer} were acknowledged, {most} were committed"
                ),
            );
        }
        Ok(())
    }

    /// How many edits of a writer are in a profile now.
    pub fn edits(&self, key: &str, writer: Label) -> u64 {
        self.now.get(key).and_then(|data| data.edits.get(&writer)).copied().unwrap_or_default()
    }

    /// True when a profile was rewritten so that edits of a writer which once were there are not
    /// any more.
    pub fn rewritten(&self, key: &str, writer: Label) -> bool {
        self.edits(key, writer) < self.ever.get(&writer).copied().unwrap_or_default()
    }

    pub fn restored(&mut self, before: &Self) {
        self.ever.clone_from(&before.ever);
    }
}
