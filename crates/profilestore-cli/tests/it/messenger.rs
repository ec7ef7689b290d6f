//! `--messenger`: hints over NATS, and what is said when there is none.

use profilestore_testbed::{NatsServer, free_port};

use super::*;

#[test]
fn the_demonstration_plays_over_nats() {
    let nats = NatsServer::start(&["--user", "game", "--pass", "hush", "-D", "-V"]).unwrap();
    let address = format!("nats://game:hush@127.0.0.1:{}", nats.port());
    let place = Place::new();
    let args = [
        "demo",
        "--servers",
        "2",
        "--players",
        "20",
        "--seconds",
        "4",
        "--complete",
        "--kill",
        "--lease-seconds",
        "2",
        "--json",
    ];
    let ran =
        Ran::from(place.command(&args).env("PROFILESTORE_MESSENGER", address).output().unwrap());
    assert_eq!(ran.code, 0, "{ran:?}");
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["audit"]["passed"], true);
    assert!(report["figures"]["hand_overs"]["count"].as_u64().unwrap() > 0);
    let log = fs::read_to_string(nats.folder().join("log")).unwrap();
    assert!(log.matches("[SUB profilestore.hint.").count() >= 3, "each server subscribes: {log}");
    assert!(log.contains("[PUB profilestore.hint."), "hints are sent");
    assert!(!format!("{ran:?}").contains("hush"));
}

#[test]
fn a_wrong_messenger_is_explained_without_its_secrets() {
    let place = Place::with_records();
    for (address, code) in [
        ("amqp://me:hush@localhost", 2),
        ("nats://me:hush@", 2),
        ("nats://me:hush@localhost?tsl=off", 2),
        ("nats://localhost?creds=/nonexistent.creds", 2),
    ] {
        for args in [&["send", "PlayerData/7", "1"][..], &["demo", "--seconds", "1"]] {
            let ran = place.run(&[args, &["--messenger", address]].concat());
            assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
            assert!(ran.code == code || args[0] == "demo" && ran.code == 1, "{ran:?}");
            assert!(!ran.stderr.contains("hush"), "{ran:?}");
        }
    }
    let mut command = place.command(&["send", "--help"]);
    let help = Ran::from(
        command.env("PROFILESTORE_MESSENGER", "nats://me:hush@localhost").output().unwrap(),
    );
    assert!(
        help.stdout.contains("PROFILESTORE_MESSENGER") && !help.stdout.contains("hush"),
        "{help:?}"
    );
}

#[test]
fn an_operator_goes_on_without_a_messenger_and_a_demonstration_does_not() {
    let place = Place::with_records();
    let address = format!("nats://me:hush@127.0.0.1:{}", free_port().unwrap());
    let ran = place.run(&["send", "PlayerData/7", "1", "--messenger", &address]);
    assert_eq!((ran.code, ran.stderr.lines().count()), (0, 1), "{ran:?}");
    assert!(
        ran.stderr.contains("going on without hints") && !ran.stderr.contains("hush"),
        "{ran:?}"
    );
    let ran = place.run(&["demo", "--seconds", "1", "--messenger", &address]);
    assert_eq!((ran.code, ran.stderr.lines().count()), (1, 1), "{ran:?}");
    assert!(
        ran.stderr.contains("no NATS server could be reached: servers=`nats://127.0.0.1:"),
        "{ran:?}"
    );
    assert!(!ran.stderr.contains("hush") && !ran.stderr.contains("store="), "{ran:?}");
}
