//! Gifts that a message's handler sends (`Message::gift`): in the commit that takes the message, or
//! not at all, wherever a server dies.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use profilestore::{
    Attribution, ErrorKind, GameServer, Message, Profile, ProfileKey, ProfileStore, Settings,
    data_store::{
        Cause, Change, DataStoreExt, MemoryStore, Returning,
        fault::{Call, Fate, FaultyStore, StorePlan},
    },
    roblox::InboxChange,
    transaction::MAX_GIFTS,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::world::{Fault, Player, World, coins, earn, env, open, players, settle};

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Guild {
    bank: i64,
    /// Requests that were served.
    served: Vec<u64>,
}

#[derive(Serialize, Deserialize)]
struct Withdraw {
    number: u64,
    member: String,
    coins: i64,
}

fn guilds(server: &GameServer) -> ProfileStore<Guild> {
    let template = Guild { bank: 1000, served: Vec::new() };
    server.store_builder("Guilds").template(template).build().unwrap()
}

/// Holds the guild, and pays what members ask for.
async fn host(server: &GameServer) -> Profile<Guild> {
    let guild = guilds(server).start_session("g").await.unwrap();
    let members = players(server);
    guild.message_handler(move |guild, message| pay(guild, message, &members));
    guild
}

fn pay(guild: &mut Guild, message: &Message<'_>, members: &ProfileStore<Player>) {
    let Ok(Withdraw { number, member, coins }) = message.parse() else { return };
    guild.bank -= coins;
    guild.served.push(number);
    let _ = message.gift(members, &member, &json!({"coins": coins}));
    message.processed();
}

async fn ask(server: &GameServer, number: u64, member: &str, coins: i64) {
    let request = Withdraw { number, member: member.to_owned(), coins };
    guilds(server).send_message("g", &request).await.unwrap();
}

/// Opens a member, who takes what waits.
async fn member(server: &GameServer, name: &str) -> Profile<Player> {
    let profile = open(server, name).await;
    profile.message_handler(|data, message| {
        let gift: serde_json::Value = message.parse().unwrap();
        data.coins += gift["coins"].as_i64().unwrap();
        message.processed();
    });
    profile
}

#[tokio::test(start_paused = true)]
async fn a_handlers_gift_reaches_members_here_there_and_nowhere() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let guild = host(&a).await;
    let (ann, bob) = (member(&a, "ann").await, member(&b, "bob").await);
    for (number, name) in ["ann", "bob", "cid"].into_iter().enumerate() {
        ask(&b, number as u64, name, 10 + number as i64).await;
    }
    settle().await;
    assert_eq!((ann.data().coins, bob.data().coins), (10, 11));
    assert_eq!(guild.data(), Guild { bank: 967, served: vec![0, 1, 2] });
    assert_eq!(member(&b, "cid").await.data().coins, 12);
    assert!(guild.waiting_messages().is_empty());
    assert_eq!(guilds(&b).get("g").await.unwrap().unwrap().data.bank, 967);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_before_the_save_that_takes_the_message() {
    let world = World::new();
    let own_way = world.another_way();
    let (a, b) = (world.server_on("a", own_way.clone()).await, world.server("b").await);
    let guild = host(&a).await;
    own_way.plan().fail(Fault::Refused, u64::MAX);
    own_way.plan().spare(1); // the look that brings the message
    ask(&b, 1, "ann", 10).await;
    settle().await;
    assert_eq!(guild.data().bank, 990, "handled in memory");
    assert_eq!(member(&b, "ann").await.data().coins, 0);
    own_way.plan().heal();
    tokio::time::sleep(Duration::from_secs(30)).await;
    settle().await;
    assert_eq!(players(&b).live("ann").unwrap().data().coins, 10);
}

