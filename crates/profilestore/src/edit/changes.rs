//! What is different between two JSON values.

use serde::Serialize;
use serde_json::{Number, Value};

/// One difference between two JSON values.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct JsonChange {
    /// Where, a JSON pointer (RFC 6901).
    pub path: String,
    /// What was there; None when there was nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What is there now; None when there is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// The differences between two JSON values, member by member of their objects; lists are compared
/// as a whole. Numbers are equal when their values are, however they are written, but -0 is not 0;
/// the order of members does not matter.
pub fn json_changes(before: &Value, after: &Value) -> Vec<JsonChange> {
    let mut changes = Vec::new();
    compare(String::new(), before, after, &mut changes);
    changes
}

fn compare(path: String, before: &Value, after: &Value, changes: &mut Vec<JsonChange>) {
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        if !alike(before, after) {
            changes.push(JsonChange {
                path,
                before: Some(before.clone()),
                after: Some(after.clone()),
            });
        }
        return;
    };
    let below = |name: &str| format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
    for (name, before) in old {
        match new.get(name) {
            Some(after) => compare(below(name), before, after, changes),
            None => changes.push(JsonChange {
                path: below(name),
                before: Some(before.clone()),
                after: None,
            }),
        }
    }
    for (name, after) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        changes.push(JsonChange { path: below(name), before: None, after: Some(after.clone()) });
    }
}

/// Whether two values mean the same. Zero is zero, whatever its sign.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    same_by(a, b, same_number)
}

/// Whether one value may stand for the other: the same, and zeros of the same sign.
pub(super) fn alike(a: &Value, b: &Value) -> bool {
    same_by(a, b, |a, b| same_number(a, b) && is_negative(a) == is_negative(b))
}

fn same_by(a: &Value, b: &Value, numbers: fn(&Number, &Number) -> bool) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => numbers(a, b),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_by(a, b, numbers))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same_by(a, b, numbers)))
        }
        _ => a == b,
    }
}

/// Exact: a whole number beyond 2^53 is not the float next to it.
fn same_number(a: &Number, b: &Number) -> bool {
    let as_whole =
        |number: &Number| whole(number).or_else(|| number.as_f64().and_then(whole_float));
    match (as_whole(a), as_whole(b)) {
        (Some(a), Some(b)) => a == b,
        (None, None) => a.as_f64() == b.as_f64(),
        _ => false,
    }
}

fn is_negative(number: &Number) -> bool {
    number.as_f64().is_some_and(f64::is_sign_negative)
}

/// A number of 64 bits.
pub(super) fn whole(number: &Number) -> Option<i128> {
    number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from))
}

fn whole_float(number: f64) -> Option<i128> {
    const FAR: f64 = 1e30;
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
    (number.fract() == 0.0 && number.abs() < FAR).then_some(number as i128)
}

/// What is at a path.
pub(super) fn lookup<'a>(data: &'a Value, path: &str) -> Option<&'a Value> {
    data.pointer(path)
}
