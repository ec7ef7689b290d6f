//! Sessions of game servers over the WebSocket.

use std::time::Duration;

use profilestore_server::keys::Scope;
use profilestore_testbed::GameClient;
use serde_json::json;

use crate::{Another, Served, client::Client, operation, refused};

const PLAYER: &str = "/v1/stores/PlayerData/profiles/user-1";

async fn game(served: &Served, job: &str) -> GameClient {
    GameClient::connect(served.address, &served.admin, job).await
}

#[tokio::test]
async fn a_profile_is_opened_saved_and_ended() {
    let served = Served::start().await;
    let mut game = game(&served, "eu-1").await;
    let started = game.start(1, "user-1").await;
    assert_eq!(started["data"], json!({ "coins": 0 }));
    let held = served.admin().get(PLAYER).await.is(200);
    assert_eq!(held["held"]["job"], "eu-1");
    let saved = game.save(1, 1, 10, json!([])).await;
    assert_eq!(saved["saved"]["n"], 1, "{saved}");
    assert_eq!(served.admin().get(PLAYER).await.is(200)["data"], json!({ "coins": 10 }));
    // A pong says until when it may believe in that.
    let lease = game.welcome["lease_ms"].as_u64().unwrap();
    assert!(game.pong().await < lease);
    let i = game.number();
    let end = json!({ "end": { "i": i, "s": 1, "n": 2, "data": { "coins": 11 } } });
    game.send(end).await;
    assert!(game.answer(i).await["ended"].is_object());
    let read = served.admin().get(PLAYER).await.is(200);
    assert_eq!((&read["data"], &read["held"]), (&json!({ "coins": 11 }), &json!(null)));
}

#[tokio::test]
async fn a_profile_moves_from_one_game_server_to_another() {
    let served = Served::start().await;
    let (mut first, mut second) = (game(&served, "eu-1").await, game(&served, "eu-2").await);
    first.start(1, "user-1").await;
    first.save(1, 1, 5, json!([])).await;
    let i = second.number();
    let start = json!({ "start": { "i": i, "s": 9, "store": "PlayerData", "key": "user-1" } });
    second.send(start).await;
    let release = first.expect("release").await;
    assert_eq!((&release["s"], &release["by"]["server"]["job"]), (&json!(1), &json!("eu-2")));
    assert!(release["deadline_ms"].as_u64().unwrap() > 1000, "{release}");
    let last = first.number();
    let end = json!({ "end": { "i": last, "s": 1, "n": 2, "data": { "coins": 7 } } });
    first.send(end).await;
    assert!(first.answer(last).await["ended"].is_object());
    let started = second.answer(i).await;
    assert_eq!(started["started"]["data"], json!({ "coins": 7 }), "{started}");
    // What the first one says from now on counts for nothing.
    let late = first.save(1, 3, 999, json!([])).await;
    assert_eq!(late["error"]["problem"]["kind"], "session-ended", "{late}");
    assert!(second.end(9, 1).await["ended"].is_object());
    assert_eq!(served.admin().get(PLAYER).await.is(200)["data"], json!({ "coins": 7 }));
}

#[tokio::test]
async fn a_message_arrives_with_the_save_that_processed_it() {
    let served = Served::start().await;
    let mut game = game(&served, "eu-1").await;
    game.start(1, "user-1").await;
    let shop = served.admin().header("Idempotency-Key", &operation());
    let body = r#"{"message":{"coins":18446744073709551615}}"#;
    shop.post(&format!("{PLAYER}/messages"), body).await.is(201);
    let message = game.expect("message").await;
    assert_eq!(message["body"], json!({ "coins": u64::MAX }));
    let saved = game.save(1, 1, 500, json!([message["index"]])).await;
    assert!(saved["saved"].is_object(), "{saved}");
    let inbox = served.admin().get(&format!("{PLAYER}/messages")).await.is(200);
    assert_eq!(inbox["items"], json!([]));
    assert!(!game.comes("message", Duration::from_secs(1)).await, "once");
}

