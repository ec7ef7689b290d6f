//! What game servers were told and may believe, and what the store truly did.
//!
//! * **A session ends for a reason.** While a game server may believe that it holds a profile, and
//!   has not ended the session, no commit takes the profile from that session.
//! * **No session that holds its profile is called lost** to a game server that resumes.
//! * **What was acknowledged is stored**, and what a session stored is never replaced by what it
//!   sent earlier. A trade that was answered as not done never is.
//! * **A session is let go when it is asked for**, and a number that comes again with another
//!   content is refused.
//! * **One host at a time** renews the row of a game server, and none the row of a game server that
//!   has been silent.
//! * One writer and messages once, as in the other world.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use profilestore::data_store::{Change, Commit, CommitReply, HostId, ServerId, StoreError};
use tokio::time::Instant;

use super::wire::Ask;
use crate::{
    books::{Counts, Line, Violation, describe},
    data::{Label, Player},
    invariants::{Broken, Invariants, Kind, Seen},
    oracle::{LetterTold, Told},
    watch::{Side, Step, Witness},
};

/// For how long a host may renew the row of a game server that it does not hear: 4 s, a renewal
/// that was about to be made, and one that arrives late.
const SILENCE: Duration = Duration::from_secs(4 + 10 + 50);

/// For how long a release may be on its way whose request has been withdrawn since.
const WITHDRAWN: Duration = Duration::from_secs(60);

/// A server's row, as its commits made it.
struct Row {
    host: Option<HostId>,
    heard: Instant,
}

/// A session, as its game server sees it.
pub(super) struct Open {
    pub(super) label: Label,
    /// What the store calls it, by its name, which it has of its start, and its epoch: a start that
    /// comes again late makes another session of that name. None: it was gone when its game server
    /// got it.
    pub(super) name: Option<(String, u64)>,
    /// Until when its game server may believe in it.
    pub(super) until: Instant,
    /// The game server has sent its end.
    pub(super) end_sent: bool,
    /// The game server was asked to let go, and believes no longer than it did then.
    pub(super) asked: bool,
    /// Its game server has resumed, and does not know yet whether the session goes on.
    pub(super) unanswered: bool,
}

pub(super) struct Ledger {
    began: Instant,
    pub(super) counts: Counts,
    pub(super) violation: Option<Violation>,
    pub(super) trace: Option<Vec<Line>>,
    told: Told,
    invariants: Invariants,
    rows: BTreeMap<ServerId, Row>,
    /// The session that holds each profile, as the store calls it.
    holders: BTreeMap<String, (String, u64)>,
    /// When a request for each profile stood last.
    asked: BTreeMap<String, Instant>,
    /// By game server and profile.
    pub(super) open: BTreeMap<(String, String), Open>,
    /// What each session sent, in its order.
    sent: BTreeMap<Label, Vec<(u64, Player)>>,
    /// What of it is stored: the number of the save.
    stored: BTreeMap<Label, u64>,
    /// Every save that made a version.
    made: BTreeSet<(Label, u64)>,
    /// Saves that were answered as not done.
    not_done: BTreeSet<(Label, u64)>,
}

impl Ledger {
    pub(super) fn new(traced: bool) -> Self {
        Self {
            began: Instant::now(),
            counts: Counts::default(),
            violation: None,
            trace: traced.then(Vec::new),
            told: Told::default(),
            invariants: Invariants::default(),
            rows: BTreeMap::new(),
            holders: BTreeMap::new(),
            asked: BTreeMap::new(),
            open: BTreeMap::new(),
            sent: BTreeMap::new(),
            stored: BTreeMap::new(),
            made: BTreeSet::new(),
            not_done: BTreeSet::new(),
        }
    }

    pub(super) fn note(&mut self, key: Option<&str>, text: impl FnOnce() -> String) {
        let at = self.began.elapsed().as_millis();
        if let Some(trace) = &mut self.trace {
            let text = format!("{:>6}.{:03}  {}", at / 1000, at % 1000, text());
            trace.push(Line { text, key: key.map(str::to_owned) });
        }
    }

    pub(super) fn broken(&mut self, guarantee: &'static str, key: Option<&str>, what: String) {
        let broken = Broken { guarantee, key: key.map(str::to_owned), what };
        self.note(key, || format!("VIOLATION {broken}"));
        let at = self.began.elapsed();
        self.violation.get_or_insert(Violation { at, broken });
    }

    fn check(&mut self, outcome: Result<(), Broken>) {
        if let Err(Broken { guarantee, key, what }) = outcome {
            self.broken(guarantee, key.as_deref(), what);
        }
    }

    // --- what game servers say -------------------------------------------------------------------

    pub(super) fn label(&mut self) -> Label {
        self.told.label()
    }

