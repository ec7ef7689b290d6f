//! Filling in what a newer template has and stored data lacks.

use serde_json::Value;

/// Adds to `target` each string key that `template` has and `target` lacks, all the way down where
/// both are objects. A value that is there is left alone, whatever its type; arrays are left alone.
/// An empty array counts as an empty object, since Lua cannot tell them apart. Specification:
/// `Reconcile`.
pub(crate) fn reconcile(target: &mut Value, template: &Value) {
    let Value::Object(template) = template else { return };
    if target.as_array().is_some_and(Vec::is_empty) {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in template {
        match target.get_mut(key) {
            None => {
                target.insert(key.clone(), value.clone());
            }
            Some(there) if value.is_object() => reconcile(there, value),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fills_missing_string_keys_only() {
        let mut data = json!({"coins": 5, "flag": false, "items": ["hat"], "pets": {"cat": 1}, "kind": "text", "empty": []});
        let template = json!({"coins": 0, "flag": true, "items": ["a", "b"], "pets": {"cat": 0, "dog": {"age": 2}}, "kind": {"x": 1}, "empty": {"y": 1}, "new": {"z": [1]}});
        reconcile(&mut data, &template);
        assert_eq!(
            data,
            json!({"coins": 5, "flag": false, "items": ["hat"], "pets": {"cat": 1, "dog": {"age": 2}}, "kind": "text", "empty": {"y": 1}, "new": {"z": [1]}})
        );
    }
}
