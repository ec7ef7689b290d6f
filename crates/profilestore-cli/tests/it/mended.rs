//! Faults of the operator's commands, each with a test.

use std::{fs, io::Write, process::Stdio, time::Duration};

use profilestore::{
    Attribution, ProfileKey,
    audit::{AuditEntry, AuditOutcome},
    data_store::{
        Change, Commit, CommitId, DataStore as _, NewValue, Returning, SqliteOptions, SqliteStore,
    },
    env::Env,
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Place, Ran, line, lines, profile};

const BEGUN_BEFORE: &str = "01999d5c-2f1e-7a52-9df4-1c6f8a3b2d10";

/// A store with one profile.
fn place() -> Place {
    let place = Place::new();
    fs::write(place.path("in.jsonl"), line("a", 1, &profile(10))).unwrap();
    place.ok(&["import", "in.jsonl"]);
    place
}

/// Books entries as they stand in the log of a store.
fn book(place: &Place, entries: &[AuditEntry]) {
    commit(place, entries.iter().map(|entry| entry.change().unwrap()).collect());
}

/// Applies changes, each as a commit of its own.
#[tokio::main(flavor = "current_thread")]
async fn commit(place: &Place, changes: Vec<Change>) {
    let store = SqliteStore::open(place.path("profiles.db"), SqliteOptions::default()).unwrap();
    let incarnation = store.identity().await.unwrap().incarnation;
    for some in changes.chunks(256) {
        let commit = |change: &Change| Commit {
            id: CommitId(Env::system().uuid()),
            incarnation,
            from: None,
            changes: vec![change.clone()],
            returning: Returning::HEAD,
            fingerprint: None,
        };
        for stored in store.commit(some.iter().map(commit).collect()).await {
            stored.unwrap();
        }
    }
}

/// An edit of many profiles, as it is booked: the operation, and each profile.
fn edit_of_many(operation: Uuid, outcome: AuditOutcome, profiles: usize) -> Vec<AuditEntry> {
    let by = || Attribution::new("bob");
    let own = AuditEntry::new(operation, "edit all", Vec::new(), by()).outcome(outcome);
    let each = (0..profiles).map(|n| {
        let key = ProfileKey::new("PlayerData", "global", &format!("p{n}")).unwrap();
        AuditEntry::new(operation, "edit", vec![key], by())
    });
    [own].into_iter().chain(each).collect()
}

/// The entries about each profile filled what `status` looks through.
#[test]
fn status_sees_what_was_begun_before_an_edit_of_many_profiles() {
    let place = place();
    let import = AuditEntry::new(
        BEGUN_BEFORE.parse().unwrap(),
        "import",
        Vec::new(),
        Attribution::new("bob"),
    );
    book(&place, &[import.outcome(AuditOutcome::Pending)]);
    place.ok(&["backup", "copy.db"]);
    book(&place, &edit_of_many(Env::system().uuid(), AuditOutcome::Done, 4400));
    let ran = place.run(&["status", "--json"]);
    let found: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(found["pending"][0]["operation"], BEGUN_BEFORE, "{found}");
    assert!(found["last_backup_ms"].is_i64(), "{found}");
}

/// The entry of some profile was taken for the operation's own, which is done.
#[test]
fn an_edit_of_many_profiles_that_was_broken_off_can_be_given_up() {
    let place = place();
    let operation = Env::system().uuid();
    book(&place, &edit_of_many(operation, AuditOutcome::Pending, 40));
    let operation = operation.to_string();
    let said = place.ok(&["audit", "--give-up", &operation]);
    assert_eq!(said, format!("edit all {operation} is given up\n"));
    assert_eq!(place.run(&["edit", "--resume", &operation]).code, 2);
}

