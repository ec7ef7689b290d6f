//! What is told about a session: where it is, why it is saved for the last time, how it ended.

use std::sync::Arc;

use serde::Serialize;

use crate::{audit::AuditEntry, data_store::Holder};

/// Which server a session is on. Specification: `Session`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionInfo {
    /// Specification: `PlaceId`.
    pub place_id: i64,
    /// Specification: `JobId`.
    pub job_id: String,
    /// As a holder of another kind has written itself, see [`SessionInfo::written`].
    #[serde(skip)]
    pub(crate) written: Option<serde_json::Value>,
}

impl SessionInfo {
    /// What a holder that is no game server of this library has written as itself, such as
    /// `[123, 456, "session"]`. It may have a job id that is no text.
    pub fn written(&self) -> Option<&serde_json::Value> {
        self.written.as_ref()
    }
}

impl From<&Holder> for SessionInfo {
    fn from(holder: &Holder) -> Self {
        let Holder { place_id, job_id, document, .. } = holder;
        Self { place_id: *place_id, job_id: job_id.clone(), written: document.clone() }
    }
}

/// Why a session's last save comes. Specification: the argument of `OnLastSave`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LastSave {
    /// The program ended the session.
    Manual,
    /// Another server asked for the profile, or a later start on this server takes the session's
    /// place ([`crate::StartOptions::supersede`]).
    External,
    /// This game server is shutting down.
    Shutdown,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEnd {
    /// The program ended it.
    Manual,
    /// Another server asked for the profile and gets it.
    External,
    /// This game server is shutting down.
    Shutdown,
    /// A later start on this server takes its place ([`crate::StartOptions::supersede`]), and gets
    /// the profile with all that this session changed.
    Superseded,
    /// An operator ended it: by a rollback, a removal, an erasure, or on purpose
    /// ([`crate::Operator`]).
    Operator {
        /// The entry in the audit log: what was done ([`AuditEntry::action`]), in whose name and
        /// why ([`AuditEntry::by`]). That of an `end-session` is still pending.
        entry: Arc<AuditEntry>,
        /// The last save comes, as at every end. False: there was none, and what the session had
        /// not saved is lost, since the operator replaced the data or did not ask.
        saves: bool,
    },
    /// The profile was stolen, removed, overwritten, or taken while this server could not reach the
    /// store. There was no last save.
    Lost,
}

impl SessionEnd {
    /// True when the last save comes. False: what the session had not saved is lost.
    pub fn saves(&self) -> bool {
        match self {
            Self::Manual | Self::External | Self::Shutdown | Self::Superseded => true,
            Self::Operator { saves, .. } => *saves,
            Self::Lost => false,
        }
    }
}
