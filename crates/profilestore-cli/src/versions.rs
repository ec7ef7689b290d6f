//! Which version of a profile is meant, and what is shown of one.

use std::str::FromStr;

use profilestore::{
    ProfileKey,
    data_store::{
        Cause, DataStore, DataStoreExt, KeyState, Returning, StoredVersion, VersionInfo, VersionRef,
    },
    history::{find_version, version_at, version_label},
};
use serde::Serialize;

use crate::{
    output::{Failure, size},
    times::{Span, looks_like_a_time, span, time},
};

/// What is before a version string that could be a number or a time.
const LABEL: &str = "label:";

/// Which version is meant.
#[derive(Debug, Clone)]
pub(crate) struct VersionArg {
    text: String,
    name: Name,
}

#[derive(Debug, Clone, PartialEq)]
enum Name {
    Version(VersionRef),
    /// The one that was current at the end of this time.
    At(Span),
}

impl FromStr for VersionArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(label) = text.strip_prefix(LABEL) {
            return Ok(Self {
                text: text.to_owned(),
                name: Name::Version(VersionRef::Label(label.to_owned())),
            });
        }
        let name = match (text.parse(), span(text)) {
            (Ok(number), _) => Name::Version(VersionRef::Number(number)),
            (_, Ok(span)) => Name::At(span),
            (_, Err(how)) if looks_like_a_time(text) => {
                return Err(format!("{how}; a version string like it is given as {LABEL}{text}"));
            }
            _ => Name::Version(VersionRef::Label(text.to_owned())),
        };
        Ok(Self { text: text.to_owned(), name })
    }
}

/// A version string as it can be typed in: one that would be taken for something else says that it
/// is none.
pub(crate) fn typed(label: &str) -> String {
    let is_plain = label
        .parse::<VersionArg>()
        .is_ok_and(|read| read.name == Name::Version(VersionRef::Label(label.to_owned())));
    if is_plain { label.to_owned() } else { format!("{LABEL}{label}") }
}

impl VersionArg {
    pub(crate) async fn find(
        &self,
        store: &dyn DataStore,
        state: &KeyState,
    ) -> Result<StoredVersion, Failure> {
        let found = match &self.name {
            Name::Version(version) => find_version(store, state, version).await?,
            Name::At(span) => version_at(store, state, span.last_ms).await?,
        };
        found.ok_or_else(|| {
            let (key, text) = (&state.key, &self.text);
            Failure::NotFound(format!(
                "there is no such version, see history: key=`{key}` version=`{text}`"
            ))
        })
    }
}

/// What a key holds, or exit code 4.
pub(crate) async fn existing(
    store: &dyn DataStore,
    key: &ProfileKey,
    returning: Returning,
) -> Result<KeyState, Failure> {
    let (_, state) = store.read_one(key, returning).await?;
    match state.version {
        0 => Err(Failure::NotFound(format!("there is no such profile: key=`{key}`"))),
        _ => Ok(state),
    }
}

#[derive(Serialize)]
pub(crate) struct VersionRow<'a> {
    version: u64,
    label: String,
    written_ms: i64,
    stored_ms: i64,
    superseded_ms: Option<i64>,
    removed: bool,
    cause: Cause,
    author: &'a str,
    load_count: u64,
    pinned: bool,
    bytes: u64,
}

impl<'a> VersionRow<'a> {
    pub(crate) fn new(info: &'a VersionInfo, created_ms: i64) -> Self {
        Self {
            version: info.number,
            label: info
                .label
                .clone()
                .unwrap_or_else(|| version_label(info.written_ms, info.number, created_ms)),
            written_ms: info.written_ms,
            stored_ms: info.stored_ms,
            superseded_ms: info.superseded_ms,
            removed: info.removed,
            cause: info.cause,
            author: &info.author,
            load_count: info.load_count,
            pinned: info.pinned,
            bytes: info.bytes,
        }
    }
}

/// A version's number, with what is special about it.
pub(crate) fn numbered(number: u64, superseded_ms: Option<i64>, is_pinned: bool) -> String {
    let current = if superseded_ms.is_none() { " current" } else { "" };
    format!("{number}{current}{}", if is_pinned { " pinned" } else { "" })
}

pub(crate) fn cells(row: &VersionRow<'_>) -> [String; 6] {
    let size = if row.removed { "removed".to_owned() } else { size(row.bytes) };
    let number = numbered(row.version, row.superseded_ms, row.pinned);
    [
        number,
        time(row.written_ms),
        cause(row.cause).to_owned(),
        row.author.to_owned(),
        size,
        typed(&row.label),
    ]
}

/// Why a version was written, for people: in the words of the commands.
pub(crate) fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::Restore => "rollback",
        other => other.as_str(),
    }
}

/// A version by number and time.
pub(crate) fn described(info: &VersionInfo) -> String {
    format!(
        "version {} ({}, {} by {})",
        info.number,
        time(info.written_ms),
        cause(info.cause),
        info.author
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_named_by_number_string_or_time() {
        let name = |text: &str| text.parse::<VersionArg>().unwrap().name;
        assert_eq!(name("12"), Name::Version(VersionRef::Number(12)));
        let label = "000001A0C4506C2A.0000000001.000001A0C4506C2A.01";
        assert_eq!(name(label), Name::Version(VersionRef::Label(label.into())));
        let at = |first_ms, last_ms| Name::At(Span { first_ms, last_ms });
        assert_eq!(name("1970-01-02"), at(86_400_000, 172_799_999));
        assert_eq!(name("1970-01-01T00:00:01Z"), at(1000, 1999));
        assert!("1970-13-02".parse::<VersionArg>().unwrap_err().contains("label:1970-13-02"));
        for wrong in ["1970-13-02", "25:61", "yesterday 25:00", "2 moons", "3x ago", "21.11.2026"] {
            let said = wrong.parse::<VersionArg>().unwrap_err();
            assert!(said.contains(&format!("label:{wrong}")), "{wrong}: {said}");
        }
        for label in ["12", "1970-01-02", "1970-13-02", "2h", "label:12", "a b", "12abc", label] {
            assert_eq!(
                name(&typed(label)),
                Name::Version(VersionRef::Label(label.into())),
                "{label}"
            );
        }
        assert_eq!(typed(label), label);
    }
}
