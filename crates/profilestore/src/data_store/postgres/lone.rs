//! A lone save in one round trip: one statement, which is a transaction of its own.
//!
//! It is for the plain case: the next version of one profile under its epoch and version, by its
//! holder or while it is free, with the same users, and nothing in the inbox that the caller
//! wants to see. The statement looks for the row that is so, writes head, history and outcome, and
//! answers with what the row holds besides. In every other case it finds no row, or fails as a
//! whole, and nothing is applied; the commit then goes the way of all others, on which the shared
//! rules judge it. So nothing is ever refused here, and a condition too many costs a round trip and
//! no more.
//!
//! * **By the holder**, and nothing else ([`rules::is_own_save`]): nearly every save. Its outcome
//!   stands in the head. So its statement is a plain `UPDATE`, unless the version before may have
//!   to be kept. It is tried where the caller held the profile, with a server's row, when a commit
//!   here was last answered.
//! * **Twice.** A commit that was applied before finds another version. One that was aborted finds
//!   its id in `settled`: the insert fails, and the write with it. So there is no `ON CONFLICT`. A
//!   holder's save is never aborted.
//! * **At once.** All conditions are about the row itself. A statement that waits for another
//!   transaction looks at them again in the row that this one left (READ COMMITTED). What it keeps
//!   in the history is read with the row locked, and a lock of others is not waited for there.
//! * **What the row says is known before.** Its checksum covers its time and the lease's load
//!   count, so both are sent, and the statement finds no row unless they are true: the time is one
//!   of the server's clock, of the last second, and the lease begins with that count.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{
    Inner,
    connect::{Alone, Step},
    pool::Lease,
    queue::Reply,
    schema::SEALED,
    state::{
        Head, SERVER_COLUMNS, Value, corrupt, get, joined_server, lease_of_text, server_columns,
        unsigned,
    },
    trouble::{Trouble, UnknownStatements},
};
use crate::{
    data_store::{
        Change, Commit, CommitId, CommitReply, LeaseState, NewValue, ServerId, StoreError,
        checksum::{Covered, checksum},
        rules,
    },
    key::ProfileKey,
};

/// How many keys are remembered. A process with more writes batches more often than lone saves.
const MOST_KEYS: usize = 1 << 16;

/// How far the server's clock may be ahead of the time that a version gets.
const BEHIND: Duration = Duration::from_secs(1);

/// How long the server's clock can be told from ours.
const CLOCK_KEPT: Duration = Duration::from_secs(300);

/// The incarnation is compared beside the epoch: so it is part of the look for the row, and no step
/// of its own.
macro_rules! is_plain {
    () => {
        "h.store = $1 AND h.scope = $2 AND h.key = $3 \
         AND h.epoch = (SELECT $4::bigint FROM meta m WHERE m.name = 'incarnation' AND m.value = $10) \
         AND h.version = $5 AND h.users = $6 AND (h.waiting = 0 OR COALESCE(h.inbox_revision = $8, true)) \
         AND starts_with(h.lease, $9) AND clock_timestamp() BETWEEN $11 AND $12 AND h.stored_ms <= $13"
    };
}

/// It is free, or the caller holds it.
macro_rules! is_free {
    () => {
        "(h.holder IS NULL OR h.holder = $7) AND "
    };
}

/// The version before need not be kept: [`rules::keeps_previous`], each flag being a reason.
macro_rules! is_passing {
    () => {
        " AND h.flags = 0 AND h.stored_ms >= $14"
    };
}

macro_rules! update {
    () => {
        "UPDATE head h SET version = h.version + 1, flags = $15, written_ms = $13, stored_ms = $13, load_count = $16, \
         cause = $17, author = $18, label = NULL, checksum = $19, value = $20, last_save = "
    };
}

/// The same of a save that may be the holder's own.
macro_rules! update_any {
    () => {
        concat!(
            update!(),
            "CASE WHEN $23::bool AND h.holder = $7 THEN $21::uuid ELSE h.last_save END"
        )
    };
}

/// What neither the conditions nor the parameters tell of the row.
macro_rules! found_columns {
    () => {
        "h.created_ms, h.lease_revision, h.inbox_revision, h.last_message, h.waiting, h.lease"
    };
}

