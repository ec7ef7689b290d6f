//! This process as a game server: its identity, its lease in the store, its sessions, its shutdown.

use std::{fmt, sync::Arc};

#[cfg(feature = "roblox")]
use crate::settings::ConstantError;
use crate::{
    api::{mock::Mock, stop::stop_signal},
    data_store::{DataStore, Incarnation, ServerId},
    engine::Engine,
    env::Env,
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    link::{Parts, health::ForeignHolder},
    messenger::{Messenger, NoMessenger},
    settings::Settings,
    signal::Connection,
};

/// What a game server is built from. See [`GameServer::builder`].
#[derive(Debug)]
pub struct GameServerBuilder {
    store: Arc<dyn DataStore>,
    messenger: Arc<dyn Messenger>,
    env: Env,
    settings: Settings,
    place_id: i64,
    job_id: Option<String>,
}

impl GameServerBuilder {
    /// Carries hints between servers. Without one everything works, hand-overs and messages up to a
    /// renewal period slower.
    #[must_use]
    pub fn messenger(mut self, messenger: impl Messenger) -> Self {
        self.messenger = Arc::new(messenger);
        self
    }

    /// Which game or part of it this server runs. Shown to servers that meet its sessions.
    /// Specification: `PlaceId`. 0.
    #[must_use]
    pub fn place_id(mut self, place_id: i64) -> Self {
        self.place_id = place_id;
        self
    }

    /// The name of this process, for people: shown in sessions, kept as author of versions. 1 to
    /// 100 bytes. A random one by default. Specification: `JobId`.
    #[must_use]
    pub fn job_id(mut self, job_id: impl Into<String>) -> Self {
        self.job_id = Some(job_id.into());
        self
    }

    /// Periods and limits.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Clock and randomness, for tests.
    #[must_use]
    pub fn env(mut self, env: Env) -> Self {
        self.env = env;
        self
    }

    /// Registers the server in the store and starts renewing its lease. Tries for a few seconds,
    /// and takes [`Settings::call_timeout`] at most. Fails with [`ErrorKind::Unavailable`] when the
    /// store cannot be reached or does not answer, with [`ErrorKind::Invalid`] when a setting
    /// cannot work. Must be called within a Tokio runtime with time enabled.
    pub async fn start(self) -> Result<GameServer> {
        let job_id = self.job_id.unwrap_or_else(|| self.env.uuid().to_string());
        if job_id.is_empty() || job_id.len() > 100 {
            return Err(Error::new(ErrorKind::Invalid, "a job id is 1 to 100 bytes long"));
        }
        let engine = Engine::start(Parts {
            store: self.store,
            messenger: self.messenger,
            env: self.env,
            settings: self.settings,
            place_id: self.place_id,
            job_id,
            health: Arc::default(),
        })
        .await?;
        Ok(GameServer { inner: Arc::new(Inner { engine, mock: Mock::default() }) })
    }
}

/// A running game server. Cheap to clone; all clones are the same server.
///
/// Call [`GameServer::shutdown`] before the process ends. Dropping every clone (the stores made
/// from it included) without that is like a crash: nothing more is saved, and players get in
/// elsewhere after the lease time.
#[derive(Clone)]
pub struct GameServer {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) engine: Arc<Engine>,
    mock: Mock,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.engine.link.is_closing() {
            tracing::warn!(
                "a game server was dropped without shutdown; its last changes are not saved"
            );
        }
        self.engine.abandon();
        if let Some(mock) = self.mock.started() {
            mock.abandon();
        }
    }
}

impl Inner {
    /// The engine of mock stores, if there is one yet.
    pub(crate) fn mock_started(&self) -> Option<&Arc<Engine>> {
        self.mock.started()
    }

    /// The engine of mock stores, started at the first use.
    pub(crate) async fn mock(&self) -> Result<Arc<Engine>> {
        self.mock.of(&self.engine).await
    }
}

impl fmt::Debug for GameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GameServer").field("engine", &self.inner.engine).finish_non_exhaustive()
    }
}

/// Whether the store can be used. Specification: `DataStoreState`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AccessState {
    /// Not known yet. Specification: `NotReady`. A [`GameServer`] that has started is past this.
    NotReady,
    /// The store cannot be reached. Specification: `NoInternet`.
    NoInternet,
    /// The store can be reached but not written. Specification: `NoAccess`.
    NoAccess,
    /// The store can be read and written. Specification: `Access`.
    Access,
}

