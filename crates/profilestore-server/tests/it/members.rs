//! Members: the first one, logging in, what a log-in may do, and what ends it.

use profilestore_server::keys::Scope;
use serde_json::{Value, json};

use crate::{
    Served,
    client::{Answer, Client},
    operation, refused,
};

const PLAYER: &str = "/v1/stores/PlayerData/profiles/user-1";
const PASSWORD: &str = "correct horse";

/// A browser on a page of this server.
fn browser(served: &Served) -> Client {
    Client::without_key(served.address).header("Origin", &format!("http://{}", served.address))
}

/// The same with the cookie that an answer set.
fn with_cookie(browser: &Client, answer: &Answer) -> Client {
    let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap();
    browser.header("Cookie", cookie)
}

async fn log_in(served: &Served, name: &str, password: &str) -> Answer {
    let body = json!({ "name": name, "password": password }).to_string();
    browser(served).post("/v1/login", &body).await
}

pub(crate) async fn member(served: &Served, name: &str, role: &str) -> Client {
    let body = json!({ "name": name, "role": role, "password": PASSWORD }).to_string();
    served.admin().post("/v1/members", &body).await.is(201);
    let answer = log_in(served, name, PASSWORD).await;
    answer.is(200);
    with_cookie(&browser(served), &answer)
}

fn first(token: &str) -> String {
    json!({ "token": token, "name": "ann", "password": PASSWORD }).to_string()
}

