//! Luau values as JSON, and back.
//!
//! Storable is what a data store takes: booleans, finite numbers, UTF-8 texts, buffers, tables that are lists without gaps or have
//! only strings as keys. Anything else is refused with the path of the value. Keys are written in order, so equal tables give equal
//! JSON. An empty table is written as a list, as Roblox does. A buffer has the form that Roblox gives it:
//! `{"m":null,"t":"buffer","base64":"..."}`. A number that a double cannot hold is written as it was read, see [`exact`].

use std::{borrow::Cow, ffi::c_void, fmt, io};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mlua::{BorrowedBytes, Lua, LuaString, Table, Value};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::exact;

/// How deep tables may nest: what every reader of the stored JSON can read.
pub(crate) const MAX_DEPTH: usize = 100;

/// How long the JSON of a value may get. No store takes as much, and tables that share parts could make it endless.
const MAX_BYTES: usize = 5 << 20;

const TOO_LARGE: &str = "more than";

/// A value that cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {what}")]
pub(crate) struct Unstorable {
    /// Where it is, such as `Data.items[3].name`.
    pub(crate) path: String,
    /// What is wrong with it.
    pub(crate) what: String,
}

impl Unstorable {
    /// True when nothing is wrong but the size.
    pub(crate) fn is_too_large(&self) -> bool {
        self.what.starts_with(TOO_LARGE)
    }
}

/// JSON of a value. `name` is what paths in errors begin with.
pub(crate) fn encode(lua: &Lua, name: &str, value: &Value) -> Result<String, Unstorable> {
    let notes = exact::notes(lua).ok().flatten();
    let mut writer = Writer { out: Vec::with_capacity(256), path: Vec::new(), tables: Vec::new(), notes };
    match writer.value(value) {
        // All of it was checked to be UTF-8 when it was written.
        Ok(()) => Ok(String::from_utf8(writer.out).expect("JSON is text")),
        Err(what) => Err(Unstorable { path: path_text(name, &writer.path), what }),
    }
}

enum Step {
    Index(usize),
    Key(LuaString),
}

fn path_text(name: &str, path: &[Step]) -> String {
    let mut text = name.to_owned();
    for step in path {
        match step {
            Step::Index(index) => text.push_str(&format!("[{index}]")),
            Step::Key(key) => {
                let key = key.to_string_lossy();
                if key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !key.is_empty() {
                    text.push_str(&format!(".{key}"));
                } else {
                    text.push_str(&format!("[{key:?}]"));
                }
            }
        }
    }
    text
}

struct Writer {
    out: Vec<u8>,
    path: Vec<Step>,
    /// The tables on the way to here, to find cycles.
    tables: Vec<*const c_void>,
    /// Numbers as they were stored.
    notes: Option<Table>,
}

