//! What is known of Roblox's classes: the list that `services/classes.luau` makes them from.

/// A line for each class; its head says how to read it.
pub(crate) const LIST: &str = include_str!("classes.txt");

/// Whether a class is a service, which is there once, in the game itself.
pub(crate) fn is_service(name: &str) -> bool {
    LIST.lines().any(|line| {
        let mut words = line.split(' ');
        words.next() == Some(name) && words.nth(1).is_some_and(|marks| marks.contains('*'))
    })
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
}
