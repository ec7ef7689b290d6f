//! The order in which games see things: at the closing of the game, after calls that wait, of
//! threads that are cancelled.

use std::time::Duration;

use crate::{check, run};

#[test]
fn sessions_end_before_what_the_game_binds_to_its_closing() {
    let ran = run(
        "local ProfileStore = require('ProfileStore')
        local store, profiles = ProfileStore.New('P', {}), {}
        local Players = game:GetService('Players')
        Players.PlayerAdded:Connect(function(player)
            local profile = store:StartSessionAsync(tostring(player.UserId))
            profiles[player] = profile
            profile.OnLastSave:Connect(function(reason) print('last', reason, ProfileStore.IsClosing) end)
            profile.OnSessionEnd:Connect(function() print('end', ProfileStore.IsClosing) end)
        end)
        Players.PlayerRemoving:Connect(function(player) profiles[player]:EndSession() print('left') end)
        game:BindToClose(function()
            print('close', ProfileStore.IsClosing)
            task.wait(1)
            assert(store:StartSessionAsync('other') == nil)
        end)",
        |game| game.until(Duration::from_secs(5)).players("1:join@0s".parse().expect("a plan")),
    );
    assert_eq!(ran.succeeded(), ["last Shutdown true", "end true", "close true", "left"]);
}

#[test]
fn a_game_may_wait_at_its_closing_until_all_sessions_are_over() {
    for (module, load) in [
        ("ProfileStore", "New('P', {}):StartSessionAsync"),
        ("ProfileService", "GetProfileStore('P', {}):LoadProfileAsync"),
    ] {
        let ran = run(
            &format!(
                "local profile = require('{module}').{load}('guild')
                profile.Data.n = 7
                game:BindToClose(function()
                    while profile:IsActive() do task.wait() end
                    print('over', os.clock() < 20)
                end)"
            ),
            |game| game.latency(Duration::from_millis(100)).until(Duration::from_secs(5)),
        );
        assert_eq!(ran.succeeded(), ["over true"], "{module}");
    }
}

/// The shutdown reported nothing, and `profilestore run` ended with exit code 0.
#[test]
fn a_game_that_closes_with_data_that_cannot_be_stored_reports_the_profile_once() {
    let ran = run(
        "local profile = require('ProfileStore').New('P', {}):StartSessionAsync('p')
        profile.Data.f = print",
        |game| game.until(Duration::from_secs(5)),
    );
    let [profile] = &ran.report.not_saved[..] else { panic!("{:?}", ran.report.not_saved) };
    assert!(profile.contains("P/p") && profile.contains("Data.f"), "{profile}");
}

#[test]
fn data_stores_work_while_the_game_closes() {
    let ran = run(
        "require('ProfileStore')
        local raw = game:GetService('DataStoreService'):GetDataStore('Raw')
        game:BindToClose(function()
            task.wait(1)
            raw:SetAsync('k', 5)
            print((raw:GetAsync('k')))
        end)",
        |game| game,
    );
    assert_eq!(ran.succeeded(), ["5"]);
}

#[test]
fn a_session_that_set_async_ends_says_so_after_the_call() {
    let printed = check(
        "local store = require('ProfileStore').New('P', {})
        local profile = store:StartSessionAsync('k')
        store:GetAsync('k'):SetAsync()
        print('set')
        profile.OnSessionEnd:Connect(function() print('end', profile:IsActive()) end)
        profile.OnAfterSave:Connect(function() print('after') end)
        task.wait(10)
        local other = store:StartSessionAsync('other')
        store:RemoveAsync('other')
        other.OnSessionEnd:Connect(function() print('removed') end)
        task.wait(10)",
    );
    assert_eq!(printed, ["set", "end false", "after", "removed"]);
}

#[test]
fn a_message_to_a_session_of_this_server_comes_after_the_call_that_sent_it() {
    let printed = check(
        "local store = require('ProfileStore').New('P', {})
        local profile = store:StartSessionAsync('k')
        profile:MessageHandler(function(message, processed) print('got', message.n) processed() end)
        print('sent', store:MessageAsync('k', { n = 1 }))
        task.wait(1)
        for n = 2, 4 do task.spawn(function() print('sent', store:MessageAsync('k', { n = n })) end) end
        task.wait(10)
        local older = require('ProfileService').GetProfileStore('Q', {})
        local live = older:LoadProfileAsync('k')
        live.GlobalUpdates:ListenToNewActiveUpdate(function(_, update) print('update', update.n) end)
        older:GlobalUpdateProfileAsync('k', function(updates) updates:AddActiveUpdate({ n = 5 }) end)
        print('added')
        task.wait(10)",
    );
    assert_eq!(printed[..2], ["sent true", "got 1"]);
    let gifts: Vec<&String> = printed.iter().filter(|line| line.starts_with("got")).collect();
    assert_eq!(gifts, ["got 1", "got 2", "got 3", "got 4"]);
    assert_eq!(printed[printed.len() - 2..], ["added", "update 5"]);
}

#[test]
fn a_thread_that_is_cancelled_while_it_loads_a_profile_leaves_nothing() {
    for (module, load) in [
        ("ProfileStore", "New('P', {}):StartSessionAsync"),
        ("ProfileService", "GetProfileStore('P', {}):LoadProfileAsync"),
    ] {
        for latency in [0, 100] {
            let ran = run(
                &format!(
                    "local module = require('{module}')
                    for n, wait in {{ 0, 0.02, 0.05, 0.11, 0.3 }} do
                        local done = false
                        local thread = task.spawn(function() module.{load}('k' .. n) done = true end)
                        if wait > 0 then task.wait(wait) end
                        if not done then
                            task.cancel(thread)
                            task.wait(2)
                            local profile = module.{load}('k' .. n)
                            assert(profile ~= nil and profile:IsActive(), n)
                        end
                    end"
                ),
                |game| game.latency(Duration::from_millis(latency)),
            );
            ran.succeeded();
        }
    }
}

#[test]
fn a_cancel_function_may_wait() {
    check(
        "local store = require('ProfileStore').New('P', {})
        local asked = 0
        local profile = store:StartSessionAsync('k', { Cancel = function() asked += 1 task.wait(0.1) return false end })
        assert(profile:IsActive() and asked > 0)
        assert(store:StartSessionAsync('l', { Cancel = function() return true end }) == nil)",
    );
}

#[test]
fn a_holder_whose_job_id_is_a_number_keeps_it_as_one() {
    let printed = check(
        "local ProfileService = require('ProfileService')
        local store = ProfileService.GetProfileStore('Jobs', {})
        game:GetService('DataStoreService'):GetDataStore('Jobs'):SetAsync('k', {
            Data = {},
            MetaData = { ProfileCreateTime = 0, SessionLoadCount = 0, ActiveSession = { 12, 345 }, MetaTags = {} },
            GlobalUpdates = { 0, {} },
        })
        local seen = store:ViewProfileAsync('k').MetaData.ActiveSession
        print(type(seen[1]), type(seen[2]))
        local profile = store:LoadProfileAsync('k', function(place, job)
            print(type(place), type(job), job)
            return 'ForceLoad'
        end)
        print(profile ~= nil)",
    );
    assert_eq!(printed, ["number number", "number number 345", "true"]);
}
