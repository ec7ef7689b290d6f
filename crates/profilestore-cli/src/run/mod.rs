//! `run`: plays a Roblox game's script on simulated game servers. The Luau machine behind it comes
//! with the feature `luau`, which needs a C++ compiler; without it the command says so.

use std::{path::PathBuf, time::Duration};

use clap::{Args as ClapArgs, ValueEnum};

use crate::{
    app::App,
    output::{Failure, Status},
    times::seconds_or_length,
};

#[cfg(feature = "luau")]
pub(crate) mod game;

const PLAYERS: &str = "\
Who plays: parts separated by `;`, each WHO:ACTION@WHEN,ACTION@WHEN... or a number of players.

  WHO     a user id, or a range of them: 7, 1-20; or server2, whose only action is crash
  ACTION  join, hop, leave, buy=PRODUCT; `/SERVER` behind the time names a server (from 1, or * for any).
          Without it join means server 1, hop another server at random, leave every server
  WHEN    a time since the beginning: 90s, 1.5m (ms, s, m, h); a range of which the seed chooses
          a moment: 0-30s; or again and again until the player's last leave: every20-60s

A number N alone is 1-N:join@0-10s/*,hop@every20-60s (which needs --until).
Who hops leaves and arrives in the same moment; who joins a second server is on both.

  --players '1:join@0s,hop@60s/2,buy=1234@90s,leave@120s; 2-20:join@0-30s/*'
  --players 20 --until 600
  --players '1:join@0s,join@61s/2; server1:crash@60s'";

/// Play a Roblox game on simulated game servers, with its data in a store of this project
///
/// PATH is a script, a folder with a default.project.json, a project file of Rojo's format, or a
/// place file (.rbxl, .rbxlx): then every Script in ServerScriptService and Workspace runs, in the
/// tree that Rojo would make or that the place holds. Scripts find ProfileStore and ProfileService
/// in ServerScriptService, and Roblox's services around them. They have no files, and no network
/// but for --allow-http. What they print goes to standard output, warnings and errors to standard
/// error; with several servers each line names its own. When nothing was printed, a last line on
/// standard error says that the game was played. The game ends with --until, at Ctrl-C, or
/// when every script has ended and nothing is left to wait for; then functions of BindToClose run
/// and everything is saved. In virtual time, in memory and without --allow-http it is also stopped
/// when no time has passed in it for a minute of real time (six times --max-step), times the number
/// of servers. The data is in memory and gone afterwards, unless --store or PROFILESTORE_STORE
/// names a store. Exit code 1: a script failed, the game was stopped so, or something could not be
/// saved.
#[derive(Debug, ClapArgs)]
pub(crate) struct Run {
    /// A script (Luau), a folder with a default.project.json, a project file, or a place file
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// How many game servers run it, each by itself with a JobId of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    servers: u16,
    /// Who joins, hops, buys and leaves, and when (see --help)
    #[arg(long, value_name = "SPEC", long_help = PLAYERS)]
    players: Option<String>,
    /// Whether time passes as it does, or at once whenever nothing else is to be done
    #[arg(long, value_enum, default_value_t = TimeArg::Real)]
    time: TimeArg,
    /// In virtual time, what decides everything that is random: in memory the same seed gives the
    /// same run. On a file or a database, identifiers differ from run to run, and calls of
    /// different players may end in another order
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// End the game after so long: 600 (seconds), 90s, 1.5m, 2h
    #[arg(long, value_name = "TIME", value_parser = seconds_or_length)]
    until: Option<Duration>,
    /// game.PlaceId
    #[arg(long, value_name = "ID", default_value_t = 0)]
    place_id: i64,
    /// Which versions of a profile are kept: the first one in an hour, as on Roblox, or each
    #[arg(long, value_enum, default_value_t = VersionsArg::Hourly)]
    versions: VersionsArg,
    /// Put a Luau module into ServerScriptService under this name, in the place of a built-in one
    /// (may be repeated)
    #[arg(long = "module", value_name = "NAME=FILE")]
    modules: Vec<String>,
    /// A script (Luau) that speaks for each player's client, from when the player joins a server
    /// until the player leaves it: client.fire(remote, ...), client.invoke, client.event(remote),
    /// client.answer, client.leave(), and player
    #[arg(long, value_name = "FILE", requires = "players")]
    client: Option<PathBuf>,
    /// A host that scripts may reach through HttpService: example.com, or 127.0.0.1:8080 for one
    /// port (may be repeated). The seed does not decide what it answers
    #[arg(long, value_name = "HOST")]
    allow_http: Vec<String>,
    /// How long each call of a data store takes, and each message, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0.0)]
    latency: f64,
    /// How many of a hundred calls fail, of which half are applied. Servers start even so
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    errors: f64,
    /// Request budgets of DataStoreService: none, Roblox's until April 2026, or those since
    #[arg(long, value_enum, default_value_t = BudgetsArg::None)]
    budgets: BudgetsArg,
    /// How much memory the scripts of one server may use
    #[arg(long, value_name = "MIB", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(16..))]
    max_memory: u32,
    /// How long scripts may run without waiting for anything: 5 (seconds), 500ms, 1m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = seconds_or_length)]
    max_step: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TimeArg {
    Real,
    Virtual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum VersionsArg {
    Hourly,
    EverySave,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BudgetsArg {
    None,
    Older,
    Newer,
}

impl Run {
    #[cfg(feature = "luau")]
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let store = app.named.clone().map(|place| (place, app.messenger.clone()));
        let json = app.json;
        // The game has a runtime of its own.
        match tokio::task::spawn_blocking(move || game::play(self, store, json)).await {
            Ok(played) => played,
            Err(error) => Err(Failure::Work(format!("the game broke off: {error}"))),
        }
    }

    #[cfg(not(feature = "luau"))]
    pub(crate) async fn run(self, _app: &App) -> Result<Status, Failure> {
        Err(Failure::left_out(
            &format!("Luau, which needs a C++ compiler, and cannot run {}", self.path.display()),
            "luau",
        ))
    }
}
