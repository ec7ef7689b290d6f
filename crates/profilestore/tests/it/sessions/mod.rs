//! Sessions as a program meets them: one server, then several.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use profilestore::{Advice, ErrorKind, LastSave, SessionEnd, StartOptions};
use serde_json::json;

use crate::world::{Fault, Player, World, coins, earn, open, players, settle};

mod profiles;

#[tokio::test(start_paused = true)]
async fn a_new_profile_begins_with_the_template_and_comes_back_as_it_was_left() {
    let world = World::new();
    let server = world.server("a").await;
    let store = server
        .store_builder("PlayerData")
        .template(Player { coins: 100, items: vec![] })
        .build()
        .unwrap();
    let profile = store.start_session("p").await.unwrap();
    assert_eq!(profile.data(), Player { coins: 100, items: vec![] });
    assert!(profile.is_active());
    assert_eq!(profile.session_load_count(), 1);
    assert_eq!(profile.key_info().number, 1, "a new key's start writes version 1");
    assert_eq!(profile.session().job_id, "a");
    profile.update(|data| data.items.push("hat".into())).unwrap();
    profile.end_session().await.unwrap();
    assert!(!profile.is_active());
    assert_eq!(profile.update(|_| ()).unwrap_err().kind(), ErrorKind::SessionEnded);

    let again = store.start_session("p").await.unwrap();
    assert_eq!(again.data(), Player { coins: 100, items: vec!["hat".into()] });
    assert_eq!(again.session_load_count(), 2);
    assert_eq!(again.first_session_time(), profile.first_session_time());
    assert!(server.shutdown().await.is_complete());
}

#[tokio::test(start_paused = true)]
async fn a_profile_that_is_loaded_on_this_server_is_an_error() {
    let world = World::new();
    let server = world.server("a").await;
    let profile = open(&server, "p").await;
    let error = players(&server).start_session("p").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyLoaded);
    assert!(error.to_string().contains("PlayerData/p"), "{error}");
    // Started again right after its end, without waiting for it.
    earn(&profile, 5);
    let end = profile.end_session();
    let again = players(&server).start_session("p").await.unwrap();
    assert_eq!(again.data().coins, 5);
    end.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn of_concurrent_starts_only_the_last_gets_the_profile() {
    let world = World::new();
    let server = world.server("a").await;
    let other_object = players(&server);
    let store = players(&server);
    let (first, second, third) = tokio::join!(
        store.start_session("p"),
        other_object.start_session("p"),
        players(&server).start_session("p")
    );
    assert_eq!(first.unwrap_err().kind(), ErrorKind::Superseded);
    assert_eq!(second.unwrap_err().kind(), ErrorKind::Superseded);
    assert!(third.unwrap().is_active());
}

