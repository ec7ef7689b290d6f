//! Calls that need no session: reading, writing a read profile back, removing, sending.
//!
//! Each runs in the key's queue, so it sees what this server did to the key before.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;

use super::{Engine, MAX_RACES, deadline::Deadline, lost_race};
use crate::{
    audit::{Attribution, AuditEntry},
    data_store::{
        Cause, Change, ConflictKind, Incarnation, KeyState, MessageId, NewMessage, NewValue, Returning, StoreError, StoredMessage,
    },
    edit::request::dismissed,
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    ownership, storable,
};

/// What a write without a session replaces the profile with.
pub(crate) struct Replacement {
    pub(crate) bytes: Bytes,
    pub(crate) user_ids: Vec<i64>,
    pub(crate) cause: Cause,
    /// The epoch and the version that were current when the profile was read, and whether it existed then.
    pub(crate) read_epoch: u64,
    pub(crate) read_version: u64,
    pub(crate) existed: bool,
    /// Messages processed in the read profile.
    pub(crate) processed: Vec<u64>,
}

/// What is written over a profile, and what else belongs into that commit.
pub(crate) struct Overwrite {
    pub(crate) value: NewValue,
    pub(crate) user_ids: Vec<i64>,
    pub(crate) cause: Cause,
    pub(crate) author: String,
    pub(crate) more: Vec<Change>,
}

/// Whether a message was stored by this call or had been before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sent {
    /// Stored now.
    Now,
    /// A message of this id and content had been stored before; nothing was done.
    Before,
}

/// Says what is to become of the messages that wait.
pub(crate) type EditInbox = Box<dyn FnMut(&KeyState) -> Option<Vec<InboxChange>> + Send>;

/// A change of the messages that wait for a profile. See [`crate::ProfileStore::change_inbox`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum InboxChange {
    /// Appends a message. Specification: `AddActiveUpdate`.
    Add {
        /// JSON, at most 256 KiB.
        payload: Bytes,
    },
    /// Replaces the payload of a message that is not locked and counts its revision up. Specification: `ChangeActiveUpdate`.
    Change {
        /// Its index.
        index: u64,
        /// JSON, at most 256 KiB.
        payload: Bytes,
    },
    /// Takes a message away without its having had an effect. Specification: `ClearActiveUpdate`.
    Remove {
        /// Its index.
        index: u64,
    },
}

impl Engine {
    fn queue_limit(&self) -> usize {
        self.settings().max_key_queue
    }

