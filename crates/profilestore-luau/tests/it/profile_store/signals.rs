//! Signals and their order.

use profilestore_luau::Line;

use super::{both, live, play};

#[test]
fn signals_have_their_four_methods_and_call_the_newest_listener_first() {
    let printed = both(
        "local profile = Store('Players'):StartSessionAsync('k')
        local signal = profile.OnSave
        assert(signal == profile.OnSave and signal:GetListenerCount() == 0)
        local a = signal:Connect(function() print('a') end)
        local b = signal:Connect(function() print('b') task.wait(5) print('b later') end)
        local once
        once = signal:Connect(function() print('once') once:Disconnect() end)
        assert(signal:GetListenerCount() == 3)
        profile:Save()
        task.wait(1)
        a:Disconnect() a:Disconnect()
        assert(signal:GetListenerCount() == 1)
        profile:Save()
        task.wait(10)
        fails('function', signal.Connect, signal, 5)
        task.spawn(function() print('waited', profile.OnAfterSave:Wait() == profile.LastSavedData) end)
        profile:Save()
        task.wait(10)
        assert(profile.OnAfterSave:GetListenerCount() == 0)
        signal:Connect(function(x) print('fired', x) end)
        signal:Fire(5)
        task.wait(10)",
    );
    let expected = [
        "once",
        "b",
        "a",
        "b",
        "b later",
        "b later",
        "b",
        "waited true",
        "b later",
        "fired 5",
        "b",
        "b later",
        "fired nil",
        "b",
    ];
    assert_eq!(printed, expected);
}

