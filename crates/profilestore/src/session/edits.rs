//! Operators' edits of a live profile: they come as messages under reserved names, and the session applies them itself.
//!
//! Before any handler sees the data with a message offered, an edit is applied to the data's JSON and decoded by the program's own
//! type. Effect, removal of the message and outcome in the audit log are in the same save. An edit that does not fit leaves the data
//! alone, and its outcome says why. A profile that begins gets the edits that stand in the same way.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use serde_json::{Value, value::to_raw_value};

use super::Session;
use crate::{
    audit::{AuditEntry, AuditOutcome},
    data::{Codec, Data, encode},
    data_store::{Change, StoredMessage},
    edit::request::{EditRequest, Effect, swallowed},
    error::Error,
    keeper::HandOver,
    key::ProfileKey,
    record::Record,
};

impl Session {
    /// Applies the edits that wait, and has them saved.
    pub(crate) fn apply_edits(self: &Arc<Self>) {
        let waiting: Vec<StoredMessage> =
            self.known.lock().inbox.iter().filter(|message| message.id.is_edit()).cloned().collect();
        if waiting.is_empty() {
            return;
        }
        if let Err(error) = self.hand_over(HandOver::Edit) {
            // They wait for data that can be stored.
            tracing::warn!(key = %self.key, %error, "operators' edits have to wait");
            return;
        }
        let before = self.live.data();
        let mut applied = 0;
        for message in &waiting {
            let waits = || self.known.lock().has_message(message.index);
            let apply = |data: &dyn Data| match EditRequest::read(&self.key, message) {
                Ok(request) => edited(&request, &self.key, data, &*self.codec, &self.live.meta(), &self.engine.job_id),
                Err(entry) => (None, *entry),
            };
            applied += u64::from(self.live.edit_for_operator(message.index, waits, apply).is_ok());
        }
        let data = self.live.data();
        if !Arc::ptr_eq(&before, &data)
            && let Some(keeper) = self.keeper()
        {
            keeper.edited(&*data);
        }
        if applied > 0 {
            metrics::counter!("profilestore_edits_applied_total").increment(applied);
            self.queue_save();
        }
    }

    /// The change that books the outcome of an edit, which makes `version` of the profile.
    pub(super) fn outcome(&self, entry: &AuditEntry, version: Option<u64>) -> Option<Change> {
        let entry = match version {
            Some(version) if entry.outcome == AuditOutcome::Done => entry.clone().detail("version", version),
            _ => entry.clone(),
        };
        entry
            .change_at(1)
            .inspect_err(|error| tracing::error!(key = %self.key, %error, "the outcome of an edit cannot be booked"))
            .ok()
    }
}

/// The data as the edit wants it, and what to book. None: it stays as it is.
pub(crate) fn edited(
    request: &EditRequest,
    key: &ProfileKey,
    data: &dyn Data,
    codec: &dyn Codec,
    meta: &Record,
    job_id: &str,
) -> (Option<Arc<dyn Data>>, AuditEntry) {
    // Serialiser and decoder are the program's.
    let tried = catch_unwind(AssertUnwindSafe(|| try_edit(request, key, data, codec, meta)))
        .unwrap_or_else(|_| Err("the program panicked while its data was edited".to_owned()));
    match tried {
        Ok((data, entry)) => (Some(data), entry.detail("held_by", job_id)),
        Err(why) => {
            tracing::warn!(%key, by = %request.by.author, why, "an operator's edit was refused");
            (None, request.refused(key, why).detail("held_by", job_id))
        }
    }
}

fn try_edit(
    request: &EditRequest,
    key: &ProfileKey,
    data: &dyn Data,
    codec: &dyn Codec,
    meta: &Record,
) -> Result<(Arc<dyn Data>, AuditEntry), String> {
    let json = |data: &dyn Data| data.to_json().map_err(|error| format!("the data cannot be stored as JSON: {error}"));
    let Effect { before, after } = request.apply(&json(data)?)?;
    let asked = to_raw_value(&after).map_err(|error| error.to_string())?;
    let edited = codec.decode(&asked).map_err(|error| with_cause(&error))?;
    // What the program's type makes of it is what will be stored.
    let came: Value = serde_json::from_str(json(&*edited)?.get()).map_err(|error| error.to_string())?;
    if let Some(path) = swallowed(&before, &after, &came) {
        return Err(format!("the program's data type does not keep it: path=`{path}`"));
    }
    encode(&*edited, meta).map_err(|error| with_cause(&error))?;
    Ok((edited, request.done(key, &before, &came)))
}

fn with_cause(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
