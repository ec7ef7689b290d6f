//! The commits of one transaction, judged and applied to what was read of the store: free of I/O.
//! What is to be written is noted in [`Writes`].
//!
//! A key that one commit changes is no other's in the same batch (see `queue`), so each row is
//! written once, as the batch left it.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    schema::{IMPORTED, PINNED, REMOVED, SEALED},
    state::{Head, Value},
};
use crate::{
    data_store::{
        Change, Commit, CommitId, CommitReply, Conflict, Digest, Incarnation, KeyState, LeaseState,
        MessageId, NewValue, Notice, ServerId, ServerRow, StoreError, StoredMessage, VersionInfo,
        VersionLinks,
        rules::{self, Fault, MessageFacts, Outcome},
    },
    key::ProfileKey,
};

mod known;
mod view;

/// What was read of the store before the batch, changed as its commits are applied.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) now_ms: i64,
    pub(super) incarnation: Incarnation,
    /// Every key of the batch; one whose row cannot be understood is an error to who asks for it.
    pub(super) heads: BTreeMap<ProfileKey, Result<Head, StoreError>>,
    pub(super) servers: BTreeMap<ServerId, ServerRow>,
    pub(super) outcomes: BTreeMap<CommitId, Outcome>,
    pub(super) messages: BTreeMap<(ProfileKey, u64), MessageFacts>,
    /// The ids of those that a commit names.
    pub(super) message_ids: BTreeMap<(ProfileKey, u64), MessageId>,
    pub(super) used: BTreeMap<(ProfileKey, Digest), Digest>,
    /// What waits for the keys whose inbox is replaced: indexes and ids.
    pub(super) waiting: BTreeMap<ProfileKey, Vec<(u64, Digest)>>,
    /// Kept versions that a commit names, besides the current ones.
    pub(super) kept: BTreeSet<(ProfileKey, u64)>,
    /// Keys to be erased that have kept versions.
    pub(super) has_history: BTreeSet<ProfileKey>,
    pub(super) writes: Writes,
}

/// What a batch writes.
#[derive(Debug, Default)]
pub(super) struct Writes {
    pub(super) heads: BTreeMap<ProfileKey, Touched>,
    /// Keys whose current version is kept, with its flags.
    pub(super) history: Vec<(ProfileKey, i64)>,
    pub(super) pins: Vec<(ProfileKey, u64, bool)>,
    pub(super) users_gone: BTreeSet<(i64, ProfileKey)>,
    pub(super) users_new: BTreeSet<(i64, ProfileKey)>,
    pub(super) edits: BTreeMap<(ProfileKey, u64), MessageEdit>,
    pub(super) messages: Vec<(ProfileKey, StoredMessage)>,
    pub(super) erased: Vec<ProfileKey>,
    pub(super) links: Vec<(ProfileKey, VersionLinks)>,
    pub(super) registered: BTreeSet<ServerId>,
    pub(super) rehosted: BTreeSet<ServerId>,
    /// By which commits.
    pub(super) renewed: BTreeMap<ServerId, CommitId>,
    pub(super) died: BTreeSet<ServerId>,
    pub(super) acknowledged: BTreeSet<(ServerId, ProfileKey, CommitId)>,
    pub(super) outcomes: BTreeMap<CommitId, Outcome>,
    pub(super) notices: BTreeMap<(ServerId, ProfileKey), CommitId>,
}

/// Which columns of a head changed.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Touched {
    /// The current version.
    pub(super) data: bool,
    /// Anything else.
    pub(super) rest: bool,
}

/// What becomes of a waiting message.
#[derive(Debug, Default)]
pub(super) struct MessageEdit {
    pub(super) payload: Option<bytes::Bytes>,
    /// By how much its revision counts up.
    pub(super) revisions: i64,
    pub(super) lock: Option<bool>,
    pub(super) removed: bool,
    pub(super) receipt: bool,
}

