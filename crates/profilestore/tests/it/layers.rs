//! The layers of the library: a file imports only from its own layer and from those below it, and
//! no files import each other in a circle.
//!
//! Read are the `use` lines and the paths that begin with `crate::` or `super::`. What a module
//! hands on (`pub use`) and what only tests use does not count. This prints the numbers and every
//! import: `cargo test -p profilestore --all-features --test it layers -- --nocapture`
//!
//! It needs nothing but this file, so it also reads another checkout, such as an earlier commit:
//!
//! ```sh
//! CARGO_MANIFEST_DIR=/path/of/crates/profilestore rustc --edition 2024 --test -o /tmp/layers \
//!   crates/profilestore/tests/it/layers.rs && /tmp/layers every_file --nocapture
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// From the ground up: a layer's name, and the files and folders in it. Of several entries that fit
/// a file the longest counts.
const LAYERS: &[(&str, &[&str])] = &[
    (
        "ground",
        &[
            "defects.rs",
            "key.rs",
            "env.rs",
            "settings.rs",
            "signal.rs",
            "reconcile.rs",
            "telemetry.rs",
            "storable/",
        ],
    ),
    (
        "contract",
        &[
            "data_store/mod.rs",
            "data_store/commit.rs",
            "data_store/held.rs",
            "data_store/message.rs",
            "data_store/content.rs",
            "data_store/checksum.rs",
            "data_store/links.rs",
            "data_store/upkeep.rs",
            "data_store/rules.rs",
            "data_store/rules/",
        ],
    ),
    ("words", &["error.rs", "record/", "migration.rs", "data.rs", "audit/", "filter/"]),
    ("backends", &["data_store/", "messenger/"]),
    ("ownership", &["ownership/"]),
    ("edit", &["edit/"]),
    ("link", &["link/"]),
    ("session", &["session/"]),
    ("engine", &["engine/"]),
    ("api", &["api/"]),
    (
        "extras",
        &["document/", "hosting/", "roblox/", "profile_service/", "testing.rs", "transfer/"],
    ),
];

#[test]
fn every_file_imports_only_its_own_layer_and_those_below() {
    let house = House::read();
    let up = house.up();
    for (from, to) in house.imports() {
        let mark = if up.contains(&(from, to)) { " (up)" } else { "" };
        println!("{} -> {}{mark}", house.files[from], house.files[to]);
    }
    let circles = house.in_circles();
    let all = house.imports().count();
    println!("files in circles: {}, imports up: {}, imports: {all}", circles.len(), up.len());

    let strange = house.imported.keys().map(|file| &house.files[*file]);
    let mut wrong: Vec<String> = strange
        .filter(|file| layer_of(file).is_none())
        .map(|file| format!("{file} belongs to no layer: enter it in LAYERS"))
        .collect();
    for (from, to) in &up {
        let [from, to] = [from, to].map(|file| &house.files[*file]);
        let [below, above] =
            [from, to].map(|file| layer_of(file).map_or("none", |at| LAYERS[at].0));
        wrong.push(format!("{from} ({below}) imports {to}, which stands above it ({above})"));
    }
    for file in &circles {
        let file = &house.files[*file];
        wrong.push(format!(
            "{file} imports a file that imports it, directly or not: {}",
            house.way_back(file)
        ));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_the_rules_of_ownership_decide_whether_an_epoch_is_raised() {
    let house = House::read();
    let others = house
        .files
        .iter()
        .filter(|file| !file.starts_with("data_store/") && !file.starts_with("ownership/"));
    for file in others {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file))
            .unwrap();
        let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
        assert!(
            !code.contains("raise_epoch"),
            "{file} names raise_epoch: let ownership/changes.rs make the change"
        );
    }
}

#[test]
fn the_root_has_as_many_names_as_its_decision_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = fs::read_to_string(folder.join("src/lib.rs")).unwrap();
    // The modules that are written out in it come behind its own names.
    let own = root.split("pub mod operator {").next().unwrap_or_default();
    let names = names_shown(own).into_keys().filter(|name| name != "Defect").count();
    let page = fs::read_to_string(folder.join("../../docs/decisions/engineering.md")).unwrap();
    let says = format!("{names} names with the default features");
    assert!(names <= 40 && page.contains(&says), "docs/decisions/engineering.md, not: {says}");
}

