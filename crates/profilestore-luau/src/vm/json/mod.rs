//! Luau values as JSON, and back.
//!
//! What can be stored is the library's rule, [`profilestore::storable`]: numbers, names, depth and
//! size are asked of it while a value is written, with the limits of where it goes. Beyond that a
//! script has values that JSON lacks: functions, threads, objects of the engine, texts that are no
//! UTF-8, tables that are neither lists without gaps nor have only texts as keys. Each is refused
//! with its place as scripts write it, such as `Data.items[3].name`.
//!
//! Keys are written in order, so equal tables give equal JSON. An empty table is written as a list,
//! as Roblox does. A buffer has the form that Roblox gives it:
//! `{"m":null,"t":"buffer","base64":"..."}`. What a table cannot hold comes back as it was read
//! while the script leaves it alone: digits beyond a double's, `null`, `{}`. See [`notes`].

use mlua::Value;
use profilestore::storable;

mod copies;
mod exact;
mod ids;
mod notes;
mod positions;
mod read;
mod shape;
mod text;
mod write;

pub(crate) use self::{
    copies::{copy_of, install_copier},
    ids::{user_ids, user_ids_table},
    notes::{carry, is_empty},
    read::{decode, decode_stored, is_buffer},
    text::Text,
    write::{encode, encode_as_roblox, encode_seen, encode_to_copy},
};

/// What `typeof` calls a value: also whether an object is an Instance or a Vector3.
pub(crate) fn kind_of(value: &Value) -> String {
    match value {
        Value::Integer(_) => "number".to_owned(),
        Value::UserData(object) => {
            object.type_name().map_or_else(|_| "userdata".to_owned(), |name| name.to_string_lossy())
        }
        other => other.type_name().to_owned(),
    }
}

/// The same with an article: `a Vector3`, `an Instance`.
pub(crate) fn a_kind_of(value: &Value) -> String {
    let kind = kind_of(value);
    let article = if kind.starts_with(['A', 'E', 'I', 'O', 'e', 'o']) { "an" } else { "a" };
    format!("{article} {kind}")
}

/// A value that cannot be stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub(crate) struct Unstorable {
    /// Where it is, such as `Data.items[3].name`.
    pub(crate) path: String,
    /// What is wrong with it.
    pub(crate) problem: Problem,
}

/// What is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    /// It breaks the rule of what can be stored.
    #[error(transparent)]
    Rule(#[from] storable::Problem),
    /// Only scripts have such values.
    #[error("{0}")]
    Script(String),
}

impl Unstorable {
    /// True when nothing is wrong but the size.
    pub(crate) fn is_too_large(&self) -> bool {
        matches!(&self.problem, Problem::Rule(problem) if problem.is_size())
    }
}

#[cfg(test)]
mod tests {
    use mlua::Lua;
    use profilestore::storable::{DATA, MAX_DATA_BYTES, MAX_DEPTH};

    use super::*;

    fn json(source: &str) -> Result<String, String> {
        let lua = Lua::new();
        let value = lua.load(source).eval::<Value>().expect("a value");
        encode(&lua, "Data", &value, DATA).map_err(|error| error.to_string())
    }

    /// JSON that is read, and written again when a script has had it.
    fn after(edit: &str, text: &str) -> String {
        let lua = Lua::new();
        let value = decode(&lua, text).expect("JSON");
        lua.load(format!("local data = ... {edit}")).call::<()>(&value).expect("an edit");
        encode(&lua, "Data", &value, DATA).expect("storable")
    }

    #[test]
    fn what_a_script_leaves_alone_is_written_as_it_was_read() {
        for text in [
            r#"{"a":[1,2.5,-3,1e300],"b":{"c":"x\n\u0001é"},"d":true,"e":false}"#,
            r#"[[],[[]],"",0]"#,
            r#"{"buf":{"base64":"aGVsbG8=","m":null,"t":"buffer"}}"#,
            r#"{"a\"b":["x\"y","z"],"1":{"-5":1},"inf":2,"12e":"\u0000"}"#,
            "[9007199254740992]",
            r#"{"a":[1,76561198000000001,-9223372036854775808],"b":18446744073709551615,"c":{"d":9007199254740993},"e":-0.0}"#,
            r#"{"a":null,"b":[1,null,3,null],"c":[null],"d":{},"e":[{}],"f":{"g":null}}"#,
            // Nearly a buffer, but for one member.
            r#"{"a":{"base64":"aGk=","t":"buffer"},"b":{"base64":"aGk=","m":null,"n":1,"t":"buffer"},"c":{"m":null,"t":"buffer"}}"#,
        ] {
            let (a, b): (serde_json::Value, serde_json::Value) = (
                serde_json::from_str(text).expect("JSON"),
                serde_json::from_str(&after("", text)).expect("JSON"),
            );
            assert_eq!(a, b);
        }
    }

