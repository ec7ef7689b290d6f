//! What programs hold. Each call that opens something stands with what it opens.

pub(crate) mod between;
mod conditional;
pub(crate) mod diff;
mod ending;
pub(crate) mod game_server;
pub(crate) mod listing;
pub(crate) mod messages;
mod mock;
pub(crate) mod operator;
#[cfg(test)]
mod overload;
pub(crate) mod profile;
pub(crate) mod read_profile;
pub(crate) mod stop;
pub(crate) mod store;
pub(crate) mod transaction;
pub(crate) mod versions;