impl Writer {
    fn value(&mut self, value: &Value) -> Result<(), String> {
        if self.out.len() > MAX_BYTES {
            return Err(format!("{TOO_LARGE} {MAX_BYTES} bytes of JSON cannot be stored"));
        }
        match value {
            Value::Nil => self.out.extend_from_slice(b"null"),
            Value::Boolean(value) => self.out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Value::Integer(value) => self.json(value)?,
            Value::Number(value) => self.number(*value)?,
            Value::String(value) => self.text(value)?,
            Value::Buffer(buffer) => {
                let text = STANDARD.encode(buffer.to_vec());
                self.out.extend_from_slice(br#"{"m":null,"t":"buffer","base64":""#);
                self.out.extend_from_slice(text.as_bytes());
                self.out.extend_from_slice(b"\"}");
            }
            Value::Table(table) => self.table(table)?,
            other => return Err(format!("a {} cannot be stored", other.type_name())),
        }
        Ok(())
    }

    fn json(&mut self, value: &impl serde::Serialize) -> Result<(), String> {
        serde_json::to_writer(&mut self.out as &mut dyn io::Write, value).map_err(|error| error.to_string())
    }

    fn number(&mut self, value: f64) -> Result<(), String> {
        if !value.is_finite() {
            return Err(format!("{value} cannot be stored"));
        }
        self.out.extend_from_slice(exact::written(value).as_bytes());
        Ok(())
    }

    /// A value of a table, about which `notes` may know more than the script.
    fn member(&mut self, notes: Option<&Table>, key: impl FnOnce() -> Value, value: &Value) -> Result<(), String> {
        let double = match value {
            Value::Number(double) => Some(*double),
            Value::Integer(whole) => Some(*whole as f64),
            _ => None,
        };
        if let (Some(notes), Some(double)) = (notes, double)
            && let Some(text) = exact::text_of(notes, &key(), double)
        {
            self.out.extend_from_slice(&text.as_bytes());
            return Ok(());
        }
        self.value(value)
    }

    fn text(&mut self, value: &LuaString) -> Result<(), String> {
        let bytes = value.as_bytes();
        match std::str::from_utf8(&bytes) {
            Ok(text) => self.json(&text),
            Err(error) => Err(format!("a text that is no valid UTF-8 (at byte {}) cannot be stored", error.valid_up_to() + 1)),
        }
    }

    fn table(&mut self, table: &Table) -> Result<(), String> {
        let this = table.to_pointer();
        if self.tables.contains(&this) {
            return Err("a table that contains itself cannot be stored".to_owned());
        }
        if self.tables.len() == MAX_DEPTH {
            return Err(format!("tables that nest more than {MAX_DEPTH} deep cannot be stored"));
        }
        self.tables.push(this);
        self.entries(table)?;
        self.tables.pop();
        Ok(())
    }

    fn entries(&mut self, table: &Table) -> Result<(), String> {
        let notes = self.notes.as_ref().and_then(|notes| notes.raw_get::<Option<Table>>(table).ok().flatten());
        let notes = notes.as_ref();
        let mut named: Vec<(LuaString, Value)> = Vec::new();
        let mut numbered = 0_usize;
        for pair in table.pairs::<Value, Value>() {
            let (key, value) = pair.map_err(|error| error.to_string())?;
            match key {
                Value::String(key) => named.push((key, value)),
                Value::Integer(_) | Value::Number(_) => numbered += 1,
                other => return Err(format!("a key that is a {} cannot be stored", other.type_name())),
            }
        }
        if numbered == 0 && !named.is_empty() {
            return self.object(notes, named);
        }
        if !named.is_empty() {
            return Err("a table with both numbers and texts as keys cannot be stored".to_owned());
        }
        let length = table.raw_len();
        if length != numbered {
            return Err("a list with gaps, or with keys that are no positions, cannot be stored".to_owned());
        }
        self.out.push(b'[');
        for index in 1..=length {
            if index > 1 {
                self.out.push(b',');
            }
            let value: Value = table.raw_get(index).map_err(|error| error.to_string())?;
            self.path.push(Step::Index(index));
            self.member(notes, || Value::Number(index as f64), &value)?;
            self.path.pop();
        }
        self.out.push(b']');
        Ok(())
    }

    fn object(&mut self, notes: Option<&Table>, named: Vec<(LuaString, Value)>) -> Result<(), String> {
        let bytes: Vec<BorrowedBytes> = named.iter().map(|(key, _)| key.as_bytes()).collect();
        let mut order: Vec<usize> = (0..named.len()).collect();
        order.sort_unstable_by(|a, b| bytes[*a].cmp(&bytes[*b]));
        self.out.push(b'{');
        for (n, index) in order.into_iter().enumerate() {
            if n > 0 {
                self.out.push(b',');
            }
            let (key, value) = &named[index];
            self.path.push(Step::Key(key.clone()));
            self.text(key)?;
            self.out.push(b':');
            self.member(notes, || Value::String(key.clone()), value)?;
            self.path.pop();
        }
        self.out.push(b'}');
        Ok(())
    }
}

/// The value of a JSON text. `null` becomes nil, so a key with it is not there.
pub(crate) fn decode(lua: &Lua, json: &str) -> Result<Value, String> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let texts = exact::Texts::of(json);
    let value = Reader { lua, texts: &texts }.deserialize(&mut reader).map_err(|error| error.to_string())?;
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
            if let Some(text) = self.texts.take() {
                exact::note(self.lua, table, &key, text)?;
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
        while let Some(key) = entries.next_key::<Cow<'de, str>>()? {
            let value = entries.next_value_seed(self)?;
            let key = self.lua.create_string(key.as_bytes()).map_err(A::Error::custom)?;
            self.set(&table, Value::String(key), value)?;
        }
        Ok(buffer_of(self.lua, &table).map_or(Value::Table(table), Value::Buffer))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn json(source: &str) -> Result<String, String> {
        let lua = Lua::new();
        encode(&lua, "Data", &lua.load(source).eval::<Value>().expect("a value")).map_err(|error| error.to_string())
    }

