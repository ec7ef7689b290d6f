//! Reads JSON as values.

use std::{borrow::Cow, collections::BTreeSet, fmt, mem};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mlua::{Either, Lua, LuaString, Table, Value};
use profilestore::storable::DOCUMENT;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor,
};

use super::{super::limits::with_room, exact, notes};

/// The most memory that a byte of JSON takes as tables: `{}` in a list is a table, a place in that
/// list, and a note.
const ROOM_A_BYTE: usize = 100;

/// How many values of a table are put into it at once. Until then each has a reference, of which a
/// machine has only so many.
const AT_ONCE: usize = 256;

/// The value of a JSON text. `null` becomes nil, so a key with it is not there.
pub(crate) fn decode(lua: &Lua, json: &str) -> Result<Value, String> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let texts = exact::Texts::of(json);
    let room = json.len().saturating_mul(ROOM_A_BYTE);
    let piece = with_room(lua, room, || Reader { lua, texts: &texts }.deserialize(&mut reader));
    let piece = piece.map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    match piece {
        Either::Left(text) => {
            lua.create_string(text).map(Value::String).map_err(|error| error.to_string())
        }
        Either::Right(value) => Ok(value),
    }
}

/// The same of JSON that is stored. What was stored before and breaks the rule is told with its
/// place.
pub(crate) fn decode_stored(lua: &Lua, json: &str) -> Result<Value, String> {
    decode(lua, json).map_err(|error| match DOCUMENT.check_bytes(json.as_bytes()) {
        Err(wrong) => wrong.to_string(),
        Ok(()) => error,
    })
}

/// A value that was read. A text goes into its table without a reference of its own.
type Piece<'de> = Either<&'de str, Value>;

/// The name of a member. It is copied only if it has escapes.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

#[derive(Clone, Copy)]
struct Reader<'a, 't> {
    lua: &'a Lua,
    texts: &'a exact::Texts<'t>,
}

impl<'t> Reader<'_, 't> {
    fn number<'de, E>(self, double: f64) -> Result<Piece<'de>, E> {
        self.texts.met(double);
        Ok(Either::Right(Value::Number(double)))
    }

    /// What is to be noted of a value that was just read.
    fn to_note(self, value: &Piece<'_>) -> Option<&'t str> {
        if is_nil(value) { Some(notes::NULL) } else { self.texts.take() }
    }

    /// A list of the values that were read first.
    fn list(self, items: Vec<Piece<'_>>) -> mlua::Result<Table> {
        if !items.iter().any(is_nil) {
            return self.lua.create_sequence_from(items);
        }
        // How long such a list is to a script depends on how it was filled.
        let table = self.lua.create_table()?;
        for (index, item) in items.into_iter().enumerate().filter(|(_, item)| !is_nil(item)) {
            table.raw_set((index + 1) as f64, item)?;
        }
        Ok(table)
    }

    fn note<E: serde::de::Error>(self, table: &Table, key: &Value, text: &str) -> Result<(), E> {
        notes::note(self.lua, table, key, text).map_err(E::custom)
    }

    /// Notes the numbers of a table that are the same to a script as one of those that are about to
    /// be noted. They would be taken for it when the table is written.
    fn note_alike<E: serde::de::Error>(
        self,
        table: &Table,
        texts: impl Iterator<Item = &'t str>,
    ) -> Result<(), E> {
        let doubles = texts.filter(|text| *text != notes::NULL).map(str::parse::<f64>);
        let doubles: BTreeSet<u64> = doubles.flatten().map(f64::to_bits).collect();
        if doubles.is_empty() {
            return Ok(());
        }
        for pair in table.pairs::<Value, Value>() {
            let (key, value) = pair.map_err(E::custom)?;
            let double = match value {
                Value::Number(double) => double,
                Value::Integer(whole) => whole as f64,
                _ => continue,
            };
            if doubles.contains(&double.to_bits()) {
                self.note::<E>(table, &key, &exact::written(double))?;
            }
        }
        Ok(())
    }
}

/// The text of a member's name.
fn text_of<'a>(name: &'a Either<&str, String>) -> &'a str {
    match name {
        Either::Left(name) => name,
        Either::Right(name) => name,
    }
}

fn is_nil(value: &Piece<'_>) -> bool {
    matches!(value, Either::Right(Value::Nil))
}

