//! Ending a session from outside the game.

use std::{sync::Arc, time::Duration};

use serde_json::Value;

use crate::{
    api::operator::Operator,
    audit::{AuditEntry, AuditOutcome},
    data::{Codec, TypedCodec},
    data_store::Returning,
    engine::{
        Engine,
        options::{StartOptions, another_session},
    },
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    link::deadline::Deadline,
    session::info::SessionEnd,
};

/// Which session is to be ended, and how.
struct Ending {
    key: ProfileKey,
    /// None: whichever holds the profile.
    epoch: Option<u64>,
    steal: bool,
    timeout: Duration,
}

impl Operator {
    /// Ends the session on a profile: asks its holder to save and let go, as another server would
    /// that wants it; a dead server's is ended after its lease time. With `steal` it is not asked,
    /// and what it has not saved is lost. Answers with the job that held it; None when no server
    /// held it, which is not booked.
    ///
    /// The holder is told who ended it, and why ([`crate::SessionEnd::Operator`]). It is booked as
    /// pending first and as done or refused in the end, since the holder does its part.
    ///
    /// Where another server holds the profile, this call starts a session here, with the data as
    /// plain JSON, and ends it at once. A login on this server meanwhile fails with
    /// [`ErrorKind::Invalid`], because it asks for another type: log in again when this call is
    /// done.
    ///
    /// # Errors
    ///
    /// Those of [`crate::ProfileStore::start_session`] after `timeout`: what has not reached the
    /// store by then is called off, and steals nothing later. A holder that has begun to let go by
    /// then still does. Whether the session has ended all the same is asked of the store, and the
    /// answer booked, for [`crate::Settings::call_timeout`] more at most. [`ErrorKind::Unknown`]
    /// when the store does not say; when the session's last save is not stored within `timeout`, or
    /// [`crate::Settings::call_timeout`] if that is longer: it goes on; and when the session has
    /// ended and that could not be booked. Two of them say that a login came at the same moment and
    /// gets the profile: [`ErrorKind::TakenElsewhere`] on another server, [`ErrorKind::Invalid`] on
    /// this one. The old session ends for that login.
    pub fn end_session(
        &self,
        key: &ProfileKey,
        steal: bool,
        timeout: Duration,
    ) -> impl Future<Output = Result<Option<String>>> + Send + 'static + use<> {
        let ending = Ending { key: key.clone(), epoch: None, steal, timeout };
        let operator = self.clone();
        self.begin(async move { operator.end_booked(&ending).await })
    }

    /// The same of one session only, the one with this epoch. Fails with [`ErrorKind::Changed`]
    /// when another session holds the profile by now, which then is neither asked nor ended. None
    /// when no session holds it.
    pub fn end_session_of(
        &self,
        key: &ProfileKey,
        epoch: u64,
        steal: bool,
        timeout: Duration,
    ) -> impl Future<Output = Result<Option<String>>> + Send + 'static + use<> {
        let ending = Ending { key: key.clone(), epoch: Some(epoch), steal, timeout };
        let operator = self.clone();
        self.begin(async move { operator.end_booked(&ending).await })
    }

    async fn end_booked(&self, ending: &Ending) -> Result<Option<String>> {
        let Ending { key, epoch, steal, .. } = ending;
        let engine = self.allowed(key)?;
        let (_, state) = engine
            .link
            .read_settled(key, Returning::HEAD)
            .await
            .map_err(|error| Error::from(error).about(key))?;
        if state.lease.holder.is_some() && epoch.is_some_and(|epoch| epoch != state.epoch) {
            return Err(another_session(state.epoch).about(key));
        }
        let Some(holder) = state.lease.holder else { return Ok(None) };
        let entry = AuditEntry::new(
            engine.link.env.uuid(),
            "end-session",
            vec![key.clone()],
            self.by.clone(),
        )
        .detail("held_by", holder.job_id.clone())
        .detail("steal", *steal);
        let pending = Arc::new(entry.clone().outcome(AuditOutcome::Pending));
        engine.book(&pending, 0).await?;
        let ended = end(engine, ending, pending).await;
        // For what is left to do.
        let deadline = engine.link.deadline();
        let ended = match ended {
            Err(error) if was_called_off(&error) => {
                ended_all_the_same(engine, key, state.epoch, deadline, error).await
            }
            ended => ended,
        };
        if matches!(&ended, Err(error) if error.kind() == ErrorKind::Unknown) {
            // It stays pending in the log.
            return ended.map(|()| None);
        }
        let outcome = match &ended {
            Ok(()) => AuditOutcome::Done,
            Err(error) => AuditOutcome::Refused { why: error.to_string() },
        };
        let booked = deadline.scope(engine.book(&entry.outcome(outcome), 1)).await;
        ended?;
        booked.map_err(|error| {
            let message = "the session was ended, and the audit log still shows that as pending";
            Error::new(ErrorKind::Unknown, message).caused_by(error).about(key)
        })?;
        Ok(Some(holder.job_id))
    }
}

