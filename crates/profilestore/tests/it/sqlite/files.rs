//! Files: opening, reopening, files that are not ours, full disks, damage.

use std::{fs, time::Duration};

use profilestore::data_store::{KeyFilter, KeyQuery, LeaseState, Retention, ServerId, VersionRef};
use rusqlite::Connection;

use super::*;

fn opening_fails(path: &Path, options: SqliteOptions) -> StoreError {
    SqliteStore::open(path, options).expect_err("the file is refused")
}

/// The message of a refusal, which always names the file.
fn refusal(path: &Path) -> String {
    match opening_fails(path, fast()) {
        StoreError::Invalid { reason } => {
            assert!(reason.contains(&path.display().to_string()), "{reason}");
            reason
        }
        other => panic!("expected a refusal, found {other:?}"),
    }
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let dir = folder();
    let (incarnation, before) = {
        let store = open(&path(&dir));
        put(&store, &key("a"), "one").await.unwrap();
        put(&store, &key("a"), "two").await.unwrap();
        (store.identity().await.unwrap().incarnation, state(&store, &key("a")).await)
    };
    let files: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["players.db"], "a closed store is a single file");
    let store = open(&path(&dir));
    assert_eq!(store.identity().await.unwrap().incarnation, incarnation);
    assert_eq!(state(&store, &key("a")).await, before);
    assert!(store.check(|_, _| {}).unwrap().problems.is_empty());
}

#[tokio::test]
async fn an_empty_file_becomes_a_store() {
    let dir = folder();
    fs::write(path(&dir), b"").unwrap();
    put(&open(&path(&dir)), &key("a"), "one").await.unwrap();
}

/// Its log was looked for beside the link, and said to be deleted.
#[cfg(unix)]
#[tokio::test]
async fn a_link_stands_for_the_file_that_it_leads_to() {
    let dir = folder();
    let (there, link) = (dir.path().join("there"), dir.path().join("link.db"));
    fs::create_dir(&there).unwrap();
    // Over another link, and to a file that is not there yet.
    std::os::unix::fs::symlink("there/second.db", &link).unwrap();
    std::os::unix::fs::symlink("game.db", there.join("second.db")).unwrap();
    let game = there.join("game.db");
    {
        let store = open(&link);
        assert_eq!(store.path(), game);
        put(&store, &key("a"), "one").await.unwrap();
        store.check_files().unwrap();
        let reading = SqliteStore::open_to_read(&link, fast()).unwrap();
        assert_eq!(text(&state(&reading, &key("a")).await), Some("one"));
    }
    assert_eq!(SqliteStore::earlier_format(&link).unwrap(), None);
    assert!(link.is_symlink() && !game.is_symlink());
    // What was rescued lies beside the file.
    let kept = there.join("game.db.rescued-1");
    fs::write(&kept, "x").unwrap();
    for refused in [SqliteStore::open(&link, fast()), SqliteStore::open_to_read(&link, fast())] {
        let refused = refused.expect_err("an operator has to decide");
        let said = format!("{refused:?}");
        assert!(said.contains(&kept.display().to_string()), "{said}");
    }
}

#[test]
fn files_that_are_not_ours_are_left_alone() {
    let dir = folder();
    let garbage = dir.path().join("notes.txt");
    fs::write(&garbage, "just some notes, long enough to be taken for a header\n".repeat(200))
        .unwrap();
    assert!(refusal(&garbage).contains("not a SQLite database"));

    let foreign = dir.path().join("other.db");
    Connection::open(&foreign)
        .unwrap()
        .execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
        .unwrap();
    assert!(refusal(&foreign).contains("another application"));
    let count: i64 = Connection::open(&foreign)
        .unwrap()
        .query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))
        .unwrap();
    assert_eq!(count, 1, "nothing was added");

    let newer = dir.path().join("newer.db");
    drop(open(&newer));
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 3).unwrap();
    let reason = refusal(&newer);
    assert!(reason.contains("expected=`2` step=`8` found=`3`"), "{reason}");

    assert!(
        refusal(&dir.path().join("no folder").join("players.db"))
            .contains("check that its folder exists")
    );
    assert!(refusal(dir.path()).contains("cannot be opened"));
}

#[test]
fn damage_of_the_file_is_told_when_it_opens() {
    let dir = folder();
    drop(open(&path(&dir)));
    let mut bytes = fs::read(path(&dir)).unwrap();
    bytes[100..4096].fill(0xff);
    fs::write(path(&dir), bytes).unwrap();
    match opening_fails(&path(&dir), fast()) {
        StoreError::Corrupt { reason } => assert!(reason.contains("restore a backup"), "{reason}"),
        other => panic!("expected damage, found {other:?}"),
    }
}

