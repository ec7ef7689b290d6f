//! One game server of a game: its machine, its identity in the store, its end.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use profilestore::{
    GameServer,
    env::{Env, Rng},
    roblox::RobloxDataStores,
};

use super::{Class, Report, Script};
use crate::{
    host::Ending,
    http::Client,
    modules,
    output::{Line, Output},
    project::Tree,
    services::{Services, ServicesOptions, World, reach_foreign_holders},
    specs::Collector,
    vm::{Failed, Limits, Vm, VmOptions, coverage},
};

pub(crate) struct Server {
    number: usize,
    vm: Vm,
    services: Services,
    world: Arc<World>,
    /// That of the built-in modules, and that of the data stores, which go on while the game
    /// closes.
    game_servers: [GameServer; 2],
    ending: Arc<Ending>,
    tree: Option<Arc<Tree>>,
}

/// What a server is made with.
pub(crate) struct ServerOptions {
    /// Counts from 1.
    pub(crate) number: usize,
    pub(crate) game_server: GameServer,
    /// A second one that the data stores are on.
    pub(crate) beside: GameServer,
    pub(crate) data_stores: RobloxDataStores,
    pub(crate) env: Env,
    pub(crate) chance: Arc<dyn Rng>,
    pub(crate) output: Arc<dyn Output>,
    pub(crate) limits: Limits,
    pub(crate) world: Arc<World>,
    pub(crate) mounted: Arc<BTreeMap<String, String>>,
    pub(crate) tree: Option<Arc<Tree>>,
    pub(crate) specs: Option<Arc<Collector>>,
    pub(crate) client: Option<Arc<Script>>,
    pub(crate) http: Option<Arc<Client>>,
}

impl Server {
    pub(crate) fn new(options: ServerOptions) -> Result<Self, Failed> {
        let ServerOptions {
            number,
            game_server,
            beside,
            data_stores,
            env,
            chance,
            output,
            limits,
            world,
            mounted,
            tree,
            specs,
            client,
            http,
        } = options;
        let vm = Vm::new(VmOptions { server: number, env: env.clone(), chance, output, limits })?;
        if let (Some(specs), Some(tree)) = (&specs, &tree)
            && specs.coverage
        {
            coverage::watch(vm.lua(), tree.own_scripts());
        }
        let ending = Ending::new(game_server.clone());
        let built_in = modules::install(&vm, ending.clone())?;
        let server = number - 1;
        let services = ServicesOptions {
            server,
            env,
            world: world.clone(),
            data_stores,
            built_in,
            mounted,
            tree: tree.clone(),
            specs,
            client,
            http,
        };
        let services = Services::install(&vm, services)?;
        reach_foreign_holders(&world, server, &game_server);
        vm.seal()?;
        let game_servers = [game_server, beside];
        Ok(Self { number, vm, services, world, game_servers, ending, tree })
    }

    /// Starts a script; it has waited or ended when this returns.
    pub(crate) fn run(&self, script: &Script) -> Result<(), Failed> {
        let globals = self.services.script_globals(self.vm.lua(), &script.name)?;
        self.vm.run(&script.name, &script.source, &globals)?;
        Ok(())
    }

    /// Starts the scripts of the game's tree that run on servers. One that cannot be compiled is
    /// reported, and the others run, as on Roblox. Says how many there are.
    pub(crate) fn run_tree(&self) -> Result<usize, Failed> {
        let Some(tree) = &self.tree else { return Ok(0) };
        let scripts = self.services.scripts(self.vm.lua())?;
        for (file, globals) in &scripts {
            let source = tree.sources.get(file).map_or("", String::as_str);
            if let Err(error) = self.vm.run(file, source, globals) {
                self.vm.scheduler().report_text(&error.to_string());
            }
        }
        Ok(scripts.len())
    }

    /// Begins to run a file's tests.
    pub(crate) fn run_spec(&self, file: &str, limit: Duration) -> Result<(), Failed> {
        self.services.run_spec(&self.vm, file, limit.as_secs_f64())
    }

    /// Stops the test that runs, for this reason.
    pub(super) fn stop_test(&self, reason: &str) -> Result<(), Failed> {
        self.services.stop_test(&self.vm, reason)
    }

    /// Ends the threads that make calls for which no time passes.
    pub(super) fn drop_calls(&self) {
        self.vm.scheduler().drop_calls();
    }

    /// Whether no script runs on it any more.
    pub(super) fn has_ended(&self) -> bool {
        self.vm.scheduler().is_closed()
    }

    /// Prints a line that none of its scripts has made.
    pub(super) fn line(&self, kind: Line, text: &str) {
        self.vm.scheduler().line(kind, text);
    }

    /// No script runs from now on.
    pub(super) fn stop(&self) {
        self.vm.scheduler().close();
    }

    /// How often lines ran whose runs are counted.
    pub(crate) fn counted(&self) -> coverage::Lines {
        coverage::counted(self.vm.lua(), |name| {
            Some(self.tree.as_ref()?.sources.get(name)?.as_str())
        })
    }

    /// Counts from 1.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// What there is of the machine's classes.
    pub(super) fn classes(&self) -> Result<Vec<Class>, Failed> {
        let described = self.services.describe()?;
        let class = |[name, methods, events, properties, idle]: [Vec<String>; 5]| Class {
            name: name.concat(),
            methods,
            events,
            properties,
            idle,
        };
        Ok(described.into_iter().map(class).collect())
    }

    /// True when no thread waits for anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.vm.scheduler().is_idle()
    }

    /// What makes it crash: nothing runs any more, nothing is saved, nobody is on it.
    pub(crate) fn crasher(&self) -> impl Fn() + Send + 'static {
        let scheduler = self.vm.scheduler().clone();
        let (game_servers, world, number) =
            (self.game_servers.clone(), self.world.clone(), self.number);
        move || {
            scheduler.line(Line::Warn, "the server crashes");
            scheduler.close();
            game_servers.iter().for_each(GameServer::crash);
            world.detach(number - 1);
        }
    }

    /// Ends a server at once: one on which nothing could be started, or whose threads went on for
    /// too long after the last test. No script is told.
    pub(super) async fn abandon(&self) {
        self.stop();
        for game_server in &self.game_servers {
            drop(game_server.shutdown().await);
        }
    }

    /// Shuts the server down: what is bound to its closing runs, everybody leaves, everything is
    /// saved. `nothing_left`: because there was nothing left to be done.
    pub(crate) async fn close(&self, nothing_left: bool) -> Result<Report, Failed> {
        let (scheduler, server) = (self.vm.scheduler(), self.number);
        if scheduler.is_closed() {
            return Ok(Report { failures: scheduler.failures(), ..Report::default() });
        }
        if !self.services.close(&self.vm, nothing_left, || self.world.leave_all(server - 1)).await?
        {
            scheduler.report_text(
                "the functions that are bound to the closing of the game took longer than 30 s",
            );
        }
        let not_saved = self
            .ending
            .reached()
            .await
            .iter()
            .map(|profile| format!("server {server}: {profile}"))
            .collect();
        let [_, beside] = &self.game_servers;
        drop(beside.shutdown().await);
        Ok(Report { failures: scheduler.failures(), not_saved, ..Report::default() })
    }
}
