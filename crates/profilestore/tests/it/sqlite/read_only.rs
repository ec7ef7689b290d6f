//! Stores that are only read.

use std::{collections::BTreeSet, fs};

use super::*;

fn names(dir: &TempDir) -> BTreeSet<String> {
    let entries = fs::read_dir(dir.path()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_backup_that_is_opened_for_reading_stays_as_it_is_and_refuses_commits() {
    let dir = folder();
    let backup = dir.path().join("backup.db");
    {
        let store = open(&path(&dir));
        put(&store, &key("a"), "one").await.unwrap();
        store.backup(&backup, |_, _| {}).unwrap();
    }
    let (before, there) = (fs::read(&backup).unwrap(), names(&dir));
    let store = SqliteStore::open_to_read(&backup, fast()).unwrap();
    assert_eq!(state(&store, &key("a")).await.value.unwrap(), "one");
    assert!(store.check(|_, _| {}).unwrap().problems.is_empty());
    assert_eq!(names(&dir), there, "nothing is made beside it");
    for refused in [put(&store, &key("a"), "two").await.map(drop), store.empty_log().await] {
        match refused {
            Err(StoreError::Invalid { reason }) => {
                assert!(reason.contains("opened for reading only"), "{reason}");
            }
            other => panic!("expected a refusal, found {other:?}"),
        }
    }
    drop(store);
    assert_eq!((fs::read(&backup).unwrap(), names(&dir)), (before, there));
}

#[tokio::test]
async fn a_store_in_use_can_be_opened_for_reading_and_shows_what_comes() {
    let dir = folder();
    let store = open(&path(&dir));
    put(&store, &key("a"), "one").await.unwrap();
    let reading = SqliteStore::open_to_read(path(&dir), fast()).unwrap();
    assert_eq!(state(&reading, &key("a")).await.value.unwrap(), "one");
    put(&store, &key("a"), "two").await.unwrap();
    assert_eq!(state(&reading, &key("a")).await.value.unwrap(), "two");
}

#[test]
fn what_is_no_store_is_not_opened_for_reading() {
    let dir = folder();
    fs::write(path(&dir), b"").unwrap();
    for (name, why) in [("players.db", "the file is empty"), ("none.db", "cannot be opened")] {
        match SqliteStore::open_to_read(dir.path().join(name), fast()) {
            Err(StoreError::Invalid { reason }) => assert!(reason.contains(why), "{reason}"),
            other => panic!("{name}: expected a refusal, found {other:?}"),
        }
    }
    assert_eq!(names(&dir).len(), 1, "nothing is made");
}
