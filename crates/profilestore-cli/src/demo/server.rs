//! One game server of the demonstration, a process of its own: takes orders on standard input,
//! reports on standard output.
//!
//! Orders are called in the order of their arrival. Their answers are awaited in tasks, as a game
//! would do it: an end with a new start right behind it, a save while another one is under way.
//! Nothing here is made to survive a SIGKILL; the library must do that.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use anyhow::Context;
use profilestore::{
    ErrorKind, GameServer, MessageId, Profile, ProfileKey, ProfileStore, Sent, SessionEnd, env::Env,
};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use super::{
    data::{PlayerData, Transfer},
    edits::{Desk, Outcome, Task},
    fleet::Call,
    locked, pace, player_key,
    process::{read_orders, stand_desk, write_reports},
    trades::{Item, Market, Terms},
    wire::{Answer, Order, Report, What},
};

/// How long a server that was shut down waits for the answers to the calls before.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Runs until it is told to stop, or until the parent is gone.
pub(crate) async fn run(call: &Call, job: String) -> anyhow::Result<()> {
    let mut orders = read_orders();
    let (reports, written) = write_reports();
    let Some(desk) = stand_desk(call, &job, &mut orders).await? else {
        let _ = reports.send(Report::Bye);
        drop(reports);
        return written.await.context("the reports could not be written");
    };
    let server = desk.server.clone();
    let trouble = reports.clone();
    server.on_error(move |message, _| {
        let _ = trouble.send(Report::Trouble { message: message.to_owned() });
    });
    let market = Market::open(&server, &call.scope)?;
    let patience = Duration::from_secs_f64(call.lease_seconds) + PATIENCE;
    let (open, answers) = Default::default();
    let host = Arc::new(Host { server, market, desk, patience, open, answers, reports });
    let mut watching = JoinSet::new();
    let watched = host.clone();
    watching.spawn(pace::watch(Duration::from_secs_f64(call.lease_seconds), move |late| {
        let millis = u64::try_from(late.as_millis()).unwrap_or(u64::MAX);
        watched.say(Report::StoodStill { millis });
    }));
    host.say(Report::Ready);
    while let Some(order) = orders.recv().await {
        if order.what == What::Stop {
            break;
        }
        host.clone().take(order);
    }
    host.stop().await;
    drop(watching);
    host.say(Report::Bye);
    written.await.context("the reports could not be written")?;
    Ok(())
}

/// A session that this server has open.
struct Open {
    /// The order that started it.
    number: u64,
    profile: Profile<PlayerData>,
    /// Earnings that are in the data and in no save that was answered yet.
    unsaved: Mutex<Vec<u32>>,
    /// Known to the profile's listener too, which must not hold the profile.
    ended: Arc<OnceLock<SessionEnd>>,
}

struct Host {
    server: GameServer,
    market: Market,
    desk: Desk,
    /// How long a trade's escrow may take to be had.
    patience: Duration,
    open: Mutex<BTreeMap<u32, Arc<Open>>>,
    /// The answers that are waited for.
    answers: Mutex<JoinSet<()>>,
    reports: mpsc::UnboundedSender<Report>,
}

impl Host {
    fn say(&self, report: Report) {
        let _ = self.reports.send(report);
    }

    fn done(&self, id: u64, answer: Answer) {
        self.say(Report::Done { id, answer });
    }

    /// Waits for an answer of the library beside everything else.
    fn wait_for(&self, answer: impl Future<Output = ()> + Send + 'static) {
        let mut answers = locked(&self.answers);
        while answers.try_join_next().is_some() {}
        answers.spawn(answer);
    }

    fn session(&self, player: u32) -> Option<Arc<Open>> {
        locked(&self.open).get(&player).cloned()
    }

    /// Calls the library before it returns, so the next order's call comes behind this one.
    fn take(self: Arc<Self>, Order { id, what }: Order) {
        match what {
            What::Join { player } => self.join(id, player),
            What::Leave { player } => self.leave(id, player),
            What::Earn { player, step, amount, save } => self.earn(id, player, step, amount, save),
            What::Send { from, to, number, amount } => self.send(
                id,
                Transfer { from, to, number, amount, created_ms: Env::system().unix_ms() },
            ),
            What::Trade { one, other } => match (self.session(one), self.session(other)) {
                (Some(one), Some(other)) => {
                    self.moving(id, self.market.swap(&one.profile, &other.profile))
                }
                _ => self.done(id, Answer::Refused { why: "no session here".into() }),
            },
            What::Give { from, to } => match self.session(from) {
                Some(from) => self.moving(id, self.market.give(&from.profile, to)),
                None => self.done(id, Answer::Refused { why: "no session here".into() }),
            },
            What::Deposit { player, terms } => match self.session(player) {
                Some(from) => self.moving(id, self.market.deposit(&from.profile, player, terms)),
                None => self.done(id, Answer::Refused { why: "no session here".into() }),
            },
            What::Settle { trade } => {
                let host = self.clone();
                self.moving(id, async move { host.settle(trade).await });
            }
            What::Edit { task } => self.edit(id, task),
            What::Stop => {}
        }
    }

