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
    value::{KEYS, VALUE, commit, held, key, registered, save, value},
};

/// pgbench's scripts; `:n` is a key, `:payload` the value.
const ONE_STATEMENT: &str = "\\set n random(1, 1000)
UPDATE head SET version = version + 1, stored_ms = stored_ms + 1, value = decode(:payload, 'hex')
 WHERE store = 'PlayerData' AND scope = 'global' AND key = 'Player_' || :n AND epoch = 0;
";
/// What the store sends for a lone save by the holder, as all of these are.
const SAME_STATEMENT: &str = "\\set n random(1, 1000)
UPDATE head h SET version = h.version + 1, flags = 0, written_ms = h.stored_ms, stored_ms = h.stored_ms,
 load_count = 1, cause = 'save', author = 'job', label = NULL, checksum = 1, value = decode(:payload, 'hex'),
 last_save = '0192f0c1-2345-7abc-8def-0123456789ac' FROM server s
 WHERE s.id = '00000000-0000-7000-8000-000000000007' AND h.holder = '00000000-0000-7000-8000-000000000007'
 AND h.store = 'PlayerData' AND h.scope = 'global' AND h.key = 'Player_' || :n
 AND h.epoch = (SELECT 0::bigint FROM meta m WHERE m.name = 'incarnation' AND m.value <> '') AND h.version > 0
 AND h.users = '' AND (h.waiting = 0 OR COALESCE(h.inbox_revision = 0, true)) AND starts_with(h.lease, '{')
 AND clock_timestamp() BETWEEN '2020-01-01' AND '2200-01-01' AND h.stored_ms <= 9999999999999
 AND h.flags = 0 AND h.stored_ms >= 0
 RETURNING h.created_ms, h.lease_revision, h.inbox_revision, h.last_message, h.waiting, h.lease, clock_timestamp(),
 s.id, s.place_id, s.job_id, s.revision, s.lease_ms, s.started_ms, s.renewed_ms, s.dead_ms, s.host, s.generation, s.owner;
";

/// How many rows one statement of [`ONE_BATCH`] writes.
const TOGETHER: usize = 64;

/// What two clients send, each for rows of its own.
const ONE_BATCH: &str = "\\set from (:client_id * 7 + random(0, 6)) * 64
UPDATE head SET version = version + 1, stored_ms = stored_ms + 1, value = decode(:payload, 'hex')
 WHERE store = 'PlayerData' AND scope = 'global' AND epoch = 0
 AND key = ANY(ARRAY(SELECT 'Player_' || n FROM generate_series(:from + 1, :from + 64) n));
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
        "same statement",
        "single",
        "ratio",
        "ratio",
        "batched",
        "x single",
        "p99 ms"
    );
    let bare_batches = || TOGETHER as f64 * pgbench(url, schema, folder, ONE_BATCH, 2, time / 2);
    let before = bare_batches();
    for clients in [1, 8, 32, 256] {
        let bench = |script, time| pgbench(url, schema, folder, script, clients.min(64), time);
        // Before and after: the machine's mood is in both.
        let (one, same) = (bench(ONE_STATEMENT, time / 2), bench(SAME_STATEMENT, time / 2));
        let (single, _) =
            runtime.block_on(saves(&options(url, schema), clients, Some(clients.min(64)), time));
        let (batched, p99) = runtime.block_on(saves(&options(url, schema), clients, None, time));
        let one = f64::midpoint(one, bench(ONE_STATEMENT, time / 2));
        let same = f64::midpoint(same, bench(SAME_STATEMENT, time / 2));
        let (to_one, to_same, times) = (single / one, single / same, batched / single);
        println!(
            "{clients:>8} {one:>14.0} {same:>16.0} {single:>9.0} {to_one:>7.2} {to_same:>7.2} \
                {batched:>9.0} {times:>9.2} {p99:>8.2}"
        );
    }
    let rows = f64::midpoint(before, bare_batches());
    println!("bare UPDATEs of {TOGETHER} rows at a time: {rows:.0} rows a second (2 clients)");
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
            enable_hashjoin=off -c enable_mergejoin=off -c plan_cache_mode=force_generic_plan"
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

/// Writes every key once, under the server that holds it.
pub(super) async fn fill(options: &PostgresOptions) {
    let store = PostgresStore::open(options.clone()).await.expect("a store");
    let incarnation = store.identity().await.expect("who it is").incarnation;
    let commits = (1..=KEYS).map(|n| {
        let state = KeyState::absent(key(n));
        let mut made = commit(incarnation, save(&state, Bytes::from(value(2))));
        made.changes.push(held(&state));
        made
    });
    let commits = std::iter::once(commit(incarnation, registered())).chain(commits);
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
    let mut states = store.read(&keys, Returning::HEAD).await.expect("read").states;
    let payload = Bytes::from(value(3));
    // Each key once before: a session has seen its profile by starting.
    let first = states.iter().map(|state| commit(incarnation, save(state, payload.clone())));
    let first = store.commit(first.collect()).await;
    for (state, reply) in states.iter_mut().zip(first) {
        *state = reply.expect("saved").states.remove(0);
    }
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
