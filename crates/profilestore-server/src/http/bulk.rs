//! Edits of many profiles: trying, beginning, watching, pausing, going on, undoing.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use profilestore::{Attribution, Edit, ProfileKey, audit::MAX_REASON_BYTES, key::DEFAULT_SCOPE};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{
    events::{Told, every_second},
    extract::{
        Content, InPath, Page, Params, Reason, key_token, moment, operation, page_size,
        parse_key_token,
    },
    views::{self, PageOf},
};
use crate::{
    app::App,
    auth::Caller,
    bulk::{
        BackTo, Counts, Preview, Record, RefusedProfile, State as Stage, Tried, Which, preview,
    },
    keys::Scope,
    problem::{AnyProblem, Problem, ProblemBody},
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, begin))
        .routes(routes!(read))
        .routes(routes!(watch))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(undo))
}

/// An edit of many profiles.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewBulkEdit {
    /// The store.
    store: String,
    /// Only this scope of it; every scope otherwise.
    scope: Option<String>,
    /// Only keys that begin so.
    prefix: Option<String>,
    /// Only profiles whose saved data matches, such as `/coins > 1000` (docs/search.md).
    r#where: Option<String>,
    /// The steps: JSON Patch (RFC 6902); `set`, `increase`, `merge` and `restore` may be among
    /// them. Either these or `back_to`.
    #[schema(value_type = Option<Vec<Object>>)]
    operations: Option<Box<RawValue>>,
    /// Put places back to what they were at a time, in each profile by its own history.
    back_to: Option<NewBackTo>,
    /// Why, for the audit log: at most 2,000 bytes.
    reason: Option<String>,
    /// Only say what it would do.
    #[serde(default)]
    dry_run: bool,
    /// With `dry_run`: go on where the answer before ended, its `next_page_token`.
    page_token: Option<String>,
    /// With `dry_run`: show so many profiles with their changes, 1 to 500, and end the answer then,
    /// so that all of them are shown in the end. Otherwise 20 are shown and the others counted.
    samples: Option<usize>,
}

/// What to put back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewBackTo {
    /// The time: Unix milliseconds as a text, or RFC 3339.
    time: String,
    /// The places: 1 to 20 JSON pointers (RFC 6901). A list is put back as a whole.
    paths: Vec<String>,
}

impl NewBackTo {
    fn settle(self, now_ms: i64) -> Result<BackTo, Problem> {
        let at_ms = moment("time", Some(&self.time))?.unwrap_or_default();
        let back = BackTo { at_ms, paths: self.paths };
        back.check(now_ms)?;
        Ok(back)
    }
}

/// An edit of many profiles, as it is now.
#[derive(Debug, Serialize, ToSchema)]
struct BulkView {
    /// Its identity: the Idempotency-Key that began it.
    operation: Uuid,
    /// How far it is.
    state: Stage,
    #[serde(flatten)]
    which: Which,
    /// The steps. Null for an operation that undoes another, or puts places back.
    #[schema(value_type = Option<Vec<Object>>)]
    operations: Value,
    /// The places that it puts back, and to when. Null for any other operation.
    back_to: Option<BackTo>,
    /// The operation that it undoes.
    undoes: Option<Uuid>,
    /// The operation that undoes it.
    undone_by: Option<Uuid>,
    /// In whose name.
    author: String,
    /// Why.
    reason: String,
    /// When it began, Unix milliseconds.
    began_ms: i64,
    /// How many profiles there were to look at. Null: they are not counted, or not yet.
    total: Option<u64>,
    /// How many of them the run has seen to. A run that goes on where another one ended counts from
    /// the beginning: it looks at them all again, and leaves alone those that were seen to.
    done: u64,
    /// How many wait for the game servers that hold them.
    waiting: u64,
    /// What became of the profiles in the last run. What earlier runs did is in `before`. Null: no
    /// run has come to its end, or its process ended at that moment; the audit log has it then.
    counts: Option<Counts>,
    /// Some profiles that were refused.
    refused: Vec<RefusedProfile>,
    /// Why the last run ended before its end.
    error: Option<String>,
}

