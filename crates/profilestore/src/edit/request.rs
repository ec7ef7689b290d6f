//! An edit on its way to a profile: what it is asked to do, what happens to it there, and what is
//! booked.
//!
//! Where no server holds the profile, the caller's server applies the edit. Where one does, the
//! edit goes to the holder as a message under a reserved name, and the audit log gets a pending
//! entry in the same commit. The save that stores the edit's effect removes the message and books
//! the outcome. The server that settles an edit writes the entry's next version, so it is settled
//! once.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use uuid::Uuid;

use super::{
    Aside, Edit, JsonChange, Refusal, alike, json_changes, lookup, stays_a_table,
    types::{Types, opened},
};
use crate::{
    audit::{Attribution, AuditEntry, AuditOutcome, entry_key},
    data::{Codec, Data, encode_for_save},
    data_store::{Cause, Change, KeyState, MessageId, NewMessage, NewValue, StoredMessage},
    error::{Error, ErrorKind, Result},
    filter::Filter,
    key::ProfileKey,
    ownership::{self, Blocker},
    record::{Record, Stored},
};

const FORM: u32 = 1;

/// The detail of an entry whose edit did not mean the profile: a test of it did not match.
pub(crate) const UNMATCHED: &str = "unmatched";

/// An operator wants a profile edited.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EditRequest {
    v: u32,
    pub(crate) operation: Uuid,
    #[serde(flatten)]
    pub(crate) by: Attribution,
    /// The edit is one of many: the operation's own entry shows it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) bulk: bool,
    pub(crate) edit: Edit,
    /// The types of the caller's program. A holder has its own.
    #[serde(skip)]
    types: Types,
    /// Which profiles are meant, by their saved data. Who sends the edit to a holder has looked.
    #[serde(skip)]
    only: Option<Filter>,
}

/// What is to be done about a request next.
pub(crate) enum Next {
    /// It was settled before.
    Settled(AuditEntry),
    /// It lies in the holder's inbox.
    Waits,
    /// It does not mean the profile. Nothing is booked.
    PassedOver(AuditEntry),
    /// To commit: settles it with this outcome.
    Settle(Vec<Change>, AuditEntry),
    /// To commit: sends it to the holder.
    Send(Vec<Change>),
}

/// What an edit made of data that has the program's own type.
pub(crate) struct Edited {
    pub(crate) data: Arc<dyn Data>,
    pub(crate) entry: AuditEntry,
    /// The stored form; None when nothing has changed.
    bytes: Option<Bytes>,
}

/// The edit's effect on some data.
pub(crate) struct Effect {
    before: Value,
    after: Value,
    aside: Aside,
}

impl EditRequest {
    pub(crate) fn new(operation: Uuid, edit: Edit, by: Attribution, bulk: bool) -> Result<Self> {
        edit.check()?;
        by.check()?;
        Ok(Self { v: FORM, operation, by, bulk, edit, types: Types::default(), only: None })
    }

    /// Judges profiles that no server holds by these types.
    pub(crate) fn through(self, types: Types) -> Self {
        Self { types, ..self }
    }

    /// Passes over profiles whose saved data does not match.
    pub(crate) fn only(self, only: Option<Filter>) -> Self {
        Self { only, ..self }
    }

    /// Reads a message. One that cannot be read is to be refused with the entry given.
    pub(crate) fn read(key: &ProfileKey, message: &StoredMessage) -> Result<Self, Box<AuditEntry>> {
        let read =
            serde_json::from_slice::<Self>(&message.payload).map_err(|error| error.to_string());
        read.and_then(|request| {
            if request.v > FORM { Err(format!("its form is {}", request.v)) } else { Ok(request) }
        })
        .map_err(|why| {
            let why =
                format!("the holder cannot read the edit, it may be of an older version: {why}");
            Box::new(refused_unread(key, message, why))
        })
    }

    pub(crate) fn entry(&self, key: &ProfileKey) -> AuditEntry {
        let entry = AuditEntry::new(self.operation, "edit", vec![key.clone()], self.by.clone());
        if self.bulk {
            entry
        } else {
            entry.detail("edit", serde_json::to_value(&self.edit).unwrap_or_default())
        }
    }

