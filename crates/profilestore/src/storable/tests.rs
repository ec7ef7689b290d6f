use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::json;

use super::*;

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// What the rule says of JSON that is written already: nothing, or the place and the problem.
fn of_text(text: &str) -> Option<(String, Problem)> {
    let by_text = DATA.check(&raw(text)).err();
    // A raw value inside of data is checked as well.
    let by_writing = DATA.encode(&raw(text)).err();
    assert_eq!(by_text, by_writing, "{text}");
    by_text.map(|wrong| (wrong.path, wrong.problem))
}

fn of_value(value: &impl Serialize) -> Option<(String, Problem)> {
    DATA.encode(value).err().map(|wrong| (wrong.path, wrong.problem))
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

#[test]
fn what_an_encoder_has_written_by_the_rule_is_gone_through_once() {
    struct Written(Box<RawValue>);

    impl Serialize for Written {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_newtype_struct(WRITTEN_BY_THE_RULE, &*self.0)
        }
    }

    // It breaks the rule, so that a look at it would be noticed.
    let twice = r#"{"a":1,"a":2}"#;
    let written = DATA.encode(&Written(raw(twice))).expect("nobody looks");
    assert_eq!(written.get(), twice);
    let inside = DATA.encode(&[Written(raw(twice))]).expect_err("a part of other data");
    assert_eq!(inside.path, "/0/a");
    let large = Written(raw(&format!("\"{}\"", "x".repeat(MAX_MESSAGE_BYTES))));
    assert!(MESSAGE.encode(&large).expect_err("too large").problem.is_size());
}

#[test]
fn ordinary_json_is_storable() {
    for text in [
        "null",
        "{}",
        "[]",
        " { \"a\" : [ 1 , -2.5e3, true, false, null ] , \"b\\n\" : { \"a\" : \"\" } } ",
        r#"["9223372036854775808", 9223372036854775807, -9223372036854775808, 18446744073709551615, -0, 0.0, -0.0]"#,
        r#"[1e308, 1e-400, 123456789012345678901.0, "\ud83d\ude00 \u0000 \\ud800", "😀"]"#,
        r#"{"a":{"a":1},"b":[{"a":1},{"a":2}],"":0}"#,
    ] {
        assert_eq!(of_text(text), None, "{text}");
    }
    assert_eq!(of_text(&nested(MAX_DEPTH)), None);
}

