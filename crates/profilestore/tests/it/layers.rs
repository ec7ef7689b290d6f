//! The layers of the library: a file imports only from its own layer and from those below it, and
//! no files import each other in a circle.
//!
//! Read are the `use` lines and the paths that begin with `crate::` or `super::`. A name that a
//! module hands on (`pub use`) is an import of the file in which it stands. What a module hands on
//! of its own parts, and what only tests use, does not count. This prints the numbers and every
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
    for (file, path) in &house.through_the_root {
        let file = &house.files[*file];
        wrong.push(format!("{file} imports {path} from the root: name the file that has it"));
    }
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
        assert!(
            !without_tests(&text).contains("raise_epoch"),
            "{file} names raise_epoch: let ownership/changes.rs make the change"
        );
    }
}

#[test]
fn above_the_backends_only_what_tests_use_names_one() {
    let house = House::read();
    let backends = LAYERS.iter().position(|(name, _)| *name == "backends");
    for (from, to) in house.imports() {
        let [from, to] = [from, to].map(|file| house.files[file].as_str());
        let names_one = layer_of(to) == backends && to != "messenger/mod.rs";
        let is_above = layer_of(from) > backends;
        let for_tests = ["api/mock.rs", "api/overload.rs", "testing.rs"].contains(&from);
        assert!(!names_one || !is_above || for_tests, "{from} imports {to}: take the trait");
    }
}

#[test]
fn the_root_has_as_many_names_as_its_decision_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = fs::read_to_string(folder.join("src/lib.rs")).unwrap();
    // The modules that are written out in it come behind its own names.
    let own = root.split("pub mod operator {").next().unwrap_or_default();
    let names = handed_on(own, "crate").into_keys().filter(|name| name != "Defect").count();
    let mut items = own.lines().filter(|line| line.starts_with("pub "));
    assert!(
        items.all(|line| ["pub use ", "pub mod "].iter().any(|start| line.starts_with(start))),
        "the root of the library only hands on what stands in its modules"
    );
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
pub(crate) use crate::record::Stored as Kept;
fn f() { crate::data::encode(); } // crate::store
#[cfg(test)]
mod tests {
    use crate::env::Env;
}
fn g() { crate::key::behind_the_tests(); }
";
    let found = paths_in(text);
    let paths = [
        "crate::data::encode",
        "crate::key::behind_the_tests",
        "crate::record::Stored",
        "std::fmt",
        "super::Session",
        "super::live::Draft",
        "super::live::Live",
    ];
    assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), paths);
}

#[test]
fn an_import_of_a_name_that_is_handed_on_counts_for_the_file_that_has_it() {
    let texts = [
        ("lib.rs", "mod data_store;\npub use data_store::SqliteStore;"),
        (
            "data_store/mod.rs",
            "mod sqlite;\npub use sqlite::{SqliteStore, limits::MAX as MOST};\npub struct Commit;",
        ),
        ("data_store/sqlite.rs", "pub struct SqliteStore;"),
    ];
    let modules = modules_of(texts.into_iter());
    let found = |path| file_of(path, &modules).map(|file| texts[file].0);
    assert_eq!(found("crate::SqliteStore"), Some("data_store/sqlite.rs"));
    assert_eq!(found("crate::data_store::SqliteStore::open"), Some("data_store/sqlite.rs"));
    assert_eq!(found("crate::data_store::MOST"), Some("data_store/sqlite.rs"));
    assert_eq!(found("crate::data_store::Commit"), Some("data_store/mod.rs"));
    assert_eq!(found("crate::operator::Expected"), Some("lib.rs"));
    assert_eq!(found("std::fmt"), None);
}

/// The files of the library, and which imports which.
struct House {
    /// Paths below `src`.
    files: Vec<String>,
    imported: BTreeMap<usize, BTreeSet<usize>>,
    /// Imports that end at the root, so that the file behind them is not seen.
    through_the_root: Vec<(usize, String)>,
}

/// A file as a module.
struct Module {
    file: usize,
    /// What it hands on, and from where.
    handed_on: BTreeMap<String, String>,
}

