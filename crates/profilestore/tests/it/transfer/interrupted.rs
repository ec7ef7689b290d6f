//! An import whose store fails in the middle doubles nothing and can be repeated.

use super::*;

/// A store that fails for a while.
#[derive(Debug)]
struct Flaky {
    inner: MemoryStore,
    fault: Fault,
    calls: AtomicU32,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The first two batches are applied, and their answers lost.
    ReplyLost,
    /// From the second batch on, only the first ten commits are applied.
    OutageIn(usize),
}

#[async_trait]
impl DataStore for Flaky {
    async fn identity(&self) -> Result<Identity, StoreError> {
        self.inner.identity().await
    }
    async fn read(
        &self,
        keys: &[ProfileKey],
        returning: Returning,
    ) -> Result<Snapshot, StoreError> {
        self.inner.read(keys, returning).await
    }
    async fn version(
        &self,
        key: &ProfileKey,
        version: &VersionRef,
    ) -> Result<Option<StoredVersion>, StoreError> {
        self.inner.version(key, version).await
    }
    async fn versions(&self, query: &VersionQuery) -> Result<Vec<VersionInfo>, StoreError> {
        self.inner.versions(query).await
    }
    async fn links(
        &self,
        key: &ProfileKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<VersionLinks>, StoreError> {
        self.inner.links(key, after, limit).await
    }

    async fn keys(&self, query: &KeyQuery) -> Result<Vec<KeyState>, StoreError> {
        self.inner.keys(query).await
    }
    async fn servers(&self) -> Result<(i64, Vec<ServerRow>), StoreError> {
        self.inner.servers().await
    }
    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<CommitReply, StoreError>> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        match self.fault {
            Fault::ReplyLost => {
                let ids: Vec<_> = commits.iter().map(|commit| commit.id).collect();
                let results = self.inner.commit(commits).await;
                let lost =
                    |commit| Err(StoreError::Indeterminate { commit, reason: "no answer".into() });
                if call < 2 { ids.into_iter().map(lost).collect() } else { results }
            }
            Fault::OutageIn(at) => {
                let all = commits.len();
                let some = if call == 0 { at.min(all) } else { 0 };
                let mut results = self.inner.commit(commits.into_iter().take(some).collect()).await;
                results
                    .resize_with(all, || Err(StoreError::Unavailable { reason: "outage".into() }));
                results
            }
        }
    }
    async fn commit_by(
        &self,
        commits: Vec<Commit>,
        _: tokio::time::Instant,
    ) -> Vec<Result<CommitReply, StoreError>> {
        self.commit(commits).await
    }

    async fn sweep(
        &self,
        retention: Retention,
        cursor: Option<SweepCursor>,
    ) -> Result<SweepReport, StoreError> {
        self.inner.sweep(retention, cursor).await
    }
}

#[tokio::test(start_paused = true)]
async fn lost_answers_double_nothing() {
    let store = Flaky { inner: memory(), fault: Fault::ReplyLost, calls: AtomicU32::new(0) };
    let report = imported(&store, records()).await;
    assert_eq!((report.versions, report.keys, report.skipped.len()), (1959, 209, 0));
    assert_same_lines(parsed(&records()), exported(&store.inner).await.0);
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_import_is_completed_by_repeating_it() {
    // In the middle of the history of a key that is held.
    let store = Flaky { inner: memory(), fault: Fault::OutageIn(200), calls: AtomicU32::new(0) };
    let error = try_import(&store, &records()).await.unwrap_err();
    assert!(matches!(error, TransferError::Store(StoreError::Unavailable { .. })), "{error}");
    assert_eq!(exported(&store.inner).await.1.versions, 200);
    let keys =
        KeyQuery { store: None, scope: None, filter: KeyFilter::All, after: None, limit: 1000 };
    let keys = store.keys(&keys).await.unwrap();
    assert_eq!(keys.iter().filter(|state| state.epoch == 0).count(), 1, "one key is there in part");

    let report = imported(&store.inner, records()).await;
    assert_eq!((report.versions, report.keys + report.already_there.keys), (1759, 209));
    assert_eq!(report.skipped, vec![]);
    assert_same_lines(parsed(&records()), exported(&store.inner).await.0);
}
