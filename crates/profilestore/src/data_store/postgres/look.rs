//! A look at one key in one round trip: the read before a session begins, and the check of a holder
//! that has heard of something.
//!
//! One statement reads the row, its holder's server, the time and the store's incarnation. It sees
//! one moment, so it needs no transaction around it. Messages are not in it: where some wait that
//! are to be shown, the key is read as many keys are.

use super::{
    Inner,
    batch::{Batch, Shown},
    connect::Step,
    queue::Reply,
    reader::{Question, nothing},
    schema,
    state::{HEAD_COLUMNS, Head, get, head_columns, own_columns, server_columns},
};
use crate::{
    data_store::{Change, Commit, CommitId, Incarnation, Returning, Snapshot, StoreError},
    key::ProfileKey,
};

pub(super) const LOOK: &str = concat!(
    "SELECT ",
    head_columns!(),
    ", CASE WHEN $4::bool THEN h.checksum END, CASE WHEN $4::bool THEN h.value END, \
     floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint, \
     (SELECT m.value FROM meta m WHERE m.name = 'incarnation'), (SELECT o.id FROM settled o WHERE o.id = $5::uuid) \
     FROM (SELECT 1) one LEFT JOIN head h ON h.store = $1 AND h.scope = $2 AND h.key = $3 \
     LEFT JOIN server s ON s.id = ANY(ARRAY[h.holder])"
);

/// What a look found.
struct Seen {
    now_ms: i64,
    incarnation: Incarnation,
    /// With its holder's server, and its value if that was asked for.
    head: Result<Head, StoreError>,
    /// The commit that was asked about is known.
    is_settled: bool,
}

impl Inner {
    /// What one key holds. None: messages wait that are to be shown.
    pub(super) async fn read_alone(
        &self,
        key: &ProfileKey,
        returning: Returning,
    ) -> Result<Option<Snapshot>, StoreError> {
        let seen = self.look(key, returning, None).await?;
        let mut head = seen.head?;
        if head.shows_inbox(returning) {
            return Ok(None);
        }
        let holder = head.holder.take();
        let states = vec![head.state(returning, holder, Vec::new())];
        Ok(Some(Snapshot { now_ms: seen.now_ms, states }))
    }

    /// Answers a commit that checks one key and does nothing else. None: it is another one,
    /// messages wait that are to be shown, or its id is known.
    pub(super) async fn check_alone(&self, commit: &Commit) -> Option<Reply> {
        let [Change::Check { key, .. }] = &commit.changes[..] else { return None };
        let seen = match self.look(key, commit.returning, Some(commit.id)).await {
            Ok(seen) => seen,
            Err(err) => return Some(Err(err)),
        };
        let shows_inbox = |head: &Head| head.shows_inbox(commit.returning);
        if seen.is_settled || seen.head.as_ref().is_ok_and(shows_inbox) {
            return None;
        }
        let mut batch = Batch::new(seen.now_ms, seen.incarnation);
        batch.heads.insert(key.clone(), seen.head);
        let verdict = batch.commit(commit);
        Some(batch.answer(commit, verdict, &Shown::default()))
    }

    async fn look(
        &self,
        key: &ProfileKey,
        returning: Returning,
        commit: Option<CommitId>,
    ) -> Result<Seen, StoreError> {
        let step = Step::new(LOOK)
            .with(key.store())
            .with(key.scope())
            .with(key.key())
            .with(returning.value)
            .with(commit.map(|id| id.0));
        let rows = self.ask(Question::Steps { steps: &[step], snapshot: false }).await?;
        let row = rows.first().and_then(|rows| rows.first()).ok_or_else(nothing)?;
        let now_ms = self.test_time().map_or_else(|| get(row, HEAD_COLUMNS + 2), Ok)?;
        self.lone.note_time(self.pool.dialer.options.env.now(), now_ms);
        let head = if get::<Option<i64>>(row, 0)?.is_none() {
            Ok(Head::absent(key.clone()))
        } else {
            Head::of_row(key.clone(), row, 0)
        };
        if let Ok(head) = &head {
            self.remembered.note(head);
        }
        let head = head.and_then(|mut head| {
            if returning.value && head.exists {
                head.read_value(row, HEAD_COLUMNS)?;
            }
            Ok(head)
        });
        let incarnation = schema::incarnation(get(row, HEAD_COLUMNS + 3)?)?;
        let is_settled = get::<Option<uuid::Uuid>>(row, HEAD_COLUMNS + 4)?.is_some();
        Ok(Seen { now_ms, incarnation, head, is_settled })
    }
}
