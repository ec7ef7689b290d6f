//! What was erased is in no byte of the files: not in free pages, not in unused parts of others,
//! not in the log.

use std::{collections::HashSet, path::Path};

use profilestore::{
    Attribution, GameServer, MessageId,
    data_store::{
        Cause, Change, DAY_MS, DataStore, DataStoreExt as _, NewMessage, NewValue, Order,
        Retention, SqliteStore, StoreError, VersionQuery, VersionRef,
    },
    env::{Env, ManualClock, SeededRng},
};
use serde_json::{Value, json};

use super::{folder, key, make, open, path, state, timed};

const PIECE: usize = 16;

/// Pieces of contents that can be told from everything else.
#[derive(Default)]
struct Traces(HashSet<[u8; PIECE]>);

impl Traces {
    fn add(&mut self, content: &[u8]) {
        self.0.extend(content.as_chunks::<PIECE>().0);
    }

    /// How many of them stand anywhere in the files of a store, at any place.
    fn count_in(&self, path: &Path) -> usize {
        // Few places begin as one of them does, so few are looked up.
        let mut beginnings = vec![false; 1 << 24];
        self.0.iter().for_each(|piece| beginnings[beginning(piece)] = true);
        let is_one = |piece: &[u8; PIECE]| beginnings[beginning(piece)] && self.0.contains(piece);
        let mut found = HashSet::new();
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            let Ok(bytes) = std::fs::read(name) else { continue };
            found.extend(bytes.array_windows::<PIECE>().filter(|&window| is_one(window)).copied());
        }
        found.len()
    }
}

/// The first three bytes, as a number.
fn beginning(piece: &[u8; PIECE]) -> usize {
    u32::from_be_bytes([0, piece[0], piece[1], piece[2]]) as usize
}

/// Content that does not compress.
fn noise(env: &Env, bytes: usize) -> Vec<u8> {
    let words = (0..bytes.div_ceil(PIECE)).flat_map(|_| {
        env.uuid().as_u128().wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes()
    });
    words.take(bytes).collect()
}

async fn write(store: &SqliteStore, name: &str, value: Vec<u8>, keep_previous: bool) {
    let state = state(store, &key(name)).await;
    let write = Change::Write {
        key: state.key,
        epoch: state.epoch,
        version: state.version,
        value: NewValue::Bytes(value.into()),
        user_ids: vec![7],
        cause: Cause::Save,
        author: "test".into(),
        keep_previous,
        seal: false,
        imported: None,
    };
    store.commit_one(make(store, vec![write]).await).await.unwrap();
}

async fn send(store: &SqliteStore, name: &str, id: &MessageId, payload: Vec<u8>) {
    let message = NewMessage { id: id.clone(), payload: payload.into() };
    let append = Change::AppendMessage { key: key(name), message, cap: 1000 };
    store.commit_one(make(store, vec![append]).await).await.unwrap();
}

async fn erase(store: &SqliteStore, name: &str) {
    let state = state(store, &key(name)).await;
    let tombstone = Change::Write {
        key: state.key.clone(),
        epoch: state.epoch,
        version: state.version,
        value: NewValue::Tombstone,
        user_ids: vec![],
        cause: Cause::Remove,
        author: "test".into(),
        keep_previous: true,
        seal: true,
        imported: None,
    };
    let changes = vec![tombstone, Change::Erase { key: state.key, epoch: state.epoch }];
    store.commit_one(make(store, changes).await).await.unwrap();
}

#[tokio::test]
async fn no_byte_of_what_was_ever_stored_under_an_erased_key_is_left() {
    for seed in [2, 3] {
        println!("seed {seed}");
        let (dir, clock) = (folder(), ManualClock::default());
        let env =
            Env::new(std::sync::Arc::new(clock.clone()), std::sync::Arc::new(SeededRng::new(seed)));
        let pick = |below: usize| {
            usize::try_from((env.uuid().as_u128() & 0xffff_ffff) % below as u128).unwrap()
        };
        let store = SqliteStore::open(path(&dir), timed(&clock)).unwrap();
        let (mut erased, mut kept) = (Traces::default(), Traces::default());
        for step in 0..800 {
            clock.advance(10_000);
            let victim = pick(3) == 0;
            let name = format!(
                "{}{}",
                if victim { "victim" } else { "other" },
                pick(if victim { 3 } else { 10 })
            );
            let content = noise(&env, [40, 200, 900, 3000, 9000][pick(5)]);
            if victim {
                erased.add(&content);
            }
            match pick(4) {
                0 => {
                    send(
                        &store,
                        &name,
                        &MessageId::new(env.unix_ms(), &format!("m{step}")).unwrap(),
                        content,
                    )
                    .await
                }
                other => write(&store, &name, content, other == 1).await,
            }
            if step % 400 == 399 {
                clock.advance(31 * DAY_MS);
                let mut cursor = None;
                loop {
                    cursor = store
                        .sweep(Retention { history_ms: 30 * DAY_MS }, cursor)
                        .await
                        .unwrap()
                        .next;
                    if cursor.is_none() {
                        break;
                    }
                }
            }
        }
        for n in 0..10 {
            let state = state(&store, &key(&format!("other{n}"))).await;
            kept.add(state.value.as_ref().unwrap());
            state.inbox.unwrap().iter().for_each(|message| kept.add(&message.payload));
        }
        assert!(erased.count_in(&path(&dir)) > 1000, "what is looked for can be found");
        for n in 0..3 {
            erase(&store, &format!("victim{n}")).await;
        }
        store.empty_log().await.unwrap();
        let crumbs = erased.count_in(&path(&dir));
        assert!(crumbs < erased.0.len() / 200, "seed {seed}: {crumbs} of {}", erased.0.len());
        let before = [state(&store, &key("other1")).await, state(&store, &key("victim1")).await];
        // In slices, and then as a whole.
        store.scrub(|_, _| {}).await.unwrap();
        assert_eq!(erased.count_in(&path(&dir)), 0, "seed {seed}");
        assert!(store.check(|_, _| {}).unwrap().problems.is_empty());
        store.vacuum().await.unwrap();
        assert_eq!(erased.count_in(&path(&dir)), 0, "seed {seed}");
        assert_eq!(
            [state(&store, &key("other1")).await, state(&store, &key("victim1")).await],
            before
        );
        // But for pieces that stand across the border of two pages.
        assert!(
            kept.count_in(&path(&dir)) > kept.0.len() * 99 / 100,
            "what belongs to others is there"
        );
        assert!(store.check(|_, _| {}).unwrap().problems.is_empty());
    }
}

