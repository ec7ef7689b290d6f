//! What a batch writes, and reads once more for its answers: statements that are sent together with
//! the `COMMIT`.
//!
//! One statement a kind of row, its rows as arrays, in the order of their keys. Kept versions are
//! copied before the heads change; notices come last, when the live servers are known.

use std::collections::BTreeMap;

use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use super::{
    batch::{Batch, MessageEdit, Shown, Touched, Verdict},
    connect::Step,
    load::nth,
    state::{Head, Value, bytes, corrupt, get, key_of_row, unsigned},
};
use crate::{
    data_store::{
        Commit, CommitId, Digest, MessageId, Notice, ServerId, StoreError, StoredMessage,
        VersionLinks,
        checksum::checksum,
        content::content_digest,
        rules::{self, Outcome},
    },
    key::ProfileKey,
};

/// The columns of a head's current version, in the statements' order.
macro_rules! data_columns {
    () => {
        "version, flags, written_ms, stored_ms, load_count, cause, author, label, checksum, value"
    };
}

/// Everything else in it.
macro_rules! rest_columns {
    () => {
        "epoch, created_ms, users, lease_revision, inbox_revision, last_message, waiting, held, \
            holder, lease"
    };
}

pub(super) const INSERT_HEADS: &str = concat!(
    "INSERT INTO head (store, scope, key, ",
    data_columns!(),
    ", ",
    rest_columns!(),
    ") SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], \
     $8::bigint[], $9::text[], $10::text[], $11::text[], $12::int[], $13::bytea[], $14::bigint[], $15::bigint[], $16::bytea[], $17::bigint[], \
     $18::bigint[], $19::bigint[], $20::bigint[], $21::bool[], $22::uuid[], $23::text[])"
);

pub(super) const UPDATE_DATA: &str = concat!(
    "UPDATE head h SET version = u.version, flags = u.flags, written_ms = u.written_ms, stored_ms = u.stored_ms, \
     load_count = u.load_count, cause = u.cause, author = u.author, label = u.label, checksum = u.checksum, value = u.value \
     FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], \
     $9::text[], $10::text[], $11::text[], $12::int[], $13::bytea[]) AS u (store, scope, key, ",
    data_columns!(),
    ") WHERE h.store = ANY(ARRAY[u.store]) AND h.scope = u.scope AND h.key = u.key"
);

pub(super) const UPDATE_REST: &str = concat!(
    "UPDATE head h SET flags = u.flags, epoch = u.epoch, created_ms = u.created_ms, users = u.users, \
     lease_revision = u.lease_revision, inbox_revision = u.inbox_revision, last_message = u.last_message, waiting = u.waiting, \
     held = u.held, holder = u.holder, lease = u.lease \
     FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bytea[], $8::bigint[], \
     $9::bigint[], $10::bigint[], $11::bigint[], $12::bool[], $13::uuid[], $14::text[]) AS u (store, scope, key, flags, ",
    rest_columns!(),
    ") WHERE h.store = ANY(ARRAY[u.store]) AND h.scope = u.scope AND h.key = u.key"
);

pub(super) const UPDATE_ALL: &str = concat!(
    "UPDATE head h SET version = u.version, flags = u.flags, written_ms = u.written_ms, stored_ms = u.stored_ms, \
     load_count = u.load_count, cause = u.cause, author = u.author, label = u.label, checksum = u.checksum, value = u.value, \
     epoch = u.epoch, created_ms = u.created_ms, users = u.users, lease_revision = u.lease_revision, \
     inbox_revision = u.inbox_revision, last_message = u.last_message, waiting = u.waiting, held = u.held, holder = u.holder, \
     lease = u.lease \
     FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], \
     $9::text[], $10::text[], $11::text[], $12::int[], $13::bytea[], $14::bigint[], $15::bigint[], $16::bytea[], $17::bigint[], $18::bigint[], \
     $19::bigint[], $20::bigint[], $21::bool[], $22::uuid[], $23::text[]) AS u (store, scope, key, ",
    data_columns!(),
    ", ",
    rest_columns!(),
    ") WHERE h.store = ANY(ARRAY[u.store]) AND h.scope = u.scope AND h.key = u.key"
);

