//! Sweeping: what is past its time goes, a bounded piece at a time.
//!
//! What is to go is looked for on a reader's connection, in short reads that no commit waits for.
//! It is deleted in one transaction of bounded size, which looks at each row again: a commit may
//! have come in between. What cannot be read is left where it is, with a warning, and keeps nothing
//! else from going.

use std::sync::Arc;

use rusqlite::{OptionalExtension as _, params};

use super::{
    Inner, Trouble,
    head::{HEAD_COLUMNS, Head},
    schema::{PINNED, is_damage},
    state::Tx,
};
use crate::data_store::{Retention, StoreError, SweepCursor, SweepReport, rules};

/// How many keys, or outcomes, a piece looks at.
const PIECE: i64 = 500;

/// About how many versions one read goes through.
const READ_ROWS: usize = 5_000;

/// How much one transaction deletes: a row counts as one, and each page of its value as another.
const WRITE_ROWS: u64 = 1_000;

const PAGE_BYTES: u64 = 4096;

/// After so many reads without a key that can be read, the rest of the keys is given up.
const BARREN_READS: u32 = 20;

/// Where a sweep is, as its cursor says: first the keys by row; then the outcomes by id, which is
/// by time; then those whose ids tell no time, by age.
enum Stage {
    Keys(i64),
    Outcomes([u8; 16]),
    Untimed,
}

impl Stage {
    const FIRST_OUTCOME: Self = Self::Outcomes([0; 16]);

    fn parse(cursor: Option<SweepCursor>) -> Result<Self, StoreError> {
        let Some(SweepCursor(text)) = cursor else { return Ok(Self::Keys(0)) };
        let stage = match text.split_once(':') {
            Some(("keys", row)) => row.parse().ok().map(Self::Keys),
            Some(("outcomes", id)) => {
                uuid::Uuid::parse_str(id).ok().map(|id| Self::Outcomes(id.into_bytes()))
            }
            Some(("untimed", "")) => Some(Self::Untimed),
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
            Self::Untimed => "untimed:".to_owned(),
        })
    }
}

/// What a piece has found to delete, and where it is.
#[derive(Default)]
struct Found {
    old: Vec<Old>,
    /// How much of [`WRITE_ROWS`] that is.
    weight: u64,
    keys: i64,
    /// The last key's row.
    after: i64,
    /// The last key has more than a piece may delete.
    cut: bool,
    /// There are no keys behind it.
    done: bool,
    barren: u32,
}

enum Old {
    /// Versions that lie together in a key's chain, as rows and numbers from the newest back. They
    /// lie behind the row `newer`, which stays.
    Versions {
        head: i64,
        newer: i64,
        gone: Vec<(i64, u64)>,
    },
    Receipt {
        head: i64,
        digest: Vec<u8>,
    },
    Link {
        head: i64,
        number: i64,
    },
}

impl Found {
    fn is_full(&self) -> bool {
        self.done || self.cut || self.keys >= PIECE || self.weight >= WRITE_ROWS
    }

    /// Takes room for a row; false when there is none.
    fn takes(&mut self, bytes: u64) -> bool {
        let weight = 1 + bytes / PAGE_BYTES;
        self.cut = self.weight > 0 && self.weight + weight > WRITE_ROWS;
        if !self.cut {
            self.weight += weight;
        }
        !self.cut
    }
}

impl Inner {
    pub(super) async fn sweep(
        self: &Arc<Self>,
        retention: Retention,
        cursor: Option<SweepCursor>,
    ) -> Result<SweepReport, StoreError> {
        match Stage::parse(cursor)? {
            Stage::Keys(after) => {
                Ok(self.sweep_keys(retention, after).await.unwrap_or_else(|err| {
                    tracing::warn!(%err, "a sweep leaves the rest of the keys for the next one");
                    let next = Some(Stage::FIRST_OUTCOME.cursor());
                    SweepReport { next, ..SweepReport::default() }
                }))
            }
            Stage::Outcomes(after) => self.write(move |tx| tx.sweep_outcomes(after)).await,
            Stage::Untimed => self.write(|tx| tx.sweep_untimed()).await,
        }
    }

