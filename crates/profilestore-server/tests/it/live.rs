//! What happens now, as a stream of events.

use profilestore_server::keys::Scope;
use profilestore_testbed::GameClient;
use serde_json::{Value, json};

use crate::{Served, client::Client, members, refused};

const LIVE: &str = "/v1/live";

#[tokio::test]
async fn what_happens_is_told_while_an_operator_watches() {
    let served = Served::start().await;
    let mut game = GameClient::connect(served.address, &served.admin, "eu-1").await;
    game.start(1, "user-1").await;
    game.save(1, 1, 5, json!([])).await;
    let watcher = served.caller(&[Scope::MetricsRead]).await;
    let now: Value = watcher.first_event(LIVE).await;
    for (name, value) in [("connections", 1), ("servers", 2)] {
        assert_eq!(now[name], value, "{name}: {now}");
    }
    // These are the numbers of the whole process, in which other tests may run.
    for name in ["sessions", "starts", "saves"] {
        assert!(now[name].as_u64().unwrap() >= 1, "{name}: {now}");
    }
    assert!(now["at_ms"].as_i64().unwrap() > 1_700_000_000_000, "{now}");
    assert_eq!(now["is_critical"], false);
    assert!(game.end(1, 2).await["ended"].is_object());
}

#[tokio::test]
async fn watching_takes_metrics_read_or_a_role_that_is_not_narrowed() {
    let served = Served::start().await;
    refused(&Client::without_key(served.address).get(LIVE).await, 401, "unauthorized");
    refused(&served.caller(&[Scope::ProfilesRead]).await.get(LIVE).await, 403, "forbidden");
    let narrowed = served.narrowed(&[Scope::MetricsRead], "PlayerData", None).await;
    refused(&narrowed.get(LIVE).await, 403, "forbidden");
    let viewer = members::member(&served, "eve", "viewer").await;
    assert_eq!(viewer.first_event(LIVE).await["connections"], 0);
    let only = r#"{"stores":["PlayerData"]}"#;
    served.admin().with_body("PATCH", "/v1/members/eve", only).await.is(200);
    // Another process may believe the old record for two seconds; this one does not.
    refused(&viewer.get(LIVE).await, 403, "forbidden");
}

#[tokio::test]
async fn a_stream_ends_when_its_key_is_revoked_and_when_the_process_stops() {
    let served = Served::start().await;
    let watcher = served.caller(&[Scope::MetricsRead]).await;
    let id = watcher.get("/v1/me").await.is(200)["id"].as_str().unwrap().to_owned();
    let watching = tokio::spawn(async move { watcher.get(LIVE).await });
    served.admin().delete(&format!("/v1/keys/{id}")).await;
    let ended = watching.await.unwrap();
    assert!([200, 401].contains(&ended.status), "{}", ended.status);
    let admin = served.admin();
    let watching = tokio::spawn(async move { admin.get(LIVE).await });
    served.app.send_away().await;
    assert_eq!(watching.await.unwrap().status, 200);
    assert!(served.stop().await, "no request is left");
}

#[tokio::test]
async fn sessions_of_all_hosted_game_servers_are_counted_together() {
    let served = Served::start().await;
    let mut first = GameClient::connect(served.address, &served.admin, "eu-1").await;
    let mut second = GameClient::connect(served.address, &served.admin, "eu-2").await;
    first.start(1, "user-1").await;
    first.start(2, "user-2").await;
    second.start(1, "user-3").await;
    let now = served.caller(&[Scope::MetricsRead]).await.first_event(LIVE).await;
    assert!(now["sessions"].as_u64().unwrap() >= 3, "{now}");
}

#[tokio::test]
async fn hand_overs_of_hosted_game_servers_are_counted_and_their_time_is_told() {
    let served = Served::start().await;
    let mut first = GameClient::connect(served.address, &served.admin, "eu-1").await;
    let mut second = GameClient::connect(served.address, &served.admin, "eu-2").await;
    first.start(1, "user-1").await;
    let i = second.number();
    let start = json!({ "i": i, "s": 1, "store": "PlayerData", "key": "user-1" });
    second.send(json!({ "start": start })).await;
    first.expect("release").await;
    assert!(first.end(1, 1).await["ended"].is_object());
    assert!(second.answer(i).await["started"].is_object());
    let now = served.caller(&[Scope::MetricsRead]).await.first_event(LIVE).await;
    let took = |name: &str| now[name].as_f64().unwrap_or_else(|| panic!("{name}: {now}"));
    let (half, most) = (took("hand_over_p50_ms"), took("hand_over_p99_ms"));
    assert!(half > 0.0 && half <= most, "{now}");
    assert!(now["hand_overs"].as_u64().unwrap() >= 1, "{now}");
}
