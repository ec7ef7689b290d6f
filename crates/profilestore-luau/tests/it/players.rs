//! Players, purchases, teleports, messages and the end of a game, on several servers.

use std::time::Duration;

use profilestore_luau::Line;

use crate::run;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn players_join_and_leave() {
    let ran = run(
        "local Players = game:GetService('Players')
        Players.PlayerAdded:Connect(function(player)
            assert(typeof(player) == 'Instance' and player:IsA('Player') and player.Parent == Players)
            assert(player.Name == 'Player7' and player.DisplayName == 'Player7' and tostring(player) == player.Name)
            assert(Players:GetPlayerByUserId(7) == player and Players:GetPlayers()[1] == player)
            assert(player:IsDescendantOf(Players) and player:GetJoinData().SourcePlaceId == nil)
            local seen = { [player] = true }
            assert(seen[Players.Player7])
            local character = player.Character or player.CharacterAdded:Wait()
            local humanoid = character:FindFirstChildWhichIsA('Humanoid')
            assert(humanoid.Health == 100 and humanoid.MaxHealth == 100 and character.Parent == workspace)
            humanoid.Health = 500
            assert(humanoid.Health == 100)
            assert(Players:GetPlayerFromCharacter(character) == player)
            print('joined', player.UserId)
        end)
        Players.PlayerRemoving:Connect(function(player)
            assert(player.Parent == Players)
            print('leaves', player.UserId, math.round(os.clock()) - 10)
            task.wait()
            assert(player.Parent == nil and not player:IsDescendantOf(Players) and player.Character == nil)
            assert(Players:GetPlayerByUserId(7) == nil and #Players:GetPlayers() == 0)
        end)",
        |game| game.players("7:join@1s,leave@61s,join@100,leave@2m".parse().expect("a plan")),
    );
    assert_eq!(ran.succeeded(), ["joined 7", "leaves 7 61", "joined 7", "leaves 7 120"]);
}

#[test]
fn a_join_that_comes_after_the_last_leave_still_happens() {
    let ran = run(
        "local Players = game:GetService('Players')
        Players.PlayerAdded:Connect(function(player) print('joined', math.round(os.clock()) - 10) end)
        Players.PlayerRemoving:Connect(function(player) print('leaves', math.round(os.clock()) - 10) end)",
        |game| {
            let plan = "7:join@1s,leave@61s,join@100s;8:join@2s,hop@every10s,leave@25s,join@50s";
            game.players(plan.parse().expect("a plan")).until(seconds(110))
        },
    );
    let printed = ran.succeeded();
    let joins: Vec<_> = printed.iter().filter(|line| line.starts_with("joined")).collect();
    // Player 8 hops twice, and not any more after the last leave.
    assert_eq!(
        joins,
        ["joined 1", "joined 2", "joined 10", "joined 20", "joined 50", "joined 100"]
    );
}

#[test]
fn who_is_kicked_leaves() {
    let ran = run(
        "local Players = game:GetService('Players')
        Players.PlayerRemoving:Connect(function(player) print('leaves', player.UserId) end)
        Players.PlayerAdded:Connect(function(player)
            player:Kick('no')
            player:Kick('twice')
            task.wait()
            print(player.Parent, #Players:GetPlayers())
        end)",
        |game| game.players("7:join@1s,leave@5s".parse().expect("a plan")),
    );
    assert_eq!(ran.succeeded(), ["leaves 7", "nil 0"]);
}

#[test]
fn players_hop_between_servers() {
    let ran = run(
        "local Players = game:GetService('Players')
        Players.PlayerAdded:Connect(function(player) print('+', player.UserId) end)
        Players.PlayerRemoving:Connect(function(player) print('-', player.UserId) end)",
        |game| {
            game.servers(2)
                .players("1:join@1s,hop@10s,hop@20s/2,hop@30s/1,leave@40s".parse().expect("a plan"))
        },
    );
    assert!(ran.report.is_success());
    let lines = ran.recorder.lines();
    let lines: Vec<_> = lines.iter().map(|(server, _, text)| format!("{server}{text}")).collect();
    // The hop to the server that the player is on is a rejoin.
    assert_eq!(lines, ["1+ 1", "1- 1", "2+ 1", "2- 1", "2+ 1", "2- 1", "1+ 1", "1- 1"]);
}

#[test]
fn random_players_are_the_same_for_the_same_seed() {
    let script = "game.Players.PlayerAdded:Connect(function(player) print(player.UserId, \
        os.clock()) end)";
    let once = |seed| {
        let plan = "10".parse().expect("a plan");
        let ran = run(script, |game| game.servers(3).seed(seed).until(seconds(300)).players(plan));
        assert!(ran.report.is_success(), "{:?}", ran.recorder);
        ran.recorder.lines()
    };
    let first = once(1);
    assert!(first.len() > 50, "{}", first.len());
    assert_eq!(first, once(1));
    assert_ne!(first, once(2));
}

#[test]
fn a_purchase_is_offered_until_it_is_granted() {
    let ran = run(
        "local began = os.clock()
        local tries = 0
        game:GetService('MarketplaceService').ProcessReceipt = function(info)
            assert(info.PlayerId == 7 and info.ProductId == 1234 and #info.PurchaseId == 36 and info.CurrencySpent > 0)
            assert(info.PlaceIdWherePurchased == game.PlaceId and info.CurrencyType == Enum.CurrencyType.Robux)
            tries += 1
            print(tries, math.round(os.clock() - began), info.PurchaseId == (_G.id or info.PurchaseId))
            _G.id = info.PurchaseId
            if tries == 1 then
                return Enum.ProductPurchaseDecision.NotProcessedYet
            elseif tries == 2 then
                task.wait(1)
                return nil
            elseif tries == 3 then
                error('broken')
            end
            return Enum.ProductPurchaseDecision.PurchaseGranted
        end
        assert(not pcall(function() return game.MarketplaceService.ProcessReceipt end))",
        |game| game.players("7:join@1s,buy=1234@10s,leave@80s,join@90s,leave@10m".parse().expect("a plan")),
    );
    // Again 30 s after an answer, and when the player joins.
    assert_eq!(
        ran.recorder.texts(Line::Print),
        ["1 10 true", "2 40 true", "3 71 true", "4 90 true"]
    );
    assert!(ran.recorder.texts(Line::Warn)[0].contains("ProductPurchaseDecision"));
    assert!(ran.recorder.texts(Line::Error)[0].contains("broken"));
    assert_eq!(ran.report.failures, 1);
}

#[test]
fn a_purchase_waits_for_a_handler_that_processes_it() {
    let ran = run(
        "local MarketplaceService = game:GetService('MarketplaceService')
        game.Players.PlayerAdded:Connect(function(player)
            MarketplaceService:PromptProductPurchase(player, 5)
            task.wait(20)
            MarketplaceService.ProcessReceipt = function(info)
                print(info.ProductId)
                return Enum.ProductPurchaseDecision.PurchaseGranted
            end
        end)",
        |game| game.players("7:join@1s".parse().expect("a plan")),
    );
    assert_eq!(ran.succeeded(), ["5"]);
}

#[test]
fn players_are_teleported_to_another_server() {
    let ran = run(
        "local TeleportService = game:GetService('TeleportService')
        local Players = game:GetService('Players')
        Players.PlayerAdded:Connect(function(player)
            local join = player:GetJoinData()
            if join.SourcePlaceId then
                print('arrived', join.SourcePlaceId, join.TeleportData.gate, #join.Members)
                return
            end
            local options = Instance.new('TeleportOptions')
            options:SetTeleportData({ gate = 'north' })
            local ok, problem = pcall(TeleportService.TeleportAsync, TeleportService, 5, { player })
            assert(not ok and problem:find('place 5'), problem)
            assert(typeof(TeleportService:TeleportAsync(game.PlaceId, { player }, options)) == 'Instance')
        end)
        Players.PlayerRemoving:Connect(function(player) print('left') end)",
        |game| game.servers(2).place_id(99).players("7:join@1s".parse().expect("a plan")),
    );
    assert!(ran.report.is_success(), "{:?}", ran.recorder);
    let lines: Vec<_> =
        ran.recorder.lines().into_iter().map(|(server, _, text)| (server, text)).collect();
    let expected = [(1, "left"), (2, "arrived 99 north 1"), (2, "left")];
    assert_eq!(
        lines,
        expected.map(|(server, text)| (server, text.to_owned())),
        "at the end everybody leaves"
    );
}

#[test]
fn a_reserved_server_starts_when_players_are_sent_there() {
    let ran = run(
        "local Teleports = game:GetService('TeleportService')
        local Players = game:GetService('Players')
        if game.PrivateServerId ~= '' then
            Players.PlayerAdded:Connect(function(player)
                local data = player:GetJoinData()
                print('there', player.UserId, data.TeleportData.Round, #data.Members, os.clock() < 20)
                print(Teleports:GetPlayerPlaceInstanceAsync(player.UserId))
            end)
            return
        end
        local here = {}
        Players.PlayerAdded:Connect(function(player)
            table.insert(here, player)
            if #here < 2 then return end
            task.wait(30)
            local code, id = Teleports:ReserveServer(game.PlaceId)
            assert(type(code) == 'string' and #id > 0 and code ~= id)
            Teleports:TeleportToPrivateServer(game.PlaceId, code, here, nil, { Round = 3 })
            task.wait(1)
            local options = Instance.new('TeleportOptions')
            options.ReservedServerAccessCode = 'none'
            print(pcall(Teleports.TeleportAsync, Teleports, game.PlaceId, { player }, options))
            options.ShouldReserveServer = true
            print(pcall(Teleports.TeleportAsync, Teleports, game.PlaceId, { player }, options))
            print(pcall(Teleports.ReserveServer, Teleports, 5))
            print(#Players:GetPlayers())
        end)",
        |game| {
            game.place_id(1).players("1-2:join@1s".parse().expect("a plan")).until(seconds(60))
        },
    );
    let printed = ran.succeeded();
    let there: Vec<_> = printed.iter().filter(|line| line.starts_with("there")).collect();
    assert_eq!(there, ["there 1 3 2 true", "there 2 3 2 true"], "{printed:?}");
    assert_eq!(
        printed.iter().filter(|line| line.starts_with("true  1 ")).count(),
        2,
        "{printed:?}"
    );
    for part in [
        "no server was reserved with the access code none",
        "only one of ServerInstanceId, ReservedServerAccessCode and ShouldReserveServer",
        "no server of place 5 is simulated",
    ] {
        assert!(printed.iter().any(|line| line.contains(part)), "{part}: {printed:?}");
    }
    assert_eq!(printed.last().map(String::as_str), Some("0"), "{printed:?}");
}

#[test]
fn a_teleport_can_reserve_the_server_itself() {
    let ran = run(
        "local Teleports = game:GetService('TeleportService')
        game:GetService('Players').PlayerAdded:Connect(function(player)
            if game.PrivateServerId ~= '' then
                print('there', game.PrivateServerId)
                return
            end
            local options = Instance.new('TeleportOptions')
            options.ShouldReserveServer = true
            local result = Teleports:TeleportAsync(game.PlaceId, { player }, options)
            print('sent', result.PrivateServerId)
            assert(result.ReservedServerAccessCode ~= '')
        end)",
        |game| game.players("1:join@1s".parse().expect("a plan")),
    );
    let printed = ran.succeeded();
    assert_eq!(printed.len(), 2, "{printed:?}");
    assert_eq!(printed[0].replace("sent", "there"), printed[1], "{printed:?}");
}

#[test]
fn a_teleport_by_an_access_code_says_which_server_was_reserved() {
    let ran = run(
        "local Teleports = game:GetService('TeleportService')
        game:GetService('Players').PlayerAdded:Connect(function(player)
            if game.PrivateServerId ~= '' then
                print('there', game.PrivateServerId)
                return
            end
            local code, id = Teleports:ReserveServer(game.PlaceId)
            local options = Instance.new('TeleportOptions')
            options.ReservedServerAccessCode = code
            local result = Teleports:TeleportAsync(game.PlaceId, { player }, options)
            assert(result.ReservedServerAccessCode == code and result.PrivateServerId == id)
            print('sent', id)
        end)",
        |game| game.players("1:join@1s".parse().expect("a plan")),
    );
    let printed = ran.succeeded();
    assert_eq!(printed.len(), 2, "{printed:?}");
    assert_eq!(printed[0].replace("sent", "there"), printed[1], "{printed:?}");
}

#[test]
fn messages_reach_all_servers() {
    let ran = run(
        "local MessagingService = game:GetService('MessagingService')
        local connection = MessagingService:SubscribeAsync('news', function(message)
            assert(math.abs(message.Sent - os.time()) <= 1)
            message.Data.changed = true
            print('first', message.Data.text)
        end)
        MessagingService:SubscribeAsync('news', function(message) print('second', message.Data.changed) end)
        task.wait(1)
        local servers = {}
        MessagingService:SubscribeAsync('who', function(message) servers[message.Data] = true end)
        task.wait(1)
        MessagingService:PublishAsync('who', game.JobId)
        task.wait(1)
        local count = 0
        for _ in servers do count += 1 end
        assert(count == 2, count)
        MessagingService:PublishAsync('news', { text = 'hello' })
        task.wait(1)
        connection:Disconnect()
        local function fails(text, ...)
            local ok, problem = pcall(MessagingService.PublishAsync, MessagingService, ...)
            assert(not ok and problem:find(text), problem)
        end
        fails('80 characters', string.rep('x', 81), 1)
        fails('80 characters', '', 1)
        fails('1024 characters', 'news', string.rep('x', 1023))
        fails('cannot be stored', 'news', print)
        for n = 1, 19 do MessagingService:SubscribeAsync('t' .. n, print) end",
        |game| game.servers(2).latency(Duration::from_millis(50)),
    );
    // The 19 subscriptions and those above are more than 20.
    assert_eq!(ran.report.failures, 2);
    assert!(
        ran.recorder.texts(Line::Error)[0].contains("at most 20 subscriptions"),
        "{:?}",
        ran.recorder
    );
    let mut printed = ran.recorder.texts(Line::Print);
    printed.sort();
    assert_eq!(printed.iter().filter(|line| *line == "first hello").count(), 4);
    assert_eq!(printed.iter().filter(|line| *line == "second nil").count(), 4);
}

#[test]
fn what_is_bound_to_the_closing_runs_before_the_end() {
    let ran = run(
        "game.Players.PlayerRemoving:Connect(function() print('leaves') end)
        game:BindToClose(function(reason)
            print('closes', reason)
            task.wait(20)
            print('closed')
        end)
        game:BindToClose(function() error('broken') end)
        game:BindToClose(function() task.wait(5) print('second') end)",
        |game| game.players("7:join@1s".parse().expect("a plan")).until(seconds(10)),
    );
    let printed = ran.recorder.texts(Line::Print);
    assert_eq!(
        printed,
        ["closes Enum.CloseReason.DeveloperShutdown", "leaves", "second", "closed"]
    );
    assert!(ran.recorder.texts(Line::Error)[0].contains("broken"));
    let ran = run("game:BindToClose(function() task.wait(31) print('never') end)", |game| game);
    assert!(ran.recorder.texts(Line::Error)[0].contains("longer than 30 s"), "{:?}", ran.recorder);
    assert_eq!((ran.recorder.texts(Line::Print).len(), ran.report.failures), (0, 1));
}

#[test]
fn a_server_that_crashes_does_nothing_more() {
    let ran = run(
        "game:BindToClose(function() print('closes') end)
        while os.clock() < 20 do task.wait(1) end
        print('lives')",
        |game| game.servers(2).players("server1:crash@5s".parse().expect("a plan")),
    );
    let lines: Vec<_> =
        ran.recorder.lines().into_iter().map(|(server, _, text)| (server, text)).collect();
    let expected = [(1, "the server crashes"), (2, "lives"), (2, "closes")];
    assert_eq!(lines, expected.map(|(server, text)| (server, text.to_owned())));
    assert!(ran.report.is_success());
}
