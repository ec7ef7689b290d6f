//! Plays the game.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use profilestore::{
    Settings,
    data_store::{DataStore, SqliteMessenger, SqliteOptions, SqliteStore},
    env::Env,
    messenger::Messenger,
    roblox::BudgetRules,
};
use profilestore_luau::{
    Console, Failed, Game, GameBuilder, HttpHost, Limits, Line, Output, Plan, Report, Script, Time,
    Tree, is_project,
};
use serde_json::json;

use super::{BudgetsArg, Run, TimeArg, VersionsArg};
use crate::{
    database::Database,
    hints::Address,
    output::{Failure, Status, count, note},
    place::Place,
};

pub(super) fn play(
    run: Run,
    store: Option<(Place, Option<Address>)>,
    json: bool,
) -> Result<Status, Failure> {
    let plays = Plays::of(&run.path)?;
    let mut game =
        Game::builder().servers(run.servers.into()).seed(run.seed).place_id(run.place_id);
    game = game.time(match run.time {
        TimeArg::Real => Time::Real,
        TimeArg::Virtual => Time::Virtual,
    });
    if let Some(until) = run.until {
        game = game.until(until);
    }
    if let Some(spec) = &run.players {
        let plan: Plan =
            spec.parse().map_err(|error| Failure::Usage(format!("--players: {error}")))?;
        if plan.is_endless() && run.until.is_none() {
            return Err(Failure::Usage(
                "these players go on for ever; say with --until when the game ends".into(),
            ));
        }
        plan.check(run.servers.into())
            .map_err(|error| Failure::Usage(format!("--players: {error}")))?;
        game = game.players(plan);
    }
    let keep_every_save = run.versions == VersionsArg::EverySave;
    let settings = Settings { keep_every_save, ..Settings::default() };
    let mut limits = Limits::default();
    limits.memory = usize::try_from(u64::from(run.max_memory) << 20).unwrap_or(usize::MAX);
    limits.step = run.max_step;
    game =
        game.settings(settings).limits(limits).latency(seconds("--latency", run.latency / 1000.0)?);
    if !(0.0..=100.0).contains(&run.errors) {
        return Err(Failure::Usage(format!("--errors is a percentage: given=`{}`", run.errors)));
    }
    game = game.errors(run.errors);
    game = match run.budgets {
        BudgetsArg::None => game,
        BudgetsArg::Older => game.budgets(BudgetRules::Older),
        BudgetsArg::Newer => game.budgets(BudgetRules::Newer),
    };
    for module in &run.modules {
        let Some((name, file)) =
            module.split_once('=').filter(|(name, file)| !name.is_empty() && !file.is_empty())
        else {
            return Err(Failure::Usage(format!("a module is named NAME=FILE: given=`{module}`")));
        };
        game = game.module(name, read(Path::new(file))?);
    }
    if let Some(file) = &run.client {
        game = game.client(Script { name: name_of(file), source: read(file)? });
    }
    game = reaching(game, &run.allow_http)?;
    let console =
        Arc::new(Noted { console: Console::new(run.servers > 1), any: AtomicBool::new(json) });
    game = if json { game.output(Arc::new(JsonLines)) } else { game.output(console.clone()) };
    let file = Arc::new(OnceLock::new());
    if let Some((place, messenger)) = store {
        game = stored(game, place, messenger, run.time, file.clone())?;
    }
    let report = plays.run(game).map_err(|error| Failure::Work(error.to_string()))?;
    for profile in &report.not_saved {
        let _ = writeln!(io::stderr(), "error: not saved: {profile}");
    }
    if report.failures > 0 {
        let failed = count(report.failures, "thread of a script", "threads of scripts");
        let _ = writeln!(io::stderr(), "error: {failed} ended with an error");
    }
    if report.is_success() && !console.any.load(Ordering::Relaxed) {
        note(format_args!("{}", ending(&report)));
    }
    if let Some(file) = file.get() {
        SqliteStore::check_files(file)?;
        // Threads of the game that the process does not wait for have the file open still, so that
        // closing it here would leave all that was saved in the log beside it. A log that another
        // process is using stays.
        let _ = tokio::runtime::Handle::current().block_on(file.empty_log());
    }
    Ok(if report.is_success() { Status::Fine } else { Status::Problems })
}