pub(super) const KEEP_VERSIONS: &str = "INSERT INTO version (store, scope, key, number, written_ms, stored_ms, superseded_ms, load_count, \
     flags, cause, author, label, checksum, value) \
     SELECT h.store, h.scope, h.key, h.version, h.written_ms, h.stored_ms, $5::bigint, h.load_count, u.flags, h.cause, h.author, \
     h.label, h.checksum, h.value FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS u (store, scope, key, flags) \
     JOIN head h ON h.store = ANY(ARRAY[u.store]) AND h.scope = u.scope AND h.key = u.key";

pub(super) const PIN_VERSIONS: &str = "UPDATE version v SET flags = CASE WHEN u.pinned THEN v.flags | 4 ELSE v.flags & ~4::bigint END \
     FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bool[]) AS u (store, scope, key, number, pinned) \
     WHERE v.store = ANY(ARRAY[u.store]) AND v.scope = u.scope AND v.key = u.key AND v.number = u.number";

pub(super) const FORGET_USERS: &str = "DELETE FROM profile_user p \
     USING unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS u (store, scope, key, user_id) \
     WHERE p.user_id = ANY(ARRAY[u.user_id]) AND p.store = u.store AND p.scope = u.scope AND p.key = u.key";

pub(super) const ADD_USERS: &str = "INSERT INTO profile_user (store, scope, key, user_id) \
     SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])";

pub(super) const RECEIPTS: &str = "INSERT INTO receipt (store, scope, key, digest, content, made_ms) \
     SELECT m.store, m.scope, m.key, m.digest, m.content, $5::bigint \
     FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS u (store, scope, key, number) \
     JOIN message m ON m.store = ANY(ARRAY[u.store]) AND m.scope = u.scope AND m.key = u.key AND m.number = u.number ON CONFLICT DO NOTHING";

pub(super) const REMOVE_MESSAGES: &str = "DELETE FROM message m \
     USING unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS u (store, scope, key, number) \
     WHERE m.store = ANY(ARRAY[u.store]) AND m.scope = u.scope AND m.key = u.key AND m.number = u.number";

pub(super) const EDIT_MESSAGES: &str = "UPDATE message m SET payload = COALESCE(u.payload, m.payload), revision = m.revision + u.revisions, \
     locked = COALESCE(u.lock, m.locked) \
     FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bytea[], $6::bigint[], $7::bool[]) \
     AS u (store, scope, key, number, payload, revisions, lock) \
     WHERE m.store = ANY(ARRAY[u.store]) AND m.scope = u.scope AND m.key = u.key AND m.number = u.number";

pub(super) const INSERT_MESSAGES: &str = "INSERT INTO message (store, scope, key, number, digest, content, created_ms, sent_ms, revision, \
     locked, name, payload) SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::uuid[], $6::uuid[], \
     $7::bigint[], $8::bigint[], $9::bigint[], $10::bool[], $11::text[], $12::bytea[])";

pub(super) const ERASE_VERSIONS: &str = "DELETE FROM version v USING unnest($1::text[], $2::text[], $3::text[]) AS u (store, scope, key) \
     WHERE v.store = ANY(ARRAY[u.store]) AND v.scope = u.scope AND v.key = u.key";

pub(super) const INSERT_LINKS: &str = "INSERT INTO link (store, scope, key, number, at_ms, links) \
     SELECT u.store, u.scope, u.key, u.number, $6::bigint, u.links \
     FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[]) AS u (store, scope, key, number, links) \
     ON CONFLICT DO NOTHING";

pub(super) const ERASE_LINKS: &str = "DELETE FROM link l USING unnest($1::text[], $2::text[], $3::text[]) AS u (store, scope, key) \
     WHERE l.store = ANY(ARRAY[u.store]) AND l.scope = u.scope AND l.key = u.key";

pub(super) const ERASE_RECEIPTS: &str = "INSERT INTO receipt (store, scope, key, digest, content, made_ms) \
     SELECT m.store, m.scope, m.key, m.digest, m.content, $4::bigint \
     FROM unnest($1::text[], $2::text[], $3::text[]) AS u (store, scope, key) \
     JOIN message m ON m.store = ANY(ARRAY[u.store]) AND m.scope = u.scope AND m.key = u.key ON CONFLICT DO NOTHING";

pub(super) const ERASE_MESSAGES: &str = "DELETE FROM message m USING unnest($1::text[], $2::text[], $3::text[]) AS u (store, scope, key) \
     WHERE m.store = ANY(ARRAY[u.store]) AND m.scope = u.scope AND m.key = u.key";

