//! The shortest command that makes a test fail again: the test alone, fewer players and fewer
//! options are tried, and what still fails in the same way is kept, if the test passes there with a
//! seed with which it passed before. A test that needs those before it fails alone with every seed,
//! and would go on failing when the fault is mended.

use std::{sync::Arc, time::Duration};

use profilestore_luau::{Outcome, SpecReport, SpecResult, Tree};

use super::{
    Test,
    play::{Tested, has_tests, play},
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

/// How many seeds are looked at with which the test may pass.
const OTHERS: u64 = 5;

/// A file whose tests take longer than this is not run again for a shorter command.
const LONG: Duration = Duration::from_secs(1);

/// What fails when a file of tests cannot be loaded.
const THE_FILE: &str = "(the file)";

/// How long the tests of these runs may take together. With fewer players a test may wait longer.
const PATIENCE: Duration = Duration::from_secs(20);

fn took(report: &SpecReport) -> Duration {
    report.results.iter().map(|result| result.took).sum()
}

/// What a failure says.
fn said(failure: &SpecResult) -> String {
    let Outcome::Failed(problem) = &failure.outcome else { return String::new() };
    without_numbers(problem)
}

/// The first line of a problem without numbers, which may be others each time. Numbers of lines
/// stay: another place is another problem.
fn without_numbers(problem: &str) -> String {
    let first = problem.lines().next().unwrap_or_default();
    let parts = first.split(':').map(|part| {
        let is_line = !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
        part.chars().filter(|c| is_line || !c.is_ascii_digit()).collect::<String>()
    });
    parts.collect::<Vec<_>>().join(":")
}

/// What a sweep says of a file of which a test fails.
pub(super) struct Replay {
    /// The shortest command that was found by which the first failure comes again.
    pub(super) shortest: String,
    /// The command by which the other failures of the file come again.
    pub(super) whole: String,
    /// Whether the test failed with each seed that was tried after the first one, too.
    pub(super) always: bool,
    /// Whether the test failed when it was run again, or was not run again because it takes long.
    pub(super) fails_again: bool,
}

impl Replay {
    /// None when the file cannot be loaded, with whatever seed.
    pub(super) fn of(test: &Test, tree: &Arc<Tree>, tested: &Tested) -> Option<Self> {
        let mut whole = Conditions::of(test, &tested.file);
        if !has_tests(&tested.report) {
            // With that seed no test is there to be chosen by its name.
            whole.only = None;
        }
        let first = tested.report.failures().next()?;
        let command = again(test, tested, &whole);
        if took(&tested.report) > LONG {
            let shortest = command.clone();
            return Some(Self { shortest, whole: command, always: false, fails_again: true });
        }
        let (name, problem) = (name_of(first), said(first));
        let mut search = Search { tree, test, tested, name, problem, spent: Duration::ZERO };
        let passing = search.passing(&whole);
        let always = passing.is_empty();
        if always && search.name == THE_FILE {
            return None;
        }
        let shortest = search.shortest(whole.clone(), &passing);
        // What is shorter has failed again.
        let fails_again = shortest != whole || search.comes_again(&whole);
        let shortest = again(test, tested, &shortest);
        Some(Self { shortest, whole: command, always, fails_again })
    }
}

/// The search for a shorter command by which one test fails.
struct Search<'a> {
    tree: &'a Arc<Tree>,
    test: &'a Test,
    tested: &'a Tested,
    /// The test's.
    name: String,
    /// What it says when it fails.
    problem: String,
    /// How long the tests of all runs took.
    spent: Duration,
}

impl Search<'_> {
    fn run(&mut self, under: &Conditions, seed: u64) -> Option<SpecReport> {
        // What cannot be run is no shorter command.
        let report = play(self.tree, self.test, &self.tested.file, seed, under).ok()?;
        self.spent += took(&report);
        Some(report)
    }

    /// Whether the test fails in the same way.
    fn fails(&mut self, under: &Conditions, seed: u64) -> bool {
        self.run(under, seed).is_some_and(|report| {
            let mut failures = report.failures();
            failures.any(|failed| name_of(failed) == self.name && said(failed) == self.problem)
        })
    }

    /// Whether the test fails again with its seed, however: what it says may hold an address.
    fn comes_again(&mut self, under: &Conditions) -> bool {
        self.run(under, self.tested.seed).is_some_and(|report| {
            let mut failures = report.failures();
            failures.any(|failed| name_of(failed) == self.name)
        })
    }

    /// Whether the test passes, or nothing goes wrong outside of tests when that is what failed.
    fn passes(&mut self, under: &Conditions, seed: u64) -> bool {
        let Some(report) = self.run(under, seed) else { return false };
        let is_meant = |result: &SpecResult| name_of(result) == self.name;
        let mut passed = report.results.iter().filter(|result| result.outcome == Outcome::Passed);
        !report.failures().any(is_meant)
            && passed.any(|result| !is_test(&self.name) || is_meant(result))
    }

    /// Seeds with which the test passes when all is run that the command asks for: those before the
    /// seed with which it fails, or else some of those after it. None when it fails with each.
    fn passing(&mut self, whole: &Conditions) -> Vec<u64> {
        let failing = self.tested.seed;
        let before = failing.wrapping_sub(self.test.seed).min(OTHERS);
        if before > 0 {
            return (1..=before).map(|n| failing.wrapping_sub(n)).collect();
        }
        let after = (1..=OTHERS).map(|n| failing.wrapping_add(n));
        after.filter(|seed| self.passes(whole, *seed)).collect()
    }

    /// `passing`: seeds with which the test passes under all conditions.
    fn shortest(&mut self, whole: Conditions, passing: &[u64]) -> Conditions {
        let (mut kept, mut tried) = (whole, Vec::new());
        while tried.len() < TRIES && self.spent <= PATIENCE {
            let untried = |candidate: &Conditions| !tried.contains(candidate);
            let candidate = shorter_than(&kept, &self.name).into_iter().find(untried);
            let Some(candidate) = candidate else { break };
            tried.push(candidate.clone());
            if self.fails(&candidate, self.tested.seed)
                && (passing.is_empty() || passing.iter().any(|seed| self.passes(&candidate, *seed)))
            {
                kept = candidate;
            }
        }
        kept
    }
}

