//! What an operator types at night: backups that run by themselves, waiting messages, one place of
//! the data, an editor, tables that fit.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};

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

fn backups(place: &Place) -> Vec<String> {
    let folder = fs::read_dir(place.path("backups")).unwrap();
    let mut names: Vec<_> =
        folder.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[cfg(unix)]
fn interrupt(child: &std::process::Child) {
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
}

#[test]
fn backups_into_a_folder_are_named_by_their_time_and_the_oldest_go() {
    let place = place();
    fs::create_dir(place.path("backups")).unwrap();
    for old in ["profiles-2026-01-01T00-00-00Z.db", "profiles-2026-01-02T00-00-00Z.db", "notes"] {
        fs::write(place.path("backups").join(old), "x").unwrap();
    }
    let ran = place.run(&["backup", "--to", "backups", "--keep", "2"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.stderr, "deleted backups/profiles-2026-01-01T00-00-00Z.db\n");
    let names = backups(&place);
    assert_eq!(
        (names.len(), &*names[0], &*names[1]),
        (3, "notes", "profiles-2026-01-02T00-00-00Z.db")
    );
    let made = format!("backups/{}", names[2]);
    let restored = ["--store", "again.db", "restore", &made];
    place.ok(&restored);
    let found = place.json(&["get", "PlayerData/a", "--json", "--store", "again.db"]);
    assert_eq!(found["document"]["Data"]["Coins"], 20);
    for wrong in [
        &["backup"][..],
        &["backup", "x.db", "--to", "backups"],
        &["backup", "x.db", "--every", "1h"],
        &["backup", "--to", "backups", "--every", "1 moon"],
        &["backup", "--to", "backups", "--keep", "0"],
    ] {
        assert_eq!(place.run(wrong).code, 2, "{wrong:?}");
    }
}

#[cfg(unix)]
#[test]
fn backups_come_again_and_again_until_a_signal_and_go_on_where_they_were() {
    let place = place();
    fs::create_dir(place.path("backups")).unwrap();
    let series = ["backup", "--to", "backups", "--every", "1s", "--keep", "2"];
    let begin = || {
        let mut command = place.command(&series);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut child = begin();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    // Two lines a backup; the third one deletes the first.
    let said: Vec<String> = (0..6).map(|_| out.next().unwrap().unwrap()).collect();
    assert!(said.iter().step_by(2).all(|line| line.starts_with("backed up to backups/profiles-")));
    interrupt(&child);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!((1..=3).contains(&backups(&place).len()));
    // One that is not due is not made: the newest there is an hour from being too old.
    let mut child = place
        .command(&["backup", "--to", "backups", "--every", "1h"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let before = backups(&place).len();
    let mut first = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("the next backup is due at "), "{first}");
    interrupt(&child);
    let mut rest = String::new();
    child.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(
        (child.wait().unwrap().code(), &*rest, backups(&place).len()),
        (Some(0), "", before)
    );
}

#[test]
fn a_backup_is_verified_where_it_is_and_stays_as_it_is() {
    let place = place();
    place.ok(&["backup", "good.db"]);
    let before = fs::read(place.path("good.db")).unwrap();
    assert!(place.ok(&["backup", "--verify", "good.db"]).contains("all is well"));
    assert_eq!(fs::read(place.path("good.db")).unwrap(), before);
    let files = || fs::read_dir(place.folder.path()).unwrap().count();
    let there = files();
    let found = place.json(&["backup", "--verify", "good.db", "--json"]);
    assert_eq!((&found["ok"], &found["versions"]), (&json!(true), &json!(2)));
    // One letter of the newest value is another one.
    write_value(&place, "a", b"\x02\x00{\"value\":\"a whole value\"}").unwrap();
    place.ok(&["backup", "bad.db"]);
    let mut bytes = fs::read(place.path("bad.db")).unwrap();
    let value = b"a whole value";
    let at = bytes.windows(value.len()).position(|part| part == value).unwrap();
    bytes[at + 4] = b'a';
    fs::write(place.path("bad.db"), bytes).unwrap();
    let ran = place.run(&["backup", "--verify", "bad.db"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("PlayerData/a version 3: the stored value is damaged"), "{ran:?}");
    assert_eq!(place.run(&["backup", "--verify", "none.db"]).code, 3);
    assert_eq!(files(), there + 1, "only bad.db came");
}

#[test]
fn messages_are_listed_and_taken_back_once() {
    let place = place();
    assert_eq!(place.ok(&["messages", "PlayerData/a"]), "no message waits\n");
    let sent = place.json(&["send", "PlayerData/a", "{\"gift\":5}", "--json"]);
    let id = sent["id"].as_str().unwrap();
    place.ok(&["send", "PlayerData/a", "{\"gift\":6}"]);
    let waiting = lines(&place.ok(&["messages", "PlayerData/a", "--json"]));
    assert_eq!((waiting.len(), &waiting[0]["id"]), (2, &json!(id)));
    assert_eq!(waiting[0]["message"], json!({ "gift": 5 }));
    assert!(place.ok(&["messages", "PlayerData/a"]).contains("{\"gift\":6}"));
    let status = place.run(&["status"]);
    assert!(status.stdout.contains("waiting      2 messages for 1 profile; the oldest of "));
    assert!(status.stdout.contains("PlayerData/a\n"), "{status:?}");
    let cancel = ["messages", "PlayerData/a", "--cancel", id, "--author", "ann"];
    assert_eq!(place.ok(&cancel), format!("PlayerData/a: the message {id} is taken back\n"));
    assert_eq!(place.run(&cancel).code, 4);
    let left = lines(&place.ok(&["messages", "PlayerData/a", "--json"]));
    assert_eq!((left.len(), &left[0]["message"]), (1, &json!({ "gift": 6 })));
    // Its sender's retry brings nothing.
    let again = place.json(&["send", "PlayerData/a", "{\"gift\":5}", "--id", id, "--json"]);
    assert_eq!(again["stored_now"], false);
    let booked = lines(&place.ok(&["audit", "--action", "cancel message", "--json"]));
    assert_eq!((booked.len(), &booked[0]["details"]["message"]), (1, &json!(id)));
    assert_eq!(place.run(&["messages", "PlayerData/nobody"]).code, 4);
}

#[test]
fn one_place_of_the_data_is_shown_by_get_history_and_diff() {
    let place = place();
    assert_eq!(place.ok(&["get", "PlayerData/a", "--path", "/Coins"]), "20\n");
    assert_eq!(place.ok(&["get", "PlayerData/a", "--path", "/Coins", "--version", "1"]), "10\n");
    assert_eq!(place.ok(&["get", "PlayerData/a", "--path", "", "--json"]), "{\"Coins\":20}\n");
    assert_eq!(place.run(&["get", "PlayerData/a", "--path", "/Gems"]).code, 4);
    assert_eq!(place.run(&["get", "PlayerData/a", "--path", "Coins"]).code, 2);
    let rows = lines(&place.ok(&["history", "PlayerData/a", "--path", "/Coins", "--json"]));
    let values: Vec<_> = rows.iter().map(|row| (&row["version"], &row["value"])).collect();
    assert_eq!(values, [(&json!(2), &json!(20)), (&json!(1), &json!(10))]);
    let text = place.ok(&["history", "PlayerData/a", "--path", "/Gems"]);
    assert_eq!(text.lines().filter(|line| line.ends_with("nothing")).count(), 2, "{text}");
    assert!(text.contains("\n2 current  "), "{text}");
    let found = |path: &str| {
        let diff = place.json(&["diff", "PlayerData/a", "1", "--path", path, "--json"]);
        diff["differences"].as_array().unwrap().len()
    };
    assert_eq!((found("/Coins"), found("/Gems"), found("")), (1, 0, 1));
}

#[test]
fn a_number_that_is_not_there_counts_as_0_when_that_is_asked_for() {
    let place = place();
    let add = ["edit", "PlayerData/a", "--add", "/Gems=5"];
    assert_eq!(place.run(&add).code, 1);
    place.ok(&[&add[..], &["--create"]].concat());
    assert_eq!(place.ok(&["get", "PlayerData/a", "--path", "/Gems"]), "5\n");
    assert_eq!(place.run(&["edit", "PlayerData/a", "--create", "--set", "/Gems=5"]).code, 2);
}

#[cfg(unix)]
#[test]
fn an_edit_by_hand_is_what_was_changed_in_the_editor() {
    let place = place();
    let edit = |editor: &str, more: &[&str]| {
        let args = [&["edit", "PlayerData/a", "--interactive", "--yes"], more].concat();
        let mut command = place.command(&args);
        command.env_remove("VISUAL").env("EDITOR", editor).env("TMPDIR", place.folder.path());
        crate::Ran::from(command.output().unwrap())
    };
    let ran = edit("sed -i s/20/25/", &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(place.ok(&["get", "PlayerData/a", "--path", "/Coins"]), "25\n");
    let ran = edit("true", &[]);
    assert_eq!((ran.code, &*ran.stderr), (0, "nothing was changed\n"), "{ran:?}");
    let ran = edit("false", &[]);
    assert!(ran.code == 1 && ran.stderr.contains("the editor failed"), "{ran:?}");
    let ran = edit("sed -i s/25/twenty/", &[]);
    assert!(ran.code == 1 && ran.stderr.contains("what you wrote is kept: file=`"), "{ran:?}");
    let kept = ran.stderr.rsplit('`').nth(1).unwrap();
    assert!(fs::read_to_string(kept).unwrap().contains("twenty"));
    fs::remove_file(kept).unwrap();
    // It does not overwrite what came meanwhile.
    let program = env!("CARGO_BIN_EXE_profilestore");
    let meanwhile = format!("{program} edit PlayerData/a --add /Coins=1 >&2; sed -i s/25/30/");
    let ran = edit(&meanwhile, &[]);
    assert!(ran.code == 1 && ran.stderr.contains("there is 26"), "{ran:?}");
    assert_eq!(edit("true", &["--set", "/Coins=1"]).code, 2);
}

#[test]
fn tables_fit_80_and_120_columns_and_names_and_times_stay_whole() {
    let place = Place::with_records();
    place.ok(&["edit", "PlayerData/7", "--set", "/a=1", "--reason", &"because ".repeat(10)]);
    let key = "LegacyData/Season1/Player_34";
    place.ok(&["send", key, r#"{"gift":5}"#]);
    let sent = place.json(&["send", key, r#"{"gift":6}"#, "--json"]);
    place.ok(&["messages", key, "--cancel", sent["id"].as_str().unwrap()]);
    let all = ["edit", "--all", "--store-name", "LegacyData", "--where", "/none = 1"];
    let edited = place.run(&[&all[..], &["--set", "/b=1", "--yes"]].concat());
    assert_eq!(edited.code, 0, "{edited:?}");
    place.ok(&["backup", "backup.db"]);
    for columns in [80, 120] {
        let commands =
            [&["list"][..], &["sessions"], &["audit"], &["history", key], &["messages", key]];
        for args in commands {
            let mut command = place.command(args);
            let ran =
                crate::Ran::from(command.env("COLUMNS", columns.to_string()).output().unwrap());
            let longest = ran.stdout.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(ran.code == 0 && longest <= columns, "{args:?} {longest}: {}", ran.stdout);
            let shown = match args[0] {
                "messages" => &[r#"{"gift":5}"#][..],
                "audit" => &["cancel message", "  done", "\n  operation "],
                _ => &[],
            };
            assert!(shown.iter().all(|part| ran.stdout.contains(part)), "{}", ran.stdout);
        }
        let mut command = place.command(&["list", "--prefix", "Player_34"]);
        let ran = crate::Ran::from(command.env("COLUMNS", columns.to_string()).output().unwrap());
        assert!(ran.stdout.contains(key) && ran.stdout.contains("2026-09-21T"), "{ran:?}");
        assert!(!ran.stdout.lines().any(|line| line.starts_with('…')), "{ran:?}");
    }
}

/// At 80 columns `audit` and `sessions` had fewer columns, silently.
#[test]
fn a_column_is_in_the_table_or_is_said_to_have_no_room() {
    let place = Place::with_records();
    place.ok(&["edit", "PlayerData/7", "--set", "/a=1", "--reason", &"because ".repeat(10)]);
    let sessions = ["KEY", "JOB", "PLACE", "SINCE", "SERVER", "LAST SEEN", "ASKED FOR BY"];
    let audit = ["TIME", "ACTION", "PROFILE", "AUTHOR", "OUTCOME", "WHAT", "REASON"];
    for (command, columns) in [("sessions", sessions), ("audit", audit)] {
        let shown = |width: &str| {
            crate::Ran::from(place.command(&[command]).env("COLUMNS", width).output().unwrap())
        };
        let ran = shown("80");
        assert!(ran.stderr.starts_with("no room for ") && ran.stderr.contains("--json"), "{ran:?}");
        let head = ran.stdout.lines().next().unwrap();
        for column in columns {
            // One that is cut ends in `…`.
            let begin = &column[..column.len().min(6)];
            assert_ne!(head.contains(begin), ran.stderr.contains(begin), "{column}: {ran:?}");
        }
        assert_eq!(shown("400").stderr, "");
    }
}

#[test]
fn the_help_of_every_command_fits_80_columns() {
    let place = Place::new();
    let help = |command: &str| {
        let args = [command, "--help"];
        let mut command = place.command(if command.is_empty() { &args[1..] } else { &args });
        crate::Ran::from(command.env("COLUMNS", "80").output().unwrap()).stdout
    };
    let all = help("");
    let commands = all.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.take_while(|line| !line.is_empty());
    let names = commands.filter_map(|line| line[2..].split(' ').next());
    let names: Vec<_> = names.filter(|name| !name.is_empty() && *name != "help").collect();
    assert!(names.len() > 20, "{names:?}");
    for name in [""].iter().chain(&names) {
        for line in help(name).lines() {
            assert!(line.chars().count() <= 80, "{name}: {line}");
        }
    }
}

#[test]
fn completions_and_manual_pages_know_every_command() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let text = place.ok(&["completions", shell]);
        assert!(text.contains("end-session") && text.contains("where"), "{shell}");
    }
    assert_eq!(place.run(&["completions", "dos"]).code, 2);
    place.ok(&["man", "pages"]);
    let page = fs::read_to_string(place.path("pages/profilestore-backup.1")).unwrap();
    assert!(page.contains(".TH") && page.contains("every"), "{page}");
    assert!(place.path("pages/profilestore.1").exists());
}

#[test]
fn settings_come_from_the_command_line_then_the_environment_then_the_file() {
    let place = Place::new();
    for (name, coins) in [("a", 1), ("b", 2), ("c", 3)] {
        fs::write(place.path("in.jsonl"), line(name, 1, &profile(coins))).unwrap();
        place.ok(&["import", "in.jsonl", "--store", &format!("{name}.db")]);
    }
    fs::write(place.path("settings.toml"), "store = \"a.db\"\nlisten = \"127.0.0.1:7400\"\n")
        .unwrap();
    let list = ["list", "--config", "settings.toml"];
    assert!(place.ok(&list).contains("PlayerData/a"));
    let mut command = place.command(&list);
    let ran = crate::Ran::from(command.env("PROFILESTORE_STORE", "b.db").output().unwrap());
    assert!(ran.stdout.contains("PlayerData/b"), "{ran:?}");
    let mut command = place.command(&[&list[..], &["--store", "c.db"]].concat());
    let ran = crate::Ran::from(command.env("PROFILESTORE_STORE", "b.db").output().unwrap());
    assert!(ran.stdout.contains("PlayerData/c"), "{ran:?}");
    let mut command = place.command(&["list"]);
    let ran =
        crate::Ran::from(command.env("PROFILESTORE_CONFIG", "settings.toml").output().unwrap());
    assert!(ran.stdout.contains("PlayerData/a"), "{ran:?}");
    for (content, said) in [
        ("store = 5\n", "the settings cannot be read"),
        ("store = \n", "the settings cannot be read"),
        ("store = \"mysql://x\"\n", "store: a store is named PATH"),
    ] {
        fs::write(place.path("wrong.toml"), content).unwrap();
        let ran = place.run(&["list", "--config", "wrong.toml"]);
        assert!(ran.code == 2 && ran.stderr.contains(said), "{ran:?}");
    }
    assert_eq!(place.run(&["list", "--config", "none.toml"]).code, 2);
    if cfg!(feature = "serve") {
        fs::write(place.path("wrong.toml"), "stroe = \"a.db\"\n").unwrap();
        let ran = place.run(&["list", "--config", "wrong.toml"]);
        assert!(ran.code == 2 && ran.stderr.contains("line 1: unknown field `stroe`"), "{ran:?}");
    }
}

#[cfg(unix)]
#[test]
fn status_is_shown_again_until_it_is_interrupted() {
    let place = place();
    let mut child = place.command(&["status", "--watch=1"]).stdout(Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let mut screens = 0;
    for line in out.lines() {
        screens += usize::from(line.unwrap().starts_with("store  "));
        if screens == 3 {
            interrupt(&child);
            break;
        }
    }
    assert_eq!((screens, child.wait().unwrap().code()), (3, Some(0)));
}

/// It said how to undo it, and a name that was mistyped gave `0 profiles edited` and 0.
#[test]
fn an_edit_that_changes_nothing_is_not_to_be_undone_and_a_mistyped_name_is_told() {
    let place = place();
    let edit = |more: &[&str]| {
        place.run(&[&["edit", "--all", "--set", "/Coins=20", "--store-name"], more].concat())
    };
    let ran = edit(&["PlayerData", "--yes"]);
    assert!(ran.code == 0 && !ran.stdout.contains("undo"), "{ran:?}");
    let ran = edit(&["PlayerData", "--prefix", "b", "--yes"]);
    assert!(ran.code == 0 && !ran.stdout.contains("undo"), "{ran:?}");
    for (more, named) in [
        (&["Playerdata", "--yes"][..], "store-name=`Playerdata`"),
        (&["Playerdata", "--dry-run"][..], "store-name=`Playerdata`"),
        (&["PlayerData", "--scope", "live", "--yes"][..], "store-name=`PlayerData` scope=`live`"),
    ] {
        let ran = edit(more);
        assert!(ran.code == 4 && ran.stderr.contains(named), "{ran:?}");
    }
    // A store that is to come may be named.
    let ran = edit(&["Pets", "--new-too", "--yes"]);
    assert!(ran.code == 0 && ran.stdout.contains("undo it with: "), "{ran:?}");
}
