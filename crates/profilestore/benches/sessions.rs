//! What a game feels, beside a bare baseline in the same run: saves, hand-over, CPU a save, memory
//! a session.
//!
//! `cargo bench -p profilestore --bench sessions [-- saves|handover|cpu|memory]`
//!
//! The machines that this runs on are shared and noisy: the ratios count, not the rates.
#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::FileExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use profilestore::{
    GameServer, ProfileKey,
    data_store::{
        Cause, Change, Commit, CommitId, DataStore, DataStoreExt, MemoryStore, NewValue, Returning,
        SqliteStore,
    },
    env::Env,
    messenger::LocalMessenger,
    record::Record,
};
#[path = "common/mod.rs"]
mod common;

use common::{Outcome, Player, open_all, percentiles, player, resident_bytes, server_on};

fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if let [child, file] = args.as_slice()
        && child == "child"
    {
        return runtime.block_on(other_process(Path::new(file)));
    }
    let wanted = |what: &str| args.is_empty() || args.iter().any(|arg| arg == what);
    println!("a player's data is {} bytes of JSON", serde_json::to_vec(&player())?.len());
    if wanted("saves") {
        runtime.block_on(saves())?;
    }
    if wanted("handover") {
        runtime.block_on(hand_over_in_process())?;
        runtime.block_on(hand_over_between_processes())?;
    }
    if wanted("cpu") {
        // One thread, so that its CPU time is the library's.
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(cpu_per_save())?;
    }
    if wanted("memory") {
        runtime.block_on(memory_per_session())?;
    }
    Ok(())
}

