//! An operator's change to the data of a profile, as a value: written down once, applied wherever
//! the profile is, undone later.
//!
//! It works on JSON, because an operator has no access to the program's type. Steps are those of
//! JSON Patch (RFC 6902), a merge patch (RFC 7396), and three of our own: `set`, which puts a value
//! whether or not there was one; `increase`, which adds to a number, so that what the player earns
//! meanwhile is not lost; and `restore`, which puts a value back unless it was changed since. All
//! steps fit, or none takes effect.

use std::fmt;

use json_patch::{
    AddOperation, CopyOperation, MoveOperation, PatchErrorKind, PatchOperation, RemoveOperation,
    ReplaceOperation, TestOperation, jsonptr::PointerBuf,
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Number, Value, value::RawValue};

use crate::{
    error::{Error, ErrorKind, Result},
    storable::{DOCUMENT, MAX_DATA_BYTES},
};

pub(crate) mod apply;
mod aside;
pub(crate) mod bulk;
mod changes;
pub(crate) mod request;
pub(crate) mod standing;
pub(crate) mod types;

pub(crate) use aside::Aside;
pub use bulk::{BulkEdit, BulkProgress, BulkReport, EditScope};
pub use changes::{JsonChange, json_changes};
use changes::{alike, lookup, same, whole};
pub use standing::{MAX_STANDING_BYTES, MAX_STANDING_EDITS, StandingEdit, standing_edits};

/// The longest edit, in bytes of JSON.
pub const MAX_EDIT_BYTES: usize = 64 << 10;

/// The form of a stored edit. One with a higher number was written by a newer version.
const FORM: u32 = 1;

/// A change to the data of a profile, in steps: those of JSON Patch (RFC 6902), merge patches (RFC
/// 7396), and `set`, `increase` and `restore`. All of them fit, or none takes effect.
///
/// Serialised as `{"v":1,"ops":[…]}` with one object a step; at most [`MAX_EDIT_BYTES`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    v: u32,
    ops: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum Step {
    Add(AddOperation),
    Remove(RemoveOperation),
    Replace(ReplaceOperation),
    Move(MoveOperation),
    Copy(CopyOperation),
    Test(TestOperation),
    /// Puts a value into an object, or in the place of an array's element; `-` adds one to an
    /// array.
    Set {
        path: PointerBuf,
        value: Value,
    },
    /// Adds to the number at a path.
    Increase {
        path: PointerBuf,
        by: Number,
        /// Where there is nothing, the number is 0 and is made.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        create: bool,
    },
    /// A merge patch for all of the data.
    Merge {
        patch: Value,
    },
    /// Puts back what was there, if what is there now is what it was replaced with. None: there is
    /// nothing.
    Restore {
        path: PointerBuf,
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "even_null")]
        is: Option<Value>,
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "even_null")]
        was: Option<Value>,
    },
}

fn even_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Why an edit does not change some data.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) why: String,
    /// A test of the edit does not match: the edit does not mean this data.
    pub(crate) unmatched: bool,
}

impl From<String> for Refusal {
    fn from(why: String) -> Self {
        Self { why, unmatched: false }
    }
}

