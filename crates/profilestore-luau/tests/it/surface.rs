//! What scripts around saving code use of Roblox: data types, instances, players, purchases,
//! ordered data stores.

use std::time::Duration;

use profilestore_luau::Line;

use crate::{check, run};

#[test]
fn what_a_bindable_carries_is_a_copy_without_metatable() {
    check(
        "local sent = setmetatable({ Coins = 1, List = { 1, 2 } }, { __index = {} })
        sent.Self = sent
        local event, got = Instance.new('BindableEvent'), nil
        event.Event:Connect(function(data) got = data data.Coins = 2 data.List[1] = 9 end)
        event:Fire(sent)
        assert(got ~= sent and getmetatable(got) == nil and got.Self == got and sent.Coins == 1 and sent.List[1] == 1)
        local ask = Instance.new('BindableFunction')
        ask.OnInvoke = function(data, nothing, last) data.Coins = 3 return data, nothing, last, sent end
        local back, nothing, last, other = ask:Invoke(sent, nil, 'x')
        assert(back.Coins == 3 and nothing == nil and last == 'x' and other ~= sent and other.Coins == 1 and sent.Coins == 1)",
    );
}

#[test]
fn data_types_have_their_types_and_their_arithmetic() {
    check(
        "local config = { Rare = { Color = Color3.fromRGB(255, 0, 51), At = Vector3.new(0, 2, 0), Made = Enum.Material.Neon } }
        assert(typeof(config.Rare.Color) == 'Color3' and config.Rare.Color == Color3.new(1, 0, 0.2))
        assert(typeof(config.Rare.Made) == 'EnumItem' and config.Rare.Made.Value == 288 and #Enum:GetEnums() > 600)
        assert(2 * Vector3.new(1, 2, 3) - Vector3.one == Vector3.new(1, 3, 5) and Vector3.new(3, 0, 4).Magnitude == 5)
        assert(Vector2.new(1, 2) / 2 == Vector2.new(0.5, 1) and tostring(Vector3.xAxis) == '1, 0, 0')
        assert(UDim2.new(0.5, 10, 1, -5) + UDim2.fromOffset(1, 1) == UDim2.new(0.5, 11, 1, -4))
        local frame = CFrame.new(1, 2, 3) * CFrame.Angles(0, math.pi / 2, 0)
        assert(frame.LookVector:FuzzyEq(Vector3.new(-1, 0, 0)) and (frame * frame:Inverse()):FuzzyEq(CFrame.identity))
        assert(BrickColor.new('Bright red').Color == Color3.fromRGB(196, 40, 28) and BrickColor.new(0.95, 0.95, 0.95).Name == 'White')
        assert(tostring(BrickColor.new('No such')) == 'Medium stone grey' and BrickColor.new(21) == BrickColor.Red())
        assert(NumberRange.new(1, 5).Max == 5 and #ColorSequence.new(config.Rare.Color).Keypoints == 2)
        assert(TweenInfo.new(2).EasingStyle == Enum.EasingStyle.Quad and Rect.new(0, 0, 5, 6).Width == 5)
        local a, b = Random.new(5), Random.new(5)
        for _ = 1, 100 do
            local roll = a:NextInteger(1, 6)
            assert(roll == b:NextInteger(1, 6) and roll >= 1 and roll <= 6)
        end
        assert(not pcall(function() config.Rare.At.X = 5 end) and not pcall(function() return config.Rare.At.W end))
        assert(not pcall(Vector3.new, 'x') and not pcall(function() return Vector3.one + 1 end))
        local ok, problem = pcall(function() return SharedTable.new() end)
        assert(not ok and problem:find('SharedTable.new is not emulated here', 1, true))
        local saved = pcall(game.DataStoreService:GetDataStore('S').SetAsync, game.DataStoreService:GetDataStore('S'), 'k', Vector3.one)
        assert(not saved, 'no data store takes it')",
    );
}

#[test]
fn a_text_of_any_bytes_is_printed() {
    let ran = run(r"print('a\xffb', 1) warn('\xff')", |game| game);
    assert_eq!(ran.recorder.texts(Line::Print), ["a\u{fffd}b 1"]);
    ran.succeeded();
}

#[test]
fn profilers_marks_do_nothing() {
    check(
        "debug.profilebegin('load') debug.setmemorycategory('Data') debug.resetmemorycategory() debug.profileend()
        assert(not pcall(debug.setmemorycategory) and not pcall(debug.profilebegin, 5))",
    );
}

#[test]
fn numbers_and_texts_stand_for_each_other_where_roblox_lets_them() {
    check(
        "local folder, text, number = Instance.new('Folder'), Instance.new('StringValue'), Instance.new('IntValue')
        text.Name, text.Value, text.Parent = 7, 5, folder
        assert(text.Name == '7' and text.Value == '5' and folder:FindFirstChild(7) == text and folder:WaitForChild(7) == text)
        number.Value = '12'
        assert(number.Value == 12)
        number.Value = 3.5
        assert(number.Value == 4)
        number.Value = -3.5
        assert(number.Value == -4)",
    );
}

#[test]
fn what_roblox_refuses_is_refused() {
    check(
        "local folder = Instance.new('Folder')
        for _, wrong in { {}, function() end, folder } do assert(not pcall(folder.SetAttribute, folder, 'A', wrong)) end
        for _, name in { '', 'a b', 'RBXthing', string.rep('x', 101) } do assert(not pcall(folder.SetAttribute, folder, name, 1)) end
        for _, method in { 'FindFirstChild', 'IsA', 'WaitForChild', 'FindFirstAncestor', 'FindFirstChildOfClass', 'GetAttribute', 'AddTag' } do
            assert(not pcall(folder[method], folder, nil), method)
        end
        assert(not pcall(folder.IsDescendantOf, folder, 5) and not pcall(folder.WaitForChild, folder, 'x', 'y'))
        folder:SetAttribute('Colour', Color3.new()) folder:SetAttribute('a-b.c/d_1', true)
        assert(folder:GetAttribute('Colour') == Color3.new())",
    );
}

#[test]
fn instances_are_cloned_tagged_and_watched() {
    let printed = check(
        "local folder = Instance.new('Folder')
        folder:GetAttributeChangedSignal('Coins'):Connect(function() print('Coins', folder:GetAttribute('Coins')) end)
        folder:SetAttribute('Coins', 5) folder:SetAttribute('Coins', 5) folder:SetAttribute('Other', 1)
        folder:AddTag('Saved')
        local Tags = game:GetService('CollectionService')
        Tags:GetInstanceAddedSignal('Saved'):Connect(function(one) print('tagged', one) end)
        Tags:GetInstanceRemovedSignal('Saved'):Connect(function(one) print('untagged', one) end)
        assert(#Tags:GetTagged('Saved') == 0 and Tags:HasTag(folder, 'Saved'))
        local value = Instance.new('NumberValue', folder)
        value.Value = 1.5
        local copy = folder:Clone()
        assert(copy ~= folder and copy.Parent == nil and copy:GetAttribute('Coins') == 5 and copy:GetTags()[1] == 'Saved')
        assert(copy.NumberValue ~= value and copy.NumberValue.Value == 1.5 and copy:children()[1] == copy.NumberValue)
        workspace.DescendantAdded:Connect(function(one) print('added', one) end)
        workspace.DescendantRemoving:Connect(function(one) print('removing', one) end)
        folder.Parent = workspace
        assert(Tags:GetTagged('Saved')[1] == folder)
        folder:Destroy()
        value.Archivable = false
        assert(value:Clone() == nil and game:Clone() == nil)",
    );
    let expected = [
        "Coins 5",
        "added Folder",
        "added NumberValue",
        "tagged Folder",
        "removing Folder",
        "removing NumberValue",
        "untagged Folder",
    ];
    assert_eq!(printed, expected);
}

#[test]
fn remote_events_go_nowhere_on_a_server_without_clients() {
    let ran = run(
        "local event = Instance.new('RemoteEvent')
        event.Parent = game:GetService('ReplicatedStorage')
        event.OnServerEvent:Connect(error)
        event:FireAllClients({ Coins = 1 })
        local player = game:GetService('Players').PlayerAdded:Wait()
        event:FireClient(player, 1)
        Instance.new('UnreliableRemoteEvent'):FireClient(player)
        local ask = Instance.new('RemoteFunction')
        ask.OnServerInvoke = function() return 1 end
        assert(not pcall(event.FireClient, event, 'nobody') and not pcall(ask.InvokeClient, ask, player))
        assert(not pcall(event.FireServer, event) and not pcall(function() return event.OnClientEvent end))",
        |game| game.players("1:join@1s".parse().expect("a plan")),
    );
    ran.succeeded();
}

#[test]
fn old_names_of_signals_work() {
    check(
        "local event, heard = Instance.new('BindableEvent'), 0
        local connection = event.Event:connect(function() heard += 1 end)
        event:Fire()
        connection:disconnect()
        event:Fire()
        assert(heard == 1 and not connection.Connected)
        task.delay(1, function() event:Fire('x') end)
        assert(event.Event:wait() == 'x')",
    );
}

#[test]
fn players_have_names_and_servers_no_local_player() {
    let ran = run(
        "local Players = game:GetService('Players')
        assert(Players.LocalPlayer == nil)
        local player = Players.PlayerAdded:Wait()
        assert(Players:GetUserIdFromNameAsync(player.Name) == 3 and Players:GetNameFromUserIdAsync(3) == player.Name)
        assert(not pcall(Players.GetUserIdFromNameAsync, Players, 'Nobody') and not pcall(Players.GetNameFromUserIdAsync, Players, -1))
        Players.PlayerMembershipChanged:Connect(error)",
        |game| game.players("3:join@1s".parse().expect("a plan")),
    );
    ran.succeeded();
}

#[test]
fn game_passes_are_bought_and_owned_on_every_server() {
    let ran = run(
        "local Market, Players = game:GetService('MarketplaceService'), game:GetService('Players')
        Market.ProcessReceipt = function() return Enum.ProductPurchaseDecision.PurchaseGranted end
        Market.PromptGamePassPurchaseFinished:Connect(function(player, pass, bought) print(player, pass, bought) end)
        Market.PromptProductPurchaseFinished:Connect(function(user, product, bought) print(user, product, bought) end)
        Players.PlayerAdded:Connect(function(player)
            assert(not Market:UserOwnsGamePassAsync(player.UserId, 100) and not Market:PlayerOwnsAsset(player, 100))
            Market:PromptGamePassPurchase(player, 100)
            Market:PromptProductPurchase(player, 7)
        end)
        task.wait(10)
        assert(Market:UserOwnsGamePassAsync(1, 100) and not Market:UserOwnsGamePassAsync(2, 100))
        assert(Market:GetProductInfo(7, Enum.InfoType.Product).PriceInRobux == 10)",
        |game| game.servers(2).players("1:join@1s".parse().expect("a plan")),
    );
    assert_eq!(ran.succeeded(), ["Player1 100 true", "1 7 true"]);
}

#[test]
fn ordered_data_stores_list_whole_numbers_by_value() {
    check(
        "local Stores = game:GetService('DataStoreService')
        local board = Stores:GetOrderedDataStore('Top')
        for key, value in { a = 5, b = 3, c = -2, d = 9, e = 3 } do board:SetAsync(key, value) end
        board:RemoveAsync('d')
        board:IncrementAsync('a', 2)
        assert(board:UpdateAsync('c', function(old) return old - 1 end) == -3 and board:GetAsync('a') == 7)
        local function all(...)
            local pages, list = board:GetSortedAsync(...), {}
            while true do
                for _, entry in pages:GetCurrentPage() do table.insert(list, entry.key .. '=' .. entry.value) end
                if pages.IsFinished then return table.concat(list, ' ') end
                pages:AdvanceToNextPageAsync()
            end
        end
        assert(all(true, 2) == 'c=-3 b=3 e=3 a=7', all(true, 2))
        assert(all(false, 100) == 'a=7 e=3 b=3 c=-3' and all(true, 10, 0, 5) == 'b=3 e=3')
        assert(Stores:GetDataStore('Top'):GetAsync('a') == nil, 'the ordinary one of that name is another')
        assert(not pcall(board.SetAsync, board, 'a', 1.5) and not pcall(board.SetAsync, board, 'a', 'x'))
        assert(not pcall(board.GetSortedAsync, board, true, 101) and not pcall(board.GetSortedAsync, board, true, 10, 5, 1))
        assert(Stores:GetOrderedDataStore('Empty'):GetSortedAsync(true, 10).IsFinished)",
    );
}

#[test]
fn a_module_that_is_renamed_is_still_the_same() {
    let ran = run(
        "local module = game:GetService('ServerScriptService').Old
        module.Name = 'New'
        assert(require(module) == 5 and require(game.ServerScriptService.New) == 5)",
        |game| game.module("Old", "return 5"),
    );
    ran.succeeded();
}

#[test]
fn tracebacks_name_the_games_files_only() {
    let ran = run("require(game:GetService('ServerScriptService').Bad)", |game| {
        game.module("Bad", "\nreturn game.Nothing")
    });
    let errors = ran.recorder.texts(Line::Error);
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(
        errors[0].starts_with("Bad:2: Nothing is not a valid member of DataModel"),
        "{errors:?}"
    );
    assert!(errors[0].ends_with("\nstack traceback:\nBad:2"), "{errors:?}");
    assert!(errors[1].contains("experienced an error while loading"), "{errors:?}");
    assert!(errors.iter().all(|error| !error.contains("profilestore/")), "{errors:?}");
}

#[test]
fn a_thread_that_waits_for_a_child_for_ever_is_an_error_at_the_end() {
    let source = "game:GetService('ReplicatedStorage'):WaitForChild('Shared') print('never')";
    for until in [None, Some(Duration::from_secs(30))] {
        let ran = run(source, |game| match until {
            Some(until) => game.until(until),
            None => game,
        });
        let errors = ran.recorder.texts(Line::Error);
        if until.is_some() {
            assert!(
                ran.recorder.texts(Line::Warn)[0].contains("Infinite yield possible"),
                "{:?}",
                ran.recorder
            );
        }
        assert!(
            errors.len() == 1 && errors[0].contains("ReplicatedStorage:WaitForChild(\"Shared\")"),
            "{errors:?}"
        );
        assert_eq!(ran.report.failures, 1);
        assert!(ran.recorder.texts(Line::Print).is_empty());
    }
}

#[test]
fn a_child_that_comes_late_ends_the_wait_for_it() {
    check(
        "local folder = Instance.new('Folder')
        task.delay(100, function() Instance.new('Folder', folder).Name = 'Late' end)
        assert(folder:WaitForChild('Late').Name == 'Late')
        assert(folder:WaitForChild('Never', 2) == nil)",
    );
}
