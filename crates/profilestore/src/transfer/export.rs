//! Taking profiles out.

use std::io::Write;

use serde_json::{Map, value::RawValue};

use super::{
    ExportFilter, ExportReport, Progress, TransferError, UnreadableValue,
    line::LineOut,
    read::count_live,
    walk::{Keys, current_version, each_version},
};
use crate::{
    data_store::{DataStore, KeyState, StoredVersion},
    document::{compose, compose_inbox},
    record::{Stored, version::version_label},
};

/// Writes all kept versions of the keys of a store as lines of JSON, ordered by store, scope, key
/// and version.
///
/// The last line of a key says who holds it and which messages are waiting; an imported version
/// comes out as it went in, with its version string. Messages that wait for a key without a value
/// come as a document of nothing but messages, the form that they have in the data store of a
/// Roblox game. A value that cannot be read is reported and left out. The library's own books
/// ([`crate::key::RESERVED_STORE`]) are only written out when the filter names them; an import does
/// not take them.
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
        let mut lines = KeyLines { state: &state, writer: &mut *writer, report: &mut report, n: 0 };
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
    pub(super) n: u64,
}

impl KeyLines<'_> {
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
        let live = (info.number == self.state.version).then_some(self.state);
        let value = stored.as_ref().map(|stored| compose(stored, info, live));
        self.report.tombstones += u64::from(stored.is_none());
        self.report.foreign += u64::from(matches!(stored, Some(Stored::Foreign(_))));
        self.line(&label, info.written_ms, self.state.created_ms, stored.as_ref(), value.as_deref())
    }

    /// Messages of a key without a current value: no version says anything about them.
    pub(super) fn waiting_messages(&mut self) -> Result<(), TransferError> {
        let state = self.state;
        let Some(newest) =
            state.inbox.as_ref().and_then(|inbox| inbox.last()).filter(|_| !state.exists())
        else {
            return Ok(());
        };
        let updated_ms = newest.sent_ms;
        let created_ms = if state.version == 0 { updated_ms } else { state.created_ms };
        let value = compose_inbox(state);
        let label = version_label(updated_ms, state.version + 1, created_ms);
        self.line(&label, updated_ms, created_ms, None, Some(&value))
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
        line.write(self.writer)
    }
}
