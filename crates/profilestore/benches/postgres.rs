//! The store on PostgreSQL beside pgbench in the same run: the same rows, payload and clients on the same server, durable.
//!
//! `scripts/servers.sh cargo bench -p profilestore --features postgres --bench postgres` (its server runs with syncing on), or with
//! PROFILESTORE_TEST_POSTGRES as the URL of a role that may make a schema. Seconds a measurement in `SECONDS` (default 3).
//!
//! *one statement* is pgbench with a bare `UPDATE` of the value under epoch and version; *same statements* is pgbench with what the
//! store sends for one save, in two pipelines as it does. *single* is the store with one commit a transaction and as many connections
//! as clients; *batched* is the store as it is by default. Client and server share the machine.

#![expect(clippy::disallowed_methods, reason = "a benchmark reads the clock of the machine that it measures")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use profilestore::{
    GameServer, ProfileKey, ProfileStore,
    data_store::{
        Cause, Change, Commit, CommitId, DataStore, DataStoreExt as _, KeyState, NewValue, PostgresOptions, PostgresStore,
        Returning,
    },
    env::Env,
    messenger::PostgresMessenger,
};
use serde::{Deserialize, Serialize};

const KEYS: usize = 1000;
const VALUE: usize = 4096;

/// pgbench's scripts; `:n` is a key, `:payload` the value.
const ONE_STATEMENT: &str = "\\set n random(1, 1000)
UPDATE head SET version = version + 1, stored_ms = stored_ms + 1, value = decode(:payload, 'hex')
 WHERE store = 'PlayerData' AND scope = 'global' AND key = 'Player_' || :n AND epoch = 0;
";
const SAME_STATEMENTS: &str = "\\set n random(1, 1000)
\\startpipeline
BEGIN;
SELECT h.* FROM unnest(ARRAY['PlayerData'], ARRAY['global'], ARRAY['Player_' || :n]) AS u (store, scope, key)
 JOIN head h ON h.store = u.store AND h.scope = u.scope AND h.key = u.key LEFT JOIN server s ON s.id = h.holder
 ORDER BY h.store, h.scope, h.key FOR UPDATE OF h;
SELECT clock_timestamp(), (SELECT value FROM meta WHERE name = 'incarnation'), o.id FROM (SELECT 1) m LEFT JOIN outcome o ON o.id = '00000000-0000-7000-8000-000000000000';
\\endpipeline
\\startpipeline
UPDATE head h SET version = h.version + 1, stored_ms = h.stored_ms + 1, cause = 'save', author = 'job', value = u.value
 FROM unnest(ARRAY['PlayerData'], ARRAY['global'], ARRAY['Player_' || :n], ARRAY[decode(:payload, 'hex')]) AS u (store, scope, key, value)
 WHERE h.store = u.store AND h.scope = u.scope AND h.key = u.key;
INSERT INTO outcome (id, at_ms, aborted) VALUES (gen_random_uuid(), 0, false);
COMMIT;
\\endpipeline
";

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Player {
    coins: i64,
    notes: String,
}

fn main() {
    let url =
        std::env::var("PROFILESTORE_TEST_POSTGRES").expect("PROFILESTORE_TEST_POSTGRES names the server: see scripts/servers.sh");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let mut args = std::env::args().skip(1);
    if let (Some("hand-over"), Some(schema)) = (args.next().as_deref(), args.next()) {
        runtime.block_on(hand_over(&options(&url, &schema)));
        return;
    }
    let seconds = std::env::var("SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3.0);
    let time = Duration::from_secs_f64(seconds);
    let folder = tempfile::tempdir().expect("a folder");
    let schema = format!("bench_{}", Env::system().uuid().simple());
    runtime.block_on(PostgresStore::migrate(&options(&url, &schema), None)).expect("tables");
    runtime.block_on(fill(&options(&url, &schema)));
    println!("saves a second, {VALUE} bytes");
    println!(
        "{:>8} {:>14} {:>16} {:>9} {:>7} {:>7} {:>9} {:>9} {:>8}",
        "clients", "one statement", "same statements", "single", "ratio", "ratio", "batched", "x single", "p99 ms"
    );
    for clients in [1, 8, 32, 256] {
        let bench = |script, time| pgbench(&url, &schema, folder.path(), script, clients.min(64), time);
        // Before and after: the machine's mood is in both.
        let (one, same) = (bench(ONE_STATEMENT, time / 2), bench(SAME_STATEMENTS, time / 2));
        let (single, _) = runtime.block_on(saves(&options(&url, &schema), clients, Some(clients.min(64)), time));
        let (batched, p99) = runtime.block_on(saves(&options(&url, &schema), clients, None, time));
        let one = f64::midpoint(one, bench(ONE_STATEMENT, time / 2));
        let same = f64::midpoint(same, bench(SAME_STATEMENTS, time / 2));
        let (to_one, to_same, times) = (single / one, single / same, batched / single);
        println!(
            "{clients:>8} {one:>14.0} {same:>16.0} {single:>9.0} {to_one:>7.2} {to_same:>7.2} {batched:>9.0} {times:>9.2} {p99:>8.2}"
        );
    }
    runtime.block_on(sessions(&options(&url, &schema), time));
    println!("hand-overs of one profile between two processes, by LISTEN/NOTIFY");
    let program = std::env::current_exe().expect("this program");
    let players: Vec<_> =
        (0..2).map(|_| Command::new(&program).args(["hand-over", &schema]).spawn().expect("this program again")).collect();
    for mut player in players {
        assert!(player.wait().expect("its end").success());
    }
}

fn options(url: &str, schema: &str) -> PostgresOptions {
    format!("{url}?schema={schema}").parse().expect("a URL")
}

fn programs() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    folders.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("pgbench").exists()).max().unwrap_or_default()
}

