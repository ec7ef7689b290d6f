//! The demonstration: several processes as game servers on one file, players who move between them,
//! and servers that die.
//!
//! ```text
//! parent   players' choreography ─ orders ─▶ server process   (library, one store file)
//!          ledger ◀─────────────── reports ─ server process
//!          audit: opens the store itself, compares every profile with the ledger
//! ```
//!
//! The parent never looks into the store while players play. The audit's demands follow from the
//! reports alone: what was acknowledged is there; anything else is there once or not at all.

use std::{
    io::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use clap::Args;
use profilestore::{Settings, env::Env};
use tokio::{task::JoinSet, time::timeout};

mod audit;
mod data;
mod dice;
mod display;
mod edit_books;
mod edits;
mod figures;
mod fleet;
mod ledger;
mod pace;
mod play;
mod players;
mod process;
#[cfg(feature = "serve")]
mod remote;
mod report;
mod server;
mod storage;
mod trades;
mod wire;
mod world;

pub(crate) use dice::Dice;
use display::{Display, say};
use fleet::{Call, Via};
use ledger::Check;
use play::play;
use storage::Home;
use world::World;

use crate::{
    app::App,
    output::{Failure, Status},
    place::Place,
};

/// Watch servers die and lose nothing
///
/// Several processes as game servers on one file: players join, earn, move between servers, log in
/// again at once, send coins by message, and trade unique items on one server and between two. An
/// operator edits single players, online or not, and all of them at half time, without ending a
/// session. In the end every change that was acknowledged is looked for, and every item and every
/// edit is found exactly once. The file is a temporary one unless --store or PROFILESTORE_STORE
/// names another; it is kept when the audit fails.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore demo
  profilestore demo --servers 4 --players 400 --seconds 30 --kill")]
pub(crate) struct Demo {
    /// How many game servers, each a process of its own
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    servers: u16,
    /// How many players
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=20_000))]
    players: u32,
    /// How long they play
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Kill servers now and then with SIGKILL, and start them again
    #[arg(long)]
    kill: bool,
    /// Shut the servers down and start them again, one after the other, as for an update
    #[arg(long)]
    roll: bool,
    /// The game servers play through so many processes of `profilestore serve`, over the network,
    /// as a game in any language does. With --kill, these are killed too. The lease time is 10 s or
    /// more then
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=16))]
    via_server: u16,
    /// For tests that cut servers off for longer than the lease time: what these hold may be taken
    /// over, by an operator's edit too
    #[arg(long, hide = true)]
    may_lose: bool,
    /// For tests: play on beyond the time until everything that a play shows has happened, and
    /// every player was served once more
    #[arg(long, hide = true)]
    complete: bool,
    /// For tests that break something for a while: the time is up when SIGINT comes, not by the
    /// clock
    #[arg(long, hide = true)]
    until_told: bool,
    /// Environment of one server's processes: SLOT:NAME=VALUE. For tests that break one server's
    /// connections or clock
    #[arg(long, hide = true, value_parser = on_server)]
    on_server: Vec<(usize, String, String)>,
    /// What the players do follows from this number; a random one by default
    #[arg(long)]
    seed: Option<u64>,
    /// The servers' lease time. The library's own default is 20; this one lets take-overs be seen
    /// in a short run
    #[arg(long, default_value_t = 5.0, value_name = "SECONDS", value_parser = lease_seconds)]
    lease_seconds: f64,
    /// How many steps all players together try to make in a second
    #[arg(long, default_value_t = 500, value_name = "STEPS", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pace: u32,
}

fn on_server(text: &str) -> Result<(usize, String, String), String> {
    let parts = text
        .split_once(':')
        .and_then(|(slot, rest)| Some((slot.parse().ok()?, rest.split_once('=')?)));
    let (slot, (name, value)) = parts.ok_or("this is SLOT:NAME=VALUE")?;
    Ok((slot, name.to_owned(), value.to_owned()))
}

fn lease_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (1.0..=600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("a lease time is 1 to 600 seconds".into())
    }
}

/// One game server of the demonstration; started by it
#[derive(Debug, Args)]
pub(crate) struct DemoServer {
    /// The server's name
    #[arg(long)]
    job: String,
    /// The scope of this run's players
    #[arg(long)]
    scope: String,
    /// The lease time
    #[arg(long)]
    lease_seconds: f64,
}

/// The shortest lease time that `profilestore serve` takes: twice its renewal period.
const LEAST_REMOTE_LEASE: f64 = 10.0;

/// How long the whole may take beyond the time of play.
const WATCHDOG: Duration = Duration::from_secs(240);

type Shared = Arc<Mutex<World>>;

/// A run, with nothing left to choose.
#[derive(Debug, Default)]
struct Plan {
    servers: u16,
    players: u32,
    seconds: u64,
    kill: bool,
    roll: bool,
    may_lose: bool,
    complete: bool,
    until_told: bool,
    seed: u64,
    lease_seconds: f64,
    pace: u32,
    via_server: u16,
}

/// The lock; a panic elsewhere has left at worst a count behind.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn player_key(player: u32) -> String {
    format!("player-{player}")
}

