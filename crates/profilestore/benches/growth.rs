//! What the size of a store costs: opening it, the start of a session, a save, a hand-over, reads
//! and pages of the listing, with more and more small profiles in one SQLite file. Beside them in
//! the same run: a bare commit, and bare `SELECT`s of the same values.
//!
//! `cargo bench -p profilestore --bench growth [-- PROFILES…]`: 10000, 100000 and 1000000 when none
//! are given; 10000000 need 3.6 GB and took three minutes (2026-11-29). The file is in the build
//! folder, or in the folder `FOLDER`.
//!
//! The times are medians. The machines that this runs on are shared and noisy: read the columns
//! beside the bare ones.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use profilestore::{
    GameServer, ProfileKey, ProfileStore,
    data_store::{
        Cause, Change, Commit, CommitId, DataStore as _, DataStoreExt as _, Incarnation, KeyFilter,
        KeyQuery, NewValue, Returning, SqliteOptions, SqliteStore,
    },
    env::Env,
    key::DEFAULT_SCOPE,
    messenger::LocalMessenger,
    record::Record,
};
use serde::{Deserialize, Serialize};
use serde_json::value::to_raw_value;

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const STORE: &str = "PlayerData";

/// How often each thing is done.
const TIMES: usize = 200;

/// How long reads are counted, and by how many tasks at once.
const READING: Duration = Duration::from_secs(2);
const READERS: usize = 64;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Player {
    coins: u64,
    name: String,
    items: Vec<u32>,
}

fn player(n: usize) -> Player {
    Player { coins: 0, name: format!("player {n}"), items: (0..16).collect() }
}

fn name(n: usize) -> String {
    format!("p{n:08}")
}

