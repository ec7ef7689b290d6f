//! What the documentation of both modules shows games to do, played with players, purchases and
//! several servers.

use profilestore_luau::Line;

use crate::{Ran, check, run};

fn play(servers: usize, players: &str, script: &str) -> Ran {
    let players = players.parse().expect("a plan");
    run(script, |game| game.servers(servers).place_id(77).players(players))
}

/// How a game of the newer module holds its players' data.
const NEW_GAME: &str = "
local ProfileStore = require(game.ServerScriptService.ProfileStore)
local Players = game:GetService('Players')
local store = ProfileStore.New('PlayerData', { Coins = 0 })
local profiles = {}
local function joined(player)
    local profile = store:StartSessionAsync(`{player.UserId}`, { Cancel = function() return player.Parent ~= Players end })
    if profile == nil then
        player:Kick('try again')
        return
    end
    profile:AddUserId(player.UserId)
    profile:Reconcile()
    profile.OnSessionEnd:Connect(function()
        profiles[player] = nil
        player:Kick('your data is elsewhere now')
    end)
    if player.Parent == Players then
        profiles[player] = profile
        profile.Data.Coins += 100
        print(`{player.UserId} has {profile.Data.Coins}`)
    else
        profile:EndSession()
    end
end
for _, player in Players:GetPlayers() do task.spawn(joined, player) end
Players.PlayerAdded:Connect(joined)
Players.PlayerRemoving:Connect(function(player)
    local profile = profiles[player]
    if profile ~= nil then profile:EndSession() end
end)
";

/// And one of the older module.
const OLD_GAME: &str = "
local ProfileService = require(game.ServerScriptService.ProfileService)
local Players = game:GetService('Players')
local store = ProfileService.GetProfileStore('PlayerData', { Coins = 0 })
local profiles = {}
local function joined(player)
    local profile = store:LoadProfileAsync(`{player.UserId}`)
    if profile == nil then
        player:Kick('try again')
        return
    end
    profile:AddUserId(player.UserId)
    profile:Reconcile()
    profile:ListenToRelease(function()
        profiles[player] = nil
        player:Kick('your data is elsewhere now')
    end)
    if player:IsDescendantOf(Players) then
        profiles[player] = profile
        profile.Data.Coins += 100
        print(`{player.UserId} has {profile.Data.Coins}`)
    else
        profile:Release()
    end
end
for _, player in Players:GetPlayers() do task.spawn(joined, player) end
Players.PlayerAdded:Connect(joined)
Players.PlayerRemoving:Connect(function(player)
    local profile = profiles[player]
    if profile ~= nil then profile:Release() end
end)
";

#[test]
fn players_keep_what_they_have_wherever_they_go() {
    for game in [NEW_GAME, OLD_GAME] {
        let ran = play(
            3,
            "1:join@1s,hop@20s/2,hop@40s/3,leave@60s,join@70s/1,leave@80s;2:join@5s/2,join@30s/3,leave@90s",
            game,
        );
        let mut printed = ran.succeeded();
        printed.sort();
        assert_eq!(
            printed,
            ["1 has 100", "1 has 200", "1 has 300", "1 has 400", "2 has 100", "2 has 200"]
        );
    }
}

