//! The store as it truly is: a store in memory in which every commit that takes effect is seen, in
//! order, with what each key held before and after.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use profilestore::{
    ProfileKey,
    data_store::{
        Change, Commit, CommitReply, DataStore, Identity, KeyQuery, KeyState, LeaseState,
        MemoryStore, Retention, Returning, ServerRow, Snapshot, StoreError, StoredVersion,
        SweepCursor, SweepReport, VersionInfo, VersionLinks, VersionQuery, VersionRef,
    },
};

use crate::data::{Letter, Player};

/// What a key holds, decoded.
#[derive(Debug, Clone, Default)]
pub struct Side {
    pub epoch: u64,
    pub version: u64,
    pub info: Option<VersionInfo>,
    /// None when there is no profile.
    pub data: Option<Player>,
    pub inbox: Vec<Letter>,
    /// How many operators' edits wait for the holder.
    pub edits_waiting: usize,
    /// There is a value, and it is no profile.
    pub foreign: bool,
    pub lease: LeaseState,
}

impl Side {
    fn of(state: &KeyState) -> Self {
        let data = state.value.as_deref().and_then(Player::decode);
        Self {
            epoch: state.epoch,
            version: state.version,
            info: state.head.clone(),
            foreign: state.value.is_some() && data.is_none(),
            data,
            edits_waiting: state
                .inbox
                .iter()
                .flatten()
                .filter(|message| message.id.is_edit())
                .count(),
            inbox: state
                .inbox
                .iter()
                .flatten()
                .filter_map(|message| serde_json::from_slice(&message.payload).ok())
                .collect(),
            lease: state.lease.clone(),
        }
    }

    pub fn holder(&self) -> Option<&str> {
        self.lease.holder.as_ref().map(|holder| holder.session.as_str())
    }
}

/// A commit that took effect on a key.
#[derive(Debug)]
pub struct Step<'a> {
    pub key: &'a str,
    /// The store's time.
    pub store_ms: i64,
    /// Its history was erased.
    pub erased: bool,
    /// The commit declares a server dead.
    pub buried: bool,
    pub before: &'a Side,
    pub after: &'a Side,
}

/// Sees what happens in the store, while it happens.
pub trait Witness: Send + Sync {
    fn commit(&self, commit: &Commit, result: &Result<CommitReply, StoreError>, steps: &[Step<'_>]);
}

/// The store with its witness.
pub struct Watched {
    inner: Mutex<MemoryStore>,
    witness: Arc<dyn Witness>,
    sides: Mutex<std::collections::BTreeMap<ProfileKey, Side>>,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Watched")
    }
}

impl Watched {
    pub fn new(inner: MemoryStore, witness: Arc<dyn Witness>) -> Self {
        Self { inner: Mutex::new(inner), witness, sides: Mutex::default() }
    }

    pub fn inner(&self) -> MemoryStore {
        self.inner.lock().clone()
    }

    /// Puts a backup in the store's place.
    pub fn replace(&self, with: MemoryStore) {
        *self.inner.lock() = with;
        self.sides.lock().clear();
    }

    /// What a key holds now.
    pub async fn side(&self, key: &ProfileKey) -> Side {
        let known = self.sides.lock().get(key).cloned();
        match known {
            Some(side) => side,
            None => Side::of(&self.state(key).await),
        }
    }

    async fn state(&self, key: &ProfileKey) -> KeyState {
        let mut snapshot = self
            .inner()
            .read(std::slice::from_ref(key), Returning::ALL)
            .await
            .expect("memory can be read");
        snapshot.states.remove(0)
    }

    /// Never waits, so nothing comes between the looks and the commit.
    async fn commit_one(&self, commit: Commit) -> Result<CommitReply, StoreError> {
        let mut keys: Vec<ProfileKey> = Vec::new();
        for key in
            commit.changes.iter().filter_map(|change| change.key()).filter(|key| !key.is_reserved())
        {
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
        let mut before = Vec::new();
        for key in &keys {
            before.push(self.side(key).await);
        }
        let result = self.inner().commit(vec![commit.clone()]).await.remove(0);
        let applied = matches!(&result, Ok(reply) if !reply.already_applied);
        let mut after = Vec::new();
        if applied {
            for key in &keys {
                let side = Side::of(&self.state(key).await);
                self.sides.lock().insert(key.clone(), side.clone());
                after.push(side);
            }
        }
        let store_ms = match &result {
            Ok(reply) => reply.now_ms,
            Err(_) => 0,
        };
        let erased = |of: &ProfileKey| {
            commit
                .changes
                .iter()
                .any(|change| matches!(change, Change::Erase { key, .. } if key == of))
        };
        let buried = commit.changes.iter().any(|change| matches!(change, Change::MarkDead { .. }));
        let steps: Vec<Step<'_>> = keys
            .iter()
            .zip(before.iter().zip(&after))
            .map(|(key, (before, after))| Step {
                key: key.key(),
                store_ms,
                erased: erased(key),
                buried,
                before,
                after,
            })
            .collect();
        self.witness.commit(&commit, &result, &steps);
        result
    }
}

#[async_trait]
impl DataStore for Watched {
    async fn identity(&self) -> Result<Identity, StoreError> {
        self.inner().identity().await
    }

    async fn read(
        &self,
        keys: &[ProfileKey],
        returning: Returning,
    ) -> Result<Snapshot, StoreError> {
        self.inner().read(keys, returning).await
    }

    async fn version(
        &self,
        key: &ProfileKey,
        version: &VersionRef,
    ) -> Result<Option<StoredVersion>, StoreError> {
        self.inner().version(key, version).await
    }

    async fn versions(&self, query: &VersionQuery) -> Result<Vec<VersionInfo>, StoreError> {
        self.inner().versions(query).await
    }

    async fn links(
        &self,
        key: &ProfileKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<VersionLinks>, StoreError> {
        self.inner().links(key, after, limit).await
    }

    async fn keys(&self, query: &KeyQuery) -> Result<Vec<KeyState>, StoreError> {
        self.inner().keys(query).await
    }

    async fn servers(&self) -> Result<(i64, Vec<ServerRow>), StoreError> {
        self.inner().servers().await
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<CommitReply, StoreError>> {
        let mut results = Vec::new();
        for commit in commits {
            results.push(self.commit_one(commit).await);
        }
        results
    }

    async fn commit_by(
        &self,
        commits: Vec<Commit>,
        _: tokio::time::Instant,
    ) -> Vec<Result<CommitReply, StoreError>> {
        // No commit waits here.
        self.commit(commits).await
    }

    async fn sweep(
        &self,
        retention: Retention,
        cursor: Option<SweepCursor>,
    ) -> Result<SweepReport, StoreError> {
        self.inner().sweep(retention, cursor).await
    }
}
