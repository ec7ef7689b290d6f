//! Place and model files, as Roblox Studio saves them. Rojo's authors' crates read them; here they
//! become the same nodes as a project's files.

use std::{
    collections::{BTreeMap, HashSet},
    fs, panic,
    path::Path,
};

use rbx_dom_weak::{
    Instance, WeakDom,
    types::{Font, Ref, Variant},
    ustr,
};
use serde_json::{Number, Value, json};
use xml::{ParserConfig, reader::XmlEvent};

use super::{MAX_DEPTH, Node, TreeError, chunk_name, shown, too_deep};
use crate::classes::{is_readable, is_settable};

/// Whether a path names a place file.
pub(super) fn is_place(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "rbxl" || end == "rbxlx")
}

/// The texts of scripts, by what they are called in tracebacks.
type Sources = BTreeMap<String, String>;

/// A place: the game itself. Its scripts are called by their full names.
pub(super) fn place(file: &Path, sources: &mut Sources) -> Result<Node, TreeError> {
    let dom = read(file)?;
    let mut node = Node::new("Game", "DataModel");
    node.children = Maker::new(file, &dom, sources).children(dom.root(), "", 1)?;
    Ok(node)
}

/// A model in a project: the one instance that its file holds. Its scripts are called by the file
/// and by their names in it.
pub(super) fn model(file: &Path, sources: &mut Sources) -> Result<Node, TreeError> {
    let dom = read(file)?;
    let roots: Vec<&Instance> =
        dom.root().children().iter().filter_map(|child| dom.get_by_ref(*child)).collect();
    let [root] = roots[..] else {
        return Err(TreeError::new(
            file,
            format!("has {} instances at its top; a model in a project has one", roots.len()),
        ));
    };
    Maker::new(file, &dom, sources).node(root, shown(file), 1)
}

/// Some damaged files make the readers panic; that is an error of the file like any other.
fn read(file: &Path) -> Result<WeakDom, TreeError> {
    let bytes = fs::read(file).map_err(|error| TreeError::unreadable(file, &error))?;
    let read = panic::catch_unwind(|| decode(&bytes));
    read.unwrap_or_else(|_| Err("it is damaged".to_owned())).map_err(|problem| {
        TreeError::new(file, format!("is no place or model file of Roblox Studio: {problem}"))
    })
}

/// Both forms begin with `<roblox` and end with `</roblox>`, whatever the file's name says.
fn decode(bytes: &[u8]) -> Result<WeakDom, String> {
    if bytes.is_empty() {
        return Err("it is empty".to_owned());
    }
    // Other programs may write what XML allows before its first tag.
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if !text.trim_ascii_start().starts_with(b"<") {
        return Err("it does not begin with `<roblox`".to_owned());
    }
    let begins = bytes.starts_with(b"<roblox");
    if begins && !bytes.trim_ascii_end().ends_with(b"</roblox>") {
        return Err("its end is missing".to_owned());
    }
    if bytes.starts_with(b"<roblox!") {
        rbx_binary::from_reader(bytes).map_err(|error| error.to_string())
    } else if nests_too_deep(bytes) {
        Err(too_deep())
    } else {
        rbx_xml::from_reader_default(bytes).map_err(|error| in_xml(&error.to_string()))
    }
}

/// What the reader of XML says, `line 1, column 0: ...`. An error of the syntax has a more exact
/// place in its own text, `1:1 ...`: then that one is given.
fn in_xml(problem: &str) -> String {
    let exact = || {
        let (_, own) = problem.split_once(": ")?;
        let (place, what) = own.split_once(' ')?;
        let (line, column) = place.split_once(':')?;
        let is_number = |text: &str| text.parse::<u64>().is_ok();
        (is_number(line) && is_number(column))
            .then(|| format!("line {line}, column {column}: {what}"))
    };
    exact().unwrap_or_else(|| problem.to_owned())
}

/// Whether instances of a file in XML nest too deep. The reader takes each level on the stack, and
/// would overflow it; this looks first, at the same events, and stops at the limit.
fn nests_too_deep(bytes: &[u8]) -> bool {
    let mut depth = 0_usize;
    for event in ParserConfig::new().ignore_comments(true).create_reader(bytes) {
        match event {
            Ok(XmlEvent::StartElement { name, .. }) if name.local_name == "Item" => depth += 1,
            Ok(XmlEvent::EndElement { name }) if name.local_name == "Item" => depth -= 1,
            Ok(_) => {}
            // The reader says what is wrong.
            Err(_) => return false,
        }
        if depth > MAX_DEPTH {
            return true;
        }
    }
    false
}

