//! The rules that every backend shares, free of storage: which commits are well formed, whether a
//! commit's preconditions hold, which versions stay, and which servers get a notice.
//!
//! A backend shows its state *before* the commit through [`View`] and asks [`judge`]. Only when
//! nothing is at fault does it apply the changes, in the order of [`in_order`]. So a backend
//! decides how things are stored, and never what is allowed.
//!
//! In a commit's transaction a backend does this:
//!
//! 1. [`check_commit`] and [`check_incarnation`];
//! 2. answer an id that is known already: [`judge_known`]; also that of a key's last save,
//!    [`is_last_save`];
//! 3. [`judge`]; a [`Fault`] is answered as [`StoreError::Conflict`];
//! 4. a commit of [`only_checks`] ends here;
//! 5. apply the changes: [`in_order`], [`new_version`], [`keeps_previous`]; and keep the [`links`],
//!    which are found in the state before;
//! 6. keep the id as applied, for [`OUTCOME_KEPT_MS`]; of a save by the holder, [`is_own_save`],
//!    in the key, as its last save, over the one before. Before a change that raises the epoch,
//!    the key's last save is kept as all others are;
//! 7. leave notices for the servers that are [`notified`], if their rows are there and not dead;
//! 8. reply: the states of [`keys_of`], the row of [`server_of`], the notices of [`renewed`].

use super::{
    Cause, Change, Commit, CommitId, ConflictKind, DAY_MS, Digest, Incarnation, LeaseState,
    MESSAGE_ID_MAX_AGE_MS, MESSAGE_ID_MAX_AHEAD_MS, MessageId, NewValue, ServerId, ServerRow,
    StoreError, VersionInfo, content::is_same_content,
};
use crate::key::ProfileKey;

mod links;
mod well_formed;

pub use links::links;
pub use well_formed::check_commit;

/// The longest [`Change::Write`] author, in bytes.
pub const MAX_AUTHOR_BYTES: usize = 200;

/// The longest [`ServerRow::owner`], in bytes.
pub const MAX_OWNER_BYTES: usize = 200;

/// How long outcomes and the rows of dead servers are kept.
pub const OUTCOME_KEPT_MS: i64 = 7 * DAY_MS;

/// How long receipts are kept: as long as a message id is accepted, from the farthest future in
/// which it may lie.
pub const RECEIPT_KEPT_MS: i64 = MESSAGE_ID_MAX_AGE_MS + MESSAGE_ID_MAX_AHEAD_MS;

/// The greatest message index that an import or a document may bring: beyond it, a double cannot
/// tell two indexes apart.
pub(super) const MAX_MESSAGE_INDEX: u64 = 1 << 53;

const HOUR_MS: i64 = 60 * 60 * 1000;

/// What became of a commit id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was applied, with this [`Commit::fingerprint`].
    Applied(Option<u64>),
    /// It was aborted before it was applied, and never will be.
    Aborted,
}

/// A key's counters before a commit; all 0 for a key that does not exist.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// [`KeyState::epoch`](super::KeyState::epoch).
    pub epoch: u64,
    /// [`KeyState::version`](super::KeyState::version).
    pub version: u64,
    /// [`KeyState::lease_revision`](super::KeyState::lease_revision).
    pub lease_revision: u64,
    /// [`KeyState::inbox_revision`](super::KeyState::inbox_revision).
    pub inbox_revision: u64,
    /// Messages in the inbox.
    pub waiting: u64,
}

/// A waiting message before a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageFacts {
    /// [`StoredMessage::revision`](super::StoredMessage::revision).
    pub revision: u64,
    /// [`StoredMessage::locked`](super::StoredMessage::locked).
    pub locked: bool,
}

