//! A program that was built without a part says how to get it.

use super::*;

#[track_caller]
fn says_how_to_get(feature: &str, args: &[&str]) {
    let place = Place::with_records();
    fs::write(place.path("game.luau"), "print('hello')").unwrap();
    let ran = place.run(args);
    assert_eq!(
        (ran.code, &*ran.stdout, ran.stderr.lines().count()),
        (2, "", 1),
        "{args:?}: {ran:?}"
    );
    assert!(ran.stderr.contains("cargo run --release --features "), "{ran:?}");
    let line =
        ran.stderr.split("cargo build --release -p profilestore-cli --features ").nth(1).unwrap();
    let features: Vec<_> = line.split('`').next().unwrap().split(',').collect();
    assert!(features.contains(&feature), "{feature}: {ran:?}");
    for (built, has) in [
        ("postgres", cfg!(feature = "postgres")),
        ("nats", cfg!(feature = "nats")),
        ("luau", cfg!(feature = "luau")),
        ("serve", cfg!(feature = "serve")),
        ("conformance", cfg!(feature = "conformance")),
    ] {
        assert!(!has || features.contains(&built), "what this program has stays: {built}: {ran:?}");
    }
    assert!(!ran.stderr.contains("hush"), "{ran:?}");
}

#[cfg(not(feature = "postgres"))]
#[test]
fn without_postgres_it_is_said_how_to_get_it() {
    let store = ["--store", "postgres://me:hush@localhost/game"];
    for args in
        [&["list"][..], &["migrate"], &["import", "-"], &["check"], &["demo", "--seconds", "1"]]
    {
        says_how_to_get("postgres", &[args, &store].concat());
    }
}

#[cfg(not(feature = "nats"))]
#[test]
fn without_nats_it_is_said_how_to_get_it() {
    let messenger = ["--messenger", "nats://me:hush@localhost"];
    for args in [&["send", "PlayerData/7", "1"][..], &["demo", "--seconds", "1"]] {
        says_how_to_get("nats", &[args, &messenger].concat());
    }
}

#[cfg(not(feature = "luau"))]
#[test]
fn without_luau_it_is_said_how_to_get_it() {
    says_how_to_get("luau", &["run", "game.luau"]);
    let place = Place::new();
    assert!(place.run(&["run", "game.luau"]).stderr.contains("C++"));
    assert!(place.ok(&["run", "--help"]).contains("--players"));
}

#[cfg(not(feature = "serve"))]
#[test]
fn without_the_server_it_is_said_how_to_get_it() {
    says_how_to_get("serve", &["serve"]);
    says_how_to_get("serve", &["keys", "list"]);
    assert!(Place::new().ok(&["serve", "--help"]).contains("--trust-proxy"));
}

#[cfg(not(feature = "conformance"))]
#[test]
fn without_the_conformance_kit_it_is_said_how_to_get_it() {
    says_how_to_get("conformance", &["conformance", "--driver", "true"]);
}
