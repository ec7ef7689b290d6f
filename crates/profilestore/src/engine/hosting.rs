//! Engines of game servers that run in another process.
//!
//! Such an engine is like any other, but that its sessions keep no data, save nothing by themselves
//! and let go only when their game server does, or its time is over. It goes on for as long as this
//! process is the game server's host, and then drops everything without a write.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde_json::value::RawValue;
use tokio::{runtime::Handle, time::Instant};

use super::{Engine, rewrite::MAX_ROUNDS};
use crate::{
    data_store::{Change, ConflictKind, Incarnation, KeyState, Returning, ServerId, StoreError},
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    link::{
        Link, Parts,
        commit::Backoff,
        hosting::{Hosting, Request, Stop},
        rehost::{self, Rehosted},
        renew,
    },
    record::Record,
    session::{
        Session, Taken,
        document::{Document, DocumentCodec},
        handed::Handed,
        info::SessionInfo,
        remote::Told,
        transaction::{self, Drafts, Transacted},
    },
};

/// What has become of a session that was there before its game server was hosted here, or that
/// this host does not know.
pub(crate) enum Adopted {
    Held(Arc<Session>),
    Lost(Option<SessionInfo>),
}

/// What taking a game server over has come to.
pub(crate) enum TakenOver {
    Yes(Arc<Engine>),
    /// Its row is dead.
    Dead,
    Replaced,
    Unknown,
}

fn check(parts: &Parts) -> Result<()> {
    let problem = parts.settings.problem();
    problem.map_or(Ok(()), |problem| Err(Error::new(ErrorKind::Invalid, problem)))
}

impl Engine {
    /// Registers a game server that runs elsewhere, and hosts it.
    pub(crate) async fn host(parts: Parts, hosting: Hosting) -> Result<Arc<Self>> {
        check(&parts)?;
        let (lease, hints) = renew::register(&parts, Some(&hosting)).await?;
        Ok(Self::driven(Link::new(parts, lease, Handle::current(), Some(hosting)), hints))
    }

    /// Hosts a game server that is registered.
    pub(crate) async fn take_over(
        mut parts: Parts,
        hosting: Hosting,
        server: ServerId,
        incarnation: Incarnation,
    ) -> Result<TakenOver> {
        check(&parts)?;
        let (env, deadline) = (parts.env.clone(), parts.env.after(parts.settings.call_timeout));
        let rehosting = Box::pin(rehost::rehost(&mut parts, &hosting, server, incarnation));
        let rehosted = env.timeout_at(deadline, rehosting).await.unwrap_or_else(|_| {
            let message = "the game server could not be taken over: the store has not answered in \
                time";
            Err(Error::new(ErrorKind::Unavailable, message))
        });
        Ok(match rehosted? {
            Rehosted::Yes(lease, hints) => {
                // Its earlier host may have told it of a confirmation until now.
                hosting.note_told(parts.env.now());
                let link = Link::new(parts, *lease, Handle::current(), Some(hosting));
                // It brings what there is to look at.
                link.renew_now.notify_one();
                TakenOver::Yes(Self::driven(link, hints))
            }
            Rehosted::Dead => TakenOver::Dead,
            Rehosted::Replaced => TakenOver::Replaced,
            Rehosted::Unknown => TakenOver::Unknown,
        })
    }

    /// The game server has called; see `HostedServer::pong`.
    pub(crate) fn heard(&self) -> Option<Duration> {
        self.link.heard(self.confirmed())
    }

    /// The confirmation that counts for the game server and all its sessions.
    pub(crate) fn confirmed(&self) -> Instant {
        self.table.confirmed_for_all(self.link.confirmed_at())
    }

    /// The next thing that the game server is to be told.
    pub(crate) fn next_told(
        &self,
        room: &dyn Fn(&ProfileKey) -> usize,
    ) -> Option<(Arc<Session>, Told)> {
        let told = self.link.hosting.as_ref()?.told();
        self.table.news.next(told, room)
    }

