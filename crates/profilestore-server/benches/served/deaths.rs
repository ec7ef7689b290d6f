//! A game server that is killed, and one that is stopped for a while: what it lost, what it
//! believed, and what it was told.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use profilestore_testbed::{Crowd, CrowdPlan, CrowdReport, LoadClient, Signal, send};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::{
    Outcome,
    child::{Other, is_told},
    own, percentiles,
    play::connect,
    player,
    rolls::{PATIENCE, shown, told},
    wall_ms,
};

/// For how long the sessions change before the game servers are killed.
const PLAY: Duration = Duration::from_secs(20);

/// How many game servers there are in the process that is killed, and how many sessions each has.
const KILLED: (u64, u64) = (10, 1000);

/// For how long a game server is stopped.
const STOPPED: Duration = Duration::from_secs(30);

/// How long after that another one asks for its profiles.
const ASKS_AFTER: Duration = Duration::from_secs(1);

/// How long it plays before it is stopped, and after it goes on.
const AROUND: Duration = Duration::from_secs(10);

/// How many sessions it has.
const OF_STOPPED: u64 = 100;

/// How often its sessions change, and within which time a change is saved.
const EVERY: Duration = Duration::from_secs(1);

/// What game servers in a process of their own are like. Their key is in the environment.
pub(crate) fn plan(
    address: SocketAddr,
    name: &str,
    game_servers: u64,
    sessions: u64,
) -> Outcome<CrowdPlan> {
    Ok(CrowdPlan {
        servers: vec![address],
        key: std::env::var("PROFILESTORE_KEY")?,
        name: name.to_owned(),
        game_servers,
        sessions,
        lease: None,
        data: serde_json::to_string(&player())?.into(),
        now_ms: wall_ms()?,
        change_every: EVERY,
        save_within: EVERY,
    })
}

/// The process of game servers: it plays until it gets a word, and then says what became of it.
pub(crate) async fn play(plan: CrowdPlan) -> Outcome {
    let crowd = Crowd::start(plan);
    if !crowd.is_open_within(PATIENCE).await {
        return Err("not all sessions are open".into());
    }
    crowd.play();
    println!("ready");
    if !is_told().await {
        return Ok(());
    }
    let _ = crowd.is_saved_within(PATIENCE).await;
    let report = crowd.end_within(PATIENCE).await.ok_or("a game server does not end")?;
    println!("{}", in_json(&report));
    Ok(())
}

fn in_json(report: &CrowdReport) -> Value {
    let seconds = |time: Duration| time.as_secs_f64();
    let gaps = report
        .gaps
        .iter()
        .map(|gap| json!([seconds(gap.stood_still), seconds(gap.believed_for), gap.believed_in]));
    let over = report.over.iter().map(|over| {
        json!({ "key": over.key, "told": over.told, "changed": over.changed, "stored": over.stored })
    });
    json!({
        "line": told(report),
        "gaps": gaps.collect::<Vec<_>>(),
        "over": over.collect::<Vec<_>>(),
        "wrong": report.wrong.iter().take(5).collect::<Vec<_>>(),
    })
}

