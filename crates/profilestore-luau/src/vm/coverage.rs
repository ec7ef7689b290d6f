//! Which lines of a game's scripts ran. Luau counts them when it compiles for that.

use std::collections::{BTreeMap, BTreeSet};

use mlua::{Function, Lua, chunk::Compiler};
use parking_lot::Mutex;

/// How often lines ran, by the script's name and the line's number.
pub(crate) type Lines = BTreeMap<String, BTreeMap<u32, u64>>;

/// The scripts of a machine whose lines are counted.
pub(crate) struct Watched {
    names: BTreeSet<String>,
    /// What was loaded of them. A script may be loaded more than once: copies of a module.
    loaded: Mutex<Vec<(String, Function)>>,
}

/// Counts the lines of these scripts from now on.
pub(crate) fn watch(lua: &Lua, names: BTreeSet<String>) {
    lua.set_app_data(Watched { names, loaded: Mutex::default() });
}

/// How a script is compiled whose lines are counted; None for any other.
pub(super) fn compiler(lua: &Lua, name: &str) -> Option<Compiler> {
    let watched = lua.app_data_ref::<Watched>()?;
    watched.names.contains(name).then(counting)
}

fn counting() -> Compiler {
    const STATEMENTS: u8 = 1;
    Compiler::new().set_coverage_level(STATEMENTS)
}

/// A script was loaded whose lines are counted.
pub(super) fn note(lua: &Lua, name: &str, function: &Function) {
    if let Some(watched) = lua.app_data_ref::<Watched>() {
        watched.loaded.lock().push((name.to_owned(), function.clone()));
    }
}

/// What was counted so far. Lines of scripts that were never loaded are there too, with 0:
/// `source_of` gives their texts.
pub(crate) fn counted<'a>(lua: &Lua, source_of: impl Fn(&str) -> Option<&'a str>) -> Lines {
    let Some(watched) = lua.app_data_ref::<Watched>() else { return Lines::new() };
    let mut lines: Lines = BTreeMap::new();
    for (name, function) in &*watched.loaded.lock() {
        add(lines.entry(name.clone()).or_default(), function);
    }
    for name in &watched.names {
        if lines.contains_key(name) {
            continue;
        }
        let loaded = source_of(name)
            .and_then(|source| lua.load(source).set_compiler(counting()).into_function().ok());
        if let Some(function) = loaded {
            add(lines.entry(name.clone()).or_default(), &function);
        }
    }
    lines
}

/// Adds what was counted in a script and in the functions in it.
fn add(lines: &mut BTreeMap<u32, u64>, function: &Function) {
    function.coverage(|info| {
        for (line, hits) in info.hits.iter().enumerate() {
            // Lines on which nothing can run have -1.
            if let (Ok(line), Ok(hits)) = (u32::try_from(line), u64::try_from(*hits)) {
                *lines.entry(line).or_default() += hits;
            }
        }
    });
}
