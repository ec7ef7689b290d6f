//! Search by value: which profiles have data of some kind, in a small language.
//!
//! ```text
//! /coins > 1000000000
//! has /items/sword and not (/banned = true or /level < 10)
//! ```
//!
//! | a condition | is true when |
//! | --- | --- |
//! | `has PATH` | something is at the path, null included |
//! | `PATH = VALUE` | what is there equals the value |
//! | `PATH != VALUE` | not `PATH = VALUE`; so also when nothing is there |
//! | `PATH < VALUE`, `<=`, `>`, `>=` | both are numbers, or both are texts, and in that order |
//! | `not C`, `C and C`, `C or C`, `( C )` | as usual: `not` binds closest, then `and`, then `or` |
//!
//! * A path is a JSON pointer (RFC 6901) into the profile's data, as in `/stats/kills` or
//!   `/items/0/id`. One with a blank or one of `()=!<>"` in it stands in quotes, as a JSON text:
//!   `"/my items/sword"`.
//! * A value is JSON: a text stands in quotes. Lists and objects can be compared by `=` and `!=`.
//! * Numbers are compared exactly, as they are written: 9007199254740993 is not
//!   9007199254740992, and 1.0 is 1. Texts are ordered by their Unicode characters, and upper case
//!   comes before lower case.
//!
//! There is no index on values: a search reads every profile that it is asked to look at, as it is
//! saved. [`scan`] does that a page at a time.

use std::{cmp::Ordering, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

mod number;
mod parse;
mod scan;
mod seek;
#[cfg(test)]
mod tests;

use number::Decimal;
pub use scan::{ScanLimits, ScanPage, UnreadableProfile, scan};

/// The longest search, in bytes.
pub const MAX_FILTER_BYTES: usize = 4096;

/// A search by value. Made of text, and written as the same text. The [module](self) describes the
/// language.
///
/// ```
/// use profilestore::filter::Filter;
///
/// let rich: Filter = "/coins > 1000000000 and not /vip = true".parse()?;
/// let data = serde_json::value::RawValue::from_string(r#"{"coins":1000000001}"#.into())?;
/// assert!(rich.matches(&data)?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Filter {
    text: Arc<str>,
    rule: Arc<Rule>,
}

/// Why a text is no search, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the search is wrong at character {at}: {why}")]
pub struct FilterError {
    /// Which character, counted from 1. One behind the last when something is missing at the end.
    pub at: usize,
    /// What is wrong there, and what to write instead.
    pub why: String,
}

/// What is where a JSON pointer (RFC 6901) leads in some JSON, exactly as it is written there.
/// None: there is nothing. Fails on what is no JSON.
pub fn value_at<'a>(
    json: &'a RawValue,
    path: &JsonPath,
) -> serde_json::Result<Option<&'a RawValue>> {
    seek::at(json, &path.0)
}

/// A JSON pointer (RFC 6901): empty for all of it, or as in `/stats/kills`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPath(Vec<String>);

impl JsonPath {
    /// The same path below a member of this name.
    #[must_use]
    pub fn below(mut self, name: &str) -> Self {
        self.0.insert(0, name.to_owned());
        self
    }

    /// True when one of two paths leads through the other.
    pub fn touches(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| a == b)
    }
}

impl FromStr for JsonPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse::names(text).map(Self).ok_or_else(|| {
            format!(
                "this is no JSON pointer; it begins with a slash, as in /stats/coins: path=`{text}`"
            )
        })
    }
}

#[derive(Debug)]
enum Rule {
    All(Vec<Rule>),
    Any(Vec<Rule>),
    Not(Box<Rule>),
    Has(Path),
    Compare(Path, Comparison, Literal),
}

/// The names that lead from the outside to a value.
#[derive(Debug)]
struct Path(Vec<String>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

/// A value of the search.
#[derive(Debug)]
enum Literal {
    Null,
    Bool(bool),
    Number(Decimal),
    Text(String),
    List(Vec<Literal>),
    /// Without order.
    Object(std::collections::BTreeMap<String, Literal>),
}

impl Filter {
    /// Whether a profile's data is what is searched for. Fails on what is no JSON.
    pub fn matches(&self, data: &RawValue) -> serde_json::Result<bool> {
        self.rule.holds(data)
    }

    /// The search as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        Ok(Self { rule: Arc::new(parse::rule(text)?), text: text.into() })
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Filter").field(&self.text).finish()
    }
}