/// How often a second 4 KB can be overwritten and synced: what durability costs on this disk.
fn sync_rate(folder: &Path) -> Outcome<f64> {
    let file = fs::File::create(folder.join("sync"))?;
    let block = vec![7u8; 4096];
    file.write_all_at(&block, 0)?;
    file.sync_all()?;
    let began = Instant::now();
    let mut count = 0u32;
    while began.elapsed() < Duration::from_secs(2) {
        file.write_all_at(&block, 0)?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

async fn saves() -> Outcome {
    let folder = tempfile::tempdir()?;
    let sync = sync_rate(folder.path())?;
    println!(
        "\ndurable saves of changed 4 KB profiles on SQLite, history on (overwriting 4 KB \
        with fdatasync: {sync:.0}/s)"
    );
    println!(
        "{:>10} {:>10} {:>10} {:>10} {:>16}",
        "sessions", "saves/s", "p50 ms", "p99 ms", "x fdatasync rate"
    );
    for sessions in [1, 32, 256] {
        let file =
            SqliteStore::open(folder.path().join(format!("{sessions}.db")), Default::default())?;
        let (server, players) = server_on(&file, "bench", player()).await?;
        let until = Instant::now() + Duration::from_secs(5);
        let tasks: Vec<_> = (0..sessions)
            .map(|i| {
                let players = players.clone();
                tokio::spawn(async move {
                    let profile = players.start_session(&format!("p{i}")).await?;
                    let mut took = Vec::new();
                    while Instant::now() < until {
                        let began = Instant::now();
                        profile.update(|data| data.coins += 1)?;
                        profile.save().await?;
                        took.push(began.elapsed());
                    }
                    Ok::<_, profilestore::Error>(took)
                })
            })
            .collect();
        let mut took = Vec::new();
        for task in tasks {
            took.extend(task.await??);
        }
        let rate = took.len() as f64 / 5.0;
        let (p50, p99) = percentiles(&mut took);
        println!("{sessions:>10} {rate:>10.0} {p50:>10.2} {p99:>10.2} {:>16.2}", rate / sync);
        let _ = server.shutdown().await;
    }
    Ok(())
}

async fn hand_over_in_process() -> Outcome {
    let folder = tempfile::tempdir()?;
    let file = SqliteStore::open(folder.path().join("p.db"), Default::default())?;
    let messenger = LocalMessenger::new();
    let mut stores = Vec::new();
    for job in ["a", "b"] {
        let server = GameServer::builder(file.clone())
            .messenger(messenger.clone())
            .job_id(job)
            .start()
            .await?;
        stores.push((server.store_builder("PlayerData").template(player()).build()?, server));
    }
    let mut took = Vec::new();
    let first = stores[1].0.start_session("p").await?;
    first.update(|data| data.coins += 1)?;
    for round in 0..500 {
        let began = Instant::now();
        let profile = stores[round % 2].0.start_session("p").await?;
        took.push(began.elapsed());
        profile.update(|data| data.coins += 1)?;
        // A hand-over of a profile that has just been handed over is a case of its own; this is the
        // usual one.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // What it must cost: three durable commits, one after the other.
    let commit = bare_commits(&file, 300).await?;
    let (p50, p99) = percentiles(&mut took);
    println!(
        "\nhand-over from a live holder that has unsaved changes (one bare commit of the \
        same store: p50 {commit:.2} ms)"
    );
    println!(
        "  in one process:        p50 {p50:.2} ms, p99 {p99:.2} ms, {:.1} bare commits",
        p50 / commit
    );
    for (_, server) in &stores {
        let _ = server.shutdown().await;
    }
    Ok(())
}

/// The median time of a commit that changes a small thing, in milliseconds.
async fn bare_commits(store: &dyn DataStore, count: u32) -> Outcome<f64> {
    let env = Env::system();
    let incarnation = store.identity().await?.incarnation;
    let key = ProfileKey::new("PlayerData", "global", "bare")?;
    let mut took = Vec::new();
    for version in 0..u64::from(count) {
        let began = Instant::now();
        let write = write_of(&key, 0, version, vec![1, 0].into());
        store
            .commit_one(Commit {
                id: CommitId(env.uuid()),
                incarnation,
                from: None,
                changes: vec![write],
                returning: Returning::HEAD,
                fingerprint: None,
            })
            .await?;
        took.push(began.elapsed());
    }
    Ok(percentiles(&mut took).0)
}

fn write_of(key: &ProfileKey, epoch: u64, version: u64, value: bytes::Bytes) -> Change {
    Change::Write {
        key: key.clone(),
        epoch,
        version,
        value: NewValue::Bytes(value),
        user_ids: Vec::new(),
        cause: Cause::Save,
        author: "bench".into(),
        keep_previous: false,
        seal: false,
        imported: None,
    }
}

/// The other end of [`hand_over_between_processes`]: takes the profile whenever it is told to, and
/// says how long that took.
async fn other_process(path: &Path) -> Outcome {
    let file = SqliteStore::open(path, Default::default())?;
    let (server, players) = server_on(&file, "b", player()).await?;
    for line in std::io::stdin().lines() {
        line?;
        let began = Instant::now();
        let profile = players.start_session("p").await?;
        println!("{}", began.elapsed().as_micros());
        profile.update(|data| data.coins += 1)?;
    }
    let _ = server.shutdown().await;
    Ok(())
}

async fn hand_over_between_processes() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("p.db");
    let file = SqliteStore::open(&path, Default::default())?;
    let (server, players) = server_on(&file, "a", player()).await?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["child", path.to_str().ok_or("a path that is no UTF-8")?])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut orders = child.stdin.take().ok_or("no pipe")?;
    let mut answers = BufReader::new(child.stdout.take().ok_or("no pipe")?).lines();
    let mut took = Vec::new();
    for _ in 0..150 {
        let began = Instant::now();
        let profile = players.start_session("p").await?;
        took.push(began.elapsed());
        profile.update(|data| data.coins += 1)?;
        writeln!(orders, "take")?;
        // The child's answer is waited for on a thread of its own, since this server must go on
        // meanwhile.
        let (answer, rest) = tokio::task::spawn_blocking(move || (answers.next(), answers)).await?;
        answers = rest;
        took.push(Duration::from_micros(answer.ok_or("the child is gone")??.parse()?));
    }
    drop(orders);
    let (p50, p99) = percentiles(&mut took[1..]);
    println!("  between two processes: p50 {p50:.2} ms, p99 {p99:.2} ms");
    let _ = server.shutdown().await;
    child.wait()?;
    Ok(())
}

/// CPU time of this thread so far.
fn thread_cpu() -> Outcome<Duration> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = text.split_whitespace().next().ok_or("an empty schedstat")?.parse()?;
    Ok(Duration::from_nanos(nanos))
}

