//! One version for a person or a program to look at, and all of them to be verified.

use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

use super::{
    ExportFilter, ExportReport, Progress, TransferError, UnreadableValue, UnstorableValue,
    walk::{Keys, each_version},
};
use crate::{
    ProfileKey,
    data_store::{
        DataStore, DataStoreExt, KeyState, LeaseState, Returning, StoreError, StoredMessage,
        VersionInfo, VersionRef,
    },
    document::{compose, compose_inbox},
    record::{
        RecordError, Stored, UserId,
        version::{find_version, version_label},
    },
    storable::MESSAGE,
};

/// What kind of value a version has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Content {
    /// A profile.
    Profile,
    /// No profile, kept as it came.
    Foreign,
    /// Nothing but messages.
    MessagesOnly,
    /// Nothing: a tombstone.
    Removed,
}

/// A version in the document form.
#[derive(Debug)]
#[non_exhaustive]
pub struct VersionDocument {
    /// What its key holds now, with the inbox.
    pub state: KeyState,
    /// The store's clock, Unix milliseconds.
    pub now_ms: i64,
    /// About the version. None for a key that has messages waiting and was never written.
    pub info: Option<VersionInfo>,
    /// Its version string: the one that it came with, or a made-up one.
    pub label: String,
    /// What kind of value it has.
    pub content: Content,
    /// The users associated with the key.
    pub user_ids: Vec<UserId>,
    /// The key's metadata. Specification: `RobloxMetaData`.
    pub metadata: Map<String, Value>,
    /// The document; None for a tombstone.
    pub value: Option<Box<RawValue>>,
}

/// Reads one version of a key, the current one unless another is named, in the document form. None
/// when there is none.
///
/// Fails with [`StoreError::Corrupt`](crate::data_store::StoreError::Corrupt) when its value cannot
/// be read.
pub async fn document(
    store: &dyn DataStore,
    key: &ProfileKey,
    version: Option<&VersionRef>,
) -> Result<Option<VersionDocument>, TransferError> {
    let (now_ms, mut state) = match store.read_one(key, Returning::ALL).await {
        // Another version than the current one may be whole.
        Err(StoreError::Damaged { .. }) if version.is_some() => {
            store.read_one(key, Returning::INBOX).await?
        }
        read => read?,
    };
    state.hide_edits();
    let other = match version {
        None => None,
        Some(version) => match find_version(store, &state, version).await? {
            Some(found) => Some(found),
            None => return Ok(None),
        },
    };
    let (info, bytes) = match other {
        Some(other) => (Some(other.info), other.value),
        None => (state.head.clone(), state.value.clone()),
    };
    let Some(info) = info else {
        let waiting = state.inbox.as_ref().and_then(|inbox| inbox.last());
        return Ok(waiting.map(|newest| newest.sent_ms).map(|sent_ms| VersionDocument {
            label: version_label(sent_ms, 1, sent_ms),
            value: Some(compose_inbox(&state)),
            info: None,
            content: Content::MessagesOnly,
            user_ids: Vec::new(),
            metadata: Map::new(),
            now_ms,
            state,
        }));
    };
    let stored = bytes
        .as_deref()
        .map(Stored::decode)
        .transpose()
        .map_err(|e| corrupt(key, info.number, &e))?;
    let live = (info.number == state.version).then_some(&state);
    Ok(Some(VersionDocument {
        label: info
            .label
            .clone()
            .unwrap_or_else(|| version_label(info.written_ms, info.number, state.created_ms)),
        content: match &stored {
            Some(Stored::Profile(_)) => Content::Profile,
            Some(Stored::Foreign(_)) => Content::Foreign,
            Some(Stored::MessagesOnly(_)) => Content::MessagesOnly,
            None => Content::Removed,
        },
        user_ids: stored.as_ref().map(Stored::users).unwrap_or_default(),
        metadata: stored.as_ref().map(|stored| stored.metadata().clone()).unwrap_or_default(),
        value: stored.as_ref().map(|stored| compose(stored, &info, live)),
        info: Some(info),
        now_ms,
        state,
    }))
}

/// Counts and verifies what a store holds, piece by piece: what [`verify`] does, for a caller that
/// reads a store in another way. A file is read fastest by
/// [`SqliteStore::check_each`](crate::data_store::SqliteStore::check_each).
#[derive(Debug, Default)]
pub struct Verification {
    report: ExportReport,
    /// Whether the key that came last has a message.
    has_messages: bool,
}

