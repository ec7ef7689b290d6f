//! A profile's history: listing, reading and comparing versions, pinning them, rolling back.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use profilestore::{
    ErrorKind, ProfileKey,
    data_store::{
        DataStoreExt as _, KeyState, Order, Returning, StoredVersion, VersionQuery, VersionRef,
    },
    history::{Difference, comparable, diff, find_version, not_undone, version_at},
    operator::{Expected, Restored},
    record::Stored,
};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    edits::booked,
    extract::{
        Content, InPath, Named, Page, Params, Reason, etag_of, expected, moment, operation,
        page_size, timely,
    },
    profiles::shown,
    views::{self, PageOf, VersionView},
};
use crate::{
    app::App,
    auth::Caller,
    keys::Scope,
    problem::{AnyProblem, Problem, ProblemBody},
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(read))
        .routes(routes!(compare))
        .routes(routes!(exchanged))
        .routes(routes!(restore))
        .routes(routes!(pin, unpin))
}

/// Which versions.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Oldest first; newest first otherwise.
    oldest_first: Option<bool>,
    /// Only those written since then: Unix milliseconds, or RFC 3339.
    since: Option<String>,
    /// Only those written until then.
    until: Option<String>,
    /// At most so many, 1 to 500; 100.
    page_size: Option<usize>,
    /// Go on where the page before ended: its `next_page_token`.
    page_token: Option<String>,
}

/// List a profile's versions
#[utoipa::path(
    get,
    path = "/profiles/{key}/versions",
    operation_id = "list_versions",
    tag = "history",
    params(("store" = String, Path), ("key" = String, Path), Which),
    responses(
        (status = 200, body = PageOf<VersionView>),
        AnyProblem,
    )
)]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Named(key): Named,
    Params(which): Params<Which>,
) -> Result<Response, Problem> {
    caller.may(Scope::ProfilesRead, &key)?;
    let oldest_first = which.oldest_first.unwrap_or(false);
    let after = which.page_token.as_deref().map(str::parse).transpose();
    let after = after.map_err(|_| Problem::invalid("page_token is not what a page before had"))?;
    let query = VersionQuery {
        key: key.clone(),
        order: if oldest_first { Order::Ascending } else { Order::Descending },
        from_ms: moment("since", which.since.as_deref())?,
        to_ms: moment("until", which.until.as_deref())?,
        after,
        limit: page_size(which.page_size)?,
    };
    let (_, state) = app.store().read_one(&key, Returning::HEAD).await?;
    let page = app.store().versions(&query).await?;
    let last = page.last().map(|info| info.number.to_string());
    let next_page_token = last.filter(|_| page.len() >= query.limit);
    let items = page.into_iter().map(|info| VersionView::of(info, state.created_ms)).collect();
    Ok(views::json(StatusCode::OK, &PageOf { items, next_page_token }))
}

#[derive(Debug, Deserialize)]
struct VersionPath {
    version: String,
}

/// Read an earlier version
///
/// By its number, by its version string, or as it was at a time: `@2026-11-20T18:30:00Z`.
#[utoipa::path(
    get,
    path = "/profiles/{key}/versions/{version}",
    operation_id = "read_version",
    tag = "history",
    params(
        ("store" = String, Path),
        ("key" = String, Path),
        ("version" = String, Path, description = "A number, a version string, or @TIME"),
    ),
    responses(
        (status = 200, body = super::views::ProfileView<'_>),
        (status = 404, body = ProblemBody<'_>, content_type = "application/problem+json"),
        AnyProblem,
    )
)]
async fn read(
    State(app): State<App>,
    caller: Caller,
    Named(key): Named,
    InPath(VersionPath { version }): InPath<VersionPath>,
) -> Result<Response, Problem> {
    caller.may(Scope::ProfilesRead, &key)?;
    let (now_ms, state) = app.store().read_one(&key, Returning::INBOX).await?;
    let version = found(&app, &state, &version).await?;
    shown(&state, &version, None, now_ms)
}

/// The version that a text names.
async fn found(app: &App, state: &KeyState, text: &str) -> Result<StoredVersion, Problem> {
    let none = || {
        let detail = format!("there is no such version, or no longer: version=`{text}`");
        Problem::new("not-found", detail).about(&state.key)
    };
    let found = match text.strip_prefix('@') {
        Some(time) => {
            let time = moment("the time behind @", Some(time))?.unwrap_or_default();
            version_at(app.store(), state, time).await?
        }
        None => find_version(app.store(), state, &version_ref(text)).await?,
    };
    found.ok_or_else(none)
}

fn version_ref(text: &str) -> VersionRef {
    match text.parse() {
        Ok(number) => VersionRef::Number(number),
        Err(_) => VersionRef::Label(text.to_owned()),
    }
}

