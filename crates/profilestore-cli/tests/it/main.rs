//! The program as people run it.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

mod advice;
#[cfg(all(feature = "conformance", target_os = "linux"))]
mod conformance;
mod demo;
mod docs;
mod edit;
#[cfg(unix)]
mod files;
#[cfg(feature = "luau")]
mod game_sweeps;
#[cfg(feature = "luau")]
mod game_tests;
#[cfg(feature = "luau")]
mod game_trees;
mod history;
mod inspect;
#[cfg(not(feature = "full"))]
mod left_out;
mod maintain;
mod mended;
#[cfg(feature = "nats")]
mod messenger;
mod night;
mod operate;
mod operator_tools;
#[cfg(feature = "postgres")]
mod postgres;
mod repository;
#[cfg(feature = "luau")]
mod run;
mod search;
#[cfg(feature = "serve")]
mod serve;
#[cfg(feature = "serve")]
mod serve_bulk;
#[cfg(feature = "serve")]
mod serve_sessions;
mod transfer;
#[cfg(all(feature = "serve", unix))]
mod typed;

/// A folder to run the program in.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// With the real records in the default store.
    fn with_records() -> Self {
        let place = Self::new();
        let report = place.json(&["import", "--json", records().to_str().unwrap()]);
        assert_eq!(report["versions"], 1959);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_profilestore"));
        command.args(args).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env_remove("PROFILESTORE_STORE").env_remove("PROFILESTORE_MESSENGER");
        command.env_remove("PROFILESTORE_CONFIG").env_remove("COLUMNS");
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.command(args).output().unwrap())
    }

    fn run_with_input(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut command = self.command(args);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(input).unwrap());
            Ran::from(child.wait_with_output().unwrap())
        })
    }

    /// What a program gets that must succeed and give one JSON document.
    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(args)).unwrap()
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!((ran.code, &*ran.stderr), (0, ""), "{args:?}");
        ran.stdout
    }
}