/// Two searches are equal when they are written alike.
impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Filter {}

impl Serialize for Filter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Rule {
    fn holds(&self, data: &RawValue) -> serde_json::Result<bool> {
        Ok(match self {
            Self::All(rules) => {
                for rule in rules {
                    if !rule.holds(data)? {
                        return Ok(false);
                    }
                }
                true
            }
            Self::Any(rules) => {
                for rule in rules {
                    if rule.holds(data)? {
                        return Ok(true);
                    }
                }
                false
            }
            Self::Not(rule) => !rule.holds(data)?,
            Self::Has(Path(names)) => seek::at(data, names)?.is_some(),
            Self::Compare(Path(names), comparison, literal) => match seek::at(data, names)? {
                Some(found) => comparison.holds(found, literal)?,
                None => *comparison == Comparison::Unequal,
            },
        })
    }
}

impl Comparison {
    fn needs_order(self) -> bool {
        !matches!(self, Self::Equal | Self::Unequal)
    }

    fn holds(self, found: &RawValue, literal: &Literal) -> serde_json::Result<bool> {
        Ok(match self {
            Self::Equal => literal.equals(found)?,
            Self::Unequal => !literal.equals(found)?,
            _ => literal.order_of(found)?.is_some_and(|order| match self {
                Self::Less => order == Ordering::Less,
                Self::AtMost => order != Ordering::Greater,
                Self::Greater => order == Ordering::Greater,
                _ => order != Ordering::Less,
            }),
        })
    }
}

impl Literal {
    fn of(json: &RawValue) -> serde_json::Result<Self> {
        Ok(match seek::kind(json) {
            seek::Kind::Null => Self::Null,
            seek::Kind::Bool => Self::Bool(json.get() == "true"),
            seek::Kind::Number => Self::Number(Decimal::of(json.get())),
            seek::Kind::Text => Self::Text(serde_json::from_str(json.get())?),
            seek::Kind::List => Self::List(
                seek::elements(json)?.into_iter().map(Self::of).collect::<Result<_, _>>()?,
            ),
            seek::Kind::Object => Self::Object(
                seek::members(json)?
                    .into_iter()
                    .map(|(name, value)| Ok((name, Self::of(value)?)))
                    .collect::<serde_json::Result<_>>()?,
            ),
        })
    }

    fn equals(&self, found: &RawValue) -> serde_json::Result<bool> {
        Ok(match (self, seek::kind(found)) {
            (Self::Null, seek::Kind::Null) => true,
            (Self::Bool(literal), seek::Kind::Bool) => *literal == (found.get() == "true"),
            (Self::Number(literal), seek::Kind::Number) => Decimal::of(found.get()) == *literal,
            (Self::Text(literal), seek::Kind::Text) => {
                serde_json::from_str::<String>(found.get())? == *literal
            }
            (Self::List(literals), seek::Kind::List) => {
                let found = seek::elements(found)?;
                if found.len() != literals.len() {
                    return Ok(false);
                }
                for (literal, found) in literals.iter().zip(found) {
                    if !literal.equals(found)? {
                        return Ok(false);
                    }
                }
                true
            }
            (Self::Object(literals), seek::Kind::Object) => {
                let found = seek::members(found)?;
                if found.len() != literals.len() {
                    return Ok(false);
                }
                for (name, literal) in literals {
                    match found.get(name) {
                        Some(found) if literal.equals(found)? => {}
                        _ => return Ok(false),
                    }
                }
                true
            }
            _ => false,
        })
    }

    /// How what was found stands to the value of the search. None: they have no order.
    fn order_of(&self, found: &RawValue) -> serde_json::Result<Option<Ordering>> {
        Ok(match (self, seek::kind(found)) {
            (Self::Number(literal), seek::Kind::Number) => {
                Some(Decimal::of(found.get()).cmp(literal))
            }
            (Self::Text(literal), seek::Kind::Text) => {
                Some(serde_json::from_str::<String>(found.get())?.cmp(literal))
            }
            _ => None,
        })
    }
}
