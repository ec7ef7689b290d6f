//! What is different between two JSON values.

use std::cmp::Ordering;

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

/// The differences between two JSON values, member by member of their objects; lists are compared as a whole. Numbers are equal when
/// their values are, however they are written, and the order of members does not matter.
pub fn json_changes(before: &Value, after: &Value) -> Vec<JsonChange> {
    let mut changes = Vec::new();
    compare(String::new(), before, after, &mut changes);
    changes
}

fn compare(path: String, before: &Value, after: &Value, changes: &mut Vec<JsonChange>) {
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        if !same(before, after) {
            changes.push(JsonChange { path, before: Some(before.clone()), after: Some(after.clone()) });
        }
        return;
    };
    let below = |name: &str| format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
    for (name, before) in old {
        match new.get(name) {
            Some(after) => compare(below(name), before, after, changes),
            None => changes.push(JsonChange { path: below(name), before: Some(before.clone()), after: None }),
        }
    }
    for (name, after) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        changes.push(JsonChange { path: below(name), before: None, after: Some(after.clone()) });
    }
}

/// Whether two values mean the same.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => same_number(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

fn same_number(a: &Number, b: &Number) -> bool {
    let as_float = || a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| a.total_cmp(&b) == Ordering::Equal || a == b);
    a == b || ((a.is_f64() || b.is_f64()) && as_float())
}

/// What is at a path.
pub(super) fn lookup<'a>(data: &'a Value, path: &str) -> Option<&'a Value> {
    data.pointer(path)
}
