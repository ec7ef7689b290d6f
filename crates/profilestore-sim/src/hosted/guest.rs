//! A game server that runs elsewhere, as an SDK makes it: connections, pings, belief, sessions, and
//! requests that are repeated until they are answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use profilestore::{
    ErrorKind,
    data_store::{Incarnation, ServerId, fault::LineState},
    hosting::{Adopted, HostedServer, Registration, Resume, Resumed},
};
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    HOSTS, World,
    wire::{Ask, Asked, profile_key},
};
use crate::{
    data::{Label, Letter, Player},
    dice::Dice,
    world::life::Life,
};

mod play;
mod talk;

/// How often it pings.
const PING: Duration = Duration::from_secs(2);

/// After how long without a pong it looks for another host.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a greeting, or an adoption, may take.
const GREETING: Duration = Duration::from_secs(15);

/// What a lease is by default.
const LEASE: Duration = Duration::from_secs(20);

/// The longest that it may believe behind a ping.
const BELIEF: Duration = Duration::from_secs(6);

/// How many profiles it plays at once.
const MOST_SESSIONS: usize = 3;

pub(super) struct Guest {
    world: Arc<World>,
    number: usize,
    dice: Dice,
    state: Mutex<State>,
}

struct State {
    /// Its name, another one in each life.
    job: String,
    life: u64,
    identity: Option<(ServerId, Incarnation)>,
    server: Option<HostedServer>,
    process: Option<Arc<Life>>,
    node: usize,
    connection: u64,
    /// What talks over the connection that counts.
    talking: Option<AbortHandle>,
    wants_to_move: bool,
    stalled_until: Instant,
    paused_until: Instant,
    dead_until: Option<Instant>,
    last_pong: Instant,
    belief: Instant,
    sessions: BTreeMap<String, Playing>,
    /// Profiles that were closed before their start was answered.
    closed_early: BTreeSet<String>,
    /// Profiles whose start was given up. Their players seldom come back to this game server, so
    /// what an earlier host took for such a start stays without a session.
    left: BTreeSet<String>,
    unanswered: Asked,
    answered: Asked,
    next: u64,
    rests: bool,
    is_over: bool,
}

/// A session as it plays it.
struct Playing {
    label: Label,
    epoch: u64,
    n: u64,
    document: Player,
    /// What it saved before, to go back to.
    old: Option<Player>,
    inbox: BTreeMap<u64, Letter>,
    /// Messages whose effect is in the document.
    handled: BTreeSet<u64>,
    /// Those of them that no answered save has.
    unsaved: BTreeSet<u64>,
    /// It was asked to let go.
    asked: bool,
}

/// What a session sends next.
struct Next {
    epoch: u64,
    n: u64,
    document: Player,
    processed: Vec<u64>,
}

impl Guest {
    pub(super) fn start(world: &Arc<World>, number: usize) -> Arc<Self> {
        let now = Instant::now();
        let guest = Arc::new(Self {
            world: world.clone(),
            number,
            dice: Dice::new(world.seed, 73_000 + number as u64),
            state: Mutex::new(State {
                job: format!("g{number}-0"),
                life: 0,
                identity: None,
                server: None,
                process: None,
                node: number % HOSTS,
                connection: 0,
                talking: None,
                wants_to_move: false,
                stalled_until: now,
                paused_until: now,
                dead_until: None,
                last_pong: now,
                belief: now,
                sessions: BTreeMap::new(),
                closed_early: BTreeSet::new(),
                left: BTreeSet::new(),
                unanswered: Asked::new(),
                answered: Asked::new(),
                next: 0,
                rests: false,
                is_over: false,
            }),
        });
        tokio::spawn(guest.clone().live());
        guest
    }

    pub(super) fn job(&self) -> String {
        self.state.lock().job.clone()
    }

    /// What it is in the store, if it has registered.
    pub(super) fn identity(&self) -> Option<(ServerId, Incarnation)> {
        self.state.lock().identity
    }

    // --- what happens to it -------------------------------------------------------------------

