//! Operators' edits of a live profile: they come as messages under reserved names, and the session
//! applies them itself.
//!
//! Before any handler sees the data with a message offered, an edit is applied to the data's JSON
//! and decoded by the program's own type. Effect, removal of the message and outcome in the audit
//! log are in the same save. An edit that does not fit leaves the data alone, and its outcome says
//! why. A profile that begins gets the edits that stand in the same way.

use std::sync::Arc;

use super::Session;
use crate::{
    audit::{AuditEntry, AuditOutcome},
    data::Data,
    data_store::{Change, StoredMessage},
    edit::{apply::edited, request::EditRequest},
    session::collect::Collect,
};

impl Session {
    /// Applies the edits that wait, and has them saved.
    pub(crate) fn apply_edits(self: &Arc<Self>) {
        if self.remote.is_some() {
            // Its game server is told of them, and applies them to what it has.
            return;
        }
        let waiting: Vec<StoredMessage> = self
            .known
            .lock()
            .inbox
            .iter()
            .filter(|message| message.id.is_edit())
            .cloned()
            .collect();
        if waiting.is_empty() {
            return;
        }
        if let Err(error) = self.collect(Collect::Edit) {
            // They wait for data that can be stored.
            tracing::warn!(key = %self.key, %error, "operators' edits have to wait");
            return;
        }
        let before = self.live.data();
        let mut settled = Vec::new();
        for message in &waiting {
            let waits = || self.known.lock().has_message(message.index);
            let apply = |data: &dyn Data| match EditRequest::read(&self.key, message) {
                Ok(request) => edited(
                    &request,
                    &self.key,
                    data,
                    &*self.codec,
                    &self.live.meta(),
                    &self.link.job_id,
                ),
                Err(entry) => (None, *entry),
            };
            settled.extend(self.live.edit_for_operator(message.index, waits, apply).ok());
        }
        let data = self.live.data();
        if !Arc::ptr_eq(&before, &data)
            && let Some(keeper) = self.keeper()
        {
            keeper.edited(&*data);
        }
        for entry in settled.iter().filter(|entry| entry.outcome == AuditOutcome::Done) {
            self.signals.on_edited.each(|listener| listener(entry, &*data));
        }
        if !settled.is_empty() {
            metrics::counter!("profilestore_edits_applied_total").increment(settled.len() as u64);
            self.queue_save();
        }
    }

    /// The change that books the outcome of an edit, which makes `version` of the profile.
    pub(super) fn outcome(&self, entry: &AuditEntry, version: Option<u64>) -> Option<Change> {
        let entry = match version {
            Some(version) if entry.outcome == AuditOutcome::Done => {
                entry.clone().detail("version", version)
            }
            _ => entry.clone(),
        };
        entry
            .change_at(1)
            .inspect_err(|error| {
                tracing::error!(key = %self.key, %error, "the outcome of an edit cannot be booked")
            })
            .ok()
    }
}
