//! What a transaction sees of the store: rows read into the terms of the contract, each once a
//! commit.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::{
    Trouble,
    head::{Head, corrupt, head_columns, unsigned},
    known::KnownHeads,
    schema::{PINNED, REMOVED, is_damage},
    statements::{Borrowed, Leases, Statements},
};
use crate::{
    data_store::{
        Cause, CommitId, Digest, KeyState, MessageId, Returning, ServerId, ServerRow, StoreError,
        StoredMessage, VersionInfo, checksum,
        rules::{Counters, MessageFacts, Outcome, View},
    },
    key::ProfileKey,
};

const HEAD: &str = concat!(
    "SELECT ",
    head_columns!(),
    " FROM head h WHERE h.store = ?1 AND h.scope = ?2 AND h.key = ?3"
);

/// What [`info_of_row`] reads.
macro_rules! version_columns {
    () => {
        "v.number, v.label, v.written_ms, v.stored_ms, v.flags, v.cause, v.author, v.load_count, \
         length(v.value)"
    };
}

pub(super) const VERSION_COLUMNS: &str = version_columns!();

const VERSION: &str = concat!(
    "SELECT ",
    version_columns!(),
    ", v.previous, v.previous_superseded_ms, v.head FROM version v WHERE v.id = ?1"
);

const MESSAGES: &str = "SELECT number, created_ms, name, payload, locked, revision, sent_ms FROM message \
     WHERE head = ?1 ORDER BY number";

/// A `version` row without its value.
pub(super) struct VersionRow {
    pub(super) id: i64,
    pub(super) head: i64,
    pub(super) info: VersionInfo,
    /// The row of the kept version before it, or 0.
    pub(super) previous: i64,
    pub(super) previous_superseded_ms: i64,
}

/// A transaction's view. Heads are kept for one commit, server rows for the whole transaction.
pub(super) struct Tx<'c> {
    pub(super) conn: &'c Connection,
    pub(super) now_ms: i64,
    #[expect(clippy::vec_box, reason = "they come from the known heads, and go back to them")]
    pub(super) heads: Vec<Box<Head>>,
    pub(super) servers: BTreeMap<ServerId, Option<ServerRow>>,
    statements: Statements<'c>,
    leases: Option<&'c Leases>,
    known_heads: Option<&'c KnownHeads>,
    /// The commit is of one write: from now on the writer knows its head.
    pub(super) is_save: bool,
}

impl<'c> Tx<'c> {
    pub(super) fn new(conn: &'c Connection, now_ms: i64) -> Self {
        let (statements, leases, known_heads) = (Statements::default(), None, None);
        let (heads, servers) = (Vec::new(), BTreeMap::new());
        Self { conn, now_ms, heads, servers, statements, leases, known_heads, is_save: false }
    }

    /// Of a writer, which knows most heads and has read most leases before.
    pub(super) fn of_writer(
        conn: &'c Connection,
        now_ms: i64,
        leases: &'c Leases,
        known: &'c KnownHeads,
    ) -> Self {
        Self { leases: Some(leases), known_heads: Some(known), ..Self::new(conn, now_ms) }
    }

    /// Reads all heads, and leaves none to be known.
    pub(super) fn know_nothing(&mut self) {
        self.known_heads = None;
    }

