//! Starting a session: from the call to the live profile, through conflicts, outages and callers
//! that go away.
//!
//! There is at most one load a key on this server; [`super::claims`] says which call gets its
//! outcome.
//!
//! Every claim puts an attempt of its own into the key's queue when the call is made, so a start
//! sees what was called before it and not what was called after it. The load itself is a task: it
//! waits, repeats, and when no claim is left it cleans up after itself.

use std::{sync::Arc, thread, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{sync::oneshot, time::Instant};

use super::{
    Engine,
    behind::Place,
    claims::{Attempt, Claim, Load, Started, Terms, count_failed, refusal},
    options::StartOptions,
    table::Slot,
};
use crate::{
    audit::order_id,
    data::Codec,
    data_store::RequestId,
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    link::{
        commit::Backoff,
        queue::{Answer, runtime_gone},
    },
    session::{Session, info::SessionEnd, remote::Remote},
};

mod ending;

/// How often a waiting start asks whether it is still wanted.
const CLAIM_CHECK: Duration = Duration::from_millis(100);

impl Engine {
    /// Starts a session; the answer comes when the profile is live, or with the reason why not.
    pub(crate) fn start_session(
        self: &Arc<Self>,
        key: &ProfileKey,
        codec: Arc<dyn Codec>,
        options: StartOptions,
    ) -> impl Future<Output = Result<Arc<Session>>> + Send + 'static + use<> {
        let (since, options) = (self.link.env.now(), options.in_range());
        let first = self.claim_in_place(key, &codec, &options, since, None);
        // Taken at the call: the order of the calls counts, and not that in which they go on.
        let place = matches!(first, Ok(Claimed::After(..))).then(|| self.starts_behind.wait(key));
        let (engine, key) = (self.clone(), key.clone());
        async move {
            let mut claimed = first?;
            let mut started = loop {
                match claimed {
                    Claimed::Yes(started) => break started,
                    Claimed::After(session, ended) => {
                        let ended = engine.behind(&key, &options, since, ended).await?;
                        if !session.is_over() {
                            ended?;
                        }
                        let place = place.as_ref();
                        claimed = engine.claim_in_place(&key, &codec, &options, since, place)?;
                    }
                }
            };
            drop((engine, codec, options, place));
            let answer = (&mut started.answer).await;
            answer.unwrap_or_else(|_| Err(broken_off().about(&started.load.key)))
        }
    }

    /// Waits for an end that comes before a start, for as long as the start is wanted.
    async fn behind(
        &self,
        key: &ProfileKey,
        options: &StartOptions,
        since: Instant,
        mut ended: BoxFuture<'static, Result<()>>,
    ) -> Result<Result<()>> {
        loop {
            tokio::select! {
                biased;
                ended = &mut ended => return Ok(ended),
                () = tokio::time::sleep(CLAIM_CHECK) => {
                    if let Some(error) = refusal(&self.link, options, since) {
                        count_failed(key, &error);
                        return Err(error.about(key));
                    }
                }
            }
        }
    }

    /// The session of a hosted game server that has asked for its end, and the turn behind that
    /// end.
    fn behind_asked_end(&self, key: &ProfileKey) -> Option<Claimed> {
        let is_ending = |session: &Arc<Session>| {
            !session.is_over() && session.remote.as_deref().is_some_and(Remote::is_ending)
        };
        let session = self.table.live(key).filter(is_ending)?;
        let turn = self.link.queues.run(key, self.link.settings().max_key_queue, async {});
        Some(Claimed::After(session, async move { turn?.wait().await }.boxed()))
    }

    /// Claims a load of the key; ends this server's own session first, if that is to be superseded.
    /// `place`: of a start that had to wait.
    fn claim_in_place(
        self: &Arc<Self>,
        key: &ProfileKey,
        codec: &Arc<dyn Codec>,
        options: &StartOptions,
        since: Instant,
        place: Option<&Place>,
    ) -> Result<Claimed> {
        self.link.check_open(key)?;
        loop {
            if let Some(after) = self.behind_asked_end(key) {
                return Ok(after);
            }
            if options.supersede
                && let Some(session) = self.table.live(key).filter(|session| !session.is_over())
            {
                same_type(key, &*session.codec, &**codec)?;
                // Nothing is to end for a start that is called off already, or has given way.
                let overtaken = place.is_some_and(Place::is_overtaken).then(superseded);
                if let Some(error) = overtaken.or_else(|| refusal(&self.link, options, since)) {
                    count_failed(key, &error);
                    return Err(error.about(key));
                }
                let ended = session.finish(SessionEnd::Superseded);
                if !session.is_over() {
                    // Its last hooks run on another thread, or the end was refused.
                    return Ok(Claimed::After(session, ended.boxed()));
                }
            }
            match self.claim(key, codec, options, since, place) {
                // Another start was faster.
                Err(error) if options.supersede && error.kind() == ErrorKind::AlreadyLoaded => {}
                claimed => return claimed.map(Claimed::Yes),
            }
        }
    }

    fn claim(
        self: &Arc<Self>,
        key: &ProfileKey,
        codec: &Arc<dyn Codec>,
        options: &StartOptions,
        since: Instant,
        place: Option<&Place>,
    ) -> Result<Started> {
        let mut slots = self.table.slots.lock();
        let load = match slots.get(key) {
            Some(Slot::Live(session)) if !session.is_over() => {
                same_type(key, &*session.codec, &**codec)?;
                let message = "the profile is loaded on this server already";
                return Err(Error::new(ErrorKind::AlreadyLoaded, message).about(key));
            }
            _ if place.is_some_and(Place::is_overtaken) => {
                drop(slots);
                let error = superseded();
                count_failed(key, &error);
                return Err(error.about(key));
            }
            Some(Slot::Loading(load)) => {
                let load = load.clone();
                let (started, earlier) = load.claim(self, codec, options, since)?;
                self.note_claimed(key, place);
                drop(slots);
                load.note_gone();
                load.wake.notify_one();
                if let Some(earlier) = earlier {
                    load.answer_refused(earlier, superseded());
                }
                return Ok(started);
            }
            other => {
                let before = match other {
                    Some(Slot::Live(closed)) => Some(closed.clone()),
                    _ => None,
                };
                let order = options.operation.map(order_id).or(options.identity);
                let id = || order.unwrap_or_else(|| self.link.env.uuid());
                Load::new(key, RequestId(id()), id().to_string(), before)
            }
        };
        let (started, _) = load.claim(self, codec, options, since)?;
        slots.insert(key.clone(), Slot::Loading(load.clone()));
        self.note_claimed(key, place);
        drop(slots);
        self.table.waiters.lock().insert(key.clone(), load.wake.clone());
        let running = Running { engine: self.clone(), load: load.clone() };
        self.link.runtime.spawn(async move { running.load.clone().run(&running.engine).await });
        Ok(started)
    }

    /// A start has claimed its load, under the lock of the slots: those that wait, and were called
    /// before it, find that when they look there.
    fn note_claimed(&self, key: &ProfileKey, place: Option<&Place>) {
        match place {
            Some(place) => place.note_claimed(),
            None => self.starts_behind.pass(key),
        }
    }
}