    /// Runs a call in the key's queue at once; the answer comes when it is done, by the call's deadline at the latest. One
    /// that is being done then goes on, and its outcome is not known.
    pub(crate) fn call<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        self: &Arc<Self>,
        key: &ProfileKey,
        call: F,
    ) -> impl Future<Output = Result<T>> + Send + 'static + use<T, F> {
        let late = Error::new(ErrorKind::Unknown, "the store has not answered in time; the call may yet take effect");
        self.call_or(key, late, call)
    }

    /// The same for a call that changes nothing.
    pub(crate) fn look_up<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        self: &Arc<Self>,
        key: &ProfileKey,
        call: F,
    ) -> impl Future<Output = Result<T>> + Send + 'static + use<T, F> {
        self.call_or(key, Error::new(ErrorKind::Unavailable, "the store has not answered in time"), call)
    }

    fn call_or<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
        self: &Arc<Self>,
        key: &ProfileKey,
        late: Error,
        call: F,
    ) -> impl Future<Output = Result<T>> + Send + 'static + use<T, F> {
        let about = key.clone();
        let held_up =
            || Error::new(ErrorKind::Unavailable, "an earlier operation on the profile waits for the store; nothing was done");
        let (env, deadline) = (self.env.clone(), self.deadline());
        // Set by what comes first: the call when its turn comes, or its caller that gives up.
        let turn = Arc::new(AtomicBool::new(false));
        let taken = turn.clone();
        let queued = self.check_open(key).and_then(|()| {
            self.queues.run(key, self.queue_limit(), async move {
                if taken.swap(true, Ordering::AcqRel) { Err(held_up()) } else { deadline.scope(call).await }
            })
        });
        async move {
            let answer = match env.timeout_at(deadline.at(), queued?.wait()).await {
                Ok(answer) => answer.and_then(|answer| answer),
                Err(_) if !turn.swap(true, Ordering::AcqRel) => Err(held_up()),
                Err(_) => Err(late),
            };
            answer.map_err(|error| error.about(&about))
        }
    }

    pub(crate) fn get(self: &Arc<Self>, key: &ProfileKey) -> impl Future<Output = Result<KeyState>> + Send + 'static + use<> {
        let (engine, key_) = (self.clone(), key.clone());
        self.look_up(key, async move { Ok(engine.read_settled(&key_, Returning::ALL).await?.1) })
    }

    /// Sends a message. The id makes a repetition harmless.
    pub(crate) fn send(
        self: &Arc<Self>,
        key: &ProfileKey,
        id: MessageId,
        payload: Bytes,
        by: Option<Attribution>,
    ) -> impl Future<Output = Result<Sent>> + Send + 'static + use<> {
        let (engine, key_) = (self.clone(), key.clone());
        self.call(key, async move { engine.send_now(&key_, id, payload, by).await })
    }

    async fn send_now(
        self: &Arc<Self>,
        key: &ProfileKey,
        id: MessageId,
        payload: Bytes,
        by: Option<Attribution>,
    ) -> Result<Sent> {
        let entry = by
            .map(|by| AuditEntry::new(self.env.uuid(), "send", vec![key.clone()], by).detail("message", id.to_string()).change());
        let mut changes = vec![self.append(key, id, payload)?];
        changes.extend(entry.transpose()?);
        let deadline = self.deadline();
        let mut commit = self.new_commit(changes, Returning::HEAD);
        let mut answer = self.settle(&commit, deadline).await;
        // Into the restored contents, where the message's id says whether it is in them.
        while let Err(error @ StoreError::Replaced { .. }) = &answer
            && !deadline.is_over(self.env.now())
            && self.overtaken(error).await
        {
            commit = self.new_commit(commit.changes, Returning::HEAD);
            answer = self.settle(&commit, deadline).await;
        }
        match answer {
            Ok(reply) => {
                metrics::counter!("profilestore_messages_sent_total").increment(1);
                if let Some(state) = reply.states.iter().find(|state| state.key == *key) {
                    self.health.foreign(key, &state.lease, false);
                }
                // The store leaves no notice for the sender itself.
                self.look(key);
                Ok(Sent::Now)
            }
            Err(error) => match error.conflict() {
                Some(ConflictKind::MessageSeen) => Ok(Sent::Before),
                _ => Err(self.not_sent(error, key)),
            },
        }
    }

    /// Changes what waits for a profile, without a session. `edit` sees the waiting messages and says what is to become of them; it
    /// is asked again when somebody else was faster. None: nothing.
    pub(crate) fn change_inbox(
        self: &Arc<Self>,
        key: &ProfileKey,
        mut edit: EditInbox,
    ) -> impl Future<Output = Result<bool>> + Send + 'static + use<> {
        let (engine, key_) = (self.clone(), key.clone());
        self.call(key, async move {
            let deadline = engine.deadline();
            for _ in 0..MAX_RACES {
                let contents = engine.contents();
                let (now_ms, mut state) = engine.read_settled(&key_, Returning::INBOX).await?;
                state.hide_edits();
                let Some(changes) = edit(&state) else { return Ok(false) };
                let waiting = |index: u64| state.inbox.iter().flatten().find(|message| message.index == index);
                let changed = |index: u64, payload| {
                    let revision = waiting(index).map_or(0, |message| message.revision);
                    Change::ChangeMessage { key: key_.clone(), index, revision, payload }
                };
                let mut made = Vec::with_capacity(changes.len());
                for change in changes {
                    match change {
                        InboxChange::Add { payload } => {
                            let name = engine.env.uuid().to_string();
                            made.push(engine.append(&key_, MessageId { created_ms: now_ms, name }, payload)?);
                        }
                        InboxChange::Change { index, payload } => {
                            check_message(&key_, &payload)?;
                            made.push(changed(index, payload));
                        }
                        InboxChange::Remove { index } => {
                            // A removal alone would also take one that was locked or changed meanwhile.
                            if let Some(message) = waiting(index) {
                                made.push(changed(index, message.payload.clone()));
                            }
                            made.push(Change::RemoveMessage { key: key_.clone(), index, receipt: true });
                        }
                    }
                }
                if made.is_empty() {
                    return Ok(true);
                }
                let commit = engine.commit_in(contents, made, Returning::HEAD);
                match engine.settle(&commit, deadline).await {
                    Ok(_) => {
                        engine.look(&key_);
                        return Ok(true);
                    }
                    Err(error) => match error.conflict() {
                        Some(ConflictKind::MessageGone | ConflictKind::MessageRevision | ConflictKind::MessageLocked) => {}
                        _ if lost_race(&error) => {}
                        _ => return Err(engine.not_sent(error, &key_)),
                    },
                }
            }
            Err(too_many_races())
        })
    }

    /// The change that sends a message.
    pub(crate) fn append(&self, key: &ProfileKey, id: MessageId, payload: Bytes) -> Result<Change> {
        check_message(key, &payload)?;
        let cap = self.settings().max_message_queue;
        Ok(Change::AppendMessage { key: key.clone(), message: NewMessage { id, payload }, cap })
    }

    /// The error of a message that could not be sent. A full inbox is told to the listeners of errors too.
    pub(crate) fn not_sent(&self, error: StoreError, key: &ProfileKey) -> Error {
        let full = error.conflict() == Some(&ConflictKind::InboxFull);
        let error = Error::from(error).about(key);
        if full {
            metrics::counter!("profilestore_inbox_full_total").increment(1);
            self.health.error(&error.to_string(), Some(key), self.env.now(), &self.settings());
        }
        error
    }

    /// Writes a read profile back and ends whatever session there is. Answers with what the key holds then.
    pub(crate) fn replace(
        self: &Arc<Self>,
        key: &ProfileKey,
        replacement: Replacement,
    ) -> impl Future<Output = Result<KeyState>> + Send + 'static + use<> {
        let (engine, key_) = (self.clone(), key.clone());
        self.call(key, async move {
            let deadline = engine.deadline();
            for _ in 0..MAX_RACES {
                let contents = engine.contents();
                let (_, state) = engine.read_settled(&key_, Returning::INBOX).await?;
                let others_wrote = replacement.existed && state.epoch != replacement.read_epoch;
                if others_wrote && engine.removed_since(&state, replacement.read_version).await? {
                    let message = "the profile was removed since it was read; nothing was written";
                    return Err(Error::new(ErrorKind::Removed, message));
                }
                let waiting = state.inbox.as_deref().unwrap_or_default();
                let processed = waiting.iter().filter(|message| replacement.processed.contains(&message.index));
                let overwrite = Overwrite {
                    value: NewValue::Bytes(replacement.bytes.clone()),
                    user_ids: replacement.user_ids.clone(),
                    cause: replacement.cause,
                    author: engine.job_id.clone(),
                    more: receipts(&key_, processed),
                };
                if let Some(after) = engine.overwrite(contents, &state, overwrite, deadline).await? {
                    return Ok(after);
                }
            }
            Err(too_many_races())
        })
    }

    /// Leaves a tombstone, empties the inbox and ends whatever session there is. False when there was nothing. The tombstone stays
    /// associated with the profile's users as long as the history may hold something of theirs.
    pub(crate) fn remove(
        self: &Arc<Self>,
        key: &ProfileKey,
        by: Option<Attribution>,
    ) -> impl Future<Output = Result<bool>> + Send + 'static + use<> {
        let (engine, key_) = (self.clone(), key.clone());
        self.call(key, async move {
            let operation = engine.env.uuid();
            let deadline = engine.deadline();
            for _ in 0..MAX_RACES {
                let contents = engine.contents();
                let (_, state) = engine.read_settled(&key_, Returning::ALL).await?;
                let author = by.as_ref().map_or(&engine.job_id, |by| &by.author);
                let Some(mut overwrite) = engine.removal(&state, author).await? else { return Ok(false) };
                if let Some(by) = &by {
                    let entry = AuditEntry::new(operation, "remove", vec![key_.clone()], by.clone());
                    let messages = state.inbox.as_ref().map_or(0, Vec::len);
                    overwrite.more.push(entry.detail("version", state.version).detail("messages", messages).change()?);
                }
                if engine.overwrite(contents, &state, overwrite, deadline).await?.is_some() {
                    return Ok(true);
                }
            }
            Err(too_many_races())
        })
    }

    /// What a removal writes over a state that was read with value and inbox. None: there is nothing to be removed.
    pub(crate) async fn removal(&self, state: &KeyState, author: &str) -> Result<Option<Overwrite>> {
        let waiting = state.inbox.as_deref().unwrap_or_default();
        if !state.exists() && waiting.is_empty() && state.lease.holder.is_none() {
            return Ok(None);
        }
        let mut more = receipts(&state.key, waiting);
        more.extend(dismissed(&state.key, waiting, "the profile was removed")?);
        Ok(Some(Overwrite {
            value: NewValue::Tombstone,
            user_ids: self.users_to_keep(state).await?,
            cause: Cause::Remove,
            author: author.to_owned(),
            more,
        }))
    }

    /// Writes over a state that was read in these contents, and ends the session that it shows. None when somebody else was faster.
    pub(crate) async fn overwrite(
        self: &Arc<Self>,
        contents: Incarnation,
        state: &KeyState,
        overwrite: Overwrite,
        deadline: Deadline,
    ) -> Result<Option<KeyState>> {
        let Overwrite { value, user_ids, cause, author, more } = overwrite;
        let key = &state.key;
        let write = Change::Write {
            key: key.clone(),
            epoch: state.epoch,
            version: state.version,
            value,
            user_ids,
            cause,
            author,
            keep_previous: true,
            seal: true,
            imported: None,
        };
        let mut changes = vec![write, ownership::cleared(state)];
        changes.extend(more);
        let commit = self.commit_from_outside(contents, changes, Returning::INBOX);
        match self.settle(&commit, deadline).await {
            Ok(mut reply) => {
                // A session of this very server gets no notice.
                self.look(key);
                let at = reply.states.iter().position(|after| after.key == *key);
                Ok(at.map(|at| reply.states.swap_remove(at)))
            }
            Err(error) if lost_race(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Stores an audit entry by itself, over version `version` of it; 0: the first one.
    pub(crate) async fn book(&self, entry: &AuditEntry, version: u64) -> Result<()> {
        let deadline = self.deadline();
        let commit = self.new_commit(vec![entry.change_at(version)?], Returning::HEAD);
        self.settle(&commit, deadline).await?;
        Ok(())
    }
}

fn check_message(key: &ProfileKey, payload: &[u8]) -> Result<()> {
    storable::MESSAGE.check_bytes(payload).map_err(|wrong| Error::from(wrong).about(key))
}

pub(crate) fn too_many_races() -> Error {
    Error::new(ErrorKind::Unavailable, "others kept changing the profile; try again")
}

fn receipts<'a>(key: &ProfileKey, messages: impl IntoIterator<Item = &'a StoredMessage>) -> Vec<Change> {
    let remove = |message: &StoredMessage| Change::RemoveMessage { key: key.clone(), index: message.index, receipt: true };
    messages.into_iter().map(remove).collect()
}
