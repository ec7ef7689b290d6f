//! The one public error type. Its kind says which case it is, and its [`Advice`] what the caller
//! should do.
//!
//! What the specification answers with nil or `false` is a kind of its own here.

use std::fmt;

use uuid::Uuid;

use crate::{
    data_store::{ConflictKind, MessageId, StoreError},
    key::{InvalidName, ProfileKey},
    record::RecordError,
    storable::Unstorable,
};

/// What the library's calls return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong: a kind, a sentence, the profile it is about, and the cause.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    key: Option<ProfileKey>,
    id: Option<Box<CallId>>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The identity that a call had, under which it may be repeated.
#[derive(Debug, Clone)]
enum CallId {
    Message(MessageId),
    Operation(Uuid),
}

/// Which case it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The profile has a live session on this server already. End it first, or start with
    /// [`crate::StartOptions::supersede`].
    AlreadyLoaded,
    /// A later start call for the same profile on this server took this one's place.
    Superseded,
    /// Another server asked for the profile later, so it gets it.
    TakenElsewhere,
    /// The caller's cancel function said that the session is no longer needed.
    Cancelled,
    /// The session could not be started, or the transaction not be done, in time. Nothing was done,
    /// but for a steal that the store had taken before: it may have ended the other session.
    TimedOut,
    /// This game server is shutting down, or the Tokio runtime that it was started on is gone.
    /// Nothing was done.
    Closing,
    /// The session is over: ended, handed over, or lost. Changes are no longer saved.
    SessionEnded,
    /// The data cannot be edited at this moment: from inside another edit, or while a transaction
    /// is open.
    Busy,
    /// This server has not confirmed its lease within the lease time, so another server may have
    /// taken the profile: what cannot be undone must wait. It does so again as soon as the store
    /// answers.
    Unconfirmed,
    /// The transaction was done before: a gift of its has been sent under the same id with the same
    /// content. Nothing was done now.
    DoneBefore,
    /// There is no such profile, or no such version of it.
    NotFound,
    /// What is stored is not a profile. It is left alone unless the caller asks to overwrite it;
    /// the history keeps it then.
    Foreign,
    /// The profile was removed since it was read.
    Removed,
    /// The profile is another version than the call expects, or is there although the call expects
    /// none ([`crate::operator::Expected`]). Nothing was changed. Read it again.
    Changed,
    /// A session holds the profile, so it cannot be written without that session. Nothing was
    /// changed. [`crate::Operator::edit`] changes it through its holder.
    Held,
    /// The data was saved by a newer version of the program, which says that this one must not open
    /// it. It is left alone.
    NewerData,
    /// The stored data does not fit the program's type, or could not be migrated to it. It is left
    /// alone.
    Undecodable,
    /// As many messages wait for the profile as may.
    InboxFull,
    /// The message id was used before with another content.
    MessageIdReused,
    /// The identity of a request was used before, for another request. Nothing was done now.
    RequestIdReused,
    /// The message id's time is too long ago, or ahead.
    MessageIdExpired,
    /// The data, a message or the metadata is larger than what can be stored.
    TooLarge,
    /// An operator's edit does not fit the profile's data. Nothing was changed.
    EditRefused,
    /// The program itself refused the data: the store's validator
    /// ([`crate::StoreBuilder::validate`]), or a listener of [`crate::Profile::veto_save`]. Its
    /// reason is in the message. Nothing was changed.
    Refused,
    /// The call is wrong: a name, an argument, data that cannot be stored.
    Invalid,
    /// The store cannot be used at the moment. Nothing was done.
    Unavailable,
    /// Whether the call took effect is not known, and it may yet take effect. See
    /// [`Advice::RetryAs`].
    Unknown,
    /// The store's contents were replaced by a backup; sessions of before are over.
    Replaced,
    /// The store's files were deleted, moved or overwritten under this program: nothing is saved
    /// any more, and trying again will not help. An operator has to decide what counts; see "The
    /// store's files were taken away" in `docs/trouble.md`.
    TakenAway,
    /// The store's contents cannot be understood.
    Corrupt,
    /// The stored value of this version is not the one that was written: a disk, a copy or a
    /// program has changed it. Earlier versions can still be read: roll the profile back to one
    /// ([`crate::Operator::restore`], `profilestore rollback`), or restore a backup. See "A
    /// value is damaged" in `docs/trouble.md`.
    Damaged,
    /// Too many operations wait for this profile, or too much data of messages and of profiles that
    /// are to be written.
    Overloaded,
}

