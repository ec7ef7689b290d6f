//! The kit for games' tests does what its documentation says.

use std::{process::Command, time::Duration};

use profilestore::{Advice, ErrorKind, Settings, testing::World};
use tokio::time::Instant;

use crate::world::{coins, earn, open, players};

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_crash_costs_what_was_not_saved_and_the_lease_time() {
    let world = World::new();
    let (one, two) = (world.server("one").await, world.server("two").await);
    let on_one = open(&one, "p").await;
    earn(&on_one, 10);
    on_one.save().await.unwrap();
    earn(&on_one, 10);
    world.pass(MINUTE).await;
    one.crash();
    // A crash is for ever.
    one.heal();
    world.heal();
    let began = Instant::now();
    assert_eq!(open(&two, "p").await.data().coins, 10);
    let waited = began.elapsed();
    assert!((Duration::from_secs(10)..Duration::from_secs(21)).contains(&waited), "{waited:?}");
    assert!(two.shutdown().await.is_complete());
}

#[tokio::test(start_paused = true)]
async fn outages_concern_one_server_or_all_and_end_on_command() {
    let world = World::new();
    let (one, two) = (world.server("one").await, world.server("two").await);
    let (on_one, on_two) = (open(&one, "p").await, open(&two, "q").await);
    one.outage();
    earn(&on_one, 1);
    let save = on_one.save();
    world.pass(MINUTE).await;
    assert!(!on_one.is_active() && !on_one.is_over() && on_two.is_active());
    one.heal();
    save.await.unwrap();
    world.outage();
    world.pass(MINUTE).await;
    assert!(!on_one.is_active() && !on_two.is_active());
    let sent = players(&two).send_message("p", &1).await.unwrap_err();
    assert_eq!(sent.kind(), ErrorKind::Unavailable);
    world.heal();
    world.until("both servers are confirmed", || on_one.is_active() && on_two.is_active()).await;
    one.silence();
    world.pass(MINUTE).await;
    assert!(!on_one.is_active() && on_two.is_active());
    one.heal();
    world.until("it is confirmed", || on_one.is_active()).await;
    one.refuse_writes();
    assert_eq!(coins(&one, "p").await, 1, "reads are answered");
    world.pass(MINUTE).await;
    assert!(!on_one.is_active());
}

#[tokio::test(start_paused = true)]
async fn unknown_outcomes_come_on_command_and_save_once() {
    let world = World::new();
    let one = world.server("one").await;
    let on_one = open(&one, "p").await;
    let before = one.commits();
    one.lose_answers(1);
    earn(&on_one, 5);
    on_one.save().await.unwrap();
    one.lose_requests(1);
    earn(&on_one, 5);
    on_one.save().await.unwrap();
    assert_eq!(coins(&one, "p").await, 10);
    assert_eq!(one.commits() - before, 4, "each was asked for twice");
    one.lose_requests(u64::MAX);
    let sent = players(&one).send_message("p", &1).await.unwrap_err();
    assert!(matches!(sent.advice(), Advice::RetryAs | Advice::Retry), "{sent}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_takes_the_time_that_was_told() {
    let world = World::new().settings(Settings { call_timeout: MINUTE, ..Settings::default() });
    let one = world.server("one").await;
    one.slow(Duration::from_secs(2));
    let began = Instant::now();
    players(&one).get("p").await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 2);
    one.heal();
    players(&one).get("p").await.unwrap();
    assert_eq!(began.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn messages_and_hand_overs_go_between_the_servers_with_and_without_hints() {
    for (world, most) in [(World::new(), 100), (World::new().without_hints(), 5_000)] {
        let (one, two) = (world.server("one").await, world.server("two").await);
        let on_one = open(&one, "p").await;
        on_one.message_handler(|data, message| {
            data.coins += message.parse::<i64>().unwrap();
            message.processed();
        });
        let began = Instant::now();
        players(&two).send_message("p", &7).await.unwrap();
        world.until("the gift is there", || on_one.data().coins == 7).await;
        let on_two = open(&two, "p").await;
        assert!(on_one.is_over());
        assert_eq!(on_two.data().coins, 7);
        let took = began.elapsed().as_millis();
        assert!(took <= 2 * most + 100, "{took} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn the_clock_of_a_world_follows_the_test() {
    let world = World::new();
    let began_ms = world.env().unix_ms();
    world.pass(24 * 60 * MINUTE).await;
    assert_eq!(world.env().unix_ms() - began_ms, 24 * 60 * 60 * 1000);
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "not true after ten minutes: pigs fly")]
async fn what_never_becomes_true_is_named() {
    World::new().until("pigs fly", || false).await;
}

/// A game that turns the feature on for its tests must not build tokio anew for everybody.
#[test]
fn the_feature_for_tests_turns_on_no_feature_of_a_dependency() {
    let tree = |features: &str| {
        let out = Command::new(env!("CARGO"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["tree", "--offline", "--locked", "--prefix", "none", "--edges", "normal,build"])
            .args(["--format", "{p} {f}", "--no-default-features", "--features", features])
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let without = tree("sqlite");
    assert!(without.iter().any(|line| line.starts_with("tokio v")), "{without:?}");
    assert_eq!(tree("sqlite,test-util"), without);
}
