//! `backup` and `restore`: keeping a store safe.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

use clap::Args;
use indicatif::ProgressBar;
use profilestore::{
    Attribution,
    audit::AuditEntry,
    data_store::{CheckReport, DamagedValue, Existing, SqliteOptions, SqliteStore, StoreError},
    env::Env,
    stop_signal,
    transfer::UnreadableValue,
};
use serde::Serialize;

use crate::{
    app::App,
    check::check,
    given::ByArgs,
    operate::failure,
    output::{Failure, Status, count, json_document, note, out, say, size, text},
    place::{Kind, Place},
    salvage::salvage_file,
    series::Series,
    times::{length, time},
    transfer::progress_bar,
};

/// Copy the store as it is at this moment into a new file
///
/// The store may be in use. The file appears under its name once it is complete, verified and on
/// the disk; what a backup that was killed left behind is replaced. It says what the backup holds.
/// What is damaged in the store, and so in the backup, is listed, and the exit code is then 1.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore backup profiles-2026-11-21.db
  profilestore --store game.db backup /var/backups/game.db --json
  profilestore backup --to /var/backups --every 1h --keep 24
  profilestore backup --verify profiles-2026-11-21.db")]
pub(crate) struct Backup {
    /// The new file; with --verify the backup to be verified
    #[arg(required_unless_present = "to", conflicts_with = "to")]
    file: Option<PathBuf>,
    /// Into this folder, which must be there, under the store's name and the time:
    /// profiles-2026-11-21T14-00-00Z.db. It is for this store alone: another one of the same name
    /// would be taken for it
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Again and again, until SIGTERM or Ctrl-C: 90s, 30min, 1h, 1 day. The first one is due when
    /// the newest that is there is so old
    #[arg(long, value_name = "TIME", requires = "to", conflicts_with = "file", value_parser = length)]
    every: Option<Duration>,
    /// Delete all but so many of the newest in the folder, after a backup that is whole
    #[arg(long, value_name = "N", requires = "to", conflicts_with = "file")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    keep: Option<u64>,
    /// Make no backup: verify every value of this one, which stays as it is
    #[arg(long, requires = "file")]
    verify: bool,
    #[command(flatten)]
    by: ByArgs,
}

#[derive(Serialize)]
struct BackupRow<'a> {
    file: &'a Path,
    bytes: u64,
    /// Profiles, removed ones and those with only messages included.
    keys: u64,
    /// Kept versions of profiles.
    versions: u64,
    /// When the newest version of a profile was stored.
    newest_ms: Option<i64>,
    /// What is wrong with the store's file or a record in it, and so in the backup.
    problems: &'a [String],
    /// Damaged in the store, and so in the backup.
    unreadable: Vec<UnreadableValue>,
    /// How many more there are of both that are not listed.
    unlisted: u64,
}