#[tokio::test]
async fn an_operators_edit_is_made_by_the_game_server_that_holds_the_profile() {
    let served = Served::start().await;
    let mut game = game(&served, "eu-1").await;
    game.start(1, "user-1").await;
    game.save(1, 1, 5, json!([])).await;
    let edit = served
        .admin()
        .header("Content-Type", "application/json-patch+json")
        .header("Idempotency-Key", &operation());
    let made = tokio::spawn(async move {
        let body = r#"[{"op":"increase","path":"/coins","by":100}]"#;
        edit.post(&format!("{PLAYER}/edits"), body).await.is(200)
    });
    let asked = game.expect("edit").await;
    assert_eq!(asked["changes"][0]["op"], "increase", "{asked}");
    let i = game.number();
    game.send(json!({ "save": {
        "i": i, "s": 1, "n": 2, "data": { "coins": 105 }, "edits_done": [{ "op": asked["op"] }],
    } }))
    .await;
    assert!(game.answer(i).await["saved"].is_object());
    assert_eq!(made.await.unwrap()["outcome"], "done");
}

#[tokio::test]
async fn a_trade_is_made_as_a_whole_or_not_at_all() {
    let served = Served::start().await;
    let mut game = game(&served, "eu-1").await;
    game.start(1, "user-1").await;
    game.start(2, "user-2").await;
    let i = game.number();
    let now = profilestore::env::Env::system().unix_ms();
    game.send(json!({ "tx": {
        "i": i,
        "parts": [
            { "s": 1, "n": 1, "data": { "coins": 1 } },
            { "s": 2, "n": 1, "data": { "coins": 2 } },
        ],
        "gifts": [{
            "store": "PlayerData", "key": "user-3", "id": format!("{now}:gift"), "message": 3,
        }],
    } }))
    .await;
    let done = game.answer(i).await;
    assert_eq!(done["done"]["versions"].as_array().map(Vec::len), Some(2), "{done}");
    let inbox = served.admin().get("/v1/stores/PlayerData/profiles/user-3/messages").await;
    assert_eq!(inbox.is(200)["items"][0]["message"], 3);
    let i = game.number();
    game.send(json!({ "tx": { "i": i, "parts": [
        { "s": 1, "n": 2, "data": { "coins": 77 } },
        { "s": 2, "n": 2, "data": { "coins": 77 }, "user_ids": [-1] },
    ] } }))
    .await;
    let refused = game.answer(i).await;
    assert_eq!(refused["error"]["problem"]["kind"], "invalid", "{refused}");
    // The request that opened the connection, as the log names it.
    assert_eq!(refused["error"]["problem"]["instance"].as_str().unwrap().len(), 36, "{refused}");
    assert_eq!(served.admin().get(PLAYER).await.is(200)["data"], json!({ "coins": 1 }));
}

/// It counted as an error of the store.
#[tokio::test]
async fn two_gifts_of_a_trade_under_one_id_are_refused_before_the_store_is_asked() {
    let served = Served::start().await;
    let mut game = game(&served, "eu-1").await;
    game.start(1, "user-1").await;
    let now = profilestore::env::Env::system().unix_ms();
    let id = format!("{now}:gift");
    let gift =
        |key: &str| json!({ "store": "PlayerData", "key": key, "id": id.clone(), "message": 3 });
    let mut traded = async |n: u64, gifts: serde_json::Value| {
        let i = game.number();
        let parts = json!([{ "s": 1, "n": n, "data": { "coins": n } }]);
        game.send(json!({ "tx": { "i": i, "parts": parts, "gifts": gifts } })).await;
        game.answer(i).await
    };
    let refused = traded(1, json!([gift("user-2"), gift("user-2")])).await;
    let detail = refused["error"]["problem"]["detail"].as_str().unwrap();
    assert!(detail.starts_with("two gifts to a profile have one id"), "{refused}");
    let done = traded(2, json!([gift("user-2"), gift("user-3")])).await;
    assert!(done["done"].is_object(), "{done}");
}

