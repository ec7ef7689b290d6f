//! What a store holds already of a key that is to be imported.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    super::{TransferError, walk::all_versions},
    checked::CheckedKey,
    spool::{Row, Values},
};
use crate::{
    ProfileKey,
    data_store::{Cause, DataStore, KeyState, VersionRef},
    record::Stored,
};

/// How many values are compared at once.
const AT_ONCE: usize = 16;

/// What a store holds of a key that is to be imported.
pub(super) enum Found {
    Nothing,
    /// So many of its first versions: an import was interrupted.
    First(usize),
    All,
    /// Something else.
    Other(String),
}

pub(super) async fn compare(
    store: &dyn DataStore,
    values: &Values,
    given: &CheckedKey,
    state: &KeyState,
) -> Result<Found, TransferError> {
    let unfinished = state.epoch == 0 && state.inbox_revision == 0;
    if state.version == 0 {
        return Ok(match unfinished {
            true => Found::Nothing,
            false => Found::Other(
                "the key exists already, with messages or a session but without data".into(),
            ),
        });
    }
    if let Some(n) = first_difference(store, values, given, state).await? {
        return Ok(Found::Other(format!("the key exists already and differs: n=`{n}`")));
    }
    let (there, wanted) = (state.version, given.rows.len() as u64);
    if there >= wanted && !unfinished {
        return Ok(Found::All);
    }
    match usize::try_from(there) {
        Ok(some) if unfinished && there < wanted => Ok(Found::First(some)),
        _ => Ok(Found::Other(format!(
            "the key exists already with fewer versions: there=`{there}` given=`{wanted}`"
        ))),
    }
}

/// The first version that is both given and there, and is not the same.
async fn first_difference(
    store: &dyn DataStore,
    values: &Values,
    given: &CheckedKey,
    state: &KeyState,
) -> Result<Option<u64>, TransferError> {
    let infos = all_versions(store, &given.key, state.version).await?;
    let (mut alike, mut differs) = (0, None);
    for (row, n) in given.rows.iter().zip(1..=state.version) {
        let info = usize::try_from(n - 1).ok().and_then(|at| infos.get(at));
        let same = info.is_some_and(|info| {
            info.number == n
                && info.cause == Cause::Import
                && info.label == row.label
                && info.written_ms == row.written_ms
                && info.removed == row.removed
        });
        if !same {
            differs = Some(n);
            break;
        }
        alike += 1;
    }
    let compared = (0..alike).map(|at| async move {
        let row = &given.rows[at];
        Ok::<_, TransferError>((row.n, holds_value(store, values, &given.key, row).await?))
    });
    let mut compared = stream::iter(compared).buffered(AT_ONCE);
    while let Some((n, same)) = compared.try_next().await? {
        if !same {
            return Ok(Some(n));
        }
    }
    Ok(differs)
}

async fn holds_value(
    store: &dyn DataStore,
    values: &Values,
    key: &ProfileKey,
    row: &Row,
) -> Result<bool, TransferError> {
    let there = store.version(key, &VersionRef::Number(row.n)).await?.and_then(|there| there.value);
    Ok(match (&there, &values.value(row)?) {
        (None, None) => true,
        // The same content may be packed otherwise by another version of zstd.
        (Some(there), Some(value)) => {
            there == value || Stored::decode(there).ok() == Stored::decode(value).ok()
        }
        _ => false,
    })
}