    pub(super) fn kill(&self) {
        self.state.lock().is_over = true;
    }

    pub(super) fn stall(&self, time: Duration) {
        self.world.count("connections stalled");
        self.state.lock().stalled_until = Instant::now() + time;
    }

    pub(super) fn moves(&self) {
        self.state.lock().wants_to_move = true;
    }

    /// What it asked for last comes late at the host that it has left.
    pub(super) fn moves_and_stalls(&self, time: Duration) {
        self.stall(time);
        self.moves();
    }

    pub(super) fn pause(&self, time: Duration) {
        self.world.count("game servers stopped");
        let mut state = self.state.lock();
        state.paused_until = Instant::now() + time;
        self.world.note(None, || format!("{} is stopped for {time:?}", state.job));
    }

    pub(super) fn die(&self, away: Duration) {
        self.world.count("game servers killed");
        let mut state = self.state.lock();
        self.world.note(None, || format!("{} is killed", state.job));
        let keys: Vec<String> = std::mem::take(&mut state.sessions).into_keys().collect();
        let mut ledger = self.world.ledger.lock();
        keys.iter().for_each(|key| ledger.is_over(&state.job, key));
        drop(ledger);
        // Its host does not know, and keeps what it has for a while.
        if let Some(server) = state.server.take() {
            tokio::spawn(async move {
                sleep(LEASE * 5).await;
                drop(server);
            });
        }
        state.life += 1;
        state.job = format!("g{}-{}", self.number, state.life);
        state.connection += 1;
        state.identity = None;
        state.unanswered.clear();
        state.answered.clear();
        state.closed_early.clear();
        state.left.clear();
        state.dead_until = Some(Instant::now() + away);
    }

    // --- its life -------------------------------------------------------------------------------

    async fn live(self: Arc<Self>) {
        loop {
            sleep(self.dice.seconds(0.1, 2.0)).await;
            let now = Instant::now();
            let connected = {
                let mut state = self.state.lock();
                if state.is_over || self.world.is_broken() {
                    return;
                }
                if state.paused_until > now {
                    continue;
                }
                if state.dead_until.is_some_and(|until| until > now && !self.world.is_calm()) {
                    continue;
                }
                state.dead_until = None;
                let gone = state.process.as_ref().is_none_or(|life| life.is_over());
                let quiet = now - state.last_pong > PATIENCE;
                let stopped = state.server.as_ref().is_none_or(|it| it.stopped().is_some());
                !(gone || quiet || stopped || state.wants_to_move)
            };
            if connected {
                self.act();
            } else {
                self.connect().await;
            }
        }
    }

