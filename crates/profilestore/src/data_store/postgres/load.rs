//! What a batch needs to know, read and locked at the beginning of its transaction: statements that
//! are sent together.
//!
//! Rows that a commit may change are locked, in the order of their keys, so that two batches meet
//! everywhere in the same order; rows that it only checks are locked against changes. Everything
//! else belongs to a locked row and is read behind the lock, when the transaction that had it
//! before is done. A key without a row cannot be locked: the second transaction that makes the row
//! fails and tries again. A key that is only checked gets an empty row, which no listing shows.
//!
//! Each statement joins arrays of keys to a table, and must find its rows through an index whatever
//! the planner believes about the table: a plan is made once a connection, often while the table is
//! empty, and then kept while the table grows. So the first column of each index is compared as
//! `= ANY(ARRAY[…])`. A plain `=` would let the planner read the whole index in its order, as for a
//! merge join, which looks cheap while the table is empty. `plans.rs` tests this for all
//! statements.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    batch::Batch,
    connect::Step,
    schema,
    state::{
        HEAD_COLUMNS, Head, SERVER_COLUMNS, get, head_columns, own_columns, server_columns,
        server_of_row, unsigned,
    },
};
use crate::{
    data_store::{
        Change, Commit, CommitId, Digest, MessageId, ServerId, StoreError,
        rules::{self, MessageFacts, Outcome},
    },
    key::ProfileKey,
};

macro_rules! heads {
    ($columns:expr, $join:literal, $lock:literal) => {
        concat!(
            "SELECT ",
            $columns,
            ", u.n, CASE WHEN u.want THEN h.checksum END, CASE WHEN u.want THEN h.value END \
             FROM unnest($1::text[], $2::text[], $3::text[], $4::bool[]) WITH ORDINALITY AS u (store, scope, key, want, n) \
             JOIN head h ON h.store = ANY(ARRAY[u.store]) AND h.scope = u.scope AND h.key = u.key",
            $join,
            " ORDER BY u.n",
            $lock
        )
    };
}

pub(super) const HEADS: &str =
    heads!(head_columns!(), " LEFT JOIN server s ON s.id = ANY(ARRAY[h.holder])", "");

/// A statement that waits for a lock sees the locked row as it is then, but everything that it
/// joins as it was before. So the rows of the holders are read by the next one.
macro_rules! locked_heads {
    ($lock:literal) => {
        heads!(
            concat!(
                own_columns!(),
                ", NULL::uuid, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL"
            ),
            "",
            $lock
        )
    };
}

pub(super) const HEADS_CHANGED: &str = locked_heads!(" FOR UPDATE OF h");
pub(super) const HEADS_CHECKED: &str = locked_heads!(" FOR SHARE OF h");

pub(super) const HOLDERS: &str = concat!(
    "SELECT ",
    server_columns!(),
    ", s.renewal FROM unnest($1::text[], $2::text[], $3::text[]) AS u (store, scope, key) \
     JOIN head h ON h.store = ANY(ARRAY[u.store]) AND h.scope = u.scope AND h.key = u.key \
     JOIN server s ON s.id = ANY(ARRAY[h.holder])"
);

pub(super) const SERVERS: &str =
    concat!("SELECT ", server_columns!(), ", s.renewal FROM server s WHERE s.id = ANY($1::uuid[])");

/// The server rows that a transaction depends on are locked by one statement, in their order, with
/// the strongest lock that one of them needs. A check of the host must meet a change of the host,
/// and nothing else: a renewal waits for no commit that checks the same row.
macro_rules! locked_servers {
    ($lock:literal) => {
        concat!(
            "SELECT ",
            server_columns!(),
            ", s.renewal FROM server s WHERE s.id = ANY($1::uuid[]) ORDER BY s.id ",
            $lock
        )
    };
}

pub(super) const SERVERS_CHECKED: &str = locked_servers!("FOR KEY SHARE");
pub(super) const SERVERS_CHANGED: &str = locked_servers!("FOR NO KEY UPDATE");
pub(super) const SERVERS_REHOSTED: &str = locked_servers!("FOR UPDATE");

pub(super) const MESSAGES: &str = "SELECT u.n, m.revision, m.locked, m.created_ms, m.name \
     FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) WITH ORDINALITY AS u (store, scope, key, number, n) \
     JOIN message m ON m.store = ANY(ARRAY[u.store]) AND m.scope = u.scope AND m.key = u.key AND m.number = u.number";

pub(super) const INBOXES: &str = "SELECT u.n, m.number, m.digest, m.revision, m.locked \
     FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS u (store, scope, key, n) \
     JOIN message m ON m.store = ANY(ARRAY[u.store]) AND m.scope = u.scope AND m.key = u.key ORDER BY u.n, m.number";

