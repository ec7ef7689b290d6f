//! What a player has, what comes by message, and how data of the first version becomes today's.

use profilestore::{GameServer, Message, Migrations, ProfileStore, Result};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{Refusal, shop};

/// A player's data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Player {
    pub coins: u64,
    pub score: u64,
    pub items: Vec<Item>,
    pub guild: Option<String>,
    /// The day of the last daily reward, counted from 1970, and how many days in a row that was.
    pub rewarded_on: i64,
    pub days_in_a_row: u64,
    /// Until when the player may not play, Unix milliseconds.
    pub banned_until_ms: i64,
}

/// There is only one item of an id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    pub id: String,
    pub kind: String,
}

/// What others send to a player, online or not.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mail {
    Coins { from: String, coins: u64 },
    Item { from: String, item: Item },
    Purchase { product: String },
}

impl Player {
    /// Takes coins away, or refuses.
    pub fn pay(&mut self, coins: u64) -> Result<(), Refusal> {
        let left = self.coins.checked_sub(coins);
        self.coins = left.ok_or_else(|| Refusal(format!("That costs {coins} coins.")))?;
        Ok(())
    }

    /// Takes an item away, or refuses.
    pub fn hand_out(&mut self, id: &str) -> Result<Item, Refusal> {
        let at = self.items.iter().position(|item| item.id == id);
        Ok(self.items.remove(at.ok_or_else(|| Refusal("The item is not there.".into()))?))
    }

    /// The handler of messages. Its effect and the removal of the message are one write.
    pub fn receive(&mut self, message: &Message<'_>) {
        match message.parse() {
            Ok(Mail::Coins { coins, .. }) => self.coins += coins,
            Ok(Mail::Item { item, .. }) => self.items.push(item),
            Ok(Mail::Purchase { product }) => shop::deliver(self, &product),
            // Mail of a newer version of the game waits for a server that understands it.
            Err(_) => return,
        }
        message.processed();
    }
}

/// The store of all players.
pub fn store(server: &GameServer) -> Result<ProfileStore<Player>> {
    // Data that was saved before there were migrations is version 0: it had gold.
    let migrations = Migrations::new().step(1, |data| {
        let fields = data.as_object_mut().ok_or("the data is no object")?;
        let gold = fields.remove("gold").unwrap_or(json!(0));
        fields.entry("coins").or_insert(gold);
        Ok(())
    });
    server
        .store_builder("Players")
        .template(Player { coins: 100, ..Player::default() })
        .migrations(migrations)
        .build()
}
