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
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail};
use clap::Args;
use profilestore::{Settings, env::Env};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, timeout},
};

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
mod players;
mod process;
#[cfg(feature = "serve")]
mod remote;
mod server;
mod storage;
mod trades;
mod wire;
mod world;

pub(crate) use dice::Dice;
use display::{Display, say};
use fleet::{Call, Fate, Via};
use ledger::Check;
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
    /// The game servers play through so many processes of `profilestore serve`, over the network, as
    /// a game in any language does. With --kill, these are killed too. The lease time is 10 s or
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

/// How long the servers may take to come up.
const START: Duration = Duration::from_secs(30);

/// How long answers are waited for once the time is up, before the servers shut down.
const ANSWERS: Duration = Duration::from_secs(5);

/// How long the servers may take to shut down: the library's own limit and some.
const STOP: Duration = Duration::from_secs(45);

/// How long beyond the time of play a complete one may go on.
const COMPLETION: Duration = Duration::from_secs(120);

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
        let work = |error: anyhow::Error| Failure::Work(format!("{error:#}"));
        let home = Home::new(app.named.clone(), &env).map_err(work)?;
        if let Place::Postgres(_) = home.place {
            // Says early when it cannot be used.
            home.place.database()?;
        }
        // A scope of its own: players of an earlier run in the same file have another ledger.
        let scope = env.uuid().simple().to_string();
        if let Some(address) = &app.messenger {
            // Says early when it cannot be used.
            drop(address.connect().await?);
        }
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
        true => format!("{:#}\n", display::json(plan, &world, &findings, &faults)),
        false => display::text(plan, &world, &findings, &faults),
    };
    // The reader that closed it has read enough; the exit code still tells.
    let _ = std::io::stdout().write_all(report.as_bytes());
    Ok(findings.checks.iter().chain([&faults]).all(Check::passed))
}

/// From the first server's start to the last one's end.
async fn play(
    plan: &Plan,
    call: &Call,
    world: &Shared,
    display: &mut Display,
) -> anyhow::Result<()> {
    let (stop, stopped) = watch::channel(false);
    #[cfg(feature = "serve")]
    let hosts = match plan.via_server {
        0 => None,
        count => Some(remote::hosts::Hosts::start(call, count).await?),
    };
    #[cfg(feature = "serve")]
    let call = &Call { via: hosts.as_ref().map(remote::hosts::Hosts::via), ..call.clone() };
    let call = Arc::new(call.clone());
    let (mut keepers, mut kills) = (JoinSet::new(), Vec::<mpsc::Sender<Fate>>::new());
    for slot in 0..usize::from(plan.servers) {
        let (kill, killed) = mpsc::channel(1);
        kills.push(kill);
        keepers.spawn(fleet::keep(slot, call.clone(), world.clone(), killed, stopped.clone()));
    }
    wait_until(START, || locked(world).ready().len() == usize::from(plan.servers))
        .await
        .context("the servers did not come up")?;

    let dice = Dice::new(plan.seed);
    let mut players = JoinSet::new();
    let pace = Duration::from_secs_f64(f64::from(plan.players) / f64::from(plan.pace));
    for player in 0..plan.players {
        let (world, dice, stop) = (world.clone(), dice.fork(u64::from(player)), stopped.clone());
        players
            .spawn(players::Play { world, player, players: plan.players, dice, pace, stop }.run());
    }
    let kills = Arc::new(kills);
    let operator = edits::Operator {
        world: world.clone(),
        players: plan.players,
        half_time: Instant::now() + Duration::from_secs(plan.seconds) / 2,
        kills: plan.kill.then(|| kills.clone()),
        dice: dice.fork(u64::MAX - 1),
        stop: stopped.clone(),
    };
    players.spawn(operator.run());
    let killer = plan.kill.then(|| {
        tokio::spawn(players::kill(
            world.clone(),
            kills.clone(),
            dice.fork(u64::MAX),
            stopped.clone(),
        ))
    });
    #[cfg(feature = "serve")]
    let hosts = hosts.map(|hosts| {
        let (world, dice, stop) = (world.clone(), dice.fork(u64::MAX - 2), stopped.clone());
        let kill = plan.kill;
        tokio::spawn(
            async move { if kill { hosts.kill(world, dice, stop).await } else { Ok(hosts) } },
        )
    });
    let roller = plan
        .roll
        .then(|| tokio::spawn(players::roll(world.clone(), kills.clone(), stopped.clone())));

    watch_play(plan, world, display).await;
    display.phase("the time is up: the servers shut down");
    stop.send_replace(true);
    locked(world).time_is_up();
    if let Some(killer) = killer {
        killer.await?;
    }
    if let Some(roller) = roller {
        roller.await?;
    }
    // Starts that wait for a dead server's lease are called off by the shutdown.
    let _ = wait_until(ANSWERS, || locked(world).unanswered() == 0).await;
    locked(world).stop_all();
    let ends = async {
        while let Some(end) = keepers.join_next().await {
            end??;
        }
        anyhow::Ok(())
    };
    match timeout(STOP, ends).await {
        Ok(ended) => ended?,
        // Dropping the keepers kills what is left.
        Err(_) => {
            locked(world).faults.push(format!("servers that did not shut down within {STOP:?}"))
        }
    }
    drop(kills);
    players.shutdown().await;
    #[cfg(feature = "serve")]
    if let Some(hosts) = hosts {
        hosts.await??.end().await?;
    }
    Ok(())
}

/// Shows the progress until the time is up, or until Ctrl-C. A complete play then goes on until
/// everything has happened, or until a second Ctrl-C.
async fn watch_play(plan: &Plan, world: &Shared, display: &mut Display) {
    let began = Instant::now();
    let mut until = (!plan.until_told).then(|| began + Duration::from_secs(plan.seconds));
    let mut time_was_up = None;
    // One future all along: between two of them a signal would be lost.
    let mut interrupted = pin!(tokio::signal::ctrl_c());
    loop {
        let next = Instant::now() + Duration::from_millis(200);
        let next = until.filter(|_| time_was_up.is_none()).map_or(next, |until| until.min(next));
        let told = tokio::select! {
            biased;
            _ = &mut interrupted => true,
            () = tokio::time::sleep_until(next) => false,
        };
        display.show(&locked(world), began.elapsed());
        let now = Instant::now();
        if told && (!plan.complete || time_was_up.is_some()) {
            return;
        }
        if told {
            until = Some(now);
            interrupted.set(tokio::signal::ctrl_c());
        }
        let Some(end) = until.filter(|until| *until <= now) else { continue };
        let since = *time_was_up.get_or_insert(end);
        let missing = if plan.complete { locked(world).missing(plan, since) } else { Vec::new() };
        if missing.is_empty() {
            return;
        }
        if now > since + COMPLETION {
            return say(&format!(
                "in {COMPLETION:?} beyond the time this did not happen: {}",
                missing.join(", ")
            ));
        }
    }
}

async fn wait_until(limit: Duration, ready: impl Fn() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    while !ready() {
        if Instant::now() >= deadline {
            bail!("it took longer than {limit:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
