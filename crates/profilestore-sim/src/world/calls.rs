//! Calls on a session, each in two parts: the call, which is under way when it returns, and the
//! answer, for which its caller may or may not wait.

use std::{collections::BTreeSet, pin::Pin, sync::Arc};

use profilestore::{Error, ErrorKind, MessageId, Result};

use super::{Running, World, life::Life};
use crate::{
    data::{Label, Letter},
    invariants::order::Heard,
    oracle::{LetterTold, TradeTold},
    seat::Seat,
};

type Answer<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// A transaction that was called.
pub(super) struct Transaction {
    /// The number of its call.
    pub mark: u64,
    key: String,
    life: Arc<Life>,
    takers: Vec<(Label, Seat)>,
    answer: Answer<()>,
}

/// A save that was called.
pub(super) struct Save {
    pub edits: u64,
    label: Label,
    key: String,
    life: Arc<Life>,
    answer: Answer<()>,
}

/// A message whose sending was called.
pub(super) struct Sending {
    pub letter: u64,
    to: String,
    life: Arc<Life>,
    answer: Answer<()>,
}

impl World {
    /// Calls a transaction of the takers, in which each gains or loses coins. `bargain` is what
    /// else happens in it, for each taker.
    pub(super) fn transact(
        &self,
        running: &Running,
        takers: Vec<Label>,
        bargain: Bargain,
    ) -> Transaction {
        let (mark, key, takers) = {
            let books = &mut *self.clerk.0.lock();
            let mark = books.told.call();
            books.told.transactions.insert(mark, TradeTold::Unknown);
            let seat = |label: &Label| (*label, books.told.sessions[label].seat.clone());
            let takers: Vec<(Label, Seat)> = takers.iter().map(seat).collect();
            let key = books.told.sessions[&takers[0].0].key.clone();
            books.note(Some(&key), || {
                format!(
                    "transaction {mark} of {:?}",
                    takers.iter().map(|(label, _)| label).collect::<Vec<_>>()
                )
            });
            (mark, key, takers)
        };
        let transaction = takers
            .iter()
            .fold(running.server.transaction(), |builder, (_, seat)| seat.joins(builder));
        let seats = takers.clone();
        let done = transaction.run(move |tx| {
            let mut item = None;
            for (at, (label, seat)) in seats.iter().enumerate() {
                seat.edit_in(tx, |data| {
                    data.marks.push(mark);
                    data.sign(*label);
                    bargain.part(at, data, &mut item);
                })?;
            }
            Ok::<(), Error>(())
        });
        Transaction { mark, key, life: running.life.clone(), takers, answer: Box::pin(done) }
    }

    /// Waits for a transaction.
    pub(super) async fn hear_transaction(
        &self,
        transaction: Transaction,
    ) -> Option<Result<(), ErrorKind>> {
        let Transaction { mark, key, life, takers, answer } = transaction;
        let answer = life.wait(answer).await?;
        let books = &mut *self.clerk.0.lock();
        books.note(Some(&key), || format!("transaction {mark} of {key}: {answer:?}"));
        let heard = answer.map_err(|error| error.kind());
        let known = match heard {
            Ok(()) => TradeTold::Done,
            Err(ErrorKind::Unknown) => TradeTold::Unknown,
            Err(_) => TradeTold::Failed,
        };
        books.told.transactions.insert(mark, known);
        let labels: Vec<Label> = takers.iter().map(|(label, _)| *label).collect();
        let outcome = books.invariants.order.told(mark, heard, &labels, &books.told);
        books.check(outcome);
        for (label, seat) in takers {
            let edits = seat.read(|data| data.edits.get(&label).copied().unwrap_or_default());
            if let Some(session) = books.told.sessions.get_mut(&label) {
                session.edits = session.edits.max(edits);
            }
        }
        Some(heard)
    }

    /// Calls a save.
    pub(super) fn save(&self, label: Label) -> Save {
        let (key, life, seat, edits) = {
            let session = &self.clerk.0.lock().told.sessions[&label];
            (session.key.clone(), session.life.clone(), session.seat.clone(), session.edits)
        };
        Save { edits, label, key, life, answer: seat.save() }
    }

