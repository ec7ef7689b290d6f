//! What is known of Roblox's classes: the list that `services/classes.luau` makes them from.

use std::{
    collections::{HashMap, HashSet},
    sync::OnceLock,
};

/// A line for each class; its head says how to read it.
pub(crate) const LIST: &str = include_str!("classes.txt");

/// A class, as its line says.
struct Class {
    base: &'static str,
    is_service: bool,
    /// Its own properties that scripts can set.
    settable: HashSet<&'static str>,
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
    let settable = words.filter_map(|word| {
        let (key, kind) = word.split_once(':').filter(|(key, _)| !key.contains('='))?;
        let kind = kind.split('=').next().unwrap_or(kind);
        (!kind.ends_with('!')).then_some(key)
    });
    Some((name, Class { base, is_service: marks.contains('*'), settable: settable.collect() }))
}

/// Whether a class is a service, which is there once, in the game itself.
pub(crate) fn is_service(name: &str) -> bool {
    classes().get(name).is_some_and(|class| class.is_service)
}

/// Whether scripts can set a property of a class.
pub(crate) fn is_settable(class: &str, property: &str) -> bool {
    let mut name = class;
    while let Some(class) = classes().get(name) {
        if class.settable.contains(property) {
            return true;
        }
        name = class.base;
    }
    false
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
    }
}