#[tokio::test(start_paused = true)]
async fn a_gift_and_its_debit_come_once_wherever_the_guilds_server_dies() {
    let faults = [
        Fault::Refused,
        Fault::RequestLost,
        Fault::AnswerLost,
        Fault::Late(Duration::from_secs(3)),
    ];
    let (mut sent_before, mut sent_after) = (0, 0);
    for fault in faults {
        for spared in 0..6 {
            let world = World::new();
            let own_way = world.another_way();
            let (a, b) = (world.server_on("a", own_way.clone()).await, world.server("b").await);
            let context = format!("{fault:?} after {spared} commits");
            let guild = host(&a).await;
            own_way.plan().fail(fault, u64::MAX);
            own_way.plan().spare(spared);
            ask(&b, 1, "ann", 10).await;
            ask(&b, 2, "bob", 20).await;
            settle().await;
            a.crash();
            own_way.plan().cut_off();
            let (_, state) = world
                .store
                .read_one(&players(&b).key("bob").unwrap(), Returning::ALL)
                .await
                .unwrap();
            // Some worlds die before the commit, some behind it.
            match state.inbox.unwrap_or_default().len() {
                0 => sent_before += 1,
                _ => sent_after += 1,
            }
            drop(guild);
            let guild = host(&b).await;
            let (ann, bob) = (member(&b, "ann").await, member(&b, "bob").await);
            settle().await;
            tokio::time::sleep(Duration::from_secs(10)).await;
            let paid = (guild.data().bank, ann.data().coins, bob.data().coins);
            assert_eq!(paid, (970, 10, 20), "{context}");
            let mut served = guild.data().served;
            served.sort_unstable();
            assert_eq!(served, [1, 2], "{context}");
            for server in [&b] {
                assert!(server.shutdown().await.is_complete(), "{context}");
            }
            assert_eq!(coins_of(&world, "bob").await, 20, "{context}");
        }
    }
    assert!(
        sent_before > 0 && sent_after > 0,
        "{sent_before} {sent_after}: it shows one case only"
    );
}

async fn coins_of(world: &World, name: &str) -> i64 {
    let reader = world.server("reader").await;
    coins(&reader, name).await
}

/// Which kind of commit wrote the guild's current version.
async fn cause(world: &World, server: &GameServer) -> Cause {
    let key = guilds(server).key("g").unwrap();
    let (_, state) = world.store.read_one(&key, Returning::HEAD).await.unwrap();
    state.head.unwrap().cause
}

#[tokio::test(start_paused = true)]
async fn a_gift_goes_with_the_commit_of_a_transaction_that_takes_the_message() {
    let world = World::new();
    let (a, b) = (world.server("a").await, world.server("b").await);
    let guild = guilds(&a).start_session("g").await.unwrap();
    let ann = member(&b, "ann").await;
    ask(&b, 1, "ann", 5).await;
    settle().await;
    let bank = guild.clone();
    // Called first, so that the save that the handler asks for comes behind it.
    let taxing = a.transaction().with(&guild).run(move |tx| tx.edit(&bank, |g| g.bank -= 1));
    let members = players(&a);
    guild.message_handler(move |guild, message| pay(guild, message, &members));
    taxing.await.unwrap();
    settle().await;
    assert_eq!(cause(&world, &a).await, Cause::Transaction);
    assert_eq!(ann.data().coins, 5);
    assert_eq!(guilds(&b).get("g").await.unwrap().unwrap().data.bank, 994);
}

#[tokio::test(start_paused = true)]
async fn a_gift_goes_with_the_last_save_that_takes_the_message() {
    let world = World::new();
    let own_way = world.another_way();
    let (a, b) = (world.server_on("a", own_way.clone()).await, world.server("b").await);
    let guild = guilds(&a).start_session("g").await.unwrap();
    let ann = member(&b, "ann").await;
    ask(&b, 1, "ann", 5).await;
    settle().await;
    own_way.plan().fail(Fault::Refused, u64::MAX);
    let members = players(&a);
    guild.message_handler(move |guild, message| pay(guild, message, &members));
    settle().await;
    let ending = guild.end_session();
    // Until the save of before has given up in favour of the last one.
    tokio::time::sleep(Duration::from_secs(30)).await;
    own_way.plan().heal();
    ending.await.unwrap();
    settle().await;
    assert_eq!(cause(&world, &a).await, Cause::End);
    assert_eq!(ann.data().coins, 5);
    assert_eq!(guilds(&b).get("g").await.unwrap().unwrap().data.bank, 995);
}

