//! The rule for JSON that is written already.
//!
//! The text is known to be JSON, so this looks only for what JSON allows and the rule does not. One
//! pass without recursion; the place is worked out when something is found.

use std::{borrow::Cow, ops::Range};

use super::{Problem, Unstorable, check_name, pointer_of};

/// Digits that fit into 64 bits whatever they are.
const SHORT: usize = 18;

pub(super) fn check(json: &str, depth: usize) -> Result<(), Unstorable> {
    let mut scan = Scan { strict: true, ..Scan::new(json, depth) };
    while scan.at < json.len() {
        scan.step().map_err(|problem| problem.at(scan.path()))?;
        scan.at += 1;
    }
    Ok(())
}

/// The parts of the text that a [`serde_json::Value`] cannot hold as they are: numbers that it
/// rounds, texts that it cannot read, lists and objects that lie too deep.
pub(super) fn unreadable(json: &str, depth: usize) -> Vec<Range<usize>> {
    let mut scan = Scan::new(json, depth);
    let mut found = Vec::new();
    while scan.at < json.len() {
        let from = scan.at;
        let step = scan.step();
        if matches!(step, Err(Problem::TooDeep { .. })) {
            scan.skip();
        }
        let is_rounded =
            || is_number(json.as_bytes()[from]) && !keeps_digits(&json[from..=scan.at]);
        if step.is_err() || is_rounded() {
            found.push(from..scan.at + 1);
        }
        scan.at += 1;
    }
    found
}

struct Scan<'a> {
    json: &'a str,
    at: usize,
    depth: usize,
    /// Two members of one name are a problem.
    strict: bool,
    /// The lists and objects around this place.
    open: Vec<Open>,
    /// The names of the objects among them so far, the innermost object's last.
    names: Vec<Name>,
}

enum Open {
    List {
        index: usize,
    },
    /// `first` is where its names begin; `named`: the name of the next text is over.
    Object {
        first: usize,
        named: bool,
    },
}

/// Where a name stands in the text, without its quotes, and a number that equal names share.
#[derive(Clone, Copy)]
struct Name {
    sum: u64,
    from: usize,
    to: usize,
}

impl<'a> Scan<'a> {
    fn new(json: &'a str, depth: usize) -> Self {
        Self { json, at: 0, depth, strict: false, open: Vec::new(), names: Vec::new() }
    }