/// Which versions to compare.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Compared {
    /// The earlier one: a number, a version string, or @TIME.
    from: String,
    /// The later one; the current one otherwise.
    to: Option<String>,
}

/// What differs between two versions.
#[derive(Debug, Serialize, ToSchema)]
struct DiffView {
    /// The number of the earlier one.
    from: u64,
    /// The number of the later one.
    to: u64,
    /// Each place that differs: `path`, and `before` and `after` where there is something.
    #[schema(value_type = Vec<Object>)]
    differences: Vec<Difference>,
}

/// Compare two versions
#[utoipa::path(
    get,
    path = "/profiles/{key}/diff",
    operation_id = "compare_versions",
    tag = "history",
    params(("store" = String, Path), ("key" = String, Path), Compared),
    responses(
        (status = 200, body = DiffView),
        (status = 404, body = ProblemBody<'_>, content_type = "application/problem+json"),
        AnyProblem,
    )
)]
async fn compare(
    State(app): State<App>,
    caller: Caller,
    Named(key): Named,
    Params(compared): Params<Compared>,
) -> Result<Response, Problem> {
    caller.may(Scope::ProfilesRead, &key)?;
    let (_, state) = app.store().read_one(&key, Returning::HEAD).await?;
    let from = found(&app, &state, &compared.from).await?;
    let current = state.version.to_string();
    let to = found(&app, &state, compared.to.as_deref().unwrap_or(&current)).await?;
    let differences = diff(&content(&key, &from)?, &content(&key, &to)?);
    let view = DiffView { from: from.info.number, to: to.info.number, differences };
    Ok(views::json(StatusCode::OK, &view))
}

fn content(key: &ProfileKey, version: &StoredVersion) -> Result<Value, Problem> {
    let stored = version.value.as_deref().map(Stored::decode).transpose();
    let stored = stored.map_err(profilestore::Error::from)?;
    comparable(stored.as_ref()).map_err(|error| {
        let detail = format!("a version cannot be compared: {error}");
        Problem::new("undecodable", detail).about(key)
    })
}

/// List what a profile exchanged with others
///
/// What its commits did beyond itself, oldest first: messages that it took out of its inbox
/// (`taken`), those that it `sent`, and the `trade` with other profiles, for each version that did
/// something. It reaches back as far as the history. A rollback undoes none of it.
#[utoipa::path(
    get,
    path = "/profiles/{key}/exchanges",
    operation_id = "list_exchanges",
    tag = "history",
    params(("store" = String, Path), ("key" = String, Path), Page),
    responses(
        (status = 200, body = PageOf<serde_json::Value>),
        AnyProblem,
    )
)]
async fn exchanged(
    State(app): State<App>,
    caller: Caller,
    Named(key): Named,
    Params(page): Params<Page>,
) -> Result<Response, Problem> {
    caller.may(Scope::ProfilesRead, &key)?;
    let after = page.page_token.as_deref().map(str::parse).transpose();
    let after = after.map_err(|_| Problem::invalid("page_token is not what a page before had"))?;
    let limit = page_size(page.page_size)?;
    let items = app.store().links(&key, after.unwrap_or(0), limit).await?;
    let last = items.last().map(|links| links.version.to_string());
    let next_page_token = last.filter(|_| items.len() >= limit);
    Ok(views::json(StatusCode::OK, &PageOf { items, next_page_token }))
}

/// What a rollback did.
#[derive(Serialize)]
struct RestoredView {
    #[serde(flatten)]
    done: Restored,
    /// For the next If-Match. None when it had been done before.
    etag: Option<String>,
}

/// Which version to go back to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Restore {
    /// A number (also as a JSON number), a version string, or @TIME.
    #[serde(deserialize_with = "number_or_text")]
    version: String,
    /// Only say what would differ, and what would not be undone.
    #[serde(default)]
    dry_run: bool,
}

/// A version may be named by a JSON number too.
fn number_or_text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a version is a whole number or a text")]
    enum Either {
        Number(u64),
        Text(String),
    }
    Ok(match Either::deserialize(from)? {
        Either::Number(number) => number.to_string(),
        Either::Text(text) => text,
    })
}

