//! Files that the program may not write, and files that are deleted under a running server.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
};

use tempfile::TempDir;

use crate::{Place, Ran, line, profile};

/// A user who owns nothing, for whom rights count when the tests run as root.
const NOBODY: u32 = 65534;

/// Runs a copy of the program as a user who may write nothing in the folder.
fn run_without_rights(place: &Place, program: &str, args: &[&str]) -> Ran {
    let mut command = Command::new(program);
    command.args(args).current_dir(place.folder.path()).env_clear();
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    Ran::from(command.output().unwrap())
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout.trim_ascii() == b"0"
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A store and a backup that can only be read, and a folder with a program that can be run.
fn only_readable() -> (Place, TempDir) {
    let place = Place::new();
    fs::write(place.path("in.jsonl"), line("a", 1, &profile(10)) + &line("a", 2, &profile(20)))
        .unwrap();
    place.ok(&["import", "in.jsonl"]);
    place.ok(&["backup", "backup.db"]);
    // A user without rights must reach the program.
    let elsewhere = tempfile::tempdir().unwrap();
    let program = elsewhere.path().join("profilestore");
    fs::copy(env!("CARGO_BIN_EXE_profilestore"), program).unwrap();
    mode(elsewhere.path(), 0o755);
    for file in ["profiles.db", "backup.db"] {
        mode(&place.path(file), 0o444);
    }
    mode(place.folder.path(), 0o555);
    (place, elsewhere)
}

#[test]
fn what_only_reads_works_on_a_file_and_in_a_folder_that_cannot_be_written() {
    let (place, elsewhere) = only_readable();
    let program = elsewhere.path().join("profilestore");
    let program = program.to_str().unwrap();
    for file in ["profiles.db", "backup.db"] {
        for args in [
            &["list"][..],
            &["get", "PlayerData/a"],
            &["history", "PlayerData/a"],
            &["diff", "PlayerData/a"],
            &["messages", "PlayerData/a"],
            &["sessions"],
            &["audit"],
            &["check"],
            &["export"],
        ] {
            let ran = run_without_rights(&place, program, &[args, &["--store", file]].concat());
            assert_eq!(ran.code, 0, "{file} {args:?}: {ran:?}");
        }
    }
    let ran = run_without_rights(&place, program, &["backup", "--verify", "backup.db"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let count = fs::read_dir(place.folder.path()).unwrap().count();
    mode(place.folder.path(), 0o755);
    assert_eq!(count, 3, "nothing was made beside the three files");
}

/// They ended with 2, as if the command line were wrong.
#[test]
fn what_changes_something_is_code_3_on_a_file_that_cannot_be_written() {
    let (place, elsewhere) = only_readable();
    let program = elsewhere.path().join("profilestore");
    let given_up = "01999d5c-2f1e-7a52-9df4-1c6f8a3b2d10";
    for args in [
        &["import", "in.jsonl"][..],
        &["edit", "PlayerData/a", "--set", "/Coins=1"],
        &["edit", "--all", "--store-name", "PlayerData", "--set", "/Coins=1", "--yes"],
        &["edit", "--undo", given_up, "--yes"],
        &["send", "PlayerData/a", "1"],
        &["rollback", "PlayerData/a", "1", "--yes"],
        &["remove", "PlayerData/a", "--yes"],
        &["audit", "--give-up", given_up],
        // These ask, and asked before they looked.
        &["edit", "PlayerData/a", "--interactive"],
        &["edit", "--all", "--store-name", "PlayerData", "--set", "/Coins=1"],
        &["edit", "--undo", given_up],
        &["send", "PlayerData/nobody", "1"],
        &["rollback", "PlayerData/a", "1"],
        &["remove", "PlayerData/a"],
        &["erase", "--user", "7"],
    ] {
        let ran = run_without_rights(&place, program.to_str().unwrap(), args);
        assert_eq!((ran.code, &*ran.stdout), (3, ""), "{args:?}: {ran:?}");
        let said = ran.stderr.lines().last().unwrap();
        assert!(said.starts_with("error: the store cannot be written: "), "{args:?}: {said}");
    }
    mode(place.folder.path(), 0o755);
}

/// `serve --check` said that all was well, and then it could not serve.
#[cfg(feature = "serve")]
#[test]
fn a_server_on_a_file_that_cannot_be_written_says_so_when_it_is_checked() {
    let (place, elsewhere) = only_readable();
    let program = elsewhere.path().join("profilestore");
    let run = |args: &[&str]| run_without_rights(&place, program.to_str().unwrap(), args);
    let ran = run(&["serve", "--check"]);
    let said = "wrong   the store cannot be written: ";
    assert!(ran.code == 1 && ran.stdout.contains(said), "{ran:?}");
    let ran = run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!((ran.code, &*ran.stdout), (3, ""), "{ran:?}");
    mode(place.folder.path(), 0o755);
}

/// What lies beside the store, by a part of its name.
#[cfg(feature = "serve")]
fn beside(place: &Place, part: &str) -> Option<String> {
    let names = fs::read_dir(place.folder.path()).unwrap();
    let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.find(|name| name.strip_prefix(part).is_some_and(|time| !time.contains('.')))
}

/// Waits for a renewal to notice: nothing is asked of the server.
#[cfg(feature = "serve")]
fn noticed(place: &Place, part: &str) -> String {
    for _ in 0..600 {
        if let Some(name) = beside(place, part) {
            return name;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(100));
    }
    panic!("nothing was kept within a minute");
}

#[cfg(feature = "serve")]
fn put(server: &crate::serve::Running, key: &str, name: &str) -> (u16, String) {
    let path = format!("/v1/stores/PlayerData/profiles/{name}");
    server.ask(key, "PUT", &path, "If-None-Match: *\r\n", r#"{"data":{"coins":10}}"#)
}

/// The server did not end, warned every second, and told callers to try again.
#[cfg(feature = "serve")]
#[track_caller]
fn ends_and_says_once(server: crate::serve::Running, what: &str) {
    let (code, said) = server.stop_and_read();
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("ERROR") && said.contains(what), "{said}");
    let warnings = said.lines().filter(|line| line.contains("a call of the store failed")).count();
    // The host of hosted game servers, and the game server of operators' calls, once each.
    assert!(warnings <= 2, "{said}");
}

#[cfg(feature = "serve")]
#[test]
fn a_server_whose_log_is_deleted_says_so_and_what_it_acknowledged_is_restored() {
    use crate::serve::Running;

    let place = Place::new();
    let mut command = place.command(&["serve", "--listen", "127.0.0.1:0", "--json"]);
    let server = Running::begin(command.stderr(std::process::Stdio::piped()));
    let key = server.key.clone().unwrap();
    assert_eq!(put(&server, &key, "kept").0, 201);
    for more in ["-wal", "-shm"] {
        fs::remove_file(place.path(&format!("profiles.db{more}"))).unwrap();
    }
    // In the seconds until it notices, no command writes to what is left, and none shows it.
    for args in [&["edit", "PlayerData/kept", "--add", "/coins=1"][..], &["sessions"]] {
        let ran = place.run(args);
        assert!(ran.code == 3 && ran.stderr.contains("rescued-"), "{args:?}: {ran:?}");
    }
    let rescued = noticed(&place, "profiles.db.rescued-");
    let (status, body) = put(&server, &key, "refused");
    assert_eq!(status, 500, "nothing is acknowledged: {body}");
    assert!(body.contains("taken-away") && body.contains("\"fix\""), "{body}");
    // An operator does not see a store that lacks what was acknowledged.
    let serve = &["serve", "--listen", "127.0.0.1:0"][..];
    for args in [&["list"][..], &["status"], &["get", "PlayerData/kept"], serve] {
        let ran = place.run(args);
        assert!(ran.code == 3 && ran.stderr.contains("profilestore restore"), "{args:?}: {ran:?}");
    }
    ends_and_says_once(server, "nothing is saved any more");
    fs::create_dir(place.path("before")).unwrap();
    for more in ["", "-wal", "-shm"] {
        let name = format!("profiles.db{more}");
        if place.path(&name).exists() {
            fs::rename(place.path(&name), place.path("before").join(&name)).unwrap();
        }
    }
    place.ok(&["restore", &rescued, "--store", "sqlite:profiles.db"]);
    fs::remove_file(place.path(&rescued)).unwrap();
    place.ok(&["get", "PlayerData/kept"]);
    assert_eq!(place.run(&["get", "PlayerData/refused"]).code, 4);
    place.ok(&["check"]);
}

/// `cp other.db profiles.db` under a running server: the store was destroyed, and the server ended
/// with 0.
#[cfg(feature = "serve")]
#[test]
fn a_server_whose_file_is_overwritten_says_so_and_ends_with_a_failure() {
    use crate::serve::Running;

    let place = Place::new();
    fs::write(place.path("in.jsonl"), line("other", 1, &profile(10))).unwrap();
    place.ok(&["import", "in.jsonl", "--store", "other.db"]);
    let mut command = place.command(&["serve", "--listen", "127.0.0.1:0", "--json"]);
    let server = Running::begin(command.stderr(std::process::Stdio::piped()));
    let key = server.key.clone().unwrap();
    assert_eq!(put(&server, &key, "lost").0, 201);
    let mut copy = Command::new("cp");
    copy.args(["other.db", "profiles.db"]);
    assert!(copy.current_dir(place.folder.path()).status().unwrap().success());
    let remains = noticed(&place, "profiles.db.remains-");
    assert_eq!(put(&server, &key, "refused").0, 500);
    let ran = place.run(&["list"]);
    assert!(ran.code == 3 && ran.stderr.contains(&remains), "{ran:?}");
    ends_and_says_once(server, "wrote over the store's file");
    assert_eq!(
        fs::read(place.path("profiles.db")).unwrap(),
        fs::read(place.path("other.db")).unwrap(),
        "it is left as it is"
    );
}
