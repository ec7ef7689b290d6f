//! A store that fails: a decorator over any backend, for tests and simulation.
//!
//! Two things decide what happens to a call. The [`Line`] is the server's connection, which a test
//! opens, cuts, holds or severs. The [`StorePlan`] gives each call a [`Fate`] of its own. A lost
//! request, a lost answer, and a request that arrives after its caller has tried again are three
//! different faults.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use super::{
    Backlog, Change, Commit, CommitReply, DataStore, Identity, KeyQuery, KeyState, Retention,
    Returning, ServerRow, Snapshot, StoreError, StoreFiles, StoredVersion, SweepCursor,
    SweepReport, TableUpkeep, VersionInfo, VersionLinks, VersionQuery, VersionRef,
};
use crate::{env::Rng, key::ProfileKey};

mod on_command;

pub use on_command::OnCommand;

/// A connection that can be cut. Clones are the same connection.
#[derive(Debug, Clone, Default)]
pub struct Line(Arc<Connection>);

#[derive(Debug, Default)]
struct Connection {
    state: Mutex<LineState>,
    changed: Notify,
}

/// What a [`Line`] lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LineState {
    /// Everything.
    #[default]
    Open,
    /// Nothing: new calls are refused, and calls under way have an unknown outcome.
    Cut,
    /// Nothing for now: calls wait on both ways, as those of a process that was stopped.
    Held,
    /// Nothing ever again: calls wait for ever, as those of a process that is gone.
    Severed,
}

impl Line {
    /// Changes what the line lets through.
    pub fn set(&self, state: LineState) {
        *self.0.state.lock() = state;
        self.0.changed.notify_waiters();
    }

    /// What it lets through now.
    pub fn state(&self) -> LineState {
        *self.0.state.lock()
    }

    /// Waits until it is open or cut. True when it is open.
    pub async fn passes(&self) -> bool {
        loop {
            let changed = self.0.changed.notified();
            match self.state() {
                LineState::Open => return true,
                LineState::Cut => return false,
                LineState::Held | LineState::Severed => changed.await,
            }
        }
    }
}

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It does not arrive, and the caller knows.
    Refused,
    /// It does not arrive, and the outcome is unknown.
    RequestLost,
    /// It takes effect, and the answer is lost.
    AnswerLost,
    /// The caller is told that the outcome is unknown. The call takes effect so much later.
    Late(Duration),
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fate {
    /// How long the request takes.
    pub there: Duration,
    /// How long the answer takes.
    pub back: Duration,
    /// What goes wrong, if anything.
    pub fault: Option<Fault>,
}

/// A call, as far as a plan may want to know it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Call<'a> {
    /// Nothing is changed.
    Read,
    /// Commits that renew a server's lease and do nothing else.
    Renewal,
    /// Other commits.
    Commit(&'a [Commit]),
    /// A sweep.
    Sweep,
}

/// Gives each call its fate.
pub trait StorePlan: fmt::Debug + Send + Sync + 'static {
    /// The next call's. Asked once a call, in call order.
    fn fate(&self, call: Call<'_>) -> Fate;
}

/// A backend behind a [`Line`] and a [`StorePlan`]. Cheap to clone; clones share both.
#[derive(Debug)]
pub struct FaultyStore<P> {
    inner: Arc<dyn DataStore>,
    line: Line,
    plan: Arc<P>,
}

impl<P> Clone for FaultyStore<P> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), line: self.line.clone(), plan: self.plan.clone() }
    }
}

impl<P: StorePlan> FaultyStore<P> {
    /// A way to a backend.
    pub fn new(inner: Arc<dyn DataStore>, plan: P) -> Self {
        Self { inner, line: Line::default(), plan: Arc::new(plan) }
    }

    /// Another way to the same backend, with a line and a plan of its own.
    pub fn another_way(&self, plan: P) -> Self {
        Self::new(self.inner.clone(), plan)
    }

    /// Its connection.
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// Its plan.
    pub fn plan(&self) -> &P {
        &self.plan
    }

    /// Carries out a call that changes nothing.
    async fn ask<T>(
        &self,
        call: Call<'_>,
        inner: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let fate = self.plan.fate(call);
        let lost = || StoreError::Unavailable { reason: "the connection was lost".into() };
        if !self.line.passes().await || fate.fault == Some(Fault::Refused) {
            return Err(lost());
        }
        delay(fate.there).await;
        if !self.line.passes().await {
            return Err(lost());
        }
        let answer = inner.await;
        delay(fate.back).await;
        if !self.line.passes().await || fate.fault.is_some() {
            return Err(lost());
        }
        answer
    }
}

