//! Requests that come again, or late.

use profilestore::hosting::{Part, Stop};

use super::*;
use crate::world::{players, settle};

#[tokio::test(start_paused = true)]
async fn the_same_request_made_twice_takes_effect_once() {
    let world = World::new();
    let (server, _calling) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    assert_eq!(session.save(request(2), player(5)).await.unwrap(), Some(2));
    assert_eq!(session.save(request(2), player(5)).await.unwrap(), None, "it was done before");
    assert_eq!(stored(&world, "p").await, (5, 2));
    // What came after it is not undone by it.
    session.save(request(3), player(6)).await.unwrap();
    let old = session.save(request(2), player(5)).await.unwrap();
    assert_eq!(old, None, "an old save is not answered with a newer version");
    assert_eq!(stored(&world, "p").await, (6, 3));
    assert_eq!(session.save(request(4), player(6)).await.unwrap(), Some(3), "nothing is new");
    session.save(request(5), player(7)).await.unwrap();
    session.end(request(6), Some(player(9))).await.unwrap();
    assert_eq!(stored(&world, "p").await, (9, 5));
    assert_eq!(kind(session.end(request(6), Some(player(9))).await), None);
    assert_eq!(
        kind(session.end(request(7), Some(player(10))).await),
        Some(ErrorKind::SessionEnded)
    );
}

/// It had found nothing to change, of which the store kept nothing. The save of its frame that came
/// again was stored over a later one.
#[tokio::test(start_paused = true)]
async fn a_save_that_changed_nothing_is_not_stored_when_it_comes_again_behind_another() {
    let world = World::new();
    let (server, _calling) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    session.save(request(2), player(5)).await.unwrap();
    assert_eq!(session.save(request(3), player(5)).await.unwrap(), Some(2), "nothing is new");
    session.save(request(4), player(6)).await.unwrap();
    assert_eq!(session.save(request(3), player(5)).await.unwrap(), None, "it was done before");
    assert_eq!(stored(&world, "p").await, (6, 3));
}

/// The old host, which had not heard of the new one, built the save anew on that one's version.
#[tokio::test(start_paused = true)]
async fn a_late_save_at_the_old_host_is_not_built_on_what_the_new_one_stored() {
    let world = World::new();
    let (server, _old) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    let (again, _calling) = resumed(&server, &host(&world)).await;
    let same = adopted(&again, &session).await;
    assert_eq!(same.save(request(3), player(9)).await.unwrap(), Some(2));
    session.save(request(2), player(1)).await.unwrap_err();
    assert_eq!(stored(&world, "p").await, (9, 2));
    assert_eq!((server.stopped(), again.stopped()), (Some(Stop::Hosted), None));
}

/// A notice made the old host look, and it took over the new one's version without a conflict.
#[tokio::test(start_paused = true)]
async fn a_late_save_at_the_old_host_is_not_built_on_what_a_look_found() {
    let world = World::new();
    let (server, _old) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    let (again, _calling) = resumed(&server, &host(&world)).await;
    let same = adopted(&again, &session).await;
    same.save(request(3), player(9)).await.unwrap();
    // It has the session, and looks.
    adopted(&server, &session).await;
    settle().await;
    session.save(request(2), player(1)).await.unwrap_err();
    assert_eq!(stored(&world, "p").await, (9, 2));
    assert_eq!((server.stopped(), again.stopped()), (Some(Stop::Hosted), None));
}

/// What was refused then was that a message was gone, and not the version.
#[tokio::test(start_paused = true)]
async fn a_late_save_at_the_old_host_is_not_stored_when_its_message_was_processed_at_the_new_one() {
    let world = World::new();
    let (server, _old) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    session.save(request(2), player(1)).await.unwrap();
    let other = world.server("b").await;
    players(&other).send_message("p", &json!("gift")).await.unwrap();
    let Event::Message { index, .. } = server.next_event(room).await else { panic!() };
    let with_gift = |coins| {
        let mut save = player(coins);
        save.processed = vec![index];
        save
    };
    let (again, _calling) = resumed(&server, &host(&world)).await;
    let same = adopted(&again, &session).await;
    same.save(request(4), with_gift(9)).await.unwrap();
    session.save(request(3), with_gift(1)).await.unwrap_err();
    assert_eq!(stored(&world, "p").await, (9, 3));
    assert_eq!((server.stopped(), again.stopped()), (Some(Stop::Hosted), None));
}

/// The host in the middle had adopted the session and not read what is stored.
#[tokio::test(start_paused = true)]
async fn a_late_save_at_a_host_that_adopted_is_not_built_on_what_the_next_one_stored() {
    let world = World::new();
    let (server, _first) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    let (second, _second) = resumed(&server, &host(&world)).await;
    let late = adopted(&second, &session).await;
    let (third, _calling) = resumed(&server, &host(&world)).await;
    let same = adopted(&third, &session).await;
    same.save(request(3), player(9)).await.unwrap();
    late.save(request(2), player(1)).await.unwrap_err();
    assert_eq!(stored(&world, "p").await, (9, 2));
    assert_eq!((second.stopped(), third.stopped()), (Some(Stop::Hosted), None));
}

