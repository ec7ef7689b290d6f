//! The untyped engine behind a game server: one store, one lease, the sessions that stand on it.
//!
//! `ProfileStore<T>` and `Profile<T>` are a codec at its edge. Whatever touches a key runs in that key's queue
//! ([`queue`]); what is decided there is decided by [`ownership`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::{Mutex, RwLock};
use tokio::{runtime::Handle, sync::Notify, task::JoinHandle, time::Instant};

use crate::{
    autosave::Autosave,
    bounded_loss::Changed,
    data_store::{
        Change, Commit, CommitId, CommitReply, ConflictKind, DataStore, DataStoreExt, Incarnation, KeyState, Returning, ServerId,
        Snapshot, StoreError,
    },
    env::Env,
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    messenger::Messenger,
    ownership,
    session::{Session, info::SessionEnd},
    settings::Settings,
};

mod attempt;
pub(crate) mod calls;
pub(crate) mod deadline;
mod edit;
mod edit_all;
pub(crate) mod erase;
pub(crate) mod health;
pub(crate) mod history;
pub(crate) mod lease;
pub(crate) mod options;
pub(crate) mod queue;
pub(crate) mod renew;
pub(crate) mod room;
mod standing;
pub(crate) mod start;
mod sweep;

use deadline::{Deadline, Patience};
use health::Health;
use lease::Lease;
use queue::KeyQueues;
use room::Room;
use start::Load;

/// How long after a commit was sent whoever waits for it gets a hint: long enough for the commit to stay ahead of the look that follows.
const EARLY_HINT: Duration = Duration::from_millis(2);

/// How often a commit that lost a race against another server is rebuilt and tried again before the call fails.
const MAX_RACES: usize = 50;

/// For how long a call waits for this server to register in contents of the store that were replaced.
const PATIENCE_WITH_REPLACED: Duration = Duration::from_secs(2);

/// What to build an engine from.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn DataStore>,
    pub(crate) messenger: Arc<dyn Messenger>,
    pub(crate) env: Env,
    pub(crate) settings: Settings,
    pub(crate) place_id: i64,
    pub(crate) job_id: String,
    /// A mock's errors are told to the listeners of its server.
    pub(crate) health: Arc<Health>,
}

pub(crate) struct Engine {
    pub(crate) store: Arc<dyn DataStore>,
    messenger: Arc<dyn Messenger>,
    pub(crate) env: Env,
    settings: RwLock<Arc<Settings>>,
    pub(crate) place_id: i64,
    pub(crate) job_id: String,
    pub(crate) runtime: Handle,
    pub(crate) lease: Mutex<Lease>,
    /// A commit met other contents of the store: the lease is to be renewed at once.
    renew_now: Notify,
    /// A new incarnation of this server has begun.
    begun_anew: Notify,
    pub(crate) queues: Arc<KeyQueues>,
    /// For what is on its way to the store.
    pub(crate) room: Arc<Room>,
    /// Held while a transaction takes its place in several queues, so that two of them meet in the same order in all of them.
    pub(crate) lining_up: Mutex<()>,
    slots: Mutex<Slots>,
    /// Sessions that are closed and whose last save is not known yet, by their identity.
    pub(crate) ending: Mutex<BTreeMap<String, ProfileKey>>,
    /// Starts that wait for a word about their key.
    waiters: Mutex<BTreeMap<ProfileKey, Arc<Notify>>>,
    pub(crate) autosave: Arc<Autosave>,
    pub(crate) changed: Changed,
    /// What is known of the edits that stand, by store.
    standing: Mutex<BTreeMap<String, standing::Cached>>,
    pub(crate) health: Arc<Health>,
    closing: AtomicBool,
    /// Set while `shutdown` runs: retries come faster.
    hurry: AtomicBool,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// The keys that this server has to do with.
type Slots = BTreeMap<ProfileKey, Slot>;

/// What this server does with a key.
enum Slot {
    Loading(Arc<Load>),
    Live(Arc<Session>),
}

impl Slot {
    /// True for a session of which is known what became of its last save.
    fn is_over(&self) -> bool {
        matches!(self, Self::Live(session) if session.is_known_to_be_over())
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("store", &self.store).field("job_id", &self.job_id).finish_non_exhaustive()
    }
}

impl Engine {
    /// Registers this server in the store and starts its tasks.
    pub(crate) async fn start(parts: Parts) -> Result<Arc<Self>> {
        if let Some(problem) = parts.settings.problem() {
            return Err(Error::new(ErrorKind::Invalid, problem));
        }
        let runtime = Handle::current();
        let (lease, hints) = renew::register(&parts).await?;
        let engine = Arc::new(Self {
            store: parts.store,
            messenger: parts.messenger,
            env: parts.env.clone(),
            settings: RwLock::new(Arc::new(parts.settings)),
            place_id: parts.place_id,
            job_id: parts.job_id,
            queues: KeyQueues::new(runtime.clone()),
            room: Room::new(parts.env),
            runtime,
            lining_up: Mutex::default(),
            lease: Mutex::new(lease),
            renew_now: Notify::new(),
            begun_anew: Notify::new(),
            slots: Mutex::default(),
            ending: Mutex::default(),
            waiters: Mutex::default(),
            autosave: Arc::default(),
            changed: Changed::default(),
            standing: Mutex::default(),
            health: parts.health,
            closing: AtomicBool::new(false),
            hurry: AtomicBool::new(false),
            tasks: Mutex::default(),
        });
        let tasks = vec![
            engine.runtime.spawn(renew::run(engine.clone(), hints)),
            engine.runtime.spawn(crate::autosave::run(engine.clone())),
            engine.runtime.spawn(crate::bounded_loss::run(engine.clone())),
            engine.runtime.spawn(sweep::run(engine.clone())),
        ];
        *engine.tasks.lock() = tasks;
        Ok(engine)
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.read().clone()
    }