    /// Waits for a save.
    pub(super) async fn hear_save(&self, save: Save) -> Option<Result<(), ErrorKind>> {
        let Save { edits, label, key, life, answer } = save;
        let answer = life.wait(answer).await?;
        let books = &mut *self.clerk.0.lock();
        books.note(Some(&key), || format!("session {label} saved {edits} edits: {answer:?}"));
        if answer.is_ok() {
            let outcome = books.invariants.durable.acknowledged(&key, label, edits);
            books.check(outcome);
        }
        Some(answer.map_err(|error| error.kind()))
    }

    /// Calls the sending of a new message, which is sent this once.
    pub(super) fn send_once(&self, running: &Running, to: &str, coins: i64) -> Sending {
        let number = {
            let letters = &mut self.clerk.0.lock().told.letters;
            letters.push(LetterTold {
                to: to.to_owned(),
                coins,
                under_way: 1,
                ..LetterTold::default()
            });
            letters.len() as u64 - 1
        };
        let letter = Letter { number, coins, gift: false };
        let sent = running.doors.main.send_message_as(to, &self.letter_id(number), &letter);
        let answer = Box::pin(async move { sent.await.map(drop) });
        Sending { letter: number, to: to.to_owned(), life: running.life.clone(), answer }
    }

    /// Waits for a message's sending.
    pub(super) async fn hear_sending(&self, sending: Sending) -> Option<Result<(), ErrorKind>> {
        let Sending { letter, to, life, answer } = sending;
        let answer = life.wait(answer).await;
        let books = &mut *self.clerk.0.lock();
        books.note(Some(&to), || format!("message {letter} to {to} from {}: {answer:?}", life.job));
        let told = &mut books.told.letters[letter as usize];
        told.under_way -= 1;
        match &answer {
            Some(Ok(())) => {
                told.stored = true;
                books.counts.add("messages stored");
                let outcome = books.invariants.messages.acknowledged(&to, letter);
                books.check(outcome);
            }
            Some(Err(error)) => told.unknown |= error.kind() == ErrorKind::Unknown,
            None => told.unknown = true,
        }
        answer.map(|answer| answer.map_err(|error| error.kind()))
    }

    /// A message's sender does not wait for the answer.
    pub(super) fn sends_and_goes(&self, sending: Sending) {
        let Sending { letter, answer, .. } = sending;
        drop(answer);
        let told = &mut self.clerk.0.lock().told.letters[letter as usize];
        told.under_way -= 1;
        told.unknown = true;
    }

    /// Calls a read on the server of a session, for what that session did.
    pub(super) fn read(
        &self,
        running: &Running,
        key: &str,
        label: Label,
    ) -> impl Future<Output = Option<Heard>> + Send + 'static + use<> {
        let (read, life) = (running.doors.main.get(key), running.life.clone());
        async move {
            Some(match life.wait(read).await? {
                Ok(Some(read)) => Heard::Saw {
                    edits: read.data.edits.get(&label).copied().unwrap_or_default(),
                    marks: read.data.marks.iter().copied().collect::<BTreeSet<u64>>(),
                },
                Ok(None) => Heard::Refused(ErrorKind::NotFound),
                Err(error) => Heard::Refused(error.kind()),
            })
        }
    }

    /// The identity of a message in the world.
    pub(super) fn letter_id(&self, number: u64) -> MessageId {
        MessageId::new(self.clock.start_ms, &format!("letter-{number}")).expect("the name is short")
    }
}

/// What happens in a transaction besides its being noted.
#[derive(Debug, Clone, Copy)]
pub(super) enum Bargain {
    /// Nothing.
    None,
    /// The second taker sells an item to the first.
    Sale { trade: u64, price: i64 },
}

impl Bargain {
    /// What it does to the taker at this place. The seller comes first.
    fn part(self, at: usize, data: &mut crate::data::Player, item: &mut Option<u64>) {
        let Self::Sale { trade, price } = self else { return };
        data.trades.push(trade);
        if at == 0 {
            data.coins += price;
            *item = data.items.pop();
        } else {
            data.coins -= price;
            data.items.extend(item.take());
        }
    }
}
