//! One rule of what can be stored, asked at every entrance: what is accepted opens again, and a
//! refusal names the place and changes nothing.

mod hostile;

use std::{cell::Cell, io::Cursor};

use profilestore::{
    Attribution, Edit, ErrorKind, GameServer, Profile, ProfileKey, ProfileStore,
    data_store::{
        Cause, Change, Commit, CommitId, DataStore, DataStoreExt, MemoryStore, NewValue, Returning,
    },
    env::Env,
    operator::{BulkEdit, EditScope},
    record::MAX_DATA_BYTES,
    roblox::{NewEntry, RobloxDataStores},
    storable::MAX_DEPTH,
    transfer::{ExportFilter, ImportOptions, document, export, import, verify},
};
use proptest::{prelude::*, test_runner::TestRunner};
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};

use crate::world::World;

/// Data with what JSON cannot express, and what nests as deep as one likes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Loose {
    coins: i64,
    best: Option<f64>,
    nested: serde_json::Value,
}

fn loose(server: &GameServer) -> ProfileStore<Loose> {
    server.store_builder("PlayerData").template(Loose::default()).build().unwrap()
}

fn nested(depth: usize) -> serde_json::Value {
    (0..depth).fold(json!(1), |inner, _| json!([inner]))
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

/// Changes the data to something that cannot be stored, and back.
async fn refused_and_mended(profile: &Profile<Loose>, spoil: impl FnOnce(&mut Loose), says: &str) {
    let before = profile.data();
    profile.update(spoil).unwrap();
    let error = profile.save().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains(says), "{error}");
    assert!(profile.is_active());
    assert_eq!(profile.last_saved_data(), before);
    profile.update(|data| *data = before).unwrap();
    profile.save().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_number_that_is_none_is_refused_at_the_save_and_does_not_become_nothing() {
    let world = World::new();
    let profile = loose(&world.server("a").await).start_session("p").await.unwrap();
    profile.update(|data| data.best = Some(1.5)).unwrap();
    profile.save().await.unwrap();
    refused_and_mended(&profile, |data| data.best = Some(f64::NAN), "at `/best`: NaN").await;
    refused_and_mended(&profile, |data| data.best = Some(f64::INFINITY), "at `/best`: inf").await;
    assert_eq!(profile.last_saved_data().best, Some(1.5));
}

#[tokio::test(start_paused = true)]
async fn data_that_is_saved_is_never_too_deep_to_be_opened() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let profile = loose(&a).start_session("p").await.unwrap();
    profile.update(|data| data.nested = nested(MAX_DEPTH - 1)).unwrap();
    profile.save().await.unwrap();
    let path = format!(
        "at `/nested{}`: lists and objects nest too deep: limit=`100`",
        "/0".repeat(MAX_DEPTH - 1)
    );
    refused_and_mended(&profile, |data| data.nested = nested(MAX_DEPTH), &path).await;
    profile.end_session().await.unwrap();
    assert_eq!(loose(&b).start_session("p").await.unwrap().data().nested, nested(MAX_DEPTH - 1));
}

