//! What runs in a key's queue: writing what the caller makes of what is there, and removing.

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

use super::{
    Code, DataStoreError, Entry, NewEntry,
    entry::{current, key_info, of},
    plan::{Plan, Write},
};
use crate::{
    data_store::{KeyState, Returning, VersionRef},
    engine::{Engine, calls::after, rewrite::Plan as Rewrite},
    key::ProfileKey,
    record::Stored,
};

/// Where what is to be written comes from.
pub(super) enum Source {
    /// It is given.
    Fixed(NewEntry),
    /// The caller makes it of what is there.
    Ask(mpsc::Sender<Turn>),
    /// It is the sum.
    Add { delta: i64, user_ids: Vec<i64>, metadata: Map<String, Value> },
}

/// A question to the caller that makes the new value of the current one.
pub(super) struct Turn {
    pub(super) current: Option<Entry>,
    /// None: nothing is to be written.
    pub(super) answer: oneshot::Sender<Option<NewEntry>>,
}

impl Source {
    /// What can be refused before anything is read.
    pub(super) fn check(&self) -> Result<(), DataStoreError> {
        match self {
            Self::Fixed(new) => new.check(),
            Self::Ask(_) | Self::Add { .. } => Ok(()),
        }
    }

    /// How many bytes of the caller's it has with it while it waits.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Fixed(new) => new.value.get().len(),
            Self::Ask(_) | Self::Add { .. } => 0,
        }
    }

    /// What is to be written over this. None: nothing.
    async fn next(
        &self,
        engine: &Engine,
        now: Option<Entry>,
    ) -> Result<Option<NewEntry>, DataStoreError> {
        match self {
            Self::Fixed(new) => Ok(Some(new.clone())),
            Self::Ask(ask) => {
                let (answer, answered) = oneshot::channel();
                if ask.send(Turn { current: now, answer }).await.is_err() {
                    return Ok(None);
                }
                // The key's other operations wait for this one, and must not time out for it.
                match tokio::time::timeout(engine.link.settings().call_timeout / 2, answered).await
                {
                    Ok(Ok(Some(new))) => new.check().map(|()| Some(new)),
                    // Called off, or its caller has gone.
                    Ok(_) => Ok(None),
                    Err(_) => Err(DataStoreError::new(
                        Code::BadResponse,
                        "the transform did not answer in time; nothing was done",
                    )),
                }
            }
            Self::Add { delta, user_ids, metadata } => {
                let before = now.map_or(Some(0), |entry| whole(&entry));
                let rejected = |why| DataStoreError::new(Code::RequestRejected, why);
                let before = before.ok_or_else(|| {
                    rejected("the key holds something that is not a whole number")
                })?;
                let sum = before
                    .checked_add(*delta)
                    .ok_or_else(|| rejected("the sum is beyond 64 bits"))?;
                let new =
                    NewEntry::json(&sum)?.user_ids(user_ids.clone()).metadata(metadata.clone());
                new.check()?;
                Ok(Some(new))
            }
        }
    }
}

fn whole(entry: &Entry) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let number: serde_json::Number = serde_json::from_str(entry.value.get()).ok()?;
    number.as_i64().or_else(|| {
        let float = number.as_f64()?;
        #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
        (float.fract() == 0.0 && float.abs() <= EXACT).then_some(float as i64)
    })
}

/// Writes what the source makes of what the key holds, anew when another writer was faster. None:
/// it wants nothing written.
pub(super) async fn write_now(
    engine: &Arc<Engine>,
    key: &ProfileKey,
    source: Source,
) -> Result<Option<Entry>, DataStoreError> {
    let plan = |_| async {
        Ok(plan_write(engine, key, &source).await.unwrap_or_else(|error| Rewrite::Done(Err(error))))
    };
    let (planned, reply) = engine.rewrite(key, plan).await?;
    let Some((stored, version, new)) = planned? else { return Ok(None) };
    Ok(Some(written(engine, after(reply, key)?, stored, version, new).await?))
}

/// What a write stores, under which version, and what was written.
type Planned = Option<(Stored, u64, NewEntry)>;

async fn plan_write(
    engine: &Engine,
    key: &ProfileKey,
    source: &Source,
) -> Result<Rewrite<Result<Planned, DataStoreError>>, DataStoreError> {
    let (now_ms, state) = match source {
        // What cannot be read can be written over.
        Source::Fixed(_) => engine.link.read_even_damaged(key).await?,
        _ => engine.link.read_settled(key, Returning::ALL).await?,
    };
    let shown = match source {
        Source::Fixed(_) => None,
        _ => current(state.clone())?,
    };
    let Some(new) = source.next(engine, shown).await? else { return Ok(Rewrite::Done(Ok(None))) };
    let write = Write {
        state: &state,
        now_ms,
        entry: &new,
        author: &engine.link.job_id,
        token: engine.link.env.uuid(),
        every_save: engine.link.settings().keep_every_save,
    };
    let Plan { changes, stored, version } = write.plan()?;
    Ok(Rewrite::Commit(changes, Returning::INBOX, Ok(Some((stored, version, new)))))
}

/// What the key holds after a write. Others may have written since, when the answer of the commit
/// was lost first.
async fn written(
    engine: &Engine,
    mut after: KeyState,
    stored: Stored,
    version: u64,
    new: NewEntry,
) -> Result<Entry, DataStoreError> {
    let nothing =
        || DataStoreError::new(Code::BadResponse, "the store's reply says nothing about the key");
    after.hide_edits();
    if after.version == version {
        return of(&stored, &after).ok_or_else(nothing);
    }
    let number = VersionRef::Number(version);
    let found = engine
        .link
        .reading(Some(&after.key), || engine.link.store.version(&after.key, &number))
        .await?;
    let info = found.map(|found| found.info).or(after.head).ok_or_else(nothing)?;
    Ok(Entry { value: new.value.into(), info: key_info(&info, after.created_ms, Some(&stored)) })
}

/// Removes a key. Answers with what was there.
pub(super) async fn remove_now(
    engine: &Arc<Engine>,
    key: &ProfileKey,
) -> Result<Option<Entry>, DataStoreError> {
    let plan = |_| async {
        let (_, state) = engine.link.read_even_damaged(key).await?;
        let Some(removal) = engine.removal(&state, &engine.link.job_id).await? else {
            return Ok(Rewrite::Done(None));
        };
        // What cannot be read can be removed.
        let was = current(state.clone()).unwrap_or_else(|error| {
            tracing::warn!(%key, %error, "what is removed cannot be read");
            None
        });
        Ok(removal.plan(&state, was))
    };
    Ok(engine.rewrite(key, plan).await?.0)
}
