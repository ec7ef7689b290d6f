//! Errors as the services give them: a code, its name, a sentence.

use std::fmt;

use crate::{
    data_store::StoreError,
    error::{Error, ErrorKind},
    key::MAX_NAME_CHARS,
    record::RecordError,
    storable::{MAX_METADATA_CHARS, Problem, Unstorable},
};

/// What a data store's call fails with. Shown as the services show it: `CODE: MESSAGE`.
///
/// A call that fails with a code from 501 may have been applied all the same, as with the services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataStoreError {
    /// What the call failed with.
    pub code: Code,
    /// A sentence. The one about an unknown version has `not valid` in it, on which the published
    /// modules rely.
    pub message: String,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// The services' error codes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Its number.
            pub fn number(self) -> u16 {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// Its name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}

codes! {
    /// A store name, scope or key is empty.
    KeyNameEmpty = 101,
    /// A store name, scope or key is too long, or has a character that cannot be in it.
    KeyNameLimit = 102,
    /// A value of this kind is not allowed.
    ValueNotAllowed = 103,
    /// The value cannot be stored.
    CantStoreValue = 104,
    /// The value is larger than [`MAX_VALUE_BYTES`](super::MAX_VALUE_BYTES).
    ValueTooLarge = 105,
    /// A page size, or the bound of a time, cannot be.
    PageSizeInvalid = 106,
    /// The lower bound is above the upper one.
    MinMaxOrder = 107,
    /// Too many reads wait for their turn.
    GetAsyncThrottle = 301,
    /// Too many writes wait for their turn.
    SetAsyncThrottle = 302,
    /// Too many increments wait for their turn.
    IncrementAsyncThrottle = 303,
    /// Too many updates wait for their turn.
    UpdateAsyncThrottle = 304,
    /// Too many listings wait for their turn.
    GetSortedThrottle = 305,
    /// Too many removals wait for their turn.
    RemoveAsyncThrottle = 306,
    /// The game server is shutting down.
    DataModelNoAccess = 401,
    /// What is stored cannot be understood.
    CantParseResponse = 501,
    /// The request was rejected: there is no such version, no further page, no number to add to.
    RequestRejected = 502,
    /// The store gave no answer, or none that says whether the call took effect.
    BadResponse = 505,
    /// The store is not for games.
    NotAllowed = 509,
    /// The metadata is too large.
    MetadataTooLarge = 511,
    /// A user id cannot be one.
    UserIdInvalid = 512,
}

impl DataStoreError {
    pub(super) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// About a store name, a scope or a key.
    pub(super) fn name(what: &str, given: &str) -> Self {
        if given.is_empty() {
            return Self::new(Code::KeyNameEmpty, format!("the {what} is empty"));
        }
        let message =
            format!("the {what} is longer than {MAX_NAME_CHARS} characters, or has a NUL in it");
        Self::new(Code::KeyNameLimit, message)
    }
}

impl fmt::Display for DataStoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.number(), self.message)
    }
}

impl std::error::Error for DataStoreError {}

impl From<Error> for DataStoreError {
    fn from(error: Error) -> Self {
        let code = match error.kind() {
            ErrorKind::Closing => Code::DataModelNoAccess,
            ErrorKind::TooLarge => Code::ValueTooLarge,
            ErrorKind::Corrupt | ErrorKind::Damaged => Code::CantParseResponse,
            ErrorKind::Invalid => Code::CantStoreValue,
            _ => Code::BadResponse,
        };
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(deeper) = cause {
            message.push_str("; ");
            message.push_str(&deeper.to_string());
            cause = deeper.source();
        }
        Self { code, message }
    }
}

impl From<StoreError> for DataStoreError {
    fn from(error: StoreError) -> Self {
        Error::from(error).into()
    }
}

impl From<RecordError> for DataStoreError {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Unstorable(wrong) => wrong.into(),
            RecordError::RecordTooLarge { .. } => Self::new(Code::ValueTooLarge, error.to_string()),
            _ => Self::new(Code::CantParseResponse, error.to_string()),
        }
    }
}

impl From<Unstorable> for DataStoreError {
    fn from(wrong: Unstorable) -> Self {
        let code = match wrong.problem {
            Problem::TooLarge { .. } => Code::ValueTooLarge,
            Problem::Metadata { .. } => Code::MetadataTooLarge,
            Problem::UserId { .. } => Code::UserIdInvalid,
            _ => Code::CantStoreValue,
        };
        let message = match code {
            Code::MetadataTooLarge => format!(
                "{wrong}; all of a key's metadata is at most {MAX_METADATA_CHARS} characters"
            ),
            _ => wrong.to_string(),
        };
        Self { code, message }
    }
}
