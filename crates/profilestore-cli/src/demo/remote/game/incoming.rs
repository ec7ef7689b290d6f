//! What a game server is told, and what the answers to its requests mean.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{AGAIN, About, Asked, Game, Later, Moved, Transaction};
use crate::demo::{
    data::Transfer,
    remote::seat::{Document, Effect, Ending, Seat, Waiter, Who},
    wire::{Answer, Report},
};

impl Game {
    /// False: the connection is to be given up.
    pub(in crate::demo::remote) fn told(&mut self, frame: &Value) -> bool {
        let Some((name, body)) = frame.as_object().and_then(|frame| frame.iter().next()) else {
            return false;
        };
        let s = body["s"].as_u64().unwrap_or_default();
        match &**name {
            "goaway" | "stopped" => return false,
            "error" => self.failed(body["i"].as_u64(), &body["problem"]),
            "overloaded" => self.send_again(body["i"].as_u64(), AGAIN),
            "started" | "saved" | "done" | "sent" | "ended" => {
                let asked = body["i"].as_u64().and_then(|i| self.asked.remove(&i));
                if let Some(Asked { about, .. }) = asked {
                    self.answered(about, body);
                }
            }
            "lost" => self.over(s, "lost"),
            "closed" => {
                let how = if body["why"] == "external" { "handed over" } else { "lost" };
                self.over(s, how);
            }
            "release" => {
                if let Some(seat) = self.seats.get_mut(&s) {
                    seat.ending.get_or_insert(Ending::Released);
                }
            }
            "message" => {
                let index = body["index"].as_u64().unwrap_or_default();
                let seat = self.seats.get_mut(&s);
                let effects = seat.map(|seat| seat.received(index, body["body"].clone()));
                self.tell_effects(s, &effects.unwrap_or_default());
            }
            "edit" => {
                let edit = profilestore::Edit::from_patch(&body["changes"].to_string());
                let op = body["op"].as_str().unwrap_or_default().to_owned();
                match (self.seats.get_mut(&s), edit) {
                    (Some(seat), Ok(edit)) => seat.edit(op, edit),
                    (Some(_), Err(error)) => {
                        self.say(Report::Trouble { message: error.to_string() })
                    }
                    (None, _) => {}
                }
            }
            _ => {}
        }
        true
    }

    fn send_again(&mut self, i: Option<u64>, after: Duration) {
        if let Some(i) = i.filter(|i| self.asked.contains_key(i)) {
            self.later(after, Later::SendAgain(i));
        }
    }

    fn failed(&mut self, i: Option<u64>, problem: &Value) {
        let kind = problem["kind"].as_str().unwrap_or("error").to_owned();
        let message = problem["detail"].as_str().unwrap_or_default().to_owned();
        let advice = problem["advice"].as_str().unwrap_or_default();
        // Nothing was done, or nobody knows: the same request finds out, through any process.
        if kind == "closing" || advice == "retry-as" {
            return self.send_again(i, AGAIN);
        }
        let Some(Asked { about, .. }) = i.and_then(|i| self.asked.remove(&i)) else {
            return self.say(Report::Trouble { message: problem.to_string() });
        };
        match about {
            About::Start { who, .. } => match who {
                Who::Player { order, .. } | Who::Escrow { order: Some(order), .. } => {
                    self.fail(order, &kind, &message);
                }
                Who::Escrow { order: None, .. } => {}
            },
            About::Save { s, draft } => match advice {
                _ if kind == "session-ended" => self.over(s, "lost"),
                "retry" => self.later(AGAIN, Later::SaveAgain(s, draft)),
                _ => {
                    self.say(Report::Trouble { message: format!("a save is refused: {problem}") });
                    self.over(s, "lost");
                }
            },
            About::End { s, steps, .. } => match self.seats.get_mut(&s) {
                Some(seat) if kind != "session-ended" => {
                    seat.unsaved = steps;
                    self.later(AGAIN, Later::EndAgain(s));
                }
                _ => {
                    if let Some(seat) = self.seats.get_mut(&s) {
                        seat.is_sending = false;
                    }
                    self.over(s, "lost");
                }
            },
            About::Transaction { transaction, .. } => {
                for (s, _) in &transaction.parts {
                    if let Some(seat) = self.seats.get_mut(s) {
                        seat.is_sending = false;
                    }
                }
                self.give_up(&transaction, &kind, &message);
            }
            About::Post { order, .. } => {
                if let Some(order) = order {
                    self.fail(order, &kind, &message);
                }
            }
        }
    }

    /// A session is over without its end.
    fn over(&mut self, s: u64, how: &str) {
        // The answer to an end that is under way says what became of it.
        if self.seats.get(&s).is_some_and(|seat| seat.ending.is_some() && seat.is_sending) {
            return;
        }
        let Some(seat) = self.seats.remove(&s) else { return };
        for (_, waiter) in seat.waiters {
            let (Waiter::Saved { order, .. } | Waiter::Debited { order, .. }) = waiter;
            self.fail(order, "session-ended", "the session is over");
        }
        match seat.ending {
            Some(Ending::Left { order }) => {
                self.fail(order, "session-ended", "the session is over");
            }
            Some(Ending::Shutdown) => self.taken.push(format!("{}: taken", seat.key)),
            _ => {}
        }
        self.tell_ended(seat.who, how);
    }

    fn tell_ended(&self, who: Who, how: &str) {
        if let Who::Player { player, order: session } = who {
            self.say(Report::Ended { player, session, how: how.to_owned() });
        }
    }

