//! Hostile JSON at every entrance: what is accepted stays whole.

use profilestore::operator::Expected;
use profilestore_testbed::{any_json, hostile_json};

use super::*;

const WAYS: [&str; 9] =
    ["import", "data store", "save", "transaction", "set", "put", "edit", "message", "gift"];

/// What becomes of a value at each way in: the store that holds it, or that it was refused.
async fn ways_in(text: &str, env: &Env) -> Vec<(&'static str, Option<MemoryStore>)> {
    let mut ways = Vec::new();
    let parsed = serde_json::from_str::<serde_json::Value>(text).ok();
    for way in WAYS {
        let store = MemoryStore::new(env.clone());
        let server = GameServer::builder(store.clone()).env(env.clone()).start().await.unwrap();
        let players = server
            .store_builder::<serde_json::Value>("PlayerData")
            .template(json!({ "coins": 1 }))
            .build()
            .unwrap();
        let key = players.key("p").unwrap();
        let begin = async || players.start_session("p").await.unwrap();
        let taken = match way {
            "import" => {
                let report = import(
                    &store,
                    env,
                    Cursor::new(line_with(text)),
                    &ImportOptions::default(),
                    &mut |_| {},
                )
                .await
                .unwrap();
                assert_eq!(report.malformed.len() as u64 + report.versions, 1, "{report:?}");
                // Data that is too large is kept, but is no profile.
                report.versions == 1 && report.foreign.is_empty()
            }
            "data store" => {
                let document = format!("{{\"Data\":{},\"MetaData\":{{}}}}", data_with(text));
                let stores = RobloxDataStores::new(&server, Default::default());
                let data_store = stores.data_store("PlayerData", None).unwrap();
                data_store.set("p", NewEntry::new(raw(&document))).await.is_ok()
            }
            "save" => {
                let profile = begin().await;
                match &parsed {
                    Some(value) => profile.update(|data| data["v"] = value.clone()).unwrap(),
                    None => continue,
                }
                profile.save().await.is_ok()
            }
            "transaction" => {
                let profile = begin().await;
                let Some(value) = parsed.clone() else { continue };
                let own = profile.clone();
                let edit = server.transaction().with(&profile);
                edit.run(move |tx| tx.edit(&own, |data| data["v"] = value)).await.is_ok()
            }
            "put" => {
                let data = raw(&data_with(text));
                let put = server.operator(Attribution::new("ann"));
                put.put(&key, Expected::Absent, &data).await.is_ok()
            }
            "set" => {
                begin().await.end_session().await.unwrap();
                let mut view = players.get("p").await.unwrap().unwrap();
                match &parsed {
                    Some(value) => view.data["v"] = value.clone(),
                    None => continue,
                }
                view.set().await.is_ok()
            }
            "edit" => {
                begin().await.end_session().await.unwrap();
                let patch = format!("[{{\"op\":\"set\",\"path\":\"/v\",\"value\":{text}}}]");
                match Edit::from_patch(&patch) {
                    Ok(edit) => {
                        server.operator(Attribution::new("ann")).edit(&key, &edit).await.is_ok()
                    }
                    Err(_) => false,
                }
            }
            _ => {
                let message = raw(text);
                let is_sent = if way == "gift" {
                    let giver = players.start_session("giver").await.unwrap();
                    let to = players.clone();
                    let gift = server.transaction().with(&giver);
                    gift.run(move |tx| tx.gift(&to, "p", &message)).await.is_ok()
                } else {
                    players.send_message("p", &message).await.is_ok()
                };
                if is_sent {
                    let profile = begin().await;
                    profile.message_handler(|data, message| {
                        data["v"] = message.parse().unwrap();
                        message.processed();
                    });
                    // What may be sent can still be too deep for where the handler puts it.
                    profile.end_session().await.is_ok()
                } else {
                    false
                }
            }
        };
        let _ = server.shutdown().await;
        ways.push((way, taken.then_some(store)));
    }
    ways
}