    /// Answers with the items that moved, once that is durable.
    fn moving(
        self: &Arc<Self>,
        id: u64,
        moving: impl Future<Output = profilestore::Result<Vec<Item>>> + Send + 'static,
    ) {
        let (host, began) = (self.clone(), Instant::now());
        self.wait_for(async move {
            let answer = match moving.await {
                Ok(items) => Answer::Moved { items, micros: micros_since(began) },
                Err(error) => failed(&error),
            };
            host.done(id, answer);
        });
    }

    fn edit(self: Arc<Self>, id: u64, task: Task) {
        self.clone().wait_for(async move {
            let answer = edited(&task, &self.desk).await;
            self.done(id, answer);
        });
    }

    async fn settle(&self, trade: u64) -> profilestore::Result<Vec<Item>> {
        self.market.settle(trade, Env::system().unix_ms(), self.patience).await
    }

    /// Finishes the trades that a player's earlier sessions left open.
    async fn finish_trades(&self, profile: &Profile<PlayerData>) {
        let open: Vec<Terms> = profile.read(|data| data.open_trades.values().cloned().collect());
        for Terms { trade, deadline_ms, .. } in open {
            // Before the deadline the other side may still come.
            let left = u64::try_from(deadline_ms - Env::system().unix_ms()).unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(left)).await;
            if profile.is_over() {
                return;
            }
            if let Ok(items) = self.settle(trade).await {
                self.say(Report::Settled { items });
            }
        }
    }

    fn join(self: Arc<Self>, id: u64, player: u32) {
        let began = Instant::now();
        let starting = self.market.players.start_session(&player_key(player));
        self.clone().wait_for(async move {
            let profile = match starting.await {
                Ok(profile) => profile,
                Err(error) => return self.done(id, failed(&error)),
            };
            let micros = micros_since(began);
            let ended = Arc::new(OnceLock::new());
            let open = Open {
                number: id,
                profile: profile.clone(),
                unsaved: Mutex::default(),
                ended: ended.clone(),
            };
            locked(&self.open).insert(player, Arc::new(open));
            self.done(id, Answer::Joined { load_count: profile.session_load_count(), micros });
            let (host, known) = (self.clone(), ended.clone());
            profile.on_session_end(move |end| host.ended(player, id, &known, end));
            if profile.is_over() {
                // Before there was a listener: only a shutdown and another server's request come
                // that early.
                let end = if self.server.is_closing() {
                    SessionEnd::Shutdown
                } else {
                    SessionEnd::External
                };
                self.ended(player, id, &ended, end);
            }
            // When it is over already, the next session does it.
            let _ = profile.update_when_free(|data| data.mint(player)).await;
            let host = self.clone();
            profile.message_handler(move |data, message| {
                // What cannot be read stays in the inbox, where the audit finds it.
                if let Ok(transfer) = message.parse::<Transfer>() {
                    data.credit(&transfer);
                    message.processed();
                    host.say(Report::Credited { player });
                } else {
                    data.receive(message);
                }
            });
            for transfer in profile.read(|data| data.outbox.clone()) {
                if self.post(&profile, &transfer).await.is_ok() {
                    self.say(Report::Resent {
                        from: player,
                        to: transfer.to,
                        number: transfer.number,
                    });
                }
            }
            self.finish_trades(&profile).await;
        });
    }

    /// Tells the parent, once, about a session that ended other than by its order.
    fn ended(&self, player: u32, session: u64, known: &OnceLock<SessionEnd>, end: SessionEnd) {
        if known.set(end.clone()).is_err() {
            return;
        }
        let mut sessions = locked(&self.open);
        if end != SessionEnd::Shutdown
            && sessions.get(&player).is_some_and(|open| open.number == session)
        {
            sessions.remove(&player);
        }
        drop(sessions);
        let how = match end {
            SessionEnd::Manual => return,
            SessionEnd::External
            | SessionEnd::Superseded
            | SessionEnd::Operator { saves: true, .. } => "handed over",
            SessionEnd::Shutdown => "shutdown",
            _ => "lost",
        };
        self.say(Report::Ended { player, session, how: how.to_owned() });
    }

    fn leave(self: Arc<Self>, id: u64, player: u32) {
        let Some(open) = locked(&self.open).remove(&player) else {
            return self.done(id, Answer::Refused { why: "no session here".into() });
        };
        let steps = std::mem::take(&mut *locked(&open.unsaved));
        let ending = open.profile.end_session();
        self.clone().wait_for(async move {
            let answer = match ending.await {
                Ok(()) => Answer::Left { steps },
                Err(error) => failed(&error),
            };
            self.done(id, answer);
        });
    }

    fn earn(self: Arc<Self>, id: u64, player: u32, step: u32, amount: u32, save: bool) {
        let Some(open) = self.session(player) else {
            return self.done(id, Answer::Refused { why: "no session here".into() });
        };
        if let Err(error) = open.profile.update(|data| data.earn(step, amount)) {
            return self.done(id, Answer::Refused { why: kind(&error) });
        }
        locked(&open.unsaved).push(step);
        if !save {
            return self.done(id, Answer::Noted);
        }
        let began = Instant::now();
        let steps = std::mem::take(&mut *locked(&open.unsaved));
        let saving = open.profile.save();
        self.clone().wait_for(async move {
            let answer = match saving.await {
                Ok(()) => Answer::Saved { steps, micros: micros_since(began) },
                Err(error) => failed(&error),
            };
            self.done(id, answer);
        });
    }

    /// Debit and intent are one save; the message follows it, under an identity that any later
    /// session can repeat.
    fn send(self: Arc<Self>, id: u64, transfer: Transfer) {
        let Some(open) = self.session(transfer.from) else {
            return self.done(id, Answer::Refused { why: "no session here".into() });
        };
        match open.profile.update(|data| data.debit(&transfer)) {
            Ok(true) => {}
            Ok(false) => return self.done(id, Answer::Refused { why: "not enough coins".into() }),
            Err(error) => return self.done(id, Answer::Refused { why: kind(&error) }),
        }
        let saving = open.profile.save();
        self.clone().wait_for(async move {
            if let Err(error) = saving.await {
                return self.done(id, failed(&error));
            }
            self.say(Report::Debited {
                from: transfer.from,
                to: transfer.to,
                number: transfer.number,
            });
            let began = Instant::now();
            let answer = match self.post(&open.profile, &transfer).await {
                Ok(_) => Answer::Sent { micros: micros_since(began) },
                Err(error) => failed(&error),
            };
            self.done(id, answer);
        });
    }

    async fn post(
        &self,
        profile: &Profile<PlayerData>,
        transfer: &Transfer,
    ) -> profilestore::Result<Sent> {
        let sent = post(&self.market.players, transfer).await?;
        // If the session is over by now, the next one sends it again, which does nothing.
        let _ = profile.update_when_free(|data| data.sent(transfer)).await;
        Ok(sent)
    }

    /// Shuts down, and reports everything that was under way before the rest.
    async fn stop(&self) {
        let report = self.server.shutdown().await;
        let mut answers = std::mem::take(&mut *locked(&self.answers));
        let all = async { while answers.join_next().await.is_some() {} };
        if tokio::time::timeout(PATIENCE, all).await.is_err() {
            self.say(Report::Trouble {
                message: "calls were still unanswered after the shutdown".into(),
            });
        }
        let (taken, not_saved): (Vec<_>, Vec<_>) =
            report.not_saved.iter().partition(|(_, error)| error.kind() == ErrorKind::SessionEnded);
        let named = |left: Vec<&(ProfileKey, profilestore::Error)>| -> Vec<String> {
            left.into_iter().map(|(key, error)| format!("{key}: {error}")).collect()
        };
        let (taken, not_saved) = (named(taken), named(not_saved));
        let saved =
            |player: u32| !report.not_saved.iter().any(|(key, _)| key.key() == player_key(player));
        let sessions = std::mem::take(&mut *locked(&self.open));
        let ended = sessions.iter().filter(|(player, open)| {
            open.ended.get() == Some(&SessionEnd::Shutdown) && saved(**player)
        });
        let steps = ended
            .map(|(player, open)| (*player, std::mem::take(&mut *locked(&open.unsaved))))
            .collect();
        self.say(Report::Stopped { saved: steps, taken, not_saved });
    }
}