async fn end(engine: &Arc<Engine>, ending: &Ending, entry: Arc<AuditEntry>) -> Result<()> {
    let Ending { key, epoch, steal, timeout } = ending;
    if let Some(own) = engine.table.live(key) {
        let own_epoch = own.known.lock().epoch;
        if epoch.is_some_and(|epoch| epoch != own_epoch) {
            return Err(another_session(own_epoch).about(key));
        }
        let ended = own.finish(SessionEnd::Operator { entry, saves: true });
        return in_time(engine, ending, ended).await;
    }
    let codec: Arc<dyn Codec> = Arc::new(TypedCodec::<Value>::as_it_is());
    let options = StartOptions {
        steal: *steal,
        timeout: Some(*timeout),
        operation: Some(entry.operation),
        only_from: *epoch,
        ..StartOptions::default()
    };
    match engine.start_session(key, codec, options).await {
        Ok(session) => {
            let ended = session.finish(SessionEnd::Manual);
            in_time(engine, ending, ended).await
        }
        // Removed meanwhile, and its session with it.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// True of a start that was called off, also when the store had taken its commit by then: its time
/// was over, another start on this server took its place, or the server shuts down.
fn was_called_off(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Superseded | ErrorKind::Closing)
}

/// Whether the session with this epoch is over though the start that was to end it was called off:
/// the store's answer may have been lost. That is asked in the key's queue, behind what was under
/// way and is called off. Fails with `why` when the session goes on.
async fn ended_all_the_same(
    engine: &Engine,
    key: &ProfileKey,
    epoch: u64,
    deadline: Deadline,
    why: Error,
) -> Result<()> {
    let (link, asked) = (engine.link.clone(), key.clone());
    let look = engine
        .link
        .queues
        .run(key, usize::MAX, async move { link.read_settled(&asked, Returning::HEAD).await })?;
    match engine.link.env.timeout_at(deadline.at(), look.wait()).await {
        Ok(Ok(Ok((_, state)))) if state.epoch == epoch && state.lease.holder.is_some() => Err(why),
        Ok(Ok(Ok(_))) => Ok(()),
        _ => {
            let message = "the end was called off, and the store does not say whether it had been \
                done";
            Err(Error::new(ErrorKind::Unknown, message).caused_by(why).about(key))
        }
    }
}

/// Waits for a session's end, which goes on for as long as the store is away.
async fn in_time(
    engine: &Engine,
    Ending { key, timeout, .. }: &Ending,
    ended: impl Future<Output = Result<()>>,
) -> Result<()> {
    let env = &engine.link.env;
    let patience = (*timeout).max(engine.link.settings().call_timeout);
    env.timeout_at(env.after(patience), ended).await.unwrap_or_else(|_| {
        let message = "the session is being ended, and its last save is not stored yet";
        Err(Error::new(ErrorKind::Unknown, message).about(key))
    })
}
