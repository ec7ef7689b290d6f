//! `rollback`: making an earlier version of a profile current again.

use clap::Args;
use profilestore::{
    Attribution, ErrorKind, ProfileKey,
    data_store::{DataStore, Incarnation, KeyState, Links, Returning, StoredVersion, VersionRef},
    env::Env,
    history::{NotUndone, not_undone},
    key::escaped,
    operator::{Expected, Restored},
};
use serde::Serialize;

use crate::{
    app::App,
    diff::{current, differences},
    given::{ByArgs, KeyArg},
    operate::{Visit, failure, held_by},
    output::{Failure, Status, ask, count, json_document, note, say, word},
    place::Store,
    times::time,
    versions::{VersionArg, described, existing},
};

/// How often a rollback is asked about, when the profile changes meanwhile.
const ASKED_AT_MOST: usize = 5;

/// Make an earlier version of a profile current again
///
/// It becomes a new version, byte for byte; what it replaces stays in the history, so a rollback
/// can itself be rolled back. Whatever session there is ends, and what it has not saved is lost.
/// Waiting messages stay. Booked in the audit log. What the profile did to others since is not
/// undone: messages that it sent and took, and trades are listed, by id and profile. When the
/// profile is saved or changes hands while you are asked, nothing is done: you are shown how it is
/// now and asked again, five times at most. With --yes it is rolled back as it is at that moment.
/// (To make a store out of a backup, see restore.)
#[derive(Debug, Args)]
#[command(after_help = "\
VERSION is a number, a version string (see history), or a time: the version that was current at its
end. 14:31 includes all of its minute, 14:31:24 all of its second, a date all of its day.

Examples:
  profilestore rollback PlayerData/7 12 --reason 'lost items, ticket 4711'
  profilestore rollback PlayerData/7 2026-11-20T18:30:00Z --yes")]
pub(crate) struct Rollback {
    #[command(flatten)]
    key: KeyArg,
    /// The version to go back to
    #[arg(value_name = "VERSION")]
    version: VersionArg,
    /// Only show which version it would be, what would differ, and what would not be undone
    #[arg(long)]
    dry_run: bool,
    /// Do not ask for confirmation
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    by: ByArgs,
}

/// What a rollback does not undo, for people.
fn not_undone_lines(since: &NotUndone) -> Vec<String> {
    let mut lines = Vec::new();
    for commit in &since.commits {
        let at = format!("version {}, {}", commit.version, time(commit.at_ms));
        let Links { taken, sent, trade, left_out, .. } = &commit.links;
        lines.extend(
            taken.iter().map(|id| format!("  {at}: took the message {}", escaped(&id.to_string()))),
        );
        lines.extend(sent.iter().map(|sent| {
            let id = escaped(&sent.id.to_string());
            format!("  {at}: sent the message {id} to {}", sent.to)
        }));
        lines.extend(trade.iter().map(|trade| {
            let with: Vec<_> = trade.with.iter().map(ToString::to_string).collect();
            format!("  {at}: traded with {} in the transaction {}", with.join(", "), trade.id)
        }));
        if *left_out > 0 {
            lines.push(format!("  {at}: {}", count(*left_out, "more message", "more messages")));
        }
    }
    if since.more {
        lines.push("  and more than is listed here".to_owned());
    }
    if !lines.is_empty() {
        let first = "A rollback does not undo what the profile did to others since. What it sent or \
            traded away is then there twice, and what it took is gone:";
        lines.insert(0, first.to_owned());
    }
    lines
}

#[derive(Serialize)]
struct RollbackRow<'a> {
    #[serde(flatten)]
    key: &'a ProfileKey,
    #[serde(flatten)]
    done: Restored,
    restored_written_ms: i64,
}

