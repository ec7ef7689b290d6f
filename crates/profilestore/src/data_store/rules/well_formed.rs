//! Which commits are well formed: what can be said of a commit without a look at the store.

use std::collections::BTreeSet;

use super::{MAX_AUTHOR_BYTES, MAX_MESSAGE_INDEX, MAX_OWNER_BYTES};
use crate::{
    data_store::{
        Change, Commit, CommitId, Imported, MAX_MESSAGE_BYTES, MAX_VALUE_BYTES, MessageId,
        NewValue, ServerId, StoreError, StoredMessage,
    },
    key::ProfileKey,
};

type Checked = Result<(), StoreError>;

/// Whether a commit is well formed: at least one change; at most one write and one lease a key and
/// one change a server; an abort alone; sizes within their limits; no message changed after its
/// removal or appended twice; a replaced inbox before all else that concerns the inbox, and changed
/// by nothing but appending; an erasure after all else that concerns its key.
pub fn check_commit(commit: &Commit) -> Result<(), StoreError> {
    if commit.changes.is_empty() {
        return invalid(format!("a commit holds at least one change: commit=`{}`", commit.id));
    }
    // Most commits are one write, which nothing comes before.
    if let [Change::Write { key, value, author, imported, .. }] = commit.changes.as_slice() {
        return check_write(key, value, author, imported.as_ref());
    }
    let mut before = Before::default();
    commit.changes.iter().try_for_each(|change| before.check(commit, change))
}

/// What the changes before this one have touched.
#[derive(Default)]
struct Before<'a> {
    written: BTreeSet<&'a ProfileKey>,
    leased: BTreeSet<&'a ProfileKey>,
    servers: BTreeSet<&'a ServerId>,
    removed: BTreeSet<(&'a ProfileKey, u64)>,
    inboxes: BTreeSet<&'a ProfileKey>,
    replaced: BTreeSet<&'a ProfileKey>,
    appended: BTreeSet<(&'a ProfileKey, &'a MessageId)>,
    erased: BTreeSet<&'a ProfileKey>,
}

impl<'a> Before<'a> {
    fn check(&mut self, commit: &Commit, change: &'a Change) -> Checked {
        if let Some(key) = change.key().filter(|key| self.erased.contains(key)) {
            return invalid(format!("an erasure is the last change of its key: key=`{key}`"));
        }
        match change {
            Change::Erase { key, .. } => {
                self.erased.insert(key);
                Ok(())
            }
            Change::Write { key, value, author, imported, .. } => {
                if !self.written.insert(key) {
                    return invalid(format!("a commit writes a key at most once: key=`{key}`"));
                }
                check_write(key, value, author, imported.as_ref())
            }
            Change::Lease { key, .. } if !self.leased.insert(key) => {
                invalid(format!("a commit changes a key's lease at most once: key=`{key}`"))
            }
            Change::AppendMessage { key, message, .. } => {
                limit("a message", message.payload.len(), MAX_MESSAGE_BYTES, key)?;
                self.inboxes.insert(key);
                self.append(key, &message.id)
            }
            Change::ChangeMessage { key, index, payload, .. } => {
                limit("a message", payload.len(), MAX_MESSAGE_BYTES, key)?;
                self.touch(key, *index)
            }
            Change::LockMessage { key, index, .. } => self.touch(key, *index),
            Change::RemoveMessage { key, index, .. } => {
                self.touch(key, *index)?;
                self.removed.insert((key, *index));
                Ok(())
            }
            Change::ReplaceInbox { key, last_message, messages, .. } => {
                self.replace(key, *last_message, messages)
            }
            Change::RegisterServer { id, owner, .. } => {
                self.server(id, owner.as_deref().unwrap_or_default())
            }
            Change::RenewServer { id, .. }
            | Change::RehostServer { id, .. }
            | Change::MarkDead { id, .. } => self.server(id, ""),
            Change::Abort { commit: other } => check_abort(commit, *other),
            Change::Lease { .. }
            | Change::Check { .. }
            | Change::CheckHost { .. }
            | Change::Pin { .. } => Ok(()),
        }
    }

    fn append(&mut self, key: &'a ProfileKey, id: &'a MessageId) -> Checked {
        if self.appended.insert((key, id)) {
            return Ok(());
        }
        invalid(format!("a commit appends a message at most once: key=`{key}` message=`{id}`"))
    }

    /// A change of one message that is there.
    fn touch(&mut self, key: &'a ProfileKey, index: u64) -> Checked {
        self.inboxes.insert(key);
        if self.replaced.contains(key) {
            return invalid(format!(
                "a commit changes no message of an inbox that it replaces: key=`{key}` \
                index=`{index}`"
            ));
        }
        if self.removed.contains(&(key, index)) {
            return invalid(format!(
                "a commit changes no message after removing it: key=`{key}` index=`{index}`"
            ));
        }
        Ok(())
    }

    fn replace(
        &mut self,
        key: &'a ProfileKey,
        last_message: u64,
        messages: &'a [StoredMessage],
    ) -> Checked {
        if !self.inboxes.insert(key) {
            return invalid(format!(
                "a replaced inbox comes before other changes of the inbox: key=`{key}`"
            ));
        }
        self.replaced.insert(key);
        if last_message > MAX_MESSAGE_INDEX {
            return invalid(format!(
                "a message's index is too great: key=`{key}` index=`{last_message}`"
            ));
        }
        let mut before = 0;
        for message in messages {
            limit("a message", message.payload.len(), MAX_MESSAGE_BYTES, key)?;
            if message.index <= before || message.index > last_message {
                return invalid(format!(
                    "the messages of an inbox ascend from 1 to the last index: key=`{key}` \
                    index=`{}` last=`{last_message}`",
                    message.index
                ));
            }
            before = message.index;
            self.append(key, &message.id)?;
        }
        Ok(())
    }

    fn server(&mut self, id: &'a ServerId, owner: &str) -> Checked {
        if owner.len() > MAX_OWNER_BYTES {
            return invalid(format!(
                "the owner of a server is too long: server=`{id}` bytes=`{}` \
                limit=`{MAX_OWNER_BYTES}`",
                owner.len()
            ));
        }
        if !self.servers.insert(id) {
            return invalid(format!("a commit changes a server at most once: server=`{id}`"));
        }
        Ok(())
    }
}

fn check_write(
    key: &ProfileKey,
    value: &NewValue,
    author: &str,
    imported: Option<&Imported>,
) -> Checked {
    if let NewValue::Bytes(bytes) = value {
        limit("a value", bytes.len(), MAX_VALUE_BYTES, key)?;
    }
    limit("an author", author.len(), MAX_AUTHOR_BYTES, key)?;
    let label = imported.and_then(|imported| imported.label.as_deref());
    limit("a version string", label.map_or(0, str::len), MAX_AUTHOR_BYTES, key)
}

fn check_abort(commit: &Commit, other: CommitId) -> Checked {
    if commit.changes.len() > 1 {
        return invalid(format!(
            "an abort is the only change of its commit: commit=`{}`",
            commit.id
        ));
    }
    if other == commit.id {
        return invalid(format!("a commit cannot abort itself: commit=`{other}`"));
    }
    Ok(())
}

fn limit(what: &str, bytes: usize, limit: usize, key: &ProfileKey) -> Checked {
    if bytes <= limit {
        return Ok(());
    }
    invalid(format!("{what} is too large: key=`{key}` bytes=`{bytes}` limit=`{limit}`"))
}

fn invalid<T>(reason: String) -> Result<T, StoreError> {
    Err(StoreError::Invalid { reason })
}
