//! Sweeping: what is past its time goes, a bounded piece at a time, each statement a transaction of
//! its own.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    Inner,
    state::{get, key_of_row},
    trouble::Trouble,
};
use crate::{
    data_store::{DAY_MS, Retention, StoreError, SweepCursor, SweepReport, rules},
    key::ProfileKey,
};

/// How many keys, or outcomes, a piece looks at.
const PIECE: i64 = 500;

pub(super) const KEYS: &str = "SELECT store, scope, key FROM head WHERE (store, scope, key) > ($1, $2, $3) ORDER BY store, \
        scope, key LIMIT $4";

pub(super) const VERSIONS: &str = "WITH gone AS (DELETE FROM version WHERE (store, scope, key) > ($1, $2, $3) \
     AND (store, scope, key) <= ($4, $5, $6) AND superseded_ms < $7 AND flags & 4 = 0 RETURNING 1) SELECT count(*) FROM gone";

pub(super) const LINKS: &str = "DELETE FROM link WHERE (store, scope, key) > ($1, $2, $3) \
     AND (store, scope, key) <= ($4, $5, $6) AND at_ms < $7";

pub(super) const RECEIPTS: &str = "WITH gone AS (DELETE FROM receipt WHERE (store, scope, key) > ($1, $2, $3) \
     AND (store, scope, key) <= ($4, $5, $6) AND made_ms < $7 RETURNING 1) SELECT count(*) FROM gone";

pub(super) const OUTCOMES: &str = "SELECT id FROM settled WHERE id > $1 AND id < $2 ORDER BY id \
    LIMIT $3";

pub(super) const FORGET_OUTCOMES: &str = "WITH gone AS (DELETE FROM settled WHERE id = ANY($1::uuid[]) AND at_ms < $2 RETURNING 1) \
        SELECT count(*) FROM gone";

pub(super) const SERVERS: &str = "WITH gone AS (DELETE FROM server WHERE dead_ms < $1 RETURNING \
    1) SELECT count(*) FROM gone";

pub(super) const NOTICES: &str = "DELETE FROM notice n WHERE (SELECT s.id FROM server s WHERE \
    s.id = n.server) IS NULL";

/// Where a sweep is: first the keys, then the outcomes by id.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    Keys(Option<ProfileKey>),
    Outcomes(Uuid),
}

impl Stage {
    fn parse(cursor: Option<SweepCursor>) -> Result<Self, StoreError> {
        let Some(SweepCursor(text)) = cursor else { return Ok(Self::Keys(None)) };
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
        let swept = match stage {
            Stage::Keys(after) => sweep_keys(conn, retention, after.as_ref(), now_ms).await,
            Stage::Outcomes(after) => sweep_outcomes(conn, after, now_ms).await,
        };
        match swept {
            Ok(report) => {
                reading.done();
                Ok(report)
            }
            Err(trouble) => {
                reading.discard();
                Err(trouble.not_applied())
            }
        }
    }
}

async fn sweep_keys(
    conn: &super::connect::Conn,
    retention: Retention,
    after: Option<&ProfileKey>,
    now_ms: i64,
) -> Result<SweepReport, Trouble> {
    let [store, scope, key] = after.map_or([""; 3], |key| [key.store(), key.scope(), key.key()]);
    let rows = conn.query(KEYS, &[&store, &scope, &key, &PIECE]).await?;
    let mut report = SweepReport::default();
    let last = rows.last().map(|row| key_of_row(row, 0)).transpose()?;
    if let Some(last) = &last {
        let (last_store, last_scope, last_key) = (last.store(), last.scope(), last.key());
        let history = now_ms.saturating_sub(retention.history_ms);
        let receipts = now_ms.saturating_sub(rules::RECEIPT_KEPT_MS);
        let params = [&store, &scope, &key, &last_store, &last_scope, &last_key];
        for (sql, oldest, count) in
            [(VERSIONS, history, &mut report.versions), (RECEIPTS, receipts, &mut report.receipts)]
        {
            let [a, b, c, d, e, f] = params;
            let rows = conn.query(sql, &[a, b, c, d, e, f, &oldest]).await?;
            *count = counted(&rows)?;
        }
        let [a, b, c, d, e, f] = params;
        conn.query(LINKS, &[a, b, c, d, e, f, &history]).await?;
    }
    let full = i64::try_from(rows.len()).is_ok_and(|rows| rows == PIECE);
    let next =
        last.filter(|_| full).map_or(Stage::Outcomes(Uuid::nil()), |last| Stage::Keys(Some(last)));
    report.next = next.cursor();
    Ok(report)
}

/// Outcomes by id, which is by the time of the ids' makers: the sweep ends a day behind where
/// theirs become too young. Those of a clock that is ahead go later; and whatever the id says,
/// nothing goes before its time on the store's clock.
async fn sweep_outcomes(
    conn: &super::connect::Conn,
    after: Uuid,
    now_ms: i64,
) -> Result<SweepReport, Trouble> {
    let oldest = now_ms.saturating_sub(rules::OUTCOME_KEPT_MS);
    let end =
        Uuid::from_u128(u128::from(oldest.saturating_add(DAY_MS).max(0).cast_unsigned()) << 80);
    let rows = conn.query(OUTCOMES, &[&after, &end, &PIECE]).await?;
    let ids: Vec<Uuid> = rows.iter().map(|row| get(row, 0)).collect::<Result<_, _>>()?;
    let mut report = SweepReport {
        outcomes: counted(&conn.query(FORGET_OUTCOMES, &[&ids, &oldest]).await?)?,
        ..Default::default()
    };
    if let Some(last) =
        ids.last().filter(|_| i64::try_from(ids.len()).is_ok_and(|ids| ids == PIECE))
    {
        report.next = Stage::Outcomes(*last).cursor();
        return Ok(report);
    }
    report.servers = counted(&conn.query(SERVERS, &[&oldest]).await?)?;
    conn.query(NOTICES, &[]).await?;
    Ok(report)
}

fn counted(rows: &[tokio_postgres::Row]) -> Result<u64, StoreError> {
    rows.first().map_or(Ok(0), |row| super::state::unsigned(row, 0))
}
