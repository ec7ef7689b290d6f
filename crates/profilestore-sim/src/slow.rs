//! A store that takes its time: it carries out one call after the other, each for so long,
//! whichever server it comes from. More calls than it can take wait in front of it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use profilestore::{
    ProfileKey,
    data_store::{
        Change, Commit, CommitReply, DataStore, Identity, KeyQuery, KeyState, NewValue, Retention,
        Returning, ServerRow, Snapshot, StoreError, StoredVersion, SweepCursor, SweepReport,
        VersionInfo, VersionLinks, VersionQuery, VersionRef,
    },
};
use tokio::{sync::Notify, time::Instant};

use crate::world::life::{Plan, SLOW};

/// The store's pace. Clones are the same store.
#[derive(Debug, Clone)]
pub struct Pace(Arc<Line>);

/// All that waits for the store.
#[derive(Debug)]
struct Line {
    turns: Mutex<Turns>,
    healed: Notify,
}

#[derive(Debug)]
struct Turns {
    /// How long a commit takes. A read takes a tenth of that.
    commit: Duration,
    /// When all that waits is done.
    free_at: Instant,
}

impl Pace {
    pub fn new(commit: Duration) -> Self {
        let turns = Mutex::new(Turns { commit, free_at: Instant::now() });
        Self(Arc::new(Line { turns, healed: Notify::new() }))
    }

    /// From now on nothing waits, nor does what stands in the line already.
    pub fn heal(&self) {
        *self.0.turns.lock() = Turns { commit: Duration::ZERO, free_at: Instant::now() };
        self.0.healed.notify_waiters();
    }

    /// Takes a turn for so many commits; when it is over.
    fn turn(&self, commits: f64) -> Option<Instant> {
        let turns = &mut *self.0.turns.lock();
        if turns.commit.is_zero() {
            return None;
        }
        turns.free_at = turns.free_at.max(Instant::now()) + turns.commit.mul_f64(commits);
        Some(turns.free_at)
    }
}

/// One server's way to the slow store.
pub struct SlowStore {
    inner: Arc<dyn DataStore>,
    pace: Pace,
    plan: Plan,
    under_way: Bytes,
}

/// The bytes of a server's commits that the store has not answered, and the most that ever were.
#[derive(Debug, Clone, Default)]
pub struct Bytes(Arc<(AtomicU64, AtomicU64)>);

impl Bytes {
    fn send(&self, bytes: u64) {
        let now = self.0.0.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.0.1.fetch_max(now, Ordering::Relaxed);
    }

    fn answered(&self, bytes: u64) {
        self.0.0.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The most at once.
    pub fn most(&self) -> u64 {
        self.0.1.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for SlowStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlowStore").field("pace", &self.pace).finish_non_exhaustive()
    }
}

fn size(commits: &[Commit]) -> u64 {
    let changes = commits.iter().flat_map(|commit| &commit.changes);
    let bytes = changes.map(|change| match change {
        Change::Write { value: NewValue::Bytes(bytes), .. } => bytes.len(),
        Change::AppendMessage { message, .. } => message.payload.len(),
        _ => 0,
    });
    bytes.sum::<usize>() as u64
}

impl SlowStore {
    pub fn new(inner: Arc<dyn DataStore>, pace: Pace, plan: Plan, under_way: Bytes) -> Self {
        Self { inner, pace, plan, under_way }
    }

    async fn served(&self, commits: f64) {
        let Some(at) = self.pace.turn(commits) else { return };
        if at - Instant::now() > SLOW {
            self.plan.trouble_until(at);
        }
        tokio::select! {
            biased;
            () = self.pace.0.healed.notified() => {}
            () = tokio::time::sleep_until(at) => {}
        }
    }
}

/// A read's part of a commit's time.
const READ: f64 = 0.1;

#[async_trait]
impl DataStore for SlowStore {
    async fn identity(&self) -> Result<Identity, StoreError> {
        self.inner.identity().await
    }

    async fn read(
        &self,
        keys: &[ProfileKey],
        returning: Returning,
    ) -> Result<Snapshot, StoreError> {
        self.served(READ).await;
        self.inner.read(keys, returning).await
    }

    async fn version(
        &self,
        key: &ProfileKey,
        version: &VersionRef,
    ) -> Result<Option<StoredVersion>, StoreError> {
        self.served(READ).await;
        self.inner.version(key, version).await
    }

    async fn versions(&self, query: &VersionQuery) -> Result<Vec<VersionInfo>, StoreError> {
        self.served(READ).await;
        self.inner.versions(query).await
    }

    async fn links(
        &self,
        key: &ProfileKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<VersionLinks>, StoreError> {
        self.served(READ).await;
        self.inner.links(key, after, limit).await
    }

    async fn keys(&self, query: &KeyQuery) -> Result<Vec<KeyState>, StoreError> {
        self.served(READ).await;
        self.inner.keys(query).await
    }

    async fn servers(&self) -> Result<(i64, Vec<ServerRow>), StoreError> {
        self.inner.servers().await
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<CommitReply, StoreError>> {
        let bytes = size(&commits);
        self.under_way.send(bytes);
        let _answered = Answered(&self.under_way, bytes);
        self.served(commits.len() as f64).await;
        self.inner.commit(commits).await
    }

    async fn commit_by(
        &self,
        commits: Vec<Commit>,
        deadline: Instant,
    ) -> Vec<Result<CommitReply, StoreError>> {
        let bytes = size(&commits);
        self.under_way.send(bytes);
        let _answered = Answered(&self.under_way, bytes);
        if tokio::time::timeout_at(deadline, self.served(commits.len() as f64)).await.is_err() {
            let late =
                |_| Err(StoreError::Unavailable { reason: "its turn did not come in time".into() });
            return commits.iter().map(late).collect();
        }
        self.inner.commit_by(commits, deadline).await
    }

    async fn sweep(
        &self,
        retention: Retention,
        cursor: Option<SweepCursor>,
    ) -> Result<SweepReport, StoreError> {
        self.inner.sweep(retention, cursor).await
    }
}

/// The caller has its answer, or has stopped waiting.
struct Answered<'a>(&'a Bytes, u64);

impl Drop for Answered<'_> {
    fn drop(&mut self) {
        self.0.answered(self.1);
    }
}
