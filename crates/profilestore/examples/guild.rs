//! A guild with a bank: one server holds it, the members on all servers change it.
//!
//! A profile has one writer, so members do not edit the guild. They send it messages, and its
//! handler answers with gifts, in the commit that takes the message. No gold is lost or doubled
//! wherever a server crashes. Without a server that holds the guild the messages wait.
//!
//! `cargo run -p profilestore --example guild`

use std::{error::Error, time::Duration};

use profilestore::{
    GameServer, Profile, ProfileStore, Result, StartOptions, WhenHeld, data_store::MemoryStore,
    env::Env, messenger::LocalMessenger,
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Default, Serialize, Deserialize)]
struct Player {
    gold: u64,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct Guild {
    bank: u64,
}

/// What members send to the guild.
#[derive(Serialize, Deserialize)]
enum Request {
    Deposit { gold: u64 },
    Withdraw { member: String, gold: u64 },
}

const GUILD: &str = "guild/dragons";

/// The guild's only writer answers its members. Fails with [`profilestore::ErrorKind::Cancelled`]
/// while another server holds the guild, and does not take it away: try again now and then.
async fn host(server: &GameServer) -> Result<Profile<Guild>> {
    let (guilds, players) = stores(server)?;
    let options = StartOptions::new().when_held(|_| WhenHeld::GiveUp);
    let guild = guilds.start_session_with(GUILD, options).await?;
    guild.message_handler(move |guild, message| {
        match message.parse() {
            Ok(Request::Deposit { gold }) => guild.bank += gold,
            Ok(Request::Withdraw { member, gold })
                if gold <= guild.bank && players.key(&member).is_ok() =>
            {
                guild.bank -= gold;
                // A gift that fails undoes the handler, and the message waits; `on_error` is told.
                let _ = message.gift(&players, &member, &gold);
            }
            _ => {} // More than there is, no name of a player, or not understood: dropped.
        }
        message.processed();
    });
    Ok(guild)
}

/// A player joins, and takes what the guild pays.
async fn join(server: &GameServer, name: &str) -> Result<Profile<Player>> {
    let player = stores(server)?.1.start_session(name).await?;
    player.message_handler(|data, message| {
        if let Ok(gold) = message.parse::<u64>() {
            data.gold += gold;
            message.processed();
        }
    });
    Ok(player)
}

/// The player's gold goes and the guild's message comes with one write.
async fn deposit(server: &GameServer, player: &Profile<Player>, gold: u64) -> Result<()> {
    let ((guilds, _), giver) = (stores(server)?, player.clone());
    let give = server.transaction().with(player).run(move |tx| {
        let left = tx.edit(&giver, |data| data.gold.checked_sub(gold).map(|left| data.gold = left));
        if left?.is_some() { tx.gift(&guilds, GUILD, &Request::Deposit { gold }) } else { Ok(()) }
    });
    give.await
}

fn stores(server: &GameServer) -> Result<(ProfileStore<Guild>, ProfileStore<Player>)> {
    let guilds = server.store_builder("Guilds").template(Guild::default()).build()?;
    Ok((guilds, server.store_builder("Players").template(Player { gold: 100 }).build()?))
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn Error>> {
    let (store, hints) = (MemoryStore::new(Env::system()), LocalMessenger::new());
    let east = GameServer::builder(store.clone()).messenger(hints.clone()).start().await?;
    let west = GameServer::builder(store).messenger(hints).start().await?;
    let guild = host(&east).await?;
    let (ann, bob) = (join(&west, "ann").await?, join(&east, "bob").await?);

    deposit(&west, &ann, 60).await?;
    let request = Request::Withdraw { member: "bob".into(), gold: 25 };
    stores(&west)?.0.send_message(GUILD, &request).await?;
    while bob.read(|data| data.gold) != 125 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("ann {}, bob {}", ann.read(|data| data.gold), bob.read(|data| data.gold));
    assert_eq!((ann.read(|data| data.gold), guild.read(|guild| guild.bank)), (40, 35));
    assert!(east.shutdown().await.is_complete() && west.shutdown().await.is_complete());
    Ok(())
}
