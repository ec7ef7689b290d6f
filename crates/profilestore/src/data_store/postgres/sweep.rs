//! Sweeping: what is past its time goes, a bounded piece at a time, each statement a transaction of
//! its own.
//!
//! A piece that takes too long, or meets a row that cannot be read, is cut smaller, down to one
//! key. What still cannot be swept is left where it is, with a warning, and keeps nothing else from
//! going.

use serde::{Deserialize, Serialize};
use tokio_postgres::{Row, error::SqlState};
use uuid::Uuid;

use super::{
    Inner,
    connect::Conn,
    schema::PINNED,
    state::{get, unsigned},
    trouble::Trouble,
};
use crate::data_store::{Retention, StoreError, SweepCursor, SweepReport, rules};

/// How many keys, or outcomes, a piece looks at.
const PIECE: i64 = 500;

/// By how much a piece is cut that failed.
const CUT: i64 = 8;

pub(super) const KEYS: &str = "SELECT store, scope, key FROM head WHERE (store, scope, key) > ($1, $2, $3) ORDER BY store, \
        scope, key LIMIT $4";

pub(super) const VERSIONS: &str = "WITH gone AS (DELETE FROM version WHERE (store, scope, key) > ($1, $2, $3) \
     AND (store, scope, key) <= ($4, $5, $6) AND superseded_ms < $7 AND flags & 4 = 0 RETURNING 1) SELECT count(*) FROM gone";

// `VERSIONS` has its bit as a number.
const _: () = assert!(PINNED == 4);

pub(super) const LINKS: &str = "DELETE FROM link WHERE (store, scope, key) > ($1, $2, $3) \
     AND (store, scope, key) <= ($4, $5, $6) AND at_ms < $7";

pub(super) const RECEIPTS: &str = "WITH gone AS (DELETE FROM receipt WHERE (store, scope, key) > ($1, $2, $3) \
     AND (store, scope, key) <= ($4, $5, $6) AND made_ms < $7 RETURNING 1) SELECT count(*) FROM gone";

pub(super) const OUTCOMES: &str = "SELECT id FROM settled WHERE id > $1 AND id < $2 AND at_ms < $3 \
    ORDER BY id LIMIT $4";

// By the index `settled_untimed`, whose condition it repeats.
pub(super) const UNTIMED: &str = "SELECT id FROM settled WHERE at_ms < $1 \
    AND (fingerprint IS NOT NULL OR aborted) ORDER BY at_ms LIMIT $2";

pub(super) const FORGET_OUTCOMES: &str = "WITH gone AS (DELETE FROM settled WHERE id = ANY($1::uuid[]) AND at_ms < $2 RETURNING 1) \
        SELECT count(*) FROM gone";

pub(super) const SERVERS: &str = "WITH gone AS (DELETE FROM server WHERE dead_ms < $1 RETURNING \
    1) SELECT count(*) FROM gone";

pub(super) const NOTICES: &str = "DELETE FROM notice n WHERE (SELECT s.id FROM server s WHERE \
    s.id = n.server) IS NULL";

/// Where a sweep is: first the keys; then the outcomes by id, which is by time; then those whose
/// ids tell no time, by age.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    Keys { after: [String; 3], piece: i64 },
    Outcomes(Uuid),
    Untimed,
}

impl Stage {
    fn parse(cursor: Option<SweepCursor>) -> Result<Self, StoreError> {
        let Some(SweepCursor(text)) = cursor else {
            return Ok(Self::Keys { after: Default::default(), piece: PIECE });
        };
        serde_json::from_str(&text).map_err(|_| StoreError::Invalid {
            reason: format!("the sweep's cursor comes from another store: cursor=`{text}`"),
        })
    }

    fn cursor(&self) -> Option<SweepCursor> {
        serde_json::to_string(self).ok().map(SweepCursor)
    }
}

impl Inner {
    pub(super) async fn sweep(
        &self,
        retention: Retention,
        cursor: Option<SweepCursor>,
    ) -> Result<SweepReport, StoreError> {
        let stage = Stage::parse(cursor)?;
        let now_ms = self.identity().await?.now_ms;
        let mut reading = self.reader().await?;
        let conn = reading.connection().await?;
        let of_keys = matches!(stage, Stage::Keys { .. });
        let swept = match stage {
            Stage::Keys { after, piece } => sweep_keys(conn, retention, after, piece, now_ms).await,
            Stage::Outcomes(after) => sweep_outcomes(conn, after, now_ms).await,
            Stage::Untimed => sweep_untimed(conn, now_ms).await,
        };
        match swept {
            Ok(report) => {
                reading.done();
                Ok(report)
            }
            Err(trouble) => {
                reading.discard();
                let err = trouble.not_applied();
                if !of_keys {
                    return Err(err);
                }
                tracing::warn!(%err, "a sweep leaves the rest of the keys for the next one");
                let next = Stage::Outcomes(Uuid::nil()).cursor();
                Ok(SweepReport { next, ..SweepReport::default() })
            }
        }
    }
}

