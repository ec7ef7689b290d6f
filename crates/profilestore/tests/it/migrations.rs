//! Servers of different versions of a program on one store.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use profilestore::{
    Attribution, ErrorKind, GameServer, Migrations, ProfileStore, StartOptions,
    migration::{DATA_VERSION, READABLE_FROM},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::world::{World, settle};

/// Version 0.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Old {
    gold: i64,
}

/// Version 1 renames, version 2 adds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct New {
    coins: i64,
    pets: Vec<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Between {
    coins: i64,
}

fn rename() -> Migrations {
    Migrations::new().step(1, |data| {
        let gold = data.as_object_mut().ok_or("no object")?.remove("gold").ok_or("no gold")?;
        data["coins"] = gold;
        Ok(())
    })
}

fn and_pets() -> Migrations {
    rename().readable_step(2, |data| {
        if data["pets"].is_null() {
            data["pets"] = json!([]);
        }
        Ok(())
    })
}

fn old(server: &GameServer) -> ProfileStore<Old> {
    server.store_builder("PlayerData").template(Old::default()).build().unwrap()
}

fn between(server: &GameServer) -> ProfileStore<Between> {
    server
        .store_builder("PlayerData")
        .template(Between::default())
        .migrations(rename())
        .build()
        .unwrap()
}

