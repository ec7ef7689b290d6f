use super::{changes::same, *};
use proptest::prelude::*;
use serde_json::json;

fn data() -> Value {
    json!({ "coins": 5, "rate": 0.5, "name": "ann", "items": ["a", "b"], "stats": { "kills": 1, "a/b": 2, "m~n": 3 }, "none": null })
}

fn patch(ops: Value) -> Edit {
    Edit::from_patch(&ops.to_string()).unwrap()
}

fn refused(edit: &Edit) -> String {
    let error = edit.apply(&data()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::EditRefused);
    error.to_string()
}

#[test]
fn sets_increases_removes_and_merges() {
    let edit = Edit::new()
        .set("/stats/kills", json!(7))
        .and_then(|edit| edit.set("/stats/deaths", json!([])))
        .and_then(|edit| edit.set("/items/0", json!("c")))
        .and_then(|edit| edit.set("/items/-", json!("d")))
        .and_then(|edit| edit.increase("/coins", 10.into()))
        .and_then(|edit| edit.increase("/rate", 1.into()))
        .and_then(|edit| edit.remove("/stats/a~1b"))
        .and_then(|edit| edit.remove("/stats/m~0n"))
        .unwrap()
        .merge(json!({ "name": null, "guild": { "id": 1 } }));
    let expected = json!({ "coins": 15, "rate": 1.5, "items": ["c", "b", "d"], "stats": { "kills": 7, "deaths": [] }, "none": null,
        "guild": { "id": 1 } });
    assert_eq!(edit.apply(&data()).unwrap(), expected);
}

#[test]
fn a_number_that_is_not_there_counts_as_0_when_that_is_asked_for() {
    let edit = Edit::new()
        .increase_or_create("/stats/wins", 3.into())
        .and_then(|edit| edit.increase_or_create("/coins", 2.into()))
        .unwrap();
    let after = edit.apply(&data()).unwrap();
    assert_eq!((&after["stats"]["wins"], &after["coins"]), (&json!(3), &json!(7)));
    let undone = edit.undo(&data(), &after).unwrap().apply(&after).unwrap();
    assert_eq!((&undone["stats"]["wins"], &undone["coins"]), (&json!(0), &json!(5)));
    for (path, why) in [("/bag/x", "there is nothing at `/bag`"), ("/name", "there is no number")] {
        let edit = Edit::new().increase_or_create(path, 1.into()).unwrap();
        assert!(refused(&edit).contains(why), "{path}");
    }
    let json = serde_json::to_string(&edit).unwrap();
    assert_eq!(serde_json::from_str::<Edit>(&json).unwrap(), edit);
}

#[test]
fn a_step_that_does_not_fit_is_named_and_nothing_is_changed() {
    let edit = Edit::new()
        .increase("/coins", 1.into())
        .and_then(|edit| edit.increase("/name", 1.into()))
        .unwrap();
    assert_eq!(
        refused(&edit),
        "the edit does not fit: step 2 (increase `/name`): there is no number at its path: there \
            is \"ann\""
    );
    let says = |edit: Result<Edit>, what: &str| {
        assert!(refused(&edit.as_ref().unwrap().clone()).contains(what), "{edit:?}")
    };
    says(Edit::new().set("/bag/x", json!(1)), "there is nothing at `/bag`");
    says(Edit::new().set("/items/2", json!(1)), "the list has no element `2`, it is 2 long");
    says(Edit::new().set("/name/x", json!(1)), "neither object nor list");
    says(Edit::new().remove("/gone"), "there is nothing at its path");
    says(Edit::new().increase("/gone", 1.into()), "there is nothing");
    says(Edit::new().increase("/coins", u64::MAX.into()), "together are too large");
    says(Edit::new().test("/coins", json!(6)), "there is 5");
    says(
        Ok(patch(json!([{ "op": "replace", "path": "/gone", "value": 1 }]))),
        "there is nothing at its path",
    );
    says(
        Ok(patch(json!([{ "op": "move", "from": "/gone", "path": "/x" }]))),
        "there is nothing at the path it comes from",
    );
}

