//! A store in memory, with every rule of the contract: for tests, simulation and mock profiles.
//!
//! It is durable only as long as the process. Ordered maps under one lock, so the same calls give the same answers in the same
//! order from run to run.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    ops::Bound,
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    Change, Commit, CommitId, CommitReply, Conflict, ConflictKind, DataStore, Digest, Identity, Incarnation, KeyFilter, KeyQuery,
    KeyState, LeaseState, NewValue, Notice, Order, Retention, Returning, ServerId, ServerRow, Snapshot, StoreError,
    StoredMessage, StoredVersion, SweepCursor, SweepReport, VersionInfo, VersionQuery, VersionRef,
    content::content_digest,
    rules::{self, Counters, Fault, MessageFacts, Outcome, View},
};
use crate::{env::Env, key::ProfileKey};

/// How many keys or outcomes a piece of a sweep looks at.
const SWEEP_PIECE: usize = 1000;

/// A store in memory. Cheap to clone; clones share their contents.
#[derive(Clone)]
pub struct MemoryStore {
    env: Env,
    state: Arc<Mutex<State>>,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryStore")
    }
}

#[cfg_attr(any(test, feature = "test-util"), derive(Clone))]
struct State {
    incarnation: Incarnation,
    keys: BTreeMap<ProfileKey, Record>,
    servers: BTreeMap<ServerId, Server>,
    notices: BTreeMap<ServerId, BTreeMap<ProfileKey, CommitId>>,
    outcomes: BTreeMap<CommitId, Outcome>,
    /// The outcomes by age, for the sweep.
    outcome_ages: VecDeque<(i64, CommitId)>,
}

#[derive(Default)]
#[cfg_attr(any(test, feature = "test-util"), derive(Clone))]
struct Record {
    epoch: u64,
    created_ms: i64,
    user_ids: Vec<i64>,
    lease: LeaseState,
    lease_revision: u64,
    inbox_revision: u64,
    last_message: u64,
    /// The kept versions by ascending number; the last one is the current one.
    versions: Vec<Version>,
    inbox: BTreeMap<u64, Message>,
    receipts: BTreeMap<Digest, Receipt>,
}

#[cfg_attr(any(test, feature = "test-util"), derive(Clone))]
struct Version {
    info: VersionInfo,
    value: Option<Bytes>,
    sealed: bool,
    imported: bool,
}

#[cfg_attr(any(test, feature = "test-util"), derive(Clone))]
struct Message {
    stored: StoredMessage,
    id: Digest,
    /// Of the payload that it was appended with.
    content: Digest,
}

#[cfg_attr(any(test, feature = "test-util"), derive(Clone))]
struct Receipt {
    content: Digest,
    made_ms: i64,
}

#[cfg_attr(any(test, feature = "test-util"), derive(Clone))]
struct Server {
    row: ServerRow,
    dead_since_ms: i64,
}

impl MemoryStore {
    /// An empty store with a new incarnation. Its clock is the environment's.
    pub fn new(env: Env) -> Self {
        let state = State {
            incarnation: Incarnation(env.uuid()),
            keys: BTreeMap::new(),
            servers: BTreeMap::new(),
            notices: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            outcome_ages: VecDeque::new(),
        };
        Self { env, state: Arc::new(Mutex::new(state)) }
    }

    /// A backup as it is after it was restored: the same contents under a new incarnation.
    #[cfg(any(test, feature = "test-util"))]
    #[must_use]
    pub fn backup(&self) -> Self {
        let mut state = self.state.lock().clone();
        state.incarnation = Incarnation(self.env.uuid());
        Self { env: self.env.clone(), state: Arc::new(Mutex::new(state)) }
    }
}

#[async_trait]
impl DataStore for MemoryStore {
    async fn identity(&self) -> Result<Identity, StoreError> {
        Ok(Identity { incarnation: self.state.lock().incarnation, now_ms: self.env.unix_ms() })
    }