/// Grants in one step with noting the purchase's id, and answers when the note is known to be
/// saved.
#[test]
fn a_purchase_is_granted_once_and_confirmed_when_it_is_saved() {
    let new = "
    local granted = 0
    game:GetService('MarketplaceService').ProcessReceipt = function(receipt)
        local player = Players:GetPlayerByUserId(receipt.PlayerId)
        local profile = profiles[player]
        while profile == nil and player ~= nil and player.Parent == Players do
            task.wait()
            profile = profiles[player]
        end
        if profile == nil or not profile:IsActive() then
            return Enum.ProductPurchaseDecision.NotProcessedYet
        end
        local data = profile.Data
        data.Purchases = data.Purchases or {}
        if table.find(data.Purchases, receipt.PurchaseId) == nil then
            table.insert(data.Purchases, receipt.PurchaseId)
            data.Coins += 1000
            granted += 1
            print('granted')
        end
        local function is_saved()
            local saved = profile.LastSavedData.Purchases
            return saved ~= nil and table.find(saved, receipt.PurchaseId) ~= nil
        end
        profile:Save()
        while not is_saved() do
            if not profile:IsActive() then return Enum.ProductPurchaseDecision.NotProcessedYet end
            profile.OnAfterSave:Wait()
        end
        assert(store:GetAsync(`{player.UserId}`).Data.Coins == data.Coins)
        if granted == 1 and not data.Asked then
            -- As if the answer had been lost: the receipt comes again.
            data.Asked = true
            return Enum.ProductPurchaseDecision.NotProcessedYet
        end
        print('confirmed', data.Coins)
        return Enum.ProductPurchaseDecision.PurchaseGranted
    end";
    let old = "
    local asked = false
    game:GetService('MarketplaceService').ProcessReceipt = function(receipt)
        local player = Players:GetPlayerByUserId(receipt.PlayerId)
        local profile = profiles[player]
        while profile == nil and player ~= nil and player:IsDescendantOf(Players) do
            task.wait()
            profile = profiles[player]
        end
        if profile == nil or not profile:IsActive() then
            return Enum.ProductPurchaseDecision.NotProcessedYet
        end
        local meta = profile.MetaData
        local ids = meta.MetaTags.PurchaseIds
        if ids == nil then
            ids = {}
            meta.MetaTags.PurchaseIds = ids
        end
        if table.find(ids, receipt.PurchaseId) == nil then
            while #ids >= 50 do table.remove(ids, 1) end
            table.insert(ids, receipt.PurchaseId)
            profile.Data.Coins += 1000
            print('granted')
        end
        local result = nil
        local function check()
            local saved = meta.MetaTagsLatest.PurchaseIds
            if saved ~= nil and table.find(saved, receipt.PurchaseId) ~= nil then
                result = Enum.ProductPurchaseDecision.PurchaseGranted
            elseif not profile:IsActive() then
                result = Enum.ProductPurchaseDecision.NotProcessedYet
            end
        end
        check()
        local connection = profile.MetaTagsUpdated:Connect(check)
        while result == nil do task.wait() end
        connection:Disconnect()
        if not asked then
            asked = true
            return Enum.ProductPurchaseDecision.NotProcessedYet
        end
        print('confirmed', profile.Data.Coins)
        return result
    end";
    for game in [format!("{NEW_GAME}{new}"), format!("{OLD_GAME}{old}")] {
        let printed = play(1, "1:join@1s,buy=5@10s,leave@120s", &game).succeeded();
        assert_eq!(printed, ["1 has 100", "granted", "confirmed 1100"]);
    }
}

#[test]
fn a_profile_is_rolled_back_to_what_it_was_at_a_time() {
    let script = |open: &str, close: &str, query: &str, set: &str| {
        format!(
            "{open}
            for turn = 1, 3 do
                local profile = start('Player_1')
                profile.Data.Coins = if turn == 3 then 0 else turn * 10
                {close}
                task.wait(2 * 3600)
            end
            local until_date = DateTime.fromUnixTimestamp(os.time() - 2.5 * 3600)
            local query = store:{query}('Player_1', Enum.SortDirection.Descending, nil, until_date)
            local profile = query:NextAsync()
            {set}
            print('rolled back to', profile.Data.Coins)
            print(start('Player_1').Data.Coins)
            assert(store:{query}('Player_1', Enum.SortDirection.Ascending, DateTime.now()):NextAsync() ~= profile)
            local early = DateTime.fromUniversalTime(2021, 08, 13)
            print(store:{query}('Player_1', Enum.SortDirection.Descending, nil, early):NextAsync())"
        )
    };
    let new = script(
        "local store = require('ProfileStore').New('S', {})
        local function start(key) return store:StartSessionAsync(key) end",
        "profile:EndSession()",
        "VersionQuery",
        "profile:SetAsync()",
    );
    let old = script(
        "local store = require('ProfileService').GetProfileStore('S', {})
        local function start(key) return store:LoadProfileAsync(key) end",
        "profile:Release()",
        "ProfileVersionQuery",
        "profile:ClearGlobalUpdates() profile:OverwriteAsync()",
    );
    for script in [new, old] {
        assert_eq!(check(&script), ["rolled back to 20", "20", "nil"]);
    }
}

