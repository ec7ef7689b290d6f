//! A schema of format 1, as the program of before made it: migrated by its owner, or left alone.
//! And values that are not what was written.

use std::time::Duration;

use profilestore::{
    Attribution, ErrorKind, GameServer, ProfileKey,
    data_store::{
        Cause, Change, Commit, CommitId, DataStore, DataStoreExt as _, KeyState, NewValue,
        PostgresStore, Returning, StoreError, VersionRef,
    },
    env::Env,
    transfer::{ExportFilter, verify},
};
use tokio_postgres::Client;

use super::{ROLE, made, new_schema, opened, owner, owners};
use crate::world::{earn, players};

/// Dumped from a store of format 1: an import with histories, users, a foreign value and a
/// tombstone; messages, an edit, a rollback, a pin and a removal by operators.
const FORMAT_1: &[u8] = include_bytes!("../../data/format-1.sql.zst");

/// The same, migrated by a program that knew step 2 of format 2.
const FORMAT_2_STEP_2: &[u8] = include_bytes!("../../data/format-2-step-2.sql.zst");

/// The same, migrated by a program that knew step 4 of format 2, which then edited all profiles and
/// erased a user.
const FORMAT_2_STEP_4: &[u8] = include_bytes!("../../data/format-2-step-4.sql.zst");

fn key(name: &str) -> ProfileKey {
    ProfileKey::new("PlayerData", "global", name).expect("a valid name")
}

/// Makes a schema of format 1.
pub(super) async fn schema_of_format_1(owner: &Client) -> String {
    schema_of(owner, FORMAT_1, "format1").await
}

async fn schema_of(owner: &Client, packed: &[u8], name: &str) -> String {
    // For the role of the game servers.
    made().await;
    let sql = zstd::decode_all(packed).expect("the dump can be unpacked");
    let schema = new_schema();
    let sql = String::from_utf8(sql).expect("text").replace(name, &schema);
    owner.batch_execute(&sql).await.expect("the dump can be loaded");
    schema
}

async fn format_of(owner: &Client, schema: &str) -> String {
    let sql = format!("SELECT value FROM {schema}.meta WHERE name = 'format'");
    owner.query_one(&sql, &[]).await.expect("the schema is a store's").get(0)
}

#[tokio::test]
async fn a_schema_of_format_1_is_migrated_by_its_owner() {
    let owner = owner().await;
    let schema = schema_of_format_1(&owner).await;
    match PostgresStore::open(owners(&schema)).await.map(drop) {
        Err(StoreError::Invalid { reason }) => {
            assert!(reason.contains("earlier format"), "{reason}");
            assert!(reason.contains("run `profilestore migrate`"), "{reason}");
        }
        other => panic!("expected a refusal, found {other:?}"),
    }
    let values = |table: &str, number: &str| {
        format!(
            "SELECT store, scope, key, {number}, value FROM {schema}.{table} \
             ORDER BY store, scope, key, {number}"
        )
    };
    let [heads, versions] = [values("head", "version"), values("version", "number")];
    type Read = Vec<(String, i64, Option<Vec<u8>>)>;
    let read = async |sql: &str| -> Read {
        let rows = owner.query(sql, &[]).await.expect("the table is there");
        rows.iter().map(|row| (row.get(2), row.get(3), row.get(4))).collect()
    };
    let before = (read(&heads).await, read(&versions).await);
    assert!(before.0.len() + before.1.len() > 15, "{before:?}");
    // Several at once: one of them migrates.
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let options = owners(&schema);
        tasks.spawn(async move { PostgresStore::migrate(&options, Some(ROLE)).await.unwrap() });
    }
    let migrated = tasks.join_all().await;
    assert_eq!(migrated.iter().filter(|migrated| **migrated).count(), 1);
    assert_eq!(format_of(&owner, &schema).await, "2");
    assert_eq!((read(&heads).await, read(&versions).await), before);

    let store = opened(&schema).await;
    let records = verify(&store, &ExportFilter::default(), &mut |_| {}).await.unwrap();
    assert_eq!(records.unreadable, vec![]);
    assert_eq!((records.keys, records.versions), (5, 11));
    let (_, ann) = store.read_one(&key("ann"), Returning::ALL).await.unwrap();
    assert_eq!((ann.version, ann.inbox.as_ref().unwrap().len()), (4, 1));
    let pinned = store.version(&key("ann"), &VersionRef::Number(1)).await.unwrap().unwrap();
    assert!(pinned.info.pinned && pinned.value.is_some());
    write(&store, &ann, "{\"coins\":1}").await.unwrap();
}

