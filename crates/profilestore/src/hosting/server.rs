//! One game server that is hosted here.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::Mutex;

use super::session::{
    Adopted, Document, Event, Gift, HostedSession, HostedStart, Meta, Part, Started,
};
use crate::{
    api::transaction::MAX_PARTICIPANTS,
    audit::MAX_AUTHOR_BYTES,
    data_store::{Change, Incarnation, ServerId},
    engine::{Engine, calls::Sent, hosting},
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    link::{
        Link,
        hosting::{Request, Stop},
    },
    session::{handlers::MAX_GIFTS, transaction::Transacted},
};

/// One game server that is hosted here. Cheap to clone; all clones are the same. Dropping the last
/// of them is the same as [`HostedServer::leave`].
#[derive(Clone)]
pub struct HostedServer {
    inner: Arc<Inner>,
}

pub(super) struct Inner {
    engine: Arc<Engine>,
    /// The reason for which it has stopped is told once.
    told_stopped: Mutex<bool>,
}

impl Inner {
    pub(super) fn new(engine: Arc<Engine>) -> Self {
        Self { engine, told_stopped: Mutex::new(false) }
    }

    pub(super) fn link(&self) -> Arc<Link> {
        self.engine.link.clone()
    }

    pub(super) fn stop(&self, why: Stop) {
        self.engine.link.stop(why);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.engine.link.stop(Stop::Left);
        self.engine.abandon();
    }
}

impl fmt::Debug for HostedServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostedServer")
            .field("incarnation", &self.incarnation())
            .field("job", &self.inner.engine.link.job_id)
            .finish_non_exhaustive()
    }
}

/// Fails for a name that the library keeps for itself.
fn check_not_reserved(key: &ProfileKey) -> Result<()> {
    if key.is_reserved() {
        let message = "the name is kept for what the library stores itself";
        return Err(Error::new(ErrorKind::Invalid, message).about(key));
    }
    Ok(())
}

impl HostedServer {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    pub(super) fn downgrade(&self) -> Weak<Inner> {
        Arc::downgrade(&self.inner)
    }

    fn engine(&self) -> &Arc<Engine> {
        &self.inner.engine
    }

    /// The identity that the leases of its profiles name.
    pub fn incarnation(&self) -> ServerId {
        self.engine().link.server()
    }

    /// The identity of the store's contents that it is registered in.
    pub fn store(&self) -> Incarnation {
        self.engine().link.incarnation()
    }

    /// Its name, for people.
    pub fn job(&self) -> &str {
        &self.engine().link.job_id
    }

