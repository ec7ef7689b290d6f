//! What the program prints for operators can be typed, is counted right, and hides nothing.

use std::fs;

use profilestore::env::Env;
use serde_json::json;

use crate::{Place, line, lines, maintain::write_value, profile};

/// A store with one profile of two versions.
fn place() -> Place {
    let place = Place::new();
    fs::write(place.path("in.jsonl"), line("a", 1, &profile(10)) + &line("a", 2, &profile(20)))
        .unwrap();
    place.ok(&["import", "in.jsonl"]);
    place
}

/// One turns a line around, the others are not seen.
const HIDDEN: &str = "a\u{202e}b\u{200b}c";
const SHOWN: &str = "a%u202Eb%u200Bc";

#[test]
fn characters_that_are_not_seen_are_escaped_and_what_is_shown_can_be_typed() {
    let place = Place::new();
    let record = json!({ "store": HIDDEN, "scope": HIDDEN, "key": HIDDEN, "n": 1,
        "version": "1", "created_ms": 1_790_000_000_000_u64, "updated_ms": 1_790_000_000_001_u64,
        "user_ids": [7], "metadata": {}, "value": profile(10) });
    fs::write(place.path("in.jsonl"), format!("{record}\n")).unwrap();
    place.ok(&["import", "in.jsonl", "--author", HIDDEN, "--reason", HIDDEN]);
    let name = format!("{SHOWN}/{SHOWN}/{SHOWN}");
    let id = format!("{}:{HIDDEN}", place_time());
    let send = ["send", &*name, &format!("{{\"to\":\"{HIDDEN}\"}}"), "--id", &id];
    place.ok(&send);
    let edit = format!("/x=\"{HIDDEN}\"");
    place.ok(&["edit", &name, "--set", &edit, "--reason", HIDDEN]);
    for args in [
        &["list", "--store-name", SHOWN, "--scope", SHOWN, "--prefix", SHOWN][..],
        &["list", "--store-name", SHOWN, "--json"],
        &["sessions", "--store-name", SHOWN, "--scope", SHOWN],
        &["get", &name],
        &["get", &name, "--json"],
        &["history", &name, "--path", "/x"],
        &["diff", &name, "1"],
        &["audit"],
        &["audit", "--json"],
        &["messages", &name],
        &["check"],
    ] {
        let ran = place.run(args);
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        for text in [&ran.stdout, &ran.stderr] {
            assert!(!text.contains(['\u{202e}', '\u{200b}']), "{args:?}: {ran:?}");
        }
    }
    let listed = lines(&place.ok(&["list", "--store-name", SHOWN, "--prefix", SHOWN, "--json"]));
    assert_eq!((listed.len(), &listed[0]["key"]), (1, &json!(HIDDEN)), "--json is exact");
    let found = place.json(&["get", &name, "--json"]);
    assert_eq!(found["document"]["Data"]["x"], HIDDEN);
    // As `messages` shows it.
    let shown = format!("{}:{SHOWN}", place_time());
    assert!(place.ok(&["messages", &name]).contains(&shown));
    place.ok(&["messages", &name, "--cancel", &shown]);
    assert_eq!(place.ok(&["messages", &name]), "no message waits\n");
}

/// The time of a message's id.
fn place_time() -> i64 {
    static TIME: std::sync::OnceLock<i64> = std::sync::OnceLock::new();
    *TIME.get_or_init(|| Env::system().unix_ms())
}

#[test]
fn a_wrong_time_is_a_wrong_command_line() {
    let place = place();
    for wrong in ["2026-13-01", "25:61", "yesterday 25:00", "2 moons", "21.11.2026", "3x ago"] {
        for args in [
            &["get", "PlayerData/a", "--version", wrong][..],
            &["rollback", "PlayerData/a", wrong, "--yes"],
            &["diff", "PlayerData/a", wrong],
            &["audit", "--since", wrong],
        ] {
            let ran = place.run(args);
            assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
        }
    }
    assert_eq!(place.run(&["get", "PlayerData/a", "--version", "label:25:61"]).code, 4);
    place.ok(&["get", "PlayerData/a", "--version", "a-1"]);
}

#[test]
fn an_action_that_is_never_booked_is_refused_and_the_known_ones_are_named() {
    let place = place();
    let ran = place.run(&["audit", "--action", "foo"]);
    assert!(ran.code == 2 && ran.stderr.contains("cancel message"), "{ran:?}");
    assert!(place.ok(&["audit", "--action", "import"]).contains("import"));
}

#[test]
fn an_empty_list_says_that_nothing_matched() {
    let place = place();
    for args in [
        &["list", "--prefix", "none"][..],
        &["list", "--newest", "--store-name", "None"],
        &["audit", "--action", "erase"],
        &["edit", "--standing"],
    ] {
        let ran = place.run(args);
        assert_eq!((ran.code, &*ran.stdout, ran.stderr.lines().count()), (0, "", 1), "{ran:?}");
        let ran = place.run(&[args, &["--json"]].concat());
        assert_eq!((ran.code, &*ran.stdout, &*ran.stderr), (0, "", ""), "{args:?}");
    }
}