#[tokio::test(start_paused = true)]
async fn during_a_conflict_a_second_start_takes_the_firsts_place() {
    let world = World::without_messenger();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let held = open(&a, "p").await;
    let store = players(&b);
    let first = tokio::spawn(store.start_session("p"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = players(&b).start_session("p").await.unwrap();
    assert_eq!(first.await.unwrap().unwrap_err().kind(), ErrorKind::Superseded);
    assert!(second.is_active() && !held.is_active());
}

#[tokio::test(start_paused = true)]
async fn a_live_server_hands_over_what_it_has_not_saved_yet() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let on_a = open(&a, "p").await;
    earn(&on_a, 7);
    let log = Arc::new(Mutex::new(Vec::new()));
    let (l1, l2, l3, l4) = (log.clone(), log.clone(), log.clone(), log.clone());
    on_a.on_save(move |data| {
        data.coins += 10;
        l1.lock().push("save".to_owned());
    });
    on_a.on_last_save(move |reason, data| {
        assert_eq!(reason, LastSave::External);
        data.coins += 100;
        l2.lock().push("last save".to_owned());
    });
    on_a.on_session_end(move |end| l3.lock().push(format!("end {end:?}")));
    on_a.on_after_save(move |data| l4.lock().push(format!("after save {}", data.coins)));

    let before = world.store.plan().commits();
    let on_b = open(&b, "p").await;
    assert_eq!(on_b.data().coins, 117);
    // The request, the release with the offer, and the taking; the look at the hint is a read.
    assert!(world.store.plan().commits() - before <= 4);
    assert!(!on_a.is_active() && on_b.is_active());
    settle().await;
    assert_eq!(*log.lock(), ["save", "last save", "end External", "after save 117"]);
    assert_eq!(on_a.save().await.unwrap_err().advice(), Advice::Leave);
    assert_eq!(on_b.session_load_count(), 2);
}

#[tokio::test(start_paused = true)]
async fn without_a_messenger_a_hand_over_takes_a_renewal_at_most() {
    let world = World::without_messenger();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let on_a = open(&a, "p").await;
    earn(&on_a, 7);
    let began = tokio::time::Instant::now();
    let on_b = open(&b, "p").await;
    assert_eq!(on_b.data().coins, 7);
    assert!(began.elapsed() <= Duration::from_secs(10), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_dead_servers_profiles_are_taken_over_after_the_lease_time() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let on_a = open(&a, "p").await;
    earn(&on_a, 7);
    on_a.save().await.unwrap();
    earn(&on_a, 1000);
    tokio::time::sleep(Duration::from_secs(30)).await;
    a.crash();
    let began = tokio::time::Instant::now();
    let on_b = open(&b, "p").await;
    assert_eq!(on_b.data().coins, 7, "what was acknowledged is there");
    assert!(began.elapsed() <= Duration::from_secs(21), "{:?}", began.elapsed());
    // The dead one finds out as soon as it tries.
    assert_eq!(on_a.save().await.unwrap_err().kind(), ErrorKind::SessionEnded);
    assert!(on_a.is_over());
    // The next one is free at once: the row is marked.
    let began = tokio::time::Instant::now();
    let q = open(&b, "q").await;
    assert!(began.elapsed() < Duration::from_secs(1));
    drop(q);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_asks_shortly_before_the_lease_ends_gets_the_profile_when_it_does() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let on_a = open(&a, "p").await;
    // Renewed three seconds before.
    tokio::time::sleep(Duration::from_secs(33)).await;
    a.crash();
    tokio::time::sleep(Duration::from_secs(16)).await;
    let began = tokio::time::Instant::now();
    open(&b, "p").await;
    assert!(began.elapsed() <= Duration::from_secs(2), "{:?}", began.elapsed());
    drop(on_a);
}

#[tokio::test(start_paused = true)]
async fn ending_again_tells_how_the_end_went() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let on_a = open(&a, "p").await;
    earn(&on_a, 7);
    let (first, second) = (on_a.end_session(), on_a.end_session());
    second.await.unwrap();
    assert_eq!(coins(&b, "p").await, 7);
    first.await.unwrap();
    on_a.end_session().await.unwrap();
    // Handed over: the end is what the other server waited for.
    let on_a = open(&a, "p").await;
    earn(&on_a, 7);
    let on_b = open(&b, "p").await;
    on_a.end_session().await.unwrap();
    assert_eq!(on_b.data().coins, 14);
    // Lost: what was not saved is not there.
    earn(&on_b, 1000);
    let _thief = players(&a).start_session_with("p", StartOptions::new().steal()).await.unwrap();
    settle().await;
    assert_eq!(on_b.end_session().await.unwrap_err().kind(), ErrorKind::SessionEnded);
}

#[tokio::test(start_paused = true)]
async fn steal_takes_at_once_and_the_victim_is_told() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let on_a = open(&a, "p").await;
    earn(&on_a, 7);
    let ended = Arc::new(Mutex::new(None));
    let seen = ended.clone();
    on_a.on_session_end(move |end| *seen.lock() = Some(end));
    let on_b = players(&b).start_session_with("p", StartOptions::new().steal()).await.unwrap();
    assert_eq!(on_b.data().coins, 0);
    settle().await;
    assert_eq!(*ended.lock(), Some(SessionEnd::Lost));
    assert!(!on_a.is_active());
}

