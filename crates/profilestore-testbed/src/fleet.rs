//! Game servers over the WebSocket that play while a test breaks what is beneath them, and that
//! know afterwards what must be in the store.
//!
//! Each has two profiles. It saves a count that grows, moves items between its two profiles in
//! transactions, and gives presents to the others. It resumes whenever its connection ends, sends
//! again what was not answered, and repeats a frame now and then.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use crate::game_client::open;

/// How many items there are for each game server.
const ITEMS: u64 = 4;

/// After how long without a frame a connection is given up.
const SILENCE: Duration = Duration::from_secs(4);

/// So long that no slow machine makes a game server dead: then its sessions would rightly end.
const LEASE_MS: u64 = 120_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Phase {
    Play,
    /// Nothing new is asked for.
    Settle,
    /// The sessions end.
    End,
}

/// Game servers at play.
#[derive(Debug)]
pub struct Fleet {
    phase: watch::Sender<Phase>,
    settled: Arc<AtomicUsize>,
    players: Vec<JoinHandle<Player>>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// Saves that were answered.
    pub saves: u64,
    /// Transactions that were answered.
    pub trades: u64,
    /// Presents that were answered.
    pub gifts: u64,
    /// How often a game server resumed.
    pub resumes: u64,
    /// The longest time from a save to its answer.
    pub longest: Duration,
    /// What must not happen: sessions that ended without being asked to, requests that failed.
    pub wrong: Vec<String>,
    /// What each profile must hold.
    pub profiles: BTreeMap<String, Value>,
    /// The presents that were answered, and to whom each went.
    given: BTreeMap<String, String>,
}

impl Fleet {
    /// So many game servers that connect to these ports of this machine, and play. `now_ms`: the
    /// wall clock, for the ids of messages.
    pub fn start(count: u64, ports: &[u16], key: &str, seed: u64, now_ms: i64) -> Self {
        let (phase, phases) = watch::channel(Phase::Play);
        let settled = Arc::<AtomicUsize>::default();
        let players = (0..count).map(|number| {
            let player = Player::new(number, count, ports, key, seed, now_ms);
            tokio::spawn(player.play(phases.clone(), settled.clone()))
        });
        Self { phase, players: players.collect(), settled }
    }

    /// Lets every game server come to rest and end its sessions; nothing is broken any more.
    ///
    /// # Panics
    ///
    /// When a game server does not come to rest within two minutes.
    pub async fn rest(self) -> Report {
        self.phase.send_replace(Phase::Settle);
        let all = self.players.len();
        let until = Instant::now() + Duration::from_secs(120);
        while self.settled.load(Ordering::Relaxed) < all {
            assert!(Instant::now() < until, "a game server does not come to rest");
            sleep(Duration::from_millis(50)).await;
        }
        self.phase.send_replace(Phase::End);
        let mut report = Report::default();
        for player in self.players {
            let player = timeout(Duration::from_secs(120), player).await;
            player.expect("everybody ends").expect("nobody panics").tell(&mut report);
        }
        report
    }
}

