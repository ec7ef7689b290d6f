//! Erasing a user: every profile of theirs, one commit each, then what the audit log holds of them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::{Engine, calls::Overwrite, rewrite::Plan};
use crate::{
    audit::{
        Attribution, AuditEntry, AuditOutcome, AuditQuery, ERASE, ERASED_MS, audit_entries_within,
        unredacted_erasures_within,
    },
    data_store::{
        Cause, Change, DataStore, DataStoreExt, KeyQuery, KeyState, NewValue, Order, Returning,
        VersionInfo, VersionQuery, VersionRef,
    },
    edit::request::dismissed,
    env::Env,
    error::{Error, ErrorKind, Result},
    key::ProfileKey,
    record::{Stored, UserId},
};

/// Why edits that waited for an erased profile are refused.
const WHY: &str = "the profile was erased";

/// How many keys or versions are asked for at once.
const PAGE: usize = 256;

/// What [`crate::Operator::erase_user`] did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[must_use = "profiles that were not erased are listed here"]
#[non_exhaustive]
pub struct EraseReport {
    /// The user.
    pub user_id: UserId,
    /// The operation in the audit log.
    pub operation: Uuid,
    /// The profiles that are gone.
    pub erased: Vec<ErasedProfile>,
    /// Profiles that belong to other users too. They were left alone.
    pub shared: Vec<SharedProfile>,
    /// Profiles that could not be erased. They are as they were.
    pub failed: Vec<FailedErasure>,
    /// Audit entries about the erased profiles that lost their details, such as the values of an
    /// edit.
    pub audit_entries: u64,
    /// Audit entries that cannot be read, and may hold something of the user.
    pub unreadable_entries: Vec<ProfileKey>,
}

impl EraseReport {
    /// True when nothing of the user's own is left.
    pub fn is_complete(&self) -> bool {
        self.shared.is_empty() && self.failed.is_empty() && self.unreadable_entries.is_empty()
    }
}

/// A profile that was erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ErasedProfile {
    /// Which.
    #[serde(flatten)]
    pub key: ProfileKey,
    /// How many versions it had, the current one and tombstones included.
    pub versions: u64,
    /// How many messages were waiting.
    pub messages: u64,
    /// The job whose session was ended.
    pub held_by: Option<String>,
}

/// A profile that was not erased because others have a part in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SharedProfile {
    /// Which.
    #[serde(flatten)]
    pub key: ProfileKey,
    /// All users associated with it.
    pub user_ids: Vec<UserId>,
}

/// A profile whose erasure failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FailedErasure {
    /// Which.
    #[serde(flatten)]
    pub key: ProfileKey,
    /// Why.
    pub why: String,
}

/// Whose erasure it is, and how far it goes.
#[derive(Debug, Clone)]
struct Wanted {
    user_id: UserId,
    shared: bool,
    operation: Uuid,
    by: Attribution,
}

/// Whether an error says that a value cannot be read, now and later.
fn is_unreadable(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Damaged)
}

/// When the profile of an erasure's entry was erased.
fn erased_at(entry: &AuditEntry) -> i64 {
    entry.details.get(ERASED_MS).and_then(Value::as_i64).unwrap_or(entry.stored_ms)
}

fn users_in(bytes: &[u8]) -> Result<Vec<UserId>> {
    Ok(Stored::decode(bytes)?.users())
}

/// What became of one profile.
enum Fate {
    Erased(ErasedProfile),
    Shared(SharedProfile),
    /// It is the user's no more.
    Gone,
}

impl Engine {
    pub(crate) async fn erase_user(
        self: &Arc<Self>,
        user_id: UserId,
        shared: bool,
        by: &Attribution,
    ) -> Result<EraseReport> {
        let operation = self.link.env.uuid();
        let keys = user_id.keys();
        let wanted = Wanted { user_id: user_id.clone(), shared, operation, by: by.clone() };
        let mut report = EraseReport {
            user_id,
            operation,
            erased: Vec::new(),
            shared: Vec::new(),
            failed: Vec::new(),
            audit_entries: 0,
            unreadable_entries: Vec::new(),
        };
        let mut query =
            KeyQuery { store: None, scope: None, filter: keys, after: None, limit: PAGE };
        loop {
            let (page, next) = self.link.reading(None, || self.link.store.profiles(&query)).await?;
            for state in page {
                match self.erase(&state.key, wanted.clone()).await {
                    Ok(Fate::Erased(erased)) => report.erased.push(erased),
                    Ok(Fate::Shared(shared)) => report.shared.push(shared),
                    Ok(Fate::Gone) => {}
                    Err(error) => {
                        report.failed.push(FailedErasure { key: state.key, why: error.to_string() })
                    }
                }
            }
            let Some(next) = next else { break };
            query.after = Some(next);
        }
        metrics::counter!("profilestore_erased_profiles_total")
            .increment(report.erased.len() as u64);
        (report.audit_entries, report.unreadable_entries) = self.redact().await?;
        Ok(report)
    }

