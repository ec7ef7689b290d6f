//! What scripts ask of the engine: where parts are, what characters hold, events that nothing makes
//! happen, and answers of an empty world.

use std::time::Duration;

use crate::{check, run};

/// A script with a player 7 who is there for a minute, and that player's character.
#[track_caller]
fn with_a_player(source: &str) -> Vec<String> {
    let script = format!(
        "local player = game:GetService('Players').PlayerAdded:Wait()
        local character = player.Character or player.CharacterAdded:Wait()
        local humanoid = character:WaitForChild('Humanoid')
        {source}"
    );
    let plan = "7:join@1s,leave@60s".parse().expect("a plan");
    run(&script, |game| game.players(plan).until(Duration::from_secs(70))).succeeded()
}

#[test]
fn events_of_the_engine_can_be_listened_to() {
    check(
        "local heard = 0
        local function hear() heard += 1 end
        for class, events in {
            Part = { 'Touched', 'TouchEnded' }, ProximityPrompt = { 'Triggered' }, Sound = { 'Ended' },
            ClickDetector = { 'MouseClick' }, DragDetector = { 'MouseClick', 'DragStart' },
            Tool = { 'Activated', 'Equipped' }, TextButton = { 'Activated', 'InputBegan' }, Team = { 'PlayerAdded' },
        } do
            local instance = Instance.new(class)
            for _, event in events do instance[event]:Connect(hear) end
        end
        game:GetService('LogService').MessageOut:Connect(hear)
        game:GetService('ProximityPromptService').PromptTriggered:Connect(hear)
        task.wait(60)
        assert(heard == 0)
        assert(not pcall(function() return Instance.new('Folder').Touched end))",
    );
}

