//! Profiles that the two Roblox modules wrote, opened as ours.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use profilestore::{
    ErrorKind, GameServer, ProfileKey, StartOptions,
    data_store::{DataStore, KeyFilter, KeyQuery, Order, Returning, VersionQuery},
    record::Stored,
    transfer::{ImportOptions, import},
};
use serde_json::{Value, json};

use crate::{transfer::import_real_records, world::World};

async fn all_keys(store: &dyn DataStore) -> Vec<ProfileKey> {
    let query =
        KeyQuery { store: None, scope: None, filter: KeyFilter::All, after: None, limit: 1000 };
    store.keys(&query).await.unwrap().into_iter().map(|state| state.key).collect()
}

fn store_of(server: &GameServer, key: &ProfileKey) -> profilestore::ProfileStore<Value> {
    server.store_builder(key.store()).scope(key.scope()).template(json!({})).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn real_records_open_with_their_messages_and_held_ones_are_taken_over() {
    let world = World::new();
    import_real_records(&world.store).await;
    let keys = all_keys(&world.store).await;
    assert_eq!(keys.len(), 209);
    let held = world.store.read(&keys, Returning::HEAD).await.unwrap().states;
    let held: BTreeSet<_> = held
        .iter()
        .filter(|state| state.lease.holder.is_some())
        .map(|state| state.key.clone())
        .collect();
    assert_eq!(held.len(), 50);

    let server = world.server("a").await;
    let offered = Arc::new(AtomicU64::new(0));
    let mut foreign = Vec::new();
    let mut opened = Vec::new();
    let began = tokio::time::Instant::now();
    for key in &keys {
        match store_of(&server, key).start_session(key.key()).await {
            Ok(profile) => {
                let count = offered.clone();
                profile.message_handler(move |_, message| {
                    count.fetch_add(1, Ordering::SeqCst);
                    message.processed();
                });
                opened.push(profile);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Foreign, "{error}");
                foreign.push(key.clone());
            }
        }
    }
    assert_eq!((opened.len(), foreign.len()), (203, 6));
    assert_eq!(
        offered.load(Ordering::SeqCst),
        29,
        "the waiting entries of both modules reach handlers"
    );
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "all of them are long dead by their last update: {:?}",
        began.elapsed()
    );
    for profile in &opened {
        assert!(profile.is_active());
        profile.end_session().await.unwrap();
    }
    // Now that they were saved here, they are free, and their messages consumed.
    let states = world.store.read(&keys, Returning::INBOX).await.unwrap().states;
    assert!(
        states
            .iter()
            .all(|state| state.lease.holder.is_none() && state.inbox.as_ref().unwrap().is_empty())
    );

    // What is no profile is left alone until a caller asks to overwrite it, and kept in the history
    // then.
    let overwritten = Arc::new(AtomicU64::new(0));
    let count = overwritten.clone();
    server.on_overwrite(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    for key in &foreign {
        let profile = store_of(&server, key)
            .start_session_with(key.key(), StartOptions::new().overwrite())
            .await
            .unwrap();
        assert_eq!(profile.data(), json!({}));
        let query = VersionQuery {
            key: key.clone(),
            order: Order::Ascending,
            from_ms: None,
            to_ms: None,
            after: None,
            limit: 10,
        };
        assert!(world.store.versions(&query).await.unwrap().len() >= 2);
        profile.end_session().await.unwrap();
    }
    assert_eq!(overwritten.load(Ordering::SeqCst), 6);
}

