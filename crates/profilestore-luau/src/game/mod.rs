//! A game: its servers, each with a machine of its own, on one store.

mod classes;
mod server;
mod servers;
mod standstill;
mod time;
mod weather;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use futures_util::future::{LocalBoxFuture, join_all};
use parking_lot::Mutex;
use profilestore::{
    Settings,
    data_store::{DataStore, MemoryStore},
    env::Env,
    messenger::{LocalMessenger, Messenger},
    roblox::BudgetRules,
};
use tokio::{sync::mpsc, time::Instant};

pub(crate) use self::server::{Server, ServerOptions};
pub use self::{classes::Class, time::Time};
use self::{servers::Common, standstill::Standstill, weather::Weather};
use crate::{
    http::{Client, HttpHost},
    output::{Console, Output},
    project::Tree,
    services::{World, WorldOptions, players::Plan},
    specs::{Collector, SpecOptions, SpecReport},
    vm::{Failed, Limits},
};

/// A script: what it is called in tracebacks, and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Shown in errors.
    pub name: String,
    /// Luau.
    pub source: String,
}

/// What came of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "a script may have failed"]
#[non_exhaustive]
pub struct Report {
    /// How many threads ended with an error, on all servers.
    pub failures: u64,
    /// Profiles whose last changes are not known to be saved, as texts.
    pub not_saved: Vec<String>,
    /// How long the game was played until it began to end, in its own time.
    pub played: Duration,
    /// How many scripts each server began with.
    pub scripts: usize,
    /// How many players have joined.
    pub players: usize,
}

impl Report {
    fn add(&mut self, other: Self) {
        self.failures += other.failures;
        self.not_saved.extend(other.not_saved);
    }

    /// True when nothing went wrong.
    pub fn is_success(&self) -> bool {
        self.failures == 0 && self.not_saved.is_empty()
    }
}

/// Where profiles are kept, and what carries hints.
type Opened = (Arc<dyn DataStore>, Arc<dyn Messenger>);
type MakeStore = Box<dyn FnOnce(Env) -> LocalBoxFuture<'static, Result<Opened, Failed>>>;

/// What a game is built from. See [`Game::builder`].
pub struct GameBuilder {
    servers: usize,
    time: Time,
    seed: u64,
    until: Option<Duration>,
    place_id: i64,
    store: Option<MakeStore>,
    settings: Settings,
    limits: Limits,
    output: Option<Arc<dyn Output>>,
    players: Plan,
    modules: BTreeMap<String, String>,
    tree: Option<Arc<Tree>>,
    specs: Option<Arc<Collector>>,
    client: Option<Arc<Script>>,
    hosts: Vec<HttpHost>,
    weather: Weather,
    budgets: Option<BudgetRules>,
}

impl fmt::Debug for GameBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GameBuilder")
            .field("servers", &self.servers)
            .field("time", &self.time)
            .finish_non_exhaustive()
    }
}

impl GameBuilder {
    /// How many game servers run the script. 1.
    #[must_use]
    pub fn servers(mut self, servers: usize) -> Self {
        self.servers = servers.max(1);
        self
    }

    /// Real or virtual time. Real.
    #[must_use]
    pub fn time(mut self, time: Time) -> Self {
        self.time = time;
        self
    }

    /// In virtual time, what decides everything that is random. 0. Identifiers of a run on a store
    /// of the caller's are an exception: they differ from run to run, since the store may hold
    /// those of earlier ones. Where real threads answer that store's calls, as those of a file or a
    /// database, calls may also end in another order.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Shut the servers down after so long. Without it, once every script has ended and nothing
    /// waits, or at Ctrl-C.
    #[must_use]
    pub fn until(mut self, until: Duration) -> Self {
        self.until = Some(until);
        self
    }

    /// `game.PlaceId`. 0.
    #[must_use]
    pub fn place_id(mut self, place_id: i64) -> Self {
        self.place_id = place_id;
        self
    }

    /// Where profiles are kept, and what carries hints between the servers. `open` is called on the
    /// game's own runtime with its clock. A store in memory without it.
    #[must_use]
    pub fn store(
        mut self,
        open: impl FnOnce(&Env) -> Result<(Arc<dyn DataStore>, Arc<dyn Messenger>), profilestore::Error>
        + 'static,
    ) -> Self {
        self.store =
            Some(Box::new(|env| Box::pin(async move { open(&env).map_err(Failed::from) })));
        self
    }

