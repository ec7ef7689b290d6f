//! What a document that is written over a key does to what we keep apart: the value, the lease, the
//! inbox. Pure.

use std::collections::BTreeMap;

use serde_json::Value;
use uuid::Uuid;

use super::{DataStoreError, NewEntry};
use crate::{
    data_store::{Cause, Change, KeyState, LeaseState, MessageId, NewValue, Offer, StoredMessage},
    document::{Document, Surroundings, request_of, session_of},
    ownership,
    record::Stored,
};

/// Everything that one write needs to know.
pub(super) struct Write<'a> {
    /// What the key holds, with value and inbox.
    pub(super) state: &'a KeyState,
    /// The store's clock.
    pub(super) now_ms: i64,
    pub(super) entry: &'a NewEntry,
    pub(super) author: &'a str,
    /// What makes the identities of new messages unique.
    pub(super) token: Uuid,
    /// Keep every version.
    pub(super) every_save: bool,
}

/// The changes, and what they store.
pub(super) struct Plan {
    pub(super) changes: Vec<Change>,
    pub(super) stored: Stored,
    /// The number of the version that they make.
    pub(super) version: u64,
}

impl Write<'_> {
    pub(super) fn plan(&self) -> Result<Plan, DataStoreError> {
        let state = self.state;
        let around = Surroundings {
            written_ms: self.now_ms,
            created_ms: if state.version == 0 { self.now_ms } else { state.created_ms },
            user_ids: Some(self.entry.user_ids.clone()),
            metadata: Some(self.entry.metadata.clone()),
        };
        let document = Document::parse(&self.entry.value, around);
        document.check_messages()?;
        let before = Before::of(state);
        let value = document.stored.encode()?;
        let (lease, owner) = self.lease(&document);
        let ends_ours = owner == Owner::Other
            && state.lease.holder.as_ref().is_some_and(|holder| holder.server.is_some());
        let write = Change::Write {
            key: state.key.clone(),
            epoch: state.epoch,
            version: state.version,
            value: NewValue::Bytes(value),
            user_ids: document.stored.indexed_users(),
            cause: Cause::Set,
            author: self.author.to_owned(),
            keep_previous: self.every_save
                || ends_ours
                || before.becomes_another_kind(&document.stored),
            seal: false,
            imported: None,
        };
        // Counts the revision up in any case, so that a start that read the profile before begins
        // anew.
        let lease = ownership::by_document(state, lease, owner != Owner::Other);
        let mut changes = vec![write, lease];
        changes.extend(self.inbox(&document, before));
        Ok(Plan { changes, stored: document.stored, version: state.version + 1 })
    }

    /// The lease as the document has it, and whose the profile is then.
    fn lease(&self, document: &Document) -> (LeaseState, Owner) {
        let (before, said) = (&self.state.lease, &document.lease);
        let load_count = match document.stored {
            Stored::Profile(_) => said.load_count,
            _ => before.load_count,
        };
        let (holder, owner) = match (&before.holder, &said.holder) {
            (None, None) => (None, Owner::Same),
            (Some(held), Some(by))
                if load_count == before.load_count
                    && by.document.as_ref().is_some_and(|said| same(said, &session_of(held))) =>
            {
                let mut held = held.clone();
                if held.server.is_none() {
                    (held.last_update_ms, held.document) = (by.last_update_ms, by.document.clone());
                }
                (Some(held), Owner::Same)
            }
            (_, by) => (by.clone(), Owner::Other),
        };
        let request = match (&before.request, &said.request) {
            (Some(asked), Some(by))
                if by.document.as_ref().is_some_and(|said| same(said, &request_of(asked))) =>
            {
                Some(asked.clone())
            }
            (_, by) => by.clone(),
        };
        let offer = match (&before.holder, &holder) {
            (None, None) => before.offer.clone(),
            // The holder lets go: the server that asked for the profile gets it.
            (Some(_), None) => request.as_ref().and_then(|request| {
                Some(Offer { to: request.id, server: request.server?, at_ms: self.now_ms })
            }),
            (_, Some(_)) => None,
        };
        (LeaseState { load_count, holder, request, offer }, owner)
    }

    /// The difference that the document's messages make. None: there is none.
    fn inbox(&self, document: &Document, before: Before) -> Option<Change> {
        let state = self.state;
        let inbox = state.inbox.as_deref().unwrap_or_default();
        // A document says nothing about what its writer was not shown.
        let is_hidden = |message: &StoredMessage| before == Before::Other || message.id.is_edit();
        let (hidden, shown): (Vec<_>, Vec<_>) = inbox.iter().cloned().partition(is_hidden);
        let mut before: BTreeMap<u64, StoredMessage> =
            shown.into_iter().map(|message| (message.index, message)).collect();
        let mut changed = document.last_message > state.last_message;
        let mut last_message = state.last_message.max(document.last_message);
        let mut after = hidden;
        let mut renumbered = Vec::new();
        for said in &document.messages {
            match before.remove(&said.index) {
                Some(there) => {
                    let payload = if same_json(&there.payload, &said.payload) {
                        there.payload.clone()
                    } else {
                        said.payload.clone()
                    };
                    let now = StoredMessage {
                        payload,
                        locked: said.locked,
                        revision: said.revision,
                        ..there.clone()
                    };
                    changed |= now != there;
                    after.push(now);
                }
                None => {
                    changed = true;
                    if said.index > state.last_message {
                        after.push(self.new_message(said, said.index));
                    } else {
                        // Its number was another message's, and no number is given out twice.
                        renumbered.push(said);
                    }
                }
            }
        }
        for said in renumbered {
            last_message += 1;
            after.push(self.new_message(said, last_message));
        }
        changed |= !before.is_empty();
        after.sort_by_key(|message| message.index);
        changed.then(|| Change::ReplaceInbox {
            key: state.key.clone(),
            revision: state.inbox_revision,
            last_message,
            messages: after,
        })
    }

    fn new_message(&self, said: &StoredMessage, index: u64) -> StoredMessage {
        let name = format!("document/{}/{index}", self.token);
        let id = MessageId::stored(self.now_ms, &name).unwrap_or_else(|| said.id.clone());
        StoredMessage { index, id, sent_ms: self.now_ms, ..said.clone() }
    }
}