    /// Names the author of its sessions' writes from now on, as the history shows it: 1 to 200
    /// bytes. Without it that is [`HostedServer::job`], which the game server chose itself.
    pub fn write_as(&self, author: &str) -> Result<()> {
        if !(1..=MAX_AUTHOR_BYTES).contains(&author.len()) {
            let message = format!(
                "an author is 1 to {MAX_AUTHOR_BYTES} bytes long: bytes=`{}`",
                author.len()
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        if let Some(hosting) = &self.engine().link.hosting {
            *hosting.author.lock() = Some(author.to_owned());
        }
        Ok(())
    }

    /// After how long without a renewal others may call it dead.
    pub fn lease_time(&self) -> Duration {
        self.engine().link.lease_time()
    }

    pub(super) fn owner(&self) -> &str {
        self.engine().link.hosting.as_ref().map_or("", |hosting| hosting.owner.as_str())
    }

    pub(super) fn renew_soon(&self) {
        self.engine().link.renew_now.notify_one();
    }

    // --- what it may believe --------------------------------------------------------------------

    /// The game server has called. Answers how old the confirmation is that it may go by: how long
    /// ago the renewal was sent that the store confirmed last. By that the game server reckons
    /// until when no other server can have been told that it is dead, without a common clock.
    ///
    /// None: it is to be told nothing. Nothing was confirmed since this process stood still for
    /// more than a second, or the hosting has stopped.
    ///
    /// To be called right before the answer is written, behind the events that are to be told first
    /// ([`Event::Closed`], [`Event::Release`]). It keeps the game server's row alive too: while
    /// nothing is heard of it for 4 s the row is not renewed, and runs out; after a lease time of
    /// silence the hosting stops ([`Stop::Quiet`]). Nothing is ever released for its silence.
    pub fn pong(&self) -> Option<Duration> {
        self.engine().heard()
    }

    /// How long ago the renewal was sent that the store confirmed last. Tells the game server
    /// nothing.
    pub fn confirmed_age(&self) -> Duration {
        let engine = self.engine();
        engine.link.env.now().saturating_duration_since(engine.confirmed())
    }

    // --- sessions -------------------------------------------------------------------------------

    /// Starts a session, as [`crate::ProfileStore::start_session_with`] does. Its inbox comes as
    /// events. Dropping the future calls the start off.
    ///
    /// The same request made again, at another host, takes up what the earlier one has left behind.
    pub async fn start(
        &self,
        request: Request,
        key: &ProfileKey,
        start: HostedStart,
    ) -> Result<Started> {
        check_not_reserved(key)?;
        let engine = self.engine().clone();
        let codec = Arc::new(start.codec().map_err(|error| error.about(key))?);
        let session = engine.start_session(key, codec, start.options(request)).await?;
        let Some((data, meta)) = session.take_document() else {
            let message = "the session began without its data";
            return Err(Error::new(ErrorKind::Corrupt, message).about(key));
        };
        let document = {
            let known = session.known.lock();
            let (epoch, version) = (known.epoch, known.version);
            Document { epoch, version, data, meta: Meta::new(&meta, session.load_count) }
        };
        engine.news_of(&session);
        Ok(Started { session: HostedSession { session }, document })
    }

    /// Takes up a session that the game server has since before it was hosted here. Its requests,
    /// messages and edits are seen again. One that is here already is told them again.
    ///
    /// Fails with [`ErrorKind::Unavailable`] or [`ErrorKind::TimedOut`] when the store does not
    /// answer in time, and with [`ErrorKind::Busy`] while a start of the profile is under way here:
    /// to be called again; the profile is left alone meanwhile. A session is called lost, or taken
    /// up, only after the store has said that this host still is the host. Fails with
    /// [`ErrorKind::Unknown`] and [`Stop::Hosted`] when it is not.
    pub async fn adopt(&self, key: &ProfileKey, epoch: u64) -> Result<Adopted> {
        check_not_reserved(key)?;
        Ok(match self.engine().adopt(key, epoch).await? {
            hosting::Adopted::Held(session) => {
                let version = session.known.lock().version;
                Adopted::Held { session: HostedSession { session }, version }
            }
            hosting::Adopted::Lost(by) => Adopted::Lost { by },
        })
    }

    /// The game server has named all its sessions. A profile that is held in its name from now on,
    /// of which no session is known here, is let go when another server asks for it.
    pub fn all_named(&self) {
        if let Some(hosting) = &self.engine().link.hosting {
            hosting.note_all_named();
        }
        self.renew_soon();
    }

    /// The session of a profile, if there is one.
    pub fn session(&self, key: &ProfileKey) -> Option<HostedSession> {
        let session = self.engine().table.live(key).filter(|session| !session.is_over())?;
        Some(HostedSession { session })
    }

    /// All sessions.
    pub fn sessions(&self) -> Vec<HostedSession> {
        let all = self.engine().table.sessions().into_iter();
        all.map(|session| HostedSession { session }).collect()
    }

    // --- other requests -------------------------------------------------------------------------

    /// Stores the documents of several sessions and sends gifts, all in one commit or nothing.
    /// Answers with the versions, in the order of the parts; with none when the request had been
    /// done before.
    ///
    /// After any error but [`ErrorKind::Unknown`] nothing was done, and never will be: what an
    /// earlier host may have sent under this identity is called off first.
    pub async fn transact(
        &self,
        request: Request,
        parts: Vec<Part>,
        gifts: Vec<Gift>,
        deadline: Option<Duration>,
    ) -> Result<Vec<u64>> {
        let sessions: Vec<HostedSession> = parts.iter().map(|part| part.session.clone()).collect();
        let failed = match self.transact_once(request, parts, gifts, deadline).await {
            Ok(Transacted::Before) => return Ok(Vec::new()),
            Ok(_) => return Ok(sessions.iter().map(HostedSession::version).collect()),
            Err(error) if error.kind() == ErrorKind::Unknown => return Err(error),
            Err(error) => error,
        };
        if self.outcome(request).await? { Ok(Vec::new()) } else { Err(failed) }
    }

    async fn transact_once(
        &self,
        request: Request,
        parts: Vec<Part>,
        gifts: Vec<Gift>,
        deadline: Option<Duration>,
    ) -> Result<Transacted> {
        let invalid = |message: String| Error::new(ErrorKind::Invalid, message);
        for (what, given, limit) in [
            ("profiles take part", parts.len(), MAX_PARTICIPANTS),
            ("gifts are sent", gifts.len(), MAX_GIFTS),
        ] {
            if given > limit {
                return Err(invalid(format!("too many {what}: given=`{given}` limit=`{limit}`")));
            }
        }
        if parts.is_empty() {
            return Err(invalid("a transaction needs at least one profile".into()));
        }
        let mut keys = BTreeSet::new();
        let mut handed = Vec::with_capacity(parts.len());
        for Part { session: HostedSession { session }, save } in parts {
            if !Arc::ptr_eq(&session.link, &self.engine().link) {
                return Err(invalid("the session belongs to another game server".into())
                    .about(&session.key));
            }
            if !keys.insert(session.key.clone()) {
                return Err(invalid("a profile takes part twice".into()).about(&session.key));
            }
            let save = save.check().map_err(|error| error.about(&session.key))?;
            if save.has_edits() {
                let message = "an operator's edit is saved alone, not in a transaction";
                return Err(invalid(message.into()).about(&session.key));
            }
            handed.push((session, save));
        }
        let gifts = gifts.into_iter().map(|gift| self.gift(gift)).collect::<Result<Vec<_>>>()?;
        self.engine().transact_handed(request, handed, gifts, deadline).await
    }

    fn gift(&self, gift: Gift) -> Result<Change> {
        let Gift { to, id, body } = gift;
        check_not_reserved(&to)?;
        self.engine().link.append(&to, id, String::from(Box::<str>::from(body)).into())
    }

    /// Sends a message by itself, once under its identity.
    pub async fn send(&self, gift: Gift) -> Result<Sent> {
        let Gift { to, id, body } = gift;
        check_not_reserved(&to)?;
        self.engine().send(&to, id, String::from(Box::<str>::from(body)).into(), None).await
    }

    /// What has become of a save, an end or a transaction whose session is not here any more: true
    /// when it took effect, also when it changed nothing. When it did not, it never will.
    ///
    /// Fails with [`ErrorKind::RequestIdReused`] when another request took effect under its
    /// identity, and with [`ErrorKind::Unknown`] when that cannot be told now.
    pub async fn outcome(&self, request: Request) -> Result<bool> {
        self.engine().took_effect(request).await.map_err(|error| {
            if error.kind() == ErrorKind::RequestIdReused {
                return error;
            }
            let message = "whether the request took effect cannot be told now; ask again";
            Error::new(ErrorKind::Unknown, message).caused_by(error)
        })
    }

    // --- events ---------------------------------------------------------------------------------

    /// The next thing to tell the game server, waiting for it. Dropping the future loses nothing.
    /// For one caller at a time: the connection that counts.
    ///
    /// `room`: how many bytes of a message of this profile may come now. A larger one waits, and
    /// holds up nothing but what comes behind it for the same session.
    pub async fn next_event(&self, room: impl Fn(&ProfileKey) -> usize) -> Event {
        loop {
            let woken = self.engine().table.news.woken();
            if let Some(event) = self.try_next_event(&room) {
                return event;
            }
            woken.await;
        }
    }

    /// The same without waiting.
    pub fn try_next_event(&self, room: impl Fn(&ProfileKey) -> usize) -> Option<Event> {
        if let Some(why) = self.stopped() {
            let told = std::mem::replace(&mut *self.inner.told_stopped.lock(), true);
            return (!told).then_some(Event::Stopped(why));
        }
        let (session, told) = self.engine().next_told(&room)?;
        Some(Event::of(session, told))
    }

    /// Tells everything again that is still so: for a new connection.
    pub fn tell_again(&self) {
        self.engine().tell_again();
    }

    // --- the end --------------------------------------------------------------------------------

    /// Stops hosting it. Nothing is renewed, written or released any more: it goes on at another
    /// host, or its row runs out.
    pub fn leave(&self) {
        self.inner.stop(Stop::Left);
    }

    /// The game server ends, and has ended its sessions: its row is declared dead, so that nothing
    /// waits for it. Then the hosting stops. What it has not ended is free for others at once, as
    /// it is stored.
    pub async fn retire(&self) -> Result<()> {
        self.engine().retire().await
    }

    /// Why nothing is done for it here any more, if so. Whatever a call then failed with, the game
    /// server is to make it again where it resumes.
    pub fn stopped(&self) -> Option<Stop> {
        self.engine().link.stopped()
    }
}
