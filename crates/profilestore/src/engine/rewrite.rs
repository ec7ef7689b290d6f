//! The one optimistic loop: look at a key, build a commit on what is there, and do both again when
//! another writer was faster.
//!
//! A commit names what it was built on: an epoch, a version, revisions, and the store's
//! incarnation. The store refuses it when one of them has changed since the look. [`was_overtaken`]
//! says which refusals mean that. Every other refusal is the call's answer.
//!
//! After its commit the server looks at the key itself. A commit of a call names no sender, so the
//! store leaves a notice for the holder even when that is a session of this very server; but a
//! notice comes with the next renewal, and this look comes at once.
//!
//! A start has a loop of its own in [`super::attempt`], since it waits for holders and outages
//! between its looks. It goes by the same refusals and the same number of rounds.

use super::Engine;
use crate::{
    data_store::{Change, CommitReply, ConflictKind, Incarnation, Returning, StoreError},
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    link::Link,
};

/// How often a commit that was overtaken is built anew before the call fails.
pub(super) const MAX_ROUNDS: usize = 100;

/// What a look has led to.
pub(crate) enum Plan<T> {
    /// There is nothing to commit.
    Done(T),
    /// These changes are to be committed. The answer holds once they are.
    Commit(Vec<Change>, Returning, T),
}

/// In whose name a commit is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sender {
    /// A call's, which has no session: it names none.
    Call,
    /// This server's, which then gets no notice of it.
    Server,
}

impl Engine {
    /// Commits what `plan` makes of a look, and has it look again when it was overtaken: until its
    /// commit is applied, it plans none, or the call's deadline is over. Answers with what the plan
    /// says, and what the store answered to its commit.
    ///
    /// `plan` gets the store's incarnation that its commit is going to name.
    pub(crate) async fn rewrite<T, F: Future<Output = Result<Plan<T>>>>(
        &self,
        key: &ProfileKey,
        plan: impl Fn(Incarnation) -> F,
    ) -> Result<(T, Option<CommitReply>)> {
        self.rewrite_as(Sender::Call, key, plan).await
    }

    pub(super) async fn rewrite_as<T, F: Future<Output = Result<Plan<T>>>>(
        &self,
        sender: Sender,
        key: &ProfileKey,
        plan: impl Fn(Incarnation) -> F,
    ) -> Result<(T, Option<CommitReply>)> {
        let (link, deadline) = (&self.link, self.link.deadline());
        for _ in 0..MAX_ROUNDS {
            // Before the look: the commit fails if a backup takes the place of what was looked at.
            let incarnation = link.incarnation();
            let (changes, returning, answer) = match plan(incarnation).await? {
                Plan::Done(answer) => return Ok((answer, None)),
                Plan::Commit(changes, returning, answer) => (changes, returning, answer),
            };
            let commit = match sender {
                Sender::Call => link.commit_from_outside(incarnation, changes, returning),
                Sender::Server => link.commit_in(incarnation, changes, returning),
            };
            match link.settle(&commit, deadline).await {
                Ok(reply) => {
                    self.table.look(key);
                    return Ok((answer, Some(reply)));
                }
                Err(error) if !overtaken(link, &error).await => {
                    return Err(link.not_sent(error, key));
                }
                Err(_) if deadline.is_over(link.env.now()) => break,
                Err(_) => {}
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "others kept changing the profile; try again")
            .about(key))
    }
}

/// True when a refusal says that something has changed since the look that the commit was built on.
pub(super) fn was_overtaken(error: &StoreError) -> bool {
    matches!(
        error.conflict(),
        Some(
            // Another writer wrote, took the profile, or asked for it.
            ConflictKind::Epoch
                | ConflictKind::Version
                | ConflictKind::Lease
                // The messages are others than they were.
                | ConflictKind::InboxRevision
                | ConflictKind::MessageGone
                | ConflictKind::MessageRevision
                | ConflictKind::MessageLocked
                // An operator's edit has been sent by another call.
                | ConflictKind::MessageSeen
                // A server that seemed dead has renewed its row, or another server was faster to
                // bury it.
                | ConflictKind::Server
        )
    )
}

/// True where [`was_overtaken`] is; also when a backup was restored and this server has registered
/// in it: the commit is then to be built on what the backup holds.
pub(super) async fn overtaken(link: &Link, error: &StoreError) -> bool {
    match error {
        StoreError::Replaced { expected, .. } => link.registered_anew(*expected).await,
        error => was_overtaken(error),
    }
}

/// Fails when a backup was restored since a call began that names versions of what was there
/// before.
pub(super) fn stays_in(began: Incarnation, now: Incarnation) -> Result<()> {
    if began == now {
        Ok(())
    } else {
        Err(StoreError::Replaced { expected: began, found: now }.into())
    }
}
