//! Services of which saving code uses little, and classes of which only the properties are there.

use crate::{check, run};

#[test]
fn memory_is_shared_by_servers_and_expires() {
    let ran = run(
        "local Memory = game:GetService('MemoryStoreService')
        local map, hash = Memory:GetSortedMap('m'), Memory:GetHashMap('m')
        local first = map:UpdateAsync('who', function(old) return (old or 0) + 1 end, 60) == 1
        task.wait(1)
        assert(map:GetAsync('who') == 2)
        hash:SetAsync(game.JobId, { at = 1 }, 30)
        task.wait(1)
        assert(#hash:ListItemsAsync(10):GetCurrentPage() == 2)
        local pages = hash:ListItemsAsync(1)
        assert(#pages:GetCurrentPage() == 1 and not pages.IsFinished)
        pages:AdvanceToNextPageAsync()
        assert(pages.IsFinished and not pcall(pages.AdvanceToNextPageAsync, pages))
        task.wait(40)
        assert(hash:GetAsync(game.JobId) == nil and map:GetAsync('who') == 2)
        task.wait(30)
        assert(map:GetAsync('who') == nil and map:GetSizeAsync() == 0)
        print(first)",
        |game| game.servers(2),
    );
    let mut printed = ran.succeeded();
    printed.sort();
    assert_eq!(printed, ["false", "true"]);
}

#[test]
fn sorted_maps_give_ranges_by_sort_key_and_key() {
    check(
        "local map = game:GetService('MemoryStoreService'):GetSortedMap('board')
        for key, sort in { a = 3, b = 1, c = 2, d = 2 } do
            assert(map:SetAsync(key, { of = key }, 100, sort))
        end
        map:SetAsync('z', 'none', 100)
        map:SetAsync('t', 'text', 100, 'x')
        local function keys(...)
            local list = {}
            for _, item in map:GetRangeAsync(...) do table.insert(list, item.key) end
            return table.concat(list)
        end
        assert(keys(Enum.SortDirection.Ascending, 200) == 'bcdatz')
        assert(keys(Enum.SortDirection.Descending, 3) == 'zta')
        assert(keys(Enum.SortDirection.Ascending, 200, { key = 'c', sortKey = 2 }, { key = 't', sortKey = 'x' }) == 'da')
        assert(keys(Enum.SortDirection.Ascending, 200, { sortKey = 2 }) == 'atz')
        local value, sort = map:GetAsync('a')
        assert(value.of == 'a' and sort == 3)
        assert(map:UpdateAsync('a', function() return nil end, 10) == nil and map:GetAsync('a').of == 'a')
        map:RemoveAsync('a')
        assert(map:GetAsync('a') == nil and map:GetSizeAsync() == 5)
        assert(not pcall(map.SetAsync, map, 'k', 1, 0) and not pcall(map.SetAsync, map, 'k', 1, 3888001))
        assert(not pcall(map.SetAsync, map, '', 1, 1) and not pcall(map.SetAsync, map, 'k', string.rep('x', 33000), 1))
        assert(not pcall(map.GetRangeAsync, map, Enum.SortDirection.Ascending, 201))",
    );
}

#[test]
fn queues_hide_what_is_read_until_it_is_removed_or_comes_back() {
    check(
        "local queue = game:GetService('MemoryStoreService'):GetQueue('q', 20)
        queue:AddAsync('second', 300)
        queue:AddAsync('third', 300)
        queue:AddAsync('first', 300, 5)
        local items, id = queue:ReadAsync(2, false, 0)
        assert(items[1] == 'first' and items[2] == 'second' and id)
        assert(queue:GetSizeAsync() == 3 and queue:GetSizeAsync(true) == 1)
        local none, no_id = queue:ReadAsync(2, true, 0)
        assert(#none == 0 and no_id == nil)
        queue:RemoveAsync(id)
        items, id = queue:ReadAsync(5, false, 0)
        assert(#items == 1 and items[1] == 'third')
        local again = queue:ReadAsync(1, false, 60)
        assert(again[1] == 'third', 'it came back after 20 s')
        task.delay(10, function() queue:AddAsync('late', 300) end)
        assert(queue:ReadAsync(1, false, -1)[1] == 'late')",
    );
}

/// It looked every two seconds, however little of its limit was left.
#[test]
fn a_reader_of_a_queue_waits_no_longer_than_its_limit() {
    check(
        "local queue = game:GetService('MemoryStoreService'):GetQueue('q')
        queue:AddAsync('one', 300)
        for _, limit in { 1, 3 } do
            local began = os.clock()
            local none = queue:ReadAsync(10, true, limit)
            local took = os.clock() - began
            assert(#none == 0 and took >= limit and took < limit + 0.1, took)
        end
        task.delay(1.5, function() queue:AddAsync('late', 300) end)
        assert(#queue:ReadAsync(2, true, 1) == 0, 'what comes after the limit is not read')
        assert(#queue:ReadAsync(2, true, 1) == 2, 'what comes within it is')",
    );
}

#[test]
fn subscriptions_are_bought_and_tags_come_and_go() {
    let ran = crate::run(
        "local Players, Market = game:GetService('Players'), game:GetService('MarketplaceService')
        local Tags = game:GetService('CollectionService')
        Tags.TagAdded:Connect(function(name) print('added', name) end)
        Tags.TagRemoved:Connect(function(name) print('removed', name) end)
        local a, b = Instance.new('Folder', workspace), Instance.new('Folder', workspace)
        a:AddTag('T')
        b:AddTag('T')
        a:Destroy()
        b:RemoveTag('T')
        local player = Players.PlayerAdded:Wait()
        Market.PromptSubscriptionPurchaseFinished:Connect(function(who, id, tried)
            print('bought', who, id, tried)
        end)
        Players.UserSubscriptionStatusChanged:Connect(function(who, id) print('changed', who, id) end)
        assert(not Market:GetUserSubscriptionStatusAsync(player, 'EXP-1').IsSubscribed)
        Market:PromptSubscriptionPurchase(player, 'EXP-1')
        task.wait()
        assert(Market:GetUserSubscriptionStatusAsync(player, 'EXP-1').IsSubscribed)
        assert(not Market:GetUserSubscriptionStatusAsync(player, 'EXP-2').IsSubscribed)
        assert(Market:GetSubscriptionProductInfoAsync('EXP-1').IsForSale)
        assert(not pcall(Market.PromptSubscriptionPurchase, Market, player, 5))",
        |game| game.players("7:join@1s".parse().expect("a plan")),
    );
    let wanted = ["added T", "removed T", "bought Player7 EXP-1 true", "changed Player7 EXP-1"];
    assert_eq!(ran.succeeded(), wanted);
}

#[test]
fn badges_debris_tweens_texts_and_users_answer() {
    let ran = run(
        "local Players = game:GetService('Players')
        local player = Players:GetPlayers()[1] or Players.PlayerAdded:Wait()
        local Badges = game:GetService('BadgeService')
        assert(not Badges:UserHasBadgeAsync(1, 7) and Badges:AwardBadgeAsync(1, 7) and not Badges:AwardBadgeAsync(1, 7))
        assert(Badges:UserHasBadgeAsync(1, 7) and Badges:CheckUserBadgesAsync(1, { 6, 7 })[1] == 7)

        local part = Instance.new('Part', workspace)
        game:GetService('Debris'):AddItem(part, 5)
        local tween = game:GetService('TweenService'):Create(part, TweenInfo.new(2), { Transparency = 1 })
        assert(tween.PlaybackState == Enum.PlaybackState.Begin)
        local began = os.clock()
        tween:Play()
        assert(tween.Completed:Wait() == Enum.PlaybackState.Completed and part.Transparency == 1)
        assert(math.abs(os.clock() - began - 2) < 0.1 and part.Parent == workspace)
        assert(not pcall(function() game:GetService('TweenService'):Create(part, TweenInfo.new(2), { Nothing = 1 }) end))
        task.wait(4)
        assert(part.Parent == nil)

        local text = game:GetService('TextService'):FilterStringAsync('hello', 1)
        assert(text:GetNonChatStringForBroadcastAsync() == 'hello')
        assert(game:GetService('Chat'):FilterStringForBroadcast('a', player) == 'a')
        assert(game:GetService('UserService'):GetUserInfosByUserIdsAsync({ 1 })[1].Username == 'Player1')
        assert(player:GetRankInGroup(5) == 0 and not player:IsInGroup(5))
        assert(game:GetService('PolicyService'):GetPolicyInfoForPlayerAsync(player).ArePaidRandomItemsRestricted == false)
        assert(game:GetService('LocalizationService'):GetCountryRegionForPlayerAsync(player) == 'US')
        assert(math.abs(workspace:GetServerTimeNow() - os.time()) < 2)
        game:GetService('AnalyticsService'):LogEconomyEvent(player, Enum.AnalyticsEconomyFlowType.Source, 'Coins', 5, 10, 'Shop')
        print('all of it')",
        |game| game.players("1:join@1s".parse().expect("a plan")),
    );
    assert_eq!(ran.succeeded(), ["all of it"]);
}

#[test]
fn who_is_banned_leaves_and_joins_no_server_until_the_ban_is_over() {
    let ran = run(
        "local Players = game:GetService('Players')
        Players.PlayerAdded:Connect(function(player)
            print('joins', player)
            task.wait(1)
            Players:BanAsync({ UserIds = { player.UserId }, Duration = 60, DisplayReason = 'rude', PrivateReason = 'chat' })
        end)
        Players.PlayerRemoving:Connect(function(player) print('leaves', player) end)
        task.wait(300)
        local bans = Players:GetBanHistoryAsync(7)
        assert(bans.IsFinished and #bans:GetCurrentPage() == 2)
        assert(bans:GetCurrentPage()[1].Duration == 60 and bans:GetCurrentPage()[2].DisplayReason == 'rude')
        Players:UnbanAsync({ UserIds = { 7 } })
        assert(not Players:GetBanHistoryAsync(7):GetCurrentPage()[1].Ban)
        for _, config in { {}, { UserIds = { 'x' } }, { UserIds = { 1 }, Duration = 0 } } do
            assert(not pcall(Players.BanAsync, Players, config))
        end",
        |game| game.players("7:join@1s,join@30s,join@100s".parse().expect("a plan")),
    );
    assert_eq!(
        ran.succeeded(),
        ["joins Player7", "leaves Player7", "joins Player7", "leaves Player7"]
    );
}

#[test]
fn every_class_has_its_properties_with_their_types() {
    check(
        "local part = Instance.new('Part')
        assert(part:IsA('BasePart') and part:IsA('PVInstance') and not part:IsA('Model'))
        assert(part.Anchored == false and part.Size == Vector3.new(4, 1.2000000476837158, 2) and part.Material == Enum.Material.Plastic)
        local changed
        part.Changed:Connect(function(name) changed = name end)
        part.Anchored = true
        assert(changed == 'Anchored' and part.Anchored)
        part.Material = 'Neon'
        assert(part.Material == Enum.Material.Neon)
        assert(not pcall(function() part.Anchored = 'yes' end))
        assert(not pcall(function() part.Material = 'Cheese' end))
        assert(not pcall(function() part.Mass = 5 end))
        assert(not pcall(function() part.Cheese = 5 end))
        local model = Instance.new('Model')
        assert(model.PrimaryPart == nil)
        model.PrimaryPart = part
        assert(model.PrimaryPart == part and not pcall(function() model.PrimaryPart = 5 end))
        model.PrimaryPart = nil
        assert(model.PrimaryPart == nil)
        part.Parent = model
        local copy = model:Clone()
        assert(copy.Part.Anchored and copy.Part ~= part)
        local label = Instance.new('TextLabel')
        label.Text = 5
        assert(label.Text == '5' and label:IsA('GuiObject') and label.Size == UDim2.new())
        local gradient = Instance.new('UIGradient')
        assert(typeof(gradient.Transparency) == 'NumberSequence' and typeof(gradient.Color) == 'ColorSequence')
        assert(typeof(label.FontFace) == 'Font' and typeof(Instance.new('ImageLabel').SliceCenter) == 'Rect')
        assert(not pcall(Instance.new, 'BasePart') and not pcall(Instance.new, 'Workspace') and not pcall(Instance.new, 'Nothing'))
        local SoundService = game:GetService('SoundService')
        assert(SoundService.Parent == game and SoundService == game.SoundService and workspace:IsA('Model'))
        local ok, problem = pcall(function() SoundService:PlayLocalSound() end)
        assert(not ok and problem:find('PlayLocalSound is not a valid member of SoundService'))
        assert(Instance.new('Script').Enabled and script.Disabled == false)",
    );
}
