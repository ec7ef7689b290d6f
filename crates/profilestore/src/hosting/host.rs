//! A process that hosts game servers: which they are, and what they share.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;

use super::server::{HostedServer, Inner};
use crate::{
    data_store::{DataStore, HostId, Incarnation, ServerId},
    engine::{
        Engine,
        hosting::TakenOver,
        sweep::{self, FIRST_SWEEP},
    },
    env::Env,
    error::{Error, ErrorKind, Result},
    link::{
        Link, Parts,
        health::Health,
        heartbeat::Heartbeat,
        hosting::{Hosting, Stop},
    },
    messenger::Messenger,
    settings::{MIN_LEASE_TIME, Settings},
};

/// The longest owner, in bytes.
const MAX_OWNER_BYTES: usize = 200;

/// The longest lease time that a game server may ask for. What it holds is out of reach for so long
/// when it dies, and its key is believed for so long when that is revoked.
const MAX_LEASE_TIME: Duration = Duration::from_secs(600);

/// What a [`Host`] is made of.
#[derive(Debug)]
pub struct HostParts {
    /// The store of all its game servers.
    pub store: Arc<dyn DataStore>,
    /// Carries hints. [`crate::messenger::NoMessenger`] works too, more slowly.
    pub messenger: Arc<dyn Messenger>,
    /// Periods and limits, for each of them. Autosaves are the game servers' own business.
    pub settings: Settings,
    /// Clock and randomness.
    pub env: Env,
}

/// A game server that has not been here before.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Its name, for people: 1 to 100 bytes. See [`crate::GameServerBuilder::job_id`].
    pub job: String,
    /// See [`crate::GameServerBuilder::place_id`].
    pub place: i64,
    /// Who may resume it: kept with its row, and not read by the library. 1 to 200 bytes; holds no
    /// secret itself, but the hash of one.
    pub owner: String,
    /// After how long without a renewal others may call it dead. None: [`Settings::lease_time`].
    pub lease_time: Option<Duration>,
}

/// A game server that was hosted before, here or elsewhere.
#[derive(Debug, Clone)]
pub struct Resume {
    /// What it was.
    pub incarnation: ServerId,
    /// The store's contents that it knew: [`HostedServer::store`].
    pub store: Incarnation,
    /// Must be its row's owner.
    pub owner: String,
    /// For the new incarnation, if it needs one. Its owner may be another one.
    pub again: Registration,
}

/// What a resume has come to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Resumed {
    /// It goes on here as it was.
    Same(HostedServer),
    /// Its row was dead: it has a new incarnation. Each of its sessions that no other server took
    /// is there to be adopted.
    Anew(HostedServer),
    /// The store holds other contents, a restored backup for example: it has a new incarnation, and
    /// all its sessions are lost.
    Replaced(HostedServer),
}

impl Resumed {
    /// The game server.
    pub fn server(&self) -> &HostedServer {
        let (Self::Same(server) | Self::Anew(server) | Self::Replaced(server)) = self;
        server
    }
}

/// A process that hosts game servers. Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Host {
    shared: Arc<Shared>,
}

struct Shared {
    parts: HostParts,
    /// Errors of the store count for all of them.
    health: Arc<Health>,
    heartbeat: Arc<Heartbeat>,
    servers: Mutex<BTreeMap<ServerId, Weak<Inner>>>,
    /// Which process this is, drawn with its first hosting; and how many hostings it has had.
    process: OnceLock<u64>,
    hostings: AtomicU64,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("store", &self.shared.parts.store).finish_non_exhaustive()
    }
}

impl Host {
    /// A host without game servers. Asks nothing of the store. Must be called within a Tokio
    /// runtime with time enabled. Fails with [`ErrorKind::Invalid`] when a setting cannot work.
    pub fn new(parts: HostParts) -> Result<Self> {
        if let Some(problem) = parts.settings.problem() {
            return Err(Error::new(ErrorKind::Invalid, problem));
        }
        let heartbeat = Arc::new(Heartbeat::new(&parts.env));
        tokio::spawn(Heartbeat::run(Arc::downgrade(&heartbeat), parts.env.clone()));
        let shared = Arc::new(Shared {
            parts,
            health: Arc::default(),
            heartbeat,
            servers: Mutex::default(),
            process: OnceLock::new(),
            hostings: AtomicU64::new(0),
        });
        tokio::spawn(sweep(Arc::downgrade(&shared)));
        Ok(Self { shared })
    }

    /// Registers a game server and hosts it. Tries for a few seconds, and takes
    /// [`Settings::call_timeout`] at most. Fails with [`ErrorKind::Unavailable`] when the store
    /// cannot be reached or does not answer, with [`ErrorKind::Invalid`] when what is said of it
    /// cannot work.
    pub async fn register(&self, server: Registration) -> Result<HostedServer> {
        self.register_as(server, None).await
    }

    async fn register_as(
        &self,
        server: Registration,
        owner_before: Option<String>,
    ) -> Result<HostedServer> {
        let parts = self.shared.parts_of(&server)?;
        let hosting = self.shared.hosting(server.owner, owner_before);
        Ok(self.enter(Engine::host(parts, hosting).await?))
    }

