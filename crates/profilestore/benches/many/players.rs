//! Two types for the same data of a player.

use std::sync::Arc;

use profilestore::ProfileData;
use serde::{Deserialize, Serialize};

use crate::common::{Item, Player, player};

/// A player's data, of which the coins change.
pub(super) trait WithCoins: ProfileData {
    /// What the mode is called that measures it.
    const MODE: &'static str;
    /// What the title of the measurement says of it.
    const ABOUT: &'static str;

    fn template() -> Self;
    fn coins(&self) -> u64;
    fn set_coins(&mut self, coins: u64);
}

impl WithCoins for Player {
    const MODE: &'static str = "crash";
    const ABOUT: &'static str = "";

    fn template() -> Self {
        player()
    }

    fn coins(&self) -> u64 {
        self.coins
    }

    fn set_coins(&mut self, coins: u64) {
        self.coins = coins;
    }
}

/// [`Player`] with what seldom changes behind an `Arc`, so that the copy for an edit is small. Its
/// JSON is the same.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SharedPlayer {
    coins: u64,
    name: Arc<str>,
    items: Arc<Vec<Item>>,
}

impl WithCoins for SharedPlayer {
    const MODE: &'static str = "crash-shared";
    const ABOUT: &'static str = ", what seldom changes behind Arc";

    fn template() -> Self {
        let Player { coins, name, items } = player();
        Self { coins, name: name.into(), items: Arc::new(items) }
    }

    fn coins(&self) -> u64 {
        self.coins
    }

    fn set_coins(&mut self, coins: u64) {
        self.coins = coins;
    }
}
