//! What was stored and a table cannot hold: numbers beyond a double, `null`, and that an empty
//! table was an object.
//!
//! It is noted beside the table that it was read into, by its key, as the text that it had. The
//! note lives as long as the table and is out of the scripts' reach. A script sees nothing of it:
//! it finds the nearest double, or nil, or an empty table.

use mlua::{Lua, LuaString, Table, Value};

/// The notes of a machine: `[table] = { [key] = text }`, weak in the tables.
struct All(Table);

/// The notes of every table that was read as `{}`.
struct OfEmptyObject(Table);

/// The text of a value that is nil to scripts.
pub(super) const NULL: &str = "null";

/// All notes of a machine; None when there never was one.
pub(super) fn all(lua: &Lua) -> Option<Table> {
    lua.app_data_ref::<All>().map(|all| all.0.clone())
}

/// What is noted about a table.
pub(super) fn of(all: &Table, table: &Table) -> Option<Table> {
    all.raw_get::<Option<Table>>(table).ok().flatten()
}

fn all_or_new(lua: &Lua) -> mlua::Result<Table> {
    if let Some(all) = all(lua) {
        return Ok(all);
    }
    let all = lua.create_table()?;
    let weak = lua.create_table()?;
    weak.set("__mode", "k")?;
    all.set_metatable(Some(weak))?;
    lua.set_app_data(All(all.clone()));
    Ok(all)
}

/// Notes the text of a value that was read into a table.
pub(super) fn note(lua: &Lua, table: &Table, key: &Value, text: &str) -> mlua::Result<()> {
    let all = all_or_new(lua)?;
    let of_table = match of(&all, table) {
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
    all_or_new(lua)?.raw_set(table, notes)
}

/// What is noted about `from` is noted about `to`, and nothing else is.
pub(crate) fn carry(lua: &Lua, from: &Table, to: &Table) -> mlua::Result<()> {
    let Some(all) = all(lua) else { return Ok(()) };
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
}

impl Absent {
    /// True when a table that shows nothing is an object.
    pub(super) fn is_object(&self) -> bool {
        self.empty_object || !self.names.is_empty()
    }
}

/// What is noted about a table and is nil to scripts.
pub(super) fn absent(notes: &Table) -> Absent {
    let mut absent = Absent::default();
    for (key, text) in notes.pairs::<Value, LuaString>().flatten() {
        match key {
            Value::Boolean(false) => absent.empty_object = true,
            _ if text.as_bytes() != NULL.as_bytes() => {}
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
