//! Projects that are played, and tests of games.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::Path,
    thread,
};

use super::{Place, Ran, lines};

/// A project with these files; `src` is in ServerScriptService.
pub(super) fn project(files: &[(&str, &str)]) -> Place {
    let place = Place::new();
    let project = r#"{ "name": "game", "tree": { "$className": "DataModel",
        "ServerScriptService": { "$path": "src" } } }"#;
    for (name, text) in [("default.project.json", project)].iter().chain(files) {
        let file = place.path(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    place
}

const DATA: &str = "
    local ProfileStore = require(game.ServerScriptService.ProfileStore)
    local Store = ProfileStore.New('PlayerData', { Coins = 0 })
    return {
        earn = function(user_id, coins)
            local profile = Store:StartSessionAsync(tostring(user_id))
            profile.Data.Coins += coins
            profile:EndSession()
        end,
        coins = function(user_id) return Store:GetAsync(tostring(user_id)).Data.Coins end,
    }";
const MAIN: &str = "
    local Data = require('./Data')
    game:GetService('Players').PlayerAdded:Connect(function(player)
        Data.earn(player.UserId, 5)
        task.wait(1)
        print(player.Name, Data.coins(player.UserId))
    end)";
const SPEC: &str = "
    return function()
        local Data = require('./Data')
        it('keeps what is earned', function()
            Data.earn(1, 5)
            Data.earn(1, 6)
            task.wait(1)
            expect(Data.coins(1)).to.equal(11)
        end)
        itSKIP('does more', function() end)
    end";

#[test]
fn a_project_is_played_from_its_folder_or_its_file_and_saves() {
    let place = project(&[("src/Data.luau", DATA), ("src/Main.server.luau", MAIN)]);
    for path in [".", "default.project.json"] {
        let args = ["run", path, "--time", "virtual", "--players", "1:join@0s", "--until", "5"];
        assert_eq!(place.ok(&args), "Player1 5\n", "{path}");
    }
    let args = ["run", ".", "--time", "virtual", "--players", "1:join@0s", "--until", "5"];
    place.ok(&[&args[..], &["--store", "game.db"]].concat());
    let profile = place.json(&["get", "PlayerData/1", "--store", "game.db", "--json"]);
    assert!(profile.to_string().contains("\"Coins\":5"), "{profile}");
}

#[test]
fn what_is_wrong_with_a_project_is_said_with_its_file() {
    let place = project(&[("src/A.meta.json", "{ oops }"), ("src/A.luau", "return 1")]);
    let ran = place.run(&["run", "."]);
    assert_eq!((ran.code, &*ran.stdout), (2, ""));
    assert!(ran.stderr.contains("src/A.meta.json: is no valid JSON"), "{ran:?}");
    let ran = Place::new().run(&["run", "."]);
    assert!(ran.code == 2 && ran.stderr.contains("no default.project.json"), "{ran:?}");
    let place = project(&[("game.rbxl", ""), ("src/A.luau", "return 1"), ("src/M.yaml", "")]);
    for path in ["game.rbxl", "none.rbxl"] {
        let ran = place.run(&["run", path]);
        let problem =
            format!("{path}: {}", if path == "game.rbxl" { "is no place" } else { "cannot" });
        assert!(ran.code == 2 && ran.stderr.contains(&problem), "{ran:?}");
    }
    let ran = place.run(&["run", ".", "--time", "virtual"]);
    assert!(ran.code == 1 && ran.stderr.contains("no script of this game runs"), "{ran:?}");
    assert!(ran.stderr.contains("warning: src/M.yaml: a YAML module is not read"), "{ran:?}");
}

#[test]
fn a_game_that_cannot_begin_warns_of_no_dropped_server() {
    let place = project(&[("src/A.luau", "return 1"), ("alone.luau", "local = 5")]);
    for (path, problem) in [(".", "no script of this game runs"), ("alone.luau", "alone:1:")] {
        let ran = place.run(&["run", path]);
        assert!(ran.code == 1 && ran.stderr.contains(problem), "{ran:?}");
        assert!(!ran.stderr.contains("dropped"), "{ran:?}");
    }
}

/// A place as Roblox Studio saves it, with a script, a module and its tests.
const GAME_FILE: &str = r#"<roblox version="4"><Item class="ServerScriptService" referent="S">
<Properties><string name="Name">ServerScriptService</string></Properties>
<Item class="Script" referent="M"><Properties><string name="Name">Main</string>
<ProtectedString name="Source">print("coins", require(script.Parent.Coins).start)</ProtectedString>
</Properties></Item>
<Item class="ModuleScript" referent="C"><Properties><string name="Name">Coins</string>
<ProtectedString name="Source">return { start = 5 }</ProtectedString></Properties></Item>
<Item class="ModuleScript" referent="T"><Properties><string name="Name">Coins.spec</string>
<ProtectedString name="Source">return function()
it("starts with some", function() expect(require(script.Parent.Coins).start).to.equal(5) end)
end</ProtectedString></Properties></Item></Item></roblox>"#;

#[test]
fn a_place_file_is_played_and_its_tests_are_run() {
    let place = Place::new();
    fs::write(place.path("game.rbxlx"), GAME_FILE).unwrap();
    assert_eq!(place.ok(&["run", "game.rbxlx", "--time", "virtual"]), "coins 5\n");
    let printed = place.ok(&["test", "game.rbxlx"]);
    assert_eq!(printed, "ok   ServerScriptService.Coins.spec\n1 file: 1 passed, 0 failed\n");
}

#[test]
fn a_project_whose_script_waits_for_ever_is_code_1() {
    let waits = "game.ReplicatedStorage:WaitForChild('Shared')";
    let place = project(&[("src/Main.server.luau", waits)]);
    let ran = place.run(&["run", ".", "--time", "virtual"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    for part in [
        "src/Main.server.luau:1: a thread still waits for",
        "WaitForChild(\"Shared\"), which never came; ReplicatedStorage has no children",
    ] {
        assert!(ran.stderr.contains(part), "{part}: {ran:?}");
    }
}

#[test]
fn tests_that_pass_are_code_0_with_a_line_for_each_file() {
    let place = project(&[("src/Data.luau", DATA), ("src/Data.spec.luau", SPEC)]);
    let printed = place.ok(&["test"]);
    assert_eq!(printed, "ok   src/Data.spec.luau\n1 file: 1 passed, 0 failed, 1 skipped\n");
    let printed = lines(&place.ok(&["test", ".", "--json"]));
    assert_eq!(printed.len(), 2);
    assert_eq!(
        (&printed[0]["name"], &printed[0]["outcome"]),
        (&"Data > keeps what is earned".into(), &"passed".into())
    );
}

#[test]
fn a_game_from_nothing_is_tested_with_the_project_that_the_program_names() {
    let place = Place::new();
    fs::create_dir(place.path("src")).unwrap();
    let spec = "return function()
        it('is', function() expect(1 + 1).to.equal(2) end)
    end";
    for name in ["Old.spec.luau", "New.test.luau", "Other.test.lua"] {
        fs::write(place.path("src").join(name), spec).unwrap();
    }
    let ran = place.run(&["test"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    let (_, project) = ran.stderr.split_once("The smallest is ").unwrap();
    fs::write(place.path("default.project.json"), project).unwrap();
    let printed = place.ok(&["test"]);
    assert!(printed.ends_with("3 files: 3 passed, 0 failed\n"), "{printed}");
    let ran = place.run(&["test", "src/Old.spec.luau"]);
    assert!(ran.code == 2 && ran.stderr.contains("is a script, and no game"), "{ran:?}");
}

#[test]
fn a_test_that_fails_is_code_1_with_its_reason_its_place_and_what_was_printed() {
    let spec = "return function()
        it('adds <up>', function()
            print('looking')
            expect(1 + 1).to.equal(3)
        end)
    end";
    let place = project(&[("src/Sum.spec.luau", spec)]);
    let ran = place.run(&["test", ".", "--junit", "results.xml"]);
    assert_eq!((ran.code, &*ran.stderr), (1, ""));
    for part in [
        "FAIL src/Sum.spec.luau",
        "failed: Sum > adds <up>",
        "src/Sum.spec.luau:4: expected 2 to equal 3",
        "printed: looking",
        "0 passed, 1 failed",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {ran:?}");
    }
    let junit = fs::read_to_string(place.path("results.xml")).unwrap();
    for part in [
        "<testsuite name=\"src/Sum.spec.luau\" tests=\"1\" failures=\"1\"",
        "name=\"Sum &gt; adds &lt;up&gt;\"",
        "<failure message=\"src/Sum.spec.luau:4: expected 2 to equal 3\">",
    ] {
        assert!(junit.contains(part), "{part}: {junit}");
    }
}

#[test]
fn coverage_says_which_lines_of_the_games_own_files_ran() {
    let coins = "local Coins = {}
function Coins.add(have, more)
    if more < 0 then
        return nil
    end
    return have + more
end
return Coins";
    let spec = "return function()
        it('adds', function() expect(require('./Coins').add(1, 2)).to.equal(3) end)
    end";
    let place = project(&[
        ("src/Coins.luau", coins),
        ("src/Coins.spec.luau", spec),
        ("src/Never.luau", "local x = 1\nreturn x"),
        ("src/Hud.client.luau", "return 1"),
        ("src/Packages/Lib.luau", "return 1"),
    ]);
    let printed = place.ok(&["test", ".", "--coverage", "--lcov", "lines.info"]);
    for part in [
        "coverage: 5 of 8 lines (62.5 %)",
        "src/Coins.luau: 5 of 6; not 4",
        "src/Never.luau: 0 of 2; not 1-2",
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    assert!(!printed.contains("Hud") && !printed.contains("Lib"), "{printed}");
    let lcov = fs::read_to_string(place.path("lines.info")).unwrap();
    for part in ["SF:src/Coins.luau\nDA:1,1\n", "DA:4,0\n", "LF:6\nLH:5\nend_of_record\n"] {
        assert!(lcov.contains(part), "{part}: {lcov}");
    }
    let printed = lines(&place.ok(&["test", ".", "--coverage", "--json"]));
    let of_coins = printed.iter().find(|line| line["coverage"] == "src/Coins.luau").unwrap();
    assert_eq!(of_coins["missed"], serde_json::json!([4]));
}

#[test]
fn a_file_without_a_test_is_named() {
    let fine = "return function() it('is', function() end) end";
    let place = project(&[
        ("src/A.spec.luau", fine),
        ("src/Forgot.spec.luau", "local function tests() it('is not', function() end) end"),
    ]);
    let ran = place.run(&["test"]);
    assert_eq!((ran.code, &*ran.stdout), (0, "ok   src/A.spec.luau\n1 file: 1 passed, 0 failed\n"));
    assert!(
        ran.stderr.contains("warning: src/Forgot.spec.luau: there is no test in it"),
        "{ran:?}"
    );
    let ran = project(&[("src/A.spec.luau", "")]).run(&["test"]);
    assert!(ran.code == 2 && ran.stderr.contains("error: no test was run"), "{ran:?}");
}

#[test]
fn results_go_into_a_folder_that_is_not_there_yet_and_are_printed_first() {
    let spec = "return function() it('is', function() end) end";
    let place = project(&[("src/A.spec.luau", spec)]);
    place.ok(&["test", "--junit", "out/results.xml", "--lcov", "out/lines/lcov.info"]);
    assert!(place.path("out/results.xml").exists() && place.path("out/lines/lcov.info").exists());
    let ran = place.run(&["test", "--junit", "default.project.json/x.xml"]);
    assert!(ran.code == 2 && ran.stdout.contains("1 passed"), "{ran:?}");
}

/// They stayed, and passed for those of the run that had ended with an error.
#[test]
fn the_files_of_an_earlier_run_are_removed_by_one_that_ends_with_an_error() {
    let spec = "return function() it('is', function() end) end";
    let place = project(&[("src/A.spec.luau", spec)]);
    let files = ["--junit", "results.xml", "--lcov", "lines.info"];
    for more in [&["--only", "nothing"][..], &["--errors", "101"]] {
        place.ok(&[&["test", "."], &files[..]].concat());
        assert!(place.path("results.xml").exists() && place.path("lines.info").exists());
        let ran = place.run(&[&["test", "."], &files[..], more].concat());
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(!place.path("results.xml").exists(), "{ran:?}");
        assert!(!place.path("lines.info").exists(), "{ran:?}");
    }
}

#[test]
fn a_client_without_players_is_refused() {
    let place = project(&[("src/Main.server.luau", "print('up')"), ("shopper.luau", "")]);
    let ran = place.run(&["run", ".", "--time", "virtual", "--client", "shopper.luau"]);
    assert!(ran.code == 2 && ran.stderr.contains("--players"), "{ran:?}");
}

#[test]
fn each_file_has_a_store_of_its_own() {
    let spec = "return function()
        local Data = require(script.Parent.Data)
        it('begins with nothing', function()
            Data.earn(1, 5)
            task.wait(1)
            expect(Data.coins(1)).to.equal(5)
        end)
    end";
    let place =
        project(&[("src/Data.luau", DATA), ("src/A.spec.luau", spec), ("src/B.spec.luau", spec)]);
    assert!(place.ok(&["test"]).ends_with("2 files: 2 passed, 0 failed\n"));
}

#[test]
fn the_games_scripts_play_beside_the_tests_when_that_is_wanted() {
    let spec = "return function()
        local Data = require('./Data')
        it('sees what the game does for a player', function()
            simulate.join(9)
            task.wait(5)
            expect(Data.coins(9)).to.equal(5)
        end)
    end";
    let place = project(&[
        ("src/Data.luau", DATA),
        ("src/Main.server.luau", MAIN),
        ("src/Main.spec.luau", spec),
    ]);
    place.ok(&["test", "--play"]);
    assert_eq!(place.run(&["test"]).code, 1, "nobody earns");
}

#[test]
fn a_test_that_waits_for_what_the_games_scripts_do_is_told_of_play() {
    let spec = "return function()
        it('waits', function() workspace:WaitForChild('Door') end)
    end";
    let place = project(&[
        ("src/Main.server.luau", "Instance.new('Folder', workspace).Name = 'Door'"),
        ("src/Door.spec.luau", spec),
    ]);
    let ran = place.run(&["test"]);
    assert!(ran.code == 1 && ran.stdout.contains("only with --play"), "{ran:?}");
    place.ok(&["test", "--play"]);
}

#[test]
fn a_script_that_cannot_be_loaded_is_named_before_the_tests_that_wait_for_it() {
    let spec = "return function()
        it('waits', function() workspace:WaitForChild('Door') end)
    end";
    let place = project(&[("src/Main.server.luau", "local = 5"), ("src/Door.spec.luau", spec)]);
    let ran = place.run(&["test", "--play"]);
    let (before, _) = ran.stdout.split_once("the test still waits").unwrap();
    assert!(before.contains("syntax error: src/Main.server.luau:1"), "{ran:?}");
    assert!(ran.stdout.ends_with("1 file: 0 passed, 2 failed\n"), "{ran:?}");
}

#[test]
fn wrong_options_of_tests_are_code_2() {
    let spec = "return function() it('is', function() end) itSKIP('later', function() end) end";
    let place = project(&[("src/A.spec.luau", spec)]);
    for (args, what) in [
        (&["--only", "nothing"][..], "no test has `nothing`"),
        (&["--errors", "101"], "percentage"),
        (&["--limit=-1"], "--limit"),
        (&["--play", "--players", "1:fly@0s"], "--players"),
        (&["--players", "1:join@0s"], "add --play"),
        (&["--seeds", "0"], "--seeds"),
        (&["--junit", "default.project.json/x.xml"], "default.project.json/x.xml"),
        (&["--store", "game.db"], "test does not use --store"),
        (&["--messenger", "nats://127.0.0.1"], "test does not use --messenger"),
        (&["--config", "settings.toml"], "test does not use --config"),
    ] {
        let ran = place.run(&[&["test", "."][..], args].concat());
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(what), "{args:?}: {ran:?}");
    }
    let ran = project(&[("src/A.luau", "return 1")]).run(&["test"]);
    assert!(ran.code == 2 && ran.stderr.contains("NAME.spec.luau"), "{ran:?}");
    // What the environment says is for other commands.
    let mut test = place.command(&["test"]);
    let ran = Ran::from(test.env("PROFILESTORE_STORE", "game.db").output().unwrap());
    assert!(ran.code == 0 && !place.path("game.db").exists(), "{ran:?}");
}

/// The help named them, and the command refused them.
#[test]
fn the_help_of_test_lists_no_option_that_test_refuses() {
    let place = Place::new();
    for help in ["--help", "-h"] {
        let printed = place.ok(&["test", help]);
        for option in ["--store", "--messenger", "--config"] {
            assert!(!printed.contains(option), "{option}: {printed}");
        }
        assert!(printed.contains("--json") && printed.contains("--seeds"), "{printed}");
        assert!(place.ok(&["run", help]).contains("--store"));
    }
}

/// It failed the run, though its path did not have what was asked for. So did one whose `afterAll`
/// fails beside the broken block.
#[test]
fn a_broken_file_that_only_does_not_choose_is_a_warning() {
    let half = "return function() afterAll(error) describe('a', function() error('no') end) end";
    let place = project(&[
        ("src/Bag.spec.luau", "return function() it('holds', function() end) end"),
        ("src/Broken.spec.luau", "local = 5"),
        ("src/Half.spec.luau", half),
    ]);
    for only in ["Bag", "holds"] {
        let ran = place.run(&["test", ".", "--only", only]);
        let passed = "ok   src/Bag.spec.luau\n1 file: 1 passed, 0 failed\n";
        assert_eq!((ran.code, &*ran.stdout), (0, passed), "{ran:?}");
        for part in [
            "warning: src/Broken.spec.luau: left out",
            "(the file): syntax error: src/Broken.spec.luau:1",
            "warning: src/Half.spec.luau: left out",
            "Half > a > (its description): src/Half.spec.luau:1: no\n",
        ] {
            assert!(ran.stderr.contains(part), "{part}: {ran:?}");
        }
    }
    for (only, code, part) in [
        ("Broken", 1, "FAIL src/Broken.spec.luau"),
        ("nothing", 2, "warning: src/Broken.spec.luau: left out"),
    ] {
        let ran = place.run(&["test", ".", "--only", only]);
        assert!(ran.code == code, "{ran:?}");
        assert!(format!("{}{}", ran.stdout, ran.stderr).contains(part), "{part}: {ran:?}");
    }
}

#[test]
fn the_example_of_a_project_passes_its_tests() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/roblox_project");
    let folder = folder.to_str().unwrap();
    let printed = Place::new().ok(&["test", folder]);
    assert!(printed.contains("ok ") && printed.contains(" 0 failed"), "{printed}");
    // None of them needs another.
    for test in ["takes no more", "has them again"] {
        let printed = Place::new().ok(&["test", folder, "--only", test]);
        assert!(printed.ends_with("1 file: 1 passed, 0 failed\n"), "{printed}");
    }
}

#[test]
fn the_example_of_a_project_keeps_coins_from_one_server_to_the_other() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/roblox_project");
    let client = folder.join("checks.luau");
    let players = "1-3:join@0-30s/*,hop@90-120s,leave@200s";
    let printed = Place::new().ok(&[
        "run",
        folder.to_str().unwrap(),
        "--servers",
        "2",
        "--client",
        client.to_str().unwrap(),
        "--time",
        "virtual",
        "--until",
        "300",
        "--players",
        players,
    ]);
    for came in ["came with 0\n", "came with 5\n"] {
        assert_eq!(printed.matches(came).count(), 3, "{came}: {printed}");
    }
}

#[test]
fn tests_reach_a_host_that_is_named_unless_they_answer_in_its_place() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let served = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nreal").unwrap();
    });
    let spec = "return function()
        local Http = game:GetService('HttpService')
        it('asks', function()
            simulate.http(function() return 'made up' end)
            expect(Http:GetAsync('http://HOST')).to.equal('made up')
            simulate.http(nil)
            expect(Http:GetAsync('http://HOST')).to.equal('real')
            expect(function() Http:GetAsync('http://localhost:9') end).to.throw('no --allow-http names')
        end)
    end"
    .replace("HOST", &address);
    let place = project(&[("src/Net.spec.luau", spec.as_str())]);
    let out = place.ok(&["test", "--allow-http", &address]);
    assert!(out.ends_with("1 file: 1 passed, 0 failed\n"), "{out}");
    served.join().unwrap();
    let ran = place.run(&["test", "--allow-http", "a b"]);
    assert!(ran.code == 2 && ran.stderr.contains("names no host"), "{ran:?}");
    // A failure's command reaches the same hosts; without them there is no network.
    let ran = place.run(&["test", "--seeds", "2", "--allow-http", "a.example"]);
    assert!(ran.code == 1 && ran.stdout.contains("--allow-http a.example"), "{ran:?}");
    let ran = place.run(&["test"]);
    assert!(ran.code == 1 && ran.stdout.contains("unless --allow-http names a host"), "{ran:?}");
}