    async fn read(&self, keys: &[ProfileKey], returning: Returning) -> Result<Snapshot, StoreError> {
        let state = self.state.lock();
        let states = keys.iter().map(|key| state.key_state(key, returning)).collect();
        Ok(Snapshot { now_ms: self.env.unix_ms(), states })
    }

    async fn version(&self, key: &ProfileKey, version: &VersionRef) -> Result<Option<StoredVersion>, StoreError> {
        let state = self.state.lock();
        let Some(record) = state.keys.get(key) else { return Ok(None) };
        let found = record.versions.iter().rev().find(|candidate| match version {
            VersionRef::Number(number) => candidate.info.number == *number,
            VersionRef::Label(label) => candidate.info.label.as_ref() == Some(label),
        });
        Ok(found.map(|version| StoredVersion { info: version.info.clone(), value: version.value.clone() }))
    }

    async fn versions(&self, query: &VersionQuery) -> Result<Vec<VersionInfo>, StoreError> {
        let state = self.state.lock();
        let Some(record) = state.keys.get(&query.key) else { return Ok(Vec::new()) };
        let wanted = |info: &&VersionInfo| {
            let beyond = query.after.is_none_or(|after| match query.order {
                Order::Ascending => info.number > after,
                Order::Descending => info.number < after,
            });
            beyond
                && query.from_ms.is_none_or(|from| info.written_ms >= from)
                && query.to_ms.is_none_or(|to| info.written_ms <= to)
        };
        let infos = record.versions.iter().map(|version| &version.info);
        Ok(match query.order {
            Order::Ascending => infos.filter(wanted).take(query.limit).cloned().collect(),
            Order::Descending => infos.rev().filter(wanted).take(query.limit).cloned().collect(),
        })
    }

    async fn keys(&self, query: &KeyQuery) -> Result<Vec<KeyState>, StoreError> {
        let state = self.state.lock();
        let start = query.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let wanted = |(key, record): &(&ProfileKey, &Record)| {
            query.store.as_ref().is_none_or(|store| key.store() == store)
                && query.scope.as_ref().is_none_or(|scope| key.scope() == scope)
                && match &query.filter {
                    KeyFilter::All => true,
                    KeyFilter::Prefix(prefix) => key.key().starts_with(prefix.as_str()),
                    KeyFilter::User(user) => record.user_ids.contains(user),
                    KeyFilter::UpdatedSince(since) => record.versions.last().is_some_and(|v| v.info.stored_ms >= *since),
                    KeyFilter::Held => rules::is_held(&record.lease),
                }
        };
        let keys = state.keys.range::<ProfileKey, _>((start, Bound::Unbounded)).filter(wanted).take(query.limit);
        Ok(keys.map(|(key, _)| state.key_state(key, Returning::HEAD)).collect())
    }

