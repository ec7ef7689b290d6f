//! Two ways to one store, used in turn, as two processes might.

use profilestore::{
    ProfileKey,
    data_store::{
        Commit, CommitReply, DataStore, Identity, KeyQuery, KeyState, Retention, Returning,
        ServerRow, Snapshot, StoreError, StoredVersion, SweepCursor, SweepReport, VersionInfo,
        VersionLinks, VersionQuery, VersionRef,
    },
};

/// Uses two stores in turn, as two processes might.
#[derive(Debug)]
pub struct InTurn<S> {
    stores: [S; 2],
    calls: std::sync::atomic::AtomicUsize,
}

impl<S> InTurn<S> {
    pub fn new(a: S, b: S) -> Self {
        Self { stores: [a, b], calls: 0.into() }
    }

    fn next(&self) -> &S {
        &self.stores[self.calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 2]
    }
}

#[async_trait::async_trait]
impl<S: DataStore> DataStore for InTurn<S> {
    async fn identity(&self) -> Result<Identity, StoreError> {
        self.next().identity().await
    }

    async fn read(
        &self,
        keys: &[ProfileKey],
        returning: Returning,
    ) -> Result<Snapshot, StoreError> {
        self.next().read(keys, returning).await
    }

    async fn version(
        &self,
        key: &ProfileKey,
        version: &VersionRef,
    ) -> Result<Option<StoredVersion>, StoreError> {
        self.next().version(key, version).await
    }

    async fn versions(&self, query: &VersionQuery) -> Result<Vec<VersionInfo>, StoreError> {
        self.next().versions(query).await
    }

    async fn keys(&self, query: &KeyQuery) -> Result<Vec<KeyState>, StoreError> {
        self.next().keys(query).await
    }

    async fn links(
        &self,
        key: &ProfileKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<VersionLinks>, StoreError> {
        self.next().links(key, after, limit).await
    }

    async fn servers(&self) -> Result<(i64, Vec<ServerRow>), StoreError> {
        self.next().servers().await
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<CommitReply, StoreError>> {
        self.next().commit(commits).await
    }

    async fn commit_by(
        &self,
        commits: Vec<Commit>,
        deadline: tokio::time::Instant,
    ) -> Vec<Result<CommitReply, StoreError>> {
        self.next().commit_by(commits, deadline).await
    }

    async fn sweep(
        &self,
        retention: Retention,
        cursor: Option<SweepCursor>,
    ) -> Result<SweepReport, StoreError> {
        self.next().sweep(retention, cursor).await
    }
}
