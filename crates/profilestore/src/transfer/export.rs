//! Taking profiles out.

use std::{borrow::Cow, io::Write};

use serde_json::{Map, value::RawValue};

use super::{
    ExportFilter, ExportReport, Progress, TransferError, UnreadableValue,
    line::{LineOut, MessagesOut, write_line},
    read::count_live,
    walk::{Keys, current_version, each_version},
};
use crate::{
    data_store::{DataStore, KeyState, StoredMessage, StoredVersion},
    document::{compose, compose_inbox, compose_messages},
    record::{MAX_DATA_BYTES, Stored, version::version_label},
};

/// How many bytes of data and messages a document has at most, so that it can be stored as one
/// version again. With more, the messages have lines of their own.
const MAX_DOCUMENT_BYTES: usize = MAX_DATA_BYTES;

/// How many bytes of messages make a line of their own at most, unless it is a single message.
const MESSAGES_BYTES: usize = 1 << 20;

/// Writes all kept versions of the keys of a store as lines of JSON, ordered by store, scope, key
/// and version.
///
/// The last version of a key says who holds it and which messages are waiting; an imported version
/// comes out as it went in, with its version string. Messages that wait for a key without a value,
/// or of which no version can be read, come as a document of nothing but messages, the form that
/// they have in the data store of a Roblox game. Messages for which a document has no room follow
/// in lines of their own: data and messages in one are at most
/// [`MAX_DATA_BYTES`](crate::storable::MAX_DATA_BYTES). A value that cannot be read is reported and
/// left out. The library's own books ([`crate::key::RESERVED_STORE`]) are only written out when the
/// filter names them; an import does not take them.
///
/// With a search ([`ExportFilter::filter`]) profiles are chosen by what is saved when they are
/// looked at. One that the search cannot tell of is reported as unreadable, without a version's
/// number.
///
/// Each key is consistent in itself; keys may change while others are written. Writing blocks the
/// calling task.
pub async fn export(
    store: &dyn DataStore,
    filter: &ExportFilter,
    writer: &mut (dyn Write + Send),
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<ExportReport, TransferError> {
    let mut report = ExportReport::default();
    let mut keys = Keys::of_profiles(store, filter);
    while let Some(state) = keys.next(progress).await? {
        let mut lines = KeyLines::new(&state, &mut *writer, &mut report);
        let each = |version| match version {
            Ok(version) => lines.version(&version),
            Err(number) => {
                lines.report.unreadable.push(UnreadableValue::damaged(&state.key, number));
                Ok(())
            }
        };
        match filter.current {
            true => current_version(&state, each)?,
            false => each_version(store, &state, each).await?,
        }
        lines.waiting_messages()?;
        report.keys += 1;
        count_live(&state, &mut report);
        progress(Progress::Passed { keys: report.keys, versions: report.versions });
    }
    report.unreadable.extend(keys.unreadable());
    writer.flush().map_err(TransferError::Write)?;
    Ok(report)
}

/// Writes the lines of one key.
pub(super) struct KeyLines<'a> {
    pub(super) state: &'a KeyState,
    pub(super) writer: &'a mut (dyn Write + Send),
    pub(super) report: &'a mut ExportReport,
    n: u64,
    /// The messages that no document has told of yet.
    waiting: &'a [StoredMessage],
}

impl<'a> KeyLines<'a> {
    pub(super) fn new(
        state: &'a KeyState,
        writer: &'a mut (dyn Write + Send),
        report: &'a mut ExportReport,
    ) -> Self {
        Self { state, writer, report, n: 0, waiting: state.inbox.as_deref().unwrap_or_default() }
    }

