//! Player data that no two servers can write at once.
#![deny(missing_docs)]

mod autosave;
mod data;
pub mod data_store;
pub mod document;
mod engine;
pub mod env;
mod error;
mod game_server;
mod key;
pub mod messenger;
mod profile;
mod reconcile;
pub mod record;
mod session;
mod settings;
mod signal;
mod store;
pub mod transfer;

pub use data::ProfileData;
pub use data_store::MessageId;
pub use engine::calls::Sent;
pub use error::{Advice, Error, ErrorKind, Result};
pub use game_server::{AccessState, GameServer, GameServerBuilder, ShutdownReport, StoreBuilder};
pub use key::{DEFAULT_SCOPE, InvalidName, MAX_NAME_CHARS, ProfileKey};
pub use profile::{KeyInfo, Profile, ReadProfile, SessionInfo};
pub use session::{LastSave, SessionEnd, messages::Message};
pub use settings::{ConstantError, NAMES as CONSTANT_NAMES, Settings};
pub use signal::Connection;
pub use store::{ProfileStore, StartOptions};
