//! One attempt of a start: a look at the store, and what the rules say about it.
//!
//! An attempt runs in the key's queue, for one claim of a load. When that claim has gone by the time its turn comes,
//! it does nothing: the claim in its place has an attempt of its own.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    Engine, MAX_RACES,
    claims::{Attempt, Load, Terms},
    newborn::StandingError,
    options::{DecideHeld, StartOptions, WhenHeld},
};
use crate::{
    data::{Codec, Data, encode},
    data_store::{Cause, Change, ConflictKind, DataStoreExt, Incarnation, KeyState, NewValue, Returning},
    error::{Error, ErrorKind, Result},
    link::deadline::{ForEver, Unless},
    ownership::{self, Asker, Start, Take},
    record::{Record, Stored},
    session::{
        Taken,
        info::{SessionEnd, SessionInfo},
    },
};

/// Asks the program's function. One that panics does not want to wait.
fn says_when_held(decide: &DecideHeld, holder: &SessionInfo) -> WhenHeld {
    catch_unwind(AssertUnwindSafe(|| decide(holder))).unwrap_or_else(|_| {
        tracing::error!("a function that decides about held profiles panicked; its start is called off");
        WhenHeld::GiveUp
    })
}

/// Decodes a record. The decoder is the program's.
fn open(codec: &dyn Codec, record: &Record) -> Result<Arc<dyn Data>> {
    catch_unwind(AssertUnwindSafe(|| codec.open(record))).unwrap_or_else(|_| {
        let message = "the stored data does not fit the program's type: its decoder panicked";
        Err(Error::new(ErrorKind::Undecodable, message))
    })
}