impl BulkView {
    async fn of(app: &App, record: Record) -> Result<Self, Problem> {
        let state = app.bulk().state(&record).await?;
        Ok(Self {
            operation: record.operation,
            state,
            which: record.which,
            operations: record.operations,
            back_to: record.back_to,
            undoes: record.undoes,
            undone_by: record.undone_by,
            author: record.author,
            reason: record.reason,
            began_ms: record.began_ms,
            total: record.total,
            done: record.done,
            waiting: record.waiting,
            counts: record.counts,
            refused: record.refused,
            error: record.error,
        })
    }
}

/// What is to be done to each profile: exactly one of the two.
fn tried(
    operations: Option<&RawValue>,
    back_to: Option<NewBackTo>,
    now_ms: i64,
) -> Result<Tried, Problem> {
    match (operations, back_to) {
        (Some(operations), None) => {
            let edit = Edit::from_patch(operations.get())?;
            edit.check()?;
            Ok(Tried::Edit(edit))
        }
        (None, Some(back)) => Ok(Tried::Back(back.settle(now_ms)?)),
        _ => Err(Problem::invalid("the body has either `operations` or `back_to`")),
    }
}

/// Whether the caller may edit these profiles all at once.
fn may_edit(caller: &Caller, which: &Which) -> Result<(), Problem> {
    let prefix = which.prefix.as_deref().filter(|prefix| !prefix.is_empty());
    if let (Some(own), None) = (caller.prefix(), prefix) {
        let detail = format!("the key is narrowed; name a prefix that begins with `{own}`");
        return Err(Problem::new("forbidden", detail));
    }
    let scope = which.scope.as_deref().unwrap_or(DEFAULT_SCOPE);
    let named = ProfileKey::new(&which.store, scope, prefix.unwrap_or("any"))
        .map_err(|error| Problem::invalid(error.to_string()))?;
    caller.may(Scope::EditsBulk, &named)
}

fn accepted(view: &BulkView) -> Response {
    let mut response = views::json(StatusCode::ACCEPTED, view);
    if let Ok(place) = HeaderValue::from_str(&format!("/v1/edits/{}", view.operation)) {
        response.headers_mut().insert(header::LOCATION, place);
    }
    response
}

/// List the edits of many profiles
///
/// Those that were begun over HTTP, newest first. The caller sees those that it may make.
#[utoipa::path(
    get,
    path = "/v1/edits",
    operation_id = "list_bulk_edits",
    tag = "bulk edits",
    params(Page),
    responses((status = 200, body = PageOf<BulkView>), AnyProblem)
)]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(page): Params<Page>,
) -> Result<Response, Problem> {
    caller.has(Scope::EditsBulk)?;
    let limit = page_size(page.page_size)?;
    let after = page.page_token.as_deref().map(Uuid::try_parse).transpose();
    let after = after.map_err(|_| Problem::invalid("page_token is not what a page before had"))?;
    let mut records = app.bulk().list().await?;
    records.retain(|record| {
        after.is_none_or(|after| record.operation < after)
            && may_edit(&caller, &record.which).is_ok()
    });
    let last = records.get(limit.saturating_sub(1)).filter(|_| records.len() > limit);
    let next_page_token = last.map(|record| record.operation.to_string());
    records.truncate(limit);
    let mut items = Vec::with_capacity(records.len());
    for record in records {
        items.push(BulkView::of(&app, record).await?);
    }
    Ok(views::json(StatusCode::OK, &PageOf { items, next_page_token }))
}

