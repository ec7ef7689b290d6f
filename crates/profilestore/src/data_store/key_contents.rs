//! All that a key holds, as one value, and what each change makes of it. Pure.
//!
//! For backends that keep a key in one piece, like the store in memory. A backend on a database
//! with tables writes the rows that a change is about instead, to the same effect.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{
    Change, CommitId, Digest, KeyState, LeaseState, MessageId, NewValue, Returning, ServerRow,
    StoredMessage, StoredVersion, VersionInfo, VersionLinks, VersionRef,
    content::content_digest,
    rules::{self, Counters, MessageFacts},
};
use crate::key::ProfileKey;

/// All that a key holds: counters, lease, versions, inbox, receipts. The default is a key that was
/// never used.
#[derive(Debug, Clone, Default)]
pub struct KeyContents {
    epoch: u64,
    created_ms: i64,
    user_ids: Vec<i64>,
    lease: LeaseState,
    lease_revision: u64,
    inbox_revision: u64,
    last_message: u64,
    /// The kept versions by ascending number; the last one is the current one.
    versions: Vec<Version>,
    /// The last of [`rules::is_own_save`] since the epoch was raised.
    last_save: Option<CommitId>,
    inbox: BTreeMap<u64, Message>,
    receipts: BTreeMap<Digest, Receipt>,
    /// What commits of versions did beyond the key, by the versions' numbers.
    links: BTreeMap<u64, VersionLinks>,
}

#[derive(Debug, Clone)]
struct Version {
    info: VersionInfo,
    value: Option<Bytes>,
    sealed: bool,
    imported: bool,
}

#[derive(Debug, Clone)]
struct Message {
    stored: StoredMessage,
    id: Digest,
    /// Of the payload that it was appended with.
    content: Digest,
}

#[derive(Debug, Clone)]
struct Receipt {
    content: Digest,
    made_ms: i64,
}

impl KeyContents {
    /// Applies one change of this key whose preconditions hold; those of a commit come in the order
    /// of [`rules::in_order`]. True when it changed the lease, the data or the inbox. Changes of
    /// servers change nothing here.
    pub fn apply(&mut self, change: &Change, now_ms: i64) -> bool {
        match change {
            Change::Write { .. } => self.write(change, now_ms),
            Change::Lease { lease, raise_epoch, .. } => {
                self.lease = lease.clone();
                self.lease_revision += 1;
                self.epoch += u64::from(*raise_epoch);
                if defect!(EpochFromSessionCount) {
                    self.epoch = lease.load_count;
                }
                true
            }
            Change::AppendMessage { message, .. } => {
                self.last_message += 1;
                self.inbox_revision += 1;
                let stored = StoredMessage {
                    index: self.last_message,
                    id: message.id.clone(),
                    payload: message.payload.clone(),
                    locked: false,
                    revision: 1,
                    sent_ms: now_ms,
                };
                self.inbox.insert(stored.index, Message::new(stored));
                true
            }
            Change::ChangeMessage { index, payload, .. } => self.on_message(*index, |message| {
                message.stored.payload = payload.clone();
                message.stored.revision += 1;
                true
            }),
            Change::LockMessage { index, .. } => self
                .on_message(*index, |message| !std::mem::replace(&mut message.stored.locked, true)),
            Change::RemoveMessage { index, receipt, .. } => {
                let Some(message) = self.inbox.remove(index) else { return false };
                self.inbox_revision += 1;
                if *receipt && !defect!(ReceiptForgotten) {
                    self.receipts
                        .insert(message.id, Receipt { content: message.content, made_ms: now_ms });
                }
                true
            }
            Change::ReplaceInbox { last_message, messages, .. } => {
                self.inbox_revision += 1;
                self.last_message = self.last_message.max(*last_message);
                let mut before = std::mem::take(&mut self.inbox);
                for message in messages {
                    let mut new = Message::new(message.clone());
                    if before.get(&message.index).is_some_and(|old| old.id == new.id) {
                        new.content =
                            before.remove(&message.index).map_or(new.content, |old| old.content);
                    }
                    self.inbox.insert(message.index, new);
                }
                self.leave_receipts(before, now_ms);
                true
            }
            Change::Pin { version, pinned, .. } => {
                if let Some(found) =
                    self.versions.iter_mut().find(|found| found.info.number == *version)
                {
                    found.info.pinned = *pinned;
                }
                false
            }
            Change::Erase { .. } => {
                let current = self.versions.pop();
                let did = !self.versions.is_empty() || !self.inbox.is_empty();
                self.versions = current.into_iter().collect();
                self.inbox_revision += u64::from(!self.inbox.is_empty());
                let inbox = std::mem::take(&mut self.inbox);
                self.leave_receipts(inbox, now_ms);
                self.links.clear();
                did
            }
            _ => false,
        }
    }

