//! Very many sessions in one process: what they cost to open, keep, hand over and shut down, and
//! what a crash loses when changes are saved within a second.
//!
//! `cargo bench -p profilestore --bench many -- live [SESSIONS]`,
//! `cargo bench -p profilestore --bench many -- crash [SESSIONS]`,
//! `cargo bench -p profilestore --bench many -- crash-shared [SESSIONS]`: the same data, with
//! what seldom changes behind an `Arc`;
//! `cargo bench -p profilestore --bench many -- calm [SESSIONS] [KILOBYTES]`: a million unless
//! said, of which few change, with data of 4 KB, or of another size;
//! `cargo bench -p profilestore --bench many -- overload [SESSIONS] [MINUTES]`: a store that takes
//! 100 saves a second; `scripts/servers.sh cargo bench -p profilestore --features postgres --bench
//! many -- live-postgres [SESSIONS]`
//!
//! The machines that this runs on are shared and noisy: read the proportions.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

mod calm;
mod crash;
mod live;
mod overload;
mod players;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use profilestore::{Profile, ProfileStore};

#[path = "../common/mod.rs"]
mod common;

use common::{Outcome, Player};
use players::SharedPlayer;

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let count =
        |text: &String| text.parse::<usize>().map_err(|_| format!("not a number: `{text}`"));
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => {
            runtime.block_on(live::run(100_000))?;
            runtime.block_on(crash::run::<Player>(10_000))?;
            runtime.block_on(crash::run::<Player>(100_000))
        }
        ["live"] => runtime.block_on(live::run(100_000)),
        ["live", _] => runtime.block_on(live::run(count(&args[1])?)),
        #[cfg(feature = "postgres")]
        ["live-postgres"] => runtime.block_on(live::run_on_postgres(100_000)),
        #[cfg(feature = "postgres")]
        ["live-postgres", _] => runtime.block_on(live::run_on_postgres(count(&args[1])?)),
        ["calm"] => runtime.block_on(calm::run(1_000_000, 4)),
        ["calm", _] => runtime.block_on(calm::run(count(&args[1])?, 4)),
        ["calm", _, _] => runtime.block_on(calm::run(count(&args[1])?, count(&args[2])?)),
        ["crash"] => runtime.block_on(crash::run::<Player>(10_000)),
        ["crash", _] => runtime.block_on(crash::run::<Player>(count(&args[1])?)),
        ["crash-shared"] => runtime.block_on(crash::run::<SharedPlayer>(10_000)),
        ["crash-shared", _] => runtime.block_on(crash::run::<SharedPlayer>(count(&args[1])?)),
        ["overload"] => runtime.block_on(overload::run(100_000, 3)),
        ["overload", _] => runtime.block_on(overload::run(count(&args[1])?, 3)),
        ["overload", _, _] => runtime.block_on(overload::run(count(&args[1])?, count(&args[2])?)),
        ["child", "crash", file, _] => {
            runtime.block_on(crash::play::<Player>(Path::new(file), count(&args[3])?))
        }
        ["child", "crash-shared", file, _] => {
            runtime.block_on(crash::play::<SharedPlayer>(Path::new(file), count(&args[3])?))
        }
        _ => Err("usage: many [live|live-postgres|crash|crash-shared] [SESSIONS], many calm \
            [SESSIONS] [KILOBYTES], many overload [SESSIONS] [MINUTES]; live-postgres needs \
            --features postgres"
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

fn edit_all(profiles: &[Profile<Player>]) -> Outcome {
    for profile in profiles {
        profile.update(|data| data.coins += 1)?;
    }
    Ok(())
}

/// Takes the first of the profiles from the server that holds them, 64 at a time.
async fn hand_over(there: &ProfileStore<Player>, count: usize) -> Outcome<Vec<Duration>> {
    let mut took = Vec::with_capacity(count);
    for chunk in (0..count).collect::<Vec<_>>().chunks(64) {
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
    Ok(took)
}