    pub(crate) fn refused(&self, key: &ProfileKey, why: impl Into<Refusal>) -> AuditEntry {
        let Refusal { why, unmatched } = why.into();
        let entry = self.entry(key).outcome(AuditOutcome::Refused { why });
        if unmatched { entry.detail(UNMATCHED, true) } else { entry }
    }

    /// The entry for an edit that made `after` of `before`.
    pub(crate) fn done(
        &self,
        key: &ProfileKey,
        before: &Value,
        after: &Value,
        aside: &Aside,
    ) -> AuditEntry {
        let entry = self.entry(key);
        let Some(undo) = self.edit.undo(before, after) else { return entry };
        match serde_json::to_value(&undo) {
            // There is still the history.
            Ok(json) if !aside.is_empty() && aside.is_in(&json.to_string()) => {
                entry.detail("undo_unstorable", true)
            }
            Ok(json) if undo.check().is_ok() => entry.detail("undo", json),
            _ => entry.detail("undo_too_long", true),
        }
    }

    /// The entry for an edit that the holder's program, which runs elsewhere, has made `after` of
    /// `before` by.
    pub(crate) fn done_by_holder(
        &self,
        key: &ProfileKey,
        before: &RawValue,
        after: &RawValue,
    ) -> AuditEntry {
        let read = || {
            let (before, aside) = Aside::read(before, &self.edit)?;
            let after = serde_json::from_str(after.get()).map_err(|error| error.to_string())?;
            Ok::<_, String>(self.done(key, &before, &after, &aside))
        };
        read().unwrap_or_else(|_| self.entry(key).detail("undo_unstorable", true))
    }

    /// Applies the edit to data, or says why not.
    pub(crate) fn apply(&self, data: &RawValue) -> Result<Effect, Refusal> {
        let (before, aside) = Aside::read(data, &self.edit)?;
        let told = |refusal: Refusal| Refusal { why: aside.put_back(&refusal.why), ..refusal };
        let after = self.edit.steps(&before).map_err(told)?;
        stays_a_table(&before, &after)?;
        Ok(Effect { before, after, aside })
    }

    /// Applies the edit to data of the program's own type, or says why not: what the type does not
    /// keep, or what could not be saved.
    pub(crate) fn apply_typed(
        &self,
        key: &ProfileKey,
        data: &dyn Data,
        codec: &dyn Codec,
        meta: &Record,
    ) -> Result<Edited, Refusal> {
        // Serialiser and decoder are the program's.
        catch_unwind(AssertUnwindSafe(|| self.try_typed(key, data, codec, meta)))
            .unwrap_or_else(|_| Err("the program panicked while its data was edited".into()))
    }

    fn try_typed(
        &self,
        key: &ProfileKey,
        data: &dyn Data,
        codec: &dyn Codec,
        meta: &Record,
    ) -> Result<Edited, Refusal> {
        let json = |data: &dyn Data| data.to_json().map_err(|wrong| wrong.to_string());
        let Effect { before, after, aside } = self.apply(&json(data)?)?;
        let asked = aside.write(&after)?;
        let data = codec.decode(&asked).map_err(|error| with_cause(&error))?;
        // What the program's type makes of it is what will be stored.
        let came: Value =
            serde_json::from_str(json(&*data)?.get()).map_err(|error| error.to_string())?;
        if let Some(path) = swallowed(&before, &after, &came) {
            return Err(format!("the program's data type does not keep it: path=`{path}`").into());
        }
        let (bytes, _) =
            encode_for_save(&*data, meta, codec, false).map_err(|error| with_cause(&error))?;
        let entry = self.done(key, &before, &came, &aside);
        Ok(Edited { data, entry, bytes: (!alike(&before, &came)).then_some(bytes) })
    }

