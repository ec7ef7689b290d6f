//! What must come in time, or not too early: answers of calls, the rows of dead servers, a
//! confirmation after a pause.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use profilestore::{
    AccessState, Attribution, ErrorKind, GameServer, Settings,
    data_store::{DataStore as _, fault::LineState},
    hosting::{Host, HostParts, Registration, Resume},
    messenger::NoMessenger,
};
use tokio::time::Instant;

use crate::world::{Fault, World, earn, open, players, settle};

const SECOND: Duration = Duration::from_secs(1);

fn world() -> World {
    let mut world = World::new();
    world.settings.call_timeout = 10 * SECOND;
    world
}

#[tokio::test(start_paused = true)]
async fn a_call_makes_its_last_attempt_shortly_before_its_time_is_over() {
    for seconds in [10, 30] {
        let time = seconds * SECOND;
        let mut world = World::new();
        world.settings.call_timeout = time;
        let server = world.server("a").await;
        world.store.plan().fail(Fault::Refused, u64::MAX);
        let began = Instant::now();
        let refused = players(&server).send_message("p", &1).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        assert!((time - SECOND..=time).contains(&began.elapsed()), "{:?}", began.elapsed());
        // The pauses between attempts would have led past the end: 7 s of 10, 15 s of 30.
        let sending = tokio::spawn(players(&server).send_message("p", &1));
        tokio::time::sleep(time - 2 * SECOND).await;
        world.store.plan().heal();
        sending.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_turn_counts_towards_a_calls_time() {
    let world = world();
    let server = world.server("a").await;
    let profile = open(&server, "p").await;
    earn(&profile, 1);
    // The save goes through at 7 s, with the fourth attempt, and nothing does after it.
    world.store.plan().fail(Fault::Refused, 3);
    let store = world.store.clone();
    profile.on_after_save(move |_| store.plan().cut_off());
    let saving = tokio::spawn(profile.save());
    settle().await;
    let began = Instant::now();
    let sending = tokio::spawn(players(&server).send_message("p", &1));
    let reading = tokio::spawn(players(&server).get("p"));
    saving.await.unwrap().unwrap();
    assert_eq!(sending.await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(reading.await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    assert!((9 * SECOND..=10 * SECOND).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_does_not_hold_a_call_beyond_its_time() {
    let world = world();
    let server = world.server("a").await;
    world.store.line().set(LineState::Held);
    let began = Instant::now();
    let store = players(&server);
    let (sent, read, removed) =
        tokio::join!(store.send_message("p", &1), store.get("q"), store.remove("r"));
    assert_eq!(began.elapsed(), 10 * SECOND);
    assert_eq!(
        sent.unwrap_err().kind(),
        ErrorKind::Unknown,
        "it lies with the store and may yet arrive"
    );
    assert_eq!(read.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(removed.unwrap_err().kind(), ErrorKind::Unknown);
    world.store.line().set(LineState::Open);
    settle().await;
    assert_eq!(store.get("p").await.unwrap().unwrap().waiting_messages().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_stolen_session_is_not_active_again_for_a_moment_after_a_pause() {
    // Only a renewal tells of the thief.
    let world = World::without_messenger();
    let own_way = world.another_way();
    let (a, b) = (world.server_on("a", own_way.clone()).await, world.server("b").await);
    let (stolen, kept) = (open(&a, "p").await, open(&a, "q").await);
    own_way.plan().cut_off();
    tokio::time::sleep(5 * SECOND).await;
    let steal = profilestore::StartOptions::new().steal();
    let thief = players(&b).start_session_with("p", steal).await.unwrap();
    tokio::time::sleep(30 * SECOND).await;
    assert!(!stolen.is_active() && !stolen.is_over() && !kept.is_active());
    // Renewals get through, and looks do not yet.
    own_way.plan().fail(Fault::Refused, 4);
    let back = Instant::now();
    while !stolen.is_over() {
        assert!(!stolen.is_active(), "{:?} after the pause", back.elapsed());
        assert!(back.elapsed() < 60 * SECOND);
        tokio::time::sleep(SECOND / 100).await;
    }
    assert!(kept.is_active() && thief.is_active());
}

#[tokio::test(start_paused = true)]
async fn a_notice_does_not_make_a_session_inactive_while_the_lease_was_confirmed_before_it() {
    let world = World::without_messenger();
    let own_way = world.another_way();
    let (a, b) = (world.server_on("a", own_way.clone()).await, world.server("b").await);
    let profile = open(&a, "p").await;
    for round in 0..5 {
        players(&b).send_message("p", &round).await.unwrap();
        own_way.plan().fail(Fault::Refused, 2);
        let until = Instant::now() + 8 * SECOND;
        while Instant::now() < until {
            assert!(profile.is_active());
            tokio::time::sleep(SECOND / 20).await;
        }
    }
    assert_eq!(profile.waiting_messages().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_dead_servers_row_goes_though_nobody_wants_its_profiles() {
    const HOUR: Duration = Duration::from_secs(60 * 60);
    let mut world = World::new();
    (world.settings.lease_time, world.settings.renew_period) = (600 * SECOND, 120 * SECOND);
    world.settings.sweep_period = Some(HOUR);
    let (a, b) = (world.server("a").await, world.server("b").await);
    drop(open(&a, "p").await);
    // A notice that it will never read.
    a.crash();
    players(&b).send_message("p", &1).await.unwrap();
    let rows = async || {
        let (_, rows) = world.store.servers().await.unwrap();
        rows.into_iter().map(|row| (row.job_id, row.dead)).collect::<Vec<_>>()
    };
    tokio::time::sleep(HOUR / 10).await;
    assert_eq!(
        rows().await.iter().filter(|(_, dead)| *dead).count(),
        0,
        "not before its lease time is over"
    );
    // The first sweep comes too early, the second one an hour after it.
    tokio::time::sleep(2 * HOUR).await;
    let mut found = rows().await;
    found.sort();
    assert_eq!(found, [("a".to_owned(), true), ("b".to_owned(), false)]);
    tokio::time::sleep(8 * 24 * HOUR).await;
    assert_eq!(rows().await, [("b".to_owned(), false)]);
    assert!(open(&b, "p").await.is_active());
}

#[tokio::test(start_paused = true)]
async fn a_sweep_takes_no_server_for_dead_while_contact_was_broken() {
    let mut world = World::new();
    world.settings.sweep_period = Some(60 * SECOND);
    let own_way = world.another_way();
    let (a, b) = (world.server("a").await, world.server_on("b", own_way.clone()).await);
    let profile = open(&a, "p").await;
    // Nobody reaches the store for longer than the lease time; then the sweeping server does first.
    world.store.plan().cut_off();
    own_way.plan().cut_off();
    tokio::time::sleep(Duration::from_millis(118_500)).await;
    own_way.plan().heal();
    tokio::time::sleep(3 * SECOND).await;
    world.store.plan().heal();
    tokio::time::sleep(30 * SECOND).await;
    assert!(profile.is_active());
    let (_, rows) = world.store.servers().await.unwrap();
    assert!(rows.iter().all(|row| !row.dead), "{rows:?}");
    drop(b);
}

#[tokio::test(start_paused = true)]
async fn a_sweep_period_set_later_counts() {
    const HOUR: Duration = Duration::from_secs(60 * 60);
    let mut world = World::new();
    world.settings.sweep_period = None;
    let (a, b) = (world.server("a").await, world.server("b").await);
    drop(open(&a, "p").await);
    a.crash();
    tokio::time::sleep(2 * HOUR).await;
    let dead = async || {
        let (_, rows) = world.store.servers().await.unwrap();
        rows.iter().filter(|row| row.dead).count()
    };
    assert_eq!(dead().await, 0);
    b.change_settings(|settings| settings.sweep_period = Some(HOUR)).unwrap();
    tokio::time::sleep(2 * HOUR).await;
    assert_eq!(dead().await, 1);
}

/// It swept for ever without a pause.
#[tokio::test(start_paused = true)]
async fn a_sweep_period_of_zero_is_refused() {
    let world = World::new();
    let server = world.server("a").await;
    let refused = server.change_settings(|settings| settings.sweep_period = Some(Duration::ZERO));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    let (store, settings) = (world.store.clone(), server.settings());
    assert!(settings.sweep_period.is_some_and(|period| period > SECOND));
    let settings = Settings { sweep_period: Some(Duration::ZERO), ..settings };
    let refused = GameServer::builder(store).env(world.env.clone()).settings(settings).start();
    assert_eq!(refused.await.unwrap_err().kind(), ErrorKind::Invalid);
}

/// Every call failed, as if the store had not answered.
#[tokio::test(start_paused = true)]
async fn a_time_of_zero_for_calls_is_refused() {
    let server = world().server("a").await;
    let refused = server.change_settings(|settings| settings.call_timeout = Duration::ZERO);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(server.settings().call_timeout, 10 * SECOND);
}

/// Of two calls on one profile at once, the second one always failed.
#[tokio::test(start_paused = true)]
async fn a_queue_that_takes_no_call_is_refused() {
    let world = world();
    let server = world.server("a").await;
    let refused = server.change_settings(|settings| settings.max_key_queue = 0);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(server.settings().max_key_queue, Settings::default().max_key_queue);
    let settings = Settings { max_key_queue: 0, ..server.settings() };
    let refused = GameServer::builder(world.store.clone()).settings(settings).start();
    assert_eq!(refused.await.unwrap_err().kind(), ErrorKind::Invalid);
}

/// They stayed in the profile's queue, with all that they held, and later calls found it full.
#[tokio::test(start_paused = true)]
async fn calls_that_gave_up_behind_a_save_fill_no_queue() {
    let mut world = world();
    world.settings.max_key_queue = 2;
    let server = world.server("a").await;
    let profile = open(&server, "p").await;
    earn(&profile, 1);
    world.store.plan().cut_off();
    let saving = tokio::spawn(profile.save());
    settle().await;
    for _ in 0..5 {
        let error = players(&server).send_message("p", &1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    let (one, two) = (profile.save(), profile.save());
    world.store.plan().heal();
    saving.await.unwrap().unwrap();
    one.await.unwrap();
    two.await.unwrap();
    let read = players(&server).get("p").await.unwrap().unwrap();
    assert_eq!((read.data.coins, read.waiting_messages().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_is_told_in_a_calls_time() {
    let world = world();
    let server = world.server("a").await;
    assert_eq!(server.access_state().await, AccessState::Access);
    world.store.line().set(LineState::Held);
    let began = Instant::now();
    assert_eq!(server.access_state().await, AccessState::NoInternet);
    assert_eq!(began.elapsed(), 10 * SECOND);
}

/// It waited for ever.
#[tokio::test(start_paused = true)]
async fn a_game_server_does_not_wait_for_ever_for_a_store_that_does_not_answer() {
    let world = world();
    world.store.line().set(LineState::Held);
    let builder = GameServer::builder(world.store.clone()).env(world.env.clone());
    let (starting, began) = (builder.settings(world.settings.clone()).start(), Instant::now());
    let started = tokio::time::timeout(60 * SECOND, starting).await.expect("it answers");
    assert_eq!(started.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(began.elapsed(), 10 * SECOND);
}

/// It read the audit log without a limit of time.
#[tokio::test(start_paused = true)]
async fn an_erasure_answers_in_time_when_the_audit_log_is_not_read() {
    let world = world();
    let server = world.server("a").await;
    let profile = open(&server, "p").await;
    profile.add_user_id(7).unwrap();
    profile.end_session().await.unwrap();
    let plan = world.store.plan();
    plan.slow(SECOND / 10);
    let before = plan.commits();
    let erasing = tokio::spawn(server.operator(Attribution::new("ann")).erase_user(7, false));
    while plan.commits() == before {
        tokio::time::sleep(SECOND / 100).await;
    }
    // The profile is being erased. What is read then is the log.
    plan.delay_reads(3_600_000);
    let erased = tokio::time::timeout(60 * SECOND, erasing).await.expect("it answers");
    assert_eq!(erased.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
}

/// It waited for that one answer for as long as it took, and no session was active meanwhile.
#[tokio::test(start_paused = true)]
async fn a_registration_after_a_death_that_is_not_answered_is_made_again() {
    let world = world();
    let own_way = world.another_way();
    let (a, b) = (world.server_on("a", own_way.clone()).await, world.server("b").await);
    let (taken, kept) = (open(&a, "p").await, open(&a, "q").await);
    own_way.plan().cut_off();
    // Behind the lease time of the first server, which is dead from then on.
    let over = open(&b, "p").await;
    own_way.plan().delay_reads(3_600_000);
    own_way.plan().heal();
    // It begins to register anew.
    tokio::time::sleep(5 * SECOND).await;
    own_way.plan().delay_reads(0);
    assert!(!kept.is_active());
    tokio::time::sleep(40 * SECOND).await;
    assert!(kept.is_active() && over.is_active() && taken.is_over());
}

/// It waited for ever.
#[tokio::test(start_paused = true)]
async fn a_host_does_not_wait_for_ever_for_a_store_that_does_not_answer() {
    let world = world();
    let host = || {
        Host::new(HostParts {
            store: Arc::new(world.store.clone()),
            messenger: Arc::new(NoMessenger),
            settings: world.settings.clone(),
            env: world.env.clone(),
        })
        .unwrap()
    };
    let again = Registration { job: "a".into(), place: 7, owner: "me".into(), lease_time: None };
    let server = host().register(again.clone()).await.unwrap();
    world.store.line().set(LineState::Held);
    let (other, began) = (host(), Instant::now());
    let resume = Resume {
        incarnation: server.incarnation(),
        store: server.store(),
        owner: "me".into(),
        again: again.clone(),
    };
    let both = async { tokio::join!(other.register(again), other.resume(resume)) };
    let (registered, resumed) = tokio::time::timeout(60 * SECOND, both).await.expect("they answer");
    assert_eq!(registered.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(resumed.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(began.elapsed(), 10 * SECOND);
}

/// It had what was left of the call that failed.
#[tokio::test(start_paused = true)]
async fn a_call_from_a_listener_of_errors_has_a_time_of_its_own() {
    let world = world();
    let server = world.server("a").await;
    let (store, began) = (players(&server), Instant::now());
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let asked = AtomicBool::new(false);
    server.on_error(move |_, _| {
        // At the last attempt of the message below.
        if began.elapsed() > 9 * SECOND && !asked.swap(true, Ordering::SeqCst) {
            let (call, tell, began) = (store.get("q"), tell.clone(), Instant::now());
            tokio::spawn(async move {
                let failed = call.await.is_err();
                let _ = tell.send((failed, began.elapsed()));
            });
        }
    });
    world.store.plan().fail(Fault::Refused, u64::MAX);
    assert!(players(&server).send_message("p", &1).await.is_err());
    let (failed, took) = told.recv().await.unwrap();
    assert!(failed && took >= 9 * SECOND, "{took:?}");
}

/// It had what was left of the call that asks for the change.
#[tokio::test(start_paused = true)]
async fn a_call_from_a_change_of_the_inbox_has_a_time_of_its_own() {
    let world = world();
    let server = world.server("a").await;
    let (store, asks, way) = (players(&server), players(&server), world.store.clone());
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    // The change is asked for a second before its call ends.
    world.store.plan().delay_reads(9_000);
    let changed = store.change_inbox("p", move |_, _| {
        way.plan().cut_off();
        let (call, tell, began) = (asks.get("q"), tell.clone(), Instant::now());
        tokio::spawn(async move {
            let failed = call.await.is_err();
            let _ = tell.send((failed, began.elapsed()));
        });
        None
    });
    assert!(!changed.await.unwrap());
    let (failed, took) = told.recv().await.unwrap();
    assert!(failed && took >= 9 * SECOND, "{took:?}");
}

/// Only calls of the program counted, so a server that nobody called took a store that hangs for a
/// good one; and where only operators called it, their patience ended first.
#[tokio::test(start_paused = true)]
async fn a_store_that_answers_no_renewal_makes_the_state_critical() {
    let world = World::new();
    let server = world.server("a").await;
    let errors = Arc::new(Mutex::new(Vec::new()));
    let seen = errors.clone();
    server.on_error(move |message, _| seen.lock().push(message.to_owned()));
    world.store.line().set(LineState::Held);
    // A renewal is given up after half the lease time, 10 s, and tried again a second later.
    tokio::time::sleep(50 * SECOND).await;
    assert!(!server.is_critical_state());
    tokio::time::sleep(15 * SECOND).await;
    assert!(server.is_critical_state());
    assert_eq!(errors.lock().len(), 5);
    assert!(errors.lock().iter().all(|message| message.contains("renewal")), "{errors:?}");
    world.store.line().set(LineState::Open);
    tokio::time::sleep(300 * SECOND).await;
    assert!(!server.is_critical_state());
}