    pub(super) fn version(&mut self, version: &StoredVersion) -> Result<(), TransferError> {
        let info = &version.info;
        let made_up = || version_label(info.written_ms, info.number, self.state.created_ms);
        let label = info.label.clone().unwrap_or_else(made_up);
        let stored = match version.value.as_deref().map(Stored::decode).transpose() {
            Ok(stored) => stored,
            Err(error) => {
                let unreadable = UnreadableValue {
                    key: self.state.key.clone(),
                    number: info.number,
                    why: error.to_string(),
                };
                self.report.unreadable.push(unreadable);
                return Ok(());
            }
        };
        let value = stored.as_ref().map(|stored| {
            let is_current = info.number == self.state.version;
            let live = is_current.then(|| self.told_with(data_bytes(stored)));
            compose(stored, info, live.as_deref())
        });
        self.report.tombstones += u64::from(stored.is_none());
        self.report.foreign += u64::from(matches!(stored, Some(Stored::Foreign(_))));
        self.line(&label, info.written_ms, self.state.created_ms, stored.as_ref(), value.as_deref())
    }

    /// What a document with so many bytes of data tells of its key: all that is live, but for the
    /// messages if it cannot take them. None: it takes no messages.
    fn told_with(&mut self, data_bytes: Option<usize>) -> Cow<'a, KeyState> {
        let bytes: usize = self.waiting.iter().map(|message| message.payload.len()).sum();
        let has_room = data_bytes.is_some_and(|data| data + bytes <= MAX_DOCUMENT_BYTES);
        if has_room || self.waiting.is_empty() {
            self.waiting = &[];
            return Cow::Borrowed(self.state);
        }
        Cow::Owned(KeyState { inbox: Some(Vec::new()), ..self.state.clone() })
    }

    /// Messages that no document told of: because there is none, or it had no room for them.
    pub(super) fn waiting_messages(&mut self) -> Result<(), TransferError> {
        let state = self.state;
        let Some(newest) = self.waiting.last() else { return Ok(()) };
        // Messages come with a version. Where none could be written, this is one.
        if !state.exists() || self.n == 0 {
            let updated_ms = newest.sent_ms;
            let created_ms = if state.version == 0 { updated_ms } else { state.created_ms };
            let value = compose_inbox(&self.told_with(Some(0)));
            let label = version_label(updated_ms, state.version + 1, created_ms);
            self.line(&label, updated_ms, created_ms, None, Some(&value))?;
        }
        self.messages()
    }

    /// The messages as lines of their own.
    fn messages(&mut self) -> Result<(), TransferError> {
        let key = &self.state.key;
        while !self.waiting.is_empty() {
            let (some, rest) = self.waiting.split_at(one_line(self.waiting));
            self.waiting = rest;
            let line = MessagesOut {
                store: key.store(),
                scope: key.scope(),
                key: key.key(),
                n: self.n,
                updated_ms: some.last().map_or(0, |newest| newest.sent_ms),
                messages: &compose_messages(self.state.last_message, some),
            };
            write_line(&line, self.writer)?;
        }
        Ok(())
    }

    fn line(
        &mut self,
        version: &str,
        updated_ms: i64,
        created_ms: i64,
        stored: Option<&Stored>,
        value: Option<&RawValue>,
    ) -> Result<(), TransferError> {
        self.n += 1;
        self.report.versions += 1;
        let (key, none) = (&self.state.key, Map::new());
        let line = LineOut {
            store: key.store(),
            scope: key.scope(),
            key: key.key(),
            n: self.n,
            version,
            created_ms,
            updated_ms,
            user_ids: &stored.map(Stored::users).unwrap_or_default(),
            metadata: stored.map_or(&none, Stored::metadata),
            deleted: value.is_none(),
            value,
        };
        write_line(&line, self.writer)
    }
}

/// How many bytes of data a document of the value has. None: it is kept as it came, and tells of no
/// messages.
fn data_bytes(stored: &Stored) -> Option<usize> {
    match stored {
        Stored::Profile(record) => Some(record.data.get().len()),
        Stored::MessagesOnly(_) => Some(0),
        Stored::Foreign(_) => None,
    }
}

/// How many of the messages make a line: at least one.
fn one_line(messages: &[StoredMessage]) -> usize {
    let mut bytes = 0;
    let fit = messages.iter().take_while(|message| {
        let is_first = bytes == 0;
        bytes += message.payload.len();
        is_first || bytes <= MESSAGES_BYTES
    });
    fit.count().max(1)
}
