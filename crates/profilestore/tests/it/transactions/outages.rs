//! Transactions while the store fails: each ends by its deadline, and its outcome gets known.

use super::*;

#[tokio::test(start_paused = true)]
async fn definite_failures_end_it_at_the_deadline() {
    let world = World::new();
    let a = world.server("a").await;
    let (alice, bob) = pair(&a).await;
    world.store.plan().fail(Fault::Refused, u64::MAX);
    let began = tokio::time::Instant::now();
    let failed = move_coins(a.transaction().deadline(2 * SECOND), &alice, &bob, 30).await;
    assert_eq!(kind(failed), ErrorKind::Unavailable);
    assert!(began.elapsed() <= 2 * SECOND, "{:?}", began.elapsed());
    assert_eq!(both(&alice, &bob), (100, 100));
    earn(&alice, 1);
    world.store.plan().heal();
    alice.save().await.unwrap();
    assert_eq!(both_stored(&a).await, (101, 100));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_at_the_deadline_is_made_known_before_anything_goes_on() {
    for (fault, applied) in [(Fault::AnswerLost, true), (Fault::RequestLost, false)] {
        let world = World::new();
        let a = world.server("a").await;
        let (alice, bob) = pair(&a).await;
        world.store.plan().fail(fault, 1);
        let trading =
            tokio::spawn(move_coins(a.transaction().deadline(2 * SECOND), &alice, &bob, 30));
        settle().await;
        world.store.plan().fail(Fault::Refused, u64::MAX);
        tokio::time::sleep(15 * SECOND).await;
        assert!(!trading.is_finished(), "nobody can tell yet");
        assert_eq!(kind(alice.update(|_| ())), ErrorKind::Busy);
        world.store.plan().heal();
        match trading.await.unwrap() {
            Ok(left) => assert!(applied && left == 70),
            Err(error) => assert!(!applied && error.kind() == ErrorKind::Unavailable, "{error}"),
        }
        let expected = if applied { (70, 130) } else { (100, 100) };
        assert_eq!(both(&alice, &bob), expected);
        assert_eq!(both_stored(&a).await, expected);
        earn(&alice, 1);
        alice.save().await.unwrap();
        assert_eq!(coins(&a, "alice").await, expected.0 + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_is_still_under_way_when_it_is_called_off_comes_to_nothing() {
    let world = World::new();
    let detour = Detour::new(world.store.clone());
    let a = world.server_on("a", detour.clone()).await;
    let (alice, bob) = pair(&a).await;
    detour.hold_back_next();
    let failed = move_coins(a.transaction().deadline(Duration::ZERO), &alice, &bob, 30).await;
    assert_eq!(kind(failed), ErrorKind::Unavailable);
    detour.let_through().await;
    assert_eq!(both(&alice, &bob), (100, 100));
    assert_eq!(both_stored(&a).await, (100, 100));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_does_not_hold_it_beyond_the_deadline() {
    let world = World::new();
    let detour = Detour::new(world.store.clone());
    let a = world.server_on("a", detour.clone()).await;
    let (alice, bob) = pair(&a).await;
    detour.answer_late(600 * SECOND);
    let trading = tokio::spawn(move_coins(a.transaction().deadline(5 * SECOND), &alice, &bob, 30));
    tokio::time::sleep(SECOND).await;
    detour.answer_late(Duration::ZERO);
    let began = tokio::time::Instant::now();
    trading.await.unwrap().unwrap();
    assert!(began.elapsed() < 6 * SECOND, "{:?}", began.elapsed());
    assert_eq!(both(&alice, &bob), (70, 130), "it had been applied");
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_does_not_come_in_time_ends_it() {
    let world = World::new();
    let a = world.server("a").await;
    let (alice, bob) = pair(&a).await;
    earn(&bob, 1);
    world.store.plan().fail(Fault::Refused, u64::MAX);
    let saving = tokio::spawn(bob.save());
    settle().await;
    let failed = move_coins(a.transaction().deadline(SECOND), &alice, &bob, 30).await;
    assert_eq!(kind(failed), ErrorKind::TimedOut);
    earn(&alice, 1);
    world.store.plan().heal();
    saving.await.unwrap().unwrap();
    alice.save().await.unwrap();
    assert_eq!(both_stored(&a).await, (101, 101));
}

#[tokio::test(start_paused = true)]
async fn it_is_refused_while_this_server_cannot_confirm_its_lease() {
    let world = World::new();
    let a = world.server("a").await;
    let (alice, bob) = pair(&a).await;
    world.store.plan().cut_off();
    tokio::time::sleep(21 * SECOND).await;
    assert!(!alice.is_active());
    let refused = trade(&a, &alice, &bob, 30).await.unwrap().unwrap_err();
    assert_eq!((refused.kind(), refused.advice()), (ErrorKind::Unconfirmed, Advice::Retry));
    alice.update(|data| data.coins += 1).unwrap();
    world.store.plan().heal();
    tokio::time::sleep(10 * SECOND).await;
    trade(&a, &alice, &bob, 30).await.unwrap().unwrap();
    assert_eq!(both_stored(&a).await, (71, 130));
}
