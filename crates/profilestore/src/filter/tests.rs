use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn raw(json: &str) -> Box<RawValue> {
    RawValue::from_string(json.to_owned()).unwrap()
}

fn filter(text: &str) -> Filter {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

const DATA: &str = r#"{"coins":1500,"rate":0.30000000000000004,"big":9007199254740993,
    "debt":-2.5e3,"name":"Ann","nothing":null,"vip":true,"items":{"sword":{"level":7},"a/b":1,
    "m~n":2,"two words":3},"list":["x",[1,2.0],{"id":"bow"}],"empty":[]}"#;

fn holds(text: &str) -> bool {
    filter(text).matches(&raw(DATA)).unwrap()
}

#[test]
fn conditions_hold_as_they_are_documented() {
    for yes in [
        "/coins = 1500",
        "/coins=1.5e3",
        "/coins > 1499.999999999999999999999",
        "/coins<1500.000000000000000000001",
        "/coins >= 1500 and /coins <= 1500",
        "/debt < -2499 and /debt > -2501 and /debt = -2500",
        "/coins != \"1500\"",
        "/gone != 1",
        "not /gone = 1",
        "has /nothing",
        "/nothing = null",
        "/vip = true and /vip != false",
        "/name = \"Ann\"",
        "/name = \"\\u0041nn\"",
        "/name > \"ANN\" and /name < \"Anna\"",
        "has /items/sword",
        "/items/sword/level >= 7",
        "has /items/a~1b and has /items/m~0n",
        "\"/items/two words\" = 3",
        "has \"/items/two words\"",
        "/list/0 = \"x\"",
        "/list/2/id = \"bow\"",
        "/list/1 = [1.0, 2]",
        "/items/sword = {\"level\":7.0}",
        "/empty = []",
        "has \"\"",
        "/gone = 1 or /coins = 1500",
        "(/gone = 1 or /coins = 1500) and has /vip",
        "not (/gone = 1)",
        "not not has /vip",
        "  has /vip  ",
    ] {
        assert!(holds(yes), "{yes}");
    }
    for no in [
        "/coins > 1500",
        "/coins = 1501",
        "has /gone",
        "has /coins/x",
        "has /list/3",
        "has /list/-",
        "has /list/00",
        "has /list/+1",
        "/gone = null",
        "/gone < 1",
        "/name < 5",
        "/coins > \"1\"",
        "/vip = 1",
        "/list/1 = [1]",
        "/list/1 = [2, 1]",
        "/items/sword = {}",
        "/items/sword = {\"level\":8}",
        "/empty != []",
        "not has /vip",
        "not (has /vip or has /gone)",
    ] {
        assert!(!holds(no), "{no}");
    }
}

#[test]
fn not_binds_closest_then_and_then_or() {
    // True for every value of one, two and three only if it is read so.
    for bits in 0..8 {
        let (a, b, c) = (bits & 1 == 1, bits & 2 == 2, bits & 4 == 4);
        let data = raw(&json!({ "a": a, "b": b, "c": c }).to_string());
        let says = |text: &str| filter(text).matches(&data).unwrap();
        assert_eq!(says("/a = true or /b = true and not /c = true"), a || b && !c);
        assert_eq!(says("not /a = true and /b = true or /c = true"), !a && b || c);
        assert_eq!(says("not (/a = true or /b = true) and /c = true"), !(a || b) && c);
        assert_eq!(says("/a = true and (/b = true or /c = true)"), a && (b || c));
    }
}

#[test]
fn numbers_are_compared_exactly_and_never_as_floats() {
    for yes in [
        "/big = 9007199254740993",
        "/big != 9007199254740992",
        "/big > 9007199254740992",
        "/big < 9007199254740994",
        "/big = 9.007199254740993e15",
        "/rate != 0.3",
        "/rate > 0.3",
        "/rate = 0.30000000000000004",
        "/rate = 30000000000000004e-17",
        "/coins < 1e400",
        "/coins > -1e400",
        "/coins > 1e-999999999999999999999",
        "/coins < 1e999999999999999999999",
    ] {
        assert!(holds(yes), "{yes}");
    }
    let holds = |data: &str, text: &str| filter(text).matches(&raw(data)).unwrap();
    assert!(holds("[18446744073709551615]", "/0 > 18446744073709551614"));
    assert!(holds("[-0.0]", "/0 = 0"));
    assert!(holds("[0e5]", "/0 = 0 and /0 < 1e-400"));
    assert!(holds("[1e400]", "/0 > 1e399"), "old data may have what no float holds");
}

