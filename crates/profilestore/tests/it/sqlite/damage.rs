//! Values that a disk, a copy or a program has changed: each is told, none is handed out, and
//! nothing else suffers.

use futures_util::StreamExt as _;
use profilestore::{
    Advice, Attribution, Edit, ErrorKind, GameServer,
    data_store::{DamagedValue, VersionRef},
    operator::{BulkEdit, EditScope},
    transfer::{ExportFilter, export, verify},
};
use rusqlite::Connection;

use super::*;
use crate::world::{earn, players};

/// Changes one bit of a version's value in the file.
fn flip(file: &Connection, key: &ProfileKey, version: u64, bit: u32) {
    let sql = "SELECT v.id, v.value FROM version v JOIN head h ON h.id = v.head \
        WHERE h.store = ?1 AND h.key = ?2 AND v.number = ?3";
    let (id, mut value): (i64, Vec<u8>) = file
        .query_row(sql, rusqlite::params![key.store(), key.key(), version.cast_signed()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .expect("the version is there");
    value[bit as usize / 8] ^= 1 << (bit % 8);
    file.execute("UPDATE version SET value = ?2 WHERE id = ?1", rusqlite::params![id, value])
        .expect("the value is changed");
}

fn bits(file: &Connection, key: &ProfileKey, version: u64) -> u32 {
    let sql = "SELECT length(v.value) * 8 FROM version v JOIN head h ON h.id = v.head \
        WHERE h.key = ?1 AND v.number = ?2";
    file.query_row(sql, rusqlite::params![key.key(), version.cast_signed()], |row| row.get(0))
        .expect("the version is there")
}

fn is_damaged<T: std::fmt::Debug>(read: &Result<T, StoreError>, at: &ProfileKey, at_version: u64) {
    match read {
        Err(StoreError::Damaged { key, version }) => {
            assert_eq!((key, *version), (at, at_version));
        }
        other => panic!("expected damage of version {at_version}, found {other:?}"),
    }
}

/// With one value in two places, 41 of 150 flipped bits left a check that said "all is well" and
/// other data in the export.
#[tokio::test]
async fn every_flipped_bit_of_every_value_is_told_by_every_read() {
    let dir = folder();
    let clock = ManualClock::default();
    let store = SqliteStore::open(path(&dir), timed(&clock)).unwrap();
    for (name, value) in [
        ("ann", "\u{2}\0{\"value\":100}"),
        ("ann", "\u{2}\0{\"value\":200}"),
        ("bob", "\u{2}\0{\"value\":7}"),
        ("ann", "\u{2}\0{\"value\":300}"),
    ] {
        put(&store, &key(name), value).await.unwrap();
        clock.advance(60 * 60 * 1000);
    }
    let file = Connection::open(path(&dir)).unwrap();
    let all = [(key("ann"), 1), (key("ann"), 2), (key("ann"), 3), (key("bob"), 1)];
    let mut flips = 0;
    for (key, version) in &all {
        for bit in 0..bits(&file, key, *version) {
            flip(&file, key, *version, bit);
            let report = store.check(|_, _| {}).unwrap();
            let found: Vec<_> =
                report.damaged.iter().map(|found| (found.key.clone(), found.version)).collect();
            assert_eq!(found, [(key.clone(), *version)], "bit {bit}");
            for (other, number) in &all {
                let read = store.version(other, &VersionRef::Number(*number)).await;
                if (other, number) == (key, version) {
                    is_damaged(&read, key, *version);
                } else {
                    assert!(read.unwrap().unwrap().value.is_some());
                }
            }
            let current = state_of(&store, key).await;
            match current.as_ref().map(|state| state.version) {
                Ok(newest) => assert_ne!(newest, *version),
                Err(_) => is_damaged(&current, key, *version),
            }
            let mut lines = Vec::new();
            let filter = ExportFilter::default();
            let exported = export(&store, &filter, &mut lines, &mut |_| {}).await.unwrap();
            let verified = verify(&store, &filter, &mut |_| {}).await.unwrap();
            for unreadable in [&exported.unreadable, &verified.unreadable] {
                let found: Vec<_> = unreadable.iter().map(|at| (&at.key, at.number)).collect();
                assert_eq!(found, [(key, *version)], "bit {bit}");
            }
            assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), all.len() - 1);
            flip(&file, key, *version, bit);
            flips += 1;
        }
    }
    assert_eq!(flips, (15 * 3 + 13) * 8);
    let report = store.check(|_, _| {}).unwrap();
    assert_eq!((report.problems, report.damaged), (vec![], vec![]));
}

