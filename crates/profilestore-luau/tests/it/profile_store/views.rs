//! Reading without a session, writing back, versions, removal.

use super::{both, live, play};

#[test]
fn get_async_reads_without_a_session() {
    both(
        "local store = Store('Players', { Coins = 1 })
        assert(store:GetAsync('k') == nil)
        local live = store:StartSessionAsync('k')
        live.Data.Coins = 2
        local view = store:GetAsync('k')
        assert(view.Data.Coins == 1 and view.Session.JobId == live.Session.JobId and not view:IsActive())
        assert(view.ProfileStore == store and view.Key == 'k' and view.SessionLoadCount == 1)
        assert(view.KeyInfo ~= nil and view.LastSavedData.Coins == 1 and view.LastSavedData ~= view.Data)
        view.Data.Coins = 50
        assert(store:GetAsync('k').Data.Coins == 1)
        live:EndSession()
        task.wait(1)
        assert(store:GetAsync('k').Session == nil and store:GetAsync('k').Data.Coins == 2)",
    );
}

#[test]
fn a_key_with_only_messages_reads_as_the_template() {
    both(
        "local store = Store('Players', { Coins = 1 })
        assert(store:MessageAsync('k', { Gift = 1 }))
        local view = store:GetAsync('k')
        assert(view.Data.Coins == 1 and view.SessionLoadCount == 0 and view.Session == nil)
        assert(math.abs(view.FirstSessionTime - os.time()) <= 1)
        assert(#view.global_updates[2] == 1 and view.global_updates[2][1][2].Gift == 1)",
    );
}

#[test]
fn set_async_writes_a_view_and_ends_the_session() {
    let printed = both(
        "local store = Store('Players', { Coins = 1 })
        local session = store:StartSessionAsync('k')
        session.OnLastSave:Connect(function() print('never') end)
        session.OnSessionEnd:Connect(function() print('end') end)
        session.OnAfterSave:Connect(function(data) print('after', data.Coins, session:IsActive(), session.LastSavedData.Coins) end)
        session.Data.Coins = 2
        assert(store:MessageAsync('k', { Gift = 1 }) and store:MessageAsync('k', { Gift = 2 }))
        local view = store:GetAsync('k')
        view.OnSave:Connect(function() view.Data.Coins += 1 end)
        view.OnAfterSave:Connect(function() print('never') end)
        view:AddUserId(5)
        view.RobloxMetaData.Tag = 'x'
        view:MessageHandler(function(message, processed) if message.Gift == 1 then processed() end end)
        view.Data.Coins = 99
        view:SetAsync()
        task.wait(10)
        assert(not session:IsActive())
        local again = store:StartSessionAsync('k')
        assert(again.Data.Coins == 100 and again.UserIds[1] == 5 and again.RobloxMetaData.Tag == 'x' and again.SessionLoadCount == 2)
        assert(#again.global_updates[2] == 1 and again.global_updates[2][1][2].Gift == 2)",
    );
    assert_eq!(printed, ["end", "after 100 false 100"]);
}

#[test]
fn a_view_cannot_be_written_over_a_removed_profile() {
    let ran = play(
        false,
        1,
        "local store = Store('Players')
        store:StartSessionAsync('k'):EndSession()
        local view = store:GetAsync('k')
        assert(store:RemoveAsync('k'))
        local errors = 0
        ProfileStore.OnError:Connect(function() errors += 1 end)
        view:SetAsync()
        assert(errors == 1 and store:GetAsync('k') == nil)
        view.Data.Bad = print
        view:SetAsync()
        assert(errors == 2)",
        |game| game,
    );
    ran.succeeded();
}

#[test]
fn removing_ends_the_session_and_empties_the_key() {
    let printed = both(
        "local store = Store('Players', { Coins = 1 })
        assert(store:RemoveAsync('k') == true)
        local session = store:StartSessionAsync('k')
        session.Data.Coins = 2
        session.OnSessionEnd:Connect(function() print('end', session:IsActive()) end)
        assert(store:RemoveAsync('k') == true)
        task.wait(10)
        session:EndSession()
        task.wait(10)
        assert(store:GetAsync('k') == nil)
        local again = store:StartSessionAsync('k')
        assert(again.Data.Coins == 1)
        task.wait(400)
        assert(again:IsActive())",
    );
    assert_eq!(printed, ["end false"]);
}

#[test]
fn versions_are_listed_read_and_rolled_back() {
    both(
        "local store = Store('Players', { Coins = 0 })
        local hour = 3600
        for n = 1, 4 do
            local profile = store:StartSessionAsync('k')
            profile.Data.Coins = n
            profile:EndSession()
            task.wait(hour)
        end
        local query, coins, times = store:VersionQuery('k'), {}, {}
        while true do
            local view = query:NextAsync()
            if view == nil then break end
            table.insert(coins, view.Data.Coins)
            table.insert(times, view.KeyInfo.UpdatedTime)
            assert(view.Key == 'k' and not view:IsActive())
        end
        assert(#coins >= 4 and coins[#coins] == 4, table.concat(coins, ' '))
        for n = 2, #coins do assert(coins[n] >= coins[n - 1] and times[n] >= times[n - 1]) end
        assert(query:NextAsync() == nil)
        -- What was current before the third hour began.
        local before = store:VersionQuery('k', nil, nil, times[#times] - 1.5 * hour * 1000)
        local last
        while true do
            local view = before:NextAsync()
            if view == nil then break end
            last = view
        end
        assert(last.Data.Coins == 2, last.Data.Coins)
        local same = store:GetAsync('k', last.KeyInfo.Version)
        assert(same.Data.Coins == 2 and same.KeyInfo.Version == last.KeyInfo.Version)
        last:SetAsync()
        assert(store:GetAsync('k').Data.Coins == 2)
        assert(store:VersionQuery('k', nil, times[#times] + 1):NextAsync().Data.Coins == 2)
        assert(store:VersionQuery('nobody'):NextAsync() == nil)",
    );
}

#[test]
fn a_version_that_is_not_there_is_nil_and_warned_of() {
    let ran = play(
        false,
        1,
        "local store = Store('Players')
        store:StartSessionAsync('k'):EndSession()
        assert(store:GetAsync('k', 'nonsense') == nil)",
        |game| game,
    );
    assert!(ran.report.is_success());
    let warnings = ran.recorder.texts(profilestore_luau::Line::Warn);
    assert!(warnings.len() == 1 && warnings[0].contains("not valid"), "{warnings:?}");
}

#[test]
fn a_removed_key_keeps_its_versions() {
    both(
        "local store = Store('Players', { Coins = 1 })
        local profile = store:StartSessionAsync('k')
        profile.Data.Coins = 5
        profile:EndSession()
        store:RemoveAsync('k')
        local query, seen = store:VersionQuery('k'), {}
        while true do
            local view = query:NextAsync()
            if view == nil then break end
            table.insert(seen, view)
        end
        assert(seen[#seen].Data.Coins == 1, 'the tombstone comes back as the template')
        assert(seen[#seen - 1].Data.Coins == 5)
        seen[#seen - 1]:SetAsync()
        assert(store:GetAsync('k').Data.Coins == 5)",
    );
}

#[test]
fn queries_check_their_arguments() {
    live(
        "local store = Store('Players')
        fails('sort_direction', store.VersionQuery, store, 'k', 'Descending')
        fails('min_date', store.VersionQuery, store, 'k', nil, 'yesterday')
        fails('max_date', store.VersionQuery, store, 'k', nil, nil, {})
        fails('version', store.GetAsync, store, 'k', 5)",
    );
}