struct Maker<'a> {
    file: &'a Path,
    dom: &'a WeakDom,
    /// What properties refer to.
    targets: HashSet<Ref>,
    sources: &'a mut Sources,
    /// How many scripts have this name already.
    named: BTreeMap<String, u64>,
}

impl<'a> Maker<'a> {
    fn new(file: &'a Path, dom: &'a WeakDom, sources: &'a mut Sources) -> Self {
        let values = dom.descendants().flat_map(|instance| instance.properties.values());
        let targets = values
            .filter_map(|value| if let Variant::Ref(target) = value { Some(*target) } else { None })
            .collect();
        Self { file, dom, targets, sources, named: BTreeMap::new() }
    }

    fn children(
        &mut self,
        parent: &Instance,
        path: &str,
        depth: usize,
    ) -> Result<Vec<Node>, TreeError> {
        let dom = self.dom;
        let children = parent.children().iter().filter_map(|child| dom.get_by_ref(*child));
        children
            .map(|child| {
                let separator = if path.is_empty() { "" } else { "." };
                self.node(child, format!("{path}{separator}{}", child.name), depth)
            })
            .collect()
    }

    fn node(&mut self, instance: &Instance, path: String, depth: usize) -> Result<Node, TreeError> {
        if depth > MAX_DEPTH {
            return Err(TreeError::new(self.file, too_deep()));
        }
        let mut node = Node::new(instance.name.as_str(), instance.class.as_str());
        let mut properties: Vec<_> = instance.properties.iter().collect();
        properties.sort_unstable_by_key(|(key, _)| key.as_str());
        for (key, value) in properties {
            set(&mut node, key.as_str(), value);
        }
        if self.targets.contains(&instance.referent()) {
            node.referent = Some(instance.referent().to_string());
        }
        if matches!(&*node.class, "Script" | "LocalScript" | "ModuleScript") {
            let text = instance.properties.get(&ustr("Source")).map(text_of).unwrap_or_default();
            node.source = Some(self.add_source(&path, text));
        }
        node.children = self.children(instance, &path, depth + 1)?;
        Ok(node)
    }

    /// What a script is called. Several may have one full name: they are counted.
    fn add_source(&mut self, path: &str, text: String) -> String {
        let name = chunk_name(path.replace(char::is_control, "?"));
        let count = self.named.entry(name.clone()).or_default();
        let called = loop {
            *count += 1;
            let called = if *count == 1 { name.clone() } else { format!("{name}#{count}") };
            if !self.sources.contains_key(&called) {
                break called;
            }
        };
        self.sources.insert(called.clone(), text);
        called
    }
}

/// Gives a node what a file says of it. What scripts can neither set nor read as a simple value is
/// the engine's own business, and what is as usual need not be said.
fn set(node: &mut Node, key: &str, value: &Variant) {
    match value {
        Variant::Attributes(attributes) if key == "Attributes" => {
            // Those of Roblox itself begin so.
            node.attributes = attributes
                .iter()
                .filter(|(name, _)| !name.starts_with("RBX"))
                .filter_map(|(name, value)| Some((name.clone(), value_of(value)?)))
                .collect();
        }
        Variant::Tags(tags) if key == "Tags" && !tags.is_empty() => {
            node.properties.insert(key.to_owned(), tags.iter().collect::<Vec<_>>().into());
        }
        value
            if (is_settable(&node.class, key)
                || is_plain(value) && is_readable(&node.class, key))
                && !is_usual(&node.class, key, value) =>
        {
            if let Some(value) = value_of(value) {
                node.properties.insert(key.to_owned(), value);
            }
        }
        _ => {}
    }
}

/// Whether it is a value of the simple kinds that scripts read.
fn is_plain(value: &Variant) -> bool {
    matches!(
        value,
        Variant::Bool(_) | Variant::String(_) | Variant::ContentId(_) | Variant::Enum(_)
    )
}

fn is_usual(class: &str, key: &str, value: &Variant) -> bool {
    let database = rbx_reflection_database::get_bundled();
    let class = database.classes.get(class);
    class.is_some_and(|class| database.find_default_property(class, key) == Some(value))
}