    /// Everything that is still so is told again.
    pub(crate) fn tell_again(&self) {
        for session in self.table.sessions() {
            self.tell_again_of(&session);
        }
    }

    /// A session has begun, and may have something to tell.
    pub(crate) fn news_of(&self, session: &Arc<Session>) {
        self.table.news.push(session);
    }

    fn tell_again_of(&self, session: &Arc<Session>) {
        if let Some(remote) = &session.remote {
            remote.tell_again();
        }
        self.table.news.push(session);
    }

    // --- sessions from before -------------------------------------------------------------------

    /// Takes up a session that the game server has, by its epoch. Reads no data.
    pub(crate) fn adopt(
        self: &Arc<Self>,
        key: &ProfileKey,
        epoch: u64,
    ) -> impl Future<Output = Result<Adopted>> + Send + 'static + use<> {
        let (engine, key_) = (self.clone(), key.clone());
        if let Some(hosting) = &self.link.hosting {
            hosting.note_named(key, true);
        }
        self.link.look_up(key, async move {
            let is_here = engine.table.live(&key_).is_some_and(|session| !session.is_over());
            let adopted = engine.adopt_now(&key_, epoch).await;
            // What this host has not heard of may have begun at another one. So without asking it
            // calls no session lost; nor does it adopt one, since its pongs would let the game
            // server believe longer than the other host knows.
            let verdict = matches!(&adopted, Ok(Adopted::Lost(_)))
                || matches!(&adopted, Err(error) if error.kind() == ErrorKind::Busy);
            if verdict && !defect!(LostUnchecked) {
                engine.link.check_host(engine.link.deadline()).await?;
            }
            if let Ok(Adopted::Held(session)) = &adopted
                && !is_here
                && let Err(error) = engine.link.check_host(engine.link.deadline()).await
            {
                engine.table.forget(session);
                return Err(error);
            }
            let adopted = adopted?;
            if let Some(hosting) = &engine.link.hosting {
                hosting.note_named(&key_, false);
            }
            Ok(adopted)
        })
    }

    async fn adopt_now(self: &Arc<Self>, key: &ProfileKey, epoch: u64) -> Result<Adopted> {
        if let Some(session) = self.table.live(key).filter(|session| !session.is_over()) {
            if session.known.lock().epoch != epoch {
                return Ok(Adopted::Lost(None));
            }
            self.tell_again_of(&session);
            session.queue_look();
            return Ok(Adopted::Held(session));
        }
        let incarnation = self.link.incarnation();
        let (_, state) = self.link.read_settled(key, Returning::INBOX).await?;
        let holder = state.lease.holder.as_ref();
        let Some(session) = self.session_before(incarnation, epoch, &state) else {
            return Ok(Adopted::Lost(holder.map(SessionInfo::from)));
        };
        if !self.table.enter(&session) {
            let message = "a start of the profile is under way at this host";
            return Err(Error::new(ErrorKind::Busy, message));
        }
        if session.known.lock().held_by == self.link.server() {
            // A notice that came since the read found no session to hold back.
            session.look_now().await;
        } else {
            session.queue_look();
            session.adopt_now().await;
        }
        if session.is_over() {
            return Ok(Adopted::Lost(session.taken_by()));
        }
        if session.known.lock().held_by != self.link.server() {
            self.table.forget(&session);
            let message = "the session could not be adopted yet; try again";
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        self.tell_again_of(&session);
        metrics::counter!("profilestore_sessions_adopted_total").increment(1);
        Ok(Adopted::Held(session))
    }

    /// The session that held a profile under an epoch, if it still does. None: it is lost.
    fn session_before(
        self: &Arc<Self>,
        incarnation: Incarnation,
        epoch: u64,
        state: &KeyState,
    ) -> Option<Arc<Session>> {
        let same = state.epoch == epoch && self.was_ours(state);
        let holder = state.lease.holder.as_ref().filter(|_| same)?;
        let session = self.session(Taken {
            key: state.key.clone(),
            id: holder.session.clone(),
            held_by: holder.server?,
            incarnation,
            state: state.clone(),
            record: Record::new(0, RawValue::NULL.to_owned()),
            stored: Bytes::new(),
            data: Arc::new(Document::Away),
            codec: Arc::new(DocumentCodec::adopting()),
            autosave_period: None,
        });
        session.known.lock().saved.digest = None;
        Some(session)
    }

    /// Whether a profile's holder is this game server, or was it until it was declared dead: then
    /// under the owner that its last host wrote. The session of another game server stays its own,
    /// whatever epoch is named.
    fn was_ours(&self, state: &KeyState) -> bool {
        let hosting = self.link.hosting.as_ref();
        let Some(before) = hosting.and_then(|hosting| hosting.owner_before.as_ref()) else {
            return false;
        };
        let holder = state.lease.holder.as_ref().and_then(|holder| holder.server);
        holder == Some(self.link.server())
            || state.holder_server.as_ref().is_some_and(|row| {
                row.dead && (row.owner.as_ref() == Some(before) || defect!(OwnerUnchecked))
            })
    }

    // --- requests -------------------------------------------------------------------------------

    /// One commit for what is handed over for several sessions, and for gifts.
    pub(crate) fn transact_handed(
        &self,
        request: Request,
        parts: Vec<(Arc<Session>, Handed)>,
        gifts: Vec<Change>,
        time: Option<Duration>,
    ) -> impl Future<Output = Result<Transacted>> + Send + 'static + use<> {
        let (sessions, handed): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        let script = move |drafts: &mut Drafts| {
            for (draft, handed) in drafts.drafts.iter_mut().zip(&handed) {
                draft.hand(handed);
            }
            drafts.gifts = gifts;
            true
        };
        let (table, script) = (self.table.clone(), Box::new(script));
        let sent = move |key: &ProfileKey| table.look(key);
        transaction::transact(&self.link, sessions, time, script, Some(request), sent)
    }

    /// Whether a request took effect. One that did not never does from now on. Fails when another
    /// request took effect under its identity.
    pub(crate) async fn took_effect(&self, request: Request) -> Result<bool> {
        let Some(hosting) = &self.link.hosting else { return Ok(false) };
        let check = Change::CheckHost { id: self.link.server(), host: hosting.host };
        let commit = request.stamp(self.link.new_commit(vec![check], Returning::HEAD));
        let deadline = self.link.deadline();
        if self.link.call_off(&commit, &mut Backoff::default(), &deadline).await? {
            return Ok(false);
        }
        // An abort is compared with nothing. This comes too late to be applied, and is compared.
        self.link.settle(&commit, deadline).await?;
        Ok(true)
    }

    /// Declares the game server's row dead, as it ends, and stops.
    pub(crate) async fn retire(&self) -> Result<()> {
        let Some(hosting) = &self.link.hosting else { return Ok(()) };
        for _ in 0..MAX_ROUNDS {
            let (id, revision) = {
                let lease = self.link.lease.lock();
                (lease.server, lease.revision)
            };
            let check = Change::CheckHost { id, host: hosting.host };
            let changes = vec![check, Change::MarkDead { id, revision }];
            let commit = self.link.new_commit(changes, Returning::HEAD);
            match self.link.settle(&commit, self.link.deadline()).await {
                Err(StoreError::Conflict(conflict)) if conflict.kind == ConflictKind::Server => {
                    // It was renewed at the same moment.
                    let Some(row) = conflict.server.filter(|row| !row.dead) else { break };
                    self.link.lease.lock().revision = row.revision;
                }
                Err(error) => return Err(error.into()),
                Ok(_) => break,
            }
        }
        self.link.stop(Stop::Left);
        Ok(())
    }
}
