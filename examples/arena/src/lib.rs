//! A small multiplayer game on profilestore. Each file is one part; README.md lists them.
#![allow(unreachable_pub, reason = "the binary and the tests are crates of their own")]

pub mod admin;
pub mod board;
pub mod game;
pub mod guild;
pub mod kept;
pub mod player;
pub mod seats;
pub mod shop;
pub mod trade;
pub mod web;

/// What the game does not do, with the reason for the player.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Store(#[from] profilestore::Error),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Refuses with a text.
pub(crate) fn refuse<T>(why: impl Into<String>) -> Result<T> {
    Err(Refusal(why.into()).into())
}
