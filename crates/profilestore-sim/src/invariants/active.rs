//! G6: a session that says that it is active can save at that moment. So no start takes a profile
//! from a session that says so, except thieves and operators, who are noticed within one renewal.
//! (One thing that operators do is to restore a backup.) A session that did not say so any more
//! when its server heard of the theft never says so again.

use std::time::Duration;

use profilestore::data_store::{Change, Commit, CommitId, CommitReply, ServerId, StoreError};
use tokio::time::Instant;

use super::{Broken, Seen, broken};
use crate::{
    data::Label,
    oracle::{SessionTold, Told},
};

/// Two renewals, with the time of a few calls: the first renewal may have been under way.
const NOTICE: Duration = Duration::from_secs(11);

/// After how long a start takes a profile from a live holder that does not answer.
const STEAL: Duration = Duration::from_secs(40);

#[derive(Default, Clone)]
pub struct Active {
    /// Sessions that were robbed, and when.
    robbed: Vec<(Label, Instant)>,
    /// Sessions that were robbed, whatever they said then.
    watched: Vec<Watched>,
    /// When a backup was put in the store's place. In it another server may own what a session of
    /// before still holds.
    restored_at: Option<Instant>,
}

/// A session that was robbed, and its server.
#[derive(Clone)]
struct Watched {
    label: Label,
    server: ServerId,
    at: Instant,
    /// What the store has answered to renewals of its server since. Each tells of the theft.
    answers: Vec<Answer>,
    /// Its server has got one of these answers. Others are lost, or belong to a copy of a renewal
    /// that came late. Meanwhile the server may get an answer that was given before the theft.
    informed: bool,
    /// It said after that that it is not active.
    silent: bool,
}

/// An answer to a renewal. The same renewal may be answered several times.
#[derive(Clone, PartialEq, Eq)]
struct Answer {
    renewal: CommitId,
    already_applied: bool,
    now_ms: i64,
}

impl Answer {
    fn of(renewal: CommitId, reply: &CommitReply) -> Self {
        Self { renewal, already_applied: reply.already_applied, now_ms: reply.now_ms }
    }
}

/// For how long a session that was robbed is watched.
const WATCHED: Duration = Duration::from_secs(120);

impl Active {
    pub fn committed(&mut self, seen: &Seen<'_>, told: &Told) -> Result<(), Broken> {
        self.noticed(seen.now, told)?;
        let step = seen.step;
        let Some(before) =
            step.before.holder().filter(|before| Some(*before) != step.after.holder())
        else {
            return Ok(());
        };
        let Some((label, session)) = told.by_store_name(before) else { return Ok(()) };
        if let Some(server) = step.before.lease.holder.as_ref().and_then(|holder| holder.server) {
            self.watched.push(Watched {
                label,
                server,
                at: seen.now,
                answers: Vec::new(),
                informed: false,
                silent: false,
            });
        }
        if session.life.is_over() || !session.seat.is_active() {
            return Ok(());
        }
        let thief =
            seen.kind.rewrites() || told.starts_on(step.key, seen.now).any(|start| start.steal);
        // A holder that nothing kept from answering is not robbed by time.
        let patience = told.starts_on(step.key, seen.now).any(|start| {
            seen.now - start.since >= STEAL
                && (session.life.troubled_since(start.since)
                    || start.life.troubled_since(start.since))
        });
        let restored = self.restored_at.is_some_and(|at| seen.now - at < NOTICE);
        if !thief && !patience && !restored {
            let taker =
                step.after.lease.holder.as_ref().map_or("nobody", |holder| holder.job_id.as_str());
            return broken(
                "G6",
                step.key,
                format!("session {label} says it is active, and {taker} takes the profile"),
            );
        }
        self.robbed.push((label, seen.now));
        Ok(())
    }

    /// A commit reached the store, whatever came of it: a good moment to ask sessions that were
    /// robbed before.
    pub fn asked(
        &mut self,
        now: Instant,
        (commit, result): (&Commit, &Result<CommitReply, StoreError>),
        told: &Told,
    ) -> Result<(), Broken> {
        let renews = |server| {
            commit
                .changes
                .iter()
                .any(|change| matches!(change, Change::RenewServer { id, .. } if *id == server))
        };
        self.watched.retain(|watched| {
            now - watched.at < WATCHED && of_robbed(told, watched.label).is_some()
        });
        if let Ok(reply) = result {
            for watched in self.watched.iter_mut().filter(|watched| renews(watched.server)) {
                watched.answers.push(Answer::of(commit.id, reply));
            }
        }
        self.ask(now, told)
    }

    /// A server has the answer to a renewal, and has yet to go by it: what its sessions say now is
    /// what they said when it heard.
    pub fn heard(
        &mut self,
        now: Instant,
        (renewal, reply): (CommitId, &CommitReply),
        told: &Told,
    ) -> Result<(), Broken> {
        let answer = Answer::of(renewal, reply);
        for watched in &mut self.watched {
            watched.informed |= watched.answers.contains(&answer);
        }
        self.ask(now, told)
    }

    /// Asks the sessions that were robbed whether they are active.
    fn ask(&mut self, now: Instant, told: &Told) -> Result<(), Broken> {
        for watched in &mut self.watched {
            let Some(session) = of_robbed(told, watched.label) else { continue };
            let active = session.seat.is_active();
            if watched.silent && active {
                let (label, ago) = (watched.label, now - watched.at);
                let what = format!(
                    "session {label} was robbed {ago:?} ago, was silent since, and \
                    says it is active again"
                );
                return broken("G6", &session.key, what);
            }
            watched.silent |= watched.informed && !active;
        }
        Ok(())
    }

    /// Checks that those who were robbed some time ago know it.
    fn noticed(&mut self, now: Instant, told: &Told) -> Result<(), Broken> {
        let due = self.robbed.iter().position(|(_, at)| now - *at >= NOTICE);
        let Some(due) = due else { return Ok(()) };
        let (label, at) = self.robbed.remove(due);
        let Some(session) = told.sessions.get(&label) else { return Ok(()) };
        if !session.life.is_over()
            && session.seat.is_active()
            && !session.life.troubled_since(at - NOTICE)
        {
            let ago = now - at;
            return broken(
                "G6",
                &session.key,
                format!("session {label} was robbed {ago:?} ago and says it is active"),
            );
        }
        Ok(())
    }

    pub fn restored(&mut self, now: Instant) {
        self.robbed.clear();
        self.watched.clear();
        self.restored_at = Some(now);
    }
}

/// A session that was robbed, while it has anything to say.
fn of_robbed(told: &Told, label: Label) -> Option<&SessionTold> {
    told.sessions.get(&label).filter(|session| !session.life.is_over() && !session.seat.is_over())
}
