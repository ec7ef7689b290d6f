//! Bringing profiles in.
//!
//! All lines are read before anything is stored, because the versions of a key may come in any
//! order and a key with a damaged line is left out as a whole: half a history would be worse than
//! none. A key's versions are then stored one commit each, in order; its last commit also brings
//! the session, the request and the messages, and raises the epoch. So a key at epoch 0 is one
//! whose import was interrupted, and running the import again completes it.

use std::{
    collections::{BTreeMap, HashMap},
    io::BufRead,
    time::Duration,
};

use bytes::Bytes;

use super::{
    ForeignValue, ImportOptions, ImportReport, MAX_LINE_BYTES, MAX_MALFORMED_LINES, MalformedLine,
    Progress, SkippedKey, TransferError,
    line::{Line, Lines, Malformed},
    walk::all_versions,
};
use crate::{
    ProfileKey,
    data_store::{
        Cause, Change, Commit, CommitId, DataStore, Digest, Imported, KeyState, LeaseState,
        NewValue, Returning, StoreError, StoredMessage, VersionRef,
    },
    document::{Document, Surroundings},
    env::Env,
    ownership,
    record::Stored,
    storable::DOCUMENT,
};

/// How many commits, and about how many bytes of values, go to the store in one call.
const BATCH_COMMITS: usize = 256;
const BATCH_BYTES: usize = 8 << 20;

/// How many keys are looked up at once.
const LOOK_UP: usize = 256;

/// How often a batch is tried while the store is unavailable or its outcome unknown, with 1, 2, 4 …
/// s between.
const ATTEMPTS: u32 = 5;

/// What a version costs in memory besides its value, about.
const OVERHEAD: usize = 256;

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
    let keys = read(reader, options, &mut report, progress)?;
    let mut writer = Writer {
        store,
        env,
        incarnation: store.identity().await?.incarnation,
        author: &options.author,
        queue: Vec::new(),
        queued_bytes: 0,
        failed: HashMap::new(),
        stored: 0,
        settled: 0,
    };
    let mut keys: Vec<_> =
        keys.into_iter().filter_map(|(key, given)| given.checked(key, &mut report)).collect();
    let of = keys.iter().map(|key| key.versions.len() as u64).sum();
    let mut queued = Vec::new();
    while !keys.is_empty() {
        let some: Vec<_> = keys.drain(..keys.len().min(LOOK_UP)).collect();
        let names: Vec<_> = some.iter().map(|given| given.key.clone()).collect();
        let states = store.read(&names, Returning::HEAD).await?.states;
        for (given, state) in some.into_iter().zip(states) {
            let versions = given.versions.len() as u64;
            match compare(store, &given, &state).await? {
                Found::Nothing => queued.push(writer.queue_key(given, &state, 0).await?),
                Found::First(some) => queued.push(writer.queue_key(given, &state, some).await?),
                Found::All => {
                    report.already_there.keys += 1;
                    report.already_there.versions += versions;
                    writer.settled += versions;
                }
                Found::Other(why) => {
                    writer.settled += versions;
                    report.skipped.push(SkippedKey { key: given.key, versions, why });
                }
            }
            progress(Progress::Stored { versions: writer.stored + writer.settled, of });
        }
    }
    writer.flush().await?;
    progress(Progress::Stored { versions: writer.stored + writer.settled, of });
    report.versions = writer.stored;
    for summary in queued {
        summary.add_to(&mut report, &mut writer.failed);
    }
    report.skipped.sort_by(|a, b| a.key.cmp(&b.key));
    Ok(report)
}

/// A version that is to be stored.
struct Version {
    n: u64,
    imported: Imported,
    /// None for a tombstone.
    value: Option<Bytes>,
    user_ids: Vec<i64>,
    load_count: u64,
    foreign: Option<String>,
    /// What the document says about its session, to tell since when that one has been there.
    session: Option<Digest>,
}

/// What is live after the last version.
#[derive(Default)]
struct Live {
    lease: LeaseState,
    messages: Vec<StoredMessage>,
    last_message: u64,
}

