//! A lone change of one profile's lease in one round trip, with or without a save.
//!
//! The commit is judged by the shared rules, as every other, but on the key's row as it was last
//! seen here: by the look or the commit just before, most often. One statement, which is a
//! transaction of its own, then writes what the rules made of it. Its condition is that the row is
//! still the one that was judged, column by column. Otherwise it finds no row and does nothing, and
//! the commit goes the way of all others. So nothing is ever refused here.
//!
//! * **Twice.** A commit that was applied before finds another row, or is judged on the row that it
//!   left and goes the other way. One that was aborted finds its id in `settled`: the insert fails,
//!   and all of the statement with it.
//! * **At once.** What a lock holds is not waited for: there the statement finds no row.
//! * **The value.** Where the answer is to show one that is not written, the commit goes the way of
//!   all others: a damaged value is found before anything is applied.
//! * **The time** that a version gets is told as for lone saves (see `lone`).
//! * **The host.** Where the commit asks that a host serves the game server, the server's row is
//!   locked against another host, and has to name this one.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    Inner,
    batch::{Batch, Shown, Verdict, Writes},
    connect::{Alone, Step},
    lone::{self, Saved},
    pool::Lease,
    queue::Reply,
    state::{Head, SERVER_COLUMNS, Value, get, server_columns, server_of_row},
    trouble::UnknownStatements,
    write,
};
use crate::{
    data_store::{
        Change, Commit, HostId, LeaseState, ServerId, ServerRow, StoreError,
        checksum::{Covered, checksum},
        rules::{self, Outcome},
    },
    key::ProfileKey,
};

/// How many rows are remembered.
const MOST_KEYS: usize = 1 << 13;

/// A row with more users than fit here is not remembered.
const MOST_BYTES_OF_USERS: usize = 1 << 10;

/// What `seen` holds besides the key is read whole: the server joins it as one row.
macro_rules! update {
    ($also:literal) => {
        concat!(
            "WITH seen AS MATERIALIZED (SELECT h.store, h.scope, h.key",
            $also,
            " FROM head h WHERE h.store = $1 AND h.scope = $2 AND h.key = $3 AND h.epoch = $4 AND h.version = $5 \
             AND h.lease_revision = $6 AND h.inbox_revision = $7 AND h.last_message = $8 AND h.waiting = $9 \
             AND h.flags = $10 AND h.created_ms = $11 AND h.stored_ms = $12 AND h.users = $13 AND h.lease = $14 \
             AND h.last_save IS NOT DISTINCT FROM $15 AND (SELECT m.value FROM meta m WHERE m.name = 'incarnation') = $16 \
             AND clock_timestamp() BETWEEN $17 AND $18 FOR NO KEY UPDATE OF h SKIP LOCKED), \
             host AS MATERIALIZED (SELECT s.id FROM server s WHERE s.id = ANY($19::uuid[]) AND s.host = $20 \
             FOR KEY SHARE OF s SKIP LOCKED), wrote AS (UPDATE head h SET flags = $21, epoch = $22, lease_revision = $23, \
             held = $24, holder = $25, lease = $26, last_save = $27"
        )
    };
}

macro_rules! as_seen {
    () => {
        " FROM seen WHERE h.store = ANY(ARRAY[seen.store]) AND h.scope = seen.scope AND h.key = seen.key \
         AND (SELECT count(*) FROM host) = cardinality($19::uuid[]) \
         RETURNING h.store, h.scope, h.key, h.holder)"
    };
}

macro_rules! and_answer {
    () => {
        concat!(
            ", known AS (INSERT INTO settled (id, at_ms, aborted, fingerprint) SELECT u.id, $28::bigint, false, u.fingerprint \
             FROM wrote, unnest($29::uuid[], $30::bigint[]) AS u (id, fingerprint)), \
             told AS (INSERT INTO notice (store, scope, key, server, commit_id) SELECT w.store, w.scope, w.key, u.server, $32::uuid \
             FROM wrote w, unnest($31::uuid[]) AS u (server) WHERE (SELECT s.dead_ms IS NULL FROM server s WHERE s.id = u.server) \
             ORDER BY u.server ON CONFLICT (server, store, scope, key) DO UPDATE SET commit_id = EXCLUDED.commit_id \
             RETURNING server) SELECT ",
            server_columns!(),
            ", ARRAY(SELECT t.server FROM told t), floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint \
             FROM wrote w LEFT JOIN server s ON s.id = ANY(ARRAY[w.holder])"
        )
    };
}

/// Changes what is beside the current version.
pub(super) const CHANGE: &str = concat!(update!(""), as_seen!(), and_answer!());

