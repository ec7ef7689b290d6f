//! Starting a session: from the call to the live profile, through conflicts, outages and callers that go away.
//!
//! There is at most one load a key on this server. A later call takes over the load's claim, so of several calls only the last
//! one gets the profile. The load is a task of its own: when nobody claims its outcome any more it cleans up after itself.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::{
    Backoff, Engine, Slot,
    options::{DecideHeld, StartOptions as Wish, WhenHeld},
    queue::Answer,
    standing::StandingError,
};
use crate::{
    data::{Codec, Data, encode},
    data_store::{Cause, Change, ConflictKind, DataStoreExt, Incarnation, KeyState, NewValue, RequestId, Returning},
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    ownership::{self, Asker, Start, Take},
    record::{Record, Stored},
    session::{
        Session, Taken,
        info::{SessionEnd, SessionInfo},
    },
};

/// How often a waiting start asks whether it is still wanted.
const CLAIM_CHECK: Duration = Duration::from_millis(100);

/// Asks the program's function. One that panics has nobody who still wants the session.
fn says_cancelled(cancel: &(dyn Fn() -> bool + Send + Sync)) -> bool {
    catch_unwind(AssertUnwindSafe(cancel)).unwrap_or_else(|_| {
        tracing::error!("a cancel function panicked; its start is called off");
        true
    })
}

/// Asks the program's function. One that panics does not want to wait.
fn says_when_held(decide: &DecideHeld, holder: &SessionInfo) -> WhenHeld {
    catch_unwind(AssertUnwindSafe(|| decide(holder))).unwrap_or_else(|_| {
        tracing::error!("a function that decides about held profiles panicked; its start is called off");
        WhenHeld::GiveUp
    })
}

/// One key being loaded.
pub(crate) struct Load {
    key: ProfileKey,
    request: RequestId,
    session: String,
    claim: Mutex<Option<Claim>>,
    wake: Arc<Notify>,
}

/// Who gets the outcome.
struct Claim {
    wish: Wish,
    codec: Arc<dyn Codec>,
    since: Instant,
    reply: oneshot::Sender<Result<Arc<Session>>>,
}

/// What one look at the store came to.
enum Attempt {
    /// The profile is ours.
    Taken(Box<Taken>),
    /// Our request has just been written: look again after this long at the latest.
    Asked(Duration),
    /// Our request waits for an answer: look again after this long at the latest.
    Wait(Duration),
    /// The store does not answer.
    Outage,
    Failed(Error),
}

impl Engine {
    /// Starts a session; the answer comes when the profile is live, or with the reason why not.
    pub(crate) fn start_session(
        self: &Arc<Self>,
        key: &ProfileKey,
        codec: Arc<dyn Codec>,
        wish: Wish,
    ) -> impl Future<Output = Result<Arc<Session>>> + Send + 'static + use<> {
        let key = key.clone();
        let claimed = self.claim(&key, codec, wish);
        async move {
            claimed?
                .await
                .unwrap_or_else(|_| Err(Error::new(ErrorKind::Unknown, "the start was broken off; see the log").about(&key)))
        }
    }

    fn claim(
        self: &Arc<Self>,
        key: &ProfileKey,
        codec: Arc<dyn Codec>,
        wish: Wish,
    ) -> Result<oneshot::Receiver<Result<Arc<Session>>>> {
        self.check_open(key)?;
        let (reply, answer) = oneshot::channel();
        let claim = Claim { wish, codec, since: self.env.now(), reply };
        let mut slots = self.slots.lock();
        match slots.get(key) {
            Some(Slot::Live(session)) if !session.is_over() => {
                return Err(Error::new(ErrorKind::AlreadyLoaded, "the profile is loaded on this server already").about(key));
            }
            Some(Slot::Loading(load)) => {
                if let Some(earlier) = load.claim.lock().replace(claim) {
                    let error =
                        Error::new(ErrorKind::Superseded, "a later start on this server took this one's place").about(key);
                    let _ = earlier.reply.send(Err(error));
                }
                load.wake.notify_one();
                return Ok(answer);
            }
            _ => {}
        }
        let load = Arc::new(Load {
            key: key.clone(),
            request: RequestId(self.env.uuid()),
            session: self.env.uuid().to_string(),
            claim: Mutex::new(Some(claim)),
            wake: Arc::new(Notify::new()),
        });
        slots.insert(key.clone(), Slot::Loading(load.clone()));
        drop(slots);
        self.waiters.lock().insert(key.clone(), load.wake.clone());
        self.runtime.spawn(load.run(self.clone()));
        Ok(answer)
    }
}

