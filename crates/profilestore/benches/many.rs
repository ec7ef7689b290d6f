//! Very many sessions in one process: what they cost to open, keep, hand over and shut down, and
//! what a crash loses when changes are saved within a second.
//!
//! `cargo bench -p profilestore --bench many -- live [SESSIONS]`,
//! `cargo bench -p profilestore --bench many -- crash [SESSIONS]`;
//! `cargo bench -p profilestore --bench many -- overload [SESSIONS] [MINUTES]`: a store that takes
//! 100 saves a second; `scripts/servers.sh cargo bench -p profilestore --features postgres --bench
//! many -- live-postgres [SESSIONS]`
//!
//! The machines that this runs on are shared and noisy: read the proportions.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use profilestore::{
    GameServer, Profile, ProfileStore, Settings,
    data_store::{SqliteMessenger, SqliteStore},
};

#[path = "common/mod.rs"]
mod common;

use common::{Outcome, Player, open_all, percentiles, player, resident_bytes, server_on};

const PLAY: Duration = Duration::from_secs(20);

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let count = |text: &String| {
        text.parse::<usize>().map_err(|_| format!("not a number of sessions: `{text}`"))
    };
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => {
            runtime.block_on(live(100_000))?;
            runtime.block_on(crash(10_000))?;
            runtime.block_on(crash(100_000))
        }
        ["live"] => runtime.block_on(live(100_000)),
        ["live", _] => runtime.block_on(live(count(&args[1])?)),
        #[cfg(feature = "postgres")]
        ["live-postgres"] => runtime.block_on(live_on_postgres(100_000)),
        #[cfg(feature = "postgres")]
        ["live-postgres", _] => runtime.block_on(live_on_postgres(count(&args[1])?)),
        ["crash"] => runtime.block_on(crash(10_000)),
        ["crash", _] => runtime.block_on(crash(count(&args[1])?)),
        ["overload"] => runtime.block_on(overload(100_000, 3)),
        ["overload", _] => runtime.block_on(overload(count(&args[1])?, 3)),
        ["overload", _, _] => runtime.block_on(overload(count(&args[1])?, count(&args[2])?)),
        ["child", file, _] => runtime.block_on(play(Path::new(file), count(&args[2])?)),
        _ => Err("usage: many [live|live-postgres|crash|overload] [SESSIONS] [MINUTES]; \
            live-postgres needs --features postgres"
            .into()),
    }
}

/// CPU time of a process so far, all threads, in seconds. Linux counts it in hundredths.
fn process_cpu(pid: u32) -> Outcome<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = text.rsplit_once(')').ok_or("no name")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks: u64 = fields.get(11).ok_or("no utime")?.parse::<u64>()?
        + fields.get(12).ok_or("no stime")?.parse::<u64>()?;
    Ok(ticks as f64 / 100.0)
}

/// Prints what a phase took, and begins the next one.
struct Phases {
    began: Instant,
    cpu: f64,
}

impl Phases {
    fn begin() -> Outcome<Self> {
        Ok(Self { began: Instant::now(), cpu: process_cpu(std::process::id())? })
    }

    fn end(&mut self, what: &str) -> Outcome {
        let next = Self::begin()?;
        let (wall, cpu) = ((next.began - self.began).as_secs_f64(), next.cpu - self.cpu);
        println!("  {what:<44} {wall:>7.2} s, CPU {cpu:>7.2} s ({:.2} cores)", cpu / wall);
        *self = next;
        Ok(())
    }
}

