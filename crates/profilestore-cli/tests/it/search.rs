//! Searching by value: `--where`.

use std::fs;

use serde_json::json;

use crate::{Place, line, lines, profile};

/// Profiles `p1` to `p9` with 11 coins and so on, one removed, one value that is no profile.
fn place() -> Place {
    let place = Place::new();
    let profiles: String = (1..=9).map(|n| line(&format!("p{n}"), 1, &profile(n + 10))).collect();
    let second = line("p9", 2, &profile(99));
    let foreign = line("foreign", 1, &json!({ "Coins": 99 }));
    fs::write(place.path("in.jsonl"), profiles + &second + &foreign).unwrap();
    place.ok(&["import", "in.jsonl"]);
    place.ok(&["remove", "PlayerData/p8", "--yes"]);
    place
}

#[test]
fn list_finds_by_value_and_says_that_it_reads_everything() {
    let place = place();
    let ran = place.run(&["list", "--where", "/Coins >= 17"]);
    let keys: Vec<_> =
        ran.stdout.lines().skip(1).map(|row| row.split_whitespace().next().unwrap()).collect();
    assert_eq!((ran.code, &keys[..]), (0, &["PlayerData/p7", "PlayerData/p9"][..]), "{ran:?}");
    let said: Vec<_> = ran.stderr.lines().collect();
    assert_eq!(said[0], "scan: there is no index on values, so every profile is read");
    assert!(said[1].starts_with("looked at 10 keys in ") && said[1].ends_with(": 2 matches"));
    assert_eq!(said.len(), 2);

    let rows = |args: &[&str]| {
        let rows = lines(&place.ok(&[&["list", "--json"], args].concat()));
        rows.iter().map(|row| row["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(rows(&["--where", "/Coins = 99"]), ["p9"]);
    assert_eq!(rows(&["--where", "not /Coins < 13", "--limit", "2"]), ["p3", "p4"]);
    assert_eq!(rows(&["--where", "/Coins > 0", "--prefix", "p2"]), ["p2"]);
    assert_eq!(rows(&["--where", "/Coins > 14", "--after", "PlayerData/p5"]), ["p6", "p7", "p9"]);
    assert_eq!(rows(&["--where", "/Coins < 99", "--newest", "--limit", "9"]).len(), 7);
    let counted = place.json(&["list", "--json", "--count", "--where", "has /Coins"]);
    assert_eq!(counted["count"], 8);
    let user =
        place.run(&["list", "--user", "7", "--store-name", "PlayerData", "--where", "has \"\""]);
    assert!(user.stderr.contains("every profile in PlayerData of user 7 is read"), "{user:?}");
}

#[test]
fn a_search_that_is_wrong_says_where_and_what_to_write() {
    let place = place();
    for (search, said) in [
        ("/Coins > 5 AND has /x", "character 12: expected `and`, `or` or the end, found `AND`"),
        ("Coins > 5", "character 1: expected a condition, as in `/coins > 5`"),
        ("/name = 'Ann'", "character 9: this is no JSON value: a text stands in double quotes"),
    ] {
        for args in [&["list"][..], &["export"], &["edit", "--all", "--store-name", "PlayerData"]] {
            let ran = place.run(&[args, &["--where", search]].concat());
            assert_eq!((ran.code, &*ran.stdout), (2, ""), "{ran:?}");
            assert!(ran.stderr.contains(said), "{ran:?}");
        }
    }
    for args in [
        &["edit", "PlayerData/p1", "--where", "has /Coins", "--add", "/Coins=1"][..],
        &[
            "edit",
            "--all",
            "--new-too",
            "--store-name",
            "PlayerData",
            "--where",
            "has /Coins",
            "--add",
            "/Coins=1",
        ],
    ] {
        let ran = place.run(args);
        assert!(ran.code == 2 && ran.stderr.contains("--where goes with --all"), "{ran:?}");
    }
}

#[test]
fn edit_all_changes_what_a_search_finds_and_nothing_else() {
    let place = place();
    let edit = ["edit", "--all", "--store-name", "PlayerData", "--where", "/Coins >= 17"];
    let dry = place.run(&[&edit[..], &["--set", "/Coins=0", "--dry-run"]].concat());
    let counts = "0 unchanged, 7 passed over, 0 refused, 1 without a profile\n";
    assert!(dry.stdout.contains("2 profiles would be edited"), "{dry:?}");
    assert!(dry.stdout.ends_with(counts), "{dry:?}");
    assert!(dry.stderr.starts_with("scan: there is no index on values"), "{dry:?}");
    let done = place.run(&[&edit[..], &["--set", "/Coins=0", "--yes"]].concat());
    assert!(done.code == 0 && done.stdout.contains(counts), "{done:?}");
    let coins = |key: &str| {
        let name = format!("PlayerData/{key}");
        place.json(&["get", &name, "--json"])["document"]["Data"]["Coins"].clone()
    };
    assert_eq!((coins("p6"), coins("p7"), coins("p9")), (json!(16), json!(0), json!(0)));
    let booked = lines(&place.ok(&["audit", "--action", "edit all", "--json"]));
    assert_eq!(booked[0]["details"]["where"], "/Coins >= 17", "{booked:?}");
}

#[test]
fn export_writes_what_a_search_finds_with_or_without_history() {
    let place = place();
    let exported = |args: &[&str]| {
        let ran = place.run(&[&["export", "--where", "/Coins > 16"], args].concat());
        assert!(ran.code == 0 && ran.stderr.starts_with("scan: "), "{ran:?}");
        let rows = lines(&ran.stdout);
        rows.iter()
            .map(|row| (row["key"].as_str().unwrap().to_owned(), row["n"].as_u64().unwrap()))
            .collect::<Vec<_>>()
    };
    let row = |key: &str, n: u64| (key.to_owned(), n);
    assert_eq!(exported(&[]), [row("p7", 1), row("p9", 1), row("p9", 2)]);
    assert_eq!(exported(&["--current"]), [row("p7", 1), row("p9", 1)]);
    let all = lines(&place.run(&["export", "--current"]).stdout);
    assert_eq!(all.len(), 10, "removed ones too");
}
