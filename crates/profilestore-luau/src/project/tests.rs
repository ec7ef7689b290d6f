//! Trees of small projects, held against what Rojo's documentation says.

use std::{fs, path::Path};

use serde_json::json;
use tempfile::TempDir;

use super::*;

pub(super) fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(file, text).expect("a file");
    }
    folder
}

fn lines_of(node: &Node, depth: usize, lines: &mut Vec<String>) {
    let properties = if node.properties.is_empty() {
        String::new()
    } else {
        format!(" {}", serde_json::to_string(&node.properties).expect("JSON"))
    };
    lines.push(format!("{}{}: {}{properties}", "  ".repeat(depth), node.name, node.class));
    for child in &node.children {
        lines_of(child, depth + 1, lines);
    }
}

/// The tree, a line for each instance.
pub(super) fn tree(files: &[(&str, &str)]) -> Vec<String> {
    let folder = folder(files);
    let tree = Tree::read(folder.path()).expect("a tree");
    let mut lines = Vec::new();
    lines_of(&tree.root, 0, &mut lines);
    lines
}

/// The problem that reading has, with the folder's name left out.
pub(super) fn problem(files: &[(&str, &str)]) -> String {
    let folder = folder(files);
    let error = Tree::read(folder.path()).expect_err("a problem").to_string();
    error.replace(&shown(folder.path()), "GAME")
}

const GAME: &str = r#"{ "name": "Game", "tree": { "$className": "DataModel",
    "ServerScriptService": { "$path": "src" } } }"#;

fn in_service(files: &[(&str, &str)]) -> Vec<String> {
    let all: Vec<_> = [("default.project.json", GAME)].iter().chain(files).copied().collect();
    tree(&all)
}

#[test]
fn endings_say_what_a_file_is() {
    let lines = in_service(&[
        ("src/A.server.luau", ""),
        ("src/B.client.lua", ""),
        ("src/C.luau", ""),
        ("src/D.lua", ""),
        ("src/E.json", "{}"),
        ("src/F.toml", ""),
        ("src/G.txt", "hello"),
        ("src/H.plugin.lua", ""),
        ("src/README.md", ""),
        ("src/Empty/.keep", ""),
    ]);
    assert_eq!(
        lines,
        [
            "Game: DataModel",
            "  ServerScriptService: ServerScriptService",
            "    A: Script",
            "    B: LocalScript",
            "    C: ModuleScript",
            "    D: ModuleScript",
            "    E: ModuleScript",
            "    Empty: Folder",
            "    F: ModuleScript",
            "    G: StringValue {\"Value\":\"hello\"}",
            "    H: Script {\"RunContext\":\"Plugin\"}",
        ]
    );
}

#[test]
fn a_folder_with_an_init_file_is_the_script() {
    let lines = in_service(&[
        ("src/Main/init.server.luau", ""),
        ("src/Main/Part.luau", ""),
        ("src/Main/Deep/init.lua", ""),
        ("src/Main/Deep/Leaf.luau", ""),
    ]);
    assert_eq!(
        lines[2..],
        [
            "    Main: Script",
            "      Deep: ModuleScript",
            "        Leaf: ModuleScript",
            "      Part: ModuleScript",
        ]
    );
    let two = problem(&[
        ("default.project.json", GAME),
        ("src/Main/init.server.luau", ""),
        ("src/Main/init.luau", ""),
    ]);
    assert_eq!(two, "GAME/src/Main: has more than one init file; a folder is one script");
}

