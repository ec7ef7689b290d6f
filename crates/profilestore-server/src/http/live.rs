//! What happens now, for the console's charts.

use std::{collections::BTreeMap, sync::Arc};

use axum::{extract::State, response::Response};
use parking_lot::Mutex;
use profilestore::{data_store::ServerRow, env::Env};
use serde::Serialize;
use tokio::time::{Duration, Instant};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    events::{Told, every_second},
    views::server_state,
};
use crate::{
    app::App,
    auth::Caller,
    keys::Scope,
    problem::{AnyProblem, Problem},
};

/// How long what was gathered counts, so that many who watch cost no more than one.
const FRESH: Duration = Duration::from_millis(900);

/// How long the store may take to say which servers there are.
const PATIENCE: Duration = Duration::from_millis(500);

pub(super) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(live))
}

/// What happens at a moment. Counters are those of this process, and grow from its start on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, ToSchema)]
pub(crate) struct Live {
    /// When it was gathered, Unix milliseconds.
    at_ms: i64,
    /// Sessions that are open at this process, for the game servers that it hosts.
    sessions: u64,
    /// Game servers that are connected to this process.
    connections: u64,
    /// Game servers of the store that are alive, this process among them. Null: the store does not
    /// answer.
    servers: Option<u64>,
    /// Sessions that started.
    starts: u64,
    /// Saves.
    saves: u64,
    /// Profiles that were handed over to another server.
    hand_overs: u64,
    /// Half of the hand-overs of about the last minute took at most so long, in milliseconds: from
    /// a game server's request to this process until it had the profile. Null: there was none.
    hand_over_p50_ms: Option<f64>,
    /// The same of 99 in 100.
    hand_over_p99_ms: Option<f64>,
    /// Messages that were sent.
    messages: u64,
    /// What failed, by kind: starts by kind of error, `store` for calls of the store, `lost` for
    /// sessions that were lost.
    errors: BTreeMap<String, u64>,
    /// The store has failed many times lately.
    is_critical: bool,
}

/// The newest of them, shared by all who watch.
#[derive(Debug, Default)]
pub(crate) struct Newest(Mutex<Option<(Instant, Arc<Live>)>>);

impl Newest {
    fn get(&self, env: &Env) -> Option<Arc<Live>> {
        let newest = self.0.lock();
        let (since, live) = newest.as_ref()?;
        (env.now().saturating_duration_since(*since) < FRESH).then(|| live.clone())
    }
}

/// Watch what happens
///
/// A stream of server-sent events, one a second: counters and gauges of this process, and how many
/// game servers of the store are alive. It ends when the caller's key or log-in does, and when the
/// process stops; ask again then.
#[utoipa::path(
    get,
    path = "/v1/live",
    operation_id = "watch_live",
    tag = "health",
    responses((status = 200, body = Live, content_type = "text/event-stream"), AnyProblem)
)]
async fn live(State(app): State<App>, caller: Caller) -> Result<Response, Problem> {
    // A member watches whatever the role: no player is named.
    caller.may_everywhere(match caller {
        Caller::Key(_) => Scope::MetricsRead,
        Caller::Member(_) => Scope::ProfilesRead,
    })?;
    Ok(every_second(app, caller, |app| async move {
        Some(Told { value: now(&app).await, is_last: false })
    }))
}

async fn now(app: &App) -> Arc<Live> {
    if let Some(live) = app.newest().get(app.env()) {
        return live;
    }
    let metrics = app.metrics().map(|metrics| metrics.render()).unwrap_or_default();
    let mut live = counted(&metrics);
    live.at_ms = app.env().unix_ms();
    live.connections = app.hub().connected();
    let servers = tokio::time::timeout(PATIENCE, app.store().servers()).await;
    if let Ok(Ok((now_ms, rows))) = servers {
        let alive = |row: &&ServerRow| server_state(Some(row), now_ms) == "alive";
        live.servers = Some(rows.iter().filter(alive).count() as u64);
    }
    let live = Arc::new(live);
    *app.newest().0.lock() = Some((app.env().now(), live.clone()));
    live
}

/// What the text of `/metrics` says.
fn counted(metrics: &str) -> Live {
    let mut live = Live::default();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let Ok(value) = value.parse::<f64>() else { continue };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        if name == "profilestore_hand_over_seconds" {
            // 0: nothing of it was recorded lately.
            let took = (value > 0.0).then_some(value * 1000.0);
            match labels {
                "quantile=\"0.5\"}" => live.hand_over_p50_ms = took,
                "quantile=\"0.99\"}" => live.hand_over_p99_ms = took,
                _ => {}
            }
            continue;
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let value = value.max(0.0) as u64;
        match name {
            "profilestore_sessions" => live.sessions += value,
            "profilestore_sessions_started_total" => live.starts += value,
            "profilestore_saves_total" => live.saves += value,
            "profilestore_hand_overs_total" => live.hand_overs += value,
            "profilestore_messages_sent_total" => live.messages += value,
            "profilestore_critical_state" => live.is_critical |= value > 0,
            "profilestore_starts_failed_total" => {
                let kind = labels.split('"').nth(1).unwrap_or("other");
                *live.errors.entry(kind.to_owned()).or_default() += value;
            }
            "profilestore_store_errors_total" => {
                *live.errors.entry("store".to_owned()).or_default() += value;
            }
            "profilestore_lost_sessions_total" => {
                *live.errors.entry("lost".to_owned()).or_default() += value;
            }
            _ => {}
        }
    }
    live
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_their_labels() {
        let live = counted(
            "# TYPE profilestore_saves_total counter\n\
             profilestore_saves_total{outcome=\"written\"} 3\n\
             profilestore_saves_total{outcome=\"unchanged\"} 4\n\
             profilestore_sessions 2\n\
             profilestore_starts_failed_total{kind=\"TimedOut\"} 5\n\
             profilestore_critical_state 1\n\
             profilestore_start_seconds{quantile=\"0.5\"} 0.1\n\
             profilestore_hand_over_seconds{quantile=\"0.5\"} 0.25\n\
             profilestore_hand_over_seconds{quantile=\"0.99\"} 0\n",
        );
        let errors = BTreeMap::from([("TimedOut".to_owned(), 5)]);
        let wanted = Live {
            saves: 7,
            sessions: 2,
            hand_over_p50_ms: Some(250.0),
            errors,
            is_critical: true,
            ..Live::default()
        };
        assert_eq!(live, wanted);
    }
}
