//! `backup`, `restore` and `check`: keeping a store safe.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use clap::Args;
use indicatif::ProgressBar;
use profilestore::{
    data_store::{CheckReport, DamagedValue, Existing, SqliteOptions, SqliteStore, StoreError},
    transfer::{ExportFilter, ExportReport, Progress, UnreadableValue, UnstorableValue, verify},
};
use serde::Serialize;

use crate::{
    args::App,
    output::{Failure, Status, count, facts, json_document, out, size},
    place::{Kind, Place},
    transfer::{held, progress_bar, show, waiting},
};

/// Copy the store as it is at this moment into a new file
///
/// The store may be in use. The file appears under its name once it is complete and on the disk.
/// Every value in it is verified: those that are damaged in the store, and so in the backup, are
/// listed, and the exit code is then 1.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore backup profiles-2026-11-21.db
  profilestore --store sqlite:game.db backup /var/backups/game.db --json")]
pub(crate) struct Backup {
    /// The new file
    file: PathBuf,
}

#[derive(Serialize)]
struct BackupRow<'a> {
    file: &'a Path,
    bytes: u64,
    /// Damaged in the store, and so in the backup.
    unreadable: Vec<UnreadableValue>,
}

impl Backup {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        app.place.file()?;
        let Kind::Sqlite(store) = app.place.open().await?.kind().clone() else {
            return Ok(Status::Problems);
        };
        let file = self.file.clone();
        let report = waited(move |bar| store.backup(&file, pages(&bar)))
            .await?
            .map_err(|error| not_done(&app.place, &error))?;
        let bytes = fs::metadata(&self.file).map_or(0, |data| data.len());
        let unreadable: Vec<_> = report.damaged.iter().map(unreadable).collect();
        let status = if unreadable.is_empty() { Status::Fine } else { Status::Problems };
        if app.json {
            json_document(&BackupRow { file: &self.file, bytes, unreadable })?;
            return Ok(status);
        }
        let mut out = out();
        writeln!(out, "backed up to {}, {}", self.file.display(), size(bytes))?;
        for UnreadableValue { key, number, why } in &unreadable {
            writeln!(out, "problem: {key} version {number}: {why}, also in the backup")?;
        }
        out.flush()?;
        Ok(status)
    }
}

/// Make the store out of a backup
///
/// Whatever game servers of before still send is refused, and their sessions are over: start them
/// anew. A store that is there is left alone unless --force is given; then its contents are
/// replaced, all at once, even while it is in use.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore --store sqlite:copy.db restore profiles-2026-11-21.db
  profilestore restore --force profiles-2026-11-21.db")]
pub(crate) struct Restore {
    /// The backup
    from: PathBuf,
    /// Replace the contents of a store that is there
    #[arg(long)]
    force: bool,
}

#[derive(Serialize)]
struct RestoreRow {
    incarnation: String,
}

impl Restore {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let to = app.place.file()?.to_owned();
        let existing = if self.force { Existing::Replace } else { Existing::Keep };
        if existing == Existing::Keep && to.exists() {
            return Err(Failure::Work(format!(
                "the store exists already, add --force to replace it: store=`{}`",
                app.place
            )));
        }
        if !self.from.exists() {
            return Err(Failure::Work(format!(
                "there is no such backup: file=`{}`",
                self.from.display()
            )));
        }
        let from = self.from.clone();
        let restored = waited(move |bar| {
            SqliteStore::restore(&from, &to, existing, &SqliteOptions::default(), pages(&bar))
        })
        .await?;
        let incarnation = restored.map_err(|error| not_done(&app.place, &error))?;
        match app.json {
            true => json_document(&RestoreRow { incarnation: incarnation.to_string() })?,
            false => writeln!(out(), "restored {} from {}", app.place, self.from.display())?,
        }
        Ok(Status::Fine)
    }
}

/// Verify a store: its file if it is one, and that every kept version can be read
///
/// Every value is compared with its checksum. The store may be in use. What is wrong is listed, and the exit code is then 1.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore check
  profilestore --store sqlite:backup.db check --json")]