/// What is said of a game that has printed nothing.
fn ending(report: &Report) -> String {
    let seconds = report.played.as_secs_f64();
    let decimals = if seconds < 10.0 { 1 } else { 0 };
    let scripts = count(report.scripts as u64, "script", "scripts");
    let players = count(report.players as u64, "player", "players");
    format!("played {seconds:.decimals$} s: {scripts}, {players}, no errors; nothing was printed")
}

/// What is played.
enum Plays {
    Script(Script),
    Tree(Arc<Tree>),
}

impl Plays {
    fn of(path: &Path) -> Result<Self, Failure> {
        if is_project(path) {
            return tree_of(path).map(Self::Tree);
        }
        Ok(Self::Script(Script { name: name_of(path), source: read(path)? }))
    }

    fn run(self, game: GameBuilder) -> Result<Report, Failed> {
        match self {
            Self::Script(script) => game.run(&script),
            Self::Tree(tree) => game.tree(tree).play(),
        }
    }
}

/// The instances of a project or a place, after warnings of what was left out.
pub(crate) fn tree_of(path: &Path) -> Result<Arc<Tree>, Failure> {
    let tree = Tree::read(path).map_err(|error| Failure::Usage(error.to_string()))?;
    for warning in tree.warnings() {
        let _ = writeln!(io::stderr(), "warning: {warning}");
    }
    Ok(Arc::new(tree))
}

/// The game, whose scripts may reach these hosts.
pub(crate) fn reaching(mut game: GameBuilder, hosts: &[String]) -> Result<GameBuilder, Failure> {
    for host in hosts {
        let host: HttpHost =
            host.parse().map_err(|error| Failure::Usage(format!("--allow-http: {error}")))?;
        game = game.allow_http(host);
    }
    Ok(game)
}

/// On a store that stays. A file is left in `opened`.
fn stored(
    game: GameBuilder,
    place: Place,
    messenger: Option<Address>,
    time: TimeArg,
    opened: Arc<OnceLock<SqliteStore>>,
) -> Result<GameBuilder, Failure> {
    let hints = messenger.map(|address| address.nats()).transpose()?;
    let is_file = matches!(place, Place::Sqlite(_));
    if time == TimeArg::Virtual && (hints.is_some() || !is_file) {
        return Err(Failure::Usage(
            "virtual time is for stores in memory and in SQLite files, without --messenger".into(),
        ));
    }
    let there = match &place {
        Place::Sqlite(path) => There::File(path.clone()),
        Place::Postgres(_) => There::Database(place.database()?),
    };
    Ok(game.connect(async move |env: Env| {
        let (store, own): (Arc<dyn DataStore>, Arc<dyn Messenger>) = match there {
            There::Database(database) => (database.open().await?, database.messenger()?),
            There::File(path) => {
                let store =
                    SqliteStore::open(path, SqliteOptions { env, ..SqliteOptions::default() })?;
                opened.get_or_init(|| store.clone());
                (Arc::new(store.clone()), Arc::new(SqliteMessenger::new(&store)))
            }
        };
        match hints {
            Some(hints) => Ok((store, hints.connect().await?)),
            None => Ok((store, own)),
        }
    }))
}

enum There {
    File(PathBuf),
    Database(Database),
}

/// A script, without the byte order mark that some editors write before it.
fn read(path: &Path) -> Result<String, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("{} cannot be read: {error}", path.display())))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned())
}

/// A script's name in tracebacks: its file's.
fn name_of(path: &Path) -> String {
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

pub(crate) fn seconds(option: &str, value: f64) -> Result<Duration, Failure> {
    let time = Duration::try_from_secs_f64(value)
        .ok()
        .filter(|time| *time < Duration::from_secs(100 * 365 * 86_400));
    time.ok_or_else(|| Failure::Usage(format!("{option} is no length of time: given=`{value}`")))
}

/// The console, and whether anything came there.
#[derive(Debug)]
struct Noted {
    console: Console,
    any: AtomicBool,
}

impl Output for Noted {
    fn line(&self, server: usize, kind: Line, text: &str) {
        self.any.store(true, Ordering::Relaxed);
        self.console.line(server, kind, text);
    }
}

/// One JSON object a line on standard output, for programs.
#[derive(Debug)]
struct JsonLines;

impl Output for JsonLines {
    fn line(&self, server: usize, kind: Line, text: &str) {
        let kind = match kind {
            Line::Print => "print",
            Line::Warn => "warning",
            _ => "error",
        };
        // Nobody reads any more: a script is not stopped by that.
        let _ = writeln!(
            io::stdout().lock(),
            "{}",
            json!({ "server": server, "kind": kind, "text": text })
        );
    }
}
