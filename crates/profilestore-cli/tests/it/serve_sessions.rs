//! Sessions through the real program, which is killed.

use std::{net::SocketAddr, time::Duration};

use profilestore_testbed::GameClient;
use serde_json::json;

use super::*;
use crate::serve::Running;

fn address(running: &Running) -> SocketAddr {
    running.url.strip_prefix("http://").unwrap().parse().unwrap()
}

/// SIGKILL of the process that hosts a game server, again and again. Another process, which was
/// there before or is started then, takes over.
#[tokio::test]
async fn a_killed_server_process_ends_no_session_and_loses_nothing_that_was_answered() {
    let place = Place::new();
    let mut hosting = Running::start(&place, &[]);
    let key = hosting.key.clone().unwrap();
    let mut game = GameClient::connect(address(&hosting), &key, "eu-1").await;
    let mut named = Vec::new();
    for s in 1..=5 {
        let started = game.start(s, &format!("user-{s}")).await;
        named.push(json!([s, "PlayerData", "global", format!("user-{s}"), started["epoch"]]));
    }
    let incarnation = game.welcome["incarnation"].clone();
    for round in 1..=4 {
        for s in 1..=4 {
            let saved = game.save(s, round, 10 * round + s, json!([])).await;
            assert!(saved["saved"].is_object(), "{saved}");
        }
        // One more is on its way when the process dies: nobody knows whether it took effect.
        let i = game.number();
        let frame = json!({ "save": {
            "i": i, "s": 5, "n": round, "data": { "coins": 10 * round + 5 },
        } });
        game.send(frame.clone()).await;
        hosting.child.kill().unwrap();
        hosting.child.wait().unwrap();
        hosting = Running::start(&place, &[]);
        assert!(game.resume(address(&hosting), json!(named)).await);
        assert_eq!(game.welcome["resumed"], "same", "round {round}");
        assert_eq!(game.welcome["incarnation"], incarnation);
        for _ in 1..=5 {
            game.expect("resumed").await;
        }
        game.send(frame).await;
        let saved = game.answer(i).await;
        assert!(saved["saved"].is_object(), "round {round}: {saved}");
        for s in 1..=5 {
            let path = format!("/v1/stores/PlayerData/profiles/user-{s}");
            let (status, body) = hosting.ask(&key, "GET", &path, "", "");
            let read: Value = serde_json::from_str(&body).unwrap();
            assert_eq!((status, &read["data"]["coins"]), (200, &json!(10 * round + s)), "{read}");
            assert_eq!(read["held"]["job"], "eu-1");
        }
    }
    game.pong().await;
    assert!(!game.comes("closed", Duration::ZERO).await);
    for s in 1..=5 {
        assert!(game.end(s, 9).await["ended"].is_object());
    }
    assert_eq!(hosting.stop(), 0);
    assert_eq!(place.ok(&["sessions"]), "no profile is held\n");
}

/// The process dies between the commit of a start and its answer.
#[tokio::test]
async fn a_start_that_is_sent_again_after_a_kill_is_the_same_start() {
    let place = Place::new();
    let hosting = Running::start(&place, &[]);
    let key = hosting.key.clone().unwrap();
    let mut game = GameClient::connect(address(&hosting), &key, "eu-1").await;
    let i = game.number();
    let start = json!({ "start": {
        "i": i, "s": 1, "store": "PlayerData", "key": "user-1", "template": { "coins": 3 },
    } });
    game.send(start.clone()).await;
    let first = game.answer(i).await["started"].clone();
    let mut hosting = hosting;
    for _ in 0..2 {
        hosting.child.kill().unwrap();
        hosting.child.wait().unwrap();
        hosting = Running::start(&place, &[]);
        assert!(game.resume(address(&hosting), json!([])).await);
        game.send(start.clone()).await;
        let again = game.answer(i).await["started"].clone();
        assert_eq!(again, first, "the same epoch, version and load count");
    }
    assert!(game.save(1, 1, 4, json!([])).await["saved"].is_object());
    assert!(game.end(1, 2).await["ended"].is_object());
    assert_eq!(hosting.stop(), 0);
}
