//! Numbers that a double cannot hold, such as 76561198000000001, kept to the digit while a script
//! leaves them alone.
//!
//! A script sees the nearest double. Which text each of them had is noted, see [`super::notes`].
//! When the table is written again, a value that is still the same double is written as that text.

use std::cell::{Cell, RefCell};

use mlua::{IntoLua, LuaString, Table, Value};

/// A number with fewer digits than this is the only one of them that its double stands for.
const MAY_BE_INEXACT: usize = 16;

/// The texts of the numbers of one JSON text, in the order in which a reader meets them.
pub(super) struct Texts<'a> {
    /// What is left to look through; None when no number can be inexact.
    rest: RefCell<Option<&'a str>>,
    /// The text of the number that was read last, if its double does not say as much.
    last: Cell<Option<&'a str>>,
}

impl<'a> Texts<'a> {
    pub(super) fn of(json: &'a str) -> Self {
        Self { rest: RefCell::new(has_long_number(json).then_some(json)), last: Cell::new(None) }
    }

    /// A number was read: `double` is what the script sees of it.
    pub(super) fn met(&self, double: f64) {
        let mut rest = self.rest.borrow_mut();
        let Some(json) = *rest else { return };
        let (text, after) = next_number(json);
        *rest = Some(after);
        let inexact = digits(text) >= MAY_BE_INEXACT && written(double) != text;
        self.last.set(inexact.then_some(text));
    }

    /// The text of the number that has just been read, if it must be noted.
    pub(super) fn take(&self) -> Option<&'a str> {
        self.last.take()
    }
}

/// The JSON of a finite number: a whole one without a point, as far as 64 bits go, so that a typed
/// program reads it.
pub(super) fn write(out: &mut Vec<u8>, double: f64) {
    const LIMIT: f64 = 18_446_744_073_709_551_616.0;
    let is_negative = double.is_sign_negative();
    let written = if double.fract() != 0.0
        || (is_negative && double == 0.0)
        || !(-LIMIT / 2.0..LIMIT).contains(&double)
    {
        serde_json::to_writer(out, &double)
    } else if is_negative {
        serde_json::to_writer(out, &(double as i64))
    } else {
        serde_json::to_writer(out, &(double as u64))
    };
    written.expect("memory takes all that is written");
}

/// The same as a text.
pub(super) fn written(double: f64) -> String {
    let mut out = Vec::new();
    write(&mut out, double);
    String::from_utf8(out).expect("numbers are text")
}

fn digits(number: &str) -> usize {
    number.bytes().filter(u8::is_ascii_digit).count()
}

/// True when there are so many digits in a row, points aside, that one of the numbers may be
/// inexact. Digits within texts count, too, which does no harm.
fn has_long_number(json: &str) -> bool {
    let json = json.as_bytes();
    let in_row = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'.');
    // One byte of so many belongs to each row that is long enough.
    let mut at = MAY_BE_INEXACT - 1;
    while at < json.len() {
        let behind = json[at..].iter().take_while(in_row).count();
        if behind > 0 {
            let before = json[..at].iter().rev().take_while(in_row).count();
            let row = &json[at - before..at + behind];
            if row.iter().filter(|byte| byte.is_ascii_digit()).count() >= MAY_BE_INEXACT {
                return true;
            }
        }
        at += behind + MAY_BE_INEXACT;
    }
    false
}

/// The first number outside of texts, and what follows it. Both are empty when there is none.
fn next_number(json: &str) -> (&str, &str) {
    let bytes = json.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let in_number =
                    |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
                let length = bytes[at..].iter().take_while(|byte| in_number(byte)).count();
                return (&json[at..at + length], &json[at + length..]);
            }
            _ => at += 1,
        }
    }
    ("", "")
}

/// What a value of a table is written as, if its double alone does not say it. A value may have
/// moved within its table.
pub(super) fn text_of(of_table: &Table, key: impl IntoLua, double: f64) -> Option<LuaString> {
    let stands_for = |text: &LuaString| {
        let noted = text.to_str().ok().and_then(|text| text.parse::<f64>().ok());
        noted.is_some_and(|noted| noted.to_bits() == double.to_bits())
    };
    let at_its_place = of_table.raw_get::<Option<LuaString>>(key).ok().flatten();
    if let Some(text) = at_its_place.filter(stands_for) {
        return Some(text);
    }
    let mut found: Option<LuaString> = None;
    for pair in of_table.pairs::<Value, LuaString>() {
        let text = pair.ok()?.1;
        if !stands_for(&text) {
            continue;
        }
        if found.as_ref().is_some_and(|other| *other != text) {
            // Two numbers look the same to the script: which one it moved cannot be told.
            return None;
        }
        found = Some(text);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_number_is_found_wherever_it_is() {
        for before in 0..40 {
            for digits in 0..40 {
                let number = "7".repeat(digits);
                let point = if digits > 2 {
                    format!("{}.{}", &number[..2], &number[2..])
                } else {
                    number.clone()
                };
                for row in [number, point] {
                    for text in [
                        format!("{}{row}", "x".repeat(before)),
                        format!("{}{row}, 1, 23, 45", "1x".repeat(before)),
                        format!("{}a{row}]{}", ".".repeat(before), "12,".repeat(9)),
                    ] {
                        assert_eq!(has_long_number(&text), digits >= MAY_BE_INEXACT, "{text}");
                    }
                }
            }
        }
    }

    #[test]
    fn only_numbers_that_a_double_cannot_hold_are_noted() {
        let json = r#"{"a\"1":76561198000000001,"b":[1,-2.5e3,"12345678901234567890",18446744073709551615,9007199254740993,9007199254740992]}"#;
        let texts = Texts::of(json);
        let mut noted = Vec::new();
        for double in [
            76_561_198_000_000_001_f64,
            1.0,
            -2500.0,
            18_446_744_073_709_551_615.0,
            9_007_199_254_740_993.0,
            9_007_199_254_740_992.0,
        ] {
            texts.met(double);
            noted.push(texts.take());
        }
        assert_eq!(
            noted,
            [
                Some("76561198000000001"),
                None,
                None,
                Some("18446744073709551615"),
                Some("9007199254740993"),
                None
            ]
        );
        let short = Texts::of(r#"{"a":123456789012345,"b":0.1}"#);
        short.met(0.1);
        assert!(short.rest.borrow().is_none() && short.take().is_none());
    }
}
