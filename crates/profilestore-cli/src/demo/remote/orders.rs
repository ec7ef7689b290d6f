//! What a game server is ordered to do.

use profilestore::{MessageId, env::Env};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    game::{Game, Moved, Transaction},
    seat::{Document, Ending, Waiter, Who},
};
use crate::demo::{
    data::{PlayerData, Transfer},
    player_key,
    trades::{Delivery, Deposit, Escrow, Item, Terms, trade_key},
    wire::{Answer, Order, What},
};

impl Game {
    pub(super) fn take(&mut self, Order { id, what }: Order) {
        match what {
            What::Join { player } => {
                let template = Document::Player(Box::default());
                self.start(
                    Who::Player { player, order: id },
                    player_key(player),
                    "Demo",
                    &template,
                );
            }
            What::Leave { player } => match self.seat_of(player) {
                Some(s) => self.end(s, Ending::Left { order: id }),
                None => self.nobody(id),
            },
            What::Earn { player, step, amount, save } => self.earn(id, player, step, amount, save),
            What::Send { from, to, number, amount } => {
                let created_ms = Env::system().unix_ms();
                self.send(id, Transfer { from, to, number, amount, created_ms });
            }
            What::Trade { one, other } => self.swap(id, one, other),
            What::Give { from, to } => self.give(id, from, |item, game| {
                let delivery = json!(Delivery { item, trade: None });
                vec![game.gift("Demo", &player_key(to), None, delivery)]
            }),
            What::Deposit { player, terms } => self.deposit(id, player, terms),
            What::Settle { trade } => self.settle(trade, Some(id)),
            // The desk makes it.
            What::Edit { .. } | What::Stop => {}
        }
    }

    /// A player's session here.
    pub(super) fn seat_of(&self, player: u32) -> Option<u64> {
        let is_theirs = |who: Who| matches!(who, Who::Player { player: one, .. } if one == player);
        let found = self.seats.iter().rev().find(|(_, seat)| is_theirs(seat.who));
        found.filter(|(_, seat)| seat.ending.is_none()).map(|(s, _)| *s)
    }

    fn nobody(&self, id: u64) {
        self.refuse(id, "no session here");
    }

    fn refuse(&self, id: u64, why: &str) {
        self.done(id, Answer::Refused { why: why.to_owned() });
    }

    pub(super) fn end(&mut self, s: u64, why: Ending) {
        if let Some(seat) = self.seats.get_mut(&s) {
            seat.ending.get_or_insert(why);
        }
    }

    fn earn(&mut self, id: u64, player: u32, step: u32, amount: u32, save: bool) {
        let Some(s) = self.seat_of(player) else { return self.nobody(id) };
        let Some(seat) = self.seats.get_mut(&s) else { return };
        if seat.update(|data| data.earn(step, amount)).is_none() {
            return self.refuse(id, "busy");
        }
        seat.unsaved.push(step);
        if !save {
            self.changed(s);
            return self.done(id, Answer::Noted);
        }
        let steps = std::mem::take(&mut seat.unsaved);
        let waiter = Waiter::Saved { order: id, steps, began: Instant::now() };
        seat.waiters.push((seat.revision, waiter));
        seat.is_due = true;
    }

    /// Debit and intent are one save; the message follows it.
    fn send(&mut self, id: u64, transfer: Transfer) {
        let Some(s) = self.seat_of(transfer.from) else { return self.nobody(id) };
        let Some(seat) = self.seats.get_mut(&s) else { return };
        match seat.update(|data| data.debit(&transfer)) {
            None => return self.refuse(id, "busy"),
            Some(false) => return self.refuse(id, "not enough coins"),
            Some(true) => {}
        }
        seat.waiters.push((seat.revision, Waiter::Debited { order: id, transfer }));
        seat.is_due = true;
    }

    // --- transactions ---------------------------------------------------------------------------

    /// A transaction has these sessions from now on; their data, to be changed.
    fn freeze(&mut self, sessions: &[u64]) -> Option<Vec<Document>> {
        let all_open =
            sessions.iter().all(|s| self.seats.get(s).is_some_and(super::seat::Seat::is_open));
        if !all_open {
            return None;
        }
        let freeze = |s: &u64| {
            let seat = self.seats.get_mut(s)?;
            seat.is_frozen = true;
            Some(seat.document.clone())
        };
        sessions.iter().map(freeze).collect()
    }

    fn transact(
        &mut self,
        id: u64,
        sessions: &[u64],
        documents: Vec<Document>,
        gifts: Vec<Value>,
        items: Vec<Item>,
    ) {
        self.transactions.push(Transaction {
            parts: sessions.iter().copied().zip(documents).collect(),
            gifts,
            items,
            answers: Moved::Order(id),
            is_last: false,
            began: Instant::now(),
        });
    }