pub(super) const INSERT_SERVERS: &str = "INSERT INTO server (id, place_id, job_id, revision, lease_ms, started_ms, renewed_ms, dead_ms, \
     host, generation, owner) \
     SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], \
     $8::bigint[], $9::uuid[], $10::bigint[], $11::text[])";

pub(super) const RENEW_SERVERS: &str = "UPDATE server s SET revision = u.revision, renewed_ms = u.renewed_ms, renewal = u.renewal \
     FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::uuid[]) AS u (id, revision, renewed_ms, renewal) WHERE s.id = ANY(ARRAY[u.id])";

pub(super) const REHOST_SERVERS: &str = "UPDATE server s SET revision = u.revision, renewed_ms = u.renewed_ms, host = u.host, \
     generation = u.generation \
     FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::uuid[], $5::bigint[]) AS u (id, revision, renewed_ms, host, generation) \
     WHERE s.id = ANY(ARRAY[u.id])";

pub(super) const BURY_SERVERS: &str =
    "UPDATE server s SET dead_ms = $2::bigint WHERE s.id = ANY($1::uuid[]) AND s.dead_ms IS NULL";

// Locked in order first: a notice is changed by two sides, its server and the one that leaves it a
// newer one.
pub(super) const FORGET_NOTICES: &str = "WITH gone AS MATERIALIZED (SELECT n.server, n.store, n.scope, n.key FROM \
     unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::uuid[]) WITH ORDINALITY \
     AS u (store, scope, key, server, commit_id, at) JOIN notice n \
     ON n.server = ANY(ARRAY[u.server]) AND n.store = u.store AND n.scope = u.scope AND n.key = u.key AND n.commit_id = u.commit_id \
     ORDER BY u.at FOR UPDATE OF n) \
     DELETE FROM notice n USING gone g WHERE n.server = ANY(ARRAY[g.server]) AND n.store = g.store AND n.scope = g.scope AND n.key = g.key";

pub(super) const INSERT_OUTCOMES: &str = "INSERT INTO settled (id, at_ms, aborted, fingerprint) \
    SELECT u.id, $4::bigint, u.aborted, u.fingerprint \
    FROM unnest($1::uuid[], $2::bool[], $3::bigint[]) AS u (id, aborted, fingerprint)";

pub(super) const LEAVE_NOTICES: &str = "INSERT INTO notice (store, scope, key, server, commit_id) \
     SELECT u.store, u.scope, u.key, u.server, u.commit_id FROM \
     unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::uuid[]) WITH ORDINALITY \
     AS u (store, scope, key, server, commit_id, at) \
     WHERE (SELECT s.dead_ms IS NULL FROM server s WHERE s.id = u.server) ORDER BY u.at \
     ON CONFLICT (server, store, scope, key) DO UPDATE SET commit_id = EXCLUDED.commit_id \
     RETURNING store, scope, key, server";

pub(super) const INBOXES: &str = "SELECT u.n, m.number, m.created_ms, m.name, m.payload, m.locked, m.revision, m.sent_ms \
     FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS u (store, scope, key, n) \
     JOIN message m ON m.store = ANY(ARRAY[u.store]) AND m.scope = u.scope AND m.key = u.key ORDER BY u.n, m.number";

pub(super) const VALUES: &str = "SELECT u.n, h.checksum, h.value FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY \
     AS u (store, scope, key, n) JOIN head h ON h.store = ANY(ARRAY[u.store]) AND h.scope = u.scope AND h.key = u.key";

pub(super) const NOTICES: &str = "SELECT n.store, n.scope, n.key, n.server, n.commit_id FROM notice n WHERE n.server = ANY($1::uuid[]) \
     ORDER BY n.server, n.store, n.scope, n.key";

/// Which statement an answer is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Writ,
    Notices,
    Inboxes,
    Values,
    Notified,
}

/// What is to be read again.
#[derive(Debug, Default)]
pub(super) struct Again {
    inboxes: Vec<ProfileKey>,
    values: Vec<ProfileKey>,
    renewed: Vec<Uuid>,
}

