//! The store on PostgreSQL beside pgbench in the same run: the same rows, payload and clients on
//! the same server, durable.
//!
//! `scripts/servers.sh cargo bench -p profilestore --features postgres,nats --bench postgres [--
//! saves|sessions|messengers|bytes|processes COUNT]` (its PostgreSQL runs with syncing on), or with
//! PROFILESTORE_TEST_POSTGRES as the URL of a role that may make a schema and
//! PROFILESTORE_TEST_NATS as that of a NATS server. Seconds a measurement in `SECONDS` (default 3).
//!
//! *one statement* is pgbench with a bare `UPDATE` of the value under its epoch; *same statement*
//! is pgbench with the one statement that the store sends for a lone save by the holder. *single*
//! is the store with one commit a transaction and as many connections as clients, which makes every
//! save a lone one, and then its ratio to each of the two; *batched* is the store as it is by
//! default. Client and server share the machine. At the end, what a save leaves in the table of
//! outcomes.
//!
//! *messengers* are two processes on LISTEN/NOTIFY and on NATS: hand-overs of one profile, messages
//! to a profile that the other one holds, from sending them until their handler runs, bare hints,
//! 2,500 a second, and bare commits. *bytes* is what a save leaves in PostgreSQL's log and tables.
//! *processes* are 16 processes, or as many as are named, with a game server each on one database;
//! it is run only when it is named. For 200 of them `POSTGRES_CONNECTIONS=700` lets the server of
//! `scripts/servers.sh` have as many connections.

#![expect(
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock of the machine that it measures"
)]

mod growth;
mod messengers;
mod processes;
mod saves;
mod sessions;
mod value;

use std::time::Duration;

use profilestore::{
    data_store::{PostgresOptions, PostgresStore},
    env::Env,
};
use serde::{Deserialize, Serialize};

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
    let seconds = std::env::var("SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3.0);
    let time = Duration::from_secs_f64(seconds);
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["process", schema, number, writers, readers] => {
            let playing = processes::play(&url, schema, number, [*writers, *readers], time);
            return runtime.block_on(playing);
        }
        [part, schema, messenger] => {
            return runtime.block_on(messengers::play(part, &options(&url, schema), messenger));
        }
        _ => {}
    }
    let wanted = |what: &str| args.is_empty() || args.iter().any(|arg| arg == what);
    let folder = tempfile::tempdir().expect("a folder");
    let schema = format!("bench_{}", Env::system().uuid().simple());
    runtime.block_on(PostgresStore::migrate(&options(&url, &schema), None)).expect("tables");
    if args.first().is_some_and(|arg| arg == "processes") {
        let count = args.get(1).map_or(16, |text| text.parse().expect("a number of processes"));
        return processes::run(&runtime, &url, &schema, count, time);
    }
    runtime.block_on(saves::fill(&options(&url, &schema)));
    if wanted("saves") {
        saves::compare(&runtime, &url, &schema, folder.path(), time);
        runtime.block_on(growth::left_by_a_save(&url, &schema));
    }
    if wanted("sessions") {
        runtime.block_on(sessions::run(&options(&url, &schema), time));
    }
    if wanted("messengers") {
        messengers::run(&runtime, &url, &schema);
    }
    if wanted("bytes") {
        runtime.block_on(growth::run(&url, &schema));
    }
}

fn options(url: &str, schema: &str) -> PostgresOptions {
    format!("{url}?schema={schema}").parse().expect("a URL")
}

/// The milliseconds within which this share of the times lies.
fn at(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0
}
