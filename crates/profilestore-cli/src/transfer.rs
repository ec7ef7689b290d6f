//! `import` and `export`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use profilestore::{
    ProfileKey, UserId,
    audit::{AuditEntry, AuditOutcome},
    data_store::{KeyFilter, KeyQuery},
    env::Env,
    transfer::{
        ExportFilter, ExportReport, ImportOptions, ImportReport, MAX_LISTED, Progress, export,
        import, salvage,
    },
};

use crate::{
    app::App,
    given::{ByArgs, plain_name},
    maintain::named,
    operate::failure,
    output::{
        Failure, Status, chain, count, facts, json_document, note, one_line, out, text,
        visible_json,
    },
    place::{Kind, Store},
    search::{Where, says_scan},
    unfinished::Output,
};

const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Bring profiles in from lines of JSON, with their history
///
/// Every line is one version of one key, as `export` writes them. Versions become history with
/// their original times and version strings; sessions, hand-over requests and messages of each
/// key's last version become live. A key that exists already is left alone, so an import may be
/// repeated, and one that was broken off is completed by running it again. Temporary files are
/// beside the SQLite file, or in the folder that TMPDIR names, and take about as much room as the
/// store will. Booked in the audit log. Values that are no profiles are kept and reported. A line
/// that cannot be understood is reported and its key left out as a whole; the exit code is then 1.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore import records.jsonl
  profilestore --store sqlite:game.db import --json records.jsonl.zst
  ssh live profilestore export | profilestore --store sqlite:copy.db import -")]
pub(crate) struct Import {
    /// The file, plain or zstd; - for standard input
    file: PathBuf,
    #[command(flatten)]
    by: ByArgs,
}

impl Import {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let by = self.by.attribution()?;
        let (reader, length) = open_input(&self.file)?;
        let store = app.place.open_or_create().await?;
        store.for_writing()?;
        let bar = progress_bar();
        let mut progress = |progress: Progress| show(&bar, progress, length);
        let options = ImportOptions { author: by.author.clone(), folder: folder_of(&store) };
        let env = Env::system();
        let entry = AuditEntry::new(env.uuid(), "import", Vec::new(), by)
            .detail("file", self.file.display().to_string());
        entry
            .clone()
            .outcome(AuditOutcome::Pending)
            .book(&*store, &env, 0)
            .await
            .map_err(failure)?;
        let report = import(&*store, &env, reader, &options, &mut progress).await;
        bar.finish_and_clear();
        let entry = match &report {
            Ok(report) => entry.detail("keys", report.keys).detail("versions", report.versions),
            // Perhaps after some of it.
            Err(error) => entry.outcome(AuditOutcome::Refused { why: chain(error) }),
        };
        // What was stored is stored, whether or not this can be booked.
        if let Err(error) = entry.book(&*store, &env, 1).await {
            let error = chain(&error);
            note(format_args!("warning: the end of the import could not be booked: {error}"));
        }
        let report = report?;
        match app.json {
            true => json_document(&report)?,
            false => show_import(&report)?,
        }
        let complete = report.skipped.is_empty() && report.malformed.is_empty();
        Ok(if complete { Status::Fine } else { Status::Problems })
    }
}

/// Write profiles out as lines of JSON, with their history
///
/// Writes all kept versions of every key, one a line, in the form that `import` reads. Waiting
/// messages are in the line of the last version, or in further lines when they are more than 4 MiB
/// together with the data. To standard output, unless a file is named; the report then goes to
/// standard error. A file is complete once it is there under its name.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore export | wc -l
  profilestore export all.jsonl.zst
  profilestore export --store-name PlayerData --prefix 12 some.jsonl
  profilestore export --user 261 user-261.jsonl.zst
  profilestore export --where '/coins > 1e9' --current rich.jsonl
  profilestore export --salvage --store sqlite:damaged.db whole.jsonl.zst")]
pub(crate) struct Export {
    /// The file, compressed when its name ends in .zst; - for standard output
    file: Option<PathBuf>,
    #[command(flatten)]
    filter: Names,
    #[command(flatten)]
    by_value: Where,
    /// Without earlier versions
    #[arg(long)]
    current: bool,
    /// Replace the file if it exists
    #[arg(long, requires = "file")]
    force: bool,
    /// Go through a damaged SQLite file by what can be read of its table of keys, write all that is
    /// whole, and list the rest
    #[arg(long, conflicts_with_all = ["user", "filter", "current"])]
    salvage: bool,
}

