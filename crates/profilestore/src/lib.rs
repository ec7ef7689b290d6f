//! Player data that no two servers can write at once.
//!
//! A [`GameServer`] is this process, with its lease on a store. It opens [`ProfileStore`]s, which
//! start sessions on profiles. A [`Profile`] is a live session: edit its data in memory, save, end.
//! A [`ReadProfile`] is a copy to look at, or to write back.
//!
//! ```
//! use profilestore::{GameServer, data_store::{SqliteMessenger, SqliteStore}};
//!
//! #[derive(Clone, Default, serde::Serialize, serde::Deserialize)]
//! struct Player {
//!     coins: u64,
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("profiles.db");
//! let file = SqliteStore::open(path, Default::default())?;
//! let messenger = SqliteMessenger::new(&file);
//! let server = GameServer::builder(file.clone()).messenger(messenger).start().await?;
//! let players = server.store_builder("PlayerData").template(Player::default()).build()?;
//!
//! let profile = players.start_session("user-1").await?;
//! profile.update(|data| data.coins += 10)?;
//! profile.save().await?; // durable when it returns
//! profile.end_session().await?; // saved and released
//!
//! assert_eq!(players.get("user-1").await?.expect("it is there").data.coins, 10);
//! assert!(server.shutdown().await.is_complete());
//! # Ok(())
//! # }
//! ```
//!
//! # What to know
//!
//! * **Calls begin at once.** An operation is under way when its call returns. The future is only
//!   the wait for it, and dropping the future cancels nothing. The exceptions say so: a start and
//!   [`Operator::edit_all`] are called off. One server's operations on one profile take effect in
//!   call order.
//! * **Ok means durable**: it survives the death of every process and a crash of the store.
//! * **Errors say what to do**: [`Error::kind`] says what happened, [`ErrorKind::advice`] what the
//!   caller should do about it.
//! * **Losing a session is ordinary.** Another server may ask for the profile
//!   ([`Profile::on_session_end`]): let the player go. A session that cannot reach the store goes
//!   on in memory and keeps trying; [`Profile::is_active`] tells.
//! * **A runtime is needed**: everything runs on the Tokio runtime in which
//!   [`GameServerBuilder::start`] was called.
//!
//! # Features
//!
//! | feature | what it adds | default |
//! | --- | --- | --- |
//! | `sqlite` | [`data_store::SqliteStore`]: one file, for the processes of one machine | yes |
//! | `postgres` | `PostgresStore` and `PostgresMessenger`, for many machines | no |
//! | `nats` | `NatsMessenger`: hints between many machines | no |
//! | `hosting` | the engine for game servers that run in other processes, in any language | no |
//! | `roblox` | documents, data stores and names of the Roblox modules; mock stores; keepers | no |
//! | `transfer` | import and export, as the program `profilestore` does them | no |
//! | `fault` | stores and messengers that fail on purpose, around any other | no |
//! | `test-util` | for tests: `testing`, a kit; `fault`; the conformance suites | no |
//!
//! # Where things are
//!
//! * [`data_store`] is the storage contract, with the stores in memory, in SQLite and in
//!   PostgreSQL. [`messenger`] carries hints between servers: in one process, over PostgreSQL, or
//!   over NATS.
//! * An [`Operator`] changes profiles from outside the game; [`operator`] has what that needs, and
//!   [`audit`] the log of what was done. [`history`] has a profile's earlier versions.
//! * [`storable`] says what can be stored, [`record`] how. [`migration`] brings old data forward.
//! * [`Keys`] goes through the profiles of a store, [`filter`] finds them by value,
//!   [`describe_metrics`] tells a recorder what each metric means, and [`stop_signal`] waits for
//!   SIGTERM.
//! * [`settings`], [`key`] and [`transaction`] hold numbers, names and limits; [`env`](mod@env)
//!   injects clock and chance.
//! * With `test-util`: `testing`, servers that share a world with a clock and faults on command.
//! * With `hosting`: `hosting`, which does this library's work for game servers elsewhere.
//! * With `roblox`: `roblox`, `document`, `profile_service` and `keeper`. With `transfer`:
//!   `transfer` and `document`.
//!
//! Where the specification (the documentation of the Roblox modules ProfileStore and
//! ProfileService) has a name for a thing, the documentation of the thing gives that name.
#![deny(missing_docs)]
#![cfg_attr(
    not(feature = "hosting"),
    allow(dead_code, unreachable_pub, reason = "what only hosting uses is all over the layers")
)]

#[macro_use]
mod defects;

mod api;
pub mod audit;
mod data;
pub mod data_store;
#[cfg(any(feature = "roblox", feature = "transfer"))]
pub mod document;
mod edit;
mod engine;
pub mod env;
mod error;
pub mod filter;
#[cfg(feature = "hosting")]
pub mod hosting;
pub mod key;
mod link;
pub mod messenger;
pub mod migration;
mod ownership;
#[cfg(feature = "roblox")]
pub mod profile_service;
mod reconcile;
pub mod record;
#[cfg(feature = "roblox")]
pub mod roblox;
mod session;
pub mod settings;
mod signal;
pub mod storable;
mod telemetry;
#[cfg(feature = "test-util")]
pub mod testing;
#[cfg(feature = "transfer")]
pub mod transfer;