async fn delay(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<P: StorePlan> DataStore for FaultyStore<P> {
    async fn identity(&self) -> Result<Identity, StoreError> {
        self.ask(Call::Read, self.inner.identity()).await
    }

    async fn read(
        &self,
        keys: &[ProfileKey],
        returning: Returning,
    ) -> Result<Snapshot, StoreError> {
        self.ask(Call::Read, self.inner.read(keys, returning)).await
    }

    async fn version(
        &self,
        key: &ProfileKey,
        version: &VersionRef,
    ) -> Result<Option<StoredVersion>, StoreError> {
        self.ask(Call::Read, self.inner.version(key, version)).await
    }

    async fn versions(&self, query: &VersionQuery) -> Result<Vec<VersionInfo>, StoreError> {
        self.ask(Call::Read, self.inner.versions(query)).await
    }

    async fn links(
        &self,
        key: &ProfileKey,
        after: u64,
        limit: usize,
    ) -> Result<Vec<VersionLinks>, StoreError> {
        self.ask(Call::Read, self.inner.links(key, after, limit)).await
    }

    async fn keys(&self, query: &KeyQuery) -> Result<Vec<KeyState>, StoreError> {
        self.ask(Call::Read, self.inner.keys(query)).await
    }

    async fn servers(&self) -> Result<(i64, Vec<ServerRow>), StoreError> {
        self.ask(Call::Read, self.inner.servers()).await
    }

    async fn commit(&self, commits: Vec<Commit>) -> Vec<Result<CommitReply, StoreError>> {
        let renewal = commits
            .iter()
            .flat_map(|commit| &commit.changes)
            .all(|change| matches!(change, Change::RenewServer { .. }));
        let fate = self.plan.fate(if renewal { Call::Renewal } else { Call::Commit(&commits) });
        let ids: Vec<_> = commits.iter().map(|commit| commit.id).collect();
        let all = |error: &dyn Fn(&super::CommitId) -> StoreError| {
            ids.iter().map(|id| Err(error(id))).collect()
        };
        let refused =
            |_: &super::CommitId| StoreError::Unavailable { reason: "no connection".into() };
        let unknown = |id: &super::CommitId| StoreError::Indeterminate {
            commit: *id,
            reason: "the connection was lost".into(),
        };
        if !self.line.passes().await || fate.fault == Some(Fault::Refused) {
            return all(&refused);
        }
        delay(fate.there).await;
        match fate.fault {
            Some(Fault::Late(by)) => {
                let inner = self.inner.clone();
                tokio::spawn(async move {
                    delay(by).await;
                    inner.commit(commits).await
                });
                delay(fate.back).await;
                self.line.passes().await;
                return all(&unknown);
            }
            Some(Fault::RequestLost) => {
                delay(fate.back).await;
                self.line.passes().await;
                return all(&unknown);
            }
            _ => {}
        }
        if !self.line.passes().await {
            return all(&unknown);
        }
        let answers = self.inner.commit(commits).await;
        delay(fate.back).await;
        if !self.line.passes().await || fate.fault == Some(Fault::AnswerLost) {
            return all(&unknown);
        }
        answers
    }

    async fn commit_by(
        &self,
        commits: Vec<Commit>,
        deadline: Instant,
    ) -> Vec<Result<CommitReply, StoreError>> {
        let ids: Vec<_> = commits.iter().map(|commit| commit.id).collect();
        // A connection does not know how far the other side is.
        tokio::time::timeout_at(deadline, self.commit(commits)).await.unwrap_or_else(|_| {
            let unknown = |commit| StoreError::Indeterminate {
                commit,
                reason: "there was no answer in time".into(),
            };
            ids.into_iter().map(|id| Err(unknown(id))).collect()
        })
    }

    async fn sweep(
        &self,
        retention: Retention,
        cursor: Option<SweepCursor>,
    ) -> Result<SweepReport, StoreError> {
        self.ask(Call::Sweep, self.inner.sweep(retention, cursor)).await
    }

    async fn backlog(&self) -> Result<Option<Backlog>, StoreError> {
        self.ask(Call::Read, self.inner.backlog()).await
    }

    async fn upkeep(&self) -> Result<Vec<TableUpkeep>, StoreError> {
        self.ask(Call::Read, self.inner.upkeep()).await
    }

    fn files(&self) -> Option<&dyn StoreFiles> {
        self.inner.files()
    }
}

/// A plan of a store that is too slow: commits go through one after the other, each of which takes
/// its time. Renewals and reads do not wait. At first it takes no time.
#[derive(Debug, Default)]
pub struct Throttled(Mutex<(Duration, Option<Instant>)>);

impl Throttled {
    /// Takes so many commits a second from now on.
    pub fn set(&self, commits_a_second: u32) {
        self.0.lock().0 = Duration::from_secs(1) / commits_a_second.max(1);
    }
}

impl StorePlan for Throttled {
    fn fate(&self, call: Call<'_>) -> Fate {
        let Call::Commit(commits) = call else { return Fate::default() };
        let now = Instant::now();
        let (pause, free_at) = &mut *self.0.lock();
        let count = u32::try_from(commits.len()).unwrap_or(u32::MAX);
        let done = free_at.unwrap_or(now).max(now) + *pause * count;
        *free_at = Some(done);
        Fate { there: done - now, ..Fate::default() }
    }
}

/// How often what goes wrong. Each is a chance a call between 0 and 1; the default is a store that
/// does not fail and takes no time.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Chances {
    /// Of [`Fault::Refused`].
    pub refused: f64,
    /// Of [`Fault::RequestLost`].
    pub request_lost: f64,
    /// Of [`Fault::AnswerLost`].
    pub answer_lost: f64,
    /// Of [`Fault::Late`].
    pub late: f64,
    /// At most so much later, evenly spread.
    pub late_by: Duration,
    /// The time of each way, at most, evenly spread.
    pub latency: Duration,
    /// Of a call that takes up to `stall_time` for one of its ways.
    pub stall: f64,
    /// See `stall`.
    pub stall_time: Duration,
}

