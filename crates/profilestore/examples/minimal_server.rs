//! A game server in miniature: players join, play and leave, and what they did is there the next
//! time.
//!
//! `cargo run -p profilestore --example minimal_server`

use std::{collections::BTreeMap, error::Error};

use profilestore::{
    GameServer, Profile, ProfileStore,
    data_store::{SqliteMessenger, SqliteStore},
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Player {
    coins: u64,
    visits: u32,
}

/// What a game keeps about the players that are on it now.
struct Game {
    players: ProfileStore<Player>,
    online: BTreeMap<u64, Profile<Player>>,
}

impl Game {
    async fn join(&mut self, user: u64) -> Result<(), Box<dyn Error>> {
        let profile = self.players.start_session(&user.to_string()).await?;
        profile.add_user_id(user.try_into()?)?;
        profile.on_session_end(move |end| println!("player {user}: session over ({end:?})"));
        profile.update(|data| data.visits += 1)?;
        println!(
            "player {user}: visit {} with {} coins",
            profile.read(|data| data.visits),
            profile.read(|data| data.coins)
        );
        self.online.insert(user, profile);
        Ok(())
    }

    fn earn(&self, user: u64, coins: u64) -> Result<(), Box<dyn Error>> {
        let profile = self.online.get(&user).ok_or("not online")?;
        profile.update(|data| data.coins += coins)?;
        Ok(())
    }

    async fn leave(&mut self, user: u64) -> Result<(), Box<dyn Error>> {
        if let Some(profile) = self.online.remove(&user) {
            // Durable and released when this returns.
            profile.end_session().await?;
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let file = SqliteStore::open(folder.path().join("profiles.db"), Default::default())?;
    let server = GameServer::builder(file.clone())
        .messenger(SqliteMessenger::new(&file))
        .job_id("example")
        .start()
        .await?;
    let players = server.store_builder("PlayerData").template(Player::default()).build()?;
    let mut game = Game { players, online: BTreeMap::new() };

    for _ in 0..3 {
        game.join(1).await?;
        game.earn(1, 50)?;
        game.leave(1).await?;
    }
    game.join(2).await?;
    game.earn(2, 7)?;

    // Players that are still online are saved here.
    let report = server.shutdown().await;
    assert!(report.is_complete(), "not saved: {:?}", report.not_saved);
    println!("everything is saved");
    Ok(())
}
