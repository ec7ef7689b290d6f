//! One game server of a crowd: its sessions, what it asks for, and until when it believes in them.

mod told;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{Counts, CrowdPlan, CrowdReport, Gap, Steer};

/// The longest time for which a pong lets a game server believe.
const BELIEF: Duration = Duration::from_secs(6);

/// How long before the end of the lease its belief ends, besides a hundredth of the lease.
const MARGIN: Duration = Duration::from_millis(500);

/// How many starts, and how many ends, are unanswered at once.
const AT_ONCE: usize = 32;

/// A pause in which a process does nothing is one from this time on.
const STANDS_STILL: Duration = Duration::from_secs(1);

/// A session as it plays it.
#[derive(Debug, Default)]
struct Seat {
    /// None: it is not open yet.
    epoch: Option<u64>,
    n: u64,
    /// The time of its last change, and of the last one that is known to be stored.
    changed: u64,
    stored: u64,
    /// Since when there is a change that was not sent.
    unsent: Option<Instant>,
    /// A request of it is unanswered.
    is_busy: bool,
    /// It is to be let go as soon as it can be.
    is_let_go: bool,
    is_over: bool,
}

impl Seat {
    fn is_open(&self) -> bool {
        self.epoch.is_some() && !self.is_over
    }
}

#[derive(Debug, Clone, Copy)]
enum About {
    Start,
    /// A save, with the time of the last change in it.
    Save(u64),
    /// An end, with the time of the last change in it if there is one.
    End(Option<u64>),
}

#[derive(Debug)]
struct Asked {
    frame: Utf8Bytes,
    about: About,
    /// The session's place among the seats.
    at: usize,
    since: Instant,
}

/// What a welcome said that counts at the next resume.
#[derive(Debug)]
struct Identity {
    incarnation: Value,
    token: Value,
    store: Value,
    lease: Duration,
}

/// One game server.
#[derive(Debug)]
pub(super) struct Game {
    pub(super) plan: Arc<CrowdPlan>,
    pub(super) number: u64,
    counts: Arc<Counts>,
    began: Instant,
    next: u64,
    pings: BTreeMap<u64, Instant>,
    seats: Vec<Seat>,
    to_start: VecDeque<usize>,
    to_end: VecDeque<usize>,
    unsent: BTreeSet<(Instant, usize)>,
    asked: BTreeMap<u64, Asked>,
    /// Frames that go out with the next tick.
    out: Vec<Utf8Bytes>,
    identity: Option<Identity>,
    /// The sessions of a resume that were not answered yet. No pong counts before.
    unnamed: usize,
    believes_until: Option<Instant>,
    /// Since when its sessions change, and how many changes there were.
    playing: Option<(Instant, u64)>,
    awake: Instant,
    is_resting: bool,
    pub(super) report: CrowdReport,
}

/// The first number of a member in the text of a frame, whose data comes last.
fn number_of(text: &str, member: &str) -> Option<u64> {
    let (_, rest) = text.split_once(&format!("\"{member}\":"))?;
    rest.split([',', '}']).next()?.trim().parse().ok()
}

impl Game {
    pub(super) fn new(plan: Arc<CrowdPlan>, number: u64, counts: Arc<Counts>) -> Self {
        let seats: Vec<_> = (0..plan.sessions).map(|_| Seat::default()).collect();
        Self {
            number,
            counts,
            began: Instant::now(),
            next: 0,
            pings: BTreeMap::new(),
            to_start: (0..seats.len()).collect(),
            to_end: VecDeque::new(),
            seats,
            unsent: BTreeSet::new(),
            asked: BTreeMap::new(),
            out: Vec::new(),
            identity: None,
            unnamed: 0,
            believes_until: None,
            playing: None,
            awake: Instant::now(),
            is_resting: false,
            report: CrowdReport::default(),
            plan,
        }
    }

    /// Whether nothing is left to do.
    pub(super) fn is_done(&self, steer: Steer) -> bool {
        steer == Steer::End && self.asked.is_empty() && self.seats.iter().all(|seat| seat.is_over)
    }

    fn wrong(&mut self, what: &str) {
        self.report.wrong.push(format!("{}-{}: {what}", self.plan.name, self.number));
    }

    fn key(&self, at: usize) -> String {
        self.plan.profile(self.number, at as u64 + 1)
    }

