//! Import and export, on the records of a real pair of modules (see `tests/data`).

mod interrupted;
mod stored;

use std::{
    collections::BTreeMap,
    io::Cursor,
    sync::atomic::{AtomicU32, Ordering},
};

use async_trait::async_trait;
use bytes::Bytes;
use profilestore::{
    GameServer, ProfileKey,
    data_store::{
        Cause, Change, Commit, CommitId, CommitReply, DataStore, DataStoreExt, Identity, KeyFilter,
        KeyQuery, KeyState, MemoryStore, MessageId, NewMessage, NewValue, Retention, Returning,
        ServerRow, Snapshot, StoreError, StoredVersion, SweepCursor, SweepReport, VersionInfo,
        VersionLinks, VersionQuery, VersionRef,
    },
    env::Env,
    transfer::{
        AlreadyThere, Content, ExportFilter, ExportReport, ImportOptions, ImportReport, Pending,
        TransferError, document, export, import, verify,
    },
};
use serde_json::{Value, json};

const RECORDS: &[u8] = include_bytes!("../../data/upstream-records.jsonl.zst");

pub fn records() -> Vec<u8> {
    zstd::decode_all(RECORDS).unwrap()
}

fn memory() -> MemoryStore {
    MemoryStore::new(Env::system())
}

async fn try_import(store: &dyn DataStore, text: &[u8]) -> Result<ImportReport, TransferError> {
    import(store, &Env::system(), Cursor::new(text), &ImportOptions::default(), &mut |_| {}).await
}

async fn imported(store: &dyn DataStore, text: impl AsRef<[u8]>) -> ImportReport {
    try_import(store, text.as_ref()).await.unwrap()
}

/// Brings the real records into a store.
pub async fn import_real_records(store: &dyn DataStore) {
    assert_eq!(imported(store, records()).await.keys, 209);
}

async fn exported(store: &dyn DataStore) -> (Vec<Value>, ExportReport) {
    let mut text = Vec::new();
    let report = export(store, &ExportFilter::default(), &mut text, &mut |_| {}).await.unwrap();
    (parsed(&text), report)
}

fn parsed(text: &[u8]) -> Vec<Value> {
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// Equal, except that an empty list is an empty table and a number is a number however it is
/// written.
pub fn same(a: &Value, b: &Value) -> bool {
    let is_empty = |value: &Value| *value == json!([]) || *value == json!({});
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, a)| b.get(k).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b || (is_empty(a) && is_empty(b)),
    }
}

fn by_version(lines: Vec<Value>) -> BTreeMap<(String, String, String, u64), Value> {
    let text = |line: &Value, name: &str| line[name].as_str().unwrap().to_owned();
    let key = |line: &Value| {
        (text(line, "store"), text(line, "scope"), text(line, "key"), line["n"].as_u64().unwrap())
    };
    lines.into_iter().map(|line| (key(&line), line)).collect()
}

/// Every version of the one is in the other, whatever the order of the lines.
#[track_caller]
fn assert_same_lines(given: Vec<Value>, found: Vec<Value>) {
    assert_eq!(given.len(), found.len());
    let found = by_version(found);
    for (id, line) in by_version(given) {
        let other = found.get(&id).unwrap_or_else(|| panic!("missing: {id:?}"));
        assert!(same(&line, other), "\ngiven: {line}\nfound: {other}");
    }
}

fn key(name: &str) -> ProfileKey {
    ProfileKey::new("PlayerData", "global", name).unwrap()
}

fn line(name: &str, n: u64, value: Value) -> String {
    let updated_ms = 1_790_000_000_000 + n * 1000;
    let line = json!({ "store": "PlayerData", "scope": "global", "key": name, "n": n, "version": format!("{name}-{n}"),
        "created_ms": 1_790_000_000_000_u64, "updated_ms": updated_ms, "user_ids": [7], "metadata": {}, "value": value });
    format!("{line}\n")
}