#[test]
fn a_listener_that_takes_nothing_finds_what_was_saved_all_the_same() {
    both(
        "local profile = Store('Players', { Coins = 0 }):StartSessionAsync('k')
        local found = {}
        local first = profile.OnAfterSave:Connect(function()
            table.insert(found, profile.LastSavedData.Coins)
        end)
        local function save(coins)
            profile.Data.Coins = coins
            profile:Save()
            task.wait(1)
        end
        save(1)
        profile.OnAfterSave:Connect(function(...)
            table.insert(found, (...) == profile.LastSavedData)
        end)
        save(2)
        first:Disconnect()
        save(3)
        assert(found[1] == 1 and found[2] == true and found[3] == 2 and found[4] == true)
        assert(#found == 4 and profile.LastSavedData.Coins == 3)",
    );
}

#[test]
fn a_listener_that_fails_stops_none_of_the_others() {
    let ran = play(
        false,
        1,
        "local profile = Store('Players'):StartSessionAsync('k')
        profile.OnSave:Connect(function() print('older') end)
        profile.OnSave:Connect(function() error('on purpose') end)
        profile:Save()
        task.wait(1)
        profile:EndSession()",
        |game| game,
    );
    assert_eq!(ran.report.failures, 2);
    assert_eq!(ran.recorder.texts(Line::Print), ["older", "older"]);
}

#[test]
fn listeners_may_call_anything() {
    let printed = both(
        "local store = Store('Players')
        local a, b = store:StartSessionAsync('a'), store:StartSessionAsync('b')
        a.OnSave:Connect(function() b:EndSession() end)
        b.OnSessionEnd:Connect(function()
            a.Data.FromB = true
            a:AddUserId(5)
        end)
        a.OnLastSave:Connect(function() a:EndSession() a:Save() print('last') end)
        a:Save()
        task.wait(1)
        assert(not b:IsActive() and a.LastSavedData.FromB and a.KeyInfo:GetUserIds()[1] == 5)
        a:EndSession()
        task.wait(1)
        assert(store:StartSessionAsync('a'):IsActive() and store:StartSessionAsync('b'):IsActive())",
    );
    assert_eq!(printed, ["last"]);
}

#[test]
fn each_save_gives_its_data_as_new_tables_that_nothing_changes_later() {
    both(
        "local store = Store('Players', { N = 0, List = { { A = 1 } }, None = {} })
        local profile = store:StartSessionAsync('k')
        local last
        profile.OnAfterSave:Connect(function(data)
            assert(data == profile.LastSavedData and data ~= last and data ~= profile.Data)
            last = data
        end)
        local function save() profile:Save() task.wait(1) end
        profile.Data.Bytes = buffer.fromstring('abc')
        profile.Data.List[1] = setmetatable({ A = 2 }, { __index = { B = 1 } })
        save()
        assert(last.List[1].A == 2 and last.List[1].B == nil and getmetatable(last.List[1]) == nil)
        profile.Data.List[1].A = 3
        buffer.writestring(profile.Data.Bytes, 0, 'x')
        assert(last.List[1].A == 2 and buffer.tostring(last.Bytes) == 'abc')
        last.List[1].A = 9
        assert(profile.Data.List[1].A == 3)
        local before = last
        save()
        assert(last.List[1].A == 3 and buffer.tostring(last.Bytes) == 'xbc' and #last.None == 0)
        save()
        assert(last ~= before and last.List[1].A == 3, 'also when nothing has changed')
        profile.Data.List[1].A = 4
        profile:EndSession()
        profile.Data.List[1].A = 5
        task.wait(1)
        assert(last.List[1].A == store:GetAsync('k').Data.List[1].A)",
    );
}

/// Nothing was saved: what its listeners take was asked of it before each save.
#[test]
fn a_signal_of_the_script_as_on_after_save_stops_no_save() {
    both(
        "local store = Store('Players', { N = 0 })
        local profile, saved = store:StartSessionAsync('k'), nil
        profile.OnAfterSave = {
            Listeners = 1,
            GetListenerCount = function(signal) return signal.Listeners end,
            Fire = function(_, data) saved = data end,
        }
        profile.Data.N = 1
        profile:Save()
        task.wait(1)
        assert(saved.N == 1 and saved == profile.LastSavedData)
        assert(store:GetAsync('k').Data.N == 1)",
    );
}

#[test]
fn what_could_not_be_saved_is_not_given_as_saved() {
    live(
        "local profile = Store('Players', { N = 0 }):StartSessionAsync('k')
        local last
        profile.OnAfterSave:Connect(function(data) last = data end)
        profile.Data.N = 1
        profile:Save()
        task.wait(1)
        assert(last.N == 1)
        profile.Data.N, profile.Data.Bad = 2, print
        profile:Save()
        task.wait(1)
        assert(last.N == 1 and profile.LastSavedData.N == 1)
        profile.Data.Bad = nil
        profile:Save()
        task.wait(1)
        assert(last.N == 2 and last.Bad == nil)",
    );
}

#[test]
fn shutting_down_saves_with_its_reason() {
    let printed = both(
        "local profile = Store('Players'):StartSessionAsync('k')
        profile.OnSave:Connect(function() print('save', ProfileStore.IsClosing) end)
        profile.OnLastSave:Connect(function(reason) print('last', reason, profile:IsActive()) profile.Data.Last = true end)
        profile.OnSessionEnd:Connect(function()
            print('end', profile:IsActive())
            local store = profile.ProfileStore
            print(store:StartSessionAsync('x'), store:GetAsync('k'), store:MessageAsync('k', {}), store:RemoveAsync('k'))
        end)
        profile.OnAfterSave:Connect(function(data) print('after', data.Last) end)
        assert(ProfileStore.IsClosing == false)",
    );
    assert_eq!(
        printed,
        ["save true", "last Shutdown true", "end false", "nil nil false false", "after true"]
    );
}

#[test]
fn two_saves_in_a_frame_are_two_and_a_save_before_the_end_counts() {
    let printed = live(
        "local profile = Store('Players'):StartSessionAsync('k')
        local saves, after = 0, {}
        profile.OnSave:Connect(function() saves += 1 end)
        profile.OnAfterSave:Connect(function(data) table.insert(after, data.N or 0) end)
        profile:Save() profile.Data.N = 1 profile:Save()
        task.wait(1)
        print(saves, #after)
        profile.Data.N = 2
        profile:Save()
        profile:EndSession()
        task.wait(1)
        print(saves, #after)",
    );
    assert_eq!(printed, ["2 2", "4 4"]);
}