/// What became of a commit.
#[derive(Debug)]
pub(super) enum Verdict {
    Refused(StoreError),
    Conflict(Fault),
    Replied { already_applied: bool, wrote: bool },
}

/// What was read again for the replies.
#[derive(Debug, Default)]
pub(super) struct Shown {
    pub(super) inboxes: BTreeMap<ProfileKey, Vec<StoredMessage>>,
    pub(super) notices: BTreeMap<ServerId, Vec<Notice>>,
    /// Notices that were left for living servers.
    pub(super) notified: BTreeSet<(ServerId, ProfileKey)>,
}

/// What a commit did to one key, beyond the columns.
#[derive(Debug, Default)]
struct Done {
    lease_before: Option<LeaseState>,
    touched: Touched,
    noticed: bool,
}

impl Batch {
    pub(super) fn new(now_ms: i64, incarnation: Incarnation) -> Self {
        Self {
            now_ms,
            incarnation,
            heads: BTreeMap::new(),
            servers: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            messages: BTreeMap::new(),
            message_ids: BTreeMap::new(),
            used: BTreeMap::new(),
            waiting: BTreeMap::new(),
            kept: BTreeSet::new(),
            has_history: BTreeSet::new(),
            writes: Writes::default(),
        }
    }

    pub(super) fn head(&self, key: &ProfileKey) -> Result<&Head, StoreError> {
        match self.heads.get(key) {
            Some(Ok(head)) => Ok(head),
            Some(Err(err)) => Err(err.clone()),
            None => Err(StoreError::Corrupt { reason: format!("a key was not read: key=`{key}`") }),
        }
    }

    fn head_mut(&mut self, key: &ProfileKey) -> Option<&mut Head> {
        self.heads.get_mut(key).and_then(|head| head.as_mut().ok())
    }

    /// Judges a well formed commit and applies it if it may be.
    pub(super) fn commit(&mut self, commit: &Commit) -> Verdict {
        if let Err(err) = self.readable(commit) {
            return Verdict::Refused(err);
        }
        if let Some(outcome) = self.outcome_of(commit) {
            return match rules::judge_known(commit, outcome) {
                None => Verdict::Replied { already_applied: true, wrote: false },
                Some(kind) => Verdict::Conflict(Fault::Commit(kind)),
            };
        }
        let now_ms = self.now_ms;
        match rules::judge(self, commit, now_ms) {
            Err(err) => return Verdict::Refused(err),
            Ok(Some(fault)) => return Verdict::Conflict(fault),
            Ok(None) => {}
        }
        let wrote = !rules::only_checks(commit);
        if wrote {
            match rules::links(self, commit, now_ms) {
                Ok(links) => self.writes.links.extend(links),
                Err(err) => return Verdict::Refused(err),
            }
            self.apply(commit);
        }
        Verdict::Replied { already_applied: false, wrote }
    }

    fn readable(&self, commit: &Commit) -> Result<(), StoreError> {
        rules::check_incarnation(commit, self.incarnation)?;
        rules::keys_of(commit).into_iter().try_for_each(|key| self.head(key).map(drop))
    }

