//! Files made by the crates that Rojo's authors write them with.

use std::path::PathBuf;

use rbx_dom_weak::{
    InstanceBuilder,
    types::{
        Attributes, CFrame, Enum, EnumItem, Matrix3, NumberSequence, NumberSequenceKeypoint, Tags,
        Vector3,
    },
};
use tempfile::TempDir;

use super::*;

/// A file with these instances, in the form that its name's ending says.
fn file(name: &str, roots: Vec<InstanceBuilder>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    let dom = WeakDom::new(InstanceBuilder::new("DataModel").with_children(roots));
    let mut bytes = Vec::new();
    if name.ends_with('x') {
        rbx_xml::to_writer_default(&mut bytes, &dom, dom.root().children()).expect("XML");
    } else {
        rbx_binary::to_writer(&mut bytes, &dom, dom.root().children()).expect("a binary file");
    }
    fs::write(&path, bytes).expect("a file");
    (folder, path)
}

fn script(class: &str, name: &str, text: &str) -> InstanceBuilder {
    InstanceBuilder::new(class).with_name(name).with_property("Source", text)
}

fn lines_of(node: &Node, depth: usize, lines: &mut Vec<String>) {
    let json = |values| serde_json::to_string(values).expect("JSON");
    let mut line = format!("{}{}: {}", "  ".repeat(depth), node.name, node.class);
    for values in [&node.properties, &node.attributes] {
        if !values.is_empty() {
            line = format!("{line} {}", json(values));
        }
    }
    if let Some(source) = &node.source {
        line = format!("{line} = {source}");
    }
    lines.push(line);
    for child in &node.children {
        lines_of(child, depth + 1, lines);
    }
}

fn read_place(path: &Path) -> (Vec<String>, Sources) {
    let (mut lines, mut sources) = (Vec::new(), Sources::new());
    let node = place(path, &mut sources).expect("a place");
    lines_of(&node, 0, &mut lines);
    (lines, sources)
}

#[test]
fn both_forms_of_a_place_give_its_instances_with_what_is_not_as_usual() {
    for name in ["game.rbxl", "game.rbxlx"] {
        let attributes = Attributes::new()
            .with("Coins", 5.0_f64)
            .with("Title", "Five")
            .with("RBX_Own", true)
            .with("Kind", EnumItem { ty: "Material".into(), value: 256 });
        let part = InstanceBuilder::new("Part")
            .with_property("Anchored", true)
            .with_property("CanCollide", true)
            .with_property("Transparency", 0.5_f32)
            .with_property("Material", Enum::from_u32(288))
            .with_property("Attributes", attributes)
            .with_property("Tags", Tags::from(vec!["A".to_owned(), "B".to_owned()]));
        let (_folder, path) = file(
            name,
            vec![
                InstanceBuilder::new("Workspace").with_child(part),
                InstanceBuilder::new("ServerScriptService")
                    .with_child(script("Script", "Main", "print(1)").with_child(script(
                        "ModuleScript",
                        "Part.of",
                        "return 2",
                    )))
                    .with_child(script("ModuleScript", "Twin", "return 3"))
                    .with_child(script("ModuleScript", "Twin", "return 4")),
            ],
        );
        let (lines, sources) = read_place(&path);
        assert_eq!(
            lines,
            [
                "Game: DataModel",
                "  Workspace: Workspace",
                "    Part: Part {\"Anchored\":true,\"Material\":288,\"Tags\":[\"A\",\"B\"],\
                 \"Transparency\":0.5} \
                 {\"Coins\":5.0,\"Kind\":{\"EnumItem\":{\"type\":\"Material\",\"value\":256}},\
                 \"Title\":\"Five\"}",
                "  ServerScriptService: ServerScriptService",
                "    Main: Script = ServerScriptService.Main",
                "      Part.of: ModuleScript = ServerScriptService.Main.Part.of",
                "    Twin: ModuleScript = ServerScriptService.Twin",
                "    Twin: ModuleScript = ServerScriptService.Twin#2",
            ],
            "{name}"
        );
        assert_eq!(sources["ServerScriptService.Twin#2"], "return 4", "{name}");
    }
}

#[test]
fn properties_name_other_instances_of_the_place() {
    let target = InstanceBuilder::new("Part");
    let value = InstanceBuilder::new("ObjectValue").with_property("Value", target.referent());
    let (_folder, path) = file("game.rbxl", vec![target, value]);
    let node = place(&path, &mut Sources::new()).expect("a place");
    let [target, value] = &node.children[..] else { panic!("{node:?}") };
    let named = target.referent.as_deref().expect("a name");
    assert_eq!(value.properties["Value"], json!({ "Ref": named }));
    assert_eq!(value.referent, None);
}

#[test]
fn values_of_every_kind_are_written_as_projects_write_them() {
    let frame = CFrame::new(Vector3::new(1.0, 2.0, 3.0), Matrix3::identity());
    let points = [0.0, 1.0].map(|time| NumberSequenceKeypoint::new(time, 2.0, 0.0)).to_vec();
    for (value, json) in [
        (
            Variant::from(frame),
            json!({ "CFrame": [1.0, 2.0, 3.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0] }),
        ),
        (Variant::Float64(f64::INFINITY), json!({ "Number": "inf" })),
        (Variant::Float32(f32::NAN), json!({ "Number": "NaN" })),
        (Variant::Int64(i64::MAX), json!(i64::MAX)),
        (
            Variant::from(NumberSequence { keypoints: points }),
            json!({ "NumberSequence": [[0.0, 2.0, 0.0], [1.0, 2.0, 0.0]] }),
        ),
        (
            Variant::from(Font::regular("rbxasset://a.json")),
            json!({ "Font": { "family": "rbxasset://a.json", "weight": 400, "style": 0 } }),
        ),
    ] {
        assert_eq!(value_of(&value), Some(json), "{value:?}");
    }
    for value in [
        Variant::Vector3(Vector3::new(f32::NAN, 0.0, 0.0)),
        Variant::Ref(Ref::none()),
        Variant::BinaryString(vec![0xff].into()),
    ] {
        assert_eq!(value_of(&value), None, "{value:?}");
    }
}

