//! The older API on the same engine.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use profilestore::{
    ErrorKind, GameServer, SessionInfo, WhenHeld,
    data_store::{DataStore as _, Returning, VersionRef},
    profile_service::{GlobalUpdate, NotReleased, Profile, Store, settings},
};
use serde_json::json;
use tokio::time::Instant;

use crate::world::{Player, World, players, settle};

fn store(server: &GameServer) -> Store<Player> {
    Store::new(players(server))
}

async fn load(server: &GameServer, key: &str) -> Profile<Player> {
    store(server).load_profile(key, NotReleased::ForceLoad).await.unwrap()
}

fn earn(profile: &Profile<Player>, coins: i64) {
    profile.update(|data| data.coins += coins).unwrap();
}

fn of(updates: &[GlobalUpdate]) -> Vec<(u64, i64)> {
    updates.iter().map(|update| (update.id, update.parse().unwrap())).collect()
}

async fn give(server: &GameServer, key: &str, coins: i64) {
    store(server)
        .global_update_profile(key, move |updates| assert!(updates.add(&coins)))
        .await
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_update_is_active_then_locked_then_cleared_with_its_effect() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    give(&b, "k", 50).await;
    let profile = load(&a, "k").await;
    let updates = profile.global_updates();
    assert_eq!((of(&updates.active()), of(&updates.locked())), (vec![(1, 50)], vec![]));
    let told = Arc::new(Mutex::new(Vec::new()));
    for (what, log) in [("active", told.clone()), ("locked", told.clone())] {
        let listener = move |update: &GlobalUpdate| log.lock().push((what, update.id));
        match what {
            "active" => updates.on_new_active(listener),
            _ => updates.on_new_locked(listener),
        };
    }
    updates.lock_active(1).unwrap();
    assert!(updates.active().is_empty() && updates.locked().is_empty(), "it is on the way");
    assert_eq!(updates.lock_active(1).unwrap_err().kind(), ErrorKind::NotFound);
    settle().await;
    assert_eq!(of(&updates.locked()), [(1, 50)]);
    assert_eq!(*told.lock(), [("locked", 1)]);
    // A locked one stands.
    let changed = store(&b).global_update_profile("k", |updates| {
        assert_eq!((updates.active().len(), updates.locked().len()), (0, 1));
        assert!(!updates.change(1, &9) && !updates.clear(1));
    });
    changed.await.unwrap();
    updates
        .clear_locked_with(1, |data, update| data.coins += update.parse::<i64>().unwrap())
        .unwrap();
    assert!(updates.locked().is_empty());
    assert_eq!(updates.clear_locked(1).unwrap_err().kind(), ErrorKind::NotFound);
    settle().await;
    // It is stored with its effect: a crash brings neither back.
    a.crash();
    let profile = store(&b).load_profile("k", NotReleased::Steal).await.unwrap();
    assert_eq!(profile.data().coins, 50);
    assert!(
        profile.global_updates().active().is_empty()
            && profile.global_updates().locked().is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn updates_that_come_to_a_live_profile_are_told_and_can_be_stacked_until_they_are_locked() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let profile = load(&a, "k").await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = told.clone();
    profile
        .global_updates()
        .on_new_active(move |update| log.lock().push((update.id, update.parse::<i64>().unwrap())));
    // Adds to what waits, and begins a new one otherwise.
    for _ in 0..3 {
        let stack =
            store(&b).global_update_profile("k", |updates| match updates.active().first() {
                Some(update) => {
                    assert!(updates.change(update.id, &(update.parse::<i64>().unwrap() + 10)))
                }
                None => assert!(updates.add(&10)),
            });
        stack.await.unwrap();
        settle().await;
    }
    assert_eq!(*told.lock(), [(1, 10), (1, 20), (1, 30)]);
    assert_eq!(profile.global_updates().active()[0].revision, 3);
    store(&b).global_update_profile("k", |updates| assert!(updates.clear(1))).await.unwrap();
    settle().await;
    assert!(profile.global_updates().active().is_empty());
    give(&a, "k", 5).await;
    settle().await;
    assert_eq!(
        told.lock().last(),
        Some(&(2, 5)),
        "no number is given out twice, and the holder's own server may send"
    );
}

#[tokio::test(start_paused = true)]
async fn the_usual_way_of_dealing_with_updates_gives_each_once() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    give(&b, "k", 1).await;
    let profile = load(&a, "k").await;
    let lock = profile.clone();
    profile
        .global_updates()
        .on_new_active(move |update| lock.global_updates().lock_active(update.id).unwrap());
    let deal = profile.clone();
    profile.global_updates().on_new_locked(move |update| {
        let add =
            |data: &mut Player, update: &GlobalUpdate| data.coins += update.parse::<i64>().unwrap();
        deal.global_updates().clear_locked_with(update.id, add).unwrap();
    });
    for update in profile.global_updates().active() {
        profile.global_updates().lock_active(update.id).unwrap();
    }
    let began = Instant::now();
    for coins in 2..=20 {
        give(&b, "k", coins).await;
    }
    settle().await;
    assert_eq!(profile.data().coins, 210);
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "a burst does not wait for an autosave: {:?}",
        began.elapsed()
    );
    profile.release().await.unwrap();
    let key = players(&a).key("k").unwrap();
    let state = world
        .store
        .read(std::slice::from_ref(&key), Returning::INBOX)
        .await
        .unwrap()
        .states
        .remove(0);
    assert!(state.inbox.unwrap().is_empty());
    assert_eq!(store(&b).view_profile("k", None).await.unwrap().unwrap().data.coins, 210);
}

