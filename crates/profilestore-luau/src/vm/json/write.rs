//! Writes values as JSON.
//!
//! A reference to a Lua value costs more than writing it. So a table is walked through in one go,
//! names and numbers come without a reference, and the memory that a table needs is shared by all.
//! The objects of a list mostly have the same names, which are sorted and checked once, see
//! [`super::shape`].

use std::{ffi::c_void, mem};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mlua::{AppDataRef, Lua, LuaString, Table, Value};
use profilestore::storable::{self, Limits};
use serde::Serialize;

use super::{
    Problem, Unstorable, a_kind_of, exact, notes,
    positions::{Positions, has_positions_only},
    shape::Shape,
};

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
    encode_to_copy(lua, name, value, limits).map(|(json, _)| json)
}

/// The same, and whether the value is plain: nothing is noted about any of its tables, so that a
/// copy of it is what reading the JSON gives.
pub(crate) fn encode_to_copy(
    lua: &Lua,
    name: &str,
    value: &Value,
    limits: Limits,
) -> Result<(String, bool), Unstorable> {
    written(name, value, Form { limits, list_wins: false }, notes::all(lua))
}

/// JSON of a value for a script: of what the script sees.
pub(crate) fn encode_seen(name: &str, value: &Value) -> Result<String, Unstorable> {
    written(name, value, Form { limits: TEXT, list_wins: false }, None).map(|(json, _)| json)
}

/// JSON of a value as `HttpService:JSONEncode` writes it: the same, but that a table with both
/// numbers and texts as keys is a list, and what has texts as keys is left out.
pub(crate) fn encode_as_roblox(name: &str, value: &Value) -> Result<String, Unstorable> {
    written(name, value, Form { limits: TEXT, list_wins: true }, None).map(|(json, _)| json)
}

/// What the JSON may be.
#[derive(Clone, Copy)]
struct Form {
    limits: Limits,
    /// Of a table with both numbers and texts as keys the list is written, and nothing else.
    list_wins: bool,
}

fn written(
    name: &str,
    value: &Value,
    Form { limits, list_wins }: Form,
    notes: Option<AppDataRef<'_, notes::All>>,
) -> Result<(String, bool), Unstorable> {
    let mut writer = Writer {
        limits,
        list_wins,
        out: Vec::with_capacity(256),
        path: Vec::new(),
        tables: Vec::new(),
        names: Vec::new(),
        members: Vec::new(),
        shapes: Vec::new(),
        notes,
        is_plain: true,
    };
    let written = writer.value(value).and_then(|()| writer.check_size());
    match written {
        // All of it was checked to be UTF-8 when it was written.
        Ok(()) => Ok((String::from_utf8(writer.out).expect("JSON is text"), writer.is_plain)),
        // The size is that of the whole.
        Err(problem @ Problem::Rule(storable::Problem::TooLarge { .. })) => {
            Err(Unstorable { path: name.to_owned(), problem })
        }
        Err(problem) => Err(Unstorable { path: writer.path_text(name), problem }),
    }
}

/// One step on the way to a value.
#[derive(Clone, Copy)]
enum Step {
    Index(usize),
    Name(Name),
}

/// Where a name stands in [`Writer::names`].
#[derive(Clone, Copy)]
struct Name {
    from: usize,
    to: usize,
}

struct Member {
    name: Name,
    value: Value,
}

struct Writer<'a> {
    limits: Limits,
    list_wins: bool,
    out: Vec<u8>,
    path: Vec<Step>,
    /// The tables on the way to here, to find cycles.
    tables: Vec<*const c_void>,
    /// The names in the objects on the way to here, the innermost object's last.
    names: Vec<u8>,
    /// What has these names.
    members: Vec<Member>,
    /// The names of the object that was written last, for each depth.
    shapes: Vec<Shape>,
    /// What was stored and a table cannot hold.
    notes: Option<AppDataRef<'a, notes::All>>,
    /// Nothing was noted about a table that was written.
    is_plain: bool,
}

fn script(what: impl Into<String>) -> Problem {
    Problem::Script(what.into())
}

fn engine(error: mlua::Error) -> Problem {
    Problem::Script(error.to_string())
}

