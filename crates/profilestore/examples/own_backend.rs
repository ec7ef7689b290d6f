//! A backend of one's own, in memory: everything that the contract asks for, in one file.
//!
//! The library brings the rules; the backend shows its state to them, and keeps what they allow.
//! This one keeps each key in one piece, so `KeyContents` says what a change makes of it.
//! `tests/it/own_backend.rs` runs the conformance suite on it. Read `docs/backends.md` beside it.

use std::{collections::BTreeMap, convert::Infallible, mem, sync::Mutex};

use profilestore::{
    GameServer, ProfileKey,
    data_store::{
        Change, Commit, CommitId, CommitReply, Conflict, DataStore, Digest, Identity, Incarnation,
        KeyContents, KeyQuery, KeyState, MessageId, Notice, Order, Retention, Returning, ServerId,
        ServerRow, Snapshot, StoreError, StoredVersion, SweepCursor, SweepReport, VersionInfo,
        VersionLinks, VersionQuery, VersionRef,
        rules::{self, Counters, Fault, MessageFacts, Outcome, View},
    },
    env::Env,
};
use tokio::time::Instant;

#[derive(Debug)]
pub struct OwnStore {
    env: Env,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    incarnation: Incarnation,
    keys: BTreeMap<ProfileKey, KeyContents>,
    /// Each with the time of its death.
    servers: BTreeMap<ServerId, (ServerRow, i64)>,
    notices: BTreeMap<(ServerId, ProfileKey), CommitId>,
    /// Each with its time.
    outcomes: BTreeMap<CommitId, (Outcome, i64)>,
}

impl OwnStore {
    pub fn new(env: Env) -> Self {
        let (incarnation, notices) = (Incarnation(env.uuid()), BTreeMap::new());
        let (keys, servers, outcomes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { env, state: Mutex::new(State { incarnation, keys, servers, notices, outcomes }) }
    }

    fn with<R>(&self, work: impl FnOnce(&mut State, i64) -> R) -> R {
        work(&mut self.state.lock().expect("no call panics"), self.env.unix_ms())
    }
}

#[async_trait::async_trait]
impl DataStore for OwnStore {
    async fn identity(&self) -> Result<Identity, StoreError> {
        Ok(self.with(|state, now_ms| Identity { incarnation: state.incarnation, now_ms }))
    }

    async fn read(
        &self,
        keys: &[ProfileKey],
        returning: Returning,
    ) -> Result<Snapshot, StoreError> {
        Ok(self.with(|state, now_ms| Snapshot {
            now_ms,
            states: keys.iter().map(|key| state.show(key, returning)).collect(),
        }))
    }

    async fn version(
        &self,
        key: &ProfileKey,
        wanted: &VersionRef,
    ) -> Result<Option<StoredVersion>, StoreError> {
        Ok(self.with(|state, _| state.keys.get(key)?.version(wanted)))
    }

    async fn versions(&self, query: &VersionQuery) -> Result<Vec<VersionInfo>, StoreError> {
        Ok(self.with(|state, _| {
            let kept = state.keys.get(&query.key).into_iter().flat_map(KeyContents::versions);
            let mut found: Vec<_> = kept.filter(|info| query.wants(info)).cloned().collect();
            if query.order == Order::Descending {
                found.reverse();
            }
            found.truncate(query.limit);
            found
        }))
    }

