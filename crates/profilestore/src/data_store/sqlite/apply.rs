//! One commit within a transaction: judged, applied, answered.

use std::sync::Arc;

use rusqlite::params;

use super::{Trouble, heads::Touched, schema::SEALED, state::Tx};
use crate::{
    data_store::{
        Change, Commit, CommitId, CommitReply, Conflict, ConflictKind, Incarnation, KeyState,
        ServerId, ServerRow, StoreError, StoredMessage,
        rules::{self, Fault, Outcome, View as _},
    },
    key::ProfileKey,
};

impl Tx<'_> {
    /// Judges and applies one well formed commit. The inner error means that it was refused before
    /// anything was written; the outer one that the transaction must be rolled back.
    pub(super) fn commit(
        &mut self,
        commit: &Commit,
        found: Incarnation,
    ) -> Result<Result<CommitReply, StoreError>, Trouble> {
        self.is_save = matches!(commit.changes.as_slice(), [Change::Write { .. }]);
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
        if fault.is_none() && self.keep_id(commit)? {
            let reply = match commit.changes.as_slice() {
                [write @ Change::Write { key, .. }] => self.apply_write(commit, write, key),
                _ => self.apply(commit),
            };
            return reply.map(Ok);
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
        let outcome = match self.outcome(commit.id)? {
            None if self.is_last_save(commit)? => Some(Outcome::Applied(None)),
            outcome => outcome,
        };
        let Some(outcome) = outcome else { return Ok(None) };
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

    /// Keeps the id of a commit that is about to be applied. False when it is there already.
    fn keep_id(&mut self, commit: &Commit) -> Result<bool, Trouble> {
        if let [Change::Write { key, .. }] = commit.changes.as_slice() {
            let at = self.head(key)?;
            if rules::is_own_save(commit, &self.heads[at].lease) {
                self.heads[at].last_save = Some(commit.id);
                return Ok(true);
            }
        }
        self.insert_outcome(commit.id, commit.fingerprint)
    }

    /// Whether a commit is the last save of its key, as its head says.
    fn is_last_save(&mut self, commit: &Commit) -> Result<bool, Trouble> {
        rules::is_last_save(commit, |key| {
            let at = self.head(key)?;
            Ok(self.heads[at].last_save)
        })
    }

    /// False when the id is there already.
    fn insert_outcome(&mut self, id: CommitId, fingerprint: Option<u64>) -> Result<bool, Trouble> {
        let mut statement = self.prepare(
            "INSERT INTO settled (id, at_ms, aborted, fingerprint) VALUES (?1, ?2, 0, ?3) \
             ON CONFLICT DO NOTHING",
        )?;
        let (id, fingerprint) = (id.0.as_bytes().as_slice(), fingerprint.map(u64::cast_signed));
        Ok(statement.execute(params![id, self.now_ms, fingerprint])? == 1)
    }

    /// Applies a commit of one write and nothing else, as most are.
    fn apply_write(
        &mut self,
        commit: &Commit,
        write: &Change,
        key: &ProfileKey,
    ) -> Result<CommitReply, Trouble> {
        let at = self.head(key)?;
        let mut touched = Touched { data: true, noticed: true, ..Touched::default() };
        self.write(write, at, &mut touched)?;
        self.write_head(at, &touched)?;
        let mut notified = Vec::new();
        self.leave_notices(commit, (key, at), &touched, &mut notified)?;
        let states = vec![self.key_state(key, commit.returning)?];
        let (now_ms, already_applied, notices) = (self.now_ms, false, Vec::new());
        Ok(CommitReply { now_ms, already_applied, states, server: None, notices, notified })
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
                // The holder that is shut out may still ask for it.
                if *raise_epoch && let Some(last) = self.heads[at].last_save.take() {
                    self.insert_outcome(last, None)?;
                }
                let touched = touch(&keys, &mut touched, key);
                let head = &mut self.heads[at];
                touched.held |= head.lease.is_held() != lease.is_held();
                (touched.rest, touched.noticed) = (true, true);
                touched.lease_before =
                    Some(std::mem::replace(&mut head.lease, Arc::new(lease.clone())));
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
                self.leave_notices(commit, (key, at), touched, &mut notified)?;
            }
        }
        self.reply(commit, false, notified)
    }

    fn leave_notices(
        &mut self,
        commit: &Commit,
        (key, at): (&ProfileKey, usize),
        touched: &Touched,
        notified: &mut Vec<(ServerId, ProfileKey)>,
    ) -> Result<(), Trouble> {
        let before = touched.lease_before.as_ref().unwrap_or(&self.heads[at].lease);
        for server in rules::notified(commit, key, before) {
            if self.server_row(server)?.is_some_and(|row| !row.dead) {
                self.notify(server, at, commit.id)?;
                notified.push((server, key.clone()));
            }
        }
        Ok(())
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

    pub(super) fn inbox_changed(&mut self, at: usize, touched: &mut Touched) {
        self.heads[at].inbox_revision += 1;
        (touched.rest, touched.noticed) = (true, true);
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