    pub(super) fn prepare(&self, sql: &'static str) -> Result<Borrowed<'c>, Trouble> {
        Ok(self.statements.get(self.conn, sql)?)
    }

    /// The place in `heads` of a key's head, read on first use.
    pub(super) fn head(&mut self, key: &ProfileKey) -> Result<usize, Trouble> {
        if let Some(at) = self.heads.iter().position(|head| head.key == *key) {
            return Ok(at);
        }
        let head = match self.known_heads.and_then(|known| known.take(key)) {
            Some(head) => head,
            None => Box::new(self.read_head(key)?),
        };
        self.heads.push(head);
        Ok(self.heads.len() - 1)
    }

    fn read_head(&self, key: &ProfileKey) -> Result<Head, Trouble> {
        let mut statement = self.prepare(HEAD)?;
        let mut rows = statement.query([key.store(), key.scope(), key.key()])?;
        match rows.next()? {
            Some(row) => Head::of_row(key.clone(), row, 0, self.leases),
            None => Ok(Head::absent(key.clone())),
        }
    }

    pub(super) fn server_row(&mut self, id: ServerId) -> Result<Option<ServerRow>, Trouble> {
        if let Some(row) = self.servers.get(&id) {
            return Ok(row.clone());
        }
        let row = self.find_server(id)?;
        self.servers.insert(id, row.clone());
        Ok(row)
    }

    /// A `version` row, of this head and below this number, or the store is damaged.
    pub(super) fn version_row(
        &self,
        head: &Head,
        id: i64,
        below: Option<u64>,
    ) -> Result<VersionRow, Trouble> {
        let key = &head.key;
        let mut statement = self.prepare(VERSION)?;
        let mut rows = statement.query([id])?;
        let Some(row) = rows.next()? else {
            return Err(corrupt(format!("a version's row is missing: key=`{key}` row=`{id}`")));
        };
        let info = info_of_row(key, row, 0)?;
        let found = VersionRow {
            id,
            head: row.get(11)?,
            info,
            previous: row.get(9)?,
            previous_superseded_ms: row.get(10)?,
        };
        if Some(found.head) != head.id || below.is_some_and(|below| found.info.number >= below) {
            let number = found.info.number;
            return Err(corrupt(format!(
                "a version's row belongs elsewhere: key=`{key}` row=`{id}` version=`{number}`"
            )));
        }
        Ok(found)
    }

    /// A key's kept versions from the current one back, as long as `visit` says so.
    pub(super) fn walk(
        &self,
        head: &Head,
        mut visit: impl FnMut(&VersionRow) -> bool,
    ) -> Result<(), Trouble> {
        let (mut next, mut below, mut superseded) = (head.current, None, None);
        while next != 0 {
            let mut row = self.version_row(head, next, below)?;
            row.info.superseded_ms = superseded;
            if !visit(&row) {
                return Ok(());
            }
            (next, below, superseded) =
                (row.previous, Some(row.info.number), Some(row.previous_superseded_ms));
        }
        Ok(())
    }

    /// The kept version that is looked for, the newest first.
    pub(super) fn find_version(
        &self,
        head: &Head,
        wanted: impl Fn(&VersionInfo) -> bool,
    ) -> Result<Option<VersionRow>, Trouble> {
        let mut found = None;
        self.walk(head, |row| {
            if wanted(&row.info) {
                let info = row.info.clone();
                let (previous, previous_superseded_ms) = (row.previous, row.previous_superseded_ms);
                found = Some(VersionRow {
                    id: row.id,
                    head: row.head,
                    info,
                    previous,
                    previous_superseded_ms,
                });
            }
            found.is_none()
        })?;
        Ok(found)
    }

    /// The row of a key's current version, or the store is damaged.
    pub(super) fn current_row(&self, head: &Head) -> Result<VersionRow, Trouble> {
        let row = self.version_row(head, head.current, None)?;
        if row.info.number != head.version {
            let (key, found, expected) = (&head.key, row.info.number, head.version);
            return Err(corrupt(format!(
                "a key points to another version than it names: key=`{key}` \
                    expected=`{expected}` found=`{found}`"
            )));
        }
        Ok(row)
    }

    /// The value of a version, if it is the one that was written.
    pub(super) fn value(
        &self,
        key: &ProfileKey,
        version: &VersionRow,
    ) -> Result<Option<Bytes>, Trouble> {
        self.value_of(key, version.id, &version.info)
    }

    fn value_of(
        &self,
        key: &ProfileKey,
        id: i64,
        info: &VersionInfo,
    ) -> Result<Option<Bytes>, Trouble> {
        let damaged = || StoreError::Damaged { key: key.clone(), version: info.number };
        let mut statement = self.prepare("SELECT checksum, value FROM version WHERE id = ?1")?;
        let mut rows = statement.query([id])?;
        let row = match rows.next() {
            // The pages of the value.
            Err(err) if is_damage(&err) => return Err(damaged().into()),
            row => row?,
        };
        let Some(row) = row else { return Ok(None) };
        // A damaged row may hold something of another type there.
        let stored = row.get::<_, Option<u32>>(0).unwrap_or_default();
        let value = value_of_column(row, 1).map_err(|()| damaged())?;
        checksum::verify(key, info, value, stored)?;
        Ok(value.map(Bytes::copy_from_slice))
    }

    /// What a key holds. Takes the head out of `heads`: the next call reads it again, or knows it.
    pub(super) fn key_state(
        &mut self,
        key: &ProfileKey,
        returning: Returning,
    ) -> Result<KeyState, Trouble> {
        let at = self.head(key)?;
        let mut head = self.heads.swap_remove(at);
        let Some(known) = self.known_heads.filter(|_| head.is_worth_knowing()) else {
            return self.state_of(*head, returning);
        };
        let shown = head.show();
        if self.is_save {
            known.put(head);
        } else {
            drop(known.put_back(head));
        }
        self.state_of(shown, returning)
    }

    pub(super) fn state_of(
        &mut self,
        mut head: Head,
        returning: Returning,
    ) -> Result<KeyState, Trouble> {
        let holder = head.lease.holder.as_ref().and_then(|holder| holder.server);
        let holder_server = match holder {
            Some(id) => self.server_row(id)?,
            None => None,
        };
        if head.info.is_none() && head.current != 0 {
            head.info = Some(self.current_row(&head)?.info);
        }
        let inbox = match returning.inbox_unless {
            Some(revision) if revision != head.inbox_revision => Some(self.inbox(&head)?),
            _ => None,
        };
        let value = match (head.written, &head.info) {
            _ if !returning.value => None,
            (Some(value), _) => value,
            (None, Some(info)) => self.value_of(&head.key, head.current, info)?,
            (None, None) => None,
        };
        Ok(KeyState {
            key: head.key,
            epoch: head.epoch,
            version: head.version,
            created_ms: head.created_ms,
            head: head.info,
            lease: Arc::unwrap_or_clone(head.lease),
            lease_revision: head.lease_revision,
            holder_server,
            inbox_revision: head.inbox_revision,
            last_message: head.last_message,
            inbox,
            value,
        })
    }

    fn inbox(&self, head: &Head) -> Result<Vec<StoredMessage>, Trouble> {
        let Some(id) = head.id.filter(|_| head.waiting > 0) else { return Ok(Vec::new()) };
        let mut statement = self.prepare(MESSAGES)?;
        let mut rows = statement.query([id])?;
        let mut messages = Vec::new();
        while let Some(row) = rows.next()? {
            let (index, name): (u64, String) = (unsigned(row, 0)?, row.get(2)?);
            let Some(id) = MessageId::stored(row.get(1)?, &name) else {
                let key = &head.key;
                return Err(corrupt(format!("a message has no name: key=`{key}` index=`{index}`")));
            };
            let payload = row.get_ref(3)?.as_blob().map_err(rusqlite::Error::from)?;
            messages.push(StoredMessage {
                index,
                id,
                payload: Bytes::copy_from_slice(payload),
                locked: row.get(4)?,
                revision: unsigned(row, 5)?,
                sent_ms: row.get(6)?,
            });
        }
        Ok(messages)
    }
}

impl View for Tx<'_> {
    type Error = Trouble;

