//! What operators do to profiles from outside the game, whatever the type of their data: each call
//! is booked in the audit log, in the commit that does it.

use std::{fmt, sync::Arc, time::Duration};

use serde::Serialize;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{
    api::{game_server::GameServer, store::ProfileStore},
    audit::{Attribution, AuditEntry, AuditOutcome},
    data::{ProfileData, payload},
    data_store::{MessageId, VersionInfo, VersionRef},
    edit::{BulkEdit, BulkProgress, BulkReport, Edit, request::EditRequest, types::Types},
    engine::{
        Engine,
        calls::Sent,
        cleaning::Cleaning,
        conditional::Expected,
        erase::EraseReport,
        history::{Restoration, Restored, Which},
    },
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    link::queue::Answer,
    record::{UserId, version::NotUndone},
};

/// An operator at work on the profiles of a game server's store. Made by
/// [`crate::GameServer::operator`]. Cheap to clone.
///
/// A call is under way when it returns, as everywhere: it has its place in the order of this
/// server's calls for the profile, and dropping its future cancels nothing (but
/// [`Operator::edit_all`], which then stops). It waits for a few round trips, during an outage for
/// at most [`crate::Settings::call_timeout`]. None of them concerns mock stores.
///
/// Every call fails with [`ErrorKind::Invalid`] on a key of [`crate::key::RESERVED_STORE`] and when
/// author or reason break their limits.
#[derive(Clone)]
pub struct Operator {
    engine: Arc<Engine>,
    pub(super) by: Attribution,
    types: Types,
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Operator").field(&self.by).finish()
    }
}

impl GameServer {
    /// An operator, who changes profiles from outside the game. The audit log names the operator.
    pub fn operator(&self, by: Attribution) -> Operator {
        Operator::new(self.inner.engine.clone(), by)
    }
}

impl Operator {
    pub(crate) fn new(engine: Arc<Engine>, by: Attribution) -> Self {
        Self { engine, by, types: Types::default() }
    }

