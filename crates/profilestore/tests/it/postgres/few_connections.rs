//! A server that allows fewer connections than a store would have.

use profilestore::{
    ProfileKey,
    data_store::{
        Change, Commit, CommitId, DataStore as _, DataStoreExt as _, MessageId, NewMessage,
        PostgresOptions, PostgresStore, Returning,
    },
    env::Env,
};
use tokio::task::JoinSet;

use super::{made, owner, server_url};

/// With ten connections of eleven a game failed 585 of its calls; with fewer it never ended.
#[tokio::test]
async fn a_server_that_refuses_some_connections_is_no_outage() {
    for limit in [1, 2, 4, 6] {
        let (schema, owner) = (made().await, owner().await);
        let role = format!("few_{limit}_{}", &schema[2..20]);
        let make = format!("CREATE ROLE {role} LOGIN PASSWORD 'few' CONNECTION LIMIT {limit}");
        owner.batch_execute(&make).await.unwrap();
        PostgresStore::migrate(&super::owners(&schema), Some(&role)).await.unwrap();
        let host = server_url().split_once('@').unwrap().1.to_owned();
        let options: PostgresOptions =
            format!("postgres://{role}:few@{host}?schema={schema}").parse().unwrap();
        let store = PostgresStore::open(options).await.unwrap();
        let incarnation = store.identity().await.unwrap().incarnation;
        let mut tasks = JoinSet::new();
        for n in 0..60 {
            let store = store.clone();
            tasks.spawn(async move {
                let key = ProfileKey::new("S", "global", &format!("k{n}")).unwrap();
                for round in 0..5 {
                    let id =
                        MessageId::new(Env::system().unix_ms(), &format!("gift {round}")).unwrap();
                    let message = NewMessage { id, payload: "1".into() };
                    let changes =
                        vec![Change::AppendMessage { key: key.clone(), message, cap: 100 }];
                    let id = CommitId(Env::system().uuid());
                    let commit = Commit {
                        id,
                        incarnation,
                        from: None,
                        changes,
                        returning: Returning::HEAD,
                        fingerprint: None,
                    };
                    store.commit_one(commit).await.unwrap();
                    let (_, state) = store.read_one(&key, Returning::INBOX).await.unwrap();
                    assert_eq!(state.inbox.unwrap().len(), round + 1);
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap_or_else(|err| panic!("with {limit} connections: {err}"));
        }
    }
}

/// Nine game servers fit into the hundred connections that a server allows, of which it keeps three
/// for its owner.
#[tokio::test]
async fn nine_game_servers_fit_into_a_servers_hundred_connections() {
    let options: PostgresOptions = "postgres://u@127.0.0.1/d".parse().unwrap();
    let messenger = 1;
    assert!(9 * (options.writers + options.readers + messenger) <= 97);
}