    pub(crate) fn change_settings<R>(&self, change: impl FnOnce(&mut Settings) -> R) -> Result<R> {
        let mut current = self.settings.write();
        let mut settings = Settings::clone(&current);
        let answer = change(&mut settings);
        if let Some(problem) = settings.problem() {
            return Err(Error::new(ErrorKind::Invalid, problem));
        }
        *current = Arc::new(settings);
        drop(current);
        self.autosave.wake();
        Ok(answer)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// The deadline of the call that is being done, or that of one which is made now.
    pub(crate) fn deadline(&self) -> Deadline {
        let begins = || Deadline::new(self.env.now(), self.env.after(self.settings().call_timeout));
        Deadline::of_call().unwrap_or_else(begins)
    }

    /// Fails once `shutdown` was called.
    pub(crate) fn check_open(&self, key: &ProfileKey) -> Result<()> {
        if self.is_closing() {
            return Err(Error::new(ErrorKind::Closing, "this game server is shutting down").about(key));
        }
        Ok(())
    }

    /// True when a session that stands on this incarnation of the server may believe in itself. `unseen`: the session has
    /// yet to look at a notice, so only what was confirmed before that came counts.
    pub(crate) fn confirms(&self, held_by: ServerId, unseen: Option<Instant>) -> bool {
        let lease = self.lease.lock();
        lease.server == held_by && lease.is_confirmed(unseen.unwrap_or(lease.confirmed_at), self.env.now())
    }

    pub(crate) fn server(&self) -> ServerId {
        self.lease.lock().server
    }

    /// The longest silence of the store that still counts as uninterrupted contact.
    pub(crate) fn max_gap(settings: &Settings) -> Duration {
        settings.lease_time / 2
    }

    /// Notes what the store's clock said in the answer to a call sent then.
    pub(crate) fn observe(&self, sent: Instant, store_ms: i64) {
        let max_gap = Self::max_gap(&self.settings());
        self.lease.lock().contact.observe(sent, self.env.now(), store_ms, max_gap);
    }

    pub(crate) fn contact(&self) -> Option<Duration> {
        let max_gap = Self::max_gap(&self.settings());
        self.lease.lock().contact_time(self.env.now(), max_gap)
    }

    /// The store's time, Unix milliseconds, as far as is known.
    pub(crate) fn store_ms(&self) -> i64 {
        self.lease.lock().contact.store_ms(self.env.now()).unwrap_or_else(|| self.env.unix_ms())
    }

    pub(crate) fn periods(&self) -> ownership::Periods {
        ownership::Periods::of(&self.settings())
    }

    // --- commits -------------------------------------------------------------------------------------------------

    /// A commit of this server.
    pub(crate) fn new_commit(&self, changes: Vec<Change>, returning: Returning) -> Commit {
        let lease = self.lease.lock();
        Commit { id: CommitId(self.env.uuid()), incarnation: lease.incarnation, from: Some(lease.server), changes, returning }
    }

    /// The contents of the store in which this server is registered: for [`Engine::commit_in`], taken before the look that a commit is
    /// built on.
    pub(crate) fn contents(&self) -> Incarnation {
        self.lease.lock().incarnation
    }

    /// A commit of this server that is built on a look at these contents. It fails when a backup took their place since, also when
    /// this server has registered in that meanwhile and the same numbers stand there.
    pub(crate) fn commit_in(&self, contents: Incarnation, changes: Vec<Change>, returning: Returning) -> Commit {
        Commit { incarnation: contents, ..self.new_commit(changes, returning) }
    }

    /// The same for a call without a session. It names no sender: should it arrive after this server has stopped waiting for it,
    /// the store leaves a notice for the holder, also when that is a session of this very server.
    pub(crate) fn commit_from_outside(&self, contents: Incarnation, changes: Vec<Change>, returning: Returning) -> Commit {
        Commit { from: None, ..self.commit_in(contents, changes, returning) }
    }

    /// Tries a commit once and sends the hints that follow from it. Errors of the store count towards the critical state.
    pub(crate) async fn try_commit(&self, commit: &Commit) -> Result<CommitReply, StoreError> {
        self.try_commit_by(commit, None).await
    }

    /// The same, with an answer at the deadline if there is one.
    async fn try_commit_by(&self, commit: &Commit, deadline: Option<Instant>) -> Result<CommitReply, StoreError> {
        let result = match deadline {
            Some(deadline) => self.store.commit_one_by(commit.clone(), self.env.on_tokios_clock(deadline)).await,
            None => self.store.commit_one(commit.clone()).await,
        };
        match &result {
            Ok(reply) => self.hint(reply).await,
            Err(error) => {
                self.note_error(error, commit.changes.first().and_then(Change::key));
                if let StoreError::Replaced { expected, .. } = error
                    && *expected == self.lease.lock().incarnation
                {
                    self.renew_now.notify_one();
                }
            }
        }
        result
    }

    /// Waits until this server has registered in other contents of the store than these; False when it has not in so short a time as
    /// it takes while the store answers. A commit that met them has brought the renewal forward.
    pub(crate) async fn contents_replaced(&self, before: Incarnation) -> bool {
        let deadline = self.env.after(PATIENCE_WITH_REPLACED);
        loop {
            let begun = self.begun_anew.notified();
            if self.lease.lock().incarnation != before {
                return true;
            }
            if self.env.timeout_at(deadline, begun).await.is_err() {
                return false;
            }
        }
    }

    /// True when a commit that failed is worth building anew from what the store holds now: somebody else was faster, or a backup was
    /// restored, in which this server has registered meanwhile.
    pub(crate) async fn overtaken(&self, error: &StoreError) -> bool {
        match error {
            StoreError::Replaced { expected, .. } => self.contents_replaced(*expected).await,
            error => lost_race(error),
        }
    }

    /// The longest pause between attempts at the store: 20 s, 8 s while shutting down, and never longer than the lease time, so that
    /// everybody is served again within that when the store comes back.
    pub(crate) fn longest_pause(&self, hurry: bool) -> Duration {
        let most = Duration::from_secs(if hurry { 8 } else { 20 });
        most.min(self.settings().lease_time)
    }

    /// Sends the hints that follow from a commit. This server itself needs none: whatever committed looks by itself.
    pub(crate) async fn hint(&self, reply: &CommitReply) {
        let own = self.server();
        for (server, key) in reply.notified.iter().filter(|(server, _)| *server != own) {
            self.messenger.hint(*server, key).await;
        }
    }

    /// Tries a commit, under one and the same identity, until its outcome is known or patience ends. The error is then
    /// the last one, [`StoreError::Indeterminate`] if any attempt's outcome is still unknown.
    pub(crate) async fn settle(&self, commit: &Commit, patience: impl Patience) -> Result<CommitReply, StoreError> {
        let mut backoff = Backoff::default();
        let mut unknown = None;
        let mut again = None;
        loop {
            match self.try_commit_by(again.as_ref().unwrap_or(commit), patience.ends()).await {
                Err(error) if error.is_transient() => {
                    if matches!(error, StoreError::Indeterminate { .. }) {
                        unknown = Some(error.clone());
                        if defect!(BlindRetry) {
                            again = Some(Commit { id: CommitId(self.env.uuid()), ..commit.clone() });
                        }
                        if defect!(JudgedByReading) && !self.seems_applied(commit).await {
                            return Err(StoreError::Unavailable { reason: "it is not there".into() });
                        }
                    }
                    let wanted = backoff.next(self.longest_pause(self.hurry.load(Ordering::Relaxed)));
                    let Some(wait) = patience.pause(self.env.now(), wanted) else {
                        return Err(unknown.unwrap_or(error));
                    };
                    metrics::counter!("profilestore_store_retries_total").increment(1);
                    tokio::time::sleep(wait).await;
                }
                // The refusals that need not last: an earlier attempt may still arrive when there is room again.
                Err(error)
                    if unknown.is_some()
                        && matches!(error.conflict(), Some(ConflictKind::InboxFull | ConflictKind::MessageIdExpired)) =>
                {
                    match self.call_off(commit, &mut backoff, &patience).await {
                        Ok(true) => return Err(error),
                        // It did arrive: the next attempt says so.
                        Ok(false) => {}
                        Err(failed) if failed.is_transient() => return Err(unknown.unwrap_or(failed)),
                        Err(failed) => return Err(failed),
                    }
                }
                // An earlier attempt may have been applied after all; then the refusal of this one came from its own effect,
                // which the store would have answered with `already_applied`. So a refusal means: never applied.
                other => return other,
            }
        }
    }

    /// The same for a commit that another server waits for. That one gets a hint while the commit is still on its way, so that its look
    /// reaches the store right behind it; should it come too early, the hint that follows the commit makes it look again. So on a store
    /// that is far away a hand-over takes two calls less, and on one that is near no hint comes early.
    pub(crate) async fn settle_for(
        &self,
        server: Option<ServerId>,
        key: &ProfileKey,
        commit: &Commit,
        patience: impl Patience,
    ) -> Result<CommitReply, StoreError> {
        let mut settled = Box::pin(self.settle(commit, patience));
        if let Some(server) = server {
            tokio::select! {
                biased;
                settled = &mut settled => return settled,
                () = tokio::time::sleep(EARLY_HINT) => self.messenger.hint(server, key).await,
            }
        }
        settled.await
    }

    /// What a deliberate defect goes by.
    async fn seems_applied(&self, commit: &Commit) -> bool {
        for change in &commit.changes {
            let Some(key) = change.key() else { continue };
            let Ok((_, state)) = self.store.read_one(key, Returning::INBOX).await else { continue };
            let there = match change {
                Change::Write { version, .. } => state.version > *version,
                Change::Lease { revision, .. } => state.lease_revision > *revision,
                Change::AppendMessage { message, .. } => state.inbox.iter().flatten().any(|stored| stored.id == message.id),
                _ => continue,
            };
            return there;
        }
        true
    }

    /// Makes sure that a commit is never applied, trying until that is known or patience ends. False: it had been applied.
    pub(crate) async fn call_off(
        &self,
        commit: &Commit,
        backoff: &mut Backoff,
        patience: &impl Patience,
    ) -> Result<bool, StoreError> {
        let abort = Commit {
            incarnation: commit.incarnation,
            ..self.new_commit(vec![Change::Abort { commit: commit.id }], Returning::HEAD)
        };
        loop {
            match self.try_commit_by(&abort, patience.ends()).await {
                Ok(_) => return Ok(true),
                Err(refused) if refused.conflict() == Some(&ConflictKind::AlreadyApplied) => return Ok(false),
                Err(failed) if failed.is_transient() => {
                    let wanted = backoff.next(self.longest_pause(self.hurry.load(Ordering::Relaxed)));
                    let Some(wait) = patience.pause(self.env.now(), wanted) else { return Err(failed) };
                    tokio::time::sleep(wait).await;
                }
                Err(failed) => return Err(failed),
            }
        }
    }

    /// Reads a key's state, trying again for as long as calls may take.
    pub(crate) async fn read_settled(&self, key: &ProfileKey, returning: Returning) -> Result<(i64, KeyState), StoreError> {
        self.reading(Some(key), || self.store.read_one(key, returning)).await
    }

    /// The same for several keys, in the order given. What is found may be judged by the store's clock, so each answer says whether
    /// that has stepped.
    pub(crate) async fn read_all(&self, keys: &[ProfileKey], returning: Returning) -> Result<Snapshot, StoreError> {
        let read = async || {
            let sent = self.env.now();
            let snapshot = self.store.read(keys, returning).await?;
            if !defect!(StepNoticedLate) {
                self.observe(sent, snapshot.now_ms);
            }
            Ok(snapshot)
        };
        self.reading(keys.first(), read).await
    }

    /// Reads something of the store, trying again for as long as calls may take.
    pub(crate) async fn reading<T, F: Future<Output = Result<T, StoreError>>>(
        &self,
        key: Option<&ProfileKey>,
        read: impl Fn() -> F,
    ) -> Result<T, StoreError> {
        let deadline = self.deadline();
        let mut backoff = Backoff::default();
        loop {
            let late = || Err(StoreError::Unavailable { reason: "the store did not answer in time".into() });
            match self.env.timeout_at(deadline.at(), read()).await.unwrap_or_else(|_| late()) {
                Err(error) if error.is_transient() => {
                    self.note_error(&error, key);
                    let wanted = backoff.next(self.longest_pause(self.hurry.load(Ordering::Relaxed)));
                    let Some(wait) = deadline.pause(self.env.now(), wanted) else { return Err(error) };
                    tokio::time::sleep(wait).await;
                }
                other => return other,
            }
        }
    }

    pub(crate) fn note_error(&self, error: &StoreError, key: Option<&ProfileKey>) {
        if matches!(error, StoreError::Conflict(_)) {
            return;
        }
        metrics::counter!("profilestore_store_errors_total").increment(1);
        tracing::warn!(%error, key = key.map(tracing::field::display), "a call of the store failed");
        self.health.error(&error.to_string(), key, self.env.now(), &self.settings());
    }

    // --- words about keys ----------------------------------------------------------------------------------------

    /// Something about a key changed: wakes whoever waits for it, and makes a live session look.
    pub(crate) fn look(&self, key: &ProfileKey) {
        if let Some(waiter) = self.waiters.lock().get(key) {
            waiter.notify_one();
        }
        if let Some(session) = self.live(key) {
            session.queue_look();
        }
    }

    /// Hints may have been lost: looks at everything that could be waiting for one.
    pub(crate) fn wake_all_starts(&self) {
        for waiter in self.waiters.lock().values() {
            waiter.notify_one();
        }
    }

    pub(crate) fn live(&self, key: &ProfileKey) -> Option<Arc<Session>> {
        match self.slots.lock().get(key) {
            Some(Slot::Live(session)) => Some(session.clone()),
            _ => None,
        }
    }

    pub(crate) fn sessions(&self) -> Vec<Arc<Session>> {
        let slots = self.slots.lock();
        slots.values().filter_map(|slot| if let Slot::Live(session) = slot { Some(session.clone()) } else { None }).collect()
    }

    /// How many profiles are open or being opened.
    pub(crate) fn open_count(&self) -> usize {
        self.slots.lock().len()
    }

    /// Forgets a session that is over, unless a newer one has its place.
    pub(crate) fn forget(&self, session: &Arc<Session>) {
        let mut slots = self.slots.lock();
        if let Some(Slot::Live(other)) = slots.get(&session.key)
            && Arc::ptr_eq(other, session)
        {
            slots.remove(&session.key);
        }
        metrics::gauge!("profilestore_sessions").set(slots.len() as f64);
    }

    // --- the end -------------------------------------------------------------------------------------------------

    /// Saves and releases everything; see `GameServer::shutdown`. Under way at once. The second call finds nothing left
    /// to do.
    pub(crate) fn shutdown(self: &Arc<Self>) -> impl Future<Output = Vec<(ProfileKey, Error)>> + Send + 'static + use<> {
        self.closing.store(true, Ordering::SeqCst);
        self.hurry.store(true, Ordering::SeqCst);
        let deadline = self.env.after(self.settings().shutdown_timeout);
        self.wake_all_starts();
        let ends = self.end_all();
        let engine = self.clone();
        async move { engine.shut_down(ends, deadline).await }
    }