impl Load {
    async fn run(self: Arc<Self>, engine: Arc<Engine>) {
        let began = engine.env.now();
        let mut backoff = Backoff::default();
        let mut asked_at = None;
        loop {
            if let Some(error) = self.called_off(&engine) {
                return self.give_up(&engine, error, asked_at.is_some(), None).await;
            }
            let attempt = match self.clone().queue_attempt(&engine, asked_at) {
                Ok(attempt) => attempt,
                Err(error) => return self.give_up(&engine, error, asked_at.is_some(), None).await,
            };
            let mut answer = Box::pin(attempt.wait());
            let attempt = loop {
                tokio::select! {
                    biased;
                    attempt = &mut answer => break attempt.unwrap_or_else(Attempt::Failed),
                    () = tokio::time::sleep(CLAIM_CHECK) => if let Some(error) = self.called_off(&engine) {
                        // The caller need not wait for an outage to end; the attempt must be seen through.
                        return self.give_up(&engine, error, true, Some(answer)).await;
                    }
                }
            };
            let (period, failed) = match attempt {
                Attempt::Taken(taken) => return self.deliver(&engine, *taken, began).await,
                Attempt::Failed(error) => return self.give_up(&engine, error, asked_at.is_some(), None).await,
                Attempt::Outage => (backoff.next(engine.longest_pause(engine.is_closing())), true),
                Attempt::Asked(at_most) => {
                    asked_at = Some(engine.env.now());
                    (engine.settings().first_load_repeat.min(at_most), false)
                }
                Attempt::Wait(at_most) => (engine.settings().load_repeat_period.min(at_most), false),
            };
            if !failed {
                backoff = Backoff::default();
            }
            self.wait(&engine, period).await;
        }
    }

    /// Waits for a hint, a new claim, or the period's end; returns early when the start is no longer wanted.
    async fn wait(&self, engine: &Engine, period: Duration) {
        let until = engine.env.after(period);
        while engine.env.now() < until && self.called_off(engine).is_none() {
            let next = until.min(engine.env.now() + CLAIM_CHECK);
            tokio::select! {
                biased;
                () = self.wake.notified() => return,
                () = engine.env.sleep_until(next) => {}
            }
        }
    }

    /// Why the start is no longer wanted, if so.
    fn called_off(&self, engine: &Engine) -> Option<Error> {
        let settings = engine.settings();
        if engine.is_closing() {
            return Some(Error::new(ErrorKind::Closing, "this game server is shutting down").about(&self.key));
        }
        let (cancel, since, timeout) = {
            let claim = self.claim.lock();
            let claim = claim.as_ref()?;
            if claim.reply.is_closed() {
                return Some(Error::new(ErrorKind::Cancelled, "the caller has gone").about(&self.key));
            }
            (claim.wish.cancel.clone(), claim.since, claim.wish.timeout.unwrap_or(settings.start_session_timeout))
        };
        match cancel {
            // The program's function must not run under our lock.
            Some(cancel) => says_cancelled(&*cancel).then(|| {
                Error::new(ErrorKind::Cancelled, "the session is no longer needed, says the cancel function").about(&self.key)
            }),
            None => (engine.env.now().saturating_duration_since(since) >= timeout)
                .then(|| Error::new(ErrorKind::TimedOut, "the session could not be started in time").about(&self.key)),
        }
    }

    /// Leaves the slot to whoever comes next. The claim, if somebody still holds it.
    fn leave(self: &Arc<Self>, engine: &Engine, becomes: Option<&Arc<Session>>) -> Option<Claim> {
        let mut slots = engine.slots.lock();
        if let Some(Slot::Loading(other)) = slots.get(&self.key)
            && Arc::ptr_eq(other, self)
        {
            match becomes {
                Some(session) => slots.insert(self.key.clone(), Slot::Live(session.clone())),
                None => slots.remove(&self.key),
            };
        }
        let claim = self.claim.lock().take();
        drop(slots);
        let mut waiters = engine.waiters.lock();
        if waiters.get(&self.key).is_some_and(|other| Arc::ptr_eq(other, &self.wake)) {
            waiters.remove(&self.key);
        }
        claim
    }

