//! JSON that is hard to keep as it is, for tests of what takes it.

use proptest::prelude::*;

/// JSON that stores, parsers and games stumble over. `depth` is the one around which lists and
/// objects nest.
pub fn hostile_json(depth: usize) -> Vec<String> {
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    let mut texts: Vec<String> = [
        "null",
        "true",
        "0",
        "-0",
        "-0.0",
        "0.1",
        "1e308",
        "1e309",
        "-1e400",
        "1e-400",
        "5e-324",
        "1E5",
        "1.50",
        "2.0",
        "9007199254740993",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775808",
        "-9223372036854775809",
        "18446744073709551615",
        "18446744073709551616",
        "123456789012345678901234567890",
        "0.12345678901234567890",
        "[9007199254740993,9007199254740992]",
        r#""\ud800""#,
        r#""\udc00\ud800""#,
        r#""\ud83d\ude00""#,
        r#""\u0000""#,
        r#""\u0001\u001f\u007f""#,
        r#""😀ä""#,
        r#"{"\ud800":1}"#,
        r#"{"a":1,"a":1}"#,
        r#"{"a":1,"\u0061":2}"#,
        r#"{"":{"":0}}"#,
        r#"{"a/b":{"~":1}}"#,
        "[]",
        "{}",
        "[[],{}]",
        r#"{"$serde_json::private::RawValue":"1"}"#,
        r#"{"Data":{},"MetaData":{}}"#,
        r#"{"m":null,"t":"buffer","base64":"aGk="}"#,
    ]
    .map(str::to_owned)
    .into();
    for depth in [1, depth - 1, depth, depth + 1, 126, 127, 128, 5000] {
        texts.extend([nested(depth), objects(depth)]);
    }
    texts.extend(
        [4 << 20, (4 << 20) - 20, 200 << 10, 300 << 10]
            .map(|bytes| format!("\"{}\"", "x".repeat(bytes))),
    );
    texts
}

/// Random JSON: numbers of all kinds, texts with escapes, lists and objects.
pub fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        any::<u64>().prop_map(|n| n.to_string()),
        any::<i128>().prop_map(|n| n.to_string()),
        any::<f64>().prop_filter("JSON has none", |n| n.is_finite()).prop_map(|n| format!("{n:?}")),
        "-?[1-9][0-9]{0,22}(\\.[0-9]{1,20})?(e-?[0-9]{1,3})?",
        "\"([a-z]|\\\\u[0-9a-f]{4}|\\\\u0000|é|😀){0,6}\"",
    ];
    leaf.prop_recursive(5, 30, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(("[ab/~]{0,2}", inner), 0..4).prop_map(|members| {
                let members: Vec<String> = members
                    .into_iter()
                    .map(|(name, value)| format!("\"{name}\":{value}"))
                    .collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}
