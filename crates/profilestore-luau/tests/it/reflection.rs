//! The list of Roblox's classes, made anew of the reflection database that Rojo's authors publish.
//! `PROFILESTORE_WRITE_API=1` writes it.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use rbx_dom_weak::types::{Variant, VariantType};
use rbx_reflection::{
    ClassDescriptor, ClassTag, DataType, PropertyDescriptor, PropertyKind, PropertyTag,
    ReflectionDatabase, Scriptability,
};

use crate::current;

struct Database(&'static ReflectionDatabase<'static>);

impl Database {
    fn class(&self, name: &str) -> &'static ClassDescriptor<'static> {
        &self.0.classes[name]
    }

    /// The class, what it is derived from, and so on.
    fn chain(&self, name: &str) -> Vec<&'static ClassDescriptor<'static>> {
        self.0.superclasses_iter(self.class(name)).collect()
    }

    /// A class's own properties that scripts see.
    fn own(&self, name: &str) -> BTreeMap<&'static str, &'static PropertyDescriptor<'static>> {
        let properties = self.class(name).properties.iter();
        let is_seen = |property: &PropertyDescriptor<'_>| {
            matches!(property.scriptability, Scriptability::ReadWrite | Scriptability::Read)
                && !(property.tags.contains(&PropertyTag::Deprecated)
                    && property.tags.contains(&PropertyTag::Hidden))
        };
        properties.filter(|(_, property)| is_seen(property)).map(|(name, p)| (*name, p)).collect()
    }

    /// The default of a property, under its own name or the one that it stands for.
    fn default(&self, class: &str, property: &str) -> Option<String> {
        let defaults = &self.class(class).default_properties;
        let value = defaults.get(property).or_else(|| {
            let known = self.chain(class).into_iter().find_map(|c| c.properties.get(property))?;
            let PropertyKind::Alias { alias_for } = known.kind else { return None };
            defaults.get(alias_for)
        });
        value.and_then(text_of)
    }

    /// The lines, by class. `Instance` has none: every instance has its members.
    fn lines(&self) -> BTreeMap<&'static str, String> {
        let mut names: Vec<&'static str> = self.0.classes.keys().copied().collect();
        names.sort_unstable();
        let mut derived: HashMap<&str, Vec<&str>> = HashMap::new();
        for name in &names {
            for class in self.chain(name) {
                derived.entry(class.name).or_default().push(*name);
            }
        }
        names.sort_by_key(|name| (self.chain(name).len(), *name));
        let mut lines = BTreeMap::new();
        // What instances of a class have, once its line and those of its bases are read.
        let mut had: HashMap<&str, BTreeMap<&str, Option<String>>> = HashMap::new();
        for name in names {
            let class = self.class(name);
            let base = class.superclass.filter(|_| name != "Instance");
            let before = base.and_then(|base| had.get(base)).cloned().unwrap_or_default();
            let mut now = before.clone();
            let mut words = vec![name.to_owned(), base.unwrap_or("-").to_owned(), marks(class)];
            let own = self.own(name);
            if name != "Instance" {
                for (key, property) in own.iter().filter(|(key, _)| **key != "Instance") {
                    let usual = self.default(name, key).or_else(|| {
                        let of_derived = derived[name].iter();
                        most(of_derived.filter_map(|derived| self.default(derived, key)))
                    });
                    words.push(word(key, property, usual.as_deref()));
                    now.insert(*key, usual);
                }
            }
            for key in before.keys().filter(|key| !own.contains_key(**key)) {
                let usual = self.default(name, key);
                if usual.is_some() && usual != before[key] {
                    words.push(format!("{key}={}", usual.as_deref().unwrap_or_default()));
                    now.insert(*key, usual);
                }
            }
            had.insert(name, now);
            if name != "Instance" {
                lines.insert(name, words.join(" "));
            }
        }
        lines
    }
}

fn marks(class: &ClassDescriptor<'_>) -> String {
    let marks = [
        ("+", !class.tags.contains(&ClassTag::NotCreatable)),
        ("*", class.tags.contains(&ClassTag::Service)),
    ];
    let text: String = marks.iter().filter(|(_, is)| *is).map(|(mark, _)| *mark).collect();
    if text.is_empty() { "-".to_owned() } else { text }
}

fn word(key: &str, property: &PropertyDescriptor<'_>, usual: Option<&str>) -> String {
    let kind = kind_of(&property.data_type);
    let mark = if matches!(property.scriptability, Scriptability::Read) { "!" } else { "" };
    let usual = usual.map(|usual| format!("={usual}")).unwrap_or_default();
    format!("{key}:{kind}{mark}{usual}")
}

