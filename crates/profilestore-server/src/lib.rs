//! profilestore over the network: HTTP for everything that needs no session, a WebSocket for the
//! sessions of game servers.
//!
//! The command `profilestore serve` is a thin shell around this library. [`Config`] says where it
//! listens, [`Keys`] who may do what, [`App`] answers requests, and [`Server`] listens.
//!
//! * `bulk`: edits of many profiles, which go on whichever process ends.
//! * `cleaning`: the store's file after erasures.
//! * [`config`]: one table of settings, from a file, the environment and the command line.
//! * [`keys`]: keys of callers, kept in the store itself.
//! * `access`: members, their roles and log-ins.
//! * `auth`: who asks, and what the caller may do.
//! * `rates`: how many requests a second.
//! * [`problem`]: every error as RFC 9457 has it, from one table.
//! * `http`: the resources.
//! * `ws`: sessions of game servers in any language.
//! * `listen`: connections, TLS, and a shutdown that finishes what it has begun.
#![deny(missing_docs)]

mod access;
mod app;
mod auth;
mod bulk;
mod cleaning;
pub mod config;
mod cookie;
mod http;
pub mod keys;
mod listen;
mod openapi;
pub mod problem;
mod rates;
mod secret;
mod shelf;
mod telemetry;
mod tls;
mod ws;

pub use app::{App, Parts};
pub use config::Config;
pub use keys::Keys;
pub use listen::Server;
pub use openapi::{frames, openapi};
pub use telemetry::record_metrics;
pub use tls::{TlsError, TlsFiles};
