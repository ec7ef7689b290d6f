use std::{collections::BTreeSet, fs};

use serde_json::{Value, json};

use crate::{Place, line, lines, profile, records};

/// A line without what JSON written by Lua leaves open: which of the empty tables are lists, and
/// how a number is written.
fn normal(line: &Value) -> String {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(map) if map.is_empty() => json!([]),
            Value::Object(map) => {
                let mut rows: Vec<_> =
                    map.iter().map(|(name, value)| (name.clone(), sorted(value))).collect();
                rows.sort_by(|a, b| a.0.cmp(&b.0));
                Value::Object(rows.into_iter().collect())
            }
            Value::Array(list) => list.iter().map(sorted).collect(),
            Value::Number(number) => json!(number.as_f64()),
            other => other.clone(),
        }
    }
    sorted(line).to_string()
}

fn normal_lines(text: &str) -> BTreeSet<String> {
    lines(text).iter().map(normal).collect()
}

#[test]
fn the_real_records_go_in_and_come_out() {
    let place = Place::new();
    let said = place.ok(&["import", records().to_str().unwrap(), "--author", "tester"]);
    for part in [
        "imported        209 keys with 1,959 versions",
        "sessions held   50 profiles, 5 asked for by another server",
        "messages        29 waiting on 15 keys, 10 locked",
        "foreign values  6 values, kept as they came",
        "  PlayerData/8006 version 1: MetaData is not a table: found=`a string`",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(
        place
            .ok(&["import", records().to_str().unwrap()])
            .contains("already there   209 keys with 1,959 versions")
    );

    let ran = place.run(&["export"]);
    assert_eq!((ran.code, &*ran.stderr), (0, "exported 209 keys with 1,959 versions\n"));
    let given =
        String::from_utf8(zstd::decode_all(fs::File::open(records()).unwrap()).unwrap()).unwrap();
    let (given, found) = (normal_lines(&given), normal_lines(&ran.stdout));
    assert_eq!(given.len(), 1959);
    assert_eq!(given.symmetric_difference(&found).next(), None);

    assert_eq!(place.ok(&["export", "all.jsonl"]), "exported 209 keys with 1,959 versions\n");
    assert_eq!(fs::read_to_string(place.path("all.jsonl")).unwrap(), ran.stdout);
    assert_eq!(place.json(&["export", "all.jsonl.zst", "--json"])["keys"], 209);
    let packed = fs::read(place.path("all.jsonl.zst")).unwrap();
    assert_eq!(zstd::decode_all(&packed[..]).unwrap(), ran.stdout.as_bytes());

    let copied = place.run_with_input(
        &["--store", "sqlite:copy.db", "import", "--json", "-"],
        ran.stdout.as_bytes(),
    );
    assert_eq!(copied.code, 0, "{copied:?}");
    assert_eq!(place.run(&["--store", "sqlite:copy.db", "export"]).stdout, ran.stdout);
}

#[test]
fn an_export_replaces_no_file_unless_told() {
    let place = Place::with_records();
    fs::write(place.path("mine.jsonl"), "precious").unwrap();
    let ran = place.run(&["export", "mine.jsonl"]);
    assert_eq!(
        (ran.code, &*ran.stderr),
        (1, "error: the file exists already, add --force to replace it: file=`mine.jsonl`\n")
    );
    assert_eq!(fs::read_to_string(place.path("mine.jsonl")).unwrap(), "precious");
    place.ok(&[
        "export",
        "--force",
        "mine.jsonl",
        "--store-name",
        "LegacyData",
        "--scope",
        "Season1",
        "--prefix",
        "Player_1",
    ]);
    let text = fs::read_to_string(place.path("mine.jsonl")).unwrap();
    let keys: BTreeSet<_> =
        lines(&text).iter().map(|line| line["key"].as_str().unwrap().to_owned()).collect();
    assert!(
        keys.contains("Player_1")
            && keys.contains("Player_19")
            && keys.iter().all(|key| key.starts_with("Player_1"))
    );
    assert!(!place.path("mine.jsonl.partial").exists());
    let ran = place.run(&["export", "missing/folder.jsonl"]);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("the file cannot be written"), "{ran:?}");
}

#[test]
fn an_export_to_a_dash_goes_to_standard_output() {
    let place = Place::new();
    fs::write(place.path("in.jsonl"), line("a", 1, &profile(10))).unwrap();
    place.ok(&["import", "in.jsonl"]);
    let ran = place.run(&["export", "-"]);
    assert_eq!((ran.code, &*ran.stderr), (0, "exported 1 key with 1 version\n"));
    assert_eq!(ran.stdout, place.run(&["export"]).stdout);
    assert!(!place.path("-").exists());
    assert_eq!(lines(&ran.stdout).len(), 1);
}

#[test]
fn damaged_lines_are_said_and_are_code_1() {
    let place = Place::new();
    let text = line("good", 1, &profile(1)) + "garbage\n" + &line("gap", 2, &profile(1));
    fs::write(place.path("in.jsonl"), text).unwrap();
    let ran = place.run(&["import", "in.jsonl"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("imported        1 key with 1 version\n"), "{ran:?}");
    assert!(
        ran.stdout.contains("  line 2: it cannot be read: expected value at line 1 column 1"),
        "{ran:?}"
    );
    assert!(
        ran.stdout.contains("  PlayerData/gap with 1 version: a version is missing: n=`1`"),
        "{ran:?}"
    );

    let ran = place.run(&["import", "in.jsonl", "--json"]);
    assert_eq!(ran.code, 1);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["already_there"], json!({ "keys": 1, "versions": 1 }));
    assert_eq!(report["malformed"][0]["line"], 2);
    assert_eq!(report["skipped"][0]["key"], "gap");
}

#[test]
fn an_input_that_cannot_be_read_is_said() {
    let place = Place::new();
    let ran = place.run(&["import", "missing.jsonl"]);
    assert_eq!(ran.code, 1);
    assert!(
        ran.stderr.starts_with("error: the input cannot be read:")
            && ran.stderr.contains("file=`missing.jsonl`"),
        "{ran:?}"
    );
    assert!(!place.path("profiles.db").exists());

    fs::write(place.path("in.csv"), "a,b,c\n".repeat(20_000)).unwrap();
    let ran = place.run(&["import", "in.csv"]);
    assert_eq!((ran.code, ran.stderr.lines().count()), (1, 1), "{ran:?}");
    assert!(ran.stderr.contains("the input is not a list of versions"), "{ran:?}");
}