fn new(server: &GameServer) -> ProfileStore<New> {
    server
        .store_builder("PlayerData")
        .template(New::default())
        .migrations(and_pets())
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn old_data_is_migrated_and_an_older_server_refuses_it_from_then_on() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let profile = old(&a).start_session("p").await.unwrap();
    profile.update(|data| data.gold = 7).unwrap();
    profile.end_session().await.unwrap();
    // Looking and opening without a change store nothing.
    assert_eq!(new(&b).get("p").await.unwrap().unwrap().data.coins, 7);
    new(&b).start_session("p").await.unwrap().end_session().await.unwrap();
    assert_eq!(old(&a).get("p").await.unwrap().unwrap().data.gold, 7);

    let profile = new(&b).start_session("p").await.unwrap();
    profile.update(|data| data.pets.push("cat".into())).unwrap();
    profile.end_session().await.unwrap();
    let refused = old(&a).start_session("p").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NewerData);
    assert!(refused.to_string().contains("data version=`2` known=`0`"), "{refused}");
    assert_eq!(old(&a).get("p").await.unwrap_err().kind(), ErrorKind::NewerData);
    // No lock is left, and nothing was touched.
    let profile = new(&b).start_session("p").await.unwrap();
    assert_eq!((profile.data().coins, profile.data().pets), (7, vec!["cat".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_too_old_is_told_so_before_the_holder_is_asked() {
    for messengers in [true, false] {
        let world = if messengers { World::new() } else { World::without_messenger() };
        let (a, b) = (world.server("a").await, world.server("b").await);
        let profile = new(&b).start_session("p").await.unwrap();
        profile.update(|data| data.coins = 7).unwrap();
        profile.save().await.unwrap();
        let ends = Arc::new(AtomicU64::new(0));
        let counted = ends.clone();
        profile.on_session_end(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let commits = world.store.plan().commits();
        let began = tokio::time::Instant::now();
        for options in [StartOptions::new(), StartOptions::new().steal()] {
            let refused = old(&a).start_session_with("p", options).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::NewerData);
        }
        let never = StartOptions::new().when_held(|_| panic!("the program is not asked either"));
        let refused = old(&a).start_session_with("p", never).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NewerData);
        assert_eq!(began.elapsed(), Duration::ZERO, "at the first look");
        assert_eq!(world.store.plan().commits(), commits, "and no request");
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(profile.is_active() && ends.load(Ordering::Relaxed) == 0);
        // One that knows the data gets the profile as ever.
        between(&a).start_session("p").await.unwrap();
        assert!(profile.is_over() && ends.load(Ordering::Relaxed) == 1);
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_edit_of_migrated_data_is_saved_at_once_so_that_older_servers_know() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    old(&a).start_session("p").await.unwrap().end_session().await.unwrap();
    let profile = between(&b).start_session("p").await.unwrap();
    settle().await;
    // It has changed nothing, so a server of before can still have the profile.
    let back = old(&a).start_session("p").await.unwrap();
    assert!(profile.is_over());
    back.end_session().await.unwrap();
    let profile = between(&b).start_session("p").await.unwrap();
    profile.update(|data| data.coins += 1).unwrap();
    settle().await;
    assert_eq!(old(&a).start_session("p").await.unwrap_err().kind(), ErrorKind::NewerData);
    assert!(profile.is_active(), "no autosave was needed");
    // Only the first edit is saved so.
    let commits = world.store.plan().commits();
    profile.update(|data| data.coins += 1).unwrap();
    settle().await;
    assert_eq!(world.store.plan().commits(), commits);
}

#[tokio::test(start_paused = true)]
async fn a_readable_step_lets_servers_of_before_go_on() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let profile = new(&b).start_session("p").await.unwrap();
    profile.update(|data| data.coins = 7).unwrap();
    profile.end_session().await.unwrap();
    let profile = between(&a).start_session("p").await.unwrap();
    profile.update(|data| data.coins += 1).unwrap();
    profile.end_session().await.unwrap();
    // It came back at version 1 and is brought to 2 again.
    assert_eq!(new(&b).get("p").await.unwrap().unwrap().data.coins, 8);
    assert_eq!(
        old(&a).get("p").await.unwrap_err().kind(),
        ErrorKind::NewerData,
        "the rename still binds"
    );
}

#[tokio::test(start_paused = true)]
async fn a_failed_step_leaves_the_data_and_no_lock() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    // Never had gold.
    let odd = a.store_builder("PlayerData").template(Between { coins: 3 }).build().unwrap();
    odd.start_session("p").await.unwrap().end_session().await.unwrap();
    let failed = new(&b).start_session("p").await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Undecodable);
    assert!(failed.to_string().contains("no gold: step=`1`"), "{failed}");
    settle().await;
    let profile = odd.start_session("p").await.unwrap();
    assert_eq!((profile.data().coins, profile.session_load_count()), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn rolling_back_writes_what_was_migrated() {
    let world = World::new();
    let a = world.server("a").await;
    let profile = old(&a).start_session("p").await.unwrap();
    profile.update(|data| data.gold = 7).unwrap();
    profile.end_session().await.unwrap();
    let profile = new(&a).start_session("p").await.unwrap();
    profile.update(|data| data.coins = 0).unwrap();
    profile.end_session().await.unwrap();
    let versions = new(&a).versions("p").unwrap();
    let mut first = versions;
    let mut found = Vec::new();
    while let Some(read) = first.next_profile().await.unwrap() {
        found.push(read);
    }
    let seven = found.iter().find(|read| read.data.coins == 7).expect("the version of before");
    seven.set().await.unwrap();
    assert_eq!(new(&a).get("p").await.unwrap().unwrap().data.coins, 7);
    assert_eq!(old(&a).get("p").await.unwrap_err().kind(), ErrorKind::NewerData);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_has_dropped_its_oldest_steps_lets_no_server_in_that_it_cannot_follow() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let pets_only = Migrations::starting_at(2).readable_step(2, |data| {
        data["pets"] = json!([]);
        Ok(())
    });
    let newest = b
        .store_builder("PlayerData")
        .template(New::default())
        .migrations(pets_only)
        .build()
        .unwrap();
    let profile = newest.start_session("p").await.unwrap();
    profile.update(|data| data.coins = 7).unwrap();
    profile.end_session().await.unwrap();
    // Step 1 is known to nobody here any more, so nobody can say that servers of before may open
    // its result.
    assert_eq!(old(&a).start_session("p").await.unwrap_err().kind(), ErrorKind::NewerData);
    let profile = between(&a).start_session("p").await.unwrap();
    profile.update(|data| data.coins += 1).unwrap();
    profile.end_session().await.unwrap();
    assert_eq!(newest.get("p").await.unwrap().unwrap().data.coins, 8);
}

#[tokio::test(start_paused = true)]
async fn a_version_of_a_newer_program_does_not_hold_up_the_walk_through_the_others() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    new(&b).start_session("p").await.unwrap().end_session().await.unwrap();
    let profile = new(&b).start_session("p").await.unwrap();
    profile.update(|data| data.coins = 7).unwrap();
    profile.end_session().await.unwrap();
    let mut versions = old(&a).versions("p").unwrap();
    for _ in 0..2 {
        assert_eq!(versions.next_profile().await.unwrap_err().kind(), ErrorKind::NewerData);
    }
    assert!(versions.next_profile().await.unwrap().is_none());
}

/// An operator's program knows no version of any player's data.
#[tokio::test(start_paused = true)]
async fn an_operator_frees_a_profile_of_any_version() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let profile = new(&b).start_session("p").await.unwrap();
    profile.update(|data| data.coins = 7).unwrap();
    let operator = a.operator(Attribution::new("ann"));
    operator.end_session(profile.key(), false, Duration::from_secs(20)).await.unwrap();
    assert!(profile.is_over());
    assert_eq!(old(&a).get("p").await.unwrap_err().kind(), ErrorKind::NewerData, "still marked");
    assert_eq!(new(&b).get("p").await.unwrap().unwrap().data.coins, 7);
}