#[test]
fn the_reader_of_imports_sees_groups_paths_in_code_and_no_tests() {
    let text = "
//! See [`crate::engine`].
use std::fmt;
use super::{Session, live::{Draft, Live}};
pub use inner::Shown;
fn f() { crate::data::encode(); } // crate::store
#[cfg(test)]
mod tests {
    use crate::env::Env;
}
";
    let found = paths_in(text);
    let paths = [
        "crate::data::encode",
        "std::fmt",
        "super::Session",
        "super::live::Draft",
        "super::live::Live",
    ];
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), paths);
}

/// The files of the library, and which imports which.
struct House {
    /// Paths below `src`.
    files: Vec<String>,
    imported: BTreeMap<usize, BTreeSet<usize>>,
}

impl House {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        walk(&root, "", &mut files);
        files.retain(|file| !file.ends_with("tests.rs"));
        files.sort();
        let texts: Vec<String> =
            files.iter().map(|file| fs::read_to_string(root.join(file)).unwrap()).collect();
        let modules: BTreeMap<String, usize> =
            files.iter().enumerate().map(|(at, file)| (module_of(file), at)).collect();
        let top = files.iter().position(|file| file == "lib.rs").expect("a library has a root");
        let shown = names_shown(&texts[top]);
        let mut imported = BTreeMap::new();
        for (at, text) in texts.iter().enumerate().filter(|(at, _)| *at != top) {
            let module = module_of(&files[at]);
            let found: BTreeSet<usize> = paths_in(text)
                .iter()
                .filter_map(|path| absolute(path, &module, text))
                .filter_map(|path| file_of(&path, &modules, &shown))
                .filter(|to| *to != at && *to != top)
                .collect();
            imported.insert(at, found);
        }
        Self { files, imported }
    }

    fn imports(&self) -> impl Iterator<Item = (usize, usize)> {
        self.imported.iter().flat_map(|(from, tos)| tos.iter().map(|to| (*from, *to)))
    }

    fn up(&self) -> BTreeSet<(usize, usize)> {
        let layer = |file: usize| layer_of(&self.files[file]);
        let is_up = |from, to| layer(from).zip(layer(to)).is_some_and(|(from, to)| from < to);
        self.imports().filter(|(from, to)| is_up(*from, *to)).collect()
    }

    fn reached_from(&self, file: usize) -> BTreeMap<usize, usize> {
        let mut came_from = BTreeMap::new();
        let mut open = vec![file];
        while let Some(at) = open.pop() {
            for to in &self.imported[&at] {
                if !came_from.contains_key(to) {
                    came_from.insert(*to, at);
                    open.push(*to);
                }
            }
        }
        came_from
    }

    fn in_circles(&self) -> Vec<usize> {
        self.imported
            .keys()
            .copied()
            .filter(|file| self.reached_from(*file).contains_key(file))
            .collect()
    }

    /// A circle through a file.
    fn way_back(&self, file: &str) -> String {
        let file = self.files.iter().position(|other| other == file).unwrap();
        let came_from = self.reached_from(file);
        let mut way = vec![self.files[file].as_str()];
        let mut at = came_from[&file];
        while at != file {
            way.push(&self.files[at]);
            at = came_from[&at];
        }
        way.push(&self.files[file]);
        way.reverse();
        way.join(" -> ")
    }
}

fn walk(root: &Path, below: &str, files: &mut Vec<String>) {
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{below}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            walk(root, &format!("{name}/"), files);
        } else if name.ends_with(".rs") {
            files.push(name);
        }
    }
}

fn layer_of(file: &str) -> Option<usize> {
    let fits = |entry: &&str| file == *entry || (entry.ends_with('/') && file.starts_with(entry));
    let entries = LAYERS
        .iter()
        .enumerate()
        .flat_map(|(at, (_, entries))| entries.iter().map(move |entry| (at, entry)));
    entries.filter(|(_, entry)| fits(entry)).max_by_key(|(_, entry)| entry.len()).map(|(at, _)| at)
}

/// `a/b.rs` and `a/b/mod.rs` are `crate::a::b`.
fn module_of(file: &str) -> String {
    let stem = file.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
    if stem == "lib" { "crate".to_owned() } else { format!("crate::{stem}") }
}

