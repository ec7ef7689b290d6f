//! `keys`: making, listing and revoking keys.

use std::io::Write as _;

use profilestore::{Attribution, env::Env};
use profilestore_server::{
    Keys,
    keys::{KeyError, KeyRecord, KeyRefusal, NewKey},
};
use serde::Serialize;

use super::{KeysCommand, KeysWhat};
use crate::{
    app::App,
    operate::failure,
    output::{Failure, Status, Table, json_document, json_line, note, out, say},
    times::time,
};

#[derive(Serialize)]
struct Made<'a> {
    key: &'a str,
    record: &'a KeyRecord,
}

impl KeysCommand {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        match self.what {
            KeysWhat::Add { name, scopes, store_name, prefix, expires, by } => {
                let scopes = scopes.iter().map(|scope| scope.parse()).collect::<Result<_, _>>();
                let scopes = scopes.map_err(Failure::Usage)?;
                let new = NewKey { name, scopes, store: store_name, prefix, expires_ms: expires };
                add(app, new, &by.attribution()?).await
            }
            KeysWhat::List => list(app).await,
            KeysWhat::Revoke { id, by } => revoke(app, &id, &by.attribution()?).await,
        }
    }
}

async fn add(app: &App, new: NewKey, by: &Attribution) -> Result<Status, Failure> {
    let store = app.place.open_or_create().await?;
    store.for_writing()?;
    let (record, key) =
        Keys::new(store.any(), Env::system()).add(new, by).await.map_err(key_failure)?;
    if app.json {
        json_document(&Made { key: &key, record: &record })?;
    } else {
        say(format_args!("{key}"))?;
    }
    Ok(Status::Fine)
}

async fn list(app: &App) -> Result<Status, Failure> {
    let store = app.place.open().await?;
    let env = Env::system();
    let now_ms = env.unix_ms();
    let keys = Keys::new(store.any(), env).list().await.map_err(key_failure)?;
    let mut out = out();
    if app.json {
        keys.iter().try_for_each(|key| json_line(&mut out, key))?;
    } else {
        let rows: Vec<_> = keys.iter().map(|key| cells(key, now_ms)).collect();
        Table::new(["ID", "NAME", "STATE", "LAST USED", "REACHES", "SCOPES"])
            .page(&mut out, &rows)?;
    }
    out.flush()?;
    if keys.is_empty() && !app.json {
        note(format_args!("there is no key"));
    }
    Ok(Status::Fine)
}

fn cells(key: &KeyRecord, now_ms: i64) -> [String; 6] {
    let state = match key.refusal(now_ms) {
        None => "valid",
        Some(KeyRefusal::Revoked) => "revoked",
        Some(_) => "expired",
    };
    let reaches = match (&key.store, &key.prefix) {
        (Some(store), Some(prefix)) => format!("{store}/{prefix}…"),
        (Some(store), None) => format!("{store}/…"),
        _ => "all".to_owned(),
    };
    let scopes: Vec<_> = key.scopes.iter().map(|scope| scope.as_str()).collect();
    [
        key.id.clone(),
        key.name.clone(),
        state.to_owned(),
        key.last_used_ms.map_or_else(|| "never".to_owned(), time),
        reaches,
        scopes.join(" "),
    ]
}

async fn revoke(app: &App, id: &str, by: &Attribution) -> Result<Status, Failure> {
    let store = app.place.open().await?;
    store.for_writing()?;
    let record = Keys::new(store.any(), Env::system()).revoke(id, by).await.map_err(key_failure)?;
    if app.json {
        json_document(&record)?;
    } else {
        say(format_args!("revoked {} ({})", record.id, record.name))?;
    }
    Ok(Status::Fine)
}

pub(super) fn key_failure(error: KeyError) -> Failure {
    match error {
        KeyError::Store(error) => failure(error),
        KeyError::NotFound(_) => Failure::NotFound(error.to_string()),
        KeyError::Invalid(why) => Failure::Usage(why),
        error => Failure::Work(error.to_string()),
    }
}
