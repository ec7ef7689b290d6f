//! A Roblox data store over our store: what code written for `DataStoreService` reads and writes,
//! with that service's semantics, limits and error codes.
//!
//! A key that holds a profile of ours reads in its document form ([`crate::document`]), and what is
//! written there acts:
//!
//! * A document that leaves `ActiveSession` and `SessionLoadCount` as they are leaves the profile
//!   to its holder. When that is a session of ours, its next save writes its own data over
//!   the document's; members that nobody here knows stay. Any other document ends the session,
//!   which is told so.
//! * `ForceLoadSession` is a request to hand the profile over: a session of ours saves and lets go.
//!   The other way round a request of ours stands in the document, and when the holder lets go the
//!   profile is offered to us.
//! * `GlobalUpdates` is applied as a difference: messages come, change, are locked, go. Those that
//!   go leave receipts. A number is never given out twice, so where a document states a number that
//!   another message had, the message gets the next one; what a write answers with says so.
//! * A session that a document brings along is one that no server row vouches for: it is dead when
//!   its `LastUpdate` is too old ([`crate::Settings::assume_dead`]), and without one is taken only
//!   after it was asked for.
//!
//! So the two published modules run on this as they are, beside sessions of ours. Whatever is no
//! profile is stored as it is and reads back as it was. Each write is one commit on what was read,
//! made anew when another caller was faster; an outcome that is not known is found out before the
//! key's next operation runs.
//!
//! ```
//! # use profilestore::{GameServer, data_store::MemoryStore, env::Env};
//! # use profilestore::roblox::{NewEntry, Options, RobloxDataStores};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let server = GameServer::builder(MemoryStore::new(Env::system())).start().await?;
//! let stores = RobloxDataStores::new(&server, Options::default());
//! let points = stores.data_store("Points", None)?;
//! points.set("user-1", NewEntry::json(&5)?).await?;
//! assert_eq!(points.increment("user-1", 2).await?.value.get(), "7");
//! # assert!(server.shutdown().await.is_complete());
//! # Ok(())
//! # }
//! ```

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use crate::{
    api::game_server::{GameServer, Inner},
    engine::Engine,
    key::{DEFAULT_SCOPE, ProfileKey, RESERVED_STORE},
};

mod budget;
mod entry;
mod error;
mod mock;
mod operations;
mod pages;
mod plan;
mod store;
mod weather;

pub use crate::engine::calls::InboxChange;
pub use budget::{BudgetRules, MAX_WAITING, RequestType};
pub use entry::{Entry, EntryVersion, NewEntry};
pub use error::{Code, DataStoreError};
pub use pages::Pages;
pub use store::{KeysQuery, ListedVersion, RobloxDataStore, VersionsQuery};

use budget::Budgets;
use weather::Weather;

/// The largest value, in bytes of JSON.
pub const MAX_VALUE_BYTES: usize = 4_194_304;

/// How the data stores of a game server behave. The default is the services' semantics without
/// their limits on requests, and with nothing that gets lost.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Options {
    /// For how long a data store's object answers [`RobloxDataStore::get`] with what it read or
    /// wrote last, 4 s. None: it always reads.
    pub get_cache: Option<Duration>,
    /// Request budgets. None, the default: none.
    pub budgets: Option<BudgetRules>,
    /// How long each call takes beyond what it takes: half before it reads or writes, half after.
    /// 0.
    pub latency: Duration,
    /// How many calls of a hundred fail. Half of those are applied all the same. 0.
    pub errors: f64,
    /// Which calls fail.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            get_cache: Some(Duration::from_secs(4)),
            budgets: None,
            latency: Duration::ZERO,
            errors: 0.0,
            seed: 0,
        }
    }
}

/// The data stores that a game server sees. Specification: `DataStoreService`. Cheap to clone;
/// clones share budgets and failures.
///
/// Calls begin at once and are not called off by dropping their futures, except for
/// [`RobloxDataStore::update`], whose future runs the transform.
#[derive(Clone)]
pub struct RobloxDataStores {
    server: Arc<Inner>,
    options: Arc<Options>,
    budgets: Option<Arc<Budgets>>,
    weather: Arc<Weather>,
    players: Arc<AtomicU32>,
}

impl fmt::Debug for RobloxDataStores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RobloxDataStores").field("options", &self.options).finish_non_exhaustive()
    }
}

impl RobloxDataStores {
    /// The data stores of a game server. How versions are kept is the game server's
    /// [`crate::Settings::keep_every_save`].
    pub fn new(server: &GameServer, options: Options) -> Self {
        Self {
            server: server.inner.clone(),
            budgets: options.budgets.map(|rules| Arc::new(Budgets::new(rules))),
            weather: Arc::new(Weather::new(options.latency, options.errors, options.seed)),
            options: Arc::new(options),
            players: Arc::default(),
        }
    }

    /// A data store by name and scope (`global` if None), with a cache of its own. Fails on names
    /// that are empty or longer than 50 characters, and on the library's own books. Specification:
    /// `GetDataStore`.
    pub fn data_store(
        &self,
        name: &str,
        scope: Option<&str>,
    ) -> Result<RobloxDataStore, DataStoreError> {
        let scope = scope.unwrap_or(DEFAULT_SCOPE);
        ProfileKey::new(name, scope, "k")
            .map_err(|invalid| DataStoreError::name(invalid.what, &invalid.given))?;
        if name == RESERVED_STORE {
            return Err(DataStoreError::new(Code::NotAllowed, "the data store is not for games"));
        }
        Ok(RobloxDataStore::new(self.clone(), name, scope))
    }

    /// Says how many players are on the server, on which budgets depend. 0 until then.
    pub fn set_players(&self, players: u32) {
        self.players.store(players, Ordering::Relaxed);
    }

    /// How many requests of this kind may be made at once. None without budgets. Specification:
    /// `GetRequestBudgetForRequestType`.
    pub fn budget(&self, request: RequestType) -> Option<u32> {
        let budgets = self.budgets.as_ref()?;
        Some(budgets.left(
            request,
            self.players.load(Ordering::Relaxed),
            self.engine().link.env.now(),
        ))
    }

    /// How they behave.
    pub fn options(&self) -> &Options {
        &self.options
    }

    fn engine(&self) -> &Arc<Engine> {
        &self.server.engine
    }
}