fn kind_of(data_type: &DataType<'_>) -> String {
    let kind = match data_type {
        DataType::Enum(name) => return format!("Enum.{name}"),
        DataType::Value(kind) => kind,
        _ => return "Any".to_owned(),
    };
    match kind {
        VariantType::Int32 | VariantType::Int64 => "Int".to_owned(),
        VariantType::Float32 | VariantType::Float64 => "Number".to_owned(),
        VariantType::String | VariantType::ContentId => "Text".to_owned(),
        VariantType::Color3uint8 => "Color3".to_owned(),
        VariantType::Bool
        | VariantType::Ref
        | VariantType::Vector3
        | VariantType::Vector2
        | VariantType::CFrame
        | VariantType::Color3
        | VariantType::UDim2
        | VariantType::UDim
        | VariantType::BrickColor
        | VariantType::NumberRange
        | VariantType::Font
        | VariantType::NumberSequence
        | VariantType::ColorSequence
        | VariantType::Rect => format!("{kind:?}"),
        _ => "Any".to_owned(),
    }
}

/// The text that comes most often; of several, the first.
fn most(texts: impl Iterator<Item = String>) -> Option<String> {
    let mut counted: Vec<(String, usize)> = Vec::new();
    for text in texts {
        match counted.iter_mut().find(|(known, _)| *known == text) {
            Some((_, count)) => *count += 1,
            None => counted.push((text, 1)),
        }
    }
    let mut most: Option<(String, usize)> = None;
    for (text, count) in counted {
        if most.as_ref().is_none_or(|(_, other)| count > *other) {
            most = Some((text, count));
        }
    }
    most.map(|(text, _)| text)
}

fn text_of(value: &Variant) -> Option<String> {
    let float = |number: f32| f64::from(number);
    match value {
        Variant::Bool(flag) => Some(flag.to_string()),
        Variant::Int32(number) => Some(number.to_string()),
        Variant::Int64(number) => Some(number.to_string()),
        Variant::Float32(number) => number_text(float(*number)),
        Variant::Float64(number) => number_text(*number),
        Variant::Enum(item) => Some(item.to_u32().to_string()),
        Variant::BrickColor(color) => Some((*color as u16).to_string()),
        Variant::String(text) => quoted(text),
        Variant::ContentId(id) => quoted(id.as_str()),
        Variant::Vector3(v) => numbers(&[v.x, v.y, v.z].map(float)),
        Variant::Vector2(v) => numbers(&[v.x, v.y].map(float)),
        Variant::Color3(c) => numbers(&[c.r, c.g, c.b].map(float)),
        Variant::Color3uint8(c) => numbers(&[c.r, c.g, c.b].map(|part| f64::from(part) / 255.0)),
        Variant::UDim(u) => numbers(&[float(u.scale), f64::from(u.offset)]),
        Variant::UDim2(u) => {
            let parts = [u.x, u.y].map(|part| [float(part.scale), f64::from(part.offset)]);
            numbers(parts.as_flattened())
        }
        Variant::NumberRange(range) => numbers(&[range.min, range.max].map(float)),
        Variant::CFrame(frame) => {
            let (p, o) = (frame.position, frame.orientation);
            let mut parts = vec![p.x, p.y, p.z];
            let turned: Vec<f32> =
                [o.x, o.y, o.z].into_iter().flat_map(|row| [row.x, row.y, row.z]).collect();
            if turned != [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0] {
                parts.extend(turned);
            }
            numbers(&parts.into_iter().map(float).collect::<Vec<_>>())
        }
        _ => None,
    }
}

fn number_text(number: f64) -> Option<String> {
    // Without the sign of a zero.
    (!number.is_nan()).then(|| (number + 0.0).to_string())
}

fn numbers(parts: &[f64]) -> Option<String> {
    let texts: Option<Vec<String>> = parts.iter().map(|part| number_text(*part)).collect();
    texts.map(|texts| texts.join(","))
}

/// A text after a quote; what could be taken for something else is written as its code.
fn quoted(text: &str) -> Option<String> {
    const PLAIN: &str = "-_./:;,()[]<>=+*!?&@#$^{}|~";
    let char_text = |c: char| {
        if c.is_ascii_alphanumeric() || PLAIN.contains(c) {
            c.to_string()
        } else {
            format!("%{:02X}", u32::from(c))
        }
    };
    text.is_ascii().then(|| format!("'{}", text.chars().map(char_text).collect::<String>()))
}

#[test]
fn the_list_of_classes_is_that_of_the_reflection_database() {
    let database = Database(rbx_reflection_database::get_bundled());
    let [_, version @ ..] = database.0.version;
    let version = version.map(|part| part.to_string()).join(".");
    let mut text = format!(
        "# Roblox's classes with their properties, by the reflection database of version {version} \
         (crate rbx_reflection_database).\n\
         # A line is a class: its name, the class that it is derived from, + when scripts can make \
         it and * when it is a service,\n\
         # then its own properties as NAME:TYPE=DEFAULT (! for those that can only be read), and \
         NAME=DEFAULT where only a default differs.\n"
    );
    for line in database.lines().values() {
        text.push_str(line);
        text.push('\n');
    }
    current(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/classes.txt"), &text);
}
