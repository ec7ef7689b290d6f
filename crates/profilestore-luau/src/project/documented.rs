//! Trees beside what Rojo's documentation says of each part of its format (pages "Project Format"
//! and "Sync Details", version 7). Where the documentation leaves a question open, the answer is
//! that of Rojo 7's own tests of what it builds, which were read and not run.

use super::tests::{problem, tree};

/// A project of one folder, in a place.
const PLACE: &str = r#"{ "name": "Place", "tree": { "$className": "DataModel",
    "ReplicatedStorage": { "$path": "src" } } }"#;

fn below_storage(files: &[(&str, &str)]) -> Vec<String> {
    let all: Vec<_> = [("default.project.json", PLACE)].iter().chain(files).copied().collect();
    tree(&all)[2..].to_vec()
}

/// "`tree`: An Instance Description describing the root instance of the project."
#[test]
fn the_root_may_be_a_model_and_has_the_projects_name() {
    let model = r#"{ "name": "Library", "tree": { "$path": "src" } }"#;
    assert_eq!(
        tree(&[("default.project.json", model), ("src/init.luau", ""), ("src/Part.luau", "")]),
        ["Library: ModuleScript", "  Part: ModuleScript"]
    );
}

/// "All other fields in an Instance Description are turned into instances whose name is the key."
#[test]
fn what_a_path_points_to_has_the_name_of_its_key() {
    let project = r#"{ "name": "P", "tree": { "$className": "Folder",
        "Whole": { "$path": "src/Deep" }, "Init": { "$path": "src/Deep/init.luau" },
        "Text": { "$path": "src/note.txt" }, "Inner": { "$path": "src/inner" } } }"#;
    assert_eq!(
        tree(&[
            ("default.project.json", project),
            ("src/Deep/init.luau", ""),
            ("src/Deep/Leaf.luau", ""),
            ("src/note.txt", "n"),
            ("src/inner/default.project.json", r#"{ "name": "Own", "tree": { "$path": "x" } }"#),
            ("src/inner/x/A.luau", ""),
        ]),
        [
            "P: Folder",
            "  Whole: ModuleScript",
            "    Leaf: ModuleScript",
            "  Init: ModuleScript",
            "  Text: StringValue {\"Value\":\"n\"}",
            "  Inner: Folder",
            "    A: ModuleScript",
        ]
    );
}

