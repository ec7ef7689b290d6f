//! What crosses stores: which stores there are, game servers, and all sessions.

use axum::{extract::State, http::StatusCode, response::Response};
use profilestore::{
    ProfileKey,
    data_store::{DataStoreExt as _, KeyFilter, KeyQuery, ServerRow},
    key::MAX_NAME_CHARS,
};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{Page, Params, key_token, page_size, parse_key_token},
    views::{self, PageOf, ProfileRow, server_state},
};
use crate::{
    app::App,
    auth::Caller,
    keys::Scope,
    problem::{AnyProblem, Problem},
    ws::Hub,
};

/// The most stores in one answer.
const MAX_STORES: usize = 1000;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(stores)).routes(routes!(servers)).routes(routes!(sessions))
}

/// A store that has keys.
#[derive(Debug, Serialize, ToSchema)]
struct StoreView {
    /// Its name.
    store: String,
    /// One of its scopes.
    scope: String,
}

/// List the stores
///
/// Each store and scope that has keys, at most 1,000.
#[utoipa::path(
    get,
    path = "/v1/stores",
    operation_id = "list_stores",
    tag = "stores",
    responses(
        (status = 200, body = PageOf<StoreView>),
        AnyProblem,
    )
)]
async fn stores(State(app): State<App>, caller: Caller) -> Result<Response, Problem> {
    caller.may_everywhere(Scope::ProfilesRead)?;
    let mut query =
        KeyQuery { store: None, scope: None, filter: KeyFilter::All, after: None, limit: 1 };
    let mut items = Vec::new();
    while items.len() < MAX_STORES {
        let (page, next) = app.store().profiles(&query).await?;
        if let Some(state) = page.first() {
            let (store, scope) = (state.key.store().to_owned(), state.key.scope().to_owned());
            // Behind every key of this scope.
            let last = "\u{10ffff}".repeat(MAX_NAME_CHARS);
            query.after = ProfileKey::new(&store, &scope, &last).ok();
            items.push(StoreView { store, scope });
        } else if next.is_some() {
            query.after = next;
        } else {
            break;
        }
    }
    Ok(views::json(StatusCode::OK, &PageOf { items, next_page_token: None }))
}

/// A game server.
#[derive(Debug, Serialize, ToSchema)]
struct ServerView {
    /// Its incarnation.
    id: String,
    /// Its name.
    job: String,
    /// Which game or part of it the server runs.
    place: i64,
    /// `alive`, `silent` (late with its renewal), or `dead`.
    state: &'static str,
    /// When it registered, Unix milliseconds.
    started_ms: i64,
    /// When it renewed its lease last, Unix milliseconds.
    renewed_ms: i64,
    /// After how long without a renewal it may be declared dead.
    lease_ms: i64,
    /// The process of `profilestore serve` that hosts it: the same text for all that one process
    /// hosts. Null: it hosts itself, as such a process does.
    host: Option<String>,
    /// The process that answers hosts it.
    hosted_here: bool,
    /// The SDK and its version. Null: the game server did not tell, hosts itself, or is hosted by
    /// another process, which knows.
    sdk: Option<String>,
}

impl ServerView {
    fn of(row: ServerRow, now_ms: i64, hub: &Hub) -> Self {
        let guest = hub.guest(row.id);
        Self {
            id: row.id.to_string(),
            state: server_state(Some(&row), now_ms),
            job: row.job_id,
            place: row.place_id,
            started_ms: row.started_ms,
            renewed_ms: row.renewed_ms,
            lease_ms: row.lease_ms,
            host: row.host.map(|host| format!("{:016x}", host.process())),
            hosted_here: guest.is_some(),
            sdk: guest.and_then(|guest| guest.sdk.clone()),
        }
    }
}

/// List the game servers
///
/// Every one that the store knows: those that ended too, for a week. This server process is one of
/// them.
#[utoipa::path(
    get,
    path = "/v1/servers",
    operation_id = "list_servers",
    tag = "servers",
    responses(
        (status = 200, body = PageOf<ServerView>),
        AnyProblem,
    )
)]
async fn servers(State(app): State<App>, caller: Caller) -> Result<Response, Problem> {
    caller.may_everywhere(Scope::ProfilesRead)?;
    let (now_ms, rows) = app.store().servers().await?;
    let items = rows.into_iter().map(|row| ServerView::of(row, now_ms, app.hub())).collect();
    Ok(views::json(StatusCode::OK, &PageOf { items, next_page_token: None }))
}

/// List the profiles that are held
///
/// In every store. A page may be short although more follow.
#[utoipa::path(
    get,
    path = "/v1/sessions",
    operation_id = "list_sessions",
    tag = "servers",
    params(Page),
    responses(
        (status = 200, body = PageOf<ProfileRow>),
        AnyProblem,
    )
)]
async fn sessions(
    State(app): State<App>,
    caller: Caller,
    Params(page): Params<Page>,
) -> Result<Response, Problem> {
    caller.may_everywhere(Scope::ProfilesRead)?;
    Ok(views::json(StatusCode::OK, &across(&app, KeyFilter::Held, &page).await?))
}

/// A page of profiles of every store.
pub(super) async fn across(
    app: &App,
    filter: KeyFilter,
    page: &Page,
) -> Result<PageOf<ProfileRow>, Problem> {
    let query = KeyQuery {
        store: None,
        scope: None,
        filter,
        after: parse_key_token(page.page_token.as_deref())?,
        limit: page_size(page.page_size)?,
    };
    let (found, next) = app.store().profiles(&query).await?;
    let now_ms = app.store().identity().await?.now_ms;
    let items = found.iter().map(|state| ProfileRow::of(state, now_ms)).collect();
    Ok(PageOf { items, next_page_token: next.as_ref().map(key_token) })
}
