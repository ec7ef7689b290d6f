//! Who may do what.

use futures_util::future::join_all;
use profilestore_server::{config::Options, keys::Scope};
use serde_json::json;

use crate::{
    Served,
    client::Client,
    description::{described, filled},
    operation, refused,
};

const PLAYER: &str = "/v1/stores/PlayerData/profiles/user-1";

#[tokio::test]
async fn without_a_key_only_the_pages_are_shown() {
    let served = Served::start().await;
    let stranger = Client::without_key(served.address);
    for path in ["/healthz", "/readyz", "/docs", "/errors", "/errors/held", "/openapi.json"] {
        assert_eq!(stranger.get(path).await.status, 200, "{path}");
    }
    for path in [PLAYER, "/v1/stores", "/v1/keys", "/v1/audit", "/metrics", "/v1/servers"] {
        let answer = stranger.get(path).await;
        refused(&answer, 401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    }
    let last = if served.admin.ends_with('A') { "B" } else { "A" };
    let wrong = format!("{}{last}", &served.admin[..served.admin.len() - 1]);
    for key in [&*wrong, "ps_x", "", "ps_000000000000_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]
    {
        refused(&Client::new(served.address, key).get(PLAYER).await, 401, "unauthorized");
    }
    let basic = stranger.header("Authorization", &format!("Basic {}", served.admin));
    refused(&basic.get(PLAYER).await, 401, "unauthorized");
}

#[tokio::test]
async fn a_viewers_scopes_change_nothing_by_any_operation() {
    let served = Served::start().await;
    let viewer = served.caller(&[Scope::ProfilesRead, Scope::AuditRead]).await;
    let viewer = viewer.header("If-Match", "\"x\"").header("Idempotency-Key", &operation());
    let before = served.admin().get("/v1/audit").await.is(200);
    for (method, path) in described().into_iter().filter(|(method, _)| method != "GET") {
        let expected = match &*path {
            // Any caller may ask there, with a password or a link.
            "/v1/login" | "/v1/logout" | "/v1/setup" => continue,
            // These are for log-ins, and a key is none.
            "/v1/arm" | "/v1/password" => (401, "unauthorized"),
            // It sees no log-in, so there is none to end.
            "/v1/logins/{id}" => (404, "not-found"),
            _ => (403, "forbidden"),
        };
        let answer = viewer.send(&method, &filled(&path), Some(b"{}")).await;
        let kind = answer.json()["kind"].as_str().unwrap_or_default().to_owned();
        assert_eq!((answer.status, &*kind), expected, "{method} {path}");
    }
    assert_eq!(served.admin().get("/v1/audit").await.is(200), before);
}

#[tokio::test]
async fn a_key_that_only_sends_reads_what_is_open_to_all_and_nothing_else() {
    let served = Served::start().await;
    let sender = served.caller(&[Scope::MessagesSend]).await;
    let mut open = Vec::new();
    for (_, path) in described().into_iter().filter(|(method, _)| method == "GET") {
        // A comparison says with what; without it the request is wrong for every caller.
        let query = if path.ends_with("/diff") { "?from=1" } else { "" };
        let answer = sender.get(&format!("{}{query}", filled(&path))).await;
        if answer.status != 403 {
            open.push(path);
        }
    }
    open.sort();
    let pages = ["/docs", "/errors", "/errors/{kind}", "/healthz", "/openapi.json", "/readyz"];
    let about_itself = ["/v1/logins", "/v1/me", "/v1/roles", "/v1/setup"];
    assert_eq!(open, [&pages[..], &about_itself].concat());
    assert_eq!(sender.get("/v1/logins").await.is(200)["items"], json!([]));
}

#[tokio::test]
async fn a_key_does_what_its_scopes_name_and_nothing_else() {
    let served = Served::start().await;
    let admin = served.admin();
    let made = admin.header("If-None-Match", "*").put(PLAYER, r#"{"data":{}}"#).await;
    made.is(201);
    let tag = made.etag().to_owned();
    let message = format!("{PLAYER}/messages");
    for scope in Scope::ALL {
        let caller = served.caller(&[scope]).await;
        let with = caller.header("If-Match", &tag).header("Idempotency-Key", &operation());
        let is = |wanted| scope == Scope::Admin || scope == wanted;
        let allowed = |status: u16| status != 403;
        assert_eq!(allowed(caller.get(PLAYER).await.status), is(Scope::ProfilesRead), "{scope}");
        let put = with.put(PLAYER, "{").await;
        assert_eq!(allowed(put.status), is(Scope::ProfilesWrite), "{scope}");
        let sent = with.post(&message, "{").await;
        assert_eq!(allowed(sent.status), is(Scope::MessagesSend), "{scope}");
        let edit = with.post(&format!("{PLAYER}/edits"), "{").await;
        assert_eq!(allowed(edit.status), is(Scope::EditsSingle), "{scope}");
        let restore = with.post(&format!("{PLAYER}/restores"), "{").await;
        assert_eq!(allowed(restore.status), is(Scope::HistoryRestore), "{scope}");
        assert_eq!(allowed(caller.get("/v1/audit").await.status), is(Scope::AuditRead), "{scope}");
        let export = caller.get("/v1/users/1/export").await;
        assert_eq!(allowed(export.status), is(Scope::UsersExport), "{scope}");
        let metrics = caller.get("/metrics").await;
        assert_eq!(allowed(metrics.status), is(Scope::MetricsRead), "{scope}");
        assert_eq!(allowed(caller.get("/v1/keys").await.status), scope == Scope::Admin, "{scope}");
        let erased = caller.post("/v1/users/777/erasures?colour=red", "").await;
        assert_eq!(allowed(erased.status), is(Scope::UsersErase) || erased.status == 400);
    }
    let reader = served.caller(&[Scope::ProfilesRead]).await;
    let answer = reader.delete(PLAYER).await;
    refused(&answer, 403, "forbidden");
    assert_eq!(answer.json()["scope"], "profiles:write");
}

#[tokio::test]
async fn two_keys_that_are_narrowed_to_other_stores_do_not_see_each_others() {
    let served = Served::start().await;
    let both = [Scope::ProfilesRead, Scope::ProfilesWrite, Scope::UsersErase, Scope::AuditRead];
    let red = served.narrowed(&both, "Red", None).await;
    let blue = served.narrowed(&both, "Blue", Some("team-a/")).await;
    let (in_red, in_blue) = ("/v1/stores/Red/profiles/x", "/v1/stores/Blue/profiles/team-a%2Fx");
    let new = |caller: &Client| caller.header("If-None-Match", "*");
    new(&red).put(in_red, r#"{"data":{"coins":1}}"#).await.is(201);
    new(&blue).put(in_blue, r#"{"data":{"coins":2}}"#).await.is(201);
    assert_eq!(red.get(in_red).await.is(200)["data"]["coins"], 1);
    assert_eq!(blue.get(in_blue).await.is(200)["data"]["coins"], 2);
    refused(&red.get(in_blue).await, 403, "forbidden");
    refused(&blue.get(in_red).await, 403, "forbidden");
    refused(&new(&red).put(in_blue, r#"{"data":{"coins":3}}"#).await, 403, "forbidden");
    let beside = "/v1/stores/Blue/profiles/team-b%2Fx";
    refused(&new(&blue).put(beside, r#"{"data":{"coins":3}}"#).await, 403, "forbidden");
    let scoped = "/v1/stores/Blue/scopes/s/profiles/team-b";
    refused(&blue.get(scoped).await, 403, "forbidden");
    // A list shows what the key reaches.
    served.admin().header("If-None-Match", "*").put(beside, r#"{"data":{}}"#).await.is(201);
    for query in ["", "?prefix=team", "?prefix=team-a%2F"] {
        let page = blue.get(&format!("/v1/stores/Blue/profiles{query}")).await.is(200);
        let items = page["items"].as_array().unwrap();
        assert_eq!(items.len(), 1, "{query}");
        assert_eq!(items[0]["key"], "team-a/x");
    }
    refused(&blue.get("/v1/stores/Blue/profiles?prefix=team-b").await, 403, "forbidden");
    refused(&red.get("/v1/stores/Blue/profiles").await, 403, "forbidden");
    // What crosses stores is not for them.
    for path in ["/v1/stores", "/v1/servers", "/v1/sessions", "/v1/audit", "/v1/users/1/profiles"] {
        refused(&red.get(path).await, 403, "forbidden");
    }
    refused(&red.post("/v1/users/1/erasures", "").await, 403, "forbidden");
}

#[tokio::test]
async fn the_librarys_own_books_are_out_of_reach_even_for_an_admin() {
    let served = Served::start().await;
    let admin = served.admin();
    let id = served.admin.split('_').nth(1).unwrap();
    let own = format!("/v1/stores/~profilestore/scopes/api-keys/profiles/{id}");
    refused(&admin.get(&own).await, 403, "forbidden");
    let new = admin.header("If-None-Match", "*");
    refused(&new.put(&own, r#"{"data":{}}"#).await, 403, "forbidden");
    let list = "/v1/stores/~profilestore/scopes/api-keys/profiles";
    refused(&admin.get(list).await, 403, "forbidden");
    assert_eq!(admin.get("/v1/stores").await.is(200)["items"], json!([]));
}

#[tokio::test]
async fn keys_are_made_listed_and_revoked_over_http() {
    let served = Served::start().await;
    let admin = served.admin();
    let body = r#"{"name":"shop","scopes":["profiles:read"],"store":"PlayerData"}"#;
    let made = admin.post("/v1/keys", body).await.is(201);
    let key = made["key"].as_str().unwrap();
    let id = made["record"]["id"].as_str().unwrap();
    let shop = Client::new(served.address, key);
    refused(&shop.get(PLAYER).await, 404, "not-found");
    let list = admin.get("/v1/keys").await;
    assert_eq!(list.is(200)["items"].as_array().unwrap().len(), 2);
    assert!(!list.text().contains(&key[16..]), "no secret");
    refused(&shop.get("/v1/keys").await, 403, "forbidden");
    assert!(admin.delete(&format!("/v1/keys/{id}")).await.is(200)["revoked_ms"].is_i64());
    refused(&shop.get(PLAYER).await, 401, "unauthorized");
    refused(&admin.delete("/v1/keys/000000000000").await, 404, "not-found");
    for wrong in [
        r#"{"name":"","scopes":["admin"]}"#,
        r#"{"name":"a","scopes":[]}"#,
        r#"{"name":"a","scopes":["all"]}"#,
        r#"{"name":"a","scopes":["admin"],"store":"S"}"#,
        r#"{"name":"a","scopes":["admin"],"colour":"red"}"#,
    ] {
        refused(&admin.post("/v1/keys", wrong).await, 400, "invalid");
    }
}

#[tokio::test]
async fn a_key_that_sends_too_much_is_told_when_to_come_again_and_others_are_served() {
    let options = Options { requests_per_second: Some(1), ..Options::default() };
    let served = Served::with(options).await;
    let shop = served.caller(&[Scope::ProfilesRead]).await;
    // Answering all of them would take 200 seconds.
    let asked = join_all((0..200).map(|_| shop.get("/v1/servers"))).await;
    let refusals: Vec<_> = asked.iter().filter(|answer| answer.status == 429).collect();
    assert!(asked.iter().any(|answer| answer.status == 200));
    let refusal = refusals.first().expect("some of 200 are too many");
    refused(refusal, 429, "too-many-requests");
    assert!(refusal.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(served.admin().get("/v1/servers").await.status, 200, "another key");
    for free in ["/healthz", "/readyz"] {
        assert_eq!(shop.get(free).await.status, 200, "{free}");
    }
    let watch = served.caller(&[Scope::MetricsRead]).await;
    let metrics = join_all((0..50).map(|_| watch.get("/metrics"))).await;
    assert!(metrics.iter().all(|answer| answer.status == 200), "metrics do not count");
    assert!(metrics[0].text().contains("profilestore_requests_limited_total"));
}
