//! Saves through the store beside pgbench with the same rows, payload and clients.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use profilestore::data_store::{
    DataStore as _, DataStoreExt as _, KeyState, PostgresOptions, PostgresStore, Returning,
};

use crate::{
    at, options,
    value::{KEYS, VALUE, commit, key, save, value},
};

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
SELECT clock_timestamp(), (SELECT value FROM meta WHERE name = 'incarnation'), o.id FROM (SELECT 1) m LEFT JOIN settled o ON o.id = '00000000-0000-7000-8000-000000000000';
\\endpipeline
\\startpipeline
UPDATE head h SET version = h.version + 1, stored_ms = h.stored_ms + 1, cause = 'save', author = 'job', value = u.value
 FROM unnest(ARRAY['PlayerData'], ARRAY['global'], ARRAY['Player_' || :n], ARRAY[decode(:payload, 'hex')]) AS u (store, scope, key, value)
 WHERE h.store = u.store AND h.scope = u.scope AND h.key = u.key;
INSERT INTO settled (id, at_ms, aborted) VALUES (gen_random_uuid(), 0, false);
COMMIT;
\\endpipeline
";

pub(super) fn compare(
    runtime: &tokio::runtime::Runtime,
    url: &str,
    schema: &str,
    folder: &Path,
    time: Duration,
) {
    println!("saves a second, {VALUE} bytes");
    println!(
        "{:>8} {:>14} {:>16} {:>9} {:>7} {:>7} {:>9} {:>9} {:>8}",
        "clients",
        "one statement",
        "same statements",
        "single",
        "ratio",
        "ratio",
        "batched",
        "x single",
        "p99 ms"
    );
    for clients in [1, 8, 32, 256] {
        let bench = |script, time| pgbench(url, schema, folder, script, clients.min(64), time);
        // Before and after: the machine's mood is in both.
        let (one, same) = (bench(ONE_STATEMENT, time / 2), bench(SAME_STATEMENTS, time / 2));
        let (single, _) =
            runtime.block_on(saves(&options(url, schema), clients, Some(clients.min(64)), time));
        let (batched, p99) = runtime.block_on(saves(&options(url, schema), clients, None, time));
        let one = f64::midpoint(one, bench(ONE_STATEMENT, time / 2));
        let same = f64::midpoint(same, bench(SAME_STATEMENTS, time / 2));
        let (to_one, to_same, times) = (single / one, single / same, batched / single);
        println!(
            "{clients:>8} {one:>14.0} {same:>16.0} {single:>9.0} {to_one:>7.2} {to_same:>7.2} \
                {batched:>9.0} {times:>9.2} {p99:>8.2}"
        );
    }
}

fn programs() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    folders
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("pgbench").exists())
        .max()
        .unwrap_or_default()
}

/// Transactions a second of a script.
fn pgbench(
    url: &str,
    schema: &str,
    folder: &Path,
    script: &str,
    clients: usize,
    time: Duration,
) -> f64 {
    let file = folder.join("script");
    std::fs::write(&file, script).expect("the script is written");
    let payload: String = value(1).iter().map(|byte| format!("{byte:02x}")).collect();
    let output = Command::new(programs().join("pgbench"))
        .env(
            "PGOPTIONS",
            format!(
                "-c search_path={schema} -c enable_seqscan=off -c \
            enable_hashjoin=off -c enable_mergejoin=off"
            ),
        )
        .args([
            "-n",
            "-M",
            "prepared",
            "-j",
            "1",
            "-c",
            &clients.to_string(),
            "-T",
            &time.as_secs().max(1).to_string(),
        ])
        .args(["-D", &format!("payload={payload}"), "-f"])
        .arg(&file)
        .arg(url)
        .stderr(Stdio::inherit())
        .output()
        .expect("pgbench");
    let text = String::from_utf8_lossy(&output.stdout);
    let tps = text
        .lines()
        .find_map(|line| line.strip_prefix("tps = "))
        .and_then(|rest| rest.split(' ').next());
    tps.and_then(|tps| tps.parse().ok()).unwrap_or_else(|| panic!("pgbench says no rate: {text}"))
}

/// Writes every key once.
pub(super) async fn fill(options: &PostgresOptions) {
    let store = PostgresStore::open(options.clone()).await.expect("a store");
    let incarnation = store.identity().await.expect("who it is").incarnation;
    let commits = (1..=KEYS)
        .map(|n| commit(incarnation, save(&KeyState::absent(key(n)), Bytes::from(value(2)))));
    for reply in store.commit(commits.collect()).await {
        reply.expect("written");
    }
}

/// Saves through the store: as many tasks as clients, each waiting for its save before the next.
/// `alone`: one commit a transaction, on so many connections.
async fn saves(
    options: &PostgresOptions,
    clients: usize,
    alone: Option<usize>,
    time: Duration,
) -> (f64, f64) {
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
                let commit = commit(incarnation, save(&mine[at], payload.clone()));
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
