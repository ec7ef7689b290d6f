//! A store's files are deleted or replaced while it is open.

use std::{fs, path::PathBuf};

use profilestore::data_store::Existing;

use super::*;

fn beside(dir: &TempDir, more: &str) -> PathBuf {
    let mut name = path(dir).into_os_string();
    name.push(more);
    name.into()
}

fn rescued(dir: &TempDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().contains(".rescued-")).collect()
}

async fn value(path: &Path) -> Option<Bytes> {
    let store = open(path);
    state(&store, &key("a")).await.value
}

#[tokio::test]
async fn what_was_acknowledged_is_rescued_when_a_file_of_the_store_is_deleted() {
    for deleted in [&["-wal"][..], &["-shm"], &["-wal", "-shm"], &[""], &["", "-wal", "-shm"]] {
        let dir = folder();
        let store = open(&path(&dir));
        put(&store, &key("a"), "one").await.unwrap();
        for more in deleted {
            fs::remove_file(beside(&dir, more)).unwrap();
        }
        for _ in 0..2 {
            match put(&store, &key("a"), "two").await {
                Err(StoreError::Unavailable { reason }) => {
                    assert!(reason.contains("all that was acknowledged is in `"), "{reason}");
                }
                other => panic!("{deleted:?}: expected an outage, found {other:?}"),
            }
        }
        let [rescued] = &rescued(&dir)[..] else { panic!("{deleted:?}: one file is rescued") };
        // Neither this process nor another one goes on with what is left.
        for opened in [
            SqliteStore::open(path(&dir), fast()).map(drop),
            SqliteStore::open_to_read(path(&dir), fast()).map(drop),
        ] {
            let Err(StoreError::Invalid { reason }) = opened else { panic!("{opened:?}") };
            let typed = format!("restore --force {}", rescued.display());
            assert!(reason.contains(&typed), "{reason}");
        }
        drop(store);
        SqliteStore::restore(rescued, &path(&dir), Existing::Replace, &fast(), |_, _| {}).unwrap();
        fs::remove_file(rescued).unwrap();
        assert_eq!(value(&path(&dir)).await.unwrap(), "one", "{deleted:?}");
        let report = open(&path(&dir)).check(|_, _| {}).unwrap();
        assert!(report.problems.is_empty() && report.damaged.is_empty(), "{report:?}");
    }
}

#[tokio::test]
async fn a_store_that_is_replaced_under_a_program_is_left_as_it_is() {
    let (dir, other) = (folder(), folder());
    let (store, replacement) = (open(&path(&dir)), open(&path(&other)));
    put(&store, &key("a"), "one").await.unwrap();
    put(&replacement, &key("a"), "other").await.unwrap();
    drop(replacement);
    fs::rename(path(&other), path(&dir)).unwrap();
    let content = fs::read(path(&dir)).unwrap();
    assert!(matches!(put(&store, &key("a"), "two").await, Err(StoreError::Unavailable { .. })));
    drop(store);
    assert_eq!(fs::read(path(&dir)).unwrap(), content);
    let [rescued] = &rescued(&dir)[..] else { panic!("one file is rescued") };
    assert_eq!(value(rescued).await.unwrap(), "one");
}

#[tokio::test]
async fn what_was_acknowledged_is_rescued_when_the_store_is_closed_without_another_commit() {
    let dir = folder();
    let store = open(&path(&dir));
    put(&store, &key("a"), "one").await.unwrap();
    fs::remove_file(beside(&dir, "-wal")).unwrap();
    drop(store);
    let [rescued] = &rescued(&dir)[..] else { panic!("one file is rescued") };
    assert_eq!(value(rescued).await.unwrap(), "one");
}

#[tokio::test]
async fn two_stores_on_a_file_rescue_what_both_acknowledged() {
    let dir = folder();
    let (a, b) = (open(&path(&dir)), open(&path(&dir)));
    put(&a, &key("a"), "one").await.unwrap();
    put(&b, &key("b"), "two").await.unwrap();
    fs::remove_file(beside(&dir, "-wal")).unwrap();
    for store in [&a, &b] {
        assert!(matches!(
            put(store, &key("a"), "three").await,
            Err(StoreError::Unavailable { .. })
        ));
    }
    for rescued in rescued(&dir) {
        let store = open(&rescued);
        assert_eq!(state(&store, &key("a")).await.value.unwrap(), "one");
        assert_eq!(state(&store, &key("b")).await.value.unwrap(), "two");
    }
}

#[test]
fn a_backup_under_the_name_of_a_file_that_was_deleted_does_not_read_its_log() {
    let dir = folder();
    drop(open(&path(&dir)));
    let target = dir.path().join("again.db");
    fs::write(dir.path().join("again.db-wal"), b"a log that was left behind").unwrap();
    SqliteStore::restore(&path(&dir), &target, Existing::Keep, &fast(), |_, _| {}).unwrap();
    assert!(!dir.path().join("again.db-wal").exists());
    open(&target);
}
