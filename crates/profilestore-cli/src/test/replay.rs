//! The shortest command that makes a test fail again: the test alone, fewer players and fewer
//! options are tried, and what still fails is kept.

use std::{sync::Arc, time::Duration};

use profilestore_luau::{Outcome, SpecReport, SpecResult, Tree};

use super::{
    Test,
    play::{Tested, play},
    report::name_of,
};

/// Under what a file's tests are run, beside the seed.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Conditions {
    /// Only tests that have this in their names.
    pub(super) only: Option<String>,
    /// Whether the game's scripts run.
    pub(super) play: bool,
    /// Who comes and goes.
    pub(super) players: Option<String>,
    /// In milliseconds.
    pub(super) latency: f64,
    /// Of a hundred calls.
    pub(super) errors: f64,
}

impl Conditions {
    /// Those that the command asks for.
    pub(super) fn of(test: &Test, file: &str) -> Self {
        Self {
            // All of a file's tests when it is the file that is meant.
            only: test.only.clone().filter(|only| !file.contains(only.as_str())),
            play: test.play,
            players: test.players.clone(),
            latency: test.latency,
            errors: test.errors,
        }
    }
}

/// How many runs are tried for a shorter command.
const TRIES: usize = 25;

/// A file whose tests take longer than this is not run again for a shorter command.
const LONG: Duration = Duration::from_secs(1);

/// How long the tests of these runs may take together. With fewer players a test may wait longer.
const PATIENCE: Duration = Duration::from_secs(20);

fn took(report: &SpecReport) -> Duration {
    report.results.iter().map(|result| result.took).sum()
}

/// What a failure says in its first line, without numbers, which may be others each time.
fn said(failure: &SpecResult) -> String {
    let Outcome::Failed(problem) = &failure.outcome else { return String::new() };
    let first = problem.lines().next().unwrap_or_default();
    first.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// The fewest conditions found under which the first failure of a file's tests comes again.
pub(super) fn shortest(tree: &Arc<Tree>, test: &Test, tested: &Tested) -> Conditions {
    let mut kept = Conditions::of(test, &tested.file);
    let first = tested.report.failures().next();
    let Some(first) = first.filter(|_| took(&tested.report) <= LONG) else { return kept };
    let (name, problem) = (name_of(first), said(first));
    let (mut tried, mut spent) = (Vec::new(), Duration::ZERO);
    while tried.len() < TRIES && spent <= PATIENCE {
        let untried = |candidate: &Conditions| !tried.contains(candidate);
        let Some(candidate) = shorter_than(&kept, &name).into_iter().find(untried) else { break };
        tried.push(candidate.clone());
        // What cannot be run is no shorter command.
        let report = play(tree, test, &tested.file, tested.seed, &candidate);
        let Ok(report) = report else { continue };
        spent += took(&report);
        if report.failures().any(|failure| name_of(failure) == name && said(failure) == problem) {
            kept = candidate;
        }
    }
    kept
}

/// What leaves one thing out, the most first.
fn shorter_than(kept: &Conditions, name: &str) -> Vec<Conditions> {
    let mut list = Vec::new();
    // What goes wrong outside of tests cannot be chosen.
    let is_test = !name.rsplit(" > ").next().unwrap_or_default().starts_with('(');
    if is_test && kept.only.as_deref() != Some(name) {
        list.push(Conditions { only: Some(name.to_owned()), ..kept.clone() });
    }
    if kept.play {
        list.push(Conditions { play: false, ..kept.clone() });
    }
    if kept.errors > 0.0 {
        list.push(Conditions { errors: 0.0, ..kept.clone() });
    }
    if kept.latency > 0.0 {
        list.push(Conditions { latency: 0.0, ..kept.clone() });
    }
    if let Some(plan) = &kept.players {
        list.push(Conditions { players: None, ..kept.clone() });
        let fewer = fewer(plan).into_iter();
        list.extend(fewer.map(|plan| Conditions { players: Some(plan), ..kept.clone() }));
    }
    list
}

/// A plan of players without one of its parts, or without one action of a part.
fn fewer(plan: &str) -> Vec<String> {
    let parts: Vec<&str> = plan.split(';').map(str::trim).filter(|part| !part.is_empty()).collect();
    let mut list = Vec::new();
    for at in 0..parts.len() {
        let (before, after) = (&parts[..at], &parts[at + 1..]);
        if parts.len() > 1 {
            list.push([before, after].concat().join(";"));
        }
        let Some((who, actions)) = parts[at].split_once(':') else { continue };
        let actions: Vec<&str> = actions.split(',').collect();
        for gone in (0..actions.len()).filter(|_| actions.len() > 1) {
            let left = [&actions[..gone], &actions[gone + 1..]].concat().join(",");
            let part = format!("{who}:{left}");
            list.push([before, &[part.as_str()], after].concat().join(";"));
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::{Conditions, fewer, shorter_than};

    #[test]
    fn a_plan_loses_one_part_or_one_action_at_a_time() {
        assert_eq!(fewer("5"), [""; 0]);
        assert_eq!(fewer("1:join@0s"), [""; 0]);
        assert_eq!(
            fewer("1:join@0s,leave@9s; 2:join@1s"),
            ["2:join@1s", "1:leave@9s;2:join@1s", "1:join@0s;2:join@1s", "1:join@0s,leave@9s"]
        );
    }

    #[test]
    fn a_failure_outside_of_tests_is_not_chosen_by_its_name() {
        let kept = Conditions { only: None, play: false, players: None, latency: 0.0, errors: 0.0 };
        for (name, candidates) in
            [("Data > (afterAll)", 0), ("(outside of the tests)", 0), ("Data > saves", 1)]
        {
            assert_eq!(shorter_than(&kept, name).len(), candidates, "{name}");
        }
    }
}