/// What the caller should do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Advice {
    /// Try the same call again later; this one did nothing.
    Retry,
    /// The call may have taken effect, or may yet. Try again under the identity that it had, so
    /// that its effect comes once: [`send_message_as`](crate::ProfileStore::send_message_as) with
    /// [`Error::message_id`], [`edit_as`](crate::Operator::edit_as) with [`Error::operation`]. A
    /// call for which the error has neither (a save, an end, a removal) may be made again as it is:
    /// done twice, it has the effect of once.
    RetryAs,
    /// The session is over, or another server has the profile: let the player go.
    Leave,
    /// The program or the data is at fault; trying again will not help.
    Fix,
    /// Nothing is wrong: the call was called off, or had been done before.
    Ignore,
}

impl ErrorKind {
    /// Every kind, for tables of them.
    pub const ALL: [Self; 32] = [
        Self::AlreadyLoaded,
        Self::Superseded,
        Self::TakenElsewhere,
        Self::Cancelled,
        Self::TimedOut,
        Self::Closing,
        Self::SessionEnded,
        Self::Busy,
        Self::Unconfirmed,
        Self::DoneBefore,
        Self::NotFound,
        Self::Foreign,
        Self::Removed,
        Self::Changed,
        Self::Held,
        Self::NewerData,
        Self::Undecodable,
        Self::InboxFull,
        Self::MessageIdReused,
        Self::RequestIdReused,
        Self::MessageIdExpired,
        Self::TooLarge,
        Self::EditRefused,
        Self::Refused,
        Self::Invalid,
        Self::Unavailable,
        Self::Unknown,
        Self::Replaced,
        Self::TakenAway,
        Self::Corrupt,
        Self::Damaged,
        Self::Overloaded,
    ];

    /// What the caller should do about it.
    pub fn advice(self) -> Advice {
        match self {
            Self::Busy
            | Self::Unconfirmed
            | Self::TimedOut
            | Self::InboxFull
            | Self::Held
            | Self::Unavailable
            | Self::Overloaded => Advice::Retry,
            Self::Unknown => Advice::RetryAs,
            Self::TakenElsewhere | Self::Closing | Self::SessionEnded | Self::Replaced => {
                Advice::Leave
            }
            Self::Superseded | Self::Cancelled | Self::DoneBefore => Advice::Ignore,
            Self::AlreadyLoaded
            | Self::NotFound
            | Self::Foreign
            | Self::NewerData
            | Self::Removed
            | Self::Changed
            | Self::Undecodable
            | Self::MessageIdReused
            | Self::RequestIdReused
            | Self::MessageIdExpired
            | Self::TooLarge
            | Self::EditRefused
            | Self::Refused
            | Self::Invalid
            | Self::TakenAway
            | Self::Corrupt
            | Self::Damaged => Advice::Fix,
        }
    }
}

