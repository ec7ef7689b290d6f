//! `serve` and `keys`: the server over HTTP. It comes with the feature `serve`; without it both
//! commands say so.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

#[cfg(not(feature = "serve"))]
use crate::{
    app::App,
    output::{Failure, Status},
};
use crate::{
    given::{ByArgs, plain_name},
    times::to_come,
};

#[cfg(feature = "serve")]
mod keys;
#[cfg(feature = "serve")]
mod server;

/// Serve profiles over HTTP
///
/// Without any option it listens on 127.0.0.1:7400, on the store ./profiles.db, which it makes if
/// it is not there; and when the store has no key for it yet, it makes one and shows it. Beyond
/// this machine it needs a key (`profilestore keys add`), and TLS or a proxy that does it. SIGTERM
/// and Ctrl-C finish what is under way. See docs/server.md, or /docs of the running server.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  profilestore serve
  profilestore serve --check --config serve.toml
  profilestore serve --listen 0.0.0.0:7400 --tls-certificate c.pem --tls-key k.pem")]
pub(crate) struct Serve {
    /// Address and port; 127.0.0.1:7400 by default
    #[arg(long, value_name = "ADDRESS", env = "PROFILESTORE_LISTEN")]
    listen: Option<String>,
    /// A PEM file with the certificate and those that it rests on
    #[arg(long, value_name = "FILE", env = "PROFILESTORE_TLS_CERTIFICATE")]
    tls_certificate: Option<PathBuf>,
    /// A PEM file with its private key
    #[arg(long, value_name = "FILE", env = "PROFILESTORE_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// A proxy in front of the server does TLS, and nothing else reaches the server
    #[arg(long, env = "PROFILESTORE_TRUST_PROXY", value_name = "BOOL", num_args = 0..=1,
        require_equals = true, default_missing_value = "true")]
    trust_proxy: Option<bool>,
    /// The name of this process, for people
    #[arg(long, value_name = "NAME", env = "PROFILESTORE_JOB")]
    job: Option<String>,
    /// How many connections are open at once; 20000 by default
    #[arg(long, value_name = "N", env = "PROFILESTORE_MAX_CONNECTIONS")]
    max_connections: Option<usize>,
    /// The longest that one request takes; 60 by default
    #[arg(long, value_name = "SECONDS", env = "PROFILESTORE_REQUEST_SECONDS")]
    request_seconds: Option<u64>,
    /// How long a stopping server waits for requests under way; 30 by default
    #[arg(long, value_name = "SECONDS", env = "PROFILESTORE_STOP_SECONDS")]
    stop_seconds: Option<u64>,
    /// How many requests a second a key, or a log-in, may send to this process; 1000 by default
    #[arg(long, value_name = "N", env = "PROFILESTORE_REQUESTS_PER_SECOND")]
    requests_per_second: Option<u64>,
    /// Where people and programs reach the server, such as `https://profiles.example.com`; where it
    /// listens by default
    #[arg(long, value_name = "URL", env = "PROFILESTORE_PUBLIC_URL")]
    public_url: Option<String>,
    /// Only say whether it could serve, and what is wrong
    #[arg(long)]
    check: bool,
}

/// Make, list and revoke keys for the server over HTTP
///
/// A key is shown once, when it is made. The store keeps no more than a digest of it.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  profilestore keys add ann --scope admin
  profilestore keys add web-shop --scope messages:send --store-name PlayerData
  profilestore keys list
  profilestore keys revoke 1a2b3c4d5e6f

Scopes: admin, audit:read, edits:bulk, edits:single, history:restore,
messages:send, metrics:read, profiles:read, profiles:write, sessions:end,
sessions:hold, users:erase, users:export")]
pub(crate) struct KeysCommand {
    #[command(subcommand)]
    what: KeysWhat,
}

#[derive(Debug, Subcommand)]
enum KeysWhat {
    /// Make a key and show it, this once
    Add {
        /// Its name, for people: the author of what is done with it
        name: String,
        /// What it may be used for; can be given several times (see profilestore keys --help)
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<String>,
        /// Only profiles of this store
        #[arg(long, value_parser = plain_name, value_name = "NAME")]
        store_name: Option<String>,
        /// Only profiles whose key begins so; needs --store-name
        #[arg(long, value_parser = plain_name, requires = "store_name")]
        prefix: Option<String>,
        /// From when on it is refused: a date or a moment, UTC, or a length such as 90 days
        #[arg(long, value_name = "TIME", value_parser = to_come)]
        expires: Option<i64>,
        #[command(flatten)]
        by: ByArgs,
    },
    /// List all keys; their secrets are not known
    List,
    /// Refuse a key from now on; running servers follow within two seconds
    Revoke {
        /// Its id: the part between the first two underscores
        id: String,
        #[command(flatten)]
        by: ByArgs,
    },
}

#[cfg(not(feature = "serve"))]
impl Serve {
    #[expect(clippy::unused_async, reason = "as with the server")]
    pub(crate) async fn run(self, _: &App) -> Result<Status, Failure> {
        Err(Failure::left_out("the server over HTTP", "serve"))
    }
}

#[cfg(not(feature = "serve"))]
impl KeysCommand {
    #[expect(clippy::unused_async, reason = "as with the server")]
    pub(crate) async fn run(self, _: &App) -> Result<Status, Failure> {
        Err(Failure::left_out("the server over HTTP", "serve"))
    }
}
