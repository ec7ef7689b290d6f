//! One edit for many profiles, as a plan that is written down in the audit log before anything is
//! changed: a run that was broken off is resumed from there, and one that is complete can be undone
//! from what was booked profile by profile.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::{Edit, types::Types};
use crate::{
    audit::{Attribution, AuditEntry, AuditOutcome, entry_key},
    data_store::{DataStore, DataStoreExt, KeyFilter, KeyQuery, Returning},
    error::{Error, ErrorKind, Result},
    filter::Filter,
    key::{ProfileKey, RESERVED_STORE},
};

const EDIT_ALL: &str = "edit all";
const UNDO: &str = "undo";
const NEW_TOO: &str = "new_too";
const WHERE: &str = "where";

/// Which profiles an edit is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditScope {
    /// The store.
    pub store: String,
    /// Only this scope of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Only keys that begin with this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// Only profiles whose saved data matches. One that a server holds is edited by that server,
    /// whatever it has become there since; a test in the edit ([`Edit::test`]) is judged there.
    #[serde(default, rename = "where", skip_serializing_if = "Option::is_none")]
    pub filter: Option<Filter>,
}

/// An edit for many profiles, or the undoing of one. For [`crate::Operator::edit_all`].
#[derive(Debug, Clone)]
pub struct BulkEdit {
    operation: Uuid,
    what: What,
    new_too: bool,
    /// Who began it, if it is resumed.
    begun_by: Option<Attribution>,
    /// How long profiles that are held are waited for, once every other one is done. 60 s.
    pub patience: Duration,
}

/// A [`BulkEdit`] with the operator in whose name it is booked.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) operation: Uuid,
    pub(crate) by: Attribution,
    pub(crate) what: What,
    pub(crate) new_too: bool,
    pub(crate) patience: Duration,
    pub(crate) types: Types,
}

#[derive(Debug, Clone)]
pub(crate) enum What {
    Edit(EditScope, Edit),
    Undo(Uuid),
}

/// How far a bulk edit has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BulkProgress {
    /// Profiles that were looked at.
    pub passed: u64,
    /// Of those, the ones whose outcome is durable.
    pub settled: u64,
    /// Of those, the ones whose holder was sent the edit and has not answered yet.
    pub waiting: u64,
}

/// What a bulk edit did.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct BulkReport {
    /// Profiles that were edited by this run.
    pub done: u64,
    /// Of those, the ones that were as the edit wants them already.
    pub unchanged: u64,
    /// Of those, the ones that their holders edited while they were live.
    pub by_holders: u64,
    /// Profiles that had been settled before: by an earlier run of the same operation, or because
    /// they began while the edit stood ([`BulkEdit::new_too`]).
    pub before: u64,
    /// Of those, the ones that were refused then, and the ones that the edit did not mean.
    pub(crate) refused_before: u64,
    pub(crate) unmatched_before: u64,
    /// Profiles that the edit does not fit, each with the reason. Nothing was changed there. Those
    /// too of which the audit log's entry cannot be read: they are left as they are.
    pub refused: Vec<(ProfileKey, String)>,
    /// Profiles that the edit does not mean, because a test of it or the search does not match.
    pub unmatched: u64,
    /// Keys without a profile: removed ones, and those with only messages.
    pub skipped: u64,
    /// Profiles whose holder has not answered in time. The edit lies in their inboxes and takes
    /// effect once; resuming the operation tells.
    pub waiting: Vec<ProfileKey>,
}

impl BulkEdit {
    /// One edit for many profiles. `operation` is a fresh version 7 UUID
    /// ([`crate::env::Env::uuid`]).
    pub fn new(operation: Uuid, profiles: EditScope, edit: Edit) -> Self {
        Self::of(operation, What::Edit(profiles, edit))
    }

    fn of(operation: Uuid, what: What) -> Self {
        Self { operation, what, new_too: false, begun_by: None, patience: Duration::from_secs(60) }
    }

    /// Lets the edit stand: profiles that begin later get it too, each once, in the commit that
    /// creates them and before the program sees them, until the operation is undone
    /// ([`BulkEdit::undo`]). It begins to stand before the first profile is edited, so none is left
    /// out. A profile that it does not fit begins without it, which the audit log says. No other
    /// program needs to be told.
    ///
    /// New is a profile that a session creates, one that had been removed before included. One that
    /// is written without a session (`set`, an import, a rollback) is as it was written. A store
    /// has room for [`crate::operator::MAX_STANDING_EDITS`] of at most
    /// [`crate::operator::MAX_STANDING_BYTES`] together: the operation fails with
    /// [`ErrorKind::TooLarge`] otherwise, before anything is edited.
    ///
    /// Of no effect on what [`BulkEdit::undo`] makes.
    #[must_use]
    pub fn new_too(mut self) -> Self {
        self.new_too = matches!(self.what, What::Edit(..));
        self
    }

    /// Undoes the operation `of`, a bulk edit or a single one, profile by profile with what was
    /// booked there; see [`Edit::undo`]. An edit that stands ends first. `operation` is a fresh
    /// version 7 UUID.
    pub fn undo(operation: Uuid, of: Uuid) -> Self {
        Self::of(operation, What::Undo(of))
    }