#[tokio::test(start_paused = true)]
async fn an_update_that_its_holder_locks_meanwhile_is_not_cleared_by_others() {
    let world = World::new();
    let slow = world.another_way();
    let (a, b) = (world.server("a").await, world.server_on("b", slow.clone()).await);
    give(&a, "k", 7).await;
    let profile = load(&a, "k").await;
    slow.plan().delay_reads(100);
    let asked = Arc::new(AtomicU64::new(0));
    let count = asked.clone();
    let clear = store(&b).global_update_profile("k", move |updates| {
        count.fetch_add(1, Ordering::SeqCst);
        updates.clear(1);
    });
    let lock = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        profile.global_updates().lock_active(1).unwrap();
        profile.save().await.unwrap();
    };
    let (cleared, ()) = tokio::join!(clear, lock);
    cleared.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2, "it was asked again, and found it locked");
    assert_eq!(of(&profile.global_updates().locked()), [(1, 7)]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_done_after_the_release_says_so() {
    let world = World::new();
    let a = world.server("a").await;
    give(&a, "k", 7).await;
    let profile = load(&a, "k").await;
    profile.release().await.unwrap();
    let updates = profile.global_updates();
    for refused in [
        updates.lock_active(1),
        updates.clear_locked(1),
        profile.set_meta_tag("Tag", 1),
        profile.save().await,
        profile.update(|_| ()),
    ] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::SessionEnded);
    }
}

#[tokio::test(start_paused = true)]
async fn tags_are_latest_when_they_are_saved_and_listeners_hear_of_every_save() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let profile = load(&a, "k").await;
    let told = Arc::new(Mutex::new(Vec::new()));
    let log = told.clone();
    profile.on_meta_tags_updated(move |latest| log.lock().push(latest.get("Purchases").cloned()));
    profile.set_meta_tag("Purchases", ["p1"]).unwrap();
    assert_eq!(
        (profile.meta_tag("Purchases"), profile.meta_tags_latest().get("Purchases")),
        (Some(json!(["p1"])), None)
    );
    profile.save().await.unwrap();
    assert_eq!(profile.meta_tags_latest()["Purchases"], json!(["p1"]));
    profile.save().await.unwrap();
    profile.set_meta_tag("Purchases", ["p1", "p2"]).unwrap();
    profile.release().await.unwrap();
    assert_eq!(*told.lock(), [Some(json!(["p1"])), Some(json!(["p1"])), Some(json!(["p1", "p2"]))]);
    let view = store(&b).view_profile("k", None).await.unwrap().unwrap();
    assert_eq!(view.meta_tags()["Purchases"], json!(["p1", "p2"]));
}

