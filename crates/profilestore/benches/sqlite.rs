//! Durable saves a second on the embedded store, beside what the same machine does without it in
//! the same run: the bare statements in the same batches, and overwriting 4 KB with fdatasync.
//!
//! `cargo bench -p profilestore --bench sqlite`; a folder on the disk that is meant as an argument,
//! otherwise the build folder. Seconds a measurement in `SECONDS` (default 3). With `KEEP=1` each
//! save keeps the version that it replaces; otherwise the history grows by a version an hour.
//!
//! The store and the bare statements save the keys in the same shuffled order, as players' saves
//! come in no order. Rows of keys that were made one after the other share pages, so a batch in the
//! order of the keys writes fewer of them; the store's committers would not stay in that order.
//! `IN_ORDER=1` does not shuffle.
//!
//! At the end, what a save leaves in the file where no history is kept: the pages in use after
//! `SAVES` saves (20,000 unless said) beyond those after a few, of the same keys.
//!
//! `PART=store`, `bare` or `writes` with `COMMITTERS` and `SAVES` runs one part for so many saves,
//! for a tool that counts instructions: the difference of two runs is free of what comes before.

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

/// How many values there are: each save of a key brings another one than the save before it.
const VALUES: usize = 16;

/// What of a save is run without the store.
#[derive(Clone, Copy, PartialEq)]
enum Bare {
    /// All that a program without memory needs: read the head, write the rest.
    Statements,
    /// Only what is written, from heads that the program keeps in memory.
    Writes,
}

/// How long a part runs: for a time, or for so many saves.
#[derive(Clone, Copy)]
enum Until {
    Time(Duration),
    Saves(u64),
}

impl Until {
    fn is_over(self, start: Instant, saves: u64) -> bool {
        match self {
            Self::Time(time) => start.elapsed() >= time,
            Self::Saves(limit) => saves >= limit,
        }
    }
}

fn main() {
    let folder = std::env::args()
        .skip(1)
        .find(|arg| !arg.starts_with('-'))
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let dir = tempfile::tempdir_in(folder).expect("a folder for the files");
    let keep = set("KEEP").is_some_and(|keep| keep > 0.0);
    if let Ok(part) = std::env::var("PART") {
        let committers = set("COMMITTERS").unwrap_or(256.0) as usize;
        let until = Until::Saves(set("SAVES").unwrap_or(20_000.0) as u64);
        let path = dir.path().join("part");
        let rate = match part.as_str() {
            "store" => store(&path, committers, until, keep).0,
            "bare" => bare(&path, committers.min(BATCH), until, keep, Bare::Statements),
            "writes" => bare(&path, committers.min(BATCH), until, keep, Bare::Writes),
            other => panic!("no such part: `{other}`"),
        };
        return println!("{rate:.0} /s");
    }
    let time = Duration::from_secs_f64(set("SECONDS").unwrap_or(3.0));
    let disk = overwrite(&dir.path().join("plain"), time);
    println!("overwrite 4 KB with fdatasync      {disk:9.0} /s");
    println!(
        "{:>10} {:>12} {:>12} {:>12} {:>8} {:>10} {:>10} {:>10}",
        "committers", "bare /s", "writes /s", "store /s", "ratio", "x disk", "p50 ms", "p99 ms"
    );
    for committers in [1, 32, 256] {
        let without = |name: &str, what| {
            let path = dir.path().join(format!("{name}{committers}"));
            bare(&path, committers.min(BATCH), Until::Time(time / 2), keep, what)
        };
        // Bare, store, bare: the machine's mood is in both.
        let first = without("bare-a", Bare::Statements);
        let path = dir.path().join(format!("store{committers}"));
        let (rate, p50, p99) = store(&path, committers, Until::Time(time), keep);
        let second = without("bare-b", Bare::Statements);
        let writes = without("writes", Bare::Writes);
        let base = f64::midpoint(first, second);
        println!(
            "{committers:>10} {base:>12.0} {writes:>12.0} {rate:>12.0} {:>8.2} {:>10.1} \
             {p50:>10.2} {p99:>10.2}",
            rate / base,
            rate / disk
        );
    }
    let saves = set("SAVES").unwrap_or(20_000.0) as u64;
    println!("bytes that a save leaves: {:.1}", left_by_a_save(dir.path(), saves));
}