/// Writes a version as well, and keeps the one before if it is to be kept.
pub(super) const CHANGE_AND_SAVE: &str = concat!(
    update!(
        ", h.version, h.written_ms, h.stored_ms, h.load_count, h.flags, h.cause, h.author, h.label, h.checksum, \
         CASE WHEN $39::bool THEN h.value END AS value"
    ),
    ", version = $33, written_ms = $28, stored_ms = $28, load_count = $34, cause = $35, author = $36, label = NULL, \
     checksum = $37, value = $38",
    as_seen!(),
    ", kept AS (INSERT INTO version (store, scope, key, number, written_ms, stored_ms, superseded_ms, load_count, flags, cause, \
     author, label, checksum, value) SELECT s.store, s.scope, s.key, s.version, s.written_ms, s.stored_ms, $28, s.load_count, \
     s.flags & 7, s.cause, s.author, s.label, s.checksum, s.value FROM seen s, wrote WHERE $39::bool)",
    and_answer!()
);

/// Rows as they were last seen here. One may be another by now: then the statement finds none.
#[derive(Default)]
pub(super) struct Remembered {
    heads: Mutex<HashMap<ProfileKey, Head>>,
    unknown: UnknownStatements,
}

impl Remembered {
    /// Takes in what a key's row is.
    pub(super) fn note(&self, head: &Head) {
        let mut heads = self.heads.lock();
        if !head.exists || has_document(&head.lease) || head.users.len() > MOST_BYTES_OF_USERS {
            heads.remove(&head.key);
            return;
        }
        if heads.len() >= MOST_KEYS && !heads.contains_key(&head.key) {
            heads.clear();
        }
        let value = if head.info.is_none() { Value::Known(None) } else { Value::NotRead };
        heads.insert(head.key.clone(), Head { value, holder: None, ..head.clone() });
    }

    /// Takes in what a transaction found and left.
    pub(super) fn note_batch(&self, batch: &Batch, commits: usize) {
        if commits == 1 {
            batch.heads.values().flatten().for_each(|head| self.note(head));
            return;
        }
        // So many are hardly followed by lone ones.
        let mut heads = self.heads.lock();
        for key in batch.writes.heads.keys() {
            heads.remove(key);
        }
    }

    fn of(&self, key: &ProfileKey) -> Option<Head> {
        self.heads.lock().get(key).cloned()
    }

    pub(super) fn forget(&self, key: &ProfileKey) {
        self.heads.lock().remove(key);
    }
}

/// Whether a lease came with a document, which has no bound of its own.
fn has_document(lease: &LeaseState) -> bool {
    lease.holder.as_ref().is_some_and(|holder| holder.document.is_some())
        || lease.request.as_ref().is_some_and(|request| request.document.is_some())
}

/// The profile of a commit that changes its lease, and nothing else but its data.
fn changed(commit: &Commit) -> Option<&ProfileKey> {
    let [key] = rules::keys_of(commit)[..] else { return None };
    let (mut leases, mut saves, mut hosts) = (0, 0, 0);
    for change in &commit.changes {
        match change {
            Change::Lease { .. } => leases += 1,
            Change::CheckHost { .. } => hosts += 1,
            // The first version tells when the profile was created, which is not written here.
            Change::Write { version: 1.., imported: None, .. } => saves += 1,
            Change::Check { .. } => {}
            _ => return None,
        }
    }
    (leases == 1 && saves < 2 && hosts < 2).then_some(key)
}

/// The game server whose host a commit asks about, and the host.
fn host(commit: &Commit) -> Option<(ServerId, HostId)> {
    commit.changes.iter().find_map(|change| match change {
        Change::CheckHost { id, host } => Some((*id, *host)),
        _ => None,
    })
}

/// A commit that the rules let through, on the row that is remembered.
struct Judged<'c> {
    commit: &'c Commit,
    key: &'c ProfileKey,
    before: Head,
    batch: Batch,
    clock: [std::time::SystemTime; 2],
}

impl Inner {
    /// Writes a commit in one round trip, if it changes one profile whose row is remembered.
    pub(super) async fn change_alone(&self, lease: &mut Lease, commit: &Commit) -> Saved {
        let Some(mut judged) = self.judged(commit) else { return Saved::NotPlain };
        let Ok(step) = judged.step() else { return Saved::NotPlain };
        let sql = step.sql;
        if self.remembered.unknown.has(sql) {
            return Saved::NotPlain;
        }
        let Some(answer) = lone::sent(lease, &step).await else { return Saved::NotPlain };
        drop(step);
        if !matches!(answer, Alone::Committed(_)) {
            self.remembered.forget(judged.key);
        }
        lone::settled(answer, sql, &self.remembered.unknown, |row| {
            let reply = judged.reply(row, self.test_time())?;
            self.remembered.note(judged.batch.head(judged.key)?);
            Ok(reply)
        })
    }

    fn judged<'c>(&self, commit: &'c Commit) -> Option<Judged<'c>> {
        let key = changed(commit)?;
        let before = self.remembered.of(key)?;
        let (now_ms, clock) = self.stored_at()?;
        if before.shows_inbox(commit.returning) || now_ms < before.replaced().stored_ms {
            return None;
        }
        let mut batch = Batch::new(now_ms, commit.incarnation);
        batch.heads.insert(key.clone(), Ok(before.clone()));
        batch.servers.extend(host(commit).map(|(id, host)| (id, hosted_by(id, host))));
        let verdict = batch.commit(commit);
        // Found out with the rules, and true if the statement finds the row and the host.
        let is_applied =
            matches!(verdict, Verdict::Replied { already_applied: false, wrote: true });
        let shows = |head: &Head| commit.returning.value && head.value == Value::NotRead;
        if shows(batch.head(key).ok()?) {
            return None;
        }
        (is_applied && is_of_one_row(&batch.writes)).then(|| Judged {
            commit,
            key,
            before,
            batch,
            clock,
        })
    }
}