/// Flips a bit of this value in the file.
fn damage(place: &Place, value: &[u8]) {
    let file = place.path("profiles.db");
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(value.len()).position(|part| part == value).unwrap();
    bytes[at + 4] ^= 1;
    fs::write(&file, bytes).unwrap();
}

/// After a backup that was named without a folder, `status` said `backup --to ''`.
#[test]
fn status_names_a_folder_after_a_backup_that_was_named_without_one() {
    let place = place();
    write_value(&place, "a", b"a whole value").unwrap();
    damage(&place, b"a whole value");
    assert_eq!(place.run(&["backup", "damaged.db"]).code, 1);
    let ran = place.run(&["status"]);
    assert!(ran.code == 1 && ran.stdout.contains("backup --to ./backups "), "{ran:?}");
}

/// `backup --to` made a folder of whatever name was typed, or where a disk was not mounted.
#[test]
fn a_folder_for_backups_that_is_not_there_is_named_and_not_made() {
    let place = place();
    for more in [&[][..], &["--every", "1h"]] {
        let ran = place.run(&[&["backup", "--to", "mistyped/backups"], more].concat());
        assert_eq!((ran.code, &*ran.stdout), (1, ""), "{ran:?}");
        let said = "error: there is no such folder for backups; make it first: \
            path=`mistyped/backups`\n";
        assert_eq!(ran.stderr, said);
    }
    let ran = place.run(&["backup", "--to", "in.jsonl"]);
    assert!(ran.code == 1 && ran.stderr.contains("no folder: path=`in.jsonl`"), "{ran:?}");
    assert!(!place.path("mistyped").exists());
    // What `status` says to type makes it.
    let status = place.run(&["status"]).stdout;
    assert!(status.contains(": mkdir -p ./backups && profilestore backup --to ./backups "));
    fs::create_dir(place.path("backups")).unwrap();
    assert!(!place.run(&["status"]).stdout.contains("mkdir"), "{status}");
}

/// `status` said that all was well after a backup of a damaged store.
#[test]
fn status_tells_of_a_damaged_backup_and_where_to_put_a_whole_one() {
    let place = place();
    write_value(&place, "a", b"a whole value").unwrap();
    fs::create_dir(place.path("my backups")).unwrap();
    place.ok(&["backup", "--to", "my backups"]);
    place.ok(&["status"]);
    let whole = place.json(&["status", "--json"])["last_backup_ms"].clone();
    damage(&place, b"a whole value");
    // Of another name than the first one, which may be of the same second.
    let made = place.run(&["backup", "my backups/damaged.db"]);
    assert!(made.code == 1 && made.stdout.contains("also in the backup"), "{made:?}");
    let ran = place.run(&["status"]);
    assert!(ran.code == 1 && ran.stdout.contains("has what is damaged in the store"), "{ran:?}");
    let found = place.run(&["status", "--json"]);
    let found: serde_json::Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!(found["last_backup_ms"], whole);
    assert!(found["damaged_backup_ms"].as_i64() > whole.as_i64(), "{found}");
}

/// The audit log's own entries were the newest write, and were counted as versions.
#[test]
fn a_backup_counts_and_dates_profiles_only() {
    let place = place();
    let before = place.json(&["backup", "1.db", "--json"]);
    place.ok(&["pin", "PlayerData/a", "1"]);
    place.ok(&["backup", "2.db"]);
    let after = place.json(&["backup", "3.db", "--json"]);
    for (name, value) in [("keys", 1), ("versions", 2)] {
        assert_eq!((&before[name], &after[name]), (&json!(value), &json!(value)), "{name}");
    }
    assert_eq!(before["newest_ms"], after["newest_ms"]);
}

