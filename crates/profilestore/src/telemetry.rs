//! Every metric that the library reports, in one place. `docs/metrics.md` says the same, and when
//! to alert; a test compares the two with what the code reports.

use metrics::Unit;

enum Kind {
    Counter,
    Gauge,
    Histogram,
}

use Kind::{Counter, Gauge, Histogram};

/// Kind, name, unit, meaning.
const METRICS: &[(Kind, &str, Unit, &str)] = &[
    (
        Gauge,
        "profilestore_sessions",
        Unit::Count,
        "profiles that this server has open or is opening",
    ),
    (Counter, "profilestore_sessions_started_total", Unit::Count, "sessions that started"),
    (Histogram, "profilestore_start_seconds", Unit::Seconds, "how long a successful start took"),
    (
        Counter,
        "profilestore_starts_failed_total",
        Unit::Count,
        "starts that failed, by kind of error",
    ),
    (
        Counter,
        "profilestore_takes_total",
        Unit::Count,
        "profiles taken: free, offered (hand-over), own, dead, stolen",
    ),
    (
        Counter,
        "profilestore_hand_overs_total",
        Unit::Count,
        "profiles that this server handed over",
    ),
    (
        Histogram,
        "profilestore_hand_over_seconds",
        Unit::Seconds,
        "how long a start waited for the server that it asked to let go",
    ),
    (
        Counter,
        "profilestore_sessions_ended_total",
        Unit::Count,
        "sessions that ended with a last save",
    ),
    (
        Counter,
        "profilestore_sessions_adopted_total",
        Unit::Count,
        "sessions that went on when their game server, in another process, changed its host",
    ),
    (
        Counter,
        "profilestore_lost_sessions_total",
        Unit::Count,
        "sessions that were lost; unsaved changes are gone; without those that operators ended",
    ),
    (
        Counter,
        "profilestore_server_deaths_total",
        Unit::Count,
        "times that this server was declared dead, or met a restored backup",
    ),
    (Counter, "profilestore_saves_total", Unit::Count, "saves: written, or unchanged"),
    (Histogram, "profilestore_save_seconds", Unit::Seconds, "how long a save took, with retries"),
    (
        Histogram,
        "profilestore_save_lateness_seconds",
        Unit::Seconds,
        "how late a save that was due began",
    ),
    (
        Gauge,
        "profilestore_saves_waiting",
        Unit::Count,
        "saves that wait for room at their sessions",
    ),
    (
        Gauge,
        "profilestore_save_bytes_under_way",
        Unit::Bytes,
        "memory of the copies on their way to the store, 64 MiB a game server at most",
    ),
    (
        Gauge,
        "profilestore_queued_operations",
        Unit::Count,
        "operations that wait or run, over all profiles",
    ),
    (
        Counter,
        "profilestore_nearly_full_total",
        Unit::Count,
        "saves that found data above 80 % of 4 MiB",
    ),
    (
        Counter,
        "profilestore_ends_refused_total",
        Unit::Count,
        "sessions that go on because their last save was refused",
    ),
    (
        Counter,
        "profilestore_transactions_total",
        Unit::Count,
        "done, refused by the program, failed",
    ),
    (Histogram, "profilestore_transaction_seconds", Unit::Seconds, "how long a transaction took"),
    (Counter, "profilestore_messages_sent_total", Unit::Count, "messages and gifts stored"),
    (
        Counter,
        "profilestore_messages_processed_total",
        Unit::Count,
        "messages that a handler processed",
    ),
    (
        Counter,
        "profilestore_inbox_full_total",
        Unit::Count,
        "messages refused because the inbox was full",
    ),
    (
        Counter,
        "profilestore_edits_applied_total",
        Unit::Count,
        "operators' edits that this server applied",
    ),
    (Counter, "profilestore_erased_profiles_total", Unit::Count, "profiles that were erased"),
    (
        Counter,
        "profilestore_dead_servers_found_total",
        Unit::Count,
        "other servers that the sweep found dead",
    ),
    (
        Counter,
        "profilestore_swept_versions_total",
        Unit::Count,
        "versions deleted after their retention",
    ),
    (Counter, "profilestore_store_errors_total", Unit::Count, "calls of the store that failed"),
    (Counter, "profilestore_store_retries_total", Unit::Count, "commits that were tried again"),
    (Gauge, "profilestore_critical_state", Unit::Count, "1 after 5 errors within 120 s"),
    (Gauge, "profilestore_sqlite_queue_jobs", Unit::Count, "calls that wait for the writer"),
    (Histogram, "profilestore_sqlite_batch_commits", Unit::Count, "commits in one transaction"),
    (Histogram, "profilestore_sqlite_commit_seconds", Unit::Seconds, "from the call to the answer"),
    (
        Counter,
        "profilestore_sqlite_lock_waits_total",
        Unit::Count,
        "attempts that waited for another process's lock",
    ),
    (
        Counter,
        "profilestore_sqlite_busy_total",
        Unit::Count,
        "calls that gave up waiting for the lock",
    ),
    (
        Counter,
        "profilestore_sqlite_sync_failures_total",
        Unit::Count,
        "syncs of the write-ahead log or of the file that failed",
    ),
    (
        Gauge,
        "profilestore_postgres_queue_commits",
        Unit::Count,
        "commits that wait for a connection",
    ),
    (Histogram, "profilestore_postgres_batch_commits", Unit::Count, "commits in one transaction"),
    (
        Histogram,
        "profilestore_postgres_commit_seconds",
        Unit::Seconds,
        "from the call to the answer",
    ),
    (
        Counter,
        "profilestore_postgres_retries_total",
        Unit::Count,
        "transactions that met another one and were tried again",
    ),
    (
        Counter,
        "profilestore_postgres_unknown_total",
        Unit::Count,
        "transactions whose outcome was not known; each is settled later",
    ),
    (
        Gauge,
        "profilestore_postgres_connections_missing",
        Unit::Count,
        "connections that the server refuses to have, because there are too many",
    ),
    (
        Counter,
        "profilestore_postgres_connect_failures_total",
        Unit::Count,
        "connections that could not be made",
    ),
    (
        Counter,
        "profilestore_hints_dropped_total",
        Unit::Count,
        "hints that were not sent: no connection, or too many",
    ),
    (
        Counter,
        "profilestore_hints_not_understood_total",
        Unit::Count,
        "messages on NATS that are no hints of this version",
    ),
];

