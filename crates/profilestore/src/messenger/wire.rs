//! Hints as bytes, for messengers that leave the process.
//!
//! `store NUL scope NUL key`: names hold no NUL. At most [`MAX_BYTES`] long.

use crate::key::{MAX_NAME_CHARS, ProfileKey};

/// The longest hint, in bytes.
pub(crate) const MAX_BYTES: usize = 3 * 4 * MAX_NAME_CHARS + 2;

/// A key as bytes.
pub(crate) fn encode(key: &ProfileKey) -> String {
    [key.store(), key.scope(), key.key()].join("\0")
}

/// The key that these bytes name; None when they are not of ours.
pub(crate) fn decode(bytes: &[u8]) -> Option<ProfileKey> {
    if bytes.len() > MAX_BYTES {
        return None;
    }
    let mut parts = std::str::from_utf8(bytes).ok()?.split('\0');
    let key = ProfileKey::new(parts.next()?, parts.next()?, parts.next()?).ok()?;
    parts.next().is_none().then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_and_nothing_else_is_taken_for_one() {
        let longest = "\u{1f600}".repeat(MAX_NAME_CHARS);
        for [store, scope, name] in
            [["S", "global", "k"], ["a b", "\n", "x/y>*."], [&*longest, &longest, &longest]]
        {
            let key = ProfileKey::new(store, scope, name).unwrap();
            let bytes = encode(&key);
            assert!(bytes.len() <= MAX_BYTES);
            assert_eq!(decode(bytes.as_bytes()), Some(key));
        }
        let long = format!("{longest}\0{longest}\0{longest}x");
        for wrong in [
            &b""[..],
            b"S",
            b"S\0g",
            b"S\0g\0",
            b"S\0g\0k\0",
            b"S\0g\0k\0x",
            b"\xff\0g\0k",
            b"gap",
            long.as_bytes(),
        ] {
            assert_eq!(decode(wrong), None, "{wrong:?}");
        }
    }
}
