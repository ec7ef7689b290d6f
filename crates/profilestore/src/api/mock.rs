//! The memory that mock stores work on, started at its first use.

use std::sync::{Arc, OnceLock};

use crate::{
    data_store::MemoryStore,
    engine::Engine,
    error::{Error, ErrorKind, Result},
    link::Parts,
    messenger::LocalMessenger,
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
    /// listeners. None begins once that server shuts down.
    pub(crate) async fn of(&self, live: &Engine) -> Result<Arc<Engine>> {
        if let Some(mock) = self.engine.get() {
            return Ok(mock.clone());
        }
        let _one = self.starting.lock().await;
        if let Some(mock) = self.engine.get() {
            return Ok(mock.clone());
        }
        let live = &live.link;
        let closing = || Error::new(ErrorKind::Closing, "this game server is shutting down");
        if live.is_closing() {
            return Err(closing());
        }
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
        let mock = self.engine.get_or_init(|| mock).clone();
        if live.is_closing() {
            // The shutdown may not have seen it.
            mock.abandon();
            return Err(closing());
        }
        Ok(mock)
    }
}