#[test]
fn a_part_is_where_its_position_its_frame_and_its_model_say() {
    check(
        "local part, heard = Instance.new('Part'), {}
        for _, name in { 'CFrame', 'Position', 'Orientation' } do
            part:GetPropertyChangedSignal(name):Connect(function() table.insert(heard, name) end)
        end
        part.CFrame = CFrame.new(1, 2, 3)
        assert(part.Position == Vector3.new(1, 2, 3) and #heard == 2)
        part.Orientation = Vector3.new(0, 90, 0)
        assert(part.CFrame.LookVector:FuzzyEq(-Vector3.xAxis) and part.Position == Vector3.new(1, 2, 3))
        part.Position = Vector3.zero
        assert(part.CFrame.LookVector:FuzzyEq(-Vector3.xAxis) and part.CFrame.X == 0)
        local model = Instance.new('Model')
        local a, b = Instance.new('Part', model), Instance.new('Part', model)
        b.Position = Vector3.new(1, 0, 0)
        model.PrimaryPart = a
        model:PivotTo(CFrame.new(10, 0, 0) * CFrame.Angles(0, math.pi, 0))
        assert(model:GetPivot().Position.X == 10 and b.Position:FuzzyEq(Vector3.new(9, 0, 0)))
        model:MoveTo(Vector3.new(0, 5, 0))
        assert(b.Position:FuzzyEq(Vector3.new(-1, 5, 0)))
        workspace:BulkMoveTo({ a, b }, { CFrame.new(), CFrame.new(0, 1, 0) }, Enum.BulkMoveMode.FireCFrameChanged)
        assert(b.Position == Vector3.yAxis)
        local ok, problem = pcall(function() model:PivotTo(5) end)
        assert(not ok and string.find(problem, 'game:%d+: Argument 1 of PivotTo must be a CFrame'), problem)
        local other = Instance.new('Model')
        assert(not pcall(function() other:SetPrimaryPartCFrame(CFrame.new()) end), 'it has none')",
    );
}

#[test]
fn frames_that_are_turned_otherwise_differ() {
    check(
        "local part = Instance.new('Part')
        assert(CFrame.new(1, 2, 3) == CFrame.new(1, 2, 3))
        assert(CFrame.new(1, 2, 3) ~= CFrame.new(1, 2, 3) * CFrame.Angles(0, 1, 0))
        part.CFrame *= CFrame.Angles(0, math.pi / 2, 0)
        assert(part.CFrame.LookVector:FuzzyEq(-Vector3.xAxis))",
    );
}

#[test]
fn what_refers_into_a_copied_model_refers_to_the_copy() {
    check(
        "local model, outside = Instance.new('Model'), Instance.new('Part')
        model.PrimaryPart = Instance.new('Part', model)
        local inside, beyond = Instance.new('ObjectValue', model), Instance.new('ObjectValue', model)
        inside.Name, inside.Value = 'Inside', model.PrimaryPart
        beyond.Name, beyond.Value = 'Beyond', outside
        local copy = model:Clone()
        assert(copy.PrimaryPart == copy.Part and copy.Part ~= model.PrimaryPart)
        assert(copy.Inside.Value == copy.Part and copy.Beyond.Value == outside)",
    );
}

#[test]
fn a_character_has_its_parts_and_comes_back_when_it_has_died() {
    let printed = with_a_player(
        "local root = character:WaitForChild('HumanoidRootPart')
        assert(character.PrimaryPart == root and humanoid.RootPart == root and character:FindFirstChild('Head'))
        character:PivotTo(CFrame.new(0, 50, 0))
        assert(root.Position == Vector3.new(0, 50, 0))
        player:GetPropertyChangedSignal('Character'):Connect(function() print('another') end)
        humanoid.Died:Connect(function() print('died') end)
        local began = os.clock()
        humanoid:TakeDamage(100)
        assert(humanoid:GetState() == Enum.HumanoidStateType.Dead)
        local again = player.CharacterAdded:Wait()
        assert(again ~= character and math.abs(os.clock() - began - 5) < 0.1)
        again.Humanoid:MoveTo(Vector3.one)
        print('arrived', again.Humanoid.MoveToFinished:Wait())",
    );
    assert_eq!(printed, ["died", "another", "arrived false"]);
}

#[test]
fn tools_and_teams_know_who_has_them() {
    let printed = with_a_player(
        "local tool = Instance.new('Tool', player.Backpack)
        tool.Equipped:Connect(function() print('equipped') end)
        tool.Activated:Connect(function() print('used') end)
        humanoid:EquipTool(tool)
        tool:Activate()
        assert(tool.Parent == character)
        humanoid:UnequipTools()
        assert(tool.Parent == player.Backpack)
        assert(not pcall(function() humanoid:EquipTool(workspace) end))
        local Teams = game:GetService('Teams')
        local red = Instance.new('Team', Teams)
        red.PlayerAdded:Connect(function(who) print('in', who) end)
        red.PlayerRemoved:Connect(function(who) print('out', who) end)
        player.Team = red
        assert(Teams:GetTeams()[1] == red and red:GetPlayers()[1] == player)
        player.Team = nil
        assert(#red:GetPlayers() == 0)",
    );
    assert_eq!(printed, ["equipped", "used", "in Player7", "out Player7"]);
}

/// `PlayerRemoved` was fired for those only who changed their team.
#[test]
fn a_team_hears_of_a_player_who_leaves_the_game() {
    let printed = with_a_player(
        "local red = Instance.new('Team', game:GetService('Teams'))
        red.PlayerRemoved:Connect(function(who) print('out', who, #red:GetPlayers()) end)
        player.Team = red",
    );
    assert_eq!(printed, ["out Player7 0"]);
}

#[test]
fn in_an_empty_world_nothing_is_hit_and_nobody_finds_a_way() {
    check(
        "local params = RaycastParams.new()
        params.FilterType = Enum.RaycastFilterType.Include
        params.FilterDescendantsInstances = { workspace }
        params:AddToFilter(game)
        assert(#params.FilterDescendantsInstances == 2 and #RaycastParams.new().FilterDescendantsInstances == 0)
        assert(not pcall(function() params.IgnoreWater = 'yes' end) and not pcall(function() params.Cheese = 1 end))
        assert(workspace:Raycast(Vector3.zero, Vector3.yAxis, params) == nil)
        assert(#workspace:GetPartBoundsInBox(CFrame.new(), Vector3.one, OverlapParams.new()) == 0)
        assert(not pcall(function() workspace:Raycast(Vector3.zero) end))
        local path = game:GetService('PathfindingService'):CreatePath({ AgentRadius = 2 })
        path:ComputeAsync(Vector3.zero, Vector3.one)
        assert(path.Status == Enum.PathStatus.NoPath and #path:GetWaypoints() == 0)
        local Physics = game:GetService('PhysicsService')
        Physics:RegisterCollisionGroup('Pets')
        Physics:CollisionGroupSetCollidable('Pets', 'Default', false)
        assert(Physics:IsCollisionGroupRegistered('Pets') and not Physics:IsCollisionGroupRegistered('Cars'))
        assert(PhysicalProperties.new(1, 0.3, 0.5).FrictionWeight == 1 and Content.fromUri('a').Uri == 'a')
        assert(PathWaypoint.new(Vector3.one).Action == Enum.PathWaypointAction.Walk)",
    );
}

#[test]
fn the_time_of_day_is_what_scripts_set() {
    check(
        "local Lighting = game:GetService('Lighting')
        assert(Lighting.ClockTime == 14 and Lighting.TimeOfDay == '14:00:00')
        Lighting.ClockTime = 18.5
        assert(Lighting.TimeOfDay == '18:30:00')
        Lighting.TimeOfDay = '06:15'
        assert(Lighting.ClockTime == 6.25)
        Lighting:SetMinutesAfterMidnight(25 * 60)
        assert(Lighting.ClockTime == 1 and Lighting:GetMinutesAfterMidnight() == 60)
        assert(not pcall(function() Lighting.TimeOfDay = 'noon' end))",
    );
}

#[test]
fn actors_hear_what_is_sent_to_them() {
    let printed = check(
        "local actor = Instance.new('Actor', workspace)
        assert(Instance.new('Folder', actor):GetActor() == actor and workspace:GetActor() == nil)
        local connection = actor:BindToMessage('Give', function(...) print('give', ...) end)
        actor:SendMessage('Give', 5, 'Coins')
        task.wait()
        connection:Disconnect()
        actor:SendMessage('Give', 6)
        task.wait()",
    );
    assert_eq!(printed, ["give 5 Coins"]);
}

#[test]
fn users_have_pictures_descriptions_and_no_friends() {
    check(
        "local Players = game:GetService('Players')
        local picture, is_ready = Players:GetUserThumbnailAsync(7, Enum.ThumbnailType.HeadShot, Enum.ThumbnailSize.Size48x48)
        assert(string.find(picture, 'id=7&w=48&h=48', 1, true) and is_ready)
        local friends = Players:GetFriendsAsync(7)
        assert(friends.IsFinished and #friends:GetCurrentPage() == 0)
        assert(Players:GetHumanoidDescriptionFromUserIdAsync(7).ClassName == 'HumanoidDescription')
        assert(game:GetService('StarterPlayer').StarterPlayerScripts:IsA('StarterPlayerScripts'))",
    );
}