    /// The same for what has to be connected to first. Not in virtual time, in which nobody outside
    /// of the game lives.
    #[must_use]
    pub fn connect<W>(mut self, open: impl FnOnce(Env) -> W + 'static) -> Self
    where
        W: Future<Output = Result<(Arc<dyn DataStore>, Arc<dyn Messenger>), profilestore::Error>>
            + 'static,
    {
        self.store =
            Some(Box::new(|env| Box::pin(async move { open(env).await.map_err(Failed::from) })));
        self
    }

    /// Periods and limits of every server.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// What scripts may use.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Where the scripts' lines go. To the console without it.
    #[must_use]
    pub fn output(mut self, output: Arc<dyn Output>) -> Self {
        self.output = Some(output);
        self
    }

    /// Who joins, hops, buys and leaves, and when. Nobody without it.
    #[must_use]
    pub fn players(mut self, players: Plan) -> Self {
        self.players = players;
        self
    }

    /// A Luau module in `game.ServerScriptService`, for scripts to `require`. Takes the place of a
    /// built-in one of this name.
    #[must_use]
    pub fn module(mut self, name: impl Into<String>, source: impl Into<String>) -> Self {
        self.modules.insert(name.into(), source.into());
        self
    }

    /// What each player's client runs, from when the player joins a server until the player leaves
    /// it. It is a script on the server's machine that speaks for the client: `client.fire(remote,
    /// ...)`, `client.invoke`, `client.event(remote)`, `client.answer` and `client.leave`, with
    /// `player`. No client without it.
    #[must_use]
    pub fn client(mut self, script: Script) -> Self {
        self.client = Some(Arc::new(script));
        self
    }

    /// A host that scripts may reach through HttpService; may be called for several. None without
    /// it. A run that reaches one cannot be repeated from its seed. In virtual time a request takes
    /// none.
    #[must_use]
    pub fn allow_http(mut self, host: HttpHost) -> Self {
        self.hosts.push(host);
        self
    }

    /// The game's instances, as its project describes them; its scripts run with
    /// [`GameBuilder::play`].
    #[must_use]
    pub fn tree(mut self, tree: Arc<Tree>) -> Self {
        self.tree = Some(tree);
        self
    }

    /// How long each call of a data store takes, each call of the store by a built-in module, and
    /// each message. 0.
    #[must_use]
    pub fn latency(mut self, latency: Duration) -> Self {
        self.weather.latency = latency;
        self
    }

    /// How many of a hundred calls of a data store, or of the store by a built-in module, fail.
    /// Half of those are applied all the same. Servers start even so. 0.
    #[must_use]
    pub fn errors(mut self, percent: f64) -> Self {
        self.weather.errors = percent.clamp(0.0, 100.0);
        self
    }

    /// Request budgets of DataStoreService. None without it.
    #[must_use]
    pub fn budgets(mut self, budgets: BudgetRules) -> Self {
        self.budgets = Some(budgets);
        self
    }

    /// Runs a script on every server, until the end. Blocks the calling thread, which must not be
    /// within an async runtime. Fails when the store cannot be opened; errors of the scripts are in
    /// the report and were printed.
    ///
    /// In virtual time a loop over calls that are answered at once keeps time from passing. When
    /// none has passed in six times [`Limits::step`] of real time for each server, the game ends,
    /// which counts as a failure. So it is with the store in memory and without hosts that scripts
    /// may reach: other stores, and the network, take real time.
    pub fn run(self, script: &Script) -> Result<Report, Failed> {
        self.run_through(Plays::Script(script))
    }

    /// Runs the scripts of the game's tree that run on servers: every enabled `Script` in Workspace
    /// and ServerScriptService that is no client's. Otherwise as [`run`](Self::run). Fails when
    /// there is no such script.
    pub fn play(self) -> Result<Report, Failed> {
        self.run_through(Plays::Tree)
    }

    /// Runs the tests of a file of the game's tree, one after another on the first server. The
    /// lines that scripts print are in the report. What the tests leave behind goes on for 5 s of
    /// the game's time. It is stopped when that really takes six times [`Limits::step`], which is a
    /// failure. So is a test, or the end of the game, for which no time passes in the game for as
    /// long.
    pub fn test(mut self, file: &str, options: &SpecOptions) -> Result<SpecReport, Failed> {
        let collector = Arc::new(Collector::new(options, self.limits, self.weather.errors > 0.0));
        self.output = Some(collector.clone());
        self.specs = Some(collector.clone());
        let report = self.run_through(Plays::Spec(file, options))?;
        Ok(collector.report(&report.not_saved))
    }

    fn run_through(self, plays: Plays<'_>) -> Result<Report, Failed> {
        let runtime = self.time.runtime()?;
        let report = runtime.block_on(self.run_here(plays));
        runtime.shutdown_background();
        report
    }

    async fn run_here(self, plays: Plays<'_>) -> Result<Report, Failed> {
        let in_memory = self.time == Time::Virtual && self.store.is_none() && self.hosts.is_empty();
        let output = self.output.unwrap_or_else(|| Arc::new(Console::new(self.servers > 1)));
        let env = self.time.env(self.seed, self.store.is_some());
        let chance = self.time.chance(self.seed);
        let (store, messenger) = match self.store {
            Some(open) => open(env.clone()).await?,
            None => (
                Arc::new(MemoryStore::new(env.clone())) as Arc<dyn DataStore>,
                Arc::new(LocalMessenger::new()) as Arc<dyn Messenger>,
            ),
        };
        let job_ids: Vec<String> = (0..self.servers).map(|_| env.uuid().to_string()).collect();
        let (openings, mut opened) = mpsc::unbounded_channel();
        let world = World::new(WorldOptions {
            env: env.clone(),
            chance: chance.clone(),
            place_id: self.place_id,
            job_ids: job_ids.clone(),
            latency: self.weather.latency,
            openings,
        });
        let http =
            (!self.hosts.is_empty()).then(|| Arc::new(Client::new(self.hosts, self.place_id)));
        let common = Common {
            store,
            messenger,
            env,
            chance,
            world: world.clone(),
            seed: self.seed,
            place_id: self.place_id,
            settings: self.settings,
            weather: self.weather,
            budgets: self.budgets,
            output,
            limits: self.limits,
            mounted: Arc::new(self.modules),
            tree: self.tree,
            specs: self.specs.clone(),
            client: self.client,
            http,
        };
        let mut servers = Vec::new();
        for (number, job_id) in job_ids.iter().enumerate() {
            servers.push(common.server(number + 1, job_id).await?);
        }
        let mut report = Report::default();
        for server in &servers {
            match plays.start(server) {
                Ok(scripts) => report.scripts = scripts,
                Err(failed) => {
                    join_all(servers.iter().map(Server::abandon)).await;
                    return Err(failed);
                }
            }
        }
        let crashers: Arc<Mutex<Vec<_>>> =
            Arc::new(Mutex::new(servers.iter().map(Server::crasher).collect()));
        self.players.start(&world, move |server| (crashers.lock()[server])())?;
        let (specs, time, until, began) = (self.specs, self.time, self.until, Instant::now());
        let mut standstill =
            Standstill::new(specs.as_ref(), in_memory, self.servers, self.limits.step);
        let nothing_left = loop {
            let left = until.map(|until| until.saturating_sub(began.elapsed()));
            let end = async {
                match &specs {
                    Some(specs) => Time::wait_for(specs.done()).await,
                    None => time.wait(left, &world, &servers).await,
                }
            };
            let opening = tokio::select! {
                biased;
                nothing_left = end => break nothing_left,
                Some(opening) = opened.recv() => opening,
                () = standstill.noticed() => {
                    if standstill.stop(&servers)? {
                        report.failures += 1;
                        break false;
                    }
                    continue;
                }
            };
            let server = common.server(opening.server + 1, &opening.job_id).await?;
            plays.start(&server)?;
            servers.push(server);
            world.started(opening.server);
        };
        (report.played, report.players) = (began.elapsed(), world.joined());
        if specs.as_ref().is_some_and(|specs| specs.has_given_up()) {
            // The game's time may stand still as long as their threads run.
            join_all(servers.iter().map(Server::abandon)).await;
        }
        for closed in standstill.close(&servers, nothing_left).await {
            report.add(closed?);
        }
        if let Some(specs) = &specs {
            servers.iter().for_each(|server| specs.covered(server.counted()));
        }
        Ok(report)
    }
}

/// What runs on each server.
enum Plays<'a> {
    Script(&'a Script),
    Tree,
    Spec(&'a str, &'a SpecOptions),
    /// Nothing; the machine's classes are put there.
    Nothing(&'a Mutex<Vec<Class>>),
}

impl Plays<'_> {
    /// Says how many scripts have begun.
    fn start(&self, server: &Server) -> Result<usize, Failed> {
        match self {
            Self::Script(script) => server.run(script).map(|()| 1),
            Self::Tree => match server.run_tree()? {
                0 => Err(Failed::nothing_runs()),
                scripts => Ok(scripts),
            },
            Self::Nothing(classes) => {
                *classes.lock() = server.classes()?;
                Ok(0)
            }
            Self::Spec(file, options) => {
                if options.play {
                    server.run_tree()?;
                }
                if server.number() == 1 {
                    server.run_spec(file, options.limit)?;
                }
                Ok(0)
            }
        }
    }
}

/// A number of game servers that run a script. See [`Game::builder`].
#[derive(Debug)]
pub struct Game(());

impl Game {
    /// Begins to describe a game.
    ///
    /// ```
    /// use profilestore_luau::{Game, Script, Time};
    /// # fn main() -> Result<(), profilestore_luau::Failed> {
    /// let source = "task.wait(300) print(os.clock() > 300)".into();
    /// let script = Script { name: "game".into(), source };
    /// let report = Game::builder().time(Time::Virtual).run(&script)?;
    /// assert!(report.is_success());
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> GameBuilder {
        GameBuilder {
            servers: 1,
            time: Time::Real,
            seed: 0,
            until: None,
            place_id: 0,
            store: None,
            settings: Settings::default(),
            limits: Limits::default(),
            output: None,
            players: Plan::default(),
            modules: BTreeMap::new(),
            tree: None,
            specs: None,
            client: None,
            hosts: Vec::new(),
            weather: Weather::default(),
            budgets: None,
        }
    }
}
