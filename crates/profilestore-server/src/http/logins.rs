//! Who is logged in: the first member, logging in and out, and arming.

mod list;

use axum::{
    extract::{FromRequestParts, State},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, net::IpAddr};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{Content, ContentUpTo},
    views,
};
use crate::{
    access::{LASTS_MS, Member, Role},
    app::App,
    auth::{Caller, Visitor},
    keys::Scope,
    problem::{AnyProblem, Problem, ProblemBody},
    shelf::Kept,
};

/// The body of a request that needs no key and no log-in.
type Short = ContentUpTo<4096>;

/// How often a log-in is stored that other changes of the member overtake.
const TRIES: usize = 10;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(is_open, set_up))
        .routes(routes!(log_in))
        .routes(routes!(log_out))
        .routes(routes!(me))
        .routes(routes!(arm, disarm))
        .routes(routes!(change_password))
        .routes(routes!(list::list))
        .routes(routes!(list::end))
}

/// Where a request comes from, which must not be a page of another site.
struct Door {
    address: IpAddr,
    /// The name of the cookie that a log-in gets.
    cookie: String,
}

impl FromRequestParts<App> for Door {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let reached = app.reached();
        reached.check_origin(&parts.headers, false)?;
        Ok(Self {
            address: reached.address(&parts.headers, &parts.extensions),
            cookie: reached.cookie_name(&parts.headers),
        })
    }
}

/// Who asks.
#[derive(Debug, Serialize, ToSchema)]
struct Me {
    /// `member` or `key`.
    kind: &'static str,
    /// The name.
    name: String,
    /// The id of the log-in or of the key.
    id: String,
    /// The member's role.
    role: Option<Role>,
    /// What the caller may do.
    scopes: BTreeSet<Scope>,
    /// Only profiles of these stores. Null: of all.
    stores: Option<BTreeSet<String>>,
    /// Only profiles whose key begins so.
    prefix: Option<String>,
    /// Until when the log-in may change things, Unix milliseconds. Null: it is read-only.
    armed_until_ms: Option<i64>,
    /// When the log-in or the key ends, Unix milliseconds.
    expires_ms: Option<i64>,
}

impl Me {
    fn of(caller: &Caller, now_ms: i64) -> Self {
        let (kind, name, role, armed_until_ms, expires_ms) = match caller {
            Caller::Key(record) => ("key", &record.name, None, None, record.expires_ms),
            Caller::Member(Visitor { member, login }) => {
                let armed = login.armed_until_ms(now_ms);
                let record = &member.record;
                ("member", &record.name, Some(record.role), armed, Some(login.expires_ms))
            }
        };
        Self {
            kind,
            name: name.clone(),
            id: caller.id().to_owned(),
            role,
            scopes: caller.scopes(),
            stores: caller.stores(),
            prefix: caller.prefix().map(str::to_owned),
            armed_until_ms,
            expires_ms,
        }
    }
}

/// Whether there is no member yet.
#[derive(Debug, Serialize, ToSchema)]
struct IsOpen {
    /// The first member can be made, with the link that the server showed when it started.
    is_open: bool,
}

/// Whether the first member is yet to be made
#[utoipa::path(
    get,
    path = "/v1/setup",
    operation_id = "read_setup",
    tag = "logins",
    security(),
    responses((status = 200, body = IsOpen), AnyProblem)
)]
async fn is_open(State(app): State<App>) -> Result<Response, Problem> {
    let is_open = app.members().list().await?.is_empty();
    Ok(views::json(StatusCode::OK, &IsOpen { is_open }))
}

/// The first member.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct First {
    /// The secret in the link that the server showed when it started.
    token: String,
    /// The name: 1 to 50 characters.
    name: String,
    /// The password: at least 10 characters.
    password: String,
}