    /// Begins to end every session.
    fn end_all(&self) -> Vec<(ProfileKey, BoxFuture<'static, Result<()>>)> {
        let end = |session: Arc<Session>| (session.key.clone(), session.finish(SessionEnd::Shutdown).boxed());
        self.sessions().into_iter().filter(|session| !session.is_known_to_be_over()).map(end).collect()
    }

    async fn shut_down(
        self: &Arc<Self>,
        mut ends: Vec<(ProfileKey, BoxFuture<'static, Result<()>>)>,
        deadline: Instant,
    ) -> Vec<(ProfileKey, Error)> {
        let mut not_saved: Vec<(ProfileKey, Error)> = Vec::new();
        // Again, for starts that came through at the last moment.
        while self.env.now() < deadline {
            for (key, end) in ends {
                // An end that was refused before is made again.
                not_saved.retain(|(named, _)| *named != key);
                match self.env.timeout_at(deadline, end).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => not_saved.push((key, error)),
                    Err(_) => {
                        let error = Error::new(ErrorKind::TimedOut, "the last save did not get through before the deadline");
                        not_saved.push((key.clone(), error.about(&key)));
                    }
                }
            }
            // Messages, removals and last saves that the program began itself.
            let drained = self.env.timeout_at(deadline, self.queues.drained()).await.is_ok();
            if drained && self.slots.lock().values().all(Slot::is_over) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            ends = self.end_all();
        }
        let named: BTreeSet<ProfileKey> = not_saved.iter().map(|(key, _)| key.clone()).collect();
        // A session that ends may have lost its slot to the next start.
        let mut left: BTreeSet<ProfileKey> = self.sessions().into_iter().map(|session| session.key.clone()).collect();
        left.extend(self.ending.lock().values().cloned());
        for key in left.difference(&named) {
            let error = Error::new(ErrorKind::TimedOut, "the last save did not get through before the deadline");
            not_saved.push((key.clone(), error.about(key)));
        }
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        let retire = {
            let lease = self.lease.lock();
            Change::MarkDead { id: lease.server, revision: lease.revision }
        };
        if not_saved.is_empty() {
            let commit = self.new_commit(vec![retire], Returning::HEAD);
            let result =
                self.env.timeout_at(deadline.max(self.env.now() + Duration::from_secs(1)), self.try_commit(&commit)).await;
            if !matches!(result, Ok(Ok(_))) {
                tracing::debug!("the server's row could not be retired; it dies of age");
            }
        }
        not_saved
    }

