//! Clients that tests and the script for clients speak for.

use std::time::Duration;

use profilestore_luau::{GameBuilder, Line, Script};

use crate::{Ran, run};

/// A game with this script for clients.
fn play(server: &str, client: &str, plan: &str) -> Ran {
    run(server, |game: GameBuilder| {
        game.client(Script { name: "client".into(), source: client.into() })
            .players(plan.parse().expect("a plan"))
            .until(Duration::from_secs(60))
    })
}

const REMOTES: &str = "
    local Shared = game:GetService('ReplicatedStorage')
    local function new(class, name)
        local remote = Instance.new(class)
        remote.Name = name
        remote.Parent = Shared
        return remote
    end
    local Buy, Shown, Ask = new('RemoteEvent', 'Buy'), new('RemoteEvent', 'Shown'), new('RemoteFunction', 'Ask')
    local Players = game:GetService('Players')
";

#[test]
fn a_client_fires_remotes_and_sees_what_arrives() {
    let server = format!(
        "{REMOTES}
        Buy.OnServerEvent:Connect(function(player, what, count)
            print('buys', player.UserId, what.Name, getmetatable(what), what.Use, count)
            Shown:FireClient(player, {{ Coins = 5 }})
        end)
        Ask.OnServerInvoke = function(player, question)
            task.wait(1)
            return player.UserId, question
        end
        Players.PlayerAdded:Connect(function(player)
            Shown:FireAllClients('welcome')
            Players.PlayerRemoving:Wait()
            Shown:FireClient(player, 'too late')
        end)"
    );
    let client = "
        local Shared = game:GetService('ReplicatedStorage')
        task.wait(1)
        client.event(Shared.Shown):Connect(function(what)
            print('shown', player.Name, if type(what) == 'table' then what.Coins else what)
        end)
        client.fire(Shared.Buy, setmetatable({ Name = 'Sword', Use = print }, {}), 2)
        print('answer', client.invoke(Shared.Ask, 'who'))
        task.wait(20)
        print('never')";
    let printed = play(&server, client, "7:join@1s,leave@10s").succeeded();
    assert_eq!(
        printed,
        ["shown Player7 welcome", "buys 7 Sword nil nil 2", "shown Player7 5", "answer 7 who",]
    );
}

#[test]
fn a_client_triggers_prompts_and_clicks() {
    let server = "
        local prompt, button = Instance.new('ProximityPrompt', workspace), Instance.new('ClickDetector', workspace)
        prompt.Triggered:Connect(function(player) print('triggers', player) prompt.Enabled = false end)
        button.MouseClick:Connect(function(player) print('clicks', player) end)";
    let client = "
        client.trigger(workspace.ProximityPrompt)
        client.click(workspace.ClickDetector)
        task.wait(1)
        client.trigger(workspace.ProximityPrompt)
        assert(not pcall(client.click, workspace))";
    let printed = play(server, client, "7:join@1s,leave@10s").succeeded();
    assert_eq!(printed, ["triggers Player7", "clicks Player7"]);
}

#[test]
fn a_client_answers_a_server_that_asks() {
    let server = format!(
        "{REMOTES}
        Players.PlayerAdded:Connect(function(player)
            print(pcall(Ask.InvokeClient, Ask, player, 1))
            task.wait(2)
            print(Ask:InvokeClient(player, 20))
            print((pcall(Ask.InvokeClient, Ask, player, 'x')))
        end)"
    );
    let client = "
        task.wait(1)
        client.answer(game:GetService('ReplicatedStorage').Ask, function(n) return n + 1 end)";
    let printed = play(&server, client, "7:join@1s").succeeded();
    assert!(printed[0].contains("does not answer ReplicatedStorage.Ask"), "{printed:?}");
    assert_eq!(printed[1..], ["21", "false"]);
}

