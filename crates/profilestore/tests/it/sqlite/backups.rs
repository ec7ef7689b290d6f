//! Backups: taken under load, restored under a new incarnation.

use profilestore::data_store::{Existing, ServerId};

use super::*;

async fn register(store: &SqliteStore) -> Change {
    let id = ServerId(Env::system().uuid());
    let register = Change::RegisterServer {
        id,
        place_id: 1,
        job_id: "job".into(),
        lease_ms: 20_000,
        host: None,
        owner: None,
    };
    store.commit_one(make(store, vec![register]).await).await.unwrap();
    Change::RenewServer { id, revision: 1, host: None, acknowledged: vec![] }
}

/// A backup is one moment of a store in use: pairs that are always written together are equal in
/// it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_is_one_moment() {
    let dir = folder();
    let store = open(&path(&dir));
    let copy = dir.path().join("copy.db");
    let keys: Vec<_> = (0..20).map(|n| [key(&format!("a{n}")), key(&format!("b{n}"))]).collect();
    let load = {
        let (store, keys) = (store.clone(), keys.clone());
        tokio::spawn(async move {
            for round in 1_u64.. {
                for [a, b] in &keys {
                    let value = format!("{round} {}", "x".repeat(20_000));
                    let changes = [a, b].map(|key| write(&at(key, round - 1), &value));
                    store.commit_one(make(&store, changes.to_vec()).await).await.unwrap();
                }
            }
        })
    };
    while state(&store, &keys[19][0]).await.version < 2 {
        tokio::task::yield_now().await;
    }
    let mut steps = Vec::new();
    let taken = {
        let (store, copy) = (store.clone(), copy.clone());
        tokio::task::spawn_blocking(move || {
            store.backup(&copy, |done, total| steps.push((done, total))).unwrap();
            steps
        })
    };
    let steps = taken.await.unwrap();
    let version_then = state(&store, &keys[0][0]).await.version;
    load.abort();
    let _ = load.await;
    let (done, total) = *steps.last().unwrap();
    assert_eq!(done, total);
    assert!(total > 100);

    let restored = open(&copy);
    assert!(restored.check(|_, _| {}).unwrap().problems.is_empty());
    let mut versions = std::collections::BTreeSet::new();
    for [a, b] in &keys {
        let (a, b) = (state(&restored, a).await, state(&restored, b).await);
        assert_eq!((a.version, &a.value), (b.version, &b.value));
        assert!((1..=version_then).contains(&a.version));
        versions.insert(a.version);
    }
    assert!(versions.len() <= 2, "a moment lies within one round: {versions:?}");
    match store.backup(&copy, |_, _| {}) {
        Err(StoreError::Invalid { reason }) => assert!(reason.contains("copy.db"), "{reason}"),
        other => panic!("expected a refusal, found {other:?}"),
    }
    assert!(!dir.path().join("copy.db.partial").exists());
}

/// A store restored while servers use it: their commits are refused, its servers are dead, and its
/// data is that of the backup.
#[tokio::test]
async fn servers_of_before_a_restore_are_refused() {
    let dir = folder();
    let store = open(&path(&dir));
    let renewal = register(&store).await;
    put(&store, &key("p"), "then").await.unwrap();
    let copy = dir.path().join("copy.db");
    store.backup(&copy, |_, _| {}).unwrap();
    put(&store, &key("p"), "later").await.unwrap();
    let late = make(&store, vec![write(&state(&store, &key("p")).await, "late")]).await;
    let renewal = make(&store, vec![renewal]).await;
    let before = store.identity().await.unwrap().incarnation;

    let refused = SqliteStore::restore(&copy, &path(&dir), Existing::Keep, &fast(), |_, _| {});
    assert!(matches!(refused, Err(StoreError::Invalid { .. })), "{refused:?}");
    assert_eq!(text(&state(&store, &key("p")).await), Some("later"));
    let incarnation =
        SqliteStore::restore(&copy, &path(&dir), Existing::Replace, &fast(), |_, _| {}).unwrap();
    assert_ne!(incarnation, before);

    for store in [&store, &open(&path(&dir))] {
        assert_eq!(store.identity().await.unwrap().incarnation, incarnation);
        assert_eq!(text(&state(store, &key("p")).await), Some("then"));
        for commit in [&late, &renewal] {
            match store.commit_one(commit.clone()).await {
                Err(StoreError::Replaced { expected, found }) => {
                    assert_eq!((expected, found), (before, incarnation))
                }
                other => panic!("expected a refusal, found {other:?}"),
            }
        }
        assert!(store.servers().await.unwrap().1.iter().all(|row| row.dead));
        assert!(store.check(|_, _| {}).unwrap().problems.is_empty());
    }
    put(&store, &key("p"), "goes on").await.unwrap();
    // The backup itself is as it was, and may be restored elsewhere too.
    let elsewhere = dir.path().join("elsewhere.db");
    let another =
        SqliteStore::restore(&copy, &elsewhere, Existing::Keep, &fast(), |_, _| {}).unwrap();
    assert!(another != before && another != incarnation);
    assert_eq!(text(&state(&open(&elsewhere), &key("p")).await), Some("then"));
    assert_eq!(open(&copy).identity().await.unwrap().incarnation, before);
}

