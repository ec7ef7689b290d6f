//! One version, or some messages, as a line of JSON.

use std::{
    collections::BTreeSet,
    fmt,
    io::{self, BufRead, Read, Write},
};

use serde::{
    Deserializer, Serialize,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};

use super::{MAX_LINE_BYTES, TransferError};
use crate::{
    key::{DEFAULT_SCOPE, ProfileKey},
    record::UserId,
    storable::{DATA, check_users},
};

/// A version as it is written.
#[derive(Serialize)]
pub(super) struct LineOut<'a> {
    pub(super) store: &'a str,
    pub(super) scope: &'a str,
    pub(super) key: &'a str,
    pub(super) n: u64,
    pub(super) version: &'a str,
    pub(super) created_ms: i64,
    pub(super) updated_ms: i64,
    pub(super) user_ids: &'a [UserId],
    pub(super) metadata: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "is_false")]
    pub(super) deleted: bool,
    pub(super) value: Option<&'a RawValue>,
}

/// Messages that wait with a key's last version and are not in its document, as they are written.
#[derive(Serialize)]
pub(super) struct MessagesOut<'a> {
    pub(super) store: &'a str,
    pub(super) scope: &'a str,
    pub(super) key: &'a str,
    pub(super) n: u64,
    pub(super) updated_ms: i64,
    pub(super) messages: &'a RawValue,
}

/// Writes a line.
pub(super) fn write_line(
    line: &impl Serialize,
    writer: &mut dyn Write,
) -> Result<(), TransferError> {
    serde_json::to_writer(&mut *writer, line)
        .map_err(io::Error::from)
        .map_err(TransferError::Write)?;
    writer.write_all(b"\n").map_err(TransferError::Write)
}

fn is_false(deleted: &bool) -> bool {
    !deleted
}

/// A line as it is read.
pub(super) struct Line {
    pub(super) key: ProfileKey,
    pub(super) n: u64,
    pub(super) updated_ms: i64,
    pub(super) content: Content,
}

/// What a line brings.
pub(super) enum Content {
    Version(Version),
    /// Messages of a version that has a line of its own.
    Messages(Box<RawValue>),
}

/// A version as it is read.
pub(super) struct Version {
    pub(super) label: Option<String>,
    pub(super) created_ms: i64,
    pub(super) user_ids: Option<Vec<UserId>>,
    pub(super) metadata: Option<Map<String, Value>>,
    /// None for a tombstone.
    pub(super) value: Option<Box<RawValue>>,
}

/// A line that is none, with the key as far as it can be told.
pub(super) struct Malformed {
    pub(super) key: Option<ProfileKey>,
    pub(super) why: String,
}

impl Line {
    pub(super) fn parse(text: &[u8]) -> Result<Self, Malformed> {
        let mut members = Members::default();
        let mut json = serde_json::Deserializer::from_slice(text);
        let read = MembersSeed(&mut members).deserialize(&mut json).and_then(|()| json.end());
        let key = members.key();
        let line = match (read, &key) {
            (Err(e), _) => Err(format!("it cannot be read: {e}")),
            (Ok(()), Err(why)) => Err(why.clone()),
            (Ok(()), Ok(key)) => members.check(key.clone()),
        };
        line.map_err(|why| Malformed { key: key.ok(), why })
    }
}

/// The members of a line. What was read before an error stays, so that it can be told which key a
/// damaged line is about.
#[derive(Default)]
struct Members {
    store: Option<String>,
    scope: Option<String>,
    key: Option<String>,
    n: Option<Value>,
    version: Option<Value>,
    created_ms: Option<Value>,
    updated_ms: Option<Value>,
    user_ids: Option<Value>,
    metadata: Option<Box<RawValue>>,
    deleted: Option<bool>,
    value: Option<Box<RawValue>>,
    messages: Option<Box<RawValue>>,
}

struct MembersSeed<'a>(&'a mut Members);

impl<'de> DeserializeSeed<'de> for MembersSeed<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MembersSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with store, key, n and value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let members = self.0;
        let mut names = BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if names.contains(&name) {
                return Err(A::Error::custom(format!(
                    "it has two members of one name: name=`{name}`"
                )));
            }
            match name.as_str() {
                "store" => members.store = Some(map.next_value()?),
                "scope" => members.scope = Some(map.next_value()?),
                "key" => members.key = Some(map.next_value()?),
                "n" => members.n = Some(map.next_value()?),
                "version" => members.version = Some(map.next_value()?),
                "created_ms" => members.created_ms = Some(map.next_value()?),
                "updated_ms" => members.updated_ms = Some(map.next_value()?),
                "user_ids" => members.user_ids = Some(map.next_value()?),
                "metadata" => members.metadata = Some(map.next_value()?),
                "deleted" => members.deleted = Some(map.next_value()?),
                "value" => members.value = Some(map.next_value()?),
                "messages" => members.messages = Some(map.next_value()?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            names.insert(name);
        }
        Ok(())
    }
}

