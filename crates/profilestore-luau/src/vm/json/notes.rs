//! What was stored and a table cannot hold: numbers beyond a double, `null`, and that an empty
//! table was an object.
//!
//! It is noted beside the table that it was read into, by its key, as the text that it had. The
//! note lives as long as the table and is out of the scripts' reach. A script sees nothing of it:
//! it finds the nearest double, or nil, or an empty table.

use std::{
    collections::HashSet,
    ffi::c_void,
    hash::{BuildHasherDefault, Hasher},
};

use mlua::{AppDataRef, Lua, LuaString, Table, Value};

/// All notes of a machine.
pub(super) struct All {
    /// `[table] = { [key] = text }`, weak in the tables.
    notes: Table,
    /// Where the tables are that may have notes. Hardly any table has some, and asking Luau costs
    /// as much as writing a small table.
    places: Places,
    /// At so many places those are looked for whose tables are gone.
    sweep_at: usize,
}

type Places = HashSet<usize, BuildHasherDefault<Spread>>;

/// Spreads places, which are asked for more often than all else here.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_usize(usize::from(*byte)));
    }

    fn write_usize(&mut self, place: usize) {
        let spread = (self.0 ^ place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = spread ^ (spread >> 32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// As many places are kept without a look whether their tables are still there.
const PLACES: usize = 1024;

/// The notes of every table that was read as `{}`.
struct OfEmptyObject(Table);

/// The text of a value that is nil to scripts.
pub(super) const NULL: &str = "null";

/// All notes of a machine; None when there never was one.
pub(super) fn all(lua: &Lua) -> Option<AppDataRef<'_, All>> {
    lua.app_data_ref()
}

impl All {
    fn new(lua: &Lua) -> mlua::Result<Self> {
        let notes = lua.create_table()?;
        let weak = lua.create_table()?;
        weak.set("__mode", "k")?;
        notes.set_metatable(Some(weak))?;
        Ok(Self { notes, places: Places::default(), sweep_at: PLACES })
    }

    /// Whether something may be noted about the table at a place.
    pub(super) fn may_be_about(&self, place: *const c_void) -> bool {
        self.places.contains(&place.addr())
    }

    /// What is noted about a table.
    pub(super) fn of(&self, table: &Table) -> Option<Table> {
        if !self.places.contains(&place_of(table)) {
            return None;
        }
        self.notes.raw_get::<Option<Table>>(table).ok().flatten()
    }

    /// The notes, in which this table is to have some.
    fn with(&mut self, table: &Table) -> Table {
        if self.places.len() >= self.sweep_at {
            let pairs = self.notes.pairs::<Table, Value>();
            let there = pairs.map(|pair| pair.map(|(table, _)| place_of(&table)));
            // A table that was not reached would lose its notes, so all places stay then.
            if let Ok(there) = there.collect::<mlua::Result<Places>>() {
                self.places = there;
            }
            self.sweep_at = PLACES.max(2 * self.places.len());
        }
        self.places.insert(place_of(table));
        self.notes.clone()
    }
}

/// Tables do not move; another one may get the place of one that is gone.
fn place_of(table: &Table) -> usize {
    table.to_pointer().addr()
}

/// All notes of a machine, in which this table is to have some.
fn all_with(lua: &Lua, table: &Table) -> mlua::Result<Table> {
    if let Some(mut all) = lua.app_data_mut::<All>() {
        return Ok(all.with(table));
    }
    let mut all = All::new(lua)?;
    let notes = all.with(table);
    lua.set_app_data(all);
    Ok(notes)
}

/// Notes the text of a value that was read into a table.
pub(super) fn note(lua: &Lua, table: &Table, key: &Value, text: &str) -> mlua::Result<()> {
    let all = all_with(lua, table)?;
    let of_table = match all.raw_get::<Option<Table>>(table)? {
        Some(of_table) => of_table,
        None => {
            let of_table = lua.create_table()?;
            all.raw_set(table, &of_table)?;
            of_table
        }
    };
    of_table.raw_set(key, text)
}

/// Notes that a table was read as an object without members.
pub(super) fn note_empty_object(lua: &Lua, table: &Table) -> mlua::Result<()> {
    let known = lua.app_data_ref::<OfEmptyObject>().map(|notes| notes.0.clone());
    let notes = match known {
        Some(notes) => notes,
        None => {
            let notes = lua.create_table()?;
            notes.raw_set(false, "{}")?;
            lua.set_app_data(OfEmptyObject(notes.clone()));
            notes
        }
    };
    all_with(lua, table)?.raw_set(table, notes)
}

/// Whether a table has no entries, and was not read with any that a script does not see.
pub(crate) fn is_empty(lua: &Lua, table: &Table) -> bool {
    table.is_empty() && all(lua).is_none_or(|all| all.of(table).is_none())
}

/// What is noted about `from` is noted about `to`, and nothing else is.
pub(crate) fn carry(lua: &Lua, from: &Table, to: &Table) -> mlua::Result<()> {
    if all(lua).is_none() {
        return Ok(());
    }
    let all = all_with(lua, to)?;
    all.raw_set(to, all.raw_get::<Value>(from)?)
}

/// What a table was read with and does not show.
#[derive(Default)]
pub(super) struct Absent {
    /// The names of members that are null.
    pub(super) names: Vec<LuaString>,
    /// The last position of a list that is null; 0 without any.
    pub(super) last_position: usize,
    empty_object: bool,
    has_numbers: bool,
}

impl Absent {
    /// True when a table that shows nothing is an object.
    pub(super) fn is_object(&self) -> bool {
        self.empty_object || !self.names.is_empty()
    }

    /// True when the notes say no more about a table than the table itself. `filled`: it has
    /// entries by now.
    pub(super) fn says_nothing(&self, filled: bool) -> bool {
        let absent = !self.names.is_empty() || self.last_position > 0;
        !absent && !self.has_numbers && (filled || !self.empty_object)
    }
}

/// What is noted about a table, but for its numbers.
pub(super) fn absent(notes: &Table) -> Absent {
    let mut absent = Absent::default();
    for (key, text) in notes.pairs::<Value, LuaString>().flatten() {
        match key {
            Value::Boolean(false) => absent.empty_object = true,
            _ if text.as_bytes() != NULL.as_bytes() => absent.has_numbers = true,
            Value::String(name) => absent.names.push(name),
            Value::Integer(position) => absent.at(position as f64),
            Value::Number(position) => absent.at(position),
            _ => {}
        }
    }
    absent
}

impl Absent {
    fn at(&mut self, position: f64) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a reader has counted it"
        )]
        let position = position as usize;
        self.last_position = self.last_position.max(position);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_found_as_long_as_it_is_there_and_places_of_others_are_forgotten() {
        let lua = Lua::new();
        let kept = lua.create_table().expect("a table");
        note(&lua, &kept, &Value::Number(1.0), "76561198000000001").expect("a note");
        for _ in 0..3 * PLACES {
            let other = lua.create_table().expect("a table");
            note_empty_object(&lua, &other).expect("a note");
            drop(other);
            if lua.used_memory() > 1 << 20 {
                lua.gc_collect().expect("garbage goes");
            }
        }
        lua.gc_collect().expect("garbage goes");
        let plain = lua.create_table().expect("a table");
        for _ in 0..PLACES {
            note_empty_object(&lua, &plain).expect("a note");
        }
        let all = all(&lua).expect("there are notes");
        assert!(all.of(&kept).is_some_and(|notes| notes.raw_len() == 1));
        assert!(all.of(&lua.create_table().expect("a table")).is_none());
        assert!(all.places.len() <= all.sweep_at, "{} places", all.places.len());
    }

    #[test]
    fn a_table_that_was_read_with_null_is_not_empty() {
        let lua = Lua::new();
        let read = |json: &str| match crate::vm::json::decode(&lua, json) {
            Ok(Value::Table(table)) => is_empty(&lua, &table),
            other => panic!("{other:?}"),
        };
        assert!(is_empty(&lua, &lua.create_table().expect("a table")));
        assert!(read("[]"));
        assert!(!read(r#"{"a":null}"#) && !read(r#"{"a":1}"#));
        assert!(read("[]"), "what is noted is noted about another table");
    }

    /// The notes behind an entry that could not be read were lost at the next save.
    #[test]
    fn places_stay_when_the_notes_cannot_be_looked_through() {
        let lua = Lua::new();
        let noted = || {
            let table = lua.create_table().expect("a table");
            note(&lua, &table, &Value::Number(1.0), "76561198000000001").expect("a note");
            table
        };
        let mut tables: Vec<Table> = (0..PLACES).map(|_| noted()).collect();
        let notes = all(&lua).expect("there are notes").notes.clone();
        notes.raw_set("no table", true).expect("an entry");
        tables.push(noted());
        let all = all(&lua).expect("there are notes");
        assert!(tables.iter().all(|table| all.of(table).is_some()));
    }
}
