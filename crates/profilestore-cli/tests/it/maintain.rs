use std::fs;

use profilestore::{
    ProfileKey,
    data_store::{
        Cause, Change, Commit, CommitId, DataStore, DataStoreExt, NewValue, Returning,
        SqliteOptions, SqliteStore, StoreError,
    },
    env::Env,
};

use crate::{Place, line, profile};

#[test]
fn a_backup_becomes_a_store_again() {
    let place = Place::with_records();
    let exported = place.run(&["export"]).stdout;
    let said = place.ok(&["backup", "copy.db"]);
    assert!(said.starts_with("backed up to copy.db, "), "{said}");
    assert!(said.contains("it holds 209 keys with 1,959 versions, the newest of 20"), "{said}");
    let again = place.run(&["backup", "copy.db"]);
    assert_eq!((again.code, again.stderr.lines().count()), (1, 1), "{again:?}");
    assert!(again.stderr.contains("copy.db"), "{again:?}");
    assert!(place.json(&["backup", "other.db", "--json"])["bytes"].as_u64().unwrap() > 100_000);

    fs::write(place.path("more.jsonl"), line("more", 1, &profile(1))).unwrap();
    place.ok(&["import", "more.jsonl"]);
    let kept = place.run(&["restore", "copy.db"]);
    assert_eq!(kept.code, 1);
    assert_eq!(
        kept.stderr,
        "error: the store exists already, add --force to replace it: store=`sqlite:./profiles.db`\n"
    );
    place.ok(&["get", "PlayerData/more"]);

    assert_eq!(
        place.ok(&["restore", "--force", "copy.db"]),
        "restored sqlite:./profiles.db from copy.db\n"
    );
    assert_eq!(place.run(&["get", "PlayerData/more"]).code, 4);
    assert_eq!(place.run(&["export"]).stdout, exported);

    let made = place.json(&["restore", "copy.db", "--store", "sqlite:new.db", "--json"]);
    assert_eq!(made["incarnation"].as_str().unwrap().len(), 36);
    assert_eq!(place.run(&["export", "--store", "sqlite:new.db"]).stdout, exported);
}

#[test]
fn what_is_no_backup_replaces_nothing() {
    let place = Place::with_records();
    let before = place.run(&["export"]).stdout;
    fs::write(place.path("notes.txt"), "these are my notes\n".repeat(1000)).unwrap();
    for file in ["notes.txt", "missing.db"] {
        let ran = place.run(&["restore", "--force", file]);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.stderr.contains(file) && ran.stderr.lines().count() == 1, "{ran:?}");
    }
    assert_eq!(place.run(&["export"]).stdout, before);
}

fn write_an_unreadable_value(place: &Place) -> Result<(), StoreError> {
    write_value(place, "7", b"\x01\x09{}")
}

#[tokio::main(flavor = "current_thread")]
pub(super) async fn write_value(
    place: &Place,
    key: &str,
    value: &'static [u8],
) -> Result<(), StoreError> {
    let store = SqliteStore::open(place.path("profiles.db"), SqliteOptions::default())?;
    let key = ProfileKey::new("PlayerData", "global", key).unwrap();
    let state = store.read_one(&key, Returning::HEAD).await?.1;
    let write = Change::Write {
        key,
        epoch: state.epoch,
        version: state.version,
        value: NewValue::Bytes(value.into()),
        user_ids: vec![],
        cause: Cause::Edit,
        author: "test".into(),
        keep_previous: true,
        seal: false,
        imported: None,
    };
    let incarnation = store.identity().await?.incarnation;
    let id = CommitId(Env::system().uuid());
    store
        .commit_one(Commit {
            id,
            incarnation,
            from: None,
            changes: vec![write],
            returning: Returning::HEAD,
            fingerprint: None,
        })
        .await?;
    Ok(())
}

#[test]
fn a_check_finds_what_cannot_be_read() {
    let place = Place::with_records();
    let text = place.ok(&["check"]);
    assert!(
        text.starts_with(
            "result          all is well\nprofiles        209 keys with 1,959 versions\n"
        ),
        "{text}"
    );
    let report = place.json(&["check", "--json"]);
    assert_eq!(
        (&report["ok"], &report["foreign"], &report["messages"]),
        (&true.into(), &6.into(), &29.into())
    );

    write_an_unreadable_value(&place).unwrap();
    let ran = place.run(&["check"]);
    assert_eq!((ran.code, &*ran.stderr), (1, ""), "{ran:?}");
    assert!(ran.stdout.contains("problem: PlayerData/7 version "), "{ran:?}");
    assert!(ran.stdout.contains("written by a newer version, or is damaged: codec=`9`"), "{ran:?}");
    place.ok(&["backup", "copy.db"]);
    assert_eq!(place.run(&["backup", "--verify", "copy.db"]).stdout, ran.stdout);
    let export = place.run(&["export", "some.jsonl"]);
    assert_eq!(export.code, 1);
    assert!(export.stdout.contains("left out PlayerData/7 version "), "{export:?}");
    let get = place.run(&["get", "PlayerData/7"]);
    assert_eq!((get.code, get.stderr.lines().count()), (3, 1), "{get:?}");
    assert!(
        get.stderr.contains("key=`PlayerData/7`")
            && get.stderr.contains("store=`sqlite:./profiles.db`"),
        "{get:?}"
    );
}