impl From<&str> for Refusal {
    fn from(why: &str) -> Self {
        why.to_owned().into()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl Default for Edit {
    fn default() -> Self {
        Self::new()
    }
}

impl Edit {
    /// An edit without a step; it is not valid until it has one.
    pub fn new() -> Self {
        Self { v: FORM, ops: Vec::new() }
    }

    /// The steps of a JSON Patch (RFC 6902), an array; our own steps `set`, `increase`, `merge` and
    /// `restore` may be among them. Fails with [`ErrorKind::Invalid`] on anything else.
    pub fn from_patch(json: &str) -> Result<Self> {
        DOCUMENT.check_bytes(json.as_bytes())?;
        let ops = serde_json::from_str(json).map_err(|error| {
            Error::new(
                ErrorKind::Invalid,
                "this is no JSON \
                Patch",
            )
            .caused_by(error)
        })?;
        Ok(Self { v: FORM, ops })
    }

    /// Adds the steps of another one.
    #[must_use]
    pub fn then(mut self, other: Self) -> Self {
        self.ops.extend(other.ops);
        self
    }

    /// Puts `value` where the JSON pointer `path` (RFC 6901) leads, whether or not something is
    /// there. What it is in must be there.
    pub fn set(self, path: &str, value: Value) -> Result<Self> {
        Ok(self.step(Step::Set { path: pointer(path)?, value }))
    }

    /// Adds `by` to the number at `path`, which must be there. A whole number stays one.
    pub fn increase(self, path: &str, by: Number) -> Result<Self> {
        Ok(self.step(Step::Increase { path: pointer(path)?, by, create: false }))
    }

    /// The same where a number that is not there counts as 0 and is made. What it is in must be
    /// there. Undoing it leaves the number there.
    pub fn increase_or_create(self, path: &str, by: Number) -> Result<Self> {
        Ok(self.step(Step::Increase { path: pointer(path)?, by, create: true }))
    }

    /// Removes what is at `path`, which must be there.
    pub fn remove(self, path: &str) -> Result<Self> {
        Ok(self.step(Step::Remove(RemoveOperation { path: pointer(path)? })))
    }

    /// Goes on only if what is at `path` equals `value`.
    pub fn test(self, path: &str, value: Value) -> Result<Self> {
        Ok(self.step(Step::Test(TestOperation { path: pointer(path)?, value })))
    }

    /// Applies a merge patch (RFC 7396): members of objects are put in, null removes one.
    #[must_use]
    pub fn merge(self, patch: Value) -> Self {
        self.step(Step::Merge { patch })
    }

    fn step(mut self, step: Step) -> Self {
        self.ops.push(step);
        self
    }

    /// Whether it has steps, is of a form that is known, and is not too long.
    pub fn check(&self) -> Result<()> {
        if self.v > FORM {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the edit was written by a newer version: form=`{}`", self.v),
            ));
        }
        if self.ops.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "the edit does nothing"));
        }
        let size = DOCUMENT.encode(self)?.get().len();
        if size > MAX_EDIT_BYTES {
            let message = format!("the edit is too long: size=`{size}` limit=`{MAX_EDIT_BYTES}`");
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        Ok(())
    }

    /// The data with the edit applied. Fails with [`ErrorKind::EditRefused`] when a step does not
    /// fit, saying which and why.
    pub fn apply(&self, data: &Value) -> Result<Value> {
        self.check()?;
        self.steps(data).map_err(|refusal| Error::new(ErrorKind::EditRefused, refusal.why))
    }

    fn steps(&self, data: &Value) -> Result<Value, Refusal> {
        let mut data = data.clone();
        for (number, step) in self.ops.iter().enumerate() {
            step.apply(&mut data).map_err(|why| Refusal {
                why: format!("the edit does not fit: step {} ({}): {why}", number + 1, step.show()),
                unmatched: matches!(step, Step::Test(_)),
            })?;
        }
        Ok(data)
    }

    /// True for data that the edit does not mean: one of its tests does not match, and all steps
    /// before it fit. An edit of many profiles skips such data.
    pub fn passes_over(&self, data: &RawValue) -> bool {
        let read = Aside::read(data, self).ok();
        read.is_some_and(|(data, _)| self.steps(&data).is_err_and(|refusal| refusal.unmatched))
    }

    /// What the edit would change in stored data. Parts that cannot be read, of data that was
    /// stored by an earlier version, stay as they are unless the edit removes or replaces them.
    /// Fails as [`Edit::apply`] does.
    pub fn preview(&self, data: &RawValue) -> Result<Vec<JsonChange>> {
        let refused = |why: String| Error::new(ErrorKind::EditRefused, why);
        let (before, aside) = Aside::read(data, self).map_err(refused)?;
        let after = self.apply(&before)?;
        stays_a_table(&before, &after).map_err(refused)?;
        aside.write(&after).map_err(refused)?;
        Ok(json_changes(&before, &after))
    }

    /// The edit that undoes this one, which made `after` of `before`. It takes back what was added
    /// to a number, whatever became of the number since, and puts everything else back unless it
    /// was changed since; a changed list counts as a whole. None when there is nothing to undo. It
    /// may be longer than an edit may be: see [`Edit::check`].
    pub fn undo(&self, before: &Value, after: &Value) -> Option<Self> {
        let mut undo = Self::new();
        for JsonChange { path, before, after } in json_changes(before, after) {
            let path = PointerBuf::parse(path).ok()?;
            let step = match self.only_increased(&path) {
                Some(by) => Step::Increase { path, by, create: false },
                None => Step::Restore { path, is: after, was: before },
            };
            undo = undo.step(step);
        }
        (!undo.ops.is_empty()).then_some(undo)
    }

    /// What takes back all that was added at a path, if nothing else was done to it.
    fn only_increased(&self, path: &PointerBuf) -> Option<Number> {
        let mut sum = Number::from(0);
        for step in &self.ops {
            match step {
                Step::Increase { path: other, by, .. } if other == path => {
                    sum = subtract(&sum, by)?
                }
                Step::Test(_) => {}
                Step::Increase { path: other, .. } | Step::Set { path: other, .. }
                    if !touches(other, path) => {}
                Step::Restore { path: other, .. } if !touches(other, path) => {}
                Step::Add(AddOperation { path: other, .. })
                | Step::Remove(RemoveOperation { path: other })
                | Step::Replace(ReplaceOperation { path: other, .. })
                    if !touches(other, path) => {}
                Step::Copy(copy) if !touches(&copy.path, path) => {}
                Step::Move(moved) if !touches(&moved.path, path) && !touches(&moved.from, path) => {
                }
                _ => return None,
            }
        }
        (sum != Number::from(0)).then_some(sum)
    }
}

