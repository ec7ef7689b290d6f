//! Vectors: what an SDK's rules make of an input, with no server and no clock.

use serde::Deserialize;
use serde_json::{Value, json};

use super::driver::Driver;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    #[serde(rename = "about")]
    _about: Value,
    vectors: Vec<Vector>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    /// `edit`, `json`, `belief`, `pause` or `error`.
    rule: String,
    name: String,
    input: Value,
    /// What must come out: for `json` the number or text, by its value.
    #[serde(default)]
    gives: Option<Value>,
    /// It must be refused.
    #[serde(default)]
    fails: bool,
    /// It may be refused too, where the language cannot hold it. It may never come out otherwise.
    #[serde(default)]
    or_fails: bool,
}

/// A decimal number's sign, digits and exponent, so that its spellings are the same.
fn decimal(text: &str) -> Option<(bool, String, i64)> {
    let (is_negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let exponent: i64 = exponent.parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    if all.is_empty() || !all.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = all.trim_start_matches('0');
    let short = digits.trim_end_matches('0');
    if short.is_empty() {
        return Some((is_negative, String::new(), 0));
    }
    let dropped = i64::try_from(digits.len() - short.len()).ok()?;
    let places = i64::try_from(fraction.len()).ok()?;
    Some((is_negative, short.to_owned(), exponent - places + dropped))
}

/// Whether two JSON texts say the same; a number by its value, to the last digit.
fn says_the_same(found: &str, expected: &str) -> bool {
    match (decimal(found), decimal(expected)) {
        (Some(found), Some(expected)) => found == expected,
        (None, None) => {
            let parsed = |text| serde_json::from_str::<Value>(text).ok();
            parsed(found).is_some() && parsed(found) == parsed(expected)
        }
        _ => false,
    }
}

fn is_right(vector: &Vector, answer: &Value) -> bool {
    if answer.get("error").is_some() {
        return vector.fails || vector.or_fails;
    }
    let (found, Some(expected)) = (&answer["ok"], &vector.gives) else { return false };
    if vector.fails {
        return false;
    }
    match (vector.rule.as_str(), found, expected) {
        ("json", Value::String(found), Value::String(expected)) => says_the_same(found, expected),
        ("belief" | "pause", _, _) => match (found.as_f64(), expected.as_f64()) {
            (Some(found), Some(expected)) => (found - expected).abs() < 0.001,
            _ => found == expected,
        },
        _ => found == expected,
    }
}

/// How many there are, and what is wrong.
pub(crate) async fn run(command: &str, text: &str) -> Result<(usize, Vec<String>), String> {
    let Vectors { vectors, .. } =
        serde_json::from_str(text).map_err(|error| format!("the vectors: {error}"))?;
    let mut driver = Driver::start(command)?;
    let mut wrong = Vec::new();
    for vector in &vectors {
        let mut asked = json!({ "do": "vector", "rule": vector.rule });
        for (name, value) in vector.input.as_object().into_iter().flatten() {
            asked[name] = value.clone();
        }
        let answer = driver.ask(asked).await?;
        if !is_right(vector, &answer) {
            let expected = vector.gives.clone().unwrap_or_else(|| "an error".into());
            wrong.push(format!("{}: {answer}, not {expected}", vector.name));
        }
    }
    driver.kill().await;
    Ok((vectors.len(), wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_same_by_their_value_and_not_by_their_spelling() {
        for (a, b) in [("1.50", "1.5"), ("1e3", "1000"), ("-0.0", "-0"), ("0.1", "1E-1")] {
            assert!(says_the_same(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("9007199254740992", "9007199254740993"),
            ("0", "-0"),
            ("1", "true"),
            ("1e400", "null"),
            ("\"1\"", "1"),
        ] {
            assert!(!says_the_same(a, b), "{a} {b}");
        }
        assert!(says_the_same("{\"a\":1}", "{ \"a\": 1 }"));
    }

    #[test]
    fn the_kits_vectors_can_be_read() {
        let all: Vectors = serde_json::from_str(super::super::VECTORS).unwrap();
        assert!(all.vectors.iter().all(|vector| vector.fails != vector.gives.is_some()));
    }
}
