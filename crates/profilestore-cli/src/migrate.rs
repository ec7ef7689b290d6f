//! `migrate`: bringing a store to this version's format, and making one in a database.

use std::io::Write;

use clap::Args;
use serde::Serialize;

use crate::{
    app::App,
    output::{Failure, Status, json_document, out, text},
    place::Place,
};

/// Bring a store to this version's format, and make the tables of one in PostgreSQL
///
/// May be repeated at any time, also while game servers run; but a store of an earlier format is
/// only migrated while none is alive in it, and programs of earlier versions cannot open it
/// afterwards. On PostgreSQL it makes the tables that are missing, and needs a role that may create
/// a schema in the database. A store of a newer format and what belongs to another application are
/// left alone.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore migrate --grant game_server --store postgres://owner@db.example/game
  profilestore migrate --restored        after restoring a backup of the database
  profilestore migrate --store sqlite:/srv/game/profiles.db

Passwords belong in PGPASSWORD, ~/.pgpass, or with the whole URL in PROFILESTORE_STORE: command lines can be read by others.")]
pub(crate) struct Migrate {
    /// Let this role do what a game server needs, and no more
    /// (PostgreSQL)
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
        if let (Place::Sqlite(path), None, false) = (&app.place, &self.grant, self.restored) {
            app.place.check_there()?;
            let made = app.place.migrate_file(path).await?;
            return self.show(app, made, None);
        }
        let database = app.place.database()?;
        let failure = |error| app.place.failure(&error);
        let made = database.migrate(self.grant.as_deref()).await.map_err(failure)?;
        let incarnation = match self.restored {
            true => Some(database.renew_incarnation().await.map_err(failure)?),
            false => None,
        };
        self.show(app, made, incarnation)
    }

    fn show(&self, app: &App, made: bool, incarnation: Option<String>) -> Result<Status, Failure> {
        if app.json {
            json_document(&Row { made, incarnation })?;
            return Ok(Status::Fine);
        }
        let mut out = out();
        match made {
            true => text(&mut out, format_args!("made or migrated the store {}", app.place))?,
            false => text(&mut out, format_args!("the store {} is up to date", app.place))?,
        }
        if let Some(role) = &self.grant {
            text(&mut out, format_args!("{role} may do what a game server needs"))?;
        }
        if incarnation.is_some() {
            text(
                &mut out,
                format_args!("its contents have a new identity: start the game servers anew"),
            )?;
        }
        Ok(out.flush()?).map(|()| Status::Fine)
    }
}