    /// Looks at what begins here, and goes to its last byte; of a list or an object only at the
    /// bracket.
    fn step(&mut self) -> Result<(), Problem> {
        match self.json.as_bytes()[self.at] {
            b'{' => self.enter(Open::Object { first: self.names.len(), named: false }),
            b'[' => self.enter(Open::List { index: 0 }),
            b'}' | b']' => self.leave(),
            b'"' => self.text(),
            byte if is_number(byte) => self.number(),
            b',' => {
                match self.open.last_mut() {
                    Some(Open::List { index }) => *index += 1,
                    Some(Open::Object { named, .. }) => *named = false,
                    None => {}
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Goes from a bracket to the one that closes it.
    fn skip(&mut self) {
        let json = self.json.as_bytes();
        let mut open = 0_usize;
        while let Some(byte) = json.get(self.at) {
            match byte {
                b'{' | b'[' => open += 1,
                b'}' | b']' => open -= 1,
                b'"' => {
                    self.at += 1;
                    while let Some(byte) = json.get(self.at).filter(|byte| **byte != b'"') {
                        self.at += if *byte == b'\\' { 2 } else { 1 };
                    }
                }
                _ => {}
            }
            if open == 0 {
                return;
            }
            self.at += 1;
        }
    }

    fn enter(&mut self, open: Open) -> Result<(), Problem> {
        if self.open.len() == self.depth {
            return Err(Problem::TooDeep { limit: self.depth });
        }
        self.open.push(open);
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Problem> {
        if self.strict
            && let Some(Open::Object { first, .. }) = self.open.last()
            && let Some(twice) = self.twice(*first)
        {
            self.names.push(twice);
            return Err(Problem::Twice);
        }
        if let Some(Open::Object { first, .. }) = self.open.pop() {
            self.names.truncate(first);
        }
        Ok(())
    }

    /// A name that occurs twice among those from `first` on.
    fn twice(&mut self, first: usize) -> Option<Name> {
        let json = self.json;
        let names = &mut self.names[first..];
        names.sort_unstable_by_key(|name| name.sum);
        let same = |pair: &&[Name]| {
            pair[0].sum == pair[1].sum
                && decoded(&json[pair[0].from..pair[0].to])
                    == decoded(&json[pair[1].from..pair[1].to])
        };
        names.windows(2).find(same).map(|pair| pair[0])
    }

    /// Goes to the last byte of a text.
    fn text(&mut self) -> Result<(), Problem> {
        let json = self.json.as_bytes();
        let from = self.at + 1;
        let mut at = from;
        let mut escaped = false;
        let mut wrong = None;
        while let Some(byte) = json.get(at).filter(|byte| **byte != b'"') {
            if *byte == b'\\' {
                escaped = true;
                let (length, is_half) = escape(&json[at..]);
                if is_half && wrong.is_none() {
                    wrong = self.json.get(at..at + length).map(str::to_owned);
                }
                at += length;
            } else {
                at += 1;
            }
        }
        self.at = at;
        if let Some(Open::Object { named, .. }) = self.open.last_mut()
            && !std::mem::replace(named, true)
        {
            let name = &self.json[from..at];
            let plain = if escaped { Cow::Owned(decoded(name)) } else { Cow::Borrowed(name) };
            self.names.push(Name { sum: sum_of(&plain), from, to: at });
            check_name(&plain)?;
        }
        wrong.map_or(Ok(()), |escape| Err(Problem::Surrogate { escape }))
    }

    /// Goes to the last byte of a number.
    fn number(&mut self) -> Result<(), Problem> {
        let rest = &self.json[self.at..];
        let length = rest
            .bytes()
            .take_while(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
            .count();
        self.at += length - 1;
        check_number(&rest[..length])
    }

    fn path(&self) -> String {
        pointer_of(self.steps().iter().map(String::as_str))
    }

    /// The names and indexes that lead here.
    fn steps(&self) -> Vec<String> {
        let mut steps = Vec::with_capacity(self.open.len());
        for (n, open) in self.open.iter().enumerate() {
            let last = self.open[n + 1..].iter().find_map(|inner| match inner {
                Open::Object { first, .. } => Some(*first),
                Open::List { .. } => None,
            });
            match open {
                Open::List { index } => steps.push(index.to_string()),
                Open::Object { first, .. } => {
                    let own = &self.names[*first..last.unwrap_or(self.names.len())];
                    steps.extend(own.last().map(|name| decoded(&self.json[name.from..name.to])));
                }
            }
        }
        steps
    }
}

/// The path of what a byte of the text belongs to. A closing bracket belongs to the list or object
/// as a whole.
pub(super) fn path_at(json: &str, offset: usize) -> String {
    let mut scan = Scan::new(json, usize::MAX);
    while scan.at < offset.min(json.len()) {
        // What is wrong on the way is not the question here.
        let _ = scan.step();
        scan.at += 1;
    }
    let mut steps = scan.steps();
    if matches!(json.as_bytes().get(offset), Some(b'}' | b']')) && scan.at == offset {
        steps.pop();
    }
    pointer_of(steps.iter().map(String::as_str))
}

fn is_number(byte: u8) -> bool {
    matches!(byte, b'-' | b'0'..=b'9')
}

/// How long an escape is, and whether it is half of a surrogate pair. A whole pair counts as one.
fn escape(bytes: &[u8]) -> (usize, bool) {
    let unit = |from: usize| {
        let hex = bytes.get(from..from + 6).filter(|text| text.starts_with(b"\\u"))?;
        u16::from_str_radix(std::str::from_utf8(&hex[2..]).ok()?, 16).ok()
    };
    match unit(0) {
        None => (2, false),
        Some(0xd800..=0xdbff) if unit(6).is_some_and(|low| (0xdc00..=0xdfff).contains(&low)) => {
            (12, false)
        }
        Some(unit) => (6, (0xd800..=0xdfff).contains(&unit)),
    }
}

/// What a text between its quotes says; as it is written if it says nothing.
fn decoded(text: &str) -> String {
    serde_json::from_str(&format!("\"{text}\"")).unwrap_or_else(|_| text.to_owned())
}

/// FNV-1a. Names of one sum are compared, so that a bad sum costs time at most.
fn sum_of(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Checks a number as it is written.
pub(super) fn check_number(number: &str) -> Result<(), Problem> {
    if number.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
        let finite = number.parse::<f64>().is_ok_and(f64::is_finite);
        return if finite { Ok(()) } else { Err(Problem::TooFar { number: cut(number) }) };
    }
    let fits =
        number.len() <= SHORT || number.parse::<i64>().is_ok() || number.parse::<u64>().is_ok();
    if fits { Ok(()) } else { Err(Problem::TooLong { number: cut(number) }) }
}

/// Whether a storable number is still the same number when it was read and is written again.
fn keeps_digits(number: &str) -> bool {
    number.len() <= SHORT
        || serde_json::from_str::<serde_json::Number>(number).is_ok_and(|read| {
            read.as_f64().is_none_or(|_| decimal(number) == decimal(&read.to_string()))
        })
}

/// The digits of a number without zeros around them, and the power of ten of the last one.
fn decimal(number: &str) -> (String, i64) {
    let (number, power) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{}{fraction}", whole.trim_start_matches('-'));
    let kept = digits.trim_end_matches('0');
    let cut = i64::try_from(digits.len() - kept.len()).unwrap_or(i64::MAX);
    let after_point = i64::try_from(fraction.len()).unwrap_or(i64::MAX);
    let power = power.parse::<i64>().unwrap_or(0).saturating_sub(after_point).saturating_add(cut);
    let kept = kept.trim_start_matches('0');
    if kept.is_empty() { (String::new(), 0) } else { (kept.to_owned(), power) }
}

/// A number for a message.
fn cut(number: &str) -> String {
    const SHOWN: usize = 60;
    if number.len() > SHOWN { format!("{}…", &number[..SHOWN]) } else { number.to_owned() }
}
