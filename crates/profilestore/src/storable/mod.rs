//! What can be stored: the one definition, asked wherever data comes in. Pure.
//!
//! Data that is accepted must open again: in Rust, in Luau, in an operator's edit, in an export and
//! its import. So one rule holds for a save, a transaction, a message, an edit, an import and a
//! write of a data store. A refusal is an [`Unstorable`]: it names the place by a JSON pointer and
//! says what is wrong there, and nothing is changed.
//!
//! | what | limit |
//! | --- | --- |
//! | depth of lists and objects | [`MAX_DEPTH`]; [`MAX_DOCUMENT_DEPTH`] for a whole document |
//! | size | [`MAX_DATA_BYTES`] of JSON for data, documents; [`MAX_MESSAGE_BYTES`] for a message |
//! | whole numbers | those of 64 bits, `i64` and `u64`, which are kept exactly |
//! | other numbers | those of a double; neither NaN nor infinity |
//! | texts | Unicode; no half of a surrogate pair (`"\ud800"`). NUL is allowed |
//! | names in an object | as texts, none twice, and not serde_json's mark of a [`RawValue`] |
//! | user ids | 0 to [`MAX_USER_ID`] |
//! | metadata of a key | [`MAX_METADATA_CHARS`], and less for each key and value |
//! | names of stores, scopes, keys | see [`ProfileKey`](crate::ProfileKey) |
//!
//! What was stored before and breaks the rule stays readable: `profilestore check` reports it,
//! edits can repair it.

use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};

mod text;
mod write;

/// How deep lists and objects may nest: in a profile's data, a message, a tag, a value of a data
/// store. serde_json reads 127 levels, and the library wraps some of its own around what it is
/// given.
pub const MAX_DEPTH: usize = 100;

/// How deep a whole document may nest, as the Roblox modules keep it: a message of [`MAX_DEPTH`]
/// levels lies four levels deep in it. The rest is for what the library itself books about an edit.
pub const MAX_DOCUMENT_DEPTH: usize = MAX_DEPTH + 10;

/// The largest data of a profile, in bytes of JSON. The specification's services allow as many
/// characters.
pub const MAX_DATA_BYTES: usize = 4 << 20;

/// Data above this size is nearly too large: 80 % of [`MAX_DATA_BYTES`]. A warning says so.
pub const NEARLY_FULL_BYTES: usize = MAX_DATA_BYTES / 5 * 4;

/// The largest message, in bytes of JSON.
pub const MAX_MESSAGE_BYTES: usize = 256 << 10;

/// The largest user id. The smallest one is 0.
pub const MAX_USER_ID: i64 = i64::MAX;

/// The longest key of a profile's metadata, in characters.
pub const MAX_METADATA_KEY_CHARS: usize = 50;

/// The longest value in a profile's metadata, in characters (of its JSON, unless it is a string).
pub const MAX_METADATA_VALUE_CHARS: usize = 250;

/// The longest metadata of a profile, in characters of JSON.
pub const MAX_METADATA_CHARS: usize = 300;

/// The limits of a profile's data, and of its tags.
pub const DATA: Limits = Limits { bytes: MAX_DATA_BYTES, depth: MAX_DEPTH };

/// The limits of a message.
pub const MESSAGE: Limits = Limits { bytes: MAX_MESSAGE_BYTES, depth: MAX_DEPTH };

/// The limits of a whole document, or of any other value of a data store. Its size is checked where
/// it is taken apart.
pub const DOCUMENT: Limits = Limits { bytes: usize::MAX, depth: MAX_DOCUMENT_DEPTH };

/// How much of something can be stored. See [`DATA`], [`MESSAGE`] and [`DOCUMENT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of JSON.
    pub bytes: usize,
    /// How many lists and objects may lie in one another.
    pub depth: usize,
}