    /// Each gives the other an item, if there is one.
    fn swap(&mut self, id: u64, one: u32, other: u32) {
        let (Some(one), Some(other)) = (self.seat_of(one), self.seat_of(other)) else {
            return self.nobody(id);
        };
        let Some(mut documents) = self.freeze(&[one, other]) else {
            return self.fail(id, "busy", "a transaction has the profile");
        };
        let taken: Vec<Option<Item>> = documents
            .iter_mut()
            .map(|document| document.player().and_then(PlayerData::take))
            .collect();
        for (document, item) in documents.iter_mut().zip(taken.iter().rev()) {
            if let (Some(data), Some(item)) = (document.player(), item) {
                data.put(*item);
            }
        }
        let items = taken.into_iter().flatten().collect();
        self.transact(id, &[one, other], documents, Vec::new(), items);
    }

    fn give(&mut self, id: u64, from: u32, gifts: impl FnOnce(Item, &Self) -> Vec<Value>) {
        let Some(s) = self.seat_of(from) else { return self.nobody(id) };
        let Some(mut documents) = self.freeze(&[s]) else {
            return self.fail(id, "busy", "a transaction has the profile");
        };
        let taken = documents[0].player().and_then(PlayerData::take);
        let gifts = taken.map(|item| gifts(item, self)).unwrap_or_default();
        self.transact(id, &[s], documents, gifts, taken.into_iter().collect());
    }

    /// Puts an item into an escrow.
    fn deposit(&mut self, id: u64, player: u32, terms: Terms) {
        let Some(s) = self.seat_of(player) else { return self.nobody(id) };
        let Some(mut documents) = self.freeze(&[s]) else {
            return self.fail(id, "busy", "a transaction has the profile");
        };
        let taken = documents[0].player().and_then(|data| {
            let item = data.take()?;
            data.open_trades.insert(terms.trade, terms.clone());
            Some(item)
        });
        let gifts = taken.map(|item| {
            let id = MessageId::new(terms.created_ms, &format!("deposit-{player}"));
            let key = trade_key(terms.trade);
            let deposit = json!(Deposit { from: player, item, terms });
            self.gift("DemoTrades", &key, Some(id.expect("the name is short")), deposit)
        });
        let items = taken.into_iter().collect();
        self.transact(id, &[s], documents, gifts.into_iter().collect(), items);
    }

    fn gift(&self, store: &str, key: &str, id: Option<MessageId>, message: Value) -> Value {
        let env = Env::system();
        let id = id.map_or_else(
            || format!("{}:{}", env.unix_ms(), env.uuid().simple()),
            |id| id.to_string(),
        );
        json!({ "store": store, "scope": self.scope, "key": key, "id": id, "message": message })
    }

    /// Settles a trade if that is possible: opens its escrow, and goes on in `settle_open`.
    pub(super) fn settle(&mut self, trade: u64, order: Option<u64>) {
        let template = Document::Escrow(Box::<Escrow>::default());
        self.start(Who::Escrow { trade, order }, trade_key(trade), "DemoTrades", &template);
    }

    /// The escrow is open, and its messages have come: those that come later are settled by the
    /// next server that opens it.
    pub(super) fn settle_open(&mut self, s: u64) {
        let Some(Who::Escrow { trade, order }) = self.seats.get(&s).map(|seat| seat.who) else {
            return;
        };
        let Some(mut documents) = self.freeze(&[s]) else {
            if let Some(id) = order {
                self.fail(id, "busy", "the escrow is being handed over");
            }
            return;
        };
        let Document::Escrow(escrow) = &mut documents[0] else { return };
        let out = escrow.settle(Env::system().unix_ms());
        let gifts = out
            .iter()
            .map(|(to, item)| {
                let delivery = json!(Delivery { item: *item, trade: Some(trade) });
                self.gift("Demo", &player_key(*to), None, delivery)
            })
            .collect();
        self.transactions.push(Transaction {
            parts: vec![(s, documents.remove(0))],
            gifts,
            items: out.into_iter().map(|(_, item)| item).collect(),
            answers: order.map_or(Moved::Found, Moved::Order),
            is_last: true,
            began: Instant::now(),
        });
    }

    /// Ends all sessions, and starts none any more.
    pub(super) fn stop(&mut self) {
        self.is_stopping = true;
        self.cancel_starts();
        let sessions: Vec<u64> = self.seats.keys().copied().collect();
        for s in sessions {
            self.end(s, Ending::Shutdown);
        }
    }
}
