//! One attempt of a start: a look at the store, and what the rules say about it.
//!
//! An attempt runs in the key's queue, for one claim of a load. When that claim has gone by the
//! time its turn comes, it does nothing: the claim in its place has an attempt of its own.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use super::{
    Engine,
    claims::{Attempt, Load, Terms},
    options::{DecideHeld, WhenHeld, another_session},
    rewrite::{MAX_ROUNDS, overtaken},
};
use crate::{
    data_store::{
        Commit, CommitReply, DataStoreExt, Incarnation, KeyState, Returning, ServerId, StoreError,
    },
    error::{Error, ErrorKind, Result},
    link::{
        Link,
        commit::Backoff,
        deadline::{ForEver, Patience, Unless},
    },
    ownership::{self, Asker, Start, Take},
    record::Stored,
    session::info::SessionInfo,
};

/// One look of a start at its key.
pub(super) struct Look {
    /// The store's incarnation that was looked at.
    pub(super) incarnation: Incarnation,
    pub(super) state: KeyState,
    /// The store's clock.
    pub(super) now_ms: i64,
    pub(super) asker: Asker,
    pub(super) terms: Terms,
    /// The value is damaged: it cannot be taken, but its holder may have it whole.
    damaged: Option<StoreError>,
}

impl Look {
    /// What the rules say about it.
    fn start(&self, engine: &Engine) -> Start {
        ownership::start(
            &self.state,
            self.now_ms,
            engine.link.contact(),
            &self.asker,
            &engine.link.periods(),
        )
    }

    /// Fails when the program is too old for what is stored. A holder's save can mend everything
    /// else that keeps a profile from being opened; but it never makes data older.
    fn check_not_newer(&self) -> Result<()> {
        let stored = self.state.value.as_deref().map(Stored::decode);
        let Some(Ok(Stored::Profile(record))) = stored else { return Ok(()) };
        match self.terms.codec.check_not_newer(&record) {
            Err(error) if error.kind() == ErrorKind::NewerData => Err(error),
            _ => Ok(()),
        }
    }
}

/// Asks the program's function. One that panics does not want to wait.
fn says_when_held(decide: &DecideHeld, holder: &SessionInfo) -> WhenHeld {
    catch_unwind(AssertUnwindSafe(|| decide(holder))).unwrap_or_else(|_| {
        tracing::error!(
            "a function that decides about held profiles panicked; its start is called off"
        );
        WhenHeld::GiveUp
    })
}

impl Load {
    /// Looks at the store and does what the rules say, again when another server was faster.
    pub(super) async fn attempt(&self, engine: &Arc<Engine>, number: u64) -> Result<Attempt> {
        if self.goes_on().is_some() {
            let message = "the profile is loaded on this server already: the end of its session \
                was refused, and the session goes on";
            return Err(Error::new(ErrorKind::AlreadyLoaded, message));
        }
        for _ in 0..MAX_ROUNDS {
            let Some(terms) = self.wanted(&engine.link, number) else { return Ok(Attempt::Stale) };
            let Some(mut look) = self.look(engine, terms).await? else {
                return Ok(Attempt::Outage);
            };
            let Some(next) = decide(engine, &mut look)? else {
                return Ok(Attempt::Wait(engine.link.settings().load_repeat_period));
            };
            if let Some(attempt) = self.act(engine, number, look, next).await? {
                return Ok(attempt);
            }
        }
        // A lively key: not an outage, but better left alone for a moment.
        Ok(Attempt::Outage)
    }

    /// Each look brings the value along: mostly the profile is free, or has just been let go. None:
    /// the store does not answer.
    async fn look(&self, engine: &Engine, terms: Terms) -> Result<Option<Look>> {
        let link = &engine.link;
        let incarnation = link.incarnation();
        // What came before the look is seen by it.
        self.unseen.seen(self.unseen.noted());
        let sent = link.env.now();
        let (read, damaged) = self.read(engine).await;
        let (now_ms, state) = match read {
            Ok(read) => {
                // The clock that is about to be judged by may have stepped since the last renewal.
                if !defect!(StepNoticedLate) {
                    link.observe(sent, read.0);
                }
                read
            }
            Err(error) => {
                link.note_error(&error, Some(&self.key));
                return if error.is_transient() { Ok(None) } else { Err(error.into()) };
            }
        };
        let now_ms = if defect!(CallersClockTrusted) { link.env.unix_ms() } else { now_ms };
        let asker = Asker {
            server: link.server(),
            place_id: link.place_id,
            job_id: link.job_id.clone(),
            session: self.session.clone(),
            request: self.request,
            asked_for: self.asked_at().map(|at| link.env.now().saturating_duration_since(at)),
            steal: terms.options.steal,
        };
        Ok(Some(Look { incarnation, state, now_ms, asker, terms, damaged }))
    }

    /// Reads the key, without its value if that is damaged.
    async fn read(
        &self,
        engine: &Engine,
    ) -> (Result<(i64, KeyState), StoreError>, Option<StoreError>) {
        let store = &engine.link.store;
        let mut rounds = 0;
        loop {
            let (error, version) = match store.read_one(&self.key, Returning::ALL).await {
                Err(error @ StoreError::Damaged { version, .. }) => (error, version),
                read => return (read, None),
            };
            let read = store.read_one(&self.key, Returning::INBOX).await;
            rounds += 1;
            // Its holder may have replaced it between the two.
            match &read {
                Ok((_, state)) if state.version != version && rounds < MAX_ROUNDS => {}
                _ => return (read, Some(error)),
            }
        }
    }