    async fn sweep_keys(
        self: &Arc<Self>,
        retention: Retention,
        after: i64,
    ) -> Result<SweepReport, StoreError> {
        let mut found = Found { after, ..Found::default() };
        while !found.is_full() {
            found = self
                .read(move |tx| {
                    tx.look_for_old(retention, &mut found)?;
                    Ok(found)
                })
                .await?;
        }
        let Found { old, after, cut, done, .. } = found;
        let (mut report, all) = self.delete_old(retention, old).await?;
        let next = match () {
            // A key of which less went than was to go is not looked at twice.
            () if cut && all => Stage::Keys(after - 1),
            () if done => Stage::FIRST_OUTCOME,
            () => Stage::Keys(after),
        };
        report.next = Some(next.cursor());
        Ok(report)
    }

    /// Deletes what was found, and says whether all of it is gone.
    async fn delete_old(
        self: &Arc<Self>,
        retention: Retention,
        old: Vec<Old>,
    ) -> Result<(SweepReport, bool), StoreError> {
        if old.is_empty() {
            return Ok((SweepReport::default(), true));
        }
        let old = Arc::new(old);
        let of_task = old.clone();
        let deleted = self.write(move |tx| {
            let mut report = SweepReport::default();
            let mut all = true;
            for old in of_task.iter() {
                all &= tx.delete(retention, old, &mut report)?;
            }
            Ok((report, all))
        });
        match deleted.await {
            Err(err) if is_harm(&err) => {}
            deleted => return deleted,
        }
        // One of them cannot be deleted: each gets its own transaction.
        let mut report = SweepReport::default();
        for at in 0..old.len() {
            let (of_task, mut so_far) = (old.clone(), report.clone());
            let deleted = self.write(move |tx| {
                tx.delete(retention, &of_task[at], &mut so_far)?;
                Ok(so_far)
            });
            match deleted.await {
                Ok(so_far) => report = so_far,
                Err(err) if is_harm(&err) => tracing::warn!(%err, "a sweep leaves what is damaged"),
                Err(err) => return Err(err),
            }
        }
        Ok((report, false))
    }
}

