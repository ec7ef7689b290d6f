//! Sessions through a server process beside the library's own in the same run, and `GET` of a
//! profile beside a bare handler that answers as many bytes.
//!
//! `cargo bench -p profilestore-server --bench served [-- saves|starts|handover|memory|reads]`
//!
//! What takes minutes, or needs a program more, is measured when it is named:
//! * `… -- many`: 100,000 sessions on one server process (`SESSIONS` says how many);
//! * `… -- roll`: three server processes replaced one after the other under 2,000 sessions;
//! * `… -- crash`: play lost when a game server with 10,000 sessions is killed;
//! * `… -- stopped`: a game server that is stopped for 30 s and goes on, alone, and while another
//!   one asks for its profiles;
//! * `… -- wrk`: what `reads` measures, with the program `wrk` in place of the bench's own load;
//! * `… -- node`: one Node process with the SDK for TypeScript beside the Rust client. The SDK must
//!   be built before: `npm ci && npm run build` in `sdk/typescript`.
//!
//! The server is a process of its own; the game servers are in this one. The machines that this
//! runs on are shared and noisy: the ratios count, not the rates.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

mod child;
mod deaths;
mod node;
mod play;
mod reads;
mod rolls;

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use profilestore::{
    GameServer, ProfileStore,
    data_store::{SqliteMessenger, SqliteStore},
};
use serde::{Deserialize, Serialize};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// About 3 KB of JSON, with numbers that every language holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Player {
    coins: u64,
    items: Vec<(u64, String, u32)>,
}

fn player() -> Player {
    let kinds = ["sword", "shield", "potion", "boots of haste", "dragon scale", "ring"];
    let items = (0..100u64).zip(kinds.iter().cycle()).map(|(at, kind)| {
        (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11, (*kind).to_owned(), (at * 7 % 100) as u32)
    });
    Player { coins: 0, items: items.collect() }
}

/// The data as a text, with so many coins.
fn text_of(coins: u64, player: &str) -> String {
    player.replacen("\"coins\":0", &format!("\"coins\":{coins}"), 1)
}

/// A game server of the library's own.
async fn own(folder: &Path, name: &str, job: &str) -> Outcome<(GameServer, ProfileStore<Player>)> {
    let store = SqliteStore::open(folder.join(name), Default::default())?;
    let messenger = SqliteMessenger::new(&store);
    let server = GameServer::builder(store).messenger(messenger).job_id(job).start().await?;
    let players = server.store_builder("PlayerData").template(player()).build()?;
    Ok((server, players))
}

/// The 50th and 99th percentile, in milliseconds.
fn percentiles(took: &mut [Duration]) -> (f64, f64) {
    took.sort_unstable();
    let at = |share: f64| {
        let index = ((took.len() as f64 * share) as usize).min(took.len().saturating_sub(1));
        took.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
    };
    (at(0.5), at(0.99))
}

/// Memory of a process's own, in bytes; pages of files do not count.
fn own_bytes(process: &str) -> Outcome<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("no RssAnon")?;
    let kilobytes: f64 = line.split_whitespace().next().ok_or("an empty RssAnon")?.parse()?;
    Ok(kilobytes * 1024.0)
}

/// Processor time of a process so far, all threads, in seconds. Linux counts it in hundredths.
fn processor_seconds(process: &str) -> Outcome<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let after_name = text.rsplit_once(')').ok_or("no name")?.1;
    let ticks = after_name.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Ok(ticks.sum::<Result<u64, _>>()? as f64 / 100.0)
}

/// The wall clock, in Unix milliseconds.
fn wall_ms() -> Outcome<u64> {
    Ok(u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?)
}

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = tempfile::tempdir()?;
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["child", "serve", folder, listen] => {
            return runtime.block_on(child::serve(Path::new(folder), listen));
        }
        ["child", "bare", body, _] => return runtime.block_on(child::bare(Path::new(body))),
        ["child", "game", address, name, game_servers, sessions] => {
            let plan =
                deaths::plan(address.parse()?, name, game_servers.parse()?, sessions.parse()?);
            return runtime.block_on(deaths::play(plan?));
        }
        _ => {}
    }
    let wanted = |what: &str| args.is_empty() || args.iter().any(|arg| arg == what);
    let bytes = serde_json::to_vec(&player())?.len();
    println!("a player's data is {bytes} bytes of JSON; stores are SQLite files, history on");
    let folder = folder.path();
    if wanted("saves") {
        runtime.block_on(play::saves(folder))?;
    }
    if wanted("starts") {
        runtime.block_on(play::starts(folder))?;
    }
    if wanted("handover") {
        runtime.block_on(play::hand_over(folder))?;
    }
    if wanted("memory") {
        runtime.block_on(play::memory(folder))?;
    }
    if wanted("reads") {
        runtime.block_on(reads::reads(folder))?;
    }
    for named in &args {
        match &**named {
            "many" => runtime.block_on(rolls::many(folder))?,
            "roll" => runtime.block_on(rolls::roll(folder))?,
            "crash" => runtime.block_on(deaths::crash(folder))?,
            "stopped" => runtime.block_on(deaths::stopped(folder))?,
            "wrk" => runtime.block_on(reads::wrk(folder))?,
            "node" => runtime.block_on(node::node(folder))?,
            _ => {}
        }
    }
    Ok(())
}
