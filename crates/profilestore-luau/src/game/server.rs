//! One game server of a game: its machine, its identity in the store, its end.

use std::sync::Arc;

use profilestore::{GameServer, env::Env};

use super::{Report, Script};
use crate::{
    modules,
    output::Output,
    vm::{Failed, Limits, Vm, VmOptions},
};

pub(crate) struct Server {
    number: usize,
    vm: Vm,
    game_server: GameServer,
}

impl Server {
    pub(crate) fn new(
        number: usize,
        game_server: GameServer,
        env: Env,
        output: Arc<dyn Output>,
        limits: Limits,
    ) -> Result<Self, Failed> {
        let vm = Vm::new(VmOptions { server: number, env, output, limits })?;
        modules::install_require(&vm, game_server.clone())?;
        Ok(Self { number, vm, game_server })
    }

    /// Starts a script; it has waited or ended when this returns.
    pub(crate) fn run(&self, script: &Script) -> Result<(), Failed> {
        let extra = self.vm.lua().create_table()?;
        self.vm.run(&script.name, &script.source, &extra)?;
        Ok(())
    }

    /// True when no thread waits for anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.vm.scheduler().is_idle()
    }

    /// Shuts the server down: everything is saved.
    pub(crate) async fn close(&self, report: &mut Report) {
        let shutdown = self.game_server.shutdown().await;
        let server = self.number;
        report.not_saved.extend(shutdown.not_saved.iter().map(|(key, error)| format!("server {server}: {key}: {error}")));
        report.failures += self.vm.scheduler().failures();
    }
}
