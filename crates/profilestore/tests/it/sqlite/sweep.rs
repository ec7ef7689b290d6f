//! Sweeps of files that are damaged, or hold more than a piece of a sweep may delete.

use profilestore::data_store::{DAY_MS, Retention, SweepReport, VersionQuery};
use rusqlite::Connection;

use super::*;

const MONTH: Retention = Retention { history_ms: 30 * DAY_MS };

/// What one transaction of a sweep deletes at most.
const MOST: u64 = 1_000;

/// The pieces of a whole sweep.
async fn sweep(store: &SqliteStore) -> Vec<SweepReport> {
    let (mut pieces, mut cursor) = (Vec::new(), None);
    loop {
        let piece = store.sweep(MONTH, cursor).await.expect("the sweep goes on");
        cursor = piece.next.clone();
        pieces.push(piece);
        assert!(pieces.len() < 100, "a sweep of a few keys goes on for ever");
        if cursor.is_none() {
            return pieces;
        }
    }
}

fn versions(pieces: &[SweepReport]) -> u64 {
    pieces.iter().map(|piece| piece.versions).sum()
}

/// Writes so many versions of a key, each of which is kept.
async fn write_many(store: &SqliteStore, key: &ProfileKey, versions: u64) {
    let mut commits = Vec::new();
    for version in 0..versions {
        let mut change = write(&at(key, version), "a value");
        if let Change::Write { keep_previous, .. } = &mut change {
            *keep_previous = true;
        }
        commits.push(make(store, vec![change]).await);
    }
    for reply in store.commit(commits).await {
        reply.expect("each version is written");
    }
}

async fn kept(store: &SqliteStore, key: &ProfileKey) -> Vec<u64> {
    let query = VersionQuery {
        key: key.clone(),
        order: profilestore::data_store::Order::Ascending,
        from_ms: None,
        to_ms: None,
        after: None,
        limit: 10_000,
    };
    let found = store.versions(&query).await.expect("the history is whole");
    found.iter().map(|version| version.number).collect()
}

/// One head or chain that could not be read stopped the sweep for ever, that of outcomes too.
#[tokio::test]
async fn a_damaged_head_does_not_stop_the_sweep() {
    // The ids of the commits are of this time too.
    let (dir, clock) = (folder(), ManualClock::new(Env::system().unix_ms()));
    let store = SqliteStore::open(path(&dir), timed(&clock)).unwrap();
    for name in ["lease", "chain", "whole"] {
        write_many(&store, &key(name), 3).await;
    }
    let spoil = "UPDATE head SET lease = '{' WHERE key = 'lease'; \
        UPDATE version SET previous = 99999 WHERE number = 2 AND previous <> 0 \
        AND head = (SELECT id FROM head WHERE key = 'chain')";
    Connection::open(path(&dir)).unwrap().execute_batch(spoil).unwrap();
    clock.advance(31 * DAY_MS);
    let pieces = sweep(&store).await;
    assert_eq!(versions(&pieces), 2, "those of the key that is whole");
    assert_eq!(kept(&store, &key("whole")).await, [3]);
    assert_eq!(pieces.iter().map(|piece| piece.outcomes).sum::<u64>(), 9);
}

/// A piece of a sweep held the file's lock for as long as 500 histories took.
#[tokio::test]
async fn a_sweep_of_long_histories_lets_commits_through() {
    let (dir, clock) = (folder(), ManualClock::default());
    let store = SqliteStore::open(path(&dir), timed(&clock)).unwrap();
    let (long, other) = (key("long"), key("other"));
    write_many(&store, &long, 2_500).await;
    write_many(&store, &other, 3).await;
    let pin = Change::Pin { key: long.clone(), version: 1_200, pinned: true };
    let commit = make(&store, vec![pin]).await;
    store.commit_one(commit).await.unwrap();
    clock.advance(31 * DAY_MS);
    let pieces = sweep(&store).await;
    assert!(pieces.iter().all(|piece| piece.versions <= MOST), "{pieces:?}");
    assert_eq!(versions(&pieces), 2_498 + 2);
    assert_eq!(kept(&store, &long).await, [1_200, 2_500]);
    assert_eq!(kept(&store, &other).await, [3]);
    assert_eq!(store.check(|_, _| {}).unwrap().problems, Vec::<String>::new());
    assert_eq!(versions(&sweep(&store).await), 0, "a sweep is complete");
}