impl Step {
    fn apply(&self, data: &mut Value) -> Result<(), String> {
        match self {
            Self::Add(op) => standard(data, PatchOperation::Add(op.clone())),
            Self::Remove(op) => remove(data, op.path.as_str()),
            Self::Replace(op) => standard(data, PatchOperation::Replace(op.clone())),
            Self::Move(op) => standard(data, PatchOperation::Move(op.clone())),
            Self::Copy(op) => {
                standard(data, PatchOperation::Copy(op.clone()))?;
                // Each copy may double it.
                let size = serde_json::to_string(data).map_or(usize::MAX, |json| json.len());
                if size > MAX_DATA_BYTES {
                    Err(format!("the data grows to {size} bytes"))
                } else {
                    Ok(())
                }
            }
            Self::Test(op) => match lookup(data, op.path.as_str()) {
                Some(found) if same(found, &op.value) => Ok(()),
                found => Err(differs(found)),
            },
            Self::Set { path, value } => set(data, path.as_str(), value.clone()),
            Self::Increase { path, by, create } => {
                if *create && lookup(data, path.as_str()).is_none() {
                    return set(data, path.as_str(), by.clone().into());
                }
                increase(data, path.as_str(), by)
            }
            Self::Merge { patch } => {
                json_patch::merge(data, patch);
                Ok(())
            }
            Self::Restore { path, is, was } => {
                let found = lookup(data, path.as_str());
                let unchanged = match (found, is) {
                    (Some(found), Some(is)) => same(found, is),
                    (None, None) => true,
                    _ => false,
                };
                if !unchanged {
                    return Err(format!("it was changed since: {}", differs(found)));
                }
                match was {
                    Some(was) => set(data, path.as_str(), was.clone()),
                    None => remove(data, path.as_str()),
                }
            }
        }
    }

    fn show(&self) -> String {
        let (name, path) = match self {
            Self::Add(op) => ("add", &op.path),
            Self::Remove(op) => ("remove", &op.path),
            Self::Replace(op) => ("replace", &op.path),
            Self::Move(op) => ("move", &op.path),
            Self::Copy(op) => ("copy", &op.path),
            Self::Test(op) => ("test", &op.path),
            Self::Set { path, .. } => ("set", path),
            Self::Increase { path, .. } => ("increase", path),
            Self::Restore { path, .. } => ("restore", path),
            Self::Merge { .. } => return "merge".to_owned(),
        };
        format!("{name} `{path}`")
    }
}

fn pointer(path: &str) -> Result<PointerBuf> {
    PointerBuf::parse(path).map_err(|_| {
        Error::new(
            ErrorKind::Invalid,
            format!(
                "this is no JSON pointer; it begins with a slash, as in /stats/coins: path=`{path}`"
            ),
        )
    })
}

/// Data that is an object or a list stays one, online and offline: a game could not open
/// anything else. What was stored as something else before can be repaired.
fn stays_a_table(before: &Value, after: &Value) -> Result<(), String> {
    let is_table = |data: &Value| data.is_object() || data.is_array();
    if is_table(before) && !is_table(after) {
        return Err("the data would be neither object nor list any more, and could not be opened \
            or imported"
            .into());
    }
    Ok(())
}