/// A file that may not grow any more: commits that fit go on, others fail cleanly, and nothing of
/// them is left.
#[tokio::test]
async fn a_full_file_refuses_and_recovers() {
    let dir = folder();
    let options = SqliteOptions { max_file_bytes: Some(1 << 20), ..fast() };
    let store = SqliteStore::open(path(&dir), options).unwrap();
    fill_until_unavailable(&store).await;
    drop(store);
    let store = open(&path(&dir));
    put(&store, &key("after"), "there is room again").await.unwrap();
    assert!(store.check(|_, _| {}).unwrap().problems.is_empty());
}

/// A renewal shared the fate of the saves in its transaction, and the server was taken for dead.
#[tokio::test]
async fn a_renewal_goes_through_on_a_full_file() {
    let dir = folder();
    let options = SqliteOptions { max_file_bytes: Some(1 << 20), ..fast() };
    let store = SqliteStore::open(path(&dir), options).unwrap();
    let id = ServerId(Env::system().uuid());
    let register = Change::RegisterServer {
        id,
        place_id: 1,
        job_id: "job".into(),
        lease_ms: 20_000,
        host: None,
        owner: None,
    };
    store.commit_one(make(&store, vec![register]).await).await.unwrap();
    fill_until_unavailable(&store).await;
    for revision in 1..=3 {
        let save = write(&KeyState::absent(key("new")), &"x".repeat(20_000));
        let renewal = Change::RenewServer { id, revision, host: None, acknowledged: vec![] };
        let commits = vec![make(&store, vec![save]).await, make(&store, vec![renewal]).await];
        let replies = store.commit(commits).await;
        assert!(matches!(replies[0], Err(StoreError::Unavailable { .. })), "{replies:?}");
        let row = replies[1].as_ref().expect("the renewal goes through").server.clone();
        assert_eq!(row.map(|row| row.revision), Some(revision + 1));
    }
}

async fn fill_until_unavailable(store: &SqliteStore) -> u32 {
    let value = "x".repeat(20_000);
    for n in 0..1000 {
        let key = key(&format!("p{n}"));
        let commit = make(store, vec![write(&KeyState::absent(key.clone()), &value)]).await;
        match store.commit_one(commit.clone()).await {
            Ok(_) => {}
            Err(StoreError::Unavailable { reason }) => {
                assert!(reason.contains("full"), "{reason}");
                for before in 0..n {
                    assert_eq!(
                        text(&state(store, &super::key(&format!("p{before}"))).await),
                        Some(value.as_str())
                    );
                }
                assert_eq!(state(store, &key).await.version, 0);
                let again = store.commit_one(commit).await;
                assert!(matches!(again, Err(StoreError::Unavailable { .. })), "{again:?}");
                return n;
            }
            Err(other) => panic!("expected a full disk, found {other:?}"),
        }
    }
    panic!("the disk never fills");
}