    fn data(&self, coins: u64) -> String {
        self.plan.data.replacen("\"coins\":0", &format!("\"coins\":{coins}"), 1)
    }

    fn ask(&mut self, about: About, at: usize, frame: impl FnOnce(u64) -> String) {
        self.next += 1;
        let frame = Utf8Bytes::from(frame(self.next));
        self.out.push(frame.clone());
        self.asked.insert(self.next, Asked { frame, about, at, since: Instant::now() });
    }

    /// What is to be sent now.
    pub(super) fn take_frames(&mut self) -> Vec<Utf8Bytes> {
        std::mem::take(&mut self.out)
    }

    pub(super) fn ping(&mut self) -> Utf8Bytes {
        self.next += 1;
        self.pings.insert(self.next, Instant::now());
        json!({ "ping": { "n": self.next } }).to_string().into()
    }

    // --- greetings ------------------------------------------------------------------------------

    pub(super) fn hello(&self) -> String {
        let job = format!("{}-{}", self.plan.name, self.number);
        let instance = format!("the secret of game server {job} of this run");
        let lease_ms = self.plan.lease.map(|lease| lease.as_millis() as u64);
        let mut hello = json!({ "instance": instance, "job": job, "lease_ms": lease_ms,
            "sdk": "testbed 1" });
        if let Some(identity) = &self.identity {
            let open = self.seats.iter().enumerate().filter(|(_, seat)| seat.is_open());
            let sessions: Vec<_> = open
                .map(|(at, seat)| json!([at + 1, "PlayerData", "global", self.key(at), seat.epoch]))
                .collect();
            hello["resume"] = json!({ "incarnation": identity.incarnation,
                "token": identity.token, "store": identity.store, "sessions": sessions });
        }
        json!({ "hello": hello }).to_string()
    }

    /// Takes the answer to a greeting. False: it was refused.
    pub(super) fn welcomed(&mut self, frame: &Value) -> bool {
        let Some(welcome) = frame.get("welcome") else {
            if frame["error"]["problem"]["advice"] == "fix" {
                self.wrong(&format!("the greeting was refused: {frame}"));
            }
            return false;
        };
        self.pings.clear();
        if self.identity.is_some() {
            self.report.resumes += 1;
            self.unnamed = self.seats.iter().filter(|seat| seat.is_open()).count();
        }
        match welcome["resumed"].as_str() {
            None | Some("same") => {}
            Some("anew") => {
                self.report.anew += 1;
                self.believes_until = None;
            }
            Some(other) => self.wrong(&format!("a resume came to `{other}`")),
        }
        self.identity = Some(Identity {
            incarnation: welcome["incarnation"].clone(),
            token: welcome["token"].clone(),
            store: welcome["store"].clone(),
            lease: Duration::from_millis(welcome["lease_ms"].as_u64().unwrap_or_default()),
        });
        // All that is unanswered is sent again, in order.
        self.out = self.asked.values().map(|asked| asked.frame.clone()).collect();
        true
    }

    // --- belief ---------------------------------------------------------------------------------

    fn believes(&self, now: Instant) -> bool {
        self.believes_until.is_some_and(|until| until > now)
    }

    fn ponged(&mut self, text: &str) {
        let (Some(n), Some(age)) = (number_of(text, "n"), number_of(text, "age")) else { return };
        let (Some(asked), Some(identity)) = (self.pings.remove(&n), &self.identity) else { return };
        let is_its_own =
            identity.incarnation.as_str().is_some_and(|incarnation| text.contains(incarnation));
        if self.unnamed > 0 || !is_its_own {
            return;
        }
        let away = Duration::from_millis(age) + MARGIN;
        let by_lease = (asked + identity.lease.mul_f64(0.99)).checked_sub(away);
        let until = by_lease.map_or(asked, |until| until.min(asked + BELIEF));
        self.believes_until = self.believes_until.max(Some(until));
    }

    /// Notes that it is awake, and whether it stood still before that.
    pub(super) fn awakes(&mut self) {
        let (now, before) = (Instant::now(), self.awake);
        self.awake = now;
        let stood_still = now.duration_since(before);
        if stood_still < STANDS_STILL {
            return;
        }
        let open = self.seats.iter().filter(|seat| seat.is_open()).count() as u64;
        let until = self.believes_until.unwrap_or(before);
        self.report.gaps.push(Gap {
            stood_still,
            believed_for: until.saturating_duration_since(before),
            believed_in: if self.believes(now) { open } else { 0 },
        });
    }

