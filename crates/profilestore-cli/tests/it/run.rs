//! Games that are run.

use std::{fs, io::Read, process::Stdio};

use super::{Place, lines};

pub(super) const GAME: &str = "
    local ProfileStore = require(game.ServerScriptService.ProfileStore)
    local Players = game:GetService('Players')
    local store = ProfileStore.New('PlayerData', { Coins = 0 })
    local profiles = {}
    Players.PlayerAdded:Connect(function(player)
        local profile = store:StartSessionAsync(tostring(player.UserId))
        profile.Data.Coins += 5
        print(player.UserId, profile.Data.Coins)
        profiles[player] = profile
    end)
    Players.PlayerRemoving:Connect(function(player)
        -- On a slow machine a player leaves before the start is answered.
        while not profiles[player] do task.wait() end
        profiles[player]:EndSession()
    end)";

fn with_game(source: &str) -> Place {
    let place = Place::new();
    fs::write(place.path("game.luau"), source).unwrap();
    place
}

#[test]
fn a_game_runs_in_virtual_time_and_the_same_seed_gives_the_same_run() {
    let place = with_game(GAME);
    let args = [
        "run",
        "game.luau",
        "--time",
        "virtual",
        "--servers",
        "3",
        "--players",
        "5",
        "--until",
        "300",
        "--seed",
        "7",
    ];
    let first = place.ok(&args);
    assert!(first.lines().count() > 20 && first.contains("[server 3] "), "{first}");
    assert_eq!(first, place.ok(&args));
    let lines = lines(&place.ok(&[
        "run",
        "game.luau",
        "--time",
        "virtual",
        "--players",
        "1:join@1s,leave@2s",
        "--json",
    ]));
    assert_eq!(lines[0]["text"], "1 5");
    assert_eq!((&lines[0]["kind"], &lines[0]["server"]), (&"print".into(), &1.into()));
}

/// It was a syntax error.
#[test]
fn a_script_may_begin_with_a_byte_order_mark() {
    assert_eq!(with_game("\u{feff}print(1)").ok(&["run", "game.luau"]), "1\n");
}

/// It ended without a word, also when no script had done anything.
#[test]
fn a_game_that_prints_nothing_says_that_it_was_played() {
    let place = with_game("task.wait(5)");
    let args = ["run", "game.luau", "--time", "virtual", "--players", "1-2:join@0s"];
    let args = [&args[..], &["--until", "90"]].concat();
    let ran = place.run(&args);
    let said = "played 90 s: 1 script, 2 players, no errors; nothing was printed\n";
    assert_eq!((ran.code, &*ran.stdout, &*ran.stderr), (0, "", said));
    assert_eq!(place.ok(&[&args[..], &["--json"]].concat()), "", "programs have the exit code");
    assert_eq!(with_game("print(1)").ok(&["run", "game.luau"]), "1\n");
}

#[test]
fn what_a_game_saved_is_in_the_store_that_was_named() {
    let place = with_game(GAME);
    let args =
        ["run", "game.luau", "--players", "1:join@0s,leave@300ms", "--store", "sqlite:game.db"];
    assert_eq!(place.ok(&args), "1 5\n");
    assert_eq!(place.ok(&args), "1 10\n");
    let profile = place.json(&["get", "PlayerData/1", "--store", "sqlite:game.db", "--json"]);
    assert!(profile.to_string().contains("\"Coins\":10"), "{profile}");
    assert!(!place.path("profiles.db").exists(), "only where it was told to");
}

/// All of it was in the log beside the file, which looks as if it could be deleted once no program
/// has the file open.
#[test]
fn what_a_game_saved_is_in_the_file_itself_once_the_game_has_ended() {
    let place = with_game(GAME);
    let args =
        ["run", "game.luau", "--players", "1:join@0s,leave@300ms", "--store", "sqlite:game.db"];
    assert_eq!(place.ok(&args), "1 5\n");
    for beside in ["game.db-wal", "game.db-shm"] {
        // It may be there, or not.
        let _ = fs::remove_file(place.path(beside));
    }
    let profile = place.json(&["get", "PlayerData/1", "--store", "sqlite:game.db", "--json"]);
    assert!(profile.to_string().contains("\"Coins\":5"), "{profile}");
}