impl Writer<'_> {
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
            Value::Integer(value) => json(&mut self.out, value)?,
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
            other => return Err(script(format!("{} cannot be stored", a_kind_of(other)))),
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

    fn number(&mut self, value: f64) -> Result<(), Problem> {
        if !value.is_finite() {
            return Err(storable::Problem::NotFinite { number: value.to_string() }.into());
        }
        exact::write(&mut self.out, value);
        Ok(())
    }

    /// A value of a table, about which `notes` may know more than the script.
    fn member(&mut self, notes: Option<&Table>, at: Step, value: &Value) -> Result<(), Problem> {
        if let Some(notes) = notes
            && let Some(double) = double_of(value)
            && let Some(text) = self.noted(notes, at, double)
        {
            let text = text.to_str().map_err(engine)?;
            storable::check_number(&text)?;
            self.out.extend_from_slice(text.as_bytes());
            return Ok(());
        }
        self.value(value)
    }

    fn noted(&self, notes: &Table, at: Step, double: f64) -> Option<LuaString> {
        match at {
            Step::Index(index) => exact::text_of(notes, index as f64, double),
            Step::Name(name) => {
                let name = std::str::from_utf8(self.bytes_of(name)).ok()?;
                exact::text_of(notes, name, double)
            }
        }
    }

    fn text(&mut self, value: &LuaString) -> Result<(), Problem> {
        let bytes = value.as_bytes();
        json(&mut self.out, utf8(&bytes)?)
    }

    fn bytes_of(&self, name: Name) -> &[u8] {
        &self.names[name.from..name.to]
    }

    fn table(&mut self, table: &Table) -> Result<(), Problem> {
        let this = table.to_pointer();
        if self.tables.contains(&this) {
            return Err(script("a table that contains itself cannot be stored"));
        }
        self.check_depth()?;
        self.tables.push(this);
        let notes = self.notes.as_ref().filter(|all| all.may_be_about(this));
        let notes = notes.and_then(|all| all.of(table));
        self.entries(table, notes)?;
        self.tables.pop();
        Ok(())
    }

    fn entries(&mut self, table: &Table, notes: Option<Table>) -> Result<(), Problem> {
        if notes.is_none() && self.plain_entries(table)? {
            return Ok(());
        }
        let (first, names) = (self.members.len(), self.names.len());
        let mut positions = Positions::default();
        for pair in table.pairs::<Value, Value>() {
            let (key, value) = pair.map_err(engine)?;
            match key {
                Value::String(key) => self.named(&key.as_bytes(), value),
                Value::Integer(position) => positions.add(position as f64),
                Value::Number(position) => positions.add(position),
                other => {
                    let kind = a_kind_of(&other);
                    return Err(script(format!("a key that is {kind} cannot be stored")));
                }
            }
        }
        let has_names = self.members.len() > first;
        let read = notes.as_ref().map(notes::absent).unwrap_or_default();
        self.is_plain &= read.says_nothing(has_names || positions.count > 0);
        if positions.count == 0 && (has_names || read.is_object()) {
            for name in &read.names {
                if matches!(table.raw_get(name), Ok(Value::Nil)) {
                    self.named(&name.as_bytes(), Value::Nil);
                }
            }
            return self.object(notes.as_ref(), first, names);
        }
        if has_names && !self.list_wins {
            return Err(script("a table with both numbers and texts as keys cannot be stored"));
        }
        self.members.truncate(first);
        self.names.truncate(names);
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

    /// Writes a table about which nothing is noted, if its keys are all names, or all positions in
    /// their order. False: they are neither, and nothing was written.
    fn plain_entries(&mut self, table: &Table) -> Result<bool, Problem> {
        // What follows an object is mostly one, too, and its length as a list need not be known.
        let follows_object = self.shapes.get(self.tables.len()).is_some_and(Shape::is_known);
        if follows_object && self.named_entries(table)? {
            return Ok(true);
        }
        let length = table.raw_len();
        if length > 0 && has_positions_only(table, length) {
            return self.elements(table).map(|()| true);
        }
        Ok(length == 0 && !follows_object && self.named_entries(table)?)
    }

    /// The same if its keys are all names.
    fn named_entries(&mut self, table: &Table) -> Result<bool, Problem> {
        let (first, names) = (self.members.len(), self.names.len());
        match self.collect(table).then(|| self.members.len() - first) {
            None => {
                self.members.truncate(first);
                self.names.truncate(names);
                return Ok(false);
            }
            Some(0) => self.list(table, None, 0)?,
            Some(_) => self.object(None, first, names)?,
        }
        Ok(true)
    }

    fn named(&mut self, name: &[u8], value: Value) {
        let from = self.names.len();
        self.names.extend_from_slice(name);
        self.members.push(Member { name: Name { from, to: self.names.len() }, value });
    }

    /// Collects the members of a table whose keys are names. False when some may be no names.
    fn collect(&mut self, table: &Table) -> bool {
        let walked = table.for_each(|name: String, value: Value| {
            // A key that is a number comes as a text here.
            if may_be_number(&name) {
                return Err(mlua::Error::RuntimeError(String::new()));
            }
            self.named(name.as_bytes(), value);
            Ok(())
        });
        walked.is_ok()
    }

    /// A list whose keys are known to be its positions, in order.
    fn elements(&mut self, table: &Table) -> Result<(), Problem> {
        self.out.push(b'[');
        let (mut index, mut wrong) = (0, None);
        let walked = table.for_each(|_: Value, value: Value| {
            index += 1;
            if index > 1 {
                self.out.push(b',');
            }
            self.path.push(Step::Index(index));
            if let Err(problem) = self.value(&value) {
                wrong = Some(problem);
                return Err(mlua::Error::RuntimeError(String::new()));
            }
            self.path.pop();
            Ok(())
        });
        if let Some(problem) = wrong {
            return Err(problem);
        }
        walked.map_err(engine)?;
        self.out.push(b']');
        Ok(())
    }

    fn list(&mut self, table: &Table, notes: Option<&Table>, length: usize) -> Result<(), Problem> {
        self.out.push(b'[');
        for index in 1..=length {
            if index > 1 {
                self.out.push(b',');
            }
            let value: Value = table.raw_get(index).map_err(engine)?;
            let step = Step::Index(index);
            self.path.push(step);
            self.member(notes, step, &value)?;
            self.path.pop();
        }
        self.out.push(b']');
        Ok(())
    }

    /// Writes the members from `first` on, whose names begin at `names`, and forgets them.
    fn object(&mut self, notes: Option<&Table>, first: usize, names: usize) -> Result<(), Problem> {
        let depth = self.tables.len();
        if self.shapes.len() <= depth {
            self.shapes.resize_with(depth + 1, Shape::default);
        }
        let mut shape = mem::take(&mut self.shapes[depth]);
        let ends = self.members[first..].iter().map(|member| member.name.to - names);
        if shape.is_for(&self.names[names..], ends) {
            self.members_by(&shape, notes, first)?;
        } else {
            self.sorted_members(notes, first)?;
        }
        self.shapes[depth] = shape;
        self.members.truncate(first);
        self.names.truncate(names);
        Ok(())
    }

    /// Members whose names are in order and checked already.
    fn members_by(
        &mut self,
        shape: &Shape,
        notes: Option<&Table>,
        first: usize,
    ) -> Result<(), Problem> {
        for (at, head) in shape.members() {
            self.out.extend_from_slice(head);
            self.member_value(notes, first + at)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn sorted_members(&mut self, notes: Option<&Table>, first: usize) -> Result<(), Problem> {
        let Self { names: bytes, members, .. } = self;
        let bytes_of = |member: &Member| &bytes[member.name.from..member.name.to];
        members[first..].sort_unstable_by(|a, b| bytes_of(a).cmp(bytes_of(b)));
        let end = members.len();
        self.out.push(b'{');
        for at in first..end {
            if at > first {
                self.out.push(b',');
            }
            let name = self.members[at].name;
            if let Err(problem) = write_name(&mut self.out, &self.names[name.from..name.to]) {
                self.path.push(Step::Name(name));
                return Err(problem);
            }
            self.out.push(b':');
            self.member_value(notes, at)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn member_value(&mut self, notes: Option<&Table>, at: usize) -> Result<(), Problem> {
        let Member { name, value } = &mut self.members[at];
        let (step, value) = (Step::Name(*name), mem::replace(value, Value::Nil));
        self.path.push(step);
        self.member(notes, step, &value)?;
        self.path.pop();
        Ok(())
    }

    fn path_text(&self, name: &str) -> String {
        let mut text = name.to_owned();
        for step in &self.path {
            match step {
                Step::Index(index) => text.push_str(&format!("[{index}]")),
                Step::Name(name) => {
                    let key = String::from_utf8_lossy(self.bytes_of(*name));
                    if key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !key.is_empty()
                    {
                        text.push_str(&format!(".{key}"));
                    } else {
                        text.push_str(&format!("[{key:?}]"));
                    }
                }
            }
        }
        text
    }
}

/// The double that a number is. None for one of Luau's 64-bit integers that no double is.
fn double_of(value: &Value) -> Option<f64> {
    match value {
        Value::Number(double) => Some(*double),
        Value::Integer(whole) => {
            Some(*whole as f64).filter(|double| exact::written(*double) == whole.to_string())
        }
        _ => None,
    }
}

/// Whether a text may be what Luau makes of a number.
fn may_be_number(name: &str) -> bool {
    let of_number = |byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'i');
    name.bytes().all(of_number) || matches!(name, "inf" | "-inf" | "nan" | "-nan")
}

fn json<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), Problem> {
    serde_json::to_writer(out, value).map_err(|error| script(error.to_string()))
}

/// The name of a member, if it can be one.
pub(super) fn write_name(out: &mut Vec<u8>, name: &[u8]) -> Result<(), Problem> {
    let name = utf8(name)?;
    storable::check_name(name)?;
    json(out, name)
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
