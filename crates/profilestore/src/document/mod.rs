//! The document form of a profile: what the two Roblox modules keep under a key, in and out.
//!
//! ```text
//! { Data = {…},
//!   MetaData = { ProfileCreateTime, SessionLoadCount, LastUpdate, MetaTags,
//!                ActiveSession?, ForceLoadSession? },
//!   GlobalUpdates = { last_id, { {id, data} or {id, version, is_locked, data}, … } },
//!   RobloxMetaData = {…}, UserIds = {…}, WasOverwritten / WasCorrupted = bool }
//! ```
//!
//! Everything here is pure. [`Document::parse`] takes a document apart into what we keep in
//! different places: the record, the lease, the inbox. [`compose`] puts it together again. Nothing
//! of a document is lost on the way: members that we do not know are carried along, what we derive
//! or keep elsewhere is remembered in the record's [`Origin`], and what is no profile stays as it
//! is. JSON written by Lua cannot tell an empty array from an empty object, so either is accepted
//! for the other.

use serde_json::{Map, Value, value::RawValue};

use crate::{
    data_store::{LeaseState, StoredMessage},
    record::{Foreign, MessagesOnly, Origin, Record, Stored},
    storable::{MESSAGE, Unstorable},
};

mod compose;
mod parse;
#[cfg(test)]
mod tests;

pub use compose::compose;
pub(crate) use compose::compose_inbox;
#[cfg(feature = "transfer")]
pub(crate) use compose::compose_messages;
#[cfg(feature = "roblox")]
pub(crate) use compose::{request_of, session_of};

const DATA: &str = "Data";
const META: &str = "MetaData";
const UPDATES: &str = "GlobalUpdates";
const ROBLOX_META: &str = "RobloxMetaData";
const USER_IDS: &str = "UserIds";
const MARKS: [&str; 2] = ["WasOverwritten", "WasCorrupted"];

const CREATED: &str = "ProfileCreateTime";
const LOAD_COUNT: &str = "SessionLoadCount";
const LAST_UPDATE: &str = "LastUpdate";
const TAGS: &str = "MetaTags";
const SESSION: &str = "ActiveSession";
const REQUEST: &str = "ForceLoadSession";

/// A document taken apart.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Document {
    /// What is stored as the version's value.
    pub stored: Stored,
    /// Why the value is kept as a foreign one. None for profiles and for documents with nothing but
    /// messages.
    pub foreign: Option<String>,
    /// The session that holds it and the request to hand it over, neither vouched for by a server
    /// row, and the load count.
    pub lease: LeaseState,
    /// The waiting messages, by ascending index.
    pub messages: Vec<StoredMessage>,
    /// The newest index ever given out.
    pub last_message: u64,
}

/// What is known about a document besides its text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Surroundings {
    /// When this version was written, Unix milliseconds.
    pub written_ms: i64,
    /// When the key was first written, Unix milliseconds.
    pub created_ms: i64,
    /// The users associated with the key. None: as the document says.
    pub user_ids: Option<Vec<i64>>,
    /// The key's metadata. None: as the document says.
    pub metadata: Option<Map<String, Value>>,
}

impl Document {
    /// Takes a document apart. What is not a profile in this form becomes a [`Foreign`] value;
    /// nothing is refused.
    ///
    /// The data keeps the text that it had. Messages get identities made of the version's time and
    /// their index, so that the same document always gives the same ones.
    pub fn parse(text: &RawValue, surroundings: Surroundings) -> Self {
        parse::parse(text, surroundings)
    }

    /// Whether every message can be stored. The answer says which one cannot.
    pub(crate) fn check_messages(&self) -> Result<(), Unstorable> {
        check_messages(&self.messages).map_err(|wrong| wrong.inside(UPDATES))
    }

    /// Lets the version say that no message waited with it, so that it takes no room for them.
    /// Those that do are among `messages` all the same.
    #[cfg(feature = "transfer")]
    pub(crate) fn leave_messages_out(&mut self) {
        let origin = match &mut self.stored {
            Stored::Profile(record) => record.origin.as_mut(),
            Stored::MessagesOnly(only) => only.origin.as_mut(),
            Stored::Foreign(_) => None,
        };
        if let Some(said) = origin.and_then(|origin| origin.document.get_mut(UPDATES)) {
            *said = Value::Array(vec![self.last_message.into(), Value::Array(Vec::new())]);
        }
    }

