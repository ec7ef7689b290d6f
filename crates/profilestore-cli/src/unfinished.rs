//! A file that an export writes: it has its name when it is complete.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use crate::output::Failure;

/// A file that gets its name when it is complete. What is not finished is deleted; what a process
/// that was killed left behind is replaced by the next one.
pub(crate) struct Output {
    pub(crate) writer: BufWriter<Packed>,
    unfinished: Unfinished,
}

/// The file under the name that it has until it is complete: `NAME.partial`.
struct Unfinished {
    path: PathBuf,
    /// Locked, so that no other process writes into it.
    _lock: File,
    finished: bool,
}

pub(crate) enum Packed {
    Plain(File),
    Zstd(Box<zstd::Encoder<'static, File>>),
}

impl Write for Packed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

impl Unfinished {
    /// Made, locked and empty.
    fn create(path: PathBuf) -> Result<(Self, File), Failure> {
        let cannot = |error: io::Error| cannot_write(&path, &error);
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let lock = lock.map_err(cannot)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::Work(format!(
                    "another program is writing this file: file=`{}`",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(cannot(error)),
        }
        lock.set_len(0).map_err(cannot)?;
        let file = lock.try_clone().map_err(cannot)?;
        Ok((Self { path, _lock: lock, finished: false }, file))
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            // It is of no use, and may have filled the disk. If it stays, the next one replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Output {
    pub(crate) fn create(file: &Path, force: bool) -> Result<Self, Failure> {
        if !force && file.exists() {
            return Err(Failure::Work(format!(
                "the file exists already, add --force to replace it: file=`{}`",
                file.display()
            )));
        }
        let mut name = file.as_os_str().to_owned();
        name.push(".partial");
        let (unfinished, created) = Unfinished::create(PathBuf::from(name))?;
        let packed = match file.extension().is_some_and(|extension| extension == "zst") {
            true => {
                let encoder = zstd::Encoder::new(created, 3);
                Packed::Zstd(Box::new(encoder.map_err(|error| cannot_write(file, &error))?))
            }
            false => Packed::Plain(created),
        };
        Ok(Self { writer: BufWriter::with_capacity(1 << 16, packed), unfinished })
    }

    pub(crate) fn finish(self, name: &Path) -> Result<(), Failure> {
        let Self { writer, mut unfinished } = self;
        let finished = || -> io::Result<()> {
            let file = match writer.into_inner().map_err(io::IntoInnerError::into_error)? {
                Packed::Plain(file) => file,
                Packed::Zstd(encoder) => encoder.finish()?,
            };
            file.sync_all()?;
            fs::rename(&unfinished.path, name)
        };
        finished().map_err(|error| cannot_write(name, &error))?;
        unfinished.finished = true;
        Ok(())
    }
}

fn cannot_write(file: &Path, error: &io::Error) -> Failure {
    Failure::Work(format!("the file cannot be written: {error}: file=`{}`", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two exports wrote into one file, and it got its name twice.
    #[test]
    fn two_exports_do_not_write_into_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("all.jsonl");
        let partial = folder.path().join("all.jsonl.partial");
        // A process that was killed left it.
        fs::write(&partial, "of before").unwrap();
        let mut first = Output::create(&name, false).unwrap();
        assert_eq!(fs::read(&partial).unwrap(), b"");
        let Err(Failure::Work(why)) = Output::create(&name, false) else { panic!("it is locked") };
        assert!(why.contains("another program is writing"), "{why}");
        first.writer.write_all(b"all").unwrap();
        first.finish(&name).unwrap();
        assert_eq!(fs::read(&name).unwrap(), b"all");
        assert!(!partial.exists());
    }

    /// It stayed on the disk that it had filled.
    #[test]
    fn what_is_not_finished_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().join("all.jsonl.zst");
        drop(Output::create(&name, false).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        fs::create_dir(&name).unwrap();
        let output = Output::create(&name, true).unwrap();
        assert!(matches!(output.finish(&name), Err(Failure::Work(_))));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
