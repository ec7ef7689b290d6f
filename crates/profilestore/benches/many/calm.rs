//! A calm server with very many sessions, of which few change at a time: opened, idle for a lease
//! time, the autosaves of a hundredth, some handed over, shut down. Data of a size that is chosen;
//! behind each phase the memory beyond it, and the most that there was.

use std::{fs, time::Duration};

use profilestore::{
    GameServer, ProfileStore, Settings,
    data_store::{SqliteMessenger, SqliteStore},
};

use crate::{
    Phases,
    common::{Outcome, Player, open_all, percentiles, player, resident_bytes},
    edit_all, hand_over,
};

/// One in so many sessions changes in a period of autosaves.
const CHANGED: usize = 100;

const AUTOSAVES: Duration = Duration::from_secs(60);

/// How many are handed over at most.
const HANDED_OVER: usize = 10_000;

/// The largest player whose JSON is within so many kilobytes.
fn player_of(kilobytes: usize) -> Outcome<Player> {
    let mut sized = Player { items: Vec::new(), ..player() };
    for item in player().items.into_iter().cycle() {
        sized.items.push(item);
        if serde_json::to_vec(&sized)?.len() > kilobytes * 1000 {
            sized.items.pop();
            break;
        }
    }
    Ok(sized)
}

/// What the data of sessions takes, and the memory of before.
struct Memory {
    before: f64,
    /// Bytes of one session's data.
    data: f64,
    sessions: f64,
}

impl Memory {
    fn of(sessions: usize, player: &Player) -> Outcome<Self> {
        let before = resident_bytes()?;
        // Of all of them it would count for the most that there was.
        let copies: Vec<Player> = (0..sessions.min(10_000)).map(|_| player.clone()).collect();
        let data = (resident_bytes()? - before) / copies.len() as f64;
        Ok(Self { before, data, sessions: sessions as f64 })
    }

    fn print(&self, when: &str) -> Outcome {
        let more = resident_bytes()? - self.before;
        println!(
            "  {when}: {:.0} bytes a session beyond its data; {:.0} MB in all, at most {:.0} MB",
            more / self.sessions - self.data,
            more / 1e6,
            most_bytes()? / 1e6
        );
        Ok(())
    }
}

/// The most memory that this process had, pages of files included.
fn most_bytes() -> Outcome<f64> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    let kilobytes: f64 = line.split_whitespace().next().ok_or("an empty VmHWM")?.parse()?;
    Ok(kilobytes * 1024.0)
}

async fn server_on(
    file: &SqliteStore,
    job: &str,
    player: &Player,
) -> Outcome<(GameServer, ProfileStore<Player>)> {
    let settings = Settings { shutdown_timeout: Duration::from_secs(300), ..Settings::default() };
    let server = GameServer::builder(file.clone())
        .messenger(SqliteMessenger::new(file))
        .job_id(job)
        .settings(settings)
        .start()
        .await?;
    let players = server.store_builder("PlayerData").template(player.clone()).build()?;
    Ok((server, players))
}

pub(super) async fn run(sessions: usize, kilobytes: usize) -> Outcome {
    let folder = tempfile::tempdir()?;
    let file = SqliteStore::open(folder.path().join("p.db"), Default::default())?;
    let player = player_of(kilobytes)?;
    let memory = Memory::of(sessions, &player)?;
    println!(
        "\n{sessions} calm sessions in one process, data of {} bytes of JSON each, {:.0} bytes in \
         memory",
        serde_json::to_vec(&player)?.len(),
        memory.data
    );
    let (a, players) = server_on(&file, "a", &player).await?;
    let mut phases = Phases::begin()?;
    let profiles = open_all(&players, "p", sessions).await?;
    phases.end("opening them all, 256 at a time")?;
    memory.print("opened")?;

    phases = Phases::begin()?;
    tokio::time::sleep(a.settings().lease_time).await;
    phases.end("a lease time of doing nothing")?;
    memory.print("idle")?;

    a.change_settings(|settings| settings.autosave_period = AUTOSAVES)?;
    let changed: Vec<_> = profiles.iter().step_by(CHANGED).cloned().collect();
    phases = Phases::begin()?;
    edit_all(&changed)?;
    let unsaved = || changed.iter().filter(|profile| profile.key_info().number < 2).count();
    for _ in 0..5 * AUTOSAVES.as_secs() {
        if unsaved() == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    phases.end(&format!("autosaves of {} that changed", changed.len()))?;
    println!("  unsaved after that: {}", unsaved());
    memory.print("autosaved")?;

    let (b, there) = server_on(&file, "b", &player).await?;
    let moved = (sessions / 10).min(HANDED_OVER);
    edit_all(&profiles[..moved])?;
    phases = Phases::begin()?;
    let mut took = hand_over(&there, moved).await?;
    phases.end(&format!("handing over {moved} that changed, 64 at a time"))?;
    let (p50, p99) = percentiles(&mut took);
    println!("  each p50 {p50:.1} ms, p99 {p99:.1} ms");
    memory.print("handed over")?;

    phases = Phases::begin()?;
    let report = a.shutdown().await;
    phases.end(&format!("shutdown of the other {}", sessions - moved))?;
    println!("  not saved: {}", report.not_saved.len());
    memory.print("shut down")?;
    let _ = b.shutdown().await;
    Ok(())
}
