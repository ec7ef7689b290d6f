//! Transactions of game servers elsewhere: several documents and gifts in one commit, once.

use profilestore::{
    data_store::MessageId,
    hosting::{Gift, Part},
};

use super::*;
use crate::world::{Fault, settle};

fn parts(given: [(&HostedSession, i64); 2]) -> Vec<Part> {
    given.map(|(session, coins)| Part { session: session.clone(), save: player(coins) }).into()
}

#[tokio::test(start_paused = true)]
async fn a_trade_and_its_gifts_are_stored_in_one_commit_and_once() {
    let world = World::new();
    let (server, _calling) = hosted(&host(&world), "a").await;
    let (one, two) = (start(&server, 1, "one").await, start(&server, 2, "two").await);
    let [one, two] = [one.session, two.session];
    let gift = Gift {
        to: key("friend"),
        id: MessageId::new(world.env.unix_ms(), "gift").unwrap(),
        body: raw(&json!("gift")),
    };
    let trade =
        || server.transact(request(3), parts([(&one, 3), (&two, 7)]), vec![gift.clone()], None);
    assert_eq!(trade().await.unwrap(), [2, 2]);
    assert_eq!(trade().await.unwrap(), [0; 0], "it was done before");
    assert_eq!((stored(&world, "one").await, stored(&world, "two").await), ((3, 2), (7, 2)));
    let friend = start(&server, 4, "friend").await;
    assert!(matches!(told(&server)[..], [Event::Message { .. }]));
    friend.session.end(request(5), None).await.unwrap();
    one.save(request(6), player(4)).await.unwrap();
    two.end(request(7), Some(player(8))).await.unwrap();
    assert_eq!((stored(&world, "one").await, stored(&world, "two").await), ((4, 3), (8, 3)));
}

#[tokio::test(start_paused = true)]
async fn a_trade_that_the_old_host_did_is_not_done_again_by_the_new_one() {
    let world = World::new();
    let way = world.another_way();
    let (server, _old) = hosted(&host_on(&world, way.clone()), "a").await;
    let (one, two) = (start(&server, 1, "one").await, start(&server, 2, "two").await);
    way.plan().fail(Fault::AnswerLost, u64::MAX);
    let [first, second] = [one.session, two.session];
    let trade = parts([(&first, 3), (&second, 7)]);
    let (lost, asked) = (server.clone(), trade.clone());
    let lost = tokio::spawn(async move { lost.transact(request(3), asked, vec![], None).await });
    settle().await;
    way.plan().cut_off();
    let (again, _calling) = resumed(&server, &host(&world)).await;
    let [one, two] = [adopted(&again, &first).await, adopted(&again, &second).await];
    let trade = parts([(&one, 3), (&two, 7)]);
    let done = again.transact(request(3), trade, vec![], None).await.unwrap();
    assert_eq!(done, [0; 0], "it was done before");
    one.save(request(4), player(4)).await.unwrap();
    assert_eq!((stored(&world, "one").await, stored(&world, "two").await), ((4, 3), (7, 2)));
    lost.abort();
}

#[tokio::test(start_paused = true)]
async fn a_trade_that_is_answered_not_done_is_never_done_by_a_late_commit_either() {
    let world = World::new();
    let way = world.another_way();
    let (server, _old) = hosted(&host_on(&world, way.clone()), "a").await;
    let (one, two) = (start(&server, 1, "one").await, start(&server, 2, "two").await);
    way.plan().fail(Fault::Late(8 * SECOND), 1);
    let [first, second] = [one.session, two.session];
    let trade = parts([(&first, 3), (&second, 7)]);
    let lost = server.clone();
    let lost = tokio::spawn(async move { lost.transact(request(3), trade, vec![], None).await });
    settle().await;
    way.plan().cut_off();
    let (again, _calling) = resumed(&server, &host(&world)).await;
    let [one, two] = [adopted(&again, &first).await, adopted(&again, &second).await];
    // The new host refuses it for a reason of its own, without asking the store.
    let mut trade = parts([(&one, 3), (&two, 7)]);
    trade[1] = trade[0].clone();
    let refused = again.transact(request(3), trade, vec![], None).await;
    assert_eq!(kind(refused), Some(ErrorKind::Invalid));
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!((stored(&world, "one").await, stored(&world, "two").await), ((0, 1), (0, 1)));
    lost.abort();
}

#[tokio::test(start_paused = true)]
async fn a_trade_that_waits_too_long_is_called_off_and_stays_so() {
    let world = World::new();
    let way = world.another_way();
    let (server, _calling) = hosted(&host_on(&world, way.clone()), "a").await;
    let (one, two) = (start(&server, 1, "one").await, start(&server, 2, "two").await);
    let [one, two] = [one.session, two.session];
    way.plan().fail(Fault::Late(20 * SECOND), 3);
    let trade = |number| {
        server.transact(request(number), parts([(&one, 3), (&two, 7)]), vec![], Some(2 * SECOND))
    };
    assert_eq!(kind(trade(3).await), Some(ErrorKind::Unavailable));
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!((stored(&world, "one").await, stored(&world, "two").await), ((0, 1), (0, 1)));
    assert_eq!(kind(trade(3).await), Some(ErrorKind::TimedOut), "it is not done later either");
    assert_eq!(trade(4).await.unwrap(), [2, 2]);
}

/// It asked whether this still was its host until the store was back.
#[tokio::test(start_paused = true)]
async fn a_trade_that_met_a_document_is_answered_while_the_store_is_away() {
    let world = World::new();
    let way = world.another_way();
    let (server, _calling) = hosted(&host_on(&world, way.clone()), "a").await;
    let (one, two) = (start(&server, 1, "one").await, start(&server, 2, "two").await);
    let [one, two] = [one.session, two.session];
    write_over(&world, &server, "one", 99).await;
    settle().await;
    // The trade finds the document, and nothing after that gets through.
    way.plan().fail(Fault::Refused, u64::MAX);
    way.plan().spare(1);
    let trade =
        server.transact(request(3), parts([(&one, 3), (&two, 7)]), vec![], Some(2 * SECOND));
    let answered = tokio::time::timeout(60 * SECOND, trade).await.expect("it is answered");
    assert_eq!(kind(answered), Some(ErrorKind::Unknown));
    way.plan().heal();
    assert!(!server.outcome(request(3)).await.unwrap());
    assert_eq!((stored(&world, "one").await, stored(&world, "two").await), ((99, 2), (0, 1)));
}

/// Finding that it was not aborted and reading what it was had a call's time each.
#[tokio::test(start_paused = true)]
async fn what_became_of_a_request_is_told_in_a_calls_time() {
    let world = World::new();
    let way = world.another_way();
    let (server, _calling) = hosted(&host_on(&world, way.clone()), "a").await;
    let Started { session, .. } = start(&server, 1, "p").await;
    session.save(request(2), player(5)).await.unwrap();
    let began = tokio::time::Instant::now();
    // The last attempt of the first step gets through, and nothing after it.
    way.plan().fail(Fault::Refused, 5);
    let asking = tokio::spawn({
        let server = server.clone();
        async move { server.outcome(request(2)).await }
    });
    tokio::time::sleep(20 * SECOND).await;
    way.plan().fail(Fault::Refused, u64::MAX);
    way.plan().spare(1);
    assert_eq!(kind(asking.await.unwrap()), Some(ErrorKind::Unknown));
    assert!(began.elapsed() <= 30 * SECOND, "{:?}", began.elapsed());
    way.plan().heal();
    assert!(server.outcome(request(2)).await.unwrap());
}