/// Transactions a second of a script.
fn pgbench(url: &str, schema: &str, folder: &Path, script: &str, clients: usize, time: Duration) -> f64 {
    let file = folder.join("script");
    std::fs::write(&file, script).expect("the script is written");
    let payload: String = value(1).iter().map(|byte| format!("{byte:02x}")).collect();
    let output = Command::new(programs().join("pgbench"))
        .env("PGOPTIONS", format!("-c search_path={schema} -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off"))
        .args(["-n", "-M", "prepared", "-j", "1", "-c", &clients.to_string(), "-T", &time.as_secs().max(1).to_string()])
        .args(["-D", &format!("payload={payload}"), "-f"])
        .arg(&file)
        .arg(url)
        .stderr(Stdio::inherit())
        .output()
        .expect("pgbench");
    let text = String::from_utf8_lossy(&output.stdout);
    let tps = text.lines().find_map(|line| line.strip_prefix("tps = ")).and_then(|rest| rest.split(' ').next());
    tps.and_then(|tps| tps.parse().ok()).unwrap_or_else(|| panic!("pgbench says no rate: {text}"))
}

async fn fill(options: &PostgresOptions) {
    let store = PostgresStore::open(options.clone()).await.expect("a store");
    let incarnation = store.identity().await.expect("who it is").incarnation;
    let commits = (1..=KEYS).map(|n| {
        let id = CommitId(Env::system().uuid());
        let changes = vec![save(&KeyState::absent(key(n)), Bytes::from(value(2)))];
        Commit { id, incarnation, from: None, changes, returning: Returning::HEAD }
    });
    for reply in store.commit(commits.collect()).await {
        reply.expect("written");
    }
}

/// Saves through the store: as many tasks as clients, each waiting for its save before the next. `alone`: one commit a transaction,
/// on so many connections.
async fn saves(options: &PostgresOptions, clients: usize, alone: Option<usize>, time: Duration) -> (f64, f64) {
    let mut options = options.clone();
    if let Some(connections) = alone {
        (options.batch, options.writers) = (1, connections);
    }
    let store = PostgresStore::open(options).await.expect("a store");
    let incarnation = store.identity().await.expect("who it is").incarnation;
    let keys: Vec<_> = (1..=KEYS).map(key).collect();
    let states = store.read(&keys, Returning::HEAD).await.expect("read").states;
    let payload = Bytes::from(value(3));
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..clients {
        let mut mine: Vec<_> = states.iter().skip(task).step_by(clients).cloned().collect();
        let (store, payload) = (store.clone(), payload.clone());
        tasks.spawn(async move {
            let mut times = Vec::new();
            for at in (0..mine.len()).cycle() {
                if start.elapsed() >= time {
                    break;
                }
                let (id, changes) = (CommitId(Env::system().uuid()), vec![save(&mine[at], payload.clone())]);
                let commit = Commit { id, incarnation, from: None, changes, returning: Returning::HEAD };
                let begun = Instant::now();
                mine[at] = store.commit_one(commit).await.expect("saved").states.remove(0);
                times.push(begun.elapsed());
            }
            times
        });
    }
    let mut times: Vec<Duration> = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done.expect("a task that ends"));
    }
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    (rate, at(&mut times, 0.99))
}

