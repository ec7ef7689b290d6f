//! Connections and servers that break: what is missed is told, and hints go on when they can.

use std::time::Duration;

use profilestore::{
    ProfileKey,
    data_store::ServerId,
    env::Env,
    messenger::{HINT_QUEUE, Hint, Messenger as _},
};
use profilestore_testbed::{Link, NatsServer, Proxy, nats_cluster};
use tokio::{sync::mpsc, time::timeout};

use super::*;

/// What a busy machine may take for anything. A connection breaks and comes back within three tries
/// of two seconds, and pauses.
const SOON: Duration = Duration::from_secs(100);

fn server() -> ServerId {
    ServerId(Env::system().uuid())
}

fn key(name: &str) -> ProfileKey {
    ProfileKey::new("s", "g", name).unwrap()
}

async fn at(port: u16) -> Arc<NatsMessenger> {
    connect(format!("nats://127.0.0.1:{port}").parse().unwrap()).await
}

async fn heard(hints: &mut mpsc::Receiver<Hint>) -> Hint {
    timeout(SOON, hints.recv()).await.expect("in time").unwrap()
}

async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, waiting).await.expect("in time");
}

/// A hint goes through, once the gap was told.
async fn gap_and_then_hints(from: &NatsMessenger, to: ServerId, hints: &mut mpsc::Receiver<Hint>) {
    assert_eq!(heard(hints).await, Hint::Gap);
    until(|| from.is_connected()).await;
    let again = async {
        // Servers of a cluster need a moment to tell each other who listens where.
        loop {
            from.hint(to, &key("again")).await;
            while let Ok(hint) = timeout(Duration::from_millis(200), hints.recv()).await {
                if hint != Some(Hint::Gap) {
                    return hint;
                }
            }
        }
    };
    assert_eq!(timeout(SOON, again).await.unwrap(), Some(Hint::Look(key("again"))));
}

#[tokio::test]
async fn a_cut_connection_is_a_gap_and_its_hints_are_dropped() {
    let nats = NatsServer::start(&[]).unwrap();
    let proxy = Proxy::to_port(nats.port()).await.unwrap();
    let (cut, other) = (at(proxy.port()).await, at(nats.port()).await);
    let (me, you) = (server(), server());
    let (mut mine, mut yours) = (cut.subscribe(me).await, other.subscribe(you).await);
    proxy.set(Link::Cut);
    until(|| !cut.is_connected()).await;
    other.hint(me, &key("missed")).await;
    // A messenger that is cut off waits for nothing, however much it has to say.
    let saying = async {
        for _ in 0..3 * HINT_QUEUE {
            cut.hint(you, &key("dropped")).await;
        }
    };
    timeout(SOON, saying).await.unwrap();
    assert_eq!(cut.dropped(), 3 * HINT_QUEUE);
    proxy.set(Link::Open);
    gap_and_then_hints(&other, me, &mut mine).await;
    cut.hint(you, &key("after")).await;
    assert_eq!(
        heard(&mut yours).await,
        Hint::Look(key("after")),
        "nothing old comes late, and the other side had no gap"
    );
}

/// A connection on which nothing comes back is given up, and nobody waits for it meanwhile.
#[tokio::test]
async fn a_black_hole_is_noticed() {
    let nats = NatsServer::start(&[]).unwrap();
    let proxy = Proxy::to_port(nats.port()).await.unwrap();
    let (lost, other) = (at(proxy.port()).await, at(nats.port()).await);
    let me = server();
    let mut hints = lost.subscribe(me).await;
    proxy.set(Link::BlackHole);
    let saying = async {
        for _ in 0..3 * HINT_QUEUE {
            lost.hint(server(), &key("x")).await;
        }
        drop(lost.subscribe(server()).await);
    };
    timeout(Duration::from_secs(5), saying).await.unwrap();
    until(|| !lost.is_connected()).await;
    proxy.set(Link::Open);
    gap_and_then_hints(&other, me, &mut hints).await;
}

