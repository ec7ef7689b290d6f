//! Who holds a profile, and freeing it.

use std::time::Duration;

use axum::{extract::State, http::StatusCode, response::Response};
use profilestore::data_store::{DataStoreExt as _, Returning};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{Named, Params},
    views::{self, HolderView},
};
use crate::{
    app::App,
    auth::Caller,
    keys::Scope,
    problem::{AnyProblem, Problem, ProblemBody},
};

/// How long a request waits for a holder that lets go.
const PATIENCE: Duration = Duration::from_secs(45);

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(read, end))
}

/// The session on a profile.
#[derive(Debug, Serialize, ToSchema)]
struct SessionView {
    /// Who holds it. None: nobody does.
    held: Option<HolderView>,
    /// The epoch: it grows with each session.
    epoch: u64,
    /// How many sessions have been started.
    load_count: u64,
    /// It was let go for a server that asked, which has not taken it yet.
    offered: bool,
}

/// Who holds a profile
#[utoipa::path(
    get,
    path = "/profiles/{key}/session",
    operation_id = "read_session",
    tag = "sessions",
    params(("store" = String, Path), ("key" = String, Path)),
    responses(
        (status = 200, body = SessionView),
        AnyProblem,
    )
)]
async fn read(
    State(app): State<App>,
    caller: Caller,
    Named(key): Named,
) -> Result<Response, Problem> {
    caller.may(Scope::ProfilesRead, &key)?;
    let (now_ms, state) = app.store().read_one(&key, Returning::HEAD).await?;
    let view = SessionView {
        held: HolderView::of(&state, now_ms),
        epoch: state.epoch,
        load_count: state.lease.load_count,
        offered: state.lease.offer.is_some(),
    };
    Ok(views::json(StatusCode::OK, &view))
}

/// How a session is ended.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct How {
    /// Do not ask the holder: what it has not saved is lost.
    steal: Option<bool>,
    /// End the session with this epoch, as `GET` shows it, and no other: 412 when another one holds
    /// the profile by now.
    epoch: Option<u64>,
    /// Why, for the audit log: at most 2,000 bytes.
    reason: Option<String>,
}

/// What was ended.
#[derive(Debug, Serialize, ToSchema)]
struct Ended {
    /// The name of the game server that held it. None: nobody did.
    held_by: Option<String>,
}

/// End the session on a profile
///
/// Asks the game server that holds it to save and let go. A dead server's session is ended after
/// its lease time.
#[utoipa::path(
    delete,
    path = "/profiles/{key}/session",
    operation_id = "end_session",
    tag = "sessions",
    params(("store" = String, Path), ("key" = String, Path), How),
    responses(
        (status = 200, body = Ended),
        (status = 412, body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 504, body = ProblemBody<'_>, content_type = "application/problem+json"),
        AnyProblem,
    )
)]
async fn end(
    State(app): State<App>,
    caller: Caller,
    Named(key): Named,
    Params(how): Params<How>,
) -> Result<Response, Problem> {
    // Who may write may free it too.
    let writes = caller.has_any(&[Scope::ProfilesWrite]);
    caller.may(if writes { Scope::ProfilesWrite } else { Scope::SessionsEnd }, &key)?;
    let operator = app.server().operator(caller.because(how.reason.as_deref()));
    if how.epoch.is_some_and(|epoch| i64::try_from(epoch).is_err()) {
        return Err(Problem::invalid("epoch is at most 9223372036854775807"));
    }
    let steal = how.steal.unwrap_or(false);
    let held_by = match how.epoch {
        Some(epoch) => operator.end_session_of(&key, epoch, steal, PATIENCE).await?,
        None => operator.end_session(&key, steal, PATIENCE).await?,
    };
    Ok(views::json(StatusCode::OK, &Ended { held_by }))
}