/// What [`judge`] needs to see of a store, as it is before the commit.
pub trait View {
    /// What a look at the store fails with.
    type Error;
    /// A key's counters; all 0 for a key that does not exist.
    fn counters(&mut self, key: &ProfileKey) -> Result<Counters, Self::Error>;
    /// The waiting message of this index.
    fn message(
        &mut self,
        key: &ProfileKey,
        index: u64,
    ) -> Result<Option<MessageFacts>, Self::Error>;
    /// The id of the waiting message of this index.
    fn message_id(
        &mut self,
        key: &ProfileKey,
        index: u64,
    ) -> Result<Option<MessageId>, Self::Error>;
    /// The digest of the content with which this message id was first used, by a waiting message or
    /// a receipt.
    fn used_with(&mut self, key: &ProfileKey, id: &Digest) -> Result<Option<Digest>, Self::Error>;
    /// Whether this version is kept, the current one included.
    fn keeps_version(&mut self, key: &ProfileKey, number: u64) -> Result<bool, Self::Error>;
    /// A server's row.
    fn server(&mut self, id: ServerId) -> Result<Option<ServerRow>, Self::Error>;
    /// What became of a commit id. None when it is not known.
    fn outcome(&mut self, id: CommitId) -> Result<Option<Outcome>, Self::Error>;
}

/// The first precondition that failed, and about what.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// A key is not as the commit expects.
    Key(ConflictKind, ProfileKey),
    /// A server's row is not as the commit expects, or is not there.
    Server(ConflictKind, Option<ServerRow>),
    /// A commit that was to be aborted was applied.
    Commit(ConflictKind),
}

/// Whether a commit is meant for these contents.
pub fn check_incarnation(commit: &Commit, found: Incarnation) -> Result<(), StoreError> {
    if commit.incarnation == found {
        Ok(())
    } else {
        Err(StoreError::Replaced { expected: commit.incarnation, found })
    }
}

/// What is at fault with a commit whose id is known already. None: it was applied, which is its
/// answer.
pub fn judge_known(commit: &Commit, outcome: Outcome) -> Option<ConflictKind> {
    match outcome {
        Outcome::Applied(fingerprint) => fingerprint
            .zip(commit.fingerprint)
            .is_some_and(|(applied, now)| applied != now && !defect!(ReusedRequestDone))
            .then_some(ConflictKind::CommitIdReused),
        Outcome::Aborted => Some(ConflictKind::Aborted),
    }
}

/// True when a commit writes nothing: such a commit is not kept. One for a request, with a
/// [`Commit::fingerprint`], is: the request must not take effect later, when more has changed.
pub fn only_checks(commit: &Commit) -> bool {
    let checks = |change| matches!(change, &Change::Check { .. } | &Change::CheckHost { .. });
    let is_kept = commit.fingerprint.is_some() && !defect!(UnchangedForgotten);
    !is_kept && commit.changes.iter().all(checks)
}

/// The profile of a commit that may be one of [`is_own_save`]: a save and nothing else.
pub fn only_saves(commit: &Commit) -> Option<&ProfileKey> {
    let [Change::Write { key, cause, imported, .. }] = &commit.changes[..] else { return None };
    let is_save = *cause == Cause::Save && imported.is_none() && commit.fingerprint.is_none();
    is_save.then_some(key)
}

/// Whether a commit was applied as a save by the holder, see [`is_own_save`], and is the last one
/// of its profile. `last_save`: what the key says of that.
pub fn is_last_save<E>(
    commit: &Commit,
    last_save: impl FnOnce(&ProfileKey) -> Result<Option<CommitId>, E>,
) -> Result<bool, E> {
    let Some(key) = only_saves(commit) else { return Ok(false) };
    Ok(last_save(key)? == Some(commit.id))
}

/// True for a save by the server that holds the profile, and nothing else. Of these the id of the
/// last one is kept, in the key: a holder saves a profile again only when it knows what became of
/// the save before. `lease`: the key's, before the commit.
pub fn is_own_save(commit: &Commit, lease: &LeaseState) -> bool {
    let holder = lease.holder.as_ref().and_then(|holder| holder.server);
    only_saves(commit).is_some() && commit.from.is_some() && commit.from == holder
}