    async fn servers(&self) -> Result<(i64, Vec<ServerRow>), StoreError> {
        let state = self.state.lock();
        Ok((self.env.unix_ms(), state.servers.values().map(|server| server.row.clone()).collect()))
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<CommitReply, StoreError>> {
        let mut state = self.state.lock();
        commits.into_iter().map(|commit| state.commit(commit, self.env.unix_ms())).collect()
    }

    async fn commit_by(&self, commits: Vec<Commit>, _: Instant) -> Vec<Result<CommitReply, StoreError>> {
        // No commit waits here.
        self.commit(commits).await
    }

    async fn sweep(&self, retention: Retention, cursor: Option<SweepCursor>) -> Result<SweepReport, StoreError> {
        let mut state = self.state.lock();
        let now_ms = self.env.unix_ms();
        let after = match cursor {
            None => None,
            Some(SweepCursor(text)) if text.is_empty() => return Ok(state.sweep_outcomes(now_ms)),
            Some(SweepCursor(text)) => Some(serde_json::from_str(&text).map_err(|err| StoreError::Invalid {
                reason: format!("the sweep's cursor comes from another store: cursor=`{text}` error=`{err}`"),
            })?),
        };
        Ok(state.sweep_keys(retention, after, now_ms))
    }
}

impl State {
    fn commit(&mut self, commit: Commit, now_ms: i64) -> Result<CommitReply, StoreError> {
        rules::check_commit(&commit)?;
        rules::check_incarnation(&commit, self.incarnation)?;
        let conflict = |kind, state, server| Err(StoreError::Conflict(Box::new(Conflict { kind, now_ms, state, server })));
        match self.outcomes.get(&commit.id) {
            Some(Outcome::Applied) => return Ok(self.reply(&commit, now_ms, true, Vec::new())),
            Some(Outcome::Aborted) => return conflict(ConflictKind::Aborted, None, None),
            None => {}
        }
        let Ok(fault) = rules::judge(self, &commit, now_ms);
        match fault {
            Some(Fault::Key(kind, key)) => return conflict(kind, Some(self.key_state(&key, commit.returning)), None),
            Some(Fault::Server(row)) => return conflict(ConflictKind::Server, None, row),
            Some(Fault::Commit(kind)) => return conflict(kind, None, None),
            None => {}
        }
        if rules::only_checks(&commit) {
            return Ok(self.reply(&commit, now_ms, false, Vec::new()));
        }

        let before: BTreeMap<ProfileKey, LeaseState> = rules::keys_of(&commit)
            .into_iter()
            .map(|key| (key.clone(), self.keys.get(key).map(|record| record.lease.clone()).unwrap_or_default()))
            .collect();
        let mut changed: Vec<ProfileKey> = Vec::new();
        // Pins before writes: a version that is pinned and replaced in one commit stays.
        let pins = |change: &&Change| matches!(change, Change::Pin { .. });
        let changes = commit.changes.iter();
        for change in changes.clone().filter(pins).chain(changes.filter(|change| !pins(change))) {
            let did = self.apply(change, now_ms);
            if let Some(key) = change.key().filter(|key| did && !changed.contains(key)) {
                changed.push(key.clone());
            }
        }
        self.finish_versions(&commit);
        self.keep_outcome(commit.id, Outcome::Applied, now_ms);

        let mut notified = Vec::new();
        for key in changed {
            for server in rules::notified(&commit, &key, &before[&key]) {
                if self.servers.get(&server).is_some_and(|server| !server.row.dead) {
                    self.notices.entry(server).or_default().insert(key.clone(), commit.id);
                    notified.push((server, key.clone()));
                }
            }
        }
        Ok(self.reply(&commit, now_ms, false, notified))
    }

