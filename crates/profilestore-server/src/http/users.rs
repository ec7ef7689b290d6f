//! What is stored of a user: finding it, taking it out, erasing it.

use std::{io, sync::mpsc, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::stream;
use profilestore::{
    Error, ErrorKind, Operator, UserId,
    operator::EraseReport,
    transfer::{ExportFilter, export},
};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::{runtime::Handle, task::spawn_blocking, time::Instant};
use utoipa::IntoParams;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{Content, InPath, Page, Params, user as user_of},
    servers::across,
    views::{self, PageOf, ProfileRow},
};
use crate::{
    app::App,
    auth::Caller,
    cleaning,
    keys::Scope,
    problem::{AnyProblem, Problem},
    secret::hex,
};

/// How many pieces of an export wait for a slow reader.
const PIECES: usize = 4;

/// How long an erasure waits for the store's file to be clean, at most.
const PATIENCE: Duration = Duration::from_secs(10);

/// How large a piece of an export is at least, but for the last one.
const PIECE: usize = 64 << 10;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(profiles)).routes(routes!(take_out)).routes(routes!(erase))
}

#[derive(Debug, Deserialize)]
struct UserPath {
    user: String,
}

/// List the profiles of a user
///
/// In every store.
#[utoipa::path(
    get,
    path = "/v1/users/{user}/profiles",
    operation_id = "list_user_profiles",
    tag = "users",
    params(("user" = String, Path, description = "A number, or a name"), Page),
    responses(
        (status = 200, body = PageOf<ProfileRow>),
        AnyProblem,
    )
)]
async fn profiles(
    State(app): State<App>,
    caller: Caller,
    InPath(UserPath { user }): InPath<UserPath>,
    Params(page): Params<Page>,
) -> Result<Response, Problem> {
    caller.may_everywhere(Scope::ProfilesRead)?;
    Ok(views::json(StatusCode::OK, &across(&app, user_of(&user)?.keys(), &page).await?))
}

/// Take out all that is stored of a user
///
/// Every kept version of every profile of the user, as lines of JSON: what `profilestore export`
/// writes. A body that ends in the middle of a line was broken off.
#[utoipa::path(
    get,
    path = "/v1/users/{user}/export",
    operation_id = "export_user",
    tag = "users",
    params(("user" = String, Path, description = "A number, or a name")),
    responses(
        (status = 200, body = String, content_type = "application/x-ndjson"),
        AnyProblem,
    )
)]
async fn take_out(
    State(app): State<App>,
    caller: Caller,
    InPath(UserPath { user }): InPath<UserPath>,
) -> Result<Response, Problem> {
    caller.may_everywhere(Scope::UsersExport)?;
    let keys = user_of(&user)?.keys();
    let turn = app.exporting().try_acquire_owned().map_err(|_| {
        let detail = "too many exports are under way at this process; try again when one has ended";
        Problem::new("overloaded", detail)
    })?;
    let (pieces, written) = mpsc::sync_channel(PIECES);
    let store = app.shared_store();
    let runtime = Handle::current();
    // Writing blocks, so that a slow reader holds up this export and nothing else.
    spawn_blocking(move || {
        let _turn = turn;
        let filter = ExportFilter { keys, ..ExportFilter::default() };
        let mut writer = Pieces { pieces: pieces.clone(), gathered: Vec::new() };
        let done = runtime.block_on(export(&*store, &filter, &mut writer, &mut |_| {}));
        if let Err(error) = done {
            tracing::warn!(%error, "an export was broken off");
            let _ = pieces.send(Err(io::Error::other("the export was broken off")));
        }
    });
    let body = stream::unfold(written, |written| async move {
        let next = spawn_blocking(move || written.recv().ok().map(|piece| (piece, written)));
        next.await.ok().flatten()
    });
    let mut response = Body::from_stream(body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Hands what is written on, in pieces.
struct Pieces {
    pieces: mpsc::SyncSender<io::Result<Bytes>>,
    gathered: Vec<u8>,
}

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.gathered));
        self.pieces.send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// How far an erasure goes.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct How {
    /// Profiles that belong to other users too are erased as well.
    shared: Option<bool>,
    /// Why, for the audit log: at most 2,000 bytes.
    reason: Option<String>,
}

/// Erase a user
///
/// Every profile of the user, with its history and messages, and what the audit log holds of it.
/// Sessions end. The answer is a certificate: what was erased, when, by whom, and a SHA-256 of it.
/// Not erased are backups and exports. Doing it again goes on with what is left.
///
/// Then the store's file is cleaned beside play, so that no byte of it is left: `bytes_gone`. That
/// takes longer than this request with a large file; it waits for some seconds. `cleaning` has the
/// operation in the audit log, and its outcome until now. It is null for a database, whose files
/// and logs are the database's own.
#[utoipa::path(
    post,
    path = "/v1/users/{user}/erasures",
    operation_id = "erase_user",
    tag = "users",
    params(("user" = String, Path, description = "A number, or a name"), How),
    responses(
        (status = 200, body = serde_json::Value),
        AnyProblem,
    )
)]
async fn erase(
    State(app): State<App>,
    caller: Caller,
    InPath(UserPath { user }): InPath<UserPath>,
    Params(how): Params<How>,
    content: Content,
) -> Result<Response, Problem> {
    caller.may_everywhere(Scope::UsersErase)?;
    content.nothing()?;
    let by = caller.because(how.reason.as_deref());
    let operator = app.server().operator(by.clone());
    let (user, shared) = (user_of(&user)?, how.shared.unwrap_or(false));
    let until = app.env().now() + app.request_time();
    // A task of its own: a request that ends early ends neither the erasure nor the cleaning.
    let erasing = tokio::spawn(erase_and_clean(app.clone(), operator, user, shared, until));
    let broken_off = |_| Problem::new("internal", "the erasure was broken off");
    let (report, bytes) = erasing.await.map_err(broken_off)??;
    let left = bytes.are_left_in().map(|left| format!("; {left}")).unwrap_or_default();
    let certificate = json!({
        "report": report,
        "is_complete": report.is_complete(),
        "bytes_gone": bytes.are_gone(),
        "cleaning": bytes.cleaning(),
        "by": by.author,
        "reason": by.reason,
        "at_ms": app.env().unix_ms(),
        "not_erased": format!("backups, exports, and what the game itself keeps elsewhere{left}"),
    });
    let digest = hex(&Sha256::digest(certificate.to_string().as_bytes()));
    let body = json!({ "certificate": certificate, "sha256": digest });
    Ok(views::json(StatusCode::OK, &body))
}

/// Erases a user and has the file cleaned, also when the erasure fails after some profiles. Waits
/// for the cleaning for half of the time until then.
async fn erase_and_clean(
    app: App,
    operator: Operator,
    user: UserId,
    shared: bool,
    until: Instant,
) -> Result<(EraseReport, cleaning::Bytes), Error> {
    let report = match operator.erase_user(user, shared).await {
        Ok(report) => report,
        Err(error) => {
            // Where the request is wrong, nothing was erased.
            if error.kind() != ErrorKind::Invalid {
                // Beside the answer: the store may be what failed.
                let cleaner = app.cleaner().clone();
                tokio::spawn(async move {
                    cleaner.clean(&operator, None, Duration::ZERO).await;
                });
            }
            return Err(error);
        }
    };
    let left = until.saturating_duration_since(app.env().now());
    let patience = PATIENCE.min(left / 2);
    let bytes = app.cleaner().clean(&operator, Some(report.operation), patience).await;
    Ok((report, bytes))
}
