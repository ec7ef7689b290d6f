//! Commits and reads: each is tried again until the store has answered or its time is over.
//!
//! A commit keeps its identity however often it is sent, so the store applies it once. That is how
//! an unknown outcome gets known: the same commit again tells.

use std::{sync::atomic::Ordering, time::Duration};

use super::{
    Link,
    deadline::{Deadline, Patience},
    hosting::Stop,
};
use crate::{
    data_store::{
        Change, Commit, CommitId, CommitReply, Conflict, ConflictKind, DataStoreExt, Incarnation,
        KeyState, Returning, ServerId, Snapshot, StoreError,
    },
    key::ProfileKey,
};

/// How long after a commit was sent the server that waits for it gets a hint: long enough for the
/// commit to stay ahead of the look that follows.
const EARLY_HINT: Duration = Duration::from_millis(2);

/// For how long a call waits for this server to register in a new incarnation of the store.
const PATIENCE_WITH_REPLACED: Duration = Duration::from_secs(2);

impl Link {
    /// A commit of this server.
    ///
    /// Where its game server runs in another process, one that changes a lease is refused once
    /// another host has its place: it could release a profile that the game server goes on with.
    pub(crate) fn new_commit(&self, mut changes: Vec<Change>, returning: Returning) -> Commit {
        let lease = self.lease.lock();
        if let Some(hosting) = &self.hosting
            && changes.iter().any(|change| matches!(change, Change::Lease { .. }))
            && !defect!(HostUnchecked)
        {
            changes.push(Change::CheckHost { id: lease.server, host: hosting.host });
        }
        Commit {
            id: CommitId(self.env.uuid()),
            incarnation: lease.incarnation,
            from: Some(lease.server),
            changes,
            returning,
            fingerprint: None,
        }
    }

    /// A commit of this server that is built on a look at this incarnation. It fails when a backup
    /// took its place since, also when this server has registered in that meanwhile and the same
    /// numbers stand there.
    pub(crate) fn commit_in(
        &self,
        incarnation: Incarnation,
        changes: Vec<Change>,
        returning: Returning,
    ) -> Commit {
        Commit { incarnation, ..self.new_commit(changes, returning) }
    }

    /// The same for a call without a session. It names no sender: should it arrive after this
    /// server has stopped waiting for it, the store leaves a notice for the holder, also when that
    /// is a session of this very server.
    pub(crate) fn commit_from_outside(
        &self,
        incarnation: Incarnation,
        changes: Vec<Change>,
        returning: Returning,
    ) -> Commit {
        Commit { from: None, ..self.commit_in(incarnation, changes, returning) }
    }

    /// Tries a commit once and sends the hints that follow from it. Errors of the store count
    /// towards the critical state.
    pub(crate) async fn try_commit(&self, commit: &Commit) -> Result<CommitReply, StoreError> {
        self.try_commit_by(commit, None).await
    }

    /// The same, with an answer at the deadline if there is one.
    async fn try_commit_by(
        &self,
        commit: &Commit,
        deadline: Option<Deadline>,
    ) -> Result<CommitReply, StoreError> {
        if self.stopped().is_some() {
            return Err(hosted_elsewhere());
        }
        let result = match deadline {
            Some(deadline) => {
                let by = self.env.on_tokios_clock(deadline.at());
                self.store.commit_one_by(commit.clone(), by).await
            }
            None => self.store.commit_one(commit.clone()).await,
        };
        match &result {
            Ok(reply) => self.hint(reply).await,
            Err(error) => {
                if !deadline.is_some_and(|own| own.is_over_by_choice(self.env.now())) {
                    self.note_error(error, commit.changes.first().and_then(Change::key));
                }
                if error.conflict() == Some(&ConflictKind::Hosted) {
                    self.stop(Stop::Hosted);
                }
                if let StoreError::Replaced { expected, .. } = error
                    && *expected == self.lease.lock().incarnation
                {
                    self.renew_now.notify_one();
                }
            }
        }
        result
    }

    /// Waits until this server has registered in another incarnation of the store than this one;
    /// false when it has not in so short a time as it takes while the store answers. A commit that
    /// met the other one has brought the renewal forward.
    pub(crate) async fn registered_anew(&self, before: Incarnation) -> bool {
        let deadline = self.env.after(PATIENCE_WITH_REPLACED);
        loop {
            let begun = self.begun_anew.notified();
            if self.lease.lock().incarnation != before {
                return true;
            }
            if self.env.timeout_at(deadline, begun).await.is_err() {
                return false;
            }
        }
    }

    /// Pauses before another attempt at the store. One that is eager ends when a renewal has got
    /// through: that is tried every second while the store does not answer.
    async fn pause(&self, period: Duration, eager: bool) {
        let renewed = self.renewed.notified();
        tokio::select! {
            biased;
            () = renewed, if eager => {}
            () = tokio::time::sleep(period) => {}
        }
    }