fn profile(coins: u64) -> Value {
    json!({ "Data": { "Coins": coins }, "MetaData": { "SessionLoadCount": coins, "MetaTags": {} }, "GlobalUpdates": [0, []] })
}

/// What every store must manage with the real records.
pub(crate) async fn real_records_round_trip(store: &dyn DataStore) {
    let records = records();
    let mut seen = Vec::new();
    let options = ImportOptions { author: "tester".into(), ..ImportOptions::default() };
    let report =
        import(store, &Env::system(), &records[..], &options, &mut |progress| seen.push(progress))
            .await
            .unwrap();
    assert_eq!(
        (report.lines, report.versions, report.keys, report.tombstones),
        (1959, 1959, 209, 0)
    );
    assert_eq!((report.held_sessions, report.handover_requests), (50, 5));
    assert_eq!(report.pending, Pending { keys: 15, entries: 29, locked: 10 });
    assert_eq!((report.skipped, report.malformed), (vec![], vec![]));
    assert_eq!(report.already_there, AlreadyThere::default());
    let foreign: Vec<_> = report
        .foreign
        .iter()
        .map(|foreign| (foreign.key.key(), foreign.n, &*foreign.why))
        .collect();
    let expected = [
        ("8001", 1, "the value is not a table: found=`a string`"),
        ("8002", 1, "the value is not a table: found=`a number`"),
        ("8003", 1, "the value is a list, not a profile"),
        ("8004", 1, "Data is not a table: found=`a number`"),
        ("8005", 1, "the value is not a table: found=`a boolean`"),
        ("8006", 1, "MetaData is not a table: found=`a string`"),
    ];
    assert_eq!(foreign, expected);
    assert_eq!(format!("{:?}", seen.last().unwrap()), "Stored { versions: 1959, of: 1959 }");

    let (lines, report) = exported(store).await;
    assert_same_lines(parsed(&records), lines.clone());
    assert_eq!(
        (report.keys, report.versions, report.foreign, report.tombstones),
        (209, 1959, 6, 0)
    );
    assert_eq!((report.held_sessions, report.handover_requests), (50, 5));
    assert_eq!(report.pending, Pending { keys: 15, entries: 29, locked: 10 });
    assert_eq!(report.unreadable, vec![]);

    let again = imported(store, &records).await;
    assert_eq!((again.versions, again.keys), (0, 0));
    assert_eq!(again.already_there, AlreadyThere { keys: 209, versions: 1959 });
    assert_eq!(again.skipped, vec![]);
    assert_eq!(exported(store).await.0, lines, "the same import again changes nothing");

    let verified = verify(store, &ExportFilter::default(), &mut |_| {}).await.unwrap();
    assert_eq!(verified, report);

    let held = store
        .read_one(&ProfileKey::new("LegacyData", "Season1", "Player_34").unwrap(), Returning::ALL)
        .await
        .unwrap()
        .1;
    assert_eq!((held.epoch, held.version), (1, 64));
    assert_eq!(held.head.unwrap().author, "tester");
}

#[tokio::test]
async fn the_real_records_round_trip_through_memory() {
    real_records_round_trip(&memory()).await;
}

#[tokio::test]
async fn the_real_records_round_trip_through_sqlite() {
    use profilestore::data_store::{SqliteOptions, SqliteStore};
    let folder = tempfile::tempdir().unwrap();
    let store =
        SqliteStore::open(folder.path().join("profiles.db"), SqliteOptions::default()).unwrap();
    real_records_round_trip(&store).await;
}

#[tokio::test]
async fn the_order_of_lines_does_not_matter() {
    let records = records();
    let mut lines: Vec<_> = records.split_inclusive(|byte| *byte == b'\n').collect();
    lines.reverse();
    let (forward, backward) = (memory(), memory());
    imported(&forward, &records).await;
    assert_eq!(imported(&backward, lines.concat()).await.versions, 1959);
    assert_eq!(exported(&forward).await.0, exported(&backward).await.0);
}