fn main() -> Outcome {
    let given: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let mut sizes = Vec::new();
    for text in &given {
        let size: usize =
            text.parse().map_err(|_| format!("not a number of profiles: `{text}`"))?;
        sizes.push(size.max(TIMES));
    }
    if sizes.is_empty() {
        sizes = vec![10_000, 100_000, 1_000_000];
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(measure(&sizes))
}

async fn measure(sizes: &[usize]) -> Outcome {
    let folder = std::env::var_os("FOLDER")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let folder = tempfile::tempdir_in(folder)?;
    let path = folder.path().join("p.db");
    println!("milliseconds, and reads a second; profiles of {} bytes", value(0)?.len());
    println!(
        "{:>9} {:>7} {:>8} {:>8} {:>8} {:>9} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9}",
        "profiles",
        "MB",
        "open",
        "start",
        "save",
        "hand-over",
        "commit",
        "get",
        "page",
        "user",
        "gets/s",
        "selects/s"
    );
    let mut stored = 0;
    for size in sizes {
        fill(&path, stored, *size).await?;
        stored = stored.max(*size);
        at_size(&path, stored).await?;
    }
    Ok(())
}

fn value(n: usize) -> Outcome<bytes::Bytes> {
    let mut record = Record::new(0, to_raw_value(&player(n))?);
    record.user_ids = users(n)?;
    Ok(record.encode()?)
}

/// Each profile has a user of its own.
fn users(n: usize) -> Outcome<Vec<i64>> {
    Ok(vec![i64::try_from(n + 1)?])
}

fn commit(
    incarnation: Incarnation,
    key: ProfileKey,
    version: u64,
    value: bytes::Bytes,
    user_ids: Vec<i64>,
) -> Commit {
    let write = Change::Write {
        key,
        epoch: 0,
        version,
        value: NewValue::Bytes(value),
        user_ids,
        cause: Cause::Set,
        author: "bench".into(),
        keep_previous: false,
        seal: false,
        imported: None,
    };
    Commit {
        id: CommitId(Env::system().uuid()),
        incarnation,
        from: None,
        changes: vec![write],
        returning: Returning::HEAD,
        fingerprint: None,
    }
}

/// Stores the profiles from one number to the other, and says how long that took. Several tasks do
/// so, batch after batch, so that the store has the next one at hand.
async fn fill(path: &Path, from: usize, to: usize) -> Outcome {
    const FILLERS: usize = 4;
    if from >= to {
        return Ok(());
    }
    let began = Instant::now();
    let store = SqliteStore::open(path, SqliteOptions::default())?;
    let incarnation = store.identity().await?.incarnation;
    let next = Arc::new(AtomicUsize::new(from));
    let mut fillers = tokio::task::JoinSet::new();
    for _ in 0..FILLERS {
        fillers.spawn(fill_batches(store.clone(), incarnation, next.clone(), to));
    }
    while let Some(done) = fillers.join_next().await {
        done??;
    }
    println!("stored up to {to} profiles in {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// Stores batches of profiles from the next number on that no task has taken yet.
async fn fill_batches(
    store: SqliteStore,
    incarnation: Incarnation,
    next: Arc<AtomicUsize>,
    to: usize,
) -> Outcome {
    const BATCH: usize = 1000;
    loop {
        let first = next.fetch_add(BATCH, Relaxed);
        if first >= to {
            return Ok(());
        }
        let mut commits = Vec::with_capacity(BATCH);
        for n in first..to.min(first + BATCH) {
            let key = ProfileKey::new(STORE, DEFAULT_SCOPE, &name(n))?;
            commits.push(commit(incarnation, key, 0, value(n)?, users(n)?));
        }
        for reply in store.commit(commits).await {
            reply?;
        }
    }
}

/// The median, in milliseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

/// Measures all of it on a file with so many profiles, and prints a row.
async fn at_size(path: &Path, stored: usize) -> Outcome {
    let mut opened = Vec::new();
    for _ in 0..5 {
        let began = Instant::now();
        drop(SqliteStore::open(path, SqliteOptions::default())?);
        opened.push(began.elapsed());
    }
    let file = SqliteStore::open(path, SqliteOptions::default())?;
    let messenger = LocalMessenger::new();
    let mut servers = Vec::new();
    for job in ["a", "b"] {
        let server = GameServer::builder(file.clone())
            .messenger(messenger.clone())
            .job_id(job)
            .start()
            .await?;
        servers.push((server.store_builder(STORE).template(Player::default()).build()?, server));
    }
    let (here, there) = (&servers[0].0, &servers[1].0);
    // Far from each other in the file, so that few of them share a page.
    let names: Vec<String> = (0..TIMES).map(|n| name(n * (stored / TIMES))).collect();

    let (mut start, mut save, mut hand_over) = (Vec::new(), Vec::new(), Vec::new());
    let mut profiles = Vec::new();
    for name in &names {
        let began = Instant::now();
        profiles.push(here.start_session(name).await?);
        start.push(began.elapsed());
    }
    for profile in &profiles {
        let began = Instant::now();
        profile.update(|data| data.coins += 1)?;
        profile.save().await?;
        save.push(began.elapsed());
        profile.update(|data| data.coins += 1)?;
    }
    for name in &names {
        let began = Instant::now();
        profiles.push(there.start_session(name).await?);
        hand_over.push(began.elapsed());
    }
    let [get, page, user] = looks(&file, here, stored).await?;
    let commit = commits(&file, stored).await?;
    let gets = reads(here, stored).await?;
    for (_, server) in &servers {
        let _ = server.shutdown().await;
    }
    drop(profiles);
    let selects = selects(path, stored)?;
    println!(
        "{stored:>9} {:>7.0} {:>8.3} {:>8.3} {:>8.3} {:>9.3} {commit:>8.3} {get:>8.3} {page:>8.3} \
         {user:>8.3} {gets:>9.0} {selects:>9.0}",
        fs::metadata(path)?.len() as f64 / 1e6,
        median(opened),
        median(start),
        median(save),
        median(hand_over)
    );
    Ok(())
}

/// One read, a page of 100 keys, and the profiles of one user.
async fn looks(
    file: &SqliteStore,
    players: &ProfileStore<Player>,
    stored: usize,
) -> Outcome<[f64; 3]> {
    let query = |filter, after| KeyQuery {
        store: Some(STORE.into()),
        scope: None,
        filter,
        after,
        limit: 100,
    };
    let (mut get, mut page, mut user) = (Vec::new(), Vec::new(), Vec::new());
    for n in (0..TIMES).map(|n| n * (stored / TIMES)) {
        let began = Instant::now();
        let read = players.get(&name(n)).await?;
        get.push(began.elapsed());
        assert!(read.is_some(), "a profile is gone");
        let after = ProfileKey::new(STORE, DEFAULT_SCOPE, &name(n))?;
        let began = Instant::now();
        file.profiles(&query(KeyFilter::All, Some(after))).await?;
        page.push(began.elapsed());
        let began = Instant::now();
        let found = file.profiles(&query(KeyFilter::User(i64::try_from(n + 1)?), None)).await?;
        user.push(began.elapsed());
        if found.0.is_empty() {
            return Err("a user has no profile".into());
        }
    }
    Ok([median(get), median(page), median(user)])
}

/// Bare commits of one small value after the other, on a key of their own for each size.
async fn commits(file: &SqliteStore, stored: usize) -> Outcome<f64> {
    let incarnation = file.identity().await?.incarnation;
    let key = ProfileKey::new("Bare", DEFAULT_SCOPE, &name(stored))?;
    let mut took = Vec::new();
    for version in 0..TIMES as u64 {
        let value = bytes::Bytes::from_static(&[1, 0]);
        let commit = commit(incarnation, key.clone(), version, value, Vec::new());
        let began = Instant::now();
        file.commit_one(commit).await?;
        took.push(began.elapsed());
    }
    Ok(median(took))
}

/// The keys that one reader of several goes through.
fn read_by(reader: usize, count: usize, stored: usize) -> usize {
    (reader + count * READERS).wrapping_mul(7919) % stored
}

/// Reads a second, of many tasks at once.
async fn reads(players: &ProfileStore<Player>, stored: usize) -> Outcome<f64> {
    let until = Instant::now() + READING;
    let tasks: Vec<_> = (0..READERS)
        .map(|reader| {
            let players = players.clone();
            tokio::spawn(async move {
                let mut count = 0_usize;
                while Instant::now() < until {
                    let read = players.get(&name(read_by(reader, count, stored))).await?;
                    assert!(read.is_some(), "a profile is gone");
                    count += 1;
                }
                Ok::<_, profilestore::Error>(count)
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await??;
    }
    Ok(count as f64 / READING.as_secs_f64())
}

/// The same values, read by SQLite alone, on one thread.
fn selects(path: &Path, stored: usize) -> Outcome<f64> {
    let conn = rusqlite::Connection::open(path)?;
    let sql = "SELECT h.id, h.epoch, h.version, h.lease, v.value FROM head h JOIN version v ON \
        v.id = h.current WHERE h.store = ?1 AND h.scope = ?2 AND h.key = ?3";
    let mut select = conn.prepare(sql)?;
    let (began, mut count) = (Instant::now(), 0_usize);
    while began.elapsed() < READING {
        let key = name(read_by(count % READERS, count / READERS, stored));
        let value = select.query_row([STORE, DEFAULT_SCOPE, key.as_str()], |row| row.get(4));
        std::hint::black_box::<Vec<u8>>(value?);
        count += 1;
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}