/// Game servers in a process of their own, which is killed when this is dropped.
struct Games {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Games {
    /// Starts them, and waits until all of their sessions are open.
    fn start(server: &Other, name: &str, game_servers: u64, sessions: u64) -> Outcome<Self> {
        let (game_servers, sessions) = (game_servers.to_string(), sessions.to_string());
        let mut child = Command::new(std::env::current_exe()?)
            .args(["child", "game", &server.address.to_string(), name, &game_servers, &sessions])
            .env("PROFILESTORE_KEY", &server.key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().ok_or("no pipe")?;
        let output = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        let mut games = Self { child, input, output };
        if games.line()? != "ready" {
            return Err("the game servers have not begun".into());
        }
        Ok(games)
    }

    fn line(&mut self) -> Outcome<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    /// Lets them end their sessions, and say what became of them.
    fn end(mut self) -> Outcome<Value> {
        self.input.write_all(b"end\n")?;
        Ok(serde_json::from_str(&self.line()?)?)
    }
}

impl Drop for Games {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `p50 0.41 s, p99 0.99 s, most 1.02 s`.
fn spread(times: &mut [Duration]) -> String {
    let (p50, p99) = percentiles(times);
    let most = times.last().copied().unwrap_or_default().as_secs_f64();
    format!("p50 {:.2} s, p99 {:.2} s, most {most:.2} s", p50 / 1000.0, p99 / 1000.0)
}

pub(crate) async fn crash(folder: &Path) -> Outcome {
    let folder = folder.join("crash");
    std::fs::create_dir(&folder)?;
    let server = Other::start("serve", &folder)?;
    let (game_servers, sessions) = KILLED;
    let games = Games::start(&server, "crash", game_servers, sessions)?;
    let began = wall_ms()?;
    sleep(PLAY).await;
    let killed = wall_ms()?;
    drop(games);
    // What had reached the server is stored by it.
    sleep(Duration::from_secs(1)).await;
    drop(server);

    let (server, players) = own(&folder, "served.db", "audit").await?;
    let (mut since_stored, mut lost, mut saves) = (Vec::new(), Vec::new(), 0);
    let every = EVERY.as_millis() as u64;
    for game in 0..game_servers {
        for s in 1..=sessions {
            let read = players.get(&format!("crash-{game}-{s}")).await?.ok_or("one is gone")?;
            saves += read.key_info().map_or(0, |info| info.number - 1);
            // What was never saved has lost all of it.
            let stored = read.data.coins.max(began);
            since_stored.push(Duration::from_millis(killed.saturating_sub(stored)));
            // Its next change was the first one that is lost.
            lost.push(Duration::from_millis(killed.saturating_sub(stored + every)));
        }
    }
    let _ = server.shutdown().await;
    println!(
        "\nSIGKILL of game servers with {} remote sessions that change every second, changes saved \
         within 1 s\n  play lost, since the first change that is not stored: {}\n  the same since \
         the last change that is stored: {}\n  {:.0} saves a second",
        game_servers * sessions,
        spread(&mut lost),
        spread(&mut since_stored),
        saves as f64 / PLAY.as_secs_f64()
    );
    Ok(())
}

pub(crate) async fn stopped(folder: &Path) -> Outcome {
    for is_asked_for in [false, true] {
        let folder = folder.join(format!("stopped-{is_asked_for}"));
        std::fs::create_dir(&folder)?;
        stop_one(&folder, is_asked_for).await?;
    }
    Ok(())
}

async fn stop_one(folder: &Path, is_asked_for: bool) -> Outcome {
    let server = Other::start("serve", folder)?;
    let games = Games::start(&server, "stopped", 1, OF_STOPPED)?;
    sleep(AROUND).await;
    let stopped = Instant::now();
    send(games.child.id(), Signal::STOP);
    println!(
        "\na game server with {OF_STOPPED} sessions that change every second is stopped for \
         {STOPPED:?}, {}",
        if is_asked_for { "and another one asks for its profiles" } else { "alone" }
    );
    let other = if is_asked_for { Some(connect(&server, "other").await?) } else { None };
    if let Some(other) = &other {
        sleep(ASKS_AFTER).await;
        let mut held = taken(other, stopped).await?;
        held.sort_unstable();
        println!(
            "  the other one had the first profile {} after that, the last {}",
            shown(held.first().copied().unwrap_or_default()),
            shown(held.last().copied().unwrap_or_default())
        );
    }
    tokio::time::sleep_until(stopped + STOPPED).await;
    send(games.child.id(), Signal::CONT);
    sleep(AROUND).await;
    let report = games.end()?;
    for gap in report["gaps"].as_array().into_iter().flatten() {
        println!(
            "  it stood still for {:.1} s; it might have believed in its sessions for {:.1} s of \
             that, and believed in {} of them when it went on",
            gap[0].as_f64().unwrap_or_default(),
            gap[1].as_f64().unwrap_or_default(),
            gap[2]
        );
    }
    println!("  {}", report["line"].as_str().unwrap_or_default());
    // The file is read beside the process that serves it.
    let (audit, players) = own(folder, "served.db", "audit").await?;
    let (mut lost, mut words, mut missing) = (Vec::new(), Vec::new(), 0);
    for over in report["over"].as_array().into_iter().flatten() {
        let key = over["key"].as_str().unwrap_or_default();
        let stored = players.get(key).await?.ok_or("a profile is gone")?.data.coins;
        let time = |name: &str| over[name].as_u64().unwrap_or_default();
        missing += usize::from(stored < time("stored"));
        lost.push(Duration::from_millis(time("changed").saturating_sub(stored)));
        words.extend(over["told"].as_str().map(str::to_owned));
    }
    words.sort_unstable();
    words.dedup();
    let _ = audit.shutdown().await;
    match lost.is_empty() {
        true => println!("  nothing was lost"),
        false => println!(
            "  {} sessions lost play that it had made before it was stopped: {}; it was told so \
             by `{}`; changes answered as stored that are not there: {missing}",
            lost.iter().filter(|lost| !lost.is_zero()).count(),
            spread(&mut lost),
            words.join("`, `")
        ),
    }
    let wrong = report["wrong"].as_array().filter(|wrong| !wrong.is_empty());
    match (wrong, missing) {
        (None, 0) => Ok(()),
        _ => Err(format!("this must not happen: {missing} are missing, {wrong:?}").into()),
    }
}

/// How long after a moment another game server has each of the profiles.
async fn taken(other: &LoadClient, since: Instant) -> Outcome<Vec<Duration>> {
    let template: Arc<str> = serde_json::to_string(&player())?.into();
    let starts = stream::iter(1..=OF_STOPPED).map(|s| {
        let template = template.clone();
        async move {
            let start = other.ask(|i| {
                format!(
                    "{{\"start\":{{\"i\":{i},\"s\":{s},\"store\":\"PlayerData\",\
                     \"key\":\"stopped-0-{s}\",\"template\":{template},\"timeout_ms\":60000}}}}"
                )
            });
            match start.await {
                Some(answer) if answer == "started" => Ok(since.elapsed()),
                answer => Err(format!("another game server does not get a profile: {answer:?}")),
            }
        }
    });
    let taken: Vec<Result<Duration, String>> =
        starts.buffer_unordered(usize::try_from(OF_STOPPED)?).collect().await;
    Ok(taken.into_iter().collect::<Result<_, _>>()?)
}
