//! Data read as a value to be edited, of which nothing is lost that a value cannot hold.
//!
//! Edits work on [`Value`]s, which round some numbers and cannot hold half of a surrogate pair or a
//! hundred levels. Data with such parts may have been stored by an earlier version. An edit must
//! not change what it does not name, and must be able to remove it. So each such part is set aside,
//! with a text in its place, and put back when the data is written.

use serde::Serialize;
use serde_json::{Value, value::RawValue};

use crate::storable::{self, DATA};

/// What was set aside.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    /// What the texts begin with that stand in the parts' places. Nothing else has it in it.
    mark: String,
    parts: Vec<String>,
    /// How long the data was.
    bytes: usize,
}

impl Aside {
    /// Reads data for an edit.
    pub(crate) fn read(data: &RawValue, edit: &impl Serialize) -> Result<(Value, Self), String> {
        let json = data.get();
        let found = storable::unreadable(data);
        let parse = |text: &str| {
            serde_json::from_str(text).map_err(|error| format!("the data cannot be read: {error}"))
        };
        if found.is_empty() {
            return Ok((parse(json)?, Self { bytes: json.len(), ..Self::default() }));
        }
        let edit = serde_json::to_string(edit).map_err(|error| error.to_string())?;
        let is_free =
            |mark: &String| !json.contains(mark.as_str()) && !edit.contains(mark.as_str());
        let mark = (0_u64..).map(|n| format!("aside-{n}:")).find(is_free).unwrap_or_default();
        let (mut text, mut parts, mut after) =
            (String::with_capacity(json.len()), Vec::with_capacity(found.len()), 0);
        for part in found {
            text.push_str(&json[after..part.start]);
            text.push_str(&format!("\"{mark}{};\"", parts.len()));
            after = part.end;
            parts.push(json[part].to_owned());
        }
        text.push_str(&json[after..]);
        Ok((parse(&text)?, Self { mark, parts, bytes: json.len() }))
    }

    /// The data as it is stored. What the edit brought in must be storable; what was set aside is
    /// what it was.
    pub(crate) fn write(&self, value: &Value) -> Result<Box<RawValue>, String> {
        let json = DATA.encode(value).map_err(|wrong| wrong.to_string())?;
        if self.parts.is_empty() {
            return Ok(json);
        }
        let json = self.put_back(json.get());
        if json.len() > DATA.bytes.max(self.bytes) {
            return Err(format!(
                "the data is too large: size=`{}` limit=`{}`",
                json.len(),
                DATA.bytes
            ));
        }
        RawValue::from_string(json).map_err(|error| error.to_string())
    }

    /// A text of JSON with the parts in their places again.
    pub(crate) fn put_back(&self, text: &str) -> String {
        let places = self.parts.iter().enumerate();
        places.fold(text.to_owned(), |text, (n, part)| {
            text.replace(&format!("\"{}{n};\"", self.mark), part)
        })
    }

    /// True when nothing was set aside.
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// True when something of a text stands for a part that was set aside.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        !self.is_empty() && text.contains(&self.mark)
    }
}