fn text_of(value: &Variant) -> String {
    match value {
        Variant::String(text) => text.clone(),
        Variant::BinaryString(bytes) => String::from_utf8_lossy(bytes.as_ref()).into_owned(),
        Variant::SharedString(bytes) => String::from_utf8_lossy(bytes.data()).into_owned(),
        _ => String::new(),
    }
}

/// A value as a project's files write it; None for what no script can set.
fn value_of(value: &Variant) -> Option<Value> {
    Some(match value {
        Variant::Bool(flag) => (*flag).into(),
        Variant::Int32(number) => (*number).into(),
        Variant::Int64(number) => (*number).into(),
        Variant::Float32(number) => number_of(f64::from(*number)),
        Variant::Float64(number) => number_of(*number),
        Variant::String(text) => text.as_str().into(),
        // Texts among the attributes are read as bytes.
        Variant::BinaryString(bytes) => str::from_utf8(bytes.as_ref()).ok()?.into(),
        Variant::ContentId(id) => id.as_str().into(),
        Variant::Enum(item) => item.to_u32().into(),
        Variant::EnumItem(item) => json!({ "EnumItem": { "type": item.ty, "value": item.value } }),
        Variant::BrickColor(color) => json!({ "BrickColor": *color as u16 }),
        Variant::Color3(c) => parts("Color3", &[c.r, c.g, c.b])?,
        Variant::Color3uint8(c) => json!({ "Color3uint8": [c.r, c.g, c.b] }),
        Variant::Vector2(v) => parts("Vector2", &[v.x, v.y])?,
        Variant::Vector2int16(v) => json!({ "Vector2int16": [v.x, v.y] }),
        Variant::Vector3(v) => parts("Vector3", &[v.x, v.y, v.z])?,
        Variant::Vector3int16(v) => json!({ "Vector3int16": [v.x, v.y, v.z] }),
        Variant::UDim(u) => parts("UDim", &[u.scale, u.offset as f32])?,
        Variant::UDim2(u) => {
            parts("UDim2", &[u.x.scale, u.x.offset as f32, u.y.scale, u.y.offset as f32])?
        }
        Variant::CFrame(frame) | Variant::OptionalCFrame(Some(frame)) => {
            let (p, o) = (frame.position, frame.orientation);
            let rows = [o.x, o.y, o.z].into_iter().flat_map(|row| [row.x, row.y, row.z]);
            parts("CFrame", &[p.x, p.y, p.z].into_iter().chain(rows).collect::<Vec<_>>())?
        }
        Variant::NumberRange(range) => parts("NumberRange", &[range.min, range.max])?,
        Variant::Rect(r) => parts("Rect", &[r.min.x, r.min.y, r.max.x, r.max.y])?,
        Variant::Ray(r) => {
            let (o, d) = (r.origin, r.direction);
            parts("Ray", &[o.x, o.y, o.z, d.x, d.y, d.z])?
        }
        Variant::NumberSequence(sequence) => {
            let points = sequence.keypoints.iter().map(|p| [p.time, p.value, p.envelope].into());
            json!({ "NumberSequence": points.collect::<Vec<Value>>() })
        }
        Variant::ColorSequence(sequence) => {
            let points =
                sequence.keypoints.iter().map(|p| [p.time, p.color.r, p.color.g, p.color.b].into());
            json!({ "ColorSequence": points.collect::<Vec<Value>>() })
        }
        Variant::Font(font) => font_of(font),
        Variant::Ref(target) if target.is_some() => json!({ "Ref": target.to_string() }),
        _ => return None,
    })
}

fn font_of(font: &Font) -> Value {
    let (weight, style) = (font.weight.as_u16(), font.style.as_u8());
    json!({ "Font": { "family": font.family, "weight": weight, "style": style } })
}

/// JSON has no numbers without an end; they become texts.
fn number_of(number: f64) -> Value {
    Number::from_f64(number).map_or_else(|| json!({ "Number": number.to_string() }), Value::Number)
}

fn parts(kind: &str, parts: &[f32]) -> Option<Value> {
    let numbers: Option<Vec<Number>> =
        parts.iter().map(|part| Number::from_f64(f64::from(*part))).collect();
    Some(json!({ (kind): numbers? }))
}

#[cfg(test)]
mod tests;
