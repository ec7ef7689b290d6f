//! The store on PostgreSQL beside pgbench in the same run: the same rows, payload and clients on
//! the same server, durable.
//!
//! `scripts/servers.sh cargo bench -p profilestore --features postgres,nats --bench postgres [--
//! saves|sessions|messengers|bytes]` (its PostgreSQL runs with syncing on), or with
//! PROFILESTORE_TEST_POSTGRES as the URL of a role that may make a schema and
//! PROFILESTORE_TEST_NATS as that of a NATS server. Seconds a measurement in `SECONDS` (default 3).
//!
//! *one statement* is pgbench with a bare `UPDATE` of the value under epoch and version; *same
//! statements* is pgbench with what the store sends for one save, in two pipelines as it does.
//! *single* is the store with one commit a transaction and as many connections as clients;
//! *batched* is the store as it is by default. Client and server share the machine.
//!
//! *messengers* are two processes on LISTEN/NOTIFY and on NATS: hand-overs of one profile, messages
//! to a profile that the other one holds, from sending them until their handler runs, and bare
//! hints, 2,500 a second. *bytes* is what a save leaves in PostgreSQL's log and tables.

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock of the machine that it measures"
)]

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use profilestore::{
    GameServer, ProfileKey, ProfileStore,
    data_store::{
        Cause, Change, Commit, CommitId, DataStore, DataStoreExt as _, KeyState, NewValue,
        PostgresOptions, PostgresStore, Returning, ServerId,
    },
    env::Env,
    messenger::{Hint, Messenger, NatsMessenger, NatsOptions, PostgresMessenger},
};
use serde::{Deserialize, Serialize};

const KEYS: usize = 1000;
const VALUE: usize = 4096;
const MESSAGES: usize = 300;

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

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Player {
    coins: i64,
    notes: String,
}

