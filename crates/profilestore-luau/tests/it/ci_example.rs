//! The example of a game whose saving code is tested in CI: every test that its script `run` names
//! passes, with the options that it gives.

use std::{fs, path::Path, time::Duration};

use crate::run;

/// The words of a line of a shell script, without its quotes and variables.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '\'' | '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().expect("there is one").push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn the_examples_tests_pass_as_its_script_plays_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/roblox_ci");
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect("the example's file");
    let module = read("PlayerData.luau");
    let script = read("run").replace("\\\n", " ");
    let mut played = Vec::new();
    for line in script.lines().map(str::trim).filter(|line| line.starts_with("play ")) {
        let words = words(line);
        let name = &words[1];
        let seeds = if line.contains("$seed") { 1..=3 } else { 0..=0 };
        for seed in seeds {
            let ran = run(&read(&format!("tests/{name}.luau")), |mut game| {
                game = game.module("PlayerData", module.clone()).seed(seed);
                for option in words[2..].chunks(2) {
                    let [option, value] = option else { panic!("{option:?} has a value") };
                    let number = || value.parse::<f64>().expect("a number");
                    game = match option.as_str() {
                        "--servers" => game.servers(number() as usize),
                        "--until" => game.until(Duration::from_secs_f64(number())),
                        "--latency" => game.latency(Duration::from_secs_f64(number() / 1000.0)),
                        "--errors" => game.errors(number()),
                        "--players" => game.players(value.parse().expect("a plan")),
                        "--seed" => game,
                        other => panic!("an option that this test does not know: {other}"),
                    };
                }
                game
            });
            let said = format!("{name}: all is well");
            assert!(
                ran.report.is_success(),
                "{name}, seed {seed}: {:?}\n{:?}",
                ran.report,
                ran.recorder
            );
            assert!(
                ran.recorder.lines().iter().any(|line| line.2 == said),
                "{name}, seed {seed}: {:?}",
                ran.recorder
            );
            played.push(name.clone());
        }
    }
    assert_eq!(played.len(), 7, "{played:?}");
}

#[test]
fn the_examples_server_script_runs() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/roblox_ci");
    let read = |name: &str| fs::read_to_string(folder.join(name)).expect("the example's file");
    let source = read("main.luau");
    let ran = run(&source, |game| {
        let game = game.module("PlayerData", read("PlayerData.luau"));
        game.until(Duration::from_secs(30)).players("1:join@1s,leave@20s".parse().expect("a plan"))
    });
    assert!(ran.succeeded().is_empty());
}
