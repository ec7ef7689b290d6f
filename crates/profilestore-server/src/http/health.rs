//! For those who run the server: is it there, can it work, and what does it measure.

use std::time::Duration;

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::json;
use tokio::time::timeout;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::views;
use crate::{
    app::App,
    auth::Uncounted,
    keys::Scope,
    problem::{AnyProblem, Problem, ProblemBody},
};

/// How long the store may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(healthz)).routes(routes!(readyz)).routes(routes!(metrics))
}

/// Whether the process answers
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "healthz",
    tag = "health",
    security(),
    responses((status = 200, body = String, content_type = "text/plain"))
)]
async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the store can be used
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "readyz",
    tag = "health",
    security(),
    responses(
        (status = 200, body = serde_json::Value),
        (status = 503, body = ProblemBody<'_>, content_type = "application/problem+json"),
    )
)]
async fn readyz(State(app): State<App>) -> Result<Response, Problem> {
    let detail = match timeout(PATIENCE, app.store().identity()).await {
        Ok(Ok(_)) if !app.server().is_closing() && !app.hub().leaves() => {
            return Ok(views::json(StatusCode::OK, &json!({ "ready": true })));
        }
        Ok(Ok(_)) => "this process is stopping",
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready");
            "the store cannot be used"
        }
        Err(_) => "the store does not answer",
    };
    Err(Problem::new("unavailable", detail))
}

/// What is measured, for Prometheus
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = "health",
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        AnyProblem,
    )
)]
async fn metrics(
    State(app): State<App>,
    Uncounted(caller): Uncounted,
) -> Result<Response, Problem> {
    caller.may_everywhere(Scope::MetricsRead)?;
    let text = app.metrics().map(|metrics| metrics.render()).unwrap_or_default();
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}
