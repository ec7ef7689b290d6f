//! A file of format 1, as the program of before wrote it: migrated when it is opened, or left
//! alone.

use std::{
    fs,
    path::{Path, PathBuf},
};

use profilestore::{
    data_store::{Existing, FORMAT_VERSION, KeyFilter, KeyQuery, VersionRef},
    record::Stored,
    transfer::{ExportFilter, verify},
};
use rusqlite::Connection;

use super::*;

/// Made by the program of format 1: an import with histories, users, a foreign value and a
/// tombstone; messages, an edit, a rollback, a pin and a removal by operators.
const FORMAT_1: &[u8] = include_bytes!("../../data/format-1.db.zst");

/// The same, migrated by a program that knew step 2 of format 2.
const FORMAT_2_STEP_2: &[u8] = include_bytes!("../../data/format-2-step-2.db.zst");

/// The same, migrated by a program that knew step 4 of format 2, which then edited all profiles and
/// erased a user.
const FORMAT_2_STEP_4: &[u8] = include_bytes!("../../data/format-2-step-4.db.zst");

fn file_of_format_1(dir: &TempDir) -> PathBuf {
    file_of(dir, FORMAT_1)
}

fn file_of(dir: &TempDir, packed: &[u8]) -> PathBuf {
    let bytes = zstd::decode_all(packed).expect("the file can be unpacked");
    let path = path(dir);
    fs::write(&path, bytes).expect("the file can be written");
    path
}

fn raw(path: &Path) -> Connection {
    Connection::open(path).expect("the file opens")
}

fn format_of(path: &Path) -> i64 {
    raw(path).query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a number")
}

fn refusal(path: &Path) -> StoreError {
    match SqliteStore::open(path, fast()) {
        Ok(_) => panic!("the store opens"),
        Err(error) => error,
    }
}