#[tokio::test]
async fn an_import_keeps_the_session_and_the_messages_of_a_record() {
    let store = memory();
    let session = |n: u64| json!({ "SessionLoadCount": 3, "LastUpdate": 1_790_000_000 + n, "ActiveSession": [5, "JOB", "S"] });
    let before = json!({ "Data": {}, "MetaData": { "ActiveSession": [4, "OLD", "R"] } });
    let mut text = line("7", 1, before);
    for n in 2..=4 {
        text += &line(
            "7",
            n,
            json!({ "Data": {}, "MetaData": session(n), "GlobalUpdates": [9, [[8, { "Gift": 1 }]]] }),
        );
    }
    let report = imported(&store, text).await;
    assert_eq!((report.held_sessions, report.pending.entries), (1, 1));
    let state = store.read_one(&key("7"), Returning::ALL).await.unwrap().1;
    let holder = state.lease.holder.as_ref().unwrap();
    assert_eq!(
        (holder.place_id, &*holder.job_id, &*holder.session, holder.server),
        (5, "JOB", "S", None)
    );
    assert_eq!(
        holder.since_ms, 1_790_000_002_000,
        "the session was first seen in the second version"
    );
    assert_eq!(holder.last_update_ms, Some(1_790_000_004_000));
    assert_eq!(
        (state.lease.load_count, state.last_message, state.created_ms),
        (3, 9, 1_790_000_000_000)
    );
    let inbox = state.inbox.as_deref().unwrap();
    assert_eq!((inbox[0].index, &inbox[0].payload[..]), (8, &b"{\"Gift\":1}"[..]));
    let found = store.version(&key("7"), &VersionRef::Label("7-2".into())).await.unwrap().unwrap();
    assert_eq!(
        (found.info.number, found.info.written_ms, found.info.cause),
        (2, 1_790_000_002_000, Cause::Import)
    );
    let first = store.version(&key("7"), &VersionRef::Number(1)).await.unwrap().unwrap();
    assert_eq!((first.info.load_count, found.info.load_count), (0, 3));
}

#[tokio::test]
async fn a_damaged_line_leaves_its_key_out_and_nothing_else() {
    let whole = line("cut", 2, profile(2));
    let text = [
        "\u{feff}".to_owned() + &line("good", 2, profile(2)),
        line("cut", 1, profile(1)),
        whole[..whole.len() - 30].to_owned() + "\n",
        "garbage\n".to_owned(),
        "\r\n".to_owned(),
        line("good", 1, profile(1)),
        line("twice", 1, profile(1)) + &line("twice", 1, profile(1)),
        line("gap", 1, profile(1)) + &line("gap", 3, profile(1)),
        line("negative", 1, profile(1)).replace("[7]", "[-7]"),
        line("unnumbered", 1, profile(1)).replace("\"n\":1,", ""),
        line(&"k".repeat(51), 1, profile(1)),
        format!(
            "{{\"store\":\"PlayerData\",\"key\":\"long\",\"value\":\"{}\"}}\n",
            "x".repeat(17 << 20)
        ),
        line("deleted", 1, profile(1)).replace("\"value\"", "\"deleted\":true,\"value\""),
        line("last", 1, profile(1)).trim_end().to_owned(),
    ];
    let store = memory();
    let report = imported(&store, text.concat()).await;
    let malformed: Vec<_> = report
        .malformed
        .iter()
        .map(|bad| (bad.line, bad.key.as_ref().map(|key| key.key().to_owned()), bad.why.as_str()))
        .collect();
    let some = |name: &str| Some(name.to_owned());
    let find = |line: u64| {
        malformed.iter().find(|bad| bad.0 == line).unwrap_or_else(|| panic!("{malformed:?}"))
    };
    assert_eq!(malformed.iter().map(|bad| bad.0).collect::<Vec<_>>(), [3, 4, 11, 12, 13, 14, 15]);
    assert!(find(3).1 == some("cut") && find(3).2.contains("EOF while parsing"), "{malformed:?}");
    assert!(find(4).1.is_none() && find(4).2.contains("expected value"), "{malformed:?}");
    assert_eq!(
        find(11),
        &(11, some("negative"), "at `/user_ids/0`: a user id must not be negative: user_id=`-7`")
    );
    assert_eq!(find(12), &(12, some("unnumbered"), "n is missing"));
    assert!(find(13).1.is_none() && find(13).2.starts_with("key must be 1 to 50 characters"));
    assert_eq!(find(14), &(14, some("long"), "it is too long: limit=`16777216`"));
    assert_eq!(find(15), &(15, some("deleted"), "a deleted version has a value"));
    let skipped: Vec<_> =
        report.skipped.iter().map(|skipped| (skipped.key.key(), &*skipped.why)).collect();
    assert_eq!(skipped.len(), 7);
    assert!(
        skipped[0].0 == "cut" && skipped[0].1.starts_with("line 3 is malformed"),
        "{skipped:?}"
    );
    assert!(skipped.contains(&("gap", "a version is missing: n=`2`")));
    assert!(skipped.contains(&("twice", "a version is given twice: n=`1`")));
    assert_eq!((report.keys, report.versions, report.lines), (2, 3, 16));

    let (lines, _) = exported(&store).await;
    let found: Vec<_> = lines
        .iter()
        .map(|line| (line["key"].as_str().unwrap(), line["n"].as_u64().unwrap()))
        .collect();
    assert_eq!(found, [("good", 1), ("good", 2), ("last", 1)]);
}

