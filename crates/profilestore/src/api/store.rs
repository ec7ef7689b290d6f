//! A store of profiles: starting sessions, reading, sending, removing.

use std::{fmt, marker::PhantomData, sync::Arc};

use futures_util::future::BoxFuture;

use crate::{
    api::game_server::GameServer,
    data::{ProfileData, TypedCodec, Validate},
    engine::Engine,
    error::{Error, ErrorKind, Result},
    key::{DEFAULT_SCOPE, ProfileKey, RESERVED_STORE, check_name},
    link::Link,
    migration::Migrations,
};

/// Profiles whose data is a `T`. Cheap to clone.
///
/// Two stores of one name and scope on one server are the same profiles.
///
/// **Order.** What this server does to one key takes effect in the order of the calls, reads
/// included: starts, saves, transactions, ends, messages, removals, reads, and
/// [`GameServer::shutdown`], which comes behind everything that was called before it. Each call
/// takes its turn when it is made, not when its future is first polled; the future is only the wait
/// for the answer, so dropping it cancels nothing. The exceptions:
///
/// * A start whose future is dropped is called off and leaves nothing behind.
/// * A start that is to take the place of a session whose last hooks run just then, on another
///   thread, waits for that end while its future is polled. Of several such starts the one that was
///   called last gets the profile.
/// * An edit ([`crate::Profile::update`]) has no turn: it takes effect when it is called, on the
///   data as it is then. So it comes before a transaction that was called earlier and has not yet
///   had its turn; while that one is open the edit is refused. A save, a transaction and an end
///   hold every edit that was made before they were called. An edit that waits
///   ([`crate::Profile::update_when_free`]) takes effect while its future is polled.
/// * Another server that asks for the profile, or takes it, ends the session whatever is waiting.
///   What waited then fails with [`ErrorKind::SessionEnded`] and was not done; a save is answered
///   by the last save.
/// * A listing of versions ([`crate::history::Versions`]) or of keys ([`crate::Keys`]) asks for
///   each page when its future is polled. So begins the first call of a mock's store, too.
///
/// **Time.** A message, a read and a removal answer within [`crate::Settings::call_timeout`], the
/// wait for their turn included. A start answers within [`crate::Settings::start_session_timeout`]
/// or [`crate::StartOptions::timeout`]; with a cancel function it has no limit.
/// [`GameServer::shutdown`] takes [`crate::Settings::shutdown_timeout`], and about a second more. A
/// transaction has a deadline, which a lost answer can outlast: see
/// [`crate::TransactionBuilder::deadline`]. An edit that waits for it waits as long. A save and an
/// end have no limit: they wait until the store is back, and go on when their futures are dropped.
///
/// Two stores of one name and scope must have one type: while a profile is open as one type, a
/// start as another fails with [`ErrorKind::Invalid`] and names both.
pub struct ProfileStore<T> {
    pub(super) server: GameServer,
    /// None: the mock's, started at the first use.
    pub(super) mock: bool,
    name: Arc<str>,
    scope: Arc<str>,
    pub(crate) codec: Arc<TypedCodec<T>>,
    marker: PhantomData<fn() -> T>,
}

impl<T> Clone for ProfileStore<T> {
    fn clone(&self) -> Self {
        Self {
            server: self.server.clone(),
            mock: self.mock,
            name: self.name.clone(),
            scope: self.scope.clone(),
            codec: self.codec.clone(),
            marker: PhantomData,
        }
    }
}

impl<T> fmt::Debug for ProfileStore<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProfileStore")
            .field("name", &self.name)
            .field("scope", &self.scope)
            .field("mock", &self.mock)
            .finish()
    }
}

impl<T: ProfileData> ProfileStore<T> {
    pub(crate) fn new(
        server: GameServer,
        name: Arc<str>,
        scope: Arc<str>,
        codec: Arc<TypedCodec<T>>,
    ) -> Self {
        Self { server, mock: false, name, scope, codec, marker: PhantomData }
    }

    /// Its name. Specification: `Name`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its scope.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// The game server it belongs to.
    pub fn server(&self) -> &GameServer {
        &self.server
    }

    /// The same store on a memory of its own, which is forgotten when the game server goes. It does
    /// all that the real one does, versions, Cancel and Steal included, and never touches it.
    /// Specification: `Mock`.
    #[cfg(feature = "roblox")]
    #[must_use]
    pub fn mock(&self) -> Self {
        Self { mock: true, ..self.clone() }
    }

    /// True for the store that [`ProfileStore::mock`] gives.
    #[cfg(feature = "roblox")]
    pub fn is_mock(&self) -> bool {
        self.mock
    }

    /// The full name of one of its profiles. Fails on a key that is empty or longer than 50
    /// characters.
    pub fn key(&self, key: &str) -> Result<ProfileKey> {
        Ok(ProfileKey::in_store(&self.name, &self.scope, key)?)
    }

    pub(crate) async fn engine(&self) -> Result<Arc<Engine>> {
        if self.mock {
            self.server.inner.mock().await
        } else {
            Ok(self.server.inner.engine.clone())
        }
    }

    /// True when its profiles are kept in the store that this is the link to.
    pub(crate) fn is_kept_by(&self, link: &Arc<Link>) -> bool {
        self.started_engine().is_some_and(|own| Arc::ptr_eq(&own.link, link))
    }

    /// None: the mock's, which no call has needed yet.
    pub(super) fn started_engine(&self) -> Option<&Arc<Engine>> {
        if self.mock { self.server.inner.mock_started() } else { Some(&self.server.inner.engine) }
    }

