//! Standing edits at work: entering one into its store's list, ending it, and applying what stands to a profile that begins.
//!
//! The list is read once and kept. A start that creates a profile has its commit check the list's epoch; when that fails, the list is
//! read anew. Starts of profiles that exist do none of this.

use std::sync::Arc;

use uuid::Uuid;

use super::{Engine, MAX_RACES, calls::too_many_races, edit::edit_lost_race};
use crate::{
    audit::{Attribution, AuditEntry, AuditOutcome, entry_key},
    data::{Codec, Data},
    data_store::{Change, DataStoreExt, Incarnation, KeyState, Returning, StoreError},
    edit::{
        apply::edited,
        bulk::{BulkEdit, What},
        request::book_of,
        standing::{Registry, StandingEdit},
    },
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    record::Record,
};

const VALUE: Returning = Returning { value: true, inbox_unless: None };

/// The actions in the audit log.
const STAND: &str = "stand";
const END: &str = "end standing";

/// A list that was read, and from which contents of the store.
#[derive(Debug)]
pub(super) struct Cached {
    registry: Arc<Registry>,
    incarnation: Incarnation,
}

/// What stands for a profile that begins.
pub(super) struct Newborn {
    /// Its data, edited.
    pub(super) data: Arc<dyn Data>,
    /// What belongs into the commit that creates it: the check of the list, and the outcome of each edit.
    pub(super) changes: Vec<Change>,
    pub(super) applied: u64,
}

impl Engine {
    /// The list of a store, as far as this server knows. A commit that goes by it checks its epoch. One that cannot be read is told to the
    /// listeners of errors and counts as empty: it must not keep players out.
    async fn registry(&self, store: &str) -> Result<Arc<Registry>, StoreError> {
        let incarnation = self.lease.lock().incarnation;
        if let Some(cached) = self.standing.lock().get(store).filter(|cached| cached.incarnation == incarnation) {
            return Ok(cached.registry.clone());
        }
        let (_, state) = self.store.read_one(&Registry::key_of(store), VALUE).await?;
        let registry = Registry::of(state.clone()).unwrap_or_else(|error| {
            tracing::error!(%error, "profiles begin without the edits that stand");
            self.health.error(&error.to_string(), Some(&state.key), self.env.now(), &self.settings());
            Registry::unread(&state)
        });
        let registry = Arc::new(registry);
        self.standing.lock().insert(store.to_owned(), Cached { registry: registry.clone(), incarnation });
        Ok(registry)
    }

    /// Forgets a store's list: it may be out of date.
    pub(super) fn forget_standing(&self, store: &str) {
        self.standing.lock().remove(store);
    }

