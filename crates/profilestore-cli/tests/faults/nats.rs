//! NATS breaks: everything stays right, and becomes at most a renewal slower.

use std::time::Duration;

use profilestore_testbed::{Link, NatsServer, Proxy, nats_cluster};

use crate::play::{Play, sleep, wait_for};

#[test]
fn a_node_of_the_nats_cluster_is_killed_and_then_the_whole_cluster() {
    let mut cluster = nats_cluster(3).unwrap();
    let hosts: Vec<String> =
        cluster.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
    let play = Play::new(3).messenger(&format!("nats://{}", hosts.join(","))).start();
    let fault = Duration::from_secs(2);
    while {
        cluster[0].process.kill();
        sleep(fault);
        for server in &mut cluster {
            server.process.kill();
        }
        sleep(fault);
        for server in &mut cluster {
            server.restart().unwrap();
        }
        sleep(fault);
        play.has_time()
    } {}
    play.ends_well();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_game_server_is_cut_off_from_nats() {
    let nats = NatsServer::start(&[]).unwrap();
    let proxy = Proxy::to_port(nats.port()).await.unwrap();
    let play = Play::new(3)
        .messenger(&nats.address())
        .on_server(0, "PROFILESTORE_MESSENGER", &format!("nats://127.0.0.1:{}", proxy.port()))
        .start();
    let fault = Duration::from_secs(2);
    while {
        for link in [Link::Cut, Link::Stalled, Link::Late(Duration::from_millis(200))] {
            proxy.set(link);
            sleep(fault);
        }
        proxy.set(Link::Open);
        play.has_time()
    } {}
    // It came back.
    wait_for(|| proxy.connections() > 1);
    play.ends_well();
}