    /// Takes a game server over from its earlier host, which does nothing for it from then on. One
    /// that this process hosts already goes on, and nothing is asked of the store.
    ///
    /// Then each of its sessions is to be adopted ([`HostedServer::adopt`]), and at last it is to
    /// be said that there are no more ([`HostedServer::all_named`]).
    ///
    /// Fails with [`ErrorKind::NotFound`] when there is no such game server of this owner, and as
    /// [`Host::register`] does.
    pub async fn resume(&self, resume: Resume) -> Result<Resumed> {
        let Resume { incarnation, store, owner, again } = resume;
        if let Some(server) = self.hosted(incarnation).filter(|server| server.store() == store) {
            if server.owner() != owner && !defect!(OwnerUnchecked) {
                return Err(no_such_server());
            }
            server.renew_soon();
            return Ok(Resumed::Same(server));
        }
        let parts = self.shared.parts_of(&again)?;
        let hosting = self.shared.hosting(owner.clone(), Some(owner.clone()));
        match Engine::take_over(parts, hosting, incarnation, store).await? {
            TakenOver::Yes(engine) => Ok(Resumed::Same(self.enter(engine))),
            TakenOver::Dead => Ok(Resumed::Anew(self.register_as(again, Some(owner)).await?)),
            TakenOver::Replaced => Ok(Resumed::Replaced(self.register(again).await?)),
            TakenOver::Unknown => Err(no_such_server()),
        }
    }

    /// The game servers that are hosted here.
    pub fn servers(&self) -> Vec<HostedServer> {
        let all: Vec<_> = self.shared.servers.lock().values().filter_map(Weak::upgrade).collect();
        all.into_iter().map(HostedServer::new).filter(|server| server.stopped().is_none()).collect()
    }

    fn hosted(&self, incarnation: ServerId) -> Option<HostedServer> {
        let found = self.shared.servers.lock().get(&incarnation)?.upgrade()?;
        Some(HostedServer::new(found)).filter(|server| server.stopped().is_none())
    }

    /// Notes an engine. One of the same game server that was here before has another host's place
    /// by now, though it is this very process.
    fn enter(&self, engine: Arc<Engine>) -> HostedServer {
        let server = HostedServer::new(Arc::new(Inner::new(engine)));
        let mut servers = self.shared.servers.lock();
        servers.retain(|_, server| server.strong_count() > 0);
        let before = servers.insert(server.incarnation(), server.downgrade());
        drop(servers);
        if let Some(before) = before.and_then(|before| before.upgrade()) {
            before.stop(Stop::Hosted);
        }
        server
    }
}

fn no_such_server() -> Error {
    let message = "there is no such game server, or it belongs to another owner: register it anew";
    Error::new(ErrorKind::NotFound, message)
}

impl Shared {
    fn parts_of(&self, server: &Registration) -> Result<Parts> {
        let limit = |what: &str, text: &str, most: usize| {
            if text.is_empty() || text.len() > most {
                let message = format!("{what} is 1 to {most} bytes long: bytes=`{}`", text.len());
                return Err(Error::new(ErrorKind::Invalid, message));
            }
            Ok(())
        };
        limit("a job id", &server.job, 100)?;
        limit("an owner", &server.owner, MAX_OWNER_BYTES)?;
        let HostParts { store, messenger, settings, env } = &self.parts;
        let mut settings = settings.clone();
        let least = settings.renew_period.saturating_mul(2).max(MIN_LEASE_TIME);
        let in_range = |asked: &Duration| (least..=MAX_LEASE_TIME).contains(asked);
        if let Some(asked) = server.lease_time.filter(|asked| !in_range(asked)) {
            let message = format!(
                "a lease time is {} ms (twice the period of the renewals here) to {} ms long: \
                 given=`{}`",
                least.as_millis(),
                MAX_LEASE_TIME.as_millis(),
                asked.as_millis()
            );
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        settings.lease_time = server.lease_time.unwrap_or(settings.lease_time);
        Ok(Parts {
            store: store.clone(),
            messenger: messenger.clone(),
            env: env.clone(),
            settings,
            place_id: server.place,
            job_id: server.job.clone(),
            health: self.health.clone(),
        })
    }

    fn hosting(&self, owner: String, owner_before: Option<String>) -> Hosting {
        let env = &self.parts.env;
        let (_, drawn) = env.uuid().as_u64_pair();
        let process = *self.process.get_or_init(|| drawn);
        let host = HostId::of_process(process, self.hostings.fetch_add(1, Relaxed));
        Hosting::new(host, owner, self.heartbeat.clone(), env.now(), owner_before)
    }

    /// The tie of some game server that is hosted here.
    fn some_link(&self) -> Option<Arc<Link>> {
        let servers = self.servers.lock();
        let mut links = servers.values().filter_map(Weak::upgrade).map(|server| server.link());
        links.find(|link| link.stopped().is_none())
    }
}

/// Sweeps for all of them.
async fn sweep(shared: Weak<Shared>) {
    let mut longest = FIRST_SWEEP;
    loop {
        let Some(period) = shared.upgrade().and_then(|host| host.parts.settings.sweep_period)
        else {
            return;
        };
        tokio::time::sleep(period.min(longest)).await;
        longest = Duration::MAX;
        if let Some(link) = shared.upgrade().and_then(|host| host.some_link()) {
            sweep::once(&link).await;
        }
    }
}
