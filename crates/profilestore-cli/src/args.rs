//! The command line.

use std::{
    convert::Infallible,
    path::{Path, PathBuf},
};

use clap::{Args as ClapArgs, Parser, Subcommand};
use profilestore::{
    Attribution, MessageId, ProfileKey,
    audit::{MAX_AUTHOR_BYTES, MAX_REASON_BYTES},
    key::unescaped,
};
use serde::Deserialize;

use crate::{
    audit::Audit,
    check::Check,
    conformance::Conformance,
    demo::{Demo, DemoServer},
    diff::Diff,
    edit::EditCommand,
    erase::Erase,
    get::Get,
    hints::Address,
    history::{History, Pin},
    list::List,
    maintain::{Backup, Restore},
    messages::Messages,
    migrate::Migrate,
    operate::{EndSession, Remove, Send},
    output::{Failure, Status},
    place::Place,
    rollback::Rollback,
    run::Run,
    serve::{KeysCommand, Serve},
    sessions::Sessions,
    shell::{Completions, Man},
    status::Status as ShowStatus,
    test::Test,
    transfer::{Export, Import},
};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  the work failed, or was done and found something wrong (said on stderr or in the report)
  2  the command line is wrong
  3  the store cannot be opened, reached or used
  4  there is no such profile or version

Times are UTC, and may be given as 2026-11-21, 2026-11-21 14:00, 2h (ago) or yesterday 18:30. With --json, output is one JSON document, or one JSON object a line for lists; times are Unix milliseconds.";

/// Player data that no two servers can write at once: import, export, inspect and operate a store.
#[derive(Debug, Parser)]
#[command(name = "profilestore", version, after_help = EXIT_CODES, max_term_width = 110)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) app: App,
    #[command(subcommand)]
    command: Command,
}

/// What every command gets.
#[derive(Debug, Clone, ClapArgs)]
pub(crate) struct App {
    /// Which store: a SQLite file as PATH or sqlite:PATH, or postgres://USER@HOST:PORT/DATABASE,
    /// whose password belongs in PGPASSWORD or ~/.pgpass. Without this the environment variable
    /// names it, for every command. Without either it is sqlite:./profiles.db; for run it is in
    /// memory, and for demo a temporary file
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

#[derive(Debug, Subcommand)]
enum Command {
    Import(Import),
    Export(Export),
    List(List),
    Get(Get),
    History(History),
    Diff(Diff),
    Rollback(Rollback),
    Pin(Pin),
    Sessions(Sessions),
    Status(ShowStatus),
    Send(Send),
    Messages(Messages),
    EndSession(EndSession),
    Remove(Remove),
    Erase(Erase),
    #[command(name = "edit")]
    Edit(Box<EditCommand>),
    Audit(Audit),
    Backup(Backup),
    Restore(Restore),
    Check(Check),
    Run(Box<Run>),
    Test(Box<Test>),
    Migrate(Migrate),
    Serve(Box<Serve>),
    Keys(KeysCommand),
    Conformance(Conformance),
    Demo(Demo),
    Completions(Completions),
    Man(Man),
    #[command(hide = true)]
    DemoServer(DemoServer),
}

impl Args {
    /// What the command line says; ends the process when it is wrong.
    pub(crate) fn read() -> Result<Self, Failure> {
        let mut args = Self::parse();
        // The server reads the whole file itself, and says all that is wrong with it at once.
        if let Some(file) = &args.app.config
            && !matches!(args.command, Command::Serve(_))
        {
            let (store, messenger) = FromFile::read(file)?;
            args.app.named = args.app.named.or(store);
            args.app.messenger = args.app.messenger.or(messenger);
        }
        args.app.place = args.app.named.clone().unwrap_or_default();
        Ok(args)
    }

    /// True when the command plays a game, whose scripts are told of calls that fail.
    pub(crate) fn is_game(&self) -> bool {
        matches!(self.command, Command::Run(_) | Command::Test(_))
    }

