//! The command line.

use std::path::Path;

use clap::{
    Arg, ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, parser::ValueSource,
};
use serde::Deserialize;

use crate::{
    app::App,
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
  4  there is no such profile, version or store name

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

/// The options of every command that `test` refuses: by what they are known here, and as they are
/// given.
const NOT_OF_TEST: [(&str, &str); 3] =
    [("named", "--store"), ("messenger", "--messenger"), ("config", "--config")];

impl Args {
    /// The whole command line. The help of `test` does not list what `test` refuses.
    pub(crate) fn whole() -> clap::Command {
        let whole = Self::command();
        let hidden: Vec<Arg> = whole
            .get_arguments()
            .filter(|arg| NOT_OF_TEST.iter().any(|(id, _)| arg.get_id().as_str() == *id))
            .map(|arg| arg.clone().hide(true))
            .collect();
        whole.mut_subcommands(|command| {
            // An option of a command's own takes the place of the one of every command.
            if command.get_name() == "test" { command.args(hidden.clone()) } else { command }
        })
    }

    /// What the command line says; ends the process when it is wrong.
    pub(crate) fn read() -> Result<Self, Failure> {
        let given = Self::whole().get_matches();
        let mut args = Self::from_arg_matches(&given)
            .unwrap_or_else(|error| error.format(&mut Self::whole()).exit());
        args.refuse_unused(&given)?;
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

    /// Refuses options of every command that this one would not use. What the environment says is
    /// for the other commands.
    fn refuse_unused(&self, given: &ArgMatches) -> Result<(), Failure> {
        if !matches!(self.command, Command::Test(_)) {
            return Ok(());
        }
        let is_given = |id: &str| given.value_source(id) == Some(ValueSource::CommandLine);
        match NOT_OF_TEST.into_iter().find(|(id, _)| is_given(id)) {
            Some((_, option)) => Err(Failure::Usage(format!(
                "test does not use {option}: each file of tests has a store of its own, in memory; \
                 leave {option} out, or play the game on a store with `profilestore run`"
            ))),
            None => Ok(()),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::whole().debug_assert();
    }
}