impl House {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        walk(&root, "", &mut files);
        files.retain(|file| !["/tests.rs", "_tests.rs"].iter().any(|end| file.ends_with(end)));
        files.sort();
        let texts: Vec<String> =
            files.iter().map(|file| fs::read_to_string(root.join(file)).unwrap()).collect();
        let named = files.iter().zip(&texts).map(|(file, text)| (file.as_str(), text.as_str()));
        let modules = modules_of(named);
        let top = files.iter().position(|file| file == "lib.rs").expect("a library has a root");
        // Macros stand at the root, wherever they are written.
        let is_macro = |path: &str| {
            let name = path.rsplit("::").next().unwrap_or_default();
            texts.iter().any(|text| text.contains(&format!("macro_rules! {name} ")))
        };
        let (mut imported, mut through_the_root) = (BTreeMap::new(), Vec::new());
        for (at, text) in texts.iter().enumerate().filter(|(at, _)| *at != top) {
            let module = module_of(&files[at]);
            let mut found = BTreeSet::new();
            for path in paths_in(text) {
                let Some(path) = absolute(&path, &module, text) else { continue };
                match file_of(&path, &modules) {
                    Some(to) if to == top && !is_macro(&path) => through_the_root.push((at, path)),
                    Some(to) if to != top && to != at => {
                        found.insert(to);
                    }
                    _ => {}
                }
            }
            imported.insert(at, found);
        }
        Self { files, imported, through_the_root }
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

/// A file without its modules of tests.
fn without_tests(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let only_tests = line == "#[cfg(test)]" || line.starts_with("#[cfg(all(test,");
        let is_module = |next: &&str| next.starts_with("mod ") && next.ends_with('{');
        if only_tests && lines.peek().is_some_and(is_module) {
            // Its end stands at the beginning of a line.
            while lines.next().is_some_and(|line| line != "}") {}
            continue;
        }
        code.push_str(line);
        code.push('\n');
    }
    code
}

/// All paths that a file uses, each from its beginning, groups taken apart.
fn paths_in(text: &str) -> BTreeSet<String> {
    let mut code = String::new();
    for line in without_tests(text).lines() {
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
        let tree = rest[start + 4..].trim().trim_end_matches(';');
        let of_others = ["crate", "super"].iter().any(|start| tree.starts_with(start));
        if of_others || !is_public(&rest[..start]) {
            let mut named = BTreeSet::new();
            take_apart("", tree, &mut named);
            paths.extend(named.into_iter().map(|(path, _)| path));
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

/// The paths of a `use`, each with the name that it has from there on.
fn take_apart(before: &str, tree: &str, paths: &mut BTreeSet<(String, String)>) {
    let Some((head, group)) = tree.split_once('{') else {
        let (path, name) = tree.split_once(" as ").unwrap_or((tree, ""));
        let path = format!("{before}{}", path.trim()).replace(' ', "");
        let last = path.rsplit("::").next().unwrap_or_default();
        let name = if name.is_empty() { last } else { name.trim() }.to_owned();
        paths.insert((path, name));
        return;
    };
    let group = group.rsplit_once('}').map_or(group, |(group, _)| group);
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

/// The modules that these files are, each with its text.
fn modules_of<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> BTreeMap<String, Module> {
    let modules = files.enumerate().map(|(file, (name, text))| {
        let path = module_of(name);
        let handed_on = handed_on(text, &path);
        (path, Module { file, handed_on })
    });
    modules.collect()
}

/// The file of the longest part of a path that is a module. A name that the module hands on is
/// followed to the file that has it.
fn file_of(path: &str, modules: &BTreeMap<String, Module>) -> Option<usize> {
    let mut end = path.len();
    loop {
        if let Some(module) = modules.get(&path[..end]) {
            let name = path[end..].trim_start_matches("::").split("::").next().unwrap_or_default();
            let behind = &path[(end + 2 + name.len()).min(path.len())..];
            return match module.handed_on.get(name) {
                Some(from) => file_of(&format!("{from}{behind}"), modules),
                None => Some(module.file),
            };
        }
        end = path[..end].rfind("::")?;
    }
}

/// What a module hands on, and from where.
fn handed_on(text: &str, module: &str) -> BTreeMap<String, String> {
    let mut handed_on = BTreeMap::new();
    for start in ["pub use ", "pub(crate) use ", "pub(super) use "] {
        for part in text.split(start).skip(1) {
            let mut named = BTreeSet::new();
            take_apart("", part.split(';').next().unwrap_or_default(), &mut named);
            for (path, name) in named {
                if let Some(path) = absolute(&path, module, text) {
                    handed_on.insert(name, path);
                }
            }
        }
    }
    handed_on
}
