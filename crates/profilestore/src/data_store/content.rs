//! When two payloads of messages are the same: as JSON values, not as bytes.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::Digest;

/// How deep members are put in order. What lies deeper is compared as it is written.
const DEEPEST: usize = 64;

/// The digest of a message's content. Payloads that differ only in the order of members, in white
/// space and in how strings are escaped have the same. Numbers count as they are written, so that
/// none is rounded.
pub(crate) fn content_digest(payload: &[u8]) -> Digest {
    let Ok(json) = serde_json::from_slice::<&RawValue>(payload) else { return Digest::of(payload) };
    let mut text = String::with_capacity(payload.len());
    put(json, 0, &mut text);
    Digest::of(text.as_bytes())
}

/// True when a message's content is what was digested before, also by versions that digested the
/// payload's bytes.
pub(crate) fn is_same_content(digest: Digest, payload: &[u8]) -> bool {
    digest == content_digest(payload) || digest == Digest::of(payload)
}

fn put(json: &RawValue, depth: usize, text: &mut String) {
    let written = json.get();
    let known = match written.as_bytes().first() {
        Some(b'{') if depth < DEEPEST => put_members(written, depth, text),
        Some(b'[') if depth < DEEPEST => put_elements(written, depth, text),
        Some(b'"') => put_string(written, text),
        _ => None,
    };
    if known.is_none() {
        text.push_str(written);
    }
}

fn put_members(written: &str, depth: usize, text: &mut String) -> Option<()> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(written).ok()?;
    text.push('{');
    for (at, (name, value)) in members.into_iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push_str(&serde_json::Value::String(name).to_string());
        text.push(':');
        put(value, depth + 1, text);
    }
    text.push('}');
    Some(())
}

fn put_elements(written: &str, depth: usize, text: &mut String) -> Option<()> {
    let elements: Vec<&RawValue> = serde_json::from_str(written).ok()?;
    text.push('[');
    for (at, element) in elements.into_iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        put(element, depth + 1, text);
    }
    text.push(']');
    Some(())
}

fn put_string(written: &str, text: &mut String) -> Option<()> {
    let string: String = serde_json::from_str(written).ok()?;
    text.push_str(&serde_json::Value::String(string).to_string());
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_compared_as_json_values() {
        let same = |a: &str, b: &str| content_digest(a.as_bytes()) == content_digest(b.as_bytes());
        assert!(same(r#"{"a":1,"b":[{"d":2,"c":3}]}"#, r#"{ "b" : [ {"c":3, "d":2} ], "a" : 1 }"#));
        assert!(same(r#""\u0061""#, r#""a""#));
        assert!(!same("[1,2]", "[2,1]"));
        assert!(!same("123456789012345678901", "123456789012345678902"), "numbers are not rounded");
        assert!(!same(r#"{"a":1}"#, r#"{"a":"1"}"#));
        assert!(
            same(&"[".repeat(100_000), &"[".repeat(100_000)),
            "what is no JSON is compared as it is"
        );
        let deep = |inner: &str| format!("{}{inner}{}", "[".repeat(1000), "]".repeat(1000));
        assert!(same(&deep("1"), &deep("1")) && !same(&deep("1"), &deep("2")));
    }

    #[test]
    fn the_digest_of_earlier_versions_still_counts() {
        let payload = br#"{"b":1,"a":2}"#;
        assert!(is_same_content(Digest::of(payload), payload));
        assert!(is_same_content(content_digest(br#"{"a":2,"b":1}"#), payload));
        assert!(!is_same_content(Digest::of(b"{}"), payload));
    }
}