/// Every session is edited all the time, autosaves are due once in 30 s, and the store takes 100
/// saves a second. Prints the memory, and how long ends and trades take.
async fn overload(sessions: usize, minutes: usize) -> Outcome {
    use profilestore::data_store::fault::{FaultyStore, Throttled};
    use std::sync::Arc;

    // What is stored lies in a file, so the memory is the engine's. Opened at full speed.
    let folder = tempfile::tempdir()?;
    let file = SqliteStore::open(folder.path().join("p.db"), Default::default())?;
    let store = FaultyStore::new(Arc::new(file), Throttled::default());
    let server = GameServer::builder(store.clone()).start().await?;
    let players = server.store_builder("PlayerData").template(player()).build()?;
    let mut profiles = open_all(&players, "p", sessions).await?;
    println!(
        "\n{sessions} sessions, all edited all the time, autosaves of 30 s, a store of 100 \
        saves a second"
    );
    let before = resident_bytes()?;
    server.change_settings(|settings| settings.autosave_period = Duration::from_secs(30))?;
    store.plan().set(100);
    let mut others = profiles.split_off(sessions.saturating_sub(1000));
    let began = Instant::now();
    let mut edits = 0_u64;
    for sample in 1..=minutes * 6 {
        let until = began + Duration::from_secs(10 * u64::try_from(sample)?);
        while Instant::now() < until {
            for profile in &profiles {
                profile.update(|player| player.coins += 1)?;
                edits += 1;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let end = others.pop().ok_or("no session is left to end")?;
        let at = Instant::now();
        end.end_session().await?;
        let ended = at.elapsed();
        let pair =
            [others.pop().ok_or("no session is left")?, others.pop().ok_or("no session is left")?];
        let at = Instant::now();
        let [from, to] = pair.clone();
        let trade = server.transaction().with(&pair[0]).with(&pair[1]);
        trade
            .run(move |tx| {
                tx.edit(&from, |player| player.coins += 1)?;
                tx.edit(&to, |player| player.coins += 1)
            })
            .await?;
        println!(
            "  {:>4} s: {:>6.0} MB more than before, {edits} edits, an end {:>6.0} ms, a trade \
                {:>6.0} ms",
            began.elapsed().as_secs(),
            (resident_bytes()? - before) / 1e6,
            ended.as_secs_f64() * 1e3,
            at.elapsed().as_secs_f64() * 1e3
        );
    }
    Ok(())
}

async fn live(sessions: usize) -> Outcome {
    let folder = tempfile::tempdir()?;
    let file = SqliteStore::open(folder.path().join("p.db"), Default::default())?;
    live_on(sessions, async |job| server_on(&file, job).await).await
}

#[cfg(feature = "postgres")]
async fn live_on_postgres(sessions: usize) -> Outcome {
    use profilestore::{
        data_store::{PostgresOptions, PostgresStore},
        messenger::PostgresMessenger,
    };

    let url = std::env::var("PROFILESTORE_TEST_POSTGRES")
        .map_err(|_| "PROFILESTORE_TEST_POSTGRES names the server: see scripts/servers.sh")?;
    let schema = format!("many_{}", profilestore::env::Env::system().uuid().simple());
    let options: PostgresOptions = format!("{url}?schema={schema}").parse()?;
    PostgresStore::migrate(&options, None).await?;
    live_on(sessions, async |job| {
        let store = PostgresStore::open(options.clone()).await?;
        let messenger = PostgresMessenger::new(options.clone())?;
        let server = GameServer::builder(store).messenger(messenger).job_id(job).start().await?;
        let players = server.store_builder("PlayerData").template(player()).build()?;
        Ok((server, players))
    })
    .await
}

async fn live_on(
    sessions: usize,
    server_on: impl AsyncFn(&str) -> Outcome<(GameServer, ProfileStore<Player>)>,
) -> Outcome {
    let settings = |settings: &mut Settings| settings.shutdown_timeout = Duration::from_secs(120);
    let (a, players) = server_on("a").await?;
    a.change_settings(settings)?;
    println!(
        "\n{sessions} live sessions in one process, data of {} bytes of JSON each",
        serde_json::to_vec(&player())?.len()
    );
    let before = resident_bytes()?;
    let mut phases = Phases::begin()?;
    let profiles = open_all(&players, "p", sessions).await?;
    phases.end("opening them all, 256 at a time")?;
    let memory = resident_bytes()? - before;
    println!(
        "  memory {:.0} MB, {:.0} bytes a session (the store's caches in this process included)",
        memory / 1e6,
        memory / sessions as f64
    );
    let copies: Vec<Player> = (0..sessions).map(|_| player()).collect();
    println!("  of it the data's own {:.0} MB", (resident_bytes()? - before - memory) / 1e6);
    drop(copies);

    phases = Phases::begin()?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    phases.end("ten seconds of doing nothing")?;

    a.change_settings(|settings| settings.autosave_period = Duration::from_secs(30))?;
    phases = Phases::begin()?;
    edit_all(&profiles)?;
    phases.end("one edit of each")?;
    let unsaved = |profiles: &[Profile<Player>]| {
        profiles.iter().filter(|profile| profile.key_info().number < 2).count()
    };
    let mut left = vec![unsaved(&profiles)];
    phases = Phases::begin()?;
    while left.last() != Some(&0) && left.len() < 60 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        left.push(unsaved(&profiles));
    }
    phases.end("autosaves of all, spread over 30 s")?;
    let mut per_second: Vec<usize> = left.windows(2).map(|pair| pair[0] - pair[1]).collect();
    per_second.sort_unstable();
    println!(
        "  saves a second: median {}, most {}",
        per_second[per_second.len() / 2],
        per_second[per_second.len() - 1]
    );
    a.change_settings(|settings| settings.autosave_period = Duration::from_secs(300))?;

    edit_all(&profiles)?;
    let (b, there) = server_on("b").await?;
    b.change_settings(settings)?;
    let moved = sessions / 10;
    let mut took = Vec::with_capacity(moved);
    phases = Phases::begin()?;
    for chunk in (0..moved).collect::<Vec<_>>().chunks(64) {
        let starts: Vec<_> = chunk
            .iter()
            .map(|i| {
                let (start, began) = (there.start_session(&format!("p{i}")), Instant::now());
                tokio::spawn(async move { start.await.map(|_| began.elapsed()) })
            })
            .collect();
        for start in starts {
            took.push(start.await??);
        }
    }
    phases.end(&format!("handing over {moved} of them, 64 at a time"))?;
    let (p50, p99) = percentiles(&mut took);
    println!("  each p50 {p50:.1} ms, p99 {p99:.1} ms");

    phases = Phases::begin()?;
    let report = a.shutdown().await;
    phases.end(&format!("shutdown, {} of them with unsaved changes", sessions - moved))?;
    println!("  not saved: {}", report.not_saved.len());
    let _ = b.shutdown().await;
    Ok(())
}

fn edit_all(profiles: &[Profile<Player>]) -> Outcome {
    for profile in profiles {
        profile.update(|data| data.coins += 1)?;
    }
    Ok(())
}

// --- a crash ------------------------------------------------------------------------------------

fn wall_ms() -> Outcome<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}