impl Backup {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        match (&self.file, &self.to) {
            (Some(file), _) if self.verify => verify(app, file).await,
            (Some(file), _) => self.one(app, file).await,
            (None, Some(folder)) => {
                let series = Series::of(app.place.file()?, folder)?;
                match self.every {
                    Some(every) => self.again_and_again(app, &series, every).await,
                    None => self.next(app, &series).await,
                }
            }
            (None, None) => Err(Failure::Usage("a backup needs a file, or --to a folder".into())),
        }
    }

    /// One of a series, and then the oldest ones go. A damaged store takes no whole backup's place.
    async fn next(&self, app: &App, series: &Series) -> Result<Status, Failure> {
        for left in series.clear()? {
            if !app.json {
                note(format_args!("deleted {}, of a backup that was broken off", left.display()));
            }
        }
        let status = self.one(app, &series.name(Env::system().unix_ms())).await?;
        match (self.keep, status) {
            (None, _) => {}
            (Some(_), Status::Problems) => {
                note(format_args!("the store is damaged: no earlier backup is deleted"));
            }
            (Some(keep), Status::Fine) => {
                for old in series.keep(usize::try_from(keep).unwrap_or(usize::MAX))? {
                    if !app.json {
                        note(format_args!("deleted {}", old.display()));
                    }
                }
            }
        }
        Ok(status)
    }

    /// Until a signal. What fails is said and tried again when the next one is due.
    async fn again_and_again(
        &self,
        app: &App,
        series: &Series,
        every: Duration,
    ) -> Result<Status, Failure> {
        let mut worst = Status::Fine;
        let mut stopped = pin!(stop_signal());
        let env = Env::system();
        let every_ms = i64::try_from(every.as_millis()).unwrap_or(i64::MAX);
        let newest = series.there()?.last().map(|(unix_ms, _)| *unix_ms);
        // A time in the future is a clock that was wrong.
        let newest = newest.filter(|unix_ms| *unix_ms <= env.unix_ms());
        let mut due_ms = newest.map_or_else(|| env.unix_ms(), |last| last.saturating_add(every_ms));
        if !app.json {
            note(format_args!(
                "the next backup is due at {}; SIGTERM or Ctrl-C ends this",
                time(due_ms.max(env.unix_ms()))
            ));
        }
        loop {
            let wait_ms = u64::try_from(due_ms - env.unix_ms()).unwrap_or_default();
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
                _ = &mut stopped => return Ok(worst),
            }
            due_ms = env.unix_ms().saturating_add(every_ms);
            match self.next(app, series).await {
                Ok(Status::Fine) => {}
                Ok(Status::Problems) => worst = Status::Problems,
                Err(Failure::Closed) => return Err(Failure::Closed),
                Err(failure) => {
                    worst = Status::Problems;
                    note(format_args!(
                        "error: {failure}; the next backup is due at {}",
                        time(due_ms)
                    ));
                }
            }
        }
    }

    async fn one(&self, app: &App, to: &Path) -> Result<Status, Failure> {
        app.place.file()?;
        let Kind::Sqlite(store) = app.place.open().await?.kind().clone() else {
            return Ok(Status::Problems);
        };
        let file = to.to_owned();
        let report = waited(move |bar| store.backup(&file, pages(&bar)))
            .await?
            .map_err(|error| not_written(&app.place, to, &error))?;
        book(app, to, &report, self.by.attribution()?).await;
        let bytes = fs::metadata(to).map_or(0, |data| data.len());
        let unreadable: Vec<_> = report.damaged.iter().map(unreadable).collect();
        let whole = unreadable.is_empty() && report.problems.is_empty();
        let status = if whole { Status::Fine } else { Status::Problems };
        let CheckReport { profiles: keys, profile_versions: versions, newest_ms, problems, .. } =
            &report;
        if app.json {
            json_document(&BackupRow {
                file: to,
                bytes,
                keys: *keys,
                versions: *versions,
                newest_ms: *newest_ms,
                problems,
                unreadable,
                unlisted: report.unlisted,
            })?;
            return Ok(status);
        }
        let mut out = out();
        text(&mut out, format_args!("backed up to {}, {}", to.display(), size(bytes)))?;
        let newest = newest_ms.map_or_else(|| "never".to_owned(), time);
        text(
            &mut out,
            format_args!(
                "it holds {} with {}, the newest of {newest}",
                count(*keys, "key", "keys"),
                count(*versions, "version", "versions")
            ),
        )?;
        for problem in problems {
            text(&mut out, format_args!("problem: {problem}, also in the backup"))?;
        }
        for value in &unreadable {
            let (what, why) = (named(value), &value.why);
            text(&mut out, format_args!("problem: {what}: {why}, also in the backup"))?;
        }
        if let Some(more) = unlisted(&report) {
            text(&mut out, format_args!("problem: {more}, also in the backup"))?;
        }
        out.flush()?;
        Ok(status)
    }
}

/// Verifies a backup where it is, and leaves it as it is.
async fn verify(app: &App, backup: &Path) -> Result<Status, Failure> {
    let place = Place::at(backup.to_owned());
    let store = place.open_to_read().await?;
    check(app, &place, store).await
}

