//! What waits in all inboxes of a database.

use super::{
    PostgresStore,
    connect::Step,
    reader::Question,
    state::{get, key_of_row, unsigned},
};
use crate::data_store::{Backlog, OldestMessage, StoreError};

pub(super) const COUNTS: &str = "SELECT count(*), count(DISTINCT (store, scope, key)), \
    count(*) FILTER (WHERE left(name, 6) = '~edit/') FROM message";

pub(super) const OLDEST: &str = "SELECT store, scope, key, sent_ms FROM message \
    WHERE left(name, 6) <> '~edit/' ORDER BY sent_ms LIMIT 1";

impl PostgresStore {
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