/// Sessions that change every second, each at its own moment, until this process is killed. A
/// profile's coins are the time of its last change.
async fn play(file: &Path, sessions: usize) -> Outcome {
    const STEPS: usize = 50;
    let file = SqliteStore::open(file, Default::default())?;
    let (server, players) = server_on(&file, "game").await?;
    let profiles = open_all(&players, "p", sessions).await?;
    server
        .change_settings(|settings| settings.save_changes_within = Some(Duration::from_secs(1)))?;
    println!("ready");
    let mut tick = tokio::time::interval(Duration::from_secs(1) / u32::try_from(STEPS)?);
    for step in (0..STEPS).cycle() {
        tick.tick().await;
        let now = wall_ms()?;
        for profile in profiles.iter().skip(step).step_by(STEPS) {
            profile.update(|data| data.coins = now)?;
        }
    }
    Ok(())
}

async fn crash(sessions: usize) -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("p.db");
    drop(SqliteStore::open(&path, Default::default())?);
    let mut child = Command::new(std::env::current_exe()?)
        .args(["child", path.to_str().ok_or("a path that is no UTF-8")?, &sessions.to_string()])
        .stdout(Stdio::piped())
        .spawn()?;
    let ready = BufReader::new(child.stdout.take().ok_or("no pipe")?)
        .lines()
        .map_while(Result::ok)
        .any(|line| line == "ready");
    if !ready {
        return Err("the child has not begun".into());
    }
    let began = wall_ms()?;
    let cpu = process_cpu(child.id())?;
    tokio::time::sleep(PLAY).await;
    let cpu = (process_cpu(child.id())? - cpu) / PLAY.as_secs_f64();
    child.kill()?;
    let killed = wall_ms()?;
    child.wait()?;

    let file = SqliteStore::open(&path, Default::default())?;
    let server = GameServer::builder(file.clone())
        .messenger(SqliteMessenger::new(&file))
        .job_id("audit")
        .start()
        .await?;
    let players = server.store_builder("PlayerData").template(player()).build()?;
    let (mut lost, mut saves) = (Vec::with_capacity(sessions), 0);
    for i in 0..sessions {
        let read = players.get(&format!("p{i}")).await?.ok_or("a profile is gone")?;
        saves += read.key_info().map_or(0, |info| info.number - 1);
        // What was never saved has lost all of it.
        lost.push(Duration::from_millis(killed.saturating_sub(read.data.coins.max(began))));
    }
    let (p50, p99) = percentiles(&mut lost);
    let most = lost.last().map_or(0.0, Duration::as_secs_f64);
    println!(
        "\nSIGKILL with {sessions} sessions that change every second, changes saved within 1 s\n  \
            play lost p50 {:.2} s, p99 {:.2} s, most {most:.2} s; {:.0} saves a second; CPU \
            {cpu:.2} cores",
        p50 / 1000.0,
        p99 / 1000.0,
        saves as f64 / PLAY.as_secs_f64()
    );
    let _ = server.shutdown().await;
    Ok(())
}
