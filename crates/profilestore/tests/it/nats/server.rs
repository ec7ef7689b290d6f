//! Game servers that lose their messenger: correct, and at most one renewal slower.

use std::time::Duration;

use profilestore::{GameServer, ProfileStore, Settings, data_store::MemoryStore};
use profilestore_testbed::{Link, NatsServer, Proxy};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::*;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Player {
    coins: u64,
}

/// Longer than any test may take: what happens sooner has not waited for it.
const NEVER: Duration = Duration::from_secs(1000);

/// What a busy machine may take for anything.
const SOON: Duration = Duration::from_secs(100);

/// What ends a wait without hints, other than the lease's renewal, never comes. With a renewal that
/// never comes either, only hints are left.
fn settings(renew_period: Duration) -> Settings {
    Settings {
        lease_time: NEVER * 3,
        renew_period,
        first_load_repeat: NEVER,
        load_repeat_period: NEVER,
        session_steal: NEVER,
        ..Settings::default()
    }
}

/// A server that looks at its notices often, also without hints.
async fn with_renewals(
    store: &MemoryStore,
    messenger: Arc<NatsMessenger>,
) -> (GameServer, ProfileStore<Player>) {
    start(store, messenger, Duration::from_millis(500)).await
}

/// A server to which only hints bring its notices.
async fn with_hints_alone(
    store: &MemoryStore,
    messenger: Arc<NatsMessenger>,
) -> (GameServer, ProfileStore<Player>) {
    start(store, messenger, NEVER).await
}

async fn start(
    store: &MemoryStore,
    messenger: Arc<NatsMessenger>,
    renew_period: Duration,
) -> (GameServer, ProfileStore<Player>) {
    let messenger: Arc<dyn profilestore::messenger::Messenger> = messenger;
    let server = GameServer::builder(store.clone())
        .messenger(messenger)
        .settings(settings(renew_period))
        .start()
        .await
        .unwrap();
    let players = server.store_builder("PlayerData").template(Player::default()).build().unwrap();
    (server, players)
}

/// Hands a profile with unsaved changes from one server to the other.
async fn hand_over(from: &ProfileStore<Player>, to: &ProfileStore<Player>, key: &str) {
    let profile = from.start_session(key).await.unwrap();
    profile.update(|data| data.coins = 7).unwrap();
    let taken =
        timeout(SOON, to.start_session(key)).await.expect("the holder hears of it").unwrap();
    assert_eq!(taken.read(|data| data.coins), 7);
    taken.end_session().await.unwrap();
}

async fn connected(messengers: &[&NatsMessenger]) {
    while !messengers.iter().all(|messenger| messenger.is_connected()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_hand_over_needs_hints_or_renewals_and_not_both() {
    let nats = NatsServer::start(&[]).unwrap();
    let store = MemoryStore::new(profilestore::env::Env::system());
    let proxy = Proxy::to_port(nats.port()).await.unwrap();
    let address = |port: u16| format!("nats://127.0.0.1:{port}").parse().unwrap();
    let near = with_hints_alone(&store, connect(address(nats.port())).await).await;
    let far = with_hints_alone(&store, connect(address(nats.port())).await).await;
    hand_over(&near.1, &far.1, "with").await;
    hand_over(&far.1, &near.1, "with").await;
    let (first, here) = with_renewals(&store, connect(address(proxy.port())).await).await;
    let (second, there) = with_renewals(&store, connect(address(nats.port())).await).await;
    for (link, key) in [(Link::Cut, "cut"), (Link::BlackHole, "black hole")] {
        proxy.set(link);
        hand_over(&here, &there, key).await;
        hand_over(&there, &here, key).await;
    }
    proxy.set(Link::Open);
    for server in [near.0, far.0, first, second] {
        assert!(server.shutdown().await.is_complete());
    }
}

#[tokio::test]
async fn play_goes_on_while_nats_is_down_and_after() {
    let mut nats = NatsServer::start(&[]).unwrap();
    let store = MemoryStore::new(profilestore::env::Env::system());
    let options: NatsOptions = nats.address().parse().unwrap();
    let (first, here) = with_renewals(&store, connect(options.clone()).await).await;
    let early = connect(options.clone()).await;
    let near = with_hints_alone(&store, early.clone()).await;
    nats.process.kill();
    // They come up without it.
    let (second, there) =
        with_renewals(&store, connect(options.clone().in_background()).await).await;
    let late = connect(options.in_background()).await;
    let far = with_hints_alone(&store, late.clone()).await;
    hand_over(&here, &there, "down").await;
    nats.restart().unwrap();
    // Hints are enough again.
    connected(&[&early, &late]).await;
    hand_over(&near.1, &far.1, "up").await;
    hand_over(&far.1, &near.1, "up").await;
    for server in [near.0, far.0, first, second] {
        assert!(server.shutdown().await.is_complete());
    }
}