/// Every value of the file, with its key and number.
fn values(path: &Path) -> Vec<(String, i64, Option<Vec<u8>>)> {
    let sql = "SELECT h.store || '/' || h.key, v.number, v.value FROM version v \
        JOIN head h ON h.id = v.head ORDER BY v.id";
    let conn = raw(path);
    let mut statement = conn.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[tokio::test]
async fn a_file_of_format_1_is_migrated_when_it_is_opened() {
    let dir = folder();
    let path = file_of_format_1(&dir);
    assert_eq!(format_of(&path), 1);
    let before = values(&path);
    assert!(before.len() > 15, "{}", before.len());

    let store = open(&path);
    let report = store.check(|_, _| {}).unwrap();
    assert_eq!((report.problems, report.damaged), (vec![], vec![]));
    assert_eq!(report.versions as usize, before.len());
    let records = verify(&store, &ExportFilter::default(), &mut |_| {}).await.unwrap();
    assert_eq!(records.unreadable, vec![]);
    let ann = state(&store, &key("ann")).await;
    assert_eq!((ann.version, ann.inbox.as_ref().unwrap().len()), (4, 1));
    let Stored::Profile(record) = Stored::decode(ann.value.as_deref().unwrap()).unwrap() else {
        panic!("a profile")
    };
    assert_eq!(record.user_ids, [7, 8]);
    let pinned = store.version(&key("ann"), &VersionRef::Number(1)).await.unwrap().unwrap();
    assert!(pinned.info.pinned && pinned.value.is_some());
    let of_user =
        KeyQuery { store: None, scope: None, filter: KeyFilter::User(9), after: None, limit: 10 };
    let found = store.keys(&of_user).await.unwrap();
    assert_eq!(found.iter().map(|state| state.key.key()).collect::<Vec<_>>(), ["bob"]);
    assert!(!state(&store, &key("dan")).await.exists());
    put(&store, &key("ann"), "{\"coins\":1}").await.unwrap();
    assert_eq!(store.check(|_, _| {}).unwrap().damaged, vec![]);
    drop(store);
    assert_eq!(format_of(&path), i64::from(FORMAT_VERSION));
    let after = values(&path);
    for value in before {
        assert!(after.contains(&value), "{value:?}");
    }
    assert!(open(&path).check(|_, _| {}).unwrap().problems.is_empty(), "it opens again");
}

/// A program that knows fewer steps goes by the step that the file has reached.
#[test]
fn a_file_of_a_later_step_is_refused_and_left_alone() {
    let dir = folder();
    let path = file_of(&dir, FORMAT_2_STEP_4);
    drop(open(&path));
    let later = "UPDATE meta SET value = CAST('99' AS BLOB) WHERE name = 'step'";
    raw(&path).execute(later, []).unwrap();
    let before = fs::read(&path).unwrap();
    match refusal(&path) {
        StoreError::Invalid { reason } => {
            assert!(reason.contains("or a newer one") && reason.contains("step=`99`"), "{reason}");
        }
        other => panic!("expected a refusal, found {other:?}"),
    }
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_file_of_an_earlier_step_is_migrated_when_it_is_opened() {
    let dir = folder();
    let path = file_of(&dir, FORMAT_2_STEP_2);
    let step_of = || -> String {
        let sql = "SELECT CAST(value AS TEXT) FROM meta WHERE name = 'step'";
        raw(&path).query_row(sql, [], |row| row.get(0)).expect("a step")
    };
    assert_eq!((format_of(&path), step_of()), (2, "2".into()));
    let before = values(&path);
    let store = open(&path);
    let report = store.check(|_, _| {}).unwrap();
    assert_eq!((report.problems, report.damaged), (vec![], vec![]));
    assert_eq!(state(&store, &key("ann")).await.version, 4);
    let (_, servers) = store.servers().await.unwrap();
    assert!(!servers.is_empty());
    assert!(servers.iter().all(|row| (row.host, row.generation) == (None, 0)), "{servers:?}");
    put(&store, &key("ann"), "{\"coins\":1}").await.unwrap();
    drop(store);
    assert!(step_of().parse::<u32>().unwrap() > 2);
    let after = values(&path);
    assert!(before.iter().all(|value| after.contains(value)));
}

/// Until step 6 a checksum was of the value alone. What was damaged then stays damaged.
#[tokio::test]
async fn checksums_of_an_earlier_step_are_made_anew_unless_the_value_is_damaged() {
    let dir = folder();
    let path = path(&dir);
    let store = open(&path);
    for name in ["ann", "bob"] {
        put(&store, &key(name), name).await.unwrap();
    }
    drop(store);
    let file = raw(&path);
    for name in ["ann", "bob"] {
        let sum = crc32fast::hash(if name == "bob" { b"ann" } else { name.as_bytes() });
        let sql = "UPDATE version SET checksum = ?2 \
            WHERE head = (SELECT id FROM head WHERE key = ?1)";
        file.execute(sql, rusqlite::params![name, sum]).unwrap();
    }
    file.execute("UPDATE meta SET value = CAST('5' AS BLOB) WHERE name = 'step'", []).unwrap();
    file.execute("ALTER TABLE head DROP COLUMN last_save", []).unwrap();
    drop(file);
    let store = open(&path);
    assert_eq!(text(&state(&store, &key("ann")).await), Some("ann"));
    let report = store.check(|_, _| {}).unwrap();
    let damaged: Vec<_> = report.damaged.iter().map(|found| found.key.key()).collect();
    assert_eq!((damaged, report.problems), (vec!["bob"], vec![]));
}

/// Entries of the audit log that were written before they had tags are found by what they are
/// about.
#[tokio::test]
async fn a_migration_makes_entries_of_the_audit_log_found_by_their_profiles() {
    for packed in [FORMAT_1, FORMAT_2_STEP_2, FORMAT_2_STEP_4] {
        let dir = folder();
        let store = open(&file_of(&dir, packed));
        crate::audit_log::entries_are_found_by_their_profiles(&store).await;
        let report = store.check(|_, _| {}).unwrap();
        assert_eq!((report.problems, report.damaged), (vec![], vec![]));
    }
}

/// Several processes may open the file at once: one of them migrates it.
#[test]
fn a_file_of_format_1_is_migrated_once() {
    let dir = folder();
    let path = file_of_format_1(&dir);
    std::thread::scope(|scope| {
        let opened: Vec<_> = (0..4).map(|_| scope.spawn(|| open(&path))).collect();
        for store in opened {
            let store = store.join().unwrap();
            assert_eq!(store.check(|_, _| {}).unwrap().damaged, vec![]);
        }
    });
}

/// A program of format 1 that goes on writing would spoil the checksums.
#[test]
fn a_file_in_which_a_server_is_alive_is_not_migrated() {
    let dir = folder();
    let path = file_of_format_1(&dir);
    let now_ms = Env::system().unix_ms();
    raw(&path)
        .execute("UPDATE server SET dead_ms = NULL, renewed_ms = ?1, lease_ms = 20000", [now_ms])
        .unwrap();
    match refusal(&path) {
        StoreError::Unavailable { reason } => {
            for part in ["earlier format", "alive", "job=`", "alive_for_ms=`"] {
                assert!(reason.contains(part), "{part}: {reason}");
            }
        }
        other => panic!("expected a refusal, found {other:?}"),
    }
    assert_eq!(format_of(&path), 1);
    raw(&path).execute("UPDATE server SET renewed_ms = ?1", [now_ms - 20_001]).unwrap();
    drop(open(&path));
    assert_eq!(format_of(&path), i64::from(FORMAT_VERSION));
}

/// A program of format 1 was stopped with the file open, and goes on after the migration: its
/// statements fail before they change anything. One that opens the file goes by the format's
/// number.
#[test]
fn a_program_of_format_1_cannot_commit_to_a_migrated_file() {
    let dir = folder();
    let path = file_of_format_1(&dir);
    let old = raw(&path);
    // The first statement of each of its commits.
    let mut first = old
        .prepare(
            "INSERT INTO outcome (id, at_ms, aborted) VALUES (?1, ?2, 0) ON CONFLICT DO NOTHING",
        )
        .unwrap();
    old.execute_batch("BEGIN").unwrap();
    first.execute(rusqlite::params![[9_u8; 16].as_slice(), 1]).unwrap();
    old.execute_batch("ROLLBACK").unwrap();
    drop(open(&path));
    let error = first.execute(rusqlite::params![[9_u8; 16].as_slice(), 1]).unwrap_err();
    assert!(error.to_string().contains("no such table"), "{error}");
    assert_ne!(format_of(&path), 1);
}

/// A migration that is broken off leaves the file as it was.
#[test]
fn a_migration_is_done_as_a_whole_or_not_at_all() {
    let dir = folder();
    let path = file_of_format_1(&dir);
    // The last thing that a migration does fails.
    raw(&path)
        .execute_batch(
            "CREATE TRIGGER broken BEFORE INSERT ON meta BEGIN SELECT RAISE(ABORT, 'broken'); END",
        )
        .unwrap();
    let error = refusal(&path);
    assert!(error.to_string().contains("broken"), "{error}");
    assert_eq!(format_of(&path), 1);
    let columns = "SELECT count(*) FROM pragma_table_info('version') WHERE name = 'checksum'";
    assert_eq!(raw(&path).query_row(columns, [], |row| row.get(0)), Ok(0_i64));
    raw(&path).execute_batch("DROP TRIGGER broken").unwrap();
    assert_eq!(open(&path).check(|_, _| {}).unwrap().damaged, vec![]);
}

/// A backup of before the migration can be restored, over a store of today too.
#[tokio::test]
async fn a_backup_of_format_1_is_restored() {
    let dir = folder();
    let backup = file_of_format_1(&dir);
    // Its servers are alive in it, as in a backup of a store in use.
    raw(&backup)
        .execute("UPDATE server SET dead_ms = NULL, renewed_ms = ?1", [Env::system().unix_ms()])
        .unwrap();
    let target = dir.path().join("target.db");
    put(&open(&target), &key("other"), "of today").await.unwrap();
    let fresh = dir.path().join("fresh.db");
    for to in [&target, &fresh] {
        SqliteStore::restore(&backup, to, Existing::Replace, &fast(), |_, _| {}).unwrap();
        let store = open(to);
        assert_eq!(state(&store, &key("ann")).await.version, 4);
        let report = store.check(|_, _| {}).unwrap();
        assert_eq!((report.problems, report.damaged), (vec![], vec![]));
    }
    assert_eq!(format_of(&backup), 1, "the backup is as it was");
}

/// A restore over a store of format 1 migrated that first, and so failed where a server was alive
/// in it.
#[tokio::test]
async fn a_restore_over_a_store_of_format_1_does_not_migrate_it_first() {
    let dir = folder();
    let target = file_of_format_1(&dir);
    let alive = "UPDATE server SET dead_ms = NULL, lease_ms = 20000, renewed_ms = ?1";
    raw(&target).execute(alive, [Env::system().unix_ms()]).unwrap();
    let today = dir.path().join("today.db");
    put(&open(&today), &key("other"), "of today").await.unwrap();
    SqliteStore::restore(&today, &target, Existing::Replace, &fast(), |_, _| {}).unwrap();
    assert_eq!(text(&state(&open(&target), &key("other")).await), Some("of today"));
}

/// A look at a file's format changes nothing in it.
#[test]
fn the_format_of_a_file_can_be_asked_without_migrating_it() {
    let dir = folder();
    let path = file_of_format_1(&dir);
    let before = fs::read(&path).unwrap();
    assert_eq!(SqliteStore::earlier_format(&path).unwrap(), Some(1));
    assert_eq!(fs::read(&path).unwrap(), before);
    drop(open(&path));
    assert_eq!(SqliteStore::earlier_format(&path).unwrap(), None);
    assert_eq!(SqliteStore::earlier_format(dir.path().join("none.db")).unwrap(), None);
}

/// A text where a value belongs stopped the migration, the check and the backup without a name.
#[tokio::test]
async fn a_value_of_another_type_is_damage_of_its_version() {
    let dir = folder();
    let path = file_of_format_1(&dir);
    // The file is changed behind SQLite's back: a strict table takes no text there.
    let schema = |from: &str, to: &str| {
        let change = format!(
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, '{from}', \
                '{to}') WHERE name = 'version'; PRAGMA writable_schema = OFF"
        );
        raw(&path).execute_batch(&change).unwrap();
    };
    schema("value BLOB\n) STRICT", "value ANY\n)");
    let spoil = "UPDATE version SET value = 'a text' WHERE number = 2 AND head = \
        (SELECT id FROM head WHERE key = 'ann')";
    assert_eq!(raw(&path).execute(spoil, []).unwrap(), 1);
    schema("value ANY\n)", "value BLOB\n) STRICT");

    let store = open(&path);
    let copy = dir.path().join("copy.db");
    let reports = [store.check(|_, _| {}).unwrap(), store.backup(&copy, |_, _| {}).unwrap()];
    for report in reports {
        let found: Vec<_> =
            report.damaged.iter().map(|found| (found.key.clone(), found.version)).collect();
        assert_eq!(found, [(key("ann"), 2)]);
    }
    match store.version(&key("ann"), &VersionRef::Number(2)).await {
        Err(StoreError::Damaged { key: found, version: 2 }) => assert_eq!(found, key("ann")),
        other => panic!("expected damage, found {other:?}"),
    }
    assert!(store.version(&key("ann"), &VersionRef::Number(1)).await.unwrap().is_some());
}