#[test]
fn meta_files_add_to_what_is_beside_them() {
    let lines = in_service(&[
        ("src/A.server.luau", ""),
        ("src/A.meta.json", r#"{ "properties": { "Enabled": false }, /* why */ }"#),
        ("src/Remotes/init.meta.json", r#"{ "className": "Configuration" }"#),
        ("src/B.luau", ""),
        ("src/B.meta.json", r#"{ "attributes": { "Version": 2 } }"#),
    ]);
    assert_eq!(
        lines[2..],
        ["    A: Script {\"Enabled\":false}", "    B: ModuleScript", "    Remotes: Configuration"]
    );
    let wrong = problem(&[
        ("default.project.json", GAME),
        ("src/A/init.luau", ""),
        ("src/A/init.meta.json", r#"{ "className": "Model" }"#),
    ]);
    assert!(wrong.contains("className is Model, but the instance is a ModuleScript"), "{wrong}");
}

#[test]
fn models_describe_instances_with_their_children() {
    let lines = in_service(&[(
        "src/Remotes.model.json",
        r#"{ "className": "Folder", "children": [
            { "name": "Buy", "className": "RemoteEvent" },
            { "Name": "Old", "ClassName": "IntValue", "Properties": { "Value": 3 } } ] }"#,
    )]);
    assert_eq!(
        lines[2..],
        ["    Remotes: Folder", "      Buy: RemoteEvent", "      Old: IntValue {\"Value\":3}"]
    );
}

#[test]
fn projects_in_folders_are_read_as_projects_and_package_links_as_files() {
    let lines = tree(&[
        (
            "default.project.json",
            r#"{ "name": "Game", "tree": { "$className": "DataModel",
                "ReplicatedStorage": { "Packages": { "$path": "Packages" },
                    "Maybe": { "$path": { "optional": "nowhere" } } },
                "StarterPlayer": { "StarterPlayerScripts": { "$path": "client" } } } }"#,
        ),
        ("client/Main.client.luau", ""),
        ("Packages/Signal.lua", "return require(script.Parent._Index[\"a_signal@1.0.0\"].signal)"),
        (
            "Packages/_Index/a_signal@1.0.0/signal/default.project.json",
            r#"{ "name": "signal", "tree": { "$path": "src" }, "globIgnorePaths": ["**/*.spec.lua"] }"#,
        ),
        ("Packages/_Index/a_signal@1.0.0/signal/src/init.lua", "return {}"),
        ("Packages/_Index/a_signal@1.0.0/signal/src/init.spec.lua", ""),
        ("Packages/_Index/a_signal@1.0.0/signal/wally.toml", ""),
    ]);
    assert_eq!(
        lines,
        [
            "Game: DataModel",
            "  ReplicatedStorage: ReplicatedStorage",
            "    Packages: Folder",
            "      Signal: ModuleScript",
            "      _Index: Folder",
            "        a_signal@1.0.0: Folder",
            "          signal: ModuleScript",
            "  StarterPlayer: StarterPlayer",
            "    StarterPlayerScripts: StarterPlayerScripts",
            "      Main: LocalScript",
        ]
    );
}

#[test]
fn scripts_say_their_run_context_where_the_project_wants_that() {
    let lines = tree(&[
        (
            "default.project.json",
            r#"{ "name": "Game", "emitLegacyScripts": false, "tree": { "$className": "DataModel",
                "ReplicatedStorage": { "$path": "src" } } }"#,
        ),
        ("src/A.server.luau", ""),
        ("src/B.client.luau", ""),
        ("src/C.legacy.luau", ""),
    ]);
    assert_eq!(
        lines[2..],
        [
            "    A: Script {\"RunContext\":\"Server\"}",
            "    B: Script {\"RunContext\":\"Client\"}",
            "    C: Script",
        ]
    );
}

#[test]
fn properties_of_the_project_come_last() {
    let lines = tree(&[(
        "default.project.json",
        r#"{ "tree": { "$className": "DataModel", "Workspace": {
                "$properties": { "Gravity": 50 },
                "Spawn": { "$className": "Part", "$properties": { "Size": [1, 2, 3] } } } } }"#,
    )]);
    assert_eq!(
        lines[1..],
        ["  Workspace: Workspace {\"Gravity\":50}", "    Spawn: Part {\"Size\":[1,2,3]}",]
    );
}

#[test]
fn scripts_whose_text_is_a_property_have_it() {
    let project = r#"{ "tree": { "$className": "DataModel", "ServerScriptService": {
        "Main": { "$className": "Script", "$properties": { "Source": "print(1)" } },
        "Models": { "$path": "src" } } } }"#;
    let model = r#"{ "className": "Folder", "children": [
        { "name": "M", "className": "ModuleScript",
          "properties": { "Source": { "String": "return 2" } } },
        { "name": "M", "className": "ModuleScript", "properties": { "Source": "return 3" } }] }"#;
    let folder = folder(&[("default.project.json", project), ("src/Set.model.json", model)]);
    let tree = Tree::read(folder.path()).expect("a tree");
    let sources: Vec<_> = tree.sources.iter().map(|(name, text)| (&**name, &**text)).collect();
    assert_eq!(
        sources,
        [
            ("ServerScriptService.Main", "print(1)"),
            ("ServerScriptService.Models.Set.M", "return 2"),
            ("ServerScriptService.Models.Set.M#2", "return 3"),
        ]
    );
    let main = &tree.root.children[0].children[0];
    assert_eq!(main.source.as_deref(), Some("ServerScriptService.Main"));
    assert!(main.properties.is_empty(), "{main:?}");
}

