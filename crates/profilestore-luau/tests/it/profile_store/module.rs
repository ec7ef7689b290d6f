//! The module itself: its members, arguments, errors, and the insides that test scripts look at.

use super::{both, live};

#[test]
fn the_state_of_the_store_becomes_known() {
    live(
        "assert(ProfileStore.DataStoreState == 'NotReady' or ProfileStore.DataStoreState == 'Access')
        task.wait(1)
        assert(ProfileStore.DataStoreState == 'Access' and ProfileStore.IsClosing == false and ProfileStore.IsCriticalState == false)
        assert(ProfileStore.OnError:GetListenerCount() == 0 and ProfileStore.NoSuchMember == nil)
        assert(require('ProfileStore') == ProfileStore)",
    );
}

#[test]
fn arguments_are_checked() {
    both(
        "fails('[ProfileStore]', ProfileStore.New)
        fails('store_name', ProfileStore.New, '')
        fails('1 to 50 bytes, got one of 51', ProfileStore.New, string.rep('x', 51))
        fails('1 to 50 bytes, got number', ProfileStore.New, 5)
        fails('template', ProfileStore.New, 'x', 5)
        fails('~profilestore', ProfileStore.New, '~profilestore')
        local store = Store(string.rep('x', 50))
        for _, method in { 'StartSessionAsync', 'GetAsync', 'MessageAsync', 'RemoveAsync', 'VersionQuery' } do
            for _, key in { '', string.rep('x', 51), 5, false } do
                fails('profile_key', store[method], store, key, {})
            end
            fails(':', store[method], 'k')
        end",
    );
}

#[test]
fn the_test_function_shows_sessions_queues_and_jobs() {
    live(
        "local store = ProfileStore.New('Players', { N = 1 })
        local test = ProfileStore.Test()
        assert(next(test.ActiveSessionCheck) == nil and #test.AutoSaveList == 0 and test.ActiveProfileLoadJobs == 0)
        task.spawn(function() store:StartSessionAsync('a') end)
        assert(ProfileStore.Test().ActiveProfileLoadJobs == 1 and next(test.UpdateQueue) ~= nil)
        task.wait(1)
        assert(ProfileStore.Test().ActiveProfileLoadJobs == 0 and next(test.UpdateQueue) == nil)
        local token, profile = next(test.ActiveSessionCheck)
        assert(profile:IsActive() and test.AutoSaveList[1] == profile and #test.AutoSaveList == 1, token)
        profile:Save()
        assert(ProfileStore.Test().ActiveProfileSaveJobs == 1 and #test.UpdateQueue[token] == 1)
        task.wait(1)
        assert(ProfileStore.Test().ActiveProfileSaveJobs == 0)
        profile:EndSession()
        assert(ProfileStore.Test().ActiveProfileSaveJobs == 1 and #test.AutoSaveList == 0 and next(test.ActiveSessionCheck) == nil)
        task.wait(1)
        assert(ProfileStore.Test().ActiveProfileSaveJobs == 0 and next(test.MockStore) == nil)
        assert(test.UserMockStore.Players == nil)
        local mock = store.Mock:StartSessionAsync('m')
        mock.Data.N = 2
        mock:AddUserId(7)
        mock:Save()
        store.Mock:MessageAsync('m', { Gift = 1 })
        local entry = test.UserMockStore.Players.m
        assert(entry.Data.Data.N == 2 and entry.UserIds[1] == 7 and entry.Data.MetaData.ActiveSession[2] == mock.Session.JobId)
        assert(entry.Data.GlobalUpdates[2][1][2].Gift == 1 and test.UserMockStore.Players.x == nil)
        mock:EndSession()
        task.wait(1)
        for key, ended in test.UserMockStore.Players do
            assert(key == 'm' and ended.Data.MetaData.ActiveSession == nil)
        end",
    );
}
