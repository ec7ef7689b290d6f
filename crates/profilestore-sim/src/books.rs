//! The books of a world: what clients were told, what the store truly did, the invariants between
//! the two, and the trace.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use parking_lot::Mutex;
use profilestore::data_store::{Change, Commit, CommitId, CommitReply, StoreError};
use tokio::time::Instant;

use crate::{
    invariants::{Broken, Invariants, Kind, Seen},
    oracle::Told,
    watch::{Step, Witness},
};

/// What happened in a world, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(pub BTreeMap<&'static str, u64>);

impl Counts {
    pub fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub fn merge(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what).or_default() += count;
        }
    }
}

/// A guarantee that was broken, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub at: Duration,
    pub broken: Broken,
}

/// Everything that the invariants need, under one lock.
pub struct Books {
    began: Instant,
    pub told: Told,
    pub invariants: Invariants,
    pub counts: Counts,
    pub violation: Option<Violation>,
    /// None: nobody wants to read it.
    pub trace: Option<Vec<Line>>,
}

/// A line of the trace, and the profile it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub text: String,
    pub key: Option<String>,
}

impl Books {
    pub fn new(traced: bool) -> Self {
        Self {
            began: Instant::now(),
            told: Told::default(),
            invariants: Invariants::default(),
            counts: Counts::default(),
            violation: None,
            trace: traced.then(Vec::new),
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Notes something in the trace; `text` is only called when the trace is kept.
    pub fn note(&mut self, key: Option<&str>, text: impl FnOnce() -> String) {
        let at = self.began.elapsed().as_millis();
        if let Some(trace) = &mut self.trace {
            let text = format!("{:>6}.{:03}  {}", at / 1000, at % 1000, text());
            trace.push(Line { text, key: key.map(str::to_owned) });
        }
    }

    /// Takes the outcome of a check; the first violation counts.
    pub fn check(&mut self, outcome: Result<(), Broken>) {
        if let Err(broken) = outcome {
            self.note(broken.key.clone().as_deref(), || format!("VIOLATION {broken}"));
            let at = self.elapsed();
            self.violation.get_or_insert(Violation { at, broken });
        }
    }
}

/// The books as the store's witness.
pub struct Clerk(pub Mutex<Books>);

impl Clerk {
    /// A server has the answer to a renewal of its row, and has yet to go by it.
    pub fn heard(&self, renewal: CommitId, reply: &CommitReply) {
        let books = &mut *self.0.lock();
        let now = Instant::now();
        let outcome = books.invariants.active.heard(now, (renewal, reply), &books.told);
        books.check(outcome);
    }
}

impl Witness for Clerk {
    fn commit(
        &self,
        commit: &Commit,
        result: &Result<CommitReply, StoreError>,
        steps: &[Step<'_>],
    ) {
        let books = &mut *self.0.lock();
        books.counts.add("commits");
        let applied = matches!(result, Ok(reply) if !reply.already_applied);
        if books.trace.is_some() {
            let renewal =
                commit.changes.iter().all(|change| matches!(change, Change::RenewServer { .. }));
            if !renewal || result.is_err() {
                let key = commit
                    .changes
                    .iter()
                    .find_map(|change| change.key())
                    .map(|key| key.key().to_owned());
                books.note(key.as_deref(), || describe(commit, result));
            }
        }
        let now = Instant::now();
        let outcome = books.invariants.active.asked(now, (commit, result), &books.told);
        books.check(outcome);
        let outcome = books.invariants.unknown.answered(commit, result);
        books.check(outcome);
        if !applied {
            return;
        }
        for step in steps {
            let kind = Kind::of(step, &books.told);
            if kind.rewrites() || step.erased {
                books.told.was_rewritten(step.key);
            }
            if let Some(holder) = &step.before.lease.holder
                && (kind.rewrites()
                    || (step.after.holder() != Some(&holder.session)
                        && commit.from != holder.server))
            {
                books.told.disturb(&holder.session);
            }
            match (step.before.holder(), step.after.holder()) {
                (Some(before), Some(after)) if before != after => books.counts.add("taken over"),
                (None, Some(_)) if step.before.lease.offer.is_some() => {
                    books.counts.add("offers taken")
                }
                _ => {}
            }
            let outcome = books.invariants.committed(&Seen { now, step, kind }, &books.told);
            books.check(outcome);
        }
        if let Some(step) = steps.first() {
            let outcome = books.invariants.balance(step.key);
            books.check(outcome);
        }
    }
}

pub fn describe(commit: &Commit, result: &Result<CommitReply, StoreError>) -> String {
    let mut text = String::from("store ");
    for change in &commit.changes {
        let _ = match change {
            Change::Write { key, epoch, version, cause, author, .. } => {
                write!(
                    text,
                    "write({} v{}→{} e{epoch} {} by {author}) ",
                    key.key(),
                    version,
                    version + 1,
                    cause.as_str()
                )
            }
            Change::Lease { key, revision, lease, raise_epoch, .. } => {
                let holder = lease.holder.as_ref().map_or("-", |holder| holder.job_id.as_str());
                let asks = lease.request.as_ref().map_or("-", |request| request.job_id.as_str());
                let offer = if lease.offer.is_some() { " offered" } else { "" };
                let raised = if *raise_epoch { " epoch+1" } else { "" };
                write!(
                    text,
                    "lease({} r{revision} holder={holder} asks={asks}{offer}{raised}) ",
                    key.key()
                )
            }
            Change::AppendMessage { key, message, .. } => {
                write!(text, "append({} {}) ", key.key(), message.id)
            }
            Change::RemoveMessage { key, index, .. } => {
                write!(text, "consume({} #{index}) ", key.key())
            }
            Change::Check { key, epoch } => write!(text, "check({} e{epoch}) ", key.key()),
            Change::RegisterServer { job_id, .. } => write!(text, "register({job_id}) "),
            Change::RenewServer { revision, .. } => write!(text, "renew(r{revision}) "),
            Change::RehostServer { generation, .. } => write!(text, "rehost(g{generation}) "),
            Change::CheckHost { .. } => write!(text, "check host "),
            Change::MarkDead { .. } => write!(text, "dead "),
            Change::Abort { .. } => write!(text, "abort "),
            other => write!(text, "{other:?} "),
        };
    }
    let _ = match result {
        Ok(reply) if reply.already_applied => write!(text, "=> had been applied"),
        Ok(_) => write!(text, "=> ok"),
        Err(error) => match error.conflict() {
            Some(kind) => write!(text, "=> {kind:?}"),
            None => write!(text, "=> {error}"),
        },
    };
    text
}