macro_rules! and_answer {
    () => {
        concat!(
            " RETURNING ",
            found_columns!(),
            ", clock_timestamp() AS now, h.holder, h.last_save), \
             known AS (INSERT INTO settled (id, at_ms, aborted, fingerprint) \
             SELECT $21::uuid, $13::bigint, false, $22::bigint FROM wrote \
             WHERE wrote.last_save IS DISTINCT FROM $21::uuid) SELECT ",
            found_columns!(),
            ", h.now, ",
            server_columns!(),
            ", h.last_save FROM wrote h LEFT JOIN server s ON s.id = ANY(ARRAY[h.holder])"
        )
    };
}

/// A save by the holder that overwrites a version: its server's row is there, and no outcome is
/// written.
pub(super) const OWN_SAVE: &str = concat!(
    update!(),
    "$21 FROM server s WHERE s.id = $7 AND h.holder = $7 AND ",
    is_plain!(),
    is_passing!(),
    " RETURNING ",
    found_columns!(),
    ", clock_timestamp(), ",
    server_columns!()
);

/// Any other save that overwrites a version.
pub(super) const SAVE: &str = concat!(
    "WITH wrote AS (",
    update_any!(),
    " WHERE ",
    is_free!(),
    is_plain!(),
    is_passing!(),
    and_answer!()
);

/// Any save that keeps the version before, if it is to be kept.
pub(super) const SAVE_AND_KEEP: &str = concat!(
    "WITH seen AS MATERIALIZED (SELECT h.store, h.scope, h.key, h.version, h.written_ms, h.stored_ms, h.load_count, h.flags, \
     h.cause, h.author, h.label, h.checksum, h.value FROM head h WHERE ",
    is_free!(),
    is_plain!(),
    " FOR NO KEY UPDATE OF h SKIP LOCKED), \
     kept AS (INSERT INTO version (store, scope, key, number, written_ms, stored_ms, superseded_ms, load_count, \
     flags, cause, author, label, checksum, value) \
     SELECT s.store, s.scope, s.key, s.version, s.written_ms, s.stored_ms, $13, s.load_count, s.flags & 7, s.cause, s.author, \
     s.label, s.checksum, s.value FROM seen s WHERE $24 OR s.flags <> 0 OR s.stored_ms < $14), wrote AS (",
    update_any!(),
    " FROM seen WHERE h.store = ANY(ARRAY[seen.store]) AND h.scope = seen.scope AND h.key = seen.key",
    and_answer!()
);

/// Where an answer has the server's clock, the row of the holder's server and, but for
/// [`OWN_SAVE`], the holder's last save. Before them are `found_columns!`.
const NOW: usize = 6;
const HOLDER: usize = 7;
const LAST_SAVE: usize = HOLDER + SERVER_COLUMNS;

/// What is remembered for lone saves.
#[derive(Default)]
pub(super) struct Lone {
    seen: Mutex<HashMap<ProfileKey, Seen>>,
    /// The server's clock when it was last heard of.
    clock: Mutex<Option<(Instant, i64)>>,
    unknown: UnknownStatements,
}

/// What a key's row said when a commit here was answered. May be wrong by now: then the statement
/// finds no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    load_count: u64,
    /// There is nothing else in its lease.
    is_bare: bool,
    /// The server that holds it and has a row.
    holder: Option<ServerId>,
    /// When the current version was stored, if nothing but a later hour is a reason to keep it.
    plain_since: Option<i64>,
}

impl Lone {
    /// Takes in what the server's clock says, once it was heard. Not what a lone save answers: its
    /// answer waits for the disk and the standby, and is older by then.
    pub(super) fn note_time(&self, now: Instant, now_ms: i64) {
        *self.clock.lock() = Some((now, now_ms));
    }

    /// A time that the server's clock has reached, and hardly more than that.
    fn time(&self, now: Instant) -> Option<i64> {
        let (heard, ms) = (*self.clock.lock())?;
        let since = now.saturating_duration_since(heard);
        (since < CLOCK_KEPT).then(|| ms + i64::try_from(since.as_millis()).unwrap_or(0))
    }

    /// Takes in what a commit's answer shows.
    pub(super) fn note(&self, commit: &Commit, reply: &CommitReply) {
        let seals = |change: &Change| {
            matches!(change, Change::Lease { seal: true, .. } | Change::Pin { .. })
        };
        let special = reply.already_applied || commit.changes.iter().any(seals);
        let mut seen = self.seen.lock();
        for state in &reply.states {
            let wrote = |change: &Change| {
                matches!(change, Change::Write { key, value: NewValue::Bytes(_), seal: false, imported: None, .. }
                    if *key == state.key)
            };
            let is_plain = !special && commit.changes.iter().any(wrote);
            let load_count = state.lease.load_count;
            let bare = LeaseState { load_count, ..LeaseState::default() };
            let plain_since = state.head.as_ref().filter(|_| is_plain).map(|head| head.stored_ms);
            if seen.len() >= MOST_KEYS && !seen.contains_key(&state.key) {
                seen.clear();
            }
            let is_bare = state.lease == bare;
            let holder = state.holder_server.as_ref().map(|server| server.id);
            let now = Seen { load_count, is_bare, holder, plain_since };
            seen.insert(state.key.clone(), now);
        }
    }