#[tokio::test(start_paused = true)]
async fn a_server_cut_off_from_the_store_demotes_itself_and_comes_back() {
    let world = World::new();
    let own_way = world.another_way();
    let a = world.server_on("a", own_way.clone()).await;
    let b = world.server("b").await;
    let on_a = open(&a, "p").await;
    let stays = open(&a, "stays").await;
    earn(&on_a, 7);
    own_way.plan().cut_off();
    tokio::time::sleep(Duration::from_secs(16)).await;
    assert!(on_a.is_active(), "nobody can have taken it yet");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!on_a.is_active(), "another server may have taken it by now");
    assert!(on_a.update(|data| data.coins += 1).is_ok(), "play goes on");
    earn(&stays, 3);
    let on_b = open(&b, "p").await;
    assert_eq!(on_b.data().coins, 0);
    own_way.plan().heal();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(on_a.is_over(), "it was taken");
    assert!(stays.is_active(), "nobody took this one: it is adopted");
    stays.save().await.unwrap();
    assert_eq!(coins(&b, "stays").await, 3);
    assert!(on_b.is_active());
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_store_alone_ends_no_session() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let on_a = open(&a, "p").await;
    earn(&on_a, 7);
    let errors = Arc::new(Mutex::new(Vec::new()));
    let critical = Arc::new(Mutex::new(Vec::new()));
    let (seen, toggles) = (errors.clone(), critical.clone());
    a.on_error(move |message, key| seen.lock().push((message.to_owned(), key.cloned())));
    a.on_critical_toggle(move |on| toggles.lock().push(on));
    world.store.plan().cut_off();
    let save = tokio::spawn(on_a.save());
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(!on_a.is_active() && !on_a.is_over());
    assert!(a.is_critical_state());
    assert!(
        errors
            .lock()
            .iter()
            .any(|(message, key)| message.contains("unavailable")
                && key.as_ref() == Some(on_a.key()))
    );
    world.store.plan().heal();
    let taken = open(&b, "q").await;
    save.await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(on_a.is_active() && taken.is_active());
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(*critical.lock(), [true, false]);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_is_resolved_by_the_same_commit_again() {
    for fault in [Fault::AnswerLost, Fault::RequestLost] {
        let world = World::new();
        let (a, b) = (world.server("a").await, world.server("b").await);
        world.store.plan().fail(fault, 1);
        let on_a = open(&a, "p").await;
        assert_eq!(on_a.session_load_count(), 1, "{fault:?}");
        earn(&on_a, 7);
        world.store.plan().fail(fault, 2);
        on_a.save().await.unwrap();
        assert_eq!(coins(&b, "p").await, 7);
        assert_eq!(on_a.key_info().number, 2, "written once: {fault:?}");
        earn(&on_a, 1);
        world.store.plan().fail(fault, 1);
        on_a.end_session().await.unwrap();
        assert_eq!(coins(&b, "p").await, 8);
        assert_eq!(open(&b, "p").await.session_load_count(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_server_does_to_one_key_takes_effect_in_call_order() {
    let world = World::new();
    let server = world.server("a").await;
    let store = players(&server);
    let profile = open(&server, "p").await;
    earn(&profile, 5);
    // Nothing of this is awaited before the read is called.
    let _save = profile.save();
    earn(&profile, 6);
    let _end = profile.end_session();
    let read = store.get("p");
    let again = store.start_session("p");
    assert_eq!(read.await.unwrap().unwrap().data.coins, 11);
    assert_eq!(again.await.unwrap().data().coins, 11);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_start_leaves_no_lock() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    // Dropped before it was ever waited for.
    drop(players(&a).start_session("p"));
    settle().await;
    let began = tokio::time::Instant::now();
    let on_b = open(&b, "p").await;
    assert!(began.elapsed() < Duration::from_secs(1));
    // Dropped while it waits for a holder that does not answer.
    world.store.plan().fail(Fault::Refused, 0);
    world.store.plan().heal();
    b.crash();
    let waiting =
        tokio::time::timeout(Duration::from_secs(3), players(&a).start_session("p")).await;
    assert!(waiting.is_err());
    settle().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let state = world.another_way();
    use profilestore::data_store::{DataStoreExt, Returning};
    let (_, state) = state.read_one(on_b.key(), Returning::HEAD).await.unwrap();
    assert_eq!(state.lease.request, None, "the request was withdrawn");
    assert_eq!(a.session_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_start_says_so_and_has_no_time_limit() {
    let world = World::new();
    let a = world.server("a").await;
    let wanted = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let still = wanted.clone();
    world.store.plan().cut_off();
    let options = StartOptions::new().cancel(move || !still.load(Ordering::SeqCst));
    let start = tokio::spawn(players(&a).start_session_with("p", options));
    let limited = tokio::spawn(players(&a).start_session("q"));
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert!(!start.is_finished());
    assert_eq!(limited.await.unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
    wanted.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(start.await.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn every_profile_is_saved_once_a_period_and_an_idle_one_writes_nothing() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let profile = open(&a, "p").await;
    let saves = Arc::new(Mutex::new(0));
    let counted = saves.clone();
    profile.on_after_save(move |_| *counted.lock() += 1);
    earn(&profile, 5);
    tokio::time::sleep(Duration::from_secs(301)).await;
    assert_eq!(coins(&b, "p").await, 5);
    let version = profile.key_info().number;
    tokio::time::sleep(Duration::from_secs(3000)).await;
    assert_eq!(profile.key_info().number, version, "nothing changed, nothing written");
    assert!((10..=12).contains(&*saves.lock()), "every tick fires its signals: {}", saves.lock());
}

#[tokio::test(start_paused = true)]
async fn shutdown_saves_and_releases_everything_or_says_what_it_could_not() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let mut profiles = Vec::new();
    for i in 0..50 {
        let profile = open(&a, &format!("p{i}")).await;
        earn(&profile, i);
        profile.on_last_save(|reason, data| {
            assert_eq!(reason, LastSave::Shutdown);
            data.coins += 1000;
        });
        profiles.push(profile);
    }
    let report = a.shutdown().await;
    assert!(report.is_complete(), "{report:?}");
    for i in 0..50 {
        assert_eq!(open(&b, &format!("p{i}")).await.data().coins, i + 1000);
    }
    assert_eq!(players(&a).start_session("x").await.unwrap_err().kind(), ErrorKind::Closing);
    assert_eq!(profiles[0].update(|_| ()).unwrap_err().kind(), ErrorKind::SessionEnded);

    let lost = open(&b, "lost").await;
    earn(&lost, 1);
    world.store.plan().cut_off();
    let report = b.shutdown().await;
    assert_eq!(report.not_saved.len(), 51);
    assert!(report.not_saved.iter().any(|(key, _)| key == lost.key()));
}

#[tokio::test(start_paused = true)]
async fn a_session_may_have_its_own_period_of_autosaves() {
    let world = World::new();
    let a = world.server("a").await;
    let own = StartOptions::new().autosave_period(Duration::from_secs(30));
    let profile = players(&a).start_session_with("p", own).await.unwrap();
    let saves = Arc::new(Mutex::new(0));
    profile.on_save({
        let saves = saves.clone();
        move |_| *saves.lock() += 1
    });
    tokio::time::sleep(Duration::from_secs(315)).await;
    assert_eq!(*saves.lock(), 10);
    a.change_settings(|settings| settings.autosave_period = Duration::from_secs(10)).unwrap();
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(*saves.lock(), 20, "the server's period is not its own");
}

/// The moment of its next autosave was looked for for ever, under the lock of the schedule.
#[tokio::test(start_paused = true)]
async fn a_session_with_a_period_of_zero_does_not_stop_its_server() {
    let world = World::new();
    let a = world.server("a").await;
    let mut none = StartOptions::new();
    none.autosave_period = Some(Duration::ZERO);
    let profile = players(&a).start_session_with("p", none).await.unwrap();
    earn(&profile, 1);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(coins(&a, "p").await, 1, "it is saved once in 100 ms");
    assert!(open(&a, "q").await.is_active());
}
