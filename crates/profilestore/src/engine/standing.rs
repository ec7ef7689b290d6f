//! Standing edits: entering one into its store's list, and ending it. [`super::newborn`] applies
//! them.

use uuid::Uuid;

use super::{Engine, rewrite::Plan};
use crate::{
    audit::{Attribution, AuditEntry, AuditOutcome, entry_key},
    data_store::Returning,
    edit::{
        bulk::{self, What, stands_in},
        request::entry_key_of,
        standing::{Registry, StandingEdit},
    },
    error::{Error, ErrorKind, Result},
};

const VALUE: Returning = Returning { value: true, inbox_unless: None };

/// The actions in the audit log.
const STAND: &str = "stand";
const END: &str = "end standing";

impl Engine {
    /// Enters a bulk edit into its store's list, once, however often the operation is resumed.
    pub(super) async fn stand(&self, bulk: &bulk::Plan) -> Result<()> {
        let What::Edit(profiles, edit) = &bulk.what else { return Ok(()) };
        if !bulk.new_too {
            return Ok(());
        }
        let standing = StandingEdit::new(bulk.operation, bulk.by.clone(), profiles.clone(), edit)?;
        let plan = |_| async {
            let (registry, mark) = self.registry_and_mark(&profiles.store, bulk.operation).await?;
            match mark.map(|mark| mark.outcome) {
                None => {}
                Some(AuditOutcome::Refused { why }) => {
                    return Err(Error::new(ErrorKind::Invalid, why));
                }
                Some(_) => return Ok(Plan::Done(())),
            }
            let mut edits = registry.edits.clone();
            edits.push(standing.clone());
            let mut changes = registry.replaced(edits, &bulk.by.author)?;
            changes.push(
                AuditEntry::new(bulk.operation, STAND, vec![registry.key.clone()], bulk.by.clone())
                    .change()?,
            );
            Ok(Plan::Commit(changes, Returning::HEAD, ()))
        };
        self.rewrite(&Registry::key_of(&profiles.store), plan).await.map(drop)
    }

    /// Ends what the operation `of` left standing, if it did. One that has not come to that yet
    /// never will.
    pub(super) async fn end_standing(
        &self,
        of: Uuid,
        operation: Uuid,
        by: &Attribution,
    ) -> Result<()> {
        let (_, header) = self.link.read_settled(&entry_key(of, &[]), VALUE).await?;
        let Some(store) = AuditEntry::of(&header)?.as_ref().and_then(stands_in) else {
            return Ok(());
        };
        let plan = |_| async {
            let (registry, mark) = self.registry_and_mark(&store, of).await?;
            let at = vec![registry.key.clone()];
            let changes = if mark.is_none() {
                let refused = AuditOutcome::Refused {
                    why: format!("the operation was undone: operation=`{of}` by=`{operation}`"),
                };
                vec![AuditEntry::new(of, STAND, at, by.clone()).outcome(refused).change()?]
            } else if registry.stands(of) {
                let left = registry
                    .edits
                    .iter()
                    .filter(|standing| standing.operation != of)
                    .cloned()
                    .collect();
                let mut changes = registry.replaced(left, &by.author)?;
                changes.push(
                    AuditEntry::new(operation, END, at, by.clone())
                        .detail("ends", of.to_string())
                        .change()?,
                );
                changes
            } else {
                return Ok(Plan::Done(()));
            };
            Ok(Plan::Commit(changes, Returning::HEAD, ()))
        };
        self.rewrite(&Registry::key_of(&store), plan).await.map(drop)
    }

    /// A store's list, and the entry that says that an operation was entered into it.
    async fn registry_and_mark(
        &self,
        store: &str,
        operation: Uuid,
    ) -> Result<(Registry, Option<AuditEntry>)> {
        let key = Registry::key_of(store);
        let mark = entry_key_of(operation, &key);
        let mut states = self.link.read_all(&[key, mark], VALUE).await?.states.into_iter();
        match (states.next(), states.next()) {
            (Some(registry), Some(mark)) => Ok((Registry::of(registry)?, AuditEntry::of(&mark)?)),
            _ => Err(Error::new(ErrorKind::Corrupt, "the store gave no answer for the keys")),
        }
    }
}
