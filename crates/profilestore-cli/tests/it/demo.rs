//! `profilestore demo`: processes that die, and an audit that says so if anything was lost.

use std::process::Command;

fn demo(args: &[&str]) -> (bool, String, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_profilestore")).arg("demo").args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn servers_that_are_killed_lose_nothing_they_acknowledged() {
    let (passed, out, err) = demo(&[
        "--servers",
        "2",
        "--players",
        "20",
        "--seconds",
        "6",
        "--complete",
        "--kill",
        "--lease-seconds",
        "2",
        "--json",
    ]);
    assert!(passed, "{out}\n{err}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["audit"]["passed"], true);
    let figure =
        |path: &str| report.pointer(path).and_then(serde_json::Value::as_u64).unwrap_or_default();
    for path in [
        "/figures/kills",
        "/figures/saves/count",
        "/figures/hand_overs/count",
        "/figures/messages/sent",
        "/figures/items/traded",
        "/figures/items/given",
        "/figures/items/settled_between_servers",
        "/figures/edits/online",
        "/edits/made_refused_unknown/0",
        "/edits/made_refused_unknown/1",
        "/edits/all_players/reached",
        "/audit/opened/count",
    ] {
        assert!(figure(path) > 0, "{path}: {out}");
    }
    assert_eq!(figure("/audit/opened/count"), 20);
}

#[test]
fn a_given_store_stays_and_serves_again() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("games.db");
    let store = format!("sqlite:{}", file.display());
    for seed in ["7", "7"] {
        let args = [
            "--servers",
            "2",
            "--players",
            "10",
            "--seconds",
            "1",
            "--lease-seconds",
            "2",
            "--seed",
            seed,
            "--store",
            &store,
        ];
        let (passed, out, err) = demo(&args);
        assert!(passed, "{out}\n{err}");
        assert!(out.ends_with("audit passed\n"), "{out}");
        assert!(file.exists());
    }
    let (passed, _, err) = demo(&["--store", "nothing:of-the-kind"]);
    assert!(!passed && err.contains("sqlite:PATH"), "{err}");
}

/// The folder for its store stayed among the temporary ones.
#[cfg(unix)]
#[test]
fn a_demonstration_whose_messenger_cannot_be_used_leaves_no_folder_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let mut demo = Command::new(env!("CARGO_BIN_EXE_profilestore"));
    demo.args(["demo", "--seconds", "1", "--messenger", "amqp://host"]);
    demo.env("TMPDIR", temporary.path()).env_remove("PROFILESTORE_STORE");
    let output = demo.env_remove("PROFILESTORE_CONFIG").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let left: Vec<_> = temporary.path().read_dir().unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}