#[test]
fn an_error_names_the_character_and_what_to_write() {
    let said = |text: &str| text.parse::<Filter>().unwrap_err().to_string();
    for (text, error) in [
        ("", "1: expected a condition, as in `/coins > 5` or `has /items/sword`, it ends here"),
        (
            "coins > 5",
            "1: expected a condition, as in `/coins > 5` or `has /items/sword`, found `coins`",
        ),
        ("/coins", "7: expected one of = != < <= > >=, it ends here"),
        ("/coins == 5", "8: equality is written with one `=`"),
        ("/coins ~ 5", "8: expected one of = != < <= > >=, found `~`"),
        ("/coins > ", "10: expected a value, it ends here"),
        (
            "/coins > much",
            "10: this is no JSON value: a text stands in double quotes, a number is written as -1, 2.5 or 1e9",
        ),
        ("/coins > 1,000", "10: this is no JSON value"),
        ("/name = 'Ann'", "9: this is no JSON value"),
        ("/name = \"Ann", "9: this is no JSON value"),
        ("/coins > true", "10: only numbers and texts have an order; use = or !="),
        (
            "/coins > 5 AND has /vip",
            "12: expected `and`, `or` or the end, found `AND`, which is written `and`",
        ),
        ("/coins > 5 has /vip", "12: expected `and`, `or` or the end, found `has`"),
        ("/ä = 5 and", "11: expected a condition"),
        ("(/coins > 5", "12: expected `and`, `or` or `)`, it ends here"),
        ("/coins > 5)", "11: this parenthesis closes nothing"),
        ("has sword", "5: expected a path, as in `has /items/sword`, found `sword`"),
        ("has \"sword\"", "5: this is no JSON pointer"),
        ("has /a~2", "5: this is no JSON pointer"),
        ("has /a~", "5: this is no JSON pointer"),
    ] {
        let expected = format!("the search is wrong at character {error}");
        assert!(said(text).starts_with(&expected), "{text}: {}", said(text));
    }
    assert!(said(&"(".repeat(65)).contains("character 65: it nests too deep"));
    assert!(said(&"not ".repeat(65)).contains("it nests too deep"));
    assert!(
        filter(&format!("{}has /a{}", "(".repeat(60), ")".repeat(60)))
            .matches(&raw("{\"a\":1}"))
            .unwrap()
    );
    assert!(said(&"x".repeat(MAX_FILTER_BYTES + 1)).contains("it is too long"));
}

#[test]
fn data_that_no_json_reader_takes_is_an_error_and_not_a_miss() {
    // Half of a surrogate pair in a name: old data may have it.
    let data = raw(r#"{"\ud800":1,"a":2}"#);
    assert!(filter("/a = 2").matches(&data).is_err());
    assert_eq!(filter("/a = 2").matches(&raw(r#"{"a":1,"a":2}"#)).ok(), Some(true), "the last one");
}

#[test]
fn a_search_is_stored_as_its_text() {
    let text = "/coins > 1e9 and has \"/two words\"";
    let json = serde_json::to_string(&filter(text)).unwrap();
    assert_eq!(json, serde_json::to_string(text).unwrap());
    let back: Filter = serde_json::from_str(&json).unwrap();
    assert_eq!((back.as_str(), &back), (text, &filter(text)));
    assert!(serde_json::from_str::<Filter>("\"coins\"").is_err());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9_f64).prop_map(Value::from),
        "[a/~ \"é]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[ab/~ é]{1,2}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Every place in a value, as a pointer, and what is there.
fn places<'a>(at: &str, value: &'a Value, found: &mut Vec<(String, &'a Value)>) {
    found.push((at.to_owned(), value));
    let below = |name: &str| format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(name, value)| places(&below(name), value, found))
        }
        Value::Array(list) => list
            .iter()
            .enumerate()
            .for_each(|(index, value)| places(&below(&index.to_string()), value, found)),
        _ => {}
    }
}

proptest! {
    #[test]
    fn every_place_of_a_value_is_found_and_equals_itself(value in any_json()) {
        let data = raw(&value.to_string());
        let mut all = Vec::new();
        places("", &value, &mut all);
        for (pointer, there) in all {
            let quoted = serde_json::to_string(&pointer).unwrap();
            for text in [format!("has {quoted}"), format!("{quoted} = {there}")] {
                prop_assert!(filter(&text).matches(&data).unwrap(), "{} in {}", text, value);
            }
        }
    }

    #[test]
    fn whole_numbers_have_the_order_of_whole_numbers(a in any::<i64>(), b in any::<i64>()) {
        prop_assert_eq!(Decimal::of(&a.to_string()).cmp(&Decimal::of(&b.to_string())), a.cmp(&b));
    }

    #[test]
    fn floats_have_the_order_of_floats(a in any::<f64>(), b in any::<f64>()) {
        prop_assume!(a.is_finite() && b.is_finite());
        let read = |number: f64| Decimal::of(&serde_json::to_string(&number).unwrap());
        prop_assert_eq!(Some(read(a).cmp(&read(b))), a.partial_cmp(&b));
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[ /a()=!<>\"~and or not has0-9.e\\[\\]{}é]{0,40}") {
        let _ = text.parse::<Filter>();
    }
}
