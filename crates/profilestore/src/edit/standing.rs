//! Edits that stand: what a bulk edit leaves behind for the profiles that begin later.
//!
//! Those of one store are a list under one key of the reserved store, its registry. The commit that
//! changes the list raises the key's epoch, and a commit that creates a profile checks the epoch of
//! the list that it went by. So no profile begins under a list that is out of date, without a
//! message between servers, and a profile that exists is never held up.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, value::to_raw_value};
use uuid::Uuid;

use super::{Edit, EditScope, request::EditRequest};
use crate::{
    audit::Attribution,
    data_store::{
        Cause, Change, DataStore, DataStoreExt, KeyFilter, KeyQuery, KeyState, NewValue, Returning,
    },
    error::{Error, ErrorKind, Result},
    key::{ProfileKey, RESERVED_STORE},
    ownership,
    record::{Foreign, Stored},
};

/// How many edits may stand in one store.
pub const MAX_STANDING_EDITS: usize = 32;

/// How long the list of them may be, in bytes of JSON: 256 KiB.
pub const MAX_STANDING_BYTES: usize = 256 << 10;

/// The scope of [`RESERVED_STORE`] in which the registries are, one key a store.
const SCOPE: &str = "standing";

/// The form of a list. One with a higher number was written by a newer version.
const FORM: u32 = 1;

/// How many registries are read at once.
const PAGE: usize = 64;

/// An edit that every new profile gets when it is first loaded. See
/// [`crate::operator::BulkEdit::new_too`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StandingEdit {
    /// The bulk edit that left it. Undoing that ends it.
    pub operation: Uuid,
    /// In whose name, and why.
    #[serde(flatten)]
    pub by: Attribution,
    /// Which profiles it is for.
    #[serde(flatten)]
    pub profiles: EditScope,
    /// What it does: an [`Edit`] as JSON. One that a newer version of the library left may have
    /// steps that this one does not know.
    pub edit: Value,
}

/// The edits that stand in a store, as they were read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Registry {
    pub(crate) key: ProfileKey,
    pub(crate) epoch: u64,
    version: u64,
    lease_revision: u64,
    pub(crate) edits: Vec<StandingEdit>,
}

#[derive(Serialize, Deserialize)]
struct StoredList {
    v: u32,
    edits: Vec<StandingEdit>,
}

impl StandingEdit {
    pub(crate) fn new(
        operation: Uuid,
        by: Attribution,
        profiles: EditScope,
        edit: &Edit,
    ) -> Result<Self> {
        let edit = serde_json::to_value(edit).map_err(|error| {
            Error::new(ErrorKind::Invalid, "the edit is no JSON").caused_by(error)
        })?;
        Ok(Self { operation, by, profiles, edit })
    }

    /// The edit as one of many; or why it cannot be read.
    pub(crate) fn request(&self) -> Result<EditRequest, String> {
        let edit = serde_json::from_value(self.edit.clone()).map_err(|error| {
            format!("this server cannot read the edit, it may be of an older version: {error}")
        })?;
        EditRequest::new(self.operation, edit, self.by.clone(), true)
            .map_err(|error| error.to_string())
    }

    /// Whether a profile with this key gets the edit when it begins.
    pub fn is_for(&self, key: &ProfileKey) -> bool {
        // It has no search: see `Plan::check`.
        let EditScope { store, scope, prefix, filter: _ } = &self.profiles;
        store == key.store()
            && scope.as_ref().is_none_or(|scope| scope == key.scope())
            && prefix.as_ref().is_none_or(|prefix| key.key().starts_with(prefix))
    }
}

impl Registry {
    /// Where a store's list is.
    pub(crate) fn key_of(store: &str) -> ProfileKey {
        ProfileKey::new(RESERVED_STORE, SCOPE, store).expect("a store's name is a valid key")
    }

    /// What a state of the key holds, which was read with its value.
    pub(crate) fn of(state: KeyState) -> Result<Self> {
        let damaged = |why: String| {
            Error::new(
                ErrorKind::Corrupt,
                format!(
                    "the list of standing edits cannot be read, or is of a newer version: {why}"
                ),
            )
            .about(&state.key)
        };
        let edits = match &state.value {
            None => Vec::new(),
            Some(bytes) => {
                let value = match Stored::decode(bytes) {
                    Ok(Stored::Foreign(foreign)) => foreign.value,
                    Ok(_) => return Err(damaged("it is something else".into())),
                    Err(error) => return Err(damaged(error.to_string())),
                };
                let list: StoredList = serde_json::from_str(value.get())
                    .map_err(|error| damaged(error.to_string()))?;
                if list.v > FORM {
                    return Err(damaged(format!("its form is {}", list.v)));
                }
                list.edits
            }
        };
        let KeyState { key, epoch, version, lease_revision, .. } = state;
        Ok(Self { key, epoch, version, lease_revision, edits })
    }

    /// The same without edits, for when they cannot be read.
    pub(crate) fn unread(state: &KeyState) -> Self {
        let KeyState { key, epoch, version, lease_revision, .. } = state.clone();
        Self { key, epoch, version, lease_revision, edits: Vec::new() }
    }

