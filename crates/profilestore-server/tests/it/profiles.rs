//! Profiles over HTTP: read, written, changed, removed, listed.

use profilestore_server::keys::Scope;
use serde_json::json;

use crate::{Served, fill, operation, refused};

const PLAYER: &str = "/v1/stores/PlayerData/profiles/user-1";

#[tokio::test]
async fn a_profile_is_made_read_changed_and_removed() {
    let served = Served::start().await;
    let admin = served.admin();
    refused(&admin.get(PLAYER).await, 404, "not-found");

    let new = admin.header("If-None-Match", "*");
    let made = new.put(PLAYER, r#"{"data":{"coins":10}}"#).await;
    assert_eq!(made.is(201)["version"], 1);
    refused(&new.put(PLAYER, r#"{"data":{}}"#).await, 412, "changed");

    let read = admin.get(PLAYER).await;
    let body = read.is(200);
    assert_eq!(body["data"], json!({ "coins": 10 }));
    assert_eq!((&body["held"], &body["cause"]), (&json!(null), &json!("set")));
    assert_eq!(read.etag(), made.etag());
    assert!(body["author"].as_str().unwrap().starts_with("test (key "), "{body}");
    assert_eq!(admin.header("If-None-Match", read.etag()).get(PLAYER).await.status, 304);

    let known = admin.header("If-Match", read.etag());
    let patch = known.header("Content-Type", "application/merge-patch+json");
    let changed = patch.with_body("PATCH", PLAYER, r#"{"level":3}"#).await;
    assert_eq!(changed.is(200)["version"], 2);
    refused(&patch.with_body("PATCH", PLAYER, r#"{"level":4}"#).await, 412, "changed");
    refused(&known.put(PLAYER, r#"{"data":{}}"#).await, 412, "changed");
    assert_eq!(admin.get(PLAYER).await.json()["data"], json!({ "coins": 10, "level": 3 }));

    refused(&known.delete(PLAYER).await, 412, "changed");
    let gone = admin.header("If-Match", changed.etag()).delete(PLAYER).await;
    assert_eq!(gone.status, 204);
    refused(&admin.get(PLAYER).await, 404, "not-found");
    let again = admin.header("If-Match", changed.etag()).delete(PLAYER).await;
    refused(&again, 412, "changed");
    assert!(served.stop().await);
}

#[tokio::test]
async fn a_write_without_a_condition_is_refused() {
    let served = Served::start().await;
    let admin = served.admin();
    refused(&admin.put(PLAYER, r#"{"data":{"coins":1}}"#).await, 428, "precondition-required");
    let any = admin.header("If-Match", "*");
    refused(&any.put(PLAYER, r#"{"data":{"coins":1}}"#).await, 428, "precondition-required");
    refused(&admin.delete(PLAYER).await, 428, "precondition-required");
    let new = admin.header("If-None-Match", "*");
    refused(&new.delete(PLAYER).await, 428, "precondition-required");
    let strange = admin.header("If-Match", "\"1\"");
    refused(&strange.put(PLAYER, r#"{"data":{"coins":1}}"#).await, 412, "changed");
    refused(&admin.get(PLAYER).await, 404, "not-found");
}

#[tokio::test]
async fn numbers_stay_the_text_that_was_sent() {
    let served = Served::start().await;
    let admin = served.admin();
    let data = r#"{"id":9223372036854775807,"big":18446744073709551615,"x":1.10,"y":1e-7,"z":-0}"#;
    let new = admin.header("If-None-Match", "*");
    let made = new.put(PLAYER, &format!("{{\"data\":{data}}}")).await;
    made.is(201);
    let read = admin.get(PLAYER).await;
    assert!(read.text().contains(data), "{}", read.text());
    // A change beside them leaves them alone.
    let patch =
        admin.header("If-Match", made.etag()).header("Content-Type", "application/json-patch+json");
    let step = r#"[{"op":"add","path":"/coins","value":9007199254740993}]"#;
    patch.with_body("PATCH", PLAYER, step).await.is(200);
    let read = admin.get(PLAYER).await;
    for number in ["9223372036854775807", "18446744073709551615", "9007199254740993"] {
        assert!(read.text().contains(number), "{number}: {}", read.text());
    }
}

#[tokio::test]
async fn json_that_cannot_be_stored_is_refused_and_named() {
    let served = Served::start().await;
    let new = served.admin().header("If-None-Match", "*");
    let deep = format!("{}1{}", "[".repeat(101), "]".repeat(101));
    let very_deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    for (data, kind, told) in [
        (r#"{"a":1,"a":2}"#, "invalid", "two members"),
        (r#"{"a":{"b":1e400}}"#, "invalid", "/a/b"),
        (r#"{"a":18446744073709551616}"#, "invalid", "64 bits"),
        (r#"{"a":"\ud800"}"#, "invalid", "surrogate"),
        (&deep, "invalid", "too deep"),
        (&very_deep, "invalid", "deep"),
        ("{", "invalid", "JSON"),
        ("", "invalid", "JSON"),
    ] {
        let answer = new.put(PLAYER, &format!("{{\"data\":{data}}}")).await;
        refused(&answer, 400, kind);
        assert!(answer.text().contains(told), "{told}: {}", answer.text());
    }
    let large = format!("{{\"data\":\"{}\"}}", "x".repeat(4 << 20));
    refused(&new.put(PLAYER, &large).await, 413, "too-large");
    let larger = format!("{{\"data\":\"{}\"}}", "x".repeat(6 << 20));
    refused(&new.put(PLAYER, &larger).await, 413, "too-large");
    // A length that is only said is refused before anything is read.
    let said = new.header("Content-Length", "99999999999");
    refused(&said.put(PLAYER, "{").await, 413, "too-large");
    let form = new.header("Content-Type", "application/x-www-form-urlencoded");
    refused(&form.put(PLAYER, "a=b").await, 415, "unsupported-media-type");
    let answer = new.send("PUT", PLAYER, Some(b"\xff\xfe")).await;
    refused(&answer, 400, "invalid");
    refused(&served.admin().get(PLAYER).await, 404, "not-found");
}

#[tokio::test]
async fn a_held_profile_is_edited_through_its_holder_and_not_overwritten() {
    let served = Served::start().await;
    let admin = served.admin();
    let game = served.game("game-1").await;
    let players = game.store::<serde_json::Value>("PlayerData").unwrap();
    let profile = players.start_session("user-1").await.unwrap();
    profile.update(|data| *data = json!({ "coins": 5 })).unwrap();
    profile.save().await.unwrap();

    let read = admin.get(PLAYER).await;
    assert_eq!(read.is(200)["held"]["job"], "game-1");
    assert_eq!(read.json()["held"]["server"], "alive");
    let known = admin.header("If-Match", read.etag());
    let held = known.put(PLAYER, r#"{"data":{}}"#).await;
    refused(&held, 409, "held");
    assert!(held.text().contains("game-1"), "{}", held.text());

    let edit = admin
        .header("Content-Type", "application/json-patch+json")
        .header("Idempotency-Key", &operation());
    let body = r#"[{"op":"increase","path":"/coins","by":100}]"#;
    let edits = format!("{PLAYER}/edits?reason=ticket%204711");
    let done = edit.post(&edits, body).await.is(200);
    assert_eq!((&done["outcome"], &done["reason"]), (&json!("done"), &json!("ticket 4711")));
    assert_eq!(profile.data()["coins"], 105, "the holder has it, and its session goes on");
    assert_eq!(edit.post(&edits, body).await.is(200)["operation"], done["operation"]);
    assert_eq!(profile.data()["coins"], 105, "once");
    let other = r#"[{"op":"increase","path":"/coins","by":1}]"#;
    refused(&edit.post(&edits, other).await, 422, "idempotency-key-reused");
    let wrong = edit.header("Idempotency-Key", &operation());
    let body = r#"[{"op":"remove","path":"/gems"}]"#;
    let answer = wrong.post(&edits, body).await;
    refused(&answer, 422, "edit-refused");
    let operation = answer.json()["operation"].as_str().unwrap().to_owned();
    let entry = admin.get(&format!("{PLAYER}/edits/{operation}")).await.is(200);
    assert_eq!(entry["outcome"], "refused");
    refused(&admin.post(&edits, "{}").await, 400, "invalid");

    let session = admin.get(&format!("{PLAYER}/session")).await.is(200);
    assert_eq!(session["held"]["job"], "game-1");
    let ended = admin.delete(&format!("{PLAYER}/session?reason=stuck")).await.is(200);
    assert_eq!(ended["held_by"], "game-1");
    assert!(!profile.is_active());
    assert_eq!(admin.delete(&format!("{PLAYER}/session")).await.is(200)["held_by"], json!(null));
    assert_eq!(admin.get(PLAYER).await.is(200)["data"]["coins"], 105);
    assert!(game.shutdown().await.is_complete());
}

#[tokio::test]
async fn profiles_are_listed_in_pages() {
    let served = Served::start().await;
    let admin = served.admin();
    let new = admin.header("If-None-Match", "*");
    for name in ["a", "a%2Fb", "b", "c", "%20x%20"] {
        let path = format!("/v1/stores/S/profiles/{name}");
        assert_eq!(new.put(&path, r#"{"data":{}}"#).await.status, 201, "{name}");
    }
    let other = "/v1/stores/S/scopes/season%202/profiles/z";
    assert_eq!(new.put(other, r#"{"data":{}}"#).await.status, 201);
    assert_eq!(admin.get(other).await.is(200)["scope"], "season 2");

    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/stores/S/profiles?page_size=2{token}");
        let page = admin.get(&path).await.is(200);
        for item in page["items"].as_array().unwrap() {
            found.push(item["key"].as_str().unwrap().to_owned());
        }
        match page["next_page_token"].as_str() {
            Some(next) => token = format!("&page_token={next}"),
            None => break,
        }
    }
    assert_eq!(found, [" x ", "a", "a/b", "b", "c"]);
    let page = admin.get("/v1/stores/S/profiles?prefix=a").await.is(200);
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    for wrong in ["page_size=0", "page_size=501", "page_token=x", "held=maybe", "colour=red"] {
        let answer = admin.get(&format!("/v1/stores/S/profiles?{wrong}")).await;
        refused(&answer, 400, "invalid");
    }
    let stores = admin.get("/v1/stores").await.is(200);
    assert_eq!(
        stores["items"],
        json!([{ "store": "S", "scope": "global" }, { "store": "S", "scope": "season 2" }])
    );
    let reader = served.caller(&[Scope::ProfilesRead]).await;
    assert_eq!(reader.get("/v1/stores/S/profiles").await.status, 200);
}

#[tokio::test]
async fn an_etag_of_another_profile_is_none_of_this_one() {
    let served = Served::start().await;
    let admin = served.admin();
    let other = "/v1/stores/PlayerData/profiles/user-2";
    let new = admin.header("If-None-Match", "*");
    let (first, second) = (
        new.put(PLAYER, r#"{"data":{"coins":1}}"#).await,
        new.put(other, r#"{"data":{"coins":2}}"#).await,
    );
    // The same epoch and version.
    let of_the_other = admin.header("If-Match", second.etag());
    refused(&of_the_other.put(PLAYER, r#"{"data":{"coins":3}}"#).await, 412, "changed");
    refused(&of_the_other.delete(PLAYER).await, 412, "changed");
    let known = admin.header("If-None-Match", second.etag());
    assert_eq!(known.get(PLAYER).await.is(200)["data"]["coins"], 1);
    admin.header("If-Match", first.etag()).put(PLAYER, r#"{"data":{"coins":3}}"#).await.is(200);
}

#[tokio::test]
async fn members_that_a_request_does_not_know_are_refused_by_their_names() {
    let served = Served::start().await;
    let new = served.admin().header("If-None-Match", "*");
    let answer = new.put(PLAYER, r#"{"data":{"coins":1},"tags":{},"user_ids":[1]}"#).await;
    refused(&answer, 400, "invalid");
    for name in ["tags", "user_ids"] {
        assert!(answer.text().contains(name), "{}", answer.text());
    }
    refused(&served.admin().get(PLAYER).await, 404, "not-found");
    let shop = served.admin().header("Idempotency-Key", &operation());
    let answer = shop.post(&format!("{PLAYER}/messages"), r#"{"message":1,"id":"x"}"#).await;
    refused(&answer, 400, "invalid");
    assert!(answer.text().contains("`id`"), "{}", answer.text());
}

#[tokio::test]
async fn data_that_no_game_could_open_is_refused() {
    let served = Served::start().await;
    let admin = served.admin();
    let new = admin.header("If-None-Match", "*");
    for data in ["1", "null", "true", "\"{}\""] {
        let answer = new.put(PLAYER, &format!("{{\"data\": {data} }}")).await;
        refused(&answer, 400, "invalid");
        assert!(answer.text().contains("neither object nor list"), "{}", answer.text());
    }
    refused(&admin.get(PLAYER).await, 404, "not-found");
    let made = new.put(PLAYER, r#"{ "data" : [ ] }"#).await;
    made.is(201);
    let known = admin.header("If-Match", made.etag());
    refused(&known.put(PLAYER, r#"{"data":1}"#).await, 400, "invalid");
    known.put(PLAYER, r#"{"data":{}}"#).await.is(200);
    // What a game in Rust stored in another form can still be changed.
    fill(&served.store, [("rust".to_owned(), "1".to_owned())]).await;
    let rust = "/v1/stores/PlayerData/profiles/rust";
    let known = admin.header("If-Match", admin.get(rust).await.etag());
    refused(&known.put(rust, r#"{"data":2}"#).await, 400, "invalid");
    let patch = known.header("Content-Type", "application/json-patch+json");
    let step = r#"[{"op":"replace","path":"","value":2}]"#;
    patch.with_body("PATCH", rust, step).await.is(200);
    assert_eq!(admin.get(rust).await.is(200)["data"], 2);
}

/// Most clients take such parts of a path away, and would then ask for something else: for the key
/// in the default scope, say, where the scope was called `..`.
#[tokio::test]
async fn keys_scopes_and_members_called_dot_or_dot_dot_are_refused_in_a_path() {
    let served = Served::start().await;
    let new = served.admin().header("If-None-Match", "*");
    for path in [
        "/v1/stores/S/profiles/.",
        "/v1/stores/S/profiles/..",
        "/v1/stores/S/profiles/%2E%2e",
        "/v1/stores/S/profiles/.%2E",
        "/v1/stores/S/profiles/../messages",
        "/v1/stores/S/scopes/../profiles/x",
        "/v1/stores/../profiles/x",
        "/v1/members/..",
    ] {
        let answer = new.put(path, r#"{"data":{"coins":1}}"#).await;
        refused(&answer, 400, "invalid");
        assert!(answer.text().contains("`..`"), "{}", answer.text());
    }
    for name in [".", ".."] {
        let body = json!({ "name": name, "role": "viewer", "password": "correct horse" });
        let answer = served.admin().post("/v1/members", &body.to_string()).await;
        refused(&answer, 400, "invalid");
    }
    for path in
        ["/v1/stores/S/profiles/...", "/v1/stores/S/profiles/..a", "/v1/stores/.S/profiles/a."]
    {
        new.put(path, r#"{"data":{"coins":1}}"#).await.is(201);
    }
}

#[tokio::test]
async fn a_path_that_is_not_encoded_well_is_refused_and_named() {
    let served = Served::start().await;
    let new = served.admin().header("If-None-Match", "*");
    for name in ["a%zz", "a%", "a%2", "%%41"] {
        let answer = new.put(&format!("/v1/stores/S/profiles/{name}"), r#"{"data":{}}"#).await;
        refused(&answer, 400, "invalid");
        assert!(answer.text().contains(name), "{}", answer.text());
    }
    new.put("/v1/stores/S/profiles/a%25zz", r#"{"data":{"coins":1}}"#).await.is(201);
    let page = served.admin().get("/v1/stores/S/profiles").await.is(200);
    assert_eq!(page["items"][0]["key"], "a%zz");
}
