//! What one game server knows: its sessions, its requests, and what their answers mean.
//!
//! A request is kept until it is answered, and sent again after each resume. A session has one
//! unanswered save, end or transaction. An operator's edit goes alone.

mod incoming;
mod outgoing;

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use tokio::{sync::mpsc, time::Instant};

use super::seat::{Document, Ending, Seat, Who};
use crate::demo::{
    data::Transfer,
    trades::Item,
    wire::{Answer, Report},
};

/// After how long a change is saved that nobody waits for.
const SAVE_WITHIN: Duration = Duration::from_secs(1);

/// When a request is sent again that was not done.
const AGAIN: Duration = Duration::from_millis(500);

/// One state of a document on its way.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) document: Document,
    revision: u64,
    processed: Vec<u64>,
    edits_done: Value,
}

/// What a transaction answers.
#[derive(Debug, Clone)]
pub(super) enum Moved {
    Order(u64),
    /// A trade that an earlier session had left open.
    Found,
}

/// A transaction, which waits until nothing else of its sessions is under way.
#[derive(Debug, Clone)]
pub(super) struct Transaction {
    pub(super) parts: Vec<(u64, Document)>,
    pub(super) gifts: Vec<Value>,
    pub(super) items: Vec<Item>,
    pub(super) answers: Moved,
    /// Its session ends with it.
    pub(super) is_last: bool,
    pub(super) began: Instant,
}

/// What a request is about.
#[derive(Debug)]
pub(super) enum About {
    Start {
        s: u64,
        who: Who,
        key: String,
        began: Instant,
    },
    Save {
        s: u64,
        draft: Draft,
    },
    End {
        s: u64,
        steps: Vec<u32>,
        why: Ending,
    },
    Transaction {
        transaction: Transaction,
        drafts: Vec<Draft>,
    },
    /// The message of a transfer, for an order or for an earlier session.
    Post {
        transfer: Transfer,
        order: Option<u64>,
        began: Instant,
    },
}

#[derive(Debug)]
struct Asked {
    frame: String,
    about: About,
}

/// What is to be done at a time.
#[derive(Debug)]
pub(super) enum Later {
    SendAgain(u64),
    Save(u64),
    /// A save that was not done, under a new number.
    SaveAgain(u64, Draft),
    /// The same of an end.
    EndAgain(u64),
    /// The messages of an escrow that is open have come.
    SettleOpen(u64),
    /// The time of a trade that a session found open is up.
    Settle {
        trade: u64,
        s: u64,
    },
}

/// One game server.
#[derive(Debug)]
pub(super) struct Game {
    pub(super) reports: mpsc::UnboundedSender<Report>,
    pub(super) scope: String,
    pub(super) patience: Duration,
    next_request: u64,
    next_session: u64,
    pub(super) seats: BTreeMap<u64, Seat>,
    asked: BTreeMap<u64, Asked>,
    pub(super) transactions: Vec<Transaction>,
    later: Vec<(Instant, Later)>,
    /// What is to be sent.
    pub(super) frames: Vec<String>,
    pub(super) is_stopping: bool,
    /// Earnings of sessions that a shutdown ended.
    pub(super) saved: Vec<(u32, Vec<u32>)>,
    /// Profiles that were taken before a shutdown could save them.
    pub(super) taken: Vec<String>,
}

impl Game {
    pub(super) fn new(
        reports: mpsc::UnboundedSender<Report>,
        scope: String,
        patience: Duration,
    ) -> Self {
        Self {
            reports,
            scope,
            patience,
            next_request: 0,
            next_session: 0,
            seats: BTreeMap::new(),
            asked: BTreeMap::new(),
            transactions: Vec::new(),
            later: Vec::new(),
            frames: Vec::new(),
            is_stopping: false,
            saved: Vec::new(),
            taken: Vec::new(),
        }
    }

    pub(super) fn say(&self, report: Report) {
        let _ = self.reports.send(report);
    }

    pub(super) fn done(&self, id: u64, answer: Answer) {
        self.say(Report::Done { id, answer });
    }

