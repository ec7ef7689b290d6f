//! Edits of many profiles through the real program, which is killed.

use std::{net::SocketAddr, time::Duration};

use profilestore::env::Env;
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

fn count(place: &Place, search: &str) -> Value {
    let counted = place.run(&["list", "--json", "--count", "--where", search]);
    let counted: Value = serde_json::from_str(&counted.stdout).unwrap();
    counted["count"].clone()
}

/// SIGKILL in the middle of an edit, again and again: at once, and later and later. A game server
/// that does not answer keeps the edit from its end until the last kill.
#[tokio::test]
async fn an_edit_of_many_profiles_goes_on_after_kills_and_edits_no_profile_twice() {
    let place = Place::new();
    let profiles: String =
        (0..PROFILES).map(|n| line(&format!("p{n:04}"), 1, &profile(100))).collect();
    fs::write(place.path("in.jsonl"), profiles).unwrap();
    place.ok(&["import", "in.jsonl"]);
    let mut server = Running::start(&place, &[]);
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
        server = Running::start(&place, &[]);
        assert!(game.resume(address(&server), named.clone()).await);
        game.expect("resumed").await;
        let view = asked(&server, &key, "GET", &path, "", "");
        assert!(["running", "paused"].contains(&view["state"].as_str().unwrap()), "{view}");
        let view = asked(&server, &key, "POST", &format!("{path}/resume"), "", "");
        assert_eq!((&view["state"], &view["operation"]), (&json!("running"), &json!(id)));
        assert_eq!(count(&place, "/Coins > 101"), 0, "no profile is edited twice");
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
    assert_eq!(count(&place, "/Coins = 101"), PROFILES + 1);
    assert_eq!(count(&place, "not /Coins = 101"), 0);
    // One group in the audit log, complete.
    let audit = asked(&server, &key, "GET", "/v1/audit?grouped=true", "", "");
    let entries = audit["items"].as_array().unwrap().iter();
    let entries: Vec<_> = entries.filter(|entry| entry["operation"] == id).collect();
    assert_eq!(entries.len(), 1, "{audit}");
    assert_eq!(
        (&entries[0]["outcome"], &entries[0]["reason"]),
        (&json!("done"), &json!("a present"))
    );
    // Resumed once more, it does nothing.
    assert_eq!(asked(&server, &key, "POST", &format!("{path}/resume"), "", "")["state"], "done");
    assert!(game.end(1, 3).await["ended"].is_object());
    assert_eq!(server.stop(), 0);
    assert_eq!(count(&place, "/Coins = 101"), PROFILES + 1);
}
