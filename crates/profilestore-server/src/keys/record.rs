//! What is known about a key, and what a new one must be.

use std::collections::BTreeSet;

use profilestore::ProfileKey;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{KeyError, KeyRefusal, MAX_NAME_BYTES, Scope};

/// What is known about a key. The secret is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[non_exhaustive]
pub struct KeyRecord {
    /// Its ID, the part of the key that is no secret.
    pub id: String,
    /// Its name, for people: the author of what is done with it.
    pub name: String,
    /// What it may be used for.
    pub scopes: BTreeSet<Scope>,
    /// Only profiles of this store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store: Option<String>,
    /// Only profiles whose key begins so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// When it was made, Unix milliseconds.
    pub created_ms: i64,
    /// From when on it is refused, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<i64>,
    /// Since when it is revoked, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_ms: Option<i64>,
    /// When it was used last, to the minute, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_ms: Option<i64>,
}

impl KeyRecord {
    /// Whether it may be used for this, on some profile at least.
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }

    /// Whether it reaches this profile.
    pub fn reaches(&self, key: &ProfileKey) -> bool {
        self.store.as_ref().is_none_or(|store| store == key.store())
            && self.prefix.as_ref().is_none_or(|prefix| key.key().starts_with(&**prefix))
    }

    /// Whether it is narrowed to some profiles.
    pub fn is_narrowed(&self) -> bool {
        self.store.is_some() || self.prefix.is_some()
    }

    /// Whether it is refused at this time, and why.
    pub fn refusal(&self, now_ms: i64) -> Option<KeyRefusal> {
        if self.revoked_ms.is_some() {
            Some(KeyRefusal::Revoked)
        } else if self.expires_ms.is_some_and(|expires| expires <= now_ms) {
            Some(KeyRefusal::Expired)
        } else {
            None
        }
    }
}

/// A key to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    /// Its name, for people: 1 to 100 bytes.
    pub name: String,
    /// What it may be used for: at least one scope.
    pub scopes: BTreeSet<Scope>,
    /// Only profiles of this store.
    #[serde(default)]
    pub store: Option<String>,
    /// Only profiles whose key begins so. Needs `store`.
    #[serde(default)]
    pub prefix: Option<String>,
    /// From when on it is refused, Unix milliseconds.
    #[serde(default)]
    pub expires_ms: Option<i64>,
}

impl NewKey {
    pub(super) fn check(&self) -> Result<(), KeyError> {
        let wrong = |why: &str| Err(KeyError::Invalid(why.to_owned()));
        if self.name.is_empty() || self.name.len() > MAX_NAME_BYTES {
            return wrong("a key's name is 1 to 100 bytes long");
        }
        if self.name.chars().any(char::is_control) {
            return wrong("a key's name has no control characters");
        }
        if self.scopes.is_empty() {
            return wrong("a key needs at least one scope");
        }
        if self.prefix.is_some() && self.store.is_none() {
            return wrong("a prefix narrows a key within a store; name the store too");
        }
        if self.store.is_some() && self.scopes.contains(&Scope::Admin) {
            return wrong("an admin's key reaches everything; it cannot be narrowed to a store");
        }
        let store = self.store.as_deref().unwrap_or("any");
        let prefix = self.prefix.as_deref().unwrap_or("any");
        ProfileKey::new(store, "global", prefix)
            .map(drop)
            .map_err(|error| KeyError::Invalid(error.to_string()))
    }
}
