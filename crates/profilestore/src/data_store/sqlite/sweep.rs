//! Sweeping: what is past its time goes, a bounded piece at a time, each piece in a transaction of
//! its own.

use std::sync::Arc;

use rusqlite::params;

use super::{
    Inner, Trouble,
    state::{HEAD_COLUMNS, Head, Tx},
};
use crate::data_store::{DAY_MS, Retention, StoreError, SweepCursor, SweepReport, rules};

/// How many keys, or outcomes, a piece looks at.
const PIECE: i64 = 500;

/// Where a sweep is, as its cursor says: first the keys by row, then the outcomes by id.
enum Stage {
    Keys(i64),
    Outcomes([u8; 16]),
}

impl Stage {
    fn parse(cursor: Option<SweepCursor>) -> Result<Self, StoreError> {
        let Some(SweepCursor(text)) = cursor else { return Ok(Self::Keys(0)) };
        let stage = match text.split_once(':') {
            Some(("keys", row)) => row.parse().ok().map(Self::Keys),
            Some(("outcomes", id)) => {
                uuid::Uuid::parse_str(id).ok().map(|id| Self::Outcomes(id.into_bytes()))
            }
            _ => None,
        };
        stage.ok_or_else(|| StoreError::Invalid {
            reason: format!("the sweep's cursor comes from another store: cursor=`{text}`"),
        })
    }

    fn cursor(&self) -> SweepCursor {
        SweepCursor(match self {
            Self::Keys(row) => format!("keys:{row}"),
            Self::Outcomes(id) => format!("outcomes:{}", uuid::Uuid::from_bytes(*id)),
        })
    }
}

impl Inner {
    pub(super) async fn sweep(
        self: &Arc<Self>,
        retention: Retention,
        cursor: Option<SweepCursor>,
    ) -> Result<SweepReport, StoreError> {
        let stage = Stage::parse(cursor)?;
        self.write(move |tx| match stage {
            Stage::Keys(after) => tx.sweep_keys(retention, after),
            Stage::Outcomes(after) => tx.sweep_outcomes(after),
        })
        .await
    }
}

impl Tx<'_> {
    fn sweep_keys(&mut self, retention: Retention, after: i64) -> Result<SweepReport, Trouble> {
        let mut report = SweepReport::default();
        let sql = format!(
            "SELECT h.store, h.scope, h.key, {HEAD_COLUMNS} FROM head h WHERE h.id \
            > ?1 ORDER BY h.id LIMIT ?2"
        );
        let mut heads = Vec::new();
        {
            let mut statement = self.conn.prepare_cached(&sql)?;
            let mut rows = statement.query([after, PIECE])?;
            while let Some(row) = rows.next()? {
                heads.push(Head::of_row(super::key_of_row(row, 0)?, row, 3, None)?);
            }
        }
        for head in &heads {
            report.versions += self.sweep_versions(retention, head)?;
        }
        let last = heads.last().and_then(|head| head.id);
        let sql = "DELETE FROM receipt WHERE head > ?1 AND head <= ?2 AND made_ms < ?3";
        let oldest = self.now_ms.saturating_sub(rules::RECEIPT_KEPT_MS);
        report.receipts =
            self.prepare(sql)?.execute([after, last.unwrap_or(after), oldest])? as u64;
        let sql = "DELETE FROM link WHERE head > ?1 AND head <= ?2 AND at_ms < ?3";
        let oldest = self.now_ms.saturating_sub(retention.history_ms);
        self.prepare(sql)?.execute([after, last.unwrap_or(after), oldest])?;
        let full = heads.len() == usize::try_from(PIECE).unwrap_or(usize::MAX);
        let next = last.filter(|_| full).map_or(Stage::Outcomes([0; 16]), Stage::Keys);
        report.next = Some(next.cursor());
        Ok(report)
    }

    /// Takes old versions out of a key's chain.
    fn sweep_versions(&self, retention: Retention, head: &Head) -> Result<u64, Trouble> {
        struct Link {
            id: i64,
            pinned: bool,
            superseded_ms: Option<i64>,
            previous: i64,
        }
        let mut chain = Vec::new();
        self.walk(head, |row| {
            let &crate::data_store::VersionInfo { pinned, superseded_ms, .. } = &row.info;
            chain.push(Link { id: row.id, pinned, superseded_ms, previous: row.previous });
            true
        })?;
        let old = |at: i64| self.now_ms.saturating_sub(at) > retention.history_ms;
        let (gone, kept): (Vec<_>, Vec<_>) =
            chain.into_iter().partition(|link| !link.pinned && link.superseded_ms.is_some_and(old));
        if gone.is_empty() {
            return Ok(0);
        }
        for (at, link) in kept.iter().enumerate() {
            let (previous, superseded_ms) =
                kept.get(at + 1).map_or((0, 0), |next| (next.id, next.superseded_ms.unwrap_or(0)));
            if link.previous != previous {
                let sql = "UPDATE version SET previous = ?2, previous_superseded_ms = ?3 WHERE id \
                    = ?1";
                self.prepare(sql)?.execute([link.id, previous, superseded_ms])?;
            }
        }
        for link in &gone {
            self.prepare("DELETE FROM version WHERE id = ?1")?.execute([link.id])?;
        }
        Ok(gone.len() as u64)
    }

    /// Outcomes by id, which is by the time of the ids' makers: the sweep ends a day behind where
    /// theirs become too young. Those of a clock that is ahead go later; and whatever the id says,
    /// nothing goes before its time on the store's clock.
    fn sweep_outcomes(&mut self, after: [u8; 16]) -> Result<SweepReport, Trouble> {
        let mut report = SweepReport::default();
        let oldest = self.now_ms.saturating_sub(rules::OUTCOME_KEPT_MS);
        let end =
            (u128::from(oldest.saturating_add(DAY_MS).max(0).cast_unsigned()) << 80).to_be_bytes();
        let mut ids: Vec<([u8; 16], i64)> = Vec::new();
        {
            let sql = "SELECT id, at_ms FROM settled WHERE id > ?1 AND id < ?2 ORDER BY id LIMIT \
                ?3";
            let mut statement = self.prepare(sql)?;
            let mut rows = statement.query(params![after.as_slice(), end.as_slice(), PIECE])?;
            while let Some(row) = rows.next()? {
                ids.push((row.get(0)?, row.get(1)?));
            }
        }
        for (id, _) in ids.iter().filter(|(_, at_ms)| *at_ms < oldest) {
            self.prepare("DELETE FROM settled WHERE id = ?1")?.execute([id.as_slice()])?;
            report.outcomes += 1;
        }
        let full = ids.len() == usize::try_from(PIECE).unwrap_or(usize::MAX);
        if let Some((last, _)) = ids.last().filter(|_| full) {
            report.next = Some(Stage::Outcomes(*last).cursor());
            return Ok(report);
        }
        let sql = "DELETE FROM server WHERE dead_ms < ?1";
        report.servers = self.prepare(sql)?.execute([oldest])? as u64;
        self.prepare(
            "DELETE FROM notice WHERE server NOT IN (SELECT id FROM \
            server)",
        )?
        .execute([])?;
        Ok(report)
    }
}
