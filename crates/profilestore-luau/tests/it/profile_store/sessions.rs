//! Starting, saving and ending sessions.

use std::{sync::Arc, time::Duration};

use profilestore::{
    Attribution, Edit, GameServer, ProfileKey,
    data_store::{DataStore, MemoryStore},
    messenger::LocalMessenger,
};
use profilestore_luau::GameBuilder;

use super::{both, live};

#[test]
fn a_session_saves_and_ends() {
    let printed = both(
        "local store = Store('Players', { Coins = 5, Items = {} })
        local profile = store:StartSessionAsync('a')
        assert(profile:IsActive() and profile.Data.Coins == 5 and profile.SessionLoadCount == 1)
        profile.OnSave:Connect(function() print('save', profile:IsActive()) end)
        profile.OnLastSave:Connect(function(reason) print('last', reason, profile:IsActive()) end)
        profile.OnSessionEnd:Connect(function() print('end', profile:IsActive()) profile.Data.Late = true end)
        profile.OnAfterSave:Connect(function(data) print('after', data.Coins, data == profile.LastSavedData, data ~= profile.Data) end)
        profile.Data.Coins += 1
        profile:Save()
        print('called')
        task.wait(1)
        profile.Data.Coins += 1
        profile:EndSession()
        print('ended')
        profile:EndSession()
        assert(not profile:IsActive())
        task.wait(1)
        local view = store:GetAsync('a')
        assert(view.Data.Coins == 7 and view.Data.Late and view.Session == nil and view.SessionLoadCount == 1)",
    );
    let expected = [
        "save true",
        "called",
        "after 6 true true",
        "save true",
        "last Manual true",
        "end false",
        "ended",
        "after 7 true true",
    ];
    assert_eq!(printed, expected);
}

