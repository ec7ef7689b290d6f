//! Lines that are kept until a report is made. A loop prints as many as there is time for.

use crate::output::Line;

/// How many bytes of lines are kept. Twice as many may be there for a while.
const KEPT: usize = 1 << 20;

/// The last lines of many. Of the errors the first and the last one are always there.
#[derive(Default)]
pub(super) struct Kept {
    lines: Vec<(Line, String)>,
    bytes: usize,
    left_out: usize,
}

fn bytes(text: &str) -> usize {
    text.len() + size_of::<(Line, String)>()
}

impl Kept {
    pub(super) fn push(&mut self, kind: Line, text: String) {
        self.bytes += bytes(&text);
        self.lines.push((kind, text));
        if self.bytes > 2 * KEPT {
            self.leave_out();
        }
    }

    /// Leaves out the oldest lines, many at once: those that stay are moved.
    fn leave_out(&mut self) {
        let is_error = |(kind, _): &(Line, String)| *kind == Line::Error;
        let (first, last) =
            (self.lines.iter().position(is_error), self.lines.iter().rposition(is_error));
        let newest = self.lines.len() - 1;
        let (left, left_out, mut at) = (&mut self.bytes, &mut self.left_out, 0);
        self.lines.retain(|(_, text)| {
            let here = at;
            at += 1;
            let stays =
                *left <= KEPT || here == newest || first == Some(here) || last == Some(here);
            if !stays {
                *left -= bytes(text);
                *left_out += 1;
            }
            stays
        });
    }

    /// The errors' texts.
    pub(super) fn errors(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.lines.iter().filter(|(kind, _)| *kind == Line::Error).map(|(_, text)| text.as_str())
    }

    /// What is kept; says first how many lines are not.
    pub(super) fn into_lines(mut self) -> Vec<(Line, String)> {
        if self.left_out > 0 {
            let said = format!("{} of the earlier lines are left out", self.left_out);
            self.lines.insert(0, (Line::Warn, said));
        }
        self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a loop printed outside of tests was kept without a limit.
    #[test]
    fn of_many_lines_the_last_ones_are_kept_and_the_first_and_the_last_error() {
        let mut kept = Kept::default();
        let say = |kept: &mut Kept, kind, what: &str, times: usize| {
            for n in 0..times {
                kept.push(kind, format!("{what} {n} {}", "x".repeat(1000)));
            }
        };
        say(&mut kept, Line::Print, "early", 10);
        say(&mut kept, Line::Error, "error", 5000);
        say(&mut kept, Line::Print, "late", 5000);
        assert!(kept.bytes <= 2 * KEPT);
        let errors: Vec<&str> = kept.errors().collect();
        assert_eq!(errors.len(), 2);
        assert!(errors[0].starts_with("error 0 ") && errors[1].starts_with("error 4999 "));
        let left_out = kept.left_out;
        let lines = kept.into_lines();
        assert_eq!(lines.len() - 1 + left_out, 10_010);
        assert_eq!(lines[0].1, format!("{left_out} of the earlier lines are left out"));
        assert!(lines.last().expect("a line").1.starts_with("late 4999 "));
        assert!(lines.len() > KEPT / 1100, "{}", lines.len());
    }

    #[test]
    fn a_few_lines_are_all_kept() {
        let mut kept = Kept::default();
        kept.push(Line::Print, "a".into());
        kept.push(Line::Error, "b".into());
        assert_eq!(kept.errors().collect::<Vec<_>>(), ["b"]);
        let all = [(Line::Print, "a".to_owned()), (Line::Error, "b".to_owned())];
        assert_eq!(kept.into_lines(), all);
    }
}