#[test]
fn a_check_finds_a_damaged_file() {
    let place = Place::with_records();
    let mut bytes = fs::read(place.path("profiles.db")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 20_000].fill(0x5a);
    fs::write(place.path("profiles.db"), bytes).unwrap();
    let ran = place.run(&["check"]);
    assert!(ran.code == 1 || ran.code == 3, "{ran:?}");
    assert!(ran.stdout.contains("problem: ") || ran.stderr.contains("damaged"), "{ran:?}");
}

/// A disk that gives back another byte than was written: no command hands the value out, and a
/// rollback ends it.
#[test]
fn a_damaged_value_is_named_by_every_command_that_would_read_it() {
    let place = Place::new();
    let text = [(1, 10), (2, 20)].map(|(n, coins)| line("a", n, &profile(coins))).concat();
    fs::write(place.path("in.jsonl"), text + &line("b", 1, &profile(5))).unwrap();
    place.ok(&["import", "in.jsonl"]);
    write_value(&place, "a", b"\x02\x00{\"value\":\"a whole value\"}").unwrap();
    let mut bytes = fs::read(place.path("profiles.db")).unwrap();
    let value = b"a whole value";
    let places = bytes.windows(value.len()).enumerate().filter(|(_, found)| found == value);
    let found: Vec<usize> = places.map(|(at, _)| at).collect();
    let [at] = found[..] else { panic!("the value lies in {} places", found.len()) };
    bytes[at + 4] = b'a';
    fs::write(place.path("profiles.db"), bytes).unwrap();

    for args in [&["get", "PlayerData/a"][..], &["diff", "PlayerData/a"]] {
        let ran = place.run(args);
        assert_eq!((ran.code, &*ran.stdout), (1, ""), "{ran:?}");
        for part in ["is damaged", "profilestore rollback", "key=`PlayerData/a` version=`3`"] {
            assert!(ran.stderr.contains(part), "{part}: {ran:?}");
        }
    }
    let named = "PlayerData/a version 3: the stored value is damaged";
    for args in [&["check"][..], &["backup", "copy.db"], &["check", "--store", "sqlite:copy.db"]] {
        let ran = place.run(args);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert_eq!(ran.stdout.matches(named).count(), 1, "{ran:?}");
    }
    let exported = place.run(&["export"]);
    assert!(exported.code == 1 && exported.stderr.contains(named), "{exported:?}");
    assert_eq!(exported.stdout.lines().count(), 3, "all that is whole: {exported:?}");
    assert!(!exported.stdout.contains("whale"), "{exported:?}");
    let report = place.run(&["backup", "again.db", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!(report["unreadable"][0]["number"], 3);

    let asked = place.run(&["rollback", "PlayerData/a", "2"]);
    assert!(asked.stderr.contains("differences that cannot be shown"), "{asked:?}");
    place.ok(&["rollback", "PlayerData/a", "2", "--yes"]);
    assert!(place.ok(&["get", "PlayerData/a"]).contains("20"));
    // It stays in the history, as what it is.
    assert_eq!(place.run(&["check"]).stdout.matches(named).count(), 1);
    assert_eq!(place.run(&["rollback", "PlayerData/a", "3", "--yes"]).code, 1);
}

/// The final name is there with the complete backup, or not at all.
#[test]
fn a_killed_backup_leaves_no_file_under_its_name_and_the_next_one_is_made() {
    let place = Place::with_records();
    let (copy, partial) = (place.path("copy.db"), place.path("copy.db.partial"));
    let mut child = place.command(&["backup", "copy.db"]).spawn().unwrap();
    while !partial.exists() && !copy.exists() {
        std::hint::spin_loop();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    if copy.exists() {
        place.ok(&["check", "--store", "copy.db"]);
        fs::remove_file(&copy).unwrap();
    }
    fs::write(&partial, "half of it").unwrap();
    let ran = place.run(&["check", "--store", "copy.db.partial"]);
    assert_eq!((ran.code, ran.stderr.lines().count()), (3, 1), "{ran:?}");
    assert!(ran.stderr.contains("it is unfinished"), "{ran:?}");
    let ran = place.run(&["restore", "copy.db.partial", "--store", "other.db"]);
    assert!(ran.code == 3 && ran.stderr.contains("it is unfinished"), "{ran:?}");
    assert!(!place.path("other.db").exists());
    place.ok(&["backup", "copy.db"]);
    assert!(!partial.exists());
    place.ok(&["check", "--store", "copy.db"]);
}

#[test]
fn all_that_is_whole_comes_out_of_a_damaged_file() {
    let place = Place::with_records();
    place.ok(&["backup", "copy.db"]);
    let mut bytes = fs::read(place.path("copy.db")).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 8192].fill(0x5a);
    fs::write(place.path("copy.db"), &bytes).unwrap();
    let checked = place.run(&["check", "--store", "copy.db"]);
    assert!(checked.code == 1 && checked.stdout.contains("key=`"), "{checked:?}");
    let salvaged = place.run(&["export", "--salvage", "--store", "copy.db", "whole.jsonl"]);
    assert!(salvaged.code == 1 && salvaged.stdout.contains("left out "), "{salvaged:?}");
    let written = fs::read_to_string(place.path("whole.jsonl")).unwrap().lines().count();
    assert!(written > 1000, "{written}");

    fs::write(place.path("damaged.db"), &bytes).unwrap();
    let args = ["restore", "--salvage", "damaged.db", "--store", "new.db"];
    let restored = place.run(&args);
    assert_eq!(restored.code, 1, "{restored:?}");
    assert!(restored.stdout.contains("left out "), "{restored:?}");
    let said = format!("with {} versions", written.to_string().replacen('1', "1,", 1));
    assert!(restored.stdout.contains(&said), "{said}: {restored:?}");
    assert_eq!(fs::read(place.path("damaged.db")).unwrap(), bytes, "the backup is as it was");
    place.ok(&["check", "--store", "new.db"]);
    let names = fs::read_dir(place.folder.path()).unwrap();
    let names = names.map(|file| file.unwrap().file_name().into_string().unwrap());
    assert!(names.into_iter().all(|name| !name.contains("partial")));
    assert_eq!(place.run(&args).code, 1, "the new store is left alone");
}

/// Any command brought a backup of format 1 to format 2, and no program of before could read it.
#[test]
fn no_command_but_migrate_changes_the_format_of_a_file() {
    let place = Place::new();
    let packed = include_bytes!("../../../profilestore/tests/data/format-1.db.zst");
    let before = zstd::decode_all(&packed[..]).unwrap();
    fs::write(place.path("profiles.db"), &before).unwrap();
    for args in [&["list"][..], &["check"], &["backup", "copy.db"], &["import", "-"]] {
        let ran = place.run(args);
        assert_eq!((ran.code, ran.stderr.lines().count()), (3, 1), "{ran:?}");
        assert!(ran.stderr.contains("`profilestore migrate`"), "{ran:?}");
    }
    assert_eq!(fs::read(place.path("profiles.db")).unwrap(), before);
    let migrated = place.ok(&["migrate"]);
    assert_eq!(migrated, "made or migrated the store sqlite:./profiles.db\n");
    assert!(place.ok(&["migrate"]).contains("is up to date"));
    place.ok(&["check"]);
    assert_eq!(place.run(&["migrate", "--store", "none.db"]).code, 3);
}

/// An escape sequence in a name, a reason or a value does nothing to the terminal.
#[test]
fn names_and_values_are_escaped_in_text_and_exact_in_json() {
    const EVIL: &str = "a\u{1b}[2J\nb\u{9b}31m";
    let place = Place::new();
    fs::write(
        place.path("in.jsonl"),
        line(EVIL, 1, &profile(1)) + &line(EVIL, 2, &serde_json::json!(EVIL)),
    )
    .unwrap();
    place.ok(&["import", "in.jsonl", "--author", EVIL, "--reason", EVIL]);
    let name = "PlayerData/a%1B[2J%0Ab%9B31m";
    for args in [
        &["list"][..],
        &["get", name],
        &["history", name],
        &["diff", name],
        &["audit"],
        &["rollback", name, "1", "--yes", "--author", EVIL],
        &["edit", name, "--set", "/x=\"\u{9b}\"", "--dry-run"],
        &["edit", name, "--set", "/x=\"\u{9b}\"", "--author", EVIL],
        &["get", name],
        &["send", name, "1"],
        &["get", name, "--version", EVIL],
        &["pin", name, "1"],
        &["end-session", name],
        &["check"],
        &["backup", "copy.db"],
        &["remove", name, "--yes"],
    ] {
        let ran = place.run(args);
        for text in [&ran.stdout, &ran.stderr] {
            let raw = text.chars().find(|c| c.is_control() && *c != '\n');
            assert_eq!(raw, None, "{args:?}: {ran:?}");
            assert!(!text.contains("[2J\n"), "{args:?}: {ran:?}");
        }
    }
    let listed = crate::lines(&place.ok(&["list", "--json"]));
    assert_eq!(listed[0]["key"], EVIL);
}