pub(super) const USED: &str = "SELECT u.n, COALESCE(m.content, r.content) \
     FROM unnest($1::text[], $2::text[], $3::text[], $4::uuid[]) WITH ORDINALITY AS u (store, scope, key, digest, n) \
     LEFT JOIN message m ON (m.store || '') = u.store AND (m.scope || '') = u.scope AND (m.key || '') = u.key \
     AND m.digest = ANY(ARRAY[u.digest]) \
     LEFT JOIN receipt r ON r.store = ANY(ARRAY[u.store]) AND r.scope = u.scope AND r.key = u.key AND r.digest = u.digest \
     WHERE m.content IS NOT NULL OR r.content IS NOT NULL";

// Locked, so that a sweep does not take a version that is being pinned.
pub(super) const VERSIONS: &str = "SELECT u.n FROM \
     unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) WITH ORDINALITY AS u (store, scope, key, number, n) \
     JOIN version v ON v.store = ANY(ARRAY[u.store]) AND v.scope = u.scope AND v.key = u.key AND v.number = u.number \
     ORDER BY u.n FOR UPDATE OF v";

pub(super) const HISTORY: &str = "SELECT u.n FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS u (store, scope, key, n) \
     WHERE (SELECT v.number FROM version v WHERE v.store = u.store AND v.scope = u.scope AND v.key = u.key LIMIT 1) IS NOT NULL";

// Last, so that the time is that of after the wait for locks.
pub(super) const FACTS: &str = "SELECT m.now_ms, m.incarnation, o.id, o.aborted, o.fingerprint FROM \
     (SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms, \
     (SELECT value FROM meta WHERE name = 'incarnation') AS incarnation) m LEFT JOIN settled o ON o.id = ANY($1::uuid[])";

pub(super) const EMPTY_HEADS: &str = "INSERT INTO head (store, scope, key) SELECT u.store, u.scope, u.key \
     FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS u (store, scope, key, n) ORDER BY u.n ON CONFLICT DO NOTHING";

/// What the commits of a batch need to be read.
#[derive(Debug, Default)]
pub(super) struct Needs<'c> {
    /// Keys that may be changed, and whether their values are to be shown.
    changed: BTreeMap<&'c ProfileKey, bool>,
    /// Keys that are only checked.
    checked: BTreeMap<&'c ProfileKey, bool>,
    /// Some of the latter are checked for a change of something else.
    binding: BTreeSet<&'c ProfileKey>,
    /// Servers that are locked, and how.
    servers_locked: BTreeMap<ServerId, ServerLock>,
    servers: BTreeSet<ServerId>,
    outcomes: BTreeSet<CommitId>,
    messages: BTreeSet<(&'c ProfileKey, u64)>,
    /// Keys whose whole inbox is replaced.
    inboxes: BTreeSet<&'c ProfileKey>,
    used: BTreeSet<(&'c ProfileKey, Digest)>,
    versions: BTreeSet<(&'c ProfileKey, u64)>,
    erased: BTreeSet<&'c ProfileKey>,
}

/// How a server's row is locked; the later, the stronger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ServerLock {
    HostChecked,
    Changed,
    Rehosted,
}

/// Which statement an answer is of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    Changed,
    Checked,
    Servers,
    Messages,
    Inboxes,
    Used,
    Versions,
    History,
    Facts,
}

impl<'c> Needs<'c> {
    pub(super) fn of(commits: impl Iterator<Item = &'c Commit>) -> Self {
        let mut needs = Self::default();
        for commit in commits {
            needs.outcomes.insert(commit.id);
            let binding = !rules::only_checks(commit);
            for key in rules::keys_of(commit) {
                let of_key = || commit.changes.iter().filter(|change| change.key() == Some(key));
                let only_checked = of_key().all(|change| matches!(change, Change::Check { .. }));
                let written = of_key().any(|change| matches!(change, Change::Write { .. }));
                let want = commit.returning.value && !written;
                let keys = if only_checked { &mut needs.checked } else { &mut needs.changed };
                *keys.entry(key).or_default() |= want;
                if only_checked && binding {
                    needs.binding.insert(key);
                }
            }
            for change in &commit.changes {
                needs.add(change);
            }
        }
        needs
    }