/// Books a backup that was made, for `status`. One that cannot be booked is there all the same.
async fn book(app: &App, file: &Path, report: &CheckReport, by: Attribution) {
    let env = Env::system();
    let entry = AuditEntry::new(env.uuid(), "backup", Vec::new(), by)
        .detail("file", file.display().to_string())
        .detail("keys", report.profiles)
        .detail("whole", report.problems.is_empty() && report.damaged.is_empty());
    let booked = match app.place.open().await {
        Ok(store) => entry.book(&*store, &env, 0).await.map_err(failure),
        Err(failure) => Err(failure),
    };
    if let Err(failure) = booked {
        note(format_args!("warning: the backup could not be booked: {failure}"));
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
  profilestore restore --force profiles-2026-11-21.db
  profilestore --store sqlite:whole.db restore --salvage damaged.db")]
pub(crate) struct Restore {
    /// The backup
    from: PathBuf,
    /// Replace the contents of a store that is there
    #[arg(long)]
    force: bool,
    /// Out of a damaged backup: make a new store of all that is whole, and list the rest. Versions
    /// are numbered anew, and neither pins nor the audit log come along
    #[arg(long, conflicts_with = "force")]
    salvage: bool,
}

#[derive(Serialize)]
struct RestoreRow {
    incarnation: String,
}

impl Restore {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let to = app.place.file()?.to_owned();
        let existing = if self.force { Existing::Replace } else { Existing::Keep };
        // An empty file is what a restore of an earlier program left when it was killed.
        let is_there = fs::metadata(&to).is_ok_and(|file| !file.is_file() || file.len() > 0);
        if existing == Existing::Keep && is_there {
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
        if self.salvage {
            return salvage_file(app, &self.from, &to).await;
        }
        // Only a whole backup becomes the store.
        Place::Sqlite(self.from.clone()).check_there()?;
        let from = self.from.clone();
        let restored = waited(move |bar| {
            SqliteStore::restore(&from, &to, existing, &SqliteOptions::default(), pages(&bar))
        })
        .await?;
        let incarnation = restored.map_err(|error| not_done(&app.place, &error))?;
        match app.json {
            true => json_document(&RestoreRow { incarnation: incarnation.to_string() })?,
            false => say(format_args!("restored {} from {}", app.place, self.from.display()))?,
        }
        Ok(Status::Fine)
    }
}

/// What of a profile cannot be read.
pub(crate) fn named(value: &UnreadableValue) -> String {
    match value {
        UnreadableValue { key, number: 0, .. } => format!("all of {key}"),
        UnreadableValue { key, number, .. } => format!("{key} version {number}"),
    }
}

fn unreadable(damaged: &DamagedValue) -> UnreadableValue {
    UnreadableValue {
        key: damaged.key.clone(),
        number: damaged.version,
        why: "the stored value is damaged".into(),
    }
}

/// That not everything is listed.
pub(crate) fn unlisted(report: &CheckReport) -> Option<String> {
    let more = count(report.unlisted, "more problem", "more problems");
    (report.unlisted > 0).then(|| format!("{more}, not listed one by one"))
}

/// Runs what waits for the disk, with a progress bar.
pub(crate) async fn waited<T: Send + 'static>(
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

/// A disk that is full, or a file that cannot be made, is the backup's: reading the store does
/// neither.
fn not_written(place: &Place, to: &Path, error: &StoreError) -> Failure {
    /// Reasons of the library that are about the new file.
    const NEW_FILE: [&str; 3] =
        ["the disk is full", "cannot ", "another process is writing this file"];
    match error {
        StoreError::Unavailable { reason }
            if NEW_FILE.iter().any(|begin| reason.starts_with(begin)) =>
        {
            // What cannot be made is named there.
            let named = match reason.contains("path=`") {
                true => String::new(),
                false => format!(": file=`{}`", to.display()),
            };
            Failure::Work(format!("the backup cannot be written: {reason}{named}"))
        }
        error => not_done(place, error),
    }
}

/// A call that was wrong, such as a file that is there already, is no fault of the store.
fn not_done(place: &Place, error: &StoreError) -> Failure {
    match error {
        StoreError::Invalid { reason } => Failure::Work(reason.clone()),
        error => place.failure(error),
    }
}
