//! What the errors advise, followed to the letter: nothing is done twice, and nothing is lost.

use profilestore::{Advice, Attribution, Edit, ErrorKind, GameServer, ProfileKey, Result};
use serde_json::json;
use std::time::Duration;

use crate::world::{Fault, World, earn, open, players, settle};

/// Sends a gift and does what the error advises until it is given. Answers how often it was sent.
async fn give(server: &GameServer, heal: impl Fn()) -> u32 {
    let store = players(server);
    let mut answer = store.send_message("p", &json!("sword")).await.map_err(Some);
    for sent in 1.. {
        let Err(error) = &answer else { return sent };
        let error = error.as_ref().expect("an error");
        heal();
        answer = match error.advice() {
            Advice::Retry => store.send_message("p", &json!("sword")).await.map_err(Some),
            Advice::RetryAs => {
                let id = error.message_id().expect("an error of a message names it").clone();
                store.send_message_as("p", &id, &json!("sword")).await.map(drop).map_err(Some)
            }
            advice => panic!("{advice:?}: {error}"),
        };
    }
    unreachable!()
}

#[tokio::test(start_paused = true)]
async fn a_gift_that_is_sent_again_as_the_error_advises_arrives_once() {
    let late = Fault::Late(Duration::from_secs(40));
    for fault in [Fault::Refused, Fault::RequestLost, Fault::AnswerLost, late] {
        let world = World::new();
        let way = world.another_way();
        let (sender, game) =
            (world.server_on("sender", way.clone()).await, world.server("game").await);
        way.plan().fail(fault, u64::MAX);
        let sent = give(&sender, || way.plan().heal()).await;
        assert!(sent > 1, "{fault:?}: the first call failed");
        // What is late has arrived by then.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let profile = open(&game, "p").await;
        profile.message_handler(|data, message| {
            data.items.push(message.parse().unwrap());
            message.processed();
        });
        settle().await;
        assert_eq!(profile.data().items, ["sword"], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_is_made_again_as_the_error_advises_takes_effect_once() {
    let world = World::new();
    let game = world.server("game").await;
    let profile = open(&game, "p").await;
    earn(&profile, 5);
    profile.save().await.unwrap();
    game.crash();
    let desk = world.server("desk").await;
    let operator = desk.operator(Attribution::new("ann"));
    let edit = Edit::new().increase("/coins", 100.into()).unwrap();
    // The holder is gone, and its lease not yet over when the patience is.
    let key = profile.key().clone();
    let error =
        operator.edit_as(world.env.uuid(), &key, &edit, Duration::from_secs(1)).await.unwrap_err();
    assert_eq!((error.kind(), error.advice()), (ErrorKind::Unknown, Advice::RetryAs));
    let operation = error.operation().expect("an error of an edit names it");
    let entry = operator.edit_as(operation, &key, &edit, Duration::from_secs(60)).await.unwrap();
    assert_eq!(entry.operation, operation);
    let read = players(&world.server("b").await).get("p").await.unwrap().unwrap();
    assert_eq!(read.data.coins, 105);
}

#[tokio::test(start_paused = true)]
async fn a_player_who_never_played_is_no_error() {
    let world = World::new();
    let a = world.server("a").await;
    assert!(players(&a).get("nobody").await.unwrap().is_none());
    open(&a, "p").await.end_session().await.unwrap();
    assert!(players(&a).get("p").await.unwrap().is_some());
    assert!(players(&a).remove("p").await.unwrap());
    assert!(players(&a).get("p").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_operators_calls_begin_at_once_and_dropping_them_cancels_nothing() {
    let world = World::new();
    let a = world.server("a").await;
    for name in ["edited", "removed", "erased", "ended", "set", "sent"] {
        let profile = open(&a, name).await;
        earn(&profile, 1);
        profile.add_user_id(i64::from(name == "erased") * 7).unwrap();
        if name != "ended" {
            profile.end_session().await.unwrap();
        }
    }
    let store = players(&a);
    let key = |name: &str| -> Result<ProfileKey> { store.key(name) };
    let operator = a.operator(Attribution::new("ann"));
    let mut read = store.get("set").await.unwrap().unwrap();
    read.data.coins = 9;
    let id = profilestore::MessageId::new(world.env.unix_ms(), "gift").unwrap();
    drop(
        operator.edit(&key("edited").unwrap(), &Edit::new().increase("/coins", 2.into()).unwrap()),
    );
    drop(operator.remove(&key("removed").unwrap()));
    drop(operator.erase_user(7, false));
    drop(operator.end_session(&key("ended").unwrap(), false, Duration::from_secs(30)));
    drop(operator.send(&key("sent").unwrap(), &id, "hello"));
    drop(read.set());
    settle().await;
    assert_eq!(store.get("edited").await.unwrap().unwrap().data.coins, 3);
    assert!(store.get("removed").await.unwrap().is_none());
    assert!(store.get("erased").await.unwrap().is_none());
    assert!(store.get("ended").await.unwrap().unwrap().session().is_none());
    assert_eq!(store.get("sent").await.unwrap().unwrap().waiting_messages().len(), 1);
    assert_eq!(store.get("set").await.unwrap().unwrap().data.coins, 9);
}
