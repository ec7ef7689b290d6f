//! Unique items, and the three ways in which they change hands: traded on one server, given, and
//! traded between two servers through an escrow, as the library's example `trade_across_servers`
//! does it.
//!
//! Each item counts its moves. So the audit can check every acknowledged move, wherever the item
//! is.

use std::{collections::BTreeMap, time::Duration};

use profilestore::{GameServer, Message, MessageId, Profile, ProfileStore, Result, StartOptions};
use serde::{Deserialize, Serialize};

use super::{data::PlayerData, player_key};

/// How many items each player begins with.
pub(crate) const ITEMS_EACH: u32 = 3;

/// An item and how often it has changed its place.
pub(crate) type Item = (u32, u32);

/// What two players agreed on: each puts one item in. The player's server chooses which.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Terms {
    pub(crate) trade: u64,
    pub(crate) sides: [u32; 2],
    pub(crate) created_ms: i64,
    /// From then on items go back to where they came from.
    pub(crate) deadline_ms: i64,
}

/// A trade's own profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Escrow {
    terms: Terms,
    /// What each player has put in.
    held: BTreeMap<u32, Item>,
    closed: bool,
}

/// The message that puts an item into an escrow.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Deposit {
    pub(crate) from: u32,
    pub(crate) item: Item,
    pub(crate) terms: Terms,
}

/// The message that brings a player an item: a present, or what a trade gives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Delivery {
    pub(crate) item: Item,
    pub(crate) trade: Option<u64>,
}

impl Escrow {
    /// Takes what a player puts in.
    pub(crate) fn accept(&mut self, Deposit { from, item, terms }: Deposit) {
        self.terms = terms;
        self.held.insert(from, item);
    }

    /// What comes out now, and to whom.
    pub(crate) fn settle(&mut self, now_ms: i64) -> Vec<(u32, Item)> {
        let [one, other] = self.terms.sides;
        let swapped = match (self.held.get(&one), self.held.get(&other)) {
            (Some(from_one), Some(from_other)) if !self.closed => {
                Some(vec![(one, *from_other), (other, *from_one)])
            }
            _ => None,
        };
        if swapped.is_none() && !self.closed && now_ms < self.terms.deadline_ms {
            return Vec::new();
        }
        self.closed = true;
        let back = std::mem::take(&mut self.held);
        let out = swapped.unwrap_or_else(|| back.into_iter().collect());
        out.into_iter().map(|(to, (item, moves))| (to, (item, moves + 1))).collect()
    }
}

impl PlayerData {
    /// Gives the player the first items, once.
    pub(crate) fn mint(&mut self, player: u32) {
        if !std::mem::replace(&mut self.minted, true) {
            self.items.extend((0..ITEMS_EACH).map(|n| (player * ITEMS_EACH + n, 0)));
        }
    }

    /// Takes any item out; it has moved once more.
    pub(crate) fn take(&mut self) -> Option<Item> {
        // The one that has moved least, so that all of them move.
        let (item, moves) = self
            .items
            .iter()
            .map(|(item, moves)| (*item, *moves))
            .min_by_key(|(_, moves)| *moves)?;
        self.items.remove(&item);
        Some((item, moves + 1))
    }

    pub(crate) fn put(&mut self, (item, moves): Item) {
        if self.items.insert(item, moves).is_some() {
            self.note_doubled(format!("arrival of item {item}"));
        }
    }

    /// Handles a message that brings an item. False when it is another one.
    pub(crate) fn receive(&mut self, message: &Message<'_>) -> bool {
        let Ok(delivery) = message.parse::<Delivery>() else { return false };
        self.deliver(delivery);
        message.processed();
        true
    }

    /// Takes what a message brings.
    pub(crate) fn deliver(&mut self, Delivery { item, trade }: Delivery) {
        self.put(item);
        if let Some(trade) = trade {
            self.open_trades.remove(&trade);
        }
    }
}

/// The game server and its two stores, as far as trades need them.
#[derive(Debug, Clone)]
pub(crate) struct Market {
    pub(crate) server: GameServer,
    pub(crate) players: ProfileStore<PlayerData>,
    pub(crate) trades: ProfileStore<Escrow>,
}

impl Market {
    /// A run's two stores.
    pub(crate) fn open(server: &GameServer, scope: &str) -> Result<Self> {
        let players = server.store_builder("Demo").scope(scope).template(PlayerData::default());
        let trades = server.store_builder("DemoTrades").scope(scope).template(Escrow::default());
        Ok(Self { server: server.clone(), players: players.build()?, trades: trades.build()? })
    }

