//! Which lines of a game ran in its tests: for people, for programs, and in LCOV's form, which
//! programs for continuous integration read.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::json;

use super::play::Tested;
use crate::output::{Failure, json_line, out, text as line};

/// How often each line ran, by its file.
type Lines = BTreeMap<String, BTreeMap<u32, u64>>;

/// What ran in all files of tests together.
pub(super) fn of(results: &[Tested]) -> Lines {
    let mut lines = Lines::new();
    for (file, counted) in results.iter().flat_map(|tested| &tested.report.coverage) {
        let lines = lines.entry(file.clone()).or_default();
        for (line, hits) in counted {
            *lines.entry(*line).or_default() += hits;
        }
    }
    lines
}

fn ran(lines: &BTreeMap<u32, u64>) -> usize {
    lines.values().filter(|hits| **hits > 0).count()
}

pub(super) fn print(lines: &Lines, as_json: bool) -> Result<(), Failure> {
    let mut out = out();
    if as_json {
        for (file, lines) in lines {
            let missed: Vec<u32> = missed(lines).collect();
            let (all, ran) = (lines.len(), ran(lines));
            let line = json!({ "coverage": file, "lines": all, "ran": ran, "missed": missed });
            json_line(&mut out, &line)?;
        }
        return Ok(());
    }
    let all: usize = lines.values().map(BTreeMap::len).sum();
    let ran_of_all: usize = lines.values().map(ran).sum();
    let percent = if all == 0 { 100.0 } else { ran_of_all as f64 / all as f64 * 100.0 };
    line(&mut out, format_args!("coverage: {ran_of_all} of {all} lines ({percent:.1} %)"))?;
    for (file, lines) in lines {
        let missed = ranges(missed(lines));
        let missed = if missed.is_empty() { missed } else { format!("; not {missed}") };
        line(&mut out, format_args!("  {file}: {} of {}{missed}", ran(lines), lines.len()))?;
    }
    Ok(())
}

/// The lines that never ran.
fn missed(lines: &BTreeMap<u32, u64>) -> impl Iterator<Item = u32> {
    lines.iter().filter(|(_, hits)| **hits == 0).map(|(line, _)| *line)
}

/// Numbers as a short text: `3, 7-9`.
fn ranges(numbers: impl Iterator<Item = u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let texts = ranges.into_iter().map(|(first, last)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    });
    texts.collect::<Vec<_>>().join(", ")
}

pub(super) fn lcov(lines: &Lines) -> String {
    let mut text = String::new();
    for (file, lines) in lines {
        let _ = writeln!(text, "TN:\nSF:{file}");
        for (line, hits) in lines {
            let _ = writeln!(text, "DA:{line},{hits}");
        }
        let _ = writeln!(text, "LF:{}\nLH:{}\nend_of_record", lines.len(), ran(lines));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::ranges;

    #[test]
    fn lines_that_follow_each_other_are_one_range() {
        assert_eq!(ranges([].into_iter()), "");
        assert_eq!(ranges([3, 7, 8, 9, 11].into_iter()), "3, 7-9, 11");
    }
}
