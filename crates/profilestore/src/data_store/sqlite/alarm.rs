//! Waking the threads that look for hints in the other processes of a file, on Linux.
//!
//! A process that has left a notice sets the time of the file's `-shm`, by its name: SQLite never
//! goes by that time. The kernel tells it to each process that watches `-shm` with inotify, also
//! in another container. Elsewhere, and where it fails, those threads find the notice when they
//! look the next time.

use std::{io, path::Path};

#[cfg(target_os = "linux")]
pub(super) use linux::{Alarm, ring};

#[cfg(target_os = "linux")]
mod linux {
    use std::{mem::MaybeUninit, os::fd::OwnedFd, sync::Arc};

    use rustix::{
        fs::{
            AtFlags, CWD, Timespec, Timestamps, UTIME_NOW,
            inotify::{self, CreateFlags, ReadFlags, WatchFlags},
            utimensat,
        },
        io::Errno,
    };

    use super::{Path, io};
    use crate::data_store::sqlite::schema::beside;

    /// Wakes the threads of all processes that watch this file.
    pub(in super::super) fn ring(file: &Path) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        if let Err(err) = utimensat(CWD, beside(file, "-shm"), &times, AtFlags::empty()) {
            tracing::debug!(%err, "other processes were not woken");
        }
    }

    /// Calls a function whenever a process rings. Ends when it is dropped.
    pub(in super::super) struct Alarm {
        inotify: Arc<OwnedFd>,
        watch: i32,
    }

    impl Alarm {
        /// Watches a file that is open, so that its `-shm` is there.
        pub(in super::super) fn new(
            file: &Path,
            rung: impl Fn() + Send + 'static,
        ) -> io::Result<Self> {
            let inotify = Arc::new(inotify::init(CreateFlags::CLOEXEC)?);
            let watch = inotify::add_watch(&inotify, beside(file, "-shm"), WatchFlags::ATTRIB)?;
            let alarm = Self { inotify, watch };
            let events = Arc::clone(&alarm.inotify);
            let thread = std::thread::Builder::new().name("profilestore-alarm".into());
            thread.spawn(move || listen(&events, rung))?;
            Ok(alarm)
        }
    }

    impl Drop for Alarm {
        fn drop(&mut self) {
            // The thread is told, and ends. It fails when the file is gone, of which the thread was
            // told before.
            let _ = inotify::remove_watch(&self.inotify, self.watch);
        }
    }

    fn listen(inotify: &OwnedFd, rung: impl Fn()) {
        let mut buffer = [MaybeUninit::uninit(); 1024];
        let mut events = inotify::Reader::new(inotify, &mut buffer);
        loop {
            match events.next() {
                Ok(event) if event.events().contains(ReadFlags::IGNORED) => return,
                Ok(_) => rung(),
                Err(Errno::INTR) => {}
                Err(err) => {
                    tracing::debug!(%err, "other processes cannot wake this one any more");
                    return;
                }
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn ring(_: &Path) {}

/// There is none on this system.
#[cfg(not(target_os = "linux"))]
pub(super) struct Alarm;

#[cfg(not(target_os = "linux"))]
impl Alarm {
    pub(super) fn new(_: &Path, _: impl Fn() + Send + 'static) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    #[test]
    fn a_ring_is_heard_until_the_alarm_is_dropped() {
        const LONG: Duration = Duration::from_secs(60);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.db");
        let (heard, calls) = mpsc::channel();
        let hear = move || heard.send(()).unwrap();
        assert!(Alarm::new(&file, || {}).is_err(), "there is no -shm");
        std::fs::write(folder.path().join("p.db-shm"), "").unwrap();
        let alarm = Alarm::new(&file, hear).unwrap();
        for _ in 0..3 {
            ring(&file);
            calls.recv_timeout(LONG).unwrap();
        }
        drop(alarm);
        // Its thread ends, and with it the function that it called.
        assert_eq!(calls.recv_timeout(LONG), Err(mpsc::RecvTimeoutError::Disconnected));
        ring(&file);
        ring(&folder.path().join("no such file"));
    }

    #[test]
    fn an_alarm_ends_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("p.db");
        std::fs::write(folder.path().join("p.db-shm"), "").unwrap();
        let (heard, calls) = mpsc::channel::<()>();
        let hear = move || {
            let _ = heard.send(());
        };
        let alarm = Alarm::new(&file, hear).unwrap();
        std::fs::remove_file(folder.path().join("p.db-shm")).unwrap();
        while calls.recv_timeout(Duration::from_secs(60)).is_ok() {}
        drop(alarm);
    }
}
