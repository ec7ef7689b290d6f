//! What crosses stores, what is stored of users, and what operators do to sessions.

use profilestore_testbed::GameClient;
use serde_json::json;

use crate::{Served, refused};

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
    assert_eq!(erased["sha256"].as_str().unwrap().len(), 64);
    refused(&admin.get("/v1/stores/PlayerData/profiles/user-1").await, 404, "not-found");
    assert_eq!(admin.get("/v1/users/4711/export").await.text(), "");
    refused(&admin.get("/v1/users/-1/profiles").await, 400, "invalid");
    assert!(game.shutdown().await.is_complete());
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
