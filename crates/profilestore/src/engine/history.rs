//! Calls about a profile's earlier versions. Each runs in the key's queue, as the calls in
//! [`super::calls`] do.

use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use super::{
    Engine,
    calls::{Overwrite, after},
    conditional::Expected,
    rewrite::{Plan, stays_in},
};
use crate::{
    audit::{Attribution, AuditEntry},
    data_store::{
        Cause, Change, Incarnation, KeyState, NewValue, Order, Returning, StoredVersion,
        VersionInfo, VersionQuery, VersionRef,
    },
    edit::request::entry_key_of,
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    record::{
        Stored,
        version::{NotUndone, find_version, not_undone, version_at},
    },
};

/// A version that was made current again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Restored {
    /// The number of the version that was restored.
    pub restored: u64,
    /// The number of the version that was current until then. It stays in the history.
    pub replaced: u64,
    /// The number of the new version.
    pub version: u64,
    /// What to expect next time. None when this call did nothing, since it had been done before.
    #[serde(skip)]
    pub now: Option<Expected>,
    /// The job whose session was ended.
    pub held_by: Option<String>,
    /// What the profile's commits since the restored version did to others, which stays done.
    pub not_undone: NotUndone,
}

/// Which version is to be made current again, and on what condition.
pub(crate) struct Restoration {
    pub(crate) which: Which,
    /// What the profile is expected to be. None: whatever it is.
    pub(crate) expected: Option<Expected>,
    /// An identity of the caller's choice.
    pub(crate) identity: Option<Uuid>,
    pub(crate) by: Attribution,
}

/// Which version a call is about.
#[derive(Debug, Clone)]
pub(crate) enum Which {
    Named(VersionRef),
    /// The one that was current at this time, Unix milliseconds.
    At(i64),
}