#[tokio::test]
async fn a_schema_of_an_earlier_step_is_migrated_by_its_owner() {
    let owner = owner().await;
    let schema = schema_of(&owner, FORMAT_2_STEP_2, "format2step2").await;
    match PostgresStore::open(owners(&schema)).await.map(drop) {
        Err(StoreError::Invalid { reason }) => {
            assert!(reason.contains("earlier format"), "{reason}");
        }
        other => panic!("expected a refusal, found {other:?}"),
    }
    assert!(PostgresStore::migrate(&owners(&schema), None).await.unwrap());
    assert!(!PostgresStore::migrate(&owners(&schema), None).await.unwrap());
    // As the role of the game servers, whose rights the migration keeps.
    let store = opened(&schema).await;
    let records = verify(&store, &ExportFilter::default(), &mut |_| {}).await.unwrap();
    assert_eq!((records.keys, records.versions, records.unreadable), (5, 11, vec![]));
    let (_, servers) = store.servers().await.unwrap();
    assert!(!servers.is_empty());
    assert!(servers.iter().all(|row| (row.host, row.generation) == (None, 0)), "{servers:?}");
    let (_, ann) = store.read_one(&key("ann"), Returning::ALL).await.unwrap();
    write(&store, &ann, "{\"coins\":1}").await.unwrap();
}

/// Entries of the audit log that were written before they had tags are found by what they are
/// about.
#[tokio::test]
async fn a_migration_makes_entries_of_the_audit_log_found_by_their_profiles() {
    let owner = owner().await;
    let dumps = [
        (FORMAT_1, "format1"),
        (FORMAT_2_STEP_2, "format2step2"),
        (FORMAT_2_STEP_4, "format2step4"),
    ];
    for (packed, name) in dumps {
        let schema = schema_of(&owner, packed, name).await;
        assert!(PostgresStore::migrate(&owners(&schema), Some(ROLE)).await.unwrap());
        let store = opened(&schema).await;
        crate::audit_log::entries_are_found_by_their_profiles(&store).await;
    }
}

/// A program of format 1 that goes on writing would spoil the checksums.
#[tokio::test]
async fn a_schema_in_which_a_server_is_alive_is_not_migrated() {
    let owner = owner().await;
    let schema = schema_of_format_1(&owner).await;
    let alive = format!(
        "UPDATE {schema}.server SET dead_ms = NULL, lease_ms = 20000, \
         renewed_ms = floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    );
    owner.batch_execute(&alive).await.unwrap();
    match PostgresStore::migrate(&owners(&schema), None).await {
        Err(StoreError::Unavailable { reason }) => {
            for part in ["earlier format", "alive", "job=`", "alive_for_ms=`"] {
                assert!(reason.contains(part), "{part}: {reason}");
            }
        }
        other => panic!("expected a refusal, found {other:?}"),
    }
    assert_eq!(format_of(&owner, &schema).await, "1");
    let silent = format!("UPDATE {schema}.server SET renewed_ms = renewed_ms - 30000");
    owner.batch_execute(&silent).await.unwrap();
    assert!(PostgresStore::migrate(&owners(&schema), None).await.unwrap());
    assert!(!PostgresStore::migrate(&owners(&schema), None).await.unwrap());
}

/// A program of format 1 was stopped while it was connected, and goes on after the migration: its
/// prepared statements fail. One that opens the store goes by the format's number.
#[tokio::test]
async fn a_program_of_format_1_cannot_commit_to_a_migrated_schema() {
    let owner = owner().await;
    let schema = schema_of_format_1(&owner).await;
    let old = super::owner().await;
    old.batch_execute(&format!("SET search_path = {schema}")).await.unwrap();
    let insert = "INSERT INTO outcome (id, at_ms, aborted) SELECT u.id, $3::bigint, u.aborted \
        FROM unnest($1::uuid[], $2::bool[]) AS u (id, aborted)";
    let insert = old.prepare(insert).await.unwrap();
    let commit = async || {
        let id = Env::system().uuid();
        old.execute(&insert, &[&vec![id], &vec![false], &1_i64]).await
    };
    commit().await.unwrap();
    assert!(PostgresStore::migrate(&owners(&schema), None).await.unwrap());
    let error = commit().await.unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("42P01"), "{error:?}");
    assert_ne!(format_of(&owner, &schema).await, "1");
}

