//! Whole games, as trees of instances: those in `tests/games`, written in the manner of games with
//! a framework of services, with replicated state, and of compiled TypeScript.

use std::{fs, path::Path, sync::Arc, time::Duration};

use profilestore_luau::{Game, GameBuilder, Line, Recorder, Time, Tree};

use crate::Ran;

fn game(name: &str) -> Arc<Tree> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/games").join(name);
    Arc::new(Tree::read(&folder).expect("a tree"))
}

fn play(tree: Arc<Tree>, set: impl FnOnce(GameBuilder) -> GameBuilder) -> Ran {
    let recorder = Arc::new(Recorder::default());
    let game = Game::builder().time(Time::Virtual).output(recorder.clone()).tree(tree);
    let report = set(game).play().expect("the game runs");
    Ran { report, recorder }
}

fn with_players(game: GameBuilder, plan: &str) -> GameBuilder {
    game.players(plan.parse().expect("a plan")).until(Duration::from_secs(60))
}

/// A tree of a few files; scripts are in ServerScriptService.
fn small(files: &[(&str, &str)]) -> Arc<Tree> {
    let folder = tempfile::tempdir().expect("a folder");
    let project = r#"{ "name": "small", "tree": { "$className": "DataModel",
        "ServerScriptService": { "$path": "src" },
        "ReplicatedStorage": { "Shared": { "$path": { "optional": "shared" } } } } }"#;
    for (name, text) in [("default.project.json", project)].iter().chain(files) {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(file, text).expect("a file");
    }
    Arc::new(Tree::read(folder.path()).expect("a tree"))
}

#[test]
fn a_game_of_services_starts_and_saves() {
    let plan = "1:join@1s,leave@10s,join@20s,leave@40s";
    let printed = play(game("services"), |game| with_players(game, plan)).succeeded();
    assert_eq!(
        printed,
        ["started ServerScriptService.Server.Main", "gift Player1 125", "gift Player1 150"]
    );
}

#[test]
fn a_game_of_services_runs_on_several_servers() {
    let plan = "1:join@1s/1,hop@20s/2";
    let ran = play(game("services"), |game| with_players(game.servers(2), plan));
    let printed = ran.succeeded();
    assert!(printed.contains(&"gift Player1 150".to_owned()), "{printed:?}");
}

#[test]
fn a_game_with_replicated_state_finds_its_models_aliases_and_parts() {
    let plan = "1:join@1s,leave@10s,join@20s,leave@40s";
    let printed = play(game("replicas"), |game| with_players(game, plan)).succeeded();
    assert_eq!(printed, ["created PlayerData 1", "cash 10", "created PlayerData 2", "cash 20"]);
}

#[test]
fn a_compiled_game_imports_its_modules() {
    let plan = "5:join@1s,leave@10s,join@30s,leave@50s";
    let printed = play(game("roblox_ts"), |game| with_players(game, plan)).succeeded();
    assert_eq!(printed, ["coins 7 Wallet", "Player5 true", "coins 14 Wallet", "Player5 true"]);
}

#[test]
fn a_place_file_is_played_with_what_its_instances_hold() {
    use rbx_dom_weak::{
        InstanceBuilder, WeakDom,
        types::{Attributes, Enum, Tags, Variant},
    };
    let script = |class: &str, name: &str, text: &str| {
        InstanceBuilder::new(class).with_name(name).with_property("Source", text)
    };
    let source = "local config = game.ReplicatedStorage.Config
        assert(config:GetAttribute('Title') == 'Coins' and config:HasTag('Saved'))
        assert(config.Target.Value == workspace.Spawn and workspace.Spawn.Material == Enum.Material.Neon)
        assert(config.Limit.Value == math.huge and not script.Parent:FindFirstChild('Nothing'))
        local ProfileStore = require(game.ServerScriptService.ProfileStore)
        local profile = ProfileStore.New('S', { Coins = require(config.Start) }):StartSessionAsync('K')
        print('coins', profile.Data.Coins)
        error('here')";
    let part = InstanceBuilder::new("Part")
        .with_name("Spawn")
        .with_property("Material", Enum::from_u32(288));
    let target = InstanceBuilder::new("ObjectValue")
        .with_name("Target")
        .with_property("Value", part.referent());
    let limit = InstanceBuilder::new("NumberValue")
        .with_name("Limit")
        .with_property("Value", Variant::Float64(f64::INFINITY));
    let config = InstanceBuilder::new("Folder")
        .with_name("Config")
        .with_property("Attributes", Attributes::new().with("Title", "Coins"))
        .with_property("Tags", Tags::from(vec!["Saved".to_owned()]))
        .with_children([target, limit, script("ModuleScript", "Start", "return 7")]);
    let off = script("Script", "Off", "error('off')").with_property("Disabled", true);
    let dom = WeakDom::new(InstanceBuilder::new("DataModel").with_children([
        InstanceBuilder::new("ReplicatedStorage").with_child(config),
        InstanceBuilder::new("Workspace").with_child(part),
        InstanceBuilder::new("ServerScriptService").with_children([
            script("Script", "Main", source),
            script("LocalScript", "Hud", "error('a client')"),
            off,
        ]),
    ]));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("game.rbxl");
    let file = fs::File::create(&path).expect("a file");
    rbx_binary::to_writer(file, &dom, dom.root().children()).expect("a place");
    let tree = Arc::new(Tree::read(&path).expect("a tree"));
    let ran = play(tree, |game| game);
    assert_eq!(ran.recorder.texts(Line::Print), ["coins 7"], "{:?}", ran.recorder);
    let errors = ran.recorder.texts(Line::Error);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].starts_with("ServerScriptService.Main:8: here"), "{errors:?}");
    assert!(ran.recorder.texts(Line::Warn).is_empty(), "{:?}", ran.recorder);
}

