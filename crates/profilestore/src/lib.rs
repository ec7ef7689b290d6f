//! Player data that no two servers can write at once.
#![deny(missing_docs)]

pub mod data_store;
pub mod document;
pub mod env;
mod key;
pub mod messenger;
pub mod record;

pub use key::{DEFAULT_SCOPE, InvalidName, MAX_NAME_CHARS, ProfileKey};