    fn of(&self, key: &ProfileKey) -> Option<Seen> {
        self.seen.lock().get(key).copied()
    }

    fn forget(&self, key: &ProfileKey) {
        self.seen.lock().remove(key);
    }
}

/// A commit that may be a plain one.
struct Save<'c> {
    commit: &'c Commit,
    /// Its statement is [`OWN_SAVE`].
    is_own: bool,
    step: Step<'c>,
    /// What the row is once the statement has written it, but for what only its answer tells.
    head: Head,
}

/// What became of a commit by one statement.
pub(super) enum Saved {
    Applied(Box<Reply>),
    /// Nothing was applied: the rules are to judge the commit.
    NotPlain,
    /// Nothing was applied, and all its time is over.
    TooLate(Trouble),
    /// The connection was lost. It may have been applied.
    Lost(String),
    /// It may have been applied, or may yet be.
    Unknown(String),
}

/// Sends a statement that is a transaction of its own. None: there is no connection for it.
pub(super) async fn sent(lease: &mut Lease, step: &Step<'_>) -> Option<Alone> {
    let answer = lease.connection().await.ok()?.alone(step).await;
    match &answer {
        Alone::Lost(_) | Alone::Unknown(_) => lease.discard(),
        Alone::Not(trouble) if trouble.is_disconnected() => lease.discard(),
        Alone::Committed(_) | Alone::Nothing | Alone::Not(_) => lease.rest(),
    }
    Some(answer)
}

/// What its answer means. Notes the statement in `unknown` if the engine does not know it.
pub(super) fn settled(
    answer: Alone,
    sql: &'static str,
    unknown: &UnknownStatements,
    reply: impl FnOnce(&Row) -> Result<Reply, StoreError>,
) -> Saved {
    match answer {
        Alone::Committed(row) => match reply(&row) {
            Ok(reply) => Saved::Applied(Box::new(reply)),
            Err(err) => Saved::Lost(err.to_string()),
        },
        Alone::Nothing => Saved::NotPlain,
        Alone::Not(trouble) => {
            unknown.note(sql, &trouble);
            tracing::debug!(?trouble, "a commit by one statement is judged by the rules");
            if trouble.is_time_limit() { Saved::TooLate(trouble) } else { Saved::NotPlain }
        }
        Alone::Lost(reason) => Saved::Lost(reason),
        Alone::Unknown(reason) => Saved::Unknown(reason),
    }
}

impl Inner {
    /// Writes a commit in one round trip, if it is plain.
    pub(super) async fn save_alone(&self, lease: &mut Lease, commit: &Commit) -> Saved {
        let Some(save) = self.plain(commit) else { return Saved::NotPlain };
        let Some(answer) = sent(lease, &save.step).await else { return Saved::NotPlain };
        if matches!(answer, Alone::Nothing) {
            self.lone.forget(&save.head.key);
        }
        settled(answer, save.step.sql, &self.lone.unknown, |row| self.reply(save, row).map(Ok))
    }

