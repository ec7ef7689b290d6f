//! Gifts: messages that a transaction sends along.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_gift_reaches_a_player_who_is_online_here_or_there_or_nowhere_and_oneself() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let (alice, bob) = pair(&a).await;
    let carol = open(&b, "carol").await;
    [&alice, &bob, &carol].into_iter().for_each(take_gifts);
    for (to, amount) in [("bob", 1), ("carol", 2), ("dave", 4), ("alice", 8)] {
        give(&alice, to, amount, None).await.unwrap();
    }
    settle().await;
    assert_eq!(both(&alice, &bob), (93, 101));
    assert_eq!(carol.data().coins, 2);
    let dave = open(&b, "dave").await;
    take_gifts(&dave);
    assert_eq!(dave.data().coins, 4);
    for profile in [&alice, &bob, &carol, &dave] {
        profile.save().await.unwrap();
        assert!(profile.waiting_messages().is_empty());
    }
    assert_eq!((coins(&a, "carol").await, coins(&a, "dave").await), (2, 4));
    assert_eq!(both_stored(&b).await, (93, 101));
}

#[tokio::test(start_paused = true)]
async fn a_gift_of_an_id_that_was_sent_before_makes_the_whole_transaction_do_nothing() {
    let world = World::new();
    let own_way = world.another_way();
    let (a, b) = (world.server_on("a", own_way.clone()).await, world.server("b").await);
    let (alice, _bob) = pair(&a).await;
    let id = MessageId::new(world.env.unix_ms(), "gift-1").unwrap();
    // Its server dies before the answer comes.
    own_way.plan().fail(Fault::AnswerLost, u64::MAX);
    drop(give(&alice, "carol", 30, Some(id.clone())));
    settle().await;
    a.crash();
    own_way.plan().cut_off();
    let alice = open(&b, "alice").await;
    assert_eq!(alice.data().coins, 70);
    let again = give(&alice, "carol", 30, Some(id.clone())).await.unwrap_err();
    assert_eq!((again.kind(), again.advice()), (ErrorKind::DoneBefore, Advice::Ignore));
    let carol = open(&b, "carol").await;
    take_gifts(&carol);
    carol.save().await.unwrap();
    assert_eq!(
        kind(give(&alice, "carol", 30, Some(id.clone())).await),
        ErrorKind::DoneBefore,
        "after it was consumed, too"
    );
    assert_eq!(kind(give(&alice, "carol", 31, Some(id)).await), ErrorKind::MessageIdReused);
    let old = MessageId::new(world.env.unix_ms() - 31 * 86_400_000, "old").unwrap();
    assert_eq!(kind(give(&alice, "carol", 1, Some(old)).await), ErrorKind::MessageIdExpired);
    assert_eq!((alice.data().coins, carol.data().coins), (70, 30));
    earn(&alice, 1);
    alice.save().await.unwrap();
    assert_eq!(coins(&b, "alice").await, 71);
}

#[tokio::test(start_paused = true)]
async fn a_full_inbox_takes_the_debit_back() {
    for lost in [None, Some(Fault::RequestLost)] {
        let mut world = World::new();
        world.settings.max_message_queue = 1;
        let a = world.server("a").await;
        let (alice, _bob) = pair(&a).await;
        let told = Arc::new(AtomicU64::new(0));
        let count = told.clone();
        a.on_error(move |message, _| {
            count.fetch_add(u64::from(message.contains("inbox is full")), Ordering::SeqCst);
        });
        give(&alice, "carol", 1, None).await.unwrap();
        if let Some(fault) = lost {
            world.store.plan().fail(fault, 1);
        }
        assert_eq!(kind(give(&alice, "carol", 30, None).await), ErrorKind::InboxFull);
        assert_eq!(told.load(Ordering::SeqCst), 1);
        assert_eq!(alice.data().coins, 99);
        let carol = open(&a, "carol").await;
        take_gifts(&carol);
        carol.save().await.unwrap();
        give(&alice, "carol", 30, None).await.unwrap();
        settle().await;
        assert_eq!((alice.data().coins, carol.data().coins), (69, 31), "{lost:?}");
    }
}
