//! Scripts run as games, and what they print.

mod accepted;
mod bring_along;
mod broken_scripts;
mod ci_example;
mod class_table;
mod clients;
mod closing;
mod data_stores;
mod documents;
mod engine;
mod limits;
mod network;
mod order;
mod patterns;
mod players;
mod profile_service;
mod profile_store;
mod published;
mod reflection;
mod seeds;
mod services;
mod small_services;
mod spaces;
mod spec_failures;
mod specs;
mod standstill;
mod stored_values;
mod surface;
mod threads;
mod too_large;
mod trees;
mod two_modules;
mod types;
mod validators;

use std::{env, fs, path::Path, sync::Arc};

use profilestore_luau::{Game, GameBuilder, Line, Recorder, Report, Script, Time};

/// What a script printed, warned and failed with.
struct Ran {
    report: Report,
    recorder: Arc<Recorder>,
}

impl Ran {
    #[track_caller]
    fn succeeded(self) -> Vec<String> {
        assert!(self.report.is_success(), "{:?}\n{:?}", self.report, self.recorder);
        self.recorder.texts(Line::Print)
    }
}

/// Runs a script in virtual time, on one server unless `set` says otherwise.
fn run(source: &str, set: impl FnOnce(GameBuilder) -> GameBuilder) -> Ran {
    let recorder = Arc::new(Recorder::default());
    let game = set(Game::builder().time(Time::Virtual).output(recorder.clone()));
    let report =
        game.run(&Script { name: "game".into(), source: source.into() }).expect("the game runs");
    Ran { report, recorder }
}

/// Holds a file against what it is made of. `PROFILESTORE_WRITE_API=1` writes it.
#[track_caller]
fn current(path: &Path, text: &str) {
    if env::var_os("PROFILESTORE_WRITE_API").is_some() {
        fs::write(path, text).expect("the file is written");
    }
    let there = fs::read_to_string(path).unwrap_or_default();
    let differs = there.lines().zip(text.lines()).find(|(there, wanted)| there != wanted);
    assert!(
        there == text,
        "{} is old; PROFILESTORE_WRITE_API=1 cargo nextest run -p profilestore-luau writes it: \
         {differs:?}",
        path.display()
    );
}

/// Runs a script that checks itself with `assert`.
#[track_caller]
fn check(source: &str) -> Vec<String> {
    run(source, |game| game).succeeded()
}
