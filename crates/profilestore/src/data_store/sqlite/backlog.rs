//! What operators look at: what waits in all inboxes of a file, and how large it is.

use rusqlite::OptionalExtension;

use super::{SqliteStore, key_of_row};
use crate::data_store::{Backlog, OldestMessage, StoreError, TableUpkeep};

const COUNTS: &str = "SELECT count(*), count(DISTINCT head), \
    count(*) FILTER (WHERE substr(name, 1, 6) = '~edit/') FROM message";

const OLDEST: &str = "SELECT h.store, h.scope, h.key, m.sent_ms FROM message m \
    JOIN head h ON h.id = m.head WHERE substr(m.name, 1, 6) <> '~edit/' ORDER BY m.sent_ms LIMIT 1";

const PAGES: &str = "SELECT page_count * page_size, freelist_count * page_size \
    FROM pragma_page_count, pragma_freelist_count, pragma_page_size";

impl SqliteStore {
    /// The file as one table.
    pub(super) async fn tables(&self) -> Result<Vec<TableUpkeep>, StoreError> {
        self.inner
            .read(|tx| {
                let (bytes, free): (i64, i64) =
                    tx.conn.query_row(PAGES, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
                Ok(vec![TableUpkeep {
                    free_bytes: Some(free.cast_unsigned()),
                    ..TableUpkeep::new("file", bytes.cast_unsigned())
                }])
            })
            .await
    }

    /// Counts all messages that wait, and finds the oldest one. Goes through all of them.
    pub async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.inner
            .read(|tx| {
                let (all, keys, edits): (i64, i64, i64) = tx
                    .conn
                    .query_row(COUNTS, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
                let mut statement = tx.conn.prepare(OLDEST)?;
                let oldest = statement
                    .query_row([], |row| Ok((key_of_row(row, 0), row.get(3)?)))
                    .optional()?
                    .map(|(key, sent_ms)| key.map(|key| OldestMessage { key, sent_ms }))
                    .transpose()?;
                Ok(Backlog {
                    messages: (all - edits).cast_unsigned(),
                    edits: edits.cast_unsigned(),
                    keys: keys.cast_unsigned(),
                    oldest,
                })
            })
            .await
    }
}
