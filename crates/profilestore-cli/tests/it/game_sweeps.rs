//! Sweeps of seeds over the tests of games, and the commands that they print.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
};

use serde_json::{Value, json};

use super::{Ran, game_tests::project, lines};

/// The command that a sweep has printed, without the program's name.
#[track_caller]
fn again(ran: &Ran) -> &str {
    let printed = ran.stdout.lines().find_map(|line| line.trim().strip_prefix("profilestore "));
    printed.unwrap_or_else(|| panic!("no command: {ran:?}"))
}

/// The words of such a command, of which one may be quoted.
fn words(command: &str) -> Vec<&str> {
    let parts = command.split('\'').enumerate();
    parts
        .flat_map(|(n, part)| match n % 2 {
            0 => part.split_whitespace().collect::<Vec<_>>(),
            _ => vec![part],
        })
        .collect()
}

#[test]
fn a_sweep_finds_the_seed_at_which_a_test_fails_and_says_how_to_run_it_again() {
    let spec = "return function()
        it('has luck', function()
            if math.random(1, 20) == 1 then error('no luck') end
        end)
    end";
    let place = project(&[("src/Luck.spec.luau", spec)]);
    let ran = place.run(&["test", ".", "--seeds", "1000"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let again = ran.stdout.lines().find(|line| line.contains("profilestore test")).unwrap();
    assert!(again.contains("--only 'Luck > has luck'"), "{again}");
    let again = again.replace("'Luck > has luck'", "Luck.spec");
    let words: Vec<&str> = again.split_whitespace().skip(1).collect();
    let ran = place.run(&words);
    assert!(ran.code == 1 && ran.stdout.contains("no luck"), "{words:?}: {ran:?}");
    let seed: u64 = words.last().unwrap().parse().unwrap();
    if seed > 0 {
        // Those before it hold.
        place.ok(&["test", ".", "--seeds", &seed.to_string()]);
    }
}

#[test]
fn a_sweep_prints_the_shortest_command_that_fails_again() {
    let spec = "return function()
        it('is fine', function() end)
        it('is alone', function()
            task.wait(5)
            assert(not game.Players:FindFirstChild('Player2'), 'a second player is there')
        end)
    end";
    let place = project(&[("src/Data.spec.luau", spec)]);
    let players = "1:join@0s,leave@9s;2:join@0s,leave@9s";
    let options = ["--latency", "50", "--errors", "1", "--play", "--players", players];
    let ran = place.run(&[&["test", ".", "--seeds", "3"], &options[..]].concat());
    assert_eq!(ran.code, 1, "{ran:?}");
    let shortest = "test . --only 'Data > is alone' --seed 0 --play --players 2:join@0s";
    assert_eq!(again(&ran), shortest, "{ran:?}");
    let shorter = ["test", ".", "--only", "Data > is alone", "--play", "--players", "2:join@0s"];
    let ran = place.run(&shorter);
    assert!(ran.code == 1 && ran.stdout.contains("a second player is there"), "{ran:?}");
    assert!(!ran.stdout.contains("1 passed"), "the test alone: {ran:?}");
}

/// Without the players the test failed too, in another way, and that was printed.
#[test]
fn a_command_by_which_a_test_fails_in_another_way_is_no_shorter_one() {
    let spec = "return function()
        it('is alone', function()
            task.wait(5)
            assert(game.Players:FindFirstChild('Player2'), 'no second player is there')
            error('a second player is there')
        end)
    end";
    let place = project(&[("src/Data.spec.luau", spec)]);
    let players = "1:join@0s,leave@9s;2:join@0s,leave@9s";
    let ran = place.run(&["test", ".", "--seeds", "3", "--play", "--players", players]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let shortest = "test . --only 'Data > is alone' --seed 0 --play --players 2:join@0s";
    assert_eq!(again(&ran), shortest, "{ran:?}");
}

/// What the test needs stands in the test before it, and a fault takes it away with some seeds.
const NEEDS_THE_ONE_BEFORE: &str = "
    local have = 0
    it('earns', function() have += 20 end)
    it('spends', function()
        if math.random(1, 10) == 1 then have -= 5 end
        expect(have >= 20).to.equal(true)
    end)";

/// The command had the test alone, which fails with every seed, and went on failing when the fault
/// was mended.
#[test]
fn a_command_by_which_a_test_fails_without_its_fault_is_no_shorter_one() {
    let spec = format!("return function() {NEEDS_THE_ONE_BEFORE} end");
    let place = project(&[("src/Coins.spec.luau", spec.as_str())]);
    let ran = place.run(&["test", ".", "--seeds", "1000"]);
    let again = words(again(&ran));
    assert_eq!(again[..4], ["test", ".", "--only", "src/Coins.spec.luau"], "{ran:?}");
    let still = place.run(&again);
    assert!(still.code == 1 && still.stdout.contains("failed: Coins > spends"), "{still:?}");
    let mended = spec.replace("have -= 5", "have -= 0");
    fs::write(place.path("src/Coins.spec.luau"), mended).unwrap();
    place.ok(&again);
}

#[test]
fn a_test_that_needs_the_one_before_is_run_again_with_its_block() {
    let spec = format!(
        "return function()
            it('is fine', function() end)
            describe('coins', function() {NEEDS_THE_ONE_BEFORE} end)
        end"
    );
    let place = project(&[("src/Data.spec.luau", spec.as_str())]);
    let ran = place.run(&["test", ".", "--seeds", "1000"]);
    let again = words(again(&ran));
    assert_eq!(again[..4], ["test", ".", "--only", "Data > coins"], "{ran:?}");
    let still = place.run(&again);
    assert!(still.code == 1 && still.stdout.contains("1 passed, 1 failed"), "{still:?}");
}

#[test]
fn a_sweep_that_stops_says_at_which_of_its_seeds() {
    let spec = "return function()
        it('has luck', function()
            if math.random(1, 20) == 1 then error('no luck') end
        end)
    end";
    let place = project(&[("src/Luck.spec.luau", spec)]);
    let ran = place.run(&["test", ".", "--seed", "3", "--seeds", "1000"]);
    let seed: u64 = words(again(&ran)).last().unwrap().parse().unwrap();
    let said = format!("fails with seed {seed} ({} of 1000); again:", seed - 2);
    assert!(ran.stdout.contains(&said), "{said}: {ran:?}");
    assert!(ran.stdout.ends_with("0 passed, 1 failed, up to 1000 seeds\n"), "{ran:?}");
}

#[test]
fn a_test_that_fails_with_every_seed_is_said_to() {
    let spec = "return function() it('adds', function() expect(1 + 1).to.equal(3) end) end";
    let place = project(&[("src/Sum.spec.luau", spec)]);
    let ran = place.run(&["test", ".", "--seeds", "3"]);
    let said = "fails with seed 0 (1 of 3), and with those after it; again:";
    assert!(ran.code == 1 && ran.stdout.contains(said), "{ran:?}");
}

/// It was said to fail with seed 0.
#[test]
fn a_file_of_tests_that_cannot_be_loaded_fails_without_a_seed() {
    let place = project(&[("src/Broken.spec.luau", "local = 5")]);
    let ran = place.run(&["test", ".", "--seeds", "3"]);
    assert!(ran.code == 1 && ran.stdout.contains("syntax error: src/Broken.spec"), "{ran:?}");
    assert!(!ran.stdout.contains("seed 0") && !ran.stdout.contains("again"), "{ran:?}");
}

/// Programs were told neither the command nor what was printed.
#[test]
fn what_programs_read_has_the_command_and_what_was_printed() {
    let spec = "return function()
        it('has luck', function()
            print('throws <&>')
            warn('a die')
            if math.random(1, 20) == 1 then error('no luck') end
        end)
    end";
    let place = project(&[("src/Luck.spec.luau", spec)]);
    let ran = place.run(&["test", ".", "--seeds", "1000", "--json", "--junit", "results.xml"]);
    assert_eq!((ran.code, &*ran.stderr), (1, ""));
    let result = &lines(&ran.stdout)[0];
    let again = format!("profilestore test . --only 'Luck > has luck' --seed {}", result["seed"]);
    assert_eq!(result["again"], again.as_str(), "{ran:?}");
    let output = json!([
        { "kind": "print", "text": "throws <&>" },
        { "kind": "warning", "text": "a die" },
    ]);
    assert_eq!(result["output"], output, "{ran:?}");
    let junit = fs::read_to_string(place.path("results.xml")).unwrap();
    for part in [
        "name=\"Luck &gt; has luck\" file=\"src/Luck.spec.luau\" line=\"5\"",
        &format!("again: {}</failure>", again.replace('>', "&gt;")),
        "<system-out>printed: throws &lt;&amp;&gt;\nwarned: a die</system-out>",
    ] {
        assert!(junit.contains(part), "{part}: {junit}");
    }
}

/// Which call had failed on purpose could be read nowhere.
#[test]
fn a_failure_names_the_last_calls_that_were_made_to_fail() {
    let spec = "return function()
        local store = game:GetService('DataStoreService'):GetDataStore('Coins')
        it('saves', function()
            for n = 1, 7 do pcall(store.SetAsync, store, `player {n}`, n) end
            store:GetAsync('last')
        end)
        it('holds', function() pcall(store.RemoveAsync, store, 'key') end)
        it('loads', function()
            local ProfileStore = require(game.ServerScriptService.ProfileStore)
            task.spawn(function() ProfileStore.New('PlayerData', {}):GetAsync('1') end)
            task.wait(1)
            error('no profile')
        end)
    end";
    let place = project(&[("src/Coins.spec.luau", spec)]);
    let options = ["--errors", "100", "--junit", "results.xml"];
    let ran = place.run(&[&["test", "."], &options[..]].concat());
    let last = "made to fail: GetAsync(\"last\") of the data store \"Coins\"\n";
    assert!(ran.code == 1 && ran.stdout.contains(last), "{ran:?}");
    for other in ["player 1", "RemoveAsync"] {
        assert!(!ran.stdout.contains(other), "{other}: {ran:?}");
    }
    let junit = fs::read_to_string(place.path("results.xml")).unwrap();
    assert!(junit.contains("made to fail: GetAsync(&quot;last&quot;)"), "{junit}");

    let ran = place.run(&[&["test", ".", "--json"], &options[..]].concat());
    let results = lines(&ran.stdout);
    let calls = |at: usize| results[at]["failed_calls"].as_array().unwrap().clone();
    assert_eq!(calls(0).len(), 5, "{ran:?}");
    assert!(calls(0).contains(&json!("GetAsync(\"last\") of the data store \"Coins\"")), "{ran:?}");
    assert_eq!((&results[1]["outcome"], calls(1).len()), (&json!("passed"), 0), "{ran:?}");
    let built_in = |call: &Value| call.as_str().unwrap().ends_with("by a built-in module");
    assert!(calls(2).iter().any(built_in), "{ran:?}");
}

/// The ends of its lines were shown as `%0A`.
#[test]
fn what_a_failed_test_printed_in_several_lines_is_shown_in_several_lines() {
    let spec = "return function()
        it('talks', function()
            print('first\\n\\tsecond')
            error('it fails')
        end)
    end";
    let place = project(&[("src/Talk.spec.luau", spec)]);
    let ran = place.run(&["test", "."]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("    printed: first\n          second\n"), "{ran:?}");
}

/// It ended the run: no results, no seed, no file in JUnit's form.
#[test]
fn a_game_that_cannot_be_played_is_a_failure_of_its_file() {
    let spec = "return function() it('is', function() end) end";
    let place = project(&[("src/A.spec.luau", spec), ("src/B.spec.luau", spec)]);
    let late = ["--latency", "100000", "--seeds", "2", "--junit", "results.xml"];
    let ran = place.run(&[&["test", "."], &late[..]].concat());
    assert_eq!((ran.code, &*ran.stderr), (1, ""), "{ran:?}");
    for file in ["src/A.spec.luau", "src/B.spec.luau"] {
        let failed = format!("FAIL {file}\n  failed: (the game)\n    the game server could not");
        assert!(ran.stdout.contains(&failed), "{failed}: {ran:?}");
    }
    assert!(ran.stdout.contains("fails with seed 0 (1 of 2)"), "{ran:?}");
    assert!(ran.stdout.ends_with("2 files: 0 passed, 2 failed, up to 2 seeds\n"), "{ran:?}");
    let junit = fs::read_to_string(place.path("results.xml")).unwrap();
    assert_eq!(junit.matches("name=\"(the game)\"").count(), 2, "{junit}");
}

#[test]
fn a_file_with_a_chosen_test_fails_with_the_seed_with_which_it_cannot_be_loaded() {
    let spec = "return function()
        if math.random(1, 2) == 1 then error('no luck') end
        it('holds', function() end)
    end";
    let place = project(&[("src/Luck.spec.luau", spec)]);
    let ran = place.run(&["test", ".", "--only", "holds", "--seeds", "100"]);
    assert!(ran.code == 1 && ran.stderr.is_empty(), "{ran:?}");
    assert!(ran.stdout.contains("failed: (the file)"), "{ran:?}");
    let again = words(again(&ran));
    assert_eq!(again[..4], ["test", ".", "--only", "src/Luck.spec.luau"], "{ran:?}");
    let still = place.run(&again);
    assert!(still.code == 1 && still.stdout.contains("no luck"), "{still:?}");
}

/// The command of a failure that came only once was printed as one that makes it fail again.
#[test]
fn a_sweep_says_when_a_test_does_not_fail_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // No later run reaches it.
        drop(listener);
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").unwrap();
    });
    let spec = "return function()
        local Http = game:GetService('HttpService')
        it('asks', function()
            assert(not pcall(Http.GetAsync, Http, 'http://HOST'), 'an answer')
        end)
    end"
    .replace("HOST", &address);
    let place = project(&[("src/Net.spec.luau", spec.as_str())]);
    let ran = place.run(&["test", ".", "--seeds", "2", "--allow-http", &address]);
    served.join().unwrap();
    let said = "fails with seed 0 (1 of 2), but did not when it was run once more; again:";
    assert!(ran.code == 1 && ran.stdout.contains(said), "{ran:?}");
    assert!(again(&ran).contains("--only src/Net.spec.luau"), "{ran:?}");
}