/// Make the first member
///
/// An admin, who is logged in by it. The token is in the link that `profilestore serve` shows when
/// the store has no member; it works once.
#[utoipa::path(
    post,
    path = "/v1/setup",
    operation_id = "set_up",
    tag = "logins",
    security(),
    request_body = First,
    responses(
        (status = 201, body = Me, headers(("Set-Cookie" = String))),
        (status = 409, body = ProblemBody<'_>, content_type = "application/problem+json"),
        AnyProblem,
    )
)]
async fn set_up(State(app): State<App>, door: Door, content: Short) -> Result<Response, Problem> {
    let First { token, name, password } = content.secrets()?;
    // Only wrong links count: tries with them do not keep the right one out, nor does a name or a
    // password that is refused.
    if app.setup().is_wrong(&token) {
        guess(&app, "~setup", door.address)?;
    }
    let record = app.setup().spend(app.members(), &token, name, password.clone()).await?;
    let kept = app.members().recognise(&record.name, password).await?;
    let kept = kept.ok_or_else(wrong_password)?;
    logged_in(&app, StatusCode::CREATED, kept, &door).await
}

/// A name and its password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Credentials {
    /// The member's name.
    name: String,
    /// The password.
    password: String,
}

/// Log in
///
/// The answer sets a cookie, which lasts for 12 hours. A log-in changes nothing until it is armed.
/// After five wrong tries a minute for a name the answer is 429.
#[utoipa::path(
    post,
    path = "/v1/login",
    operation_id = "log_in",
    tag = "logins",
    security(),
    request_body = Credentials,
    responses(
        (status = 200, body = Me, headers(("Set-Cookie" = String))),
        (status = 401, body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 429, body = ProblemBody<'_>, content_type = "application/problem+json"),
        AnyProblem,
    )
)]
async fn log_in(State(app): State<App>, door: Door, content: Short) -> Result<Response, Problem> {
    let Credentials { name, password } = content.secrets()?;
    let kept = recognise(&app, &name, password, door.address).await?;
    logged_in(&app, StatusCode::OK, kept, &door).await
}

fn guess(app: &App, name: &str, address: IpAddr) -> Result<crate::access::Try, Problem> {
    app.guesses().begin(name, address).map_err(|seconds| {
        let detail = format!("too many wrong tries; try again in {seconds} s");
        Problem::new("too-many-tries", detail).retry_after(seconds)
    })
}

fn wrong_password() -> Problem {
    Problem::new("unauthorized", "the name or the password is wrong")
}

/// The member of this name and password. Wrong ones are counted, and booked.
async fn recognise(
    app: &App,
    name: &str,
    password: String,
    address: IpAddr,
) -> Result<Kept<Member>, Problem> {
    let tried = guess(app, name, address)?;
    match app.members().recognise(name, password).await {
        Ok(Some(kept)) => {
            app.guesses().take_back(tried);
            Ok(kept)
        }
        Ok(None) => {
            tracing::info!(%address, "a log-in failed");
            if app.guesses().may_book() {
                let (app, name) = (app.clone(), name.to_owned());
                // Behind the answer, so that it takes no longer for a name that exists.
                tokio::spawn(async move {
                    let booked = app.members().book_failure(&name, &address.to_string()).await;
                    if let Err(error) = booked {
                        tracing::warn!(%error, "a failed log-in was not booked");
                    }
                });
            }
            Err(wrong_password())
        }
        Err(problem) => {
            app.guesses().take_back(tried);
            Err(problem)
        }
    }
}

/// Stores a log-in and answers with its cookie.
async fn logged_in(
    app: &App,
    status: StatusCode,
    mut kept: Kept<Member>,
    door: &Door,
) -> Result<Response, Problem> {
    let address = door.address.to_string();
    for _ in 0..TRIES {
        let Some(member) = kept.value.clone() else { return Err(wrong_password()) };
        let (login, cookie, change) = app.logins().begin(&member, &address)?;
        let mut changes = app.members().noted_login(&kept, &address)?;
        changes.push(change);
        if app.logins().commit(changes).await? {
            let tidied = app.clone();
            tokio::spawn(async move {
                if let Err(error) = tidied.logins().tidy().await {
                    tracing::debug!(%error, "log-ins that are over were not removed");
                }
            });
            let caller = Caller::Member(Visitor { member: member.into(), login });
            let mut response = views::json(status, &Me::of(&caller, app.env().unix_ms()));
            if let Some(cookie) = app.reached().set_cookie(&door.cookie, &cookie, LASTS_MS / 1000) {
                response.headers_mut().insert(header::SET_COOKIE, cookie);
            }
            return Ok(response);
        }
        // The member was changed at the same moment, perhaps so that this password is none.
        kept = app.members().again(&member).await?.ok_or_else(wrong_password)?;
    }
    Err(Problem::new("busy", "the member kept changing"))
}

