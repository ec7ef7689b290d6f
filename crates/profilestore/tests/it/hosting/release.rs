//! Letting go: a game server is asked, has time to answer, and is closed when it does not.

use profilestore::{
    Attribution, SessionEnd, StartOptions,
    hosting::{By, Stop},
};
use tokio::time::Instant;

use super::*;
use crate::world::{coins, open, players, settle};

#[tokio::test(start_paused = true)]
async fn a_game_server_that_is_asked_saves_and_lets_go() {
    let world = World::new();
    let (server, _calling) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    let other = world.server("b").await;
    let asking = tokio::spawn(players(&other).start_session("p"));
    let Event::Release { session: asked, by, deadline } = server.next_event(room).await else {
        panic!()
    };
    let By::Server(by) = by else { panic!("{by:?}") };
    assert_eq!((asked.key(), by.job_id.as_str()), (&key("p"), "b"));
    assert!(deadline >= Instant::now() + 2 * SECOND);
    // It goes on until then.
    session.save(request(2), player(5)).await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert!(!asking.is_finished() && told(&server).is_empty());
    session.end(request(3), Some(player(7))).await.unwrap();
    assert_eq!(asking.await.unwrap().unwrap().read(|data| data.coins), 7);
    tokio::time::sleep(10 * SECOND).await;
    assert!(told(&server).is_empty(), "its own end is no news to it");
}

#[tokio::test(start_paused = true)]
async fn a_game_server_that_does_not_answer_is_closed_with_what_is_stored() {
    let world = World::new();
    let (server, calling) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    session.save(request(2), player(5)).await.unwrap();
    let other = world.server("b").await;
    let began = Instant::now();
    let asking = tokio::spawn(players(&other).start_session("p"));
    let Event::Release { deadline, .. } = server.next_event(room).await else { panic!() };
    let left = deadline - Instant::now();
    assert!(left > 4 * SECOND && left < 7 * SECOND, "until it believes no more: {left:?}");
    let Event::Closed { session: closed, why, .. } = server.next_event(room).await else {
        panic!()
    };
    assert_eq!((closed.key(), &why), (&key("p"), &SessionEnd::External));
    assert!(Instant::now() >= deadline && Instant::now() < deadline + SECOND);
    assert_eq!(asking.await.unwrap().unwrap().read(|data| data.coins), 5);
    assert!(began.elapsed() < 8 * SECOND, "and not only after the time of theft");
    // What is stored is no loss; what is newer is.
    session.end(request(3), Some(player(5))).await.unwrap();
    session.end(request(4), None).await.unwrap();
    let late = session.end(request(5), Some(player(6))).await;
    assert_eq!(kind(late), Some(ErrorKind::SessionEnded));
    assert_eq!(kind(session.save(request(6), player(6)).await), Some(ErrorKind::SessionEnded));
    assert_eq!(coins(&other, "p").await, 5);
    drop(calling);
}

#[tokio::test(start_paused = true)]
async fn a_game_server_that_was_not_told_yet_has_its_time_from_when_it_is() {
    let world = World::new();
    let (server, _calling) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    let other = world.server("b").await;
    let asking = tokio::spawn(players(&other).start_session("p"));
    // It calls, and believes, and nobody tells it.
    tokio::time::sleep(20 * SECOND).await;
    assert!(!asking.is_finished() && !session.is_over());
    let Event::Release { deadline, .. } = server.next_event(room).await else { panic!() };
    assert!(deadline > Instant::now() + 4 * SECOND);
    session.end(request(2), Some(player(1))).await.unwrap();
    asking.await.unwrap().unwrap();
}

/// Its earlier host confirms until the new one has its place, which takes a while here.
#[tokio::test(start_paused = true)]
async fn a_game_server_has_its_time_at_a_host_that_took_long_to_take_it_over() {
    let world = World::new();
    let (server, _calling) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    let other = world.server("b").await;
    let way = world.another_way();
    let second = host_on(&world, way.clone());
    way.plan().slow(5 * SECOND);
    let Resumed::Same(again) = second.resume(resume_of(&server)).await.unwrap() else { panic!() };
    let taken = Instant::now();
    way.plan().slow(Duration::ZERO);
    adopted(&again, &session).await;
    let asking = tokio::spawn(players(&other).start_session("p"));
    let Event::Release { deadline, .. } = again.next_event(room).await else { panic!() };
    assert!(deadline >= taken + 6 * SECOND, "{:?}", deadline - taken);
    asking.abort();
}