    /// Applies one change whose preconditions hold. True when it changed a key's lease, data or inbox.
    fn apply(&mut self, change: &Change, now_ms: i64) -> bool {
        match change {
            Change::Check { .. } => false,
            Change::Write { key, version, value, user_ids, cause, author, keep_previous, seal, imported, .. } => {
                let record = self.keys.entry(key.clone()).or_default();
                let (removed, value) = match value {
                    NewValue::Bytes(bytes) => (false, Some(bytes.clone())),
                    NewValue::Tombstone => (true, None),
                };
                let info = VersionInfo {
                    number: version + 1,
                    label: imported.as_ref().and_then(|imported| imported.label.clone()),
                    written_ms: imported.as_ref().map_or(now_ms, |imported| imported.written_ms),
                    stored_ms: now_ms,
                    superseded_ms: None,
                    removed,
                    cause: *cause,
                    author: author.clone(),
                    load_count: 0,
                    pinned: false,
                    bytes: value.as_ref().map_or(0, |value| value.len() as u64),
                };
                let new = Version { info, value, sealed: *seal, imported: imported.is_some() };
                match record.versions.last_mut() {
                    None => {
                        record.created_ms = imported.as_ref().map_or(now_ms, |imported| imported.created_ms);
                        record.versions.push(new);
                    }
                    Some(previous) if rules::keeps_previous(previous.replaced(), *keep_previous, now_ms) => {
                        previous.info.superseded_ms = Some(now_ms);
                        record.versions.push(new);
                    }
                    Some(previous) => *previous = new,
                }
                record.user_ids.clone_from(user_ids);
                true
            }
            Change::Lease { key, lease, raise_epoch, .. } => {
                let record = self.keys.entry(key.clone()).or_default();
                record.lease = lease.clone();
                record.lease_revision += 1;
                record.epoch += u64::from(*raise_epoch);
                if defect!(EpochFromSessionCount) {
                    record.epoch = lease.load_count;
                }
                true
            }
            Change::AppendMessage { key, message, .. } => {
                let record = self.keys.entry(key.clone()).or_default();
                record.last_message += 1;
                record.inbox_revision += 1;
                let stored = StoredMessage {
                    index: record.last_message,
                    id: message.id.clone(),
                    payload: message.payload.clone(),
                    locked: false,
                    revision: 1,
                    sent_ms: now_ms,
                };
                record.inbox.insert(stored.index, Message::new(stored));
                true
            }
            Change::ChangeMessage { key, index, payload, .. } => self.on_message(key, *index, |message| {
                message.stored.payload = payload.clone();
                message.stored.revision += 1;
                true
            }),
            Change::LockMessage { key, index, .. } => {
                self.on_message(key, *index, |message| !std::mem::replace(&mut message.stored.locked, true))
            }
            Change::RemoveMessage { key, index, receipt } => {
                let record = self.keys.entry(key.clone()).or_default();
                let Some(message) = record.inbox.remove(index) else { return false };
                record.inbox_revision += 1;
                if *receipt && !defect!(ReceiptForgotten) {
                    record.receipts.insert(message.id, Receipt { content: message.content, made_ms: now_ms });
                }
                true
            }
            Change::ReplaceInbox { key, last_message, messages, .. } => {
                let record = self.keys.entry(key.clone()).or_default();
                record.inbox_revision += 1;
                record.last_message = record.last_message.max(*last_message);
                let mut before = std::mem::take(&mut record.inbox);
                for message in messages {
                    let mut new = Message::new(message.clone());
                    if before.get(&message.index).is_some_and(|old| old.id == new.id) {
                        new.content = before.remove(&message.index).map_or(new.content, |old| old.content);
                    }
                    record.inbox.insert(message.index, new);
                }
                for gone in before.into_values() {
                    record.receipts.insert(gone.id, Receipt { content: gone.content, made_ms: now_ms });
                }
                true
            }
            Change::Pin { key, version, pinned } => {
                let record = self.keys.entry(key.clone()).or_default();
                if let Some(found) = record.versions.iter_mut().find(|found| found.info.number == *version) {
                    found.info.pinned = *pinned;
                }
                false
            }
            Change::Erase { key, .. } => {
                let Some(record) = self.keys.get_mut(key) else { return false };
                let current = record.versions.pop();
                let did = !record.versions.is_empty() || !record.inbox.is_empty();
                record.versions = current.into_iter().collect();
                record.inbox_revision += u64::from(!record.inbox.is_empty());
                for message in std::mem::take(&mut record.inbox).into_values() {
                    record.receipts.insert(message.id, Receipt { content: message.content, made_ms: now_ms });
                }
                did
            }
            Change::RegisterServer { id, place_id, job_id, lease_ms } => {
                let row = ServerRow {
                    id: *id,
                    place_id: *place_id,
                    job_id: job_id.clone(),
                    revision: 1,
                    lease_ms: *lease_ms,
                    started_ms: now_ms,
                    renewed_ms: now_ms,
                    dead: false,
                };
                self.servers.insert(*id, Server { row, dead_since_ms: 0 });
                false
            }
            Change::RenewServer { id, acknowledged, .. } => {
                if let Some(server) = self.servers.get_mut(id) {
                    server.row.revision += 1;
                    server.row.renewed_ms = now_ms;
                }
                let mine = self.notices.entry(*id).or_default();
                for notice in acknowledged {
                    if mine.get(&notice.key) == Some(&notice.commit) {
                        mine.remove(&notice.key);
                    }
                }
                false
            }
            Change::MarkDead { id, .. } => {
                if let Some(server) = self.servers.get_mut(id).filter(|server| !server.row.dead) {
                    server.row.dead = true;
                    server.dead_since_ms = now_ms;
                }
                false
            }
            Change::Abort { commit } => {
                self.keep_outcome(*commit, Outcome::Aborted, now_ms);
                false
            }
        }
    }

