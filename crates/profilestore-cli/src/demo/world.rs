//! What the parent knows: which servers are up, which player is where, which orders wait for an
//! answer, and the ledger.
//!
//! Orders go out and reports come in only here, under one lock. So the ledger always agrees with
//! them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use uuid::Uuid;

use super::{
    Plan, display,
    edits::Task,
    figures::Figures,
    ledger::Ledger,
    wire::{Answer, Order, Report, What},
};

/// One of the places where a server runs: one process after the other, when they are killed.
#[derive(Debug, Default)]
struct Slot {
    /// Counts the processes.
    generation: u32,
    /// The process of this generation has not ended.
    alive: bool,
    ready: bool,
    orders: Option<mpsc::UnboundedSender<Order>>,
}

/// A session that a server reported and that is not known to have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) slot: usize,
    generation: u32,
    session: u64,
    load_count: u64,
    /// Another start of the player's was under way when this one was ordered; either may have ended
    /// the other.
    rivals: bool,
}

#[derive(Debug, Default)]
struct Player {
    seats: Vec<Seat>,
    /// The player's server was killed while the player was there.
    orphaned: bool,
    /// The player has a profile.
    stored: bool,
    /// The last order to start or end a session of the player.
    last_move: u64,
    /// When the library last did something durable for the player.
    served: Option<Instant>,
}

impl Player {
    /// The newest session is the one that counts; the word that an older one has ended may still be
    /// under way.
    fn seat(&self) -> Option<Seat> {
        self.seats.iter().copied().max_by_key(|seat| seat.load_count)
    }
}

#[derive(Debug)]
struct Waiting {
    slot: usize,
    generation: u32,
    what: What,
    /// Where the player was when a start was ordered.
    held: Option<Seat>,
    rivals: bool,
    reply: oneshot::Sender<Answer>,
}

/// Everything the parent knows.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) ledger: Ledger,
    pub(crate) figures: Figures,
    slots: Vec<Slot>,
    players: Vec<Player>,
    waiting: BTreeMap<u64, Waiting>,
    next_order: u64,
    /// Servers are cut off for longer than the lease time: what they hold may be taken, and is lost
    /// to them.
    pub(crate) may_lose: bool,
    /// Sessions that ended without an order.
    pub(crate) thrown_out: Vec<String>,
    /// What no server should have done.
    pub(crate) faults: Vec<String>,
}

impl World {
    pub(crate) fn new(servers: usize, players: u32) -> Self {
        Self {
            ledger: Ledger::new(players),
            figures: Figures::default(),
            slots: (0..servers).map(|_| Slot::default()).collect(),
            players: (0..players).map(|_| Player::default()).collect(),
            waiting: BTreeMap::new(),
            next_order: 1,
            may_lose: false,
            thrown_out: Vec::new(),
            faults: Vec::new(),
        }
    }

    pub(crate) fn seat(&self, player: u32) -> Option<Seat> {
        self.players[player as usize].seat()
    }

    /// The servers that take orders.
    pub(crate) fn ready(&self) -> Vec<usize> {
        (0..self.slots.len()).filter(|slot| self.slots[*slot].ready).collect()
    }

    /// The players on a server, or those on any other one, with where they are.
    pub(crate) fn company(&self, slot: usize, elsewhere: bool) -> Vec<(u32, usize)> {
        let seats = self
            .players
            .iter()
            .enumerate()
            .filter_map(|(player, state)| Some((player, state.seat()?.slot)));
        seats
            .filter(|(_, at)| (*at != slot) == elsewhere)
            .map(|(player, at)| (u32::try_from(player).unwrap_or(0), at))
            .collect()
    }

    /// How many players are on each server; None for one that is down.
    pub(crate) fn sessions(&self) -> Vec<Option<usize>> {
        let mut sessions: Vec<_> = self.slots.iter().map(|slot| slot.ready.then_some(0)).collect();
        for seat in self.players.iter().filter_map(Player::seat) {
            if let Some(count) = &mut sessions[seat.slot] {
                *count += 1;
            }
        }
        sessions
    }