    fn add(&mut self, change: &'c Change) {
        match change {
            Change::Lease { lease, .. } => {
                self.servers.extend(lease.holder.as_ref().and_then(|holder| holder.server));
            }
            Change::AppendMessage { key, message, .. } => {
                self.used.insert((key, message.id.digest()));
            }
            Change::ChangeMessage { key, index, .. }
            | Change::LockMessage { key, index, .. }
            | Change::RemoveMessage { key, index, .. } => {
                self.messages.insert((key, *index));
            }
            Change::Pin { key, version, .. } => {
                self.versions.insert((key, *version));
            }
            Change::Erase { key, .. } => {
                self.erased.insert(key);
            }
            Change::CheckHost { id, .. } => self.lock_server(*id, ServerLock::HostChecked),
            Change::RegisterServer { id, .. }
            | Change::RenewServer { id, .. }
            | Change::MarkDead { id, .. } => self.lock_server(*id, ServerLock::Changed),
            Change::RehostServer { id, .. } => self.lock_server(*id, ServerLock::Rehosted),
            Change::Abort { commit } => {
                self.outcomes.insert(*commit);
            }
            Change::ReplaceInbox { key, .. } => {
                self.inboxes.insert(key);
            }
            Change::Check { .. } | Change::Write { .. } => {}
        }
    }

    fn lock_server(&mut self, id: ServerId, lock: ServerLock) {
        let strongest = self.servers_locked.entry(id).or_insert(lock);
        *strongest = lock.max(*strongest);
    }

