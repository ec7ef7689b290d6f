//! Members and roles. Only an admin manages members.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{Content, InPath},
    views::{self, PageOf},
};
use crate::{
    access::{Changes, MemberRecord, NewMember, Role},
    app::App,
    auth::Caller,
    keys::Scope,
    problem::{AnyProblem, Problem, ProblemBody},
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(roles))
        .routes(routes!(list, add))
        .routes(routes!(alter, remove))
}

/// A role.
#[derive(Debug, Serialize, ToSchema)]
struct RoleView {
    /// Its name.
    role: Role,
    /// What it allows.
    scopes: &'static [Scope],
}

/// List the roles
#[utoipa::path(
    get,
    path = "/v1/roles",
    operation_id = "list_roles",
    tag = "members",
    responses((status = 200, body = PageOf<RoleView>), AnyProblem)
)]
async fn roles(_: Caller) -> Response {
    let view = |role: Role| RoleView { role, scopes: role.scopes() };
    let items = Role::ALL.into_iter().map(view).collect();
    views::json(StatusCode::OK, &PageOf { items, next_page_token: None })
}

/// List the members
#[utoipa::path(
    get,
    path = "/v1/members",
    operation_id = "list_members",
    tag = "members",
    responses((status = 200, body = PageOf<MemberRecord>), AnyProblem)
)]
async fn list(State(app): State<App>, caller: Caller) -> Result<Response, Problem> {
    caller.may_everywhere(Scope::Admin)?;
    let items = app.members().list().await?;
    Ok(views::json(StatusCode::OK, &PageOf { items, next_page_token: None }))
}

/// Make a member
#[utoipa::path(
    post,
    path = "/v1/members",
    operation_id = "add_member",
    tag = "members",
    request_body = NewMember,
    responses(
        (status = 201, body = MemberRecord),
        (status = 409, body = ProblemBody<'_>, content_type = "application/problem+json"),
        AnyProblem,
    )
)]
async fn add(
    State(app): State<App>,
    caller: Caller,
    content: Content,
) -> Result<Response, Problem> {
    caller.may_everywhere(Scope::Admin)?;
    let new: NewMember = content.secrets()?;
    let record = app.members().add(new, &caller.because(None)).await?;
    Ok(views::json(StatusCode::CREATED, &record))
}

#[derive(Debug, Deserialize)]
struct MemberPath {
    name: String,
}

/// Change a member
///
/// What is left out stays. A new password and `disabled` end all log-ins of the member, at each
/// server process two seconds later at the latest. The last admin who can log in stays one.
#[utoipa::path(
    patch,
    path = "/v1/members/{name}",
    operation_id = "change_member",
    tag = "members",
    params(("name" = String, Path)),
    request_body = Changes,
    responses(
        (status = 200, body = MemberRecord),
        (status = 404, body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 409, body = ProblemBody<'_>, content_type = "application/problem+json"),
        AnyProblem,
    )
)]
async fn alter(
    State(app): State<App>,
    caller: Caller,
    InPath(MemberPath { name }): InPath<MemberPath>,
    content: Content,
) -> Result<Response, Problem> {
    caller.may_everywhere(Scope::Admin)?;
    let record = app.members().alter(&name, content.secrets()?, &caller.because(None)).await?;
    Ok(views::json(StatusCode::OK, &record))
}

/// Remove a member
///
/// Ends all log-ins of the member. The audit log keeps the name.
#[utoipa::path(
    delete,
    path = "/v1/members/{name}",
    operation_id = "remove_member",
    tag = "members",
    params(("name" = String, Path)),
    responses(
        (status = 204, description = "It is removed"),
        (status = 404, body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 409, body = ProblemBody<'_>, content_type = "application/problem+json"),
        AnyProblem,
    )
)]
async fn remove(
    State(app): State<App>,
    caller: Caller,
    InPath(MemberPath { name }): InPath<MemberPath>,
) -> Result<Response, Problem> {
    caller.may_everywhere(Scope::Admin)?;
    app.members().remove(&name, &caller.because(None)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