    /// The operation that was begun under this identity and not finished. It stays booked in the
    /// name of the operator who began it. Fails with [`ErrorKind::NotFound`] when there is none,
    /// with [`ErrorKind::Invalid`] when it is complete.
    pub async fn resume(store: &dyn DataStore, operation: Uuid) -> Result<Self> {
        let (_, state) = store
            .read_one(&entry_key(operation, &[]), Returning { value: true, inbox_unless: None })
            .await?;
        let none = || {
            Error::new(
                ErrorKind::NotFound,
                format!("no such operation was begun: operation=`{operation}`"),
            )
        };
        let entry = AuditEntry::of(&state)?.ok_or_else(none)?;
        if entry.outcome != AuditOutcome::Pending {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("the operation is complete: operation=`{operation}`"),
            ));
        }
        let text = |name: &str| entry.details.get(name).and_then(Value::as_str).map(str::to_owned);
        let what = match entry.action.as_str() {
            UNDO => text("undoes").and_then(|of| of.parse().ok()).map(What::Undo),
            EDIT_ALL => text("store").and_then(|store| {
                let edit = serde_json::from_value(entry.details.get("edit")?.clone()).ok()?;
                let filter = match text(WHERE) {
                    Some(filter) => Some(filter.parse().ok()?),
                    None => None,
                };
                Some(What::Edit(
                    EditScope { store, scope: text("scope"), prefix: text("prefix"), filter },
                    edit,
                ))
            }),
            _ => None,
        };
        let what = what.ok_or_else(none)?;
        let new_too = stands_in(&entry).is_some();
        Ok(Self { new_too, begun_by: Some(entry.by), ..Self::of(operation, what) })
    }

    /// Its identity.
    pub fn operation(&self) -> Uuid {
        self.operation
    }

    /// What is to be done, in an operator's name, or in the name of the one who began it.
    pub(crate) fn plan(&self, by: &Attribution, types: Types) -> Plan {
        Plan {
            operation: self.operation,
            by: self.begun_by.as_ref().unwrap_or(by).clone(),
            what: self.what.clone(),
            new_too: self.new_too,
            patience: self.patience,
            types,
        }
    }
}

/// Whether an operation's own entry is that of an edit of many, or of its undoing. Other operations
/// of many profiles book an edit of one for each.
pub(crate) fn is_of_many(entry: &AuditEntry) -> bool {
    matches!(entry.action.as_str(), EDIT_ALL | UNDO)
}

/// In which store the operation with this entry of its own lets an edit stand, if it does.
pub(crate) fn stands_in(entry: &AuditEntry) -> Option<String> {
    let stands = entry.action == EDIT_ALL && entry.details.get(NEW_TOO) == Some(&Value::Bool(true));
    entry.details.get("store").filter(|_| stands)?.as_str().map(str::to_owned)
}

impl Plan {
    /// Whether it can be done at all.
    pub(crate) fn check(&self) -> Result<()> {
        self.by.check()?;
        match &self.what {
            What::Edit(profiles, edit) => {
                profiles.check()?;
                if self.new_too && profiles.filter.is_some() {
                    return Err(Error::new(
                        ErrorKind::Invalid,
                        "an edit that stands is for every new profile; it takes no search",
                    ));
                }
                edit.check()
            }
            What::Undo(_) => Ok(()),
        }
    }

    /// The operation's own entry, which says what it is about.
    pub(crate) fn entry(&self) -> Result<AuditEntry> {
        let action = if matches!(self.what, What::Undo(_)) { UNDO } else { EDIT_ALL };
        let entry = AuditEntry::new(self.operation, action, Vec::new(), self.by.clone())
            .outcome(AuditOutcome::Pending);
        Ok(match &self.what {
            What::Undo(of) => entry.detail("undoes", of.to_string()),
            What::Edit(EditScope { store, scope, prefix, filter }, edit) => {
                let edit = serde_json::to_value(edit).map_err(|error| {
                    Error::new(ErrorKind::Invalid, "the edit is no JSON").caused_by(error)
                })?;
                let named = [
                    ("store", Some(&**store)),
                    ("scope", scope.as_deref()),
                    ("prefix", prefix.as_deref()),
                    (WHERE, filter.as_ref().map(Filter::as_str)),
                ];
                let entry = entry.detail("edit", edit);
                let entry = if self.new_too { entry.detail(NEW_TOO, true) } else { entry };
                named
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, value?)))
                    .fold(entry, |entry, (name, value)| entry.detail(name, value))
            }
        })
    }
}

impl EditScope {
    /// All profiles of a store.
    pub fn all(store: &str) -> Self {
        Self { store: store.to_owned(), scope: None, prefix: None, filter: None }
    }

    fn check(&self) -> Result<()> {
        if self.store == RESERVED_STORE {
            return Err(Error::new(ErrorKind::Invalid, "the library keeps its own books there"));
        }
        Ok(ProfileKey::new(&self.store, self.scope.as_deref().unwrap_or("any"), "any").map(drop)?)
    }

    /// The first page of the profiles' keys.
    pub(crate) fn query(&self, limit: usize) -> KeyQuery {
        let filter = self.prefix.clone().map_or(KeyFilter::All, KeyFilter::Prefix);
        KeyQuery {
            store: Some(self.store.clone()),
            scope: self.scope.clone(),
            filter,
            after: None,
            limit,
        }
    }
}
