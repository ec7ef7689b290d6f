//! What a crash loses of play when changes are saved within a second.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use profilestore::data_store::SqliteStore;

use crate::{
    common::{Outcome, open_all, percentiles, player, server_on},
    players::WithCoins,
    process_cpu,
};

const PLAY: Duration = Duration::from_secs(20);

fn wall_ms() -> Outcome<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}

/// Sessions that change every second, each at its own moment, until this process is killed. A
/// profile's coins are the time of its last change.
pub(super) async fn play<T: WithCoins>(file: &Path, sessions: usize) -> Outcome {
    const STEPS: usize = 50;
    let file = SqliteStore::open(file, Default::default())?;
    let (server, players) = server_on(&file, "game", T::template()).await?;
    let profiles = open_all(&players, "p", sessions).await?;
    server
        .change_settings(|settings| settings.save_changes_within = Some(Duration::from_secs(1)))?;
    println!("ready");
    let mut tick = tokio::time::interval(Duration::from_secs(1) / u32::try_from(STEPS)?);
    for step in (0..STEPS).cycle() {
        tick.tick().await;
        let now = wall_ms()?;
        for profile in profiles.iter().skip(step).step_by(STEPS) {
            profile.update(|data| data.set_coins(now))?;
        }
    }
    Ok(())
}

pub(super) async fn run<T: WithCoins>(sessions: usize) -> Outcome {
    assert_eq!(
        serde_json::to_string(&T::template())?,
        serde_json::to_string(&player())?,
        "what is saved is the same, whatever the type"
    );
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("p.db");
    drop(SqliteStore::open(&path, Default::default())?);
    let mut child = Command::new(std::env::current_exe()?)
        .args([
            "child",
            T::MODE,
            path.to_str().ok_or("a path that is no UTF-8")?,
            &sessions.to_string(),
        ])
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
    let (server, players) = server_on(&file, "audit", T::template()).await?;
    let (mut lost, mut saves) = (Vec::with_capacity(sessions), 0);
    for i in 0..sessions {
        let read = players.get(&format!("p{i}")).await?.ok_or("a profile is gone")?;
        saves += read.key_info().map_or(0, |info| info.number - 1);
        // What was never saved has lost all of it.
        lost.push(Duration::from_millis(killed.saturating_sub(read.data.coins().max(began))));
    }
    let (p50, p99) = percentiles(&mut lost);
    let most = lost.last().map_or(0.0, Duration::as_secs_f64);
    println!(
        "\nSIGKILL with {sessions} sessions that change every second, changes saved within \
            1 s{}\n  play lost p50 {:.2} s, p99 {:.2} s, most {most:.2} s; {:.0} saves a second; \
            CPU {cpu:.2} cores",
        T::ABOUT,
        p50 / 1000.0,
        p99 / 1000.0,
        saves as f64 / PLAY.as_secs_f64()
    );
    let _ = server.shutdown().await;
    Ok(())
}
