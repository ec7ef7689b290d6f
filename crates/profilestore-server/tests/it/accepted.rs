//! Hostile JSON at every way in over the network: each takes what the others take, and what is
//! taken stays what it was.
//!
//! `PROFILESTORE_STORABLE_CASES` says how many random values there are beside the hostile ones (20
//! otherwise).

use std::{collections::BTreeMap, io::Cursor};

use profilestore::{
    data_store::{DataStore, MemoryStore},
    env::Env,
    storable::MAX_DEPTH,
    transfer::{ExportFilter, ImportOptions, export, import, verify},
};
use profilestore_server::config::Options;
use profilestore_testbed::{GameClient, any_json, hostile_json};
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::TestRunner,
};
use serde_json::{Value, json};

use crate::{Served, client::Client, operation};

const OVER_HTTP: [&str; 5] = ["put", "merge", "patch", "edit", "message"];
const OVER_THE_SOCKET: [&str; 4] = ["save", "end", "trade", "gift"];

/// What is longer may be too long for an edit or a message.
const SHORT: usize = 60 << 10;

/// How many lists and objects there are around a value in [`data_with`].
const AROUND: usize = 2;

/// Data that has a text of JSON in it.
fn data_with(text: &str) -> String {
    format!("{{\"coins\":1,\"v\":{{\"x\":{text}}}}}")
}

/// A body or a frame with JSON as it is written in the place of `"@"`.
fn with(around: &Value, json: &str) -> String {
    around.to_string().replacen("\"@\"", json, 1)
}

