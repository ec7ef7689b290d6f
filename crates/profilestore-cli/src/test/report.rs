//! What came of tests, for people and for programs.

use profilestore_luau::{Line, Outcome, SpecResult};
use serde_json::json;

use super::{Test, play::Tested, replay::Replay};
use crate::output::{Failure, count, json_line, out, text as line};

/// A test's name, with those of the blocks around it.
pub(super) fn name_of(result: &SpecResult) -> String {
    result.path.join(" > ")
}

pub(super) fn text(test: &Test, results: &[Tested]) -> Result<(), Failure> {
    let mut out = out();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for tested in results {
        let word = if tested.is_failure() { "FAIL" } else { "ok  " };
        line(&mut out, format_args!("{word} {}", tested.file))?;
        // What goes wrong outside of tests comes first, such as a script with a syntax error: tests
        // may fail because of it.
        let results = tested.report.results.iter();
        let (outside, of_tests): (Vec<_>, Vec<_>) =
            results.partition(|result| result.path == ["(outside of the tests)"]);
        for result in outside.into_iter().chain(of_tests) {
            match &result.outcome {
                Outcome::Passed => passed += 1,
                Outcome::Failed(problem) => {
                    failed += 1;
                    failure(&mut out, result, problem)?;
                }
                _ => skipped += 1,
            }
        }
        if !test.play && tested.report.failures().any(still_waits) {
            let hint = "does it wait for the game's scripts? They run only with --play";
            line(&mut out, format_args!("  {hint}"))?;
        }
        if let Some(replay) = &tested.replay {
            let number = tested.seed.wrapping_sub(test.seed).saturating_add(1);
            let place = format!("seed {} ({number} of {})", tested.seed, test.seeds);
            let next = match replay {
                Replay { fails_again: false, .. } => ", but did not when it was run once more",
                Replay { always: true, .. } => ", and with those after it",
                _ => "",
            };
            line(&mut out, format_args!("  fails with {place}{next}; again:"))?;
            line(&mut out, format_args!("    {}", replay.shortest))?;
        }
    }
    let files = count(results.len() as u64, "file", "files");
    let mut parts = vec![format!("{passed} passed"), format!("{failed} failed")];
    if skipped > 0 {
        parts.push(format!("{skipped} skipped"));
    }
    if test.seeds > 1 {
        // A file of which a test fails is not run with the seeds after it.
        let most = if failed > 0 { "up to " } else { "" };
        parts.push(format!("{most}{} seeds", test.seeds));
    }
    line(&mut out, format_args!("{files}: {}", parts.join(", ")))
}

/// Whether the time of a test was over.
fn still_waits(failure: &SpecResult) -> bool {
    let late = "the test still waits after ";
    matches!(&failure.outcome, Outcome::Failed(problem) if problem.starts_with(late))
}

fn failure(
    out: &mut crate::output::Out,
    result: &SpecResult,
    problem: &str,
) -> Result<(), Failure> {
    line(out, format_args!("  failed: {}", name_of(result)))?;
    for part in problem.lines() {
        line(out, format_args!("    {}", without_tabs(part)))?;
    }
    for (kind, text) in printed(result) {
        let mut lines = text.lines();
        let first = without_tabs(lines.next().unwrap_or_default());
        line(out, format_args!("    {}: {first}", word_of(kind)))?;
        for part in lines {
            line(out, format_args!("      {}", without_tabs(part)))?;
        }
    }
    for call in failed_calls(result) {
        line(out, format_args!("    made to fail: {call}"))?;
    }
    Ok(())
}

/// The last calls that --errors made fail while a test ran that failed.
pub(super) fn failed_calls(result: &SpecResult) -> &[String] {
    match result.outcome {
        Outcome::Failed(_) => result.failed_calls.as_slice(),
        _ => &[],
    }
}

/// What was printed while a test ran that failed, but for the problem itself.
pub(super) fn printed(result: &SpecResult) -> Vec<(Line, &str)> {
    let Outcome::Failed(problem) = &result.outcome else { return Vec::new() };
    let others = result.lines.iter().filter(|(kind, text)| *kind != Line::Error || text != problem);
    others.map(|(kind, text)| (*kind, text.as_str())).collect()
}

/// How people are told what kind of line it is.
pub(super) fn word_of(kind: Line) -> &'static str {
    match kind {
        Line::Print => "printed",
        Line::Warn => "warned",
        _ => "error",
    }
}

/// How programs are told: as by `run --json`.
fn name_of_kind(kind: Line) -> &'static str {
    match kind {
        Line::Print => "print",
        Line::Warn => "warning",
        _ => "error",
    }
}

/// A line of a traceback begins with a tab, which would be shown as an escape.
fn without_tabs(text: &str) -> String {
    text.replace('\t', "    ")
}

pub(super) fn json(results: &[Tested]) -> Result<(), Failure> {
    let mut out = out();
    for tested in results {
        for result in &tested.report.results {
            let (outcome, problem) = match &result.outcome {
                Outcome::Passed => ("passed", None),
                Outcome::Failed(problem) => ("failed", Some(problem)),
                _ => ("skipped", None),
            };
            let again = problem.and_then(|_| tested.again(result));
            let output: Vec<_> = printed(result)
                .into_iter()
                .map(|(kind, text)| json!({ "kind": name_of_kind(kind), "text": text }))
                .collect();
            let line = json!({
                "file": tested.file,
                "name": name_of(result),
                "outcome": outcome,
                "problem": problem,
                "output": output,
                "failed_calls": failed_calls(result),
                "again": again,
                "seed": tested.seed,
                "took_ms": result.took.as_secs_f64() * 1000.0,
            });
            json_line(&mut out, &line)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::without_tabs;

    #[test]
    fn the_lines_of_a_traceback_are_indented_with_spaces() {
        assert_eq!(without_tabs("\ta.spec.luau:1"), "    a.spec.luau:1");
    }
}
