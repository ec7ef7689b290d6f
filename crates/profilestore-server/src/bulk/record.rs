//! What is kept about an edit of many profiles: what was asked for, how far it is, what became of
//! it.

use profilestore::{
    Attribution,
    operator::{BulkProgress, BulkReport},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::back::BackTo;

/// How long nothing may be heard of a run before it counts as broken off, in milliseconds.
const QUIET_MS: i64 = 10_000;

/// How many refused profiles are named.
const NAMED: usize = 20;

/// Which profiles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Which {
    /// The store.
    pub(crate) store: String,
    /// Only this scope of it. Null: every scope.
    #[serde(default)]
    pub(crate) scope: Option<String>,
    /// Only keys that begin so.
    #[serde(default)]
    pub(crate) prefix: Option<String>,
    /// Only profiles whose saved data matches (docs/search.md).
    #[serde(default, rename = "where")]
    pub(crate) filter: Option<String>,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// A server process works on it.
    Running,
    /// No process works on it: it was paused, it failed, its process ended, or the holders of some
    /// profiles have not answered. POST on `resume` goes on.
    Paused,
    /// Every profile has been seen to.
    Done,
    /// It was done, and an operation that undoes it is done too.
    Undone,
}

/// What became of the profiles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Counts {
    /// Changed.
    pub(crate) changed: u64,
    /// As the edit wants them already.
    pub(crate) unchanged: u64,
    /// The edit does not fit them; nothing was changed there.
    pub(crate) refused: u64,
    /// Not meant: a test or the search does not match.
    pub(crate) unmatched: u64,
    /// Keys without a profile; for an operation that undoes another, profiles without a change.
    pub(crate) skipped: u64,
    /// Settled by an earlier run of the same operation.
    pub(crate) before: u64,
}

/// A profile that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct RefusedProfile {
    /// Its full name.
    pub(crate) profile: String,
    /// Why.
    pub(crate) why: String,
}

/// An operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) operation: Uuid,
    /// The operation that it undoes.
    pub(crate) undoes: Option<Uuid>,
    /// The operation that undoes it.
    pub(crate) undone_by: Option<Uuid>,
    pub(crate) which: Which,
    /// The steps. Null for an operation that undoes another, or puts back what was at a time.
    pub(crate) operations: Value,
    /// The places that it puts back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) back_to: Option<BackTo>,
    pub(crate) author: String,
    pub(crate) reason: String,
    pub(crate) began_ms: i64,
    /// How many profiles there were to look at. None: not counted.
    pub(crate) total: Option<u64>,
    /// How many profiles the run has seen to.
    pub(crate) done: u64,
    /// How many wait for the servers that hold them.
    pub(crate) waiting: u64,
    /// The run that works on it, or was the last to. Any other one stops.
    pub(crate) run: Uuid,
    /// When its run was heard of last. 0: the run has ended.
    heard_ms: i64,
    /// It is to go on.
    pub(crate) goes_on: bool,
    pub(crate) is_done: bool,
    pub(crate) counts: Option<Counts>,
    #[serde(default)]
    pub(crate) refused: Vec<RefusedProfile>,
    /// Why the last run ended before its end.
    pub(crate) error: Option<String>,
}

impl Record {
    /// An operation that begins now, with a first run.
    pub(crate) fn new(
        operation: Uuid,
        run: Uuid,
        which: Which,
        operations: Value,
        by: Attribution,
        now_ms: i64,
    ) -> Self {
        Self {
            operation,
            undoes: None,
            undone_by: None,
            which,
            operations,
            back_to: None,
            author: by.author,
            reason: by.reason,
            began_ms: now_ms,
            total: None,
            done: 0,
            waiting: 0,
            run,
            heard_ms: now_ms,
            goes_on: true,
            is_done: false,
            counts: None,
            refused: Vec::new(),
            error: None,
        }
    }

