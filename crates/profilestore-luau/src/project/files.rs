//! What Rojo makes of a folder or a file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Node, TreeError, chunk_name, manifest::Reader, modules, place, read_json, read_text, shown,
};

/// The kinds of files, by their endings; the first that fits counts.
const ENDINGS: [(&str, Kind); 15] = [
    (".project.json", Kind::Project),
    (".model.json", Kind::Model),
    (".meta.json", Kind::Meta),
    (".json", Kind::Json),
    (".toml", Kind::Toml),
    (".txt", Kind::Text),
    (".csv", Kind::LeftOut("a LocalizationTable")),
    (".yaml", Kind::LeftOut("a YAML module")),
    (".yml", Kind::LeftOut("a YAML module")),
    (".server.luau", Kind::Script(Some("Server"))),
    (".client.luau", Kind::Script(Some("Client"))),
    (".plugin.luau", Kind::Script(Some("Plugin"))),
    (".legacy.luau", Kind::Script(None)),
    (".luau", Kind::Module),
    (".rbxm", Kind::ModelFile),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Project,
    Model,
    Meta,
    Json,
    Toml,
    Text,
    /// What runs it; None for what runs by where it is.
    Script(Option<&'static str>),
    Module,
    /// As Roblox Studio saves it.
    ModelFile,
    /// What Rojo would make of it.
    LeftOut(&'static str),
}

/// A file's kind, and its name without the ending.
fn kind_of(file: &Path) -> Option<(Kind, &str)> {
    let name = file.file_name()?.to_str()?;
    let ending_of = |ending: &str| {
        // The other spellings of the same endings.
        let others = match ending {
            ".rbxm" => [".rbxmx".to_owned(), String::new()],
            _ => [ending.replace(".json", ".jsonc"), ending.replace(".luau", ".lua")],
        };
        [ending.to_owned()].into_iter().chain(others).find(|ending| {
            !ending.is_empty() && name.len() > ending.len() && name.ends_with(ending.as_str())
        })
    };
    ENDINGS.iter().find_map(|(ending, kind)| {
        let ending = ending_of(ending)?;
        Some((*kind, &name[..name.len() - ending.len()]))
    })
}

/// What is wrong with a text, and in which line; the line itself may be as long as the file.
fn no_toml(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    format!("is no valid TOML: line {line}: {}", error.message())
}

pub(super) fn is_project_file(path: &Path) -> bool {
    matches!(kind_of(path), Some((Kind::Project, _)))
}

pub(super) fn default_project(folder: &Path) -> Option<PathBuf> {
    let files = ["default.project.json", "default.project.jsonc"].map(|name| folder.join(name));
    files.into_iter().find(|file| file.is_file())
}

/// What a project is called that does not say so: as its file, or as the folder whose own it is.
pub(super) fn name_of_project(file: &Path) -> Option<String> {
    let file = PathBuf::from(shown(&std::path::absolute(file).ok()?));
    let (_, stem) = kind_of(&file)?;
    let name = if stem == "default" { file.parent()?.file_name()?.to_str()? } else { stem };
    Some(name.to_owned())
}

/// What is in a folder, by name.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>, TreeError> {
    let unreadable = |error| TreeError::unreadable(folder, &error);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        found.push(entry.map_err(unreadable)?.path());
    }
    found.sort();
    Ok(found)
}

/// What a `.meta.json` adds to the instance beside it.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    class_name: Option<String>,
    #[serde(default)]
    properties: Map<String, Value>,
    #[serde(default)]
    attributes: Map<String, Value>,
}

/// An instance of a `.model.json`; the older form has capitals.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Model {
    #[serde(alias = "Name")]
    name: Option<String>,
    #[serde(alias = "ClassName")]
    class_name: String,
    #[serde(default, alias = "Properties")]
    properties: Map<String, Value>,
    #[serde(default, alias = "Attributes")]
    attributes: Map<String, Value>,
    #[serde(default, alias = "Children")]
    children: Vec<Model>,
}

impl Model {
    fn into_node(self, name: &str) -> Node {
        let mut node = Node::new(self.name.as_deref().unwrap_or(name), &self.class_name);
        node.properties = self.properties;
        node.attributes = self.attributes;
        for child in self.children {
            let class = child.class_name.clone();
            node.children.push(child.into_node(&class));
        }
        node
    }
}

impl Reader {
    /// What a folder or file is, under this name; None when it is nothing.
    pub(super) fn path(&mut self, path: &Path, name: &str) -> Result<Option<Node>, TreeError> {
        if path.is_dir() {
            return self.within(path, |own| own.folder(path, name)).map(Some);
        }
        if !path.is_file() {
            return Ok(None);
        }
        self.file(path, name)
    }