    /// What is to be done next. `state` with value and inbox, `book` the entry's key with its
    /// value.
    pub(crate) fn next(
        &self,
        state: &KeyState,
        book: &KeyState,
        blocker: Blocker,
        cap: u32,
    ) -> Result<Next> {
        let booked = AuditEntry::of(book)?;
        let pending = match booked {
            Some(entry) if entry.outcome != AuditOutcome::Pending => {
                return Ok(Next::Settled(entry));
            }
            Some(_) => true,
            None => false,
        };
        let id = MessageId::edit(self.operation);
        let message = state
            .inbox
            .iter()
            .flatten()
            .find(|message| message.id == id)
            .map(|message| message.index);
        if !state.exists() && message.is_none() {
            return Err(no_profile());
        }
        if pending && message.is_none() {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "the edit's entry is pending, but nothing waits for it",
            ));
        }
        if !pending && message.is_none() && self.passes_over(state) {
            let why = Refusal { why: "it is not searched for".into(), unmatched: true };
            return Ok(Next::PassedOver(self.refused(&state.key, why)));
        }
        match blocker {
            Blocker::Held if pending => Ok(Next::Waits),
            Blocker::Held => self.send(state, cap),
            Blocker::Free | Blocker::Dead => {
                self.apply_unheld(state, book.version, message, blocker)
            }
        }
    }

    /// True when the search tells that the profile is not meant. Where it cannot tell, the edit is
    /// refused for the same reason.
    fn passes_over(&self, state: &KeyState) -> bool {
        let Some(only) = &self.only else { return false };
        match Stored::decode(state.value.as_deref().unwrap_or_default()) {
            Ok(Stored::Profile(record)) => only.matches(&record.data).is_ok_and(|meant| !meant),
            Ok(Stored::Foreign(_)) => true,
            _ => false,
        }
    }

    fn send(&self, state: &KeyState, cap: u32) -> Result<Next> {
        let payload = serde_json::to_vec(self).map_err(|error| {
            Error::new(ErrorKind::Invalid, "the edit is no JSON").caused_by(error)
        })?;
        let message = NewMessage { id: MessageId::edit(self.operation), payload: payload.into() };
        Ok(Next::Send(vec![
            Change::AppendMessage { key: state.key.clone(), message, cap },
            self.entry(&state.key).outcome(AuditOutcome::Pending).change()?,
        ]))
    }

    /// Applies the edit where nobody holds the profile. The lease is written in any case: a start
    /// that read the profile before must not go on with what it read.
    pub(crate) fn apply_unheld(
        &self,
        state: &KeyState,
        booked: u64,
        message: Option<u64>,
        blocker: Blocker,
    ) -> Result<Next> {
        let key = &state.key;
        let dead = blocker == Blocker::Dead;
        let mut changes =
            vec![if dead { ownership::cleared(state) } else { ownership::touched(state) }];
        if let (true, Some(row)) = (dead, &state.holder_server) {
            changes.push(Change::MarkDead { id: row.id, revision: row.revision });
        }
        let rewritten = match self.rewrite(state) {
            // It came while the profile was being removed or replaced. What is told as not done
            // must not wait for the next one.
            Err(error) if message.is_some() => Err(error.to_string().into()),
            rewritten => rewritten?,
        };
        let entry = match rewritten {
            Ok((entry, None)) => {
                changes.push(Change::Check { key: key.clone(), epoch: state.epoch });
                entry
            }
            Ok((entry, Some((bytes, user_ids)))) => {
                changes.push(Change::Write {
                    key: key.clone(),
                    epoch: state.epoch,
                    version: state.version,
                    value: NewValue::Bytes(bytes),
                    user_ids,
                    cause: Cause::Edit,
                    author: self.by.author.clone(),
                    keep_previous: true,
                    seal: false,
                    imported: None,
                });
                entry.detail("version", state.version + 1)
            }
            Err(why) => self.refused(key, why),
        };
        changes.extend(message.map(|index| Change::RemoveMessage {
            key: key.clone(),
            index,
            receipt: true,
        }));
        changes.push(entry.change_at(booked)?);
        Ok(Next::Settle(changes, entry))
    }

    /// The stored form of the edited profile, None if it stays as it is; or why the edit does not
    /// fit.
    #[expect(clippy::type_complexity, reason = "used once, next to its definition")]
    fn rewrite(
        &self,
        state: &KeyState,
    ) -> Result<Result<(AuditEntry, Option<(Bytes, Vec<i64>)>), Refusal>> {
        let foreign = |why: String| {
            Error::new(
                ErrorKind::Foreign,
                format!("what is stored is not a profile ({why}); it is left alone"),
            )
        };
        if !state.exists() {
            return Err(no_profile());
        }
        let record = match Stored::decode(state.value.as_deref().unwrap_or_default()) {
            Ok(Stored::Profile(record)) => record,
            Ok(Stored::MessagesOnly(_)) => {
                return Err(Error::new(ErrorKind::NotFound, "the profile has no data yet"));
            }
            Ok(_) => return Err(foreign("a value of another kind".into())),
            Err(error) => return Err(foreign(error.to_string())),
        };
        if let Some(codec) = self.types.of(&state.key) {
            return self.rewrite_typed(&state.key, record, codec);
        }
        let Effect { before, after, aside } = match self.apply(&record.data) {
            Ok(effect) => effect,
            Err(why) => return Ok(Err(why)),
        };
        let entry = self.done(&state.key, &before, &after, &aside);
        if alike(&before, &after) {
            return Ok(Ok((entry, None)));
        }
        let user_ids = record.indexed_users();
        let written = aside.write(&after).and_then(|data| {
            Record { data, origin: None, ..record }
                .encode_checked()
                .map_err(|error| error.to_string())
        });
        Ok(written.map(|bytes| (entry, Some((bytes, user_ids)))).map_err(Refusal::from))
    }
}