    /// Stops everything at once, like a crash: nothing is saved.
    pub(crate) fn abandon(&self) {
        self.closing.store(true, Ordering::SeqCst);
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        // Sessions hold the engine, which must not hold them for ever. Dropped outside of the lock.
        let slots = std::mem::take(&mut *self.slots.lock());
        drop(slots);
    }
}

/// Waiting times between attempts: they double from 1 s to the longest pause.
#[derive(Debug, Default)]
pub(crate) struct Backoff(u32);

impl Backoff {
    pub(crate) fn next(&mut self, most: Duration) -> Duration {
        let pause = Duration::from_secs(1 << self.0.min(5)).min(most);
        self.0 += 1;
        pause
    }
}

/// True when the store holds something else than the commit was built on, so that it is worth building it anew.
pub(crate) fn lost_race(error: &StoreError) -> bool {
    matches!(
        error.conflict(),
        Some(
            ConflictKind::Epoch
                | ConflictKind::Version
                | ConflictKind::Lease
                | ConflictKind::InboxRevision
                | ConflictKind::MessageGone
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_limit() {
        let mut backoff = Backoff::default();
        let most = Duration::from_secs(20);
        let seconds: Vec<u64> = (0..7).map(|_| backoff.next(most).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 20, 20]);
    }
}
