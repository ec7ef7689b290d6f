//! Errors as RFC 9457 has them, from one table.
//!
//! A row says what an error means over HTTP: its status, its advice, what happened and what to do.
//! The body of an error and the page `/errors/KIND` come from the same row. Every
//! [`ErrorKind`] has one, which a test makes sure of.

use std::fmt;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use profilestore::{Advice, Error, ErrorKind, ProfileKey};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::keys::KeyError;

/// The media type of an error.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// What one kind of error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its name: the end of its type, `/errors/NAME`.
    pub name: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What to do, in one word: `retry`, `retry-as`, `leave`, `ignore` or `fix`.
    pub advice: &'static str,
    /// What happened, in one line.
    pub title: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

const fn row(
    name: &'static str,
    status: u16,
    advice: &'static str,
    title: &'static str,
    remedy: &'static str,
) -> Row {
    Row { name, status, advice, title, remedy }
}

/// The library's kinds first, then those of the server itself.
pub const TABLE: &[Row] = &[
    row(
        "already-loaded",
        409,
        "fix",
        "The profile has a live session on this game server already.",
        "End that session first.",
    ),
    row(
        "superseded",
        409,
        "ignore",
        "A later start for the same profile took the place of this one.",
        "Nothing. The later start has the profile.",
    ),
    row(
        "taken-elsewhere",
        409,
        "leave",
        "Another game server asked for the profile later, so it gets the profile.",
        "Let the player go. The player plays on the other server.",
    ),
    row(
        "cancelled",
        409,
        "ignore",
        "The call was called off.",
        "Nothing. It was not needed any more.",
    ),
    row(
        "timed-out",
        504,
        "retry",
        "It could not be done in time. Nothing was done.",
        "Try the same call again later.",
    ),
    row(
        "closing",
        503,
        "retry",
        "This server process is stopping. Nothing was done.",
        "Try the same call again; another process, or this one after its restart, answers it.",
    ),
    row(
        "session-ended",
        409,
        "leave",
        "The session is over: ended, handed over, or lost.",
        "Let the player go. Changes that were not saved are lost.",
    ),
    row(
        "busy",
        409,
        "retry",
        "The data cannot be changed at this moment.",
        "Try the same call again in a moment.",
    ),
    row(
        "unconfirmed",
        503,
        "retry",
        "The lease is not confirmed, so another server may have taken the profile.",
        "Wait until the store answers again, then try the same call again.",
    ),
    row(
        "done-before",
        409,
        "ignore",
        "It was done before, under the same id with the same content.",
        "Nothing. Count it as done.",
    ),
    row(
        "not-found",
        404,
        "fix",
        "There is no such profile, version or entry.",
        "Check the name. A player who has never played has no profile.",
    ),
    row(
        "foreign",
        409,
        "fix",
        "What is stored under this key is not a profile. It is left alone.",
        "Look at it with `profilestore get`, and remove it if it is not needed.",
    ),
    row("removed", 409, "fix", "The profile was removed since it was read.", "Read it again."),
    row(
        "changed",
        412,
        "fix",
        "The profile is not what If-Match or If-None-Match says. Nothing was changed.",
        "Read it again, decide again, and send the new ETag in If-Match.",
    ),
    row(
        "held",
        409,
        "retry",
        "A session holds the profile, so it cannot be written from outside.",
        "Use POST on edits: the game server that holds the profile makes the edit. Or end the \
         session first.",
    ),
    row(
        "newer-data",
        409,
        "fix",
        "The data was saved by a newer version of the program, which does not let this one open it.",
        "Update this program.",
    ),
    row(
        "undecodable",
        409,
        "fix",
        "The stored data does not fit the program's type. It is left alone.",
        "Correct the data with an edit, or the program.",
    ),
    row(
        "inbox-full",
        429,
        "retry",
        "As many messages wait for the profile as may. Nothing was stored.",
        "Send it again later, under the same id.",
    ),
    row(
        "message-id-reused",
        422,
        "fix",
        "The idempotency key was used before with another content.",
        "Use a new key for a new request. For a retry, send exactly the same body.",
    ),
    row(
        "request-id-reused",
        422,
        "fix",
        "The identity of the request was used before, for another request. Nothing was done now.",
        "Use a new identity for a new request. For a retry, send exactly the same request.",
    ),
    row(
        "message-id-expired",
        422,
        "fix",
        "The time in the idempotency key is more than 30 days ago, or more than a day ahead.",
        "Use a key whose time is that of the request.",
    ),
    row(
        "too-large",
        413,
        "fix",
        "It is larger than what can be stored or read.",
        "Send less. Data has at most 4 MiB of JSON, a message 256 KiB, an edit 64 KiB.",
    ),
    row(
        "edit-refused",
        422,
        "fix",
        "The edit does not fit the profile's data. Nothing was changed.",
        "Read the profile, and correct the edit.",
    ),
    row(
        "refused",
        422,
        "fix",
        "The game's own program refused the data. Nothing was changed.",
        "Its reason is in the detail.",
    ),
    row(
        "invalid",
        400,
        "fix",
        "The request is wrong: a name, a parameter, or JSON that cannot be stored.",
        "The detail says what is wrong and where.",
    ),
    row(
        "unavailable",
        503,
        "retry",
        "The store cannot be used at the moment. Nothing was done.",
        "Try the same call again later.",
    ),
    row(
        "unknown",
        504,
        "retry-as",
        "Whether it took effect is not known, and it may yet take effect.",
        "Send the same request again, with the same idempotency key if it has one.",
    ),
    row(
        "replaced",
        409,
        "leave",
        "A backup was restored in the meantime; what was read before is no longer there.",
        "Read the profile again.",
    ),
    row(
        "corrupt",
        500,
        "fix",
        "What the store holds cannot be understood.",
        "Run `profilestore check`, and see the support runbook.",
    ),
    row(
        "damaged",
        500,
        "fix",
        "A stored value is not the one that was written.",
        "Roll the profile back to an earlier version, or restore a backup.",
    ),
    row(
        "overloaded",
        503,
        "retry",
        "Too much waits for this profile.",
        "Try the same call again later.",
    ),
    row(
        "unauthorized",
        401,
        "fix",
        "The request has no key, or one that is not valid.",
        "Send `Authorization: Bearer ps_…` with a key that `profilestore keys add` made.",
    ),
    row(
        "forbidden",
        403,
        "fix",
        "The key does not allow this.",
        "Use a key with the scope that the detail names, and that reaches the profile.",
    ),
    row(
        "no-such-resource",
        404,
        "fix",
        "There is nothing at this path.",
        "See /docs for what there is.",
    ),
    row(
        "method-not-allowed",
        405,
        "fix",
        "The path is right, the method is not.",
        "See /docs for what there is.",
    ),
    row(
        "unsupported-media-type",
        415,
        "fix",
        "The body is of a kind that this resource does not take.",
        "The detail names the media types that it takes.",
    ),
    row(
        "misdirected",
        421,
        "fix",
        "The request names another host than this machine.",
        "On loopback the server answers to localhost, 127.0.0.1 and [::1] only, so that no web \
         page reaches it under another name. To serve others, see docs/server.md.",
    ),
    row(
        "upgrade-required",
        426,
        "fix",
        "This resource is a WebSocket of the protocol `profilestore.v1+json`.",
        "Connect with a WebSocket client that names the protocol. See docs/protocol.md.",
    ),
    row(
        "idempotency-key-reused",
        422,
        "fix",
        "The idempotency key was used before for another request.",
        "Use a new key for a new request. For a retry, send exactly the same body.",
    ),
    row(
        "precondition-required",
        428,
        "fix",
        "The request could overwrite what its sender has not seen.",
        "Send If-Match with the ETag that was read, or If-None-Match: * to make a new profile.",
    ),
    row(
        "internal",
        500,
        "retry-as",
        "The server failed in a way that it does not know.",
        "Send the same request again; report it with the instance if it stays.",
    ),
];

