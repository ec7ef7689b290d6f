//! Project files: which instances there are, and which of them come from folders and files.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use globset::{Glob, GlobSet, GlobSetBuilder};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{MAX_DEPTH, Node, TreeError, luaurc::Aliases, read_json, shown, too_deep};
use crate::classes::is_service;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    name: Option<String>,
    tree: Value,
    #[serde(default)]
    glob_ignore_paths: Vec<String>,
    emit_legacy_scripts: Option<bool>,
    #[serde(default)]
    sync_rules: Vec<Value>,
}

/// What an instance of a project file says of itself.
#[derive(Default)]
struct Described {
    class: Option<String>,
    path: Option<String>,
    /// Without an error when the path is not there.
    optional: bool,
    properties: Map<String, Value>,
    attributes: Map<String, Value>,
    children: Vec<(String, Described)>,
}

/// Reads a project, and the projects in it.
pub(super) struct Reader {
    pub(super) sources: BTreeMap<String, String>,
    pub(super) warnings: Vec<String>,
    pub(super) aliases: Aliases,
    /// What each project on the way here leaves out, relative to its folder.
    ignored: Vec<(PathBuf, GlobSet)>,
    /// Whether scripts run by where they are, and not by their RunContext.
    pub(super) legacy: bool,
    /// The folders and projects on the way here, as the system has them.
    above: Vec<PathBuf>,
    /// How many levels of instances and folders are above.
    depth: usize,
}

impl Reader {
    pub(super) fn new(file: &Path) -> Self {
        Self {
            sources: BTreeMap::new(),
            warnings: Vec::new(),
            aliases: Aliases::new(folder_of(file)),
            ignored: Vec::new(),
            legacy: true,
            above: Vec::new(),
            depth: 0,
        }
    }

    /// The instance that a project file describes; `name` is its name when the file gives none.
    pub(super) fn project(&mut self, file: &Path, name: Option<&str>) -> Result<Node, TreeError> {
        let said = read_json(file)?;
        if !said.is_object() {
            return Err(TreeError::new(
                file,
                "is no project file: it is no object with a \"tree\"",
            ));
        }
        let manifest: Manifest = serde_json::from_value(said)
            .map_err(|error| TreeError::new(file, format!("is no project file: {error}")))?;
        if !manifest.sync_rules.is_empty() {
            self.warnings.push(format!("{}: syncRules are not followed", shown(file)));
        }
        let described = described(file, "tree", &manifest.tree)?;
        self.ignored.push((folder_of(file), globs(file, &manifest.glob_ignore_paths)?));
        let outer = self.legacy;
        // Each project says so for itself.
        self.legacy = manifest.emit_legacy_scripts.unwrap_or(true);
        let name = manifest.name.as_deref().or(name).unwrap_or("Project");
        let node = self.below(file, "is named by itself, or by a project that it names", |own| {
            own.instance(file, "tree", name, None, described)
        });
        self.legacy = outer;
        self.ignored.pop();
        node?.ok_or_else(|| TreeError::new(file, "its tree is an optional path that is not there"))
    }

    /// Whether a project leaves a file or folder out.
    pub(super) fn is_ignored(&self, path: &Path) -> bool {
        self.ignored.iter().any(|(folder, globs)| {
            path.strip_prefix(folder).is_ok_and(|relative| globs.is_match(relative))
        })
    }

    /// Goes one level down.
    pub(super) fn within<T>(
        &mut self,
        path: &Path,
        work: impl FnOnce(&mut Self) -> Result<T, TreeError>,
    ) -> Result<T, TreeError> {
        self.below(path, "is a link that leads back to a folder above it", work)
    }

    /// Goes one level down, into what is not above already.
    fn below<T>(
        &mut self,
        path: &Path,
        problem: &str,
        work: impl FnOnce(&mut Self) -> Result<T, TreeError>,
    ) -> Result<T, TreeError> {
        let there = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        if self.above.contains(&there) {
            return Err(TreeError::new(path, problem));
        }
        self.above.push(there);
        let result = self.deeper(path, work);
        self.above.pop();
        result
    }

    /// Goes one level of instances down.
    fn deeper<T>(
        &mut self,
        file: &Path,
        work: impl FnOnce(&mut Self) -> Result<T, TreeError>,
    ) -> Result<T, TreeError> {
        if self.depth > MAX_DEPTH {
            return Err(TreeError::new(file, too_deep()));
        }
        self.depth += 1;
        let result = work(self);
        self.depth -= 1;
        result
    }

