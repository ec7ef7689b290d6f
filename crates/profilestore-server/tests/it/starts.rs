//! Starts over the WebSocket whose game server goes away before they are answered.

use std::net::SocketAddr;

use profilestore::data_store::fault::LineState;
use profilestore_testbed::GameClient;
use serde_json::{Value, json};

use crate::{Another, Served};

const PLAYER: &str = "/v1/stores/PlayerData/profiles/user-1";

fn start(i: u64) -> Value {
    json!({ "start": { "i": i, "s": 9, "store": "PlayerData", "key": "user-1" } })
}

/// Waits until this game server, or none, asks for the profile. Its holder goes on meanwhile.
async fn until_asked_by(served: &Served, holder: &mut GameClient, asker: Value) {
    for _ in 0..60 {
        let session = served.admin().get(&format!("{PLAYER}/session")).await.is(200);
        if session["held"]["asked_for_by"] == asker {
            return;
        }
        holder.pong().await;
    }
    panic!("{asker} never became the one that asks");
}

#[tokio::test]
async fn a_start_whose_game_server_has_no_connection_neither_asks_nor_takes() {
    let served = Served::start().await;
    let mut first = GameClient::connect(served.address, &served.admin, "eu-1").await;
    let mut second = GameClient::connect(served.address, &served.admin, "eu-2").await;
    first.start(1, "user-1").await;
    let i = second.number();
    second.send(start(i)).await;
    assert_eq!(first.expect("release").await["by"]["server"]["job"], "eu-2");
    second.cut().await;
    // It asks no more, so the first one keeps the profile, or frees it for others.
    until_asked_by(&served, &mut first, json!(null)).await;
    assert!(first.save(1, 1, 5, json!([])).await["saved"].is_object());
    assert!(first.end(1, 2).await["ended"].is_object());
    let free = served.admin().get(&format!("{PLAYER}/session")).await.is(200);
    assert_eq!((&free["held"], &free["offered"]), (&json!(null), &json!(false)), "{free}");
    let mut third = GameClient::connect(served.address, &served.admin, "eu-3").await;
    assert_eq!(third.start(1, "user-1").await["data"], json!({ "coins": 5 }));
    assert!(third.end(1, 1).await["ended"].is_object());
    // Its game server is back, and so is the start.
    assert!(second.resume(served.address, json!([])).await);
    second.send(start(i)).await;
    let started = second.answer(i).await;
    assert_eq!(started["started"]["data"], json!({ "coins": 5 }), "{started}");
}

#[tokio::test]
async fn a_start_of_a_silent_game_server_goes_on_with_its_next_word() {
    let served = Served::start().await;
    let mut first = GameClient::connect(served.address, &served.admin, "eu-1").await;
    let second = GameClient::connect_for(served.address, &served.admin, "eu-2", Some(60_000));
    let mut second = second.await;
    first.start(1, "user-1").await;
    let i = second.number();
    second.send(start(i)).await;
    first.expect("release").await;
    // It says nothing, and its connection stays open.
    until_asked_by(&served, &mut first, json!(null)).await;
    second.pong().await;
    first.end(1, 1).await;
    assert!(second.answer(i).await["started"].is_object());
}

#[tokio::test]
async fn a_start_whose_answer_was_lost_is_called_off_by_the_end_of_its_session() {
    let served = Served::start().await;
    let mut game = GameClient::connect(served.address, &served.admin, "eu-1").await;
    let i = game.number();
    let mut start = start(i);
    start["start"]["template"] = json!({});
    game.send(start.clone()).await;
    game.answer(i).await;
    assert!(game.resume(served.address, json!([])).await);
    game.send(start).await;
    game.send(json!({ "cancel": { "i": i } })).await;
    // Otherwise the game server would take the start for called off, and hold the session.
    let answer = game.answer(i).await;
    assert!(answer["started"].is_object(), "{answer}");
    assert!(game.end(9, 1).await["ended"].is_object());
    let free = served.admin().get(&format!("{PLAYER}/session")).await.is(200);
    assert_eq!(free["held"], json!(null), "{free}");
}

