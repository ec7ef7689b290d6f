//! Going through the profiles of a store: `ProfileStore::keys`.

use std::{pin::pin, time::Duration};

use futures_util::{StreamExt, TryStreamExt};
use profilestore::{ErrorKind, ProfileStore, Settings};
use serde_json::{Value, json};

use crate::world::{Player, World, earn, open, players};

async fn names(store: &ProfileStore<Player>, prefix: &str) -> Vec<String> {
    let keys = store.keys().prefix(prefix).stream();
    keys.map_ok(|key| key.key().to_owned()).try_collect().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn every_profile_of_the_store_and_scope_comes_once_and_in_order() {
    let world = World::new();
    let server = world.server("a").await;
    let store = players(&server);
    // More than two pages.
    let mut all: Vec<String> = (0..600).map(|number| format!("user-{number}")).collect();
    for key in &all {
        let profile = open(&server, key).await;
        profile.end_session().await.unwrap();
    }
    all.sort();
    for (name, scope) in [("PlayerData", "other"), ("Others", "global")] {
        let elsewhere = server.store_builder(name).scope(scope).template(Player::default());
        elsewhere.build().unwrap().start_session("user-x").await.unwrap();
    }
    store.send_message("only-messages", &1).await.unwrap();
    assert_eq!(names(&store, "").await, all);
    assert_eq!(names(&store, "user-59").await.len(), 11);
    assert!(names(&store, "user-x").await.is_empty());

    assert!(store.remove("user-0").await.unwrap());
    assert_eq!(names(&store, "").await, all[1..]);
    let scanned: Vec<String> = store
        .keys()
        .scan()
        .map_ok(|profile| profile.key().key().to_owned())
        .try_collect()
        .await
        .unwrap();
    assert_eq!(scanned, all[1..]);
}

#[tokio::test(start_paused = true)]
async fn profiles_are_found_by_user_and_by_being_held_and_by_all_of_it() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let store = players(&a);
    for (key, user, stays) in [("p1", 7, true), ("p2", 7, false), ("q1", 7, true), ("p3", 8, true)]
    {
        let profile = open(&b, key).await;
        profile.add_user_id(user).unwrap();
        profile.save().await.unwrap();
        if !stays {
            profile.end_session().await.unwrap();
        }
    }
    let found = async |keys: profilestore::Keys<Player>| -> Vec<String> {
        keys.stream().map_ok(|key| key.key().to_owned()).try_collect().await.unwrap()
    };
    assert_eq!(found(store.keys().user(7)).await, ["p1", "p2", "q1"]);
    assert_eq!(found(store.keys().held()).await, ["p1", "p3", "q1"]);
    assert_eq!(found(store.keys().user(7).held()).await, ["p1", "q1"]);
    assert_eq!(found(store.keys().held().prefix("p")).await, ["p1", "p3"]);
    assert_eq!(found(store.keys().user(7).prefix("p").held()).await, ["p1"]);
    assert!(found(store.keys().user(9)).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_scan_reads_a_few_profiles_ahead_and_no_more() {
    let world = World::new();
    let server = world.server("a").await;
    for number in 0..300 {
        let profile = open(&server, &format!("user-{number}")).await;
        earn(&profile, number);
        profile.end_session().await.unwrap();
    }
    let reads = || world.store.plan().reads();
    let before = reads();
    let mut scan = pin!(players(&server).keys().scan());
    for _ in 0..3 {
        scan.try_next().await.unwrap().unwrap();
    }
    let so_far = reads() - before;
    assert!(so_far <= 1 + 3 + 8, "{so_far} reads for three profiles");
    let left: Vec<i64> = scan.map_ok(|profile| profile.data.coins).try_collect().await.unwrap();
    assert_eq!(left.len(), 297);
}

#[tokio::test(start_paused = true)]
async fn a_profile_that_cannot_be_read_does_not_end_a_scan_and_an_outage_does() {
    let world = World {
        settings: Settings { call_timeout: Duration::from_secs(2), ..Settings::default() },
        ..World::new()
    };
    let server = world.server("a").await;
    for key in ["a", "c", "d"] {
        open(&server, key).await.end_session().await.unwrap();
    }
    let untyped: ProfileStore<Value> = server.store("PlayerData").unwrap();
    let odd = untyped.start_session("b").await.unwrap();
    odd.update(|data| *data = json!({"coins": "many"})).unwrap();
    odd.end_session().await.unwrap();

    let store = players(&server);
    let all: Vec<_> = store.keys().scan().collect().await;
    let seen = all.iter().map(|read| match read {
        Ok(profile) => profile.key().key().to_owned(),
        Err(error) => format!("{:?} {}", error.kind(), error.key().unwrap().key()),
    });
    assert_eq!(seen.collect::<Vec<_>>(), ["a", "Undecodable b", "c", "d"]);

    world.store.plan().cut_off();
    let all: Vec<_> = store.keys().scan().collect().await;
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].as_ref().unwrap_err().kind(), ErrorKind::Unavailable);
    world.store.plan().heal();
    let mut keys = store.keys();
    assert!(keys.next().await.unwrap().is_some());
    server.shutdown().await.not_saved.clear();
    let closed = store.keys().next().await.unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::Closing);
}