/// A link that stalls for a moment loses nothing; a server that begins to listen meanwhile is told
/// of the gap.
#[tokio::test]
async fn a_stalled_link_delivers_late() {
    let nats = NatsServer::start(&[]).unwrap();
    let proxy = Proxy::to_port(nats.port()).await.unwrap();
    let (slow, other) = (at(proxy.port()).await, at(nats.port()).await);
    let (me, late) = (server(), server());
    let mut hints = slow.subscribe(me).await;
    proxy.set(Link::Stalled);
    other.hint(me, &key("a")).await;
    let mut later = slow.subscribe(late).await;
    assert!(hints.try_recv().is_err());
    proxy.set(Link::Open);
    assert_eq!(heard(&mut hints).await, Hint::Look(key("a")));
    assert_eq!(heard(&mut later).await, Hint::Gap);
}

#[tokio::test]
async fn a_killed_node_of_a_cluster_is_left_for_another() {
    let mut cluster = nats_cluster(3).unwrap();
    let all: Vec<String> =
        cluster.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
    // The first one sits on the node that dies; the address names the others for later.
    let proxies = [
        Proxy::to_port(cluster[1].port()).await.unwrap(),
        Proxy::to_port(cluster[2].port()).await.unwrap(),
    ];
    for proxy in &proxies {
        proxy.set(Link::Cut);
    }
    let address = format!(
        "nats://{},127.0.0.1:{},127.0.0.1:{}",
        all[0],
        proxies[0].port(),
        proxies[1].port()
    );
    let moves = connect(address.parse().unwrap()).await;
    for proxy in &proxies {
        proxy.set(Link::Open);
    }
    let stays = connect(format!("nats://{}", all[2]).parse().unwrap()).await;
    let me = server();
    let mut hints = moves.subscribe(me).await;
    cluster[0].process.kill();
    gap_and_then_hints(&stays, me, &mut hints).await;
    assert!(proxies.iter().any(|proxy| proxy.connections() > 0));
    // The whole cluster goes down and comes back: nobody's hints are waited for, everybody hears of
    // the gap.
    for server in &mut cluster {
        server.process.kill();
    }
    until(|| !moves.is_connected() && !stays.is_connected()).await;
    stays.hint(me, &key("dropped")).await;
    for server in &mut cluster {
        server.restart().unwrap();
    }
    gap_and_then_hints(&stays, me, &mut hints).await;
}

/// A game server comes up while NATS is down; once NATS is there, it is told that it may have
/// missed something.
#[tokio::test]
async fn a_messenger_in_the_background_connects_later() {
    let mut nats = NatsServer::start(&[]).unwrap();
    nats.process.kill();
    let options: NatsOptions = nats.address().parse().unwrap();
    let messenger = timeout(SOON, connect(options.in_background())).await.unwrap();
    let me = server();
    let mut hints = timeout(SOON, messenger.subscribe(me)).await.unwrap();
    messenger.hint(me, &key("dropped")).await;
    assert_eq!((messenger.is_connected(), messenger.dropped()), (false, 1));
    nats.restart().unwrap();
    gap_and_then_hints(&messenger, me, &mut hints).await;
}

/// What others publish on a server's subject is no hint, and harms nobody.
#[tokio::test]
async fn strange_messages_are_ignored() {
    let nats = NatsServer::start(&[]).unwrap();
    let messenger = at(nats.port()).await;
    let stranger = async_nats::connect(nats.address()).await.unwrap();
    let me = server();
    let mut hints = messenger.subscribe(me).await;
    let subject = format!("profilestore.hint.{}", me.0.simple());
    for payload in [vec![], vec![0xff; 900_000], b"s\0g".to_vec(), b"s\0g\0k\0more".to_vec()] {
        stranger.publish(subject.clone(), payload.into()).await.unwrap();
    }
    stranger.publish(subject, "s\0g\0real".into()).await.unwrap();
    assert_eq!(heard(&mut hints).await, Hint::Look(key("real")));
}

/// A subscription ends with its receiver.
#[tokio::test]
async fn a_dropped_receiver_unsubscribes() {
    let nats = NatsServer::start(&["--http_port", "-1", "--addr", "127.0.0.1", "-DV"]).unwrap();
    let messenger = at(nats.port()).await;
    let me = server();
    let hints = messenger.subscribe(me).await;
    let said =
        |word: &str| std::fs::read_to_string(nats.folder().join("log")).unwrap().contains(word);
    until(|| said(&format!("[SUB profilestore.hint.{}", me.0.simple()))).await;
    assert!(!said("[UNSUB"));
    drop(hints);
    until(|| said("[UNSUB")).await;
}
