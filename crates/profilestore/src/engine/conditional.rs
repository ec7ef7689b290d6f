//! Writing a profile without a session on the condition that it is still what the caller has read:
//! what `If-Match` means over HTTP.
//!
//! The condition is judged on what the same look found that the commit is built on. So a profile
//! that changes in between is refused by the store, looked at again, and then found changed.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use serde_json::{Value, value::RawValue};

use super::{
    Engine,
    calls::after,
    newborn::StandingError,
    rewrite::{Plan, stays_in},
};
use crate::{
    audit::{Attribution, AuditEntry, AuditOutcome},
    data::{Codec as _, TypedCodec},
    data_store::{Cause, Change, Incarnation, KeyState, NewValue, Returning, StoreError},
    edit::{
        Edit,
        request::{EditRequest, Next},
    },
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    ownership::{self, Blocker},
    record::{Record, Stored},
};

/// What a profile is expected to be. Otherwise the call fails with [`ErrorKind::Changed`] and
/// nothing is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expected {
    /// There is none.
    Absent,
    /// This version of it, and no session has begun or ended since.
    Version {
        /// Of which contents of the store. A restored backup has others under the same numbers.
        incarnation: Incarnation,
        /// Its epoch.
        epoch: u64,
        /// Its version.
        version: u64,
    },
}

/// What a conditional write did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// What to expect next time.
    pub now: Expected,
    /// The number of the new version; the old one when the write changed nothing.
    pub version: u64,
    /// What was booked about it.
    pub entry: AuditEntry,
}

impl Expected {
    /// What a key holds, in these contents of the store.
    pub fn of(incarnation: Incarnation, state: &KeyState) -> Self {
        if state.exists() { Self::version_of(incarnation, state) } else { Self::Absent }
    }

    pub(super) fn version_of(incarnation: Incarnation, state: &KeyState) -> Self {
        Self::Version { incarnation, epoch: state.epoch, version: state.version }
    }

    pub(super) fn check(self, incarnation: Incarnation, state: &KeyState) -> Result<()> {
        let found = Self::version_of(incarnation, state);
        let why = match (self, state.exists()) {
            (Self::Absent, false) => return Ok(()),
            (Self::Absent, true) => "the profile is there already",
            (Self::Version { .. }, false) => "there is no such profile any more",
            (expected, true) if expected == found => return Ok(()),
            _ => "the profile has changed since it was read; read it again",
        };
        Err(Error::new(ErrorKind::Changed, why))
    }
}

/// What is to be written.
pub(crate) enum NewContent {
    /// This data, with the users, tags and metadata that the profile has.
    Data(Box<RawValue>),
    /// What this edit makes of it.
    Edited(Edit),
}

