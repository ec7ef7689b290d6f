//! What came of tests, for people and for programs.

use std::sync::Arc;

use profilestore_luau::{Line, Outcome, SpecResult, Tree};
use serde_json::json;

use super::{
    Test,
    play::Tested,
    replay::{self, Conditions},
};
use crate::output::{Failure, count, json_line, out, text as line};

/// A test's name, with those of the blocks around it.
pub(super) fn name_of(result: &SpecResult) -> String {
    result.path.join(" > ")
}

pub(super) fn text(test: &Test, tree: &Arc<Tree>, results: &[Tested]) -> Result<(), Failure> {
    let mut out = out();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for tested in results {
        let word = if tested.is_failure() { "FAIL" } else { "ok  " };
        line(&mut out, format_args!("{word} {}", tested.file))?;
        for result in &tested.report.results {
            match &result.outcome {
                Outcome::Passed => passed += 1,
                Outcome::Failed(problem) => {
                    failed += 1;
                    failure(&mut out, result, problem)?;
                }
                _ => skipped += 1,
            }
        }
        if tested.is_failure() && test.seeds > 1 {
            line(&mut out, format_args!("  fails with seed {}; again:", tested.seed))?;
            let under = replay::shortest(tree, test, tested);
            line(&mut out, format_args!("    {}", again(test, tested, &under)))?;
        }
    }
    let files = count(results.len() as u64, "file", "files");
    let mut parts = vec![format!("{passed} passed"), format!("{failed} failed")];
    if skipped > 0 {
        parts.push(format!("{skipped} skipped"));
    }
    if test.seeds > 1 {
        parts.push(format!("{} seeds", test.seeds));
    }
    line(&mut out, format_args!("{files}: {}", parts.join(", ")))
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
    for (kind, text) in &result.lines {
        let kind = match kind {
            Line::Print => "printed",
            Line::Warn => "warned",
            // The problem itself.
            _ if text == problem => continue,
            _ => "error",
        };
        line(out, format_args!("    {kind}: {}", without_tabs(text)))?;
    }
    Ok(())
}

/// A line of a traceback begins with a tab, which would be shown as an escape.
fn without_tabs(text: &str) -> String {
    text.replace('\t', "    ")
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

pub(super) fn json(results: &[Tested]) -> Result<(), Failure> {
    let mut out = out();
    for tested in results {
        for result in &tested.report.results {
            let (outcome, problem) = match &result.outcome {
                Outcome::Passed => ("passed", None),
                Outcome::Failed(problem) => ("failed", Some(problem)),
                _ => ("skipped", None),
            };
            let line = json!({
                "file": tested.file,
                "name": name_of(result),
                "outcome": outcome,
                "problem": problem,
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
    use super::{quoted, without_tabs};

    #[test]
    fn the_lines_of_a_traceback_are_indented_with_spaces() {
        assert_eq!(without_tabs("\ta.spec.luau:1"), "    a.spec.luau:1");
    }

    #[test]
    fn words_are_quoted_where_shells_need_it() {
        assert_eq!(quoted("src/a.spec.luau"), "src/a.spec.luau");
        assert_eq!(quoted("1:join@0s;2:join@1s"), "'1:join@0s;2:join@1s'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }
}