/// A backup that is damaged, missing or not ours changes nothing.
#[tokio::test]
async fn a_damaged_backup_is_not_restored() {
    let dir = folder();
    let store = open(&path(&dir));
    for n in 0..50 {
        put(&store, &key(&format!("p{n}")), &"x".repeat(3000)).await.unwrap();
    }
    let copy = dir.path().join("copy.db");
    store.backup(&copy, |_, _| {}).unwrap();
    let mut bytes = std::fs::read(&copy).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0x5a);
    std::fs::write(&copy, bytes).unwrap();
    let before = store.identity().await.unwrap().incarnation;
    let notes = dir.path().join("notes.txt");
    std::fs::write(&notes, "no database at all, but long enough\n".repeat(100)).unwrap();
    for (from, damaged) in [(&copy, true), (&notes, false), (&dir.path().join("missing.db"), false)]
    {
        for to in [path(&dir), dir.path().join("new.db")] {
            match SqliteStore::restore(from, &to, Existing::Replace, &fast(), |_, _| {}) {
                Err(StoreError::Corrupt { reason }) if damaged => {
                    assert!(reason.contains("copy.db"), "{reason}")
                }
                Err(StoreError::Invalid { .. }) if !damaged => {}
                other => panic!("expected a refusal, found {other:?}"),
            }
        }
    }
    assert!(!dir.path().join("new.db").exists());
    assert_eq!(store.identity().await.unwrap().incarnation, before);
    assert_eq!(state(&store, &key("p49")).await.version, 1);
}

/// A cron job that found an empty file under the name of its backup kept it, and was blocked.
#[tokio::test]
async fn what_a_killed_backup_left_behind_is_replaced() {
    let dir = folder();
    let store = open(&path(&dir));
    put(&store, &key("p"), "then").await.unwrap();
    let copy = dir.path().join("copy.db");
    for left in ["copy.db", "copy.db.partial", "copy.db.partial-journal"] {
        let text = if left == "copy.db" { "" } else { "half of a backup" };
        std::fs::write(dir.path().join(left), text).unwrap();
    }
    let report = store.backup(&copy, |_, _| {}).unwrap();
    assert_eq!((report.problems, report.damaged), (vec![], vec![]));
    assert_eq!((report.profiles, report.versions), (1, 1));
    let stored_ms = state(&store, &key("p")).await.head.map(|head| head.stored_ms);
    assert!(stored_ms.is_some() && report.newest_ms == stored_ms);
    let fresh = dir.path().join("fresh.db");
    std::fs::write(&fresh, "").unwrap();
    SqliteStore::restore(&copy, &fresh, Existing::Keep, &fast(), |_, _| {}).unwrap();
    for name in [copy, fresh] {
        assert_eq!(text(&state(&open(&name), &key("p")).await), Some("then"));
    }
    let left = std::fs::read_dir(dir.path()).unwrap();
    let left = left
        .filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().contains("partial"));
    assert_eq!(left.count(), 0);
}

/// While it is written, a backup has another name, which no other backup takes.
#[tokio::test]
async fn a_backup_has_its_name_only_when_it_is_complete() {
    let dir = folder();
    let store = open(&path(&dir));
    put(&store, &key("p"), &"x".repeat(100_000)).await.unwrap();
    let copy = dir.path().join("copy.db");
    let mut looks = 0;
    let look = |_, _| {
        looks += 1;
        assert!(!copy.exists() && dir.path().join("copy.db.partial").exists());
        match store.backup(&copy, |_, _| {}) {
            Err(StoreError::Unavailable { reason }) => {
                assert!(reason.contains("another process is writing"), "{reason}")
            }
            other => panic!("expected a refusal, found {other:?}"),
        }
    };
    store.backup(&copy, look).unwrap();
    assert!(looks > 0 && copy.exists());
    // A file that came meanwhile is left alone.
    let taken = dir.path().join("taken.db");
    let refused = store.backup(&taken, |_, _| std::fs::write(&taken, "mine").unwrap());
    assert!(matches!(refused, Err(StoreError::Invalid { .. })), "{refused:?}");
    assert_eq!(std::fs::read_to_string(&taken).unwrap(), "mine");
    // So has a store that is restored.
    let (restored, mut looks) = (dir.path().join("restored.db"), 0);
    let look = |_, _| {
        looks += 1;
        assert!(!restored.exists() && dir.path().join("restored.db.partial").exists());
    };
    SqliteStore::restore(&copy, &restored, Existing::Keep, &fast(), look).unwrap();
    assert!(looks > 0 && restored.exists());
}
