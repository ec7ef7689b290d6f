//! The SQLite store: the conformance suite, and what only a file can suffer.

use std::{path::Path, sync::Arc};

use profilestore::{
    data_store::{SqliteOptions, SqliteStore, conformance::Subject},
    env::ManualClock,
};

fn options(clock: &ManualClock, seed: u64) -> SqliteOptions {
    SqliteOptions { env: clock.env(seed), durable: false, ..SqliteOptions::default() }
}

fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, SqliteOptions { durable: false, ..SqliteOptions::default() }).expect("the store opens")
}

async fn subject() -> Subject {
    let dir = tempfile::tempdir().expect("a folder");
    let clock = ManualClock::default();
    let store = SqliteStore::open(dir.path().join("players.db"), options(&clock, 1)).expect("the store opens");
    Subject::new(Arc::new(store), move |ms| clock.advance(ms)).keeping(dir)
}

mod conformance {
    use super::subject;

    profilestore::store_conformance!(subject);
}