impl Rollback {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let key = self.key.parse()?;
        let by = self.by.attribution()?;
        let file = app.place.open().await?;
        if !self.dry_run {
            file.for_writing()?;
        }
        let now = Now::of(&file, &key).await?;
        let version = self.version.find(&*file, &now.state).await?;
        if self.dry_run {
            return preview(app, &*file, &key, &now.state, &version).await;
        }
        let done = if self.yes {
            let visit = Visit::on(app, file, by).await?;
            let which = VersionRef::Number(version.info.number);
            let done = visit.operator.restore(&key, which).await;
            visit.end().await;
            done.map_err(failure)?
        } else {
            let rollback = Asked { app, file, key: &key, version: &version, by };
            rollback.run(now, ask).await?
        };
        if app.json {
            let restored_written_ms = version.info.written_ms;
            json_document(&RollbackRow { key: &key, done, restored_written_ms })?;
        } else {
            let session = done
                .held_by
                .map(|job| format!("; the session on {job} is over"))
                .unwrap_or_default();
            say(format_args!(
                "{key} is at version {}, which is {} again{session}",
                done.version,
                described(&version.info)
            ))?;
            for line in not_undone_lines(&done.not_undone) {
                say(format_args!("{line}"))?;
            }
        }
        Ok(Status::Fine)
    }
}

/// A profile as it is at a moment.
struct Now {
    incarnation: Incarnation,
    state: KeyState,
}

impl Now {
    async fn of(file: &Store, key: &ProfileKey) -> Result<Self, Failure> {
        // Before the look, so that what follows it is noticed.
        let incarnation = file.identity().await?.incarnation;
        let state = existing(&**file, key, Returning::HEAD).await?;
        Ok(Self { incarnation, state })
    }
}

/// A rollback that an operator is asked about.
struct Asked<'a> {
    app: &'a App,
    file: Store,
    key: &'a ProfileKey,
    version: &'a StoredVersion,
    by: Attribution,
}

impl Asked<'_> {
    /// Does what was shown, and nothing else. A game may save every few seconds: what it has saved
    /// since is shown too, and asked about.
    async fn run(
        self,
        mut now: Now,
        mut ask: impl FnMut(&str) -> Result<bool, Failure>,
    ) -> Result<Restored, Failure> {
        let Self { app, file, key, version, by } = &self;
        let number = version.info.number;
        let mut told = Vec::new();
        for _ in 0..ASKED_AT_MOST {
            let since = not_undone_lines(&not_undone(&**file, key, number).await?);
            if since != told {
                since.iter().for_each(|line| note(format_args!("{line}")));
                told = since;
            }
            if !ask(&self.question(&now.state).await)? {
                return Err(Failure::Work(format!("not rolled back: key=`{key}`")));
            }
            let visit = Visit::on(app, file.clone(), by.clone()).await?;
            let (operation, which) = (Env::system().uuid(), VersionRef::Number(number));
            let shown = Expected::of(now.incarnation, &now.state);
            let done = visit.operator.restore_if(operation, key, shown, which).await;
            visit.end().await;
            match done {
                Err(error) if error.kind() == ErrorKind::Changed => {}
                done => return done.map_err(failure),
            }
            let before = now.incarnation;
            now = Now::of(file, key).await?;
            if now.incarnation != before {
                return Err(Failure::Work(format!(
                    "a backup was restored while you were asked; nothing was rolled back: \
                        key=`{key}`"
                )));
            }
            note(format_args!("{key} has changed while you were asked; nothing was done yet"));
        }
        Err(Failure::Work(format!(
            "not rolled back: the profile changed each time while you were asked; with --yes it is \
                rolled back as it is at that moment: key=`{key}`"
        )))
    }

    async fn question(&self, state: &KeyState) -> String {
        let Self { file, key, version, .. } = self;
        let changes = changes(&**file, key, state, version).await;
        let session = held_by(state)
            .map(|holder| format!(", ending the session on {holder}"))
            .unwrap_or_default();
        let from = state.head.as_ref().map(described).unwrap_or_default();
        let to = described(&version.info);
        format!("roll {key} back from {from} to {to}, {changes}{session}?")
    }
}

/// How much differs. The current value may be what is wrong.
async fn changes(
    store: &dyn DataStore,
    key: &ProfileKey,
    state: &KeyState,
    version: &StoredVersion,
) -> String {
    let current = current(store, state).await;
    match current.and_then(|current| differences(key, &current, version)) {
        Ok(differences) => count(differences.len() as u64, "difference", "differences"),
        Err(_) => "differences that cannot be shown".to_owned(),
    }
}

