//! A game: its servers, each with a machine of its own, on one store.

mod server;
mod time;

use std::{fmt, sync::Arc, time::Duration};

use profilestore::{
    GameServer, Settings,
    data_store::{DataStore, MemoryStore},
    env::Env,
    messenger::{LocalMessenger, Messenger},
};

pub(crate) use self::server::Server;
pub use self::time::Time;
use crate::{
    output::{Console, Output},
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
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a script may have failed"]
#[non_exhaustive]
pub struct Report {
    /// How many threads ended with an error, on all servers.
    pub failures: u64,
    /// Profiles whose last changes are not known to be saved, as texts.
    pub not_saved: Vec<String>,
}

impl Report {
    /// True when nothing went wrong.
    pub fn is_success(&self) -> bool {
        self.failures == 0 && self.not_saved.is_empty()
    }
}

type MakeStore = Box<dyn FnOnce(&Env) -> Result<(Arc<dyn DataStore>, Arc<dyn Messenger>), Failed>>;

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
}

impl fmt::Debug for GameBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GameBuilder").field("servers", &self.servers).field("time", &self.time).finish_non_exhaustive()
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

    /// In virtual time, what decides everything that is random. 0.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Shut the servers down after so long. Without it, once every script has ended and nothing waits, or at Ctrl-C.
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

    /// Where profiles are kept, and what carries hints between the servers. `open` is called on the game's own runtime with its
    /// clock. A store in memory without it.
    #[must_use]
    pub fn store(
        mut self,
        open: impl FnOnce(&Env) -> Result<(Arc<dyn DataStore>, Arc<dyn Messenger>), profilestore::Error> + 'static,
    ) -> Self {
        self.store = Some(Box::new(|env| open(env).map_err(Failed::from)));
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

    /// Runs a script on every server, until the end. Blocks the calling thread, which must not be within an async runtime. Fails when
    /// the store cannot be opened; errors of the scripts are in the report and were printed.
    pub fn run(self, script: &Script) -> Result<Report, Failed> {
        let runtime = self.time.runtime()?;
        let report = runtime.block_on(self.run_here(script));
        runtime.shutdown_background();
        report
    }

    async fn run_here(self, script: &Script) -> Result<Report, Failed> {
        let output = self.output.unwrap_or_else(|| Arc::new(Console::new(self.servers > 1)));
        let env = self.time.env(self.seed);
        let (store, messenger) = match self.store {
            Some(open) => open(&env)?,
            None => (
                Arc::new(MemoryStore::new(env.clone())) as Arc<dyn DataStore>,
                Arc::new(LocalMessenger::new()) as Arc<dyn Messenger>,
            ),
        };
        let mut servers = Vec::new();
        for number in 1..=self.servers {
            let mut builder =
                GameServer::builder(store.clone()).env(env.clone()).settings(self.settings.clone()).place_id(self.place_id);
            builder = builder.messenger(messenger.clone());
            let game_server = builder.job_id(env.uuid().to_string()).start().await?;
            servers.push(Server::new(number, game_server, env.clone(), output.clone(), self.limits)?);
        }
        for server in &servers {
            server.run(script)?;
        }
        self.time.wait(self.until, &servers).await;
        let mut report = Report { failures: 0, not_saved: Vec::new() };
        for server in &servers {
            server.close(&mut report).await;
        }
        Ok(report)
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
    /// let script = Script { name: "game".into(), source: "task.wait(300) print(os.clock() > 300)".into() };
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
        }
    }
}
