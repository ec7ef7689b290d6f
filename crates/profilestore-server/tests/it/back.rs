//! Places of many profiles, put back to what they were at a time, over HTTP.

use profilestore::env::Env;
use profilestore_server::keys::Scope;
use profilestore_testbed::GameClient;
use serde_json::{Value, json};

use crate::{Served, bulk, client::Client, fill, operation, refused};

const EDITS: &str = "/v1/edits";
const PROFILES: &str = "/v1/stores/PlayerData/profiles";

fn player(number: u64) -> (String, String) {
    (format!("p{number:05}"), format!("{{\"coins\":{number},\"items\":[\"a\"]}}"))
}

/// A time at which all of them were as they are now. Whatever is done from now on is later.
async fn now(caller: &Client) -> i64 {
    let page = caller.get(&format!("{PROFILES}?page_size=500")).await.is(200);
    let stored = page["items"].as_array().unwrap().iter().map(|item| item["stored_ms"].as_i64());
    let at_ms = stored.max().unwrap().unwrap();
    while Env::system().unix_ms() <= at_ms {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    at_ms
}

fn back(at_ms: i64, paths: &[&str]) -> Value {
    json!({ "store": "PlayerData", "back_to": { "time": at_ms.to_string(), "paths": paths } })
}

async fn coins(caller: &Client, key: &str) -> Value {
    caller.get(&format!("{PROFILES}/{key}")).await.is(200)["data"]["coins"].clone()
}

/// Everyone gets more.
async fn exploit(caller: &Client) {
    let body = json!({
        "store": "PlayerData",
        "where": "/coins >= 20",
        "operations": [{ "op": "increase", "path": "/coins", "by": 1000 }],
    });
    let id = operation();
    bulk::begin(caller, &id, &body).await.is(202);
    assert_eq!(bulk::ended(caller, &id).await["state"], "done");
}

#[tokio::test]
async fn a_place_of_all_profiles_is_put_back_to_a_time_and_that_is_undone() {
    let served = Served::start().await;
    let admin = served.admin();
    fill(&served.store, (0..60).map(player)).await;
    let then = now(&admin).await;
    let game = served.game("game-1").await;
    let players = game.store::<Value>("PlayerData").unwrap();
    let held = players.start_session("p00030").await.unwrap();
    exploit(&admin).await;
    fill(&served.store, [("p99999".to_owned(), "{\"coins\":5000}".to_owned())]).await;

    // A dry run shows each of them, some at a time.
    let (mut samples, mut changed, mut token) = (Vec::new(), 0, Value::Null);
    let mut body = back(then, &["/coins"]);
    body["dry_run"] = true.into();
    body["samples"] = 25.into();
    loop {
        body["page_token"] = token;
        let page = admin.post(EDITS, &body.to_string()).await.is(200);
        assert!(page["samples"].as_array().unwrap().len() <= 25);
        samples.extend(page["samples"].as_array().unwrap().iter().cloned());
        changed += page["counts"]["changed"].as_u64().unwrap();
        token = page["next_page_token"].clone();
        if token.is_null() {
            break;
        }
    }
    assert_eq!((samples.len(), changed), (40, 40), "each one that would be changed is shown");
    let first = json!({
        "profile": "PlayerData/p00020",
        "changes": [{ "path": "/coins", "before": 1020, "after": 20 }],
    });
    assert_eq!(samples[0], first);
    assert_eq!(coins(&admin, "p00020").await, 1020, "a dry run changes nothing");

    let id = operation();
    let mut body = back(then, &["/coins"]);
    body["reason"] = "the exploit of 18:30".into();
    let begun = bulk::begin(&admin, &id, &body).await.is(202);
    assert_eq!(begun["back_to"], json!({ "at_ms": then, "paths": ["/coins"] }));
    assert_eq!(begun["operations"], Value::Null);
    let view = bulk::ended(&admin, &id).await;
    // 20 were as they are; one is younger than the time.
    let counts = json!({
        "changed": 40, "unchanged": 20, "refused": 0, "unmatched": 1, "skipped": 0, "before": 0,
    });
    assert_eq!((&view["state"], &view["counts"]), (&json!("done"), &counts), "{view}");
    assert_eq!(coins(&admin, "p00020").await, 20);
    assert_eq!(coins(&admin, "p99999").await, 5000);
    assert_eq!(held.data()["coins"], 30, "its session goes on");
    assert_eq!(bulk::begin(&admin, &id, &body).await.is(202)["state"], "done", "not begun again");
    refused(&bulk::begin(&admin, &id, &back(then, &["/x"])).await, 422, "idempotency-key-reused");

    // The audit log has one group for it, which says what it is.
    let grouped = admin.get("/v1/audit?grouped=true").await.is(200);
    let entries = grouped["items"].as_array().unwrap().iter();
    let entries: Vec<_> = entries.filter(|entry| entry["operation"] == id).collect();
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(
        (&entries[0]["action"], &entries[0]["outcome"]),
        (&json!("put back"), &json!("done"))
    );

    let undo = admin.header("Idempotency-Key", &operation());
    let undoing = undo.post(&format!("{EDITS}/{id}/undo"), "").await.is(202);
    let by = undoing["operation"].as_str().unwrap();
    assert_eq!(bulk::ended(&admin, by).await["counts"]["changed"], 40);
    assert_eq!(coins(&admin, "p00020").await, 1020);
    assert_eq!(held.data()["coins"], 1030);
    held.end_session().await.unwrap();
    assert!(game.shutdown().await.is_complete());
}

#[tokio::test]
async fn putting_back_waits_for_a_game_server_is_paused_and_goes_on() {
    let served = Served::start().await;
    let admin = served.admin();
    fill(&served.store, (0..30).map(player)).await;
    let then = now(&admin).await;
    exploit(&admin).await;
    let mut game = GameClient::connect(served.address, &served.admin, "eu-1").await;
    game.start(1, "p00025").await;
    let id = operation();
    let mut body = back(then, &["/coins"]);
    body["where"] = "/coins >= 1000".into();
    bulk::begin(&admin, &id, &body).await.is(202);
    let waits = bulk::waits(&admin, &id, &mut game).await;
    assert_eq!((&waits["state"], &waits["done"]), (&json!("running"), &json!(29)), "{waits}");
    assert_eq!(admin.post(&format!("{EDITS}/{id}/pause"), "").await.is(202)["state"], "paused");
    assert_eq!(coins(&admin, "p00021").await, 21);
    // What is done to a profile that was seen to stays when it goes on.
    let path = format!("{PROFILES}/p00021");
    let tag = admin.get(&path).await.etag().to_owned();
    admin.header("If-Match", &tag).put(&path, "{\"data\":{\"coins\":7777}}").await.is(200);
    assert_eq!(admin.post(&format!("{EDITS}/{id}/resume"), "").await.is(202)["state"], "running");
    // The run that goes on waits for the game server as the first one did.
    for _ in 0..20 {
        game.pong().await;
        let view = admin.get(&format!("{EDITS}/{id}")).await.is(200);
        assert_eq!(view["state"], "running", "{view}");
    }
    bulk::make(&mut game, 1, 25).await;
    let view = bulk::ended(&admin, &id).await;
    assert_eq!(view["state"], "done", "{view}");
    assert_eq!(coins(&admin, "p00021").await, 7777, "each profile is put back once");
    assert_eq!(coins(&admin, "p00025").await, 25);
}

#[tokio::test]
async fn what_is_wrong_with_putting_back_is_said_before_anything_is_begun() {
    let served = Served::start().await;
    let admin = served.admin();
    fill(&served.store, [player(1)]).await;
    let mut both = back(1, &["/coins"]);
    both["operations"] = json!([{ "op": "set", "path": "/coins", "value": 1 }]);
    let mut wrong_time = back(1, &["/coins"]);
    wrong_time["back_to"]["time"] = "yesterday".into();
    let tomorrow = Env::system().unix_ms() + 24 * 3600 * 1000;
    for (body, told) in [
        (json!({ "store": "PlayerData" }), "either"),
        (both, "either"),
        (wrong_time, "yesterday"),
        (back(tomorrow, &["/coins"]), "still to come"),
        (back(1, &[]), "1 to 20"),
        (back(1, &["coins"]), "JSON pointer"),
    ] {
        let answer = bulk::begin(&admin, &operation(), &body).await;
        refused(&answer, 400, "invalid");
        assert!(answer.text().contains(told), "{told}: {}", answer.text());
    }
    // What a dry run shows has to be readable, then as now.
    let mut body = back(1, &["/coins"]);
    body["dry_run"] = true.into();
    let blind = served.caller(&[Scope::EditsBulk]).await;
    refused(&blind.post(EDITS, &body.to_string()).await, 403, "forbidden");
    body["samples"] = 501.into();
    refused(&admin.post(EDITS, &body.to_string()).await, 400, "invalid");
    assert_eq!(admin.get(EDITS).await.is(200)["items"], json!([]));
}
