//! G4: a transaction over several profiles is durable as a whole or not at all, whatever happens to whom meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use profilestore::{
    Advice, Error, ErrorKind, GameServer, LastSave, MAX_GIFTS, MAX_PARTICIPANTS, Message, MessageId, Profile, Result, SessionEnd,
    StartOptions, TransactionBuilder, data_store::Cause,
};
use serde_json::json;

use crate::{
    regressions::Detour,
    world::{Fault, Player, World, coins, earn, open, players, settle},
};

mod crossing;
mod property;

const SECOND: Duration = Duration::from_secs(1);

/// Two players of one server with 100 coins each, stored.
async fn pair(server: &GameServer) -> (Profile<Player>, Profile<Player>) {
    let (alice, bob) = (open(server, "alice").await, open(server, "bob").await);
    for profile in [&alice, &bob] {
        earn(profile, 100);
        profile.save().await.unwrap();
    }
    (alice, bob)
}

fn move_coins(
    builder: TransactionBuilder,
    from: &Profile<Player>,
    to: &Profile<Player>,
    amount: i64,
) -> impl Future<Output = Result<i64>> + Send + 'static + use<> {
    let (from, to) = (from.clone(), to.clone());
    builder.with(&from).with(&to).run(move |tx| {
        let left = tx.edit(&from, |data| {
            data.coins -= amount;
            data.coins
        })?;
        tx.edit(&to, |data| data.coins += amount)?;
        Ok(left)
    })
}

/// Under way at once; the answer is to be awaited.
fn trade(server: &GameServer, from: &Profile<Player>, to: &Profile<Player>, amount: i64) -> tokio::task::JoinHandle<Result<i64>> {
    tokio::spawn(move_coins(server.transaction(), from, to, amount))
}

/// A debit here, and a message that carries it to somebody else.
fn give(
    from: &Profile<Player>,
    to: &str,
    amount: i64,
    id: Option<MessageId>,
) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
    let (store, from, to) = (from.store().clone(), from.clone(), to.to_owned());
    store.server().transaction().with(&from).run(move |tx| {
        tx.edit(&from, |data| data.coins -= amount)?;
        let gift = json!({"coins": amount});
        match id {
            Some(id) => tx.gift_as(&store, &to, &id, &gift),
            None => tx.gift(&store, &to, &gift),
        }
    })
}

fn take_gifts(profile: &Profile<Player>) {
    profile.message_handler(|data, message: &Message<'_>| {
        let gift: serde_json::Value = message.parse().unwrap();
        data.coins += gift["coins"].as_i64().unwrap();
        message.processed();
    });
}

fn both(alice: &Profile<Player>, bob: &Profile<Player>) -> (i64, i64) {
    (alice.read(|data| data.coins), bob.read(|data| data.coins))
}

async fn both_stored(server: &GameServer) -> (i64, i64) {
    (coins(server, "alice").await, coins(server, "bob").await)
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[tokio::test(start_paused = true)]
async fn a_trade_is_one_commit_and_tells_the_listeners_of_saves() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let (alice, bob) = pair(&a).await;
    let log = Arc::new(Mutex::new(Vec::new()));
    let (hooks, saved) = (log.clone(), log.clone());
    alice.on_save(move |_| hooks.lock().push(("hook", 0)));
    alice.on_after_save(move |data| saved.lock().push(("saved", data.coins)));
    let commits = world.store.plan().commits.load(Ordering::SeqCst);
    assert_eq!(trade(&a, &alice, &bob, 30).await.unwrap().unwrap(), 70);
    assert_eq!(both(&alice, &bob), (70, 130));
    assert_eq!(world.store.plan().commits.load(Ordering::SeqCst), commits + 1);
    assert_eq!(both_stored(&b).await, (70, 130));
    assert_eq!(*log.lock(), [("saved", 70)]);
    assert_eq!(alice.last_saved_data().coins, 70);
    // The next save finds nothing to write.
    let version = alice.key_info().number;
    alice.save().await.unwrap();
    assert_eq!(alice.key_info().number, version);
    assert_eq!(Cause::Transaction.as_str(), "transaction");
}