    /// Calls the live engine at once, the mock's engine once it is there.
    pub(super) fn with_engine<R: Send + 'static, F: Future<Output = Result<R>> + Send + 'static>(
        &self,
        key: &str,
        call: impl FnOnce(&Arc<Engine>, &ProfileKey) -> F + Send + 'static,
    ) -> BoxFuture<'static, Result<R>> {
        let key = match self.key(key) {
            Ok(key) => key,
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        if !self.mock {
            return Box::pin(call(&self.server.inner.engine, &key));
        }
        let server = self.server.clone();
        Box::pin(async move {
            let engine = server.inner.mock().await?;
            call(&engine, &key).await
        })
    }

    /// Removes the profile: ends whatever session there is, empties the inbox, and leaves a
    /// tombstone. Earlier versions stay in the history for its retention. Answers false when there
    /// was nothing. Waits for one commit. Specification: `RemoveAsync`.
    pub fn remove(
        &self,
        key: &str,
    ) -> impl Future<Output = Result<bool>> + Send + 'static + use<T> {
        self.with_engine(key, |engine, key| engine.remove(key, None))
    }
}

/// Describes a store of profiles. See [`GameServer::store_builder`].
pub struct StoreBuilder<T> {
    server: GameServer,
    name: String,
    scope: String,
    template: Option<T>,
    reconcile: bool,
    migrations: Migrations,
    validate: Option<Arc<Validate<T>>>,
}

impl<T> fmt::Debug for StoreBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreBuilder")
            .field("name", &self.name)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

impl<T: ProfileData> StoreBuilder<T> {
    /// The scope, [`DEFAULT_SCOPE`] otherwise: profiles of other scopes are other profiles.
    #[must_use]
    pub fn scope(mut self, scope: &str) -> Self {
        scope.clone_into(&mut self.scope);
        self
    }

    /// The data that a new profile begins with. Specification: `template`.
    #[must_use]
    pub fn template(mut self, template: T) -> Self {
        self.template = Some(template);
        self
    }

    /// Fill what the template has and stored data lacks whenever a profile is read, before it is
    /// decoded. Specification: `Reconcile`, called for every profile.
    #[must_use]
    pub fn reconcile(mut self) -> Self {
        self.reconcile = true;
        self
    }

    /// How data that was saved by earlier versions of the program becomes what this one knows,
    /// whenever a profile is read, before it is reconciled and decoded. Data that was saved without
    /// migrations is version 0, so the first step is 1. Servers of different versions may share a
    /// store: see [`Migrations`].
    #[must_use]
    pub fn migrations(mut self, migrations: Migrations) -> Self {
        self.migrations = migrations;
        self
    }

    /// Asks `validate` about the data before every save and after every load. An error refuses it,
    /// with that text in the error ([`ErrorKind::Refused`]): a save stores nothing and the session
    /// goes on; a load leaves the profile as it is and unlocked; an operator's edit of a live
    /// profile is refused. It is called on the library's tasks and must not block. It does not see
    /// what an operator's edit makes of a profile that no server holds, before that is loaded.
    ///
    /// ```
    /// # use profilestore::{GameServer, ProfileStore, Result};
    /// # #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
    /// # struct Player { coins: i64 }
    /// # fn store(server: &GameServer) -> Result<ProfileStore<Player>> {
    /// server
    ///     .store_builder("PlayerData")
    ///     .template(Player::default())
    ///     .validate(|player: &Player| match player.coins {
    ///         ..0 => Err("coins are negative".into()),
    ///         _ => Ok(()),
    ///     })
    ///     .build()
    /// # }
    /// ```
    #[must_use]
    pub fn validate(
        mut self,
        validate: impl Fn(&T) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.validate = Some(Arc::new(validate));
        self
    }

    /// The store. Fails on a name or scope that is empty or longer than 50 characters, on
    /// [`RESERVED_STORE`], on a template that is no JSON, and on migrations whose numbers have
    /// gaps, or whose first step leaves data that was saved without migrations outside.
    pub fn build(self) -> Result<ProfileStore<T>> {
        if self.name == RESERVED_STORE {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the library keeps its own books there: store name=`{}`", self.name),
            ));
        }
        let name = check_name("store name", &self.name)?;
        let scope = check_name("scope", &self.scope)?;
        let codec = Arc::new(TypedCodec::new(
            self.template.as_ref(),
            self.reconcile,
            self.migrations,
            self.validate,
        )?);
        Ok(ProfileStore::new(self.server, name, scope, codec))
    }
}

impl GameServer {
    /// A store of profiles whose data is a `T`, in the default scope and without a template: a new
    /// profile begins as an empty object, and where a `T` does not decode from that, the first
    /// start fails with [`ErrorKind::Invalid`]. See [`GameServer::store_builder`] for more. Fails
    /// on a name that is empty or longer than 50 characters, and on [`RESERVED_STORE`].
    /// Specification: `New`.
    pub fn store<T: ProfileData>(&self, name: &str) -> Result<ProfileStore<T>> {
        self.store_builder(name).build()
    }

    /// Begins to describe a store of profiles.
    pub fn store_builder<T: ProfileData>(&self, name: &str) -> StoreBuilder<T> {
        StoreBuilder {
            server: self.clone(),
            name: name.to_owned(),
            scope: DEFAULT_SCOPE.to_owned(),
            template: None,
            reconcile: false,
            migrations: Migrations::new(),
            validate: None,
        }
    }
}
