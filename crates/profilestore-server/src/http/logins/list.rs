//! Which log-ins there are, and ending them.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    access::Login,
    app::App,
    auth::{Caller, Visitor},
    http::{
        extract::InPath,
        views::{self, PageOf},
    },
    keys::Scope,
    problem::{AnyProblem, Problem, ProblemBody},
};

/// Where a member is logged in.
#[derive(Debug, Serialize, ToSchema)]
struct LoginView {
    /// Its id.
    id: String,
    /// The member's name.
    name: String,
    /// When it began, Unix milliseconds.
    since_ms: i64,
    /// When it ends, Unix milliseconds.
    expires_ms: i64,
    /// The address that it began from.
    address: String,
    /// Until when it may change things, Unix milliseconds. Null: it is read-only.
    armed_until_ms: Option<i64>,
    /// It is the one that asks.
    current: bool,
}

impl LoginView {
    fn of(login: Login, caller: &Caller, now_ms: i64) -> Self {
        Self {
            armed_until_ms: login.armed_until_ms(now_ms),
            current: caller.id() == login.id,
            id: login.id,
            name: login.name,
            since_ms: login.since_ms,
            expires_ms: login.expires_ms,
            address: login.address,
        }
    }
}

/// Whether the caller may see and end this log-in.
fn may_see(caller: &Caller, login: &Login) -> bool {
    let own = match caller {
        Caller::Member(visitor) => visitor.member.record.name == login.name,
        Caller::Key(_) => false,
    };
    own || caller.has_any(&[Scope::Admin])
}

/// List who is logged in
///
/// Everyone for an admin, one's own log-ins for others.
#[utoipa::path(
    get,
    path = "/v1/logins",
    operation_id = "list_logins",
    tag = "logins",
    responses((status = 200, body = PageOf<LoginView>), AnyProblem)
)]
pub(super) async fn list(State(app): State<App>, caller: Caller) -> Result<Response, Problem> {
    let now_ms = app.env().unix_ms();
    let mut items = Vec::new();
    for login in app.logins().list().await? {
        let member = app.members().find(&login.name).await?;
        let counts = member.is_some_and(|member| login.belongs_to(&member));
        if counts && may_see(&caller, &login) {
            items.push(LoginView::of(login, &caller, now_ms));
        }
    }
    Ok(views::json(StatusCode::OK, &PageOf { items, next_page_token: None }))
}

#[derive(Debug, Deserialize)]
pub(super) struct LoginPath {
    id: String,
}

/// End a log-in
///
/// Each server process refuses it two seconds later at the latest. A member ends other log-ins of
/// the own name without arming.
#[utoipa::path(
    delete,
    path = "/v1/logins/{id}",
    operation_id = "end_login",
    tag = "logins",
    params(("id" = String, Path)),
    responses(
        (status = 204, description = "It is over"),
        (status = 404, body = ProblemBody<'_>, content_type = "application/problem+json"),
        AnyProblem,
    )
)]
pub(super) async fn end(
    State(app): State<App>,
    visitor: Result<Visitor, Problem>,
    caller: Result<Caller, Problem>,
    InPath(LoginPath { id }): InPath<LoginPath>,
) -> Result<Response, Problem> {
    let caller = match (visitor, caller) {
        // It takes no arming to end what a stranger may use in the member's name.
        (Ok(visitor), Err(problem)) if problem.row().name == "read-only" => {
            let own = app.logins().find(&id).await?;
            if own.is_none_or(|login| login.name != visitor.member.record.name) {
                return Err(problem);
            }
            Caller::Member(visitor)
        }
        (_, caller) => caller?,
    };
    let login = app.logins().find(&id).await?.filter(|login| may_see(&caller, login));
    if login.is_none() {
        return Err(Problem::new("not-found", format!("there is no such log-in: id=`{id}`")));
    }
    app.logins().end(&id).await?;
    tracing::info!(id, by = caller.id(), "a log-in was ended");
    Ok(StatusCode::NO_CONTENT.into_response())
}
