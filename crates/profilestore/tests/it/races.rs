//! Starts of one profile that overtake, supersede and call off each other: scripted, and as races
//! on real threads.
//!
//! How often each race is run: `PROFILESTORE_RACES`, 1,000 times otherwise.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use profilestore::{
    ErrorKind, GameServer, Profile, ProfileStore, Result, StartOptions, data_store::MemoryStore,
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::world::{Player, World, earn, open, players, settle};

/// Other data under the same name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Guild {
    #[serde(default)]
    members: Vec<String>,
}

fn guilds(server: &GameServer) -> ProfileStore<Guild> {
    server.store("PlayerData").unwrap()
}

fn races() -> u64 {
    std::env::var("PROFILESTORE_RACES")
        .map_or(1000, |count| count.parse().expect("PROFILESTORE_RACES is a number"))
}

/// How long after the start of the call before it a call comes, in microseconds: different ones one
/// after the other.
#[expect(clippy::disallowed_methods, reason = "the race is run in real time")]
fn pause(round: u64, most: u64) {
    let until = Instant::now() + Duration::from_nanos(round.wrapping_mul(7919) % (most * 1000));
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

fn kind<T>(result: Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

// --- scripted -----------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_start_does_not_hear_that_the_one_before_it_was_called_off() {
    let world = World::new();
    let server = world.server("a").await;
    let store = players(&server);
    world.store.plan().delay_reads(500);
    // Its attempt is under way when the caller goes away.
    let dropped = store.start_session("p");
    settle().await;
    drop(dropped);
    let profile = store.start_session("p").await.unwrap();
    assert!(profile.is_active());
    profile.end_session().await.unwrap();

    let short = tokio::spawn(
        store.start_session_with("p", StartOptions::new().timeout(Duration::from_millis(120))),
    );
    settle().await;
    assert_eq!(kind(short.await.unwrap()), Some(ErrorKind::TimedOut));
    let profile = store.start_session("p").await.unwrap();
    profile.end_session().await.unwrap();

    let cancelled =
        tokio::spawn(store.start_session_with("p", StartOptions::new().cancel(|| true)));
    let profile = store.start_session("p").await.unwrap();
    assert_eq!(kind(cancelled.await.unwrap()), Some(ErrorKind::Superseded));
    profile.end_session().await.unwrap();
    assert_eq!(server.session_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_fails_for_one_start_does_not_fail_for_the_start_behind_it() {
    let world = World::new();
    let server = world.server("a").await;
    // Data that only a store which reconciles can open.
    let guild = guilds(&server).start_session("p").await.unwrap();
    guild.end_session().await.unwrap();
    let strict = players(&server);
    let lenient =
        server.store_builder("PlayerData").template(Player::default()).reconcile().build().unwrap();
    assert_eq!(kind(strict.start_session("p").await), Some(ErrorKind::Undecodable));
    world.store.plan().delay_reads(500);
    let first = tokio::spawn(strict.start_session("p"));
    settle().await;
    let second = lenient.start_session("p").await.unwrap();
    assert_eq!(second.data(), Player::default());
    assert_eq!(kind(first.await.unwrap()), Some(ErrorKind::Superseded));
}

#[tokio::test(start_paused = true)]
async fn two_types_on_one_profile_are_an_error_that_names_both() {
    let world = World::new();
    let server = world.server("a").await;
    world.store.plan().delay_reads(500);
    let first = tokio::spawn(players(&server).start_session("p"));
    settle().await;
    let names_both = |error: profilestore::Error| {
        let text = error.to_string();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
        assert!(text.contains("world::Player") && text.contains("races::Guild"), "{text}");
    };
    // While it is loading, and while it is live: the other one is not disturbed.
    names_both(guilds(&server).start_session("p").await.unwrap_err());
    let player = first.await.unwrap().unwrap();
    names_both(guilds(&server).start_session("p").await.unwrap_err());
    earn(&player, 5);
    player.end_session().await.unwrap();
    // One after the other they can be used.
    assert_eq!(guilds(&server).start_session("p").await.unwrap().data(), Guild::default());
}

#[tokio::test(start_paused = true)]
async fn a_start_of_another_type_behind_one_that_was_called_off_gets_its_own_data() {
    let world = World::new();
    let server = world.server("a").await;
    world.store.plan().delay_reads(500);
    let dropped = players(&server).start_session("p");
    settle().await;
    drop(dropped);
    let guild = guilds(&server).start_session("p").await.unwrap();
    guild.update(|data| data.members.push("alice".into())).unwrap();
    guild.end_session().await.unwrap();
    assert_eq!(guilds(&server).get("p").await.unwrap().unwrap().data.members, ["alice"]);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_takes_anothers_place_sees_what_was_called_between_them() {
    let world = World::new();
    let server = world.server("a").await;
    let profile = open(&server, "p").await;
    earn(&profile, 5);
    profile.end_session().await.unwrap();
    let store = players(&server);
    let (first, removed, second) =
        (store.start_session("p"), store.remove("p"), store.start_session("p"));
    let (first, removed, second) = tokio::join!(first, removed, second);
    assert_eq!(kind(first), Some(ErrorKind::Superseded));
    assert!(removed.unwrap());
    let second = second.unwrap();
    assert_eq!(second.data().coins, 0);
    settle().await;
    assert!(second.is_active(), "the removal came before it");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_called_off_at_once_does_not_make_the_holder_let_go() {
    let world = World::new();
    let own_way = world.another_way();
    let (a, b) = (world.server("a").await, world.server_on("b", own_way.clone()).await);
    let held = open(&a, "p").await;
    own_way.plan().delay_reads(100);
    for options in
        [StartOptions::new().timeout(Duration::ZERO), StartOptions::new().cancel(|| true)]
    {
        assert!(players(&b).start_session_with("p", options).await.is_err());
    }
    drop(players(&b).start_session("p"));
    // Called off while its first look is under way.
    let looking = players(&b).start_session("p");
    settle().await;
    drop(looking);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(held.is_active());
    assert_eq!(b.session_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_has_taken_delivery_of_ends_with_the_wait_for_it() {
    let world = World::new();
    let server = world.server("a").await;
    let waiting = players(&server).start_session("p");
    // Delivered, and never polled.
    settle().await;
    assert_eq!(server.session_count(), 1);
    drop(waiting);
    let again = players(&server).start_session("p").await.unwrap();
    assert!(again.is_active());
    again.end_session().await.unwrap();
    assert_eq!(server.session_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_dropped_right_after_a_start_is_like_one_that_crashed() {
    let world = World::new();
    let own_way = world.another_way();
    let alive = Arc::downgrade(&own_way.plan().alive);
    let (a, b) = (world.server_on("a", own_way).await, world.server("b").await);
    // The wait for a start keeps its server, and so does the profile.
    let store = players(&a);
    let starting = store.start_session("p");
    drop((a, store));
    let profile = starting.await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(profile.is_active());
    earn(&profile, 5);
    profile.save().await.unwrap();
    earn(&profile, 1000);
    // One that is called off with the last that holds the server leaves nothing behind.
    drop(profile.store().start_session("q"));
    drop(profile);
    settle().await;
    assert!(alive.upgrade().is_none());
    let began = tokio::time::Instant::now();
    assert!(open(&b, "q").await.is_active());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(open(&b, "p").await.data().coins, 5);
    assert!(
        (Duration::from_secs(10)..Duration::from_secs(30)).contains(&began.elapsed()),
        "{:?}",
        began.elapsed()
    );
}

// --- as races -----------------------------------------------------------------------------------

async fn server() -> GameServer {
    GameServer::builder(MemoryStore::new(profilestore::env::Env::system()))
        .job_id("a")
        .start()
        .await
        .unwrap()
}

/// Runs a race many times, on several profiles at once. Answers with how often it was run.
async fn run_races<F: Future<Output = ()> + Send>(
    race: impl Fn(u64, String) -> F + Send + Sync + 'static,
) -> u64 {
    const PROFILES: u64 = 4;
    let (race, done) = (Arc::new(race), Arc::new(AtomicU64::new(0)));
    let mut running = JoinSet::new();
    for n in 0..PROFILES {
        let (race, done) = (race.clone(), done.clone());
        running.spawn(async move {
            for round in (n..races()).step_by(PROFILES as usize) {
                race(round, format!("p{n}")).await;
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
    done.load(Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn race_a_start_behind_one_that_is_called_off_gets_the_profile() {
    let server = server().await;
    let store = players(&server);
    let run = run_races(move |round, key| {
        let store = store.clone();
        async move {
            let options = match round % 3 {
                0 => StartOptions::new(),
                1 => StartOptions::new().timeout(Duration::ZERO),
                _ => StartOptions::new().cancel(|| true),
            };
            let first = store.start_session_with(&key, options);
            pause(round, 60);
            drop(first);
            pause(round / 3, 60);
            let profile = store.start_session(&key).await;
            let profile = profile.unwrap_or_else(|error| panic!("round {round}: {error}"));
            profile.end_session().await.unwrap();
        }
    });
    assert_eq!(run.await, races());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn race_two_types_never_share_a_profile() {
    let server = server().await;
    let (players, guilds) = (players(&server), guilds(&server));
    let run = run_races(move |round, key| {
        let (players, guilds) = (players.clone(), guilds.clone());
        async move {
            let calls_off = round % 2 == 0;
            let first = tokio::spawn(players.start_session(&key));
            pause(round, 200);
            if calls_off {
                first.abort();
            }
            let second = guilds.start_session(&key).await;
            let first: Option<Result<Profile<Player>>> = first.await.ok();
            if let Ok(guild) = second {
                // Reading would panic on data of the other type.
                assert_eq!(guild.data(), Guild::default(), "round {round}");
                guild.end_session().await.unwrap();
            } else {
                let kind = kind(second);
                assert_eq!(kind, Some(ErrorKind::Invalid), "round {round}");
            }
            if let Some(Ok(player)) = first {
                assert_eq!(player.data(), Player::default(), "round {round}");
                player.end_session().await.unwrap();
            }
        }
    });
    assert_eq!(run.await, races());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn race_an_end_does_not_overtake_a_transaction_that_was_called_before_it() {
    let server = server().await;
    let store = players(&server);
    let run = run_races(move |round, key| {
        let (store, server) = (store.clone(), server.clone());
        async move {
            let profile = store.start_session(&key).await.unwrap();
            let before = profile.data().coins;
            if round % 2 == 0 {
                drop(profile.save());
            }
            let earner = profile.clone();
            let trade = server
                .transaction()
                .with(&profile)
                .run(move |tx| tx.edit(&earner, |data| data.coins += 1));
            pause(round, 30);
            let ended = profile.end_session();
            let (trade, ended) = tokio::join!(trade, ended);
            trade.unwrap_or_else(|error| panic!("round {round}: {error}"));
            ended.unwrap();
            assert_eq!(
                store.get(&key).await.unwrap().unwrap().data.coins,
                before + 1,
                "round {round}"
            );
        }
    });
    assert_eq!(run.await, races());
}
