//! Waiting while another process holds the file's write lock.

use std::time::{Duration, Instant as RealTime};

use tokio::time::Instant;

use super::{Inner, SqliteOptions, Trouble, holder, schema};
use crate::data_store::StoreError;

/// SQLite counts milliseconds in 31 bits.
const LONGEST_WAIT: Duration = Duration::from_secs(20 * 24 * 60 * 60);

impl SqliteOptions {
    /// The wait as SQLite can count it.
    pub(super) fn lock_wait(&self) -> Duration {
        self.busy_wait.min(LONGEST_WAIT)
    }
}

/// A time during which another process holds the file's write lock.
pub(super) struct Busy {
    pub(super) since: RealTime,
}

impl Default for Busy {
    fn default() -> Self {
        Self { since: real_time() }
    }
}

impl Busy {
    /// In short steps, so that another process's next pause is not missed.
    pub(super) fn wait(&self) {
        metrics::counter!("profilestore_sqlite_lock_waits_total").increment(1);
        let new = self.since.elapsed() < Duration::from_millis(5);
        std::thread::park_timeout(if new {
            Duration::from_micros(100)
        } else {
            Duration::from_millis(1)
        });
    }

    /// What to tell those who waited for too long.
    pub(super) fn trouble(&self, inner: &Inner, err: rusqlite::Error) -> StoreError {
        match (Trouble::from(err).not_applied(), holder::of(&inner.path)) {
            (StoreError::Unavailable { reason }, Some(holder)) => {
                StoreError::Unavailable { reason: format!("{reason}: holder=`{holder}`") }
            }
            (err, _) => err,
        }
    }
}

/// A moment in real time, for waits for other processes and for the disk: they last as long as they
/// last, whatever a test's clock says.
#[expect(
    clippy::disallowed_methods,
    reason = "neither another process's lock nor the disk is part of a world that a seed replays"
)]
pub(super) fn real_time() -> RealTime {
    RealTime::now()
}

/// Waits for something until a deadline; None: it came too late.
pub(super) async fn by<T>(deadline: Option<Instant>, wait: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, wait).await.ok(),
        None => Some(wait.await),
    }
}

/// Tries until the lock is free or the time is up.
pub(super) fn wait_while_busy<T>(
    limit: Duration,
    mut attempt: impl FnMut() -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    let busy = Busy::default();
    loop {
        match attempt() {
            Err(err) if schema::is_busy(&err) && busy.since.elapsed() < limit => busy.wait(),
            result => return result,
        }
    }
}
