//! The store of many machines: a schema in a PostgreSQL database.
//!
//! * **Batches.** A few connections write, two by default; each has one transaction under way, and
//!   what comes meanwhile shares the next one. A transaction takes two round trips, whatever the
//!   number of its commits: one locks and reads, one writes and commits. A lone save that is plain
//!   takes one: a statement with all that it depends on as its conditions. So does a lone change of
//!   a profile that was just looked at.
//! * **One judge.** What is refused is decided here, by the rules that every backend shares, on
//!   rows that the transaction has locked in the order of their keys. The SQL is plain, without
//!   functions, triggers, sequences or constraints between tables, so that engines of the same
//!   protocol that spread tables over machines can take it.
//! * **Errors are honest.** What was not sent to be committed was not applied; a commit without a
//!   clear answer is indeterminate, also when the server committed but gave up waiting for its
//!   standby.
//! * **Reads** run beside them, at the same server: the one that may be written to.
//! * **Connections** are shared: where the server refuses to have more, reads and writes take turns
//!   on those there are.
//! * **The clock** is the database server's.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use tokio::{sync::Semaphore, time::Instant};

use super::{
    Backlog, Change, Commit, CommitReply, DataStore, Identity, Incarnation, KeyQuery, KeyState,
    Retention, Returning, ServerRow, Snapshot, StoreError, StoredVersion, SweepCursor, SweepReport,
    TableUpkeep, VersionInfo, VersionLinks, VersionQuery, VersionRef, rules,
};
use crate::key::ProfileKey;

mod backlog;
mod batch;
mod connect;
mod load;
mod lone;
mod look;
mod migrate;
mod options;
mod password;
#[cfg(test)]
mod plans;
mod pool;
mod queue;
mod reader;
mod remembered;
mod schema;
mod state;
mod statements;
mod sweep;
mod trouble;
mod write;
mod writer;

pub(crate) use connect::{Conn, Dialer, Step};
pub use options::{DEFAULT_SCHEMA, PostgresClock, PostgresOptions};

/// A store in a PostgreSQL database, 14 or newer. Cheap to clone; its connections are closed when
/// the last clone is dropped.
#[derive(Clone)]
pub struct PostgresStore {
    inner: Arc<Inner>,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PostgresStore").field(&self.inner.pool.dialer.options.to_string()).finish()
    }
}

struct Inner {
    pool: Arc<pool::Pool>,
    /// So many may read at once: the other connections are for those who write.
    reading: Semaphore,
    queue: Arc<queue::Queue>,
    lone: lone::Lone,
    remembered: remembered::Remembered,
}

impl Inner {
    /// The environment's time, where tests use that.
    fn test_time(&self) -> Option<i64> {
        let options = &self.pool.dialer.options;
        match options.clock {
            PostgresClock::Server => None,
            #[cfg(any(test, feature = "test-util"))]
            PostgresClock::Env => Some(options.env.unix_ms()),
        }
    }
}

impl PostgresStore {
    /// Makes the schema and its tables if they are missing, brings those of an earlier format to
    /// this one, and lets `role` do with them what a game server needs. Needs a role that may
    /// create a schema in the database, or owns it. May be repeated, and called by several at once.
    /// True when something was made or changed.
    ///
    /// A migration is one transaction, which reads every value and writes its row once. Programs of
    /// earlier versions cannot open the store any more.
    ///
    /// Fails with [`StoreError::Invalid`] when the schema is not a store's, was written in a newer
    /// format, or the role may not make it; with [`StoreError::Unavailable`] when the database
    /// cannot be reached, or the store is to be migrated and a server may be alive in it.
    pub async fn migrate(
        options: &PostgresOptions,
        role: Option<&str>,
    ) -> Result<bool, StoreError> {
        options.check_schema()?;
        migrate::migrate(options, role).await
    }

    /// Gives the contents a new identity, which is to be done after restoring a backup of the
    /// database and before any game server starts: sessions of before are over, and late writes of
    /// old game servers are refused. Needs the role that made the tables.
    pub async fn renew_incarnation(options: &PostgresOptions) -> Result<Incarnation, StoreError> {
        options.check_schema()?;
        schema::renew_incarnation(options).await
    }

    /// Opens a store that [`PostgresStore::migrate`] made. Fails as that does, also when there is
    /// none yet, or it is of an earlier format.
    pub async fn open(options: PostgresOptions) -> Result<Self, StoreError> {
        options.check_schema()?;
        let (writers, readers, batch) =
            (options.writers.max(1), options.readers.max(1), options.batch);
        let pool = pool::Pool::new(Dialer::new(options.clone()), writers + readers);
        let mut lease = pool.take().await?;
        schema::check(lease.connection().await?, &options).await?;
        lease.rest();
        drop(lease);
        let queue = Arc::new(queue::Queue::new(writers, batch));
        let reading = Semaphore::new(readers);
        let (lone, remembered) = Default::default();
        Ok(Self { inner: Arc::new(Inner { pool, reading, queue, lone, remembered }) })
    }
}

