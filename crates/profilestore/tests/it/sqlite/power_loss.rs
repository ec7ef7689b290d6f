//! The machine loses its power while a store is written and read. What was acknowledged before, and
//! what was read, must be on the disk. A library that is preloaded into a child
//! (`tests/power_loss.c`) keeps what surely is there, beside the store's files. That is then opened
//! elsewhere, as by a machine that comes up again, and the next child goes on with it.
//!
//! Once the switch is thrown, the child still says what it knows from earlier syncs. So all that it
//! said until it was killed counts.

use std::{fs, io::Read as _, path::PathBuf, time::Duration};

use super::{
    io_errors::{preloaded, say},
    processes::{Process, command, pair},
    *,
};

pub(super) const DURABLE: &str = "write until the power fails";
pub(super) const NOT_DURABLE: &str = "write without syncing until the power fails";

/// How many tasks write at once. Those with an even number write a pair in each commit.
const WRITERS: usize = 40;
const READERS: usize = 4;

/// Up to how many acknowledgements the parent waits for before the switch, unless it waits for the
/// log to begin anew.
const ACKNOWLEDGED: u64 = 4000;

/// What the child does: each task writes its keys, counting up, and says so after each commit was
/// acknowledged. Others read what is being written, and say what they read.
#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
pub(super) async fn write_and_read(file: &Path, durable: bool) {
    let options = SqliteOptions { durable, ..SqliteOptions::default() };
    let store = SqliteStore::open(file, options).unwrap();
    let incarnation = store.identity().await.unwrap().incarnation;
    let mut tasks = tokio::task::JoinSet::<()>::new();
    for task in 0..WRITERS {
        let store = store.clone();
        tasks.spawn(async move {
            let mut states = Vec::new();
            for key in keys(task) {
                states.push(state(&store, &key).await);
            }
            // 3 to 5 KB in a commit.
            let filling = "x".repeat((3000 + 50 * task) / states.len());
            loop {
                let version = states[0].version + 1;
                let value = format!("{version} {filling}");
                let commit = Commit {
                    id: CommitId(Env::system().uuid()),
                    incarnation,
                    from: None,
                    changes: states.iter().map(|state| write(state, &value)).collect(),
                    returning: Returning::ALL,
                    fingerprint: None,
                };
                states = store.commit_one(commit).await.unwrap().states;
                say(&format!("acknowledged {task} {version}"));
            }
        });
    }
    for reader in 0..READERS {
        let store = store.clone();
        tasks.spawn(async move {
            for step in reader.. {
                let task = step * 7 % WRITERS;
                for key in keys(task) {
                    let version = state(&store, &key).await.version;
                    say(&format!("read {task} {version}"));
                }
                // Reads without a pause would keep the log from beginning anew.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }
    tasks.join_next().await.unwrap().unwrap();
}

fn keys(task: usize) -> Vec<ProfileKey> {
    let [a, b] = pair(task as u64);
    if task.is_multiple_of(2) { vec![a, b] } else { vec![a] }
}

/// A loss of power: for each task, the last version that was acknowledged, the last one that was
/// read, and the one that was there afterwards.
struct Loss {
    seed: u64,
    acknowledged: [u64; WRITERS],
    read: [u64; WRITERS],
    found: [u64; WRITERS],
}

impl Loss {
    /// Takes a line of the child, and says whether it is an acknowledgement.
    fn take(&mut self, line: &str) -> bool {
        let mut words = line.split(' ');
        let known = match words.next() {
            Some("acknowledged") => &mut self.acknowledged,
            Some("read") => &mut self.read,
            _ => return false,
        };
        // The last line may be cut off by the kill.
        let (Some(Ok(task)), Some(Ok(version))) =
            (words.next().map(str::parse::<usize>), words.next().map(str::parse::<u64>))
        else {
            return false;
        };
        known[task] = version.max(known[task]);
        line.starts_with("acknowledged")
    }
}

/// Lets a store lose its power so many times. Whatever is lost, nothing may be half there, and the
/// file must be sound.
async fn lose_power(part: &str, rounds: u64) -> Vec<Loss> {
    let seed = number("PROFILESTORE_POWER_LOSS_SEED", 1);
    eprintln!("PROFILESTORE_POWER_LOSS_SEED={seed}");
    let dir = folder();
    let library = preloaded("power_loss", dir.path());
    // The library compares paths as they are given.
    let dir = dir.path().canonicalize().unwrap();
    let mut losses: Vec<Loss> = Vec::new();
    for round in 0..rounds {
        let [file, next] = [round, round + 1].map(|round| {
            let folder = dir.join(round.to_string());
            fs::create_dir_all(&folder).unwrap();
            folder.join("players.db")
        });
        let before = losses.last().map_or([0; WRITERS], |loss| loss.found);
        let seed = mixed(seed.wrapping_add(round));
        let mut loss = Loss { seed, acknowledged: before, read: before, found: before };
        run_until_the_power_fails(part, &file, &library, round, &mut loss).await;
        for more in ["", "-wal"] {
            let image = beside(&file, &format!("{more}.on-disk"));
            if image.exists() {
                fs::copy(image, beside(&next, more)).unwrap();
            }
        }
        loss.found = audit(&next, round).await;
        fs::remove_dir_all(file.parent().unwrap()).unwrap();
        losses.push(loss);
    }
    losses
}

/// The moment is after some acknowledgement that the seed names; in every third round, after the
/// log has begun anew as well. In every second round, some of what was not synced is on the disk
/// all the same.
async fn run_until_the_power_fails(
    part: &str,
    file: &Path,
    library: &Path,
    round: u64,
    loss: &mut Loss,
) {
    let mut command = command(part, file);
    command.env("LD_PRELOAD", library).env("POWER_LOSS_FILE", file);
    if round % 2 == 1 {
        command.env("POWER_LOSS_EARLY", loss.seed.to_string());
    }
    let mut child = Process(command.spawn().unwrap());
    let enough = 1 + loss.seed % ACKNOWLEDGED;
    let anew = round % 3 == 2;
    let (mut acknowledged, mut off) = (0, false);
    for line in child.lines() {
        if !loss.take(&line) {
            continue;
        }
        acknowledged += 1;
        // A look at the log takes a moment.
        let now = acknowledged == enough || (acknowledged > enough && acknowledged % 64 == 0);
        if off || !now || (anew && times_anew(file) == 0) {
            continue;
        }
        child.signal("-USR1");
        // No image changes any more once this is there.
        let marker = beside(file, ".off");
        for _ in 0..60_000 {
            if marker.exists() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(marker.exists(), "the power does not go off");
        child.0.kill().unwrap();
        off = true;
    }
    assert!(off, "the child ended by itself in round {round}");
    child.0.wait().unwrap();
    eprintln!("round {round}: {acknowledged} acknowledged, log begun anew: {}", times_anew(file));
}

/// How often the log on the disk began anew since it was made, which its header counts (SQLite's
/// `fileformat2.html`).
fn times_anew(file: &Path) -> u32 {
    let mut header = [0; 16];
    let log = fs::File::open(beside(file, "-wal.on-disk"));
    match log.and_then(|mut log| log.read_exact(&mut header)) {
        Ok(()) => u32::from_be_bytes([header[12], header[13], header[14], header[15]]),
        // There is none yet.
        Err(_) => 0,
    }
}

/// Opens what was on the disk, and answers with the version of each task's keys.
async fn audit(file: &Path, round: u64) -> [u64; WRITERS] {
    assert!(file.exists(), "not even the file is on the disk in round {round}");
    let store = open(file);
    let mut found = [0; WRITERS];
    for (task, found) in found.iter_mut().enumerate() {
        let mut states = Vec::new();
        for key in keys(task) {
            states.push(state(&store, &key).await);
        }
        *found = states[0].version;
        for state in states {
            assert_eq!(state.version, *found, "half a commit of task {task} in round {round}");
            let whole = text(&state).unwrap_or("0 ").starts_with(&format!("{found} "));
            assert!(whole, "another value of task {task} in round {round}");
        }
    }
    assert_eq!(store.check(|_, _| {}).unwrap().problems, Vec::<String>::new(), "round {round}");
    found
}

fn beside(file: &Path, more: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(more);
    name.into()
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |number| number.parse().expect("a number"))
}

fn rounds(otherwise: u64) -> u64 {
    number("PROFILESTORE_POWER_LOSS_ROUNDS", otherwise)
}

fn mixed(seed: u64) -> u64 {
    let mixed = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 32)
}

/// `PROFILESTORE_POWER_LOSS_ROUNDS` says how often, 6 times otherwise;
/// `PROFILESTORE_POWER_LOSS_SEED` at which moments.
#[tokio::test]
async fn what_was_acknowledged_survives_a_power_loss() {
    for (round, loss) in lose_power(DURABLE, rounds(6)).await.iter().enumerate() {
        for (task, (acknowledged, found)) in loss.acknowledged.iter().zip(&loss.found).enumerate() {
            // One more may have been on its way.
            assert!(
                [*acknowledged, acknowledged + 1].contains(found),
                "task {task} in round {round}: {acknowledged} acknowledged, {found} found"
            );
        }
    }
}

/// A read in the same process never shows what a loss of power could take back.
/// `PROFILESTORE_POWER_LOSS_ROUNDS` says how often, twice otherwise.
#[tokio::test]
async fn what_was_read_survives_a_power_loss() {
    for (round, loss) in lose_power(DURABLE, rounds(2)).await.iter().enumerate() {
        for (task, (read, found)) in loss.read.iter().zip(&loss.found).enumerate() {
            assert!(read <= found, "task {task} in round {round}: {read} read, {found} found");
        }
        let news = loss.read.iter().filter(|read| **read > 0).count();
        assert!(news > 0, "nothing was read in round {round}");
    }
}

/// So the tests above would notice. What is left is whole also then.
#[tokio::test]
async fn a_store_that_does_not_sync_loses_acknowledged_commits() {
    let losses = lose_power(NOT_DURABLE, 2).await;
    let lost = |loss: &Loss| loss.acknowledged.iter().zip(&loss.found).any(|(told, is)| told > is);
    assert!(losses.iter().any(lost), "nothing was lost");
}