pub use api::{
    game_server::{AccessState, GameServer, GameServerBuilder, ShutdownReport},
    listing::Keys,
    operator::Operator,
    profile::Profile,
    read_profile::ReadProfile,
    stop::stop_signal,
    store::{ProfileStore, StoreBuilder},
    transaction::{Transaction, TransactionBuilder},
};
pub use audit::Attribution;
pub use data::ProfileData;
pub use data_store::MessageId;
#[cfg(profilestore_defects)]
pub use defects::Defect;
pub use edit::Edit;
pub use engine::calls::Sent;
pub use engine::options::{DecideHeld, StartOptions, WhenHeld};
pub use error::{Advice, Error, ErrorKind, Result};
pub use key::ProfileKey;
pub use link::health::ForeignHolder;
pub use migration::Migrations;
pub use record::{UserId, version::KeyInfo};
pub use session::{
    handlers::Message,
    info::{LastSave, SessionEnd, SessionInfo},
};
pub use settings::Settings;
pub use signal::Connection;
pub use telemetry::describe_metrics;

/// What an [`Operator`] works with besides [`Edit`]: edits of many profiles, edits that stand for
/// new ones or wait for a holder, and what restoring and erasing answer.
pub mod operator {
    pub use crate::{
        edit::{
            BulkEdit, BulkProgress, BulkReport, EditScope, JsonChange, MAX_EDIT_BYTES,
            MAX_STANDING_BYTES, MAX_STANDING_EDITS, StandingEdit, WaitingEdit, json_changes,
            standing_edits,
        },
        engine::{
            cleaning::{Cleaned, Cleaning, Rewriting},
            conditional::{Expected, Written},
            erase::{EraseReport, ErasedProfile, FailedErasure, SharedProfile},
            history::Restored,
        },
    };
}

/// What can take part in a [`Transaction`], its limits, and those of what a message's handler sends
/// ([`Message::gift`]).
pub mod transaction {
    pub use crate::{
        api::{
            between::{Between, Many, ParticipantTypes, Participants},
            transaction::MAX_PARTICIPANTS,
        },
        session::handlers::MAX_GIFTS,
    };
}

/// Live profiles whose data lies outside of the library, for example in the memory of a script.
#[cfg(feature = "roblox")]
pub mod keeper {
    pub use crate::session::collect::{Collect, Collected, Keeper};
}

/// A profile's earlier versions: listing and reading them, finding one by what it is called, and
/// comparing two.
pub mod history {
    pub use crate::{
        api::{
            diff::{Difference, comparable, diff},
            versions::{KeptVersion, Versions},
        },
        record::version::{
            MAX_NOT_UNDONE, NotUndone, find_version, not_undone, version_at, version_label,
        },
    };
}

#[cfg(doc)]
#[doc = include_str!("../api-map.md")]
pub mod api_map {}

// The programs in README and docs are compiled by the gate, and those that can run are run.
#[cfg(all(
    doctest,
    feature = "sqlite",
    feature = "postgres",
    feature = "nats",
    feature = "test-util"
))]
mod pages {
    #[doc = include_str!("../../../README.md")]
    struct Readme;
    #[doc = include_str!("../README.md")]
    struct OwnReadme;
    #[doc = include_str!("../../../docs/getting-started.md")]
    struct GettingStarted;
    #[doc = include_str!("../../../docs/errors.md")]
    struct Errors;
    #[doc = include_str!("../../../docs/outages.md")]
    struct Outages;
    #[doc = include_str!("../../../docs/cost.md")]
    struct Cost;
    #[doc = include_str!("../../../docs/migrations.md")]
    struct Migrations;
    #[doc = include_str!("../../../docs/testing-rust.md")]
    struct TestingRust;
    #[doc = include_str!("../../../docs/backends.md")]
    struct Backends;

    /// The recipes.
    mod cookbook {
        #[doc = include_str!("../../../docs/cookbook/shop.md")]
        struct Shop;
        #[doc = include_str!("../../../docs/cookbook/daily-reward.md")]
        struct DailyReward;
        #[doc = include_str!("../../../docs/cookbook/purchases.md")]
        struct Purchases;
        #[doc = include_str!("../../../docs/cookbook/gift.md")]
        struct Gift;
        #[doc = include_str!("../../../docs/cookbook/trade.md")]
        struct Trade;
        #[doc = include_str!("../../../docs/cookbook/guild.md")]
        struct Guild;
        #[doc = include_str!("../../../docs/cookbook/leaderboard.md")]
        struct Leaderboard;
        #[doc = include_str!("../../../docs/cookbook/bans.md")]
        struct Bans;
        #[doc = include_str!("../../../docs/cookbook/moving.md")]
        struct Moving;
        #[doc = include_str!("../../../docs/cookbook/migrations.md")]
        struct Migrations;
        #[doc = include_str!("../../../docs/cookbook/shutdown.md")]
        struct Shutdown;
    }
}
