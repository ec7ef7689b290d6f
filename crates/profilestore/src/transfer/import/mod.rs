//! Bringing profiles in.
//!
//! All lines are read before anything is stored, because the versions of a key may come in any
//! order and a key with a damaged line is left out as a whole: half a history would be worse than
//! none. What was read waits in temporary files (`spool.rs`), so memory does not grow with the
//! input. Key by key, the versions are then stored one commit each, in order; a key's last commit
//! also brings the session, the request and the messages, and raises the epoch. So a key at epoch 0
//! is one whose import was interrupted, and running the import again completes it.

use std::{collections::BTreeMap, env::temp_dir, io::BufRead};

use self::{
    checked::CheckedKey,
    found::{Found, compare},
    spool::{Groups, Row, Spool, Values},
    writer::Writer,
};
use super::{ImportOptions, ImportReport, Progress, SkippedKey, TransferError};
use crate::{
    ProfileKey,
    data_store::{DataStore, KeyState, Returning},
    env::Env,
};

mod checked;
mod found;
mod live;
mod parse;
mod spool;
mod writer;

/// How many keys are looked up at once, and about how many of their versions and bytes of their
/// messages.
const LOOK_UP: usize = 256;
const LOOK_UP_VERSIONS: usize = 4096;
const LOOK_UP_BYTES: usize = 8 << 20;

/// Imports versions, given as lines of JSON, and reports what became of them.
///
/// * Every version becomes history with its original times and version string, written by `author`.
/// * The session, hand-over request and messages of a key's last version become live. As no server
///   vouches for the session, it ends like one of a crashed server: when its record was not updated
///   for `ASSUME_DEAD`.
/// * What is no profile is kept as it came and reported as foreign.
/// * A line that cannot be understood is reported, and its key, if it can be told, is left out as a
///   whole; so is a key whose `n` do not count from 1 without gaps or repetitions. The other keys
///   are imported.
/// * A key that exists already is left alone: counted as already there if it has all these
///   versions, reported as skipped otherwise. So an import may be repeated, and one that was
///   interrupted is completed by repeating it.
///
/// Memory does not grow with the input. (All versions of one key are listed in memory at once,
/// without their values: some hundred bytes each. So are all messages that wait for one key. A key
/// with more than 512 MiB of them is left out; 1,000 of the largest are less.)
/// Temporary files take about as much room as the values take in the store;
/// [`ImportOptions::folder`] says where.
///
/// Reading blocks the calling task. A dropped future leaves some keys imported, and maybe one of
/// them in part. A key should not be opened while it is being imported.
pub async fn import(
    store: &dyn DataStore,
    env: &Env,
    reader: impl BufRead,
    options: &ImportOptions,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<ImportReport, TransferError> {
    let mut report = ImportReport::default();
    let mut spool = Spool::new(&options.folder.clone().unwrap_or_else(temp_dir))?;
    let mut refused = parse::read(reader, &mut spool, &mut report, progress)?;
    let of = spool.versions;
    let (values, mut groups) = spool.sorted()?;
    let mut writer = Writer::new(store, env, &options.author).await?;
    // Versions that need not or cannot be stored.
    let mut settled = 0;
    loop {
        let before = report.skipped_versions;
        let some = next_keys(&mut groups, &values, &mut refused, &mut report)?;
        settled += report.skipped_versions - before;
        if some.is_empty() {
            break;
        }
        let names: Vec<_> = some.iter().map(|given| given.key.clone()).collect();
        let states = store.read(&names, Returning::HEAD).await?.states;
        for (given, state) in some.into_iter().zip(states) {
            settled += bring(store, &values, given, &state, &mut writer, &mut report).await?;
            progress(Progress::Stored { versions: writer.stored + settled, of });
        }
    }
    writer.flush(&mut report).await?;
    progress(Progress::Stored { versions: writer.stored + settled, of });
    for (key, why) in refused {
        report.skip(SkippedKey { key, versions: 0, why });
    }
    report.skipped.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(report)
}

/// Queues what is missing of a key, or reports why it is not stored. Answers with the number of its
/// versions that are not queued.
async fn bring(
    store: &dyn DataStore,
    values: &Values,
    given: CheckedKey,
    state: &KeyState,
    writer: &mut Writer<'_>,
    report: &mut ImportReport,
) -> Result<u64, TransferError> {
    let versions = given.rows.len() as u64;
    let there = match compare(store, values, &given, state).await? {
        Found::Nothing => 0,
        Found::First(some) => some,
        Found::All => {
            report.already_there.keys += 1;
            report.already_there.versions += versions;
            return Ok(versions);
        }
        Found::Other(why) => {
            report.skip(SkippedKey { key: given.key, versions, why });
            return Ok(versions);
        }
    };
    writer.queue_key(given, values, state, there, report).await?;
    Ok(there as u64)
}

/// The next keys that can be stored; those that cannot are reported. When it gives none, none
/// is left.
fn next_keys(
    groups: &mut Groups,
    values: &Values,
    refused: &mut BTreeMap<ProfileKey, String>,
    report: &mut ImportReport,
) -> Result<Vec<CheckedKey>, TransferError> {
    let (mut keys, mut versions, mut bytes) = (Vec::new(), 0, 0);
    while keys.len() < LOOK_UP && versions < LOOK_UP_VERSIONS && bytes < LOOK_UP_BYTES {
        let Some(rows) = groups.next()? else { break };
        let Some(key) = rows.first().map(|row| row.key.clone()) else { break };
        let (messages, rows): (Vec<Row>, Vec<Row>) =
            rows.into_iter().partition(|row| row.is_messages);
        let of_key = rows.len();
        bytes += rows.last().into_iter().chain(&messages).map(Row::live_bytes).sum::<usize>();
        let given = match refused.remove(&key) {
            Some(why) => Err(why),
            None => CheckedKey::of(key.clone(), rows, &messages, values)?,
        };
        match given {
            Ok(given) => {
                versions += of_key;
                keys.push(given);
            }
            Err(why) => report.skip(SkippedKey { key, versions: of_key as u64, why }),
        }
    }
    Ok(keys)
}