async fn state_of(store: &SqliteStore, key: &ProfileKey) -> Result<KeyState, StoreError> {
    store.read_one(key, Returning::ALL).await.map(|(_, state)| state)
}

/// A value that is gone, one that is there where none belongs, and a checksum that is gone or no
/// number.
#[tokio::test]
async fn a_value_and_its_checksum_belong_together() {
    for damage in [
        "UPDATE version SET value = NULL",
        "UPDATE version SET checksum = NULL",
        "UPDATE version SET checksum = -1",
        "UPDATE version SET checksum = checksum + (1 << 40)",
        "UPDATE version SET flags = 1",
    ] {
        let dir = folder();
        let store = open(&path(&dir));
        put(&store, &key("p"), "{}").await.unwrap();
        Connection::open(path(&dir)).unwrap().execute_batch(damage).unwrap();
        is_damaged(&state_of(&store, &key("p")).await, &key("p"), 1);
        assert_eq!(store.check(|_, _| {}).unwrap().damaged.len(), 1, "{damage}");
        // It is in nobody's way.
        let head = store.read_one(&key("p"), Returning::HEAD).await.unwrap().1;
        let commit = make(&store, vec![write(&head, "{\"new\":1}")]).await;
        let reply = store.commit_one(commit).await.unwrap();
        assert_eq!(text(&reply.states[0]), Some("{\"new\":1}"));
        assert_eq!(store.check(|_, _| {}).unwrap().damaged, vec![]);
    }
}

/// What an answer shows is read before anything is written: a commit that would show a damaged
/// value is refused as a whole.
#[tokio::test]
async fn a_commit_that_would_show_a_damaged_value_changes_nothing() {
    let dir = folder();
    let store = open(&path(&dir));
    let [damaged, other] = ["p", "q"].map(key);
    put(&store, &damaged, "{}").await.unwrap();
    put(&store, &other, "{}").await.unwrap();
    flip(&Connection::open(path(&dir)).unwrap(), &damaged, 1, 3);
    let check = Change::Check { key: damaged.clone(), epoch: 0 };
    let changes = vec![check, write(&at(&other, 1), "{\"new\":1}")];
    let commit = make(&store, changes).await;
    is_damaged(&store.commit_one(commit.clone()).await, &damaged, 1);
    assert_eq!(state(&store, &other).await.version, 1);
    let without = Commit { returning: Returning::HEAD, ..commit };
    assert!(!store.commit_one(without).await.unwrap().already_applied);
    assert_eq!(state(&store, &other).await.version, 2);
}

#[tokio::test]
async fn a_backup_names_the_values_that_are_damaged_in_it() {
    let dir = folder();
    let store = open(&path(&dir));
    for name in ["p", "q"] {
        put(&store, &key(name), "{}").await.unwrap();
    }
    let good = store.backup(&dir.path().join("good.db"), |_, _| {}).unwrap();
    assert_eq!(good.damaged, vec![]);
    flip(&Connection::open(path(&dir)).unwrap(), &key("q"), 1, 0);
    let copy = dir.path().join("copy.db");
    let report = store.backup(&copy, |_, _| {}).unwrap();
    let [DamagedValue { key: found, version: 1, .. }] = &report.damaged[..] else {
        panic!("{report:?}")
    };
    assert_eq!(*found, key("q"));
    assert_eq!(open(&copy).check(|_, _| {}).unwrap().damaged, report.damaged);
    assert_eq!(text(&state(&open(&copy), &key("p")).await), Some("{}"));
}

async fn server(store: &SqliteStore) -> GameServer {
    GameServer::builder(store.clone()).start().await.expect("the server starts")
}

/// A profile with three versions, of which the last one is damaged.
async fn damaged_profile(dir: &TempDir) -> SqliteStore {
    let store = open(&path(dir));
    let server = server(&store).await;
    let players = players(&server);
    for _ in 0..2 {
        let profile = players.start_session("p").await.unwrap();
        earn(&profile, 10);
        profile.end_session().await.unwrap();
    }
    assert!(server.shutdown().await.is_complete());
    let newest = state(&store, &key("p")).await.version;
    flip(&Connection::open(path(dir)).unwrap(), &key("p"), newest, 40);
    store
}

