//! `restore --salvage`: a new store out of all that is whole in a damaged backup.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

use profilestore::{
    data_store::SqliteStore,
    env::Env,
    transfer::{ExportFilter, ExportReport, ImportOptions, ImportReport, import, salvage},
};
use serde::Serialize;

use crate::{
    app::App,
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
        let beside = Self {
            copy: behind(to, ".copy.partial"),
            lines: behind(to, ".lines.partial"),
            made: behind(to, ".partial"),
        };
        beside.clear();
        beside
    }

    fn clear(&self) {
        for file in [&self.copy, &self.lines, &self.made] {
            for more in ["", "-journal", "-wal", "-shm"] {
                // What is not there need not go.
                let _ = fs::remove_file(behind(file, more));
            }
        }
    }
}

/// A name with something behind it.
fn behind(file: &Path, more: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(more);
    PathBuf::from(name)
}

/// Copies a file with its log, which has the last commits of a program that did not end well.
fn copy_with_log(from: &Path, copy: &Path) -> io::Result<()> {
    fs::copy(from, copy)?;
    match fs::copy(behind(from, "-wal"), behind(copy, "-wal")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Gives a complete store its name. It takes no other file's place, and a log that a store of
/// before left behind is not read as this one's.
fn publish(made: &Path, to: &Path) -> io::Result<()> {
    File::open(made)?.sync_all()?;
    if !to.exists() {
        for more in ["-journal", "-wal", "-shm"] {
            match fs::remove_file(behind(to, more)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
    }
    match fs::hard_link(made, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // Not every system has links.
        linked => linked.or_else(|_| fs::rename(made, to)),
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Makes a store at `to` out of what is whole in `from` and its log, which stay as they are. The
/// store is there under its name when it is complete.
pub(crate) async fn salvage_file(app: &App, from: &Path, to: &Path) -> Result<Status, Failure> {
    let failed = |error: std::io::Error| {
        Failure::Work(format!("the backup cannot be salvaged: {error}: file=`{}`", from.display()))
    };
    let beside = Beside::of(to);
    copy_with_log(from, &beside.copy).map_err(failed)?;
    let exported = lines_of(&beside).await?;
    let imported = store_of(&beside).await?;
    publish(&beside.made, to).map_err(|error| {
        let to = to.display();
        Failure::Work(format!("the new store cannot get its name: {error}: file=`{to}`"))
    })?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// It took the place of a store that was made under the name meanwhile, and a log that lay
    /// there was taken for its own.
    #[test]
    fn a_salvaged_store_takes_no_other_ones_place_and_no_other_ones_log() {
        let folder = tempfile::tempdir().unwrap();
        let [made, to] = ["to.db.partial", "to.db"].map(|name| folder.path().join(name));
        fs::write(&made, "new").unwrap();
        fs::write(&to, "other").unwrap();
        fs::write(behind(&to, "-wal"), "its log").unwrap();
        assert_eq!(publish(&made, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&to).unwrap(), b"other");
        assert!(behind(&to, "-wal").exists());
        fs::remove_file(&to).unwrap();
        publish(&made, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"new");
        assert!(!behind(&to, "-wal").exists());
    }
}