/// Makes an operator's edit.
pub(super) async fn edited(task: &Task, desk: &Desk) -> Answer {
    match task.carry_out(desk).await {
        Ok(Outcome::Done { online }) => Answer::Edited { online },
        Ok(Outcome::Waits) => {
            Answer::Failed { kind: "waits for holders".into(), message: String::new() }
        }
        Err(error) if matches!(error.kind(), ErrorKind::EditRefused | ErrorKind::NotFound) => {
            Answer::Refused { why: kind(&error) }
        }
        Err(error) => failed(&error),
    }
}

/// Sends a transfer's message; as often as one likes.
pub(crate) async fn post(
    profiles: &ProfileStore<PlayerData>,
    transfer: &Transfer,
) -> profilestore::Result<Sent> {
    let id = MessageId::new(transfer.created_ms, &transfer.name()).expect("the name is short");
    profiles.send_message_as(&player_key(transfer.to), &id, transfer).await
}

fn kind(error: &profilestore::Error) -> String {
    format!("{:?}", error.kind())
}

fn failed(error: &profilestore::Error) -> Answer {
    use std::error::Error as _;
    let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    let kind = match error.kind() {
        ErrorKind::AlreadyLoaded => "already loaded",
        ErrorKind::Superseded => "superseded",
        ErrorKind::TakenElsewhere => "taken elsewhere",
        ErrorKind::TimedOut => "timed out",
        ErrorKind::Closing => "closing",
        ErrorKind::SessionEnded => "session ended",
        ErrorKind::Busy => "busy",
        ErrorKind::Unconfirmed => "unconfirmed",
        ErrorKind::Unavailable => "store unavailable",
        ErrorKind::Unknown => "outcome unknown",
        _ => return Answer::Failed { kind: kind(error), message: format!("{error}{cause}") },
    };
    Answer::Failed { kind: kind.to_owned(), message: format!("{error}{cause}") }
}

fn micros_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)
}