/// The row of a name.
pub fn find(name: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.name == name)
}

/// The name of one of the library's kinds: `TakenElsewhere` is `taken-elsewhere`.
pub fn name_of(kind: ErrorKind) -> String {
    let mut name = String::new();
    for c in format!("{kind:?}").chars() {
        if c.is_ascii_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}

/// What one of the library's advices is called.
pub fn advice_word(advice: Advice) -> &'static str {
    match advice {
        Advice::Retry => "retry",
        Advice::RetryAs => "retry-as",
        Advice::Leave => "leave",
        Advice::Ignore => "ignore",
        _ => "fix",
    }
}

/// One error, on its way to a caller.
#[derive(Debug, Clone)]
pub struct Problem {
    row: &'static Row,
    detail: String,
    more: Map<String, Value>,
    retry_after: Option<u64>,
}

/// The body of an error.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct ProblemBody<'a> {
    /// A path on this server: a page that says what happened and what to do.
    r#type: String,
    /// What happened, in one line.
    title: &'a str,
    /// The HTTP status.
    status: u16,
    /// What happened this time.
    detail: &'a str,
    /// The end of the type.
    kind: &'a str,
    /// `retry`, `retry-as`, `leave`, `ignore` or `fix`.
    advice: &'a str,
    /// The request, as the answer's header `X-Request-Id` and the log name it.
    instance: &'a str,
    /// What belongs to the kind, such as `profile`, `scope` or `operation`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    more: &'a Map<String, Value>,
}