impl Tx<'_> {
    /// Looks at keys until this read has gone through enough rows, or the piece is full.
    fn look_for_old(&self, retention: Retention, found: &mut Found) -> Result<(), Trouble> {
        match self.look_through(retention, found, i64::MAX) {
            Err(Trouble::Sqlite(err)) if is_damage(&err) => {
                tracing::warn!(%err, "a sweep leaves keys whose rows cannot be read");
            }
            looked => return looked,
        }
        // Each row by itself, from where it went wrong.
        let (keys, last) = (found.keys, found.after.saturating_add(PIECE));
        while found.after < last && !found.is_full() {
            let id = found.after + 1;
            match self.look_through(retention, found, id) {
                Err(Trouble::Sqlite(err)) if is_damage(&err) => {}
                looked => looked?,
            }
            found.after = found.after.max(id);
        }
        found.barren = if found.keys == keys { found.barren + 1 } else { 0 };
        found.done |= found.barren >= BARREN_READS;
        Ok(())
    }

    /// The same, for keys whose rows are readable. `up_to`: the last row.
    fn look_through(
        &self,
        retention: Retention,
        found: &mut Found,
        up_to: i64,
    ) -> Result<(), Trouble> {
        let sql = format!(
            "SELECT h.store, h.scope, h.key, {HEAD_COLUMNS} FROM head h WHERE h.id > ?1 \
             AND h.id <= ?2 ORDER BY h.id LIMIT ?3"
        );
        let mut statement = self.conn.prepare_cached(&sql)?;
        let mut rows = statement.query([found.after, up_to, PIECE - found.keys])?;
        let mut read = 0;
        while read < READ_ROWS && !found.is_full() {
            let Some(row) = rows.next()? else {
                found.done = up_to == i64::MAX;
                return Ok(());
            };
            let id = row.get(3)?;
            let looked = super::key_of_row(row, 0)
                .and_then(|key| Head::of_row(key, row, 3, None))
                .and_then(|head| self.look_at(retention, id, &head, found));
            (found.after, found.keys) = (id, found.keys + 1);
            match looked.map_err(Trouble::not_applied) {
                Ok(rows) => read += rows,
                Err(err) if is_harm(&err) => {
                    tracing::warn!(%err, row = id, "a sweep leaves a key that is damaged");
                }
                Err(err) => return Err(err.into()),
            }
        }
        Ok(())
    }

    /// Notes what of a key is old, and says how many versions it looked at.
    fn look_at(
        &self,
        retention: Retention,
        id: i64,
        head: &Head,
        found: &mut Found,
    ) -> Result<usize, Trouble> {
        struct Link {
            id: i64,
            number: u64,
            bytes: u64,
            goes: bool,
        }
        let old = |at: i64| self.now_ms.saturating_sub(at) > retention.history_ms;
        let mut chain = Vec::new();
        self.walk(head, |row| {
            let info = &row.info;
            let goes = !info.pinned && info.superseded_ms.is_some_and(old);
            chain.push(Link { id: row.id, number: info.number, bytes: info.bytes, goes });
            true
        })?;
        let mut newer = 0;
        for links in chain.chunk_by(|a, b| a.goes == b.goes) {
            if links[0].goes {
                let fit = links.iter().take_while(|link| found.takes(link.bytes));
                let gone: Vec<_> = fit.map(|link| (link.id, link.number)).collect();
                if !gone.is_empty() {
                    found.old.push(Old::Versions { head: id, newer, gone });
                }
            }
            newer = links.last().map_or(newer, |link| link.id);
            if found.cut {
                return Ok(chain.len());
            }
        }
        let [receipts, links] = self.oldest(retention);
        let mut statement =
            self.prepare("SELECT digest FROM receipt WHERE head = ?1 AND made_ms < ?2")?;
        let mut rows = statement.query([id, receipts])?;
        while let Some(row) = rows.next()?
            && found.takes(0)
        {
            found.old.push(Old::Receipt { head: id, digest: row.get(0)? });
        }
        let mut statement =
            self.prepare("SELECT number FROM link WHERE head = ?1 AND at_ms < ?2")?;
        let mut rows = statement.query([id, links])?;
        while !found.cut
            && let Some(row) = rows.next()?
            && found.takes(0)
        {
            found.old.push(Old::Link { head: id, number: row.get(0)? });
        }
        Ok(chain.len())
    }

    /// From when on receipts stay, and links.
    fn oldest(&self, retention: Retention) -> [i64; 2] {
        [rules::RECEIPT_KEPT_MS, retention.history_ms].map(|kept| self.now_ms.saturating_sub(kept))
    }

    /// Deletes something old if it is there as it was found. False when it is not.
    fn delete(
        &self,
        retention: Retention,
        old: &Old,
        report: &mut SweepReport,
    ) -> Result<bool, Trouble> {
        let [receipts, links] = self.oldest(retention);
        match old {
            Old::Versions { head, newer, gone } => {
                let taken_out = self.take_out(*head, *newer, gone)?;
                report.versions += if taken_out { gone.len() as u64 } else { 0 };
                Ok(taken_out)
            }
            Old::Receipt { head, digest } => {
                let sql = "DELETE FROM receipt WHERE head = ?1 AND digest = ?2 AND made_ms < ?3";
                let deleted = self.prepare(sql)?.execute(params![head, digest, receipts])?;
                report.receipts += deleted as u64;
                Ok(deleted == 1)
            }
            Old::Link { head, number } => {
                let sql = "DELETE FROM link WHERE head = ?1 AND number = ?2 AND at_ms < ?3";
                Ok(self.prepare(sql)?.execute([*head, *number, links])? == 1)
            }
        }
    }

    /// Takes versions out of a key's chain, behind the row `newer`, if they still lie there.
    fn take_out(&self, head: i64, newer: i64, gone: &[(i64, u64)]) -> Result<bool, Trouble> {
        let sql = "SELECT number, previous, previous_superseded_ms, flags FROM version \
            WHERE id = ?1 AND head = ?2";
        let look = |id: i64| -> Result<Option<[i64; 4]>, Trouble> {
            let mut statement = self.prepare(sql)?;
            let found = statement.query_row([id, head], |row| {
                Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
            });
            Ok(found.optional()?)
        };
        let Some([_, mut previous, mut superseded_ms, _]) = look(newer)? else { return Ok(false) };
        for (id, number) in gone {
            match look(*id)? {
                Some([found, next, next_superseded_ms, flags])
                    if previous == *id
                        && found.cast_unsigned() == *number
                        && flags & PINNED == 0 =>
                {
                    (previous, superseded_ms) = (next, next_superseded_ms);
                }
                _ => return Ok(false),
            }
        }
        let sql = "UPDATE version SET previous = ?2, previous_superseded_ms = ?3 WHERE id = ?1";
        self.prepare(sql)?.execute([newer, previous, superseded_ms])?;
        for (id, _) in gone {
            self.prepare("DELETE FROM version WHERE id = ?1")?.execute([id])?;
        }
        Ok(true)
    }

    /// Outcomes by id, which is by the time of the ids' makers. Those of a clock that is ahead go
    /// when their ids' time has come; and whatever the id says, nothing goes before its time on the
    /// store's clock.
    fn sweep_outcomes(&mut self, after: [u8; 16]) -> Result<SweepReport, Trouble> {
        let oldest = self.now_ms.saturating_sub(rules::OUTCOME_KEPT_MS);
        let end = (u128::from(oldest.max(0).cast_unsigned()) << 80).to_be_bytes();
        let sql = "SELECT id FROM settled WHERE id > ?1 AND id < ?2 AND at_ms < ?3 ORDER BY id \
            LIMIT ?4";
        let ids = {
            let mut statement = self.prepare(sql)?;
            let rows = statement
                .query_map(params![after.as_slice(), end.as_slice(), oldest, PIECE], |row| {
                    row.get::<_, [u8; 16]>(0)
                })?;
            rows.collect::<Result<Vec<_>, _>>()?
        };
        for id in &ids {
            self.prepare("DELETE FROM settled WHERE id = ?1")?.execute([id.as_slice()])?;
        }
        let outcomes = ids.len() as u64;
        let last = ids.last().filter(|_| outcomes == PIECE.cast_unsigned());
        let next = last.map_or(Stage::Untimed, |last| Stage::Outcomes(*last));
        Ok(SweepReport { outcomes, next: Some(next.cursor()), ..SweepReport::default() })
    }

    /// Outcomes whose ids may tell no time: those of requests from outside, and of what was
    /// aborted. Then the servers that are long dead.
    fn sweep_untimed(&mut self) -> Result<SweepReport, Trouble> {
        let oldest = self.now_ms.saturating_sub(rules::OUTCOME_KEPT_MS);
        let deleted = self.prepare(UNTIMED)?.execute([oldest, PIECE])? as u64;
        let mut report = SweepReport { outcomes: deleted, ..SweepReport::default() };
        if deleted == PIECE.cast_unsigned() {
            report.next = Some(Stage::Untimed.cursor());
            return Ok(report);
        }
        let sql = "DELETE FROM server WHERE dead_ms < ?1";
        report.servers = self.prepare(sql)?.execute([oldest])? as u64;
        let sql = "DELETE FROM notice WHERE server NOT IN (SELECT id FROM server)";
        self.prepare(sql)?.execute([])?;
        Ok(report)
    }
}