impl Load {
    /// Looks at the store and does what the rules say.
    pub(super) async fn attempt(&self, engine: &Arc<Engine>, number: u64) -> Result<Attempt> {
        // Each look brings the value along: mostly the profile is free, or has just been let go.
        for _ in 0..MAX_RACES {
            let Some(terms) = self.wanted(&engine.link, number) else { return Ok(Attempt::Stale) };
            let Terms { options, .. } = &terms;
            let incarnation = engine.link.incarnation();
            let sent = engine.link.env.now();
            let (now_ms, state) = match engine.link.store.read_one(&self.key, Returning::ALL).await {
                Ok(read) => {
                    // The clock that is about to be judged by may have stepped since the last renewal.
                    if !defect!(StepNoticedLate) {
                        engine.link.observe(sent, read.0);
                    }
                    read
                }
                Err(error) => {
                    engine.link.note_error(&error, Some(&self.key));
                    return if error.is_transient() { Ok(Attempt::Outage) } else { Err(error.into()) };
                }
            };
            let now_ms = if defect!(CallersClockTrusted) { engine.link.env.unix_ms() } else { now_ms };
            let mut asker = Asker {
                server: engine.link.server(),
                place_id: engine.link.place_id,
                job_id: engine.link.job_id.clone(),
                session: self.session.clone(),
                request: self.request,
                asked_for: self.asked_at().map(|at| engine.link.env.now().saturating_duration_since(at)),
                steal: options.steal,
            };
            let mut next = ownership::start(&state, now_ms, engine.link.contact(), &asker, &engine.link.periods());
            if let (Start::Ask | Start::Wait(_) | Start::TakenElsewhere, Some(decide), Some(holder)) =
                (&next, &options.when_held, &state.lease.holder)
            {
                match says_when_held(&**decide, &SessionInfo::from(holder)) {
                    WhenHeld::Ask => {}
                    WhenHeld::Wait => return Ok(Attempt::Wait(engine.link.settings().load_repeat_period)),
                    WhenHeld::GiveUp => {
                        let message = "the profile is held, and the start is not to wait for it";
                        return Err(Error::new(ErrorKind::Cancelled, message));
                    }
                    WhenHeld::Steal => {
                        asker.steal = true;
                        next = ownership::start(&state, now_ms, engine.link.contact(), &asker, &engine.link.periods());
                    }
                }
            }
            match next {
                Start::Wait(at_most) => {
                    engine.link.health.foreign(&self.key, &state.lease, true);
                    return Ok(Attempt::Wait(at_most));
                }
                Start::TakenElsewhere => {
                    // A later start on this server asks anew.
                    self.note_asked(None);
                    return Err(Error::new(
                        ErrorKind::TakenElsewhere,
                        "another server asked for the profile later, so it gets it",
                    ));
                }
                // A start that was called off meanwhile must not make the holder let go.
                Start::Ask | Start::Take(_) if self.wanted(&engine.link, number).is_none() => return Ok(Attempt::Stale),
                Start::Ask => {
                    if self.ask(engine, incarnation, &state, &asker, now_ms).await? {
                        self.note_asked(Some(engine.link.env.now()));
                        engine.link.health.foreign(&self.key, &state.lease, true);
                        return Ok(Attempt::Asked(ownership::patience(
                            state,
                            now_ms,
                            engine.link.contact(),
                            asker,
                            &engine.link.periods(),
                        )));
                    }
                }
                Start::Take(how) => {
                    if let Some(attempt) = self.take(engine, incarnation, state, &asker, how, now_ms, &terms).await? {
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
        incarnation: Incarnation,
        state: &KeyState,
        asker: &Asker,
        now_ms: i64,
    ) -> Result<bool> {
        let commit = engine.link.commit_in(incarnation, vec![ownership::asked(state, asker, now_ms)], Returning::HEAD);
        self.note_asking();
        let holder = state.lease.holder.as_ref().and_then(|holder| holder.server);
        match engine.link.settle_for(holder, &self.key, &commit, Unless(|| engine.link.is_closing())).await {
            Ok(_) => Ok(true),
            Err(error) if engine.link.overtaken(&error).await => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the profile. None when the store holds something else by now.
    #[expect(clippy::too_many_arguments, reason = "one look at the store, spread out")]
    async fn take(
        &self,
        engine: &Arc<Engine>,
        incarnation: Incarnation,
        state: KeyState,
        asker: &Asker,
        how: Take,
        now_ms: i64,
        terms: &Terms,
    ) -> Result<Option<Attempt>> {
        let Terms { options, codec, .. } = terms;
        // Before the commit, so that a profile that cannot be opened is not locked either.
        let mut found = Found::read(&state, &**codec, options, engine.link.env.unix_ms())?;
        let mut born = Vec::new();
        if found.write {
            match found.edit(engine, &state, &**codec).await {
                Ok(changes) => born = changes,
                Err(StandingError::Store(error)) => {
                    engine.link.note_error(&error, Some(&self.key));
                    return if error.is_transient() { Ok(Some(Attempt::Outage)) } else { Err(error.into()) };
                }
                Err(StandingError::Other(error)) => return Err(error),
            }
        }
        let mut changes = vec![ownership::taken(&state, how, asker, now_ms)];
        // The holder that loses the profile may have saved since we looked, or have a save under way: only a write says which version it is
        // built on. Nobody can write a profile that was let go.
        let taken_over = matches!(how, Take::Dead | Take::Stolen) && !defect!(TakeOverUnversioned);
        let write = found.write || ((taken_over || engine.link.settings().keep_every_save) && found.write_each);
        if write {
            changes.push(Change::Write {
                key: self.key.clone(),
                epoch: state.epoch,
                version: state.version,
                value: NewValue::Bytes(found.bytes.clone()),
                user_ids: found.record.user_ids.clone(),
                cause: Cause::Start,
                author: engine.link.job_id.clone(),
                keep_previous: found.overwrites || engine.link.settings().keep_every_save,
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
        let commit = engine.link.commit_in(incarnation, changes, Returning::INBOX);
        if commit.from != Some(held_by) {
            // A new incarnation of this server began meanwhile.
            return Ok(None);
        }
        match engine.link.settle(&commit, ForEver).await {
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
                    engine.link.health.overwritten(&self.key);
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
                    codec: codec.clone(),
                    autosave_period: options.autosave_period,
                };
                if saved_since && let Err(error) = self.read_again(engine, &mut taken, options).await {
                    // Releases it as it is stored, behind the turn in the key's queue that this runs in.
                    drop(engine.session(taken).finish(SessionEnd::Manual));
                    return Err(error);
                }
                Ok(Some(Attempt::Taken(Box::new(taken))))
            }
            Err(error) if error.conflict() == Some(&ConflictKind::Server) || engine.link.overtaken(&error).await => {
                if found.write {
                    // Perhaps it was the list of what stands that had changed.
                    engine.standing.forget(self.key.store());
                }
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The one it was taken from saved between our look and our commit: what he saved counts. Nobody but us can write any more.
    async fn read_again(&self, engine: &Arc<Engine>, taken: &mut Taken, options: &StartOptions) -> Result<()> {
        let (_, state) = engine.link.read_settled(&self.key, Returning::ALL).await?;
        if state.epoch != taken.state.epoch {
            // Taken from us already, which the session will find out.
            return Ok(());
        }
        let found = Found::read(&state, &*taken.codec, options, engine.link.env.unix_ms())?;
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
            tracing::info!(key = %self.key, from, how = how_word, by = %engine.link.job_id, "a profile was taken over");
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
    /// A version is written with the start when every save is kept, and when the profile is taken from a holder.
    write_each: bool,
    overwrites: bool,
}

impl Found {
    fn read(state: &KeyState, codec: &dyn Codec, options: &StartOptions, now_ms: i64) -> Result<Self> {
        let bytes = match (&state.value, state.exists()) {
            (Some(bytes), true) => bytes,
            _ => return Self::new_profile(codec, now_ms, false),
        };
        let foreign = |why: String| {
            if options.overwrite {
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
                let data = open(codec, &record)?;
                Ok(Self { bytes: bytes.clone(), data, record, write: false, write_each: true, overwrites: false })
            }
            Ok(Stored::MessagesOnly(_)) => Self::new_profile(codec, now_ms, false),
            Ok(Stored::Foreign(_)) => foreign("a value of another kind".into()),
            Err(error) => foreign(error.to_string()),
        }
    }

    /// Applies the edits that stand to a profile that is about to be created. Answers with what that adds to the commit.
    async fn edit(&mut self, engine: &Engine, state: &KeyState, codec: &dyn Codec) -> Result<Vec<Change>, StandingError> {
        let newborn = engine.standing.newborn(&engine.link, state, &self.record, &self.data, codec).await?;
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