/// Starts and ends of sessions, and trades between two of them.
async fn sessions(options: &PostgresOptions, time: Duration) {
    const PROFILES: usize = 2000;
    let store = PostgresStore::open(options.clone()).await.expect("a store");
    let server = GameServer::builder(store).job_id("bench").start().await.expect("a game server");
    let players: ProfileStore<Player> =
        server.store_builder("Sessions").template(Player { coins: 1000, notes: "x".repeat(1000) }).build().expect("a store");
    for round in ["new profiles", "known profiles"] {
        let began = Instant::now();
        let opened = join_all((0..PROFILES).map(|n| {
            let starting = players.start_session(&format!("p{n}"));
            async move { starting.await.expect("opened") }
        }))
        .await;
        let starts = PROFILES as f64 / began.elapsed().as_secs_f64();
        if round == "known profiles" {
            let began = Instant::now();
            let (mut count, mut times) = (0_usize, Vec::new());
            while began.elapsed() < time {
                let trades = opened.chunks(2).take(64).map(|pair| {
                    let begun = Instant::now();
                    let (one, other) = (pair[0].clone(), pair[1].clone());
                    let trade = server.transaction().with(&one).with(&other).run(move |tx| {
                        tx.edit(&one, |data| data.coins -= 1)?;
                        tx.edit(&other, |data| data.coins += 1)
                    });
                    async move {
                        trade.await.expect("traded");
                        begun.elapsed()
                    }
                });
                times.extend(join_all(trades).await);
                count += 64;
            }
            println!(
                "trades between two profiles, 64 at once: {:.0} /s, p50 {:.2} ms",
                count as f64 / began.elapsed().as_secs_f64(),
                at(&mut times, 0.5)
            );
        }
        let began = Instant::now();
        join_all(opened.into_iter().map(|profile| async move { profile.end_session().await.expect("ended") })).await;
        let ends = PROFILES as f64 / began.elapsed().as_secs_f64();
        println!("sessions of {PROFILES} {round} at once: {starts:.0} starts /s, {ends:.0} ends /s");
    }
    let _ = server.shutdown().await;
}

/// One of two processes that take a profile from each other.
async fn hand_over(options: &PostgresOptions) {
    let store = PostgresStore::open(options.clone()).await.expect("a store");
    let messenger = PostgresMessenger::new(options.clone()).expect("a messenger");
    let server = GameServer::builder(store).messenger(messenger).start().await.expect("a game server");
    let players: ProfileStore<Player> = server.store_builder("HandOver").template(Player::default()).build().expect("a store");
    // Until both listen.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut times = Vec::new();
    while times.len() < 300 {
        let began = Instant::now();
        let profile = players.start_session("p").await.expect("handed over");
        times.push(began.elapsed());
        // The other one may have asked for it already.
        let _ = profile.update(|data| data.coins += 1);
        // Until the other one has taken it, or has gone.
        let held = Instant::now();
        while !profile.is_over() && held.elapsed() < Duration::from_millis(500) {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        if !profile.is_over() {
            let _ = profile.end_session().await;
        }
    }
    let count = times.len();
    println!(
        "{count} starts: p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms",
        at(&mut times, 0.5),
        at(&mut times, 0.9),
        at(&mut times, 0.99)
    );
    let _ = server.shutdown().await;
}

async fn join_all<T: Send + 'static>(work: impl Iterator<Item = impl Future<Output = T> + Send + 'static>) -> Vec<T> {
    let tasks: Vec<_> = work.map(tokio::spawn).collect();
    let mut done = Vec::with_capacity(tasks.len());
    for task in tasks {
        done.push(task.await.expect("a task that ends"));
    }
    done
}

/// So many milliseconds at most take this share of them.
fn at(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0
}

fn key(n: usize) -> ProfileKey {
    ProfileKey::new("PlayerData", "global", &format!("Player_{n}")).expect("a name")
}

fn save(state: &KeyState, payload: Bytes) -> Change {
    Change::Write {
        key: state.key.clone(),
        epoch: state.epoch,
        version: state.version,
        value: NewValue::Bytes(payload),
        user_ids: Vec::new(),
        cause: Cause::Save,
        author: "job".into(),
        keep_previous: false,
        seal: false,
        imported: None,
    }
}

/// Bytes that nothing compresses.
fn value(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as u8
    };
    (0..VALUE).map(step).collect()
}