#[test]
fn scripts_run_by_where_they_are_and_by_their_context() {
    let folder = tempfile::tempdir().expect("a folder");
    let project = r#"{ "tree": { "$className": "DataModel",
        "ServerScriptService": { "$path": "a" }, "Workspace": { "Part": { "$className": "Part", "$path": "a" } },
        "ServerStorage": { "$path": "a" }, "ReplicatedStorage": { "$path": "b" } } }"#;
    fs::write(folder.path().join("default.project.json"), project).expect("a file");
    for (name, meta) in [
        ("a/Plain", ""),
        ("a/Off", r#"{ "properties": { "Disabled": true } }"#),
        ("a/Client", r#"{ "properties": { "RunContext": "Client" } }"#),
        ("b/Plain", ""),
        ("b/Server", r#"{ "properties": { "RunContext": "Server" } }"#),
    ] {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(file.with_extension("server.luau"), "print(script:GetFullName())")
            .expect("a file");
        if !meta.is_empty() {
            fs::write(file.with_extension("meta.json"), meta).expect("a file");
        }
    }
    let tree = Arc::new(Tree::read(folder.path()).expect("a tree"));
    let mut printed = play(tree, |game| game).succeeded();
    printed.sort();
    assert_eq!(
        printed,
        ["ReplicatedStorage.Server", "ServerScriptService.Plain", "Workspace.Part.Plain"]
    );
}

#[test]
fn scripts_that_are_copied_moved_or_enabled_later_begin_once() {
    let tree = small(&[
        ("src/Spinner.server.luau", "print(script:GetFullName())"),
        ("src/Spinner.meta.json", r#"{ "properties": { "Disabled": true } }"#),
        (
            "src/Main.server.luau",
            "local spinner, part = script.Parent.Spinner, Instance.new('Part')
            local copy = spinner:Clone()
            copy.Enabled = true
            copy.Parent = part
            task.wait()
            print('copied')
            part.Parent = workspace
            task.wait()
            spinner.Enabled = true
            task.wait()
            spinner.Parent = workspace
            copy.Parent = game.ServerStorage
            copy.Parent = workspace
            local player = game.Players.PlayerAdded:Wait()
            local tool = Instance.new('Tool')
            spinner:Clone().Parent = tool
            tool.Parent = player.Backpack",
        ),
    ]);
    let printed = play(tree, |game| with_players(game, "7:join@1s,leave@9s")).succeeded();
    assert_eq!(
        printed,
        [
            "copied",
            "Workspace.Part.Spinner",
            "ServerScriptService.Spinner",
            "Players.Player7.Backpack.Tool.Spinner"
        ]
    );
}

#[test]
fn a_script_that_waits_for_what_never_comes_is_a_failure_that_names_it() {
    let tree = small(&[
        ("src/Main.server.luau", "local a = 1\ngame.ReplicatedStorage:WaitForChild('Shared')"),
        ("src/Tick.server.luau", "while true do task.wait(1) end"),
    ]);
    let ran = play(tree, |game| game.until(Duration::from_secs(30)));
    assert!(!ran.report.is_success());
    let errors = ran.recorder.texts(Line::Error);
    assert_eq!(errors.len(), 1, "{errors:?}");
    for part in [
        "src/Main.server.luau:2: a thread still waits for ReplicatedStorage:WaitForChild(\"Shared\")",
        "which never came",
        "ReplicatedStorage has no children",
    ] {
        assert!(errors[0].contains(part), "{part}: {errors:?}");
    }
}

#[test]
fn a_game_that_goes_on_by_itself_ends_when_a_script_waits_for_ever_in_virtual_time() {
    let tree = small(&[
        ("src/Main.server.luau", "game.ReplicatedStorage:WaitForChild('Shared')"),
        ("src/Tick.server.luau", "while true do task.wait(1) end"),
    ]);
    let ran = play(tree, |game| game);
    assert!(ran.recorder.texts(Line::Error)[0].contains("which never came"), "{:?}", ran.recorder);
}

#[test]
fn a_script_that_cannot_be_compiled_keeps_no_other_from_running() {
    let tree = small(&[
        ("src/A.server.luau", "local = 5"),
        ("src/B.server.luau", "print('runs')"),
        ("src/C.server.luau", "require(script.Parent.D)"),
        ("src/D.luau", "return nil + 1"),
    ]);
    let ran = play(tree, |game| game);
    assert_eq!(ran.recorder.texts(Line::Print), ["runs"]);
    let errors = ran.recorder.texts(Line::Error).join("\n");
    for part in ["src/A.server.luau:1:", "src/D.luau:1:", "src/C.server.luau:1:"] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
}

#[test]
fn a_game_without_a_script_for_servers_says_so() {
    let tree = small(&[("src/A.luau", "return 1")]);
    let error = Game::builder().time(Time::Virtual).tree(tree).play().expect_err("nothing runs");
    assert!(error.to_string().contains("no script of this game runs"), "{error}");
}

#[test]
fn requires_by_path_lead_up_down_and_by_aliases() {
    let tree = small(&[
        (".luaurc", r#"{ "aliases": { "shared": "shared", "gone": "nowhere" } }"#),
        ("shared/Deep/Leaf.luau", "return 'leaf'"),
        ("src/Util/init.luau", "return require('./Top') .. require('@self/Sub/Inner')"),
        (
            "src/Util/Sub/Inner.luau",
            "return ' inner ' .. require('../../Top') .. require('../../Shared')",
        ),
        ("src/Top.luau", "return 'top'"),
        (
            "src/Main.server.luau",
            "local ok, problem = pcall(require, '@gone/x')
            print(problem)
            ok, problem = pcall(require, '@shared/Deep/Other')
            print(problem)
            ok, problem = pcall(require, './Main')
            print(problem)
            print(require('./Util'), require('@shared/Deep/Leaf'), require('@game/ReplicatedStorage/Shared/Deep/Leaf'))",
        ),
        ("src/Shared.luau", "return ' up'"),
    ]);
    let ran = play(tree, |game| game);
    let printed = ran.recorder.texts(Line::Print);
    assert!(printed[0].contains("which is not in the game's tree"), "{printed:?}");
    assert!(printed[1].contains("ReplicatedStorage.Shared.Deep has no child Other"), "{printed:?}");
    assert!(printed[2].contains("ServerScriptService.Main is a Script"), "{printed:?}");
    assert_eq!(printed[3], "top inner top up leaf leaf", "{:?}", ran.recorder);
}

#[test]
fn the_games_own_module_comes_before_the_built_in_one() {
    let tree = small(&[
        ("src/ProfileStore.luau", "return 'mine'"),
        (
            "src/Main.server.luau",
            "print(require(script.Parent.ProfileStore), #script.Parent:GetChildren())",
        ),
    ]);
    assert_eq!(play(tree, |game| game).succeeded(), ["mine 3"]);
}

#[test]
fn copies_of_modules_load_by_themselves() {
    let tree = small(&[
        ("src/Counter.luau", "return { script = script }"),
        (
            "src/Main.server.luau",
            "local first = script.Parent.Counter
            local second = first:Clone()
            second.Name = 'Second'
            second.Parent = workspace
            assert(require(first) ~= require(second) and require(second).script == second)",
        ),
    ]);
    play(tree, |game| game).succeeded();
}

#[test]
fn properties_that_only_files_can_give_are_read_or_left_to_the_engine() {
    let folder = tempfile::tempdir().expect("a folder");
    // What the projects of new games give.
    let project = r#"{ "tree": { "$className": "DataModel",
        "Workspace": { "$properties": { "FilteringEnabled": true, "StreamingMinRadius": 64 } },
        "Lighting": { "$properties": { "Technology": "Voxel", "Brightness": 3 } },
        "TextChatService": { "$properties": { "ChatVersion": "TextChatService" } },
        "ServerStorage": { "Mesh": { "$className": "MeshPart",
            "$properties": { "MeshId": "rbxassetid://7" } } },
        "ServerScriptService": { "$properties": { "LoadStringEnabled": false },
            "$path": "src" } } }"#;
    fs::write(folder.path().join("default.project.json"), project).expect("a file");
    fs::create_dir(folder.path().join("src")).expect("a folder");
    let script = "assert(game.Lighting.Brightness == 3)
        print(game:GetService('TextChatService').ChatVersion.Name, game.ServerStorage.Mesh.MeshId)
        print(pcall(function() game.ServerStorage.Mesh.MeshId = 'other' end))";
    fs::write(folder.path().join("src/A.server.luau"), script).expect("a file");
    let tree = Arc::new(Tree::read(folder.path()).expect("a tree"));
    let ran = play(tree, |game| game);
    assert!(ran.recorder.texts(Line::Warn).is_empty(), "{:?}", ran.recorder);
    let printed = ran.succeeded();
    assert_eq!(printed[0], "TextChatService rbxassetid://7");
    assert!(printed[1].contains("Property is read only"), "{printed:?}");
}

#[test]
fn properties_that_cannot_be_read_are_named_and_left() {
    let tree = small(&[
        (
            "src/A.server.luau",
            "assert(script.Parent.B.Value == Vector3.new(1, 2, 3) and script.Parent.B:GetAttribute('N') == 2 and script.Parent.B:HasTag('T'))",
        ),
        (
            "src/B.model.json",
            r#"{ "className": "Vector3Value", "attributes": { "N": { "Float64": 2 } },
            "properties": { "Value": [1, 2, 3], "Tags": ["T"], "Nothing": 1 } }"#,
        ),
    ]);
    let ran = play(tree, |game| game);
    let warnings = ran.recorder.texts(Line::Warn);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("the property Nothing of Vector3Value \"B\""), "{warnings:?}");
    ran.succeeded();
}