    #[test]
    fn values_come_back_as_they_were() {
        let lua = Lua::new();
        for text in [
            r#"{"a":[1,2.5,-3,1e300],"b":{"c":"x\n\u0001é"},"d":true,"e":false}"#,
            r#"[[],[[]],"",0]"#,
            r#"{"buf":{"m":null,"t":"buffer","base64":"aGVsbG8="}}"#,
            "9007199254740992",
            r#"{"a":[1,76561198000000001,-9223372036854775808],"b":18446744073709551615,"c":{"d":9007199254740993},"e":-0.0}"#,
        ] {
            let value = decode(&lua, text).expect("JSON");
            let again = encode(&lua, "Data", &value).expect("storable");
            let (a, b): (serde_json::Value, serde_json::Value) =
                (serde_json::from_str(text).expect("JSON"), serde_json::from_str(&again).expect("JSON"));
            assert_eq!(a, b);
        }
    }

    #[test]
    fn a_number_is_kept_to_the_digit_while_it_is_left_alone() {
        let lua = Lua::new();
        let value = decode(&lua, r#"{"ids":[76561198000000001,76561198000000099],"id":76561198000000001,"n":1}"#).expect("JSON");
        let edit = lua.load("local data = ... table.remove(data.ids, 1) data.id += 64 data.n = 2");
        edit.call::<()>(&value).expect("an edit");
        let again = encode(&lua, "Data", &value).expect("storable");
        assert_eq!(again, r#"{"id":76561198000000064,"ids":[76561198000000099],"n":2}"#);
    }

    #[test]
    fn keys_are_in_order_and_an_empty_table_is_a_list() {
        assert_eq!(json("return {b = 1, a = {}, c = {1, 2}}").expect("storable"), r#"{"a":[],"b":1,"c":[1,2]}"#);
    }

    #[test]
    fn what_cannot_be_stored_is_named_with_its_path() {
        let cases = [
            ("return {a = {b = {1, 2, 0/0}}}", "Data.a.b[3]: NaN cannot be stored"),
            ("return {a = 1/0}", "Data.a: inf cannot be stored"),
            ("return {['a key'] = print}", "Data[\"a key\"]: a function cannot be stored"),
            ("return {1, 2, x = 3}", "Data: a table with both numbers and texts as keys cannot be stored"),
            ("return {x = {1, nil, 3}}", "Data.x: a list with gaps, or with keys that are no positions, cannot be stored"),
            ("return {[1.5] = 1}", "Data: a list with gaps, or with keys that are no positions, cannot be stored"),
            ("return {[true] = 1}", "Data: a key that is a boolean cannot be stored"),
            ("local t = {} t.me = {t} return t", "Data.me[1]: a table that contains itself cannot be stored"),
            ("return {s = '\\255'}", "Data.s: a text that is no valid UTF-8 (at byte 1) cannot be stored"),
            ("return {c = coroutine.create(print)}", "Data.c: a thread cannot be stored"),
        ];
        for (source, problem) in cases {
            assert_eq!(json(source).expect_err(source), problem);
        }
        let deep = json("local t = {} for _ = 1, 200 do t = {t} end return t").expect_err("too deep");
        assert!(deep.ends_with("deep cannot be stored"), "{deep}");
        let endless = json("local t = {'x'} for _ = 1, 90 do t = {t, t} end return t").expect_err("too large");
        assert!(endless.ends_with("more than 5242880 bytes of JSON cannot be stored"), "{endless}");
    }

    #[test]
    fn the_same_table_twice_is_no_cycle() {
        assert_eq!(json("local t = {1} return {t, t}").expect("storable"), "[[1],[1]]");
    }
}