/// Why something cannot be stored, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}", shown(path))]
pub struct Unstorable {
    /// Where it is, a JSON pointer (RFC 6901). Empty: it is about the value as a whole.
    pub path: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with something that cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// It is NaN or infinite.
    #[error("{number} is no number of JSON; leave it out or store another one")]
    NotFinite {
        /// As Rust writes it.
        number: String,
    },
    /// A whole number of more than 64 bits.
    #[error(
        "a whole number must fit into 64 bits; store it as a text or as a float, such as \
        1e20: number=`{number}`"
    )]
    TooLong {
        /// As it is written.
        number: String,
    },
    /// A number beyond what a double can hold.
    #[error("the number is beyond what a double can hold: number=`{number}`")]
    TooFar {
        /// As it is written.
        number: String,
    },
    /// Half of a surrogate pair in a text or a name.
    #[error("the text has half of a surrogate pair, which is no character: escape=`{escape}`")]
    Surrogate {
        /// As it is written.
        escape: String,
    },
    /// Lists and objects nest too deep.
    #[error("lists and objects nest too deep: limit=`{limit}`")]
    TooDeep {
        /// How deep they may.
        limit: usize,
    },
    /// An object has two members of the same name.
    #[error("an object has two members of this name")]
    Twice,
    /// A member has a name that serde_json takes for an order of its own.
    #[error("a member must not have this name, which JSON's readers in Rust keep for themselves")]
    Name,
    /// It is larger than what can be stored.
    #[error("it is too large: size=`{size}` limit=`{limit}`")]
    TooLarge {
        /// Its size, in bytes of JSON.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The metadata of a key breaks one of its limits.
    #[error("the metadata is too long: {what} characters=`{chars}` limit=`{limit}`")]
    Metadata {
        /// Which limit.
        what: String,
        /// How long it is.
        chars: usize,
        /// The limit.
        limit: usize,
    },
    /// A user id cannot be one.
    #[error("a user id must not be negative: user_id=`{user_id}`")]
    UserId {
        /// The id.
        user_id: i64,
    },
    /// It cannot be made into JSON, or is none.
    #[error("it is no JSON: {reason}")]
    NoJson {
        /// What the serialiser or the parser says.
        reason: String,
    },
}

impl Problem {
    /// True when nothing is wrong but the size.
    pub fn is_size(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::Metadata { .. })
    }

    pub(crate) fn at(self, path: impl Into<String>) -> Unstorable {
        Unstorable { path: path.into(), problem: self }
    }
}

impl Unstorable {
    /// The same problem, seen from one level up: it was found in the member `name`.
    #[must_use]
    pub(crate) fn inside(mut self, name: &str) -> Self {
        self.path = format!("{}{}", pointer_of([name]), self.path);
        self
    }
}

/// How serde_json tells its serialiser that a text is JSON already. It reads an object with this
/// name as what the text says.
const RAW: &str = "$serde_json::private::RawValue";

/// How serde_json tells that a text is a number, if a crate of the program turns on its feature
/// `arbitrary_precision` on.
const NUMBER: &str = "$serde_json::private::Number";

/// The name of a newtype around a [`RawValue`] that an encoder of another language's values has
/// written by the rule, within [`DATA`]: with [`check_number`] and [`check_name`], no name twice,
/// and depth and size counted. As a whole piece of data it is not gone through a second time.
pub const WRITTEN_BY_THE_RULE: &str = "$profilestore::WrittenByTheRule";

fn shown(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("at `{path}`: ") }
}

/// The JSON pointer of some names.
fn pointer_of<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().fold(String::new(), |pointer, name| {
        pointer + "/" + &name.replace('~', "~0").replace('/', "~1")
    })
}

impl Limits {
    /// The JSON of a value, checked while it is written.
    pub fn encode<T: Serialize + ?Sized>(&self, value: &T) -> Result<Box<RawValue>, Unstorable> {
        let json = write::encode(value, self.depth)?;
        self.check_size(json.get().len())?;
        Ok(json)
    }

    /// Checks JSON that is written already.
    pub fn check(&self, json: &RawValue) -> Result<(), Unstorable> {
        self.check_size(json.get().len())?;
        text::check(json.get(), self.depth)
    }

    /// Reads JSON from outside as a value, if it can be stored.
    pub fn parse(&self, json: &str) -> Result<Value, Unstorable> {
        self.check_bytes(json.as_bytes())?;
        serde_json::from_str(json)
            .map_err(|error| Problem::NoJson { reason: error.to_string() }.at(""))
    }

    /// Checks bytes that should be JSON.
    pub fn check_bytes(&self, json: &[u8]) -> Result<(), Unstorable> {
        self.check_size(json.len())?;
        let json: &RawValue = serde_json::from_slice(json)
            .map_err(|error| Problem::NoJson { reason: error.to_string() }.at(""))?;
        self.check(json)
    }