/// A migration that is broken off leaves the schema as it was.
#[tokio::test]
async fn a_migration_is_done_as_a_whole_or_not_at_all() {
    let owner = owner().await;
    let schema = schema_of_format_1(&owner).await;
    // The last thing that a migration does fails.
    let broken = format!("ALTER TABLE {schema}.meta ADD CHECK (value <> '2')");
    owner.batch_execute(&broken).await.unwrap();
    PostgresStore::migrate(&owners(&schema), None).await.unwrap_err();
    assert_eq!(format_of(&owner, &schema).await, "1");
    let columns = "SELECT 1 FROM information_schema.columns \
        WHERE table_schema = $1 AND column_name = 'checksum'";
    assert!(owner.query(columns, &[&schema]).await.unwrap().is_empty());
}

async fn write(
    store: &PostgresStore,
    state: &KeyState,
    value: &str,
) -> Result<KeyState, StoreError> {
    let change = Change::Write {
        key: state.key.clone(),
        epoch: state.epoch,
        version: state.version,
        value: NewValue::Bytes(value.as_bytes().to_vec().into()),
        user_ids: vec![],
        cause: Cause::Save,
        author: "tester".into(),
        keep_previous: true,
        seal: false,
        imported: None,
    };
    let commit = Commit {
        id: CommitId(Env::system().uuid()),
        incarnation: store.identity().await?.incarnation,
        from: None,
        changes: vec![change],
        returning: Returning::ALL,
        fingerprint: None,
    };
    store.commit_one(commit).await.map(|mut reply| reply.states.remove(0))
}

fn is_damaged<T: std::fmt::Debug>(read: Result<T, StoreError>, at: &ProfileKey, at_version: u64) {
    match read {
        Err(StoreError::Damaged { key, version }) => {
            assert_eq!((&key, version), (at, at_version));
        }
        other => panic!("expected damage of version {at_version}, found {other:?}"),
    }
}

