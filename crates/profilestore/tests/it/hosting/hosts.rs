//! One game server at several hosts, one after the other.

use profilestore::{data_store::MemoryStore, hosting::Stop};

use super::*;
use crate::{
    regressions::Detour,
    world::{Fault, coins, on_command, open, players, settle},
};

#[tokio::test(start_paused = true)]
async fn a_host_dies_and_the_game_server_goes_on_at_another_with_nothing_lost() {
    let world = World::new();
    let way = world.another_way();
    let first = host_on(&world, way.clone());
    let (server, _old) = hosted(&first, "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    session.save(request(2), player(5)).await.unwrap();
    way.plan().cut_off();
    let (again, _calling) = resumed(&server, &host(&world)).await;
    assert_eq!(again.incarnation(), server.incarnation());
    let same = adopted(&again, &session).await;
    assert_eq!((same.epoch(), same.version()), (session.epoch(), 2));
    again.all_named();
    assert_eq!(same.save(request(3), player(9)).await.unwrap(), Some(3));
    same.end(request(4), Some(player(10))).await.unwrap();
    assert_eq!(stored(&world, "p").await, (10, 4));
    // The old host finds out, and does nothing.
    way.plan().heal();
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(server.stopped(), Some(Stop::Hosted));
    assert!(matches!(told(&server)[..], [Event::Stopped(Stop::Hosted)]));
    assert_eq!(kind(session.save(request(5), player(1)).await), Some(ErrorKind::Unknown));
    assert_eq!(again.stopped(), None);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_the_old_host_did_is_not_done_again_by_the_new_one() {
    let world = World::new();
    let way = world.another_way();
    let (server, _old) = hosted(&host_on(&world, way.clone()), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    players(&world.server("b").await).send_message("p", &json!("gift")).await.unwrap();
    settle().await;
    let [Event::Message { index, .. }] = told(&server)[..] else { panic!() };
    let mut save = player(5);
    save.processed = vec![index];
    // It takes effect, and the game server hears nothing of it.
    way.plan().fail(Fault::AnswerLost, u64::MAX);
    let lost = tokio::spawn(session.save(request(2), save.clone()));
    settle().await;
    way.plan().cut_off();
    let (again, _calling) = resumed(&server, &host(&world)).await;
    let same = adopted(&again, &session).await;
    assert!(told(&again).is_empty(), "the message went with its effect");
    assert_eq!(same.save(request(2), save).await.unwrap(), None, "it was done before");
    assert_eq!(stored(&world, "p").await, (5, 2));
    assert_eq!(same.save(request(3), player(6)).await.unwrap(), Some(3));
    assert_eq!(stored(&world, "p").await, (6, 3));
    lost.abort();
}

#[tokio::test(start_paused = true)]
async fn a_request_that_did_not_arrive_is_done_by_the_new_host_and_its_messages_are_told_again() {
    let world = World::new();
    let way = world.another_way();
    let (server, _old) = hosted(&host_on(&world, way.clone()), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    players(&world.server("b").await).send_message("p", &json!("gift")).await.unwrap();
    settle().await;
    let [Event::Message { index, .. }] = told(&server)[..] else { panic!() };
    way.plan().cut_off();
    let mut save = player(5);
    save.processed = vec![index];
    let lost = tokio::spawn(session.save(request(2), save.clone()));
    settle().await;
    let (again, _calling) = resumed(&server, &host(&world)).await;
    let same = adopted(&again, &session).await;
    let events = told(&again);
    let [Event::Message { index: told_again, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(*told_again, index);
    same.save(request(2), save).await.unwrap();
    again.tell_again();
    assert!(told(&again).is_empty());
    assert_eq!(stored(&world, "p").await, (5, 2));
    lost.abort();
}

#[tokio::test(start_paused = true)]
async fn a_late_save_of_the_old_host_takes_the_place_of_none_of_the_new_one() {
    let world = World::new();
    let way = world.another_way();
    let (server, _old) = hosted(&host_on(&world, way.clone()), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    way.plan().fail(Fault::Late(5 * SECOND), 1);
    let late = tokio::spawn(session.save(request(2), player(5)));
    settle().await;
    way.plan().cut_off();
    let (again, _calling) = resumed(&server, &host(&world)).await;
    let same = adopted(&again, &session).await;
    assert_eq!(same.save(request(2), player(5)).await.unwrap(), Some(2));
    assert_eq!(same.save(request(3), player(7)).await.unwrap(), Some(3));
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(stored(&world, "p").await, (7, 3));
    late.abort();
}

#[tokio::test(start_paused = true)]
async fn a_late_release_of_the_old_host_is_refused() {
    let world = World::new();
    let way = world.another_way();
    let (server, _old) = hosted(&host_on(&world, way.clone()), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    // The game server lets go, takes it for not done, and plays on at another host.
    way.plan().fail(Fault::Late(5 * SECOND), 1);
    let late = tokio::spawn(session.end(request(2), None));
    settle().await;
    way.plan().cut_off();
    let (again, _calling) = resumed(&server, &host(&world)).await;
    let same = adopted(&again, &session).await;
    tokio::time::sleep(10 * SECOND).await;
    let other = world.server("b").await;
    let asking = tokio::spawn(players(&other).start_session("p"));
    settle().await;
    assert!(!asking.is_finished(), "the profile is held as before");
    same.end(request(3), Some(player(4))).await.unwrap();
    assert_eq!(asking.await.unwrap().unwrap().read(|data| data.coins), 4);
    late.abort();
}

/// The identity of a host is another one each time, also in one process.
#[tokio::test(start_paused = true)]
async fn a_late_release_of_an_earlier_hosting_by_the_same_process_is_refused() {
    let world = World::new();
    let way = world.another_way();
    let (here, there) = (host_on(&world, way.clone()), host(&world));
    let (server, _old) = hosted(&here, "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    way.plan().fail(Fault::Late(5 * SECOND), 1);
    let late = tokio::spawn(session.end(request(2), None));
    settle().await;
    server.leave();
    let (second, _elsewhere) = resumed(&server, &there).await;
    second.leave();
    let (third, _calling) = resumed(&second, &here).await;
    let same = adopted(&third, &session).await;
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(same.save(request(3), player(4)).await.unwrap(), Some(2));
    let other = world.server("b").await;
    let asking = tokio::spawn(players(&other).start_session("p"));
    settle().await;
    assert!(!asking.is_finished(), "the profile is held as before");
    late.abort();
    asking.abort();
}

#[tokio::test(start_paused = true)]
async fn two_hosts_do_not_renew_side_by_side() {
    let world = World::new();
    let (server, _old) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    let (again, _new) = resumed(&server, &host(&world)).await;
    let same = adopted(&again, &session).await;
    // At its next renewal, or its next commit that changes a lease.
    tokio::time::sleep(6 * SECOND).await;
    assert_eq!((server.stopped(), again.stopped()), (Some(Stop::Hosted), None));
    assert_eq!((server.pong(), server.sessions().len()), (None, 0));
    assert_eq!(same.save(request(2), player(3)).await.unwrap(), Some(2));
    let Started { .. } = start(&again, 3, "q").await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_lost_its_place_starts_nothing_and_ends_nothing() {
    let world = World::new();
    let (server, _old) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    let (again, _new) = resumed(&server, &host(&world)).await;
    let started = server.start(request(2), &key("q"), new_player()).await;
    assert_eq!(kind(started), Some(ErrorKind::Unknown));
    assert_eq!(server.stopped(), Some(Stop::Hosted));
    assert_eq!(kind(session.end(request(3), None).await), Some(ErrorKind::Unknown));
    assert_eq!(adopted(&again, &session).await.version(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_game_server_whose_row_is_dead_begins_anew_and_keeps_what_nobody_took() {
    let world = World::new();
    let way = world.another_way();
    let (server, calling) = hosted(&host_on(&world, way.clone()), "a").await;
    let (kept, taken) = (start(&server, 1, "kept").await, start(&server, 2, "taken").await);
    kept.session.save(request(3), player(3)).await.unwrap();
    // It is away for a while, its host too, and another server takes one of its profiles.
    drop(calling);
    way.plan().cut_off();
    let other = world.server("b").await;
    let profile = open(&other, "taken").await;
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(server.stopped(), Some(Stop::Quiet));
    // Its next host calls the owner otherwise, as a server does that gives out tokens.
    let mut resume = resume_of(&server);
    resume.again.owner = "another".into();
    let resumed = host(&world).resume(resume).await.unwrap();
    let Resumed::Anew(again) = resumed else { panic!("{resumed:?}") };
    let _calling = Calling::new(&again);
    assert_ne!(again.incarnation(), server.incarnation());
    let same = adopted(&again, &kept.session).await;
    let lost = again.adopt(&key("taken"), taken.document.epoch).await.unwrap();
    let Adopted::Lost { by: Some(by) } = lost else { panic!("{lost:?}") };
    assert_eq!(by.job_id, "b");
    again.all_named();
    assert_eq!(same.save(request(4), player(4)).await.unwrap(), Some(3));
    profile.end_session().await.unwrap();
    // It holds the profile as any other does.
    let asking = tokio::spawn(players(&other).start_session("kept"));
    settle().await;
    assert!(matches!(told(&again)[..], [Event::Release { .. }]));
    same.end(request(5), Some(player(5))).await.unwrap();
    assert_eq!(asking.await.unwrap().unwrap().read(|data| data.coins), 5);
}

#[tokio::test(start_paused = true)]
async fn an_end_whose_answer_was_lost_is_known_to_have_taken_effect() {
    let world = World::new();
    let way = world.another_way();
    let (server, _old) = hosted(&host_on(&world, way.clone()), "a").await;
    let (one, two) = (start(&server, 1, "one").await, start(&server, 2, "two").await);
    way.plan().fail(Fault::AnswerLost, u64::MAX);
    let done = tokio::spawn(one.session.end(request(3), Some(player(5))));
    settle().await;
    way.plan().cut_off();
    let not_done = tokio::spawn(two.session.end(request(4), Some(player(6))));
    settle().await;
    let (again, _calling) = resumed(&server, &host(&world)).await;
    let gone = again.adopt(&key("one"), one.document.epoch).await.unwrap();
    assert!(matches!(gone, Adopted::Lost { by: None }), "{gone:?}");
    assert!(again.outcome(request(3)).await.unwrap());
    let same = adopted(&again, &two.session).await;
    assert!(!again.outcome(request(4)).await.unwrap());
    // It never takes effect from then on.
    assert_eq!(kind(same.end(request(4), Some(player(6))).await), Some(ErrorKind::TimedOut));
    assert_eq!(
        (coins(&world.server("b").await, "one").await, stored(&world, "two").await.0),
        (5, 0)
    );
    done.abort();
    not_done.abort();
}

#[tokio::test(start_paused = true)]
async fn a_resume_needs_the_owner_of_the_row() {
    let world = World::new();
    let first = host(&world);
    let (server, _calling) = hosted(&first, "a").await;
    let stranger = Resume { owner: "stranger".into(), ..resume_of(&server) };
    for at in [&first, &host(&world)] {
        assert_eq!(kind(at.resume(stranger.clone()).await), Some(ErrorKind::NotFound));
    }
    // Neither does a game server that hosts itself have one.
    let own = world.server("b").await;
    let its_own = Resume { incarnation: own.server_id(), ..resume_of(&server) };
    assert_eq!(kind(first.resume(its_own).await), Some(ErrorKind::NotFound));
    let nobody = profilestore::data_store::ServerId(Uuid::from_u128(9));
    let unknown = Resume { incarnation: nobody, ..resume_of(&server) };
    assert_eq!(kind(first.resume(unknown).await), Some(ErrorKind::NotFound));
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(server.stopped(), None, "it was left alone");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_comes_back_to_the_same_host_is_told_everything_again() {
    let world = World::new();
    let first = host(&world);
    let (server, _calling) = hosted(&first, "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    let other = world.server("b").await;
    players(&other).send_message("p", &json!("gift")).await.unwrap();
    let asking = tokio::spawn(players(&other).start_session("p"));
    settle().await;
    let is_all =
        |events: &[Event]| matches!(events, [Event::Release { .. }, Event::Message { .. }]);
    assert!(is_all(&told(&server)));
    world.store.plan().cut_off();
    let (again, _calling) = resumed(&server, &first).await;
    let same = adopted(&again, &session).await;
    assert!(is_all(&told(&again)), "and the store need not answer for it");
    world.store.plan().heal();
    same.end(request(2), None).await.unwrap();
    asking.await.unwrap().unwrap();
}

/// The first host has heard nothing of the second one.
#[tokio::test(start_paused = true)]
async fn a_game_server_that_comes_back_to_a_host_that_lost_its_place_keeps_its_sessions() {
    let world = World::new();
    let first = host(&world);
    let (server, _old) = hosted(&first, "a").await;
    let Started { session: old, .. } = start(&server, 1, "again").await;
    let (second, _calling) = resumed(&server, &host(&world)).await;
    adopted(&second, &old).await.end(request(2), None).await.unwrap();
    let Started { session: again, .. } = start(&second, 3, "again").await;
    let Started { session: new, .. } = start(&second, 4, "new").await;
    let (back, _calling) = resumed(&server, &first).await;
    let refused = back.adopt(new.key(), new.epoch()).await;
    assert_eq!((kind(refused), back.stopped()), (Some(ErrorKind::Unknown), Some(Stop::Hosted)));
    let (back, _calling) = resumed(&server, &first).await;
    for session in [&again, &new] {
        assert_eq!(adopted(&back, session).await.epoch(), session.epoch());
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_cannot_ask_whether_it_is_the_host_calls_no_session_lost() {
    let world = World::new();
    let way = world.another_way();
    let first = host_on(&world, way.clone());
    let (server, _old) = hosted(&first, "a").await;
    let Started { session: old, .. } = start(&server, 1, "again").await;
    let (second, _calling) = resumed(&server, &host(&world)).await;
    adopted(&second, &old).await.end(request(2), None).await.unwrap();
    let Started { session: again, .. } = start(&second, 3, "again").await;
    way.plan().cut_off();
    let (back, _calling) = resumed(&server, &first).await;
    let refused = back.adopt(again.key(), again.epoch()).await;
    assert_eq!(kind(refused), Some(ErrorKind::Unavailable));
    assert_eq!(back.stopped(), None);
}

#[tokio::test(start_paused = true)]
async fn a_profile_held_by_a_start_that_nobody_waits_for_is_let_go() {
    let world = World::new();
    let way = world.another_way();
    let (server, _old) = hosted(&host_on(&world, way.clone()), "a").await;
    way.plan().fail(Fault::AnswerLost, u64::MAX);
    let waiting = server.clone();
    let start =
        tokio::spawn(async move { waiting.start(request(1), &key("p"), new_player()).await });
    settle().await;
    way.plan().cut_off();
    let (again, _calling) = resumed(&server, &host(&world)).await;
    let other = world.server("b").await;
    let asking = tokio::spawn(players(&other).start_session("p"));
    tokio::time::sleep(2 * SECOND).await;
    assert!(!asking.is_finished(), "the game server may name a session of it yet");
    again.all_named();
    tokio::time::timeout(6 * SECOND, asking).await.unwrap().unwrap().unwrap();
    start.abort();
}

#[tokio::test(start_paused = true)]
async fn a_start_made_again_at_another_host_takes_up_what_the_first_one_left() {
    let world = World::new();
    let way = world.another_way();
    let (server, _old) = hosted(&host_on(&world, way.clone()), "a").await;
    let other = world.server("b").await;
    let held = open(&other, "asked").await;
    held.on_last_save(|_, data| data.coins = 3);
    way.plan().fail(Fault::AnswerLost, u64::MAX);
    let waiting = server.clone();
    let taken =
        tokio::spawn(async move { waiting.start(request(1), &key("taken"), new_player()).await });
    let waiting = server.clone();
    let asked =
        tokio::spawn(async move { waiting.start(request(2), &key("asked"), new_player()).await });
    settle().await;
    way.plan().cut_off();
    tokio::time::sleep(2 * SECOND).await;
    assert!(held.is_over(), "it was let go for the request of the old host");
    let (again, _calling) = resumed(&server, &host(&world)).await;
    let began = tokio::time::Instant::now();
    start(&again, 1, "taken").await;
    let found = again.start(request(2), &key("asked"), new_player()).await.unwrap();
    assert_eq!(found.document.data.get(), r#"{"coins":3,"items":[]}"#);
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    taken.abort();
    asked.abort();
}

#[tokio::test(start_paused = true)]
async fn a_restored_backup_ends_all_sessions_though_the_same_epochs_stand_in_it() {
    let world = World::new();
    let detour = Detour::new(world.store.clone());
    let (server, _calling) = hosted(&host_on(&world, detour.clone()), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    let backup = on_command(MemoryStore::new(world.env.clone()));
    let elsewhere = world.server_on("b", backup.clone()).await;
    let profile = open(&elsewhere, "p").await;
    profile.update(|data| data.coins = 50).unwrap();
    profile.save().await.unwrap();
    elsewhere.crash();
    detour.lead_to(backup.clone());
    tokio::time::sleep(6 * SECOND).await;
    assert_eq!(server.stopped(), Some(Stop::Replaced));
    let resumed = host_on(&world, backup.clone()).resume(resume_of(&server)).await.unwrap();
    let Resumed::Replaced(again) = resumed else { panic!("{resumed:?}") };
    assert_ne!(again.store(), server.store());
    let lost = again.adopt(&key("p"), session.epoch()).await.unwrap();
    assert!(matches!(lost, Adopted::Lost { .. }), "{lost:?}");
    let reader = world.server_on("c", backup).await;
    assert_eq!(coins(&reader, "p").await, 50);
}

#[tokio::test(start_paused = true)]
async fn a_game_server_that_ends_waits_for_nothing_and_leaves_nothing_locked() {
    let world = World::new();
    let (server, _calling) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    session.save(request(2), player(2)).await.unwrap();
    server.retire().await.unwrap();
    assert_eq!(server.stopped(), Some(Stop::Left));
    let other = world.server("b").await;
    let began = tokio::time::Instant::now();
    assert_eq!(open(&other, "p").await.read(|data| data.coins), 2);
    assert!(began.elapsed() < SECOND);
}

/// The host took the profile, and was killed before its game server heard so.
#[tokio::test(start_paused = true)]
async fn a_start_made_again_after_its_host_was_killed_is_the_same_start() {
    let world = World::new();
    let way = world.another_way();
    let (server, _old) = hosted(&host_on(&world, way.clone()), "a").await;
    let Started { document, .. } = start(&server, 1, "p").await;
    way.plan().cut_off();
    let other = world.server("b").await;
    let asking = tokio::spawn(players(&other).start_session("p"));
    settle().await;
    let (again, _calling) = resumed(&server, &host(&world)).await;
    let Started { session, document: same } = start(&again, 1, "p").await;
    again.all_named();
    let what = |of: &profilestore::hosting::Document| (of.epoch, of.version, of.meta.load_count);
    assert_eq!(what(&same), what(&document));
    // What was asked for meanwhile is told.
    settle().await;
    assert!(matches!(told(&again)[..], [Event::Release { .. }]));
    assert_eq!(session.save(request(2), player(3)).await.unwrap(), Some(2));
    session.end(request(3), None).await.unwrap();
    assert_eq!(asking.await.unwrap().unwrap().read(|data| data.coins), 3);
    // Another start of the same game server is none of them.
    let Started { session, .. } = start(&again, 4, "q").await;
    let epoch = session.epoch();
    let (third, _third) = resumed(&again, &host(&world)).await;
    let Started { document, .. } = start(&third, 5, "q").await;
    assert_eq!(document.epoch, epoch + 1);
}

/// The store had adopted it, and the answer did not count, because a renewal was on its way then.
#[tokio::test(start_paused = true)]
async fn a_session_is_not_lost_to_a_request_that_comes_while_it_is_adopted() {
    let world = World::new();
    let (server, _old) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    let way = world.another_way();
    let (again, _calling) = resumed_anew(&world, &server, &host_on(&world, way.clone())).await;
    way.plan().slow(3 * SECOND);
    // A renewal is on its way.
    tokio::time::sleep(SECOND * 11 / 2).await;
    let (adopting, key_) = (again.clone(), key("p"));
    let adopting = tokio::spawn(async move { adopting.adopt(&key_, 1).await });
    assert_eq!(session.epoch(), 1);
    // Until what is stored was read, and the adoption applied, with the next renewal on its way.
    tokio::time::sleep(5 * SECOND).await;
    let state = world.store.read(&[key("p")], Returning::HEAD).await.unwrap().states.remove(0);
    assert_eq!(state.lease.holder.unwrap().server, Some(again.incarnation()));
    let other = world.server("b").await;
    let asking = tokio::spawn(players(&other).start_session("p"));
    let adopted = adopting.await.unwrap().unwrap();
    let Adopted::Held { session, .. } = adopted else { panic!("{adopted:?}") };
    way.plan().slow(Duration::ZERO);
    session.end(request(2), Some(player(7))).await.unwrap();
    assert_eq!(asking.await.unwrap().unwrap().read(|data| data.coins), 7);
}
