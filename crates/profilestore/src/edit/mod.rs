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
    AddOperation, RemoveOperation, ReplaceOperation, TestOperation, jsonptr::PointerBuf,
};
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value, value::RawValue};

use crate::{
    error::{Error, ErrorKind, Result},
    storable::DOCUMENT,
};

pub(crate) mod apply;
mod aside;
pub(crate) mod bulk;
mod changes;
pub(crate) mod request;
pub(crate) mod standing;
mod step;
pub(crate) mod types;
mod waiting;

pub(crate) use aside::Aside;
pub use bulk::{BulkEdit, BulkProgress, BulkReport, EditScope};
pub use changes::{JsonChange, json_changes};
use changes::{alike, lookup};
pub use standing::{MAX_STANDING_BYTES, MAX_STANDING_EDITS, StandingEdit, standing_edits};
use step::{Step, subtract};
pub use waiting::WaitingEdit;

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

#[cfg(test)]
mod aside_tests;
#[cfg(test)]
mod tests;
