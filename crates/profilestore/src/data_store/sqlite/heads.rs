//! What a commit leaves of one profile: its head, its versions, its users.

use std::sync::Arc;

use rusqlite::{ToSql, params};

use super::{
    Trouble,
    head::{Head, corrupt},
    schema::{IMPORTED, PINNED, REMOVED, SEALED},
    state::Tx,
};
use crate::data_store::{
    Change, LeaseState, NewValue, StoreError, VersionInfo,
    checksum::{Covered, checksum},
    rules,
};

const INSERT_VERSION: &str = "INSERT INTO version (head, number, previous, \
     previous_superseded_ms, written_ms, stored_ms, load_count, flags, cause, author, label, \
     checksum, value) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";

const OVERWRITE_VERSION: &str = "UPDATE version SET number = ?2, written_ms = ?3, \
     stored_ms = ?4, load_count = ?5, flags = ?6, cause = ?7, author = ?8, label = ?9, \
     checksum = ?10, value = ?11 WHERE id = ?1";

const UPDATE_HEAD_DATA: &str = "UPDATE head SET version = ?2, current = ?3, stored_ms = ?4, \
     flags = ?5, last_save = ?9 WHERE id = ?1 AND epoch = ?6 AND version = ?7 \
     AND lease_revision = ?8";

const UPDATE_HEAD_BOTH: &str = "UPDATE head SET epoch = ?2, created_ms = ?3, flags = ?4, \
     users = ?5, lease_revision = ?6, inbox_revision = ?7, last_message = ?8, waiting = ?9, \
     lease = ?10, last_save = ?14, version = ?15, current = ?16, stored_ms = ?17 \
     WHERE id = ?1 AND epoch = ?11 AND version = ?12 AND lease_revision = ?13";

const UPDATE_HEAD_REST: &str = "UPDATE head SET epoch = ?2, created_ms = ?3, flags = ?4, \
     users = ?5, lease_revision = ?6, inbox_revision = ?7, last_message = ?8, waiting = ?9, \
     lease = ?10, last_save = ?14 \
     WHERE id = ?1 AND epoch = ?11 AND version = ?12 AND lease_revision = ?13";

/// What a commit did to the head of one key.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// The lease before the commit, if it was replaced.
    pub(super) lease_before: Option<Arc<LeaseState>>,
    pub(super) data: bool,
    pub(super) rest: bool,
    /// The lease's `held` changed.
    pub(super) held: bool,
    /// Leaves notices.
    pub(super) noticed: bool,
}

