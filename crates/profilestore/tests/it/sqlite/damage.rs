//! Values that a disk, a copy or a program has changed: each is told, none is handed out, and
//! nothing else suffers.

use profilestore::{
    data_store::{Checked, DamagedValue, MessageId, NewMessage, VersionRef},
    transfer::{ExportFilter, Verification, export, verify},
};
use rusqlite::Connection;

use super::*;

/// Changes one bit of a version's value in the file.
pub(super) fn flip(file: &Connection, key: &ProfileKey, version: u64, bit: u32) {
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

pub(super) fn is_damaged<T: std::fmt::Debug>(
    read: &Result<T, StoreError>,
    at: &ProfileKey,
    at_version: u64,
) {
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

/// The list ended at 1,000 silently.
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

/// `check` and `backup --verify` read each version twice, the second time by itself and from its
/// key's newest one back.
#[tokio::test]
async fn one_pass_finds_all_that_a_verification_of_each_key_finds() {
    let dir = folder();
    let store = open(&path(&dir));
    crate::transfer::import_real_records(&store).await;
    let book = ProfileKey::new("~profilestore", "audit", "entry").unwrap();
    for (name, value) in [
        (&key("half"), r#"{"created":1,"data":{"half":"\ud800"}}"#),
        (&key("flipped"), r#"{"created":1,"data":{"coins":1}}"#),
        (&book, r#"{"value":{"v":1}}"#),
    ] {
        let form = if *name == book { '\u{2}' } else { '\u{1}' };
        put(&store, name, &format!("{form}\0{value}")).await.unwrap();
    }
    put(&store, &key("codec"), "\u{1}\u{9}{}").await.unwrap();
    let id = MessageId::new(Env::system().unix_ms(), "gift").unwrap();
    let message = NewMessage { id, payload: Bytes::from_static(br#""\ud800""#) };
    let append = Change::AppendMessage { key: key("half"), message, cap: 10 };
    store.commit_one(make(&store, vec![append]).await).await.unwrap();
    flip(&Connection::open(path(&dir)).unwrap(), &key("flipped"), 1, 40);

    let mut found = Verification::default();
    let each = |piece: Checked<'_>| match piece {
        Checked::Key(key, lease) => found.key(key, lease),
        Checked::Message(key, message) => found.message(key, message),
        Checked::Version(key, info, value) => found.version(key, info, value),
    };
    let report = store.check_each(each, |_, _| {}).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    for DamagedValue { key, version, .. } in &report.damaged {
        found.damaged(key, *version);
    }
    let found = found.end();
    let verified = verify(&store, &ExportFilter::default(), &mut |_| {}).await.unwrap();
    assert_eq!(found, verified);
    assert_eq!((found.keys, found.books, found.versions), (212, 1, report.profile_versions));
    assert_eq!((found.foreign, found.pending.entries), (6, 30));
    let unreadable: Vec<_> = found.unreadable.iter().map(|left| left.key.key()).collect();
    assert_eq!(unreadable, ["codec", "flipped"]);
    let unstorable: Vec<_> =
        found.unstorable.iter().map(|wrong| (wrong.number, wrong.message)).collect();
    assert_eq!(unstorable, [(Some(1), None), (None, Some(1))]);
}
