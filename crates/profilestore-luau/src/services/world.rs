//! What the servers of a game share beside the store: who is on which server, topics, purchases.
//!
//! Nothing here calls into a machine while it holds the lock, since the machine may call back.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mlua::{Function, IntoLuaMulti, Table};
use parking_lot::Mutex;
use profilestore::env::{Env, Rng};
use tokio::sync::{Notify, mpsc};

use super::{
    bans::{self, Bans},
    memory::{self, Memory},
    messages::{self, Topics},
    purchases::{self, Purchases},
    reserved::{self, Opening, Reservations},
};
use crate::vm::{Answer, Failed, Scheduler, Vm};

/// The servers of a game, and what they share.
pub(crate) struct World {
    pub(super) env: Env,
    /// What decides who goes where, and when.
    pub(super) chance: Arc<dyn Rng>,
    place_id: i64,
    /// How many servers everybody may join. Reserved ones come after them.
    public: usize,
    /// Where servers are asked for that are to be started.
    pub(super) openings: mpsc::UnboundedSender<Opening>,
    /// How long a message takes.
    pub(super) latency: Duration,
    pub(super) inner: Mutex<Inner>,
    /// What is under way by itself, such as a teleport; a game does not end before.
    busy: AtomicUsize,
    /// A thread has waited for a child for so long that it will never come.
    gave_up: Notify,
}

/// What a world is made with.
pub(crate) struct WorldOptions {
    pub(crate) env: Env,
    pub(crate) chance: Arc<dyn Rng>,
    pub(crate) place_id: i64,
    /// Of the servers that everybody may join.
    pub(crate) job_ids: Vec<String>,
    /// How long a message takes.
    pub(crate) latency: Duration,
    /// Where servers are asked for that are to be started.
    pub(crate) openings: mpsc::UnboundedSender<Opening>,
}

pub(super) struct Inner {
    pub(super) servers: Vec<Server>,
    pub(super) reservations: Reservations,
    players: BTreeMap<i64, Player>,
    pub(super) bans: Bans,
    pub(super) topics: Topics,
    pub(super) purchases: Purchases,
    pub(super) memory: Memory,
}

pub(super) struct Server {
    job_id: String,
    /// The machine's functions for what happens in the world, once it has them.
    machine: Option<Machine>,
    /// Whether its scripts have begun.
    pub(super) is_started: bool,
}

impl Server {
    pub(super) fn new(job_id: String, is_started: bool) -> Self {
        Self { job_id, machine: None, is_started }
    }
}

#[derive(Clone)]
struct Machine {
    events: Table,
    scheduler: Weak<Scheduler>,
}

/// A player.
#[derive(Default)]
struct Player {
    /// The servers that the player is on. More than one while an old server has not noticed that
    /// the connection is gone.
    servers: Vec<usize>,
}

/// How a player came.
#[derive(Debug, Clone, Default)]
pub(super) struct Join {
    /// The place that the player was teleported from.
    pub(super) from_place: Option<i64>,
    /// The players who were teleported together.
    pub(super) members: Vec<i64>,
    /// What the teleporting script gave along, JSON.
    pub(super) data: Option<String>,
}

impl World {
    pub(crate) fn new(options: WorldOptions) -> Arc<Self> {
        let WorldOptions { env, chance, place_id, job_ids, latency, openings } = options;
        let public = job_ids.len();
        let servers = job_ids.into_iter().map(|job_id| Server::new(job_id, true)).collect();
        let inner = Inner {
            servers,
            reservations: Reservations::default(),
            players: BTreeMap::new(),
            bans: Bans::default(),
            topics: Topics::default(),
            purchases: Purchases::default(),
            memory: Memory::default(),
        };
        Arc::new(Self {
            env,
            chance,
            place_id,
            public,
            openings,
            latency,
            inner: Mutex::new(inner),
            busy: AtomicUsize::new(0),
            gave_up: Notify::new(),
        })
    }

    pub(super) fn place_id(&self) -> i64 {
        self.place_id
    }

    pub(super) fn job_id(&self, server: usize) -> String {
        self.inner.lock().servers[server].job_id.clone()
    }