async fn sweep_keys(
    conn: &Conn,
    retention: Retention,
    after: [String; 3],
    piece: i64,
    now_ms: i64,
) -> Result<SweepReport, Trouble> {
    let mut report = SweepReport::default();
    let [store, scope, key] = &after;
    let rows = conn.query(KEYS, &[store, scope, key, &piece]).await?;
    let Some(last) = rows.last().map(names).transpose()? else {
        report.next = Stage::Outcomes(Uuid::nil()).cursor();
        return Ok(report);
    };
    match sweep_between(conn, retention, [&after, &last], now_ms, &mut report).await {
        Err(trouble) if !is_of_the_piece(&trouble) => return Err(trouble),
        Err(trouble) if rows.len() > 1 => {
            let err = trouble.not_applied();
            tracing::debug!(%err, keys = rows.len(), "a piece of a sweep is cut");
            let piece = i64::try_from(rows.len()).map_or(1, |rows| (rows / CUT).max(1));
            report.next = Stage::Keys { after, piece }.cursor();
            return Ok(report);
        }
        Err(trouble) => {
            let err = trouble.not_applied();
            tracing::warn!(%err, key = ?last, "a sweep leaves a key for the next one");
        }
        Ok(()) => {}
    }
    let full = i64::try_from(rows.len()).is_ok_and(|rows| rows == piece);
    let next = if full {
        Stage::Keys { after: last, piece: (piece * 2).min(PIECE) }
    } else {
        Stage::Outcomes(Uuid::nil())
    };
    report.next = next.cursor();
    Ok(report)
}

/// Sweeps the keys behind the first, up to the last.
async fn sweep_between(
    conn: &Conn,
    retention: Retention,
    [after, last]: [&[String; 3]; 2],
    now_ms: i64,
    report: &mut SweepReport,
) -> Result<(), Trouble> {
    let history = now_ms.saturating_sub(retention.history_ms);
    let receipts = now_ms.saturating_sub(rules::RECEIPT_KEPT_MS);
    let [[a, b, c], [d, e, f]] = [after, last];
    report.versions += counted(&conn.query(VERSIONS, &[a, b, c, d, e, f, &history]).await?)?;
    report.receipts += counted(&conn.query(RECEIPTS, &[a, b, c, d, e, f, &receipts]).await?)?;
    conn.query(LINKS, &[a, b, c, d, e, f, &history]).await?;
    Ok(())
}

/// True when a smaller piece may do: the statement took too long, met another transaction, or came
/// to something that is damaged.
fn is_of_the_piece(trouble: &Trouble) -> bool {
    let Trouble::Postgres(err) = trouble else { return false };
    let code = err.code();
    trouble.met_another()
        || code == Some(&SqlState::QUERY_CANCELED)
        || code.is_some_and(|code| code.code().starts_with("XX"))
}

/// Outcomes by id, which is by the time of the ids' makers. Those of a clock that is ahead go when
/// their ids' time has come; and whatever the id says, nothing goes before its time on the store's
/// clock.
async fn sweep_outcomes(conn: &Conn, after: Uuid, now_ms: i64) -> Result<SweepReport, Trouble> {
    let oldest = now_ms.saturating_sub(rules::OUTCOME_KEPT_MS);
    let end = Uuid::from_u128(u128::from(oldest.max(0).cast_unsigned()) << 80);
    let ids = ids(&conn.query(OUTCOMES, &[&after, &end, &oldest, &PIECE]).await?)?;
    let outcomes = counted(&conn.query(FORGET_OUTCOMES, &[&ids, &oldest]).await?)?;
    let next = if is_full(&ids) { ids.last() } else { None };
    let next = next.map_or(Stage::Untimed, |last| Stage::Outcomes(*last)).cursor();
    Ok(SweepReport { outcomes, next, ..SweepReport::default() })
}

/// Outcomes whose ids may tell no time: those of requests from outside, and of what was aborted.
/// Then the servers that are long dead.
async fn sweep_untimed(conn: &Conn, now_ms: i64) -> Result<SweepReport, Trouble> {
    let oldest = now_ms.saturating_sub(rules::OUTCOME_KEPT_MS);
    let ids = ids(&conn.query(UNTIMED, &[&oldest, &PIECE]).await?)?;
    let outcomes = counted(&conn.query(FORGET_OUTCOMES, &[&ids, &oldest]).await?)?;
    let mut report = SweepReport { outcomes, ..SweepReport::default() };
    if is_full(&ids) {
        report.next = Stage::Untimed.cursor();
        return Ok(report);
    }
    report.servers = counted(&conn.query(SERVERS, &[&oldest]).await?)?;
    conn.query(NOTICES, &[]).await?;
    Ok(report)
}

fn is_full(ids: &[Uuid]) -> bool {
    i64::try_from(ids.len()).is_ok_and(|ids| ids == PIECE)
}

fn ids(rows: &[Row]) -> Result<Vec<Uuid>, StoreError> {
    rows.iter().map(|row| get(row, 0)).collect()
}

/// The names of a key, valid or not.
fn names(row: &Row) -> Result<[String; 3], StoreError> {
    Ok([get(row, 0)?, get(row, 1)?, get(row, 2)?])
}

fn counted(rows: &[Row]) -> Result<u64, StoreError> {
    rows.first().map_or(Ok(0), |row| unsigned(row, 0))
}
