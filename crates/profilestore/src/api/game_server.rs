//! This process as a game server: its identity, its lease in the store, its sessions, its shutdown.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use uuid::Uuid;

use crate::{
    audit::{Attribution, AuditEntry, AuditOutcome},
    data_store::{DataStore, MemoryStore, ServerId},
    edit::{BulkEdit, BulkProgress, BulkReport, Edit, request::EditRequest},
    engine::Engine,
    env::Env,
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    link::{Parts, health::ForeignHolder},
    messenger::{LocalMessenger, Messenger, NoMessenger},
    settings::{ConstantError, Settings},
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
    /// Carries hints between servers. Without one everything works, hand-overs and messages up to a renewal period slower.
    #[must_use]
    pub fn messenger(mut self, messenger: impl Messenger) -> Self {
        self.messenger = Arc::new(messenger);
        self
    }

    /// Which game or part of it this server runs. Shown to those who meet its sessions. Specification: `PlaceId`. 0.
    #[must_use]
    pub fn place_id(mut self, place_id: i64) -> Self {
        self.place_id = place_id;
        self
    }

    /// The name of this process, for people: shown in sessions, kept as author of versions. 1 to 100 bytes. A random one by
    /// default. Specification: `JobId`.
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

    /// Registers the server in the store and starts renewing its lease. Tries for a few seconds; fails with
    /// [`ErrorKind::Unavailable`] when the store cannot be reached, with [`ErrorKind::Invalid`] when a setting cannot work.
    /// Must be called within a Tokio runtime with time enabled.
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
        Ok(GameServer { inner: Arc::new(Inner { engine, mock: OnceLock::new(), starting_mock: tokio::sync::Mutex::new(()) }) })
    }
}

/// A running game server. Cheap to clone; all clones are the same server.
///
/// Call [`GameServer::shutdown`] before the process ends. Dropping every clone (the stores made from it included) without that is
/// like a crash: nothing more is saved, and players get in elsewhere after the lease time.
#[derive(Clone)]
pub struct GameServer {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) engine: Arc<Engine>,
    /// The engine of mock stores: a memory of its own.
    mock: OnceLock<Arc<Engine>>,
    starting_mock: tokio::sync::Mutex<()>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.engine.link.is_closing() {
            tracing::warn!("a game server was dropped without shutdown; its last changes are not saved");
        }
        self.engine.abandon();
        if let Some(mock) = self.mock.get() {
            mock.abandon();
        }
    }
}

impl Inner {
    pub(crate) fn mock_started(&self) -> Option<&Arc<Engine>> {
        self.mock.get()
    }

