//! What the people who run the game do to players. Each edit is in the audit log, with its author
//! and reason, and reaches players online and offline.

use std::time::Duration;

use profilestore::{Attribution, Edit, ErrorKind};
use serde::Deserialize;

use crate::{Result, game::Game};

/// A request of an administrator, as JSON.
#[derive(Debug, Clone, Deserialize)]
pub struct Order {
    pub by: String,
    pub reason: String,
    #[serde(flatten)]
    pub deed: Deed,
}

/// What is to be done.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Gives coins, or takes them.
    Coins(i64),
    /// Bans the player for so many hours, and ends the session. 0 lifts a ban.
    BanHours(u32),
}

impl Game {
    /// Does what an administrator asks for.
    pub async fn administer(&self, player: &str, order: &Order) -> Result<()> {
        let key = self.players.key(player)?;
        let by = Attribution::new(&order.by).because(&order.reason);
        // What a player cannot have, such as coins below 0, is refused online and offline alike.
        let operator = self.server.operator(by).through(&self.players);
        let edit = match order.deed {
            Deed::Coins(coins) => Edit::new().increase("/coins", coins.into())?,
            Deed::BanHours(hours) => {
                let until_ms = self.server.now_ms() + i64::from(hours) * 3_600_000;
                Edit::new().set("/banned_until_ms", until_ms.into())?
            }
        };
        operator.edit(&key, &edit).await?;
        if matches!(order.deed, Deed::BanHours(1..)) {
            match operator.end_session(&key, false, Duration::from_secs(30)).await {
                // A login at the same moment, elsewhere or here, gets the profile: it sees the ban.
                Err(error)
                    if matches!(error.kind(), ErrorKind::TakenElsewhere | ErrorKind::Invalid) => {}
                ended => drop(ended?),
            }
        }
        Ok(())
    }
}
