//! Results in JUnit's form, which programs for continuous integration read.

use std::fmt::Write as _;

use profilestore_luau::{Outcome, SpecResult};

use super::{
    play::Tested,
    report::{failed_calls, name_of, printed, word_of},
};

pub(super) fn document(results: &[Tested]) -> String {
    let mut text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n".to_owned();
    for tested in results {
        suite(&mut text, tested);
    }
    text.push_str("</testsuites>\n");
    text
}

fn suite(text: &mut String, tested: &Tested) {
    let results = &tested.report.results;
    let file = escaped(&tested.file);
    let skipped = results.iter().filter(|result| result.outcome == Outcome::Skipped).count();
    let took: f64 = results.iter().map(|result| result.took.as_secs_f64()).sum();
    let _ = writeln!(
        text,
        "  <testsuite name=\"{file}\" tests=\"{}\" failures=\"{}\" errors=\"0\" \
         skipped=\"{skipped}\" time=\"{took:.3}\">\n    <properties>\n      \
         <property name=\"seed\" value=\"{}\"/>\n    </properties>",
        results.len(),
        tested.report.failures().count(),
        tested.seed
    );
    for result in results {
        case(text, tested, result);
    }
    text.push_str("  </testsuite>\n");
}

fn case(text: &mut String, tested: &Tested, result: &SpecResult) {
    let file = escaped(&tested.file);
    let _ = write!(
        text,
        "    <testcase classname=\"{file}\" name=\"{}\" file=\"{file}\"",
        escaped(&name_of(result))
    );
    let took = result.took.as_secs_f64();
    match &result.outcome {
        Outcome::Failed(problem) => {
            if let Some(line) = line_in(&tested.file, problem) {
                let _ = write!(text, " line=\"{line}\"");
            }
            let first = problem.lines().next().unwrap_or_default();
            let again = tested.again(result).map(|command| format!("\nagain: {command}"));
            let _ = writeln!(
                text,
                " time=\"{took:.3}\">\n      <failure message=\"{}\">{}{}</failure>",
                escaped(first),
                escaped(problem),
                escaped(&again.unwrap_or_default())
            );
            let lines = printed(result).into_iter();
            let calls = failed_calls(result).iter().map(|call| format!("made to fail: {call}"));
            let lines: Vec<_> = lines
                .map(|(kind, text)| format!("{}: {text}", word_of(kind)))
                .chain(calls)
                .collect();
            if !lines.is_empty() {
                let lines = escaped(&lines.join("\n"));
                let _ = writeln!(text, "      <system-out>{lines}</system-out>");
            }
            text.push_str("    </testcase>\n");
        }
        Outcome::Skipped => {
            let _ = writeln!(text, " time=\"{took:.3}\"><skipped/></testcase>");
        }
        _ => {
            let _ = writeln!(text, " time=\"{took:.3}\"/>");
        }
    }
}

/// The first line of a test's file that a problem names.
fn line_in(file: &str, problem: &str) -> Option<u32> {
    problem.match_indices(file).find_map(|(at, _)| {
        let rest = problem[at + file.len()..].strip_prefix(':')?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse().ok()
    })
}

/// A text within XML, where most control characters cannot be at all.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\n' | '\t' => safe.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::{escaped, line_in};

    #[test]
    fn the_line_is_that_of_the_tests_file() {
        let problem = "src/Data.luau:3: no\nstack traceback:\n\tsrc/A.spec.luau:12: in it";
        assert_eq!(line_in("src/A.spec.luau", problem), Some(12));
        assert_eq!(line_in("src/B.spec.luau", problem), None);
        assert_eq!(line_in("src/A.spec.luau", "src/A.spec.luau is gone"), None);
    }

    #[test]
    fn no_text_breaks_the_document() {
        assert_eq!(escaped("a<b> & \"c\"\u{0}\n"), "a&lt;b&gt; &amp; &quot;c&quot;\u{fffd}\n");
    }
}
