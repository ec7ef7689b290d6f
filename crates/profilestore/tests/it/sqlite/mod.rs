//! The SQLite store: the conformance suite, and what only a file can suffer.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use profilestore::{
    ProfileKey,
    data_store::{
        Cause, Change, Commit, CommitId, DataStore, DataStoreExt as _, KeyState, NewValue,
        Returning, SqliteOptions, SqliteStore, StoreError, conformance::Subject,
    },
    env::{Env, ManualClock},
};
use tempfile::TempDir;

mod backups;
mod damage;
mod damaged_profiles;
mod erase;
mod files;
mod format;
mod hints;
mod io_errors;
mod known;
#[cfg(target_os = "linux")]
mod power_loss;
mod processes;
mod read_only;
mod sweep;
mod taken_away;
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
    let [a, b] =
        [1, 2].map(|_| SqliteStore::open(path(&dir), timed(&clock)).expect("the store opens"));
    Subject::new(Arc::new(crate::in_turn::InTurn::new(a, b)), move |ms| clock.advance(ms))
        .keeping(dir)
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
    Commit {
        id: CommitId(Env::system().uuid()),
        incarnation,
        from: None,
        changes,
        returning: Returning::ALL,
        fingerprint: None,
    }
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

#[tokio::test]
async fn named_users() {
    let dir = folder();
    let store = SqliteStore::open(path(&dir), fast()).expect("the store opens");
    crate::named_users::they_are_found_taken_out_and_erased(Arc::new(store)).await;
}
