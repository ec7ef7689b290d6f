//! The tables: made once, by a role that may; recognised, or left alone.

use std::time::Duration;

use profilestore::data_store::{
    Change, Commit, CommitId, DataStore as _, DataStoreExt as _, PostgresOptions, PostgresStore,
    Returning, ServerId, StoreError,
};
use profilestore::env::Env;

use super::{ROLE, game_servers, made, new_schema, opened, owner, owners, server_url};

fn invalid<T: std::fmt::Debug>(result: Result<T, StoreError>) -> String {
    match result {
        Err(StoreError::Invalid { reason }) => reason,
        other => panic!("expected a refusal, found {other:?}"),
    }
}

/// Migrating is harmless at any time, and of many at once one makes the tables.
#[tokio::test]
async fn the_tables_are_made_once() {
    let schema = new_schema();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let options = owners(&schema);
        tasks.spawn(async move { PostgresStore::migrate(&options, None).await.unwrap() });
    }
    let mut made = 0;
    while let Some(done) = tasks.join_next().await {
        made += u32::from(done.unwrap());
    }
    assert_eq!(made, 1);
    assert!(!PostgresStore::migrate(&owners(&schema), None).await.unwrap());
    let first =
        PostgresStore::open(owners(&schema)).await.unwrap().identity().await.unwrap().incarnation;
    let second =
        PostgresStore::open(owners(&schema)).await.unwrap().identity().await.unwrap().incarnation;
    assert_eq!(first, second);
}

/// A store of before a column was added is completed by migrating; until then the error says so.
#[tokio::test]
async fn tables_of_an_earlier_version_are_completed() {
    let schema = made().await;
    owner()
        .await
        .batch_execute(&format!("ALTER TABLE {schema}.server DROP COLUMN renewal"))
        .await
        .unwrap();
    let id = ServerId(Env::system().uuid());
    let register = async |store: &PostgresStore| {
        let incarnation = store.identity().await.unwrap().incarnation;
        let changes = vec![Change::RegisterServer {
            id,
            place_id: 7,
            job_id: "job".into(),
            lease_ms: 20_000,
            host: None,
            owner: None,
        }];
        let commit = Commit {
            id: CommitId(Env::system().uuid()),
            incarnation,
            from: None,
            changes,
            returning: Returning::HEAD,
            fingerprint: None,
        };
        store.commit_one(commit).await
    };
    match register(&opened(&schema).await).await {
        Err(StoreError::Corrupt { reason }) => {
            assert!(reason.contains("run `profilestore migrate`"), "{reason}")
        }
        other => panic!("expected a hint at migrating, found {other:?}"),
    }
    assert!(PostgresStore::migrate(&owners(&schema), None).await.unwrap());
    assert!(!PostgresStore::migrate(&owners(&schema), None).await.unwrap());
    register(&opened(&schema).await).await.unwrap();
}

/// The index of earlier versions let the planner read a whole inbox for each of its messages. Until
/// it is replaced the error says so.
#[tokio::test]
async fn a_store_without_the_index_of_digests_gets_it_by_migrating() {
    let schema = made().await;
    let before = format!(
        "DROP INDEX {schema}.message_digest; \
         ALTER TABLE {schema}.message ADD CONSTRAINT message_store_scope_key_digest_key UNIQUE (store, scope, key, digest)"
    );
    let owner = owner().await;
    owner.batch_execute(&before).await.unwrap();
    let reason = invalid(PostgresStore::open(game_servers(&schema)).await);
    assert!(reason.contains("run `profilestore migrate`"), "{reason}");
    assert!(PostgresStore::migrate(&owners(&schema), None).await.unwrap());
    assert!(!PostgresStore::migrate(&owners(&schema), None).await.unwrap());
    opened(&schema).await;
    let left = "SELECT 1 FROM pg_indexes WHERE schemaname = $1 AND indexname = \
        'message_store_scope_key_digest_key'";
    assert!(owner.query(left, &[&schema]).await.unwrap().is_empty());
}

/// A key may be any Unicode text, which a database of another encoding would refuse much later.
#[tokio::test]
async fn a_database_that_cannot_hold_every_key_is_refused() {
    let (owner, name) = (owner().await, new_schema());
    let make = format!(
        "CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"
    );
    owner.batch_execute(&make).await.unwrap();
    let (server, _) = server_url()
        .rsplit_once('/')
        .map(|(server, database)| (server.to_owned(), database.to_owned()))
        .unwrap();
    let options: PostgresOptions = format!("{server}/{name}").parse().unwrap();
    let reason = invalid(PostgresStore::migrate(&options, None).await);
    assert!(reason.contains("LATIN1") && reason.contains("UTF8"), "{reason}");
    let missing = invalid(PostgresStore::open(options).await);
    assert!(missing.contains("there is no store"), "{missing}");
    owner.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
}

/// A store that is not there is not made by opening it, and the error says how it is.
#[tokio::test]
async fn a_missing_store_is_not_made_by_opening_it() {
    let schema = new_schema();
    let reason = invalid(PostgresStore::open(owners(&schema)).await);
    assert!(reason.contains("profilestore migrate"), "{reason}");
    let rows = owner()
        .await
        .query("SELECT 1 FROM pg_namespace WHERE nspname = $1", &[&schema])
        .await
        .unwrap();
    assert!(rows.is_empty());
}

