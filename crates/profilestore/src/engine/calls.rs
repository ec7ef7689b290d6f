//! Calls that need no session: reading, writing a read profile back, removing, sending.
//!
//! Each runs in the key's queue, so it sees what this server did to the key before.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Engine,
    rewrite::{Plan, overtaken, stays_in},
};
use crate::{
    audit::{Attribution, AuditEntry},
    data_store::{
        Cause, Change, CommitReply, ConflictKind, Incarnation, KeyState, MessageId, NewValue,
        Returning, StoreError, StoredMessage,
    },
    edit::request::dismissed,
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    ownership,
    session::{
        Session,
        transaction::{self, Script},
    },
};

/// What a write without a session replaces the profile with.
pub(crate) struct Replacement {
    pub(crate) bytes: Bytes,
    pub(crate) user_ids: Vec<i64>,
    pub(crate) cause: Cause,
    /// The contents of the store in which the profile was read, the epoch and the version that were
    /// current then, and whether it existed.
    pub(crate) incarnation: Incarnation,
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

impl Overwrite {
    /// Writes over a state that was read, and ends the session that it shows. The reply says what
    /// the key holds then.
    pub(crate) fn plan<T>(self, state: &KeyState, answer: T) -> Plan<T> {
        let Self { value, user_ids, cause, author, more } = self;
        let write = Change::Write {
            key: state.key.clone(),
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
        Plan::Commit(changes, Returning::INBOX, answer)
    }
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
#[cfg(feature = "roblox")]
pub(crate) type EditInbox = Box<dyn FnMut(&KeyState) -> Option<Vec<InboxChange>> + Send>;

/// A change of the messages that wait for a profile. See [`crate::ProfileStore::change_inbox`].
#[cfg(feature = "roblox")]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum InboxChange {
    /// Appends a message. Specification: `AddActiveUpdate`.
    Add {
        /// JSON, at most 256 KiB.
        payload: Bytes,
    },
    /// Replaces the payload of a message that is not locked and counts its revision up.
    /// Specification: `ChangeActiveUpdate`.
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
    pub(crate) fn get(
        self: &Arc<Self>,
        key: &ProfileKey,
    ) -> impl Future<Output = Result<KeyState>> + Send + 'static + use<> {
        let (engine, key_) = (self.clone(), key.clone());
        self.link.look_up(key, async move {
            Ok(engine.link.read_settled(&key_, Returning::ALL).await?.1)
        })
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
        let bytes = payload.len();
        let sending = async move { engine.send_now(&key_, id, payload, by).await };
        self.link.call_with(key, bytes, sending)
    }

    async fn send_now(
        self: &Arc<Self>,
        key: &ProfileKey,
        id: MessageId,
        payload: Bytes,
        by: Option<Attribution>,
    ) -> Result<Sent> {
        let entry = by.map(|by| {
            AuditEntry::new(self.link.env.uuid(), "send", vec![key.clone()], by)
                .detail("message", id.to_string())
                .change()
        });
        let mut changes = vec![self.link.append(key, id, payload)?];
        changes.extend(entry.transpose()?);
        let deadline = self.link.deadline();
        let mut commit =
            self.link.commit_from_outside(self.link.incarnation(), changes, Returning::HEAD);
        let mut answer = self.link.settle(&commit, deadline).await;
        // Into the restored contents, where the message's id says whether it is in them.
        while let Err(error @ StoreError::Replaced { .. }) = &answer
            && !deadline.is_over(self.link.env.now())
            && overtaken(&self.link, error).await
        {
            let into = self.link.incarnation();
            commit = self.link.commit_from_outside(into, commit.changes, Returning::HEAD);
            answer = self.link.settle(&commit, deadline).await;
        }
        match answer {
            Ok(reply) => {
                metrics::counter!("profilestore_messages_sent_total").increment(1);
                if let Some(state) = reply.states.iter().find(|state| state.key == *key) {
                    self.link.health.foreign(key, &state.lease, false);
                }
                // Sooner than the store's notice.
                self.table.look(key);
                Ok(Sent::Now)
            }
            Err(error) => match error.conflict() {
                Some(ConflictKind::MessageSeen) => {
                    self.table.look(key);
                    Ok(Sent::Before)
                }
                _ => Err(self.link.not_sent(error, key)),
            },
        }
    }