    /// How many orders other than starts wait for an answer. A start may have to wait for a dead
    /// server's lease.
    pub(crate) fn unanswered(&self) -> usize {
        self.waiting.values().filter(|waiting| !matches!(waiting.what, What::Join { .. })).count()
    }

    /// What a complete play shows and this one has not shown yet. Every player is to be served
    /// again after `since`.
    pub(crate) fn missing(&self, plan: &Plan, since: Instant) -> Vec<&'static str> {
        let figures = &self.figures;
        let [made, refused, _] = self.ledger.edits.fates();
        let all_edited = self.ledger.edits.of_all().is_some_and(|(_, complete)| complete);
        let served = self.players.iter().all(|player| player.served.is_some_and(|at| at > since));
        let facts = [
            ("a save", figures.saves > 0),
            ("a hand-over", figures.hand_over_times.count() > 0),
            ("a message", figures.messages_sent > 0),
            ("a trade", figures.trades > 0),
            ("a present", figures.presents > 0),
            ("a trade between servers", figures.settlements > 0),
            ("an edit by a holder", figures.edits_online > 0),
            ("an edit", made > 0),
            ("a refused edit", refused > 0),
            ("the edit of all players", all_edited),
            ("a kill", figures.kills > 0 || !plan.kill),
            ("a host's kill", figures.host_kills > 0 || !plan.kill || plan.via_server == 0),
            ("a restart of each server", figures.restarts >= u64::from(plan.servers) || !plan.roll),
            ("an answer to each player", served),
        ];
        facts.into_iter().filter(|(_, seen)| !seen).map(|(fact, _)| fact).collect()
    }

    // --- orders ---------------------------------------------------------------------------------

    /// Sends an order. The reply fails when the server is gone before it answered: what became of
    /// the order is not known.
    pub(crate) fn order(&mut self, slot: usize, what: What) -> oneshot::Receiver<Answer> {
        let (reply, answer) = oneshot::channel();
        let Some(orders) = self.slots[slot].orders.clone().filter(|_| self.slots[slot].ready)
        else {
            self.note_unsent(&what);
            let _ = reply.send(Answer::Refused { why: "the server is down".into() });
            return answer;
        };
        let id = self.next_order;
        self.next_order += 1;
        let (mut held, mut rivals) = (None, false);
        if let What::Join { player } | What::Leave { player } = what {
            self.players[player as usize].last_move = id;
            if what == (What::Leave { player }) {
                self.players[player as usize].seats.retain(|seat| seat.slot != slot);
            } else {
                held = self.seat(player);
                rivals = self.waiting.values().any(|waiting| waiting.what == what);
            }
        }
        let waiting = Waiting {
            slot,
            generation: self.slots[slot].generation,
            what: what.clone(),
            held,
            rivals,
            reply,
        };
        self.waiting.insert(id, waiting);
        // A process that is gone is noticed at the end of its reports.
        let _ = orders.send(Order { id, what });
        answer
    }

    /// Books an edit that is about to be ordered. One of all players is to reach those who have a
    /// profile by now.
    pub(crate) fn order_edit(
        &mut self,
        operation: Uuid,
        player: Option<u32>,
        amount: u32,
        fits: bool,
    ) -> Task {
        let stored =
            self.players.iter().zip(0..).filter(|(state, _)| player.is_none() && state.stored);
        let due: BTreeSet<u32> = stored.map(|(_, player)| player).collect();
        self.ledger.edits.order(operation, player, due, amount, fits)
    }

    /// Tells every server to shut down and takes no more orders.
    pub(crate) fn stop_all(&mut self) {
        for slot in 0..self.slots.len() {
            self.stop(slot);
        }
    }

    /// Tells one server to shut down, and orders nothing more of this process.
    pub(crate) fn stop(&mut self, slot: usize) {
        let slot = &mut self.slots[slot];
        slot.ready = false;
        if let Some(orders) = slot.orders.take() {
            let _ = orders.send(Order { id: 0, what: What::Stop });
        }
    }

    /// How many processes a slot has had so far.
    pub(crate) fn generation(&self, slot: usize) -> u32 {
        self.slots[slot].generation
    }

    fn note_unsent(&mut self, what: &What) {
        match *what {
            What::Earn { player, step, .. } => self.ledger.refuse_earning(player, step),
            What::Send { from, to, number, .. } => self.ledger.refuse_sending(from, to, number),
            _ => {}
        }
    }

    /// Something durable was done for a player, or the time is up.
    fn served(&mut self, player: u32) {
        let now = Instant::now();
        if let Some(before) = self.players[player as usize].served.replace(now) {
            let micros = now.saturating_duration_since(before).as_micros();
            self.figures.unserved_times.record(u64::try_from(micros).unwrap_or(u64::MAX));
        }
    }

    /// Nothing more is ordered; players who wait have waited until now.
    pub(crate) fn time_is_up(&mut self) {
        for player in 0..self.players.len() {
            self.served(u32::try_from(player).unwrap_or(0));
        }
    }

    // --- servers --------------------------------------------------------------------------------

    /// A new process for a slot; its generation.
    pub(crate) fn begin(&mut self, slot: usize, orders: mpsc::UnboundedSender<Order>) -> u32 {
        let slot = &mut self.slots[slot];
        slot.generation += 1;
        slot.alive = true;
        slot.orders = Some(orders);
        slot.generation
    }

    /// A slot's process is gone and its reports are all read.
    pub(crate) fn gone(&mut self, slot: usize) {
        let generation = self.slots[slot].generation;
        self.slots[slot].alive = false;
        self.slots[slot].ready = false;
        self.slots[slot].orders = None;
        for player in &mut self.players {
            if player.seat().is_some_and(|seat| (seat.slot, seat.generation) == (slot, generation))
            {
                player.orphaned = true;
            }
            player.seats.retain(|seat| (seat.slot, seat.generation) != (slot, generation));
        }
        // Dropping the reply tells the caller that waits.
        self.waiting.retain(|_, waiting| (waiting.slot, waiting.generation) != (slot, generation));
    }

    // --- reports --------------------------------------------------------------------------------

    /// Takes a report of a slot's current process.
    pub(crate) fn report(&mut self, slot: usize, report: Report) {
        match report {
            Report::Ready => self.slots[slot].ready = self.slots[slot].orders.is_some(),
            Report::Done { id, answer } => {
                if let Some(waiting) = self.waiting.remove(&id) {
                    self.answered(id, &waiting, &answer);
                    // The caller may have gone.
                    let _ = waiting.reply.send(answer);
                }
            }
            Report::Debited { from, to, number } => {
                self.ledger.acknowledge_debit(from, to, number);
                self.figures.saves += 1;
            }
            Report::Resent { from, to, number } => {
                self.ledger.acknowledge_message(from, to, number);
                self.figures.resent += 1;
            }
            Report::Settled { items } => {
                self.ledger.acknowledge_moves(&items);
                self.figures.settlements += u64::from(!items.is_empty());
            }
            Report::Credited { .. } => self.figures.messages_handled += 1,
            Report::Ended { player, session, how } => {
                let state = &mut self.players[player as usize];
                let seat = state.seats.iter().find(|seat| seat.session == session);
                let excused = how == "shutdown" || (how == "lost" && self.may_lose);
                if !excused && seat.is_some_and(|seat| !seat.rivals && state.last_move <= session) {
                    self.thrown_out.push(format!(
                        "player {player}: the session on server {slot} was {how}, \
                            which nobody had ordered"
                    ));
                }
                state.seats.retain(|seat| seat.session != session);
                *self.figures.ends.entry(how).or_default() += 1;
            }
            Report::Trouble { message } => self.figures.trouble(message),
            Report::StoodStill { millis } => self.stood_still(Duration::from_millis(millis)),
            Report::Stopped { saved, taken, not_saved } => {
                for (player, steps) in saved {
                    self.ledger.acknowledge_earnings(player, &steps);
                }
                self.figures.shutdowns += 1;
                let excused = |_: &String| !self.may_lose;
                let lost = taken.into_iter().filter(excused);
                self.faults.extend(
                    not_saved
                        .into_iter()
                        .chain(lost)
                        .map(|what| format!("server {slot}: not saved at its shutdown: {what}")),
                );
            }
            Report::Bye => {}
        }
    }

    /// The machine kept servers from running, so sessions may be lost.
    pub(crate) fn stood_still(&mut self, late: Duration) {
        if !std::mem::replace(&mut self.may_lose, true) {
            display::say(&format!(
                "this machine stood still for {} ms: from now on a lost session is no fault",
                late.as_millis()
            ));
        }
    }

    fn answered(&mut self, id: u64, waiting: &Waiting, answer: &Answer) {
        if answer.is_durable()
            && let Some(player) = waiting.what.player()
        {
            self.served(player);
        }
        match (&waiting.what, answer) {
            (What::Join { player }, Answer::Joined { load_count, micros }) => {
                self.joined(id, waiting, *player, *load_count, *micros);
            }
            (What::Earn { player, step, .. }, Answer::Refused { .. }) => {
                self.ledger.refuse_earning(*player, *step)
            }
            (What::Earn { player, .. }, Answer::Saved { steps, micros }) => {
                self.ledger.acknowledge_earnings(*player, steps);
                self.figures.saves += 1;
                self.figures.save_times.record(*micros);
            }
            (What::Leave { player }, Answer::Left { steps }) => {
                self.ledger.acknowledge_earnings(*player, steps);
                self.figures.leaves += 1;
            }
            (What::Send { from, to, number, .. }, Answer::Refused { .. }) => {
                self.ledger.refuse_sending(*from, *to, *number)
            }
            (What::Send { from, to, number, .. }, Answer::Sent { .. }) => {
                self.ledger.acknowledge_message(*from, *to, *number);
                self.figures.messages_sent += 1;
            }
            (what, Answer::Moved { items, micros }) => {
                self.ledger.acknowledge_moves(items);
                let figures = &mut self.figures;
                match what {
                    _ if items.is_empty() => {}
                    What::Trade { .. } => {
                        figures.trades += 1;
                        figures.trade_times.record(*micros);
                    }
                    What::Give { .. } => figures.presents += 1,
                    What::Settle { .. } => figures.settlements += 1,
                    _ => {}
                }
            }
            (What::Edit { task }, Answer::Edited { online }) => {
                self.ledger.edits.acknowledge(task.number);
                self.figures.edits_online += u64::from(*online && task.player.is_some());
            }
            (What::Edit { task }, Answer::Refused { .. }) => self.ledger.edits.refuse(task.number),
            (what, Answer::Failed { kind, message }) => self.figures.failed(what, kind, message),
            _ => {}
        }
    }

    fn joined(&mut self, id: u64, waiting: &Waiting, player: u32, load_count: u64, micros: u64) {
        let Waiting { slot, generation, held, rivals, .. } = *waiting;
        let from_dead = held.is_some_and(|seat| {
            self.slots[seat.slot].generation != seat.generation || !self.slots[seat.slot].alive
        });
        let state = &mut self.players[player as usize];
        let orphaned = std::mem::take(&mut state.orphaned);
        state.stored = true;
        state.seats.push(Seat { slot, generation, session: id, load_count, rivals });
        let figures = &mut self.figures;
        if orphaned || from_dead {
            figures.take_over_times.record(micros);
        } else if held.is_some_and(|seat| seat.slot != slot) {
            figures.hand_over_times.record(micros);
        } else {
            figures.start_times.record(micros);
        }
    }
}

#[cfg(test)]
mod tests;
