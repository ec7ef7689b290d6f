//! One game server of a game: its machine, its identity in the store, its end.

use std::{collections::BTreeMap, sync::Arc};

use profilestore::{GameServer, env::Env};

use super::{Report, Script};
use crate::{
    modules,
    output::{Line, Output},
    services::{Services, ServicesOptions, World},
    vm::{Failed, Limits, Vm, VmOptions},
};

pub(crate) struct Server {
    number: usize,
    vm: Vm,
    services: Services,
    world: Arc<World>,
    game_server: GameServer,
}

impl Server {
    pub(crate) fn new(
        number: usize,
        game_server: GameServer,
        env: Env,
        output: Arc<dyn Output>,
        limits: Limits,
        world: Arc<World>,
        mounted: Arc<BTreeMap<String, String>>,
    ) -> Result<Self, Failed> {
        let vm = Vm::new(VmOptions { server: number, env: env.clone(), output, limits })?;
        let built_in = modules::install(&vm, game_server.clone())?;
        let services = ServicesOptions { server: number - 1, env, world: world.clone(), built_in, mounted };
        let services = Services::install(&vm, services)?;
        vm.seal()?;
        Ok(Self { number, vm, services, world, game_server })
    }

    /// Starts a script; it has waited or ended when this returns.
    pub(crate) fn run(&self, script: &Script) -> Result<(), Failed> {
        let globals = self.services.script_globals(self.vm.lua(), &script.name)?;
        self.vm.run(&script.name, &script.source, &globals)?;
        Ok(())
    }

    /// True when no thread waits for anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.vm.scheduler().is_idle()
    }

    /// What makes it crash: nothing runs any more, nothing is saved, nobody is on it.
    pub(crate) fn crasher(&self) -> impl Fn() + Send + 'static {
        let scheduler = self.vm.scheduler().clone();
        let (game_server, world, number) = (self.game_server.clone(), self.world.clone(), self.number);
        move || {
            scheduler.line(Line::Warn, "the server crashes");
            scheduler.close();
            game_server.crash();
            world.detach(number - 1);
        }
    }

    /// Shuts the server down: what is bound to its closing runs, everybody leaves, everything is saved.
    pub(crate) async fn close(&self) -> Result<Report, Failed> {
        let (scheduler, server) = (self.vm.scheduler(), self.number);
        if scheduler.is_closed() {
            return Ok(Report { failures: scheduler.failures(), ..Report::default() });
        }
        if !self.services.close(&self.vm, || self.world.leave_all(server - 1)).await? {
            scheduler.report_text("the functions that are bound to the closing of the game took longer than 30 s");
        }
        let shutdown = self.game_server.shutdown().await;
        let not_saved = shutdown.not_saved.iter().map(|(key, error)| format!("server {server}: {key}: {error}")).collect();
        Ok(Report { failures: scheduler.failures(), not_saved })
    }
}