impl Problem {
    /// An error of the table. `name` is one of its names.
    pub fn new(name: &str, detail: impl Into<String>) -> Self {
        let row = find(name).or_else(|| find("internal")).unwrap_or(&TABLE[TABLE.len() - 1]);
        let retry_after = (row.status == 503 || row.status == 429).then_some(1);
        Self { row, detail: detail.into(), more: Map::new(), retry_after }
    }

    /// A request that is wrong.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new("invalid", detail)
    }

    /// The same with one more member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// The same about a profile.
    #[must_use]
    pub fn about(self, key: &ProfileKey) -> Self {
        if self.more.contains_key("profile") { self } else { self.with("profile", key.to_string()) }
    }

    /// What it means.
    pub fn row(&self) -> &'static Row {
        self.row
    }

    fn body<'a>(&'a self, instance: &'a str) -> ProblemBody<'a> {
        let Row { name, status, advice, title, .. } = self.row;
        ProblemBody {
            r#type: format!("/errors/{name}"),
            title,
            status: *status,
            detail: &self.detail,
            kind: name,
            advice,
            instance,
            more: &self.more,
        }
    }

    /// The members of its body, for an answer that is none of HTTP.
    pub(crate) fn members(&self, instance: &str) -> Value {
        serde_json::to_value(self.body(instance)).unwrap_or_default()
    }

    /// The answer to a request of this id.
    pub(crate) fn answer(&self, instance: &str) -> Response {
        let status = self.row.status;
        let mut body = serde_json::to_vec(&self.body(instance)).unwrap_or_default();
        body.push(b'\n');
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Body::from(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.row.name, self.detail)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let kind = error.kind();
        // What the store says about its own trouble is for the log alone.
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let detail = match (&cause, kind) {
            (Some(cause), ErrorKind::Invalid | ErrorKind::Undecodable | ErrorKind::EditRefused)
                if !error.to_string().contains(&**cause) =>
            {
                format!("{error}: {cause}")
            }
            _ => error.to_string(),
        };
        let mut problem = Self::new(&name_of(kind), detail);
        if problem.row.status >= 500 {
            tracing::warn!(%error, cause, "a request failed");
        }
        if let Some(key) = error.key() {
            problem = problem.about(key);
        }
        if let Some(operation) = error.operation() {
            problem = problem.with("operation", operation.to_string());
        }
        if let Some(id) = error.message_id() {
            problem = problem.with("message_id", id.to_string());
        }
        problem
    }
}

impl From<profilestore::data_store::StoreError> for Problem {
    fn from(error: profilestore::data_store::StoreError) -> Self {
        Error::from(error).into()
    }
}

impl From<profilestore::storable::Unstorable> for Problem {
    fn from(wrong: profilestore::storable::Unstorable) -> Self {
        let path = wrong.path.clone();
        Self::from(Error::from(wrong)).with("path", path)
    }
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Invalid(why) => Self::invalid(why),
            KeyError::NotFound(_) => Self::new("not-found", error.to_string()),
            KeyError::Store(error) => error.into(),
            KeyError::Random(_) => Self::new("internal", error.to_string()),
        }
    }
}

/// The whole answer is made by the layer that knows the request's id.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() =
            StatusCode::from_u16(self.row.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_of_error_has_its_row_with_the_librarys_advice() {
        for kind in ErrorKind::ALL {
            let name = name_of(kind);
            let row = find(&name).unwrap_or_else(|| panic!("{name} has no row"));
            // A server process that stops is no reason to let a player go.
            let advice = match kind {
                ErrorKind::Closing => "retry",
                kind => advice_word(kind.advice()),
            };
            assert_eq!(row.advice, advice, "{name}");
        }
    }

    #[test]
    fn each_row_is_there_once_and_complete() {
        let names: BTreeSet<_> = TABLE.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), TABLE.len());
        for row in TABLE {
            assert!((400..600).contains(&row.status), "{}", row.name);
            assert!(["retry", "retry-as", "leave", "ignore", "fix"].contains(&row.advice));
            assert!(row.title.ends_with('.') && row.remedy.ends_with('.'), "{}", row.name);
        }
    }

    #[test]
    fn names_that_the_code_uses_are_in_the_table() {
        for source in [
            include_str!("app.rs"),
            include_str!("auth.rs"),
            include_str!("http/edits.rs"),
            include_str!("http/extract.rs"),
            include_str!("http/health.rs"),
            include_str!("http/history.rs"),
            include_str!("http/pages.rs"),
            include_str!("http/profiles.rs"),
            include_str!("http/views.rs"),
        ] {
            for rest in source.split("Problem::new(\"").skip(1) {
                let name = rest.split('"').next().unwrap();
                assert!(find(name).is_some(), "{name}");
            }
        }
    }
}
