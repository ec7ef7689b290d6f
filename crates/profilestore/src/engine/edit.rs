//! Editing one profile from outside: applying the edit where it has no holder, sending it to the
//! holder otherwise, and waiting for the outcome.

use std::{sync::Arc, time::Duration};

use super::{Engine, rewrite::Plan};
use crate::{
    audit::{AuditEntry, AuditOutcome},
    data_store::{KeyState, Returning},
    edit::request::{EditRequest, Next, entry_key_of},
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    link::deadline::Deadline,
    ownership::{self, Blocker},
};

/// How soon an outcome is looked for first, and how often at most later.
const FIRST_LOOK: Duration = Duration::from_millis(2);
const LAST_LOOK: Duration = Duration::from_millis(250);

/// How often the profile itself is looked at again: its holder may have let go or died.
const JUDGE_AGAIN: Duration = Duration::from_secs(1);

/// How many messages may wait for a profile beyond the usual limit, for an operator to get through.
const CAP: u32 = u32::MAX;

impl Engine {
    /// Edits a profile; the answer comes when the outcome is durable, or `patience` has passed.
    pub(crate) fn edit(
        self: &Arc<Self>,
        key: &ProfileKey,
        request: Arc<EditRequest>,
        patience: Duration,
    ) -> impl Future<Output = Result<AuditEntry>> + Send + 'static + use<> {
        let engine = self.clone();
        let key = key.clone();
        let deadline = Deadline::own(self.link.env.now(), self.link.env.after(patience));
        let step = self.link.deadline().min(deadline);
        let first = step.sync_scope(|| self.edit_step(&key, request.clone()));
        async move {
            let mut settled = first.await?;
            let mut look_in = FIRST_LOOK;
            let mut judged = engine.link.env.now();
            loop {
                if let Some(entry) = settled {
                    return Ok(entry);
                }
                let next_look = deadline.at().min(engine.link.env.after(look_in));
                engine.link.env.sleep_until(next_look).await;
                // A look would have no time left.
                if engine.link.env.now() >= deadline.at() {
                    return Err(still_waits(&key, &request));
                }
                look_in = (look_in * 2).min(LAST_LOOK);
                let step = engine.link.deadline().min(deadline);
                let looked = if engine.link.env.now() >= judged + JUDGE_AGAIN {
                    judged = engine.link.env.now();
                    step.sync_scope(|| engine.edit_step(&key, request.clone())).await
                } else {
                    let outcomes =
                        step.scope(engine.outcomes(&[entry_key_of(request.operation, &key)])).await;
                    outcomes.map(|mut outcomes| outcomes.remove(0))
                };
                settled = match looked {
                    // It was sent, though its outcome cannot be seen now.
                    Err(error) if !says_what_became(error.kind()) => {
                        return Err(still_waits(&key, &request).caused_by(error));
                    }
                    looked => looked?,
                };
            }
        }
    }

    /// One step towards the outcome, in the key's queue. None: the edit waits for the profile's
    /// holder.
    fn edit_step(
        self: &Arc<Self>,
        key: &ProfileKey,
        request: Arc<EditRequest>,
    ) -> impl Future<Output = Result<Option<AuditEntry>>> + Send + 'static + use<> {
        let (engine, key_) = (self.clone(), key.clone());
        self.link.call(key, async move { engine.edit_now(&key_, &request).await })
    }

    pub(crate) async fn edit_now(
        &self,
        key: &ProfileKey,
        request: &EditRequest,
    ) -> Result<Option<AuditEntry>> {
        let keys = [key.clone(), entry_key_of(request.operation, key)];
        let plan = |_| async {
            let snapshot = self.link.read_all(&keys, Returning::ALL).await?;
            let [state, book] = &snapshot.states[..] else {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    "the store gave no answer for the keys",
                ));
            };
            Ok(match self.next_of(request, state, book, snapshot.now_ms)? {
                Next::Settled(entry) | Next::PassedOver(entry) => Plan::Done(Some(entry)),
                Next::Waits => {
                    // The holder may have missed what tells of it.
                    self.table.look(key);
                    Plan::Done(None)
                }
                Next::Settle(changes, entry) => Plan::Commit(changes, Returning::HEAD, Some(entry)),
                Next::Send(changes) => Plan::Commit(changes, Returning::HEAD, None),
            })
        };
        let (entry, reply) = self.rewrite(key, plan).await?;
        Ok(match reply {
            Some(reply) => entry.map(|entry| AuditEntry { stored_ms: reply.now_ms, ..entry }),
            None => entry,
        })
    }

    pub(super) fn next_of(
        &self,
        request: &EditRequest,
        state: &KeyState,
        book: &KeyState,
        now_ms: i64,
    ) -> Result<Next> {
        request.next(state, book, self.blocker(state, now_ms), CAP)
    }

    pub(super) fn blocker(&self, state: &KeyState, now_ms: i64) -> Blocker {
        ownership::blocker(
            state,
            self.link.server(),
            now_ms,
            self.link.contact(),
            &self.link.periods(),
        )
    }

    /// What was booked under some keys, as far as it is final.
    pub(super) async fn outcomes(&self, books: &[ProfileKey]) -> Result<Vec<Option<AuditEntry>>> {
        let snapshot =
            self.link.read_all(books, Returning { value: true, inbox_unless: None }).await?;
        let last =
            |entry: AuditEntry| Some(entry).filter(|entry| entry.outcome != AuditOutcome::Pending);
        let outcomes = snapshot
            .states
            .iter()
            .map(|state| Ok(AuditEntry::of(state)?.and_then(last)))
            .collect::<Result<Vec<_>>>()?;
        if outcomes.len() == books.len() {
            Ok(outcomes)
        } else {
            Err(Error::new(ErrorKind::Corrupt, "the store gave no answer for a key"))
        }
    }
}

/// True when an error about an edit that was sent says that it takes no effect.
fn says_what_became(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotFound | ErrorKind::Foreign | ErrorKind::Corrupt | ErrorKind::Damaged
    )
}

fn still_waits(key: &ProfileKey, request: &EditRequest) -> Error {
    let message = format!(
        "the edit waits for the profile's holder, which has not answered yet; it will take effect once, and repeating it under its \
         identity tells what became of it: operation=`{}`",
        request.operation
    );
    Error::new(ErrorKind::Unknown, message).about(key)
}
