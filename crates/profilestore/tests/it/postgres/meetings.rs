//! Commits and migrations that come to what another client has locked, and checks on connections
//! that are gone.

use std::time::Duration;

use profilestore::data_store::{
    Change, ConflictKind, DataStore, DataStoreExt as _, KeyState, LeaseState, PostgresOptions,
    PostgresStore, ServerId, StoreError,
};
use profilestore::env::Env;
use tokio_postgres::Client;

use super::{
    commits::{holder, key, make, write},
    made, opened, owner, url_of,
};

fn register(id: ServerId) -> Change {
    Change::RegisterServer {
        id,
        place_id: 1,
        job_id: "job".into(),
        lease_ms: 20_000,
        host: None,
        owner: None,
    }
}

/// Waits until a client of this name has waited for a lock for so long. Fails when `task` ends.
pub(super) async fn waits_for_a_lock<T>(
    owner: &Client,
    name: &str,
    milliseconds: i32,
    task: &tokio::task::JoinHandle<T>,
) {
    let sql = "SELECT 1 FROM pg_stat_activity WHERE application_name = $1 \
        AND wait_event_type = 'Lock' \
        AND clock_timestamp() - query_start > $2::int * interval '1 millisecond'";
    while owner.query(sql, &[&name, &milliseconds]).await.unwrap().is_empty() {
        assert!(!task.is_finished(), "it did not wait for the lock");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A renewal waited for a lock on a profile that only a save of its transaction needed, until its
/// server was taken for dead.
#[tokio::test]
async fn a_renewal_does_not_wait_for_a_locked_profile() {
    let schema = made().await;
    let store = opened(&schema).await;
    let id = ServerId(Env::system().uuid());
    let first = write(&KeyState::absent(key("p")), "1");
    let commit = make(&store, vec![register(id), first]).await;
    let first = store.commit_one(commit).await.unwrap().states.remove(0);
    let owner = owner().await;
    owner.batch_execute(&format!("BEGIN; SELECT 1 FROM {schema}.head FOR UPDATE")).await.unwrap();
    let renewal = Change::RenewServer { id, revision: 1, host: None, acknowledged: vec![] };
    let commits = vec![
        make(&store, vec![taken_by(id, "p", first.lease_revision)]).await,
        make(&store, vec![renewal]).await,
    ];
    let both = tokio::spawn({
        let store = store.clone();
        async move { store.commit(commits).await }
    });
    let renewed = async || store.servers().await.unwrap().1.iter().any(|row| row.revision == 2);
    while !renewed().await {
        assert!(!both.is_finished(), "the renewal waits for the lock");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    owner.batch_execute("ROLLBACK").await.unwrap();
    assert!(both.await.unwrap().iter().all(Result::is_ok));
}

/// A commit that waited for the lock of a profile that was just taken told of the new holder, but
/// not of its server: the row was looked for as it was before the wait.
#[tokio::test]
async fn a_commit_that_waited_for_a_taken_profile_shows_its_server() {
    let schema = made().await;
    let store = opened(&schema).await;
    let id = ServerId(Env::system().uuid());
    let take = taken_by(id, "taken", 0);
    let first = write(&KeyState::absent(key("p")), "1");
    store.commit_one(make(&store, vec![register(id)]).await).await.unwrap();
    let commit = make(&store, vec![take, first]).await;
    let states = store.commit_one(commit).await.unwrap().states;
    let first = states.into_iter().find(|state| state.key == key("p")).unwrap();
    // Another program takes it as the other profile was taken.
    let owner = owner().await;
    let taken = format!(
        "BEGIN; UPDATE {schema}.head h SET holder = o.holder, held = o.held, lease = o.lease, \
         lease_revision = o.lease_revision, epoch = o.epoch FROM {schema}.head o \
         WHERE h.key = 'p' AND o.key = 'taken'"
    );
    owner.batch_execute(&taken).await.unwrap();
    let commit = make(&store, vec![write(&first, "2")]).await;
    let task = tokio::spawn({
        let store = store.clone();
        async move { store.commit_one(commit).await }
    });
    waits_for_a_lock(&super::owner().await, &schema, 0, &task).await;
    owner.batch_execute("COMMIT").await.unwrap();
    match task.await.unwrap() {
        Err(StoreError::Conflict(conflict)) => {
            assert_eq!(conflict.kind, ConflictKind::Epoch);
            let state = conflict.state.unwrap();
            assert_eq!(state.holder_server.map(|row| row.id), Some(id));
        }
        other => panic!("expected a conflict, found {other:?}"),
    }
}

/// A statement of a migration takes as long as a table is large. It was cut off as a game server's
/// is. Here the table is locked, which takes as long as the test wants.
#[tokio::test]
async fn a_migration_is_not_cut_by_the_time_limit_of_statements() {
    let owner = owner().await;
    let schema = super::format::schema_of_format_1(&owner).await;
    let mut options: PostgresOptions =
        format!("{}&application_name={schema}", url_of(&schema)).parse().unwrap();
    options.statement_timeout = Duration::from_secs(1);
    owner.batch_execute(&format!("BEGIN; LOCK TABLE {schema}.head")).await.unwrap();
    let task = tokio::spawn(async move { PostgresStore::migrate(&options, None).await });
    // Longer than the server's limit, and than the client's, which is 2 s more.
    waits_for_a_lock(&super::owner().await, &schema, 3_500, &task).await;
    owner.batch_execute("ROLLBACK").await.unwrap();
    assert!(task.await.unwrap().unwrap());
}

/// A check on a connection that the server had closed while it was idle failed.
#[tokio::test]
async fn a_check_on_a_closed_connection_is_made_anew() {
    let schema = made().await;
    let store = opened(&schema).await;
    let commit = make(&store, vec![write(&KeyState::absent(key("p")), "1")]).await;
    let state = store.commit_one(commit).await.unwrap().states.remove(0);
    let owner = owner().await;
    for _ in 0..5 {
        let check = Change::Check { key: key("p"), epoch: state.epoch };
        let commit = make(&store, vec![check]).await;
        let closed = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
            WHERE application_name = $1";
        assert!(!owner.query(closed, &[&schema]).await.unwrap().is_empty());
        assert!(store.commit_one(commit).await.is_ok());
    }
}

/// A start of this server, as it takes a profile.
fn taken_by(id: ServerId, name: &str, revision: u64) -> Change {
    Change::Lease {
        key: key(name),
        revision,
        lease: LeaseState { holder: Some(holder(id)), ..LeaseState::default() },
        raise_epoch: true,
        seal: false,
    }
}