#[tokio::test(start_paused = true)]
async fn what_was_not_saved_before_is_saved_along_and_messages_leave_with_their_effect() {
    let world = World::new();
    let a = world.server("a").await;
    let (alice, bob) = pair(&a).await;
    earn(&alice, 5);
    earn(&bob, 7);
    // Bob takes part without being edited.
    let seller = alice.clone();
    a.transaction().with(&alice).with(&bob).run(move |tx| tx.edit(&seller, |data| data.coins += 1)).await.unwrap();
    assert_eq!(both_stored(&a).await, (106, 107));
    players(&a).send_message("alice", &json!({"coins": 10})).await.unwrap();
    settle().await;
    // The handler's save comes behind the transaction, which removes the message already.
    take_gifts(&alice);
    trade(&a, &alice, &bob, 1).await.unwrap().unwrap();
    settle().await;
    assert_eq!(both_stored(&a).await, (115, 108));
    assert!(alice.waiting_messages().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_closure_is_the_answer_and_nothing_was_done() {
    #[derive(Debug)]
    enum Refused {
        TooPoor(i64),
        #[expect(dead_code, reason = "shown when the test fails")]
        Store(Error),
    }
    impl From<Error> for Refused {
        fn from(error: Error) -> Self {
            Self::Store(error)
        }
    }
    let world = World::new();
    let a = world.server("a").await;
    let (alice, bob) = pair(&a).await;
    let (buyer, seller) = (alice.clone(), bob.clone());
    let refused = a.transaction().with(&alice).with(&bob).run(move |tx| {
        tx.edit(&seller, |data| data.coins += 500)?;
        let left = tx.edit(&buyer, |data| {
            data.coins -= 500;
            data.coins
        })?;
        if left < 0 { Err(Refused::TooPoor(left)) } else { Ok(()) }
    });
    assert!(matches!(refused.await, Err(Refused::TooPoor(-400))));
    assert_eq!(both(&alice, &bob), (100, 100));
    earn(&alice, 1);
    alice.save().await.unwrap();
    assert_eq!(both_stored(&a).await, (101, 100));
}

#[tokio::test(start_paused = true)]
async fn all_or_nothing_whatever_becomes_of_the_call() {
    for fault in [Fault::Refused, Fault::AnswerLost, Fault::RequestLost] {
        for count in [1, 2, 3] {
            let world = World::new();
            let (a, b) = (world.server("a").await, world.server("b").await);
            let (alice, bob) = pair(&a).await;
            world.store.plan().fail(fault, count);
            trade(&a, &alice, &bob, 30).await.unwrap().unwrap();
            assert_eq!(both(&alice, &bob), (70, 130), "{fault:?} {count}");
            assert_eq!(both_stored(&b).await, (70, 130), "{fault:?} {count}");
            earn(&alice, 1);
            alice.save().await.unwrap();
            assert_eq!(both_stored(&b).await, (71, 130), "{fault:?} {count}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_leaves_both_sides_or_neither() {
    for (fault, stored) in
        [(Fault::Refused, (100, 100, 0)), (Fault::RequestLost, (100, 100, 0)), (Fault::AnswerLost, (60, 130, 1))]
    {
        let world = World::new();
        let own_way = world.another_way();
        let (a, b) = (world.server_on("a", own_way.clone()).await, world.server("b").await);
        let (alice, bob) = pair(&a).await;
        own_way.plan().fail(fault, u64::MAX);
        let (from, to, store) = (alice.clone(), bob.clone(), players(&a));
        drop(a.transaction().with(&alice).with(&bob).run(move |tx| {
            tx.edit(&from, |data| data.coins -= 40)?;
            tx.edit(&to, |data| data.coins += 30)?;
            tx.gift(&store, "carol", &json!({"coins": 10}))
        }));
        settle().await;
        a.crash();
        own_way.plan().cut_off();
        let (alice, bob) = (open(&b, "alice").await, open(&b, "bob").await);
        let carol = open(&b, "carol").await;
        assert_eq!((alice.data().coins, bob.data().coins, carol.waiting_messages().len()), stored, "{fault:?}");
    }
}

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
    assert!(refused.to_string().contains("a transaction is open") && refused.key() == Some(alice.key()), "{refused}");
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
        let trading =
            tokio::spawn(move_coins(a.transaction().deadline(if succeeds { 10 * SECOND } else { SECOND }), &alice, &bob, 30));
        settle().await;
        take_gifts(&alice);
        assert_eq!((alice.data().coins, alice.waiting_messages().len()), (100, 1));
        players(&b).send_message("alice", &json!({"coins": 2})).await.unwrap();
        tokio::time::sleep(10 * SECOND).await;
        assert_eq!(trading.await.unwrap().is_ok(), succeeds);
        assert_eq!(alice.data().coins, if succeeds { 73 } else { 103 });
        assert_eq!(coins(&b, "alice").await, alice.data().coins);
        assert!(players(&b).get("alice").await.unwrap().waiting_messages().is_empty());
    }
}

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
        let trading = tokio::spawn(move_coins(a.transaction().deadline(2 * SECOND), &alice, &bob, 30));
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
        let trading = tokio::spawn(move_coins(a.transaction().deadline(deadline), &alice, &bob, 30));
        settle().await;
        let waiting = {
            let alice = alice.clone();
            tokio::spawn(async move { alice.update_when_free(|data| data.coins = 0).await })
        };
        settle().await;
        let ending = tokio::spawn(alice.end_session());
        settle().await;
        assert_eq!(kind(alice.update(|data| data.coins = 0)), ErrorKind::SessionEnded);
        assert_eq!(kind(waiting.await.unwrap()), ErrorKind::SessionEnded, "who waited is told at once");
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
        let refused = (inside.update(|_| ()).unwrap_err().kind(), tx.edit(&inside, |data| data.coins)?);
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
    let trading = tokio::spawn(move_coins(a.transaction().deadline(300 * SECOND), &alice, &bob, 30));
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

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_closure_changes_nothing_and_goes_on_in_the_caller() {
    let world = World::new();
    let a = world.server("a").await;
    let (alice, bob) = pair(&a).await;
    let from = alice.clone();
    let panicked = tokio::spawn(a.transaction().with(&alice).with(&bob).run(move |tx| -> Result<()> {
        tx.edit(&from, |data| data.coins = 0)?;
        panic!("on purpose")
    }));
    let panic = panicked.await.unwrap_err().into_panic();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"));
    // A closure that catches the panic of an edit cannot commit half of it.
    let from = alice.clone();
    let caught = a.transaction().with(&alice).run(move |tx| {
        let edit = std::panic::AssertUnwindSafe(|| {
            tx.edit(&from, |data| {
                data.coins = 0;
                panic!("on purpose");
            })
        });
        assert!(std::panic::catch_unwind(edit).is_err());
        Ok::<_, Error>(())
    });
    assert_eq!(kind(caught.await), ErrorKind::Invalid);
    assert_eq!(both(&alice, &bob), (100, 100));
    trade(&a, &alice, &bob, 30).await.unwrap().unwrap();
    assert_eq!(both_stored(&a).await, (70, 130));
}

#[tokio::test(start_paused = true)]
async fn a_gift_reaches_whoever_is_online_here_or_there_or_nowhere_and_oneself() {
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
    assert_eq!(kind(give(&alice, "carol", 30, Some(id.clone())).await), ErrorKind::DoneBefore, "after it was consumed, too");
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

#[tokio::test(start_paused = true)]
async fn wrong_calls_are_refused_before_anything_is_sent() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let (alice, bob) = pair(&a).await;
    let elsewhere = open(&b, "elsewhere").await;
    let mocked = players(&a).mock().start_session("alice").await.unwrap();
    let commits = world.store.plan().commits.load(Ordering::SeqCst);
    let invalid = |result: Result<i64>, word: &str| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    };
    invalid(a.transaction().run(|_| Ok(1)).await, "at least one profile");
    invalid(move_coins(a.transaction(), &alice, &elsewhere, 1).await, "another game server");
    invalid(move_coins(b.transaction(), &alice, &bob, 1).await, "another game server");
    invalid(move_coins(a.transaction(), &alice, &mocked, 1).await, "mock");
    let many = (0..=MAX_PARTICIPANTS).map(|n| format!("many-{n}"));
    let mut builder = a.transaction();
    for key in many {
        builder = builder.with(&players(&a).mock().start_session(&key).await.unwrap());
    }
    invalid(builder.run(|_| Ok(1)).await, "limit=`64`");
    // An error that the closure swallows counts all the same.
    let (from, stranger) = (alice.clone(), bob.clone());
    let swallowed = a.transaction().with(&alice).run(move |tx| {
        tx.edit(&from, |data| data.coins = 0)?;
        let _ = tx.edit(&stranger, |data| data.coins = 0);
        Ok(1)
    });
    invalid(swallowed.await, "does not take part");
    let (from, store) = (alice.clone(), players(&a));
    let gifts = a.transaction().with(&alice).run(move |tx| {
        for _ in 0..=MAX_GIFTS {
            tx.edit(&from, |data| data.coins -= 1)?;
            let _ = tx.gift(&store, "carol", &1);
        }
        Ok(1)
    });
    invalid(gifts.await, "limit=`64`");
    let store = players(&a).mock();
    invalid(a.transaction().with(&alice).run(move |tx| tx.gift(&store, "carol", &1).map(|()| 1)).await, "mock");
    let store = players(&a);
    let large = a.transaction().with(&alice).run(move |tx| tx.gift(&store, "carol", &"x".repeat(300_000)));
    assert_eq!(kind(large.await), ErrorKind::TooLarge);
    let from = alice.clone();
    let large = a.transaction().with(&alice).run(move |tx| tx.edit(&from, |data| data.items.push("x".repeat(5 << 20))));
    assert_eq!(kind(large.await), ErrorKind::TooLarge);
    assert_eq!(world.store.plan().commits.load(Ordering::SeqCst), commits);
    assert_eq!(both(&alice, &bob), (100, 100));
    // A mock's profiles have transactions of their own.
    let other = players(&a).mock().start_session("other").await.unwrap();
    move_coins(a.transaction(), &mocked, &other, 5).await.unwrap();
    give(&mocked, "bob", 5, None).await.unwrap();
    assert_eq!((mocked.data().coins, other.data().coins), (-10, 5));
    assert!(bob.waiting_messages().is_empty(), "it went to the mock's bob");
}

#[tokio::test(start_paused = true)]
async fn an_earlier_session_of_the_same_profile_takes_no_part() {
    let world = World::new();
    let a = world.server("a").await;
    let (old, bob) = pair(&a).await;
    old.end_session().await.unwrap();
    let alice = open(&a, "alice").await;
    assert_eq!(kind(move_coins(a.transaction().with(&alice), &old, &bob, 1).await), ErrorKind::SessionEnded);
    assert_eq!(kind(move_coins(a.transaction(), &old, &bob, 1).await), ErrorKind::SessionEnded);
    // Named twice is named once.
    move_coins(a.transaction().with(&alice).with(&alice), &alice, &bob, 1).await.unwrap();
    assert_eq!(both(&alice, &bob), (99, 101));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_future_cancels_nothing() {
    let world = World::new();
    let a = world.server("a").await;
    let (alice, bob) = pair(&a).await;
    drop(move_coins(a.transaction(), &alice, &bob, 30));
    let saved = alice.save();
    saved.await.unwrap();
    assert_eq!(both_stored(&a).await, (70, 130));
}