/// Which names are meant.
#[derive(Debug, Args)]
pub(crate) struct Names {
    /// Only this store's profiles
    #[arg(long, value_parser = plain_name, value_name = "NAME")]
    pub(crate) store_name: Option<String>,
    /// Only this scope's profiles
    #[arg(long, value_parser = plain_name)]
    pub(crate) scope: Option<String>,
    /// Only keys that begin with this
    #[arg(long, value_parser = plain_name, conflicts_with = "user")]
    pub(crate) prefix: Option<String>,
    /// Only profiles associated with this user, also those shared with other users
    #[arg(long, value_name = "ID")]
    pub(crate) user: Option<UserId>,
}

impl Names {
    fn filter(self) -> ExportFilter {
        let keys = match (self.prefix, self.user) {
            (Some(prefix), _) => KeyFilter::Prefix(prefix),
            (None, Some(user)) => user.keys(),
            (None, None) => KeyFilter::All,
        };
        ExportFilter { store: self.store_name, scope: self.scope, keys, ..ExportFilter::default() }
    }
}

impl Export {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let store = app.place.open().await?;
        let filter = ExportFilter {
            filter: self.by_value.filter,
            current: self.current,
            ..self.filter.filter()
        };
        let bar = progress_bar();
        if filter.filter.is_some() {
            let ExportFilter { store, scope, keys, .. } = filter.clone();
            let query = KeyQuery { store, scope, filter: keys, after: None, limit: 0 };
            note(format_args!("{}", says_scan(&query)));
        }
        let mut looked_at = 0;
        let mut progress = |progress: Progress| match progress {
            Progress::LookedAt { keys } => {
                looked_at += keys;
                bar.set_message(format!("scan: {}", count(looked_at, "key", "keys")));
                bar.tick();
            }
            progress => show(&bar, progress, None),
        };
        let names = match self.salvage {
            true => Some(every_key(&store).await?),
            false => None,
        };
        let mut written = async |writer: &mut (dyn Write + Send)| match &names {
            Some(names) => salvage(&*store, names.clone(), &filter, writer, &mut progress).await,
            None => export(&*store, &filter, writer, &mut progress).await,
        };
        let file = self.file.filter(|file| file.as_os_str() != "-");
        let report = match &file {
            None => written(&mut crate::output::out()).await,
            Some(file) => {
                let mut output = Output::create(file, self.force)?;
                let report = written(&mut output.writer).await;
                if report.is_ok() {
                    output.finish(file)?;
                }
                report
            }
        };
        bar.finish_and_clear();
        let report = report?;
        show_export(&report, app.json, file.is_none())?;
        Ok(if report.unreadable.is_empty() { Status::Fine } else { Status::Problems })
    }
}

/// Where an import's temporary files are: beside the store's file, which needs as much room.
fn folder_of(store: &Store) -> Option<PathBuf> {
    let Kind::Sqlite(file) = store.kind() else { return None };
    let folder = file.path().parent()?;
    Some(if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() })
}

/// The names of all keys of a file that may be damaged.
pub(crate) async fn every_key(store: &Store) -> Result<Vec<ProfileKey>, Failure> {
    let Kind::Sqlite(file) = store.kind().clone() else {
        return Err(Failure::Usage(
            "--salvage is for SQLite files; a database has its own means for damaged pages".into(),
        ));
    };
    match tokio::task::spawn_blocking(move || file.every_key()).await {
        Ok(names) => Ok(names?),
        Err(error) => Err(Failure::Work(format!("the work broke off: {error}"))),
    }
}

/// The input, unpacked, and its length if that is known.
fn open_input(file: &Path) -> Result<(Box<dyn BufRead>, Option<u64>), Failure> {
    let cannot_read = |error: io::Error| {
        Failure::Work(format!("the input cannot be read: {error}: file=`{}`", file.display()))
    };
    let (mut reader, length): (Box<dyn BufRead>, _) = match file.as_os_str() == "-" {
        true => (Box::new(BufReader::new(io::stdin())), None),
        false => {
            let file = File::open(file).map_err(cannot_read)?;
            let length = file.metadata().ok().map(|data| data.len());
            (Box::new(BufReader::with_capacity(1 << 16, file)), length)
        }
    };
    // A pipe may give less than that at once.
    let mut first = Vec::with_capacity(ZSTD_MAGIC.len());
    reader.by_ref().take(ZSTD_MAGIC.len() as u64).read_to_end(&mut first).map_err(cannot_read)?;
    let is_packed = first == ZSTD_MAGIC;
    let reader = io::Cursor::new(first).chain(reader);
    if is_packed {
        let unpacked = zstd::Decoder::with_buffer(reader).map_err(cannot_read)?;
        return Ok((Box::new(BufReader::with_capacity(1 << 16, unpacked)), None));
    }
    Ok((Box::new(reader), length))
}

