//! Messages: wherever the player is, their effect comes exactly once.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use profilestore::{
    ErrorKind, Message, MessageId, Profile, Sent,
    data_store::{Change, Commit, CommitId, DataStore, DataStoreExt, NewMessage, Returning},
};
use serde_json::json;

use crate::world::{Fault, Player, World, coins, open, players, settle};

/// Adds what messages carry.
fn take_gifts(profile: &Profile<Player>) {
    profile.message_handler(|data, message: &Message<'_>| {
        let gift: serde_json::Value = message.parse().unwrap();
        data.coins += gift["coins"].as_i64().unwrap();
        message.processed();
    });
}

#[tokio::test(start_paused = true)]
async fn a_message_reaches_a_live_profile_elsewhere_within_moments() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let profile = open(&a, "p").await;
    take_gifts(&profile);
    players(&b).send_message("p", &json!({"coins": 5})).await.unwrap();
    settle().await;
    assert_eq!(profile.data().coins, 5);
    assert_eq!(coins(&b, "p").await, 5, "and is saved, the message removed with it");
    assert!(players(&b).get("p").await.unwrap().unwrap().waiting_messages().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_burst_does_not_wait_for_an_autosave() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let profile = open(&a, "p").await;
    take_gifts(&profile);
    for _ in 0..20 {
        players(&b).send_message("p", &json!({"coins": 1})).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    settle().await;
    assert_eq!(profile.data().coins, 20);
}

#[tokio::test(start_paused = true)]
async fn without_a_messenger_a_message_takes_a_renewal() {
    let world = World::without_messenger();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let profile = open(&a, "p").await;
    take_gifts(&profile);
    players(&b).send_message("p", &json!({"coins": 5})).await.unwrap();
    tokio::time::sleep(Duration::from_millis(5100)).await;
    assert_eq!(profile.data().coins, 5);
}

#[tokio::test(start_paused = true)]
async fn a_message_on_the_same_server_and_one_to_a_profile_that_does_not_exist() {
    let world = World::new();
    let a = world.server("a").await;
    let profile = open(&a, "p").await;
    take_gifts(&profile);
    players(&a).send_message("p", &json!({"coins": 5})).await.unwrap();
    settle().await;
    assert_eq!(profile.data().coins, 5);
    players(&a).send_message("new", &json!({"coins": 6})).await.unwrap();
    let view = players(&a).get("new").await.unwrap().unwrap();
    assert_eq!(
        (view.data.coins, view.session_load_count(), view.waiting_messages().len()),
        (0, 0, 1)
    );
    let new = open(&a, "new").await;
    take_gifts(&new);
    assert_eq!(new.data().coins, 6);
}

#[tokio::test(start_paused = true)]
async fn the_same_id_again_is_harmless_before_and_after_it_was_consumed() {
    let world = World::new();
    let a = world.server("a").await;
    let store = players(&a);
    let id = MessageId::new(world.env.unix_ms(), "purchase-1").unwrap();
    let gift = json!({"coins": 5});
    assert_eq!(store.send_message_as("p", &id, &gift).await.unwrap(), Sent::Now);
    assert_eq!(store.send_message_as("p", &id, &gift).await.unwrap(), Sent::Before);
    let profile = open(&a, "p").await;
    take_gifts(&profile);
    profile.save().await.unwrap();
    assert_eq!(store.send_message_as("p", &id, &gift).await.unwrap(), Sent::Before);
    let other = store.send_message_as("p", &id, &json!({"coins": 500})).await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::MessageIdReused);
    store.remove("p").await.unwrap();
    assert_eq!(
        store.send_message_as("p", &id, &gift).await.unwrap(),
        Sent::Before,
        "receipts survive removal"
    );
    let old = MessageId::new(world.env.unix_ms() - 31 * 86_400_000, "old").unwrap();
    assert_eq!(
        store.send_message_as("p", &old, &gift).await.unwrap_err().kind(),
        ErrorKind::MessageIdExpired
    );
}