/// `edit --undo ID --store-name S` undid the operation in all of its stores.
#[test]
fn names_that_do_not_narrow_an_operation_down_are_refused() {
    let place = place();
    for args in [
        &["edit", "--undo", BEGUN_BEFORE, "--store-name", "Other", "--yes"][..],
        &["edit", "--undo", BEGUN_BEFORE, "--scope", "global", "--yes"],
        &["edit", "--resume", BEGUN_BEFORE, "--store-name", "Other"],
        &["edit", "PlayerData/a", "--store-name", "Other", "--set", "/Coins=1"],
        &["edit", "--standing", "--scope", "global"],
    ] {
        let ran = place.run(args);
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(" not go with that") || ran.stderr.contains(" goes with "));
    }
    assert_eq!(place.ok(&["get", "PlayerData/a", "--path", "/Coins"]), "10\n");
}

/// The same command once more, as the runbook says for one that was broken off, subtracted what
/// was added a second time.
#[test]
fn an_operation_is_undone_once() {
    let place = place();
    let coins = || place.ok(&["get", "PlayerData/a", "--path", "/Coins"]);
    let edit = ["edit", "--all", "--store-name", "PlayerData", "--add", "/Coins=5"];
    let edited = place.json(&[&edit[..], &["--yes", "--json"]].concat());
    let operation = edited["operation"].as_str().unwrap();
    assert_eq!(coins(), "15\n");
    // Killed when it was booked, and before it came to the first profile.
    let killed = Env::system().uuid();
    let by = Attribution::new("bob");
    let begun = AuditEntry::new(killed, "undo", Vec::new(), by).detail("undoes", operation);
    book(&place, &[begun.outcome(AuditOutcome::Pending)]);
    let undo = ["edit", "--undo", operation, "--yes", "--json"];
    let undone = place.json(&undo);
    assert_eq!(undone["operation"], killed.to_string(), "it goes on: {undone}");
    assert_eq!((&undone["done"], coins().as_str()), (&json!(1), "10\n"));
    let again = place.run(&undo);
    assert_eq!((again.code, &*again.stdout), (1, ""), "{again:?}");
    assert!(again.stderr.contains(&format!("--undo {killed}.")), "{again:?}");
    assert_eq!(coins(), "10\n");
    place.ok(&[&undo[..], &["--again"]].concat());
    assert_eq!(coins(), "5\n");
    // An undo is an operation like any other.
    place.ok(&["edit", "--undo", &killed.to_string(), "--yes", "--json"]);
    assert_eq!(coins(), "10\n");
}

/// An undo whose entry in the log was damaged kept the operation from being undone for ever.
#[test]
fn an_operation_whose_undo_is_damaged_in_the_log_is_undone_when_that_is_asked_for() {
    let place = place();
    let coins = || place.ok(&["get", "PlayerData/a", "--path", "/Coins"]);
    let edit = ["edit", "--all", "--store-name", "PlayerData", "--add", "/Coins=5"];
    let edited = place.json(&[&edit[..], &["--yes", "--json"]].concat());
    let undo = ["edit", "--undo", edited["operation"].as_str().unwrap(), "--yes"];
    let undone = place.json(&[&undo[..], &["--json"]].concat());
    assert_eq!(coins(), "10\n");
    let by: Uuid = undone["operation"].as_str().unwrap().parse().unwrap();
    let entry = AuditEntry::new(by, "undo", Vec::new(), Attribution::new("bob"));
    let mut damage = entry.change().unwrap();
    let bytes: &'static [u8] = b"\x02\x00{";
    // Over its end, which is the second version.
    if let Change::Write { version, value, .. } = &mut damage {
        *version = 2;
        *value = NewValue::Bytes(bytes.into());
    }
    commit(&place, vec![damage]);
    let refused = place.run(&undo);
    assert_eq!((refused.code, &*refused.stdout), (1, ""), "{refused:?}");
    for part in [by.to_string(), entry.key().to_string(), "--again".to_owned()] {
        assert!(refused.stderr.contains(&part), "{part}: {refused:?}");
    }
    assert_eq!(coins(), "10\n");
    let again = place.run(&[&undo[..], &["--again"]].concat());
    assert!(again.code == 0 && again.stderr.contains("problem: "), "{again:?}");
    assert_eq!(coins(), "5\n");
    // The newest undo is whole.
    let refused = place.run(&undo);
    assert!(refused.code == 1 && refused.stderr.contains("it was undone already"), "{refused:?}");
}