    /// Whether it is the same request.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (self.undoes, &self.which, &self.operations, &self.back_to)
            == (other.undoes, &other.which, &other.operations, &other.back_to)
    }

    /// Whether a process works on it.
    pub(crate) fn is_running(&self, now_ms: i64) -> bool {
        !self.is_done && self.goes_on && !self.is_quiet(now_ms)
    }

    /// Whether it is to go on, and its process has ended.
    pub(crate) fn is_broken_off(&self, now_ms: i64) -> bool {
        !self.is_done && self.goes_on && self.is_quiet(now_ms)
    }

    /// Whether no process works on it any more, whatever it is to do.
    pub(crate) fn is_quiet(&self, now_ms: i64) -> bool {
        now_ms - self.heard_ms >= QUIET_MS
    }

    /// Whether this run is the one that is to work on it.
    pub(crate) fn is_for(&self, run: Uuid) -> bool {
        self.goes_on && !self.is_done && self.run == run
    }

    /// Another run begins, or goes on where the last one ended.
    pub(crate) fn go_on(&mut self, run: Uuid, now_ms: i64) {
        (self.run, self.heard_ms) = (run, now_ms);
        self.goes_on = true;
        self.error = None;
    }

    pub(crate) fn heard(&mut self, progress: BulkProgress, now_ms: i64) {
        self.done = progress.settled;
        self.waiting = progress.waiting;
        self.heard_ms = now_ms;
    }

    /// Its run has ended before its end. Without an error it is still to go on.
    pub(crate) fn broke_off(&mut self, error: Option<String>) {
        self.heard_ms = 0;
        self.goes_on = self.goes_on && error.is_none();
        self.error = error;
    }

    /// It is complete.
    pub(crate) fn complete(&mut self) {
        (self.heard_ms, self.waiting) = (0, 0);
        self.is_done = true;
        self.goes_on = false;
        self.error = None;
    }

    /// What a run that came to its end did. Some holders may not have answered.
    pub(crate) fn finish(&mut self, report: &BulkReport) {
        self.counts = Some(Counts {
            changed: report.done - report.unchanged,
            unchanged: report.unchanged,
            refused: report.refused.len() as u64,
            unmatched: report.unmatched,
            skipped: report.skipped,
            before: report.before,
        });
        let named = report.refused.iter().take(NAMED);
        self.refused = named
            .map(|(key, why)| RefusedProfile { profile: key.to_string(), why: why.clone() })
            .collect();
        self.complete();
        self.waiting = report.waiting.len() as u64;
        self.total = Some(self.done + self.waiting);
        self.is_done = report.waiting.is_empty();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let which = Which { store: "S".to_owned(), scope: None, prefix: None, filter: None };
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        Record::new(one, two, which, Value::Null, Attribution::new("ann"), 1_000_000)
    }

    #[test]
    fn an_operation_of_which_nothing_is_heard_is_broken_off_and_another_run_takes_it_over() {
        let mut record = record();
        let (first, second) = (record.run, Uuid::from_u128(3));
        assert!(record.is_running(1_009_999) && record.is_broken_off(1_010_000));
        record.go_on(second, 1_020_000);
        assert!(record.is_running(1_020_000));
        assert!(record.is_for(second) && !record.is_for(first));
        record.broke_off(None);
        assert!(record.is_broken_off(1_020_001) && record.is_for(second));
        record.broke_off(Some("the disk is full".to_owned()));
        assert!(!record.is_broken_off(1_020_001) && !record.is_for(second));
    }

    #[test]
    fn an_operation_is_done_when_every_holder_has_answered() {
        let mut record = record();
        let mut report = BulkReport::default();
        (report.done, report.unchanged) = (5, 2);
        report.waiting = vec!["S/held".parse().unwrap()];
        record.finish(&report);
        assert!(!record.is_done && !record.is_running(1_000_001));
        assert_eq!((record.waiting, record.counts.unwrap().changed), (1, 3));
        report.waiting.clear();
        record.finish(&report);
        assert!(record.is_done);
        assert_eq!(record.waiting, 0);
    }
}
