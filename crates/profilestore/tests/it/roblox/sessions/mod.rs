//! Sessions of ours and foreign ones on the same profiles.

mod messages;

use parking_lot::Mutex;
use profilestore::{
    Attribution, Edit, ErrorKind, MessageId, Profile, SessionEnd,
    data_store::{
        Returning,
        fault::{FaultyStore, OnCommand},
    },
};

use super::{
    module::{Foreign, Loaded, Saved},
    *,
};
use crate::world::{Player, coins, earn, open, players, settle};

fn ends(profile: &Profile<Player>) -> Arc<Mutex<Vec<SessionEnd>>> {
    let ends = Arc::new(Mutex::new(Vec::new()));
    let log = ends.clone();
    profile.on_session_end(move |end| log.lock().push(end));
    ends
}

fn player(coins: i64) -> Value {
    json!({ "coins": coins, "items": [] })
}

#[tokio::test(start_paused = true)]
async fn a_session_of_ours_is_seen_as_held_for_as_long_as_its_server_lives() {
    for place in Place::both() {
        let (a, b) = (place.server("a").await, place.server("b").await);
        let profile = open(&a, "k").await;
        earn(&profile, 5);
        profile.save().await.unwrap();
        tokio::time::sleep(seconds(100)).await;
        let found = read(&players_in(&b), "k").await.unwrap();
        assert_eq!(found["Data"], player(5));
        let meta = &found["MetaData"];
        assert_eq!(
            (&meta["ActiveSession"][0], &meta["ActiveSession"][1]),
            (&json!(7), &json!("a"))
        );
        assert_eq!(meta["SessionLoadCount"], 1);
        let age = place.env.unix_ms() / 1000 - meta["LastUpdate"].as_i64().unwrap();
        assert!((0..=5).contains(&age), "renewed with the server's lease: {age}");
        profile.end_session().await.unwrap();
        let found = read(&players_in(&b), "k").await.unwrap();
        assert_eq!(found["MetaData"].get("ActiveSession"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_foreign_request_makes_our_session_save_and_let_go() {
    for place in Place::both() {
        let (a, b) = (place.server("a").await, place.server("b").await);
        // On another server, and on the very one that holds the profile.
        for (key, server) in [("far", &b), ("near", &a)] {
            let profile = open(&a, key).await;
            let ends = ends(&profile);
            earn(&profile, 5);
            let mut foreign =
                Foreign::new(&place, players_in(server), json!([9, "FOREIGN", "guid"]));
            let Loaded::Asked(held) = foreign.load(key, json!({})).await else {
                panic!("it is held")
            };
            assert_eq!((&held[0], &held[1]), (&json!(7), &json!("a")));
            settle().await;
            assert_eq!(*ends.lock(), [SessionEnd::External]);
            assert!(!profile.is_active());
            assert_eq!(foreign.load(key, json!({})).await, Loaded::Yes(player(5)));
            assert_eq!(foreign.save(key, player(6), true).await, Saved::default());
            assert_eq!(coins(&a, key).await, 6);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_foreign_request_is_noticed_with_a_renewal_when_hints_are_lost() {
    let place = Place::in_memory();
    let mut deaf = Place::in_memory();
    (deaf.raw, deaf.on_store) = (place.raw.clone(), place.on_store.clone());
    deaf.env = place.env.clone();
    let (a, b) = (place.server("a").await, deaf.server("b").await);
    let profile = open(&a, "k").await;
    let ends = ends(&profile);
    let mut foreign = Foreign::new(&place, players_in(&b), json!([9, "FOREIGN", "guid"]));
    assert!(matches!(foreign.load("k", json!({})).await, Loaded::Asked(_)));
    tokio::time::sleep(seconds(6)).await;
    assert_eq!(*ends.lock(), [SessionEnd::External]);
}

#[tokio::test(start_paused = true)]
async fn a_document_that_leaves_the_session_alone_is_written_over_by_its_next_save() {
    for place in Place::both() {
        let (a, b) = (place.server("a").await, place.server("b").await);
        let store = players_in(&b);
        // Changed since its last save, and not changed at all; saved, and ended.
        for (key, changes, ended) in
            [("ck", true, false), ("uk", false, false), ("ce", true, true), ("ue", false, true)]
        {
            let profile = open(&a, key).await;
            let ends = ends(&profile);
            earn(&profile, 5);
            profile.save().await.unwrap();
            if changes {
                earn(&profile, 1);
            }
            let ours = player(if changes { 6 } else { 5 });
            let written = store
                .update(key, |now| {
                    let mut document = parsed(now.unwrap());
                    document["Data"] = player(777);
                    document["Unknown"] = json!({ "kept": true });
                    document["MetaData"]["Odd"] = json!([1]);
                    Some(entry(&document))
                })
                .await
                .unwrap()
                .unwrap();
            assert_eq!(parsed(&written)["Data"], player(777));
            settle().await;
            assert!(profile.is_active() && ends.lock().is_empty());
            assert_eq!(
                read(&store, key).await.unwrap()["Data"],
                player(777),
                "until the next save"
            );
            match ended {
                true => profile.end_session().await.unwrap(),
                false => profile.save().await.unwrap(),
            }
            let found = read(&store, key).await.unwrap();
            assert_eq!(found["Data"], ours, "{key}");
            assert_eq!(
                (&found["Unknown"], &found["MetaData"]["Odd"]),
                (&json!({ "kept": true }), &json!([1]))
            );
            // And it stays with that, without writing the same for ever.
            if !ended {
                let before = read(&store, key).await;
                let version = store.get_uncached(key).await.unwrap().unwrap().info.version;
                profile.save().await.unwrap();
                assert_eq!(store.get_uncached(key).await.unwrap().unwrap().info.version, version);
                assert_eq!(before.unwrap()["Data"], read(&store, key).await.unwrap()["Data"]);
                earn(&profile, 1);
                profile.end_session().await.unwrap();
            }
        }
    }
}

/// The read before the save was given up after a call's time: a save failed then, and an end, which
/// waited for the store itself, did without.
#[tokio::test(start_paused = true)]
async fn what_a_document_says_beside_the_data_outlives_an_outage() {
    for ended in [true, false] {
        let (place, mut own) = (Place::in_memory(), Place::in_memory());
        let way = FaultyStore::new(place.raw.clone(), OnCommand::default());
        let on_way = way.clone();
        own.on_store = Arc::new(move || GameServer::builder(on_way.clone()));
        (own.env, own.messenger) = (place.env.clone(), place.messenger.clone());
        let (a, b) = (own.server("a").await, place.server("b").await);
        let (profile, store) = (open(&a, "k").await, players_in(&b));
        profile.save().await.unwrap();
        let odd = |now: Option<&Entry>| {
            let mut document = parsed(now.unwrap());
            document["Unknown"] = json!({ "kept": true });
            Some(entry(&document))
        };
        store.update("k", odd).await.unwrap().unwrap();
        settle().await;
        earn(&profile, 6);
        way.plan().cut_off();
        let saving = match ended {
            true => tokio::spawn(profile.end_session()),
            false => tokio::spawn(profile.save()),
        };
        tokio::time::sleep(seconds(60)).await;
        way.plan().heal();
        saving.await.unwrap().unwrap();
        let found = read(&store, "k").await.unwrap();
        assert_eq!((&found["Data"], &found["Unknown"]), (&player(6), &json!({ "kept": true })));
    }
}

#[tokio::test(start_paused = true)]
async fn a_document_written_while_a_transaction_is_made_does_not_undo_it() {
    let place = Place::in_memory();
    let (a, b) = (place.server("a").await, place.server("b").await);
    let (alice, bob) = (open(&a, "alice").await, open(&a, "bob").await);
    earn(&alice, 10);
    alice.save().await.unwrap();
    let store = players_in(&b);
    let stamp = |key: &'static str| {
        let store = store.clone();
        async move {
            let update = store.update(key, |now| {
                let mut document = parsed(now.unwrap());
                document["Data"] = player(0);
                document["Unknown"] = json!(1);
                Some(entry(&document))
            });
            update.await.unwrap().unwrap();
        }
    };
    tokio::join!(stamp("alice"), stamp("bob"));
    let (from, to) = (alice.clone(), bob.clone());
    let done = a.transaction().with(&alice).with(&bob).run(move |tx| {
        tx.edit(&from, |data| data.coins -= 3)?;
        tx.edit(&to, |data| data.coins += 3)
    });
    done.await.unwrap();
    for (profile, key, has) in [(&alice, "alice", 7), (&bob, "bob", 3)] {
        assert_eq!(profile.data().coins, has);
        let found = read(&store, key).await.unwrap();
        assert_eq!((&found["Data"], &found["Unknown"]), (&player(has), &json!(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn any_other_document_ends_our_session_and_keeps_what_it_replaced() {
    for place in Place::both() {
        let (a, b) = (place.server("a").await, place.server("b").await);
        let store = players_in(&b);
        let profile = open(&a, "probe").await;
        let session = read(&store, "probe").await.unwrap()["MetaData"]["ActiveSession"].clone();
        profile.end_session().await.unwrap();
        let mut other_count = document(1, session.clone(), 2);
        other_count["MetaData"]["Marker"] = json!(1);
        for (n, value) in [
            document(1, Value::Null, 1),
            document(1, json!([9, "THIEF", "guid"]), 1),
            document(1, json!([7, "a"]), 1),
            other_count,
            json!(5),
            json!({ "GlobalUpdates": [0, []] }),
        ]
        .into_iter()
        .enumerate()
        {
            let key = format!("k{n}");
            let profile = open(&a, &key).await;
            let ends = ends(&profile);
            earn(&profile, 5);
            profile.save().await.unwrap();
            earn(&profile, 1);
            set(&store, &key, value.clone()).await;
            settle().await;
            assert_eq!(*ends.lock(), [SessionEnd::Lost], "{value}");
            assert_eq!(profile.save().await.unwrap_err().kind(), ErrorKind::SessionEnded);
            assert_same(&read(&store, &key).await.unwrap(), &value);
            let versions = store.list_versions(&key, Default::default()).await.unwrap();
            let [replaced, _] = versions.current_page() else { panic!("{versions:?}") };
            let replaced = store.get_version(&key, &replaced.version).await.unwrap();
            let replaced: Value = serde_json::from_str(replaced.value.unwrap().get()).unwrap();
            assert_eq!(replaced["Data"], player(5), "it stays in the history");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_removal_ends_our_session() {
    let place = Place::in_memory();
    let (a, b) = (place.server("a").await, place.server("b").await);
    let profile = open(&a, "k").await;
    let ends = ends(&profile);
    let was = players_in(&b).remove("k").await.unwrap().unwrap();
    assert_eq!(parsed(&was)["MetaData"]["ActiveSession"][1], "a");
    settle().await;
    assert_eq!(*ends.lock(), [SessionEnd::Lost]);
    // One on the very server that removes it.
    let profile = open(&a, "k").await;
    players_in(&a).remove("k").await.unwrap().unwrap();
    settle().await;
    assert!(!profile.is_active());
    assert!(players(&a).get("k").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn our_request_stands_in_the_document_and_we_get_the_profile_when_its_holder_lets_go() {
    for place in Place::both() {
        let (a, b) = (place.server("a").await, place.server("b").await);
        let mut foreign = Foreign::new(&place, players_in(&b), json!([9, "FOREIGN", 5]));
        assert_eq!(foreign.load("k", player(1)).await, Loaded::Yes(player(1)));
        let began = tokio::time::Instant::now();
        let start = players(&a).start_session("k");
        let holder = async {
            tokio::time::sleep(seconds(3)).await;
            assert_eq!(
                read(&players_in(&b), "k").await.unwrap()["MetaData"]["ForceLoadSession"],
                json!([7, "a"])
            );
            let saved = foreign.save("k", player(2), false).await;
            assert_eq!(saved.asked, Some(json!([7, "a"])));
        };
        let (profile, ()) = tokio::join!(start, holder);
        let profile = profile.unwrap();
        assert!(began.elapsed() < seconds(4), "{:?}", began.elapsed());
        assert_eq!((profile.data().coins, profile.session_load_count()), (2, 2));
        assert!(foreign.save("k", player(99), false).await.lost);
        assert!(profile.is_active());
        earn(&profile, 1);
        profile.end_session().await.unwrap();
        assert_eq!(foreign.load("k", json!({})).await, Loaded::Yes(player(3)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_profile_that_is_offered_to_us_can_be_taken_by_a_foreign_session() {
    let place = Place::in_memory();
    let (a, b) = (place.server("a").await, place.server("b").await);
    let [mut first, mut second] =
        ["ONE", "TWO"].map(|job| Foreign::new(&place, players_in(&b), json!([9, job, "guid"])));
    first.load("k", player(1)).await;
    let mut start = Box::pin(players(&a).start_session("k"));
    let early = tokio::time::timeout(seconds(1), &mut start).await;
    assert!(early.is_err());
    // Both in one moment: the profile is let go for us, and another server is faster.
    let (let_go, taken) =
        tokio::join!(first.save("k", player(2), false), second.load("k", json!({})));
    assert!(let_go.asked.is_some());
    match taken {
        Loaded::Yes(data) => assert_eq!(data, player(2)),
        Loaded::Asked(_) => {
            assert!(matches!(second.load("k", json!({})).await, Loaded::Asked(_) | Loaded::Yes(_)))
        }
    }
    let saving = async {
        for _ in 0..20 {
            tokio::time::sleep(seconds(3)).await;
            if second.save("k", player(4), false).await.lost {
                break;
            }
        }
    };
    let (profile, ()) = tokio::join!(start, saving);
    match profile {
        Ok(profile) => assert!([2, 4].contains(&profile.data().coins)),
        Err(error) => assert_eq!(error.kind(), ErrorKind::TakenElsewhere),
    }
}

#[tokio::test(start_paused = true)]
async fn a_foreign_session_is_taken_over_by_its_last_update_or_after_it_was_asked() {
    for (stamps, idle, least, most) in [
        // Dead by its last update.
        (true, 700, 0, 1),
        // Alive, but it does not answer.
        (true, 10, 40, 61),
        // It says nothing of its life: only after it was asked, however old it is.
        (false, 100_000, 40, 61),
    ] {
        let place = Place::in_memory();
        let (a, b) = (place.server("a").await, place.server("b").await);
        let mut foreign = Foreign::new(&place, players_in(&b), json!([9, "FOREIGN", "guid"]));
        foreign.stamps_updates = stamps;
        assert_eq!(foreign.load("k", player(1)).await, Loaded::Yes(player(1)));
        tokio::time::sleep(seconds(idle)).await;
        let began = tokio::time::Instant::now();
        let profile = players(&a).start_session("k").await.unwrap();
        let took = began.elapsed();
        assert!(
            (seconds(least)..seconds(most)).contains(&took),
            "stamps={stamps} idle={idle} took={took:?}"
        );
        assert!(profile.is_active());
        assert!(foreign.save("k", player(99), false).await.lost);
        assert_eq!(profile.data().coins, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_foreign_session_that_saves_stays_alive() {
    let place = Place::in_memory();
    let (a, b) = (place.server("a").await, place.server("b").await);
    let mut foreign = Foreign::new(&place, players_in(&b), json!([9, "FOREIGN", "guid"]));
    foreign.load("k", player(0)).await;
    for n in 1..5 {
        tokio::time::sleep(seconds(600)).await;
        assert_eq!(foreign.save("k", player(n), false).await, Saved::default());
    }
    let start = players(&a).start_session("k");
    assert!(
        tokio::time::timeout(seconds(2), start).await.is_err(),
        "600 s are not enough to be dead"
    );
}

/// A profile goes to and fro between sessions of ours and foreign ones; each adds a coin, and none
/// is lost or doubled.
#[tokio::test(start_paused = true)]
async fn a_profile_that_hops_between_the_two_kinds_loses_nothing() {
    for place in Place::both() {
        let (a, b) = (place.server("a").await, place.server("b").await);
        let mut foreign = Foreign::new(&place, players_in(&b), json!([9, "FOREIGN", "guid"]));
        for hop in 0..20 {
            let profile = open(&a, "k").await;
            assert_eq!(profile.data().coins, 2 * hop);
            earn(&profile, 1);
            loop {
                match foreign.load("k", json!({})).await {
                    Loaded::Yes(data) => {
                        assert_eq!(data, player(2 * hop + 1));
                        break;
                    }
                    Loaded::Asked(_) => settle().await,
                }
            }
            let start = players(&a).start_session("k");
            let saving = async {
                settle().await;
                foreign.save("k", player(2 * hop + 2), false).await
            };
            let (profile, saved) = tokio::join!(start, saving);
            assert!(saved.asked.is_some());
            profile.unwrap().end_session().await.unwrap();
        }
        assert_eq!(coins(&a, "k").await, 40);
        let key = players(&a).key("k").unwrap();
        let state = place.store_state(&key).await;
        assert!(state.epoch >= 60, "each change of owner raises it: {}", state.epoch);
        assert_eq!(state.lease.load_count, 60);
    }
}

impl Place {
    async fn store_state(
        &self,
        key: &profilestore::ProfileKey,
    ) -> profilestore::data_store::KeyState {
        self.raw.read(std::slice::from_ref(key), Returning::ALL).await.unwrap().states.remove(0)
    }
}

#[tokio::test(start_paused = true)]
async fn a_program_that_can_reach_a_foreign_holder_hears_what_is_wanted_of_it() {
    let place = Place::in_memory();
    let (a, b) = (place.server("a").await, place.server("b").await);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = heard.clone();
    a.on_foreign_holder(move |holder| {
        log.lock().push((
            holder.key.key().to_owned(),
            holder.session.to_owned(),
            holder.load_count,
            holder.wanted,
        ));
    });
    let mut foreign = Foreign::new(&place, players_in(&b), json!([9, "FOREIGN", "guid"]));
    assert_eq!(foreign.load("k", player(1)).await, Loaded::Yes(player(1)));
    players(&a).send_message("k", &1).await.unwrap();
    assert_eq!(*heard.lock(), [("k".to_owned(), "guid".to_owned(), 1, false)]);
    heard.lock().clear();
    // Asked for at once, and again with every look until the profile is free.
    let (start, ()) = tokio::join!(players(&a).start_session("k"), async {
        tokio::time::sleep(seconds(1)).await;
        assert_eq!(*heard.lock(), [("k".to_owned(), "guid".to_owned(), 1, true)]);
        tokio::time::sleep(seconds(10)).await;
        assert!(heard.lock().len() >= 2);
        assert_eq!(foreign.save("k", player(2), false).await.asked, Some(json!([7, "a"])));
    });
    let profile = start.unwrap();
    heard.lock().clear();
    // Our own sessions are reached by hints.
    players(&b).send_message("k", &1).await.unwrap();
    profile.end_session().await.unwrap();
    players(&a).send_message("k", &1).await.unwrap();
    assert!(heard.lock().is_empty());
}