    /// To be called for each change of this key once all of the commit's changes were applied: what
    /// a version says about the state after the whole commit, its load count and its seal.
    pub fn finish(&mut self, change: &Change) {
        let load_count = self.lease.load_count;
        let Some(current) = self.versions.last_mut() else { return };
        match change {
            Change::Write { .. } => current.info.load_count = load_count,
            Change::Lease { seal: true, .. } => current.sealed = true,
            _ => {}
        }
    }

    /// The id of the last save by the holder of this epoch. See [`rules::is_own_save`].
    pub fn last_save(&self) -> Option<CommitId> {
        self.last_save
    }

    /// Notes the id of a save by the holder, over the one before; or takes that out.
    pub fn set_last_save(&mut self, save: Option<CommitId>) {
        self.last_save = save;
    }

    /// Keeps what [`rules::links`] found for this key.
    pub fn link(&mut self, links: VersionLinks) {
        self.links.insert(links.version, links);
    }

    /// For [`super::DataStore::links`].
    pub fn links(&self, after: u64) -> impl Iterator<Item = &VersionLinks> {
        self.links.range(after.saturating_add(1)..).map(|(_, links)| links)
    }

    /// Deletes versions that were superseded longer than `history_ms` ago and are not pinned, and
    /// old receipts. Says how many.
    pub fn sweep(&mut self, history_ms: i64, now_ms: i64) -> (u64, u64) {
        let (versions, receipts) = (self.versions.len(), self.receipts.len());
        self.versions.retain(|version| {
            let superseded = version.info.superseded_ms;
            version.info.pinned
                || superseded.is_none_or(|at| now_ms.saturating_sub(at) <= history_ms)
        });
        self.links.retain(|_, links| now_ms.saturating_sub(links.at_ms) <= history_ms);
        self.receipts
            .retain(|_, receipt| now_ms.saturating_sub(receipt.made_ms) <= rules::RECEIPT_KEPT_MS);
        ((versions - self.versions.len()) as u64, (receipts - self.receipts.len()) as u64)
    }

    /// What a read of the key shows. `row_of` looks up the row of the server that holds it.
    pub fn state(
        &self,
        key: &ProfileKey,
        returning: Returning,
        row_of: impl FnOnce(super::ServerId) -> Option<ServerRow>,
    ) -> KeyState {
        let current = self.versions.last();
        let wants_inbox =
            returning.inbox_unless.is_some_and(|revision| revision != self.inbox_revision);
        KeyState {
            key: key.clone(),
            epoch: self.epoch,
            version: current.map_or(0, |version| version.info.number),
            created_ms: self.created_ms,
            head: current.map(|version| version.info.clone()),
            lease: self.lease.clone(),
            lease_revision: self.lease_revision,
            holder_server: self
                .lease
                .holder
                .as_ref()
                .and_then(|holder| holder.server)
                .and_then(row_of),
            inbox_revision: self.inbox_revision,
            last_message: self.last_message,
            inbox: wants_inbox
                .then(|| self.inbox.values().map(|message| message.stored.clone()).collect()),
            value: current.filter(|_| returning.value).and_then(|version| version.value.clone()),
        }
    }