impl Again {
    pub(super) fn of<'c>(
        batch: &Batch,
        judged: impl Iterator<Item = (&'c Commit, &'c Verdict)>,
    ) -> Self {
        let mut again = Self::default();
        for (commit, verdict) in judged {
            for key in Batch::shown(commit, verdict) {
                let Ok(head) = batch.head(key) else { continue };
                if head.shows_inbox(commit.returning) && !again.inboxes.contains(key) {
                    again.inboxes.push(key.clone());
                }
                if commit.returning.value
                    && head.value == Value::NotRead
                    && !again.values.contains(key)
                {
                    again.values.push(key.clone());
                }
            }
            if matches!(verdict, Verdict::Replied { .. })
                && let Some(ServerId(id)) = rules::renewed(commit)
            {
                again.renewed.push(id);
            }
        }
        again
    }

    /// True when the answers need nothing more.
    pub(super) fn is_empty(&self) -> bool {
        self.inboxes.is_empty() && self.values.is_empty() && self.renewed.is_empty()
    }

    /// The statements that read it.
    pub(super) fn steps(&self) -> Vec<(Part, Step<'_>)> {
        let mut steps = Vec::new();
        if !self.inboxes.is_empty() {
            steps.push((Part::Inboxes, Step::keys(INBOXES, self.inboxes.iter())));
        }
        if !self.values.is_empty() {
            steps.push((Part::Values, Step::keys(VALUES, self.values.iter())));
        }
        if !self.renewed.is_empty() {
            steps.push((Part::Notices, Step::new(NOTICES).with(&self.renewed)));
        }
        steps
    }

    /// Takes the answers in: values into the batch, the rest into what is shown.
    pub(super) fn take(
        &self,
        batch: &mut Batch,
        answers: &[(Part, Vec<Row>)],
    ) -> Result<Shown, StoreError> {
        let mut shown = Shown::default();
        for (part, rows) in answers {
            for row in rows {
                match part {
                    Part::Inboxes => {
                        let key = nth(row, 0, &self.inboxes)?;
                        shown
                            .inboxes
                            .entry(key.clone())
                            .or_default()
                            .push(message_of_row(key, row)?);
                    }
                    Part::Values => {
                        let key = nth(row, 0, &self.values)?;
                        if let Some(found) = batch.heads.get_mut(key) {
                            let read = |mut head: Head| {
                                head.read_value(row, 1)?;
                                Ok(head)
                            };
                            *found = found.clone().and_then(read);
                        }
                    }
                    Part::Notices => {
                        let notice =
                            Notice { key: key_of_row(row, 0)?, commit: CommitId(get(row, 4)?) };
                        shown.notices.entry(ServerId(get(row, 3)?)).or_default().push(notice);
                    }
                    Part::Notified => {
                        shown.notified.insert((ServerId(get(row, 3)?), key_of_row(row, 0)?));
                    }
                    Part::Writ => {}
                }
            }
        }
        Ok(shown)
    }
}

/// A row of [`INBOXES`].
pub(super) fn message_of_row(key: &ProfileKey, row: &Row) -> Result<StoredMessage, StoreError> {
    let (index, name): (u64, &str) = (unsigned(row, 1)?, get(row, 3)?);
    let id = MessageId::stored(get(row, 2)?, name)
        .ok_or_else(|| corrupt(format!("a message has no name: key=`{key}` index=`{index}`")))?;
    let payload = bytes(row, 4)?.unwrap_or_default();
    Ok(StoredMessage {
        index,
        id,
        payload,
        locked: get(row, 5)?,
        revision: unsigned(row, 6)?,
        sent_ms: get(row, 7)?,
    })
}