async fn cpu_per_save() -> Outcome {
    const ROUNDS: u32 = 20_000;
    let per_round = |spent: Duration| spent.as_secs_f64() * 1e6 / f64::from(ROUNDS);
    let env = Env::system();
    let store = MemoryStore::new(env.clone());
    let server = GameServer::builder(store.clone()).start().await?;
    let players = server.store_builder("PlayerData").template(player()).build()?;
    let profile = players.start_session("p").await?;
    let began = thread_cpu()?;
    for _ in 0..ROUNDS {
        profile.update(|data| data.coins += 1)?;
        profile.save().await?;
    }
    let whole = per_round(thread_cpu()? - began);

    // What is not the library's own: the store itself, and compressing (with the copy into the
    // record that is compressed).
    let record = Record::new(0, serde_json::value::to_raw_value(&player())?);
    let encoded = record.encode()?;
    let began = thread_cpu()?;
    for _ in 0..ROUNDS {
        std::hint::black_box(std::hint::black_box(&record).encode()?);
    }
    let compression = per_round(thread_cpu()? - began);
    let incarnation = store.identity().await?.incarnation;
    let key = ProfileKey::new("PlayerData", "global", "bare")?;
    let began = thread_cpu()?;
    for version in 0..u64::from(ROUNDS) {
        let write = write_of(&key, 0, version, encoded.clone());
        let commit = Commit {
            id: CommitId(env.uuid()),
            incarnation,
            from: None,
            changes: vec![write],
            returning: Returning::HEAD,
            fingerprint: None,
        };
        std::hint::black_box(store.commit_one(commit).await?);
    }
    let bare_store = per_round(thread_cpu()? - began);
    let data = player();
    let began = thread_cpu()?;
    for _ in 0..ROUNDS {
        std::hint::black_box(serde_json::to_vec(std::hint::black_box(&data))?);
    }
    let serialising = per_round(thread_cpu()? - began);
    println!("\nCPU a save of a changed 4 KB profile, on one thread");
    println!("  edit and save through the library, store in memory: {whole:.1} us");
    println!(
        "  of it compression {compression:.1} us, the store {bare_store:.1} us; the library \
            itself {:.1} us",
        whole - compression - bare_store
    );
    println!("  (of that, serialising the data: {serialising:.1} us)");
    let _ = server.shutdown().await;
    Ok(())
}

async fn memory_per_session() -> Outcome {
    const SESSIONS: usize = 20_000;
    let folder = tempfile::tempdir()?;
    let file = SqliteStore::open(folder.path().join("p.db"), Default::default())?;
    let (server, players) = server_on(&file, "bench", player()).await?;
    // So many that pools and buffers are there and SQLite's page cache, which is bounded, is full.
    // They stay open.
    let warm = open_all(&players, "warm", 2 * SESSIONS).await?;
    let before = resident_bytes()?;
    let copies: Vec<Player> = (0..SESSIONS).map(|_| player()).collect();
    let data = (resident_bytes()? - before) / SESSIONS as f64;
    let before = resident_bytes()?;
    let profiles = open_all(&players, "p", SESSIONS).await?;
    let session = (resident_bytes()? - before) / SESSIONS as f64;
    println!(
        "\nmemory of {SESSIONS} idle sessions: {session:.0} bytes each, of which the data itself \
            (the bare structs) {data:.0}: {:.0} beyond it",
        session - data
    );
    drop((copies, profiles, warm));
    let _ = server.shutdown().await;
    Ok(())
}