/// All that the lines say about a key.
#[derive(Default)]
struct Given {
    versions: Vec<Version>,
    /// The highest `n` so far, and what that version says is live.
    newest: u64,
    live: Live,
    refused: Option<String>,
}

/// A key whose lines are in order.
struct CheckedKey {
    key: ProfileKey,
    versions: Vec<Version>,
    live: Live,
}

fn read(
    reader: impl BufRead,
    options: &ImportOptions,
    report: &mut ImportReport,
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<BTreeMap<ProfileKey, Given>, TransferError> {
    let mut keys = BTreeMap::<ProfileKey, Given>::new();
    let mut lines = Lines::new(reader);
    let mut memory = 0;
    loop {
        let after = lines.number;
        let Some((text, cut)) =
            lines.next().map_err(|source| TransferError::Read { line: after, source })?
        else {
            break;
        };
        if text.is_empty() {
            continue;
        }
        let parsed = match cut {
            false => Line::parse(text),
            true => Err(Malformed {
                key: Line::parse(text).err().and_then(|malformed| malformed.key),
                why: format!("it is too long: limit=`{MAX_LINE_BYTES}`"),
            }),
        };
        let added = parsed.and_then(|line| {
            let key = line.key.clone();
            Version::new(line)
                .map_err(|why| Malformed { key: Some(key.clone()), why })
                .map(|version| (key, version))
        });
        match added {
            Ok((key, (version, live))) => {
                memory += OVERHEAD + version.value.as_ref().map_or(0, Bytes::len);
                if memory > options.max_memory {
                    return Err(TransferError::TooLarge {
                        line: lines.number,
                        limit: options.max_memory,
                    });
                }
                keys.entry(key).or_default().add(version, live);
            }
            Err(Malformed { key, why }) => {
                if let Some(key) = &key {
                    let refused = &mut keys.entry(key.clone()).or_default().refused;
                    refused.get_or_insert_with(|| {
                        format!("line {} is malformed: {why}", lines.number)
                    });
                }
                report.malformed.push(MalformedLine { line: lines.number, key, why });
                if report.malformed.len() == MAX_MALFORMED_LINES {
                    return Err(TransferError::NotAnExport(report.malformed.swap_remove(0)));
                }
            }
        }
        if lines.number.is_multiple_of(256) {
            progress(Progress::Read { bytes: lines.bytes });
        }
    }
    report.lines = lines.number;
    progress(Progress::Read { bytes: lines.bytes });
    Ok(keys)
}

impl Version {
    fn new(line: Line) -> Result<(Self, Live), String> {
        let imported = Imported {
            written_ms: line.updated_ms,
            created_ms: line.created_ms,
            label: line.version,
        };
        let Some(text) = line.value else {
            let user_ids = line.user_ids.unwrap_or_default();
            let version = Self {
                n: line.n,
                imported,
                value: None,
                user_ids,
                load_count: 0,
                foreign: None,
                session: None,
            };
            return Ok((version, Live::default()));
        };
        DOCUMENT.check(&text).map_err(|wrong| format!("the value cannot be stored: {wrong}"))?;
        let surroundings = Surroundings {
            written_ms: line.updated_ms,
            created_ms: line.created_ms,
            user_ids: line.user_ids,
            metadata: line.metadata,
        };
        let document = Document::parse(&text, surroundings);
        document
            .check_messages()
            .map_err(|wrong| format!("the value cannot be stored: {wrong}"))?;
        let Document { stored, foreign, lease, messages, last_message } = document;
        let session = lease.holder.as_ref().and_then(|holder| holder.document.as_ref());
        let version = Self {
            n: line.n,
            imported,
            value: Some(stored.encode().map_err(|e| e.to_string())?),
            user_ids: stored.user_ids().to_vec(),
            load_count: lease.load_count,
            foreign,
            session: session.map(|session| Digest::of(session.to_string().as_bytes())),
        };
        Ok((version, Live { lease, messages, last_message }))
    }
}

impl Given {
    fn add(&mut self, version: Version, live: Live) {
        if version.n > self.newest {
            (self.newest, self.live) = (version.n, live);
        }
        self.versions.push(version);
    }

    /// Puts the versions in order, or reports the key as skipped.
    fn checked(mut self, key: ProfileKey, report: &mut ImportReport) -> Option<CheckedKey> {
        self.versions.sort_by_key(|version| version.n);
        let wrong = (1..).zip(&self.versions).find(|(n, version)| *n != version.n);
        let why = self.refused.take().or_else(|| {
            wrong.map(|(n, version)| match n.cmp(&version.n) {
                std::cmp::Ordering::Less => format!("a version is missing: n=`{n}`"),
                _ => format!("a version is given twice: n=`{}`", version.n),
            })
        });
        if let Some(why) = why {
            report.skipped.push(SkippedKey { key, versions: self.versions.len() as u64, why });
            return None;
        }
        if let Some(holder) = &mut self.live.lease.holder
            && let Some(last) = self.versions.last()
        {
            let run =
                self.versions.iter().rev().take_while(|version| version.session == last.session);
            holder.since_ms =
                run.last().map_or(holder.since_ms, |version| version.imported.written_ms);
        }
        Some(CheckedKey { key, versions: self.versions, live: self.live })
    }
}

/// What a store holds of a key that is to be imported.
enum Found {
    Nothing,
    /// So many of its first versions: an import was interrupted.
    First(usize),
    All,
    /// Something else.
    Other(String),
}

async fn compare(
    store: &dyn DataStore,
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
    let infos = all_versions(store, &given.key, state.version).await?;
    let differs = |n: u64| Ok(Found::Other(format!("the key exists already and differs: n=`{n}`")));
    for (version, n) in given.versions.iter().zip(1..=state.version) {
        let Some(info) = usize::try_from(n - 1).ok().and_then(|at| infos.get(at)) else {
            return differs(n);
        };
        let alike = info.number == n
            && info.cause == Cause::Import
            && info.label == version.imported.label
            && info.written_ms == version.imported.written_ms
            && info.removed == version.value.is_none();
        if !alike || !holds_value(store, &given.key, version).await? {
            return differs(n);
        }
    }
    let (there, wanted) = (state.version, given.versions.len() as u64);
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

async fn holds_value(
    store: &dyn DataStore,
    key: &ProfileKey,
    version: &Version,
) -> Result<bool, TransferError> {
    let there =
        store.version(key, &VersionRef::Number(version.n)).await?.and_then(|there| there.value);
    Ok(match (&there, &version.value) {
        (None, None) => true,
        // The same content may be packed otherwise by another version of zstd.
        (Some(there), Some(value)) => {
            there == value || Stored::decode(there).ok() == Stored::decode(value).ok()
        }
        _ => false,
    })
}

/// What a key adds to the report once it is stored.
struct Summary {
    key: ProfileKey,
    versions: u64,
    tombstones: u64,
    foreign: Vec<ForeignValue>,
    held: bool,
    asked_for: bool,
    messages: u64,
    locked: u64,
}

impl Summary {
    fn add_to(self, report: &mut ImportReport, failed: &mut HashMap<ProfileKey, String>) {
        if let Some(why) = failed.remove(&self.key) {
            report.skipped.push(SkippedKey { key: self.key, versions: self.versions, why });
            return;
        }
        report.keys += 1;
        report.tombstones += self.tombstones;
        report.foreign.extend(self.foreign);
        report.held_sessions += u64::from(self.held);
        report.handover_requests += u64::from(self.asked_for);
        report.pending.keys += u64::from(self.messages > 0);
        report.pending.entries += self.messages;
        report.pending.locked += self.locked;
    }
}

/// Stores versions in batches.
struct Writer<'a> {
    store: &'a dyn DataStore,
    env: &'a Env,
    incarnation: crate::data_store::Incarnation,
    author: &'a str,
    queue: Vec<Commit>,
    queued_bytes: usize,
    /// Why a key was not stored, or not as a whole.
    failed: HashMap<ProfileKey, String>,
    /// Versions stored.
    stored: u64,
    /// Versions that need not or cannot be stored.
    settled: u64,
}

impl Writer<'_> {
    /// Queues a key's versions, except for the first `there`.
    async fn queue_key(
        &mut self,
        given: CheckedKey,
        state: &KeyState,
        there: usize,
    ) -> Result<Summary, TransferError> {
        let CheckedKey { key, versions, mut live } = given;
        self.settled += there as u64;
        let last = versions.len();
        let mut summary = Summary {
            key: key.clone(),
            versions: (last - there) as u64,
            tombstones: 0,
            foreign: Vec::new(),
            held: live.lease.holder.is_some(),
            asked_for: live.lease.request.is_some(),
            messages: live.messages.len() as u64,
            locked: live.messages.iter().filter(|message| message.locked).count() as u64,
        };
        let (mut lease_revision, mut load_count) = (state.lease_revision, state.lease.load_count);
        for (number, version) in (0..).zip(versions).skip(there) {
            summary.tombstones += u64::from(version.value.is_none());
            if let Some(why) = version.foreign {
                summary.foreign.push(ForeignValue { key: key.clone(), n: version.n, why });
            }
            self.queued_bytes += OVERHEAD + version.value.as_ref().map_or(0, Bytes::len);
            let mut changes = vec![Change::Write {
                key: key.clone(),
                epoch: state.epoch,
                version: number,
                value: version.value.map_or(NewValue::Tombstone, NewValue::Bytes),
                user_ids: version.user_ids,
                cause: Cause::Import,
                author: self.author.to_owned(),
                keep_previous: true,
                seal: true,
                imported: Some(version.imported),
            }];
            // A version's load count is the one of the lease when it is written.
            let is_last = number + 1 == last as u64;
            if is_last || version.load_count != load_count {
                load_count = version.load_count;
                let lease = if is_last {
                    std::mem::take(&mut live.lease)
                } else {
                    LeaseState { load_count, ..LeaseState::default() }
                };
                changes.push(ownership::imported(&key, lease_revision, lease, is_last));
                lease_revision += 1;
            }
            if is_last && live.last_message > 0 {
                let Live { messages, last_message, .. } = std::mem::take(&mut live);
                changes.push(Change::ReplaceInbox {
                    key: key.clone(),
                    revision: 0,
                    last_message,
                    messages,
                });
            }
            let id = CommitId(self.env.uuid());
            self.queue.push(Commit {
                id,
                incarnation: self.incarnation,
                from: None,
                changes,
                returning: Returning::HEAD,
                fingerprint: None,
            });
            if self.queue.len() >= BATCH_COMMITS || self.queued_bytes >= BATCH_BYTES {
                self.flush().await?;
            }
        }
        Ok(summary)
    }

    /// Stores what is queued. While the store cannot say what became of the batch, the same commits
    /// are tried again: each is applied once, however often it is tried.
    async fn flush(&mut self) -> Result<(), TransferError> {
        let batch = std::mem::take(&mut self.queue);
        self.queued_bytes = 0;
        let mut attempt = 0;
        let results = loop {
            let results =
                if batch.is_empty() { Vec::new() } else { self.store.commit(batch.clone()).await };
            attempt += 1;
            match results
                .iter()
                .find_map(|result| result.as_ref().err().filter(|e| e.is_transient()))
            {
                None => break results,
                Some(error) if attempt == ATTEMPTS => return Err(error.clone().into()),
                Some(_) => tokio::time::sleep(Duration::from_secs(1 << (attempt - 1))).await,
            }
        };
        for (commit, result) in batch.into_iter().zip(results) {
            let Some(key) = commit.changes.first().and_then(Change::key) else { continue };
            let why = match result {
                Ok(_) => {
                    self.stored += 1;
                    continue;
                }
                Err(StoreError::Conflict(_)) => {
                    "the key was written by someone else meanwhile".to_owned()
                }
                Err(StoreError::Invalid { reason }) => reason,
                Err(error) => return Err(error.into()),
            };
            self.failed.entry(key.clone()).or_insert(why);
        }
        Ok(())
    }
}
