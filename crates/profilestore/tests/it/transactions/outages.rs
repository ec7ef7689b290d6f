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
async fn a_trade_is_refused_while_its_server_cannot_confirm_its_lease() {
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

#[tokio::test(start_paused = true)]
async fn players_of_a_trade_with_an_unknown_outcome_can_be_read_and_are_free_once_the_store_is_back()
 {
    for (fault, applied) in [(Fault::AnswerLost, true), (Fault::RequestLost, false)] {
        let world = World::new();
        let a = world.server("a").await;
        let (alice, bob) = pair(&a).await;
        assert_eq!(alice.frozen_for(), None);
        world.store.plan().fail(fault, 1);
        let trading =
            tokio::spawn(move_coins(a.transaction().deadline(2 * SECOND), &alice, &bob, 30));
        settle().await;
        world.store.plan().cut_off();
        let waiting = {
            let alice = alice.clone();
            tokio::spawn(async move { alice.update_when_free(|data| data.coins += 1).await })
        };
        tokio::time::sleep(126 * SECOND).await;
        // Longer than its deadline, for as long as the store is away.
        for profile in [&alice, &bob] {
            assert!(profile.frozen_for().unwrap() >= 126 * SECOND);
            assert_eq!(profile.read(|data| data.coins), 100);
            assert_eq!(kind(profile.update(|data| data.coins = 0)), ErrorKind::Busy);
        }
        assert!(!trading.is_finished() && !waiting.is_finished());
        world.store.plan().heal();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(trading.is_finished(), "not only after the longest pause between attempts");
        assert_eq!(trading.await.unwrap().is_ok(), applied);
        assert_eq!((alice.frozen_for(), bob.frozen_for()), (None, None));
        waiting.await.unwrap().unwrap();
        assert_eq!(both(&alice, &bob), if applied { (71, 130) } else { (101, 100) });
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_holds_a_trade_up_for_about_its_own_length() {
    let world = World::new();
    let a = world.server("a").await;
    let (alice, bob) = pair(&a).await;
    world.store.plan().cut_off();
    let trading = trade(&a, &alice, &bob, 30);
    tokio::time::sleep(8 * SECOND).await;
    world.store.plan().heal();
    let began = tokio::time::Instant::now();
    trading.await.unwrap().unwrap();
    assert!(began.elapsed() <= 2 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_player_of_a_frozen_trade_who_was_taken_meanwhile_is_lost_and_free() {
    let world = World::new();
    let own_way = world.another_way();
    let (a, b) = (world.server_on("a", own_way.clone()).await, world.server("b").await);
    let (alice, bob) = pair(&a).await;
    own_way.plan().fail(Fault::RequestLost, 1);
    let trading = trade(&a, &alice, &bob, 30);
    settle().await;
    own_way.plan().cut_off();
    // The other server buries this one, and takes alice.
    let taken = open(&b, "alice").await;
    assert_eq!(taken.data().coins, 100);
    assert!(bob.frozen_for().is_some());
    own_way.plan().heal();
    tokio::time::sleep(5 * SECOND).await;
    assert!(trading.await.unwrap().is_err());
    assert!(alice.is_over() && !bob.is_over());
    assert_eq!((alice.frozen_for(), bob.frozen_for()), (None, None));
    earn(&bob, 1);
    bob.save().await.unwrap();
    assert_eq!(both_stored(&b).await, (100, 101));
}

/// The trade waited for what the lost player's listeners are to get, which cannot be read while the
/// store is away.
#[tokio::test(start_paused = true)]
async fn a_trade_whose_player_is_lost_while_the_store_goes_away_ends_by_its_deadline() {
    let world = World::without_messenger();
    let own_way = world.another_way();
    let (a, b) = (world.server_on("a", own_way.clone()).await, world.server("b").await);
    let (alice, bob) = pair(&a).await;
    alice.on_after_save(|_| {});
    let thief = players(&b).start_session_with("alice", StartOptions::new().steal()).await.unwrap();
    // The store refuses the trade, and then it is away.
    own_way.plan().fail(Fault::Refused, u64::MAX);
    own_way.plan().spare(1);
    let began = tokio::time::Instant::now();
    let trading = tokio::spawn(move_coins(a.transaction().deadline(5 * SECOND), &bob, &alice, 30));
    tokio::time::sleep(4 * SECOND).await;
    assert!(!trading.is_finished() && alice.is_over() && !bob.is_over());
    // The other one is free as soon as the refusal has come.
    assert_eq!((bob.frozen_for(), bob.data().coins), (None, 100));
    earn(&bob, 1);
    assert_eq!(kind(trading.await.unwrap()), ErrorKind::TimedOut);
    assert_eq!(began.elapsed(), 5 * SECOND);
    own_way.plan().heal();
    bob.save().await.unwrap();
    assert_eq!(thief.data().coins, 100);
    assert_eq!(both_stored(&b).await, (100, 101));
    bob.end_session().await.unwrap();
    assert!(a.shutdown().await.is_complete(), "nothing is left half done");
}

/// One after the other waited for what is stored now, for as long as any call may.
#[tokio::test(start_paused = true)]
async fn a_trade_that_meets_a_restored_backup_ends_by_its_deadline() {
    let world = World::new();
    let detour = Detour::new(world.store.clone());
    let a = world.server_on("a", detour.clone()).await;
    let (alice, bob) = pair(&a).await;
    for profile in [&alice, &bob] {
        profile.on_after_save(|_| {});
    }
    let restored = on_command(MemoryStore::new(world.env.clone()));
    // It refuses the trade, and then it is away.
    restored.plan().fail(Fault::Refused, u64::MAX);
    restored.plan().spare(1);
    detour.lead_to(restored);
    let began = tokio::time::Instant::now();
    let failed = move_coins(a.transaction().deadline(5 * SECOND), &alice, &bob, 30).await;
    assert_eq!(kind(failed), ErrorKind::Replaced);
    assert!(began.elapsed() <= 5 * SECOND, "{:?}", began.elapsed());
    assert!(alice.is_over() && bob.is_over());
    assert_eq!(both(&alice, &bob), (100, 100));
}

/// Five of them made the server's state critical, although the store answered each time.
#[tokio::test(start_paused = true)]
async fn a_deadline_of_the_callers_own_that_passes_is_no_error_of_the_store() {
    let world = World::new();
    let a = world.server("a").await;
    let (alice, bob) = pair(&a).await;
    let errors = Arc::new(AtomicU64::new(0));
    let count = errors.clone();
    a.on_error(move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
    });
    // Each request arrives in time, and its answer does not.
    world.store.plan().slow(SECOND / 10);
    for _ in 0..7 {
        let time = Duration::from_millis(90);
        move_coins(a.transaction().deadline(time), &alice, &bob, 1).await.unwrap();
        tokio::time::sleep(SECOND).await;
    }
    assert_eq!(errors.load(Ordering::SeqCst), 0);
    assert!(!a.is_critical_state());
    assert_eq!(both(&alice, &bob), (93, 107));
    // One that does not arrive at all, long before the deadline, is one.
    world.store.plan().fail(Fault::Refused, 1);
    move_coins(a.transaction().deadline(20 * SECOND), &alice, &bob, 1).await.unwrap();
    assert_eq!(errors.load(Ordering::SeqCst), 1);
}
