//! Backups that make themselves: a folder with one file for each time, of which the oldest go.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::output::Failure;

/// The backups of one store in one folder: `profiles-2026-11-27T05-12-33Z.db`.
#[derive(Debug)]
pub(crate) struct Series {
    folder: PathBuf,
    /// What every name begins with: the name of the store's file.
    stem: String,
}

/// What the name of a backup ends in until it is complete.
const PARTIAL: &str = ".partial";

/// How a time is written in a file's name.
const TIME: &str = "%Y-%m-%dT%H-%M-%SZ";

impl Series {
    /// The folder must be there: one that is mistyped, or whose disk is not mounted, would be made
    /// somewhere else.
    pub(crate) fn of(store: &Path, folder: &Path) -> Result<Self, Failure> {
        let shown = folder.display();
        match fs::metadata(folder) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(Failure::Work(format!("this is no folder: path=`{shown}`"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Failure::Work(format!(
                    "there is no such folder for backups; make it first: path=`{shown}`"
                )));
            }
            Err(error) => return Err(failed("read", folder, &error)),
        }
        let stem = store.file_stem().unwrap_or(store.as_os_str()).to_string_lossy().into_owned();
        Ok(Self { folder: folder.to_owned(), stem })
    }

    /// The name of a backup that is made at this time.
    pub(crate) fn name(&self, unix_ms: i64) -> PathBuf {
        let time = jiff::Timestamp::from_millisecond(unix_ms).unwrap_or_default();
        self.folder.join(format!("{}-{}.db", self.stem, time.strftime(TIME)))
    }

    /// The backups that are there with their times, the oldest first. Other files are none of this.
    pub(crate) fn there(&self) -> Result<Vec<(i64, PathBuf)>, Failure> {
        let failed = |error| failed("read", &self.folder, &error);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if let Some(unix_ms) = name.and_then(|name| self.time_of(name)) {
                found.push((unix_ms, path));
            }
        }
        found.sort();
        Ok(found)
    }

    fn time_of(&self, name: &str) -> Option<i64> {
        let time = name.strip_prefix(&*self.stem)?.strip_prefix('-')?.strip_suffix(".db")?;
        let read = jiff::civil::DateTime::strptime(TIME, time).ok()?;
        let unix_ms = read.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_millisecond();
        // So written and in no other way.
        (self.name(unix_ms).file_name()?.to_str()? == name).then_some(unix_ms)
    }

    /// Deletes what backups that were killed left behind, and says which. One that is being made is
    /// locked by the process that makes it.
    pub(crate) fn clear(&self) -> Result<Vec<PathBuf>, Failure> {
        let mut cleared = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(|e| failed("read", &self.folder, &e))? {
            let path = entry.map_err(|error| failed("read", &self.folder, &error))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let begun = name.and_then(|name| name.strip_suffix(PARTIAL));
            if begun.is_none_or(|name| self.time_of(name).is_none()) {
                continue;
            }
            let free = File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
            if free {
                // By the file's own name the others are found again.
                for more in ["-journal", "-wal", "-shm", ""] {
                    let mut file = path.clone().into_os_string();
                    file.push(more);
                    match fs::remove_file(&file) {
                        Err(error) if error.kind() != io::ErrorKind::NotFound => {
                            return Err(failed("delete", Path::new(&file), &error));
                        }
                        _ => {}
                    }
                }
                cleared.push(path);
            }
        }
        Ok(cleared)
    }

    /// Deletes all but the newest, and says which.
    pub(crate) fn keep(&self, newest: usize) -> Result<Vec<PathBuf>, Failure> {
        let mut there = self.there()?;
        there.truncate(there.len().saturating_sub(newest));
        for (_, old) in &there {
            fs::remove_file(old).map_err(|error| failed("delete", old, &error))?;
        }
        Ok(there.into_iter().map(|(_, old)| old).collect())
    }
}

#[cfg(test)]
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::Work(format!("cannot {what}: {error}: path=`{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `.partial` of a time that never comes again stayed for ever.
    #[test]
    fn what_killed_backups_left_is_deleted_and_what_is_being_made_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let series = Series::of(Path::new("/srv/game/profiles.db"), folder.path()).unwrap();
        let left = "profiles-2026-09-21T14-13-20Z.db.partial";
        let being_made = "profiles-2026-09-21T15-13-20Z.db.partial";
        let other = "game-2026-09-21T14-13-20Z.db.partial";
        for name in [left, &format!("{left}-journal"), being_made, other] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let lock = File::open(folder.path().join(being_made)).unwrap();
        lock.try_lock().unwrap();
        assert_eq!(series.clear().unwrap(), [folder.path().join(left)]);
        assert_eq!(names(folder.path()), [other, being_made]);
        drop(lock);
        assert_eq!(series.clear().unwrap(), [folder.path().join(being_made)]);
    }

    #[test]
    fn only_files_of_the_series_are_counted_and_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let series = Series::of(Path::new("/srv/game/profiles.db"), folder.path()).unwrap();
        let hour = 3_600_000;
        let at = |number: i64| 1_790_000_000_000 + number * hour;
        assert!(series.name(at(0)).ends_with("profiles-2026-09-21T14-13-20Z.db"));
        for number in [2, 0, 1] {
            fs::write(series.name(at(number)), "x").unwrap();
        }
        let others = [
            "profiles.db",
            "profiles-2026-09-21.db",
            "profiles-2026-09-21T14-13-20Z.db.partial",
            "profiles-old-2026-09-21T14-13-20Z.db",
            "profiles-2026-9-21T14-13-20Z.db",
            "game-2026-09-21T14-13-20Z.db",
        ];
        for other in others {
            fs::write(folder.path().join(other), "x").unwrap();
        }
        let times = |series: &Series| -> Vec<i64> {
            series.there().unwrap().into_iter().map(|(unix_ms, _)| unix_ms).collect()
        };
        assert_eq!(times(&series), [at(0), at(1), at(2)]);
        assert_eq!(series.keep(2).unwrap(), [series.name(at(0))]);
        assert_eq!(series.keep(5).unwrap(), Vec::<PathBuf>::new());
        assert_eq!(times(&series), [at(1), at(2)]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2 + others.len());
    }
}
