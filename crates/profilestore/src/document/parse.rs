//! A document taken apart.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Number, Value, value::RawValue};
use uuid::Uuid;

use super::{
    CREATED, DATA, Document, LAST_UPDATE, LOAD_COUNT, MARKS, META, MessagesOnly, Origin, REQUEST,
    ROBLOX_META, Record, SESSION, Stored, Surroundings, TAGS, UPDATES, USER_IDS, Update,
    is_empty_table, kind, load_count, updates, whole,
};
use crate::{
    data_store::{
        Digest, Holder, LeaseState, MAX_MESSAGE_BYTES, MessageId, Request, RequestId, StoredMessage,
    },
    storable::{MAX_DATA_BYTES, check_metadata},
};

pub(super) fn parse(text: &RawValue, surroundings: Surroundings) -> Document {
    match table(text).and_then(|members| take_apart(members, &surroundings)) {
        Ok(document) => document,
        Err(why) => Document::foreign(text, surroundings, why),
    }
}

/// The members of a document, each as it was written.
type Members = BTreeMap<String, Box<RawValue>>;

fn table(text: &RawValue) -> Result<Members, String> {
    let not_a_table = |found| Err(format!("the value is not a table: found=`{found}`"));
    match text.get().as_bytes().first() {
        Some(b'{') => {
            serde_json::from_str(text.get()).map_err(|e| format!("the value cannot be read: {e}"))
        }
        Some(b'[') if is_empty_list(text) => Ok(Members::new()),
        Some(b'[') => Err("the value is a list, not a profile".into()),
        Some(b'"') => not_a_table("a string"),
        Some(b't' | b'f') => not_a_table("a boolean"),
        Some(b'n') => not_a_table("nothing"),
        _ => not_a_table("a number"),
    }
}

fn take_apart(mut members: Members, around: &Surroundings) -> Result<Document, String> {
    let data = members.remove(DATA);
    let meta = members.remove(META).map(|text| value(META, &text)).transpose()?;
    let mut members = members
        .iter()
        .map(|(name, text)| value(name, text).map(|value| (name.clone(), value)))
        .collect::<Result<Map<_, _>, _>>()?;
    let mut origin = Origin::default();
    let (last_message, messages) = match members.get(UPDATES) {
        Some(value) => messages(value, around.written_ms)?,
        None => (0, Vec::new()),
    };

    let (stored, lease) = match (data, meta) {
        (None, None) if members.contains_key(UPDATES) => {
            let said = members.get(USER_IDS).and_then(user_ids);
            let user_ids = around.user_ids.clone().or(said).unwrap_or_default();
            let said = members.get(ROBLOX_META).and_then(as_table);
            let metadata = around.metadata.clone().or(said).unwrap_or_default();
            keep(
                &mut members,
                &mut origin.document,
                &[UPDATES, MARKS[0], MARKS[1], USER_IDS, ROBLOX_META],
            );
            let messages =
                MessagesOnly { user_ids, metadata, extra: members, origin: Some(Box::new(origin)) };
            (Stored::MessagesOnly(messages), LeaseState::default())
        }
        (None, _) => return Err("Data is missing".into()),
        (_, None) => return Err("MetaData is missing".into()),
        (Some(data), Some(meta)) => {
            let (record, lease) = profile(data, meta, members, origin, around)?;
            (Stored::Profile(record), lease)
        }
    };
    Ok(Document { stored, foreign: None, lease, messages, last_message })
}

fn profile(
    data: Box<RawValue>,
    meta: Value,
    mut members: Map<String, Value>,
    mut origin: Origin,
    around: &Surroundings,
) -> Result<(Record, LeaseState), String> {
    let data = data_table(data)?;
    let mut meta = match meta {
        Value::Object(meta) => meta,
        meta if is_empty_table(&meta) => Map::new(),
        other => return Err(format!("MetaData is not a table: found=`{}`", kind(&other))),
    };
    let mut record =
        Record { data, ..Record::new(around.created_ms.div_euclid(1000), empty_data()) };

    // What the store says about the key wins, because a server that saves the profile says so of
    // the key.
    let said = members.get(USER_IDS).and_then(user_ids);
    record.user_ids = around.user_ids.clone().or_else(|| said.clone()).unwrap_or_default();
    record.user_ids.retain(|id| *id >= 0);
    settle(
        USER_IDS,
        &mut members,
        &mut origin.document,
        &mut origin.absent,
        said.as_ref() == Some(&record.user_ids),
    );
    let said =
        members.get(ROBLOX_META).and_then(as_table).filter(|said| check_metadata(said).is_ok());
    record.roblox_metadata = around.metadata.clone().or_else(|| said.clone()).unwrap_or_default();
    settle(
        ROBLOX_META,
        &mut members,
        &mut origin.document,
        &mut origin.absent,
        said.as_ref() == Some(&record.roblox_metadata),
    );
    keep(&mut members, &mut origin.document, &[UPDATES, MARKS[0], MARKS[1]]);
    record.extra = members;

    let said = meta.get(TAGS).and_then(as_table);
    settle(TAGS, &mut meta, &mut origin.meta, &mut origin.absent, said.is_some());
    record.meta_tags = said.unwrap_or_default();
    let said = meta.get(CREATED).and_then(Value::as_number).cloned();
    settle(CREATED, &mut meta, &mut origin.meta, &mut origin.absent, said.is_some());
    record.created_s = said.unwrap_or(record.created_s);
    keep(&mut meta, &mut origin.meta, &[LAST_UPDATE, LOAD_COUNT, SESSION, REQUEST]);
    record.extra_meta = meta;

    let lease = lease(&origin.meta, around.written_ms);
    record.origin = Some(Box::new(origin));
    Ok((record, lease))
}

