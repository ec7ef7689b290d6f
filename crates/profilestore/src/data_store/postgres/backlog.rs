//! What operators look at: what waits in all inboxes of a database, and how its tables are.

use super::{
    PostgresStore,
    connect::Step,
    reader::Question,
    state::{get, key_of_row, unsigned},
};
use crate::data_store::{Backlog, OldestMessage, StoreError, TableUpkeep};

pub(super) const COUNTS: &str = "SELECT count(*), count(DISTINCT (store, scope, key)), \
    count(*) FILTER (WHERE left(name, 6) = '~edit/') FROM message";

pub(super) const OLDEST: &str = "SELECT store, scope, key, sent_ms FROM message \
    WHERE left(name, 6) <> '~edit/' ORDER BY sent_ms LIMIT 1";

const TABLES: &str = "SELECT relname::text, pg_total_relation_size(relid), n_live_tup, n_dead_tup, \
    (extract(epoch FROM greatest(last_vacuum, last_autovacuum)) * 1000)::bigint \
    FROM pg_stat_user_tables WHERE schemaname = current_schema() ORDER BY 2 DESC";

impl PostgresStore {
    /// The store's tables, the largest first, as the database's own statistics have them.
    pub(super) async fn tables(&self) -> Result<Vec<TableUpkeep>, StoreError> {
        let steps = [Step::new(TABLES)];
        let rows = self.inner.ask(Question::Steps { steps: &steps, snapshot: false }).await?;
        let table = |row| {
            Ok(TableUpkeep {
                rows: Some(unsigned(row, 2)?),
                dead_rows: Some(unsigned(row, 3)?),
                vacuumed_ms: get(row, 4)?,
                ..TableUpkeep::new(get::<String>(row, 0)?, unsigned(row, 1)?)
            })
        };
        let Some(rows) = rows.first() else { return Ok(Vec::new()) };
        rows.iter().map(table).collect()
    }

    /// Counts all messages that wait, and finds the oldest one. Goes through all of them.
    pub async fn backlog(&self) -> Result<Backlog, StoreError> {
        let steps = [Step::new(COUNTS), Step::new(OLDEST)];
        let rows = self.inner.ask(Question::Steps { steps: &steps, snapshot: true }).await?;
        let [counts, oldest] = &rows[..] else { return Ok(Backlog::default()) };
        let oldest = match oldest.first() {
            Some(row) => Some(OldestMessage { key: key_of_row(row, 0)?, sent_ms: get(row, 3)? }),
            None => None,
        };
        let Some(row) = counts.first() else { return Ok(Backlog::default()) };
        let [all, keys, edits] = [unsigned(row, 0)?, unsigned(row, 1)?, unsigned(row, 2)?];
        Ok(Backlog { messages: all - edits, edits, keys, oldest })
    }
}
