//! Edits of many profiles.
//!
//! The library books what was done, profile by profile, so a run may be broken off at any moment
//! and repeated: each profile is edited once. What is kept here beside that is for people: how far
//! an operation is, and whether it is to go on. The process that runs an operation writes it down
//! once a second; any process can be asked about it, and may pause it or take it over.

mod back;
mod preview;
mod record;

use std::{collections::HashMap, sync::Arc, time::Duration};

use back::PuttingBack;
use futures_util::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use profilestore::{
    Attribution, Edit, Error, ErrorKind, GameServer,
    audit::{AuditQuery, UnreadableEntry, audit_entries, undoing},
    data_store::{DataStore, DataStoreExt as _, StoreError},
    env::Env,
    operator::{BulkEdit, BulkProgress, BulkReport, EditScope},
};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};
use uuid::Uuid;

use crate::{
    http::timely,
    problem::Problem,
    shelf::{Kept, Shelf},
};

pub(crate) use back::BackTo;
pub(crate) use preview::{Preview, Tried, preview};
pub(crate) use record::{Counts, Record, RefusedProfile, State, Which};

/// The scope of the reserved store in which the operations are.
const SCOPE: &str = "bulk-edits";

/// How often a run writes down how far it is, and looks whether it is to go on.
const BEAT: Duration = Duration::from_secs(1);

/// How often it is looked whether a run has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long a stopping process waits until its runs have written down where they are.
const LEAVE_TIME: Duration = Duration::from_secs(3);

/// How often a change is tried that others overtake.
const TRIES: usize = 20;

/// How many keys are counted at once.
const PAGE: usize = 500;

/// The operations of a store, and the runs of this process.
pub(crate) struct BulkEdits {
    shelf: Shelf,
    store: Arc<dyn DataStore>,
    server: GameServer,
    env: Env,
    runs: Mutex<HashMap<Uuid, Run>>,
    /// This process stops.
    leaves: watch::Sender<bool>,
}

/// What this process does for an operation.
struct Run {
    id: Uuid,
    progress: watch::Receiver<BulkProgress>,
}

impl Which {
    /// The same for the library. Fails when the search cannot be read.
    pub(crate) fn scope(&self) -> Result<EditScope, Problem> {
        let filter = self.filter.as_deref().map(str::parse).transpose()?;
        Ok(EditScope {
            store: self.store.clone(),
            scope: self.scope.clone(),
            prefix: self.prefix.clone(),
            filter,
        })
    }
}

impl BulkEdits {
    pub(crate) fn new(store: Arc<dyn DataStore>, server: GameServer, env: Env) -> Arc<Self> {
        let shelf = Shelf::new(store.clone(), env.clone(), SCOPE);
        let leaves = watch::Sender::new(false);
        Arc::new(Self { shelf, store, server, env, runs: Mutex::default(), leaves })
    }

    /// All operations, newest first.
    pub(crate) async fn list(&self) -> Result<Vec<Record>, Error> {
        let kept = self.shelf.list::<Record>().await?;
        Ok(kept.into_iter().rev().map(|(record, _)| record).collect())
    }

    /// One operation, as it is now: what this process runs, to the moment.
    pub(crate) async fn find(&self, operation: Uuid) -> Result<Record, Problem> {
        let Kept { value, .. } = self.shelf.read::<Record>(&operation.to_string()).await?;
        let mut record = value.ok_or_else(|| none(operation))?;
        let runs = self.runs.lock();
        if let Some(run) = runs.get(&operation).filter(|run| record.is_for(run.id)) {
            record.heard(*run.progress.borrow(), self.server.now_ms());
        }
        Ok(record)
    }

    /// How far it is.
    pub(crate) async fn state(&self, record: &Record) -> Result<State, Error> {
        if !record.is_done {
            let is_running = record.is_running(self.server.now_ms());
            return Ok(if is_running { State::Running } else { State::Paused });
        }
        let Some(by) = record.undone_by else { return Ok(State::Done) };
        let undo = self.shelf.read::<Record>(&by.to_string()).await?.value;
        let is_undone = undo.is_some_and(|undo| undo.is_done);
        Ok(if is_undone { State::Undone } else { State::Done })
    }