    /// Lets edits of this store's profiles go through the program's own type, also where no server
    /// holds them: then they are judged as a session judges them, and refused for the same reason.
    /// What the type does not keep, what does not decode, what the store's validator refuses:
    /// [`ErrorKind::EditRefused`], with the reason. Stored data is migrated and reconciled first,
    /// as by a session; where it cannot be opened, the edit fails as a start would
    /// ([`ErrorKind::Undecodable`], [`ErrorKind::NewerData`], [`ErrorKind::Refused`]) and nothing
    /// is changed. Without this, an edit of a profile that no server holds changes the JSON as it
    /// is stored: for programs that do not know the type.
    ///
    /// Can be called for several stores. A profile that a server holds is always judged by that
    /// server's type.
    ///
    /// ```
    /// # use profilestore::{Attribution, Edit, ErrorKind, GameServer, ProfileStore, Result};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Player { coins: i64 }
    /// # async fn fix(server: GameServer, players: ProfileStore<Player>) -> Result<()> {
    /// let support = server.operator(Attribution::new("support")).through(&players);
    /// let key = players.key("user-1")?;
    /// support.edit(&key, &Edit::new().set("/coins", 50.into())?).await?;
    /// let slip = support.edit(&key, &Edit::new().set("/coinz", 50.into())?).await;
    /// assert_eq!(slip.unwrap_err().kind(), ErrorKind::EditRefused);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn through<T: ProfileData>(mut self, store: &ProfileStore<T>) -> Self {
        self.types = self.types.and(store.name(), store.scope(), store.codec.clone());
        self
    }

    fn check(&self, key: &ProfileKey) -> Result<()> {
        self.by.check()?;
        match key.is_reserved() {
            true => {
                Err(Error::new(ErrorKind::Invalid, "the library keeps its own books there")
                    .about(key))
            }
            false => Ok(()),
        }
    }

    /// The engine for one call of a profile, if the operator may make it.
    pub(super) fn allowed(&self, key: &ProfileKey) -> Result<&Arc<Engine>> {
        self.check(key)?;
        Ok(&self.engine)
    }

    /// Begins work of several steps; the future is only the wait for it.
    pub(super) fn begin<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        &self,
        work: F,
    ) -> impl Future<Output = Result<T>> + Send + 'static + use<T, F> {
        let (mut reply, answer) = Answer::to_come();
        self.engine.link.runtime.spawn(async move {
            *reply.begun() = true;
            reply.send(work.await);
        });
        answer.wait()
    }

    /// Changes a profile's data without ending its session. Where no server holds the profile, the
    /// edit is applied directly, by the program's type if it is known ([`Operator::through`]);
    /// otherwise the holder applies it and saves, whichever server that is. What was done is booked
    /// in the audit log ([`crate::audit`]) in the same commit, with what would undo it
    /// ([`Edit::undo`]).
    ///
    /// Waits until the outcome is durable: for one read and one commit, some milliseconds more for
    /// a profile that another server holds, up to the lease time when that server has crashed; at
    /// most [`crate::Settings::call_timeout`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::EditRefused`] when the edit does not fit the data, the program's type, or the
    /// size of a profile; nothing was changed then. [`ErrorKind::Unknown`] when the holder has not
    /// answered in time: the edit lies in the profile's inbox and takes effect once, before the
    /// next session's start at the latest. Calling this again would be a second edit;
    /// [`Operator::edit_as`] with [`Error::operation`] repeats the first one and tells. Further
    /// [`ErrorKind::NotFound`], [`ErrorKind::Foreign`], and [`ErrorKind::Invalid`] or
    /// [`ErrorKind::TooLarge`] for an edit that can fit nowhere.
    pub fn edit(
        &self,
        key: &ProfileKey,
        edit: &Edit,
    ) -> impl Future<Output = Result<AuditEntry>> + Send + 'static + use<> {
        self.edit_as(
            self.engine.link.env.uuid(),
            key,
            edit,
            self.engine.link.settings().call_timeout,
        )
    }

    /// The same under an identity of the caller's choice, a version 7 UUID whose time is at most 30
    /// days ago, and with a patience of its own. Repeating it under its identity is harmless: the
    /// edit takes effect once, and the answer is the first one's.
    pub fn edit_as(
        &self,
        operation: Uuid,
        key: &ProfileKey,
        edit: &Edit,
        patience: Duration,
    ) -> impl Future<Output = Result<AuditEntry>> + Send + 'static + use<> {
        let begun = self.allowed(key).and_then(|engine| {
            let request = EditRequest::new(operation, edit.clone(), self.by.clone(), false)?;
            Ok(engine.edit(key, Arc::new(request.through(self.types.clone())), patience))
        });
        let key = key.clone();
        async move {
            let told = match begun {
                Ok(outcome) => outcome.await,
                Err(error) => Err(error),
            };
            match told.map_err(|error| error.of_operation(operation))? {
                AuditEntry { outcome: AuditOutcome::Refused { why }, .. } => {
                    Err(Error::new(ErrorKind::EditRefused, why).about(&key).of_operation(operation))
                }
                entry => Ok(entry),
            }
        }
    }

    /// Changes many profiles, those that are held included, without ending a session; or undoes
    /// such a change. Every profile of the store that is there when the edit comes to it, and with
    /// [`BulkEdit::new_too`] every one that begins later, is edited once, however often the
    /// operation is broken off and resumed ([`BulkEdit::resume`]). Each outcome is booked like that
    /// of [`Operator::edit`]. The operation itself has an entry that says what it is, and when it
    /// is complete.
    ///
    /// Waits until every outcome is durable, for held profiles at most [`BulkEdit::patience`];
    /// those that are left are in the report. Calls `progress` now and then, on the library's task;
    /// it must not block. Dropping the future stops the operation and leaves it to be resumed. An
    /// error of the store does the same.
    pub fn edit_all<P: FnMut(BulkProgress) + Send + 'static>(
        &self,
        bulk: &BulkEdit,
        mut progress: P,
    ) -> impl Future<Output = Result<BulkReport>> + Send + 'static + use<P> {
        let (engine, plan) = (self.engine.clone(), bulk.plan(&self.by, self.types.clone()));
        // Dropped with the future, and the work with it.
        let mut working = JoinSet::new();
        working.spawn_on(
            async move { engine.edit_all(&plan, &mut progress).await },
            &self.engine.link.runtime,
        );
        async move {
            match working.join_next().await {
                Some(Ok(report)) => report,
                Some(Err(error)) if error.is_panic() => {
                    std::panic::resume_unwind(error.into_panic())
                }
                _ => Err(Error::new(ErrorKind::Unknown, "the operation was broken off; resume it")),
            }
        }
    }

    /// Makes an earlier version current again, byte for byte, as a new version
    /// ([`crate::data_store::Cause::Restore`]); ends whatever session there is, whose unsaved
    /// changes are lost. What it replaces stays in the history; waiting messages stay. Works on
    /// values that are no profiles too.
    ///
    /// What the profile's commits since did to others stays done: gifts that it sent and took, and
    /// trades. The answer lists them ([`Restored::not_undone`]); [`Operator::not_undone`] tells
    /// before.
    ///
    /// Fails with [`ErrorKind::NotFound`] when the version is not, or no longer, in the history;
    /// with [`ErrorKind::Invalid`] when it is a tombstone.
    pub fn restore(
        &self,
        key: &ProfileKey,
        version: VersionRef,
    ) -> impl Future<Output = Result<Restored>> + Send + 'static + use<> {
        self.restore_as_wanted(key, version, None, None)
    }

    /// The same under an identity of the caller's choice, a version 7 UUID. Repeating it under its
    /// identity is harmless: the profile is rolled back once, and the answer is the first one's,
    /// without the job whose session was ended. Fails with [`ErrorKind::RequestIdReused`] when this
    /// identity was used on the profile for another version or another kind of operation.
    pub fn restore_as(
        &self,
        operation: Uuid,
        key: &ProfileKey,
        version: VersionRef,
    ) -> impl Future<Output = Result<Restored>> + Send + 'static + use<> {
        self.restore_as_wanted(key, version, Some(operation), None)
    }

    /// The same, if the profile is what is expected; otherwise it fails with [`ErrorKind::Changed`]
    /// and nothing is done. A profile that a session holds changes with each save, so a rollback of
    /// one may have to be decided anew. Repeated under its identity it answers as
    /// [`Operator::restore_as`] does, although the profile is not what was expected any more.
    pub fn restore_if(
        &self,
        operation: Uuid,
        key: &ProfileKey,
        expected: Expected,
        version: VersionRef,
    ) -> impl Future<Output = Result<Restored>> + Send + 'static + use<> {
        self.restore_as_wanted(key, version, Some(operation), Some(expected))
    }

    fn restore_as_wanted(
        &self,
        key: &ProfileKey,
        version: VersionRef,
        identity: Option<Uuid>,
        expected: Option<Expected>,
    ) -> impl Future<Output = Result<Restored>> + Send + 'static + use<> {
        let (which, by) = (Which::Named(version), self.by.clone());
        let wanted = Restoration { which, expected, identity, by };
        let restored = self.allowed(key).map(|engine| engine.restore(key, wanted));
        async move { restored?.await }
    }

    /// What [`Operator::restore`] of this version would not undo: messages that the profile's
    /// commits since have taken and sent, and trades. Books nothing.
    pub fn not_undone(
        &self,
        key: &ProfileKey,
        version: u64,
    ) -> impl Future<Output = Result<NotUndone>> + Send + 'static + use<> {
        let found = self.allowed(key).map(|engine| engine.not_undone(key, version));
        async move { found?.await }
    }

    /// Keeps a version whatever the retention, or gives it free again. Answers with the version.
    /// Fails with [`ErrorKind::NotFound`] when it is not, or no longer, in the history.
    pub fn pin(
        &self,
        key: &ProfileKey,
        version: VersionRef,
        pinned: bool,
    ) -> impl Future<Output = Result<VersionInfo>> + Send + 'static + use<> {
        let done = self
            .allowed(key)
            .map(|engine| engine.pin(key, Which::Named(version), pinned, self.by.clone()));
        async move { done?.await }
    }

    /// Removes a profile, as [`crate::ProfileStore::remove`] does. False when there was nothing.
    pub fn remove(
        &self,
        key: &ProfileKey,
    ) -> impl Future<Output = Result<bool>> + Send + 'static + use<> {
        let removed = self.allowed(key).map(|engine| engine.remove(key, Some(self.by.clone())));
        async move { removed?.await }
    }

    /// Sends a message, as [`crate::ProfileStore::send_message_as`] does. One that was stored
    /// before is not booked again.
    pub fn send<M: Serialize + ?Sized>(
        &self,
        key: &ProfileKey,
        id: &MessageId,
        message: &M,
    ) -> impl Future<Output = Result<Sent>> + Send + 'static + use<M> {
        let sent = self.allowed(key).and_then(|engine| {
            Ok(engine.send(key, id.clone(), payload(&message)?, Some(self.by.clone())))
        });
        let id = id.clone();
        async move { sent?.await.map_err(|error| error.of_message(&id)) }
    }

    /// Takes back a message that waits for a profile. Sending it again under its identity brings
    /// nothing. False when it does not wait: it was processed, or there was none.
    ///
    /// Fails with [`ErrorKind::Held`] while a live server holds the profile, which may be at work
    /// on the message, and with [`ErrorKind::Invalid`] for an operator's edit, which cannot be
    /// taken back.
    pub fn cancel_message(
        &self,
        key: &ProfileKey,
        id: &MessageId,
    ) -> impl Future<Output = Result<bool>> + Send + 'static + use<> {
        let begun = self.allowed(key).and_then(|engine| match id.is_edit() {
            true => Err(Error::new(ErrorKind::Invalid, "an operator's edit cannot be taken back")),
            false => Ok(engine.cancel_message(key, id.clone(), self.by.clone())),
        });
        async move { begun?.await }
    }

    /// Erases every profile of a user: those associated with the user now, or when they were
    /// removed. Data, history (pinned versions included), waiting messages, and what the audit log
    /// holds of their content. Names, counters and the receipts of messages stay: an epoch that was
    /// raised keeps every session of before from writing anything back, and a sender's retry does
    /// not revive a message. Sessions end, and their holders are told. A profile of several users
    /// is left alone and reported, unless `shared` is set.
    ///
    /// One commit a profile: what fails is reported, and erasing again goes on with the rest. Not
    /// erased are backups and exports. Call [`Operator::clean_files`] afterwards, so that the bytes
    /// are gone from the store's files as well.
    ///
    /// Fails, perhaps after some profiles, when the store cannot be used.
    pub fn erase_user<U: Into<UserId>>(
        &self,
        user: U,
        shared: bool,
    ) -> impl Future<Output = Result<EraseReport>> + Send + 'static + use<U> {
        let (engine, by, user) = (self.engine.clone(), self.by.clone(), user.into());
        self.begin(async move {
            by.check()?;
            engine.erase_user(user, shared, &by).await
        })
    }

    /// Begins to clean the store's files, so that no byte of what was erased is left in them: books
    /// the operation `vacuum` as pending, `after` the one of [`EraseReport::operation`]. The rest
    /// is for [`Cleaning::run`], which takes as long as the files are large, a second for some
    /// hundred MB, and may go on beside play.
    ///
    /// None: the store has no files that it could clean, as on a database, which has its own ways.
    ///
    /// Fails when the store cannot be used.
    pub fn clean_files(
        &self,
        after: Option<Uuid>,
    ) -> impl Future<Output = Result<Option<Cleaning>>> + Send + 'static + use<> {
        let (engine, by) = (self.engine.clone(), self.by.clone());
        self.begin(async move {
            by.check()?;
            engine.begin_cleaning(after, by).await
        })
    }
}
