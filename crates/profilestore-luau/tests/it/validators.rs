//! A store's `Validate`, and listeners of `OnSave` that keep a save from being made.

use profilestore_luau::Line;

use crate::{check, run};

#[test]
fn a_validator_is_asked_before_every_save_and_after_every_load() {
    for mock in ["", ".Mock"] {
        check(&format!(
            "local ProfileStore = require('ProfileStore')
            local store, errors = ProfileStore.New('P', {{ Coins = 5 }}), {{}}
            ProfileStore.OnError:Connect(function(message) table.insert(errors, message) end)
            store.Validate = function(data, key) return key ~= 'k' or data.Coins >= 0, 'Coins are below 0' end
            local which = store{mock}
            local profile = which:StartSessionAsync('k')
            profile.Data.Coins = -1
            profile:Save()
            task.wait(1)
            assert(#errors == 1 and errors[1]:find('Validate refuses it: Coins are below 0', 1, true), errors[1])
            assert(which:GetAsync('k').Data.Coins == 5)
            profile:EndSession()
            task.wait(5)
            assert(profile:IsActive(), 'until it is mended')
            profile.Data.Coins = 7
            task.wait(30)
            assert(not profile:IsActive() and which:GetAsync('k').Data.Coins == 7)
            store.Validate = function(data) error('broken') end
            local before = #errors
            assert(which:StartSessionAsync('k') == nil and #errors == before + 1 and errors[#errors]:find('broken', 1, true))
            local view = which:GetAsync('k')
            view.Data.Coins = 8
            view:SetAsync()
            assert(#errors == before + 2 and which:GetAsync('k').Data.Coins == 7)
            store.Validate = function() end
            assert(which:StartSessionAsync('k').Data.Coins == 7, 'saying nothing is no refusal')"
        ));
    }
}

#[test]
fn a_validator_that_waits_refuses_and_the_session_stays_until_it_answers_at_once() {
    check(
        "local ProfileStore = require('ProfileStore')
        local store, errors = ProfileStore.New('P', { n = 0 }), {}
        ProfileStore.OnError:Connect(function(message) table.insert(errors, message) end)
        local profile = store:StartSessionAsync('k')
        store.Validate = function() task.wait(1) return true end
        profile.Data.n = 1
        profile:Save()
        task.wait(5)
        assert(#errors == 1 and errors[1]:find('Validate refuses it: it must not wait', 1, true), errors[1])
        profile:EndSession()
        task.wait(5)
        assert(profile:IsActive() and store:GetAsync('k').Data.n == 0)
        assert(store.Mock:StartSessionAsync('k') == nil, 'a load does not wait for it either')
        store.Validate = function() return true end
        task.wait(30)
        assert(not profile:IsActive() and store:GetAsync('k').Data.n == 1)
        store.Validate = coroutine.yield
        assert(store:StartSessionAsync('k') == nil)
        store.Validate = nil
        assert(store:StartSessionAsync('k').Data.n == 1)",
    );
}

#[test]
fn profile_service_asks_its_stores_validator_too() {
    check(
        "local ProfileService = require('ProfileService')
        local store, issues = ProfileService.GetProfileStore('P', { Coins = 5 }), {}
        ProfileService.IssueSignal:Connect(function(message) table.insert(issues, message) end)
        store.Validate = function(data) return data.Coins >= 0, 'Coins are below 0' end
        local profile = store:LoadProfileAsync('k')
        profile.Data.Coins = -1
        profile:Release()
        task.wait(5)
        assert(profile:IsActive() and #issues == 1 and issues[1]:find('Coins are below 0', 1, true))
        profile.Data.Coins = 6
        task.wait(30)
        assert(not profile:IsActive() and store:ViewProfileAsync('k').Data.Coins == 6)
        store.Validate = function() return false end
        assert(store:LoadProfileAsync('k') == nil and #issues == 2)
        assert(not pcall(function() store:ViewProfileAsync('k'):OverwriteAsync() end))
        store.Validate = nil
        assert(store:LoadProfileAsync('k') ~= nil, 'the refused load kept no lock')",
    );
}

#[test]
fn a_listener_of_on_save_may_veto_a_manual_save_and_nothing_else() {
    let ran = run(
        "local ProfileStore = require('ProfileStore')
        local store = ProfileStore.New('P', { n = 0 })
        local profile = store:StartSessionAsync('k')
        local saves = 0
        profile.OnSave:Connect(function() saves += 1 return ProfileStore.Veto end)
        profile.OnSave:Connect(function() return false end)
        profile.OnAfterSave:Connect(function() print('saved', profile.Data.n) end)
        profile.Data.n = 1
        profile:Save()
        task.wait(10)
        assert(saves == 1 and store:GetAsync('k').Data.n == 0)
        profile.Data.n = 2
        task.wait(300)
        profile.Data.n = 3
        profile:EndSession()
        task.wait(1)
        assert(store:GetAsync('k').Data.n == 3)",
        |game| game,
    );
    assert_eq!(ran.recorder.texts(Line::Print), ["saved 2", "saved 3"]);
    ran.succeeded();
}
