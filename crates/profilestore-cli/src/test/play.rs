//! Plays the files of tests, several at once, with each seed.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use profilestore_luau::{
    Game, Outcome, Plan, PlanError, SpecOptions, SpecReport, SpecResult, Time, Tree,
};

use super::{
    Test, coverage, junit,
    replay::{Conditions, Replay},
    report,
};
use crate::{
    output::{Failure, Status},
    run::game::{reaching, seconds, tree_of},
};

/// What came of a file: its tests with the first seed, or with the first that makes one fail.
pub(super) struct Tested {
    pub(super) file: String,
    pub(super) seed: u64,
    pub(super) report: SpecReport,
    /// Whether --only chooses the file or a test that it was found to have, with whatever seed.
    chosen: bool,
    /// Of a sweep in which a test failed.
    pub(super) replay: Option<Replay>,
}

impl Tested {
    pub(super) fn is_failure(&self) -> bool {
        self.chosen && self.problem().is_some()
    }

    /// Its first failure.
    fn problem(&self) -> Option<&SpecResult> {
        self.report.failures().next()
    }

    /// The command that makes one of its failures happen again, after a sweep.
    pub(super) fn again(&self, failure: &SpecResult) -> Option<&str> {
        let replay = self.replay.as_ref()?;
        let first = self.report.failures().next()?;
        let is_first = std::ptr::eq(first, failure);
        Some(if is_first { replay.shortest.as_str() } else { replay.whole.as_str() })
    }
}

pub(super) fn test(test: &Test, json: bool) -> Result<Status, Failure> {
    for file in [&test.junit, &test.lcov].into_iter().flatten() {
        remove_old(file);
    }
    let tree = tree_of(&test.path)?;
    let jobs = Jobs::of(test, &tree)?;
    let workers = thread::available_parallelism().map_or(1, usize::from).min(jobs.files.len());
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| jobs.work());
        }
    });
    let mut results = jobs.results()?;
    if test.only.is_none() {
        for tested in results.iter().filter(|tested| tested.report.results.is_empty()) {
            let _ = writeln!(
                io::stderr(),
                "warning: {}: there is no test in it; does it return its function?",
                tested.file
            );
        }
    }
    if let Some(only) = &test.only {
        for tested in results.iter().filter(|tested| !tested.chosen) {
            leave_out(tested, only);
        }
    }
    results.retain(|tested| tested.chosen && !tested.report.results.is_empty());
    if results.is_empty() {
        return Err(Failure::Usage(match &test.only {
            Some(only) => format!("no test has `{only}` in its file's path or its name"),
            None => {
                "no test was run: a test is an `it` in the function that a file NAME.spec.luau or \
                     NAME.test.luau returns"
                    .to_owned()
            }
        }));
    }
    if test.seeds > 1 {
        for tested in results.iter_mut().filter(|tested| tested.is_failure()) {
            tested.replay = Replay::of(test, &tree, tested);
        }
    }
    let lines = coverage::of(&results);
    if json {
        report::json(&results)?;
    } else {
        report::text(test, &results)?;
    }
    if test.coverage {
        coverage::print(&lines, json)?;
    }
    // Behind what is printed: a file that cannot be written hides no result.
    if let Some(file) = &test.junit {
        write(file, junit::document(&results))?;
    }
    if let Some(file) = &test.lcov {
        write(file, coverage::lcov(&lines))?;
    }
    Ok(if results.iter().any(Tested::is_failure) { Status::Problems } else { Status::Fine })
}

/// Tells of a file that --only does not choose, as far as is known, and that has a problem: it may
/// have kept a test of that name from being found.
fn leave_out(tested: &Tested, only: &str) {
    let Some(problem) = tested.problem() else { return };
    let Outcome::Failed(text) = &problem.outcome else { return };
    let _ = writeln!(
        io::stderr(),
        "warning: {}: left out, since its path does not have `{only}`, nor does a test that was \
         found in it: {}: {}",
        tested.file,
        report::name_of(problem),
        text.lines().next().unwrap_or_default()
    );
}

/// Removes what an earlier run wrote: it would pass for the results of this one when this one ends
/// before it has any. Nothing but a plain file is removed, not a link either.
fn remove_old(file: &Path) {
    if fs::symlink_metadata(file).is_ok_and(|there| there.is_file()) {
        // What cannot be removed may still be written over; if not, that is told then.
        let _ = fs::remove_file(file);
    }
}

/// Writes a file, in a folder that is made when it is not there.
fn write(file: &Path, text: String) -> Result<(), Failure> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| fs::write(file, text))
        .map_err(|error| Failure::Usage(format!("{} cannot be written: {error}", file.display())))
}

/// Who comes and goes, by a plan's text, on the one server of a file.
fn plan_of(text: &str) -> Result<Plan, Failure> {
    let wrong = |error: PlanError| Failure::Usage(format!("--players: {error}"));
    let plan = text.parse::<Plan>().map_err(wrong)?;
    plan.check(1).map_err(wrong)?;
    Ok(plan)
}

