//! What a game server may believe: how old the confirmation is that its host tells it of.

use profilestore::{
    data_store::fault::LineState,
    env::{Env, ManualClock},
    hosting::Stop,
};

use super::*;
use crate::{
    regressions::Detour,
    world::{Fault, open, players, settle},
};

#[tokio::test(start_paused = true)]
async fn the_age_counts_from_when_the_renewal_was_sent_and_grows_while_the_store_is_away() {
    let world = World::new();
    let way = world.another_way();
    let (server, _calling) = hosted(&host_on(&world, way.clone()), "a").await;
    way.plan().slow(2 * SECOND);
    tokio::time::sleep(7 * SECOND).await;
    let age = server.pong().unwrap();
    assert!(age >= SECOND, "the answer itself took two seconds: {age:?}");
    way.plan().slow(Duration::ZERO);
    tokio::time::sleep(10 * SECOND).await;
    way.plan().cut_off();
    let before = server.pong().unwrap();
    tokio::time::sleep(12 * SECOND).await;
    assert!(server.pong().unwrap() >= before + 12 * SECOND);
    way.plan().heal();
    tokio::time::sleep(2 * SECOND).await;
    assert!(server.pong().unwrap() <= 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stood_still_confirms_nothing_before_it_has_renewed() {
    let world = World::new();
    let clock = ManualClock::new(world.env.unix_ms());
    let way = world.another_way();
    let host = Host::new(HostParts {
        store: Arc::new(way.clone()),
        messenger: Arc::new(NoMessenger),
        settings: world.settings.clone(),
        env: clock.env(5),
    })
    .unwrap();
    let server = host.register(registration("a")).await.unwrap();
    let passes = async |ms: i64| {
        for _ in 0..ms / 100 {
            clock.advance(100);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    passes(3000).await;
    assert!(server.pong().is_some());
    // The machine slept: its monotonic clock stood still too.
    way.line().set(LineState::Held);
    clock.advance(60_000);
    assert_eq!(server.pong(), None);
    passes(1000).await;
    assert_eq!(server.pong(), None, "a renewal is under way");
    way.line().set(LineState::Open);
    passes(1000).await;
    assert!(server.pong().unwrap() < 3 * SECOND);
    let _: Env = world.env;
}

/// A confirmation must not come before the news that came with it.
#[tokio::test(start_paused = true)]
async fn a_confirmation_does_not_count_before_its_notices_were_looked_at() {
    let mut world = World::new();
    world.messenger = None;
    let way = world.another_way();
    let (server, _calling) = hosted(&host_on(&world, way.clone()), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    let other = world.server("b").await;
    tokio::time::sleep(3 * SECOND).await;
    let thief = profilestore::StartOptions::new().steal();
    players(&other).start_session_with("p", thief).await.unwrap();
    // The renewal is answered, and what it tells of cannot be looked at.
    way.plan().fail(Fault::RequestLost, u64::MAX);
    tokio::time::sleep(4 * SECOND).await;
    assert!(!session.is_over());
    let age = server.pong().unwrap();
    assert!(age > 5 * SECOND, "the one before counts: {age:?}");
    way.plan().heal();
    let Event::Closed { .. } = server.next_event(room).await else { panic!() };
    settle().await;
    assert!(server.pong().unwrap() < 6 * SECOND);
    drop(open(&other, "q").await);
}

/// The notice of the theft held nothing back before the session was there. The game server believed
/// in it by the confirmation that it was told last, which was younger than the theft.
#[tokio::test(start_paused = true)]
async fn a_confirmation_does_not_count_before_a_start_whose_profile_was_stolen_is_answered() {
    let mut world = World::new();
    world.messenger = None;
    let detour = Detour::new(world.store.clone());
    let (server, _calling) = hosted(&host_on(&world, detour.clone()), "a").await;
    let other = world.server("b").await;
    detour.answer_late(22 * SECOND);
    let starting = tokio::spawn({
        let server = server.clone();
        async move { start(&server, 1, "p").await }
    });
    settle().await;
    // The profile is taken, and nobody says so yet. The renewals of the lease get through.
    let thief = profilestore::StartOptions::new().steal();
    let thief = players(&other).start_session_with("p", thief).await.unwrap();
    detour.answer_late(2 * SECOND);
    tokio::time::sleep(18 * SECOND).await;
    let age = server.pong().unwrap();
    assert!(age > 15 * SECOND, "the one before the theft counts: {age:?}");
    let Started { session, .. } = starting.await.unwrap();
    let age = server.pong().unwrap();
    assert!(age > 18 * SECOND && !session.is_over(), "until the session has looked: {age:?}");
    let Event::Closed { .. } = server.next_event(room).await else { panic!() };
    settle().await;
    assert!(server.pong().unwrap() < 6 * SECOND);
    assert!(thief.is_active());
}

/// The notice of the theft came while the answer was under way, and found no session to hold back.
/// The session counted as held until the look behind its adoption.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_stolen_while_its_adoption_reads_is_not_adopted() {
    let world = World::new();
    let (server, _old) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    let other = world.server("b").await;
    let detour = Detour::new(world.store.clone());
    let (again, _calling) = resumed(&server, &host_on(&world, detour.clone())).await;
    detour.read_late(8 * SECOND);
    let adopting = tokio::spawn({
        let again = again.clone();
        async move { again.adopt(session.key(), session.epoch()).await }
    });
    settle().await;
    detour.read_late(Duration::ZERO);
    let thief = profilestore::StartOptions::new().steal();
    let thief = players(&other).start_session_with("p", thief).await.unwrap();
    let adopted = adopting.await.unwrap().unwrap();
    let Adopted::Lost { by: Some(by) } = adopted else { panic!("{adopted:?}") };
    assert_eq!(by.job_id, "b");
    assert!(thief.is_active());
}

/// Its pongs let the game server believe longer than the host knew at which the session had begun.
#[tokio::test(start_paused = true)]
async fn a_host_that_lost_its_place_adopts_no_session_of_the_host_after_it() {
    let world = World::new();
    let (server, _old) = hosted(&host(&world), "a").await;
    let way = world.another_way();
    let second = host_on(&world, way.clone());
    let (_before, _calling_before) = resumed(&server, &second).await;
    way.plan().cut_off();
    let (third, _calling) = resumed(&server, &host(&world)).await;
    let Started { session: new, .. } = start(&third, 1, "new").await;
    way.plan().heal();
    let (back, _calling_back) = resumed(&server, &second).await;
    let refused = back.adopt(new.key(), new.epoch()).await;
    assert_eq!((kind(refused), back.stopped()), (Some(ErrorKind::Unknown), Some(Stop::Hosted)));
    assert!(back.sessions().is_empty());
}