    fn erase(
        self: &Arc<Self>,
        key: &ProfileKey,
        wanted: Wanted,
    ) -> impl Future<Output = Result<Fate>> + Send + 'static + use<> {
        let (engine, key_) = (self.clone(), key.clone());
        self.link.call(key, async move { engine.erase_now(&key_, &wanted).await })
    }

    async fn erase_now(&self, key: &ProfileKey, wanted: &Wanted) -> Result<Fate> {
        Ok(self.rewrite(key, |_| self.plan_erasure(key, wanted)).await?.0)
    }

    async fn plan_erasure(&self, key: &ProfileKey, wanted: &Wanted) -> Result<Plan<Fate>> {
        let (_, state) = self.link.read_even_damaged(key).await?;
        let versions = self.kept_versions(key).await?;
        let user_ids = match self.users(&state, &versions).await {
            // It is listed as the user's, and others' may be erased too.
            Err(error) if wanted.shared && is_unreadable(&error) => vec![wanted.user_id.clone()],
            users => users?,
        };
        if !user_ids.contains(&wanted.user_id) {
            return Ok(Plan::Done(Fate::Gone));
        }
        if !wanted.shared && user_ids.iter().any(|user| *user != wanted.user_id) {
            return Ok(Plan::Done(Fate::Shared(SharedProfile { key: key.clone(), user_ids })));
        }
        let erased = ErasedProfile {
            key: key.clone(),
            versions: versions.len() as u64,
            messages: state.inbox.as_ref().map_or(0, Vec::len) as u64,
            held_by: state.lease.holder.as_ref().map(|holder| holder.job_id.clone()),
        };
        let entry = AuditEntry::new(wanted.operation, ERASE, vec![key.clone()], wanted.by.clone())
            .detail("versions", erased.versions)
            .detail("messages", erased.messages);
        let mut more = dismissed(key, state.inbox.as_deref().unwrap_or_default(), WHY)?;
        more.extend([Change::Erase { key: key.clone(), epoch: state.epoch }, entry.change()?]);
        let overwrite = Overwrite {
            value: NewValue::Tombstone,
            user_ids: Vec::new(),
            cause: Cause::Remove,
            author: wanted.by.author.clone(),
            more,
        };
        Ok(overwrite.plan(&state, Fate::Erased(erased)))
    }

    /// With whom the tombstone of a profile stays associated, also when it takes the place of
    /// another one.
    pub(super) async fn users_to_keep(&self, state: &KeyState) -> Result<Vec<i64>> {
        let indexed = |users: &[UserId]| users.iter().map(UserId::indexed).collect();
        if let Some(users) = state.value.as_ref().and_then(|bytes| users_in(bytes).ok()) {
            return Ok(indexed(&users));
        }
        // As far as can be told: what cannot be read may have had others.
        for info in self.kept_versions(&state.key).await?.iter().filter(|info| !info.removed) {
            match self.users_of_version(&state.key, info.number).await {
                Ok(Some(users)) => return Ok(indexed(&users)),
                Ok(None) => {}
                Err(error) if is_unreadable(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Vec::new())
    }

    async fn kept_versions(&self, key: &ProfileKey) -> Result<Vec<VersionInfo>> {
        let mut query = VersionQuery {
            key: key.clone(),
            order: Order::Descending,
            from_ms: None,
            to_ms: None,
            after: None,
            limit: PAGE,
        };
        let mut all = Vec::new();
        loop {
            let page = self.link.reading(Some(key), || self.link.store.versions(&query)).await?;
            let full = page.len() == PAGE;
            query.after = page.last().map(|info| info.number);
            all.extend(page);
            if !full {
                return Ok(all);
            }
        }
    }

    /// The users of a profile: of its current version, or of the one that was removed last. Fails
    /// when that cannot be read: others than are known may have a part in it.
    async fn users(&self, state: &KeyState, versions: &[VersionInfo]) -> Result<Vec<UserId>> {
        let users = match (&state.value, versions.iter().find(|info| !info.removed)) {
            (Some(bytes), _) => users_in(bytes),
            (None, Some(newest)) => {
                let users = self.users_of_version(&state.key, newest.number).await;
                users.map(Option::unwrap_or_default)
            }
            (None, None) => Ok(Vec::new()),
        };
        users.map_err(|error| {
            if !is_unreadable(&error) {
                return error;
            }
            let message = "the value cannot be read, so that it cannot be told who else has a part \
                in it; remove it by its key, or erase the user with shared profiles too";
            Error::new(ErrorKind::Corrupt, message).caused_by(error)
        })
    }

    /// None when the version is gone.
    async fn users_of_version(&self, key: &ProfileKey, number: u64) -> Result<Option<Vec<UserId>>> {
        let version = VersionRef::Number(number);
        let store = &self.link.store;
        let found = self.link.reading(Some(key), || store.version(key, &version)).await?;
        let Some(bytes) = found.and_then(|version| version.value) else { return Ok(None) };
        users_in(&bytes).map(Some)
    }

    /// Takes the details out of the audit entries about profiles that were erased after them, and
    /// forgets what they were. It goes by what the log itself says was erased: what one erasure was
    /// kept from doing, the next one does. Answers with their number, and with the entries that
    /// cannot be read.
    async fn redact(&self) -> Result<(u64, Vec<ProfileKey>)> {
        let (mut redacted, mut unreadable, mut after) = (0, BTreeSet::new(), None);
        let (store, env, each) = self.log();
        loop {
            let page = unredacted_erasures_within(store, after, env, each).await?;
            unreadable.extend(page.unreadable.into_iter().map(|entry| entry.key));
            for erasure in &page.entries {
                let mut complete = true;
                for key in &erasure.keys {
                    let (entries, damaged) = self.redact_profile(key).await?;
                    redacted += entries;
                    complete &= damaged.is_empty();
                    unreadable.extend(damaged);
                }
                if complete {
                    self.note_redacted(&erasure.key()).await?;
                }
            }
            let Some(next) = page.next else { break };
            after = Some(next);
        }
        Ok((redacted, unreadable.into_iter().collect()))
    }

    /// Where the audit log is read, and how long each call of the store may take.
    fn log(&self) -> (&dyn DataStore, &Env, Duration) {
        (&*self.link.store, &self.link.env, self.link.settings().call_timeout)
    }

    /// The same for one profile.
    async fn redact_profile(&self, key: &ProfileKey) -> Result<(u64, Vec<ProfileKey>)> {
        let (entries, unreadable) = self.entries_about(key).await?;
        let erasures = entries.iter().filter(|entry| entry.action == ERASE);
        let Some(erased_ms) = erasures.map(erased_at).max() else { return Ok((0, unreadable)) };
        let mut redacted = 0;
        for entry in entries.iter().filter(|entry| entry.action != ERASE) {
            // An edit that came to the holder's inbox at the last moment was erased with it.
            let left = !entry.details.is_empty() || entry.outcome == AuditOutcome::Pending;
            // A standing edit's entry about a later life of the profile stands over the one about
            // the erased life.
            let over_older = entry.details.contains_key("new");
            if over_older || (left && entry.stored_ms <= erased_ms) {
                redacted += u64::from(self.redact_entry(&entry.key(), erased_ms).await?);
            }
        }
        Ok((redacted, unreadable))
    }

    /// Writes into an erasure's entry that the log holds nothing more of what was erased.
    async fn note_redacted(&self, at: &ProfileKey) -> Result<()> {
        let plan = |_| async {
            let (_, state) = self.link.read_settled(at, Returning::ALL).await?;
            let Some(entry) = AuditEntry::of(&state)? else { return Ok(Plan::Done(())) };
            if entry.details.contains_key(ERASED_MS) {
                return Ok(Plan::Done(()));
            }
            let erased_ms = entry.stored_ms;
            let change = entry.detail(ERASED_MS, erased_ms).change_at(state.version)?;
            Ok(Plan::Commit(vec![change], Returning::HEAD, ()))
        };
        self.rewrite(at, plan).await.map(drop)
    }

    /// Whether an edit waits for a holder, in spite of an erasure that seems to be the later one:
    /// the store's clock may have stepped.
    async fn waits(&self, entry: &AuditEntry) -> Result<bool> {
        let ([key], AuditOutcome::Pending) = (&entry.keys[..], &entry.outcome) else {
            return Ok(false);
        };
        let (_, state) = self.link.read_settled(key, Returning::INBOX).await?;
        Ok(state
            .inbox
            .iter()
            .flatten()
            .any(|message| message.id.operation() == Some(entry.operation)))
    }

    /// All entries about a profile, and those that cannot be read.
    async fn entries_about(&self, key: &ProfileKey) -> Result<(Vec<AuditEntry>, Vec<ProfileKey>)> {
        let mut query = AuditQuery { key: Some(key.clone()), ..AuditQuery::default() };
        let (mut entries, mut unreadable) = (Vec::new(), Vec::new());
        let (store, env, each) = self.log();
        loop {
            let page = audit_entries_within(store, &query, env, each).await?;
            entries.extend(page.entries);
            unreadable.extend(page.unreadable.into_iter().map(|entry| entry.key));
            let Some(next) = page.next else { return Ok((entries, unreadable)) };
            query.after = Some(next);
        }
    }

    /// Takes out the details of what was stored by then, and forgets what stood there before. What
    /// was booked there since stays: it is about a later life of the profile. False when there were
    /// no details to be taken out.
    async fn redact_entry(&self, at: &ProfileKey, erased_ms: i64) -> Result<bool> {
        let plan = |_| async {
            let (_, state) = self.link.read_settled(at, Returning::ALL).await?;
            let Some(mut entry) = AuditEntry::of(&state)? else { return Ok(Plan::Done(false)) };
            let mut changes = Vec::new();
            let redacts = entry.stored_ms <= erased_ms && !self.waits(&entry).await?;
            if redacts {
                entry.details.clear();
                if entry.outcome == AuditOutcome::Pending {
                    entry.outcome = AuditOutcome::Refused { why: WHY.into() };
                }
                changes.push(entry.change_at(state.version)?);
            }
            changes.push(Change::Erase { key: at.clone(), epoch: state.epoch });
            Ok(Plan::Commit(changes, Returning::HEAD, redacts))
        };
        Ok(self.rewrite(at, plan).await?.0)
    }
}
