//! Reads: a small pool of connections, and what is asked of them.

use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Connection, ToSql};
use tokio::sync::Semaphore;

use super::{
    Inner, Trouble,
    gets::{Gets, panicked},
    head::{HEAD_COLUMNS, Head},
    schema,
    state::Tx,
};
use crate::{
    data_store::{
        Commit, CommitReply, KeyFilter, KeyQuery, KeyState, Order, Returning, StoreError,
        StoredVersion, VersionInfo, VersionQuery, VersionRef, pages, rules::end_of_prefix,
    },
    key::ProfileKey,
};

/// How many reads run at once, besides those of [`Gets`]; the others wait their turn.
const READERS: usize = 8;

/// Idle connections, made when needed.
pub(super) struct Readers {
    /// None once the store is closed.
    idle: Mutex<Option<Vec<Connection>>>,
    turns: Arc<Semaphore>,
    /// Reads of what keys hold, which take no turns.
    pub(super) gets: Gets,
}

impl Default for Readers {
    fn default() -> Self {
        let (idle, turns) = (Mutex::new(Some(Vec::new())), Arc::new(Semaphore::new(READERS)));
        Self { idle, turns, gets: Gets::default() }
    }
}

impl Readers {
    pub(super) fn close(&self) {
        drop(self.idle.lock().take());
    }
}