    /// A host hears of a game server.
    pub(super) fn heard(&mut self, server: ServerId) {
        if let Some(row) = self.rows.get_mut(&server) {
            row.heard = Instant::now();
        }
    }

    /// A game server may believe in its sessions until then.
    pub(super) fn believes(&mut self, job: &str, until: Instant) {
        for ((of, _), open) in &mut self.open {
            if of == job && !open.asked && !open.unanswered {
                open.until = open.until.max(until);
            }
        }
    }

    /// A game server resumes: for a session pongs count again once it was found.
    pub(super) fn asks_again(&mut self, job: &str) {
        let open = self.open.iter_mut().filter(|((of, _), _)| of == job);
        open.for_each(|(_, open)| open.unanswered = true);
    }

    /// A session goes on after a resume. What was confirmed meanwhile is true of it too.
    pub(super) fn found_again(&mut self, job: &str, key: &str, until: Instant) {
        if let Some(open) = self.open.get_mut(&(job.to_owned(), key.to_owned())) {
            open.unanswered = false;
            if !open.asked {
                open.until = open.until.max(until);
            }
        }
    }

    /// A game server resumes and is told that a session is lost.
    pub(super) fn not_found_again(&mut self, job: &str, key: &str) {
        let Some(open) = self.open.get(&(job.to_owned(), key.to_owned())) else { return };
        if open.name.is_some() && open.name.as_ref() == self.holders.get(key) {
            let what = format!("session {} is called lost, and holds its profile", open.label);
            self.broken("hosting", Some(key), what);
        }
    }

    /// A game server gives up what it believed: it has a new incarnation, or is dead.
    pub(super) fn doubts(&mut self, job: &str) {
        for ((of, _), open) in &mut self.open {
            if of == job {
                open.until = Instant::now();
            }
        }
    }

    pub(super) fn is_over(&mut self, job: &str, key: &str) {
        self.open.remove(&(job.to_owned(), key.to_owned()));
    }

    /// A document is sent.
    pub(super) fn sends(&mut self, label: Label, n: u64, document: &Player) {
        self.sent.entry(label).or_default().push((n, document.clone()));
    }

    /// A save was answered.
    pub(super) fn acknowledged(&mut self, key: &str, label: Label, n: u64) {
        self.counts.add("saves answered");
        let stored = self.stored.get(&label).copied().unwrap_or_default();
        let sent = self.sent.get(&label).map(Vec::as_slice).unwrap_or_default();
        let of = |wanted: u64| sent.iter().find(|(n, _)| *n == wanted).map(|(_, data)| data);
        // A save that changes nothing makes no version.
        if stored < n && of(stored) != of(n) {
            let what = format!("save {n} of session {label} was answered, {stored} is stored");
            self.broken("G2", Some(key), what);
        }
    }

    /// A request was answered as not done. It never is from now on.
    pub(super) fn not_done(&mut self, saves: &[(&str, Label, u64)]) {
        for (key, label, n) in saves {
            if self.made.contains(&(*label, *n)) {
                let what =
                    format!("save {n} of session {label} is stored, and was answered not so");
                self.broken("G4", Some(key), what);
            }
            self.not_done.insert((*label, *n));
        }
    }

    /// Whether a save made a version.
    pub(super) fn made(&self, ask: &Ask) -> bool {
        let saves = ask.numbered();
        matches!(ask, Ask::Save { .. })
            && saves.iter().all(|(_, label, n)| self.made.contains(&(*label, *n)))
    }

    /// A message is sent; its number.
    pub(super) fn letter(&mut self, to: &str, coins: i64) -> u64 {
        let unknown = true;
        let letter = LetterTold { to: to.to_owned(), coins, unknown, ..LetterTold::default() };
        self.told.letters.push(letter);
        self.told.letters.len() as u64 - 1
    }

    pub(super) fn letter_stored(&mut self, number: u64) {
        let letter = &mut self.told.letters[usize::try_from(number).unwrap_or_default()];
        letter.stored = true;
        let to = letter.to.clone();
        let outcome = self.invariants.messages.acknowledged(&to, number);
        self.check(outcome);
    }

    // --- what the store does ---------------------------------------------------------------------

    fn rows_changed(&mut self, commit: &Commit) {
        let now = Instant::now();
        for change in &commit.changes {
            match change {
                Change::RegisterServer { id, host, .. } => {
                    self.rows.insert(*id, Row { host: *host, heard: now });
                }
                Change::RehostServer { id, host, .. } => {
                    self.counts.add("game servers that changed their host");
                    if let Some(row) = self.rows.get_mut(id) {
                        *row = Row { host: Some(*host), heard: now };
                    }
                }
                Change::RenewServer { id, host, .. } => self.renewed(*id, *host, now),
                _ => {}
            }
        }
    }

