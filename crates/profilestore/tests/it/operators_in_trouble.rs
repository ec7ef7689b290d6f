//! What the simulation found when operators came into its world.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use profilestore::{
    Attribution, Edit, ErrorKind, GameServer, ProfileKey,
    data_store::MemoryStore,
    env::{Env, SystemRng},
};

use crate::{
    regressions::Stepping,
    world::{Fault, FaultyStore, World, coins, earn, open, settle},
};

fn key() -> ProfileKey {
    ProfileKey::new("PlayerData", "global", "p").unwrap()
}

fn more_coins(by: i64) -> Edit {
    Edit::new().increase("/coins", by.into()).unwrap()
}

async fn edit(server: &GameServer, edit: &Edit) -> Result<(), ErrorKind> {
    server.edit(&key(), edit, Attribution::new("ann")).await.map(drop).map_err(|error| error.kind())
}

/// A start looked at the store's clock when it read a profile; an edit did not, and took a step for the holder's death.
#[tokio::test(start_paused = true)]
async fn an_edit_after_a_step_of_the_stores_clock_ends_no_living_session() {
    let mut world = World::new();
    let clock = Arc::new(Stepping(world.env.clone(), 0.into()));
    world.store = FaultyStore::new(MemoryStore::new(Env::new(clock.clone(), Arc::new(SystemRng))));
    let (a, b) = (world.server("a").await, world.server("b").await);
    let on_a = open(&a, "p").await;
    earn(&on_a, 7);
    tokio::time::sleep(Duration::from_secs(42)).await;
    clock.1.fetch_add(240_000, Ordering::SeqCst);
    edit(&b, &more_coins(5)).await.unwrap();
    settle().await;
    assert!(on_a.is_active());
    assert_eq!(on_a.data().coins, 12);
}

/// It was reported as unavailable, which means that nothing was done, and took effect later.
#[tokio::test(start_paused = true)]
async fn the_outcome_of_an_edit_that_was_sent_is_unknown_when_the_store_goes_away() {
    let world = World::new();
    let on_the_way = world.store.another_way();
    let (a, b) = (world.server("a").await, world.server_on("b", on_the_way.clone()).await);
    let profile = open(&a, "p").await;
    // The holder cannot save for a while.
    world.store.fail(Fault::Unavailable, u64::MAX);
    let editing = tokio::spawn({
        let b = b.clone();
        async move { edit(&b, &more_coins(5)).await }
    });
    settle().await;
    on_the_way.cut_off();
    assert_eq!(editing.await.unwrap(), Err(ErrorKind::Unknown));
    world.store.heal();
    on_the_way.heal();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(profile.data().coins, 5);
    assert_eq!(coins(&b, "p").await, 5);
}
