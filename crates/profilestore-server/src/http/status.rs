//! How the store is, for those who run it: its clock, its servers, what waits, what was not ended,
//! how large it is.

use std::time::Duration;

use axum::{extract::State, http::StatusCode, response::Response};
use profilestore::{
    audit::{AuditEntry, AuditOutcome, AuditQuery, audit_entries},
    data_store::{Backlog, FORMAT_VERSION, ServerRow, StoreError, TableUpkeep},
};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::views::{self, server_state};
use crate::{
    app::App,
    auth::Caller,
    keys::Scope,
    problem::{AnyProblem, Problem},
};

/// How long what goes through many rows may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// An operation that began longer ago and has not ended was broken off, or waits for a holder.
const LONG_MS: i64 = 60_000;

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(read))
}

/// How the store and its servers are.
#[derive(Debug, Serialize, ToSchema)]
struct StatusView {
    /// The version of the program that answers.
    version: &'static str,
    /// The format of what the store holds.
    format: u32,
    /// The store's clock, Unix milliseconds.
    now_ms: i64,
    /// How far the store's clock is ahead of the clock of the process that answers, in
    /// milliseconds; about as exact as `round_trip_ms`. Leases go by the store's clock alone.
    clock_ahead_ms: i64,
    /// How long the store took to tell its time, in milliseconds.
    round_trip_ms: u64,
    /// How many game servers there are, by state.
    servers: Servers,
    /// What waits in all inboxes: `messages`, `edits` that wait for game servers, how many `keys`,
    /// the `oldest` message. Null: the store did not count it in time.
    #[schema(value_type = Option<Object>)]
    waiting: Option<Backlog>,
    /// Operations that began more than a minute ago and have not ended, among the newest 256
    /// entries of the audit log.
    pending: Vec<Pending>,
    /// The store's tables, the largest first: `name`, `bytes`, and what the database knows of
    /// `free_bytes`, `rows`, `dead_rows` and `vacuumed_ms`.
    #[schema(value_type = Vec<Object>)]
    tables: Vec<TableUpkeep>,
}

/// How many game servers there are.
#[derive(Debug, Default, Serialize, ToSchema)]
struct Servers {
    /// Alive.
    alive: u64,
    /// Late with their renewal.
    silent: u64,
    /// Ended in the last week.
    dead: u64,
}

/// An operation that has not ended.
#[derive(Debug, Serialize, ToSchema)]
struct Pending {
    /// Its identity.
    operation: String,
    /// What is done.
    action: String,
    /// In whose name.
    author: String,
    /// When it began, Unix milliseconds.
    began_ms: i64,
}

impl Servers {
    fn of(rows: &[ServerRow], now_ms: i64) -> Self {
        let mut servers = Self::default();
        for row in rows {
            match server_state(Some(row), now_ms) {
                "alive" => servers.alive += 1,
                "silent" => servers.silent += 1,
                _ => servers.dead += 1,
            }
        }
        servers
    }
}

impl Pending {
    fn of(entry: AuditEntry) -> Self {
        Self {
            operation: entry.operation.to_string(),
            action: entry.action,
            author: entry.by.author,
            began_ms: entry.began_ms,
        }
    }
}

/// How the store is
///
/// For those who run it, every half a minute perhaps: counting what waits goes through all that
/// waits.
#[utoipa::path(
    get,
    path = "/v1/status",
    operation_id = "read_status",
    tag = "health",
    responses((status = 200, body = StatusView), AnyProblem)
)]
async fn read(State(app): State<App>, caller: Caller) -> Result<Response, Problem> {
    caller.may_everywhere(Scope::ProfilesRead)?;
    let store = app.store();
    let (sent, sent_ms) = (app.env().now(), app.env().unix_ms());
    let now_ms = store.identity().await?.now_ms;
    let took = app.env().now() - sent;
    let round_trip_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let half = i64::try_from(round_trip_ms / 2).unwrap_or_default();
    let (servers_now, rows) = store.servers().await?;
    let waiting = count_waiting(&app).await.transpose()?;
    let tables = timeout(PATIENCE, store.upkeep()).await;
    let query = AuditQuery { grouped: true, ..AuditQuery::default() };
    let newest = audit_entries(store, &query).await?.entries;
    let is_late = |entry: &AuditEntry| {
        entry.outcome == AuditOutcome::Pending && now_ms - entry.began_ms > LONG_MS
    };
    let view = StatusView {
        version: env!("CARGO_PKG_VERSION"),
        format: FORMAT_VERSION,
        now_ms,
        clock_ahead_ms: now_ms - (sent_ms + half),
        round_trip_ms,
        servers: Servers::of(&rows, servers_now),
        waiting: waiting.flatten(),
        pending: newest.into_iter().filter(is_late).map(Pending::of).collect(),
        tables: tables.ok().transpose()?.unwrap_or_default(),
    };
    Ok(views::json(StatusCode::OK, &view))
}

/// What waits in all inboxes. None when it takes too long, or another request has it counted: a
/// count that is not waited for any more goes on, and holds a reader of the store.
async fn count_waiting(app: &App) -> Option<Result<Option<Backlog>, StoreError>> {
    let turn = app.counting().try_acquire_owned().ok()?;
    let store = app.shared_store();
    let count = tokio::spawn(async move {
        let _turn = turn;
        store.backlog().await
    });
    timeout(PATIENCE, count).await.ok()?.ok()
}