    /// The lease.
    pub fn lease(&self) -> &LeaseState {
        &self.lease
    }

    /// The users that the profile is associated with.
    pub fn user_ids(&self) -> &[i64] {
        &self.user_ids
    }

    /// The kept versions by ascending number.
    pub fn versions(&self) -> impl DoubleEndedIterator<Item = &VersionInfo> {
        self.versions.iter().map(|version| &version.info)
    }

    /// The newest kept version of this number or label.
    pub fn version(&self, wanted: &VersionRef) -> Option<StoredVersion> {
        let found = self.versions.iter().rev().find(|version| wanted.names(&version.info))?;
        Some(StoredVersion { info: found.info.clone(), value: found.value.clone() })
    }

    /// For [`rules::View::counters`].
    pub fn counters(&self) -> Counters {
        Counters {
            epoch: self.epoch,
            version: self.versions.last().map_or(0, |version| version.info.number),
            lease_revision: self.lease_revision,
            inbox_revision: self.inbox_revision,
            waiting: self.inbox.len() as u64,
        }
    }

    /// For [`rules::View::message`].
    pub fn message(&self, index: u64) -> Option<MessageFacts> {
        let message = &self.inbox.get(&index)?.stored;
        Some(MessageFacts { revision: message.revision, locked: message.locked })
    }

    /// For [`rules::View::message_id`].
    pub fn message_id(&self, index: u64) -> Option<MessageId> {
        self.inbox.get(&index).map(|message| message.stored.id.clone())
    }

    /// For [`rules::View::used_with`].
    pub fn used_with(&self, id: &Digest) -> Option<Digest> {
        let waiting =
            self.inbox.values().find(|message| message.id == *id).map(|message| message.content);
        waiting.or_else(|| self.receipts.get(id).map(|receipt| receipt.content))
    }

    fn write(&mut self, change: &Change, now_ms: i64) -> bool {
        let Change::Write { value, user_ids, keep_previous, seal, imported, .. } = change else {
            return false;
        };
        let Some(info) = rules::new_version(change, now_ms) else { return false };
        let value = match value {
            NewValue::Bytes(bytes) => Some(bytes.clone()),
            NewValue::Tombstone => None,
        };
        let new = Version { info, value, sealed: *seal, imported: imported.is_some() };
        match self.versions.last_mut() {
            None => {
                self.created_ms = imported.as_ref().map_or(now_ms, |imported| imported.created_ms);
                self.versions.push(new);
            }
            Some(previous)
                if rules::keeps_previous(previous.replaced(), *keep_previous, now_ms) =>
            {
                previous.info.superseded_ms = Some(now_ms);
                self.versions.push(new);
            }
            Some(previous) => *previous = new,
        }
        self.user_ids.clone_from(user_ids);
        true
    }

    /// Changes a message; the inbox's revision counts up when `change` says that it did something.
    fn on_message(&mut self, index: u64, change: impl FnOnce(&mut Message) -> bool) -> bool {
        let did = self.inbox.get_mut(&index).is_some_and(change);
        self.inbox_revision += u64::from(did);
        did
    }

    fn leave_receipts(&mut self, gone: BTreeMap<u64, Message>, now_ms: i64) {
        let receipts = gone
            .into_values()
            .map(|gone| (gone.id, Receipt { content: gone.content, made_ms: now_ms }));
        self.receipts.extend(receipts);
    }
}

impl Version {
    fn replaced(&self) -> rules::Replaced {
        rules::Replaced {
            stored_ms: self.info.stored_ms,
            removed: self.info.removed,
            sealed: self.sealed,
            pinned: self.info.pinned,
            imported: self.imported,
        }
    }
}

impl Message {
    fn new(stored: StoredMessage) -> Self {
        Self { id: stored.id.digest(), content: content_digest(&stored.payload), stored }
    }
}
