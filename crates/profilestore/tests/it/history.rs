//! Earlier versions through the library: listing, reading, finding, rolling back.

use std::time::Duration;

use futures_util::TryStreamExt;
use profilestore::{
    Attribution, ErrorKind, GameServer, Message, MessageId, ProfileKey,
    data_store::{Cause, VersionRef},
    history::KeptVersion,
};
use serde_json::json;

use crate::world::{Fault, World, coins, earn, open, players, settle};

const HOUR: Duration = Duration::from_secs(3600);

/// Saves `count` versions of a profile, worth 1, 2, 3… coins, an hour apart, and ends.
async fn played(server: &GameServer, key: &str, count: i64) {
    let profile = open(server, key).await;
    for n in 1..=count {
        if n > 1 {
            tokio::time::sleep(HOUR).await;
        }
        earn(&profile, 1);
        profile.save().await.unwrap();
    }
    profile.end_session().await.unwrap();
}

async fn listed(server: &GameServer, key: &str) -> Vec<KeptVersion> {
    players(server).versions(key).unwrap().stream().try_collect().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn versions_are_listed_in_both_directions_and_between_dates() {
    let world = World::new();
    let a = world.server("a").await;
    played(&a, "p", 5).await;
    let store = players(&a);
    let all = listed(&a, "p").await;
    let numbers = |versions: &[KeptVersion]| {
        versions.iter().map(|version| version.info.number).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&all), [2, 3, 4, 5, 6], "version 1 was replaced within its hour");
    assert!(all.windows(2).all(|pair| pair[0].info.written_ms < pair[1].info.written_ms));
    assert_eq!(
        (all[0].info.cause, &*all[0].info.author, all[0].info.superseded_ms),
        (Cause::Save, "a", Some(all[1].info.stored_ms))
    );

    let newest: Vec<_> =
        store.versions("p").unwrap().newest_first().stream().try_collect().await.unwrap();
    assert_eq!(numbers(&newest), [6, 5, 4, 3, 2]);
    let (from, to) = (all[1].info.written_ms, all[3].info.written_ms);
    let between = store.versions("p").unwrap().since(from).until(to);
    assert_eq!(numbers(&between.stream().try_collect::<Vec<_>>().await.unwrap()), [3, 4, 5]);
    let within = store.versions("p").unwrap().newest_first().since(from + 1).until(to - 1);
    assert_eq!(numbers(&within.stream().try_collect::<Vec<_>>().await.unwrap()), [4]);
    assert_eq!(store.versions("nobody").unwrap().next().await.unwrap(), None);
    assert_eq!(store.versions("").unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn a_long_history_is_listed_page_by_page() {
    let mut world = World::new();
    world.settings.keep_every_save = true;
    let a = world.server("a").await;
    let profile = open(&a, "p").await;
    for _ in 1..300 {
        earn(&profile, 1);
        profile.save().await.unwrap();
    }
    let all = listed(&a, "p").await;
    assert_eq!(
        all.iter().map(|version| version.info.number).collect::<Vec<_>>(),
        (1..=300).collect::<Vec<_>>()
    );
    let mut newest = players(&a).versions("p").unwrap().newest_first();
    for number in (1..=300).rev() {
        assert_eq!(newest.next().await.unwrap().unwrap().info.number, number);
    }
    assert_eq!(newest.next().await.unwrap(), None);
    assert_eq!(newest.next().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn the_newest_version_before_an_event_rolls_a_profile_back() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    played(&a, "p", 3).await;
    let event = listed(&b, "p").await[1].info.written_ms + 1;
    let live = open(&a, "p").await;
    live.update(|data| data.coins = -5).unwrap();
    live.save().await.unwrap();
    live.update(|data| data.coins = -6).unwrap();
    players(&b).send_message("p", &7).await.unwrap();

    let mut query = players(&b).versions("p").unwrap().newest_first().until(event);
    let found = query.next_profile().await.unwrap().unwrap();
    assert_eq!((found.data.coins, found.waiting_messages().len()), (2, 1));
    found.set().await.unwrap();
    settle().await;
    assert!(live.is_over(), "the holder is told");
    assert_eq!(live.save().await.unwrap_err().kind(), ErrorKind::SessionEnded);
    assert_eq!(coins(&b, "p").await, 2);
    let versions = listed(&b, "p").await;
    let [.., replaced, current] = versions.as_slice() else { panic!("{versions:?}") };
    assert_eq!((current.info.cause, &*current.info.author), (Cause::Restore, "b"));
    let replaced =
        players(&b).get_version("p", VersionRef::Number(replaced.info.number)).await.unwrap();
    assert_eq!(replaced.data.coins, -5, "what it replaced is kept");
    assert_eq!(open(&b, "p").await.waiting_messages().len(), 1, "messages stay");
}

#[tokio::test(start_paused = true)]
async fn writing_the_newest_version_of_a_query_back_is_a_restore_too() {
    let world = World::new();
    let a = world.server("a").await;
    played(&a, "p", 1).await;
    let mut newest = players(&a).versions("p").unwrap().newest_first();
    newest.next_profile().await.unwrap().unwrap().set().await.unwrap();
    assert_eq!(listed(&a, "p").await.last().unwrap().info.cause, Cause::Restore);
    players(&a).get("p").await.unwrap().unwrap().set().await.unwrap();
    assert_eq!(listed(&a, "p").await.last().unwrap().info.cause, Cause::Set);
}

#[tokio::test(start_paused = true)]
async fn profiles_are_read_one_after_the_other() {
    let world = World::new();
    let a = world.server("a").await;
    played(&a, "p", 3).await;
    players(&a).remove("p").await.unwrap();
    let mut query = players(&a).versions("p").unwrap();
    let mut found = Vec::new();
    while let Some(profile) = query.next_profile().await.unwrap() {
        found.push((profile.key_info().unwrap().number, profile.data.coins));
    }
    assert_eq!(
        found,
        [(2, 1), (3, 2), (4, 3), (5, 0)],
        "the tombstone comes as the template's data"
    );

    let mut query = players(&a).versions("p").unwrap();
    query.next_profile().await.unwrap();
    world.store.plan().fail(Fault::Refused, u64::MAX);
    assert_eq!(query.next_profile().await.unwrap_err().kind(), ErrorKind::Unavailable);
    world.store.plan().heal();
    assert_eq!(
        query.next_profile().await.unwrap().unwrap().data.coins,
        2,
        "a failed call may be repeated"
    );
}

#[tokio::test(start_paused = true)]
async fn a_version_that_does_not_fit_does_not_hide_those_behind_it() {
    let world = World::new();
    let a = world.server("a").await;
    for value in [
        serde_json::json!({ "coins": 1 }),
        serde_json::json!({ "coins": "many" }),
        serde_json::json!({ "coins": 3 }),
    ] {
        let other =
            a.store::<serde_json::Value>("PlayerData").unwrap().start_session("p").await.unwrap();
        other.update(|data| *data = value).unwrap();
        other.end_session().await.unwrap();
    }
    let mut query = players(&a).versions("p").unwrap();
    let mut found = Vec::new();
    loop {
        match query.next_profile().await {
            Ok(Some(profile)) => found.push(Ok(profile.data.coins)),
            Ok(None) => break,
            Err(error) => found.push(Err(error.kind())),
        }
    }
    assert_eq!(found, [Ok(1), Err(ErrorKind::Undecodable), Ok(3)]);
}

#[tokio::test(start_paused = true)]
async fn versions_are_found_by_number_string_and_time() {
    let world = World::new();
    let a = world.server("a").await;
    played(&a, "p", 3).await;
    let store = players(&a);
    for version in listed(&a, "p").await {
        let number = store.get_version("p", VersionRef::Number(version.info.number)).await.unwrap();
        assert_eq!(number.key_info().unwrap().version, version.label);
        let label = store.get_version("p", VersionRef::Label(version.label)).await.unwrap();
        assert_eq!(label.data, number.data);
        let (at, before) = (version.info.written_ms, version.info.written_ms - 1);
        assert_eq!(store.get_version_at("p", at).await.unwrap().key_info(), number.key_info());
        match version.info.number {
            2 => assert_eq!(
                store.get_version_at("p", before).await.unwrap_err().kind(),
                ErrorKind::NotFound
            ),
            later => assert_eq!(
                store.get_version_at("p", before).await.unwrap().key_info().unwrap().number,
                later - 1
            ),
        }
    }
    let unknown = VersionRef::Label("000001A0C4506C2A.0000000002.000001A0C4506C2A.01".into());
    assert_eq!(store.get_version("p", unknown).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn versions_go_when_their_time_is_up() {
    let mut world = World::new();
    world.settings.history_retention = 2 * HOUR;
    world.settings.sweep_period = Some(HOUR / 2);
    let a = world.server("a").await;
    played(&a, "p", 6).await;
    let kept: Vec<_> = listed(&a, "p").await.iter().map(|version| version.info.number).collect();
    assert!(kept.len() < 6 && kept.ends_with(&[5, 6, 7]), "{kept:?}");
    tokio::time::sleep(4 * HOUR).await;
    assert_eq!(listed(&a, "p").await.len(), 1, "the current one stays");
}

/// What went to others since stays there: the answer names it, by id and profile.
#[tokio::test(start_paused = true)]
async fn a_rollback_says_which_gifts_and_trades_it_does_not_undo() {
    let world = World::new();
    let a = world.server("a").await;
    let (alice, bob) = (open(&a, "alice").await, open(&a, "bob").await);
    for profile in [&alice, &bob] {
        earn(profile, 100);
        profile.save().await.unwrap();
    }
    let target = alice.key_info().number;
    tokio::time::sleep(HOUR).await;
    let id = |name: &str| MessageId::new(world.env.unix_ms(), name).unwrap();
    let (thanks, gift) = (id("thanks"), id("gift"));
    let (from, to, store, sent) = (alice.clone(), bob.clone(), players(&a), thanks.clone());
    a.transaction()
        .with(&alice)
        .with(&bob)
        .run(move |tx| {
            tx.edit(&from, |data| data.coins -= 30)?;
            tx.edit(&to, |data| data.coins += 29)?;
            tx.gift_as(&store, "carol", &sent, &json!({ "coins": 1 }))
        })
        .await
        .unwrap();
    let traded = alice.key_info().number;
    players(&a).send_message_as("alice", &gift, &json!({ "coins": 10 })).await.unwrap();
    alice.message_handler(|data, message: &Message<'_>| {
        data.coins += 10;
        message.processed();
    });
    settle().await;
    alice.save().await.unwrap();
    let taken = alice.key_info().number;
    // Replaces the version that took the gift: all of them are of one hour.
    earn(&alice, 1);
    alice.save().await.unwrap();

    let key = |name| ProfileKey::new("PlayerData", "global", name).unwrap();
    let operator = a.operator(Attribution::new("ann"));
    let told = operator.not_undone(&key("alice"), target).await.unwrap();
    let restored = operator.restore(&key("alice"), VersionRef::Number(target)).await.unwrap();
    assert_eq!(restored.not_undone, told);
    assert!(!told.more);
    let [trade, took] = &told.commits[..] else { panic!("{told:?}") };
    assert_eq!((trade.version, took.version), (traded, taken));
    let with = trade.links.trade.as_ref().map(|trade| &trade.with[..]);
    assert_eq!(with, Some(&[key("bob")][..]));
    let sent: Vec<_> = trade.links.sent.iter().map(|sent| (&sent.to, &sent.id)).collect();
    assert_eq!(sent, [(&key("carol"), &thanks)]);
    assert_eq!(took.links.taken, [gift]);
    assert!(trade.links.taken.is_empty() && took.links.trade.is_none());
    assert_eq!(operator.not_undone(&key("alice"), taken).await.unwrap().commits, vec![]);
    // The other side of the trade knows it under the same id.
    let other = operator.not_undone(&key("bob"), 0).await.unwrap();
    let id_of = |trade: &profilestore::data_store::VersionLinks| {
        trade.links.trade.as_ref().map(|trade| trade.id)
    };
    assert_eq!(other.commits.iter().map(id_of).collect::<Vec<_>>(), [id_of(trade)]);
}