#[tokio::test]
async fn a_cut_connection_ends_no_session_and_a_repeated_request_is_done_once() {
    let served = Served::start().await;
    let mut game = game(&served, "eu-1").await;
    let started = game.start(1, "user-1").await;
    let epoch = &started["epoch"];
    // Sent, and cut off before the answer is read.
    let i = game.number();
    let save = json!({ "save": { "i": i, "s": 1, "n": 1, "data": { "coins": 42 } } });
    game.send(save.clone()).await;
    let incarnation = game.welcome["incarnation"].clone();
    let named = json!([[1, "PlayerData", "global", "user-1", epoch]]);
    assert!(game.resume(served.address, named).await);
    assert_eq!(game.welcome["resumed"], "same");
    assert_eq!(game.welcome["incarnation"], incarnation);
    assert_eq!(game.expect("resumed").await["s"], 1);
    game.send(save.clone()).await;
    let saved = game.answer(i).await;
    assert!(saved["saved"].is_object(), "{saved}");
    let other = json!({ "save": { "i": i, "s": 1, "n": 1, "data": { "coins": 43 } } });
    game.send(other).await;
    // The first answer may come twice: over the new connection, and to the repetition.
    let refused = game.expect("error").await;
    assert_eq!(refused["i"], i, "another content under its number: {refused}");
    assert_eq!(served.admin().get(PLAYER).await.is(200)["data"], json!({ "coins": 42 }));
    assert!(game.end(1, 2).await["ended"].is_object());
}

