//! Updates under a store that fails, and ones that meet.

use futures_util::FutureExt as _;

use super::*;
use crate::world::{Fault, World};

fn add_one(
    store: &RobloxDataStore,
) -> impl Future<Output = Result<Option<Entry>, DataStoreError>> + use<> {
    store.update("k", |now| {
        let coins = now.map_or(0, |now| parsed(now).as_i64().unwrap());
        Some(entry(&json!(coins + 1)))
    })
}

#[tokio::test(start_paused = true)]
async fn an_update_whose_answer_is_lost_takes_effect_once() {
    for fault in [Fault::AnswerLost, Fault::RequestLost] {
        let world = World::new();
        let server = world.server("a").await;
        let store = data_store(&server, "S");
        add_one(&store).await.unwrap();
        for n in 2..6 {
            world.store.plan().fail(fault, 2);
            let answer = add_one(&store).await.unwrap().unwrap();
            assert_eq!(parsed(&answer), json!(n), "{fault:?}");
            assert_eq!(answer.info.number, n);
        }
        world.store.plan().fail(fault, 1);
        assert_eq!(parsed(&store.increment("k", 1).await.unwrap()), json!(6));
        world.store.plan().fail(fault, 1);
        assert_eq!(parsed(&store.remove("k").await.unwrap().unwrap()), json!(6));
    }
}

#[tokio::test(start_paused = true)]
async fn an_update_that_was_overtaken_is_made_anew_of_what_is_there_then() {
    let world = World::new();
    let slow = world.another_way();
    let (a, b) = (world.server_on("a", slow.clone()).await, world.server("b").await);
    let (mine, theirs) = (data_store(&a, "S"), data_store(&b, "S"));
    set(&theirs, "k", json!(["first"])).await;
    slow.plan().delay_reads(100);
    let (calls, mut called) = tokio::sync::mpsc::unbounded_channel();
    let update = mine.update("k", move |now| {
        let mut list = parsed(now.unwrap());
        calls.send(list.clone()).unwrap();
        list.as_array_mut().unwrap().push(json!("mine"));
        Some(entry(&list))
    });
    let other = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        set(&theirs, "k", json!(["second"])).await;
    };
    let (answer, ()) = tokio::join!(update, other);
    assert_eq!(parsed(&answer.unwrap().unwrap()), json!(["second", "mine"]));
    assert_eq!(
        (called.recv().await, called.recv().await),
        (Some(json!(["first"])), Some(json!(["second"])))
    );
    assert!(called.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn an_outage_fails_a_call_after_its_time_and_nothing_was_done() {
    let world = World::new();
    let server = world.server("a").await;
    let store = data_store(&server, "S");
    add_one(&store).await.unwrap();
    world.store.plan().cut_off();
    let began = tokio::time::Instant::now();
    assert_eq!(code(add_one(&store).await), Code::BadResponse);
    assert!((seconds(15)..seconds(31)).contains(&began.elapsed()), "{:?}", began.elapsed());
    world.store.plan().heal();
    tokio::time::sleep(seconds(30)).await;
    assert_eq!(read(&store, "k").await, Some(json!(1)));
}

/// Only their number was bounded, so they could take 40 GB.
#[tokio::test(start_paused = true)]
async fn values_that_wait_to_be_set_under_one_key_are_bounded_by_their_bytes() {
    let world = World::new();
    let server = world.server("a").await;
    let store = data_store(&server, "S");
    let large = entry(&json!("x".repeat(4_000_000)));
    // On a runtime of one thread nothing of these begins before this test waits. It does not.
    let waiting: Vec<_> = (0..16).map(|_| store.set("k", large.clone())).collect();
    let refused = store.set("k", large.clone()).now_or_never().expect("it is answered at once");
    assert_eq!(code(refused), Code::BadResponse);
    assert!(store.set("another", large).now_or_never().is_none());
    assert!(store.increment("k", 1).now_or_never().is_none(), "it brings nothing");
    drop(waiting);
}