/// Labels and their values, of the counters that have one. Kinds of errors are those to wake for.
const LABELS: &[(&str, &str, &[&str])] = &[
    ("profilestore_starts_failed_total", "kind", &["TimedOut", "Undecodable", "NewerData"]),
    ("profilestore_takes_total", "how", &["free", "offered", "own", "dead", "stolen"]),
    ("profilestore_saves_total", "kind", &["written", "unchanged"]),
    ("profilestore_transactions_total", "outcome", &["done", "refused by the program", "failed"]),
];

/// Tells the recorder of the [`metrics`] crate what each of the library's metrics means, and its
/// unit: Prometheus shows that as `# HELP`. Counters and gauges are there from then on, at 0, so
/// that the first event counts as growth. Call it once, after the recorder was installed. The
/// metrics are reported without it too.
pub fn describe_metrics() {
    for (kind, name, unit, meaning) in METRICS {
        let (name, unit, meaning) = (*name, *unit, *meaning);
        match kind {
            Counter => {
                metrics::describe_counter!(name, unit, meaning);
                begin_at_zero(name);
            }
            Gauge => {
                metrics::describe_gauge!(name, unit, meaning);
                metrics::gauge!(name).increment(0.0);
            }
            Histogram => metrics::describe_histogram!(name, unit, meaning),
        }
    }
}

fn begin_at_zero(name: &'static str) {
    match LABELS.iter().find(|(labelled, ..)| *labelled == name) {
        None => metrics::counter!(name).increment(0),
        Some((_, label, values)) => {
            for value in *values {
                metrics::counter!(name, *label => *value).increment(0);
            }
        }
    }
}
