//! A document put together again.

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value, value::RawValue};

use super::{
    CREATED, DATA, LAST_UPDATE, LOAD_COUNT, META, Origin, REQUEST, ROBLOX_META, Record, SESSION,
    Stored, TAGS, UPDATES, USER_IDS, load_count, updates,
};
use crate::data_store::{Cause, Holder, KeyState, Request, StoredMessage, VersionInfo};

/// The document of a version.
///
/// `live` is the key's state, with its inbox, if the version is the current one: it says who holds
/// the profile and what is waiting. An earlier version is shown as it was imported, or written as a
/// document, or else without session and messages, which are not versioned.
pub fn compose(stored: &Stored, info: &VersionInfo, live: Option<&KeyState>) -> Box<RawValue> {
    // A restored version brings its record along, but what its origin says was not written with it.
    let imported = matches!(info.cause, Cause::Import | Cause::Set);
    let document = match stored {
        Stored::Foreign(foreign) => return foreign.value.clone(),
        Stored::MessagesOnly(messages) => {
            let origin = messages.origin.as_deref().filter(|_| imported);
            let mut rest = origin.map_or_else(Map::new, |origin| origin.document.clone());
            rest.insert(UPDATES.into(), global_updates(origin, live));
            rest.extend(messages.extra.clone());
            Composed { data: None, rest }
        }
        Stored::Profile(record) => {
            let origin = record.origin.as_deref().filter(|_| imported);
            Composed { data: Some(&record.data), rest: profile(record, origin, info, live) }
        }
    };
    serde_json::value::to_raw_value(&document).expect("a map with text keys is JSON")
}

/// The document of a key that was never written but has messages waiting.
pub(crate) fn compose_inbox(live: &KeyState) -> Box<RawValue> {
    let rest = Map::from_iter([(UPDATES.to_owned(), global_updates(None, Some(live)))]);
    serde_json::value::to_raw_value(&Composed { data: None, rest })
        .expect("a map with text keys is JSON")
}

/// Some of the messages that wait for a key, as the `GlobalUpdates` of a document states them.
#[cfg(feature = "transfer")]
pub(crate) fn compose_messages(last_message: u64, some: &[StoredMessage]) -> Box<RawValue> {
    serde_json::value::to_raw_value(&updates_of(last_message, some, false))
        .expect("a value is JSON")
}

/// The data goes through as text: it is neither parsed nor copied twice.
struct Composed<'a> {
    data: Option<&'a RawValue>,
    rest: Map<String, Value>,
}