    pub(crate) async fn run(self) -> Result<Status, Failure> {
        let app = &self.app;
        let done = match self.command {
            Command::Import(command) => command.run(app).await,
            Command::Export(command) => command.run(app).await,
            Command::List(command) => command.run(app).await,
            Command::Get(command) => command.run(app).await,
            Command::History(command) => command.run(app).await,
            Command::Diff(command) => command.run(app).await,
            Command::Rollback(command) => command.run(app).await,
            Command::Pin(command) => command.run(app).await,
            Command::Sessions(command) => command.run(app).await,
            Command::Status(command) => command.run(app).await,
            Command::Send(command) => command.run(app).await,
            Command::Messages(command) => command.run(app).await,
            Command::EndSession(command) => command.run(app).await,
            Command::Remove(command) => command.run(app).await,
            Command::Erase(command) => command.run(app).await,
            Command::Edit(command) => command.run(app).await,
            Command::Audit(command) => command.run(app).await,
            Command::Backup(command) => command.run(app).await,
            Command::Restore(command) => command.run(app).await,
            Command::Check(command) => command.run(app).await,
            Command::Run(command) => command.run(app).await,
            Command::Test(command) => command.run(app).await,
            Command::Migrate(command) => command.run(app).await,
            Command::Serve(command) => Box::pin(command.run(app)).await,
            Command::Keys(command) => command.run(app).await,
            Command::Conformance(command) => Box::pin(command.run(app)).await,
            Command::Demo(command) => command.run(app).await,
            Command::Completions(command) => command.run(),
            Command::Man(command) => command.run(),
            Command::DemoServer(command) => command.run(app).await,
        };
        done.map_err(|failure| failure.of(&app.place))
    }
}

/// What a file with settings says to every command. The rest of it is for `serve`.
#[derive(Debug, Deserialize)]
struct FromFile {
    store: Option<String>,
    messenger: Option<String>,
}

impl FromFile {
    fn read(file: &Path) -> Result<(Option<Place>, Option<Address>), Failure> {
        let wrong = |why: String| {
            Failure::Usage(format!("the settings cannot be read: {why}: file=`{}`", file.display()))
        };
        let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
        check_names(&text).map_err(wrong)?;
        let Self { store, messenger } =
            toml::from_str(&text).map_err(|error| wrong(error.message().to_owned()))?;
        let store = store.map(|text| text.parse()).transpose();
        let messenger = messenger.map(|text| text.parse()).transpose();
        Ok((
            store.map_err(|why: String| wrong(format!("store: {why}")))?,
            messenger.map_err(|why| wrong(format!("messenger: {why}")))?,
        ))
    }
}

/// Refuses a setting that nothing knows, such as one that is spelled wrong.
#[cfg(feature = "serve")]
fn check_names(text: &str) -> Result<(), String> {
    profilestore_server::config::Options::parse(text).map(drop)
}

/// A program without `serve` does not know which settings that has.
#[cfg(not(feature = "serve"))]
fn check_names(_: &str) -> Result<(), String> {
    Ok(())
}

/// Which profile a command is about.
#[derive(Debug, ClapArgs)]
pub(crate) struct KeyArg {
    /// STORE/KEY, or STORE/SCOPE/KEY, where KEY may hold slashes
    #[arg(value_name = "KEY")]
    key: String,
    /// The scope; KEY is then STORE/KEY, and may hold further slashes
    #[arg(long, value_parser = plain_name)]
    scope: Option<String>,
}

impl KeyArg {
    pub(crate) fn parse(&self) -> Result<ProfileKey, Failure> {
        profile_key(&self.key, self.scope.as_deref())
    }
}

/// In whose name a change is made, and why.
#[derive(Debug, ClapArgs)]
pub(crate) struct ByArgs {
    /// In whose name, for the history and the audit log; the operating system's user by default
    #[arg(long, value_name = "NAME")]
    author: Option<String>,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

impl ByArgs {
    pub(crate) fn attribution(&self) -> Result<Attribution, Failure> {
        attribution(self.author.clone(), &self.reason)
    }
}

/// In this name, or that of the operating system's user.
pub(crate) fn attribution(author: Option<String>, reason: &str) -> Result<Attribution, Failure> {
    let author = match author {
        Some(author) => author,
        None => whoami::username().map_err(|error| {
            Failure::Usage(format!(
                "the operating system does not say who you are, say --author: {error}"
            ))
        })?,
    };
    let limits =
        [("author", author.len(), MAX_AUTHOR_BYTES), ("reason", reason.len(), MAX_REASON_BYTES)];
    if let Some((what, bytes, limit)) = limits.into_iter().find(|(_, bytes, limit)| bytes > limit) {
        return Err(Failure::Usage(format!(
            "the {what} is too long: bytes=`{bytes}` limit=`{limit}`"
        )));
    }
    if author.is_empty() {
        return Err(Failure::Usage("the author is empty".into()));
    }
    Ok(Attribution::new(author).because(reason))
}

/// A name as the program shows it, such as `a%0Ab`, or as it is.
pub(crate) fn plain_name(text: &str) -> Result<String, Infallible> {
    Ok(unescaped(text))
}

/// How many of a list are wanted. None of it is no list.
pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "give a whole number from 1".to_owned())
}

/// A message's identity as the program shows it, or as it is.
pub(crate) fn message_id(text: &str) -> Result<MessageId, String> {
    unescaped(text).parse().map_err(str::to_owned)
}

/// A profile by its name on the command line.
pub(crate) fn profile_key(name: &str, scope: Option<&str>) -> Result<ProfileKey, Failure> {
    let (store, rest) = name.split_once('/').ok_or_else(|| {
        Failure::Usage(format!("a profile is named STORE/KEY or STORE/SCOPE/KEY: given=`{name}`"))
    })?;
    let key = match scope {
        Some(scope) => ProfileKey::new(&unescaped(store), scope, &unescaped(rest)),
        None => name.parse(),
    };
    key.map_err(|e| Failure::Usage(e.to_string()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn profiles_are_named_by_two_or_three_parts() {
        let parsed = |key: &str, scope: Option<&str>| {
            let key = KeyArg { key: key.into(), scope: scope.map(Into::into) }.parse();
            key.map(|key| [key.store(), key.scope(), key.key()].map(str::to_owned).join("|"))
        };
        assert_eq!(parsed("PlayerData/7", None).unwrap(), "PlayerData|global|7");
        assert_eq!(parsed("PlayerData/S1/7", None).unwrap(), "PlayerData|S1|7");
        assert_eq!(parsed("PlayerData/S1/7/8", None).unwrap(), "PlayerData|S1|7/8");
        assert_eq!(parsed("PlayerData/7/8", Some("S1")).unwrap(), "PlayerData|S1|7/8");
        assert_eq!(parsed("PlayerData/global/7/8", None).unwrap(), "PlayerData|global|7/8");
        assert_eq!(parsed("A%2FB/7", None).unwrap(), "A/B|global|7");
        for (key, scope) in
            [("7", None), ("S/", None), ("/7", None), ("S//7", None), ("S/7", Some(""))]
        {
            assert!(matches!(parsed(key, scope), Err(Failure::Usage(_))), "{key}");
        }
    }
}