/// The library's defaults, with the periods that belong to the lease time in the same proportion to
/// it.
fn settings(lease_seconds: f64) -> Settings {
    let mut settings = Settings::default();
    let lease_time = Duration::from_secs_f64(lease_seconds);
    let factor = lease_time.as_secs_f64() / settings.lease_time.as_secs_f64();
    settings.lease_time = lease_time;
    settings.renew_period = settings.renew_period.mul_f64(factor);
    settings.offer_time = settings.offer_time.mul_f64(factor);
    settings.first_load_repeat = settings.first_load_repeat.mul_f64(factor);
    settings.load_repeat_period = settings.load_repeat_period.mul_f64(factor);
    settings
}

impl Demo {
    /// Runs on the given store, or on a temporary file that goes when all is well. Says in the end
    /// whether the audit passed.
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let env = Env::system();
        let plan = Plan {
            servers: self.servers,
            players: self.players,
            seconds: self.seconds,
            kill: self.kill,
            roll: self.roll,
            may_lose: self.may_lose,
            complete: self.complete,
            until_told: self.until_told,
            seed: self.seed.unwrap_or_else(|| {
                u64::from(env.uuid().as_fields().0 ^ env.uuid().as_u64_pair().1 as u32)
            }),
            lease_seconds: if self.via_server > 0 {
                self.lease_seconds.max(LEAST_REMOTE_LEASE)
            } else {
                self.lease_seconds
            },
            pace: self.pace,
            via_server: self.via_server,
        };
        #[cfg(not(feature = "serve"))]
        if plan.via_server > 0 {
            return Err(Failure::left_out("the server over HTTP", "serve"));
        }
        if let Some(address) = &app.messenger {
            // Says early when it cannot be used: before there is a folder.
            drop(address.connect().await?);
        }
        let work = |error: anyhow::Error| Failure::Work(format!("{error:#}"));
        let home = Home::new(app.named.clone(), &env).map_err(work)?;
        if let Place::Postgres(_) = home.place {
            // Says early when it cannot be used.
            home.place.database()?;
        }
        // A scope of its own: players of an earlier run in the same file have another ledger.
        let scope = env.uuid().simple().to_string();
        let (place, messenger) = (home.place.clone(), app.messenger.clone());
        let call = Call {
            place,
            messenger,
            scope,
            lease_seconds: plan.lease_seconds,
            on_server: self.on_server,
            via: None,
        };
        let told = if plan.until_told { WATCHDOG } else { Duration::ZERO };
        let limit = Duration::from_secs(plan.seconds) + told + WATCHDOG;
        let outcome = match timeout(limit, perform(&plan, call, app.json)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(anyhow::anyhow!(
                "the demonstration did not end in time; it was broken off after {limit:?}"
            )),
        };
        if matches!(outcome, Ok(true)) {
            home.clear();
            return Ok(Status::Fine);
        }
        say(&format!("seed {}; the store is kept: {}", plan.seed, home.place));
        outcome.map(|_| Status::Problems).map_err(work)
    }
}

impl DemoServer {
    /// Runs until it is told to stop, or until the parent is gone.
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let (place, messenger) = (app.place.clone(), app.messenger.clone());
        let call = Call {
            place,
            messenger,
            scope: self.scope,
            lease_seconds: self.lease_seconds,
            on_server: Vec::new(),
            via: Via::told(),
        };
        let work = |error: anyhow::Error| Failure::Work(format!("{error:#}"));
        #[cfg(feature = "serve")]
        if let Some(via) = call.via.clone() {
            remote::run(&call, via, self.job).await.map_err(work)?;
            return Ok(Status::Fine);
        }
        server::run(&call, self.job).await.map_err(work)?;
        Ok(Status::Fine)
    }
}

/// Plays and audits. True when the audit passed.
async fn perform(plan: &Plan, call: Call, json: bool) -> anyhow::Result<bool> {
    say(&format!(
        "{} servers, {} players, {} s, lease {} s, seed {}\non {}",
        plan.servers, plan.players, plan.seconds, plan.lease_seconds, plan.seed, call.place
    ));
    // Makes the file, and says early when it cannot be used.
    drop(storage::open(&call).await?);
    let world: Shared = Arc::new(Mutex::new(World::new(usize::from(plan.servers), plan.players)));
    locked(&world).may_lose = plan.may_lose;
    let mut display = Display::new(plan.seconds);
    let lease_time = Duration::from_secs_f64(plan.lease_seconds);
    let mut watching = JoinSet::new();
    let watched = world.clone();
    watching.spawn(pace::watch(lease_time, move |late| locked(&watched).stood_still(late)));
    play(plan, &call, &world, &mut display).await?;
    drop(watching);
    display.phase("audit: opening every player");
    display.show(&locked(&world), Duration::from_secs(plan.seconds));
    let mut ledger = locked(&world).ledger.clone();
    let mut findings = audit::audit(&call, plan.players, &mut ledger).await?;
    display.end();
    let mut world = locked(&world);
    world.ledger = ledger;
    let sessions = world.figures.sessions();
    findings.checks.push(Check::counted(
        "sessions not thrown out",
        sessions,
        world.thrown_out.clone(),
    ));
    let faults = Check::counted(
        "servers that ended as told",
        world.figures.shutdowns + world.faults.len() as u64,
        world.faults.clone(),
    );
    let report = match json {
        true => format!("{:#}\n", report::json(plan, &world, &findings, &faults)),
        false => report::text(plan, &world, &findings, &faults),
    };
    // The reader that closed it has read enough; the exit code still tells.
    let _ = std::io::stdout().write_all(report.as_bytes());
    Ok(findings.checks.iter().chain([&faults]).all(Check::passed))
}