/// What so many saves add to the pages in use, for each of them. A first few, which fill the pages
/// that the tables begin with, do not count.
fn left_by_a_save(folder: &Path, saves: u64) -> f64 {
    let few = 2 * KEYS as u64;
    let [before, after] = [few, few + saves].map(|saves| {
        let path = folder.join(format!("left{saves}"));
        store(&path, 32, Until::Saves(saves), false);
        bytes_in_use(&path)
    });
    (after - before) / saves as f64
}

/// The pages of a file that hold something.
fn bytes_in_use(path: &Path) -> f64 {
    let conn = Connection::open(path).expect("the file");
    let number =
        |sql: &str| conn.query_row(sql, [], |row| row.get::<_, i64>(0)).expect("a number") as f64;
    number("PRAGMA wal_checkpoint(TRUNCATE)");
    number("PRAGMA page_size") * (number("PRAGMA page_count") - number("PRAGMA freelist_count"))
}

/// A number from the environment.
fn set(name: &str) -> Option<f64> {
    std::env::var(name).ok()?.parse().ok()
}

/// In which order the keys are saved.
fn order() -> Vec<usize> {
    let mut order: Vec<_> = (0..KEYS).collect();
    if set("IN_ORDER").is_some_and(|in_order| in_order > 0.0) {
        return order;
    }
    let mut state = 1_u64;
    for last in (1..KEYS).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        order.swap(last, (state >> 33) as usize % (last + 1));
    }
    order
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

/// The store's statements for a save, on the store's own tables and with its settings, without the
/// store: values, checksums and rows are at hand already. One thread does all of it, also the
/// checkpoints, as in a program that is just SQLite.
fn bare(path: &Path, batch: usize, until: Until, keep: bool, what: Bare) -> f64 {
    let conn = bare_file(path);
    let values: Vec<_> = (0..VALUES as u64).map(value).collect();
    let env = Env::system();
    let names: Vec<_> = (1..=KEYS).map(|n| format!("Player_{n}")).collect();
    let mut heads: Vec<_> = (1..=KEYS as i64).map(|id| (id, 1, id)).collect();
    let order = order();
    let (start, mut count) = (Instant::now(), 0);
    while !until.is_over(start, count as u64) {
        conn.prepare_cached("BEGIN IMMEDIATE").and_then(|mut s| s.execute([])).expect("begun");
        for _ in 0..batch {
            let now = env.unix_ms();
            let at = order[count % KEYS];
            let (id, version, current) = match what {
                Bare::Statements => read_head(&conn, &names[at]),
                Bare::Writes => heads[at],
            };
            let value = values[(count / KEYS + 1) % VALUES].as_slice();
            // Like a checksum, it takes four bytes of the row in half of the saves, otherwise six.
            let sum = (count as u32).wrapping_mul(2_654_435_769);
            let current = if keep {
                insert_version(&conn, (id, version, current), now, (value, sum))
            } else {
                overwrite_version(&conn, (version, current), now, (value, sum))
            };
            let sql = "UPDATE head SET version = ?2, current = ?3, stored_ms = ?4, flags = ?5, \
                last_save = ?6 WHERE id = ?1";
            let save = env.uuid();
            let row = params![id, version + 1, current, now, 0, save.as_bytes().as_slice()];
            conn.prepare_cached(sql).and_then(|mut s| s.execute(row)).expect("a head");
            heads[at] = (id, version + 1, current);
            count += 1;
        }
        conn.prepare_cached("COMMIT").and_then(|mut s| s.execute([])).expect("committed");
    }
    rate(count as u64, start)
}

fn read_head(conn: &Connection, name: &str) -> (i64, i64, i64) {
    let sql = "SELECT h.id, h.epoch, h.version, h.created_ms, h.current, h.stored_ms, \
        h.flags, h.users, h.lease_revision, h.inbox_revision, h.last_message, h.waiting, \
        h.lease, h.last_save FROM head h WHERE h.store = ?1 AND h.scope = ?2 AND h.key = ?3";
    let mut read = conn.prepare_cached(sql).expect("a statement");
    read.query_row(["PlayerData", "global", name], |row| {
        Ok((row.get(0)?, row.get(2)?, row.get(4)?))
    })
    .expect("a head")
}

