//! `send`, `end-session` and `remove`: acting on one profile, as a game server of its own for a
//! moment.

use std::time::Duration;

use clap::Args;
use profilestore::{
    Attribution, Error, ErrorKind, GameServer, MessageId, Operator, ProfileKey, Sent,
    data_store::{DataStoreExt, KeyState, Returning},
    env::Env,
    key::escaped,
};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    app::App,
    given::{ByArgs, KeyArg, message_id},
    output::{Failure, Status, ask, json_document, note, say},
    place::Store,
};

/// Send a message to a profile
///
/// It waits in the profile's inbox until a handler of the game has processed it, whether or not the
/// profile is live anywhere. Where there is no such profile, because the key is mistyped or the
/// player has never played, you are asked first. Prints the message's id: sending again with --id
/// is harmless, the effect comes once.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore send PlayerData/7 '{\"type\":\"gift\",\"coins\":5}'
  profilestore send PlayerData/7 '{\"type\":\"refund\"}' --id 1795000000000:order-4711
  profilestore send PlayerData/8 '{\"type\":\"welcome\"}' --yes")]
pub(crate) struct Send {
    #[command(flatten)]
    key: KeyArg,
    /// What the game's handlers get, JSON
    #[arg(value_name = "JSON")]
    message: String,
    /// The message's identity, TIME:NAME with the time in Unix milliseconds; one of its own by
    /// default
    #[arg(long, value_name = "TIME:NAME", value_parser = message_id)]
    id: Option<MessageId>,
    /// Also to a player who has never played, without a question
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    by: ByArgs,
}

/// End the session on a profile
///
/// Asks the server that holds it to save and let go, as another server would that wants to open it.
/// A dead server's session is ended after its lease time. A profile that is free already is left
/// alone. With --steal the holder is not asked:
/// what it has not saved is lost.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore end-session PlayerData/7
  profilestore end-session PlayerData/7 --steal")]
pub(crate) struct EndSession {
    #[command(flatten)]
    key: KeyArg,
    /// Take the profile from its holder without asking
    #[arg(long)]
    steal: bool,
    /// Give up after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
    #[command(flatten)]
    by: ByArgs,
}

/// Remove a profile
///
/// Ends whatever session there is, empties the inbox and leaves a tombstone. Earlier versions stay
/// in the history for its retention.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore remove PlayerData/7
  profilestore remove PlayerData/7 --yes")]
pub(crate) struct Remove {
    #[command(flatten)]
    key: KeyArg,
    /// Do not ask for confirmation
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    by: ByArgs,
}

#[derive(Serialize)]
struct SendRow<'a> {
    #[serde(flatten)]
    key: &'a ProfileKey,
    id: String,
    /// False when a message of this id had been stored before.
    stored_now: bool,
    /// False when there was no such profile: it waits for a player who has yet to begin.
    profile: bool,
}

#[derive(Serialize)]
struct Done<'a> {
    #[serde(flatten)]
    key: &'a ProfileKey,
    done: bool,
}

impl Send {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let key = self.key.parse()?;
        let message: Box<RawValue> = serde_json::from_str(&self.message).map_err(|error| {
            Failure::Usage(format!("the message is not JSON: {error}: given=`{}`", self.message))
        })?;
        let id = match self.id {
            Some(id) => id,
            None => own_id()?,
        };
        let by = self.by.attribution()?;
        let file = app.place.open().await?;
        file.for_writing()?;
        let (_, state) = file.read_one(&key, Returning::HEAD).await?;
        let no_profile = says_no_profile(&state);
        match &no_profile {
            Some(said) if !self.yes && !ask(&format!("{said}. Send it all the same?"))? => {
                return Err(Failure::Work(format!("not sent: key=`{key}`")));
            }
            Some(said) if self.yes && !app.json => note(format_args!("{said}")),
            _ => {}
        }
        let visit = Visit::on(app, file, by).await?;
        let sent = visit.operator.send(&key, &id, &*message).await;
        visit.end().await;
        let sent = sent.map_err(failure)?;
        if app.json {
            json_document(&SendRow {
                key: &key,
                id: id.to_string(),
                stored_now: sent == Sent::Now,
                profile: no_profile.is_none(),
            })?;
        } else {
            // As it is typed in.
            let id = escaped(&id.to_string());
            if sent == Sent::Now {
                say(format_args!("sent to {key}: id {id}"))?;
            } else {
                say(format_args!("was sent to {key} before: id {id}"))?;
            }
        }
        Ok(Status::Fine)
    }
}