#[test]
fn every_player_has_a_client_on_each_server_and_it_may_leave() {
    let server = "game:GetService('Players').PlayerRemoving:Connect(function(player)
        print('leaves', player.Name)
    end)";
    let client = "print('client of', player.Name) task.wait(5) client.leave()";
    let printed = play(server, client, "1-2:join@1s;1:join@20s").succeeded();
    let one = ["client of Player1", "client of Player2", "leaves Player1", "leaves Player2"];
    assert_eq!(printed[..4], one);
    assert_eq!(printed[4..], ["client of Player1", "leaves Player1"]);
}

/// It went on.
#[test]
fn a_client_that_leaves_ends_its_script_there() {
    let client = "
        task.spawn(function() task.wait(3) print('a thread of its own goes on') end)
        if player.UserId == 1 then task.wait(1) end
        print('leaves', player)
        pcall(client.leave)
        print('after')
        task.wait(1)
        print('later')";
    let printed = play("", client, "1-2:join@1s").succeeded();
    let own = "a thread of its own goes on";
    assert_eq!(printed, ["leaves Player2", "leaves Player1", own, own]);
}

/// It arrived.
#[test]
fn what_an_unreliable_event_does_not_carry_is_dropped_with_a_warning() {
    let server = format!(
        "{REMOTES}
        local Loose = new('UnreliableRemoteEvent', 'Loose')
        Loose.OnServerEvent:Connect(function(player, text) print('server', #text) end)
        Buy.OnServerEvent:Connect(function(player, text)
            print('server', #text)
            for _, length in {{ 900, 1001 }} do
                Loose:FireClient(player, {{ text = string.rep('x', length) }})
                Loose:FireAllClients(string.rep('x', length))
            end
        end)"
    );
    let client = "
        local Shared = game:GetService('ReplicatedStorage')
        client.event(Shared.Loose):Connect(function(what) print('client', type(what)) end)
        client.fire(Shared.Loose, string.rep('x', 1000))
        client.fire(Shared.Loose, string.rep('x', 1001))
        task.wait(1)
        client.fire(Shared.Buy, string.rep('x', 5000))";
    let ran = play(&server, client, "7:join@1s");
    let warnings = ran.recorder.texts(Line::Warn);
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    let wanted = "Loose: 1001 bytes are dropped, an UnreliableRemoteEvent carries 1000 at most";
    assert!(warnings[0].ends_with(wanted), "{warnings:?}");
    assert_eq!(ran.succeeded(), ["server 1000", "server 5000", "client table", "client string"]);
}

#[test]
fn what_is_wrong_with_a_client_is_said() {
    let server = format!(
        "{REMOTES}
        Ask.OnServerInvoke = function() error('not today') end
        Instance.new('RemoteFunction', Shared).Name = 'Deaf'"
    );
    let client = "
        local Shared = game:GetService('ReplicatedStorage')
        local loop = {}
        loop.loop = loop
        for _, call in {
            function() client.fire(Shared, 1) end,
            function() client.fire(nil) end,
            function() client.invoke(Shared.Buy) end,
            function() client.answer(Shared.Ask, 5) end,
            function() client.fire(Shared.Buy, loop) end,
            function() client.invoke(Shared.Deaf) end,
            function() client.invoke(Shared.Ask) end,
        } do
            print(select(2, pcall(call)))
        end";
    let ran = play(&server, client, "1:join@1s");
    let printed = ran.recorder.texts(Line::Print);
    for (text, what) in printed.iter().zip([
        "Argument 1 of fire must be a RemoteEvent, and not a ReplicatedStorage",
        "Argument 1 of fire must be a RemoteEvent, and not a nil",
        "Argument 1 of invoke must be a RemoteFunction, and not a RemoteEvent",
        "Argument 2 of answer must be a function, and not a number",
        "a table that contains itself cannot be sent",
        "OnServerInvoke of ReplicatedStorage.Deaf is not set",
        "not today",
    ]) {
        assert!(text.contains(what), "{what}: {printed:?}");
    }
    assert_eq!(printed.len(), 7);
    let errors = ran.recorder.texts(Line::Error);
    assert!(errors.len() == 1 && errors[0].contains("not today"), "{errors:?}");
}
