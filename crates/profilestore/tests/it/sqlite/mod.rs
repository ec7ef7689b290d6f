//! The SQLite store: the conformance suite, and what only a file can suffer.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use profilestore::{
    ProfileKey,
    data_store::{
        Cause, Change, Commit, CommitId, DataStore, DataStoreExt as _, KeyState, NewValue, Returning, SqliteOptions, SqliteStore,
        StoreError, conformance::Subject,
    },
    env::{Env, ManualClock},
};
use tempfile::TempDir;

mod backups;
mod erase;
mod files;
mod hints;
mod processes;
mod trades;

/// The suite on one store, and on a file that two stores share and use in turn.
mod conformance {
    use super::subject;

    profilestore::store_conformance!(subject);
}

mod conformance_shared {
    use super::shared_subject;

    profilestore::store_conformance!(shared_subject);
}

async fn subject() -> Subject {
    let (dir, clock) = (folder(), ManualClock::default());
    let store = SqliteStore::open(path(&dir), timed(&clock)).expect("the store opens");
    Subject::new(Arc::new(store), move |ms| clock.advance(ms)).keeping(dir)
}

async fn shared_subject() -> Subject {
    let (dir, clock) = (folder(), ManualClock::default());
    let [a, b] = [1, 2].map(|_| SqliteStore::open(path(&dir), timed(&clock)).expect("the store opens"));
    Subject::new(Arc::new(InTurn::new(a, b)), move |ms| clock.advance(ms)).keeping(dir)
}

fn timed(clock: &ManualClock) -> SqliteOptions {
    SqliteOptions { env: clock.env(1), ..fast() }
}

/// Without syncing: these tests crash processes, never the machine.
fn fast() -> SqliteOptions {
    SqliteOptions { durable: false, ..SqliteOptions::default() }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn path(dir: &TempDir) -> std::path::PathBuf {
    dir.path().join("players.db")
}

fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, fast()).expect("the store opens")
}

fn key(name: &str) -> ProfileKey {
    ProfileKey::new("PlayerData", "global", name).expect("a valid name")
}

async fn make(store: &dyn DataStore, changes: Vec<Change>) -> Commit {
    let incarnation = store.identity().await.expect("the store tells who it is").incarnation;
    Commit { id: CommitId(Env::system().uuid()), incarnation, from: None, changes, returning: Returning::ALL }
}

async fn state(store: &dyn DataStore, key: &ProfileKey) -> KeyState {
    store.read_one(key, Returning::ALL).await.expect("the key can be read").1
}

fn text(state: &KeyState) -> Option<&str> {
    state.value.as_deref().map(|value| std::str::from_utf8(value).expect("the tests write text"))
}

/// A key as if it was at this version and never held.
fn at(key: &ProfileKey, version: u64) -> KeyState {
    let mut state = KeyState::absent(key.clone());
    state.version = version;
    state
}

fn write(state: &KeyState, value: &str) -> Change {
    Change::Write {
        key: state.key.clone(),
        epoch: state.epoch,
        version: state.version,
        value: NewValue::Bytes(Bytes::copy_from_slice(value.as_bytes())),
        user_ids: vec![7],
        cause: Cause::Save,
        author: "tester".into(),
        keep_previous: false,
        seal: false,
        imported: None,
    }
}

/// Writes the next version of a key, whatever it is at.
async fn put(store: &dyn DataStore, key: &ProfileKey, value: &str) -> Result<KeyState, StoreError> {
    let state = state(store, key).await;
    let commit = make(store, vec![write(&state, value)]).await;
    store.commit_one(commit).await.map(|mut reply| reply.states.remove(0))
}

/// Uses two stores in turn, as two processes might.
#[derive(Debug)]
struct InTurn {
    stores: [SqliteStore; 2],
    calls: std::sync::atomic::AtomicUsize,
}

impl InTurn {
    fn new(a: SqliteStore, b: SqliteStore) -> Self {
        Self { stores: [a, b], calls: 0.into() }
    }

    fn next(&self) -> &SqliteStore {
        &self.stores[self.calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) % 2]
    }
}

#[async_trait::async_trait]
impl DataStore for InTurn {
    async fn identity(&self) -> Result<profilestore::data_store::Identity, StoreError> {
        self.next().identity().await
    }

    async fn read(&self, keys: &[ProfileKey], returning: Returning) -> Result<profilestore::data_store::Snapshot, StoreError> {
        self.next().read(keys, returning).await
    }

    async fn version(
        &self,
        key: &ProfileKey,
        version: &profilestore::data_store::VersionRef,
    ) -> Result<Option<profilestore::data_store::StoredVersion>, StoreError> {
        self.next().version(key, version).await
    }

    async fn versions(
        &self,
        query: &profilestore::data_store::VersionQuery,
    ) -> Result<Vec<profilestore::data_store::VersionInfo>, StoreError> {
        self.next().versions(query).await
    }

    async fn keys(&self, query: &profilestore::data_store::KeyQuery) -> Result<Vec<KeyState>, StoreError> {
        self.next().keys(query).await
    }

    async fn servers(&self) -> Result<(i64, Vec<profilestore::data_store::ServerRow>), StoreError> {
        self.next().servers().await
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<profilestore::data_store::CommitReply, StoreError>> {
        self.next().commit(commits).await
    }

    async fn sweep(
        &self,
        retention: profilestore::data_store::Retention,
        cursor: Option<profilestore::data_store::SweepCursor>,
    ) -> Result<profilestore::data_store::SweepReport, StoreError> {
        self.next().sweep(retention, cursor).await
    }
}
