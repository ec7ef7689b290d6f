//! What a server process keeps of the game servers that it hosts, and what it writes of them.

use std::time::Duration;

use profilestore::{data_store::fault::LineState, env::Env};
use profilestore_server::keys::Scope;
use profilestore_testbed::GameClient;
use serde_json::{Value, json};

use crate::{Another, Served, operation};

const PLAYERS: &str = "/v1/stores/PlayerData/profiles";

async fn game(served: &Served, job: &str) -> GameClient {
    GameClient::connect(served.address, &served.admin, job).await
}

async fn send_to(served: &Served, key: &str, message: &str) {
    let shop = served.admin().header("Idempotency-Key", &operation());
    let body = json!({ "message": message }).to_string();
    shop.post(&format!("{PLAYERS}/{key}/messages"), &body).await.is(201);
}

#[tokio::test]
async fn messages_that_one_session_leaves_unanswered_hold_up_no_other_session() {
    let served = Served::start().await;
    let mut game = game(&served, "eu-1").await;
    game.start(1, "user-1").await;
    game.start(2, "user-2").await;
    // Four of them fill the room of the first session, which is 1 MiB.
    let large = "x".repeat(250_000);
    for _ in 0..5 {
        send_to(&served, "user-1", &large).await;
    }
    let mut told = Vec::new();
    for _ in 0..4 {
        let message = game.expect("message").await;
        assert_eq!(message["s"], 1);
        told.push(message["index"].clone());
    }
    send_to(&served, "user-2", &large).await;
    assert_eq!(game.expect("message").await["s"], 2);
    game.save(1, 1, 1, Value::Array(told)).await;
    assert_eq!(game.expect("message").await["s"], 1);
}