    /// Does what the rules say. None: the store holds something else by now.
    async fn act(
        &self,
        engine: &Arc<Engine>,
        number: u64,
        look: Look,
        next: Start,
    ) -> Result<Option<Attempt>> {
        let link = &engine.link;
        match next {
            Start::Wait(at_most) => {
                link.health.foreign(&self.key, &look.state.lease, true);
                Ok(Some(Attempt::Wait(at_most)))
            }
            Start::TakenElsewhere => {
                // A later start on this server asks anew.
                self.note_asked(None);
                Err(Error::new(
                    ErrorKind::TakenElsewhere,
                    "another server asked for the profile later, so it gets it",
                ))
            }
            // A start that was called off meanwhile must not make the holder let go.
            Start::Ask | Start::Take(_) if self.wanted(link, number).is_none() => {
                Ok(Some(Attempt::Stale))
            }
            Start::Ask => {
                if !self.ask(engine, &look).await? {
                    return Ok(None);
                }
                self.note_asked(Some(link.env.now()));
                link.health.foreign(&self.key, &look.state.lease, true);
                let Look { state, now_ms, asker, .. } = look;
                Ok(Some(Attempt::Asked(ownership::patience(
                    state,
                    now_ms,
                    link.contact(),
                    asker,
                    &link.periods(),
                ))))
            }
            Start::Take(how) => match look.damaged {
                Some(error) => Err(error.into()),
                None if self.took_before(engine, &look, how) => {
                    Box::pin(self.take_up(engine, look, how)).await
                }
                None => self.take(engine, look, how).await,
            },
        }
    }

    /// Writes our request. False when the lease changed meanwhile, or the claim has gone and the
    /// request is never written.
    async fn ask(&self, engine: &Engine, look: &Look) -> Result<bool> {
        let Look { incarnation, state, asker, now_ms, terms, .. } = look;
        let link = &engine.link;
        let commit = link.commit_in(
            *incarnation,
            vec![ownership::asked(state, asker, *now_ms)],
            Returning::HEAD,
        );
        self.note_asking();
        let holder = state.lease.holder.as_ref().and_then(|holder| holder.server);
        // A request that stays behind when the server shuts down expires by itself.
        let patience = Unless(|| link.is_closing());
        match self.settle_for_claim(link, terms.number, &commit, holder, patience).await {
            Ok(reply) => Ok(reply.is_some()),
            Err(error) if overtaken(link, &error).await => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Commits for a claim, under one identity until the outcome is known. When the claim goes
    /// before, its caller hears that the start failed. So the commit is called off then, and not
    /// sent again. None: it is never applied. `holder`: the server that waits for the commit.
    /// `patience`: how long its outcome is asked for once the claim has gone.
    pub(super) async fn settle_for_claim(
        &self,
        link: &Link,
        number: u64,
        commit: &Commit,
        holder: Option<ServerId>,
        patience: impl Patience,
    ) -> Result<Option<CommitReply>, StoreError> {
        if self.terms_of(number).is_none() {
            return Ok(None);
        }
        tokio::select! {
            // In this order: no attempt is made once the claim has gone.
            biased;
            () = self.gone(number) => {}
            settled = link.settle_for(holder, &self.key, commit, ForEver) => {
                return settled.map(Some);
            }
        }
        tracing::debug!(key = %self.key, commit = ?commit.id, "a commit of a start is called off");
        let mut backoff = Backoff::default();
        let called_off = Box::pin(link.call_off(commit, &mut backoff, &patience)).await;
        match called_off {
            Ok(true) => Ok(None),
            // It had been applied. The same commit again brings what the store holds since.
            Ok(false) => link.settle(commit, patience).await.map(Some),
            // Nothing will tell any more, or not while this server goes on.
            Err(StoreError::TakenAway { .. } | StoreError::Unavailable { .. }) => {
                Err(StoreError::Indeterminate {
                    commit: commit.id,
                    reason: "the start was called off before the store answered".into(),
                })
            }
            // Other contents took the place of the store's, another host has the place of this one,
            // or the server shuts down.
            Err(error) => Err(error),
        }
    }
}

/// What the rules say, and what the program says where they meet a holder. None: wait.
fn decide(engine: &Engine, look: &mut Look) -> Result<Option<Start>> {
    let next = look.start(engine);
    if look.terms.options.only_from.is_some_and(|epoch| epoch != look.state.epoch)
        && look.state.lease.holder.is_some()
        && !matches!(next, Start::Take(Take::Own))
    {
        return Err(another_session(look.state.epoch));
    }
    if !matches!(next, Start::Take(_)) {
        // A holder is not to let go for a server that cannot take the profile.
        look.check_not_newer()?;
    }
    let (Start::Ask | Start::Wait(_) | Start::TakenElsewhere, Some(decide), Some(holder)) =
        (&next, &look.terms.options.when_held, &look.state.lease.holder)
    else {
        return Ok(Some(next));
    };
    match says_when_held(&**decide, &SessionInfo::from(holder)) {
        WhenHeld::Ask => Ok(Some(next)),
        WhenHeld::Wait => Ok(None),
        WhenHeld::GiveUp => Err(Error::new(
            ErrorKind::Cancelled,
            "the profile is held, and the start is not to wait for it",
        )),
        WhenHeld::Steal => {
            look.asker.steal = true;
            Ok(Some(look.start(engine)))
        }
    }
}