impl Members {
    fn key(&self) -> Result<ProfileKey, String> {
        let store = self.store.as_deref().ok_or("store is missing")?;
        let key = self.key.as_deref().ok_or("key is missing")?;
        let key = ProfileKey::new(store, self.scope.as_deref().unwrap_or(DEFAULT_SCOPE), key)
            .map_err(|e| e.to_string())?;
        if key.is_reserved() {
            return Err(format!("the library keeps its own books there: store=`{store}`"));
        }
        Ok(key)
    }

    fn check(mut self, key: ProfileKey) -> Result<Line, String> {
        let n = integer("n", self.n.take())?;
        let n = u64::try_from(n)
            .ok()
            .filter(|n| *n > 0)
            .ok_or_else(|| format!("n does not count from 1: n=`{n}`"))?;
        let updated_ms = integer("updated_ms", self.updated_ms.take())?;
        let content = match self.messages.take() {
            None => Content::Version(self.version()?),
            Some(_) if self.value.is_some() || self.deleted == Some(true) => {
                return Err("a line has either a value or messages".into());
            }
            Some(messages) => Content::Messages(messages),
        };
        Ok(Line { key, n, updated_ms, content })
    }

    fn version(self) -> Result<Version, String> {
        let label = match self.version {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if text.len() <= 200 => Some(text),
            Some(_) => return Err("version is not a string of at most 200 bytes".into()),
        };
        let user_ids = self.user_ids.map(user_ids).transpose()?;
        let metadata = self.metadata.map(metadata).transpose()?;
        let value = match (self.value, self.deleted == Some(true)) {
            (Some(value), false) => Some(value).filter(|value| value.get() != "null"),
            (Some(value), true) if value.get() != "null" => {
                return Err("a deleted version has a value".into());
            }
            (_, true) => None,
            (None, false) => return Err("value is missing".into()),
        };
        let created_ms = integer("created_ms", self.created_ms)?;
        Ok(Version { label, created_ms, user_ids, metadata, value })
    }
}

fn integer(name: &str, value: Option<Value>) -> Result<i64, String> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let value = value.ok_or_else(|| format!("{name} is missing"))?;
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
    let whole = |float: f64| (float.fract() == 0.0 && float.abs() <= EXACT).then_some(float as i64);
    value
        .as_i64()
        .or_else(|| value.as_f64().and_then(whole))
        .ok_or_else(|| format!("{name} is not a whole number: {name}=`{value}`"))
}

fn user_ids(value: Value) -> Result<Vec<UserId>, String> {
    let user = |value: Value| match value {
        Value::String(name) => name.parse::<UserId>().map_err(|wrong| format!("user_ids: {wrong}")),
        number => integer("user_ids", Some(number)).map(UserId::from),
    };
    let users: Vec<UserId> = match value {
        Value::Array(ids) => ids.into_iter().map(user).collect::<Result<_, _>>()?,
        Value::Object(map) if map.is_empty() => Vec::new(),
        _ => return Err("user_ids is not a list".into()),
    };
    // At its place in the list; names are right by their type.
    let numbers: Vec<i64> = users.iter().map(|user| user.number().unwrap_or(0)).collect();
    check_users(&numbers).map_err(|wrong| wrong.inside("user_ids").to_string())?;
    Ok(users)
}

fn metadata(text: Box<RawValue>) -> Result<Map<String, Value>, String> {
    DATA.check(&text).map_err(|wrong| wrong.inside("metadata").to_string())?;
    match serde_json::from_str(text.get())
        .map_err(|error| format!("metadata cannot be read: {error}"))?
    {
        Value::Object(map) => Ok(map),
        Value::Array(list) if list.is_empty() => Ok(Map::new()),
        _ => Err("metadata is not a table".into()),
    }
}

/// Lines of bounded length.
pub(super) struct Lines<R> {
    reader: R,
    buffer: Vec<u8>,
    /// The number of the line read last, from 1.
    pub(super) number: u64,
    /// Bytes read so far.
    pub(super) bytes: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, buffer: Vec::new(), number: 0, bytes: 0 }
    }

    /// The next line without its end, and whether it was cut at [`MAX_LINE_BYTES`]. None at the end
    /// of the input.
    pub(super) fn next(&mut self) -> io::Result<Option<(&[u8], bool)>> {
        self.buffer.clear();
        let limit = MAX_LINE_BYTES as u64 + 1;
        let mut read = (&mut self.reader).take(limit).read_until(b'\n', &mut self.buffer)? as u64;
        if read == 0 {
            return Ok(None);
        }
        let cut = read == limit && self.buffer.last() != Some(&b'\n');
        if cut {
            read += self.skip_to_the_next()?;
        }
        self.number += 1;
        self.bytes += read;
        let text = if self.number == 1 {
            self.buffer.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.buffer)
        } else {
            &self.buffer
        };
        Ok(Some((text.trim_ascii(), cut)))
    }

    fn skip_to_the_next(&mut self) -> io::Result<u64> {
        let mut skipped = 0;
        loop {
            let available = self.reader.fill_buf()?;
            if available.is_empty() {
                return Ok(skipped);
            }
            let end = available.iter().position(|byte| *byte == b'\n');
            let used = end.map_or(available.len(), |at| at + 1);
            self.reader.consume(used);
            skipped += used as u64;
            if end.is_some() {
                return Ok(skipped);
            }
        }
    }
}
