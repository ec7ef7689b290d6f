//! Profiles: reading, listing, writing without a session, removing.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use profilestore::{
    Error, ErrorKind, ProfileKey,
    data_store::{
        DataStoreExt as _, KeyFilter, KeyQuery, KeyState, Returning, StoreError, StoredVersion,
    },
    key::DEFAULT_SCOPE,
    operator::Written,
    record::{Record, Stored},
    storable::DATA,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    edits::edit_of,
    extract::{
        Content, InPath, Named, Params, Reason, etag, etag_of, expected, has_it, key_token, moment,
        page_size, parse_key_token, user,
    },
    search::{Found, FoundBy, filter, list as listed, search, waiting},
    views::{HolderView, ProfileRow, ProfileView, json, json_tagged},
};
use crate::{
    app::App,
    auth::Caller,
    keys::Scope,
    problem::{AnyProblem, Problem, ProblemBody},
};

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(read, write, change, remove))
}

/// Which profiles.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Only keys that begin so.
    prefix: Option<String>,
    /// Only profiles associated with this user: a number, or a name.
    user: Option<String>,
    /// Only profiles that a session holds.
    held: Option<bool>,
    /// Only profiles for which messages wait, those that are not there yet too. There is no index
    /// on that: an answer looks at 5,000 keys or a few more, for about a second.
    messages_waiting: Option<bool>,
    /// Only profiles stored since then: Unix milliseconds, or RFC 3339. There is no index on that:
    /// an answer looks at 5,000 keys or a few more, for about a second.
    updated_since: Option<String>,
    /// Only profiles whose saved data matches, such as `/coins > 1000 and has /items/sword`
    /// (docs/search.md). There is no index on values: an answer looks at 5,000 keys at most, for
    /// about a second.
    r#where: Option<String>,
    /// At most so many, 1 to 500; 100.
    page_size: Option<usize>,
    /// Go on where the page before ended: its `next_page_token`.
    page_token: Option<String>,
}

#[derive(Debug, Deserialize)]
struct InStore {
    store: String,
    scope: Option<String>,
}

/// List profiles
///
/// Ordered by key. A page may be short, or empty, although more follow: go on while there is a
/// `next_page_token`. `scanned` says how far a search has come; to call it off, ask no more.
#[utoipa::path(
    get,
    path = "/profiles",
    operation_id = "list_profiles",
    tag = "profiles",
    params(("store" = String, Path), Which),
    responses(
        (status = 200, body = Found),
        AnyProblem,
    )
)]
async fn list(
    State(app): State<App>,
    caller: Caller,
    InPath(InStore { store, scope }): InPath<InStore>,
    Params(which): Params<Which>,
) -> Result<Response, Problem> {
    let scope = scope.unwrap_or_else(|| DEFAULT_SCOPE.to_owned());
    // A key that is narrowed sees what it reaches and nothing else.
    let own = caller.prefix().unwrap_or_default().to_owned();
    let prefix = match which.prefix {
        Some(prefix) if prefix.starts_with(&own) => prefix,
        Some(prefix) if own.starts_with(&prefix) => own,
        Some(prefix) => prefix,
        None => own,
    };
    let name = if prefix.is_empty() { "any" } else { &*prefix };
    let named = ProfileKey::new(&store, &scope, name)
        .map_err(|error| Problem::invalid(error.to_string()))?;
    caller.may(Scope::ProfilesRead, &named)?;
    let since = moment("updated_since", which.updated_since.as_deref())?;
    let held = which.held.unwrap_or(false);
    let by_value = which.r#where.as_deref().map(filter).transpose()?;
    // The store has an index for one of them, and looks at nothing beyond the prefix.
    let by_user = which.user.as_deref().map(user).transpose()?;
    let (narrowed, is_looked_up) = match by_user {
        Some(user) => (user.keys(), true),
        None if held => (KeyFilter::Held, true),
        None => (KeyFilter::All, since.is_none()),
    };
    let with_messages = which.messages_waiting.unwrap_or(false);
    let by_index = is_looked_up && by_value.is_none() && !with_messages;
    let query = KeyQuery {
        store: Some(store),
        scope: Some(scope),
        filter: narrowed.within(&prefix),
        after: parse_key_token(which.page_token.as_deref())?,
        limit: page_size(which.page_size)?,
    };
    let wanted = |state: &KeyState| {
        let stored = state.head.as_ref().map(|head| head.stored_ms);
        (state.exists() || with_messages)
            && (!held || state.lease.holder.is_some())
            && since.is_none_or(|since| stored.is_some_and(|stored| stored >= since))
    };
    let mut found = match &by_value {
        Some(filter) => search(&app, query, filter).await?,
        None => listed(&app, query, with_messages, wanted).await?,
    };
    if with_messages && by_value.is_some() {
        found.waiting = waiting(&app, &found.matches).await?;
        found.matches.retain(|state| found.waiting.contains_key(&state.key));
    }
    let now_ms = app.store().identity().await?.now_ms;
    let items = found.matches.iter().filter(|state| wanted(state));
    let page = Found {
        items: items
            .map(|state| ProfileRow {
                messages_waiting: found.waiting.get(&state.key).copied(),
                ..ProfileRow::of(state, now_ms)
            })
            .collect(),
        found_by: if by_index { FoundBy::Index } else { FoundBy::Scan },
        scanned: found.scanned,
        unreadable: found.unreadable.into_iter().map(Into::into).collect(),
        next_page_token: found.next.as_ref().map(key_token),
    };
    Ok(json(StatusCode::OK, &page))
}

