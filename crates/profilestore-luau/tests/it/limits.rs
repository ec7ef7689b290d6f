//! Scripts that nobody trusts: whatever they do, they are stopped with an error, and the game goes
//! on.

use std::time::Duration;

use profilestore_luau::{Limits, Line};

use crate::{Ran, check, run};

/// Runs a script with little time.
fn poor(source: &str) -> Ran {
    limited(source, Duration::from_millis(300))
}

fn limited(source: &str, step: Duration) -> Ran {
    let mut limits = Limits::default();
    limits.step = step;
    limits.memory = 128 << 20;
    run(source, |game| game.limits(limits))
}

/// With time enough for a busy machine.
#[track_caller]
fn fails_with(source: &str, what: &str) {
    fails_within(Duration::from_secs(60), source, what);
}

#[track_caller]
fn is_stopped(source: &str, what: &str) {
    fails_within(Duration::from_millis(300), source, what);
}

#[track_caller]
fn fails_within(step: Duration, source: &str, what: &str) {
    let ran = limited(
        &format!("task.delay(5, print, 'goes on') task.spawn(function() {source} end)"),
        step,
    );
    let errors = ran.recorder.texts(Line::Error);
    assert!(errors.iter().any(|error| error.contains(what)), "{source}: {:?}", ran.recorder);
    assert_eq!(ran.recorder.texts(Line::Print), ["goes on"], "{source}");
}

#[test]
fn endless_work_is_stopped_wherever_it_runs() {
    let stopped = "without waiting for anything";
    is_stopped("game.Players.PlayerAdded:Connect(print) while true do end", stopped);
    is_stopped(
        "local function again() task.defer(again) end again() task.wait(1) error('was stopped')",
        "was stopped",
    );
    is_stopped("string.find(string.rep('a', 60), string.rep('a*', 30) .. 'b')", stopped);
    is_stopped(
        "local t = setmetatable({}, { __index = function(t, k) while true do end end }) \
        local x = t.x",
        stopped,
    );
    is_stopped("table.sort(table.create(1000, 1), function() while true do end end)", stopped);
    is_stopped(
        "game.DataStoreService:GetDataStore('s'):UpdateAsync('k', function() while true do \
        end end)",
        stopped,
    );
    is_stopped("coroutine.wrap(function() while true do end end)()", stopped);
    is_stopped(
        "xpcall(function() while true do end end, function() while true do end end)",
        stopped,
    );
    let ran = poor("game:BindToClose(function() while true do end end)");
    assert!(ran.recorder.texts(Line::Error)[0].contains(stopped), "{:?}", ran.recorder);
    let ran = run("print(require(game.ServerScriptService.Endless))", |game| {
        let mut limits = Limits::default();
        limits.step = Duration::from_millis(300);
        game.limits(limits).module("Endless", "while true do end")
    });
    assert!(ran.recorder.texts(Line::Error)[0].contains(stopped), "{:?}", ran.recorder);
}

#[test]
fn what_was_stopped_names_its_place() {
    let ran = poor("local function spin()\n while true do end\nend\nspin()");
    let errors = ran.recorder.texts(Line::Error);
    assert!(errors[0].contains("game:2") && errors[0].contains("spin"), "{errors:?}");
}

