//! What came of a file of tests. The machine reports to a [`Collector`] while they run; it takes
//! the scripts' lines as well, so that each test's are known.

mod kept;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use self::kept::Kept;
use crate::{
    output::{Line, Output},
    vm::{Failed, Limits, coverage::Lines},
};

/// How a file's tests are run. See [`GameBuilder::test`](crate::GameBuilder::test).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpecOptions {
    /// How long each test may take, in the game's time. 600 s.
    pub limit: Duration,
    /// Only tests whose names have this in them. All without it.
    pub only: Option<String>,
    /// Whether the game's scripts run beside the tests. They do not.
    pub play: bool,
    /// Whether lines that run are counted. They are not; counting takes time.
    pub coverage: bool,
}

impl Default for SpecOptions {
    fn default() -> Self {
        Self { limit: Duration::from_secs(600), only: None, play: false, coverage: false }
    }
}

/// What came of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It held.
    Passed,
    /// It did not: why, with places.
    Failed(String),
    /// It was not run.
    Skipped,
}

/// A test.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpecResult {
    /// The file's name, those of the blocks around it, its own.
    pub path: Vec<String>,
    /// What came of it.
    pub outcome: Outcome,
    /// What was printed meanwhile, and later errors of its threads. Of very many lines the last
    /// ones.
    pub lines: Vec<(Line, String)>,
    /// How long it took, really.
    pub took: Duration,
    /// The last calls that [`GameBuilder::errors`](crate::GameBuilder::errors) made fail while it
    /// ran, or between the test before and it: at most 5. Also those that were made again, and then
    /// succeeded.
    pub failed_calls: Vec<String>,
}

/// How many lines a test has at least before later errors of its threads are not kept.
const LATE_LINES: usize = 10_000;

/// How many of the calls that were made to fail are kept.
const FAILED_CALLS: usize = 5;

fn note_failed(calls: &mut Vec<String>, call: String) {
    calls.push(call);
    let more = calls.len().saturating_sub(FAILED_CALLS);
    calls.drain(..more);
}

impl SpecResult {
    /// A thread of this test ended with an error after the test, where these calls had failed.
    fn fail_late(&mut self, text: &str, failed_calls: &[String]) {
        let text = format!("after this test had ended, in a thread of it: {text}");
        if self.lines.len() < LATE_LINES {
            self.lines.push((Line::Error, text.clone()));
        }
        if !matches!(self.outcome, Outcome::Failed(_)) {
            self.outcome = Outcome::Failed(text);
            for call in failed_calls {
                note_failed(&mut self.failed_calls, call.clone());
            }
        }
    }
}

/// The tests of a file, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpecReport {
    /// What came of each. What went wrong outside of them is a test of its own.
    pub results: Vec<SpecResult>,
    /// With [`SpecOptions::coverage`], how often each line ran that can, by the file and the line's
    /// number: of the game's own scripts and modules that run on servers, without its tests and its
    /// packages. A file that was never loaded has 0 for each.
    pub coverage: BTreeMap<String, BTreeMap<u32, u64>>,
}

impl SpecReport {
    /// The report on a file whose game could not be played, with which
    /// [`GameBuilder::test`](crate::GameBuilder::test) failed: one failure that says why.
    #[must_use]
    pub fn without_game(failed: &Failed) -> Self {
        let (path, outcome) = (vec!["(the game)".to_owned()], Outcome::Failed(failed.to_string()));
        let (lines, took, failed_calls) = (Vec::new(), Duration::ZERO, Vec::new());
        let result = SpecResult { path, outcome, lines, took, failed_calls };
        Self { results: vec![result], coverage: BTreeMap::new() }
    }

    /// The tests that failed.
    pub fn failures(&self) -> impl Iterator<Item = &SpecResult> {
        self.results.iter().filter(|result| matches!(result.outcome, Outcome::Failed(_)))
    }
}

/// Takes what the tests of a file report.
pub(crate) struct Collector {
    only: Option<String>,
    /// Whether lines that run are counted.
    pub(crate) coverage: bool,
    /// How long a test for which no time passes may go on, and what the tests left behind, really.
    patience: Duration,
    /// Whether calls are made to fail.
    errors: bool,
    inner: Mutex<Inner>,
    done: Notify,
}

/// How many steps of [`Limits::step`] a test or a game for which no time passes may go on for, and
/// what the tests left behind: a minute. A game has as many for each of its servers.
pub(crate) const STEPS: u32 = 6;