/// `"CFrame": [1, 2, 3]` became a place, and what was missing of other values became 0.
#[test]
fn values_of_the_wrong_form_are_named_by_their_place_in_the_project_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let project = r#"{ "tree": { "$className": "DataModel", "Workspace": {
        "A": { "$className": "Part", "$properties": { "CFrame": [1, 2, 3], "Size": [1, 2, 3] } },
        "B": { "$className": "Part", "$properties": { "Color": { "Color3": [2, 3] } } },
        "C": { "$className": "Folder", "$attributes": { "V": { "Vector3": [1] } } },
        "D": { "$className": "Folder", "$attributes": { "F": { "Frob": 1 } } },
        "E": { "$className": "Folder", "$attributes": { "B": { "Bool": 1 }, "N": { "Int32": 7 } } },
        "F": { "$className": "CFrameValue", "$properties": { "Value": { "CFrame": {
            "position": [1, 2, 3], "orientation": [[1, 0, 0], [0, 1, 0], [0, 0, 1]] } } } } },
        "ServerScriptService": { "$path": "src" } } }"#;
    fs::create_dir(folder.path().join("src")).expect("a folder");
    let script = "print(workspace.A.Size, workspace.F.Value, workspace.E:GetAttribute('N'),
        workspace.C:GetAttribute('V'))";
    fs::write(folder.path().join("src/A.server.luau"), script).expect("a file");
    fs::write(folder.path().join("default.project.json"), project).expect("a file");
    let tree = Arc::new(Tree::read(folder.path()).expect("a tree"));
    let ran = play(tree, |game| game);
    let warnings = ran.recorder.texts(Line::Warn);
    for (warning, wanted) in warnings.iter().zip([
        "tree.Workspace.A: the property CFrame of Part \"A\" is left as it is: \
         a CFrame is made of 12 numbers, and not of 3",
        "tree.Workspace.B: the property Color of Part \"B\" is left as it is: \
         a Color3 is made of 3 numbers, and not of 2",
        "tree.Workspace.C: the attribute V of Folder \"C\" is left as it is: \
         a Vector3 is made of 3 numbers, and not of 1",
        "tree.Workspace.D: the attribute F of Folder \"D\" is left as it is: \
         there is no kind Frob of values",
        "tree.Workspace.E: the attribute B of Folder \"E\" is left as it is: \
         a value of the kind Bool is a boolean, and not a number",
    ]) {
        assert!(warning.ends_with(&format!("default.project.json: {wanted}")), "{warning}");
    }
    assert_eq!(warnings.len(), 5, "{warnings:?}");
    assert_eq!(ran.succeeded(), ["1, 2, 3 1, 2, 3, 1, 0, 0, 0, 1, 0, 0, 0, 1 7 nil"]);
}