fn main() {
    let url = std::env::var("PROFILESTORE_TEST_POSTGRES")
        .expect("PROFILESTORE_TEST_POSTGRES names the server: see scripts/servers.sh");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if let [part, schema, messenger] = &args[..] {
        runtime.block_on(play(part, &options(&url, schema), messenger));
        return;
    }
    let wanted = |what: &str| args.is_empty() || args.iter().any(|arg| arg == what);
    let seconds = std::env::var("SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3.0);
    let time = Duration::from_secs_f64(seconds);
    let folder = tempfile::tempdir().expect("a folder");
    let schema = format!("bench_{}", Env::system().uuid().simple());
    runtime.block_on(PostgresStore::migrate(&options(&url, &schema), None)).expect("tables");
    runtime.block_on(fill(&options(&url, &schema)));
    if wanted("saves") {
        compare(&runtime, &url, &schema, folder.path(), time);
    }
    if wanted("sessions") {
        runtime.block_on(sessions(&options(&url, &schema), time));
    }
    if wanted("messengers") {
        messengers(&runtime, &url, &schema);
    }
    if wanted("bytes") {
        runtime.block_on(bytes(&url, &schema));
    }
}

fn compare(
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

fn messengers(runtime: &tokio::runtime::Runtime, url: &str, schema: &str) {
    let program = std::env::current_exe().expect("this program");
    for (messenger, name) in [("notify", "LISTEN/NOTIFY"), ("nats", "NATS")] {
        println!("two processes, {name}");
        for parts in [["hand-over", "hand-over"], ["receive", "send"]] {
            let children = parts.map(|part| {
                Command::new(&program)
                    .args([part, schema, messenger])
                    .spawn()
                    .expect("this program again")
            });
            for mut child in children {
                assert!(child.wait().expect("its end").success());
            }
        }
        runtime.block_on(hints(&options(url, schema), messenger));
    }
}

async fn messenger(name: &str, options: &PostgresOptions) -> Arc<dyn Messenger> {
    if name == "notify" {
        return Arc::new(PostgresMessenger::new(options.clone()).expect("a messenger"));
    }
    let address = std::env::var("PROFILESTORE_TEST_NATS")
        .expect("PROFILESTORE_TEST_NATS names the server: see scripts/servers.sh");
    let options: NatsOptions = address.parse().expect("an address");
    Arc::new(NatsMessenger::connect(options).await.expect("a messenger"))
}

/// Bare hints from one connection to another, each about a key of its own.
async fn hints(options: &PostgresOptions, name: &str) {
    const HINTS: usize = 12_500;
    const EVERY: Duration = Duration::from_micros(400);
    let (near, far) = (messenger(name, options).await, messenger(name, options).await);
    let to = ServerId(Env::system().uuid());
    let mut heard = far.subscribe(to).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    while heard.try_recv().is_ok() {}
    let listening = tokio::spawn(async move {
        let mut at = Vec::with_capacity(HINTS);
        while let Ok(Some(hint)) = tokio::time::timeout(Duration::from_secs(3), heard.recv()).await
        {
            if let Hint::Look(key) = hint {
                at.push((key, Instant::now()));
            }
        }
        at
    });
    let mut sent = std::collections::HashMap::new();
    let began = Instant::now();
    for n in 0..HINTS {
        let due = began + EVERY * u32::try_from(n).expect("a small number");
        tokio::time::sleep_until(due.into()).await;
        sent.insert(key(n), Instant::now());
        near.hint(to, &key(n)).await;
    }
    let rate = HINTS as f64 / began.elapsed().as_secs_f64();
    let heard = listening.await.expect("a task that ends");
    let mut times: Vec<Duration> = heard.iter().map(|(key, at)| *at - sent[key]).collect();
    println!(
        "  bare hints at {rate:.0} /s: {} of {HINTS} heard, p50 {:.2} ms, p99 {:.2} ms",
        times.len(),
        at(&mut times, 0.5),
        at(&mut times, 0.99)
    );
}

/// What saves leave behind: the log, and the tables that grow.
async fn bytes(url: &str, schema: &str) {
    const SAVES: usize = 20_000;
    let config: tokio_postgres::Config = url.parse().expect("a URL");
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.expect(
        "the server \
        answers",
    );
    tokio::spawn(connection);
    let number = async |sql: &str| {
        client.query_one(sql, &[]).await.expect("an answer").get::<_, i64>(0) as f64
    };
    let size = |table: &str| format!("SELECT pg_total_relation_size('{schema}.{table}')");
    let store = PostgresStore::open(options(url, schema)).await.expect("a store");
    let incarnation = store.identity().await.expect("who it is").incarnation;
    println!(
        "bytes a save of {VALUE} bytes that do not compress, {KEYS} keys in turn, batches of 64"
    );
    for (keep, what) in [(false, "replaced"), (true, "each version kept")] {
        client.batch_execute("CHECKPOINT").await.expect("a checkpoint");
        let tables = async || [number(&size("settled")).await, number(&size("version")).await];
        let (log, before) =
            (number("SELECT (pg_current_wal_lsn() - '0/0')::bigint").await, tables().await);
        let mut states = store
            .read(&(1..=KEYS).map(key).collect::<Vec<_>>(), Returning::HEAD)
            .await
            .expect("read")
            .states;
        for _ in 0..SAVES / KEYS {
            let commits = states.iter().map(|state| {
                let mut change = save(state, Bytes::from(value(state.version)));
                if let Change::Write { keep_previous, .. } = &mut change {
                    *keep_previous = keep;
                }
                let id = CommitId(Env::system().uuid());
                Commit {
                    id,
                    incarnation,
                    from: None,
                    changes: vec![change],
                    returning: Returning::HEAD,
                    fingerprint: None,
                }
            });
            let replies = store.commit(commits.collect()).await;
            states =
                replies.into_iter().map(|reply| reply.expect("saved").states.remove(0)).collect();
        }
        let (log_after, after) =
            (number("SELECT (pg_current_wal_lsn() - '0/0')::bigint").await, tables().await);
        let each = |before: f64, after: f64| (after - before) / SAVES as f64;
        println!(
            "  {what}: log {:.0}, outcome {:.0}, history {:.0}",
            each(log, log_after),
            each(before[0], after[0]),
            each(before[1], after[1])
        );
    }
}

fn options(url: &str, schema: &str) -> PostgresOptions {
    format!("{url}?schema={schema}").parse().expect("a URL")
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

async fn fill(options: &PostgresOptions) {
    let store = PostgresStore::open(options.clone()).await.expect("a store");
    let incarnation = store.identity().await.expect("who it is").incarnation;
    let commits = (1..=KEYS).map(|n| {
        let id = CommitId(Env::system().uuid());
        let changes = vec![save(&KeyState::absent(key(n)), Bytes::from(value(2)))];
        Commit {
            id,
            incarnation,
            from: None,
            changes,
            returning: Returning::HEAD,
            fingerprint: None,
        }
    });
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
                let (id, changes) =
                    (CommitId(Env::system().uuid()), vec![save(&mine[at], payload.clone())]);
                let commit = Commit {
                    id,
                    incarnation,
                    from: None,
                    changes,
                    returning: Returning::HEAD,
                    fingerprint: None,
                };
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
    let players: ProfileStore<Player> = server
        .store_builder("Sessions")
        .template(Player { coins: 1000, notes: "x".repeat(1000) })
        .build()
        .expect("a store");
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
        join_all(
            opened
                .into_iter()
                .map(|profile| async move { profile.end_session().await.expect("ended") }),
        )
        .await;
        let ends = PROFILES as f64 / began.elapsed().as_secs_f64();
        println!(
            "sessions of {PROFILES} {round} at once: {starts:.0} starts /s, {ends:.0} ends /s"
        );
    }
    let _ = server.shutdown().await;
}

/// One of two processes.
async fn play(part: &str, options: &PostgresOptions, name: &str) {
    let store = PostgresStore::open(options.clone()).await.expect("a store");
    let server = GameServer::builder(store)
        .messenger(messenger(name, options).await)
        .start()
        .await
        .expect("a game server");
    let players: ProfileStore<Player> = server
        .store_builder(&format!("Play {name}"))
        .template(Player::default())
        .build()
        .expect("a store");
    match part {
        "hand-over" => hand_over(&players).await,
        "receive" => receive(&players).await,
        _ => send(&players).await,
    }
    let _ = server.shutdown().await;
}

/// Holds a profile, and measures how long ago each message to it was sent.
async fn receive(players: &ProfileStore<Player>) {
    let profile = players.start_session("receiver").await.expect("opened");
    let (report, mut times) = tokio::sync::mpsc::unbounded_channel();
    profile.message_handler(move |_, message| {
        let sent: u64 = message.parse().expect("a time");
        let _ = report.send(wall().saturating_sub(sent));
        message.processed();
    });
    let mut took = Vec::new();
    while took.len() < MESSAGES {
        took.push(Duration::from_nanos(times.recv().await.expect("a message")));
    }
    println!(
        "  {MESSAGES} messages: p50 {:.2} ms, p99 {:.2} ms until the handler runs",
        at(&mut took, 0.5),
        at(&mut took, 0.99)
    );
    profile.end_session().await.expect("ended");
}

async fn send(players: &ProfileStore<Player>) {
    // Until the other one holds the profile and listens.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for _ in 0..MESSAGES {
        players.send_message("receiver", &wall()).await.expect("sent");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The time that both processes see, in nanoseconds.
fn wall() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect(
        "a time \
        after 1970",
    );
    u64::try_from(since.as_nanos()).expect("a time before 2554")
}

/// One of two that take a profile from each other.
async fn hand_over(players: &ProfileStore<Player>) {
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
        "  {count} hand-overs: p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms",
        at(&mut times, 0.5),
        at(&mut times, 0.9),
        at(&mut times, 0.99)
    );
}

async fn join_all<T: Send + 'static>(
    work: impl Iterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
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
