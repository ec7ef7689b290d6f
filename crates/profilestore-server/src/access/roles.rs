//! Roles, and what each allows.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::keys::Scope;

/// What a member is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Looks and changes nothing.
    Viewer,
    /// Helps players: sends, edits, frees profiles.
    Support,
    /// Changes many profiles, and rolls back.
    Operator,
    /// Takes out and erases what is stored of users.
    Privacy,
    /// Everything, but holding sessions as a game server does.
    Admin,
}

impl Role {
    pub(crate) const ALL: [Self; 5] =
        [Self::Viewer, Self::Support, Self::Operator, Self::Privacy, Self::Admin];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Support => "support",
            Self::Operator => "operator",
            Self::Privacy => "privacy",
            Self::Admin => "admin",
        }
    }

    /// What it allows.
    pub(crate) fn scopes(self) -> &'static [Scope] {
        match self {
            Self::Viewer => &[Scope::ProfilesRead, Scope::AuditRead],
            Self::Support => &[
                Scope::ProfilesRead,
                Scope::AuditRead,
                Scope::MessagesSend,
                Scope::EditsSingle,
                Scope::SessionsEnd,
            ],
            Self::Operator => &[
                Scope::ProfilesRead,
                Scope::AuditRead,
                Scope::MessagesSend,
                Scope::EditsSingle,
                Scope::SessionsEnd,
                Scope::ProfilesWrite,
                Scope::HistoryRestore,
                Scope::EditsBulk,
                Scope::MetricsRead,
            ],
            Self::Privacy => {
                &[Scope::ProfilesRead, Scope::AuditRead, Scope::UsersExport, Scope::UsersErase]
            }
            Self::Admin => &[
                Scope::Admin,
                Scope::AuditRead,
                Scope::EditsBulk,
                Scope::EditsSingle,
                Scope::HistoryRestore,
                Scope::MessagesSend,
                Scope::MetricsRead,
                Scope::ProfilesRead,
                Scope::ProfilesWrite,
                Scope::SessionsEnd,
                Scope::UsersErase,
                Scope::UsersExport,
            ],
        }
    }

    /// Whether it allows changes, so that a log-in of it can be armed.
    pub(crate) fn changes_things(self) -> bool {
        self != Self::Viewer
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_may_do_everything_but_hold_sessions() {
        for scope in Scope::ALL {
            let may = Role::Admin.scopes().contains(&scope);
            assert_eq!(may, scope != Scope::SessionsHold, "{scope}");
        }
    }

    #[test]
    fn no_role_but_admin_reaches_keys_and_members() {
        for role in Role::ALL {
            assert_eq!(role.scopes().contains(&Scope::Admin), role == Role::Admin, "{role}");
            assert_eq!(serde_json::to_value(role).unwrap(), role.as_str());
        }
    }
}
