//! Game servers that lose their messenger: correct, and at most one renewal slower.

use std::time::Duration;

use profilestore::{GameServer, ProfileStore, Settings, data_store::MemoryStore};
use profilestore_testbed::{Link, NatsServer, Proxy};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};

use super::*;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Player {
    coins: u64,
}

/// What ends a wait without hints, other than the lease's renewal, takes far longer than the tests allow.
fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.renew_period = Duration::from_millis(1500);
    settings.first_load_repeat = Duration::from_secs(300);
    settings.load_repeat_period = Duration::from_secs(300);
    settings.session_steal = Duration::from_secs(300);
    settings
}

/// One renewal, and what a busy machine takes.
const ONE_RENEWAL: Duration = Duration::from_secs(5);

async fn start(store: &MemoryStore, messenger: Arc<NatsMessenger>) -> (GameServer, ProfileStore<Player>) {
    let messenger: Arc<dyn profilestore::messenger::Messenger> = messenger;
    let server = GameServer::builder(store.clone()).messenger(messenger).settings(settings()).start().await.unwrap();
    let players = server.store_builder("PlayerData").template(Player::default()).build().unwrap();
    (server, players)
}

/// The time it takes to hand a profile with unsaved changes from one server to the other.
async fn hand_over(from: &ProfileStore<Player>, to: &ProfileStore<Player>, key: &str) -> Duration {
    let profile = from.start_session(key).await.unwrap();
    profile.update(|data| data.coins = 7).unwrap();
    let before = Instant::now();
    let taken = timeout(ONE_RENEWAL * 2, to.start_session(key)).await.expect("a hand-over needs no messenger").unwrap();
    let took = before.elapsed();
    assert_eq!(taken.read(|data| data.coins), 7);
    taken.end_session().await.unwrap();
    took
}

#[tokio::test]
async fn a_hand_over_without_nats_takes_at_most_a_renewal_each_way() {
    let nats = NatsServer::start(&[]).unwrap();
    let store = MemoryStore::new(profilestore::env::Env::system());
    let proxy = Proxy::to_port(nats.port()).await.unwrap();
    let address = |port: u16| format!("nats://127.0.0.1:{port}").parse().unwrap();
    let (first, here) = start(&store, connect(address(proxy.port())).await).await;
    let (second, there) = start(&store, connect(address(nats.port())).await).await;
    let fast = hand_over(&here, &there, "with").await;
    assert!(fast < settings().renew_period, "hints were not used: {fast:?}");
    for (link, key) in [(Link::Cut, "cut"), (Link::BlackHole, "black hole")] {
        proxy.set(link);
        assert!(hand_over(&here, &there, key).await < ONE_RENEWAL);
        assert!(hand_over(&there, &here, key).await < ONE_RENEWAL);
    }
    proxy.set(Link::Open);
    for server in [first, second] {
        assert!(server.shutdown().await.is_complete());
    }
}

#[tokio::test]
async fn play_goes_on_while_nats_is_down_and_after() {
    let mut nats = NatsServer::start(&[]).unwrap();
    let store = MemoryStore::new(profilestore::env::Env::system());
    let options: NatsOptions = nats.address().parse().unwrap();
    let (first, here) = start(&store, connect(options.clone()).await).await;
    nats.process.kill();
    // Comes up without it.
    let messenger = connect(options.in_background()).await;
    let (second, there) = start(&store, messenger.clone()).await;
    assert!(hand_over(&here, &there, "down").await < ONE_RENEWAL);
    nats.restart().unwrap();
    timeout(Duration::from_secs(20), async {
        // Fast again, once both are connected.
        while hand_over(&here, &there, "up").await >= settings().renew_period / 3 {}
    })
    .await
    .expect("hints come back");
    for server in [first, second] {
        assert!(server.shutdown().await.is_complete());
    }
}