#[tokio::test(start_paused = true)]
async fn a_function_decides_about_a_profile_that_is_held() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let ask = |answers: &'static [WhenHeld], log: Arc<Mutex<Vec<String>>>| {
        let asked = AtomicU64::new(0);
        NotReleased::Ask(Arc::new(move |holder: &SessionInfo| {
            log.lock().push(holder.job_id.clone());
            let at = usize::try_from(asked.fetch_add(1, Ordering::SeqCst)).unwrap();
            answers[at.min(answers.len() - 1)]
        }))
    };
    let log = || Arc::new(Mutex::new(Vec::new()));

    // A free profile needs no answer.
    let (unasked, held) = (log(), load(&a, "k").await);
    drop(store(&b).load_profile("free", ask(&[WhenHeld::GiveUp], unasked.clone())).await.unwrap());
    assert!(unasked.lock().is_empty());

    let asked = log();
    let error =
        store(&b).load_profile("k", ask(&[WhenHeld::GiveUp], asked.clone())).await.unwrap_err();
    assert_eq!((error.kind(), &asked.lock()[..]), (ErrorKind::Cancelled, &["a".to_owned()][..]));
    settle().await;
    assert!(held.is_active(), "its holder hears nothing of it");

    let asked = log();
    let repeats = store(&b).load_profile("k", ask(&[WhenHeld::Wait], asked.clone()));
    let released = async {
        tokio::time::sleep(Duration::from_secs(25)).await;
        assert!(held.is_active());
        held.release().await.unwrap();
    };
    let (profile, ()) = tokio::join!(repeats, released);
    assert!(asked.lock().len() >= 3, "{:?}", asked.lock());
    earn(&profile.unwrap(), 1);

    let asked = log();
    let began = Instant::now();
    let forced = store(&a).load_profile("k", ask(&[WhenHeld::Ask], asked.clone())).await.unwrap();
    assert_eq!((forced.data().coins, &asked.lock()[0][..]), (1, "b"));
    assert!(began.elapsed() < Duration::from_secs(1));
    earn(&forced, 10);

    let stolen = store(&b).load_profile("k", ask(&[WhenHeld::Steal], log())).await.unwrap();
    assert_eq!(stolen.data().coins, 1, "what was not saved is lost");
    settle().await;
    assert!(!forced.is_active() && stolen.is_active());
}

