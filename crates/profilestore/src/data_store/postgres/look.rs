//! A look at one key in one round trip: the read before a session begins, and the check of a holder
//! that has heard of something.
//!
//! Two statements are sent together. One reads the row with its holder's server, and sees one moment
//! by itself; the time and the store's incarnation may be of the moment before. So no transaction is
//! needed around them. Messages are not read: where some wait that are to be shown, the key is read
//! as many keys are.

use uuid::Uuid;

use super::{
    Inner,
    batch::{Batch, Shown},
    connect::Step,
    load::{FACTS, HEADS},
    queue::Reply,
    reader::{Question, nothing},
    schema,
    state::{HEAD_COLUMNS, Head, get},
};
use crate::{
    data_store::{Change, Commit, CommitId, Incarnation, Returning, Snapshot, StoreError},
    key::ProfileKey,
};

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
        let ids: Vec<Uuid> = commit.iter().map(|id| id.0).collect();
        let row = Step::keys(HEADS, std::iter::once(key)).with(vec![returning.value]);
        let steps = [Step::new(FACTS).with(ids), row];
        let rows = self.ask(Question::Steps { steps: &steps, snapshot: false }).await?;
        let [facts, rows] = &rows[..] else { return Err(nothing()) };
        let facts = facts.first().ok_or_else(nothing)?;
        let now_ms = self.test_time().map_or_else(|| get(facts, 0), Ok)?;
        let incarnation = schema::incarnation(get(facts, 1)?)?;
        let is_settled = get::<Option<Uuid>>(facts, 2)?.is_some();
        let head = match rows.first() {
            Some(row) => Head::of_row(key.clone(), row, 0),
            None => Ok(Head::absent(key.clone())),
        };
        match &head {
            Ok(head) => self.remembered.note(head),
            Err(_) => self.remembered.forget(key),
        }
        let head = head.and_then(|mut head| {
            if let Some(row) = rows.first().filter(|_| returning.value) {
                head.read_value(row, HEAD_COLUMNS + 1)?;
            }
            Ok(head)
        });
        Ok(Seen { now_ms, incarnation, head, is_settled })
    }
}
