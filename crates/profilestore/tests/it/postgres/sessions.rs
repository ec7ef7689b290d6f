//! Sessions on PostgreSQL: game servers with stores and messengers of their own, as in processes of
//! their own.

use std::time::Duration;

use profilestore::{
    GameServer, Settings,
    data_store::ServerId,
    env::Env,
    messenger::{Hint, Messenger as _, NoMessenger, PostgresMessenger},
};
use tokio::time::timeout;

use super::{game_servers, made, opened, owner};
use crate::world::{coins, earn, open, players};

/// What a busy machine may take for anything.
const SOON: Duration = Duration::from_secs(100);

fn hasty(lease_time: Duration) -> Settings {
    Settings { lease_time, renew_period: Duration::from_millis(400), ..Settings::default() }
}

/// Nothing but a hint ends a wait within [`SOON`].
fn by_hints_alone() -> Settings {
    let never = SOON * 10;
    let mut settings = hasty(never * 3);
    settings.renew_period = never;
    settings.first_load_repeat = never;
    settings.load_repeat_period = never;
    settings.session_steal = never;
    settings
}

async fn server(schema: &str, job: &str) -> GameServer {
    let messenger = PostgresMessenger::new(game_servers(schema)).unwrap();
    let builder = GameServer::builder(opened(schema).await)
        .job_id(job)
        .settings(hasty(Duration::from_secs(4)));
    builder.messenger(messenger).start().await.unwrap()
}

/// Both connections listen, and what one says the other hears.
async fn hear_each_other(one: &PostgresMessenger, other: &PostgresMessenger) {
    let key = profilestore::ProfileKey::new("S", "global", "k").unwrap();
    for (from, to) in [(one, other), (other, one)] {
        let server = ServerId(Env::system().uuid());
        let mut hints = to.subscribe(server).await;
        loop {
            from.hint(server, &key).await;
            if let Ok(Some(Hint::Look(_))) = timeout(Duration::from_millis(100), hints.recv()).await
            {
                break;
            }
        }
    }
}

/// A profile goes from server to server with all that was done to it, and no renewal or poll is
/// waited for.
#[tokio::test]
async fn a_profile_is_handed_over_by_notify() {
    let schema = made().await;
    let messengers = [1, 2].map(|_| PostgresMessenger::new(game_servers(&schema)).unwrap());
    let mut servers = Vec::new();
    for messenger in &messengers {
        let builder = GameServer::builder(opened(&schema).await).settings(by_hints_alone());
        servers.push(builder.messenger(messenger.clone()).start().await.unwrap());
    }
    hear_each_other(&messengers[0], &messengers[1]).await;
    let mut profile = open(&servers[0], "p").await;
    for round in 1..=10 {
        earn(&profile, 1);
        profile = timeout(SOON, open(&servers[round % 2], "p")).await.expect("handed over");
        assert_eq!(profile.data().coins, i64::try_from(round).unwrap());
    }
    for server in servers {
        assert!(server.shutdown().await.not_saved.is_empty());
    }
}

/// Messages reach the holder on another server.
#[tokio::test]
async fn a_message_arrives_while_the_profile_is_held_elsewhere() {
    let schema = made().await;
    let (a, b) = (server(&schema, "a").await, server(&schema, "b").await);
    let profile = open(&a, "p").await;
    profile.message_handler(|data, message| {
        data.coins += 5;
        message.processed();
    });
    players(&b).send_message("p", &serde_json::json!({ "gift": 5 })).await.unwrap();
    let arrived = async {
        while profile.data().coins != 5 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, arrived).await.expect("the message arrives");
    profile.end_session().await.unwrap();
    assert_eq!(coins(&b, "p").await, 5);
}

/// What a server saved before it died is what the next one begins with, soon after the lease time.
#[tokio::test]
async fn the_profiles_of_a_dead_server_are_taken_over() {
    let schema = made().await;
    let profile_of_dead = {
        // On a runtime of its own, which dies at once with all its tasks.
        let schema = schema.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            let profile = runtime.block_on(async {
                let a = server(&schema, "a").await;
                let profile = open(&a, "p").await;
                earn(&profile, 3);
                profile.save().await.unwrap();
                earn(&profile, 100);
                std::mem::forget(a);
                profile
            });
            runtime.shutdown_background();
            profile
        })
        .join()
        .unwrap()
    };
    let b = server(&schema, "b").await;
    let taken = timeout(SOON, open(&b, "p")).await.expect("taken over");
    assert_eq!(taken.data().coins, 3);
    drop(profile_of_dead);
    taken.end_session().await.unwrap();
}

/// An outage of the database ends no session: what was done meanwhile is saved after it.
#[tokio::test]
async fn sessions_outlive_lost_connections() {
    let schema = made().await;
    let builder = GameServer::builder(opened(&schema).await).job_id("a").settings(hasty(SOON));
    let a = builder.messenger(NoMessenger).start().await.unwrap();
    let profile = open(&a, "p").await;
    let owner = owner().await;
    for _ in 0..20 {
        earn(&profile, 1);
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name \
            = $1";
        let name: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&schema];
        let (saved, closed) = tokio::join!(profile.save(), owner.query(sql, &name));
        closed.unwrap();
        saved.unwrap();
    }
    assert!(profile.is_active());
    profile.end_session().await.unwrap();
    assert_eq!(coins(&a, "p").await, 20);
}

/// A lost connection is made anew, and its listeners hear that hints may be missing.
#[tokio::test]
async fn a_lost_connection_is_a_gap() {
    let schema = made().await;
    let [near, far] = [1, 2].map(|_| PostgresMessenger::new(game_servers(&schema)).unwrap());
    let server = ServerId(Env::system().uuid());
    let mut hints = near.subscribe(server).await;
    assert_eq!(
        timeout(SOON, hints.recv()).await.unwrap(),
        Some(Hint::Gap),
        "nobody listened before"
    );
    let key = profilestore::ProfileKey::new("S\n", "global", "k").unwrap();
    far.hint(server, &key).await;
    assert_eq!(timeout(SOON, hints.recv()).await.unwrap(), Some(Hint::Look(key.clone())));
    let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1";
    assert_eq!(owner().await.query(sql, &[&schema]).await.unwrap().len(), 2);
    assert_eq!(timeout(SOON, hints.recv()).await.unwrap(), Some(Hint::Gap));
    // The far end connects again in its own time.
    let heard = async {
        loop {
            far.hint(server, &key).await;
            if let Ok(hint) = timeout(Duration::from_millis(100), hints.recv()).await {
                return hint;
            }
        }
    };
    assert_eq!(timeout(SOON, heard).await.unwrap(), Some(Hint::Look(key)));
}
