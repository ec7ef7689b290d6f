//! Edits of many profiles through the real program, which is killed.

use std::{net::SocketAddr, time::Duration};

use profilestore::{
    ProfileKey,
    data_store::{DataStoreExt as _, Returning, SqliteOptions, SqliteStore},
    env::Env,
    key::RESERVED_STORE,
};
use profilestore_testbed::GameClient;
use serde_json::json;

use super::*;
use crate::serve::Running;

const PROFILES: usize = 1500;

fn address(running: &Running) -> SocketAddr {
    running.url.strip_prefix("http://").unwrap().parse().unwrap()
}

fn asked(running: &Running, key: &str, method: &str, path: &str, body: &str, id: &str) -> Value {
    let more = format!("Idempotency-Key: {id}\r\n");
    let (status, body) = running.ask(key, method, path, &more, body);
    assert!(status < 300, "{method} {path}: {status}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// A folder, and the store that the programs use: `profiles.db` in it, or another.
pub(crate) struct Stage<'a> {
    pub(crate) place: &'a Place,
    pub(crate) store: Option<&'a str>,
}

impl Stage<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.command(args);
        command.envs(self.store.map(|store| ("PROFILESTORE_STORE", store)));
        command
    }

    fn serve(&self) -> Running {
        Running::begin(&mut self.command(&["serve", "--listen", "127.0.0.1:0", "--json"]))
    }

    fn count(&self, search: &str) -> Value {
        let args = ["list", "--json", "--count", "--where", search];
        let counted = Ran::from(self.command(&args).output().unwrap());
        let counted: Value = serde_json::from_str(&counted.stdout).unwrap();
        counted["count"].clone()
    }
}

#[tokio::test]
async fn an_edit_of_many_profiles_goes_on_after_kills_and_edits_no_profile_twice() {
    let place = Place::new();
    goes_on_after_kills(&Stage { place: &place, store: None }).await;
}

/// SIGKILL in the middle of an edit, again and again: at once, and later and later. A game server
/// that does not answer keeps the edit from its end until the last kill. Then it is undone.
pub(crate) async fn goes_on_after_kills(stage: &Stage<'_>) {
    let place = stage.place;
    let profiles: String =
        (0..PROFILES).map(|n| line(&format!("p{n:04}"), 1, &profile(100))).collect();
    fs::write(place.path("in.jsonl"), profiles).unwrap();
    let imported = Ran::from(stage.command(&["import", "in.jsonl"]).output().unwrap());
    assert_eq!(imported.code, 0, "{imported:?}");
    let mut server = stage.serve();
    let key = server.key.clone().unwrap();
    let mut game = GameClient::connect(address(&server), &key, "eu-1").await;
    let started = game.start(1, "held").await;
    let named = json!([[1, "PlayerData", "global", "held", started["epoch"]]]);
    let i = game.number();
    game.send(json!({ "save": { "i": i, "s": 1, "n": 1, "data": { "Coins": 100 } } })).await;
    assert!(game.answer(i).await["saved"].is_object());

    let id = Env::system().uuid().to_string();
    let edit = json!({
        "store": "PlayerData",
        "where": "has /Coins",
        "operations": [{ "op": "increase", "path": "/Coins", "by": 1 }],
        "reason": "a present",
    });
    let path = format!("/v1/edits/{id}");
    asked(&server, &key, "POST", "/v1/edits", &edit.to_string(), &id);
    for wait in [0, 10, 50, 200] {
        tokio::time::sleep(Duration::from_millis(wait)).await;
        server.child.kill().unwrap();
        server.child.wait().unwrap();
        server = stage.serve();
        assert!(game.resume(address(&server), named.clone()).await);
        game.expect("resumed").await;
        let view = asked(&server, &key, "GET", &path, "", "");
        assert!(["running", "paused"].contains(&view["state"].as_str().unwrap()), "{view}");
        let view = asked(&server, &key, "POST", &format!("{path}/resume"), "", "");
        assert_eq!((&view["state"], &view["operation"]), (&json!("running"), &json!(id)));
        assert_eq!(stage.count("/Coins > 101"), 0, "no profile is edited twice");
    }
    // Everything but the held profile is seen to, which has its edit in its inbox.
    loop {
        let view = asked(&server, &key, "GET", &path, "", "");
        if (&view["done"], &view["waiting"]) == (&json!(PROFILES), &json!(1)) {
            break;
        }
        game.pong().await;
    }
    let told = game.expect("edit").await;
    let i = game.number();
    game.send(json!({ "save": {
        "i": i, "s": 1, "n": 2, "data": { "Coins": 101 }, "edits_done": [{ "op": told["op"] }],
    } }))
    .await;
    assert!(game.answer(i).await["saved"].is_object());
    let view = loop {
        let view = asked(&server, &key, "GET", &path, "", "");
        if view["state"] != "running" {
            break view;
        }
        game.pong().await;
    };
    assert_eq!((&view["state"], &view["total"]), (&json!("done"), &json!(PROFILES + 1)), "{view}");
    assert_eq!((&view["counts"]["refused"], &view["error"]), (&json!(0), &json!(null)), "{view}");
    assert_eq!(stage.count("/Coins = 101"), PROFILES + 1);
    assert_eq!(stage.count("not /Coins = 101"), 0);
    is_one_entry(&server, &key, &id);
    // Resumed once more, it does nothing.
    assert_eq!(asked(&server, &key, "POST", &format!("{path}/resume"), "", "")["state"], "done");
    assert!(game.end(1, 3).await["ended"].is_object());
    assert_eq!(stage.count("/Coins = 101"), PROFILES + 1);
    undo(stage, &server, &key, &path).await;
    assert_eq!(server.stop(), 0);
}

