//! One step of an edit: what it does to data, or why it does not fit.

use json_patch::{
    AddOperation, CopyOperation, MoveOperation, PatchErrorKind, PatchOperation, RemoveOperation,
    ReplaceOperation, TestOperation, jsonptr::PointerBuf,
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Number, Value};

use super::changes::{lookup, same, whole};
use crate::storable::MAX_DATA_BYTES;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(super) enum Step {
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

impl Step {
    pub(super) fn apply(&self, data: &mut Value) -> Result<(), String> {
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

    /// As messages name it.
    pub(super) fn show(&self) -> String {
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

pub(super) fn subtract(a: &Number, b: &Number) -> Option<Number> {
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