/// It was called `.`, in a line of 200 characters.
#[test]
fn a_folder_without_a_project_is_named_by_its_own_name() {
    // The tests run in the folder of their package.
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).file_name().expect("a name");
    let begin = format!("{}: has no default.project.json", package.to_string_lossy());
    for path in [".", "src/.."] {
        let problem = Tree::read(Path::new(path)).expect_err("no project").to_string();
        assert!(problem.starts_with(&begin), "{path}: {problem}");
        assert!(problem.len() < 150 + begin.len(), "{problem}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_file_and_what_to_do() {
    for (files, what) in [
        (
            vec![("README.md", "")],
            "GAME: has no default.project.json; run a script alone, or write one",
        ),
        (vec![("README.md", "")], "or write one. The smallest is {\"tree\": {"),
        (vec![("place.project.json", "{}")], "name one of these instead: GAME/place.project.json"),
        (
            vec![("default.project.json", "{ \"tree\" }")],
            "GAME/default.project.json: is no valid JSON",
        ),
        (vec![("default.project.json", "{}")], "missing field `tree`"),
        (vec![("default.project.json", "")], "it is no object with a \"tree\""),
        (vec![("default.project.json", "[]")], "it is no object with a \"tree\""),
        (
            vec![("default.project.json", GAME)],
            "tree.ServerScriptService: $path is \"src\", but GAME/src is not there",
        ),
        (
            vec![(
                "default.project.json",
                r#"{ "tree": { "$className": "DataModel",
                    "ReplicatedStorage": { "P": { "$path": "Packages" } } } }"#,
            )],
            "wally install",
        ),
        (
            vec![(
                "default.project.json",
                r#"{ "tree": { "$className": "DataModel", "Serverscriptservice": {} } }"#,
            )],
            "tree.Serverscriptservice has neither $className nor $path",
        ),
        (
            vec![(
                "default.project.json",
                r#"{ "tree": { "$className": "DataModel", "Workspace": { "$pth": "src" } } }"#,
            )],
            "tree.Workspace.$pth is nothing that a project file may say",
        ),
        (
            vec![("default.project.json", GAME), ("src/a.json", "[1")],
            "GAME/src/a.json: is no valid JSON",
        ),
        (
            vec![("default.project.json", GAME), ("src/a.toml", "x =")],
            "GAME/src/a.toml: is no valid TOML",
        ),
    ] {
        let problem = problem(&files);
        assert!(problem.contains(what), "{what}: {problem}");
    }
}

#[test]
fn what_is_left_out_is_said() {
    let folder =
        folder(&[("default.project.json", GAME), ("src/Map.yaml", ""), ("src/Words.csv", "")]);
    let tree = Tree::read(folder.path()).expect("a tree");
    assert_eq!(tree.warnings().len(), 2, "{:?}", tree.warnings());
    assert!(tree.warnings()[0].contains("Map.yaml: a YAML module is not read"));
}

#[cfg(unix)]
#[test]
fn a_link_that_leads_back_is_no_end_of_folders() {
    let folder = folder(&[("default.project.json", GAME), ("src/A.luau", "")]);
    std::os::unix::fs::symlink(folder.path().join("src"), folder.path().join("src/again"))
        .expect("a link");
    let error = Tree::read(folder.path()).expect_err("a problem").to_string();
    assert!(error.contains("link"), "{error}");
}