/// What goes wrong outside of tests cannot be chosen by its name.
fn is_test(name: &str) -> bool {
    !name.rsplit(" > ").next().unwrap_or_default().starts_with('(')
}

/// What leaves one thing out, the most first.
fn shorter_than(kept: &Conditions, name: &str) -> Vec<Conditions> {
    let mut list = Vec::new();
    if is_test(name) {
        // The test alone, then the blocks around it, but not the whole file by its name.
        let blocks = name.rmatch_indices(" > ").map(|(at, _)| &name[..at]);
        let blocks = blocks.filter(|block| block.contains(" > "));
        let fewer = std::iter::once(name).chain(blocks).filter(|part| {
            let only = kept.only.as_deref();
            only.is_none_or(|only| *part != only && part.contains(only))
        });
        list.extend(fewer.map(|part| Conditions { only: Some(part.to_owned()), ..kept.clone() }));
    }
    if kept.play {
        // Players come to a game whose scripts run.
        list.push(Conditions { play: false, players: None, ..kept.clone() });
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

/// The command that runs a failure again.
fn again(test: &Test, tested: &Tested, under: &Conditions) -> String {
    let only = under.only.as_ref().unwrap_or(&tested.file);
    let mut words = vec![
        "profilestore".to_owned(),
        "test".to_owned(),
        quoted(&test.path.display().to_string()),
    ];
    words.extend(["--only".to_owned(), quoted(only), format!("--seed {}", tested.seed)]);
    if under.play {
        words.push("--play".to_owned());
    }
    if let Some(players) = &under.players {
        words.push(format!("--players {}", quoted(players)));
    }
    for host in &test.allow_http {
        words.push(format!("--allow-http {}", quoted(host)));
    }
    for (option, value, usual) in [
        ("--latency", under.latency, 0.0),
        ("--errors", under.errors, 0.0),
        ("--limit", test.limit.as_secs_f64(), 600.0),
    ] {
        if value.to_bits() != f64::to_bits(usual) {
            words.push(format!("{option} {value}"));
        }
    }
    words.join(" ")
}

/// A word as shells take it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-@+=:,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::{Conditions, fewer, quoted, shorter_than, without_numbers};

    #[test]
    fn words_are_quoted_where_shells_need_it() {
        assert_eq!(quoted("src/a.spec.luau"), "src/a.spec.luau");
        assert_eq!(quoted("1:join@0s;2:join@1s"), "'1:join@0s;2:join@1s'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }

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
    fn the_test_alone_is_tried_before_the_blocks_around_it() {
        let kept = Conditions { only: None, play: false, players: None, latency: 0.0, errors: 0.0 };
        let tried = |only: Option<&str>| {
            let kept = Conditions { only: only.map(str::to_owned), ..kept.clone() };
            let shorter = shorter_than(&kept, "Data > old > deep > loads").into_iter();
            shorter.filter_map(|shorter| shorter.only).collect::<Vec<_>>()
        };
        let alone = "Data > old > deep > loads";
        assert_eq!(tried(None), [alone, "Data > old > deep", "Data > old"]);
        assert_eq!(tried(Some("Data > old")), [alone, "Data > old > deep"]);
        assert_eq!(tried(Some(alone)), [""; 0]);
    }

    #[test]
    fn another_line_is_another_problem_and_another_number_is_not() {
        let line_4 = without_numbers("a.luau:4: got 12\nb.luau:1");
        assert_eq!(line_4, without_numbers("a.luau:4: got 3"));
        assert_ne!(line_4, without_numbers("a.luau:5: got 12"));
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