#[tokio::test]
async fn a_start_whose_answer_was_lost_is_answered_again() {
    let served = Served::start().await;
    let mut game = game(&served, "eu-1").await;
    let i = game.number();
    let start = json!({ "start": {
        "i": i, "s": 1, "store": "PlayerData", "key": "user-1", "template": { "coins": 3 },
    } });
    game.send(start.clone()).await;
    game.answer(i).await;
    assert!(game.resume(served.address, json!([])).await);
    // What lies in the inbox is told behind the answer.
    let shop = served.admin().header("Idempotency-Key", &operation());
    shop.post(&format!("{PLAYER}/messages"), r#"{"message":1}"#).await.is(201);
    game.send(start).await;
    let again = game.answer(i).await;
    assert_eq!(again["started"]["data"], json!({ "coins": 3 }), "{again}");
    game.expect("message").await;
    assert!(game.save(1, 1, 4, json!([])).await["saved"].is_object());
}

#[tokio::test]
async fn what_a_key_does_not_reach_cannot_be_opened() {
    let served = Served::start().await;
    let stranger = Client::without_key(served.address);
    refused(&stranger.get("/v1/connect").await, 401, "unauthorized");
    let reader = served.caller(&[Scope::ProfilesRead]).await;
    refused(&reader.get("/v1/connect").await, 403, "forbidden");
    refused(&served.admin().get("/v1/connect").await, 426, "upgrade-required");
    let key = crate::key(&served.store, &[Scope::SessionsHold], Some("PlayerData"), Some("user-"));
    let mut game = GameClient::connect(served.address, &key.await, "eu-1").await;
    game.start(1, "user-1").await;
    for (store, key) in [("PlayerData", "admin"), ("Guilds", "user-1"), ("~profilestore", "x")] {
        let i = game.number();
        game.send(json!({ "start": { "i": i, "s": 2, "store": store, "key": key } })).await;
        let answer = game.answer(i).await;
        assert_eq!(answer["error"]["problem"]["kind"], "forbidden", "{answer}");
    }
    // A gift needs a scope of its own.
    let i = game.number();
    let gift = json!({ "store": "PlayerData", "key": "user-1", "id": "1:x", "message": 1 });
    game.send(json!({ "send": { "i": i, "gift": gift } })).await;
    assert_eq!(game.answer(i).await["error"]["problem"]["kind"], "forbidden");
}

#[tokio::test]
async fn a_game_server_that_was_silent_for_a_lease_time_and_resumes_at_once_keeps_its_sessions() {
    let served = Served::start().await;
    let mut game = game(&served, "eu-1").await;
    let started = game.start(1, "user-1").await;
    let lease = Duration::from_millis(game.welcome["lease_ms"].as_u64().unwrap());
    game.is_silent = true;
    // The hosting stops then, and the process still remembers it.
    assert!(game.comes("stopped", lease * 4).await);
    game.is_silent = false;
    let named = json!([[1, "PlayerData", "global", "user-1", started["epoch"]]]);
    assert!(game.resume(served.address, named).await);
    assert_eq!(game.expect("resumed").await["s"], 1);
    assert!(game.save(1, 1, 7, json!([])).await["saved"].is_object());
    assert_eq!(served.admin().get(PLAYER).await.is(200)["data"], json!({ "coins": 7 }));
}

#[tokio::test]
async fn a_resume_with_a_narrower_key_reaches_no_session_outside_of_it() {
    let served = Served::start().await;
    let mut game = game(&served, "eu-1").await;
    let started = game.start(1, "user-1").await;
    let other = game.start(2, "user-2").await;
    game.save(2, 1, 3, json!([])).await;
    game.use_key(&crate::key(&served.store, &[Scope::SessionsHold], Some("Other"), None).await);
    // The one it names, and the one it does not name.
    let named = json!([[1, "PlayerData", "global", "user-1", started["epoch"]]]);
    assert!(game.resume(served.address, named).await, "{other}");
    assert_eq!(game.expect("lost").await["s"], 1);
    for s in [1, 2] {
        let late = game.save(s, 9, 999, json!([])).await;
        assert_eq!(late["error"]["problem"]["kind"], "session-ended", "{late}");
    }
    let read = served.admin().get("/v1/stores/PlayerData/profiles/user-2").await.is(200);
    assert_eq!(read["data"], json!({ "coins": 3 }));
}

#[tokio::test]
async fn frames_that_are_wrong_are_refused_and_the_connection_goes_on() {
    let served = Served::start().await;
    let mut game = game(&served, "eu-1").await;
    game.start(1, "user-1").await;
    for (frame, kind) in [
        ("{", "invalid"),
        ("[]", "invalid"),
        (r#"{"dance":{}}"#, "invalid"),
        (r#"{"save":{"s":1}}"#, "invalid"),
        (r#"{"save":{"i":901,"s":1,"n":1}}"#, "invalid"),
        (r#"{"save":{"i":902,"s":1,"n":1,"data":{"a":1,"a":2}}}"#, "invalid"),
        (r#"{"save":{"i":903,"s":1,"n":1,"data":{"a":1e999}}}"#, "invalid"),
        (r#"{"save":{"i":904,"s":1,"n":1,"data":"\ud800"}}"#, "invalid"),
        (r#"{"hello":{"instance":"0123456789abcdef","job":"x"}}"#, "invalid"),
        (r#"{"save":{"i":905,"s":77,"n":1,"data":{}}}"#, "session-ended"),
    ] {
        game.send_text(frame.to_owned()).await;
        let problem = game.expect("error").await["problem"].clone();
        assert_eq!(problem["kind"], kind, "{frame}: {problem}");
    }
    for (frame, told) in [
        (r#"{"ping":{"n":1},"x":1}"#, "members=`ping`, `x`"),
        ("{}", "one member"),
        ("7", "JSON object"),
        (r#"{"dance":{}}"#, "`dance`"),
        (r#"{"save":{"s":1}}"#, "the frame `save`"),
    ] {
        game.send_text(frame.to_owned()).await;
        let error = game.expect("error").await;
        let detail = error["problem"]["detail"].as_str().unwrap();
        assert!(detail.contains(told), "{frame}: {detail}");
        // Without a request there is no number, and the connection is named.
        assert!(error.get("i").is_none() && error["problem"].get("i").is_none(), "{error}");
        assert_eq!(error["problem"]["instance"].as_str().unwrap().len(), 36, "{error}");
    }
    let large = "x".repeat(6 << 20);
    game.send_text(format!(r#"{{"save":{{"i":906,"s":1,"n":1,"data":"{large}"}}}}"#)).await;
    assert_eq!(game.expect("error").await["problem"]["kind"], "too-large");
    assert!(game.save(1, 2, 8, json!([])).await["saved"].is_object());
}

#[tokio::test]
async fn a_stopping_process_sends_game_servers_away_and_ends_no_session() {
    let served = Served::start().await;
    let mut game = game(&served, "eu-1").await;
    let started = game.start(1, "user-1").await;
    game.save(1, 1, 5, json!([])).await;
    let held = served.admin().get(PLAYER).await.is(200);
    assert_eq!(held["held"]["job"], "eu-1");
    let app = served.app.clone();
    let leaving = tokio::spawn(async move { app.send_away().await });
    game.expect("goaway").await;
    refused(&served.admin().get("/readyz").await, 503, "unavailable");
    // Another process takes over while the first one still serves.
    let options = profilestore_server::config::Options {
        listen: Some("127.0.0.1:0".to_owned()),
        ..Default::default()
    };
    let config = options.settle().unwrap();
    let (second, _app, _stop, _serving) = crate::serve(&served.store, &served.desk, &config).await;
    let named = json!([[1, "PlayerData", "global", "user-1", started["epoch"]]]);
    assert!(game.resume(second, named).await);
    assert_eq!(game.welcome["resumed"], "same");
    assert_eq!(game.expect("resumed").await["s"], 1);
    leaving.await.unwrap();
    assert!(game.save(1, 2, 6, json!([])).await["saved"].is_object());
    assert!(game.end(1, 3).await["ended"].is_object());
    assert_eq!(served.admin().get(PLAYER).await.is(200)["data"], json!({ "coins": 6 }));
}

#[tokio::test]
async fn the_number_of_a_save_grows_and_a_repetition_keeps_its_own() {
    let served = Served::start().await;
    let mut game = game(&served, "eu-1").await;
    let started = game.start(1, "user-1").await;
    let i = game.number();
    let first = json!({ "save": { "i": i, "s": 1, "n": 5, "data": { "coins": 5 } } });
    game.send(first.clone()).await;
    assert_eq!(game.answer(i).await["saved"]["version"], 2);
    for n in [5, 4] {
        let refused = game.save(1, n, 99, json!([])).await;
        let detail = refused["error"]["problem"]["detail"].as_str().unwrap();
        assert!(detail.contains("grows") && detail.contains("last=`5`"), "{refused}");
    }
    assert_eq!(game.save(1, 6, 6, json!([])).await["saved"]["version"], 3);
    let i = game.number();
    game.send(json!({ "tx": { "i": i, "parts": [{ "s": 1, "n": 6, "data": {} }] } })).await;
    assert_eq!(game.answer(i).await["error"]["problem"]["kind"], "invalid");
    // The first one again: it is done, and the version of now is not the one that it made.
    let named = json!([[1, "PlayerData", "global", "user-1", started["epoch"]]]);
    assert!(game.resume(served.address, named).await);
    game.send(first).await;
    let again = game.expect("saved").await;
    assert_eq!((&again["n"], &again["version"]), (&json!(5), &json!(null)), "{again}");
    assert_eq!(game.end(1, 6).await["error"]["problem"]["kind"], "invalid");
    assert!(game.end(1, 7).await["ended"].is_object());
    assert_eq!(served.admin().get(PLAYER).await.is(200)["data"], json!({ "coins": 6 }));
}

/// The session was closed here, and its profile stayed held.
#[tokio::test]
async fn a_session_goes_on_whose_end_is_refused_under_the_number_of_a_save_of_another_process() {
    let served = Served::start().await;
    let another = Another::start(&served).await;
    let mut game = game(&served, "eu-1").await;
    let epoch = game.start(1, "user-1").await["epoch"].clone();
    let i = game.number();
    let save = json!({ "i": i, "s": 1, "n": 1, "data": { "coins": 7 } });
    game.send(json!({ "save": save })).await;
    assert!(game.answer(i).await["saved"].is_object());
    let named = json!([[1, "PlayerData", "global", "user-1", epoch]]);
    assert!(game.resume(another.address, named).await);
    assert_eq!(game.expect("resumed").await["s"], 1);
    game.send(json!({ "end": { "i": i, "s": 1, "n": 2, "data": { "coins": 8 } } })).await;
    let refused = game.answer(i).await;
    assert_eq!(refused["error"]["problem"]["kind"], "request-id-reused", "{refused}");
    assert_eq!(served.admin().get(PLAYER).await.is(200)["data"], json!({ "coins": 7 }));
    let saved = game.save(1, 3, 9, json!([])).await;
    assert_eq!(saved["saved"]["version"], 3, "{saved}");
    assert!(game.end(1, 4).await["ended"].is_object());
    assert_eq!(served.admin().get(PLAYER).await.is(200)["data"], json!({ "coins": 9 }));
}

/// Both frames have the same members. The end was taken for the save that comes again: it was
/// answered by `ended`, and the profile stayed held.
#[tokio::test]
async fn an_end_under_the_number_of_a_save_is_refused_though_it_brings_the_same() {
    let served = Served::start().await;
    let mut game = game(&served, "eu-1").await;
    game.start(1, "user-1").await;
    let i = game.number();
    let brought = json!({ "i": i, "s": 1, "n": 1, "data": { "coins": 7 } });
    game.send(json!({ "save": brought.clone() })).await;
    assert!(game.answer(i).await["saved"].is_object());
    game.send(json!({ "end": brought })).await;
    let refused = game.answer(i).await;
    assert_eq!(refused["error"]["problem"]["kind"], "request-id-reused", "{refused}");
    assert!(game.save(1, 2, 8, json!([])).await["saved"].is_object(), "the session goes on");
    assert!(game.end(1, 3).await["ended"].is_object());
    let read = served.admin().get(PLAYER).await.is(200);
    assert_eq!((&read["data"], &read["held"]), (&json!({ "coins": 8 }), &json!(null)));
}

#[tokio::test]
async fn a_message_is_told_once_over_a_connection_and_behind_the_resumed_session() {
    let served = Served::start().await;
    let mut game = game(&served, "eu-1").await;
    let started = game.start(1, "user-1").await;
    let shop = served.admin().header("Idempotency-Key", &operation());
    shop.post(&format!("{PLAYER}/messages"), r#"{"message":1}"#).await.is(201);
    game.expect("message").await;
    for _ in 0..3 {
        let named = json!([[1, "PlayerData", "global", "user-1", started["epoch"]]]);
        assert!(game.resume(served.address, named).await);
        let first = game.next(&["resumed", "message"]).await;
        assert!(first["resumed"].is_object(), "{first}");
        let index = game.expect("message").await["index"].clone();
        assert!(!game.comes("message", Duration::from_secs(1)).await, "once: {index}");
    }
}

#[tokio::test]
async fn a_resume_in_another_store_is_a_new_game_server_with_a_token_of_its_own() {
    let served = Served::start().await;
    let mut game = game(&served, "eu-1").await;
    let started = game.start(1, "user-1").await;
    let (before, token) = (game.welcome["incarnation"].clone(), "0123456789abcdef");
    game.welcome["store"] = json!("00000000-0000-4000-8000-000000000001");
    game.welcome["token"] = json!(token);
    let named = json!([[1, "PlayerData", "global", "user-1", started["epoch"]]]);
    assert!(game.resume(served.address, named).await);
    assert_eq!(game.welcome["resumed"], "replaced");
    assert_ne!(game.welcome["incarnation"], before);
    // What was brought proves nothing here, and is not what proves it from now on.
    assert_eq!(game.welcome["token"].as_str().unwrap().len(), 64, "{}", game.welcome);
    assert_eq!(game.expect("lost").await["s"], 1);
    let mut thief = GameClient::connect(served.address, &served.admin, "thief").await;
    thief.welcome = game.welcome.clone();
    thief.welcome["token"] = json!(token);
    let refused = thief.refused_resume(served.address).await;
    assert_eq!(refused["problem"]["kind"], "not-found", "{refused}");
}

#[tokio::test]
async fn a_lease_time_that_is_too_short_or_too_long_is_refused_with_the_bounds() {
    let served = Served::start().await;
    for lease_ms in [1999_u64, 600_001, u64::MAX] {
        let hello = json!({ "hello": {
            "instance": "0123456789abcdef", "job": "eu-1", "lease_ms": lease_ms,
        } });
        let error = GameClient::greeted(served.address, &served.admin, Some(hello)).await;
        let detail = error["error"]["problem"]["detail"].as_str().unwrap();
        let given = format!("given=`{lease_ms}`");
        assert!(
            detail.contains("2000 ms") && detail.contains("600000 ms") && detail.contains(&given),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_connection_that_never_greets_is_told_so_and_closed() {
    let served = Served::start().await;
    let error = GameClient::greeted(served.address, &served.admin, None).await;
    let detail = error["error"]["problem"]["detail"].as_str().unwrap();
    assert!(detail.contains("no `hello` came"), "{error}");
    assert_eq!(error["closed"], 1008, "{error}");
}