fn superseded() -> Error {
    Error::new(ErrorKind::Superseded, "a later start on this server took this one's place")
}

fn broken_off() -> Error {
    Error::new(ErrorKind::Unknown, "the start was broken off; see the log")
}

/// Ends a load in any case, also when it panics or its runtime goes away.
struct Running {
    engine: Arc<Engine>,
    load: Arc<Load>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let left = {
            let mut slots = self.engine.table.slots.lock();
            self.load.forget_slot(&mut slots);
            self.load.claims.lock().current.take()
        };
        self.load.note_gone();
        self.load.forget_waiter(&self.engine.table);
        if let Some(claim) = left {
            let error = if thread::panicking() { broken_off() } else { runtime_gone() };
            let _ = claim.reply.send(Err(error.about(&self.load.key)));
        }
    }
}

/// What a start comes to at first.
enum Claimed {
    Yes(Started),
    /// This session's end comes first; it is under way.
    After(Arc<Session>, BoxFuture<'static, Result<()>>),
}

/// How a wait for an attempt or a hint went on.
enum Next {
    /// Try again at once.
    Again,
    /// Wait for a hint to this claim, at most so long.
    Wait(u64, Duration),
    /// The profile is delivered.
    Delivered,
}

impl Load {
    /// Puts a call in the place of the one before it, and its attempt into the key's queue.
    fn claim(
        self: &Arc<Self>,
        engine: &Arc<Engine>,
        codec: &Arc<dyn Codec>,
        options: &StartOptions,
        since: Instant,
    ) -> Result<(Started, Option<Claim>)> {
        let mut claims = self.claims.lock();
        if let Some(earlier) = &claims.current {
            same_type(&self.key, &*earlier.terms.codec, &**codec)?;
        }
        let number = claims.count + 1;
        // The lock is held until the claim is there for the attempt to find.
        let attempt = self.queue_attempt(engine, number)?;
        claims.attempts.push_back((number, attempt));
        let terms = Terms { number, options: options.clone(), codec: codec.clone(), since };
        let (reply, answer) = oneshot::channel();
        claims.count = number;
        let earlier = claims.current.replace(Claim { terms, reply });
        drop(claims);
        Ok((Started { load: self.clone(), number, answer }, earlier))
    }