/// Read a profile
///
/// As it was saved last. `ETag` is what `If-Match` takes. An error about what is stored has it too,
/// as `etag`: a rollback or a removal is the way out of that.
#[utoipa::path(
    get,
    path = "/profiles/{key}",
    operation_id = "read_profile",
    tag = "profiles",
    params(
        ("store" = String, Path),
        ("key" = String, Path),
        ("If-None-Match" = Option<String>, Header, description = "An ETag: 304 if it still holds"),
    ),
    responses(
        (status = 200, body = ProfileView<'_>, headers(("ETag" = String))),
        (status = 304, description = "It is still the version of If-None-Match"),
        (status = 404, body = ProblemBody<'_>, content_type = "application/problem+json"),
        AnyProblem,
    )
)]
async fn read(
    State(app): State<App>,
    caller: Caller,
    Named(key): Named,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.may(Scope::ProfilesRead, &key)?;
    // Before the reading: at worst it names contents that are gone, and If-Match fails.
    let incarnation = app.server().incarnation();
    let (now_ms, mut state) = match app.store().read_one(&key, Returning::ALL).await {
        // A rollback and a removal are the way out of it, and need the ETag.
        Err(damaged @ StoreError::Damaged { .. }) => {
            let (_, state) = app.store().read_one(&key, Returning::HEAD).await?;
            return Err(Problem::from(damaged).with("etag", etag(incarnation, &state)));
        }
        read => read?,
    };
    if !state.exists() {
        return Err(no_profile(&key));
    }
    let tag = etag(incarnation, &state);
    if has_it(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response());
    }
    let info = state.head.take();
    let version = info.map(|info| StoredVersion { info, value: state.value.take() });
    let version = version.ok_or_else(|| no_profile(&key))?;
    let shown = shown(&state, &version, Some(tag.clone()), now_ms);
    // Whatever is there can be removed or rolled back.
    shown.map_err(|problem| problem.with("etag", tag))
}

/// The answer that shows a version of a profile.
pub(super) fn shown(
    state: &KeyState,
    version: &StoredVersion,
    tag: Option<String>,
    now_ms: i64,
) -> Result<Response, Problem> {
    let key = &state.key;
    let record = profile(key, version.value.as_deref())?;
    let inbox = state.inbox.as_deref().unwrap_or_default();
    let view = ProfileView {
        store: key.store(),
        scope: key.scope(),
        key: key.key(),
        version: version.info.number,
        etag: tag.clone(),
        data: &record.data,
        user_ids: record.users(),
        tags: &record.meta_tags,
        metadata: &record.roblox_metadata,
        created_ms: state.created_ms,
        stored_ms: version.info.stored_ms,
        cause: version.info.cause.as_str(),
        author: &version.info.author,
        held: HolderView::of(state, now_ms),
        messages_waiting: inbox.iter().filter(|message| !message.id.is_edit()).count(),
    };
    Ok(match tag {
        Some(tag) => json_tagged(StatusCode::OK, &view, &tag),
        None => json(StatusCode::OK, &view),
    })
}

/// The profile in a value.
fn profile(key: &ProfileKey, value: Option<&[u8]>) -> Result<Record, Problem> {
    let Some(value) = value else { return Err(no_profile(key)) };
    match Stored::decode(value).map_err(Error::from).map_err(Problem::from)? {
        Stored::Profile(record) => Ok(record),
        Stored::MessagesOnly(_) => Err(no_profile(key)),
        _ => Err(Problem::new("foreign", "what is stored is not a profile").about(key)),
    }
}

pub(super) fn no_profile(key: &ProfileKey) -> Problem {
    Problem::new("not-found", "there is no such profile").about(key)
}

/// The body of a write.
#[derive(Debug, Deserialize, ToSchema)]
struct NewData {
    /// The data as a whole: an object or a list.
    #[schema(value_type = Value)]
    data: Box<RawValue>,
}

/// What a write did.
#[derive(Debug, Serialize, ToSchema)]
struct WrittenView {
    /// The version that it made.
    version: u64,
    /// For the next If-Match.
    etag: Option<String>,
    /// Its entry in the audit log.
    operation: String,
}

