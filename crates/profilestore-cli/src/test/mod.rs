//! `test`: runs the tests of a Roblox game. The Luau machine behind it comes with the feature
//! `luau`, which needs a C++ compiler; without it the command says so.

use std::{path::PathBuf, time::Duration};

use clap::Args as ClapArgs;

use crate::{
    app::App,
    output::{Failure, Status},
    times::seconds_or_length,
};

#[cfg(feature = "luau")]
mod coverage;
#[cfg(feature = "luau")]
mod junit;
#[cfg(feature = "luau")]
mod play;
#[cfg(feature = "luau")]
mod replay;
#[cfg(feature = "luau")]
mod report;

/// Run the tests of a Roblox game: every NAME.spec.luau and NAME.test.luau in its tree
///
/// PATH is a folder with a default.project.json, a project file of Rojo's format, or a place file
/// (.rbxl, .rbxlx), of which every ModuleScript NAME.spec or NAME.test is run. Tests are written
/// with describe, it and expect, as TestEZ has them. Each file gets a store of its own, in memory,
/// and virtual time, in which waiting takes none. Within a test, simulate.join(USER_ID) lets a
/// player join, simulate.leave(USER_ID) leave and simulate.buy(USER_ID, PRODUCT_ID) buy. Exit
/// code 1: a test failed.
#[derive(Debug, ClapArgs)]
pub(crate) struct Test {
    /// A folder with a default.project.json, a project file, or a place file
    #[arg(value_name = "PATH", default_value = ".")]
    path: PathBuf,
    /// Only the tests that have this in their file's path or their name. A warning tells of other
    /// files that cannot be loaded, since they may have such a test
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// What decides everything that is random: the same seed gives the same run
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Run each file with so many seeds, from --seed on, until one makes a test fail. The shortest
    /// command that was found to make it fail again is printed
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Run the game's scripts beside the tests, too
    #[arg(long)]
    play: bool,
    /// With --play: who joins, hops, buys and leaves meanwhile (see run --help)
    #[arg(long, value_name = "SPEC")]
    players: Option<String>,
    /// How long each call of a data store takes, and each message, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0.0)]
    latency: f64,
    /// How many of a hundred calls fail, of which half are applied. Servers start even so
    #[arg(long, value_name = "PERCENT", default_value_t = 0.0)]
    errors: f64,
    /// A host that tests may reach through HttpService: example.com, or 127.0.0.1:8080 for one port
    /// (may be repeated). What simulate.http answers comes first. The seed does not decide what the
    /// host answers
    #[arg(long, value_name = "HOST")]
    allow_http: Vec<String>,
    /// How long each test may take, in virtual time: 60 (seconds), 90s, 1h
    #[arg(long, value_name = "TIME", default_value = "600s", value_parser = seconds_or_length)]
    limit: Duration,
    /// Write the results there, in JUnit's form
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Say which lines of the game's own scripts and modules ran, without tests and packages
    #[arg(long)]
    coverage: bool,
    /// Write how often each of these lines ran there, in LCOV's form
    #[arg(long, value_name = "FILE")]
    lcov: Option<PathBuf>,
}

impl Test {
    /// Whether lines that run are counted.
    #[cfg(feature = "luau")]
    fn counts(&self) -> bool {
        self.coverage || self.lcov.is_some()
    }

    #[cfg(feature = "luau")]
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let json = app.json;
        // Games have runtimes of their own.
        match tokio::task::spawn_blocking(move || play::test(&self, json)).await {
            Ok(tested) => tested,
            Err(error) => Err(Failure::Work(format!("the tests broke off: {error}"))),
        }
    }

    #[cfg(not(feature = "luau"))]
    pub(crate) async fn run(self, _app: &App) -> Result<Status, Failure> {
        Err(Failure::left_out(
            &format!("Luau, which needs a C++ compiler, and cannot test {}", self.path.display()),
            "luau",
        ))
    }
}
