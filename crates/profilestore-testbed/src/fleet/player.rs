//! One game server of a fleet: what it asks for, and what it makes of the answers.

mod connection;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{ITEMS, Phase, report::Report};

/// What a request is about.
#[derive(Debug, Clone)]
enum About {
    Start(u64),
    Save { s: u64, data: Value, processed: Vec<u64> },
    Trade { data: [Value; 2] },
    Gift { name: String, to: String },
    End { s: u64 },
}

#[derive(Debug, Clone)]
struct Asked {
    frame: String,
    about: About,
    since: Instant,
}

/// A session as it plays it.
#[derive(Debug)]
struct Seat {
    key: String,
    epoch: u64,
    n: u64,
    data: Value,
    /// Messages that wait for the next save.
    inbox: BTreeMap<u64, Value>,
    handled: BTreeSet<u64>,
    unsaved: BTreeSet<u64>,
    busy: bool,
    ended: bool,
}

/// One game server.
#[derive(Debug)]
pub(super) struct Player {
    number: u64,
    count: u64,
    ports: Vec<u16>,
    key: String,
    instance: String,
    dice: u64,
    next: u64,
    named: u64,
    /// When the fleet began, by both clocks.
    began: (Instant, i64),
    identity: Option<Value>,
    seats: BTreeMap<u64, Seat>,
    asked: BTreeMap<u64, Asked>,
    last: Option<String>,
    report: Report,
}

impl Player {
    pub(super) fn new(
        number: u64,
        count: u64,
        ports: &[u16],
        key: &str,
        seed: u64,
        now_ms: i64,
    ) -> Self {
        let mut player = Self {
            number,
            count,
            ports: ports.to_vec(),
            key: key.to_owned(),
            instance: format!("the secret of game server {number} of seed {seed}"),
            dice: seed ^ (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            next: 0,
            named: 0,
            began: (Instant::now(), now_ms),
            identity: None,
            seats: BTreeMap::new(),
            asked: BTreeMap::new(),
            last: None,
            report: Report::default(),
        };
        for s in 1..=2 {
            let items: Vec<u64> =
                if s == 1 { (number * ITEMS..(number + 1) * ITEMS).collect() } else { Vec::new() };
            let template = json!({ "count": 0, "items": items, "received": [] });
            let start = json!({ "s": s, "store": "Fleet", "key": player.profile(s),
                "template": template });
            player.ask("start", start, About::Start(s));
        }
        player
    }

    fn profile(&self, s: u64) -> String {
        format!("g{}-{s}", self.number)
    }

    fn below(&mut self, below: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.dice >> 33) % below
    }

    fn ask(&mut self, name: &str, mut body: Value, about: About) {
        self.next += 1;
        body["i"] = self.next.into();
        let frame = json!({ name: body }).to_string();
        self.asked.insert(self.next, Asked { frame, about, since: Instant::now() });
    }

    fn wrong(&mut self, what: String) {
        self.report.wrong.push(format!("g{}: {what}", self.number));
    }

    /// False: the connection is to be given up.
    fn told(&mut self, frame: &Value) -> bool {
        let Some((name, body)) = frame.as_object().and_then(|frame| frame.iter().next()) else {
            return false;
        };
        let i = body["i"].as_u64();
        match &**name {
            "goaway" | "stopped" => return false,
            "lost" | "closed" | "release" => self.wrong(format!("a session ends: {frame}")),
            "message" => self.received(body),
            "error" => return self.failed(i, &body["problem"]),
            "overloaded" => return false,
            "started" | "saved" | "done" | "sent" | "ended" => {
                if let Some(asked) = i.and_then(|i| self.asked.remove(&i)) {
                    self.done(asked, body);
                }
            }
            _ => {}
        }
        true
    }

    fn received(&mut self, body: &Value) {
        let s = body["s"].as_u64().unwrap_or_default();
        let index = body["index"].as_u64().unwrap_or_default();
        let seat = self.seats.get_mut(&s).filter(|seat| !seat.handled.contains(&index));
        if let Some(seat) = seat {
            seat.inbox.insert(index, body["body"].clone());
        }
    }

    fn failed(&mut self, i: Option<u64>, problem: &Value) -> bool {
        let Some(asked) = i.and_then(|i| self.asked.get(&i).cloned()) else { return true };
        let kind = problem["kind"].as_str().unwrap_or_default();
        match (problem["advice"].as_str(), &asked.about) {
            // The same request finds out what became of it: here or elsewhere.
            (Some("retry-as"), _) | (Some("retry"), About::Start(_) | About::Gift { .. }) => false,
            (Some("retry"), about) if kind != "closing" => {
                for s in about.sessions() {
                    if let Some(seat) = self.seats.get_mut(&s) {
                        seat.busy = false;
                    }
                }
                self.asked.remove(&i.unwrap_or_default());
                true
            }
            (Some("retry"), _) => false,
            _ => {
                self.wrong(format!("{} fails: {problem}", asked.frame));
                self.asked.remove(&i.unwrap_or_default());
                true
            }
        }
    }

