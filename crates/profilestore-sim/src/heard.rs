//! A server's way to the store, with a witness at the server's end of it: that one sees which
//! answers to renewals the server gets. Others are lost on the way, come late, or belong to a copy
//! of a renewal whose answer no caller waits for any more.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use profilestore::{
    ProfileKey,
    data_store::{
        Change, Commit, CommitId, CommitReply, DataStore, Identity, KeyQuery, KeyState, Retention,
        Returning, ServerRow, Snapshot, StoreError, StoredVersion, SweepCursor, SweepReport,
        VersionInfo, VersionLinks, VersionQuery, VersionRef,
    },
};
use tokio::time::Instant;

use crate::books::Clerk;

/// One server's way to the store, as it is to the server.
#[derive(Clone)]
pub struct Heard {
    way: Arc<dyn DataStore>,
    clerk: Arc<Clerk>,
}

impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Heard").field(&self.way).finish()
    }
}

/// The renewals among these commits, at their places.
fn renewals(commits: &[Commit]) -> Vec<Option<CommitId>> {
    let renews = |commit: &Commit| {
        commit.changes.iter().any(|change| matches!(change, Change::RenewServer { .. }))
    };
    commits.iter().map(|commit| renews(commit).then_some(commit.id)).collect()
}

impl Heard {
    pub fn new(way: Arc<dyn DataStore>, clerk: Arc<Clerk>) -> Self {
        Self { way, clerk }
    }

    fn note(&self, renewals: &[Option<CommitId>], answers: &[Result<CommitReply, StoreError>]) {
        for (renewal, answer) in renewals.iter().zip(answers) {
            if let (Some(renewal), Ok(reply)) = (renewal, answer) {
                self.clerk.heard(*renewal, reply);
            }
        }
    }
}

#[async_trait]
impl DataStore for Heard {
    async fn identity(&self) -> Result<Identity, StoreError> {
        self.way.identity().await
    }

    async fn read(
        &self,
        keys: &[ProfileKey],
        returning: Returning,
    ) -> Result<Snapshot, StoreError> {
        self.way.read(keys, returning).await
    }

    async fn version(
        &self,
        key: &ProfileKey,
        version: &VersionRef,
    ) -> Result<Option<StoredVersion>, StoreError> {
        self.way.version(key, version).await
    }

    async fn versions(&self, query: &VersionQuery) -> Result<Vec<VersionInfo>, StoreError> {
        self.way.versions(query).await
    }

    async fn links(
        &self,
        key: &ProfileKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<VersionLinks>, StoreError> {
        self.way.links(key, after, limit).await
    }

    async fn keys(&self, query: &KeyQuery) -> Result<Vec<KeyState>, StoreError> {
        self.way.keys(query).await
    }

    async fn servers(&self) -> Result<(i64, Vec<ServerRow>), StoreError> {
        self.way.servers().await
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<CommitReply, StoreError>> {
        let renewals = renewals(&commits);
        let answers = self.way.commit(commits).await;
        self.note(&renewals, &answers);
        answers
    }

    async fn commit_by(
        &self,
        commits: Vec<Commit>,
        deadline: Instant,
    ) -> Vec<Result<CommitReply, StoreError>> {
        let renewals = renewals(&commits);
        let answers = self.way.commit_by(commits, deadline).await;
        self.note(&renewals, &answers);
        answers
    }

    async fn sweep(
        &self,
        retention: Retention,
        cursor: Option<SweepCursor>,
    ) -> Result<SweepReport, StoreError> {
        self.way.sweep(retention, cursor).await
    }
}
