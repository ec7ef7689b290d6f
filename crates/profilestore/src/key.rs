//! Names: which profile a call is about.
//!
//! A value of these types has been checked, so nothing below this module checks again.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    str::FromStr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The longest store name, scope or key, in characters. The specification's services allow 1 to 50.
pub const MAX_NAME_CHARS: usize = 50;

/// The scope of a store for which none was named. Specification: `global`.
pub const DEFAULT_SCOPE: &str = "global";

/// The store in which the library keeps books of its own, such as the audit log. It has no
/// profiles: [`crate::GameServer::store`], imports and edits refuse it, and what lists or exports
/// profiles leaves it out unless it is named.
pub const RESERVED_STORE: &str = "~profilestore";

/// The full name of a profile: store, scope and key, each of 1 to [`MAX_NAME_CHARS`] characters,
/// without NUL.
///
/// Cheap to clone. Ordered by store, then scope, then key (bytewise).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawKey", into = "RawKey")]
pub struct ProfileKey {
    store: Arc<str>,
    scope: Arc<str>,
    key: Arc<str>,
}

#[derive(Clone, Serialize, Deserialize)]
struct RawKey {
    store: String,
    scope: String,
    key: String,
}

impl TryFrom<RawKey> for ProfileKey {
    type Error = InvalidName;
    fn try_from(raw: RawKey) -> Result<Self, InvalidName> {
        Self::new(&raw.store, &raw.scope, &raw.key)
    }
}

impl From<ProfileKey> for RawKey {
    fn from(key: ProfileKey) -> Self {
        Self {
            store: key.store().to_owned(),
            scope: key.scope().to_owned(),
            key: key.key().to_owned(),
        }
    }
}

/// A store name, scope or key that is empty, too long or holds a NUL character.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be 1 to {MAX_NAME_CHARS} characters without NUL: {what}=`{given}`")]
pub struct InvalidName {
    /// Which of the three it is: `store name`, `scope` or `key`.
    pub what: &'static str,
    /// What was given, cut after 80 characters.
    pub given: String,
}

/// Checks one name; `what` says which it is in the error.
pub(crate) fn check_name(what: &'static str, given: &str) -> Result<Arc<str>, InvalidName> {
    let chars = given.chars().take(MAX_NAME_CHARS + 1).count();
    if chars == 0 || chars > MAX_NAME_CHARS || given.contains('\0') {
        return Err(InvalidName { what, given: given.chars().take(80).collect() });
    }
    Ok(Arc::from(given))
}

impl ProfileKey {
    /// Checks the three names. Fails when one is empty, longer than [`MAX_NAME_CHARS`] characters
    /// or holds a NUL.
    pub fn new(store: &str, scope: &str, key: &str) -> Result<Self, InvalidName> {
        Ok(Self {
            store: check_name("store name", store)?,
            scope: check_name("scope", scope)?,
            key: check_name("key", key)?,
        })
    }

    /// Another key of the same store and scope, sharing their memory.
    pub(crate) fn in_store(
        store: &Arc<str>,
        scope: &Arc<str>,
        key: &str,
    ) -> Result<Self, InvalidName> {
        Ok(Self { store: store.clone(), scope: scope.clone(), key: check_name("key", key)? })
    }

    /// True for a key of [`RESERVED_STORE`].
    pub fn is_reserved(&self) -> bool {
        self.store() == RESERVED_STORE
    }

    /// The last key that [`RESERVED_STORE`] can have: a listing goes on behind it.
    pub fn last_reserved() -> Self {
        let last = Arc::<str>::from("\u{10ffff}".repeat(MAX_NAME_CHARS));
        Self { store: Arc::from(RESERVED_STORE), scope: last.clone(), key: last }
    }

    /// The store's name.
    pub fn store(&self) -> &str {
        &self.store
    }

    /// The scope within the store.
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// The key within the scope.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// `store/scope/key`, or `store/key` in the default scope. Reading it again
/// ([`ProfileKey::from_str`]) gives the same name: a key with a slash is shown with its scope;
/// slashes in store and scope, characters that a reader does not see ([`is_hidden`]), a space at an
/// end, and what could be taken for one of these are written as `%2F` and the like.
impl fmt::Display for ProfileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/", Escaped { name: self.store(), slashes: true })?;
        if self.scope() != DEFAULT_SCOPE || self.key().contains('/') {
            write!(f, "{}/", Escaped { name: self.scope(), slashes: true })?;
        }
        Escaped { name: self.key(), slashes: false }.fmt(f)
    }
}

/// `store/scope/key`, where the key may hold further slashes, or `store/key` in the default scope;
/// with escapes as they are shown.
impl FromStr for ProfileKey {
    type Err = InvalidName;

    fn from_str(name: &str) -> Result<Self, InvalidName> {
        let (store, rest) = name.split_once('/').unwrap_or((name, ""));
        let (scope, key) = rest.split_once('/').unwrap_or((DEFAULT_SCOPE, rest));
        Self::new(&unescaped(store), &unescaped(scope), &unescaped(key))
    }
}

struct Escaped<'a> {
    name: &'a str,
    slashes: bool,
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, c) in self.name.char_indices() {
            let at_an_end = at == 0 || at + 1 == self.name.len();
            let escape = is_hidden(c)
                || (c == ' ' && at_an_end)
                || (c == '/' && self.slashes)
                || (c == '%' && escaped_at(&self.name[at..]).is_some());
            if escape { write_escape(f, c)? } else { f.write_char(c)? }
        }
        Ok(())
    }
}

