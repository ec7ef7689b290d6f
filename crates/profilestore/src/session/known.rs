//! What the store holds of a live profile, as far as its session knows.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use super::{
    handlers::Gift,
    lease::{KnownLease, Own},
    snapshot::Snapshot,
};
use crate::{
    data::Data,
    data_store::{Digest, KeyState, LeaseState, ServerId, StoredMessage, VersionInfo},
    key::ProfileKey,
    ownership::Seen,
    record::Record,
};

/// What the store holds of a live profile.
pub(crate) struct Known {
    /// The incarnation of this server that the lease names.
    pub(crate) held_by: ServerId,
    pub(crate) epoch: u64,
    /// The store says that the profile is not this session's any more.
    pub(crate) taken: bool,
    pub(crate) version: u64,
    pub(crate) created_ms: i64,
    pub(crate) head: Option<VersionInfo>,
    pub(crate) lease: KnownLease,
    pub(crate) lease_revision: u64,
    pub(crate) inbox: Vec<StoredMessage>,
    pub(crate) inbox_revision: u64,
    /// A document was written over the profile, which left it to this session: the next save writes
    /// what the session has.
    pub(crate) overwritten: bool,
    /// The edit up to which everything is stored.
    pub(crate) saved_generation: u64,
    pub(crate) saved: Saved,
    /// Entries of the audit log that another writer has settled.
    pub(crate) unbookable: BTreeSet<ProfileKey>,
    /// Messages whose handlers' gifts are stored: the newest of them, so that a snapshot from
    /// before that commit does not send them once more.
    pub(crate) given: Given,
}

/// How many messages are remembered whose gifts are stored. A snapshot is older than its commit by
/// a few saves at most, and each of these sends fewer gifts than this.
const GIVEN: usize = 1024;

/// The messages whose handlers' gifts were stored last.
#[derive(Debug, Default)]
pub(crate) struct Given {
    indices: BTreeSet<u64>,
    /// The same, in the order in which the gifts were stored.
    in_order: VecDeque<u64>,
}

impl Given {
    fn note(&mut self, index: u64) {
        if self.indices.insert(index) {
            self.in_order.push_back(index);
        }
        if self.in_order.len() > GIVEN
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.indices.remove(&oldest);
        }
    }

    fn holds(&self, index: u64) -> bool {
        self.indices.contains(&index)
    }
}

/// What is stored, as far as it is needed here. While nothing is edited it shares the live data.
#[derive(Clone)]
pub(crate) struct Saved {
    pub(crate) data: Arc<dyn Data>,
    /// Everything of the record but its data.
    pub(crate) meta: Arc<Record>,
    /// Of the stored bytes. None: what is stored has not been read, and `meta` is not known either.
    pub(crate) digest: Option<Digest>,
}

impl Known {
    /// What a start found, and the record and bytes that are stored.
    pub(super) fn new(held_by: ServerId, state: KeyState, saved: Saved, own: Own<'_>) -> Self {
        Self {
            held_by,
            epoch: state.epoch,
            taken: false,
            version: state.version,
            created_ms: state.created_ms,
            head: state.head,
            lease_revision: state.lease_revision,
            inbox: state.inbox.unwrap_or_default(),
            inbox_revision: state.inbox_revision,
            overwritten: false,
            saved_generation: 0,
            saved,
            unbookable: BTreeSet::new(),
            given: Given::default(),
            lease: KnownLease::new(state.lease, own),
        }
    }

    pub(crate) fn has_message(&self, index: u64) -> bool {
        self.inbox.binary_search_by_key(&index, |message| message.index).is_ok()
    }

    /// What the handlers of a snapshot's messages give, as far as it is not stored yet.
    pub(super) fn gifts_to_send<'a>(
        &'a self,
        snapshot: &'a Snapshot,
    ) -> impl Iterator<Item = &'a Gift> {
        let unsent = snapshot.processed.iter().filter(|(index, _)| !self.given.holds(**index));
        unsent.flat_map(|(_, mark)| &mark.gifts)
    }

    /// The lease as far as it is known. `lease`: the whole of it.
    pub(super) fn seen<'a>(&self, key: &'a ProfileKey, lease: &'a LeaseState) -> Seen<'a> {
        Seen { key, revision: self.lease_revision, lease }
    }

    /// True when the store holds a version that this session, whose it still is, did not write.
    pub(super) fn is_overwritten_in(&self, state: &KeyState) -> bool {
        state.epoch == self.epoch && state.version != self.version
    }

    /// Takes over what the store says. True when other messages wait than before.
    pub(super) fn absorb(&mut self, state: KeyState, own: Own<'_>) -> bool {
        self.overwritten |= state.version != self.version;
        self.version = state.version;
        self.created_ms = state.created_ms;
        self.head = state.head;
        self.lease = KnownLease::new(state.lease, own);
        self.lease_revision = state.lease_revision;
        match state.inbox {
            Some(inbox) => {
                self.inbox = inbox;
                std::mem::replace(&mut self.inbox_revision, state.inbox_revision)
                    != state.inbox_revision
            }
            None => false,
        }
    }

    /// Notes what the store says of a commit that had been applied before, perhaps by another host:
    /// what is stored then has to be read before it is built on.
    pub(super) fn note_done_before(&mut self, state: &KeyState) {
        self.version = state.version;
        self.overwritten = false;
        if !defect!(DoneBeforeMarkedStored) {
            self.saved.digest = None;
        }
    }

    /// A snapshot is stored. `written`: as a new version, with this digest. The messages whose
    /// effect it holds are gone.
    pub(super) fn stored(&mut self, snapshot: &Snapshot, written: Option<Digest>) {
        self.inbox.retain(|message| !snapshot.processed.contains_key(&message.index));
        let gave = snapshot.processed.iter().filter(|(_, mark)| !mark.gifts.is_empty());
        gave.for_each(|(index, _)| self.given.note(*index));
        if written.is_some() {
            self.version += 1;
            self.overwritten = false;
        }
        let Snapshot { data, meta, generation, .. } = snapshot;
        // Also when nothing was written: what is equal need not be held twice.
        if *generation != self.saved_generation {
            let digest = written.or(self.saved.digest);
            self.saved = Saved { data: data.clone(), meta: meta.clone(), digest };
            self.saved_generation = *generation;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The message with the lowest index was forgotten first, which may have been the newest: its
    /// gift went out twice.
    #[test]
    fn what_was_given_last_is_remembered_however_early_its_message_came() {
        let mut given = Given::default();
        (2..=GIVEN as u64 + 1).for_each(|index| given.note(index));
        given.note(1);
        assert!(given.holds(1) && !given.holds(2) && given.holds(3));
        given.note(3);
        assert!(given.holds(4), "noted once");
    }
}