/// Opens, edits, exports, imports and checks what a store holds, and compares.
async fn stays_whole(store: MemoryStore, env: &Env, way: &str, text: &str) {
    let expected: serde_json::Value =
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{way} took {text}: {error}"));
    let server =
        GameServer::builder(store.clone()).env(env.clone()).job_id("after").start().await.unwrap();
    let players = server.store_builder::<serde_json::Value>("PlayerData").build().unwrap();
    let key = players.key("p").unwrap();
    let opened =
        players.start_session("p").await.unwrap_or_else(|error| panic!("{way} {text}: {error}"));
    assert_eq!(opened.data()["v"], expected, "{way}");
    opened.update(|data| data["coins"] = json!(2)).unwrap();
    opened.end_session().await.unwrap();
    // An edit that names something else, online and offline, and its removal.
    let edit = Edit::new().increase("/coins", 5.into()).unwrap();
    server.operator(Attribution::new("ann")).edit(&key, &edit).await.unwrap();
    let live = players.start_session("p").await.unwrap();
    server.operator(Attribution::new("ann")).edit(&key, &edit).await.unwrap();
    assert_eq!(live.data(), json!({ "coins": 12, "v": expected }), "{way}");
    live.end_session().await.unwrap();
    let _ = server.shutdown().await;
    let mut exported = Vec::new();
    export(&store, &ExportFilter::default(), &mut exported, &mut |_| {}).await.unwrap();
    let again = MemoryStore::new(env.clone());
    let report =
        import(&again, env, Cursor::new(&exported), &ImportOptions::default(), &mut |_| {})
            .await
            .unwrap();
    assert!(report.skipped.is_empty() && report.malformed.is_empty(), "{way} {text}: {report:?}");
    for store in [&store, &again] {
        let checked = verify(store, &ExportFilter::default(), &mut |_| {}).await.unwrap();
        assert!(
            checked.unreadable.is_empty() && checked.unstorable.is_empty(),
            "{way} {text}: {checked:?}"
        );
    }
    let mut exported_again = Vec::new();
    export(&again, &ExportFilter::default(), &mut exported_again, &mut |_| {}).await.unwrap();
    assert!(exported == exported_again, "{way}: an import gives another export");
    let server = GameServer::builder(again).env(env.clone()).job_id("again").start().await.unwrap();
    let players = server.store_builder::<serde_json::Value>("PlayerData").build().unwrap();
    assert_eq!(
        players.get("p").await.unwrap().unwrap().data,
        json!({ "coins": 12, "v": expected }),
        "{way}"
    );
    let remove = Edit::new().remove("/v").unwrap();
    server.operator(Attribution::new("ann")).edit(&key, &remove).await.unwrap();
    assert_eq!(players.get("p").await.unwrap().unwrap().data, json!({ "coins": 12 }));
}

#[tokio::test(start_paused = true)]
async fn what_any_way_in_accepts_is_opened_edited_exported_imported_and_checked_alike() {
    let env = crate::world::env();
    let (mut accepted, mut refused) = (0, 0);
    for text in hostile_json(MAX_DEPTH) {
        for (way, store) in ways_in(&text, &env).await {
            match store {
                Some(store) => {
                    accepted += 1;
                    stays_whole(store, &env, way, &text).await;
                }
                None => refused += 1,
            }
        }
    }
    println!("{accepted} accepted, {refused} refused");
    assert!(accepted > 100 && refused > 50, "{accepted} accepted, {refused} refused");
}

/// The same for random JSON: `PROFILESTORE_STORABLE_CASES` says how much of it, 48 otherwise. A
/// failure prints the JSON.
#[test]
fn random_json_that_any_way_in_accepts_stays_whole() {
    let cases = std::env::var("PROFILESTORE_STORABLE_CASES")
        .map_or(48, |text| text.parse().expect("a number"));
    let (accepted, refused) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let looked = runner.run(&any_json(), |text| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let env = crate::world::env();
            for (way, store) in ways_in(&text, &env).await {
                let count = if store.is_some() { &accepted } else { &refused };
                count.set(count.get() + 1);
                if let Some(store) = store {
                    stays_whole(store, &env, way, &text).await;
                }
            }
        });
        Ok(())
    });
    looked.unwrap_or_else(|error| panic!("{error}"));
    println!("of {cases} values {} accepted, {} refused", accepted.get(), refused.get());
}