impl Report {
    /// What is wrong with what the store holds. `profile` answers a profile's data, `inbox` what its
    /// waiting messages say.
    pub fn audit(
        &self,
        profile: impl Fn(&str) -> Value,
        inbox: impl Fn(&str) -> Vec<Value>,
    ) -> Vec<String> {
        let mut wrong = self.wrong.clone();
        let (mut items, mut presents) = (BTreeMap::new(), BTreeMap::new());
        for (key, known) in &self.profiles {
            let stored = profile(key);
            if stored != *known {
                wrong.push(format!("{key} holds {stored}, and {known} was answered"));
            }
            for item in stored["items"].as_array().into_iter().flatten() {
                *items.entry(item.as_u64()).or_insert(0) += 1;
            }
            let received = stored["received"].as_array().cloned().unwrap_or_default();
            for present in received.into_iter().chain(inbox(key)) {
                let name = present.as_str().unwrap_or_default().to_owned();
                presents.entry(name).or_insert_with(Vec::new).push(key.clone());
            }
        }
        for item in 0..self.profiles.len() as u64 / 2 * ITEMS {
            let places = items.get(&Some(item)).copied().unwrap_or(0);
            if places != 1 {
                wrong.push(format!("item {item} is in {places} places"));
            }
        }
        for (name, places) in &presents {
            if places.len() > 1 {
                wrong.push(format!("present {name} came {places:?}"));
            }
        }
        for (name, to) in &self.given {
            if presents.get(name).and_then(|places| places.first()) != Some(to) {
                wrong.push(format!("present {name} to {to} was answered and is not there"));
            }
        }
        wrong
    }
}

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
struct Player {
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

type Socket = WebSocketStream<TcpStream>;

impl Player {
    fn new(number: u64, count: u64, ports: &[u16], key: &str, seed: u64, now_ms: i64) -> Self {
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

    async fn play(mut self, phases: watch::Receiver<Phase>, settled: Arc<AtomicUsize>) -> Self {
        let (mut is_settled, mut at) = (false, self.number as usize);
        while self.seats.len() < 2 || self.seats.values().any(|seat| !seat.ended) {
            at += 1;
            let port = self.ports[at % self.ports.len()];
            if let Some(mut socket) = self.greet(port).await {
                self.stay(&mut socket, &phases, &mut is_settled, &settled).await;
            } else {
                let pause = 20 + self.below(200);
                sleep(Duration::from_millis(pause)).await;
            }
        }
        self
    }

    /// A connection that has greeted. What was not answered goes first.
    async fn greet(&mut self, port: u16) -> Option<Socket> {
        let address = ([127, 0, 0, 1], port).into();
        let patience = Duration::from_secs(3);
        let mut socket = timeout(patience, open(address, &self.key)).await.ok()??;
        let mut hello = json!({ "instance": self.instance, "job": format!("g{}", self.number),
            "lease_ms": LEASE_MS });
        if let Some(identity) = &self.identity {
            let open = self.seats.iter().filter(|(_, seat)| !seat.ended);
            let sessions: Vec<_> =
                open.map(|(s, seat)| json!([s, "Fleet", "global", seat.key, seat.epoch])).collect();
            hello["resume"] = json!({ "incarnation": identity["incarnation"],
                "token": identity["token"], "store": identity["store"], "sessions": sessions });
            self.report.resumes += 1;
        }
        let hello = json!({ "hello": hello }).to_string();
        socket.send(Message::Text(hello.into())).await.ok()?;
        let frame = timeout(patience * 2, next(&mut socket)).await.ok()??;
        let Some(welcome) = frame.get("welcome") else {
            let problem = &frame["error"]["problem"];
            if problem["advice"] == "fix" {
                self.wrong(format!("the greeting was refused: {frame}"));
            }
            return None;
        };
        if self.identity.is_some() && welcome["resumed"] != "same" {
            self.wrong(format!("it was declared dead: {welcome}"));
        }
        self.identity = Some(welcome.clone());
        for asked in self.asked.values() {
            socket.send(Message::Text(asked.frame.clone().into())).await.ok()?;
        }
        Some(socket)
    }

    /// Plays over a connection until it ends.
    async fn stay(
        &mut self,
        socket: &mut Socket,
        phases: &watch::Receiver<Phase>,
        is_settled: &mut bool,
        settled: &AtomicUsize,
    ) {
        let (mut heard, mut pinged) = (Instant::now(), None::<Instant>);
        while self.seats.len() < 2 || self.seats.values().any(|seat| !seat.ended) {
            let tick = Duration::from_millis(20 + self.below(100));
            match timeout(tick, next(socket)).await {
                Ok(Some(frame)) => {
                    heard = Instant::now();
                    if !self.told(&frame) {
                        return;
                    }
                    continue;
                }
                Ok(None) => return,
                Err(_) if heard.elapsed() > SILENCE => return,
                Err(_) => {}
            }
            let before = self.next;
            let phase = *phases.borrow();
            self.act(phase);
            if phase >= Phase::Settle && self.asked.is_empty() && self.seats.len() == 2 {
                settled.fetch_add(
                    usize::from(!std::mem::replace(is_settled, true)),
                    Ordering::Relaxed,
                );
            }
            let mut frames: Vec<String> =
                self.asked.range(before + 1..).map(|(_, asked)| asked.frame.clone()).collect();
            if self.below(20) == 0 {
                // A frame comes twice.
                frames.extend(self.last.clone());
            }
            if pinged.is_none_or(|at| at.elapsed() > Duration::from_secs(1)) {
                pinged = Some(Instant::now());
                frames.push(json!({ "ping": { "n": 1 } }).to_string());
            }
            for frame in frames {
                let sent = timeout(SILENCE, socket.send(Message::Text(frame.into()))).await;
                if !matches!(sent, Ok(Ok(()))) {
                    return;
                }
            }
        }
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

    fn tell(self, report: &mut Report) {
        let own = self.report;
        report.saves += own.saves;
        report.trades += own.trades;
        report.gifts += own.gifts;
        report.resumes += own.resumes;
        report.longest = report.longest.max(own.longest);
        report.wrong.extend(own.wrong);
        report.given.extend(own.given);
        report.profiles.extend(own.profiles);
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

/// The next frame. None: the connection is over.
async fn next(socket: &mut Socket) -> Option<Value> {
    loop {
        match socket.next().await? {
            Ok(Message::Text(text)) => return serde_json::from_str(&text).ok(),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}
