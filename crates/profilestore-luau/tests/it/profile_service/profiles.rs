//! Profiles: members, signals, tags, the end.

use profilestore_luau::Line;

use super::{both, live, play};

#[test]
fn a_profile_has_the_documented_members() {
    both(
        "local profile = Store('PlayerData', { Coins = 5, Items = { 1, 2 } }):LoadProfileAsync('p', 'ForceLoad')
        assert(profile.Data.Coins == 5 and #profile.Data.Items == 2)
        local meta = profile.MetaData
        assert(math.abs(meta.ProfileCreateTime - os.time()) <= 1 and meta.SessionLoadCount == 1)
        assert(meta.ActiveSession[1] == 0 and type(meta.ActiveSession[2]) == 'string')
        assert(next(meta.MetaTags) == nil and next(meta.MetaTagsLatest) == nil and meta.MetaTags ~= meta.MetaTagsLatest)
        assert(next(profile.RobloxMetaData) == nil and #profile.UserIds == 0)
        assert(typeof(profile.KeyInfo) == 'Instance' and profile.KeyInfo.Version ~= '')
        assert(#profile.GlobalUpdates:GetActiveUpdates() == 0 and #profile.GlobalUpdates:GetLockedUpdates() == 0)
        assert(profile:IsActive() and profile.MetaTagsUpdated.Wait and profile.KeyInfoUpdated.Wait)",
    );
}

#[test]
fn data_tags_ids_and_metadata_are_saved_and_come_back() {
    both(
        "local store = Store()
        local profile = store:LoadProfileAsync('p')
        profile.Data = { deep = { list = { 'a', 'b' }, on = true } }
        profile:SetMetaTag('DataVersion', 3)
        profile.MetaData.MetaTags.More = { x = 1 }
        assert(profile:GetMetaTag('DataVersion') == 3 and profile:GetMetaTag('none') == nil)
        profile.RobloxMetaData = { UserCategory = 'Casual', FavoriteColor = { 1, 0, 0 } }
        profile:AddUserId(7) profile:AddUserId(7) profile:AddUserId(8) profile:AddUserId(-1) profile:RemoveUserId(8)
        profile:RemoveUserId(99)
        profile:Release()
        task.wait(1)
        local again = store:LoadProfileAsync('p')
        assert(again.MetaData.SessionLoadCount == 2 and again ~= profile)
        assert(again.Data.deep.list[2] == 'b' and again.Data.deep.on)
        assert(again.MetaData.MetaTags.DataVersion == 3 and again.MetaData.MetaTagsLatest.More.x == 1)
        assert(again.RobloxMetaData.FavoriteColor[1] == 1 and again.KeyInfo:GetMetadata().UserCategory == 'Casual')
        assert(#again.UserIds == 1 and again.UserIds[1] == 7 and again.KeyInfo:GetUserIds()[1] == 7)",
    );
}

#[test]
fn latest_tags_follow_each_save_and_say_what_is_stored() {
    both(
        "local store = Store()
        local profile = store:LoadProfileAsync('p')
        local seen = 0
        profile.MetaTagsUpdated:Connect(function(latest)
            seen += 1
            assert(latest == profile.MetaData.MetaTagsLatest)
        end)
        local infos = {}
        profile.KeyInfoUpdated:Connect(function(info)
            assert(info == profile.KeyInfo)
            table.insert(infos, info.Version)
        end)
        profile:SetMetaTag('Purchase', 'x')
        assert(profile.MetaData.MetaTagsLatest.Purchase == nil)
        profile:Save()
        assert(profile.MetaData.MetaTagsLatest.Purchase == nil, 'it does not wait')
        task.wait(1)
        assert(profile.MetaData.MetaTagsLatest.Purchase == 'x' and seen == 1)
        assert(store:ViewProfileAsync('p').MetaData.MetaTags.Purchase == 'x')
        task.wait(31)
        assert(seen >= 2, 'also when nothing has changed')
        profile.MetaData.MetaTags.Purchase = 'y'
        profile:Release()
        task.wait(1)
        assert(profile.MetaData.MetaTagsLatest.Purchase == 'y', 'also after the last save')
        assert(infos[1] ~= infos[#infos])",
    );
}

#[test]
fn a_profile_is_saved_every_thirty_seconds() {
    let printed = both(
        "local store = Store()
        local profile = store:LoadProfileAsync('p')
        profile.Data.n = 1
        task.wait(30.1)
        print(store:ViewProfileAsync('p').Data.n)
        profile.Data.n = 2
        task.wait(30.1)
        print(store:ViewProfileAsync('p').Data.n)",
    );
    assert_eq!(printed, ["1", "2"]);
}

#[test]
fn a_release_calls_its_listeners_in_order_and_what_they_change_is_saved() {
    let printed = both(
        "local store = Store()
        local profile = store:LoadProfileAsync('p')
        profile:ListenToRelease(function(place_id, job_id)
            print('release', place_id, type(job_id), profile:IsActive())
            profile.Data.last = 1
        end)
        profile:ListenToHopReady(function() print('hop', profile.MetaData.ActiveSession) end)
        profile.MetaTagsUpdated:Connect(function() print('tags') end)
        profile.KeyInfoUpdated:Connect(function() print('info') end)
        profile:Release()
        print('returned', profile:IsActive())
        profile:Release()
        task.wait(1)
        profile:ListenToRelease(function(...) print('late release', ...) end)
        profile:ListenToHopReady(function(...) print('late hop', ...) end)
        assert(store:ViewProfileAsync('p').Data.last == 1)",
    );
    assert_eq!(
        printed,
        [
            "release 0 string false",
            "returned false",
            "hop nil",
            "tags",
            "info",
            "late release nil nil",
            "late hop"
        ]
    );
}

#[test]
fn a_hop_listener_that_comes_right_after_the_release_waits_for_the_save() {
    let printed = both(
        "local profile = Store():LoadProfileAsync('p')
        profile:Release()
        profile:ListenToHopReady(function() print('ready') end)
        print('released')",
    );
    assert_eq!(printed, ["released", "ready"]);
}

#[test]
fn a_released_profile_refuses_what_would_not_be_saved() {
    both(
        "local store = Store()
        local profile = store:LoadProfileAsync('p')
        profile:Release()
        fails('PROFILE EXPIRED', profile.Save, profile)
        fails('PROFILE EXPIRED', profile.SetMetaTag, profile, 'a', 1)
        local updates = profile.GlobalUpdates
        fails('PROFILE EXPIRED', updates.ListenToNewActiveUpdate, updates, print)
        fails('PROFILE EXPIRED', updates.ListenToNewLockedUpdate, updates, print)
        fails('PROFILE EXPIRED', updates.LockActiveUpdate, updates, 1)
        fails('PROFILE EXPIRED', updates.ClearLockedUpdate, updates, 1)
        fails('view mode', profile.OverwriteAsync, profile)
        fails('view mode', profile.ClearGlobalUpdates, profile)",
    );
}

#[test]
fn reconcile_fills_string_keys_only() {
    both(
        "local store = Store('PlayerData', { a = 1, b = { c = 2 }, list = { 'x' }, off = true })
        local profile = store:LoadProfileAsync('p')
        profile.Data = { b = {}, list = {}, off = false }
        profile:Reconcile()
        local data = profile.Data
        assert(data.a == 1 and data.b.c == 2 and #data.list == 0 and data.off == false)
        profile.Data.b.c = 9
        local other = store:LoadProfileAsync('q')
        assert(other.Data.b.c == 2, 'the template is copied')",
    );
}

#[test]
fn identify_names_store_scope_and_key() {
    let printed = both(
        "print(Store({ Name = 'GameData', Scope = 'Live' }):LoadProfileAsync('Player_2312310'):Identify())
        print(Store('GameData'):LoadProfileAsync('k'):Identify())",
    );
    assert_eq!(
        printed,
        [
            r#"[Store:"GameData";Scope:"Live";Key:"Player_2312310"]"#,
            r#"[Store:"GameData";Key:"k"]"#
        ]
    );
}

#[test]
fn stores_of_other_scopes_have_other_profiles() {
    both(
        "local one, two = Store({ Name = 'S', Scope = 'one' }), Store({ Name = 'S', Scope = 'two' })
        one:LoadProfileAsync('p').Data.x = 1
        local profile = two:LoadProfileAsync('p')
        assert(profile.Data.x == nil and profile.MetaData.SessionLoadCount == 1)",
    );
}

#[test]
fn wrong_arguments_are_refused() {
    both(
        "local store = Store()
        fails('must be a string', store.LoadProfileAsync, store, 5)
        fails('must be a string', store.LoadProfileAsync, store, '')
        fails('not_released_handler', store.LoadProfileAsync, store, 'p', 'Force')
        fails('must be a function', store.GlobalUpdateProfileAsync, store, 'p')
        fails('must be a string', store.ViewProfileAsync, store)
        fails('sort_direction', store.ProfileVersionQuery, store, 'p', 'Descending')
        fails('name of a profile store', ProfileService.GetProfileStore, {}, {})
        fails('must be a table', ProfileService.GetProfileStore, 'x')
        local profile = store:LoadProfileAsync('p')
        fails('is already loaded in this session', store.LoadProfileAsync, store, 'p')
        fails('tag_name', profile.SetMetaTag, profile, 5, 1)
        fails('listener is a function', profile.ListenToRelease, profile, 5)
        profile:Release()
        assert(store:LoadProfileAsync('p').MetaData.SessionLoadCount == 2, 'at once after the release')",
    );
}

#[test]
fn the_module_says_what_it_is() {
    live(
        "assert(ProfileService.IsLive() == true and ProfileService.ServiceLocked == false)
        assert(ProfileService.CriticalState == false)
        for _, name in { 'IssueSignal', 'CorruptionSignal', 'CriticalStateSignal' } do
            assert(ProfileService[name].Connect)
        end",
    );
}

#[test]
fn data_that_cannot_be_stored_is_told_with_its_path_and_nothing_stored_is_lost() {
    let ran = play(
        false,
        1,
        "local store = Store()
        ProfileService.IssueSignal:Connect(function(message, store_name, key) print(store_name, key, message) end)
        local profile = store:LoadProfileAsync('p')
        profile.Data.good = 1
        profile:Save()
        task.wait(1)
        profile.Data.bad = { print }
        profile:Save()
        task.wait(1)
        assert(profile:IsActive())
        profile:Release()
        task.wait(1)
        assert(profile:IsActive(), 'until it is mended')
        profile.Data.bad = nil
        profile.Data.good = 2
        task.wait(10)
        assert(not profile:IsActive())
        local again = store:LoadProfileAsync('p')
        assert(again.Data.good == 2 and again.Data.bad == nil, 'it is not locked')",
        |game| game,
    );
    assert!(ran.report.is_success(), "{:?}", ran.recorder);
    let printed = ran.recorder.texts(Line::Print);
    assert!(
        printed[0].starts_with("PlayerData p") && printed[0].contains("Data.bad[1]"),
        "{printed:?}"
    );
}

#[test]
fn a_server_that_closes_is_locked_from_the_beginning_and_releases_what_is_loaded() {
    let ran = play(
        false,
        1,
        "local store = Store()
        local profile = store:LoadProfileAsync('p')
        profile:ListenToRelease(function(place_id, job_id)
            print('release', job_id == game.JobId, profile:IsActive(), ProfileService.ServiceLocked)
            profile.Data.last = 1
        end)
        profile:ListenToHopReady(function() print('hop ready') end)
        game:BindToClose(function()
            print('closing', ProfileService.ServiceLocked, profile:IsActive(), store:LoadProfileAsync('q'))
            print(store:ViewProfileAsync('p'), store:WipeProfileAsync('p'), store:GlobalUpdateProfileAsync('p', print))
        end)
        print(ProfileService.ServiceLocked)",
        |game| game,
    );
    let printed = ran.succeeded();
    assert_eq!(
        printed,
        [
            "false",
            "release true false true",
            "closing true false nil",
            "nil false nil",
            "hop ready"
        ]
    );
}
