//! Commits on a real server: what a lost connection, a held lock, other transactions and a missing
//! standby make of them.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use profilestore::{
    MessageId, ProfileKey,
    data_store::{
        Cause, Change, Commit, CommitId, ConflictKind, DataStore, DataStoreExt as _, Holder,
        KeyFilter, KeyQuery, KeyState, LeaseState, NewMessage, NewValue, PostgresOptions,
        PostgresStore, Returning, ServerId, StoreError,
    },
    env::Env,
};
use profilestore_testbed::PostgresServer;

use super::{game_servers, made, opened, owner, owners};

pub(super) fn key(name: &str) -> ProfileKey {
    ProfileKey::new("PlayerData", "global", name).expect("a valid name")
}

pub(super) async fn make(store: &dyn DataStore, changes: Vec<Change>) -> Commit {
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

pub(super) async fn state(store: &dyn DataStore, key: &ProfileKey) -> KeyState {
    store.read_one(key, Returning::ALL).await.expect("the key can be read").1
}

pub(super) fn write(state: &KeyState, value: &str) -> Change {
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

/// A session on a server.
pub(super) fn holder(server: ServerId) -> Holder {
    Holder {
        server: Some(server),
        place_id: 1,
        job_id: "job".into(),
        session: "session".into(),
        since_ms: 1,
        last_update_ms: None,
        document: None,
    }
}

fn number(state: &KeyState) -> i64 {
    state.value.as_deref().map_or(0, |value| std::str::from_utf8(value).unwrap().parse().unwrap())
}

/// Connections that the server closes while they are idle are made anew, unnoticed.
#[tokio::test]
async fn closed_connections_are_replaced() {
    let schema = made().await;
    let store = opened(&schema).await;
    let key = key("p");
    let owner = owner().await;
    for version in 1..=5 {
        let commit = make(&store, vec![write(&state(&store, &key).await, "1")]).await;
        assert_eq!(store.commit_one(commit).await.unwrap().states[0].version, version);
        let closed = owner
            .query(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE \
                application_name = $1",
                &[&schema],
            )
            .await
            .unwrap();
        assert!(!closed.is_empty(), "reads and writes take turns on at least one");
    }
}

/// A row that another client keeps locked makes a commit unavailable, in time, and nothing of it is
/// applied later.
#[tokio::test]
async fn a_lock_that_is_not_released_makes_unavailable() {
    let schema = made().await;
    let mut options = game_servers(&schema);
    // Long enough for a busy machine to open the store.
    options.statement_timeout = Duration::from_secs(3);
    let (impatient, store) = (PostgresStore::open(options).await.unwrap(), opened(&schema).await);
    let key = key("p");
    let commit = make(&store, vec![write(&KeyState::absent(key.clone()), "1")]).await;
    let first = store.commit_one(commit).await.unwrap().states.remove(0);
    let owner = owner().await;
    owner.batch_execute(&format!("BEGIN; SELECT 1 FROM {schema}.head FOR UPDATE")).await.unwrap();
    let commit = make(&store, vec![write(&first, "2")]).await;
    let err = impatient.commit_one(commit.clone()).await.unwrap_err();
    assert!(matches!(err, StoreError::Unavailable { .. }), "{err}");
    owner.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(state(&store, &key).await.version, 1);
    assert!(!store.commit_one(commit).await.unwrap().already_applied);
}

/// A server of the test's own with a store in it, and another store there whose sessions are found
/// under the name `waits`. Once [`wait_for_a_standby`] was called, every commit waits for a standby
/// that does not exist.
pub(super) async fn server_of_its_own(
    statement_timeout: Duration,
) -> (PostgresServer, PostgresStore, PostgresOptions) {
    let server = PostgresServer::start().unwrap();
    let options: PostgresOptions = server.url().parse().unwrap();
    PostgresStore::migrate(&options, None).await.unwrap();
    let store = PostgresStore::open(options).await.unwrap();
    let mut waits: PostgresOptions =
        format!("{}?application_name=waits", server.url()).parse().unwrap();
    waits.statement_timeout = statement_timeout;
    (server, store, waits)
}

pub(super) fn wait_for_a_standby(server: &mut PostgresServer) {
    server.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").unwrap();
    server.process.kill();
    server.restart().unwrap();
}

/// Ends the sessions that wait: the transaction of a client that is gone waits on, and what comes
/// to its rows waits with it.
pub(super) fn end_those_that_wait(server: &PostgresServer) {
    let sql = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
        WHERE application_name = 'waits'";
    server.sql(sql).unwrap();
}

/// A commit that stands at the primary but not at its standby is neither applied nor refused, until
/// the same id tells.
#[tokio::test]
async fn a_commit_that_its_standby_does_not_confirm_is_indeterminate() {
    let (mut server, store, mut options) = server_of_its_own(Duration::from_secs(1)).await;
    wait_for_a_standby(&mut server);
    // The server's time limit does not concern a COMMIT: the client gives up. Or it is cancelled,
    // and the server warns.
    for (name, is_cancelled, limit, told) in
        [("p", false, 4, "in time"), ("q", true, 60, "synchronous replication")]
    {
        options.statement_timeout = Duration::from_secs(limit);
        let waiting = PostgresStore::open(options.clone()).await.unwrap();
        let key = key(name);
        let commit = make(&waiting, vec![write(&KeyState::absent(key.clone()), "1")]).await;
        // It ends with the commit, which gives up in its time.
        let cancelled = async {
            let sql = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity \
                WHERE application_name = 'waits' AND wait_event = 'SyncRep'";
            while is_cancelled && server.sql(sql).unwrap().trim().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let mut committing = pin!(waiting.commit_one(commit.clone()));
        let answer = tokio::select! {
            answer = &mut committing => answer,
            () = cancelled => committing.await,
        };
        match answer {
            Err(StoreError::Indeterminate { commit: id, reason }) => {
                assert_eq!(id, commit.id);
                assert!(reason.contains(told), "{reason}");
            }
            other => panic!("expected an unknown outcome, found {other:?}"),
        }
        end_those_that_wait(&server);
        assert!(store.commit_one(commit).await.unwrap().already_applied);
        assert_eq!(state(&store, &key).await.version, 1);
    }
}

/// Commits share a transaction whose outcome is unknown. Those among them that write nothing, being
/// applied already or refused, were answered with an empty inbox. Their session then took its
/// operators' edits for removed, saved their effect without removing them, and made them twice.
#[tokio::test]
async fn answers_beside_an_unknown_outcome_do_not_tell_of_an_empty_inbox() {
    let (mut server, store, options) = server_of_its_own(Duration::from_secs(1)).await;
    let (applied, refused, other) = (key("applied"), key("refused"), key("other"));
    let now_ms = store.identity().await.unwrap().now_ms;
    let letter = |key: &ProfileKey| Change::AppendMessage {
        key: key.clone(),
        message: NewMessage {
            id: MessageId::new(now_ms, "letter").unwrap(),
            payload: Bytes::from_static(b"1"),
        },
        cap: 10,
    };
    let first =
        make(&store, vec![write(&KeyState::absent(applied.clone()), "1"), letter(&applied)]).await;
    store.commit_one(first.clone()).await.unwrap();
    let begun = vec![write(&KeyState::absent(refused.clone()), "1"), letter(&refused)];
    store.commit_one(make(&store, begun).await).await.unwrap();
    let stale = make(&store, vec![write(&KeyState::absent(refused.clone()), "2")]).await;
    let unknown = make(&store, vec![write(&KeyState::absent(other), "1")]).await;
    let commits = vec![first, stale, unknown];
    wait_for_a_standby(&mut server);
    let waiting = PostgresStore::open(options).await.unwrap();
    let replies = waiting.commit(commits.clone()).await;
    for (commit, reply) in commits.iter().zip(replies) {
        match reply {
            Err(StoreError::Indeterminate { commit: id, .. }) => assert_eq!(id, commit.id),
            other => panic!("what was not read was told: {other:?}"),
        }
    }
    end_those_that_wait(&server);
    let waits = |state: &KeyState| state.inbox.as_ref().map(Vec::len);
    let [first, stale, unknown] = <[Commit; 3]>::try_from(commits).unwrap();
    let again = store.commit_one(first).await.unwrap();
    assert!(again.already_applied);
    assert_eq!(waits(&again.states[0]), Some(1));
    let conflict = store.commit_one(stale).await.unwrap_err();
    assert_eq!(conflict.conflict(), Some(&ConflictKind::Version));
    assert!(
        matches!(conflict, StoreError::Conflict(conflict) if conflict.state.as_ref().and_then(waits) == Some(1))
    );
    assert!(store.commit_one(unknown).await.unwrap().already_applied);
}

/// Two stores that move amounts between the same keys in every order lose none and answer every
/// commit.
#[tokio::test]
async fn transactions_of_two_stores_over_the_same_keys_keep_the_sum() {
    let schema = made().await;
    let stores = [opened(&schema).await, opened(&schema).await];
    let keys: Vec<ProfileKey> = (0..6).map(|n| key(&format!("p{n}"))).collect();
    for key in &keys {
        let commit = make(&stores[0], vec![write(&KeyState::absent(key.clone()), "100")]).await;
        stores[0].commit_one(commit).await.unwrap();
    }
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..12_usize {
        let (store, keys) = (stores[task % 2].clone(), keys.clone());
        tasks.spawn(async move {
            let mut moved = 0;
            for round in 0..20 {
                let (from, to) = (
                    &keys[(task + round) % keys.len()],
                    &keys[(task * 5 + round * 3 + 1) % keys.len()],
                );
                if from == to {
                    continue;
                }
                let (a, b) = (state(&store, from).await, state(&store, to).await);
                let changes = vec![
                    write(&a, &(number(&a) - 1).to_string()),
                    write(&b, &(number(&b) + 1).to_string()),
                ];
                match store.commit_one(make(&store, changes).await).await {
                    Ok(_) => moved += 1,
                    Err(err) => assert_eq!(err.conflict(), Some(&ConflictKind::Version), "{err}"),
                }
            }
            moved
        });
    }
    let mut moved = 0;
    while let Some(done) = tasks.join_next().await {
        moved += done.unwrap();
    }
    let snapshot = stores[1].read(&keys, Returning::ALL).await.unwrap();
    assert_eq!(snapshot.states.iter().map(number).sum::<i64>(), 600);
    let versions: u64 = snapshot.states.iter().map(|state| state.version).sum();
    assert_eq!(versions, 6 + 2 * moved);
    assert!(moved > 0, "the first commit of all finds nothing changed");
}

/// What depends on a key that does not exist yet is refused as soon as it does: profiles that are
/// created while the list of standing edits changes are either seen by the server that changed it,
/// or are not created.
#[tokio::test]
async fn a_check_of_a_key_without_a_row_binds() {
    let schema = made().await;
    for round in 0..5 {
        let stores = [opened(&schema).await, opened(&schema).await];
        let list = key(&format!("list {round}"));
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..16_usize {
            let (store, list) = (stores[task % 2].clone(), list.clone());
            tasks.spawn(async move {
                let mut created = Vec::new();
                for n in 0..20 {
                    let new = key(&format!("new {round} {task} {n}"));
                    let check = Change::Check { key: list.clone(), epoch: 0 };
                    let commit =
                        make(&store, vec![check, write(&KeyState::absent(new.clone()), "1")]).await;
                    match store.commit_one(commit).await {
                        Ok(_) => created.push(new),
                        Err(err) => assert_eq!(err.conflict(), Some(&ConflictKind::Epoch), "{err}"),
                    }
                }
                created
            });
        }
        tokio::time::sleep(Duration::from_millis(10 + 10 * round)).await;
        let raise = Change::Lease {
            key: list.clone(),
            revision: 0,
            lease: LeaseState::default(),
            raise_epoch: true,
            seal: false,
        };
        stores[1].commit_one(make(&stores[1], vec![raise]).await).await.unwrap();
        let prefix = KeyFilter::Prefix(format!("new {round} "));
        let query = KeyQuery { store: None, scope: None, filter: prefix, after: None, limit: 1000 };
        let seen: std::collections::BTreeSet<_> =
            stores[1].keys(&query).await.unwrap().into_iter().map(|state| state.key).collect();
        while let Some(done) = tasks.join_next().await {
            for created in done.unwrap() {
                assert!(
                    seen.contains(&created),
                    "{created} was created after the list had changed"
                );
            }
        }
    }
}

/// Names with a NUL are refused as a wrong call, and harm no other commit.
#[tokio::test]
async fn a_nul_in_a_name_is_refused() {
    let schema = made().await;
    let store = opened(&schema).await;
    let bad = Change::RegisterServer {
        id: profilestore::data_store::ServerId(Env::system().uuid()),
        place_id: 1,
        job_id: "a\0b".into(),
        lease_ms: 1,
        host: None,
        owner: None,
    };
    let commits = vec![
        make(&store, vec![bad]).await,
        make(&store, vec![write(&KeyState::absent(key("p")), "1")]).await,
    ];
    let replies = store.commit(commits).await;
    assert!(matches!(&replies[0], Err(StoreError::Invalid { .. })), "{:?}", replies[0]);
    assert!(replies[1].is_ok());
}

/// Commits of many keys share transactions, and the same one again is recognised from any sender.
#[tokio::test]
async fn a_repeated_commit_is_recognised_by_every_store() {
    let schema = made().await;
    let stores = Arc::new([opened(&schema).await, opened(&schema).await]);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..100 {
        let stores = stores.clone();
        tasks.spawn(async move {
            let commit =
                make(&stores[0], vec![write(&KeyState::absent(key(&format!("p{n}"))), "1")]).await;
            let (a, b) =
                tokio::join!(stores[0].commit_one(commit.clone()), stores[1].commit_one(commit));
            let already = [a.unwrap().already_applied, b.unwrap().already_applied];
            assert!(already[0] != already[1], "one of them applied it: {already:?}");
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

/// A server that lost its rights says which command gives them back.
#[tokio::test]
async fn a_missing_right_is_named() {
    let schema = made().await;
    let store = opened(&schema).await;
    let commit = make(&store, vec![write(&KeyState::absent(key("p")), "1")]).await;
    owner()
        .await
        .batch_execute(&format!("REVOKE INSERT ON {schema}.head FROM profilestore_game_server"))
        .await
        .unwrap();
    let err = store.commit_one(commit.clone()).await.unwrap_err();
    assert!(
        matches!(&err, StoreError::Unavailable { reason } if reason.contains("--grant")),
        "{err}"
    );
    PostgresStore::migrate(&owners(&schema), Some("profilestore_game_server")).await.unwrap();
    assert!(!store.commit_one(commit).await.unwrap().already_applied);
}

/// Of the servers on a full disk, those with much to save were refused their renewals together with
/// it, and the others took them for dead.
#[tokio::test]
async fn a_renewal_goes_through_on_a_full_disk() {
    let mut server = PostgresServer::on_small_disk(120).unwrap();
    let options = || server.url().parse::<profilestore::data_store::PostgresOptions>().unwrap();
    PostgresStore::migrate(&options(), None).await.unwrap();
    let store = PostgresStore::open(options()).await.unwrap();
    let id = ServerId(Env::system().uuid());
    let register = Change::RegisterServer {
        id,
        place_id: 7,
        job_id: "job".into(),
        lease_ms: 20_000,
        host: None,
        owner: None,
    };
    store.commit_one(make(&store, vec![register]).await).await.unwrap();

    let ballast = server.folder().join("ballast");
    std::fs::write(&ballast, vec![1; 120 << 20]).unwrap_err();
    let (mut refused, mut revision) = (0, 1);
    for round in 0..60 {
        let value = "x".repeat(9000);
        let mut commits = vec![
            make(
                &store,
                vec![Change::RenewServer { id, revision, host: None, acknowledged: vec![] }],
            )
            .await,
        ];
        for n in 0..3 {
            let absent = KeyState::absent(key(&format!("{round}-{n}")));
            commits.push(make(&store, vec![write(&absent, &value)]).await);
        }
        let renewal = commits[0].clone();
        let mut replies = store.commit(commits).await.into_iter();
        let renewed = replies.next().unwrap().unwrap();
        revision = renewed.server.as_ref().unwrap().revision;
        for reply in replies {
            match reply {
                Ok(_) => {}
                Err(StoreError::Unavailable { reason }) if reason.contains("No space left") => {
                    refused += 1
                }
                other => panic!("expected a refusal for want of space, found {other:?}"),
            }
        }
        let again = store.commit_one(renewal).await.unwrap();
        assert!(again.already_applied && again.server == renewed.server, "{again:?}");
    }
    assert_eq!(revision, 61);
    assert!(refused > 60, "the disk was hardly full: {refused}");

    std::fs::remove_file(&ballast).unwrap();
    server.restart().unwrap();
    store
        .commit_one(make(&store, vec![write(&KeyState::absent(key("p")), "1")]).await)
        .await
        .unwrap();
}
