//! An operator's writes on the condition that the profile is still what was read.

use profilestore::{
    Attribution, Edit, ErrorKind, GameServer, Operator, ProfileKey,
    data_store::{DataStoreExt, Returning, VersionRef},
    operator::Expected,
};
use serde_json::value::RawValue;

use crate::world::{World, coins, earn, open, players, settle};

fn key(name: &str) -> ProfileKey {
    ProfileKey::new("PlayerData", "global", name).unwrap()
}

fn ann(server: &GameServer) -> Operator {
    server.operator(Attribution::new("ann"))
}

fn json(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

/// What a caller knows that reads the profile now.
pub async fn seen(world: &World, server: &GameServer, name: &str) -> Expected {
    let (_, state) = world.store.read_one(&key(name), Returning::HEAD).await.unwrap();
    Expected::Version {
        incarnation: server.incarnation(),
        epoch: state.epoch,
        version: state.version,
    }
}

#[tokio::test(start_paused = true)]
async fn a_profile_is_made_once_and_then_written_only_over_what_was_read() {
    let world = World::new();
    let desk = world.server("desk").await;
    let (p, first) = (key("p"), json(r#"{"coins":1}"#));
    let made = ann(&desk).put(&p, Expected::Absent, &first).await.unwrap();
    assert_eq!((made.version, &*made.entry.action), (1, "put"));
    let again = ann(&desk).put(&p, Expected::Absent, &first).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Changed, "{again}");

    let second = ann(&desk).put(&p, made.now, &json(r#"{"coins":2}"#)).await.unwrap();
    assert_eq!(second.version, 2);
    let late = ann(&desk).put(&p, made.now, &json(r#"{"coins":3}"#)).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Changed, "{late}");
    let more = Edit::new().increase("/coins", 40.into()).unwrap();
    assert_eq!(
        ann(&desk).edit_if(&p, made.now, &more).await.unwrap_err().kind(),
        ErrorKind::Changed
    );
    ann(&desk).edit_if(&p, second.now, &more).await.unwrap();
    assert_eq!(coins(&desk, "p").await, 42);
    let gone = ann(&desk).remove_if(&p, second.now).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Changed, "{gone}");
    ann(&desk).remove_if(&p, seen(&world, &desk, "p").await).await.unwrap();
    assert!(players(&desk).get("p").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_held_profile_is_not_written_without_its_session() {
    let world = World::new();
    let (game, desk) = (world.server("game").await, world.server("desk").await);
    let profile = open(&game, "p").await;
    earn(&profile, 5);
    profile.save().await.unwrap();
    let now = seen(&world, &desk, "p").await;
    let held = ann(&desk).put(&key("p"), now, &json("{}")).await.unwrap_err();
    assert_eq!(held.kind(), ErrorKind::Held);
    assert!(held.to_string().contains("held_by=`game`"), "{held}");
    let more = Edit::new().increase("/coins", 1.into()).unwrap();
    let held = ann(&desk).edit_if(&key("p"), now, &more).await.unwrap_err();
    assert_eq!(held.kind(), ErrorKind::Held);
    profile.end_session().await.unwrap();
    assert_eq!(coins(&desk, "p").await, 5);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_comes_at_the_same_moment_sees_what_was_put() {
    let world = World::new();
    let (game, desk) = (world.server("game").await, world.server("desk").await);
    open(&game, "p").await.end_session().await.unwrap();
    for round in 0..20 {
        let now = seen(&world, &desk, "p").await;
        let operator = ann(&desk);
        let (put, profile) = tokio::join!(
            operator.put(&key("p"), now, &json(&format!(r#"{{"coins":{round}}}"#))),
            open(&game, "p")
        );
        match put {
            Ok(_) => assert_eq!(profile.data().coins, round),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Held | ErrorKind::Changed), "{error}");
            }
        }
        profile.end_session().await.unwrap();
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_is_repeated_under_its_identity_is_done_once() {
    let world = World::new();
    let game = world.server("game").await;
    for more in [1, 2] {
        let profile = open(&game, "p").await;
        earn(&profile, more);
        profile.end_session().await.unwrap();
    }
    let (operator, operation) = (ann(&game), world.env.uuid());
    let first = players(&game).versions("p").unwrap().next().await.unwrap().unwrap();
    let which = VersionRef::Number(first.info.number);
    let done = operator.restore_as(operation, &key("p"), which.clone()).await.unwrap();
    let profile = open(&game, "p").await;
    earn(&profile, 100);
    profile.end_session().await.unwrap();
    let kept = coins(&game, "p").await;
    let again = operator.restore_as(operation, &key("p"), which.clone()).await.unwrap();
    assert_eq!(
        (again.version, again.replaced, again.restored),
        (done.version, done.replaced, done.restored)
    );
    assert_eq!(coins(&game, "p").await, kept, "what was played since stays");
    let newest = VersionRef::Number(done.version);
    let error = operator.restore_as(operation, &key("p"), newest).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RequestIdReused, "another version: {error}");
    let edit = Edit::new().increase("/coins", 1.into()).unwrap();
    let other = world.env.uuid();
    let patience = std::time::Duration::from_secs(1);
    operator.edit_as(other, &key("p"), &edit, patience).await.unwrap();
    let error = operator.restore_as(other, &key("p"), which).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RequestIdReused, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_rollback_is_not_made_over_what_was_saved_after_the_look() {
    let world = World::new();
    let (game, desk) = (world.server("game").await, world.server("desk").await);
    let profile = open(&game, "p").await;
    earn(&profile, 5);
    profile.end_session().await.unwrap();
    let profile = open(&game, "p").await;
    let kept = players(&game).versions("p").unwrap().next().await.unwrap().unwrap().info.number;
    let first = VersionRef::Number(kept);
    let (looked, operation) = (seen(&world, &desk, "p").await, world.env.uuid());
    earn(&profile, 10);
    profile.save().await.unwrap();
    let late = ann(&desk).restore_if(operation, &key("p"), looked, first.clone()).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Changed);
    assert!(profile.is_active(), "the session goes on");
    assert_eq!(coins(&desk, "p").await, 15);

    let looked = seen(&world, &desk, "p").await;
    let done = ann(&desk).restore_if(operation, &key("p"), looked, first.clone()).await.unwrap();
    assert_eq!((done.restored, done.held_by.as_deref()), (kept, Some("game")));
    assert_eq!(done.now, Some(seen(&world, &desk, "p").await));
    settle().await;
    assert!(!profile.is_active());
    // Its own answer was lost, perhaps: the same again is no second rollback.
    let again = ann(&desk).restore_if(operation, &key("p"), looked, first.clone()).await.unwrap();
    assert_eq!((again.version, again.now), (done.version, None));
    let other = world.env.uuid();
    let late = ann(&desk).restore_if(other, &key("p"), looked, first).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Changed);
}
