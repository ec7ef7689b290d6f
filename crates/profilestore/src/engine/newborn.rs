//! Profiles that begin: the standing edits of their store are applied to their first data.
//!
//! The list is read once and kept. A start that creates a profile has its commit check the list's
//! epoch; when that fails, the list is read anew. Starts of profiles that exist do none of this.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use crate::{
    audit::{AuditEntry, AuditOutcome},
    data::{Codec, Data},
    data_store::{Change, DataStoreExt, Incarnation, KeyState, Returning, StoreError},
    edit::{
        apply::edited,
        request::entry_key_of,
        standing::{Registry, StandingEdit},
    },
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    link::Link,
    record::Record,
};

const VALUE: Returning = Returning { value: true, inbox_unless: None };

/// A list that was read, and from which contents of the store.
#[derive(Debug)]
struct Cached {
    registry: Arc<Registry>,
    incarnation: Incarnation,
}

/// A profile that begins, with the standing edits applied.
pub(super) struct Newborn {
    /// Its data, edited.
    pub(super) data: Arc<dyn Data>,
    /// What belongs into the commit that creates it: the check of the list, and the outcome of each
    /// edit.
    pub(super) changes: Vec<Change>,
    pub(super) applied: u64,
}

/// The lists of standing edits, by store, as far as this server has read them.
#[derive(Default)]
pub(crate) struct StandingLists(Mutex<BTreeMap<String, Cached>>);

impl StandingLists {
    /// Forgets a store's list: it may be out of date.
    pub(super) fn forget(&self, store: &str) {
        self.0.lock().remove(store);
    }

    /// The list of a store, as far as this server knows. A commit that goes by it checks its epoch.
    /// One that cannot be read is told to the listeners of errors and counts as empty: it must not
    /// keep players out.
    async fn registry(&self, link: &Link, store: &str) -> Result<Arc<Registry>, StoreError> {
        let incarnation = link.incarnation();
        if let Some(cached) =
            self.0.lock().get(store).filter(|cached| cached.incarnation == incarnation)
        {
            return Ok(cached.registry.clone());
        }
        let key = Registry::key_of(store);
        let unread = |state: &KeyState, error: Error| {
            tracing::error!(%error, "profiles begin without the edits that stand");
            let (now, settings) = (link.env.now(), link.settings());
            link.health.error(&error.to_string(), Some(&state.key), now, &settings);
            Registry::unread(state)
        };
        let registry = match link.store.read_one(&key, VALUE).await {
            Ok((_, state)) => {
                Registry::of(state.clone()).unwrap_or_else(|error| unread(&state, error))
            }
            Err(error @ StoreError::Damaged { .. }) => {
                let (_, state) = link.store.read_one(&key, Returning::HEAD).await?;
                unread(&state, error.into())
            }
            Err(error) => return Err(error),
        };
        let registry = Arc::new(registry);
        self.0.lock().insert(store.to_owned(), Cached { registry: registry.clone(), incarnation });
        Ok(registry)
    }

    /// Applies the standing edits to a profile that is about to be created with this data, where
    /// this state was read with its inbox. An edit that does not fit is left out and booked as
    /// refused. One that waits in the inbox is left to the session; that it is booked as pending
    /// alone does not say so: it may have been erased with an earlier life of the profile.
    pub(super) async fn newborn(
        &self,
        link: &Link,
        state: &KeyState,
        record: &Record,
        data: &Arc<dyn Data>,
        codec: &dyn Codec,
    ) -> Result<Newborn, StandingError> {
        let key = &state.key;
        let registry = self.registry(link, key.store()).await?;
        let mut newborn =
            Newborn { data: data.clone(), changes: vec![registry.check()], applied: 0 };
        let edits: Vec<&StandingEdit> =
            registry.edits.iter().filter(|standing| standing.is_for(key)).collect();
        if edits.is_empty() {
            return Ok(newborn);
        }
        let books: Vec<ProfileKey> =
            edits.iter().map(|standing| entry_key_of(standing.operation, key)).collect();
        let books = link.store.read(&books, VALUE).await?.states;
        if books.len() != edits.len() {
            return Err(Error::new(ErrorKind::Corrupt, "the store gave no answer for a key").into());
        }
        for (standing, book) in edits.into_iter().zip(&books) {
            if state
                .inbox
                .iter()
                .flatten()
                .any(|message| message.id.operation() == Some(standing.operation))
            {
                continue;
            }
            let (after, entry) = match standing.request() {
                Ok(request) => edited(&request, key, &*newborn.data, codec, record, &link.job_id),
                Err(why) => {
                    let entry = AuditEntry::new(
                        standing.operation,
                        "edit",
                        vec![key.clone()],
                        standing.by.clone(),
                    );
                    (None, entry.outcome(AuditOutcome::Refused { why }))
                }
            };
            let mut entry = entry.detail("new", true);
            if let Some(after) = after {
                newborn.data = after;
                newborn.applied += 1;
                entry = entry.detail("version", state.version + 1);
            }
            // In the place of what an earlier life of the profile left there.
            newborn.changes.push(entry.change_at(book.version)?);
        }
        Ok(newborn)
    }
}

/// Why the standing edits are not known.
pub(super) enum StandingError {
    Store(StoreError),
    Other(Error),
}

impl From<StoreError> for StandingError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Error> for StandingError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}
