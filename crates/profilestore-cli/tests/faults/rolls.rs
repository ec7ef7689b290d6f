//! Three server processes on PostgreSQL with NATS are deployed anew, one after the other, while
//! game servers with many sessions play.
//!
//! `PROFILESTORE_ROLL` says how many sessions there are.

use std::time::Duration;

use profilestore::env::Env;
use profilestore_testbed::{Crowd, CrowdPlan, NatsServer, PostgresServer};
use tokio::time::sleep;

use crate::serve::Place;

/// How many sessions a game server has.
const OF_ONE: u64 = 20;

/// How long the game servers play before the first process is replaced, and behind each.
const PLAY: Duration = Duration::from_secs(2);

/// So long that no slow machine makes a game server dead: then its sessions would rightly end.
const LEASE: Duration = Duration::from_secs(120);

/// How long opening, saving or ending all sessions may take.
const PATIENCE: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn a_deploy_of_three_server_processes_ends_no_session() {
    let sessions = std::env::var("PROFILESTORE_ROLL").ok().and_then(|count| count.parse().ok());
    let sessions: u64 = sessions.unwrap_or(60);
    let (postgres, nats) = (PostgresServer::start().unwrap(), NatsServer::start(&[]).unwrap());
    let mut place = Place::new(Some(postgres.url()), Some(nats.address()), 3);
    let crowd = Crowd::start(CrowdPlan {
        servers: place.addresses(),
        key: place.key.clone(),
        name: "roll".to_owned(),
        game_servers: sessions.div_ceil(OF_ONE).max(1),
        sessions: OF_ONE,
        lease: Some(LEASE),
        data: r#"{"coins":0}"#.into(),
        now_ms: u64::try_from(Env::system().unix_ms()).unwrap(),
        change_every: Duration::from_secs(1),
        save_within: Duration::from_secs(1),
    });
    assert!(crowd.is_open_within(PATIENCE).await, "not all sessions are open");
    crowd.play();
    sleep(PLAY).await;
    let before = crowd.longest();
    for at in 0..place.ports.len() {
        place.roll(at).await;
        sleep(PLAY).await;
    }
    let meanwhile = crowd.longest();
    assert!(crowd.is_saved_within(PATIENCE).await, "not all changes are saved");
    let report = crowd.end_within(PATIENCE).await.expect("every game server ends");
    eprintln!(
        "{} sessions, {} saves, {} resumes; longest time of a save before {:.2} s, and while three \
         processes were replaced {:.2} s; sessions ended without being asked to: {}",
        report.stored.len(),
        report.saves,
        report.resumes,
        before.as_secs_f64(),
        meanwhile.as_secs_f64(),
        report.over.len()
    );
    assert!(report.over.is_empty() && report.wrong.is_empty(), "{report:?}");
    assert!(report.resumes > 0 && report.saves > 0, "{report:?}");
    for (key, coins) in &report.stored {
        let read = place.read_of("PlayerData", key, "");
        assert_eq!(read["data"]["coins"], *coins, "{key}: {read}");
    }
}