/// A request that the new host had done told the old one of its version.
#[tokio::test(start_paused = true)]
async fn a_late_save_at_the_old_host_is_not_built_on_a_request_that_was_done_before() {
    let world = World::new();
    let (server, _old) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    let (again, _calling) = resumed(&server, &host(&world)).await;
    let same = adopted(&again, &session).await;
    same.save(request(3), player(9)).await.unwrap();
    let done = session.save(request(3), player(9)).await;
    assert!(matches!(done, Ok(None) | Err(_)), "it was done before: {done:?}");
    session.save(request(2), player(1)).await.unwrap_err();
    assert_eq!(stored(&world, "p").await, (9, 2));
    assert_eq!((server.stopped(), again.stopped()), (Some(Stop::Hosted), None));
}

/// The look of the save was kept as the request, so its write was taken for done.
#[tokio::test(start_paused = true)]
async fn a_save_of_what_was_stored_is_written_over_a_document_that_came_since() {
    let world = World::new();
    let (server, _calling) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    session.save(request(2), player(5)).await.unwrap();
    write_over(&world, &server, "p", 99).await;
    assert_eq!(session.save(request(3), player(5)).await.unwrap(), Some(4));
    assert_eq!(stored(&world, "p").await, (5, 4));
    assert_eq!(session.save(request(3), player(5)).await.unwrap(), None, "it was done before");
    assert_eq!(stored(&world, "p").await, (5, 4));
}

/// Its dead row names the old host for ever, while the game server goes on under another one.
#[tokio::test(start_paused = true)]
async fn a_late_save_for_a_dead_row_is_not_stored_over_what_came_since_though_nothing_in_it_is_new()
{
    let world = World::new();
    let (server, _old) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    session.save(request(2), player(1)).await.unwrap();
    let (again, _calling) = resumed_anew(&world, &server, &host(&world)).await;
    let same = adopted(&again, &session).await;
    same.save(request(4), player(9)).await.unwrap();
    let _ = session.save(request(3), player(1)).await;
    settle().await;
    assert_eq!(stored(&world, "p").await, (9, 3));
    assert!(!same.is_over());
}

/// Through the same host, and through another one, which knows nothing of the first.
#[tokio::test(start_paused = true)]
async fn an_identity_that_comes_again_with_another_content_is_refused() {
    let world = World::new();
    let (server, _old) = hosted(&host(&world), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    assert_eq!(session.save(request(2), player(5)).await.unwrap(), Some(2));
    let other = Request { fingerprint: 99, ..request(2) };
    let refused = session.save(other, player(7)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::RequestIdReused, "{refused}");
    let (again, _calling) = resumed(&server, &host(&world)).await;
    let same = adopted(&again, &session).await;
    let refused = same.save(other, player(7)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::RequestIdReused, "{refused}");
    let refused = same.end(other, Some(player(7))).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::RequestIdReused, "{refused}");
    assert_eq!(stored(&world, "p").await, (5, 2));
}

/// Its session is over, so only what the store keeps of the request can tell.
#[tokio::test(start_paused = true)]
async fn an_identity_of_a_session_that_is_over_is_refused_with_another_content() {
    let world = World::new();
    let (server, _old) = hosted(&host(&world), "a").await;
    let (one, two) = (start(&server, 1, "one").await, start(&server, 2, "two").await);
    one.session.save(request(3), player(5)).await.unwrap();
    let trade = |coins| {
        let part = |session: &HostedSession| Part { session: session.clone(), save: player(coins) };
        vec![part(&one.session), part(&two.session)]
    };
    server.transact(request(4), trade(6), vec![], None).await.unwrap();
    one.session.end(request(5), Some(player(7))).await.unwrap();
    let (again, _calling) = resumed(&server, &host(&world)).await;
    for number in [3, 4, 5] {
        assert!(again.outcome(request(number)).await.unwrap());
        let other = Request { fingerprint: 99, ..request(number) };
        assert_eq!(kind(again.outcome(other).await), Some(ErrorKind::RequestIdReused));
    }
    let same = adopted(&again, &two.session).await;
    let other = Request { fingerprint: 99, ..request(4) };
    let trade = vec![Part { session: same, save: player(8) }];
    let reused = again.transact(other, trade, vec![], None).await;
    assert_eq!(kind(reused), Some(ErrorKind::RequestIdReused), "it is not taken for done");
    assert_eq!((stored(&world, "one").await.0, stored(&world, "two").await.0), (7, 6));
}