/// The audit log shows the edit as one group, which is complete.
fn is_one_entry(server: &Running, key: &str, id: &str) {
    let audit = asked(server, key, "GET", "/v1/audit?grouped=true", "", "");
    let entries = audit["items"].as_array().unwrap().iter();
    let entries: Vec<_> = entries.filter(|entry| entry["operation"] == id).collect();
    assert_eq!(entries.len(), 1, "{audit}");
    assert_eq!(
        (&entries[0]["outcome"], &entries[0]["reason"]),
        (&json!("done"), &json!("a present"))
    );
}

/// Undoes the edit at `path`: every profile has its coins of before.
async fn undo(stage: &Stage<'_>, server: &Running, key: &str, path: &str) {
    let id = Env::system().uuid().to_string();
    asked(server, key, "POST", &format!("{path}/undo"), "", &id);
    let view = loop {
        let view = asked(server, key, "GET", &format!("/v1/edits/{id}"), "", "");
        if view["state"] != "running" {
            break view;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!((&view["state"], &view["counts"]["refused"]), (&json!("done"), &json!(0)), "{view}");
    assert_eq!(stage.count("/Coins = 100"), PROFILES + 1);
    assert_eq!(asked(server, key, "GET", path, "", "")["state"], "undone");
}

/// Waits until an operation runs no more.
async fn ended(server: &Running, key: &str, id: &str) {
    while asked(server, key, "GET", &format!("/v1/edits/{id}"), "", "")["state"] == "running" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// They looked at different places whether an operation is undone, so of two undos that began at
/// the same moment both began.
#[tokio::test]
async fn the_program_and_the_server_book_an_undo_at_the_same_place() {
    let place = Place::new();
    fs::write(place.path("in.jsonl"), line("a", 1, &profile(100))).unwrap();
    place.ok(&["import", "in.jsonl"]);
    let stage = Stage { place: &place, store: None };
    let server = stage.serve();
    let key = server.key.clone().unwrap();
    let edit = json!({
        "store": "PlayerData",
        "operations": [{ "op": "increase", "path": "/Coins", "by": 5 }],
    });
    let [first, second, undo, refused] = [(); 4].map(|()| Env::system().uuid().to_string());
    for id in [&first, &second] {
        asked(&server, &key, "POST", "/v1/edits", &edit.to_string(), id);
        ended(&server, &key, id).await;
    }
    assert_eq!(stage.count("/Coins = 110"), 1);
    let by_program = place.json(&["edit", "--undo", &first, "--yes", "--json"]);
    asked(&server, &key, "POST", &format!("/v1/edits/{second}/undo"), "", &undo);
    ended(&server, &key, &undo).await;
    assert_eq!(stage.count("/Coins = 100"), 1);
    // Each finds what the other one has booked.
    let more = format!("Idempotency-Key: {refused}\r\n");
    let path = format!("/v1/edits/{first}/undo");
    let (status, body) = server.ask(&key, "POST", &path, &more, "");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["undone_by"]), (409, &by_program["operation"]), "{body}");
    let ran = place.run(&["edit", "--undo", &second, "--yes"]);
    assert!(ran.code == 1 && ran.stderr.contains(&format!("--undo {undo}.")), "{ran:?}");
    assert_eq!(stage.count("/Coins = 100"), 1);
    // A later one takes the place of the note.
    place.json(&["edit", "--undo", &second, "--again", "--yes", "--json"]);
    assert_eq!(stage.count("/Coins = 95"), 1);
    let store = SqliteStore::open(place.path("profiles.db"), SqliteOptions::default()).unwrap();
    for (undone, version) in [(&first, 1), (&second, 2)] {
        let note = ProfileKey::new(RESERVED_STORE, "undone", undone).unwrap();
        let (_, note) = store.read_one(&note, Returning::HEAD).await.unwrap();
        assert_eq!(note.version, version);
    }
    drop(store);
    assert_eq!(server.stop(), 0);
}
