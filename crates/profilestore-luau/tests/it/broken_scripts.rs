//! Scripts that break things: errors with odd values, waits at odd places, hostile arguments, and
//! names that are easily missed.

use std::time::Duration;

use profilestore_luau::{Game, Line, Outcome, Script, SpecOptions, Time, Tree};

use crate::{check, run};

#[test]
fn an_error_of_any_bytes_at_the_closing_does_not_keep_the_game_open() {
    let ran = run(
        "game:BindToClose(function() error('\\xff') end)
        game:BindToClose(function() error(setmetatable({}, { __tostring = error })) end)
        print('bound')",
        |game| game,
    );
    assert_eq!(ran.recorder.texts(Line::Print), ["bound"]);
    let errors = ran.recorder.texts(Line::Error);
    assert!(!errors.iter().any(|error| error.contains("took longer")), "{errors:?}");
    assert_eq!(errors.len(), 2, "{errors:?}");
}

#[test]
fn a_module_that_throws_any_bytes_fails_its_require() {
    let ran = run(
        "print(pcall(require, game.ServerScriptService.Bad))
        print(pcall(require, game.ServerScriptService.Bad))",
        |game| game.module("Bad", "error('\\xff')"),
    );
    let printed = ran.recorder.texts(Line::Print);
    assert_eq!(printed.len(), 2, "{:?}", ran.recorder);
    assert!(printed.iter().all(|line| line.contains("experienced an error while loading")));
}

#[test]
fn a_purchase_whose_handler_throws_any_bytes_is_offered_again() {
    let ran = run(
        "local Market, offered = game:GetService('MarketplaceService'), 0
        Market.ProcessReceipt = function()
            offered += 1
            if offered == 1 then error('\\xff') end
            print('offered', offered)
            return Enum.ProductPurchaseDecision.PurchaseGranted
        end",
        |game| {
            let plan = "1:join@1s,buy=5@2s".parse().expect("a plan");
            game.players(plan).until(Duration::from_secs(60))
        },
    );
    assert_eq!(ran.recorder.texts(Line::Print), ["offered 2"]);
}

#[test]
fn tests_end_whatever_they_are_called_and_throw() {
    let folder = tempfile::tempdir().expect("a folder");
    let project =
        r#"{ "tree": { "$className": "DataModel", "ServerScriptService": { "$path": "src" } } }"#;
    let spec = r"return function()
        it('\xff', function() error('\xfe') end)
        itSKIP('\xfd', function() end)
    end";
    std::fs::create_dir(folder.path().join("src")).expect("a folder");
    std::fs::write(folder.path().join("default.project.json"), project).expect("a file");
    std::fs::write(folder.path().join("src/Odd.spec.luau"), spec).expect("a file");
    let tree = std::sync::Arc::new(Tree::read(folder.path()).expect("a tree"));
    let game = Game::builder().time(Time::Virtual).tree(tree.clone());
    let report = game.test(&tree.specs()[0], &SpecOptions::default()).expect("the tests run");
    assert_eq!(report.results.len(), 2, "{report:?}");
    assert!(matches!(report.results[0].outcome, Outcome::Failed(_)), "{report:?}");
}

#[test]
fn old_and_computed_names_answer_with_what_is_so() {
    let ran = run(
        "assert(game.workspace == workspace and game.lighting == game:GetService('Lighting'))
        assert(game.RunService == game:GetService('RunService') and workspace.className == 'Workspace')
        local Players = game:GetService('Players')
        assert(Players.NumPlayers == 0)
        local player = Players.PlayerAdded:Wait()
        player.Chatted:Connect(error)
        player.Idled:ConnectParallel(error)
        print(player.userId, Players.NumPlayers, pcall(function() player.userId = 5 end))",
        |game| game.players("7:join@1s".parse().expect("a plan")),
    );
    let printed = ran.succeeded();
    assert!(printed[0].starts_with("7 1 false"), "{printed:?}");
}