#[test]
fn a_model_holds_one_instance() {
    let module = || script("ModuleScript", "Lib", "return 1");
    let inner = module().with_child(script("ModuleScript", "Inner", "return 2"));
    let (_folder, path) = file("lib.rbxmx", vec![inner]);
    let mut sources = Sources::new();
    let node = model(&path, &mut sources).expect("a model");
    let called = shown(&path);
    assert_eq!((&*node.name, node.source.as_deref()), ("Lib", Some(&*called)));
    assert_eq!(sources[&format!("{called}.Inner")], "return 2");
    let (_folder, path) = file("lib.rbxm", vec![module(), module()]);
    let problem = model(&path, &mut sources).expect_err("two instances").to_string();
    assert!(problem.contains("has 2 instances at its top"), "{problem}");
}

#[test]
fn a_place_that_was_cut_off_anywhere_is_refused() {
    for name in ["game.rbxl", "game.rbxlx"] {
        let service = InstanceBuilder::new("ServerScriptService");
        let (_folder, path) =
            file(name, vec![service.with_child(script("Script", "Main", "print(1)"))]);
        let whole = fs::read(&path).expect("the file");
        // White space may follow the last tag.
        let end = whole.trim_ascii_end().len();
        for length in 0..end {
            fs::write(&path, &whole[..length]).expect("a file");
            assert!(place(&path, &mut Sources::new()).is_err(), "{name}: {length} of {end}");
        }
    }
}

#[test]
fn what_is_no_place_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("game.rbxl");
    let cut = b"<roblox!\x89\xff\r\n\x1a\n";
    for bytes in [&b""[..], b"version https://git-lfs", b"<roblox!", b"<roblox>", cut] {
        fs::write(&path, bytes).expect("a file");
        let problem = place(&path, &mut Sources::new()).expect_err("no place").to_string();
        assert!(problem.contains("is no place or model file"), "{problem}");
    }
}

/// `line 1, column 0: 1:1 Unexpected characters outside the root element: n` was said of a text.
#[test]
fn what_is_no_xml_is_not_judged_as_xml_and_an_error_of_xml_has_one_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("game.rbxl");
    for (bytes, what) in [
        (&b""[..], "Studio: it is empty"),
        (b"not a place\n", "Studio: it does not begin with `<roblox`"),
        (b"\x00\x01\x02", "Studio: it does not begin with `<roblox`"),
        (b"<roblox version=\"4\"><Item", "Studio: its end is missing"),
        (b"<roblox version=\"4\">\n<Item a=1></Item></roblox>", "Studio: line 2, column "),
    ] {
        fs::write(&path, bytes).expect("a file");
        let problem = place(&path, &mut Sources::new()).expect_err("no place").to_string();
        assert!(problem.contains(what), "{what}: {problem}");
        assert!(problem.matches("line ").count() <= 1, "{problem}");
    }
    assert_eq!(in_xml("line 1, column 0: 1:6 Bad tag: <"), "line 1, column 6: Bad tag: <");
    let other = "line 1, column 68: invalid digit found in string";
    assert_eq!(in_xml(other), other);
    // What stands before the first tag in XML may be there.
    let text = b"\xef\xbb\xbf\n<roblox version=\"4\"></roblox>";
    fs::write(&path, text).expect("a file");
    assert!(place(&path, &mut Sources::new()).is_ok());
}

/// A text in XML with so many instances, each in the one before.
fn nested_xml(levels: usize) -> String {
    let open = "<Item class=\"Folder\" referent=\"R\">";
    let properties = "<Properties><string name=\"Name\"><![CDATA[</Item>]]></string></Properties>";
    let (open, close) = (format!("{open}{properties}").repeat(levels), "</Item>".repeat(levels));
    format!("<roblox version=\"4\"><!-- </Item> -->{open}{close}</roblox>")
}

#[test]
fn a_file_that_nests_too_deep_is_refused_and_overflows_no_stack() {
    let nested = |levels: usize| {
        (1..levels).fold(InstanceBuilder::new("Folder"), |inner, _| {
            InstanceBuilder::new("Folder").with_child(inner)
        })
    };
    let refused = |path: &Path| {
        let problem = place(path, &mut Sources::new()).expect_err("too deep").to_string();
        assert!(problem.contains("nest more than 200 deep"), "{problem}");
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("deep.rbxlx");
    for levels in [MAX_DEPTH + 1, 100_000] {
        fs::write(&path, nested_xml(levels)).expect("a file");
        refused(&path);
    }
    let (_folder, binary) = file("deep.rbxl", vec![nested(MAX_DEPTH + 1)]);
    refused(&binary);
    // What is within the limit is read, in either form.
    fs::write(&path, nested_xml(MAX_DEPTH)).expect("a file");
    let (_folder, binary) = file("deep.rbxl", vec![nested(MAX_DEPTH)]);
    for path in [path, binary] {
        assert_eq!(place(&path, &mut Sources::new()).expect("a place").depth(), MAX_DEPTH);
    }
}