#[tokio::test]
async fn a_goodbye_just_before_the_connection_ends_is_heard() {
    let served = Served::start().await;
    for n in 0..30 {
        let mut game = game(&served, &format!("eu-{n}")).await;
        game.send(json!({ "bye": {} })).await;
        game.cut().await;
    }
    let alive = async || {
        let servers = served.admin().get("/v1/servers?page_size=100").await.is(200);
        let servers = servers["items"].as_array().unwrap().clone();
        let mut games = servers.into_iter().filter(|it| !it["host"].is_null());
        games.any(|it| it["state"] != "dead")
    };
    // For ever if one that said goodbye stays alive in the store: then the time limit ends it.
    while alive().await {
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// As when a game server's process is started anew with the token that it had written down.
#[tokio::test]
async fn another_run_that_resumes_a_game_server_is_told_all_and_the_run_before_nothing() {
    let served = Served::start().await;
    let mut before = game(&served, "eu-1").await;
    let epoch = before.start(1, "user-1").await["epoch"].clone();
    // The client names its run after its job, so a run of its own needs another job.
    let mut anew = game(&served, "eu-1 anew").await;
    anew.welcome = before.welcome.clone();
    let named = json!([[1, "PlayerData", "global", "user-1", epoch]]);
    assert!(anew.resume(served.address, named).await);
    assert_eq!(anew.welcome["incarnation"], before.welcome["incarnation"]);
    assert_eq!(anew.expect("resumed").await["s"], 1);
    send_to(&served, "user-1", "a gift").await;
    assert_eq!(anew.expect("message").await["body"], "a gift");
    // Its connection is closed by now, or this is not taken any more.
    let save = json!({ "save": { "i": 999, "s": 1, "n": 999, "data": { "coins": 999 } } });
    before.try_send_text(save.to_string()).await;
    before.try_send_text(json!({ "bye": {} }).to_string()).await;
    assert!(!before.comes("saved", Duration::from_secs(1)).await);
    // It comes again, as after any loss. Until now it took the game server back.
    let refused = before.refused_resume(served.address).await;
    assert_eq!(refused["problem"]["kind"], "run-replaced", "{refused}");
    let saved = anew.save(1, 1, 7, json!([])).await;
    assert!(saved["saved"].is_object(), "{saved}");
    let read = served.admin().get(&format!("{PLAYERS}/user-1")).await.is(200);
    assert_eq!(read["data"], json!({ "coins": 7 }));
}

/// It was told that no `hello` had come, and both SDKs gave their first connection up for that.
#[tokio::test]
async fn a_greeting_that_the_store_does_not_answer_is_told_so() {
    let served = Served::start().await;
    let another = Another::start(&served).await;
    another.line.set(LineState::Held);
    let hello = json!({ "hello": { "instance": "the secret of this run", "job": "eu-1" } });
    let told = GameClient::greeted(another.address, &served.admin, Some(hello)).await;
    another.line.set(LineState::Open);
    assert_eq!(told["error"]["problem"]["kind"], "unavailable", "{told}");
    assert_eq!(told["closed"], 1008, "{told}");
}

#[tokio::test]
async fn the_author_of_a_sessions_writes_is_the_key_and_not_only_what_the_client_calls_itself() {
    let served = Served::start().await;
    let mut game = game(&served, "eu-1").await;
    game.start(1, "user-1").await;
    let author = async || {
        let profile = served.admin().get(&format!("{PLAYERS}/user-1")).await.is(200);
        profile["author"].as_str().unwrap().to_owned()
    };
    let begun = author().await;
    assert!(begun.starts_with("test (key ") && begun.ends_with(" for eu-1"), "{begun}");
    game.save(1, 1, 1, json!([])).await;
    assert_eq!(author().await, begun);
}

#[tokio::test]
async fn what_was_staged_for_a_failed_transaction_goes_with_no_other() {
    let served = Served::start().await;
    let mut game = game(&served, "eu-1").await;
    game.start(1, "user-1").await;
    game.send(json!({ "stage": { "s": 1, "n": 1, "data": { "coins": 77 } } })).await;
    let mut traded = async |parts: Value| {
        let i = game.number();
        game.send(json!({ "tx": { "i": i, "parts": parts } })).await;
        game.answer(i).await["error"]["problem"].clone()
    };
    // A session that is not there comes first.
    let gone = json!({ "s": 99, "n": 1, "data": {} });
    let failed = traded(json!([gone, { "s": 1, "n": 1 }])).await;
    assert_eq!(failed["kind"], "session-ended", "{failed}");
    let failed = traded(json!([{ "s": 1, "n": 1 }])).await;
    let detail = failed["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("nothing was staged"), "{failed}");
    let read = served.admin().get(&format!("{PLAYERS}/user-1")).await.is(200);
    assert_eq!(read["data"], json!({ "coins": 0 }));
}

#[tokio::test]
async fn a_staged_document_is_a_part_of_what_a_transaction_asks_for() {
    let served = Served::start().await;
    let mut game = game(&served, "eu-1").await;
    let epoch = game.start(1, "user-1").await["epoch"].clone();
    let i = game.number();
    let stage = |coins: u64| json!({ "stage": { "s": 1, "n": 1, "data": { "coins": coins } } });
    let tx = json!({ "tx": { "i": i, "parts": [{ "s": 1, "n": 1 }] } });
    game.send(stage(5)).await;
    game.send(tx.clone()).await;
    assert!(game.answer(i).await["done"].is_object());
    let named = json!([[1, "PlayerData", "global", "user-1", epoch]]);
    assert!(game.resume(served.address, named).await);
    game.send(stage(6)).await;
    game.send(tx.clone()).await;
    let other = game.answer(i).await;
    assert_eq!(other["error"]["problem"]["kind"], "request-id-reused", "{other}");
    game.send(stage(5)).await;
    game.send(tx).await;
    assert!(game.answer(i).await["done"].is_object());
    let read = served.admin().get(&format!("{PLAYERS}/user-1")).await.is(200);
    assert_eq!(read["data"], json!({ "coins": 5 }));
}

#[tokio::test]
async fn a_trade_that_took_effect_is_answered_as_done_although_its_key_was_revoked_since() {
    let served = Served::start().await;
    let key = crate::key(&served.store, &[Scope::SessionsHold], None, None).await;
    let mut game = GameClient::connect(served.address, &key, "eu-1").await;
    game.start(1, "user-1").await;
    let i = game.number();
    let tx = |i: u64, n: u64| json!({ "tx": { "i": i, "parts": [{ "s": 1, "n": n, "data": { "coins": n } }] } });
    game.send(tx(i, 1)).await;
    assert!(game.answer(i).await["done"].is_object());
    let id = key.split('_').nth(1).unwrap();
    served.admin().delete(&format!("/v1/keys/{id}")).await.is(200);
    // The connection hears of that within seconds.
    let mut refused = Value::Null;
    for n in 2..1000 {
        let i = game.number();
        game.send(tx(i, n)).await;
        refused = game.answer(i).await["error"]["problem"].clone();
        if refused.is_object() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(refused["kind"], "unauthorized", "{refused}");
    game.send(tx(i, 1)).await;
    let again = game.answer(i).await;
    assert!(again["done"].is_object(), "{again}");
}

/// Revokes a key, and waits until the connection has heard of it.
async fn revoke(served: &Served, key: &str, game: &mut GameClient) {
    let id = key.split('_').nth(1).unwrap();
    served.admin().delete(&format!("/v1/keys/{id}")).await.is(200);
    for _ in 0..1000 {
        if sends_nothing(game).await == "unauthorized" {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the key stays valid");
}

/// Sends a message whose id is none: the kind of the error. Frames are taken in order, so those
/// before it were taken.
async fn sends_nothing(game: &mut GameClient) -> Value {
    let i = game.number();
    let gift = json!({ "store": "PlayerData", "key": "user-1", "id": "none", "message": 1 });
    game.send(json!({ "send": { "i": i, "gift": gift } })).await;
    game.answer(i).await["error"]["problem"]["kind"].take()
}

#[tokio::test]
async fn a_message_that_is_under_way_when_its_key_is_revoked_is_answered_when_it_is_stored() {
    let served = Served::start().await;
    let another = Another::start(&served).await;
    let scopes = [Scope::SessionsHold, Scope::MessagesSend];
    let key = crate::key(&served.store, &scopes, None, None).await;
    let game = GameClient::connect_for(another.address, &key, "eu-1", Some(60_000));
    let mut game = game.await;
    another.line.set(LineState::Held);
    let i = game.number();
    let id = format!("{}:gift", Env::system().unix_ms());
    let gift = json!({ "store": "PlayerData", "key": "user-1", "id": id, "message": 1 });
    let send = json!({ "send": { "i": i, "gift": gift } });
    game.send(send.clone()).await;
    revoke(&served, &key, &mut game).await;
    // Sent again, as over another connection.
    game.send(send).await;
    assert_eq!(sends_nothing(&mut game).await, "unauthorized");
    another.line.set(LineState::Open);
    let answer = game.answer(i).await;
    assert_eq!(answer["sent"]["stored_now"], true, "{answer}");
}

#[tokio::test]
async fn a_start_that_is_sent_again_under_a_revoked_key_tells_of_the_session_that_it_opened() {
    let served = Served::start().await;
    let key = crate::key(&served.store, &[Scope::SessionsHold], None, None).await;
    let game = GameClient::connect_for(served.address, &key, "eu-1", Some(60_000));
    let mut game = game.await;
    let i = game.number();
    let start = json!({ "start": {
        "i": i, "s": 1, "store": "PlayerData", "key": "user-1", "template": {},
    } });
    game.send(start.clone()).await;
    assert!(game.answer(i).await["started"].is_object());
    revoke(&served, &key, &mut game).await;
    game.send(start).await;
    let answer = game.answer(i).await;
    assert!(answer["started"].is_object(), "{answer}");
    assert!(game.save(1, 1, 5, json!([])).await["saved"].is_object());
    assert!(game.end(1, 2).await["ended"].is_object());
}
