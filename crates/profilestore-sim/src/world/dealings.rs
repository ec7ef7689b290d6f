//! What players deal in: purchases, messages, trades and gifts.

use std::sync::Arc;

use profilestore::{ErrorKind, Sent};

use super::{
    calls::Bargain,
    players::{Actor, is_unknown, key_of},
};
use crate::{
    data::{Label, Letter},
    invariants::broken,
    oracle::{LetterTold, SessionTold, TradeTold},
};

impl Actor {
    /// A purchase is granted once, however often its receipt comes, and confirmed when the grant is
    /// durable.
    pub(super) async fn buy(&mut self, label: Label) {
        let purchase = *self.paid.get_or_insert_with(|| {
            self.purchases += 1;
            self.purchases
        });
        // Every grant makes an item of its own, so that two of one number are always a fault.
        let item = self.world.clerk.0.lock().told.item();
        let granted = self.edit(label, |data| {
            if !data.bought.contains(&purchase) {
                data.bought.push(purchase);
                data.items.push(item);
                data.mint(100);
            }
        });
        if granted && self.saved(label).await {
            self.world.count("purchases");
            self.paid = None;
        }
    }

    pub(super) async fn send(&mut self) {
        let to = self.dice.below(self.world.size.players);
        let coins = 1 + self.dice.below(20) as i64;
        let number = {
            let letters = &mut self.world.clerk.0.lock().told.letters;
            letters.push(LetterTold { to: key_of(to), coins, ..LetterTold::default() });
            letters.len() as u64 - 1
        };
        self.sent.push(number);
        self.dispatch(number).await;
    }

    pub(super) async fn send_again(&mut self) {
        if !self.sent.is_empty() {
            let number = *self.dice.pick(&self.sent);
            self.dispatch(number).await;
        }
    }

    /// Sends a message, again if the answer was no clear yes.
    async fn dispatch(&mut self, number: u64) {
        for _ in 0..3 {
            let Some(running) = self.somewhere() else { return };
            let index = number as usize;
            let (to, letter, was_stored) = {
                let books = &mut *self.world.clerk.0.lock();
                let told = &mut books.told.letters[index];
                told.under_way += 1;
                (
                    told.to.clone(),
                    Letter { number, coins: told.coins, gift: told.gift },
                    told.stored,
                )
            };
            let id = self.world.letter_id(number);
            let Some(answer) =
                running.life.wait(running.doors.main.send_message_as(&to, &id, &letter)).await
            else {
                return;
            };
            let restored = self.restores();
            let books = &mut *self.world.clerk.0.lock();
            books.note(Some(&to), || {
                format!("message {number} to {to} from {}: {answer:?}", running.life.job)
            });
            let told = &mut books.told.letters[index];
            told.under_way -= 1;
            match answer {
                Ok(sent) => {
                    told.stored = true;
                    books.counts.add("messages stored");
                    let outcome = if was_stored && sent == Sent::Now && restored == 0 {
                        broken(
                            "G3",
                            &to,
                            format!("message {number} had been acknowledged, and was stored again"),
                        )
                    } else {
                        books.invariants.messages.acknowledged(&to, number)
                    };
                    books.check(outcome);
                    return;
                }
                Err(error) => told.unknown |= is_unknown(&error),
            }
        }
    }

    /// The session of another player on the same server.
    pub(super) fn partner(&self, label: Label) -> Option<Label> {
        let books = self.world.clerk.0.lock();
        let own = &books.told.sessions[&label];
        let near = |session: &SessionTold| {
            Arc::ptr_eq(&session.life, &own.life)
                && session.key != own.key
                && session.ended.is_none()
        };
        let partners: Vec<Label> = books
            .told
            .sessions
            .iter()
            .filter(|(_, session)| near(session))
            .map(|(label, _)| *label)
            .collect();
        (!partners.is_empty()).then(|| *self.dice.pick(&partners))
    }

    /// Swaps coins and an item with another player on the same server.
    pub(super) async fn trade(&mut self, label: Label) {
        let Some(partner) = self.partner(label) else { return };
        let Some(running) = self.running_of_session(label) else { return };
        let price = 1 + self.dice.below(30) as i64;
        let trade = {
            let trades = &mut self.world.clerk.0.lock().told.trades;
            trades.push(TradeTold::Unknown);
            trades.len() as u64 - 1
        };
        let called =
            self.world.transact(&running, vec![partner, label], Bargain::Sale { trade, price });
        let Some(heard) = self.world.hear_transaction(called).await else { return };
        let books = &mut *self.world.clerk.0.lock();
        books.note(Some(&self.key), || {
            format!("trade {trade} of sessions {partner} and {label}: {heard:?}")
        });
        match heard {
            Ok(()) => {
                books.told.trades[trade as usize] = TradeTold::Done;
                books.counts.add("trades");
                let outcome = books.invariants.trades.acknowledged(&self.key, trade);
                books.check(outcome);
            }
            Err(ErrorKind::Unknown) => {}
            Err(_) => books.told.trades[trade as usize] = TradeTold::Failed,
        }
    }

    /// Gives coins to another player, online or not: debit and message are one commit.
    pub(super) async fn give(&mut self, label: Label) {
        let to = key_of(self.dice.below(self.world.size.players));
        if to == self.key {
            return;
        }
        let (seat, life) = {
            let books = self.world.clerk.0.lock();
            let session = &books.told.sessions[&label];
            (session.seat.clone(), session.life.clone())
        };
        let Some(running) = self.running_of_session(label) else { return };
        let coins = 1 + self.dice.below(30) as i64;
        let number = {
            let letters = &mut self.world.clerk.0.lock().told.letters;
            letters.push(LetterTold { to: to.clone(), coins, gift: true, ..LetterTold::default() });
            letters.len() as u64 - 1
        };
        let id = self.world.letter_id(number);
        // The second time is a caller that did not hear the answer.
        for _ in 0..=usize::from(self.dice.chance(0.3)) {
            self.world.clerk.0.lock().told.letters[number as usize].under_way += 1;
            let (giver, players, to_, id) =
                (seat.clone(), running.doors.main.clone(), to.clone(), id.clone());
            let done = seat.joins(running.server.transaction()).run(move |tx| {
                giver.edit_in(tx, |data| {
                    data.coins -= coins;
                    data.sign(label);
                })?;
                tx.gift_as(&players, &to_, &id, &Letter { number, coins, gift: true })
            });
            let Some(answer) = life.wait(done).await else { return };
            let books = &mut *self.world.clerk.0.lock();
            books.note(Some(&self.key), || {
                format!("gift {number} of {} to {to}: {answer:?}", self.key)
            });
            let told = &mut books.told.letters[number as usize];
            told.under_way -= 1;
            let stored = match answer {
                Ok(()) => {
                    books.counts.add("gifts");
                    true
                }
                Err(error) => {
                    told.unknown |= is_unknown(&error);
                    error.kind() == ErrorKind::DoneBefore
                }
            };
            if stored {
                books.told.letters[number as usize].stored = true;
                let outcome = books.invariants.messages.acknowledged(&to, number);
                books.check(outcome);
            }
            let edits = seat.read(|data| data.edits.get(&label).copied().unwrap_or_default());
            if let Some(session) = books.told.sessions.get_mut(&label) {
                session.edits = session.edits.max(edits);
            }
        }
    }
}