/// Each byte of a current and of a kept value, with one bit of it flipped.
#[tokio::test]
async fn every_changed_byte_of_a_value_is_told_and_stays_told_in_the_history() {
    let owner = owner().await;
    let schema = made().await;
    let store = opened(&schema).await;
    let absent = KeyState::absent(key("p"));
    let first = write(&store, &absent, "\u{2}\0{\"value\":100}").await.unwrap();
    write(&store, &first, "\u{2}\0{\"value\":200}").await.unwrap();
    let flip = async |table: &str, byte: i32, bit: i32| {
        let sql = format!(
            "UPDATE {schema}.{table} SET value = set_bit(value, {0}, 1 - get_bit(value, {0}))",
            byte * 8 + bit
        );
        owner.batch_execute(&sql).await.unwrap();
    };
    for (table, damaged, whole) in [("version", 1, 2), ("head", 2, 1)] {
        for byte in 0..15 {
            flip(table, byte, byte % 8).await;
            let named = VersionRef::Number(damaged);
            is_damaged(store.version(&key("p"), &named).await, &key("p"), damaged);
            let other = store.version(&key("p"), &VersionRef::Number(whole)).await.unwrap();
            assert!(other.unwrap().value.is_some());
            let current = store.read_one(&key("p"), Returning::ALL).await;
            match table {
                "head" => is_damaged(current, &key("p"), damaged),
                _ => assert!(current.unwrap().1.value.is_some()),
            }
            let records = verify(&store, &ExportFilter::default(), &mut |_| {}).await.unwrap();
            let found: Vec<_> =
                records.unreadable.iter().map(|found| (found.key.key(), found.number)).collect();
            assert_eq!(found, [("p", damaged)]);
            flip(table, byte, byte % 8).await;
        }
    }
    // Replaced and kept, it is still what it is.
    flip("head", 3, 3).await;
    let head = store.read_one(&key("p"), Returning::HEAD).await.unwrap().1;
    write(&store, &head, "{\"coins\":300}").await.unwrap();
    is_damaged(store.version(&key("p"), &VersionRef::Number(2)).await, &key("p"), 2);
    assert!(store.read_one(&key("p"), Returning::ALL).await.is_ok());
}

/// Whole values that stood in each other's places passed, and so did another author.
#[tokio::test]
async fn a_version_that_says_something_else_of_itself_is_told() {
    let owner = owner().await;
    let schema = made().await;
    let store = opened(&schema).await;
    for name in ["p", "q", "r"] {
        write(&store, &KeyState::absent(key(name)), name).await.unwrap();
    }
    let swap = format!(
        "UPDATE {schema}.head h SET (checksum, value) = (SELECT o.checksum, o.value \
         FROM {schema}.head o WHERE o.key <> h.key AND o.key IN ('p', 'q')) \
         WHERE h.key IN ('p', 'q'); UPDATE {schema}.head SET author = 'eve' WHERE key = 'r'"
    );
    owner.batch_execute(&swap).await.unwrap();
    for name in ["p", "q", "r"] {
        is_damaged(store.read_one(&key(name), Returning::ALL).await, &key(name), 1);
    }
}

#[tokio::test]
async fn a_rollback_out_of_a_damaged_version_works() {
    let owner = owner().await;
    let schema = made().await;
    let store = opened(&schema).await;
    let server = GameServer::builder(store.clone()).start().await.unwrap();
    let players = players(&server);
    for _ in 0..2 {
        let profile = players.start_session("p").await.unwrap();
        earn(&profile, 10);
        profile.end_session().await.unwrap();
    }
    owner
        .batch_execute(&format!(
            "UPDATE {schema}.head SET value = set_byte(value, 5, 255 - get_byte(value, 5)) \
             WHERE key = 'p'"
        ))
        .await
        .unwrap();
    let started = players.start_session("p").await.map(drop);
    assert_eq!(started.unwrap_err().kind(), ErrorKind::Damaged);
    let mut versions = players.versions("p").unwrap().newest_first();
    let damaged = versions.next().await.unwrap().unwrap().info.number;
    let before = versions.next().await.unwrap().unwrap().info.number;
    let operator = server.operator(Attribution::new("ann"));
    let restored = operator.restore(&key("p"), VersionRef::Number(before)).await.unwrap();
    assert_eq!((restored.restored, restored.replaced), (before, damaged));
    let profile = players.start_session("p").await.unwrap();
    assert_eq!(profile.data().coins, 10);
    profile.end_session().await.unwrap();
    is_damaged(store.version(&key("p"), &VersionRef::Number(damaged)).await, &key("p"), damaged);
    let report = tokio::time::timeout(Duration::from_secs(30), server.shutdown()).await;
    assert!(report.expect("the server ends").is_complete());
}