#[test]
fn what_json_allows_and_the_rule_does_not_is_found_with_its_path() {
    let too_long = |number: &str| Problem::TooLong { number: number.to_owned() };
    let half = |escape: &str| Problem::Surrogate { escape: escape.to_owned() };
    let cases = [
        (r#"{"a":[1,{"b":18446744073709551616}]}"#, "/a/1/b", too_long("18446744073709551616")),
        ("-9223372036854775809", "", too_long("-9223372036854775809")),
        ("[1e400]", "/0", Problem::TooFar { number: "1e400".into() }),
        ("[0,-1.5E+999]", "/1", Problem::TooFar { number: "-1.5E+999".into() }),
        (r#"{"x/y":{"~":"a\ud800b"}}"#, "/x~1y/~0", half("\\ud800")),
        (r#"["\udc00"]"#, "/0", half("\\udc00")),
        (r#"["\ud800\ud800\udc00"]"#, "/0", half("\\ud800")),
        (r#"["\ud800\u0041"]"#, "/0", half("\\ud800")),
        (r#"[{"\ud800":1}]"#, "/0/\\ud800", half("\\ud800")),
        (r#"{"a":{"b":1,"c":{"b":2},"\u0062":3},"b":4}"#, "/a/b", Problem::Twice),
        (r#"[{"":1,"":1}]"#, "/0/", Problem::Twice),
        (
            r#"{"$serde_json::private::RawValue":"1"}"#,
            "/$serde_json::private::RawValue",
            Problem::Name,
        ),
        (
            r#"{"\u0024serde_json::private::RawValue":"1"}"#,
            "/$serde_json::private::RawValue",
            Problem::Name,
        ),
    ];
    for (text, path, problem) in cases {
        assert_eq!(of_text(text), Some((path.to_owned(), problem)), "{text}");
    }
    let (path, problem) = of_text(&nested(MAX_DEPTH + 1)).unwrap();
    assert_eq!((path, problem), ("/0".repeat(MAX_DEPTH), Problem::TooDeep { limit: MAX_DEPTH }));
    let large = format!("\"{}\"", "x".repeat(MAX_DATA_BYTES - 2));
    assert_eq!(of_text(&large), None);
    let (_, problem) = of_text(&large.replacen('x', "xx", 1)).unwrap();
    assert_eq!(problem, Problem::TooLarge { size: MAX_DATA_BYTES + 1, limit: MAX_DATA_BYTES });
}

#[derive(Serialize)]
enum Kind {
    Unit,
    One(f64),
    Two(u8, f64),
    Named { at: Option<f32> },
}

#[test]
fn numbers_that_json_lacks_are_refused_while_they_are_written_and_not_made_null() {
    let nan = || Problem::NotFinite { number: "NaN".into() };
    let infinite = || Problem::NotFinite { number: "-inf".into() };
    assert_eq!(of_value(&f64::NAN), Some((String::new(), nan())));
    assert_eq!(of_value(&json!({ "a": 1.5, "b": null })), None);
    assert_eq!(
        of_value(&BTreeMap::from([("a", vec![Some(1.0), None, Some(f64::NAN)])])),
        Some(("/a/2".into(), nan()))
    );
    assert_eq!(of_value(&HashMap::from([(7, f32::NEG_INFINITY)])), Some(("/7".into(), infinite())));
    let kinds = vec![Kind::Unit, Kind::One(1.0), Kind::Two(1, 2.0), Kind::Named { at: Some(1.0) }];
    assert_eq!(of_value(&kinds), None);
    assert_eq!(of_value(&[Kind::Unit, Kind::One(f64::NAN)]), Some(("/1/One".into(), nan())));
    assert_eq!(of_value(&Kind::Two(0, f64::NAN)), Some(("/Two/1".into(), nan())));
    assert_eq!(of_value(&Kind::Named { at: Some(f32::NAN) }), Some(("/Named/at".into(), nan())));
    assert_eq!(of_value(&(1, (2, f64::NEG_INFINITY))), Some(("/1/1".into(), infinite())));
}

#[test]
fn whole_numbers_are_exact_up_to_64_bits_whatever_their_type() {
    assert_eq!(
        DATA.encode(&(i128::from(i64::MIN), u128::from(u64::MAX))).unwrap().get(),
        "[-9223372036854775808,18446744073709551615]"
    );
    let (path, problem) = of_value(&[0, u128::from(u64::MAX) + 1]).unwrap();
    assert_eq!(
        (path.as_str(), problem),
        ("/1", Problem::TooLong { number: "18446744073709551616".into() })
    );
    assert!(of_value(&(i128::from(i64::MIN) - 1)).is_some());
    assert_eq!(DATA.encode(&-0.0).unwrap().get(), "-0.0");
}

#[derive(Serialize)]
struct Nest {
    inner: Option<Box<Nest>>,
}

#[test]
fn depth_is_counted_alike_in_types_and_in_text() {
    let nest = |depth: usize| {
        (1..depth).fold(Nest { inner: None }, |inner, _| Nest { inner: Some(Box::new(inner)) })
    };
    assert_eq!(of_value(&nest(MAX_DEPTH)), None);
    let (path, problem) = of_value(&nest(MAX_DEPTH + 1)).unwrap();
    assert_eq!(
        (path, problem),
        ("/inner".repeat(MAX_DEPTH), Problem::TooDeep { limit: MAX_DEPTH })
    );
    // Raw JSON inside of a type counts from where it is.
    assert_eq!(of_value(&[[raw(&nested(MAX_DEPTH - 2))]]), None);
    let (path, _) = of_value(&[[raw(&nested(MAX_DEPTH - 1))]]).unwrap();
    assert_eq!(path, "/0".repeat(MAX_DEPTH));
    // A variant with a value is an object around it.
    let kinds = |depth: usize| (1..depth).fold(json!({ "One": 1.0 }), |inner, _| json!([inner]));
    assert_eq!(of_value(&kinds(MAX_DEPTH)), None);
}

#[derive(Serialize)]
struct Flat {
    coins: u8,
    #[serde(flatten)]
    rest: BTreeMap<String, u8>,
}

#[test]
fn a_flattened_map_that_repeats_a_field_is_refused() {
    let flat = |name: &str| Flat { coins: 1, rest: BTreeMap::from([(name.to_owned(), 2)]) };
    assert_eq!(of_value(&flat("gems")), None);
    assert_eq!(of_value(&vec![flat("coins")]), Some(("/0/coins".into(), Problem::Twice)));
}

#[test]
fn a_map_with_the_name_that_readers_keep_for_themselves_is_refused() {
    let name = "$serde_json::private::RawValue";
    assert_eq!(
        of_value(&BTreeMap::from([("a", json!([{ name: "1" }]))])),
        Some((format!("/a/0/{name}"), Problem::Name))
    );
    assert_eq!(of_value(&HashMap::from([(name, 1)])), Some((format!("/{name}"), Problem::Name)));
    assert_eq!(of_value(&json!({ "a": name })), None);
}

#[test]
fn the_error_of_a_serialiser_has_its_path() {
    let mut keys = BTreeMap::new();
    keys.insert(vec![1], 2);
    let (path, problem) = of_value(&BTreeMap::from([("a", keys)])).unwrap();
    assert_eq!(path, "/a/[1]");
    assert!(matches!(problem, Problem::NoJson { .. }), "{problem}");
}

#[test]
fn bytes_that_are_no_json_are_refused() {
    assert_eq!(MESSAGE.check_bytes(b"{\"a\":1}"), Ok(()));
    for bytes in [&b"{"[..], b"\xff", b"", b"1 2"] {
        assert!(matches!(MESSAGE.check_bytes(bytes).unwrap_err().problem, Problem::NoJson { .. }));
    }
    assert!(MESSAGE.check_bytes(&vec![b' '; MAX_MESSAGE_BYTES + 1]).unwrap_err().problem.is_size());
}

#[test]
fn user_ids_are_those_of_63_bits() {
    assert_eq!(check_users(&[0, (1 << 53) - 1, MAX_USER_ID]), Ok(()));
    assert_eq!(check_users(&[5, -1]), Err(Problem::UserId { user_id: -1 }.at("/1")));
}

#[test]
fn what_is_accepted_can_be_read_with_what_the_library_wraps_around_it() {
    let read = |text: &str| serde_json::from_str::<Value>(text).is_ok();
    assert!(read(&nested(127)) && !read(&nested(128)), "what serde_json reads");
    // The deepest place of a document inside of what the library stores: record, origin, document.
    const { assert!(MAX_DOCUMENT_DEPTH + 3 < 127) };
}

mod random {
    use proptest::prelude::*;

    use super::*;

    fn json_text() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            any::<i64>().prop_map(|n| n.to_string()),
            any::<u64>().prop_map(|n| n.to_string()),
            any::<i128>().prop_map(|n| n.to_string()),
            any::<f64>()
                .prop_filter("JSON has none", |n| n.is_finite())
                .prop_map(|n| format!("{n:e}")),
            "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,20})?(e[+-]?[0-9]{1,3})?",
            "\"([a-z]|\\\\u[0-9a-f]{4}|\\\\u0000|\\\\n|é|😀){0,6}\"",
        ];
        leaf.prop_recursive(6, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5)
                    .prop_map(|items| format!("[{}]", items.join(","))),
                prop::collection::vec(("\"([ab]|\\\\u006[12]|\\\\ud8[0-9]0){0,2}\"", inner), 0..5)
                    .prop_map(|members| {
                        let members: Vec<String> = members
                            .into_iter()
                            .map(|(name, value)| format!("{name}:{value}"))
                            .collect();
                        format!("{{{}}}", members.join(","))
                    }),
            ]
        })
    }

    fn count_names(value: &Value) -> usize {
        match value {
            Value::Array(list) => list.iter().map(count_names).sum(),
            Value::Object(map) => map.len() + map.values().map(count_names).sum::<usize>(),
            _ => 0,
        }
    }

    proptest! {
        /// What is accepted, every reader reads, all of it, and writes again as something that is
        /// accepted and equal.
        #[test]
        fn what_is_accepted_is_read_whole_and_written_again_alike(text in json_text()) {
            let Ok(json) = RawValue::from_string(text.clone()) else { return Ok(()) };
            let checked = DATA.check(&json);
            prop_assert_eq!(&checked, &DATA.encode(&json).map(drop));
            match checked {
                Ok(()) => {
                    let value: Value = serde_json::from_str(&text).unwrap();
                    prop_assert_eq!(count_names(&value), text.matches("\":").count());
                    let again = DATA.encode(&value).unwrap();
                    prop_assert_eq!(DATA.check(&again), Ok(()));
                    prop_assert_eq!(serde_json::from_str::<Value>(again.get()).unwrap(), value);
                }
                Err(wrong) => {
                    // The place is one that exists, or is the name that cannot be read. Where a
                    // name stands twice, a reader may have left out the object that has the place.
                    let read = serde_json::from_str::<Value>(&text);
                    let unread = matches!(wrong.problem, Problem::Surrogate { .. } | Problem::TooFar { .. });
                    prop_assert!(!unread || read.is_err());
                    if let Ok(value) = read
                        && count_names(&value) == text.matches("\":").count()
                    {
                        prop_assert!(value.pointer(&wrong.path).is_some(), "{}", wrong);
                    }
                }
            }
        }
    }
}