    fn instance(
        &mut self,
        file: &Path,
        at: &str,
        name: &str,
        parent_class: Option<&str>,
        described: Described,
    ) -> Result<Option<Node>, TreeError> {
        let mut node = match &described.path {
            None => None,
            Some(path) => {
                let there = folder_of(file).join(path);
                let found = self.path(&there, name)?;
                if found.is_none() && !described.optional {
                    return Err(TreeError::new(file, missing(at, path, &there)));
                }
                found
            }
        };
        let inferred = inferred(parent_class, name);
        let is_nothing = node.is_none() && described.class.is_none() && inferred.is_none();
        if is_nothing && described.optional {
            return Ok(None);
        }
        let found = node.as_ref().map(|node| node.class.as_str());
        let class = match (described.class.as_deref(), found, inferred) {
            (Some(own), None | Some("Folder"), _) => own,
            (Some(own), Some(found), _) if own == found => own,
            (Some(own), Some(found), _) => {
                return Err(TreeError::new(
                    file,
                    format!(
                        "{at}: $className is {own}, but what $path points to is a {found}; leave \
                         one of them out"
                    ),
                ));
            }
            (None, None | Some("Folder"), Some(inferred)) => inferred,
            (None, Some(found), _) => found,
            (None, None, None) => {
                return Err(TreeError::new(
                    file,
                    format!(
                        "{at} has neither $className nor $path, and {name} is the name of no \
                         service; give it one of them"
                    ),
                ));
            }
        }
        .to_owned();
        let node = node.get_or_insert_with(Node::default);
        name.clone_into(&mut node.name);
        if !(described.properties.is_empty() && described.attributes.is_empty()) {
            node.described = Some(format!("{}: {at}", shown(file)));
        }
        node.properties.extend(described.properties);
        node.attributes.extend(described.attributes);
        for (child, described) in described.children {
            let at = format!("{at}.{child}");
            let made =
                self.deeper(file, |own| own.instance(file, &at, &child, Some(&class), described))?;
            if let Some(made) = made {
                node.children.push(made);
            }
        }
        node.class = class;
        Ok(Some(std::mem::take(node)))
    }
}

fn missing(at: &str, path: &str, there: &Path) -> String {
    let there = shown(there);
    let advice = if path.contains("ackages") || path.contains("node_modules") {
        "install the game's packages first (wally install, pesde install, npm install)"
    } else {
        "mend the path, or write { \"optional\": … } if it may be missing"
    };
    format!(
        "{at}: $path is \"{path}\", but {there} is not there or is no kind of file that Rojo \
             takes; {advice}"
    )
}

/// What Rojo takes an instance for that says nothing of itself.
fn inferred<'a>(parent_class: Option<&str>, name: &'a str) -> Option<&'a str> {
    match (parent_class?, name) {
        ("DataModel", _) if is_service(name) => Some(name),
        ("StarterPlayer", "StarterPlayerScripts" | "StarterCharacterScripts")
        | ("Workspace", "Terrain") => Some(name),
        _ => None,
    }
}

fn folder_of(file: &Path) -> PathBuf {
    file.parent().map_or_else(PathBuf::new, Path::to_owned)
}

fn globs(file: &Path, patterns: &[String]) -> Result<GlobSet, TreeError> {
    let wrong = |error: globset::Error| TreeError::new(file, format!("globIgnorePaths: {error}"));
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(Glob::new(pattern).map_err(wrong)?);
    }
    set.build().map_err(wrong)
}

fn described(file: &Path, at: &str, value: &Value) -> Result<Described, TreeError> {
    let wrong = |what: String| TreeError::new(file, what);
    let object = value
        .as_object()
        .ok_or_else(|| wrong(format!("{at} describes an instance, so it must be an object")))?;
    let mut result = Described::default();
    for (key, value) in object {
        let text = || value.as_str().map(str::to_owned);
        match key.as_str() {
            "$className" => {
                let class = text();
                result.class =
                    Some(class.ok_or_else(|| wrong(format!("{at}.$className must be a text")))?);
            }
            "$path" => {
                let optional = value.get("optional").and_then(Value::as_str);
                result.optional = optional.is_some();
                result.path = Some(text().or(optional.map(str::to_owned)).ok_or_else(|| {
                    wrong(format!("{at}.$path must be a text, or {{ \"optional\": \"…\" }}"))
                })?);
            }
            "$properties" | "$attributes" => {
                let object = value.as_object().cloned();
                let object =
                    object.ok_or_else(|| wrong(format!("{at}.{key} must be an object")))?;
                if key == "$properties" {
                    result.properties = object;
                } else {
                    result.attributes = object;
                }
            }
            // For Rojo's syncing, and for editors.
            "$ignoreUnknownInstances" | "$id" | "$schema" => {}
            other if other.starts_with('$') => {
                return Err(wrong(format!("{at}.{other} is nothing that a project file may say")));
            }
            name => {
                let child = described(file, &format!("{at}.{name}"), value)?;
                result.children.push((name.to_owned(), child));
            }
        }
    }
    Ok(result)
}
