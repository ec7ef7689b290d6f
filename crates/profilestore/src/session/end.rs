//! How a session ends: four phases, one after the other.
//!
//! 1. **Begin.** One call claims the end, and the last hooks run. The session is still active.
//! 2. **Close.** The data takes no more edits, and the listeners of the end are told. A keeper is
//!    asked for its data once more.
//! 3. **Release.** The last save and the release of the lease, in one commit. A server that asked
//!    for the profile gets an offer with it.
//! 4. **Over.** The outcome is known. All who wait for the end get it; listeners, handlers and the
//!    keeper are dropped.
//!
//! An end that cannot store what the session has is refused in the first two phases, and the
//! session goes on. A server that shuts down does not refuse: it saves what was stored last. The
//! same holds for a session that no caller has. One that is lost has no third phase.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use tokio::sync::oneshot;

use super::{
    Session, Signals,
    collect::Collect,
    ending::Ending,
    info::{LastSave, SessionEnd, SessionInfo},
    known::Saved,
    live::EndBegun,
    save::{Prepared, was_done_before},
    snapshot::{Processed, Snapshot},
};
use crate::{
    data_store::{Cause, CommitReply, Digest, KeyState, Returning, StoreError},
    error::{Error, ErrorKind, Result},
    link::{
        deadline::{ForEver, Once},
        hosting::Request,
        queue::{Answer, Turn},
        room::{Pass, Rank},
    },
    ownership,
    record::Stored,
};

/// What is left to do once the data is closed.
pub(super) struct Last {
    /// What is stored last.
    snapshot: Snapshot,
    /// Why changes that are not in it cannot be stored.
    lost: Option<Error>,
}

/// What an end finds when its turn in the key's queue comes.
pub(super) enum Closed {
    /// The data is closed: this is the last save.
    Last(Ending, Last),
    /// It was called from inside an edit or behind a transaction: it closes only now.
    Behind(Ending),
    /// It was refused, and its caller has been told.
    Refused,
}