/// How far the tests are: how many are over, and whether one is under way.
pub(crate) type Place = (usize, bool);

#[derive(Default)]
struct Inner {
    results: Vec<SpecResult>,
    current: Option<Current>,
    /// Lines outside of tests.
    loose: Kept,
    lines: Lines,
    /// Of the first server: during which test the thread that runs was started. Tests count from 1,
    /// in the order of their results; 0 is none.
    test: Arc<AtomicUsize>,
    /// Dropped when what the tests left behind has ended in time.
    afterwards: Option<Sender<()>>,
    /// It did not.
    given_up: bool,
    /// Scripts were stopped while the game closed.
    closing_stopped: bool,
    /// The last calls that were made to fail since the last test that has ended.
    failed_calls: Vec<String>,
}

struct Current {
    path: Vec<String>,
    began: Instant,
    lines: Kept,
}

impl Collector {
    pub(crate) fn new(options: &SpecOptions, limits: Limits, errors: bool) -> Self {
        let SpecOptions { only, coverage, .. } = options.clone();
        let patience = limits.step.saturating_mul(STEPS);
        Self { only, coverage, patience, errors, inner: Mutex::default(), done: Notify::new() }
    }

    /// What was counted on a server.
    pub(crate) fn covered(&self, counted: Lines) {
        let lines = &mut self.inner.lock().lines;
        for (file, counted) in counted {
            let lines = lines.entry(file).or_default();
            for (line, hits) in counted {
                *lines.entry(line).or_default() += hits;
            }
        }
    }

    /// A call was made to fail. Without errors that were asked for, it failed for another reason.
    pub(crate) fn call_failed(&self, call: String) {
        if self.errors {
            note_failed(&mut self.inner.lock().failed_calls, call);
        }
    }

    pub(crate) fn is_wanted(&self, path: &[String]) -> bool {
        self.only.as_ref().is_none_or(|part| path.join(" > ").contains(part))
    }

    /// Learns where the first server keeps during which test the thread that runs was started.
    pub(crate) fn follow(&self, test: Arc<AtomicUsize>) {
        self.inner.lock().test = test;
    }

    pub(crate) fn began(&self, path: Vec<String>) {
        let mut inner = self.inner.lock();
        inner.test.store(inner.results.len() + 1, Ordering::Relaxed);
        inner.current = Some(Current { path, began: now(), lines: Kept::default() });
    }

    /// A thread that ended with an error meanwhile makes the test fail, too. `stopped`: the test's
    /// own thread ended so, if there is such an error, which then says more than the problem.
    pub(crate) fn ended(&self, problem: Option<String>, stopped: bool) {
        let mut inner = self.inner.lock();
        inner.test.store(0, Ordering::Relaxed);
        let Some(Current { path, began, lines }) = inner.current.take() else { return };
        let last = if stopped { lines.errors().next_back().map(str::to_owned) } else { None };
        let problem = last.or(problem).or_else(|| lines.errors().next().map(str::to_owned));
        let outcome = problem.map_or(Outcome::Passed, Outcome::Failed);
        let (took, lines) = (now().duration_since(began), lines.into_lines());
        let failed_calls = std::mem::take(&mut inner.failed_calls);
        inner.results.push(SpecResult { path, outcome, lines, took, failed_calls });
    }

    pub(crate) fn skipped(&self, path: Vec<String>) {
        let (outcome, lines, took) = (Outcome::Skipped, Vec::new(), Duration::ZERO);
        let failed_calls = Vec::new();
        let result = SpecResult { path, outcome, lines, took, failed_calls };
        self.inner.lock().results.push(result);
    }

    /// The last test is over, and what the tests left behind goes on. How long it may do so in the
    /// game's time bounds nothing when that stands still: it does while a thread calls what answers
    /// at once, again and again. So this is bounded by the computer's time, too.
    pub(crate) fn goes_on(self: &Arc<Self>) {
        let (ended, ends) = mpsc::channel();
        self.inner.lock().afterwards = Some(ended);
        let (me, patience) = (Arc::downgrade(self), self.patience);
        let watch = thread::Builder::new().name("profilestore-tests".into());
        // Without the thread, the game's time alone bounds it.
        let _ = watch.spawn(move || {
            if ends.recv_timeout(patience) == Err(RecvTimeoutError::Timeout)
                && let Some(me) = me.upgrade()
            {
                me.give_up();
            }
        });
    }

