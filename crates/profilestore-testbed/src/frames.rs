//! Texts that are almost frames of a game server, for tests of what reads them.

use std::ops::Range;

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};

/// Frames of each kind that a game server sends.
const FRAMES: &[&str] = &[
    r#"{"hello":{"instance":"0123456789abcdef","job":"eu-1","place":7,"lease_ms":20000,"sdk":"x"}}"#,
    r#"{"hello":{"instance":"0123456789abcdef","job":"eu-1","resume":{"incarnation":"01a1ee38-7a00-7000-8000-000000000001","token":"0123456789abcdef","store":"01a1ee38-7a00-7000-8000-000000000002","sessions":[[1,"PlayerData","global","fuzzed",1]],"more":false}}}"#,
    r#"{"sessions":{"sessions":[[2,"PlayerData","global","fuzzed",1]],"more":false}}"#,
    r#"{"ping":{"n":1}}"#,
    r#"{"start":{"i":1,"s":1,"store":"PlayerData","key":"fuzzed","template":{"coins":0}}}"#,
    r#"{"start":{"i":2,"s":2,"store":"PlayerData","scope":"global","key":"fuzzed-2","template":{"coins":[1,2.5e3,null]},"when_held":"steal","timeout_ms":1000,"data_version":2,"readable_from":1,"overwrite":true}}"#,
    r#"{"cancel":{"i":1}}"#,
    r#"{"save":{"i":3,"s":1,"n":1,"data":{"coins":9223372036854775807,"name":"\u00fc\ud83d\ude00"},"processed":[1,2],"user_ids":[7,"069a79f4-44e9-4726-a5be-fca90e38aaf5"],"tags":{"a":[1.5,true]},"metadata":{"b":"c"}}}"#,
    r#"{"save":{"i":4,"s":1,"n":2,"data":{},"edits_done":[{"op":"01a1ee38-7a00-7000-8000-000000000003"},{"op":"01a1ee38-7a00-7000-8000-000000000004","refused":"no"}]}}"#,
    r#"{"tx":{"i":5,"parts":[{"s":1,"n":3,"data":{"coins":1}},{"s":2,"n":1}],"gifts":[{"store":"PlayerData","key":"fuzzed","id":"1795000000000:a","message":{"coins":1}}],"deadline_ms":1000}}"#,
    r#"{"stage":{"s":2,"n":1,"data":[[],{},""]}}"#,
    r#"{"send":{"i":6,"gift":{"store":"PlayerData","scope":"global","key":"fuzzed","id":"1795000000000:b","message":null}}}"#,
    r#"{"end":{"i":7,"s":1,"n":4,"data":{"coins":2}}}"#,
    r#"{"end":{"i":8,"s":2,"n":5}}"#,
    r#"{"bye":{}}"#,
];

/// What readers of JSON stumble over.
const ODD: &[&str] = &[
    "null",
    "true",
    "-1",
    "-0",
    "1e400",
    "0.1e-400",
    "18446744073709551615",
    "18446744073709551616",
    "1.0",
    "01",
    "\"\"",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "\u{feff}",
    "\u{0}",
    "{}",
    "[]",
    "{\"i\":1}",
    "\"i\":1,",
    "\"s\":1,",
    ",",
    ":",
    "\"",
    "\\",
    "}}",
    "]]",
    " \n\t",
    "/**/",
];

/// How deep brackets are put into each other at most.
const DEEPEST: usize = 2000;

/// What makes a frame almost one.
#[derive(Debug, Clone)]
enum Twist {
    /// A byte is another one.
    Byte(Index, u8),
    /// A part is not there.
    Gone(Index, Index),
    /// A part is there twice.
    Twice(Index, Index),
    /// Something odd stands between the rest.
    Odd(Index, &'static str),
    /// Something odd is the value of a member.
    Value(Index, &'static str),
    /// So many lists in each other are the value of a member.
    Deep(Index, usize),
}

impl Twist {
    fn apply(&self, text: &mut Vec<u8>) {
        match self {
            Self::Byte(at, byte) => {
                if !text.is_empty() {
                    let at = at.index(text.len());
                    text[at] = *byte;
                }
            }
            Self::Gone(from, to) => {
                text.drain(part(text, from, to));
            }
            Self::Twice(from, to) => {
                let part = part(text, from, to);
                let again = text[part.clone()].to_vec();
                drop(text.splice(part.end..part.end, again));
            }
            Self::Odd(at, odd) => {
                let at = at.index(text.len() + 1);
                drop(text.splice(at..at, odd.bytes()));
            }
            Self::Value(at, odd) => {
                let value = value(text, at);
                drop(text.splice(value, odd.bytes()));
            }
            Self::Deep(at, depth) => {
                let value = value(text, at);
                let lists = "[".repeat(*depth) + &"]".repeat(*depth);
                drop(text.splice(value, lists.bytes()));
            }
        }
    }
}

fn part(text: &[u8], from: &Index, to: &Index) -> Range<usize> {
    let (from, to) = (from.index(text.len() + 1), to.index(text.len() + 1));
    from.min(to)..from.max(to)
}

/// Where the value of a member is, or the beginning of it; the end where there are no members.
fn value(text: &[u8], at: &Index) -> Range<usize> {
    let colons: Vec<_> = (0..text.len()).filter(|at| text[*at] == b':').collect();
    if colons.is_empty() {
        return text.len()..text.len();
    }
    let from = colons[at.index(colons.len())] + 1;
    let length = text[from..].iter().position(|byte| matches!(byte, b',' | b'}'));
    from..length.map_or(text.len(), |length| from + length)
}

/// A frame as a game server sends it, with up to five twists. It is UTF-8 in any case.
pub fn almost_a_frame() -> impl Strategy<Value = String> {
    let at = any::<Index>;
    let twist = prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Twist::Byte(at, byte)),
        (at(), at()).prop_map(|(from, to)| Twist::Gone(from, to)),
        (at(), at()).prop_map(|(from, to)| Twist::Twice(from, to)),
        (at(), select(ODD)).prop_map(|(at, odd)| Twist::Odd(at, odd)),
        (at(), select(ODD)).prop_map(|(at, odd)| Twist::Value(at, odd)),
        (at(), 1..DEEPEST).prop_map(|(at, depth)| Twist::Deep(at, depth)),
    ];
    (select(FRAMES), vec(twist, 0..6)).prop_map(|(frame, twists)| {
        let mut text = frame.as_bytes().to_vec();
        twists.iter().for_each(|twist| twist.apply(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    })
}