    /// Each gives the other an item, if there is one. Under way at once; answers with what moved.
    pub(crate) fn swap(
        &self,
        one: &Profile<PlayerData>,
        other: &Profile<PlayerData>,
    ) -> impl Future<Output = Result<Vec<Item>>> + Send + 'static + use<> {
        let (one_, other_) = (one.clone(), other.clone());
        self.server.transaction().with(one).with(other).run(move |tx| {
            let (from_one, from_other) =
                (tx.edit(&one_, PlayerData::take)?, tx.edit(&other_, PlayerData::take)?);
            for (to, item) in [(&other_, from_one), (&one_, from_other)] {
                if let Some(item) = item {
                    tx.edit(to, |data| data.put(item))?;
                }
            }
            Ok(from_one.into_iter().chain(from_other).collect())
        })
    }

    /// Gives an item away, to a player anywhere.
    pub(crate) fn give(
        &self,
        from: &Profile<PlayerData>,
        to: u32,
    ) -> impl Future<Output = Result<Vec<Item>>> + Send + 'static + use<> {
        let (from_, players) = (from.clone(), self.players.clone());
        self.server.transaction().with(from).run(move |tx| {
            let taken = tx.edit(&from_, PlayerData::take)?;
            if let Some(item) = taken {
                tx.gift(&players, &player_key(to), &Delivery { item, trade: None })?;
            }
            Ok(taken.into_iter().collect())
        })
    }

    /// Puts an item into an escrow.
    pub(crate) fn deposit(
        &self,
        from: &Profile<PlayerData>,
        player: u32,
        terms: Terms,
    ) -> impl Future<Output = Result<Vec<Item>>> + Send + 'static + use<> {
        let (from_, trades) = (from.clone(), self.trades.clone());
        self.server.transaction().with(from).run(move |tx| {
            let taken = tx.edit(&from_, |data| {
                let item = data.take()?;
                data.open_trades.insert(terms.trade, terms.clone());
                Some(item)
            })?;
            if let Some(item) = taken {
                let id = MessageId::new(terms.created_ms, &format!("deposit-{player}"))
                    .expect("the name is short");
                let key = trade_key(terms.trade);
                tx.gift_as(&trades, &key, &id, &Deposit { from: player, item, terms })?;
            }
            Ok(taken.into_iter().collect())
        })
    }

    /// Settles a trade if that is possible at `now_ms`; any server may, at any time.
    pub(crate) async fn settle(
        &self,
        trade: u64,
        now_ms: i64,
        patience: Duration,
    ) -> Result<Vec<Item>> {
        let key = trade_key(trade);
        let escrow =
            self.trades.start_session_with(&key, StartOptions::new().timeout(patience)).await?;
        escrow.message_handler(|data, message| {
            if let Ok(deposit) = message.parse() {
                data.accept(deposit);
                message.processed();
            }
        });
        let (emptied, players) = (escrow.clone(), self.players.clone());
        let settled = self.server.transaction().with(&escrow).run(move |tx| {
            let out = tx.edit(&emptied, |data| data.settle(now_ms))?;
            for (to, item) in &out {
                tx.gift(&players, &player_key(*to), &Delivery { item: *item, trade: Some(trade) })?;
            }
            Ok(out.into_iter().map(|(_, item)| item).collect())
        });
        let settled = settled.await;
        escrow.end_session().await?;
        settled
    }
}

pub(crate) fn trade_key(trade: u64) -> String {
    format!("trade-{trade}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escrow(held: &[(u32, Item)]) -> Escrow {
        let terms = Terms { trade: 1, sides: [7, 8], created_ms: 0, deadline_ms: 100 };
        Escrow { terms, held: held.iter().copied().collect(), closed: false }
    }

    #[test]
    fn an_escrow_gives_to_the_other_side_or_back_and_once() {
        let mut both = escrow(&[(7, (70, 1)), (8, (80, 5))]);
        assert_eq!(both.settle(0), [(7, (80, 6)), (8, (70, 2))]);
        assert_eq!(both.settle(500), []);
        let mut half = escrow(&[(7, (70, 1))]);
        assert_eq!(half.settle(99), []);
        assert_eq!(half.settle(100), [(7, (70, 2))]);
        half.held.insert(8, (80, 1));
        assert_eq!(
            half.settle(0),
            [(8, (80, 2))],
            "what comes too late goes back, whatever the time"
        );
    }

    #[test]
    fn items_are_minted_once_and_one_that_is_there_already_is_noted() {
        let mut data = PlayerData::default();
        data.mint(2);
        assert_eq!(data.take(), Some((6, 1)));
        data.mint(2);
        assert_eq!(data.items.keys().copied().collect::<Vec<_>>(), [7, 8]);
        data.put((7, 3));
        assert_eq!(data.doubled, ["arrival of item 7"]);
    }
}
