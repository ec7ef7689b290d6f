//! What is known of Roblox's classes: the list that `services/classes.luau` makes them from.

use std::{collections::HashMap, sync::OnceLock};

/// A line for each class; its head says how to read it.
pub(crate) const LIST: &str = include_str!("classes.txt");

/// A class, as its line says.
struct Class {
    base: &'static str,
    is_service: bool,
    /// Its own properties that scripts can read, and whether they can set them.
    properties: HashMap<&'static str, bool>,
}

fn classes() -> &'static HashMap<&'static str, Class> {
    static CLASSES: OnceLock<HashMap<&'static str, Class>> = OnceLock::new();
    CLASSES.get_or_init(|| {
        let lines = LIST.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(class_of).collect()
    })
}

fn class_of(line: &'static str) -> Option<(&'static str, Class)> {
    let mut words = line.split(' ');
    let (name, base, marks) = (words.next()?, words.next()?, words.next()?);
    // NAME:TYPE=DEFAULT; a line also has NAME=DEFAULT for properties of its base.
    let properties = words.filter_map(|word| {
        let (key, kind) = word.split_once(':').filter(|(key, _)| !key.contains('='))?;
        let kind = kind.split('=').next().unwrap_or(kind);
        Some((key, !kind.ends_with('!')))
    });
    Some((name, Class { base, is_service: marks.contains('*'), properties: properties.collect() }))
}

/// Whether a class is a service, which is there once, in the game itself.
pub(crate) fn is_service(name: &str) -> bool {
    classes().get(name).is_some_and(|class| class.is_service)
}

/// Whether scripts can set a property of a class.
pub(crate) fn is_settable(class: &str, property: &str) -> bool {
    access(class, property) == Some(true)
}

/// Whether scripts can read a property of a class.
pub(crate) fn is_readable(class: &str, property: &str) -> bool {
    access(class, property).is_some()
}

/// Whether scripts can set a property that they can read.
fn access(class: &str, property: &str) -> Option<bool> {
    let mut name = class;
    while let Some(class) = classes().get(name) {
        if let Some(is_settable) = class.properties.get(property) {
            return Some(*is_settable);
        }
        name = class.base;
    }
    None
}

/// Whether Roblox has a property of a class that no script can reach. Files may give it, as those
/// of new projects do; it is the engine's own business.
pub(crate) fn is_engines_own(class: &str, property: &str) -> bool {
    let database = rbx_reflection_database::get_bundled();
    let known = database.classes.get(class);
    let has = known.is_some_and(|class| {
        database.superclasses_iter(class).any(|class| class.properties.contains_key(property))
    });
    has && !is_readable(class, property)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_told_from_other_classes() {
        for name in ["Workspace", "ServerScriptService", "SoundService", "Players"] {
            assert!(is_service(name), "{name}");
        }
        for name in ["Part", "BasePart", "Instance", "#", "A", "Main"] {
            assert!(!is_service(name), "{name}");
        }
    }

    #[test]
    fn properties_that_scripts_can_set_are_told_from_others() {
        for (class, property) in
            [("Part", "Anchored"), ("Script", "RunContext"), ("TextLabel", "Text")]
        {
            assert!(is_settable(class, property), "{class}.{property}");
        }
        for (class, property) in
            [("Part", "Mass"), ("Players", "MaxPlayers"), ("Part", "Cheese"), ("Cheese", "Size")]
        {
            assert!(!is_settable(class, property), "{class}.{property}");
        }
        for (class, property) in [("Part", "Mass"), ("MeshPart", "MeshId")] {
            assert!(is_readable(class, property), "{class}.{property}");
        }
    }

    #[test]
    fn properties_that_only_the_engine_knows_are_told_from_those_that_are_none() {
        for (class, property) in [("Workspace", "FilteringEnabled"), ("Lighting", "Technology")] {
            assert!(is_engines_own(class, property), "{class}.{property}");
        }
        for (class, property) in [("Part", "Cheese"), ("Part", "Anchored"), ("Cheese", "Size")] {
            assert!(!is_engines_own(class, property), "{class}.{property}");
        }
    }
}
