//! Writes values as JSON.

use std::{ffi::c_void, io};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mlua::{BorrowedBytes, Lua, LuaString, Table, Value};
use profilestore::storable::{self, Limits};

use super::{Problem, Unstorable, exact, notes};

/// What `HttpService` writes: as deep as its readers go, and more than any store takes, so that a
/// game can look how large its data is.
const TEXT: Limits = Limits { bytes: 8 << 20, depth: 127 };

/// How far beyond the limit a value is written, only to tell how large it is.
const BEYOND: usize = 1 << 20;

/// JSON of a value that is to be stored, as large and as deep as `limits` allow. `name` is what
/// paths in errors begin with.
pub(crate) fn encode(
    lua: &Lua,
    name: &str,
    value: &Value,
    limits: Limits,
) -> Result<String, Unstorable> {
    written(name, value, limits, notes::all(lua).ok().flatten())
}

/// JSON of a value for a script, as Roblox writes it: of what the script sees.
pub(crate) fn encode_seen(name: &str, value: &Value) -> Result<String, Unstorable> {
    written(name, value, TEXT, None)
}

fn written(
    name: &str,
    value: &Value,
    limits: Limits,
    notes: Option<Table>,
) -> Result<String, Unstorable> {
    let mut writer = Writer {
        limits,
        out: Vec::with_capacity(256),
        path: Vec::new(),
        tables: Vec::new(),
        notes,
    };
    let written = writer.value(value).and_then(|()| writer.check_size());
    match written {
        // All of it was checked to be UTF-8 when it was written.
        Ok(()) => Ok(String::from_utf8(writer.out).expect("JSON is text")),
        // The size is that of the whole.
        Err(problem @ Problem::Rule(storable::Problem::TooLarge { .. })) => {
            Err(Unstorable { path: name.to_owned(), problem })
        }
        Err(problem) => Err(Unstorable { path: path_text(name, &writer.path), problem }),
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
    limits: Limits,
    out: Vec<u8>,
    path: Vec<Step>,
    /// The tables on the way to here, to find cycles.
    tables: Vec<*const c_void>,
    /// What was stored and a table cannot hold.
    notes: Option<Table>,
}

fn script(what: impl Into<String>) -> Problem {
    Problem::Script(what.into())
}

fn engine(error: mlua::Error) -> Problem {
    Problem::Script(error.to_string())
}

impl Writer {
    fn value(&mut self, value: &Value) -> Result<(), Problem> {
        // Tables that share parts could go on for ever; up to here the size is told as it is.
        if self.out.len() > self.limits.bytes + BEYOND {
            return self.check_size();
        }
        match value {
            Value::Nil => self.out.extend_from_slice(b"null"),
            Value::Boolean(value) => {
                self.out.extend_from_slice(if *value { b"true" } else { b"false" })
            }
            Value::Integer(value) => self.json(value)?,
            Value::Number(value) => self.number(*value)?,
            Value::String(value) => self.text(value)?,
            Value::Buffer(buffer) => {
                self.check_depth()?;
                let text = STANDARD.encode(buffer.to_vec());
                self.out.extend_from_slice(br#"{"m":null,"t":"buffer","base64":""#);
                self.out.extend_from_slice(text.as_bytes());
                self.out.extend_from_slice(b"\"}");
            }
            Value::Table(table) => self.table(table)?,
            other => return Err(script(format!("a {} cannot be stored", other.type_name()))),
        }
        Ok(())
    }

    fn check_size(&self) -> Result<(), Problem> {
        self.limits.check_size(self.out.len()).map_err(|wrong| wrong.problem.into())
    }

    /// One table more around what is written next.
    fn check_depth(&self) -> Result<(), Problem> {
        let limit = self.limits.depth;
        if self.tables.len() < limit {
            Ok(())
        } else {
            Err(storable::Problem::TooDeep { limit }.into())
        }
    }

    fn json(&mut self, value: &impl serde::Serialize) -> Result<(), Problem> {
        serde_json::to_writer(&mut self.out as &mut dyn io::Write, value)
            .map_err(|error| script(error.to_string()))
    }

    fn number(&mut self, value: f64) -> Result<(), Problem> {
        if !value.is_finite() {
            return Err(storable::Problem::NotFinite { number: value.to_string() }.into());
        }
        self.out.extend_from_slice(exact::written(value).as_bytes());
        Ok(())
    }

    /// A value of a table, about which `notes` may know more than the script.
    fn member(
        &mut self,
        notes: Option<&Table>,
        key: impl FnOnce() -> Value,
        value: &Value,
    ) -> Result<(), Problem> {
        let double = match value {
            Value::Number(double) => Some(*double),
            Value::Integer(whole) => Some(*whole as f64),
            _ => None,
        };
        if let (Some(notes), Some(double)) = (notes, double)
            && let Some(text) = exact::text_of(notes, &key(), double)
        {
            let text = text.to_str().map_err(engine)?;
            storable::check_number(&text)?;
            self.out.extend_from_slice(text.as_bytes());
            return Ok(());
        }
        self.value(value)
    }

    fn text(&mut self, value: &LuaString) -> Result<(), Problem> {
        let bytes = value.as_bytes();
        self.json(&utf8(&bytes)?)
    }

    fn name(&mut self, name: &LuaString) -> Result<(), Problem> {
        let bytes = name.as_bytes();
        let name = utf8(&bytes)?;
        storable::check_name(name)?;
        self.json(&name)
    }

    fn table(&mut self, table: &Table) -> Result<(), Problem> {
        let this = table.to_pointer();
        if self.tables.contains(&this) {
            return Err(script("a table that contains itself cannot be stored"));
        }
        self.check_depth()?;
        self.tables.push(this);
        self.entries(table)?;
        self.tables.pop();
        Ok(())
    }

    fn entries(&mut self, table: &Table) -> Result<(), Problem> {
        let notes = self.notes.as_ref().and_then(|all| notes::of(all, table));
        let mut named: Vec<(LuaString, Value)> = Vec::new();
        let mut positions = Positions::default();
        for pair in table.pairs::<Value, Value>() {
            let (key, value) = pair.map_err(engine)?;
            match key {
                Value::String(key) => named.push((key, value)),
                Value::Integer(position) => positions.add(position as f64),
                Value::Number(position) => positions.add(position),
                other => {
                    return Err(script(format!(
                        "a key that is a {} cannot be stored",
                        other.type_name()
                    )));
                }
            }
        }
        let read = notes.as_ref().map(notes::absent).unwrap_or_default();
        if positions.count == 0 && (!named.is_empty() || read.is_object()) {
            let gone =
                read.names.into_iter().filter(|name| matches!(table.raw_get(name), Ok(Value::Nil)));
            named.extend(gone.map(|name| (name, Value::Nil)));
            return self.object(notes.as_ref(), named);
        }
        if !named.is_empty() {
            return Err(script("a table with both numbers and texts as keys cannot be stored"));
        }
        // Where a list had `null`, the script may leave gaps.
        let length = if read.last_position == 0 {
            table.raw_len()
        } else {
            positions.last.max(read.last_position)
        };
        if positions.odd || (read.last_position == 0 && length != positions.count) {
            return Err(script(
                "a list with gaps, or with keys that are no positions, cannot be stored",
            ));
        }
        self.list(table, notes.as_ref(), length)
    }

    fn list(&mut self, table: &Table, notes: Option<&Table>, length: usize) -> Result<(), Problem> {
        self.out.push(b'[');
        for index in 1..=length {
            if index > 1 {
                self.out.push(b',');
            }
            let value: Value = table.raw_get(index).map_err(engine)?;
            self.path.push(Step::Index(index));
            self.member(notes, || Value::Number(index as f64), &value)?;
            self.path.pop();
        }
        self.out.push(b']');
        Ok(())
    }

    fn object(
        &mut self,
        notes: Option<&Table>,
        named: Vec<(LuaString, Value)>,
    ) -> Result<(), Problem> {
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
            self.name(key)?;
            self.out.push(b':');
            self.member(notes, || Value::String(key.clone()), value)?;
            self.path.pop();
        }
        self.out.push(b'}');
        Ok(())
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Problem> {
    let wrong = |error: std::str::Utf8Error| {
        script(format!(
            "a text that is no valid UTF-8 (at byte {}) cannot be stored",
            error.valid_up_to() + 1
        ))
    };
    std::str::from_utf8(bytes).map_err(wrong)
}

/// The numbers among the keys of a table.
#[derive(Default)]
struct Positions {
    count: usize,
    last: usize,
    /// Some are no positions of a list.
    odd: bool,
}

impl Positions {
    fn add(&mut self, position: f64) {
        self.count += 1;
        if position.fract() == 0.0 && (1.0..9e15).contains(&position) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "it is whole and within the range"
            )]
            let position = position as usize;
            self.last = self.last.max(position);
        } else {
            self.odd = true;
        }
    }
}