#[tokio::test(start_paused = true)]
async fn meta_tags_and_unknown_fields_survive_a_session() {
    let world = World::new();
    import_real_records(&world.store).await;
    let server = world.server("a").await;
    let key = ProfileKey::new("LegacyData", "Season1", "Player_31").unwrap();
    let profile = store_of(&server, &key).start_session(key.key()).await.unwrap();
    assert_eq!((profile.first_session_time(), profile.user_ids()), (1_790_000_000.0, vec![31]));
    assert_eq!(profile.session_load_count(), 2);
    profile.update(|data| data["Cash"] = json!(999)).unwrap();
    profile.end_session().await.unwrap();
    let mut out = Vec::new();
    let filter = profilestore::transfer::ExportFilter {
        store: Some("LegacyData".into()),
        keys: KeyFilter::Prefix("Player_31".into()),
        ..profilestore::transfer::ExportFilter::default()
    };
    profilestore::transfer::export(&world.store, &filter, &mut out, &mut |_| {}).await.unwrap();
    let last: Value = serde_json::from_slice(
        out.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty()).unwrap(),
    )
    .unwrap();
    assert_eq!(last["value"]["Data"]["Cash"], 999);
    assert_eq!(
        last["value"]["MetaData"]["MetaTags"],
        json!({"ProfilePurchaseIds": ["a31", "b31"], "DataVersion": 2})
    );
    assert_eq!(last["value"]["MetaData"]["SessionLoadCount"], 2);
    assert_eq!(last["value"]["MetaData"].get("ActiveSession"), None);
}

/// Its player's data, or a gift to the player, would have been replaced by a new profile.
#[tokio::test(start_paused = true)]
async fn a_document_that_is_only_too_large_is_not_overwritten_by_a_start_that_overwrites() {
    let world = World::new();
    let server = world.server("a").await;
    let large = "x".repeat(300 << 10);
    let updates = json!([2, [[1, 1, false, large], [2, 1, false, "small"]]]);
    let too_large = [
        json!({ "Data": { "Cash": 5, "Log": large.repeat(14) }, "MetaData": {} }),
        json!({ "Data": { "Cash": 5 }, "MetaData": {}, "GlobalUpdates": updates }),
        json!({ "GlobalUpdates": updates }),
    ];
    // Large, and no profile for another reason.
    let other = [
        json!({ "Data": large, "MetaData": {} }),
        json!({ "Data": { "Log": large }, "MetaData": {}, "GlobalUpdates": "none" }),
        json!({ "Data": { "Log": large.repeat(14) } }),
        json!([{ "Log": large.repeat(14) }, {}]),
    ];
    let mut lines = String::new();
    for (n, document) in too_large.iter().chain(&other).enumerate() {
        let line = json!({
            "store": "PlayerData", "key": format!("p{n}"), "n": 1, "created_ms": 5,
            "updated_ms": 5, "value": document,
        });
        lines += &format!("{line}\n");
    }
    let options = ImportOptions::default();
    let report = import(&world.store, &world.env, lines.as_bytes(), &options, &mut |_| {}).await;
    assert_eq!(report.unwrap().foreign.len(), too_large.len() + other.len());
    let players = server.store_builder("PlayerData").template(json!({})).build().unwrap();
    for (n, document) in too_large.iter().enumerate() {
        let key = format!("p{n}");
        let plain = players.start_session(&key).await.unwrap_err();
        let start = players.start_session_with(&key, StartOptions::new().overwrite());
        let refused = start.await.unwrap_err();
        assert_eq!((plain.kind(), refused.kind()), (ErrorKind::TooLarge, ErrorKind::TooLarge));
        let key = players.key(&key).unwrap();
        let read = world.store.read(&[key], Returning::ALL).await.unwrap();
        let state = &read.states[0];
        assert!(state.lease.holder.is_none() && state.version == 1, "{refused}");
        let Stored::Foreign(kept) = Stored::decode(state.value.as_ref().unwrap()).unwrap() else {
            panic!("it is something else now: {state:?}");
        };
        assert_eq!(serde_json::from_str::<Value>(kept.value.get()).unwrap(), *document);
    }
    for n in too_large.len()..too_large.len() + other.len() {
        let key = format!("p{n}");
        let start = players.start_session_with(&key, StartOptions::new().overwrite());
        assert_eq!(start.await.unwrap().data(), json!({}), "{key}");
    }
}
