//! The PostgreSQL store: the conformance suite on a real server, and what only a server can do to
//! its clients.
//!
//! The server is a throw-away one: `scripts/postgres.sh` starts it, `./test` does so by itself.
//! Each test has a schema of its own, and uses it through a role that may do what a game server
//! needs and nothing else.

use std::sync::Arc;

use profilestore::{
    data_store::{PostgresClock, PostgresOptions, PostgresStore, conformance::Subject},
    env::{Env, ManualClock},
    messenger::PostgresMessenger,
};
use tokio_postgres::{Client, Config, NoTls};

mod commits;
mod few_connections;
mod format;
mod lone;
mod lone_and_rules;
mod meetings;
mod own_saves;
mod remembered;
mod schema;
mod sessions;
mod sweep;
mod tls;

/// The suite on one store, and on two in turn, as two processes would use it.
mod conformance {
    use super::subject;

    profilestore::store_conformance!(subject);
}

mod conformance_shared {
    use super::shared_subject;

    profilestore::store_conformance!(shared_subject);
}

/// The suite of messengers, between two connections.
mod messenger_conformance {
    use super::two_messengers;

    profilestore::messenger_conformance!(two_messengers);
}

/// The role of the tests' game servers.
const ROLE: &str = "profilestore_game_server";
const PASSWORD: &str = "hush-hush";

/// The URL of the server, as its owner.
pub fn server_url() -> String {
    std::env::var("PROFILESTORE_TEST_POSTGRES").unwrap_or_else(|_| {
        panic!(
            "these tests need a PostgreSQL server: run them through ./test, or start one by `scripts/postgres.sh start DIR` and set \
             PROFILESTORE_TEST_POSTGRES to the URL that it prints"
        )
    })
}

/// The server's owner, who may look at everything.
pub async fn owner() -> Client {
    let config: Config = server_url().parse().expect("a URL");
    let (client, connection) = config.connect(NoTls).await.expect("the server answers");
    tokio::spawn(connection);
    client
}

/// A schema's URL, for its owner.
pub fn url_of(schema: &str) -> String {
    format!("{}?schema={schema}", server_url())
}

/// A name for a schema that no other test has.
pub fn new_schema() -> String {
    format!("t_{}", Env::system().uuid().simple())
}

pub fn owners(schema: &str) -> PostgresOptions {
    url_of(schema).parse().expect("a URL")
}

/// A schema's options, for a game server.
pub fn game_servers(schema: &str) -> PostgresOptions {
    let (before, host) = server_url()
        .split_once('@')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .expect("a user in the URL");
    assert!(before.starts_with("postgres://"));
    format!("postgres://{ROLE}:{PASSWORD}@{host}?schema={schema}&application_name={schema}")
        .parse()
        .expect("a URL")
}

/// Makes a store of its own for a test, and gives its schema.
pub async fn made() -> String {
    let owner = owner().await;
    // Roles belong to the whole server: another test may make it at the same time.
    let sql = format!(
        "DO $$ BEGIN CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}'; EXCEPTION WHEN \
            duplicate_object OR unique_violation THEN NULL; END $$"
    );
    owner.batch_execute(&sql).await.expect("the role is made");
    let schema = new_schema();
    assert!(
        PostgresStore::migrate(&owners(&schema), Some(ROLE)).await.expect("the tables are made")
    );
    schema
}

pub async fn opened(schema: &str) -> PostgresStore {
    PostgresStore::open(game_servers(schema)).await.expect("the store opens")
}

async fn two_messengers() -> profilestore::messenger::conformance::Subject {
    let schema = made().await;
    let [near, far] =
        [1, 2].map(|_| PostgresMessenger::new(game_servers(&schema)).expect("a runtime"));
    profilestore::messenger::conformance::Subject::new(Arc::new(near), Arc::new(far))
}

fn timed(schema: &str, clock: &ManualClock, seed: u64) -> PostgresOptions {
    let mut options = game_servers(schema);
    options.clock = PostgresClock::Env;
    options.env = clock.env(seed);
    options
}

async fn subject() -> Subject {
    let (schema, clock) = (made().await, ManualClock::default());
    let store = PostgresStore::open(timed(&schema, &clock, 1)).await.expect("the store opens");
    Subject::new(Arc::new(store), move |ms| clock.advance(ms))
}

async fn shared_subject() -> Subject {
    let (schema, clock) = (made().await, ManualClock::default());
    let a = PostgresStore::open(timed(&schema, &clock, 1)).await.expect("the store opens");
    let b = PostgresStore::open(timed(&schema, &clock, 2)).await.expect("the store opens");
    Subject::new(Arc::new(crate::in_turn::InTurn::new(a, b)), move |ms| clock.advance(ms))
}

#[tokio::test]
async fn named_users() {
    let store = opened(&made().await).await;
    crate::named_users::they_are_found_taken_out_and_erased(Arc::new(store)).await;
}