/// Edit many profiles
///
/// Every profile of the store that is there when the edit comes to it is edited once, those that
/// are played too, however often the operation is broken off and resumed. It goes on behind the
/// answer. The same `Idempotency-Key` again begins nothing; it goes on with an operation whose
/// server process has ended. With `dry_run` nothing is changed: the answer says what would become
/// of the profiles that it looked at, for two seconds, and where to go on. That needs no
/// `Idempotency-Key`, and the scope `profiles:read` too.
///
/// With `back_to` in the place of `operations`, each profile gets what it had at these places at
/// that time. One that has moved on meanwhile loses what came since at these places, and nothing
/// else. One that was not there then is left alone, and one whose history does not reach back so
/// far is refused.
#[utoipa::path(
    post,
    path = "/v1/edits",
    operation_id = "begin_bulk_edit",
    tag = "bulk edits",
    params(("Idempotency-Key" = Option<String>, Header, description = "A version 7 UUID")),
    request_body = NewBulkEdit,
    responses(
        (status = 200, body = Preview, description = "What it would do"),
        (status = 202, body = BulkView, headers(("Location" = String))),
        (status = 422, body = ProblemBody<'_>, content_type = "application/problem+json"),
        AnyProblem,
    )
)]
async fn begin(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    content: Content,
) -> Result<Response, Problem> {
    caller.has(Scope::EditsBulk)?;
    let new: NewBulkEdit = content.json()?;
    let which =
        Which { store: new.store, scope: new.scope, prefix: new.prefix, filter: new.r#where };
    may_edit(&caller, &which)?;
    let now_ms = app.server().now_ms();
    let tried = tried(new.operations.as_deref(), new.back_to, now_ms)?;
    let scope = which.scope()?;
    if new.dry_run {
        caller.has(Scope::ProfilesRead)?;
        let after = parse_key_token(new.page_token.as_deref())?;
        let samples = new.samples.map(|samples| page_size(Some(samples))).transpose()?;
        let mut found = preview(app.store(), app.env(), &scope, &tried, after, samples).await?;
        found.next_page_token = found.next.as_ref().map(key_token);
        return Ok(views::json(StatusCode::OK, &found));
    }
    if new.page_token.is_some() || new.samples.is_some() {
        return Err(Problem::invalid("page_token and samples are for a dry run"));
    }
    let operation = operation(&headers)?;
    let by = because(&caller, new.reason.as_deref())?;
    let (steps, back_to) = match tried {
        Tried::Edit(edit) => (steps_of(&edit)?, None),
        Tried::Back(back) => (Value::Null, Some(back)),
    };
    let mut record = Record::new(operation, app.env().uuid(), which, steps, by, now_ms);
    record.back_to = back_to;
    let record = app.bulk().begin(record).await?;
    Ok(accepted(&BulkView::of(&app, record).await?))
}

fn steps_of(edit: &Edit) -> Result<Value, Problem> {
    let steps = serde_json::to_value(edit)
        .map_err(|error| Problem::new("internal", format!("the edit is no JSON: {error}")))?;
    Ok(steps.get("ops").cloned().unwrap_or_default())
}

/// In whose name, and why. It is written down before the library sees it.
fn because(caller: &Caller, reason: Option<&str>) -> Result<Attribution, Problem> {
    let bytes = reason.map_or(0, str::len);
    if bytes > MAX_REASON_BYTES {
        let detail = format!("the reason is too long: bytes=`{bytes}` limit=`{MAX_REASON_BYTES}`");
        return Err(Problem::invalid(detail));
    }
    Ok(caller.because(reason))
}

#[derive(Debug, Deserialize)]
struct BulkPath {
    operation: String,
}

/// The operation that a path names, if the caller may see it.
async fn named(app: &App, caller: &Caller, path: &BulkPath) -> Result<Record, Problem> {
    caller.has(Scope::EditsBulk)?;
    let operation = Uuid::try_parse(&path.operation).map_err(|_| {
        Problem::invalid(format!("an operation is a UUID: given=`{}`", path.operation))
    })?;
    let record = app.bulk().find(operation).await?;
    may_edit(caller, &record.which)?;
    Ok(record)
}

/// How far an edit of many profiles is
#[utoipa::path(
    get,
    path = "/v1/edits/{operation}",
    operation_id = "read_bulk_edit",
    tag = "bulk edits",
    params(("operation" = String, Path)),
    responses(
        (status = 200, body = BulkView),
        (status = 404, body = ProblemBody<'_>, content_type = "application/problem+json"),
        AnyProblem,
    )
)]
async fn read(
    State(app): State<App>,
    caller: Caller,
    InPath(path): InPath<BulkPath>,
) -> Result<Response, Problem> {
    let record = named(&app, &caller, &path).await?;
    Ok(views::json(StatusCode::OK, &BulkView::of(&app, record).await?))
}