    /// A new connection: what was before it is no pause.
    pub(super) fn begins_anew(&mut self) {
        self.awake = Instant::now();
    }

    // --- what the time brings -------------------------------------------------------------------

    pub(super) fn step(&mut self, steer: Steer) {
        let now = Instant::now();
        self.open_more();
        let within = match steer {
            Steer::Hold | Steer::Play => self.plan.save_within,
            Steer::Rest | Steer::End => Duration::ZERO,
        };
        if steer == Steer::Play {
            self.change(now);
        }
        while let Some((since, at)) = self.unsent.first().copied() {
            if now.duration_since(since) < within {
                break;
            }
            self.unsent.pop_first();
            self.save(at);
        }
        if steer == Steer::End {
            self.end_more();
        }
        let rests = steer == Steer::Rest && self.unsent.is_empty() && self.asked.is_empty();
        if rests && !std::mem::replace(&mut self.is_resting, true) {
            self.counts.resting.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn open_more(&mut self) {
        while self.asked.len() < AT_ONCE
            && let Some(at) = self.to_start.pop_front()
        {
            let (s, key, data) = (at + 1, self.key(at), self.plan.data.clone());
            self.ask(About::Start, at, |i| {
                format!(
                    "{{\"start\":{{\"i\":{i},\"s\":{s},\"store\":\"PlayerData\",\"key\":\"{key}\",\
                     \"template\":{data}}}}}"
                )
            });
        }
    }

    /// Makes the changes that are due.
    fn change(&mut self, now: Instant) {
        let all = self.seats.len() as u64;
        let (began, made) = self.playing.unwrap_or((now, 0));
        let periods =
            now.duration_since(began).as_secs_f64() / self.plan.change_every.as_secs_f64();
        let due = (periods * all as f64) as u64;
        self.playing = Some((began, made.max(due)));
        let believes = self.believes(now);
        let coins = self.plan.now_ms + now.duration_since(self.began).as_millis() as u64;
        // What a pause has missed is not made up for.
        for change in made.max(due.saturating_sub(all))..due {
            let at = (change % all) as usize;
            let seat = &mut self.seats[at];
            if !seat.is_open() || seat.is_let_go {
                continue;
            }
            if !believes {
                self.report.withheld += 1;
                continue;
            }
            self.report.changes += 1;
            seat.changed = coins;
            if seat.unsent.is_none() {
                seat.unsent = Some(now);
                if !seat.is_busy {
                    self.unsent.insert((now, at));
                }
            }
        }
    }

    fn save(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        (seat.is_busy, seat.n, seat.unsent) = (true, seat.n + 1, None);
        let (s, n, coins) = (at + 1, seat.n, seat.changed);
        let data = self.data(coins);
        self.ask(About::Save(coins), at, |i| {
            format!("{{\"save\":{{\"i\":{i},\"s\":{s},\"n\":{n},\"data\":{data}}}}}")
        });
    }

    fn end_more(&mut self) {
        // What was not begun is not begun any more.
        for at in self.to_start.drain(..) {
            self.seats[at].is_over = true;
        }
        if self.to_end.is_empty() {
            let open = self.seats.iter().enumerate();
            let free = open.filter(|(_, seat)| {
                seat.is_open() && !seat.is_busy && !seat.is_let_go && seat.unsent.is_none()
            });
            self.to_end = free.map(|(at, _)| at).collect();
        }
        while self.asked.len() < AT_ONCE
            && let Some(at) = self.to_end.pop_front()
        {
            if self.seats[at].is_open() && !self.seats[at].is_busy {
                self.end(at);
            }
        }
    }

    /// Ends a session, with what is unsaved.
    fn end(&mut self, at: usize) {
        let seat = &mut self.seats[at];
        let coins = seat.unsent.take().map(|since| {
            self.unsent.remove(&(since, at));
            seat.changed
        });
        (seat.is_busy, seat.is_let_go, seat.n) = (true, true, seat.n + 1);
        let (s, n) = (at + 1, seat.n);
        let data = coins.map(|coins| format!(",\"data\":{}", self.data(coins))).unwrap_or_default();
        self.ask(About::End(coins), at, |i| {
            format!("{{\"end\":{{\"i\":{i},\"s\":{s},\"n\":{n}{data}}}}}")
        });
    }
}