/// A backup to a disk that is full said that the store cannot be used.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_of_the_backup_is_not_the_stores() {
    let place = place();
    let mut shell = std::process::Command::new("unshare");
    shell.args(["-rm", "sh", "-c"]).current_dir(place.folder.path());
    shell.arg(
        "mkdir disk && mount -t tmpfs -o size=16k none disk || exit 99; \
            \"$PROGRAM\" backup disk/copy.db",
    );
    shell.env("PROGRAM", env!("CARGO_BIN_EXE_profilestore"));
    shell.env("PROFILESTORE_STORE", "profiles.db").env_remove("PROFILESTORE_CONFIG");
    let Ok(ran) = shell.output().map(Ran::from) else { return };
    if ran.code == 99 || ran.stderr.starts_with("unshare:") {
        eprintln!("not shown: a disk that fills cannot be mounted on this machine");
        return;
    }
    assert_eq!((ran.code, &*ran.stdout), (1, ""), "{ran:?}");
    let full = "the backup cannot be written: the disk is full: ";
    assert!(ran.stderr.contains(full) && ran.stderr.contains("file=`disk/copy.db`"), "{ran:?}");
}

/// What is shown before the operator is asked stood before the JSON.
#[test]
fn with_json_nothing_else_is_on_standard_output() {
    let place = place();
    let all = ["edit", "--all", "--store-name", "PlayerData", "--set", "/Coins=1", "--json"];
    let ran = place.run(&all);
    assert_eq!((ran.code, &*ran.stdout), (2, ""), "there is no terminal to ask at: {ran:?}");
    assert!(ran.stderr.contains("/Coins: 10 -> 1"), "{ran:?}");
}

/// `%2F` of an id was printed as it is, and typed in it was `/`.
#[test]
fn the_id_of_a_message_that_was_sent_can_be_typed() {
    let place = place();
    let id = format!("{}:order%252F", Env::system().unix_ms());
    let sent = place.ok(&["send", "PlayerData/a", "1", "--id", &id]);
    assert_eq!(sent, format!("sent to PlayerData/a: id {id}\n"));
    let waiting = lines(&place.ok(&["messages", "PlayerData/a", "--json"]));
    assert!(waiting[0]["id"].as_str().unwrap().ends_with(":order%2F"), "{waiting:?}");
    assert!(place.ok(&["messages", "PlayerData/a", "--cancel", &id]).contains(&id));
}

/// A part of the data went to the terminal as it is.
#[test]
fn a_part_of_the_data_as_json_shows_every_character() {
    let place = place();
    place.ok(&["edit", "PlayerData/a", "--set", "/Name=\"a\u{202e}b\""]);
    let shown = place.ok(&["get", "PlayerData/a", "--path", "/Name", "--json"]);
    assert_eq!(shown, "\"a\\u202eb\"\n");
}

/// It was empty, and the exit code 0.
#[cfg(target_os = "linux")]
#[test]
fn a_raw_document_on_a_full_disk_is_an_error() {
    let place = place();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = place.command(&["get", "PlayerData/a", "--raw"]);
    let ran = Ran::from(command.stdout(full).output().unwrap());
    assert!(ran.code == 1 && ran.stderr.contains("cannot be written"), "{ran:?}");
}