#[test]
fn the_mutation_of_a_profile_is_studied_over_time() {
    let script = |open: &str, close: &str, query: &str| {
        format!(
            "{open}
            local begin = DateTime.now()
            local minutes = 4 * 60
            for n = 1, 5 do
                local profile = start('Player_1')
                profile.Data.n = n
                {close}
                task.wait(3600)
            end
            local finish = begin.UnixTimestampMillis + minutes * 60000
            local query = store:{query}('Player_1', Enum.SortDirection.Ascending, begin)
            local last = 0
            while true do
                local profile = query:NextAsync()
                if profile == nil then print('no more') break end
                local at = profile.KeyInfo.UpdatedTime
                assert(at >= last)
                last = at
                if at > finish then print('time is over') break end
                assert(DateTime.fromUnixTimestampMillis(at):ToIsoDate():sub(1, 10) == '2026-01-01')
                print(profile.Data.n)
            end"
        )
    };
    let new = script(
        "local store = require('ProfileStore').New('S', { n = 0 })
        local function start(key) return store:StartSessionAsync(key) end",
        "profile:EndSession()",
        "VersionQuery",
    );
    let old = script(
        "local store = require('ProfileService').GetProfileStore('S', { n = 0 })
        local function start(key) return store:LoadProfileAsync(key) end",
        "profile:Release()",
        "ProfileVersionQuery",
    );
    for script in [new, old] {
        let printed = check(&script);
        assert_eq!(printed.last().map(String::as_str), Some("time is over"), "{printed:?}");
        for n in 1..=4 {
            assert!(printed.contains(&n.to_string()), "{printed:?}");
        }
    }
}

#[test]
fn a_player_is_teleported_when_his_profile_is_free() {
    let ran = play(
        2,
        "1:join@1s/1",
        &format!(
            "{OLD_GAME}
            local TeleportService = game:GetService('TeleportService')
            task.wait(10)
            for player, profile in table.clone(profiles) do
                profiles[player] = nil
                profile:Release()
                profile:ListenToHopReady(function()
                    assert(store:ViewProfileAsync(`{{player.UserId}}`).MetaData.ActiveSession == nil)
                    print('ready')
                end)
            end"
        ),
    );
    assert_eq!(ran.recorder.texts(Line::Print)[..2], ["1 has 100", "ready"], "{:?}", ran.recorder);
}

#[test]
fn a_game_plays_on_a_mock() {
    check(
        "local live = require('ProfileStore').New('PlayerData', { Coins = 0 })
        local store = live
        if not game:GetService('RunService'):IsStudio() then
            store = store.Mock
        end
        local profile, real = store:StartSessionAsync('p'), live:StartSessionAsync('p')
        assert(profile ~= real)
        profile.Data.Coins = 5
        profile:EndSession()
        task.wait(1)
        assert(store:GetAsync('p').Data.Coins == 5 and live:GetAsync('p').Data.Coins == 0)
        assert(store:RemoveAsync('p') and store:GetAsync('p') == nil)",
    );
}

#[test]
fn gifts_reach_players_who_are_online_and_those_who_are_not() {
    let script = "
    local role = require('ProfileStore').New('Roles'):StartSessionAsync('role')
    local first = role.SessionLoadCount == 1
    role:EndSession()
    local store = require('ProfileService').GetProfileStore('PlayerData', { Coins = 0 })
    local function open(key)
        local profile = store:LoadProfileAsync(key)
        local updates = profile.GlobalUpdates
        local function locked(id, data)
            if data.Type == 'AdminGift' and data.Item == 'Coins' then
                profile.Data.Coins += data.Amount
                print(key, profile.Data.Coins)
            end
            updates:ClearLockedUpdate(id)
        end
        for _, update in updates:GetLockedUpdates() do locked(update[1], update[2]) end
        updates:ListenToNewLockedUpdate(locked)
        for _, update in updates:GetActiveUpdates() do updates:LockActiveUpdate(update[1]) end
        updates:ListenToNewActiveUpdate(function(id) updates:LockActiveUpdate(id) end)
        return profile
    end
    local function give(key, amount)
        store:GlobalUpdateProfileAsync(key, function(updates)
            updates:AddActiveUpdate({ Type = 'AdminGift', Item = 'Coins', Amount = amount })
        end)
    end
    if first then
        open('online')
        task.wait(30)
        open('offline')
        task.wait(10)
    else
        task.wait(10)
        give('online', 1000)
        give('offline', 5)
        give('offline', 6)
        task.wait(10)
        give('online', 1)
        task.wait(40)
        assert(store:ViewProfileAsync('online').Data.Coins == 1001)
        assert(store:ViewProfileAsync('offline').Data.Coins == 11)
        assert(#store:ViewProfileAsync('offline').GlobalUpdates._updates_latest[2] == 0)
    end";
    let printed = run(script, |game| game.servers(2)).succeeded();
    assert_eq!(printed, ["online 1000", "online 1001", "offline 5", "offline 11"]);
}
