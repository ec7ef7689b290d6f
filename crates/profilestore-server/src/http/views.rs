//! What answers look like. Data stays the text that is stored: no number is read as a float.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use profilestore::{
    UserId,
    data_store::{Holder, KeyState, ServerRow, StoredMessage, VersionInfo},
    history::version_label,
};
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};
use utoipa::ToSchema;

use crate::problem::Problem;

/// A JSON answer.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(mut body) => {
            body.push(b'\n');
            let mut response = (status, Body::from(body)).into_response();
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(error) => {
            Problem::new("internal", format!("the answer is no JSON: {error}")).into_response()
        }
    }
}

/// The same with an ETag.
pub(crate) fn json_tagged(status: StatusCode, body: &impl Serialize, etag: &str) -> Response {
    let mut response = json(status, body);
    if let Ok(etag) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PageOf<T> {
    /// What was found; perhaps nothing although there is more.
    pub(crate) items: Vec<T>,
    /// For the next page. None: this was the last one.
    pub(crate) next_page_token: Option<String>,
}

/// Who holds a profile.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct HolderView {
    /// The name of the game server.
    pub(crate) job: String,
    /// Which game or part of it the server runs.
    pub(crate) place: i64,
    /// Since when, Unix milliseconds.
    pub(crate) since_ms: i64,
    /// `alive`, `silent` (late with its renewal), `dead`, or `unknown` (an imported session).
    pub(crate) server: &'static str,
    /// The game server that waits for the profile.
    pub(crate) asked_for_by: Option<String>,
}

impl HolderView {
    pub(crate) fn of(state: &KeyState, now_ms: i64) -> Option<Self> {
        let Holder { job_id, place_id, since_ms, .. } = state.lease.holder.as_ref()?;
        Some(Self {
            job: job_id.clone(),
            place: *place_id,
            since_ms: *since_ms,
            server: server_state(state.holder_server.as_ref(), now_ms),
            asked_for_by: state.lease.request.as_ref().map(|request| request.job_id.clone()),
        })
    }
}

pub(crate) fn server_state(row: Option<&ServerRow>, now_ms: i64) -> &'static str {
    match row {
        None => "unknown",
        Some(row) if row.dead => "dead",
        Some(row) if now_ms - row.renewed_ms > row.lease_ms => "silent",
        Some(_) => "alive",
    }
}

/// A profile, or an earlier version of it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProfileView<'a> {
    /// Its store.
    pub(crate) store: &'a str,
    /// The scope within the store.
    pub(crate) scope: &'a str,
    /// Its key.
    pub(crate) key: &'a str,
    /// Which version this is.
    pub(crate) version: u64,
    /// For If-Match. None for an earlier version.
    pub(crate) etag: Option<String>,
    /// The data, as the game stores it.
    #[schema(value_type = Value)]
    pub(crate) data: &'a RawValue,
    /// The users associated with it, by number or by name.
    #[schema(value_type = Vec<Value>)]
    pub(crate) user_ids: Vec<UserId>,
    /// The game's tags.
    #[schema(value_type = Object)]
    pub(crate) tags: &'a Map<String, Value>,
    /// The metadata of its key.
    #[schema(value_type = Object)]
    pub(crate) metadata: &'a Map<String, Value>,
    /// When the key was created, Unix milliseconds.
    pub(crate) created_ms: i64,
    /// When this version was stored, Unix milliseconds.
    pub(crate) stored_ms: i64,
    /// What wrote this version: start, save, end, set, restore, edit, import or transaction.
    pub(crate) cause: &'static str,
    /// Who wrote this version.
    pub(crate) author: &'a str,
    /// Who holds the profile now. What the holder has not saved yet is not in the data.
    pub(crate) held: Option<HolderView>,
    /// How many messages wait for it.
    pub(crate) messages_waiting: usize,
}

/// A profile in a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProfileRow {
    /// Its store.
    pub(crate) store: String,
    /// The scope within the store.
    pub(crate) scope: String,
    /// Its key.
    pub(crate) key: String,
    /// Its version.
    pub(crate) version: u64,
    /// When the key was created, Unix milliseconds.
    pub(crate) created_ms: i64,
    /// When the version was stored, Unix milliseconds.
    pub(crate) stored_ms: Option<i64>,
    /// The size of what is stored, in bytes.
    pub(crate) bytes: Option<u64>,
    /// Who wrote the version.
    pub(crate) author: Option<String>,
    /// How many messages wait for it, where `messages_waiting` was asked for. Null otherwise.
    pub(crate) messages_waiting: Option<u64>,
    /// Who holds it.
    pub(crate) held: Option<HolderView>,
}

impl ProfileRow {
    pub(crate) fn of(state: &KeyState, now_ms: i64) -> Self {
        let head = state.head.as_ref();
        Self {
            store: state.key.store().to_owned(),
            scope: state.key.scope().to_owned(),
            key: state.key.key().to_owned(),
            version: state.version,
            created_ms: state.created_ms,
            stored_ms: head.map(|head| head.stored_ms),
            bytes: head.map(|head| head.bytes),
            author: head.map(|head| head.author.clone()),
            messages_waiting: None,
            held: HolderView::of(state, now_ms),
        }
    }
}

/// One kept version, without its data.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VersionView {
    /// Its number.
    pub(crate) version: u64,
    /// Its version string, as Roblox has them.
    pub(crate) label: String,
    /// When it was written, Unix milliseconds.
    pub(crate) written_ms: i64,
    /// When it was stored, Unix milliseconds.
    pub(crate) stored_ms: i64,
    /// When another version took its place, Unix milliseconds. None: it is the current one.
    pub(crate) superseded_ms: Option<i64>,
    /// It says that the profile was removed.
    pub(crate) removed: bool,
    /// What wrote it.
    pub(crate) cause: &'static str,
    /// Who wrote it.
    pub(crate) author: String,
    /// How many sessions had been started by then.
    pub(crate) load_count: u64,
    /// It stays whatever the retention.
    pub(crate) pinned: bool,
    /// Its size, in bytes.
    pub(crate) bytes: u64,
}

impl VersionView {
    pub(crate) fn of(info: VersionInfo, created_ms: i64) -> Self {
        let made_up = version_label(info.written_ms, info.number, created_ms);
        Self {
            version: info.number,
            label: info.label.unwrap_or(made_up),
            written_ms: info.written_ms,
            stored_ms: info.stored_ms,
            superseded_ms: info.superseded_ms,
            removed: info.removed,
            cause: info.cause.as_str(),
            author: info.author,
            load_count: info.load_count,
            pinned: info.pinned,
            bytes: info.bytes,
        }
    }
}

/// A message that waits.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessageView<'a> {
    /// Its number in the inbox.
    pub(crate) index: u64,
    /// Its id: TIME:NAME.
    pub(crate) id: String,
    /// When it was sent, Unix milliseconds.
    pub(crate) sent_ms: i64,
    /// What was sent.
    #[schema(value_type = Value)]
    pub(crate) message: &'a RawValue,
}

impl<'a> MessageView<'a> {
    pub(crate) fn of(message: &'a StoredMessage) -> Self {
        Self {
            index: message.index,
            id: message.id.to_string(),
            sent_ms: message.sent_ms,
            message: serde_json::from_slice(&message.payload).unwrap_or(RawValue::NULL),
        }
    }
}
