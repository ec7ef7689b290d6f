//! What a game server sends of its sessions, and when: one save, end or transaction at a time.

use serde_json::{Value, json};

use super::{About, Draft, Game, Transaction};
use crate::demo::remote::seat::Seat;

impl Game {
    /// Sends what each session and each transaction can send now.
    pub(in crate::demo::remote) fn pump(&mut self) {
        let sessions: Vec<u64> = self.seats.keys().copied().collect();
        for s in sessions {
            self.pump_seat(s);
        }
        let mut waiting = Vec::new();
        for transaction in std::mem::take(&mut self.transactions) {
            if transaction.parts.iter().any(|(s, _)| !self.seats.contains_key(s)) {
                self.give_up(&transaction, "session-ended", "a session of it is over");
            } else if transaction.parts.iter().any(|(s, _)| self.seats[s].is_sending) {
                waiting.push(transaction);
            } else {
                self.send_transaction(transaction);
            }
        }
        self.transactions.extend(waiting);
    }

    fn pump_seat(&mut self, s: u64) {
        let Some(seat) = self.seats.get_mut(&s) else { return };
        if seat.is_sending || seat.is_frozen {
            return;
        }
        if let Some(why) = seat.ending {
            let (draft, steps) = (seat.draft(), std::mem::take(&mut seat.unsaved));
            let body = seat.body(s, &draft);
            return self.ask("end", body, About::End { s, steps, why });
        }
        if let Some((op, edit)) = seat.edits.pop_front() {
            let (who, stored_revision) = (seat.who, seat.stored_revision);
            let edited = (seat.stored.edited(who, &edit), seat.document.edited(who, &edit));
            let (document, done) = match edited {
                (Ok(alone), Ok(together)) => {
                    seat.document = together;
                    seat.revision += 1;
                    (alone, json!([{ "op": op }]))
                }
                (Err(why), _) | (_, Err(why)) => {
                    (seat.stored.clone(), json!([{ "op": op, "refused": why }]))
                }
            };
            let draft = Draft {
                document,
                revision: stored_revision,
                processed: Vec::new(),
                edits_done: done,
            };
            return self.send_save(s, draft);
        }
        if seat.is_due && seat.is_changed() {
            seat.is_due = false;
            let draft = seat.draft();
            self.send_save(s, draft);
        }
    }

    pub(super) fn send_save(&mut self, s: u64, draft: Draft) {
        let Some(seat) = self.seats.get_mut(&s) else { return };
        let body = seat.body(s, &draft);
        self.ask("save", body, About::Save { s, draft });
    }

    fn send_transaction(&mut self, transaction: Transaction) {
        let (mut parts, mut drafts) = (Vec::new(), Vec::new());
        for (s, document) in &transaction.parts {
            let Some(seat) = self.seats.get_mut(s) else { return };
            let draft = Draft { document: document.clone(), ..seat.draft() };
            parts.push(seat.body(*s, &draft));
            drafts.push(draft);
        }
        let body = json!({ "parts": parts, "gifts": transaction.gifts });
        self.ask("tx", body, About::Transaction { transaction, drafts });
    }
}

impl Seat {
    fn draft(&self) -> Draft {
        Draft {
            document: self.document.clone(),
            revision: self.revision,
            processed: self.processed.iter().copied().collect(),
            edits_done: json!([]),
        }
    }

    /// The members of the next save, end or part of a transaction.
    fn body(&mut self, s: u64, draft: &Draft) -> Value {
        self.n += 1;
        self.is_sending = true;
        json!({ "s": s, "n": self.n, "data": draft.document.value(),
            "processed": draft.processed, "edits_done": draft.edits_done })
    }
}
