//! What crosses stores, what is stored of users, and what operators do to sessions.

use std::{sync::Arc, time::Duration};

use axum::{body::Body, http::Request};
use profilestore::{
    Attribution, Edit, GameServer, Settings,
    data_store::{
        Change,
        fault::{Call, Fate, Fault, FaultyStore, OnCommand, StorePlan},
    },
    env::Env,
    operator::{BulkEdit, EditScope},
};
use profilestore_server::{App, Parts, config::Options};
use profilestore_testbed::GameClient;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::{
    Served,
    bulk::{begin, ended},
    operation, refused, serve, settings,
};

#[tokio::test]
async fn servers_sessions_and_metrics_are_shown() {
    let served = Served::start().await;
    let admin = served.admin();
    let game = served.game("game-1").await;
    let players = game.store::<serde_json::Value>("PlayerData").unwrap();
    let profile = players.start_session("user-1").await.unwrap();
    profile.save().await.unwrap();
    let sessions = admin.get("/v1/sessions").await.is(200);
    assert_eq!(sessions["items"][0]["held"]["job"], "game-1");
    let servers = admin.get("/v1/servers").await.is(200);
    let jobs: Vec<_> = servers["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|server| (server["job"].as_str().unwrap(), server["state"].as_str().unwrap()))
        .collect();
    assert!(jobs.contains(&("game-1", "alive")) && jobs.contains(&("desk", "alive")), "{jobs:?}");
    let held = admin.get("/v1/stores/PlayerData/profiles?held=true").await.is(200);
    assert_eq!(held["items"].as_array().unwrap().len(), 1);
    let metrics = admin.get("/metrics").await;
    assert!(metrics.text().contains("profilestore_sessions"), "{}", metrics.text());
    profile.end_session().await.unwrap();
    assert_eq!(admin.get("/v1/sessions").await.is(200)["items"], json!([]));
    assert!(game.shutdown().await.is_complete());
}

#[tokio::test]
async fn a_user_is_found_taken_out_and_erased() {
    let served = Served::start().await;
    let admin = served.admin();
    let game = served.game("game-1").await;
    let players = game.store::<serde_json::Value>("PlayerData").unwrap();
    let profile = players.start_session("user-1").await.unwrap();
    profile.add_user_id(4711).unwrap();
    profile.update(|data| *data = json!({ "name": "Ann" })).unwrap();
    profile.end_session().await.unwrap();
    let found = admin.get("/v1/users/4711/profiles").await.is(200);
    assert_eq!(found["items"][0]["key"], "user-1");
    let export = admin.get("/v1/users/4711/export").await;
    assert_eq!(export.status, 200);
    let line: serde_json::Value =
        serde_json::from_str(export.text().lines().last().unwrap()).unwrap();
    assert_eq!(line["value"]["Data"]["name"], "Ann");
    let erased = admin.post("/v1/users/4711/erasures?reason=request", "").await.is(200);
    assert_eq!(erased["certificate"]["report"]["erased"][0]["key"], "user-1");
    assert_eq!(erased["certificate"]["is_complete"], true);
    assert_eq!(erased["certificate"]["not_erased"].as_str().unwrap().matches("bytes").count(), 0);
    assert_eq!(erased["sha256"].as_str().unwrap().len(), 64);
    refused(&admin.get("/v1/stores/PlayerData/profiles/user-1").await, 404, "not-found");
    assert_eq!(admin.get("/v1/users/4711/export").await.text(), "");
    refused(&admin.get("/v1/users/-1/profiles").await, 400, "invalid");
    assert!(game.shutdown().await.is_complete());
}

/// It was for the program alone, so that bytes of the user were left in the file.
#[tokio::test]
async fn an_erasure_over_http_cleans_the_file_and_says_so() {
    let served = Served::start().await;
    let admin = served.admin();
    let game = served.game("game-1").await;
    let players = game.store::<serde_json::Value>("PlayerData").unwrap();
    let live = players.start_session("user-2").await.unwrap();
    let profile = players.start_session("user-1").await.unwrap();
    profile.add_user_id(4711).unwrap();
    profile.end_session().await.unwrap();
    let erased = admin.post("/v1/users/4711/erasures", "").await.is(200);
    let certificate = &erased["certificate"];
    assert_eq!(
        (&certificate["bytes_gone"], &certificate["cleaning"]["outcome"]),
        (&json!(true), &json!("done"))
    );
    let log = admin.get("/v1/audit").await.is(200);
    let entries = log["items"].as_array().unwrap();
    let vacuum = entries.iter().find(|entry| entry["action"] == "vacuum").unwrap();
    assert_eq!(vacuum["operation"], certificate["cleaning"]["operation"]);
    assert_eq!(vacuum["details"]["after"], certificate["report"]["operation"]);
    assert!(live.is_active() && live.save().await.is_ok(), "play goes on");
    live.end_session().await.unwrap();
    assert!(game.shutdown().await.is_complete());
}

/// The body was not read, so a request that asked for a dry run erased, or undid.
#[tokio::test]
async fn an_erasure_and_an_undo_refuse_a_body_that_says_something() {
    let served = Served::start().await;
    let admin = served.admin();
    let dry = r#"{"dry_run":true}"#;
    refused(&admin.post("/v1/users/4711/erasures", dry).await, 400, "invalid");
    admin.post("/v1/users/4711/erasures", " {}").await.is(200);
    let id = operation();
    let edit = json!({
        "store": "PlayerData",
        "operations": [{ "op": "increase", "path": "/coins", "by": 1 }],
    });
    begin(&admin, &id, &edit).await.is(202);
    assert_eq!(ended(&admin, &id).await["state"], "done");
    let caller = admin.header("Idempotency-Key", &operation());
    let undo = format!("/v1/edits/{id}/undo");
    refused(&caller.post(&undo, dry).await, 400, "invalid");
    assert_eq!(ended(&admin, &id).await["undone_by"], Value::Null);
    caller.post(&undo, "").await.is(202);
}

/// An app of the same store that reaches it as a plan says, a game server whose calls go that way,
/// and a profile of user 4711.
async fn app_on<P: StorePlan>(
    served: &Served,
    plan: P,
    settings: Settings,
) -> (App, FaultyStore<P>, GameServer) {
    let way = FaultyStore::new(Arc::new(served.store.clone()), plan);
    let desk = GameServer::builder(way.clone()).job_id("desk-2").settings(settings).start().await;
    let desk = desk.unwrap();
    let parts = Parts {
        store: Arc::new(served.store.clone()),
        server: desk.clone(),
        host: None,
        env: Env::system(),
        metrics: None,
    };
    let listen = Options { listen: Some("127.0.0.1:0".to_owned()), ..Options::default() };
    let app = App::new(parts, &listen.settle().unwrap());
    let players = served.desk.store::<Value>("PlayerData").unwrap();
    let profile = players.start_session("user-1").await.unwrap();
    profile.add_user_id(4711).unwrap();
    profile.end_session().await.unwrap();
    (app, way, desk)
}

fn erasure(served: &Served) -> Request<Body> {
    Request::post("/v1/users/4711/erasures")
        .header("Host", "127.0.0.1")
        .header("Authorization", format!("Bearer {}", served.admin))
        .body(Body::empty())
        .unwrap()
}

/// Each export that nobody reads held a thread of the process for as long as its connection lasted.
#[tokio::test]
async fn exports_that_nobody_reads_leave_room_for_the_rest() {
    let served = Served::start().await;
    let mut game = GameClient::connect(served.address, &served.admin, "eu-1").await;
    // More than is kept for a reader: four pieces wait, and one is being handed over.
    for s in 1..=12 {
        game.start(s, &format!("user-{s}")).await;
        let (i, text) = (game.number(), "x".repeat(100 << 10));
        game.send(json!({ "save": { "i": i, "s": s, "n": 1, "user_ids": [4711],
            "data": { "text": text } } }))
            .await;
        assert!(game.answer(i).await["saved"].is_object());
    }
    let export = || {
        Request::get("/v1/users/4711/export")
            .header("Host", "127.0.0.1")
            .header("Authorization", format!("Bearer {}", served.admin))
            .body(Body::empty())
            .unwrap()
    };
    let mut unread = Vec::new();
    loop {
        let response = served.app.router().oneshot(export()).await.unwrap();
        if response.status().as_u16() == 503 {
            break;
        }
        assert_eq!(response.status().as_u16(), 200);
        unread.push(response);
        assert!(unread.len() < 100, "there is no limit");
    }
    assert!(!unread.is_empty());
    refused(&served.admin().get("/v1/users/4711/export").await, 503, "overloaded");
    served.admin().get("/v1/stores/PlayerData/profiles/user-1").await.is(200);
    // When their readers are gone, they end.
    drop(unread);
    while served.admin().get("/v1/users/4711/export").await.status != 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The entry of a cleaning, if one is booked.
async fn vacuum(served: &Served) -> Option<Value> {
    let log = served.admin().get("/v1/audit").await.is(200);
    let mut entries = log["items"].as_array().unwrap().iter();
    entries.find(|entry| entry["action"] == "vacuum").cloned()
}

/// The cleaning was the request's own, and no entry said that it was left out.
#[tokio::test]
async fn an_erasure_whose_request_ends_early_cleans_the_file_all_the_same() {
    let served = Served::start().await;
    let (app, way, desk) = app_on(&served, OnCommand::default(), settings()).await;
    let before = way.plan().commits();
    way.plan().fail(Fault::RequestLost, u64::MAX);
    let asking = tokio::spawn(app.router().oneshot(erasure(&served)));
    while way.plan().commits() == before {
        assert!(!asking.is_finished(), "the erasure was not begun");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    way.plan().heal();
    let entry = loop {
        match vacuum(&served).await {
            Some(entry) if entry["outcome"] != "pending" => break entry,
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert_eq!(entry["outcome"], "done", "{entry}");
    assert!(desk.shutdown().await.is_complete());
}

/// The store takes no second version of an audit entry.
#[derive(Debug)]
struct OneVersion;

impl StorePlan for OneVersion {
    fn fate(&self, call: Call<'_>) -> Fate {
        let again = |change: &Change| matches!(change, Change::Write { key, version: 1.., .. } if key.is_reserved());
        let fails = matches!(call, Call::Commit(commits)
            if commits.iter().flat_map(|commit| &commit.changes).any(again));
        Fate { fault: fails.then_some(Fault::Refused), ..Fate::default() }
    }
}

/// The profiles that it had erased were left in the file, and no entry said so.
#[tokio::test]
async fn an_erasure_that_fails_after_some_profiles_has_the_file_cleaned() {
    let served = Served::start().await;
    let settings = Settings { call_timeout: Duration::from_secs(1), ..settings() };
    let (app, _way, desk) = app_on(&served, OneVersion, settings).await;
    app.router().oneshot(erasure(&served)).await.unwrap();
    // Its end cannot be booked either.
    let entry = loop {
        match vacuum(&served).await {
            Some(entry) => break entry,
            None => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert_eq!(entry["outcome"], "pending");
    assert!(desk.shutdown().await.is_complete());
}

#[tokio::test]
async fn a_user_with_a_name_is_found_taken_out_and_erased() {
    let served = Served::start().await;
    let admin = served.admin();
    let game = served.game("game-1").await;
    let players = game.store::<serde_json::Value>("PlayerData").unwrap();
    let uuid = "069a79f4-44e9-4726-a5be-fca90e38aaf5";
    for key in ["user-1", "user-2"] {
        let profile = players.start_session(key).await.unwrap();
        if key == "user-1" {
            profile.add_user(uuid.parse::<profilestore::UserId>().unwrap()).unwrap();
        }
        profile.end_session().await.unwrap();
    }
    let path = "/v1/stores/PlayerData/profiles";
    assert_eq!(admin.get(&format!("{path}/user-1")).await.is(200)["user_ids"], json!([uuid]));
    for list in [format!("{path}?user={uuid}"), format!("/v1/users/{uuid}/profiles")] {
        let found = admin.get(&list).await.is(200);
        assert_eq!(found["items"].as_array().unwrap().len(), 1, "{list}");
        assert_eq!(found["items"][0]["key"], "user-1");
    }
    let export = admin.get(&format!("/v1/users/{uuid}/export")).await;
    assert!(export.text().contains(uuid) && !export.text().contains("user-2"));
    let erased = admin.post(&format!("/v1/users/{uuid}/erasures"), "").await.is(200);
    assert_eq!(erased["certificate"]["report"]["user_id"], uuid);
    let gone = admin.get(&format!("{path}?user={uuid}")).await.is(200);
    assert_eq!(gone["items"], json!([]));
    assert!(game.shutdown().await.is_complete());
}

#[tokio::test]
async fn an_operator_frees_the_session_that_the_operator_saw_and_no_later_one() {
    let served = Served::start().await;
    let session = "/v1/stores/PlayerData/profiles/user-1/session";
    let mut game = GameClient::connect(served.address, &served.admin, "eu-1").await;
    let seen = game.start(1, "user-1").await["epoch"].as_u64().unwrap();
    game.end(1, 1).await;
    let now = game.start(2, "user-1").await["epoch"].as_u64().unwrap();
    let steal = |epoch: u64| format!("{session}?steal=true&epoch={epoch}");
    refused(&served.admin().delete(&steal(seen)).await, 412, "changed");
    refused(&served.admin().delete(&steal(1 << 63)).await, 400, "invalid");
    assert!(game.save(2, 1, 5, json!([])).await["saved"].is_object());
    let shown = served.admin().get(session).await.is(200);
    assert_eq!(shown["epoch"], now, "{shown}");
    let ended = served.admin().delete(&steal(now)).await.is(200);
    assert_eq!(ended["held_by"], "eu-1");
    assert_eq!(game.expect("closed").await["s"], 2);
}

fn named<'a>(servers: &'a Value, job: &str) -> &'a Value {
    let items = servers["items"].as_array().unwrap();
    items.iter().find(|server| server["job"] == job).unwrap()
}

#[tokio::test]
async fn a_game_server_is_shown_with_the_process_that_hosts_it_and_its_sdk() {
    let served = Served::start().await;
    let _one = GameClient::connect(served.address, &served.admin, "eu-1").await;
    let _two = GameClient::connect(served.address, &served.admin, "eu-2").await;
    let servers = served.admin().get("/v1/servers").await.is(200);
    let (one, desk) = (named(&servers, "eu-1"), named(&servers, "desk"));
    assert_eq!((&one["sdk"], &one["hosted_here"]), (&json!("testbed 1"), &json!(true)));
    // One process hosts both, and none hosts the process itself.
    assert_eq!(one["host"].as_str().unwrap().len(), 16, "{one}");
    assert_eq!(one["host"], named(&servers, "eu-2")["host"]);
    assert_eq!((&desk["host"], &desk["hosted_here"]), (&json!(null), &json!(false)));
    // Another process of the same store knows which one it is, and not what was told to that one.
    let listen = Options { listen: Some("127.0.0.1:0".to_owned()), ..Options::default() };
    let config = listen.settle().unwrap();
    let (address, _app, _stop, _serving) = serve(&served.store, &served.desk, &config).await;
    let elsewhere = served.admin().at(address).get("/v1/servers").await.is(200);
    let seen = named(&elsewhere, "eu-1");
    assert_eq!((&seen["host"], &seen["hosted_here"]), (&one["host"], &json!(false)));
    assert_eq!(seen["sdk"], json!(null));
}

#[tokio::test]
async fn edits_that_a_holder_has_yet_to_make_are_listed_with_who_asked_and_why() {
    let served = Served::start().await;
    let edits = "/v1/stores/PlayerData/profiles/user-1/edits";
    let mut game = GameClient::connect(served.address, &served.admin, "eu-1").await;
    game.start(1, "user-1").await;
    let id = operation();
    let operator = served.admin().header("Content-Type", "application/json-patch+json");
    let operator = operator.header("Idempotency-Key", &id);
    let asking = tokio::spawn(async move {
        let steps = r#"[{"op":"increase","path":"/coins","by":5}]"#;
        operator.post(&format!("{edits}?reason=ticket%207"), steps).await
    });
    let asked = game.expect("edit").await;
    let listed = served.admin().get(edits).await.is(200);
    let [waiting] = &listed["waiting"].as_array().unwrap()[..] else { panic!("{listed}") };
    assert_eq!((&waiting["operation"], &waiting["reason"]), (&json!(id), &json!("ticket 7")));
    assert_eq!(waiting["operations"][0]["path"], "/coins", "{waiting}");
    assert!(waiting["author"].as_str().unwrap().starts_with("test"), "{waiting}");
    assert!(waiting["sent_ms"].as_i64().unwrap() > 1_700_000_000_000, "{waiting}");
    assert_eq!(listed["standing"], json!([]));
    let i = game.number();
    game.send(json!({ "save": {
        "i": i, "s": 1, "n": 1, "data": { "coins": 5 }, "edits_done": [{ "op": asked["op"] }],
    } }))
    .await;
    assert!(game.answer(i).await["saved"].is_object());
    asking.await.unwrap().is(200);
    assert_eq!(served.admin().get(edits).await.is(200)["waiting"], json!([]));
}

#[tokio::test]
async fn edits_that_stand_are_listed_of_a_profile_that_has_yet_to_begin() {
    let served = Served::start().await;
    let scope = EditScope { prefix: Some("user-".to_owned()), ..EditScope::all("PlayerData") };
    let edit = Edit::new().set("/welcome", true.into()).unwrap();
    let bulk = BulkEdit::new(Env::system().uuid(), scope, edit).new_too();
    let operator = served.desk.operator(Attribution::new("ann").because("season 4"));
    operator.edit_all(&bulk, |_| {}).await.unwrap();
    let coming = async |key: &str| {
        let edits = format!("/v1/stores/PlayerData/profiles/{key}/edits");
        served.admin().get(&edits).await.is(200)["standing"].clone()
    };
    let stands = coming("user-9").await;
    assert_eq!((&stands[0]["author"], &stands[0]["reason"]), (&json!("ann"), &json!("season 4")));
    assert_eq!(stands[0]["operations"][0]["path"], "/welcome", "{stands}");
    assert_eq!(stands[0]["sent_ms"], json!(null));
    assert_eq!(coming("guest-1").await, json!([]));
    // It has begun, and has what stood.
    let mut game = GameClient::connect(served.address, &served.admin, "eu-1").await;
    assert_eq!(game.start(1, "user-9").await["data"]["welcome"], true);
    assert_eq!(coming("user-9").await, json!([]));
}
