//! PostgreSQL breaks, or the way to it: nothing that was acknowledged is lost, and everybody is
//! served again.

use std::{fs, time::Duration};

use profilestore_testbed::{Link, PatroniCluster, PostgresServer, Proxy};

use crate::play::{LEASE, Play, sleep, wait_for};

fn server() -> PostgresServer {
    PostgresServer::start().unwrap()
}

/// Killed with all its processes, in the middle of whatever is being committed, and started again.
#[test]
fn postgres_is_killed_in_mid_commit_and_restarted() {
    let mut postgres = server();
    let play = Play::new(3).store(&postgres.url()).start();
    while {
        for _ in 0..2 {
            postgres.process.kill();
            postgres.restart().unwrap();
            sleep(LEASE);
        }
        play.has_time()
    } {}
    play.ends_well();
}

/// All its processes are stopped for longer than the lease time: an outage of the store alone ends
/// no session.
#[test]
fn postgres_stands_still_for_longer_than_the_lease_time() {
    let postgres = server();
    let play = Play::new(3).store(&postgres.url()).start();
    let fault = LEASE * 2;
    while {
        postgres.process.pause();
        sleep(fault);
        postgres.process.resume();
        sleep(LEASE);
        play.has_time()
    } {}
    play.ends_well();
}

/// All game servers' connections break, stall and are slow. One that is slow to connect again may
/// be without its lease for longer than another, so sessions may be lost; nothing else may be.
#[tokio::test(flavor = "multi_thread")]
async fn connections_to_postgres_are_cut_stalled_and_answered_late() {
    let postgres = server();
    let proxy = Proxy::to_port(postgres.port()).await.unwrap();
    let play = Play::new(3).store(&postgres.url_through(proxy.port())).arg("--may-lose").start();
    let fault = LEASE + Duration::from_secs(1);
    while {
        for link in [Link::Cut, Link::Stalled, Link::Late(Duration::from_millis(150))] {
            proxy.set(link);
            sleep(fault);
            proxy.set(Link::Open);
            sleep(Duration::from_secs(1));
        }
        play.has_time()
    } {}
    play.ends_well();
}

/// Commits are made, and the connection breaks instead of carrying the answer: the caller
/// finds out by asking again. Renewals meet that too, so a slow machine may lose sessions.
#[tokio::test(flavor = "multi_thread")]
async fn answers_to_commits_are_lost() {
    let postgres = server();
    let proxy = Proxy::to_port(postgres.port()).await.unwrap();
    let play = Play::new(3).store(&postgres.url_through(proxy.port())).arg("--may-lose").start();
    while {
        for round in 0..6 {
            // Lone saves are no transactions of several statements.
            let losing = [Link::losing_commit_answers(), Link::losing_lone_answers()];
            proxy.set(losing[round % 2].clone());
            sleep(Duration::from_millis(300));
            proxy.set(Link::Open);
            sleep(Duration::from_millis(700));
        }
        play.has_time() || proxy.lost_answers() <= 5
    } {}
    eprintln!("{} answers lost", proxy.lost_answers());
    play.ends_well();
}

/// The disk is full for longer than the lease time. PostgreSQL itself may die of it, and is started
/// again when there is room.
#[test]
fn the_disk_of_postgres_is_full() {
    let mut postgres = PostgresServer::on_small_disk(220).unwrap();
    let play = Play::new(3).store(&postgres.url()).start();
    let (ballast, fault) = (postgres.folder().join("ballast"), LEASE * 2);
    while {
        // Until nothing more fits.
        let error = fs::write(&ballast, vec![1; 220 << 20]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
        sleep(fault);
        wait_for(|| postgres.log().contains("No space left on device"));
        fs::remove_file(&ballast).unwrap();
        postgres.restart().unwrap();
        sleep(LEASE);
        play.has_time()
    } {}
    play.ends_well();
}

/// One of three game servers cannot reach PostgreSQL for longer than the lease time; the others
/// take over those who come to them.
#[tokio::test(flavor = "multi_thread")]
async fn a_game_server_is_cut_off_from_postgres() {
    let postgres = server();
    let proxy = Proxy::to_port(postgres.port()).await.unwrap();
    let own_way = postgres.url_through(proxy.port());
    let play = Play::new(3)
        .store(&postgres.url())
        .arg("--may-lose")
        .on_server(0, "PROFILESTORE_STORE", &own_way)
        .start();
    let fault = LEASE * 2;
    while {
        for link in [Link::Cut, Link::BlackHole] {
            proxy.set(link);
            sleep(fault);
            // What was in the black hole never recovers.
            proxy.set(Link::Cut);
            sleep(Duration::from_millis(100));
            proxy.set(Link::Open);
            sleep(LEASE);
        }
        play.has_time()
    } {}
    wait_for(|| proxy.connections() > 3);
    play.ends_well();
}

/// The primary dies under load, its synchronous standby is promoted, and the game servers follow by
/// themselves.
#[test]
fn the_primary_dies_and_its_standby_takes_over() {
    let mut primary = server();
    let standby = primary.synchronous_standby().unwrap();
    let both = format!(
        "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres",
        primary.port(),
        standby.port()
    );
    let play = Play::new(3).store(&format!("{both}?target_session_attrs=read-write")).start();
    primary.process.kill();
    standby.promote().unwrap();
    play.ends_well();
}

/// The same, and Patroni decides who is the primary, once it has waited long enough for the old
/// one's word (20 s and more).
#[test]
#[ignore = "needs patroni and etcd (on Debian: apt-get install patroni etcd-server), which the \
    gate does not install"]
fn the_primary_dies_and_patroni_promotes_its_standby() {
    let mut cluster = PatroniCluster::start(2).unwrap();
    let play = Play::new(3).store(&cluster.url()).start();
    sleep(LEASE);
    let primary = cluster.primary().unwrap();
    cluster.fail_over_from(primary).unwrap();
    play.ends_well();
}
