//! Cleaning the store's files after an erasure, so that no byte of what was erased is left in them.
//!
//! It is an operation of its own in the audit log, because it takes as long as the files are large.
//! One that was broken off stays pending there, though the profiles are erased.

use std::{fmt, sync::Arc};

use uuid::Uuid;

use super::Engine;
use crate::{
    audit::{Attribution, AuditEntry, AuditOutcome},
    data_store::{DataStore, StoreError},
    env::Env,
    error::Result,
};

/// The action of its entry in the audit log.
const VACUUM: &str = "vacuum";

/// A cleaning of the store's files that is booked as pending and has not begun. Made by
/// [`crate::Operator::clean_files`]. Dropping it leaves the entry pending.
#[must_use = "nothing is cleaned before it runs"]
pub struct Cleaning {
    store: Arc<dyn DataStore>,
    env: Env,
    entry: AuditEntry,
}

impl fmt::Debug for Cleaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cleaning").field(&self.entry.operation).finish()
    }
}

/// Whether a cleaning may write the files anew in one piece. Commits wait meanwhile, as during an
/// outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewriting {
    /// Play goes on; where the files cannot be cleaned beside it, the cleaning fails.
    Never,
    /// Only where they cannot be cleaned beside play.
    IfNeeded,
    /// In any case: then the files are as small as they can be.
    Always,
}

/// What became of a cleaning.
#[derive(Debug)]
#[must_use = "bytes of what was erased may be left"]
#[non_exhaustive]
pub struct Cleaned {
    /// The operation in the audit log.
    pub operation: Uuid,
    /// Ok: no byte of what was deleted or overwritten before is left in the files.
    pub done: Result<(), StoreError>,
    /// Whether the end is in the audit log. Where it is not, the operation stays pending there.
    pub booked: Result<()>,
}

impl Engine {
    /// Books a cleaning. None: the store has no files that it could clean.
    pub(crate) async fn begin_cleaning(
        &self,
        after: Option<Uuid>,
        by: Attribution,
    ) -> Result<Option<Cleaning>> {
        let (store, env) = (self.link.store.clone(), self.link.env.clone());
        if store.files().is_none() {
            return Ok(None);
        }
        let mut entry = AuditEntry::new(env.uuid(), VACUUM, Vec::new(), by);
        if let Some(after) = after {
            entry = entry.detail("after", after.to_string());
        }
        entry.clone().outcome(AuditOutcome::Pending).book(&*store, &env, 0).await?;
        Ok(Some(Cleaning { store, env, entry }))
    }
}

impl Cleaning {
    /// The operation in the audit log.
    pub fn operation(&self) -> Uuid {
        self.entry.operation
    }

    /// Cleans the files, and books the end. `progress` is told how much of how much is done, except
    /// while the files are written anew. After one that failed or was broken off, begin another.
    pub async fn run(
        self,
        rewriting: Rewriting,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Cleaned {
        let done = clean(&*self.store, rewriting, progress).await;
        let Self { store, env, entry } = self;
        let operation = entry.operation;
        let entry = match &done {
            Ok(()) => entry,
            Err(error) => entry.outcome(AuditOutcome::Refused { why: error.to_string() }),
        };
        // The bytes are gone, or not, whether or not this can be booked.
        let booked = entry.book(&*store, &env, 1).await;
        Cleaned { operation, done, booked }
    }
}

async fn clean(
    store: &dyn DataStore,
    rewriting: Rewriting,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<(), StoreError> {
    let invalid = |reason: &str| StoreError::Invalid { reason: reason.into() };
    let files = store.files().ok_or_else(|| invalid("the store has no files of its own"))?;
    if rewriting != Rewriting::Always && files.clean(progress).await? {
        return Ok(());
    }
    match rewriting {
        Rewriting::Never => {
            Err(invalid("the store's files can only be cleaned by writing them anew"))
        }
        Rewriting::IfNeeded | Rewriting::Always => files.rewrite().await,
    }
}