    /// Tells the caller, then removes what the start has left in the store.
    async fn give_up(
        self: Arc<Self>,
        engine: &Arc<Engine>,
        error: Error,
        asked: bool,
        under_way: Option<std::pin::Pin<Box<dyn Future<Output = Result<Attempt>> + Send>>>,
    ) {
        tracing::debug!(key = %self.key, %error, "a session was not started");
        let kind = format!("{:?}", error.kind());
        metrics::counter!("profilestore_starts_failed_total", "kind" => kind).increment(1);
        if let Some(claim) = self.leave(engine, None) {
            let _ = claim.reply.send(Err(error));
        }
        if let Some(attempt) = under_way
            && let Ok(Attempt::Taken(taken)) = attempt.await
        {
            let _ = Session::new(engine.clone(), *taken).finish(SessionEnd::Manual).await;
            return;
        }
        if asked {
            let load = self.clone();
            let withdrawing = engine.clone();
            if let Ok(done) = engine.queues.run(&self.key, usize::MAX, async move { load.withdraw(&withdrawing).await }) {
                let _ = done.wait().await;
            }
        }
    }

    /// Takes our request, or the offer that answered it, out of the lease.
    async fn withdraw(&self, engine: &Arc<Engine>) {
        for _ in 0..super::MAX_RACES {
            let contents = engine.contents();
            let Ok((_, state)) = engine.read_settled(&self.key, Returning::HEAD).await else { return };
            let Some(change) = ownership::withdrawn(&state, self.request) else { return };
            let commit = engine.commit_in(contents, vec![change], Returning::HEAD);
            let deadline = engine.env.after(engine.settings().call_timeout);
            match engine.settle(&commit, |at| at > deadline).await {
                Err(error) if super::lost_race(&error) => {}
                // Left to expire by itself if it could not be withdrawn.
                _ => return,
            }
        }
    }

