//! The memory that mock stores work on, started at its first use.

use std::sync::{Arc, OnceLock};

use crate::{
    data_store::MemoryStore, engine::Engine, error::Result, link::Parts, messenger::LocalMessenger,
};

#[derive(Default)]
pub(crate) struct Mock {
    engine: OnceLock<Arc<Engine>>,
    starting: tokio::sync::Mutex<()>,
}

impl Mock {
    pub(crate) fn started(&self) -> Option<&Arc<Engine>> {
        self.engine.get()
    }

    /// The mock of the server that runs this engine, with its clock, its settings and its
    /// listeners.
    pub(crate) async fn of(&self, live: &Engine) -> Result<Arc<Engine>> {
        if let Some(mock) = self.engine.get() {
            return Ok(mock.clone());
        }
        let _one = self.starting.lock().await;
        if let Some(mock) = self.engine.get() {
            return Ok(mock.clone());
        }
        let live = &live.link;
        let mock = Engine::start(Parts {
            store: Arc::new(MemoryStore::new(live.env.clone())),
            messenger: Arc::new(LocalMessenger::new()),
            env: live.env.clone(),
            settings: (*live.settings()).clone(),
            place_id: live.place_id,
            job_id: live.job_id.clone(),
            health: live.health.clone(),
        })
        .await?;
        Ok(self.engine.get_or_init(|| mock).clone())
    }
}
