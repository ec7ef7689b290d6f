//! An edit applied to data by the program's own type.

use std::sync::Arc;

use super::request::{EditRequest, Edited};
use crate::{
    audit::AuditEntry,
    data::{Codec, Data},
    key::ProfileKey,
    record::Record,
};

/// The data as the edit wants it, and what to book. None: it stays as it is.
pub(crate) fn edited(
    request: &EditRequest,
    key: &ProfileKey,
    data: &dyn Data,
    codec: &dyn Codec,
    meta: &Record,
    job_id: &str,
) -> (Option<Arc<dyn Data>>, AuditEntry) {
    match request.apply_typed(key, data, codec, meta) {
        Ok(Edited { data, entry, .. }) => (Some(data), entry.detail("held_by", job_id)),
        Err(why) => {
            tracing::warn!(%key, by = %request.by.author, %why, "an operator's edit was refused");
            (None, request.refused(key, why).detail("held_by", job_id))
        }
    }
}