#[test]
fn a_profile_has_its_members() {
    both(
        "local store = Store('Players', { Coins = 5 })
        assert(store.Name == 'Players')
        local began = os.time()
        local profile = store:StartSessionAsync('key')
        assert(profile.Key == 'key' and profile.ProfileStore == store)
        assert(math.abs(profile.FirstSessionTime - began) <= 1)
        assert(type(profile.Session.PlaceId) == 'number' and type(profile.Session.JobId) == 'string')
        assert(next(profile.RobloxMetaData) == nil and #profile.UserIds == 0)
        assert(profile.is_mock == mock and #profile.global_updates[2] == 0)
        assert(profile.LastSavedData.Coins == 5 and profile.LastSavedData ~= profile.Data)
        local info = profile.KeyInfo
        assert((type(info) == 'table') == mock and (typeof(info) == 'Instance') == not mock, typeof(info))
        assert(info.CreatedTime <= info.UpdatedTime and #info:GetUserIds() == 0 and next(info:GetMetadata()) == nil)
        assert(#info.Version:split('.') == 4, info.Version)
        profile:AddUserId(7) profile:AddUserId(7) profile:AddUserId(8) profile:AddUserId(-1) profile:RemoveUserId(8) profile:RemoveUserId(9)
        assert(#profile.UserIds == 1 and profile.UserIds[1] == 7)
        profile.RobloxMetaData = { Level = 3 }
        profile:Save()
        task.wait(1)
        assert(profile.KeyInfo ~= info and profile.KeyInfo.Version ~= info.Version)
        assert(profile.KeyInfo:GetUserIds()[1] == 7 and profile.KeyInfo:GetMetadata().Level == 3)
        profile:EndSession()
        assert(profile.Session ~= nil)
        task.wait(1)
        local again = store:StartSessionAsync('key')
        assert(again.SessionLoadCount == 2 and again.UserIds[1] == 7 and again.RobloxMetaData.Level == 3)
        assert(again.FirstSessionTime == profile.FirstSessionTime)",
    );
}

#[test]
fn mock_and_live_are_apart() {
    live(
        "local store = ProfileStore.New('Players', { Where = 'template' })
        assert(store.Mock.Name == 'Players' and store.Mock.Mock == nil and store.Mock.New == nil)
        local a, b = store:StartSessionAsync('k'), store.Mock:StartSessionAsync('k')
        assert(b.ProfileStore == store.Mock)
        a.Data.Where, b.Data.Where = 'live', 'mock'
        a:EndSession() b:EndSession()
        task.wait(1)
        assert(store:GetAsync('k').Data.Where == 'live' and store.Mock:GetAsync('k').Data.Where == 'mock')
        local view = store.Mock:GetAsync('k')
        view.Data.Where = 'set'
        view:SetAsync()
        assert(store:GetAsync('k').Data.Where == 'live' and store.Mock:GetAsync('k').Data.Where == 'set')
        assert(store.Mock:RemoveAsync('k') and store.Mock:GetAsync('k') == nil and store:GetAsync('k') ~= nil)",
    );
}

#[test]
fn data_may_become_another_table_and_what_follows_the_end_is_not_saved() {
    both(
        "local store = Store('Players')
        local profile = store:StartSessionAsync('k')
        assert(next(profile.Data) == nil)
        profile.Data = { New = { 1, 2, 3 }, Text = 'ä', Buffer = buffer.fromstring('abc') }
        profile:EndSession()
        task.wait(1)
        profile.Data.New[1] = 100
        task.wait(1)
        local data = store:GetAsync('k').Data
        assert(data.New[1] == 1 and #data.New == 3 and data.Text == 'ä' and buffer.tostring(data.Buffer) == 'abc')",
    );
}

#[test]
fn a_second_session_on_one_server_is_refused_until_the_first_has_ended() {
    both(
        "local a, b = Store('Players'), Store('Players')
        local profile = a:StartSessionAsync('k')
        fails('is already loaded in this session', a.StartSessionAsync, a, 'k')
        fails('is already loaded in this session', b.StartSessionAsync, b, 'k')
        profile.Data.Kept = true
        profile.OnSessionEnd:Connect(function()
            -- It comes behind the last save.
            task.spawn(function()
                local again = b:StartSessionAsync('k')
                assert(again.Data.Kept and again.Data.Last and again:IsActive() and again.SessionLoadCount == 2)
                print('again')
            end)
        end)
        profile.OnLastSave:Connect(function() profile.Data.Last = true end)
        profile:EndSession()
        task.wait(1)",
    );
}

#[test]
fn of_starts_at_the_same_time_the_last_one_gets_the_profile() {
    let printed = both(
        "local store = Store('Players')
        for n = 1, 3 do
            task.spawn(function()
                local profile = store:StartSessionAsync('k')
                print(n, profile ~= nil and profile:IsActive() and profile.SessionLoadCount)
            end)
        end
        task.wait(1)",
    );
    assert_eq!(printed.len(), 3);
    assert!(printed.contains(&"3 1".to_owned()), "{printed:?}");
    assert!(
        printed.contains(&"1 false".to_owned()) && printed.contains(&"2 false".to_owned()),
        "{printed:?}"
    );
}

#[test]
fn cancel_calls_a_start_off_and_leaves_nothing() {
    both(
        "local store = Store('Players')
        assert(store:StartSessionAsync('k', { Cancel = function() return true end }) == nil)
        assert(store:GetAsync('k') == nil)
        local calls = 0
        local profile = store:StartSessionAsync('k', { Cancel = function() calls += 1 return false end })
        assert(profile:IsActive() and calls >= 2, calls)
        fails('Cancel', store.StartSessionAsync, store, 'x', { Cancel = 5 })
        fails('params', store.StartSessionAsync, store, 'x', 5)",
    );
}

#[test]
fn steal_takes_the_profile_of_ones_own_server_too_once_it_is_free() {
    both(
        "local store = Store('Players')
        local profile = store:StartSessionAsync('k', { Steal = true })
        assert(profile:IsActive())
        profile:EndSession()
        assert(store:StartSessionAsync('k', { Steal = true }):IsActive())",
    );
}

#[test]
fn templates_are_copied_at_the_start_and_reconciled_on_demand() {
    both(
        "local template = { Coins = 1, Nested = { A = 1 }, List = { 1, 2 }, Flag = true }
        local store = Store('Players', template)
        template.Coins = 2
        local profile = store:StartSessionAsync('k')
        assert(profile.Data.Coins == 2 and profile.Data.Nested ~= template.Nested)
        profile.Data.Flag = false
        profile.Data.Nested = { B = 5 }
        profile.Data.List = { 'x' }
        template.New, template.Nested.C = { Deep = true }, 3
        profile:Reconcile()
        local data = profile.Data
        assert(data.Flag == false and data.New.Deep and data.New ~= template.New)
        assert(data.Nested.A == 1 and data.Nested.B == 5 and data.Nested.C == 3)
        assert(#data.List == 1 and data.List[1] == 'x')
        data.Coins = 'text'
        profile:Reconcile()
        assert(data.Coins == 'text')",
    );
}

#[test]
fn saving_is_for_active_sessions_only() {
    let ran = super::play(
        false,
        1,
        "local store = Store('Players')
        local profile = store:StartSessionAsync('k')
        profile:EndSession()
        profile:Save()
        task.wait(1)
        fails('[ProfileStore]', function() profile:SetAsync() end)
        local view = store:GetAsync('k')
        fails('[ProfileStore]', function() view:Save() end)
        view:EndSession()
        assert(not view:IsActive())",
        |game| game,
    );
    assert!(ran.report.is_success(), "{:?}", ran.recorder);
    let warnings = ran.recorder.texts(profilestore_luau::Line::Warn);
    assert!(
        warnings.len() == 1
            && warnings[0].starts_with("[ProfileStore]: ")
            && warnings[0].contains("inactive"),
        "{warnings:?}"
    );
}

#[test]
fn data_that_cannot_be_stored_is_reported_with_its_path_and_the_session_stays() {
    let printed = both(
        "local store = Store('Players', { Items = {} })
        local profile = store:StartSessionAsync('k')
        local errors = {}
        ProfileStore.OnError:Connect(function(message, name, key) table.insert(errors, message) assert(name == 'Players' and key == 'k') end)
        profile.OnSessionEnd:Connect(function() print('end') end)
        profile.Data.Items[1] = print
        profile:Save()
        task.wait(1)
        assert(#errors == 1 and errors[1]:find('Data.Items[1]: a function cannot be stored', 1, true), errors[1])
        profile:EndSession()
        assert(#errors == 2 and errors[2]:find('Data.Items[1]', 1, true) and profile:IsActive())
        local mended = profile.Data
        profile.Data = nil
        profile:Save()
        profile:EndSession()
        task.wait(1)
        assert(#errors == 4 and errors[4]:find('Data: a nil', 1, true) and profile:IsActive(), errors[4])
        profile.Data = mended
        profile.Data.Items[1] = 'mended'
        profile.RobloxMetaData = { Long = string.rep('x', 300) }
        profile:Save()
        task.wait(1)
        assert(#errors == 5 and errors[5]:find('metadata', 1, true) and profile:IsActive(), errors[5])
        profile.RobloxMetaData = {}
        profile:EndSession()
        task.wait(1)
        assert(not profile:IsActive() and store:GetAsync('k').Data.Items[1] == 'mended')",
    );
    assert_eq!(printed, ["end"]);
}

#[test]
fn what_on_session_end_makes_unstorable_costs_only_itself() {
    both(
        "local store = Store('Players')
        local profile = store:StartSessionAsync('k')
        local errors = 0
        ProfileStore.OnError:Connect(function(message) errors += 1 assert(message:find('Data.Bad', 1, true), message) end)
        profile.OnLastSave:Connect(function() profile.Data.Good = true end)
        profile.OnSessionEnd:Connect(function() profile.Data.Bad = 0 / 0 end)
        profile:EndSession()
        task.wait(1)
        assert(errors == 1 and store:GetAsync('k').Data.Good and store:GetAsync('k').Data.Bad == nil)",
    );
}

#[test]
fn autosaves_run_hooks_and_write_only_what_changed() {
    both(
        "local store = Store('Players', { Coins = 0 })
        local profile = store:StartSessionAsync('k')
        local saves, after, infos = 0, 0, {}
        profile.OnSave:Connect(function() saves += 1 end)
        profile.OnAfterSave:Connect(function(data) after += 1 infos[profile.KeyInfo] = true end)
        local version = profile.KeyInfo.Version
        local last = profile.LastSavedData
        task.wait(620)
        assert(saves == 2 and after == 2, saves)
        assert(profile.KeyInfo.Version == version, 'nothing changed, nothing was written')
        assert(profile.LastSavedData ~= last, 'it is another table after each save')
        local count = 0
        for _ in infos do count += 1 end
        assert(count == 2)
        profile.Data.Coins = 1
        task.wait(300)
        assert(saves == 3 and profile.KeyInfo.Version ~= version and profile.LastSavedData.Coins == 1)",
    );
}

#[test]
fn constants_are_set_by_name() {
    both(
        "ProfileStore.SetConstant('AUTO_SAVE_PERIOD', 10)
        fails('constant', ProfileStore.SetConstant, 'NO_SUCH', 1)
        fails('number', ProfileStore.SetConstant, 'AUTO_SAVE_PERIOD', '1')
        local profile = Store('Players'):StartSessionAsync('k')
        local saves = 0
        profile.OnSave:Connect(function() saves += 1 end)
        task.wait(31)
        assert(saves == 3, saves)",
    );
}

#[test]
fn an_operators_edit_changes_the_tables_that_the_script_has() {
    let with_operator = |game: GameBuilder| {
        game.store(|env| {
            let store: Arc<dyn DataStore> = Arc::new(MemoryStore::new(env.clone()));
            let messenger = LocalMessenger::new();
            let builder =
                GameServer::builder(store.clone()).messenger(messenger.clone()).env(env.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(20)).await;
                let server = builder.start().await.expect("a server");
                let key = ProfileKey::new("Players", "global", "k").expect("a key");
                let edit = Edit::new()
                    .increase("/Coins", 5.into())
                    .expect("an edit")
                    .remove("/Items/Sword")
                    .expect("an edit");
                server
                    .operator(Attribution::new("ann"))
                    .edit(&key, &edit)
                    .await
                    .expect("it is applied");
                assert!(server.shutdown().await.is_complete());
            });
            Ok((store, Arc::new(messenger)))
        })
    };
    super::play(
        false,
        1,
        "local store = Store('Players', { Coins = 0, Items = { Sword = {}, Shield = { Level = 3 } } })
        local profile = store:StartSessionAsync('k')
        local data, items, shield = profile.Data, profile.Data.Items, profile.Data.Items.Shield
        data.Coins = 100
        task.wait(30)
        assert(profile:IsActive() and profile.Data == data and data.Items == items and items.Shield == shield)
        assert(data.Coins == 105 and items.Sword == nil and shield.Level == 3 and profile.LastSavedData.Coins == 105)",
        with_operator,
    )
    .succeeded();
}

#[test]
fn profiles_whose_sessions_are_over_are_garbage() {
    both(
        "local store = Store('Players')
        for n = 1, 150 do
            local profile = store:StartSessionAsync('k' .. n)
            profile.Data.Blob = string.rep('x', 100000) .. n
            profile.OnSave:Connect(function() return profile end)
            profile:MessageHandler(function() return profile end)
            profile:EndSession()
            task.wait(0.1)
        end
        -- All of them would be more than 14,600 KB. What is garbage goes while the script works, so
        -- that some 3,000 KB are left.
        assert(collectgarbage('count') < 10000, collectgarbage('count'))",
    );
}
