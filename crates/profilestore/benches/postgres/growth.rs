//! What saves leave behind: the log, and the tables that grow.

use bytes::Bytes;
use profilestore::data_store::{Change, DataStore as _, PostgresStore, Returning};

use crate::{
    options,
    value::{KEYS, VALUE, commit, key, save, value},
};

pub(super) async fn run(url: &str, schema: &str) {
    const SAVES: usize = 20_000;
    let config: tokio_postgres::Config = url.parse().expect("a URL");
    let (client, connection) =
        config.connect(tokio_postgres::NoTls).await.expect("the server answers");
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
                commit(incarnation, change)
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