    /// The longest pause between attempts at the store: 20 s, 8 s while shutting down, and never
    /// longer than the lease time, so that all callers are served again within that when the store
    /// comes back.
    pub(crate) fn longest_pause(&self, hurry: bool) -> Duration {
        let most = Duration::from_secs(if hurry { 8 } else { 20 });
        most.min(self.settings().lease_time)
    }

    /// Sends the hints that follow from a commit. This server itself needs none: what committed
    /// looks by itself.
    pub(crate) async fn hint(&self, reply: &CommitReply) {
        let own = self.server();
        for (server, key) in reply.notified.iter().filter(|(server, _)| *server != own) {
            self.messenger.hint(*server, key).await;
        }
    }

    /// Tries a commit, under one and the same identity, until its outcome is known or patience
    /// ends. The error is then the last one, [`StoreError::Indeterminate`] if any attempt's outcome
    /// is still unknown.
    pub(crate) async fn settle(
        &self,
        commit: &Commit,
        patience: impl Patience,
    ) -> Result<CommitReply, StoreError> {
        let mut backoff = Backoff::default();
        let mut unknown = None;
        let mut again = None;
        loop {
            match self.try_commit_by(again.as_ref().unwrap_or(commit), patience.ends()).await {
                Err(error) if error.is_transient() => {
                    if matches!(error, StoreError::Indeterminate { .. }) {
                        unknown = Some(error.clone());
                        if defect!(BlindRetry) {
                            again =
                                Some(Commit { id: CommitId(self.env.uuid()), ..commit.clone() });
                        }
                        if defect!(JudgedByReading) && !self.seems_applied(commit).await {
                            return Err(StoreError::Unavailable {
                                reason: "it is not there".into(),
                            });
                        }
                    }
                    let wanted =
                        backoff.next(self.longest_pause(self.hurry.load(Ordering::Relaxed)));
                    let Some(wait) = patience.pause(self.env.now(), wanted) else {
                        return Err(unknown.unwrap_or(error));
                    };
                    metrics::counter!("profilestore_store_retries_total").increment(1);
                    self.pause(wait, patience.is_eager()).await;
                }
                // The refusals that need not last: an earlier attempt may still arrive when there
                // is room again.
                Err(error)
                    if unknown.is_some()
                        && matches!(
                            error.conflict(),
                            Some(ConflictKind::InboxFull | ConflictKind::MessageIdExpired)
                        ) =>
                {
                    match self.call_off(commit, &mut backoff, &patience).await {
                        Ok(true) => return Err(error),
                        // It did arrive: the next attempt says so.
                        Ok(false) => {}
                        Err(failed) if failed.is_transient() => {
                            return Err(unknown.unwrap_or(failed));
                        }
                        Err(failed) => return Err(failed),
                    }
                }
                // Nothing will tell any more.
                Err(StoreError::TakenAway { .. }) if unknown.is_some() => {
                    return Err(unknown.unwrap_or_else(hosted_elsewhere));
                }
                // Had an earlier attempt been applied, the store would have answered
                // `already_applied`. So a refusal means: never applied.
                other => return other,
            }
        }
    }

    /// The same for a commit that another server waits for. That one gets a hint while the commit
    /// is still on its way, so that its look reaches the store right behind it; should it come too
    /// early, the hint that follows the commit makes it look again. So on a store that is far away
    /// a hand-over takes two calls less, and on one that is near no hint comes early.
    pub(crate) async fn settle_for(
        &self,
        server: Option<ServerId>,
        key: &ProfileKey,
        commit: &Commit,
        patience: impl Patience,
    ) -> Result<CommitReply, StoreError> {
        let mut settled = Box::pin(self.settle(commit, patience));
        if let Some(server) = server {
            tokio::select! {
                biased;
                settled = &mut settled => return settled,
                () = tokio::time::sleep(EARLY_HINT) => self.messenger.hint(server, key).await,
            }
        }
        settled.await
    }

    /// What a deliberate defect goes by.
    async fn seems_applied(&self, commit: &Commit) -> bool {
        for change in &commit.changes {
            let Some(key) = change.key() else { continue };
            let Ok((_, state)) = self.store.read_one(key, Returning::INBOX).await else { continue };
            let there = match change {
                Change::Write { version, .. } => state.version > *version,
                Change::Lease { revision, .. } => state.lease_revision > *revision,
                Change::AppendMessage { message, .. } => {
                    state.inbox.iter().flatten().any(|stored| stored.id == message.id)
                }
                _ => continue,
            };
            return there;
        }
        true
    }

