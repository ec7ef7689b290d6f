//! Messages as global updates: changed from outside while nobody has locked them, locked and
//! removed by the keeper of the profile's data. And what a program decides about held profiles.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use profilestore::{
    ErrorKind, GameServer, SessionInfo, StartOptions, WhenHeld,
    data_store::StoredMessage,
    keeper::{Collect, Collected, Keeper},
    roblox::InboxChange,
};
use serde_json::json;

use crate::world::{Fault, Player, World, open, players, settle};

fn payload(n: i64) -> Bytes {
    serde_json::to_vec(&json!({ "n": n })).unwrap().into()
}

async fn change(server: &GameServer, changes: Vec<InboxChange>) -> Result<bool, ErrorKind> {
    let changed = players(server).change_inbox("p", move |_, _| Some(changes.clone())).await;
    changed.map_err(|error| error.kind())
}

async fn inbox(server: &GameServer) -> Vec<StoredMessage> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let see = seen.clone();
    let looked = players(server).change_inbox("p", move |messages, _| {
        *see.lock() = messages.to_vec();
        None
    });
    assert!(!looked.await.unwrap(), "nothing was done");
    let seen = seen.lock();
    seen.clone()
}

#[tokio::test(start_paused = true)]
async fn messages_are_added_changed_and_removed_in_one_commit() {
    let world = World::new();
    let a = world.server("a").await;
    change(
        &a,
        vec![InboxChange::Add { payload: payload(1) }, InboxChange::Add { payload: payload(2) }],
    )
    .await
    .unwrap();
    let there = inbox(&a).await;
    assert_eq!(
        there.iter().map(|m| (m.index, m.payload.clone())).collect::<Vec<_>>(),
        [(1, payload(1)), (2, payload(2))]
    );
    let changes = vec![
        InboxChange::Change { index: 1, payload: payload(5) },
        InboxChange::Remove { index: 2 },
        InboxChange::Add { payload: payload(3) },
    ];
    change(&a, changes).await.unwrap();
    let there = inbox(&a).await;
    assert_eq!(
        there.iter().map(|m| (m.index, m.revision, m.payload.clone())).collect::<Vec<_>>(),
        [(1, 2, payload(5)), (3, 1, payload(3))]
    );
    let last = Arc::new(Mutex::new(0));
    let see = last.clone();
    change(&a, vec![InboxChange::Remove { index: 3 }]).await.unwrap();
    players(&a)
        .change_inbox("p", move |_, index| {
            *see.lock() = index;
            None
        })
        .await
        .unwrap();
    assert_eq!(*last.lock(), 3, "an index is never used again");
}

/// A commit without a session names no sender: so the store leaves a notice for the holder, even
/// when that is the server that sent the commit and had given up on it.
#[tokio::test(start_paused = true)]
async fn a_change_that_arrives_late_is_seen_within_a_renewal_by_the_server_that_sent_it() {
    let world = World::new();
    let on_the_way = world.another_way();
    let b = world.server_on("b", on_the_way.clone()).await;
    on_the_way.plan().fail(Fault::Late(Duration::from_secs(40)), u64::MAX);
    assert_eq!(
        change(&b, vec![InboxChange::Add { payload: payload(1) }]).await,
        Err(ErrorKind::Unknown)
    );
    on_the_way.plan().heal();
    let on_b = open(&b, "p").await;
    assert!(on_b.waiting_messages().is_empty(), "the message has not arrived yet");
    tokio::time::sleep(Duration::from_secs(40) + 2 * world.settings.renew_period).await;
    assert_eq!(on_b.waiting_messages().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_edit_is_made_again_when_another_caller_was_faster() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    change(&a, vec![InboxChange::Add { payload: payload(0) }]).await.unwrap();
    let add = |messages: &[StoredMessage], _| {
        let value: serde_json::Value = serde_json::from_slice(&messages[0].payload).unwrap();
        let payload = payload(value["n"].as_i64().unwrap() + 1);
        Some(vec![InboxChange::Change { index: messages[0].index, payload }])
    };
    let stores = [players(&a), players(&b)];
    let edits = (0..20).map(|n| stores[n % 2].change_inbox("p", add));
    for edit in futures_util::future::join_all(edits).await {
        edit.unwrap();
    }
    assert_eq!(inbox(&a).await[0].payload, payload(20));
}

/// Keeps the data outside of the library.
#[derive(Clone, Default)]
struct Outside(Arc<Mutex<Kept_>>);

#[derive(Default)]
struct Kept_ {
    coins: i64,
    to_lock: BTreeSet<u64>,
    processed: BTreeSet<u64>,
    told: usize,
}

impl Keeper<Player> for Outside {
    fn collect(&self, _: Collect) -> Result<Collected<Player>, String> {
        let this = self.0.lock();
        let mut kept = Collected::default();
        kept.data = Some(Player { coins: this.coins, items: vec![] });
        kept.locked = this.to_lock.iter().copied().collect();
        kept.processed = this.processed.iter().copied().collect();
        Ok(kept)
    }

    fn edited(&self, data: &Player) {
        self.0.lock().coins = data.coins;
    }

    fn inbox_changed(&self) {
        self.0.lock().told += 1;
    }
}

#[tokio::test(start_paused = true)]
async fn a_keeper_sees_locks_and_removes_what_is_sent_and_changed() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let profile = open(&a, "p").await;
    let outside = Outside::default();
    profile.keep(outside.clone());
    change(&b, vec![InboxChange::Add { payload: payload(1) }]).await.unwrap();
    settle().await;
    change(&b, vec![InboxChange::Change { index: 1, payload: payload(2) }]).await.unwrap();
    settle().await;
    assert_eq!(outside.0.lock().told, 2);
    outside.0.lock().to_lock.insert(1);
    profile.save_soon();
    settle().await;
    assert_eq!((outside.0.lock().told, profile.waiting_messages()[0].locked), (3, true));
    outside.0.lock().processed.insert(1);
    outside.0.lock().coins = 2;
    profile.save().await.unwrap();
    assert!(profile.waiting_messages().is_empty());
    profile.save().await.unwrap();
    a.crash();
    let read = players(&b).get("p").await.unwrap().unwrap();
    assert_eq!(
        (read.data.coins, read.waiting_messages().len()),
        (2, 0),
        "effect and removal are one"
    );
}

