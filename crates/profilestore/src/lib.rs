//! Player data that no two servers can write at once.
//!
//! A [`GameServer`] is this process with its lease on a store. It opens [`ProfileStore`]s, which start sessions on profiles; a
//! [`Profile`] is a session's live handle: edit its data in memory, save, end. [`ReadProfile`] is a copy to look at, or to write back.
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
//! let server = GameServer::builder(file.clone()).messenger(SqliteMessenger::new(&file)).start().await?;
//! let players = server.store_builder("PlayerData").template(Player::default()).build()?;
//!
//! let profile = players.start_session("user-1").await?;
//! profile.update(|data| data.coins += 10)?;
//! profile.save().await?; // durable when it returns
//! profile.end_session().await?; // saved and released
//!
//! assert_eq!(players.get("user-1").await?.data.coins, 10);
//! assert!(server.shutdown().await.is_complete());
//! # Ok(())
//! # }
//! ```
//!
//! # What to know
//!
//! * **Calls begin at once.** An operation is under way when its call returns; the future is only the wait for it, and dropping it
//!   cancels nothing (but a start, which is then called off). One server's operations on one profile take effect in call order.
//! * **Ok means durable**: it survives the death of every process and a crash of the store.
//! * **Errors prescribe**: [`Error::kind`] says what happened, [`ErrorKind::advice`] what to do about it.
//! * **Losing a session is ordinary.** Another server may ask for the profile ([`Profile::on_session_end`]): let the player go. A
//!   session that cannot reach the store goes on in memory and keeps trying; [`Profile::is_active`] tells.
//! * **A runtime is needed**: everything runs on the tokio runtime in which [`GameServerBuilder::start`] was called.
//!
//! # Where things are
//!
//! An [`Operator`] changes profiles from outside the game, booked in the audit log ([`audit_entries`]); [`history`] has a profile's
//! earlier versions. [`data_store`] is the storage contract with the stores in memory and in SQLite; [`messenger`] carries hints between servers, on one machine or over NATS;
//! [`document`] and [`transfer`] read and write the records of the Roblox modules ProfileStore and ProfileService, and [`roblox`] is the data
//! store on which these modules run as they are; [`record`] is the
//! stored form; [`env`](mod@env) injects clock and randomness. Where the specification (those modules' documentation) has a name for a thing,
//! the thing's documentation gives it.
#![deny(missing_docs)]

#[macro_use]
mod defects;

mod api;
mod audit;
mod data;
pub mod data_store;
pub mod document;
mod edit;
mod engine;
pub mod env;
mod error;
mod key;
mod link;
pub mod messenger;
mod migration;
mod ownership;
pub mod profile_service;
mod reconcile;
pub mod record;
pub mod roblox;
mod session;
mod settings;
mod signal;
pub mod storable;
pub mod transfer;

pub use api::{
    game_server::{AccessState, GameServer, GameServerBuilder, ShutdownReport},
    operator::Operator,
    profile::Profile,
    read_profile::ReadProfile,
    store::{ProfileStore, StoreBuilder},
    transaction::{MAX_GIFTS, MAX_PARTICIPANTS, Transaction, TransactionBuilder},
};
pub use audit::{
    AUDIT_SCOPE, Attribution, AuditEntry, AuditOutcome, AuditPage, AuditQuery, MAX_AUTHOR_BYTES, MAX_REASON_BYTES, audit_entries,
};
pub use data::ProfileData;
pub use data_store::MessageId;
#[cfg(profilestore_defects)]
pub use defects::Defect;
pub use edit::{
    BulkEdit, BulkProgress, BulkReport, Edit, EditScope, JsonChange, MAX_EDIT_BYTES, MAX_STANDING_BYTES, MAX_STANDING_EDITS,
    StandingEdit, json_changes, standing_edits,
};
pub use engine::calls::{InboxChange, Sent};
pub use engine::erase::{EraseReport, ErasedProfile, FailedErasure, SharedProfile};
pub use engine::history::Restored;
pub use engine::options::{DecideHeld, StartOptions, WhenHeld};
pub use error::{Advice, Error, ErrorKind, Result};
pub use key::{DEFAULT_SCOPE, InvalidName, MAX_NAME_CHARS, ProfileKey, RESERVED_STORE, unescaped};
pub use link::health::ForeignHolder;
pub use migration::{DATA_VERSION, Migrations, READABLE_FROM, StepFn};
pub use record::version::KeyInfo;
pub use session::{
    collect::{Collect, Collected, Keeper},
    handlers::Message,
    info::{LastSave, SessionEnd, SessionInfo},
};
pub use settings::{ConstantError, NAMES as CONSTANT_NAMES, Settings};
pub use signal::Connection;

/// A profile's earlier versions: listing and reading them, finding one by what it is called, and comparing two.
pub mod history {
    pub use crate::{
        api::{
            diff::{Difference, comparable, diff},
            versions::{KeptVersion, Versions},
        },
        record::version::{find_version, version_at},
    };
}

#[cfg(doc)]
#[doc = include_str!("../api-map.md")]
pub mod api_map {}

// The programs in README and docs are compiled by the gate, and those that can run are run.
#[cfg(all(doctest, feature = "sqlite", feature = "postgres", feature = "nats", feature = "test-util"))]
mod pages {
    #[doc = include_str!("../../../README.md")]
    struct Readme;
    #[doc = include_str!("../../../docs/getting-started.md")]
    struct GettingStarted;
    #[doc = include_str!("../../../docs/errors.md")]
    struct Errors;
    #[doc = include_str!("../../../docs/migrations.md")]
    struct Migrations;
    #[doc = include_str!("../../../docs/testing-rust.md")]
    struct TestingRust;
    #[doc = include_str!("../../../docs/backends.md")]
    struct Backends;
}