#[test]
fn a_game_plays_on_the_store_of_the_environment() {
    let place = with_game(GAME);
    let mut run = place.command(&["run", "game.luau", "--players", "1:join@0s,leave@300ms"]);
    let ran = super::Ran::from(run.env("PROFILESTORE_STORE", "sqlite:game.db").output().unwrap());
    assert_eq!((ran.code, &*ran.stdout), (0, "1 5\n"), "{ran:?}");
    let profile = place.json(&["get", "PlayerData/1", "--store", "game.db", "--json"]);
    assert!(profile.to_string().contains("\"Coins\":5"), "{profile}");
}

#[test]
fn a_script_that_fails_is_code_1_with_its_traceback() {
    let place = with_game(
        "local function deep()\n error('broken')\nend\nwarn('careful')\nprint('before')\ndeep()",
    );
    let ran = place.run(&["run", "game.luau", "--time", "virtual"]);
    assert_eq!((ran.code, &*ran.stdout), (1, "before\n"));
    for part in [
        "warning: careful",
        "game:2: broken",
        "stack traceback",
        "deep",
        "1 thread of a script ended with an error",
    ] {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
    let ran = with_game("local = 5").run(&["run", "game.luau"]);
    assert!(ran.code == 1 && ran.stderr.contains("game:1:"), "{ran:?}");
}

#[test]
fn a_length_of_time_may_have_a_unit_and_is_in_seconds_without_one() {
    let place = with_game("while true do task.wait(9) print(math.round(os.clock())) end");
    let played = |until| place.ok(&["run", "game.luau", "--time", "virtual", "--until", until]);
    let minute = played("60");
    assert_eq!(minute.lines().count(), 6, "{minute}");
    for until in ["1m", "60s", "60000ms", "1 minute"] {
        assert_eq!(played(until), minute, "{until}");
    }
}

/// The program's log told of it, and the module's warning as well.
#[test]
fn a_failed_call_of_the_store_is_told_once() {
    const LOGGED: &str = "a call of the store failed";
    let place = with_game(GAME);
    let args = [
        "run",
        "game.luau",
        "--time",
        "virtual",
        "--players",
        "1-5:join@0-30s",
        "--until",
        "300",
        "--errors",
        "30",
    ];
    let ran = place.run(&args);
    assert!(ran.stderr.contains("[ProfileStore]: DataStore API error"), "{ran:?}");
    assert!(!ran.stderr.contains(LOGGED), "{ran:?}");
    let mut run = place.command(&args);
    let ran = super::Ran::from(run.env("PROFILESTORE_LOG", "warn").output().unwrap());
    assert!(ran.stderr.contains(LOGGED), "the log has it when it is asked for: {ran:?}");
}

#[test]
fn a_store_that_a_game_cannot_open_is_explained() {
    let ran =
        with_game("print('played')").run(&["run", "game.luau", "--store", "sqlite:missing/x.db"]);
    assert!(ran.code != 0 && ran.stdout.is_empty(), "{ran:?}");
    assert!(ran.stderr.contains("missing/x.db"), "{ran:?}");
}

#[test]
fn a_module_takes_the_place_of_a_built_in_one() {
    let place = with_game(
        "print(require(game.ServerScriptService.ProfileStore).name, \
        require('Mine').name, script.Name)",
    );
    fs::write(place.path("a.luau"), "return { name = script.Name .. ' of mine' }").unwrap();
    let out = place.ok(&[
        "run",
        "game.luau",
        "--module",
        "ProfileStore=a.luau",
        "--module",
        "Mine=a.luau",
    ]);
    assert_eq!(out, "ProfileStore of mine Mine of mine game\n");
}

#[test]
fn wrong_options_are_code_2() {
    let place = with_game("print(1)");
    for (args, what) in [
        (&["--players", "1:fly@0s"][..], "an action is"),
        (&["--players", "20"], "--until"),
        (&["--players", "1:join@0s/9"], "not so many servers"),
        (&["--errors", "101"], "percentage"),
        (&["--until=-1"], "--until"),
        (&["--until", "NaN"], "--until"),
        (&["--until", "1 moon"], "--until"),
        (&["--max-step", "1h30"], "--max-step"),
        (&["--module", "Name"], "NAME=FILE"),
        (&["--module", "Name=missing.luau"], "missing.luau"),
        (&["--servers", "0"], "--servers"),
        (&["--allow-http", "http://a.example"], "names no host"),
        (&["missing.luau"], "unexpected"),
    ] {
        let ran = place.run(&[&["run", "game.luau"][..], args].concat());
        assert_eq!((ran.code, &*ran.stdout), (2, ""), "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(what), "{args:?}: {}", ran.stderr);
    }
    let ran = place.run(&["run", "none.luau"]);
    assert!(ran.code == 2 && ran.stderr.contains("none.luau"), "{ran:?}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_runs_what_is_bound_to_the_closing_and_saves() {
    let place = with_game(&format!(
        "{GAME}\n game:BindToClose(function() task.wait(0.2) print('closed') end)\n task.wait(1) \
            print('ready')"
    ));
    let args = [
        "run",
        "game.luau",
        "--players",
        "1:join@0s",
        "--until",
        "600",
        "--store",
        "sqlite:game.db",
    ];
    let mut child = place.command(&args).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut seen = String::new();
    while !seen.contains("ready") {
        let mut chunk = [0; 256];
        let read = stdout.read(&mut chunk).unwrap();
        assert!(read > 0, "{seen}");
        seen.push_str(&String::from_utf8_lossy(&chunk[..read]));
    }
    let interrupted = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(interrupted.success());
    stdout.read_to_string(&mut seen).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(seen.ends_with("closed\n"), "{seen}");
    let profile = place.json(&["get", "PlayerData/1", "--store", "sqlite:game.db", "--json"]);
    assert!(profile.to_string().contains("\"Coins\":5"), "{profile}");
    let sessions = place.ok(&["sessions", "--store", "sqlite:game.db", "--json"]);
    assert!(!sessions.contains("PlayerData"), "{sessions}");
}

/// It went on for ever, with a warning every second, and SIGTERM did not end it.
#[cfg(unix)]
#[test]
fn a_game_whose_store_is_taken_away_ends_when_it_is_told_to_and_says_why() {
    let place = with_game(GAME);
    let args = ["run", "game.luau", "--store", "profiles.db", "--players", "1:join@0s,leave@900s"];
    let mut child =
        place.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The player has joined.
    let mut first = [0; 4];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    for more in ["", "-wal", "-shm"] {
        fs::remove_file(place.path(&format!("profiles.db{more}"))).unwrap();
    }
    let kept = || {
        let names = fs::read_dir(place.folder.path()).unwrap();
        let mut names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.any(|name| name.starts_with("profiles.db.rescued-") && !name.contains("partial"))
    };
    let mut looks = 0;
    while !kept() {
        looks += 1;
        assert!(looks < 600, "nothing was rescued within a minute");
        std::thread::park_timeout(std::time::Duration::from_millis(100));
    }
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").arg(pid).status().unwrap().success());
    let ran = crate::Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(
        ran.stderr.contains("error: not saved: ") && ran.stderr.contains("rescued-"),
        "{ran:?}"
    );
    let warnings = ran.stderr.lines().filter(|line| line.contains("a call of the store failed"));
    assert!(warnings.count() <= 2, "{ran:?}");
}