/// What handlers do wrong, and what the listeners of errors are told then.
#[tokio::test(start_paused = true)]
async fn a_handler_whose_gift_cannot_be_sent_changes_nothing_and_the_message_waits() {
    type Wrong = fn(&mut Guild, &Message<'_>, &ProfileStore<Player>, &ProfileStore<Player>);
    let wrongs: [(Wrong, &str); 5] = [
        (
            |_, message, own, _| {
                for _ in 0..=MAX_GIFTS {
                    let _ = message.gift(own, "ann", &1);
                }
                message.processed();
            },
            "too many gifts",
        ),
        (
            |_, message, own, _| {
                let large = message.gift(own, "ann", &"x".repeat(300 << 10)).unwrap_err();
                assert_eq!(large.kind(), ErrorKind::TooLarge);
                message.processed();
            },
            "limit",
        ),
        (
            |_, message, own, _| {
                assert!(message.gift(own, "", &1).is_err());
                message.processed();
            },
            "key",
        ),
        (
            |_, message, _, other| {
                assert!(message.gift(other, "ann", &1).is_err());
                message.processed();
            },
            "another game server",
        ),
        (|_, message, own, _| message.gift(own, "ann", &1).unwrap(), "did not call processed"),
    ];
    for (wrong, told) in wrongs {
        let world = World::new();
        let (a, b) = (world.server("a").await, world.server("b").await);
        let guild = guilds(&a).start_session("g").await.unwrap();
        let errors = Arc::new(Mutex::new(Vec::new()));
        let seen = errors.clone();
        a.on_error(move |error, key| {
            assert_eq!(key.unwrap().key(), "g");
            seen.lock().push(error.to_owned());
        });
        let (own, other) = (players(&a), players(&b));
        guild.message_handler(move |guild, message| {
            guild.bank = 0;
            wrong(guild, message, &own, &other);
        });
        ask(&b, 1, "ann", 10).await;
        settle().await;
        guild.save().await.unwrap();
        assert_eq!((guild.data().bank, guild.waiting_messages().len()), (1000, 1), "{told}");
        let errors = errors.lock().clone();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains("the message waits") && errors[0].contains(told), "{errors:?}");
        // The next handler gets it.
        let members = players(&a);
        guild.message_handler(move |guild, message| pay(guild, message, &members));
        settle().await;
        assert_eq!((guild.data().bank, guild.waiting_messages().len()), (990, 0), "{told}");
        assert_eq!(member(&b, "ann").await.data().coins, 10, "{told}");
    }
}

/// Notes how many messages each commit sends.
#[derive(Debug, Clone, Default)]
struct Counted(Arc<Mutex<Vec<usize>>>);

impl StorePlan for Counted {
    fn fate(&self, call: Call<'_>) -> Fate {
        if let Call::Commit(commits) = call {
            let sent = commits.iter().map(|commit| {
                let appends = |change: &&Change| matches!(change, Change::AppendMessage { .. });
                commit.changes.iter().filter(appends).count()
            });
            self.0.lock().extend(sent);
        }
        Fate::default()
    }
}

#[tokio::test(start_paused = true)]
async fn what_handlers_send_at_once_is_bounded_and_all_of_it_goes_out() {
    let counted = Counted::default();
    let env = env();
    let store = FaultyStore::new(Arc::new(MemoryStore::new(env.clone())), counted.clone());
    let server = GameServer::builder(store.clone()).env(env).start().await.unwrap();
    for number in 0..30 {
        ask(&server, number, "ann", 1).await;
    }
    let guild = guilds(&server).start_session("g").await.unwrap();
    let members = players(&server);
    guild.message_handler(move |guild, message| {
        for _ in 0..40 {
            message.gift(&members, "ann", &json!({"coins": 1})).unwrap();
        }
        guild.bank -= 40;
        message.processed();
    });
    settle().await;
    assert_eq!((guild.data().bank, guild.waiting_messages().len()), (1000 - 1200, 0));
    let most = counted.0.lock().iter().copied().max().unwrap();
    assert_eq!(most, 80, "handlers are asked until the bound is reached");
    assert!(most < 2 * MAX_GIFTS);
    assert_eq!(member(&server, "ann").await.data().coins, 1200);
}

