//! What players get for coins, for money, and every day.

use profilestore::{MessageId, Sent};

use crate::{
    Refusal, Result,
    game::Game,
    player::{Item, Mail, Player},
    refuse,
};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// What is for sale, for coins.
pub const GOODS: [(&str, u64); 3] = [("sword", 40), ("shield", 30), ("hat", 10)];

/// What is for sale, for money: so many coins.
pub const PRODUCTS: [(&str, u64); 2] = [("purse", 500), ("chest", 3000)];

fn price(list: &[(&str, u64)], name: &str) -> Result<u64> {
    let found = list.iter().find(|(known, _)| *known == name);
    let none = || Refusal(format!("There is no {name} for sale."));
    Ok(found.map(|(_, price)| *price).ok_or_else(none)?)
}

/// A player buys an item. `id` is the one of the new item.
pub fn buy(player: &mut Player, kind: &str, id: String) -> Result<()> {
    player.pay(price(&GOODS, kind)?)?;
    player.items.push(Item { id, kind: kind.to_owned() });
    Ok(())
}

/// The day of a time, counted from 1970.
pub fn day(unix_ms: i64) -> i64 {
    unix_ms.div_euclid(DAY_MS)
}

/// Once a day, and more the more days in a row. Answers with the coins.
pub fn daily_reward(player: &mut Player, today: i64) -> Result<u64> {
    if player.rewarded_on >= today {
        return refuse("You had your reward of today.");
    }
    let in_a_row = player.rewarded_on == today - 1;
    player.days_in_a_row = if in_a_row { player.days_in_a_row + 1 } else { 1 };
    player.rewarded_on = today;
    let coins = 20 + 10 * player.days_in_a_row.min(7);
    player.coins += coins;
    Ok(coins)
}

/// What a purchase brings. The product was checked when the purchase came.
pub fn deliver(player: &mut Player, product: &str) {
    player.coins += price(&PRODUCTS, product).unwrap_or_default();
}

impl Game {
    /// A payment provider reports a purchase, and reports it again until it is confirmed. The
    /// purchase's id is the message's, so it is delivered once, to players online and offline. When
    /// this gives Ok it is durable and may be confirmed. `bought_ms` is the provider's time of the
    /// purchase, the same in each report.
    pub async fn purchase(
        &self,
        player: &str,
        id: &str,
        bought_ms: i64,
        product: &str,
    ) -> Result<Sent> {
        price(&PRODUCTS, product)?;
        let Some(id) = MessageId::new(bought_ms, &format!("purchase/{id}")) else {
            return refuse("The purchase's id is too long.");
        };
        let mail = Mail::Purchase { product: product.to_owned() };
        Ok(self.players.send_message_as(player, &id, &mail).await?)
    }
}