    /// Registers or resumes at a host, and finds its sessions again.
    async fn connect(self: &Arc<Self>) {
        let (node, job, run, identity) = {
            let mut state = self.state.lock();
            state.node = if state.wants_to_move || self.dice.chance(0.5) {
                self.dice.below(HOSTS)
            } else {
                state.node
            };
            (state.node, state.job.clone(), state.job.clone(), state.identity)
        };
        let Some(process) = self.world.running(node) else { return };
        if process.life.line.state() != LineState::Open {
            self.state.lock().wants_to_move = true;
            return;
        }
        let again = Registration { job: job.clone(), place: 1, owner: run, lease_time: None };
        let greeting = async {
            Ok::<_, profilestore::Error>(match identity {
                None => (process.host.register(again).await?, false),
                Some((incarnation, store)) => {
                    let owner = again.owner.clone();
                    let resume = Resume { incarnation, store, owner, again };
                    match process.host.resume(resume).await? {
                        Resumed::Same(server) => (server, false),
                        resumed => (resumed.server().clone(), true),
                    }
                }
            })
        };
        let greeted = timeout(GREETING, greeting).await;
        let (server, is_another) = match greeted {
            Ok(Ok(greeted)) => greeted,
            Ok(Err(error)) if error.kind() == ErrorKind::NotFound => {
                self.world.note(None, || format!("{job} is forgotten: {error}"));
                return self.forgotten(&job);
            }
            _ => return,
        };
        let (connection, named) = {
            let mut state = self.state.lock();
            if state.job != job {
                // It was killed meanwhile.
                return;
            }
            state.wants_to_move = false;
            state.connection += 1;
            state.identity = Some((server.incarnation(), server.store()));
            state.server = Some(server.clone());
            state.process = Some(process.life.clone());
            let now = Instant::now();
            (state.stalled_until, state.last_pong) = (now, now);
            self.world.ledger.lock().asks_again(&job);
            if is_another {
                state.belief = now;
                self.world.ledger.lock().doubts(&job);
                self.world.count("game servers that began anew");
            }
            let named = state.sessions.iter().map(|(key, playing)| (key.clone(), playing.epoch));
            (state.connection, named.collect::<Vec<_>>())
        };
        self.world.note(None, || format!("{job} is at {} anew={is_another}", process.life.job));
        // One connection at a time takes what is to be told.
        if let Some(before) = self.state.lock().talking.take() {
            before.abort();
        }
        server.tell_again();
        let talking = self.clone().talk(connection, server.clone(), process.life.clone());
        self.state.lock().talking = Some(tokio::spawn(talking).abort_handle());
        for (key, epoch) in named {
            if !self.adopted(connection, &server, &key, epoch).await {
                return;
            }
        }
        server.all_named();
        for (i, ask) in self.still_wanted() {
            self.send(connection, i, ask);
        }
    }

    /// What was not answered. Now and then nobody waits for a start any more.
    fn still_wanted(&self) -> Asked {
        let state = &mut *self.state.lock();
        let left = &mut state.left;
        state.unanswered.retain(|_, ask| match ask {
            Ask::Start { key } if self.dice.chance(0.2) => {
                self.world.note(Some(key), || format!("{} gives a start up", state.job));
                left.insert(key.clone());
                false
            }
            _ => true,
        });
        state.unanswered.clone()
    }

    fn forgotten(&self, job: &str) {
        let mut state = self.state.lock();
        if state.job == job {
            state.identity = None;
            let keys: Vec<String> = std::mem::take(&mut state.sessions).into_keys().collect();
            let mut ledger = self.world.ledger.lock();
            keys.iter().for_each(|key| ledger.is_over(job, key));
        }
    }

    /// False: this connection counts no more, or is given up because it takes too long.
    async fn adopted(&self, connection: u64, server: &HostedServer, key: &str, epoch: u64) -> bool {
        loop {
            let asked = timeout(GREETING, server.adopt(&profile_key(key), epoch)).await;
            let Some(job) = self.current(connection) else { return false };
            match asked {
                Ok(Ok(Adopted::Held { .. })) => {
                    let belief = self.state.lock().belief;
                    self.world.ledger.lock().found_again(&job, key, belief);
                    self.world.count("sessions adopted");
                    return true;
                }
                Ok(Ok(_)) => {
                    self.world.ledger.lock().not_found_again(&job, key);
                    self.lost(&job, key, "was not found again");
                    return true;
                }
                Err(_) => {
                    // What is not answered is sent only when all sessions are found again.
                    self.world.note(Some(key), || format!("{job} looks for another host"));
                    self.moves();
                    return false;
                }
                Ok(Err(_)) if server.stopped().is_some() => return false,
                Ok(Err(_)) => sleep(Duration::from_millis(500)).await,
            }
        }
    }

    /// Its name, if this connection counts.
    fn current(&self, connection: u64) -> Option<String> {
        let state = self.state.lock();
        (state.connection == connection && !state.is_over).then(|| state.job.clone())
    }

    fn lost(&self, job: &str, key: &str, how: &str) {
        let mut state = self.state.lock();
        if state.job == job && state.sessions.remove(key).is_some() {
            let mut ledger = self.world.ledger.lock();
            ledger.is_over(job, key);
            ledger.counts.add("sessions lost");
            ledger.note(Some(key), || format!("the session of {job} {how}"));
        }
    }
}
