//! Clocks that are wrong or stepped, and periods without end.

use super::*;

/// A wall clock that is wrong by so many milliseconds.
struct Wrong(Env, i64);

impl Clock for Wrong {
    fn unix_ms(&self) -> i64 {
        self.0.unix_ms() + self.1
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_clock_is_wrong_sends_messages_all_the_same() {
    let world = World::new();
    for days in [2, -40] {
        let env =
            Env::new(Arc::new(Wrong(world.env.clone(), days * 86_400_000)), Arc::new(SystemRng));
        let server = GameServer::builder(world.store.clone()).env(env).start().await.unwrap();
        players(&server).send_message("p", &json!({"coins": 5})).await.unwrap();
        players(&server).mock().send_message("p", &json!({"coins": 5})).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn periods_without_end_are_no_reason_to_panic() {
    let mut world = World::new();
    world.settings.shutdown_timeout = Duration::MAX;
    world.settings.call_timeout = Duration::MAX;
    world.settings.autosave_period = Duration::MAX;
    world.settings.load_repeat_period = Duration::MAX;
    world.settings.first_load_repeat = Duration::MAX;
    world.settings.start_session_timeout = Duration::MAX;
    let (a, b) = (world.server("a").await, world.server("b").await);
    let on_a = open(&a, "p").await;
    earn(&on_a, 7);
    let on_b = open(&b, "p").await;
    assert_eq!(on_b.data().coins, 7);
    players(&a).send_message("p", &json!({})).await.unwrap();
    b.change_settings(|settings| settings.autosave_period = Duration::from_secs(1)).unwrap();
    earn(&on_b, 1);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(coins(&a, "p").await, 8, "autosaves go on");
    assert!(b.shutdown().await.is_complete());
}

/// A wall clock that can be stepped.
pub struct Stepping(pub Env, pub std::sync::atomic::AtomicI64);

impl Clock for Stepping {
    fn unix_ms(&self) -> i64 {
        self.0.unix_ms() + self.1.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_of_the_stores_clock_since_the_last_renewal_kills_nobody() {
    let mut world = World::new();
    let clock = Arc::new(Stepping(world.env.clone(), 0.into()));
    world.store = on_command(MemoryStore::new(Env::new(clock.clone(), Arc::new(SystemRng))));
    let (a, b) = (world.server("a").await, world.server("b").await);
    let on_a = open(&a, "p").await;
    earn(&on_a, 7);
    // Everybody has been in contact for more than a lease time, and it is the middle of a renewal
    // period.
    tokio::time::sleep(Duration::from_secs(42)).await;
    clock.1.fetch_add(240_000, Ordering::SeqCst);
    let on_b = open(&b, "p").await;
    assert_eq!(on_b.data().coins, 7, "handed over, not taken from the dead");
}
