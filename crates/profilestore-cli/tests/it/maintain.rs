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
    assert!(place.ok(&["backup", "copy.db"]).starts_with("backed up to copy.db, "));
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
async fn write_value(place: &Place, key: &str, value: &'static [u8]) -> Result<(), StoreError> {
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
