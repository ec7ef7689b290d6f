//! A store of profiles: starting sessions, reading, sending, removing.

use std::{fmt, marker::PhantomData, sync::Arc};

use futures_util::future::BoxFuture;
use serde::Serialize;

use crate::{
    data::{Codec, ProfileData, TypedCodec, payload},
    data_store::{MessageId, StoredMessage, VersionRef},
    engine::{
        Engine,
        calls::{InboxChange, Sent},
        history::Which,
        options::StartOptions,
    },
    error::Result,
    game_server::GameServer,
    history::Versions,
    key::ProfileKey,
    profile::{Profile, ReadProfile},
};

/// Profiles whose data is a `T`. Cheap to clone.
///
/// Two stores of one name and scope on one server are the same profiles.
///
/// **Order.** What this server does to one key takes effect in the order of the calls, reads included. Each call is under way when
/// it returns; its future is only the wait for the answer, so dropping the future cancels nothing, except that a start whose future
/// is dropped is called off and leaves nothing behind.
pub struct ProfileStore<T> {
    server: GameServer,
    /// None: the mock's, started at the first use.
    mock: bool,
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
        f.debug_struct("ProfileStore").field("name", &self.name).field("scope", &self.scope).field("mock", &self.mock).finish()
    }
}

impl<T: ProfileData> ProfileStore<T> {
    pub(crate) fn new(server: GameServer, name: Arc<str>, scope: Arc<str>, codec: Arc<TypedCodec<T>>) -> Self {
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

    /// The same store on a memory of its own, which is forgotten when the game server goes. It does all that the real one does,
    /// versions, Cancel and Steal included, and never touches it. Specification: `Mock`.
    #[must_use]
    pub fn mock(&self) -> Self {
        Self { mock: true, ..self.clone() }
    }

    /// True for the store that [`ProfileStore::mock`] gives.
    pub fn is_mock(&self) -> bool {
        self.mock
    }

    /// The full name of one of its profiles. Fails on a key that is empty or longer than 50 characters.
    pub fn key(&self, key: &str) -> Result<ProfileKey> {
        Ok(ProfileKey::in_store(&self.name, &self.scope, key)?)
    }

    pub(crate) async fn engine(&self) -> Result<Arc<Engine>> {
        if self.mock { self.server.inner.mock().await } else { Ok(self.server.inner.engine.clone()) }
    }

    /// True when its profiles are kept by this engine.
    pub(crate) fn is_kept_by(&self, engine: &Arc<Engine>) -> bool {
        let own = if self.mock { self.server.inner.mock_started() } else { Some(&self.server.inner.engine) };
        own.is_some_and(|own| Arc::ptr_eq(own, engine))
    }

    /// Calls the live engine at once, the mock's engine once it is there.
    fn with_engine<R: Send + 'static, F: Future<Output = Result<R>> + Send + 'static>(
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

    /// Starts a session: from now on this server alone may change the profile. Asks whoever holds it to let go, and takes it over
    /// from a dead server. Specification: `StartSessionAsync`.
    ///
    /// Waits until the profile is there: one round trip to read and one to take a free one; some milliseconds more for one that
    /// another server holds; up to the lease time after a crash; at most [`crate::Settings::start_session_timeout`].
    ///
    /// # Errors
    ///
    /// Where the specification has nil, the kind says which case it is: [`crate::ErrorKind::TakenElsewhere`], [`crate::ErrorKind::Superseded`],
    /// [`crate::ErrorKind::TimedOut`], [`crate::ErrorKind::Cancelled`], [`crate::ErrorKind::Closing`]. Further [`crate::ErrorKind::AlreadyLoaded`],
    /// [`crate::ErrorKind::Foreign`], [`crate::ErrorKind::Undecodable`], and [`crate::ErrorKind::Invalid`] for a wrong key. No lock stays behind.
    pub fn start_session(&self, key: &str) -> impl Future<Output = Result<Profile<T>>> + Send + 'static + use<T> {
        self.start_session_with(key, StartOptions::default())
    }

    /// The same with options.
    pub fn start_session_with(
        &self,
        key: &str,
        options: StartOptions,
    ) -> impl Future<Output = Result<Profile<T>>> + Send + 'static + use<T> {
        let codec: Arc<dyn Codec> = self.codec.clone();
        let started = self.with_engine(key, move |engine, key| engine.start_session(key, codec, options));
        let store = self.clone();
        async move { Ok(Profile::new(started.await?, store)) }
    }

