//! A seeded world in which everything fails, and the guarantees hold: game servers of the library
//! on a store in memory, in virtual time, with crashes, pauses, cuts, lost answers, late requests,
//! wrong clocks and deaf messengers. An oracle keeps what clients were told; invariants compare
//! that with every commit.
#![allow(unreachable_pub, reason = "one binary of modules: nothing is public anyway")]

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand};

mod books;
mod compare;
mod data;
#[cfg(profilestore_defects)]
mod defects;
mod dice;
mod heard;
mod hosted;
mod invariants;
mod meanwhile;
mod oracle;
mod report;
mod run;
#[cfg(test)]
mod scenarios;
mod seat;
mod slow;
mod watch;
mod world;

use world::Size;

#[derive(Parser)]
#[command(about, version)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run many seeds, on every core, until one breaks a guarantee.
    Run {
        /// Which seeds: `A..B`, B not included.
        #[arg(long, default_value = "0..1000", value_parser = seeds)]
        seeds: std::ops::Range<u64>,
        /// Stop after so many minutes, whatever is left.
        #[arg(long)]
        minutes: Option<f64>,
        #[command(flatten)]
        size: WorldSize,
    },
    /// Run one seed and print everything that happens.
    Replay {
        #[arg(long)]
        seed: u64,
        /// Only what concerns this profile, and servers.
        #[arg(long)]
        key: Option<String>,
        #[command(flatten)]
        size: WorldSize,
    },
    /// Put each deliberate defect to work and say which seed finds it. Needs
    /// `RUSTFLAGS="--cfg profilestore_defects"`.
    #[cfg(profilestore_defects)]
    Defects {
        #[arg(long, default_value = "0..1000", value_parser = seeds)]
        seeds: std::ops::Range<u64>,
        #[command(flatten)]
        size: WorldSize,
    },
    /// Measure what the two published modules were measured in, in virtual time, and print a table.
    Compare {
        /// Runs a row.
        #[arg(long, default_value_t = 200)]
        runs: u64,
    },
    /// Run each seed twice: the traces must be the same, byte for byte.
    Meta {
        #[arg(long, default_value = "0..10", value_parser = seeds)]
        seeds: std::ops::Range<u64>,
        #[command(flatten)]
        size: WorldSize,
    },
    /// Print each seed with a hash of its trace, then one hash over all. A change of the library
    /// that keeps its behaviour keeps them.
    Hashes {
        #[arg(long, default_value = "0..100", value_parser = seeds)]
        seeds: std::ops::Range<u64>,
        #[command(flatten)]
        size: WorldSize,
    },
}

#[derive(Args, Clone, Copy)]
struct WorldSize {
    /// The large world: 12 servers, 300 players, 60 minutes.
    #[arg(long)]
    large: bool,
    #[arg(long)]
    servers: Option<usize>,
    #[arg(long)]
    players: Option<usize>,
    /// Virtual minutes of chaos.
    #[arg(long)]
    virtual_minutes: Option<u64>,
    /// Clients wait for each of their calls before they make the next one.
    #[arg(long)]
    patient: bool,
    /// The world of game servers that run in other processes, and of the hosts that they move
    /// between.
    #[arg(long)]
    hosted: bool,
}

impl WorldSize {
    fn size(self) -> Size {
        let base = if self.large { Size::LARGE } else { Size::SMALL };
        Size {
            servers: self.servers.unwrap_or(base.servers).max(1),
            players: self.players.unwrap_or(base.players).max(1),
            minutes: self.virtual_minutes.unwrap_or(base.minutes),
            hasty: base.hasty && !self.patient,
            hosted: self.hosted,
        }
    }
}

fn seeds(text: &str) -> Result<std::ops::Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("seeds are A..B")?;
    let number =
        |text: &str| text.parse::<u64>().map_err(|error| format!("seeds are A..B: {error}"));
    Ok(number(from)?..number(to)?)
}

fn main() -> Result<ExitCode> {
    match Program::parse().command {
        Command::Run { seeds, minutes, size } => {
            let summary = run::run(seeds, minutes, size.size());
            println!("{summary}");
            Ok(if summary.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Replay { seed, key, size } => {
            let outcome = world::run(seed, size.size(), true);
            for line in report::useful(&outcome.trace, key.as_deref()) {
                println!("{}", line.text);
            }
            for (what, count) in &outcome.counts.0 {
                println!("{count:>10} {what}");
            }
            match outcome.violation {
                Some(violation) => bail!("seed {seed} breaks {}", violation.broken),
                None => Ok(ExitCode::SUCCESS),
            }
        }
        #[cfg(profilestore_defects)]
        Command::Defects { seeds, size } => {
            let missed = defects::table(&seeds, size.size());
            Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Compare { runs } => {
            compare::compare(runs.max(1));
            Ok(ExitCode::SUCCESS)
        }
        Command::Meta { seeds, size } => {
            let count = seeds.end - seeds.start;
            let differing = run::meta(seeds, size.size());
            if let Some((seed, one, other)) = differing.first() {
                bail!("seed {seed} went two ways:\n{one}\n{other}");
            }
            println!("{count} seeds ran twice with the same traces");
            Ok(ExitCode::SUCCESS)
        }
        Command::Hashes { seeds, size } => {
            let mut all = String::new();
            for (seed, hash) in run::hashes(seeds, size.size()) {
                println!("{seed} {hash}");
                all.push_str(&hash);
            }
            println!("all {}", run::hash(&all));
            Ok(ExitCode::SUCCESS)
        }
    }
}
