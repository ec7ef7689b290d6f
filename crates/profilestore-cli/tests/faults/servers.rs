//! Game servers hang, or are updated under load.

use profilestore_testbed::{Signal, send};
use std::time::Duration;

use crate::play::{LEASE, Play, sleep};

/// A server stands still for longer than the lease time: its players get in elsewhere, and when it goes on it harms nobody.
#[test]
fn a_game_server_stands_still_for_longer_than_the_lease_time() {
    let play = Play::new(3, 14).start();
    let fault = LEASE * 2;
    while {
        let server = play.server(0);
        send(server, Signal::STOP);
        sleep(fault);
        send(server, Signal::CONT);
        sleep(LEASE);
        play.has_time(fault)
    } {}
    // Who plays there waits until it goes on; the lease time only concerns who wants to go elsewhere.
    play.ends_well(fault);
}

/// All servers are shut down and started again one after the other, while everybody plays.
#[test]
fn all_game_servers_are_restarted_one_after_the_other() {
    let play = Play::new(3, 12).arg("--roll").start();
    let report = play.ends_well(Duration::ZERO);
    assert!(report["figures"]["restarts"].as_u64().unwrap() >= 3, "{report:#}");
}