    pub(super) fn fail(&self, id: u64, kind: &str, message: &str) {
        let (kind, message) = (kind.replace('-', " "), message.to_owned());
        self.done(id, Answer::Failed { kind, message });
    }

    pub(super) fn later(&mut self, after: Duration, what: Later) {
        self.later.push((Instant::now() + after, what));
    }

    // --- requests -------------------------------------------------------------------------------

    fn ask(&mut self, name: &str, mut body: Value, about: About) {
        self.next_request += 1;
        body["i"] = self.next_request.into();
        let frame = json!({ name: body }).to_string();
        self.frames.push(frame.clone());
        self.asked.insert(self.next_request, Asked { frame, about });
    }

    /// All sessions that it holds, as a greeting names them.
    pub(super) fn named(&self) -> Vec<Value> {
        let named =
            |(s, seat): (&u64, &Seat)| json!([s, seat.store(), self.scope, seat.key, seat.epoch]);
        self.seats.iter().map(named).collect()
    }

    /// A new connection has greeted: what is unanswered goes first.
    pub(super) fn resumed(&mut self) {
        self.frames = self.asked.values().map(|asked| asked.frame.clone()).collect();
        if self.is_stopping {
            self.cancel_starts();
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.seats.is_empty() && self.asked.is_empty()
    }

    /// Opens a profile.
    pub(super) fn start(&mut self, who: Who, key: String, store: &str, template: &Document) {
        self.next_session += 1;
        let s = self.next_session;
        let patience = u64::try_from(self.patience.as_millis()).unwrap_or(u64::MAX);
        let mut body = json!({ "s": s, "store": store, "scope": self.scope, "key": key,
            "template": template.value() });
        if matches!(who, Who::Escrow { .. }) {
            body["timeout_ms"] = patience.into();
        }
        self.ask("start", body, About::Start { s, who, key, began: Instant::now() });
    }

    /// Sends a transfer's message, under an identity that any later session can repeat.
    pub(super) fn post(&mut self, transfer: Transfer, order: Option<u64>) {
        let gift = json!({ "store": "Demo", "scope": self.scope,
            "key": crate::demo::player_key(transfer.to),
            "id": format!("{}:{}", transfer.created_ms, transfer.name()), "message": transfer });
        let about = About::Post { transfer, order, began: Instant::now() };
        self.ask("send", json!({ "gift": gift }), about);
    }

    /// Calls off the starts that wait.
    pub(super) fn cancel_starts(&mut self) {
        for (i, asked) in &self.asked {
            if matches!(asked.about, About::Start { .. }) {
                self.frames.push(json!({ "cancel": { "i": i } }).to_string());
            }
        }
    }

    /// Saves a change that nobody waits for, in a while.
    pub(super) fn changed(&mut self, s: u64) {
        self.later(SAVE_WITHIN, Later::Save(s));
    }

    // --- time -----------------------------------------------------------------------------------

    pub(super) fn tick(&mut self) {
        let now = Instant::now();
        let (due, later) =
            std::mem::take(&mut self.later).into_iter().partition(|(at, _)| *at <= now);
        self.later = later;
        let due: Vec<(Instant, Later)> = due;
        for (_, what) in due {
            match what {
                Later::SendAgain(i) => {
                    self.frames.extend(self.asked.get(&i).map(|asked| asked.frame.clone()));
                }
                Later::Save(s) => {
                    if let Some(seat) = self.seats.get_mut(&s) {
                        seat.is_due = true;
                    }
                }
                Later::SaveAgain(s, draft) => self.send_save(s, draft),
                Later::EndAgain(s) => {
                    if let Some(seat) = self.seats.get_mut(&s) {
                        seat.is_sending = false;
                    }
                }
                Later::SettleOpen(s) => self.settle_open(s),
                Later::Settle { trade, s } => {
                    if self.seats.get(&s).is_some_and(|seat| seat.ending.is_none()) {
                        self.settle(trade, None);
                    }
                }
            }
        }
    }
}