#[async_trait]
impl DataStore for PostgresStore {
    async fn identity(&self) -> Result<Identity, StoreError> {
        self.inner.identity().await
    }

    async fn read(
        &self,
        keys: &[ProfileKey],
        returning: Returning,
    ) -> Result<Snapshot, StoreError> {
        self.inner.read(keys, returning).await
    }

    async fn version(
        &self,
        key: &ProfileKey,
        version: &VersionRef,
    ) -> Result<Option<StoredVersion>, StoreError> {
        self.inner.version(key, version).await
    }

    async fn versions(&self, query: &VersionQuery) -> Result<Vec<VersionInfo>, StoreError> {
        self.inner.versions(query).await
    }

    async fn links(
        &self,
        key: &ProfileKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<VersionLinks>, StoreError> {
        self.inner.links(key, after, limit).await
    }

    async fn keys(&self, query: &KeyQuery) -> Result<Vec<KeyState>, StoreError> {
        self.inner.keys(query).await
    }

    async fn servers(&self) -> Result<(i64, Vec<ServerRow>), StoreError> {
        self.inner.servers().await
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<CommitReply, StoreError>> {
        self.commit_until(commits, None).await
    }

    async fn commit_by(
        &self,
        commits: Vec<Commit>,
        deadline: Instant,
    ) -> Vec<Result<CommitReply, StoreError>> {
        self.commit_until(commits, Some(deadline)).await
    }

    async fn sweep(
        &self,
        retention: Retention,
        cursor: Option<SweepCursor>,
    ) -> Result<SweepReport, StoreError> {
        self.inner.sweep(retention, cursor).await
    }

    async fn backlog(&self) -> Result<Option<Backlog>, StoreError> {
        Self::backlog(self).await.map(Some)
    }

    async fn upkeep(&self) -> Result<Vec<TableUpkeep>, StoreError> {
        self.tables().await
    }
}

impl PostgresStore {
    async fn commit_until(
        &self,
        commits: Vec<Commit>,
        deadline: Option<Instant>,
    ) -> Vec<Result<CommitReply, StoreError>> {
        let verdict =
            |commit: &Commit| rules::check_commit(commit).and_then(|()| check_text(commit)).err();
        let verdicts: Vec<_> = commits.iter().map(verdict).collect();
        let good: Vec<_> = commits
            .into_iter()
            .zip(&verdicts)
            .filter(|(_, verdict)| verdict.is_none())
            .map(|(commit, _)| commit)
            .collect();
        let mut replies = if good.is_empty() {
            Vec::new()
        } else if good.iter().all(rules::only_checks) {
            // Nothing is written, so nothing can be unknown.
            let late =
                || StoreError::Unavailable { reason: "the database did not answer in time".into() };
            let checked = queue::by(deadline, self.inner.check(&good)).await;
            checked.unwrap_or_else(|| good.iter().map(|_| Err(late())).collect())
        } else {
            self.inner.submit(good, deadline).await
        }
        .into_iter();
        let lost = || {
            Err(StoreError::Unavailable {
                reason: "the store gave no answer for the commit".into(),
            })
        };
        verdicts
            .into_iter()
            .map(|verdict| verdict.map_or_else(|| replies.next().unwrap_or_else(lost), Err))
            .collect()
    }
}

/// PostgreSQL's text holds no NUL. Names of profiles never have one, and what else is text is
/// refused with one.
fn check_text(commit: &Commit) -> Result<(), StoreError> {
    let nul = |text: &str| text.contains('\0');
    let found = commit.changes.iter().any(|change| match change {
        Change::Write { author, imported, .. } => {
            nul(author)
                || imported.as_ref().and_then(|imported| imported.label.as_deref()).is_some_and(nul)
        }
        Change::RegisterServer { job_id, owner, .. } => {
            nul(job_id) || owner.as_deref().is_some_and(nul)
        }
        Change::AppendMessage { message, .. } => nul(message.id.name()),
        Change::ReplaceInbox { messages, .. } => {
            messages.iter().any(|message| nul(message.id.name()))
        }
        _ => false,
    });
    if found {
        let reason = format!(
            "a name with a NUL character cannot be stored in PostgreSQL: commit=`{}`",
            commit.id
        );
        return Err(StoreError::Invalid { reason });
    }
    Ok(())
}
