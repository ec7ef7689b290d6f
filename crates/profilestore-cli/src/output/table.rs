//! Rows in columns that keep to the width of the terminal.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write},
};

use super::{Failure, Out, cut, note, one_line};

/// Rows in columns. Widths grow from page to page, as a long list is not held in memory.
///
/// Where there is a width to be kept to, soft columns are cut, the widest first, and at last left
/// out, which is said below: so a row stays on its line. Names, times and numbers are never cut:
/// they can be typed in again.
pub(crate) struct Table<const N: usize> {
    head: [&'static str; N],
    /// The head is written.
    is_begun: bool,
    widths: [usize; N],
    /// A column that is shown whole or not at all.
    spare: Option<usize>,
    /// Columns that can be cut, and are left out in this order.
    soft: Vec<usize>,
    left_out: Vec<usize>,
    most: Option<usize>,
}

/// What a soft column keeps of its width, if it is not left out.
const LEAST: usize = 8;

const BETWEEN: usize = 2;

impl<const N: usize> Table<N> {
    pub(crate) fn new(head: [&'static str; N]) -> Self {
        Self {
            head,
            is_begun: false,
            widths: [0; N],
            spare: None,
            soft: Vec::new(),
            left_out: Vec::new(),
            most: width(),
        }
    }

    /// A column that is left out where not all columns fit, before another one is cut.
    pub(crate) fn spare(mut self, column: usize) -> Self {
        self.spare = Some(column);
        self
    }

    /// Which columns can be cut or left out, the least important one first.
    pub(crate) fn soft<const S: usize>(mut self, columns: [usize; S]) -> Self {
        self.soft = columns.to_vec();
        self
    }

    /// Writes a page of rows, after the head when it is the first page that has any. Behind the
    /// last page comes [`Table::end`].
    pub(crate) fn page(&mut self, out: &mut Out, rows: &[[String; N]]) -> Result<(), Failure> {
        self.page_with(out, rows, &[])
    }

    /// The same with a line below each row that has one.
    pub(crate) fn page_with(
        &mut self,
        out: &mut Out,
        rows: &[[String; N]],
        below: &[Option<String>],
    ) -> Result<(), Failure> {
        if rows.is_empty() {
            return Ok(());
        }
        let first = !self.is_begun;
        self.is_begun = true;
        let head = first.then(|| self.head.map(str::to_owned));
        let rows: Vec<[String; N]> = head
            .iter()
            .chain(rows)
            .map(|row| row.each_ref().map(|cell| one_line(cell).into_owned()))
            .collect();
        for row in &rows {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let widths = self.fitted(first);
        let mut below = below.iter();
        for (at, row) in rows.iter().enumerate() {
            let mut line = String::new();
            for (column, (width, cell)) in widths.iter().zip(row).enumerate() {
                if !self.left_out.contains(&column) {
                    let _ = write!(line, "{:width$}  ", cut(cell, *width));
                }
            }
            writeln!(out, "{}", line.trim_end())?;
            let is_head = first && at == 0;
            if !is_head && let Some(Some(below)) = below.next() {
                writeln!(out, "  {}", one_line(below))?;
            }
        }
        Ok(())
    }

    /// Writes all that there is, and says which columns had no room.
    pub(crate) fn end(&self, out: &mut Out) -> Result<(), Failure> {
        out.flush()?;
        if let Some(said) = self.says_left_out() {
            note(format_args!("{said}"));
        }
        Ok(())
    }

    fn says_left_out(&self) -> Option<String> {
        let left_out = (0..N).filter(|column| self.left_out.contains(column));
        let names: Vec<_> = left_out.map(|column| self.head[column]).collect();
        (!names.is_empty()).then(|| {
            format!("no room for {}; a wider terminal or --json shows them", names.join(", "))
        })
    }

    /// The columns' widths, so that a row fits. What is left out is decided with the head.
    fn fitted(&mut self, first: bool) -> [usize; N] {
        let Some(most) = self.most else { return self.widths };
        if first {
            if let Some(spare) = self.spare.filter(|_| self.over(most, &self.widths) > 0) {
                self.left_out.push(spare);
            }
            // Before a soft column is left out, all of them are cut as far as that goes.
            let mut next = self.soft.clone().into_iter();
            while self.over(most, &self.least()) > 0
                && let Some(column) = next.next()
            {
                self.left_out.push(column);
            }
        }
        let mut widths = self.widths;
        for _ in 0..self.over(most, &widths) {
            let soft = self.soft.iter().filter(|column| !self.left_out.contains(column));
            let widest = soft.max_by_key(|column| widths[**column]);
            match widest.filter(|column| widths[**column] > LEAST) {
                Some(column) => widths[*column] -= 1,
                None => break,
            }
        }
        widths
    }

    /// The widths with every soft column cut as far as that goes.
    fn least(&self) -> [usize; N] {
        let mut widths = self.widths;
        for column in &self.soft {
            widths[*column] = widths[*column].min(LEAST);
        }
        widths
    }

    /// By how much a row of these widths is too long.
    fn over(&self, most: usize, widths: &[usize; N]) -> usize {
        let shown = (0..N).filter(|column| !self.left_out.contains(column));
        let total: usize = shown.map(|column| widths[column] + BETWEEN).sum();
        total.saturating_sub(BETWEEN).saturating_sub(most)
    }
}

/// How wide a line may be: as wide as the terminal, or as COLUMNS says. A file or a pipe gets all.
pub(crate) fn width() -> Option<usize> {
    let said = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let terminal = || Some(usize::from(console::Term::stdout().size_checked()?.1));
    said.or_else(|| io::stdout().is_terminal().then(terminal)?).filter(|columns| *columns >= 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_fits_its_line_and_what_can_be_typed_is_whole() {
        let fitted = |most: Option<usize>| {
            let mut table = Table::new(["KEY", "WHAT", "AUTHOR"]).soft([1, 2]);
            table.most = most;
            table.widths = [20, 30, 12];
            (table.fitted(true), table.left_out)
        };
        assert_eq!(fitted(None), ([20, 30, 12], vec![]));
        assert_eq!(fitted(Some(66)), ([20, 30, 12], vec![]));
        assert_eq!(fitted(Some(65)), ([20, 29, 12], vec![]));
        assert_eq!(fitted(Some(44)), ([20, 10, 10], vec![]));
        assert_eq!(fitted(Some(40)), ([20, 8, 8], vec![]));
        assert_eq!(fitted(Some(39)), ([20, 30, 12], vec![1]));
        assert_eq!(fitted(Some(30)), ([20, 30, 8], vec![1]));
        assert_eq!(fitted(Some(10)), ([20, 30, 12], vec![1, 2]));
        // A later page cuts, and leaves nothing out.
        let mut table = Table::new(["KEY", "WHAT", "STRING"]).soft([1]).spare(2);
        (table.most, table.widths) = (Some(40), [10, 10, 10]);
        assert_eq!((table.fitted(true), table.left_out.len()), ([10, 10, 10], 0));
        table.widths = [20, 20, 20];
        assert_eq!((table.fitted(false), table.left_out.len()), ([20, 8, 20], 0));
        // What is shown whole or not at all goes before another column is cut.
        assert_eq!((table.fitted(true), &*table.left_out), ([20, 18, 20], &[2][..]));
        assert_eq!((cut("abc", 3), cut("abcd", 3)), ("abc".into(), "ab…".into()));
    }

    /// At 80 columns `audit` and `sessions` had fewer columns, silently.
    #[test]
    fn columns_without_room_are_named() {
        let said = |most: usize| {
            let mut table = Table::new(["KEY", "WHAT", "AUTHOR"]).soft([2, 1]);
            (table.most, table.widths) = (Some(most), [20, 30, 12]);
            table.fitted(true);
            table.says_left_out()
        };
        assert_eq!((said(66), said(40)), (None, None));
        let left_out = "no room for AUTHOR; a wider terminal or --json shows them";
        assert_eq!(said(39).as_deref(), Some(left_out));
        // In the order of the head.
        let left_out = "no room for WHAT, AUTHOR; a wider terminal or --json shows them";
        assert_eq!(said(20).as_deref(), Some(left_out));
    }
}