impl Tx<'_> {
    /// Stores a new version, behind the current one or over it.
    pub(super) fn write(
        &mut self,
        change: &Change,
        at: usize,
        touched: &mut Touched,
    ) -> Result<(), Trouble> {
        let Change::Write { value, user_ids, cause, author, keep_previous, seal, imported, .. } =
            change
        else {
            return Ok(());
        };
        let now_ms = self.now_ms;
        let id = self.ensure_head(at)?;
        let value = match value {
            NewValue::Bytes(bytes) => Some(bytes.clone()),
            NewValue::Tombstone => None,
        };
        let head = &self.heads[at];
        let info = VersionInfo {
            number: head.version + 1,
            label: imported.as_ref().and_then(|imported| imported.label.clone()),
            written_ms: imported.as_ref().map_or(now_ms, |imported| imported.written_ms),
            stored_ms: now_ms,
            superseded_ms: None,
            removed: value.is_none(),
            cause: *cause,
            author: author.clone(),
            load_count: head.lease.load_count,
            pinned: false,
            bytes: value.as_ref().map_or(0, |value| value.len() as u64),
        };
        let flags = bit(value.is_none(), REMOVED) | bit(imported.is_some(), IMPORTED);
        let replaced = rules::Replaced {
            stored_ms: head.stored_ms,
            removed: head.flags & REMOVED != 0,
            sealed: head.flags & SEALED != 0,
            pinned: head.flags & PINNED != 0,
            imported: head.flags & IMPORTED != 0,
        };
        let keeps = rules::keeps_previous(replaced, *keep_previous, now_ms);
        let current = if head.current == 0 || keeps {
            self.insert_version(at, id, &info, flags, value.as_deref())?
        } else {
            self.overwrite_version(at, &info, flags, value.as_deref())?
        };
        self.set_users(at, id, user_ids, touched)?;
        let head = &mut self.heads[at];
        if head.version == 0 {
            head.created_ms = imported.as_ref().map_or(now_ms, |imported| imported.created_ms);
            touched.rest = true;
        }
        head.version += 1;
        head.current = current;
        head.stored_ms = now_ms;
        head.flags = flags | bit(*seal, SEALED);
        head.info = Some(info);
        head.written = Some(value);
        Ok(())
    }

    /// Stores a version behind the current one, if there is one, and answers its row.
    fn insert_version(
        &self,
        at: usize,
        id: i64,
        info: &VersionInfo,
        flags: i64,
        value: Option<&[u8]>,
    ) -> Result<i64, Trouble> {
        let head = &self.heads[at];
        let superseded_ms = if head.current == 0 { 0 } else { self.now_ms };
        self.prepare(INSERT_VERSION)?.execute(params![
            id,
            info.number.cast_signed(),
            head.current,
            superseded_ms,
            info.written_ms,
            info.stored_ms,
            info.load_count.cast_signed(),
            flags,
            info.cause.as_str(),
            info.author,
            info.label,
            checksum(&Covered::of(&head.key, info), value),
            value,
        ])?;
        Ok(self.conn.last_insert_rowid())
    }

    /// Stores a version in the row of the current one, and answers it.
    fn overwrite_version(
        &self,
        at: usize,
        info: &VersionInfo,
        flags: i64,
        value: Option<&[u8]>,
    ) -> Result<i64, Trouble> {
        let (key, current) = (&self.heads[at].key, self.heads[at].current);
        let changed = self.prepare(OVERWRITE_VERSION)?.execute(params![
            current,
            info.number.cast_signed(),
            info.written_ms,
            info.stored_ms,
            info.load_count.cast_signed(),
            flags,
            info.cause.as_str(),
            info.author,
            info.label,
            checksum(&Covered::of(key, info), value),
            value,
        ])?;
        if changed == 1 {
            return Ok(current);
        }
        let reason =
            format!("the row of the current version is missing: key=`{key}` row=`{current}`");
        Err(StoreError::Corrupt { reason }.into())
    }

    fn set_users(
        &mut self,
        at: usize,
        id: i64,
        user_ids: &[i64],
        touched: &mut Touched,
    ) -> Result<(), Trouble> {
        let same = self.heads[at].users.len() == user_ids.len() * 8
            && self.heads[at]
                .users
                .chunks_exact(8)
                .zip(user_ids)
                .all(|(old, new)| *old == new.to_be_bytes());
        if same {
            return Ok(());
        }
        for user in users(&self.heads[at].users) {
            self.prepare("DELETE FROM profile_user WHERE user = ?1 AND head = ?2")?
                .execute([user, id])?;
        }
        for user in user_ids {
            self.prepare(
                "INSERT INTO profile_user (user, head) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            )?
            .execute([*user, id])?;
        }
        self.heads[at].users = user_ids.iter().flat_map(|user| user.to_be_bytes()).collect();
        touched.rest = true;
        Ok(())
    }

    pub(super) fn pin(
        &mut self,
        at: usize,
        version: u64,
        pinned: bool,
        touched: &mut Touched,
    ) -> Result<(), Trouble> {
        let Some(row) = self.find_version(&self.heads[at], |info| info.number == version)? else {
            return Ok(());
        };
        let sql = "UPDATE version SET flags = (flags & ~?2) | ?3 WHERE id = ?1";
        self.prepare(sql)?.execute([row.id, PINNED, bit(pinned, PINNED)])?;
        let head = &mut self.heads[at];
        if row.id == head.current {
            head.flags = (head.flags & !PINNED) | bit(pinned, PINNED);
            head.info = None;
            touched.rest = true;
        }
        Ok(())
    }

    /// Deletes the versions behind the current one, and the inbox down to its receipts.
    pub(super) fn erase(&mut self, at: usize, touched: &mut Touched) -> Result<(), Trouble> {
        let head = &self.heads[at];
        let mut earlier = Vec::new();
        self.walk(head, |row| {
            earlier.extend((row.id != head.current).then_some(row.id));
            true
        })?;
        if !earlier.is_empty() {
            let sql = "UPDATE version SET previous = 0, previous_superseded_ms = 0 WHERE id = ?1";
            self.prepare(sql)?.execute([head.current])?;
            touched.noticed = true;
        }
        for id in earlier {
            self.prepare("DELETE FROM version WHERE id = ?1")?.execute([id])?;
        }
        self.prepare("DELETE FROM link WHERE head = ?1")?.execute(params![head.id])?;
        if head.waiting > 0 {
            let sql = "INSERT INTO receipt (head, digest, content, made_ms) \
                 SELECT head, digest, content, ?2 FROM message WHERE head = ?1 \
                 ON CONFLICT DO UPDATE SET content = excluded.content, \
                 made_ms = excluded.made_ms";
            self.prepare(sql)?.execute(params![head.id, self.now_ms])?;
            self.prepare("DELETE FROM message WHERE head = ?1")?.execute(params![head.id])?;
            self.heads[at].waiting = 0;
            self.inbox_changed(at, touched);
        }
        Ok(())
    }

    /// The head's row number; the row is made when there is none.
    pub(super) fn ensure_head(&mut self, at: usize) -> Result<i64, Trouble> {
        if let Some(id) = self.heads[at].id {
            return Ok(id);
        }
        let key = &self.heads[at].key;
        let sql = "INSERT INTO head (store, scope, key) VALUES (?1, ?2, ?3)";
        self.prepare(sql)?.execute([key.store(), key.scope(), key.key()])?;
        let id = self.conn.last_insert_rowid();
        self.heads[at].id = Some(id);
        Ok(id)
    }

    pub(super) fn write_head(&mut self, at: usize, touched: &Touched) -> Result<(), Trouble> {
        if !touched.data && !touched.rest {
            return Ok(());
        }
        let id = self.ensure_head(at)?;
        let head: &Head = &self.heads[at];
        let [epoch, version, revision] =
            [head.stored.epoch, head.stored.version, head.stored.lease_revision]
                .map(u64::cast_signed);
        let last_save = head.last_save.as_ref().map(|id| id.0.as_bytes().as_slice());
        let updated = if !touched.rest {
            let new = head.version.cast_signed();
            let (current, flags) = (head.current, head.flags);
            let stored_ms = head.stored_ms;
            self.prepare(UPDATE_HEAD_DATA)?.execute(params![
                id, new, current, stored_ms, flags, epoch, version, revision, last_save
            ])?
        } else {
            let lease = serde_json::to_string(&*head.lease).map_err(|err| StoreError::Invalid {
                reason: format!("the lease cannot be stored: {err}: key=`{}`", head.key),
            })?;
            let rest: [&dyn ToSql; 14] = [
                &id,
                &head.epoch.cast_signed(),
                &head.created_ms,
                &head.flags,
                &head.users,
                &head.lease_revision.cast_signed(),
                &head.inbox_revision.cast_signed(),
                &head.last_message.cast_signed(),
                &head.waiting.cast_signed(),
                &lease,
                &epoch,
                &version,
                &revision,
                &last_save,
            ];
            if touched.data {
                let data: [&dyn ToSql; 3] =
                    [&head.version.cast_signed(), &head.current, &head.stored_ms];
                self.prepare(UPDATE_HEAD_BOTH)?.execute(&*[&rest[..], &data].concat())?
            } else {
                self.prepare(UPDATE_HEAD_REST)?.execute(rest)?
            }
        };
        // The fence in the file itself, whatever this process believes of it.
        if updated != 1 {
            let reason = format!("the row of a key is not as it was read: key=`{}`", head.key);
            return Err(corrupt(reason));
        }
        if touched.held {
            self.prepare("UPDATE head SET held = ?2 WHERE id = ?1")?
                .execute(params![id, head.lease.is_held()])?;
        }
        let head = &mut self.heads[at];
        head.stored = head.fence();
        Ok(())
    }
}

/// The users of a `head.users`.
pub(super) fn users(packed: &[u8]) -> impl Iterator<Item = i64> {
    packed.chunks_exact(8).map(|bytes| i64::from_be_bytes(bytes.try_into().unwrap_or_default()))
}

fn bit(on: bool, bit: i64) -> i64 {
    if on { bit } else { 0 }
}
