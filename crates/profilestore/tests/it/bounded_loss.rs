//! `Settings::save_changes_within`: what a crash may cost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use profilestore::{GameServer, Profile, data_store::StoreError};

use crate::{
    regressions::Detour,
    world::{Player, World, coins, earn, open, players, settle},
};

fn world() -> World {
    let mut world = World::new();
    world.settings.save_changes_within = Some(Duration::from_secs(1));
    world
}

/// Counts what the listeners of errors are told.
fn count_errors(server: &GameServer) -> Arc<AtomicU32> {
    let errors = Arc::new(AtomicU32::new(0));
    let count = errors.clone();
    server.on_error(move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    errors
}

fn version(profile: &Profile<Player>) -> u64 {
    profile.key_info().number
}

#[tokio::test(start_paused = true)]
async fn a_change_is_there_a_second_later() {
    let world = world();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let profile = open(&a, "p").await;
    earn(&profile, 7);
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(coins(&b, "p").await, 0, "not yet");
    tokio::time::sleep(Duration::from_millis(200)).await;
    a.crash();
    assert_eq!(coins(&b, "p").await, 7);
}

#[tokio::test(start_paused = true)]
async fn metadata_and_edits_that_waited_count_as_changes_too() {
    let world = world();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let (first, second) = (open(&a, "first").await, open(&a, "second").await);
    first.add_user_id(7).unwrap();
    second.update_when_free(|data| data.coins = 3).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(players(&b).get("first").await.unwrap().unwrap().user_ids(), [7]);
    assert_eq!(coins(&b, "second").await, 3);
}

#[tokio::test(start_paused = true)]
async fn many_changes_cost_one_save_a_second_and_no_change_costs_none() {
    let world = world();
    let a = world.server("a").await;
    let profile = open(&a, "p").await;
    let before = version(&profile);
    for _ in 0..100 {
        earn(&profile, 1);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let saves = version(&profile) - before;
    assert!((9..=11).contains(&saves), "{saves}");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(version(&profile) - before, saves);
    // A change that a save of the program's took along is not saved again.
    earn(&profile, 1);
    profile.save().await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(version(&profile) - before, saves + 1);
}

#[tokio::test(start_paused = true)]
async fn hooks_are_left_to_the_autosave() {
    let world = world();
    let a = world.server("a").await;
    let profile = open(&a, "p").await;
    let (hooks, after) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let count = hooks.clone();
    profile.on_save(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let count = after.clone();
    profile.on_after_save(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    earn(&profile, 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!((hooks.load(Ordering::SeqCst), after.load(Ordering::SeqCst)), (0, 1));
    profile.save().await.unwrap();
    assert_eq!((hooks.load(Ordering::SeqCst), after.load(Ordering::SeqCst)), (1, 2));
}

/// More sessions than saves may be under way, and an outage in between.
#[tokio::test(start_paused = true)]
async fn an_outage_delays_them_and_loses_none() {
    let world = world();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let mut profiles = Vec::new();
    for i in 0..1200 {
        profiles.push(open(&a, &format!("p{i}")).await);
    }
    world.store.plan().cut_off();
    for profile in &profiles {
        earn(profile, 1);
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    for profile in &profiles {
        earn(profile, 1);
    }
    world.store.plan().heal();
    tokio::time::sleep(Duration::from_secs(40)).await;
    for i in 0..1200 {
        assert_eq!(coins(&b, &format!("p{i}")).await, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn saves_within_a_bound_can_be_switched_on_while_the_server_runs() {
    let world = World::new();
    let a = world.server("a").await;
    let profile = open(&a, "p").await;
    earn(&profile, 1);
    settle().await;
    a.change_settings(|settings| settings.save_changes_within = Some(Duration::from_millis(20)))
        .unwrap();
    earn(&profile, 1);
    settle().await;
    assert_eq!(coins(&world.server("b").await, "p").await, 2);
    assert!(
        a.change_settings(|settings| settings.save_changes_within = Some(Duration::ZERO)).is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn a_change_that_found_the_queue_full_is_saved_once_there_is_room() {
    let mut world = world();
    world.settings.max_key_queue = 1;
    let (a, b) = (world.server("a").await, world.server("b").await);
    let profile = open(&a, "p").await;
    world.store.plan().cut_off();
    earn(&profile, 1);
    let saving = tokio::spawn(profile.save());
    settle().await;
    let sending = tokio::spawn(players(&a).send_message("p", &1));
    settle().await;
    earn(&profile, 2);
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.store.plan().heal();
    saving.await.unwrap().unwrap();
    sending.await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    a.crash();
    assert_eq!(coins(&b, "p").await, 3);
}

/// A profile that changed later waited behind one that had changed under the longer bound.
#[tokio::test(start_paused = true)]
async fn a_shorter_bound_holds_at_once_for_all_that_has_changed() {
    let mut world = world();
    world.settings.save_changes_within = Some(Duration::from_secs(60));
    let (a, b) = (world.server("a").await, world.server("b").await);
    let (early, late) = (open(&a, "early").await, open(&a, "late").await);
    earn(&early, 1);
    tokio::time::sleep(Duration::from_secs(5)).await;
    a.change_settings(|settings| settings.save_changes_within = Some(Duration::from_secs(1)))
        .unwrap();
    earn(&late, 2);
    earn(&early, 2);
    tokio::time::sleep(Duration::from_secs(2)).await;
    a.crash();
    assert_eq!((coins(&b, "early").await, coins(&b, "late").await), (3, 2));
}

/// It was not tried again before the next change, so a crash cost the rest of the autosave period.
#[tokio::test(start_paused = true)]
async fn a_change_whose_save_failed_is_saved_soon_all_the_same() {
    let world = world();
    let detour = Detour::new(world.store.clone());
    let (a, b) = (world.server_on("a", detour.clone()).await, world.server("b").await);
    let profile = open(&a, "p").await;
    earn(&profile, 7);
    detour.refuse_next(StoreError::Corrupt { reason: "on command".into() });
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(coins(&b, "p").await, 0, "it was refused");
    tokio::time::sleep(Duration::from_secs(1)).await;
    a.crash();
    assert_eq!(coins(&b, "p").await, 7);
}

/// It was tried again once a second, for ever: five refusals made the server critical.
#[tokio::test(start_paused = true)]
async fn a_change_that_the_validator_refuses_waits_for_the_next_one() {
    let world = world();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let errors = count_errors(&a);
    let rich = |data: &Player| if data.coins < 0 { Err("in debt".to_owned()) } else { Ok(()) };
    let store =
        a.store_builder("PlayerData").template(Player::default()).validate(rich).build().unwrap();
    let profile = store.start_session("p").await.unwrap();
    earn(&profile, -1);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(errors.load(Ordering::SeqCst), 1);
    assert!(!a.is_critical_state());
    earn(&profile, 8);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    a.crash();
    assert_eq!(coins(&b, "p").await, 7);
}

/// It was tried again once a second, for each session that had changed.
#[tokio::test(start_paused = true)]
async fn a_change_whose_save_goes_on_failing_is_tried_after_longer_and_longer_pauses() {
    let world = world();
    let detour = Detour::new(world.store.clone());
    let (a, b) = (world.server_on("a", detour.clone()).await, world.server("b").await);
    let profile = open(&a, "p").await;
    let errors = count_errors(&a);
    let tenths = async |count: u32| {
        for _ in 0..count {
            detour.refuse_next(StoreError::Corrupt { reason: "on command".into() });
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    earn(&profile, 7);
    // After 1 s, and then 1, 2, 4, 8 and 16 s later each.
    tenths(350).await;
    assert_eq!(errors.load(Ordering::SeqCst), 6);
    // One more is refused, and the next is not.
    tokio::time::sleep(Duration::from_secs(45)).await;
    assert_eq!((errors.load(Ordering::SeqCst), coins(&b, "p").await), (7, 7));
    // After that it begins with a second again.
    earn(&profile, 1);
    tenths(15).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(coins(&b, "p").await, 8);
}