/// A pipe that gave its first bytes one by one was taken for plain text.
#[test]
fn a_packed_import_may_come_byte_by_byte() {
    let place = Place::new();
    let packed = fs::read(crate::records()).unwrap();
    let mut command = place.command(&["import", "-", "--json"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for byte in &packed[..4] {
        stdin.write_all(&[*byte]).unwrap();
        // Time for the other side to read it alone. If it does not, the test is an easier one.
        std::thread::park_timeout(Duration::from_millis(20));
    }
    stdin.write_all(&packed[4..]).unwrap();
    drop(stdin);
    let ran = Ran::from(child.wait_with_output().unwrap());
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, &report["versions"]), (0, &json!(1959)), "{ran:?}");
}

/// All profiles were held in memory.
#[test]
fn the_newest_profiles_are_a_bounded_list() {
    let place = Place::new();
    let many: String = (0..1001).map(|n| line(&format!("p{n}"), 1, &profile(n))).collect();
    fs::write(place.path("in.jsonl"), many).unwrap();
    place.ok(&["import", "in.jsonl"]);
    let ran = place.run(&["list", "--newest", "--json"]);
    assert_eq!((ran.code, lines(&ran.stdout).len()), (0, 1000));
    assert!(ran.stderr.contains("for more say --limit"), "{ran:?}");
    let all = place.ok(&["list", "--newest", "--limit", "2000", "--json"]);
    assert_eq!(lines(&all).len(), 1001);
}

/// `failed:` and a reason, without the profile.
#[test]
fn a_profile_that_could_not_be_erased_is_named() {
    let place = Place::new();
    fs::write(place.path("in.jsonl"), line("a", 1, &profile(10))).unwrap();
    place.ok(&["import", "in.jsonl", "--author", "zoe"]);
    let file = place.path("profiles.db");
    let mut bytes = fs::read(&file).unwrap();
    // Cause, author and version string of the profile's version, side by side.
    let row = b"importzoea-1";
    let at = bytes.windows(row.len()).position(|part| part == row).unwrap();
    bytes[at + 8] = b'a';
    fs::write(&file, bytes).unwrap();
    let ran = place.run(&["erase", "--user", "7", "--yes", "--no-vacuum"]);
    assert!(ran.code == 1 && ran.stdout.contains("\nfailed PlayerData/a: "), "{ran:?}");
}

