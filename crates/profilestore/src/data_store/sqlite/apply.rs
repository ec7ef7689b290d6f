//! One commit within a transaction: judged, applied, answered.

use rusqlite::params;

use super::{
    Trouble,
    schema::{IMPORTED, PINNED, REMOVED, SEALED},
    state::{Head, Tx},
};
use crate::{
    data_store::{
        Change, Commit, CommitReply, Conflict, ConflictKind, Incarnation, KeyState, LeaseState,
        NewValue, ServerId, ServerRow, StoreError, StoredMessage, VersionInfo,
        checksum::{Covered, checksum},
        rules::{self, Fault, View as _},
    },
    key::ProfileKey,
};

const INSERT_VERSION: &str = "INSERT INTO version (head, number, previous, previous_superseded_ms, written_ms, stored_ms, \
     load_count, flags, cause, author, label, checksum, value) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";

const OVERWRITE_VERSION: &str = "UPDATE version SET number = ?2, written_ms = ?3, stored_ms = ?4, load_count = ?5, flags = ?6, \
     cause = ?7, author = ?8, label = ?9, checksum = ?10, value = ?11 WHERE id = ?1";

const UPDATE_HEAD_DATA: &str = "UPDATE head SET version = ?2, current = ?3, stored_ms = ?4, flags \
    = ?5 WHERE id = ?1";

const UPDATE_HEAD_REST: &str = "UPDATE head SET epoch = ?2, created_ms = ?3, flags = ?4, users = ?5, lease_revision = ?6, \
     inbox_revision = ?7, last_message = ?8, waiting = ?9, lease = ?10 WHERE id = ?1";

/// What a commit did to the head of one key.
#[derive(Debug, Default)]
struct Touched {
    /// The lease before the commit, if it was replaced.
    lease_before: Option<LeaseState>,
    data: bool,
    rest: bool,
    /// The lease's `held` changed.
    held: bool,
    /// Leaves notices.
    noticed: bool,
}