    /// Changes what waits for a profile, without a session. `edit` sees the waiting messages and
    /// says what is to become of them; it is asked again when another writer was faster. None:
    /// nothing.
    #[cfg(feature = "roblox")]
    pub(crate) fn change_inbox(
        self: &Arc<Self>,
        key: &ProfileKey,
        edit: EditInbox,
    ) -> impl Future<Output = Result<bool>> + Send + 'static + use<> {
        let (engine, key_, edit) = (self.clone(), key.clone(), parking_lot::Mutex::new(edit));
        self.link.call(key, async move {
            let plan = |_| async {
                let (now_ms, mut state) = engine.link.read_settled(&key_, Returning::INBOX).await?;
                state.hide_edits();
                let wanted = crate::link::deadline::outside_of_calls(|| (*edit.lock())(&state));
                let Some(wanted) = wanted else { return Ok(Plan::Done(false)) };
                let changes = engine.inbox_changes(&state, wanted, now_ms)?;
                Ok(if changes.is_empty() {
                    Plan::Done(true)
                } else {
                    Plan::Commit(changes, Returning::HEAD, true)
                })
            };
            Ok(engine.rewrite(&key_, plan).await?.0)
        })
    }

    #[cfg(feature = "roblox")]
    fn inbox_changes(
        &self,
        state: &KeyState,
        wanted: Vec<InboxChange>,
        now_ms: i64,
    ) -> Result<Vec<Change>> {
        let key = &state.key;
        let waiting =
            |index: u64| state.inbox.iter().flatten().find(|message| message.index == index);
        let changed = |index: u64, payload| {
            let revision = waiting(index).map_or(0, |message| message.revision);
            Change::ChangeMessage { key: key.clone(), index, revision, payload }
        };
        let mut changes = Vec::with_capacity(wanted.len());
        for change in wanted {
            match change {
                InboxChange::Add { payload } => {
                    let name = self.link.env.uuid().to_string();
                    changes.push(self.link.append(
                        key,
                        MessageId { created_ms: now_ms, name },
                        payload,
                    )?);
                }
                InboxChange::Change { index, payload } => {
                    crate::link::messages::check_message(key, &payload)?;
                    changes.push(changed(index, payload));
                }
                InboxChange::Remove { index } => {
                    // A removal alone would also take one that was locked or changed meanwhile.
                    if let Some(message) = waiting(index) {
                        changes.push(changed(index, message.payload.clone()));
                    }
                    changes.push(Change::RemoveMessage { key: key.clone(), index, receipt: true });
                }
            }
        }
        Ok(changes)
    }