#[tokio::test]
async fn opening_a_damaged_profile_says_what_to_do_and_a_rollback_out_of_it_works() {
    let dir = folder();
    let store = damaged_profile(&dir).await;
    let damaged = store.read_one(&key("p"), Returning::HEAD).await.unwrap().1.version;
    let server = server(&store).await;
    let players = players(&server);
    let errors = [
        players.start_session("p").await.err(),
        players.get("p").await.err(),
        players.get_version("p", VersionRef::Number(damaged)).await.err(),
    ];
    for error in errors {
        let error = error.expect("the value is damaged");
        assert_eq!((error.kind(), error.advice()), (ErrorKind::Damaged, Advice::Fix));
        assert_eq!(error.key(), Some(&key("p")));
        let text = error.to_string();
        for part in ["roll the profile back", "PlayerData/p", &format!("version=`{damaged}`")] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    // The start left nothing behind that would keep others out.
    assert!(!store.read_one(&key("p"), Returning::HEAD).await.unwrap().1.lease.is_held());

    let mut versions = players.versions("p").unwrap().newest_first();
    let current = versions.next().await.unwrap().unwrap();
    let before = versions.next().await.unwrap().unwrap();
    assert_eq!(current.info.number, damaged);
    let operator = server.operator(Attribution::new("ann"));
    let restored =
        operator.restore(&key("p"), VersionRef::Number(before.info.number)).await.unwrap();
    assert_eq!((restored.restored, restored.replaced), (before.info.number, damaged));
    let profile = players.start_session("p").await.unwrap();
    assert_eq!(profile.data().coins, 10);
    profile.end_session().await.unwrap();
    // What was damaged stays what it is, for as long as the history keeps it.
    let left = store.check(|_, _| {}).unwrap().damaged;
    assert_eq!(left.iter().map(|left| left.version).collect::<Vec<_>>(), [damaged]);
    let again = operator.restore(&key("p"), VersionRef::Number(damaged)).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Damaged);
    assert!(server.shutdown().await.is_complete());
}

#[tokio::test]
async fn a_damaged_profile_is_left_out_of_edits_and_can_be_removed() {
    let dir = folder();
    let store = damaged_profile(&dir).await;
    let server = server(&store).await;
    let players = players(&server);
    for name in ["a", "z"] {
        let profile = players.start_session(name).await.unwrap();
        profile.end_session().await.unwrap();
    }
    let operator = server.operator(Attribution::new("ann"));
    let edit = Edit::new().increase("/coins", 5.into()).unwrap();
    let refused = operator.edit(&key("p"), &edit).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Damaged);
    let bulk = BulkEdit::new(Env::system().uuid(), EditScope::all("PlayerData"), edit);
    let report = operator.edit_all(&bulk, |_| {}).await.unwrap();
    assert_eq!(report.done, 2);
    assert_eq!(report.refused.iter().map(|(key, _)| key.key()).collect::<Vec<_>>(), ["p"]);
    assert!(players.remove("p").await.unwrap());
    assert!(players.get("p").await.unwrap().is_none());
    assert!(server.shutdown().await.is_complete());
}

#[tokio::test]
async fn a_listing_of_profiles_goes_on_behind_a_damaged_one() {
    let dir = folder();
    let store = damaged_profile(&dir).await;
    let server = server(&store).await;
    let players = players(&server);
    for name in ["a", "z"] {
        players.start_session(name).await.unwrap().end_session().await.unwrap();
    }
    let all: Vec<_> = players.keys().scan().collect().await;
    let damaged = all.iter().filter_map(|found| found.as_ref().err().map(|error| error.kind()));
    assert_eq!(damaged.collect::<Vec<_>>(), [ErrorKind::Damaged]);
    assert_eq!(all.len(), 3);
}

#[tokio::test]
async fn a_damaged_list_of_standing_edits_keeps_no_new_player_out() {
    let dir = folder();
    let store = open(&path(&dir));
    let one = server(&store).await;
    let edit = Edit::new().increase("/coins", 5.into()).unwrap();
    let bulk = BulkEdit::new(Env::system().uuid(), EditScope::all("PlayerData"), edit).new_too();
    one.operator(Attribution::new("ann")).edit_all(&bulk, |_| {}).await.unwrap();
    let list = ProfileKey::new("~profilestore", "standing", "PlayerData").unwrap();
    flip(&Connection::open(path(&dir)).unwrap(), &list, 1, 40);
    let two = server(&store).await;
    players(&two).start_session("new").await.unwrap();
}
