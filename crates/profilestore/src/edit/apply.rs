//! An edit applied to data by the program's own type.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use serde_json::Value;

use super::request::{EditRequest, Effect, swallowed};
use crate::{
    audit::AuditEntry,
    data::{Codec, Data, encode_for_save},
    error::Error,
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
    let json = |data: &dyn Data| data.to_json().map_err(|wrong| wrong.to_string());
    let Effect { before, after, aside } = request.apply(&json(data)?)?;
    let asked = aside.write(&after)?;
    let edited = codec.decode(&asked).map_err(|error| with_cause(&error))?;
    // What the program's type makes of it is what will be stored.
    let came: Value =
        serde_json::from_str(json(&*edited)?.get()).map_err(|error| error.to_string())?;
    if let Some(path) = swallowed(&before, &after, &came) {
        return Err(format!("the program's data type does not keep it: path=`{path}`"));
    }
    encode_for_save(&*edited, meta, codec, false).map_err(|error| with_cause(&error))?;
    Ok((edited, request.done(key, &before, &came, &aside)))
}

fn with_cause(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
