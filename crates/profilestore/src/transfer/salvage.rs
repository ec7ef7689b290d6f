//! Taking out of a damaged store all that is whole.

use std::io::Write;

use super::{
    ExportFilter, ExportReport, Progress, TransferError, UnreadableValue, export::KeyLines,
    read::count_live, walk::all_versions,
};
use crate::{
    ProfileKey,
    data_store::{
        DataStore, DataStoreExt, KeyFilter, KeyState, Order, Returning, StoreError, StoredVersion,
        VersionInfo, VersionQuery, VersionRef,
    },
};

/// Writes all versions that can be read of the keys that are named, as [`super::export`] does, and
/// reports the rest as unreadable; a key of which nothing can be read has the number 0. For a
/// SQLite file, [`SqliteStore::every_key`](crate::data_store::SqliteStore::every_key) names them.
///
/// A key whose inbox or value cannot be read comes without it. Fails when the store cannot be
/// reached, and never because of damage. A filter by user finds nothing here.
pub async fn salvage(
    store: &dyn DataStore,
    names: impl IntoIterator<Item = ProfileKey>,
    filter: &ExportFilter,
    writer: &mut (dyn Write + Send),
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<ExportReport, TransferError> {
    let mut report = ExportReport::default();
    for key in names {
        if !is_meant(&key, filter) {
            continue;
        }
        let mut state = match readable(store, &key).await {
            Ok(state) => state,
            Err(error) => {
                report.unreadable.push(unreadable(&key, 0, error)?);
                continue;
            }
        };
        state.hide_edits();
        let infos = readable_versions(store, &state, &mut report).await?;
        let mut lines = KeyLines::new(&state, &mut *writer, &mut report);
        for info in infos {
            let number = info.number;
            match store.version(&key, &VersionRef::Number(number)).await {
                Ok(Some(version)) => lines.version(&StoredVersion { info, ..version })?,
                Ok(None) => {}
                Err(error) => lines.report.unreadable.push(unreadable(&key, number, error)?),
            }
        }
        lines.waiting_messages()?;
        report.keys += 1;
        count_live(&state, &mut report);
        progress(Progress::Passed { keys: report.keys, versions: report.versions });
    }
    writer.flush().map_err(TransferError::Write)?;
    Ok(report)
}

fn is_meant(key: &ProfileKey, filter: &ExportFilter) -> bool {
    let ExportFilter { store, scope, keys, .. } = filter;
    let of_store = match store {
        Some(store) => store == key.store(),
        None => !key.is_reserved(),
    };
    let (prefixes, rest) = keys.parts();
    let of_keys = matches!(rest, KeyFilter::All)
        && prefixes.iter().all(|prefix| key.key().starts_with(prefix));
    of_store && of_keys && scope.as_ref().is_none_or(|scope| scope == key.scope())
}

/// What damage means for the report; any other error ends the work.
fn unreadable(
    key: &ProfileKey,
    number: u64,
    error: StoreError,
) -> Result<UnreadableValue, TransferError> {
    match error {
        StoreError::Damaged { version, .. } => Ok(UnreadableValue::damaged(key, version)),
        StoreError::Corrupt { reason } => {
            Ok(UnreadableValue { key: key.clone(), number, why: reason })
        }
        other => Err(other.into()),
    }
}

/// What a key holds, without the inbox or the value if they cannot be read.
async fn readable(store: &dyn DataStore, key: &ProfileKey) -> Result<KeyState, StoreError> {
    let with = [Returning::ALL, Returning::INBOX];
    for returning in with {
        match store.read_one(key, returning).await {
            Err(StoreError::Damaged { .. } | StoreError::Corrupt { .. }) => {}
            read => return read.map(|(_, state)| state),
        }
    }
    store.read_one(key, Returning::HEAD).await.map(|(_, state)| state)
}

/// The versions of a key, oldest first. When their chain is broken, those behind the break.
async fn readable_versions(
    store: &dyn DataStore,
    state: &KeyState,
    report: &mut ExportReport,
) -> Result<Vec<VersionInfo>, TransferError> {
    let key = &state.key;
    match all_versions(store, key, state.version).await {
        Err(TransferError::Store(StoreError::Corrupt { .. })) => {}
        read => return read,
    }
    let mut found: Vec<VersionInfo> = Vec::new();
    loop {
        let query = VersionQuery {
            key: key.clone(),
            order: Order::Descending,
            from_ms: None,
            to_ms: None,
            after: Some(found.last().map_or(state.version + 1, |info| info.number)),
            limit: 1,
        };
        match store.versions(&query).await {
            Ok(mut page) if !page.is_empty() => found.append(&mut page),
            Ok(_) => break,
            Err(error) => {
                let before = found.last().map_or(state.version, |info| info.number - 1);
                report.unreadable.push(unreadable(key, before, error)?);
                break;
            }
        }
    }
    found.reverse();
    Ok(found)
}
