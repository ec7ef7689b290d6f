//! How the store is, over HTTP.

use profilestore_server::keys::Scope;
use serde_json::json;

use crate::{Served, fill, operation, refused};

const STATUS: &str = "/v1/status";

#[tokio::test]
async fn the_state_of_the_store_tells_clock_servers_inboxes_and_size() {
    let served = Served::start().await;
    let admin = served.admin();
    fill(&served.store, (0..30).map(|at| (format!("p{at}"), "{\"coins\":1}".to_owned()))).await;
    let game = served.game("game-1").await;
    let sent = admin.header("Idempotency-Key", &operation());
    let inbox = "/v1/stores/PlayerData/profiles/p7/messages";
    sent.post(inbox, r#"{"message":1}"#).await.is(201);
    let status = admin.get(STATUS).await.is(200);
    assert_eq!(status["format"], 2);
    // One clock serves both here, so they differ by the time of a request at most.
    let ahead = status["clock_ahead_ms"].as_i64().unwrap();
    assert!(ahead.unsigned_abs() <= status["round_trip_ms"].as_u64().unwrap() + 1000, "{status}");
    // The process that answers, and the game server.
    assert_eq!(status["servers"], json!({ "alive": 2, "silent": 0, "dead": 0 }));
    let waiting = &status["waiting"];
    assert_eq!((&waiting["messages"], &waiting["edits"]), (&json!(1), &json!(0)), "{status}");
    assert_eq!((&waiting["keys"], &waiting["oldest"]["key"]), (&json!(1), &json!("p7")));
    assert_eq!(status["pending"], json!([]));
    assert_eq!(status["tables"][0]["name"], "file");
    assert!(status["tables"][0]["bytes"].as_u64().unwrap() > 0, "{status}");
    assert!(game.shutdown().await.is_complete());
    assert_eq!(admin.get(STATUS).await.is(200)["servers"]["dead"], 1);
}

#[tokio::test]
async fn only_callers_who_reach_all_stores_see_how_the_store_is() {
    let served = Served::start().await;
    served.caller(&[Scope::ProfilesRead]).await.get(STATUS).await.is(200);
    refused(&served.caller(&[Scope::MessagesSend]).await.get(STATUS).await, 403, "forbidden");
    let narrowed = served.narrowed(&[Scope::ProfilesRead], "PlayerData", None).await;
    refused(&narrowed.get(STATUS).await, 403, "forbidden");
}