#[tokio::test(start_paused = true)]
async fn listeners_of_the_release_hear_who_has_the_profile() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let told = Arc::new(Mutex::new(Vec::new()));
    let listen = |profile: &Profile<Player>| {
        let log = told.clone();
        profile.listen_to_release(move |of| log.lock().push(of.map(|of| of.job_id.clone())))
    };
    let own = load(&a, "own").await;
    listen(&own);
    let ready = Arc::new(AtomicU64::new(0));
    let count = ready.clone();
    own.listen_to_hop_ready(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let released = own.release();
    assert_eq!((&told.lock()[..], ready.load(Ordering::SeqCst)), (&[Some("a".to_owned())][..], 0));
    released.await.unwrap();
    settle().await;
    assert_eq!(ready.load(Ordering::SeqCst), 1);
    let count = ready.clone();
    own.listen_to_hop_ready(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    settle().await;
    assert_eq!(ready.load(Ordering::SeqCst), 2, "also one that comes late");
    assert!(listen(&own).is_none());
    assert_eq!(told.lock().pop(), Some(None));

    listen(&load(&a, "asked").await);
    let _asked = load(&b, "asked").await;
    assert_eq!(told.lock().pop(), Some(None));
    let victim = load(&a, "stolen").await;
    listen(&victim);
    let count = ready.clone();
    victim.listen_to_hop_ready(move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let _stolen = store(&b).load_profile("stolen", NotReleased::Steal).await.unwrap();
    settle().await;
    assert_eq!(told.lock().pop(), Some(Some("b".to_owned())));
    assert_eq!(ready.load(Ordering::SeqCst), 2, "a lost profile is not ready");
}

#[tokio::test(start_paused = true)]
async fn a_view_shows_and_rolls_back_and_a_wiped_profile_is_none() {
    let mut world = World::new();
    world.settings = settings();
    world.settings.keep_every_save = true;
    let (a, b) = (world.server("a").await, world.server("b").await);
    assert!(store(&a).view_profile("k", None).await.unwrap().is_none());
    let profile = load(&a, "k").await;
    assert_eq!(profile.identify(), "[Store:\"PlayerData\";Scope:\"global\";Key:\"k\"]");
    earn(&profile, 100);
    tokio::time::sleep(Duration::from_secs(31)).await;
    let good = profile.key_info().version;
    assert_eq!(
        store(&b).view_profile("k", None).await.unwrap().unwrap().data.coins,
        100,
        "autosaved after 30 s"
    );
    earn(&profile, -100);
    profile.save().await.unwrap();
    give(&b, "k", 5).await;

    let mut view =
        store(&b).view_profile("k", Some(VersionRef::Label(good))).await.unwrap().unwrap();
    assert_eq!(
        (view.data.coins, view.active_updates().len(), view.locked_updates().len()),
        (100, 1, 0)
    );
    assert_eq!(view.identify(), profile.identify());
    view.data.coins += 1;
    view.clear_global_updates();
    view.overwrite().await.unwrap();
    settle().await;
    assert!(!profile.is_active());
    let view = store(&a).view_profile("k", None).await.unwrap().unwrap();
    assert_eq!((view.data.coins, view.active_updates().len()), (101, 0));
    assert!(store(&a).view_profile("k", Some(VersionRef::Number(99))).await.unwrap().is_none());
    let mut versions = store(&a).profile_versions("k").unwrap();
    assert_eq!(versions.next_profile().await.unwrap().unwrap().data.coins, 0);

    assert!(store(&a).wipe_profile("k").await.unwrap());
    assert!(store(&a).view_profile("k", None).await.unwrap().is_none());
    // The mock is a store of its own.
    let mock = store(&a).mock();
    earn(&mock.load_profile("k", NotReleased::ForceLoad).await.unwrap(), 1);
    assert!(store(&a).view_profile("k", None).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_profile_is_the_same_in_both_apis() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    players(&b).send_message("k", &3).await.unwrap();
    let old = load(&a, "k").await;
    assert_eq!(of(&old.global_updates().active()), [(1, 3)]);
    old.global_updates().lock_active(1).unwrap();
    old.release().await.unwrap();
    let new = players(&b).start_session("k").await.unwrap();
    let dealt = Arc::new(AtomicU64::new(0));
    let count = dealt.clone();
    new.message_handler(move |data, message| {
        data.coins += message.parse::<i64>().unwrap();
        count.fetch_add(1, Ordering::SeqCst);
        message.processed();
    });
    assert_eq!((dealt.load(Ordering::SeqCst), new.data().coins), (1, 3), "also a locked one");
    new.end_session().await.unwrap();
    assert!(load(&a, "k").await.global_updates().locked().is_empty());
}

#[tokio::test(start_paused = true)]
async fn listeners_that_hold_their_profile_are_no_leak() {
    let world = World::new();
    let a = world.server("a").await;
    let alive = Arc::new(());
    for lost in [false, true] {
        let profile = load(&a, "k").await;
        let (held, token) = (profile.clone(), alive.clone());
        profile.global_updates().on_new_active(move |_| {
            let _ = (&held, &token);
        });
        match lost {
            false => profile.release().await.unwrap(),
            true => assert!(players(&a).remove("k").await.unwrap()),
        }
        drop(profile);
        settle().await;
        assert_eq!(Arc::strong_count(&alive), 1);
    }
}
