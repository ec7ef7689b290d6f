//! DataStoreService, as scripts see it.

use std::time::Duration;

use profilestore::roblox::BudgetRules;
use profilestore_luau::Line;

use crate::{check, run};

#[test]
fn a_key_that_is_a_number_is_the_text_that_luau_makes_of_it() {
    check(
        "local store = game:GetService('DataStoreService'):GetDataStore('Test')
        for _, key in { 7, 1e300, 1e-9, 0.1 + 0.2, 2 ^ 53 } do
            store:SetAsync(key, 'x')
            assert(store:GetAsync(tostring(key)) == 'x', tostring(key))
        end",
    );
}

#[test]
fn objects_that_cannot_be_stored_are_named_by_their_type() {
    check(
        "local store = game:GetService('DataStoreService'):GetDataStore('Test')
        local function fails(text, value)
            local ok, problem = pcall(store.SetAsync, store, 'a', value)
            assert(not ok and problem:find(text, 1, true), tostring(problem))
        end
        fails('value.at: a Vector3 cannot be stored', { at = Vector3.one })
        fails('value.part: an Instance cannot be stored', { part = workspace })
        fails('value[1]: an EnumItem cannot be stored', { Enum.Material.Wood })
        fails('a key that is an Instance cannot be stored', { [workspace] = 1 })
        fails('103: Color3 is not allowed in a data store', Color3.new())",
    );
}

