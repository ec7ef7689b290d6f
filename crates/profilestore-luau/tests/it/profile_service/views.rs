//! Profiles without a session: views, versions, overwriting, wiping, mocks.

use super::{both, live};

#[test]
fn a_view_shows_what_is_stored_and_saves_nothing() {
    both(
        "local store = Store()
        assert(store:ViewProfileAsync('p') == nil, 'there is none')
        local profile = store:LoadProfileAsync('p')
        profile.Data.x = 1
        profile:SetMetaTag('tag', 1)
        profile:Save()
        task.wait(1)
        local view = store:ViewProfileAsync('p')
        assert(view.Data.x == 1 and view.MetaData.MetaTags.tag == 1 and view.MetaData.SessionLoadCount == 1)
        assert(view.MetaData.ActiveSession[2] == profile.MetaData.ActiveSession[2] and view.KeyInfo ~= nil)
        assert(view:IsActive() == false)
        view.Data.x = 2
        view:SetMetaTag('tag', 2)
        fails('view mode', view.Save, view)
        view:Release()
        view:ListenToRelease(print):Disconnect()
        view:ListenToHopReady(print):Disconnect()
        task.wait(31)
        assert(store:ViewProfileAsync('p').Data.x == 1 and profile:IsActive())",
    );
}

#[test]
fn a_view_that_is_pushed_replaces_what_is_stored() {
    both(
        "local store = Store()
        local profile = store:LoadProfileAsync('p')
        profile.Data.x = 1
        profile:Release()
        task.wait(1)
        local view = store:ViewProfileAsync('p')
        view.Data.x = 2
        view:SetMetaTag('tag', 'pushed')
        view:AddUserId(5)
        view.RobloxMetaData = { a = 'b' }
        view:OverwriteAsync()
        local again = store:LoadProfileAsync('p')
        assert(again.Data.x == 2 and again:GetMetaTag('tag') == 'pushed' and again.UserIds[1] == 5)
        assert(again.RobloxMetaData.a == 'b' and again.MetaData.SessionLoadCount == 2)",
    );
}

#[test]
fn a_pushed_view_takes_the_updates_along_that_were_cleared_in_it() {
    let printed = both(
        "local store = Store()
        local function send(n) store:GlobalUpdateProfileAsync('p', function(u) u:AddActiveUpdate({ n = n }) end) end
        store:LoadProfileAsync('p'):Release()
        send(1)
        local view = store:ViewProfileAsync('p')
        view:ClearGlobalUpdates()
        assert(#view.GlobalUpdates:GetActiveUpdates() == 0)
        send(2)
        view:OverwriteAsync()
        print(gifts(store:ViewProfileAsync('p').GlobalUpdates:GetActiveUpdates()))
        store:ViewProfileAsync('p'):OverwriteAsync()
        print(gifts(store:ViewProfileAsync('p').GlobalUpdates:GetActiveUpdates()))",
    );
    assert_eq!(printed, ["2:2", "2:2"], "what came later stays, and what was not cleared");
}

#[test]
fn versions_are_read_one_by_one_and_rolled_back_to() {
    let printed = live(
        "local store = Store()
        for n = 1, 3 do
            local profile = store:LoadProfileAsync('p')
            profile.Data.n = n
            profile:Release()
            task.wait(3700)
        end
        local query = store:ProfileVersionQuery('p')
        local versions = {}
        while true do
            local profile = query:NextAsync()
            if profile == nil then break end
            table.insert(versions, profile.KeyInfo.Version)
            print(profile.Data.n)
            fails('view mode', profile.Save, profile)
        end
        assert(query:Next() == nil and #query._query_queue == 0)
        local middle = store:ViewProfileAsync('p', versions[#versions - 1])
        print('middle', middle.Data.n)
        middle:ClearGlobalUpdates()
        middle:OverwriteAsync()
        print('now', store:ViewProfileAsync('p').Data.n)
        assert(store:ViewProfileAsync('p', 'no version') == nil)",
    );
    assert_eq!(printed[printed.len() - 2..], ["middle 2", "now 2"]);
    assert!(printed.contains(&"1".to_owned()) && printed.contains(&"3".to_owned()), "{printed:?}");
}

#[test]
fn a_wiped_profile_is_gone_and_begins_anew() {
    both(
        "local store = Store()
        local profile = store:LoadProfileAsync('p')
        profile.Data.x = 1
        profile:Release()
        task.wait(1)
        assert(store:WipeProfileAsync('p') == true)
        assert(store:ViewProfileAsync('p') == nil)
        assert(store:WipeProfileAsync('p') == true, 'again')
        assert(store:LoadProfileAsync('p').Data.x == nil)",
    );
}

#[test]
fn a_wiped_live_profile_is_released_at_once() {
    let printed = both(
        "local store = Store()
        local profile = store:LoadProfileAsync('p')
        profile:ListenToRelease(function(...) print('released', ...) end)
        store:WipeProfileAsync('p')
        task.wait(1)
        assert(not profile:IsActive())",
    );
    assert_eq!(printed, ["released nil nil"]);
}

/// In the published module this writes into the live store.
#[test]
fn a_mock_never_touches_the_live_store() {
    live(
        "local store = Store('PlayerData', { x = 0 })
        local real, mock = store:LoadProfileAsync('p'), store.Mock:LoadProfileAsync('p')
        assert(real ~= mock and real._is_user_mock == false and mock._is_user_mock == true)
        mock.Data.x = 5
        mock:Release()
        task.wait(1)
        local view = store.Mock:ViewProfileAsync('p')
        assert(view.Data.x == 5)
        view.Data.x = 6
        view:OverwriteAsync()
        store.Mock:GlobalUpdateProfileAsync('p', function(updates) updates:AddActiveUpdate({}) end)
        task.wait(31)
        assert(real:IsActive())
        local live = store:ViewProfileAsync('p')
        assert(live.Data.x == 0 and #live.GlobalUpdates:GetActiveUpdates() == 0)
        assert(store.Mock:ViewProfileAsync('p').Data.x == 6)
        fails('Mock versioning', store.Mock.ViewProfileAsync, store.Mock, 'p', 'x')
        assert(store.Mock:ProfileVersionQuery('p'):NextAsync() ~= nil)
        assert(store.Mock:WipeProfileAsync('p') and store.Mock:ViewProfileAsync('p') == nil and store:ViewProfileAsync('p') ~= nil)",
    );
}

#[test]
fn scripts_can_look_into_a_mock() {
    live(
        "local store = Store('PlayerData', { x = 0 })
        assert(ProfileService._use_mock_data_store == false and next(ProfileService._mock_data_store) == nil)
        assert(ProfileService._user_mock_data_store.PlayerData == nil)
        local profile = store.Mock:LoadProfileAsync('p')
        local entry = ProfileService._user_mock_data_store.PlayerData.p
        assert(entry.Data.Data.x == 0 and entry.Data.MetaData.ActiveSession[2] == game.JobId)
        assert(ProfileService._user_mock_data_store.PlayerData.q == nil)",
    );
}
