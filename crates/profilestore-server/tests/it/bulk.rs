//! Edits of many profiles over HTTP.

use profilestore::{
    Attribution, Edit,
    operator::{BulkEdit, EditScope},
};
use profilestore_server::keys::Scope;
use profilestore_testbed::GameClient;
use serde_json::{Value, json};

use crate::{
    Served,
    client::{Answer, Client},
    fill, game_server, members, operation, refused, serve,
};

const EDITS: &str = "/v1/edits";

fn player(number: u64) -> (String, String) {
    (format!("p{number:05}"), format!("{{\"coins\":{number}}}"))
}

fn increase(by: u64) -> Value {
    json!({
        "store": "PlayerData",
        "operations": [{ "op": "increase", "path": "/coins", "by": by }],
    })
}

pub(crate) async fn begin(caller: &Client, operation: &str, body: &Value) -> Answer {
    caller.header("Idempotency-Key", operation).post(EDITS, &body.to_string()).await
}

async fn read(caller: &Client, operation: &str) -> Value {
    caller.get(&format!("{EDITS}/{operation}")).await.is(200)
}

/// The operation once it fits.
async fn until(caller: &Client, operation: &str, fits: impl Fn(&Value) -> bool) -> Value {
    loop {
        let view = read(caller, operation).await;
        if fits(&view) {
            return view;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

pub(crate) async fn ended(caller: &Client, operation: &str) -> Value {
    until(caller, operation, |view| view["state"] != "running").await
}

/// The operation once one game server has to answer, which goes on living meanwhile.
pub(crate) async fn waits(caller: &Client, operation: &str, game: &mut GameClient) -> Value {
    loop {
        let view = read(caller, operation).await;
        if view["waiting"] == 1 {
            return view;
        }
        game.pong().await;
    }
}

/// The game server makes the edit that it is told of.
pub(crate) async fn make(game: &mut GameClient, n: u64, coins: u64) {
    let asked = game.expect("edit").await;
    let i = game.number();
    game.send(json!({ "save": {
        "i": i, "s": 1, "n": n, "data": { "coins": coins }, "edits_done": [{ "op": asked["op"] }],
    } }))
    .await;
    assert!(game.answer(i).await["saved"].is_object());
}

/// How many profiles a search finds.
async fn found(caller: &Client, search: &str) -> usize {
    let (mut found, mut token) = (0, String::new());
    loop {
        let path = format!("/v1/stores/PlayerData/profiles?page_size=500&where={search}{token}");
        let page = caller.get(&path).await.is(200);
        found += page["items"].as_array().unwrap().len();
        match page["next_page_token"].as_str() {
            Some(next) => token = format!("&page_token={next}"),
            None => return found,
        }
    }
}

/// All answers to a dry run, as one.
async fn tried(caller: &Client, body: &Value) -> Value {
    let mut body = body.clone();
    body["dry_run"] = true.into();
    let mut all = json!({ "changed": 0, "unmatched": 0, "refused": 0, "held": 0, "scanned": 0 });
    loop {
        let page = caller.post(EDITS, &body.to_string()).await.is(200);
        let add = |all: &mut Value, name: &str, more: &Value| {
            all[name] = json!(all[name].as_u64().unwrap() + more.as_u64().unwrap());
        };
        for name in ["changed", "unmatched", "refused"] {
            add(&mut all, name, &page["counts"][name]);
        }
        for name in ["held", "scanned"] {
            add(&mut all, name, &page[name]);
        }
        // An answer may end anywhere.
        for (name, of) in [("samples", "samples"), ("reasons", "refused")] {
            let more = page[of].as_array().unwrap().iter().cloned();
            let known = all[name].as_array().into_iter().flatten().cloned();
            all[name] = known.chain(more).collect();
        }
        match page["next_page_token"].as_str() {
            Some(next) => body["page_token"] = next.into(),
            None => return all,
        }
    }
}

#[tokio::test]
async fn many_profiles_are_edited_once_and_the_edit_is_undone() {
    let served = Served::start().await;
    let admin = served.admin();
    fill(&served.store, (0..300).map(player)).await;
    let game = served.game("game-1").await;
    let players = game.store::<Value>("PlayerData").unwrap();
    let held = players.start_session("p00150").await.unwrap();

    let mut body = increase(1000);
    body["where"] = "/coins >= 100".into();
    let would = tried(&admin, &body).await;
    assert_eq!((&would["changed"], &would["unmatched"]), (&json!(200), &json!(100)), "{would}");
    assert_eq!((&would["held"], &would["scanned"]), (&json!(1), &json!(300)));
    let first = json!({
        "profile": "PlayerData/p00100",
        "changes": [{ "path": "/coins", "before": 100, "after": 1100 }],
    });
    assert_eq!(would["samples"][0], first);
    assert_eq!(admin.get(EDITS).await.is(200)["items"], json!([]), "nothing was begun");

    body["reason"] = "double coins weekend".into();
    let id = operation();
    let begun = begin(&admin, &id, &body).await;
    assert_eq!(begun.is(202)["operation"], id);
    assert_eq!(begun.header("location"), Some(&*format!("{EDITS}/{id}")));
    assert_eq!(begin(&admin, &id, &body).await.is(202)["operation"], id);
    let view = ended(&admin, &id).await;
    let wanted = json!({
        "changed": 200, "unchanged": 0, "refused": 0, "unmatched": 100, "skipped": 0, "before": 0,
    });
    assert_eq!((&view["state"], &view["counts"]), (&json!("done"), &wanted), "{view}");
    assert_eq!(
        (&view["total"], &view["done"], &view["waiting"]),
        (&json!(300), &json!(300), &json!(0))
    );
    assert_eq!(view["operations"], body["operations"]);
    assert_eq!(view["reason"], "double coins weekend");
    assert_eq!(begin(&admin, &id, &body).await.is(202)["state"], "done", "not begun again");
    assert_eq!(found(&admin, "%2Fcoins%20%3E=%201100").await, 200);
    assert_eq!(found(&admin, "%2Fcoins%20%3E=%202000").await, 0, "once");
    assert_eq!(held.data()["coins"], 1150, "its session goes on");
    refused(&begin(&admin, &id, &increase(1)).await, 422, "idempotency-key-reused");

    // The audit log has one group for it.
    let grouped = admin.get("/v1/audit?grouped=true").await.is(200);
    let entries = grouped["items"].as_array().unwrap().iter();
    let entries: Vec<_> = entries.filter(|entry| entry["operation"] == id).collect();
    assert_eq!(entries.len(), 1);
    assert_eq!((&entries[0]["outcome"], &entries[0]["reason"]), (&json!("done"), &view["reason"]));
    let each = admin.get(&format!("/v1/audit?operation={id}")).await.is(200);
    assert_eq!(each["items"].as_array().unwrap().len(), 201);

    let undo = admin.header("Idempotency-Key", &operation());
    let path = format!("{EDITS}/{id}/undo?reason=too%20much");
    let undoing = undo.post(&path, "").await.is(202);
    assert_eq!((&undoing["undoes"], &undoing["reason"]), (&json!(id), &json!("too much")));
    let by = undoing["operation"].as_str().unwrap();
    let view = ended(&admin, by).await;
    assert_eq!(
        (&view["state"], &view["counts"]["changed"]),
        (&json!("done"), &json!(200)),
        "{view}"
    );
    let undone = read(&admin, &id).await;
    assert_eq!((&undone["state"], &undone["undone_by"]), (&json!("undone"), &json!(by)));
    assert_eq!(found(&admin, "%2Fcoins%20%3E=%20300").await, 0);
    assert_eq!(held.data()["coins"], 150);
    assert_eq!(undo.post(&path, "").await.is(202)["operation"], by);
    // Undone once more it would subtract what was added a second time.
    let twice = admin.header("Idempotency-Key", &operation());
    refused(&twice.post(&path, "").await, 409, "already-undone");
    assert_eq!(read(&admin, &id).await["undone_by"], by);
    held.end_session().await.unwrap();
    assert!(game.shutdown().await.is_complete());

    // Newest first, in pages.
    let page = admin.get(&format!("{EDITS}?page_size=1")).await.is(200);
    assert_eq!(page["items"][0]["operation"], by);
    let next = page["next_page_token"].as_str().unwrap();
    let page = admin.get(&format!("{EDITS}?page_size=1&page_token={next}")).await.is(200);
    assert_eq!(
        (&page["items"][0]["operation"], &page["next_page_token"]),
        (&json!(id), &json!(null))
    );
}

#[tokio::test]
async fn a_dry_run_says_why_profiles_would_be_refused_and_changes_nothing() {
    let served = Served::start().await;
    let admin = served.admin();
    fill(&served.store, (0..30).map(player)).await;
    fill(&served.store, [("poor".to_owned(), "{}".to_owned())]).await;
    let would = tried(&admin, &increase(1)).await;
    assert_eq!((&would["changed"], &would["refused"]), (&json!(30), &json!(1)), "{would}");
    assert!(would["samples"].as_array().unwrap().len() >= 20, "{would}");
    assert_eq!(would["reasons"][0]["example"], "PlayerData/poor");
    assert_eq!(would["reasons"][0]["count"], 1);
    let read = admin.get("/v1/stores/PlayerData/profiles/p00001").await.is(200);
    assert_eq!((&read["version"], &read["data"]["coins"]), (&json!(1), &json!(1)));
    // What would be refused is refused, and the others are edited.
    let id = operation();
    begin(&admin, &id, &increase(1)).await.is(202);
    let view = ended(&admin, &id).await;
    assert_eq!((&view["counts"]["changed"], &view["counts"]["refused"]), (&json!(30), &json!(1)));
    assert_eq!(view["refused"][0]["profile"], "PlayerData/poor");
}

#[tokio::test]
async fn what_is_wrong_with_an_edit_of_many_profiles_is_said_before_anything_is_begun() {
    let served = Served::start().await;
    let admin = served.admin();
    fill(&served.store, [player(1)]).await;
    let with = |name: &str, value: Value| {
        let mut body = increase(1);
        body[name] = value;
        body
    };
    refused(&admin.post(EDITS, &increase(1).to_string()).await, 400, "invalid");
    for (body, told) in [
        (with("where", "coins > 1".into()), "character 1"),
        (with("operations", json!([])), "does nothing"),
        (with("operations", json!([{ "op": "double" }])), "JSON Patch"),
        (with("colour", "red".into()), "colour"),
        (with("reason", "x".repeat(2001).into()), "reason"),
        (with("page_token", "x".into()), "dry run"),
        (with("store", "".into()), "store"),
        (with("prefix", "x".repeat(51).into()), "1 to 50"),
    ] {
        let answer = begin(&admin, &operation(), &body).await;
        refused(&answer, 400, "invalid");
        assert!(answer.text().contains(told), "{told}: {}", answer.text());
    }
    let books = with("store", "~profilestore".into());
    refused(&begin(&admin, &operation(), &books).await, 403, "forbidden");
    let long_ago = "01800000-0000-7000-8000-000000000001";
    refused(&begin(&admin, long_ago, &increase(1)).await, 422, "message-id-expired");
    refused(&begin(&admin, "order-1", &increase(1)).await, 400, "invalid");
    refused(&admin.get(&format!("{EDITS}/{}", operation())).await, 404, "not-found");
    refused(&admin.get(&format!("{EDITS}/x")).await, 400, "invalid");
    assert_eq!(admin.get(EDITS).await.is(200)["items"], json!([]));
    let read = admin.get("/v1/stores/PlayerData/profiles/p00001").await.is(200);
    assert_eq!(read["version"], 1);
}

#[tokio::test]
async fn only_callers_who_may_edit_many_profiles_make_and_see_such_edits() {
    let served = Served::start().await;
    fill(&served.store, (0..20).map(player)).await;
    for scope in Scope::ALL {
        let caller = served.caller(&[scope]).await;
        let may = matches!(scope, Scope::Admin | Scope::EditsBulk);
        let begun = begin(&caller, &operation(), &json!({})).await;
        assert_eq!(begun.status != 403, may, "{scope}");
        assert_eq!(caller.get(EDITS).await.status != 403, may, "{scope}");
    }
    // What a dry run shows has to be readable.
    let mut body = increase(1);
    body["dry_run"] = true.into();
    let blind = served.caller(&[Scope::EditsBulk]).await;
    refused(&blind.post(EDITS, &body.to_string()).await, 403, "forbidden");

    let bulk = [Scope::EditsBulk, Scope::ProfilesRead];
    let some = served.narrowed(&bulk, "PlayerData", Some("p0000")).await;
    refused(&begin(&some, &operation(), &increase(1)).await, 403, "forbidden");
    for (prefix, status) in [("p", 403), ("p0001", 403), ("p0000", 202)] {
        let mut body = increase(1000);
        body["prefix"] = prefix.into();
        assert_eq!(begin(&some, &operation(), &body).await.status, status, "{prefix}");
    }
    let own = some.get(EDITS).await.is(200)["items"].as_array().unwrap().clone();
    assert_eq!(own.len(), 1);
    let id = own[0]["operation"].as_str().unwrap();
    assert_eq!(ended(&some, id).await["counts"]["changed"], 10);
    assert_eq!(found(&served.admin(), "%2Fcoins%20%3E=%201000").await, 10);
    let others = served.narrowed(&bulk, "Others", None).await;
    refused(&others.get(&format!("{EDITS}/{id}")).await, 403, "forbidden");
    refused(&others.post(&format!("{EDITS}/{id}/pause"), "").await, 403, "forbidden");
    let undo = others.header("Idempotency-Key", &operation());
    refused(&undo.post(&format!("{EDITS}/{id}/undo"), "").await, 403, "forbidden");
    assert_eq!(others.get(EDITS).await.is(200)["items"], json!([]));

    let support = members::member(&served, "bob", "support").await;
    support.post("/v1/arm", "").await.is(200);
    refused(&begin(&support, &operation(), &increase(1)).await, 403, "forbidden");
    let operator = members::member(&served, "ann", "operator").await;
    refused(&begin(&operator, &operation(), &increase(1)).await, 403, "read-only");
    operator.post("/v1/arm", "").await.is(200);
    let id = operation();
    let begun = begin(&operator, &id, &increase(1)).await.is(202);
    assert_eq!(begun["author"], "ann (member)");
    assert_eq!(ended(&operator, &id).await["counts"]["changed"], 20);
}

/// The events of a stream that has ended.
fn events(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let data = answer.text().lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}

#[tokio::test]
async fn an_edit_that_waits_for_a_game_server_is_watched_paused_and_resumed() {
    let served = Served::start().await;
    let admin = served.admin();
    fill(&served.store, (0..20).map(player)).await;
    let mut game = GameClient::connect(served.address, &served.admin, "eu-1").await;
    game.start(1, "p00007").await;
    let id = operation();
    begin(&admin, &id, &increase(1000)).await.is(202);
    let waits = waits(&admin, &id, &mut game).await;
    assert_eq!((&waits["state"], &waits["done"]), (&json!("running"), &json!(19)), "{waits}");

    let (watcher, path) = (admin.clone(), format!("{EDITS}/{id}/events"));
    let watching = tokio::spawn(async move { watcher.get(&path).await });
    assert_eq!(admin.post(&format!("{EDITS}/{id}/pause"), "").await.is(202)["state"], "paused");
    let (seen, _) = tokio::join!(watching, game.pong());
    let seen = events(&seen.unwrap());
    assert_eq!(seen.last().unwrap()["state"], "paused", "{seen:?}");
    assert!(seen[..seen.len() - 1].iter().all(|view| view["state"] == "running"), "{seen:?}");

    let resume = format!("{EDITS}/{id}/resume");
    assert_eq!(admin.post(&resume, "").await.is(202)["state"], "running");
    make(&mut game, 1, 1007).await;
    let view = ended(&admin, &id).await;
    assert_eq!(view["state"], "done", "{view}");
    // The game server may have made its edit before the second run came to it.
    let count = |name: &str| view["counts"][name].as_u64().unwrap();
    assert!(count("before") >= 19 && count("before") + count("changed") == 20, "{view}");
    assert_eq!(found(&admin, "%2Fcoins%20%3E=%201000").await, 20);
    assert_eq!(found(&admin, "%2Fcoins%20%3E=%202000").await, 0);
    assert_eq!(admin.post(&resume, "").await.is(202)["state"], "done");
    assert_eq!(events(&admin.get(&format!("{EDITS}/{id}/events")).await).len(), 1);
}

#[tokio::test]
async fn an_edit_of_a_process_that_stops_is_paused_and_goes_on_at_another_one() {
    let served = Served::start().await;
    let admin = served.admin();
    fill(&served.store, (0..20).map(player)).await;
    let desk = game_server(&served.store, "desk-2").await;
    let config = profilestore_server::config::Options {
        listen: Some("127.0.0.1:0".to_owned()),
        ..Default::default()
    };
    let (address, _app, stop, serving) =
        serve(&served.store, &desk, &config.settle().unwrap()).await;
    let there = admin.at(address);
    // A game server that does not answer keeps the edit from its end.
    let mut silent = GameClient::connect(address, &served.admin, "eu-1").await;
    silent.start(1, "p00007").await;
    let id = operation();
    begin(&admin, &id, &increase(1000)).await.is(202);
    waits(&admin, &id, &mut silent).await;
    tokio::join!(served.app.send_away(), silent.pong());
    let view = read(&there, &id).await;
    assert_eq!((&view["state"], &view["error"]), (&json!("paused"), &json!(null)), "{view}");
    // The same request again goes on with it.
    begin(&there, &id, &increase(1000)).await.is(202);
    assert_eq!(read(&there, &id).await["state"], "running");
    make(&mut silent, 1, 1007).await;
    assert_eq!(ended(&there, &id).await["state"], "done");
    assert_eq!(found(&there, "%2Fcoins%20%3E=%201000").await, 20);
    assert_eq!(found(&there, "%2Fcoins%20%3E=%202000").await, 0);
    drop(silent);
    let _ = stop.send(());
    serving.await.unwrap();
    assert!(desk.shutdown().await.is_complete());
}

/// That profile counted as edited before, and an undo took its single edit back.
#[tokio::test]
async fn an_edit_of_many_under_the_key_of_an_edit_of_one_is_refused() {
    let served = Served::start().await;
    let admin = served.admin();
    fill(&served.store, (0..3).map(player)).await;
    let id = operation();
    let edit =
        admin.header("Idempotency-Key", &id).header("Content-Type", "application/json-patch+json");
    let path = "/v1/stores/PlayerData/profiles/p00001/edits";
    edit.post(path, r#"[{"op":"increase","path":"/coins","by":100}]"#).await.is(200);
    refused(&begin(&admin, &id, &increase(10)).await, 422, "idempotency-key-reused");
    refused(&admin.get(&format!("{EDITS}/{id}")).await, 404, "not-found");
    assert_eq!(found(&admin, "%2Fcoins%20%3E=%2010").await, 1, "the edit of one, and no other");
}

/// The edit of many left that profile out: it counted as edited before.
#[tokio::test]
async fn an_edit_or_a_rollback_of_one_under_the_key_of_an_edit_of_many_is_refused() {
    let served = Served::start().await;
    let admin = served.admin();
    fill(&served.store, (0..3).map(player)).await;
    let mut game = GameClient::connect(served.address, &served.admin, "eu-1").await;
    game.start(1, "p00001").await;
    let id = operation();
    begin(&admin, &id, &increase(1000)).await.is(202);
    // It runs until that game server has made its edit. This profile it has not come to.
    waits(&admin, &id, &mut game).await;
    fill(&served.store, [player(7)]).await;
    refuses_one(&admin, &id).await;
    make(&mut game, 1, 1001).await;
    assert_eq!(ended(&admin, &id).await["state"], "done");
    refuses_one(&admin, &id).await;
    // One of the program.
    let id = operation();
    let edit = Edit::from_patch(r#"[{"op":"increase","path":"/coins","by":10}]"#).unwrap();
    let bulk = BulkEdit::new(id.parse().unwrap(), EditScope::all("Others"), edit);
    served.desk.operator(Attribution::new("ops")).edit_all(&bulk, |_| ()).await.unwrap();
    refuses_one(&admin, &id).await;
}

/// Neither an edit nor a rollback of `p00007`, at its first version, is made under this key.
async fn refuses_one(admin: &Client, id: &str) {
    let path = "/v1/stores/PlayerData/profiles/p00007";
    let caller = admin.header("Idempotency-Key", id);
    let edit = caller.header("Content-Type", "application/json-patch+json");
    let patch = r#"[{"op":"increase","path":"/coins","by":1000}]"#;
    let edited = edit.post(&format!("{path}/edits"), patch).await;
    refused(&edited, 422, "idempotency-key-reused");
    let roll = caller.header("If-Match", admin.get(path).await.etag());
    let rolled = roll.post(&format!("{path}/restores"), r#"{"version":1}"#).await;
    refused(&rolled, 422, "idempotency-key-reused");
    let read = admin.get(path).await.is(200);
    assert_eq!((&read["version"], &read["data"]["coins"]), (&json!(1), &json!(7)));
}

#[tokio::test]
async fn an_edit_that_the_program_has_undone_is_not_undone_once_more() {
    let served = Served::start().await;
    let admin = served.admin();
    fill(&served.store, (0..3).map(player)).await;
    let id = operation();
    begin(&admin, &id, &increase(10)).await.is(202);
    assert_eq!(ended(&admin, &id).await["state"], "done");
    // As by `profilestore edit --undo`.
    let by = operation();
    let undo = BulkEdit::undo(by.parse().unwrap(), id.parse().unwrap());
    served.desk.operator(Attribution::new("ops")).edit_all(&undo, |_| ()).await.unwrap();
    let again = admin.header("Idempotency-Key", &operation());
    let answer = again.post(&format!("{EDITS}/{id}/undo"), "").await;
    refused(&answer, 409, "already-undone");
    assert_eq!(answer.json()["undone_by"], by);
    assert_eq!(found(&admin, "%2Fcoins%20%3E=%200").await, 3, "nothing was subtracted twice");
}
