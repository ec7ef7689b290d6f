//! The `profilestore` program: import, export, inspect and operate a store of player profiles.

use std::process::ExitCode;

mod app;
mod args;
mod audit;
mod check;
mod conformance;
mod database;
mod demo;
mod diff;
mod edit;
mod erase;
mod get;
mod given;
mod hints;
mod history;
mod list;
mod maintain;
mod messages;
mod migrate;
mod operate;
mod output;
mod place;
mod rollback;
mod run;
mod salvage;
mod search;
mod series;
mod serve;
mod sessions;
mod shell;
mod status;
mod test;
mod times;
mod transfer;
mod unfinished;
mod versions;

fn main() -> ExitCode {
    let args = match args::Args::read() {
        Ok(args) => args,
        Err(failure) => return failure.report(),
    };
    output::start_log(args.is_game());
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return output::Failure::Work(format!("cannot start: {error}")).report(),
    };
    match runtime.block_on(args.run()) {
        Ok(status) => status.into(),
        Err(failure) => failure.report(),
    }
}