    fn give_up(&self) {
        {
            let mut inner = self.inner.lock();
            if inner.afterwards.take().is_none() {
                return;
            }
            inner.given_up = true;
        }
        self.done.notify_one();
    }

    pub(crate) fn all_ended(&self) {
        self.inner.lock().afterwards = None;
        self.done.notify_one();
    }

    /// Waits until all tests have ended.
    pub(crate) async fn done(&self) {
        self.done.notified().await;
    }

    /// Whether what the tests left behind went on for too long: it is not waited for any more.
    pub(crate) fn has_given_up(&self) -> bool {
        self.inner.lock().given_up
    }

    pub(crate) fn place(&self) -> Place {
        let inner = self.inner.lock();
        (inner.results.len(), inner.current.is_some())
    }

    /// Whether the last test is over, and what the tests left behind goes on.
    pub(crate) fn is_afterwards(&self) -> bool {
        self.inner.lock().afterwards.is_some()
    }

    /// Why a test is stopped for which no time passes.
    pub(crate) fn stood_still(&self) -> String {
        format!(
            "the test was stopped: it had run for {:?}, and no time had passed in the game. A loop \
             of it, or one that an earlier test left behind, makes calls that are answered at \
             once: let such a loop wait with task.wait between its calls, or end it",
            self.patience
        )
    }

    /// No time passed while the game closed, so its scripts were stopped.
    pub(crate) fn stop_closing(&self) {
        self.inner.lock().closing_stopped = true;
    }

    /// What came of all, once the game is over and these profiles could not be saved.
    pub(crate) fn report(&self, not_saved: &[String]) -> SpecReport {
        let inner = std::mem::take(&mut *self.inner.lock());
        let Inner { mut results, loose, lines, given_up, closing_stopped, failed_calls, .. } =
            inner;
        let mut outside =
            |name: &str, problem: Option<String>, lines: Vec<(Line, String)>, took| {
                if let Some(problem) = problem {
                    let (path, outcome) = (vec![name.to_owned()], Outcome::Failed(problem));
                    let failed_calls = failed_calls.clone();
                    results.push(SpecResult { path, outcome, lines, took, failed_calls });
                }
            };
        let problem = loose.errors().next().map(str::to_owned);
        outside("(outside of the tests)", problem, loose.into_lines(), Duration::ZERO);
        let left = given_up.then(|| {
            format!(
                "threads that tests left behind still ran {:?} after the last test, and were \
                 stopped: a test ends what it starts, such as a loop that never waits for a time",
                self.patience
            )
        });
        // A run again takes as long.
        outside("(what the tests left behind)", left, Vec::new(), self.patience);
        let closing = closing_stopped.then(|| {
            format!(
                "the game had closed for {:?}, and no time had passed in it, so its scripts were \
                 stopped: a function of BindToClose, or another loop, makes calls that are \
                 answered at once and never waits for a time",
                self.patience
            )
        });
        outside("(the end of the game)", closing, Vec::new(), self.patience);
        let not_saved = (!not_saved.is_empty()).then(|| not_saved.join("\n"));
        outside("(what could not be saved)", not_saved, Vec::new(), Duration::ZERO);
        SpecReport { results, coverage: lines }
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collector").finish_non_exhaustive()
    }
}

impl Output for Collector {
    fn line(&self, server: usize, kind: Line, text: &str) {
        let mut inner = self.inner.lock();
        let Inner { results, current, loose, test, failed_calls, .. } = &mut *inner;
        if kind == Line::Error && server == 1 {
            let started = test.load(Ordering::Relaxed);
            if let Some(over) = started.checked_sub(1).and_then(|at| results.get_mut(at)) {
                over.fail_late(text, failed_calls);
                return;
            }
        }
        let lines = current.as_mut().map_or(loose, |current| &mut current.lines);
        lines.push(kind, text.to_owned());
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a test took on this computer")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It took no time, so that a sweep ran the file again and again for a shorter command.
    #[test]
    fn what_the_tests_left_behind_took_as_long_as_it_was_waited_for() {
        let limits = Limits::default();
        let collector = Arc::new(Collector::new(&SpecOptions::default(), limits, false));
        collector.goes_on();
        collector.give_up();
        let results = collector.report(&[]).results;
        assert_eq!(results.len(), 1, "{results:?}");
        assert_eq!(results[0].path, ["(what the tests left behind)"]);
        assert_eq!(results[0].took, limits.step * STEPS);
    }
}
