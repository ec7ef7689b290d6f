//! What a caller may be allowed to do.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a key may be used for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[non_exhaustive]
pub enum Scope {
    /// All of the others, the keys and the members.
    #[serde(rename = "admin")]
    Admin,
    /// The audit log.
    #[serde(rename = "audit:read")]
    AuditRead,
    /// Edits of many profiles at once.
    #[serde(rename = "edits:bulk")]
    EditsBulk,
    /// Edits of one profile.
    #[serde(rename = "edits:single")]
    EditsSingle,
    /// Rolling back, and pinning versions.
    #[serde(rename = "history:restore")]
    HistoryRestore,
    /// Sending messages.
    #[serde(rename = "messages:send")]
    MessagesSend,
    /// `/metrics`.
    #[serde(rename = "metrics:read")]
    MetricsRead,
    /// Reading profiles, their history, their messages and who holds them.
    #[serde(rename = "profiles:read")]
    ProfilesRead,
    /// Writing and removing profiles, and ending sessions.
    #[serde(rename = "profiles:write")]
    ProfilesWrite,
    /// Ending sessions.
    #[serde(rename = "sessions:end")]
    SessionsEnd,
    /// Holding sessions: what a game server does over `/v1/connect`.
    #[serde(rename = "sessions:hold")]
    SessionsHold,
    /// Erasing users.
    #[serde(rename = "users:erase")]
    UsersErase,
    /// Taking out all that is stored of a user.
    #[serde(rename = "users:export")]
    UsersExport,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 13] = [
        Self::Admin,
        Self::AuditRead,
        Self::EditsBulk,
        Self::EditsSingle,
        Self::HistoryRestore,
        Self::MessagesSend,
        Self::MetricsRead,
        Self::ProfilesRead,
        Self::ProfilesWrite,
        Self::SessionsEnd,
        Self::SessionsHold,
        Self::UsersErase,
        Self::UsersExport,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::AuditRead => "audit:read",
            Self::EditsBulk => "edits:bulk",
            Self::EditsSingle => "edits:single",
            Self::HistoryRestore => "history:restore",
            Self::MessagesSend => "messages:send",
            Self::MetricsRead => "metrics:read",
            Self::ProfilesRead => "profiles:read",
            Self::ProfilesWrite => "profiles:write",
            Self::SessionsEnd => "sessions:end",
            Self::SessionsHold => "sessions:hold",
            Self::UsersErase => "users:erase",
            Self::UsersExport => "users:export",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str).join(", ");
            format!("there is no such scope; there are {all}: scope=`{text}`")
        })
    }
}
