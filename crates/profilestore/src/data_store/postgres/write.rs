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
    statements as sql,
};
use crate::{
    data_store::{
        Commit, CommitId, Digest, MessageId, Notice, ServerId, StoreError, StoredMessage,
        VersionLinks,
        checksum::{Covered, checksum},
        content::content_digest,
        rules::{self, Outcome},
    },
    key::ProfileKey,
};

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
            steps.push((Part::Inboxes, Step::keys(sql::INBOXES, self.inboxes.iter())));
        }
        if !self.values.is_empty() {
            steps.push((Part::Values, Step::keys(sql::VALUES, self.values.iter())));
        }
        if !self.renewed.is_empty() {
            steps.push((Part::Notices, Step::new(sql::NOTICES).with(&self.renewed)));
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

/// A row of [`sql::INBOXES`].
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
        let step = Step::keys(sql::KEEP_VERSIONS, writes.history.iter().map(|(key, _)| key))
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
            Step::keys(sql::PIN_VERSIONS, writes.pins.iter().map(|(key, ..)| key))
                .with(numbers)
                .with(pinned),
        ));
    }
    for (sql, users) in
        [(sql::FORGET_USERS, &writes.users_gone), (sql::ADD_USERS, &writes.users_new)]
    {
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
        let step = Step::new(sql::INSERT_OUTCOMES).with(ids).with(aborted).with(fingerprints);
        steps.push((Part::Writ, step.with(now_ms)));
    }
    if !writes.notices.is_empty() {
        let servers: Vec<Uuid> = writes.notices.keys().map(|(server, _)| server.0).collect();
        let commits: Vec<Uuid> = writes.notices.values().map(|commit| commit.0).collect();
        let step = Step::keys(sql::LEAVE_NOTICES, writes.notices.keys().map(|(_, key)| key))
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
        let sql = [sql::UPDATE_REST, sql::UPDATE_DATA, sql::UPDATE_ALL, sql::INSERT_HEADS]
            [usize::from(kind)];
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
                Value::Known(value) => info(head).map(|info| {
                    let covered = Covered::of(&head.key, info);
                    checksum(&covered, value.as_deref()).cast_signed()
                }),
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
        column(&mut step, &heads, |head| head.last_save.map(|id| id.0));
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

/// The text of a key's lease.
pub(super) fn lease(head: &Head) -> Result<String, StoreError> {
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
    let step = Step::keys(sql::INSERT_LINKS, links.iter().map(|(key, _)| key))
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
        steps.push((Part::Writ, some(sql::RECEIPTS, &receipts).with(now_ms)));
    }
    let (removed, edited): (Vec<_>, Vec<_>) = edits().partition(|(.., edit)| edit.removed);
    if !removed.is_empty() {
        steps.push((Part::Writ, some(sql::REMOVE_MESSAGES, &removed)));
    }
    if !edited.is_empty() {
        let payloads: Vec<Option<&[u8]>> =
            edited.iter().map(|(.., edit)| edit.payload.as_deref()).collect();
        let revisions: Vec<i64> = edited.iter().map(|(.., edit)| edit.revisions).collect();
        let locks: Vec<Option<bool>> = edited.iter().map(|(.., edit)| edit.lock).collect();
        let step = some(sql::EDIT_MESSAGES, &edited).with(payloads).with(revisions).with(locks);
        steps.push((Part::Writ, step));
    }
    if !writes.messages.is_empty() {
        let all = || writes.messages.iter().map(|(_, message)| message);
        let uuid = |digest: Digest| Uuid::from_bytes(digest.0);
        let step = Step::keys(sql::INSERT_MESSAGES, writes.messages.iter().map(|(key, _)| key))
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
        steps.push((Part::Writ, Step::keys(sql::ERASE_VERSIONS, writes.erased.iter())));
        steps.push((Part::Writ, Step::keys(sql::ERASE_LINKS, writes.erased.iter())));
        steps
            .push((Part::Writ, Step::keys(sql::ERASE_RECEIPTS, writes.erased.iter()).with(now_ms)));
        steps.push((Part::Writ, Step::keys(sql::ERASE_MESSAGES, writes.erased.iter())));
    }
}

fn push_servers<'a>(batch: &'a Batch, steps: &mut Vec<(Part, Step<'a>)>) {
    let (writes, now_ms) = (&batch.writes, batch.now_ms);
    let rows: Vec<_> = writes.registered.iter().filter_map(|id| batch.servers.get(id)).collect();
    if !rows.is_empty() {
        let step = Step::new(sql::INSERT_SERVERS)
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
        let step = Step::new(sql::REHOST_SERVERS)
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
        let step = Step::new(sql::RENEW_SERVERS)
            .with(rows.iter().map(|(row, _)| row.id.0).collect::<Vec<Uuid>>())
            .with(rows.iter().map(|(row, _)| row.revision.cast_signed()).collect::<Vec<i64>>())
            .with(rows.iter().map(|(row, _)| row.renewed_ms).collect::<Vec<i64>>())
            .with(rows.iter().map(|(_, commit)| commit.0).collect::<Vec<Uuid>>());
        steps.push((Part::Writ, step));
    }
    if !writes.died.is_empty() {
        let ids: Vec<Uuid> = writes.died.iter().map(|id| id.0).collect();
        steps.push((Part::Writ, Step::new(sql::BURY_SERVERS).with(ids).with(now_ms)));
    }
    if !writes.acknowledged.is_empty() {
        let step =
            Step::keys(sql::FORGET_NOTICES, writes.acknowledged.iter().map(|(_, key, _)| key))
                .with(
                    writes.acknowledged.iter().map(|(server, ..)| server.0).collect::<Vec<Uuid>>(),
                )
                .with(
                    writes.acknowledged.iter().map(|(.., commit)| commit.0).collect::<Vec<Uuid>>(),
                );
        steps.push((Part::Writ, step));
    }
}