/// Log out
///
/// Also when the log-in is over: the browser forgets the cookie.
#[utoipa::path(
    post,
    path = "/v1/logout",
    operation_id = "log_out",
    tag = "logins",
    security((), ("cookie" = [])),
    responses((status = 204, description = "Nobody is logged in any more"), AnyProblem)
)]
async fn log_out(
    State(app): State<App>,
    // Also without a log-in: the answer takes the cookie away.
    door: Door,
    visitor: Result<Visitor, Problem>,
) -> Result<Response, Problem> {
    match visitor {
        Ok(Visitor { login, .. }) => app.logins().end(&login.id).await?,
        Err(problem) if problem.row().name == "unauthorized" => {}
        Err(problem) => return Err(problem),
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Some(cookie) = app.reached().set_cookie(&door.cookie, "", 0) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

/// Who asks
#[utoipa::path(
    get,
    path = "/v1/me",
    operation_id = "read_me",
    tag = "logins",
    responses((status = 200, body = Me), AnyProblem)
)]
async fn me(State(app): State<App>, caller: Caller) -> Response {
    views::json(StatusCode::OK, &Me::of(&caller, app.env().unix_ms()))
}

/// Until when a log-in may change things.
#[derive(Debug, Serialize, ToSchema)]
struct Armed {
    /// Unix milliseconds.
    armed_until_ms: i64,
}

/// Let a log-in change things for 15 minutes
#[utoipa::path(
    post,
    path = "/v1/arm",
    operation_id = "arm",
    tag = "logins",
    security(("cookie" = [])),
    responses((status = 200, body = Armed), AnyProblem)
)]
async fn arm(
    State(app): State<App>,
    Visitor { member, login }: Visitor,
) -> Result<Response, Problem> {
    if !member.record.role.changes_things() {
        let detail = format!("the role `{}` changes nothing", member.record.role);
        return Err(Problem::new("forbidden", detail));
    }
    let until = app.logins().arm(&login.id, true).await?;
    let armed_until_ms = until.ok_or_else(|| Problem::new("unauthorized", "the log-in is over"))?;
    Ok(views::json(StatusCode::OK, &Armed { armed_until_ms }))
}

/// Let a log-in change nothing any more
#[utoipa::path(
    delete,
    path = "/v1/arm",
    operation_id = "disarm",
    tag = "logins",
    security(("cookie" = [])),
    responses((status = 204, description = "It is read-only"), AnyProblem)
)]
async fn disarm(
    State(app): State<App>,
    Visitor { login, .. }: Visitor,
) -> Result<Response, Problem> {
    app.logins().arm(&login.id, false).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// A new password for oneself.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewPassword {
    /// The password until now.
    old_password: String,
    /// The password from now on: at least 10 characters.
    new_password: String,
}

/// Change one's own password
///
/// Needs no arming. Ends all log-ins of the member, and begins a new one.
#[utoipa::path(
    post,
    path = "/v1/password",
    operation_id = "change_password",
    tag = "logins",
    security(("cookie" = [])),
    request_body = NewPassword,
    responses((status = 200, body = Me, headers(("Set-Cookie" = String))), AnyProblem)
)]
async fn change_password(
    State(app): State<App>,
    Visitor { member, .. }: Visitor,
    door: Door,
    content: Content,
) -> Result<Response, Problem> {
    let NewPassword { old_password, new_password } = content.secrets()?;
    let name = &member.record.name;
    recognise(&app, name, old_password, door.address).await?;
    app.members().set_password(name, new_password.clone()).await?;
    let kept = app.members().recognise(name, new_password).await?.ok_or_else(wrong_password)?;
    logged_in(&app, StatusCode::OK, kept, &door).await
}
