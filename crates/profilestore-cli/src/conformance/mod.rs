//! `conformance`: whether an SDK keeps the protocol's rules. It comes with the feature
//! `conformance`; without it the command says so.
//!
//! ```text
//! kit ── JSON lines ──▶ driver (the SDK) ── WebSocket ──▶ proxy ──▶ serve, on a real store
//!  ├── kills, freezes ──▶ drivers and servers             breaks it
//!  └── audit: a server process that had no part in it reads what is stored
//! ```

use std::{ops::Range, path::PathBuf};

use clap::Args as ClapArgs;

#[cfg(not(feature = "conformance"))]
use crate::{
    app::App,
    output::{Failure, Status},
};

#[cfg(feature = "conformance")]
mod books;
#[cfg(feature = "conformance")]
mod driver;
#[cfg(feature = "conformance")]
mod operators;
#[cfg(feature = "conformance")]
#[expect(unreachable_pub, dead_code, reason = "the testbed's file, of which this uses a part")]
mod proxy;
#[cfg(feature = "conformance")]
mod random;
#[cfg(feature = "conformance")]
mod report;
#[cfg(feature = "conformance")]
mod script;
#[cfg(feature = "conformance")]
mod stage;
#[cfg(feature = "conformance")]
mod vectors;
#[cfg(feature = "conformance")]
mod watch;
#[cfg(feature = "conformance")]
mod world;

#[cfg(feature = "conformance")]
const SCRIPTS: &str = include_str!("data/scripts.json");
#[cfg(feature = "conformance")]
const VECTORS: &str = include_str!("data/vectors.json");

/// Certify an SDK for game servers
///
/// It starts real server processes, breaks the connections to them, kills them and the game
/// servers, and audits what is stored: every acknowledged change, each message once, each item in
/// one place, no session that ended without an order. The driver is a small program of the SDK's
/// language that speaks JSON lines over standard input and output (docs/sdk.md). Without --store
/// each script has a SQLite file of its own; with one in PostgreSQL all work in that database,
/// under names of their own.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  profilestore conformance --driver 'node driver.js'
  profilestore conformance --driver 'node driver.js' --random --seeds 0..200
  profilestore conformance --driver 'python driver.py' --only 'a save on its way'")]
pub(crate) struct Conformance {
    /// The command that starts a driver
    #[arg(long, value_name = "COMMAND")]
    driver: String,
    /// Only scripts with this in their name; can be given several times
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Only a selection of the scripts, and two seeds
    #[arg(long)]
    quick: bool,
    /// Random play with kills, instead of vectors and scripts
    #[arg(long)]
    random: bool,
    /// Which seeds of random play
    #[arg(long, value_name = "FIRST..END", default_value = "0..20", value_parser = seeds)]
    seeds: Range<u64>,
    /// A folder with a scripts.json and a vectors.json of one's own, instead of the kit's
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// How many scripts or seeds run at a time
    #[arg(long, value_name = "N", default_value_t = 6)]
    at_once: usize,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let ends = text.split_once("..").and_then(|(first, end)| {
        let range = first.parse().ok()?..end.parse().ok()?;
        (!range.is_empty()).then_some(range)
    });
    ends.ok_or_else(|| "seeds are given as FIRST..END".into())
}

#[cfg(not(feature = "conformance"))]
impl Conformance {
    #[expect(clippy::unused_async, reason = "as with the kit")]
    pub(crate) async fn run(self, _: &App) -> Result<Status, Failure> {
        Err(Failure::left_out("the conformance kit", "conformance"))
    }
}