    /// Reads the profile as it was saved last, without a session. Fails with [`crate::ErrorKind::NotFound`] where the specification has
    /// nil, with [`crate::ErrorKind::Foreign`] where something else is stored. A key that holds only messages gives the template's
    /// data. Waits for one round trip, during an outage for at most [`crate::Settings::call_timeout`].
    /// Specification: `GetAsync`.
    pub fn get(&self, key: &str) -> impl Future<Output = Result<ReadProfile<T>>> + Send + 'static + use<T> {
        let state = self.with_engine(key, |engine, key| engine.get(key));
        let store = self.clone();
        async move { ReadProfile::current(store, state.await?) }
    }

    /// Reads an earlier version of the profile, as [`ProfileStore::get`] reads the current one: by its number, or by its version
    /// string ([`crate::KeyInfo::version`]). [`ReadProfile::set`] rolls the profile back to it. A tombstone comes as the template's
    /// data. Fails with [`crate::ErrorKind::NotFound`] when it is not, or no longer, in the history. Specification: `GetAsync` with a version.
    pub fn get_version(
        &self,
        key: &str,
        version: VersionRef,
    ) -> impl Future<Output = Result<ReadProfile<T>>> + Send + 'static + use<T> {
        self.read_version(key, Which::Named(version))
    }

    /// Reads the version that was current at a time (Unix milliseconds), as far as the history goes: the newest kept one that was
    /// written until then. Otherwise as [`ProfileStore::get_version`].
    pub fn get_version_at(
        &self,
        key: &str,
        unix_ms: i64,
    ) -> impl Future<Output = Result<ReadProfile<T>>> + Send + 'static + use<T> {
        self.read_version(key, Which::At(unix_ms))
    }

    fn read_version(&self, key: &str, which: Which) -> impl Future<Output = Result<ReadProfile<T>>> + Send + 'static + use<T> {
        let found = self.with_engine(key, |engine, key| engine.get_version(key, which));
        let store = self.clone();
        async move {
            let (state, version) = found.await?;
            ReadProfile::of_version(store, state, version)
        }
    }

    /// Lists the kept versions of the profile, or reads them one after the other. Asks the store when the first is asked for.
    /// Fails on a wrong key. Specification: `VersionQuery`.
    pub fn versions(&self, key: &str) -> Result<Versions<T>> {
        Ok(Versions::new(self.clone(), self.key(key)?))
    }

    /// Sends a message to a profile, whether or not it is live anywhere or exists yet. When this returns Ok the message is durable
    /// and will be offered to the profile's handlers until one has processed it. Waits for one commit, during an outage for at
    /// most [`crate::Settings::call_timeout`].
    ///
    /// A sender that may have to retry uses [`ProfileStore::send_message_as`] instead: this one gives each call an identity of its
    /// own. Specification: `MessageAsync`.
    ///
    /// # Errors
    ///
    /// [`crate::ErrorKind::InboxFull`]: nothing was stored and nothing dropped. [`crate::ErrorKind::TooLarge`] above 256 KiB.
    /// [`crate::ErrorKind::Unknown`]: it may or may not arrive.
    pub fn send_message<M: Serialize>(
        &self,
        key: &str,
        message: &M,
    ) -> impl Future<Output = Result<()>> + Send + 'static + use<T, M> {
        let engine = &self.server.inner.engine;
        // The id is judged by the store's clock, and this server's may be wrong; the mock's store has this server's.
        let created_ms = if self.mock { engine.env.unix_ms() } else { engine.store_ms() };
        let id = MessageId { created_ms, name: engine.env.uuid().to_string() };
        let sent = self.send_message_as(key, &id, message);
        async move { sent.await.map(drop) }
    }

    /// Sends a message under an identity of the sender's choice, so that sending it again is harmless: its effect comes once,
    /// for 30 days from the time in the id, after which the id is refused ([`crate::ErrorKind::MessageIdExpired`]).
    /// [`Sent::Before`] says that it had been stored before; the same id with another content is an error
    /// ([`crate::ErrorKind::MessageIdReused`]).
    pub fn send_message_as<M: Serialize>(
        &self,
        key: &str,
        id: &MessageId,
        message: &M,
    ) -> impl Future<Output = Result<Sent>> + Send + 'static + use<T, M> {
        let id = id.clone();
        let sent = payload(message).map(|payload| self.with_engine(key, move |engine, key| engine.send(key, id, payload, None)));
        async move { sent?.await }
    }

    /// Changes the messages that wait for a profile, whether or not it is live anywhere or exists yet. `edit` is called with them on the library's
    /// task, must not block, and says what is to be done; when somebody else was faster it is called again with what waits by then. Answers
    /// false when `edit` said None. Otherwise as [`ProfileStore::send_message`]. Specification: `GlobalUpdateProfileAsync`.
    pub fn change_inbox<F>(&self, key: &str, mut edit: F) -> impl Future<Output = Result<bool>> + Send + 'static + use<T, F>
    where
        F: FnMut(&[StoredMessage], u64) -> Option<Vec<InboxChange>> + Send + 'static,
    {
        self.with_engine(key, move |engine, key| {
            engine.change_inbox(key, Box::new(move |state| edit(state.inbox.as_deref().unwrap_or_default(), state.last_message)))
        })
    }

    /// Removes the profile: ends whatever session there is, empties the inbox, and leaves a tombstone. Earlier versions stay in the
    /// history for its retention. Answers false when there was nothing. Waits for one commit. Specification: `RemoveAsync`.
    pub fn remove(&self, key: &str) -> impl Future<Output = Result<bool>> + Send + 'static + use<T> {
        self.with_engine(key, |engine, key| engine.remove(key, None))
    }
}