    fn apply(&mut self, commit: &Commit) {
        let mut done: BTreeMap<&ProfileKey, Done> = BTreeMap::new();
        let mut shut_out = Vec::new();
        // Leases first: a version tells the load count, and a lease's seal is for the version,
        // after the commit.
        for change in &commit.changes {
            if let Change::Lease { key, lease, raise_epoch, .. } = change
                && let Some(head) = self.head_mut(key)
            {
                let done = done.entry(key).or_default();
                done.lease_before = Some(std::mem::replace(&mut head.lease, lease.clone()));
                (done.touched.rest, done.noticed) = (true, true);
                head.lease_revision += 1;
                head.epoch += u64::from(*raise_epoch);
                // The holder that is shut out may still ask for it.
                shut_out.extend(head.last_save.take_if(|_| *raise_epoch));
            }
        }
        // Pins before writes: a version that is pinned and replaced in one commit stays.
        let pins = |change: &&Change| matches!(change, Change::Pin { .. });
        let changes = commit.changes.iter();
        for change in changes.clone().filter(pins).chain(changes.filter(|change| !pins(change))) {
            match change.key() {
                Some(key) => self.apply_to_key(change, key, done.entry(key).or_default()),
                None => self.apply_to_server(change, commit.id),
            }
        }
        for change in &commit.changes {
            if let Change::Lease { key, seal: true, .. } = change
                && let Some(head) = self.head_mut(key).filter(|head| head.info.is_some())
            {
                head.flags |= SEALED;
            }
        }
        let applied = |last| (last, Outcome::Applied(None));
        self.writes.outcomes.extend(shut_out.into_iter().map(applied));
        self.keep_id(commit);
        for (key, Done { lease_before, touched, noticed }) in done {
            if touched.data || touched.rest {
                let all = self.writes.heads.entry(key.clone()).or_default();
                all.data |= touched.data;
                all.rest |= touched.rest;
            }
            if noticed && let Ok(head) = self.head(key) {
                let before = lease_before.as_ref().unwrap_or(&head.lease);
                for server in rules::notified(commit, key, before) {
                    self.writes.notices.insert((server, key.clone()), commit.id);
                }
            }
        }
    }

    fn apply_to_key(&mut self, change: &Change, key: &ProfileKey, done: &mut Done) {
        let now_ms = self.now_ms;
        match change {
            Change::Write { .. } => self.write(change, key, done),
            Change::AppendMessage { message, .. } => {
                let Some(head) = self.head_mut(key) else { return };
                head.last_message += 1;
                head.waiting += 1;
                let (index, id, payload) =
                    (head.last_message, message.id.clone(), message.payload.clone());
                let stored = StoredMessage {
                    index,
                    id,
                    payload,
                    locked: false,
                    revision: 1,
                    sent_ms: now_ms,
                };
                self.writes.messages.push((key.clone(), stored));
                self.inbox_changed(key, done);
            }
            Change::ReplaceInbox { last_message, messages, .. } => {
                self.replace_inbox(key, messages);
                let Some(head) = self.head_mut(key) else { return };
                head.last_message = head.last_message.max(*last_message);
                head.waiting = messages.len() as u64;
                self.inbox_changed(key, done);
            }
            Change::ChangeMessage { index, payload, .. } => {
                let edit = self.writes.edits.entry((key.clone(), *index)).or_default();
                edit.payload = Some(payload.clone());
                edit.revisions += 1;
                self.inbox_changed(key, done);
            }
            Change::LockMessage { index, .. } => {
                let Some(facts) =
                    self.messages.get_mut(&(key.clone(), *index)).filter(|facts| !facts.locked)
                else {
                    return;
                };
                facts.locked = true;
                self.writes.edits.entry((key.clone(), *index)).or_default().lock = Some(true);
                self.inbox_changed(key, done);
            }
            Change::RemoveMessage { index, receipt, .. } => {
                let edit = self.writes.edits.entry((key.clone(), *index)).or_default();
                (edit.removed, edit.receipt) = (true, *receipt);
                if let Some(head) = self.head_mut(key) {
                    head.waiting = head.waiting.saturating_sub(1);
                }
                self.inbox_changed(key, done);
            }
            Change::Pin { version, pinned, .. } => {
                let Some(head) = self.head_mut(key) else { return };
                match head.info.as_mut().filter(|info| info.number == *version) {
                    Some(info) => {
                        info.pinned = *pinned;
                        head.flags = (head.flags & !PINNED) | if *pinned { PINNED } else { 0 };
                        done.touched.rest = true;
                    }
                    None => self.writes.pins.push((key.clone(), *version, *pinned)),
                }
            }
            Change::Erase { .. } => {
                let Some(head) = self.head_mut(key) else { return };
                let waiting = std::mem::take(&mut head.waiting);
                self.writes.erased.push(key.clone());
                done.noticed |= self.has_history.contains(key);
                if waiting > 0 {
                    self.inbox_changed(key, done);
                }
            }
            _ => {}
        }
    }