/// The log stays within its bounds under a load that never pauses: there is always a commit
/// waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_does_not_grow_for_ever() {
    const TASKS: u64 = 8;
    const ROUNDS: u64 = 400;
    let dir = folder();
    let store = open(&path(&dir));
    let value = "x".repeat(100_000);
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (store, value) = (store.clone(), value.clone());
        tasks.spawn(async move {
            let key = key(&format!("p{task}"));
            for round in 0..ROUNDS {
                store
                    .commit_one(make(&store, vec![write(&at(&key, round), &value)]).await)
                    .await
                    .unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    // About 26 pages a commit went through it.
    let log = fs::metadata(dir.path().join("players.db-wal")).unwrap().len() / 4120;
    assert!((1000..20_000).contains(&log), "{log} pages of {}", TASKS * ROUNDS * 26);
}

/// One damaged record fails alone, is named, and leaves the others usable, in one batch too.
#[tokio::test]
async fn a_damaged_record_fails_alone() {
    let dir = folder();
    let store = open(&path(&dir));
    for name in ["lease", "row", "cause", "good"] {
        put(&store, &key(name), "one").await.unwrap();
    }
    drop(store);
    let raw = Connection::open(path(&dir)).unwrap();
    raw.execute("UPDATE head SET lease = '{\"holder\":7}' WHERE key = 'lease'", []).unwrap();
    raw.execute("DELETE FROM version WHERE id = (SELECT current FROM head WHERE key = 'row')", [])
        .unwrap();
    raw.execute(
        "UPDATE version SET cause = 'whim' WHERE id = (SELECT current FROM head WHERE key \
        = 'cause')",
        [],
    )
    .unwrap();
    drop(raw);

    let store = open(&path(&dir));
    let report = store.check(|_, _| {}).unwrap();
    for name in ["lease", "row", "cause"] {
        assert!(
            report
                .problems
                .iter()
                .any(|problem| problem.contains(&format!("key=`PlayerData/{name}`"))),
            "{report:?}"
        );
        match store.read_one(&key(name), Returning::ALL).await {
            Err(StoreError::Corrupt { reason }) => assert!(reason.contains(name), "{reason}"),
            other => panic!("expected damage, found {other:?}"),
        }
    }
    assert!(
        !report.problems.iter().any(|problem| problem.contains("PlayerData/good")),
        "{report:?}"
    );
    let mut batch = Vec::new();
    for name in ["good", "lease", "row"] {
        batch.push(make(&store, vec![write(&at(&key(name), 1), "two")]).await);
    }
    let replies = store.commit(batch).await;
    assert!(replies[0].is_ok(), "{replies:?}");
    for reply in &replies[1..] {
        assert!(matches!(reply, Err(StoreError::Corrupt { .. })), "{reply:?}");
    }
    assert_eq!(text(&state(&store, &key("good")).await), Some("two"));
}

/// Each promise that rows make to each other is checked, and what breaks it is named.
#[tokio::test]
async fn a_check_names_what_is_wrong() {
    let damage = [
        ("UPDATE head SET version = 9", "key=`PlayerData/p`"),
        ("UPDATE head SET flags = 1", "disagree"),
        ("UPDATE head SET held = 1", "held wrongly"),
        ("UPDATE head SET last_message = 0", "never given out"),
        ("UPDATE head SET waiting = 5", "expected=`5` found=`1`"),
        ("UPDATE message SET name = 'other'", "another identity"),
        ("DELETE FROM profile_user", "user=`7`"),
        ("INSERT INTO profile_user VALUES (8, 1)", "index of users"),
        ("UPDATE version SET number = 5 WHERE number = 1", "belongs elsewhere"),
        ("UPDATE version SET previous = 0", "no key leads to"),
        ("INSERT INTO receipt VALUES (99, x'00', x'00', 1)", "receipts of no key"),
        ("UPDATE head SET key = ''", "no valid name"),
    ];
    for (sql, expected) in damage {
        let dir = folder();
        let store = open(&path(&dir));
        let first = put(&store, &key("p"), "one").await.unwrap();
        let id = profilestore::MessageId::new(Env::system().unix_ms(), "gift").unwrap();
        let message =
            profilestore::data_store::NewMessage { id, payload: Bytes::from_static(b"1") };
        let append = Change::AppendMessage { key: key("p"), message, cap: 10 };
        let seal = Change::Lease {
            key: key("p"),
            revision: 0,
            lease: LeaseState::default(),
            raise_epoch: false,
            seal: true,
        };
        store.commit_one(make(&store, vec![append, seal]).await).await.unwrap();
        store.commit_one(make(&store, vec![write(&first, "two")]).await).await.unwrap();
        let mut steps = Vec::new();
        let report = store.check(|done, total| steps.push((done, total))).unwrap();
        assert_eq!(
            (report.keys, report.versions, report.messages, report.problems),
            (1, 2, 1, vec![])
        );
        assert_eq!(steps.last(), Some(&(1, 1)));
        drop(store);
        Connection::open(path(&dir)).unwrap().execute_batch(sql).unwrap();
        let problems = open(&path(&dir)).check(|_, _| {}).unwrap().problems;
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{sql}: {problems:?}");
    }
}

/// A long history is walked to its end.
#[tokio::test]
async fn a_history_of_many_versions_is_walked() {
    let dir = folder();
    let clock = ManualClock::default();
    let store = SqliteStore::open(path(&dir), timed(&clock)).unwrap();
    for n in 1..=300 {
        put(&store, &key("p"), &n.to_string()).await.unwrap();
        clock.advance(60 * 60 * 1000);
    }
    for number in [1, 150, 300] {
        let version = store.version(&key("p"), &VersionRef::Number(number)).await.unwrap().unwrap();
        assert_eq!(version.value.unwrap(), number.to_string().as_bytes());
    }
    let all =
        KeyQuery { store: None, scope: None, filter: KeyFilter::User(7), after: None, limit: 10 };
    assert_eq!(store.keys(&all).await.unwrap().len(), 1);
    assert_eq!(store.check(|_, _| {}).unwrap().versions, 300);
}

/// A commit under paused time is waited for: no timer runs ahead of it.
#[tokio::test(start_paused = true)]
async fn paused_time_waits_for_a_commit() {
    let dir = folder();
    let store = SqliteStore::open(path(&dir), SqliteOptions::default()).unwrap();
    let started = tokio::time::Instant::now();
    for n in 0..20 {
        let done = tokio::time::timeout(
            std::time::Duration::from_millis(1),
            put(&store, &key("p"), &n.to_string()),
        )
        .await;
        done.expect("no time passes while the store works").unwrap();
    }
    assert_eq!(started.elapsed(), std::time::Duration::ZERO);
}

/// Opening it panicked: SQLite counts milliseconds in 31 bits.
#[tokio::test]
async fn a_store_opens_however_long_it_is_to_wait_for_the_files_lock() {
    let dir = folder();
    let options = SqliteOptions { busy_wait: Duration::MAX, ..fast() };
    let store = SqliteStore::open(path(&dir), options).unwrap();
    put(&store, &key("a"), "one").await.unwrap();
    assert_eq!(text(&state(&store, &key("a")).await), Some("one"));
    store.sweep(Retention { history_ms: 0 }, None).await.unwrap();
    store.empty_log().await.unwrap();
}