pub(crate) struct Check {}

#[derive(Serialize)]
struct CheckRow<'a> {
    ok: bool,
    /// What is wrong with the file or a record in it.
    problems: &'a [String],
    unreadable: &'a [UnreadableValue],
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
        let store = app.place.open().await?;
        let file = match store.kind().clone() {
            Kind::Sqlite(checked) => waited(move |bar| checked.check(keys(&bar)))
                .await?
                .map_err(|error| app.place.failure(&error))?,
            // A database's pages are its own affair.
            Kind::Postgres(_) => CheckReport::default(),
        };
        // A file that is broken as such is not worth reading record by record.
        let bar = progress_bar();
        let mut progress = |progress: Progress| show(&bar, progress, None);
        let mut records = match verify(&*store, &ExportFilter::default(), &mut progress).await {
            Ok(records) => records,
            Err(_) if !file.problems.is_empty() => ExportReport::default(),
            Err(error) => return Err(error.into()),
        };
        bar.finish_and_clear();
        for damaged in file.damaged.iter().map(unreadable) {
            let listed = |other: &UnreadableValue| {
                (&other.key, other.number) == (&damaged.key, damaged.number)
            };
            if !records.unreadable.iter().any(listed) {
                records.unreadable.push(damaged);
            }
        }
        let ok = file.problems.is_empty()
            && records.unreadable.is_empty()
            && records.unstorable.is_empty();
        match app.json {
            true => json_document(&CheckRow {
                ok,
                problems: &file.problems,
                unreadable: &records.unreadable,
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
}

fn show_check(ok: bool, file: &CheckReport, records: &ExportReport) -> Result<(), Failure> {
    let mut out = out();
    let problems = file.problems.len() + records.unreadable.len() + records.unstorable.len();
    facts(
        &mut out,
        &[
            (
                "result",
                if ok {
                    "all is well".to_owned()
                } else {
                    count(problems as u64, "problem", "problems")
                },
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
        writeln!(out, "problem: {problem}")?;
    }
    for unreadable in &records.unreadable {
        writeln!(
            out,
            "problem: {} version {}: {}",
            unreadable.key, unreadable.number, unreadable.why
        )?;
    }
    for UnstorableValue { key, number, message, path, why } in &records.unstorable {
        let part = match (number, message) {
            (Some(number), _) => format!("version {number}"),
            (None, message) => format!("message {}", message.unwrap_or_default()),
        };
        writeln!(out, "problem: {key} {part} could not be stored today: at `{path}`: {why}")?;
    }
    Ok(out.flush()?)
}

fn unreadable(damaged: &DamagedValue) -> UnreadableValue {
    UnreadableValue {
        key: damaged.key.clone(),
        number: damaged.version,
        why: "the stored value is damaged".into(),
    }
}

/// Runs what waits for the disk, with a progress bar.
async fn waited<T: Send + 'static>(
    work: impl FnOnce(ProgressBar) -> T + Send + 'static,
) -> Result<T, Failure> {
    let bar = progress_bar();
    let shown = bar.clone();
    let done = tokio::task::spawn_blocking(move || work(shown)).await;
    bar.finish_and_clear();
    done.map_err(|error| Failure::Work(format!("the work broke off: {error}")))
}

fn pages(bar: &ProgressBar) -> impl FnMut(u64, u64) {
    move |done, of| {
        bar.set_message(format!("copied {} %", done * 100 / of.max(1)));
        bar.tick();
    }
}

fn keys(bar: &ProgressBar) -> impl FnMut(u64, u64) {
    move |done, of| {
        bar.set_message(format!("checked {done} of {}", count(of, "key", "keys")));
        bar.tick();
    }
}

/// A call that was wrong, such as a file that is there already, is no fault of the store.
fn not_done(place: &Place, error: &StoreError) -> Failure {
    match error {
        StoreError::Invalid { reason } => Failure::Work(reason.clone()),
        error => place.failure(error),
    }
}
