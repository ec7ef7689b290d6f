//! `check`: whether all that a store holds can be read.

use std::io::Write;

use clap::Args;
use indicatif::ProgressBar;
use profilestore::{
    data_store::{CheckReport, Checked, DamagedValue, SqliteStore, StoreError},
    transfer::{
        ExportFilter, ExportReport, Progress, UnreadableValue, UnstorableValue, Verification,
        verify,
    },
};
use serde::Serialize;

use crate::{
    app::App,
    maintain::{named, unlisted, waited},
    output::{Failure, Status, count, facts, json_document, out, text},
    place::{Kind, Place, Store},
    transfer::{held, progress_bar, show, waiting},
};

/// Verify a store: its file if it is one, and that every kept version can be read
///
/// Every value is compared with its checksum. The store may be in use. What is wrong is listed, and
/// the exit code is then 1. Damage in one place does not keep the rest from being checked; `export
/// --salvage` brings out all that is whole.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore check
  profilestore --store sqlite:backup.db check --json")]
pub(crate) struct Check {}

/// After how many versions the bar moves.
const SHOWN_EVERY: u64 = 1000;

#[derive(Serialize)]
struct CheckRow<'a> {
    ok: bool,
    /// What is wrong with the file or a record in it.
    problems: &'a [String],
    unreadable: &'a [UnreadableValue],
    /// How many more there are of both that are not listed.
    unlisted: u64,
    /// What could not be stored today. A session may not be able to open it; edit, rollback and get
    /// --raw can.
    unstorable: &'a [UnstorableValue],
    keys: u64,
    versions: u64,
    tombstones: u64,
    foreign: u64,
    held_sessions: u64,
    messages: u64,
    /// Of the library itself, such as the audit log.
    books: u64,
}

impl Check {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        check(app, &app.place, app.place.open().await?).await
    }
}

/// Checks a store and says what is wrong with it.
pub(crate) async fn check(app: &App, place: &Place, store: Store) -> Result<Status, Failure> {
    let (file, records) = match store.kind().clone() {
        Kind::Sqlite(checked) => waited(move |bar| check_file(&checked, &bar))
            .await?
            .map_err(|error| place.failure(&error))?,
        // A database's pages are its own affair.
        Kind::Postgres(_) => {
            let bar = progress_bar();
            let mut progress = |progress: Progress| show(&bar, progress, None);
            let records = verify(&*store, &ExportFilter::default(), &mut progress).await?;
            bar.finish_and_clear();
            (CheckReport::default(), records)
        }
    };
    let ok =
        file.problems.is_empty() && records.unreadable.is_empty() && records.unstorable.is_empty();
    match app.json {
        true => json_document(&CheckRow {
            ok,
            problems: &file.problems,
            unreadable: &records.unreadable,
            unlisted: file.unlisted,
            unstorable: &records.unstorable,
            keys: records.keys,
            versions: records.versions,
            tombstones: records.tombstones,
            foreign: records.foreign,
            held_sessions: records.held_sessions,
            messages: records.pending.entries,
            books: records.books,
        })?,
        false => show_check(ok, &file, &records)?,
    }
    Ok(if ok { Status::Fine } else { Status::Problems })
}

/// Checks a file and what its values say, in one go through it.
fn check_file(
    store: &SqliteStore,
    bar: &ProgressBar,
) -> Result<(CheckReport, ExportReport), StoreError> {
    let (mut found, mut versions) = (Verification::default(), 0_u64);
    let each = |piece: Checked<'_>| match piece {
        Checked::Key(key, lease) => found.key(key, lease),
        Checked::Message(key, message) => found.message(key, message),
        Checked::Version(key, info, value) => {
            found.version(key, info, value);
            versions += 1;
            if versions.is_multiple_of(SHOWN_EVERY) {
                bar.set_message(format!("verified {}", count(versions, "version", "versions")));
                bar.tick();
            }
        }
    };
    let file = store.check_each(each, keys(bar))?;
    for DamagedValue { key, version, .. } in &file.damaged {
        found.damaged(key, *version);
    }
    let mut records = found.end();
    // Those that no key leads to belong to no profile.
    records.versions = file.profile_versions;
    Ok((file, records))
}

fn show_check(ok: bool, file: &CheckReport, records: &ExportReport) -> Result<(), Failure> {
    let mut out = out();
    let listed = file.problems.len() + records.unreadable.len() + records.unstorable.len();
    let problems = listed as u64 + file.unlisted;
    facts(
        &mut out,
        &[
            (
                "result",
                if ok { "all is well".to_owned() } else { count(problems, "problem", "problems") },
            ),
            (
                "profiles",
                count(records.keys, "key", "keys")
                    + " with "
                    + &count(records.versions, "version", "versions"),
            ),
            ("sessions held", held(records.held_sessions, records.handover_requests)),
            ("messages", waiting(records.pending)),
            ("foreign values", count(records.foreign, "value", "values")),
        ],
    )?;
    for problem in &file.problems {
        text(&mut out, format_args!("problem: {problem}"))?;
    }
    for unreadable in &records.unreadable {
        text(&mut out, format_args!("problem: {}: {}", named(unreadable), unreadable.why))?;
    }
    if let Some(more) = unlisted(file) {
        text(&mut out, format_args!("problem: {more}"))?;
    }
    for UnstorableValue { key, number, message, path, why } in &records.unstorable {
        let part = match (number, message) {
            (Some(number), _) => format!("version {number}"),
            (None, message) => format!("message {}", message.unwrap_or_default()),
        };
        text(
            &mut out,
            format_args!("problem: {key} {part} could not be stored today: at `{path}`: {why}"),
        )?;
    }
    Ok(out.flush()?)
}

fn keys(bar: &ProgressBar) -> impl FnMut(u64, u64) {
    move |done, of| {
        bar.set_message(format!("checked {done} of {}", count(of, "key", "keys")));
        bar.tick();
    }
}