/// The log beside a damaged file was left out silently.
#[cfg(unix)]
#[test]
fn what_is_salvaged_has_the_commits_in_the_log() {
    let place = place();
    // A program that has the store open keeps the log.
    let mut open = place.command(&["status", "--watch", "1", "--json"]);
    let mut open = open.stdout(Stdio::piped()).spawn().unwrap();
    std::io::Read::read_exact(open.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    place.ok(&["edit", "PlayerData/a", "--set", "/Coins=77"]);
    for more in ["", "-wal"] {
        let [from, to] = ["profiles.db", "damaged.db"].map(|name| name.to_owned() + more);
        fs::copy(place.path(&from), place.path(&to)).unwrap();
    }
    open.kill().unwrap();
    open.wait().unwrap();
    place.ok(&["restore", "--salvage", "damaged.db", "--store", "whole.db"]);
    let coins = place.ok(&["get", "PlayerData/a", "--path", "/Coins", "--store", "whole.db"]);
    assert_eq!(coins, "77\n");
    assert!(place.path("damaged.db-wal").exists(), "it stays as it is");
}

/// `no entry matches` was the answer.
#[test]
fn a_list_of_nothing_is_a_wrong_command_line() {
    let place = place();
    for args in [&["audit"][..], &["list"], &["history", "PlayerData/a"]] {
        for wrong in ["0", "-1", "many"] {
            let ran = place.run(&[args, &["--limit", wrong]].concat());
            assert_eq!((ran.code, &*ran.stdout), (2, ""), "{args:?}: {ran:?}");
        }
    }
}

/// It ended with the first look that failed.
#[test]
fn a_watch_goes_on_while_the_store_cannot_be_looked_at() {
    use std::io::BufRead;

    let place = place();
    let mut watch = place.command(&["status", "--watch", "1", "--json"]);
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Read::read_exact(watch.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    for more in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(place.path(&format!("profiles.db{more}")));
    }
    let said = std::io::BufReader::new(watch.stderr.take().unwrap()).lines();
    let errors = said.map(Result::unwrap).filter(|line| line.starts_with("error: "));
    assert_eq!(errors.take(2).count(), 2, "it looks again");
    watch.kill().unwrap();
    watch.wait().unwrap();
}

/// Only one that was broken off was told.
#[test]
fn status_tells_of_a_file_that_could_not_be_cleaned() {
    let place = place();
    let vacuum = |outcome: AuditOutcome| {
        let operation = Env::system().uuid();
        AuditEntry::new(operation, "vacuum", Vec::new(), Attribution::new("bob")).outcome(outcome)
    };
    book(&place, &[vacuum(AuditOutcome::Refused { why: "the log is being read".into() })]);
    let ran = place.run(&["status"]);
    assert!(ran.code == 1 && ran.stdout.contains("profilestore erase --vacuum\n"), "{ran:?}");
    place.ok(&["erase", "--vacuum"]);
    assert!(!place.run(&["status"]).stdout.contains("--vacuum"));
}

/// What they were about was not listed, silently.
#[test]
fn status_tells_of_entries_of_the_log_that_cannot_be_read() {
    let place = place();
    place.ok(&["backup", "copy.db"]);
    book_unreadable(&place);
    let ran = place.run(&["status"]);
    let said = "wrong: of the audit log 1 entry cannot be read";
    assert!(ran.code == 1 && ran.stdout.contains(said), "{ran:?}");
    assert!(ran.stdout.ends_with("profilestore check\n"), "{ran:?}");
}

/// Books an entry that cannot be read.
fn book_unreadable(place: &Place) {
    let operation = Env::system().uuid();
    let entry = AuditEntry::new(operation, "import", Vec::new(), Attribution::new("bob"));
    let mut change = entry.outcome(AuditOutcome::Pending).change().unwrap();
    let Change::Write { value, .. } = &mut change else { panic!("an entry is written") };
    *value = NewValue::Bytes((&b"\x07\x00{}"[..]).into());
    commit(place, vec![change]);
}

/// It was named, with the advice to roll it back, which cannot be done.
#[test]
fn a_damaged_entry_of_the_log_is_named_with_the_place_that_says_what_to_do() {
    let place = place();
    book_unreadable(&place);
    let ran = place.run(&["audit"]);
    assert!(ran.code == 1 && ran.stdout.contains("  import  "), "the rest is shown: {ran:?}");
    let section = "An entry of the audit log is damaged";
    let told = format!("what to do: \"{section}\" in docs/trouble.md\n");
    assert!(ran.stderr.contains("~profilestore/audit/") && ran.stderr.ends_with(&told), "{ran:?}");
    let page = include_str!("../../../../docs/trouble.md");
    assert!(page.contains(&format!("\n## {section}\n")));
}

/// It was refused as a store that exists already.
#[test]
fn a_restore_takes_the_place_of_an_empty_file() {
    let place = place();
    place.ok(&["backup", "copy.db"]);
    fs::write(place.path("new.db"), "").unwrap();
    place.ok(&["restore", "copy.db", "--store", "new.db"]);
    assert!(place.ok(&["list", "--store", "new.db"]).contains("PlayerData/a"));
    let again = place.run(&["restore", "copy.db", "--store", "new.db"]);
    assert!(again.code == 1 && again.stderr.contains("add --force"), "{again:?}");
}

/// It said that the store cannot be used, with exit code 3.
#[test]
fn a_backup_that_cannot_be_written_is_no_fault_of_the_store() {
    let place = place();
    let ran = place.run(&["backup", "nowhere/copy.db"]);
    let said = "error: the backup cannot be written: cannot make a file: ";
    assert!(ran.code == 1 && ran.stderr.starts_with(said), "{ran:?}");
    // Another backup is being made there.
    let partial = fs::File::create(place.path("copy.db.partial")).unwrap();
    partial.try_lock().unwrap();
    let ran = place.run(&["backup", "copy.db"]);
    let said = "error: the backup cannot be written: another process is writing this file: ";
    assert!(ran.code == 1 && ran.stderr.starts_with(said), "{ran:?}");
}

/// SQLite said `disk I/O error`.
#[test]
fn a_folder_is_said_to_be_no_store() {
    let place = place();
    fs::create_dir(place.path("game")).unwrap();
    for args in [&["list", "--store", "game"][..], &["backup", "--verify", "game"]] {
        let ran = place.run(args);
        assert!(ran.code == 3 && ran.stderr.contains("this is a folder"), "{ran:?}");
    }
}

/// The same line came for each vacuum that was not ended.
#[test]
fn status_asks_for_one_vacuum_once() {
    let place = place();
    let vacuum = || {
        let operation = Env::system().uuid();
        AuditEntry::new(operation, "vacuum", Vec::new(), Attribution::new("bob"))
            .outcome(AuditOutcome::Pending)
    };
    book(&place, &[vacuum(), vacuum()]);
    let ran = place.run(&["status"]);
    assert!(ran.stdout.contains("pending      2 operations"), "{ran:?}");
    assert_eq!(ran.stdout.matches("profilestore erase --vacuum\n").count(), 1, "{ran:?}");
}

/// Of a profile that the edit had refused, the undo said that there is none.
#[test]
fn an_undo_counts_what_had_not_been_changed() {
    let place = place();
    fs::write(place.path("more.jsonl"), line("b", 1, &profile(20))).unwrap();
    place.ok(&["import", "more.jsonl"]);
    place.ok(&["edit", "PlayerData/b", "--set", "/Coins=\"many\""]);
    let all = ["edit", "--all", "--store-name", "PlayerData", "--add", "/Coins=1", "--yes"];
    let ran = place.run(&[&all[..], &["--json"]].concat());
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((ran.code, &report["done"]), (1, &json!(1)), "{report}");
    let undo = ["edit", "--undo", report["operation"].as_str().unwrap(), "--yes"];
    let undone = place.run(&undo);
    let counts = "0 unchanged, 0 passed over, 0 refused, 1 without a change to undo\n";
    assert!(undone.code == 0 && undone.stdout.contains(counts), "{undone:?}");
}

/// Each command that writes said that the log was deleted: it was looked for beside the link.
#[cfg(unix)]
#[test]
fn a_store_may_be_named_by_a_link() {
    let place = place();
    let (link, file) = (place.path("profiles.db"), place.path("game.db"));
    fs::rename(&link, &file).unwrap();
    std::os::unix::fs::symlink("game.db", &link).unwrap();
    place.ok(&["edit", "PlayerData/a", "--add", "/Coins=1"]);
    let get = ["get", "PlayerData/a", "--path", "/Coins", "--store", "profiles.db"];
    assert_eq!(place.ok(&get), "11\n");
    place.ok(&["backup", "copy.db"]);
    place.ok(&["restore", "--force", "copy.db"]);
    assert_eq!(place.ok(&get), "11\n");
    assert!(link.is_symlink() && !file.is_symlink());
}

#[test]
fn an_import_that_was_killed_is_not_wrong_any_more_once_its_file_was_imported_whole() {
    let place = Place::new();
    let killed = |file: &str| {
        AuditEntry::new(Env::system().uuid(), "import", Vec::new(), Attribution::new("bob"))
            .detail("file", file)
            .outcome(AuditOutcome::Pending)
    };
    book(&place, &[killed("in.jsonl"), killed("in.jsonl"), killed("other.jsonl")]);
    fs::write(place.path("in.jsonl"), line("a", 1, &profile(10))).unwrap();
    place.ok(&["import", "in.jsonl"]);
    let ran = place.run(&["status"]);
    assert!(ran.stdout.contains("pending      1 operation\n"), "{ran:?}");
}