    /// Changes a message; the inbox's revision counts up when `change` says that it did something.
    fn on_message(&mut self, key: &ProfileKey, index: u64, change: impl FnOnce(&mut Message) -> bool) -> bool {
        let Some(record) = self.keys.get_mut(key) else { return false };
        let did = record.inbox.get_mut(&index).is_some_and(change);
        record.inbox_revision += u64::from(did);
        did
    }

    /// What a version says about the state after the whole commit: its load count and its seal.
    fn finish_versions(&mut self, commit: &Commit) {
        for change in &commit.changes {
            let Some(record) = change.key().and_then(|key| self.keys.get_mut(key)) else { continue };
            let load_count = record.lease.load_count;
            let Some(current) = record.versions.last_mut() else { continue };
            match change {
                Change::Write { .. } => current.info.load_count = load_count,
                Change::Lease { seal: true, .. } => current.sealed = true,
                _ => {}
            }
        }
    }

    fn keep_outcome(&mut self, id: CommitId, outcome: Outcome, now_ms: i64) {
        if self.outcomes.insert(id, outcome).is_none() {
            self.outcome_ages.push_back((now_ms, id));
        }
    }

    fn reply(&self, commit: &Commit, now_ms: i64, already_applied: bool, notified: Vec<(ServerId, ProfileKey)>) -> CommitReply {
        let states = rules::keys_of(commit).into_iter().map(|key| self.key_state(key, commit.returning)).collect();
        let server = rules::server_of(commit).and_then(|id| self.servers.get(&id)).map(|server| server.row.clone());
        let notices = rules::renewed(commit).map_or_else(Vec::new, |id| self.notices_of(id));
        CommitReply { now_ms, already_applied, states, server, notices, notified }
    }

    fn notices_of(&self, id: ServerId) -> Vec<Notice> {
        let mine = self.notices.get(&id).into_iter().flatten();
        mine.map(|(key, commit)| Notice { key: key.clone(), commit: *commit }).collect()
    }

    fn key_state(&self, key: &ProfileKey, returning: Returning) -> KeyState {
        let Some(record) = self.keys.get(key) else {
            let inbox = returning.inbox_unless.filter(|revision| *revision != 0).map(|_| Vec::new());
            return KeyState { inbox, ..KeyState::absent(key.clone()) };
        };
        let current = record.versions.last();
        let holder = record.lease.holder.as_ref().and_then(|holder| holder.server);
        let wants_inbox = returning.inbox_unless.is_some_and(|revision| revision != record.inbox_revision);
        KeyState {
            key: key.clone(),
            epoch: record.epoch,
            version: current.map_or(0, |version| version.info.number),
            created_ms: record.created_ms,
            head: current.map(|version| version.info.clone()),
            lease: record.lease.clone(),
            lease_revision: record.lease_revision,
            holder_server: holder.and_then(|id| self.servers.get(&id)).map(|server| server.row.clone()),
            inbox_revision: record.inbox_revision,
            last_message: record.last_message,
            inbox: wants_inbox.then(|| record.inbox.values().map(|message| message.stored.clone()).collect()),
            value: current.filter(|_| returning.value).and_then(|version| version.value.clone()),
        }
    }

