//! Durable saves a second on the embedded store, beside what the same machine does without it in
//! the same run: the bare statements in the same batches, and overwriting 4 KB with fdatasync.
//!
//! `cargo bench -p profilestore --bench sqlite`; a folder on the disk that is meant as an argument,
//! otherwise the build folder. Seconds a measurement in `SECONDS` (default 3).

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock of the machine that it measures"
)]

use std::{
    fs::OpenOptions,
    io::{Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use profilestore::{
    ProfileKey,
    data_store::{
        Cause, Change, Commit, CommitId, DataStore, DataStoreExt as _, Holder, KeyState,
        LeaseState, NewValue, Returning, ServerId, SqliteOptions, SqliteStore,
    },
    env::Env,
};
use rusqlite::{Connection, params};

const KEYS: usize = 1000;
const VALUE: usize = 4096;
const BATCH: usize = 256;

fn main() {
    let folder = std::env::args()
        .skip(1)
        .find(|arg| !arg.starts_with('-'))
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let dir = tempfile::tempdir_in(folder).expect("a folder for the files");
    let seconds = std::env::var("SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3.0);
    let time = Duration::from_secs_f64(seconds);
    let disk = overwrite(&dir.path().join("plain"), time);
    println!("overwrite 4 KB with fdatasync      {disk:9.0} /s");
    println!(
        "{:>10} {:>12} {:>12} {:>8} {:>10} {:>10} {:>10}",
        "committers", "bare /s", "store /s", "ratio", "x disk", "p50 ms", "p99 ms"
    );
    for committers in [1, 32, 256] {
        // Bare, store, bare: the machine's mood is in both.
        let first =
            bare(&dir.path().join(format!("bare-a{committers}")), committers.min(BATCH), time / 2);
        let (rate, p50, p99) =
            store(&dir.path().join(format!("store{committers}")), committers, time);
        let second =
            bare(&dir.path().join(format!("bare-b{committers}")), committers.min(BATCH), time / 2);
        let base = f64::midpoint(first, second);
        println!(
            "{committers:>10} {base:>12.0} {rate:>12.0} {:>8.2} {:>10.1} {p50:>10.2} {p99:>10.2}",
            rate / base,
            rate / disk
        );
    }
}

/// Overwrites one block of a file, syncing each time.
fn overwrite(path: &Path, time: Duration) -> f64 {
    let mut file =
        OpenOptions::new().create(true).truncate(true).write(true).open(path).expect("a file");
    let block = value(1);
    for _ in 0..256 {
        file.write_all(&block).expect("room for a megabyte");
    }
    file.sync_all().expect("synced");
    let (start, mut count) = (Instant::now(), 0_u64);
    while start.elapsed() < time {
        file.seek(SeekFrom::Start(count % 256 * VALUE as u64)).expect("a place within the file");
        file.write_all(&block).expect("written");
        file.sync_data().expect("synced");
        count += 1;
    }
    rate(count, start)
}

/// The store's statements for a save, on the store's own tables, without the store: values and rows
/// are at hand already.
fn bare(path: &Path, batch: usize, time: Duration) -> f64 {
    drop(SqliteStore::open(path, SqliteOptions::default()).expect("the tables"));
    let conn = Connection::open(path).expect("the file");
    conn.set_prepared_statement_cache_capacity(64);
    for (pragma, value) in
        [("synchronous", "FULL"), ("wal_autocheckpoint", "4000"), ("cache_size", "-65536")]
    {
        conn.pragma_update(None, pragma, value).expect("a pragma");
    }
    let value = value(2);
    let lease = serde_json::to_string(&lease(ServerId(Env::system().uuid()))).expect("a lease");
    conn.execute_batch("BEGIN IMMEDIATE").expect("begun");
    for n in 1..=KEYS {
        let sql = "INSERT INTO head (id, store, scope, key, version, current, held, lease) VALUES \
            (?1, 'PlayerData', 'global', ?2, 1, ?1, 1, ?3)";
        conn.execute(sql, params![n as i64, format!("Player_{n}"), lease]).expect("a head");
        let sql = "INSERT INTO version (id, head, number, previous, previous_superseded_ms, \
            written_ms, stored_ms, load_count, flags, cause, author, value) VALUES (?1, ?1, 1, 0, \
            0, 0, 0, 1, 0, 'save', 'job', ?2)";
        conn.execute(sql, params![n as i64, value]).expect("a version");
    }
    conn.execute_batch("COMMIT").expect("committed");
    let env = Env::system();
    let names: Vec<_> = (1..=KEYS).map(|n| format!("Player_{n}")).collect();
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < time {
        conn.prepare_cached("BEGIN IMMEDIATE").and_then(|mut s| s.execute([])).expect("begun");
        for _ in 0..batch {
            let now = env.unix_ms();
            let name = &names[count % KEYS];
            let sql = "SELECT h.id, h.epoch, h.version, h.created_ms, h.current, h.stored_ms, \
                h.flags, h.users, h.lease_revision, h.inbox_revision, h.last_message, h.waiting, \
                h.lease FROM head h WHERE h.store = ?1 AND h.scope = ?2 AND h.key = ?3";
            let mut read = conn.prepare_cached(sql).expect("a statement");
            let (id, version, current): (i64, i64, i64) = read
                .query_row(["PlayerData", "global", name], |row| {
                    Ok((row.get(0)?, row.get(2)?, row.get(4)?))
                })
                .expect("a head");
            let sql = "INSERT INTO settled (id, at_ms, aborted) VALUES (?1, ?2, 0) ON CONFLICT DO \
                NOTHING";
            conn.prepare_cached(sql)
                .and_then(|mut s| s.execute(params![env.uuid().as_bytes().as_slice(), now]))
                .expect("an outcome");
            let sql = "UPDATE version SET number = ?2, written_ms = ?3, stored_ms = ?4, \
                load_count = ?5, flags = ?6, cause = ?7, author = ?8, label = ?9, value = ?10 \
                WHERE id = ?1";
            let row =
                params![current, version + 1, now, now, 1, 0, "save", "job", None::<String>, value];
            conn.prepare_cached(sql).and_then(|mut s| s.execute(row)).expect("a version");
            let sql = "UPDATE head SET version = ?2, current = ?3, stored_ms = ?4, flags = ?5 \
                WHERE id = ?1";
            conn.prepare_cached(sql)
                .and_then(|mut s| s.execute([id, version + 1, current, now, 0]))
                .expect("a head");
            count += 1;
        }
        conn.prepare_cached("COMMIT").and_then(|mut s| s.execute([])).expect("committed");
    }
    rate(count as u64, start)
}

/// Saves through the store: as many tasks as committers, each waiting for its save before the next.
fn store(path: &Path, committers: usize, time: Duration) -> (f64, f64, f64) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let store = SqliteStore::open(path, SqliteOptions::default()).expect("a store");
        let incarnation = store.identity().await.expect("who it is").incarnation;
        let env = Env::system();
        let server = ServerId(env.uuid());
        let commit = |changes| Commit {
            id: CommitId(Env::system().uuid()),
            incarnation,
            from: Some(server),
            changes,
            returning: Returning::HEAD,
            fingerprint: None,
        };
        let register = Change::RegisterServer {
            id: server,
            place_id: 1,
            job_id: "job".into(),
            lease_ms: 20_000,
            host: None,
            owner: None,
        };
        store.commit_one(commit(vec![register])).await.expect("registered");
        let payload = Bytes::from(value(3));
        let keys: Vec<_> = (1..=KEYS)
            .map(|n| {
                ProfileKey::new("PlayerData", "global", &format!("Player_{n}")).expect("a name")
            })
            .collect();
        let mut first = Vec::new();
        for key in &keys {
            let state = KeyState::absent(key.clone());
            let change = Change::Lease {
                key: key.clone(),
                revision: 0,
                lease: lease(server),
                raise_epoch: false,
                seal: false,
            };
            first.push(commit(vec![change, save(&state, payload.clone())]));
        }
        let states: Vec<_> = store
            .commit(first)
            .await
            .into_iter()
            .map(|reply| reply.expect("made").states.remove(0))
            .collect();
        let count = Arc::new(AtomicU64::new(0));
        let start = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for mine in (0..committers)
            .map(|task| states.iter().skip(task).step_by(committers).cloned().collect::<Vec<_>>())
        {
            let (store, count, payload) = (store.clone(), count.clone(), payload.clone());
            let mut mine = mine;
            tasks.spawn(async move {
                let mut times = Vec::new();
                for at in (0..mine.len()).cycle() {
                    if start.elapsed() >= time {
                        break;
                    }
                    let changes = vec![save(&mine[at], payload.clone())];
                    let id = CommitId(Env::system().uuid());
                    let commit = Commit {
                        id,
                        incarnation,
                        from: Some(server),
                        changes,
                        returning: Returning::HEAD,
                        fingerprint: None,
                    };
                    let begun = Instant::now();
                    mine[at] = store.commit_one(commit).await.expect("saved").states.remove(0);
                    times.push(begun.elapsed());
                    count.fetch_add(1, Relaxed);
                }
                times
            });
        }
        let mut times: Vec<Duration> = Vec::new();
        while let Some(done) = tasks.join_next().await {
            times.extend(done.expect("a task that ends"));
        }
        let rate = rate(count.load(Relaxed), start);
        times.sort_unstable();
        let at =
            |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
        (rate, at(0.5), at(0.99))
    })
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

fn lease(server: ServerId) -> LeaseState {
    let holder = Holder {
        server: Some(server),
        place_id: 1,
        job_id: "job".into(),
        session: "0192f0c1-2345-7abc-8def-0123456789ab".into(),
        since_ms: 1_768_472_400_000,
        last_update_ms: None,
        document: None,
    };
    LeaseState { load_count: 1, holder: Some(holder), ..LeaseState::default() }
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

fn rate(count: u64, since: Instant) -> f64 {
    count as f64 / since.elapsed().as_secs_f64()
}