    /// The engine of mock stores, started at the first use.
    pub(crate) async fn mock(&self) -> Result<Arc<Engine>> {
        if let Some(mock) = self.mock.get() {
            return Ok(mock.clone());
        }
        let _one = self.starting_mock.lock().await;
        if let Some(mock) = self.mock.get() {
            return Ok(mock.clone());
        }
        let live = &self.engine.link;
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
        Ok(self.mock.get_or_init(|| mock).clone())
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

    /// The identity of this server's current incarnation. Another one after the server was declared dead and came back.
    pub fn server_id(&self) -> ServerId {
        self.inner.engine.link.server()
    }

    /// Specification: `PlaceId`.
    pub fn place_id(&self) -> i64 {
        self.inner.engine.link.place_id
    }

    /// Specification: `JobId`.
    pub fn job_id(&self) -> &str {
        &self.inner.engine.link.job_id
    }

    /// True once [`GameServer::shutdown`] was called: calls fail with [`ErrorKind::Closing`] from then on.
    /// Specification: `IsClosing`.
    pub fn is_closing(&self) -> bool {
        self.inner.engine.link.is_closing()
    }

    /// True while calls of the store fail too often. Specification: `IsCriticalState`.
    pub fn is_critical_state(&self) -> bool {
        self.inner.engine.link.health.is_critical()
    }

    /// Whether the store can be used now. One round trip. Specification: `DataStoreState`.
    pub async fn access_state(&self) -> AccessState {
        let engine = &self.inner.engine;
        if engine.link.store.identity().await.is_err() {
            return AccessState::NoInternet;
        }
        if engine.link.confirms(engine.link.server(), None) { AccessState::Access } else { AccessState::NoAccess }
    }

    /// Calls `listener` with a message and, where it is about one, the profile whenever a call of the store fails or something
    /// cannot be saved. Specification: `OnError`.
    pub fn on_error(&self, listener: impl Fn(&str, Option<&ProfileKey>) + Send + Sync + 'static) -> Connection {
        self.inner.engine.link.health.listen_error(listener)
    }

    /// Calls `listener` with the profile and the size of its data, in bytes of JSON, when a save
    /// finds it above 80 % of what can be stored ([`crate::storable::MAX_DATA_BYTES`]): once a
    /// session, and again after it was smaller. See [`crate::Profile::size`].
    pub fn on_nearly_full(&self, listener: impl Fn(&ProfileKey, usize) + Send + Sync + 'static) -> Connection {
        self.inner.engine.link.health.on_nearly_full.connect(Arc::new(listener))
    }

    /// Calls `listener` whenever a stored value that is no profile was overwritten; see [`crate::StartOptions::overwrite`].
    /// Specification: `OnOverwrite`.
    pub fn on_overwrite(&self, listener: impl Fn(&ProfileKey) + Send + Sync + 'static) -> Connection {
        self.inner.engine.link.health.on_overwrite.connect(Arc::new(listener))
    }

    /// Calls `listener` whenever [`GameServer::is_critical_state`] changes. Specification: `OnCriticalToggle`.
    pub fn on_critical_toggle(&self, listener: impl Fn(bool) + Send + Sync + 'static) -> Connection {
        self.inner.engine.link.health.on_critical.connect(Arc::new(listener))
    }

    /// Calls `listener` whenever this server asks a session for its profile, or has sent it a message, that no game server of this library
    /// holds and no hint of ours reaches: one that came with a document of the published modules. They listen to the topic
    /// `PS_<session>` for `{LoadCount, EndSession}`; whoever can publish there saves everybody the wait for their next autosave.
    pub fn on_foreign_holder(&self, listener: impl Fn(&ForeignHolder<'_>) + Send + Sync + 'static) -> Connection {
        self.inner.engine.link.health.on_foreign_holder.connect(Arc::new(listener))
    }

    /// The current settings.
    pub fn settings(&self) -> Settings {
        (*self.inner.engine.link.settings()).clone()
    }

    /// Changes settings of the running server. The lease time that is noted in the store stays. Fails, changing nothing, when the
    /// result cannot work.
    pub fn change_settings(&self, change: impl FnOnce(&mut Settings)) -> Result<()> {
        self.inner.engine.change_settings(change)?;
        self.tell_mock()
    }

    /// Makes the settings hold for mock stores too.
    fn tell_mock(&self) -> Result<()> {
        let settings = self.settings();
        self.inner.mock_started().map_or(Ok(()), |mock| mock.change_settings(|own| *own = settings))
    }

    /// Sets one of the specification's constants by its name; times are in seconds. Specification: `SetConstant`.
    pub fn set_constant(&self, name: &str, value: f64) -> Result<()> {
        let wrong = |error: ConstantError| Error::new(ErrorKind::Invalid, format!("{error}: name=`{name}` value=`{value}`"));
        self.inner.engine.change_settings(|settings| settings.set_constant(name, value))?.map_err(wrong)?;
        self.tell_mock()
    }

    /// How many profiles this server has open or is opening.
    pub fn session_count(&self) -> usize {
        self.inner.engine.table.open_count()
    }

    /// Changes a profile's data in an operator's name, without ending its session. Where nobody holds the profile the edit is applied
    /// directly; otherwise its holder applies it, whichever server that is, and saves. What was done is booked in the audit log
    /// ([`crate::audit_entries`]) in the same commit, with what would undo it ([`Edit::undo`]).
    ///
    /// Waits until the outcome is durable: for one read and one commit, some milliseconds more for a profile that another server
    /// holds, up to the lease time when that server has crashed; at most [`Settings::call_timeout`].
    ///
    /// # Errors
    ///
    /// [`ErrorKind::EditRefused`] when the edit does not fit the data, the program's type, or the size of a profile; nothing was changed
    /// then. [`ErrorKind::Unknown`] when the holder has not answered in time: the edit lies in the profile's inbox and takes effect
    /// once, before the next session's start at the latest; [`GameServer::edit_as`] with the same identity tells. Further
    /// [`ErrorKind::NotFound`], [`ErrorKind::Foreign`], and [`ErrorKind::Invalid`] or [`ErrorKind::TooLarge`] for an edit that can fit nowhere.
    pub fn edit(
        &self,
        key: &ProfileKey,
        edit: &Edit,
        by: Attribution,
    ) -> impl Future<Output = Result<AuditEntry>> + Send + 'static + use<> {
        let operation = self.inner.engine.link.env.uuid();
        self.edit_as(operation, key, edit, by, self.settings().call_timeout)
    }

    /// The same under an identity of the caller's choice, a version 7 UUID whose time is at most 30 days ago, and with a patience of
    /// its own. Repeating it under its identity is harmless: the edit takes effect once, and the answer is the first one's.
    pub fn edit_as(
        &self,
        operation: Uuid,
        key: &ProfileKey,
        edit: &Edit,
        by: Attribution,
        patience: Duration,
    ) -> impl Future<Output = Result<AuditEntry>> + Send + 'static + use<> {
        let key = key.clone();
        let begun = check_edited(&key)
            .and_then(|()| EditRequest::new(operation, edit.clone(), by, false))
            .map(|request| self.inner.engine.edit(&key, Arc::new(request), patience));
        async move {
            let entry = begun?.await?;
            match &entry.outcome {
                AuditOutcome::Refused { why } => Err(Error::new(ErrorKind::EditRefused, why.clone()).about(&key)),
                _ => Ok(entry),
            }
        }
    }

