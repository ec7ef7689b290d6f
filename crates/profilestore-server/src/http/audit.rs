//! The audit log.

use axum::{extract::State, http::StatusCode, response::Response};
use profilestore::audit::{AuditQuery, audit_entries};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    extract::{Params, key_token, moment, parse_key_token},
    views::{self, PageOf},
};
use crate::{
    app::App,
    auth::Caller,
    keys::Scope,
    problem::{AnyProblem, Problem},
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Which entries.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Only operations that began since then: Unix milliseconds, or RFC 3339.
    since: Option<String>,
    /// Only operations that began until then.
    until: Option<String>,
    /// Only entries about this profile: STORE/KEY, or STORE/SCOPE/KEY.
    profile: Option<String>,
    /// Only this author's.
    author: Option<String>,
    /// Only this operation's.
    operation: Option<Uuid>,
    /// Of an operation on many profiles only its own entry, which says what it is.
    grouped: Option<bool>,
    /// Go on where the page before ended: its `next_page_token`.
    page_token: Option<String>,
}

/// Read the audit log
///
/// What operators did, newest first. A page has those of 256 entries that are wanted, which may be
/// none although more follow.
#[utoipa::path(
    get,
    path = "/v1/audit",
    operation_id = "list_audit",
    tag = "audit",
    params(Which),
    responses(
        (status = 200, body = PageOf<serde_json::Value>),
        AnyProblem,
    )
)]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(which): Params<Which>,
) -> Result<Response, Problem> {
    caller.may_everywhere(Scope::AuditRead)?;
    let profile = which.profile.as_deref().map(str::parse).transpose();
    let key = profile.map_err(|error: profilestore::key::InvalidName| {
        Problem::invalid(format!("profile is STORE/KEY or STORE/SCOPE/KEY: {error}"))
    })?;
    let query = AuditQuery {
        since_ms: moment("since", which.since.as_deref())?,
        until_ms: moment("until", which.until.as_deref())?,
        key,
        author: which.author,
        operation: which.operation,
        grouped: which.grouped.unwrap_or(false),
        after: parse_key_token(which.page_token.as_deref())?,
    };
    let page = audit_entries(app.store(), &query).await?;
    let next_page_token = page.next.as_ref().map(key_token);
    Ok(views::json(StatusCode::OK, &PageOf { items: page.entries, next_page_token }))
}