#[test]
fn what_nests_too_deep_is_refused_and_overflows_no_stack() {
    let too_deep = "nest more than 200 deep";
    let folder = folder(&[("default.project.json", GAME)]);
    let deep = (0..=MAX_DEPTH).fold(folder.path().join("src"), |path, _| path.join("a"));
    fs::create_dir_all(deep).expect("folders");
    let error = Tree::read(folder.path()).expect_err("a problem").to_string();
    assert!(error.contains(too_deep), "{error}");
    // Nodes of a project file; JSON itself ends at 512.
    let nested = |open: &str, times: usize, close: &str| {
        format!("{}{}", open.repeat(times), close.repeat(times))
    };
    let inner = nested(r#"{ "$className": "Folder", "a": "#, 250, "}");
    let inner = inner.replacen("}", "{ \"$className\": \"Folder\" }}", 1);
    let project = format!(r#"{{ "tree": {inner} }}"#);
    assert!(problem(&[("default.project.json", &project)]).contains(too_deep));
    // Within a model.
    let model = nested(r#"{ "className": "Folder", "children": ["#, 210, "]}");
    let problem_of = problem(&[("default.project.json", GAME), ("src/M.model.json", &model)]);
    assert!(problem_of.contains(too_deep), "{problem_of}");
}

#[test]
fn a_project_that_names_itself_is_no_endless_tree() {
    let itself = r#"{ "tree": { "$path": "default.project.json" } }"#;
    assert!(problem(&[("default.project.json", itself)]).contains("is named by itself"));
}

#[test]
fn a_toml_file_that_is_wrong_is_not_printed_whole() {
    let wrong = format!("good = 1\na = {}", "[".repeat(100_000));
    let problem = problem(&[("default.project.json", GAME), ("src/T.toml", &wrong)]);
    assert!(problem.starts_with("GAME/src/T.toml: is no valid TOML: line 2: "), "{problem}");
    assert!(problem.len() < 300, "{} bytes", problem.len());
}

#[test]
fn data_files_become_modules_that_return_what_they_hold() {
    let lua = mlua::Lua::new();
    let text =
        modules::of_json(&json!({ "a b": [1, 2.5, null, "x\n\"y\"\\"], "end": { "z": true } }));
    let table: mlua::Table = lua.load(text).eval().expect("a table");
    let list: mlua::Table = table.get("a b").expect("a list");
    assert_eq!(list.get::<f64>(2).expect("a number"), 2.5);
    assert_eq!(list.get::<String>(4).expect("a text"), "x\n\"y\"\\");
    assert!(table.get::<mlua::Table>("end").expect("a table").get::<bool>("z").expect("a flag"));
    let text = modules::of_toml(&"a = 1\n[b]\nc = [2026-01-01]".parse().expect("TOML"));
    let table: mlua::Table = lua.load(text).eval().expect("a table");
    let times: mlua::Table = table.get::<mlua::Table>("b").expect("b").get("c").expect("c");
    assert_eq!(times.get::<String>(1).expect("a text"), "2026-01-01");
}

#[test]
fn aliases_of_the_nearest_file_count() {
    let folder = folder(&[
        ("default.project.json", GAME),
        (".luaurc", r#"{ "aliases": { "Shared": "src/shared", "top": "." }, }"#),
        ("src/A.luau", ""),
        ("src/deep/.luaurc", r#"{ "aliases": { "shared": "./mine" } }"#),
        ("src/deep/B.luau", ""),
    ]);
    let tree = Tree::read(folder.path()).expect("a tree");
    let meaning = |script: &str, alias: &str| {
        let aliases = &tree.aliases[&shown(&folder.path().join(script))];
        aliases[alias].clone()
    };
    let path = |name: &str| shown(&folder.path().join(name));
    assert_eq!(meaning("src/A.luau", "shared"), path("src/shared"));
    assert_eq!(meaning("src/deep/B.luau", "shared"), path("src/deep/mine"));
    assert_eq!(meaning("src/deep/B.luau", "top"), path(""));
}

#[test]
fn tests_of_installed_packages_are_not_the_games() {
    let folder = folder(&[
        ("default.project.json", GAME),
        ("src/A.spec.luau", ""),
        ("src/Packages/P/init.spec.luau", ""),
        ("src/Packages/Q.spec.luau", ""),
    ]);
    let tree = Tree::read(folder.path()).expect("a tree");
    assert_eq!(tree.specs(), [shown(&folder.path().join("src/A.spec.luau"))]);
}

/// A script with one was a syntax error, and a project file no JSON.
#[test]
fn a_byte_order_mark_is_skipped() {
    let game = format!("\u{feff}{GAME}");
    let folder = folder(&[
        ("default.project.json", game.as_str()),
        ("src/A.server.luau", "\u{feff}print(1)"),
    ]);
    let tree = Tree::read(folder.path()).expect("a tree");
    assert_eq!(tree.sources[&shown(&folder.path().join("src/A.server.luau"))], "print(1)");
}

#[test]
fn paths_are_shown_clean() {
    for (path, clean) in
        [("./a/./b", "a/b"), ("a/../b", "b"), ("../a", "../a"), (".", "."), ("/a/b", "/a/b")]
    {
        assert_eq!(shown(Path::new(path)), clean);
    }
}
