//! Messages: gifts, purchases, and what else is sent to a profile, whether or not it is played.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use profilestore::{
    Sent,
    data_store::{DataStoreExt as _, Returning},
    storable::MESSAGE,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{Content, Named, Params, Reason, message_id},
    views::{self, MessageView},
};
use crate::{
    app::App,
    auth::Caller,
    keys::Scope,
    problem::{AnyProblem, Problem, ProblemBody},
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, send))
}

/// The messages that wait for a profile.
#[derive(Debug, Serialize, ToSchema)]
struct Inbox<'a> {
    /// Oldest first.
    items: Vec<MessageView<'a>>,
}

/// List the messages that wait for a profile
#[utoipa::path(
    get,
    path = "/profiles/{key}/messages",
    operation_id = "list_messages",
    tag = "messages",
    params(("store" = String, Path), ("key" = String, Path)),
    responses(
        (status = 200, body = Inbox<'_>),
        AnyProblem,
    )
)]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Named(key): Named,
) -> Result<Response, Problem> {
    caller.may(Scope::ProfilesRead, &key)?;
    let (_, state) = app.store().read_one(&key, Returning::INBOX).await?;
    let waiting = state.inbox.as_deref().unwrap_or_default();
    let shown = waiting.iter().filter(|message| !message.id.is_edit());
    let inbox = Inbox { items: shown.map(MessageView::of).collect() };
    Ok(views::json(StatusCode::OK, &inbox))
}

/// A message to be sent.
#[derive(Debug, Deserialize, ToSchema)]
struct NewMessage {
    /// What the game's handlers get: JSON of any form, at most 256 KiB.
    #[schema(value_type = serde_json::Value)]
    message: Box<RawValue>,
}

/// A message that was sent.
#[derive(Debug, Serialize, ToSchema)]
struct SentView {
    /// Its id.
    id: String,
    /// False: it had been sent before, and nothing was done now.
    stored_now: bool,
}

/// Send a message
///
/// It waits until the game has processed it, whether or not the profile is played or exists yet.
/// The same `Idempotency-Key` again sends nothing twice, for 30 days: a payment provider's report
/// may be passed on as often as it comes, with the key `TIME:ORDER`, the order's time and number.
/// A key holds for one profile: sent to another one, it is another message.
#[utoipa::path(
    post,
    path = "/profiles/{key}/messages",
    operation_id = "send_message",
    tag = "messages",
    params(
        ("store" = String, Path),
        ("key" = String, Path),
        (
            "Idempotency-Key" = String,
            Header,
            description = "A version 7 UUID, or TIME:NAME with the time in Unix milliseconds"
        ),
        Reason,
    ),
    request_body = NewMessage,
    responses(
        (status = 200, body = SentView, description = "It had been sent before"),
        (status = 201, body = SentView),
        (status = 422, body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 429, body = ProblemBody<'_>, content_type = "application/problem+json"),
        AnyProblem,
    )
)]
async fn send(
    State(app): State<App>,
    caller: Caller,
    Named(key): Named,
    Params(reason): Params<Reason>,
    headers: HeaderMap,
    content: Content,
) -> Result<Response, Problem> {
    caller.may(Scope::MessagesSend, &key)?;
    let id = message_id(&headers)?;
    let NewMessage { message } = content.members(&["message"])?;
    MESSAGE.check(&message)?;
    let operator = app.server().operator(caller.because(reason.reason.as_deref()));
    let stored_now = operator.send(&key, &id, &*message).await? == Sent::Now;
    let status = if stored_now { StatusCode::CREATED } else { StatusCode::OK };
    Ok(views::json(status, &SentView { id: id.to_string(), stored_now }))
}
