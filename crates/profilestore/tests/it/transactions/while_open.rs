//! While a transaction is open: what waits for it, and what it waits for.

use super::*;

#[tokio::test(start_paused = true)]
async fn while_it_is_open_edits_are_refused_or_wait_and_reads_see_the_data_from_before() {
    let world = World::new();
    let a = world.server("a").await;
    let (alice, bob) = pair(&a).await;
    world.store.plan().fail(Fault::Refused, 2);
    let trading = trade(&a, &alice, &bob, 30);
    settle().await;
    let refused = alice.update(|data| data.coins = 0).unwrap_err();
    assert_eq!((refused.kind(), refused.advice()), (ErrorKind::Busy, Advice::Retry));
    assert!(
        refused.to_string().contains("a transaction is open") && refused.key() == Some(alice.key()),
        "{refused}"
    );
    assert_eq!(kind(bob.add_user_id(7)), ErrorKind::Busy);
    assert_eq!(kind(bob.reconcile()), ErrorKind::Busy);
    assert_eq!(both(&alice, &bob), (100, 100));
    assert!(alice.is_active() && !alice.is_over());
    let waiting = {
        let alice = alice.clone();
        tokio::spawn(async move {
            alice
                .update_when_free(|data| {
                    data.coins += 1;
                    data.coins
                })
                .await
        })
    };
    let saving = tokio::spawn(alice.save());
    settle().await;
    assert!(!waiting.is_finished() && !saving.is_finished());
    trading.await.unwrap().unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), 71);
    saving.await.unwrap().unwrap();
    assert_eq!(both(&alice, &bob), (71, 130));
    // Where nothing is in the way it does not wait at all.
    bob.update_when_free(|data| data.coins += 1).await.unwrap();
    bob.end_session().await.unwrap();
    assert_eq!(kind(bob.update_when_free(|data| data.coins += 1).await), ErrorKind::SessionEnded);
}