fn overwrite_version(
    conn: &Connection,
    head: (i64, i64),
    now: i64,
    (value, sum): (&[u8], u32),
) -> i64 {
    let (version, current) = head;
    let sql = "UPDATE version SET number = ?2, written_ms = ?3, stored_ms = ?4, load_count = ?5, \
        flags = ?6, cause = ?7, author = ?8, label = ?9, checksum = ?10, value = ?11 WHERE id = ?1";
    let label = None::<String>;
    let row = params![current, version + 1, now, now, 1, 0, "save", "job", label, sum, value];
    conn.prepare_cached(sql).and_then(|mut s| s.execute(row)).expect("a version");
    current
}

fn insert_version(
    conn: &Connection,
    head: (i64, i64, i64),
    now: i64,
    (value, sum): (&[u8], u32),
) -> i64 {
    let (id, version, current) = head;
    let sql = "INSERT INTO version (head, number, previous, previous_superseded_ms, written_ms, \
        stored_ms, load_count, flags, cause, author, label, checksum, value) VALUES (?1, ?2, ?3, \
        ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
    let label = None::<String>;
    let row =
        params![id, version + 1, current, now, now, now, 1, 0, "save", "job", label, sum, value];
    conn.prepare_cached(sql).and_then(|mut s| s.execute(row)).expect("a version");
    conn.last_insert_rowid()
}

/// A file with the store's tables and a first version of each key.
fn bare_file(path: &Path) -> Connection {
    drop(SqliteStore::open(path, SqliteOptions::default()).expect("the tables"));
    let conn = Connection::open(path).expect("the file");
    conn.set_prepared_statement_cache_capacity(64);
    for (pragma, value) in [
        ("synchronous", "FULL"),
        ("wal_autocheckpoint", "4000"),
        ("cache_size", "-65536"),
        ("secure_delete", "1"),
    ] {
        conn.pragma_update(None, pragma, value).expect("a pragma");
    }
    let value = value(0);
    let lease = serde_json::to_string(&lease(ServerId(Env::system().uuid()))).expect("a lease");
    conn.execute_batch("BEGIN IMMEDIATE").expect("begun");
    for n in 1..=KEYS {
        let sql = "INSERT INTO head (id, store, scope, key, version, current, held, lease) VALUES \
            (?1, 'PlayerData', 'global', ?2, 1, ?1, 1, ?3)";
        conn.execute(sql, params![n as i64, format!("Player_{n}"), lease]).expect("a head");
        let sql = "INSERT INTO version (id, head, number, previous, previous_superseded_ms, \
            written_ms, stored_ms, load_count, flags, cause, author, checksum, value) VALUES (?1, \
            ?1, 1, 0, 0, 0, 0, 1, 0, 'save', 'job', 0, ?2)";
        conn.execute(sql, params![n as i64, value]).expect("a version");
    }
    conn.execute_batch("COMMIT").expect("committed");
    conn
}

/// Saves through the store: as many tasks as committers, each waiting for its save before the next.
fn store(path: &Path, committers: usize, until: Until, keep: bool) -> (f64, f64, f64) {
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
        let values: Vec<_> = (0..VALUES as u64).map(|n| Bytes::from(value(n))).collect();
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
            first.push(commit(vec![change, save(&state, values[0].clone(), false)]));
        }
        let made: Vec<_> = store
            .commit(first)
            .await
            .into_iter()
            .map(|reply| reply.expect("made").states.remove(0))
            .collect();
        let states: Vec<_> = order().into_iter().map(|at| made[at].clone()).collect();
        let count = Arc::new(AtomicU64::new(0));
        let start = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for mine in (0..committers)
            .map(|task| states.iter().skip(task).step_by(committers).cloned().collect::<Vec<_>>())
        {
            let (store, count, values) = (store.clone(), count.clone(), values.clone());
            let mut mine = mine;
            tasks.spawn(async move {
                let mut times = Vec::new();
                for n in mine.len().. {
                    if until.is_over(start, count.load(Relaxed)) {
                        break;
                    }
                    let at = n % mine.len();
                    let value = values[n / mine.len() % VALUES].clone();
                    let changes = vec![save(&mine[at], value, keep)];
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

fn save(state: &KeyState, payload: Bytes, keep_previous: bool) -> Change {
    Change::Write {
        key: state.key.clone(),
        epoch: state.epoch,
        version: state.version,
        value: NewValue::Bytes(payload),
        user_ids: Vec::new(),
        cause: Cause::Save,
        author: "job".into(),
        keep_previous,
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