    fn renewed(&mut self, server: ServerId, host: Option<HostId>, now: Instant) {
        let Some(row) = self.rows.get(&server) else { return };
        if row.host != host {
            let what = format!("two hosts renew the row of {server}");
            return self.broken("hosting", None, what);
        }
        let silent = now - row.heard;
        if silent > SILENCE {
            let what = format!("the row of {server} is renewed, which is silent since {silent:?}");
            self.broken("hosting", None, what);
        }
    }

    fn stepped(&mut self, step: &Step<'_>) {
        let now = Instant::now();
        match &step.after.lease.holder {
            Some(holder) => {
                let name = (holder.session.clone(), step.after.epoch);
                self.holders.insert(step.key.to_owned(), name)
            }
            None => self.holders.remove(step.key),
        };
        if step.before.lease.request.is_some() {
            self.asked.insert(step.key.to_owned(), now);
        }
        let holder = step.before.lease.holder.as_ref();
        if let Some(before) = holder.filter(|_| step.before.holder() != step.after.holder()) {
            let of = (before.job_id.clone(), step.key.to_owned());
            let name = Some((before.session.clone(), step.before.epoch));
            let open = self.open.get(&of).filter(|open| open.name == name && !open.end_sent);
            let asked = self.asked.get(step.key).is_some_and(|at| now - *at < WITHDRAWN);
            let let_go = step.after.lease.holder.is_none() && !asked;
            if let Some(open) = open.filter(|_| let_go) {
                let what = format!("session {} is released, and nobody asked for it", open.label);
                return self.broken("hosting", Some(step.key), what);
            }
            if let Some(open) = open.filter(|open| open.until > now) {
                let what = format!(
                    "session {} of {} is over, and its game server may believe in it for {:?}",
                    open.label,
                    of.0,
                    open.until - now
                );
                return self.broken("G6", Some(step.key), what);
            }
        }
        if step.before.data != step.after.data
            && let Some(data) = &step.after.data
            && data.writer != 0
        {
            self.wrote(step.key, data);
        }
        let kind = Kind::of(step, &self.told);
        let seen = Seen { now, step, kind };
        let outcome = self
            .invariants
            .one_writer
            .committed(&seen, &self.told)
            .and_then(|()| self.invariants.messages.committed(&seen, &self.told));
        self.check(outcome);
    }

    /// A session's document was stored: none that it sent before the one that was stored last.
    fn wrote(&mut self, key: &str, data: &Player) {
        let label = data.writer;
        let before = self.stored.get(&label).copied().unwrap_or_default();
        let sent = self.sent.get(&label).map(Vec::as_slice).unwrap_or_default();
        let mut found = sent.iter().filter(|(n, document)| *n > before && document == data);
        let wanted = |(n, _): &&(u64, Player)| !self.not_done.contains(&(label, *n));
        match (found.clone().find(wanted), found.next()) {
            (Some((n, _)), _) => {
                self.made.insert((label, *n));
                self.stored.insert(label, *n);
            }
            (None, Some((n, _))) => {
                let what = format!("save {n} of session {label} was answered as not done");
                self.broken("G4", Some(key), what);
            }
            (None, None) => {
                let older = sent.iter().rev().find(|(_, document)| document == data);
                let what = match older {
                    Some((n, _)) => {
                        format!("save {n} of session {label} was stored over save {before} of it")
                    }
                    None => format!("session {label} never sent what is stored of it: {data:?}"),
                };
                self.broken("G1", Some(key), what);
            }
        }
    }

    /// Everybody was served: nothing is left.
    pub(super) fn finally(&mut self, ends: &BTreeMap<String, Side>) {
        let outcome = self.invariants.messages.finally(&self.told);
        self.check(outcome);
        for (key, side) in ends {
            if side.lease.holder.is_some() {
                self.broken("G8", Some(key), "the profile is still held at the end".to_owned());
            }
        }
    }
}

/// The ledger as the store's witness.
pub(super) struct Clerk(pub(super) Arc<Mutex<Ledger>>);

impl Witness for Clerk {
    fn commit(
        &self,
        commit: &Commit,
        result: &Result<CommitReply, StoreError>,
        steps: &[Step<'_>],
    ) {
        let ledger = &mut *self.0.lock();
        ledger.counts.add("commits");
        if ledger.trace.is_some() {
            let key = commit.changes.iter().find_map(|change| change.key());
            let key = key.map(|key| key.key().to_owned());
            ledger.note(key.as_deref(), || describe(commit, result));
        }
        if matches!(result, Ok(reply) if !reply.already_applied) {
            ledger.rows_changed(commit);
            steps.iter().for_each(|step| ledger.stepped(step));
        }
    }
}
