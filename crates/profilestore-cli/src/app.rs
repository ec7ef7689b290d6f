//! What every command gets: the store, the messenger, and the form of the output.

use std::path::PathBuf;

use clap::Args;

use crate::{hints::Address, place::Place};

/// What every command gets.
#[derive(Debug, Clone, Args)]
pub(crate) struct App {
    /// Which store: a SQLite file as PATH or sqlite:PATH, or postgres://USER@HOST:PORT/DATABASE,
    /// whose password belongs in PGPASSWORD or ~/.pgpass. Without this the environment variable
    /// names it, for every command. Without either it is sqlite:./profiles.db; for run it is in
    /// memory, and for demo a temporary file. Tests have stores of their own: test refuses it
    #[arg(
        long = "store",
        global = true,
        value_name = "STORE",
        env = "PROFILESTORE_STORE",
        hide_env_values = true
    )]
    pub(crate) named: Option<Place>,
    /// The store that was named, or else the usual one.
    #[arg(skip)]
    pub(crate) place: Place,
    /// What carries hints between servers on several machines: `nats://HOST[:PORT][,HOST…]`, with
    /// `USER:PASSWORD@` or `TOKEN@` before and ?tls=off, ?ca=FILE, ?creds=FILE behind. By default
    /// what belongs to the store. TLS is required for other machines
    #[arg(
        long,
        global = true,
        value_name = "ADDRESS",
        env = "PROFILESTORE_MESSENGER",
        hide_env_values = true
    )]
    pub(crate) messenger: Option<Address>,
    /// A file with settings (TOML), of which `store` and `messenger` are for every command, and the
    /// rest for serve: see docs/server.md. What is named here or in the environment counts first
    #[arg(long, global = true, value_name = "FILE", env = "PROFILESTORE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Output for programs
    #[arg(long, global = true)]
    pub(crate) json: bool,
}