    /// How many servers there are that everybody may join.
    pub(super) fn servers(&self) -> usize {
        self.public
    }

    /// A server's machine begins to hear of the world.
    pub(super) fn attach(&self, server: usize, events: Table, scheduler: &Arc<Scheduler>) {
        self.inner.lock().servers[server].machine =
            Some(Machine { events, scheduler: Arc::downgrade(scheduler) });
    }

    /// Tells a server's machine of something.
    pub(super) fn tell(&self, server: usize, event: &str, args: impl IntoLuaMulti) {
        let Some(machine) = self.inner.lock().servers[server].machine.clone() else { return };
        let Some(scheduler) = machine.scheduler.upgrade() else { return };
        match machine.events.get::<Function>(event) {
            Ok(function) => drop(scheduler.spawn(function, args)),
            Err(error) => scheduler.report(&error),
        }
    }

    /// Runs something that belongs to the world by itself.
    pub(super) fn spawn(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static) {
        self.busy.fetch_add(1, Ordering::Relaxed);
        let world = self.clone();
        tokio::spawn(async move {
            work.await;
            world.busy.fetch_sub(1, Ordering::Relaxed);
        });
    }

    /// True when nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.busy.load(Ordering::Relaxed) == 0
    }

    /// Waits until a thread has waited for a child for too long.
    pub(crate) async fn gave_up(&self) {
        self.gave_up.notified().await;
    }

    /// A number below `limit`, at random.
    pub(super) fn random(&self, limit: u64) -> u64 {
        (self.chance.bits() & u128::from(u32::MAX)) as u64 % limit.max(1)
    }

    /// The servers that a player is on.
    pub(super) fn servers_of(&self, user_id: i64) -> Vec<usize> {
        self.inner
            .lock()
            .players
            .get(&user_id)
            .map(|player| player.servers.clone())
            .unwrap_or_default()
    }

    /// Whether a player has ever joined.
    pub(super) fn has_joined(&self, user_id: i64) -> bool {
        self.inner.lock().players.contains_key(&user_id)
    }

    /// How many players are on a server.
    pub(super) fn players_on(&self, server: usize) -> usize {
        self.inner.lock().players.values().filter(|player| player.servers.contains(&server)).count()
    }

    /// How many players have been on any server.
    pub(crate) fn joined(&self) -> usize {
        self.inner.lock().players.len()
    }

    /// A player joins a server. Nothing happens if the player is there already, or is banned.
    pub(super) fn join(self: &Arc<Self>, server: usize, user_id: i64, join: &Join) {
        {
            let mut inner = self.inner.lock();
            if inner.bans.holds(user_id, self.env.unix_ms()) {
                tracing::debug!(user_id, "banned");
                return;
            }
            let servers = &mut inner.players.entry(user_id).or_default().servers;
            if servers.contains(&server) {
                return;
            }
            servers.push(server);
        }
        let name = format!("Player{user_id}");
        let Some(lua) = self.lua(server) else { return };
        let how = || {
            let how = lua.create_table()?;
            how.set("place_id", join.from_place)?;
            how.set("members", join.members.clone())?;
            how.set("data", join.data.clone())?;
            mlua::Result::Ok(how)
        };
        let Ok(how) = how() else { return };
        self.tell(server, "join", (user_id, name.as_str(), name.as_str(), how));
        purchases::offer_all(self, server, Some(user_id));
    }

    fn lua(&self, server: usize) -> Option<mlua::Lua> {
        let machine = self.inner.lock().servers[server].machine.clone()?;
        machine.scheduler.upgrade()?.lua()
    }

    /// A player leaves a server. Nothing happens if the player is not there.
    pub(super) fn leave(&self, server: usize, user_id: i64) {
        {
            let mut inner = self.inner.lock();
            let Some(player) = inner.players.get_mut(&user_id) else { return };
            let before = player.servers.len();
            player.servers.retain(|on| *on != server);
            if player.servers.len() == before {
                return;
            }
        }
        self.tell(server, "leave", user_id);
    }

    /// Everybody leaves a server.
    pub(crate) fn leave_all(&self, server: usize) {
        let here: Vec<i64> = {
            let inner = self.inner.lock();
            inner
                .players
                .iter()
                .filter(|(_, player)| player.servers.contains(&server))
                .map(|(id, _)| *id)
                .collect()
        };
        for user_id in here {
            self.leave(server, user_id);
        }
    }

    /// A server that is gone: nobody is on it, and it hears nothing more.
    pub(crate) fn detach(&self, server: usize) {
        let mut inner = self.inner.lock();
        inner.servers[server].machine = None;
        inner.topics.forget(server);
        for player in inner.players.values_mut() {
            player.servers.retain(|on| *on != server);
        }
    }

    /// Another server than this one at random; this one when there is no other.
    pub(super) fn another(&self, server: usize) -> usize {
        let others: Vec<usize> = (0..self.servers()).filter(|other| *other != server).collect();
        if others.is_empty() {
            server
        } else {
            others[usize::try_from(self.random(others.len() as u64)).unwrap_or(0)]
        }
    }

    /// Among those that everybody may join.
    fn server_of_job(&self, job_id: &str) -> Option<usize> {
        let inner = self.inner.lock();
        inner.servers[..self.public].iter().position(|server| server.job_id == job_id)
    }
}