    fn answered(&mut self, about: About, body: &Value) {
        match about {
            About::Start { s, who, key, began } => self.started(s, who, key, began, body),
            About::Save { s, draft } => {
                let waiters = match self.seats.get_mut(&s) {
                    Some(seat) => {
                        seat.is_sending = false;
                        seat.is_stored(draft.document, draft.revision, &draft.processed)
                    }
                    None => Vec::new(),
                };
                self.tell_stored(waiters);
                if self.seats.get(&s).is_some_and(Seat::is_changed) {
                    self.changed(s);
                }
            }
            About::End { s, steps, why } => self.ended(s, steps, why),
            About::Transaction { transaction, drafts } => {
                let mut waiters = Vec::new();
                for ((s, _), draft) in transaction.parts.iter().zip(drafts) {
                    let Some(seat) = self.seats.get_mut(s) else { continue };
                    seat.is_sending = false;
                    seat.document = draft.document.clone();
                    waiters.extend(seat.is_stored(
                        draft.document,
                        draft.revision,
                        &draft.processed,
                    ));
                }
                let (items, micros) = (transaction.items.clone(), micros(transaction.began));
                match transaction.answers {
                    Moved::Order(id) => self.done(id, Answer::Moved { items, micros }),
                    Moved::Found => self.say(Report::Settled { items }),
                }
                self.tell_stored(waiters);
                self.thaw(&transaction);
            }
            About::Post { transfer, order, began } => {
                let Transfer { from, to, number, .. } = transfer;
                // If the session is over by now, the next one sends it again, which does nothing.
                if let Some(s) = self.seat_of(from)
                    && let Some(seat) = self.seats.get_mut(&s)
                    && seat.update(|data| data.sent(&transfer)).is_some()
                {
                    self.changed(s);
                }
                match order {
                    Some(id) => self.done(id, Answer::Sent { micros: micros(began) }),
                    None => self.say(Report::Resent { from, to, number }),
                }
            }
        }
    }

    fn tell_stored(&mut self, waiters: Vec<Waiter>) {
        for waiter in waiters {
            match waiter {
                Waiter::Saved { order, steps, began } => {
                    self.done(order, Answer::Saved { steps, micros: micros(began) });
                }
                Waiter::Debited { order, transfer } => {
                    let Transfer { from, to, number, .. } = transfer;
                    self.say(Report::Debited { from, to, number });
                    self.post(transfer, Some(order));
                }
            }
        }
    }

    fn ended(&mut self, s: u64, steps: Vec<u32>, why: Ending) {
        let Some(seat) = self.seats.remove(&s) else { return };
        // What the last save stored is stored.
        let waiters = seat.waiters.into_iter().map(|(_, waiter)| waiter).collect();
        self.tell_stored(waiters);
        match (why, seat.who) {
            (Ending::Left { order }, _) => self.done(order, Answer::Left { steps }),
            (Ending::Released, who) => self.tell_ended(who, "handed over"),
            (Ending::Shutdown, Who::Player { player, .. }) => self.saved.push((player, steps)),
            (Ending::Settled | Ending::Shutdown, _) => {}
        }
    }

    fn started(&mut self, s: u64, who: Who, key: String, began: Instant, body: &Value) {
        let epoch = body["epoch"].as_u64().unwrap_or_default();
        let Some(document) = Document::read(who, body["data"].clone()) else {
            self.say(Report::Trouble { message: format!("data that cannot be read: {body}") });
            return;
        };
        let mut seat = Seat::new(who, key, epoch, document);
        if self.is_stopping {
            seat.ending = Some(Ending::Shutdown);
        }
        let load_count = body["meta"]["load_count"].as_u64().unwrap_or_default();
        let Who::Player { player, order } = who else {
            self.seats.insert(s, seat);
            return self.later(Duration::from_millis(50), Later::SettleOpen(s));
        };
        self.done(order, Answer::Joined { load_count, micros: micros(began) });
        seat.update(|data| data.mint(player));
        let (mut outbox, mut open) = (Vec::new(), Vec::new());
        if let Some(data) = seat.document.player() {
            outbox.clone_from(&data.outbox);
            open.extend(data.open_trades.values().cloned());
        }
        self.seats.insert(s, seat);
        self.changed(s);
        for transfer in outbox {
            self.post(transfer, None);
        }
        let now_ms = profilestore::env::Env::system().unix_ms();
        for terms in open {
            // Before the deadline the other side may still come.
            let left = u64::try_from(terms.deadline_ms - now_ms).unwrap_or(0);
            let what = Later::Settle { trade: terms.trade, s };
            self.later(Duration::from_millis(left), what);
        }
    }

    // --- what follows ---------------------------------------------------------------------------

    fn thaw(&mut self, transaction: &Transaction) {
        for (s, _) in &transaction.parts {
            let Some(seat) = self.seats.get_mut(s) else { continue };
            seat.is_frozen = false;
            let effects = seat.take_messages();
            self.tell_effects(*s, &effects);
            if transaction.is_last
                && let Some(seat) = self.seats.get_mut(s)
            {
                seat.ending.get_or_insert(Ending::Settled);
            }
        }
    }

    pub(super) fn give_up(&mut self, transaction: &Transaction, kind: &str, message: &str) {
        self.thaw(transaction);
        if let Moved::Order(id) = transaction.answers {
            self.fail(id, kind, message);
        }
    }

    fn tell_effects(&self, s: u64, effects: &[Effect]) {
        let Some(Who::Player { player, .. }) = self.seats.get(&s).map(|seat| seat.who) else {
            return;
        };
        for _ in effects.iter().filter(|effect| **effect == Effect::Credited) {
            self.say(Report::Credited { player });
        }
    }
}

fn micros(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}