#[tokio::test(start_paused = true)]
async fn what_a_step_makes_up_is_the_same_at_each_look() {
    #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
    struct Pets {
        pets: Vec<String>,
    }
    fn named(server: &GameServer) -> ProfileStore<Pets> {
        let migrations = Migrations::new().step_with(1, |data, context| {
            let name = format!("{}-{:032x}", context.key().key(), context.seed());
            data["pets"] = json!([name]);
            Ok(())
        });
        server.store_builder("PlayerData").migrations(migrations).build().unwrap()
    }
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let mut seen = Vec::new();
    for key in ["p", "q"] {
        old(&a).start_session(key).await.unwrap().end_session().await.unwrap();
        let read = named(&a).get(key).await.unwrap().unwrap().data;
        assert!(read.pets[0].starts_with(key));
        let profile = named(&b).start_session(key).await.unwrap();
        assert_eq!(profile.data(), read);
        // Nothing was stored of it.
        profile.end_session().await.unwrap();
        let profile = named(&a).start_session(key).await.unwrap();
        assert_eq!(profile.data(), read);
        profile.update(|data| data.pets.push("cat".into())).unwrap();
        profile.end_session().await.unwrap();
        let stored = named(&b).get(key).await.unwrap().unwrap().data;
        assert_eq!(stored.pets, [read.pets[0].clone(), "cat".into()], "the step is done");
        seen.push(read);
    }
    assert_ne!(seen[0].pets[0][1..], seen[1].pets[0][1..]);
}

#[tokio::test(start_paused = true)]
async fn what_a_readable_step_makes_up_comes_back_after_a_save_of_an_older_server() {
    #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
    struct Lucky {
        gold: i64,
        number: String,
    }
    fn lucky(server: &GameServer) -> ProfileStore<Lucky> {
        let migrations = Migrations::new().readable_step_with(1, |data, context| {
            if data["number"].is_null() {
                data["number"] = json!(format!("{:032x}", context.seed()));
            }
            Ok(())
        });
        server.store_builder("PlayerData").migrations(migrations).build().unwrap()
    }
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    old(&a).start_session("p").await.unwrap().end_session().await.unwrap();
    let profile = lucky(&b).start_session("p").await.unwrap();
    let number = profile.data().number;
    assert_eq!(number.len(), 32);
    profile.update(|data| data.gold = 7).unwrap();
    profile.end_session().await.unwrap();
    // An older server may open it, and drops the number, which it does not know.
    let profile = old(&a).start_session("p").await.unwrap();
    profile.update(|data| data.gold += 1).unwrap();
    profile.end_session().await.unwrap();
    assert_eq!(lucky(&b).get("p").await.unwrap().unwrap().data, Lucky { gold: 8, number });
}

#[tokio::test(start_paused = true)]
async fn a_first_step_that_leaves_every_old_player_outside_does_not_build() {
    let a = World::new().server("a").await;
    let build = |migrations: Migrations| {
        a.store_builder::<Old>("PlayerData").migrations(migrations).build()
    };
    let refused = build(Migrations::new().step(2, |_| Ok(()))).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(refused.to_string().contains("starting_at(2)"), "{refused}");
    // Said on purpose, it is what was meant.
    old(&a).start_session("p").await.unwrap().end_session().await.unwrap();
    let later = build(Migrations::starting_at(2).step(2, |_| Ok(()))).unwrap();
    assert_eq!(later.start_session("p").await.unwrap_err().kind(), ErrorKind::Undecodable);
}

#[tokio::test(start_paused = true)]
async fn gaps_in_the_numbers_are_refused() {
    let a = World::new().server("a").await;
    let gap = Migrations::new().step(1, |_| Ok(())).step(3, |_| Ok(()));
    let refused = a.store_builder::<Old>("PlayerData").migrations(gap).build().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert_eq!((DATA_VERSION, READABLE_FROM), ("DataVersion", "DataVersionReadableFrom"));
}