/// True for a character that a reader does not see, or that changes how its neighbours are shown:
/// control characters, those that direct the order of writing, those without a width, and the two
/// that separate lines and paragraphs.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
            | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// An escape: `%0A`, `%u202E`, `%U0E0041`, by how many digits the character's number has.
fn write_escape(f: &mut impl fmt::Write, c: char) -> fmt::Result {
    match u32::from(c) {
        number @ 0..0x100 => write!(f, "%{number:02X}"),
        number @ 0x100..0x1_0000 => write!(f, "%u{number:04X}"),
        number => write!(f, "%U{number:06X}"),
    }
}

/// What the escape says that a text begins with, if it does, and how long it is.
fn escaped_at(text: &str) -> Option<(char, usize)> {
    let (digits, from) = match text.as_bytes() {
        [b'%', b'u', ..] => (4, 2),
        [b'%', b'U', ..] => (6, 2),
        [b'%', ..] => (2, 1),
        _ => return None,
    };
    let hex = text.get(from..from + digits)?;
    let number = hex.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(hex)?;
    let c = char::from_u32(u32::from_str_radix(number, 16).ok()?)?;
    (is_hidden(c) || matches!(c, '/' | '%' | ' ')).then_some((c, from + digits))
}

/// A part of a profile's name as it is shown, without its escapes.
pub fn unescaped(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        let (shown, bytes) = escaped_at(rest).unwrap_or((c, c.len_utf8()));
        plain.push(shown);
        rest = &rest[bytes..];
    }
    plain
}

/// A name as it is shown in a line of text: [`unescaped`] gives the name again.
pub fn escaped(name: &str) -> String {
    Escaped { name, slashes: false }.to_string()
}

/// A text, such as a reason, with the escapes that names have for what a reader does not see. It is
/// for reading: a `%` stays as it is.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        let wrote = if is_hidden(c) { write_escape(&mut shown, c) } else { shown.write_char(c) };
        debug_assert!(wrote.is_ok(), "a string takes all");
    }
    Cow::Owned(shown)
}

impl fmt::Debug for ProfileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProfileKey({self})")
    }
}

/// When an operation began, as its version 7 UUID says, Unix milliseconds.
pub(crate) fn began_ms(operation: Uuid) -> i64 {
    i64::try_from(operation.as_u128() >> 80).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_in_characters() {
        assert!(ProfileKey::new("S", "global", &"ä".repeat(50)).is_ok());
        let err = ProfileKey::new("S", "global", &"ä".repeat(51)).unwrap_err();
        assert_eq!(err.what, "key");
        assert_eq!(ProfileKey::new("", "g", "k").unwrap_err().what, "store name");
        assert_eq!(ProfileKey::new("s", "", "k").unwrap_err().what, "scope");
        assert!(ProfileKey::new("s", "g", "a\0b").is_err());
    }

    #[test]
    fn shown_without_the_default_scope() {
        assert_eq!(
            ProfileKey::new("PlayerData", "global", "7").unwrap().to_string(),
            "PlayerData/7"
        );
        assert_eq!(
            ProfileKey::new("PlayerData", "S1", "7").unwrap().to_string(),
            "PlayerData/S1/7"
        );
    }

    #[test]
    fn no_text_hides_a_character_or_turns_its_line_around() {
        assert_eq!(visible("50% of ä, \"4711\""), "50% of ä, \"4711\"");
        assert_eq!(visible("a\n\u{1b}[31m\u{85}"), "a%0A%1B[31m%85");
        assert_eq!(visible("x\u{202e}y\u{200d}\u{feff}\u{2066}"), "x%u202Ey%u200D%uFEFF%u2066");
        assert_eq!(unescaped(&escaped("100%0A of\n")), "100%0A of\n");
    }

    #[test]
    fn a_name_that_was_shown_is_read_as_the_same() {
        let parts = [
            "a",
            "a/b",
            "/",
            "global",
            "50%",
            "%2F",
            "%2f/%25",
            "a\nb",
            "%",
            "%zz",
            "ä%ä",
            "//",
            " ",
            "a ",
            " a b",
            "%20",
            "\u{9b}",
            "%9B",
            "a\u{202e}b",
            "%u202E",
            "%u202",
            "\u{e0041}",
            "%UE0041",
            "%U0E0041",
            "%u0041",
            "\u{200b}",
        ];
        for (n, store) in parts.iter().enumerate() {
            for (m, scope) in parts.iter().enumerate() {
                let name = ProfileKey::new(store, scope, parts[(n + 5 * m) % parts.len()]).unwrap();
                assert_eq!(name.to_string().parse(), Ok(name));
            }
        }
        let shown = |store, scope, key| ProfileKey::new(store, scope, key).unwrap().to_string();
        assert_eq!(shown("Keys", "global", "a/b"), "Keys/global/a/b");
        assert_eq!(shown("A/B", "50%", "1%"), "A%2FB/50%/1%");
        assert_eq!(
            shown("A", "global", " a b "),
            "A/%20a b%20",
            "in a table, a space at an end cannot be seen"
        );
        assert_eq!(shown("A", "global", "a\u{202e}b\u{200b}"), "A/a%u202Eb%u200B");
        assert_eq!(shown("A", "global", "\u{e0041}"), "A/%U0E0041");
        assert_eq!("PlayerData/7".parse(), ProfileKey::new("PlayerData", "global", "7"));
        assert!("7".parse::<ProfileKey>().is_err() && "S//7".parse::<ProfileKey>().is_err());
    }
}
