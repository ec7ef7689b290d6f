//! Reads JSON as values.

use std::{borrow::Cow, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mlua::{Lua, LuaString, Table, Value};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::{exact, notes};

/// The value of a JSON text. `null` becomes nil, so a key with it is not there.
pub(crate) fn decode(lua: &Lua, json: &str) -> Result<Value, String> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let texts = exact::Texts::of(json);
    let value = Reader { lua, texts: &texts }
        .deserialize(&mut reader)
        .map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Reader<'a, 't> {
    lua: &'a Lua,
    texts: &'a exact::Texts<'t>,
}

impl Reader<'_, '_> {
    fn number<E>(self, double: f64) -> Result<Value, E> {
        self.texts.met(double);
        Ok(Value::Number(double))
    }

    /// Puts a value that was just read into its table.
    fn set<E: serde::de::Error>(self, table: &Table, key: Value, value: Value) -> Result<(), E> {
        let put = || {
            if value.is_nil() {
                return notes::note(self.lua, table, &key, notes::NULL);
            }
            if let Some(text) = self.texts.take() {
                notes::note(self.lua, table, &key, text)?;
            }
            table.raw_set(&key, value)
        };
        put().map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Boolean(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        self.number(value as f64)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        self.number(value as f64)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        self.number(value)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.lua.create_string(value).map(Value::String).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let table = self.lua.create_table().map_err(A::Error::custom)?;
        let mut index = 0_usize;
        while let Some(item) = items.next_element_seed(self)? {
            index += 1;
            self.set(&table, Value::Number(index as f64), item)?;
        }
        Ok(Value::Table(table))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let table = self.lua.create_table().map_err(A::Error::custom)?;
        let (mut count, mut says_nothing) = (0_usize, false);
        while let Some(name) = entries.next_key::<Cow<'de, str>>()? {
            let value = entries.next_value_seed(self)?;
            count += 1;
            says_nothing |= name == "m" && value.is_nil();
            let key = self.lua.create_string(name.as_bytes()).map_err(A::Error::custom)?;
            self.set(&table, Value::String(key), value)?;
        }
        if count == 0 {
            notes::note_empty_object(self.lua, &table).map_err(A::Error::custom)?;
        }
        // Roblox writes a buffer with exactly these members, the first of them null: m, t, base64.
        let buffer = if count == 3 && says_nothing { buffer_of(self.lua, &table) } else { None };
        Ok(buffer.map_or(Value::Table(table), Value::Buffer))
    }
}

/// The buffer that a table stands for.
fn buffer_of(lua: &Lua, table: &Table) -> Option<mlua::Buffer> {
    let kind: LuaString = table.raw_get("t").ok()?;
    if kind.as_bytes() != b"buffer" {
        return None;
    }
    let text: LuaString = table.raw_get("base64").ok()?;
    lua.create_buffer(STANDARD.decode(text.as_bytes()).ok()?).ok()
}