    fn sweep_keys(&mut self, retention: Retention, after: Option<ProfileKey>, now_ms: i64) -> SweepReport {
        let start = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut report = SweepReport::default();
        let mut seen = 0;
        for (key, record) in self.keys.range_mut::<ProfileKey, _>((start, Bound::Unbounded)) {
            let (versions, receipts) = (record.versions.len(), record.receipts.len());
            record.versions.retain(|version| {
                let superseded = version.info.superseded_ms;
                version.info.pinned || superseded.is_none_or(|at| now_ms.saturating_sub(at) <= retention.history_ms)
            });
            record.receipts.retain(|_, receipt| now_ms.saturating_sub(receipt.made_ms) <= rules::RECEIPT_KEPT_MS);
            report.versions += (versions - record.versions.len()) as u64;
            report.receipts += (receipts - record.receipts.len()) as u64;
            seen += 1;
            if seen == SWEEP_PIECE {
                report.next = serde_json::to_string(key).ok().map(SweepCursor);
                return report;
            }
        }
        report.next = Some(SweepCursor(String::new()));
        report
    }

    fn sweep_outcomes(&mut self, now_ms: i64) -> SweepReport {
        let mut report = SweepReport::default();
        let old = |at: i64| now_ms.saturating_sub(at) > rules::OUTCOME_KEPT_MS;
        while let Some((_, id)) = self.outcome_ages.pop_front_if(|(at, _)| old(*at)) {
            self.outcomes.remove(&id);
            report.outcomes += 1;
            if report.outcomes == SWEEP_PIECE as u64 {
                report.next = Some(SweepCursor(String::new()));
                return report;
            }
        }
        let before = self.servers.len();
        self.servers.retain(|_, server| !server.row.dead || !old(server.dead_since_ms));
        report.servers = (before - self.servers.len()) as u64;
        let servers = &self.servers;
        self.notices.retain(|server, _| servers.contains_key(server));
        report
    }
}

impl View for State {
    type Error = std::convert::Infallible;

    fn counters(&mut self, key: &ProfileKey) -> Result<Counters, Self::Error> {
        Ok(self.keys.get(key).map_or_else(Counters::default, |record| Counters {
            epoch: record.epoch,
            version: record.versions.last().map_or(0, |version| version.info.number),
            lease_revision: record.lease_revision,
            inbox_revision: record.inbox_revision,
            waiting: record.inbox.len() as u64,
        }))
    }

    fn message(&mut self, key: &ProfileKey, index: u64) -> Result<Option<MessageFacts>, Self::Error> {
        let message = self.keys.get(key).and_then(|record| record.inbox.get(&index));
        Ok(message.map(|message| MessageFacts { revision: message.stored.revision, locked: message.stored.locked }))
    }

    fn used_with(&mut self, key: &ProfileKey, id: &Digest) -> Result<Option<Digest>, Self::Error> {
        let Some(record) = self.keys.get(key) else { return Ok(None) };
        let waiting = record.inbox.values().find(|message| message.id == *id).map(|message| message.content);
        Ok(waiting.or_else(|| record.receipts.get(id).map(|receipt| receipt.content)))
    }

    fn keeps_version(&mut self, key: &ProfileKey, number: u64) -> Result<bool, Self::Error> {
        let record = self.keys.get(key);
        Ok(record.is_some_and(|record| record.versions.iter().any(|version| version.info.number == number)))
    }

    fn server(&mut self, id: ServerId) -> Result<Option<ServerRow>, Self::Error> {
        Ok(self.servers.get(&id).map(|server| server.row.clone()))
    }

    fn outcome(&mut self, id: CommitId) -> Result<Option<Outcome>, Self::Error> {
        Ok(self.outcomes.get(&id).copied())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{data_store::conformance::Subject, env::ManualClock};

    async fn subject() -> Subject {
        let clock = ManualClock::default();
        Subject::new(Arc::new(MemoryStore::new(clock.env(1))), move |ms| clock.advance(ms))
    }

    crate::store_conformance!(subject);
}