/// What kind of value is written over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// None.
    Nothing,
    Profile,
    /// Nothing but messages.
    Messages,
    /// Something that is no profile, or cannot be read. It shows no messages.
    Other,
}

impl Before {
    fn of(state: &KeyState) -> Self {
        match state.value.as_deref().map(Stored::decode) {
            None => Self::Nothing,
            Some(Ok(Stored::Profile(_))) => Self::Profile,
            Some(Ok(Stored::MessagesOnly(_))) => Self::Messages,
            Some(_) => Self::Other,
        }
    }

    /// True when a profile takes the place of something else, or something else that of a profile:
    /// what was there stays in the history.
    fn becomes_another_kind(self, stored: &Stored) -> bool {
        let is_profile = matches!(stored, Stored::Profile(_));
        match self {
            Self::Nothing | Self::Messages => false,
            Self::Profile => !is_profile,
            Self::Other => is_profile,
        }
    }
}

/// Whose a profile is once a document was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// The one's who had it, or nobody's still.
    Same,
    Other,
}

fn same_json(a: &[u8], b: &[u8]) -> bool {
    let parse = |bytes| serde_json::from_slice::<Value>(bytes).ok();
    a == b || parse(a).zip(parse(b)).is_some_and(|(a, b)| same(&a, &b))
}

/// Equal as Lua has it: a number is a number however it is written, and an empty list is an empty
/// table.
fn same(a: &Value, b: &Value) -> bool {
    let is_empty = |value: &Value| match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b || (is_empty(a) && is_empty(b)),
    }
}
