//! Keys of callers. Only an admin's key manages them.

use axum::{extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{Content, InPath},
    views::{self, PageOf},
};
use crate::{
    app::App,
    auth::Caller,
    keys::{KeyRecord, NewKey, Scope},
    problem::{AnyProblem, Problem, ProblemBody},
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, add)).routes(routes!(revoke))
}

/// List the keys
///
/// Revoked ones too. Their secrets are not known.
#[utoipa::path(
    get,
    path = "/v1/keys",
    operation_id = "list_keys",
    tag = "keys",
    responses(
        (status = 200, body = PageOf<KeyRecord>),
        AnyProblem,
    )
)]
async fn list(State(app): State<App>, caller: Caller) -> Result<Response, Problem> {
    caller.may_everywhere(Scope::Admin)?;
    let items = app.keys().list().await?;
    Ok(views::json(StatusCode::OK, &PageOf { items, next_page_token: None }))
}

/// A key that was made.
#[derive(Debug, Serialize, ToSchema)]
struct Made {
    /// The key itself. It is shown this once.
    key: String,
    /// What is known about it.
    record: KeyRecord,
}

/// Make a key
#[utoipa::path(
    post,
    path = "/v1/keys",
    operation_id = "add_key",
    tag = "keys",
    request_body = NewKey,
    responses(
        (status = 201, body = Made),
        AnyProblem,
    )
)]
async fn add(
    State(app): State<App>,
    caller: Caller,
    content: Content,
) -> Result<Response, Problem> {
    caller.may_everywhere(Scope::Admin)?;
    let new: NewKey = content.json()?;
    let (record, key) = app.keys().add(new, &caller.because(None)).await?;
    tracing::info!(id = record.id, by = caller.id(), "a key was made");
    Ok(views::json(StatusCode::CREATED, &Made { key, record }))
}

#[derive(Debug, Deserialize)]
struct KeyPath {
    id: String,
}

/// Revoke a key
///
/// Each server process refuses it two seconds later at the latest.
#[utoipa::path(
    delete,
    path = "/v1/keys/{id}",
    operation_id = "revoke_key",
    tag = "keys",
    params(("id" = String, Path)),
    responses(
        (status = 200, body = KeyRecord),
        (status = 404, body = ProblemBody<'_>, content_type = "application/problem+json"),
        AnyProblem,
    )
)]
async fn revoke(
    State(app): State<App>,
    caller: Caller,
    InPath(KeyPath { id }): InPath<KeyPath>,
) -> Result<Response, Problem> {
    caller.may_everywhere(Scope::Admin)?;
    let record = app.keys().revoke(&id, &caller.because(None)).await?;
    tracing::info!(id, by = caller.id(), "a key was revoked");
    Ok(views::json(StatusCode::OK, &record))
}
