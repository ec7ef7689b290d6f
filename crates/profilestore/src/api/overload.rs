//! A store that is too slow for what is due: a test of a whole game server.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    GameServer, Profile, SessionEnd,
    data_store::{
        DataStoreExt as _, MemoryStore, Returning,
        fault::{FaultyStore, Throttled},
    },
    env::{Env, ManualClock, SeededRng, TokioClock},
    error::Error,
    messenger::LocalMessenger,
    record::Stored,
};

const SECOND: Duration = Duration::from_secs(1);

fn edit(profile: &Profile<Value>, count: u64) {
    profile.update(|data| *data = json!({"coins": count})).unwrap();
}

/// A million sessions that were all edited made the process grow by 16 GB until it was killed. Here
/// each of 1,000 is due twice as often as the store takes saves, for five minutes.
#[tokio::test(start_paused = true)]
async fn a_store_that_is_too_slow_costs_time_and_not_memory() {
    let env = ManualClock::default().env(1);
    let store = FaultyStore::new(Arc::new(MemoryStore::new(env.clone())), Throttled::default());
    let server = GameServer::builder(store.clone()).env(env).start().await.unwrap();
    let players = server.store::<Value>("Players").unwrap();
    let mut profiles = Vec::new();
    for n in 0..1000 {
        profiles.push(players.start_session(&format!("p{n}")).await.unwrap());
    }
    server.change_settings(|settings| settings.autosave_period = 10 * SECOND).unwrap();
    store.plan().set(50);
    let room = server.inner.engine.link.room.clone();
    let (mut count, mut most) = (0, 0);
    for minute in 0..5 {
        for _ in 0..30 {
            count += 1;
            profiles.iter().for_each(|profile| edit(profile, count));
            for _ in 0..8 {
                tokio::time::sleep(SECOND / 4).await;
                most = most.max(room.bytes_under_way());
            }
        }
        // What others wait for goes first.
        let began = Instant::now();
        profiles.pop().unwrap().end_session().await.unwrap();
        let [from, to] = [profiles.pop().unwrap(), profiles.pop().unwrap()];
        let trade = server.transaction().with(&from).with(&to);
        let swapped = trade.run({
            let (from, to) = (from.clone(), to.clone());
            move |tx| {
                tx.edit(&from, |data| *data = json!({"coins": "gave"}))?;
                tx.edit(&to, |data| *data = json!({"coins": "got"}))
            }
        });
        swapped.await.unwrap();
        let took = began.elapsed();
        assert!(
            minute == 0 || took < 4 * SECOND,
            "an end and a trade took {took:?} in minute {minute}"
        );
        // What is acknowledged is stored.
        let profile = profiles.last().unwrap();
        profile.save().await.unwrap();
        let (_, state) = store.read_one(profile.key(), Returning::ALL).await.unwrap();
        let Ok(Stored::Profile(record)) = Stored::decode(&state.value.unwrap()) else {
            panic!("no profile")
        };
        assert!(record.data.get().contains(&count.to_string()));
    }
    // All of them at once would be 4 MiB and more.
    assert!(most > 0 && most < 1 << 20, "{most} bytes were under way");
    server.crash();
}

/// The word of a trade that was long over let its player's next save go before ends and trades.
#[tokio::test(start_paused = true)]
async fn a_trade_that_is_over_hurries_no_save() {
    let env = ManualClock::default().env(1);
    let store = FaultyStore::new(Arc::new(MemoryStore::new(env.clone())), Throttled::default());
    let server = GameServer::builder(store.clone()).env(env).start().await.unwrap();
    let players = server.store::<Value>("Players").unwrap();
    let mut profiles = Vec::new();
    for n in 0..2000 {
        let profile = players.start_session(&format!("p{n}")).await.unwrap();
        server.transaction().with(&profile).run(|_| Ok::<_, Error>(())).await.unwrap();
        profiles.push(profile);
    }
    store.plan().set(100);
    let aside = profiles.pop().unwrap();
    edit(&aside, 1);
    for profile in &profiles {
        edit(profile, 1);
        drop(profile.save());
    }
    tokio::time::sleep(SECOND / 10).await;
    let began = Instant::now();
    aside.end_session().await.unwrap();
    assert!(began.elapsed() < 4 * SECOND, "an end took {:?}", began.elapsed());
    server.crash();
}

/// The look waited behind the save, and the save for room, until the profile was stolen with all
/// that was not saved.
#[tokio::test(start_paused = true)]
async fn a_save_that_waits_for_room_holds_up_no_hand_over() {
    let clock = Arc::new(TokioClock::new(1_795_000_000_000));
    let env = Env::new(clock, Arc::new(SeededRng::new(1)));
    let store = FaultyStore::new(Arc::new(MemoryStore::new(env.clone())), Throttled::default());
    let other_way = store.another_way(Throttled::default());
    let server = GameServer::builder(store.clone()).env(env.clone()).start().await.unwrap();
    let other = GameServer::builder(other_way).env(env).start().await.unwrap();
    let players = server.store::<Value>("Players").unwrap();
    let mut profiles = Vec::new();
    for n in 0..2000 {
        profiles.push(players.start_session(&format!("p{n}")).await.unwrap());
    }
    // Enough for 100 s.
    store.plan().set(20);
    for profile in &profiles {
        edit(profile, 1);
        drop(profile.save());
    }
    tokio::time::sleep(SECOND / 10).await;
    let last = profiles.pop().unwrap();
    let ended = Arc::new(Mutex::new(Vec::new()));
    let ends = ended.clone();
    last.on_session_end(move |end| ends.lock().push(end));
    edit(&last, 2);
    let players = other.store::<Value>("Players").unwrap();
    let there = players.start_session(last.key().key()).await.unwrap();
    assert_eq!(*ended.lock(), [SessionEnd::External]);
    assert_eq!(there.data(), json!({"coins": 2}));
    server.crash();
    other.crash();
}

/// Each message took the save out of the line and to the end of it. So it was never done while
/// messages came more often than the line took.
#[tokio::test(start_paused = true)]
async fn a_save_that_waits_for_room_keeps_its_place_while_messages_come() {
    let clock = Arc::new(TokioClock::new(1_795_000_000_000));
    let env = Env::new(clock, Arc::new(SeededRng::new(1)));
    let store = FaultyStore::new(Arc::new(MemoryStore::new(env.clone())), Throttled::default());
    let other_way = store.another_way(Throttled::default());
    let messenger = LocalMessenger::new();
    let server = GameServer::builder(store.clone()).env(env.clone()).messenger(messenger.clone());
    let server = server.start().await.unwrap();
    let other = GameServer::builder(other_way).env(env).messenger(messenger).start().await.unwrap();
    let players = server.store::<Value>("Players").unwrap();
    let mut profiles = Vec::new();
    for n in 0..1000 {
        profiles.push(players.start_session(&format!("p{n}")).await.unwrap());
    }
    // Each is due twice as often as the store takes saves.
    server.change_settings(|settings| settings.autosave_period = 10 * SECOND).unwrap();
    store.plan().set(50);
    let sender = other.store::<Value>("Players").unwrap();
    let mut saving = None;
    for second in 0..90 {
        profiles.iter().for_each(|profile| edit(profile, second));
        if second == 30 {
            saving = Some(tokio::spawn(profiles[0].save()));
        }
        sender.send_message("p0", &json!(second)).await.unwrap();
        tokio::time::sleep(SECOND).await;
    }
    let saving = saving.unwrap();
    assert!(saving.is_finished(), "a minute was not enough");
    saving.await.unwrap().unwrap();
    server.crash();
    other.crash();
}