#[test]
fn a_memory_store_refuses_what_it_could_not_sort() {
    check(
        "local map = game:GetService('MemoryStoreService'):GetSortedMap('M')
        local ascending = Enum.SortDirection.Ascending
        for _, sort in { {}, true, 0 / 0, Vector3.zero } do
            assert(not pcall(map.SetAsync, map, 'A', 1, 60, sort))
            assert(not pcall(map.UpdateAsync, map, 'A', function() return 1, sort end, 60))
        end
        for _, bound in { 'A', 5, { key = 5 }, { sortKey = {} } } do
            assert(not pcall(map.GetRangeAsync, map, ascending, 10, bound))
        end
        map:SetAsync('A', 1, 60, 5)
        assert(#map:GetRangeAsync(ascending, 10, { sortKey = 4 }) == 1)
        local queue = game:GetService('MemoryStoreService'):GetQueue('Q')
        assert(not pcall(queue.AddAsync, queue, 1, 60, 0 / 0))
        assert(not pcall(queue.ReadAsync, queue, 1, false, 'soon'))",
    );
}

#[test]
fn an_update_of_a_memory_store_that_waits_is_refused_and_loses_nothing() {
    check(
        "local map = game:GetService('MemoryStoreService'):GetHashMap('M')
        map:SetAsync('A', 1, 60)
        local ok, problem = pcall(map.UpdateAsync, map, 'A', function(n)
            task.wait(1)
            return n + 1
        end, 60)
        assert(not ok and string.find(problem, 'must not wait'), problem)
        ok, problem = pcall(map.UpdateAsync, map, 'A', function() error('mine', 0) end, 60)
        assert(not ok and problem == 'mine')
        assert(map:UpdateAsync('A', function(n) return n + 1 end, 60) == 2)
        task.wait(5)
        assert(map:GetAsync('A') == 2)",
    );
}

#[test]
fn debris_keeps_an_item_with_an_infinite_lifetime() {
    check(
        "local Debris, part = game:GetService('Debris'), Instance.new('Part', workspace)
        Debris:AddItem(part, math.huge)
        Debris:AddItem(Instance.new('Part', workspace), -5)
        task.wait(1)
        assert(part.Parent == workspace and #workspace:GetChildren() == 1)",
    );
}

#[test]
fn a_module_that_never_ends_loading_is_an_error_at_the_end() {
    let ran = run("require(game.ServerScriptService.Waits)", |game| {
        game.module("Waits", "game:GetService('Players').PlayerAdded:Wait() return 1")
    });
    let errors = ran.recorder.texts(Line::Error);
    let text =
        "a thread still waits for the module ServerScriptService.Waits, which never ended loading";
    assert_eq!(errors, [text], "{:?}", ran.recorder);
}

#[test]
fn a_tween_to_what_a_property_cannot_be_is_refused_at_once() {
    let ran = check(
        "local Tweens, part = game:GetService('TweenService'), Instance.new('Part')
        for _, goals in { { Cheese = 1 }, { Transparency = 'x' }, { [5] = 1 } } do
            print(pcall(Tweens.Create, Tweens, part, TweenInfo.new(1), goals))
        end
        Tweens:Create(part, TweenInfo.new(1), { Transparency = 1 }):Play()
        task.wait(2)
        assert(part.Transparency == 1)",
    );
    assert_eq!(ran.len(), 3);
    assert!(ran.iter().all(|line| line.contains("of Part \"Part\" cannot become a")), "{ran:?}");
}

#[test]
fn errors_of_arguments_name_the_scripts_place() {
    let printed = check(
        "local market, map = game:GetService('MarketplaceService'), game:GetService('MemoryStoreService'):GetSortedMap('M')
        for _, call in {
            function() workspace:FindFirstChild(nil) end,
            function() workspace.ChildAdded:Connect(5) end,
            function() map:GetRangeAsync(Enum.SortDirection.Ascending, 1, 'x') end,
            function() game:GetService('TeleportService'):Teleport(1) end,
            function() Instance.new('RemoteFunction'):InvokeClient(5) end,
        } do
            print(select(2, pcall(call)))
        end",
    );
    assert_eq!(printed.len(), 5);
    assert!(!printed.iter().any(|line| line.contains("profilestore/")), "{printed:?}");
}

#[test]
fn odd_numbers_become_whole_ones_and_health_stays_in_its_bounds() {
    check(
        "local value, humanoid = Instance.new('IntValue'), Instance.new('Humanoid')
        for given, kept in { [1e300] = 2 ^ 63, [-math.huge] = -2 ^ 63, [2.5] = 3 } do
            value.Value = given
            assert(value.Value == kept, value.Value)
        end
        value.Value = 0 / 0
        assert(value.Value == 0)
        humanoid.MaxHealth = -5
        humanoid.Health = 5
        assert(humanoid.Health == 0)",
    );
}

#[test]
fn a_player_who_is_missing_is_refused() {
    let printed = check(
        "local event, ask = Instance.new('RemoteEvent'), Instance.new('RemoteFunction')
        local service = function(name) return game:GetService(name) end
        for _, call in {
            function() event:FireClient(nil) end,
            function() event:FireClient(workspace) end,
            function() ask:InvokeClient() end,
            function() service('AnalyticsService'):LogCustomEvent(nil, 'x') end,
            function() service('MarketplaceService'):PromptProductPurchase(nil, 5) end,
            function() service('PolicyService'):GetPolicyInfoForPlayerAsync() end,
        } do
            print(select(2, pcall(call)))
        end",
    );
    assert_eq!(printed.len(), 6);
    let named = |line: &String| line.starts_with("game:") && line.contains("must be a Player");
    assert!(printed.iter().all(named), "{printed:?}");
}

/// Every method of every service, and of what they give, with arguments of all kinds.
#[test]
fn no_method_fails_in_the_machines_own_code_whatever_it_is_given() {
    let classes = Game::classes().expect("a machine");
    let methods: Vec<_> = classes
        .iter()
        .flat_map(|class| class.methods.iter().map(|method| format!("{}.{method}", class.name)))
        .collect();
    let ran = run(
        &format!(
            "local objects, service = {{}}, function(name) return game:GetService(name) end
            local memory, data = service('MemoryStoreService'), service('DataStoreService')
            objects.MemoryStoreSortedMap, objects.MemoryStoreHashMap = memory:GetSortedMap('M'), memory:GetHashMap('M')
            objects.DataStore, objects.OrderedDataStore = data:GetDataStore('D'), data:GetOrderedDataStore('O')
            objects.RemoteEvent, objects.RemoteFunction = Instance.new('RemoteEvent'), Instance.new('RemoteFunction')
            local values = {{ 5, -1, 0 / 0, math.huge, 'x', {{}}, true, workspace, Enum.KeyCode.A, Vector3.zero, function() end }}
            local function try(name, object, method, ...)
                task.spawn(function(...)
                    local ok, problem = pcall(method, object, ...)
                    if not ok and string.find(tostring(problem), 'profilestore/', 1, true) then
                        print(name, problem)
                    end
                end, ...)
            end
            for _, name in {{ {} }} do
                local class, method = string.match(name, '(.+)%.(.+)')
                local there, found = pcall(service, class)
                local object = objects[class] or (there and found)
                if object and class ~= 'Workspace' and class ~= 'Debris' then
                    try(name, object, object[method])
                    for _, value in values do
                        try(name, object, object[method], value)
                        try(name, object, object[method], nil, value)
                        try(name, object, object[method], 5, value, value)
                        try(name, object, object[method], 'x', value, value, value)
                    end
                    task.wait(1)
                end
            end
            print('all')",
            methods.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
        ),
        |game| game.until(Duration::from_secs(600)),
    );
    assert_eq!(ran.recorder.texts(Line::Print), ["all"]);
}

#[test]
fn constructors_that_are_not_there_are_named() {
    let ran = check("print(pcall(function() return Instance.fromExisting(workspace) end))");
    assert!(ran[0].contains("Instance.fromExisting is not emulated here"), "{ran:?}");
}

/// Names of Roblox's documentation, by service or class.
const DOCUMENTED: &str = "
Players: BanAsync BubbleChat CharacterAutoLoads Chat ClassicChat CreateHumanoidModelFromDescription
 CreateHumanoidModelFromUserId GetBanHistoryAsync GetCharacterAppearanceInfoAsync GetFriendsAsync
 GetHumanoidDescriptionFromUserId GetNameFromUserIdAsync GetPlayerByUserId GetPlayerFromCharacter GetPlayers
 GetUserIdFromNameAsync GetUserThumbnailAsync MaxPlayers NumPlayers PlayerAdded PlayerMembershipChanged
 PlayerRemoving PreferredPlayers RespawnTime SetChatStyle TeamChat UnbanAsync UserSubscriptionStatusChanged
DataStoreService: AutomaticRetry GetDataStore GetGlobalDataStore GetOrderedDataStore
 GetRequestBudgetForRequestType ListDataStoresAsync
MemoryStoreService: GetHashMap GetQueue GetSortedMap
MessagingService: PublishAsync SubscribeAsync
MarketplaceService: GetDeveloperProductsAsync GetProductInfo GetProductInfoAsync GetSubscriptionProductInfoAsync
 GetUserSubscriptionDetailsAsync GetUserSubscriptionPaymentHistoryAsync GetUserSubscriptionStatusAsync
 PlayerOwnsAsset PlayerOwnsBundle PromptBulkPurchase PromptBundlePurchase PromptBundlePurchaseFinished
 PromptCancelSubscription PromptGamePassPurchase PromptGamePassPurchaseFinished PromptPremiumPurchase
 PromptPremiumPurchaseFinished PromptProductPurchase PromptPurchase PromptPurchaseFinished
 PromptSubscriptionPurchase PromptSubscriptionPurchaseFinished ProcessReceipt UserOwnsGamePassAsync
TeleportService: GetArrivingTeleportGui GetLocalPlayerTeleportData GetPlayerPlaceInstanceAsync
 GetTeleportSetting ReserveServer SetTeleportGui SetTeleportSetting Teleport TeleportAsync
 TeleportInitFailed TeleportPartyAsync TeleportToPlaceInstance TeleportToPrivateServer
 TeleportToSpawnByName LocalPlayerArrivedFromTeleport
HttpService: GenerateGUID GetAsync GetSecret HttpEnabled JSONDecode JSONEncode PostAsync RequestAsync UrlEncode
RunService: BindToRenderStep Heartbeat IsClient IsEdit IsRunMode IsRunning IsServer IsStudio Pause
 PostSimulation PreAnimation PreRender PreSimulation RenderStepped Run Stepped Stop UnbindFromRenderStep
CollectionService: AddTag GetAllTags GetInstanceAddedSignal GetInstanceRemovedSignal GetTagged GetTags
 HasTag RemoveTag TagAdded TagRemoved
BadgeService: AwardBadge AwardBadgeAsync CheckUserBadgesAsync GetBadgeInfoAsync UserHasBadgeAsync
TextService: FilterStringAsync FilterAndTranslateStringAsync GetFamilyInfoAsync GetTextBoundsAsync GetTextSize
UserService: GetUserInfosByUserIdsAsync
GroupService: GetAlliesAsync GetEnemiesAsync GetGroupInfoAsync GetGroupsAsync PromptJoinAsync
PolicyService: CanViewBrandProjectAsync GetPolicyInfoForPlayerAsync
LocalizationService: GetCountryRegionForPlayerAsync GetTableEntries GetTranslatorForLocaleAsync
 GetTranslatorForPlayerAsync RobloxLocaleId SystemLocaleId
TweenService: Create GetValue SmoothDamp
AnalyticsService: LogCustomEvent LogEconomyEvent LogFunnelStepEvent LogOnboardingFunnelStepEvent LogProgressionEvent
Debris: AddItem MaxItems
ContentProvider: GetAssetFetchStatus PreloadAsync RequestQueueSize
Chat: CanUserChatAsync Chat Chatted FilterStringAsync FilterStringForBroadcast InvokeChatCallback";

#[test]
fn every_documented_name_of_a_service_answers_or_is_named() {
    let lines = DOCUMENTED.replace("\n ", " ");
    let lines: Vec<_> = lines.trim().lines().map(|line| format!("'{line}'")).collect();
    let printed = check(&format!(
        "for _, line in {{ {} }} do
            local service, names = string.match(line, '(%a+): (.*)')
            for name in string.gmatch(names, '%a+') do
                local ok, value = pcall(function() return game:GetService(service)[name] end)
                if ok then
                    assert(value ~= nil, service .. '.' .. name)
                else
                    assert(string.find(value, name, 1, true), value)
                end
            end
            print(service)
        end",
        lines.join(", ")
    ));
    assert_eq!(printed.len(), DOCUMENTED.matches(':').count(), "{printed:?}");
}

#[test]
fn players_have_their_containers_and_missing_globals_name_themselves() {
    let ran = run(
        "task.desynchronize()
        task.synchronize()
        assert(string.match(version(), '^%d+%.%d+%.%d+%.%d+$'))
        for _, name in { 'settings', 'UserSettings', 'stats' } do
            local ok, problem = pcall(function() return getfenv()[name]() end)
            assert(not ok and string.find(problem, name), problem)
        end
        local player = game:GetService('Players').PlayerAdded:Wait()
        local tool = Instance.new('Tool')
        tool.Parent = player.Backpack
        assert(player:WaitForChild('PlayerGui'):IsA('BasePlayerGui') and player.StarterGear)
        assert(#player:GetFriendsOnline() == 0 and player:GetNetworkPing() == 0)
        print(tool:GetFullName())",
        |game| game.players("7:join@1s".parse().expect("a plan")),
    );
    assert_eq!(ran.succeeded(), ["Players.Player7.Backpack.Tool"]);
}

#[test]
fn signals_that_fire_themselves_end_with_an_error_and_not_with_the_program() {
    let script = Script {
        name: "game".into(),
        source: "local event = Instance.new('BindableEvent')
            event.Event:Connect(function() event:Fire() end)
            event:Fire()
            print('goes on')"
            .into(),
    };
    let recorder = std::sync::Arc::new(profilestore_luau::Recorder::default());
    let game = Game::builder().time(Time::Virtual).output(recorder.clone());
    let report = game.run(&script).expect("the game runs");
    assert!(report.failures > 0, "{recorder:?}");
}
