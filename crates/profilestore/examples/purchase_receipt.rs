//! Purchases that are granted once and confirmed only when that is certain, whether the player is
//! online or not.
//!
//! A payment provider reports a purchase again and again until it is confirmed. Each report becomes
//! a message to the player's profile, and the purchase's own id is the message's. So the message is
//! stored once however often it is reported, and its effect comes once, in the session that the
//! player has now or in the next one. Once the call returns, the provider can be told: the purchase
//! survives a crash of every process.
//!
//! `cargo run -p profilestore --example purchase_receipt`

use std::error::Error;

use profilestore::{
    GameServer, MessageId, Profile, ProfileStore, Sent,
    data_store::{SqliteMessenger, SqliteStore},
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Player {
    coins: u64,
}

/// What was bought.
#[derive(Serialize, Deserialize)]
struct Purchase {
    coins: u64,
}

/// A provider's report. `at_ms` is the time of the purchase and the same in each report: together
/// with the id it makes the message's identity, which is known for 30 days. Ok: confirm it. Any
/// error: do not, and the provider reports it again.
async fn process_receipt(
    players: &ProfileStore<Player>,
    player: &str,
    (id, at_ms): (&str, i64),
    coins: u64,
) -> Result<Sent, Box<dyn Error>> {
    let id = MessageId::new(at_ms, &format!("purchase/{id}")).ok_or("too long an id")?;
    Ok(players.send_message_as(player, &id, &Purchase { coins }).await?)
}

/// A player joins.
async fn join(
    players: &ProfileStore<Player>,
    player: &str,
) -> Result<Profile<Player>, Box<dyn Error>> {
    let profile = players.start_session(player).await?;
    // What waits is granted before this returns, what comes later as it comes. The coins and the
    // message's removal are saved together.
    profile.message_handler(|data, message| {
        if let Ok(Purchase { coins }) = message.parse() {
            data.coins += coins;
            message.processed();
        }
    });
    Ok(profile)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let file = SqliteStore::open(folder.path().join("profiles.db"), Default::default())?;
    let hints = SqliteMessenger::new(&file);
    let server = GameServer::builder(file).messenger(hints).start().await?;
    let players = server.store_builder("PlayerData").template(Player::default()).build()?;
    let bought_ms = server.now_ms();

    // The player is offline, and has never played yet.
    let sent = process_receipt(&players, "1", ("a-1", bought_ms), 100).await?;
    assert_eq!(sent, Sent::Now);
    // The provider did not hear the confirmation and reports it again.
    let sent = process_receipt(&players, "1", ("a-1", bought_ms), 100).await?;
    assert_eq!(sent, Sent::Before);

    let profile = join(&players, "1").await?;
    assert_eq!(profile.read(|data| data.coins), 100);

    // The same call while the player is online, here or on another server.
    process_receipt(&players, "1", ("a-2", bought_ms), 50).await?;
    process_receipt(&players, "1", ("a-1", bought_ms), 100).await?;
    // The message reaches the session within moments; a save comes behind it.
    profile.save().await?;
    println!("coins: {}", profile.read(|data| data.coins));
    assert_eq!(profile.last_saved_data().coins, 150);

    assert!(server.shutdown().await.is_complete());
    Ok(())
}