    /// The statements, in their order. `lock`: for a transaction that writes.
    pub(super) fn steps(&self, lock: bool) -> Vec<(Part, Step<'_>)> {
        let mut steps = Vec::new();
        let mut heads = |part, sql, keys: &BTreeMap<&'c ProfileKey, bool>| {
            if !keys.is_empty() {
                let mut step = Step::keys(sql, keys.keys().copied());
                step.push(keys.values().copied().collect::<Vec<bool>>());
                steps.push((part, step));
            }
        };
        heads(Part::Changed, if lock { HEADS_CHANGED } else { HEADS }, &self.changed);
        heads(Part::Checked, if lock { HEADS_CHECKED } else { HEADS }, &self.checked);
        let ids =
            |servers: &BTreeSet<ServerId>| servers.iter().map(|id| id.0).collect::<Vec<Uuid>>();
        if let Some(strongest) = self.servers_locked.values().max() {
            let sql = match strongest {
                _ if !lock => SERVERS,
                ServerLock::HostChecked => SERVERS_CHECKED,
                ServerLock::Changed => SERVERS_CHANGED,
                ServerLock::Rehosted => SERVERS_REHOSTED,
            };
            let locked: Vec<Uuid> = self.servers_locked.keys().map(|id| id.0).collect();
            steps.push((Part::Servers, Step::new(sql).with(locked)));
        }
        if !self.servers.is_empty() {
            steps.push((Part::Servers, Step::new(SERVERS).with(ids(&self.servers))));
        }
        if lock && !(self.changed.is_empty() && self.checked.is_empty()) {
            let keys = self.changed.keys().chain(self.checked.keys()).copied();
            steps.push((Part::Servers, Step::keys(HOLDERS, keys)));
        }
        if !self.messages.is_empty() {
            let numbers: Vec<i64> =
                self.messages.iter().map(|(_, number)| number.cast_signed()).collect();
            steps.push((
                Part::Messages,
                Step::keys(MESSAGES, self.messages.iter().map(|(key, _)| *key)).with(numbers),
            ));
        }
        if !self.inboxes.is_empty() {
            steps.push((Part::Inboxes, Step::keys(INBOXES, self.inboxes.iter().copied())));
        }
        if !self.used.is_empty() {
            let digests: Vec<Uuid> =
                self.used.iter().map(|(_, digest)| Uuid::from_bytes(digest.0)).collect();
            steps.push((
                Part::Used,
                Step::keys(USED, self.used.iter().map(|(key, _)| *key)).with(digests),
            ));
        }
        if !self.versions.is_empty() {
            let numbers: Vec<i64> =
                self.versions.iter().map(|(_, number)| number.cast_signed()).collect();
            steps.push((
                Part::Versions,
                Step::keys(VERSIONS, self.versions.iter().map(|(key, _)| *key)).with(numbers),
            ));
        }
        if !self.erased.is_empty() {
            steps.push((Part::History, Step::keys(HISTORY, self.erased.iter().copied())));
        }
        let outcomes: Vec<Uuid> = self.outcomes.iter().map(|id| id.0).collect();
        steps.push((Part::Facts, Step::new(FACTS).with(outcomes)));
        steps
    }

    /// Makes the answers a batch. `now_ms`: the time, when it is not the server's.
    pub(super) fn batch(
        &self,
        answers: &[(Part, Vec<Row>)],
        now_ms: Option<i64>,
    ) -> Result<Batch, StoreError> {
        let facts = answers
            .iter()
            .filter(|(part, _)| matches!(part, Part::Facts))
            .flat_map(|(_, rows)| rows);
        let first = facts
            .clone()
            .next()
            .ok_or_else(|| super::state::corrupt("the database gave no answer".into()))?;
        let now_ms = now_ms.map_or_else(|| get(first, 0), Ok)?;
        let mut batch = Batch::new(now_ms, schema::incarnation(get(first, 1)?)?);
        for row in facts {
            if let Some(id) = get::<Option<Uuid>>(row, 2)? {
                let fingerprint: Option<i64> = get(row, 4)?;
                let applied = Outcome::Applied(fingerprint.map(i64::cast_unsigned));
                let outcome = if get::<bool>(row, 3)? { Outcome::Aborted } else { applied };
                batch.outcomes.insert(CommitId(id), outcome);
            }
        }
        for key in self.changed.keys().chain(self.checked.keys()) {
            batch.heads.insert((*key).clone(), Ok(Head::absent((*key).clone())));
        }
        let changed: Vec<_> = self.changed.iter().collect();
        // A key that another commit of the batch changes is not among the checked ones: see
        // `queue`.
        let checked: Vec<_> = self.checked.iter().collect();
        let (messages, used): (Vec<_>, Vec<_>) =
            (self.messages.iter().collect(), self.used.iter().collect());
        let inboxes: Vec<_> = self.inboxes.iter().collect();
        let (versions, erased): (Vec<_>, Vec<_>) =
            (self.versions.iter().collect(), self.erased.iter().collect());
        for (part, rows) in answers {
            for row in rows {
                match part {
                    Part::Changed => add_head(&mut batch, row, &changed)?,
                    Part::Checked => add_head(&mut batch, row, &checked)?,
                    Part::Servers => {
                        let server = server_of_row(row, 0)?;
                        if let Some(renewal) = get::<Option<Uuid>>(row, SERVER_COLUMNS)? {
                            // A commit of more than renewals is known already, with its
                            // fingerprint.
                            let renewal = batch.outcomes.entry(CommitId(renewal));
                            renewal.or_insert(Outcome::Applied(None));
                        }
                        // What was locked is read first, and is the newer or the same.
                        batch.servers.entry(server.id).or_insert(server);
                    }
                    Part::Messages => {
                        let (key, number) = **nth(row, 0, &messages)?;
                        let facts =
                            MessageFacts { revision: unsigned(row, 1)?, locked: get(row, 2)? };
                        batch.messages.insert((key.clone(), number), facts);
                        if let Some(id) = MessageId::stored(get(row, 3)?, get(row, 4)?) {
                            batch.message_ids.insert((key.clone(), number), id);
                        }
                    }
                    Part::Inboxes => {
                        let key = **nth(row, 0, &inboxes)?;
                        let number = unsigned(row, 1)?;
                        let facts =
                            MessageFacts { revision: unsigned(row, 3)?, locked: get(row, 4)? };
                        batch.messages.insert((key.clone(), number), facts);
                        let waiting = batch.waiting.entry(key.clone()).or_default();
                        waiting.push((number, Digest(get::<Uuid>(row, 2)?.into_bytes())));
                    }
                    Part::Used => {
                        let (key, digest) = **nth(row, 0, &used)?;
                        batch.used.insert(
                            (key.clone(), digest),
                            Digest(get::<Uuid>(row, 1)?.into_bytes()),
                        );
                    }
                    Part::Versions => {
                        let (key, number) = **nth(row, 0, &versions)?;
                        batch.kept.insert((key.clone(), number));
                    }
                    Part::History => {
                        batch.has_history.insert((**nth(row, 0, &erased)?).clone());
                    }
                    Part::Facts => {}
                }
            }
        }
        Ok(batch)
    }

    /// Rows for the keys that a change depends on and that have none, so that they can be locked.
    /// None: there are no such keys.
    pub(super) fn empty_heads(&self, batch: &Batch) -> Option<Step<'_>> {
        let absent =
            |key: &&&ProfileKey| matches!(batch.heads.get(**key), Some(Ok(head)) if !head.exists);
        let absent: Vec<_> = self.binding.iter().filter(absent).copied().collect();
        (!absent.is_empty()).then(|| Step::keys(EMPTY_HEADS, absent.into_iter()))
    }
}

fn add_head(
    batch: &mut Batch,
    row: &Row,
    asked: &[(&&ProfileKey, &bool)],
) -> Result<(), StoreError> {
    let (key, want) = nth(row, HEAD_COLUMNS, asked)?;
    let head = Head::of_row((**key).clone(), row, 0).and_then(|mut head| {
        if **want {
            head.read_value(row, HEAD_COLUMNS + 1)?;
        }
        Ok(head)
    });
    batch.heads.insert((**key).clone(), head);
    Ok(())
}

/// What was asked for at the place that a column names, counted from 1.
pub(super) fn nth<'a, T>(row: &Row, column: usize, asked: &'a [T]) -> Result<&'a T, StoreError> {
    let at = usize::try_from(get::<i64>(row, column)? - 1).ok();
    at.and_then(|at| asked.get(at))
        .ok_or_else(|| super::state::corrupt("the database answered what was not asked".into()))
}