/// A plan that draws each fate. The same seed and the same calls give the same fates.
pub struct Drawn {
    rng: Box<dyn Rng>,
    chances: Mutex<Chances>,
}

impl fmt::Debug for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Drawn").field(&*self.chances.lock()).finish()
    }
}

impl Drawn {
    /// A plan with these chances.
    pub fn new(rng: impl Rng, chances: Chances) -> Self {
        Self { rng: Box::new(rng), chances: Mutex::new(chances) }
    }

    /// Changes the chances for the calls to come.
    pub fn set(&self, chances: Chances) {
        *self.chances.lock() = chances;
    }
}

/// A number from 0 up to but not including 1.
pub(crate) fn fraction(rng: &dyn Rng) -> f64 {
    (rng.bits() >> 75) as f64 / (1u64 << 53) as f64
}

impl StorePlan for Drawn {
    fn fate(&self, _: Call<'_>) -> Fate {
        let chances = *self.chances.lock();
        let part = |of: Duration| of.mul_f64(fraction(&*self.rng));
        let mut fate =
            Fate { there: part(chances.latency), back: part(chances.latency), fault: None };
        let mut left = fraction(&*self.rng);
        let mut drawn = |chance: f64| {
            left -= chance;
            left < 0.0 && left >= -chance
        };
        if drawn(chances.refused) {
            fate.fault = Some(Fault::Refused);
        } else if drawn(chances.request_lost) {
            fate.fault = Some(Fault::RequestLost);
        } else if drawn(chances.answer_lost) {
            fate.fault = Some(Fault::AnswerLost);
        } else if drawn(chances.late) {
            fate.fault = Some(Fault::Late(part(chances.late_by)));
        } else if drawn(chances.stall) {
            let time = part(chances.stall_time);
            if fraction(&*self.rng) < 0.5 { fate.there += time } else { fate.back += time }
        }
        fate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        data_store::{MemoryStore, conformance::Subject},
        env::{ManualClock, SeededRng},
    };

    async fn subject() -> Subject {
        let clock = ManualClock::default();
        let plan = Drawn::new(SeededRng::new(1), Chances::default());
        let store = FaultyStore::new(Arc::new(MemoryStore::new(clock.env(1))), plan);
        Subject::new(Arc::new(store), move |ms| clock.advance(ms))
    }

    crate::store_conformance!(subject);
}