#[tokio::test(start_paused = true)]
async fn messages_that_come_while_it_is_open_are_offered_when_it_is_over() {
    for succeeds in [true, false] {
        let world = World::new();
        let own_way = world.another_way();
        let (a, b) = (world.server_on("a", own_way.clone()).await, world.server("b").await);
        let (alice, bob) = pair(&a).await;
        players(&b).send_message("alice", &json!({"coins": 1})).await.unwrap();
        settle().await;
        own_way.plan().fail(Fault::Refused, 2);
        let trading = tokio::spawn(move_coins(
            a.transaction().deadline(if succeeds { 10 * SECOND } else { SECOND }),
            &alice,
            &bob,
            30,
        ));
        settle().await;
        take_gifts(&alice);
        assert_eq!((alice.data().coins, alice.waiting_messages().len()), (100, 1));
        players(&b).send_message("alice", &json!({"coins": 2})).await.unwrap();
        tokio::time::sleep(10 * SECOND).await;
        assert_eq!(trading.await.unwrap().is_ok(), succeeds);
        assert_eq!(alice.data().coins, if succeeds { 73 } else { 103 });
        assert_eq!(coins(&b, "alice").await, alice.data().coins);
        assert!(players(&b).get("alice").await.unwrap().unwrap().waiting_messages().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_while_it_is_open_comes_behind_it_with_its_hooks() {
    for succeeds in [true, false] {
        let world = World::new();
        let own_way = world.another_way();
        let (a, b) = (world.server_on("a", own_way.clone()).await, world.server("b").await);
        let (alice, bob) = pair(&a).await;
        let log = Arc::new(Mutex::new(Vec::new()));
        let (hooks, ends) = (log.clone(), log.clone());
        alice.on_last_save(move |reason, data| {
            assert_eq!(reason, LastSave::Manual);
            hooks.lock().push(format!("last save {}", data.coins));
            data.items.push("hat".into());
        });
        alice.on_session_end(move |end| ends.lock().push(format!("{end:?}")));
        own_way.plan().fail(Fault::Refused, 2);
        let deadline = if succeeds { 10 * SECOND } else { SECOND };
        let trading =
            tokio::spawn(move_coins(a.transaction().deadline(deadline), &alice, &bob, 30));
        settle().await;
        let waiting = {
            let alice = alice.clone();
            tokio::spawn(async move { alice.update_when_free(|data| data.coins = 0).await })
        };
        settle().await;
        let ending = tokio::spawn(alice.end_session());
        settle().await;
        assert_eq!(kind(alice.update(|data| data.coins = 0)), ErrorKind::SessionEnded);
        assert_eq!(
            kind(waiting.await.unwrap()),
            ErrorKind::SessionEnded,
            "who waited is told at once"
        );
        assert!(alice.is_over() && !alice.is_active());
        assert!(log.lock().is_empty() && !ending.is_finished());
        // The next session, here, comes behind both.
        let again = tokio::spawn(players(&a).start_session("alice"));
        assert_eq!(trading.await.unwrap().is_ok(), succeeds);
        ending.await.unwrap().unwrap();
        let left = if succeeds { 70 } else { 100 };
        assert_eq!(*log.lock(), [format!("last save {left}"), "Manual".into()]);
        let again = again.await.unwrap().unwrap();
        assert_eq!(again.data(), Player { coins: left, items: vec!["hat".into()] });
        assert_eq!(coins(&b, "bob").await, 200 - left);
        assert_eq!(kind(trade(&a, &alice, &bob, 1).await.unwrap()), ErrorKind::SessionEnded);
        trade(&a, &again, &bob, 1).await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_before_its_turn_waits_for_it_and_one_called_in_its_closure_too() {
    let world = World::new();
    let a = world.server("a").await;
    let (alice, bob) = pair(&a).await;
    earn(&alice, 1);
    world.store.plan().fail(Fault::Refused, 1);
    let saving = tokio::spawn(alice.save());
    settle().await;
    let trading = trade(&a, &alice, &bob, 30);
    settle().await;
    let ending = tokio::spawn(alice.end_session());
    settle().await;
    assert!(alice.is_over());
    let too_late = trade(&a, &alice, &bob, 1).await.unwrap().unwrap_err();
    assert_eq!((too_late.kind(), too_late.key()), (ErrorKind::SessionEnded, Some(alice.key())));
    trading.await.unwrap().unwrap();
    saving.await.unwrap().unwrap();
    ending.await.unwrap().unwrap();
    assert_eq!(both_stored(&a).await, (71, 130));
    earn(&bob, 1);
    let inside = bob.clone();
    let ended = a.transaction().with(&bob).run(move |tx| {
        let refused =
            (inside.update(|_| ()).unwrap_err().kind(), tx.edit(&inside, |data| data.coins)?);
        // Dropped, as a caller that does not wait for it would.
        drop(inside.end_session());
        tx.edit(&inside, |data| data.coins += 10)?;
        Ok::<_, Error>(refused)
    });
    assert_eq!(ended.await.unwrap(), (ErrorKind::Busy, 131));
    assert!(bob.is_over(), "it comes behind the transaction");
    assert_eq!(both_stored(&a).await, (71, 141));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_while_it_is_open_saves_everybody_behind_it() {
    let world = World::new();
    let own_way = world.another_way();
    let (a, b) = (world.server_on("a", own_way.clone()).await, world.server("b").await);
    let (alice, bob) = pair(&a).await;
    own_way.plan().fail(Fault::AnswerLost, 2);
    let trading = trade(&a, &alice, &bob, 30);
    settle().await;
    let report = a.shutdown().await;
    assert!(report.is_complete(), "{report:?}");
    trading.await.unwrap().unwrap();
    assert_eq!(both_stored(&b).await, (70, 130));
    let refused = trade(&a, &alice, &bob, 1).await.unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Closing);
    drop(open(&b, "alice").await);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_that_cannot_wait_for_it_names_its_participants() {
    let world = World::new();
    let a = world.server("a").await;
    let (alice, bob) = pair(&a).await;
    world.store.plan().fail(Fault::RequestLost, u64::MAX);
    let trading = trade(&a, &alice, &bob, 30);
    settle().await;
    let report = a.shutdown().await;
    let names: Vec<_> = report.not_saved.iter().map(|(key, _)| key.key()).collect();
    assert_eq!(names, ["alice", "bob"]);
    world.store.plan().heal();
    assert_eq!(kind(trading.await.unwrap()), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_that_is_asked_for_while_it_is_open_comes_behind_it() {
    let world = World::new();
    let own_way = world.another_way();
    let (a, b) = (world.server_on("a", own_way.clone()).await, world.server("b").await);
    let (alice, bob) = pair(&a).await;
    own_way.plan().fail(Fault::Refused, 2);
    let trading = trade(&a, &alice, &bob, 30);
    settle().await;
    let there = tokio::spawn(players(&b).start_session("alice"));
    settle().await;
    assert!(!alice.is_over() && !there.is_finished());
    trading.await.unwrap().unwrap();
    let began = tokio::time::Instant::now();
    assert_eq!(there.await.unwrap().unwrap().data().coins, 70);
    assert!(began.elapsed() < SECOND, "handed over at once, {:?}", began.elapsed());
    assert!(alice.is_over() && !bob.is_over());
}

#[tokio::test(start_paused = true)]
async fn a_participant_that_was_stolen_is_lost_and_the_others_go_on() {
    let world = World::without_messenger();
    let own_way = world.another_way();
    let (a, b) = (world.server_on("a", own_way.clone()).await, world.server("b").await);
    let (alice, bob) = pair(&a).await;
    own_way.plan().fail(Fault::Refused, 2);
    let trading = trade(&a, &bob, &alice, 30);
    settle().await;
    let thief = players(&b).start_session_with("alice", StartOptions::new().steal()).await.unwrap();
    // An end that was called meanwhile learns of it too.
    let ended = Arc::new(Mutex::new(Vec::new()));
    let (ends, hooks) = (ended.clone(), ended.clone());
    alice.on_session_end(move |end| ends.lock().push(end));
    alice.on_last_save(move |_, _| hooks.lock().push(SessionEnd::Manual));
    let ending = tokio::spawn(alice.end_session());
    let lost = trading.await.unwrap().unwrap_err();
    assert_eq!((lost.kind(), lost.key()), (ErrorKind::SessionEnded, Some(alice.key())));
    assert_eq!(kind(ending.await.unwrap()), ErrorKind::SessionEnded);
    assert_eq!(*ended.lock(), [SessionEnd::Lost]);
    earn(&bob, 1);
    bob.save().await.unwrap();
    thief.save().await.unwrap();
    assert_eq!(both_stored(&b).await, (100, 101));
    thief.end_session().await.unwrap();
    bob.end_session().await.unwrap();
    assert!(a.shutdown().await.is_complete(), "nothing is left that is thought to be ending");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_declared_dead_while_it_is_open_finishes_it_and_adopts_behind_it() {
    let world = World::new();
    let own_way = world.another_way();
    let (a, b) = (world.server_on("a", own_way.clone()).await, world.server("b").await);
    let (alice, bob) = pair(&a).await;
    let other = open(&a, "other").await;
    own_way.plan().cut_off();
    let trading =
        tokio::spawn(move_coins(a.transaction().deadline(300 * SECOND), &alice, &bob, 30));
    // B takes another profile, and with it declares A dead.
    tokio::time::sleep(25 * SECOND).await;
    let taken = open(&b, "other").await;
    let before = a.server_id();
    own_way.plan().heal();
    trading.await.unwrap().unwrap();
    tokio::time::sleep(10 * SECOND).await;
    assert_ne!(a.server_id(), before);
    assert!(other.is_over() && alice.is_active() && bob.is_active());
    trade(&a, &alice, &bob, 1).await.unwrap().unwrap();
    taken.end_session().await.unwrap();
    assert_eq!(both_stored(&b).await, (69, 131));
}