impl Serialize for Composed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(data) = self.data {
            map.serialize_entry(DATA, data)?;
        }
        for (name, value) in &self.rest {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

fn profile(
    record: &Record,
    origin: Option<&Origin>,
    info: &VersionInfo,
    live: Option<&KeyState>,
) -> Map<String, Value> {
    let lacks =
        |name: &str| origin.is_some_and(|origin| origin.absent.iter().any(|absent| absent == name));
    let mut document = Map::new();
    document.insert(META.into(), meta_data(record, origin, info, live).into());
    document.insert(UPDATES.into(), global_updates(origin, live));
    if !lacks(USER_IDS) {
        document.insert(USER_IDS.into(), record.user_ids.clone().into());
    }
    if !lacks(ROBLOX_META) {
        document.insert(ROBLOX_META.into(), record.roblox_metadata.clone().into());
    }
    if let Some(origin) = origin {
        let kept = origin.document.iter().filter(|(name, _)| *name != UPDATES);
        document.extend(kept.map(|(name, value)| (name.clone(), value.clone())));
        let had_updates = origin.document.contains_key(UPDATES);
        let is_empty = updates(&document[UPDATES])
            .is_ok_and(|(last, messages)| last == 0 && messages.is_empty());
        if !had_updates && is_empty {
            document.shift_remove(UPDATES);
        }
    }
    document.extend(record.extra.clone());
    document
}

fn meta_data(
    record: &Record,
    origin: Option<&Origin>,
    info: &VersionInfo,
    live: Option<&KeyState>,
) -> Map<String, Value> {
    let lacks =
        |name: &str| origin.is_some_and(|origin| origin.absent.iter().any(|absent| absent == name));
    let mut meta = Map::new();
    if !lacks(CREATED) {
        meta.insert(CREATED.into(), record.created_s.clone().into());
    }
    if !lacks(TAGS) {
        meta.insert(TAGS.into(), record.meta_tags.clone().into());
    }
    match origin {
        Some(origin) => meta.extend(origin.meta.clone()),
        None => {
            meta.insert(LAST_UPDATE.into(), info.written_ms.div_euclid(1000).into());
            meta.insert(LOAD_COUNT.into(), info.load_count.into());
        }
    }
    if let Some(live) = live {
        live_meta_data(&mut meta, live);
    }
    meta.extend(record.extra_meta.clone());
    meta
}

/// A holder as `ActiveSession` shows it.
pub(crate) fn session_of(holder: &Holder) -> Value {
    let written = || {
        Value::Array(vec![
            holder.place_id.into(),
            holder.job_id.clone().into(),
            holder.session.clone().into(),
        ])
    };
    holder.document.clone().unwrap_or_else(written)
}

/// A request as `ForceLoadSession` shows it.
pub(crate) fn request_of(request: &Request) -> Value {
    let written = || Value::Array(vec![request.place_id.into(), request.job_id.clone().into()]);
    request.document.clone().unwrap_or_else(written)
}

/// Overwrites what the key's state says otherwise.
fn live_meta_data(meta: &mut Map<String, Value>, live: &KeyState) {
    let lease = &live.lease;
    if load_count(meta) != lease.load_count {
        meta.insert(LOAD_COUNT.into(), lease.load_count.into());
    }
    if let Some(renewed_s) = live.holder_server.as_ref().map(|row| row.renewed_ms.div_euclid(1000))
    {
        let said = meta.get(LAST_UPDATE).and_then(Value::as_f64);
        #[expect(clippy::cast_precision_loss, reason = "seconds are far below the limit")]
        if said.is_none_or(|said| said < renewed_s as f64) {
            meta.insert(LAST_UPDATE.into(), renewed_s.into());
        }
    }
    let session = lease.holder.as_ref().map(session_of);
    let request = lease.request.as_ref().map(request_of);
    for (name, value) in [(SESSION, session), (REQUEST, request)] {
        match value {
            Some(value) => {
                meta.insert(name.into(), value);
            }
            // A null that was there stays: it means the same.
            None if meta.get(name).is_some_and(|said| !said.is_null()) => {
                meta.shift_remove(name);
            }
            None => {}
        }
    }
}

/// The `GlobalUpdates` member: what the import said as long as it still holds, else the inbox.
fn global_updates(origin: Option<&Origin>, live: Option<&KeyState>) -> Value {
    let said = origin.and_then(|origin| origin.document.get(UPDATES));
    let Some(live) = live else {
        return said
            .cloned()
            .unwrap_or_else(|| Value::Array(vec![0.into(), Value::Array(Vec::new())]));
    };
    let inbox = live.inbox.as_deref().unwrap_or_default();
    if let Some(said) = said
        && still_holds(said, live.last_message, inbox)
    {
        return said.clone();
    }
    // A store that was in the form of ProfileService stays in it.
    updates_of(live.last_message, inbox, said.is_some_and(is_in_four))
}

/// Messages as a document states them. Revisions and locks exist only in ProfileService.
fn updates_of(last_message: u64, inbox: &[StoredMessage], in_four: bool) -> Value {
    let in_four = in_four || inbox.iter().any(|message| message.locked || message.revision > 1);
    let entries = inbox.iter().map(|message| {
        let payload = serde_json::from_slice(&message.payload).unwrap_or(Value::Null);
        Value::Array(match in_four {
            true => {
                vec![message.index.into(), message.revision.into(), message.locked.into(), payload]
            }
            false => vec![message.index.into(), payload],
        })
    });
    Value::Array(vec![last_message.into(), entries.collect()])
}

fn still_holds(said: &Value, last_message: u64, inbox: &[StoredMessage]) -> bool {
    updates(said).is_ok_and(|(last, messages)| {
        let same = |(said, message): (&super::Update, &StoredMessage)| {
            said.index == message.index
                && said.revision == message.revision
                && said.locked == message.locked
                && serde_json::from_slice::<Value>(&message.payload)
                    .is_ok_and(|payload| payload == said.payload)
        };
        last == last_message
            && messages.len() == inbox.len()
            && messages.iter().zip(inbox).all(same)
    })
}

fn is_in_four(updates: &Value) -> bool {
    let entries = updates.get(1).and_then(Value::as_array);
    entries.is_some_and(|entries| {
        entries.iter().any(|entry| entry.as_array().is_some_and(|entry| entry.len() == 4))
    })
}
