//! Errors as RFC 9457 has them, from one table.
//!
//! A row says what an error means over HTTP: its status, its advice, what happened and what to do.
//! The body of an error and the page `/errors/KIND` come from the same row. Every
//! [`ErrorKind`] has one, which a test makes sure of.

use std::{collections::BTreeMap, fmt};

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use profilestore::{Advice, Error, ErrorKind, ProfileKey};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};

use crate::keys::KeyError;

mod table;
#[cfg(test)]
mod tests;

pub use table::{Row, TABLE, find};

/// The media type of an error.
pub const PROBLEM_JSON: &str = "application/problem+json";

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

/// What is wrong with a JSON text that may hold secrets: what was expected and where, and nothing
/// of what is there. Errors are answered, and stand in the log.
pub(crate) fn without_values(error: &serde_json::Error) -> String {
    let told = error.to_string();
    let shows = ["invalid type: ", "invalid value: ", "unknown field ", "unknown variant "];
    if !shows.iter().any(|begins| told.starts_with(begins)) {
        return told;
    }
    match told.rsplit_once(", expected ") {
        Some((_, expected)) => format!("expected {expected}"),
        None => {
            format!("there is too much at line {} column {}", error.line(), error.column())
        }
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

/// In the description: an answer may also be any other error of the table.
pub(crate) struct AnyProblem;

impl utoipa::IntoResponses for AnyProblem {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("ProblemBody"))).build();
        let any = ResponseBuilder::new().content(PROBLEM_JSON, body).build();
        BTreeMap::from([("default".to_owned(), any.into())])
    }
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

    /// The same with another time after which to try again, in seconds.
    #[must_use]
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
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

/// A search that cannot be read, with the place in it.
impl From<profilestore::filter::FilterError> for Problem {
    fn from(wrong: profilestore::filter::FilterError) -> Self {
        Self::invalid(format!("where: {wrong}")).with("at", wrong.at)
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