fn written(status: StatusCode, key: &ProfileKey, written: &Written) -> Response {
    let tag = etag_of(key, written.now);
    let view = WrittenView {
        version: written.version,
        etag: tag.clone(),
        operation: written.entry.operation.to_string(),
    };
    match tag {
        Some(tag) => json_tagged(status, &view, &tag),
        None => json(status, &view),
    }
}

/// Write a profile
///
/// Writes the data of a profile that no session holds. `If-Match` names the version that was read,
/// `If-None-Match: *` makes a profile that is not there, with the edits applied that stand for new
/// profiles. Users, tags and metadata stay.
#[utoipa::path(
    put,
    path = "/profiles/{key}",
    operation_id = "write_profile",
    tag = "profiles",
    params(
        ("store" = String, Path),
        ("key" = String, Path),
        ("If-Match" = Option<String>, Header, description = "The ETag that was read"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: there is no such profile"),
        Reason,
    ),
    request_body = NewData,
    responses(
        (status = 200, body = WrittenView, headers(("ETag" = String))),
        (status = 201, body = WrittenView, headers(("ETag" = String))),
        (status = 409, body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 412, body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 428, body = ProblemBody<'_>, content_type = "application/problem+json"),
        AnyProblem,
    )
)]
async fn write(
    State(app): State<App>,
    caller: Caller,
    Named(key): Named,
    Params(reason): Params<Reason>,
    headers: HeaderMap,
    content: Content,
) -> Result<Response, Problem> {
    caller.may(Scope::ProfilesWrite, &key)?;
    let expected = expected(&key, &headers)?;
    let NewData { data } = content.members(&["data"])?;
    DATA.check(&data)?;
    // No game in Luau could open anything else, and to an import it is no profile. What a game in
    // Rust stores in another form is changed with PATCH.
    if !data.get().starts_with(['{', '[']) {
        return Err(Problem::invalid("the data is neither object nor list").about(&key));
    }
    let operator = app.server().operator(caller.because(reason.reason.as_deref()));
    let done = operator.put(&key, expected, &data).await?;
    let made = expected == profilestore::operator::Expected::Absent;
    Ok(written(if made { StatusCode::CREATED } else { StatusCode::OK }, &key, &done))
}

/// Change a profile
///
/// Applies a JSON Patch (RFC 6902) or a merge patch (RFC 7396) to a profile that no session holds,
/// if it is the version that was read. To change a profile that is held, use its edits.
#[utoipa::path(
    patch,
    path = "/profiles/{key}",
    operation_id = "change_profile",
    tag = "profiles",
    params(
        ("store" = String, Path),
        ("key" = String, Path),
        ("If-Match" = String, Header, description = "The ETag that was read"),
        Reason,
    ),
    request_body(
        content(
            (serde_json::Value = "application/json-patch+json"),
            (serde_json::Value = "application/merge-patch+json"),
        ),
    ),
    responses(
        (status = 200, body = WrittenView, headers(("ETag" = String))),
        (status = 412, body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 422, body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 428, body = ProblemBody<'_>, content_type = "application/problem+json"),
        AnyProblem,
    )
)]
async fn change(
    State(app): State<App>,
    caller: Caller,
    Named(key): Named,
    Params(reason): Params<Reason>,
    headers: HeaderMap,
    content: Content,
) -> Result<Response, Problem> {
    caller.may(Scope::ProfilesWrite, &key)?;
    let expected = expected(&key, &headers)?;
    let edit = edit_of(&content)?;
    let operator = app.server().operator(caller.because(reason.reason.as_deref()));
    let done = operator.edit_if(&key, expected, &edit).await?;
    Ok(written(StatusCode::OK, &key, &done))
}

/// Remove a profile
///
/// Ends whatever session there is and empties the inbox. Earlier versions stay in the history.
#[utoipa::path(
    delete,
    path = "/profiles/{key}",
    operation_id = "remove_profile",
    tag = "profiles",
    params(
        ("store" = String, Path),
        ("key" = String, Path),
        ("If-Match" = String, Header, description = "The ETag that was read"),
        Reason,
    ),
    responses(
        (status = 204, description = "It is removed"),
        (status = 412, body = ProblemBody<'_>, content_type = "application/problem+json"),
        (status = 428, body = ProblemBody<'_>, content_type = "application/problem+json"),
        AnyProblem,
    )
)]
async fn remove(
    State(app): State<App>,
    caller: Caller,
    Named(key): Named,
    Params(reason): Params<Reason>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.may(Scope::ProfilesWrite, &key)?;
    let expected = expected(&key, &headers)?;
    if expected == profilestore::operator::Expected::Absent {
        return Err(Problem::new("precondition-required", "a removal needs If-Match").about(&key));
    }
    let operator = app.server().operator(caller.because(reason.reason.as_deref()));
    match operator.remove_if(&key, expected).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT.into_response()),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(no_profile(&key)),
        Err(error) => Err(error.into()),
    }
}