/// Judges a well formed commit's preconditions against the state before it, in their order. None:
/// all of them hold.
pub fn judge<V: View>(
    view: &mut V,
    commit: &Commit,
    now_ms: i64,
) -> Result<Option<Fault>, V::Error> {
    // Messages of this very commit count towards a cap.
    let mut appended: Vec<(&ProfileKey, u64)> = Vec::new();
    for change in &commit.changes {
        let fault = match change {
            Change::Check { key, epoch } | Change::Erase { key, epoch } => {
                (view.counters(key)?.epoch != *epoch && !defect!(FenceCheckRemoved))
                    .then(|| Fault::Key(ConflictKind::Epoch, key.clone()))
            }
            Change::Write { .. } if defect!(FenceCheckRemoved) => None,
            Change::Write { key, epoch, version, .. } => {
                let found = view.counters(key)?;
                if found.epoch != *epoch {
                    Some(Fault::Key(ConflictKind::Epoch, key.clone()))
                } else {
                    (found.version != *version)
                        .then(|| Fault::Key(ConflictKind::Version, key.clone()))
                }
            }
            Change::Lease { key, revision, .. } => (view.counters(key)?.lease_revision
                != *revision)
                .then(|| Fault::Key(ConflictKind::Lease, key.clone())),
            Change::AppendMessage { key, message, cap } => {
                let position =
                    appended.iter().position(|(other, _)| *other == key).unwrap_or_else(|| {
                        appended.push((key, 0));
                        appended.len() - 1
                    });
                let kind = match view.used_with(key, &message.id.digest())? {
                    Some(content) if is_same_content(content, &message.payload) => {
                        Some(ConflictKind::MessageSeen)
                    }
                    Some(_) => Some(ConflictKind::MessageIdReused),
                    None if !accepts_message_id(&message.id, now_ms) => {
                        Some(ConflictKind::MessageIdExpired)
                    }
                    None => (view.counters(key)?.waiting + appended[position].1 >= u64::from(*cap))
                        .then_some(ConflictKind::InboxFull),
                };
                appended[position].1 += 1;
                kind.map(|kind| Fault::Key(kind, key.clone()))
            }
            Change::ChangeMessage { key, index, revision, .. } => {
                match view.message(key, *index)? {
                    None => Some(Fault::Key(ConflictKind::MessageGone, key.clone())),
                    Some(found) if found.locked => {
                        Some(Fault::Key(ConflictKind::MessageLocked, key.clone()))
                    }
                    Some(found) => (found.revision != *revision)
                        .then(|| Fault::Key(ConflictKind::MessageRevision, key.clone())),
                }
            }
            Change::LockMessage { key, index, revision } => match view.message(key, *index)? {
                None => Some(Fault::Key(ConflictKind::MessageGone, key.clone())),
                Some(found) => (found.revision != *revision)
                    .then(|| Fault::Key(ConflictKind::MessageRevision, key.clone())),
            },
            Change::RemoveMessage { key, index, .. } => view
                .message(key, *index)?
                .is_none()
                .then(|| Fault::Key(ConflictKind::MessageGone, key.clone())),
            Change::ReplaceInbox { key, revision, .. } => (view.counters(key)?.inbox_revision
                != *revision)
                .then(|| Fault::Key(ConflictKind::InboxRevision, key.clone())),
            Change::Pin { key, version, .. } => (!view.keeps_version(key, *version)?)
                .then(|| Fault::Key(ConflictKind::VersionGone, key.clone())),
            Change::RegisterServer { .. }
            | Change::RenewServer { .. }
            | Change::RehostServer { .. }
            | Change::CheckHost { .. }
            | Change::MarkDead { .. } => judge_server(view, change)?,
            Change::Abort { commit } => matches!(view.outcome(*commit)?, Some(Outcome::Applied(_)))
                .then_some(Fault::Commit(ConflictKind::AlreadyApplied)),
        };
        if fault.is_some() {
            return Ok(fault);
        }
    }
    Ok(None)
}