/// Whether one of two paths leads through the other.
fn touches(a: &PointerBuf, b: &PointerBuf) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

fn standard(data: &mut Value, operation: PatchOperation) -> Result<(), String> {
    json_patch::patch_unsafe(data, std::slice::from_ref(&operation)).map_err(|error| {
        match error.kind {
            PatchErrorKind::InvalidPointer => "there is nothing at its path".to_owned(),
            PatchErrorKind::InvalidFromPointer => {
                "there is nothing at the path it comes from".to_owned()
            }
            kind => kind.to_string(),
        }
    })
}

fn differs(found: Option<&Value>) -> String {
    const SHOWN: usize = 60;
    let Some(found) = found else { return "there is nothing".to_owned() };
    let text = found.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("there is {}…", &text[..end]),
        None => format!("there is {text}"),
    }
}

/// The container that a path ends in, and its last token, decoded.
fn parent<'a>(data: &'a mut Value, path: &str) -> Result<(&'a mut Value, String), String> {
    let (parent, last) = path.rsplit_once('/').ok_or("it names all of the data")?;
    let parent =
        data.pointer_mut(parent).ok_or_else(|| format!("there is nothing at `{parent}`"))?;
    Ok((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn element(list: &[Value], token: &str) -> Result<usize, String> {
    let index = token.parse::<usize>().ok().filter(|index| index.to_string() == token);
    index
        .filter(|index| *index < list.len())
        .ok_or_else(|| format!("the list has no element `{token}`, it is {} long", list.len()))
}

fn set(data: &mut Value, path: &str, value: Value) -> Result<(), String> {
    if path.is_empty() {
        *data = value;
        return Ok(());
    }
    let (parent, last) = parent(data, path)?;
    match parent {
        Value::Object(members) => {
            members.insert(last, value);
        }
        Value::Array(list) if last == "-" => list.push(value),
        Value::Array(list) => {
            let index = element(list, &last)?;
            list[index] = value;
        }
        other => {
            return Err(format!(
                "what it is in is neither object nor list: {}",
                differs(Some(other))
            ));
        }
    }
    Ok(())
}

fn remove(data: &mut Value, path: &str) -> Result<(), String> {
    let (parent, last) = parent(data, path)?;
    match parent {
        // The other members stay in their order.
        Value::Object(members) => members
            .shift_remove(&last)
            .map(drop)
            .ok_or_else(|| "there is nothing at its path".to_owned()),
        Value::Array(list) => {
            let index = element(list, &last)?;
            list.remove(index);
            Ok(())
        }
        other => Err(format!("what it is in is neither object nor list: {}", differs(Some(other)))),
    }
}

fn increase(data: &mut Value, path: &str, by: &Number) -> Result<(), String> {
    let Some(Value::Number(number)) = data.pointer_mut(path) else {
        return Err(format!("there is no number at its path: {}", differs(lookup(data, path))));
    };
    *number = add(number, by).ok_or_else(|| {
        format!("`{number}` and `{by}` together are too large, or would be rounded")
    })?;
    Ok(())
}

fn add(a: &Number, b: &Number) -> Option<Number> {
    combine(a, b, |a, b| a + b, |a, b| a + b)
}

fn subtract(a: &Number, b: &Number) -> Option<Number> {
    combine(a, b, |a, b| a - b, |a, b| a - b)
}

/// Whole numbers stay whole and exact. None: the result cannot be stored, or would be rounded where
/// one of the two is exact.
fn combine(
    a: &Number,
    b: &Number,
    exact: fn(i128, i128) -> i128,
    floats: fn(f64, f64) -> f64,
) -> Option<Number> {
    if let (Some(a), Some(b)) = (whole(a), whole(b)) {
        return whole_number(exact(a, b));
    }
    let is_exact = |number: &Number| {
        whole(number).is_none_or(|whole| whole.unsigned_abs() <= 1 << f64::MANTISSA_DIGITS)
    };
    if !is_exact(a) || !is_exact(b) {
        return None;
    }
    Number::from_f64(floats(a.as_f64()?, b.as_f64()?))
}

fn whole_number(sum: i128) -> Option<Number> {
    i64::try_from(sum).map(Number::from).or_else(|_| u64::try_from(sum).map(Number::from)).ok()
}

#[cfg(test)]
mod aside_tests;
#[cfg(test)]
mod tests;