#[test]
fn what_a_killed_backup_left_in_a_folder_is_deleted_by_the_next_one() {
    let place = place();
    fs::create_dir(place.path("backups")).unwrap();
    let left = "profiles-2026-01-01T00-00-00Z.db.partial";
    fs::write(place.path("backups").join(left), "x").unwrap();
    let ran = place.run(&["backup", "--to", "backups"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains(left) && !place.path("backups").join(left).exists(), "{ran:?}");
}

/// What was begun and not ended was listed for ever.
#[test]
fn an_operation_that_nobody_will_end_is_given_up() {
    let place = place();
    place.ok(&["backup", "copy.db"]);
    let operation = "01999d5c-2f1e-7a52-9df4-1c6f8a3b2d10";
    pending(&place, operation, "import");
    let ran = place.run(&["status"]);
    let typed = format!("profilestore audit --give-up {operation}");
    assert!(ran.code == 1 && ran.stdout.contains(&typed), "{ran:?}");
    let give_up = ["audit", "--give-up", operation, "--author", "ann", "--reason", "not needed"];
    assert_eq!(place.ok(&give_up), format!("import {operation} is given up\n"));
    assert!(place.ok(&["status"]).contains("all is well"));
    let entry = lines(&place.ok(&["audit", "--operation", operation, "--json"]));
    assert_eq!(entry[0]["why"], "given up by ann: not needed");
    assert_eq!(place.run(&give_up).code, 1, "it has ended");
    let other = "01999d5c-2f1e-7a52-9df4-1c6f8a3b2d11";
    assert_eq!(place.run(&["audit", "--give-up", other]).code, 4);
    // A vacuum that was broken off is made up for by the next one.
    pending(&place, other, "vacuum");
    let ran = place.run(&["status"]);
    assert!(ran.code == 1 && ran.stdout.contains("profilestore erase --vacuum\n"), "{ran:?}");
    place.ok(&["erase", "--vacuum"]);
    assert!(place.ok(&["status"]).contains("all is well"));
}

/// Books an operation as begun.
fn pending(place: &Place, operation: &str, action: &str) {
    use profilestore::{
        Attribution,
        audit::{AuditEntry, AuditOutcome},
        data_store::SqliteStore,
        env::Env,
    };

    let store = SqliteStore::open(place.path("profiles.db"), Default::default()).unwrap();
    let by = Attribution::new("bob");
    let entry = AuditEntry::new(operation.parse().unwrap(), action, Vec::new(), by)
        .outcome(AuditOutcome::Pending);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(entry.book(&store, &Env::system(), 0)).unwrap();
    drop(store);
}

/// Servers of commands that are over filled the screen.
#[test]
fn status_lists_no_server_that_is_dead_and_holds_nothing() {
    let place = place();
    place.ok(&["backup", "copy.db"]);
    for _ in 0..3 {
        place.ok(&["edit", "PlayerData/a", "--add", "/Coins=1"]);
    }
    let said = place.ok(&["status"]);
    assert!(said.contains("0 alive, 0 silent") && !said.contains("LAST SEEN"), "{said}");
}

/// What was written by hand was gone when the edit was refused.
#[cfg(unix)]
#[test]
fn what_was_written_in_the_editor_is_kept_until_the_edit_is_done() {
    let place = place();
    let program = env!("CARGO_BIN_EXE_profilestore");
    let edit = |editor: &str| {
        let mut command = place.command(&["edit", "PlayerData/a", "--interactive", "--yes"]);
        command.env("VISUAL", "").env("EDITOR", editor).env("TMPDIR", place.folder.path());
        crate::Ran::from(command.output().unwrap())
    };
    let kept = || {
        let names = fs::read_dir(place.folder.path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("profilestore-edit-")).collect::<Vec<_>>()
    };
    let meanwhile = format!("{program} edit PlayerData/a --add /Coins=1 >&2; sed -i s/20/30/");
    let ran = edit(&meanwhile);
    assert!(ran.code == 1 && ran.stderr.contains("what you wrote is kept: file=`"), "{ran:?}");
    let [file] = &kept()[..] else { panic!("one file is kept") };
    assert!(ran.stderr.contains(file));
    let path = place.path(file);
    assert!(fs::read_to_string(&path).unwrap().contains("30"));
    fs::remove_file(path).unwrap();
    let ran = edit("sed -i s/21/25/");
    assert_eq!((ran.code, kept().len()), (0, 0), "{ran:?}");
    // What the editor deleted is not said to be kept.
    let ran = edit("rm");
    assert!(ran.code == 1 && !ran.stderr.contains("is kept"), "{ran:?}");
    // An editor that is named by an empty text is none: the usual one is asked for.
    let mut command = place.command(&["edit", "PlayerData/a", "--interactive", "--yes"]);
    let vi = place.path("vi");
    fs::write(&vi, "#!/bin/sh\nsed -i s/25/26/ \"$1\"\n").unwrap();
    fs::set_permissions(&vi, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", place.folder.path().display(), std::env::var("PATH").unwrap());
    let ran = command.env("VISUAL", "").env("EDITOR", " ").env("PATH", path).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    assert_eq!(place.ok(&["get", "PlayerData/a", "--path", "/Coins"]), "26\n");
}

/// Nothing came out of a file whose first pages after the header were damaged: they say what the
/// file is.
#[test]
fn salvage_reads_a_file_whose_first_pages_are_damaged() {
    for page in [2, 3] {
        let place = place();
        place.ok(&["backup", "copy.db"]);
        let mut bytes = fs::read(place.path("copy.db")).unwrap();
        bytes[(page - 1) * 4096..page * 4096].fill(0x5a);
        fs::write(place.path("damaged.db"), &bytes).unwrap();
        let ran = place.run(&["list", "--store", "damaged.db"]);
        assert!(ran.code == 3 && ran.stderr.contains("restore --salvage"), "{ran:?}");
        place.ok(&["restore", "--salvage", "damaged.db", "--store", "new.db"]);
        let found = place.json(&["get", "PlayerData/a", "--json", "--store", "new.db"]);
        assert_eq!(found["document"]["Data"]["Coins"], 20, "page {page}");
        assert_eq!(place.ok(&["history", "PlayerData/a", "--store", "new.db"]).lines().count(), 3);
        assert_eq!(fs::read(place.path("damaged.db")).unwrap(), bytes);
    }
}