impl Error {
    /// An error of this kind.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), key: None, id: None, source: None }
    }

    /// The same once more for another caller, without the cause.
    pub(crate) fn again(&self) -> Self {
        Self {
            kind: self.kind,
            message: self.message.clone(),
            key: self.key.clone(),
            id: self.id.clone(),
            source: None,
        }
    }

    /// The same about a profile.
    pub(crate) fn about(mut self, key: &ProfileKey) -> Self {
        self.key.get_or_insert_with(|| key.clone());
        self
    }

    /// The same about a message that was to be sent.
    pub(crate) fn of_message(self, id: &MessageId) -> Self {
        Self { id: Some(Box::new(CallId::Message(id.clone()))), ..self }
    }

    /// The same about an operator's edit.
    pub(crate) fn of_operation(self, operation: Uuid) -> Self {
        Self { id: Some(Box::new(CallId::Operation(operation))), ..self }
    }

    /// The same with its cause.
    pub(crate) fn caused_by(
        mut self,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// Which case it is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The profile that it is about, if it is about one.
    pub fn key(&self) -> Option<&ProfileKey> {
        self.key.as_ref()
    }

    /// The identity of the message that could not be sent, or perhaps was:
    /// [`crate::ProfileStore::send_message_as`] with it sends the message once, however often it is
    /// repeated. None for other calls.
    pub fn message_id(&self) -> Option<&MessageId> {
        match self.id.as_deref()? {
            CallId::Message(id) => Some(id),
            CallId::Operation(_) => None,
        }
    }

    /// The identity of the operator's edit that failed: [`crate::Operator::edit_as`] with it makes
    /// the edit once, however often it is repeated, and answers what became of it. None for other
    /// calls.
    pub fn operation(&self) -> Option<Uuid> {
        match self.id.as_deref()? {
            CallId::Operation(operation) => Some(*operation),
            CallId::Message(_) => None,
        }
    }

    /// What the caller should do about it.
    pub fn advice(&self) -> Advice {
        self.kind.advice()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(key) = &self.key {
            write!(f, ": profile=`{key}`")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<InvalidName> for Error {
    fn from(invalid: InvalidName) -> Self {
        Self::new(ErrorKind::Invalid, invalid.to_string())
    }
}

impl From<Unstorable> for Error {
    fn from(wrong: Unstorable) -> Self {
        let kind = if wrong.problem.is_size() { ErrorKind::TooLarge } else { ErrorKind::Invalid };
        Self::new(kind, format!("it cannot be stored: {wrong}")).caused_by(wrong)
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let (kind, message) = match &error {
            StoreError::Unavailable { .. } => {
                (ErrorKind::Unavailable, "the store cannot be used at the moment")
            }
            StoreError::Indeterminate { .. } => {
                (ErrorKind::Unknown, "whether the call took effect is not known")
            }
            StoreError::Corrupt { .. } => {
                (ErrorKind::Corrupt, "the store's contents cannot be understood")
            }
            StoreError::Damaged { key, version } => {
                let message = format!(
                    "the stored value is damaged; roll the profile back to an earlier version \
                     (`profilestore history` lists them): version=`{version}`"
                );
                let key = key.clone();
                return Self::new(ErrorKind::Damaged, message).about(&key).caused_by(error);
            }
            StoreError::Replaced { .. } => {
                (ErrorKind::Replaced, "the store's contents were replaced by a backup")
            }
            StoreError::TakenAway { .. } => (
                ErrorKind::TakenAway,
                "the store's files were deleted, moved or overwritten; nothing is saved any more",
            ),
            StoreError::Invalid { .. } => (ErrorKind::Invalid, "the store refused the call"),
            StoreError::Conflict(conflict) => match conflict.kind {
                ConflictKind::Epoch => (ErrorKind::SessionEnded, "the session is over"),
                ConflictKind::InboxFull => (
                    ErrorKind::InboxFull,
                    "the inbox is full; nothing was dropped, send again later",
                ),
                ConflictKind::MessageIdReused => (
                    ErrorKind::MessageIdReused,
                    "the message id was used before with another content",
                ),
                ConflictKind::CommitIdReused => (
                    ErrorKind::RequestIdReused,
                    "the identity of this request was used before for another one; nothing was \
                     done now",
                ),
                ConflictKind::MessageIdExpired => (
                    ErrorKind::MessageIdExpired,
                    "the message id's time is more than 30 days ago or more than a day ahead",
                ),
                ConflictKind::MessageSeen => (
                    ErrorKind::DoneBefore,
                    "a message of this id and content was sent before; nothing was done now",
                ),
                ConflictKind::Hosted => (
                    ErrorKind::Unknown,
                    "the game server is no longer hosted by this process; what it asked for takes \
                        effect once, however often it is asked for",
                ),
                ConflictKind::Aborted => (
                    ErrorKind::TimedOut,
                    "the call had been called off before, and never takes effect",
                ),
                ConflictKind::VersionGone => (ErrorKind::NotFound, "there is no such version"),
                _ => (
                    ErrorKind::Unavailable,
                    "another caller changed the profile at the same moment",
                ),
            },
        };
        Self::new(kind, message).caused_by(error)
    }
}

impl From<RecordError> for Error {
    fn from(error: RecordError) -> Self {
        match error {
            RecordError::Unstorable(wrong) => wrong.into(),
            RecordError::RecordTooLarge { .. } => {
                Self::new(ErrorKind::TooLarge, "the profile is too large to be stored")
                    .caused_by(error)
            }
            _ => Self::new(ErrorKind::Corrupt, "the stored value cannot be read").caused_by(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The source is asked, since no code can list the variants of an enum.
    #[test]
    fn the_list_of_kinds_is_complete() {
        let source = include_str!("error.rs");
        let body =
            source.split("pub enum ErrorKind {").nth(1).unwrap().split("\n}").next().unwrap();
        let declared: BTreeSet<String> = body
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with('/'))
            .filter_map(|line| line.strip_suffix(','))
            .map(str::to_owned)
            .collect();
        let listed: BTreeSet<String> =
            ErrorKind::ALL.iter().map(|kind| format!("{kind:?}")).collect();
        assert_eq!(declared, listed);
        assert_eq!(listed.len(), ErrorKind::ALL.len(), "none twice");
    }
}
