//! A link whose game server runs in another process: hearing of it, and stopping.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Link,
    deadline::Patience,
    hosting::{Hosting, Stop},
};
use crate::{
    data_store::{Change, Returning},
    error::Result,
};

impl Link {
    /// Why nothing is done any more, if so.
    pub(crate) fn stopped(&self) -> Option<Stop> {
        self.hosting.as_ref().and_then(Hosting::stopped)
    }

    /// Stops the hosting. The first reason counts. What is under way makes no further attempt at
    /// the store.
    pub(crate) fn stop(&self, why: Stop) {
        if self.hosting.as_ref().is_some_and(|hosting| hosting.stop(why)) {
            tracing::info!(server = %self.server(), ?why, "a game server is no longer hosted here");
            self.close();
        }
    }

    /// Fails when another process hosts the game server, and stops then.
    pub(crate) async fn check_host(&self, patience: impl Patience) -> Result<()> {
        let Some(hosting) = &self.hosting else { return Ok(()) };
        let check = Change::CheckHost { id: self.server(), host: hosting.host };
        let commit = self.new_commit(vec![check], Returning::HEAD);
        self.settle(&commit, patience).await?;
        Ok(())
    }

    /// Waits until the hosting stops; for ever if this server runs in this process.
    pub(crate) async fn until_stopped(&self) {
        match &self.hosting {
            Some(hosting) => hosting.until_stopped().await,
            None => std::future::pending().await,
        }
    }

    /// The game server has called. Answers how old the confirmation is that it may go by, if there
    /// is one: `confirmed_at`, unless this process stood still since.
    pub(crate) fn heard(&self, confirmed_at: Instant) -> Option<Duration> {
        let hosting = self.hosting.as_ref()?;
        let now = self.env.now();
        let was_quiet = hosting.note_call(now);
        if hosting.stopped().is_some() {
            return None;
        }
        let counts = hosting.counts(confirmed_at, &self.env);
        if was_quiet || !counts {
            self.renew_now.notify_one();
        }
        if !counts {
            return None;
        }
        hosting.note_told(now);
        if defect!(AgeForgotten) {
            return Some(Duration::ZERO);
        }
        Some(now.saturating_duration_since(confirmed_at))
    }
}