    fn foreign(text: &RawValue, surroundings: Surroundings, why: String) -> Self {
        Self {
            stored: Stored::Foreign(Foreign {
                user_ids: surroundings.user_ids.unwrap_or_default(),
                metadata: surroundings.metadata.unwrap_or_default(),
                value: text.to_owned(),
            }),
            foreign: Some(why),
            lease: LeaseState::default(),
            messages: Vec::new(),
            last_message: 0,
        }
    }
}

/// Whether every one can be stored. The answer names the one that cannot.
fn check_messages(messages: &[StoredMessage]) -> Result<(), Unstorable> {
    messages.iter().try_for_each(|message| {
        MESSAGE
            .check_bytes(&message.payload)
            .map_err(|wrong| wrong.inside(&format!("message {}", message.index)))
    })
}

/// Messages that are given beside a document, in the form of its `GlobalUpdates`: the newest index
/// ever given out, and the messages by ascending index. Fails if one cannot be stored.
#[cfg(feature = "transfer")]
pub(crate) fn parse_messages(
    text: &RawValue,
    written_ms: i64,
) -> Result<(u64, Vec<StoredMessage>), String> {
    let value: Value =
        serde_json::from_str(text.get()).map_err(|e| format!("they cannot be read: {e}"))?;
    let (last_message, messages) = parse::messages(&value, written_ms)?;
    check_messages(&messages).map_err(|wrong| wrong.to_string())?;
    Ok((last_message, messages))
}

/// A message as a document states it.
#[derive(Debug, PartialEq)]
struct Update {
    index: u64,
    revision: u64,
    locked: bool,
    payload: Value,
}

/// The content of a `GlobalUpdates` member, by ascending index, and the newest index ever given
/// out.
fn updates(value: &Value) -> Result<(u64, Vec<Update>), String> {
    let rows = match value {
        Value::Null => return Ok((0, Vec::new())),
        value if is_empty_table(value) => return Ok((0, Vec::new())),
        Value::Array(rows) => rows,
        other => return Err(format!("GlobalUpdates is not a list: found=`{}`", kind(other))),
    };
    let [last, entries] = rows.as_slice() else {
        return Err(format!("GlobalUpdates has not two elements: found=`{}`", rows.len()));
    };
    let last = whole(last)
        .ok_or_else(|| format!("GlobalUpdates begins with no index: found=`{}`", kind(last)))?;
    let entries = match entries {
        Value::Array(entries) => entries.as_slice(),
        entries if is_empty_table(entries) => &[],
        other => {
            return Err(format!(
                "the messages in GlobalUpdates are not a list: found=`{}`",
                kind(other)
            ));
        }
    };
    let mut messages = entries.iter().map(update).collect::<Result<Vec<_>, _>>()?;
    messages.sort_by_key(|message| message.index);
    if let Some(pair) = messages.windows(2).find(|pair| pair[0].index == pair[1].index) {
        return Err(format!(
            "two messages in GlobalUpdates have the same index: index=`{}`",
            pair[0].index
        ));
    }
    let last = messages.last().map_or(last, |newest| last.max(newest.index));
    Ok((last, messages))
}

/// One message, of either module. The payload is always the last element.
fn update(entry: &Value) -> Result<Update, String> {
    let elements = entry.as_array().map_or(&[][..], Vec::as_slice);
    let (index, revision, locked, payload) = match elements {
        [index, payload] => (index, None, false, payload),
        [index, revision, locked, payload] => {
            (index, Some(revision), *locked == Value::Bool(true), payload)
        }
        _ => return Err("a message in GlobalUpdates has neither two nor four elements".into()),
    };
    let index =
        whole(index).filter(|index| *index > 0).ok_or("a message in GlobalUpdates has no index")?;
    let revision = revision.and_then(whole).unwrap_or(1).max(1);
    Ok(Update { index, revision, locked, payload: payload.clone() })
}

/// A number that is whole and not negative, however it is written.
fn whole(value: &Value) -> Option<u64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let number = value.as_number()?;
    number.as_u64().or_else(|| {
        let float = number.as_f64()?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked to be whole and in range"
        )]
        (float.fract() == 0.0 && (0.0..=EXACT).contains(&float)).then_some(float as u64)
    })
}

/// How often `MetaData` says that the profile was loaded: 0 where it says nothing that a script
/// could count up, whose numbers are doubles.
fn load_count(meta: &Map<String, Value>) -> u64 {
    const EXACT: u64 = 1 << 53;
    meta.get(LOAD_COUNT).and_then(whole).filter(|count| *count < EXACT).unwrap_or(0)
}

fn is_empty_table(value: &Value) -> bool {
    match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// What a value is, for a message.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}