/// What is at fault with a change of a server's row, or a check of its host.
fn judge_server<V: View>(view: &mut V, change: &Change) -> Result<Option<Fault>, V::Error> {
    let (Change::RegisterServer { id, .. }
    | Change::RenewServer { id, .. }
    | Change::RehostServer { id, .. }
    | Change::CheckHost { id, .. }
    | Change::MarkDead { id, .. }) = change
    else {
        return Ok(None);
    };
    let row = view.server(*id)?;
    let kind = match (change, &row) {
        (Change::RegisterServer { .. }, None) => None,
        // Also when it is dead: what becomes of it is no business of its old host.
        (Change::RenewServer { host, .. }, Some(row))
            if row.host != *host && !defect!(AnyHostRenews) =>
        {
            Some(ConflictKind::Hosted)
        }
        (Change::RenewServer { revision, .. }, Some(row)) => {
            let alive = !row.dead || defect!(DeadRowRenewable);
            (!alive || row.revision != *revision).then_some(ConflictKind::Server)
        }
        (Change::RehostServer { generation, .. }, Some(row)) if !row.dead => {
            (*generation <= row.generation).then_some(ConflictKind::Hosted)
        }
        (Change::CheckHost { host, .. }, row) => {
            let found = row.as_ref().and_then(|row| row.host);
            (found != Some(*host)).then_some(ConflictKind::Hosted)
        }
        (Change::MarkDead { revision, .. }, Some(row)) if row.revision == *revision => None,
        _ => Some(ConflictKind::Server),
    };
    Ok(kind.map(|kind| Fault::Server(kind, row)))
}

/// Whether a message id's time lets it be appended now.
pub(super) fn accepts_message_id(id: &MessageId, now_ms: i64) -> bool {
    let age = now_ms.saturating_sub(id.created_ms());
    (-MESSAGE_ID_MAX_AHEAD_MS..=MESSAGE_ID_MAX_AGE_MS).contains(&age)
}

/// The version that a write replaces, as far as it matters for whether it stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    /// [`VersionInfo::stored_ms`].
    pub stored_ms: i64,
    /// [`VersionInfo::removed`].
    pub removed: bool,
    /// Whether the write or a later change of the lease sealed it.
    pub sealed: bool,
    /// [`VersionInfo::pinned`].
    pub pinned: bool,
    /// Whether an import brought it.
    pub imported: bool,
}

/// Whether a version stays in the history when it is replaced. See
/// [`Change::Write::keep_previous`].
pub fn keeps_previous(previous: Replaced, keep_previous: bool, now_ms: i64) -> bool {
    let Replaced { stored_ms, removed, sealed, pinned, imported } = previous;
    keep_previous || removed || sealed || pinned || imported || stored_ms < start_of_hour(now_ms)
}

/// When the UTC hour began in which a time lies.
pub(super) fn start_of_hour(ms: i64) -> i64 {
    ms - ms.rem_euclid(HOUR_MS)
}

/// What a write's new version is, at this time. Its load count is known once the whole commit was
/// applied. None for other changes.
pub fn new_version(change: &Change, now_ms: i64) -> Option<VersionInfo> {
    let Change::Write { version, value, cause, author, imported, .. } = change else { return None };
    let bytes = match value {
        NewValue::Bytes(bytes) => bytes.len() as u64,
        NewValue::Tombstone => 0,
    };
    Some(VersionInfo {
        number: version + 1,
        label: imported.as_ref().and_then(|imported| imported.label.clone()),
        written_ms: imported.as_ref().map_or(now_ms, |imported| imported.written_ms),
        stored_ms: now_ms,
        superseded_ms: None,
        removed: *value == NewValue::Tombstone,
        cause: *cause,
        author: author.clone(),
        load_count: 0,
        pinned: false,
        bytes,
    })
}

/// A commit's changes in the order in which they are applied: pins first, since a version that is
/// pinned and replaced in one commit stays, then all others as they were given.
pub fn in_order(commit: &Commit) -> impl Iterator<Item = &Change> {
    let pins = |change: &&Change| matches!(change, Change::Pin { .. });
    commit
        .changes
        .iter()
        .filter(pins)
        .chain(commit.changes.iter().filter(move |change| !pins(change)))
}

