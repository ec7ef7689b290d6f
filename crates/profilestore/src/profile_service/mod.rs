//! The older API, ProfileService's, on the same engine: profiles of either open in the other.
//!
//! A [`Store`] loads profiles and sends global updates; a [`Profile`] is a live one, with its meta
//! tags and its [`GlobalUpdates`]; a [`View`] is one that was read, to look at or to roll back
//! with.
//!
//! ```
//! # use profilestore::{GameServer, data_store::MemoryStore, env::Env};
//! # use profilestore::profile_service::{NotReleased, Store, settings};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
//! struct Player {
//!     coins: u64,
//! }
//!
//! let store = MemoryStore::new(Env::system());
//! let server = GameServer::builder(store).settings(settings()).start().await?;
//! let players = server.store_builder("PlayerData").template(Player::default()).build()?;
//! let players = Store::new(players);
//! players
//!     .global_update_profile("user-1", |updates| {
//!         updates.add(&50);
//!     })
//!     .await?;
//!
//! let profile = players.load_profile("user-1", NotReleased::ForceLoad).await?;
//! for update in profile.global_updates().active() {
//!     profile.global_updates().lock_active(update.id)?;
//! }
//! profile.save().await?;
//! for update in profile.global_updates().locked() {
//!     // What is done here and the update's removal are saved together.
//!     profile.global_updates().clear_locked_with(update.id, |data, update| {
//!         data.coins += update.parse::<u64>().unwrap_or(0)
//!     })?;
//! }
//! profile.release().await?;
//! assert_eq!(players.view_profile("user-1", None).await?.expect("it was saved").data.coins, 50);
//! # assert!(server.shutdown().await.is_complete());
//! # Ok(())
//! # }
//! ```
//!
//! What belongs to the module as a whole is the game server's: `ServiceLocked` is
//! [`GameServer::is_closing`](crate::GameServer::is_closing), `IssueSignal`
//! [`GameServer::on_error`](crate::GameServer::on_error), `CorruptionSignal`
//! [`GameServer::on_overwrite`](crate::GameServer::on_overwrite), `CriticalStateSignal`
//! [`GameServer::on_critical_toggle`](crate::GameServer::on_critical_toggle), `IsLive`
//! [`GameServer::access_state`](crate::GameServer::access_state).

use std::{sync::Arc, time::Duration};

use crate::{
    api::{store::ProfileStore, versions::Versions},
    data::ProfileData,
    data_store::VersionRef,
    engine::options::{DecideHeld, StartOptions},
    error::{ErrorKind, Result},
    settings::Settings,
};

mod profile;
mod updates;
mod view;

pub use profile::Profile;
pub use updates::{GlobalUpdate, GlobalUpdates, UpdateHandler};
pub use view::View;

/// The periods of ProfileService: an autosave every 30 s, and half an hour until a session that no
/// server row vouches for counts as dead. The rest is as usual.
pub fn settings() -> Settings {
    Settings {
        autosave_period: Duration::from_secs(30),
        assume_dead: Duration::from_secs(30 * 60),
        ..Settings::default()
    }
}

/// What loading does about a profile that a live session elsewhere holds. Specification:
/// `not_released_handler`.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum NotReleased {
    /// Asks its holder to let go, and takes it from one that does not answer. Specification:
    /// `"ForceLoad"`.
    #[default]
    ForceLoad,
    /// Takes it at once; what its holder has not saved is lost. Specification: `"Steal"`.
    Steal,
    /// Asked at every attempt who holds it. See [`StartOptions::when_held`]. Specification: a
    /// function, which answers `"Repeat"` ([`WhenHeld::Wait`](crate::WhenHeld::Wait)), `"Cancel"`
    /// ([`WhenHeld::GiveUp`](crate::WhenHeld::GiveUp)), `"ForceLoad"`
    /// ([`WhenHeld::Ask`](crate::WhenHeld::Ask)) or `"Steal"`
    /// ([`WhenHeld::Steal`](crate::WhenHeld::Steal)).
    Ask(Arc<DecideHeld>),
}

impl std::fmt::Debug for NotReleased {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ForceLoad => "ForceLoad",
            Self::Steal => "Steal",
            Self::Ask(_) => "Ask",
        })
    }
}

