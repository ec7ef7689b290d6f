//! Messages over HTTP.

use profilestore_server::keys::Scope;
use serde_json::json;

use crate::{Served, operation, refused};

const INBOX: &str = "/v1/stores/PlayerData/profiles/user-2/messages";

#[tokio::test]
async fn a_purchase_that_is_reported_three_times_arrives_once() {
    let served = Served::start().await;
    let now = profilestore::env::Env::system().unix_ms();
    let shop = served
        .caller(&[Scope::MessagesSend])
        .await
        .header("Idempotency-Key", &format!("{now}:order-4711"));
    let body = r#"{"message":{"type":"purchase","coins":500}}"#;
    let first = shop.post(INBOX, body).await.is(201);
    assert_eq!(
        (&first["stored_now"], &first["id"]),
        (&json!(true), &json!(format!("{now}:order-4711")))
    );
    for _ in 0..2 {
        assert_eq!(shop.post(INBOX, body).await.is(200)["stored_now"], false);
    }
    let other = r#"{"message":{"type":"purchase","coins":501}}"#;
    refused(&shop.post(INBOX, other).await, 422, "message-id-reused");

    let game = served.game("game").await;
    let players = game.store::<serde_json::Value>("PlayerData").unwrap();
    let profile = players.start_session("user-2").await.unwrap();
    profile.message_handler(|data, message| {
        let gift: serde_json::Value = message.parse().unwrap();
        let coins = data["coins"].as_i64().unwrap_or(0) + gift["coins"].as_i64().unwrap();
        *data = json!({ "coins": coins });
        message.processed();
    });
    profile.end_session().await.unwrap();
    assert_eq!(shop.post(INBOX, body).await.is(200)["stored_now"], false, "also afterwards");
    let read = served.admin().get("/v1/stores/PlayerData/profiles/user-2").await.is(200);
    assert_eq!(read["data"], json!({ "coins": 500 }));
    assert!(game.shutdown().await.is_complete());
}

#[tokio::test]
async fn a_message_needs_an_identity_of_this_time() {
    let served = Served::start().await;
    let admin = served.admin();
    let body = r#"{"message":1}"#;
    refused(&admin.post(INBOX, body).await, 400, "invalid");
    let old = admin.header("Idempotency-Key", "1000:order");
    refused(&old.post(INBOX, body).await, 422, "message-id-expired");
    let v4 = admin.header("Idempotency-Key", "4a1ee387-a000-4000-8000-000000000001");
    refused(&v4.post(INBOX, body).await, 400, "invalid");
    let id = operation();
    let uuid = admin.header("Idempotency-Key", &format!("\"{id}\""));
    uuid.post(INBOX, r#"{"message":[1,18446744073709551615]}"#).await.is(201);
    let waiting = admin.get(INBOX).await;
    assert!(waiting.text().contains(r#""message":[1,18446744073709551615]"#), "{}", waiting.text());
    assert!(waiting.text().contains(&id));
    let large = format!("{{\"message\":\"{}\"}}", "x".repeat(256 << 10));
    let new = admin.header("Idempotency-Key", &operation());
    refused(&new.post(INBOX, &large).await, 413, "too-large");
}