#[test]
fn a_patch_is_read_strictly() {
    for wrong in [
        "{}",
        "[{\"op\":\"jump\",\"path\":\"/a\"}]",
        "[{\"op\":\"remove\",\"path\":\"a\"}]",
        "[{\"op\":\"increase\",\"path\":\"/a\",\"by\":\"1\"}]",
    ] {
        assert_eq!(
            Edit::from_patch(wrong).map_err(|error| error.kind()),
            Err(ErrorKind::Invalid),
            "{wrong}"
        );
    }
    assert_eq!(Edit::new().set("coins", json!(1)).unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(patch(json!([])).check().unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(
        Edit::new()
            .set("/a", json!("x".repeat(MAX_EDIT_BYTES)))
            .unwrap()
            .check()
            .unwrap_err()
            .kind(),
        ErrorKind::TooLarge
    );
    let newer: Edit =
        serde_json::from_value(json!({ "v": 2, "ops": [{ "op": "remove", "path": "/coins" }] }))
            .unwrap();
    assert_eq!(newer.apply(&data()).unwrap_err().kind(), ErrorKind::Invalid);
}

#[test]
fn tests_compare_numbers_by_value() {
    assert!(Edit::new().test("/coins", json!(5.0)).unwrap().apply(&data()).is_ok());
    assert!(Edit::new().test("/coins", json!("5")).unwrap().apply(&data()).is_err());
}

#[test]
fn copies_that_double_the_data_end() {
    let ops: Vec<Value> =
        (0..40).map(|n| json!({ "op": "copy", "from": "", "path": format!("/c{n}") })).collect();
    assert!(refused(&patch(json!(ops))).contains("the data grows"));
}

#[test]
fn what_was_added_is_taken_back_whatever_was_earned_since() {
    let edit = Edit::new().increase("/coins", 100.into()).unwrap();
    let mut after = edit.apply(&data()).unwrap();
    let undo = edit.undo(&data(), &after).unwrap();
    after["coins"] = json!(108);
    assert_eq!(undo.apply(&after).unwrap()["coins"], 8);
    let redo = undo.undo(&after, &undo.apply(&after).unwrap()).unwrap();
    assert_eq!(redo, edit);
}

#[test]
fn what_was_changed_since_is_not_put_back() {
    let edit =
        Edit::new().set("/name", json!("eve")).and_then(|edit| edit.set("/new", json!(1))).unwrap();
    let after = edit.apply(&data()).unwrap();
    let undo = edit.undo(&data(), &after).unwrap();
    assert_eq!(undo.apply(&after).unwrap(), data());
    let mut later = after.clone();
    later["name"] = json!("bob");
    let error = undo.apply(&later).unwrap_err();
    assert!(error.to_string().contains("it was changed since: there is \"bob\""), "{error}");
    later = after;
    later.as_object_mut().unwrap().remove("new");
    assert_eq!(undo.apply(&later).unwrap_err().kind(), ErrorKind::EditRefused);
}

#[test]
fn adding_and_setting_one_number_is_put_back_as_a_value() {
    let edit = Edit::new()
        .increase("/coins", 1.into())
        .and_then(|edit| edit.set("/coins", json!(9)))
        .unwrap();
    let after = edit.apply(&data()).unwrap();
    let undo = edit.undo(&data(), &after).unwrap();
    assert_eq!(undo.apply(&after).unwrap(), data());
    assert!(undo.apply(&json!({ "coins": 10 })).is_err());
    assert_eq!(edit.undo(&data(), &data()), None);
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3..3_i64).prop_map(Value::from),
        "[ab~/]{0,2}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[ab~/]{1,2}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn any_object() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[ab~/]{1,2}", any_value(), 0..4)
        .prop_map(|map| Value::Object(map.into_iter().collect()))
}

proptest! {
    /// Whatever a merge does, undoing it gives what was there, and undoing that the merge again;
    /// written down in between.
    #[test]
    fn undo_puts_back_what_was_there(before in any_object(), merged in any_object()) {
        let edit = Edit::new().merge(merged);
        let after = edit.apply(&before).unwrap();
        match edit.undo(&before, &after) {
            None => prop_assert!(same(&before, &after)),
            Some(undo) => {
                let undo: Edit = serde_json::from_str(&serde_json::to_string(&undo).unwrap()).unwrap();
                let undone = undo.apply(&after).unwrap();
                prop_assert!(same(&undone, &before), "{undone} {before}");
                let redone = undo.undo(&after, &undone).unwrap().apply(&undone).unwrap();
                prop_assert!(same(&redone, &after));
            }
        }
    }
}