async fn actions(served: &Served) -> Vec<Value> {
    served.admin().get("/v1/audit").await.is(200)["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn the_set_up_link_makes_the_first_admin_once() {
    let served = Served::start().await;
    let token = served.app.open_setup().await.unwrap().expect("there is no member");
    let browser = browser(&served);
    assert_eq!(browser.get("/v1/setup").await.is(200), json!({ "is_open": true }));
    refused(&browser.post("/v1/setup", &first("wrong")).await, 401, "unauthorized");
    let short = json!({ "token": token, "name": "ann", "password": "short" }).to_string();
    refused(&browser.post("/v1/setup", &short).await, 400, "invalid");
    let made = browser.post("/v1/setup", &first(&token)).await;
    assert_eq!(made.is(201)["role"], "admin");
    let ann = with_cookie(&browser, &made);
    let me = ann.get("/v1/me").await.is(200);
    assert_eq!((&me["kind"], &me["name"]), (&json!("member"), &json!("ann")));
    assert!(me["armed_until_ms"].is_null());
    refused(&browser.post("/v1/setup", &first(&token)).await, 409, "already-set-up");
    assert_eq!(browser.get("/v1/setup").await.is(200), json!({ "is_open": false }));
    assert_eq!(served.app.open_setup().await.unwrap(), None);
}

#[tokio::test]
async fn a_body_that_cannot_be_read_is_refused_without_its_password() {
    let served = Served::start().await;
    let (browser, admin) = (browser(&served), served.admin());
    for (client, path, body) in [
        (&browser, "/v1/login", r#"{"name":"ann","password":1234567890}"#),
        (&browser, "/v1/login", r#"{"name":"ann","password":["1234567890"]}"#),
        (&browser, "/v1/setup", r#"{"token":1234567890,"name":"ann","password":"x"}"#),
        (&admin, "/v1/members", r#"{"name":"ann","role":"admin","password":1234567890}"#),
    ] {
        let answer = client.post(path, body).await;
        refused(&answer, 400, "invalid");
        let told = String::from_utf8_lossy(&answer.body);
        assert!(told.contains("expected") && !told.contains("1234567890"), "{told}");
    }
}

/// Five wrong tries, or five passwords that were too short, locked the link for a minute.
#[tokio::test]
async fn wrong_tries_do_not_lock_the_set_up_link() {
    let served = Served::start().await;
    let token = served.app.open_setup().await.unwrap().unwrap();
    let browser = browser(&served);
    for _ in 0..5 {
        refused(&browser.post("/v1/setup", &first("wrong")).await, 401, "unauthorized");
    }
    refused(&browser.post("/v1/setup", &first("wrong")).await, 429, "too-many-tries");
    let short = json!({ "token": token, "name": "ann", "password": "short" }).to_string();
    for _ in 0..6 {
        refused(&browser.post("/v1/setup", &short).await, 400, "invalid");
    }
    browser.post("/v1/setup", &first(&token)).await.is(201);
    refused(&browser.post("/v1/setup", &first(&token)).await, 409, "already-set-up");
}

#[tokio::test]
async fn two_set_ups_at_the_same_time_make_one_admin() {
    let served = Served::start().await;
    let token = served.app.open_setup().await.unwrap().unwrap();
    let browser = browser(&served);
    let (ann, bob) = (first(&token), first(&token).replace("ann", "bob"));
    let (ann, bob) = tokio::join!(browser.post("/v1/setup", &ann), browser.post("/v1/setup", &bob));
    let mut statuses = [ann.status, bob.status];
    statuses.sort_unstable();
    assert!([[201, 401], [201, 409]].contains(&statuses), "{statuses:?}");
    let members = served.admin().get("/v1/members").await.is(200);
    assert_eq!(members["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_wrong_name_and_a_wrong_password_are_not_told_apart_and_are_booked() {
    let served = Served::start().await;
    member(&served, "ann", "support").await;
    let wrong = log_in(&served, "ann", "wrong horse!").await;
    let nobody = log_in(&served, "nobody", "wrong horse!").await;
    let long = log_in(&served, &"x".repeat(60), "wrong horse!").await;
    for answer in [&wrong, &nobody, &long] {
        refused(answer, 401, "unauthorized");
        assert_eq!(answer.json()["detail"], wrong.json()["detail"]);
        assert!(answer.header("set-cookie").is_none());
    }
    // They are booked behind the answer.
    let failed = loop {
        let actions = actions(&served).await;
        let failed: Vec<_> =
            actions.into_iter().filter(|entry| entry["action"] == "log-in-failed").collect();
        if failed.len() == 3 {
            break failed;
        }
        tokio::task::yield_now().await;
    };
    let text = json!(failed).to_string();
    assert!(text.contains("members/ann") || text.contains("\"ann\""), "{text}");
    assert!(!text.contains("nobody") && !text.contains("horse"), "{text}");
}

#[tokio::test]
async fn guessing_a_password_is_limited_and_the_right_one_waits_too() {
    let served = Served::start().await;
    member(&served, "ann", "support").await;
    for _ in 0..5 {
        refused(&log_in(&served, "ann", "wrong horse!").await, 401, "unauthorized");
    }
    let limited = log_in(&served, "ann", PASSWORD).await;
    refused(&limited, 429, "too-many-tries");
    let wait: u64 = limited.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=61).contains(&wait), "{wait}");
}

#[tokio::test]
async fn a_log_in_changes_nothing_until_it_is_armed() {
    let served = Served::start().await;
    let bob = member(&served, "bob", "operator").await;
    refused(&bob.get(PLAYER).await, 404, "not-found");
    let new = bob.header("If-None-Match", "*");
    refused(&new.put(PLAYER, r#"{"data":{"coins":1}}"#).await, 403, "read-only");
    let until = bob.post("/v1/arm", "").await.is(200)["armed_until_ms"].as_i64().unwrap();
    assert_eq!(bob.get("/v1/me").await.is(200)["armed_until_ms"], until);
    new.put(PLAYER, r#"{"data":{"coins":1}}"#).await.is(201);
    let written = served.admin().get(PLAYER).await.is(200);
    assert_eq!(written["author"], "bob (member)");
    bob.delete("/v1/arm").await.is(204);
    refused(&bob.delete(&format!("{PLAYER}/session")).await, 403, "read-only");
    let eve = member(&served, "eve", "viewer").await;
    refused(&eve.post("/v1/arm", "").await, 403, "forbidden");
}

#[tokio::test]
async fn a_log_in_that_another_process_armed_is_armed_here_at_once() {
    let served = Served::start().await;
    let bob = member(&served, "bob", "operator").await;
    bob.get("/v1/me").await.is(200);
    let listen = Some("127.0.0.1:0".to_owned());
    let options = profilestore_server::config::Options { listen, ..Default::default() };
    let config = options.settle().unwrap();
    let (address, _app, _stop, _serving) = crate::serve(&served.store, &served.desk, &config).await;
    // Both are behind one address, which the browser names.
    let there = bob.at(address).header("Host", &served.address.to_string());
    there.post("/v1/arm", "").await.is(200);
    let new = bob.header("If-None-Match", "*");
    new.put(PLAYER, r#"{"data":{"coins":1}}"#).await.is(201);
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing_with_the_cookie() {
    let served = Served::start().await;
    let bob = member(&served, "bob", "operator").await;
    bob.post("/v1/arm", "").await.is(200);
    let new = bob.header("If-None-Match", "*");
    for other in [
        new.header("Origin", "http://evil.example"),
        new.header("Origin", "null"),
        new.header("Sec-Fetch-Site", "cross-site"),
        new.without("Origin"),
    ] {
        refused(&other.put(PLAYER, r#"{"data":{"coins":1}}"#).await, 403, "cross-site");
        refused(&other.post("/v1/arm", "").await, 403, "cross-site");
        refused(&other.post("/v1/logout", "").await, 403, "cross-site");
    }
    let same = new.without("Origin").header("Sec-Fetch-Site", "same-origin");
    same.put(PLAYER, r#"{"data":{"coins":1}}"#).await.is(201);
    // A browser sends no cookie with that, and would lose the one it has by the answer.
    let evil = browser(&served).header("Sec-Fetch-Site", "cross-site");
    refused(&evil.post("/v1/logout", "").await, 403, "cross-site");
    // Nor is any member logged in by one.
    let body = json!({ "name": "bob", "password": PASSWORD }).to_string();
    let evil = browser(&served).header("Origin", "http://evil.example");
    refused(&evil.post("/v1/login", &body).await, 403, "cross-site");
}

#[tokio::test]
async fn each_role_does_what_it_is_there_for_and_nothing_else() {
    let served = Served::start().await;
    let list = served.admin().get("/v1/roles").await.is(200);
    for role in list["items"].as_array().unwrap() {
        let name = role["role"].as_str().unwrap();
        let scopes: Vec<_> =
            role["scopes"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
        let may = |scope: Scope| scopes.contains(&scope.as_str());
        let caller = member(&served, name, name).await;
        assert_eq!(caller.get("/v1/me").await.is(200)["role"], name);
        if name != "viewer" {
            caller.post("/v1/arm", "").await.is(200);
        }
        let with = caller.header("If-Match", "\"x\"").header("Idempotency-Key", &operation());
        let allowed = |answer: &Answer| answer.status != 403;
        assert!(may(Scope::ProfilesRead) && may(Scope::AuditRead), "{name}");
        assert!(allowed(&caller.get(PLAYER).await) && allowed(&caller.get("/v1/audit").await));
        let put = with.put(PLAYER, "{").await;
        assert_eq!(allowed(&put), may(Scope::ProfilesWrite), "{name}");
        let sent = with.post(&format!("{PLAYER}/messages"), "{").await;
        assert_eq!(allowed(&sent), may(Scope::MessagesSend), "{name}");
        let ended = with.delete(&format!("{PLAYER}/session")).await;
        assert_eq!(allowed(&ended), may(Scope::SessionsEnd), "{name}");
        let restored = with.post(&format!("{PLAYER}/restores"), "{").await;
        assert_eq!(allowed(&restored), may(Scope::HistoryRestore), "{name}");
        let export = caller.get("/v1/users/1/export").await;
        assert_eq!(allowed(&export), may(Scope::UsersExport), "{name}");
        for path in ["/v1/keys", "/v1/members"] {
            assert_eq!(allowed(&caller.get(path).await), name == "admin", "{name}");
        }
        refused(&caller.get("/v1/connect").await, 403, "forbidden");
        assert!(!may(Scope::SessionsHold));
    }
}

#[tokio::test]
async fn a_member_who_is_narrowed_reaches_these_stores_alone() {
    let served = Served::start().await;
    let body = json!({
        "name": "eve", "role": "support", "password": PASSWORD, "stores": ["Red", "Blue"],
    });
    served.admin().post("/v1/members", &body.to_string()).await.is(201);
    let eve = with_cookie(&browser(&served), &log_in(&served, "eve", PASSWORD).await);
    assert_eq!(eve.get("/v1/me").await.is(200)["stores"], json!(["Blue", "Red"]));
    refused(&eve.get("/v1/stores/Red/profiles/x").await, 404, "not-found");
    refused(&eve.get("/v1/stores/Green/profiles/x").await, 403, "forbidden");
    refused(&eve.get("/v1/audit").await, 403, "forbidden");
    let wide = served.admin().with_body("PATCH", "/v1/members/eve", r#"{"stores":null}"#).await;
    assert!(wide.is(200)["stores"].is_null());
    let admin = json!({
        "name": "bob", "role": "admin", "password": PASSWORD, "stores": ["Red"],
    });
    refused(&served.admin().post("/v1/members", &admin.to_string()).await, 400, "invalid");
}

#[tokio::test]
async fn logging_out_a_new_password_and_disabling_end_log_ins() {
    let served = Served::start().await;
    let admin = served.admin();
    let bob = member(&served, "bob", "operator").await;
    let other = with_cookie(&browser(&served), &log_in(&served, "bob", PASSWORD).await);
    let logins = bob.get("/v1/logins").await.is(200);
    let logins = logins["items"].as_array().unwrap();
    assert_eq!(logins.len(), 2);
    assert_eq!(logins.iter().filter(|login| login["current"] == true).count(), 1);
    assert!(logins.iter().all(|login| login["address"] == "127.0.0.1"));
    // Logging out ends this one, and says so to the browser.
    let out = bob.post("/v1/logout", "").await;
    out.is(204);
    assert!(out.header("set-cookie").unwrap().contains("Max-Age=0"));
    refused(&bob.get("/v1/me").await, 401, "unauthorized");
    bob.post("/v1/logout", "").await.is(204);
    // A new password ends the others, and needs the old one.
    let new =
        |old: &str| json!({ "old_password": old, "new_password": "battery staple" }).to_string();
    refused(&other.post("/v1/password", &new("wrong horse!")).await, 401, "unauthorized");
    let changed = other.post("/v1/password", &new(PASSWORD)).await;
    changed.is(200);
    refused(&other.get("/v1/me").await, 401, "unauthorized");
    refused(&log_in(&served, "bob", PASSWORD).await, 401, "unauthorized");
    let third = with_cookie(&browser(&served), &changed);
    third.get("/v1/me").await.is(200);
    // So does an admin who disables the member.
    admin.with_body("PATCH", "/v1/members/bob", r#"{"disabled":true}"#).await.is(200);
    refused(&third.get("/v1/me").await, 401, "unauthorized");
    refused(&log_in(&served, "bob", "battery staple").await, 401, "unauthorized");
    admin.with_body("PATCH", "/v1/members/bob", r#"{"disabled":false}"#).await.is(200);
    let fourth = log_in(&served, "bob", "battery staple").await;
    let id = fourth.is(200)["id"].as_str().unwrap().to_owned();
    admin.delete(&format!("/v1/logins/{id}")).await.is(204);
    let fourth = with_cookie(&browser(&served), &fourth);
    refused(&fourth.get("/v1/me").await, 401, "unauthorized");
    assert_eq!(admin.get("/v1/logins").await.is(200)["items"], json!([]));
    admin.delete("/v1/members/bob").await.is(204);
    refused(&admin.delete("/v1/members/bob").await, 404, "not-found");
}

#[tokio::test]
async fn the_last_admin_stays_one_and_a_name_is_given_once() {
    let served = Served::start().await;
    let admin = served.admin();
    member(&served, "ann", "admin").await;
    for change in [r#"{"role":"viewer"}"#, r#"{"disabled":true}"#] {
        refused(&admin.with_body("PATCH", "/v1/members/ann", change).await, 409, "last-admin");
    }
    refused(&admin.delete("/v1/members/ann").await, 409, "last-admin");
    let again = json!({ "name": "ann", "role": "viewer", "password": PASSWORD }).to_string();
    refused(&admin.post("/v1/members", &again).await, 409, "name-taken");
    member(&served, "bob", "admin").await;
    admin.delete("/v1/members/ann").await.is(204);
    // A later member of the name is another one.
    member(&served, "ann", "viewer").await;
    for name in ["", " ann", "a\nb", &"x".repeat(51)] {
        let wrong = json!({ "name": name, "role": "viewer", "password": PASSWORD }).to_string();
        refused(&admin.post("/v1/members", &wrong).await, 400, "invalid");
    }
}

#[tokio::test]
async fn changes_of_members_and_keys_are_in_the_audit_log_without_secrets() {
    let served = Served::start().await;
    let admin = served.admin();
    member(&served, "ann", "viewer").await;
    admin.with_body("PATCH", "/v1/members/ann", r#"{"role":"support"}"#).await.is(200);
    let password = r#"{"password":"battery staple"}"#;
    admin.with_body("PATCH", "/v1/members/ann", password).await.is(200);
    let key = r#"{"name":"shop","scopes":["profiles:read"]}"#;
    let made = admin.post("/v1/keys", key).await.is(201);
    let id = made["record"]["id"].as_str().unwrap();
    admin.delete(&format!("/v1/keys/{id}")).await.is(200);
    admin.delete("/v1/members/ann").await.is(204);
    let actions = actions(&served).await;
    let mut names: Vec<_> = actions.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    names.sort_unstable();
    let wanted = [
        "key-add",
        "key-add",
        "key-revoke",
        "log-in",
        "member-add",
        "member-change",
        "member-password",
        "member-remove",
    ];
    assert_eq!(names, wanted);
    let text = json!(actions).to_string();
    for secret in ["horse", "battery", "argon2", &made["key"].as_str().unwrap()[16..]] {
        assert!(!text.contains(secret), "{secret}");
    }
    let log_in = actions.iter().find(|entry| entry["action"] == "log-in").unwrap();
    assert_eq!(
        (&log_in["author"], &log_in["details"]["address"]),
        (&json!("ann (member)"), &json!("127.0.0.1"))
    );
}

/// A browser sends the cookies of all ports of a host to each of them, under one name the newest.
#[tokio::test]
async fn log_ins_at_two_ports_of_one_host_do_not_end_each_other() {
    let (one, two) = (Served::start().await, Served::start().await);
    let (mut cookies, mut names) = (Vec::new(), Vec::new());
    for (served, name) in [(&one, "ann"), (&two, "bob")] {
        let body = json!({ "name": name, "role": "viewer", "password": PASSWORD }).to_string();
        served.admin().post("/v1/members", &body).await.is(201);
        let answer = log_in(served, name, PASSWORD).await;
        let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        names.push(cookie.split('=').next().unwrap().to_owned());
        cookies.push(cookie);
    }
    assert_eq!(names[0], format!("profilestore-{}", one.address.port()));
    assert_ne!(names[0], names[1]);
    let both = cookies.join("; ");
    for (served, name) in [(&one, "ann"), (&two, "bob")] {
        let me = browser(served).header("Cookie", &both).get("/v1/me").await.is(200);
        assert_eq!(me["name"], name);
    }
}

/// `bоb` with a Cyrillic letter would pass for `bob` in the audit log.
#[tokio::test]
async fn a_name_that_looks_like_another_members_is_refused() {
    let served = Served::start().await;
    let add = async |name: &str| {
        let body = json!({ "name": name, "role": "viewer", "password": PASSWORD }).to_string();
        served.admin().post("/v1/members", &body).await
    };
    for name in ["bob", "ape", "zoë", "Zoe 2", "ボブ山", "o'neil"] {
        add(name).await.is(201);
    }
    for mixed in ["b\u{43e}b", "\u{440}eter"] {
        refused(&add(mixed).await, 400, "invalid");
    }
    // All in Cyrillic letters; in capitals; composed in another way.
    for alike in ["\u{430}\u{440}\u{435}", "Bob", "zoe\u{308}", "bob"] {
        refused(&add(alike).await, 409, "name-taken");
    }
    let members = served.admin().get("/v1/members").await.is(200);
    assert_eq!(members["items"].as_array().unwrap().len(), 6);
}

#[tokio::test]
async fn every_cookie_of_the_name_is_tried() {
    let served = Served::start().await;
    member(&served, "ann", "viewer").await;
    let answer = log_in(&served, "ann", PASSWORD).await;
    let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap();
    let name = cookie.split('=').next().unwrap();
    let several = format!("{name}=old; {name}=000000000000.x; {cookie}");
    let ann = browser(&served).header("Cookie", &several);
    assert_eq!(ann.get("/v1/me").await.is(200)["name"], "ann");
    let none = browser(&served).header("Cookie", &format!("{name}=old; {name}=older"));
    refused(&none.get("/v1/me").await, 401, "unauthorized");
}

/// Nobody arms the log-in of a viewer, so a viewer could not end one that was left open elsewhere.
#[tokio::test]
async fn a_viewer_ends_another_log_in_of_the_own_name_and_of_no_other() {
    let served = Served::start().await;
    let here = member(&served, "eve", "viewer").await;
    let there = with_cookie(&browser(&served), &log_in(&served, "eve", PASSWORD).await);
    let bob = member(&served, "bob", "support").await;
    let id = |me: Value| me["id"].as_str().unwrap().to_owned();
    let theirs = id(bob.get("/v1/me").await.is(200));
    let own = id(there.get("/v1/me").await.is(200));
    refused(&here.delete(&format!("/v1/logins/{theirs}")).await, 403, "read-only");
    refused(&here.delete("/v1/logins/000000000000").await, 403, "read-only");
    let evil = here.header("Origin", "http://evil.example");
    refused(&evil.delete(&format!("/v1/logins/{own}")).await, 403, "cross-site");
    here.delete(&format!("/v1/logins/{own}")).await.is(204);
    refused(&there.get("/v1/me").await, 401, "unauthorized");
    here.get("/v1/me").await.is(200);
    bob.get("/v1/me").await.is(200);
}

#[tokio::test]
async fn behind_a_proxy_the_cookie_is_for_tls_alone() {
    let options =
        profilestore_server::config::Options { trust_proxy: Some(true), ..Default::default() };
    let served = Served::with(options).await;
    let body = json!({ "name": "ann", "role": "viewer", "password": PASSWORD }).to_string();
    served.admin().post("/v1/members", &body).await.is(201);
    let browser = Client::without_key(served.address)
        .header("Host", "game.example")
        .header("Origin", "https://game.example")
        .header("X-Forwarded-For", "192.0.2.7");
    let credentials = json!({ "name": "ann", "password": PASSWORD }).to_string();
    let answer = browser.post("/v1/login", &credentials).await;
    answer.is(200);
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.starts_with("__Host-profilestore=") && cookie.ends_with("; Secure"), "{cookie}");
    for part in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let ann = with_cookie(&browser, &answer);
    let logins = ann.get("/v1/logins").await.is(200);
    assert_eq!(logins["items"][0]["address"], "192.0.2.7");
}