/// A removal alone has no precondition but that the message is there.
#[tokio::test(start_paused = true)]
async fn an_update_that_is_locked_meanwhile_is_neither_changed_nor_removed_from_outside() {
    for remove in [false, true] {
        let world = World::new();
        let (a, b) = (world.server("a").await, world.server("b").await);
        let profile = open(&a, "p").await;
        let outside = Outside::default();
        profile.keep(outside.clone());
        change(&b, vec![InboxChange::Add { payload: payload(1) }]).await.unwrap();
        settle().await;
        outside.0.lock().to_lock.insert(1);
        // The lock comes between the look at the message and the commit.
        let locking = Arc::new(Mutex::new(Some(profile.save())));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let see = seen.clone();
        let edit = players(&b).change_inbox("p", move |messages, _| {
            see.lock().push(messages[0].locked);
            if messages[0].locked {
                return None;
            }
            if let Some(save) = locking.lock().take() {
                futures_util::FutureExt::now_or_never(save);
            }
            let change = if remove {
                InboxChange::Remove { index: 1 }
            } else {
                InboxChange::Change { index: 1, payload: payload(9) }
            };
            Some(vec![change])
        });
        let edited = edit.await.unwrap();
        settle().await;
        let there = inbox(&b).await;
        match (edited, seen.lock().as_slice()) {
            // It came first, and the lock found what it had left.
            (true, [false]) if remove => assert!(there.is_empty()),
            (true, [false]) => {
                assert_eq!((there[0].locked, &there[0].payload), (true, &payload(9)))
            }
            (false, [.., true]) => {
                assert_eq!((there[0].locked, &there[0].payload), (true, &payload(1)))
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_program_decides_about_a_profile_that_is_held() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let profile = open(&a, "p").await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let when = |answers: &'static [WhenHeld]| {
        let asked = asked.clone();
        StartOptions::new().when_held(move |info: &SessionInfo| {
            let mut asked = asked.lock();
            asked.push(info.job_id.clone());
            answers[(asked.len() - 1).min(answers.len() - 1)]
        })
    };
    let error = players(&b)
        .start_session_with("p", when(&[WhenHeld::Wait, WhenHeld::GiveUp]))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), asked.lock().as_slice()),
        (ErrorKind::Cancelled, &["a".to_owned(), "a".to_owned()][..])
    );
    assert!(profile.is_active(), "nobody asked for it");
    asked.lock().clear();
    profile.update(|data| data.coins = 3).unwrap();
    let taken = players(&b).start_session_with("p", when(&[WhenHeld::Ask])).await.unwrap();
    assert_eq!(
        (taken.data().coins, profile.is_over(), profile.taken_by()),
        (3, true, None),
        "it was let go"
    );
    taken.update(|data| data.coins = 4).unwrap();
    let stolen = players(&a).start_session_with("p", when(&[WhenHeld::Steal])).await.unwrap();
    assert_eq!(stolen.data().coins, 3, "what was not saved is lost");
    settle().await;
    assert_eq!(taken.taken_by().map(|by| by.job_id), Some("a".to_owned()));
    tokio::time::timeout(Duration::from_secs(5), stolen.end_session()).await.unwrap().unwrap();
}
