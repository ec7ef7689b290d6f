//! Tests and games for which no virtual time passes, so that no limit in virtual time ever comes.

use std::time::Duration;

use profilestore_luau::{Limits, Line, SpecReport};

use crate::{
    Ran, run,
    specs::{problem, test_within, words},
};

const CALLS: &str = "local Messages = game:GetService('MessagingService')
    local function call() Messages:SubscribeAsync('topic', print):Disconnect() end
    local function call_for_ever() while true do call() end end";

/// Little real time.
fn little() -> Limits {
    let mut limits = Limits::default();
    limits.step = Duration::from_millis(500);
    limits
}

/// Plays a script with it.
fn play(source: &str) -> Ran {
    let limits = little();
    let until = Duration::from_secs(60);
    run(&format!("{CALLS}\n{source}"), |game| game.limits(limits).until(until))
}

/// Runs a file of tests with it.
fn poor(tests: &str) -> SpecReport {
    let source = format!(
        "{CALLS}
        return function()
            {tests}
        end"
    );
    test_within(little(), &source, |_| {})
}

const STOPPED: &str = "the test was stopped: it had run for 3s, and no time had passed";

/// The run never ended.
#[test]
fn a_test_whose_calls_are_answered_at_once_is_stopped_and_the_others_go_on() {
    let report = poor(
        "local after = 0
        afterEach(function() call() after += 1 end)
        it('loops', function() while true do pcall(call_for_ever) end end)
        it('is fine', function()
            call()
            task.wait(1)
            expect(after).to.equal(1)
        end)",
    );
    assert_eq!(words(&report), ["Some/loops failed", "Some/is fine passed"], "{report:?}");
    let problem = problem(&report, 0);
    assert!(problem.starts_with(STOPPED) && problem.contains("Some.spec"), "{report:?}");
}

#[test]
fn calls_of_the_built_in_modules_for_ever_are_stopped() {
    let report = poor(
        "it('loads', function()
            local store = require(game.ServerScriptService.ProfileStore).New('P', {})
            while true do store:GetAsync('x') end
        end)",
    );
    assert_eq!(words(&report), ["Some/loads failed"], "{report:?}");
    assert!(problem(&report, 0).starts_with(STOPPED), "{report:?}");
}

/// The limit of the test that waits never came.
#[test]
fn a_loop_that_an_earlier_test_left_behind_ends_with_the_test_that_it_keeps_from_waiting() {
    let report = poor(
        "it('leaves a loop', function() task.defer(call_for_ever) end)
        it('waits', function() task.wait(1) end)
        it('waits again', function() task.wait(1) call() end)",
    );
    assert_eq!(
        words(&report),
        ["Some/leaves a loop passed", "Some/waits failed", "Some/waits again passed"],
        "{report:?}"
    );
    assert!(problem(&report, 1).starts_with(STOPPED), "{report:?}");
}

/// The 30 s that the end of a game may take never came.
#[test]
fn a_function_of_bind_to_close_for_which_no_time_passes_is_stopped() {
    let report = poor("it('binds', function() game:BindToClose(call_for_ever) end)");
    assert_eq!(words(&report), ["Some/binds passed", "(the end of the game) failed"], "{report:?}");
    assert!(problem(&report, 1).contains("closed for 3s"), "{report:?}");
}

/// It never ended, whatever `until` said.
#[test]
fn a_game_whose_calls_are_answered_at_once_is_stopped_and_closes() {
    let ran = play(
        "game:BindToClose(function() call() task.wait(1) print('closed') end)
        while true do pcall(call_for_ever) end",
    );
    let errors = ran.recorder.texts(Line::Error);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].starts_with("the game was stopped: for 3s no time had passed"), "{errors:?}");
    assert_eq!(ran.recorder.texts(Line::Print), ["closed"]);
    assert_eq!(ran.report.failures, 1);
}

/// It never ended either.
#[test]
fn a_game_for_whose_end_no_time_passes_is_stopped() {
    let ran = play("game:BindToClose(call_for_ever)");
    let errors = ran.recorder.texts(Line::Error);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].starts_with("the game was stopped while it closed"), "{errors:?}");
    assert_eq!(ran.report.failures, 1);
}
