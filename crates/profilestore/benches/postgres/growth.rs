//! What saves leave behind: the log, and the tables that grow.

use bytes::Bytes;
use profilestore::data_store::{Change, DataStore as _, PostgresStore, Returning};

use crate::{
    options,
    value::{KEYS, VALUE, commit, key, save, value},
};

const SAVES: usize = 20_000;

/// What a save leaves in the table of outcomes. A save without history replaces what the other
/// tables have.
pub(super) async fn left_by_a_save(url: &str, schema: &str) {
    let client = connect(url).await;
    let sql = size_of(schema, "settled");
    let size =
        async || client.query_one(&sql, &[]).await.expect("an answer").get::<_, i64>(0) as f64;
    let store = PostgresStore::open(options(url, schema)).await.expect("a store");
    let before = size().await;
    for _ in 0..SAVES / KEYS {
        save_all(&store, false).await;
    }
    let left = (size().await - before) / SAVES as f64;
    println!("bytes that a save leaves in `settled`: {left:.1}");
}

pub(super) async fn connect(url: &str) -> tokio_postgres::Client {
    let config: tokio_postgres::Config = url.parse().expect("a URL");
    let (client, connection) =
        config.connect(tokio_postgres::NoTls).await.expect("the server answers");
    tokio::spawn(connection);
    client
}

fn size_of(schema: &str, table: &str) -> String {
    format!("SELECT pg_total_relation_size('{schema}.{table}')")
}

/// Saves each key once.
async fn save_all(store: &PostgresStore, keep: bool) {
    let incarnation = store.identity().await.expect("who it is").incarnation;
    let keys: Vec<_> = (1..=KEYS).map(key).collect();
    let states = store.read(&keys, Returning::HEAD).await.expect("read").states;
    let commits = states.iter().map(|state| {
        let mut change = save(state, Bytes::from(value(state.version)));
        if let Change::Write { keep_previous, .. } = &mut change {
            *keep_previous = keep;
        }
        commit(incarnation, change)
    });
    for reply in store.commit(commits.collect()).await {
        reply.expect("saved");
    }
}

pub(super) async fn run(url: &str, schema: &str) {
    let client = connect(url).await;
    let number = async |sql: &str| {
        client.query_one(sql, &[]).await.expect("an answer").get::<_, i64>(0) as f64
    };
    let store = PostgresStore::open(options(url, schema)).await.expect("a store");
    println!(
        "bytes a save of {VALUE} bytes that do not compress, {KEYS} keys in turn, batches of 64"
    );
    for (keep, what) in [(false, "replaced"), (true, "each version kept")] {
        client.batch_execute("CHECKPOINT").await.expect("a checkpoint");
        let tables = async || {
            [number(&size_of(schema, "settled")).await, number(&size_of(schema, "version")).await]
        };
        let (log, before) =
            (number("SELECT (pg_current_wal_lsn() - '0/0')::bigint").await, tables().await);
        for _ in 0..SAVES / KEYS {
            save_all(&store, keep).await;
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