    /// Applies what stands to a profile that is about to be created with this data, where this state was read with its inbox. An edit
    /// that does not fit is left out and booked as refused. One that waits in the inbox is left to the session; that it is booked as
    /// pending alone does not say so: it may have been erased with an earlier life of the profile.
    pub(super) async fn newborn(
        &self,
        state: &KeyState,
        record: &Record,
        data: &Arc<dyn Data>,
        codec: &dyn Codec,
    ) -> Result<Newborn, StandingError> {
        let key = &state.key;
        let registry = self.registry(key.store()).await?;
        let mut newborn = Newborn { data: data.clone(), changes: vec![registry.check()], applied: 0 };
        let edits: Vec<&StandingEdit> = registry.edits.iter().filter(|standing| standing.is_for(key)).collect();
        if edits.is_empty() {
            return Ok(newborn);
        }
        let books: Vec<ProfileKey> = edits.iter().map(|standing| book_of(standing.operation, key)).collect();
        let books = self.store.read(&books, VALUE).await?.states;
        if books.len() != edits.len() {
            return Err(Error::new(ErrorKind::Corrupt, "the store gave no answer for a key").into());
        }
        for (standing, book) in edits.into_iter().zip(&books) {
            if state.inbox.iter().flatten().any(|message| message.id.operation() == Some(standing.operation)) {
                continue;
            }
            let (after, entry) = match standing.request() {
                Ok(request) => edited(&request, key, &*newborn.data, codec, record, &self.job_id),
                Err(why) => {
                    let entry = AuditEntry::new(standing.operation, "edit", vec![key.clone()], standing.by.clone());
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

    /// Enters a bulk edit into its store's list, once, however often the operation is resumed.
    pub(super) async fn stand(&self, bulk: &BulkEdit) -> Result<()> {
        let What::Edit(profiles, edit) = &bulk.what else { return Ok(()) };
        if !bulk.new_too {
            return Ok(());
        }
        let standing = StandingEdit::new(bulk.operation, bulk.by.clone(), profiles.clone(), edit)?;
        for _ in 0..MAX_RACES {
            let contents = self.contents();
            let (registry, mark) = self.registry_and_mark(&profiles.store, bulk.operation).await?;
            match mark.map(|mark| mark.outcome) {
                None => {}
                Some(AuditOutcome::Refused { why }) => return Err(Error::new(ErrorKind::Invalid, why)),
                Some(_) => return Ok(()),
            }
            let mut edits = registry.edits.clone();
            edits.push(standing.clone());
            let mut changes = registry.replaced(edits, &bulk.by.author)?;
            changes.push(AuditEntry::new(bulk.operation, STAND, vec![registry.key.clone()], bulk.by.clone()).change()?);
            if self.changed(contents, changes).await? {
                return Ok(());
            }
        }
        Err(too_many_races())
    }

    /// Ends what the operation `of` left standing, if it did. One that has not come to that yet never will.
    pub(super) async fn end_standing(&self, of: Uuid, operation: Uuid, by: &Attribution) -> Result<()> {
        let (_, header) = self.read_settled(&entry_key(of, &[]), VALUE).await?;
        let Some(store) = AuditEntry::of(&header)?.as_ref().and_then(BulkEdit::stands_in) else { return Ok(()) };
        for _ in 0..MAX_RACES {
            let contents = self.contents();
            let (registry, mark) = self.registry_and_mark(&store, of).await?;
            let at = vec![registry.key.clone()];
            let changes = if mark.is_none() {
                let refused =
                    AuditOutcome::Refused { why: format!("the operation was undone: operation=`{of}` by=`{operation}`") };
                vec![AuditEntry::new(of, STAND, at, by.clone()).outcome(refused).change()?]
            } else if registry.stands(of) {
                let left = registry.edits.iter().filter(|standing| standing.operation != of).cloned().collect();
                let mut changes = registry.replaced(left, &by.author)?;
                changes.push(AuditEntry::new(operation, END, at, by.clone()).detail("ends", of.to_string()).change()?);
                changes
            } else {
                return Ok(());
            };
            if self.changed(contents, changes).await? {
                return Ok(());
            }
        }
        Err(too_many_races())
    }

    /// A store's list, and the entry that says that an operation was entered into it.
    async fn registry_and_mark(&self, store: &str, operation: Uuid) -> Result<(Registry, Option<AuditEntry>)> {
        let key = Registry::key_of(store);
        let mark = book_of(operation, &key);
        let mut states = self.read_all(&[key, mark], VALUE).await?.states.into_iter();
        match (states.next(), states.next()) {
            (Some(registry), Some(mark)) => Ok((Registry::of(registry)?, AuditEntry::of(&mark)?)),
            _ => Err(Error::new(ErrorKind::Corrupt, "the store gave no answer for the keys")),
        }
    }

    /// Commits; false when somebody else was faster.
    async fn changed(&self, contents: Incarnation, changes: Vec<Change>) -> Result<bool> {
        let deadline = self.deadline();
        match self.settle(&self.commit_in(contents, changes, Returning::HEAD), deadline).await {
            Ok(_) => Ok(true),
            Err(error) if edit_lost_race(&error) || self.overtaken(&error).await => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

/// Why it is not known what stands.
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