/// The statements that write a batch.
pub(super) fn steps(batch: &Batch) -> Result<Vec<(Part, Step<'_>)>, StoreError> {
    let (writes, now_ms) = (&batch.writes, batch.now_ms);
    let mut steps: Vec<(Part, Step<'_>)> = Vec::new();
    if !writes.history.is_empty() {
        let flags: Vec<i64> = writes.history.iter().map(|(_, flags)| *flags).collect();
        let step = Step::keys(KEEP_VERSIONS, writes.history.iter().map(|(key, _)| key))
            .with(flags)
            .with(now_ms);
        steps.push((Part::Writ, step));
    }
    push_heads(batch, &mut steps)?;
    if !writes.pins.is_empty() {
        let numbers: Vec<i64> =
            writes.pins.iter().map(|(_, number, _)| number.cast_signed()).collect();
        let pinned: Vec<bool> = writes.pins.iter().map(|(_, _, pinned)| *pinned).collect();
        steps.push((
            Part::Writ,
            Step::keys(PIN_VERSIONS, writes.pins.iter().map(|(key, ..)| key))
                .with(numbers)
                .with(pinned),
        ));
    }
    for (sql, users) in [(FORGET_USERS, &writes.users_gone), (ADD_USERS, &writes.users_new)] {
        if !users.is_empty() {
            let ids: Vec<i64> = users.iter().map(|(user, _)| *user).collect();
            steps.push((Part::Writ, Step::keys(sql, users.iter().map(|(_, key)| key)).with(ids)));
        }
    }
    push_links(batch, &mut steps)?;
    push_messages(batch, &mut steps);
    push_servers(batch, &mut steps);
    if !writes.outcomes.is_empty() {
        let ids: Vec<Uuid> = writes.outcomes.keys().map(|id| id.0).collect();
        let aborted: Vec<bool> =
            writes.outcomes.values().map(|outcome| *outcome == Outcome::Aborted).collect();
        let fingerprint = |outcome: &Outcome| match outcome {
            Outcome::Applied(fingerprint) => fingerprint.map(u64::cast_signed),
            Outcome::Aborted => None,
        };
        let fingerprints: Vec<Option<i64>> = writes.outcomes.values().map(fingerprint).collect();
        let step = Step::new(INSERT_OUTCOMES).with(ids).with(aborted).with(fingerprints);
        steps.push((Part::Writ, step.with(now_ms)));
    }
    if !writes.notices.is_empty() {
        let servers: Vec<Uuid> = writes.notices.keys().map(|(server, _)| server.0).collect();
        let commits: Vec<Uuid> = writes.notices.values().map(|commit| commit.0).collect();
        let step = Step::keys(LEAVE_NOTICES, writes.notices.keys().map(|(_, key)| key))
            .with(servers)
            .with(commits);
        steps.push((Part::Notified, step));
    }
    Ok(steps)
}

fn push_heads<'a>(batch: &'a Batch, steps: &mut Vec<(Part, Step<'a>)>) -> Result<(), StoreError> {
    let mut kinds: BTreeMap<u8, Vec<&Head>> = BTreeMap::new();
    for (key, Touched { data, rest }) in &batch.writes.heads {
        let head = batch.head(key)?;
        let kind = match (head.exists, data, rest) {
            (false, ..) => 3,
            (true, true, true) => 2,
            (true, true, false) => 1,
            (true, false, _) => 0,
        };
        kinds.entry(kind).or_default().push(head);
    }
    for (kind, heads) in kinds {
        let sql = [UPDATE_REST, UPDATE_DATA, UPDATE_ALL, INSERT_HEADS][usize::from(kind)];
        let mut step = Step::keys(sql, heads.iter().map(|head| &head.key));
        if kind == 0 {
            column(&mut step, &heads, |head| head.flags);
        } else {
            let info = |head: &&'a Head| head.info.as_ref();
            column(&mut step, &heads, |head| head.version().cast_signed());
            column(&mut step, &heads, |head| head.flags);
            column(&mut step, &heads, |head| info(head).map_or(0, |info| info.written_ms));
            column(&mut step, &heads, |head| info(head).map_or(0, |info| info.stored_ms));
            column(&mut step, &heads, |head| {
                info(head).map_or(0, |info| info.load_count.cast_signed())
            });
            column(&mut step, &heads, |head| info(head).map_or("", |info| info.cause.as_str()));
            column(&mut step, &heads, |head| info(head).map_or("", |info| info.author.as_str()));
            column(&mut step, &heads, |head| info(head).and_then(|info| info.label.as_deref()));
            column(&mut step, &heads, |head| match &head.value {
                Value::Known(value) => value.as_deref().map(|value| checksum(value).cast_signed()),
                Value::NotRead => None,
            });
            column(&mut step, &heads, |head| match &head.value {
                Value::Known(value) => value.as_deref(),
                Value::NotRead => None,
            });
        }
        if kind != 1 {
            let leases: Vec<String> =
                heads.iter().map(|head| lease(head)).collect::<Result<_, _>>()?;
            column(&mut step, &heads, |head| head.epoch.cast_signed());
            column(&mut step, &heads, |head| head.created_ms);
            column(&mut step, &heads, |head| &head.users[..]);
            column(&mut step, &heads, |head| head.lease_revision.cast_signed());
            column(&mut step, &heads, |head| head.inbox_revision.cast_signed());
            column(&mut step, &heads, |head| head.last_message.cast_signed());
            column(&mut step, &heads, |head| head.waiting.cast_signed());
            column(&mut step, &heads, |head| head.lease.is_held());
            column(&mut step, &heads, |head| head.holder_id().map(|id| id.0));
            step.push(leases);
        }
        steps.push((Part::Writ, step));
    }
    Ok(())
}

fn column<'a, T: ToSql + Sync + Send + 'a>(
    step: &mut Step<'a>,
    heads: &[&'a Head],
    value: impl Fn(&&'a Head) -> T,
) {
    step.push(heads.iter().map(value).collect::<Vec<T>>());
}

fn lease(head: &Head) -> Result<String, StoreError> {
    serde_json::to_string(&head.lease).map_err(|err| StoreError::Invalid {
        reason: format!("the lease cannot be stored: {err}: key=`{}`", head.key),
    })
}

fn push_links<'a>(batch: &'a Batch, steps: &mut Vec<(Part, Step<'a>)>) -> Result<(), StoreError> {
    let links = &batch.writes.links;
    if links.is_empty() {
        return Ok(());
    }
    let text = |(key, links): &(ProfileKey, VersionLinks)| {
        serde_json::to_string(&links.links).map_err(|err| StoreError::Invalid {
            reason: format!("links cannot be stored: {err}: key=`{key}`"),
        })
    };
    let numbers: Vec<i64> = links.iter().map(|(_, links)| links.version.cast_signed()).collect();
    let texts: Vec<String> = links.iter().map(text).collect::<Result<_, _>>()?;
    let step = Step::keys(INSERT_LINKS, links.iter().map(|(key, _)| key))
        .with(numbers)
        .with(texts)
        .with(batch.now_ms);
    steps.push((Part::Writ, step));
    Ok(())
}

fn push_messages<'a>(batch: &'a Batch, steps: &mut Vec<(Part, Step<'a>)>) {
    type Edit<'a> = (&'a ProfileKey, i64, &'a MessageEdit);
    let (writes, now_ms) = (&batch.writes, batch.now_ms);
    let edits =
        || writes.edits.iter().map(|((key, number), edit)| (key, number.cast_signed(), edit));
    let some = |sql, edits: &[Edit<'a>]| {
        let numbers: Vec<i64> = edits.iter().map(|(_, number, _)| *number).collect();
        Step::keys(sql, edits.iter().map(|(key, ..)| *key)).with(numbers)
    };
    let receipts: Vec<Edit<'a>> = edits().filter(|(.., edit)| edit.receipt).collect();
    if !receipts.is_empty() {
        steps.push((Part::Writ, some(RECEIPTS, &receipts).with(now_ms)));
    }
    let (removed, edited): (Vec<_>, Vec<_>) = edits().partition(|(.., edit)| edit.removed);
    if !removed.is_empty() {
        steps.push((Part::Writ, some(REMOVE_MESSAGES, &removed)));
    }
    if !edited.is_empty() {
        let payloads: Vec<Option<&[u8]>> =
            edited.iter().map(|(.., edit)| edit.payload.as_deref()).collect();
        let revisions: Vec<i64> = edited.iter().map(|(.., edit)| edit.revisions).collect();
        let locks: Vec<Option<bool>> = edited.iter().map(|(.., edit)| edit.lock).collect();
        let step = some(EDIT_MESSAGES, &edited).with(payloads).with(revisions).with(locks);
        steps.push((Part::Writ, step));
    }
    if !writes.messages.is_empty() {
        let all = || writes.messages.iter().map(|(_, message)| message);
        let uuid = |digest: Digest| Uuid::from_bytes(digest.0);
        let step = Step::keys(INSERT_MESSAGES, writes.messages.iter().map(|(key, _)| key))
            .with(all().map(|message| message.index.cast_signed()).collect::<Vec<i64>>())
            .with(all().map(|message| uuid(message.id.digest())).collect::<Vec<Uuid>>())
            .with(
                all().map(|message| uuid(content_digest(&message.payload))).collect::<Vec<Uuid>>(),
            )
            .with(all().map(|message| message.id.created_ms()).collect::<Vec<i64>>())
            .with(all().map(|message| message.sent_ms).collect::<Vec<i64>>())
            .with(all().map(|message| message.revision.cast_signed()).collect::<Vec<i64>>())
            .with(all().map(|message| message.locked).collect::<Vec<bool>>())
            .with(all().map(|message| message.id.name()).collect::<Vec<&str>>())
            .with(all().map(|message| &message.payload[..]).collect::<Vec<&[u8]>>());
        steps.push((Part::Writ, step));
    }
    if !writes.erased.is_empty() {
        steps.push((Part::Writ, Step::keys(ERASE_VERSIONS, writes.erased.iter())));
        steps.push((Part::Writ, Step::keys(ERASE_LINKS, writes.erased.iter())));
        steps.push((Part::Writ, Step::keys(ERASE_RECEIPTS, writes.erased.iter()).with(now_ms)));
        steps.push((Part::Writ, Step::keys(ERASE_MESSAGES, writes.erased.iter())));
    }
}

fn push_servers<'a>(batch: &'a Batch, steps: &mut Vec<(Part, Step<'a>)>) {
    let (writes, now_ms) = (&batch.writes, batch.now_ms);
    let rows: Vec<_> = writes.registered.iter().filter_map(|id| batch.servers.get(id)).collect();
    if !rows.is_empty() {
        let step = Step::new(INSERT_SERVERS)
            .with(rows.iter().map(|row| row.id.0).collect::<Vec<Uuid>>())
            .with(rows.iter().map(|row| row.place_id).collect::<Vec<i64>>())
            .with(rows.iter().map(|row| row.job_id.as_str()).collect::<Vec<&str>>())
            .with(rows.iter().map(|row| row.revision.cast_signed()).collect::<Vec<i64>>())
            .with(rows.iter().map(|row| row.lease_ms).collect::<Vec<i64>>())
            .with(rows.iter().map(|row| row.started_ms).collect::<Vec<i64>>())
            .with(rows.iter().map(|row| row.renewed_ms).collect::<Vec<i64>>())
            .with(rows.iter().map(|row| row.dead.then_some(now_ms)).collect::<Vec<Option<i64>>>())
            .with(rows.iter().map(|row| row.host.map(|host| host.0)).collect::<Vec<Option<Uuid>>>())
            .with(rows.iter().map(|row| row.generation.cast_signed()).collect::<Vec<i64>>())
            .with(rows.iter().map(|row| row.owner.as_deref()).collect::<Vec<Option<&str>>>());
        steps.push((Part::Writ, step));
    }
    let rows: Vec<_> = writes.rehosted.iter().filter_map(|id| batch.servers.get(id)).collect();
    if !rows.is_empty() {
        let step = Step::new(REHOST_SERVERS)
            .with(rows.iter().map(|row| row.id.0).collect::<Vec<Uuid>>())
            .with(rows.iter().map(|row| row.revision.cast_signed()).collect::<Vec<i64>>())
            .with(rows.iter().map(|row| row.renewed_ms).collect::<Vec<i64>>())
            .with(rows.iter().map(|row| row.host.map(|host| host.0)).collect::<Vec<Option<Uuid>>>())
            .with(rows.iter().map(|row| row.generation.cast_signed()).collect::<Vec<i64>>());
        steps.push((Part::Writ, step));
    }
    let rows: Vec<_> = writes
        .renewed
        .iter()
        .filter_map(|(id, commit)| Some((batch.servers.get(id)?, commit)))
        .collect();
    if !rows.is_empty() {
        let step = Step::new(RENEW_SERVERS)
            .with(rows.iter().map(|(row, _)| row.id.0).collect::<Vec<Uuid>>())
            .with(rows.iter().map(|(row, _)| row.revision.cast_signed()).collect::<Vec<i64>>())
            .with(rows.iter().map(|(row, _)| row.renewed_ms).collect::<Vec<i64>>())
            .with(rows.iter().map(|(_, commit)| commit.0).collect::<Vec<Uuid>>());
        steps.push((Part::Writ, step));
    }
    if !writes.died.is_empty() {
        let ids: Vec<Uuid> = writes.died.iter().map(|id| id.0).collect();
        steps.push((Part::Writ, Step::new(BURY_SERVERS).with(ids).with(now_ms)));
    }
    if !writes.acknowledged.is_empty() {
        let step = Step::keys(FORGET_NOTICES, writes.acknowledged.iter().map(|(_, key, _)| key))
            .with(writes.acknowledged.iter().map(|(server, ..)| server.0).collect::<Vec<Uuid>>())
            .with(writes.acknowledged.iter().map(|(.., commit)| commit.0).collect::<Vec<Uuid>>());
        steps.push((Part::Writ, step));
    }
}