/// Whether the statement writes all that a commit changes.
fn is_of_one_row(writes: &Writes) -> bool {
    let Writes { heads, history: _, pins, users_gone, users_new, edits, messages, erased, .. } =
        writes;
    let Writes { links, registered, rehosted, renewed, died, acknowledged, .. } = writes;
    let beside = [pins.is_empty(), edits.is_empty(), messages.is_empty(), erased.is_empty()];
    let users = [users_gone.is_empty(), users_new.is_empty(), links.is_empty()];
    let servers = [registered.is_empty(), rehosted.is_empty(), renewed.is_empty(), died.is_empty()];
    heads.len() < 2
        && acknowledged.is_empty()
        && beside.into_iter().chain(users).chain(servers).all(|is_empty| is_empty)
}

/// A game server's row, of which the rules are to see the host only.
fn hosted_by(id: ServerId, host: HostId) -> ServerRow {
    ServerRow {
        id,
        place_id: 0,
        job_id: String::new(),
        revision: 0,
        lease_ms: 0,
        started_ms: 0,
        renewed_ms: 0,
        dead: false,
        host: Some(host),
        generation: 0,
        owner: None,
    }
}

impl Judged<'_> {
    fn step(&self) -> Result<Step<'_>, StoreError> {
        let (before, after) = (&self.before, self.batch.head(self.key)?);
        let (writes, now_ms) = (&self.batch.writes, self.batch.now_ms);
        let writes_data = writes.heads.get(self.key).is_some_and(|touched| touched.data);
        let (server, host) = host(self.commit).unzip();
        let fingerprint = |outcome: &Outcome| match outcome {
            Outcome::Applied(fingerprint) => fingerprint.map(u64::cast_signed),
            Outcome::Aborted => None,
        };
        let mut step = Step::new(if writes_data { CHANGE_AND_SAVE } else { CHANGE })
            .with(self.key.store())
            .with(self.key.scope())
            .with(self.key.key())
            .with(before.epoch.cast_signed())
            .with(before.version().cast_signed())
            .with(before.lease_revision.cast_signed())
            .with(before.inbox_revision.cast_signed())
            .with(before.last_message.cast_signed())
            .with(before.waiting.cast_signed())
            .with(before.flags)
            .with(before.created_ms)
            .with(before.replaced().stored_ms)
            .with(&before.users[..])
            .with(write::lease(before)?)
            .with(before.last_save.map(|id| id.0))
            .with(self.commit.incarnation.0.to_string())
            .with(self.clock[0])
            .with(self.clock[1])
            .with(server.into_iter().map(|id: ServerId| id.0).collect::<Vec<Uuid>>())
            .with(host.map(|host: HostId| host.0))
            .with(after.flags)
            .with(after.epoch.cast_signed())
            .with(after.lease_revision.cast_signed())
            .with(after.lease.is_held())
            .with(after.holder_id().map(|id| id.0))
            .with(write::lease(after)?)
            .with(after.last_save.map(|id| id.0))
            .with(now_ms)
            .with(writes.outcomes.keys().map(|id| id.0).collect::<Vec<Uuid>>())
            .with(writes.outcomes.values().map(fingerprint).collect::<Vec<Option<i64>>>())
            .with(writes.notices.keys().map(|(server, _)| server.0).collect::<Vec<Uuid>>())
            .with(self.commit.id.0);
        if let Some(info) = after.info.as_ref().filter(|_| writes_data)
            && let Value::Known(value) = &after.value
        {
            let sum = checksum(&Covered::of(self.key, info), value.as_deref()).cast_signed();
            step.push(info.number.cast_signed());
            step.push(info.load_count.cast_signed());
            step.push(info.cause.as_str());
            step.push(info.author.as_str());
            step.push(sum);
            step.push(value.as_deref());
            step.push(!writes.history.is_empty());
        }
        Ok(step)
    }

    /// The answer to the commit, whose statement was committed.
    fn reply(&mut self, row: &Row, test_time: Option<i64>) -> Result<Reply, StoreError> {
        let mut shown = Shown::default();
        let told: Vec<Uuid> = get(row, SERVER_COLUMNS)?;
        shown.notified.extend(told.into_iter().map(|id| (ServerId(id), self.key.clone())));
        self.batch.now_ms = test_time.map_or_else(|| get(row, SERVER_COLUMNS + 1), Ok)?;
        self.batch.servers.clear();
        if get::<Option<Uuid>>(row, 0)?.is_some() {
            let holder = server_of_row(row, 0)?;
            self.batch.servers.insert(holder.id, holder);
        }
        let verdict = Verdict::Replied { already_applied: false, wrote: true };
        Ok(self.batch.answer(self.commit, verdict, &shown))
    }
}
