//! G7: a commit that was applied is never refused when it comes again. Its sender may not know what
//! became of it, and goes by that answer.
//!
//! A server sends a profile's next commit only when it knows what became of the last one. So the
//! store may have forgotten a commit behind which the same server has made another one. A commit that
//! only checks is judged anew each time. A server that begins anew adopts its sessions only when it
//! knows what became of its commits before.

use std::collections::BTreeMap;

use profilestore::{
    ProfileKey,
    data_store::{
        Change, Commit, CommitId, CommitReply, ConflictKind, ServerId, StoreError, rules,
    },
};

use super::{Broken, broken};

#[derive(Default, Clone)]
pub struct Unknown {
    /// The last commit of each server about each profile that was applied.
    last: BTreeMap<(ServerId, ProfileKey), CommitId>,
}

impl Unknown {
    pub fn answered(
        &mut self,
        commit: &Commit,
        result: &Result<CommitReply, StoreError>,
    ) -> Result<(), Broken> {
        let Some(server) = commit.from.filter(|_| !rules::only_checks(commit)) else {
            return Ok(());
        };
        let keys = || commit.changes.iter().filter_map(|change| change.key());
        match result {
            Ok(reply) if !reply.already_applied => {
                for change in &commit.changes {
                    self.adopted(server, change);
                }
                for key in keys().filter(|key| !key.is_reserved()) {
                    self.last.insert((server, key.clone()), commit.id);
                }
            }
            Ok(_) => {}
            Err(error) => {
                let kind = error.conflict().filter(|kind| **kind != ConflictKind::CommitIdReused);
                let is_last = |key: &&ProfileKey| {
                    self.last.get(&(server, (*key).clone())) == Some(&commit.id)
                };
                if let (Some(kind), Some(key)) = (kind, keys().find(is_last)) {
                    let what = format!("a commit that was applied is refused: {kind:?}");
                    return broken("G7", key.key(), what);
                }
            }
        }
        Ok(())
    }

    /// Forgets what a server that has begun anew did about a profile before it adopted that.
    fn adopted(&mut self, server: ServerId, change: &Change) {
        let Change::Lease { key, lease, raise_epoch: false, .. } = change else { return };
        if lease.holder.as_ref().and_then(|holder| holder.server) == Some(server) {
            self.last.retain(|(_, of), _| of != key);
        }
    }
}