/// What a run gave.
#[derive(Debug)]
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self {
            code: output.status.code().unwrap(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// The records of a real pair of modules.
fn records() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../profilestore/tests/data/upstream-records.jsonl.zst")
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn line(key: &str, n: u64, value: &Value) -> String {
    let line = json!({ "store": "PlayerData", "scope": "global", "key": key, "n": n, "version": format!("{key}-{n}"),
        "created_ms": 1_790_000_000_000_u64, "updated_ms": 1_790_000_000_000 + n, "user_ids": [7], "metadata": {}, "value": value });
    format!("{line}\n")
}

fn profile(coins: u64) -> Value {
    json!({ "Data": { "Coins": coins }, "MetaData": { "SessionLoadCount": coins, "MetaTags": {} }, "GlobalUpdates": [0, []] })
}

#[test]
fn a_wrong_command_line_is_code_2() {
    let place = Place::new();
    for args in [
        &["frobnicate"][..],
        &[],
        &["list", "--store", "mysql://host/db"],
        &["list", "--prefix", "a", "--user", "1"],
        &["get", "no-slash"],
        &["get", &format!("S/{}", "k".repeat(51))],
        &["export", "--force"],
    ] {
        let ran = place.run(args);
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{args:?}: {ran:?}");
        assert!(!ran.stderr.is_empty());
    }
    let help = place.ok(&["--help"]);
    assert!(
        help.contains("Exit codes:")
            && help.contains("import")
            && help.contains("PROFILESTORE_STORE"),
        "{help}"
    );
    assert!(place.ok(&["export", "--help"]).contains("Examples:"));
    assert_eq!(place.ok(&["--version"]), format!("profilestore {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_store_that_is_not_there_is_code_3_and_is_not_made() {
    let place = Place::new();
    for args in [
        &["list"][..],
        &["get", "S/k"],
        &["history", "S/k"],
        &["sessions"],
        &["export"],
        &["check"],
    ] {
        let ran = place.run(args);
        assert_eq!((ran.code, &*ran.stdout), (3, ""), "{args:?}: {ran:?}");
        assert!(
            ran.stderr.contains("no such file")
                && ran.stderr.contains("store=`sqlite:./profiles.db`"),
            "{ran:?}"
        );
        assert_eq!(ran.stderr.lines().count(), 1);
    }
    assert_eq!(fs::read_dir(place.folder.path()).unwrap().count(), 0);
}

#[test]
fn a_file_that_is_no_store_is_code_3_and_is_left_alone() {
    let place = Place::new();
    fs::write(place.path("notes.txt"), "these are my notes\n".repeat(100)).unwrap();
    fs::write(place.path("empty.db"), "").unwrap();
    for (name, args) in
        [("notes.txt", &["list"][..]), ("empty.db", &["list"]), ("notes.txt", &["import", "-"])]
    {
        let ran = place.run(&[args, &["--store", &format!("sqlite:{name}")]].concat());
        assert_eq!((ran.code, ran.stderr.lines().count()), (3, 1), "{ran:?}");
        assert!(ran.stderr.contains(&format!("store=`sqlite:{name}`")), "{ran:?}");
    }
    assert!(fs::read_to_string(place.path("notes.txt")).unwrap().starts_with("these are my notes"));
    assert_eq!(fs::read(place.path("empty.db")).unwrap(), b"");
}

#[test]
fn the_store_can_come_from_the_environment() {
    let place = Place::new();
    fs::write(place.path("in.jsonl"), line("a", 1, &profile(1))).unwrap();
    let ran = Ran::from(
        place
            .command(&["import", "in.jsonl"])
            .env("PROFILESTORE_STORE", "sqlite:mine.db")
            .output()
            .unwrap(),
    );
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(place.path("mine.db").exists() && !place.path("profiles.db").exists());
    assert!(place.ok(&["list", "--store", "sqlite:mine.db"]).contains("PlayerData/a"));
}

#[test]
fn a_demonstration_plays_on_the_store_of_the_environment() {
    let place = Place::new();
    let mut demo = place.command(&["demo", "--servers", "1", "--players", "2", "--seconds", "1"]);
    let ran = Ran::from(demo.env("PROFILESTORE_STORE", "mine.db").output().unwrap());
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("sqlite:mine.db"), "{ran:?}");
    assert!(place.ok(&["list", "--store", "mine.db"]).contains("/player-1"));
    assert!(place.ok(&["demo", "--help"]).contains("for every command"));
}

#[test]
fn a_reader_that_has_had_enough_is_no_failure() {
    let place = Place::with_records();
    for args in [&["export"][..], &["list", "--json"], &["history", "LegacyData/Season1/Player_34"]]
    {
        let mut child =
            place.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!((child.wait().unwrap().code(), &*stderr), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn a_closed_pipe_ends_commands_that_change_something_quietly_and_they_are_done() {
    let place = Place::new();
    fs::write(place.path("in.jsonl"), line("a", 1, &profile(10)) + &line("a", 2, &profile(20)))
        .unwrap();
    place.ok(&["import", "in.jsonl"]);
    for args in [
        &["edit", "PlayerData/a", "--add", "/Coins=5"][..],
        &["edit", "PlayerData/a", "--add", "/Coins=5", "--dry-run"],
        &["edit", "--all", "--store-name", "PlayerData", "--add", "/Coins=7", "--yes"],
        &["send", "PlayerData/a", "1"],
        &["pin", "PlayerData/a", "1"],
        &["get", "PlayerData/a", "--raw"],
        &["check"],
        &["backup", "copy.db"],
    ] {
        quiet(&place, args);
    }
    assert_eq!(place.json(&["get", "PlayerData/a", "--json"])["document"]["Data"]["Coins"], 32);
    quiet(&place, &["rollback", "PlayerData/a", "1", "--yes"]);
    assert_eq!(place.json(&["get", "PlayerData/a", "--json"])["document"]["Data"]["Coins"], 10);
    quiet(&place, &["remove", "PlayerData/a", "--yes"]);
    assert!(place.ok(&["get", "PlayerData/a"]).contains("content   removed"));
}

/// Runs the program with its output closed; it may say on stderr how to go on.
#[track_caller]
fn quiet(place: &Place, args: &[&str]) {
    let mut child =
        place.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{args:?}: {stderr}");
    assert!(!stderr.contains("panicked") && !stderr.contains("error"), "{args:?}: {stderr}");
}

#[test]
fn names_times_and_versions_that_are_printed_can_be_typed_in_again() {
    let place = Place::new();
    let names = [
        ("Keys", "global", "a/b"),
        ("Keys", "S/1", "7"),
        ("A/B", "global", "50%"),
        ("Keys", "a", "b"),
        ("K", "global", "%2F"),
    ];
    let line = |(store, scope, key): (&str, &str, &str), n: u64| {
        let line = json!({ "store": store, "scope": scope, "key": key, "n": n, "version": n.to_string(), "created_ms": 1_790_000_000_000_u64,
            "updated_ms": 1_790_000_000_500 + n, "user_ids": [], "metadata": {}, "value": profile(n) });
        format!("{line}\n")
    };
    let text: String = names.iter().flat_map(|name| [line(*name, 1), line(*name, 2)]).collect();
    fs::write(place.path("in.jsonl"), text).unwrap();
    place.ok(&["import", "in.jsonl"]);
    let listed = place.ok(&["list"]);
    let rows: Vec<Vec<&str>> =
        listed.lines().skip(1).map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), names.len(), "{listed}");
    for row in &rows {
        let (name, updated) = (row[0], row[2]);
        let found = place.json(&["get", name, "--json"]);
        let said = (
            found["store"].as_str().unwrap(),
            found["scope"].as_str().unwrap(),
            found["key"].as_str().unwrap(),
        );
        assert!(names.contains(&said), "{name} {said:?}");
        // The time of the current version names it, and the version string of the one before too,
        // though it is a number.
        assert_eq!(
            place.json(&["get", name, "--json", "--version", updated])["version"]["version"],
            2
        );
        let history = place.ok(&["history", name, "--until", updated]);
        let label = history.lines().last().unwrap().split_whitespace().last().unwrap();
        assert_eq!(label, "label:1", "{history}");
        assert_eq!(
            place.json(&["get", name, "--json", "--version", label])["version"]["version"],
            1
        );
    }
    let distinct: std::collections::BTreeSet<&str> = rows.iter().map(|row| row[0]).collect();
    assert_eq!(distinct.len(), names.len(), "{listed}");
}
