//! Game servers hang, or are updated under load.

use std::{fs, path::PathBuf};

use profilestore_testbed::{PostgresServer, Signal, send};

use crate::play::{LEASE, Play, sleep};

/// A server stands still for longer than the lease time: its players get in elsewhere, and when it
/// goes on it harms nobody.
#[test]
fn a_game_server_stands_still_for_longer_than_the_lease_time() {
    one_stands_still(Play::new(3));
}

/// The same on PostgreSQL, whose rows a paused process must not keep locked.
#[test]
fn a_game_server_on_postgres_stands_still_for_longer_than_the_lease_time() {
    let postgres = PostgresServer::start().unwrap();
    one_stands_still(Play::new(3).store(&postgres.url()));
}

fn one_stands_still(play: Play) {
    let play = play.arg("--may-lose").start();
    let fault = LEASE * 2;
    while {
        let server = play.server(0);
        send(server, Signal::STOP);
        sleep(fault);
        send(server, Signal::CONT);
        sleep(LEASE);
        play.has_time()
    } {}
    // Who plays there waits until it goes on; the lease time only concerns who wants to go
    // elsewhere.
    play.ends_well();
}

/// All servers are shut down and started again one after the other, while everybody plays.
#[test]
fn all_game_servers_are_restarted_one_after_the_other() {
    all_are_restarted(Play::new(3));
}

/// The same on PostgreSQL.
#[test]
fn all_game_servers_on_postgres_are_restarted_one_after_the_other() {
    let postgres = PostgresServer::start().unwrap();
    all_are_restarted(Play::new(3).store(&postgres.url()));
}

fn all_are_restarted(play: Play) {
    let play = play.arg("--roll").start();
    let report = play.ends_well();
    assert!(report["figures"]["restarts"].as_u64().unwrap() >= 3, "{report:#}");
}

/// What moves a process's wall clock and leaves its monotonic one alone.
fn libfaketime() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").into_iter().flatten().filter_map(|entry| entry.ok());
    let mut found = folders
        .map(|folder| folder.path().join("faketime/libfaketime.so.1"))
        .filter(|path| path.exists());
    found.next().expect("libfaketime is not installed (on Debian: apt-get install libfaketime)")
}

/// The wall clock of one game server is moved by an hour, forth and back, while everybody plays.
#[test]
fn a_game_servers_clock_is_moved() {
    let postgres = PostgresServer::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let time = folder.path().join("time");
    fs::write(&time, "+0").unwrap();
    let play = Play::new(3)
        .store(&postgres.url())
        .on_server(0, "LD_PRELOAD", &libfaketime().display().to_string())
        .on_server(0, "FAKETIME_TIMESTAMP_FILE", &time.display().to_string())
        .on_server(0, "FAKETIME_NO_CACHE", "1")
        .on_server(0, "FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .start();
    while {
        for moved in ["+3600", "-3600", "+0"] {
            fs::write(&time, moved).unwrap();
            sleep(LEASE);
        }
        play.has_time()
    } {}
    play.ends_well();
}