/// Tables of another application and stores of a newer format are refused and left alone.
#[tokio::test]
async fn what_is_not_a_store_of_this_format_is_refused() {
    let owner = owner().await;
    for tables in [
        "CREATE TABLE t (a int)",
        "CREATE TABLE meta (id int, settings text)",
        "CREATE TABLE meta (name text, value text)",
    ] {
        let schema = new_schema();
        owner
            .batch_execute(&format!("CREATE SCHEMA {schema}; SET search_path = {schema}; {tables}"))
            .await
            .unwrap();
        for reason in [
            invalid(PostgresStore::open(owners(&schema)).await),
            invalid(PostgresStore::migrate(&owners(&schema), None).await),
        ] {
            assert!(reason.contains("another application"), "{tables}: {reason}");
        }
    }
    let schema = made().await;
    owner
        .batch_execute(&format!("UPDATE {schema}.meta SET value = '999' WHERE name = 'format'"))
        .await
        .unwrap();
    for reason in [
        invalid(PostgresStore::open(game_servers(&schema)).await),
        invalid(PostgresStore::migrate(&owners(&schema), None).await),
    ] {
        assert!(reason.contains("another format") && reason.contains("999"), "{reason}");
    }
}

/// A game server's role can neither make nor change tables.
#[tokio::test]
async fn a_game_servers_role_may_do_no_more_than_it_must() {
    let schema = made().await;
    opened(&schema).await;
    let reason = invalid(PostgresStore::migrate(&game_servers(&new_schema()), None).await);
    assert!(reason.contains("may not make the tables"), "{reason}");
    let owner = owner().await;
    for sql in [
        format!("CREATE TABLE {schema}.x (a int)"),
        format!("DROP TABLE {schema}.head"),
        format!("TRUNCATE {schema}.head"),
        format!("UPDATE {schema}.meta SET value = ''"),
        format!("ALTER TABLE {schema}.head ADD COLUMN x int"),
    ] {
        let err = owner.batch_execute(&format!("SET ROLE {ROLE}; {sql}")).await.unwrap_err();
        assert_eq!(err.code().map(|code| code.code()), Some("42501"), "{sql}: {err}");
        owner.batch_execute("RESET ROLE").await.unwrap();
    }
    let bare = new_schema();
    PostgresStore::migrate(&owners(&bare), None).await.unwrap();
    let reason = invalid(PostgresStore::open(game_servers(&bare)).await);
    assert!(reason.contains("--grant"), "{reason}");
}

/// A restored backup gets a new identity, and commits that name the old one are refused.
#[tokio::test]
async fn commits_of_before_a_restored_backup_are_refused() {
    let schema = made().await;
    let store = opened(&schema).await;
    let old = store.identity().await.unwrap().incarnation;
    let new = PostgresStore::renew_incarnation(&owners(&schema)).await.unwrap();
    let server = ServerId(Env::system().uuid());
    let changes = vec![Change::RegisterServer {
        id: server,
        place_id: 1,
        job_id: "job".into(),
        lease_ms: 1000,
        host: None,
        owner: None,
    }];
    let id = CommitId(Env::system().uuid());
    let commit = Commit {
        id,
        incarnation: old,
        from: None,
        changes,
        returning: Returning::HEAD,
        fingerprint: None,
    };
    match store.commit_one(commit).await {
        Err(StoreError::Replaced { expected, found }) => assert_eq!((expected, found), (old, new)),
        other => panic!("expected a refusal, found {other:?}"),
    }
    assert_eq!(store.identity().await.unwrap().incarnation, new);
}

/// Neither a wrong password nor an unreachable host shows the password, and both are told soon.
#[tokio::test]
async fn a_failed_connection_is_told_without_the_password() {
    let schema = made().await;
    let host = server_url().split_once('@').unwrap().1.to_owned();
    let (_, database) = host.split_once('/').unwrap();
    let urls = [
        format!("postgres://nobody:hush@{host}?schema={schema}"),
        format!("postgres://{ROLE}:hush@127.0.0.1:1/{database}?schema={schema}"),
        format!("postgres://{ROLE}:hush@127.0.0.1:1,127.0.0.1:2/{database}?schema={schema}"),
    ];
    for url in urls {
        let options: PostgresOptions = url.parse().unwrap();
        let opened = tokio::time::timeout(Duration::from_secs(20), PostgresStore::open(options))
            .await
            .expect("in time");
        let err = opened.unwrap_err();
        let text = format!("{err} {err:?}");
        assert!(matches!(err, StoreError::Unavailable { .. }), "{text}");
        assert!(!text.contains("hush") && text.contains("postgres://"), "{text}");
    }
}

/// Of several hosts one that does not answer is passed over.
#[tokio::test]
async fn the_first_host_that_answers_is_used() {
    let schema = made().await;
    let url = server_url();
    let (user, host) = url.split_once('@').unwrap();
    let options: PostgresOptions =
        format!("{user}@127.0.0.1:1,{host}?schema={schema}").parse().unwrap();
    PostgresStore::open(options).await.unwrap().identity().await.unwrap();
}
