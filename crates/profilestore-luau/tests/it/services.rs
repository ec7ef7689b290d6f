//! Roblox's globals and services, as scripts find them.

use profilestore_luau::Line;

use crate::{check, run};

#[test]
fn types_are_roblox_types() {
    check(
        "assert(typeof(game) == 'Instance' and type(game) == 'userdata')
        assert(typeof(script) == 'Instance' and script.Name == 'game' and script.ClassName == 'Script')
        assert(script.Parent == game:GetService('ServerScriptService') and game.ServerScriptService == script.Parent)
        assert(typeof(Enum) == 'Enums' and typeof(Enum.SortDirection) == 'Enum')
        assert(typeof(Enum.SortDirection.Ascending) == 'EnumItem')
        assert(Enum.SortDirection.Ascending.EnumType == Enum.SortDirection)
        assert(Enum.SortDirection.Descending.Value == 1 and Enum.SortDirection.Descending.Name == 'Descending')
        assert(tostring(Enum.ProductPurchaseDecision.PurchaseGranted) == 'Enum.ProductPurchaseDecision.PurchaseGranted')
        assert(#Enum.SortDirection:GetEnumItems() == 2)
        assert(typeof(DateTime.now()) == 'DateTime')
        local signal = game:GetService('RunService').Heartbeat
        assert(typeof(signal) == 'RBXScriptSignal' and signal == game:GetService('RunService').Heartbeat)
        local connection = signal:Connect(function() end)
        assert(typeof(connection) == 'RBXScriptConnection' and connection.Connected)
        connection:Disconnect()
        connection:Disconnect()
        assert(not connection.Connected)
        assert(workspace == game.Workspace and workspace.ClassName == 'Workspace')",
    );
}

#[test]
fn what_is_not_there_is_named() {
    check(
        "local function fails(text, f, ...)
            local ok, problem = pcall(f, ...)
            assert(not ok and type(problem) == 'string' and problem:find(text, 1, true), tostring(problem))
        end
        fails(\"'NoService' is not a valid Service name\", game.GetService, game, 'NoService')
        fails('Explode is not a valid member of DataModel \"Game\"', function() game:Explode() end)
        fails('game:', function() game:Explode() end)
        fails('Foo is not a valid member of ServerScriptService \"ServerScriptService\"', function() return script.Parent.Foo end)
        fails('\"NoClass\"', Instance.new, 'NoClass')
        fails('NoSuch is not a valid member of \"Enum\"', function() return Enum.NoSuch end)
        fails('Sideways is not a valid member of \"Enum.SortDirection\"', function() return Enum.SortDirection.Sideways end)
        fails('Property is read only', function() game.PlaceId = 5 end)
        fails('GetService', function() game.GetService('Players') end)
        fails('loadstring', function() loadstring('print(1)') end)
        fails('no network', function() game:GetService('HttpService'):GetAsync('http://localhost') end)
        fails('./init\": it is no ModuleScript', require, './init')
        fails('type number', require, 1234)
        assert(require('ProfileStore') == require(script.Parent.ProfileStore) and require('./ProfileStore') == require('@game/ServerScriptService/ProfileStore'))
        assert(io == nil and os.execute == nil and os.getenv == nil and debug.getregistry == nil)",
    );
}

#[test]
fn numbers_are_printed_as_luau_writes_them() {
    let printed = check(
        "for _, number in { 1e300, 2 ^ 63, 5e-324, 1e-7, -0, 5, 0.5, 1 / 0, 0 / 0 } do
            print(number)
            print(tostring(number))
        end",
    );
    assert_eq!(printed[0], "1e+300");
    assert!(printed.chunks(2).all(|both| both[0] == both[1]), "{printed:?}");
}

#[test]
fn json_that_is_no_utf8_is_refused_as_other_bad_json_is() {
    check(
        "local ok, problem = pcall(function() game.HttpService:JSONDecode('\\255') end)
        assert(not ok and problem:find(\"Can't parse JSON: invalid utf-8\", 1, true), problem)",
    );
}

#[test]
fn libraries_and_globals_are_read_only() {
    check(
        "assert(not pcall(function() string.format = nil end))
        assert(not pcall(function() task.wait = nil end))
        assert(not pcall(function() Enum.SortDirection.Ascending = nil end))
        assert(not pcall(function() getmetatable('').__index = nil end))
        _G.mine, shared.too = 1, 2
        assert(_G.mine == 1 and shared.too == 2 and mine == nil)",
    );
}

#[test]
fn instances_form_a_tree() {
    check(
        "local folder = Instance.new('Folder')
        folder.Name = 'leaderstats'
        local added = {}
        workspace.ChildAdded:Connect(function(child) table.insert(added, child.Name) end)
        folder.Parent = workspace
        local coins = Instance.new('IntValue', folder)
        coins.Name = 'Coins'
        local seen = {}
        coins.Changed:Connect(function(value) table.insert(seen, value) end)
        coins:GetPropertyChangedSignal('Value'):Connect(function() table.insert(seen, 'signal') end)
        coins.Value += 5
        assert(seen[1] == 'signal' and seen[2] == 5 and #seen == 2)
        assert(added[1] == 'leaderstats')
        assert(workspace.leaderstats.Coins == coins and workspace:FindFirstChild('Coins', true) == coins)
        assert(workspace:FindFirstChild('Coins') == nil and folder:FindFirstChildWhichIsA('ValueBase') == coins)
        assert(coins:IsDescendantOf(workspace) and coins:IsDescendantOf(game) and workspace:IsAncestorOf(coins))
        assert(coins:GetFullName() == 'Workspace.leaderstats.Coins', coins:GetFullName())
        assert(coins:IsA('IntValue') and coins:IsA('Instance') and not coins:IsA('Folder'))
        assert(folder:WaitForChild('Coins') == coins and folder:WaitForChild('None', 0.1) == nil)
        task.delay(1, function() Instance.new('Folder', folder).Name = 'Late' end)
        assert(folder:WaitForChild('Late').Name == 'Late')
        assert(not pcall(function() workspace.leaderstats.Parent = coins end), 'no cycles')
        coins:SetAttribute('a', 1)
        assert(coins:GetAttribute('a') == 1)
        folder:Destroy()
        assert(folder.Parent == nil and coins.Parent == nil and #workspace:GetChildren() == 0)
        assert(not pcall(function() folder.Parent = workspace end), 'destroyed')
        local event = Instance.new('BindableEvent')
        task.delay(1, function() event:Fire(1, 'x') end)
        local a, b = event.Event:Wait()
        assert(a == 1 and b == 'x')",
    );
}

#[test]
fn signals_call_listeners_newest_first_in_threads_of_their_own() {
    let ran = run(
        "local event = Instance.new('BindableEvent')
        event.Event:Connect(function() print('first') end)
        local second = event.Event:Connect(function() task.wait() print('later') error('broken') end)
        event.Event:Once(function() print('once') end)
        task.spawn(function() event.Event:Wait() print('waited') end)
        event:Fire()
        task.wait(1)
        second:Disconnect()
        event:Fire()",
        |game| game,
    );
    assert_eq!(ran.recorder.texts(Line::Print), ["waited", "once", "first", "later", "first"]);
    assert!(ran.recorder.texts(Line::Error)[0].contains("broken"));
}

#[test]
fn dates_are_those_of_the_gregorian_calendar() {
    check(
        "local date = DateTime.fromUniversalTime(2021, 08, 13)
        assert(date.UnixTimestampMillis == 1628812800000 and date.UnixTimestamp == 1628812800)
        assert(date:ToIsoDate() == '2021-08-13T00:00:00Z')
        assert(DateTime.fromUnixTimestamp(1628952101):ToIsoDate() == '2021-08-14T14:41:41Z')
        assert(DateTime.fromUnixTimestampMillis(1628952101500).UnixTimestampMillis == 1628952101500)
        assert(DateTime.fromIsoDate('2021-08-14T16:41:41+02:00') == DateTime.fromUnixTimestamp(1628952101))
        assert(DateTime.fromIsoDate('2021-08-14').UnixTimestamp == 1628899200)
        assert(DateTime.fromIsoDate('yesterday') == nil and DateTime.fromIsoDate('2021-02-30') == nil)
        assert(DateTime.fromUniversalTime(1969, 12, 31, 23, 59, 59, 999).UnixTimestampMillis == -1)
        assert(DateTime.fromUniversalTime(2000, 2, 29):ToUniversalTime().Day == 29)
        local fields = DateTime.fromUnixTimestampMillis(1628952101500):ToUniversalTime()
        assert(fields.Year == 2021 and fields.Month == 8 and fields.Hour == 14 and fields.Millisecond == 500)
        assert(date:FormatUniversalTime('LL', 'en-us') == 'August 13, 2021')
        assert(date:FormatUniversalTime('dddd YYYY-MM-DD [at] HH:mm:ss.SSS', 'en-us') == 'Friday 2021-08-13 at 00:00:00.000')
        assert(not pcall(DateTime.fromUniversalTime, 2021, 2, 30) and not pcall(DateTime.fromUniversalTime, 2021, 13))
        assert(math.abs(DateTime.now().UnixTimestampMillis / 1000 - tick()) < 0.001)
        for day = -100000, 100000, 997 do
            local there = DateTime.fromUnixTimestamp(day * 86400)
            local f = there:ToUniversalTime()
            assert(DateTime.fromUniversalTime(f.Year, f.Month, f.Day) == there)
            assert(os.date('!%Y-%m-%d', math.max(day, 0) * 86400) == DateTime.fromUnixTimestamp(math.max(day, 0) * 86400):FormatUniversalTime('YYYY-MM-DD', 'en-us'))
        end",
    );
}

#[test]
fn frames_come_sixty_times_a_second_while_a_script_listens() {
    check(
        "local RunService = game:GetService('RunService')
        assert(RunService:IsStudio() == false and RunService:IsServer() and not RunService:IsClient())
        local frames, time = 0, 0
        local connection = RunService.Heartbeat:Connect(function(passed) frames += 1 time += passed end)
        task.wait(10)
        connection:Disconnect()
        assert(math.abs(frames - 600) <= 1, frames)
        assert(math.abs(time - 10) < 0.05, time)
        task.wait(1)
        assert(math.abs(frames - 600) <= 1, frames)
        assert(RunService.Heartbeat:Wait() > 0)",
    );
}

#[test]
fn identifiers_and_json() {
    check(
        "local HttpService = game:GetService('HttpService')
        local seen = {}
        for _ = 1, 1000 do
            local guid = HttpService:GenerateGUID(false)
            assert(guid:match('^%x%x%x%x%x%x%x%x%-%x%x%x%x%-4%x%x%x%-[89AB]%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$'), guid)
            assert(not seen[guid] and guid == guid:upper())
            seen[guid] = true
        end
        assert(HttpService:GenerateGUID():match('^{.*}$') and HttpService:GenerateGUID(true):match('^{.*}$'))
        local text = HttpService:JSONEncode({ a = { 1, 2 }, b = 'x' })
        assert(text == [[{\"a\":[1,2],\"b\":\"x\"}]], text)
        assert(HttpService:JSONDecode(text).a[2] == 2)
        assert(HttpService:JSONEncode({ 1, 2, x = 3 }) == '[1,2]')
        local ok, problem = pcall(HttpService.JSONDecode, HttpService, '{')
        assert(not ok and problem:find(\"Can't parse JSON\", 1, true), problem)
        assert(HttpService:UrlEncode('a b/c') == 'a%20b%2Fc')",
    );
}

#[test]
fn modules_load_once_and_may_wait() {
    let ran = run(
        "local module = game.ServerScriptService.Counter
        local function get() return require(module) end
        local results = {}
        for n = 1, 3 do task.spawn(function() results[n] = require(module) print('got', n) end) end
        task.wait(2)
        assert(results[1] == results[2] and results[1].name == 'Counter' and require(script.Parent.Counter) == results[1])
        local ok, problem = pcall(require, game.ServerScriptService.Broken)
        assert(not ok and problem:find('experienced an error while loading'), problem)
        local ok, problem = pcall(require, game.ServerScriptService.Silent)
        assert(not ok and problem:find('did not return exactly one value'), problem)
        local ok, problem = pcall(require, game.ServerScriptService.Syntax)
        assert(not ok and problem:find('experienced an error while loading'), problem)
        local ok, problem = pcall(require, game.ServerScriptService.A)
        assert(ok and problem.b == 'refused', problem)
        local ok, problem = pcall(require, script)
        assert(not ok and problem:find('ModuleScript'), problem)",
        |game| {
            game.module("Counter", "print('loads') task.wait(1) return { name = script.Name }")
                .module("Broken", "error('oh no')")
                .module("Silent", "local x = 1")
                .module("Syntax", "local = 5")
                .module("A", "return { b = require(script.Parent.B) }")
                .module(
                    "B",
                    "local ok, problem = pcall(require, script.Parent.A)
                    assert(not ok and problem:find('recursively'), problem)
                    return 'refused'",
                )
        },
    );
    assert_eq!(ran.recorder.texts(Line::Print), ["loads", "got 1", "got 2", "got 3"]);
    let errors = ran.recorder.texts(Line::Error);
    assert_eq!((errors.len(), ran.report.failures), (2, 2), "{errors:?}");
    assert!(errors[0].contains("Broken:1: oh no") && errors[1].contains("Syntax:1:"), "{errors:?}");
}