    /// Makes sure that a commit is never applied, trying until that is known or patience ends.
    /// False: it had been applied.
    pub(crate) async fn call_off(
        &self,
        commit: &Commit,
        backoff: &mut Backoff,
        patience: &impl Patience,
    ) -> Result<bool, StoreError> {
        let abort = Commit {
            incarnation: commit.incarnation,
            ..self.new_commit(vec![Change::Abort { commit: commit.id }], Returning::HEAD)
        };
        loop {
            match self.try_commit_by(&abort, patience.ends()).await {
                Ok(_) => return Ok(true),
                Err(refused) if refused.conflict() == Some(&ConflictKind::AlreadyApplied) => {
                    return Ok(false);
                }
                Err(failed) if failed.is_transient() => {
                    let wanted =
                        backoff.next(self.longest_pause(self.hurry.load(Ordering::Relaxed)));
                    let Some(wait) = patience.pause(self.env.now(), wanted) else {
                        return Err(failed);
                    };
                    self.pause(wait, patience.is_eager()).await;
                }
                Err(failed) => return Err(failed),
            }
        }
    }

    /// Reads a key's state, trying again for as long as calls may take. What is found may be judged
    /// by the store's clock, so each answer says whether that has stepped.
    pub(crate) async fn read_settled(
        &self,
        key: &ProfileKey,
        returning: Returning,
    ) -> Result<(i64, KeyState), StoreError> {
        let read = async || {
            let sent = self.env.now();
            let (now_ms, state) = self.store.read_one(key, returning).await?;
            if !defect!(StepNoticedLate) {
                self.observe(sent, now_ms);
            }
            Ok((now_ms, state))
        };
        self.reading(Some(key), read).await
    }

    /// The same with value and inbox; without the value if that is damaged, for what can do without
    /// it or writes another one.
    pub(crate) async fn read_even_damaged(
        &self,
        key: &ProfileKey,
    ) -> Result<(i64, KeyState), StoreError> {
        match self.read_settled(key, Returning::ALL).await {
            Err(StoreError::Damaged { .. }) => self.read_settled(key, Returning::INBOX).await,
            read => read,
        }
    }

    /// The same for several keys, in the order given.
    pub(crate) async fn read_all(
        &self,
        keys: &[ProfileKey],
        returning: Returning,
    ) -> Result<Snapshot, StoreError> {
        let read = async || {
            let sent = self.env.now();
            let snapshot = self.store.read(keys, returning).await?;
            if !defect!(StepNoticedLate) {
                self.observe(sent, snapshot.now_ms);
            }
            Ok(snapshot)
        };
        self.reading(keys.first(), read).await
    }

    /// Reads something of the store, trying again for as long as calls may take.
    pub(crate) async fn reading<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        key: Option<&ProfileKey>,
        read: impl Fn() -> F,
    ) -> Result<T, StoreError> {
        let deadline = self.deadline();
        let mut backoff = Backoff::default();
        loop {
            let late = || {
                Err(StoreError::Unavailable { reason: "the store did not answer in time".into() })
            };
            match self.env.timeout_at(deadline.at(), read()).await.unwrap_or_else(|_| late()) {
                Err(error) if error.is_transient() => {
                    if !deadline.is_over_by_choice(self.env.now()) {
                        self.note_error(&error, key);
                    }
                    let wanted =
                        backoff.next(self.longest_pause(self.hurry.load(Ordering::Relaxed)));
                    let Some(wait) = deadline.pause(self.env.now(), wanted) else {
                        return Err(error);
                    };
                    tokio::time::sleep(wait).await;
                }
                other => return other,
            }
        }
    }

    pub(crate) fn note_error(&self, error: &StoreError, key: Option<&ProfileKey>) {
        if matches!(error, StoreError::Conflict(_)) {
            return;
        }
        metrics::counter!("profilestore_store_errors_total").increment(1);
        // These stay for a while, and every attempt for every profile meets them.
        let now = self.env.now();
        let stays = match error {
            StoreError::TakenAway { .. } => Some("it was taken away"),
            StoreError::Unavailable { reason } => Some(reason.as_str()),
            _ => None,
        };
        if stays.is_none_or(|why| self.health.is_to_be_said_again(why, now)) {
            tracing::warn!(%error, key = key.map(tracing::field::display), "a call of the store \
                failed");
        }
        self.health.error(&error.to_string(), key, now, &self.settings());
    }
}

/// What a commit is answered that this host does not make any more.
fn hosted_elsewhere() -> StoreError {
    let kind = ConflictKind::Hosted;
    StoreError::Conflict(Box::new(Conflict { kind, now_ms: 0, state: None, server: None }))
}

/// Waiting times between attempts: they double from 1 s to the longest pause.
#[derive(Debug, Default)]
pub(crate) struct Backoff(u32);

impl Backoff {
    pub(crate) fn next(&mut self, most: Duration) -> Duration {
        let pause = Duration::from_secs(1 << self.0.min(5)).min(most);
        self.0 += 1;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_limit() {
        let mut backoff = Backoff::default();
        let most = Duration::from_secs(20);
        let seconds: Vec<u64> = (0..7).map(|_| backoff.next(most).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 20, 20]);
    }
}