    /// Messages that stay keep their content, those that go leave receipts.
    fn replace_inbox(&mut self, key: &ProfileKey, messages: &[StoredMessage]) {
        let mut before: BTreeMap<u64, Digest> =
            self.waiting.remove(key).unwrap_or_default().into_iter().collect();
        for message in messages {
            let stays = before.get(&message.index) == Some(&message.id.digest());
            match self.messages.get_mut(&(key.clone(), message.index)).filter(|_| stays) {
                Some(facts) => {
                    before.remove(&message.index);
                    let edit = self.writes.edits.entry((key.clone(), message.index)).or_default();
                    edit.payload = Some(message.payload.clone());
                    edit.revisions += message.revision.cast_signed() - facts.revision.cast_signed();
                    edit.lock = Some(message.locked);
                    *facts = MessageFacts { revision: message.revision, locked: message.locked };
                }
                None => self.writes.messages.push((key.clone(), message.clone())),
            }
        }
        for index in before.into_keys() {
            let edit = self.writes.edits.entry((key.clone(), index)).or_default();
            (edit.removed, edit.receipt) = (true, true);
        }
    }

    fn inbox_changed(&mut self, key: &ProfileKey, done: &mut Done) {
        if let Some(head) = self.head_mut(key) {
            head.inbox_revision += 1;
        }
        (done.touched.rest, done.noticed) = (true, true);
    }

    fn write(&mut self, change: &Change, key: &ProfileKey, done: &mut Done) {
        let Change::Write { value, user_ids, cause, author, keep_previous, seal, imported, .. } =
            change
        else {
            return;
        };
        let now_ms = self.now_ms;
        let Some(head) = self.heads.get_mut(key).and_then(|head| head.as_mut().ok()) else {
            return;
        };
        let value = match value {
            NewValue::Bytes(bytes) => Some(bytes.clone()),
            NewValue::Tombstone => None,
        };
        if head.info.is_some() && rules::keeps_previous(head.replaced(), *keep_previous, now_ms) {
            self.writes.history.push((key.clone(), head.flags & (REMOVED | IMPORTED | PINNED)));
        }
        let info = VersionInfo {
            number: head.version() + 1,
            label: imported.as_ref().and_then(|imported| imported.label.clone()),
            written_ms: imported.as_ref().map_or(now_ms, |imported| imported.written_ms),
            stored_ms: now_ms,
            superseded_ms: None,
            removed: value.is_none(),
            cause: *cause,
            author: author.clone(),
            load_count: head.lease.load_count,
            pinned: false,
            bytes: value.as_ref().map_or(0, |value| value.len() as u64),
        };
        if head.info.is_none() {
            head.created_ms = imported.as_ref().map_or(now_ms, |imported| imported.created_ms);
            done.touched.rest = true;
        }
        head.flags = if value.is_none() { REMOVED } else { 0 }
            | if imported.is_some() { IMPORTED } else { 0 }
            | if *seal { SEALED } else { 0 };
        head.info = Some(info);
        head.value = Value::Known(value);
        (done.touched.data, done.noticed) = (true, true);
        let packed: Vec<u8> = user_ids.iter().flat_map(|user| user.to_be_bytes()).collect();
        if packed != head.users {
            self.writes.users_gone.extend(users(&head.users).map(|user| (user, key.clone())));
            self.writes.users_new.extend(user_ids.iter().map(|user| (*user, key.clone())));
            head.users = packed;
            done.touched.rest = true;
        }
    }