    /// Changes many profiles in an operator's name, those that are held included, without ending a session; or undoes such a change.
    /// Every profile of the store that is there when the edit comes to it, and with [`BulkEdit::new_too`] every one that begins later, is
    /// edited once, however often the operation is broken off and resumed ([`BulkEdit::resume`]); its outcome is booked like that of [`GameServer::edit`]. The operation itself has an entry
    /// that says what it is, and when it is complete.
    ///
    /// Waits until every outcome is durable, for held profiles at most [`BulkEdit::patience`]; those that are left are in the report.
    /// Calls `progress` now and then. Dropping the future leaves the operation to be resumed. An error of the store does the same.
    pub async fn edit_all(&self, bulk: &BulkEdit, progress: &mut (dyn FnMut(BulkProgress) + Send)) -> Result<BulkReport> {
        self.inner.engine.edit_all(bulk, progress).await
    }

    /// Ends every session with its hooks ([`crate::LastSave::Shutdown`]), saves and releases all profiles, and gives the lease back.
    ///
    /// Under way as soon as it is called: what was called before comes before it, transactions included; what is called
    /// after it fails with [`ErrorKind::Closing`] or [`ErrorKind::SessionEnded`]. Waits until everything is durable or
    /// [`Settings::shutdown_timeout`] has passed; what was not saved by then is listed in the report. Dropping the future
    /// does not stop the saves that are under way, but the lease may then stay until it dies of age. A second call finds
    /// nothing to do.
    pub fn shutdown(&self) -> impl Future<Output = ShutdownReport> + Send + 'static + use<> {
        let live = self.inner.engine.shutdown();
        let mock = self.inner.mock.get().map(Engine::shutdown);
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

    /// Waits for SIGTERM or SIGINT (Ctrl-C), then shuts down. For programs that have nothing else to do at their end.
    /// Fails when the signals cannot be listened to.
    pub async fn shutdown_on_signal(&self) -> std::io::Result<ShutdownReport> {
        stop_signal().await?;
        Ok(self.shutdown().await)
    }

    /// Stops like a crash: nothing is saved, nothing released, no lease renewed.
    #[cfg(any(test, feature = "test-util"))]
    pub fn crash(&self) {
        self.inner.engine.abandon();
    }
}

fn check_edited(key: &ProfileKey) -> Result<()> {
    match key.is_reserved() {
        true => Err(Error::new(ErrorKind::Invalid, "the library keeps its own books there").about(key)),
        false => Ok(()),
    }
}

/// Waits for SIGTERM or Ctrl-C.
#[cfg(unix)]
async fn stop_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        biased;
        _ = terminate.recv() => Ok(()),
        interrupt = tokio::signal::ctrl_c() => interrupt,
    }
}

#[cfg(not(unix))]
async fn stop_signal() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
}