#[test]
fn what_a_thread_left_in_memory_is_collected_before_others_fail() {
    let fill = "local t = {} while true do t = { t } end";
    for (source, errors) in [
        (format!("task.spawn(function() {fill} end)"), 1),
        (format!("task.spawn(pcall, function() {fill} end)"), 0),
    ] {
        let source = format!(
            "local store = game.DataStoreService:GetDataStore('s')
            task.delay(1, function() {source} end)
            task.wait(2)
            local t = {{}} for i = 1, 10000 do t[i] = {{ i }} end
            store:SetAsync('k', t)
            print(#store:GetAsync('k'))"
        );
        let ran = limited(&source, Duration::from_secs(60));
        assert_eq!(ran.recorder.texts(Line::Error).len(), errors, "{:?}", ran.recorder);
        assert_eq!(ran.recorder.texts(Line::Print), ["10000"]);
    }
}

#[test]
fn memory_runs_out_for_the_script_and_not_for_the_program() {
    let memory = "not enough memory";
    fails_with("local s = string.rep('x', 1e9)", memory);
    fails_with("local b = buffer.create(1e9)", memory);
    fails_with("local t = table.create(2 ^ 24, 1)", memory);
    fails_with("local t = {} while true do t = { t, buffer.create(1e6) } end", memory);
    fails_with("local t = {} while true do table.insert(t, coroutine.create(print)) end", memory);
    fails_with("local s = 'x' while true do s ..= s end", memory);
}

#[test]
fn recursion_ends_with_an_error() {
    fails_with("local function again() return 1 + again() end again()", "stack overflow");
    fails_with("local function again() task.spawn(again) error('deep') end again()", "deep");
    fails_with("local function again() coroutine.wrap(again)() end again()", "overflow");
    fails_with("local function again() string.gsub('x', 'x', again) end again()", "overflow");
    fails_with("game.HttpService:JSONDecode(string.rep('[', 100000))", "Can't parse JSON");
    fails_with(
        "local t = {} for _ = 1, 1e5 do t = { t } end game.HttpService:JSONEncode(t)",
        "deep",
    );
    fails_with(
        "local t = { 'x' } for _ = 1, 90 do t = { t, t } end game.HttpService:JSONEncode(t)",
        "too large",
    );
}

#[test]
fn errors_of_any_kind_are_reported() {
    fails_with("error('text')", "text");
    fails_with("error({ code = 1 })", "");
    fails_with("error(nil)", "");
    fails_with("error(game)", "");
    fails_with("error(setmetatable({}, { __tostring = function() error('deeper') end }))", "");
    fails_with(
        "print(setmetatable({}, { __tostring = function() error('deeper') end }))",
        "deeper",
    );
}

#[test]
fn scripts_are_texts_and_never_bytecode() {
    // What a compiled script begins with.
    for first in ['\u{3}', '\u{6}', '\u{0}', '\u{1b}'] {
        let ran = run_broken(&format!("{first}print('ran')"));
        assert!(ran.contains("syntax error") || ran.contains("Expected"), "{ran}");
    }
}

/// The error of a script that cannot be compiled.
fn run_broken(source: &str) -> String {
    let ran = run("require(game.ServerScriptService.Broken)", |game| game.module("Broken", source));
    assert!(!ran.report.is_success());
    ran.recorder.texts(Line::Error).join("\n")
}

#[test]
fn scripts_reach_no_global_that_is_not_allowed() {
    let allowed = "assert bit32 buffer collectgarbage coroutine debug error gcinfo getfenv getmetatable ipairs loadstring math newproxy \
                   next os pairs pcall print rawequal rawget rawlen rawset select setfenv setmetatable string table tonumber tostring \
                   type typeof unpack utf8 vector xpcall _VERSION _G \
                   task wait spawn delay tick time elapsedTime warn integer \
                   Enum Instance DateTime game Game workspace Workspace shared \
                   settings stats version UserSettings \
                   Axes BrickColor CatalogSearchParams CFrame Color3 ColorSequence ColorSequenceKeypoint Content \
                   DockWidgetPluginGuiInfo Faces FloatCurveKey Font NumberRange NumberSequence NumberSequenceKeypoint \
                   OverlapParams PathWaypoint PhysicalProperties Random Ray RaycastParams Rect Region3 Region3int16 \
                   RotationCurveKey SharedTable TweenInfo UDim UDim2 ValueCurveKey Vector2 Vector2int16 Vector3 Vector3int16";
    let script = format!(
        "local allowed = {{}}
        for name in string.gmatch('{allowed}', '%S+') do allowed[name] = true end
        local globals = getfenv(print)
        for _, source in {{ getmetatable(getfenv(1)) and {{}} or {{}}, globals }} do
            for name in source do assert(allowed[name], `the global {{name}} is not known`) end
        end
        for name in os do assert(({{ clock = 1, date = 1, difftime = 1, time = 1 }})[name], name) end
        local marks = {{ setmemorycategory = 1, resetmemorycategory = 1, profilebegin = 1, profileend = 1 }}
        for name, f in debug do
            assert(({{ info = 1, traceback = 1 }})[name] or marks[name] or not pcall(f, 'x'), name)
        end
        for _, name in {{ 'io', 'package', 'dofile', 'loadfile', 'load', 'ffi' }} do assert(globals[name] == nil, name) end
        assert(getmetatable(game) == false or type(getmetatable(game)) ~= 'table', 'metatables are locked')
        assert(not pcall(setmetatable, game, {{}}))
        assert(not pcall(collectgarbage, 'stop'))"
    );
    check(&script);
}

#[test]
fn servers_cannot_reach_each_other() {
    let ran = run(
        "_G.seen, shared.seen = game.JobId, game.JobId
        task.wait(1)
        assert(_G.seen == game.JobId and shared.seen == game.JobId)
        print('own')",
        |game| game.servers(3),
    );
    assert_eq!(ran.succeeded(), ["own", "own", "own"]);
}
