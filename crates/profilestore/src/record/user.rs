//! Users: numbers, as Roblox and Steam have them, and names, as Minecraft, Epic and Unity do.
//!
//! A store finds the keys of a user by a number. That of a name is a negative one, which no user
//! has: 63 bits of a digest. The audit log finds its entries in the same way. Names that share a
//! number are told apart by the record, which has the names themselves.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::{Uuid, fmt::Hyphenated};

use crate::{
    data_store::{Digest, KeyFilter},
    storable::{MAX_USER_ID, Unstorable, check_users},
};

/// How long the name of a user may be, in bytes.
pub const MAX_USER_BYTES: usize = 100;

/// A user that a profile is associated with, for search, export and erasure.
///
/// What is written as a whole number of up to 63 bits is a number; anything else is a name, of 1 to
/// [`MAX_USER_BYTES`] bytes. Names are compared byte by byte, but for UUIDs with hyphens: their
/// letters are made small. Those without hyphens stay as they are, since Epic's users are not UUIDs
/// and look the same.
///
/// In JSON, a number beyond 2^53 is a text, as many languages would round it. It is read as either.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub struct UserId(Raw);

/// A text that names no user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a user is a whole number that is not negative, or a name of 1 to {MAX_USER_BYTES} bytes \
     without NUL: user=`{given}`"
)]
pub struct InvalidUser {
    /// What was given, cut after 80 characters.
    pub given: String,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged, expecting = "a user is a whole number or a text")]
enum Raw {
    Number(i64),
    Name(Box<str>),
}

impl UserId {
    /// The number. None: it is a name.
    pub fn number(&self) -> Option<i64> {
        match &self.0 {
            Raw::Number(number) => Some(*number),
            Raw::Name(_) => None,
        }
    }

    /// Whether it can be a user's.
    pub(crate) fn check(&self) -> Result<(), Unstorable> {
        // Only a text of the right form becomes a name.
        self.number().map_or(Ok(()), |number| check_users(&[number]))
    }

    /// The number by which a store finds the keys of the user.
    pub fn indexed(&self) -> i64 {
        match &self.0 {
            Raw::Number(number) => *number,
            Raw::Name(name) => tag_of(&["user", name]),
        }
    }

    /// The keys of the user. Two names may share a number, so an erasure compares the users of the
    /// record.
    pub fn keys(&self) -> KeyFilter {
        KeyFilter::User(self.indexed())
    }
}

/// 2^53 - 1: the largest whole number that every language with JSON can hold.
const MAX_EXACT: i64 = (1 << 53) - 1;

fn checked(number: i64) -> Result<UserId, InvalidUser> {
    match (0..=MAX_USER_ID).contains(&number) {
        true => Ok(number.into()),
        false => Err(InvalidUser { given: number.to_string() }),
    }
}

/// A negative number, which no user has: 63 bits of a digest.
pub(crate) fn tag_of(names: &[&str]) -> i64 {
    let digest = Digest::of(names.join("\0").as_bytes()).0;
    let [a, b, c, d, e, f, g, h, ..] = digest;
    i64::from_be_bytes([a, b, c, d, e, f, g, h]) | i64::MIN
}

impl FromStr for UserId {
    type Err = InvalidUser;

    fn from_str(text: &str) -> Result<Self, InvalidUser> {
        if let Some(number) = text.parse::<i64>().ok().filter(|number| number.to_string() == text) {
            return checked(number);
        }
        if text.is_empty() || text.len() > MAX_USER_BYTES || text.contains('\0') {
            return Err(InvalidUser { given: text.chars().take(80).collect() });
        }
        let name = if is_uuid(text) { text.to_ascii_lowercase() } else { text.to_owned() };
        Ok(Self(Raw::Name(name.into())))
    }
}

/// Whether it is a UUID with hyphens.
fn is_uuid(text: &str) -> bool {
    text.len() == Hyphenated::LENGTH && text.parse::<Uuid>().is_ok()
}

/// A negative number is no user's: it can be asked for, and nothing is found.
impl From<i64> for UserId {
    fn from(number: i64) -> Self {
        Self(Raw::Number(number))
    }
}

impl TryFrom<Raw> for UserId {
    type Error = InvalidUser;

    fn try_from(raw: Raw) -> Result<Self, InvalidUser> {
        match raw {
            Raw::Number(number) => checked(number),
            Raw::Name(name) => name.parse(),
        }
    }
}

impl From<UserId> for Raw {
    fn from(user: UserId) -> Self {
        match user.0 {
            Self::Number(number) if number > MAX_EXACT => Self::Name(number.to_string().into()),
            other => other,
        }
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Raw::Number(number) => number.fmt(f),
            Raw::Name(name) => f.write_str(name),
        }
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