impl Engine {
    /// Writes a profile that no session holds, if it is what is expected.
    pub(crate) fn write_if(
        self: &Arc<Self>,
        key: &ProfileKey,
        expected: Expected,
        content: NewContent,
        by: Attribution,
    ) -> impl Future<Output = Result<Written>> + Send + 'static + use<> {
        let (engine, key_) = (self.clone(), key.clone());
        let bytes = match &content {
            NewContent::Data(data) => data.get().len(),
            NewContent::Edited(_) => 0,
        };
        self.link.call_with(key, bytes, async move {
            let operation = engine.link.env.uuid();
            let request = match &content {
                NewContent::Edited(edit) => {
                    Some(EditRequest::new(operation, edit.clone(), by.clone(), false)?)
                }
                NewContent::Data(_) => None,
            };
            let tried = AtomicBool::new(false);
            let plan = |incarnation| {
                let (engine, key, content, by) = (&engine, &key_, &content, &by);
                let request = &request;
                if tried.swap(true, Ordering::Relaxed) {
                    // Perhaps it was the list of standing edits that had changed.
                    engine.standing.forget(key.store());
                }
                async move {
                    let (now_ms, state) = engine.link.read_settled(key, Returning::ALL).await?;
                    expected.check(incarnation, &state)?;
                    let blocker = engine.blocker(&state, now_ms);
                    if blocker == Blocker::Held {
                        return Err(held(&state));
                    }
                    let next = match (request, content) {
                        (Some(request), _) => request.apply_unheld(&state, 0, None, blocker)?,
                        (None, NewContent::Data(data)) => {
                            let entry =
                                AuditEntry::new(operation, "put", vec![key.clone()], by.clone());
                            let (data, born) = engine.first_data(&state, data, now_ms).await?;
                            put(&state, blocker, &data, born, entry, now_ms)?
                        }
                        (None, NewContent::Edited(_)) => unreachable!("it has a request"),
                    };
                    match next {
                        Next::Settle(
                            _,
                            AuditEntry { outcome: AuditOutcome::Refused { why }, .. },
                        ) => Err(Error::new(ErrorKind::EditRefused, why)),
                        Next::Settle(changes, entry) => {
                            Ok(Plan::Commit(changes, Returning::HEAD, (incarnation, entry)))
                        }
                        _ => Err(Error::new(ErrorKind::Corrupt, "the edit was not settled")),
                    }
                }
            };
            let ((incarnation, entry), reply) =
                engine.rewrite(&key_, plan).await.map_err(|error| error.about(&key_))?;
            let stored_ms = reply.as_ref().map_or(0, |reply| reply.now_ms);
            let state = after(reply, &key_)?;
            Ok(Written {
                now: Expected::version_of(incarnation, &state),
                version: state.version,
                entry: AuditEntry { stored_ms, ..entry },
            })
        })
    }

    /// The data with which a profile begins, the standing edits applied, and what that adds to the
    /// commit. Data of a profile that is there stays as it is.
    async fn first_data(
        &self,
        state: &KeyState,
        data: &RawValue,
        now_ms: i64,
    ) -> Result<(Box<RawValue>, Vec<Change>)> {
        if state.exists() {
            return Ok((data.to_owned(), Vec::new()));
        }
        let codec = TypedCodec::<Value>::as_it_is();
        let record = Record::new(now_ms.div_euclid(1000), data.to_owned());
        let typed = codec.decode(data)?;
        let newborn = self.standing.newborn(&self.link, state, &record, &typed, &codec).await;
        let newborn = newborn.map_err(|error| match error {
            StandingError::Store(error) => error.into(),
            StandingError::Other(error) => error,
        })?;
        // Without an edit the data stays the text that came.
        let edited = (newborn.applied > 0).then(|| newborn.data.to_json()).transpose()?;
        Ok((edited.unwrap_or_else(|| data.to_owned()), newborn.changes))
    }

    /// Removes a profile, as [`Engine::remove`] does, if it is what is expected.
    pub(crate) fn remove_if(
        self: &Arc<Self>,
        key: &ProfileKey,
        expected: Expected,
        by: Attribution,
    ) -> impl Future<Output = Result<()>> + Send + 'static + use<> {
        let (engine, key_) = (self.clone(), key.clone());
        self.link.call(key, async move {
            let operation = engine.link.env.uuid();
            let began = engine.link.incarnation();
            let plan = |incarnation| {
                let (engine, key, by) = (&engine, &key_, &by);
                async move {
                    stays_in(began, incarnation)?;
                    let (_, state) = match engine.link.read_settled(key, Returning::ALL).await {
                        // A value that cannot be read can still be removed.
                        Err(StoreError::Damaged { .. }) => {
                            engine.link.read_settled(key, Returning::INBOX).await?
                        }
                        read => read?,
                    };
                    expected.check(incarnation, &state)?;
                    let Some(mut overwrite) = engine.removal(&state, &by.author).await? else {
                        return Ok(Plan::Done(()));
                    };
                    let messages = state.inbox.as_ref().map_or(0, Vec::len);
                    let entry = AuditEntry::new(operation, "remove", vec![key.clone()], by.clone())
                        .detail("version", state.version)
                        .detail("messages", messages);
                    overwrite.more.push(entry.change()?);
                    Ok(overwrite.plan(&state, ()))
                }
            };
            let ((), _) = engine.rewrite(&key_, plan).await.map_err(|error| error.about(&key_))?;
            Ok(())
        })
    }
}

fn held(state: &KeyState) -> Error {
    let by = state.lease.holder.as_ref().map_or("another server", |holder| &*holder.job_id);
    let message = format!(
        "a session holds the profile; edit it through its holder, or end the session first: \
         held_by=`{by}`"
    );
    Error::new(ErrorKind::Held, message)
}

/// The changes that write data over what is stored. The lease is written in any case: a start that
/// has read the profile before must not go on with what it read.
fn put(
    state: &KeyState,
    blocker: Blocker,
    data: &RawValue,
    born: Vec<Change>,
    entry: AuditEntry,
    now_ms: i64,
) -> Result<Next> {
    let (bytes, user_ids) = encoded(state, data, now_ms)?;
    let key = &state.key;
    let dead = blocker == Blocker::Dead;
    let mut changes =
        vec![if dead { ownership::cleared(state) } else { ownership::touched(state) }];
    if let (true, Some(row)) = (dead, &state.holder_server) {
        changes.push(Change::MarkDead { id: row.id, revision: row.revision });
    }
    changes.push(Change::Write {
        key: key.clone(),
        epoch: state.epoch,
        version: state.version,
        value: NewValue::Bytes(bytes),
        user_ids,
        cause: Cause::Set,
        author: entry.by.author.clone(),
        keep_previous: true,
        seal: false,
        imported: None,
    });
    changes.extend(born);
    let entry = entry.detail("version", state.version + 1);
    changes.push(entry.change()?);
    Ok(Next::Settle(changes, entry))
}

/// The stored form of new data, with the users, tags and metadata that the profile has.
fn encoded(state: &KeyState, data: &RawValue, now_ms: i64) -> Result<(Bytes, Vec<i64>)> {
    let stored = match (state.exists(), state.value.as_deref()) {
        (true, Some(bytes)) => Some(Stored::decode(bytes)?),
        _ => None,
    };
    let record = match stored {
        Some(Stored::Profile(record)) => Record { data: data.to_owned(), origin: None, ..record },
        None | Some(Stored::MessagesOnly(_)) => {
            Record::new(now_ms.div_euclid(1000), data.to_owned())
        }
        Some(Stored::Foreign(_)) => {
            let message = "what is stored is not a profile; it is left alone";
            return Err(Error::new(ErrorKind::Foreign, message));
        }
    };
    Ok((record.encode()?, record.indexed_users()))
}