/// "If a directory contains a file named `default.project.json`, Rojo will use the contents of the
/// project file instead of anything else in the directory." A project that is found has its own
/// name, or that of its folder or file.
#[test]
fn projects_that_are_found_have_their_own_names() {
    assert_eq!(
        below_storage(&[
            ("src/a/default.project.json", r#"{ "name": "Own", "tree": { "$path": "x" } }"#),
            ("src/a/x/A.luau", ""),
            ("src/a/Other.luau", ""),
            ("src/b/default.project.json", r#"{ "tree": { "$className": "Folder" } }"#),
            ("src/c.project.json", r#"{ "name": "C", "tree": { "$className": "Model" } }"#),
            ("src/d.project.json", r#"{ "tree": { "$className": "IntValue" } }"#),
        ]),
        [
            "    Own: Folder",
            "      A: ModuleScript",
            "    b: Folder",
            "    C: Model",
            "    d: IntValue"
        ]
    );
}

/// The root was called "Project".
#[test]
fn a_root_without_a_name_is_called_as_its_file() {
    let files = [("game/default.project.json", r#"{ "tree": { "$className": "Folder" } }"#)];
    let outer = r#"{ "tree": { "$className": "Folder", "In": { "$path": "game" } } }"#;
    let folder = super::tests::folder(&[files[0], ("outer.project.json", outer)]);
    let name = |path: &str| super::Tree::read(&folder.path().join(path)).expect("a tree").root.name;
    assert_eq!(
        ["game", "game/default.project.json", "game/../game", "outer.project.json"].map(name),
        ["game", "game", "game", "outer"]
    );
}

/// "`globIgnorePaths`: A list of globs of paths to ignore." They are relative to the folder of the
/// project, and hold in the projects in it; those of a project in a folder hold only there.
#[test]
fn ignored_paths_hold_in_the_folder_of_their_project() {
    let outer = r#"{ "name": "Place", "globIgnorePaths": ["**/*.bak.luau", "src/skip"],
        "tree": { "$className": "DataModel", "ReplicatedStorage": { "$path": "src" } } }"#;
    let inner = r#"{ "name": "inner", "globIgnorePaths": ["**/*.spec.luau"],
        "tree": { "$path": "x" } }"#;
    let lines = tree(&[
        ("default.project.json", outer),
        ("src/A.spec.luau", ""),
        ("src/A.bak.luau", ""),
        ("src/skip/A.luau", ""),
        ("src/deep/skip/A.luau", ""),
        ("src/inner/default.project.json", inner),
        ("src/inner/x/B.spec.luau", ""),
        ("src/inner/x/B.bak.luau", ""),
        ("src/inner/x/B.luau", ""),
    ]);
    assert_eq!(
        lines[2..],
        [
            "    A.spec: ModuleScript",
            "    deep: Folder",
            "      skip: Folder",
            "        A: ModuleScript",
            "    inner: Folder",
            "      B: ModuleScript",
        ]
    );
}

/// "`emitLegacyScripts`: Default is `true`." A project in a folder had the setting of the project
/// around it.
#[test]
fn each_project_says_for_itself_how_scripts_say_where_they_run() {
    let outer = r#"{ "name": "Place", "emitLegacyScripts": false,
        "tree": { "$className": "DataModel", "ReplicatedStorage": { "$path": "src" } } }"#;
    let lines = tree(&[
        ("default.project.json", outer),
        ("src/A.client.luau", ""),
        ("src/inner/default.project.json", r#"{ "name": "inner", "tree": { "$path": "x" } }"#),
        ("src/inner/x/B.client.luau", ""),
        ("src/inner/x/C.server.luau", ""),
        ("src/inner/x/D.plugin.luau", ""),
        ("src/z.server.luau", ""),
    ]);
    assert_eq!(
        lines[2..],
        [
            "    A: Script {\"RunContext\":\"Client\"}",
            "    inner: Folder",
            "      B: LocalScript",
            "      C: Script",
            "      D: Script {\"RunContext\":\"Plugin\"}",
            "    z: Script {\"RunContext\":\"Server\"}",
        ]
    );
}

/// "`$className`: Optional if `$path` is specified or if the instance is a Roblox service." A
/// service with an optional path that is not there was left out, with all that the project puts
/// into it.
#[test]
fn a_service_is_there_also_without_its_optional_path() {
    let project = r#"{ "name": "Place", "tree": { "$className": "DataModel",
        "ReplicatedStorage": { "$path": { "optional": "nowhere" }, "Code": { "$path": "src" } },
        "Workspace": { "Terrain": { "$path": { "optional": "nowhere" } },
            "Map": { "$path": { "optional": "nowhere" }, "Lost": { "$path": "src" } },
            "Kept": { "$path": { "optional": "nowhere" }, "$className": "Model" } },
        "StarterPlayer": { "StarterPlayerScripts": {}, "StarterCharacterScripts": {} } } }"#;
    assert_eq!(
        tree(&[("default.project.json", project), ("src/A.luau", "")]),
        [
            "Place: DataModel",
            "  ReplicatedStorage: ReplicatedStorage",
            "    Code: Folder",
            "      A: ModuleScript",
            "  Workspace: Workspace",
            "    Terrain: Terrain",
            "    Kept: Model",
            "  StarterPlayer: StarterPlayer",
            "    StarterPlayerScripts: StarterPlayerScripts",
            "    StarterCharacterScripts: StarterCharacterScripts",
        ]
    );
}

/// "If `$className` and `$path` are both set, `$path` must refer to a Folder", says Rojo's error.
#[test]
fn a_class_and_a_path_of_another_class_are_a_mistake() {
    let project = r#"{ "name": "P", "tree": { "$className": "Folder",
        "A": { "$className": "Configuration", "$path": "a" } } }"#;
    assert_eq!(
        tree(&[("default.project.json", project), ("a/B.luau", "")]),
        ["P: Folder", "  A: Configuration", "    B: ModuleScript"]
    );
    let wrong = problem(&[("default.project.json", project), ("a/init.luau", "")]);
    assert!(wrong.contains("$className is Configuration, but what $path points to"), "{wrong}");
}

/// "The name of the top-level instance in a JSON model is now based on its file name, and the
/// `Name` field is now ignored." Those of its children count; without one a child has the name of
/// its class.
#[test]
fn a_model_has_the_name_of_its_file() {
    assert_eq!(
        below_storage(&[(
            "src/File.model.json",
            r#"{ "Name": "Other", "ClassName": "Folder", "Children": [
                { "Name": "Named", "ClassName": "Part" }, { "ClassName": "RemoteEvent" } ] }"#
        )]),
        ["    File: Folder", "      Named: Part", "      RemoteEvent: RemoteEvent"]
    );
}

/// "`properties`: A map of properties to set on the instance, just like projects"; "`className`:
/// Changes the `className` of a containing `Folder` into something else."
#[test]
fn meta_files_change_what_they_are_beside() {
    assert_eq!(
        below_storage(&[
            ("src/foo.server.lua", ""),
            ("src/foo.meta.json", r#"{ "properties": { "Disabled": true } }"#),
            ("src/hello.txt", "x"),
            ("src/hello.meta.json", r#"{ "ignoreUnknownInstances": true }"#),
            (
                "src/Sword/init.meta.json",
                r#"{ "className": "Tool", "properties": { "Grip": [0] } }"#
            ),
            ("src/Sword/Swing.luau", ""),
            ("src/Mod/init.client.lua", ""),
            ("src/Mod/init.meta.json", r#"{ "properties": { "Disabled": true } }"#),
        ]),
        [
            "    Mod: LocalScript {\"Disabled\":true}",
            "    Sword: Tool {\"Grip\":[0]}",
            "      Swing: ModuleScript",
            "    foo: Script {\"Disabled\":true}",
            "    hello: StringValue {\"Value\":\"x\"}",
        ]
    );
}
