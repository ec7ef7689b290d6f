//! `restore --salvage`: a new store out of all that is whole in a damaged backup.

use std::{
    fs::{self, File},
    io::{BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use profilestore::{
    data_store::SqliteStore,
    env::Env,
    transfer::{ExportFilter, ExportReport, ImportOptions, ImportReport, import, salvage},
};
use serde::Serialize;

use crate::{
    args::App,
    maintain::{named, waited},
    output::{Failure, Status, count, json_document, out, text},
    place::Place,
    transfer::{every_key, progress_bar, show},
};

/// What came out of a damaged backup.
#[derive(Serialize)]
struct SalvageRow<'a> {
    keys: u64,
    versions: u64,
    unreadable: &'a [profilestore::transfer::UnreadableValue],
    skipped: &'a [profilestore::transfer::SkippedKey],
}

/// The files of this work beside the new store. They go with this value.
struct Beside {
    copy: PathBuf,
    lines: PathBuf,
    made: PathBuf,
}

impl Beside {
    fn of(to: &Path) -> Self {
        let beside = |more: &str| {
            let mut name = to.as_os_str().to_owned();
            name.push(more);
            PathBuf::from(name)
        };
        let beside = Self {
            copy: beside(".copy.partial"),
            lines: beside(".lines.partial"),
            made: beside(".partial"),
        };
        beside.clear();
        beside
    }

    fn clear(&self) {
        for file in [&self.copy, &self.lines, &self.made] {
            for more in ["", "-journal", "-wal", "-shm"] {
                let mut name = file.as_os_str().to_owned();
                name.push(more);
                // What is not there need not go.
                let _ = fs::remove_file(name);
            }
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Makes a store at `to` out of what is whole in `from`, which stays as it is. The store is there
/// under its name when it is complete.
pub(crate) async fn salvage_file(app: &App, from: &Path, to: &Path) -> Result<Status, Failure> {
    let failed = |error: std::io::Error| {
        Failure::Work(format!("the backup cannot be salvaged: {error}: file=`{}`", from.display()))
    };
    let beside = Beside::of(to);
    fs::copy(from, &beside.copy).map_err(failed)?;
    let exported = lines_of(&beside).await?;
    let imported = store_of(&beside).await?;
    File::open(&beside.made).and_then(|file| file.sync_all()).map_err(failed)?;
    // A link takes no other file's place.
    fs::hard_link(&beside.made, to).or_else(|_| fs::rename(&beside.made, to)).map_err(failed)?;
    let whole = exported.unreadable.is_empty() && imported.skipped.is_empty();
    report(app, from, &exported, &imported)?;
    Ok(if whole { Status::Fine } else { Status::Problems })
}

async fn lines_of(beside: &Beside) -> Result<ExportReport, Failure> {
    let place = Place::Sqlite(beside.copy.clone());
    // Where the tables are damaged too, they are read as they are.
    let copy = beside.copy.clone();
    let _ = waited(move |_| SqliteStore::mend_copy(copy)).await?;
    place.migrate_file(&beside.copy).await?;
    let store = place.open_or_create().await?;
    let names = every_key(&store).await?;
    let mut writer = BufWriter::new(File::create(&beside.lines)?);
    let bar = progress_bar();
    let mut progress = |progress| show(&bar, progress, None);
    let report =
        salvage(&*store, names, &ExportFilter::default(), &mut writer, &mut progress).await;
    bar.finish_and_clear();
    Ok(report?)
}

async fn store_of(beside: &Beside) -> Result<ImportReport, Failure> {
    let store = Place::Sqlite(beside.made.clone()).open_or_create().await?;
    let lines = BufReader::new(File::open(&beside.lines)?);
    let options = ImportOptions { author: "restore".into(), ..ImportOptions::default() };
    let bar = progress_bar();
    let mut progress = |progress| show(&bar, progress, None);
    let report = import(&*store, &Env::system(), lines, &options, &mut progress).await;
    bar.finish_and_clear();
    Ok(report?)
}

fn report(
    app: &App,
    from: &Path,
    exported: &ExportReport,
    imported: &ImportReport,
) -> Result<(), Failure> {
    let (keys, versions) = (imported.keys, imported.versions);
    let (unreadable, skipped) = (&exported.unreadable[..], &imported.skipped[..]);
    if app.json {
        return json_document(&SalvageRow { keys, versions, unreadable, skipped });
    }
    let mut out = out();
    text(
        &mut out,
        format_args!(
            "restored {} from what is whole in {}: {} with {}",
            app.place,
            from.display(),
            count(keys, "key", "keys"),
            count(versions, "version", "versions")
        ),
    )?;
    for left in unreadable {
        text(&mut out, format_args!("left out {}: {}", named(left), left.why))?;
    }
    for left in skipped {
        text(&mut out, format_args!("left out {}: {}", left.key, left.why))?;
    }
    Ok(out.flush()?)
}
