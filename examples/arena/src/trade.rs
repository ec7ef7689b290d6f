//! Gifts to any player anywhere, and trades between two players of one server.

use crate::{
    Error, Result,
    game::Game,
    player::Mail,
    refuse,
    seats::{Event, Seated},
};

/// A seller's offer to one buyer. It is kept in memory, for it costs nothing to lose it.
#[derive(Debug, Clone)]
pub struct Offer {
    seller: String,
    buyer: String,
    item: String,
    price: u64,
}

/// How many offers a server remembers.
const MAX_OFFERS: usize = 1000;

impl Game {
    /// The giver's coins and the message to the receiver change in one commit.
    pub async fn gift_coins(&self, seated: &Seated, to: &str, coins: u64) -> Result<String> {
        self.expect_player(to).await?;
        let (to, players) = (to.to_owned(), self.players.clone());
        let mail = Mail::Coins { from: seated.name.clone(), coins };
        let note = format!("{to} gets {coins} coins.");
        let gift =
            self.server.transaction().between((&seated.profile,)).run(move |tx, (giver,)| {
                giver.pay(coins)?;
                tx.gift(&players, &to, &mail)?;
                Ok::<_, Error>(note)
            });
        gift.await
    }

    /// The same with an item: it is never with both, and never with neither.
    pub async fn gift_item(&self, seated: &Seated, to: &str, item: &str) -> Result<String> {
        self.expect_player(to).await?;
        let (to, players) = (to.to_owned(), self.players.clone());
        let (from, id) = (seated.name.clone(), item.to_owned());
        let gift =
            self.server.transaction().between((&seated.profile,)).run(move |tx, (giver,)| {
                let item = giver.hand_out(&id)?;
                let note = format!("{to} gets the {}.", item.kind);
                tx.gift(&players, &to, &Mail::Item { from, item })?;
                Ok::<_, Error>(note)
            });
        gift.await
    }

    /// Offers an item to a player of the same server.
    pub fn offer(&self, seated: &Seated, to: &str, item: &str, price: u64) -> Result<String> {
        let has = |id: &str| seated.profile.read(|player| player.items.iter().any(|i| i.id == id));
        if !has(item) || to == seated.name {
            return refuse("You cannot offer that.");
        }
        if self.players.live(to).is_none() {
            return refuse(format!("{to} is not on this server."));
        }
        let offer = Offer {
            seller: seated.name.clone(),
            buyer: to.to_owned(),
            item: item.to_owned(),
            price,
        };
        let mut offers = self.offers.lock();
        let number = offers.last_key_value().map_or(1, |(last, _)| last + 1);
        offers.insert(number, offer);
        if offers.len() > MAX_OFFERS {
            offers.pop_first();
        }
        let text = format!("{} offers an item for {price} coins: offer {number}", seated.name);
        self.tell(to, Event::Note(text));
        Ok(format!("Offered to {to}."))
    }

    /// Accepts an offer: item and coins change hands in one commit.
    pub async fn accept(&self, seated: &Seated, number: u64) -> Result<String> {
        let offer = self.offers.lock().get(&number).cloned();
        let Some(offer) = offer.filter(|offer| offer.buyer == seated.name) else {
            return refuse("There is no such offer.");
        };
        let Some(seller) = self.players.live(&offer.seller) else {
            return refuse("The seller has left.");
        };
        let both = self.server.transaction().between((&seller, &seated.profile));
        let trade = both.run(move |_, (seller, buyer)| {
            buyer.pay(offer.price)?;
            seller.coins += offer.price;
            buyer.items.push(seller.hand_out(&offer.item)?);
            Ok::<_, Error>(())
        });
        trade.await?;
        self.offers.lock().remove(&number);
        self.tell(&offer.seller, Event::Changed);
        self.tell(&offer.seller, Event::Note(format!("{} has accepted.", seated.name)));
        Ok("The item is yours.".into())
    }
}
