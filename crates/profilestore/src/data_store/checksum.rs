//! The checksum that a backend keeps beside each version, and what a version without its checksum
//! is.
//!
//! It is a CRC-32 (of IEEE 802.3, as in zip and PNG) of what a version says of itself, and of its
//! value as it is stored. It finds every flipped bit, every two, and every burst of up to 32, and
//! costs less than a microsecond for 4 KB. What it covers, byte by byte, and why this one:
//! `docs/decisions/format-2.md`.

use super::{StoreError, VersionInfo};
use crate::key::ProfileKey;

/// What a checksum covers besides the value.
#[derive(Debug, Clone, Copy)]
pub(super) struct Covered<'a> {
    /// Store, scope and key.
    pub(super) key: [&'a str; 3],
    pub(super) number: u64,
    pub(super) written_ms: i64,
    pub(super) stored_ms: i64,
    pub(super) load_count: u64,
    pub(super) removed: bool,
    pub(super) cause: &'a str,
    pub(super) author: &'a str,
    pub(super) label: Option<&'a str>,
}

impl<'a> Covered<'a> {
    pub(super) fn of(key: &'a ProfileKey, info: &'a VersionInfo) -> Self {
        Self {
            key: [key.store(), key.scope(), key.key()],
            number: info.number,
            written_ms: info.written_ms,
            stored_ms: info.stored_ms,
            load_count: info.load_count,
            removed: info.removed,
            cause: info.cause.as_str(),
            author: &info.author,
            label: info.label.as_deref(),
        }
    }
}

/// The checksum of a version. A tombstone has no value.
pub(super) fn checksum(covered: &Covered<'_>, value: Option<&[u8]>) -> u32 {
    let [store, scope, key] = covered.key;
    let texts = [
        Some(store),
        Some(scope),
        Some(key),
        Some(covered.cause),
        Some(covered.author),
        covered.label,
    ];
    // Each text behind its length, so that no two versions are the same bytes.
    let mut about =
        Vec::with_capacity(64 + texts.iter().flatten().map(|text| text.len()).sum::<usize>());
    about.extend(covered.number.to_le_bytes());
    about.extend(covered.written_ms.to_le_bytes());
    about.extend(covered.stored_ms.to_le_bytes());
    about.extend(covered.load_count.to_le_bytes());
    about.push(u8::from(covered.removed));
    for text in texts {
        let bytes = text.map_or(u32::MAX, |text| u32::try_from(text.len()).unwrap_or(u32::MAX));
        about.extend(bytes.to_le_bytes());
        about.extend(text.unwrap_or_default().as_bytes());
    }
    let mut sum = crc32fast::Hasher::new();
    sum.update(&about);
    sum.update(value.unwrap_or_default());
    sum.finalize()
}

/// The checksum that steps 1 to 5 of format 2 kept: of the value alone. A tombstone had none.
pub(super) fn is_whole_before_step_6(
    removed: bool,
    value: Option<&[u8]>,
    stored: Option<u32>,
) -> bool {
    match (value, stored) {
        (Some(value), Some(stored)) => !removed && crc32fast::hash(value) == stored,
        (None, None) => removed,
        _ => false,
    }
}

/// Whether a version is the one that was written.
pub(super) fn verify(
    key: &ProfileKey,
    info: &VersionInfo,
    value: Option<&[u8]>,
    stored: Option<u32>,
) -> Result<(), StoreError> {
    let whole =
        value.is_none() == info.removed && stored == Some(checksum(&Covered::of(key, info), value));
    let version = info.number;
    if whole { Ok(()) } else { Err(StoreError::Damaged { key: key.clone(), version }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_store::Cause;

    fn info() -> VersionInfo {
        VersionInfo {
            number: 3,
            label: None,
            written_ms: 1_000,
            stored_ms: 2_000,
            superseded_ms: None,
            removed: false,
            cause: Cause::Save,
            author: "job".into(),
            load_count: 7,
            pinned: false,
            bytes: 9,
        }
    }

    fn key(store: &str, scope: &str, key: &str) -> ProfileKey {
        ProfileKey::new(store, scope, key).expect("a valid name")
    }

    #[test]
    fn a_version_is_whole_only_with_its_own_checksum() {
        let (at, value) = (key("S", "global", "k"), b"123456789");
        let stored = checksum(&Covered::of(&at, &info()), Some(value));
        // Computed as the decision record says, with `zlib.crc32` of Python.
        assert_eq!(stored, 0x4733_3043);
        let is_whole =
            |at: &ProfileKey, info: &VersionInfo, value: Option<&[u8]>, stored| match verify(
                at, info, value, stored,
            ) {
                Ok(()) => true,
                Err(StoreError::Damaged { key, version }) => {
                    assert_eq!((&key, version), (at, info.number));
                    false
                }
                Err(other) => panic!("expected damage, found {other:?}"),
            };
        assert!(is_whole(&at, &info(), Some(value), Some(stored)));
        assert!(!is_whole(&at, &info(), Some(b"123456788"), Some(stored)));
        assert!(!is_whole(&at, &info(), Some(value), None));
        assert!(!is_whole(&at, &info(), None, Some(stored)));
        // Whole values that stand in each other's places.
        for other in [key("S", "global", "l"), key("T", "global", "k"), key("S", "globa", "lk")] {
            assert!(!is_whole(&other, &info(), Some(value), Some(stored)), "{other}");
        }
        for other in [
            VersionInfo { number: 4, ..info() },
            VersionInfo { label: Some(String::new()), ..info() },
            VersionInfo { written_ms: 1_001, ..info() },
            VersionInfo { stored_ms: 2_001, ..info() },
            VersionInfo { cause: Cause::Restore, ..info() },
            VersionInfo { author: "joc".into(), ..info() },
            VersionInfo { load_count: 8, ..info() },
            VersionInfo { removed: true, ..info() },
        ] {
            assert!(!is_whole(&at, &other, Some(value), Some(stored)), "{other:?}");
        }
        // What is set later is not covered.
        let later = VersionInfo { pinned: true, superseded_ms: Some(1), ..info() };
        assert!(is_whole(&at, &later, Some(value), Some(stored)));
        let tombstone = VersionInfo { removed: true, ..info() };
        let stored = checksum(&Covered::of(&at, &tombstone), None);
        assert!(is_whole(&at, &tombstone, None, Some(stored)));
        assert!(!is_whole(&at, &tombstone, None, None));
        let renamed = VersionInfo { author: "eve".into(), ..tombstone };
        assert!(!is_whole(&at, &renamed, None, Some(stored)));
    }

    #[test]
    fn a_checksum_of_an_earlier_step_is_of_the_value_alone() {
        // The check value that the catalogue of CRCs gives for CRC-32/ISO-HDLC.
        let (value, stored) = (Some(&b"123456789"[..]), Some(0xcbf4_3926));
        assert!(is_whole_before_step_6(false, value, stored));
        assert!(!is_whole_before_step_6(true, value, stored));
        assert!(!is_whole_before_step_6(false, value, None));
        assert!(!is_whole_before_step_6(false, None, None));
        assert!(is_whole_before_step_6(true, None, None));
    }
}