    /// Checks a table of values, such as a profile's tags.
    pub fn check_map(&self, map: &Map<String, Value>) -> Result<(), Unstorable> {
        if map.is_empty() { Ok(()) } else { self.encode(map).map(drop) }
    }

    /// Checks a size, in bytes of JSON.
    pub fn check_size(&self, size: usize) -> Result<(), Unstorable> {
        if size > self.bytes {
            Err(Problem::TooLarge { size, limit: self.bytes }.at(""))
        } else {
            Ok(())
        }
    }
}

/// The parts of some JSON that a [`Value`] cannot hold as they are written. Only JSON that breaks
/// the rule has some, but for floats of more digits than a double has.
pub(crate) fn unreadable(json: &RawValue) -> Vec<std::ops::Range<usize>> {
    text::unreadable(json.get(), MAX_DEPTH)
}

/// Where in some JSON a reader stopped.
pub(crate) fn path_of_error(json: &str, error: &serde_json::Error) -> String {
    if error.line() == 0 {
        return String::new();
    }
    let line = json.split_inclusive('\n').take(error.line() - 1).map(str::len).sum::<usize>();
    text::path_at(json, (line + error.column()).saturating_sub(1))
}

/// The first place where two values differ. Lists of the same elements in another order do not:
/// that is how sets are written.
pub(crate) fn difference(a: &Value, b: &Value) -> Option<String> {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let gone = a.iter().find_map(|(name, a)| match b.get(name) {
                Some(b) => difference(a, b).map(|path| pointer_of([name.as_str()]) + &path),
                None => Some(pointer_of([name.as_str()])),
            });
            gone.or_else(|| {
                b.keys().find(|name| !a.contains_key(*name)).map(|name| pointer_of([name.as_str()]))
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let found =
                a.iter().zip(b).enumerate().find_map(|(n, (a, b))| Some((n, difference(a, b)?)));
            let sorted = |list: &[Value]| {
                let mut texts: Vec<String> = list.iter().map(Value::to_string).collect();
                texts.sort_unstable();
                texts
            };
            found.filter(|_| sorted(a) != sorted(b)).map(|(n, path)| format!("/{n}{path}"))
        }
        _ => (a != b).then(String::new),
    }
}

/// Checks a number of JSON, as it is written. For encoders of other languages' values.
pub fn check_number(number: &str) -> Result<(), Problem> {
    text::check_number(number)
}

/// Checks the name of a member of an object. For encoders of other languages' values.
pub fn check_name(name: &str) -> Result<(), Problem> {
    if matches!(name, RAW | NUMBER) { Err(Problem::Name) } else { Ok(()) }
}

/// Checks the users associated with a key.
pub fn check_users(user_ids: &[i64]) -> Result<(), Unstorable> {
    match user_ids.iter().position(|id| !(0..=MAX_USER_ID).contains(id)) {
        Some(at) => Err(Problem::UserId { user_id: user_ids[at] }.at(format!("/{at}"))),
        None => Ok(()),
    }
}

/// Checks a key's metadata: keys of at most [`MAX_METADATA_KEY_CHARS`] characters, values of at
/// most [`MAX_METADATA_VALUE_CHARS`], all of it at most [`MAX_METADATA_CHARS`] characters of JSON.
pub fn check_metadata(metadata: &Map<String, Value>) -> Result<(), Unstorable> {
    if metadata.is_empty() {
        return Ok(());
    }
    let too_long = |name: &str, what: &str, chars, limit| {
        let path = if name.is_empty() { String::new() } else { pointer_of([name]) };
        Err(Problem::Metadata { what: what.to_owned(), chars, limit }.at(path))
    };
    for (name, value) in metadata {
        let chars = name.chars().count();
        if chars > MAX_METADATA_KEY_CHARS {
            return too_long(name, "a key", chars, MAX_METADATA_KEY_CHARS);
        }
        let chars = match value {
            Value::String(text) => text.chars().count(),
            other => other.to_string().chars().count(),
        };
        if chars > MAX_METADATA_VALUE_CHARS {
            return too_long(name, "a value", chars, MAX_METADATA_VALUE_CHARS);
        }
    }
    let chars = DATA.encode(metadata)?.get().chars().count();
    if chars > MAX_METADATA_CHARS {
        too_long("", "all of it", chars, MAX_METADATA_CHARS)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