    fn counters(&mut self, key: &ProfileKey) -> Result<Counters, Trouble> {
        let at = self.head(key)?;
        let &Head { epoch, version, lease_revision, inbox_revision, waiting, .. } =
            &*self.heads[at];
        Ok(Counters { epoch, version, lease_revision, inbox_revision, waiting })
    }

    fn message(&mut self, key: &ProfileKey, index: u64) -> Result<Option<MessageFacts>, Trouble> {
        let at = self.head(key)?;
        let Some(id) = self.heads[at].id else { return Ok(None) };
        let mut statement =
            self.prepare("SELECT revision, locked FROM message WHERE head = ?1 AND number = ?2")?;
        let facts = statement.query_row([id, index.cast_signed()], |row| {
            Ok(MessageFacts { revision: unsigned(row, 0)?, locked: row.get(1)? })
        });
        Ok(facts.optional()?)
    }

    fn message_id(&mut self, key: &ProfileKey, index: u64) -> Result<Option<MessageId>, Trouble> {
        let at = self.head(key)?;
        let Some(id) = self.heads[at].id else { return Ok(None) };
        let sql = "SELECT created_ms, name FROM message WHERE head = ?1 AND number = ?2";
        let mut statement = self.prepare(sql)?;
        let named: Option<(i64, String)> = statement
            .query_row([id, index.cast_signed()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        Ok(named.and_then(|(created_ms, name)| MessageId::stored(created_ms, &name)))
    }

    fn used_with(&mut self, key: &ProfileKey, digest: &Digest) -> Result<Option<Digest>, Trouble> {
        const USED: &str = "SELECT content FROM message WHERE head = ?1 AND digest = ?2 \
             UNION ALL SELECT content FROM receipt WHERE head = ?1 AND digest = ?2 LIMIT 1";
        let at = self.head(key)?;
        let Some(id) = self.heads[at].id else { return Ok(None) };
        let mut statement = self.prepare(USED)?;
        let found = statement
            .query_row(rusqlite::params![id, digest.0.as_slice()], |row| Ok(Digest(row.get(0)?)));
        Ok(found.optional()?)
    }

    fn keeps_version(&mut self, key: &ProfileKey, number: u64) -> Result<bool, Trouble> {
        let at = self.head(key)?;
        Ok(self.find_version(&self.heads[at], |info| info.number == number)?.is_some())
    }

    fn server(&mut self, id: ServerId) -> Result<Option<ServerRow>, Trouble> {
        self.server_row(id)
    }

    fn outcome(&mut self, id: CommitId) -> Result<Option<Outcome>, Trouble> {
        let mut statement =
            self.prepare("SELECT aborted, fingerprint FROM settled WHERE id = ?1")?;
        let outcome = statement.query_row([id.0.as_bytes().as_slice()], |row| {
            let fingerprint: Option<i64> = row.get(1)?;
            let applied = Outcome::Applied(fingerprint.map(i64::cast_unsigned));
            Ok(if row.get(0)? { Outcome::Aborted } else { applied })
        });
        Ok(outcome.optional()?)
    }
}

/// Reads [`VERSION_COLUMNS`] from a column on.
pub(super) fn info_of_row(
    key: &ProfileKey,
    row: &Row<'_>,
    first: usize,
) -> Result<VersionInfo, Trouble> {
    let number = unsigned(row, first)?;
    let cause = row.get_ref(first + 5)?.as_str().map_err(rusqlite::Error::from)?;
    let Some(cause) = Cause::parse(cause) else {
        return Err(corrupt(format!(
            "a version has an unknown cause: key=`{key}` version=`{number}` cause=`{cause}`"
        )));
    };
    let flags: i64 = row.get(first + 4)?;
    Ok(VersionInfo {
        number,
        label: row.get(first + 1)?,
        written_ms: row.get(first + 2)?,
        stored_ms: row.get(first + 3)?,
        superseded_ms: None,
        removed: flags & REMOVED != 0,
        cause,
        author: row.get(first + 6)?,
        load_count: unsigned(row, first + 7)?,
        pinned: flags & PINNED != 0,
        bytes: row.get::<_, Option<i64>>(first + 8)?.unwrap_or(0).cast_unsigned(),
    })
}

/// A stored value. It is damaged when the column holds something of another type, or cannot be
/// read.
pub(super) fn value_of_column<'a>(row: &'a Row<'_>, column: usize) -> Result<Option<&'a [u8]>, ()> {
    row.get_ref(column).ok().and_then(|value| value.as_blob_or_null().ok()).ok_or(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_store::sqlite::head::HEAD_COLUMNS;

    /// The columns stood twice in the program.
    #[test]
    fn a_head_and_a_version_are_read_by_one_list_of_columns_each() {
        assert!(HEAD.starts_with(&format!("SELECT {HEAD_COLUMNS} FROM head h ")));
        assert!(VERSION.starts_with(&format!("SELECT {VERSION_COLUMNS}, v.previous, ")));
    }
}