#[tokio::test]
async fn a_line_with_two_members_of_one_name_is_refused_and_not_half_read() {
    let twice = |name: &str, from: &str, to: &str| {
        let text = line(name, 1, profile(1)).replace(from, to);
        assert!(text.contains(to), "{text}");
        text
    };
    let text = twice("key", "\"n\":1,", "\"n\":1,\"key\":\"other\",")
        + &twice("value", "\"n\":1,", "\"n\":1,\"value\":5,")
        + &twice("metadata", "\"n\":1,", "\"n\":1,\"metadata\":{\"a\":1,\"a\":2},");
    let store = memory();
    let report = imported(&store, text.replace("\"metadata\":{},", "")).await;
    let whys: Vec<&str> = report.malformed.iter().map(|bad| &*bad.why).collect();
    assert_eq!(report.keys, 0, "{whys:?}");
    assert!(whys[0].contains("two members of one name: name=`key`"), "{whys:?}");
    assert!(whys[1].contains("two members of one name: name=`value`"), "{whys:?}");
    assert_eq!(whys[2], "at `/metadata/a`: an object has two members of this name");
    assert_eq!(exported(&store).await.0, Vec::<Value>::new());
}

#[tokio::test]
async fn a_message_that_check_would_report_is_not_imported() {
    let nested = |depth: usize| {
        serde_json::from_str::<Value>(&("[".repeat(depth) + &"]".repeat(depth))).unwrap()
    };
    let with_message = |name: &str, depth| {
        let mut value = profile(1);
        value["GlobalUpdates"] = json!([7, [[7, nested(depth)]]]);
        line(name, 1, value)
    };
    let store = memory();
    let report = imported(&store, with_message("deep", 100) + &with_message("deeper", 101)).await;
    assert_eq!((report.keys, report.malformed.len()), (1, 1));
    let why = &report.malformed[0].why;
    assert!(
        why.contains("/GlobalUpdates/message 7/0/0") && why.contains("nest too deep: limit=`100`"),
        "{why}"
    );
    let checked = verify(&store, &ExportFilter::default(), &mut |_| {}).await.unwrap();
    assert_eq!((checked.pending.entries, checked.unstorable.len()), (1, 0));
}