impl Engine {
    /// A page of versions, and when the key was created.
    pub(crate) fn versions(
        self: &Arc<Self>,
        query: VersionQuery,
    ) -> impl Future<Output = Result<(i64, Vec<VersionInfo>)>> + Send + 'static + use<> {
        let (engine, key) = (self.clone(), query.key.clone());
        self.link.look_up(&key, async move {
            let (_, state) = engine.link.read_settled(&query.key, Returning::HEAD).await?;
            let page = engine
                .link
                .reading(Some(&query.key), || engine.link.store.versions(&query))
                .await?;
            Ok((state.created_ms, page))
        })
    }

    pub(crate) fn get_version(
        self: &Arc<Self>,
        key: &ProfileKey,
        which: Which,
    ) -> impl Future<Output = Result<(KeyState, Option<StoredVersion>)>> + Send + 'static + use<>
    {
        let (engine, key_) = (self.clone(), key.clone());
        self.link.look_up(key, async move {
            let (_, state) = engine.link.read_settled(&key_, Returning::INBOX).await?;
            let found = engine.find(&state, &which).await?;
            Ok((state, found))
        })
    }

    /// Makes an earlier version current again and ends the session that holds the profile, if there
    /// is one. Under an identity of the caller's choice it is done once.
    pub(crate) fn restore(
        self: &Arc<Self>,
        key: &ProfileKey,
        wanted: Restoration,
    ) -> impl Future<Output = Result<Restored>> + Send + 'static + use<> {
        let (engine, key_) = (self.clone(), key.clone());
        self.link.call(key, async move {
            let operation = wanted.identity.unwrap_or_else(|| engine.link.env.uuid());
            // A backup has other versions under the same numbers.
            let began = engine.link.incarnation();
            let plan = |incarnation| {
                let (engine, key, wanted) = (&engine, &key_, &wanted);
                async move {
                    stays_in(began, incarnation)?;
                    // Before the condition: what this call did has made it untrue.
                    if wanted.identity.is_some()
                        && let Some(done) =
                            engine.restored_before(key, &wanted.which, operation).await?
                    {
                        return Ok(Plan::Done((incarnation, done)));
                    }
                    engine.plan_restore(key, wanted, operation, incarnation).await
                }
            };
            let planned = engine.rewrite(&key_, plan).await;
            let ((incarnation, restored), reply) = planned.map_err(|error| error.about(&key_))?;
            match reply {
                // It was done before.
                None => Ok(restored),
                reply => {
                    let state = after(reply, &key_)?;
                    let now = Some(Expected::version_of(incarnation, &state));
                    Ok(Restored { version: state.version, now, ..restored })
                }
            }
        })
    }

    async fn plan_restore(
        &self,
        key: &ProfileKey,
        wanted: &Restoration,
        operation: Uuid,
        incarnation: Incarnation,
    ) -> Result<Plan<(Incarnation, Restored)>> {
        let (_, state) = self.link.read_settled(key, Returning::HEAD).await?;
        if let Some(expected) = wanted.expected {
            expected.check(incarnation, &state)?;
        }
        // Each time anew: it may have been erased.
        let found = self.find(&state, &wanted.which).await?.ok_or_else(no_such_version)?;
        let bytes = found.value.ok_or_else(|| {
            let message = "the version is a removal, which cannot be restored; remove the profile \
                instead";
            Error::new(ErrorKind::Invalid, message)
        })?;
        let restored = found.info.number;
        let not_undone = self.not_undone_since(key, restored).await?;
        let entry = AuditEntry::new(operation, "rollback", vec![key.clone()], wanted.by.clone())
            .detail("restored", restored)
            .detail("replaced", state.version);
        let overwrite = Overwrite {
            user_ids: Stored::decode(&bytes)?.indexed_users(),
            value: NewValue::Bytes(bytes),
            cause: Cause::Restore,
            author: wanted.by.author.clone(),
            more: vec![entry.change()?],
        };
        // Its new version, and what to expect then, come with the reply.
        let restored = Restored {
            restored,
            replaced: state.version,
            version: 0,
            now: None,
            held_by: state.lease.holder.as_ref().map(|holder| holder.job_id.clone()),
            not_undone,
        };
        Ok(overwrite.plan(&state, (incarnation, restored)))
    }

    /// What a rollback did that was booked under this identity. Fails when it was to another
    /// version, or another operation.
    async fn restored_before(
        &self,
        key: &ProfileKey,
        which: &Which,
        operation: Uuid,
    ) -> Result<Option<Restored>> {
        let booked = [entry_key_of(operation, key)];
        let snapshot =
            self.link.read_all(&booked, Returning { value: true, inbox_unless: None }).await?;
        let Some(book) = snapshot.states.first() else { return Ok(None) };
        let Some(entry) = AuditEntry::of(book)? else { return Ok(None) };
        let number = |name: &str| entry.details.get(name).and_then(serde_json::Value::as_u64);
        let (Some(restored), Some(replaced)) = (number("restored"), number("replaced")) else {
            let message = "the identity was used before for another operation";
            return Err(Error::new(ErrorKind::RequestIdReused, message));
        };
        let asked = match which {
            Which::Named(VersionRef::Number(number)) => Some(*number),
            which => {
                let (_, state) = self.link.read_settled(key, Returning::HEAD).await?;
                self.find(&state, which).await?.map(|found| found.info.number)
            }
        };
        if asked.ok_or_else(no_such_version)? != restored {
            let message = format!(
                "the identity was used before for a rollback to another version: \
                 version=`{restored}`"
            );
            return Err(Error::new(ErrorKind::RequestIdReused, message));
        }
        let not_undone = self.not_undone_since(key, restored).await?;
        let version = replaced + 1;
        Ok(Some(Restored { restored, replaced, version, now: None, held_by: None, not_undone }))
    }

    /// What going back to a version would not undo.
    pub(crate) fn not_undone(
        self: &Arc<Self>,
        key: &ProfileKey,
        version: u64,
    ) -> impl Future<Output = Result<NotUndone>> + Send + 'static + use<> {
        let (engine, key_) = (self.clone(), key.clone());
        self.link.look_up(key, async move { engine.not_undone_since(&key_, version).await })
    }

    async fn not_undone_since(&self, key: &ProfileKey, version: u64) -> Result<NotUndone> {
        let store = &*self.link.store;
        Ok(self.link.reading(Some(key), || not_undone(store, key, version)).await?)
    }

    /// Pins or unpins a version.
    pub(crate) fn pin(
        self: &Arc<Self>,
        key: &ProfileKey,
        which: Which,
        pinned: bool,
        by: Attribution,
    ) -> impl Future<Output = Result<VersionInfo>> + Send + 'static + use<> {
        let (engine, key_) = (self.clone(), key.clone());
        self.link.call(key, async move {
            let incarnation = engine.link.incarnation();
            let (_, state) = engine.link.read_settled(&key_, Returning::HEAD).await?;
            let mut info = engine.find(&state, &which).await?.ok_or_else(no_such_version)?.info;
            let action = if pinned { "pin" } else { "unpin" };
            let entry = AuditEntry::new(engine.link.env.uuid(), action, vec![key_.clone()], by)
                .detail("version", info.number);
            let pin = Change::Pin { key: key_, version: info.number, pinned };
            let deadline = engine.link.deadline();
            engine
                .link
                .settle(
                    &engine.link.commit_in(
                        incarnation,
                        vec![pin, entry.change()?],
                        Returning::HEAD,
                    ),
                    deadline,
                )
                .await?;
            info.pinned = pinned;
            Ok(info)
        })
    }

    /// Whether the profile was removed after this version, though there may be another one in its
    /// place by now.
    pub(super) async fn removed_since(&self, state: &KeyState, version: u64) -> Result<bool> {
        if !state.exists() {
            return Ok(true);
        }
        let key = &state.key;
        let mut query = VersionQuery {
            key: key.clone(),
            order: Order::Ascending,
            from_ms: None,
            to_ms: None,
            after: Some(version),
            limit: 256,
        };
        loop {
            let page = self.link.reading(Some(key), || self.link.store.versions(&query)).await?;
            if page.iter().any(|info| info.removed) {
                return Ok(true);
            }
            match page.last().filter(|_| page.len() == query.limit) {
                Some(last) => query.after = Some(last.number),
                None => return Ok(false),
            }
        }
    }

    async fn find(&self, state: &KeyState, which: &Which) -> Result<Option<StoredVersion>> {
        let store = &*self.link.store;
        let found = match which {
            Which::Named(version) => {
                self.link.reading(Some(&state.key), || find_version(store, state, version)).await
            }
            Which::At(unix_ms) => {
                self.link.reading(Some(&state.key), || version_at(store, state, *unix_ms)).await
            }
        };
        Ok(found?)
    }
}

fn no_such_version() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such version")
}
