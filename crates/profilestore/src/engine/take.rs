//! Taking a profile: one commit that changes its lease, and makes the start's session its holder.

use std::sync::Arc;

use super::{
    Engine,
    attempt::Look,
    claims::{Attempt, Load},
    found::Found,
    newborn::StandingError,
    options::StartOptions,
    rewrite::overtaken,
};
use crate::{
    data_store::{Cause, Change, CommitReply, Incarnation, KeyState, NewValue, Returning},
    error::{Error, ErrorKind, Result},
    link::deadline::ForEver,
    ownership::{self, Take},
    session::{Taken, info::SessionEnd},
};

/// The commit of a taking, as far as its reply is judged by it.
struct Sent {
    incarnation: Incarnation,
    how: Take,
    /// It writes a version.
    writes: bool,
}

impl Load {
    /// Takes the profile. None when the store holds something else by now, or the claim has gone.
    pub(super) async fn take(
        &self,
        engine: &Arc<Engine>,
        look: Look,
        how: Take,
    ) -> Result<Option<Attempt>> {
        let Look { incarnation, state, terms, .. } = &look;
        let link = &engine.link;
        let mut found = Found::read(state, &*terms.codec, &terms.options, link.env.unix_ms())?;
        let mut born = Vec::new();
        if found.write {
            match found.edit(&engine.standing, link, state, &*terms.codec).await {
                Ok(changes) => born = changes,
                Err(StandingError::Store(error)) => {
                    link.note_error(&error, Some(&self.key));
                    return if error.is_transient() {
                        Ok(Some(Attempt::Outage))
                    } else {
                        Err(error.into())
                    };
                }
                Err(StandingError::Other(error)) => return Err(error),
            }
        }
        let writes = self.writes(engine, &found, how);
        let mut changes = self.taking(engine, &look, how, &found, writes);
        changes.extend(born);
        let commit = link.commit_in(*incarnation, changes, Returning::INBOX);
        if commit.from != Some(look.asker.server) {
            // A new incarnation of this server began meanwhile.
            return Ok(None);
        }
        match self.settle_for_claim(link, terms.number, &commit, None, ForEver).await {
            Ok(Some(reply)) => {
                self.took(
                    engine,
                    look,
                    found,
                    reply,
                    &Sent { incarnation: commit.incarnation, how, writes },
                )
                .await
            }
            // The claim has gone, and the commit is never applied.
            Ok(None) => Ok(None),
            Err(error) if overtaken(link, &error).await => {
                if found.write {
                    // Perhaps it was the list of standing edits that had changed.
                    engine.standing.forget(self.key.store());
                }
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether an earlier host of the game server took the profile for this very start: its session
    /// has the start's identity.
    pub(super) fn took_before(&self, engine: &Engine, look: &Look, how: Take) -> bool {
        let holder = look.state.lease.holder.as_ref();
        engine.link.hosting.is_some()
            && how == Take::Own
            && holder.is_some_and(|holder| holder.session == self.session)
    }

    /// Goes on with what an earlier host took. Nothing is committed: its epoch is the session's.
    pub(super) async fn take_up(
        &self,
        engine: &Arc<Engine>,
        look: Look,
        how: Take,
    ) -> Result<Option<Attempt>> {
        let Look { incarnation, state, asker, terms, .. } = &look;
        let found = Found::read(state, &*terms.codec, &terms.options, engine.link.env.unix_ms())?;
        if found.write {
            // It holds no profile.
            return self.take(engine, look, how).await;
        }
        // What others have asked of it since is looked at as soon as the session is there.
        self.wake.notify_one();
        Ok(Some(Attempt::Taken(Box::new(Taken {
            key: self.key.clone(),
            id: self.session.clone(),
            held_by: asker.server,
            incarnation: *incarnation,
            state: state.clone(),
            record: found.record,
            stored: found.bytes,
            data: found.data,
            codec: terms.codec.clone(),
            autosave_period: terms.options.autosave_period,
        }))))
    }

    /// Whether the taking writes a version. The holder that loses the profile may have saved since
    /// the look, or have a save under way: only a write says which version it is built on. No other
    /// server can write a profile that was let go.
    fn writes(&self, engine: &Engine, found: &Found, how: Take) -> bool {
        let taken_over = matches!(how, Take::Dead | Take::Stolen) && !defect!(TakeOverUnversioned);
        found.write || ((taken_over || engine.link.settings().keep_every_save) && found.write_each)
    }

    fn taking(
        &self,
        engine: &Engine,
        look: &Look,
        how: Take,
        found: &Found,
        writes: bool,
    ) -> Vec<Change> {
        let Look { state, asker, now_ms, .. } = look;
        let mut changes = vec![ownership::taken(state, how, asker, *now_ms)];
        if writes {
            changes.push(Change::Write {
                key: self.key.clone(),
                epoch: state.epoch,
                version: state.version,
                value: NewValue::Bytes(found.bytes.clone()),
                user_ids: found.record.indexed_users(),
                cause: Cause::Start,
                author: engine.link.author(),
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
        changes
    }

    /// The commit was applied. None when another server has taken the profile since.
    async fn took(
        &self,
        engine: &Arc<Engine>,
        look: Look,
        found: Found,
        mut reply: CommitReply,
        sent: &Sent,
    ) -> Result<Option<Attempt>> {
        let Look { state, asker, terms, .. } = look;
        let Some(now) = reply.states.drain(..).find(|now| now.key == self.key) else {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "the store's reply says nothing about the profile",
            ));
        };
        if now.epoch != state.epoch + 1 && !defect!(LateAnswerBelieved) {
            // Applied by an earlier attempt whose answer was lost, and taken away since.
            return Ok(None);
        }
        self.tell(engine, sent.how, &state);
        if found.overwrites {
            engine.link.health.overwritten(&self.key);
        }
        let saved_since = now.version != state.version + u64::from(sent.writes);
        let mut taken = Taken {
            key: self.key.clone(),
            id: self.session.clone(),
            held_by: asker.server,
            incarnation: sent.incarnation,
            state: now,
            record: found.record,
            stored: found.bytes,
            data: found.data,
            codec: terms.codec,
            autosave_period: terms.options.autosave_period,
        };
        if saved_since && let Err(error) = self.read_again(engine, &mut taken, &terms.options).await
        {
            // Releases it as it is stored, behind the turn in the key's queue that this runs in.
            drop(engine.session(taken).finish(SessionEnd::Manual));
            return Err(error);
        }
        Ok(Some(Attempt::Taken(Box::new(taken))))
    }

    /// The server that lost the profile saved between the look and the commit: what it saved
    /// counts. It cannot write any more.
    async fn read_again(
        &self,
        engine: &Engine,
        taken: &mut Taken,
        options: &StartOptions,
    ) -> Result<()> {
        let (_, state) = engine.link.read_settled(&self.key, Returning::ALL).await?;
        if state.epoch != taken.state.epoch {
            // Taken from us already, which the session will find out.
            return Ok(());
        }
        let found = Found::read(&state, &*taken.codec, options, engine.link.env.unix_ms())?;
        if found.write {
            return Err(Error::new(
                ErrorKind::Foreign,
                "what is stored was replaced by something that is not a profile",
            ));
        }
        (taken.record, taken.stored, taken.data, taken.state) =
            (found.record, found.bytes, found.data, state);
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
        if let (Take::Offered, Some(asked)) = (how, self.asked_at()) {
            let took = engine.link.env.now().saturating_duration_since(asked);
            metrics::histogram!("profilestore_hand_over_seconds").record(took.as_secs_f64());
        }
        if matches!(how, Take::Dead | Take::Stolen) {
            let from = before.lease.holder.as_ref().map_or("", |holder| holder.job_id.as_str());
            tracing::info!(key = %self.key, from, how = how_word, by = %engine.link.job_id, "a profile was taken over");
        }
    }
}
