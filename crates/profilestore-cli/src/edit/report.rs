//! What an edit of many profiles did, and how far it is.

use std::io::IsTerminal;

use indicatif::ProgressBar;
use profilestore::{ProfileKey, operator::BulkReport};
use serde::Serialize;
use uuid::Uuid;

use crate::output::{Failure, bar_style, count, grouped, say};

/// The same numbers of a dry run and of the edit itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    /// Profiles that are changed.
    pub(super) edited: u64,
    /// Profiles that are as the edit wants them already.
    pub(super) unchanged: u64,
    /// Profiles that the edit does not mean: a test or the search does not match.
    pub(super) unmatched: u64,
    pub(super) refused: u64,
    /// Keys without a profile: removed ones, and those with only messages. For an undo, profiles
    /// that the undone edit did not change.
    pub(super) skipped: u64,
}

/// What the skipped ones of an edit are without.
#[derive(Debug, Clone, Copy)]
pub(super) enum Without {
    Profile,
    /// The edit is an undo.
    Change,
    /// An operation that is resumed may be either.
    ProfileOrChange,
}

impl Counts {
    fn of(report: &BulkReport) -> Self {
        let BulkReport { done, unchanged, unmatched, skipped, ref refused, .. } = *report;
        let edited = done - unchanged;
        Self { edited, unchanged, unmatched, refused: refused.len() as u64, skipped }
    }

    /// What became of those that are not changed.
    pub(super) fn line(self, without: Without) -> String {
        let without = match without {
            Without::Profile => "a profile",
            Without::Change => "a change to undo",
            Without::ProfileOrChange => "a profile or a change to undo",
        };
        let Self { unchanged, unmatched, refused, skipped, .. } = self;
        let [unchanged, unmatched, refused, skipped] =
            [unchanged, unmatched, refused, skipped].map(grouped);
        format!(
            "{unchanged} unchanged, {unmatched} passed over, {refused} refused, \
                {skipped} without {without}"
        )
    }
}

#[derive(Serialize)]
pub(super) struct Row<'a> {
    operation: Uuid,
    done: u64,
    by_holders: u64,
    unchanged: u64,
    before: u64,
    unmatched: u64,
    skipped: u64,
    refused: Vec<RefusedRow<'a>>,
    waiting: &'a [ProfileKey],
    seconds: f64,
}

#[derive(Serialize)]
struct RefusedRow<'a> {
    #[serde(flatten)]
    key: &'a ProfileKey,
    why: &'a str,
}

impl<'a> Row<'a> {
    pub(super) fn new(operation: Uuid, report: &'a BulkReport, seconds: f64) -> Self {
        let refused = report.refused.iter().map(|(key, why)| RefusedRow { key, why }).collect();
        let BulkReport { done, by_holders, unchanged, before, unmatched, skipped, .. } = *report;
        Self {
            operation,
            done,
            by_holders,
            unchanged,
            before,
            unmatched,
            skipped,
            refused,
            waiting: &report.waiting,
            seconds,
        }
    }
}

/// `stands`: new profiles get the edit too.
pub(super) fn show(
    operation: Uuid,
    report: &BulkReport,
    without: Without,
    stands: bool,
    seconds: f64,
) -> Result<(), Failure> {
    let live = if report.by_holders > 0 {
        format!(", {} of them online", grouped(report.by_holders))
    } else {
        String::new()
    };
    say(format_args!(
        "{} edited{live}, in {seconds:.1} s",
        count(report.done - report.unchanged, "profile", "profiles")
    ))?;
    say(format_args!("{}", Counts::of(report).line(without)))?;
    if report.before > 0 {
        say(format_args!(
            "{} had been dealt with before",
            count(report.before, "profile", "profiles")
        ))?;
    }
    for (key, why) in report.refused.iter().take(20) {
        say(format_args!("refused: {key}: {why}"))?;
    }
    if report.refused.len() > 20 {
        say(format_args!(
            "and {} more refused: profilestore audit --operation {operation}",
            grouped(report.refused.len() as u64 - 20)
        ))?;
    }
    if !report.waiting.is_empty() {
        let waiting = count(report.waiting.len() as u64, "profile", "profiles");
        say(format_args!(
            "{waiting} wait for the servers that hold them; see what became of them with: \
                profilestore edit --resume {operation}"
        ))?;
    }
    if stands {
        say(format_args!(
            "new profiles get the edit too, until it is undone; see: profilestore edit --standing"
        ))?;
    }
    let edited = report.done > report.unchanged || report.before > 0;
    if edited || stands || !report.waiting.is_empty() {
        say(format_args!("undo it with: profilestore edit --undo {operation}"))?;
    }
    Ok(())
}

pub(super) fn progress_bar(of: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    match of {
        Some(of) => ProgressBar::new(of).with_style(bar_style(
            "{bar:30} {human_pos}/{human_len} profiles  {rate}  {eta}  {msg}",
        )),
        None => ProgressBar::new_spinner()
            .with_style(bar_style("{spinner} {human_pos} profiles  {rate}  {msg}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `1111 refused` stood beside `5,000 profiles edited`.
    #[test]
    fn what_is_not_changed_is_counted_with_separators() {
        let counts = Counts { unmatched: 4991, refused: 1_234_567, ..Counts::default() };
        assert_eq!(
            counts.line(Without::Profile),
            "0 unchanged, 4,991 passed over, 1,234,567 refused, 0 without a profile"
        );
    }
}