impl Inner {
    /// Runs a read on the blocking pool, in one read transaction.
    pub(super) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&mut Tx<'_>) -> Result<T, Trouble> + Send + 'static,
    ) -> Result<T, StoreError> {
        let stopped = || StoreError::Unavailable { reason: "the runtime is shutting down".into() };
        let turn = self.readers.turns.clone().acquire_owned().await.map_err(|_| stopped())?;
        let inner = self.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            inner.read_now(read)
        });
        let read =
            task.await.map_err(|err| if err.is_panic() { panicked() } else { stopped() })??;
        self.syncs.seen().await?;
        Ok(read)
    }

    /// Runs a read on this thread, in one read transaction.
    pub(super) fn read_now<T>(
        &self,
        read: impl FnOnce(&mut Tx<'_>) -> Result<T, Trouble>,
    ) -> Result<T, StoreError> {
        self.not_known_to_be_gone()?;
        let idle = self.readers.idle.lock().as_mut().and_then(Vec::pop);
        let conn = match idle {
            Some(conn) => conn,
            None => self.reader()?,
        };
        let result = in_transaction(&conn, self.options.env.unix_ms(), read);
        // A connection that an error left in an odd state is not used again.
        if let Some(idle) =
            self.readers.idle.lock().as_mut().filter(|_| result.is_ok() && conn.is_autocommit())
        {
            idle.push(conn);
        }
        result.map_err(Trouble::not_applied)
    }

    /// The same, for a caller that waits for the disk: syncs what the read may have seen.
    pub(super) fn read_and_sync<T>(
        &self,
        read: impl FnOnce(&mut Tx<'_>) -> Result<T, Trouble>,
    ) -> Result<T, StoreError> {
        let read = self.read_now(read)?;
        self.syncs.sync_seen()?;
        Ok(read)
    }

    /// Answers commits of nothing but checks, which write nothing.
    pub(super) async fn check(
        self: &Arc<Self>,
        commits: Vec<Commit>,
    ) -> Vec<Result<CommitReply, StoreError>> {
        let count = commits.len();
        let checked = self.read(move |tx| {
            let found = schema::incarnation(tx.conn)?;
            let answer = |commit: &Commit| tx.check(commit, found).map_err(Trouble::not_applied);
            Ok(commits.iter().map(answer).collect::<Vec<_>>())
        });
        checked.await.unwrap_or_else(|err| vec![Err(err); count])
    }
}

fn in_transaction<T>(
    conn: &Connection,
    now_ms: i64,
    read: impl FnOnce(&mut Tx<'_>) -> Result<T, Trouble>,
) -> Result<T, Trouble> {
    conn.prepare_cached("BEGIN")?.execute([])?;
    let result = read(&mut Tx::new(conn, now_ms));
    let ended = conn.prepare_cached("ROLLBACK")?.execute([]);
    let result = result?;
    ended?;
    Ok(result)
}

impl Tx<'_> {
    pub(super) fn version(
        &mut self,
        key: &ProfileKey,
        version: &VersionRef,
    ) -> Result<Option<StoredVersion>, Trouble> {
        let at = self.head(key)?;
        let wanted = |info: &VersionInfo| match version {
            VersionRef::Number(number) => info.number == *number,
            VersionRef::Label(label) => info.label.as_ref() == Some(label),
        };
        let Some(row) = self.find_version(&self.heads[at], wanted)? else { return Ok(None) };
        Ok(Some(StoredVersion { value: self.value(key, &row)?, info: row.info }))
    }

    pub(super) fn versions(&mut self, query: &VersionQuery) -> Result<Vec<VersionInfo>, Trouble> {
        let at = self.head(&query.key)?;
        let wanted = |info: &VersionInfo| {
            let beyond = query.after.is_none_or(|after| match query.order {
                Order::Ascending => info.number > after,
                Order::Descending => info.number < after,
            });
            beyond
                && query.from_ms.is_none_or(|from| info.written_ms >= from)
                && query.to_ms.is_none_or(|to| info.written_ms <= to)
        };
        let mut found = Vec::new();
        self.walk(&self.heads[at], |row| {
            let full = query.order == Order::Descending && found.len() >= query.limit;
            if !full && wanted(&row.info) {
                found.push(row.info.clone());
            }
            // The chain leads back: ascending pages are cut out of all that lies beyond.
            !full
                && (query.order == Order::Descending
                    || query.after.is_none_or(|after| row.info.number > after))
        })?;
        if query.order == Order::Ascending {
            found.reverse();
        }
        found.truncate(query.limit);
        Ok(found)
    }

    pub(super) fn keys(&mut self, query: &KeyQuery) -> Result<Vec<KeyState>, Trouble> {
        let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
        let mut params: Vec<&dyn ToSql> = vec![&limit];
        let mut conditions = String::from("?1 IS ?1");
        let mut add = |condition: &str, param| {
            params.push(param);
            let place = format!("?{}", params.len());
            conditions.push_str(&format!(" AND {}", condition.replacen('?', &place, 1)));
        };
        let (prefixes, filter) = query.filter.parts();
        let source = match filter {
            KeyFilter::User(user) => {
                add("u.user = ?", user);
                "profile_user u CROSS JOIN head h ON h.id = u.head"
            }
            KeyFilter::UpdatedSince(since) => {
                add("h.stored_ms >= ? AND h.version > 0", since);
                "head h"
            }
            KeyFilter::Held => "head h INDEXED BY head_held",
            _ => "head h",
        };
        if let Some(store) = &query.store {
            add("h.store = ?", store);
        }
        if let Some(scope) = &query.scope {
            add("h.scope = ?", scope);
        }
        let ends: Vec<_> = prefixes.iter().map(|prefix| end_of_prefix(prefix)).collect();
        for (prefix, end) in prefixes.iter().zip(&ends) {
            if !pages::is_within(query, prefix) {
                add("h.key >= ?", prefix);
            }
            if let Some(end) = end {
                add("h.key < ?", end);
            }
        }
        let after = pages::begins_after(query);
        if !after.is_empty() {
            let places = (1..=after.len()).map(|place| format!("?{}", params.len() + place));
            let places = places.collect::<Vec<_>>().join(", ");
            let columns: Vec<_> = after.iter().map(|(column, _)| format!("h.{column}")).collect();
            conditions.push_str(&format!(" AND ({}) > ({places})", columns.join(", ")));
            params.extend(after.iter().map(|(_, name)| name as &dyn ToSql));
        }
        if matches!(filter, KeyFilter::Held) {
            conditions.push_str(" AND h.held = 1");
        }
        let sql = format!(
            "SELECT h.store, h.scope, h.key, {HEAD_COLUMNS} FROM {source} WHERE {conditions} \
             ORDER BY h.store, h.scope, h.key LIMIT ?1"
        );
        let mut statement = self.conn.prepare_cached(&sql)?;
        let mut rows = statement.query(params.as_slice())?;
        let mut heads = Vec::new();
        while let Some(row) = rows.next()? {
            let key = super::key_of_row(row, 0)?;
            let head = Head::of_row(key, row, 3, None)?;
            heads.push(head);
        }
        drop(rows);
        heads.into_iter().map(|head| self.state_of(head, Returning::HEAD)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;
    use uuid::Uuid;

    use super::*;
    use crate::data_store::{Change, CommitId, DataStore as _, SqliteOptions, SqliteStore};

    /// It had no limit, and waited for those that read.
    #[tokio::test]
    async fn a_commit_of_checks_is_answered_at_its_deadline() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("players.db");
        let store = SqliteStore::open(path, SqliteOptions::default()).expect("the store opens");
        let incarnation = store.identity().await.expect("an identity").incarnation;
        let key = ProfileKey::new("S", "global", "k").expect("a valid name");
        let commit = Commit {
            id: CommitId(Uuid::from_u128(7)),
            incarnation,
            from: None,
            changes: vec![Change::Check { key, epoch: 0 }],
            returning: Returning::HEAD,
            fingerprint: None,
        };
        tokio::time::pause();
        let turns = store.inner.readers.turns.clone();
        let _all = turns.acquire_many_owned(READERS as u32).await.expect("an open store");
        let by = Instant::now() + Duration::from_secs(1);
        let answering = store.commit_by(vec![commit], by);
        let answered = tokio::time::timeout(Duration::from_secs(60), answering).await;
        let answered = answered.expect("it is answered");
        assert!(matches!(answered[..], [Err(StoreError::Unavailable { .. })]), "{answered:?}");
    }
}
