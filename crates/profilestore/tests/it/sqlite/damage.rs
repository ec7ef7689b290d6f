//! Values that a disk, a copy or a program has changed: each is told, none is handed out, and
//! nothing else suffers.

use futures_util::StreamExt as _;
use profilestore::{
    Advice, Attribution, Edit, ErrorKind, GameServer,
    audit::{AuditQuery, audit_entries},
    data_store::{DamagedValue, KeyFilter, KeyQuery, VersionRef},
    filter::{ScanLimits, scan},
    operator::{BulkEdit, EditScope},
    roblox::{NewEntry, Options as DataStores, RobloxDataStores},
    transfer::{ExportFilter, document, export, salvage, verify},
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

/// Whole values that stood in each other's places passed, and so did another author, cause or time.
#[tokio::test]
async fn a_version_that_says_something_else_of_itself_is_told() {
    let swap = |which: &str| {
        format!(
            "CREATE TEMP TABLE o AS SELECT * FROM version; \
             UPDATE version SET (checksum, value) = (SELECT o.checksum, o.value FROM o \
             WHERE o.id <> version.id AND o.{which}) WHERE {which}"
        )
    };
    for (damage, damaged) in [
        // Two versions of one profile, and two profiles.
        (swap("head = 1"), 2),
        (swap("number = 1"), 2),
        ("UPDATE version SET author = 'eve' WHERE head = 2".into(), 1),
        ("UPDATE version SET cause = 'restore' WHERE head = 2".into(), 1),
        ("UPDATE version SET label = 'v1' WHERE head = 2".into(), 1),
        ("UPDATE version SET written_ms = written_ms + 1 WHERE head = 2".into(), 1),
        ("UPDATE version SET load_count = 9 WHERE head = 2".into(), 1),
        ("UPDATE head SET key = 'eve' WHERE id = 2".into(), 1),
    ] {
        let dir = folder();
        let clock = ManualClock::default();
        let store = SqliteStore::open(path(&dir), timed(&clock)).unwrap();
        for (name, value) in [("ann", "100"), ("bob", "200"), ("ann", "300")] {
            put(&store, &key(name), value).await.unwrap();
            clock.advance(60 * 60 * 1000);
        }
        Connection::open(path(&dir)).unwrap().execute_batch(&damage).unwrap();
        let report = store.check(|_, _| {}).unwrap();
        assert_eq!(report.damaged.len(), damaged, "{damage}: {report:?}");
        let DamagedValue { key, version, .. } = &report.damaged[0];
        let read = store.version(key, &VersionRef::Number(*version)).await;
        is_damaged(&read, key, *version);
    }
}

/// The list ended at 1,000 without a word.
#[tokio::test]
async fn a_check_says_how_much_it_does_not_list() {
    let dir = folder();
    let store = open(&path(&dir));
    for number in 0..1_010 {
        put(&store, &key(&format!("p{number}")), "1").await.unwrap();
    }
    let file = Connection::open(path(&dir)).unwrap();
    file.execute("UPDATE version SET value = x'00'", []).unwrap();
    let report = store.check(|_, _| {}).unwrap();
    assert_eq!((report.damaged.len(), report.unlisted), (1_000, 10));
    file.execute("UPDATE head SET waiting = 1", []).unwrap();
    let report = store.check(|_, _| {}).unwrap();
    assert_eq!((report.problems.len(), report.unlisted), (1_000, 20));
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

/// One page after another is overwritten: whatever it held, a check comes to its end, and a salvage
/// writes every version that can still be read.
#[tokio::test]
async fn a_file_with_a_damaged_page_is_checked_to_the_end_and_salvaged() {
    const PAGE: usize = 4096;
    let dir = folder();
    let store = open(&path(&dir));
    let names: Vec<_> = (0..60).map(|n| key(&format!("p{n:02}"))).collect();
    for name in &names {
        let value = format!("\u{2}\0{{\"value\":\"{}\"}}", "x".repeat(900));
        put(&store, name, &value).await.unwrap();
    }
    store.empty_log().await.unwrap();
    let whole = std::fs::read(path(&dir)).unwrap();
    drop(store);
    let (mut opened, mut named) = (0, 0);
    for page in 1..whole.len() / PAGE {
        let mut bytes = whole.clone();
        bytes[page * PAGE..(page + 1) * PAGE].fill(0x5a);
        let file = dir.path().join(format!("damaged-{page}.db"));
        std::fs::write(&file, bytes).unwrap();
        // Without what SQLite itself needs there is nothing to be salvaged.
        let Ok(store) = SqliteStore::open(&file, fast()) else { continue };
        let Ok(report) = store.check(|_, _| {}) else { continue };
        let problems = report.problems.len() + report.damaged.len();
        assert!(problems > 0, "page {page}");
        let copy = dir.path().join(format!("copy-{page}.db"));
        if let Ok(backed_up) = store.backup(&copy, |_, _| {}) {
            assert_eq!(backed_up.damaged, report.damaged, "page {page}");
            assert!(!backed_up.problems.is_empty() || !backed_up.damaged.is_empty());
        }
        let mut lines = Vec::new();
        let filter = ExportFilter::default();
        let keys = store.every_key().unwrap();
        let salvaged = salvage(&store, keys, &filter, &mut lines, &mut |_| {}).await.unwrap();
        let text = String::from_utf8(lines).unwrap();
        for name in &names {
            let is_written = text.contains(&format!("\"key\":\"{}\"", name.key()));
            let is_readable = store.version(name, &VersionRef::Number(1)).await.is_ok();
            let is_told = salvaged.unreadable.iter().any(|left| left.key == *name);
            assert!(is_written || !is_readable, "page {page}: {name}");
            assert!(is_written != is_told, "page {page}: {name} {:?}", salvaged.unreadable);
            let says = |problem: &String| problem.contains(&name.to_string());
            let is_named = report.problems.iter().any(says)
                || report.damaged.iter().any(|damaged| damaged.key == *name);
            if is_told {
                assert!(is_named, "page {page}: {name} {:?}", report.problems);
                named += 1;
            }
        }
        opened += 1;
    }
    assert!(opened > 10 && named > 10, "{opened} {named}");
}

#[tokio::test]
async fn a_damaged_entry_of_the_log_hides_no_other_and_is_told() {
    let dir = folder();
    let store = open(&path(&dir));
    let server = server(&store).await;
    let players = players(&server);
    let profile = players.start_session("p").await.unwrap();
    profile.add_user_id(7).unwrap();
    profile.end_session().await.unwrap();
    let operator = server.operator(Attribution::new("ann"));
    for coins in [1, 2, 3] {
        let edit = Edit::new().increase("/coins", coins.into()).unwrap();
        operator.edit(&key("p"), &edit).await.unwrap();
    }
    let all = audit_entries(&store, &AuditQuery::default()).await.unwrap();
    assert_eq!((all.entries.len(), all.unreadable.len()), (3, 0));
    let damaged = all.entries[1].key();
    let newest = state(&store, &damaged).await.version;
    flip(&Connection::open(path(&dir)).unwrap(), &damaged, newest, 40);

    let page = audit_entries(&store, &AuditQuery::default()).await.unwrap();
    assert_eq!(page.entries, [all.entries[0].clone(), all.entries[2].clone()]);
    assert_eq!(page.unreadable[0].key, damaged);
    // Entries about other profiles are not read.
    let other = players.start_session("q").await.unwrap();
    other.end_session().await.unwrap();
    let edit = Edit::new().increase("/coins", 1.into()).unwrap();
    let about_other = operator.edit(&key("q"), &edit).await.unwrap().key();
    let newest = state(&store, &about_other).await.version;
    flip(&Connection::open(path(&dir)).unwrap(), &about_other, newest, 40);
    let report = operator.erase_user(7, false).await.unwrap();
    assert_eq!((report.erased.len(), report.audit_entries), (1, 2));
    assert_eq!(report.unreadable_entries, [damaged]);
    assert!(!report.is_complete(), "it may hold something of the user");
    assert!(server.shutdown().await.is_complete());
}

#[tokio::test]
async fn a_damaged_profile_that_is_removed_stays_its_users_and_is_erased() {
    let of_user =
        KeyQuery { store: None, scope: None, filter: KeyFilter::User(7), after: None, limit: 10 };
    for removed in [true, false] {
        let dir = folder();
        let store = open(&path(&dir));
        let server = server(&store).await;
        let players = players(&server);
        let profile = players.start_session("p").await.unwrap();
        profile.add_user_id(7).unwrap();
        profile.end_session().await.unwrap();
        let profile = players.start_session("p").await.unwrap();
        earn(&profile, 10);
        profile.end_session().await.unwrap();
        let newest = state(&store, &key("p")).await.version;
        flip(&Connection::open(path(&dir)).unwrap(), &key("p"), newest, 40);
        let operator = server.operator(Attribution::new("ann"));
        if removed {
            assert!(operator.remove(&key("p")).await.unwrap());
        }
        assert_eq!(store.keys(&of_user).await.unwrap().len(), 1);
        // The damaged version may have been another's too.
        let report = operator.erase_user(7, false).await.unwrap();
        assert!(report.failed[0].why.contains("who else has a part"), "{report:?}");
        let report = operator.erase_user(7, true).await.unwrap();
        assert_eq!((report.erased.len(), report.failed), (1, vec![]));
        assert_eq!(store.keys(&of_user).await.unwrap().len(), 0);
        assert_eq!(store.check(|_, _| {}).unwrap().damaged, vec![]);
        assert!(server.shutdown().await.is_complete());
    }
}

/// Where no version can be read, nobody knows who else has a part; with shared profiles it goes.
#[tokio::test]
async fn a_profile_of_which_nothing_can_be_read_is_erased_with_shared_ones() {
    let dir = folder();
    let store = open(&path(&dir));
    put(&store, &key("p"), "{}").await.unwrap();
    flip(&Connection::open(path(&dir)).unwrap(), &key("p"), 1, 0);
    let server = server(&store).await;
    let operator = server.operator(Attribution::new("ann"));
    let report = operator.erase_user(7, false).await.unwrap();
    assert!(report.failed[0].why.contains("cannot be read"), "{report:?}");
    let report = operator.erase_user(7, true).await.unwrap();
    assert_eq!((report.erased.len(), report.failed), (1, vec![]));
    assert!(server.shutdown().await.is_complete());
}

#[tokio::test]
async fn an_earlier_version_is_shown_while_the_current_one_is_damaged() {
    let dir = folder();
    let store = damaged_profile(&dir).await;
    let earlier = document(&store, &key("p"), Some(&VersionRef::Number(2))).await.unwrap();
    assert!(earlier.unwrap().value.is_some());
    assert!(document(&store, &key("p"), None).await.is_err());
}

/// The holder has the value whole, whatever became of the stored one.
#[tokio::test]
async fn a_start_elsewhere_asks_the_holder_of_a_damaged_profile() {
    let dir = folder();
    let store = open(&path(&dir));
    let one = server(&store).await;
    let held = players(&one).start_session("p").await.unwrap();
    held.save().await.unwrap();
    earn(&held, 10);
    let newest = state(&store, &key("p")).await.version;
    flip(&Connection::open(path(&dir)).unwrap(), &key("p"), newest, 40);
    let two = server(&store).await;
    let taken = players(&two).start_session("p").await.unwrap();
    assert_eq!(taken.data().coins, 10);
    assert!(held.is_over());
    assert!(one.shutdown().await.is_complete() && two.shutdown().await.is_complete());
}

#[tokio::test]
async fn a_write_and_a_removal_of_a_raw_data_store_repair_a_damaged_value() {
    let dir = folder();
    let store = damaged_profile(&dir).await;
    let server = server(&store).await;
    let raw = RobloxDataStores::new(&server, DataStores::default())
        .data_store("PlayerData", None)
        .unwrap();
    assert!(raw.get("p").await.is_err(), "it is not handed out");
    raw.set("p", NewEntry::json(&5).unwrap()).await.unwrap();
    assert_eq!(raw.get_uncached("p").await.unwrap().unwrap().value.get(), "5");
    let newest = state(&store, &key("p")).await.version;
    flip(&Connection::open(path(&dir)).unwrap(), &key("p"), newest, 4);
    raw.remove("p").await.unwrap();
    assert!(!store.read_one(&key("p"), Returning::HEAD).await.unwrap().1.exists());
    assert!(server.shutdown().await.is_complete());
}

#[tokio::test]
async fn a_search_by_value_names_a_damaged_profile_and_goes_on() {
    let dir = folder();
    let store = open(&path(&dir));
    let names = ["p", "q", "r"].map(key);
    for (name, coins) in names.iter().zip([1, 2, 3]) {
        let value = format!("\u{1}\0{{\"created\":0,\"data\":{{\"coins\":{coins}}}}}");
        put(&store, name, &value).await.unwrap();
    }
    put(&store, &key("s"), "\u{2}\0{\"value\":{\"coins\":9}}").await.unwrap();
    put(&store, &key("t"), "\u{1}\0{}").await.unwrap();
    flip(&Connection::open(path(&dir)).unwrap(), &names[1], 1, 40);
    let query =
        KeyQuery { store: None, scope: None, filter: KeyFilter::All, after: None, limit: 100 };
    let limits = ScanLimits { matches: 10, until: None };
    let found = scan(&store, &query, &"/coins > 0".parse().unwrap(), limits).await.unwrap();
    let keys: Vec<_> = found.matches.iter().map(|state| state.key.clone()).collect();
    assert_eq!(keys, [names[0].clone(), names[2].clone()]);
    let unreadable: Vec<_> = found.unreadable.iter().map(|found| found.key.clone()).collect();
    assert_eq!(unreadable, [names[1].clone(), key("t")], "{:?}", found.unreadable);
    assert_eq!((found.looked_at, found.next), (5, None));
}