    /// Begins an operation. One that comes again is the same one: it is not begun anew, and goes on
    /// if its process has ended.
    pub(crate) async fn begin(self: &Arc<Self>, record: Record) -> Result<Record, Problem> {
        let name = record.operation.to_string();
        let work = asked_for(&record)?;
        for _ in 0..TRIES {
            let Kept { value, version } = self.shelf.read::<Record>(&name).await?;
            if let Some(before) = value {
                if !before.is_same(&record) {
                    return Err(reused());
                }
                if before.is_broken_off(self.server.now_ms()) {
                    self.resume(before.operation).await?;
                }
                return Ok(before);
            }
            if self.is_known(record.operation).await? {
                return Err(reused());
            }
            timely(record.operation, record.began_ms)?;
            let mut changes = vec![self.shelf.write(&name, version, &record)?];
            if let Some(of) = record.undoes {
                let seen = undoing(&*self.store, of).await?;
                let kept = self.shelf.read::<Record>(&of.to_string()).await?;
                let booked = seen.newest.as_ref().map(|undo| undo.operation);
                let by = kept.value.as_ref().and_then(|undone| undone.undone_by).or(booked);
                if let Some(by) = by {
                    return Err(already_undone(of, by));
                }
                if let Some(damaged) = seen.damaged.first() {
                    return Err(not_known(of, damaged));
                }
                if let Some(mut undone) = kept.value {
                    undone.undone_by = Some(record.operation);
                    undone.goes_on = false;
                    changes.push(self.shelf.write(&of.to_string(), kept.version, &undone)?);
                }
                let by = Attribution::new(&*record.author).because(&*record.reason);
                changes.extend(seen.changes(record.operation, by)?);
            }
            if self.shelf.commit(changes).await? {
                self.run(&record, work);
                return Ok(record);
            }
        }
        Err(Problem::new("busy", "the operation kept changing"))
    }

    /// Whether something is booked under this identity: an operation of the program, since those
    /// that are begun here are kept here first, or an edit or a rollback of one profile. That one
    /// would count as edited before, and an undo would take the single edit back.
    async fn is_known(&self, operation: Uuid) -> Result<bool, Problem> {
        let query = AuditQuery { operation: Some(operation), ..AuditQuery::default() };
        let page = audit_entries(&*self.store, &query).await?;
        Ok(!page.entries.is_empty() || !page.unreadable.is_empty())
    }

