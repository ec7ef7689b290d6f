//! Edits of data that serde_json's values cannot hold as it is.

use serde_json::{json, value::RawValue};

use super::*;
use crate::storable;

/// Data that breaks the rule in every way.
const ODD: &str = r#"{"coins":5,"big":123456789012345678901,"far":1e999,"half":"\ud800","long":0.12345678901234567890,"list":[1,"\udc00"],"\ud834":1,"deep":DEEP}"#;

fn odd() -> Box<RawValue> {
    let deep = format!("{}{}", "[".repeat(150), "]".repeat(150));
    RawValue::from_string(ODD.replace("DEEP", &deep)).unwrap()
}

fn edited(edit: &Edit) -> Result<String, String> {
    let data = odd();
    let (before, aside) = Aside::read(&data, edit).unwrap();
    let after = edit.apply(&before).map_err(|error| aside.put_back(&error.to_string()))?;
    Ok(aside.write(&after)?.get().to_owned())
}

#[test]
fn what_an_edit_does_not_name_stays_as_it_was_stored() {
    let edit = Edit::new().increase("/coins", 1.into()).unwrap();
    assert_eq!(edited(&edit).unwrap(), odd().get().replace("\"coins\":5", "\"coins\":6"));
    let changes = edit.preview(&odd()).unwrap();
    assert_eq!((changes.len(), changes[0].path.as_str()), (1, "/coins"));
}

#[test]
fn what_could_not_be_stored_today_can_always_be_removed_replaced_and_moved() {
    let mut data = odd();
    for path in ["/big", "/far", "/half", "/long", "/list/1", "/deep"] {
        let edit = Edit::new().remove(path).unwrap();
        let (before, aside) = Aside::read(&data, &edit).unwrap();
        data = aside.write(&edit.apply(&before).unwrap()).unwrap();
    }
    assert_eq!(data.get(), r#"{"coins":5,"list":[1],"\ud834":1}"#);
    assert!(edited(&Edit::new().set("/far", json!(7)).unwrap()).unwrap().contains("\"far\":7,"));
    let moved = Edit::from_patch(r#"[{"op":"move","from":"/big","path":"/list/0"}]"#).unwrap();
    assert!(edited(&moved).unwrap().contains(r#""list":[123456789012345678901,1,"#));
    let error = edited(&Edit::new().increase("/big", 1.into()).unwrap()).unwrap_err();
    assert!(error.contains("there is 123456789012345678901"), "{error}");
}

#[test]
fn what_an_edit_brings_in_must_be_storable() {
    let nested = (0..storable::MAX_DEPTH).fold(json!(1), |inner, _| json!([inner]));
    assert!(
        edited(&Edit::new().set("/coins", nested).unwrap()).unwrap_err().contains("nest too deep")
    );
    for text in ["123456789012345678901", "1e999", r#""\ud800""#] {
        let patch = format!(r#"[{{"op":"replace","path":"/coins","value":{text}}}]"#);
        let error = Edit::from_patch(&patch).unwrap_err();
        assert!(error.to_string().contains("at `/0/value`"), "{error}");
    }
}

#[test]
fn the_texts_that_stand_for_parts_are_never_taken_for_data() {
    let data =
        RawValue::from_string(r#"{"a":1e999,"b":"aside-0:0;","c":"\ud800"}"#.to_owned()).unwrap();
    let edit = Edit::new().set("/d", json!("aside-1:1;")).unwrap();
    let (before, aside) = Aside::read(&data, &edit).unwrap();
    assert!(
        aside.is_in(&before["a"].to_string())
            && !aside.is_in("aside-0:0;")
            && !aside.is_in("aside-1:1;")
    );
    let after = aside.write(&edit.apply(&before).unwrap()).unwrap();
    assert_eq!(after.get(), r#"{"a":1e999,"b":"aside-0:0;","c":"\ud800","d":"aside-1:1;"}"#);
}

#[test]
fn numbers_of_64_bits_are_exact_in_every_step() {
    let data =
        json!({ "low": i64::MIN, "high": u64::MAX, "zero": 0, "odd": 9_007_199_254_740_993_i64 });
    let text = RawValue::from_string(data.to_string()).unwrap();
    assert!(storable::unreadable(&text).is_empty());
    let edit = Edit::new()
        .increase("/low", 1.into())
        .and_then(|edit| edit.increase("/high", (-1).into()))
        .unwrap();
    let after = edit.apply(&data).unwrap();
    assert_eq!((&after["low"], &after["high"]), (&json!(i64::MIN + 1), &json!(u64::MAX - 1)));
    assert_eq!(edit.undo(&data, &after).unwrap().apply(&after).unwrap(), data);
    // Between whole numbers beyond 2^53 and floats there is no exact sum.
    for (path, by) in [("/odd", 0.5), ("/high", 1e19)] {
        let by = Number::from_f64(by).unwrap();
        assert!(
            Edit::new()
                .increase(path, by)
                .unwrap()
                .apply(&data)
                .unwrap_err()
                .to_string()
                .contains("rounded")
        );
    }
    assert!(Edit::new().increase("/low", (-1).into()).unwrap().apply(&data).is_err());
    // The float next to a whole number is another number.
    let near = Edit::new().set("/odd", json!(9_007_199_254_740_992.0)).unwrap();
    assert_eq!(json_changes(&data, &near.apply(&data).unwrap()).len(), 1);
    assert!(
        Edit::new().test("/odd", json!(9_007_199_254_740_992.0)).unwrap().apply(&data).is_err()
    );
}

#[test]
fn minus_zero_keeps_its_sign() {
    let data = json!({ "x": 0.0, "y": -0.0 });
    let edit = Edit::new().set("/x", json!(-0.0)).unwrap();
    let after = edit.apply(&data).unwrap();
    assert_eq!(after.to_string(), r#"{"x":-0.0,"y":-0.0}"#);
    assert_eq!(json_changes(&data, &after).len(), 1);
    assert_eq!(
        edit.undo(&data, &after).unwrap().apply(&after).unwrap().to_string(),
        data.to_string()
    );
    assert!(
        Edit::new().test("/y", json!(0)).unwrap().apply(&data).is_ok(),
        "a test compares values"
    );
}