/// Profiles whose data is a `T`, as ProfileService has them. Cheap to clone. Specification:
/// `ProfileStore`, made by `GetProfileStore`.
pub struct Store<T> {
    store: ProfileStore<T>,
}

impl<T> Clone for Store<T> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone() }
    }
}

impl<T> std::fmt::Debug for Store<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.store.fmt(f)
    }
}

impl<T: ProfileData> Store<T> {
    /// The same profiles as those of `store`.
    pub fn new(store: ProfileStore<T>) -> Self {
        Self { store }
    }

    /// The store that it stands on.
    pub fn profiles(&self) -> &ProfileStore<T> {
        &self.store
    }

    /// See [`ProfileStore::mock`]. Specification: `Mock`.
    #[must_use]
    pub fn mock(&self) -> Self {
        Self { store: self.store.mock() }
    }

    /// Loads a profile: from now on this server alone may change it. Waits and fails as
    /// [`ProfileStore::start_session`] does; where the specification has nil, the error says why.
    /// Specification: `LoadProfileAsync`.
    pub fn load_profile(
        &self,
        key: &str,
        not_released: NotReleased,
    ) -> impl Future<Output = Result<Profile<T>>> + Send + 'static + use<T> {
        let options = StartOptions::new();
        let options = match not_released {
            NotReleased::ForceLoad => options,
            NotReleased::Steal => options.steal(),
            NotReleased::Ask(decide) => StartOptions { when_held: Some(decide), ..options },
        };
        let started = self.store.start_session_with(key, options);
        async move { Ok(Profile::new(started.await?)) }
    }

    /// Adds global updates to a profile, changes or clears active ones, whether or not the profile
    /// is live anywhere or exists yet. `handler` is called with those that there are, on the
    /// library's task, and must not block; it is called again with what is there by then when
    /// another caller was faster. When this returns Ok, its changes are durable, all of them at
    /// once. Fails as [`ProfileStore::send_message`] does. Specification:
    /// `GlobalUpdateProfileAsync`.
    pub fn global_update_profile<F>(
        &self,
        key: &str,
        mut handler: F,
    ) -> impl Future<Output = Result<()>> + Send + 'static + use<T, F>
    where
        F: FnMut(&mut UpdateHandler) + Send + 'static,
    {
        let changed = self.store.change_inbox(key, move |waiting, _| {
            let mut updates = UpdateHandler::new(waiting);
            handler(&mut updates);
            Some(updates.into_changes())
        });
        async move { changed.await.map(drop) }
    }

    /// Reads a profile, or a version of it, without loading it. None when there is none. Fails as
    /// [`ProfileStore::get`] does otherwise. Specification: `ViewProfileAsync`.
    pub fn view_profile(
        &self,
        key: &str,
        version: Option<VersionRef>,
    ) -> impl Future<Output = Result<Option<View<T>>>> + Send + 'static + use<T> {
        let current = version.is_none().then(|| self.store.get(key));
        let earlier = version.map(|version| self.store.get_version(key, version));
        async move {
            let read = match (current, earlier) {
                (Some(current), _) => current.await,
                (None, Some(earlier)) => earlier.await.map(Some),
                (None, None) => return Ok(None),
            };
            match read {
                Ok(read) => Ok(read.map(View::new)),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        }
    }

    /// Goes through a profile's versions; a [`View`] is made of each by [`View::new`]. Fails on a
    /// wrong key. Specification: `ProfileVersionQuery`.
    pub fn profile_versions(&self, key: &str) -> Result<Versions<T>> {
        self.store.versions(key)
    }

    /// Removes a profile, as [`ProfileStore::remove`] does; earlier versions stay for their time.
    /// To be rid of them too, see [`crate::Operator::erase_user`]. Specification:
    /// `WipeProfileAsync`.
    pub fn wipe_profile(
        &self,
        key: &str,
    ) -> impl Future<Output = Result<bool>> + Send + 'static + use<T> {
        self.store.remove(key)
    }
}

/// A profile's name as ProfileService writes it. Specification: `Identify`.
fn identify(key: &crate::ProfileKey) -> String {
    format!("[Store:\"{}\";Scope:\"{}\";Key:\"{}\"]", key.store(), key.scope(), key.key())
}