/// Finds its rows by the index `settled_untimed`, whose condition it repeats.
const UNTIMED: &str = "DELETE FROM settled WHERE id IN (SELECT id FROM settled WHERE at_ms < ?1 \
     AND (fingerprint IS NOT NULL OR aborted = 1) LIMIT ?2)";

/// Whether something is damaged, as opposed to out of reach for now.
fn is_harm(err: &StoreError) -> bool {
    matches!(err, StoreError::Corrupt { .. } | StoreError::Damaged { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_store::{SqliteOptions, SqliteStore};

    /// There may be many times as many outcomes whose ids tell their time.
    #[test]
    fn outcomes_of_ids_without_a_time_are_found_by_their_index() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("players.db");
        drop(SqliteStore::open(&path, SqliteOptions::default()).expect("the store opens"));
        let conn = rusqlite::Connection::open(&path).expect("the file opens");
        let mut plan = conn.prepare(&format!("EXPLAIN QUERY PLAN {UNTIMED}")).expect("a statement");
        let steps = plan.query_map([0_i64, PIECE], |row| row.get::<_, String>(3)).expect("a plan");
        let steps: Vec<String> = steps.collect::<Result<_, _>>().expect("a plan");
        assert!(steps.iter().any(|step| step.contains("settled_untimed")), "{steps:?}");
        assert!(steps.iter().all(|step| !step.starts_with("SCAN settled")), "{steps:?}");
    }
}