/// Which servers get a notice about a key whose lease, data or inbox a commit changed: the one that
/// held the lease before, the one that the new offer names, the one whose request was taken away,
/// and the one that asks next when an offer was withdrawn; never the server that made the commit.
pub fn notified(commit: &Commit, key: &ProfileKey, before: &LeaseState) -> Vec<ServerId> {
    let lease = commit.changes.iter().find_map(|change| match change {
        Change::Lease { key: other, lease, .. } if other == key => Some(lease),
        _ => None,
    });
    let offered =
        lease.filter(|lease| lease.offer != before.offer).and_then(|lease| lease.offer.as_ref());
    let refused = before.request.as_ref().filter(|before| {
        lease.is_some_and(|lease| {
            lease.request.as_ref().is_none_or(|request| request.id != before.id)
        })
    });
    let free = |lease: &&LeaseState| lease.offer.is_none() && lease.holder.is_none();
    let next = lease.filter(free).filter(|_| before.offer.is_some());
    let next = next.and_then(|lease| lease.request.as_ref());
    let holder = before.holder.as_ref().and_then(|holder| holder.server);
    let mut servers = Vec::new();
    for server in holder
        .into_iter()
        .chain(offered.map(|offer| offer.server))
        .chain(refused.and_then(|request| request.server))
        .chain(next.and_then(|request| request.server))
    {
        if commit.from != Some(server) && !servers.contains(&server) {
            servers.push(server);
        }
    }
    servers
}

/// The keys of a commit, each once, in order of first mention.
pub fn keys_of(commit: &Commit) -> Vec<&ProfileKey> {
    let mut keys: Vec<&ProfileKey> = Vec::new();
    for key in commit.changes.iter().filter_map(Change::key) {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

/// The server whose row a commit's reply shows: the renewed one, or else the last one mentioned.
pub fn server_of(commit: &Commit) -> Option<ServerId> {
    renewed(commit).or_else(|| {
        commit.changes.iter().rev().find_map(|change| match change {
            Change::RegisterServer { id, .. } | Change::MarkDead { id, .. } => Some(*id),
            _ => None,
        })
    })
}

/// The row that [`Change::RegisterServer`] makes. None for other changes.
pub fn new_server(change: &Change, now_ms: i64) -> Option<ServerRow> {
    let Change::RegisterServer { id, place_id, job_id, lease_ms, host, owner } = change else {
        return None;
    };
    Some(ServerRow {
        id: *id,
        place_id: *place_id,
        job_id: job_id.clone(),
        revision: 1,
        lease_ms: *lease_ms,
        started_ms: now_ms,
        renewed_ms: now_ms,
        dead: false,
        host: *host,
        generation: 0,
        owner: owner.clone(),
    })
}

/// Makes a row what [`Change::RenewServer`] or [`Change::RehostServer`] makes it.
pub fn renew_server(row: &mut ServerRow, change: &Change, now_ms: i64) {
    if let Change::RehostServer { generation, host, .. } = change {
        (row.generation, row.host) = (*generation, Some(*host));
    }
    row.revision += 1;
    row.renewed_ms = now_ms;
}

/// True for a commit of nothing but renewals.
#[cfg(feature = "postgres")]
pub(super) fn only_renews(commit: &Commit) -> bool {
    commit.changes.iter().all(|change| matches!(change, Change::RenewServer { .. }))
}

/// The server that a commit renews or rehosts: its notices belong in the reply.
pub fn renewed(commit: &Commit) -> Option<ServerId> {
    commit.changes.iter().find_map(|change| match change {
        Change::RenewServer { id, .. } | Change::RehostServer { id, .. } => Some(*id),
        _ => None,
    })
}

/// The first string behind all that begin with a prefix; None when there is none. Text sorts by its
/// characters' numbers.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub(super) fn end_of_prefix(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // The numbers of the surrogates, between these two, are no characters.
        let next =
            if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(u32::from(last) + 1) };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests;
