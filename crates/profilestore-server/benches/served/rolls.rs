//! Very many sessions on one server process, and server processes that are replaced under play.

use std::{path::Path, time::Duration};

use profilestore_testbed::{Crowd, CrowdPlan, CrowdReport, free_port};
use tokio::time::{Instant, sleep};

use crate::{Outcome, child::Other, own, own_bytes, player, processor_seconds, wall_ms};

/// How long opening, saving or ending all sessions of a crowd may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// How long each phase is measured in which nothing is waited for.
const WHILE: Duration = Duration::from_secs(10);

/// In this time each of very many sessions changes once.
const SPREAD: Duration = Duration::from_secs(30);

const MANY: u64 = 100_000;

/// How many sessions a game server has of very many.
const OF_ONE: u64 = 1000;

/// How many server processes are replaced.
const PROCESSES: usize = 3;

/// Between two of them.
const BETWEEN: Duration = Duration::from_secs(3);

/// A crowd of game servers that change each session once a second, and save within a second.
pub(crate) fn crowd(servers: &[&Other], name: &str, game_servers: u64) -> Outcome<CrowdPlan> {
    Ok(CrowdPlan {
        servers: servers.iter().map(|server| server.address).collect(),
        key: servers.first().ok_or("there is no server")?.key.clone(),
        name: name.to_owned(),
        game_servers,
        sessions: 100,
        lease: None,
        data: serde_json::to_string(&player())?.into(),
        now_ms: wall_ms()?,
        change_every: Duration::from_secs(1),
        save_within: Duration::from_secs(1),
    })
}

/// What a server process did since this was made.
struct Phase {
    process: String,
    began: Instant,
    processor: f64,
}

impl Phase {
    fn begin(server: &Other) -> Outcome<Self> {
        let process = server.id();
        Ok(Self { processor: processor_seconds(&process)?, process, began: Instant::now() })
    }

    fn end(self, what: &str) -> Outcome {
        let took = self.began.elapsed().as_secs_f64();
        let cores = (processor_seconds(&self.process)? - self.processor) / took;
        println!("  {what:<42} {took:>7.2} s, the server process {cores:.2} cores");
        Ok(())
    }
}

pub(crate) async fn many(folder: &Path) -> Outcome {
    let wanted = std::env::var("SESSIONS").ok().map(|text| text.parse::<u64>()).transpose()?;
    let sessions = wanted.unwrap_or(MANY).max(1);
    let folder = folder.join("many");
    std::fs::create_dir(&folder)?;
    let server = Other::start("serve", &folder)?;
    let before = own_bytes(&server.id())?;
    let each = sessions.min(OF_ONE);
    let plan = CrowdPlan {
        sessions: each,
        change_every: SPREAD,
        ..crowd(&[&server], "many", sessions.div_ceil(each))?
    };
    let sessions = plan.game_servers * each;
    println!(
        "\n{sessions} sessions of {} game servers on one server process; the game servers are in \
         another one, on the same cores",
        plan.game_servers
    );
    let phase = Phase::begin(&server)?;
    let crowd = Crowd::start(plan);
    if !crowd.is_open_within(PATIENCE).await {
        return Err(format!("not all sessions are open after {PATIENCE:?}").into());
    }
    phase.end("opening them all")?;
    let bytes = own_bytes(&server.id())? - before;
    println!(
        "  memory of the server process {:.0} MB, {:.0} bytes a session",
        bytes / 1e6,
        bytes / sessions as f64
    );
    let phase = Phase::begin(&server)?;
    sleep(WHILE).await;
    phase.end("nothing but pings and renewals")?;

    let (phase, saved) = (Phase::begin(&server)?, crowd.saves());
    crowd.play();
    sleep(SPREAD).await;
    phase.end("each changes and is saved once")?;
    let rate = (crowd.saves() - saved) as f64 / SPREAD.as_secs_f64();
    println!("  saves a second {rate:.0}, longest time of one {}", shown(crowd.longest()));
    if !crowd.is_saved_within(PATIENCE).await {
        return Err(format!("not all changes are saved after {PATIENCE:?}").into());
    }
    let phase = Phase::begin(&server)?;
    let report = crowd.end_within(PATIENCE).await.ok_or("a game server does not end")?;
    phase.end("ending them all")?;
    println!("  {}", told(&report));
    is_right(&report)
}

pub(crate) async fn roll(folder: &Path) -> Outcome {
    let folder = folder.join("roll");
    std::fs::create_dir(&folder)?;
    let mut servers = Vec::new();
    for _ in 0..PROCESSES {
        let listen = format!("127.0.0.1:{}", free_port()?);
        servers.push(Other::start_at("serve", &folder, &listen)?);
    }
    let plan = crowd(&servers.iter().collect::<Vec<_>>(), "roll", 20)?;
    println!(
        "\n{PROCESSES} server processes replaced one after the other, {} sessions of {} game \
         servers that change once a second",
        plan.game_servers * plan.sessions,
        plan.game_servers
    );
    let crowd = Crowd::start(plan);
    if !crowd.is_open_within(PATIENCE).await {
        return Err(format!("not all sessions are open after {PATIENCE:?}").into());
    }
    crowd.play();
    sleep(WHILE).await;
    println!("  before that: longest time of a save {}", shown(crowd.longest()));
    let began = Instant::now();
    for at in 0..PROCESSES {
        let server = servers.remove(at);
        let listen = server.address.to_string();
        let left = Instant::now();
        server.leave().await?;
        servers.insert(at, Other::start_at("serve", &folder, &listen)?);
        println!("  process {} replaced in {}", at + 1, shown(left.elapsed()));
        sleep(BETWEEN).await;
    }
    println!(
        "  all replaced in {}; longest time of a save meanwhile {}",
        shown(began.elapsed()),
        shown(crowd.longest())
    );
    if !crowd.is_saved_within(PATIENCE).await {
        return Err(format!("not all changes are saved after {PATIENCE:?}").into());
    }
    let report = crowd.end_within(PATIENCE).await.ok_or("a game server does not end")?;
    println!("  {}", told(&report));
    let (server, players) = own(&folder, "served.db", "audit").await?;
    let mut missing = 0;
    for (key, coins) in &report.stored {
        let read = players.get(key).await?.ok_or("a profile is gone")?;
        missing += usize::from(read.data.coins != *coins);
    }
    let _ = server.shutdown().await;
    println!("  audit: {} profiles read, {missing} without their last change", report.stored.len());
    if missing > 0 {
        return Err("a change that was answered is not there".into());
    }
    is_right(&report)
}

/// What the game servers of a crowd were told, in a line.
pub(crate) fn told(report: &CrowdReport) -> String {
    format!(
        "{} changes, {} withheld, {} saves; resumed {} times, of these {} as declared dead; \
         sessions ended without being asked to: {}",
        report.changes,
        report.withheld,
        report.saves,
        report.resumes,
        report.anew,
        report.over.len()
    )
}

/// Fails when something happened that must not.
fn is_right(report: &CrowdReport) -> Outcome {
    if report.over.is_empty() && report.wrong.is_empty() {
        return Ok(());
    }
    let some: Vec<_> = report.over.iter().take(5).collect();
    let wrong: Vec<_> = report.wrong.iter().take(5).collect();
    Err(format!("this must not happen: {some:?} {wrong:?}").into())
}

pub(crate) fn shown(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    if ms < 1000.0 { format!("{ms:.0} ms") } else { format!("{:.2} s", ms / 1000.0) }
}