    fn queue_attempt(
        self: &Arc<Self>,
        engine: &Arc<Engine>,
        number: u64,
    ) -> Result<Answer<Attempt>> {
        let limit = engine.link.settings().max_key_queue;
        engine.link.queues.run(&self.key, limit, self.clone().in_turn(engine.clone(), number))
    }

    /// An attempt's turn. What it needs is made in its turn, and not before: attempts of starts
    /// that were called off wait too.
    async fn in_turn(self: Arc<Self>, engine: Arc<Engine>, number: u64) -> Attempt {
        match Box::pin(self.attempt(&engine, number)).await {
            Ok(attempt) => attempt,
            // A backup was restored, and this server has yet to register in it.
            Err(error) if error.kind() == ErrorKind::Replaced => Attempt::Outage,
            Err(error) => Attempt::Failed(error),
        }
    }

    async fn run(self: Arc<Self>, engine: &Arc<Engine>) {
        let mut backoff = Backoff::default();
        // What was taken and not delivered yet.
        let mut taken = None;
        loop {
            let next = match self.next_attempt() {
                Some((number, answer)) => {
                    self.serve(engine, number, answer, &mut taken, &mut backoff).await
                }
                None => match self.terms() {
                    Some(terms) => self.try_again(engine, terms.number),
                    None if self.leave(engine, &mut taken) => return self.withdraw(engine).await,
                    None => Next::Again,
                },
            };
            match next {
                Next::Again => {}
                Next::Wait(number, period) => self.wait(engine, number, period).await,
                Next::Delivered => return,
            }
        }
    }

    /// Queues another attempt for a claim that is still wanted.
    fn try_again(self: &Arc<Self>, engine: &Arc<Engine>, number: u64) -> Next {
        if !self.judge(&engine.link, number) {
            let mut claims = self.claims.lock();
            match self.queue_attempt(engine, number) {
                Ok(attempt) => claims.attempts.push_back((number, attempt)),
                Err(error) => {
                    drop(claims);
                    self.refuse(number, error);
                }
            }
        }
        Next::Again
    }