/// What [`GameServer::shutdown`] did.
#[derive(Debug)]
#[must_use = "profiles that were not saved are listed here"]
#[non_exhaustive]
pub struct ShutdownReport {
    /// The profiles whose last changes are not known to be saved, each with the reason.
    pub not_saved: Vec<(ProfileKey, Error)>,
}

impl ShutdownReport {
    /// True when every session was saved and released.
    pub fn is_complete(&self) -> bool {
        self.not_saved.is_empty()
    }
}

impl GameServer {
    /// Begins to build a game server on a store.
    pub fn builder(store: impl DataStore) -> GameServerBuilder {
        GameServerBuilder {
            store: Arc::new(store),
            messenger: Arc::new(NoMessenger),
            env: Env::system(),
            settings: Settings::default(),
            place_id: 0,
            job_id: None,
        }
    }

    /// The identity of this server's current incarnation. Another one after the server was declared
    /// dead and came back.
    pub fn server_id(&self) -> ServerId {
        self.inner.engine.link.server()
    }

    /// The identity of the store's contents, as this server knows it: another one soon after a
    /// backup was restored. Asks no store.
    pub fn incarnation(&self) -> Incarnation {
        self.inner.engine.link.incarnation()
    }

    /// Specification: `PlaceId`.
    pub fn place_id(&self) -> i64 {
        self.inner.engine.link.place_id
    }

    /// Specification: `JobId`.
    pub fn job_id(&self) -> &str {
        &self.inner.engine.link.job_id
    }

    /// True once [`GameServer::shutdown`] was called: calls fail with [`ErrorKind::Closing`] from
    /// then on. Specification: `IsClosing`.
    pub fn is_closing(&self) -> bool {
        self.inner.engine.link.is_closing()
    }

    /// True while calls of the store fail too often. Specification: `IsCriticalState`.
    pub fn is_critical_state(&self) -> bool {
        self.inner.engine.link.health.is_critical()
    }

    /// What time it is by the store's clock, Unix milliseconds: one time for all servers, by which
    /// messages, versions and message ids are judged. For daily rewards, bans and the like, instead
    /// of this machine's clock. Waits for nothing and asks no store.
    ///
    /// Every renewal of the lease brings the store's time ([`Settings::renew_period`]), and this
    /// machine's monotonic clock counts on from there. So it is behind the store's clock by the
    /// time that the last answer was under way, usually milliseconds, plus what the two clocks have
    /// drifted apart since. It may go back by as much when the next answer comes, and it follows
    /// when the store's clock is put forward or back. It is known from the start on: the server's
    /// registration brings it too. During an outage it counts on, and drifts as quartz does, some
    /// 0.1 s an hour.
    pub fn now_ms(&self) -> i64 {
        self.inner.engine.link.store_ms()
    }

    /// Whether the store can be used now. One round trip, for at most [`Settings::call_timeout`].
    /// Specification: `DataStoreState`.
    pub async fn access_state(&self) -> AccessState {
        let link = &self.inner.engine.link;
        let answer = link.env.timeout_at(link.deadline().at(), link.store.identity()).await;
        if !matches!(answer, Ok(Ok(_))) {
            return AccessState::NoInternet;
        }
        if link.confirms(link.server(), None) { AccessState::Access } else { AccessState::NoAccess }
    }

    /// Calls `listener` with a message and, where it is about one, the profile whenever a call of
    /// the store fails or something cannot be saved. Specification: `OnError`.
    pub fn on_error(
        &self,
        listener: impl Fn(&str, Option<&ProfileKey>) + Send + Sync + 'static,
    ) -> Connection {
        self.inner.engine.link.health.listen_error(listener)
    }

    /// Calls `listener` with the profile and the size of its data, in bytes of JSON, when a save
    /// finds it above 80 % of what can be stored ([`crate::storable::MAX_DATA_BYTES`]): once a
    /// session, and again after it was smaller. See [`crate::Profile::size`].
    pub fn on_nearly_full(
        &self,
        listener: impl Fn(&ProfileKey, usize) + Send + Sync + 'static,
    ) -> Connection {
        self.inner.engine.link.health.on_nearly_full.connect(Arc::new(listener))
    }

    /// Calls `listener` whenever a stored value that is no profile was overwritten; see
    /// [`crate::StartOptions::overwrite`]. Specification: `OnOverwrite`.
    pub fn on_overwrite(
        &self,
        listener: impl Fn(&ProfileKey) + Send + Sync + 'static,
    ) -> Connection {
        self.inner.engine.link.health.on_overwrite.connect(Arc::new(listener))
    }