/// Watch an edit of many profiles
///
/// A stream of events (SSE), one a second, until it is running no more.
#[utoipa::path(
    get,
    path = "/v1/edits/{operation}/events",
    operation_id = "watch_bulk_edit",
    tag = "bulk edits",
    params(("operation" = String, Path)),
    responses(
        (status = 200, body = BulkView, content_type = "text/event-stream"),
        (status = 404, body = ProblemBody<'_>, content_type = "application/problem+json"),
        AnyProblem,
    )
)]
async fn watch(
    State(app): State<App>,
    caller: Caller,
    InPath(path): InPath<BulkPath>,
) -> Result<Response, Problem> {
    let operation = named(&app, &caller, &path).await?.operation;
    Ok(every_second(app, caller, move |app| async move {
        let record = app.bulk().find(operation).await.ok()?;
        let value = BulkView::of(&app, record).await.ok()?;
        let is_last = value.state != Stage::Running;
        Some(Told { value, is_last })
    }))
}

/// Pause an edit of many profiles
///
/// A second later at the latest nothing more is edited, whichever process runs it.
#[utoipa::path(
    post,
    path = "/v1/edits/{operation}/pause",
    operation_id = "pause_bulk_edit",
    tag = "bulk edits",
    params(("operation" = String, Path)),
    responses((status = 202, body = BulkView), AnyProblem)
)]
async fn pause(
    State(app): State<App>,
    caller: Caller,
    InPath(path): InPath<BulkPath>,
) -> Result<Response, Problem> {
    let Record { operation, .. } = named(&app, &caller, &path).await?;
    app.bulk().pause(operation).await?;
    let record = app.bulk().find(operation).await?;
    Ok(accepted(&BulkView::of(&app, record).await?))
}

/// Go on with an edit of many profiles
///
/// After a pause, a failure, or the end of the server process that ran it; at the process that is
/// asked. Profiles that were edited are left alone. It stays booked in the name of the caller who
/// began it. Of no effect on one that is done.
#[utoipa::path(
    post,
    path = "/v1/edits/{operation}/resume",
    operation_id = "resume_bulk_edit",
    tag = "bulk edits",
    params(("operation" = String, Path)),
    responses((status = 202, body = BulkView), AnyProblem)
)]
async fn resume(
    State(app): State<App>,
    caller: Caller,
    InPath(path): InPath<BulkPath>,
) -> Result<Response, Problem> {
    let Record { operation, .. } = named(&app, &caller, &path).await?;
    app.bulk().resume(operation).await?;
    let record = app.bulk().find(operation).await?;
    Ok(accepted(&BulkView::of(&app, record).await?))
}

/// Undo an edit of many profiles
///
/// Begins another operation, which takes back what the first one did, profile by profile; a value
/// that was changed since stays. One that still runs is stopped first. An edit is undone once: what
/// was added would be subtracted a second time.
#[utoipa::path(
    post,
    path = "/v1/edits/{operation}/undo",
    operation_id = "undo_bulk_edit",
    tag = "bulk edits",
    params(
        ("operation" = String, Path),
        ("Idempotency-Key" = String, Header, description = "A version 7 UUID"),
        Reason,
    ),
    responses(
        (status = 202, body = BulkView, headers(("Location" = String))),
        (status = 409, body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 422, body = ProblemBody<'_>, content_type = "application/problem+json"),
        AnyProblem,
    )
)]
async fn undo(
    State(app): State<App>,
    caller: Caller,
    InPath(path): InPath<BulkPath>,
    Params(reason): Params<Reason>,
    headers: HeaderMap,
    content: Content,
) -> Result<Response, Problem> {
    let of = named(&app, &caller, &path).await?;
    content.nothing()?;
    let operation = operation(&headers)?;
    let by = because(&caller, reason.reason.as_deref())?;
    let (run, now_ms) = (app.env().uuid(), app.server().now_ms());
    let mut record = Record::new(operation, run, of.which, Value::Null, by, now_ms);
    record.undoes = Some(of.operation);
    app.bulk().stop(of.operation).await?;
    let record = app.bulk().begin(record).await?;
    Ok(accepted(&BulkView::of(&app, record).await?))
}