impl EditRequest {
    /// The same as a session would do it: it opens the profile, edits it and saves it.
    #[expect(clippy::type_complexity, reason = "as above")]
    fn rewrite_typed(
        &self,
        key: &ProfileKey,
        record: Record,
        codec: &dyn Codec,
    ) -> Result<Result<(AuditEntry, Option<(Bytes, Vec<i64>)>), Refusal>> {
        let data = opened(codec, key, &record)?;
        let mut meta = Record { origin: None, ..record };
        codec.stamp(&mut meta);
        let edited = self.apply_typed(key, &*data, codec, &meta);
        Ok(edited
            .map(|edited| (edited.entry, edited.bytes.map(|bytes| (bytes, meta.indexed_users())))))
    }
}

fn with_cause(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn no_profile() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such profile")
}

/// What dismisses the edits among the messages of a profile that is removed or erased: they are
/// booked as refused. The messages themselves are for the caller to remove, in the same commit.
pub(crate) fn dismissed<'a>(
    key: &ProfileKey,
    messages: impl IntoIterator<Item = &'a StoredMessage>,
    why: &str,
) -> Result<Vec<Change>> {
    let edits = messages.into_iter().filter(|message| message.id.is_edit());
    edits
        .map(|message| match EditRequest::read(key, message) {
            Ok(request) => request.refused(key, why).change_at(1),
            Err(entry) => entry.change_at(1),
        })
        .collect()
}

/// The first change of the asked ones that did not come about: what was to be changed is what it
/// was before.
fn swallowed(before: &Value, asked: &Value, came: &Value) -> Option<String> {
    let swallowed = |change: &JsonChange| {
        let came = lookup(came, &change.path);
        let as_asked = match (&change.after, came) {
            (Some(asked), Some(came)) => alike(asked, came),
            (asked, came) => asked.as_ref().unwrap_or(&Value::Null) == came.unwrap_or(&Value::Null),
        };
        let as_before = match (&change.before, came) {
            (Some(before), Some(came)) => alike(before, came),
            (before, came) => before.is_none() && came.is_none(),
        };
        !as_asked && as_before
    };
    json_changes(before, asked).into_iter().find(swallowed).map(|change| change.path)
}

fn refused_unread(key: &ProfileKey, message: &StoredMessage, why: String) -> AuditEntry {
    #[derive(Deserialize)]
    struct Anyhow {
        #[serde(flatten)]
        by: Attribution,
    }
    let operation = message.id.operation().unwrap_or_default();
    let by = serde_json::from_slice::<Anyhow>(&message.payload)
        .map_or_else(|_| Attribution::new("unknown"), |anyhow| anyhow.by);
    AuditEntry::new(operation, "edit", vec![key.clone()], by).outcome(AuditOutcome::Refused { why })
}

/// Where the outcome of an operation on a profile is booked.
pub(crate) fn entry_key_of(operation: Uuid, key: &ProfileKey) -> ProfileKey {
    entry_key(operation, std::slice::from_ref(key))
}
