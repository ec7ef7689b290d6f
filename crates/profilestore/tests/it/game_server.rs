//! What a game server tells about itself: the store's time, and the signal to stop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use profilestore::{
    GameServer,
    data_store::MemoryStore,
    env::{Clock, Env},
};

use crate::world::{Counting, World, earn, env, on_command, open, players};

/// A clock that is put forward or back by hand.
struct Stepped {
    env: Env,
    by_ms: Arc<AtomicI64>,
}

impl Clock for Stepped {
    fn unix_ms(&self) -> i64 {
        self.env.unix_ms() + self.by_ms.load(Ordering::SeqCst)
    }
}

fn stepped(by_ms: &Arc<AtomicI64>) -> Env {
    let clock = Stepped { env: env(), by_ms: by_ms.clone() };
    Env::new(Arc::new(clock), Arc::new(Counting::new()))
}

#[tokio::test(start_paused = true)]
async fn the_stores_time_is_told_without_a_round_trip_also_in_an_outage() {
    let step = Arc::new(AtomicI64::new(0));
    let store_env = stepped(&step);
    let store = on_command(MemoryStore::new(store_env.clone()));
    // This machine's clock is an hour late.
    let own_env = stepped(&Arc::new(AtomicI64::new(-3_600_000)));
    let server = GameServer::builder(store.clone()).env(own_env.clone()).start().await.unwrap();
    // Before the first renewal.
    assert_eq!(server.now_ms(), store_env.unix_ms());
    assert!(own_env.unix_ms() < server.now_ms() - 3_000_000);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.now_ms(), store_env.unix_ms());

    let calls = || {
        let plan = store.plan();
        plan.reads() + plan.commits()
    };
    store.plan().cut_off();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let before = calls();
    assert_eq!(server.now_ms(), store_env.unix_ms());
    assert_eq!(calls(), before, "it asked the store");

    // The store's clock was put forward meanwhile: the next renewal brings it.
    step.store(60_000, Ordering::SeqCst);
    assert_eq!(server.now_ms(), store_env.unix_ms() - 60_000);
    store.plan().heal();
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(server.now_ms(), store_env.unix_ms());
}

#[tokio::test(start_paused = true)]
async fn the_stores_time_lags_by_the_way_of_the_last_answer_at_most() {
    let world = World::new();
    let server = world.server("a").await;
    world.store.plan().delay_reads(200);
    // A start reads: its answer brings the store's time, and it was under way for 200 ms.
    let profile = crate::world::open(&server, "p").await;
    let lag = world.env.unix_ms() - server.now_ms();
    assert!((0..=200).contains(&lag), "{lag} ms");
    profile.end_session().await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn the_signal_to_stop_is_heard_also_when_it_comes_before_the_wait() {
    for signal in ["-TERM", "-INT"] {
        let (stop, other) = (profilestore::stop_signal(), profilestore::stop_signal());
        let own = std::process::id().to_string();
        let sent = std::process::Command::new("kill").args([signal, &own]).status().unwrap();
        assert!(sent.success());
        for stop in [stop, other] {
            let heard = tokio::time::timeout(Duration::from_secs(60), stop).await;
            heard.expect("the signal is heard").unwrap();
        }
    }
}

/// It was called dead by others a lease time after each renewal.
#[tokio::test(start_paused = true)]
async fn renewals_cannot_become_rarer_than_the_lease_time_in_the_store_allows() {
    let world = World::new();
    let a = world.server("a").await;
    let before = a.settings().renew_period;
    let changed = a.change_settings(|settings| {
        settings.lease_time = Duration::from_secs(120);
        settings.renew_period = Duration::from_secs(60);
    });
    let error = changed.unwrap_err();
    assert_eq!(error.kind(), profilestore::ErrorKind::Invalid);
    assert!(error.to_string().contains("noted in the store"), "{error}");
    assert_eq!(a.settings().renew_period, before);
}

/// The lock was held while the program's function ran: it waited for itself, and all others for it.
#[tokio::test(start_paused = true)]
async fn settings_can_be_read_from_inside_a_change_of_them() {
    let world = World::new();
    let a = world.server("a").await;
    let profile = open(&a, "p").await;
    let before = a.settings().autosave_period;
    a.change_settings(|settings| {
        settings.autosave_period = a.settings().autosave_period * 2;
        earn(&profile, 1);
        let nested = a.change_settings(|settings| settings.autosave_period *= 100).unwrap_err();
        assert_eq!(nested.kind(), profilestore::ErrorKind::Invalid);
    })
    .unwrap();
    assert_eq!(a.settings().autosave_period, before * 2);
    let panics =
        || a.change_settings(|_| assert!(a.settings().call_timeout.is_zero(), "on purpose"));
    let panics = std::panic::AssertUnwindSafe(panics);
    assert!(std::panic::catch_unwind(panics).is_err());
    a.change_settings(|settings| settings.autosave_period = before).unwrap();
    assert_eq!(a.settings().autosave_period, before);
}

/// Its first call began an engine that nothing closed.
#[tokio::test(start_paused = true)]
async fn a_mock_of_a_server_that_has_shut_down_opens_nothing() {
    let world = World::new();
    let a = world.server("a").await;
    assert!(a.shutdown().await.is_complete());
    let store = players(&a).mock();
    let started = store.start_session("p").await.unwrap_err();
    assert_eq!(started.kind(), profilestore::ErrorKind::Closing);
    assert!(store.get("p").await.is_err() && store.live("p").is_none());
}
