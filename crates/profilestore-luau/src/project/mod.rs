//! A game's files as a tree of instances: a place file, or a project as Rojo's documentation says
//! that Rojo makes its tree. Nothing here knows a machine: what is read is put into one by
//! `services/tree.rs`.
//!
//! [`manifest`] reads project files, [`files`] the folders and files that they point to, [`luaurc`]
//! the aliases of requires, [`place`] what Roblox Studio saves.

mod files;
mod luaurc;
mod manifest;
mod modules;
mod place;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    path::{Component, Path, PathBuf},
};

use serde_json::{Map, Value};

use self::manifest::Reader;

/// What could not be made of a game's files: in which file, what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct TreeError {
    file: String,
    problem: String,
}

impl TreeError {
    fn new(file: &Path, problem: impl Into<String>) -> Self {
        Self { file: shown(file), problem: problem.into() }
    }

    fn unreadable(file: &Path, error: &io::Error) -> Self {
        Self::new(file, format!("cannot be read: {error}"))
    }
}

/// How deep the instances of a game may nest, and the folders and files that they are read from.
/// Each level is read and made on the stack, which has 2 MB in the threads that games run in.
const MAX_DEPTH: usize = 200;

fn too_deep() -> String {
    format!("its instances nest more than {MAX_DEPTH} deep")
}

/// A game's instances, read from a project. See [`GameBuilder::tree`](crate::GameBuilder::tree).
pub struct Tree {
    pub(crate) root: Node,
    /// The texts of scripts and modules, by what they are called in tracebacks: their files, or
    /// their full names.
    pub(crate) sources: BTreeMap<String, String>,
    /// What aliases mean to the scripts in a folder: the path without its file's ending.
    pub(crate) aliases: BTreeMap<String, BTreeMap<String, String>>,
    warnings: Vec<String>,
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").field("name", &self.root.name).finish_non_exhaustive()
    }
}

/// An instance to be made.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) class: String,
    /// As the project's files have them: names of enum items, lists of numbers, typed values.
    pub(crate) properties: Map<String, Value>,
    pub(crate) attributes: Map<String, Value>,
    pub(crate) children: Vec<Node>,
    /// Where it comes from: a folder, or a file without its ending.
    pub(crate) path: Option<String>,
    /// The project file that says what it has, and where in its tree.
    pub(crate) described: Option<String>,
    /// What its text is found by in [`Tree::sources`].
    pub(crate) source: Option<String>,
    /// What properties of other instances name it by, when one does.
    pub(crate) referent: Option<String>,
}

impl Node {
    fn new(name: impl Into<String>, class: &str) -> Self {
        Self { name: name.into(), class: class.to_owned(), ..Self::default() }
    }

    /// How many levels there are below it.
    fn depth(&self) -> usize {
        let (mut deepest, mut left) = (0, vec![(self, 0)]);
        while let Some((node, depth)) = left.pop() {
            deepest = deepest.max(depth);
            left.extend(node.children.iter().map(|child| (child, depth + 1)));
        }
        deepest
    }
}

impl Tree {
    /// Reads a folder with a `default.project.json`, a project file, or a place file.
    pub fn read(path: &Path) -> Result<Self, TreeError> {
        if place::is_place(path) && !path.is_dir() {
            let mut sources = BTreeMap::new();
            let root = place::place(path, &mut sources)?;
            return Ok(Self { root, sources, aliases: BTreeMap::new(), warnings: Vec::new() });
        }
        let file = project_file(path)?;
        let mut reader = Reader::new(&file);
        let mut root = reader.project(&file, files::name_of_project(&file).as_deref())?;
        let Reader { mut sources, warnings, aliases, .. } = reader;
        if root.depth() > MAX_DEPTH {
            return Err(TreeError::new(&file, too_deep()));
        }
        let name = if root.class == "DataModel" { String::new() } else { root.name.clone() };
        take_texts(&mut root, &name, &mut sources);
        let aliases = aliases.finish()?;
        Ok(Self { root, sources, aliases, warnings })
    }

    /// What was left out of the files, a sentence for each.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The files of ModuleScripts that hold tests, except those of installed packages:
    /// `NAME.spec.luau` or `NAME.test.luau`, also with `.lua`.
    pub fn specs(&self) -> Vec<String> {
        let mut found = Vec::new();
        each_own(&self.root, &mut |node| {
            if is_spec(node) {
                found.extend(node.source.clone());
            }
        });
        found
    }

    /// The game's scripts and modules that may run on a server, without tests, installed packages
    /// and data.
    pub(crate) fn own_scripts(&self) -> BTreeSet<String> {
        const DATA: [&str; 3] = [".json", ".jsonc", ".toml"];
        let mut found = BTreeSet::new();
        each_own(&self.root, &mut |node| {
            let is_data = |source: &String| DATA.iter().any(|ending| source.ends_with(ending));
            if !is_client(node) && !is_spec(node) {
                found.extend(node.source.clone().filter(|source| !is_data(source)));
            }
        });
        found
    }
}