#[tokio::test]
async fn a_load_count_that_nothing_can_count_up_does_not_keep_a_profile_from_opening() {
    let counts = [u64::MAX, i64::MAX.unsigned_abs(), 1 << 53];
    let counted = |n: usize| {
        let mut value = profile(5);
        value["MetaData"]["SessionLoadCount"] = counts[n].into();
        line(&n.to_string(), 1, value)
    };
    let store = memory();
    let text: String = (0..counts.len()).map(counted).collect();
    imported(&store, &text).await;
    assert_same_lines(parsed(text.as_bytes()), exported(&store).await.0);
    let server = GameServer::builder(store).start().await.unwrap();
    let players = server.store_builder::<Value>("PlayerData").build().unwrap();
    for n in 0..counts.len() {
        let profile = players.start_session(&n.to_string()).await.unwrap();
        assert_eq!(profile.session_load_count(), 1);
        profile.end_session().await.unwrap();
    }
    assert!(server.shutdown().await.is_complete());
}

#[tokio::test]
async fn what_is_no_list_of_versions_stops_the_import() {
    let store = memory();
    let error = try_import(&store, "a,b,c\n".repeat(20_000).as_bytes()).await.unwrap_err();
    assert!(matches!(&error, TransferError::NotAnExport(first) if first.line == 1), "{error}");
    assert_eq!(exported(&store).await.0, Vec::<Value>::new());
}

#[tokio::test]
async fn a_key_that_exists_is_left_alone() {
    let store = memory();
    let first = line("a", 1, profile(1)) + &line("a", 2, profile(2));
    imported(&store, &first).await;
    imported(&store, line("b", 1, profile(1))).await;
    let before = exported(&store).await.0;

    let other_value = line("a", 1, profile(1)) + &line("a", 2, profile(3));
    let report =
        imported(&store, other_value + &line("b", 1, profile(1)) + &line("c", 1, profile(1))).await;
    assert_eq!(report.skipped.len(), 1);
    assert_eq!(
        (report.skipped[0].key.key(), &*report.skipped[0].why),
        ("a", "the key exists already and differs: n=`2`")
    );
    assert_eq!((report.already_there.keys, report.keys, report.versions), (1, 1, 1));

    let other_label = first.replace("a-1", "a-x");
    assert_eq!(
        imported(&store, other_label).await.skipped[0].why,
        "the key exists already and differs: n=`1`"
    );
    let more = first.clone() + &line("a", 3, profile(3));
    let why = "the key exists already with fewer versions: there=`2` given=`3`";
    assert_eq!(imported(&store, more).await.skipped[0].why, why);

    // It went on since: all that was given is there.
    let state = store.read_one(&key("a"), Returning::HEAD).await.unwrap().1;
    write(&store, Change::write(&state, NewValue::Tombstone)).await;
    assert_eq!(imported(&store, &first).await.already_there.versions, 2);
    let kept: Vec<_> = exported(&store)
        .await
        .0
        .into_iter()
        .filter(|line| line["n"] != 3 && line["key"] != "c")
        .collect();
    assert_eq!(kept, before);
}

/// Short forms for these tests.
trait ChangeExt {
    fn write(state: &KeyState, value: NewValue) -> Change;
    fn message(key: &ProfileKey, name: &str) -> Change;
}

impl ChangeExt for Change {
    fn write(state: &KeyState, value: NewValue) -> Change {
        Change::Write {
            key: state.key.clone(),
            epoch: state.epoch,
            version: state.version,
            value,
            user_ids: vec![],
            cause: Cause::Set,
            author: "test".into(),
            keep_previous: true,
            seal: false,
            imported: None,
        }
    }

    fn message(key: &ProfileKey, name: &str) -> Change {
        let id = MessageId::new(Env::system().unix_ms(), name).unwrap();
        let message = NewMessage { id, payload: Bytes::from_static(b"{\"Gift\":1}") };
        Change::AppendMessage { key: key.clone(), message, cap: 10 }
    }
}

async fn write(store: &dyn DataStore, change: Change) {
    let incarnation = store.identity().await.unwrap().incarnation;
    let id = CommitId(Env::system().uuid());
    let commit = Commit {
        id,
        incarnation,
        from: None,
        changes: vec![change],
        returning: Returning::HEAD,
        fingerprint: None,
    };
    store.commit_one(commit).await.unwrap();
}