    /// The profile is ours: hands it to whoever claims it.
    async fn deliver(self: Arc<Self>, engine: &Arc<Engine>, mut taken: Taken, began: Instant) {
        // A later call may have come with another store object, hence another type.
        let codec = self.claim.lock().as_ref().map(|claim| claim.codec.clone());
        if let Some(codec) = codec.filter(|codec| !Arc::ptr_eq(codec, &taken.codec)) {
            let decoded = catch_unwind(AssertUnwindSafe(|| codec.open(&taken.record))).unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Undecodable, "the stored data does not fit the program's type: its decoder panicked"))
            });
            match decoded {
                Ok(data) => (taken.data, taken.codec) = (data, codec),
                Err(error) => {
                    let session = Session::new(engine.clone(), taken);
                    let error = error.about(&self.key);
                    let _ = session.finish(SessionEnd::Manual).await;
                    return self.give_up(engine, error, false, None).await;
                }
            }
        }
        let asked = matches!(ownership::held(&taken.state, taken.state.epoch), ownership::Held::Asked(_));
        let session = Session::new(engine.clone(), taken);
        // Before the program sees the data.
        session.apply_edits();
        let claim = self.leave(engine, Some(&session));
        if engine.server() != session.known.lock().held_by {
            // A new incarnation of this server began meanwhile, and adopted the sessions that it saw.
            session.queue_adopt();
        }
        let delivered = claim.is_some_and(|claim| {
            let wanted = !claim.wish.cancel.is_some_and(|cancel| says_cancelled(&*cancel));
            if wanted {
                claim.reply.send(Ok(session.clone())).is_ok()
            } else {
                let error = Error::new(ErrorKind::Cancelled, "the session is no longer needed, says the cancel function");
                let _ = claim.reply.send(Err(error.about(&self.key)));
                false
            }
        });
        if !delivered || engine.is_closing() {
            let _ = session.finish(if delivered { SessionEnd::Shutdown } else { SessionEnd::Manual }).await;
            return;
        }
        let took = engine.env.now().saturating_duration_since(began);
        metrics::counter!("profilestore_sessions_started_total").increment(1);
        metrics::histogram!("profilestore_start_seconds").record(took.as_secs_f64());
        metrics::gauge!("profilestore_sessions").set(engine.slots.lock().len() as f64);
        tracing::debug!(key = %session.key, load_count = session.load_count, ?took, "a session started");
        engine.autosave.add(&session, engine.env.now(), engine.settings().autosave_period);
        // A hint or a notice that came before the session had its slot reached only the load.
        let hinted = self.wake.notified().now_or_never().is_some();
        if asked || hinted {
            session.queue_look();
        }
    }

    fn queue_attempt(self: Arc<Self>, engine: &Arc<Engine>, asked_at: Option<Instant>) -> Result<Answer<Attempt>> {
        let settings = engine.settings();
        let key = self.key.clone();
        let engine_ = engine.clone();
        engine.queues.run(&key, settings.max_key_queue, async move {
            match self.attempt(&engine_, asked_at).await {
                Ok(attempt) => attempt,
                // A backup was restored, and this server has yet to register in it.
                Err(error) if error.kind() == ErrorKind::Replaced => Attempt::Outage,
                Err(error) => Attempt::Failed(error.about(&self.key)),
            }
        })
    }

    /// Looks at the store and does what the rules say.
    async fn attempt(&self, engine: &Arc<Engine>, asked_at: Option<Instant>) -> Result<Attempt> {
        // Each look brings the value along: mostly the profile is free, or has just been let go.
        for _ in 0..super::MAX_RACES {
            let Some((wish, codec)) = self.claim.lock().as_ref().map(|claim| (claim.wish.clone(), claim.codec.clone())) else {
                return Err(Error::new(ErrorKind::Cancelled, "the start was called off"));
            };
            let contents = engine.contents();
            let sent = engine.env.now();
            let (now_ms, state) = match engine.store.read_one(&self.key, Returning::ALL).await {
                Ok(read) => {
                    // The clock that is about to be judged by may have stepped since the last renewal.
                    if !defect!(StepNoticedLate) {
                        engine.observe(sent, read.0);
                    }
                    read
                }
                Err(error) => {
                    engine.note_error(&error, Some(&self.key));
                    return if error.is_transient() { Ok(Attempt::Outage) } else { Err(error.into()) };
                }
            };
            let now_ms = if defect!(CallersClockTrusted) { engine.env.unix_ms() } else { now_ms };
            let mut asker = Asker {
                server: engine.server(),
                place_id: engine.place_id,
                job_id: engine.job_id.clone(),
                session: self.session.clone(),
                request: self.request,
                asked_for: asked_at.map(|at| engine.env.now().saturating_duration_since(at)),
                steal: wish.steal,
            };
            let mut next = ownership::start(&state, now_ms, engine.contact(), &asker, &engine.periods());
            if let (Start::Ask | Start::Wait(_) | Start::TakenElsewhere, Some(decide), Some(holder)) =
                (&next, &wish.when_held, &state.lease.holder)
            {
                match says_when_held(&**decide, &SessionInfo::from(holder)) {
                    WhenHeld::Ask => {}
                    WhenHeld::Wait => return Ok(Attempt::Wait(engine.settings().load_repeat_period)),
                    WhenHeld::GiveUp => {
                        let message = "the profile is held, and the start is not to wait for it";
                        return Err(Error::new(ErrorKind::Cancelled, message));
                    }
                    WhenHeld::Steal => {
                        asker.steal = true;
                        next = ownership::start(&state, now_ms, engine.contact(), &asker, &engine.periods());
                    }
                }
            }
            match next {
                Start::Wait(at_most) => {
                    engine.health.foreign(&self.key, &state.lease, true);
                    return Ok(Attempt::Wait(at_most));
                }
                Start::TakenElsewhere => {
                    return Err(Error::new(
                        ErrorKind::TakenElsewhere,
                        "another server asked for the profile later, so it gets it",
                    ));
                }
                Start::Ask => {
                    if self.ask(engine, contents, &state, &asker, now_ms).await? {
                        engine.health.foreign(&self.key, &state.lease, true);
                        return Ok(Attempt::Asked(ownership::patience(
                            state,
                            now_ms,
                            engine.contact(),
                            asker,
                            &engine.periods(),
                        )));
                    }
                }
                Start::Take(how) => {
                    if let Some(attempt) = self.take(engine, contents, state, &asker, how, now_ms, codec, &wish).await? {
                        return Ok(attempt);
                    }
                }
            }
        }
        // A lively key: not an outage, but better left alone for a moment.
        Ok(Attempt::Outage)
    }

    /// Writes our request. False when the lease changed meanwhile.
    async fn ask(
        &self,
        engine: &Arc<Engine>,
        contents: Incarnation,
        state: &KeyState,
        asker: &Asker,
        now_ms: i64,
    ) -> Result<bool> {
        let commit = engine.commit_in(contents, vec![ownership::asked(state, asker, now_ms)], Returning::HEAD);
        let holder = state.lease.holder.as_ref().and_then(|holder| holder.server);
        match engine.settle_for(holder, &self.key, &commit, |_| engine.is_closing()).await {
            Ok(_) => Ok(true),
            Err(error) if engine.overtaken(&error).await => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the profile. None when the store holds something else by now.
    #[expect(clippy::too_many_arguments, reason = "one look at the store, spread out")]
    async fn take(
        &self,
        engine: &Arc<Engine>,
        contents: Incarnation,
        state: KeyState,
        asker: &Asker,
        how: Take,
        now_ms: i64,
        codec: Arc<dyn Codec>,
        wish: &Wish,
    ) -> Result<Option<Attempt>> {
        // Before the commit, so that a profile that cannot be opened is not locked either.
        let mut found = Found::read(&state, &*codec, wish, engine.env.unix_ms())?;
        let mut born = Vec::new();
        if found.write {
            match found.edit(engine, &state, &*codec).await {
                Ok(changes) => born = changes,
                Err(StandingError::Store(error)) => {
                    engine.note_error(&error, Some(&self.key));
                    return if error.is_transient() { Ok(Some(Attempt::Outage)) } else { Err(error.into()) };
                }
                Err(StandingError::Other(error)) => return Err(error),
            }
        }
        let mut changes = vec![ownership::taken(&state, how, asker, now_ms)];
        // Whoever loses the profile may have saved since we looked, or have a save under way: only a write says which version it is
        // built on. Nobody can write a profile that was let go.
        let taken_over = matches!(how, Take::Dead | Take::Stolen) && !defect!(TakeOverUnversioned);
        let write = found.write || ((taken_over || engine.settings().keep_every_save) && found.write_each);
        if write {
            changes.push(Change::Write {
                key: self.key.clone(),
                epoch: state.epoch,
                version: state.version,
                value: NewValue::Bytes(found.bytes.clone()),
                user_ids: found.record.user_ids.clone(),
                cause: Cause::Start,
                author: engine.job_id.clone(),
                keep_previous: found.overwrites || engine.settings().keep_every_save,
                seal: false,
                imported: None,
            });
        } else {
            changes.push(Change::Check { key: self.key.clone(), epoch: state.epoch });
        }
        if let (Take::Dead, Some(row)) = (how, &state.holder_server) {
            changes.push(Change::MarkDead { id: row.id, revision: row.revision });
        }
        changes.extend(born);
        let held_by = asker.server;
        let commit = engine.commit_in(contents, changes, Returning::INBOX);
        if commit.from != Some(held_by) {
            // A new incarnation of this server began meanwhile.
            return Ok(None);
        }
        match engine.settle(&commit, |_| false).await {
            Ok(mut reply) => {
                let Some(now) = reply.states.drain(..).find(|now| now.key == self.key) else {
                    return Err(Error::new(ErrorKind::Corrupt, "the store's reply says nothing about the profile"));
                };
                if now.epoch != state.epoch + 1 && !defect!(LateAnswerBelieved) {
                    // Applied by an earlier attempt whose answer was lost, and taken away since.
                    return Ok(None);
                }
                self.tell(engine, how, &state);
                if found.overwrites {
                    engine.health.overwritten(&self.key);
                }
                let saved_since = now.version != state.version + u64::from(write);
                let mut taken = Taken {
                    key: self.key.clone(),
                    id: self.session.clone(),
                    held_by,
                    incarnation: commit.incarnation,
                    state: now,
                    record: found.record,
                    stored: found.bytes,
                    data: found.data,
                    codec,
                    autosave_period: wish.autosave_period,
                };
                if saved_since && let Err(error) = self.read_again(engine, &mut taken, wish).await {
                    // Releases it as it is stored, behind the turn in the key's queue that this runs in.
                    drop(Session::new(engine.clone(), taken).finish(SessionEnd::Manual));
                    return Err(error);
                }
                Ok(Some(Attempt::Taken(Box::new(taken))))
            }
            Err(error) if error.conflict() == Some(&ConflictKind::Server) || engine.overtaken(&error).await => {
                if found.write {
                    // Perhaps it was the list of what stands that had changed.
                    engine.forget_standing(self.key.store());
                }
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The one it was taken from saved between our look and our commit: what he saved counts. Nobody but us can write any more.
    async fn read_again(&self, engine: &Arc<Engine>, taken: &mut Taken, wish: &Wish) -> Result<()> {
        let (_, state) = engine.read_settled(&self.key, Returning::ALL).await?;
        if state.epoch != taken.state.epoch {
            // Taken from us already, which the session will find out.
            return Ok(());
        }
        let found = Found::read(&state, &*taken.codec, wish, engine.env.unix_ms())?;
        if found.write {
            return Err(Error::new(ErrorKind::Foreign, "what is stored was replaced by something that is not a profile"));
        }
        (taken.record, taken.stored, taken.data, taken.state) = (found.record, found.bytes, found.data, state);
        Ok(())
    }

    fn tell(&self, engine: &Engine, how: Take, before: &KeyState) {
        let how_word = match how {
            Take::Free => "free",
            Take::Offered => "offered",
            Take::Own => "own",
            Take::Dead => "dead",
            Take::Stolen => "stolen",
        };
        metrics::counter!("profilestore_takes_total", "how" => how_word).increment(1);
        if matches!(how, Take::Dead | Take::Stolen) {
            let from = before.lease.holder.as_ref().map_or("", |holder| holder.job_id.as_str());
            tracing::info!(key = %self.key, from, how = how_word, by = %engine.job_id, "a profile was taken over");
        }
    }
}

/// What a start found in the store, made ready to be taken.
struct Found {
    record: Record,
    bytes: Bytes,
    data: Arc<dyn Data>,
    /// A version must be written with the start: the profile is new, or replaces something that is none.
    write: bool,
    /// A version is written with the start when every save is kept, and when the profile is taken from somebody.
    write_each: bool,
    overwrites: bool,
}

impl Found {
    fn read(state: &KeyState, codec: &dyn Codec, wish: &Wish, now_ms: i64) -> Result<Self> {
        let bytes = match (&state.value, state.exists()) {
            (Some(bytes), true) => bytes,
            _ => return Self::new_profile(codec, now_ms, false),
        };
        let foreign = |why: String| {
            if wish.overwrite {
                Self::new_profile(codec, now_ms, true)
            } else {
                Err(Error::new(
                    ErrorKind::Foreign,
                    format!("what is stored is not a profile ({why}); it is left alone unless you ask to overwrite it"),
                ))
            }
        };
        match Stored::decode(bytes) {
            Ok(Stored::Profile(record)) => {
                let data = codec.open(&record)?;
                Ok(Self { bytes: bytes.clone(), data, record, write: false, write_each: true, overwrites: false })
            }
            Ok(Stored::MessagesOnly(_)) => Self::new_profile(codec, now_ms, false),
            Ok(Stored::Foreign(_)) => foreign("a value of another kind".into()),
            Err(error) => foreign(error.to_string()),
        }
    }

    /// Applies the edits that stand to a profile that is about to be created. Answers with what that adds to the commit.
    async fn edit(&mut self, engine: &Engine, state: &KeyState, codec: &dyn Codec) -> Result<Vec<Change>, StandingError> {
        let newborn = engine.newborn(state, &self.record, &self.data, codec).await?;
        if newborn.applied > 0 {
            self.bytes = encode(&*newborn.data, &self.record)?;
            self.record.data = newborn
                .data
                .to_json()
                .map_err(|error| Error::new(ErrorKind::Invalid, "the edited data cannot be stored as JSON").caused_by(error))?;
            self.data = newborn.data;
        }
        Ok(newborn.changes)
    }

    fn new_profile(codec: &dyn Codec, now_ms: i64, overwrites: bool) -> Result<Self> {
        let data = codec.template()?;
        let json = data
            .to_json()
            .map_err(|error| Error::new(ErrorKind::Invalid, "the template cannot be stored as JSON").caused_by(error))?;
        let mut record = Record::new(now_ms.div_euclid(1000), json);
        codec.stamp(&mut record);
        let bytes = encode(&*data, &record)?;
        Ok(Self { record, bytes, data, write: true, write_each: true, overwrites })
    }
}
