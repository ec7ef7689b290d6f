//! Results in JUnit's form, which programs for continuous integration read.

use std::fmt::Write as _;

use profilestore_luau::Outcome;

use super::{play::Tested, report::name_of};

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
        let _ = write!(
            text,
            "    <testcase classname=\"{file}\" name=\"{}\" time=\"{:.3}\"",
            escaped(&name_of(result)),
            result.took.as_secs_f64()
        );
        match &result.outcome {
            Outcome::Failed(problem) => {
                let first = problem.lines().next().unwrap_or_default();
                let _ = writeln!(
                    text,
                    ">\n      <failure message=\"{}\">{}</failure>\n    </testcase>",
                    escaped(first),
                    escaped(problem)
                );
            }
            Outcome::Skipped => text.push_str("><skipped/></testcase>\n"),
            _ => text.push_str("/>\n"),
        }
    }
    text.push_str("  </testsuite>\n");
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
    use super::escaped;

    #[test]
    fn no_text_breaks_the_document() {
        assert_eq!(escaped("a<b> & \"c\"\u{0}\n"), "a&lt;b&gt; &amp; &quot;c&quot;\u{fffd}\n");
    }
}