/// Roll a profile back
///
/// Makes an earlier version current again, as a new version, and ends whatever session there is:
/// what that has not saved is lost. Waiting messages stay. The answer lists gifts and trades since,
/// which stay done. The same `Idempotency-Key` again rolls back no second time; for another version
/// it is refused, and so is the key of an edit of many profiles.
///
/// `If-Match` names what the rollback goes over, as a dry run or reading the profile has told it;
/// `If-None-Match: *` says that there is no such profile now. Only a dry run needs neither of them,
/// and no `Idempotency-Key`.
#[utoipa::path(
    post,
    path = "/profiles/{key}/restores",
    operation_id = "restore_version",
    tag = "history",
    params(
        ("store" = String, Path),
        ("key" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "A version 7 UUID"),
        ("If-Match" = Option<String>, Header, description = "The ETag that was read"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: there is no such profile"),
        Reason,
    ),
    request_body = Restore,
    responses(
        (status = 200, body = serde_json::Value),
        (status = 404, body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 412, body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 422, body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 428, body = ProblemBody<'_>, content_type = "application/problem+json"),
        AnyProblem,
    )
)]
async fn restore(
    State(app): State<App>,
    caller: Caller,
    Named(key): Named,
    Params(reason): Params<Reason>,
    headers: HeaderMap,
    content_: Content,
) -> Result<Response, Problem> {
    caller.may(Scope::HistoryRestore, &key)?;
    let Restore { version, dry_run } = content_.json()?;
    // Before the reading: at worst it names contents that are gone, and If-Match fails.
    let incarnation = app.server().incarnation();
    let (_, state) = app.store().read_one(&key, Returning::HEAD).await?;
    if dry_run {
        // It shows what is stored.
        caller.may(Scope::ProfilesRead, &key)?;
        let to = found(&app, &state, &version).await?;
        let from = found(&app, &state, &state.version.to_string()).await?;
        let differences = diff(&content(&key, &from)?, &content(&key, &to)?);
        let not_undone = not_undone(app.store(), &key, to.info.number).await?;
        let body = json!({
            "would_restore": to.info.number, "would_replace": state.version,
            "etag": etag_of(&key, Expected::of(incarnation, &state)),
            "differences": differences, "not_undone": not_undone,
        });
        return Ok(views::json(StatusCode::OK, &body));
    }
    let operation = operation(&headers)?;
    let expected = expected(&key, &headers)?;
    app.bulk().check_unused(operation).await?;
    // One that comes again is answered, however long ago it was.
    if let Err(untimely) = timely(operation, app.server().now_ms())
        && booked(&app, operation, &key).await?.is_none()
    {
        return Err(untimely);
    }
    let which = match version.starts_with('@') {
        true => VersionRef::Number(found(&app, &state, &version).await?.info.number),
        false => version_ref(&version),
    };
    let operator = app.server().operator(caller.because(reason.reason.as_deref()));
    let restored = operator.restore_if(operation, &key, expected, which).await;
    let done = restored.map_err(|error| match error.kind() {
        ErrorKind::RequestIdReused => {
            Problem::new("idempotency-key-reused", error.to_string()).about(&key)
        }
        _ => error.into(),
    })?;
    let etag = done.now.and_then(|now| etag_of(&key, now));
    Ok(views::json(StatusCode::OK, &RestoredView { done, etag }))
}

/// Keep a version whatever the retention
#[utoipa::path(
    put,
    path = "/profiles/{key}/versions/{version}/pin",
    operation_id = "pin_version",
    tag = "history",
    params(
        ("store" = String, Path),
        ("key" = String, Path),
        ("version" = String, Path, description = "A number, or a version string"),
        Reason,
    ),
    responses(
        (status = 204, description = "It is pinned"),
        AnyProblem,
    )
)]
async fn pin(
    State(app): State<App>,
    caller: Caller,
    Named(key): Named,
    InPath(path): InPath<VersionPath>,
    Params(reason): Params<Reason>,
) -> Result<Response, Problem> {
    pinned(&app, &caller, &key, &path.version, reason, true).await
}

/// Leave a version to the retention again
#[utoipa::path(
    delete,
    path = "/profiles/{key}/versions/{version}/pin",
    operation_id = "unpin_version",
    tag = "history",
    params(
        ("store" = String, Path),
        ("key" = String, Path),
        ("version" = String, Path, description = "A number, or a version string"),
        Reason,
    ),
    responses(
        (status = 204, description = "It is not pinned any more"),
        AnyProblem,
    )
)]
async fn unpin(
    State(app): State<App>,
    caller: Caller,
    Named(key): Named,
    InPath(path): InPath<VersionPath>,
    Params(reason): Params<Reason>,
) -> Result<Response, Problem> {
    pinned(&app, &caller, &key, &path.version, reason, false).await
}

async fn pinned(
    app: &App,
    caller: &Caller,
    key: &ProfileKey,
    version: &str,
    reason: Reason,
    pinned: bool,
) -> Result<Response, Problem> {
    caller.may(Scope::HistoryRestore, key)?;
    let operator = app.server().operator(caller.because(reason.reason.as_deref()));
    operator.pin(key, version_ref(version), pinned).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
