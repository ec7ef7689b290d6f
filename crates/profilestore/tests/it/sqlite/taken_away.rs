//! A store's files are deleted, replaced or overwritten while it is open.

use std::{fs, path::PathBuf, process::Command};

use profilestore::data_store::{Existing, Incarnation};

use super::*;

fn beside(dir: &TempDir, more: &str) -> PathBuf {
    let mut name = path(dir).into_os_string();
    name.push(more);
    name.into()
}

fn rescued(dir: &TempDir) -> Vec<PathBuf> {
    named(dir, ".rescued-")
}

fn named(dir: &TempDir, part: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.to_string_lossy().contains(part)).collect()
}

/// Every call is told, and nothing is kept twice.
async fn is_gone(store: &SqliteStore) {
    let read = store.read_one(&key("a"), Returning::ALL).await;
    assert!(matches!(read, Err(StoreError::TakenAway { .. })), "{read:?}");
    let incarnation = Incarnation(Env::system().uuid());
    let key = key("a");
    let commit = Commit {
        id: CommitId(Env::system().uuid()),
        incarnation,
        from: None,
        changes: vec![Change::Pin { key, version: 1, pinned: true }],
        returning: Returning::HEAD,
        fingerprint: None,
    };
    let done = store.commit_one(commit).await;
    assert!(matches!(done, Err(StoreError::TakenAway { .. })), "{done:?}");
    assert!(matches!(store.check_files(), Err(StoreError::TakenAway { .. })));
}

/// Writes over a file in place, as `cp` does. By another program: one that closes a file loses its
/// own locks on it.
fn copy_over(from: &Path, to: &Path) {
    assert!(Command::new("cp").args([from, to]).status().unwrap().success());
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
        match put(&store, &key("a"), "two").await {
            Err(StoreError::TakenAway { reason }) => {
                let kept = "all that this program acknowledged is in `";
                assert!(reason.contains(kept), "{reason}");
            }
            other => panic!("{deleted:?}: expected that it is told, found {other:?}"),
        }
        is_gone(&store).await;
        let [rescued] = &rescued(&dir)[..] else { panic!("{deleted:?}: one file is rescued") };
        // Neither this process nor another one goes on with what is left.
        for opened in [
            SqliteStore::open(path(&dir), fast()).map(drop),
            SqliteStore::open_to_read(path(&dir), fast()).map(drop),
        ] {
            let Err(StoreError::Invalid { reason }) = opened else { panic!("{opened:?}") };
            let typed = format!("restore {} --store", rescued.display());
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
    assert!(matches!(put(&store, &key("a"), "two").await, Err(StoreError::TakenAway { .. })));
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
        assert!(matches!(put(store, &key("a"), "three").await, Err(StoreError::TakenAway { .. })));
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

/// `cp other.db profiles.db` over a running server's file went unseen, and the server said at its
/// end that all was well.
#[tokio::test]
async fn a_file_that_is_overwritten_in_place_is_noticed_and_nothing_more_is_acknowledged() {
    for checkpointed in [false, true] {
        let (dir, other) = (folder(), folder());
        let (store, replacement) = (open(&path(&dir)), open(&path(&other)));
        put(&store, &key("a"), "one").await.unwrap();
        put(&replacement, &key("a"), "other").await.unwrap();
        drop(replacement);
        if checkpointed {
            store.empty_log().await.unwrap();
        }
        put(&store, &key("b"), "two").await.unwrap();
        copy_over(&path(&other), &path(&dir));
        match put(&store, &key("a"), "three").await {
            Err(StoreError::TakenAway { reason }) => {
                assert!(reason.contains("wrote over the store's file"), "{reason}");
                assert!(reason.contains("is not kept"), "{reason}");
            }
            found => panic!("expected that it is noticed, found {found:?}"),
        }
        is_gone(&store).await;
        drop(store);
        // What is there now is left as it is, and no program mixes it with the log of before.
        assert_eq!(fs::read(path(&dir)).unwrap(), fs::read(path(&other)).unwrap());
        let [remains] = &named(&dir, ".remains-")[..] else { panic!("one file is kept") };
        let Err(StoreError::Invalid { reason }) = SqliteStore::open(path(&dir), fast()) else {
            panic!("it is opened")
        };
        assert!(reason.contains(&remains.display().to_string()), "{reason}");
        // As the message says: all of it away, and the backup back.
        let kept = folder();
        for file in [path(&dir), beside(&dir, "-wal"), beside(&dir, "-shm"), remains.clone()] {
            if file.exists() {
                fs::rename(&file, kept.path().join(file.file_name().unwrap())).unwrap();
            }
        }
        SqliteStore::restore(&path(&other), &path(&dir), Existing::Keep, &fast(), |_, _| {})
            .unwrap();
        assert_eq!(value(&path(&dir)).await.unwrap(), "other");
    }
}

/// Only checkpoints write to the file of an open store, those of other programs too.
#[tokio::test]
async fn checkpoints_of_others_are_not_taken_for_another_programs_writing() {
    let dir = folder();
    let (a, b) = (open(&path(&dir)), open(&path(&dir)));
    for round in 0..20 {
        put(&a, &key("a"), &format!("a{round}")).await.unwrap();
        put(&b, &key("b"), &format!("b{round}")).await.unwrap();
        if round % 3 == 0 {
            b.empty_log().await.unwrap();
        }
        if round % 7 == 0 {
            b.vacuum().await.unwrap();
        }
    }
    let c = open(&path(&dir));
    put(&c, &key("c"), "c").await.unwrap();
    assert_eq!(value(&path(&dir)).await.unwrap(), "a19");
    assert!(named(&dir, ".remains-").is_empty());
}

/// An edit by another command, in the seconds until the server noticed, was acknowledged and then
/// lost with the advice that was printed; and sessions were shown as free.
#[tokio::test]
async fn a_log_that_was_deleted_under_another_program_is_noticed_when_the_store_is_opened() {
    for deleted in ["-wal", "-shm"] {
        let dir = folder();
        let store = open(&path(&dir));
        put(&store, &key("a"), "one").await.unwrap();
        fs::remove_file(beside(&dir, deleted)).unwrap();
        for opened in [
            SqliteStore::open(path(&dir), fast()).map(drop),
            SqliteStore::open_to_read(path(&dir), fast()).map(drop),
        ] {
            match opened {
                Err(StoreError::Unavailable { reason }) => {
                    assert!(reason.contains("its log was deleted under it"), "{reason}");
                }
                found => panic!("expected a refusal, found {found:?}"),
            }
        }
        assert!(put(&store, &key("a"), "two").await.is_err());
        let Err(StoreError::Invalid { reason }) = SqliteStore::open(path(&dir), fast()) else {
            panic!("it is opened")
        };
        assert!(reason.contains(".rescued-") && reason.contains("keep them"), "{reason}");
    }
}

/// A log without an index is what a copy of a store in use is, and what a crash of the machine
/// leaves.
#[tokio::test]
async fn a_log_without_an_index_is_read_where_no_program_has_the_file_open() {
    let (dir, copy) = (folder(), folder());
    let store = open(&path(&dir));
    put(&store, &key("a"), "one").await.unwrap();
    for more in ["", "-wal"] {
        copy_over(&beside(&dir, more), &beside(&copy, more));
    }
    assert_eq!(value(&path(&copy)).await.unwrap(), "one");
}
