//! G4: a transaction over several profiles is durable as a whole or not at all, whatever happens to
//! whom meanwhile.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use profilestore::{
    Advice, Error, ErrorKind, GameServer, LastSave, Message, MessageId, Profile, Result,
    SessionEnd, StartOptions, TransactionBuilder,
    data_store::{Cause, MemoryStore},
    transaction::{MAX_GIFTS, MAX_PARTICIPANTS},
};
use serde_json::json;

use crate::{
    regressions::Detour,
    world::{Fault, Player, World, coins, earn, on_command, open, players, settle},
};

mod between;
mod crossing;
mod gifts;
mod outages;
mod property;
mod while_open;

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
fn trade(
    server: &GameServer,
    from: &Profile<Player>,
    to: &Profile<Player>,
    amount: i64,
) -> tokio::task::JoinHandle<Result<i64>> {
    tokio::spawn(move_coins(server.transaction(), from, to, amount))
}

/// A debit here, and a message that carries it to another player.
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
    let commits = world.store.plan().commits();
    assert_eq!(trade(&a, &alice, &bob, 30).await.unwrap().unwrap(), 70);
    assert_eq!(both(&alice, &bob), (70, 130));
    assert_eq!(world.store.plan().commits(), commits + 1);
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
    a.transaction()
        .with(&alice)
        .with(&bob)
        .run(move |tx| tx.edit(&seller, |data| data.coins += 1))
        .await
        .unwrap();
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
    for (fault, stored) in [
        (Fault::Refused, (100, 100, 0)),
        (Fault::RequestLost, (100, 100, 0)),
        (Fault::AnswerLost, (60, 130, 1)),
    ] {
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
        assert_eq!(
            (alice.data().coins, bob.data().coins, carol.waiting_messages().len()),
            stored,
            "{fault:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_closure_changes_nothing_and_goes_on_in_the_caller() {
    let world = World::new();
    let a = world.server("a").await;
    let (alice, bob) = pair(&a).await;
    let from = alice.clone();
    let panicked =
        tokio::spawn(a.transaction().with(&alice).with(&bob).run(move |tx| -> Result<()> {
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
async fn wrong_calls_are_refused_before_anything_is_sent() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let (alice, bob) = pair(&a).await;
    let elsewhere = open(&b, "elsewhere").await;
    let mocked = players(&a).mock().start_session("alice").await.unwrap();
    let commits = world.store.plan().commits();
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
    invalid(
        a.transaction().with(&alice).run(move |tx| tx.gift(&store, "carol", &1).map(|()| 1)).await,
        "mock",
    );
    let store = players(&a);
    let large =
        a.transaction().with(&alice).run(move |tx| tx.gift(&store, "carol", &"x".repeat(300_000)));
    assert_eq!(kind(large.await), ErrorKind::TooLarge);
    let from = alice.clone();
    let large = a
        .transaction()
        .with(&alice)
        .run(move |tx| tx.edit(&from, |data| data.items.push("x".repeat(5 << 20))));
    assert_eq!(kind(large.await), ErrorKind::TooLarge);
    assert_eq!(world.store.plan().commits(), commits);
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
    assert_eq!(
        kind(move_coins(a.transaction().with(&alice), &old, &bob, 1).await),
        ErrorKind::SessionEnded
    );
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