impl Verification {
    /// A key, and which session holds it. The messages that wait for it come next.
    pub fn key(&mut self, key: &ProfileKey, lease: &LeaseState) {
        let book = key.is_reserved();
        self.report.keys += u64::from(!book);
        self.report.books += u64::from(book);
        self.report.held_sessions += u64::from(lease.holder.is_some());
        self.report.handover_requests += u64::from(lease.request.is_some());
        self.has_messages = false;
    }

    /// A message that waits for the key that came last. Those that carry operators' edits are no
    /// messages of the game, and do not count.
    pub fn message(&mut self, key: &ProfileKey, message: &StoredMessage) {
        if message.id.is_edit() {
            return;
        }
        let is_first = !std::mem::replace(&mut self.has_messages, true);
        self.report.pending.keys += u64::from(is_first);
        self.report.pending.entries += 1;
        self.report.pending.locked += u64::from(message.locked);
        let wrong = MESSAGE.check_bytes(&message.payload).err();
        let wrong = wrong.map(|wrong| UnstorableValue::of(key, None, Some(message.index), wrong));
        self.report.unstorable.extend(wrong);
    }

    /// A version whose value is the one that was written.
    pub fn version(&mut self, key: &ProfileKey, info: &VersionInfo, value: Option<&[u8]>) {
        let (book, number) = (key.is_reserved(), info.number);
        let report = &mut self.report;
        report.versions += u64::from(!book);
        match value.map(Stored::decode).transpose() {
            Ok(None) => report.tombstones += u64::from(!book),
            Ok(Some(stored)) => {
                report.foreign += u64::from(!book && matches!(stored, Stored::Foreign(_)));
                let wrong = stored.check().err();
                let wrong = wrong.map(|wrong| UnstorableValue::of(key, Some(number), None, wrong));
                report.unstorable.extend(wrong);
            }
            Err(error) => {
                let (key, why) = (key.clone(), error.to_string());
                report.unreadable.push(UnreadableValue { key, number, why });
            }
        }
    }

    /// A version whose value is damaged.
    pub fn damaged(&mut self, key: &ProfileKey, number: u64) {
        self.report.versions += u64::from(!key.is_reserved());
        self.report.unreadable.push(UnreadableValue::damaged(key, number));
    }

    /// What was found, in the order of keys and versions; messages come behind versions.
    pub fn end(self) -> ExportReport {
        let mut report = self.report;
        report.unreadable.sort_by(|a, b| (&a.key, a.number).cmp(&(&b.key, b.number)));
        let place = |wrong: &UnstorableValue| (wrong.number.is_none(), wrong.number, wrong.message);
        report.unstorable.sort_by(|a, b| a.key.cmp(&b.key).then_with(|| place(a).cmp(&place(b))));
        report
    }
}

/// Reads every kept version of the keys of a store, the audit log included, and reports what is
/// there, what cannot be read, and what could not be stored today.
pub async fn verify(
    store: &dyn DataStore,
    filter: &ExportFilter,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<ExportReport, TransferError> {
    let mut found = Verification::default();
    let mut keys = Keys::all(store, filter);
    while let Some(state) = keys.next(progress).await? {
        found.key(&state.key, &state.lease);
        for message in state.inbox.iter().flatten() {
            found.message(&state.key, message);
        }
        each_version(store, &state, |version| {
            match version {
                Ok(version) => found.version(&state.key, &version.info, version.value.as_deref()),
                Err(number) => found.damaged(&state.key, number),
            }
            Ok(())
        })
        .await?;
        let ExportReport { keys, versions, .. } = found.report;
        progress(Progress::Passed { keys, versions });
    }
    Ok(found.end())
}

/// Counts who holds a key and what waits for it.
pub(super) fn count_live(state: &KeyState, report: &mut ExportReport) {
    report.held_sessions += u64::from(state.lease.holder.is_some());
    report.handover_requests += u64::from(state.lease.request.is_some());
    let inbox = state.inbox.as_deref().unwrap_or_default();
    report.pending.keys += u64::from(!inbox.is_empty());
    report.pending.entries += inbox.len() as u64;
    report.pending.locked += inbox.iter().filter(|message| message.locked).count() as u64;
}

fn corrupt(key: &ProfileKey, number: u64, error: &RecordError) -> TransferError {
    StoreError::Corrupt { reason: format!("{error}: key=`{key}` version=`{number}`") }.into()
}