    fn apply_to_server(&mut self, change: &Change, commit: CommitId) {
        let now_ms = self.now_ms;
        match change {
            Change::RegisterServer { id, .. } => {
                if let Some(row) = rules::new_server(change, now_ms) {
                    self.servers.insert(*id, row);
                    self.writes.registered.insert(*id);
                }
            }
            Change::RehostServer { id, .. } => {
                if let Some(row) = self.servers.get_mut(id) {
                    rules::renew_server(row, change, now_ms);
                    self.writes.rehosted.insert(*id);
                }
            }
            Change::RenewServer { id, acknowledged, .. } => {
                if let Some(row) = self.servers.get_mut(id) {
                    rules::renew_server(row, change, now_ms);
                    self.writes.renewed.insert(*id, commit);
                }
                let acknowledged =
                    acknowledged.iter().map(|notice| (*id, notice.key.clone(), notice.commit));
                self.writes.acknowledged.extend(acknowledged);
            }
            Change::MarkDead { id, .. } => {
                if let Some(row) = self.servers.get_mut(id).filter(|row| !row.dead) {
                    row.dead = true;
                    self.writes.died.insert(*id);
                }
            }
            Change::Abort { commit: other } if !self.outcomes.contains_key(other) => {
                self.writes.outcomes.insert(*other, Outcome::Aborted);
            }
            _ => {}
        }
    }

    /// The keys whose states a commit's answer shows.
    pub(super) fn shown<'c>(commit: &'c Commit, verdict: &'c Verdict) -> Vec<&'c ProfileKey> {
        match verdict {
            Verdict::Refused(_) | Verdict::Conflict(Fault::Server(..) | Fault::Commit(_)) => {
                Vec::new()
            }
            Verdict::Conflict(Fault::Key(_, key)) => vec![key],
            Verdict::Replied { .. } => rules::keys_of(commit),
        }
    }

    /// The answer to a commit.
    pub(super) fn answer(
        &self,
        commit: &Commit,
        verdict: Verdict,
        shown: &Shown,
    ) -> Result<CommitReply, StoreError> {
        let now_ms = self.now_ms;
        let conflict = |kind, state, server| {
            Err(StoreError::Conflict(Box::new(Conflict { kind, now_ms, state, server })))
        };
        let already_applied = match verdict {
            Verdict::Refused(err) => return Err(err),
            Verdict::Conflict(Fault::Key(kind, key)) => {
                return conflict(kind, Some(self.state(&key, commit, shown)?), None);
            }
            Verdict::Conflict(Fault::Server(kind, row)) => return conflict(kind, None, row),
            Verdict::Conflict(Fault::Commit(kind)) => return conflict(kind, None, None),
            Verdict::Replied { already_applied, .. } => already_applied,
        };
        let keys = rules::keys_of(commit);
        let states =
            keys.iter().map(|key| self.state(key, commit, shown)).collect::<Result<Vec<_>, _>>()?;
        let server = rules::server_of(commit).and_then(|id| self.servers.get(&id).cloned());
        let notices = rules::renewed(commit)
            .and_then(|id| shown.notices.get(&id).cloned())
            .unwrap_or_default();
        let mut notified = Vec::new();
        if !already_applied {
            for key in keys {
                let left = self
                    .writes
                    .notices
                    .iter()
                    .filter(|((_, of), id)| of == key && **id == commit.id);
                let living =
                    left.map(|(left, _)| left).filter(|left| shown.notified.contains(left));
                notified.extend(living.cloned());
            }
        }
        Ok(CommitReply { now_ms, already_applied, states, server, notices, notified })
    }

    fn state(
        &self,
        key: &ProfileKey,
        commit: &Commit,
        shown: &Shown,
    ) -> Result<KeyState, StoreError> {
        let head = self.head(key)?;
        let inbox = shown.inboxes.get(key).cloned().unwrap_or_default();
        Ok(head.state(commit.returning, self.holder_of(head), inbox))
    }

    fn holder_of(&self, head: &Head) -> Option<ServerRow> {
        let id = head.holder_id()?;
        self.servers.get(&id).or(head.holder.as_ref().filter(|row| row.id == id)).cloned()
    }
}

/// The users of a `head.users`.
pub(super) fn users(packed: &[u8]) -> impl Iterator<Item = i64> {
    packed.chunks_exact(8).map(|bytes| i64::from_be_bytes(bytes.try_into().unwrap_or_default()))
}