/// Whether a way takes a value.
async fn over_http(admin: &Client, way: &str, key: &str, text: &str) -> bool {
    let path = format!("/v1/stores/PlayerData/profiles/{key}");
    let new = admin.header("If-None-Match", "*");
    let once = admin.header("Idempotency-Key", &operation());
    let answer = match way {
        "put" => new.put(&path, &with(&json!({ "data": "@" }), &data_with(text))).await,
        "message" => {
            let body = with(&json!({ "message": "@" }), &data_with(text));
            once.post(&format!("{path}/messages"), &body).await
        }
        _ => {
            let made = new.put(&path, r#"{"data":{"coins":1}}"#).await;
            made.is(201);
            let known = admin.header("If-Match", made.etag());
            if way == "merge" {
                let merge = known.header("Content-Type", "application/merge-patch+json");
                let body = with(&json!({ "v": { "x": "@" } }), text);
                merge.with_body("PATCH", &path, &body).await
            } else {
                let step = json!([{ "op": "add", "path": "/v", "value": { "x": "@" } }]);
                let patch = if way == "edit" { once } else { known };
                let patch = patch.header("Content-Type", "application/json-patch+json");
                let (method, path) = match way {
                    "edit" => ("POST", format!("{path}/edits")),
                    _ => ("PATCH", path),
                };
                patch.with_body(method, &path, &with(&step, text)).await
            }
        }
    };
    answer.status / 100 == 2
}

/// The same of a way for game servers. `s` is a session that was not used before.
async fn over_the_socket(game: &mut GameClient, s: u64, way: &str, key: &str, text: &str) -> bool {
    if way != "gift" {
        game.start(s, key).await;
    }
    let i = game.number();
    let id = format!("{}:{key}", Env::system().unix_ms());
    let gift = json!({ "store": "PlayerData", "key": key, "id": id, "message": "@" });
    let part = json!({ "s": s, "n": 1, "data": "@" });
    let (frame, taken) = match way {
        "save" => (json!({ "save": { "i": i, "s": s, "n": 1, "data": "@" } }), "saved"),
        "end" => (json!({ "end": { "i": i, "s": s, "n": 1, "data": "@" } }), "ended"),
        "trade" => (json!({ "tx": { "i": i, "parts": [part] } }), "done"),
        _ => (json!({ "send": { "i": i, "gift": gift } }), "sent"),
    };
    game.send_text(with(&frame, &data_with(text))).await;
    let is_taken = game.answer(i).await[taken].is_object();
    if way != "gift" && !(way == "end" && is_taken) {
        let ended = game.end(s, 2).await;
        assert!(ended["ended"].is_object(), "{ended}");
    }
    is_taken
}

async fn exported(store: &dyn DataStore) -> Vec<u8> {
    let mut lines = Vec::new();
    export(store, &ExportFilter::default(), &mut lines, &mut |_| {}).await.unwrap();
    lines
}

/// A way, a value's number, and whether the way has taken it.
type Tried = (&'static str, usize, bool);

/// Puts values in by every way.
async fn tried(served: &Served, values: &[String]) -> Vec<Tried> {
    let admin = served.admin();
    // It says nothing while values go in by HTTP.
    let minute = Some(60_000);
    let mut game = GameClient::connect_for(served.address, &served.admin, "eu-1", minute).await;
    let (mut all, mut s) = (Vec::new(), 0);
    for (n, text) in values.iter().enumerate() {
        let begin = all.len();
        for way in OVER_HTTP {
            // A merge patch with a `null` takes away what is there.
            if way != "merge" || !text.contains("null") {
                let taken = over_http(&admin, way, &format!("{way}-{n}"), text).await;
                all.push((way, n, taken));
            }
        }
        for way in OVER_THE_SOCKET {
            s += 1;
            let key = format!("{way}-{n}");
            all.push((way, n, over_the_socket(&mut game, s, way, &key, text).await));
        }
        let said: &[Tried] = &all[begin..];
        let is_one_mind = said.iter().all(|(.., taken)| *taken == said[0].2);
        assert!(is_one_mind || text.len() >= SHORT, "{said:?}: {text}");
    }
    all
}

/// Looks at all that is stored. Gives how many values each way has taken.
async fn stays_whole(
    store: &dyn DataStore,
    values: &[String],
    tried: &[Tried],
) -> BTreeMap<&'static str, usize> {
    let checked = verify(store, &ExportFilter::default(), &mut |_| {}).await.unwrap();
    assert!(checked.unreadable.is_empty() && checked.unstorable.is_empty(), "{checked:?}");
    let lines = exported(store).await;
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        (line["key"].as_str().unwrap().to_owned(), line)
    };
    // Of the lines of a key the last one counts.
    let found: BTreeMap<String, Value> =
        std::str::from_utf8(&lines).unwrap().lines().map(line).collect();
    let mut taken = BTreeMap::new();
    for (way, n, is_taken) in tried {
        let line = found.get(&format!("{way}-{n}")).unwrap_or(&Value::Null);
        let stored = match *way {
            "message" | "gift" => {
                let messages = line["value"]["GlobalUpdates"][1].as_array();
                messages.and_then(|rows| rows.first()?.as_array()?.last())
            }
            _ => Some(&line["value"]["Data"]).filter(|data| data.get("v").is_some()),
        };
        let expected: Option<Value> =
            is_taken.then(|| serde_json::from_str(&data_with(&values[*n])).unwrap());
        let shown: String = values[*n].chars().take(200).collect();
        assert!(stored == expected.as_ref(), "{way}: {shown}");
        *taken.entry(*way).or_default() += usize::from(*is_taken);
    }
    let env = Env::system();
    let again = MemoryStore::new(env.clone());
    let options = ImportOptions::default();
    let report = import(&again, &env, Cursor::new(&lines), &options, &mut |_| {}).await.unwrap();
    assert!(report.skipped.is_empty() && report.malformed.is_empty(), "{report:?}");
    assert!(exported(&again).await == lines, "an import gives another export");
    taken
}

async fn served() -> Served {
    Served::with(Options { requests_per_second: Some(100_000), ..Options::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_json_that_a_way_over_the_network_takes_stays_whole() {
    let served = served().await;
    let values = hostile_json(MAX_DEPTH - AROUND);
    let tried = tried(&served, &values).await;
    let taken = stays_whole(&served.store, &values, &tried).await;
    println!("of {} values taken: {taken:?}", values.len());
    assert_eq!(taken.len(), OVER_HTTP.len() + OVER_THE_SOCKET.len());
    assert!(taken.values().all(|count| (25..values.len() - 10).contains(count)), "{taken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn random_json_that_a_way_over_the_network_takes_stays_whole() {
    let cases = std::env::var("PROFILESTORE_STORABLE_CASES").ok();
    let cases: usize = cases.map_or(20, |text| text.parse().expect("a number"));
    let served = served().await;
    let (mut runner, any) = (TestRunner::deterministic(), any_json());
    let values: Vec<_> = (0..cases).map(|_| any.new_tree(&mut runner).unwrap().current()).collect();
    let tried = tried(&served, &values).await;
    let taken = stays_whole(&served.store, &values, &tried).await;
    println!("of {cases} values taken: {taken:?}");
}
