//! Threads, waits, errors and limits.

use std::time::Duration;

use profilestore_luau::{Limits, Line};

use crate::{check, run};

#[test]
fn waiting_takes_virtual_time_and_says_how_long() {
    let printed = check(
        "local began = os.clock()
        assert(began > 7, 'a server is some seconds old')
        local waited = task.wait(300)
        assert(waited >= 300 and waited < 300.1, waited)
        assert(math.abs(os.clock() - began - waited) < 0.001)
        task.wait()
        wait(1)
        task.delay(1, print, 'delayed', 2)
        task.defer(print, 'deferred')
        task.spawn(print, 'spawned')
        print('main')",
    );
    assert_eq!(printed, ["spawned", "main", "deferred", "delayed 2"]);
}

#[test]
fn waits_end_in_the_order_in_which_they_were_asked_for() {
    let printed = check("for n = 1, 5 do task.spawn(function() task.wait(1) print(n) end) end");
    assert_eq!(printed, ["1", "2", "3", "4", "5"]);
}

#[test]
fn a_coroutine_that_waits_gives_its_resumer_control() {
    let printed = check(
        "local co = coroutine.create(function(a)
            local ok, waited = pcall(task.wait, 1)
            print(a, ok, waited >= 1)
        end)
        print(coroutine.resume(co, 'arg'))
        print(coroutine.status(co))
        task.wait(2)
        print(coroutine.status(co))",
    );
    assert_eq!(printed, ["true", "suspended", "arg true true", "dead"]);
}

#[test]
fn what_a_script_catches_is_a_text() {
    check(
        "local ok, problem = pcall(task.spawn, 5)
        assert(not ok and type(problem) == 'string' and problem:find('a function or a thread'), problem)
        local ok, problem = pcall(function() error('boom', 0) end)
        assert(problem == 'boom')
        local ok, problem = xpcall(function() error({ code = 3 }) end, function(problem) return problem.code end)
        assert(problem == 3)",
    );
}

#[test]
fn an_error_ends_its_thread_only_and_is_reported_with_a_traceback() {
    let ran = run("task.spawn(function() error('uncaught') end) print('goes on')", |game| game);
    assert_eq!(ran.report.failures, 1);
    assert_eq!(ran.recorder.texts(Line::Print), ["goes on"]);
    let errors = ran.recorder.texts(Line::Error);
    assert!(
        errors[0].contains("game:1: uncaught") && errors[0].contains("stack traceback"),
        "{errors:?}"
    );
}

#[test]
fn a_cancelled_thread_never_runs_again() {
    let printed = check(
        "local thread = task.spawn(function() task.wait(1) print('never') end)
        task.cancel(thread)
        task.wait(2)",
    );
    assert!(printed.is_empty(), "{printed:?}");
}

#[test]
fn a_runaway_script_is_stopped_even_if_it_catches_errors() {
    let mut limits = Limits::default();
    limits.step = Duration::from_millis(200);
    let source = "task.spawn(function() while true do pcall(function() while true do end end) end \
        end) print('after')";
    let ran = run(source, |game| game.limits(limits));
    let errors = ran.recorder.texts(Line::Error);
    assert!(errors[0].contains("without waiting for anything"), "{errors:?}");
    assert!(ran.report.failures > 0);
}

#[test]
fn memory_is_limited() {
    let mut limits = Limits::default();
    limits.memory = 64 << 20;
    let ran =
        run("local t = {} while true do t[#t + 1] = string.rep('x', 1000) .. #t end", |game| {
            game.limits(limits)
        });
    let errors = ran.recorder.texts(Line::Error);
    assert!(errors[0].contains("memory"), "{errors:?}");
}

#[test]
fn every_server_has_a_machine_of_its_own() {
    let ran = run("x = (x or 0) + 1 print(x)", |game| game.servers(3));
    let lines = ran.recorder.lines();
    assert_eq!(
        lines.iter().map(|line| (line.0, line.2.as_str())).collect::<Vec<_>>(),
        [(1, "1"), (2, "1"), (3, "1")]
    );
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let script = "print(math.random(1, 1e6), os.time(), tick())";
    let once = |seed| run(script, |game| game.seed(seed)).succeeded();
    assert_eq!(once(1), once(1));
    assert_ne!(once(1), once(2));
}