#[test]
fn values_come_back_with_their_information() {
    check(
        "local service = game:GetService('DataStoreService')
        local store = service:GetDataStore('Test')
        assert(store == service:GetDataStore('Test', nil, Instance.new('DataStoreOptions')) and store ~= service:GetDataStore('Test', 's'))
        assert(typeof(store) == 'Instance' and store.Name == 'Test' and store:IsA('GlobalDataStore'))
        assert(store:GetAsync('a') == nil)
        local options = Instance.new('DataStoreSetOptions')
        options:SetMetadata({ m = 'x' })
        local version = store:SetAsync('a', { x = 1, list = { 1, 2 }, buf = buffer.fromstring('hi') }, { 5 }, options)
        local value, info = store:GetAsync('a')
        assert(value.x == 1 and value.list[2] == 2 and buffer.tostring(value.buf) == 'hi')
        assert(typeof(info) == 'Instance' and type(info) == 'userdata' and info:IsA('DataStoreKeyInfo'))
        assert(info.Version == version and info:GetUserIds()[1] == 5 and info:GetMetadata().m == 'x')
        assert(math.abs(info.CreatedTime / 1000 - os.time()) < 2 and info.UpdatedTime >= info.CreatedTime)

        local given
        local value, info = store:UpdateAsync('a', function(value, info)
            given = value
            value.x += 1
            assert(info.Version == version)
            return value, info:GetUserIds(), { n = 'y' }
        end)
        assert(value.x == 2 and value ~= given and info:GetMetadata().n == 'y' and info:GetMetadata().m == nil)
        assert(store:UpdateAsync('a', function() return nil end) == nil)
        store:UpdateAsync('a', function(value) return value end)
        assert(#select(2, store:GetAsync('a')):GetUserIds() == 0, 'what is not returned is cleared')
        assert(store:IncrementAsync('n', 5) == 5 and store:IncrementAsync('n') == 6)

        local removed, info = store:RemoveAsync('a')
        assert(removed.x == 2 and typeof(info) == 'Instance')
        assert(store:GetAsync('a') == nil and store:RemoveAsync('a') == nil)
        assert(service:GetGlobalDataStore():GetAsync('a') == nil)",
    );
}

#[test]
fn errors_are_roblox_errors() {
    check(
        "local service = game:GetService('DataStoreService')
        local store = service:GetDataStore('Test')
        local function fails(text, method, ...)
            local ok, problem = pcall(store[method], store, ...)
            assert(not ok and type(problem) == 'string' and problem:find(text, 1, true), `{method}: {problem}`)
        end
        fails('101: ', 'GetAsync', '')
        fails('102: ', 'SetAsync', string.rep('k', 51), 1)
        fails('103: ', 'SetAsync', 'k', nil)
        fails('103: ', 'SetAsync', 'k', print)
        fails('104: ', 'SetAsync', 'k', { a = { 0 / 0 } })
        fails('value.a[1]', 'SetAsync', 'k', { a = { 0 / 0 } })
        fails('105: ', 'SetAsync', 'k', string.rep('x', 4194304))
        local list = table.create(60, string.rep('x', 100000))
        fails('105: ', 'SetAsync', 'k', list)
        fails('512: ', 'SetAsync', 'k', 1, { 'x' })
        fails('106: ', 'ListVersionsAsync', 'k', nil, nil, nil, 5000)
        fails('107: ', 'ListVersionsAsync', 'k', nil, 5, 4)
        fails('not valid', 'GetVersionAsync', 'k', 'no version')
        fails('oops', 'UpdateAsync', 'k', function() error('oops') end)
        fails('must not wait', 'UpdateAsync', 'k', function() task.wait() return 1 end)
        fails('104: ', 'UpdateAsync', 'k', function() return { [1] = 1, x = 2 } end)
        assert(store:GetAsync('k') == nil, 'nothing was stored')
        store:SetAsync('k', 'text')
        fails('502: ', 'IncrementAsync', 'k')
        local ok, problem = pcall(service.GetDataStore, service, '')
        assert(not ok and problem:find('101: '), problem)
        local ok, problem = pcall(service.GetOrderedDataStore, service, '')
        assert(not ok and problem:find('101: '), problem)",
    );
}

#[test]
fn versions_and_keys_come_in_pages() {
    let ran = run(
        "local store = game:GetService('DataStoreService'):GetDataStore('Test')
        for n = 1, 5 do store:SetAsync('a', n) task.wait(1) end
        local middle = DateTime.now().UnixTimestampMillis
        task.wait(1)
        for n = 6, 7 do store:SetAsync('a', n) task.wait(1) end
        store:RemoveAsync('a')
        local function listed(...)
            local pages, list, count = store:ListVersionsAsync('a', ...), {}, 1
            while true do
                for _, item in pages:GetCurrentPage() do
                    assert(type(item.CreatedTime) == 'number')
                    local value, info = store:GetVersionAsync('a', item.Version)
                    assert(info.Version == item.Version and item.IsDeleted == (value == nil))
                    table.insert(list, if item.IsDeleted then 'removed' else tostring(value))
                end
                if pages.IsFinished then
                    break
                end
                pages:AdvanceToNextPageAsync()
                count += 1
            end
            local ok, problem = pcall(pages.AdvanceToNextPageAsync, pages)
            assert(not ok and problem:find('No pages to advance to'), problem)
            return table.concat(list, ' '), count
        end
        assert(listed() == '1 2 3 4 5 6 7 removed')
        local all, count = listed(Enum.SortDirection.Descending, nil, nil, 3)
        assert(all == 'removed 7 6 5 4 3 2 1' and count == 3, all)
        assert(listed(Enum.SortDirection.Descending, nil, middle) == '5 4 3 2 1')
        assert(listed(Enum.SortDirection.Ascending, middle) == '6 7 removed')
        assert(store:GetVersionAtTimeAsync('a', middle) == 5)
        for n = 1, 60 do store:SetAsync('k' .. n, n) end
        local pages, names = store:ListKeysAsync('k'), {}
        while true do
            for _, key in pages:GetCurrentPage() do names[key.KeyName] = true end
            if pages.IsFinished then break end
            pages:AdvanceToNextPageAsync()
        end
        for n = 1, 60 do assert(names['k' .. n]) end",
        |game| {
            let settings = profilestore::Settings { keep_every_save: true, ..Default::default() };
            game.settings(settings)
        },
    );
    ran.succeeded();
}

#[test]
fn updates_of_two_servers_do_not_lose_each_other() {
    let ran = run(
        "local store = game:GetService('DataStoreService'):GetDataStore('Test')
        for n = 1, 50 do
            store:UpdateAsync('count', function(value) return (value or 0) + 1 end)
        end
        task.wait(5)
        print(store:GetAsync('count'))",
        |game| game.servers(2),
    );
    assert!(ran.report.is_success(), "{:?}", ran.recorder);
    assert!(
        ran.recorder.texts(Line::Print).iter().all(|line| line.starts_with("100")),
        "{:?}",
        ran.recorder
    );
}

#[test]
fn calls_take_the_latency_and_fail_as_often_as_they_are_told() {
    let ran = run(
        "local store = game:GetService('DataStoreService'):GetDataStore('Test')
        local failed, applied, longest = 0, 0, 0
        for n = 1, 400 do
            local began = os.clock()
            local ok, problem = pcall(store.UpdateAsync, store, 'k' .. n, function() return n end)
            longest = math.max(longest, os.clock() - began)
            if not ok then
                assert(problem:find('^50%d: '), problem)
                failed += 1
                local read, value
                repeat
                    read, value = pcall(store.GetAsync, store, 'k' .. n)
                until read
                applied += if value == n then 1 else 0
            end
        end
        print(failed, applied)
        assert(failed > 20 and failed < 60 and applied > 5 and applied < failed - 5)
        assert(longest > 0.049 and longest < 0.085, longest)",
        |game| game.latency(Duration::from_millis(50)).errors(10.0),
    );
    ran.succeeded();
}

/// `GetAsync` and `GetSortedAsync` failed with the text of a write: that it may have been applied.
#[test]
fn the_error_of_a_read_does_not_say_that_it_may_have_been_applied() {
    let ran = run(
        "local service = game:GetService('DataStoreService')
        local store, ordered = service:GetDataStore('Test'), service:GetOrderedDataStore('Test')
        local told, failed = {}, { Get = 0, Keys = 0, Versions = 0, Sorted = 0, Set = 0 }
        local function note(name, ok, problem)
            if not ok then
                failed[name] += 1
                told[`{if name == 'Set' then 'write' else 'read'} {problem}`] = true
            end
        end
        for n = 1, 100 do
            note('Get', pcall(store.GetAsync, store, 'k' .. n))
            note('Keys', pcall(store.ListKeysAsync, store))
            note('Versions', pcall(store.ListVersionsAsync, store, 'k'))
            note('Sorted', pcall(ordered.GetSortedAsync, ordered, false, 10))
            note('Set', pcall(store.SetAsync, store, 'k', n))
        end
        for name, count in failed do assert(count > 0, name) end
        local texts = {}
        for text in told do table.insert(texts, text) end
        table.sort(texts)
        for _, text in texts do print(text) end",
        |game| game.errors(10.0),
    );
    assert_eq!(
        ran.succeeded(),
        [
            "read 505: the store gave no answer",
            "write 505: the store gave no answer; the request may have been applied",
        ]
    );
}

/// A game server could not register in the store, and the game was not played.
#[test]
fn a_game_server_starts_although_every_call_fails() {
    let ran = run(
        "local Store = game:GetService('DataStoreService'):GetDataStore('Test')
        print('up', (pcall(Store.GetAsync, Store, 'k')))
        local ProfileStore = require(game.ServerScriptService.ProfileStore)
        local told = 0
        ProfileStore.OnError:Connect(function() told += 1 end)
        task.delay(30, function() print('the module was told', told > 0) end)
        ProfileStore.New('Test', {}):GetAsync('k')",
        |game| game.errors(100.0).until(Duration::from_secs(60)),
    );
    assert_eq!(ran.recorder.texts(Line::Print), ["up false", "the module was told true"]);
}

#[test]
fn requests_beyond_the_budget_wait_and_then_fail() {
    let ran = run(
        "local service = game:GetService('DataStoreService')
        local store = service:GetDataStore('Test')
        assert(service:GetRequestBudgetForRequestType(Enum.DataStoreRequestType.SetIncrementAsync) == 60)
        local ok, failed, problem = 0, 0, nil
        for n = 1, 100 do
            task.spawn(function()
                local done, text = pcall(store.SetAsync, store, 'k' .. n, n)
                if done then ok += 1 else failed += 1 problem = text end
            end)
        end
        task.wait(60)
        assert(ok == 90 and failed == 10, ok)
        assert(problem:find('^302: '), problem)",
        |game| game.budgets(BudgetRules::Older),
    );
    ran.succeeded();
}

/// "Argument 1 of UpdateAsync must be a number", which was the key.
#[test]
fn what_a_function_returns_to_an_ordered_store_is_named_as_that() {
    check(
        "local store = game:GetService('DataStoreService'):GetOrderedDataStore('Some')
        local ok, problem = pcall(store.UpdateAsync, store, 'k', function() return 'text' end)
        assert(not ok and problem:find('its function returned a string', 1, true), problem)
        assert(store:UpdateAsync('k', function() return nil end) == nil)
        assert(store:UpdateAsync('k', function() return 5 end) == 5)",
    );
}