/// All paths that a file uses, each from its beginning, groups taken apart.
fn paths_in(text: &str) -> BTreeSet<String> {
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        // Tests come last in a file.
        if line == "#[cfg(test)]"
            && lines.peek().is_some_and(|next| next.starts_with("mod ") && next.ends_with('{'))
        {
            break;
        }
        code.push_str(line.split("//").next().unwrap_or_default());
        code.push(' ');
    }
    let mut paths = BTreeSet::new();
    let mut rest = String::new();
    for statement in code.split_inclusive([';', '}']) {
        rest.push_str(statement);
        let Some(start) = rest.find("use ").filter(|start| begins_an_item(&rest[..*start])) else {
            inline(&std::mem::take(&mut rest), &mut paths);
            continue;
        };
        if !rest.trim_end().ends_with(';') {
            continue;
        }
        if !is_public(&rest[..start]) {
            let tree = rest[start + 4..].trim().trim_end_matches(';').to_owned();
            take_apart("", &tree, &mut paths);
        }
        inline(&rest[..start], &mut paths);
        rest.clear();
    }
    paths
}

/// Whether an item may begin after this text.
fn begins_an_item(before: &str) -> bool {
    let before = before.trim_end();
    before.is_empty() || before.ends_with([';', '}', '{', ']', ')']) || is_public(before)
}

/// Whether the item that follows is seen outside of its module.
fn is_public(before: &str) -> bool {
    ["pub", "pub(crate)", "pub(super)"].iter().any(|public| before.trim_end().ends_with(public))
}

fn take_apart(before: &str, tree: &str, paths: &mut BTreeSet<String>) {
    let Some((head, group)) = tree.split_once('{') else {
        let name = tree.split(" as ").next().unwrap_or_default().trim();
        paths.insert(format!("{before}{name}").replace(' ', ""));
        return;
    };
    let group = group.trim().trim_end_matches('}');
    let group =
        &tree[tree.find('{').unwrap() + 1..tree.rfind('}').unwrap_or(tree.len() - group.len())];
    let (mut depth, mut part) = (0, String::new());
    for letter in group.chars().chain([',']) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = std::mem::take(&mut part);
                if !part.trim().is_empty() {
                    take_apart(&format!("{before}{}", head.trim()), part.trim(), paths);
                }
                continue;
            }
            _ => {}
        }
        part.push(letter);
    }
}

/// The paths in code that begin with `crate::` or `super::`.
fn inline(code: &str, paths: &mut BTreeSet<String>) {
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            let inside = code[..at].chars().next_back();
            if inside.is_some_and(|letter| letter.is_alphanumeric() || "_:`".contains(letter)) {
                continue;
            }
            let path: String = code[at..]
                .chars()
                .take_while(|letter| letter.is_alphanumeric() || "_:".contains(*letter))
                .collect();
            paths.insert(path.trim_end_matches(':').to_owned());
        }
    }
}

/// The path from the crate's root. None for one of another crate.
fn absolute(path: &str, module: &str, text: &str) -> Option<String> {
    let mut module = module.to_owned();
    let mut path = path;
    while let Some(rest) = path.strip_prefix("super::") {
        module = module.rsplit_once("::")?.0.to_owned();
        path = rest;
        if !path.starts_with("super::") {
            return Some(format!("{module}::{path}"));
        }
    }
    if let Some(rest) = path.strip_prefix("crate::") {
        return Some(format!("crate::{rest}"));
    }
    let path = path.strip_prefix("self::").unwrap_or(path);
    let first = path.split("::").next()?;
    text.lines()
        .any(|line| line.trim_end_matches(';').ends_with(&format!("mod {first}")))
        .then(|| format!("{module}::{path}"))
}

/// The file of the longest part of a path that is a module.
fn file_of(
    path: &str,
    modules: &BTreeMap<String, usize>,
    shown: &BTreeMap<String, String>,
) -> Option<usize> {
    let name = path.strip_prefix("crate::")?.split("::").next()?;
    let path = shown.get(name).map_or(path, String::as_str);
    let mut path = path;
    loop {
        if let Some(file) = modules.get(path) {
            return Some(*file);
        }
        path = path.rsplit_once("::")?.0;
    }
}

/// What the root hands on, and from where.
fn names_shown(root: &str) -> BTreeMap<String, String> {
    let mut shown = BTreeMap::new();
    for part in root.split("pub use ").skip(1) {
        let mut paths = BTreeSet::new();
        take_apart("", part.split(';').next().unwrap_or_default(), &mut paths);
        for path in paths {
            let name = path.rsplit("::").next().unwrap_or_default().to_owned();
            shown.insert(name, format!("crate::{path}"));
        }
    }
    shown
}