    /// Makes a commit a statement, if it may be a plain one.
    fn plain<'c>(&self, commit: &'c Commit) -> Option<Save<'c>> {
        let [change] = &commit.changes[..] else { return None };
        let Change::Write { key, epoch, version, value, keep_previous, imported: None, .. } =
            change
        else {
            return None;
        };
        let Change::Write { user_ids, cause, author, seal, .. } = change else { return None };
        let NewValue::Bytes(value) = value else { return None };
        if *version == 0 {
            return None;
        }
        let seen = self.lone.of(key)?;
        let (now_ms, clock) = self.stored_at()?;
        let hour = rules::start_of_hour(now_ms);
        let keeps = *keep_previous || seen.plain_since.is_none_or(|stored_ms| stored_ms < hour);
        let only_saves = rules::only_saves(commit).is_some();
        let is_held = seen.holder.is_some() && seen.holder == commit.from;
        let (sql, is_own) = match () {
            () if keeps => (SAVE_AND_KEEP, false),
            () if only_saves && is_held => (OWN_SAVE, true),
            () => (SAVE, false),
        };
        if self.lone.unknown.has(sql) {
            return None;
        }
        let mut info = rules::new_version(change, now_ms)?;
        info.load_count = seen.load_count;
        let sum = checksum(&Covered::of(key, &info), Some(&value[..])).cast_signed();
        let users: Vec<u8> = user_ids.iter().flat_map(|user| user.to_be_bytes()).collect();
        let flags = if *seal { SEALED } else { 0 };
        // The count is the first member of a lease.
        let end = if seen.is_bare { '}' } else { ',' };
        let lease = format!("{{\"load_count\":{}{end}", seen.load_count);
        let mut step = Step::new(sql)
            .with(key.store())
            .with(key.scope())
            .with(key.key())
            .with(epoch.cast_signed())
            .with(version.cast_signed())
            .with(users.clone())
            .with(commit.from.map(|server| server.0))
            .with(commit.returning.inbox_unless.map(u64::cast_signed))
            .with(lease)
            .with(commit.incarnation.0.to_string())
            .with(clock[0])
            .with(clock[1])
            .with(now_ms)
            .with(hour)
            .with(flags)
            .with(seen.load_count.cast_signed())
            .with(cause.as_str())
            .with(author.as_str())
            .with(sum)
            .with(&value[..])
            .with(commit.id.0);
        if !is_own {
            step.push(commit.fingerprint.map(u64::cast_signed));
            step.push(only_saves);
        }
        if keeps {
            step.push(*keep_previous);
        }
        let head = Head {
            exists: true,
            epoch: *epoch,
            flags,
            users,
            last_save: is_own.then_some(commit.id),
            info: Some(info),
            value: Value::Known(Some(value.clone())),
            ..Head::absent(key.clone())
        };
        Some(Save { commit, is_own, step, head })
    }

    /// The time that a version gets, and the readings of the server's clock with which it is true.
    /// None: too little is known of that clock.
    pub(super) fn stored_at(&self) -> Option<(i64, [SystemTime; 2])> {
        const FAR: Duration = Duration::from_secs(200 * 366 * 24 * 60 * 60);
        if let Some(now_ms) = self.test_time() {
            return Some((now_ms, [UNIX_EPOCH, UNIX_EPOCH + FAR]));
        }
        let now_ms = self.lone.time(self.pool.dialer.options.env.now())?;
        let from = UNIX_EPOCH + Duration::from_millis(u64::try_from(now_ms).ok()?);
        Some((now_ms, [from, from + BEHIND]))
    }

    fn reply(&self, save: Save<'_>, row: &Row) -> Result<CommitReply, StoreError> {
        let Save { commit, is_own, mut head, .. } = save;
        head.created_ms = get(row, 0)?;
        head.lease_revision = unsigned(row, 1)?;
        head.inbox_revision = unsigned(row, 2)?;
        head.last_message = unsigned(row, 3)?;
        head.waiting = unsigned(row, 4)?;
        head.lease = lease_of_text(get(row, 5)?, &head.key)?;
        if !is_own {
            head.last_save = get::<Option<Uuid>>(row, LAST_SAVE)?.map(CommitId);
        }
        let now_ms = match self.test_time() {
            Some(now_ms) => now_ms,
            None => {
                let now = get::<SystemTime>(row, NOW)?.duration_since(UNIX_EPOCH);
                let millis = now.ok().and_then(|since| i64::try_from(since.as_millis()).ok());
                millis.ok_or_else(|| corrupt("the database's clock cannot be read".into()))?
            }
        };
        self.remembered.note(&head);
        // Nothing waits there that is to be shown.
        let state = head.state(commit.returning, joined_server(row, HOLDER)?, Vec::new());
        Ok(CommitReply {
            now_ms,
            already_applied: false,
            states: vec![state],
            server: None,
            notices: Vec::new(),
            notified: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;

    /// What is sent as the time must be one that the server's clock has reached.
    #[test]
    fn the_servers_clock_is_told_from_ours_and_never_ahead() {
        let (lone, now) = (Lone::default(), Env::system().now());
        assert_eq!(lone.time(now), None, "it was never heard of");
        lone.note_time(now, 5_000);
        assert_eq!(lone.time(now), Some(5_000));
        assert_eq!(lone.time(now + Duration::from_micros(2_999)), Some(5_002));
        assert_eq!(lone.time(now - Duration::from_secs(1)), Some(5_000));
        assert_eq!(lone.time(now + CLOCK_KEPT), None, "it may run at another pace");
    }
}