/// Runs a file's tests once. A game that cannot be played is a failure of the file.
pub(super) fn play(
    tree: &Arc<Tree>,
    test: &Test,
    file: &str,
    seed: u64,
    under: &Conditions,
) -> Result<SpecReport, Failure> {
    let mut options = SpecOptions::default();
    options.limit = test.limit;
    options.only.clone_from(&under.only);
    options.play = under.play;
    options.coverage = test.counts();
    let mut game = Game::builder().time(Time::Virtual).seed(seed).tree(tree.clone());
    game = game.latency(seconds("--latency", under.latency / 1000.0)?);
    game = reaching(game.errors(under.errors), &test.allow_http)?;
    if let Some(plan) = &under.players {
        game = game.players(plan_of(plan)?);
    }
    Ok(game.test(file, &options).unwrap_or_else(|failed| SpecReport::without_game(&failed)))
}

/// What is to be run: each file with the first seed, then each with the second, and so on. A file
/// of which a test failed is not run with later seeds.
struct Jobs<'a> {
    tree: Arc<Tree>,
    files: Vec<(String, Conditions)>,
    test: &'a Test,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    next: u64,
    /// By the file's place in the list.
    results: BTreeMap<usize, Tested>,
    broken: Option<Failure>,
}

impl Inner {
    /// Keeps the first failure of a file, or else what came of it first.
    fn add(&mut self, file: usize, mut tested: Tested) {
        if let Some(known) = self.results.get_mut(&file) {
            let chosen = known.chosen || tested.chosen;
            (known.chosen, tested.chosen) = (chosen, chosen);
            let comes_first = known.problem().is_none() || tested.seed < known.seed;
            if tested.problem().is_none() || !comes_first {
                return;
            }
        }
        self.results.insert(file, tested);
    }
}

/// What goes wrong around the tests of a block. Those that were to run are in the report besides.
const AROUND: [&str; 3] = ["(its description)", "(beforeAll)", "(afterAll)"];

/// Whether a test was found that was to run. What goes wrong with a file as a whole has no block
/// around it; a description that fails hides the tests of its block, and the functions around it
/// run for them.
pub(super) fn has_tests(report: &SpecReport) -> bool {
    report.results.iter().any(|result| {
        result.path.len() > 1
            && result.path.last().is_none_or(|name| !AROUND.contains(&name.as_str()))
    })
}

impl<'a> Jobs<'a> {
    fn of(test: &'a Test, tree: &Arc<Tree>) -> Result<Self, Failure> {
        let specs = tree.specs();
        if specs.is_empty() {
            return Err(Failure::Usage(format!(
                "there are no tests in {}: a test is a file NAME.spec.luau or NAME.test.luau in \
                 the game's tree that returns a function with describe and it in it",
                test.path.display()
            )));
        }
        let files = specs
            .into_iter()
            .map(|file| {
                let under = Conditions::of(test, &file);
                (file, under)
            })
            .collect();
        if let Some(plan) = &test.players {
            plan_of(plan)?;
            if !test.play {
                return Err(Failure::Usage(
                    "--players lets players come to the game's scripts, which run only with \
                     --play: add --play, or let players join in a test with simulate.join"
                        .into(),
                ));
            }
        }
        if !(0.0..=100.0).contains(&test.errors) {
            return Err(Failure::Usage(format!(
                "--errors is a percentage: given=`{}`",
                test.errors
            )));
        }
        seconds("--latency", test.latency / 1000.0)?;
        reaching(Game::builder(), &test.allow_http)?;
        Ok(Self { tree: tree.clone(), files, test, inner: Mutex::default() })
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next file and seed.
    fn next(&self) -> Option<(usize, u64)> {
        let mut inner = self.inner();
        let files = self.files.len() as u64;
        loop {
            if inner.broken.is_some() || inner.next == files * self.test.seeds {
                return None;
            }
            let (file, seed) = (inner.next % files, inner.next / files);
            inner.next += 1;
            let file = usize::try_from(file).ok()?;
            if !inner.results.get(&file).is_some_and(Tested::is_failure) {
                return Some((file, self.test.seed.wrapping_add(seed)));
            }
        }
    }

    fn work(&self) {
        while let Some((file, seed)) = self.next() {
            let played = self.play(file, seed);
            let mut inner = self.inner();
            match played {
                Ok(tested) => inner.add(file, tested),
                Err(failure) => inner.broken = Some(failure),
            }
        }
    }

    fn play(&self, file: usize, seed: u64) -> Result<Tested, Failure> {
        let (file, under) = &self.files[file];
        let report = play(&self.tree, self.test, file, seed, under)?;
        // Without a text that tests must have, the whole file is meant.
        let chosen = under.only.is_none() || has_tests(&report);
        Ok(Tested { file: file.clone(), seed, report, chosen, replay: None })
    }

    fn results(self) -> Result<Vec<Tested>, Failure> {
        let inner = self.inner.into_inner().unwrap_or_else(PoisonError::into_inner);
        match inner.broken {
            Some(failure) => Err(failure),
            None => Ok(inner.results.into_values().collect()),
        }
    }
}