    /// What a commit carries that goes by this list.
    pub(crate) fn check(&self) -> Change {
        Change::Check { key: self.key.clone(), epoch: self.epoch }
    }

    pub(crate) fn stands(&self, operation: Uuid) -> bool {
        self.edits.iter().any(|standing| standing.operation == operation)
    }

    /// The changes that make `edits` the list, in `author`'s name. Fails with
    /// [`ErrorKind::TooLarge`] on one that is too long.
    pub(crate) fn replaced(&self, edits: Vec<StandingEdit>, author: &str) -> Result<Vec<Change>> {
        let count = edits.len();
        let list = StoredList { v: FORM, edits };
        let value = to_raw_value(&list).map_err(|error| {
            Error::new(ErrorKind::Invalid, "the standing edits are no JSON").caused_by(error)
        })?;
        let bytes = value.get().len();
        if count > MAX_STANDING_EDITS || bytes > MAX_STANDING_BYTES {
            let message = format!(
                "too many edits stand in this store, undo some: edits=`{count}` limit=`{MAX_STANDING_EDITS}` bytes=`{bytes}` \
                 limit=`{MAX_STANDING_BYTES}`"
            );
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        let value = Stored::Foreign(Foreign { user_ids: Vec::new(), metadata: Map::new(), value })
            .encode()?;
        Ok(vec![
            Change::Write {
                key: self.key.clone(),
                epoch: self.epoch,
                version: self.version,
                value: NewValue::Bytes(value),
                user_ids: Vec::new(),
                cause: Cause::Set,
                author: author.to_owned(),
                keep_previous: true,
                seal: false,
                imported: None,
            },
            ownership::stamped(&self.key, self.lease_revision),
        ])
    }
}

/// The edits that stand, of one store or of all, oldest first within a store. Fails with
/// [`ErrorKind::Corrupt`] on a list that cannot be read, otherwise as reading the store does.
pub async fn standing_edits(store: &dyn DataStore, of: Option<&str>) -> Result<Vec<StandingEdit>> {
    let returning = Returning { value: true, inbox_unless: None };
    if let Some(of) = of {
        let key = ProfileKey::new(RESERVED_STORE, SCOPE, of)?;
        return Ok(Registry::of(store.read_one(&key, returning).await?.1)?.edits);
    }
    let mut query = KeyQuery {
        store: Some(RESERVED_STORE.to_owned()),
        scope: Some(SCOPE.to_owned()),
        filter: KeyFilter::All,
        after: None,
        limit: PAGE,
    };
    let mut edits = Vec::new();
    loop {
        let keys: Vec<ProfileKey> =
            store.keys(&query).await?.into_iter().map(|state| state.key).collect();
        for state in store.read(&keys, returning).await?.states {
            edits.extend(Registry::of(state)?.edits);
        }
        if keys.len() < PAGE {
            return Ok(edits);
        }
        query.after = keys.last().cloned();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(n: u128, value: &str) -> StandingEdit {
        let edit = Edit::new().set("/motd", value.into()).unwrap();
        StandingEdit::new(Uuid::from_u128(n), Attribution::new("ann"), EditScope::all("S"), &edit)
            .unwrap()
    }

    fn registry() -> Registry {
        Registry::of(KeyState::absent(Registry::key_of("S"))).unwrap()
    }

    #[test]
    fn a_list_is_read_as_it_was_written_and_is_bounded_in_number_and_bytes() {
        let list = vec![standing(1, "a"), standing(2, "b")];
        let changes = registry().replaced(list.clone(), "ann").unwrap();
        let [
            Change::Write { value: NewValue::Bytes(bytes), .. },
            Change::Lease { raise_epoch: true, .. },
        ] = &changes[..]
        else {
            panic!("{changes:?}")
        };
        let state =
            KeyState { value: Some(bytes.clone()), ..KeyState::absent(Registry::key_of("S")) };
        assert_eq!(Registry::of(state).unwrap().edits, list);

        let many = |count: usize, value: &str| {
            (0..count as u128).map(|n| standing(n, value)).collect::<Vec<_>>()
        };
        assert!(registry().replaced(many(MAX_STANDING_EDITS, "a"), "ann").is_ok());
        let too_many = registry().replaced(many(MAX_STANDING_EDITS + 1, "a"), "ann").unwrap_err();
        assert_eq!(too_many.kind(), ErrorKind::TooLarge);
        let too_long = registry().replaced(many(5, &"x".repeat(60 << 10)), "ann").unwrap_err();
        assert_eq!(too_long.kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn an_edit_is_for_the_profiles_of_its_store_scope_and_prefix() {
        let key = |store, scope, key| ProfileKey::new(store, scope, key).unwrap();
        let narrow = StandingEdit {
            profiles: EditScope {
                scope: Some("one".into()),
                prefix: Some("user-".into()),
                ..EditScope::all("S")
            },
            ..standing(1, "a")
        };
        assert!(narrow.is_for(&key("S", "one", "user-7")));
        for other in
            [key("T", "one", "user-7"), key("S", "two", "user-7"), key("S", "one", "guest-7")]
        {
            assert!(!narrow.is_for(&other), "{other}");
        }
        assert!(standing(1, "a").is_for(&key("S", "two", "guest-7")));
    }
}
