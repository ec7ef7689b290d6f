//! What all servers of a game are made with, those too that start while it runs.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use profilestore::{
    GameServer, Settings,
    data_store::DataStore,
    env::{Env, Rng},
    messenger::Messenger,
    roblox::{BudgetRules, Options, RobloxDataStores},
};

use super::{Script, Server, ServerOptions, weather::Weather};
use crate::{
    http::Client,
    output::Output,
    project::Tree,
    services::World,
    specs::Collector,
    vm::{Failed, Limits},
};

pub(super) struct Common {
    pub(super) store: Arc<dyn DataStore>,
    pub(super) messenger: Arc<dyn Messenger>,
    pub(super) env: Env,
    pub(super) chance: Arc<dyn Rng>,
    pub(super) world: Arc<World>,
    pub(super) seed: u64,
    pub(super) place_id: i64,
    pub(super) settings: Settings,
    pub(super) weather: Weather,
    pub(super) budgets: Option<BudgetRules>,
    pub(super) output: Arc<dyn Output>,
    pub(super) limits: Limits,
    pub(super) mounted: Arc<BTreeMap<String, String>>,
    pub(super) tree: Option<Arc<Tree>>,
    pub(super) specs: Option<Arc<Collector>>,
    pub(super) client: Option<Arc<Script>>,
    pub(super) http: Option<Arc<Client>>,
}

impl Common {
    /// Makes a server; nothing runs on it yet. `number` counts from 1.
    pub(super) async fn server(&self, number: usize, job_id: &str) -> Result<Server, Failed> {
        let seed = self.seed.wrapping_mul(1000).wrapping_add(number as u64 - 1);
        let started = Arc::new(AtomicBool::new(false));
        let specs = self.specs.clone();
        let store = self.weather.over(self.store.clone(), seed, started.clone(), specs);
        let game_server = self.start(store, job_id).await?;
        started.store(true, Ordering::Relaxed);
        // A call of a data store takes its time as a whole, however often it asks the store. And it
        // works while the game closes.
        let beside = self.start(self.store.clone(), job_id).await?;
        let mut options = Options::default();
        (options.latency, options.errors, options.seed) =
            (self.weather.latency, self.weather.errors, seed);
        options.budgets = self.budgets;
        let data_stores = RobloxDataStores::new(&beside, options);
        Server::new(ServerOptions {
            number,
            game_server,
            beside,
            data_stores,
            env: self.env.clone(),
            chance: self.chance.clone(),
            output: self.output.clone(),
            limits: self.limits,
            world: self.world.clone(),
            mounted: self.mounted.clone(),
            tree: self.tree.clone(),
            specs: self.specs.clone(),
            client: self.client.clone(),
            http: self.http.clone(),
        })
    }

    async fn start(
        &self,
        store: Arc<dyn DataStore>,
        job_id: &str,
    ) -> Result<GameServer, profilestore::Error> {
        GameServer::builder(store)
            .messenger(self.messenger.clone())
            .env(self.env.clone())
            .settings(self.settings.clone())
            .place_id(self.place_id)
            .job_id(job_id.to_owned())
            .start()
            .await
    }
}