    async fn links(
        &self,
        key: &ProfileKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<VersionLinks>, StoreError> {
        Ok(self.with(|state, _| {
            let held = state.keys.get(key);
            held.into_iter().flat_map(|held| held.links(after)).take(limit).cloned().collect()
        }))
    }

    async fn keys(&self, query: &KeyQuery) -> Result<Vec<KeyState>, StoreError> {
        Ok(self.with(|state, _| {
            let states =
                state.keys.iter().map(|(key, held)| (state.show(key, Returning::HEAD), held));
            states
                .filter(|(state, held)| query.wants(state, held.user_ids()))
                .map(|(state, _)| state)
                .take(query.limit)
                .collect()
        }))
    }

    async fn servers(&self) -> Result<(i64, Vec<ServerRow>), StoreError> {
        Ok(self.with(|state, now_ms| {
            (now_ms, state.servers.values().map(|(row, _)| row.clone()).collect())
        }))
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<CommitReply, StoreError>> {
        self.with(|state, now_ms| {
            commits.iter().map(|commit| state.commit(commit, now_ms)).collect()
        })
    }

    async fn commit_by(
        &self,
        commits: Vec<Commit>,
        _: Instant,
    ) -> Vec<Result<CommitReply, StoreError>> {
        self.commit(commits).await // No commit waits here.
    }

    async fn sweep(
        &self,
        retention: Retention,
        _: Option<SweepCursor>,
    ) -> Result<SweepReport, StoreError> {
        Ok(self.with(|state, now_ms| state.sweep(retention, now_ms)))
    }
}

impl State {
    /// The heart of a backend: judge a commit against the state before it, then apply all of it, in
    /// one transaction.
    fn commit(&mut self, commit: &Commit, now_ms: i64) -> Result<CommitReply, StoreError> {
        rules::check_commit(commit)?;
        rules::check_incarnation(commit, self.incarnation)?;
        let conflict = |kind, state, server| {
            Err(StoreError::Conflict(Box::new(Conflict { kind, now_ms, state, server })))
        };
        if let Some((outcome, _)) = self.outcomes.get(&commit.id) {
            return match rules::judge_known(commit, *outcome) {
                Some(kind) => conflict(kind, None, None),
                None => Ok(self.reply(commit, now_ms, true, Vec::new())),
            };
        }
        let Ok(fault) = rules::judge(self, commit, now_ms);
        match fault {
            Some(Fault::Key(kind, key)) => {
                return conflict(kind, Some(self.show(&key, commit.returning)), None);
            }
            Some(Fault::Server(kind, row)) => return conflict(kind, None, row),
            Some(Fault::Commit(kind)) => return conflict(kind, None, None),
            None if rules::only_checks(commit) => {
                return Ok(self.reply(commit, now_ms, false, Vec::new()));
            }
            None => {}
        }
        let lease_of = |key: &ProfileKey| {
            self.keys.get(key).map(|held| held.lease().clone()).unwrap_or_default()
        };
        let before: Vec<_> =
            rules::keys_of(commit).into_iter().map(|key| (key.clone(), lease_of(key))).collect();
        let Ok(links) = rules::links(self, commit, now_ms);
        let changed: Vec<_> = rules::in_order(commit)
            .filter(|change| self.apply(change, now_ms))
            .filter_map(Change::key)
            .collect();
        for change in &commit.changes {
            if let Some(held) = change.key().and_then(|key| self.keys.get_mut(key)) {
                held.finish(change);
            }
        }
        for (key, links) in links {
            self.keys.entry(key).or_default().link(links);
        }
        self.outcomes.entry(commit.id).or_insert((Outcome::Applied(commit.fingerprint), now_ms));
        let mut notified = Vec::new();
        for (key, lease) in before.iter().filter(|(key, _)| changed.contains(&key)) {
            for server in rules::notified(commit, key, lease) {
                if self.servers.get(&server).is_some_and(|(row, _)| !row.dead) {
                    self.notices.insert((server, key.clone()), commit.id);
                    notified.push((server, key.clone()));
                }
            }
        }
        Ok(self.reply(commit, now_ms, false, notified))
    }

    /// Applies one change whose preconditions hold. True when it changed a key's lease, data or
    /// inbox.
    fn apply(&mut self, change: &Change, now_ms: i64) -> bool {
        match change {
            Change::RegisterServer { id, .. } => {
                let row = rules::new_server(change, now_ms).expect("it is a registration");
                self.servers.insert(*id, (row, 0));
            }
            Change::RehostServer { id, .. } => {
                let (row, _) = self.servers.get_mut(id).expect("it was judged");
                rules::renew_server(row, change, now_ms);
            }
            Change::RenewServer { id, acknowledged, .. } => {
                let done = |(server, key): &(ServerId, ProfileKey), commit: &CommitId| {
                    server == id
                        && acknowledged
                            .iter()
                            .any(|notice| (&notice.key, &notice.commit) == (key, commit))
                };
                self.notices.retain(|notice, commit| !done(notice, commit));
                let (row, _) = self.servers.get_mut(id).expect("it was judged");
                rules::renew_server(row, change, now_ms);
            }
            Change::MarkDead { id, .. } => {
                let (row, since_ms) = self.servers.get_mut(id).expect("it was judged");
                if !mem::replace(&mut row.dead, true) {
                    *since_ms = now_ms;
                }
            }
            Change::Abort { commit } => {
                _ = self.outcomes.insert(*commit, (Outcome::Aborted, now_ms))
            }
            Change::Check { .. } | Change::CheckHost { .. } => {}
            Change::Erase { key, .. } if !self.keys.contains_key(key) => {}
            change => {
                return change.key().is_some_and(|key| {
                    self.keys.entry(key.clone()).or_default().apply(change, now_ms)
                });
            }
        }
        false
    }

    fn show(&self, key: &ProfileKey, returning: Returning) -> KeyState {
        let row_of = |id| self.servers.get(&id).map(|(row, _)| row.clone());
        match self.keys.get(key) {
            Some(held) => held.state(key, returning, row_of),
            None => KeyContents::default().state(key, returning, row_of),
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
            .map(|key| self.show(key, commit.returning))
            .collect();
        let server = rules::server_of(commit)
            .and_then(|id| self.servers.get(&id))
            .map(|(row, _)| row.clone());
        let mine =
            self.notices.iter().filter(|((server, _), _)| Some(*server) == rules::renewed(commit));
        let notices =
            mine.map(|((_, key), commit)| Notice { key: key.clone(), commit: *commit }).collect();
        CommitReply { now_ms, already_applied, states, server, notices, notified }
    }

    fn sweep(&mut self, retention: Retention, now_ms: i64) -> SweepReport {
        let (mut report, older) =
            (SweepReport::default(), |at: i64, age: i64| now_ms.saturating_sub(at) > age);
        for key in self.keys.values_mut() {
            let (versions, receipts) = key.sweep(retention.history_ms, now_ms);
            (report.versions, report.receipts) =
                (report.versions + versions, report.receipts + receipts);
        }
        report.outcomes =
            self.outcomes.extract_if(.., |_, (_, at)| older(*at, rules::OUTCOME_KEPT_MS)).count()
                as u64;
        let gone = |row: &ServerRow, since_ms| row.dead && older(since_ms, rules::OUTCOME_KEPT_MS);
        report.servers =
            self.servers.extract_if(.., |_, (row, since_ms)| gone(row, *since_ms)).count() as u64;
        self.notices.retain(|(server, _), _| self.servers.contains_key(server));
        report
    }
}

/// What the rules need to see.
impl View for State {
    type Error = Infallible;

    fn counters(&mut self, key: &ProfileKey) -> Result<Counters, Infallible> {
        Ok(self.keys.get(key).map_or_else(Counters::default, KeyContents::counters))
    }

    fn message(
        &mut self,
        key: &ProfileKey,
        index: u64,
    ) -> Result<Option<MessageFacts>, Infallible> {
        Ok(self.keys.get(key).and_then(|held| held.message(index)))
    }

    fn message_id(
        &mut self,
        key: &ProfileKey,
        index: u64,
    ) -> Result<Option<MessageId>, Infallible> {
        Ok(self.keys.get(key).and_then(|held| held.message_id(index)))
    }

    fn used_with(&mut self, key: &ProfileKey, id: &Digest) -> Result<Option<Digest>, Infallible> {
        Ok(self.keys.get(key).and_then(|held| held.used_with(id)))
    }

    fn keeps_version(&mut self, key: &ProfileKey, number: u64) -> Result<bool, Infallible> {
        Ok(self
            .keys
            .get(key)
            .is_some_and(|held| held.version(&VersionRef::Number(number)).is_some()))
    }

    fn server(&mut self, id: ServerId) -> Result<Option<ServerRow>, Infallible> {
        Ok(self.servers.get(&id).map(|(row, _)| row.clone()))
    }

    fn outcome(&mut self, id: CommitId) -> Result<Option<Outcome>, Infallible> {
        Ok(self.outcomes.get(&id).map(|(outcome, _)| *outcome))
    }
}

/// A game server on it.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = GameServer::builder(OwnStore::new(Env::system())).start().await?;
    let scores = server.store::<BTreeMap<String, u64>>("Scores")?;
    let profile = scores.start_session("user-1").await?;
    profile.update(|data| data.insert("level-1".into(), 700))?;
    profile.end_session().await?;
    println!("stored: {:?}", scores.get("user-1").await?.map(|profile| profile.data));
    assert!(server.shutdown().await.is_complete());
    Ok(())
}
