//! A profile's history over HTTP.

use profilestore::record::{Foreign, Stored};
use profilestore_server::keys::Scope;
use serde_json::{Value, json};

use crate::{Served, operation, put, refused};

const PLAYER: &str = "/v1/stores/PlayerData/profiles/user-1";

/// The audit log is ordered by that time: an edit of 1970 was its very last entry.
#[tokio::test]
async fn an_edit_or_a_rollback_under_a_key_with_another_time_is_refused() {
    let served = Served::start().await;
    let admin = served.admin();
    let made = admin.header("If-None-Match", "*").put(PLAYER, r#"{"data":{"coins":1}}"#).await;
    for wrong in ["00000000-0000-7000-8000-000000000001", "ffffffff-ffff-7000-8000-000000000001"] {
        let caller = admin.header("Idempotency-Key", wrong);
        let edit = caller.header("Content-Type", "application/merge-patch+json");
        let edited = edit.post(&format!("{PLAYER}/edits"), r#"{"coins":2}"#).await;
        refused(&edited, 422, "message-id-expired");
        let roll = caller.header("If-Match", made.etag());
        let rolled = roll.post(&format!("{PLAYER}/restores"), r#"{"version":1}"#).await;
        refused(&rolled, 422, "message-id-expired");
    }
    assert_eq!(admin.get(PLAYER).await.etag(), made.etag(), "nothing was done");
}

#[tokio::test]
async fn versions_are_listed_read_compared_and_made_current_again() {
    let served = Served::start().await;
    let admin = served.admin();
    let made = admin.header("If-None-Match", "*").put(PLAYER, r#"{"data":{"coins":1}}"#).await;
    let mut tag = made.etag().to_owned();
    for coins in 2..=3 {
        let body = format!("{{\"data\":{{\"coins\":{coins}}}}}");
        let put = admin.header("If-Match", &tag).put(PLAYER, &body).await;
        put.is(200);
        tag = put.etag().to_owned();
    }
    let versions = admin.get(&format!("{PLAYER}/versions?page_size=2")).await.is(200);
    let items = versions["items"].as_array().unwrap();
    assert_eq!(
        items.iter().map(|item| item["version"].as_u64().unwrap()).collect::<Vec<_>>(),
        [3, 2]
    );
    let next = versions["next_page_token"].as_str().unwrap();
    let rest = admin.get(&format!("{PLAYER}/versions?page_size=2&page_token={next}")).await;
    assert_eq!(rest.is(200)["items"].as_array().unwrap().len(), 1);

    let first = admin.get(&format!("{PLAYER}/versions/1")).await.is(200);
    assert_eq!(first["data"], json!({ "coins": 1 }));
    let label = items[1]["label"].as_str().unwrap();
    let second = admin.get(&format!("{PLAYER}/versions/{label}")).await.is(200);
    assert_eq!(second["version"], 2);
    let at = items[0]["written_ms"].as_i64().unwrap();
    let at = admin.get(&format!("{PLAYER}/versions/@{at}")).await.is(200);
    assert_eq!(at["version"], 3);
    refused(&admin.get(&format!("{PLAYER}/versions/99")).await, 404, "not-found");
    refused(&admin.get(&format!("{PLAYER}/versions/@yesterday")).await, 400, "invalid");

    let diff = admin.get(&format!("{PLAYER}/diff?from=1")).await.is(200);
    assert_eq!(diff["differences"], json!([{ "path": "/Data/coins", "before": 1, "after": 3 }]));

    let restores = format!("{PLAYER}/restores");
    let dry = admin.post(&restores, r#"{"version":"1","dry_run":true}"#).await.is(200);
    assert_eq!((&dry["would_restore"], &dry["would_replace"]), (&json!(1), &json!(3)));
    assert_eq!(dry["etag"], tag, "what a rollback would go over");
    let over = admin.header("If-Match", &tag);
    refused(&over.post(&restores, r#"{"version":"1"}"#).await, 400, "invalid");
    let roll = over.header("Idempotency-Key", &operation());
    let done = roll.post(&restores, r#"{"version":"1"}"#).await.is(200);
    assert_eq!((&done["restored"], &done["version"]), (&json!(1), &json!(4)));
    let again = roll.post(&restores, r#"{"version":1}"#).await.is(200);
    assert_eq!(again["version"], 4, "once, and a number is a version too");
    assert_eq!(admin.get(PLAYER).await.etag(), done["etag"]);
    assert_eq!(admin.get(PLAYER).await.is(200)["data"], json!({ "coins": 1 }));

    assert_eq!(admin.put(&format!("{PLAYER}/versions/2/pin"), "").await.status, 204);
    assert_eq!(admin.delete(&format!("{PLAYER}/versions/2/pin")).await.status, 204);
    refused(&admin.put(&format!("{PLAYER}/versions/77/pin"), "").await, 404, "not-found");

    let audit = admin.get("/v1/audit?profile=PlayerData/user-1").await.is(200);
    let actions: Vec<_> = audit["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["unpin", "pin", "rollback", "put", "put", "put"]);
}

#[tokio::test]
async fn a_rollback_under_the_idempotency_key_of_another_rollback_is_refused() {
    let served = Served::start().await;
    let admin = served.admin();
    let made = admin.header("If-None-Match", "*").put(PLAYER, r#"{"data":{"coins":1}}"#).await;
    let put = admin.header("If-Match", made.etag()).put(PLAYER, r#"{"data":{"coins":2}}"#).await;
    put.is(200);
    let roll = admin.header("Idempotency-Key", &operation()).header("If-Match", put.etag());
    let restores = format!("{PLAYER}/restores");
    roll.post(&restores, r#"{"version":"1"}"#).await.is(200);
    for other in [r#"{"version":"2"}"#, r#"{"version":2}"#] {
        refused(&roll.post(&restores, other).await, 422, "idempotency-key-reused");
    }
    // The same version by its other name is the same request.
    let first = admin.get(&format!("{PLAYER}/versions?oldest_first=true")).await.is(200);
    let label = format!("{{\"version\":{}}}", first["items"][0]["label"]);
    assert_eq!(roll.post(&restores, &label).await.is(200)["restored"], 1);
    for wrong in [r#"{"version":-1}"#, r#"{"version":1.5}"#, r#"{"version":null}"#, "{}"] {
        refused(&roll.post(&restores, wrong).await, 400, "invalid");
    }
    assert_eq!(admin.get(PLAYER).await.is(200)["data"], json!({ "coins": 1 }));
}

#[tokio::test]
async fn a_rollback_goes_over_nothing_that_its_sender_has_not_seen() {
    let served = Served::start().await;
    let admin = served.admin();
    let made = admin.header("If-None-Match", "*").put(PLAYER, r#"{"data":{"coins":1}}"#).await;
    let put = admin.header("If-Match", made.etag()).put(PLAYER, r#"{"data":{"coins":2}}"#).await;
    let (restores, first) = (format!("{PLAYER}/restores"), r#"{"version":1}"#);
    let once = admin.header("Idempotency-Key", &operation());
    refused(&once.post(&restores, first).await, 428, "precondition-required");
    refused(
        &once.header("If-Match", "*").post(&restores, first).await,
        428,
        "precondition-required",
    );
    let (early, absent) = (once.header("If-Match", made.etag()), once.header("If-None-Match", "*"));
    refused(&early.post(&restores, first).await, 412, "changed");
    refused(&absent.post(&restores, first).await, 412, "changed");
    assert_eq!(admin.get(PLAYER).await.is(200)["data"], json!({ "coins": 2 }), "nothing is done");

    let seen = once.header("If-Match", put.etag());
    let done = seen.post(&restores, first).await.is(200);
    let later = admin.header("If-Match", done["etag"].as_str().unwrap());
    later.put(PLAYER, r#"{"data":{"coins":7}}"#).await.is(200);
    let again = seen.post(&restores, first).await.is(200);
    assert_eq!((&again["version"], &again["etag"]), (&done["version"], &json!(null)));
    assert_eq!(admin.get(PLAYER).await.is(200)["data"], json!({ "coins": 7 }), "done once");

    let tag = admin.get(PLAYER).await.etag().to_owned();
    assert_eq!(admin.header("If-Match", &tag).delete(PLAYER).await.status, 204);
    let back = admin.header("Idempotency-Key", &operation());
    refused(&back.header("If-Match", &tag).post(&restores, first).await, 412, "changed");
    let back = back.header("If-None-Match", "*");
    assert_eq!(back.post(&restores, first).await.is(200)["restored"], 1);
    assert_eq!(admin.get(PLAYER).await.is(200)["data"], json!({ "coins": 1 }));
}

#[tokio::test]
async fn a_foreign_value_is_removed_under_the_etag_in_its_error() {
    let served = Served::start().await;
    let admin = served.admin();
    let foreign: Foreign = serde_json::from_str(r#"{"value":"elsewhere"}"#).unwrap();
    let foreign = Stored::Foreign(foreign).encode().unwrap();
    put(&served.store, [("user-1".to_owned(), foreign)]).await;
    let found = admin.get(PLAYER).await;
    refused(&found, 409, "foreign");
    let tag = found.json()["etag"].as_str().unwrap().to_owned();
    assert_eq!(admin.header("If-Match", &tag).delete(PLAYER).await.status, 204);
    refused(&admin.get(PLAYER).await, 404, "not-found");
}

#[tokio::test]
async fn what_a_profile_exchanged_with_others_is_listed_by_version() {
    let served = Served::start().await;
    let admin = served.admin();
    let inbox = "/v1/stores/PlayerData/profiles/ann/messages";
    let sent = admin.header("Idempotency-Key", &operation());
    let id = sent.post(inbox, r#"{"message":1}"#).await.is(201)["id"].clone();
    let game = served.game("game").await;
    let players = game.store::<Value>("PlayerData").unwrap();
    let ann = players.start_session("ann").await.unwrap();
    let bob = players.start_session("bob").await.unwrap();
    // A message that changes nothing makes no version, and is not listed.
    ann.message_handler(|data, message| {
        *data = json!({ "got": 1 });
        message.processed();
    });
    ann.save().await.unwrap();
    let path = |key: &str| format!("/v1/stores/PlayerData/profiles/{key}/exchanges");
    let to = players.clone();
    let trade = game.transaction().between((&ann, &bob)).run(move |tx, (ann, bob)| {
        *ann = json!({ "sword": 0 });
        *bob = json!({ "sword": 1 });
        tx.gift(&to, "carl", &"ann has sold her sword")
    });
    trade.await.unwrap();
    let all = admin.get(&path("ann")).await.is(200);
    let items = all["items"].as_array().unwrap();
    assert_eq!(items.len(), 2, "{all}");
    assert_eq!(items[0]["taken"], json!([id]));
    assert_eq!(items[1]["trade"]["with"][0]["key"], "bob");
    assert_eq!(items[1]["sent"][0]["to"]["key"], "carl");
    let of_bob = admin.get(&path("bob")).await.is(200);
    assert_eq!(of_bob["items"][0]["trade"]["id"], items[1]["trade"]["id"], "the same trade");
    // In pages, by version.
    let page = admin.get(&format!("{}?page_size=1", path("ann"))).await.is(200);
    let next = page["next_page_token"].as_str().unwrap();
    assert_eq!(next, items[0]["version"].to_string());
    let rest = admin.get(&format!("{}?page_token={next}", path("ann"))).await.is(200);
    assert_eq!(rest["items"].as_array().unwrap().len(), 1);
    let stranger = served.caller(&[Scope::MessagesSend]).await;
    refused(&stranger.get(&path("ann")).await, 403, "forbidden");
    assert!(game.shutdown().await.is_complete());
}
