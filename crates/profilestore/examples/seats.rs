//! One seat a player: a second connection of the same player takes the seat of the first one.
//!
//! The library's own table of sessions is the registry. Each connection holds a seat of its own,
//! which ends its own session and no other: a connection that is slow to go away cannot end the
//! session of the one that took its place.
//!
//! `cargo run -p profilestore --example seats`

use std::{error::Error, sync::Arc};

use profilestore::{
    GameServer, Profile, ProfileStore, Result, StartOptions, data_store::MemoryStore, env::Env,
};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// A player's data.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Player {
    pub visits: u64,
}

/// The players of this server.
pub struct Seats {
    players: ProfileStore<Player>,
}

/// A player's place on this server, for as long as one connection holds it. Dropping it ends the
/// session.
pub struct Seat {
    profile: Profile<Player>,
    taken: Arc<Notify>,
}

impl Seats {
    /// The seats of a game server.
    pub fn new(server: &GameServer) -> Result<Self> {
        let players = server.store_builder("PlayerData").template(Player::default()).build()?;
        Ok(Self { players })
    }

    /// A connection of a player comes. An earlier one on this server loses its seat, and this one
    /// goes on with what the player did there. Dropping the future, because the connection is gone
    /// before the profile is there, calls it off. [`profilestore::ErrorKind::Superseded`]: a later
    /// connection came meanwhile; there is nothing to do but to close this one.
    pub async fn sit(&self, player: &str) -> Result<Seat> {
        let options = StartOptions::new().supersede();
        let profile = self.players.start_session_with(player, options).await?;
        let taken = Arc::new(Notify::new());
        let tell = taken.clone();
        profile.on_session_end(move |_| tell.notify_one());
        if profile.is_over() {
            // Before there was a listener.
            taken.notify_one();
        }
        Ok(Seat { profile, taken })
    }

    /// The profile of a player who sits here now, for the game's other parts.
    pub fn of(&self, player: &str) -> Option<Profile<Player>> {
        self.players.live(player)
    }
}

impl Seat {
    /// The player's profile.
    pub fn profile(&self) -> &Profile<Player> {
        &self.profile
    }

    /// Waits until the seat is lost: to a later connection, to another server, or to a shutdown.
    /// Close the connection then.
    pub async fn lost(&self) {
        self.taken.notified().await;
    }

    /// The connection goes away. Ok: what the player did is durable, also when this seat was lost
    /// before.
    pub async fn leave(self) -> Result<()> {
        self.profile.end_session().await
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // Under way when this returns. Ending a session that is over does nothing.
        drop(self.profile.end_session());
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = GameServer::builder(MemoryStore::new(Env::system())).start().await?;
    let seats = Seats::new(&server)?;

    let phone = seats.sit("ann").await?;
    phone.profile().update(|data| data.visits += 1)?;
    // The player connects from another device: the new seat knows what was not saved yet.
    let laptop = seats.sit("ann").await?;
    phone.lost().await;
    laptop.profile().update(|data| data.visits += 1)?;
    // Late, and without harm to the other one.
    phone.leave().await?;

    let seated = seats.of("ann").ok_or("not seated")?;
    println!("ann sits here, visits: {}", seated.read(|data| data.visits));
    assert_eq!((seated.is_active(), seated.read(|data| data.visits)), (true, 2));
    laptop.leave().await?;
    assert!(seats.of("ann").is_none());
    assert!(server.shutdown().await.is_complete());
    Ok(())
}
