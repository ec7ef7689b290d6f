//! What differs between two versions, for people and programs. Pure.
//!
//! Members of objects are compared by name, whatever their order. Lists are aligned on what they
//! have in common, so that an item taken out of the middle is one difference and not one for each
//! item behind it.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;
use serde_json::{Map, Number, Value, value::RawValue};
use similar::{Algorithm, DiffOp, capture_diff_slices};

use crate::record::Stored;

/// Aligning two lists takes at worst the product of their lengths. Beyond this, items at the same
/// place are compared.
const ALIGNED: usize = 1 << 24;

/// One place at which two values differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Difference {
    /// Where: a JSON pointer (RFC 6901). An index into a list counts in the later list, for
    /// something that is gone in the earlier one. Empty for the value as a whole.
    pub path: String,
    /// What was there before. None: nothing, it was added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What is there after. None: nothing, it was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// What has to be changed in `before` to make it `after`, in the order of `before`, then what was
/// added in the order of `after`. Numbers are compared by value: 1 and 1.0 are the same.
pub fn diff(before: &Value, after: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    compare(&mut String::new(), before, after, &mut found);
    found
}

/// A version's content as it is compared: the data and what belongs to it, in the document's names,
/// without sessions, messages and times. What is no profile is compared as it is; a tombstone
/// (None) is null. Fails on a value nested too deeply.
pub fn comparable(stored: Option<&Stored>) -> serde_json::Result<Value> {
    let parse = |json: &RawValue| serde_json::from_str::<Value>(json.get());
    let mut content = Map::new();
    let mut add = |name: &str, value: Value| {
        content.insert(name.to_owned(), value);
    };
    match stored {
        None => return Ok(Value::Null),
        Some(Stored::Foreign(foreign)) => return parse(&foreign.value),
        Some(Stored::MessagesOnly(_)) => {}
        Some(Stored::Profile(record)) => {
            add("Data", parse(&record.data)?);
            add("MetaTags", record.meta_tags.clone().into());
        }
    }
    if let Some(stored) = stored {
        add("UserIds", stored.user_ids().into());
        add("RobloxMetaData", stored.metadata().clone().into());
    }
    Ok(content.into())
}

fn compare(path: &mut String, before: &Value, after: &Value, found: &mut Vec<Difference>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            for (name, value) in before {
                match after.get(name) {
                    Some(other) => within(path, name, |path| compare(path, value, other, found)),
                    None => {
                        within(path, name, |path| found.push(difference(path, Some(value), None)))
                    }
                }
            }
            for (name, value) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
                within(path, name, |path| found.push(difference(path, None, Some(value))));
            }
        }
        (Value::Array(before), Value::Array(after)) => compare_lists(path, before, after, found),
        _ if same(before, after) => {}
        _ => found.push(difference(path, Some(before), Some(after))),
    }
}

fn compare_lists(
    path: &mut String,
    before: &[Value],
    after: &[Value],
    found: &mut Vec<Difference>,
) {
    // Equal items get equal numbers, which can be aligned.
    let mut numbers = BTreeMap::new();
    let mut numbered = |list: &[Value]| -> Vec<usize> {
        list.iter()
            .map(|item| {
                let (mut text, next) = (String::new(), numbers.len());
                canonical(item, &mut text);
                *numbers.entry(text).or_insert(next)
            })
            .collect()
    };
    let ops = match before.len().saturating_mul(after.len()) <= ALIGNED {
        true => capture_diff_slices(Algorithm::Myers, &numbered(before), &numbered(after)),
        false => vec![DiffOp::Replace {
            old_index: 0,
            old_len: before.len(),
            new_index: 0,
            new_len: after.len(),
        }],
    };
    for op in ops {
        let (_, old, new) = op.as_tag_tuple();
        if matches!(op, DiffOp::Equal { .. }) {
            continue;
        }
        // In a stretch that was replaced, items at the same place are taken for the same item,
        // changed.
        let both = old.len().min(new.len());
        for (was, is) in old.clone().zip(new.clone()) {
            within(path, &is.to_string(), |path| compare(path, &before[was], &after[is], found));
        }
        for was in old.skip(both) {
            within(path, &was.to_string(), |path| {
                found.push(difference(path, Some(&before[was]), None))
            });
        }
        for is in new.skip(both) {
            within(path, &is.to_string(), |path| {
                found.push(difference(path, None, Some(&after[is])))
            });
        }
    }
}

/// Runs `then` with the path one step further down.
fn within(path: &mut String, step: &str, then: impl FnOnce(&mut String)) {
    let length = path.len();
    path.push('/');
    path.push_str(&step.replace('~', "~0").replace('/', "~1"));
    then(path);
    path.truncate(length);
}

fn difference(path: &str, before: Option<&Value>, after: Option<&Value>) -> Difference {
    Difference { path: path.to_owned(), before: before.cloned(), after: after.cloned() }
}