    /// Writes a read profile back and ends the session that holds it, if there is one. Answers with
    /// what the key holds then.
    pub(crate) fn replace(
        self: &Arc<Self>,
        key: &ProfileKey,
        replacement: Replacement,
    ) -> impl Future<Output = Result<KeyState>> + Send + 'static + use<> {
        let (engine, key_) = (self.clone(), key.clone());
        self.link.call_with(key, replacement.bytes.len(), async move {
            let began = replacement.incarnation;
            let plan = |incarnation| {
                let (engine, key, replacement) = (&engine, &key_, &replacement);
                async move {
                    stays_in(began, incarnation)?;
                    let (_, state) = engine.link.read_settled(key, Returning::INBOX).await?;
                    let others_wrote = replacement.existed && state.epoch != replacement.read_epoch;
                    if others_wrote
                        && engine.removed_since(&state, replacement.read_version).await?
                    {
                        let message =
                            "the profile was removed since it was read; nothing was written";
                        return Err(Error::new(ErrorKind::Removed, message));
                    }
                    let waiting = state.inbox.as_deref().unwrap_or_default();
                    let processed = waiting
                        .iter()
                        .filter(|message| replacement.processed.contains(&message.index));
                    let overwrite = Overwrite {
                        value: NewValue::Bytes(replacement.bytes.clone()),
                        user_ids: replacement.user_ids.clone(),
                        cause: replacement.cause,
                        author: engine.link.job_id.clone(),
                        more: receipts(key, processed),
                    };
                    Ok(overwrite.plan(&state, ()))
                }
            };
            let ((), reply) = engine.rewrite(&key_, plan).await?;
            after(reply, &key_)
        })
    }

    /// Leaves a tombstone, empties the inbox and ends the session that holds it. False when there
    /// was nothing. The tombstone stays associated with the profile's users as long as the history
    /// may hold something of theirs.
    pub(crate) fn remove(
        self: &Arc<Self>,
        key: &ProfileKey,
        by: Option<Attribution>,
    ) -> impl Future<Output = Result<bool>> + Send + 'static + use<> {
        let (engine, key_) = (self.clone(), key.clone());
        self.link.call(key, async move {
            let operation = engine.link.env.uuid();
            let plan = |_| async {
                // A value that cannot be read can still be removed.
                let (_, state) = engine.link.read_even_damaged(&key_).await?;
                let author = by.as_ref().map_or(&engine.link.job_id, |by| &by.author);
                let Some(mut overwrite) = engine.removal(&state, author).await? else {
                    return Ok(Plan::Done(false));
                };
                if let Some(by) = &by {
                    let entry =
                        AuditEntry::new(operation, "remove", vec![key_.clone()], by.clone());
                    let messages = state.inbox.as_ref().map_or(0, Vec::len);
                    overwrite.more.push(
                        entry
                            .detail("version", state.version)
                            .detail("messages", messages)
                            .change()?,
                    );
                }
                Ok(overwrite.plan(&state, true))
            };
            Ok(engine.rewrite(&key_, plan).await?.0)
        })
    }

    /// What a removal writes over a state that was read with value and inbox. None: there is
    /// nothing to be removed.
    pub(crate) async fn removal(
        &self,
        state: &KeyState,
        author: &str,
    ) -> Result<Option<Overwrite>> {
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

    /// Runs a transaction over sessions of this engine, each of another key.
    pub(crate) fn transact(
        &self,
        sessions: Vec<Arc<Session>>,
        time: Option<Duration>,
        script: Script,
    ) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let table = self.table.clone();
        let sent = move |key: &ProfileKey| table.look(key);
        let made = transaction::transact(&self.link, sessions, time, script, None, sent);
        async move { made.await.map(drop) }
    }

    /// Stores an audit entry by itself, over version `version` of it; 0: the first one.
    pub(crate) async fn book(&self, entry: &AuditEntry, version: u64) -> Result<()> {
        let deadline = self.link.deadline();
        let commit = self.link.new_commit(vec![entry.change_at(version)?], Returning::HEAD);
        self.link.settle(&commit, deadline).await?;
        Ok(())
    }
}

/// What a key holds after a commit that wrote it.
pub(crate) fn after(reply: Option<CommitReply>, key: &ProfileKey) -> Result<KeyState> {
    let states = reply.map(|reply| reply.states).unwrap_or_default();
    let after = states.into_iter().find(|after| after.key == *key);
    after.ok_or_else(|| {
        Error::new(ErrorKind::Corrupt, "the store's reply says nothing about the profile")
    })
}

fn receipts<'a>(
    key: &ProfileKey,
    messages: impl IntoIterator<Item = &'a StoredMessage>,
) -> Vec<Change> {
    let remove = |message: &StoredMessage| Change::RemoveMessage {
        key: key.clone(),
        index: message.index,
        receipt: true,
    };
    messages.into_iter().map(remove).collect()
}