/// The host's functions about other servers and players.
pub(super) fn install(
    vm: &Vm,
    host: &Table,
    world: &Arc<World>,
    server: usize,
) -> Result<(), Failed> {
    let own = world.clone();
    let leave = move |_: &mlua::Lua, (user_id, message): (i64, Option<String>)| {
        tracing::debug!(user_id, message, "kicked");
        own.leave(server, user_id);
        Ok(())
    };
    host.set("leave", vm.prompt(leave)?)?;

    let own = world.clone();
    let teleport = move |_: &mlua::Lua, args: Teleport| teleport(&own, server, args);
    host.set("teleport", vm.prompt(teleport)?)?;

    let own = world.clone();
    let job_of = move |_: &mlua::Lua, user_id: i64| {
        Ok(own.servers_of(user_id).last().map(|server| own.job_id(*server)))
    };
    host.set("job_of", vm.prompt(job_of)?)?;

    let own = world.clone();
    let give_up = move |_: &mlua::Lua, ()| {
        own.gave_up.notify_one();
        Ok(())
    };
    host.set("give_up", vm.prompt(give_up)?)?;

    bans::install(vm, host, world)?;
    purchases::install(vm, host, world, server)?;
    reserved::install(vm, host, world)?;
    memory::install(vm, host, world)?;
    messages::install(vm, host, world, server)
}

/// Whom a script teleports: their ids, the place, and where to: a server's JobId, a reserved
/// server's access code, or any other server; with what the script gives along, JSON.
type Teleport = (Vec<i64>, i64, Option<String>, Option<String>, Option<String>);

/// Players leave for another server of the same place. Its JobId is the answer.
fn teleport(
    world: &Arc<World>,
    server: usize,
    (user_ids, place_id, job_id, code, data): Teleport,
) -> Answer<String> {
    if place_id != world.place_id {
        return Err(format!(
            "no server of place {place_id} is simulated; all of them run place {}",
            world.place_id
        ));
    }
    let to = match (job_id, code) {
        (Some(job_id), _) => {
            world.server_of_job(&job_id).ok_or_else(|| format!("there is no server {job_id}"))?
        }
        (None, Some(code)) => world
            .reserved_server(&code)
            .ok_or_else(|| format!("no server was reserved with the access code {code}"))?,
        (None, None) => world.another(server),
    };
    let own = world.clone();
    world.spawn(async move {
        // The step in which the script called ends first.
        tokio::task::yield_now().await;
        own.has_started(to).await;
        let join = Join { from_place: Some(place_id), members: user_ids.clone(), data };
        for user_id in user_ids {
            if own.servers_of(user_id).contains(&server) {
                own.leave(server, user_id);
                own.join(to, user_id, &join);
            }
        }
    });
    Ok(world.job_id(to))
}
