//! Files that the program may not write, and files that are deleted under a running server.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    process::Command,
};

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

#[test]
fn what_only_reads_works_on_a_file_and_in_a_folder_that_cannot_be_written() {
    let place = Place::new();
    fs::write(place.path("in.jsonl"), line("a", 1, &profile(10)) + &line("a", 2, &profile(20)))
        .unwrap();
    place.ok(&["import", "in.jsonl"]);
    place.ok(&["backup", "backup.db"]);
    // A user without rights must reach the program.
    let elsewhere = tempfile::tempdir().unwrap();
    let program = elsewhere.path().join("profilestore");
    fs::copy(env!("CARGO_BIN_EXE_profilestore"), &program).unwrap();
    let mode = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(elsewhere.path(), 0o755);
    for file in ["profiles.db", "backup.db"] {
        mode(&place.path(file), 0o444);
    }
    mode(place.folder.path(), 0o555);
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
        let edit = ["edit", "PlayerData/a", "--set", "/Coins=1", "--store", file];
        let ran = run_without_rights(&place, program, &edit);
        assert!(ran.code != 0 && ran.stderr.contains("opened for reading only"), "{ran:?}");
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    }
    let ran = run_without_rights(&place, program, &["backup", "--verify", "backup.db"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let count = fs::read_dir(place.folder.path()).unwrap().count();
    mode(place.folder.path(), 0o755);
    assert_eq!(count, 3, "nothing was made beside the three files");
}

#[cfg(feature = "serve")]
#[test]
fn a_server_whose_log_is_deleted_says_so_and_what_it_acknowledged_is_restored() {
    use std::time::Duration;

    use crate::serve::Running;

    let place = Place::new();
    let mut command = place.command(&["serve", "--listen", "127.0.0.1:0", "--json"]);
    let server = Running::begin(command.stderr(std::process::Stdio::piped()));
    let key = server.key.clone().unwrap();
    let put = |name: &str| {
        let path = format!("/v1/stores/PlayerData/profiles/{name}");
        server.ask(&key, "PUT", &path, "If-None-Match: *\r\n", r#"{"data":{"coins":10}}"#)
    };
    assert_eq!(put("kept").0, 201);
    for more in ["-wal", "-shm"] {
        fs::remove_file(place.path(&format!("profiles.db{more}"))).unwrap();
    }
    // The next renewal notices, though nothing is asked of the server.
    let rescued = || {
        let names = fs::read_dir(place.folder.path()).unwrap();
        let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.find(|name| {
            name.strip_prefix("profiles.db.rescued-").is_some_and(|time| !time.contains('.'))
        })
    };
    let mut looks = 0;
    let rescued = loop {
        if let Some(rescued) = rescued() {
            break rescued;
        }
        looks += 1;
        assert!(looks < 600, "nothing was rescued within a minute");
        std::thread::park_timeout(Duration::from_millis(100));
    };
    let (status, body) = put("refused");
    assert!(status >= 500, "nothing is acknowledged: {status} {body}");
    // An operator does not see a store that lacks what was acknowledged.
    let serve = &["serve", "--listen", "127.0.0.1:0"][..];
    for args in [&["list"][..], &["status"], &["get", "PlayerData/kept"], serve] {
        let ran = place.run(args);
        assert!(ran.code == 3 && ran.stderr.contains("restore --force"), "{args:?}: {ran:?}");
    }
    let (_, said) = server.stop_and_read();
    assert!(said.contains("ERROR") && said.contains("nothing is saved any more"), "{said}");
    let restore = ["restore", "--force", &*rescued, "--store", "sqlite:profiles.db"];
    place.ok(&restore);
    fs::remove_file(place.path(&rescued)).unwrap();
    place.ok(&["get", "PlayerData/kept"]);
    assert_eq!(place.run(&["get", "PlayerData/refused"]).code, 4);
    place.ok(&["check"]);
}
