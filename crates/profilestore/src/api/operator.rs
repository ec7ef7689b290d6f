//! What operators do to profiles from outside the game, whatever the type of their data: each call is booked in the audit log, in
//! the commit that does it.

use std::{fmt, sync::Arc, time::Duration};

use serde::Serialize;
use serde_json::Value;

use crate::{
    api::game_server::GameServer,
    audit::{Attribution, AuditEntry, AuditOutcome},
    data::{Codec, TypedCodec, payload},
    data_store::{MessageId, Returning, VersionInfo, VersionRef},
    engine::{
        Engine,
        calls::Sent,
        erase::EraseReport,
        history::{Restored, Which},
        options::StartOptions,
    },
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    session::info::SessionEnd,
};

/// An operator at work on the profiles of a game server's store. Made by [`crate::GameServer::operator`]. Cheap to clone.
///
/// A call begins when it is first polled and then takes its place in the order of this server's calls for the profile; dropping it
/// cancels nothing that has begun. It waits for a few round trips, during an outage for at most
/// [`crate::Settings::call_timeout`]. None of them concerns mock stores.
///
/// Every call fails with [`ErrorKind::Invalid`] on a key of [`crate::RESERVED_STORE`] and when author or reason break their limits.
#[derive(Clone)]
pub struct Operator {
    engine: Arc<Engine>,
    by: Attribution,
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Operator").field(&self.by).finish()
    }
}

impl GameServer {
    /// Someone who changes profiles from outside the game, in whose name it is booked.
    pub fn operator(&self, by: Attribution) -> Operator {
        Operator::new(self.inner.engine.clone(), by)
    }
}

impl Operator {
    pub(crate) fn new(engine: Arc<Engine>, by: Attribution) -> Self {
        Self { engine, by }
    }

    fn check(&self, key: &ProfileKey) -> Result<()> {
        self.by.check()?;
        match key.is_reserved() {
            true => Err(Error::new(ErrorKind::Invalid, "the library keeps its own books there").about(key)),
            false => Ok(()),
        }
    }

    /// Makes an earlier version current again, byte for byte, as a new version ([`crate::data_store::Cause::Restore`]); ends
    /// whatever session there is, whose unsaved changes are lost. What it replaces stays in the history; waiting messages stay.
    /// Works on values that are no profiles too.
    ///
    /// Fails with [`ErrorKind::NotFound`] when the version is not, or no longer, in the history; with [`ErrorKind::Invalid`] when it
    /// is a tombstone.
    pub async fn restore(&self, key: &ProfileKey, version: VersionRef) -> Result<Restored> {
        self.check(key)?;
        self.engine.restore(key, Which::Named(version), self.by.clone()).await
    }

    /// Keeps a version whatever the retention, or gives it free again. Answers with the version. Fails with [`ErrorKind::NotFound`]
    /// when it is not, or no longer, in the history.
    pub async fn pin(&self, key: &ProfileKey, version: VersionRef, pinned: bool) -> Result<VersionInfo> {
        self.check(key)?;
        self.engine.pin(key, Which::Named(version), pinned, self.by.clone()).await
    }

    /// Removes a profile, as [`crate::ProfileStore::remove`] does. False when there was nothing.
    pub async fn remove(&self, key: &ProfileKey) -> Result<bool> {
        self.check(key)?;
        self.engine.remove(key, Some(self.by.clone())).await
    }

    /// Sends a message, as [`crate::ProfileStore::send_message_as`] does. One that was stored before is not booked again.
    pub async fn send<M: Serialize + Sync + ?Sized>(&self, key: &ProfileKey, id: &MessageId, message: &M) -> Result<Sent> {
        self.check(key)?;
        self.engine.send(key, id.clone(), payload(&message)?, Some(self.by.clone())).await
    }

    /// Ends the session on a profile: asks its holder to save and let go, as another server would that wants it; a dead server's is
    /// ended after its lease time. With `steal` it is not asked, and what it has not saved is lost. Answers with the job that held
    /// it; None when nobody did, which is not booked.
    ///
    /// It is booked as pending first and as done or refused in the end, since the holder does its part. Fails as
    /// [`crate::ProfileStore::start_session`] does, after `timeout` at the latest.
    pub async fn end_session(&self, key: &ProfileKey, steal: bool, timeout: Duration) -> Result<Option<String>> {
        self.check(key)?;
        let (_, state) =
            self.engine.link.read_settled(key, Returning::HEAD).await.map_err(|error| Error::from(error).about(key))?;
        let Some(holder) = state.lease.holder else { return Ok(None) };
        let entry = AuditEntry::new(self.engine.link.env.uuid(), "end-session", vec![key.clone()], self.by.clone())
            .detail("held_by", holder.job_id.clone())
            .detail("steal", steal);
        self.engine.book(&entry.clone().outcome(AuditOutcome::Pending), 0).await?;
        let ended = self.end(key, steal, timeout).await;
        let outcome = match &ended {
            Ok(()) => AuditOutcome::Done,
            Err(error) => AuditOutcome::Refused { why: error.to_string() },
        };
        self.engine.book(&entry.outcome(outcome), 1).await?;
        ended.map(|()| Some(holder.job_id))
    }

    async fn end(&self, key: &ProfileKey, steal: bool, timeout: Duration) -> Result<()> {
        if let Some(own) = self.engine.table.live(key) {
            return own.finish(SessionEnd::Manual).await;
        }
        let codec: Arc<dyn Codec> = Arc::new(TypedCodec::<Value>::as_it_is());
        let options = StartOptions { steal, timeout: Some(timeout), ..StartOptions::default() };
        match self.engine.start_session(key, codec, options).await {
            Ok(session) => session.finish(SessionEnd::Manual).await,
            // Removed meanwhile, and its session with it.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Erases every profile of a user: those associated with the user now, or when they were removed. Data, history (pinned versions
    /// included), waiting messages, and what the audit log holds of their content. Names, counters and the receipts of messages
    /// stay: an epoch that was raised keeps every session of before from writing anything back, and a sender's retry does not
    /// revive a message. Sessions end; who holds them is told. A profile of several users is left alone and reported, unless
    /// `shared` is set.
    ///
    /// One commit a profile: what fails is reported, and erasing again goes on with the rest. Not erased are backups and exports.
    /// With SQLite call `SqliteStore::vacuum` afterwards, so that the bytes are gone from the files as well.
    ///
    /// Fails, perhaps after some profiles, when the store cannot be used.
    pub async fn erase_user(&self, user_id: i64, shared: bool) -> Result<EraseReport> {
        self.by.check()?;
        self.engine.erase_user(user_id, shared, &self.by).await
    }
}
