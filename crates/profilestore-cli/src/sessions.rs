//! `sessions`: who holds which profiles.

use clap::Args;
use profilestore::{
    ProfileKey,
    data_store::{Holder, KeyFilter, KeyQuery, KeyState, Offer, Request, ServerRow},
};
use serde::Serialize;

use crate::{
    app::App,
    given::plain_name,
    output::{Failure, Status, Table, json_line, out, text},
    times::{ago, time},
};

const PAGE: usize = 256;

/// Show who holds which profiles
///
/// A server is `alive` while it renews its lease, `silent` when it is late (another server may take
/// its profiles over), `dead` once that was done or it has ended, and `unknown` when the session
/// came with an imported record, which no server vouches for. `offered` is a profile that was let
/// go for the sake of a server that asked for it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  profilestore sessions
  profilestore sessions --json | jq 'select(.server_state != \"alive\")'")]
pub(crate) struct Sessions {
    /// Only this store's profiles
    #[arg(long, value_parser = plain_name, value_name = "NAME")]
    store_name: Option<String>,
    /// Only this scope's profiles
    #[arg(long, value_parser = plain_name)]
    scope: Option<String>,
}

impl Sessions {
    pub(crate) async fn run(self, app: &App) -> Result<Status, Failure> {
        let store = app.place.open().await?;
        let mut table =
            Table::new(["KEY", "JOB", "PLACE", "SINCE", "SERVER", "LAST SEEN", "ASKED FOR BY"])
                .soft([2, 6, 5, 1]);
        let mut out = out();
        let mut query = KeyQuery {
            store: self.store_name,
            scope: self.scope,
            filter: KeyFilter::Held,
            after: None,
            limit: PAGE,
        };
        let mut sessions = 0;
        loop {
            let page = store.keys(&query).await?;
            // The clock of the store, which stamped the times.
            let now_ms = store.identity().await?.now_ms;
            let rows: Vec<_> =
                page.iter().filter_map(|state| SessionRow::new(state, now_ms)).collect();
            match app.json {
                true => rows.iter().try_for_each(|row| json_line(&mut out, row))?,
                false => table.page(
                    &mut out,
                    &rows.iter().map(|row| session_cells(row, now_ms)).collect::<Vec<_>>(),
                )?,
            }
            sessions += rows.len();
            query.after = page.last().map(|state| state.key.clone());
            if page.len() < query.limit {
                break;
            }
        }
        if sessions == 0 && !app.json {
            text(&mut out, format_args!("no profile is held"))?;
        }
        table.end(&mut out)?;
        Ok(Status::Fine)
    }
}

pub(crate) fn session_line(state: &KeyState, now_ms: i64) -> String {
    let Some(row) = SessionRow::new(state, now_ms) else {
        return "none".into();
    };
    let asked =
        row.request.map(|request| format!(", asked for by {}", request.job_id)).unwrap_or_default();
    match row.holder {
        None => "none; kept free for the server that asked for it".into(),
        Some(holder) => {
            let seen = row
                .last_seen_ms
                .map(|seen| format!(", last seen {}", ago(now_ms, seen)))
                .unwrap_or_default();
            format!(
                "held by {} since {}, server {}{seen}{asked}",
                holder.job_id,
                time(holder.since_ms),
                row.server_state.as_str()
            )
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ServerState {
    Alive,
    Silent,
    Dead,
    Unknown,
    Offered,
}

impl ServerState {
    fn of(state: &KeyState, now_ms: i64) -> Self {
        match (&state.lease.holder, &state.holder_server) {
            (None, _) => Self::Offered,
            (Some(_), None) => Self::Unknown,
            (Some(_), Some(row)) => Self::of_row(row, now_ms),
        }
    }

    /// That of a server by its own row.
    pub(crate) fn of_row(row: &ServerRow, now_ms: i64) -> Self {
        if row.dead {
            Self::Dead
        } else if now_ms.abs_diff(row.renewed_ms) > row.lease_ms.unsigned_abs() {
            Self::Silent
        } else {
            Self::Alive
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Silent => "silent",
            Self::Dead => "dead",
            Self::Unknown => "unknown",
            Self::Offered => "offered",
        }
    }
}

#[derive(Serialize)]
pub(crate) struct SessionRow<'a> {
    #[serde(flatten)]
    key: &'a ProfileKey,
    server_state: ServerState,
    /// The renewal of the server's row, or what an imported record said.
    last_seen_ms: Option<i64>,
    holder: Option<&'a Holder>,
    request: Option<&'a Request>,
    offer: Option<&'a Offer>,
    server: Option<&'a ServerRow>,
}

impl<'a> SessionRow<'a> {
    /// None for a profile without a holder and without an offer.
    pub(crate) fn new(state: &'a KeyState, now_ms: i64) -> Option<Self> {
        let lease = &state.lease;
        (lease.holder.is_some() || lease.offer.is_some()).then(|| Self {
            key: &state.key,
            server_state: ServerState::of(state, now_ms),
            last_seen_ms: match &state.holder_server {
                Some(row) => Some(row.renewed_ms),
                None => lease.holder.as_ref().and_then(|holder| holder.last_update_ms),
            },
            holder: lease.holder.as_ref(),
            request: lease.request.as_ref(),
            offer: lease.offer.as_ref(),
            server: state.holder_server.as_ref(),
        })
    }
}

fn session_cells(row: &SessionRow<'_>, now_ms: i64) -> [String; 7] {
    let none = || "-".to_owned();
    let holder = |show: fn(&Holder) -> String| row.holder.map_or_else(none, show);
    [
        row.key.to_string(),
        holder(|holder| holder.job_id.clone()),
        holder(|holder| holder.place_id.to_string()),
        holder(|holder| time(holder.since_ms)),
        row.server_state.as_str().to_owned(),
        row.last_seen_ms.map_or_else(none, |seen| ago(now_ms, seen)),
        row.request.map_or_else(none, |request| request.job_id.clone()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_server_follows_from_its_row() {
        let key = ProfileKey::new("S", "global", "k").unwrap();
        let mut state = KeyState::absent(key);
        assert!(SessionRow::new(&state, 0).is_none());
        let holder: Holder = serde_json::from_value(
            serde_json::json!({ "server": null, "place_id": 1, "job_id": "j", "session": "s", "since_ms": 5,
                "last_update_ms": 9 }),
        )
        .unwrap();
        state.lease.holder = Some(holder);
        let row = SessionRow::new(&state, 0).unwrap();
        assert_eq!((row.server_state, row.last_seen_ms), (ServerState::Unknown, Some(9)));
        let server = |dead| {
            serde_json::from_value::<ServerRow>(serde_json::json!({ "id": "00000000-0000-0000-0000-000000000001", "place_id": 1,
                "job_id": "j", "revision": 1, "lease_ms": 100, "started_ms": 1, "renewed_ms": 1000, "dead": dead }))
            .unwrap()
        };
        state.holder_server = Some(server(false));
        assert_eq!(ServerState::of(&state, 1100), ServerState::Alive);
        assert_eq!(ServerState::of(&state, 1101), ServerState::Silent);
        state.holder_server = Some(server(true));
        assert_eq!(ServerState::of(&state, 1000), ServerState::Dead);
    }
}
