//! What a data store gives and takes: values with what belongs to them.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

use super::{Code, DataStoreError, MAX_VALUE_BYTES};
use crate::{
    data_store::{KeyState, VersionInfo},
    document::{compose, compose_inbox},
    record::{
        Stored,
        version::{KeyInfo, version_label},
    },
    storable::{DOCUMENT, check_metadata, check_users},
};

/// What is stored under a key.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Entry {
    /// The value, JSON. A profile's is its document.
    pub value: Arc<RawValue>,
    /// Specification: `DataStoreKeyInfo`.
    pub info: KeyInfo,
}

/// What was stored under a key.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EntryVersion {
    /// The value, JSON. None: the key was removed by this version.
    pub value: Option<Arc<RawValue>>,
    /// Specification: `DataStoreKeyInfo`.
    pub info: KeyInfo,
}

/// What is to be stored under a key. What is left out of it is cleared, as the services have it.
#[derive(Debug, Clone)]
pub struct NewEntry {
    /// The value, JSON; anything but null, at most [`MAX_VALUE_BYTES`].
    pub value: Box<RawValue>,
    /// The users associated with the key from now on, none negative.
    pub user_ids: Vec<i64>,
    /// The key's metadata: names of at most 50 characters, values of 250, and 300 characters of
    /// JSON in all.
    pub metadata: Map<String, Value>,
}

impl NewEntry {
    /// A value without users and metadata.
    pub fn new(value: Box<RawValue>) -> Self {
        Self { value, user_ids: Vec::new(), metadata: Map::new() }
    }

    /// The same from anything that is JSON. Fails when it is none, or cannot be stored: see
    /// [`crate::storable`].
    pub fn json(value: &impl Serialize) -> Result<Self, DataStoreError> {
        Ok(Self::new(DOCUMENT.encode(value)?))
    }

    /// With these users.
    #[must_use]
    pub fn user_ids(mut self, user_ids: Vec<i64>) -> Self {
        self.user_ids = user_ids;
        self
    }

    /// With this metadata.
    #[must_use]
    pub fn metadata(mut self, metadata: Map<String, Value>) -> Self {
        self.metadata = metadata;
        self
    }

    /// Holds it against the limits.
    pub(super) fn check(&self) -> Result<(), DataStoreError> {
        let text = self.value.get();
        if text == "null" {
            return Err(DataStoreError::new(
                Code::CantStoreValue,
                "nothing (nil) cannot be stored; remove the key instead",
            ));
        }
        if text.len() > MAX_VALUE_BYTES {
            let message =
                format!("the value is {} bytes of JSON; {MAX_VALUE_BYTES} are allowed", text.len());
            return Err(DataStoreError::new(Code::ValueTooLarge, message));
        }
        DOCUMENT.check(&self.value)?;
        check_users(&self.user_ids)?;
        check_metadata(&self.metadata)?;
        Ok(())
    }
}

/// What a key holds, from its state with value and inbox. Messages that wait for a key without a
/// value are a document of nothing but them, as they are with the published modules.
pub(super) fn current(mut state: KeyState) -> Result<Option<Entry>, DataStoreError> {
    state.hide_edits();
    match (&state.head, &state.value) {
        (Some(_), Some(bytes)) => {
            let stored = Stored::decode(bytes)?;
            Ok(of(&stored, &state))
        }
        _ => Ok(waiting(&state)),
    }
}

/// The same when the value is at hand, and `state` comes without it and without operators' edits.
pub(super) fn of(stored: &Stored, state: &KeyState) -> Option<Entry> {
    let head = state.head.as_ref()?;
    let value = compose(stored, head, Some(state)).into();
    Some(Entry { value, info: key_info(head, state.created_ms, Some(stored)) })
}

fn waiting(state: &KeyState) -> Option<Entry> {
    let newest_ms = state.inbox.as_ref()?.last()?.sent_ms;
    let number = state.version + 1;
    let created_ms = if state.version == 0 { newest_ms } else { state.created_ms };
    let info = KeyInfo {
        version: version_label(newest_ms, number, created_ms),
        number,
        created_ms,
        updated_ms: newest_ms,
        user_ids: Vec::new(),
        metadata: Map::new(),
    };
    Some(Entry { value: compose_inbox(state).into(), info })
}

pub(super) fn key_info(head: &VersionInfo, created_ms: i64, stored: Option<&Stored>) -> KeyInfo {
    KeyInfo {
        version: label(head, created_ms),
        number: head.number,
        created_ms,
        updated_ms: head.written_ms,
        user_ids: stored.map(|stored| stored.user_ids().to_vec()).unwrap_or_default(),
        metadata: stored.map(|stored| stored.metadata().clone()).unwrap_or_default(),
    }
}

/// The version's name: the one that it came with, or a made-up one.
pub(super) fn label(info: &VersionInfo, created_ms: i64) -> String {
    info.label.clone().unwrap_or_else(|| version_label(info.written_ms, info.number, created_ms))
}