#[tokio::test(start_paused = true)]
async fn a_template_that_cannot_be_stored_makes_no_store() {
    let world = World::new();
    let server = world.server("a").await;
    let template = Loose { best: Some(f64::NAN), ..Loose::default() };
    let error = server.store_builder("PlayerData").template(template).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("at `/best`"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_transaction_with_data_or_gifts_that_cannot_be_stored_does_nothing() {
    let world = World::new();
    let server = world.server("a").await;
    let players = loose(&server);
    let (alice, bob) = (
        players.start_session("alice").await.unwrap(),
        players.start_session("bob").await.unwrap(),
    );
    let (a, b) = (alice.clone(), bob.clone());
    let trade = server.transaction().with(&alice).with(&bob).run(move |tx| {
        tx.edit(&a, |data| data.coins -= 5)?;
        tx.edit(&b, |data| data.best = Some(f64::NAN))
    });
    let error = trade.await.unwrap_err();
    assert_eq!((error.kind(), error.key()), (ErrorKind::Invalid, Some(bob.key())));
    assert!(error.to_string().contains("at `/best`: NaN"), "{error}");
    let (a, to) = (alice.clone(), players.clone());
    let gift = server.transaction().with(&alice).run(move |tx| {
        tx.edit(&a, |data| data.coins -= 5)?;
        tx.gift(&to, "carol", &[f64::NAN])
    });
    assert!(gift.await.unwrap_err().to_string().contains("at `/0`: NaN"));
    assert_eq!((alice.data(), bob.data()), (Loose::default(), Loose::default()));
    assert!(players.get("carol").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_could_not_be_read_is_not_sent() {
    let world = World::new();
    let players = loose(&world.server("a").await);
    let cases = [
        (r#"{"a":"\udc00"}"#, "at `/a`: the text has half of a surrogate pair"),
        ("[1e400]", "at `/0`: the number is beyond"),
        ("[123456789012345678901]", "at `/0`: a whole number must fit into 64 bits"),
        (r#"{"a":1,"a":2}"#, "at `/a`: an object has two members of this name"),
    ];
    for (text, says) in cases {
        let error = players.send_message("p", &raw(text)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(says), "{error}");
    }
    let deep = players.send_message("p", &nested(MAX_DEPTH + 1)).await.unwrap_err();
    assert!(deep.to_string().contains("nest too deep"), "{deep}");
    assert!(players.get("p").await.unwrap().is_none());
    players.send_message("p", &nested(MAX_DEPTH)).await.unwrap();
    let waiting = players.get("p").await.unwrap().unwrap();
    assert_eq!(
        waiting.waiting_messages()[0].payload,
        serde_json::to_vec(&nested(MAX_DEPTH)).unwrap()
    );
}

#[tokio::test(start_paused = true)]
async fn a_read_profile_is_not_written_back_with_what_cannot_be_stored() {
    let world = World::new();
    let players = loose(&world.server("a").await);
    players.start_session("p").await.unwrap().end_session().await.unwrap();
    let mut view = players.get("p").await.unwrap().unwrap();
    view.data.nested = nested(MAX_DEPTH);
    assert_eq!(view.set().await.unwrap_err().kind(), ErrorKind::Invalid);
    view.data.nested = json!("x".repeat(MAX_DATA_BYTES));
    assert_eq!(view.set().await.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(players.get("p").await.unwrap().unwrap().data, Loose::default());
}

#[tokio::test(start_paused = true)]
async fn what_is_stored_and_breaks_the_rule_is_reported_and_repaired_and_blocks_nothing_else() {
    let env = crate::world::env();
    let store = MemoryStore::new(env.clone());
    let lines = line_with("1").replace("\"key\":\"p\"", "\"key\":\"good\"") + &line_with("1");
    import(&store, &env, Cursor::new(lines), &ImportOptions::default(), &mut |_| {}).await.unwrap();
    // As an earlier version of the library would have stored it.
    let key = ProfileKey::new("PlayerData", "global", "p").unwrap();
    let (_, state) =
        store.read_one(&key, Returning { value: true, inbox_unless: None }).await.unwrap();
    let mut plain = b"\x01\x00".to_vec();
    plain.extend_from_slice(br#"{"created":1,"data":{"coins":5,"half":"\ud800","far":1e400,"big":123456789012345678901}}"#);
    let commit = Commit {
        id: CommitId(env.uuid()),
        incarnation: store.identity().await.unwrap().incarnation,
        from: None,
        changes: vec![Change::Write {
            key: key.clone(),
            epoch: state.epoch,
            version: state.version,
            value: NewValue::Bytes(plain.into()),
            user_ids: Vec::new(),
            cause: Cause::Save,
            author: "earlier".into(),
            keep_previous: true,
            seal: false,
            imported: None,
        }],
        returning: Returning::HEAD,
        fingerprint: None,
    };
    store.commit_one(commit).await.unwrap();
    let checked = verify(&store, &ExportFilter::default(), &mut |_| {}).await.unwrap();
    let [wrong] = &checked.unstorable[..] else { panic!("{checked:?}") };
    assert_eq!((&wrong.key, wrong.number, wrong.path.as_str()), (&key, Some(2), "/Data/half"));
    assert_eq!((checked.keys, checked.unreadable.len()), (2, 0));
    let shown = document(&store, &key, None).await.unwrap().unwrap();
    assert!(
        shown
            .value
            .unwrap()
            .get()
            .contains(r#""half":"\ud800","far":1e400,"big":123456789012345678901"#)
    );

    let server = GameServer::builder(store.clone()).env(env.clone()).start().await.unwrap();
    let players = server.store_builder::<serde_json::Value>("PlayerData").build().unwrap();
    players.start_session("good").await.unwrap().end_session().await.unwrap();
    for _ in 0..2 {
        assert_eq!(
            players.start_session("p").await.unwrap_err().kind(),
            ErrorKind::Undecodable,
            "and no lock stays"
        );
    }
    let by = || Attribution::new("ann");
    // Everybody's edit goes past it, and what it does not name stays as it is stored.
    let gift = Edit::new().increase("/coins", 1.into()).unwrap();
    let all = BulkEdit::new(env.uuid(), EditScope::all("PlayerData"), gift);
    let report = server.operator(by()).edit_all(&all, |_| {}).await.unwrap();
    assert_eq!((report.done, report.refused.len()), (2, 0), "{report:?}");
    let shown = document(&store, &key, None).await.unwrap().unwrap();
    let text = r#"{"coins":6,"half":"\ud800","far":1e400,"big":123456789012345678901}"#;
    assert!(shown.value.unwrap().get().contains(text));
    let repair =
        ["/half", "/far", "/big"].iter().fold(Edit::new(), |edit, path| edit.remove(path).unwrap());
    server.operator(by()).edit(&key, &repair).await.unwrap();
    assert_eq!(players.start_session("p").await.unwrap().data(), json!({ "coins": 6 }));
    let checked = verify(&store, &ExportFilter::default(), &mut |_| {}).await.unwrap();
    assert!(
        checked.unstorable.iter().all(|wrong| wrong.number.is_some_and(|number| number < 4)),
        "{checked:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn the_smallest_whole_number_traps_no_profile() {
    let world = World::new();
    let server = world.server("a").await;
    let players = loose(&server);
    players.start_session("p").await.unwrap().end_session().await.unwrap();
    let key = players.key("p").unwrap();
    let by = || Attribution::new("ann");
    for number in [json!(i64::MIN), json!(u64::MAX), json!(-0.0), json!(1e300)] {
        let set = Edit::new().set("/nested", number.clone()).unwrap();
        server.operator(by()).edit(&key, &set).await.unwrap();
        assert_eq!(
            players.get("p").await.unwrap().unwrap().data.nested.to_string(),
            number.to_string()
        );
        let more = Edit::new().increase("/coins", 1.into()).unwrap();
        let operation = server.operator(by()).edit(&key, &more).await.unwrap().operation;
        let undone = server
            .operator(by())
            .edit_all(&BulkEdit::undo(world.env.uuid(), operation), |_| {})
            .await
            .unwrap();
        assert_eq!((undone.done, undone.refused.len()), (1, 0), "{undone:?}");
    }
    server
        .operator(by())
        .edit(&key, &Edit::new().set("/nested", json!(null)).unwrap())
        .await
        .unwrap();
    assert_eq!(players.get("p").await.unwrap().unwrap().data, Loose::default());
}

fn line_with(text: &str) -> String {
    let meta = r#""MetaData":{"ProfileCreateTime":1795695452,"SessionLoadCount":0,"MetaTags":{}},"GlobalUpdates":[0,[]]"#;
    format!(
        "{{\"store\":\"PlayerData\",\"scope\":\"global\",\"key\":\"p\",\"n\":1,\"created_ms\":1,\"updated_ms\":1,\"user_ids\":[],\
         \"metadata\":{{}},\"value\":{{\"Data\":{},{meta}}}}}\n",
        data_with(text)
    )
}

/// Data whose member `v` is a text of JSON.
fn data_with(text: &str) -> String {
    format!("{{\"coins\":1,\"v\":{text}}}")
}