impl Tx<'_> {
    /// Judges and applies one well formed commit. The inner error means that it was refused before
    /// anything was written; the outer one that the transaction must be rolled back.
    pub(super) fn commit(
        &mut self,
        commit: &Commit,
        found: Incarnation,
    ) -> Result<Result<CommitReply, StoreError>, Trouble> {
        if rules::only_checks(commit) {
            return refused(self.check(commit, found));
        }
        self.heads.clear();
        if let Err(err) = rules::check_incarnation(commit, found) {
            return Ok(Err(err));
        }
        let fault = match rules::judge(self, commit, self.now_ms) {
            Ok(fault) => fault,
            Err(Trouble::Store(err)) => return Ok(Err(err)),
            Err(err) => return Err(err),
        };
        // Before anything is written: what the answer shows must be whole.
        if fault.is_none()
            && let Err(trouble) = self.load_shown(commit)
        {
            return refused(Err(trouble));
        }
        // A commit whose preconditions hold is most likely new: its id is looked up by writing it.
        if fault.is_none() && self.keep_outcome(commit)? {
            return self.apply(commit).map(Ok);
        }
        if let Some(answer) = self.known(commit)? {
            return Ok(answer);
        }
        refused(
            self.conflict(commit, fault)
                .and_then(|conflict| Err(StoreError::Conflict(Box::new(conflict)).into())),
        )
    }

    /// The answer to a commit of nothing but checks, which may be given outside a writing
    /// transaction.
    pub(super) fn check(
        &mut self,
        commit: &Commit,
        found: Incarnation,
    ) -> Result<CommitReply, Trouble> {
        self.heads.clear();
        rules::check_incarnation(commit, found)?;
        let fault = rules::judge(self, commit, self.now_ms)?;
        if let Some(answer) = self.known(commit)? {
            return Ok(answer?);
        }
        if fault.is_some() {
            return Err(StoreError::Conflict(Box::new(self.conflict(commit, fault)?)).into());
        }
        self.reply(commit, false, Vec::new())
    }

    fn known(
        &mut self,
        commit: &Commit,
    ) -> Result<Option<Result<CommitReply, StoreError>>, Trouble> {
        let Some(outcome) = self.outcome(commit.id)? else { return Ok(None) };
        Ok(Some(match rules::judge_known(commit, outcome) {
            None => Ok(self.reply(commit, true, Vec::new())?),
            Some(kind) => {
                let conflict = self.conflict(commit, Some(Fault::Commit(kind)))?;
                Err(StoreError::Conflict(Box::new(conflict)))
            }
        }))
    }

    fn conflict(&mut self, commit: &Commit, fault: Option<Fault>) -> Result<Conflict, Trouble> {
        let now_ms = self.now_ms;
        Ok(match fault {
            Some(Fault::Key(kind, key)) => {
                let state = Some(self.key_state(&key, commit.returning)?);
                Conflict { kind, now_ms, state, server: None }
            }
            Some(Fault::Server(kind, server)) => Conflict { kind, now_ms, state: None, server },
            Some(Fault::Commit(kind)) => Conflict { kind, now_ms, state: None, server: None },
            // The id was there when it was to be written and gone when it was looked for, in one
            // transaction.
            None => Conflict { kind: ConflictKind::Aborted, now_ms, state: None, server: None },
        })
    }

    /// Reads the values that the answer to a commit shows and that it does not write.
    fn load_shown(&mut self, commit: &Commit) -> Result<(), Trouble> {
        if !commit.returning.value {
            return Ok(());
        }
        for key in rules::keys_of(commit) {
            let writes = |change: &Change| matches!(change, Change::Write { key: written, .. } if written == key);
            let at = self.head(key)?;
            if self.heads[at].current != 0 && !commit.changes.iter().any(writes) {
                let row = self.current_row(&self.heads[at])?;
                self.heads[at].written = Some(self.value(key, &row)?);
            }
        }
        Ok(())
    }

    /// False when the id is there already.
    fn keep_outcome(&mut self, commit: &Commit) -> Result<bool, Trouble> {
        let mut statement = self.prepare(
            "INSERT INTO settled (id, at_ms, aborted, fingerprint) VALUES (?1, ?2, 0, ?3) \
             ON CONFLICT DO NOTHING",
        )?;
        let id = commit.id.0.as_bytes().as_slice();
        let fingerprint = commit.fingerprint.map(u64::cast_signed);
        Ok(statement.execute(params![id, self.now_ms, fingerprint])? == 1)
    }

    fn apply(&mut self, commit: &Commit) -> Result<CommitReply, Trouble> {
        let keys = rules::keys_of(commit);
        let mut touched: Vec<Touched> = keys.iter().map(|_| Touched::default()).collect();
        let links = rules::links(self, commit, self.now_ms)?;
        // Leases first: a version tells the load count, and a lease's seal is for the version,
        // after the commit.
        for change in &commit.changes {
            if let Change::Lease { key, lease, raise_epoch, .. } = change {
                let at = self.head(key)?;
                let touched = touch(&keys, &mut touched, key);
                let head = &mut self.heads[at];
                touched.held |= head.lease.is_held() != lease.is_held();
                (touched.rest, touched.noticed) = (true, true);
                touched.lease_before = Some(std::mem::replace(&mut head.lease, lease.clone()));
                head.lease_revision += 1;
                head.epoch += u64::from(*raise_epoch);
            }
        }
        // Pins before writes: a version that is pinned and replaced in one commit stays.
        let pins = |change: &&Change| matches!(change, Change::Pin { .. });
        let changes = commit.changes.iter();
        for change in changes.clone().filter(pins).chain(changes.filter(|change| !pins(change))) {
            match change.key() {
                Some(key) => {
                    let at = self.head(key)?;
                    let touched = touch(&keys, &mut touched, key);
                    self.apply_to_key(change, at, touched)?;
                }
                None => self.apply_to_server(change)?,
            }
        }
        for change in &commit.changes {
            if let Change::Lease { key, seal: true, .. } = change {
                let at = self.head(key)?;
                self.heads[at].flags |= if self.heads[at].current == 0 { 0 } else { SEALED };
            }
        }
        for (key, links) in &links {
            let at = self.head(key)?;
            self.keep_links(at, links)?;
        }
        let mut notified = Vec::new();
        for (key, touched) in keys.iter().zip(&touched) {
            let at = self.head(key)?;
            self.write_head(at, touched)?;
            if touched.noticed {
                let before = touched.lease_before.as_ref().unwrap_or(&self.heads[at].lease);
                for server in rules::notified(commit, key, before) {
                    if self.server_row(server)?.is_some_and(|row| !row.dead) {
                        self.notify(server, at, commit.id)?;
                        notified.push((server, (*key).clone()));
                    }
                }
            }
        }
        self.reply(commit, false, notified)
    }

    fn apply_to_key(
        &mut self,
        change: &Change,
        at: usize,
        touched: &mut Touched,
    ) -> Result<(), Trouble> {
        match change {
            Change::Write { .. } => {
                self.write(change, at, touched)?;
                (touched.data, touched.noticed) = (true, true);
            }
            Change::AppendMessage { message, .. } => {
                self.heads[at].last_message += 1;
                let stored = StoredMessage {
                    index: self.heads[at].last_message,
                    id: message.id.clone(),
                    payload: message.payload.clone(),
                    locked: false,
                    revision: 1,
                    sent_ms: self.now_ms,
                };
                self.insert_message(at, &stored)?;
                self.inbox_changed(at, touched);
            }
            Change::ReplaceInbox { last_message, messages, .. } => {
                self.replace_inbox(at, messages)?;
                self.heads[at].last_message = self.heads[at].last_message.max(*last_message);
                self.inbox_changed(at, touched);
            }
            Change::ChangeMessage { index, payload, .. } => {
                let sql = "UPDATE message SET payload = ?3, revision = revision + 1 WHERE head = \
                    ?1 AND number = ?2";
                self.prepare(sql)?.execute(params![
                    self.heads[at].id,
                    index.cast_signed(),
                    payload.as_ref()
                ])?;
                self.inbox_changed(at, touched);
            }
            Change::LockMessage { index, .. } => {
                let sql = "UPDATE message SET locked = 1 WHERE head = ?1 AND number = ?2 AND \
                    locked = 0";
                if self.prepare(sql)?.execute(params![self.heads[at].id, index.cast_signed()])? == 1
                {
                    self.inbox_changed(at, touched);
                }
            }
            Change::RemoveMessage { index, receipt, .. } => {
                self.remove_message(at, index.cast_signed(), *receipt)?;
                self.inbox_changed(at, touched);
            }
            Change::Pin { version, pinned, .. } => self.pin(at, *version, *pinned, touched)?,
            Change::Erase { .. } => self.erase(at, touched)?,
            _ => {}
        }
        Ok(())
    }

    fn inbox_changed(&mut self, at: usize, touched: &mut Touched) {
        self.heads[at].inbox_revision += 1;
        (touched.rest, touched.noticed) = (true, true);
    }

    fn write(&mut self, change: &Change, at: usize, touched: &mut Touched) -> Result<(), Trouble> {
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
        let (number, load_count) = (info.number.cast_signed(), info.load_count.cast_signed());
        let sum = checksum(&Covered::of(&head.key, &info), value.as_deref());
        let mut current = head.current;
        if current == 0 || rules::keeps_previous(replaced, *keep_previous, now_ms) {
            let superseded_ms = if current == 0 { 0 } else { now_ms };
            self.prepare(INSERT_VERSION)?.execute(params![
                id,
                number,
                current,
                superseded_ms,
                info.written_ms,
                now_ms,
                load_count,
                flags,
                cause.as_str(),
                author,
                info.label,
                sum,
                value.as_deref(),
            ])?;
            current = self.conn.last_insert_rowid();
        } else {
            let changed = self.prepare(OVERWRITE_VERSION)?.execute(params![
                current,
                number,
                info.written_ms,
                now_ms,
                load_count,
                flags,
                cause.as_str(),
                author,
                info.label,
                sum,
                value.as_deref(),
            ])?;
            if changed != 1 {
                let reason = format!(
                    "the row of the current version is missing: key=`{}` row=`{current}`",
                    self.heads[at].key
                );
                return Err(StoreError::Corrupt { reason }.into());
            }
        }
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
            self.prepare(
                "DELETE FROM profile_user WHERE user = ?1 AND head = \
                ?2",
            )?
            .execute([user, id])?;
        }
        for user in user_ids {
            self.prepare(
                "INSERT INTO profile_user (user, head) VALUES (?1, ?2) ON CONFLICT DO \
                NOTHING",
            )?
            .execute([*user, id])?;
        }
        self.heads[at].users = user_ids.iter().flat_map(|user| user.to_be_bytes()).collect();
        touched.rest = true;
        Ok(())
    }

    fn pin(
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
    fn erase(&mut self, at: usize, touched: &mut Touched) -> Result<(), Trouble> {
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
                 SELECT head, digest, content, ?2 FROM message WHERE head = ?1";
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

    fn write_head(&mut self, at: usize, touched: &Touched) -> Result<(), Trouble> {
        if !touched.data && !touched.rest {
            return Ok(());
        }
        let id = self.ensure_head(at)?;
        let head: &Head = &self.heads[at];
        if touched.data {
            let version = head.version.cast_signed();
            self.prepare(UPDATE_HEAD_DATA)?.execute([
                id,
                version,
                head.current,
                head.stored_ms,
                head.flags,
            ])?;
        }
        if touched.rest {
            let lease = serde_json::to_string(&head.lease).map_err(|err| StoreError::Invalid {
                reason: format!("the lease cannot be stored: {err}: key=`{}`", head.key),
            })?;
            self.prepare(UPDATE_HEAD_REST)?.execute(params![
                id,
                head.epoch.cast_signed(),
                head.created_ms,
                head.flags,
                head.users,
                head.lease_revision.cast_signed(),
                head.inbox_revision.cast_signed(),
                head.last_message.cast_signed(),
                head.waiting.cast_signed(),
                lease,
            ])?;
        }
        if touched.held {
            self.prepare(
                "UPDATE head SET held = ?2 WHERE id = \
                ?1",
            )?
            .execute(params![id, head.lease.is_held()])?;
        }
        Ok(())
    }

    fn reply(
        &mut self,
        commit: &Commit,
        already_applied: bool,
        notified: Vec<(ServerId, ProfileKey)>,
    ) -> Result<CommitReply, Trouble> {
        let keys = rules::keys_of(commit);
        let states: Vec<KeyState> = keys
            .into_iter()
            .map(|key| self.key_state(key, commit.returning))
            .collect::<Result<_, _>>()?;
        let server: Option<ServerRow> = match rules::server_of(commit) {
            Some(id) => self.server_row(id)?,
            None => None,
        };
        let notices = match rules::renewed(commit) {
            Some(id) => self.notices(id)?,
            None => Vec::new(),
        };
        Ok(CommitReply { now_ms: self.now_ms, already_applied, states, server, notices, notified })
    }
}

/// Tells a commit that was refused before anything was written from a transaction that failed.
fn refused(
    result: Result<CommitReply, Trouble>,
) -> Result<Result<CommitReply, StoreError>, Trouble> {
    match result {
        Ok(reply) => Ok(Ok(reply)),
        Err(Trouble::Store(err)) => Ok(Err(err)),
        Err(err) => Err(err),
    }
}

fn touch<'t>(
    keys: &[&ProfileKey],
    touched: &'t mut [Touched],
    key: &ProfileKey,
) -> &'t mut Touched {
    let at = keys.iter().position(|other| *other == key).unwrap_or(0);
    &mut touched[at]
}

/// The users of a `head.users`.
pub(super) fn users(packed: &[u8]) -> impl Iterator<Item = i64> {
    packed.chunks_exact(8).map(|bytes| i64::from_be_bytes(bytes.try_into().unwrap_or_default()))
}

fn bit(on: bool, bit: i64) -> i64 {
    if on { bit } else { 0 }
}