#[tokio::test]
async fn an_erased_user_is_in_no_file_while_other_servers_are_at_work() {
    let dir = folder();
    let [a, b] = [1, 2].map(|_| open(&path(&dir)));
    let env = Env::system();
    let hexed =
        |bytes| noise(&env, bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let on_a = GameServer::builder(a).job_id("a").start().await.unwrap();
    let on_b = GameServer::builder(b.clone()).job_id("b").start().await.unwrap();
    let profiles = on_a.store::<Value>("PlayerData").unwrap();
    let live = profiles.start_session("p").await.unwrap();
    live.add_user_id(7).unwrap();
    for _ in 0..5 {
        live.update(|data| *data = json!({ "letters": hexed(6000) })).unwrap();
        live.save().await.unwrap();
    }
    let gift = hexed(3000);
    on_b.store::<Value>("PlayerData").unwrap().send_message("p", &gift).await.unwrap();

    // Values are compressed, so what is looked for is what the store says it stored.
    let mut traces = Traces::default();
    traces.add(gift.as_bytes());
    let query = VersionQuery {
        key: key("p"),
        order: Order::Ascending,
        from_ms: None,
        to_ms: None,
        after: None,
        limit: 99,
    };
    for info in b.versions(&query).await.unwrap() {
        let version =
            b.version(&key("p"), &VersionRef::Number(info.number)).await.unwrap().unwrap();
        traces.add(&version.value.unwrap()[64..]);
    }
    assert!(
        traces.0.len() > 500 && traces.count_in(&path(&dir)) > 500,
        "what is looked for can be found"
    );

    let report = on_b.operator(Attribution::new("ann")).erase_user(7, false).await.unwrap();
    assert_eq!(
        (report.erased.len(), report.erased[0].messages, report.is_complete()),
        (1, 1, true)
    );
    b.scrub(|_, _| {}).await.unwrap();
    assert_eq!(traces.count_in(&path(&dir)), 0);
    assert!(live.save().await.is_err());
    for server in [on_a, on_b] {
        let _ = server.shutdown().await;
    }
    assert_eq!(traces.count_in(&path(&dir)), 0);
}

/// It was written anew in one piece, and commits waited as long.
#[tokio::test]
async fn commits_come_in_while_a_file_is_cleaned() {
    let dir = folder();
    let [cleaned, other] = [1, 2].map(|_| open(&path(&dir)));
    let env = Env::system();
    for n in 0..600 {
        write(&cleaned, &format!("p{n}"), noise(&env, 3000), false).await;
    }
    let mut begun = Vec::new();
    let slices = |page: u64, _: u64| begun.push(page);
    let work = async {
        for n in 0..50 {
            write(&other, &format!("p{n}"), noise(&env, 5000), true).await;
        }
    };
    let (done, ()) = tokio::join!(cleaned.scrub(slices), work);
    done.unwrap();
    assert!(begun.len() > 1 && begun.windows(2).all(|two| two[1] == two[0] + 256), "{begun:?}");
    assert_eq!(state(&other, &key("p49")).await.version, 2);
    assert!(cleaned.check(|_, _| {}).unwrap().problems.is_empty());
}

#[tokio::test]
async fn a_log_that_is_being_read_is_not_emptied_and_that_is_said() {
    let dir = folder();
    let store = open(&path(&dir));
    write(&store, "p", b"1".to_vec(), false).await;
    let reader = rusqlite::Connection::open(path(&dir)).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    let count = || {
        reader.query_row("SELECT count(*) FROM version", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!(count(), 1);
    write(&store, "p", b"2".to_vec(), true).await;
    let impatient = SqliteStore::open(
        path(&dir),
        profilestore::data_store::SqliteOptions {
            busy_wait: std::time::Duration::from_millis(20),
            ..super::fast()
        },
    );
    let impatient = impatient.unwrap();
    assert!(matches!(impatient.empty_log().await, Err(StoreError::Unavailable { .. })));
    assert!(matches!(impatient.vacuum().await, Err(StoreError::Unavailable { .. })));
    write(&impatient, "p", b"3".to_vec(), true).await;
    reader.execute_batch("ROLLBACK").unwrap();
    store.empty_log().await.unwrap();
    let log = std::fs::metadata(dir.path().join("players.db-wal")).unwrap().len();
    assert_eq!(log, 0);
    write(&store, "p", b"4".to_vec(), true).await;
    assert_eq!(state(&store, &key("p")).await.version, 4);
}