    #[test]
    fn what_is_read_as_a_buffer_is_known_before() {
        let lua = Lua::new();
        for (text, expected) in [
            (r#"{"base64":"aGk=","m":null,"t":"buffer"}"#, true),
            (r#"{"\u006d":null,"t":"b\u0075ffer","base64":""}"#, true),
            (r#"{"base64":"aGk=","m":null,"t":"buffers"}"#, false),
            (r#"{"base64":"?","m":null,"t":"buffer"}"#, false),
            (r#"{"base64":"aGk=","m":1,"t":"buffer"}"#, false),
            (r#"{"base64":"aGk=","m":null,"n":1,"t":"buffer"}"#, false),
            (r#"{"base64":"aGk=","t":"buffer"}"#, false),
            (r#"[null,"buffer","aGk="]"#, false),
            ("{}", false),
        ] {
            let read = decode(&lua, text).expect("JSON");
            assert_eq!((is_buffer(text), read.is_buffer()), (expected, expected), "{text}");
        }
    }

    #[test]
    fn long_lists_and_large_objects_are_read_and_written_whole() {
        let list: Vec<String> = (0..1000).map(|n| format!("[{n}]")).collect();
        let members: Vec<String> = (0..1000).map(|n| format!(r#""k{n:03}":{{"n":{n}}}"#)).collect();
        let text = format!(r#"{{"list":[{}],"map":{{{}}}}}"#, list.join(","), members.join(","));
        assert_eq!(after("assert(#data.list == 1000)", &text), text);
        let text = format!("[{}null,1]", "0,".repeat(300));
        assert_eq!(after("assert(data[300] == 0 and data[302] == 1)", &text), text);
    }

    /// The first one stayed when the last one was `null`.
    #[test]
    fn the_last_of_two_members_of_one_name_counts_also_when_it_is_null() {
        for (text, script, written) in [
            (r#"{"a":1,"b":2,"a":null}"#, "assert(data.a == nil)", r#"{"a":null,"b":2}"#),
            (r#"{"\u0061":{},"a":null}"#, "assert(data.a == nil)", r#"{"a":null}"#),
            (r#"{"a":1,"a":2}"#, "assert(data.a == 2)", r#"{"a":2}"#),
            (r#"{"a":null,"a":2,"b":1}"#, "assert(data.a == 2)", r#"{"a":2,"b":1}"#),
            (r#"{"a":null,"a":2,"b":1}"#, "data.a = nil", r#"{"b":1}"#),
            (r#"{"a":1,"a":null,"a":3}"#, "assert(data.a == 3)", r#"{"a":3}"#),
        ] {
            assert_eq!(after(script, text), written, "{text}");
        }
        // Beyond what is put into the table at once.
        let many: Vec<String> = (0..300).map(|n| format!(r#""k{n}":{n}"#)).collect();
        let text = format!(r#"{{{},"k7":null,"k299":null}}"#, many.join(","));
        let written = after("assert(data.k7 == nil and data.k299 == nil and data.k8 == 8)", &text);
        assert!(written.contains(r#""k7":null"#) && written.contains(r#""k298":298"#), "{written}");
    }

    #[test]
    fn reading_keeps_to_the_limit_of_memory_and_leaves_it_as_it_was() {
        let lua = Lua::new();
        let limit = lua.used_memory() + (1 << 20);
        lua.set_memory_limit(limit).expect("a limit");
        assert!(decode(&lua, r#"{"fits":[1,2]}"#).is_ok());
        let long = format!("[{}1]", "[1],".repeat(50_000));
        let error = decode(&lua, &long).expect_err("more than there is");
        assert!(error.contains("not enough memory"), "{error}");
        assert_eq!(lua.set_memory_limit(0).expect("a limit"), limit);
    }

    #[test]
    fn a_number_is_kept_to_the_digit_while_it_is_left_alone() {
        let text = r#"{"ids":[76561198000000001,76561198000000099],"id":76561198000000001,"n":1}"#;
        let edited = after("table.remove(data.ids, 1) data.id += 64 data.n = 2", text);
        assert_eq!(edited, r#"{"id":76561198000000064,"ids":[76561198000000099],"n":2}"#);
    }

    /// The second of them became the first at the next save, though the script had left both alone.
    #[test]
    fn a_number_is_not_taken_for_another_one_that_is_the_same_to_a_script() {
        for text in [
            r#"{"a":9007199254740993,"b":9007199254740992,"c":[9007199254740992,9007199254740993]}"#,
            r#"{"a":-9223372036854775808,"b":-9223372036854775807,"c":[-9223372036854775808]}"#,
            r#"{"y":9223372036854775808,"z":9223372036854775807}"#,
            "[76561198000000000,76561198000000001,76561198000000002,76561198000000000]",
        ] {
            assert_eq!(after("", text), text);
        }
        let text = r#"{"a":9e18,"b":9000000000000000001,"n":1}"#;
        let edited = after("data.n += 1", text);
        assert_eq!(edited, r#"{"a":9000000000000000000,"b":9000000000000000001,"n":2}"#);
        let edited = after("data.b = nil data.n = data.a", text);
        assert_eq!(edited, r#"{"a":9000000000000000000,"n":9000000000000000000}"#);
    }

    /// It was written as what had been there before, which is the same double.
    #[test]
    fn an_integer_that_a_script_puts_in_the_place_of_a_number_is_written_to_the_digit() {
        let put = "data.a = integer.fromstring('76561198000000002')";
        let edited = after(put, r#"{"a":76561198000000001}"#);
        assert_eq!(edited, r#"{"a":76561198000000002}"#);
    }

    /// It was written as what had been there before, with the other sign.
    #[test]
    fn a_zero_to_which_a_script_gives_another_sign_is_written_with_that_one() {
        let text = r#"{"a":0.0000000000000000}"#;
        assert_eq!(after("", text), text);
        assert_eq!(after("data.a = -data.a", text), r#"{"a":-0.0}"#);
    }

    #[test]
    fn null_and_an_empty_object_stay_until_the_script_puts_something_there() {
        let text = r#"{"a":null,"b":[1,null,3],"c":{},"d":{},"e":[null]}"#;
        let edited =
            after("data.a = 1 data.b[2] = 2 data.c[1] = 'x' data.d.y = 'z' data.e.n = 1", text);
        assert_eq!(edited, r#"{"a":1,"b":[1,2,3],"c":["x"],"d":{"y":"z"},"e":{"n":1}}"#);
        let edited = after("data.b[1] = nil data.b[4] = 4 data.c = nil data.e[3] = {}", text);
        assert_eq!(edited, r#"{"a":null,"b":[null,null,3,4],"d":{},"e":[null,null,[]]}"#);
        let lua = Lua::new();
        let b = decode(&lua, "[1,null,3]").expect("JSON");
        assert_eq!(
            encode_seen("value", &b).unwrap_err().to_string(),
            GAPS.replace("Data", "value")
        );
        let value = decode(&lua, r#"{"a":null,"c":{},"n":76561198000000001}"#).expect("JSON");
        assert_eq!(
            encode_seen("value", &value).expect("JSON"),
            r#"{"c":[],"n":76561198000000000}"#,
            "as Roblox writes it"
        );
    }

    #[test]
    fn keys_are_in_order_and_an_empty_table_is_a_list() {
        assert_eq!(
            json("return {b = 1, a = {}, c = {1, 2}}").expect("storable"),
            r#"{"a":[],"b":1,"c":[1,2]}"#
        );
    }

    const GAPS: &str =
        "Data: a list with gaps, or with keys that are no positions, cannot be stored";

    #[test]
    fn what_cannot_be_stored_is_named_with_its_path() {
        let cases = [
            (
                "return {a = {b = {1, 2, 0/0}}}",
                "Data.a.b[3]: NaN is no number of JSON; leave it out or store another one",
            ),
            (
                "return {a = 1/0}",
                "Data.a: inf is no number of JSON; leave it out or store another one",
            ),
            ("return {['a key'] = print}", "Data[\"a key\"]: a function cannot be stored"),
            (
                "return {1, 2, x = 3}",
                "Data: a table with both numbers and texts as keys cannot be stored",
            ),
            ("return {1, nil, 3}", GAPS),
            ("return {[1.5] = 1}", GAPS),
            ("return {[0] = 1}", GAPS),
            ("return {[1 / 0] = 1}", GAPS),
            (
                "return {[buffer.fromstring('x')] = 1}",
                "Data: a key that is a buffer cannot be stored",
            ),
            ("return {[true] = 1}", "Data: a key that is a boolean cannot be stored"),
            (
                "local t = {} t.me = {t} return t",
                "Data.me[1]: a table that contains itself cannot be stored",
            ),
            (
                "return {s = '\\255'}",
                "Data.s: a text that is no valid UTF-8 (at byte 1) cannot be stored",
            ),
            (
                "return {['\\237\\160\\128'] = 1}",
                "Data[\"\u{fffd}\u{fffd}\u{fffd}\"]: a text that is no valid UTF-8 (at byte 1) \
                    cannot be stored",
            ),
            ("return {c = coroutine.create(print)}", "Data.c: a thread cannot be stored"),
            (
                "return {x = {['$serde_json::private::RawValue'] = '1'}}",
                "Data.x[\"$serde_json::private::RawValue\"]: a member must not have this name, \
                    which JSON's readers in Rust keep for themselves",
            ),
            (
                "return {s = string.rep('x', 4194304)}",
                "Data: it is too large: size=`4194312` limit=`4194304`",
            ),
        ];
        for (source, problem) in cases {
            assert_eq!(json(source).expect_err(source), problem);
        }
        let lua = Lua::new();
        let value = decode(&lua, r#"{"a":[123456789012345678901]}"#).expect("JSON");
        let problem = encode(&lua, "Data", &value, DATA).unwrap_err().to_string();
        let rule = storable::Problem::TooLong { number: "123456789012345678901".to_owned() };
        assert_eq!(problem, format!("Data.a[1]: {rule}"));
    }

    /// It was refused; Roblox documents that the list takes priority.
    #[test]
    fn of_a_table_with_numbers_and_texts_as_keys_roblox_writes_the_list() {
        let lua = Lua::new();
        let seen = |source: &str| {
            let value = lua.load(source).eval::<Value>().expect("a value");
            encode_as_roblox("value", &value).map_err(|error| error.to_string())
        };
        for (source, json) in [
            ("return {1, 2, x = 3}", "[1,2]"),
            ("return {a = {[1] = {y = 1}, x = 3}, b = 4}", r#"{"a":[{"y":1}],"b":4}"#),
            ("return {x = 3, y = print, [1] = 1}", "[1]"),
            ("return {}", "[]"),
        ] {
            assert_eq!(seen(source).as_deref(), Ok(json), "{source}");
        }
        for gaps in ["return {1, nil, 3, x = 1}", "return {[5] = 1, x = 1}"] {
            assert_eq!(seen(gaps), Err(GAPS.replace("Data", "value")), "{gaps}");
        }
    }

    #[test]
    fn depth_and_size_are_those_of_the_rule() {
        let nested =
            |depth: usize| format!("local t = {{}} for _ = 2, {depth} do t = {{t}} end return t");
        assert!(json(&nested(MAX_DEPTH)).is_ok());
        let deep = json(&nested(MAX_DEPTH + 1)).expect_err("too deep");
        assert_eq!(
            deep,
            format!(
                "Data{}: {}",
                "[1]".repeat(MAX_DEPTH),
                storable::Problem::TooDeep { limit: MAX_DEPTH }
            )
        );
        let buffer = nested(MAX_DEPTH + 1).replace("local t = {}", "local t = buffer.create(1)");
        assert!(json(&buffer).expect_err("a buffer is an object").contains("nest too deep"));
        let large = |bytes: usize| format!("return {{string.rep('x', {})}}", bytes - 4);
        assert!(json(&large(MAX_DATA_BYTES)).is_ok());
        assert!(
            json(&large(MAX_DATA_BYTES + 1))
                .expect_err("too large")
                .starts_with("Data: it is too large: size=`4194305`")
        );
        let endless = json("local t = {'x'} for _ = 1, 90 do t = {t, t} end return t")
            .expect_err("too large");
        assert!(endless.starts_with("Data: it is too large: size=`5242"), "{endless}");
    }

    #[test]
    fn the_same_table_twice_is_no_cycle() {
        assert_eq!(json("local t = {1} return {t, t}").expect("storable"), "[[1],[1]]");
    }

    #[test]
    fn user_ids_are_those_of_the_rule_and_larger_ones_than_a_double_tells_apart_stay() {
        let lua = Lua::new();
        let ids = [0, 5, (1 << 53) - 1, (1 << 53) + 1, i64::MAX];
        let list = user_ids_table(&lua, &ids).expect("a table");
        assert_eq!(user_ids(&lua, "UserIds", &list).expect("storable"), ids);
        list.raw_remove(1).expect("a list");
        assert_eq!(user_ids(&lua, "UserIds", &list).expect("storable"), ids[1..]);
        for (id, problem) in [
            (-1.0, "UserIds[5]: a user id must not be negative: user_id=`-1`"),
            (1.5, "UserIds[5]: a user id is a whole number below 2^53"),
            (1e300, "UserIds[5]: a user id is a whole number below 2^53"),
        ] {
            list.raw_set(5, id).expect("a list");
            assert_eq!(user_ids(&lua, "UserIds", &list).unwrap_err().to_string(), problem);
        }
    }
}