    fn done(&mut self, asked: Asked, body: &Value) {
        match asked.about {
            About::Start(s) => {
                let seat = Seat {
                    key: self.profile(s),
                    epoch: body["epoch"].as_u64().unwrap_or_default(),
                    n: 0,
                    data: body["data"].clone(),
                    inbox: BTreeMap::new(),
                    handled: BTreeSet::new(),
                    unsaved: BTreeSet::new(),
                    busy: false,
                    ended: false,
                };
                if seat.epoch != 1 {
                    self.wrong(format!("a start took effect twice: {body}"));
                }
                self.seats.insert(s, seat);
                return;
            }
            About::Save { s, data, processed } => {
                self.report.saves += 1;
                self.report.longest = self.report.longest.max(asked.since.elapsed());
                self.report.profiles.insert(self.profile(s), data);
                if let Some(seat) = self.seats.get_mut(&s) {
                    seat.unsaved.retain(|index| !processed.contains(index));
                    seat.busy = false;
                }
            }
            About::Trade { data } => {
                self.report.trades += 1;
                for (s, data) in (1..).zip(data) {
                    self.report.profiles.insert(self.profile(s), data.clone());
                    if let Some(seat) = self.seats.get_mut(&s) {
                        (seat.data, seat.busy) = (data, false);
                    }
                }
            }
            About::Gift { name, to } => {
                self.report.gifts += 1;
                self.report.given.insert(name, to);
            }
            About::End { s } => {
                if let Some(seat) = self.seats.get_mut(&s) {
                    (seat.busy, seat.ended) = (false, true);
                }
            }
        }
        self.last = Some(asked.frame);
    }

    fn act(&mut self, phase: Phase) {
        if self.seats.len() < 2 {
            return;
        }
        let free: Vec<u64> = self
            .seats
            .iter()
            .filter(|(_, seat)| !seat.busy && !seat.ended)
            .map(|it| *it.0)
            .collect();
        let is_saved = |seat: &Seat| seat.unsaved.is_empty() && seat.inbox.is_empty();
        if phase > Phase::Play {
            for s in free {
                if !is_saved(&self.seats[&s]) {
                    self.save(s);
                } else if phase == Phase::End {
                    self.end(s);
                }
            }
            return;
        }
        match self.below(10) {
            0 if free.len() == 2 && self.seats.values().all(is_saved) => self.trade(),
            1 | 2 if self.asked.len() < 5 => self.give(),
            _ if !free.is_empty() => {
                let s = free[self.below(free.len() as u64) as usize];
                self.save(s);
            }
            _ => {}
        }
    }

    fn save(&mut self, s: u64) {
        let Some(seat) = self.seats.get_mut(&s) else { return };
        (seat.busy, seat.n) = (true, seat.n + 1);
        for (index, present) in std::mem::take(&mut seat.inbox) {
            seat.handled.insert(index);
            seat.unsaved.insert(index);
            seat.data["received"].as_array_mut().expect("it is a list").push(present);
        }
        let count = seat.data["count"].as_u64().unwrap_or_default() + 1;
        seat.data["count"] = count.into();
        let (n, data) = (seat.n, seat.data.clone());
        let processed: Vec<u64> = seat.unsaved.iter().copied().collect();
        let body = json!({ "s": s, "n": n, "data": data, "processed": processed });
        self.ask("save", body, About::Save { s, data, processed });
    }

    fn end(&mut self, s: u64) {
        let Some(seat) = self.seats.get_mut(&s) else { return };
        (seat.busy, seat.n) = (true, seat.n + 1);
        let body = json!({ "s": s, "n": seat.n });
        self.ask("end", body, About::End { s });
    }

    /// An item goes from one profile to the other.
    fn trade(&mut self) {
        let mut data = [1, 2].map(|s| self.seats[&s].data.clone());
        let from = self.below(2) as usize;
        let item = data[from]["items"].as_array_mut().and_then(Vec::pop);
        let Some(item) = item else { return };
        let to = data[1 - from]["items"].as_array_mut();
        to.expect("it is a list").push(item);
        let mut parts = Vec::new();
        for (s, data) in (1..).zip(&data) {
            let Some(seat) = self.seats.get_mut(&s) else { return };
            (seat.busy, seat.n) = (true, seat.n + 1);
            parts.push(json!({ "s": s, "n": seat.n, "data": data }));
        }
        self.ask("tx", json!({ "parts": parts }), About::Trade { data });
    }

    fn give(&mut self) {
        let to = format!("g{}-1", self.below(self.count));
        self.named += 1;
        let name = format!("present-{}-{}", self.number, self.named);
        let (began, began_ms) = self.began;
        let id = format!("{}:{name}", began_ms + began.elapsed().as_millis() as i64);
        let gift = json!({ "store": "Fleet", "key": to, "id": id, "message": name });
        self.ask("send", json!({ "gift": gift }), About::Gift { name, to });
    }

    pub(super) fn into_report(self) -> Report {
        self.report
    }
}

impl About {
    fn sessions(&self) -> Vec<u64> {
        match self {
            Self::Start(s) | Self::Save { s, .. } | Self::End { s } => vec![*s],
            Self::Trade { .. } => vec![1, 2],
            Self::Gift { .. } => Vec::new(),
        }
    }
}
