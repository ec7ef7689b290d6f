//! What a batch knows of earlier attempts of its commits, and what it keeps of its own.

use super::Batch;
use crate::data_store::{
    Change, Commit,
    rules::{self, Outcome},
};

impl Batch {
    /// What became of a commit, if that is known.
    pub(super) fn outcome_of(&self, commit: &Commit) -> Option<Outcome> {
        let kept = self.outcomes.get(&commit.id).copied();
        kept.or_else(|| {
            let last = rules::is_last_save(commit, |key| self.head(key).map(|head| head.last_save));
            last.is_ok_and(|is_last| is_last).then_some(Outcome::Applied(None))
        })
    }

    /// Keeps the id of a commit that was applied.
    pub(super) fn keep_id(&mut self, commit: &Commit) {
        if let [Change::Write { key, .. }] = &commit.changes[..]
            && let Some(head) = self.head_mut(key)
            && rules::is_own_save(commit, &head.lease)
        {
            head.last_save = Some(commit.id);
        } else if !rules::only_renews(commit) {
            // A renewal stands in the row itself.
            self.writes.outcomes.insert(commit.id, Outcome::Applied(commit.fingerprint));
        }
    }
}