/// A game server with a lease that outlasts the test.
async fn game(served: &Served, at: SocketAddr) -> GameClient {
    GameClient::connect_for(at, &served.admin, "eu-1", Some(60_000)).await
}

/// Waits until all frames up to now were taken, which is done in order: by one that is refused at
/// once.
async fn until_taken(game: &mut GameClient) {
    let i = game.number();
    game.send(json!({ "save": { "i": i, "s": 1000, "n": 1 } })).await;
    assert_eq!(game.answer(i).await["error"]["problem"]["kind"], "invalid");
}

async fn held(served: &Served) -> Value {
    served.admin().get(&format!("{PLAYER}/session")).await.is(200)["held"].take()
}

#[tokio::test]
async fn a_start_whose_answer_and_process_were_lost_leaves_nothing_held_when_it_is_called_off() {
    let served = Served::start().await;
    let another = Another::start(&served).await;
    let mut game = game(&served, served.address).await;
    let i = game.number();
    let mut start = start(i);
    start["start"]["template"] = json!({});
    game.send(start.clone()).await;
    assert!(game.answer(i).await["started"].is_object());
    // As if it had not heard that: it names no session.
    assert!(game.resume(another.address, json!([])).await);
    another.line.set(LineState::Held);
    game.send(start).await;
    game.send(json!({ "cancel": { "i": i } })).await;
    until_taken(&mut game).await;
    another.line.set(LineState::Open);
    let answer = game.answer(i).await;
    assert_eq!(answer["error"]["problem"]["kind"], "cancelled", "{answer}");
    assert_eq!(held(&served).await, json!(null));
}

#[tokio::test]
async fn a_start_behind_one_that_is_called_off_at_another_process_keeps_its_session() {
    let served = Served::start().await;
    let another = Another::start(&served).await;
    let mut game = game(&served, served.address).await;
    let (i, second) = (game.number(), game.number());
    let mut first = start(i);
    first["start"]["template"] = json!({});
    game.send(first.clone()).await;
    assert!(game.answer(i).await["started"].is_object());
    assert!(game.resume(another.address, json!([])).await);
    another.line.set(LineState::Held);
    game.send(first).await;
    game.send(json!({ "cancel": { "i": i } })).await;
    let mut behind = start(second);
    behind["start"]["s"] = json!(10);
    game.send(behind).await;
    until_taken(&mut game).await;
    another.line.set(LineState::Open);
    let started = game.answer(second).await;
    assert!(started["started"].is_object(), "{started}");
    let off = game.answer(i).await;
    assert_eq!(off["error"]["problem"]["kind"], "cancelled", "{off}");
    assert!(game.save(10, 1, 5, json!([])).await["saved"].is_object());
    assert_eq!(held(&served).await["job"], "eu-1");
}

/// A start that takes the place of another one goes on with what that one has begun: their session
/// has the identity of the first.
#[tokio::test]
async fn a_session_that_a_called_off_start_began_for_another_one_is_not_let_go_for_it() {
    let served = Served::start().await;
    let another = Another::start(&served).await;
    let mut game = game(&served, another.address).await;
    another.line.set(LineState::Held);
    let (i, second) = (game.number(), game.number());
    let mut first = start(i);
    first["start"]["template"] = json!({});
    let mut behind = first.clone();
    behind["start"]["i"] = json!(second);
    behind["start"]["s"] = json!(10);
    game.send(first.clone()).await;
    game.send(behind).await;
    until_taken(&mut game).await;
    another.line.set(LineState::Open);
    let started = game.answer(second).await["started"].take();
    assert!(started.is_object(), "{started}");
    // It has heard of the second one, and not of what became of the first.
    let named = json!([[10, "PlayerData", "global", "user-1", started["epoch"]]]);
    assert!(game.resume(served.address, named).await);
    game.send(first).await;
    game.send(json!({ "cancel": { "i": i } })).await;
    assert!(game.answer(i).await["error"].is_object());
    assert!(game.save(10, 1, 5, json!([])).await["saved"].is_object());
    assert_eq!(held(&served).await["job"], "eu-1");
}