/// Whether two values that are not both objects or both lists are the same.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || (whole(a).is_some() && whole(a) == whole(b))
        }
        _ => a == b,
    }
}

/// A number that is whole, however it is written.
fn whole(number: &Number) -> Option<i128> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let integer = number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from));
    integer.or_else(|| {
        let float = number.as_f64()?;
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
        (float.fract() == 0.0 && float.abs() <= EXACT).then_some(float as i128)
    })
}

/// Writes a text that is the same for values that are compared as the same.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(map) => {
            text.push('{');
            for (name, value) in map.iter().collect::<BTreeMap<_, _>>() {
                let _ = write!(text, "{name:?}:");
                canonical(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(list) => {
            text.push('[');
            for item in list {
                canonical(item, text);
                text.push(',');
            }
            text.push(']');
        }
        Value::Number(number) => {
            let _ = match whole(number) {
                Some(whole) => write!(text, "{whole}"),
                None => write!(text, "{number}"),
            };
        }
        other => {
            let _ = write!(text, "{other}");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn shown(before: Value, after: Value) -> Vec<String> {
        let show =
            |value: &Option<Value>| value.as_ref().map_or("nothing".to_owned(), Value::to_string);
        diff(&before, &after)
            .iter()
            .map(|d| format!("{}: {} -> {}", d.path, show(&d.before), show(&d.after)))
            .collect()
    }

    #[test]
    fn members_are_compared_by_name() {
        assert_eq!(
            shown(json!({ "a": 1, "b": { "c": [] } }), json!({ "b": { "c": [] }, "a": 1.0 })),
            [""; 0]
        );
        assert_eq!(
            shown(
                json!({ "gone": 1, "a": { "b": 2, "null": null } }),
                json!({ "new": { "x": 1 }, "a": { "b": "2", "null": 0 } })
            ),
            [
                "/gone: 1 -> nothing",
                "/a/b: 2 -> \"2\"",
                "/a/null: null -> 0",
                "/new: nothing -> {\"x\":1}"
            ]
        );
        assert_eq!(
            shown(json!({ "a/b": { "~": 1 } }), json!({ "a/b": { "~": 2 } })),
            ["/a~1b/~0: 1 -> 2"]
        );
        assert_eq!(shown(json!({ "a": 1 }), Value::Null), [": {\"a\":1} -> null"]);
        assert_eq!(shown(json!({ "a": null }), json!({})), ["/a: null -> nothing"]);
    }

    #[test]
    fn lists_are_aligned() {
        let items = |ids: &[u64]| {
            ids.iter().map(|id| json!({ "id": id, "tags": ["x"] })).collect::<Value>()
        };
        assert_eq!(
            shown(items(&[1, 2, 3, 4]), items(&[1, 3, 4])),
            ["/1: {\"id\":2,\"tags\":[\"x\"]} -> nothing"]
        );
        assert_eq!(
            shown(items(&[1, 2]), items(&[9, 1, 2])),
            ["/0: nothing -> {\"id\":9,\"tags\":[\"x\"]}"]
        );
        assert_eq!(shown(items(&[1, 2, 3]), items(&[1, 5, 3])), ["/1/id: 2 -> 5"]);
        assert_eq!(
            shown(json!([1, [2, 3]]), json!([1, [3], 4])),
            ["/1/0: 2 -> nothing", "/2: nothing -> 4"]
        );
        let long = |first: u64| (first..first + 5000).map(Value::from).collect::<Value>();
        assert_eq!(diff(&long(0), &long(1)).len(), 5000, "too long to be aligned");
        assert_eq!(
            shown(json!([1, { "a": 1, "b": 2 }]), json!([1.0, { "b": 2.0, "a": 1 }])),
            [""; 0]
        );
    }

    #[test]
    fn great_numbers_are_told_apart() {
        let (a, b) = (json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992_u64));
        assert_eq!(diff(&a, &b).len(), 1);
        assert_eq!(diff(&json!([a]), &json!([b])).len(), 1);
        assert_eq!(diff(&json!(u64::MAX), &json!(-1)).len(), 1);
        assert_eq!(diff(&json!(0.5), &json!(0.25)).len(), 1);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-3..3_i64).prop_map(Value::from),
            "[a/~]{0,2}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[ab/~]{1,2}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_diff_is_empty_only_for_equal_values_and_names_real_places(
            a in any_json(),
            b in any_json(),
        ) {
            prop_assert_eq!(diff(&a, &a), vec![]);
            prop_assert_eq!(diff(&a, &b).is_empty(), a == b);
            for difference in diff(&a, &b) {
                prop_assert_ne!(&difference.before, &difference.after);
                if let Some(after) = &difference.after {
                    prop_assert_eq!(b.pointer(&difference.path), Some(after));
                } else {
                    let (parent, _) =
                        difference.path.rsplit_once('/').expect("a whole value is never gone");
                    prop_assert!(difference.before.is_some());
                    prop_assert!(b.pointer(parent).is_some() || a.pointer(parent).is_some());
                }
            }
        }
    }
}