    /// Calls `listener` whenever [`GameServer::is_critical_state`] changes. Specification:
    /// `OnCriticalToggle`.
    pub fn on_critical_toggle(
        &self,
        listener: impl Fn(bool) + Send + Sync + 'static,
    ) -> Connection {
        self.inner.engine.link.health.on_critical.connect(Arc::new(listener))
    }

    /// Calls `listener` whenever this server asks a session for its profile, or has sent it a
    /// message, that no game server of this library holds and no hint of ours reaches: one that
    /// came with a document of the published modules. They listen to the topic `PS_<session>` for
    /// `{LoadCount, EndSession}`; a program that can publish there saves the player the wait for
    /// the holder's next autosave.
    pub fn on_foreign_holder(
        &self,
        listener: impl Fn(&ForeignHolder<'_>) + Send + Sync + 'static,
    ) -> Connection {
        self.inner.engine.link.health.on_foreign_holder.connect(Arc::new(listener))
    }

    /// The current settings.
    pub fn settings(&self) -> Settings {
        (*self.inner.engine.link.settings()).clone()
    }

    /// Changes settings of the running server. The lease time that is noted in the store stays.
    /// Fails, changing nothing, when the result cannot work. Calls from several threads come one
    /// after the other. `change` may read the settings and edit profiles; a change from inside it
    /// fails with [`ErrorKind::Invalid`].
    pub fn change_settings(&self, change: impl FnOnce(&mut Settings)) -> Result<()> {
        self.inner.engine.change_settings(change)?;
        self.tell_mock()
    }

    /// Makes the settings hold for mock stores too.
    fn tell_mock(&self) -> Result<()> {
        let settings = self.settings();
        self.inner.mock_started().map_or(Ok(()), |mock| mock.change_settings(|own| *own = settings))
    }

    /// Sets one of the specification's constants by its name; times are in seconds. Specification:
    /// `SetConstant`.
    #[cfg(feature = "roblox")]
    pub fn set_constant(&self, name: &str, value: f64) -> Result<()> {
        let wrong = |error: ConstantError| {
            Error::new(ErrorKind::Invalid, format!("{error}: name=`{name}` value=`{value}`"))
        };
        self.inner
            .engine
            .change_settings(|settings| settings.set_constant(name, value))?
            .map_err(wrong)?;
        self.tell_mock()
    }

    /// How many profiles this server has open or is opening.
    pub fn session_count(&self) -> usize {
        self.inner.engine.table.open_count()
    }

    /// Ends every session with its hooks ([`crate::LastSave::Shutdown`]), saves and releases all
    /// profiles, and gives the lease back.
    ///
    /// Under way as soon as it is called: what was called before comes before it, transactions
    /// included; what is called after it fails with [`ErrorKind::Closing`] or
    /// [`ErrorKind::SessionEnded`]. Waits until everything is durable or
    /// [`Settings::shutdown_timeout`] has passed; what was not saved by then is listed in the
    /// report. Dropping the future does not stop the saves that are under way, but the lease may
    /// then stay until it dies of age. A second call finds nothing to do.
    pub fn shutdown(&self) -> impl Future<Output = ShutdownReport> + Send + 'static + use<> {
        let live = self.inner.engine.shutdown();
        let mock = self.inner.mock.started().map(Engine::shutdown);
        let server = self.inner.clone();
        async move {
            // The server stays until then, also when this is the last that holds it.
            let _server = server;
            let not_saved = live.await;
            if let Some(mock) = mock {
                mock.await;
            }
            for (key, error) in &not_saved {
                tracing::error!(%key, %error, "a profile was not saved at shutdown");
            }
            ShutdownReport { not_saved }
        }
    }

    /// Waits for SIGTERM or SIGINT (Ctrl-C), then shuts down. For programs that have nothing else
    /// to do at their end; [`crate::stop_signal`] is the wait alone. Fails when the signals cannot
    /// be listened to.
    pub async fn shutdown_on_signal(&self) -> std::io::Result<ShutdownReport> {
        stop_signal().await?;
        Ok(self.shutdown().await)
    }

    /// Stops like a crash: nothing is saved, nothing released, no lease renewed.
    #[cfg(any(test, feature = "fault"))]
    pub fn crash(&self) {
        self.inner.engine.abandon();
    }
}