    /// Fails for the identity of an operation, whether it runs or is done, here or in the program.
    /// An edit or a rollback of one profile under it would count there as that profile's edit.
    pub(crate) async fn check_unused(&self, operation: Uuid) -> Result<(), Problem> {
        if self.shelf.read::<Record>(&operation.to_string()).await?.value.is_some() {
            return Err(reused());
        }
        match BulkEdit::resume(&*self.store, operation).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() != ErrorKind::Invalid => Err(error.into()),
            // It is not finished, or complete.
            _ => Err(reused()),
        }
    }

    /// Lets it go on here, unless it is done or goes on here already. A run elsewhere stops within
    /// a second; until then, both edit each profile once.
    pub(crate) async fn resume(self: &Arc<Self>, operation: Uuid) -> Result<(), Problem> {
        let (run, now_ms) = (self.env.uuid(), self.server.now_ms());
        let here = self.runs.lock().get(&operation).map(|run| run.id);
        let record = self
            .change(operation, |record| {
                if !record.is_done && !here.is_some_and(|here| record.is_for(here)) {
                    record.go_on(run, now_ms);
                }
            })
            .await?;
        if record.run != run {
            return Ok(());
        }
        let work = match BulkEdit::resume(&*self.store, operation).await {
            Ok(bulk) => Work::Bulk(bulk),
            // The process ended before the library had booked the operation, or it is none of the
            // library's.
            Err(error) if error.kind() == ErrorKind::NotFound => asked_for(&record)?,
            // The process ended behind the library's last entry.
            Err(error) if error.kind() == ErrorKind::Invalid => {
                self.change(operation, Record::complete).await?;
                return Ok(());
            }
            Err(error) => {
                self.change(operation, |record| record.broke_off(None)).await?;
                return Err(error.into());
            }
        };
        self.run(&record, work);
        Ok(())
    }

    /// Stops it. Its run sees that a second later at the latest, wherever it is.
    pub(crate) async fn pause(&self, operation: Uuid) -> Result<(), Problem> {
        self.change(operation, |record| record.goes_on = false).await.map(drop)
    }

    /// Stops it, and waits until its run has ended.
    pub(crate) async fn stop(&self, operation: Uuid) -> Result<(), Problem> {
        self.pause(operation).await?;
        loop {
            let kept = self.shelf.read::<Record>(&operation.to_string()).await?;
            let now_ms = self.server.now_ms();
            if kept.value.is_none_or(|record| record.is_done || record.is_quiet(now_ms)) {
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Ends the runs of this process, which is about to stop. They are to be resumed.
    pub(crate) async fn leave(&self) {
        self.leaves.send_replace(true);
        let until = Instant::now() + LEAVE_TIME;
        while Instant::now() < until && !self.runs.lock().is_empty() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn change(
        &self,
        operation: Uuid,
        mut change: impl FnMut(&mut Record),
    ) -> Result<Record, Problem> {
        let name = operation.to_string();
        for _ in 0..TRIES {
            let Kept { value, version } = self.shelf.read::<Record>(&name).await?;
            let before = value.ok_or_else(|| none(operation))?;
            let mut record = before.clone();
            change(&mut record);
            let is_written = record == before
                || self.shelf.commit(vec![self.shelf.write(&name, version, &record)?]).await?;
            if is_written {
                return Ok(record);
            }
        }
        Err(Problem::new("busy", "the operation kept changing"))
    }

    /// Works on an operation from now on, until it is done, fails, or is to stop.
    fn run(self: &Arc<Self>, record: &Record, work: Work) {
        let (tell, progress) = watch::channel(BulkProgress::default());
        let run = Run { id: record.run, progress: progress.clone() };
        self.runs.lock().insert(record.operation, run);
        let (edits, record) = (self.clone(), record.clone());
        tokio::spawn(async move {
            let work = edits.work(&record, work, tell);
            let ended = tokio::select! {
                report = work => Some(report),
                () = edits.beat(&record, &progress) => None,
                () = edits.count(&record) => None,
            };
            let last = *progress.borrow();
            edits.ended(&record, last, ended).await;
            let mut runs = edits.runs.lock();
            // Another run of this process may have it by now.
            if runs.get(&record.operation).is_some_and(|run| run.id == record.run) {
                runs.remove(&record.operation);
            }
        });
    }

    /// The work itself. It ends when it is dropped.
    fn work(
        &self,
        of: &Record,
        work: Work,
        tell: watch::Sender<BulkProgress>,
    ) -> BoxFuture<'static, Result<BulkReport, Error>> {
        let by = Attribution::new(&*of.author).because(&*of.reason);
        let operator = self.server.operator(by.clone());
        let tell = move |progress| {
            tell.send_replace(progress);
        };
        match work {
            Work::Bulk(bulk) => operator.edit_all(&bulk, tell).boxed(),
            Work::Back(profiles, back) => {
                let (store, env) = (self.store.clone(), self.env.clone());
                let operation = of.operation;
                PuttingBack { store, env, operator, by, operation, profiles, back }
                    .run(tell)
                    .boxed()
            }
        }
    }

    /// Writes down how far it is, once a second, until the run is to stop.
    async fn beat(&self, of: &Record, progress: &watch::Receiver<BulkProgress>) {
        let mut leaves = self.leaves.subscribe();
        let left = async move { leaves.wait_for(|leaves| *leaves).await.map(drop) };
        let mut left = std::pin::pin!(left);
        let mut ticks = tokio::time::interval(BEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = &mut left => return,
                _ = ticks.tick() => {}
            }
            let (progress, now_ms) = (*progress.borrow(), self.server.now_ms());
            let heard = self.change(of.operation, |record| {
                if record.is_for(of.run) {
                    record.heard(progress, now_ms);
                }
            });
            match heard.await {
                Ok(record) if !record.is_for(of.run) => return,
                Ok(_) => {}
                Err(problem) => {
                    let operation = of.operation;
                    tracing::warn!(%problem, %operation, "an edit's progress was not written down");
                }
            }
        }
    }

    /// Counts the profiles that there are to look at. Never ends.
    async fn count(&self, of: &Record) {
        if of.total.is_none()
            && of.undoes.is_none()
            && let Err(problem) = self.count_all(of).await
        {
            tracing::debug!(%problem, "the profiles of an edit were not counted");
        }
        std::future::pending().await
    }

    async fn count_all(&self, of: &Record) -> Result<(), Problem> {
        let mut query = preview::query(&of.which.scope()?, PAGE);
        let mut total = 0;
        loop {
            let (page, next) = self.store.profiles(&query).await?;
            total += page.iter().filter(|state| state.exists()).count() as u64;
            match next {
                Some(next) => query.after = Some(next),
                None => break,
            }
        }
        self.change(of.operation, |record| record.total = Some(total)).await.map(drop)
    }

    /// Writes down how a run ended. None: it was to stop.
    async fn ended(
        &self,
        of: &Record,
        progress: BulkProgress,
        ended: Option<Result<BulkReport, Error>>,
    ) {
        // Two runs at once: the other one has completed the operation.
        let is_complete = match &ended {
            Some(Err(error)) if error.kind() == ErrorKind::Invalid => {
                let again = BulkEdit::resume(&*self.store, of.operation).await;
                again.is_err_and(|error| error.kind() == ErrorKind::Invalid)
            }
            _ => false,
        };
        let change = |record: &mut Record| {
            if record.run != of.run || record.is_done {
                return;
            }
            record.heard(progress, 0);
            match &ended {
                None => record.broke_off(None),
                Some(Ok(report)) => record.finish(report),
                Some(Err(_)) if is_complete => record.complete(),
                Some(Err(error)) => record.broke_off(Some(error.to_string())),
            }
        };
        if let Err(problem) = self.change(of.operation, change).await {
            let operation = of.operation;
            tracing::warn!(%problem, %operation, "the end of an edit's run was not written down");
        }
    }
}

/// What an operation is.
enum Work {
    /// The library's: one edit for all profiles, or the undoing of an operation.
    Bulk(BulkEdit),
    /// Places are put back, in these profiles.
    Back(EditScope, BackTo),
}

/// The operation as it was asked for.
fn asked_for(record: &Record) -> Result<Work, Problem> {
    if let Some(of) = record.undoes {
        return Ok(Work::Bulk(BulkEdit::undo(record.operation, of)));
    }
    let profiles = record.which.scope()?;
    if let Some(back) = &record.back_to {
        return Ok(Work::Back(profiles, back.clone()));
    }
    let edit = Edit::from_patch(&record.operations.to_string())?;
    edit.check()?;
    Ok(Work::Bulk(BulkEdit::new(record.operation, profiles, edit)))
}

fn none(operation: Uuid) -> Problem {
    let detail = format!("no such edit was begun over HTTP: operation=`{operation}`");
    Problem::new("not-found", detail)
}

/// What was added would be subtracted a second time.
fn already_undone(of: Uuid, by: Uuid) -> Problem {
    let detail = format!("another operation undoes it; nothing was changed: operation=`{of}`");
    Problem::new("already-undone", detail).with("undone_by", by.to_string())
}

/// Another operation undoes it, and the note that says which one is damaged.
fn not_known(of: Uuid, damaged: &UnreadableEntry) -> Problem {
    let UnreadableEntry { key, why, .. } = damaged;
    let reason = format!(
        "which operation undoes it cannot be read: {why}: key=`{key}`; nothing was changed. To \
         undo it all the same: profilestore edit --undo {of} --again"
    );
    Error::from(StoreError::Corrupt { reason }).into()
}

fn reused() -> Problem {
    let detail = "the idempotency key was used before for another edit";
    Problem::new("idempotency-key-reused", detail)
}
