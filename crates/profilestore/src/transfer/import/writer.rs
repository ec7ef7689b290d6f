//! Storing the versions of an import in batches.

use std::{collections::HashMap, time::Duration};

use super::{
    super::{ForeignValue, ImportReport, SkippedKey, TransferError},
    checked::CheckedKey,
    live::Live,
    spool::{Row, Values},
};
use crate::{
    ProfileKey,
    data_store::{
        Cause, Change, Commit, CommitId, DataStore, Incarnation, KeyState, LeaseState, NewValue,
        Returning, StoreError,
    },
    env::Env,
    ownership,
};

/// How many commits, and about how many bytes of values, go to the store in one call.
const BATCH_COMMITS: usize = 256;
const BATCH_BYTES: usize = 8 << 20;

/// How often a batch is tried while the store is unavailable or its outcome unknown, with 1, 2, 4 …
/// s between.
const ATTEMPTS: u32 = 5;

/// What a version costs in memory besides its value, about.
const OVERHEAD: usize = 256;

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
    fn of(given: &CheckedKey, there: usize) -> Self {
        let (messages, locked) = given.live.waiting();
        let rows = &given.rows[there..];
        let foreign = rows.iter().filter_map(|row| {
            let why = row.foreign.clone()?;
            Some(ForeignValue { key: row.key.clone(), n: row.n, why })
        });
        Self {
            key: given.key.clone(),
            versions: rows.len() as u64,
            tombstones: rows.iter().filter(|row| row.removed).count() as u64,
            foreign: foreign.collect(),
            held: given.live.lease.holder.is_some(),
            asked_for: given.live.lease.request.is_some(),
            messages,
            locked,
        }
    }

    fn add_to(self, report: &mut ImportReport, failed: &mut HashMap<ProfileKey, String>) {
        if let Some(why) = failed.remove(&self.key) {
            report.skip(SkippedKey { key: self.key, versions: self.versions, why });
            return;
        }
        report.keys += 1;
        report.tombstones += self.tombstones;
        for foreign in self.foreign {
            report.note_foreign(foreign);
        }
        report.held_sessions += u64::from(self.held);
        report.handover_requests += u64::from(self.asked_for);
        report.pending.keys += u64::from(self.messages > 0);
        report.pending.entries += self.messages;
        report.pending.locked += self.locked;
    }
}

/// Stores versions in batches.
pub(super) struct Writer<'a> {
    store: &'a dyn DataStore,
    env: &'a Env,
    incarnation: Incarnation,
    author: &'a str,
    queue: Vec<Commit>,
    queued_bytes: usize,
    /// Keys whose last commit is in the queue.
    queued: Vec<Summary>,
    /// Why a key was not stored, or not as a whole.
    failed: HashMap<ProfileKey, String>,
    /// Versions stored.
    pub(super) stored: u64,
}

impl<'a> Writer<'a> {
    pub(super) async fn new(
        store: &'a dyn DataStore,
        env: &'a Env,
        author: &'a str,
    ) -> Result<Self, TransferError> {
        Ok(Self {
            store,
            env,
            incarnation: store.identity().await?.incarnation,
            author,
            queue: Vec::new(),
            queued_bytes: 0,
            queued: Vec::new(),
            failed: HashMap::new(),
            stored: 0,
        })
    }

    /// Queues a key's versions, except for the first `there`. A full queue is stored.
    pub(super) async fn queue_key(
        &mut self,
        mut given: CheckedKey,
        values: &Values,
        state: &KeyState,
        there: usize,
        report: &mut ImportReport,
    ) -> Result<(), TransferError> {
        let mut summary = Some(Summary::of(&given, there));
        let last = given.rows.len();
        let mut live = std::mem::take(&mut given.live);
        let (mut lease_revision, mut load_count) = (state.lease_revision, state.lease.load_count);
        for (at, row) in given.rows.into_iter().enumerate().skip(there) {
            self.queued_bytes += OVERHEAD + row.bytes();
            let (key, is_last) = (row.key.clone(), at + 1 == last);
            let version_load_count = row.load_count;
            let mut changes = vec![self.write_of(row, values, state.epoch)?];
            // A version's load count is the one of the lease when it is written.
            if is_last || version_load_count != load_count {
                load_count = version_load_count;
                let lease = match is_last {
                    true => std::mem::take(&mut live.lease),
                    false => LeaseState { load_count, ..LeaseState::default() },
                };
                changes.push(ownership::imported(&key, lease_revision, lease, is_last));
                lease_revision += 1;
            }
            if is_last {
                self.queued_bytes += live.bytes();
                changes.extend(inbox_of(&mut live, &key));
                self.queued.extend(summary.take());
            }
            self.queue.push(Commit {
                id: CommitId(self.env.uuid()),
                incarnation: self.incarnation,
                from: None,
                changes,
                returning: Returning::HEAD,
                fingerprint: None,
            });
            if self.queue.len() >= BATCH_COMMITS || self.queued_bytes >= BATCH_BYTES {
                self.flush(report).await?;
            }
        }
        Ok(())
    }

    fn write_of(&self, row: Row, values: &Values, epoch: u64) -> Result<Change, TransferError> {
        let value = values.value(&row)?.map_or(NewValue::Tombstone, NewValue::Bytes);
        Ok(Change::Write {
            imported: Some(row.imported()),
            key: row.key,
            epoch,
            version: row.n - 1,
            value,
            user_ids: row.user_ids,
            cause: Cause::Import,
            author: self.author.to_owned(),
            keep_previous: true,
            seal: true,
        })
    }

    /// Stores what is queued, and reports the keys that are complete with it. While the store
    /// cannot say what became of the batch, the same commits are tried again: each is applied once,
    /// however often it is tried.
    pub(super) async fn flush(&mut self, report: &mut ImportReport) -> Result<(), TransferError> {
        let batch = std::mem::take(&mut self.queue);
        self.queued_bytes = 0;
        let mut attempt = 0;
        let results = loop {
            let results = match batch.is_empty() {
                true => Vec::new(),
                false => self.store.commit(batch.clone()).await,
            };
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
                    "another program wrote the key meanwhile".to_owned()
                }
                Err(StoreError::Invalid { reason }) => reason,
                Err(error) => return Err(error.into()),
            };
            self.failed.entry(key.clone()).or_insert(why);
        }
        for summary in self.queued.drain(..) {
            summary.add_to(report, &mut self.failed);
        }
        report.versions = self.stored;
        Ok(())
    }
}

fn inbox_of(live: &mut Live, key: &ProfileKey) -> Option<Change> {
    (live.last_message > 0).then(|| Change::ReplaceInbox {
        key: key.clone(),
        revision: 0,
        last_message: live.last_message,
        messages: live.take_messages(),
    })
}