    /// Sees an attempt for a claim through.
    async fn serve(
        self: &Arc<Self>,
        engine: &Arc<Engine>,
        number: u64,
        answer: Answer<Attempt>,
        taken: &mut Option<Arc<Session>>,
        backoff: &mut Backoff,
    ) -> Next {
        let attempt = self.see_through(engine, answer).await;
        if !matches!(attempt, Attempt::Outage) {
            *backoff = Backoff::default();
        }
        match attempt {
            Attempt::Taken(found) => {
                // One that was taken for an earlier claim has no claim to the profile any more:
                // this one took it over.
                *taken = Some(engine.session(*found));
                if self.deliver(engine, number, taken) { Next::Delivered } else { Next::Again }
            }
            Attempt::Failed(error) => {
                self.refuse(number, error);
                Next::Again
            }
            Attempt::Stale => {
                if defect!(RefusalOfAnotherStart)
                    && let Some(terms) = self.terms()
                {
                    let error = Error::new(ErrorKind::Cancelled, "the caller has gone");
                    self.refuse(terms.number, error);
                }
                Next::Again
            }
            Attempt::Outage => Next::Wait(
                number,
                backoff.next(engine.link.longest_pause(engine.link.is_closing())),
            ),
            Attempt::Asked(at_most) => {
                Next::Wait(number, engine.link.settings().first_load_repeat.min(at_most))
            }
            Attempt::Wait(at_most) => {
                Next::Wait(number, engine.link.settings().load_repeat_period.min(at_most))
            }
        }
    }

    /// Waits for an attempt's outcome. Callers need not wait for an outage to end: a claim that is
    /// called off meanwhile is refused at once, and the attempt is seen through for the next one,
    /// or to clean up.
    async fn see_through(&self, engine: &Arc<Engine>, answer: Answer<Attempt>) -> Attempt {
        let mut answer = Box::pin(answer.wait());
        loop {
            tokio::select! {
                biased;
                attempt = &mut answer => return attempt.unwrap_or_else(Attempt::Failed),
                () = tokio::time::sleep(CLAIM_CHECK) => {
                    if let Some(terms) = self.terms() {
                        self.judge(&engine.link, terms.number);
                    }
                }
            }
        }
    }

    /// Waits for a hint, another claim, or the period's end; returns early when the claim is
    /// refused.
    async fn wait(&self, engine: &Arc<Engine>, number: u64, period: Duration) {
        let until = engine.link.env.after(period);
        while engine.link.env.now() < until
            && self.terms().is_some_and(|terms| terms.number == number)
        {
            if self.judge(&engine.link, number) {
                return;
            }
            let next = until.min(engine.link.env.now() + CLAIM_CHECK);
            tokio::select! {
                biased;
                () = self.wake.notified() => return,
                () = engine.link.env.sleep_until(next) => {}
            }
        }
    }
}

/// Fails when a profile is to be used as another type than the one it is open as.
fn same_type(key: &ProfileKey, open: &dyn Codec, asked: &dyn Codec) -> Result<()> {
    let (open, asked) = (open.data_type(), asked.data_type());
    if open.id == asked.id || defect!(DeliveredToAnotherType) {
        return Ok(());
    }
    let message = format!(
        "the profile is open on this server as another type: open as=`{}` asked for=`{}`",
        open.name, asked.name
    );
    Err(Error::new(ErrorKind::Invalid, message).about(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GameServer, data_store::MemoryStore, env::ManualClock};

    /// Each attempt that waited, also that of a start which was called off, had room for all that
    /// it may come to.
    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_waits_for_its_turn_takes_little() {
        let env = ManualClock::default().env(1);
        let store = MemoryStore::new(env.clone());
        let server = GameServer::builder(store).env(env.clone()).start().await.unwrap();
        let key = ProfileKey::new("Players", "global", "p").unwrap();
        let load = Load::new(&key, RequestId(env.uuid()), "session".into(), None);
        let size = size_of_val(&load.in_turn(server.inner.engine.clone(), 1));
        assert!(size < 256, "{size} bytes");
        server.crash();
    }
}