#[derive(Serialize)]
struct PreviewRow<'a> {
    #[serde(flatten)]
    key: &'a ProfileKey,
    restores: u64,
    restored_written_ms: i64,
    replaces: u64,
    not_undone: NotUndone,
}

/// What a rollback would do, and what it would not undo.
async fn preview(
    app: &App,
    store: &dyn DataStore,
    key: &ProfileKey,
    state: &KeyState,
    version: &StoredVersion,
) -> Result<Status, Failure> {
    let not_undone = not_undone(store, key, version.info.number).await?;
    if app.json {
        let (restores, restored_written_ms) = (version.info.number, version.info.written_ms);
        let replaces = state.version;
        json_document(&PreviewRow { key, restores, restored_written_ms, replaces, not_undone })?;
        return Ok(Status::Fine);
    }
    let from = state.head.as_ref().map(described).unwrap_or_default();
    let changes = changes(store, key, state, version).await;
    say(format_args!(
        "{key} would go back from {from} to {}, {changes}; see: profilestore diff {} {}",
        described(&version.info),
        word(&key.to_string()),
        version.info.number
    ))?;
    for line in not_undone_lines(&not_undone) {
        say(format_args!("{line}"))?;
    }
    Ok(Status::Fine)
}

#[cfg(test)]
mod tests {
    use profilestore::{
        GameServer, Profile,
        data_store::{SqliteMessenger, SqliteOptions, SqliteStore},
    };
    use serde_json::{Value, json};
    use tokio::{runtime::Handle, task::block_in_place};

    use super::*;
    use crate::place::Place;

    async fn save(profile: &Profile<Value>, coins: usize) {
        profile.update(|data| *data = json!({ "Coins": coins })).unwrap();
        profile.save().await.unwrap();
    }

    /// A yes came too late whenever the game had saved meanwhile, as some do every few seconds.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_profile_that_is_saved_while_the_operator_is_asked_is_asked_about_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("profiles.db");
        let store = SqliteStore::open(&path, SqliteOptions::default()).unwrap();
        let messenger = SqliteMessenger::new(&store);
        let game = GameServer::builder(store).messenger(messenger).job_id("game").start();
        let game = game.await.unwrap();
        let players = game.store::<Value>("PlayerData").unwrap();
        let place = Place::Sqlite(path);
        let app = App { named: None, place, messenger: None, config: None, json: false };
        let file = app.place.open().await.unwrap();
        for saves in [0, 2, ASKED_AT_MOST] {
            let name = format!("saved-{saves}-times");
            let key = ProfileKey::new("PlayerData", "global", &name).unwrap();
            // The end of a session keeps its version.
            let first = players.start_session(&name).await.unwrap();
            save(&first, 1).await;
            first.end_session().await.unwrap();
            let then = Now::of(&file, &key).await.unwrap();
            let version = current(&*file, &then.state).await.unwrap();
            let profile = players.start_session(&name).await.unwrap();
            save(&profile, 2).await;
            let now = Now::of(&file, &key).await.unwrap();
            let (runtime, mut asked) = (Handle::current(), 0);
            let yes = |question: &str| {
                let ends = ", ending the session on game (place 0)?";
                assert!(question.ends_with(ends), "{question}");
                asked += 1;
                if asked <= saves {
                    block_in_place(|| runtime.block_on(save(&profile, 2 + asked)));
                }
                Ok(true)
            };
            let (by, file_) = (Attribution::new("ann"), file.clone());
            let rollback = Asked { app: &app, file: file_, key: &key, version: &version, by };
            let done = rollback.run(now, yes).await;
            assert_eq!(asked, (saves + 1).min(ASKED_AT_MOST));
            let now = Now::of(&file, &key).await.unwrap();
            let value = current(&*file, &now.state).await.unwrap().value;
            if saves < ASKED_AT_MOST {
                assert_eq!((done.unwrap().version, value), (now.state.version, version.value));
            } else {
                let said = done.unwrap_err().to_string();
                assert!(said.contains("changed each time") && said.contains("--yes"), "{said}");
                assert!(value != version.value && !profile.is_over(), "nothing was done");
            }
        }
        let _ = game.shutdown().await;
    }
}