/// Scripts whose text is a property, as in a project file or a model, get it as their source. They
/// are called by their full names; several may have one.
fn take_texts(node: &mut Node, name: &str, sources: &mut BTreeMap<String, String>) {
    let said = node.properties.get("Source");
    let text = said.and_then(|value| value.as_str().or_else(|| value.get("String")?.as_str()));
    if matches!(&*node.class, "Script" | "LocalScript" | "ModuleScript")
        && node.source.is_none()
        && let Some(text) = text.map(str::to_owned)
    {
        let name = chunk_name(name.replace(char::is_control, "?"));
        let (mut called, mut count) = (name.clone(), 1);
        while sources.contains_key(&called) {
            count += 1;
            called = format!("{name}#{count}");
        }
        sources.insert(called.clone(), text);
        node.source = Some(called);
        node.properties.remove("Source");
    }
    for child in &mut node.children {
        let separator = if name.is_empty() { "" } else { "." };
        let name = format!("{name}{separator}{}", child.name);
        take_texts(child, &name, sources);
    }
}

fn is_spec(node: &Node) -> bool {
    let is_test = [".spec", ".test"].iter().any(|ending| node.name.ends_with(ending));
    node.class == "ModuleScript" && is_test
}

/// Whether it is a script that only clients run.
fn is_client(node: &Node) -> bool {
    let context = node.properties.get("RunContext");
    node.class == "LocalScript"
        || context.is_some_and(|context| *context == "Client" || *context == 2)
}

/// Visits all that is not installed.
fn each_own(node: &Node, visit: &mut dyn FnMut(&Node)) {
    /// Where package managers put what they install.
    const INSTALLED: [&str; 6] =
        ["Packages", "DevPackages", "ServerPackages", "_Index", "node_modules", "roblox_packages"];
    if INSTALLED.contains(&&*node.name) {
        return;
    }
    visit(node);
    for child in &node.children {
        each_own(child, visit);
    }
}

/// Whether a path names a whole game: a folder, a file `NAME.project.json`, or a place file.
pub fn is_project(path: &Path) -> bool {
    path.is_dir() || files::is_project_file(path) || place::is_place(path)
}

/// A project of one folder.
const SMALLEST: &str =
    r#"{"tree": {"$className": "DataModel", "ServerScriptService": {"$path": "src"}}}"#;

/// The project file that a caller means by a path.
fn project_file(path: &Path) -> Result<PathBuf, TreeError> {
    if !path.is_dir() {
        return if path.extension().is_some_and(|ending| ending == "luau" || ending == "lua") {
            let what = "is a script, and no game: name its game's folder or project file";
            Err(TreeError::new(path, what))
        } else {
            Ok(path.to_owned())
        };
    }
    if let Some(file) = files::default_project(path) {
        return Ok(file);
    }
    let mut others: Vec<String> = files::entries(path)?
        .into_iter()
        .filter(|entry| files::is_project_file(entry))
        .map(|entry| shown(&entry))
        .collect();
    others.sort();
    let advice = if others.is_empty() {
        format!("run a script alone, or write one. The smallest is {SMALLEST}")
    } else {
        format!("name one of these instead: {}", others.join(", "))
    };
    let problem = format!("has no default.project.json; {advice}");
    Err(TreeError { file: folder_name(path), problem })
}

/// A folder as it is shown: by its own name where the path is only `.` or `..`.
fn folder_name(path: &Path) -> String {
    let named = shown(path);
    let real = || Some(fs::canonicalize(path).ok()?.file_name()?.to_string_lossy().into_owned());
    if named.ends_with('.') { real().unwrap_or(named) } else { named }
}

/// A path as it is shown, and as files are compared: without `.`, and with `..` resolved.
fn shown(path: &Path) -> String {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir
                if matches!(clean.components().next_back(), Some(Component::Normal(_))) =>
            {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    let text = clean.to_string_lossy().replace('\\', "/");
    if text.is_empty() { ".".to_owned() } else { text }
}

/// What a script is called in tracebacks: what looks like the machine's own would not be shown.
fn chunk_name(name: String) -> String {
    if name.starts_with(crate::vm::OWN_CODE) { format!("./{name}") } else { name }
}

/// What some editors write before a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A text, without its byte order mark.
fn read_text(file: &Path) -> Result<String, TreeError> {
    let mut bytes = fs::read(file).map_err(|error| TreeError::unreadable(file, &error))?;
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    String::from_utf8(bytes).map_err(|_| TreeError::new(file, "is not UTF-8 text"))
}

/// JSON with comments and trailing commas, as Rojo and Luau take it.
fn read_json(file: &Path) -> Result<Value, TreeError> {
    let options = jsonc_parser::ParseOptions {
        allow_loose_object_property_names: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
        ..jsonc_parser::ParseOptions::default()
    };
    jsonc_parser::parse_to_serde_value(&read_text(file)?, &options)
        .map_err(|error| TreeError::new(file, format!("is no valid JSON: {error}")))
}

#[cfg(test)]
mod documented;
#[cfg(test)]
mod tests;