#[tokio::test(start_paused = true)]
async fn a_full_inbox_does_not_keep_a_guild_from_paying_and_being_saved() {
    let world = World {
        settings: Settings { max_message_queue: 2, ..Settings::default() },
        ..World::new()
    };
    let server = world.server("a").await;
    for _ in 0..2 {
        players(&server).send_message("ann", &json!({"coins": 1})).await.unwrap();
    }
    let full = players(&server).send_message("ann", &json!({"coins": 1})).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::InboxFull);
    let guild = host(&server).await;
    ask(&server, 1, "ann", 10).await;
    guild.save().await.unwrap();
    assert_eq!(guild.last_saved_data().bank, 990);
    assert_eq!(member(&server, "ann").await.data().coins, 12);
}

#[tokio::test(start_paused = true)]
async fn a_read_profile_sends_no_gifts_and_its_copy_stays_as_it_was() {
    let world = World::new();
    let server = world.server("a").await;
    guilds(&server).start_session("g").await.unwrap().end_session().await.unwrap();
    ask(&server, 1, "ann", 10).await;
    let mut read = guilds(&server).get("g").await.unwrap().unwrap();
    let members = players(&server);
    read.handle_messages(|guild, message| pay(guild, message, &members));
    assert_eq!(read.data.bank, 1000);
    read.set().await.unwrap();
    // It waits for a session.
    let guild = host(&server).await;
    assert_eq!(guild.data(), Guild { bank: 990, served: vec![1] });
    guild.end_session().await.unwrap();
    let ann = member(&server, "ann").await;
    earn(&ann, 1);
    assert_eq!(ann.data().coins, 11);
}

/// What a rollback of the guild would not undo.
#[tokio::test(start_paused = true)]
async fn the_version_that_took_a_message_names_the_gifts_of_its_handler() {
    let world = World::new();
    let a = world.server("a").await;
    let guild = host(&a).await;
    ask(&a, 1, "ann", 30).await;
    settle().await;
    guild.save().await.unwrap();
    let key = ProfileKey::new("Guilds", "global", "g").unwrap();
    let found = a.operator(Attribution::new("ann")).not_undone(&key, 0).await.unwrap();
    let [commit] = &found.commits[..] else { panic!("{found:?}") };
    assert_eq!(commit.links.taken.len(), 1);
    let to: Vec<_> = commit.links.sent.iter().map(|sent| sent.to.key()).collect();
    assert_eq!(to, ["ann"]);
}

#[tokio::test(start_paused = true)]
async fn a_gift_goes_out_although_its_message_was_removed_by_another_writer() {
    let world = World::new();
    let own_way = world.another_way();
    let (a, b) = (world.server_on("a", own_way.clone()).await, world.server("b").await);
    let guild = host(&a).await;
    own_way.plan().fail(Fault::Refused, u64::MAX);
    own_way.plan().spare(1); // the look that brings the message
    ask(&b, 1, "ann", 10).await;
    settle().await;
    assert_eq!(guild.data().bank, 990, "handled in memory");
    let removed = guilds(&b).change_inbox("g", |waiting, _| {
        Some(waiting.iter().map(|message| InboxChange::Remove { index: message.index }).collect())
    });
    assert!(removed.await.unwrap());
    own_way.plan().heal();
    tokio::time::sleep(Duration::from_secs(30)).await;
    settle().await;
    let stored = guilds(&b).get("g").await.unwrap().unwrap().data.bank;
    let ann = member(&b, "ann").await.data().coins;
    assert_eq!(stored + ann, 1000, "bank {stored}, ann {ann}");
}
