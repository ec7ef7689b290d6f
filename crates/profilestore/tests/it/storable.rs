//! One rule of what can be stored, asked at every entrance: what is accepted opens again, and a refusal names the place and changes
//! nothing.

use profilestore::{ErrorKind, GameServer, Profile, ProfileStore, record::MAX_DATA_BYTES, storable::MAX_DEPTH};
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
    let path = format!("at `/nested{}`: lists and objects nest too deep: limit=`100`", "/0".repeat(MAX_DEPTH - 1));
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
    let (alice, bob) = (players.start_session("alice").await.unwrap(), players.start_session("bob").await.unwrap());
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
    assert_eq!(players.get("carol").await.unwrap_err().kind(), ErrorKind::NotFound);
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
    assert_eq!(players.get("p").await.unwrap_err().kind(), ErrorKind::NotFound);
    players.send_message("p", &nested(MAX_DEPTH)).await.unwrap();
    let waiting = players.get("p").await.unwrap();
    assert_eq!(waiting.waiting_messages()[0].payload, serde_json::to_vec(&nested(MAX_DEPTH)).unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_read_profile_is_not_written_back_with_what_cannot_be_stored() {
    let world = World::new();
    let players = loose(&world.server("a").await);
    players.start_session("p").await.unwrap().end_session().await.unwrap();
    let mut view = players.get("p").await.unwrap();
    view.data.nested = nested(MAX_DEPTH);
    assert_eq!(view.set().await.unwrap_err().kind(), ErrorKind::Invalid);
    view.data.nested = json!("x".repeat(MAX_DATA_BYTES));
    assert_eq!(view.set().await.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(players.get("p").await.unwrap().data, Loose::default());
}