impl Session {
    /// Ends the session. The data takes no more changes when this returns; the answer comes when
    /// the last save is durable, whichever call ended it. Behind transactions that were called
    /// before, and behind the edit from inside which it is called, come the last hooks and the last
    /// save. When what the last save would store cannot be stored, the answer is that error and the
    /// session goes on, unless the server is shutting down.
    pub(crate) fn finish(
        self: &Arc<Self>,
        end: SessionEnd,
    ) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let refused_before = self.outcome.refused();
        let answer = self.live.begin_end().map(|begun| self.finish_claimed(end, begun));
        let session = self.clone();
        async move {
            match answer {
                Some(answer) => answer?.wait().await?,
                // Another call is ending it.
                None => session.outcome.wait(refused_before).await,
            }
        }
    }

    /// The same for the call that has claimed the end. The last save has its place in the queue
    /// before the data closes: a call that finds it closed and starts the next session comes behind
    /// it.
    fn finish_claimed(
        self: &Arc<Self>,
        end: SessionEnd,
        begun: EndBegun,
    ) -> Result<Answer<Result<()>>> {
        if begun == EndBegun::Now {
            self.begin(&end).inspect_err(|_| self.catch_up())?;
        }
        let (closed, last) = oneshot::channel();
        let (queues, turn) = (&self.link.queues, Turn::default());
        let in_turn = self.clone().finish_in_turn(end.clone(), last);
        let answer = queues.run_unless_given_up(&self.key, usize::MAX, &turn, in_turn)?;
        let closing = match begun {
            EndBegun::Now => match self.close(&end) {
                Ok(last) => last.map(|last| Closed::Last(Ending::queued(self), last)),
                Err(error) => {
                    self.catch_up();
                    // It needs no turn: ends that are refused again and again fill no queue.
                    if !queues.give_up(&self.key, &turn) {
                        let _ = closed.send(Closed::Refused);
                    }
                    return Err(error);
                }
            },
            EndBegun::Behind => {
                self.tell(|table| table.closing(self));
                self.live.refuse_edits();
                Some(Closed::Behind(Ending::queued(self)))
            }
        };
        if let Some(closing) = closing {
            let _ = closed.send(closing);
        }
        self.hurry.notify_one();
        Ok(answer)
    }

    /// An end's turn in the key's queue.
    pub(super) async fn finish_in_turn(
        self: Arc<Self>,
        end: SessionEnd,
        closed: oneshot::Receiver<Closed>,
    ) -> Result<()> {
        let (mut ending, last) = match closed.await {
            Ok(Closed::Last(ending, last)) => (ending, Some(last)),
            Ok(Closed::Behind(ending)) => (ending, None),
            Ok(Closed::Refused) => return Ok(()),
            // It was closed before.
            Err(_) => return self.ended().await,
        };
        ending.begin();
        let ended = match last {
            Some(last) => self.release_and_be_over(last).await,
            None => Box::pin(self.finish_behind(end)).await,
        };
        ending.complete();
        ended
    }

    /// All phases of an end that was called behind transactions, or from inside an edit. In the
    /// key's queue, hence behind those.
    async fn finish_behind(self: &Arc<Self>, end: SessionEnd) -> Result<()> {
        if self.outcome.is_known() {
            // The session was found lost meanwhile; there is nothing left to hook into.
            let _ = self.close(&SessionEnd::Lost);
            self.tell(|table| table.settled(self));
            self.let_go();
            return self.ended().await;
        }
        match self.begin(&end).and_then(|()| self.close(&end)) {
            Ok(Some(last)) => self.release_and_be_over(last).await,
            Ok(None) => self.ended().await,
            Err(error) => {
                self.tell(|table| table.settled(self));
                self.catch_up();
                Err(error)
            }
        }
    }

    /// The first two phases. None when the data was closed before. For operations in the key's
    /// queue, where no transaction is open. Fails as [`Session::finish`] does.
    pub(super) fn begin_and_close(self: &Arc<Self>, end: &SessionEnd) -> Result<Option<Last>> {
        if !self.live.begin_end_in_turn() {
            return Ok(None);
        }
        self.begin(end)?;
        self.close(end)
    }

    /// A session goes on whose end was refused: looks at what it did not look at while it ended. An
    /// end that comes from such a look does not ask for another one: it would be refused for ever.
    pub(crate) fn catch_up(self: &Arc<Self>) {
        if self.known.lock().held_by != self.link.server() {
            self.queue_adopt();
        }
        self.queue_look();
    }

    /// The last two phases.
    pub(super) async fn release_and_be_over(self: &Arc<Self>, last: Last) -> Result<()> {
        let mut ending = Ending::queued(self);
        ending.begin();
        let result = self.release(last).await;
        self.note_outcome(&result);
        ending.complete();
        self.let_go();
        result
    }

    // --- begin ----------------------------------------------------------------------------------

    /// Runs the last hooks.
    fn begin(&self, end: &SessionEnd) -> Result<()> {
        let reason = match end {
            SessionEnd::Manual => LastSave::Manual,
            SessionEnd::External
            | SessionEnd::Superseded
            | SessionEnd::Operator { saves: true, .. } => LastSave::External,
            SessionEnd::Shutdown => LastSave::Shutdown,
            SessionEnd::Lost | SessionEnd::Operator { saves: false, .. } => return Ok(()),
        };
        // Otherwise the close asks once more, and tells what is lost.
        if let Err(error) = self.collect(Collect::LastSave(reason))
            && self.goes_on(end)
        {
            return Err(self.end_refused(&error));
        }
        self.run_save_hooks();
        self.signals.on_last_save.each(|hook| self.live.edit_anyhow(|data| hook(reason, data)));
        Ok(())
    }

    // --- close ----------------------------------------------------------------------------------

    /// Closes the data and tells the listeners. None when it was closed before.
    fn close(self: &Arc<Self>, end: &SessionEnd) -> Result<Option<Last>> {
        let goes_on = self.goes_on(end);
        let check = |last: &Snapshot| if goes_on { self.check_saveable(last) } else { Ok(()) };
        let last = self.live.close_if(check).map_err(|error| self.end_refused(&error))?;
        if last.is_some() {
            self.tell(|table| table.closing(self));
            self.signals.on_session_end.each(|listener| listener(end.clone()));
            self.note_closed(end);
        }
        let Some(snapshot) = last else { return Ok(None) };
        if !end.saves() {
            return Ok(Some(Last { snapshot, lost: None }));
        }
        let handed = self.collect(Collect::Ended(end.clone())).and_then(|handed| {
            handed.as_ref().map_or(Ok(()), |handed| self.check_saveable(handed)).map(|()| handed)
        });
        Ok(Some(match handed {
            Ok(handed) => Last { snapshot: handed.unwrap_or(snapshot), lost: None },
            Err(error) => {
                self.changes_lost(&error);
                // At a shutdown it stands in the report.
                Last { snapshot, lost: (!goes_on).then_some(error) }
            }
        }))
    }

    /// Whether the session goes on until its last save can be stored.
    fn goes_on(&self, end: &SessionEnd) -> bool {
        end.saves() && *end != SessionEnd::Shutdown && !self.unclaimed.load(Relaxed)
    }

    /// The session goes on, since what it has cannot be stored. Callers that wait for its end are
    /// told.
    fn end_refused(&self, error: &Error) -> Error {
        self.live.reopen();
        let message = format!("the session goes on, because its last save was refused: {error}");
        self.link.health.error(
            &message,
            Some(&self.key),
            self.link.env.now(),
            &self.link.settings(),
        );
        metrics::counter!("profilestore_ends_refused_total").increment(1);
        let refused = Error::new(error.kind(), message).about(&self.key);
        self.outcome.refuse(&refused);
        self.outcome.tell();
        refused
    }

    fn changes_lost(&self, error: &Error) {
        let message = format!("a profile's last changes cannot be stored and are lost: {error}");
        self.link.health.error(
            &message,
            Some(&self.key),
            self.link.env.now(),
            &self.link.settings(),
        );
    }

    // --- release --------------------------------------------------------------------------------

    /// The last save and the release of the lease. Fails when changes could not be stored, also
    /// when the profile is released without them.
    async fn release(self: &Arc<Self>, last: Last) -> Result<()> {
        let pass = self.link.room.enter(Rank::First, self.stored_bytes.load(Relaxed)).await;
        // Boxed: at a shutdown all sessions wait here at once, and what waits is to be small.
        Box::pin(self.release_in(pass, last)).await
    }

    /// The same in its room.
    async fn release_in(self: &Arc<Self>, mut pass: Pass, last: Last) -> Result<()> {
        let Last { snapshot: last, lost } = last;
        let prepared = match self.prepare(last.clone()) {
            Ok(prepared) => prepared,
            Err(error) => {
                // The lock must not stay behind: the profile is released as it was saved last.
                self.changes_lost(&error);
                let stored = { self.known.lock().saved_generation };
                let snapshot = Snapshot { generation: stored, processed: Processed::new(), ..last };
                self.commit_release(Prepared { snapshot, write: None }, None).await?;
                return Err(error);
            }
        };
        pass.resize(prepared.bytes());
        let prepared = self.commit_release(prepared, None).await?;
        drop(pass);
        self.signals.on_after_save.each(|listener| listener(&*prepared.snapshot.data));
        lost.map_or(Ok(()), Err)
    }

    /// Commits the release, with what is to be written. Whether it is applied or not, the profile
    /// is free for the next session of this server then. Answers with what was stored.
    pub(super) async fn commit_release(
        self: &Arc<Self>,
        prepared: Prepared,
        request: Option<Request>,
    ) -> Result<Prepared> {
        let released = self.try_release(prepared, request).await;
        self.tell(|table| table.freed(self));
        released.inspect(|_| metrics::counter!("profilestore_sessions_ended_total").increment(1))
    }

    async fn try_release(
        self: &Arc<Self>,
        mut prepared: Prepared,
        request: Option<Request>,
    ) -> Result<Prepared> {
        loop {
            match self.prepare_over_document(&prepared, || true).await {
                Ok(Some(again)) => prepared = again,
                Ok(None) => {}
                // The last save must get through.
                Err(error) => {
                    tracing::warn!(key = %self.key, %error, "what a document says beside the data is not kept")
                }
            }
            match self.send_release(&prepared, request).await {
                Ok(reply) if was_done_before(request, &reply) => return Ok(prepared),
                Ok(mut reply) => {
                    self.released(&prepared, &mut reply);
                    return Ok(prepared);
                }
                Err(StoreError::Conflict(conflict)) => self.yield_to(*conflict).await?,
                Err(error) => return Err(Error::from(error).about(&self.key)),
            }
        }
    }

    /// The profile is released, with what was to be written.
    fn released(&self, prepared: &Prepared, reply: &mut CommitReply) {
        self.stored(prepared);
        if let Some(state) = self.own(&mut reply.states) {
            // Another server may have taken the profile since, when the commit had been applied
            // before.
            self.known.lock().head = state.head;
        }
    }

    async fn send_release(
        &self,
        prepared: &Prepared,
        request: Option<Request>,
    ) -> Result<CommitReply, StoreError> {
        let mut changes = self.changes(prepared, Cause::End);
        let after =
            if defect!(ReleaseBeforeSave) { std::mem::take(&mut changes) } else { Vec::new() };
        let asker = {
            let known = self.known.lock();
            let lease = known.lease.whole(self.in_lease());
            changes.push(ownership::released(known.seen(&self.key, &lease), self.link.store_ms()));
            known.lease.request().and_then(|request| request.server)
        };
        let commit = self.commit_as(request, changes);
        let reply = self.link.settle_for(asker, &self.key, &commit, ForEver).await?;
        if defect!(ReleaseBeforeSave) && !after.is_empty() {
            let _ = self.link.settle(&self.commit(after), Once).await;
        }
        Ok(reply)
    }

    // --- over -----------------------------------------------------------------------------------

    /// Notes what became of the last save. The first one counts.
    pub(super) fn note_outcome(&self, result: &Result<()>) {
        self.outcome.set(result);
        self.tell(|table| table.settled(self));
        self.outcome.tell();
    }

    /// Drops the listeners, handlers and the keeper, once all of them have been told of the end:
    /// they may hold the profile that they are for.
    pub(super) fn let_go(&self) {
        let Signals { on_save, veto_save, on_last_save, on_session_end, on_after_save, on_edited } =
            &self.signals;
        on_save.clear();
        veto_save.clear();
        on_last_save.clear();
        on_session_end.clear();
        on_after_save.clear();
        on_edited.clear();
        self.handlers.clear();
        let keeper = self.keeper.lock().take();
        drop(keeper);
    }

    /// What became of the last save, once that is known; or that the end under way was refused.
    pub(crate) async fn ended(&self) -> Result<()> {
        self.outcome.wait(self.outcome.refused()).await
    }

    // --- a session that is lost -----------------------------------------------------------------

    /// The epoch is another one: another writer's data counts now. Listeners get it as the last
    /// saved data.
    pub(super) async fn lost(self: &Arc<Self>, state: &KeyState) {
        // Before what follows waits for the store.
        self.known.lock().taken = true;
        if let Some(holder) = &state.lease.holder {
            let _ = self.taken_by.set(Box::new(SessionInfo::from(holder)));
        }
        if let Some(entry) = self.order_that_ended(state).await {
            let by = &entry.by;
            tracing::info!(
                key = %self.key,
                action = entry.action,
                by = by.author,
                reason = by.reason,
                "an operator ended a session"
            );
            let why = format!("an operator ended the session: {} by {}", entry.action, by.author);
            self.end_unsaved(&SessionEnd::Operator { entry, saves: false }, &why).await;
            return;
        }
        let taker = self.taken_by.get().map_or("nobody", |holder| holder.job_id.as_str());
        self.lose(&format!("the profile is held by {taker} now")).await;
    }

    /// Ends the session without a save.
    pub(crate) async fn lose(self: &Arc<Self>, why: &str) {
        if self.end_unsaved(&SessionEnd::Lost, &format!("the session was lost: {why}")).await {
            metrics::counter!("profilestore_lost_sessions_total").increment(1);
            tracing::warn!(key = %self.key, why, "a session was lost");
        }
    }

    /// True: it was open until now.
    async fn end_unsaved(self: &Arc<Self>, end: &SessionEnd, why: &str) -> bool {
        // If it is closed already, the call that closed it is queued behind this one, or is this
        // one.
        let closed = if self.live.is_closing() {
            // An end waits behind a transaction, and this may wait for the store.
            matches!(self.close(end), Ok(Some(_)))
        } else {
            matches!(self.begin_and_close(end), Ok(Some(_)))
        };
        self.tell(|table| table.freed(self));
        let error =
            Error::new(ErrorKind::SessionEnded, format!("{why}; what it had not saved is lost"));
        self.note_outcome(&Err(error.about(&self.key)));
        self.fire_foreign_save().await;
        if closed {
            self.let_go();
        }
        closed
    }

    /// Tells the listeners what is stored now that it is no longer ours.
    async fn fire_foreign_save(&self) {
        if self.signals.on_after_save.is_empty() {
            return;
        }
        let Ok((_, state)) =
            self.link.read_settled(&self.key, Returning { value: true, inbox_unless: None }).await
        else {
            return;
        };
        let Some(bytes) = state.value else { return };
        if let Ok(Stored::Profile(record)) = Stored::decode(&bytes)
            && let Ok(data) = self.codec.open(&self.key, &record)
        {
            {
                let mut known = self.known.lock();
                known.saved = Saved {
                    data: data.clone(),
                    meta: Arc::new(record),
                    digest: Some(Digest::of(&bytes)),
                };
                (known.head, known.created_ms) = (state.head, state.created_ms);
            }
            self.signals.on_after_save.each(|listener| listener(&*data));
        }
    }
}