/// On stderr, when that is a terminal.
pub(crate) fn progress_bar() -> ProgressBar {
    ProgressBar::no_length().with_style(
        ProgressStyle::with_template(
            "{spinner} \
        {msg}",
        )
        .expect("the template is valid"),
    )
}

pub(crate) fn show(bar: &ProgressBar, progress: Progress, length: Option<u64>) {
    match progress {
        Progress::Read { bytes } => match length.filter(|length| *length > 0) {
            Some(length) => {
                bar.set_message(format!("reading {} %", bytes.min(length) * 100 / length))
            }
            None => bar.set_message(format!("reading, {} so far", crate::output::size(bytes))),
        },
        Progress::Stored { versions, of } => {
            bar.set_message(format!("stored {versions} of {}", count(of, "version", "versions")))
        }
        Progress::Passed { keys, versions } => {
            bar.set_message(format!(
                "{}, {}",
                count(keys, "key", "keys"),
                count(versions, "version", "versions")
            ));
        }
        _ => {}
    }
    bar.tick();
}

fn show_import(report: &ImportReport) -> Result<(), Failure> {
    let mut out = out();
    let keys = |number| count(number, "key", "keys");
    let versions = |number| count(number, "version", "versions");
    let mut said =
        vec![("imported", format!("{} with {}", keys(report.keys), versions(report.versions)))];
    if report.tombstones > 0 {
        said.push(("tombstones", versions(report.tombstones)));
    }
    if report.already_there.keys > 0 {
        let there = report.already_there;
        said.push((
            "already there",
            format!("{} with {}", keys(there.keys), versions(there.versions)),
        ));
    }
    said.push(("sessions held", held(report.held_sessions, report.handover_requests)));
    said.push(("messages", waiting(report.pending)));
    said.push((
        "foreign values",
        count(report.foreign_values, "value, kept as it came", "values, kept as they came"),
    ));
    said.push(("skipped", keys(report.skipped_keys)));
    said.push(("malformed", count(report.malformed.len() as u64, "line", "lines")));
    facts(&mut out, &said)?;
    if !report.foreign.is_empty() {
        writeln!(out)?;
        text(&mut out, format_args!("foreign values{}:", first(report.foreign_values)))?;
        for foreign in &report.foreign {
            text(
                &mut out,
                format_args!("  {} version {}: {}", foreign.key, foreign.n, foreign.why),
            )?;
        }
    }
    if !report.skipped.is_empty() {
        writeln!(out)?;
        text(&mut out, format_args!("skipped keys{}:", first(report.skipped_keys)))?;
        for skipped in &report.skipped {
            text(
                &mut out,
                format_args!(
                    "  {} with {}: {}",
                    skipped.key,
                    versions(skipped.versions),
                    skipped.why
                ),
            )?;
        }
    }
    if !report.malformed.is_empty() {
        writeln!(out)?;
        text(&mut out, format_args!("malformed lines:"))?;
        for bad in &report.malformed {
            let key = bad.key.as_ref().map(|key| format!(" of {key}")).unwrap_or_default();
            text(&mut out, format_args!("  line {}{key}: {}", bad.line, bad.why))?;
        }
    }
    Ok(out.flush()?)
}

/// Says that a list is not complete.
fn first(all: u64) -> String {
    match all > MAX_LISTED as u64 {
        true => format!(" (the first {MAX_LISTED})"),
        false => String::new(),
    }
}

fn show_export(report: &ExportReport, json: bool, on_stderr: bool) -> Result<(), Failure> {
    let mut said = match json {
        true => visible_json(&serde_json::to_string(report)?).into_owned(),
        false => {
            let (keys, versions) =
                (count(report.keys, "key", "keys"), count(report.versions, "version", "versions"));
            format!("exported {keys} with {versions}")
        }
    };
    if !json {
        for unreadable in &report.unreadable {
            let why = one_line(&unreadable.why);
            said += &format!("\nleft out {}: {why}", named(unreadable));
        }
    }
    match on_stderr {
        true => writeln!(io::stderr(), "{said}")?,
        false => writeln!(io::stdout(), "{said}")?,
    }
    Ok(())
}

pub(crate) fn held(sessions: u64, asked_for: u64) -> String {
    match asked_for {
        0 => count(sessions, "profile", "profiles"),
        _ => format!(
            "{}, {asked_for} asked for by another server",
            count(sessions, "profile", "profiles")
        ),
    }
}

pub(crate) fn waiting(pending: profilestore::transfer::Pending) -> String {
    let mut text = count(pending.entries, "waiting", "waiting");
    if pending.keys > 0 {
        text += &format!(" on {}, {} locked", count(pending.keys, "key", "keys"), pending.locked);
    }
    text
}