    fn folder(&mut self, folder: &Path, name: &str) -> Result<Node, TreeError> {
        if let Some(project) = default_project(folder) {
            return self.project(&project, Some(name));
        }
        let mut node = Node::new(name, "Folder");
        let mut children = Vec::new();
        for entry in entries(folder)? {
            if self.is_ignored(&entry) {
                continue;
            }
            if entry.is_dir() {
                let Some(name) = entry.file_name().and_then(|name| name.to_str()) else { continue };
                children.push(self.within(&entry, |own| own.folder(&entry, name))?);
                continue;
            }
            match kind_of(&entry) {
                // It is the folder itself.
                Some((Kind::Script(_) | Kind::Module, "init")) if node.source.is_none() => {
                    node = self.file(&entry, name)?.unwrap_or(node);
                }
                Some((Kind::Script(_) | Kind::Module, "init")) => {
                    return Err(TreeError::new(
                        folder,
                        "has more than one init file; a folder is one script",
                    ));
                }
                Some((Kind::Meta, _)) | None => {}
                Some((_, name)) => children.extend(self.file(&entry, name)?),
            }
        }
        node.path = Some(shown(folder));
        node.children = children;
        self.add_meta(&mut node, folder, "init")?;
        Ok(node)
    }

    fn file(&mut self, file: &Path, name: &str) -> Result<Option<Node>, TreeError> {
        let Some((kind, stem)) = kind_of(file) else { return Ok(None) };
        let mut node = match kind {
            Kind::Meta => return Ok(None),
            Kind::LeftOut(what) => {
                self.warnings.push(format!("{}: {what} is not read, and left out", shown(file)));
                return Ok(None);
            }
            Kind::Project => return self.project(file, Some(name)).map(Some),
            Kind::Model => {
                let model: Model = serde_json::from_value(read_json(file)?)
                    .map_err(|error| TreeError::new(file, format!("is no model: {error}")))?;
                let mut node = model.into_node(name);
                name.clone_into(&mut node.name);
                node
            }
            Kind::ModelFile => {
                let mut node = place::model(file, &mut self.sources)?;
                name.clone_into(&mut node.name);
                node
            }
            Kind::Text => {
                let mut node = Node::new(name, "StringValue");
                node.properties.insert("Value".into(), read_text(file)?.into());
                node
            }
            Kind::Json => {
                self.script(file, name, Kind::Module, modules::of_json(&read_json(file)?))
            }
            Kind::Toml => {
                let text = read_text(file)?;
                let table: toml::Table =
                    text.parse().map_err(|error| TreeError::new(file, no_toml(&text, &error)))?;
                self.script(file, name, Kind::Module, modules::of_toml(&table))
            }
            Kind::Script(_) | Kind::Module => {
                let text = read_text(file)?;
                self.script(file, name, kind, text)
            }
        };
        let folder = file.parent().unwrap_or(Path::new(""));
        node.path = Some(shown(&folder.join(stem)));
        if stem != "init" {
            self.add_meta(&mut node, folder, stem)?;
        }
        Ok(Some(node))
    }

    fn script(&mut self, file: &Path, name: &str, kind: Kind, text: String) -> Node {
        let class = match kind {
            Kind::Script(Some("Client")) if self.legacy => "LocalScript",
            Kind::Script(_) => "Script",
            _ => "ModuleScript",
        };
        let mut node = Node::new(name, class);
        if let Kind::Script(Some(context)) = kind
            && (!self.legacy || context == "Plugin")
        {
            node.properties.insert("RunContext".into(), context.into());
        }
        let shown = chunk_name(shown(file));
        if let Some(folder) = file.parent() {
            self.aliases.note(&shown, folder);
        }
        self.sources.insert(shown.clone(), text);
        node.source = Some(shown);
        node
    }

    fn add_meta(&self, node: &mut Node, folder: &Path, stem: &str) -> Result<(), TreeError> {
        let files = [".meta.json", ".meta.jsonc"].map(|end| folder.join(format!("{stem}{end}")));
        let Some(file) = files.into_iter().find(|file| file.is_file()) else { return Ok(()) };
        let meta: Meta = serde_json::from_value(read_json(&file)?)
            .map_err(|error| TreeError::new(&file, format!("is no meta file: {error}")))?;
        if let Some(class) = meta.class_name {
            if node.class != "Folder" {
                return Err(TreeError::new(
                    &file,
                    format!("className is {class}, but the instance is a {} already", node.class),
                ));
            }
            node.class = class;
        }
        node.properties.extend(meta.properties);
        node.attributes.extend(meta.attributes);
        Ok(())
    }
}