impl<'de> DeserializeSeed<'de> for Reader<'_, '_> {
    type Value = Piece<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Piece<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_, '_> {
    type Value = Piece<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Piece<'de>, E> {
        Ok(Either::Right(Value::Nil))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Piece<'de>, E> {
        Ok(Either::Right(Value::Boolean(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Piece<'de>, E> {
        self.number(value as f64)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Piece<'de>, E> {
        self.number(value as f64)
    }

    fn visit_f64<E>(self, value: f64) -> Result<Piece<'de>, E> {
        self.number(value)
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Piece<'de>, E> {
        Ok(Either::Left(value))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Piece<'de>, E> {
        let text = self.lua.create_string(value).map_err(E::custom)?;
        Ok(Either::Right(Value::String(text)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Piece<'de>, A::Error> {
        let (mut items, mut noted) = (Vec::new(), Vec::new());
        let (mut index, mut table) = (0_usize, None::<Table>);
        while let Some(item) = elements.next_element_seed(self)? {
            index += 1;
            if let Some(text) = self.to_note(&item) {
                noted.push((index, text));
            }
            match &table {
                Some(_) if is_nil(&item) => {}
                Some(table) => table.raw_set(index as f64, item).map_err(A::Error::custom)?,
                None => items.push(item),
            }
            if items.len() == AT_ONCE {
                table = Some(self.list(mem::take(&mut items)).map_err(A::Error::custom)?);
            }
        }
        let table = table.map_or_else(|| self.list(items), Ok).map_err(A::Error::custom)?;
        self.note_alike::<A::Error>(&table, noted.iter().map(|(_, text)| *text))?;
        for (index, text) in noted {
            self.note::<A::Error>(&table, &Value::Number(index as f64), text)?;
        }
        Ok(Either::Right(Value::Table(table)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Piece<'de>, A::Error> {
        let mut members: Vec<(Either<&'de str, String>, Piece<'de>)> = Vec::new();
        let mut noted = Vec::new();
        let (mut count, mut says_nothing, mut table) = (0_usize, false, None::<Table>);
        while let Some(Name(name)) = entries.next_key()? {
            let value = entries.next_value_seed(self)?;
            count += 1;
            says_nothing |= name == "m" && is_nil(&value);
            if let Some(text) = self.to_note(&value) {
                noted.push((name.clone(), text));
            }
            if is_nil(&value) {
                // Of two members of one name the last one counts.
                match &table {
                    Some(table) => {
                        table.raw_set(&*name, Value::Nil).map_err(A::Error::custom)?;
                    }
                    None => members.retain(|(known, _)| text_of(known) != name),
                }
                continue;
            }
            let name = match name {
                Cow::Borrowed(name) => Either::Left(name),
                Cow::Owned(name) => Either::Right(name),
            };
            match &table {
                Some(table) => table.raw_set(name, value).map_err(A::Error::custom)?,
                None => members.push((name, value)),
            }
            if members.len() == AT_ONCE {
                let begun = self.lua.create_table_from(mem::take(&mut members));
                table = Some(begun.map_err(A::Error::custom)?);
            }
        }
        let table = table.map_or_else(|| self.lua.create_table_from(members), Ok);
        let table = table.map_err(A::Error::custom)?;
        self.note_alike::<A::Error>(&table, noted.iter().map(|(_, text)| *text))?;
        for (name, text) in noted {
            let key = Value::String(self.lua.create_string(&*name).map_err(A::Error::custom)?);
            // A later member of this name may have a value.
            let is_absent = |key: &Value| matches!(table.raw_get(key), Ok(Value::Nil));
            if text != notes::NULL || is_absent(&key) {
                self.note::<A::Error>(&table, &key, text)?;
            }
        }
        if count == 0 {
            notes::note_empty_object(self.lua, &table).map_err(A::Error::custom)?;
        }
        // Roblox writes a buffer with exactly these members, the first of them null: m, t, base64.
        let buffer = if count == 3 && says_nothing { buffer_of(self.lua, &table) } else { None };
        Ok(Either::Right(buffer.map_or(Value::Table(table), Value::Buffer)))
    }
}

/// Whether a script gets a buffer for a JSON text.
pub(crate) fn is_buffer(json: &str) -> bool {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Buffer<'a> {
        #[serde(rename = "m")]
        _nothing: (),
        #[serde(borrow)]
        t: Cow<'a, str>,
        #[serde(borrow)]
        base64: Cow<'a, str>,
    }
    // A list would be taken for the members in their order.
    let read = json.starts_with('{').then(|| serde_json::from_str::<Buffer<'_>>(json));
    let is_one =
        |buffer: Buffer<'_>| buffer.t == "buffer" && STANDARD.decode(&*buffer.base64).is_ok();
    read.is_some_and(|read| read.is_ok_and(is_one))
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
