//! What one game server of a crowd makes of what it is told.

use std::sync::atomic::Ordering;

use serde_json::Value;

use super::{About, Asked, Game, number_of};
use crate::crowd::Over;

impl Game {
    /// Takes a frame. False: the connection is to be given up.
    pub(in crate::crowd) fn told(&mut self, text: &str) -> bool {
        let name = text.split('"').nth(1).unwrap_or_default();
        let place = || -> Option<usize> { number_of(text, "s")?.checked_sub(1)?.try_into().ok() };
        match name {
            "started" | "saved" | "ended" => {
                let asked = number_of(text, "i").and_then(|i| self.asked.remove(&i));
                if let Some(asked) = asked {
                    self.answered(&asked, text);
                }
            }
            "pong" => self.ponged(text),
            "resumed" => self.unnamed = self.unnamed.saturating_sub(1),
            "lost" | "closed" => {
                if name == "lost" {
                    self.unnamed = self.unnamed.saturating_sub(1);
                }
                if let Some(at) = place() {
                    self.over(at, name);
                }
            }
            "release" => {
                if let Some(at) = place() {
                    self.let_go(at);
                }
            }
            "error" => return self.failed(text),
            "goaway" | "stopped" | "overloaded" => return false,
            _ => {}
        }
        true
    }

    fn answered(&mut self, asked: &Asked, text: &str) {
        let at = asked.at;
        match asked.about {
            About::Start => {
                self.seats[at].epoch = number_of(text, "epoch");
                self.counts.open.fetch_add(1, Ordering::Relaxed);
            }
            About::Save(coins) => {
                let took = asked.since.elapsed();
                self.report.saves += 1;
                self.report.longest = self.report.longest.max(took);
                self.counts.saves.fetch_add(1, Ordering::Relaxed);
                self.counts.longest.fetch_max(took.as_micros() as u64, Ordering::Relaxed);
                self.seats[at].stored = coins;
                self.free(at);
            }
            About::End(coins) => {
                let key = self.key(at);
                let seat = &mut self.seats[at];
                seat.stored = coins.unwrap_or(seat.stored);
                if !std::mem::replace(&mut seat.is_over, true) {
                    self.report.stored.push((key, seat.stored));
                }
            }
        }
    }

    /// A request of the session is answered: what waited for that goes on.
    fn free(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        seat.is_busy = false;
        if seat.is_over {
            return;
        }
        if seat.is_let_go {
            self.end(at);
        } else if let Some(since) = seat.unsent {
            self.unsent.insert((since, at));
        }
    }

    fn let_go(&mut self, at: usize) {
        let Some(seat) = self.seats.get_mut(at).filter(|seat| seat.is_open()) else { return };
        seat.is_let_go = true;
        if !seat.is_busy {
            self.end(at);
        }
    }

    /// A session has ended without being asked to.
    fn over(&mut self, at: usize, told: &str) {
        let key = self.key(at);
        let Some(seat) = self.seats.get_mut(at).filter(|seat| seat.is_open()) else { return };
        seat.is_over = true;
        if let Some(since) = seat.unsent.take() {
            self.unsent.remove(&(since, at));
        }
        let (changed, stored) = (seat.changed, seat.stored);
        self.report.over.push(Over { key, told: told.to_owned(), changed, stored });
    }

    fn failed(&mut self, text: &str) -> bool {
        let frame: Value = serde_json::from_str(text).unwrap_or_default();
        let problem = &frame["error"]["problem"];
        let kind = problem["kind"].as_str().unwrap_or_default();
        let Some(i) = frame["error"]["i"].as_u64() else {
            self.wrong(text);
            return true;
        };
        match problem["advice"].as_str() {
            // The same request finds out what became of it, here or elsewhere.
            Some("retry-as") => return false,
            Some("retry") if kind == "closing" => return false,
            _ => {}
        }
        let Some(asked) = self.asked.remove(&i) else { return true };
        let at = asked.at;
        match (problem["advice"].as_str(), asked.about) {
            (Some("retry"), About::Start) => self.to_start.push_back(at),
            (Some("retry"), About::Save(_)) => {
                self.seats[at].unsent.get_or_insert(asked.since);
                self.free(at);
            }
            (Some("retry"), About::End(coins)) => {
                let seat = &mut self.seats[at];
                (seat.is_busy, seat.unsent) = (false, coins.map(|_| asked.since));
                self.end(at);
            }
            _ if kind == "session-ended" => self.over(at, kind),
            _ => {
                self.wrong(text);
                self.over(at, kind);
            }
        }
        true
    }
}