#[tokio::test(start_paused = true)]
async fn a_release_that_is_wanted_no_more_is_forgotten() {
    let world = World::new();
    let (server, _calling) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    let other = world.server("b").await;
    let options = StartOptions::new().timeout(SECOND);
    let asked = players(&other).start_session_with("p", options).await;
    assert_eq!(kind(asked), Some(ErrorKind::TimedOut));
    assert!(matches!(told(&server)[..], [Event::Release { .. }]));
    tokio::time::sleep(20 * SECOND).await;
    assert!(!session.is_over(), "nobody wants it");
    session.save(request(2), player(3)).await.unwrap();
    // The next one is told anew.
    let asking = tokio::spawn(players(&other).start_session("p"));
    assert!(matches!(server.next_event(room).await, Event::Release { .. }));
    session.end(request(3), None).await.unwrap();
    assert_eq!(asking.await.unwrap().unwrap().read(|data| data.coins), 3);
}

/// It came back, and was told again, while the last look was on its way.
#[tokio::test(start_paused = true)]
async fn a_game_server_that_is_told_again_at_the_deadline_has_its_time() {
    let world = World::new();
    let way = world.another_way();
    let (server, _calling) = hosted(&host_on(&world, way.clone()), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    let other = world.server("b").await;
    let asking = tokio::spawn(players(&other).start_session("p"));
    let Event::Release { deadline, .. } = server.next_event(room).await else { panic!() };
    tokio::time::sleep_until(deadline - SECOND / 10).await;
    // The look takes a second.
    way.plan().slow(SECOND);
    tokio::time::sleep_until(deadline + SECOND / 2).await;
    way.plan().slow(Duration::ZERO);
    server.tell_again();
    let Event::Release { deadline, .. } = server.next_event(room).await else { panic!() };
    tokio::time::sleep(2 * SECOND).await;
    assert!(!session.is_over() && Instant::now() < deadline);
    session.end(request(2), Some(player(7))).await.unwrap();
    assert_eq!(asking.await.unwrap().unwrap().read(|data| data.coins), 7);
}

/// A pong that overtook the release made it believe longer than that.
#[tokio::test(start_paused = true)]
async fn a_game_server_is_told_of_its_closed_session_before_the_store_releases_it() {
    let world = World::new();
    let way = world.another_way();
    let (server, _calling) = hosted(&host_on(&world, way.clone()), "a").await;
    start(&server, 1, "p").await;
    let other = world.server("b").await;
    let asking = tokio::spawn(players(&other).start_session("p"));
    let Event::Release { deadline, .. } = server.next_event(room).await else { panic!() };
    // The last look is answered a second after the deadline, the release applied half a one later.
    tokio::time::sleep_until(deadline - SECOND / 10).await;
    way.plan().slow(SECOND);
    tokio::time::sleep_until(deadline + SECOND * 6 / 5).await;
    assert!(matches!(told(&server)[..], [Event::Closed { why: SessionEnd::External, .. }]));
    let state = world.store.read(&[key("p")], Returning::HEAD).await.unwrap().states.remove(0);
    assert_eq!(state.lease.holder.unwrap().job_id, "a");
    asking.await.unwrap().unwrap();
}

/// The operator had given up, and the release was in favour of another server.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_let_go_for_a_server_was_not_ended_by_the_operator_who_asked_before() {
    let world = World::new();
    let (server, _calling) = hosted(&host(&world), "a").await;
    start(&server, 1, "p").await;
    let (desk, other) = (world.server("desk").await, world.server("b").await);
    let ann = desk.operator(Attribution::new("ann").because("ticket 17"));
    ann.end_session(&key("p"), false, SECOND).await.unwrap_err();
    let Event::Release { by, deadline, .. } = server.next_event(room).await else { panic!() };
    assert!(matches!(by, By::Operator(_)), "{by:?}");
    let asking = tokio::spawn(players(&other).start_session("p"));
    let Event::Closed { why, .. } = server.next_event(room).await else { panic!() };
    assert_eq!(why, SessionEnd::External);
    assert!(Instant::now() >= deadline, "it had its time all the same");
    asking.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_game_server_is_told_which_operator_wants_the_profile_let_go() {
    let world = World::new();
    let (server, _calling) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    let desk = world.server("desk").await;
    let ann = desk.operator(Attribution::new("ann").because("ticket 17"));
    let ending = tokio::spawn(ann.end_session(&key("p"), false, 20 * SECOND));
    let Event::Release { by: By::Operator(entry), .. } = server.next_event(room).await else {
        panic!()
    };
    assert_eq!((entry.by.author.as_str(), entry.by.reason.as_str()), ("ann", "ticket 17"));
    session.end(request(2), Some(player(4))).await.unwrap();
    ending.await.unwrap().unwrap();
    assert_eq!(coins(&desk, "p").await, 4);
    // One that replaces the data does not ask.
    let Started { session, .. } = start(&server, 3, "p").await;
    ann.remove(&key("p")).await.unwrap();
    let Event::Closed { why, .. } = server.next_event(room).await else { panic!() };
    let SessionEnd::Operator { entry, saves: false } = why else { panic!("{why:?}") };
    assert_eq!((entry.action.as_str(), session.is_over()), ("remove", true));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_stolen_is_told_to_be_lost_and_to_whom() {
    let world = World::new();
    let (server, _calling) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    let other = world.server("b").await;
    let options = StartOptions::new().steal();
    let _thief = players(&other).start_session_with("p", options).await.unwrap();
    let Event::Closed { why, by, .. } = server.next_event(room).await else { panic!() };
    assert_eq!((why, by.unwrap().job_id.as_str()), (SessionEnd::Lost, "b"));
    assert_eq!(kind(session.save(request(2), player(1)).await), Some(ErrorKind::SessionEnded));
}

/// It may be stopped, and go on later: what it holds is its own until another server asks.
#[tokio::test(start_paused = true)]
async fn a_silent_game_server_is_not_released_before_another_asks_and_its_row_runs_out() {
    let world = World::new();
    let (server, calling) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    session.save(request(2), player(5)).await.unwrap();
    drop(calling);
    let began = Instant::now();
    tokio::time::sleep(15 * SECOND).await;
    assert_eq!((server.stopped(), session.is_over()), (None, false));
    assert!(server.confirmed_age() > 10 * SECOND, "its row is not renewed any more");
    let other = world.server("b").await;
    let profile = open(&other, "p").await;
    assert!(began.elapsed() < 18 * SECOND, "it had two seconds to answer: {:?}", began.elapsed());
    assert_eq!(profile.read(|data| data.coins), 5);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(server.stopped(), Some(Stop::Quiet));
}

#[tokio::test(start_paused = true)]
async fn a_game_server_that_was_silent_for_a_while_goes_on() {
    let world = World::new();
    let (server, calling) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    drop(calling);
    tokio::time::sleep(15 * SECOND).await;
    assert!(server.confirmed_age() > 9 * SECOND, "{:?}", server.confirmed_age());
    let _calling = Calling::new(&server);
    settle().await;
    assert!(server.confirmed_age() < SECOND, "its call has brought the renewal forward");
    session.save(request(2), player(5)).await.unwrap();
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!((server.stopped(), session.is_over()), (None, false));
}

/// As after a SIGKILL of the machine that both were on.
#[tokio::test(start_paused = true)]
async fn a_game_server_that_is_gone_with_its_host_is_dead_after_its_lease_time() {
    let world = World::new();
    let way = world.another_way();
    let (server, calling) = hosted(&host_on(&world, way.clone()), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    session.save(request(2), player(5)).await.unwrap();
    let other = world.server("b").await;
    drop(calling);
    way.plan().cut_off();
    let began = Instant::now();
    assert_eq!(open(&other, "p").await.read(|data| data.coins), 5);
    assert!(began.elapsed() < server.lease_time() + 2 * SECOND, "{:?}", began.elapsed());
}

/// The renewal that brought the notice came first, and no other one brings it again.
#[tokio::test(start_paused = true)]
async fn a_profile_that_was_asked_for_before_all_sessions_were_named_is_let_go_behind_that() {
    let world = World::new();
    let way = world.another_way();
    let (server, _old) = hosted(&host_on(&world, way.clone()), "a").await;
    // The host dies before its game server hears of the session.
    start(&server, 1, "p").await;
    way.plan().cut_off();
    let (again, _calling) = resumed(&server, &host(&world)).await;
    let other = world.server("b").await;
    let asking = tokio::spawn(players(&other).start_session("p"));
    tokio::time::sleep(12 * SECOND).await;
    assert!(!asking.is_finished(), "the game server may name a session of it yet");
    again.all_named();
    tokio::time::timeout(6 * SECOND, asking).await.unwrap().unwrap().unwrap();
}
