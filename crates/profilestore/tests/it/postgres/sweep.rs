//! A sweep of a store in which something keeps it from its rows.

use std::time::Duration;

use profilestore::{
    ProfileKey,
    data_store::{DAY_MS, DataStore, PostgresStore, Retention, SweepReport, VersionQuery},
};

use super::{game_servers, made, owner};

const MONTH: Retention = Retention { history_ms: 30 * DAY_MS };

async fn sweep(store: &PostgresStore) -> SweepReport {
    let (mut all, mut cursor) = (SweepReport::default(), None);
    for _ in 0..100 {
        let piece = store.sweep(MONTH, cursor).await.expect("the sweep goes on");
        all.versions += piece.versions;
        all.outcomes += piece.outcomes;
        if piece.next.is_none() {
            return all;
        }
        cursor = piece.next;
    }
    panic!("a sweep of a few keys goes on for ever");
}

async fn kept(store: &PostgresStore, name: &str) -> usize {
    let query = VersionQuery {
        key: ProfileKey::new("PlayerData", "global", name).unwrap(),
        order: profilestore::data_store::Order::Ascending,
        from_ms: None,
        to_ms: None,
        after: None,
        limit: 100,
    };
    store.versions(&query).await.unwrap().len()
}

/// A piece that took longer than a statement may was cancelled at the same place in each sweep, and
/// nothing behind it was ever swept. Here a row is locked, which takes as long as the test wants.
#[tokio::test]
async fn a_sweep_that_is_too_long_is_cut() {
    let schema = made().await;
    let mut options = game_servers(&schema);
    options.statement_timeout = Duration::from_secs(1);
    let store = PostgresStore::open(options).await.unwrap();
    let owner = owner().await;
    // Twenty keys with one old version each, and an outcome that is as old.
    let rows = format!(
        "INSERT INTO {schema}.head (store, scope, key, version) \
         SELECT 'PlayerData', 'global', 'k' || lpad(i::text, 2, '0'), 2 FROM generate_series(1, 20) i; \
         INSERT INTO {schema}.version (store, scope, key, number, written_ms, stored_ms, \
         superseded_ms, load_count, flags, cause, author) \
         SELECT store, scope, key, 1, 0, 0, 0, 0, 1, 'save', 'tester' FROM {schema}.head; \
         UPDATE {schema}.head SET cause = 'save'; \
         INSERT INTO {schema}.settled (id, at_ms, aborted) VALUES (gen_random_uuid(), 0, true)"
    );
    owner.batch_execute(&rows).await.unwrap();
    let locked = format!("BEGIN; SELECT 1 FROM {schema}.version WHERE key = 'k07' FOR UPDATE");
    owner.batch_execute(&locked).await.unwrap();
    let report = sweep(&store).await;
    assert_eq!((report.versions, report.outcomes), (19, 1));
    assert_eq!((kept(&store, "k07").await, kept(&store, "k20").await), (2, 1));
    owner.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(sweep(&store).await.versions, 1);
}
