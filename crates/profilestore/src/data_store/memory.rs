//! A store in memory, with every rule of the contract: for tests, simulation and mock profiles.
//!
//! It is durable only as long as the process. Ordered maps under one lock, so the same calls give
//! the same answers in the same order from run to run.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    fmt,
    ops::Bound,
    sync::Arc,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    Change, Commit, CommitId, CommitReply, Conflict, DataStore, Digest, Identity, Incarnation,
    KeyContents, KeyQuery, KeyState, LeaseState, MessageId, Notice, Order, Retention, Returning,
    ServerId, ServerRow, Snapshot, StoreError, StoredVersion, SweepCursor, SweepReport,
    VersionInfo, VersionLinks, VersionQuery, VersionRef,
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
    keys: BTreeMap<ProfileKey, KeyContents>,
    servers: BTreeMap<ServerId, Server>,
    notices: BTreeMap<ServerId, BTreeMap<ProfileKey, CommitId>>,
    outcomes: BTreeMap<CommitId, Outcome>,
    /// The outcomes by age, for the sweep.
    outcome_ages: VecDeque<(i64, CommitId)>,
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

    async fn read(
        &self,
        keys: &[ProfileKey],
        returning: Returning,
    ) -> Result<Snapshot, StoreError> {
        let state = self.state.lock();
        let states = keys.iter().map(|key| state.key_state(key, returning)).collect();
        Ok(Snapshot { now_ms: self.env.unix_ms(), states })
    }

    async fn version(
        &self,
        key: &ProfileKey,
        version: &VersionRef,
    ) -> Result<Option<StoredVersion>, StoreError> {
        Ok(self.state.lock().keys.get(key).and_then(|contents| contents.version(version)))
    }

    async fn versions(&self, query: &VersionQuery) -> Result<Vec<VersionInfo>, StoreError> {
        let state = self.state.lock();
        let Some(contents) = state.keys.get(&query.key) else { return Ok(Vec::new()) };
        let infos = contents.versions().filter(|info| query.wants(info));
        Ok(match query.order {
            Order::Ascending => infos.take(query.limit).cloned().collect(),
            Order::Descending => infos.rev().take(query.limit).cloned().collect(),
        })
    }

    async fn links(
        &self,
        key: &ProfileKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<VersionLinks>, StoreError> {
        let state = self.state.lock();
        let Some(contents) = state.keys.get(key) else { return Ok(Vec::new()) };
        Ok(contents.links(after).take(limit).cloned().collect())
    }

    async fn keys(&self, query: &KeyQuery) -> Result<Vec<KeyState>, StoreError> {
        let state = self.state.lock();
        let start = query.after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let keys =
            state.keys.range::<ProfileKey, _>((start, Bound::Unbounded)).map(|(key, contents)| {
                let state = state.key_state(key, Returning::HEAD);
                (state, contents.user_ids())
            });
        let wanted = keys.filter(|(state, user_ids)| query.wants(state, user_ids));
        Ok(wanted.map(|(state, _)| state).take(query.limit).collect())
    }

    async fn servers(&self) -> Result<(i64, Vec<ServerRow>), StoreError> {
        let state = self.state.lock();
        Ok((self.env.unix_ms(), state.servers.values().map(|server| server.row.clone()).collect()))
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<CommitReply, StoreError>> {
        let mut state = self.state.lock();
        commits.into_iter().map(|commit| state.commit(commit, self.env.unix_ms())).collect()
    }

    async fn commit_by(
        &self,
        commits: Vec<Commit>,
        _: Instant,
    ) -> Vec<Result<CommitReply, StoreError>> {
        // No commit waits here.
        self.commit(commits).await
    }

    async fn sweep(
        &self,
        retention: Retention,
        cursor: Option<SweepCursor>,
    ) -> Result<SweepReport, StoreError> {
        let mut state = self.state.lock();
        let now_ms = self.env.unix_ms();
        let after = match cursor {
            None => None,
            Some(SweepCursor(text)) if text.is_empty() => return Ok(state.sweep_outcomes(now_ms)),
            Some(SweepCursor(text)) => {
                Some(serde_json::from_str(&text).map_err(|err| StoreError::Invalid {
                    reason: format!(
                        "the sweep's cursor comes from another store: cursor=`{text}` error=`{err}`"
                    ),
                })?)
            }
        };
        Ok(state.sweep_keys(retention, after, now_ms))
    }
}

impl State {
    fn commit(&mut self, commit: Commit, now_ms: i64) -> Result<CommitReply, StoreError> {
        rules::check_commit(&commit)?;
        rules::check_incarnation(&commit, self.incarnation)?;
        let conflict = |kind, state, server| {
            Err(StoreError::Conflict(Box::new(Conflict { kind, now_ms, state, server })))
        };
        if let Some(outcome) = self.outcome_of(&commit) {
            return match rules::judge_known(&commit, outcome) {
                Some(kind) => conflict(kind, None, None),
                None => Ok(self.reply(&commit, now_ms, true, Vec::new())),
            };
        }
        let Ok(fault) = rules::judge(self, &commit, now_ms);
        match fault {
            Some(Fault::Key(kind, key)) => {
                return conflict(kind, Some(self.key_state(&key, commit.returning)), None);
            }
            Some(Fault::Server(kind, row)) => return conflict(kind, None, row),
            Some(Fault::Commit(kind)) => return conflict(kind, None, None),
            None => {}
        }
        if rules::only_checks(&commit) {
            return Ok(self.reply(&commit, now_ms, false, Vec::new()));
        }

        let Ok(links) = rules::links(self, &commit, now_ms);
        self.keep_last_saves(&commit, now_ms);
        let before: BTreeMap<ProfileKey, LeaseState> = rules::keys_of(&commit)
            .into_iter()
            .map(|key| {
                (
                    key.clone(),
                    self.keys.get(key).map(|contents| contents.lease().clone()).unwrap_or_default(),
                )
            })
            .collect();
        let mut changed: Vec<ProfileKey> = Vec::new();
        for change in rules::in_order(&commit) {
            let did = self.apply(change, now_ms);
            if let Some(key) = change.key().filter(|key| did && !changed.contains(key)) {
                changed.push(key.clone());
            }
        }
        for change in &commit.changes {
            if let Some(contents) = change.key().and_then(|key| self.keys.get_mut(key)) {
                contents.finish(change);
            }
        }
        for (key, links) in links {
            if let Some(contents) = self.keys.get_mut(&key) {
                contents.link(links);
            }
        }
        match rules::keys_of(&commit)[..] {
            [key] if rules::is_own_save(&commit, &before[key]) => {
                if let Some(contents) = self.keys.get_mut(key) {
                    contents.set_last_save((!defect!(LastSaveForgotten)).then_some(commit.id));
                }
            }
            _ => self.keep_outcome(commit.id, Outcome::Applied(commit.fingerprint), now_ms),
        }

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

    /// Applies one change whose preconditions hold. True when it changed a key's lease, data or
    /// inbox.
    fn apply(&mut self, change: &Change, now_ms: i64) -> bool {
        match change {
            Change::Check { .. } | Change::CheckHost { .. } => false,
            Change::RegisterServer { .. } => {
                if let Some(row) = rules::new_server(change, now_ms) {
                    self.servers.insert(row.id, Server { row, dead_since_ms: 0 });
                }
                false
            }
            Change::RehostServer { id, .. } => {
                if let Some(server) = self.servers.get_mut(id) {
                    rules::renew_server(&mut server.row, change, now_ms);
                }
                false
            }
            Change::RenewServer { id, acknowledged, .. } => {
                if let Some(server) = self.servers.get_mut(id) {
                    rules::renew_server(&mut server.row, change, now_ms);
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
            // A key that was never used holds nothing, and must not be listed afterwards.
            Change::Erase { key, .. } if !self.keys.contains_key(key) => false,
            change => change
                .key()
                .is_some_and(|key| self.keys.entry(key.clone()).or_default().apply(change, now_ms)),
        }
    }

    /// What became of a commit, if that is known.
    fn outcome_of(&self, commit: &Commit) -> Option<Outcome> {
        let kept = self.outcomes.get(&commit.id).copied();
        let last_save = |key: &_| Ok(self.keys.get(key).and_then(KeyContents::last_save));
        kept.or_else(|| {
            let Ok::<_, Infallible>(is_last) = rules::is_last_save(commit, last_save);
            is_last.then_some(Outcome::Applied(None))
        })
    }

    /// Keeps the last saves of the holders that a commit shuts out.
    fn keep_last_saves(&mut self, commit: &Commit, now_ms: i64) {
        for change in &commit.changes {
            if let Change::Lease { key, raise_epoch: true, .. } = change
                && let Some(contents) = self.keys.get_mut(key)
                && let Some(last) = contents.last_save()
            {
                contents.set_last_save(None);
                if !defect!(LastSaveNotHandedOn) {
                    self.keep_outcome(last, Outcome::Applied(None), now_ms);
                }
            }
        }
    }

    fn keep_outcome(&mut self, id: CommitId, outcome: Outcome, now_ms: i64) {
        if self.outcomes.insert(id, outcome).is_none() {
            self.outcome_ages.push_back((now_ms, id));
        }
    }

    fn reply(
        &self,
        commit: &Commit,
        now_ms: i64,
        already_applied: bool,
        notified: Vec<(ServerId, ProfileKey)>,
    ) -> CommitReply {
        let states = rules::keys_of(commit)
            .into_iter()
            .map(|key| self.key_state(key, commit.returning))
            .collect();
        let server = rules::server_of(commit)
            .and_then(|id| self.servers.get(&id))
            .map(|server| server.row.clone());
        let notices = rules::renewed(commit).map_or_else(Vec::new, |id| self.notices_of(id));
        CommitReply { now_ms, already_applied, states, server, notices, notified }
    }

    fn notices_of(&self, id: ServerId) -> Vec<Notice> {
        let mine = self.notices.get(&id).into_iter().flatten();
        mine.map(|(key, commit)| Notice { key: key.clone(), commit: *commit }).collect()
    }

    fn key_state(&self, key: &ProfileKey, returning: Returning) -> KeyState {
        let row_of = |id| self.servers.get(&id).map(|server| server.row.clone());
        match self.keys.get(key) {
            Some(contents) => contents.state(key, returning, row_of),
            None => KeyContents::default().state(key, returning, row_of),
        }
    }

    fn sweep_keys(
        &mut self,
        retention: Retention,
        after: Option<ProfileKey>,
        now_ms: i64,
    ) -> SweepReport {
        let start = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut report = SweepReport::default();
        let mut seen = 0;
        for (key, contents) in self.keys.range_mut::<ProfileKey, _>((start, Bound::Unbounded)) {
            let (versions, receipts) = contents.sweep(retention.history_ms, now_ms);
            report.versions += versions;
            report.receipts += receipts;
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
        Ok(self.keys.get(key).map_or_else(Counters::default, KeyContents::counters))
    }

    fn message(
        &mut self,
        key: &ProfileKey,
        index: u64,
    ) -> Result<Option<MessageFacts>, Self::Error> {
        Ok(self.keys.get(key).and_then(|contents| contents.message(index)))
    }

    fn message_id(
        &mut self,
        key: &ProfileKey,
        index: u64,
    ) -> Result<Option<MessageId>, Self::Error> {
        Ok(self.keys.get(key).and_then(|contents| contents.message_id(index)))
    }

    fn used_with(&mut self, key: &ProfileKey, id: &Digest) -> Result<Option<Digest>, Self::Error> {
        Ok(self.keys.get(key).and_then(|contents| contents.used_with(id)))
    }

    fn keeps_version(&mut self, key: &ProfileKey, number: u64) -> Result<bool, Self::Error> {
        Ok(self
            .keys
            .get(key)
            .is_some_and(|contents| contents.version(&VersionRef::Number(number)).is_some()))
    }

    fn server(&mut self, id: ServerId) -> Result<Option<ServerRow>, Self::Error> {
        Ok(self.servers.get(&id).map(|server| server.row.clone()))
    }

    fn outcome(&mut self, id: CommitId) -> Result<Option<Outcome>, Self::Error> {
        Ok(self.outcomes.get(&id).copied())
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