/// Removes a member that the record restates, and remembers what the record cannot say: that it was
/// absent, or otherwise.
fn settle(
    name: &str,
    members: &mut Map<String, Value>,
    kept: &mut Map<String, Value>,
    absent: &mut Vec<String>,
    restated: bool,
) {
    match members.shift_remove(name) {
        Some(_) if restated => {}
        Some(value) => {
            kept.insert(name.to_owned(), value);
        }
        None => absent.push(name.to_owned()),
    }
}

/// Moves members over as they stand.
fn keep(members: &mut Map<String, Value>, kept: &mut Map<String, Value>, names: &[&str]) {
    for name in names {
        if let Some((name, value)) = members.shift_remove_entry(*name) {
            kept.insert(name, value);
        }
    }
}

fn lease(meta: &Map<String, Value>, written_ms: i64) -> LeaseState {
    let said = |name| meta.get(name).filter(|value: &&Value| !value.is_null());
    LeaseState {
        load_count: load_count(meta),
        holder: said(SESSION).map(|document| Holder {
            server: None,
            place_id: element(document, 0).and_then(Value::as_i64).unwrap_or(0),
            job_id: element(document, 1).map(as_text).unwrap_or_default(),
            session: element(document, 2).map(as_text).unwrap_or_default(),
            since_ms: written_ms,
            last_update_ms: said(LAST_UPDATE).and_then(Value::as_number).and_then(milliseconds),
            document: Some(document.clone()),
        }),
        request: said(REQUEST).map(|document| Request {
            id: RequestId(request_id(document, written_ms)),
            server: None,
            place_id: element(document, 0).and_then(Value::as_i64).unwrap_or(0),
            job_id: element(document, 1).map(as_text).unwrap_or_default(),
            at_ms: written_ms,
            document: Some(document.clone()),
        }),
        offer: None,
    }
}

/// A request has no identity in a document: it gets one that the same document always gives.
fn request_id(document: &Value, written_ms: i64) -> Uuid {
    uuid::Builder::from_custom_bytes(Digest::of(format!("{written_ms} {document}").as_bytes()).0)
        .into_uuid()
}

fn element(value: &Value, at: usize) -> Option<&Value> {
    value.as_array().and_then(|list| list.get(at))
}

fn as_text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn milliseconds(seconds: &Number) -> Option<i64> {
    let whole = seconds.as_i64().map(|seconds| seconds.saturating_mul(1000));
    #[expect(clippy::cast_possible_truncation, reason = "a cast from a float saturates")]
    whole.or_else(|| seconds.as_f64().map(|seconds| (seconds * 1000.0) as i64))
}

/// The newest index ever given out, and the messages by ascending index.
pub(super) fn messages(
    value: &Value,
    written_ms: i64,
) -> Result<(u64, Vec<StoredMessage>), String> {
    let (last_message, updates) = updates(value)?;
    let messages = updates.into_iter().map(|update| stored_message(update, written_ms));
    Ok((last_message, messages.collect::<Result<_, _>>()?))
}

fn stored_message(update: Update, written_ms: i64) -> Result<StoredMessage, String> {
    let Update { index, revision, locked, payload } = update;
    let payload = serde_json::to_vec(&payload)
        .map_err(|e| format!("a message cannot be written: {e}: index=`{index}`"))?;
    if payload.len() > MAX_MESSAGE_BYTES {
        let size = payload.len();
        return Err(format!(
            "a message is too large: index=`{index}` size=`{size}` limit=`{MAX_MESSAGE_BYTES}`"
        ));
    }
    let id = MessageId::new(written_ms, &format!("import.{index}"))
        .ok_or("a message cannot be named")?;
    Ok(StoredMessage {
        index,
        id,
        payload: Bytes::from(payload),
        locked,
        revision,
        sent_ms: written_ms,
    })
}

/// The data: any Lua table. An empty list is taken for an empty table, as the data of a profile has
/// names.
fn data_table(data: Box<RawValue>) -> Result<Box<RawValue>, String> {
    if data.get().len() > MAX_DATA_BYTES {
        return Err(format!(
            "Data is too large: size=`{}` limit=`{MAX_DATA_BYTES}`",
            data.get().len()
        ));
    }
    match data.get().as_bytes().first() {
        Some(b'[') if is_empty_list(&data) => Ok(empty_data()),
        Some(b'{' | b'[') => Ok(data),
        _ => Err(format!(
            "Data is not a table: found=`{}`",
            value(DATA, &data).map_or("a number", |value| kind(&value))
        )),
    }
}

fn empty_data() -> Box<RawValue> {
    serde_json::value::to_raw_value(&Map::new()).expect("an empty map is JSON")
}

fn is_empty_list(text: &RawValue) -> bool {
    let inside = text.get().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inside.is_some_and(|inside| inside.bytes().all(|byte| byte.is_ascii_whitespace()))
}

fn value(name: &str, text: &RawValue) -> Result<Value, String> {
    serde_json::from_str(text.get()).map_err(|e| format!("{name} cannot be read: {e}"))
}

fn user_ids(value: &Value) -> Option<Vec<i64>> {
    match value {
        Value::Array(ids) => {
            ids.iter().map(|id| whole(id).and_then(|id| i64::try_from(id).ok())).collect()
        }
        value if is_empty_table(value) => Some(Vec::new()),
        _ => None,
    }
}

fn as_table(value: &Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(map) => Some(map.clone()),
        value if is_empty_table(value) => Some(Map::new()),
        _ => None,
    }
}