#[tokio::test(start_paused = true)]
async fn a_send_whose_answer_is_lost_arrives_once() {
    for fault in [Fault::AnswerLost, Fault::RequestLost] {
        let world = World::new();
        let (a, b) = (world.server("a").await, world.server("b").await);
        let profile = open(&a, "p").await;
        take_gifts(&profile);
        world.store.plan().fail(fault, 1);
        players(&b).send_message("p", &json!({"coins": 5})).await.unwrap();
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(profile.data().coins, 5, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_crash_before_the_save_brings_the_message_again_with_the_old_data() {
    let world = World::new();
    let own_way = world.another_way();
    let a = world.server_on("a", own_way.clone()).await;
    let b = world.server("b").await;
    let profile = open(&a, "p").await;
    players(&b).send_message("p", &json!({"coins": 5})).await.unwrap();
    settle().await;
    // The effect is there, the save never comes.
    a.crash();
    own_way.plan().cut_off();
    take_gifts(&profile);
    assert_eq!(profile.data().coins, 5);
    let again = players(&b)
        .start_session_with("p", profilestore::StartOptions::new().steal())
        .await
        .unwrap();
    assert_eq!(again.data().coins, 0);
    take_gifts(&again);
    assert_eq!(again.data().coins, 5);
    again.end_session().await.unwrap();
    assert_eq!(coins(&b, "p").await, 5);
}

#[tokio::test(start_paused = true)]
async fn an_unprocessed_message_is_offered_to_each_handler_once_and_again_next_time() {
    let world = World::new();
    let a = world.server("a").await;
    players(&a).send_message("p", &json!({"n": 1})).await.unwrap();
    players(&a).send_message("p", &json!({"n": 2})).await.unwrap();
    let profile = open(&a, "p").await;
    let log = Arc::new(Mutex::new(Vec::new()));
    let listen = |tag: &'static str, take: bool| {
        let log = log.clone();
        move |_: &mut Player, message: &Message<'_>| {
            log.lock().push((tag, message.index()));
            if take {
                message.processed();
            }
        }
    };
    profile.message_handler(listen("first", false));
    profile.message_handler(listen("second", false));
    profile.save().await.unwrap();
    players(&a).send_message("p", &json!({"n": 3})).await.unwrap();
    settle().await;
    assert_eq!(profile.waiting_messages().len(), 3);
    profile.end_session().await.unwrap();
    let again = open(&a, "p").await;
    again.message_handler(listen("taker", true));
    again.message_handler(listen("late", true));
    assert_eq!(
        *log.lock(),
        [
            ("first", 1),
            ("first", 2),
            ("second", 1),
            ("second", 2),
            ("first", 3),
            ("second", 3),
            ("taker", 1),
            ("taker", 2),
            ("taker", 3)
        ]
    );
    assert!(again.waiting_messages().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_full_inbox_is_an_error_and_nothing_is_dropped() {
    let mut world = World::new();
    world.settings.max_message_queue = 3;
    let a = world.server("a").await;
    let store = players(&a);
    for _ in 0..3 {
        store.send_message("p", &json!({"coins": 1})).await.unwrap();
    }
    let told = Arc::new(Mutex::new(0));
    let count = told.clone();
    a.on_error(move |message, key| {
        assert!(message.contains("inbox is full") && key.is_some());
        *count.lock() += 1;
    });
    assert_eq!(
        store.send_message("p", &json!({"coins": 1})).await.unwrap_err().kind(),
        ErrorKind::InboxFull
    );
    assert_eq!(*told.lock(), 1);
    let profile = open(&a, "p").await;
    take_gifts(&profile);
    assert_eq!(profile.data().coins, 3);
    profile.save().await.unwrap();
    store.send_message("p", &json!({"coins": 1})).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_leaves_data_and_message_as_they_were() {
    let world = World::new();
    let a = world.server("a").await;
    players(&a).send_message("p", &json!({"coins": 5})).await.unwrap();
    let profile = open(&a, "p").await;
    profile.message_handler(|data, message| {
        data.coins = 999;
        message.processed();
        panic!("on purpose");
    });
    assert_eq!((profile.data().coins, profile.waiting_messages().len()), (0, 1));
    take_gifts(&profile);
    assert_eq!(profile.data().coins, 5);
}

#[tokio::test(start_paused = true)]
async fn messages_processed_in_a_read_profile_leave_with_its_set() {
    let world = World::new();
    let a = world.server("a").await;
    players(&a).send_message("p", &json!({"coins": 5})).await.unwrap();
    players(&a).send_message("p", &json!({"coins": 6})).await.unwrap();
    let mut view = players(&a).get("p").await.unwrap().unwrap();
    view.handle_messages(|data, message| {
        if message.index() == 1 {
            data.coins += 5;
            message.processed();
        }
    });
    view.set().await.unwrap();
    let view = players(&a).get("p").await.unwrap().unwrap();
    assert_eq!((view.data.coins, view.waiting_messages().len()), (5, 1));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_too_large_is_refused() {
    let world = World::new();
    let a = world.server("a").await;
    let error =
        players(&a).send_message("p", &json!({"text": "x".repeat(300_000)})).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("limit=`262144`"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_read_does_not_block_those_behind_it() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    // `send_message` refuses half of a surrogate pair; the store itself takes any bytes.
    let append = async |key: &str, payload: &'static [u8]| {
        let id = MessageId::new(world.env.unix_ms(), "broken").unwrap();
        let message = NewMessage { id, payload: payload.into() };
        let incarnation = world.store.identity().await.unwrap().incarnation;
        let change = Change::AppendMessage { key: players(&a).key(key).unwrap(), message, cap: 10 };
        let id = CommitId(world.env.uuid());
        let commit = Commit {
            id,
            incarnation,
            from: None,
            changes: vec![change],
            returning: Returning::HEAD,
            fingerprint: None,
        };
        world.store.commit_one(commit).await.unwrap();
    };
    for (key, broken) in
        [("p", &br#"{"coins":5,"text":"\udc00"}"#[..]), ("q", b"{"), ("r", b"\xff")]
    {
        append(key, broken).await;
        let profile = open(&a, key).await;
        let unread = Arc::new(Mutex::new(0));
        let count = unread.clone();
        profile.message_handler(move |data, message: &Message<'_>| {
            match message.parse::<serde_json::Value>() {
                Ok(gift) => {
                    data.coins += gift["coins"].as_i64().unwrap();
                    message.processed();
                }
                Err(_) => *count.lock() += 1,
            }
        });
        players(&b).send_message(key, &json!({"coins": 7})).await.unwrap();
        settle().await;
        assert_eq!((profile.data().coins, *unread.lock()), (7, 1), "{key}");
        profile.end_session().await.unwrap();
        let view = players(&b).get(key).await.unwrap().unwrap();
        assert_eq!(
            (view.data.coins, view.waiting_messages().len()),
            (7, 1),
            "the unread one waits on"
        );
        assert_eq!(view.waiting_messages()[0].payload, broken);
    }
}

/// No notice was left for the sender's own server, and nothing told the session.
#[tokio::test(start_paused = true)]
async fn a_message_that_arrives_after_its_time_reaches_a_session_of_the_same_server() {
    let world = World::new();
    let a = world.server("a").await;
    let profile = open(&a, "p").await;
    profile.message_handler(|data, message: &Message<'_>| {
        data.coins += 7;
        message.processed();
    });
    let late = a.settings().call_timeout + Duration::from_secs(5);
    world.store.plan().fail(Fault::Late(late), u64::MAX);
    let error = players(&a).send_message("p", &1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unknown);
    world.store.plan().heal();
    assert_eq!(profile.data().coins, 0);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(profile.data().coins, 7);
}
