//! `migrate`: making a store in a database, and bringing it to this version's format.

use std::io::Write;

use clap::Args;
use serde::Serialize;

use crate::{
    args::App,
    output::{Failure, Status, json_document, out},
};

/// Make the tables of a store in PostgreSQL, as far as they are missing
///
/// Needs a role that may create a schema in the database. May be repeated at any time, also while
/// game servers run. A store of a newer format and a schema of another application are left alone.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore migrate --grant game_server --store postgres://owner@db.example/game
  profilestore migrate --restored        after restoring a backup of the database

Passwords belong in PGPASSWORD, ~/.pgpass, or with the whole URL in PROFILESTORE_STORE: command lines can be read by others.")]
pub(crate) struct Migrate {
    /// Let this role do what a game server needs, and no more
    #[arg(long, value_name = "ROLE")]
    grant: Option<String>,
    /// The database was restored from a backup: give its contents a new identity, so that late
    /// writes of the game servers of before are refused
    #[arg(long)]
    restored: bool,
}

#[derive(Serialize)]
struct Row {
    made: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    incarnation: Option<String>,
}

impl Migrate {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let database = app.place.database()?;
        let failure = |error| app.place.failure(&error);
        let made = database.migrate(self.grant.as_deref()).await.map_err(failure)?;
        let incarnation = match self.restored {
            true => Some(database.renew_incarnation().await.map_err(failure)?),
            false => None,
        };
        if app.json {
            json_document(&Row { made, incarnation })?;
            return Ok(Status::Fine);
        }
        let mut out = out();
        match made {
            true => writeln!(out, "made or migrated the store {}", app.place)?,
            false => writeln!(out, "the store {} is up to date", app.place)?,
        }
        if let Some(role) = &self.grant {
            writeln!(out, "{role} may do what a game server needs")?;
        }
        if incarnation.is_some() {
            writeln!(out, "its contents have a new identity: start the game servers anew")?;
        }
        Ok(out.flush()?).map(|()| Status::Fine)
    }
}