/// That there is no profile which a message would reach, if so. One that is being made is held.
fn says_no_profile(state: &KeyState) -> Option<String> {
    if state.exists() || state.lease.holder.is_some() {
        return None;
    }
    let key = &state.key;
    let said = match state.version {
        0 => format!("there never was a profile {key}"),
        _ => format!("the profile {key} was removed"),
    };
    Some(said + "; a message waits there until a player begins under this key")
}

impl EndSession {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let key = self.key.parse()?;
        let by = self.by.attribution()?;
        let file = app.place.open().await?;
        let (_, state) = file.read_one(&key, Returning::HEAD).await?;
        let Some(holder) = held_by(&state) else {
            return free_already(app, &key, &state);
        };
        let visit = Visit::on(app, file, by).await?;
        if !app.json {
            note(format_args!(
                "{key} is held by {holder}; {}",
                if self.steal { "taking it" } else { "asking it to let go" }
            ));
        }
        let ended =
            visit.operator.end_session(&key, self.steal, Duration::from_secs(self.timeout)).await;
        visit.end().await;
        ended.map_err(failure)?;
        if app.json {
            json_document(&Done { key: &key, done: true })?;
        } else {
            say(format_args!("{key} is free"))?;
        }
        Ok(Status::Fine)
    }
}

/// There is no session to be ended, which is what was wanted.
fn free_already(app: &App, key: &ProfileKey, state: &KeyState) -> Result<Status, Failure> {
    if state.version == 0 && state.last_message == 0 {
        return Err(Failure::NotFound(format!("there is no such profile: key=`{key}`")));
    }
    match app.json {
        true => json_document(&Done { key, done: false })?,
        false => say(format_args!("{key} is free already: no session holds it"))?,
    }
    Ok(Status::Fine)
}

impl Remove {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let key = self.key.parse()?;
        let by = self.by.attribution()?;
        let file = app.place.open().await?;
        file.for_writing()?;
        let (_, state) = file.read_one(&key, Returning::INBOX).await?;
        let waiting = state.inbox.as_ref().map_or(0, Vec::len);
        if !state.exists() && waiting == 0 {
            return Err(Failure::NotFound(format!("there is no such profile: key=`{key}`")));
        }
        let session = held_by(&state)
            .map(|holder| format!(", ending the session on {holder}"))
            .unwrap_or_default();
        if !self.yes
            && !ask(&format!(
                "remove {key} at version {}, with {waiting} waiting messages{session}?",
                state.version
            ))?
        {
            return Err(Failure::Work(format!("not removed: key=`{key}`")));
        }
        let visit = Visit::on(app, file, by).await?;
        let removed = visit.operator.remove(&key).await;
        visit.end().await;
        let done = removed.map_err(failure)?;
        match (app.json, done) {
            (true, _) => json_document(&Done { key: &key, done })?,
            (false, true) => say(format_args!(
                "{key} is removed; its earlier versions stay in the history for 30 days"
            ))?,
            (false, false) => say(format_args!("{key} was removed meanwhile; nothing was done"))?,
        }
        Ok(Status::Fine)
    }
}

/// A game server for the length of one command.
pub(crate) struct Visit {
    server: GameServer,
    pub(crate) operator: Operator,
}

impl Visit {
    pub(crate) async fn on(app: &App, file: Store, by: Attribution) -> Result<Self, Failure> {
        file.for_writing()?;
        let messenger = app.messenger(file.messenger()?).await?;
        let job = format!("profilestore-{}", std::process::id());
        let server = GameServer::builder(file.any())
            .messenger(messenger)
            .job_id(job)
            .start()
            .await
            .map_err(failure)?;
        Ok(Self { operator: server.operator(by), server })
    }

    pub(crate) async fn end(self) {
        // Whatever it did has been awaited; only its row is given back here.
        let _ = self.server.shutdown().await;
    }
}

pub(crate) fn held_by(state: &KeyState) -> Option<String> {
    state
        .lease
        .holder
        .as_ref()
        .map(|holder| format!("{} (place {})", holder.job_id, holder.place_id))
}

fn own_id() -> Result<MessageId, Failure> {
    let env = Env::system();
    MessageId::new(env.unix_ms(), &env.uuid().to_string())
        .ok_or_else(|| Failure::Work("no message id could be made".into()))
}

/// The exit code and message for an error of the library.
pub(crate) fn failure(error: Error) -> Failure {
    let text = crate::output::chain(&error);
    match error.kind() {
        ErrorKind::Invalid | ErrorKind::TooLarge | ErrorKind::MessageIdExpired => {
            Failure::Usage(text)
        }
        ErrorKind::Unavailable
        | ErrorKind::TakenAway
        | ErrorKind::Corrupt
        | ErrorKind::Replaced => Failure::Store(text),
        ErrorKind::NotFound => Failure::NotFound(text),
        _ => Failure::Work(text),
    }
}
